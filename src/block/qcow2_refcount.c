/*
 * qcow2_refcount.c - which clusters of the file are free, and making them used and free.
 *
 * The refcount blocks in memory are ahead of the file in one way only: a count there may be too
 * small for what has been freed, but is never too large for what is free; qcow2_sync() keeps the
 * file's own counts at least as large as what its L1 and L2 tables refer to.
 *
 * A block that does not exist yet takes the first cluster of the range that it counts. A refcount
 * table that is full is replaced by a longer one behind everything else.
 */
#include "qcow2.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- Counts -----------------------------------------------------------------------------------
 */

/* 1, 2 and 4 bits: the least significant bits of a byte come first. */
uint64_t refcount_get(const struct qcow2 *q, const uint64_t *block, uint64_t index)
{
    const uint8_t *bytes = (const uint8_t *)block;
    unsigned order = q->refcount_order, bits = 1u << order;
    switch (order) {
    case 3:
        return bytes[index];
    case 4:
        return be16toh(((const uint16_t *)block)[index]);
    case 5:
        return be32toh(((const uint32_t *)block)[index]);
    case 6:
        return be64toh(block[index]);
    default:
        return bytes[index * bits / 8] >> index * bits % 8 & ((1u << bits) - 1);
    }
}

void refcount_set(const struct qcow2 *q, uint64_t *block, uint64_t index, uint64_t value)
{
    uint8_t *bytes = (uint8_t *)block;
    unsigned order = q->refcount_order, bits = 1u << order, shift = index * bits % 8;
    switch (order) {
    case 3:
        bytes[index] = (uint8_t)value;
        break;
    case 4:
        ((uint16_t *)block)[index] = htobe16((uint16_t)value);
        break;
    case 5:
        ((uint32_t *)block)[index] = htobe32((uint32_t)value);
        break;
    case 6:
        block[index] = htobe64(value);
        break;
    default:
        bytes += index * bits / 8;
        *bytes = (uint8_t)((*bytes & ~(((1u << bits) - 1) << shift)) | value << shift);
    }
}

static void set_dirty(struct qcow2 *q, struct table *block, uint64_t index, uint64_t value)
{
    refcount_set(q, block->data, index, value);
    table_dirty(q, &q->refblocks, block, (index << q->refcount_order) / 8,
                q->refcount_order > 3 ? 1u << (q->refcount_order - 3) : 1);
}

/* ---- Blocks -----------------------------------------------------------------------------------
 */

/* NULL and *result 0: there is none. */
static struct table *get_block(struct qcow2 *q, uint64_t key, int *result)
{
    uint64_t at = top_get(&q->reftable, key) & QCOW2_REFBLOCK_MASK;
    *result = 0;
    if (!at)
        return NULL;
    if (at & (q->cluster_size - 1) || at >= q->end) {
        *result = qcow2_corrupt(q, "a refcount block lies outside the file or is not aligned", at);
        return NULL;
    }
    return table_get(q, &q->refblocks, (uint32_t)key, at, result);
}

static int note_end(struct qcow2 *q, uint64_t clusters)
{
    uint64_t end = clusters << q->cluster_bits;
    if (q->end < end)
        q->end = end;
    if (q->fresh < end)
        q->fresh = end;
    return 0;
}

/* May these clusters be taken? Their count is zero; the rest of the file must agree. */
static int check_free(struct qcow2 *q, uint64_t first, uint64_t count)
{
    if (first + count > (QCOW2_OFFSET_MASK >> q->cluster_bits))
        return -EFBIG;
    if (!q->file->regular && (first + count) << q->cluster_bits > q->file->size)
        return -ENOSPC;
    for (uint64_t i = first; i < first + count; i++)
        if (cluster_set_has(&q->metadata, i))
            return qcow2_corrupt(q, "a cluster of metadata has no refcount", i << q->cluster_bits);
    return 0;
}

/* A block for the range `key` in that range's cluster `at`. */
static struct table *new_block(struct qcow2 *q, uint64_t key, uint64_t at, int *result)
{
    *result = check_free(q, at, 1);
    if (*result)
        return NULL;
    if (!cluster_set_add(&q->metadata, at)) {
        *result = -ENOMEM;
        return NULL;
    }
    struct table *block = table_new(q, &q->refblocks, (uint32_t)key, at << q->cluster_bits, result);
    if (!block) {
        cluster_set_remove(&q->metadata, at);
        return NULL;
    }
    note_end(q, at + 1);
    return block;
}

/* ---- A longer table ---------------------------------------------------------------------------
 */

static uint64_t blocks_for(const struct qcow2 *q, uint64_t clusters)
{
    uint64_t blocks = 1;
    while (blocks * q->refblock_entries < clusters + blocks)
        blocks++;
    return blocks;
}

/* The new table's clusters and those of the blocks that count them, from cluster `first` on. */
static int count_new_area(struct qcow2 *q, uint64_t first, uint64_t table_clusters, uint64_t blocks)
{
    uint64_t key = first / q->refblock_entries;
    for (uint64_t i = 0; i < blocks; i++) {
        int result;
        struct table *block = new_block(q, key + i, first + table_clusters + i, &result);
        if (!block)
            return result;
        top_set(q, &q->reftable, key + i, block->offset);
        uint64_t left = table_clusters + blocks - i * q->refblock_entries;
        for (uint64_t n = 0; n < q->refblock_entries && n < left; n++)
            set_dirty(q, block, n, 1);
    }
    return 0;
}

/* "refcount_table_offset" and "refcount_table_clusters" are written as one. */
static int write_table(struct qcow2 *q, uint64_t offset, uint64_t clusters)
{
    struct {
        uint64_t offset;
        uint32_t clusters;
    } __attribute__((packed)) fields = {htobe64(offset), htobe32((uint32_t)clusters)};
    int result = table_cache_write(q, &q->refblocks);
    if (!result)
        result =
            hostfile_write_bytes(q->file, q->reftable.data, offset, clusters << q->cluster_bits);
    if (!result)
        result = qcow2_file_sync(q);
    if (!result)
        result = hostfile_write_bytes(
            q->file, &fields, offsetof(struct qcow2_header, refcount_table_offset), sizeof(fields));
    return result ? result : qcow2_file_sync(q);
}

static int resize_table(struct qcow2 *q, uint64_t entries)
{
    uint64_t old = q->reftable.entries;
    uint64_t *data = realloc(q->reftable.data, entries * 8);
    if (data)
        q->reftable.data = data;
    uint8_t *dirty = realloc(q->reftable.dirty, entries * 8 / 512);
    if (dirty)
        q->reftable.dirty = dirty;
    struct table **by_key = realloc(q->refblocks.by_key, entries * sizeof(struct table *));
    if (by_key)
        q->refblocks.by_key = by_key;
    if (!data || !dirty || !by_key)
        return -ENOMEM;
    memset(data + old, 0, (entries - old) * 8);
    memset(dirty, 0, entries * 8 / 512);
    memset(by_key + old, 0, (entries - old) * sizeof(struct table *));
    q->reftable.entries = entries;
    return 0;
}

/* Every cluster that the table can count is used. When this fails half-way, no more is written. */
static int grow_table(struct qcow2 *q)
{
    struct top_table *table = &q->reftable;
    uint64_t old_offset = table->offset, old_bytes = table->entries * 8;
    uint64_t clusters = (old_bytes >> q->cluster_bits) * 3 / 2 + 1;
    uint64_t first = table->entries * q->refblock_entries, blocks = blocks_for(q, clusters);
    uint64_t at = first << q->cluster_bits;
    if (clusters << q->cluster_bits > QCOW2_MAX_REFTABLE)
        return -EFBIG;
    int result = check_free(q, first, clusters + blocks);
    if (!result)
        result = resize_table(q, (clusters << q->cluster_bits) / 8);
    if (!result)
        result = count_new_area(q, first, clusters, blocks);
    for (uint64_t i = 0; i < clusters && !result; i++)
        if (!cluster_set_add(&q->metadata, first + i))
            result = -ENOMEM;
    if (!result)
        result = write_table(q, at, clusters);
    if (result) {
        q->corrupt = true;
        return result;
    }
    memset(table->dirty, 0, table->entries * 8 / 512);
    table->any_dirty = false;
    table->offset = at;
    note_end(q, first + clusters + blocks);
    return qcow2_free_later(q, old_offset, old_bytes);
}

/* ---- Taking and giving back -------------------------------------------------------------------
 */

/* From `at` on in the block that counts it; 0: all are used. */
static uint64_t take(struct qcow2 *q, struct table *block, uint64_t *at, uint64_t want)
{
    uint64_t index = *at % q->refblock_entries, count = 0;
    while (index < q->refblock_entries && refcount_get(q, block->data, index))
        index++;
    *at += index - *at % q->refblock_entries;
    while (count < want && index + count < q->refblock_entries &&
           !refcount_get(q, block->data, index + count))
        count++;
    return count;
}

int qcow2_alloc(struct qcow2 *q, uint64_t want, uint64_t *first, uint64_t *count, bool *fresh)
{
    uint64_t at = q->free_hint;
    for (;;) {
        uint64_t key = at / q->refblock_entries;
        int result = 0;
        if (key >= q->reftable.entries) {
            if ((result = grow_table(q)))
                return result;
            continue;
        }
        struct table *block = get_block(q, key, &result);
        if (result)
            return result;
        if (!block) {
            block = new_block(q, key, at, &result);
            if (!block)
                return result;
            set_dirty(q, block, at % q->refblock_entries, 1);
            top_set(q, &q->reftable, key, block->offset);
        }
        *count = take(q, block, &at, want);
        q->free_hint = at;
        if (!*count)
            continue; /* in the next block */
        result = check_free(q, at, *count);
        if (result)
            return result;
        for (uint64_t i = 0; i < *count; i++)
            set_dirty(q, block, (at + i) % q->refblock_entries, 1);
        *first = at;
        *fresh = at << q->cluster_bits >= q->fresh;
        q->free_hint = at + *count;
        return note_end(q, at + *count);
    }
}

int qcow2_refcount_put(struct qcow2 *q, uint64_t cluster, uint64_t value)
{
    uint64_t key = cluster / q->refblock_entries, index = cluster % q->refblock_entries;
    if (key >= q->reftable.entries)
        return value ? -EFBIG : 0;
    int result;
    struct table *block = get_block(q, key, &result);
    if (result || (!block && !value))
        return result;
    if (!block) {
        uint64_t at = q->end >> q->cluster_bits;
        block = new_block(q, key, at, &result);
        if (!block)
            return result;
        top_set(q, &q->reftable, key, block->offset);
        result = qcow2_refcount_put(q, at, 1);
        if (result || !(block = get_block(q, key, &result)))
            return result;
    }
    if (refcount_get(q, block->data, index) != value)
        set_dirty(q, block, index, value);
    return 0;
}

/* The block that counts a cluster. NULL and *result 0: there is none. */
static struct table *block_of(struct qcow2 *q, uint64_t cluster, int *result)
{
    uint64_t key = cluster / q->refblock_entries;
    *result = 0;
    return key < q->reftable.entries ? get_block(q, key, result) : NULL;
}

bool qcow2_counts_as_free(struct qcow2 *q, uint64_t cluster)
{
    int result;
    const struct table *block = block_of(q, cluster, &result);
    return !result && (!block || !refcount_get(q, block->data, cluster % q->refblock_entries));
}

static int drop_reference(struct qcow2 *q, uint64_t cluster, bool *unused)
{
    int result;
    uint64_t index = cluster % q->refblock_entries;
    struct table *block = block_of(q, cluster, &result);
    if (result)
        return result;
    uint64_t value = block ? refcount_get(q, block->data, index) : 0;
    if (!value)
        return qcow2_corrupt(q, "a cluster that is used has no refcount",
                             cluster << q->cluster_bits);
    set_dirty(q, block, index, value - 1);
    *unused = value == 1;
    if (*unused && cluster < q->free_hint)
        q->free_hint = cluster;
    return 0;
}

void qcow2_unalloc(struct qcow2 *q, uint64_t first, uint64_t count)
{
    bool unused;
    for (uint64_t i = 0; i < count; i++)
        if (drop_reference(q, first + i, &unused))
            return; /* leaked */
}

int qcow2_free_later(struct qcow2 *q, uint64_t offset, uint64_t len)
{
    uint64_t first = offset >> q->cluster_bits, end = (offset + len - 1) >> q->cluster_bits;
    struct cluster_run *last = q->freed_count ? &q->freed[q->freed_count - 1] : NULL;
    if (last && last->first + last->count == first) {
        last->count += end - first + 1;
        return 0;
    }
    if (q->freed_count == q->freed_room) {
        size_t room = q->freed_room ? 2 * q->freed_room : 64;
        struct cluster_run *freed = realloc(q->freed, room * sizeof(*freed));
        if (!freed)
            return -ENOMEM;
        q->freed = freed;
        q->freed_room = room;
    }
    q->freed[q->freed_count++] = (struct cluster_run){first, end - first + 1};
    q->metadata_waits = true;
    return 0;
}

/* One run; what nobody uses any more goes back to the host, as long as it lies side by side. */
static int apply_run(struct qcow2 *q, struct cluster_run run)
{
    uint64_t hole = 0, holes = 0;
    int result = 0;
    for (uint64_t i = 0; i < run.count && !result; i++) {
        bool unused = false;
        result = drop_reference(q, run.first + i, &unused);
        if (unused) {
            cluster_set_remove(&q->metadata, run.first + i);
            hole = holes ? hole : run.first + i;
            holes++;
        }
        if (holes && (!unused || i + 1 == run.count) && q->unmap) {
            /* A hint; when it fails the space stays taken, which is all. */
            hostfile_punch(q->file, hole << q->cluster_bits, holes << q->cluster_bits);
            holes = 0;
        }
    }
    return result;
}

int qcow2_apply_frees(struct qcow2 *q)
{
    int result = 0;
    size_t count = q->freed_count;
    q->freed_count = 0;
    for (size_t i = 0; i < count && !result; i++)
        result = apply_run(q, q->freed[i]);
    return result;
}
