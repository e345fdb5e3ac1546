/*
 * qcow2.c - reading, writing, zeroing and discarding in a qcow2 image (qcow2.h).
 *
 * A write goes to the cluster that is there when that is the guest's alone. Otherwise (nothing is
 * there, a snapshot shares it, it is compressed) a new cluster is taken, as many side by side as
 * the request needs; what the request does not cover of the first and the last comes from where it
 * was, and all of it is written in one piece before the L2 entries change in memory.
 */
#include "qcow2.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint64_t in_cluster(const struct qcow2 *q, uint64_t offset)
{
    return offset & (q->cluster_size - 1);
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* The subclusters of bytes lo to hi of a cluster, as bits. */
static uint32_t bits_of(const struct qcow2 *q, uint64_t lo, uint64_t hi)
{
    uint64_t first = lo / q->subcluster_size, end = (hi - 1) / q->subcluster_size + 1;
    return (uint32_t)((1ull << end) - (1ull << first));
}

/* ---- Reading ----------------------------------------------------------------------------------
 */

/* Has the file lost what lies there? The last cluster alone need not be complete. */
static int check_there(const struct qcow2 *q, uint64_t host, uint64_t len)
{
    uint64_t length;
    int result = hostfile_length(q->file, &length);
    return !result && host + len - 1 - in_cluster(q, host + len - 1) >= length ? -EIO : result;
}

static int read_data(struct qcow2 *q, struct span to, uint64_t host, uint64_t len)
{
    uint64_t there;
    int result = hostfile_read_to_end(q->file, to, host, len, &there);
    return !result && there < len ? check_there(q, host, len) : result;
}

/* Any hold of `rw`. */
static int read_unlocked(struct qcow2 *q, struct span to, uint64_t offset, uint64_t len)
{
    while (len) {
        struct run run;
        int result = qcow2_map(q, offset, len, &run);
        if (result)
            return result;
        switch (run.kind) {
        case RUN_DATA:
            result = read_data(q, to, run.host, run.len);
            break;
        case RUN_ZERO:
            span_fill(to, 0, run.len);
            break;
        case RUN_BACKING:
            result = q->backing->ops->read(q->backing, to, offset, run.len);
            break;
        case RUN_COMPRESSED:
            result = qcow2_inflate(q, run.entry, to, in_cluster(q, offset), run.len);
            break;
        }
        if (result)
            return result;
        to = span_at(to, run.len);
        offset += run.len;
        len -= run.len;
    }
    return 0;
}

static int qcow2_read(struct image *image, struct span to, uint64_t offset, uint64_t len)
{
    struct qcow2 *q = qcow2_of(image);
    pthread_rwlock_rdlock(&q->rw);
    int result = read_unlocked(q, to, offset, len);
    pthread_rwlock_unlock(&q->rw);
    return result;
}

static int is_zero(struct qcow2 *q, uint64_t offset, uint64_t len, bool *zero)
{
    *zero = true;
    while (len && *zero) {
        struct run run;
        int result = qcow2_map(q, offset, len, &run);
        if (result)
            return result;
        *zero = run.kind == RUN_ZERO;
        offset += run.len;
        len -= run.len;
    }
    return 0;
}

/* ---- Writing where clusters must be taken -----------------------------------------------------
 */

/* Clusters of the file, side by side, that take the guest's bytes from `offset` on. */
struct store {
    uint64_t offset, len;
    uint64_t host; /* where the first cluster is */
    uint64_t count;
    bool in_place;              /* they are the guest's already */
    bool fresh;                 /* they read as zeroes so far */
    struct cluster first, last; /* as they were */
};

/* What surrounds the guest's bytes in the first and last cluster. */
struct edge {
    uint64_t offset, len; /* guest's */
    bool skip;            /* the file reads so already */
    uint8_t *bytes;
};

static int edge_fill(struct qcow2 *q, const struct store *s, struct edge *edge)
{
    bool zero;
    if (!edge->len)
        return 0;
    int result = is_zero(q, edge->offset, edge->len, &zero);
    if (result)
        return result;
    edge->skip = zero && s->fresh;
    if (edge->skip)
        return 0;
    edge->bytes = calloc(1, edge->len);
    if (!edge->bytes)
        return -ENOMEM;
    const struct iovec iov = {edge->bytes, edge->len};
    return zero ? 0 : read_unlocked(q, (struct span){&iov, 1, 0}, edge->offset, edge->len);
}

/* From which byte of the first cluster to which byte of the last its bytes must be written: whole
 * subclusters, and in a new cluster all that the old one had. */
static uint64_t lowest(const struct qcow2 *q, const struct store *s, uint64_t in)
{
    unsigned sub = (unsigned)(in / q->subcluster_size);
    if (s->first.entry)
        return 0;
    if (s->in_place)
        return s->first.alloc >> sub & 1 ? in : sub * q->subcluster_size;
    unsigned had = s->first.alloc ? (unsigned)__builtin_ctz(s->first.alloc) : sub;
    return (had < sub ? had : sub) * q->subcluster_size;
}

static uint64_t highest(const struct qcow2 *q, const struct store *s, uint64_t in)
{
    unsigned sub = (unsigned)((in - 1) / q->subcluster_size);
    if (s->last.entry)
        return q->cluster_size;
    if (s->in_place)
        return s->last.alloc >> sub & 1 ? in : (sub + 1) * q->subcluster_size;
    unsigned had = s->last.alloc ? 31 - (unsigned)__builtin_clz(s->last.alloc) : sub;
    return ((had > sub ? had : sub) + 1) * q->subcluster_size;
}

static int write_pieces(struct qcow2 *q, const struct store *s, struct span from,
                        const struct edge *head, const struct edge *tail)
{
    uint64_t at = s->host + in_cluster(q, s->offset), len = s->len;
    if (!head->bytes && !tail->bytes)
        return hostfile_write(q->file, from, at, len);
    struct iovec *iov = calloc((size_t)from.iovcnt + 2, sizeof(*iov));
    int n = 0;
    if (!iov)
        return -ENOMEM;
    if (head->bytes) {
        iov[n++] = (struct iovec){head->bytes, head->len};
        at -= head->len;
        len += head->len;
    }
    n += span_slice(iov + n, from.iovcnt, from, s->len);
    if (tail->bytes) {
        iov[n++] = (struct iovec){tail->bytes, tail->len};
        len += tail->len;
    }
    int result = hostfile_write(q->file, (struct span){iov, n, 0}, at, len);
    free(iov);
    return result;
}

/* A damaged or malicious L2 entry may point at tables. */
static int check_owned(struct qcow2 *q, uint64_t host, uint64_t len)
{
    for (uint64_t c = host >> q->cluster_bits; c <= (host + len - 1) >> q->cluster_bits; c++)
        if (cluster_set_has(&q->metadata, c))
            return qcow2_corrupt(q, "a data cluster is metadata too", c << q->cluster_bits);
    return 0;
}

/* Drops what a cluster referred to. */
static int let_go(struct qcow2 *q, const struct cluster *c)
{
    uint64_t host = c->host, len = q->cluster_size;
    if (c->entry)
        qcow2_compressed_extent(q, c->entry, &host, &len);
    else if (!host)
        return 0;
    int result = check_owned(q, host, len);
    return result ? result : qcow2_free_later(q, host, len);
}

/* The L2 entries for bytes `lo` of the first to `hi` of the last cluster. */
static int link_clusters(struct qcow2 *q, const struct store *s, uint64_t lo, uint64_t hi)
{
    uint64_t base = s->offset - in_cluster(q, s->offset);
    for (uint64_t i = 0; i < s->count; i++) {
        struct cluster old, now = {.host = s->host + i * q->cluster_size, .copied = true};
        int result = qcow2_cluster_get(q, base + i * q->cluster_size, &old);
        if (result)
            return result;
        now.alloc = bits_of(q, i ? 0 : lo, i + 1 < s->count ? q->cluster_size : hi);
        if (s->in_place)
            now.alloc |= old.alloc;
        now.zero = old.zero & ~now.alloc;
        if (s->in_place && now.alloc == old.alloc)
            continue;
        result = qcow2_cluster_set(q, base + i * q->cluster_size, &now);
        if (!result && !s->in_place)
            result = let_go(q, &old);
        if (result)
            return result;
    }
    return 0;
}

/* Writes, and links what it wrote; gives new clusters back when it could not. `rw` is held alone
 * but for the time that whole clusters are written: what is looked up before may not hold after. */
static int store(struct qcow2 *q, const struct store *s, struct span from)
{
    const uint64_t end = s->offset + s->len, in = in_cluster(q, s->offset);
    const uint64_t end_in = in_cluster(q, end - 1) + 1;
    const uint64_t lo = lowest(q, s, in), hi = highest(q, s, end_in);
    struct edge head = {.offset = s->offset - in + lo, .len = in - lo};
    struct edge tail = {.offset = end, .len = hi - end_in};
    int result = edge_fill(q, s, &head);
    if (!result)
        result = edge_fill(q, s, &tail);
    /* Whole new clusters are nobody else's yet: meanwhile others may go on. Of a cluster that is
     * written in part, whole subclusters too, they might link other parts, which would be lost. */
    bool alone = s->in_place || in || end_in != q->cluster_size;
    if (!alone)
        pthread_rwlock_unlock(&q->rw);
    if (!result)
        result = write_pieces(q, s, from, &head, &tail);
    if (!alone)
        pthread_rwlock_wrlock(&q->rw);
    free(head.bytes);
    free(tail.bytes);
    if (!result)
        return link_clusters(q, s, lo, hi);
    if (!s->in_place)
        qcow2_unalloc(q, s->host >> q->cluster_bits, s->count);
    return result;
}

/* How many clusters from `offset` on, at most for len bytes and in one L2 table, have none of their
 * own to be written to. *last: the last of them. */
static int count_new(struct qcow2 *q, uint64_t offset, uint64_t len, uint64_t *count,
                     struct cluster *last)
{
    const uint64_t base = offset - in_cluster(q, offset), covers = q->l2_entries * q->cluster_size;
    const uint64_t end = least(offset + len, offset - offset % covers + covers);
    *count = 0;
    for (uint64_t at = base; at < end; at += q->cluster_size) {
        struct cluster c;
        int result = qcow2_cluster_get(q, at, &c);
        if (result)
            return result;
        if (c.copied)
            break;
        *last = c;
        ++*count;
    }
    return 0;
}

static int write_new(struct qcow2 *q, struct span from, uint64_t offset, uint64_t len,
                     uint64_t *done)
{
    struct store s = {.offset = offset};
    uint64_t wanted, first;
    int result = qcow2_l2_prepare(q, offset);
    if (!result)
        result = count_new(q, offset, len, &wanted, &s.last);
    if (!result)
        result = qcow2_cluster_get(q, offset, &s.first);
    if (!result)
        result = qcow2_alloc(q, wanted, &first, &s.count, &s.fresh);
    if (result)
        return result;
    s.host = first << q->cluster_bits;
    s.len = least(len, (s.count << q->cluster_bits) - in_cluster(q, offset));
    if (s.count < wanted)
        result = qcow2_cluster_get(q, offset + s.len - 1, &s.last);
    if (result) {
        qcow2_unalloc(q, first, s.count);
        return result;
    }
    *done = s.len;
    return store(q, &s, from);
}

/* One cluster that is the guest's, but of which not every subcluster that is written is there. */
static int write_in_place(struct qcow2 *q, const struct cluster *c, struct span from,
                          uint64_t offset, uint64_t len, uint64_t *done)
{
    const struct store s = {.offset = offset,
                            .len = least(len, q->cluster_size - in_cluster(q, offset)),
                            .host = c->host,
                            .count = 1,
                            .in_place = true,
                            .first = *c,
                            .last = *c};
    int result = check_owned(q, c->host, q->cluster_size);
    if (!result)
        result = qcow2_l2_prepare(q, offset);
    *done = s.len;
    return result ? result : store(q, &s, from);
}

/* `rw` is held alone. */
static int write_alone(struct qcow2 *q, struct span from, uint64_t offset, uint64_t len)
{
    while (len) {
        struct cluster c;
        uint64_t done = 0;
        int result = q->corrupt ? -EIO : qcow2_must_sync(q) ? qcow2_sync(q) : 0;
        if (!result)
            result = qcow2_cluster_get(q, offset, &c);
        if (!result)
            result = c.copied ? write_in_place(q, &c, from, offset, len, &done)
                              : write_new(q, from, offset, len, &done);
        if (result)
            return result;
        from = span_at(from, done);
        offset += done;
        len -= done;
    }
    return 0;
}

static int qcow2_write(struct image *image, struct span from, uint64_t offset, uint64_t len)
{
    struct qcow2 *q = qcow2_of(image);
    int result = q->corrupt ? -EIO : 0;
    pthread_rwlock_rdlock(&q->rw);
    while (len && !result) {
        struct run run;
        result = qcow2_map(q, offset, len, &run);
        if (result || !run.in_place)
            break;
        result = check_owned(q, run.host, run.len);
        if (!result) /* writing would make a file that lost its tail long again, and hide the loss
                      */
            result = check_there(q, run.host, run.len);
        if (!result)
            result = hostfile_write(q->file, from, run.host, run.len);
        from = span_at(from, run.len);
        offset += run.len;
        len -= run.len;
    }
    pthread_rwlock_unlock(&q->rw);
    if (len && !result) {
        pthread_rwlock_wrlock(&q->rw);
        result = write_alone(q, from, offset, len);
        pthread_rwlock_unlock(&q->rw);
    }
    return result;
}

/* ---- Zeroes -----------------------------------------------------------------------------------
 */

static int write_zero_bytes(struct qcow2 *q, uint64_t offset, uint64_t len)
{
    bool zero;
    int result = is_zero(q, offset, len, &zero);
    if (result || zero)
        return result;
    const struct iovec iov = {calloc(1, len), len};
    result = iov.iov_base ? write_alone(q, (struct span){&iov, 1, 0}, offset, len) : -ENOMEM;
    free(iov.iov_base);
    return result;
}

/* The cluster at `offset` becomes `now`. */
static int replace(struct qcow2 *q, uint64_t offset, const struct cluster *old,
                   const struct cluster *now)
{
    int result = qcow2_l2_prepare(q, offset);
    if (!result)
        result = qcow2_cluster_set(q, offset, now);
    return !result && now->host != old->host ? let_go(q, old)
           : !result && old->entry           ? let_go(q, old)
                                             : result;
}

static int zero_cluster(struct qcow2 *q, uint64_t offset, const struct cluster *old,
                        enum hostfile_zero_how how)
{
    struct cluster now = {0};
    bool keep = how == HOSTFILE_ZERO_KEEP && old->copied;
    if (q->version < 3 && qcow2_has_backing(q, offset))
        return write_zero_bytes(q, offset, least(q->cluster_size, q->image.size - offset));
    if (q->version >= 3) {
        now.zero = bits_of(q, 0, q->cluster_size);
        now.host = keep ? old->host : 0;
        now.copied = keep;
    }
    return replace(q, offset, old, &now);
}

static int zero_subclusters(struct qcow2 *q, uint64_t offset, uint64_t len,
                            const struct cluster *old)
{
    struct cluster now = *old;
    uint32_t bits = bits_of(q, in_cluster(q, offset), in_cluster(q, offset) + len);
    now.zero |= bits;
    now.alloc &= ~bits;
    return replace(q, offset, old, &now);
}

/* The first of len bytes, as many as can be done in one way. */
static int zero_some(struct qcow2 *q, uint64_t offset, uint64_t len, enum hostfile_zero_how how,
                     uint64_t *done)
{
    const uint64_t in = in_cluster(q, offset);
    struct cluster c;
    bool zero;
    int result = qcow2_cluster_get(q, offset, &c);
    *done = least(len, q->cluster_size - in);
    if (!result)
        result = is_zero(q, offset, *done, &zero);
    if (result || (zero && (!c.host || how == HOSTFILE_ZERO_KEEP)))
        return result;
    /* The disk's last cluster may be cut short. */
    if (in == 0 && (*done == q->cluster_size || offset + *done == q->image.size))
        return zero_cluster(q, offset, &c, how);
    if (in % q->subcluster_size == 0 && *done >= q->subcluster_size && !c.entry) {
        *done -= *done % q->subcluster_size;
        return zero_subclusters(q, offset, *done, &c);
    }
    if (!c.entry)
        *done = least(*done, q->subcluster_size - in % q->subcluster_size);
    return write_zero_bytes(q, offset, *done);
}

/* Bytes from `offset` on that no L2 table knows and no backing file has: zeroes already. */
static uint64_t nothing_there(const struct qcow2 *q, uint64_t offset)
{
    const uint64_t covers = q->l2_entries * q->cluster_size;
    if (qcow2_has_backing(q, offset) || (top_get(&q->l1, offset / covers) & QCOW2_OFFSET_MASK) != 0)
        return 0;
    return covers - offset % covers;
}

static int qcow2_zero(struct image *image, uint64_t offset, uint64_t len,
                      enum hostfile_zero_how how)
{
    struct qcow2 *q = qcow2_of(image);
    int result = 0;
    pthread_rwlock_wrlock(&q->rw);
    while (len && !result) {
        uint64_t done = least(len, nothing_there(q, offset));
        result = q->corrupt ? -EIO : qcow2_must_sync(q) ? qcow2_sync(q) : 0;
        if (!result && !done)
            result = zero_some(q, offset, len, how, &done);
        offset += done;
        len -= done;
    }
    pthread_rwlock_unlock(&q->rw);
    return result;
}

/* ---- Discarding -------------------------------------------------------------------------------
 */

/* Whole clusters only. What lies below must not come back; version 2 cannot say that. */
static int discard_cluster(struct qcow2 *q, uint64_t offset)
{
    struct cluster c, now = {0};
    int result = qcow2_cluster_get(q, offset, &c);
    if (result || (!c.host && !c.entry))
        return result;
    if (qcow2_has_backing(q, offset)) {
        if (q->version < 3)
            return 0;
        now.zero = bits_of(q, 0, q->cluster_size);
    }
    return replace(q, offset, &c, &now);
}

static int qcow2_discard(struct image *image, uint64_t offset, uint64_t len)
{
    struct qcow2 *q = qcow2_of(image);
    const uint64_t end =
        offset + len == image->size ? offset + len : offset + len - in_cluster(q, offset + len);
    int result = 0;
    offset += (q->cluster_size - in_cluster(q, offset)) & (q->cluster_size - 1);
    pthread_rwlock_wrlock(&q->rw);
    while (offset < end && !result) {
        uint64_t done = nothing_there(q, offset);
        result = q->corrupt ? -EIO : qcow2_must_sync(q) ? qcow2_sync(q) : 0;
        if (!result && !done) {
            done = q->cluster_size;
            result = discard_cluster(q, offset);
        }
        offset += done;
    }
    pthread_rwlock_unlock(&q->rw);
    return result;
}

/* ---- Flushing and closing ---------------------------------------------------------------------
 */

static int qcow2_flush(struct image *image)
{
    struct qcow2 *q = qcow2_of(image);
    if (q->corrupt)
        return -EIO;
    if (!q->metadata_waits)
        return qcow2_file_sync(q);
    pthread_rwlock_wrlock(&q->rw);
    int result = qcow2_sync(q);
    pthread_rwlock_unlock(&q->rw);
    return result;
}

static void qcow2_close(struct image *image)
{
    struct qcow2 *q = qcow2_of(image);
    /* The second time brings the refcounts of what the first let go. */
    for (unsigned i = 0; i < 2 && q->write && q->metadata_waits && !q->corrupt; i++)
        qcow2_sync(q);
    qcow2_free(q);
}

const struct image_ops qcow2_ops = {.read = qcow2_read,
                                    .write = qcow2_write,
                                    .zero = qcow2_zero,
                                    .discard = qcow2_discard,
                                    .flush = qcow2_flush,
                                    .close = qcow2_close};
