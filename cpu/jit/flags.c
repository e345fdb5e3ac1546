/*
 * flags.c - where the arithmetic flags are.
 *
 * A copied instruction leaves them in EFLAGS, where the next lookup would destroy them. Most flags
 * are never read: but a fault may still show them. So before EFLAGS are lost the translator asks
 * which of three holds: they are written again before anybody can look (nothing to do); they can be
 * computed from registers that still hold what produced them (nothing to do: C can compute them at
 * a site, and code can bring them back by doing the comparison again); or they must be stored.
 *
 * Where ways meet, what holds on all of them is kept. The head of a loop is made before the way
 * back is known, and storing flags in each round is dear: there the flags are in memory *or*
 * described by what the way back will have done, which says so in a byte of cpu->jx.flags
 * (`either`).
 */
#include "cpu/interp/flags.h"
#include "cpu/jit/build.h"
#include "insn_exec.h"
#include <stdlib.h>
#include <string.h>

static const struct flags_desc undescribed = {.from = FLAGS_MEMORY};

static bool described(const struct build *b)
{
    return b->flags.desc.from != FLAGS_MEMORY;
}

static bool same(const struct flags_desc *x, const struct flags_desc *y)
{
    return x->from == y->from && x->either == y->either && x->size == y->size && x->a == y->a &&
           x->b == y->b && (x->b != REG_NONE || x->imm == y->imm);
}

/* As `same` but for where a loop's head would look for it. */
static bool would_be(const struct flags_desc *is, const struct flags_desc *either)
{
    struct flags_desc d = *is;
    d.either = true;
    return is->from != FLAGS_MEMORY && same(&d, either);
}

/* ---- Moving them ----------------------------------------------------------------------------- */

void flags_emit_store(struct emit *e)
{
    emit_mov(e, 8, SCRATCH1, RAX);
    emit_flags_to_ax(e);
    emit8(e, 0x66); /* mov [flags], ax */
    emit_cpu(e, 4, OP_STORE, RAX, CPU_AT(jx.flags));
    emit_mov(e, 8, RAX, SCRATCH1);
}

void flags_emit_load(struct emit *e)
{
    emit_cpu_0f(e, 4, OP_0F_MOVZX_WORD, RAX, CPU_AT(jx.flags));
    emit_flags_from_ax(e);
}

/* op r/m, r of a size, for registers of the host. */
static void op_sized(struct emit *e, unsigned size, unsigned opcode, unsigned reg, unsigned rm)
{
    if (size == 2)
        emit8(e, 0x66);
    if (size == 1) {
        emit8(e, 0x40 | (reg >> 3) << 2 | rm >> 3); /* SIL and the like, too */
        emit8(e, opcode & ~1u);
        emit8(e, 0xc0 | (reg & 7) << 3 | (rm & 7));
        return;
    }
    emit_rr(e, size, opcode, reg, rm);
}

/* The same with an immediate; `opcode` with ModRM.reg for it. */
static void op_imm(struct emit *e, unsigned size, unsigned opcode, unsigned digit, unsigned rm,
                   int32_t imm)
{
    op_sized(e, size, opcode, digit, rm);
    if (size == 1)
        emit8(e, (uint8_t)imm);
    else if (size == 2)
        emit_bytes(e, &(uint16_t){(uint16_t)imm}, 2);
    else
        emit32(e, (uint32_t)imm);
}

/* The host register that holds an operand of a description: its own, or `scratch`, loaded. */
static unsigned flags_value(struct build *b, unsigned reg, unsigned scratch)
{
    if (reg != REG_KEPT)
        return guest_value(b, reg, scratch);
    emit_cpu_load(&b->e, scratch, CPU_AT(jx.kept));
    return scratch;
}

/* The operation by its opcode with a register, and the one with an immediate, of either of which
 * op_sized() makes that for bytes. */
struct operation {
    uint8_t opcode, opcode_imm, digit;
};
static const struct operation op_add = {0x01, OP_GRP1_IMM32, GRP1_ADD},
                              op_sub = {0x29, OP_GRP1_IMM32, GRP1_SUB},
                              op_cmp = {0x39, OP_GRP1_IMM32, GRP1_CMP},
                              op_test = {OP_TEST, OP_GRP3, GRP3_TEST};

/* By the description's second operand; `other` is its register, if it has one. */
static void operate(struct build *b, const struct operation *op, unsigned to, unsigned other)
{
    const struct flags_desc *d = &b->flags.desc;
    if (d->b == REG_NONE)
        op_imm(&b->e, d->size, op->opcode_imm, op->digit, to, d->imm);
    else
        op_sized(&b->e, d->size, op->opcode, other, to);
}

/* Exceptions of this kind have been raised, or noted in MXCSR, the first time. */
static void compare_vectors(struct emit *e, const struct flags_desc *d)
{
    enum { UCOMIS = 0x2e };
    if (d->size == 8)
        emit8(e, 0x66);
    emit_rex(e, 4, d->a - REG_VECTOR, 0, d->b - REG_VECTOR);
    emit8(e, 0x0f);
    emit8(e, UCOMIS);
    emit8(e, 0xc0 | (d->a & 7) << 3 | (d->b & 7));
}

/* Does again, into R11 or nowhere, what produced the flags. R10 is lost if flags_need_scratch(). */
static void emit_again(struct build *b)
{
    const struct flags_desc *d = &b->flags.desc;
    if (d->from == FLAGS_UCOMI) {
        compare_vectors(&b->e, d);
        return;
    }
    unsigned a = flags_value(b, d->a, SCRATCH2);
    if (d->from == FLAGS_LOGIC) {
        op_sized(&b->e, d->size, OP_TEST, a, a);
        return;
    }
    unsigned other = d->b == REG_NONE ? REG_NONE : flags_value(b, d->b, SCRATCH1);
    if (d->from == FLAGS_CMP || d->from == FLAGS_TEST) {
        operate(b, d->from == FLAGS_CMP ? &op_cmp : &op_test, a, other);
        return;
    }
    if (a != SCRATCH2)
        emit_mov(&b->e, 8, SCRATCH2, a);
    operate(b, d->from == FLAGS_ADD ? &op_sub : &op_add, SCRATCH2, other);
    operate(b, d->from == FLAGS_ADD ? &op_add : &op_sub, SCRATCH2, other);
}

bool flags_need_scratch(const struct build *b)
{
    const struct flags_desc *d = &b->flags.desc;
    bool again = d->from != FLAGS_MEMORY && !d->either;
    return !again || d->b == REG_KEPT || (d->b < REG_NONE && abi_is_homed(d->b));
}

static uint8_t *emit_is_elsewhere(struct emit *e, unsigned cc)
{
    enum { GRP1_BYTE = 0x80 };
    emit_cpu_imm8(e, GRP1_BYTE, GRP1_CMP, CPU_AT(jx.flags) + 1, FLAGS_ELSEWHERE);
    return emit_jcc_later(e, cc);
}

/* From either place to memory. */
static void settle(struct build *b)
{
    uint8_t *there = emit_is_elsewhere(&b->e, CC_NE);
    emit_again(b);
    flags_emit_store(&b->e);
    emit_patch32(there, b->e.shift, emit_here(&b->e));
    b->flags = (struct flags_state){.memory = true};
}

void flags_load(struct build *b)
{
    if (b->flags.host)
        return;
    if (b->flags.desc.either)
        settle(b);
    if (described(b)) {
        emit_again(b);
    } else {
        emit_mov(&b->e, 8, SCRATCH2, RAX);
        flags_emit_load(&b->e);
        emit_mov(&b->e, 8, RAX, SCRATCH2);
    }
    b->flags.host = true;
}

void flags_store(struct build *b)
{
    if (b->flags.memory)
        return;
    if (b->flags.desc.either) {
        settle(b);
        return;
    }
    if (!b->flags.host) {
        emit_again(b);
        b->flags.host = true;
    }
    flags_emit_store(&b->e);
    b->flags.memory = true;
}

void flags_spill(struct build *b)
{
    if (!b->flags.memory && !described(b))
        flags_store(b);
}

/* Those that are not what they were behind an instruction of the row. */
static uint16_t killed(const struct insn_row *row)
{
    return (row->flags_written | row->flags_undefined) & FLAGS_ARITH;
}

/* Shifts and rotations leave all flags alone when they are by 0, which the table counts as reading;
 * those by another constant do not (SDM vol. 2, SAL, ROL). */
static uint16_t read(const struct insn *insn)
{
    uint16_t read = insn->row->flags_read & FLAGS_ARITH;
    unsigned size = insn->op[0].size;
    bool constant = insn->opnds > 1 && insn->op[insn->opnds - 1].kind == OPND_IMM;
    if (!read || !constant || size < 4 || !(insn->imm & (size == 8 ? 63 : 31)))
        return read;
    switch (insn->row->exec) {
    case EXEC_shl:
    case EXEC_shr:
    case EXEC_sar:
    case EXEC_shld:
    case EXEC_shrd:
    case EXEC_rol:
    case EXEC_ror:
        return 0;
    default:
        return read;
    }
}

bool flags_mark(struct build *b, const struct flags_state *to)
{
    struct emit *e = &b->e;
    uint8_t op[INSN_MAX_BYTES];
    size_t size = b->op_until == e->p ? (size_t)(e->p - b->op_from) : 0;
    if (!to->desc.either || b->flags.memory || !would_be(&b->flags.desc, &to->desc))
        return false;
    /* In front of what made the flags, which the processor then joins with the jump. */
    e->p -= size;
    memcpy(op, e->p, size);
    emit_cpu_imm8(e, OP_STORE_IMM8, 0, CPU_AT(jx.flags) + 1, FLAGS_ELSEWHERE);
    emit_bytes(e, op, size);
    return true;
}

bool flags_fit(const struct flags_state *is, const struct flags_state *wanted)
{
    if (wanted->host && wanted->memory) /* nobody will look */
        return true;
    if (wanted->desc.either)
        return is->memory || same(&is->desc, &wanted->desc);
    return (!wanted->host || is->host) && (!wanted->memory || is->memory) &&
           (wanted->desc.from == FLAGS_MEMORY || same(&is->desc, &wanted->desc));
}

void flags_convert(struct build *b, const struct flags_state *to)
{
    if (flags_fit(&b->flags, to) || flags_mark(b, to))
        return;
    if (to->host)
        flags_load(b);
    else
        flags_store(b);
    if (!flags_fit(&b->flags, to))
        abort(); /* it was not among the ways that met there */
}

void flags_meet(struct flags_state *all, const struct flags_state *way)
{
    all->host &= way->host;
    all->memory &= way->memory;
    if (!same(&all->desc, &way->desc))
        all->desc = undescribed;
}

static bool describes(const struct build *b, unsigned reg)
{
    return described(b) && (b->flags.desc.a == reg || b->flags.desc.b == reg);
}

/* The flags of before that the instruction reads, or that outlive it. */
static uint16_t outlive(const struct build *b, unsigned i)
{
    return (b->visible_after[i] & (uint16_t)~b->kills[i]) | b->reads[i];
}

/* Before a register is lost that the description names: its value is kept, for which there is one
 * place. That is one instruction where storing the flags takes five. */
static void keep(struct build *b, unsigned reg)
{
    struct flags_desc *d = &b->flags.desc;
    bool r10_stays = b->r10_until == b->e.p, r11_stays = b->r11_until == b->e.p;
    if (b->flags.memory || d->either || reg >= REG_VECTOR || d->a == REG_KEPT || d->b == REG_KEPT) {
        flags_store(b);
        return;
    }
    emit_cpu_store(&b->e, guest_value(b, reg, SCRATCH1), CPU_AT(jx.kept));
    d->a = d->a == reg ? REG_KEPT : d->a;
    d->b = d->b == reg ? REG_KEPT : d->b;
    if (r10_stays && !abi_is_homed(reg))
        held_is_in_r10(b, b->in_r10);
    if (r11_stays)
        homed_is_in_r11(b, b->r11_guest);
}

void flags_before_change(struct build *b, unsigned reg, bool lookup)
{
    if (describes(b, reg) && (lookup || !b->flags.host) && outlive(b, b->i))
        keep(b, reg);
}

void flags_before_progress(struct build *b, unsigned reg)
{
    if (describes(b, reg))
        keep(b, reg);
}

static void forget_description(struct build *b)
{
    b->flags.desc = undescribed;
    if (!b->flags.host)
        b->flags.memory = true; /* stored, or nobody looks: then any value will do */
}

void flags_after_change(struct build *b, unsigned reg)
{
    if (describes(b, reg))
        forget_description(b);
}

/* VZEROALL, and LDMXCSR, which decides what comparing the registers again would say. */
static bool changes_vectors(const struct insn *insn)
{
    unsigned exec = insn->row->exec;
    return (exec == EXEC_vec_zero && insn->row->exec_arg) || exec == EXEC_vec_ldmxcsr;
}

/* Does the instruction change the register, as a description names it, by an explicit operand, or
 * all vectors? */
static bool changes(const struct insn *insn, unsigned reg)
{
    if (reg >= REG_VECTOR && changes_vectors(insn))
        return true;
    for (unsigned n = 0; n < insn->opnds; n++) {
        const struct opnd *o = &insn->op[n];
        unsigned name = o->kind == OPND_GPR8H ? o->reg : flags_name(o);
        if ((o->access & OPND_W) && name != REG_NONE && name == reg)
            return true;
    }
    return false;
}

static bool changes_either(const struct insn *insn, const struct flags_desc *d)
{
    return changes(insn, d->a) || changes(insn, d->b);
}

/* Does a lookup come before flags are written again, as far as can be seen? */
static bool will_be_lost(const struct build *b)
{
    for (unsigned i = b->i; build_goes_on(b, i) && !b->kills[i]; i++)
        if (!b->quiet[i + 1])
            return true;
    return false;
}

void flags_before_changes(struct build *b, bool lookup)
{
    const struct insn *insn = build_insn(b);
    const struct flags_desc *d = &b->flags.desc;
    if (!described(b) || !outlive(b, b->i) || (!lookup && b->flags.host && !will_be_lost(b)))
        return;
    bool first = changes(insn, d->a), second = changes(insn, d->b);
    if (first && second && d->a != d->b)
        flags_store(b);
    else if (first || second)
        keep(b, first ? d->a : d->b);
}

void flags_after_changes(struct build *b)
{
    if (described(b) && changes_either(build_insn(b), &b->flags.desc))
        forget_description(b);
}

void flags_produced(struct build *b, struct flags_desc desc)
{
    b->flags = (struct flags_state){.host = true, .desc = desc};
    if (!b->visible_after[b->i])
        b->flags.memory = true; /* as good as stored */
}

/* ---- What they come from --------------------------------------------------------------------- */

/* The operand as a description names it; REG_NONE: it cannot. */
static uint8_t name_of(const struct opnd *o, bool kept)
{
    if (o->kind == OPND_GPR)
        return o->reg;
    return o->kind == OPND_MEM && kept ? REG_KEPT : REG_NONE;
}

static bool is_ucomis(const struct insn *insn)
{
    enum { UCOMIS = 0x2e, COMIS };
    unsigned map = insn->row->map, opcode = insn->bytes[insn->off_opcode];
    return insn->row->exec == EXEC_vec_host && (map == MAP_0F || map == MAP_VEX0F) &&
           (opcode == UCOMIS || opcode == COMIS);
}

struct flags_desc flags_describe(const struct insn *insn, bool kept)
{
    const struct opnd *o = insn->op;
    const struct flags_desc none = {.from = FLAGS_MEMORY};
    struct flags_desc d = {.size = (uint8_t)o[0].size, .b = REG_NONE};
    bool imm = insn->opnds > 1 && o[1].kind == OPND_IMM;
    if (is_ucomis(insn) && o[1].kind == OPND_XMM) {
        bool is_double = !strncmp(insn->row->operands, "Vsd", 3);
        return (struct flags_desc){.from = FLAGS_UCOMI,
                                   .size = is_double ? 8 : 4,
                                   .a = REG_VECTOR + o[0].reg,
                                   .b = REG_VECTOR + o[1].reg};
    }
    d.a = name_of(&o[0], kept);
    if (imm)
        d.imm = (int32_t)insn->imm;
    else if (insn->opnds > 1)
        d.b = name_of(&o[1], kept);
    if (d.a == REG_NONE)
        return none;
    bool both = imm || d.b != REG_NONE;
    switch (insn->row->exec) {
    case EXEC_and:
    case EXEC_or:
    case EXEC_xor:
        d.from = FLAGS_LOGIC; /* the result is all that counts */
        d.b = REG_NONE;
        return d;
    case EXEC_test:
        d.from = d.a == d.b ? FLAGS_LOGIC : FLAGS_TEST;
        return both ? d : none;
    case EXEC_cmp:
        d.from = FLAGS_CMP;
        return both ? d : none;
    case EXEC_add:
        d.from = FLAGS_ADD;
        return both && d.a != d.b ? d : none;
    case EXEC_sub:
        d.from = FLAGS_SUB;
        return both && d.a != d.b ? d : none;
    default:
        return none;
    }
}

/* ---- Liveness -------------------------------------------------------------------------------- */

/* Do flags at the head of a loop stay described until they are all written again? */
static bool lasts(const struct build *b, unsigned head, const struct flags_desc *d)
{
    for (unsigned i = head; i < b->count; i++) {
        if (b->kills[i])
            return !outlive(b, i);
        if (b->reads[i] || changes_either(&b->insn[i], d) || !build_goes_on(b, i))
            return false;
    }
    return false;
}

struct flags_desc flags_on_way_back(const struct build *b, unsigned head)
{
    for (unsigned i = head; i < b->count; i++) {
        if (b->to[i][0] != (int)head && b->to[i][1] != (int)head)
            continue;
        unsigned k = i;
        while (k > head && !b->kills[k] && b->flows[k - 1])
            k--;
        struct flags_desc d = flags_describe(&b->insn[k], true);
        if (d.from != FLAGS_MEMORY && lasts(b, head, &d)) {
            d.either = true;
            return d;
        }
    }
    return undescribed;
}

/* Can something other than the next instruction see the state before this one: a fault, C, the way
 * out of the region? */
static bool is_quiet(const struct build *b, unsigned i)
{
    const struct insn *insn = &b->insn[i];
    if (insn->row->exec == EXEC_nop || insn->row->exec == EXEC_gen_hint)
        return true;
    if (branch_is_direct(b->branch[i]))
        return true; /* the ways out have their own say */
    if (!b->copies[i] || b->branch[i])
        return false;
    return insn->row->exec == EXEC_lea || b->memory[i] < 0 || !insn->op[b->memory[i]].size;
}

bool flags_stay(const struct build *b, unsigned i)
{
    for (unsigned k = i; k < b->count && b->quiet[k]; k++) {
        bool back = b->branch[k] == BRANCH_CONDITIONAL && build_branch_offset(b, k) <= b->off[i];
        if (back || !b->flows[k])
            return true;
    }
    return false;
}

bool flags_first(const struct build *b, unsigned i)
{
    for (; i < b->count && b->quiet[i]; i++)
        if (b->kills[i] || b->reads[i])
            return true;
    return false;
}

/* What a jump to an offset may show. */
static uint16_t visible_at(const struct build *b, unsigned from, int32_t off)
{
    int to = build_target(b, from, off);
    return to < 0 ? FLAGS_ARITH : b->visible_before[to];
}

static uint16_t after(const struct build *b, unsigned i)
{
    const struct insn *insn = &b->insn[i];
    uint16_t visible = 0;
    if (b->flows[i])
        visible = i + 1 < b->count ? b->visible_before[i + 1] : FLAGS_ARITH;
    else
        visible = b->next[i] == NEXT_NONE ? FLAGS_ARITH : visible_at(b, i, b->next[i]);
    if (b->branch[i] == BRANCH_CONDITIONAL)
        visible |= visible_at(b, i, b->off[i] + insn->len + (int32_t)insn->imm);
    return visible;
}

/* Backwards until nothing changes any more. What does not lead back is done after one round. */
void flags_liveness(struct build *b)
{
    bool loops = false;
    for (unsigned i = 0; i < b->count; i++) {
        b->visible_before[i] = 0;
        b->quiet[i] = is_quiet(b, i);
        b->reads[i] = read(&b->insn[i]);
        b->kills[i] = killed(b->insn[i].row);
        loops |= b->head[i];
    }
    for (bool changed = true; changed; changed &= loops) {
        changed = false;
        for (unsigned i = b->count; i-- > 0;) {
            b->visible_after[i] = after(b, i);
            bool looks = b->polls[i] || !b->quiet[i];
            uint16_t before = looks ? FLAGS_ARITH : outlive(b, i);
            changed |= before != b->visible_before[i];
            b->visible_before[i] = before;
        }
    }
}
