/*
 * virtio_blk.c - a virtio disk through both of its interfaces: negotiation, reads, writes, flushes,
 * what is refused, MSI-X and INTx (virtio 1.2, 3.1, 4.1, 5.2).
 *
 * guest devices: -drive file=ZEROS,if=none,id=d,format=raw,snapshot=on
 * guest devices: -device virtio-blk-pci,drive=d,serial=BAILEY-0123456789-ABCDEF
 */
#include "blk.h"

enum { V = 0x61, SECTORS = 2048 };

static struct virtio disk;
static uint8_t buffer[64 * SECTOR] __attribute__((aligned(4096)));
static uint8_t pattern[64 * SECTOR] __attribute__((aligned(4096)));

static void fill(uint8_t *p, uint32_t seed, uint32_t len)
{
    for (uint32_t i = 0; i < len; i++) {
        seed = seed * 1103515245 + 12345;
        p[i] = (uint8_t)(seed >> 16);
    }
}

static bool start(enum interface interface, uint64_t features)
{
    apic_quiet();
    count_hits(0x20, 0xef, apic_eoi);
    return virtio_open(&disk, VIRTIO_BLK, 0) && virtio_start(&disk, interface, features);
}
#define START(interface, features)                                                                 \
    do {                                                                                           \
        bool started_ = start(interface, features);                                                \
        CHECK(started_);                                                                           \
        if (!started_)                                                                             \
            return;                                                                                \
    } while (0)

#define CHECK_MEM(a, b, len) CHECK_EQ(memcmp(a, b, len), 0)

/* ---- Negotiation --------------------------------------------------------------------------------
 */

TEST(identity)
{
    CHECK(virtio_open(&disk, VIRTIO_BLK, 0));
    CHECK_EQ(pci_read8(disk.devfn, PCI_REVISION), 0); /* transitional */
    CHECK_EQ(pci_read32(disk.devfn, PCI_SUBSYSTEM) >> 16, 2);
    CHECK_EQ(pci_read8(disk.devfn, 0x0b), 1); /* a mass storage controller */
    CHECK(disk.io && disk.common && disk.notify && disk.isr && disk.config && disk.window);
    CHECK_EQ(c_read16(&disk, C_NUM_QUEUES), 1);
}

TEST(negotiation)
{
    CHECK(virtio_open(&disk, VIRTIO_BLK, 0));
    disk.interface = MODERN;
    uint64_t offered = virtio_offered(&disk);
    CHECK_EQ(offered & F_VERSION_1, F_VERSION_1);
    CHECK_EQ(offered & BLK_F_FLUSH, BLK_F_FLUSH);
    CHECK_EQ(offered & BLK_F_RO, 0);
    c_write32(&disk, C_DEVICE_FEATURE_SELECT, 7); /* no such bits */
    CHECK_EQ(c_read32(&disk, C_DEVICE_FEATURE), 0);
    /* what is not offered is refused: FEATURES_OK does not stick (2.2.2, 3.1.1) */
    CHECK(!virtio_negotiate(&disk, MODERN, 1ull << 50));
    /* nor without VERSION_1 */
    virtio_set_status(&disk, 0);
    virtio_set_status(&disk, S_ACKNOWLEDGE | S_DRIVER);
    virtio_accept(&disk, BLK_F_FLUSH);
    virtio_set_status(&disk, S_ACKNOWLEDGE | S_DRIVER | S_FEATURES_OK);
    CHECK_EQ(virtio_status(&disk) & S_FEATURES_OK, 0);
    /* accepted, they are fixed */
    CHECK(virtio_negotiate(&disk, MODERN, BLK_F_FLUSH));
    virtio_accept(&disk, 0);
    c_write32(&disk, C_DRIVER_FEATURE_SELECT, 0);
    CHECK_EQ(c_read32(&disk, C_DRIVER_FEATURE), BLK_F_FLUSH);
    virtio_set_status(&disk, 0);
    CHECK_EQ(virtio_status(&disk), 0);
    c_write32(&disk, C_DRIVER_FEATURE_SELECT, 0);
    CHECK_EQ(c_read32(&disk, C_DRIVER_FEATURE), 0);
}

TEST(queue_registers)
{
    CHECK(virtio_open(&disk, VIRTIO_BLK, 0));
    CHECK(virtio_negotiate(&disk, MODERN, 0));
    unsigned max = virtio_queue_max(&disk);
    CHECK(max && !(max & (max - 1)));
    CHECK_EQ(c_read16(&disk, C_QUEUE_ENABLE), 0);
    CHECK_EQ(c_read16(&disk, C_QUEUE_VECTOR), NO_VECTOR);
    c_write16(&disk, C_QUEUE_SELECT, 1); /* there is none */
    CHECK_EQ(c_read16(&disk, C_QUEUE_SIZE), 0);
    c_write16(&disk, C_QUEUE_SELECT, 0);
    c_write64(&disk, C_QUEUE_DESC, 0x123456789ab0);
    CHECK_EQ(c_read32(&disk, C_QUEUE_DESC), 0x56789ab0);
    CHECK_EQ(c_read32(&disk, C_QUEUE_DESC + 4), 0x1234);
    c_write16(&disk, C_QUEUE_SIZE, 8);
    CHECK_EQ(c_read16(&disk, C_QUEUE_SIZE), 8);
    virtio_set_status(&disk, 0);
}

TEST(capacity)
{
    for (enum interface i = MODERN; i <= LEGACY; i++) {
        START(i, 0);
        CHECK_EQ(virtio_config32(&disk, 0), SECTORS);
        CHECK_EQ(virtio_config32(&disk, 4), 0);
        CHECK_EQ(virtio_config32(&disk, 20), SECTOR); /* blk_size */
        CHECK_EQ(virtio_config8(&disk, 1), SECTORS >> 8);
    }
}

/* ---- Data ---------------------------------------------------------------------------------------
 */

TEST(write_flush_read)
{
    for (enum interface i = MODERN; i <= LEGACY; i++) {
        START(i, BLK_F_FLUSH);
        for (unsigned n = 1; n <= 64; n *= 4) {
            fill(pattern, 17 * n + i, n * SECTOR);
            CHECK_EQ(blk_do(&disk, T_OUT, 100, pattern, n * SECTOR), S_OK);
            CHECK_EQ(blk_written, 1);
            CHECK_EQ(blk_do(&disk, T_FLUSH, 0, 0, 0), S_OK);
            memset(buffer, 0, sizeof(buffer));
            CHECK_EQ(blk_do(&disk, T_IN, 100, buffer, n * SECTOR), S_OK);
            CHECK_EQ(blk_written, n * SECTOR + 1);
            CHECK_MEM(buffer, pattern, n * SECTOR);
        }
        /* the last sector, and only it */
        fill(pattern, 99 + i, SECTOR);
        CHECK_EQ(blk_do(&disk, T_OUT, SECTORS - 1, pattern, SECTOR), S_OK);
        CHECK_EQ(blk_do(&disk, T_IN, SECTORS - 2, buffer, 2 * SECTOR), S_OK);
        CHECK_MEM(buffer + SECTOR, pattern, SECTOR);
        CHECK_EQ(buffer[0] | buffer[SECTOR - 1], 0);
    }
}

/* What one interface wrote, the other reads; a reset loses nothing. */
TEST(survives_reset)
{
    START(MODERN, BLK_F_FLUSH);
    fill(pattern, 5, 4 * SECTOR);
    CHECK_EQ(blk_do(&disk, T_OUT, 7, pattern, 4 * SECTOR), S_OK);
    START(LEGACY, 0);
    CHECK_EQ(blk_do(&disk, T_IN, 7, buffer, 4 * SECTOR), S_OK);
    CHECK_MEM(buffer, pattern, 4 * SECTOR);
}

/* The layout of a request is free (2.7.4): header, data and status in pieces. */
TEST(scattered)
{
    START(MODERN, 0);
    fill(pattern, 77, 2 * SECTOR);
    CHECK_EQ(blk_do(&disk, T_OUT, 40, pattern, 2 * SECTOR), S_OK);
    memset(buffer, 0, sizeof(buffer));
    blk_header = (struct blk_header){T_IN, 0, 40};
    blk_status = S_NOTHING;
    const struct part parts[] = {
        {&blk_header, 7, OUT},  {(volatile char *)&blk_header + 7, 9, OUT},
        {buffer, 1, IN},        {buffer + 1, 500, IN},
        {buffer + 501, 11, IN}, {buffer + 4096, 512, IN},
        {&blk_status, 1, IN},
    };
    CHECK_EQ(virtio_do(&disk, parts, 7), 2 * SECTOR + 1);
    CHECK_EQ(blk_status, S_OK);
    CHECK_MEM(buffer, pattern, SECTOR);
    CHECK_MEM(buffer + 4096, pattern + SECTOR, SECTOR);
}

TEST(indirect)
{
    static volatile struct vdesc table[3] __attribute__((aligned(16)));
    START(MODERN, F_INDIRECT_DESC);
    fill(pattern, 78, SECTOR);
    CHECK_EQ(blk_do(&disk, T_OUT, 41, pattern, SECTOR), S_OK);
    memset(buffer, 0, SECTOR);
    blk_header = (struct blk_header){T_IN, 0, 41};
    blk_status = S_NOTHING;
    table[0] = (struct vdesc){(uintptr_t)&blk_header, 16, DESC_NEXT, 1};
    table[1] = (struct vdesc){(uintptr_t)buffer, SECTOR, DESC_NEXT | DESC_WRITE, 2};
    table[2] = (struct vdesc){(uintptr_t)&blk_status, 1, DESC_WRITE, 0};
    virtio_desc(&disk, 3, (uintptr_t)table, sizeof(table), DESC_INDIRECT, 0);
    virtio_available(&disk, 3);
    virtio_kick(&disk);
    uint32_t written = 0;
    CHECK_EQ(virtio_wait(&disk, &written), 3);
    CHECK_EQ(written, SECTOR + 1);
    CHECK_EQ(blk_status, S_OK);
    CHECK_MEM(buffer, pattern, SECTOR);
}

/* Many at once, more than once round the ring, and a small ring. */
TEST(many_requests)
{
    enum { AT_ONCE = 5, ROUNDS = 200 };
    static volatile struct blk_header headers[AT_ONCE];
    static volatile uint8_t statuses[AT_ONCE];
    CHECK(virtio_open(&disk, VIRTIO_BLK, 0));
    CHECK(virtio_negotiate(&disk, MODERN, 0));
    virtio_place(&disk, 16);
    virtio_set_queue(&disk);
    virtio_set_status(&disk, virtio_status(&disk) | S_DRIVER_OK);
    fill(pattern, 1234, 64 * SECTOR);
    CHECK_EQ(blk_do(&disk, T_OUT, 0, pattern, 64 * SECTOR), S_OK);
    for (unsigned round = 0; round < ROUNDS; round++) {
        memset(buffer, 0, AT_ONCE * SECTOR);
        for (unsigned i = 0; i < AT_ONCE; i++) {
            headers[i] = (struct blk_header){T_IN, 0, (round + 13 * i) % 64};
            statuses[i] = S_NOTHING;
            const struct part parts[] = {
                {&headers[i], 16, OUT}, {buffer + i * SECTOR, SECTOR, IN}, {&statuses[i], 1, IN}};
            virtio_chain(&disk, 3 * i, parts, 3);
            virtio_available(&disk, 3 * i);
        }
        virtio_kick(&disk);
        unsigned seen = 0;
        for (unsigned i = 0; i < AT_ONCE; i++) {
            uint32_t written = 0, head = virtio_wait(&disk, &written);
            CHECK_EQ(head % 3, 0);
            CHECK_EQ(written, SECTOR + 1);
            seen |= 1u << head / 3;
        }
        CHECK_EQ(seen, (1u << AT_ONCE) - 1);
        for (unsigned i = 0; i < AT_ONCE; i++) {
            CHECK_EQ(statuses[i], S_OK);
            CHECK_MEM(buffer + i * SECTOR, pattern + (round + 13 * i) % 64 * SECTOR, SECTOR);
        }
    }
}

TEST(id_string)
{
    START(MODERN, 0);
    memset(buffer, 0xcc, 32);
    CHECK_EQ(blk_do(&disk, T_GET_ID, 0, buffer, 20), S_OK);
    CHECK_MEM(buffer, "BAILEY-0123456789-AB", 20); /* 20 bytes, no terminator (5.2.6) */
    CHECK_EQ(buffer[20], 0xcc);
}

TEST(discard_and_write_zeroes)
{
    static volatile struct {
        uint64_t sector;
        uint32_t sectors, flags;
    } range;
    START(MODERN, BLK_F_DISCARD | BLK_F_WRITE_ZEROES);
    fill(pattern, 3, 8 * SECTOR);
    CHECK_EQ(blk_do(&disk, T_OUT, 200, pattern, 8 * SECTOR), S_OK);
    range.sector = 202, range.sectors = 3;
    CHECK_EQ(blk_do(&disk, T_WRITE_ZEROES, 0, &range, 16), S_OK);
    CHECK_EQ(blk_do(&disk, T_IN, 200, buffer, 8 * SECTOR), S_OK);
    CHECK_MEM(buffer, pattern, 2 * SECTOR);
    CHECK_MEM(buffer + 5 * SECTOR, pattern + 5 * SECTOR, 3 * SECTOR);
    for (unsigned i = 2 * SECTOR; i < 5 * SECTOR; i++)
        if (buffer[i])
            CHECK_EQ(buffer[i], 0);
    range.sector = 205, range.sectors = 1;
    CHECK_EQ(blk_do(&disk, T_DISCARD, 0, &range, 16), S_OK);
    CHECK_EQ(blk_do(&disk, T_IN, 206, buffer, SECTOR), S_OK);
    CHECK_MEM(buffer, pattern + 6 * SECTOR, SECTOR);
    range.sector = SECTORS - 1, range.sectors = 2;
    CHECK_EQ(blk_do(&disk, T_WRITE_ZEROES, 0, &range, 16), S_IOERR);
    CHECK_EQ(blk_do(&disk, T_DISCARD, 0, &range, 16), S_IOERR);
    range.sector = 0, range.flags = 2; /* reserved */
    CHECK_EQ(blk_do(&disk, T_WRITE_ZEROES, 0, &range, 16), S_UNSUPP);
    range.flags = 1; /* unmap is not for discard */
    CHECK_EQ(blk_do(&disk, T_DISCARD, 0, &range, 16), S_UNSUPP);
    range.flags = 0;
}

TEST(refused)
{
    START(MODERN, BLK_F_FLUSH);
    CHECK_EQ(blk_do(&disk, T_IN, SECTORS, buffer, SECTOR), S_IOERR); /* past the end */
    CHECK_EQ(blk_do(&disk, T_IN, SECTORS - 1, buffer, 2 * SECTOR), S_IOERR);
    CHECK_EQ(blk_do(&disk, T_OUT, 1ull << 60, buffer, SECTOR), S_IOERR);
    CHECK_EQ(blk_do(&disk, T_OUT, UINT64_MAX, buffer, SECTOR), S_IOERR);
    CHECK_EQ(blk_do(&disk, T_IN, 0, buffer, 100), S_IOERR); /* not sectors */
    CHECK_EQ(blk_do(&disk, 0x7777, 0, buffer, SECTOR), S_UNSUPP);
    CHECK_EQ(blk_do(&disk, T_IN, 0, buffer, SECTOR), S_OK);
}

/* ---- Interrupts ---------------------------------------------------------------------------------
 */

static void isr_and_eoi(struct frame *f)
{
    virtio_isr(&disk);
    apic_eoi(f);
}

TEST(intx)
{
    for (enum interface i = MODERN; i <= LEGACY; i++) {
        START(i, 0);
        unsigned pin = pci_read8(disk.devfn, PCI_INTERRUPT_LINE); /* where the firmware routed it */
        CHECK(pin == 10 || pin == 11);
        hit_ends = isr_and_eoi;
        ioapic_entry(pin, 0, ENTRY_LEVEL | V);
        CHECK_EQ(blk_do(&disk, T_IN, 0, buffer, SECTOR), S_OK);
        CHECK(wait_hits(V, 1));
        CHECK(!ioapic_remote_irr(pin));
        let_in();
        CHECK_EQ(hits[V], 1);
        CHECK_EQ(virtio_isr(&disk), 0);
        CHECK_EQ(pci_read16(disk.devfn, PCI_STATUS) & STATUS_INTERRUPT, 0);
        /* with INTx off in the command register only the status bits tell */
        pci_write16(disk.devfn, PCI_COMMAND,
                    COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER | COMMAND_NO_INTX);
        CHECK_EQ(blk_do(&disk, T_IN, 0, buffer, SECTOR), S_OK);
        for (uint64_t end = rdtsc() + FOREVER; rdtsc() < end;)
            if (pci_read16(disk.devfn, PCI_STATUS) & STATUS_INTERRUPT)
                break;
        CHECK_EQ(pci_read16(disk.devfn, PCI_STATUS) & STATUS_INTERRUPT, STATUS_INTERRUPT);
        let_in();
        CHECK_EQ(hits[V], 1);
        CHECK(!ioapic_remote_irr(pin));
        pci_write16(disk.devfn, PCI_COMMAND, COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER);
        CHECK(wait_hits(V, 2));
        ioapic_entry(pin, 0, ENTRY_MASKED);
    }
}

/* Reading the ISR status is the acknowledge: it clears it and lowers the line. */
TEST(isr_status)
{
    START(MODERN, 0);
    CHECK_EQ(virtio_isr(&disk), 0);
    CHECK_EQ(blk_do(&disk, T_IN, 0, buffer, SECTOR), S_OK);
    for (uint64_t end = rdtsc() + FOREVER; rdtsc() < end;)
        if (pci_read16(disk.devfn, PCI_STATUS) & STATUS_INTERRUPT)
            break;
    CHECK_EQ(virtio_isr(&disk), 1);
    CHECK_EQ(virtio_isr(&disk), 0);
    CHECK_EQ(pci_read16(disk.devfn, PCI_STATUS) & STATUS_INTERRUPT, 0);
}

TEST(no_interrupt_wanted)
{
    START(MODERN, 0);
    disk.avail->flags = NO_INTERRUPT;
    for (unsigned i = 0; i < 5; i++)
        CHECK_EQ(blk_do(&disk, T_IN, 0, buffer, SECTOR), S_OK);
    pit_wait(1000);
    CHECK_EQ(virtio_isr(&disk), 0);
    /* with event indices: for the fourth from now */
    START(MODERN, F_EVENT_IDX);
    *disk.used_event = 3;
    for (unsigned i = 0; i < 3; i++)
        CHECK_EQ(blk_do(&disk, T_IN, 0, buffer, SECTOR), S_OK);
    pit_wait(1000);
    /* the device may interrupt for the very first, as it knows of no index before */
    virtio_isr(&disk);
    CHECK_EQ(blk_do(&disk, T_IN, 0, buffer, SECTOR), S_OK);
    for (uint64_t end = rdtsc() + FOREVER; rdtsc() < end;)
        if (pci_read16(disk.devfn, PCI_STATUS) & STATUS_INTERRUPT)
            break;
    CHECK_EQ(virtio_isr(&disk), 1);
    for (unsigned i = 0; i < 3; i++) /* past it: none */
        CHECK_EQ(blk_do(&disk, T_IN, 0, buffer, SECTOR), S_OK);
    pit_wait(1000);
    CHECK_EQ(virtio_isr(&disk), 0);
}

TEST(msix)
{
    for (enum interface i = MODERN; i <= LEGACY; i++) {
        apic_quiet();
        count_hits(0x20, 0xef, apic_eoi);
        CHECK(virtio_open(&disk, VIRTIO_BLK, 0));
        msix_control(&disk, MSIX_ENABLE);
        msix_set(&disk, 0, V, false);
        msix_set(&disk, 1, V + 1, false);
        CHECK(virtio_negotiate(&disk, i, 0));
        virtio_place(&disk, virtio_queue_max(&disk));
        if (i == MODERN) {
            c_write16(&disk, C_CONFIG_VECTOR, 0);
            c_write16(&disk, C_QUEUE_VECTOR, 1);
            CHECK_EQ(c_read16(&disk, C_QUEUE_VECTOR), 1);
            c_write16(&disk, C_CONFIG_VECTOR, 99); /* there is none */
            CHECK_EQ(c_read16(&disk, C_CONFIG_VECTOR), NO_VECTOR);
        } else {
            outw(disk.io + 20, 0);
            outw(disk.io + 22, 1);
            CHECK_EQ(inw(disk.io + 22), 1);
        }
        virtio_set_queue(&disk);
        virtio_set_status(&disk, virtio_status(&disk) | S_DRIVER_OK);
        CHECK_EQ(virtio_config32(&disk, 0), SECTORS); /* legacy: moved by four bytes */
        CHECK_EQ(blk_do(&disk, T_IN, 0, buffer, SECTOR), S_OK);
        CHECK(wait_hits(V + 1, 1));
        CHECK(!apic_bit(APIC_TMR, V + 1)); /* an edge */
        CHECK_EQ(hits[V], 0);
        CHECK_EQ(virtio_isr(&disk), 0); /* 4.1.4.5 */
        CHECK_EQ(pci_read16(disk.devfn, PCI_STATUS) & STATUS_INTERRUPT, 0);
        /* masked, it is pending; unmasked, it comes */
        msix_set(&disk, 1, V + 2, true);
        CHECK_EQ(blk_do(&disk, T_IN, 0, buffer, SECTOR), S_OK);
        for (uint64_t end = rdtsc() + FOREVER; !msix_pending(&disk, 1) && rdtsc() < end;)
            asm volatile("pause");
        CHECK(msix_pending(&disk, 1));
        let_in();
        CHECK_EQ(hits[V + 1] + hits[V + 2], 1);
        msix_entry(&disk, 1)[3] = 0;
        CHECK(wait_hits(V + 2, 1));
        CHECK(!msix_pending(&disk, 1));
        /* the same by the function's mask */
        msix_control(&disk, MSIX_ENABLE | MSIX_MASK_ALL);
        CHECK_EQ(blk_do(&disk, T_IN, 0, buffer, SECTOR), S_OK);
        for (uint64_t end = rdtsc() + FOREVER; !msix_pending(&disk, 1) && rdtsc() < end;)
            asm volatile("pause");
        let_in();
        CHECK_EQ(hits[V + 2], 1);
        msix_control(&disk, MSIX_ENABLE);
        CHECK(wait_hits(V + 2, 2));
        /* a queue without a vector is silent */
        if (i == MODERN) {
            c_write16(&disk, C_QUEUE_SELECT, 0);
            c_write16(&disk, C_QUEUE_VECTOR, NO_VECTOR);
            CHECK_EQ(blk_do(&disk, T_IN, 0, buffer, SECTOR), S_OK);
            pit_wait(1000);
            let_in();
            CHECK_EQ(hits[V + 2], 2);
        }
        virtio_set_status(&disk, 0);
        msix_control(&disk, 0);
    }
}

/* ---- The rest -----------------------------------------------------------------------------------
 */

/* Without bus mastering there is no DMA; what was asked for meanwhile is done when it is back. */
TEST(bus_mastering)
{
    START(MODERN, 0);
    pci_write16(disk.devfn, PCI_COMMAND, COMMAND_IO | COMMAND_MEMORY);
    const struct part parts[] = {
        {&blk_header, 16, OUT}, {buffer, SECTOR, IN}, {&blk_status, 1, IN}};
    blk_header = (struct blk_header){T_IN, 0, 0};
    blk_status = S_NOTHING;
    virtio_chain(&disk, 0, parts, 3);
    virtio_available(&disk, 0);
    virtio_kick(&disk);
    pit_wait(5000);
    CHECK_EQ(disk.used->idx, 0);
    CHECK_EQ(blk_status, S_NOTHING);
    pci_write16(disk.devfn, PCI_COMMAND, COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER);
    virtio_kick(&disk);
    uint32_t written;
    CHECK_EQ(virtio_wait(&disk, &written), 0);
    CHECK_EQ(blk_status, S_OK);
}

/* Before DRIVER_OK a modern device touches no queue. */
TEST(not_before_driver_ok)
{
    CHECK(virtio_open(&disk, VIRTIO_BLK, 0));
    CHECK(virtio_negotiate(&disk, MODERN, 0));
    virtio_place(&disk, virtio_queue_max(&disk));
    virtio_set_queue(&disk);
    const struct part parts[] = {
        {&blk_header, 16, OUT}, {buffer, SECTOR, IN}, {&blk_status, 1, IN}};
    blk_header = (struct blk_header){T_IN, 0, 0};
    blk_status = S_NOTHING;
    virtio_chain(&disk, 0, parts, 3);
    virtio_available(&disk, 0);
    virtio_kick(&disk);
    pit_wait(5000);
    CHECK_EQ(disk.used->idx, 0);
    virtio_set_status(&disk, virtio_status(&disk) | S_DRIVER_OK);
    virtio_kick(&disk);
    uint32_t written;
    CHECK_EQ(virtio_wait(&disk, &written), 0);
    CHECK_EQ(blk_status, S_OK);
}

/* The modern registers through configuration space alone (4.1.4.9). */
TEST(configuration_window)
{
    START(MODERN, 0);
    unsigned w = disk.window, at = pci_capability(disk.devfn, 9, 0);
    while (pci_read8(disk.devfn, at + 3) != 4)
        at = pci_capability(disk.devfn, 9, at);
    pci_write8(disk.devfn, w + 4, pci_read8(disk.devfn, at + 4));
    pci_write32(disk.devfn, w + 8, pci_read32(disk.devfn, at + 8));
    pci_write32(disk.devfn, w + 12, 4);
    CHECK_EQ(pci_read32(disk.devfn, w + 16), SECTORS);
    pci_write32(disk.devfn, w + 12, 1);
    pci_write32(disk.devfn, w + 8, pci_read32(disk.devfn, at + 8) + 1);
    CHECK_EQ(pci_read8(disk.devfn, w + 16), SECTORS >> 8);
}

/* Write cache mode (5.2.5.2). */
TEST(write_cache)
{
    START(MODERN, BLK_F_FLUSH | BLK_F_CONFIG_WCE);
    if (!(virtio_offered(&disk) & BLK_F_CONFIG_WCE)) {
        print("  skipped: the cache cannot be switched\n");
        return;
    }
    CHECK_EQ(virtio_config8(&disk, 32), 1);
    *(volatile uint8_t *)(uintptr_t)(disk.config + 32) = 0; /* through */
    CHECK_EQ(virtio_config8(&disk, 32), 0);
    fill(pattern, 8, SECTOR);
    CHECK_EQ(blk_do(&disk, T_OUT, 300, pattern, SECTOR), S_OK);
    CHECK_EQ(blk_do(&disk, T_IN, 300, buffer, SECTOR), S_OK);
    CHECK_MEM(buffer, pattern, SECTOR);
}

const struct test guest_tests[] = {T(identity),
                                   T(negotiation),
                                   T(queue_registers),
                                   T(capacity),
                                   T(write_flush_read),
                                   T(survives_reset),
                                   T(scattered),
                                   T(indirect),
                                   T(many_requests),
                                   T(id_string),
                                   T(discard_and_write_zeroes),
                                   T(refused),
                                   T(intx),
                                   T(isr_status),
                                   T(no_interrupt_wanted),
                                   T(msix),
                                   T(bus_mastering),
                                   T(not_before_driver_ok),
                                   T(configuration_window),
                                   T(write_cache),
                                   {0, 0}};
