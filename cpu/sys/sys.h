/*
 * sys.h - modes, exceptions, far control transfers, system instructions.
 *
 * Semantic functions of INSN_SYSTEM rows are `void sys_NAME(struct cpu *, const struct insn *)`. Before
 * the call the engine sets cpu->rip to the instruction and cpu->next_rip behind it, and materialises
 * RFLAGS (cc_op == CC_RFLAGS). The function either raises, having committed nothing, or completes;
 * afterwards execution goes on at cpu->next_rip, in whatever mode the function left.
 */
#ifndef CPU_SYS_SYS_H
#define CPU_SYS_SYS_H

#include "cpu/mem.h"
#include "internal/cpu.h"

/* ---- Delivery (exception.c) ------------------------------------------------------------------ */

enum event_kind {
    EVENT_EXCEPTION, /* fault: cpu->exception; RF set in the saved image where SDM 17.3.1.1 says */
    EVENT_SOFTWARE,  /* INT n, INT3, INTO: DPL checked, IOPL in V86, saved RIP = next_rip */
    EVENT_ICEBP,     /* INT1: no DPL check */
    EVENT_EXTERNAL,  /* INTR: EXT bit in error codes */
    EVENT_NMI,
};
/* Delivers through the IVT or IDT of the current mode, with all of SDM vol. 3, 6.12-6.15: gates, stack
 * switch, IST, error codes; page faults and others during delivery become a second exception, double
 * fault or shutdown inside. Does not raise to the caller. */
void sys_deliver(struct cpu *cpu, enum event_kind kind, uint8_t vector);
/* Called by the run loop when cpu->unwind was taken: delivers cpu->exception. */
void sys_deliver_exception(struct cpu *cpu);
/* Run loop: single-step and data-breakpoint traps, NMI, INTR, SMI, INIT, SIPI in the order of SDM table
 * 6-2. True when something was delivered. */
bool sys_service_requests(struct cpu *cpu);

/* ---- Segments (segment.c) -------------------------------------------------------------------- */

/* MOV/POP Sreg, LDS and relatives, real and V86 mode included; CS is not loaded here. */
void sys_load_segment(struct cpu *cpu, unsigned seg, uint16_t selector);
/* Recomputes nothing but the base/limit/attr for real or V86 mode. */
void sys_set_real_segment(struct cpu *cpu, unsigned seg, uint16_t selector);

/* ---- Near and far stack helpers for all rooms of cpu/ ---------------------------------------- */

/* Stack-pointer width by SS.B and mode; new RSP committed by the caller after the last access. */
static inline uint64_t sys_stack_mask(const struct cpu *cpu)
{
    return cpu->mode & MODE_CODE64 ? ~0ull : cpu->mode & MODE_STACK32 ? 0xffffffffull : 0xffffull;
}

/* CPL, CR, EFER and so on after any change of them: the MMU is told, modes are recomputed. */
void sys_set_cr0(struct cpu *cpu, uint64_t value); /* raises #GP(0) as MOV CR0 does */
void sys_set_cr3(struct cpu *cpu, uint64_t value);
void sys_set_cr4(struct cpu *cpu, uint64_t value);
/* At CPL 3, when deferred upcalls wait: has the run loop see whether one is due. */
void sys_look_for_upcalls(struct cpu *cpu);
void sys_set_xcr0(struct cpu *cpu, uint64_t value);
void sys_set_pkru(struct cpu *cpu, uint32_t pkru);

/* ---- x87 and vector availability, for rows with INSN_X87/SSE/AVX/MMX ------------------------- */

/* Raises #UD or #NM as the mode demands, and #MF for a pending unmasked x87 exception (or FERR#). */
void sys_check_fpu(struct cpu *cpu, const struct insn *insn);

/* ---- CPUID (cpuid.c) ------------------------------------------------------------------------- */

struct cpu_model;
const struct cpu_model *cpu_model_parse(const char *spec, struct error *err);
void cpu_model_free(const struct cpu_model *model);
void cpu_model_features(const struct cpu_model *model, struct insn_features *features);
void cpu_cpuid(const struct cpu *cpu, uint32_t leaf, uint32_t subleaf, uint32_t regs[4]);
/* Lists the models and flags, for -cpu help. */
void cpu_model_help(FILE *out);

#endif
