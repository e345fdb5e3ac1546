/*
 * pit.c - the 8254: its six modes on counter 2 with port 61h's gate and output, counts as they are
 * read, latched and read back, BCD, and interrupt 0 (8254 data sheet, 231164; PIIX data sheet, port
 * 61h).
 *
 * Time is taken by the TSC, in ticks of the 8254. Output and count are only judged when they must
 * be what they are however long the guest was stopped in between.
 *
 * guest options: -serial null
 */
#include "rate.h"

enum { GATE = 1, SPEAKER = 2, OUT2 = 0x20 };
enum { SLACK = 40 }; /* ticks: access times, rounding, the rate's error over 50 ms */

static uint64_t rate; /* ticks in 2^32 of the TSC */

static uint64_t ticks(uint64_t tsc)
{
    return (uint64_t)((unsigned __int128)tsc * rate >> 32);
}

static void gate(bool on)
{
    outb(0x61, on ? GATE : 0);
}

static bool out2(void)
{
    return inb(0x61) & OUT2;
}

static unsigned count2(void)
{
    outb(0x43, 0x80);
    unsigned low = inb(0x42);
    return low | (unsigned)inb(0x42) << 8;
}

static uint8_t status2(void)
{
    outb(0x43, 0xe8);
    return inb(0x42);
}

/* ---- Outputs over time -------------------------------------------------------------------------
 */

/* The output so many ticks after count or trigger; -1: too near to a change. */
typedef int model(unsigned count, uint64_t t);

static int level_at(unsigned count, uint64_t t, uint64_t change, int before)
{
    return t + SLACK < change ? before : t > change + SLACK ? !before : -1;
}

static int mode0(unsigned count, uint64_t t)
{
    return level_at(count, t, count, 0);
}

/* The trigger loads with the next tick. */
static int mode1(unsigned count, uint64_t t)
{
    return t < SLACK ? -1 : mode0(count, t);
}

/* Low for one tick at the end of each period: nearly never seen. */
static int mode2(unsigned count, uint64_t t)
{
    t %= count;
    return t > SLACK && t + SLACK < count ? 1 : -1;
}

static int mode3(unsigned count, uint64_t t)
{
    uint64_t high = (count + 1) / 2;
    t %= count;
    if (t < SLACK || t + SLACK > count)
        return -1;
    return level_at(count, t, high, 1);
}

static int mode45(unsigned count, uint64_t t)
{
    return t + SLACK < count || t > count + SLACK ? 1 : -1;
}

enum { LOW = 1, HIGH = 2 };

/* Follows the output after begin() for so many ticks; returns as what it could be judged. */
static unsigned follow_once(model *model, unsigned count, void (*begin)(unsigned), uint64_t until)
{
    unsigned judged = 0;
    uint64_t first = rdtsc();
    begin(count);
    uint64_t last = rdtsc(), now;
    do {
        uint64_t before = rdtsc();
        bool out = out2();
        now = rdtsc();
        int early = model(count, ticks(before - last)), late = model(count, ticks(now - first));
        if (early < 0 || early != late || ticks(now - first) - ticks(before - last) > count / 4)
            continue;
        judged |= early ? HIGH : LOW;
        if (out != early) {
            print("  at %lu of %u\n", (unsigned long)ticks(now - first), count);
            CHECK_EQ(out, early);
            break;
        }
    } while (ticks(now - last) < until);
    return judged;
}

/* The same until it could be judged as all of `levels`, on a host that stops the guest at will. */
static void follow(model *model, unsigned count, void (*begin)(unsigned), uint64_t until,
                   unsigned levels)
{
    unsigned judged = 0;
    for (unsigned tries = 0; tries < 100 && (judged & levels) != levels; tries++)
        judged |= follow_once(model, count, begin, until);
    if ((judged & levels) != levels)
        print("  not judged: the host was too slow\n");
}

static void load0(unsigned count)
{
    pit_start(2, 0, count);
}
static void load2(unsigned count)
{
    pit_start(2, 2, count);
}
static void load3(unsigned count)
{
    pit_start(2, 3, count);
}
static void load4(unsigned count)
{
    pit_start(2, 4, count);
}
static void trigger(unsigned count)
{
    gate(false);
    gate(true);
}

TEST(mode_0_interrupt_on_terminal_count)
{
    gate(true);
    follow(mode0, 12000, load0, 40000, LOW | HIGH);
    outb(0x43, 0xb0); /* the control word alone lowers it */
    CHECK(!out2());
    pit_wait(100);
    CHECK(out2());
}

/* Gate low holds the count, gate high lets it go on; the output stays. */
TEST(mode_0_gate_holds)
{
    gate(false);
    pit_start(2, 0, 1000);
    uint64_t start = rdtsc();
    while (ticks(rdtsc() - start) < 3000)
        asm volatile("pause");
    CHECK(!out2());
    CHECK_EQ(count2(), 1000);
    gate(true);
    while (!out2())
        asm volatile("pause");
    gate(false);
    unsigned a = count2(), b = count2();
    CHECK_EQ(a, b);
    CHECK(out2());
    gate(true);
}

/* The first byte of a new count stops the counting and lowers the output, the second loads. */
TEST(mode_0_first_byte_stops)
{
    gate(true);
    pit_wait(10);
    CHECK(out2());
    outb(0x42, 0x34);
    CHECK(!out2());
    uint64_t start = rdtsc();
    while (ticks(rdtsc() - start) < 2000)
        asm volatile("pause");
    CHECK(!out2());
    start = rdtsc();
    outb(0x42, 0x02);
    while (!out2())
        asm volatile("pause");
    CHECK(ticks(rdtsc() - start) + SLACK >= 0x234);
}

/* After the terminal count it counts on, from FFFFh. */
TEST(mode_0_counts_on)
{
    gate(true);
    for (unsigned tries = 0;; tries++) {
        uint64_t before = rdtsc();
        pit_wait(100);
        while (count2() < 0x8000 && ticks(rdtsc() - before) < 20000)
            asm volatile("pause");
        if (ticks(rdtsc() - before) < 20000 || tries == 100) {
            CHECK(count2() > 0x8000);
            return;
        }
    }
}

TEST(mode_1_one_shot)
{
    gate(false);
    pit_start(2, 1, 12000);
    CHECK(out2()); /* high, and no count without a trigger */
    uint64_t start = rdtsc();
    while (ticks(rdtsc() - start) < 14000)
        asm volatile("pause");
    CHECK(out2());
    follow(mode1, 12000, trigger, 30000, LOW | HIGH);
    follow(mode1, 12000, trigger, 30000, LOW | HIGH); /* again, by the gate alone */
    /* retriggered before its end, it begins anew; a low gate does not stop it */
    start = rdtsc();
    uint64_t last = start;
    for (unsigned i = 0; i < 5; i++) {
        last = rdtsc();
        trigger(0);
        while (ticks(rdtsc() - last) < 4000)
            asm volatile("pause");
    }
    gate(false);
    while (!out2())
        asm volatile("pause");
    CHECK(ticks(rdtsc() - last) + SLACK >= 12000);
    /* a new count is for the next trigger */
    uint64_t again = rdtsc();
    trigger(0);
    outb(0x42, 0x10);
    outb(0x42, 0x00);
    last = rdtsc();
    while (ticks(rdtsc() - last) < 2) /* low from the next clock on */
        asm volatile("pause");
    while (!out2())
        asm volatile("pause");
    CHECK(ticks(rdtsc() - again) + SLACK >= 12000);
    gate(true);
}

TEST(mode_2_rate_generator)
{
    gate(true);
    follow(mode2, 12000, load2, 40000, HIGH);
    unsigned low = 0xffff, high = 0;
    uint64_t start = rdtsc();
    while (ticks(rdtsc() - start) < 60000) {
        unsigned c = count2();
        low = c < low ? c : low;
        high = c > high ? c : high;
    }
    CHECK(low >= 1);
    CHECK(high <= 12000);
    CHECK(high - low > 4000);
    /* gate low: the output high at once, and the count stands; gate high begins a period */
    gate(false);
    CHECK(out2());
    unsigned a = count2(), b = count2();
    CHECK_EQ(a, b);
    for (unsigned tries = 0; tries < 100; tries++) {
        gate(false);
        uint64_t before = rdtsc();
        gate(true);
        unsigned c = count2();
        if (ticks(rdtsc() - before) < 500) {
            CHECK(c > 11000);
            return;
        }
    }
    print("  not judged: the host was too slow\n");
}

/* A new count waits for the end of the period. */
TEST(mode_2_new_count)
{
    gate(true);
    for (unsigned tries = 0; tries < 100; tries++) {
        uint64_t before = rdtsc();
        pit_start(2, 2, 30000);
        outb(0x42, 0xe8);
        outb(0x42, 0x03);
        unsigned c = count2();
        if (ticks(rdtsc() - before) > 10000)
            continue;
        CHECK(c > 15000 && c <= 30000);
        uint64_t start = rdtsc();
        while (ticks(rdtsc() - start) < 31000)
            asm volatile("pause");
        for (unsigned i = 0; i < 100; i++)
            CHECK(count2() <= 1000);
        return;
    }
    print("  not judged: the host was too slow\n");
}

TEST(mode_3_square_wave)
{
    gate(true);
    follow(mode3, 12000, load3, 60000, LOW | HIGH);
    follow(mode3, 12001, load3, 60000, LOW | HIGH); /* odd: high one tick longer */
    for (unsigned i = 0; i < 100; i++) {
        unsigned c = count2();
        CHECK_EQ(c & 1, 0); /* it counts by two */
        CHECK(c <= 12000);  /* 0 for one tick, when the count is odd */
    }
    gate(false);
    CHECK(out2());
    gate(true);
}

TEST(mode_4_software_strobe)
{
    gate(true);
    follow(mode45, 12000, load4, 40000, HIGH);
    outb(0x43, 0xb8);
    CHECK(out2()); /* by the control word */
}

TEST(mode_5_hardware_strobe)
{
    gate(false);
    pit_start(2, 5, 12000);
    CHECK(out2());
    follow(mode45, 12000, trigger, 40000, HIGH);
    gate(true);
}

/* ---- Reading -----------------------------------------------------------------------------------
 */

/* The count is the one at the time of the reading. */
TEST(counting)
{
    unsigned judged = 0;
    gate(true);
    uint64_t first = rdtsc();
    pit_start(2, 0, 60000);
    uint64_t last = rdtsc();
    while (ticks(rdtsc() - first) < 50000) {
        uint64_t before = rdtsc();
        unsigned c = count2();
        uint64_t t = ticks(rdtsc() - first);
        if (t > 55000)
            break;
        judged++;
        CHECK(c + t + SLACK >= 60000);
        CHECK(c + ticks(before - last) <= 60000 + SLACK);
    }
    CHECK(judged > 0);
}

/* Latched, it stands until it is read, whatever comes in between; the count goes on. */
TEST(latch)
{
    gate(true);
    for (unsigned tries = 0; tries < 100; tries++) {
        uint64_t start = rdtsc();
        pit_start(2, 0, 60000);
        outb(0x43, 0x80);
        uint64_t latched = rdtsc();
        while (ticks(rdtsc() - latched) < 2000)
            asm volatile("pause");
        outb(0x43, 0x80); /* a second command is ignored */
        unsigned low = inb(0x42), first = low | (unsigned)inb(0x42) << 8, second = count2();
        if (ticks(rdtsc() - start) > 50000)
            continue;
        CHECK(first > second);
        CHECK(first - second + SLACK >= 2000);
        return;
    }
    print("  not judged: the host was too slow\n");
}

TEST(one_byte_counts)
{
    gate(false);      /* stands still */
    outb(0x43, 0x90); /* counter 2, low byte only */
    outb(0x42, 0x5a);
    CHECK_EQ(inb(0x42), 0x5a);
    CHECK_EQ(inb(0x42), 0x5a);
    outb(0x43, 0xe8);
    CHECK_EQ(inb(0x42) & 0x3f, 0x10);
    outb(0x43, 0xa0); /* high byte only: the low one is 0 */
    outb(0x42, 0x12);
    CHECK_EQ(inb(0x42), 0x12);
    outb(0x43, 0x80);
    CHECK_EQ(inb(0x42), 0x12);
    CHECK_EQ(status2() & 0x3f, 0x20);
    gate(true);
}

/* Output, null count, and the control word "exactly as written". */
TEST(status)
{
    gate(false);
    for (unsigned mode = 0; mode < 8; mode++)
        for (unsigned bcd = 0; bcd < 2; bcd++) {
            outb(0x43, (uint8_t)(0xb0 | mode << 1 | bcd));
            uint8_t s = status2();
            CHECK_EQ(s & 0x3f, 0x30 | mode << 1 | bcd);
            CHECK_EQ(s & 0x40, 0x40); /* no count yet */
            CHECK_EQ(s & 0x80, mode == 0 ? 0 : 0x80);
        }
    pit_start(2, 0, 1000);
    gate(true);
    while (!(status2() & 0x80))
        asm volatile("pause");
    CHECK_EQ(status2() & 0x40, 0);
    CHECK(out2());
}

/* Modes 6 and 7 are 2 and 3: bit 3 of the control word is not looked at. */
TEST(modes_6_and_7)
{
    gate(true);
    outb(0x43, 0xbc);
    outb(0x42, 0xe0);
    outb(0x42, 0x2e);
    for (unsigned i = 0; i < 200; i++)
        CHECK(count2() - 1 < 12000);
    outb(0x43, 0xbe);
    outb(0x42, 0xe0);
    outb(0x42, 0x2e);
    for (unsigned i = 0; i < 200; i++)
        CHECK_EQ(count2() & 1, 0);
}

/* Both at once: the status comes first. Then the count, in its two bytes; then live again. */
TEST(read_back)
{
    gate(false);
    pit_start(2, 0, 0x1234);
    outb(0x43, 0xc8); /* count and status of counter 2 */
    CHECK_EQ(inb(0x42) & 0x3f, 0x30);
    CHECK_EQ(inb(0x42), 0x34);
    CHECK_EQ(inb(0x42), 0x12);
    outb(0x43, 0xd8); /* count alone */
    CHECK_EQ(inb(0x42), 0x34);
    CHECK_EQ(inb(0x42), 0x12);
    outb(0x43, 0xc0); /* of none: nothing is latched */
    CHECK_EQ(inb(0x42), 0x34);
    CHECK_EQ(inb(0x42), 0x12);
    /* of two counters with one command */
    pit_start(0, 1, 0x4321);
    outb(0x43, 0xea);
    CHECK_EQ(inb(0x42) & 0x3f, 0x30);
    CHECK_EQ(inb(0x40) & 0x3f, 0x32);
    gate(true);
}

TEST(bcd)
{
    gate(true);
    unsigned judged = 0;
    uint64_t first = rdtsc();
    outb(0x43, 0xb1);
    outb(0x42, 0x00); /* 0: 10000 */
    outb(0x42, 0x00);
    uint64_t last = rdtsc();
    while (ticks(rdtsc() - first) < 9000) {
        uint64_t before = rdtsc();
        unsigned c = count2(), n = 0;
        uint64_t t = ticks(rdtsc() - first);
        if (t > 9800)
            break;
        for (unsigned digit = 16; digit; digit -= 4) {
            CHECK((c >> (digit - 4) & 15) < 10);
            n = 10 * n + (c >> (digit - 4) & 15);
        }
        if (n == 0)
            continue; /* not yet counted, or 10000 */
        judged++;
        CHECK(n + t + SLACK >= 10000);
        CHECK(n + ticks(before - last) <= 10000 + SLACK);
    }
    while (!out2())
        asm volatile("pause");
    CHECK(ticks(rdtsc() - first) + SLACK >= 10000);
    CHECK(judged > 0 || ticks(rdtsc() - first) > 9000);
}

/* ---- Port 61h ----------------------------------------------------------------------------------
 */

TEST(port_61)
{
    for (unsigned v = 0; v < 16; v++) {
        outb(0x61, (uint8_t)v);
        CHECK_EQ(inb(0x61) & 15, v);
    }
    outb(0x61, 0xf0); /* the upper half is read only */
    CHECK_EQ(inb(0x61) & 15, 0);
    unsigned seen = 0;
    for (uint64_t start = rdtsc(); seen != 3 && ticks(rdtsc() - start) < 100000;)
        seen |= inb(0x61) & 0x10 ? 1 : 2; /* refresh */
    CHECK_EQ(seen, 3);
    gate(true);
}

/* ---- Interrupt 0 -------------------------------------------------------------------------------
 */

static void beat_and_eoi(struct frame *f)
{
    beat_hit();
    pic_eoi(f);
}

static void irq0_begin(void)
{
    pit_start(0, 1, 0);
    apic_quiet();
    apic_write(APIC_LINT0, 0x700);
    count_hits(0x20, 0x2f, beat_and_eoi);
    pic_allow(1);
}

static void check_irq0(unsigned mode, unsigned count)
{
    irq0_begin();
    beat_begin(((count ? count : 65536ull) << 32) / rate);
    pit_start(0, mode, count);
    beat_check();
    pit_start(0, 1, 0);
}

TEST(irq_0_periodic)
{
    check_irq0(2, 11932); /* 100 Hz */
    check_irq0(3, 11932);
    check_irq0(2, 4773); /* 250 Hz */
    check_irq0(2, 0);    /* 18.2 Hz */
}

TEST(irq_0_once)
{
    static const uint8_t modes[] = {0, 4};
    for (unsigned i = 0; i < 2; i++) {
        irq0_begin();
        uint64_t start = rdtsc();
        pit_start(0, modes[i], 5000);
        CHECK(wait_hits(0x20, 1));
        CHECK(ticks(rdtsc() - start) + SLACK >= 5000);
        while (ticks(rdtsc() - start) < 40000)
            let_in();
        CHECK_EQ(hits[0x20], 1);
        outb(0x40, 0x88); /* a new count, once more */
        outb(0x40, 0x13);
        CHECK(wait_hits(0x20, 2));
    }
    pit_start(0, 1, 0);
}

TEST(rate_of_the_tsc)
{
    uint64_t again = pit_rate();
    CHECK(same_ratio(rate, again, 1, 1, 1000));
}

TEST(calibration)
{
    rate = pit_rate();
    CHECK(rate > 0);
}

const struct test guest_tests[] = {T(calibration),
                                   T(mode_0_interrupt_on_terminal_count),
                                   T(mode_0_gate_holds),
                                   T(mode_0_first_byte_stops),
                                   T(mode_0_counts_on),
                                   T(mode_1_one_shot),
                                   T(mode_2_rate_generator),
                                   T(mode_2_new_count),
                                   T(mode_3_square_wave),
                                   T(mode_4_software_strobe),
                                   T(mode_5_hardware_strobe),
                                   T(counting),
                                   T(latch),
                                   T(one_byte_counts),
                                   T(status),
                                   T(modes_6_and_7),
                                   T(read_back),
                                   T(bcd),
                                   T(port_61),
                                   T(irq_0_periodic),
                                   T(irq_0_once),
                                   T(rate_of_the_tsc),
                                   {0, 0}};
