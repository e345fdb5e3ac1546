/*
 * fuzz_virtio.c - virtio-blk, virtio-scsi and virtio-rng met by a hostile guest: both interfaces'
 * registers and the window in configuration space, queues anywhere, chains that mean something and
 * that do not (loops, wrong order, indirect tables, buffers that are no memory), requests of any
 * contents, images that answer late, in any order, or fail, resets and saved states at any time.
 *
 * Whatever the script says, every request at an image lies on the disk and in memory of its own,
 * and no more are in flight than queues have entries. AddressSanitizer watches the rest.
 */
#include "board.h"
#include "internal/scsi.h"
#include "internal/virtio.h"
#include <errno.h>

enum { WAITING = 5 * 256 };
#include "images.h"

enum { STEPS = 300, IMAGES = 4, DEVICES = 3, QUEUES = 4, SIZE = 16 };
enum { BLK, SCSI, RNG };
#define QUEUES_AT   0x10000u /* 1000h for each queue of each device */
#define INDIRECT_AT 0x20000u
#define HEADERS_AT  0x21000u
#define ANSWERS_AT  0x22000u
#define DATA_AT     0x24000u

/* ---- The machine -------------------------------------------------------------------------------
 */

static struct blockdev images[IMAGES];
static struct pci_bus *bus;
static struct pci_device *isa, *devices[DEVICES];
static struct device *units[IMAGES - 1];
static const unsigned queue_counts[DEVICES] = {1, QUEUES, 1};
static uint64_t modern[DEVICES];
static uint16_t legacy[DEVICES];
static uint16_t available[DEVICES][QUEUES];

static void ignore_irq(void *opaque, unsigned pin, bool level)
{
    (void)opaque, (void)pin, (void)level;
}
static void ignore_message(void *opaque, uint64_t address, uint32_t data)
{
    (void)opaque, (void)address, (void)data;
}

static void store(uint64_t gpa, uint64_t value, unsigned size)
{
    phys_write(board.map, &guest, gpa, &value, size);
}
static void load(uint64_t gpa, unsigned size)
{
    uint64_t value = 0;
    phys_read(board.map, &guest, gpa, &value, size);
}

static uint64_t queue_at(unsigned dev, unsigned queue)
{
    return QUEUES_AT + 0x1000u * (dev * QUEUES + queue);
}

static void find_bars(void)
{
    struct error err = {""};
    require(pci_assign_resources(bus, 0xe0000000, 0xfec00000, &err));
    for (unsigned i = 0; i < DEVICES; i++) {
        uint8_t devfn = devices[i]->devfn;
        pci_config_write(bus, devfn, PCI_COMMAND, 2, 7);
        legacy[i] = (uint16_t)(pci_config_read(bus, devfn, PCI_BAR0, 4) & ~3u);
        modern[i] = pci_config_read(bus, devfn, PCI_BAR0 + 16, 4) & ~15u;
    }
}

static void machine_begin(void)
{
    struct error err = {""};
    struct irq_line lines[16];
    board_begin();
    memset(images, 0, sizeof(images));
    images[2].read_only = images[3].read_only = true;
    images[0].lends = true;
    for (unsigned i = 0; i < 16; i++)
        lines[i] = (struct irq_line){.set = ignore_irq, .pin = i};
    const struct msi_port msi = {.send = ignore_message};
    bus = i440fx_create(&board, &msi, &err);
    isa = piix3_create(bus, lines, &err);
    const struct virtio_blk_options blk = {.disk = &images[0], .serial = "s"};
    devices[BLK] = virtio_blk_create(bus, PCI_FIRST_FREE, &blk, &err);
    devices[SCSI] = virtio_scsi_create(bus, PCI_FIRST_FREE, QUEUES - 2, &err);
    devices[RNG] = virtio_rng_create(bus, PCI_FIRST_FREE, &err);
    require(isa && devices[BLK] && devices[SCSI] && devices[RNG]);
    for (unsigned i = 0; i < IMAGES - 1; i++) {
        const struct scsi_unit_options options = {
            .disk = &images[i + 1], .cdrom = i == 2, .target = i / 2, .lun = i % 2, .wwn = i};
        units[i] = scsi_unit_create(virtio_scsi_bus(devices[SCSI]), &options, &err);
        require(units[i] != NULL);
    }
    find_bars();
}

static void machine_end(void)
{
    for (unsigned i = IMAGES - 1; i--;)
        units[i]->destroy(units[i]);
    for (unsigned i = DEVICES; i--;)
        devices[i]->dev.destroy(&devices[i]->dev);
    nothing_is_lent(board.map, RAM);
    for (unsigned i = 0; i < IMAGES; i++) /* answers that come too late */
        while (images[i].count)
            answer(&images[i], 0, 0);
    isa->dev.destroy(&isa->dev);
    bus->host->dev.destroy(&bus->host->dev);
    board_end();
}

/* ---- The guest ---------------------------------------------------------------------------------
 */

/* A driver starts as it should, with features of the script's choice. */
static void start(unsigned dev, uint64_t features)
{
    static const uint8_t zeroes[0x1000];
    uint64_t at = modern[dev];
    store(at + 0x14, 0, 1);
    store(at + 0x14, 3, 1);
    store(at + 0x08, 0, 4);
    store(at + 0x0c, features & 0x3fffffff, 4);
    store(at + 0x08, 1, 4);
    store(at + 0x0c, 1, 4);
    store(at + 0x14, 11, 1);
    for (unsigned q = 0; q < queue_counts[dev]; q++) {
        uint64_t area = queue_at(dev, q);
        phys_write(board.map, &guest, area, zeroes, sizeof(zeroes));
        available[dev][q] = 0;
        store(at + 0x16, q, 2);
        store(at + 0x18, dev == RNG ? 8 : SIZE, 2);
        store(at + 0x20, area, 8);
        store(at + 0x28, area + 0x400, 8);
        store(at + 0x30, area + 0x800, 8);
        store(at + 0x1c, 1, 2);
    }
    store(at + 0x14, 15, 1);
}

static void descriptor(uint64_t at, uint64_t gpa, uint64_t len, uint64_t flags, uint64_t next)
{
    store(at, gpa, 8);
    store(at + 8, len, 4);
    store(at + 12, flags, 2);
    store(at + 14, next, 2);
}

static void make_available(unsigned dev, unsigned queue, uint64_t head)
{
    uint64_t area = queue_at(dev, queue);
    unsigned size = dev == RNG ? 8 : SIZE;
    store(area + 0x404 + 2 * (available[dev][queue] % size), head, 2);
    store(area + 0x402, ++available[dev][queue], 2);
    store(modern[dev] + 0x3000 + 4 * queue, queue, 2);
}

/* The unit attentions that a reset leaves, out of the way. */
static void make_ready(void)
{
    for (unsigned i = 0; i < IMAGES - 1; i++) {
        const uint8_t header[51] = {1, (uint8_t)(i / 2), 0, (uint8_t)(i % 2)};
        phys_write(board.map, &guest, HEADERS_AT, header, sizeof(header));
        descriptor(queue_at(SCSI, 2), HEADERS_AT, sizeof(header), 1, 1);
        descriptor(queue_at(SCSI, 2) + 16, ANSWERS_AT, 108, 2, 0);
        make_available(SCSI, 2, 0);
        advance(1000);
    }
}

/* A request's header at `at`; returns its length. */
static unsigned header(struct script *s, unsigned dev, unsigned queue, uint64_t at)
{
    static const uint8_t opcodes[] = {0x00, 0x03, 0x08, 0x0a, 0x12, 0x15, 0x1a, 0x1b, 0x25, 0x28,
                                      0x2a, 0x2f, 0x35, 0x41, 0x42, 0x43, 0x4a, 0x55, 0x5a, 0x88,
                                      0x8a, 0x8f, 0x91, 0x93, 0x9e, 0xa0, 0xa8, 0xaa, 0xaf, 0xbe};
    if (dev == BLK) {
        store(at, take(s, 1) & 15, 4);
        store(at + 8, take(s, 2), 8);
        return 16;
    }
    if (queue < 2) {
        uint64_t what = take(s, 2);
        store(at, what & 3, 4);
        store(at + 4, what >> 2 & 15, 4);
        store(at + 8, 1 | (what >> 6 & 1) << 8 | (what >> 7 & 1) << 24, 8);
        store(at + 16, what >> 8, 8);
        return 24;
    }
    uint64_t where = take(s, 1), lba = take(s, 2) % (DISK_BYTES / 512 + 8), count = take(s, 1);
    uint8_t opcode = opcodes[take(s, 1) % sizeof(opcodes)], cdb[16] = {opcode};
    cdb[1] = where & 4 ? (uint8_t)take(s, 1) : opcode == 0x9e ? 0x10 : 0;
    unsigned lba_at = opcode >> 5 == 0 ? 2 : opcode >> 5 == 4 ? 8 : 4;
    cdb[lba_at] = (uint8_t)(lba >> 8);
    cdb[lba_at + 1] = (uint8_t)lba;
    cdb[opcode >> 5 == 0 ? 4 : opcode >> 5 == 4 ? 13 : opcode >> 5 == 5 ? 9 : 8] = (uint8_t)count;
    if (where & 8)
        cdb[2] = (uint8_t)take(s, 1); /* pages */
    for (unsigned i = 1; i < 16 && !(where & 0x70); i++)
        cdb[i] = (uint8_t)take(s, 1);
    store(at, 1 | (where & 1) << 8 | (where >> 1 & 1) << 24 | (where >> 7) << 22, 8);
    store(at + 8, where >> 2, 8);
    phys_write(board.map, &guest, at + 19, cdb, sizeof(cdb));
    return 51;
}

/* A chain: header, data to the device, answer, data from the device; each may be something else. */
static void request(struct script *s)
{
    uint64_t what = take(s, 2);
    unsigned dev = what & 1, queue = dev ? (what >> 1 & 1 ? 0 : 2 + (what >> 2 & 1)) : 0;
    unsigned slot = what >> 3 & 3, i = 4 * slot;
    bool indirect = what & 0x20;
    uint64_t table = indirect ? INDIRECT_AT + 0x100 * slot : queue_at(dev, queue);
    uint64_t head = HEADERS_AT + 64 * slot, answers = ANSWERS_AT + 256 * slot;
    unsigned len = header(s, dev, queue, head), base = indirect ? 0 : i;
    uint64_t out = what & 0x40 ? take(s, 1) * 64 : 0, in = what & 0x80 ? take(s, 1) * 64 : 0;
    if (dev == BLK && what & 0x400) { /* whole pages may be lent */
        out &= what & 0x40 ? 0x3000 : 0;
        in = what & 0x80 ? 0x1000 + (in & 0x3000) : 0;
    }
    unsigned answer_len = dev == BLK ? 1 : queue ? 108 : 5;
    if (dev == BLK) { /* the status byte is last */
        descriptor(table + 16 * base, head, len, 1, base + 1);
        descriptor(table + 16 * (base + 1), DATA_AT, out, 1, base + 2);
        descriptor(table + 16 * (base + 2), DATA_AT, in, 3, base + 3);
        descriptor(table + 16 * (base + 3), answers, answer_len, 2, 0);
    } else {
        descriptor(table + 16 * base, head, len, 1, base + (out ? 1 : 2));
        descriptor(table + 16 * (base + 1), DATA_AT, out, 1, base + 2);
        descriptor(table + 16 * (base + 2), answers, answer_len, in ? 3 : 2, base + 3);
        descriptor(table + 16 * (base + 3), DATA_AT, in, 2, 0);
    }
    if (what & 0x300) { /* a field of the table is something else */
        uint64_t field = take(s, 1) & 63;
        store(table + 16 * base + field, take(s, 8), 1u << (what >> 8 & 3));
    }
    if (indirect)
        descriptor(queue_at(dev, queue) + 16 * i, table, 64, 4, 0);
    make_available(dev, queue, i);
}

static void registers(struct script *s)
{
    uint64_t what = take(s, 1), offset = take(s, 2);
    unsigned dev = what % DEVICES, size = 1u << (what >> 2 & 3);
    uint64_t at = modern[dev] + (what & 0x40 ? offset & 0x3f : offset & 0x3fff);
    uint16_t port = (uint16_t)(legacy[dev] + (offset & 63));
    switch (what >> 4 & 3) {
    case 0:
        store(at, take(s, size > 4 ? 8 : size), size);
        break;
    case 1:
        load(at, size);
        break;
    case 2:
        io_write(board.io, &guest, port, size > 4 ? 4 : size, (uint32_t)take(s, 4));
        break;
    default:
        io_read(board.io, &guest, port, size > 4 ? 4 : size);
    }
}

static void configuration_space(struct script *s)
{
    uint64_t what = take(s, 1), offset = take(s, 1) & 0xfc;
    uint8_t devfn = devices[what % DEVICES]->devfn;
    if (what & 0x80)
        pci_config_read(bus, devfn, (unsigned)offset, 4);
    else
        pci_config_write(bus, devfn, (unsigned)offset, 4, (uint32_t)take(s, 4));
}

static void reset(void)
{
    for (unsigned i = 0; i < DEVICES; i++)
        devices[i]->dev.reset(&devices[i]->dev);
    for (unsigned i = 0; i < IMAGES - 1; i++)
        units[i]->reset(units[i]);
    nothing_is_lent(board.map, RAM);
    find_bars();
}

static void one_step(struct script *s)
{
    static const int errors[] = {0, 0, 0, 0, -EIO, -ENOSPC, -ENOMEM, 0};
    uint64_t what = take(s, 1), n;
    struct blockdev *image = &images[what >> 4 & 3];
    switch (what & 15) {
    case 0:
        n = take(s, 1);
        start((unsigned)n % DEVICES, n & 4 ? take(s, 4) : 0x30000a00);
        if (n % DEVICES == SCSI)
            make_ready();
        break;
    case 1:
        registers(s);
        break;
    case 2:
        configuration_space(s);
        break;
    case 3:
        n = QUEUES_AT + take(s, 2) % 0x3000 * 8;
        store(n, take(s, 8), 8);
        break;
    case 4:
        n = take(s, 2);
        make_available(n % DEVICES, (n >> 2) % QUEUES, n >> 4);
        break;
    case 5:
    case 6:
    case 7:
        for (n = what >> 6; image->count; n--) {
            answer(image, (unsigned)take(s, 1) % image->count, errors[what & 7]);
            if (!n)
                break;
        }
        break;
    case 8:
        if ((take(s, 1) & 0xf0) == 0x50)
            reset();
        break;
    case 9:
        n = take(s, 1) % (DEVICES + IMAGES - 1);
        restore(n < DEVICES ? &devices[n]->dev : units[n - DEVICES], s);
        break;
    case 10:
        for (n = 0; n < 8; n++) /* contents of requests: lists, pages */
            store(DATA_AT + 8 * n, take(s, 8), 8);
        break;
    default:
        request(s);
        if (what & 0x80)
            return; /* the next one comes before the device looks */
    }
    advance(1000);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct script s = {data, data + size};
    machine_begin();
    for (unsigned i = 0; i < DEVICES; i++)
        start(i, 0x30000a00);
    make_ready();
    for (unsigned i = 0; i < STEPS && s.at < s.end; i++)
        one_step(&s);
    machine_end();
    return 0;
}
