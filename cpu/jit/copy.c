/*
 * copy.c - copying an instruction: the same operation with other registers, and with the host
 * address in R10 where it names memory.
 *
 * Only rows that the table allows (PASS) are copied; everything about an operand's place in the
 * encoding comes from the row's operand letters (docs/instruction-table.md).
 */
#include "cpu/interp/execute.h"
#include "cpu/jit/build.h"
#include "insn_exec.h"
#include <stdlib.h>

/* ---- What rows look like --------------------------------------------------------------------- */

static void read_operand(struct jit_row *row, const char *token, uint8_t number)
{
    switch (token[0]) {
    case 'E':
    case 'R':
        row->rm = FIELD_GPR;
        row->rm_op = number;
        break;
    case 'G':
        row->reg = FIELD_GPR;
        row->reg_op = number;
        break;
    case 'Z':
        row->opcode = FIELD_GPR;
        row->opcode_op = number;
        break;
    case 'B':
        row->vvvv = FIELD_GPR;
        break;
    case 'V':
        row->reg = FIELD_VEC;
        break;
    case 'W':
    case 'U':
        row->rm = FIELD_VEC;
        break;
    case 'H':
        row->vvvv = FIELD_VEC;
        break;
    case 'L':
        row->is4 = FIELD_VEC;
        break;
    case 'O': /* A0h to A3h are copied as 8Ah, 8Bh, 88h, 89h */
        row->copy = true;
        break;
    case '[': /* memory that ModRM does not name */
        row->copy = false;
        break;
    case 'M':
        if (token[1] == 'X' || token[1] == 'Y')
            row->copy = false; /* VSIB */
        break;
    default: /* immediates and fixed registers: these have the same names on the host */
        break;
    }
}

static uint8_t mandatory_prefix(const char *encoding)
{
    if (!strncmp(encoding, "VEX", 3))
        return 0;
    if (strstr(encoding, "F2 ") == encoding || strstr(encoding, " F2 0F"))
        return 0xf2;
    if (strstr(encoding, "F3 ") == encoding || strstr(encoding, " F3 0F"))
        return 0xf3;
    return strstr(encoding, "66 ") == encoding || strstr(encoding, " 66 0F") ? 0x66 : 0;
}

/* MXCSR comes with vectors, also where none is named: CVTTSD2SI from memory, STMXCSR. */
static bool needs_mxcsr(const struct insn_row *row)
{
    return row->attr & INSN_MXCSR || row->exec == EXEC_vec_stmxcsr;
}

static struct jit_row describe(const struct insn_row *row)
{
    enum { NEVER = INSN_BRANCH | INSN_SYSTEM | INSN_CPL0 | INSN_NO64 };
    bool x87 = row->attr & (INSN_MMX | INSN_X87);
    struct jit_row r = {.copy = (x87 ? x87_row_copies(row) : row->attr & INSN_PASS) &&
                                !(row->attr & NEVER),
                        .prefix = mandatory_prefix(row->encoding),
                        .wig = strstr(row->encoding, "WIG") != NULL,
                        .escape = row->map == MAP_0F                             ? 1
                                  : row->map == MAP_0F38 || row->map == MAP_0F3A ? 2
                                                                                 : 0};
    const char *p = row->operands;
    for (uint8_t n = 0; *p && *p != '('; n++) { /* implicit operands come last */
        read_operand(&r, p, n);
        p += strcspn(p, " ");
        p += strspn(p, " ");
    }
    switch (row->exec) {
    case EXEC_inc: /* 40h to 4Fh too, in another encoding */
    case EXEC_dec:
    case EXEC_gen_fence: /* guest memory is host memory */
    case EXEC_gen_cmpxchg8b:
    case EXEC_vec_stmxcsr: /* the host's is the guest's, where all exceptions are masked */
        r.copy = true;
        break;
    case EXEC_nop:
    case EXEC_gen_hint:
    case EXEC_div: /* special.c, since they may raise */
    case EXEC_idiv:
        r.copy = false;
        break;
    default:
        break;
    }
    r.vectors = r.reg == FIELD_VEC || r.vvvv == FIELD_VEC || r.is4 == FIELD_VEC ||
                row->exec == EXEC_vec_zero || row->exec == EXEC_vec_pcmpstr || needs_mxcsr(row);
    return r;
}

bool jit_rows_init(struct jit *jit)
{
    jit->rows = calloc(insn_row_count, sizeof *jit->rows);
    for (unsigned i = 0; jit->rows && i < insn_row_count; i++)
        jit->rows[i] = describe(&insn_rows[i]);
    return jit->rows != NULL;
}

/* ---- Whether ----------------------------------------------------------------------------------
 */

static bool copy_is_allowed(const struct build *b, const struct insn *insn)
{
    enum { INTEGER = ~(INSN_X87 | INSN_MMX | INSN_SSE | INSN_AVX | INSN_MXCSR) };
    const struct insn_row *row = insn->row;
    if (insn->adsize == 2)
        return false;
    if (insn->mem.disp != (int32_t)insn->mem.disp && b->code64)
        return false; /* the offset is longer than a displacement */
    if (!(row->attr & ~(unsigned)INTEGER))
        return true;
    if ((row->attr & (INSN_X87 | INSN_MMX)) && !x87_may_copy(b))
        return false;
    if ((row->attr & (INSN_SSE | INSN_AVX)) && execute_vector_needs_check(b->cpu->mode, row))
        return false;
    return !needs_mxcsr(row) || b->mode & JIT_MODE_MASKED;
}

static int memory_operand(const struct insn *insn)
{
    for (unsigned n = 0; insn->has_mem && n < insn->opnds; n++)
        if (insn->op[n].kind == OPND_MEM)
            return (int)n;
    return -1;
}

void copy_prepare(struct build *b)
{
    for (unsigned i = 0; i < b->count; i++) {
        const struct insn *insn = &b->insn[i];
        const struct jit_row *row = &b->jit->rows[insn->row->id];
        b->copies[i] = row->copy && copy_is_allowed(b, insn);
        b->memory[i] = (int8_t)memory_operand(insn);
        b->vectors |= b->copies[i] && (row->vectors || (row->rm == FIELD_VEC && !insn->has_mem));
    }
}

/* Of an instruction of the region. */
static const struct opnd *operand_in_memory(const struct build *b, const struct insn *insn)
{
    int n = b->memory[insn - b->insn];
    return n < 0 ? NULL : &insn->op[n];
}

/* ---- Encoding -------------------------------------------------------------------------------- */

/* Host registers for the fields of an encoding; memory is [R10 + disp], or [R10 + index << scale +
 * disp]. */
struct fields {
    uint8_t reg, rm, vvvv, opcode;
    bool memory;
    bool wants_rex, forbids_rex; /* SPL to DIL have their names with REX only; AH to BH without */
    uint8_t index, scale;        /* REG_NONE: without */
    int32_t disp;
};

static void put_memory(struct emit *e, unsigned reg, const struct fields *f)
{
    if (f->index == REG_NONE)
        emit_modrm_mem(e, reg, SCRATCH1, f->disp);
    else
        emit_modrm_sib(e, reg, SCRATCH1, f->index, f->scale, f->disp);
}

/* The X bit of REX, and of VEX, where it is inverted. */
static unsigned high_index(const struct fields *f)
{
    return f->memory && f->index != REG_NONE ? f->index >> 3 : 0;
}

/* MOV between rAX and memory whose address is in the instruction. */
static bool names_offset(const struct insn *insn, const struct fields *f)
{
    return f->memory && !insn->has_modrm;
}

static void put_tail(struct emit *e, const struct insn *insn, const struct fields *f)
{
    unsigned opcode = insn->bytes[insn->off_opcode];
    if (names_offset(insn, f)) {
        emit8(e, (opcode ^ 2) - 0x18);
        put_memory(e, RAX, f);
        return;
    }
    if (!insn->has_modrm && f->opcode != REG_NONE)
        opcode = (opcode & ~7u) | (f->opcode & 7);
    emit8(e, opcode);
    if (opcode >= 0x40 && opcode < 0x50 && insn->row->map == MAP_1B && !insn->has_modrm) {
        /* INC and DEC of 32-bit code have become REX prefixes: FF /0, FF /1 */
        e->p[-1] = 0xff;
        emit8(e, 0xc0 | (insn->row->exec == EXEC_dec) << 3 | (f->opcode & 7));
    } else if (insn->has_modrm && f->memory)
        put_memory(e, f->reg, f);
    else if (insn->has_modrm)
        emit8(e, 0xc0 | (f->reg & 7) << 3 | (f->rm & 7));
    if (insn->imm_size)
        emit_bytes(e, insn->bytes + insn->off_imm, insn->imm_size);
}

static void note_bytes(struct fields *f, const struct insn *insn)
{
    for (unsigned n = 0; n < insn->opnds; n++) {
        const struct opnd *o = &insn->op[n];
        f->wants_rex |= o->kind == OPND_GPR && o->size == 1 && o->reg >= 4;
        f->forbids_rex |= o->kind == OPND_GPR8H && !o->implicit;
    }
}

/* What is in the prefix REX; 0: there is none. */
static unsigned rex_of(const struct insn *insn, const struct fields *f)
{
    unsigned rm = f->memory ? SCRATCH1 : f->rm;
    unsigned low = insn->has_modrm || f->memory ? rm : f->opcode != REG_NONE ? f->opcode : 0;
    unsigned rex = (insn->rex & 8) | (insn->has_modrm ? (unsigned)f->reg >> 3 << 2 : 0) |
                   high_index(f) << 1 | low >> 3;
    return rex || f->wants_rex ? 0x40 | rex : 0;
}

static void put_legacy(struct emit *e, const struct insn *insn, const struct jit_row *row,
                       const struct fields *f)
{
    unsigned rex = rex_of(insn, f);
    if (insn->lock)
        emit8(e, 0xf0);
    if (row->prefix == 0x66 || (insn->osz66 && row->prefix != 0x66))
        emit8(e, 0x66);
    if (row->prefix == 0xf2 || row->prefix == 0xf3)
        emit8(e, row->prefix);
    if (rex)
        emit8(e, rex);
    if (row->escape)
        emit8(e, 0x0f);
    if (row->escape == 2)
        emit8(e, insn->row->map == MAP_0F38 ? 0x38 : 0x3a);
    put_tail(e, insn, f);
}

/* What 32-bit code may have in bits that it ignores must not count in 64-bit code: W, and the high
 * bit of a register in the immediate. */
static void put_vex(struct emit *e, const struct insn *insn, const struct jit_row *row,
                    const struct fields *f)
{
    bool narrow = insn->code != 64;
    unsigned rm = f->memory ? SCRATCH1 : f->rm;
    unsigned map = insn->row->map == MAP_VEX0F ? 1 : insn->row->map == MAP_VEX0F38 ? 2 : 3;
    unsigned pp = insn->bytes[insn->off_opcode - 1] & 3;
    emit8(e, 0xc4);
    emit8(e, (f->reg & 8 ? 0 : 0x80) | (high_index(f) ? 0 : 0x40) | (rm & 8 ? 0 : 0x20) | map);
    emit8(e, (insn->vex_w && !(narrow && row->wig) ? 0x80 : 0) | (~(unsigned)f->vvvv & 15) << 3 |
                 (insn->vex_l ? 4 : 0) | pp);
    put_tail(e, insn, f);
    if (narrow && row->is4)
        e->p[-1] &= 0x7f;
}

/* ---- Operands -------------------------------------------------------------------------------- */

/* A general register in one field of the encoding, on its way through a scratch register if it is
 * homed. */
struct general {
    uint8_t guest;
    uint8_t scratch; /* REG_NONE: it has a register */
    bool load, store;
};

struct plan {
    bool verbatim; /* the guest's own bytes will do; the rest is as for no operands */
    struct fields f;
    struct general general[4];
    unsigned generals;
    uint8_t free[2]; /* scratch registers that are left */
    unsigned frees;
};

/* What the instruction does with a guest register in all its operands together. */
static void uses_of(const struct insn *insn, unsigned guest, bool *reads, bool *writes)
{
    *reads = *writes = false;
    for (unsigned n = 0; n < insn->opnds; n++) {
        const struct opnd *o = &insn->op[n];
        if (o->kind != OPND_GPR || o->reg != guest)
            continue;
        *reads |= (o->access & OPND_R) || o->size < 4;
        *writes |= (o->access & OPND_W) != 0;
    }
}

/* The host register for guest register `guest` in a field. 16: there is no scratch left. */
static unsigned place(struct plan *p, const struct insn *insn, unsigned guest)
{
    if (!abi_is_homed(guest))
        return abi_host(guest);
    for (unsigned n = 0; n < p->generals; n++)
        if (p->general[n].guest == guest)
            return p->general[n].scratch;
    if (p->frees == 0)
        return REG_NONE;
    struct general *g = &p->general[p->generals++];
    g->guest = (uint8_t)guest;
    g->scratch = p->free[--p->frees];
    uses_of(insn, guest, &g->load, &g->store);
    return g->scratch;
}

/* The R and B bits of REX or VEX; VEX has them inverted, its short form lacks B. */
static unsigned bit_r(const struct insn *insn)
{
    if (!insn->vex)
        return insn->rex >> 2 & 1;
    bool is_short = insn->off_opcode >= 2 && insn->bytes[insn->off_opcode - 2] == 0xc5 &&
                    (insn->off_opcode < 3 || insn->bytes[insn->off_opcode - 3] != 0xc4);
    return insn->code == 64 && !(insn->bytes[insn->off_opcode - (is_short ? 1 : 2)] & 0x80);
}
static unsigned bit_b(const struct insn *insn)
{
    if (!insn->vex)
        return insn->rex & 1;
    bool is_short = insn->off_opcode >= 2 && insn->bytes[insn->off_opcode - 2] == 0xc5 &&
                    (insn->off_opcode < 3 || insn->bytes[insn->off_opcode - 3] != 0xc4);
    return insn->code == 64 && !is_short && !(insn->bytes[insn->off_opcode - 2] & 0x20);
}

/* ModRM.reg, ModRM.rm and opcode registers as the guest's encoding has them. */
static unsigned field_reg(const struct insn *insn)
{
    return (insn->modrm >> 3 & 7) | bit_r(insn) << 3;
}
static unsigned field_rm(const struct insn *insn)
{
    return (insn->modrm & 7) | bit_b(insn) << 3;
}

/* AH to BH are encoded as 4 to 7 and keep their numbers. */
static bool is_high(const struct insn *insn, unsigned operand)
{
    return insn->op[operand].kind == OPND_GPR8H;
}

/* No memory, no register that has another name on the host, and no prefix but those that the
 * encoding has: one that is ignored here might not be there, where there are more instructions. */
static bool is_verbatim(const struct build *b, const struct insn *insn)
{
    enum { RENAMED = 1u << RSP | 1u << R10 | 1u << R11 | 1u << R14 | 1u << R15 };
    const struct jit_row *row = &b->jit->rows[insn->row->id];
    unsigned number = (insn->bytes[insn->off_opcode] & 7) | (insn->rex & 1u) << 3;
    unsigned names = (unsigned)(row->reg == FIELD_GPR) << field_reg(insn) |
                     (unsigned)(row->rm == FIELD_GPR) << field_rm(insn) |
                     (unsigned)(row->opcode == FIELD_GPR) << number;
    unsigned prefixes = (insn->rex != 0) + insn->osz66 + (insn->rep && insn->rep == row->prefix);
    return b->code64 && !insn->has_mem && !insn->vex && !(names & RENAMED) &&
           insn->off_opcode == prefixes + row->escape;
}

static bool make_plan(struct build *b, const struct insn *insn, struct plan *p)
{
    const struct jit_row *row = &b->jit->rows[insn->row->id];
    *p = (struct plan){
        .f = {.opcode = REG_NONE, .index = REG_NONE}, .free = {SCRATCH1, SCRATCH2}, .frees = 2};
    p->verbatim = is_verbatim(b, insn);
    if (p->verbatim)
        return true;
    if (operand_in_memory(b, insn)) {
        p->f.memory = true;
        p->free[0] = SCRATCH2;
        p->frees = 1;
    }
    note_bytes(&p->f, insn);
    unsigned reg = field_reg(insn), rm = field_rm(insn), got = 0;
    p->f.reg = (uint8_t)reg; /* an opcode extension, a vector or a high byte register: as it is */
    p->f.rm = (uint8_t)rm;
    p->f.vvvv = insn->code == 64 ? insn->vvvv : insn->vvvv & 7;
    if (insn->has_modrm && row->reg == FIELD_GPR && !is_high(insn, row->reg_op)) {
        got |= (p->f.reg = (uint8_t)place(p, insn, reg)) == REG_NONE;
    } else if (row->reg == FIELD_NONE) {
        p->f.reg &= 7;
    }
    if (insn->has_modrm && !p->f.memory && row->rm == FIELD_GPR && !is_high(insn, row->rm_op))
        got |= (p->f.rm = (uint8_t)place(p, insn, rm)) == REG_NONE;
    if (row->vvvv == FIELD_GPR)
        got |= (p->f.vvvv = (uint8_t)place(p, insn, p->f.vvvv)) == REG_NONE;
    if (row->opcode == FIELD_GPR) {
        unsigned number = (insn->bytes[insn->off_opcode] & 7) | (insn->rex & 1 ? 8u : 0);
        p->f.opcode = (uint8_t)number;
        if (!is_high(insn, row->opcode_op))
            got |= (p->f.opcode = (uint8_t)place(p, insn, number)) == REG_NONE;
    }
    return got == 0;
}

/* ---- The copy -------------------------------------------------------------------------------- */

static unsigned alignment(const struct build *b, const struct insn *insn, const struct opnd *mem)
{
    bool amd = cpu_is_amd(b->cpu);
    if (insn->lock || insn->row->exec == EXEC_xchg)
        return mem->size > 1 ? mem->size : 0; /* what crosses a line goes another way */
    if ((insn->row->attr & INSN_ALIGN) || ((insn->row->attr & INSN_ALIGN_INTEL) && !amd))
        return mem->size;
    return 0;
}

/* Bit numbers in registers reach beyond the operand. */
static bool reaches_beyond(const struct insn *insn)
{
    switch (insn->row->exec) {
    case EXEC_bt:
    case EXEC_bts:
    case EXEC_btr:
    case EXEC_btc:
        return insn->op[1].kind == OPND_GPR;
    default:
        return false;
    }
}

static bool copy_lea(struct build *b)
{
    const struct insn *insn = build_insn(b);
    const struct opnd *to = &insn->op[0];
    if (to->size == 2 || insn->adsize == 2)
        return false;
    flags_before_change(b, to->reg, false);
    unsigned dest = guest_target(to->reg, SCRATCH2);
    bool r10_stays =
        b->r10_until == b->e.p && insn->mem.base < REG_NONE && !abi_is_homed(insn->mem.base);
    /* LEA with a 32-bit address cuts first, with a 32-bit register afterwards: the same. */
    lookup_effective(b, dest, to->size);
    guest_written(b, to->reg, dest);
    if (r10_stays)
        held_is_in_r10(b, b->in_r10);
    if (dest == SCRATCH2)
        homed_is_in_r11(b, to->reg);
    flags_after_change(b, to->reg);
    return true;
}

/* Flags that the instruction finds in EFLAGS: those it reads, and those it leaves alone but that
 * somebody wants afterwards, beside others that it changes. */
static bool wants_flags(const struct build *b)
{
    uint16_t kills = b->kills[b->i];
    uint16_t survive = kills ? (uint16_t)(b->visible_after[b->i] & ~kills) : 0;
    return (b->reads[b->i] | survive) != 0;
}

/* What R10 has got is relative to: the one register that the operand has. */
static void name_relative(struct fields *f, const struct insn_mem *m)
{
    f->index = (uint8_t)abi_host(m->base == REG_NONE ? m->index : m->base);
    f->scale = m->base == REG_NONE ? m->scale : 0;
    f->disp = (int32_t)m->disp;
}

/* By what is held. */
static void name_held(struct fields *f, const struct insn_mem *m, const struct held *held)
{
    if (held->relative)
        name_relative(f, m);
    else
        f->disp = (int32_t)m->disp - held->lo;
}

/* The memory operand becomes what `f` says. Flags that are wanted later, or by the fault that the
 * access may raise, are kept before. */
static struct cold *copy_memory(struct build *b, const struct insn *insn, const struct opnd *mem,
                                unsigned aligned, bool wants, struct fields *f, struct held **begun)
{
    bool write = mem->access & OPND_W;
    struct held *held = *begun = aligned ? NULL : held_begin(b, mem, write);
    bool store = wants && flags_need_scratch(b); /* R10 will be taken */
    if (store)
        flags_store(b);
    else
        flags_spill(b);
    struct cold *site = site_begin(b);
    enum access_kind kind = write ? ACCESS_WRITE : ACCESS_READ;
    if (held) {
        lookup_group(b, held, site);
        name_held(f, &insn->mem, held);
    } else if (lookup_can_be_relative(b, insn)) {
        lookup_relative(b, insn->mem.disp, mem->size, kind, aligned, site);
        name_relative(f, &insn->mem);
    } else {
        lookup_operand(b, mem->size, kind, aligned, site);
    }
    flags_clobbered(b);
    if (store)
        b->flags.desc.from = FLAGS_MEMORY;
    return site;
}

/* May an access that has to be aligned be one by what is held, if the flags are not wanted? */
static bool may_hold_aligned(const struct build *b, const struct insn *insn)
{
    return (insn->row->attr & (INSN_ALIGN | INSN_ALIGN_INTEL)) && !insn->lock &&
           lookup_can_be_relative(b, insn);
}

/* The test for it; R10 stays. */
static struct cold *test_alignment(struct build *b, const struct insn *insn, unsigned aligned)
{
    flags_spill(b);
    bool r10_stays = b->r10_until == b->e.p;
    struct cold *site = site_begin(b);
    struct lookup l = {.disp = (int32_t)insn->mem.disp};
    lookup_relative_linear(b, &l, SCRATCH2);
    emit_test_byte(&b->e, SCRATCH2, aligned - 1);
    cold_jump(site, emit_jcc_later(&b->e, CC_NE));
    flags_clobbered(b);
    if (r10_stays)
        held_is_in_r10(b, b->in_r10);
    return site;
}

/* Does a lookup cover it, if it has a memory operand? */
static bool is_plain(const struct build *b, const struct insn *insn, const struct opnd *mem)
{
    return !insn->mem.vsib && (!mem || (mem->size && !reaches_beyond(insn) &&
                                        build_easy_segment(b, insn, mem->access & OPND_W)));
}

const struct opnd *copy_memory_operand(const struct build *b, const struct insn *insn)
{
    const struct opnd *mem = operand_in_memory(b, insn);
    bool good = mem && copy_may(b, insn) && is_plain(b, insn, mem) &&
                (!alignment(b, insn, mem) || may_hold_aligned(b, insn));
    return good ? mem : NULL;
}

/* AH and its like cannot be named beside [R10], which needs a REX prefix: they change places with
 * AL for the instruction. */
static bool swaps_high(const struct build *b, const struct insn *insn, const struct plan *p)
{
    const struct jit_row *row = &b->jit->rows[insn->row->id];
    if (!p->f.memory || row->reg != FIELD_GPR || !is_high(insn, row->reg_op))
        return false;
    for (unsigned n = 0; n < insn->opnds; n++) /* CMPXCHG [memory], AH wants AL in its place */
        if (insn->op[n].implicit && insn->op[n].reg == insn->op[row->reg_op].reg)
            return false;
    return true;
}

static void put_swapped(struct build *b, const struct insn *insn, const struct plan *p)
{
    struct fields f = p->f;
    unsigned high = f.reg, xchg = 0xc0 | high << 3 | (high - 4);
    f.reg = (uint8_t)(high - 4);
    if (f.index != REG_NONE) { /* it may be the one that changes */
        emit8(&b->e, 0x48 | 4 | high_index(&f) << 1 | 1);
        emit8(&b->e, OP_LEA);
        put_memory(&b->e, SCRATCH1, &f);
        f.index = REG_NONE;
        f.disp = 0;
    }
    emit8(&b->e, 0x86);
    emit8(&b->e, xchg);
    put_legacy(&b->e, insn, &b->jit->rows[insn->row->id], &f);
    emit8(&b->e, 0x86);
    emit8(&b->e, xchg);
}

/* Refused only for AH and its like beside a REX prefix. */
static bool can_encode(const struct build *b, const struct insn *insn, const struct plan *p)
{
    return !p->f.forbids_rex || insn->vex || swaps_high(b, insn, p) || !rex_of(insn, &p->f);
}

static void put(struct build *b, const struct insn *insn, const struct plan *p)
{
    for (unsigned n = 0; n < p->generals; n++)
        if (p->general[n].load)
            homed_load(b, p->general[n].scratch, p->general[n].guest);
    b->op_from = b->e.p;
    if (p->verbatim)
        emit_bytes(&b->e, insn->bytes, insn->len);
    else if (insn->vex)
        put_vex(&b->e, insn, &b->jit->rows[insn->row->id], &p->f);
    else if (swaps_high(b, insn, p))
        put_swapped(b, insn, p);
    else
        put_legacy(&b->e, insn, &b->jit->rows[insn->row->id], &p->f);
    b->op_until = p->f.memory ? NULL : b->e.p;
    for (unsigned n = 0; n < p->generals; n++)
        if (p->general[n].store)
            homed_store(b, p->general[n].scratch, p->general[n].guest);
}

static bool can_copy(struct build *b, const struct insn *insn, const struct opnd *mem,
                     struct plan *p)
{
    return copy_may(b, insn) && is_plain(b, insn, mem) && make_plan(b, insn, p) &&
           can_encode(b, insn, p);
}

/* A comparison, or ADD or SUB to a register, with memory, whose flags somebody may want later: it
 * is done with what R11, if that is free, or R10 is loaded with, which is kept to describe the
 * flags by. */
static bool keeps(const struct build *b, const struct insn *insn, const struct opnd *mem,
                  const struct fields *f)
{
    unsigned exec = insn->row->exec;
    bool compares = exec == EXEC_cmp || exec == EXEC_test;
    bool adds = (exec == EXEC_add || exec == EXEC_sub) && insn->op[0].kind == OPND_GPR;
    return (compares || adds) && b->visible_after[b->i] && !f->forbids_rex && mem->size <= 8;
}

static void keep(struct build *b, unsigned size, struct plan *p)
{
    struct emit *e = &b->e;
    struct fields *f = &p->f;
    unsigned to = p->frees ? SCRATCH2 : SCRATCH1;
    emit8(e, 0x40 | (size == 8) << 3 | 4 | high_index(f) << 1 | 1); /* REX: R11 or R10 by R10 */
    if (size < 4) {
        emit8(e, 0x0f);
        emit8(e, size == 1 ? OP_0F_MOVZX_BYTE : OP_0F_MOVZX_WORD);
    } else {
        emit8(e, OP_LOAD);
    }
    put_memory(e, to, f);
    emit_cpu_store(e, to, CPU_AT(jx.kept));
    f->memory = false;
    f->rm = (uint8_t)to;
}

/* The homed register that R11 will have behind the copy. */
static unsigned in_r11(const struct build *b, const struct plan *p)
{
    for (unsigned n = 0; n < p->generals; n++)
        if (p->general[n].scratch == SCRATCH2)
            return p->general[n].guest;
    return p->generals == 0 && !p->f.memory && b->r11_until == b->e.p ? b->r11_guest : REG_NONE;
}

bool copy_insn(struct build *b)
{
    const struct insn *insn = build_insn(b);
    const struct opnd *mem = operand_in_memory(b, insn);
    struct cold *site = NULL;
    struct plan p;
    if (insn->row->exec == EXEC_lea)
        return copy_lea(b);
    if (!can_copy(b, insn, mem, &p))
        return false;
    bool wants = wants_flags(b);
    unsigned aligned = mem ? alignment(b, insn, mem) : 0;
    bool may_hold = mem && (!aligned || (!wants && may_hold_aligned(b, insn)));
    struct held *held = may_hold ? held_find(b, mem, mem->access & OPND_W) : NULL;
    struct held *begun = NULL;
    flags_before_changes(b, mem && (!held || aligned));
    if (mem && !held)
        site = copy_memory(b, insn, mem, aligned, wants, &p.f, &begun);
    else if (held && aligned)
        site = test_alignment(b, insn, aligned);
    if (wants)
        flags_load(b);
    if (held) {
        held_load(b, held);
        name_held(&p.f, &insn->mem, held);
    } else {
        held = begun;
    }
    bool kept = mem && keeps(b, insn, mem, &p.f);
    if (kept)
        keep(b, mem->size, &p);
    if (kept && site)
        site_keeps(b, site);
    bool r10_stays = mem ? held && (!kept || p.frees) && !swaps_high(b, insn, &p)
                         : p.generals == 0 && b->r10_until == b->e.p;
    unsigned r11_guest = in_r11(b, &p);
    put(b, insn, &p);
    homed_is_in_r11(b, r11_guest);
    if (r10_stays)
        held_is_in_r10(b, mem ? held : b->in_r10);
    flags_after_changes(b);
    if (b->kills[b->i])
        flags_produced(b, flags_describe(insn, kept));
    if (site) {
        site_resume(b, site);
        site->r11_guest = (uint8_t)r11_guest;
        site->in_r10 = r10_stays ? held : NULL;
        homed_is_in_r11(b, r11_guest);
    }
    return true;
}
