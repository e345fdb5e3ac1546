/*
 * pool.c - arrays that grow by doubling and keep their free items on a list (table.h).
 *
 * Indices stay valid while items move, so lists use indices. A command reserves all that it needs
 * before it changes anything, and so cannot run out of memory half way.
 */
#include "table.h"
#include <stdlib.h>
#include <string.h>

static uint32_t *link_of(struct pool *pool, uint32_t index, size_t size)
{
    return (uint32_t *)((char *)pool->items + (size_t)index * size);
}

bool pool_reserve(struct pool *pool, uint32_t more, size_t size)
{
    uint64_t need = (uint64_t)pool->count + more, room = pool->room ? pool->room : 64;
    if (need <= pool->room) /* the free list comes on top */
        return true;
    while (room < need)
        room *= 2;
    if (room >= NONE)
        return false;
    void *items = realloc(pool->items, room * size);
    if (!items)
        return false;
    if (!pool->room)
        pool->free = NONE;
    pool->items = items;
    pool->room = (uint32_t)room;
    return true;
}

uint32_t pool_take(struct pool *pool, size_t size)
{
    uint32_t index = pool->free;
    if (pool->room && index != NONE)
        pool->free = *link_of(pool, index, size);
    else
        index = pool->count++;
    memset(link_of(pool, index, size), 0, size);
    return index;
}

void pool_give(struct pool *pool, uint32_t index, size_t size)
{
    *link_of(pool, index, size) = pool->free;
    pool->free = index;
}
