/*
 * cpu.h - the state of one virtual CPU, shared by every engine, and what the machine needs of it.
 *
 * An engine starts and stops at any instruction boundary; between instructions all guest state is
 * in this struct and nowhere else. Only cpu/ and src/machine include this header.
 */
#ifndef INTERNAL_CPU_H
#define INTERNAL_CPU_H

#include "bailey/protect.h"
#include "internal/clock.h"
#include "internal/insn.h"
#include "internal/irq.h"
#include "internal/mmu.h"
#include <pthread.h>
#include <setjmp.h>
#include <stdalign.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct error;
struct exclusive;
struct io_space;
struct log;
struct error;

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };

/* RFLAGS beyond the arithmetic ones of insn.h (SDM vol. 1, 3.4.3). */
enum {
    RFLAGS_FIXED = 1 << 1,
    RFLAGS_TF = 1 << 8,
    RFLAGS_IF = 1 << 9,
    RFLAGS_DF = 1 << 10,
    RFLAGS_IOPL = 3 << 12,
    RFLAGS_NT = 1 << 14,
    RFLAGS_RF = 1 << 16,
    RFLAGS_VM = 1 << 17,
    RFLAGS_AC = 1 << 18,
    RFLAGS_VIF = 1 << 19,
    RFLAGS_VIP = 1 << 20,
    RFLAGS_ID = 1 << 21,
};
#define CR0_PE         (1u << 0)
#define CR0_MP         (1u << 1)
#define CR0_EM         (1u << 2)
#define CR0_TS         (1u << 3)
#define CR0_ET         (1u << 4)
#define CR0_NE         (1u << 5)
#define CR0_WP         (1u << 16)
#define CR0_AM         (1u << 18)
#define CR0_NW         (1u << 29)
#define CR0_CD         (1u << 30)
#define CR0_PG         (1u << 31)
#define CR4_VME        (1u << 0)
#define CR4_PVI        (1u << 1)
#define CR4_TSD        (1u << 2)
#define CR4_DE         (1u << 3)
#define CR4_PSE        (1u << 4)
#define CR4_PAE        (1u << 5)
#define CR4_MCE        (1u << 6)
#define CR4_PGE        (1u << 7)
#define CR4_PCE        (1u << 8)
#define CR4_OSFXSR     (1u << 9)
#define CR4_OSXMMEXCPT (1u << 10)
#define CR4_UMIP       (1u << 11)
#define CR4_FSGSBASE   (1u << 16)
#define CR4_PCIDE      (1u << 17)
#define CR4_OSXSAVE    (1u << 18)
#define CR4_SMEP       (1u << 20)
#define CR4_SMAP       (1u << 21)
#define CR4_PKE        (1u << 22)
#define EFER_SCE       (1u << 0)
#define EFER_LME       (1u << 8)
#define EFER_LMA       (1u << 10)
#define EFER_NXE       (1u << 11)

enum vector {
    VECTOR_DE = 0,
    VECTOR_DB = 1,
    VECTOR_NMI = 2,
    VECTOR_BP = 3,
    VECTOR_OF = 4,
    VECTOR_BR = 5,
    VECTOR_UD = 6,
    VECTOR_NM = 7,
    VECTOR_DF = 8,
    VECTOR_TS = 10,
    VECTOR_NP = 11,
    VECTOR_SS = 12,
    VECTOR_GP = 13,
    VECTOR_PF = 14,
    VECTOR_MF = 16,
    VECTOR_AC = 17,
    VECTOR_MC = 18,
    VECTOR_XM = 19,
    VECTOR_CP = 21,
};

/* A segment register with its hidden part. `attr` is bits 8-23 of the descriptor's second dword
 * (type, S, DPL, P, AVL, L, D/B, G), moved down by 8; `limit` is in bytes, granularity applied. */
struct segment {
    uint64_t base;
    uint32_t limit;
    uint16_t selector;
    uint16_t attr;
};
enum {
    SEG_ATTR_TYPE = 0xf,
    SEG_ATTR_S = 1 << 4,
    SEG_ATTR_DPL_SHIFT = 5,
    SEG_ATTR_P = 1 << 7,
    SEG_ATTR_AVL = 1 << 12,
    SEG_ATTR_L = 1 << 13,
    SEG_ATTR_DB = 1 << 14,
    SEG_ATTR_G = 1 << 15,
};
struct table_register {
    uint64_t base;
    uint16_t limit;
};

/* How the six arithmetic flags are to be computed from cc_dst, cc_src, cc_src2 when somebody asks.
 * The interpreter's business (cpu/interp/flags.h); everybody else calls cpu_rflags(). CC_RFLAGS
 * means that they are in `rflags`. */
enum cc_op_base { CC_RFLAGS = 0 };

union vreg {
    uint8_t b[32];
    uint16_t w[16];
    uint32_t d[8];
    uint64_t q[4];
};

/* x87 as FXSAVE lays it out (SDM vol. 1, table 10-2): st[] is relative to TOP, 16 bytes each, of
 * which 10 count. MMX registers are the low 8 bytes of the *physical* registers. `ftw` is the full
 * 16-bit tag word here. */
struct x87 {
    uint16_t fcw, fsw, ftw, fop;
    uint64_t fip, fdp;
    uint16_t fcs, fds;
    alignas(16) uint8_t st[8][16];
};

/* What translated code keeps outside registers (cpu/jit/abi.h); what it uses most comes last. */
struct cpu_jit {
    uint32_t mxcsr; /* the host's, while they are there: what it is to be, and has become */
    uint32_t control;  /* a word on its way to MXCSR or to the x87's control word */
    uint32_t x87_home; /* the x87's registers are in cpu->x87, not in the host's */
    void *edge;     /* JIT_EXIT_EDGE */
    struct jit_watch
        *watch;          /* cpu/jit/last.c: C is to have a look at this access, NULL: at none; */
    uint64_t asked;      /* its linear address */
    struct jit_pcs *pcs; /* of the present mode */
    uint64_t sp;         /* the host's stack pointer as the last way to C found it */
    struct clock_piece
        tsc; /* the clock's, less tsc_offset; forgotten when the vCPU begins to run */
    alignas(32) struct cpu *self;
    uint64_t stack;        /* the host's stack holds the guest's open calls (cpu/jit/branch.c): its
                              pointer when there are none */
    uint64_t next_va;      /* the page_va where an indirect call goes */
    uint64_t kept;         /* an operand of what made the flags, from memory or a lost register */
    alignas(64) uint64_t
        held[4];           /* host addresses of groups of accesses (cpu/jit/held.c) */
    uint64_t jump;         /* kept over a lookup: where an indirect call goes, what PUSH stores */
    uint64_t page_va;      /* rip less the offset in its page */
    uint32_t exit_off;     /* JIT_EXIT_HERE, JIT_EXIT_POLL: from page_va, signed */
    uint32_t vec_home;     /* vectors are in cpu->ymm[], not in the host's registers */
    uint16_t flags;        /* as LAHF and SETO AL leave them in AX */
    _Atomic uint32_t kick; /* something may want attention: set by cpu_request() */
};

enum cpu_activity { CPU_RUNNING, CPU_HALTED, CPU_WAIT_SIPI, CPU_SHUTDOWN };

/* What decides how bytes at one address decode and which checks the code makes: part of a block's
 * key (DESIGN section 4). Kept in cpu->mode by cpu_mode_update(). */
enum cpu_mode_bits {
    MODE_CODE64 = 1 << 0,
    MODE_CODE32 = 1 << 1,  /* neither: 16-bit */
    MODE_STACK32 = 1 << 2, /* SS.B; 64-bit code uses RSP whatever it says */
    MODE_PROT = 1 << 3,    /* CR0.PE and not virtual-8086 */
    MODE_V86 = 1 << 4,
    MODE_LONG = 1 << 5, /* EFER.LMA */
    MODE_USER = 1 << 6, /* CPL 3 */
    MODE_FLAT = 1 << 7, /* CS, SS, DS, ES: base 0, limit 4 GiB, usable, writable (not CS) */
    MODE_TS = 1 << 8,
    MODE_EM = 1 << 9,
    MODE_MP = 1 << 10,
    MODE_OSFXSR = 1 << 11,
    MODE_AVX = 1 << 12,   /* CR4.OSXSAVE and XCR0[2:1] = 3 */
    MODE_ALIGN = 1 << 13, /* CR0.AM, RFLAGS.AC, CPL 3: #AC is live */
    MODE_OSXMMEXCPT = 1 << 14,
    MODE_FS = 1 << 15, /* with MODE_FLAT, not in 64-bit code: limit 4 GiB, usable, writable */
    MODE_GS = 1 << 16,
};

struct guard;      /* cpu/guard_internal.h */
struct cpu_resume; /* cpu/upcall.c */
struct rules_caller;
struct state_desc;
struct block_cache; /* cpu/interp */
struct jit;         /* cpu/jit */
struct jit_pcs;
struct vector_engine; /* cpu/interp: stubs that run guest SIMD on the host */
struct cpu_model;     /* cpu/sys/cpuid.c */

struct cpu {
    /* -- hot: what most instructions touch ------------------------------------------------- */
    uint64_t gpr[16];
    uint64_t gpr_zero; /* gpr[REG_NONE]: always 0, so that an absent base or index needs no test */
    uint64_t rip;      /* of the current instruction, whenever anything outside an engine runs */
    uint64_t next_rip; /* where execution goes on; SYSTEM instructions may change it */
    uint64_t rflags;   /* arithmetic flags are stale here unless cc_op == CC_RFLAGS */
    uint64_t cc_dst, cc_src, cc_src2;
    uint32_t cc_op;
    uint32_t mode;            /* MODE_* */
    _Atomic uint32_t request; /* CPU_REQ_*, set by other threads */
    uint32_t attention;   /* which requests matter now: INTR only with IF = 1 and no shadow, ... */
    uint64_t seg_base[8]; /* by SEG_*: the base to add; 0 for ES CS SS DS in 64-bit mode and
                             [SEG_NONE] */
    uint8_t cpl;
    uint8_t priv;     /* enum mmu_priv of explicit data accesses, from CPL and AC */
    uint8_t shadow;   /* interrupt shadow: SHADOW_*; over after the next instruction */
    uint8_t activity; /* enum cpu_activity */
    uint64_t retired; /* instructions; exact at safepoints, while the interpreter is the engine */
    /* What translated code reads most is where one ends and the other begins (cpu/jit/abi.h). */
    struct cpu_jit jx;
    struct mmu_cpu mmu;

    /* -- system state ------------------------------------------------------------------------ */
    struct segment seg[6], ldtr, tr; /* seg[] by SEG_* */
    struct table_register gdtr, idtr;
    uint64_t cr0, cr2, cr3, cr4, efer, xcr0;
    uint64_t dr[8]; /* 0-3, 6, 7 */
    uint64_t msr_star, msr_lstar, msr_cstar, msr_sfmask, msr_kernel_gs_base, msr_tsc_aux;
    uint64_t msr_sysenter_cs, msr_sysenter_esp, msr_sysenter_eip, msr_pat, msr_misc_enable;
    uint64_t msr_spec_ctrl, msr_xss, msr_feature_control, msr_mcg_status, msr_debugctl;
    uint64_t msr_mtrr_def_type, msr_mtrr_fixed[11], msr_mtrr_base[8], msr_mtrr_mask[8];
    uint64_t tsc_offset; /* guest TSC = clock_now() + tsc_offset; IA32_TSC_ADJUST moves it */
    uint64_t msr_tsc_adjust;
    uint8_t sipi_vector;
    bool nmi_blocked; /* between delivery of an NMI and the next IRET */
    bool bsp;
    uint32_t pkru;
    uint32_t mxcsr;

    /* -- vector and x87 ------------------------------------------------------------------------ */
    alignas(64) union vreg ymm[16];
    struct x87 x87;

    /* -- exceptions ---------------------------------------------------------------------------- */
    struct {
        uint8_t vector;
        bool has_error;
        uint32_t error_code;
        uint64_t dr6;   /* bits to set in DR6, for #DB */
    } exception;        /* what cpu_raise() was called with */
    sigjmp_buf *unwind; /* where cpu_raise() goes; set by whoever runs guest code */
    uint32_t
        debug_pending; /* DR6 bits of data breakpoints met by the current instruction (a trap) */
    bool data_breakpoints; /* DR7 has an enabled data or I/O breakpoint */
    bool code_breakpoints; /* DR7 has an enabled instruction breakpoint */

    /* -- protection (cpu/guard.h) ----------------------------------------------------------------
     */
    bool guarded;     /* accesses are noted, stores kept back */
    bool guard_due;   /* the instruction at rip is to run under guard */
    bool fetch_ruled; /* rules may have a say in the bytes that were fetched last */

    /* -- surroundings -------------------------------------------------------------------------- */
    unsigned index; /* vCPU number = APIC id */
    struct phys_map *map;
    struct io_space *io;
    struct clock *clock;
    struct exclusive *exclusive;
    struct log *log;
    struct lapic_port lapic;
    const struct cpu_model *model;
    struct insn_features features;
    struct block_cache *blocks;
    struct jit *jit;   /* NULL: the interpreter runs everything */
    uint64_t jit_room; /* bytes behind this structure that it has not taken */
    struct vector_engine *vectors;
    struct guard *guard;
    struct cpu_resume *resume; /* what a RESUME asked for, on its way to the run loop */
    /* FERR# to IRQ 13 when CR0.NE = 0; the machine connects it */
    struct irq_line ferr;
    void *machine;
    void (*on_shutdown)(void *machine, struct cpu *cpu); /* triple fault */
    pthread_mutex_t wake_lock;
    pthread_cond_t wake;
    _Atomic bool
        a20_masked; /* what cpu_set_a20() was told last; mmu.paging follows at a safepoint */
};
_Static_assert(REG_NONE == 16, "gpr_zero must follow gpr[15]");
_Static_assert(offsetof(struct cpu, gpr_zero) == offsetof(struct cpu, gpr) + 16 * 8,
               "gpr[REG_NONE]");

enum { SHADOW_STI = 1, SHADOW_MOVSS = 2 };

/* Of 48 bits: bits 63:47 are the same (SDM volume 1, section 3.3.7.1). */
static inline bool is_canonical(uint64_t address)
{
    return (uint64_t)((int64_t)(address << 16) >> 16) == address;
}

/* The vendor that CPUID names, for what AMD's processors do differently; else they are Intel's. */
static inline bool cpu_is_amd(const struct cpu *cpu)
{
    return insn_has_feature(&cpu->features, FEAT_AMD);
}

/* ---- Life (cpu/sys/cpu.c) ---------------------------------------------------------------------
 */

struct cpu_config {
    unsigned index;
    const char *model; /* "max", "qemu64", "x86-64-v2", "x86-64-v3", with ",+feature,-feature" */
    unsigned vcpus;
    struct phys_map *map;
    struct io_space *io;
    struct clock *clock;
    struct exclusive *exclusive;
    struct log *log;
    uint64_t jit_cache; /* bytes for translated code; 0: the interpreter runs everything */
    bool lockstep;      /* with jit_cache: both engines, compared */
    uint8_t jit_hot;    /* times that code is interpreted before it is translated */
    void *machine;
    void (*on_shutdown)(void *machine, struct cpu *cpu);
};
/* For the command line: is `spec` a known model with known flags (NULL: no, *err says what); a list
 * of them. */
const struct cpu_model *cpu_model_parse(const char *spec, struct error *err);
void cpu_model_free(const struct cpu_model *model);
void cpu_model_help(FILE *out);
/* What CPUID answers: the machine tells the local APIC of x2APIC and the like. */
void cpu_cpuid(const struct cpu *cpu, uint32_t leaf, uint32_t subleaf, uint32_t regs[4]);

struct cpu *cpu_new(const struct cpu_config *config, struct error *err);
void cpu_free(struct cpu *cpu);
/* Power-on reset (or INIT, which keeps caches, MTRRs, x87/SSE and so on: SDM vol. 3, table 9-1). */
void cpu_reset(struct cpu *cpu, bool init);
/* The seam to the local APIC and to the machine: request bits from any thread. */
struct cpu_port cpu_port(struct cpu *cpu);
void cpu_request(struct cpu *cpu, uint32_t requests);
void cpu_withdraw(struct cpu *cpu, uint32_t requests);
/* The A20 gate (port 92h, keyboard controller). Any thread; holds before the CPU's next block. */
void cpu_set_a20(struct cpu *cpu, bool enabled);

/* Runs guest code in the calling thread until CPU_REQ_STOP is set (and clears it). Handles halts,
 * interrupts, INIT/SIPI, exclusive sections. */
void cpu_run(struct cpu *cpu);

/* ---- Protection (cpu/upcall.c) -----------------------------------------------------------------
 */

/* Who the instruction is that this vCPU executes now, as the protection device sees it; its thread
 * only. */
void cpu_rules_caller(struct cpu *cpu, struct rules_caller *caller);
/* RESUME of an upcall: abandons the present instruction. Returns only when refused, with the
 * reason. The vCPU's thread, no lock held. */
enum protect_status cpu_upcall_resume(struct cpu *cpu, unsigned context, uint64_t value);
/* The hooks of the rules for saving live upcalls (rules.h; cpu/upcall_state.c). */
bool cpu_upcall_save(const void *state,
                     bool (*put)(void *opaque, const struct state_desc *desc, void *record),
                     void *opaque);
void *cpu_upcall_restore(bool (*get)(void *opaque, const struct state_desc *desc, void *record),
                         void *opaque);
/* In a store of this vCPU, its thread: a deferred upcall that is due now comes before the next
 * instruction. */
void cpu_upcall_look(struct cpu *cpu);

/* ---- Flags and modes ----------------------------------------------------------------------------
 */

/* All of RFLAGS, lazily computed flags materialised. */
uint64_t cpu_rflags(struct cpu *cpu);
/* Replaces all of RFLAGS (no privilege checks); updates mode, priv and attention. */
void cpu_set_rflags(struct cpu *cpu, uint64_t rflags);
/* Recomputes mode, priv, seg_base, attention from CR0, CR4, EFER, XCR0, CPL, segments, RFLAGS. */
void cpu_mode_update(struct cpu *cpu);

/* ---- Exceptions (cpu/sys/exception.c) -------------------------------------------------------- */

/* Abandons the current instruction: nothing of it may have been committed. cpu->rip must be its
 * start. Never returns: unwinds to cpu->unwind. Never call it with a lock held. */
_Noreturn void cpu_raise(struct cpu *cpu, enum vector vector);
_Noreturn void cpu_raise_error(struct cpu *cpu, enum vector vector, uint32_t error_code);
_Noreturn void cpu_raise_page_fault(struct cpu *cpu, uint64_t cr2, uint32_t error_code);
_Noreturn void cpu_raise_debug(struct cpu *cpu, uint64_t dr6_bits); /* fault-class #DB */

/* ---- Engines --------------------------------------------------------------------------------- */

/* The interpreter: runs whole blocks until (request & attention) or a block end that needs the
 * careful loop. With `single` exactly one instruction (or one REP iteration). Called with
 * cpu->unwind set. */
void interp_run(struct cpu *cpu, bool single);
bool interp_init(struct cpu *cpu, struct error *err); /* block cache, vector engine */
void interp_fini(struct cpu *cpu);
void interp_code_stale(struct cpu *cpu, uint64_t gpa, uint64_t len); /* mmu hook */

/* Zeroed, in front of room for the translator's cache: code reaches both by RIP. NULL: no memory.
 */
struct cpu *jit_cpu_new(uint64_t cache_size);
void jit_cpu_free(struct cpu *cpu);
/* The translator (cpu/jit): as interp_run(cpu, false), for a CPU that has one. */
void jit_run(struct cpu *cpu);
/* `cache_size` bytes for its code and data; `hot` as in struct cpu_config. False: there is none on
 * this host, *err says why. */
bool jit_init(struct cpu *cpu, uint64_t cache_size, uint8_t hot, bool lockstep, struct error *err);
void jit_fini(struct cpu *cpu);
void jit_code_stale(struct cpu *cpu, uint64_t gpa, uint64_t len); /* mmu hook */
/* Is there translated code of this page? */
bool jit_has_frame(const struct cpu *cpu, uint64_t gpa);

/* Text dump for -d cpu, the monitor and reports. */
void cpu_dump(struct cpu *cpu, FILE *out);

#endif
