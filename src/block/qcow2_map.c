/*
 * qcow2_map.c - where a guest offset's bytes are: L1 and L2 entries as structures, and back.
 *
 * Without extended L2 entries a cluster is its own, only subcluster. Entries come from a file that
 * anybody may have made: an offset that is not a multiple of the cluster size, or lies beyond what
 * the file has, is corruption (qcow2_corrupt()) and gives EIO. So is a cluster that counts as free:
 * the next allocation would put somebody else's data into it. It is looked for as a table is read.
 */
#include "qcow2.h"
#include <errno.h>
#include <string.h>

static uint64_t l1_index(const struct qcow2 *q, uint64_t offset)
{
    return (offset >> q->cluster_bits) / q->l2_entries;
}

static unsigned l2_index(const struct qcow2 *q, uint64_t offset)
{
    return (unsigned)((offset >> q->cluster_bits) % q->l2_entries);
}

bool qcow2_has_backing(const struct qcow2 *q, uint64_t offset)
{
    return q->backing && offset < q->backing->size;
}

/* ---- Entries ----------------------------------------------------------------------------------
 */

static struct cluster decode(const struct qcow2 *q, const struct table *l2, unsigned index)
{
    const uint64_t *words = &l2->data[(size_t)index * q->l2_entry_words];
    uint64_t entry = be64toh(words[0]), bitmap = q->l2_entry_words > 1 ? be64toh(words[1]) : 0;
    struct cluster c = {0};
    if (entry & QCOW2_COMPRESSED) {
        c.entry = entry;
        return c;
    }
    c.host = entry & QCOW2_OFFSET_MASK;
    c.copied = c.host && (entry & QCOW2_COPIED);
    if (q->l2_entry_words > 1) {
        c.alloc = c.host ? (uint32_t)bitmap : 0;
        c.zero = (uint32_t)(bitmap >> 32) & ~c.alloc;
    } else if (q->version >= 3 && (entry & QCOW2_ZERO)) {
        c.zero = 1;
    } else {
        c.alloc = c.host != 0;
    }
    return c;
}

static void encode(const struct qcow2 *q, struct table *l2, unsigned index, const struct cluster *c)
{
    uint64_t *words = &l2->data[(size_t)index * q->l2_entry_words];
    uint64_t entry = c->entry ? c->entry : c->host | (c->copied ? QCOW2_COPIED : 0);
    if (q->l2_entry_words > 1)
        words[1] = htobe64((uint64_t)c->zero << 32 | c->alloc);
    else if (c->zero)
        entry |= QCOW2_ZERO;
    words[0] = htobe64(entry);
}

static int check(struct qcow2 *q, const struct cluster *c)
{
    if (c->host & (q->cluster_size - 1))
        return qcow2_corrupt(q, "a data cluster is not aligned", c->host);
    if (c->host >= q->end && (c->alloc || c->copied))
        return qcow2_corrupt(q, "a data cluster lies beyond the file's end", c->host);
    if (c->entry) {
        uint64_t host, len;
        qcow2_compressed_extent(q, c->entry, &host, &len);
        if (host >= q->end)
            return qcow2_corrupt(q, "a compressed cluster lies beyond the file's end", host);
    }
    return 0;
}

void qcow2_compressed_extent(const struct qcow2 *q, uint64_t entry, uint64_t *host, uint64_t *len)
{
    unsigned shift = QCOW2_COMPRESSED_SHIFT(q->cluster_bits);
    uint64_t offset_mask = (1ull << shift) - 1;
    uint64_t sectors = (entry & ~(QCOW2_COPIED | QCOW2_COMPRESSED)) >> shift;
    *host = entry & offset_mask;
    *len = (sectors + 1) * QCOW2_SECTOR - *host % QCOW2_SECTOR;
}

/* ---- L2 tables --------------------------------------------------------------------------------
 */

/* Does a cluster that an entry refers to count as free? It would be given to somebody else. */
static bool has_free(struct qcow2 *q, const struct cluster *c, uint64_t *which)
{
    uint64_t host = c->host, len = q->cluster_size;
    if (c->entry)
        qcow2_compressed_extent(q, c->entry, &host, &len);
    else if (!host)
        return false;
    const uint64_t end = q->end >> q->cluster_bits, last = (host + len - 1) >> q->cluster_bits;
    for (*which = host >> q->cluster_bits; *which <= last && *which < end; ++*which)
        if (qcow2_counts_as_free(q, *which))
            return true;
    return false;
}

/* Reading does no harm: that goes on. */
static void check_counts(struct qcow2 *q, const struct table *l2)
{
    uint64_t which;
    for (unsigned i = 0; i < q->l2_entries && !q->corrupt; i++) {
        struct cluster c = decode(q, l2, i);
        if (has_free(q, &c, &which))
            qcow2_corrupt(q, "a cluster that is used has no refcount", which << q->cluster_bits);
    }
}

/* NULL and *result 0: there is none. Called with `cache_lock` held, or `rw` alone. */
static struct table *get_l2(struct qcow2 *q, uint64_t offset, int *result)
{
    uint64_t index = l1_index(q, offset), at = top_get(&q->l1, index) & QCOW2_OFFSET_MASK;
    *result = 0;
    if (!at)
        return NULL;
    if (q->l2.by_key[index])
        return table_get(q, &q->l2, (uint32_t)index, at, result);
    if (at & (q->cluster_size - 1)) {
        *result = qcow2_corrupt(q, "an L2 table is not aligned", at);
        return NULL;
    }
    if (at >= q->end) {
        *result = qcow2_corrupt(q, "an L2 table lies beyond the file's end", at);
        return NULL;
    }
    struct table *l2 = table_get(q, &q->l2, (uint32_t)index, at, result);
    if (l2 && q->check_counts)
        check_counts(q, l2);
    return l2;
}

int qcow2_cluster_get(struct qcow2 *q, uint64_t offset, struct cluster *cluster)
{
    int result;
    struct table *l2 = get_l2(q, offset, &result);
    *cluster = (struct cluster){0};
    if (!l2)
        return result;
    *cluster = decode(q, l2, l2_index(q, offset));
    return check(q, cluster);
}

/* The table of a snapshot too, or none: a new cluster for it. */
int qcow2_l2_prepare(struct qcow2 *q, uint64_t offset)
{
    uint64_t index = l1_index(q, offset), entry = top_get(&q->l1, index);
    uint64_t first, count;
    bool fresh;
    int result;
    struct table *l2 = get_l2(q, offset, &result);
    if (result || (l2 && (entry & QCOW2_COPIED)))
        return result;
    result = qcow2_alloc(q, 1, &first, &count, &fresh);
    if (result)
        return result;
    uint64_t at = first << q->cluster_bits;
    if (!cluster_set_add(&q->metadata, first)) {
        qcow2_unalloc(q, first, 1);
        return -ENOMEM;
    }
    if (l2) {
        result = qcow2_free_later(q, l2->offset, q->cluster_size);
        if (!result) {
            l2->offset = at;
            table_dirty_all(q, &q->l2, l2);
        }
    } else {
        table_new(q, &q->l2, (uint32_t)index, at, &result);
    }
    if (result) {
        cluster_set_remove(&q->metadata, first);
        qcow2_unalloc(q, first, 1);
        return result;
    }
    top_set(q, &q->l1, index, at | QCOW2_COPIED);
    return 0;
}

int qcow2_cluster_set(struct qcow2 *q, uint64_t offset, const struct cluster *cluster)
{
    int result;
    struct table *l2 = get_l2(q, offset, &result);
    if (!l2)
        return result ? result : -EIO;
    unsigned index = l2_index(q, offset);
    size_t size = sizeof(uint64_t) * q->l2_entry_words;
    encode(q, l2, index, cluster);
    table_dirty(q, &q->l2, l2, index * size, size);
    return 0;
}

/* ---- Runs -------------------------------------------------------------------------------------
 */

static enum run_kind kind_of(const struct qcow2 *q, const struct cluster *c, unsigned sub,
                             uint64_t offset)
{
    if (c->entry)
        return RUN_COMPRESSED;
    if (c->alloc >> sub & 1)
        return RUN_DATA;
    return !(c->zero >> sub & 1) && qcow2_has_backing(q, offset) ? RUN_BACKING : RUN_ZERO;
}

/* One subcluster, from `offset` to its end. */
static void describe(const struct qcow2 *q, const struct cluster *c, uint64_t offset,
                     struct run *run)
{
    uint64_t in = offset & (q->cluster_size - 1);
    unsigned sub = (unsigned)(in / q->subcluster_size);
    run->kind = kind_of(q, c, sub, offset);
    run->host = c->host + in;
    run->entry = c->entry;
    run->in_place = run->kind == RUN_DATA && c->copied;
    run->len = run->kind == RUN_COMPRESSED ? q->cluster_size - in
                                           : q->subcluster_size - in % q->subcluster_size;
    if (run->kind == RUN_BACKING && run->len > q->backing->size - offset)
        run->len = q->backing->size - offset;
}

static bool continues(const struct run *run, const struct run *next)
{
    return next->kind == run->kind && run->kind != RUN_COMPRESSED &&
           (run->kind != RUN_DATA ||
            (next->host == run->host + run->len && next->in_place == run->in_place));
}

/* As far as one L2 table goes. Called with `cache_lock` held, or `rw` alone. */
static int map_locked(struct qcow2 *q, uint64_t offset, uint64_t len, struct run *run)
{
    const uint64_t covers = q->l2_entries * q->cluster_size;
    const struct cluster nothing = {0};
    uint64_t end = offset - offset % covers + covers;
    int result;
    struct table *l2 = get_l2(q, offset, &result);
    if (result)
        return result;
    if (end > offset + len)
        end = offset + len;
    run->len = 0;
    for (uint64_t at = offset; at < end;) {
        struct cluster c = l2 ? decode(q, l2, l2_index(q, at)) : nothing;
        struct run next;
        result = check(q, &c);
        if (result)
            return at == offset ? result : 0; /* what comes before it can be had */
        describe(q, &c, at, &next);
        if (at == offset)
            *run = next;
        else if (continues(run, &next))
            run->len += next.len;
        else
            break;
        at += next.len;
    }
    if (run->len > end - offset)
        run->len = end - offset;
    return 0;
}

int qcow2_map(struct qcow2 *q, uint64_t offset, uint64_t len, struct run *run)
{
    pthread_mutex_lock(&q->cache_lock);
    int result = map_locked(q, offset, len, run);
    pthread_mutex_unlock(&q->cache_lock);
    return result;
}
