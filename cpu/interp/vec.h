/*
 * vec.h - the vector room of the interpreter: MMX, SSE, AVX, x87, and the FXSAVE/XSAVE family.
 *
 * Rows with exec `vec_host` execute the guest's own instruction on the host: exact by construction
 * (DESIGN section 4). A *stub* is a few host instructions: load fixed vector registers from the
 * guest's (in struct cpu), the instruction itself re-encoded with these fixed registers and with
 * its memory operand redirected to a buffer, store the result. Stubs are made once for each
 * distinct encoding and cached; the interpreter asks for them when it decodes (vec_prepare) and
 * passes them when it executes (vec_run), so that nothing is looked up at run time:
 *
 *     uop->prepared = vec_prepare(cpu, &insn);          (at decode, exec == EXEC_vec_host)
 *     vec_run(cpu, &uop->insn, uop->prepared);          (at run time)
 *
 * All other vec_ and x87_ functions have the plain signature. Every one expects cpu->rip at the
 * instruction, sys_check_fpu() done, and either raises with nothing committed or completes.
 */
#ifndef CPU_INTERP_VEC_H
#define CPU_INTERP_VEC_H

#include "internal/cpu.h"

/* One engine per vCPU, used only by the thread that runs it: no locks. The engine lives until
 * vector_engine_fini(), and so does every handle that vec_prepare() returned. */
bool vector_engine_init(struct cpu *cpu, struct error *err);
void vector_engine_fini(struct cpu *cpu);

/* The stub for `insn`, whose row must have exec vec_host; NULL when there is no room for another
 * one, which vec_run() accepts (it makes the stub anew each time). Never raises. */
const void *vec_prepare(struct cpu *cpu, const struct insn *insn);
void vec_run(struct cpu *cpu, const struct insn *insn, const void *prepared);

/* ---- MXCSR (SDM vol. 1, 10.2.3) -------------------------------------------------------------- */

enum {
    MXCSR_IE = 1 << 0,
    MXCSR_DE = 1 << 1,
    MXCSR_ZE = 1 << 2,
    MXCSR_OE = 1 << 3,
    MXCSR_UE = 1 << 4,
    MXCSR_PE = 1 << 5,
    MXCSR_FLAGS = 0x3f,
    MXCSR_DAZ = 1 << 6,
    MXCSR_MASK_SHIFT = 7,
    MXCSR_UM = 1 << 11,
    MXCSR_MASKS = 0x3f << 7,
    MXCSR_RC = 3 << 13,
    MXCSR_FTZ = 1 << 15,
    MXCSR_MM = 1 << 17, /* AMD's misaligned-exception mask (APM vol. 1, 4.2.2) */
    MXCSR_INIT = 0x1f80,
};
/* MXCSR_MASK: all other bits are reserved, #GP(0) when set. */
static inline uint32_t mxcsr_valid(const struct cpu *cpu)
{
    return insn_has_feature(&cpu->features, FEAT_MISALIGNSSE) ? 0xffff | MXCSR_MM : 0xffff;
}

/* The host's. */
static inline uint32_t vec_host_mxcsr(void)
{
    uint32_t value;
    __asm__ volatile("stmxcsr %0" : "=m"(value));
    return value;
}
static inline void vec_set_host_mxcsr(uint32_t value)
{
    __asm__ volatile("ldmxcsr %0" : : "m"(value) : "memory");
}

/* ---- x87 and MMX (x87_state.c) --------------------------------------------------------------- */

static inline unsigned x87_top(const struct x87 *x87)
{
    return x87->fsw >> 11 & 7;
}
/* cpu->x87.ftw holds 00b for every register in use and 11b for an empty one, so that equal states
 * compare equal. This gives the tags as FNSTENV stores them: valid, zero, special, empty. */
uint16_t x87_full_tags(const struct x87 *x87);
/* FXSAVE's abridged form, one bit for each physical register in use, and back. */
static inline uint8_t x87_abridged_tags(uint16_t ftw)
{
    unsigned bits = 0;
    for (unsigned physical = 0; physical < 8; physical++) {
        if ((ftw >> physical * 2 & 3) != 3)
            bits |= 1u << physical;
    }
    return (uint8_t)bits;
}
static inline uint16_t x87_tags_from_abridged(uint8_t abridged)
{
    unsigned tags = 0;
    for (unsigned physical = 0; physical < 8; physical++) {
        if (!(abridged >> physical & 1))
            tags |= 3u << physical * 2;
    }
    return (uint16_t)tags;
}
/* FNINIT. The registers keep their contents. */
void x87_init(struct x87 *x87);
/* Changes TOP: st[] is relative to it and rotates. */
void x87_set_top(struct x87 *x87, unsigned top);
/* FSW.ES and B from the exception flags and FCW's masks: to be called when one of them changes. */
void x87_update_es(struct x87 *x87);
/* What every MMX instruction but EMMS does: TOP = 0, all tags valid. Afterwards MMi is st[i]. */
void x87_enter_mmx(struct x87 *x87);

/* ---- XSAVE (xsave.c); CPUID leaf 0Dh must say the same --------------------------------------- */

enum {
    XSTATE_X87 = 1 << 0,
    XSTATE_SSE = 1 << 1,
    XSTATE_AVX = 1 << 2,
    XSTATE_PKRU = 1 << 9,
    XSAVE_HEADER = 512,
    XSAVE_AVX_OFFSET = 576,
    XSAVE_AVX_SIZE = 256,
    XSAVE_PKRU_OFFSET = 2688,
    XSAVE_PKRU_SIZE = 8,
};

#endif
