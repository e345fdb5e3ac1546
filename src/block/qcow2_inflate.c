/*
 * qcow2_inflate.c - compressed clusters: each a deflate stream without header, or a zstd frame.
 *
 * The last one that was unpacked is kept, since guests read less than a cluster at a time. It never
 * goes stale: nothing here writes compressed clusters, so an entry means the same bytes for as long
 * as some table has it.
 */
#include "qcow2.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

/* A window larger than the cluster is of no use; more than 8 MiB is an attack on our memory. */
#define ZSTD_WINDOW_LOG_MAX 23

static bool unpack_zlib(const uint8_t *from, size_t from_len, uint8_t *to, size_t to_len)
{
    z_stream stream = {.next_in = (uint8_t *)(uintptr_t)from,
                       .avail_in = (uInt)from_len,
                       .next_out = to,
                       .avail_out = (uInt)to_len};
    if (inflateInit2(&stream, -15) != Z_OK)
        return false;
    int result = inflate(&stream, Z_FINISH);
    inflateEnd(&stream);
    /* What follows the stream in its last sector is not ours: Z_BUF_ERROR is no error. */
    return (result == Z_STREAM_END || result == Z_BUF_ERROR) && stream.avail_out == 0;
}

static bool unpack_zstd(const uint8_t *from, size_t from_len, uint8_t *to, size_t to_len)
{
    ZSTD_DCtx *context = ZSTD_createDCtx();
    ZSTD_inBuffer in = {from, from_len, 0};
    ZSTD_outBuffer out = {to, to_len, 0};
    size_t left = 1;
    if (!context)
        return false;
    ZSTD_DCtx_setParameter(context, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG_MAX);
    while (out.pos < to_len && left && !ZSTD_isError(left)) {
        size_t in_before = in.pos, out_before = out.pos;
        left = ZSTD_decompressStream(context, &out, &in);
        if (in.pos == in_before && out.pos == out_before)
            break;
    }
    ZSTD_freeDCtx(context);
    return out.pos == to_len && !ZSTD_isError(left);
}

/* Called with inflate_lock held. */
static int unpack_locked(struct qcow2 *q, uint64_t entry)
{
    uint64_t host, len, there;
    qcow2_compressed_extent(q, entry, &host, &len);
    if (!q->inflated)
        q->inflated = malloc(q->cluster_size);
    if (!q->deflated) /* the sectors' number has as many bits as a cluster twice the size needs */
        q->deflated = malloc(2 * q->cluster_size + QCOW2_SECTOR);
    if (!q->inflated || !q->deflated)
        return -ENOMEM;
    q->inflated_entry = 0;
    const struct iovec iov = {q->deflated, len};
    int result = hostfile_read_to_end(q->file, (struct span){&iov, 1, 0}, host, len, &there);
    if (result)
        return result;
    bool ok = q->compression == QCOW2_ZSTD
                  ? unpack_zstd(q->deflated, len, q->inflated, q->cluster_size)
                  : unpack_zlib(q->deflated, len, q->inflated, q->cluster_size);
    if (!ok)
        return -EIO;
    q->inflated_entry = entry;
    return 0;
}

int qcow2_inflate(struct qcow2 *q, uint64_t entry, struct span to, uint64_t skip, uint64_t len)
{
    int result = 0;
    pthread_mutex_lock(&q->inflate_lock);
    if (q->inflated_entry != entry)
        result = unpack_locked(q, entry);
    if (!result)
        span_copy_out(to, q->inflated + skip, len);
    pthread_mutex_unlock(&q->inflate_lock);
    return result;
}
