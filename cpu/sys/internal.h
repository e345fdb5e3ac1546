/*
 * internal.h - what the files of cpu/sys share among themselves.
 */
#ifndef CPU_SYS_INTERNAL_H
#define CPU_SYS_INTERNAL_H

#include "cpu/opnd.h"
#include "cpu/sys/descriptor.h"
#include "cpu/sys/sys.h"
#include "internal/access.h"
#include "internal/log.h"

/* DR6 and DR7 (SDM vol. 3, 17.2). */
#define DR6_BD   (1u << 13)
#define DR6_BS   (1u << 14)
#define DR6_BT   (1u << 15)
#define DR6_ONES 0xffff0ff0u
#define DR7_GD   (1u << 13)
#define DR7_ONES 0x400u

/* Every RFLAGS bit that exists. */
#define RFLAGS_ALL 0x003f7fd5ull

/* An interrupt shadow that the instruction being run has just made: the run loop takes the mark
 * away behind that instruction, and the shadow itself behind the next one. */
enum { SHADOW_FRESH = 0x80 };

/* ---- Small checks -------------------------------------------------------------------------------
 */

static inline bool in_prot(const struct cpu *cpu)
{
    return cpu->mode & MODE_PROT;
}
static inline bool in_v86(const struct cpu *cpu)
{
    return cpu->mode & MODE_V86;
}
static inline bool in_long(const struct cpu *cpu)
{
    return cpu->mode & MODE_LONG;
}
static inline bool in_code64(const struct cpu *cpu)
{
    return cpu->mode & MODE_CODE64;
}
static inline unsigned iopl(const struct cpu *cpu)
{
    return cpu->rflags >> 12 & 3;
}
static inline void require_cpl0(struct cpu *cpu)
{
    if (cpu->cpl != 0)
        cpu_raise_error(cpu, VECTOR_GP, 0);
}
/* CR4.UMIP: SGDT, SIDT, SLDT, STR and SMSW are privileged (SDM vol. 3, 2.5). */
static inline void require_umip(struct cpu *cpu)
{
    if (cpu->cr4 & CR4_UMIP && cpu->cpl != 0)
        cpu_raise_error(cpu, VECTOR_GP, 0);
}

static inline struct access cpu_access(const struct cpu *cpu)
{
    return (struct access){
        .initiator = cpu->cpl == 3 ? INITIATOR_VCPU_USER : INITIATOR_VCPU_KERNEL,
        .vcpu = (uint16_t)cpu->index,
        .cpl = cpu->cpl,
        .cr3 = cpu->cr3,
        .rip = cpu->rip,
    };
}

/* ---- Flags and attention (mode.c) ------------------------------------------------------------ */

/* After a change of shadow, nmi_blocked, activity, debug_pending or breakpoints. */
void sys_attention_update(struct cpu *cpu);
/* cpu_mode_update() after a change of CPL, CS, SS or RFLAGS only: cheap from 64-bit code to 64-bit
 * code, where a kernel's entries and exits go. */
void sys_cpl_update(struct cpu *cpu);
/* Tells the MMU what CR0, CR4, EFER and PKRU are now, and recomputes the mode. */
void sys_paging_update(struct cpu *cpu);

/* ---- Descriptors (segment.c) ----------------------------------------------------------------- */

/* Where a descriptor was found. */
struct desc_ref {
    uint64_t low, high; /* high: only by desc_read16() */
    uint64_t lin;       /* its linear address */
};
/* False when the selector lies beyond its table or the LDT is unusable; the null selector is the
 * caller's to check. `event`: on behalf of exception or interrupt delivery. */
bool desc_read(struct cpu *cpu, uint16_t selector, bool event, struct desc_ref *ref);
bool desc_read16(struct cpu *cpu, uint16_t selector, bool event, struct desc_ref *ref);
/* Sets the accessed bit in memory when it is not, and in ref->low. */
void desc_set_accessed(struct cpu *cpu, struct desc_ref *ref, bool event);
/* Sets or clears the busy bit of a TSS descriptor in memory. */
void desc_set_busy(struct cpu *cpu, struct desc_ref *ref, bool busy, bool event);

/* Checks a stack segment for privilege `cpl`, as far transfers and deliveries to an inner level and
 * task switches do: raises `vector` (#TS or #GP) with the selector, or #SS when it is not present.
 */
void segment_check_stack(struct cpu *cpu, uint16_t selector, unsigned cpl, enum vector vector,
                         bool event, struct desc_ref *ref);
/* A null segment register. */
struct segment segment_null(uint16_t selector);
/* ES, DS, FS, GS that an outer level may not keep become null (SDM vol. 2, RET). */
void segments_drop_inner(struct cpu *cpu, unsigned cpl);
/* True when [offset, offset + size) lies inside the segment; expand-down understood. */
bool segment_contains(const struct segment *seg, uint32_t offset, uint32_t size);

/* ---- Stacks (stack.c) ------------------------------------------------------------------------ */

/* A stack that is not (yet) SS:RSP: the new one of an inner or outer level. */
struct stack {
    struct segment ss;
    uint64_t sp;   /* moves as one pushes */
    uint64_t mask; /* 64 bits, 32 or 16 */
    bool flat64;   /* base and limit do not count */
    bool event;
    unsigned cpl;   /* whose accesses these are */
    uint32_t error; /* error code for #SS when there is no room */
};
/* The present stack, for the present CPL. */
struct stack stack_current(struct cpu *cpu);
/* RSP as it is when SP has become `sp`: a 16-bit stack leaves the upper bits alone. */
uint64_t stack_merge(uint64_t rsp, uint64_t sp, uint64_t mask);
/* Pushes count items of `size` bytes, item[0] first. Either all are stored or it has raised. */
void stack_push(struct cpu *cpu, struct stack *stack, const uint64_t *items, unsigned count,
                unsigned size);
/* Pops one item from the current stack at *sp, which moves. */
uint64_t stack_pop(struct cpu *cpu, uint64_t *sp, unsigned size);

/* ---- TSS (task.c) ---------------------------------------------------------------------------- */

/* SS:ESP for privilege level 0-2 out of the 16- or 32-bit TSS: raises #TS. */
void tss_inner_stack(struct cpu *cpu, unsigned cpl, bool event, uint16_t *ss, uint64_t *sp);
/* RSPn (n = 0-2) or IST1-7 (ist != 0) out of the 64-bit TSS: raises #TS or #SS for non-canonical.
 */
uint64_t tss_stack64(struct cpu *cpu, unsigned cpl, unsigned ist, bool event);
/* True when the I/O permission bitmap lets the access through. */
bool tss_io_allowed(struct cpu *cpu, uint16_t port, unsigned size);
/* VME: bit `vector` of the software interrupt redirection bitmap. */
bool tss_int_redirected(struct cpu *cpu, uint8_t vector);

enum task_reason { TASK_JMP, TASK_CALL, TASK_IRET, TASK_GATE_EVENT };
/* Switches to the task whose TSS `selector` names. Leaves cpu->next_rip (and rip, once the new
 * task's context counts) at its EIP. `return_rip` is saved in the old TSS; `ref` is the checked
 * descriptor. */
void task_switch(struct cpu *cpu, uint16_t selector, struct desc_ref *ref, enum task_reason reason,
                 uint64_t return_rip, bool has_error, uint32_t error);

/* ---- Delivery -------------------------------------------------------------------------------- */

struct event {
    enum event_kind kind;
    uint8_t vector;
    bool has_error;
    uint32_t error;
    uint64_t rip;    /* to be saved */
    uint64_t rflags; /* to be saved */
};
/* Each raises what goes wrong, with nothing committed; else sets cpu->next_rip. */
void deliver_long(struct cpu *cpu, const struct event *event);
void deliver_prot(struct cpu *cpu, const struct event *event);
void deliver_real(struct cpu *cpu, const struct event *event);
/* INT n in virtual-8086 mode that VME redirects to the 8086 program's own handler. */
void deliver_v86_redirected(struct cpu *cpu, const struct event *event);
void deliver_event(struct cpu *cpu, const struct event *event);
/* For the statistics and the log; once for each event. */
void note_event(struct cpu *cpu, const struct event *event);
/* #DB as a trap: DR6 gets `bits`. */
void deliver_debug_trap(struct cpu *cpu, uint32_t bits);
/* True when the instruction at cpu->rip is a REP string instruction with iterations left. */
bool sys_inside_rep(struct cpu *cpu);
/* The instruction at cpu->rip as memory holds it; false when it cannot be read or decoded. */
bool sys_peek_insn(struct cpu *cpu, struct insn *insn);

/* ---- Far transfers (far.c) ------------------------------------------------------------------- */

/* CS:RIP as checked, ready to be committed. */
struct far_target {
    struct segment cs;
    uint64_t rip;
};
void far_commit(struct cpu *cpu, const struct far_target *target, unsigned cpl);
/* RET and IRET: the code segment and RIP to return to, and the stack that belongs to it; raise. */
struct far_target far_check_return(struct cpu *cpu, uint16_t selector, uint64_t rip);
struct segment far_check_return_stack(struct cpu *cpu, uint16_t selector,
                                      const struct far_target *target);
/* How much of RSP the target can have loaded: a 16-bit stack leaves the upper part alone. */
uint64_t far_return_mask(struct cpu *cpu, const struct far_target *target,
                         const struct segment *ss);

/* ---- Breakpoints (debug.c) ------------------------------------------------------------------- */

void debug_registers_changed(struct cpu *cpu);
/* DR6 bits of enabled instruction breakpoints at the linear address. */
uint32_t debug_match_code(const struct cpu *cpu, uint64_t lin);
uint32_t debug_match_io(const struct cpu *cpu, uint16_t port, unsigned size);

/* ---- Time, MSRs ------------------------------------------------------------------------------ */

uint64_t sys_tsc(struct cpu *cpu);
void sys_set_tsc_offset(struct cpu *cpu, uint64_t offset);
/* False: #GP(0). */
bool msr_read(struct cpu *cpu, uint32_t msr, uint64_t *value);
bool msr_write(struct cpu *cpu, uint32_t msr, uint64_t value);
void msr_reset(struct cpu *cpu, bool init);

/* ---- CPU model (cpuid.c) --------------------------------------------------------------------- */

/* CPUID bits that cpu/sys itself asks about. Whole words as the model has them. */
enum model_word {
    MODEL_1_ECX,
    MODEL_1_EDX,
    MODEL_7_EBX,
    MODEL_7_ECX,
    MODEL_7_EDX,
    MODEL_72_EDX,
    MODEL_D1_EAX,
    MODEL_6_EAX,
    MODEL_X1_ECX,
    MODEL_X1_EDX,
    MODEL_X7_EDX,
    MODEL_X8_EBX,
    MODEL_X21_EAX,
    MODEL_X21_ECX,
    MODEL_WORDS
};
enum cpu_vendor { VENDOR_INTEL, VENDOR_AMD };
struct cpu_model {
    char name[48]; /* brand string, CPUID 80000002h-80000004h */
    enum cpu_vendor vendor;
    uint8_t maxphyaddr;
    unsigned vcpus;     /* topology; set by cpu_new() */
    uint32_t signature; /* CPUID 1 EAX */
    uint32_t word[MODEL_WORDS];
};
static inline bool model_has(const struct cpu *cpu, enum model_word word, unsigned bit)
{
    return cpu->model->word[word] >> bit & 1;
}
/* XCR0 bits that XSETBV may set. */
uint64_t cpu_xcr0_supported(const struct cpu *cpu);
/* IA32_ARCH_CAPABILITIES. */
uint64_t cpu_arch_capabilities(const struct cpu *cpu);

#endif
