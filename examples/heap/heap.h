/*
 * heap.h - what the parts of the guarded malloc() know of each other.
 *
 * Memory is cut into slots. A slot holds one block; what is left of the slot behind the block, at
 * least ZONE bytes, is a red zone, and so is what an alignment leaves before it. The red zone
 * behind one block is in front of the next. Nothing is kept in the slots themselves, since this
 * library may touch the zones no more than the program may.
 */
#ifndef HEAP_H
#define HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ZONE = 16, ALIGNMENT = 16, PAGE = 4096 };
enum block_state { BLOCK_UNUSED, BLOCK_LIVE, BLOCK_FREED };
enum zone_kind { ZONE_FRONT, ZONE_BEHIND, ZONE_FREED, ZONE_KINDS };
#define NO_REGION (~0u)

struct block {
    char *slot; /* start and size of the slot */
    size_t space;
    char *start; /* start and size of the block */
    size_t size;
    const void *allocated_by, *freed_by; /* return addresses */
    uint32_t next;                       /* in a list of blocks.c */
    uint32_t queue;                      /* next in quarantine */
    uint32_t region[ZONE_KINDS];         /* by enum zone_kind */
    uint8_t state;                       /* enum block_state */
};

/* blocks.c: slots and the table of blocks. Called with the lock of heap.c held, but for block_at().
 */
uint32_t block_new(size_t size, size_t alignment); /* 0: no memory */
uint32_t block_find(const void *start);            /* 0: no live or freed block starts there */
void block_release(uint32_t number);               /* the slot may be used again */
struct block *block_at(uint32_t number);
uint32_t block_count(void); /* numbers are below this */

/* zones.c: the door. */
void zones_open(void);
void zones_protect(uint32_t number); /* zones before and behind a new block */
void zones_free(uint32_t number);    /* the block itself becomes a zone */
void zones_drop(uint32_t number);    /* none of it is any more */
void zones_reopen(void);             /* in a child process: a door of its own, the same zones */

/* report.c */
void report_access(const struct block *block, enum zone_kind zone, const char *what,
                   uint64_t address, uint32_t length, uint64_t rip, bool kernel);
void report_free(const void *pointer, const struct block *block, const void *caller);
void report_text(const char *text);
/* Whether an instruction is part of the C library (or the loader). */
bool in_libc(uint64_t rip);

#endif
