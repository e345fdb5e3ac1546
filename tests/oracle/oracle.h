/*
 * oracle.h - one instruction on the host's own CPU and in Bailey, and what is compared.
 *
 * A case is a few instruction bytes, a register state and the contents of an arena. Both sides see
 * the arena at the same linear addresses, so that addresses, RIP and #PF addresses compare without
 * translation. 16-bit code runs in segments whose base is the arena.
 */
#ifndef ORACLE_H
#define ORACLE_H

#include "encode.h"
#include "internal/insn.h"
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define ARENA      0x10000000ull
#define ARENA_SIZE 0x10000ull
#define CODE_PAGE  (ARENA + 0x1000) /* filled with INT3; the instruction somewhere in it */
#define DATA_START (ARENA + 0x4000) /* readable and writable ... */
#define DATA_END   (ARENA + 0xc000) /* ... up to here; the rest of the arena is not mapped */
#define DATA_SIZE  (DATA_END - DATA_START)

struct oracle_state {
    uint64_t gpr[16];
    uint64_t rip; /* offset in CS: in 16-bit code relative to the arena */
    uint64_t rflags;
    union {
        uint8_t b[32];
        uint64_t q[4];
    } ymm[16];
    uint32_t mxcsr;
    uint16_t fcw, fsw, fop;
    uint8_t ftw; /* abridged, as FXSAVE has it */
    uint64_t fip, fdp;
    uint8_t st[8][10]; /* relative to TOP */
};

/* How the instruction ended. vector -1: completed. */
struct oracle_outcome {
    int vector;
    uint32_t error_code;
    uint64_t cr2;
    struct oracle_state state;
    uint8_t data[DATA_SIZE];
};

struct oracle_case {
    const struct insn_row *row;
    unsigned code; /* 16, 32 or 64 */
    uint8_t bytes[15];
    unsigned len;
    struct insn insn; /* as decoded */
    struct oracle_state state;
    uint8_t data[DATA_SIZE];
};

/* ---- native.c -------------------------------------------------------------------------------- */
bool native_init(void); /* false: the host refuses what is needed; the reason is on stderr */
bool native_has_code(unsigned code);
void native_run(const struct oracle_case *c, struct oracle_outcome *outcome);

/* ---- emulated.c ------------------------------------------------------------------------------ */
bool emulated_init(void);
/* What the guest's CPU has: what the host and the instruction table have in common, and the host's
 * vendor. */
const struct insn_features *emulated_features(void);
/* By the careful loop, one instruction or iteration at a time, or as a block of the fast one. */
enum run_way { RUN_STEP, RUN_BLOCK, RUN_JIT, RUN_WAYS };
void emulated_run(const struct oracle_case *c, struct oracle_outcome *outcome, enum run_way way);

/* ---- cases.c --------------------------------------------------------------------------------- */
/* NULL: the row can be compared; else why not (printed as a skip). */
const char *case_excluded(const struct insn_row *row);
/* Makes a random case for the row; false when the row has no encoding in code of that size. */
bool case_make(struct oracle_case *c, const struct insn_row *row, unsigned code, struct rng *rng);

#endif
