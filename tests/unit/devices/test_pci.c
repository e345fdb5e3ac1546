/*
 * test_pci.c - devices/bus: configuration accesses, BARs, interrupt routing, MSI-X, DMA rules, and
 * what pci_assign_resources() leaves behind.
 */
#include "pci_board.h"

/* ---- A device with one BAR of each kind --------------------------------------------------------
 */

#define TEST_DEVFN PCI_DEVFN(5, 0)

struct test_device {
    struct pci_device pci;
    unsigned reads[6], writes[6];
    uint64_t offset, value;
    unsigned size;
};

struct region {
    struct test_device *dev;
    unsigned bar;
};
static struct region regions[6];
static struct test_device *dev;

static uint64_t region_read(void *opaque, const struct access *access, uint64_t offset,
                            unsigned size)
{
    struct region *r = opaque;
    (void)access;
    (void)size;
    r->dev->reads[r->bar]++;
    return 0x1000 * r->bar + offset;
}

static void region_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                         uint64_t value)
{
    struct region *r = opaque;
    (void)access;
    r->dev->writes[r->bar]++;
    r->dev->offset = offset;
    r->dev->size = size;
    r->dev->value = value;
}

static const struct io_ops region_ops = {.read = region_read, .write = region_write};

static const struct {
    unsigned bar;
    enum pci_bar_kind kind;
    uint64_t size;
    uint32_t low_after_sizing;
} layout[] = {
    {0, PCI_BAR_IO, 32, 0xffffffe1},
    {2, PCI_BAR_MEM32, 8192, 0xffffe000},
    {4, PCI_BAR_MEM64, 1 << 20, 0xfff00004},
};

static struct test_device *plug(int devfn, uint8_t pin)
{
    static const struct pci_identity identity = {0x1234, 0x5678, 0x9abc, 0xdef0, 7, 0x010203};
    struct test_device *d = calloc(1, sizeof(*d));
    struct error err = {""};
    pci_device_init(&d->pci, &identity);
    d->pci.dev.name = "test";
    d->pci.config[PCI_INTERRUPT_PIN] = pin;
    for (unsigned i = 0; i < 3; i++) {
        regions[layout[i].bar] = (struct region){d, layout[i].bar};
        pci_set_bar(&d->pci, layout[i].bar, layout[i].kind, layout[i].size, &region_ops,
                    &regions[layout[i].bar], "test");
    }
    msix_init(&d->pci, 1, 4);
    ck_assert_msg(pci_device_add(bus, &d->pci, devfn, &err), "%s", err.msg);
    return d;
}

static void unplug(struct test_device *d)
{
    pci_device_remove(&d->pci);
    free(d);
}

static void setup(void)
{
    board_setup();
    dev = plug(TEST_DEVFN, 1);
}

static void teardown(void)
{
    unplug(dev);
    board_teardown();
}

/* ---- Configuration accesses --------------------------------------------------------------------
 */

START_TEST(chips_are_where_drivers_look)
{
    ck_assert_uint_eq(config_in(PCI_DEVFN(0, 0), 0, 4), 0x12378086);
    ck_assert_uint_eq(config_in(PCI_DEVFN(1, 0), 0, 4), 0x70008086);
    ck_assert_uint_eq(config_in(PCI_DEVFN(1, 3), 0, 4), 0x71138086);
    ck_assert_uint_eq(config_in(PCI_DEVFN(0, 0), 8, 4) >> 8, 0x060000);
    ck_assert_uint_eq(config_in(PCI_DEVFN(1, 0), 8, 4) >> 8, 0x060100);
    ck_assert_uint_eq(config_in(PCI_DEVFN(1, 0), PCI_HEADER_TYPE, 1), 0x80);
    ck_assert_uint_eq(config_in(PCI_DEVFN(1, 3), 0x40, 4), 1);
    ck_assert_uint_eq(pm_base, 0);
    config_out(PCI_DEVFN(1, 3), 0x40, 4, 0xb03f);
    ck_assert_uint_eq(config_in(PCI_DEVFN(1, 3), 0x40, 4), 0xb001);
    ck_assert_msg(pm_base == 0, "not before PMREGMISC says so");
    config_out(PCI_DEVFN(1, 3), 0x80, 1, 1);
    ck_assert_uint_eq(pm_base, 0xb000);
    piix4_pm_decode(bus, PM_BASE);
    ck_assert_uint_eq(pm_base, PM_BASE);
    ck_assert_uint_eq(config_in(PCI_DEVFN(1, 3), 0x80, 1) & 1, 1);
}
END_TEST

START_TEST(mechanism_one)
{
    outp(0xcf8, 4, 0x80000000); /* how operating systems look for the mechanism */
    ck_assert_uint_eq(inp(0xcf8, 4), 0x80000000);
    outp(0xcfb, 1, 0x01); /* bytes do not reach the address register */
    outp(0xcf8, 2, 0xffff);
    ck_assert_uint_eq(inp(0xcf8, 4), 0x80000000);
    outp(0xcf8, 4, 0xffffffff);
    ck_assert_uint_eq(inp(0xcf8, 4), 0x80fffffc);
    /* bytes, words and dwords of one register */
    ck_assert_uint_eq(config_in(TEST_DEVFN, 0, 4), 0x56781234);
    ck_assert_uint_eq(config_in(TEST_DEVFN, 2, 2), 0x5678);
    ck_assert_uint_eq(config_in(TEST_DEVFN, 3, 1), 0x56);
    ck_assert_uint_eq(config_in(TEST_DEVFN, 8, 4), 0x01020307);
    ck_assert_uint_eq(config_in(TEST_DEVFN, 0x2c, 4), 0xdef09abc);
    /* nobody there; another bus; enable bit clear */
    ck_assert_uint_eq(config_in(PCI_DEVFN(9, 0), 0, 4), 0xffffffff);
    ck_assert_uint_eq(config_in(PCI_DEVFN(9, 0), 2, 2), 0xffff);
    ck_assert_uint_eq(config_in(PCI_DEVFN(5, 1), 0, 1), 0xff);
    outp(0xcf8, 4, 0x80010000 | TEST_DEVFN << 8);
    ck_assert_uint_eq(inp(0xcfc, 4), 0xffffffff);
    outp(0xcf8, 4, TEST_DEVFN << 8);
    ck_assert_uint_eq(inp(0xcfc, 4), 0xffffffff);
    outp(0xcfc, 4, 0); /* and goes nowhere */
    /* across the end of the data register: still every byte of it is answered */
    outp(0xcf8, 4, 0x80000000 | TEST_DEVFN << 8);
    ck_assert_uint_eq(inp(0xcfd, 4) & 0xffffff, 0x567812);
}
END_TEST

START_TEST(only_writable_bits_change)
{
    uint8_t before[256];
    for (unsigned i = 0; i < 256; i++)
        before[i] = (uint8_t)config_in(TEST_DEVFN, i, 1);
    for (unsigned reg = 0; reg < 256; reg += 4)
        config_out(TEST_DEVFN, reg, 4, 0xffffffff);
    for (unsigned i = 0; i < 256; i++) {
        uint8_t writable = dev->pci.writable[i];
        uint8_t expected = (uint8_t)((before[i] & ~writable) | writable);
        ck_assert_msg(config_in(TEST_DEVFN, i, 1) == expected, "register %#x", i);
    }
    ck_assert_uint_eq(config_in(TEST_DEVFN, PCI_VENDOR_ID, 4), 0x56781234);
    ck_assert_uint_eq(config_in(TEST_DEVFN, PCI_COMMAND, 2), 0x0547);
    ck_assert_uint_eq(config_in(TEST_DEVFN, PCI_ROM_ADDRESS, 4), 0);
    dev->pci.dev.reset = NULL;
    pci_device_reset(&dev->pci);
    for (unsigned i = 0; i < 256; i++)
        ck_assert_msg(config_in(TEST_DEVFN, i, 1) == before[i], "register %#x after reset", i);
}
END_TEST

START_TEST(reset_control)
{
    outp(0xcf9, 1, 0x02);
    ck_assert_int_eq(shutdown_reason, -1);
    ck_assert_uint_eq(inp(0xcf9, 1), 0x02);
    outp(0xcf9, 1, 0x06);
    ck_assert_int_eq(shutdown_reason, BOARD_RESET);
    ck_assert_uint_eq(inp(0xcf8, 4), 0);
}
END_TEST

/* ---- Base address registers ---------------------------------------------------------------------
 */

START_TEST(bar_sizing)
{
    for (unsigned i = 0; i < 3; i++) {
        unsigned reg = PCI_BAR0 + 4 * layout[i].bar;
        config_out(TEST_DEVFN, reg, 4, 0xffffffff);
        ck_assert_uint_eq(config_in(TEST_DEVFN, reg, 4), layout[i].low_after_sizing);
    }
    config_out(TEST_DEVFN, PCI_BAR0 + 20, 4, 0xffffffff);
    ck_assert_uint_eq(config_in(TEST_DEVFN, PCI_BAR0 + 20, 4), 0xffffffff);
    config_out(TEST_DEVFN, PCI_BAR0 + 12, 4, 0xffffffff); /* there is no BAR 3 */
    ck_assert_uint_eq(config_in(TEST_DEVFN, PCI_BAR0 + 12, 4), 0);
}
END_TEST

static void expect_io(uint16_t base, bool there)
{
    ck_assert_uint_eq(inp(base + 4, 1), there ? 4 : 0xff);
}

static void expect_mem(unsigned bar, uint64_t base, bool there)
{
    uint32_t expected = there ? 0x1000 * bar + 8 : 0xffffffff;
    ck_assert_uint_eq(mem_in(base + 8, 4), expected);
}

START_TEST(decoding_follows_the_command_register)
{
    config_out(TEST_DEVFN, PCI_BAR0, 4, 0xc000);
    config_out(TEST_DEVFN, PCI_BAR0 + 8, 4, 0xe0000000);
    config_out(TEST_DEVFN, PCI_BAR0 + 16, 4, 0xe0100000);
    for (unsigned command = 0; command < 4; command++) {
        config_out(TEST_DEVFN, PCI_COMMAND, 2, command);
        expect_io(0xc000, command & PCI_COMMAND_IO);
        expect_mem(2, 0xe0000000, command & PCI_COMMAND_MEMORY);
        expect_mem(4, 0xe0100000, command & PCI_COMMAND_MEMORY);
    }
    outp(0xc01e, 2, 0xbeef);
    ck_assert_uint_eq(dev->offset, 0x1e);
    ck_assert_uint_eq(dev->value, 0xbeef);
    mem_out(0xe01ffff8, 8, 0x1122334455667788);
    ck_assert_uint_eq(dev->offset, 0xffff8);
    ck_assert_uint_eq(dev->value, 0x1122334455667788);
    ck_assert_uint_eq(inp(0xc020, 1), 0xff); /* one past the end */
    pci_device_reset(&dev->pci);
    expect_io(0xc000, false);
    expect_mem(2, 0xe0000000, false);
}
END_TEST

START_TEST(bars_move)
{
    config_out(TEST_DEVFN, PCI_COMMAND, 2, 3);
    config_out(TEST_DEVFN, PCI_BAR0, 4, 0xc000);
    config_out(TEST_DEVFN, PCI_BAR0, 4, 0xd000);
    expect_io(0xc000, false);
    expect_io(0xd000, true);
    config_out(TEST_DEVFN, PCI_BAR0 + 8, 4, 0xe0000000);
    config_out(TEST_DEVFN, PCI_BAR0 + 8, 4, 0xf0000000);
    expect_mem(2, 0xe0000000, false);
    expect_mem(2, 0xf0000000, true);
    config_out(TEST_DEVFN, PCI_BAR0 + 10, 1, 0x10); /* one byte of it */
    expect_mem(2, 0xf0000000, false);
    expect_mem(2, 0xf0100000, true);
    /* above 4 GiB, written in halves */
    config_out(TEST_DEVFN, PCI_BAR0 + 16, 4, 0x00300000);
    config_out(TEST_DEVFN, PCI_BAR0 + 20, 4, 0x8);
    expect_mem(4, 0x800300000, true);
    /* over RAM, which is there again afterwards */
    mem_out(0x200008, 4, 0x5a5a5a5a);
    config_out(TEST_DEVFN, PCI_BAR0 + 8, 4, 0x200000);
    expect_mem(2, 0x200000, true);
    config_out(TEST_DEVFN, PCI_BAR0 + 8, 4, 0xf0000000);
    ck_assert_uint_eq(mem_in(0x200008, 4), 0x5a5a5a5a);
}
END_TEST

/* Sizing leaves ones in all 32 bits, so the last ports can be told from that and are decoded. */
START_TEST(the_last_ports_are_decoded)
{
    config_out(TEST_DEVFN, PCI_COMMAND, 2, 1);
    config_out(TEST_DEVFN, PCI_BAR0, 4, 0xffe0);
    expect_io(0xffe0, true);
    outp(0xffff, 1, 0x5a);
    ck_assert_uint_eq(dev->offset, 0x1f);
    config_out(TEST_DEVFN, PCI_BAR0, 4, 0xffffffff);
    expect_io(0xffe0, false);
}
END_TEST

START_TEST(impossible_addresses_are_not_decoded)
{
    config_out(TEST_DEVFN, PCI_COMMAND, 2, 3);
    config_out(TEST_DEVFN, PCI_BAR0, 4, 0);
    ck_assert(!dev->pci.bars[0].mapped);
    config_out(TEST_DEVFN, PCI_BAR0, 4, 0xffffffff);
    ck_assert(!dev->pci.bars[0].mapped);
    config_out(TEST_DEVFN, PCI_BAR0, 4, 0x12000); /* there are 64 Ki ports */
    ck_assert(!dev->pci.bars[0].mapped);
    config_out(TEST_DEVFN, PCI_BAR0 + 8, 4, 0xffffffff);
    ck_assert(!dev->pci.bars[2].mapped);
    config_out(TEST_DEVFN, PCI_BAR0 + 16, 4, 0xffffffff);
    config_out(TEST_DEVFN, PCI_BAR0 + 20, 4, 0xffffffff);
    ck_assert(!dev->pci.bars[4].mapped);
    config_out(TEST_DEVFN, PCI_BAR0 + 8, 4, 0xe0000000);
    expect_mem(2, 0xe0000000, true);
}
END_TEST

/* ---- INTx and its routing ----------------------------------------------------------------------
 */

static void route_pirqs(uint8_t a, uint8_t b, uint8_t c, uint8_t d)
{
    config_out(PCI_DEVFN(1, 0), 0x60, 4, a | b << 8 | c << 16 | (uint32_t)d << 24);
}

static void expect_irqs(uint16_t levels)
{
    for (unsigned i = 0; i < 16; i++)
        ck_assert_msg(irq_level[i] == (levels >> i & 1), "interrupt %u is %d", i, irq_level[i]);
}

START_TEST(slots_turn_the_pins)
{
    static const unsigned irqs[4] = {5, 9, 10, 11};
    route_pirqs(5, 9, 10, 11);
    for (unsigned slot = 6; slot < 14; slot++)
        for (uint8_t pin = 1; pin <= 4; pin++) {
            struct test_device *other = plug((int)PCI_DEVFN(slot, 0), pin);
            pci_set_intx(&other->pci, true);
            /* slot 1 has INTA# on PIRQA, slot 2 on PIRQB ... */
            expect_irqs((uint16_t)(1u << irqs[(slot - 1 + pin - 1) % 4]));
            unplug(other); /* takes its level with it */
            expect_irqs(0);
        }
}
END_TEST

START_TEST(shared_level_interrupts)
{
    struct test_device *other = plug(PCI_DEVFN(9, 0), 1); /* same PIRQ as slot 5: A */
    struct test_device *third = plug(PCI_DEVFN(6, 0), 1); /* PIRQ B, routed to the same */
    route_pirqs(11, 11, 0x80, 0x80);
    pci_set_intx(&dev->pci, true);
    pci_set_intx(&other->pci, true);
    pci_set_intx(&third->pci, true);
    expect_irqs(1 << 11);
    pci_set_intx(&dev->pci, false);
    pci_set_intx(&other->pci, false);
    expect_irqs(1 << 11);
    pci_set_intx(&third->pci, false);
    expect_irqs(0);
    unplug(third);
    unplug(other);
}
END_TEST

START_TEST(routing_changes_under_a_pending_interrupt)
{
    pci_set_intx(&dev->pci, true);
    expect_irqs(0); /* reset state: not routed */
    route_pirqs(10, 0x80, 0x80, 0x80);
    expect_irqs(1 << 10);
    route_pirqs(7, 0x80, 0x80, 0x80);
    expect_irqs(1 << 7);
    route_pirqs(0x87, 0x80, 0x80, 0x80);
    expect_irqs(0);
    static const uint8_t reserved[] = {0, 1, 2, 8, 13};
    for (unsigned i = 0; i < sizeof(reserved); i++) {
        route_pirqs(reserved[i], 0x80, 0x80, 0x80);
        expect_irqs(0);
    }
    route_pirqs(12, 0x80, 0x80, 0x80);
    expect_irqs(1 << 12);
    isa->dev.reset(&isa->dev);
    expect_irqs(0);
}
END_TEST

START_TEST(interrupt_disable_and_status)
{
    route_pirqs(10, 10, 10, 10);
    ck_assert_uint_eq(config_in(TEST_DEVFN, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT, 0);
    pci_set_intx(&dev->pci, true);
    ck_assert_uint_ne(config_in(TEST_DEVFN, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT, 0);
    config_out(TEST_DEVFN, PCI_COMMAND, 2, PCI_COMMAND_INTX_DISABLE);
    expect_irqs(0);
    ck_assert_uint_ne(config_in(TEST_DEVFN, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT, 0);
    config_out(TEST_DEVFN, PCI_COMMAND, 2, 0);
    expect_irqs(1 << 10);
    pci_device_reset(&dev->pci);
    expect_irqs(0);
}
END_TEST

/* ---- MSI-X -------------------------------------------------------------------------------------
 */

#define TABLE 0xe0400000ull

static unsigned msix_capability(void)
{
    unsigned at = config_in(TEST_DEVFN, PCI_CAPABILITY_LIST, 1);
    ck_assert_uint_ne(config_in(TEST_DEVFN, PCI_STATUS, 2) & PCI_STATUS_CAP_LIST, 0);
    while (at && config_in(TEST_DEVFN, at, 1) != PCI_CAP_ID_MSIX)
        at = config_in(TEST_DEVFN, at + 1, 1);
    ck_assert_uint_ne(at, 0);
    return at;
}

static void set_entry(unsigned vector, uint64_t address, uint32_t data, bool masked)
{
    mem_out(TABLE + 16 * vector, 4, (uint32_t)address);
    mem_out(TABLE + 16 * vector + 4, 4, address >> 32);
    mem_out(TABLE + 16 * vector + 8, 4, data);
    mem_out(TABLE + 16 * vector + 12, 4, masked);
}

static unsigned enable_msix(uint16_t control)
{
    unsigned cap = msix_capability();
    config_out(TEST_DEVFN, PCI_BAR0 + 4, 4, (uint32_t)TABLE);
    config_out(TEST_DEVFN, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    config_out(TEST_DEVFN, cap + 2, 2, control);
    return cap;
}

START_TEST(msix_sends_and_masks)
{
    unsigned cap = enable_msix(0x8000);
    ck_assert_uint_eq(config_in(TEST_DEVFN, cap + 2, 2), 0x8003); /* 4 vectors */
    ck_assert_uint_eq(config_in(TEST_DEVFN, cap + 4, 4), 1);
    ck_assert_uint_eq(config_in(TEST_DEVFN, cap + 8, 4), 0x801);
    ck_assert_uint_eq(mem_in(TABLE + 12, 4), 1); /* reset: masked */
    msix_notify(&dev->pci, 0);
    ck_assert_uint_eq(message_count, 0);
    ck_assert_uint_eq(mem_in(TABLE + 0x800, 8), 1);
    set_entry(0, 0xfee01000, 0x4041, false); /* unmasking delivers what was pending, once */
    ck_assert_uint_eq(message_count, 1);
    ck_assert_uint_eq(messages[0].address, 0xfee01000);
    ck_assert_uint_eq(messages[0].data, 0x4041);
    ck_assert_uint_eq(mem_in(TABLE + 0x800, 8), 0);
    set_entry(3, 0x1fee02000, 0x99, false);
    msix_notify(&dev->pci, 3);
    ck_assert_uint_eq(messages[1].address, 0x1fee02000);
    /* the function mask */
    config_out(TEST_DEVFN, cap + 2, 2, 0xc000);
    msix_notify(&dev->pci, 3);
    msix_notify(&dev->pci, 3);
    msix_notify(&dev->pci, 0);
    ck_assert_uint_eq(message_count, 2);
    ck_assert_uint_eq(mem_in(TABLE + 0x800, 4), 9);
    mem_out(TABLE + 0x800, 8, 0); /* read-only */
    ck_assert_uint_eq(mem_in(TABLE + 0x800, 4), 9);
    config_out(TEST_DEVFN, cap + 2, 2, 0x8000);
    ck_assert_uint_eq(message_count, 4);
    ck_assert_uint_eq(mem_in(TABLE + 0x800, 4), 0);
    /* vectors that do not exist */
    msix_notify(&dev->pci, 4);
    msix_notify(&dev->pci, 0xffff);
    mem_out(TABLE + 16 * 4, 4, 0xffffffff);
    ck_assert_uint_eq(mem_in(TABLE + 16 * 4, 4), 0);
    ck_assert_uint_eq(message_count, 4);
}
END_TEST

START_TEST(msix_needs_its_enables)
{
    unsigned cap = enable_msix(0);
    set_entry(1, 0xfee00000, 1, false);
    msix_notify(&dev->pci, 1);
    ck_assert_uint_eq(message_count, 0); /* not enabled */
    route_pirqs(10, 10, 10, 10);
    pci_set_intx(&dev->pci, true);
    expect_irqs(1 << 10);
    config_out(TEST_DEVFN, cap + 2, 2, 0x8000);
    expect_irqs(0); /* enabled: INTx is silent */
    msix_notify(&dev->pci, 1);
    ck_assert_uint_eq(message_count, 1);
    config_out(TEST_DEVFN, PCI_COMMAND, 2, PCI_COMMAND_MEMORY); /* no bus mastering */
    msix_notify(&dev->pci, 1);
    ck_assert_uint_eq(message_count, 1);
    config_out(TEST_DEVFN, cap + 2, 2, 0);
    expect_irqs(1 << 10);
    pci_device_reset(&dev->pci);
    expect_irqs(0);
    enable_msix(0x8000);
    ck_assert_uint_eq(mem_in(TABLE + 16, 4), 0); /* the table was reset too */
    ck_assert_uint_eq(mem_in(TABLE + 16 + 12, 4), 1);
}
END_TEST

/* ---- DMA ---------------------------------------------------------------------------------------
 */

START_TEST(dma_rules)
{
    uint8_t buf[64] = {1, 2, 3};
    ck_assert(!pci_dma_write(&dev->pci, 0x1000, buf, 64)); /* bus mastering is off */
    ck_assert_uint_eq(mem_in(0x1000, 4), 0);
    config_out(TEST_DEVFN, PCI_BAR0 + 8, 4, 0xe0000000);
    config_out(TEST_DEVFN, PCI_COMMAND, 2, PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY);
    ck_assert(pci_dma_write(&dev->pci, 0x1ff0, buf, 64)); /* across pages */
    ck_assert_uint_eq(mem_in(0x1ff0, 4), 0x030201);
    ck_assert(pci_dma_read(&dev->pci, 0x1ff0, buf, 64));
    ck_assert(pci_dma_read(&dev->pci, RAM_SIZE - 64, buf, 64));
    ck_assert(!pci_dma_read(&dev->pci, RAM_SIZE - 63, buf, 64)); /* ends in a hole */
    ck_assert(!pci_dma_read(&dev->pci, RAM_SIZE, buf, 1));
    ck_assert(!pci_dma_write(&dev->pci, UINT64_MAX - 8, buf, 64)); /* wraps */
    unsigned reads = dev->reads[2], writes = dev->writes[2];
    ck_assert(!pci_dma_read(&dev->pci, 0xe0000000, buf, 4)); /* registers, even our own */
    ck_assert(!pci_dma_write(&dev->pci, 0xe0000000, buf, 4));
    ck_assert_uint_eq(dev->reads[2], reads);
    ck_assert_uint_eq(dev->writes[2], writes);
    mem_out(RAM_SIZE - 8, 8, 0x77);
    ck_assert(!pci_dma_write(&dev->pci, RAM_SIZE - 8, buf, 16)); /* all or nothing */
    ck_assert_uint_eq(mem_in(RAM_SIZE - 8, 8), 0x77);
}
END_TEST

/* ---- Without firmware ------------------------------------------------------------------------ */

static uint8_t elcr[2];

static uint64_t elcr_read(void *opaque, const struct access *access, uint64_t offset, unsigned size)
{
    (void)opaque;
    (void)access;
    (void)size;
    return elcr[offset];
}

static void elcr_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                       uint64_t value)
{
    (void)opaque;
    (void)access;
    (void)size;
    elcr[offset] = (uint8_t)value;
}

START_TEST(resources_without_firmware)
{
    static const struct io_ops elcr_ops = {.read = elcr_read, .write = elcr_write, .max = 1};
    struct test_device *more[20];
    struct error err = {""};
    for (unsigned i = 0; i < 20; i++)
        more[i] = plug(PCI_FIRST_FREE, (uint8_t)(i % 4 + 1));
    ck_assert_uint_eq(more[0]->pci.devfn, PCI_DEVFN(3, 0));
    ck_assert_uint_eq(more[2]->pci.devfn, PCI_DEVFN(6, 0)); /* 5 is taken */
    elcr[0] = 0x20;
    int handle = io_add(board.io, 0x4d0, 2, &elcr_ops, NULL, "elcr");
    ck_assert_msg(pci_assign_resources(bus, MEM_WINDOW, MEM_END, &err), "%s", err.msg);
    ck_assert_uint_eq(elcr[0], 0x20);
    ck_assert_uint_eq(elcr[1], 0x0c); /* 10 and 11 */
    ck_assert_uint_eq(config_in(PCI_DEVFN(1, 0), 0x60, 4), 0x0b0b0a0a);
    ck_assert_uint_eq(config_in(PCI_DEVFN(1, 3), PCI_INTERRUPT_LINE, 1), 9);
    for (unsigned i = 0; i < 20; i++) {
        struct pci_device *d = &more[i]->pci;
        unsigned irq = pci_pirq(d->devfn, i % 4) < 2 ? 10 : 11;
        ck_assert_uint_eq(config_in(d->devfn, PCI_INTERRUPT_LINE, 1), irq);
        pci_set_intx(d, true); /* the line register says the truth */
        expect_irqs((uint16_t)(1u << irq));
        pci_set_intx(d, false);
        for (unsigned b = 0; b < PCI_BARS; b++) {
            const struct pci_bar *bar = &d->bars[b];
            if (bar->kind == PCI_BAR_NONE)
                continue;
            ck_assert(bar->mapped && bar->base % bar->size == 0);
            if (bar->kind == PCI_BAR_IO)
                ck_assert(bar->base >= 0xc000 && bar->base + bar->size <= 0x10000);
            else
                ck_assert(bar->base >= MEM_WINDOW && bar->base + bar->size <= MEM_END);
            for (unsigned j = 0; j < i; j++)
                for (unsigned c = 0; c < PCI_BARS; c++) {
                    const struct pci_bar *other = &more[j]->pci.bars[c];
                    bool same = (other->kind == PCI_BAR_IO) == (bar->kind == PCI_BAR_IO);
                    if (other->kind != PCI_BAR_NONE && same)
                        ck_assert(bar->base + bar->size <= other->base ||
                                  other->base + other->size <= bar->base);
                }
        }
    }
    ck_assert(!pci_bus_master(&dev->pci));
    pci_device_reset(&dev->pci);
    ck_assert(!pci_assign_resources(bus, MEM_END - 0x100000, MEM_END, &err));
    ck_assert_msg(strstr(err.msg, "no address space") != NULL, "%s", err.msg);
    io_remove(board.io, handle);
    for (unsigned i = 0; i < 20; i++)
        unplug(more[i]);
}
END_TEST

START_TEST(slots_run_out)
{
    struct test_device *all[32], *extra = calloc(1, sizeof(*extra));
    struct error err = {""};
    unsigned n = 0;
    while (n < 28) /* slots 3 to 31, less the one in the fixture */
        all[n++] = plug(PCI_FIRST_FREE, 0);
    extra->pci.dev.name = "extra";
    ck_assert(!pci_device_add(bus, &extra->pci, PCI_FIRST_FREE, &err));
    ck_assert_msg(strstr(err.msg, "extra") != NULL, "%s", err.msg);
    ck_assert(!pci_device_add(bus, &extra->pci, TEST_DEVFN, &err));
    ck_assert_msg(strstr(err.msg, "05.0") != NULL, "%s", err.msg);
    free(extra);
    while (n)
        unplug(all[--n]);
}
END_TEST

/* Every field of the described state survives being copied into a fresh board of the same kind. */
START_TEST(state_can_be_restored)
{
    static const struct field fields[] = {PCI_DEVICE_FIELDS(struct test_device, pci)};
    struct test_device saved;
    route_pirqs(10, 10, 10, 10);
    enable_msix(0x8000);
    set_entry(1, 0xfee00000, 0x31, true);
    msix_notify(&dev->pci, 1);
    config_out(TEST_DEVFN, PCI_BAR0 + 8, 4, 0xe0000000);
    pci_set_intx(&dev->pci, true);
    memcpy(&saved, dev, sizeof(saved));
    pci_device_reset(&dev->pci);
    expect_mem(2, 0xe0000000, false);
    for (unsigned f = 0; f < sizeof(fields) / sizeof(fields[0]); f++)
        for (size_t i = 0; i < fields[f].count; i++)
            field_set(&fields[f], dev, i, field_get(&fields[f], &saved, i));
    pci_device_restored(&dev->pci);
    expect_mem(2, 0xe0000000, true);
    expect_irqs(0); /* MSI-X is on */
    mem_out(TABLE + 16 + 12, 4, 0);
    ck_assert_uint_eq(message_count, 1);
    ck_assert_uint_eq(messages[0].data, 0x31);
    config_out(TEST_DEVFN, msix_capability() + 2, 2, 0);
    expect_irqs(1 << 10);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pci");
    TCase *tc = tcase_create("pci");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, chips_are_where_drivers_look);
    tcase_add_test(tc, mechanism_one);
    tcase_add_test(tc, only_writable_bits_change);
    tcase_add_test(tc, reset_control);
    tcase_add_test(tc, bar_sizing);
    tcase_add_test(tc, decoding_follows_the_command_register);
    tcase_add_test(tc, bars_move);
    tcase_add_test(tc, impossible_addresses_are_not_decoded);
    tcase_add_test(tc, the_last_ports_are_decoded);
    tcase_add_test(tc, slots_turn_the_pins);
    tcase_add_test(tc, shared_level_interrupts);
    tcase_add_test(tc, routing_changes_under_a_pending_interrupt);
    tcase_add_test(tc, interrupt_disable_and_status);
    tcase_add_test(tc, msix_sends_and_masks);
    tcase_add_test(tc, msix_needs_its_enables);
    tcase_add_test(tc, dma_rules);
    tcase_add_test(tc, resources_without_firmware);
    tcase_add_test(tc, slots_run_out);
    tcase_add_test(tc, state_can_be_restored);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
