/*
 * test_ioapic.c - the I/O APIC's entries and remote IRR, seen from a CPU behind its local APIC, and
 * the wires of gsi.c that reach it and the 8259A pair.
 */
#include "bench.h"

static struct pic *pic;
static struct apic_bus *bus;
static struct fake_cpu cpu[2];
static struct lapic *lapic[2];
static struct lapic_port port[2];
static struct ioapic *ioapic;
static struct gsi *gsi;

enum { MASKED = 1 << 16, LEVEL = 1 << 15, REMOTE_IRR = 1 << 14, LOGICAL = 1 << 11 };

static void lapic_wr(unsigned n, uint32_t reg, uint32_t value)
{
    bench_access.vcpu = (uint16_t)n;
    mmio_write(APIC_DEFAULT_BASE + reg, value);
}

static void setup(void)
{
    struct board *board = bench_setup();
    memset(cpu, 0, sizeof(cpu));
    pic = pic_new(board);
    bus = apic_bus_new(board, pic, NULL);
    for (unsigned i = 0; i < 2; i++) {
        struct lapic_config config = fake_cpu_config(&cpu[i], i);
        lapic[i] = lapic_new(bus, &config);
        port[i] = lapic_port(lapic[i]);
        lapic_wr(i, 0xf0, 0x1ff);
    }
    pic_connect(pic, lapic_lint(lapic[0], 0));
    ioapic = ioapic_new(board, bus, NULL);
    gsi = gsi_new(board, pic, ioapic);
}

static void teardown(void)
{
    bench_destroy(gsi);
    bench_destroy(ioapic);
    bench_destroy(lapic[0]);
    bench_destroy(lapic[1]);
    apic_bus_free(bus);
    bench_destroy(pic);
}

static uint32_t rd(uint8_t index)
{
    mmio_write(IOAPIC_BASE, index);
    return mmio_read(IOAPIC_BASE + 0x10);
}

static void wr(uint8_t index, uint32_t value)
{
    mmio_write(IOAPIC_BASE, index);
    mmio_write(IOAPIC_BASE + 0x10, value);
}

static void program(unsigned pin, uint32_t low, uint8_t dest)
{
    wr((uint8_t)(0x11 + 2 * pin), (uint32_t)dest << 24);
    wr((uint8_t)(0x10 + 2 * pin), low);
}

static uint32_t entry(unsigned pin)
{
    return rd((uint8_t)(0x10 + 2 * pin));
}

static void drive(unsigned pin, bool level)
{
    struct irq_line line = ioapic_line(ioapic, pin);
    irq_set(&line, level);
}

static int ack(unsigned n)
{
    return port[n].acknowledge(port[n].lapic);
}

START_TEST(registers)
{
    setup();
    ck_assert_uint_eq(rd(1), 0x00170020);
    wr(0, 0xffffffff);
    ck_assert_uint_eq(rd(0), 0x0f000000);
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        ck_assert_uint_eq(entry(pin), MASKED);
    program(3, 0xffffffff, 0xff); /* delivery status and remote IRR are read only */
    ck_assert_uint_eq(entry(3), 0x1afff);
    ck_assert_uint_eq(rd(0x17), 0xff000000);
    ck_assert_uint_eq(rd(0x40), 0); /* behind the last entry */
    bench_reset(ioapic);
    ck_assert_uint_eq(entry(3), MASKED);
    teardown();
}
END_TEST

/* A level that nobody takes is sent until somebody does: a local APIC that is enabled, or gets its
 * logical id, while the line is high. */
START_TEST(a_level_waits_for_a_local_apic)
{
    setup();
    lapic_wr(1, 0xf0, 0xff);
    program(11, LEVEL | 0x45, 1);
    drive(11, true);
    ck_assert_int_eq(ack(1), -1);
    ck_assert(!(entry(11) & REMOTE_IRR));
    lapic_wr(1, 0xf0, 0x1ff);
    ck_assert_int_eq(ack(1), 0x45);
    ck_assert(entry(11) & REMOTE_IRR);
    drive(11, false);
    lapic_wr(1, 0xb0, 0);
    program(11, LEVEL | LOGICAL | 0x46, 0x80);
    drive(11, true);
    ck_assert_int_eq(ack(1), -1);
    lapic_wr(1, 0xd0, 0x80000000);
    ck_assert_int_eq(ack(1), 0x46);
    teardown();
}
END_TEST

START_TEST(edge)
{
    setup();
    program(4, 0x34, 1);
    drive(4, true);
    drive(4, true); /* the same level again is no edge */
    ck_assert(!fake_cpu_interrupted(&cpu[0]));
    ck_assert_int_eq(ack(1), 0x34);
    ck_assert_int_eq(ack(1), -1);
    lapic_wr(1, 0xb0, 0);
    ck_assert_int_eq(ack(1), -1);
    program(4, MASKED | 0x34, 1);
    drive(4, false);
    drive(4, true); /* lost: masked */
    program(4, 0x34, 1);
    ck_assert_int_eq(ack(1), -1);
    drive(4, false);
    drive(4, true);
    ck_assert_int_eq(ack(1), 0x34);
    teardown();
}
END_TEST

START_TEST(level_with_remote_irr)
{
    setup();
    program(10, LEVEL | 0x3a, 0);
    drive(10, true);
    ck_assert_uint_eq(entry(10), LEVEL | REMOTE_IRR | 0x3a);
    ck_assert_int_eq(ack(0), 0x3a);
    ck_assert_int_eq(ack(0), -1);
    lapic_wr(0, 0xb0, 0); /* EOI with the line still high: again */
    ck_assert_uint_eq(entry(10), LEVEL | REMOTE_IRR | 0x3a);
    ck_assert_int_eq(ack(0), 0x3a);
    drive(10, false);
    lapic_wr(0, 0xb0, 0);
    ck_assert_uint_eq(entry(10), LEVEL | 0x3a);
    ck_assert_int_eq(ack(0), -1);
    /* a level that comes while masked is seen at the unmasking */
    program(10, MASKED | LEVEL | 0x3a, 0);
    drive(10, true);
    ck_assert_int_eq(ack(0), -1);
    program(10, LEVEL | 0x3a, 0);
    ck_assert_int_eq(ack(0), 0x3a);
    /* an edge of the same vector makes TMR an edge's, and its EOI is not broadcast */
    bench_access.vcpu = 0;
    ck_assert_uint_eq(mmio_read(APIC_DEFAULT_BASE + 0x190), 1u << 0x1a);
    program(4, 0x3a, 0);
    drive(4, true);
    ck_assert_uint_eq(mmio_read(APIC_DEFAULT_BASE + 0x190), 0);
    lapic_wr(0, 0xb0, 0);
    ck_assert_uint_eq(entry(10), LEVEL | REMOTE_IRR | 0x3a);
    teardown();
}
END_TEST

START_TEST(a_message_nobody_takes_leaves_no_remote_irr)
{
    setup();
    program(10, LEVEL | 0x3a, 7); /* there is no APIC 7 */
    drive(10, true);
    ck_assert_uint_eq(entry(10), LEVEL | 0x3a);
    lapic_wr(1, 0xf0, 0xff); /* 1 is software disabled */
    program(10, LEVEL | 0x3a, 1);
    ck_assert_uint_eq(entry(10), LEVEL | 0x3a);
    program(10, LEVEL | 0x3a, 0);
    ck_assert_uint_eq(entry(10), LEVEL | REMOTE_IRR | 0x3a);
    ck_assert_int_eq(ack(0), 0x3a);
    teardown();
}
END_TEST

START_TEST(directed_and_suppressed_eoi)
{
    setup();
    lapic_wr(0, 0xf0, 0x11ff); /* no EOI broadcast */
    program(10, LEVEL | 0x3a, 0);
    drive(10, true);
    ck_assert_int_eq(ack(0), 0x3a);
    drive(10, false);
    lapic_wr(0, 0xb0, 0);
    ck_assert_uint_eq(entry(10), LEVEL | REMOTE_IRR | 0x3a);
    mmio_write(IOAPIC_BASE + 0x40, 0x3b);
    ck_assert_uint_eq(entry(10), LEVEL | REMOTE_IRR | 0x3a);
    mmio_write(IOAPIC_BASE + 0x40, 0x3a);
    ck_assert_uint_eq(entry(10), LEVEL | 0x3a);
    drive(10, true); /* stuck: a switch to edge and back frees it */
    program(10, MASKED | 0x3a, 0);
    ck_assert_uint_eq(entry(10), MASKED | 0x3a);
    teardown();
}
END_TEST

START_TEST(destinations_and_modes)
{
    setup();
    lapic_wr(0, 0xd0, 1u << 24);
    lapic_wr(1, 0xd0, 2u << 24);
    program(5, LOGICAL | 0x100 | 0x60, 3); /* lowest priority among both */
    lapic_wr(0, 0x80, 0x20);
    drive(5, true);
    ck_assert_int_eq(ack(1), 0x60);
    ck_assert_int_eq(ack(0), -1);
    program(6, LOGICAL | 0x61, 3); /* fixed: both */
    drive(6, true);
    ck_assert_int_eq(ack(0), 0x61);
    program(7, 0x400, 1);
    drive(7, true);
    ck_assert_uint_eq(cpu[1].nmis, 1);
    program(8, 0x600 | 0x55, 1); /* SIPI is reserved here */
    drive(8, true);
    ck_assert_uint_eq(cpu[1].sipis, 0);
    program(9, LEVEL | 0x500, 1); /* INIT is an edge whatever bit 15 says */
    drive(9, true);
    ck_assert_uint_eq(cpu[1].inits, 1);
    ck_assert_uint_eq(entry(9), LEVEL | 0x500);
    teardown();
}
END_TEST

START_TEST(extint_message_asks_the_pic)
{
    setup();
    lapic_wr(0, 0x350, MASKED | 0x700); /* LINT0 masked: only the message can do it */
    out8(0x20, 0x11), out8(0x21, 0x20), out8(0x21, 0x04), out8(0x21, 0x01);
    struct irq_line irq = pic_line(pic, 6);
    irq_set(&irq, true);
    ck_assert_int_eq(ack(0), -1);
    program(0, 0x700, 0);
    drive(0, true);
    ck_assert(fake_cpu_interrupted(&cpu[0]));
    ck_assert_int_eq(ack(0), 0x26);
    ck_assert(!fake_cpu_interrupted(&cpu[0]));
    teardown();
}
END_TEST

START_TEST(gsi_wires)
{
    setup();
    out8(0x20, 0x11), out8(0x21, 0x20), out8(0x21, 0x04), out8(0x21, 0x01);
    out8(0xa0, 0x11), out8(0xa1, 0x28), out8(0xa1, 0x02), out8(0xa1, 0x01);
    lapic_wr(0, 0x350, MASKED | 0x700);
    program(2, 0x30, 0);
    struct irq_line timer = gsi_line(gsi, 0), two = gsi_line(gsi, 2);
    irq_set(&timer, true);
    ck_assert_int_eq(ack(0), 0x30); /* the timer is on input 2 */
    lapic_wr(0, 0xb0, 0);
    irq_set(&two, true); /* and nothing else is */
    ck_assert_int_eq(ack(0), -1);
    ck_assert_int_eq(pic_acknowledge(pic), 0x20);
    out8(0x20, 0x20);
    /* two devices share one level-triggered line */
    out8(0x4d1, 0x08);
    program(11, LEVEL | 0x3b, 0);
    struct irq_line a = gsi_line(gsi, 11), b = gsi_line(gsi, 11);
    irq_set(&a, true);
    irq_set(&b, true);
    ck_assert_int_eq(ack(0), 0x3b);
    irq_set(&a, false);
    lapic_wr(0, 0xb0, 0);
    ck_assert_int_eq(ack(0), 0x3b); /* b still asks */
    ck_assert_int_eq(pic_acknowledge(pic), 0x2b);
    irq_set(&b, false);
    lapic_wr(0, 0xb0, 0);
    ck_assert_int_eq(ack(0), -1);
    program(20, LEVEL | 0x44, 0); /* above 15: I/O APIC only */
    struct irq_line pci = gsi_line(gsi, 20);
    irq_set(&pci, true);
    ck_assert_int_eq(ack(0), 0x44);
    teardown();
}
END_TEST

BENCH_MAIN("ioapic", registers, a_level_waits_for_a_local_apic, edge, level_with_remote_irr,
           a_message_nobody_takes_leaves_no_remote_irr, directed_and_suppressed_eoi,
           destinations_and_modes, extint_message_asks_the_pic, gsi_wires)
