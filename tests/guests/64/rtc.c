/*
 * rtc.c - the MC146818: registers, time going on and standing still, formats, update in progress,
 * periodic, update-ended and alarm interrupts, CMOS memory (MC146818A data sheet).
 *
 * guest options: -serial null -rtc base=1999-12-31T23:59:40
 */
#include "rate.h"

enum { SEC, SEC_ALARM, MIN, MIN_ALARM, HOUR, HOUR_ALARM, WEEKDAY, DAY, MONTH, YEAR, A, B, C, D };
enum { CENTURY = 0x32, RTC_PIN = 8, V = 0x61 };
enum { UIP = 0x80, SET = 0x80, PIE = 0x40, AIE = 0x20, UIE = 0x10, BINARY = 4, H24 = 2 };
enum { IRQF = 0x80, PF = 0x40, AF = 0x20, UF = 0x10 };

static uint8_t get(unsigned reg)
{
    outb(0x70, (uint8_t)reg);
    return inb(0x71);
}

static void put(unsigned reg, uint8_t v)
{
    outb(0x70, (uint8_t)reg);
    outb(0x71, v);
}

static unsigned bcd(uint8_t v)
{
    return (v >> 4) * 10u + (v & 15);
}

static void begin(void (*ends)(struct frame *))
{
    pit_start(0, 1, 0);
    apic_quiet();
    ioapic_entry(RTC_PIN, 0, ENTRY_MASKED);
    put(A, 0x26);
    put(B, H24);
    get(C);
    drain();
    count_hits(0x20, 0xef, ends);
}

/* Waits for the moment at which the seconds change; UIP was seen, or the host was too slow. */
static bool next_second(void)
{
    uint8_t before = get(SEC);
    bool uip = false;
    while (get(SEC) == before)
        uip |= get(A) & UIP;
    return uip;
}

/* The divider held in reset meanwhile: the first update comes half a second later. */
static void set_time(uint8_t hour, uint8_t min, uint8_t sec, uint8_t b)
{
    put(A, 0x76);
    put(B, SET | b);
    put(SEC, sec);
    put(MIN, min);
    put(HOUR, hour);
    put(B, b);
    put(A, 0x26);
}

TEST(starts_at_the_given_time)
{
    begin(apic_eoi);
    /* the first look: less than 20 seconds ago it was 1999-12-31 23:59:40, a Friday */
    unsigned century = get(CENTURY), year = get(YEAR);
    if (century == 0x20) {
        CHECK_EQ(year, 0);
        CHECK_EQ(get(MONTH), 1);
        CHECK_EQ(get(DAY), 1);
        CHECK_EQ(get(WEEKDAY), 7);
        CHECK_EQ(get(HOUR), 0);
        return;
    }
    CHECK_EQ(century, 0x19);
    CHECK_EQ(year, 0x99);
    CHECK_EQ(get(MONTH), 0x12);
    CHECK_EQ(get(DAY), 0x31);
    CHECK_EQ(get(WEEKDAY), 6);
    CHECK_EQ(get(HOUR), 0x23);
    CHECK_EQ(get(MIN), 0x59);
    CHECK(get(SEC) >= 0x40);
}

TEST(registers)
{
    begin(apic_eoi);
    CHECK_EQ(get(A) & 0x7f, 0x26);
    CHECK_EQ(get(B), H24);
    CHECK_EQ(get(D), 0x80); /* the battery is good */
    put(D, 0);
    CHECK_EQ(get(D), 0x80);
    put(A, 0xa6); /* UIP is read only */
    CHECK_EQ(get(A) & 0x7f, 0x26);
    put(SEC_ALARM, 0x12);
    put(MIN_ALARM, 0x34);
    put(HOUR_ALARM, 0xc5);
    CHECK_EQ(get(SEC_ALARM), 0x12);
    CHECK_EQ(get(MIN_ALARM), 0x34);
    CHECK_EQ(get(HOUR_ALARM), 0xc5);
    for (unsigned reg = 0x60; reg < 0x80; reg++)
        put(reg, (uint8_t)~reg);
    for (unsigned reg = 0x60; reg < 0x80; reg++) {
        CHECK_EQ(get(reg), (uint8_t)~reg);
        CHECK_EQ(get(0x80 | reg), (uint8_t)~reg); /* bit 7 of the index is the NMI gate */
    }
    outb(0x70, 0x0d);
}

/* Memory size as PC firmware leaves it (-m 64). */
TEST(memory_size)
{
    CHECK_EQ(get(0x15) | get(0x16) << 8, 640);
    CHECK_EQ(get(0x30) | get(0x31) << 8, 63 * 1024);
    CHECK_EQ(get(0x17) | get(0x18) << 8, 63 * 1024);
    CHECK_EQ(get(0x34) | get(0x35) << 8, 48 * 16); /* above 16 MiB, in 64 KiB */
    CHECK_EQ(get(0x5b) | get(0x5c) << 8 | get(0x5d) << 16, 0);
}

/* The moment at which the seconds change lies between the start of the last look that showed the
 * old one and the end of the first that shows the new. */
static struct reading second_changes(void)
{
    struct reading r = {.before = rdtsc()};
    uint8_t old = get(SEC);
    for (;;) {
        uint64_t start = rdtsc();
        r.value = get(SEC);
        r.after = rdtsc();
        if (r.value != old)
            return r;
        r.before = start;
    }
}

/* Was it this long, in ticks of the 8254, from `a` to `b`? Only said when the looks are sharp. */
static bool lasted(struct reading a, struct reading b, uint64_t want, uint64_t rate)
{
    uint64_t least = (uint64_t)((unsigned __int128)(b.before - a.after) * rate >> 32);
    uint64_t most = (uint64_t)((unsigned __int128)(b.after - a.before) * rate >> 32);
    CHECK(least <= want + want / 500);
    CHECK(most >= want - want / 500);
    return most - least < want / 50;
}

TEST(a_second_is_a_second)
{
    begin(apic_eoi);
    uint64_t rate = pit_rate();
    for (unsigned tries = 0; tries < 5; tries++) {
        set_time(0x12, 0, 0, H24);
        struct reading a = second_changes(), b = second_changes();
        if (lasted(a, b, PIT_HZ, rate))
            return;
    }
    print("  not judged: the host was too slow\n");
}

/* UIP shows at least 244 us before the update: what is read while it is clear is whole. */
TEST(update_in_progress)
{
    begin(apic_eoi);
    bool seen = false;
    for (unsigned tries = 0; tries < 16 && !seen; tries++) {
        set_time(0x12, 0, 0, H24);
        seen = next_second();
    }
    CHECK(seen);
    put(B, SET | H24);
    for (unsigned i = 0; i < 1000; i++)
        CHECK_EQ(get(A) & UIP, 0); /* no updates */
    put(B, H24);
}

static void set_date(uint8_t century, uint8_t year, uint8_t month, uint8_t day, uint8_t weekday)
{
    put(B, SET | H24);
    put(CENTURY, century);
    put(YEAR, year);
    put(MONTH, month);
    put(DAY, day);
    put(WEEKDAY, weekday);
    set_time(0x23, 0x59, 0x59, H24);
}

TEST(carries)
{
    begin(apic_eoi);
    set_date(0x20, 0x00, 0x02, 0x28, 2);
    put(B, SET | H24);
    CHECK_EQ(get(SEC), 0x59); /* it stands */
    put(B, H24);
    while (get(DAY) == 0x28)
        asm volatile("pause");
    CHECK_EQ(get(DAY), 0x29); /* 2000 is a leap year */
    CHECK_EQ(get(HOUR), 0);
    CHECK_EQ(get(MIN), 0);
    CHECK_EQ(get(MONTH), 2);
    CHECK_EQ(get(WEEKDAY), 3);
    set_date(0x20, 0x99, 0x12, 0x31, 7);
    while (get(DAY) == 0x31)
        asm volatile("pause");
    CHECK_EQ(get(YEAR), 0);
    CHECK_EQ(get(MONTH), 1);
    CHECK_EQ(get(DAY), 1);
    CHECK_EQ(get(WEEKDAY), 1);
}

TEST(formats)
{
    begin(apic_eoi);
    set_time(0x15, 0x48, 0x37, H24);
    put(B, SET | H24); /* stand still while we look */
    uint8_t sec = get(SEC);
    CHECK_EQ(get(HOUR), 0x15);
    CHECK(sec == 0x37 || sec == 0x38);
    /* binary, 24 hours */
    put(B, SET | H24 | BINARY);
    put(HOUR, 15);
    put(MIN, 48);
    put(SEC, 37);
    put(B, H24 | BINARY);
    CHECK_EQ(get(HOUR), 15);
    CHECK_EQ(get(MIN), 48);
    CHECK(get(SEC) == 37 || get(SEC) == 38);
    /* 12 hours: bit 7 is PM; 12 AM is midnight */
    set_time(0x12, 0x59, 0x59, 0);
    while (get(MIN) == 0x59)
        asm volatile("pause");
    CHECK_EQ(get(HOUR), 0x01);
    set_time(0x80 | 0x11, 0x59, 0x59, 0);
    while (get(MIN) == 0x59)
        asm volatile("pause");
    CHECK_EQ(get(HOUR), 0x12);
    set_time(0x11, 0x59, 0x59, 0);
    while (get(MIN) == 0x59)
        asm volatile("pause");
    CHECK_EQ(get(HOUR), 0x92);
    put(B, H24);
}

/* The divider held in reset: no time; let go, the first update comes after half a second. */
TEST(divider_reset)
{
    begin(apic_eoi);
    uint64_t rate = pit_rate();
    for (unsigned tries = 0; tries < 5; tries++) {
        put(A, 0x76);
        uint8_t before = get(SEC);
        pit_wait(60000);
        CHECK_EQ(get(SEC), before);
        struct reading a = {.before = rdtsc()}, b;
        put(A, 0x26);
        a.after = rdtsc();
        b = second_changes();
        if (lasted(a, b, PIT_HZ / 2, rate))
            return;
    }
    print("  not judged: the host was too slow\n");
}

/* ---- Interrupts --------------------------------------------------------------------------------
 */

static volatile uint8_t last_c;

static void read_c(struct frame *f)
{
    last_c = get(C);
    apic_eoi(f);
}

TEST(flags_without_interrupts)
{
    begin(apic_eoi);
    CHECK_EQ(get(C) & IRQF, 0);
    pit_wait(3000);                     /* 2.5 periods of 1024 Hz */
    CHECK_EQ(get(C) & (IRQF | PF), PF); /* the flag, but no interrupt */
    put(A, 0x20);                       /* rate 0: none */
    get(C);
    pit_wait(3000);
    CHECK_EQ(get(C) & PF, 0);
    put(A, 0x26);
    while (!(get(C) & UF))
        asm volatile("pause");
    CHECK_EQ(get(C) & UF, 0); /* reading clears */
}

/* IRQF is PF and PIE at any moment, however soon after the period's end it is read. */
TEST(irqf_with_its_flag)
{
    begin(apic_eoi);
    put(B, H24 | PIE);
    get(C);
    unsigned with = 0, without = 0;
    for (uint64_t end = rdtsc() + FOREVER; with < 100 && rdtsc() < end;) {
        uint8_t c = get(C);
        with += (c & (IRQF | PF)) == (IRQF | PF);
        without += (c & (IRQF | PF)) == PF;
    }
    put(B, H24);
    get(C);
    CHECK_EQ(with, 100);
    CHECK_EQ(without, 0);
}

static void beat_and_end(struct frame *f)
{
    beat_hit();
    read_c(f);
}

/* Rate r gives 65536 >> r Hz. */
TEST(periodic)
{
    uint64_t rate = pit_rate();
    for (unsigned r = 8; r <= 12; r += 2) {
        uint64_t ticks = ((uint64_t)PIT_HZ << r) / 65536;
        begin(beat_and_end);
        ioapic_entry(RTC_PIN, 0, V);
        put(A, (uint8_t)(0x20 | r));
        get(C);
        beat_begin((ticks << 32) / rate);
        put(B, H24 | PIE);
        beat_check();
        put(B, H24);
        CHECK_EQ(last_c & (IRQF | PF), IRQF | PF);
    }
}

/* The line stays up until C is read: without that there is one edge. */
TEST(c_releases_the_line)
{
    begin(apic_eoi);
    ioapic_entry(RTC_PIN, 0, V);
    put(B, H24 | PIE);
    CHECK(wait_hits(V, 1));
    pit_wait(12000);
    let_in();
    CHECK_EQ(hits[V], 1);
    CHECK_EQ(get(C) & (IRQF | PF), IRQF | PF);
    CHECK(wait_hits(V, 2));
    put(B, H24);
    get(C);
}

TEST(update_ended)
{
    begin(read_c);
    ioapic_entry(RTC_PIN, 0, V);
    put(B, H24 | UIE);
    CHECK(wait_hits(V, 1));
    CHECK_EQ(last_c & (IRQF | UF), IRQF | UF);
    uint8_t before = get(SEC);
    CHECK(wait_hits(V, 2));
    CHECK(get(SEC) != before);
    put(B, H24);
    put(B, SET | H24 | UIE); /* SET clears UIE */
    CHECK_EQ(get(B) & UIE, 0);
    put(B, H24);
}

static void alarm_at(uint8_t hour, uint8_t min, uint8_t sec)
{
    put(HOUR_ALARM, hour);
    put(MIN_ALARM, min);
    put(SEC_ALARM, sec);
}

TEST(alarm)
{
    begin(read_c);
    ioapic_entry(RTC_PIN, 0, V);
    set_time(0x10, 0x20, 0x30, H24);
    alarm_at(0x10, 0x20, 0x31);
    put(B, H24 | AIE);
    CHECK(wait_hits(V, 1));
    CHECK_EQ(last_c & (IRQF | AF), IRQF | AF);
    CHECK(bcd(get(SEC)) >= 31);
    alarm_at(0xff, 0xff, 0xff); /* don't care: every second */
    CHECK(wait_hits(V, 2));
    alarm_at(0xff, 0x21, 0x00); /* each hour's minute 21 */
    set_time(0x17, 0x20, 0x59, H24 | AIE);
    unsigned before = hits[V];
    CHECK(wait_hits(V, before + 1));
    CHECK_EQ(get(MIN), 0x21);
    alarm_at(0x17, 0x20, 0x00); /* past: not today */
    get(C);
    before = hits[V];
    next_second();
    let_in();
    CHECK_EQ(hits[V], before);
    put(B, H24);
}

/* By the 8259A pair as well: interrupt 8 is the slave's first. */
static void end_both(struct frame *f)
{
    get(C);
    pic_eoi(f);
}

TEST(through_the_pic)
{
    begin(end_both);
    apic_write(APIC_LINT0, 0x700);
    pic_allow(0x104);
    put(B, H24 | PIE);
    CHECK(wait_hits(0x28, 3));
    put(B, H24);
    get(C);
}

const struct test guest_tests[] = {T(starts_at_the_given_time),
                                   T(registers),
                                   T(memory_size),
                                   T(a_second_is_a_second),
                                   T(update_in_progress),
                                   T(carries),
                                   T(formats),
                                   T(divider_reset),
                                   T(flags_without_interrupts),
                                   T(irqf_with_its_flag),
                                   T(periodic),
                                   T(c_releases_the_line),
                                   T(update_ended),
                                   T(alarm),
                                   T(through_the_pic),
                                   {0, 0}};
