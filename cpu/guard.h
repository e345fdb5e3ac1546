/*
 * guard.h - instructions that touch protected memory, executed as a whole or not at all.
 *
 * The protection rules judge an *access*, with all its bytes, before anything of its instruction is
 * committed (PROTECTION section 1). An engine finds out that rules have a say in the middle of an
 * instruction. It then abandons the instruction (guard_trap), and the run loop executes it again
 * here:
 *
 *     collect   the instruction runs on a copy of the registers; every access takes the slow path
 * and is noted; stores go into a list, later loads of the same instruction see them judge access by
 * access, in order (rules.h). A fault that the guest's own tables cause has ended the run before
 * this commit    the stores are made, in order; or the registers are put back, and the verdict
 * happens: a fault, an upcall, another run with bytes replaced
 *
 * Event delivery is done the same way. An engine needs to know nothing but guard_trap().
 */
#ifndef CPU_GUARD_H
#define CPU_GUARD_H

#include "internal/cpu.h"
#include "internal/rules.h"

/* What cpu->exception.vector says when an instruction was abandoned for reasons of ours. */
enum {
    VECTOR_OURS = 0x80,
    VECTOR_GUARD = 0x80,  /* run it again under guard */
    VECTOR_RESUME = 0x81, /* an upcall has been resumed: cpu->resume */
    VECTOR_ALONE = 0x82,  /* the same, with all other vCPUs parked */
    VECTOR_EFFECT = 0x83, /* the same, judged before it goes on (guard_effect) */
    VECTOR_DRY = 0x84,    /* it would have an effect, and is to have none */
};

bool guard_init(struct cpu *cpu); /* false: no host memory */
void guard_fini(struct cpu *cpu);

/* Abandons the instruction, to be run under guard. */
_Noreturn void guard_trap(struct cpu *cpu);
static inline bool guard_active(const struct cpu *cpu)
{
    return cpu->guarded;
}

/* Whether rules, or the tables they follow, make this translated access one for the guard. */
bool guard_wanted(struct cpu *cpu, const struct access *access, uint64_t gpa, unsigned size,
                  unsigned kind);

/* ---- While active: mem.c comes here instead -------------------------------------------------- */

struct guard_piece {
    uint64_t gpa;
    unsigned size;
};
/* `access->gva` is the linear address. */
void guard_read(struct cpu *cpu, const struct access *access, const struct guard_piece *piece,
                unsigned pieces, enum mmu_priv priv, void *buf);
void guard_write(struct cpu *cpu, const struct access *access, const struct guard_piece *piece,
                 unsigned pieces, enum mmu_priv priv, const void *buf);
/* A store that is proved now and made later, or never. */
void guard_probe(struct cpu *cpu, const struct access *access, const struct guard_piece *piece,
                 unsigned pieces, enum mmu_priv priv);
/* The instruction is locked: it goes on only when no other vCPU runs. */
void guard_locked(struct cpu *cpu);

/* The instruction is about to do what cannot be undone, a port access: all that it has touched so
 * far is judged first. */
void guard_effect(struct cpu *cpu);

/* A task switch, which changes registers before it has made all its accesses, begins under guard
 * wherever there are rules. */
void guard_whole(struct cpu *cpu);
/* Behind this point a fault is the new task's: registers and stores stay. */
void guard_past(struct cpu *cpu);

/* ---- Fetches --------------------------------------------------------------------------------- */

/* The `len` bytes at cpu->rip are about to be executed: notes it while active, traps when a rule
 * forbids it. */
void guard_exec(struct cpu *cpu, unsigned len);

/* ---- The run loop's side --------------------------------------------------------------------- */

/* Executes the instruction at cpu->rip. Raises what it or its verdict raises. */
void guard_step(struct cpu *cpu);
/* An instruction that makes this one access, inside one page, and changes nothing before it
 * (move.h). */
struct guard_move {
    const struct insn *insn;
    struct access access;
    struct mmu_xlat x;
    struct guard_piece piece;
    enum access_kind kind; /* ACCESS_READ or ACCESS_WRITE */
    uint64_t value;        /* to be stored; or what was loaded */
};
/* Judges it, and makes the access as the verdict says. False: there is nothing more to do,
 * cpu->next_rip is a handler's. Raises what the verdict raises. */
bool guard_move(struct cpu *cpu, struct guard_move *move);
/* Runs fn(cpu, opaque), which delivers an event. Nobody can be asked meanwhile. */
void guard_deliver(struct cpu *cpu, void (*fn)(struct cpu *cpu, const void *opaque),
                   const void *opaque);

/* How an access that somebody was asked about goes on, when it is met again. */
struct guard_pass {
    uint64_t lin;
    uint32_t size;
    uint16_t context;
    uint8_t kind;
    uint8_t mode; /* enum guard_mode */
    bool asked;   /* somebody has answered for it: it holds whatever becomes of the rules */
    uint64_t value;
};
/* A decision binds the context that made it; all others still judge the access. */
enum guard_mode {
    GUARD_LET,     /* the context has let it happen */
    GUARD_REPLACE, /* the same, but for its bytes: reads give `value`, writes are dropped */
    GUARD_TOLD,    /* the context has been told, and has not decided */
    GUARD_DONE,    /* all contexts have let it happen */
};
enum { GUARD_PASSES = 64 };
struct guard_passes {
    uint64_t generation; /* of the rules */
    unsigned count;
    struct guard_pass pass[GUARD_PASSES];
};
/* Those that count. */
void guard_copy_passes(struct guard_passes *to, const struct guard_passes *from);
/* For the next guard_step(). */
void guard_set_passes(struct cpu *cpu, const struct guard_passes *passes);

#endif
