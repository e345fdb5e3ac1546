/*
 * ide.c - a disk on PIIX3's IDE channel 0 and an empty CD-ROM drive on channel 1, as a driver meets
 * them: found by polling, read and written by PIO and by the bus master, with interrupts and
 * without (ATA/ATAPI-7; 82371SB data sheet, 2.7).
 *
 * guest devices: -drive file=ZEROS,if=ide,index=0,format=raw,snapshot=on
 * guest devices: -drive if=ide,index=2,media=cdrom
 */
#include "pci.h"

enum { IDE = 1 << 3 | 1, SECTOR = 512, V = 0x61 };
enum { DATA, FEATURE, COUNT, LBA0, LBA1, LBA2, DEVICE, COMMAND };
enum { BSY = 0x80, DRDY = 0x40, DRQ = 0x08, ERR = 0x01 };
enum { NIEN = 2, SRST = 4 };
enum { BM_COMMAND, BM_STATUS = 2, BM_TABLE = 4 };
enum { DISK = 0x1f0, CDROM = 0x170 };

static uint8_t out[64 * SECTOR] __attribute__((aligned(4096)));
static uint8_t in[64 * SECTOR] __attribute__((aligned(4096)));
static volatile struct prd {
    uint32_t address, size_and_last;
} prds[8] __attribute__((aligned(64)));

static uint8_t alt_status(uint16_t base)
{
    return inb((uint16_t)(base + 0x206));
}

/* The status when BSY is gone; BSY when it stays. */
static uint8_t wait(uint16_t base)
{
    uint8_t status = alt_status(base);
    for (uint64_t end = rdtsc() + FOREVER; status & BSY && rdtsc() < end;)
        status = alt_status(base);
    return status;
}

static void set(uint16_t base, unsigned drive, uint32_t lba, uint8_t count)
{
    outb((uint16_t)(base + DEVICE), (uint8_t)(0xe0 | drive << 4 | lba >> 24));
    outb((uint16_t)(base + COUNT), count);
    for (unsigned i = 0; i < 3; i++)
        outb((uint16_t)(base + LBA0 + i), (uint8_t)(lba >> 8 * i));
}

static void read_data(uint16_t base, void *to, unsigned words)
{
    asm volatile("rep insw" : "+D"(to), "+c"(words) : "d"(base) : "memory");
}

static void write_data(uint16_t base, const void *from, unsigned words)
{
    asm volatile("rep outsw" : "+S"(from), "+c"(words) : "d"(base) : "memory");
}

static void fill(unsigned seed)
{
    for (unsigned i = 0; i < sizeof(out); i++)
        out[i] = (uint8_t)(i * 7 + i / SECTOR + seed);
}

static bool same(unsigned len)
{
    for (unsigned i = 0; i < len; i++)
        if (in[i] != out[i])
            return false;
    return true;
}

static bool pio_write(uint32_t lba, unsigned sectors)
{
    set(DISK, 0, lba, (uint8_t)sectors);
    outb(DISK + COMMAND, 0x30);
    for (unsigned i = 0; i < sectors; i++) {
        if ((wait(DISK) & (BSY | DRQ | ERR)) != DRQ)
            return false;
        write_data(DISK, out + i * SECTOR, SECTOR / 2);
    }
    return (wait(DISK) & (BSY | DRQ | ERR)) == 0;
}

static bool pio_read(uint32_t lba, unsigned sectors)
{
    set(DISK, 0, lba, (uint8_t)sectors);
    outb(DISK + COMMAND, 0x20);
    for (unsigned i = 0; i < sectors; i++) {
        if ((wait(DISK) & (BSY | DRQ | ERR)) != DRQ)
            return false;
        read_data(DISK, in + i * SECTOR, SECTOR / 2);
    }
    return (wait(DISK) & (BSY | DRQ | ERR)) == 0;
}

static uint16_t bus_master(void)
{
    pci_write16(IDE, PCI_COMMAND, COMMAND_IO | COMMAND_MASTER);
    return (uint16_t)pci_bar(IDE, 4);
}

/* All of a buffer in three descriptors of different sizes. */
static void describe(const void *buffer, unsigned len)
{
    uint32_t at = (uint32_t)(uintptr_t)buffer;
    prds[0] = (struct prd){at, 1024};
    prds[1] = (struct prd){at + 1024, 4096};
    prds[2] = (struct prd){at + 5120, (len - 5120) | 0x80000000u};
}

static bool dma(uint32_t lba, unsigned sectors, bool write, bool by_interrupt)
{
    uint16_t bm = bus_master();
    describe(write ? out : in, sectors * SECTOR);
    outb((uint16_t)(bm + BM_COMMAND), 0);
    outb((uint16_t)(bm + BM_STATUS), 6);
    outl((uint16_t)(bm + BM_TABLE), (uint32_t)(uintptr_t)prds);
    set(DISK, 0, lba, (uint8_t)sectors);
    outb(DISK + COMMAND, write ? 0xca : 0xc8);
    outb((uint16_t)(bm + BM_COMMAND), write ? 1 : 9);
    if (by_interrupt) {
        if (!wait_hits(V, 1))
            return false;
    } else {
        for (uint64_t end = rdtsc() + FOREVER;
             !(inb((uint16_t)(bm + BM_STATUS)) & 4) && rdtsc() < end;)
            asm volatile("pause");
    }
    bool ok = (inb((uint16_t)(bm + BM_STATUS)) & 7) == 4;
    outb((uint16_t)(bm + BM_COMMAND), 0);
    return ok && (inb(DISK + COMMAND) & (BSY | DRQ | ERR)) == 0;
}

TEST(found)
{
    CHECK_EQ(pci_read32(IDE, PCI_ID), 0x70108086);
    CHECK_EQ(pci_read32(IDE, PCI_REVISION) >> 8, 0x010180);
    outb(DISK + 0x206, NIEN);
    outb(CDROM + 0x206, NIEN);
    outb(DISK + DEVICE, 0xb0); /* no slave */
    CHECK_EQ(inb(DISK + COMMAND), 0);
    outb(DISK + DEVICE, 0xa0);
    CHECK_EQ(wait(DISK) & (BSY | DRDY), DRDY);
    outb(DISK + COMMAND, 0xec);
    CHECK_EQ(wait(DISK) & (BSY | DRQ | ERR), DRQ);
    read_data(DISK, in, SECTOR / 2);
    CHECK_EQ(((uint16_t *)in)[60] | (uint32_t)((uint16_t *)in)[61] << 16, (1 << 20) / SECTOR);
    outb(CDROM + DEVICE, 0xa0);
    outb(CDROM + COMMAND, 0xec);
    CHECK_EQ(wait(CDROM) & (BSY | ERR), ERR);
    CHECK_EQ(inb(CDROM + LBA1), 0x14);
    CHECK_EQ(inb(CDROM + LBA2), 0xeb);
}

TEST(software_reset)
{
    outb(DISK + 0x206, NIEN | SRST);
    outb(DISK + 0x206, NIEN);
    CHECK_EQ(wait(DISK) & (BSY | DRDY | ERR), DRDY);
    CHECK_EQ(inb(DISK + FEATURE), 1);
    CHECK_EQ(inb(DISK + COUNT), 1);
    CHECK_EQ(inb(DISK + LBA0), 1);
    CHECK_EQ(inb(DISK + LBA1) | inb(DISK + LBA2), 0);
}

TEST(pio_and_dma_see_the_same)
{
    outb(DISK + 0x206, NIEN);
    fill(1);
    CHECK(pio_write(100, 32));
    CHECK(pio_read(100, 32));
    CHECK(same(32 * SECTOR));
    outb(DISK + 0x206, 0);
    memset(in, 0, sizeof(in));
    CHECK(dma(100, 32, false, false));
    CHECK(same(32 * SECTOR));
    fill(99);
    CHECK(dma(200, 64, true, false));
    outb(DISK + 0x206, NIEN);
    CHECK(pio_read(200, 64));
    CHECK(same(64 * SECTOR));
    outb(DISK + COMMAND, 0xe7); /* FLUSH CACHE */
    CHECK_EQ(wait(DISK) & (BSY | ERR), 0);
}

/* Interrupt 14 is an edge; the drive holds it until its status is read. */
TEST(interrupts)
{
    outb(DISK + 0x206, 0);
    inb(DISK + COMMAND);
    apic_quiet();
    count_hits(0x20, 0xef, apic_eoi);
    ioapic_entry(14, 0, V);
    fill(7);
    CHECK(dma(300, 64, true, true));
    CHECK_EQ(hits[V], 1);
    count_hits(0x20, 0xef, apic_eoi);
    memset(in, 0, sizeof(in));
    CHECK(dma(300, 64, false, true));
    CHECK_EQ(hits[V], 1);
    CHECK(same(64 * SECTOR));
    count_hits(0x20, 0xef, apic_eoi);
    set(DISK, 0, 300, 2);
    outb(DISK + COMMAND, 0x20);
    for (unsigned i = 0; i < 2; i++) { /* one for each sector */
        CHECK(wait_hits(V, i + 1));
        CHECK_EQ(inb(DISK + COMMAND) & (BSY | DRQ | ERR), DRQ);
        read_data(DISK, in, SECTOR / 2);
    }
    let_in();
    CHECK_EQ(hits[V], 2);
    ioapic_entry(14, 0, ENTRY_MASKED);
}

TEST(errors)
{
    outb(DISK + 0x206, NIEN);
    set(DISK, 0, (1 << 20) / SECTOR, 1); /* the first that is not there */
    outb(DISK + COMMAND, 0x20);
    CHECK(wait(DISK) & ERR);
    CHECK(inb(DISK + FEATURE) != 0);
    set(DISK, 0, 0, 1);
    outb(DISK + COMMAND, 0xfe);
    CHECK(wait(DISK) & ERR);
    CHECK_EQ(inb(DISK + FEATURE), 4);
    CHECK(pio_read(0, 1)); /* and it goes on */
}

/* Bytes of the packet command's reply; -1 with CHK. */
static int packet(const uint8_t *cdb)
{
    int got = 0;
    uint8_t status;
    outb(CDROM + DEVICE, 0xa0);
    outb(CDROM + FEATURE, 0);
    outb(CDROM + LBA1, 0);
    outb(CDROM + LBA2, 8);
    outb(CDROM + COMMAND, 0xa0);
    CHECK_EQ(wait(CDROM) & (BSY | DRQ), DRQ);
    write_data(CDROM, cdb, 6);
    while ((status = wait(CDROM)) & DRQ) {
        unsigned bytes = inb(CDROM + LBA1) | inb(CDROM + LBA2) << 8;
        CHECK(got + bytes <= sizeof(in));
        read_data(CDROM, in + got, (bytes + 1) / 2);
        got += (int)bytes;
    }
    return status & ERR ? -1 : got;
}

TEST(packets)
{
    static const uint8_t ready[12] = {0}, inquiry[12] = {0x12, 0, 0, 0, 36},
                         sense[12] = {3, 0, 0, 0, 18};
    outb(CDROM + 0x206, NIEN);
    CHECK_EQ(packet(inquiry), 36);
    CHECK_EQ(in[0], 5);
    CHECK_EQ(packet(ready), -1); /* the tray is empty */
    CHECK_EQ(inb(CDROM + FEATURE) >> 4, 2);
    CHECK_EQ(packet(sense), 18);
    CHECK_EQ(in[2], 2);
    CHECK_EQ(in[12], 0x3a);
}

const struct test guest_tests[] = {T(found),      T(software_reset), T(pio_and_dma_see_the_same),
                                   T(interrupts), T(errors),         T(packets),
                                   {0, 0}};
