/*
 * fuzz_qcow2.c - a qcow2 image made by somebody hostile, opened and used by a guest.
 *
 * The input says which of a few small valid images to begin with, what to change in it, and what
 * the guest does then. Whatever that is: no crash, no hang, the file keeps its magic number and
 * stays small, and what the guest has just written it reads back unless something failed.
 * AddressSanitizer watches the rest.
 */
#include "internal/error.h"
#include "src/block/qcow2.h"
#include "tests/fuzz/script.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DISK = 256 << 10, STEPS = 40, PATCHES = 24, MOST = 64 << 20 };

/* ---- A small image ------------------------------------------------------------------------------
 */

static const struct {
    uint32_t version, cluster_bits, refcount_order;
    uint64_t incompatible;
} shapes[] = {
    {3, 9, 4, 0},  {2, 10, 4, 0}, {3, 12, 6, 0}, {3, 9, 0, 0}, {3, 14, 4, QCOW2_EXTENDED_L2},
    {3, 16, 4, 0},
};
enum { SHAPES = sizeof(shapes) / sizeof(shapes[0]) };

static void put(int fd, uint64_t offset, unsigned bytes, uint64_t value)
{
    uint8_t b[8];
    for (unsigned i = 0; i < bytes; i++)
        b[i] = (uint8_t)(value >> 8 * (bytes - 1 - i));
    require(pwrite(fd, b, bytes, (off_t)offset) == (ssize_t)bytes);
}

/* Header, refcount table, its block, L1, an L2 table, and a data cluster, in this order. */
static void make_image(int fd, unsigned shape)
{
    const unsigned bits = shapes[shape].cluster_bits, order = shapes[shape].refcount_order;
    const uint64_t size = 1ull << bits;
    require(ftruncate(fd, 0) == 0 && ftruncate(fd, (off_t)(8 * size)) == 0);
    const struct qcow2_header h = {.magic = htobe32(QCOW2_MAGIC),
                                   .version = htobe32(shapes[shape].version),
                                   .cluster_bits = htobe32(bits),
                                   .size = htobe64(DISK),
                                   .l1_size = htobe32(16),
                                   .l1_table_offset = htobe64(3 * size),
                                   .refcount_table_offset = htobe64(size),
                                   .refcount_table_clusters = htobe32(1),
                                   .incompatible_features = htobe64(shapes[shape].incompatible),
                                   .refcount_order = htobe32(order),
                                   .header_length = htobe32(QCOW2_V3_LENGTH)};
    require(pwrite(fd, &h, QCOW2_V3_LENGTH, 0) == QCOW2_V3_LENGTH);
    put(fd, size, 8, 2 * size);
    if (order == 0)
        put(fd, 2 * size, 1, 0x3f);
    for (unsigned i = 0; i < 6 && order >= 3; i++)
        put(fd, 2 * size + (uint64_t)i * (1u << order) / 8, (1u << order) / 8, 1);
    put(fd, 3 * size, 8, QCOW2_COPIED | 4 * size);
    put(fd, 4 * size, 8, QCOW2_COPIED | 5 * size);
    if (shapes[shape].incompatible & QCOW2_EXTENDED_L2)
        put(fd, 4 * size + 8, 8, 0xffffffff);
}

/* Anywhere in the first clusters; mostly small things and what entries are made of. */
static void patch(int fd, unsigned shape, struct script *s)
{
    const uint64_t size = 1ull << shapes[shape].cluster_bits;
    static const uint64_t flags[] = {0,
                                     QCOW2_COPIED,
                                     QCOW2_COMPRESSED,
                                     QCOW2_ZERO,
                                     QCOW2_COPIED | QCOW2_COMPRESSED,
                                     UINT64_MAX << 40};
    unsigned kind = (unsigned)take(s, 1);
    uint64_t cluster = kind % 8, at = cluster * size + take(s, 2) % (cluster ? size : 200);
    switch (kind >> 3 & 3) {
    case 0:
        put(fd, at, 1, take(s, 1));
        break;
    case 1:
        put(fd, at & ~3ull, 4, take(s, 4));
        break;
    case 2:
        put(fd, at & ~7ull, 8, take(s, 8));
        break;
    default: /* an entry */
        put(fd, at & ~7ull & (cluster ? 0x7full | ~(size - 1) : ~0ull), 8,
            flags[take(s, 1) % 6] | take(s, 1) * size);
    }
}

/* ---- The guest
 * ----------------------------------------------------------------------------------- */

static void guest_step(struct image *image, struct script *s, bool write)
{
    static uint8_t data[32 * 512], back[32 * 512];
    uint64_t sectors = image->size / 512, sector = take(s, 2) % (sectors < 512 ? sectors : 512);
    uint64_t count = 1 + take(s, 1) % 32, kind = take(s, 1);
    if (kind & 0x80) /* the other end */
        sector = sectors - 1 - sector;
    count = count < sectors - sector ? count : sectors - sector;
    const struct iovec iov[] = {{data, 100}, {data + 100, sizeof(data) - 100}};
    const struct iovec iov_back = {back, sizeof(back)};
    const struct span from = {iov, 2, 0}, to = {&iov_back, 1, 0};
    switch (write ? kind % 6 : 0) {
    case 0:
        image->ops->read(image, to, sector * 512, count * 512);
        break;
    case 1:
    case 2:
        memset(data, (int)kind, sizeof(data));
        if (!image->ops->write(image, from, sector * 512, count * 512) &&
            !image->ops->read(image, to, sector * 512, count * 512))
            require(!memcmp(data, back, count * 512));
        break;
    case 3:
        if (!image->ops->zero(image, sector * 512, count * 512, kind >> 3 & 1) &&
            !image->ops->read(image, to, sector * 512, count * 512))
            require(span_is_zero(to, count * 512));
        break;
    case 4:
        count = kind & 8 ? count : sectors - sector;
        image->ops->discard(image, sector * 512, count * 512);
        break;
    default:
        image->ops->flush(image);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd = -1;
    static char path[64];
    struct script s = {data, data + size};
    struct error err = {""};
    if (fd < 0) {
        fd = memfd_create("image", MFD_CLOEXEC);
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    }
    unsigned first = (unsigned)take(&s, 1), shape = first % SHAPES;
    make_image(fd, shape);
    for (unsigned n = (unsigned)take(&s, 1) % PATCHES; n; n--)
        patch(fd, shape, &s);
    uint32_t magic;
    require(pread(fd, &magic, 4, 0) == 4);
    const struct image_options options = {
        .path = path, .format = "qcow2", .write = !(first & 0x40), .unsafe = true, .unmap = true};
    struct image *image = image_open(&options, &err);
    if (!image) {
        require(err.msg[0] && !strchr(err.msg, '\n'));
        return 0;
    }
    for (unsigned n = 0; n < STEPS && s.at < s.end; n++)
        guest_step(image, &s, options.write);
    image_close(image);
    uint32_t after;
    struct stat st;
    require(pread(fd, &after, 4, 0) == 4 && after == magic);
    require(fstat(fd, &st) == 0 && st.st_size < MOST);
    return 0;
}
