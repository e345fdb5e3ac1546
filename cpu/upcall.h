/*
 * upcall.h - calling a program's own fault handler, and coming back from it (protect.h, "Upcalls").
 */
#ifndef CPU_UPCALL_H
#define CPU_UPCALL_H

#include "cpu/guard_internal.h"

/* How a refused access faults. */
struct guard_refusal {
    uint64_t gva;
    uint8_t fault, marker, kind;
    bool user;
};
_Noreturn void guard_refuse(struct cpu *cpu, const struct guard_refusal *how);

/* What an upcall interrupts: the state of its token (rules_token_issue). */
struct interrupted {
    uint64_t gpr[16], rip, rflags;
    struct segment seg[6]; /* hidden parts and all: FS and GS bases are the thread's, too */
    union vreg ymm[16];
    struct x87 x87;
    uint32_t mxcsr, pkru;
    uint64_t address; /* of the frame */
    bool deferred;
    struct guard_pass asked; /* the access that the verdict is about */
    struct guard_refusal refusal;
    struct guard_passes passes; /* of the instruction so far. Last: only those that count have
                                   memory */
};

/* A call that has been prepared: its frame's place is mapped and its token is taken. */
struct upcall {
    struct protect_frame frame;
    uint64_t address, rip;       /* of the frame, of the handler */
    struct guard_piece piece[2]; /* of the frame, in physical memory */
    unsigned pieces;
    void *host; /* of the frame, where it can be written so; NULL: by piece[] */
};

/* With the registers as the instruction has left them: those to save are the guard's. Raises #PF
 * when the stack is not mapped, before anything else has happened. False: refused, because no token
 * or stack is left, or the frame would lie in protected bytes. */
bool upcall_prepare(struct cpu *cpu, const struct noted *n, const struct rules_verdict *v,
                    const struct rules_check *check, struct upcall *upcall);
/* Instead of upcall_enter(): it is not to be after all. */
void upcall_forget(struct cpu *cpu, unsigned context, const struct upcall *upcall);
/* With the registers put back: writes the frame and goes to the handler. */
void upcall_enter(struct cpu *cpu, const struct upcall *upcall);

/* VECTOR_RESUME: what cpu->resume says. True: the instruction at rip is to run under guard. */
bool upcall_finish(struct cpu *cpu);
/* At CPL 3, between instructions: a deferred upcall, if one is due. */
void upcall_deferred(struct cpu *cpu);

#endif
