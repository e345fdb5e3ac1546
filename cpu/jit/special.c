/*
 * special.c - instructions that are neither copied nor branches: the stack, division, DF, no
 * operation. Strings have string.c, bits of memory bits.c.
 */
#include "cpu/interp/execute.h"
#include "cpu/jit/build.h"
#include "insn_exec.h"

/* ---- Stack ----------------------------------------------------------------------------------- */

static bool is_register(const struct opnd *o)
{
    return o->kind == OPND_GPR;
}

static void move_sp(struct build *b, int32_t by)
{
    emit_rm(&b->e, b->width, OP_LEA, HOST_SP, HOST_SP, by);
}

static bool easy(const struct build *b, const struct insn *insn)
{
    return insn->opsize == b->width && insn->adsize == b->width && !insn->lock;
}

/* PUSH or POP of a register but rSP, or PUSH of an immediate. */
static bool is_simple(const struct build *b, const struct insn *insn, unsigned exec)
{
    const struct opnd *o = &insn->op[0];
    if (insn->row->exec != exec || !easy(b, insn))
        return false;
    return (is_register(o) && o->reg != RSP) || (exec == EXEC_push && o->kind == OPND_IMM);
}

/* Changes general registers other than rSP and nothing else, can do so always and needs no flags:
 * MOV, LEA and their kind. */
static bool is_move(const struct build *b, const struct insn *insn)
{
    unsigned exec = insn->row->exec;
    bool lea = exec == EXEC_lea;
    if (!(lea || exec == EXEC_mov || exec == EXEC_movzx || exec == EXEC_movsx) ||
        !copy_may(b, insn) || insn->opsize == 2 || insn->adsize == 2)
        return false;
    for (unsigned n = 0; n < insn->opnds; n++) {
        const struct opnd *o = &insn->op[n];
        bool good = o->kind == OPND_IMM || (is_register(o) && o->reg != RSP) ||
                    (lea && n == 1 && insn->mem.base != RSP);
        if (!good)
            return false;
    }
    return true;
}

/* Instructions that share one lookup: PUSHes or POPs. */
struct run {
    unsigned length; /* instructions */
    unsigned words;  /* PUSHes or POPs among them */
    bool returns;    /* POPs, with a RET behind them whose word the lookup covers, too */
};
enum { RUN_MAX = 8, RUN_MAX_LENGTH = 20 };

/* Those that begin with the current one. Among PUSHes there may be moves, as compilers put them
 * where functions begin, except to what is pushed behind: then it does not matter when they are
 * made. */
static struct run find_run(const struct build *b, unsigned exec)
{
    struct run run = {.length = 0};
    unsigned moved = 0; /* registers, a bit each */
    for (unsigned n = 0; n < RUN_MAX_LENGTH && run.words < RUN_MAX; n++) {
        const struct insn *insn = &b->insn[b->i + n];
        if (n > 0 && !build_goes_on(b, b->i + n - 1))
            break;
        if (is_simple(b, insn, exec)) {
            if (is_register(&insn->op[0]) && (moved >> insn->op[0].reg & 1))
                break;
            run.words++;
            run.length = n + 1;
        } else if (exec != EXEC_push || run.words == 0 || !is_move(b, insn)) {
            break;
        } else {
            moved |= b->writes[b->i + n];
        }
    }
    return run;
}

/* All of it lies in one page, or each instruction goes by itself. */
static struct cold *begin_run(struct build *b, struct run run, bool pops)
{
    unsigned first = b->i;
    for (unsigned k = 0; k < run.length; k++, b->i++) {
        flags_before_change(b, RSP, true);
        if (pops)
            flags_before_change(b, b->insn[b->i].op[0].reg, true);
    }
    b->i = first;
    flags_spill(b); /* moves find and leave flags alike on both ways: they stand behind a PUSH */
    return run.length > 1 || run.returns ? run_begin(b, run.length) : site_begin(b);
}

static void push_words(struct build *b, struct run run)
{
    const struct insn *insn = build_insn(b);
    int32_t at = 0;
    for (unsigned k = 0; k < run.length; k++, insn++) {
        if (insn->row->exec != EXEC_push)
            continue;
        at -= (int32_t)b->width;
        if (insn->op[0].kind == OPND_IMM) {
            emit_word(b, OP_STORE_IMM, 0, at);
            emit32(&b->e, (uint32_t)insn->imm);
        } else {
            emit_word(b, OP_STORE, guest_value(b, insn->op[0].reg, SCRATCH2), at);
        }
    }
}

static bool push_run(struct build *b, struct run run)
{
    int32_t all = (int32_t)(b->width * run.words);
    unsigned end = b->i + run.length;
    struct cold *site = begin_run(b, run, false);
    lookup_words(b, -all, (unsigned)all, ACCESS_WRITE, site);
    push_words(b, run);
    flags_clobbered(b);
    move_sp(b, -all);
    flags_after_change(b, RSP);
    for (; b->i < end; b->i++)
        if (build_insn(b)->row->exec != EXEC_push)
            copy_insn(b);
    /* As a PUSH leaves them, which is the last one where the run goes one by one. */
    flags_clobbered(b);
    b->i = end - 1;
    site_resume(b, site);
    return true;
}

static bool pop_run(struct build *b, struct run run)
{
    int32_t width = (int32_t)b->width, all = width * (int32_t)run.words;
    const struct insn *insn = build_insn(b);
    if (run.returns)
        flags_store(b); /* which RET would do, and lose R10 */
    struct cold *site = begin_run(b, run, true);
    if (run.returns)
        lookup_words_to_return(b, (unsigned)(all + width), site);
    else
        lookup_words(b, 0, (unsigned)all, ACCESS_READ, site);
    flags_clobbered(b);
    b->i += run.length - 1;
    for (unsigned k = 0; k < run.words; k++, insn++) {
        unsigned reg = insn->op[0].reg, to = guest_target(reg, SCRATCH2);
        emit_word(b, OP_LOAD, to, width * (int32_t)k);
        guest_written(b, reg, to);
        flags_after_change(b, reg);
    }
    move_sp(b, all);
    flags_after_change(b, RSP);
    site_resume(b, site);
    if (run.returns) {
        b->ret_run = site;
        b->ret_from = b->e.p;
    }
    return true;
}

void special_single(struct build *b)
{
    unsigned exec = build_insn(b)->row->exec;
    if (exec == EXEC_push)
        push_run(b, (struct run){.length = 1, .words = 1});
    else if (exec == EXEC_pop)
        pop_run(b, (struct run){.length = 1, .words = 1});
    else
        copy_insn(b);
}

/* PUSH of memory or rSP. */
static bool push_other(struct build *b)
{
    const struct insn *insn = build_insn(b);
    const struct opnd *o = &insn->op[0];
    bool memory = o->kind == OPND_MEM;
    if (!easy(b, insn) || !(is_register(o) || memory))
        return false;
    if (memory && !build_easy_segment(b, insn, false))
        return false;
    flags_before_change(b, RSP, true);
    struct cold *site = site_begin_spilled(b);
    if (memory) {
        lookup_operand(b, b->width, ACCESS_READ, 0, site);
        emit_rm(&b->e, b->width, OP_LOAD, SCRATCH1, SCRATCH1, 0);
        emit_cpu_store(&b->e, SCRATCH1, CPU_AT(jx.jump));
    }
    lookup_words(b, -(int32_t)b->width, b->width, ACCESS_WRITE, site);
    if (memory)
        emit_cpu_load(&b->e, SCRATCH2, CPU_AT(jx.jump));
    emit_word(b, OP_STORE, memory ? SCRATCH2 : HOST_SP, -(int32_t)b->width);
    flags_clobbered(b);
    move_sp(b, -(int32_t)b->width);
    flags_after_change(b, RSP);
    site_resume(b, site);
    return true;
}

static bool push(struct build *b)
{
    struct run run = find_run(b, EXEC_push);
    return run.words ? push_run(b, run) : push_other(b);
}

static bool pop_sp(struct build *b)
{
    flags_before_change(b, RSP, true);
    struct cold *site = site_begin_spilled(b);
    lookup_words(b, 0, b->width, ACCESS_READ, site);
    flags_clobbered(b);
    emit_word(b, OP_LOAD, HOST_SP, 0);
    flags_after_change(b, RSP);
    site_resume(b, site);
    return true;
}

/* An address that names rSP has its value behind the POP (SDM vol. 2, POP). */
static bool pop_memory(struct build *b)
{
    const struct insn *insn = build_insn(b);
    int32_t moved = insn->mem.base == RSP ? (int32_t)b->width : 0;
    if (!build_easy_segment(b, insn, true) || insn->mem.disp > INT32_MAX - moved)
        return false;
    flags_before_change(b, RSP, true);
    struct cold *site = site_begin_spilled(b);
    lookup_words(b, 0, b->width, ACCESS_READ, site);
    emit_word(b, OP_LOAD, SCRATCH1, 0);
    emit_cpu_store(&b->e, SCRATCH1, CPU_AT(jx.jump));
    lookup_at(b, insn->mem.disp + moved, b->width, ACCESS_WRITE, 0, site);
    emit_cpu_load(&b->e, SCRATCH2, CPU_AT(jx.jump));
    emit_rm(&b->e, b->width, OP_STORE, SCRATCH2, SCRATCH1, 0);
    flags_clobbered(b);
    move_sp(b, (int32_t)b->width);
    flags_after_change(b, RSP);
    site_resume(b, site);
    return true;
}

static bool is_ret_behind(const struct build *b, struct run run)
{
    unsigned last = b->i + run.length - 1;
    const struct insn *next = &b->insn[last + 1];
    return build_goes_on(b, last) && next->row->exec == EXEC_ret && easy(b, next);
}

static bool pop(struct build *b)
{
    const struct insn *insn = build_insn(b);
    struct run run = find_run(b, EXEC_pop);
    if (run.words) {
        run.returns = is_ret_behind(b, run);
        return pop_run(b, run);
    }
    if (!easy(b, insn))
        return false;
    return insn->op[0].kind == OPND_MEM ? pop_memory(b) : is_register(&insn->op[0]) && pop_sp(b);
}

static bool leave(struct build *b)
{
    if (!easy(b, build_insn(b)))
        return false;
    flags_before_change(b, RSP, true);
    flags_before_change(b, RBP, true);
    struct cold *site = site_begin_spilled(b);
    lookup_stack(b, RBP, 0, b->width, ACCESS_READ, site);
    flags_clobbered(b);
    emit_rm(&b->e, b->width, OP_LEA, HOST_SP, RBP, (int32_t)b->width);
    emit_rm(&b->e, b->width, OP_LOAD, RBP, SCRATCH1, 0);
    flags_after_change(b, RSP);
    flags_after_change(b, RBP);
    site_resume(b, site);
    return true;
}

/* ENTER without a display, which is PUSH, MOV and SUB: the last word of the frame has to be
 * writable, too. Two lookups, since the frame may lie in two pages for as long as the program runs.
 */
static bool enter(struct build *b)
{
    const struct insn *insn = build_insn(b);
    int32_t width = (int32_t)b->width, size = (uint16_t)insn->imm;
    if (insn->opsize != b->width || (insn->imm2 & 31))
        return false;
    flags_before_change(b, RSP, true);
    flags_before_change(b, RBP, true);
    struct cold *site = site_begin_spilled(b);
    if (size)
        lookup_stack(b, HOST_SP, -(width + size), b->width, ACCESS_WRITE, site);
    lookup_words(b, -width, b->width, ACCESS_WRITE, site);
    emit_word(b, OP_STORE, RBP, -width);
    emit_rm(&b->e, b->width, OP_LEA, RBP, HOST_SP, -width);
    flags_clobbered(b);
    move_sp(b, -(width + size));
    flags_after_change(b, RSP);
    flags_after_change(b, RBP);
    site_resume(b, site);
    return true;
}

/* ---- XLAT ------------------------------------------------------------------------------------ */

static bool xlat(struct build *b)
{
    static const uint8_t movzx_r10d_al[] = {0x44, 0x0f, 0xb6, 0xd0},
                         mov_al_r10[] = {0x41, 0x8a, 0x02};
    const struct insn *insn = build_insn(b);
    if (insn->adsize == 2 || !build_easy_segment(b, insn, false))
        return false;
    flags_before_change(b, RAX, true);
    struct cold *site = site_begin_spilled(b);
    emit_bytes(&b->e, movzx_r10d_al, sizeof movzx_r10d_al);
    emit_rm_indexed(&b->e, insn->adsize, OP_LEA, SCRATCH1, RBX, SCRATCH1, 0);
    lookup_add_segment(b);
    lookup_stack(b, SCRATCH1, 0, 1, ACCESS_READ, site);
    emit_bytes(&b->e, mov_al_r10, sizeof mov_al_r10);
    flags_clobbered(b);
    flags_after_change(b, RAX);
    site_resume(b, site);
    return true;
}

/* ---- Division -------------------------------------------------------------------------------- */

/*
 * #DE must not happen on the host: what could raise it goes to the site. DIV fits when the high
 * half is below the divisor. IDIV fits when the dividend is a sign-extended low half, as after CQO,
 * and the divisor is neither 0 nor -1; others are rare. A divisor in memory is read once: another
 * processor may change it between the comparison and the division.
 */
static bool divide(struct build *b)
{
    enum { GROUP3 = 0xf7, DIV = 6, IDIV = 7 };
    const struct insn *insn = build_insn(b);
    const struct opnd *o = &insn->op[0];
    unsigned size = o->size, divisor = SCRATCH1;
    bool is_signed = insn->row->exec == EXEC_idiv, memory = o->kind == OPND_MEM;
    struct emit *e = &b->e;
    if (size < 4 || (!memory && !is_register(o)) || insn->adsize == 2 || insn->lock)
        return false;
    if (memory && !build_easy_segment(b, insn, false))
        return false;
    flags_before_change(b, RAX, true);
    flags_before_change(b, RDX, true);
    struct cold *site = site_begin_spilled(b);
    if (memory) {
        lookup_operand(b, size, ACCESS_READ, 0, site);
        emit_rm(e, size, OP_LOAD, SCRATCH1, SCRATCH1, 0);
    } else {
        divisor = guest_value(b, o->reg, SCRATCH1);
    }
    if (is_signed) {
        emit_mov(e, size, SCRATCH2, RAX);
        emit_shift(e, size, SHIFT_DIGIT_SAR, SCRATCH2, size * 8 - 1);
        emit_rr(e, size, OP_CMP_LOAD, SCRATCH2, RDX);
        cold_jump(site, emit_jcc_later(e, CC_NE));
        emit_mov(e, size, SCRATCH2, divisor);
        emit_ri(e, size, GRP1_ADD, SCRATCH2, 1); /* 0 and -1 become 1 and 0 */
        emit_ri(e, size, GRP1_CMP, SCRATCH2, 1);
        cold_jump(site, emit_jcc_later(e, CC_BE));
    } else {
        emit_rr(e, size, OP_CMP_LOAD, RDX, divisor);
        cold_jump(site, emit_jcc_later(e, CC_AE));
    }
    emit_rr(e, size, GROUP3, is_signed ? IDIV : DIV, divisor);
    flags_after_change(b, RAX);
    flags_after_change(b, RDX);
    flags_produced(b, (struct flags_desc){.from = FLAGS_MEMORY});
    site_resume(b, site);
    return true;
}

/* ---- The choice ------------------------------------------------------------------------------ */

static bool hint(struct build *b)
{
    static const uint8_t pause[] = {0xf3, 0x90};
    if (build_insn(b)->rep == 0xf3 && !build_insn(b)->has_modrm)
        emit_bytes(&b->e, pause, sizeof pause);
    return true;
}

/* CLD, STD: the guest's DF is in cpu->rflags only. */
static bool direction(struct build *b, bool set)
{
    flags_clobber(b);
    emit_cpu_imm32(&b->e, OP_GRP1_IMM32, set ? GRP1_OR : GRP1_AND, CPU_AT(rflags),
                   set ? RFLAGS_DF : ~(uint32_t)RFLAGS_DF);
    return true;
}

bool special_translate(struct build *b)
{
    const struct insn *insn = build_insn(b);
    switch (insn->row->exec) {
    case EXEC_bt:
    case EXEC_bts:
    case EXEC_btr:
    case EXEC_btc:
        return bits_translate(b);
    case EXEC_push:
        return push(b);
    case EXEC_pop:
        return pop(b);
    case EXEC_gen_enter:
        return enter(b);
    case EXEC_gen_xlat:
        return xlat(b);
    case EXEC_leave:
        return leave(b);
    case EXEC_div:
    case EXEC_idiv:
        return divide(b);
    case EXEC_vec_gather:
        return gather_translate(b);
    case EXEC_x87_fldcw:
    case EXEC_vec_ldmxcsr:
        return x87_control(b);
    case EXEC_movs:
    case EXEC_stos:
    case EXEC_lods:
    case EXEC_cmps:
    case EXEC_scas:
        return string_translate(b);
    case EXEC_gen_cld:
    case EXEC_gen_std:
        return direction(b, insn->row->exec == EXEC_gen_std);
    case EXEC_nop:
    case EXEC_gen_hint:
        return hint(b);
    default:
        return system_translate(b);
    }
}
