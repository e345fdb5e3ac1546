/*
 * span.c - parts of scattered buffers (struct span in hostfile.h).
 */
#include "hostfile.h"
#include <string.h>

#define PIECES 64

struct span span_at(struct span span, uint64_t bytes)
{
    span.skip += bytes;
    while (span.iovcnt && span.skip >= span.iov->iov_len) {
        span.skip -= span.iov->iov_len;
        span.iov++;
        span.iovcnt--;
    }
    return span;
}

int span_slice(struct iovec *out, int max, struct span span, uint64_t len)
{
    uint64_t skip = span.skip;
    int n = 0;
    for (int i = 0; i < span.iovcnt && len && n < max; i++) {
        if (skip >= span.iov[i].iov_len) {
            skip -= span.iov[i].iov_len;
            continue;
        }
        uint64_t take = span.iov[i].iov_len - skip;
        if (take > len)
            take = len;
        out[n++] = (struct iovec){(uint8_t *)span.iov[i].iov_base + skip, take};
        len -= take;
        skip = 0;
    }
    return n;
}

/* Calls `each` for the pieces of len bytes until one returns false. */
static bool for_pieces(struct span span, uint64_t len, bool (*each)(void *, void *, size_t),
                       void *opaque)
{
    while (len) {
        struct iovec part[PIECES];
        int n = span_slice(part, PIECES, span, len);
        if (!n)
            break;
        for (int i = 0; i < n; i++) {
            if (!each(opaque, part[i].iov_base, part[i].iov_len))
                return false;
            span = span_at(span, part[i].iov_len);
            len -= part[i].iov_len;
        }
    }
    return true;
}

static bool fill(void *opaque, void *piece, size_t len)
{
    memset(piece, *(int *)opaque, len);
    return true;
}

void span_fill(struct span span, int byte, uint64_t len)
{
    for_pieces(span, len, fill, &byte);
}

static bool copy_out(void *opaque, void *piece, size_t len)
{
    const uint8_t **from = opaque;
    memcpy(piece, *from, len);
    *from += len;
    return true;
}

void span_copy_out(struct span to, const void *from, uint64_t len)
{
    for_pieces(to, len, copy_out, &from);
}

static bool copy_in(void *opaque, void *piece, size_t len)
{
    uint8_t **to = opaque;
    memcpy(*to, piece, len);
    *to += len;
    return true;
}

void span_copy_in(void *to, struct span from, uint64_t len)
{
    for_pieces(from, len, copy_in, &to);
}

/* Every byte equals the one before it, and the first is zero: memcmp() is fast at that. */
static bool is_zero(void *opaque, void *piece, size_t len)
{
    const uint8_t *p = piece;
    (void)opaque;
    return !len || (!p[0] && !memcmp(p, p + 1, len - 1));
}

bool span_is_zero(struct span span, uint64_t len)
{
    return for_pieces(span, len, is_zero, NULL);
}

static bool is_aligned(void *opaque, void *piece, size_t len)
{
    return (((uintptr_t)piece | len) & (*(size_t *)opaque - 1)) == 0;
}

bool span_is_aligned(struct span span, uint64_t len, size_t to)
{
    return for_pieces(span, len, is_aligned, &to);
}
