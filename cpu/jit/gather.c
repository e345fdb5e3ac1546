/*
 * gather.c - VGATHERDPS, VPGATHERQQ and their like: C fetches the elements by the view, with the
 * other vectors left in the host's registers.
 *
 * Translated code stores the three registers that the instruction names, has jit_gather() do all of
 * it or nothing, and loads two of them again. An element that is not to be had by the view is the
 * site's affair, which begins anew: nothing has been changed then.
 *
 * This file is compiled for general registers only (cpu/CMakeLists.txt). jit_gather() may call no
 * function that is not, nor raise.
 */
#include "cpu/interp/execute.h"
#include "cpu/jit/build.h"
#include "cpu/mem_inline.h"
#include "insn_exec.h"

/* ---- What translated code calls -------------------------------------------------------------- */

union what {
    uint32_t all;
    struct {
        uint8_t to, with, index;      /* vector registers */
        uint8_t scale : 2, size : 1,  /* elements of 8 bytes; else of 4 */
            index_size : 1, wide : 1; /* indices likewise; 256 bits */
    };
};
_Static_assert(sizeof(union what) == 4, "one operand");

static uint64_t element(const union vreg *v, unsigned i, bool of_8)
{
    return of_8 ? v->q[i] : (uint64_t)(int64_t)(int32_t)v->d[i];
}

/* The base of all addresses is in jx.jump. Elements are fetched in order; a mask says by its sign
 * which. What it does not select stays; above the elements the destination becomes 0, and the mask
 * does as a whole. */
uint64_t jit_gather(struct cpu *cpu, uint32_t packed)
{
    const union what what = {.all = packed};
    union vreg *to = &cpu->ymm[what.to], *with = &cpu->ymm[what.with];
    const union vreg *indices = &cpu->ymm[what.index];
    unsigned bytes = what.wide ? 32 : 16, count = bytes / (what.size || what.index_size ? 8 : 4);
    uint64_t value[8];
    for (unsigned i = 0; i < count; i++) {
        value[i] = element(to, i, what.size);
        if ((int64_t)element(with, i, what.size) >= 0)
            continue;
        uint64_t lin = cpu->jx.jump + (element(indices, i, what.index_size) << what.scale);
        const void *p = mem_hit(cpu, lin, what.size ? 8 : 4, ACCESS_READ);
        if (!p)
            return 0;
        value[i] = mem_host_load(p, what.size ? 8 : 4);
    }
    for (unsigned i = 0; i < 4; i++)
        with->q[i] = 0;
    for (unsigned i = 0; i < (what.size ? 4 : 8); i++) {
        uint64_t v = i < count ? value[i] : 0;
        if (what.size)
            to->q[i] = v;
        else
            to->d[i] = (uint32_t)v;
    }
    return 1;
}

/* ---- Translation ----------------------------------------------------------------------------- */

bool gather_is_direct(const struct build *b, const struct insn *insn)
{
    return insn->row->exec == EXEC_vec_gather && b->code64 && insn->adsize == 8 &&
           b->jit->host_avx && !execute_vector_needs_check(b->cpu->mode, insn->row);
}

/* R10 = where an index of 0 leads. */
static void base_address(struct build *b, const struct insn_mem *m)
{
    struct emit *e = &b->e;
    if (m->base == REG_NONE)
        emit_mov_imm64(e, SCRATCH1, (uint64_t)m->disp);
    else
        emit_rm(e, 8, OP_LEA, SCRATCH1, guest_value(b, m->base, SCRATCH1), (int32_t)m->disp);
    lookup_add_segment(b);
}

bool gather_translate(struct build *b)
{
    const struct insn *insn = build_insn(b);
    struct emit *e = &b->e;
    if (!gather_is_direct(b, insn))
        return false;
    unsigned to = insn->op[0].reg, with = insn->op[2].reg, index = insn->mem.index;
    union what what = {.to = (uint8_t)to,
                       .with = (uint8_t)with,
                       .index = (uint8_t)index,
                       .scale = insn->mem.scale & 3,
                       .size = (insn->row->exec_arg & 15) == 8,
                       .index_size = insn->row->exec_arg >> 4 == 8,
                       .wide = insn->vex_l};
    flags_before_change(b, REG_VECTOR + to, true);
    flags_before_change(b, REG_VECTOR + with, true);
    struct cold *site = site_begin_spilled(b);
    base_address(b, &insn->mem);
    emit_cpu_store(e, SCRATCH1, CPU_AT(jx.jump));
    emit_cpu_ymm(e, OP_0F_MOVUPS_STORE, to);
    emit_cpu_ymm(e, OP_0F_MOVUPS_STORE, with);
    emit_cpu_ymm(e, OP_0F_MOVUPS_STORE, index);
    emit_mov_imm32(e, SCRATCH1, what.all);
    emit_call(e, b->jit->thunks.gather);
    cold_jump(site, emit_jcc_later(e, CC_E));
    emit_cpu_ymm(e, OP_0F_MOVUPS_LOAD, to);
    emit_cpu_ymm(e, OP_0F_MOVUPS_LOAD, with);
    flags_clobbered(b);
    flags_after_change(b, REG_VECTOR + to);
    flags_after_change(b, REG_VECTOR + with);
    site_resume(b, site);
    return true;
}
