/*
 * fuzz_floppy.c - the floppy and DMA controllers met by a hostile guest, with restored states and
 * images of any size that fail now and then. No request may leave its image.
 */
#include "board.h"
#include "internal/blockdev.h"

enum { STEPS = 400 };

struct blockdev {
    uint8_t *bytes;
    uint64_t size;
    bool read_only;
};

static bool broken, irq6;
static struct blockdev disks[2];
static unsigned in_flight;

uint64_t blockdev_size(const struct blockdev *dev)
{
    return dev->size;
}
bool blockdev_read_only(const struct blockdev *dev)
{
    return dev->read_only;
}
static void complete(void *opaque)
{
    struct blockdev_request *r = opaque;
    in_flight--;
    r->done(r);
}
void blockdev_submit(struct blockdev *dev, struct blockdev_request *r)
{
    require(in_flight == 0);
    require(r->offset <= dev->size && r->len <= dev->size - r->offset && r->iovcnt == 1);
    require(r->op == BLOCKDEV_READ || (r->op == BLOCKDEV_WRITE && !dev->read_only));
    if (r->op == BLOCKDEV_READ)
        memcpy(r->iov->iov_base, dev->bytes + r->offset, r->len);
    else
        memcpy(dev->bytes + r->offset, r->iov->iov_base, r->len);
    r->result = broken ? -5 : 0;
    in_flight++;
    event_post(board.queue, complete, r);
}

static void line_set(void *opaque, unsigned pin, bool level)
{
    (void)opaque, (void)pin;
    require(irq6 != level);
    irq6 = level;
}

static void step(struct fdc *fdc, struct dma *dma, struct script *s)
{
    static const uint8_t commands[] = {0xe6, 0xc5, 0x4d, 0x07, 0x0f, 0x08, 0x4a, 0x03, 0x16, 0x11,
                                       0x19, 0x1d, 0x02, 0x4c, 0x13, 0x12, 0x0e, 0x8f, 0x94, 0x04};
    unsigned op = (unsigned)take(s, 1);
    struct error err;
    switch (op & 15) {
    case 0:
    case 1:
        io_write(board.io, &guest, 0x3f5, 1, (uint32_t)take(s, 1));
        break;
    case 2:
    case 3:
        io_write(board.io, &guest, 0x3f5, 1, commands[take(s, 1) % sizeof(commands)]);
        break;
    case 4: /* what sectors on a disk are like */
        for (unsigned i = 0; i < 8; i++)
            io_write(board.io, &guest, 0x3f5, 1,
                     (uint32_t)(take(s, 1) & (i == 4   ? 2
                                              : i == 5 ? 31
                                                       : 3)));
        break;
    case 5:
    case 6:
        io_read(board.io, &guest, (uint16_t)(0x3f0 + take(s, 1) % 8), 1);
        break;
    case 7:
        io_read(board.io, &guest, 0x3f5, 1);
        break;
    case 8:
        io_write(board.io, &guest, (uint16_t)(0x3f0 + take(s, 1) % 8), 1, (uint32_t)take(s, 1));
        break;
    case 9:
        io_write(board.io, &guest, (uint16_t)(take(s, 1) & 0x8f), 1, (uint32_t)take(s, 1));
        break;
    case 10:
        io_write(board.io, &guest, (uint16_t)(0xc0 + take(s, 1) % 32), 1, (uint32_t)take(s, 1));
        break;
    case 11: /* channel 2, open */
        io_write(board.io, &guest, 0x0b, 1, 0x42 | (op >> 2 & 0x3c));
        io_write(board.io, &guest, 0x05, 1, (uint32_t)take(s, 1));
        io_write(board.io, &guest, 0x05, 1, (uint32_t)take(s, 1) & 15);
        io_write(board.io, &guest, 0x0a, 1, 2);
        break;
    case 12:
        broken = op >> 7;
        if (op & 0x40) /* another disk, or none */
            fdc_change(fdc, op >> 5 & 1, op & 0x10 ? &disks[op >> 5 & 1] : NULL, &err);
        break;
    case 13:
        restore(chip_device(fdc), s);
        break;
    case 14:
        restore(chip_device(dma), s);
        break;
    case 15:
        if (op == 0xff)
            chip_device(fdc)->reset(chip_device(fdc));
        for (unsigned i = 0; i < (op >> 4); i++)
            event_poll(board.queue);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint32_t sizes[] = {1474560, 163840, 512, 368640, 2949120, 1474560, 5120, 1228800};
    struct script s = {data, data + size};
    struct error err;
    broken = irq6 = false;
    board_begin();
    uint8_t kind = (uint8_t)take(&s, 1);
    for (unsigned i = 0; i < 2; i++) {
        disks[i].size = sizes[(kind >> 3 * i) & 7];
        disks[i].bytes = calloc(1, disks[i].size);
        disks[i].read_only = i && kind & 0x40;
    }
    const struct fdc_config config = {{&disks[0], kind & 0x80 ? NULL : &disks[1]}};
    struct dma *dma = dma_new(&board);
    struct fdc *fdc = fdc_new(&board, dma, &config, (struct irq_line){.set = line_set}, &err);
    require(fdc != NULL);
    io_write(board.io, &guest, 0x3f2, 1, 0x1c);
    io_write(board.io, &guest, 0x3f7, 1, 0);
    for (unsigned i = 0; i < STEPS && s.at < s.end; i++)
        step(fdc, dma, &s);
    chip_device(fdc)->destroy(chip_device(fdc));
    chip_device(dma)->destroy(chip_device(dma));
    for (unsigned i = 0; i < 10 && in_flight; i++) /* requests outlive it */
        event_poll(board.queue);
    require(in_flight == 0);
    board_end();
    free(disks[0].bytes);
    free(disks[1].bytes);
    return 0;
}
