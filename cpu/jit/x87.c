/*
 * x87.c - x87 and MMX instructions as copies.
 *
 * While translated code runs the guest's x87 registers may be the host's own, as its vectors are:
 * the first region that uses any loads them (x87_home.c), and C puts them away before it does
 * anything. That holds where the guest's control word masks all exceptions (JIT_MODE_X87), for then
 * none of these instructions can raise one on the host, now or later.
 *
 * The pointers to the last instruction and its operand are host addresses there, and nobody looks
 * at those: the guest's are kept in cpu->x87. They count only when C has a look, so they are not
 * written by each instruction, but *due* until something comes that might lead to C, or that
 * changes a register by which the operand's address is computed. A site in between writes them on
 * its cold way.
 */
#include "cpu/interp/x87.h"
#include "cpu/interp/execute.h"
#include "cpu/interp/vec.h"
#include "cpu/jit/build.h"
#include "insn_exec.h"

bool x87_row_copies(const struct insn_row *row)
{
    switch (row->exec) {
    case EXEC_x87_fnop:
    case EXEC_x87_rotate:
    case EXEC_x87_ffree:
    case EXEC_x87_emms:
    case EXEC_x87_fnstcw:
    case EXEC_x87_fnstsw:
    case EXEC_x87_fnclex:
    case EXEC_x87_nop:
        return true;
    default:
        return row->attr & INSN_PASS;
    }
}

bool x87_may_copy(const struct build *b)
{
    return (b->mode & JIT_MODE_X87) && !(b->mode & (MODE_EM | MODE_TS)) && b->jit->host_avx;
}

static bool loads_control(const struct build *b, const struct insn *insn)
{
    return insn->row->exec == EXEC_x87_fldcw && x87_may_copy(b);
}

bool x87_is_used(const struct build *b, const struct insn *insn)
{
    bool copied = (insn->row->attr & (INSN_X87 | INSN_MMX)) && copy_may(b, insn);
    return copied || loads_control(b, insn);
}

/* ---- The pointers to the last instruction ---------------------------------------------------- */

/* As x87_note() has it (cpu/interp/x87_state.c): not by control instructions, nor by MMX. */
static bool is_noted(const struct insn *insn)
{
    switch (insn->row->exec) {
    case EXEC_x87_host:
    case EXEC_x87_fnop:
    case EXEC_x87_rotate:
    case EXEC_x87_ffree:
        return true;
    default:
        return false;
    }
}

/* word [struct cpu + to] = word [struct cpu + from] */
static void copy_word(struct emit *e, int32_t to, int32_t from)
{
    emit_cpu_0f(e, 4, OP_0F_MOVZX_WORD, SCRATCH2, from);
    emit8(e, 0x66);
    emit_cpu(e, 4, OP_STORE, SCRATCH2, to);
}

static void note_instruction(struct build *b, unsigned n)
{
    struct emit *e = &b->e;
    const struct insn *insn = &b->insn[n];
    emit_cpu_load(e, SCRATCH2, CPU_AT(jx.page_va));
    emit_rm(e, b->width, OP_LEA, SCRATCH2, SCRATCH2, b->off[n]);
    emit_cpu_store(e, SCRATCH2, CPU_AT(x87.fip));
    if (!cpu_is_amd(b->cpu)) /* the rest changes with unmasked exceptions only */
        return;
    copy_word(e, CPU_AT(x87.fcs), CPU_SELECTOR(SEG_CS));
    unsigned fop = (insn->bytes[insn->off_modrm - 1] & 7u) << 8 | insn->modrm;
    emit8(e, 0x66);
    emit_cpu(e, 4, OP_STORE_IMM, 0, CPU_AT(x87.fop));
    emit8(e, fop & 0xff);
    emit8(e, fop >> 8);
}

static void note_operand(struct build *b, unsigned n)
{
    unsigned i = b->i;
    b->i = n;
    lookup_effective(b, SCRATCH2, b->width);
    b->i = i;
    emit_cpu_store(&b->e, SCRATCH2, CPU_AT(x87.fdp));
    copy_word(&b->e, CPU_AT(x87.fds), CPU_SELECTOR(b->insn[n].mem.seg));
}

void x87_emit_note(struct build *b, struct x87_due due)
{
    if (due.insn)
        note_instruction(b, due.insn - 1u);
    if (due.operand)
        note_operand(b, due.operand - 1u);
}

void x87_emit_due(struct build *b)
{
    x87_emit_note(b, b->x87_due);
    b->x87_due = (struct x87_due){0, 0};
}

/* Does the instruction change a register by which the operand that is due is addressed? */
static bool moves_operand(const struct build *b)
{
    if (!b->x87_due.operand)
        return false;
    const struct insn_mem *m = &b->insn[b->x87_due.operand - 1].mem;
    return b->writes[b->i] & (1u << m->base | 1u << m->index); /* as changes_base() in held.c */
}

/* Other instructions with an operand in memory may be the site's, and C may show the pointers. */
static bool may_leave(const struct build *b, const struct insn *insn)
{
    if (insn->row->exec == EXEC_lea)
        return false;
    return !copy_may(b, insn) || (insn->has_mem && !(insn->row->attr & INSN_X87));
}

void x87_before(struct build *b)
{
    const struct insn *insn = build_insn(b);
    if (b->x87_due.insn && (may_leave(b, insn) || moves_operand(b)))
        x87_emit_due(b);
}

void x87_after(struct build *b)
{
    const struct insn *insn = build_insn(b);
    if (is_noted(insn) && copy_may(b, insn)) {
        b->x87_due.insn = (uint8_t)(b->i + 1);
        if (insn->has_mem && cpu_is_amd(b->cpu))
            b->x87_due.operand = (uint8_t)(b->i + 1);
    }
    if (b->x87_due.insn && (!b->flows[b->i] || b->leader[b->i + 1]))
        x87_emit_due(b);
}

/* ---- Control words --------------------------------------------------------------------------- */

/* R11 = the operand in memory, of 2 or 4 bytes. */
static struct cold *load_word(struct build *b, unsigned size)
{
    struct emit *e = &b->e;
    struct cold *site = site_begin_spilled(b);
    lookup_operand(b, size, ACCESS_READ, 0, site);
    if (size == 4) {
        emit_rm(e, 4, OP_LOAD, SCRATCH2, SCRATCH1, 0);
        return site;
    }
    emit_rex(e, 4, SCRATCH2, 0, SCRATCH1);
    emit8(e, 0x0f);
    emit8(e, OP_0F_MOVZX_WORD);
    emit_modrm_mem(e, SCRATCH2, SCRATCH1, 0);
    return site;
}

/* FLDCW that leaves all exceptions masked. The word is loaded once: another processor may change
 * it. */
static bool load_fcw(struct build *b)
{
    enum { OP_D9 = 0xd9, FLDCW = 5 };
    struct emit *e = &b->e;
    struct cold *site = load_word(b, 2);
    emit_ri(e, 4, GRP1_AND, SCRATCH2, X87_FCW_VALID);
    emit_ri(e, 4, GRP1_OR, SCRATCH2, X87_FCW_ONES);
    emit_cpu(e, 4, OP_STORE, SCRATCH2, CPU_AT(jx.control));
    emit_ri(e, 4, GRP1_AND, SCRATCH2, X87_EXCEPTIONS);
    emit_ri(e, 4, GRP1_CMP, SCRATCH2, X87_EXCEPTIONS);
    cold_jump(site, emit_jcc_later(e, CC_NE));
    emit_cpu(e, 4, OP_D9, FLDCW, CPU_AT(jx.control));
    flags_clobbered(b);
    site_resume(b, site);
    return true;
}

bool x87_loads_mxcsr(const struct build *b, const struct insn *insn)
{
    return insn->row->exec == EXEC_vec_ldmxcsr && (b->mode & JIT_MODE_MASKED) &&
           !execute_vector_needs_check(b->cpu->mode, insn->row);
}

/* LDMXCSR likewise, and without bits that not every processor has. */
static bool load_mxcsr(struct build *b)
{
    enum { LDMXCSR = 2, FREE = MXCSR_RC | MXCSR_FTZ | MXCSR_DAZ | 0x3f };
    struct emit *e = &b->e;
    flags_before_changes(b, true);
    struct cold *site = load_word(b, 4);
    emit_cpu(e, 4, OP_STORE, SCRATCH2, CPU_AT(jx.control));
    emit_ri(e, 4, GRP1_AND, SCRATCH2, ~FREE);
    emit_ri(e, 4, GRP1_CMP, SCRATCH2, MXCSR_INIT);
    cold_jump(site, emit_jcc_later(e, CC_NE));
    emit_cpu_0f(e, 4, OP_0F_GRP15, LDMXCSR, CPU_AT(jx.control));
    flags_clobbered(b);
    flags_after_changes(b);
    site_resume(b, site);
    return true;
}

bool x87_control(struct build *b)
{
    const struct insn *insn = build_insn(b);
    if (insn->adsize == 2 || !build_easy_segment(b, insn, false))
        return false;
    if (loads_control(b, insn))
        return load_fcw(b);
    return x87_loads_mxcsr(b, insn) && load_mxcsr(b);
}
