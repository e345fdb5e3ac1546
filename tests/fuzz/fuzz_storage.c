/*
 * fuzz_storage.c - the IDE and AHCI controllers with disks and CD-ROM drives behind them, met by a
 * hostile guest: any store and load to their registers, descriptors and command lists that mean
 * something and that do not, an image that answers late, in any order, or fails, and resets at any
 * time.
 *
 * The input is a script. Whatever it says, every request at the image lies on the disk and in
 * memory of its own, a queue is never longer than its depth, and all requests are answered before
 * or after the drives are gone. AddressSanitizer watches the rest.
 */
#include "internal/ata.h"
#include "internal/clock.h"
#include "internal/error.h"
#include "internal/event.h"
#include "internal/log.h"
#include "tests/fuzz/restore.h"
#include "tests/fuzz/script.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WAITING = 64 };
#include "images.h"

enum { RAM = 1 << 20, STEPS = 400, DISKS = 4 };
#define AHCI_DEVFN PCI_DEVFN(4, 0)
#define IDE_DEVFN  PCI_DEVFN(1, 1)
#define LIST_AT    0x1000
#define FIS_AT     0x2000
#define TABLE_AT   0x4000 /* command tables, 100h each; PRD tables of the bus master */

/* ---- The machine -------------------------------------------------------------------------------
 */

struct machine {
    pthread_mutex_t lock;
    struct log log;
    struct board board;
    struct pci_bus *bus;
    struct pci_device *isa, *ide, *ahci;
    struct device *drives[DISKS];
    struct blockdev images[DISKS];
    uint16_t bm, idp;
    uint32_t abar;
};

static const struct access cpu_access = {.initiator = INITIATOR_VCPU_KERNEL};

static void ignore_irq(void *opaque, unsigned pin, bool level)
{
    (void)opaque, (void)pin, (void)level;
}
static void ignore_message(void *opaque, uint64_t address, uint32_t data)
{
    (void)opaque, (void)address, (void)data;
}

static void find_bars(struct machine *m)
{
    struct error err = {""};
    require(pci_assign_resources(m->bus, 0xe0000000, 0xfec00000, &err));
    pci_config_write(m->bus, IDE_DEVFN, PCI_COMMAND, 2, 7);
    pci_config_write(m->bus, AHCI_DEVFN, PCI_COMMAND, 2, 7);
    m->bm = (uint16_t)(pci_config_read(m->bus, IDE_DEVFN, PCI_BAR0 + 16, 4) & ~3u);
    m->idp = (uint16_t)(pci_config_read(m->bus, AHCI_DEVFN, PCI_BAR0 + 16, 4) & ~3u);
    m->abar = pci_config_read(m->bus, AHCI_DEVFN, PCI_BAR0 + 20, 4);
}

static void make_drives(struct machine *m)
{
    struct error err = {""};
    for (unsigned i = 0; i < DISKS; i++) {
        const struct ata_drive_options options = {
            .cdrom = i & 1, .disk = &m->images[i], .number = i};
        m->images[i].read_only = i & 1;
        m->images[i].lends = true;
        struct ata_host *host = i < 2 ? piix3_ide_host(m->ide, 0) : ahci_host(m->ahci, i - 2);
        m->drives[i] = ata_drive_create(host, i < 2 ? i : 0, &options, &err);
        require(m->drives[i] != NULL);
    }
}

static void machine_init(struct machine *m)
{
    struct error err = {""};
    struct irq_line lines[16];
    memset(m, 0, sizeof(*m));
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&m->lock, &attr);
    m->log = (struct log){.out = stderr};
    m->board = (struct board){.lock = &m->lock, .log = &m->log};
    m->board.map = phys_new(&m->lock, &m->log);
    m->board.io = io_space_new(&m->lock, &m->log);
    struct ram_block *ram = phys_ram_new(m->board.map, RAM, &err);
    require(ram && phys_add_ram(m->board.map, 0, RAM, ram, 0, "ram", &err));
    for (unsigned i = 0; i < 16; i++)
        lines[i] = (struct irq_line){.set = ignore_irq, .pin = i};
    const struct msi_port msi = {.send = ignore_message};
    m->bus = i440fx_create(&m->board, &msi, &err);
    m->isa = piix3_create(m->bus, lines, &err);
    m->ide = piix3_ide_create(m->bus, lines + 14, &err);
    m->ahci = ahci_create(m->bus, AHCI_DEVFN, &err);
    require(m->isa && m->ide && m->ahci);
    make_drives(m);
    find_bars(m);
}

static void machine_free(struct machine *m)
{
    for (unsigned i = 0; i < DISKS; i++)
        m->drives[i]->destroy(m->drives[i]);
    nothing_is_lent(m->board.map, RAM);
    for (unsigned i = 0; i < DISKS; i++) /* answers that come too late */
        while (m->images[i].count)
            answer(&m->images[i], 0, 0);
    m->ahci->dev.destroy(&m->ahci->dev);
    m->ide->dev.destroy(&m->ide->dev);
    m->isa->dev.destroy(&m->isa->dev);
    m->bus->host->dev.destroy(&m->bus->host->dev);
    io_space_free(m->board.io);
    phys_free(m->board.map);
    pthread_mutex_destroy(&m->lock);
}

/* ---- The guest ---------------------------------------------------------------------------------
 */

static void store(struct machine *m, uint64_t gpa, uint64_t value, unsigned size)
{
    phys_write(m->board.map, &cpu_access, gpa, &value, size);
}
static void load(struct machine *m, uint64_t gpa, unsigned size)
{
    uint64_t value = 0;
    phys_read(m->board.map, &cpu_access, gpa, &value, size);
}

static unsigned size_of(uint64_t v)
{
    return 1u << v % 3;
}

static uint16_t some_port(const struct machine *m, uint64_t v)
{
    static const uint16_t bases[] = {0x1f0, 0x170, 0x3f6, 0x376};
    unsigned which = v >> 5 & 7;
    if (which < 4)
        return (uint16_t)(bases[which] + (v & 7));
    return (uint16_t)((which & 1 ? m->idp : m->bm) + (v & 31));
}

static void descriptors(struct machine *m, struct script *s)
{
    unsigned count = take(s, 1) % 5;
    for (unsigned i = 0; i <= count; i++) {
        uint64_t flags = take(s, 1);
        store(m, TABLE_AT + 8 * i, flags & 1 ? take(s, 4) : 0x20000 + 0x8000 * i, 4);
        uint64_t size = take(s, 2) & (flags & 4 ? 0xf000 : 0xffff); /* whole pages may be lent */
        store(m, TABLE_AT + 8 * i + 4, (i == count || flags & 2 ? 0x80000000u : 0) | size, 4);
    }
}

/* A command in the IDE registers, 28 or 48 bits of address, perhaps with its bus master. */
static void ide_command(struct machine *m, struct script *s)
{
    struct io_space *io = m->board.io;
    uint64_t flags = take(s, 1), lba = take(s, 2) % (DISK_BYTES / 512 + 16);
    io_write(io, &cpu_access, 0x1f6, 1, 0xe0 | (flags & 0x10));
    io_write(io, &cpu_access, 0x1f1, 1, take(s, 1));
    bool pages = flags & 0x40; /* whole ones by DMA, whose memory may be lent */
    for (unsigned twice = flags & 1; twice <= 1; twice++)
        io_write(io, &cpu_access, 0x1f2, 1,
                 pages && twice ? 8 + (take(s, 1) & 0x38) : take(s, 1) & (twice ? 0xff : 1));
    for (unsigned i = 0; i < 3; i++) {
        if (flags & 2)
            io_write(io, &cpu_access, (uint16_t)(0x1f3 + i), 1, 0);
        io_write(io, &cpu_access, (uint16_t)(0x1f3 + i), 1, lba >> 8 * i & 0xff);
    }
    io_write(io, &cpu_access, 0x1f7, 1, !pages ? take(s, 1) : flags & 8 ? 0xc8 : 0xca);
    if (pages)
        descriptors(m, s);
    if (flags & 4) {
        io_write(io, &cpu_access, m->bm, 1, 0);
        io_write(io, &cpu_access, m->bm + 4, 4, TABLE_AT);
        io_write(io, &cpu_access, m->bm, 1, 1 | (flags & 8));
    }
    for (uint64_t n = flags & 0x20 ? 6 : 0; n; n--)
        io_write(io, &cpu_access, 0x1f0, 2, take(s, 2));
}

static void pio(struct machine *m, struct script *s)
{
    uint64_t what = take(s, 1);
    for (uint64_t n = take(s, 1) + 1; n; n--) {
        if (what & 1)
            io_write(m->board.io, &cpu_access, 0x1f0, size_of(what >> 1), n);
        else
            io_read(m->board.io, &cpu_access, 0x1f0, size_of(what >> 1));
    }
}

/* A slot of an AHCI port: header, command FIS, packet, descriptors; then it is issued. */
static void ahci_command(struct machine *m, struct script *s)
{
    unsigned port = take(s, 1) & 1, slot = take(s, 1) & 31, entries = take(s, 1) % 4;
    uint64_t flags = take(s, 1), base = m->abar + 0x100 + 0x80 * port;
    uint64_t header = LIST_AT + 0x400 * port + 32 * slot, table = TABLE_AT + 0x100 * slot;
    uint64_t lba = take(s, 2) % (DISK_BYTES / 512 + 16);
    store(m, header, 5 | entries << 16, 4);
    store(m, header + 8, flags & 1 ? take(s, 4) : table, 8);
    const bool pages = flags & 8; /* two, whose memory may be lent; queued or not */
    const uint8_t fis[16] = {0x27,
                             flags & 2 ? 0 : 0x80,
                             pages ? (flags & 32 ? 0x60 : 0xc8) | (flags & 1) : take(s, 1),
                             pages && flags & 32 ? 16 : take(s, 1),
                             (uint8_t)lba,
                             (uint8_t)(lba >> 8),
                             0,
                             0x40,
                             0,
                             0,
                             0,
                             pages ? 0 : flags & 4,
                             pages ? 16 : take(s, 1),
                             pages ? 0 : flags >> 3 & 1,
                             0,
                             flags & 16 ? 4 : 0};
    for (unsigned i = 0; i < 16; i++)
        store(m, table + i, i == 12 && flags & 32 ? slot << 3 : fis[i], 1);
    for (unsigned i = 0; i < 12 && flags & 64; i++)
        store(m, table + 0x40 + i, take(s, 1), 1);
    for (unsigned i = 0; i < entries; i++) {
        store(m, table + 0x80 + 16 * i, 0x20000 + 0x4000 * i, 8);
        store(m, table + 0x80 + 16 * i + 12, take(s, 3) | (pages ? 0x1fff : 0), 4);
    }
    store(m, base + 0x00, LIST_AT + 0x400 * port, 4);
    store(m, base + 0x08, FIS_AT, 4);
    if (flags & 128)
        store(m, base + 0x18, 0x10, 4);
    store(m, base + 0x18, 0x11, 4);
    store(m, base + 0x34, 1u << slot, 4);
    store(m, base + 0x38, 1u << slot, 4);
}

static void reset(struct machine *m)
{
    m->ide->dev.reset(&m->ide->dev);
    m->ahci->dev.reset(&m->ahci->dev);
    for (unsigned i = 0; i < DISKS; i++)
        m->drives[i]->reset(m->drives[i]);
    nothing_is_lent(m->board.map, RAM);
    find_bars(m);
}

static void restore_some(struct machine *m, unsigned which, struct script *s)
{
    for (unsigned i = 0; i < DISKS; i++)
        while (m->images[i].count)
            answer(&m->images[i], 0, 0);
    restore(which < DISKS ? m->drives[which] : which == DISKS ? &m->ide->dev : &m->ahci->dev, s);
}

static void one_step(struct machine *m, struct script *s)
{
    uint64_t what = take(s, 1), n;
    struct blockdev *image;
    struct error err;
    switch (what & 15) {
    case 0:
        n = take(s, 1);
        io_write(m->board.io, &cpu_access, some_port(m, n), size_of(what >> 4),
                 (uint32_t)take(s, 4));
        break;
    case 1:
        io_read(m->board.io, &cpu_access, some_port(m, take(s, 1)), size_of(what >> 4));
        break;
    case 2:
        n = take(s, 2) & 0x3fc;
        store(m, m->abar + n, take(s, 4), 4);
        break;
    case 3:
        load(m, m->abar + (take(s, 2) & 0xfff), 1u << (what >> 4 & 3));
        break;
    case 4:
        n = take(s, 2);
        store(m, n, take(s, 8), 8);
        break;
    case 5:
    case 6:
    case 7:
        image = &m->images[what >> 4 & 3];
        if (image->count)
            answer(image, (unsigned)take(s, 1) % image->count, what & 0x40 ? -EIO : 0);
        break;
    case 8:
    case 9:
        ide_command(m, s);
        break;
    case 10:
        pio(m, s);
        break;
    case 11:
        descriptors(m, s);
        break;
    case 12:
    case 13:
        ahci_command(m, s);
        break;
    case 14:
        n = take(s, 1);
        pci_config_write(m->bus, what & 0x80 ? AHCI_DEVFN : IDE_DEVFN, n & 0xfc, 4,
                         (uint32_t)take(s, 4));
        break;
    default:
        n = take(s, 1);
        if ((n & 0xf0) == 0x50)
            reset(m);
        else if (n >= 0x80) /* a state is saved and restored without requests at images */
            restore_some(m, n & 7, s);
        else if (n < 0x10) /* somebody changes a disc; drives 1 and 3 have one */
            ata_drive_change(m->drives[n & 2 ? 3 : 1], n & 4 ? &m->images[n & 2 ? 3 : 1] : NULL,
                             n & 8, &err);
    }
    for (unsigned i = 0; i < DISKS; i++)
        require(m->images[i].count <= 32);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct script s = {data, data + size};
    static struct machine m;
    machine_init(&m);
    for (unsigned i = 0; i < STEPS && s.at < s.end; i++)
        one_step(&m, &s);
    machine_free(&m);
    return 0;
}
