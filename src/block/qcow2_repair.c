/*
 * qcow2_repair.c - refcounts anew, for an image whose dirty bit says that they are out of date.
 *
 * Somebody who kept refcounts lazily did not close the image. The specification demands that they
 * are rebuilt from the L1 and L2 tables before anything is written. COPIED flags follow from them.
 * The dirty bit stays until all of it is on the disk, so that being interrupted does no harm. With
 * internal snapshots it is qemu-img's work: each has tables of its own.
 */
#include "internal/error.h"
#include "qcow2.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MOST_CLUSTERS (1ull << 28) /* 16 TiB with 64-KiB clusters; 1 GiB of memory */

struct counts {
    struct qcow2 *q;
    uint32_t *of;
    uint64_t clusters;
};

static int count(struct counts *c, uint64_t host, uint64_t len)
{
    struct qcow2 *q = c->q;
    for (uint64_t i = host >> q->cluster_bits; i <= (host + len - 1) >> q->cluster_bits; i++) {
        if (i >= c->clusters || cluster_set_has(&q->metadata, i))
            return -EINVAL;
        c->of[i]++;
    }
    return 0;
}

/* Calls `each` for every cluster that an L2 table has. */
static int for_clusters(struct counts *c,
                        int (*each)(struct counts *, uint64_t offset, struct cluster *))
{
    struct qcow2 *q = c->q;
    const uint64_t covers = (uint64_t)q->l2_entries * q->cluster_size;
    for (uint64_t i = 0; i < q->l1.entries; i++) {
        if (!(top_get(&q->l1, i) & QCOW2_OFFSET_MASK))
            continue;
        for (uint64_t at = 0; at < covers; at += q->cluster_size) {
            struct cluster cluster;
            int result = qcow2_must_sync(q) ? qcow2_sync(q) : 0;
            if (!result)
                result = qcow2_cluster_get(q, i * covers + at, &cluster);
            if (!result)
                result = each(c, i * covers + at, &cluster);
            if (result)
                return result;
        }
    }
    return 0;
}

static int count_cluster(struct counts *c, uint64_t offset, struct cluster *cluster)
{
    uint64_t host, len;
    (void)offset;
    if (!cluster->entry)
        return cluster->host ? count(c, cluster->host, c->q->cluster_size) : 0;
    qcow2_compressed_extent(c->q, cluster->entry, &host, &len);
    if (host + len > c->clusters << c->q->cluster_bits) /* its last sector need not be there */
        len = (c->clusters << c->q->cluster_bits) - host;
    return count(c, host, len);
}

static int set_copied(struct counts *c, uint64_t offset, struct cluster *cluster)
{
    if (!cluster->host)
        return 0;
    bool copied = c->of[cluster->host >> c->q->cluster_bits] == 1;
    if (cluster->copied == copied)
        return 0;
    cluster->copied = copied;
    return qcow2_cluster_set(c->q, offset, cluster);
}

static int write_counts(struct counts *c)
{
    const uint64_t most =
        c->q->refcount_order == 6 ? UINT64_MAX : (1ull << (1u << c->q->refcount_order)) - 1;
    for (uint64_t i = 0; i < c->clusters; i++) {
        int result = c->of[i] > most ? -EINVAL : qcow2_refcount_put(c->q, i, c->of[i]);
        if (!result && qcow2_must_sync(c->q))
            result = qcow2_sync(c->q);
        if (result)
            return result;
    }
    return 0;
}

static int clear_dirty(struct qcow2 *q)
{
    const uint64_t at = offsetof(struct qcow2_header, incompatible_features);
    uint64_t features;
    int result = hostfile_read_bytes(q->file, &features, at, sizeof(features));
    if (result)
        return result;
    features &= ~htobe64(QCOW2_DIRTY);
    result = hostfile_write_bytes(q->file, &features, at, sizeof(features));
    return result ? result : qcow2_file_sync(q);
}

static int rebuild(struct counts *c)
{
    struct qcow2 *q = c->q;
    for (size_t i = 0; i <= q->metadata.mask; i++) {
        uint64_t slot = q->metadata.slots[i];
        if (slot > c->clusters)
            return -EINVAL;
        if (slot)
            c->of[slot - 1] = 1;
    }
    int result = for_clusters(c, count_cluster);
    if (!result)
        result = write_counts(c);
    for (uint64_t i = 0; i < q->l1.entries && !result; i++) {
        uint64_t entry = top_get(&q->l1, i);
        if ((entry & QCOW2_OFFSET_MASK) && !(entry & QCOW2_COPIED))
            top_set(q, &q->l1, i, entry | QCOW2_COPIED);
    }
    if (!result)
        result = for_clusters(c, set_copied);
    if (!result)
        result = qcow2_sync(q);
    return result ? result : clear_dirty(q);
}

bool qcow2_repair(struct qcow2 *q, struct error *err)
{
    struct counts c = {.q = q, .clusters = q->end >> q->cluster_bits};
    int result = c.clusters > MOST_CLUSTERS ? -EFBIG : 0;
    c.of = result ? NULL : calloc(c.clusters, sizeof(*c.of));
    if (!result)
        result = c.of ? rebuild(&c) : -ENOMEM;
    free(c.of);
    if (!result)
        return true;
    q->corrupt = true; /* nothing that is half done goes to the file */
    return error_set(err,
                     "%s: was not closed, and its refcounts cannot be rebuilt: %s ('qemu-img check "
                     "-r all' may; readonly=on or -snapshot do without)",
                     q->image.path, result == -EINVAL ? "its tables overlap" : strerror(-result));
}
