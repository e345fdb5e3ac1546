/*
 * apic_timer.c - how fast the local APIC's timer and the TSC are, against the 8254; one-shot,
 * periodic and TSC-deadline interrupts at the time that they are due (SDM vol. 3, 11.5.4; vol. 2,
 * CPUID).
 *
 * An interrupt is never early. That it is not late can only be said of a host that lets the guest
 * run: one good try of many is enough.
 */
#include "rate.h"

enum { V = 0x50, TRIES = 300 };

static void begin(void)
{
    apic_quiet();
    drain();
    count_hits(0x30, 0xef, apic_eoi);
}

static uint64_t apic_clock(void)
{
    return 0xffffffffu - apic_read(APIC_CURRENT);
}

/* Timer ticks in 2^32 TSC ticks, undivided. */
static uint64_t timer_rate(void)
{
    apic_write(APIC_LVT_TIMER, APIC_MASKED);
    apic_write(APIC_DIVIDE, 0xb);
    apic_write(APIC_INITIAL, 0xffffffff);
    uint64_t rate = clock_rate(apic_clock, 0xffffffff, 100000000);
    apic_write(APIC_INITIAL, 0);
    return rate;
}

static uint64_t tsc_of(uint64_t timer_ticks, uint64_t rate)
{
    return (timer_ticks << 32) / rate;
}

TEST(rates_are_constant)
{
    begin();
    uint64_t timer = timer_rate(), pit = pit_rate();
    for (unsigned i = 0; i < 3; i++) {
        CHECK(same_ratio(timer_rate(), timer, 1, 1, 1000));
        CHECK(same_ratio(pit_rate(), pit, 1, 1, 1000));
    }
}

/* What CPUID says of the rates, where it says something: 15h (crystal, ratio), 16h (MHz) and the
 * hypervisor leaf 40000010h (kHz of TSC and APIC timer). */
TEST(cpuid_tells_the_rate)
{
    begin();
    uint32_t r[4], told = 0;
    uint64_t pit = pit_rate(), timer = timer_rate();
    cpuid(0, 0, r);
    uint32_t max = r[0];
    if (max >= 0x15) {
        cpuid(0x15, 0, r);
        if (r[0] && r[1] && r[2]) {
            uint64_t hz = (uint64_t)r[2] * r[1] / r[0];
            CHECK(same_ratio(1ull << 32, pit, hz, PIT_HZ, 2000));
            CHECK(same_ratio(timer, pit, r[2], PIT_HZ, 2000)); /* it counts the crystal's cycles */
            told = 1;
        }
    }
    cpuid(1, 0, r);
    if (r[2] >> 31) {
        cpuid(0x40000000, 0, r);
        if (r[0] >= 0x40000010) {
            cpuid(0x40000010, 0, r);
            CHECK(same_ratio(1ull << 32, pit, 1000ull * r[0], PIT_HZ, 2000));
            CHECK(same_ratio(timer, pit, 1000ull * r[1], PIT_HZ, 2000));
            told = 1;
        }
    }
    if (!told)
        print("  skipped: CPUID does not say\n");
}

TEST(one_shot)
{
    begin();
    uint64_t rate = timer_rate(), count = (5000000 * rate) >> 32, due = tsc_of(count, rate);
    bool good = false;
    apic_write(APIC_LVT_TIMER, V);
    for (unsigned i = 1; i <= TRIES && !good; i++) {
        uint64_t start = rdtsc();
        apic_write(APIC_INITIAL, (uint32_t)count);
        CHECK(wait_hits(V, i));
        uint64_t took = rdtsc() - start;
        CHECK(took >= due - due / 1000);
        good = took < due + due / 2;
    }
    CHECK(good);
}

static void beat_and_eoi(struct frame *f)
{
    beat_hit();
    apic_eoi(f);
}

TEST(periodic)
{
    begin();
    uint64_t rate = timer_rate(), count = (5000000 * rate) >> 32;
    hit_ends = beat_and_eoi;
    apic_write(APIC_LVT_TIMER, TIMER_PERIODIC | V);
    beat_begin(tsc_of(count, rate));
    apic_write(APIC_INITIAL, (uint32_t)count);
    beat_check();
    apic_write(APIC_INITIAL, 0);
}

TEST(tsc_deadline)
{
    uint32_t r[4];
    begin();
    cpuid(1, 0, r);
    if (!(r[2] >> 24 & 1)) {
        print("  skipped: no TSC deadline\n");
        return;
    }
    bool good = false;
    apic_write(APIC_LVT_TIMER, TIMER_DEADLINE | V);
    for (unsigned i = 1; i <= TRIES && !good; i++) {
        uint64_t deadline = rdtsc() + 5000000;
        wrmsr(MSR_TSC_DEADLINE, deadline);
        CHECK(wait_hits(V, i));
        uint64_t now = rdtsc();
        CHECK(now >= deadline);
        good = now < deadline + 2500000;
    }
    CHECK(good);
}

/* HLT sleeps until then; the TSC goes on meanwhile. */
TEST(hlt_until_due)
{
    begin();
    uint64_t rate = timer_rate(), count = (20000000 * rate) >> 32, due = tsc_of(count, rate);
    apic_write(APIC_LVT_TIMER, V);
    for (unsigned i = 1; i <= 5; i++) {
        uint64_t start = rdtsc();
        apic_write(APIC_INITIAL, (uint32_t)count);
        asm volatile("sti; hlt; cli" ::: "memory");
        CHECK_EQ(hits[V], i);
        CHECK(rdtsc() - start >= due - due / 1000);
    }
}

const struct test guest_tests[] = {
    T(rates_are_constant), T(cpuid_tells_the_rate), T(one_shot), T(periodic),
    T(tsc_deadline),       T(hlt_until_due),        {0, 0}};
