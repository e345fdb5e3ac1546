/*
 * block.h - the cache of decoded blocks of one vCPU.
 *
 * A block is a run of instructions inside one guest-physical page, decoded for one cpu->mode. It is
 * found by guest-physical address and mode; in front of that lies a cache by virtual address,
 * tagged with the MMU's exec_generation. Blocks live in one arena that is emptied as a whole when
 * it is full. Stores into a page with blocks reach interp_code_stale(), which takes out those that
 * overlap.
 *
 * A block that is taken out stays in the arena, with every uop turned into one that leaves it: so a
 * block may be running when a store of its own takes it out.
 */
#ifndef CPU_INTERP_BLOCK_H
#define CPU_INTERP_BLOCK_H

#include "cpu/interp/interp.h"

enum {
    BLOCK_MAX_INSNS = 64,
    BLOCK_MAX_BYTES = 64 * 1024, /* upper bound of one block in the arena */
    HASH_BUCKETS = 1 << 17,
    FRAME_BUCKETS = 1 << 14,
    STEP_ENTRIES = 1024,
};
#define ARENA_SIZE (64ull << 20)

struct block_frame;

struct block {
    uint64_t gpa;
    uint32_t mode;
    uint16_t len;        /* bytes of code */
    uint16_t uops_count; /* slots */
    struct block *hash_next;
    struct block *frame_next;
    struct block_frame *frame;
    struct uop_link *link; /* NULL: ends in a way that is not linked */
    bool stale;
    _Alignas(32) struct uop uops[];
};

/* The blocks of one guest page. */
struct block_frame {
    uint64_t gpa;
    struct block_frame *next; /* in its hash chain */
    struct block *blocks;
    struct block_frame *next_empty; /* see block_sweep() */
    bool queued;
};

/* An instruction that was decoded outside a block, recognised by its bytes. */
struct step_entry {
    uint32_t mode;
    bool valid;
    struct insn insn;
    const void *prepared;
};

struct block_cache {
    struct pc_cache pcs; /* first: handlers reach it by cpu->blocks */
    struct block *hash[HASH_BUCKETS];
    struct block_frame *frames[FRAME_BUCKETS];
    struct step_entry step[STEP_ENTRIES];
    struct block_frame *empty; /* frames that have lost all their blocks */
    char *arena;
    size_t used;
    uint32_t log_mask;                /* of the log, when blocks were last linked */
    bool single;                      /* interp_run() was asked for one instruction or iteration */
    uint64_t decoded, stale, flushes; /* counters */
};

/* The block at cpu->rip, decoded now if need be. NULL: there is none to be had (the instruction
 * crosses a page, or is not in memory): execute it by interp_step(). Raises what fetching its first
 * byte raises. */
struct block *block_find(struct cpu *cpu);
/* Tells the MMU of frames that have no blocks any more, so that stores there are fast again. Not
 * from inside its callbacks. */
void block_sweep(struct cpu *cpu);
bool block_has_frame(const struct cpu *cpu, uint64_t gpa);
/* Empties the cache. No block may be running. */
void block_flush(struct cpu *cpu);
/* Space in the arena for the block that is being built. */
void *block_alloc(struct block_cache *cache, size_t size);

/* lower.c: makes the uops of a decoded run of instructions. */
struct block *block_lower(struct cpu *cpu, const struct insn *insns, unsigned count);

uop_fn uop_stale;
/* True when a store of the running instruction has taken out its own block. */
static inline bool uop_is_stale(const struct uop *u)
{
    return *(uop_fn *const volatile *)&u->fn == uop_stale;
}

#endif
