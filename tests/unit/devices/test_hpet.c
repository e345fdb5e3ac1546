/*
 * test_hpet.c - the HPET: counter, one-shot and periodic comparators, routes, FSB, legacy
 * replacement.
 */
#include "bench.h"

static struct pic *pic;
static struct apic_bus *bus;
static struct fake_cpu cpu;
static struct lapic *lapic;
static struct lapic_port port;
static struct ioapic *ioapic;
static struct gsi *gsi;
static struct hpet *hpet;

static void route(unsigned pin, uint32_t low)
{
    mmio_write(IOAPIC_BASE, 0x10 + 2 * pin);
    mmio_write(IOAPIC_BASE + 0x10, low);
}

static void setup(void)
{
    struct board *board = bench_setup();
    cpu = (struct fake_cpu){0};
    pic = pic_new(board);
    bus = apic_bus_new(board, pic, NULL);
    struct lapic_config config = fake_cpu_config(&cpu, 0);
    lapic = lapic_new(bus, &config);
    port = lapic_port(lapic);
    ioapic = ioapic_new(board, bus, NULL);
    gsi = gsi_new(board, pic, ioapic);
    hpet = hpet_new(board, gsi, apic_bus_msi(bus), NULL);
    mmio_write(APIC_DEFAULT_BASE + 0xf0, 0x1ff);
    route(2, 0x30);
    route(8, 0x38);
    route(20, 0x44);
    route(21, 0x8045); /* level */
}

static void teardown(void)
{
    bench_destroy(hpet);
    bench_destroy(gsi);
    bench_destroy(ioapic);
    bench_destroy(lapic);
    apic_bus_free(bus);
    bench_destroy(pic);
}

static uint32_t rd(unsigned reg)
{
    return mmio_read(HPET_BASE + reg);
}
static void wr(unsigned reg, uint32_t value)
{
    mmio_write(HPET_BASE + reg, value);
}

/* Takes and ends an interrupt: its vector or -1. */
static int take(void)
{
    int vector = port.acknowledge(port.lapic);
    if (vector >= 0)
        mmio_write(APIC_DEFAULT_BASE + 0xb0, 0);
    return vector;
}

START_TEST(counter)
{
    setup();
    ck_assert_uint_eq(rd(0), 0x8086a201);
    ck_assert_uint_eq(rd(4), 10000000);
    bench_advance(1000);
    ck_assert_uint_eq(rd(0xf0), 0); /* halted */
    wr(0xf0, 0xfffffff0), wr(0xf4, 5);
    wr(0x10, 1);
    bench_advance(319);
    ck_assert_uint_eq(rd(0xf0), 15);
    ck_assert_uint_eq(rd(0xf4), 6);
    wr(0xf0, 7); /* running: refused */
    ck_assert_uint_eq(rd(0xf0), 15);
    wr(0x10, 0);
    bench_advance(1000);
    ck_assert_uint_eq(rd(0xf0), 15);
    teardown();
}
END_TEST

START_TEST(one_shot)
{
    setup();
    wr(0x100, 20 << 9 | 4); /* route 20, edge */
    ck_assert_uint_eq(rd(0x100), 0x8030 | 20 << 9 | 4);
    ck_assert_uint_eq(rd(0x104), 0xf00000);
    wr(0x108, 100), wr(0x10c, 0);
    wr(0x10, 1);
    bench_advance(999);
    ck_assert_int_eq(take(), -1);
    bench_advance(1);
    ck_assert_int_eq(take(), 0x44);
    bench_advance(100000000);
    ck_assert_int_eq(take(), -1);
    wr(0x100, 20 << 9 | 4 | 0x100); /* 32 bits: again after each wrap */
    wr(0x108, rd(0xf0) + 10);
    bench_advance(100);
    ck_assert_int_eq(take(), 0x44);
    bench_advance((1ull << 32) * 10 - 1);
    ck_assert_int_eq(take(), -1);
    bench_advance(1);
    ck_assert_int_eq(take(), 0x44);
    teardown();
}
END_TEST

START_TEST(periodic_without_drift)
{
    setup();
    wr(0x12c, 0);
    wr(0x120, 20 << 9 | 4 | 8 | 0x40);
    wr(0x128, 5000), wr(0x128, 12345); /* first match, then the period */
    wr(0x10, 1);
    bench_advance(50000);
    ck_assert_int_eq(take(), 0x44);
    for (unsigned i = 1; i <= 100; i++) {
        bench_advance(123449);
        ck_assert_int_eq(take(), -1);
        bench_advance(1);
        ck_assert_int_eq(take(), 0x44);
    }
    wr(0x120, 20 << 9 | 4 | 8 | 0x40);
    wr(0x128, rd(0xf0) + 1), wr(0x128, 1); /* a storm is bounded */
    unsigned fired = bench_advance(1000000);
    ck_assert_uint_ge(fired, 90);
    ck_assert_uint_le(fired, 110);
    teardown();
}
END_TEST

START_TEST(level_and_status)
{
    setup();
    wr(0x140, 21 << 9 | 4 | 2);
    wr(0x148, 10), wr(0x14c, 0);
    wr(0x10, 1);
    bench_advance(100);
    ck_assert_uint_eq(rd(0x20), 4);
    ck_assert_int_eq(take(), 0x45);
    ck_assert_int_eq(take(), 0x45); /* until the status is cleared */
    wr(0x20, 4);
    ck_assert_int_eq(take(), 0x45); /* the one that was on its way */
    ck_assert_int_eq(take(), -1);
    teardown();
}
END_TEST

START_TEST(fsb_message)
{
    setup();
    wr(0x110, 0x5a), wr(0x114, 0xfee00000);
    wr(0x100, 0x4004);
    wr(0x108, 10), wr(0x10c, 0);
    wr(0x10, 1);
    bench_advance(100);
    ck_assert_int_eq(take(), 0x5a);
    teardown();
}
END_TEST

START_TEST(legacy_replacement)
{
    setup();
    struct irq_line pit = gsi_line(gsi, 0), rtc = gsi_line(gsi, 8);
    irq_set(&pit, true);
    ck_assert_int_eq(take(), 0x30); /* straight through */
    wr(0x10, 2);
    irq_set(&pit, false);
    irq_set(&pit, true);
    irq_set(&rtc, true);
    ck_assert_int_eq(take(), -1);
    wr(0x100, 4), wr(0x120, 4);
    wr(0x108, 10), wr(0x10c, 0);
    wr(0x128, 20), wr(0x12c, 0);
    wr(0x10, 3);
    bench_advance(100);
    ck_assert_int_eq(take(), 0x30);
    bench_advance(100);
    ck_assert_int_eq(take(), 0x38);
    wr(0x10, 1); /* back: the RTC's line is up */
    ck_assert_int_eq(take(), 0x38);
    teardown();
}
END_TEST

/* The I/O thread may be late. A write that arms the comparators anew must not take a match that is
 * due for one that has been missed: with 64 bits, that would be for ever. */
START_TEST(late_match_is_not_lost)
{
    setup();
    wr(0x12c, 0);
    wr(0x120, 20 << 9 | 4 | 8 | 0x40);
    wr(0x128, 2000), wr(0x128, 2000);
    wr(0x10, 1);
    bench_be_late(25000); /* 2500 ticks */
    wr(0x10, 1);
    ck_assert_int_eq(take(), 0x44);
    bench_advance(14990);
    ck_assert_int_eq(take(), -1);
    bench_advance(10);
    ck_assert_int_eq(take(), 0x44);
    bench_be_late(25000);
    wr(0x120, 20 << 9 | 4 | 8); /* its own configuration, as it is */
    ck_assert_int_eq(take(), 0x44);
    bench_be_late(20000);
    ck_assert_uint_eq(rd(0x128), 10000); /* what it shows is up to date, too */
    ck_assert_int_eq(take(), 0x44);
    wr(0x10, 0);
    teardown();
}
END_TEST

BENCH_MAIN("hpet", counter, one_shot, periodic_without_drift, level_and_status, fsb_message,
           legacy_replacement, late_match_is_not_lost)
