/*
 * blocks.c - slots of memory, and the table that says what is in them.
 *
 * A slot comes from the end of the arena, or from a list of slots of the same size that are free
 * again; a large one is a mapping of its own.
 */
#include "heap.h"
#include <sys/mman.h>

enum { BLOCKS = 1 << 20, BUCKETS = 1 << 16, SIZES = 96, STEP = 32, STEPPED = 2048 };
#define LARGE ((size_t)64 << 10)
#define ARENA ((size_t)64 << 20)

static struct block *blocks;      /* number 0 is nobody */
static uint32_t used = 1;         /* records that have ever been used */
static uint32_t records;          /* list of records without a slot */
static uint32_t slots[SIZES];     /* lists of records whose slot is free, by size_index() */
static uint32_t buckets[BUCKETS]; /* lists of blocks, by their start */
static char *arena, *arena_end;

static void *map(size_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        return NULL;
    madvise(at, bytes, MADV_NOHUGEPAGE);
    return at;
}

/* Rounds the size of a slot up to one that has a list. */
static size_t round_space(size_t space)
{
    if (space <= STEPPED)
        return (space + STEP - 1) / STEP * STEP;
    if (space > LARGE)
        return (space + PAGE - 1) / PAGE * PAGE;
    size_t step = (size_t)1 << (61 - __builtin_clzl(space - 1)); /* a quarter of a power of two */
    return (space + step - 1) / step * step;
}

/* Of a rounded size that is not large: 1-64 in steps of STEP, then four for each doubling. */
static unsigned size_index(size_t space)
{
    if (space <= STEPPED)
        return (unsigned)(space / STEP);
    unsigned log = 63 - (unsigned)__builtin_clzl(space - 1);
    return STEPPED / STEP + 1 + (log - 11) * 4 + (unsigned)((space - 1) >> (log - 2) & 3);
}

static uint32_t *bucket_of(const void *start)
{
    return &buckets[((uintptr_t)start >> 4) * 0x9e3779b97f4a7c15ull >> 48];
}

/* A block of `size` bytes begins `offset` bytes into its slot. */
static void enter(uint32_t number, size_t offset, size_t size)
{
    struct block *block = &blocks[number];
    block->start = block->slot + offset;
    block->size = size;
    block->state = BLOCK_LIVE;
    block->freed_by = NULL;
    for (unsigned kind = 0; kind < ZONE_KINDS; kind++)
        block->region[kind] = NO_REGION;
    block->next = *bucket_of(block->start);
    *bucket_of(block->start) = number;
}

static uint32_t take_record(void)
{
    if (!blocks && !(blocks = map(BLOCKS * sizeof(*blocks))))
        return 0;
    uint32_t number = records;
    if (number)
        records = blocks[number].next;
    else if (used < BLOCKS)
        number = used++;
    return number;
}

/* Begins with an empty block, whose red zone is the one in front of the first real one. */
static bool new_arena(void)
{
    uint32_t number = take_record();
    arena = number ? map(ARENA) : NULL;
    arena_end = arena;
    if (!arena)
        return false;
    arena_end = arena + ARENA;
    blocks[number] = (struct block){.slot = arena, .space = STEP};
    arena += STEP;
    enter(number, 0, 0);
    zones_protect(number);
    return true;
}

static char *take_memory(size_t space)
{
    if (space > LARGE)
        return map(space);
    if ((size_t)(arena_end - arena) < space && !new_arena())
        return NULL;
    char *slot = arena;
    arena += space;
    return slot;
}

/* A record with a slot of that size. */
static uint32_t take_slot(size_t space)
{
    uint32_t *list = space <= LARGE ? &slots[size_index(space)] : NULL;
    uint32_t number = list ? *list : 0;
    if (number) {
        *list = blocks[number].next;
        return number;
    }
    number = take_record();
    if (!number)
        return 0;
    char *slot = take_memory(space);
    if (!slot) {
        blocks[number].next = records;
        records = number;
        return 0;
    }
    blocks[number].slot = slot;
    blocks[number].space = space;
    return number;
}

uint32_t block_new(size_t size, size_t alignment)
{
    size_t extra = ZONE + (alignment > ALIGNMENT ? alignment : 0);
    if (size > PTRDIFF_MAX - 2 * extra - PAGE)
        return 0;
    bool alone = size + extra > LARGE; /* no other block's red zone is in front */
    size_t lead = alone ? ZONE : 0;
    uint32_t number = take_slot(round_space(size + extra + lead));
    if (!number)
        return 0;
    uintptr_t mask = (alignment > ALIGNMENT ? alignment : ALIGNMENT) - 1;
    uintptr_t first = (uintptr_t)blocks[number].slot + lead;
    enter(number, ((first + mask) & ~mask) - (first - lead), size);
    return number;
}

uint32_t block_find(const void *start)
{
    uint32_t number = *bucket_of(start);
    while (number && blocks[number].start != start)
        number = blocks[number].next;
    return number;
}

void block_release(uint32_t number)
{
    struct block *block = &blocks[number];
    uint32_t *link = bucket_of(block->start);
    while (*link != number)
        link = &blocks[*link].next;
    *link = block->next;
    block->state = BLOCK_UNUSED;
    uint32_t *list = &records;
    if (block->space <= LARGE)
        list = &slots[size_index(block->space)];
    else
        munmap(block->slot, block->space);
    block->next = *list;
    *list = number;
}

struct block *block_at(uint32_t number)
{
    return &blocks[number];
}

uint32_t block_count(void)
{
    return used;
}
