/*
 * guard_internal.h - what guard.c notes of an instruction, for verdict.c to judge.
 */
#ifndef CPU_GUARD_INTERNAL_H
#define CPU_GUARD_INTERNAL_H

#include "cpu/guard.h"

/* A task switch or an XSAVE area come nearest to these. */
enum { GUARD_NOTED = 256, GUARD_STORES = 256, GUARD_BYTES = 16384 };

/* An access as the rules see it; access.gva is where it begins. */
struct noted {
    struct access access;
    uint8_t kind; /* ACCESS_* bits, which are PROTECT_*'s */
    uint8_t priv; /* enum mmu_priv */
    bool made;    /* not only a proof that a store would be possible */
    unsigned size, pieces;
    struct guard_piece piece[2];
};
_Static_assert(ACCESS_READ == (int)PROTECT_READ && ACCESS_WRITE == (int)PROTECT_WRITE &&
                   ACCESS_EXEC == (int)PROTECT_EXEC,
               "kinds are handed on as they are");

struct store {
    struct access access;
    struct guard_piece piece;
    unsigned at; /* of its bytes in guard.bytes */
};

struct guard {
    struct noted noted[GUARD_NOTED];
    unsigned noted_count;
    struct store store[GUARD_STORES];
    unsigned store_count;
    uint8_t bytes[GUARD_BYTES];
    unsigned used;
    struct guard_passes passes;
    bool alone; /* all other vCPUs are parked */
    bool delivering;
    bool dry;                /* nothing will be committed: no access to devices */
    bool past;               /* a fault does not take back what was done (guard_past) */
    bool effect;             /* what comes before a port access has been judged */
    struct guard_move *move; /* all that the instruction does; NULL: it has to be run to know */
    struct paging paging;    /* as it was before the instruction */
    uint8_t saved[sizeof(struct cpu)]; /* likewise, the parts that save() copies */
};

typedef void guard_fn(struct cpu *cpu, const void *opaque);
int guard_collect(struct cpu *cpu, guard_fn *fn, const void *opaque);
void guard_restore(struct cpu *cpu);
void guard_commit(struct cpu *cpu);
/* Whether a store reaches a page table that rules follow. */
bool guard_changes_tables(struct cpu *cpu);
/* Drops what was judged under rules that have changed since. */
void guard_refresh_passes(struct cpu *cpu);
struct rules_check guard_check(const struct noted *n);
/* What the stores so far have made of `size` bytes at gpa, read into buf before. */
void guard_overlay(const struct guard *g, uint64_t gpa, unsigned size, uint8_t *buf);

#endif
