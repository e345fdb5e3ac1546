/*
 * qcow2_table.c - metadata in memory: L2 tables and refcount blocks, as many as the cache holds,
 * and the two level-one tables.
 *
 * Tables that have been changed stay until qcow2_sync() has written them; the others go when room
 * is needed, by a clock: the hand takes the first that has not been used since it last came by.
 */
#include "qcow2.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SECTOR 512u

/* ---- The cache --------------------------------------------------------------------------------
 */

bool table_cache_init(struct table_cache *cache, const struct qcow2 *q, uint64_t keys,
                      uint64_t bytes)
{
    uint64_t room = bytes / q->cluster_size;
    cache->room = room < 8 ? 8 : (unsigned)room;
    cache->by_key = calloc(keys ? keys : 1, sizeof(struct table *));
    return cache->by_key != NULL;
}

void table_cache_free(struct table_cache *cache)
{
    for (unsigned i = 0; i < cache->count; i++)
        free(cache->loaded[i]);
    free(cache->loaded);
    free(cache->by_key);
    *cache = (struct table_cache){0};
}

/* Makes a clean table give way. NULL: there is none, or there is room. */
static struct table *evict(struct table_cache *cache)
{
    if (cache->count < cache->room)
        return NULL;
    for (unsigned turns = 2 * cache->count; turns; turns--) {
        unsigned at = cache->hand++ % cache->count;
        struct table *table = cache->loaded[at];
        if (table->dirty)
            continue;
        if (!table->used) {
            cache->by_key[table->key] = NULL;
            cache->loaded[at] = cache->loaded[--cache->count];
            return table;
        }
        table->used = false;
    }
    return NULL;
}

static struct table *make(struct qcow2 *q, struct table_cache *cache, uint32_t key, uint64_t offset)
{
    struct table *table = evict(cache);
    if (!table)
        table = malloc(sizeof(*table) + q->cluster_size);
    if (table && cache->count == cache->allocated) {
        unsigned more = cache->allocated ? 2 * cache->allocated : 16;
        struct table **loaded = realloc(cache->loaded, more * sizeof(struct table *));
        if (!loaded) {
            free(table);
            return NULL;
        }
        cache->loaded = loaded;
        cache->allocated = more;
    }
    if (table) {
        memset(table, 0, sizeof(*table));
        table->offset = offset;
        table->key = key;
        table->used = true;
    }
    return table;
}

static void insert(struct table_cache *cache, struct table *table)
{
    cache->loaded[cache->count++] = table;
    cache->by_key[table->key] = table;
}

struct table *table_get(struct qcow2 *q, struct table_cache *cache, uint32_t key, uint64_t offset,
                        int *result)
{
    struct table *table = cache->by_key[key];
    *result = 0;
    if (table) {
        table->used = true;
        return table;
    }
    table = make(q, cache, key, offset);
    if (!table) {
        *result = -ENOMEM;
        return NULL;
    }
    *result = hostfile_read_bytes(q->file, table->data, offset, q->cluster_size);
    if (*result) {
        free(table);
        return NULL;
    }
    insert(cache, table);
    return table;
}

struct table *table_new(struct qcow2 *q, struct table_cache *cache, uint32_t key, uint64_t offset,
                        int *result)
{
    struct table *table = make(q, cache, key, offset);
    *result = table ? 0 : -ENOMEM;
    if (!table)
        return NULL;
    memset(table->data, 0, q->cluster_size);
    insert(cache, table);
    table_dirty_all(q, cache, table);
    return table;
}

/* ---- What has to be written -------------------------------------------------------------------
 */

void table_dirty(struct qcow2 *q, struct table_cache *cache, struct table *table, size_t at,
                 size_t len)
{
    for (size_t page = at / TABLE_PAGE; page <= (at + len - 1) / TABLE_PAGE; page++)
        table->dirty_pages[page / 64] |= 1ull << page % 64;
    cache->dirty += !table->dirty;
    table->dirty = true;
    q->metadata_waits = true;
}

void table_dirty_all(struct qcow2 *q, struct table_cache *cache, struct table *table)
{
    table_dirty(q, cache, table, 0, q->cluster_size);
}

static bool page_is_dirty(const struct table *table, size_t page)
{
    return table->dirty_pages[page / 64] >> page % 64 & 1;
}

/* Pages side by side go in one piece. */
static int table_write(struct qcow2 *q, struct table *table)
{
    size_t pages = (q->cluster_size + TABLE_PAGE - 1) / TABLE_PAGE;
    for (size_t page = 0; page < pages;) {
        size_t first = page++;
        if (!page_is_dirty(table, first))
            continue;
        while (page < pages && page_is_dirty(table, page))
            page++;
        uint64_t at = first * TABLE_PAGE, end = page * TABLE_PAGE;
        if (end > q->cluster_size)
            end = q->cluster_size;
        int result = hostfile_write_bytes(q->file, (uint8_t *)table->data + at, table->offset + at,
                                          end - at);
        if (result)
            return result;
    }
    return 0;
}

int table_cache_write(struct qcow2 *q, struct table_cache *cache)
{
    for (unsigned i = 0; i < cache->count && cache->dirty; i++) {
        struct table *table = cache->loaded[i];
        int result = table->dirty ? table_write(q, table) : 0;
        if (result)
            return result;
        if (table->dirty) {
            memset(table->dirty_pages, 0, sizeof(table->dirty_pages));
            table->dirty = false;
            cache->dirty--;
        }
    }
    return 0;
}

/* ---- Level-one tables -------------------------------------------------------------------------
 */

void top_set(struct qcow2 *q, struct top_table *top, uint64_t index, uint64_t value)
{
    top->data[index] = htobe64(value);
    top->dirty[index * 8 / SECTOR] = 1;
    top->any_dirty = true;
    q->metadata_waits = true;
}

int top_write(struct qcow2 *q, struct top_table *top)
{
    uint64_t bytes = top->entries * 8;
    for (uint64_t at = 0; at < bytes; at += SECTOR) {
        if (!top->dirty[at / SECTOR])
            continue;
        int result = hostfile_write_bytes(q->file, (uint8_t *)top->data + at, top->offset + at,
                                          bytes - at < SECTOR ? bytes - at : SECTOR);
        if (result)
            return result;
        top->dirty[at / SECTOR] = 0;
    }
    top->any_dirty = false;
    return 0;
}
