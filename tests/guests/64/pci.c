/*
 * pci.c - PCI configuration mechanism #1, the chips of the board, base address registers and what
 * the command register enables (PCI 3.0, 3.2.2.3 and 6; 82441FX and 82371SB data sheets).
 *
 * guest options: -device virtio-rng-pci,addr=5
 */
#include "pci.h"

enum { RNG = 5 << 3, HOST = 0 };

TEST(config_address)
{
    outl(PCI_ADDRESS, 0xffffffff);
    CHECK_EQ(inl(PCI_ADDRESS), 0x80fffffc); /* reserved bits read as zeros */
    outl(PCI_ADDRESS, 0);
    CHECK_EQ(inl(PCI_ADDRESS), 0);
    outl(PCI_ADDRESS, 0x80000800);
    outb(PCI_ADDRESS + 3, 0x12); /* bytes and words are not for it ... */
    outw(PCI_ADDRESS + 2, 0x1234);
    CHECK_EQ(inl(PCI_ADDRESS), 0x80000800);
    CHECK_EQ(inb(PCI_ADDRESS + 1) & 4, 0); /* ... but CF9h is the reset control register's */
}

TEST(not_enabled)
{
    outl(PCI_ADDRESS, 0x00000000);
    CHECK_EQ(inl(PCI_DATA), 0xffffffff);
    outl(PCI_ADDRESS, 0x80000000);
    CHECK_EQ(inl(PCI_DATA), 0x12378086);
}

TEST(identity)
{
    static const struct {
        unsigned devfn;
        uint32_t id, class; /* class: without revision */
    } chips[] = {
        {HOST, 0x12378086, 0x060000},     /* 82441FX */
        {PIIX3, 0x70008086, 0x060100},    /* 82371SB */
        {PIIX4_PM, 0x71138086, 0x068000}, /* 82371AB, function 3 */
        {RNG, 0x10051af4, 0x00ff00},
    };
    for (unsigned i = 0; i < sizeof(chips) / sizeof(chips[0]); i++) {
        CHECK_EQ(pci_read32(chips[i].devfn, PCI_ID), chips[i].id);
        CHECK_EQ(pci_read32(chips[i].devfn, PCI_REVISION) >> 8, chips[i].class);
        CHECK_EQ(pci_read8(chips[i].devfn, PCI_HEADER_TYPE) & 0x7f, 0);
    }
    CHECK_EQ(pci_read8(PIIX3, PCI_HEADER_TYPE), 0x80); /* multi-function */
    CHECK_EQ(pci_read32(RNG, PCI_SUBSYSTEM), 0x00041af4);
    CHECK_EQ(pci_read8(PIIX3, PCI_COMMAND) & 7, 7); /* always on */
}

/* Every access width sees the same bytes, at every offset that it can have. */
TEST(access_widths)
{
    for (unsigned reg = 0; reg < 64; reg += 4) {
        if (reg == PCI_COMMAND)
            continue;
        uint32_t whole = pci_read32(RNG, reg);
        for (unsigned i = 0; i < 4; i++)
            CHECK_EQ(pci_read8(RNG, reg + i), whole >> 8 * i & 0xff);
        CHECK_EQ(pci_read16(RNG, reg), whole & 0xffff);
        CHECK_EQ(pci_read16(RNG, reg + 2), whole >> 16);
        pci_select(RNG, reg);
        CHECK_EQ(inw(PCI_DATA + 1), whole >> 8 & 0xffff);
    }
    pci_write32(RNG, 0x0c, 0x00000000); /* cache line size, latency timer */
    pci_write8(RNG, 0x0c, 0x10);
    CHECK_EQ(pci_read32(RNG, 0x0c) & 0xffff, 0x0010);
    pci_write8(RNG, 0x0d, 0x40);
    CHECK_EQ(pci_read32(RNG, 0x0c) & 0xffff, 0x4010);
    pci_write16(RNG, 0x0c, 0x2008);
    CHECK_EQ(pci_read32(RNG, 0x0c) & 0xffff, 0x2008);
}

TEST(nobody_there)
{
    unsigned absent = 30 << 3, count = 0;
    for (unsigned reg = 0; reg < 256; reg += 4) {
        CHECK_EQ(pci_read32(absent, reg), 0xffffffff);
        CHECK_EQ(pci_read32(RNG + 1, reg), 0xffffffff); /* nor another function */
    }
    CHECK_EQ(pci_read16(absent, 2), 0xffff);
    CHECK_EQ(pci_read8(absent, 3), 0xff);
    pci_write32(absent, PCI_BAR, 0); /* vanishes */
    outl(PCI_ADDRESS, 0x80010000);   /* bus 1 */
    CHECK_EQ(inl(PCI_DATA), 0xffffffff);
    for (unsigned slot = 0; slot < 32; slot++)
        count += pci_read32(slot << 3, PCI_ID) != 0xffffffff;
    CHECK_EQ(count, 4); /* two of the board, the protection device, and the test's */
}

TEST(read_only)
{
    static const uint8_t regs[] = {0x00, 0x08, 0x2c, 0x34};
    for (unsigned i = 0; i < sizeof(regs); i++) {
        uint32_t before = pci_read32(RNG, regs[i]);
        pci_write32(RNG, regs[i], ~before);
        CHECK_EQ(pci_read32(RNG, regs[i]), before);
    }
    pci_write8(RNG, PCI_INTERRUPT_LINE, 0x5a); /* for software to note */
    CHECK_EQ(pci_read8(RNG, PCI_INTERRUPT_LINE), 0x5a);
    CHECK_EQ(pci_read8(RNG, PCI_INTERRUPT_PIN), 1);
    pci_write8(RNG, PCI_INTERRUPT_PIN, 3);
    CHECK_EQ(pci_read8(RNG, PCI_INTERRUPT_PIN), 1);
}

/* ---- Base address registers ---------------------------------------------------------------------
 */

/* Ones written: what sticks is the size (6.2.5.1). */
static uint32_t bar_mask(unsigned bar)
{
    uint32_t saved = pci_read32(RNG, PCI_BAR + 4 * bar);
    pci_write32(RNG, PCI_BAR + 4 * bar, 0xffffffff);
    uint32_t mask = pci_read32(RNG, PCI_BAR + 4 * bar);
    pci_write32(RNG, PCI_BAR + 4 * bar, saved);
    CHECK_EQ(pci_read32(RNG, PCI_BAR + 4 * bar), saved);
    return mask;
}

static bool power_of_two(uint64_t n)
{
    return n && !(n & (n - 1));
}

TEST(bar_sizes)
{
    uint16_t command = pci_read16(RNG, PCI_COMMAND);
    pci_write16(RNG, PCI_COMMAND, 0);
    uint32_t io = bar_mask(0);
    CHECK_EQ(io & 3, 1); /* I/O space */
    uint32_t io_size = ~(io & ~3u) + 1;
    CHECK(power_of_two(io_size & 0xffff) && io_size >= 4);
    unsigned memory = 0;
    for (unsigned bar = 1; bar < 6; bar++) {
        uint32_t mask = bar_mask(bar), upper = 0xffffffff;
        if (mask == 0)
            continue; /* there is none */
        CHECK_EQ(mask & 1, 0);
        bool wide = (mask & 6) == 4;
        if (wide)
            upper = bar_mask(bar + 1);
        uint64_t size = ~((uint64_t)upper << 32 | (mask & ~15u)) + 1;
        CHECK(power_of_two(size) && size >= 16);
        CHECK_EQ(pci_bar(RNG, bar) % size, 0);
        memory++;
        bar += wide;
    }
    CHECK_EQ(memory, 2); /* MSI-X table and modern registers */
    pci_write32(RNG, 0x30, 0xfffffffe);
    CHECK_EQ(pci_read32(RNG, 0x30), 0); /* no expansion ROM */
    pci_write16(RNG, PCI_COMMAND, command);
}

/* The modern registers: device feature 32 (version 1) is a bit that is known to be there. */
static unsigned modern_bar(void)
{
    unsigned at = pci_capability(RNG, 9, 0);
    while (at && pci_read8(RNG, at + 3) != 1)
        at = pci_capability(RNG, 9, at);
    return pci_read8(RNG, at + 4);
}
static uint32_t feature_word(uint64_t base)
{
    mmio_write32((uintptr_t)base, 1);
    return mmio_read32((uintptr_t)base + 4);
}

TEST(command_enables_decoding)
{
    uint16_t io = (uint16_t)pci_bar(RNG, 0);
    uint64_t memory = pci_bar(RNG, modern_bar());
    pci_write16(RNG, PCI_COMMAND, COMMAND_IO | COMMAND_MEMORY);
    CHECK(inl(io) != 0xffffffff);
    CHECK_EQ(feature_word(memory) & 1, 1);
    pci_write16(RNG, PCI_COMMAND, COMMAND_MEMORY);
    CHECK_EQ(inl(io), 0xffffffff);
    CHECK_EQ(feature_word(memory) & 1, 1);
    pci_write16(RNG, PCI_COMMAND, COMMAND_IO);
    CHECK(inl(io) != 0xffffffff);
    CHECK_EQ(mmio_read32((uintptr_t)memory + 4), 0xffffffff);
    pci_write16(RNG, PCI_COMMAND, COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER);
    CHECK_EQ(pci_read16(RNG, PCI_COMMAND) & 7, 7);
    CHECK_EQ(feature_word(memory) & 1, 1);
}

TEST(moving_an_io_bar)
{
    uint16_t old = (uint16_t)pci_bar(RNG, 0), new = 0x7000;
    uint32_t features = inl(old);
    pci_write32(RNG, PCI_BAR, new);
    CHECK_EQ(pci_bar(RNG, 0), new);
    CHECK_EQ(inl(new), features);
    CHECK_EQ(inl(old), 0xffffffff);
    pci_write32(RNG, PCI_BAR, old);
    CHECK_EQ(inl(old), features);
    CHECK_EQ(inl(new), 0xffffffff);
}

TEST(moving_a_memory_bar)
{
    unsigned bar = modern_bar();
    uint64_t old = pci_bar(RNG, bar), new = 0xd0000000;
    uint32_t features = feature_word(old);
    CHECK_EQ(features & 1, 1);
    pci_write32(RNG, PCI_BAR + 4 * bar, (uint32_t) new);
    pci_write32(RNG, PCI_BAR + 4 * bar + 4, 0);
    CHECK_EQ(feature_word(new), features);
    if (old != new)
        CHECK_EQ(mmio_read32((uintptr_t)old + 4), 0xffffffff);
    /* as the old address was used before: no translation of it may be left */
    for (unsigned i = 0; i < 50; i++) {
        uint64_t to = 0xd0000000 + 0x100000 * (i % 3);
        pci_write32(RNG, PCI_BAR + 4 * bar, (uint32_t)to);
        CHECK_EQ(feature_word(to), features);
        CHECK_EQ(mmio_read32((uintptr_t)(0xd0000000 + 0x100000 * ((i + 1) % 3)) + 4), 0xffffffff);
    }
    pci_write32(RNG, PCI_BAR + 4 * bar, (uint32_t)old);
    pci_write32(RNG, PCI_BAR + 4 * bar + 4, (uint32_t)(old >> 32));
    CHECK_EQ(feature_word(old), features);
}

/* A 64-bit BAR above 4 GiB, seen through a page of its own. */
TEST(memory_bar_above_4_gib)
{
    unsigned bar = modern_bar();
    if ((pci_read32(RNG, PCI_BAR + 4 * bar) & 6) != 4) {
        print("  skipped: not a 64-bit BAR\n");
        return;
    }
    static uint64_t pd[512] __attribute__((aligned(4096)));
    uint64_t old = pci_bar(RNG, bar), new = 0x2000000000;
    uint32_t features = feature_word(old);
    pd[0] = new | 0x87;
    boot_pdpt[4] = (uintptr_t)pd | 7;
    pci_write32(RNG, PCI_BAR + 4 * bar, (uint32_t) new);
    pci_write32(RNG, PCI_BAR + 4 * bar + 4, (uint32_t)(new >> 32));
    CHECK_EQ(feature_word(0x100000000), features);
    pci_write32(RNG, PCI_BAR + 4 * bar, (uint32_t)old);
    pci_write32(RNG, PCI_BAR + 4 * bar + 4, (uint32_t)(old >> 32));
    CHECK_EQ(mmio_read32(0x100000004), 0xffffffff);
    CHECK_EQ(feature_word(old), features);
    boot_pdpt[4] = 0;
    write_cr3(read_cr3());
}

TEST(capability_list)
{
    CHECK(pci_read16(RNG, PCI_STATUS) & STATUS_CAPABILITIES);
    CHECK_EQ(pci_read16(HOST, PCI_STATUS) & STATUS_CAPABILITIES, 0);
    unsigned count = 0, vendor = 0, msix = 0;
    for (unsigned at = pci_read8(RNG, PCI_CAPABILITIES); at && count < 48; count++) {
        CHECK_EQ(at & 3, 0);
        CHECK(at >= 0x40);
        vendor += pci_read8(RNG, at) == 9;
        msix += pci_read8(RNG, at) == 0x11;
        at = pci_read8(RNG, at + 1);
    }
    CHECK(count < 48);
    CHECK(vendor >= 4);
    CHECK_EQ(msix, 1);
}

/* PIRQ route control: bit 7 off, bits 3-0 the interrupt (82371SB, 2.2.10). */
TEST(pirq_registers)
{
    for (unsigned i = 0; i < 4; i++) {
        uint8_t saved = pci_read8(PIIX3, 0x60 + i);
        pci_write8(PIIX3, 0x60 + i, 0x80);
        CHECK_EQ(pci_read8(PIIX3, 0x60 + i), 0x80);
        pci_write8(PIIX3, 0x60 + i, 0x0b);
        CHECK_EQ(pci_read8(PIIX3, 0x60 + i), 0x0b);
        pci_write8(PIIX3, 0x60 + i, saved);
    }
}

const struct test guest_tests[] = {T(config_address),
                                   T(not_enabled),
                                   T(identity),
                                   T(access_widths),
                                   T(nobody_there),
                                   T(read_only),
                                   T(bar_sizes),
                                   T(command_enables_decoding),
                                   T(moving_an_io_bar),
                                   T(moving_a_memory_bar),
                                   T(memory_bar_above_4_gib),
                                   T(capability_list),
                                   T(pirq_registers),
                                   {0, 0}};
