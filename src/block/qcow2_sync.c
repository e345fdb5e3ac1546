/*
 * qcow2_sync.c - the order in which an image is brought to its file.
 *
 * What the host has written but not yet synced can reach the disk in any order, or in part, when
 * the power fails. The image must be whole then, and have everything that was flushed; clusters
 * that are counted and used by nobody ("leaked") are allowed. So:
 *
 *   1. A refcount block is on the disk before the refcount table refers to it.
 *   2. Data, and the refcounts of all clusters that are newly used, are on the disk before an L2
 *      table refers to them. A cluster's other sectors, copied from where they were, come with it.
 *   3. An L2 table is on the disk before L1 refers to it.
 *   4. A cluster loses its reference, and may be used for something else, only when nothing on the
 *      disk refers to it any more.
 *
 * Between two syncs nothing is written but data, into clusters that are the guest's already or that
 * nothing on the disk refers to. A flush costs one fdatasync() when no cluster was allocated, two
 * when some were, and a third for a new L2 table.
 */
#include "qcow2.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { MOST_FREED = 65536 }; /* runs */

bool qcow2_must_sync(const struct qcow2 *q)
{
    return q->l2.dirty >= q->l2.room / 2 || q->refblocks.dirty >= q->refblocks.room / 2 ||
           q->freed_count >= MOST_FREED;
}

int qcow2_file_sync(struct qcow2 *q)
{
    return q->unsafe ? 0 : hostfile_sync(q->file);
}

static int sync_refcounts(struct qcow2 *q)
{
    int result = table_cache_write(q, &q->refblocks);
    if (result || !q->reftable.any_dirty)
        return result;
    result = qcow2_file_sync(q);
    return result ? result : top_write(q, &q->reftable);
}

static int sync_mapping(struct qcow2 *q)
{
    int result = 0;
    if (q->l2.dirty || q->l1.any_dirty) {
        /* Clusters that were skipped because a new part of the file reads as zeroes. */
        result = hostfile_extend(q->file, q->end);
        if (!result)
            result = qcow2_file_sync(q);
    }
    if (!result)
        result = table_cache_write(q, &q->l2);
    if (!result && q->l1.any_dirty) {
        result = qcow2_file_sync(q);
        if (!result)
            result = top_write(q, &q->l1);
    }
    return result;
}

int qcow2_sync(struct qcow2 *q)
{
    if (q->corrupt)
        return -EIO;
    int result = sync_refcounts(q);
    if (!result)
        result = sync_mapping(q);
    if (!result)
        result = qcow2_file_sync(q);
    if (result)
        return result; /* what is dirty stays so: it can be tried again */
    q->metadata_waits = false;
    return qcow2_apply_frees(q); /* which may make refcounts wait again */
}

int qcow2_corrupt(struct qcow2 *q, const char *what, uint64_t offset)
{
    if (atomic_exchange(&q->corrupt, true))
        return -EIO;
    fprintf(stderr,
            "bailey: %s: the image is corrupt: %s (offset %#llx); it is not written any more "
            "('qemu-img check -r all' may repair it)\n",
            q->image.path, what, (unsigned long long)offset);
    if (q->write && q->version >= 3) {
        uint64_t features;
        const uint64_t at = offsetof(struct qcow2_header, incompatible_features);
        if (!hostfile_read_bytes(q->file, &features, at, sizeof(features))) {
            features |= htobe64(QCOW2_CORRUPT);
            if (!hostfile_write_bytes(q->file, &features, at, sizeof(features)))
                qcow2_file_sync(q);
        }
    }
    return -EIO;
}
