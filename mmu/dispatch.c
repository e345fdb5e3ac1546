/*
 * dispatch.c - fits a guest's register access to the widths a device takes (io.h, struct io_ops).
 *
 * Shared by the port space and by MMIO, so that a device behaves the same behind either.
 */
#include "map.h"

static uint64_t low_bytes(uint64_t value, unsigned size)
{
    return size >= 8 ? value : value & ((1ull << (8 * size)) - 1);
}

static uint64_t read_once(const struct io_ops *ops, void *opaque, const struct access *access,
                          uint64_t offset, unsigned size)
{
    return low_bytes(ops->read ? ops->read(opaque, access, offset, size) : ~0ull, size);
}

static unsigned width_min(const struct io_ops *ops)
{
    return ops->min ? ops->min : 1;
}
static unsigned width_max(const struct io_ops *ops)
{
    return ops->max ? ops->max : 8;
}

/* Narrower than the device takes: reads the aligned word around it, or two when it straddles. */
static uint64_t read_widened(const struct io_ops *ops, void *opaque, const struct access *access,
                             uint64_t offset, unsigned size)
{
    unsigned min = width_min(ops);
    uint64_t value = 0;
    for (unsigned done = 0; done < size;) {
        uint64_t word = (offset + done) & ~(uint64_t)(min - 1);
        unsigned skip = (unsigned)(offset + done - word);
        unsigned n = min - skip < size - done ? min - skip : size - done;
        uint64_t part = read_once(ops, opaque, access, word, min) >> (8 * skip);
        value |= low_bytes(part, n) << (8 * done);
        done += n;
    }
    return value;
}

uint64_t io_dispatch_read(const struct io_ops *ops, void *opaque, const struct access *access,
                          uint64_t offset, unsigned size)
{
    unsigned max = width_max(ops);
    if (size < width_min(ops))
        return read_widened(ops, opaque, access, offset, size);
    if (size <= max)
        return read_once(ops, opaque, access, offset, size);
    uint64_t value = 0;
    for (unsigned done = 0; done < size; done += max)
        value |= read_once(ops, opaque, access, offset + done, max) << (8 * done);
    return value;
}

/* A write narrower than the device takes arrives as the aligned word with zeros around it: reading
 * the register first could have effects of its own. */
static void write_widened(const struct io_ops *ops, void *opaque, const struct access *access,
                          uint64_t offset, unsigned size, uint64_t value)
{
    unsigned min = width_min(ops);
    for (unsigned done = 0; done < size;) {
        uint64_t word = (offset + done) & ~(uint64_t)(min - 1);
        unsigned skip = (unsigned)(offset + done - word);
        unsigned n = min - skip < size - done ? min - skip : size - done;
        uint64_t part = low_bytes(value >> (8 * done), n) << (8 * skip);
        ops->write(opaque, access, word, min, part);
        done += n;
    }
}

void io_dispatch_write(const struct io_ops *ops, void *opaque, const struct access *access,
                       uint64_t offset, unsigned size, uint64_t value)
{
    unsigned max = width_max(ops);
    if (!ops->write)
        return;
    value = low_bytes(value, size);
    if (size < width_min(ops)) {
        write_widened(ops, opaque, access, offset, size, value);
    } else if (size <= max) {
        ops->write(opaque, access, offset, size, value);
    } else {
        for (unsigned done = 0; done < size; done += max)
            ops->write(opaque, access, offset + done, max, low_bytes(value >> (8 * done), max));
    }
}
