/*
 * touch.c - where the guest is working its way through memory that it has not written yet.
 *
 * Kernels hand out memory in runs, upwards or downwards. When a chunk is written for the first time
 * and those beside it have been already, the chunks on the other side are asked for (ahead.h), so
 * that the host has cleared them before the guest comes there: as many as lie behind in the run,
 * twice as far each time. What is asked for and not used costs the host memory, so that is a small
 * part of the block at most.
 */
#include "internal/ahead.h"
#include "map.h"
#include <stdlib.h>

enum { AHEAD_MAX = 16, UNUSED_SHARE = 16 };

bool touch_init(struct ram_block *block)
{
    block->chunks = touch_chunk(block, block->base + block->size - 1) + 1;
    block->chunk = calloc(block->chunks, sizeof *block->chunk);
    return block->chunk;
}

void touch_fini(struct phys_map *map, struct ram_block *block)
{
    if (block->chunk)
        ahead_forget(map->ahead, block->base, block->size);
    free(block->chunk);
}

/* How many chunks next to c, in this direction, have been written, up to the most that matter. */
static unsigned run_length(struct ram_block *block, unsigned c, int step)
{
    unsigned n = 0;
    for (; n < AHEAD_MAX / 2 && (c += (unsigned)step) < block->chunks; n++)
        if (atomic_load_explicit(&block->chunk[c], memory_order_relaxed) != TOUCH_WRITTEN)
            break;
    return n;
}

static void ask(struct phys_map *map, struct ram_block *block, unsigned c)
{
    uint8_t is_new = TOUCH_NEW;
    if (atomic_load(&block->unused) >= block->chunks / UNUSED_SHARE ||
        !atomic_compare_exchange_strong(&block->chunk[c], &is_new, TOUCH_ASKED))
        return;
    atomic_fetch_add(&block->unused, 1);
    uintptr_t first = (uintptr_t)block->base, last = first + block->size;
    uintptr_t begin = ((first >> TOUCH_CHUNK_SHIFT) + c) << TOUCH_CHUNK_SHIFT,
              end = begin + (1ul << TOUCH_CHUNK_SHIFT);
    begin = begin < first ? first : begin;
    end = end > last ? last : end;
    ahead_ask(map->ahead, block->base + (begin - first), end - begin, AHEAD_WRITE);
}

static void ask_beyond(struct phys_map *map, struct ram_block *block, unsigned c, int step)
{
    for (unsigned n = 2 * run_length(block, c, -step);
         n-- > 0 && (c += (unsigned)step) < block->chunks;)
        ask(map, block, c);
}

void touch_first_write(struct phys_map *map, struct ram_block *block, unsigned c)
{
    switch (atomic_exchange(&block->chunk[c], TOUCH_WRITTEN)) {
    case TOUCH_WRITTEN:
        return;
    case TOUCH_ASKED:
        atomic_fetch_sub(&block->unused, 1);
    }
    ask_beyond(map, block, c, 1);
    ask_beyond(map, block, c, -1);
}
