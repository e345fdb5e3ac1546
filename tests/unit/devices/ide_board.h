/*
 * ide_board.h - PIIX3's IDE function on a board: a disk as master of channel 0, a CD-ROM drive as
 * master of channel 1, and the driver's side of their registers. Included by one test program each.
 */
#ifndef TEST_IDE_BOARD_H
#define TEST_IDE_BOARD_H

#include "pci_board.h"

#include "fake_disk.h"
#include "internal/ata.h"

enum { DATA, FEATURE, COUNT, LBA0, LBA1, LBA2, DEVICE, COMMAND }; /* reading: ERROR, STATUS */
enum { BSY = 0x80, DRDY = 0x40, DSC = 0x10, DRQ = 0x08, ERR = 0x01 };
enum { ABRT = 0x04, IDNF = 0x10, UNC = 0x40 };
enum { NIEN = 2, SRST = 4, HOB = 0x80 };
enum { LBA_MODE = 0xe0, SLAVE = 0x10 };
enum { BM_COMMAND = 0, BM_STATUS = 2, BM_TABLE = 4 };
#define IDE0     0x1f0
#define IDE1     0x170
#define TABLE_AT 0x10000
#define DATA_AT  0x100000

static struct blockdev hard_disk, disc;
static struct pci_device *ide;
static struct device *disk_drive, *cd_drive, *slave_drive;
static uint16_t bm; /* of channel 0; channel 1 is 8 further */

static void ide_setup(void)
{
    struct error err = {""};
    board_setup();
    disk_init(&hard_disk);
    disk_init(&disc);
    disc.read_only = true;
    slave_drive = NULL;
    const struct irq_line irqs[2] = {{.set = record_irq, .pin = 14},
                                     {.set = record_irq, .pin = 15}};
    ide = piix3_ide_create(bus, irqs, &err);
    ck_assert_msg(ide != NULL, "%s", err.msg);
    const struct ata_drive_options disk_options = {.disk = &hard_disk, .number = 1, .wwn = 0x5000};
    const struct ata_drive_options cd_options = {.cdrom = true, .disk = &disc, .number = 3};
    disk_drive = ata_drive_create(piix3_ide_host(ide, 0), 0, &disk_options, &err);
    cd_drive = ata_drive_create(piix3_ide_host(ide, 1), 0, &cd_options, &err);
    ck_assert_msg(disk_drive && cd_drive, "%s", err.msg);
    ck_assert(pci_assign_resources(bus, MEM_WINDOW, MEM_END, &err));
    config_out(PCI_DEVFN(1, 1), PCI_COMMAND, 2, 7);
    bm = (uint16_t)(config_in(PCI_DEVFN(1, 1), PCI_BAR0 + 16, 4) & ~3u);
}

static void ide_teardown(void)
{
    disk_settle(&hard_disk);
    disk_settle(&disc);
    if (slave_drive)
        slave_drive->destroy(slave_drive);
    if (disk_drive)
        disk_drive->destroy(disk_drive);
    cd_drive->destroy(cd_drive);
    ide->dev.destroy(&ide->dev);
    board_teardown();
}

static inline uint8_t status_of(uint16_t base)
{
    return (uint8_t)inp((uint16_t)(base + 0x206), 1); /* the alternate one */
}

/* 28-bit registers. */
static inline void set_registers(uint16_t base, uint8_t feature, uint8_t count, uint32_t lba)
{
    outp(base + DEVICE, 1, LBA_MODE | (lba >> 24 & 15));
    outp(base + FEATURE, 1, feature);
    outp(base + COUNT, 1, count);
    for (unsigned i = 0; i < 3; i++)
        outp((uint16_t)(base + LBA0 + i), 1, lba >> 8 * i & 0xff);
}

/* 48-bit registers, each of which is written twice. */
static inline void set_registers_48(uint16_t base, uint16_t count, uint64_t lba)
{
    outp(base + DEVICE, 1, LBA_MODE);
    outp(base + COUNT, 1, count >> 8);
    outp(base + COUNT, 1, count & 0xff);
    for (unsigned i = 0; i < 3; i++) {
        outp((uint16_t)(base + LBA0 + i), 1, lba >> 8 * (i + 3) & 0xff);
        outp((uint16_t)(base + LBA0 + i), 1, lba >> 8 * i & 0xff);
    }
}

static inline uint32_t lba_of(uint16_t base)
{
    uint32_t lba = 0;
    for (unsigned i = 0; i < 3; i++)
        lba |= inp((uint16_t)(base + LBA0 + i), 1) << 8 * i;
    return lba | (inp(base + DEVICE, 1) & 15) << 24;
}

static inline struct blockdev *disk_of(uint16_t base)
{
    return base == IDE0 ? &hard_disk : &disc;
}

/* Gives the command and lets the image do its part; the status is returned, and acknowledged. */
static inline uint8_t command(uint16_t base, uint8_t number)
{
    outp(base + COMMAND, 1, number);
    disk_settle(disk_of(base));
    return (uint8_t)inp(base + COMMAND, 1);
}

static inline void read_words(uint16_t base, uint8_t *to, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i += 2) {
        uint16_t word = (uint16_t)inp(base, 2);
        memcpy(to + i, &word, 2);
        disk_settle(disk_of(base));
    }
}

static inline void write_words(uint16_t base, const uint8_t *from, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i += 2) {
        outp(base, 2, from[i] | (uint32_t)from[i + 1] << 8);
        disk_settle(disk_of(base));
    }
}

static inline void set_prd(unsigned n, uint32_t address, uint32_t flags_and_count)
{
    mem_out(TABLE_AT + 8 * n, 4, address);
    mem_out(TABLE_AT + 8 * n + 4, 4, flags_and_count);
}
#define LAST 0x80000000u

/* Starts the bus master of a channel on the table. */
static inline void start_engine(unsigned channel, bool to_memory)
{
    outp((uint16_t)(bm + 8 * channel + BM_STATUS), 1, 6);
    outp((uint16_t)(bm + 8 * channel + BM_TABLE), 4, TABLE_AT);
    outp((uint16_t)(bm + 8 * channel), 1, to_memory ? 9 : 1);
}

#endif
