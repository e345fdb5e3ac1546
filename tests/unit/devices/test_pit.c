/*
 * test_pit.c - the 8254: all six modes as its data sheet draws them, latching, read-back, BCD, the
 * exact rate of IRQ 0, and the speaker port.
 */
#include "bench.h"

static struct pit *pit;
static struct probe irq0;

static void setup(void)
{
    irq0 = (struct probe){0};
    pit = pit_new(bench_setup(), probe_line(&irq0));
}

/* Moves time to the middle of the tick that is `ticks` after the present one. */
static void ticks(uint64_t n)
{
    uint64_t now = clock_muldiv(bench.now, PIT_HZ, CLOCK_HZ);
    uint64_t at = clock_ticks_to_ns(now + n, PIT_HZ) + 400;
    bench_advance(at - bench.now);
}

static void control(uint8_t value)
{
    out8(0x43, value);
}

static void load(unsigned counter, uint16_t count)
{
    out8((uint16_t)(0x40 + counter), (uint8_t)count);
    out8((uint16_t)(0x40 + counter), (uint8_t)(count >> 8));
}

static uint16_t word(unsigned counter)
{
    uint8_t low = in8((uint16_t)(0x40 + counter));
    return (uint16_t)(low | in8((uint16_t)(0x40 + counter)) << 8);
}

static uint16_t value(unsigned counter)
{
    control((uint8_t)(counter << 6));
    return word(counter);
}

/* Bit 7 is OUT, bit 6 NULL COUNT. */
static uint8_t status(unsigned counter)
{
    control((uint8_t)(0xe0 | 2 << counter));
    return in8((uint16_t)(0x40 + counter));
}

static bool out(unsigned counter)
{
    return status(counter) >> 7;
}
static bool null_count(unsigned counter)
{
    return status(counter) >> 6 & 1;
}

static void gate2(bool on)
{
    out8(0x61, on);
}

START_TEST(mode_0_interrupts_at_terminal_count)
{
    setup();
    ticks(1);
    control(0x30);
    ck_assert(!irq0.level);
    unsigned before = irq0.rises;
    load(0, 1000);
    ck_assert(null_count(0));
    ticks(1);
    ck_assert(!null_count(0));
    ck_assert_uint_eq(value(0), 1000);
    ticks(999);
    ck_assert_uint_eq(value(0), 1);
    ck_assert(!out(0) && !irq0.level);
    ticks(1);
    ck_assert(out(0) && irq0.level);
    ck_assert_uint_eq(irq0.rises, before + 1);
    ticks(5);
    ck_assert_uint_eq(value(0), 65536 - 5); /* goes on counting */
    ck_assert(out(0));
    out8(0x40, 10); /* the first byte of a new count lowers OUT */
    ck_assert(!out(0) && !irq0.level);
    out8(0x40, 0);
    ticks(11);
    ck_assert(out(0));
    bench_destroy(pit);
}
END_TEST

START_TEST(mode_0_gate_holds_the_count)
{
    setup();
    gate2(false);
    control(0xb0);
    load(2, 100);
    ticks(50);
    ck_assert_uint_eq(value(2), 100);
    gate2(true);
    ticks(30);
    ck_assert_uint_eq(value(2), 70);
    gate2(false);
    ticks(1000);
    ck_assert_uint_eq(value(2), 70);
    gate2(true);
    ticks(69);
    ck_assert(!(in8(0x61) & 0x20));
    ticks(1);
    ck_assert(in8(0x61) & 0x20);
    bench_destroy(pit);
}
END_TEST

START_TEST(mode_1_is_a_retriggerable_one_shot)
{
    setup();
    gate2(false);
    control(0xb2);
    load(2, 20);
    ck_assert(out(2) && null_count(2));
    ticks(10);
    ck_assert(out(2));
    gate2(true); /* trigger */
    ticks(1);
    ck_assert(!out(2) && !null_count(2));
    ticks(15);
    gate2(false); /* no effect */
    gate2(true);  /* again: starts anew */
    ticks(20);
    ck_assert(!out(2));
    ticks(1);
    ck_assert(out(2));
    bench_destroy(pit);
}
END_TEST

START_TEST(mode_2_divides_the_rate_exactly)
{
    setup();
    ticks(1);
    control(0x34);
    load(0, 11932); /* Linux: 100 Hz */
    unsigned before = irq0.rises;
    uint64_t start = clock_muldiv(bench.now, PIT_HZ, CLOCK_HZ) + 1;
    for (uint64_t i = 1; i <= 1000; i++) {
        uint64_t edge = clock_ticks_to_ns(start + i * 11932, PIT_HZ);
        bench_advance(edge - 1 - bench.now);
        ck_assert_uint_eq(irq0.rises, before + i - 1);
        bench_advance(1);
        ck_assert_uint_eq(irq0.rises, before + i);
    }
    ck_assert_uint_eq(value(0), 11932);
    ticks(11931);
    ck_assert_uint_eq(value(0), 1);
    ck_assert(!out(0)); /* low for the last tick */
    ticks(1);
    ck_assert(out(0));
    /* a new count waits for the end of the present period */
    ticks(932);
    load(0, 100);
    ck_assert(null_count(0));
    ck_assert_uint_eq(value(0), 11000);
    before = irq0.rises;
    ticks(11000);
    ck_assert_uint_eq(irq0.rises, before + 1);
    ck_assert(!null_count(0));
    ck_assert_uint_eq(value(0), 100);
    ticks(100);
    ck_assert_uint_eq(irq0.rises, before + 2);
    bench_destroy(pit);
}
END_TEST

START_TEST(mode_2_gate_restarts)
{
    setup();
    gate2(true);
    control(0xb4);
    load(2, 100);
    ticks(100);
    ck_assert_uint_eq(value(2), 1);
    ck_assert(!out(2));
    gate2(false); /* OUT goes high at once */
    ck_assert(out(2));
    ticks(7);
    gate2(true);
    ticks(1);
    ck_assert_uint_eq(value(2), 100);
    bench_destroy(pit);
}
END_TEST

START_TEST(mode_3_is_square)
{
    setup();
    gate2(true);
    control(0xb6);
    load(2, 10);
    ticks(1);
    static const uint16_t even[10] = {10, 8, 6, 4, 2, 10, 8, 6, 4, 2};
    for (unsigned i = 0; i < 20; i++) {
        ck_assert_uint_eq(value(2), even[i % 10]);
        ck_assert_int_eq(out(2), i % 10 < 5);
        ticks(1);
    }
    control(0xb6);
    load(2, 9); /* high for 5, low for 4 */
    ticks(1);
    static const uint16_t odd[9] = {8, 6, 4, 2, 0, 8, 6, 4, 2};
    for (unsigned i = 0; i < 18; i++) {
        ck_assert_uint_eq(value(2), odd[i % 9]);
        ck_assert_int_eq(out(2), i % 9 < 5);
        ticks(1);
    }
    /* a new count gets in at the end of the half cycle, and goes on with the other half */
    load(2, 20);
    ticks(5);
    for (unsigned i = 0; i < 10; i++) {
        ck_assert(!out(2));
        ticks(1);
    }
    ck_assert(out(2));
    bench_destroy(pit);
}
END_TEST

START_TEST(mode_3_interrupts_once_per_cycle)
{
    setup(); /* powers on at 18.2 Hz */
    unsigned before = irq0.rises;
    bench_advance(1000000000);
    ck_assert_uint_eq(irq0.rises, before + 18);
    control(0x36);
    load(0, 1193);
    before = irq0.rises;
    bench_advance(1000000000);
    ck_assert_uint_eq(irq0.rises, before + 1000);
    /* a new count in the high half: that ends, then the new low half, and only then a rise */
    control(0x36);
    load(0, 1000);
    ticks(101);
    load(0, 2000);
    before = irq0.rises;
    ticks(400 + 1000 - 1);
    ck_assert_uint_eq(irq0.rises, before);
    ticks(1);
    ck_assert_uint_eq(irq0.rises, before + 1);
    ticks(2000);
    ck_assert_uint_eq(irq0.rises, before + 2);
    bench_destroy(pit);
}
END_TEST

START_TEST(mode_4_strobes_once)
{
    setup();
    ticks(1);
    control(0x38);
    unsigned before = irq0.rises;
    load(0, 50);
    ticks(50);
    ck_assert(out(0));
    ticks(1);
    ck_assert(!out(0));
    ck_assert_uint_eq(irq0.rises, before);
    ticks(1);
    ck_assert(out(0));
    ck_assert_uint_eq(irq0.rises, before + 1);
    ticks(100000);
    ck_assert_uint_eq(irq0.rises, before + 1);
    bench_destroy(pit);
}
END_TEST

START_TEST(mode_5_strobes_after_a_trigger)
{
    setup();
    gate2(false);
    control(0xba);
    load(2, 30);
    ticks(100);
    ck_assert(out(2));
    gate2(true);
    ticks(31);
    ck_assert(!out(2));
    ticks(1);
    ck_assert(out(2));
    bench_destroy(pit);
}
END_TEST

START_TEST(bcd_counts_in_decimal)
{
    setup();
    gate2(true);
    control(0xb1);
    load(2, 0x1000);
    ticks(2);
    ck_assert_uint_eq(value(2), 0x0999);
    load(2, 0); /* 10000 */
    ticks(2);
    ck_assert_uint_eq(value(2), 0x9999);
    bench_destroy(pit);
}
END_TEST

START_TEST(latches_and_read_back)
{
    setup();
    gate2(true);
    control(0xb4);
    load(2, 5000);
    ticks(101);
    control(0x80); /* latch */
    ticks(100);
    control(0x80); /* ignored: the first is not read yet */
    ck_assert_uint_eq(word(2), 4900);
    ck_assert_uint_eq(word(2), 4800); /* live again */
    control(0xc8);                    /* read back counter 2: status, count */
    ticks(50);
    ck_assert_uint_eq(in8(0x42), 0x80 | 0x34);
    ck_assert_uint_eq(word(2), 4800);
    control(0x94); /* low byte only */
    out8(0x42, 200);
    ticks(11);
    ck_assert_uint_eq(in8(0x42), 190);
    ck_assert_uint_eq(in8(0x42), 190);
    control(0xa4); /* high byte only */
    out8(0x42, 2);
    ticks(13);
    ck_assert_uint_eq(in8(0x42), 1);
    bench_destroy(pit);
}
END_TEST

/* "Bits D5 through D0 contain the counter's programmed mode exactly as written": modes 6 and 7, the
 * other names of 2 and 3, too. */
START_TEST(status_shows_the_mode_as_written)
{
    setup();
    for (unsigned mode = 0; mode < 8; mode++) {
        control((uint8_t)(0xb0 | mode << 1));
        ck_assert_uint_eq(status(2) & 0x3f, 0x30 | mode << 1);
    }
    bench_destroy(pit);
}
END_TEST

START_TEST(refresh_bit_toggles)
{
    setup();
    unsigned toggles = 0;
    uint8_t last = in8(0x61) & 0x10;
    for (unsigned i = 0; i < 1000; i++) { /* 1 ms in steps of 1 us */
        bench_advance(1000);
        toggles += (in8(0x61) & 0x10) != last;
        last = in8(0x61) & 0x10;
    }
    ck_assert_uint_eq(toggles, 66);
    out8(0x61, 0xff);
    ck_assert_uint_eq(in8(0x61) & 0xcf, 0x0f);
    bench_destroy(pit);
}
END_TEST

START_TEST(storms_are_bounded)
{
    setup();
    control(0x34);
    load(0, 1);
    unsigned fired = bench_advance(1000000);
    ck_assert_uint_ge(fired, 80);
    ck_assert_uint_le(fired, 110);
    for (unsigned c = 0; c < 256; c++) { /* no control word or count does harm */
        control((uint8_t)c);
        load(c % 3, (uint16_t)(c * 257));
        out8(0x61, (uint8_t)c);
        bench_advance(777);
        in8((uint16_t)(0x40 + c % 3));
    }
    bench_destroy(pit);
}
END_TEST

/* The I/O thread may be late. An access that arms counter 0 anew, be it a latch command, must not
 * take an edge that is due for one that has been. */
START_TEST(late_edge_is_not_lost)
{
    setup();
    control(0x34);
    load(0, 1000);
    ticks(1);
    irq0.rises = 0;
    for (unsigned i = 1; i <= 3; i++) {
        bench_be_late(clock_ticks_to_ns(1000, PIT_HZ));
        value(0);
        ck_assert_uint_eq(irq0.rises, i);
        value(0);
        ck_assert_uint_eq(irq0.rises, i);
    }
    bench_be_late(clock_ticks_to_ns(1000, PIT_HZ));
    value(2); /* another counter's */
    ck_assert_uint_eq(irq0.rises, 4);
    control(0x30);
    load(0, 1000);
    irq0.rises = 0;
    bench_be_late(clock_ticks_to_ns(1002, PIT_HZ));
    load(0, 1000); /* the next one-shot */
    ck_assert_uint_eq(irq0.rises, 1);
    ck_assert(!irq0.level);
    ticks(1001);
    ck_assert_uint_eq(irq0.rises, 2);
    bench_destroy(pit);
}
END_TEST

BENCH_MAIN("pit", mode_0_interrupts_at_terminal_count, mode_0_gate_holds_the_count,
           mode_1_is_a_retriggerable_one_shot, mode_2_divides_the_rate_exactly,
           mode_2_gate_restarts, mode_3_is_square, mode_3_interrupts_once_per_cycle,
           mode_4_strobes_once, mode_5_strobes_after_a_trigger, bcd_counts_in_decimal,
           latches_and_read_back, status_shows_the_mode_as_written, refresh_bit_toggles,
           storms_are_bounded, late_edge_is_not_lost)
