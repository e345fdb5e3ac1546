/*
 * test_rtc.c - the MC146818: calendar, formats, setting the time, update, alarm and periodic
 * interrupts, and the CMOS bytes.
 */
#include "bench.h"
#include <time.h>

static struct rtc *rtc;
static struct probe irq8;

static void setup_at(int64_t seconds)
{
    struct rtc_config config = {.fixed = true, .seconds = seconds};
    irq8 = (struct probe){0};
    rtc = rtc_new(bench_setup(), &config, probe_line(&irq8));
}

static uint8_t rd(uint8_t reg)
{
    out8(0x70, reg);
    return in8(0x71);
}

static void wr(uint8_t reg, uint8_t value)
{
    out8(0x70, reg);
    out8(0x71, value);
}

/* Register C without PF, which comes 1024 times a second from the start. */
static uint8_t flags(void)
{
    return rd(0xc) & 0xbf;
}

static const uint64_t second = 1000000000;

/* Year to second as one decimal number, from BCD registers. */
static uint64_t stamp(void)
{
    static const uint8_t regs[7] = {0x32, 9, 8, 7, 4, 2, 0};
    uint64_t n = 0;
    for (unsigned i = 0; i < 7; i++) {
        uint8_t byte = rd(regs[i]);
        n = n * 100 + (byte >> 4) * 10u + (byte & 15);
    }
    return n;
}

START_TEST(shows_the_date)
{
    /* against the C library, over the years that the registers can hold */
    for (int64_t t = -62135596800 / 2; t < 200000000000; t += 86399ll * 365 + 12345) {
        setup_at(t);
        time_t time = t;
        struct tm tm;
        gmtime_r(&time, &tm);
        uint64_t want = (uint64_t)(tm.tm_year + 1900) % 10000;
        want = want * 100 + (uint64_t)tm.tm_mon + 1;
        want = want * 100 + (uint64_t)tm.tm_mday;
        want = want * 100 + (uint64_t)tm.tm_hour;
        want = want * 100 + (uint64_t)tm.tm_min;
        want = want * 100 + (uint64_t)tm.tm_sec;
        ck_assert_uint_eq(stamp(), want);
        ck_assert_uint_eq(rd(6), (unsigned)tm.tm_wday + 1);
        bench_destroy(rtc);
    }
}
END_TEST

START_TEST(runs_on_the_machines_clock)
{
    setup_at(951782399); /* 2000-02-28 23:59:59 */
    ck_assert_uint_eq(stamp(), 20000228235959);
    bench_advance(second - 1);
    ck_assert_uint_eq(stamp(), 20000228235959);
    bench_advance(1);
    ck_assert_uint_eq(stamp(), 20000229000000);
    bench_advance(86400 * second);
    ck_assert_uint_eq(stamp(), 20000301000000);
    bench_destroy(rtc);
    /* from the wall clock: within the second that the test takes */
    struct rtc_config config = {.seconds = 3600};
    bench_setup();
    rtc = rtc_new(&bench.board, &config, probe_line(&irq8));
    time_t now = time(NULL) + 3600;
    struct tm tm;
    gmtime_r(&now, &tm);
    ck_assert_uint_eq(stamp() / 10000, (uint64_t)(tm.tm_year + 1900) * 1000000 +
                                           (uint64_t)(tm.tm_mon + 1) * 10000 +
                                           (uint64_t)tm.tm_mday * 100 + (uint64_t)tm.tm_hour);
    bench_destroy(rtc);
}
END_TEST

START_TEST(formats)
{
    setup_at(1700000000); /* 2023-11-14 22:13:20 */
    ck_assert_uint_eq(rd(4), 0x22);
    wr(0xb, 0x06); /* binary */
    ck_assert_uint_eq(rd(4), 22);
    ck_assert_uint_eq(rd(2), 13);
    ck_assert_uint_eq(rd(0x32), 20);
    wr(0xb, 0x04); /* binary, 12 hours */
    ck_assert_uint_eq(rd(4), 0x80 | 10);
    wr(0xb, 0x00);
    ck_assert_uint_eq(rd(4), 0x90);
    bench_advance(2 * 3600 * second); /* 00:13 */
    ck_assert_uint_eq(rd(4), 0x12);
    bench_advance(12 * 3600 * second);
    ck_assert_uint_eq(rd(4), 0x92);
    bench_destroy(rtc);
}
END_TEST

START_TEST(setting_with_set)
{
    setup_at(1700000000);
    bench_advance(second / 4);
    wr(0xb, 0x82);
    static const uint8_t regs[8] = {0, 2, 4, 7, 8, 9, 0x32, 6};
    static const uint8_t values[8] = {0x56, 0x34, 0x12, 0x31, 0x12, 0x99, 0x19, 0x06};
    for (unsigned i = 0; i < 8; i++)
        wr(regs[i], values[i]);
    bench_advance(10 * second); /* stands still */
    ck_assert_uint_eq(stamp(), 19991231123456);
    wr(0xb, 0x02);
    ck_assert_uint_eq(stamp(), 19991231123456);
    bench_advance(second * 3 / 4); /* SET kept the phase */
    ck_assert_uint_eq(stamp(), 19991231123457);
    ck_assert_uint_eq(rd(6), 6);
    bench_advance(86400 * second);
    ck_assert_uint_eq(stamp(), 20000101123457);
    ck_assert_uint_eq(rd(6), 7);
    /* Linux's way: SET and divider reset; the first update half a second after */
    wr(0xb, 0x82);
    wr(0xa, 0x76);
    wr(0, 0x10);
    wr(0xb, 0x02);
    ck_assert_uint_eq(stamp() % 100, 10); /* still held by the divider */
    bench_advance(5 * second);
    ck_assert_uint_eq(stamp() % 100, 10);
    wr(0xa, 0x26);
    bench_advance(second / 2 - 1);
    ck_assert_uint_eq(stamp() % 100, 10);
    bench_advance(1);
    ck_assert_uint_eq(stamp() % 100, 11);
    bench_destroy(rtc);
}
END_TEST

START_TEST(setting_while_running_and_nonsense)
{
    setup_at(1700000000);
    wr(4, 0x05);
    ck_assert_uint_eq(stamp(), 20231114051320);
    for (unsigned reg = 0; reg < 128; reg++) /* whatever is written, a date is shown */
        for (unsigned value = 0; value < 256; value += 5) {
            wr((uint8_t)reg, (uint8_t)value);
            bench_advance(second / 3);
            stamp();
            rd((uint8_t)reg);
        }
    wr(0xa, 0x26);
    wr(0xb, 0x02);
    ck_assert_uint_ge(rd(8), 0x01);
    ck_assert_uint_le(rd(8), 0x12);
    bench_destroy(rtc);
}
END_TEST

START_TEST(update_in_progress)
{
    setup_at(0);
    ck_assert_uint_eq(rd(0xa), 0x26);
    bench_advance(second - 244141 - 1);
    ck_assert_uint_eq(rd(0xa), 0x26);
    bench_advance(1);
    ck_assert_uint_eq(rd(0xa), 0xa6);
    ck_assert_uint_eq(rd(0xc) & 0x10, 0);
    bench_advance(244141);
    ck_assert_uint_eq(rd(0xa), 0x26);
    ck_assert_uint_eq(flags(), 0x10); /* UF, though nobody asked for interrupts */
    ck_assert_uint_eq(flags(), 0x00);
    ck_assert_uint_eq(rd(0xd), 0x80);
    bench_destroy(rtc);
}
END_TEST

START_TEST(update_interrupt)
{
    setup_at(100);
    bench_advance(second / 2);
    wr(0xb, 0x12);
    ck_assert(!irq8.level);
    bench_advance(second / 2);
    ck_assert(irq8.level);
    bench_advance(3 * second); /* once, until C is read */
    ck_assert_uint_eq(irq8.rises, 1);
    ck_assert_uint_eq(flags(), 0x90);
    ck_assert(!irq8.level);
    bench_advance(second);
    ck_assert_uint_eq(irq8.rises, 2);
    bench_reset(rtc);
    ck_assert(!irq8.level);
    ck_assert_uint_eq(rd(0xb), 0x02);
    bench_advance(2 * second);
    ck_assert_uint_eq(irq8.rises, 2);
    bench_destroy(rtc);
}
END_TEST

START_TEST(alarm)
{
    setup_at(1700000000); /* 22:13:20 */
    wr(1, 0x30), wr(3, 0x12), wr(5, 0x23);
    wr(0xb, 0x22);
    bench_advance((59 * 60 + 10) * second - 1);
    ck_assert(!irq8.level);
    bench_advance(1);
    ck_assert(irq8.level);
    ck_assert_uint_eq(stamp() % 1000000, 231230);
    ck_assert_uint_eq(flags(), 0xb0);
    bench_advance(86399 * second);
    ck_assert(!irq8.level);
    bench_advance(second);
    ck_assert_uint_eq(flags(), 0xb0);
    wr(5, 0xff), wr(3, 0xc0); /* any hour, any minute: every minute at :30 */
    irq8.rises = 0;
    for (unsigned i = 0; i < 120; i++) {
        bench_advance(second);
        rd(0xc);
    }
    ck_assert_uint_eq(irq8.rises, 2);
    wr(1, 0x77); /* never */
    bench_advance(86400 * second);
    ck_assert_uint_eq(flags(), 0x10);
    bench_destroy(rtc);
}
END_TEST

START_TEST(alarm_flag_without_interrupt)
{
    setup_at(1700000000);
    wr(1, 0x25), wr(3, 0xff), wr(5, 0xff);
    bench_advance(4 * second);
    ck_assert_uint_eq(flags(), 0x10);
    bench_advance(100 * second); /* passed it unwatched */
    ck_assert_uint_eq(flags(), 0x30);
    ck_assert(!irq8.level);
    bench_destroy(rtc);
}
END_TEST

START_TEST(periodic)
{
    setup_at(0);
    wr(0xa, 0x26); /* 1024 Hz */
    wr(0xb, 0x42);
    unsigned got = 0;
    for (unsigned i = 0; i < 10000; i++) { /* 1 s, polled every 100 us */
        bench_advance(100000);
        if (irq8.level) {
            ck_assert_uint_eq(rd(0xc) & 0xc0, 0xc0);
            got++;
        }
    }
    ck_assert_uint_eq(got, 1024);
    wr(0xb, 0x02);
    wr(0xa, 0x2f); /* 2 Hz, only the flag */
    rd(0xc);
    bench_advance(second / 2);
    ck_assert_uint_eq(rd(0xc) & 0x40, 0x40);
    ck_assert_uint_eq(rd(0xc) & 0x40, 0);
    wr(0xa, 0x21); /* 256 Hz, as 8 */
    wr(0xb, 0x42);
    rd(0xc);
    bench_advance(3906250 - 1);
    bool early = irq8.level;
    bench_advance(1);
    ck_assert(!early && irq8.level);
    rd(0xc);
    wr(0xa, 0x20); /* off */
    wr(0xb, 0x42);
    irq8.rises = 0;
    bench_advance(second);
    ck_assert_uint_eq(irq8.rises, 0);
    bench_destroy(rtc);
}
END_TEST

/* The I/O thread may be late. A flag that is read away has had its interrupt. */
START_TEST(late_interrupt_is_not_lost)
{
    setup_at(0);
    wr(0xa, 0x26);
    wr(0xb, 0x42);
    rd(0xc);
    irq8.rises = 0;
    bench_be_late(1000000);
    ck_assert_uint_eq(rd(0xc), 0xc0);
    ck_assert_uint_eq(irq8.rises, 1);
    ck_assert(!irq8.level);
    bench_be_late(1000000);
    wr(0xb, 0x02);
    ck_assert_uint_eq(irq8.rises, 2);
    wr(0xb, 0x12);
    rd(0xc);
    bench_be_late(second);
    ck_assert_uint_eq(flags(), 0x90);
    ck_assert_uint_eq(irq8.rises, 3);
    bench_destroy(rtc);
}
END_TEST

START_TEST(cmos_memory)
{
    setup_at(0);
    rtc_cmos_set_memory(rtc, 0xc0000000, 0x123450000);
    ck_assert_uint_eq(rd(0x15) | rd(0x16) << 8, 640);
    ck_assert_uint_eq(rd(0x17) | rd(0x18) << 8, 0xffff);
    ck_assert_uint_eq(rd(0x34) | rd(0x35) << 8, (0xc0000000u - 0x1000000u) >> 16);
    ck_assert_uint_eq(rd(0x5b) | rd(0x5c) << 8 | rd(0x5d) << 16, 0x12345);
    rtc_cmos_set(rtc, 0x3d, 0x21);
    rtc_cmos_set(rtc, 0x0b, 0xff); /* not the machine's */
    wr(0x40, 0x77);
    bench_reset(rtc);
    ck_assert_uint_eq(rd(0x3d), 0x21);
    ck_assert_uint_eq(rd(0x40), 0x77);
    ck_assert_uint_eq(rtc_cmos_get(rtc, 0x40), 0x77);
    ck_assert_uint_eq(rd(0x0b), 0x02);
    out8(0x70, 0x80 | 0x40); /* the NMI bit is no part of the index */
    ck_assert_uint_eq(in8(0x71), 0x77);
    bench_destroy(rtc);
}
END_TEST

BENCH_MAIN("rtc", shows_the_date, runs_on_the_machines_clock, formats, setting_with_set,
           setting_while_running_and_nonsense, update_in_progress, update_interrupt, alarm,
           alarm_flag_without_interrupt, periodic, late_interrupt_is_not_lost, cmos_memory)
