/*
 * tsc.c - the time-stamp counter as seen by RDTSC, RDTSCP and RDMSR: one counter that never goes
 * back, also from one processor to another, with vectors in registers, and when it is moved (SDM
 * vol. 3, 17.17).
 *
 * guest options: -smp 2
 */
#include "machine.h"

enum { MSR_TSC = 0x10, MSR_TSC_ADJUST = 0x3b };
#define MS 1000000ull

/* Behind all earlier loads. */
static uint64_t ordered(void)
{
    uint32_t low, high;
    asm volatile("lfence; rdtsc" : "=a"(low), "=d"(high)::"memory");
    return (uint64_t)high << 32 | low;
}
static uint64_t rdtscp(void)
{
    uint32_t low, high;
    asm volatile("rdtscp" : "=a"(low), "=d"(high)::"rcx", "memory");
    return (uint64_t)high << 32 | low;
}

TEST(one_counter_for_rdtsc_and_rdmsr)
{
    unsigned wrong = 0;
    for (uint64_t end = rdtsc() + 200 * MS, a = 0; a < end;) {
        a = ordered();
        uint64_t b = rdmsr(MSR_TSC), c = ordered(), d = rdtscp();
        wrong += b < a || c < b || d < c;
    }
    CHECK_EQ(wrong, 0);
}

/* By turns each reads a time stamp that is not before the other's. */
static volatile uint64_t stamp, until;
static volatile unsigned turn, backwards, handed;

static void hand_over(unsigned me, uint64_t (*read)(void))
{
    for (;;) {
        for (uint64_t end = rdtsc() + FOREVER; turn != me && rdtsc() < end;)
            ;
        uint64_t seen = stamp, now = read();
        if (turn != me || seen >= until)
            break;
        backwards += now < seen;
        handed++;
        stamp = now;
        turn = !me;
    }
    turn = !me;
}
static void other(unsigned id)
{
    hand_over(1, ordered);
}
static void other_p(unsigned id)
{
    hand_over(1, rdtscp);
}

static void together(void (*fn)(unsigned), uint64_t (*read)(void))
{
    unsigned done = cpus_done;
    backwards = handed = turn = 0;
    stamp = 0;
    until = rdtsc() + 300 * MS;
    CHECK(start_cpu(1, fn));
    hand_over(0, read);
    while (cpus_done == done)
        asm volatile("pause");
    CHECK_EQ(backwards, 0);
    CHECK(handed > 2); /* as often as the host lets both run */
}

TEST(one_counter_for_two_processors)
{
    together(other, ordered);
    together(other_p, rdtscp);
}

/* The counter is read while translated code has vectors in registers: they stay. */
#define EACH(op)                                                                                   \
    op " %%xmm0\n" op " %%xmm1\n" op " %%xmm2\n" op " %%xmm3\n" op " %%xmm4\n" op " %%xmm5\n"
TEST(vectors_stay)
{
    static const uint64_t value[2] = {0x0123456789abcdef, 0xfedcba9876543210};
    uint64_t got[2], last = 0, end = rdtsc() + 100 * MS;
    unsigned wrong = 0, changed = 0;
    while (last < end) {
        uint32_t low, high;
        asm volatile(
            EACH("movups %3,") "paddq %%xmm5, %%xmm5\n rdtsc\n" EACH(
                "paddq %%xmm5,") "paddq %%xmm0, %%xmm1; paddq %%xmm1, %%xmm2; paddq %%xmm2, %%xmm3;"
                                 "paddq %%xmm3, %%xmm4; movups %%xmm4, %2"
            : "=a"(low), "=d"(high), "=m"(got)
            : "m"(value));
        uint64_t now = (uint64_t)high << 32 | low;
        wrong += now < last;
        changed += got[0] != value[0] * 15 || got[1] != value[1] * 15; /* five of 1 + 2 */
        last = now;
    }
    CHECK_EQ(wrong, 0);
    CHECK_EQ(changed, 0);
}

/* The registers that RDTSC does not write, and the flags, are as before. */
TEST(registers_stay)
{
    unsigned wrong = 0;
    for (uint64_t end = rdtsc() + 50 * MS, now = 0; now < end;) {
        uint64_t rcx = 1, rsi = 2, rdi = 3, r8, r10, low = ~0ull, high = ~0ull;
        uint8_t carry;
        asm volatile("mov $4, %%r8d; mov $5, %%r10d; stc; rdtsc; setc %7; mov %%r8, %5; "
                     "mov %%r10, %6"
                     : "+a"(low), "+d"(high), "+c"(rcx), "+S"(rsi), "+D"(rdi), "=&r"(r8),
                       "=&r"(r10), "=&r"(carry)::"r8", "r10", "cc");
        wrong += rcx != 1 || rsi != 2 || rdi != 3 || r8 != 4 || r10 != 5 || !carry;
        wrong += low >> 32 || high >> 32;
        now = high << 32 | low;
    }
    CHECK_EQ(wrong, 0);
}

TEST(it_can_be_moved)
{
    unsigned wrong = 0;
    wrmsr(MSR_TSC_ADJUST, 0);
    for (unsigned i = 0; i < 200; i++) {
        uint64_t before = ordered();
        wrmsr(MSR_TSC_ADJUST, 1ull << 50);
        uint64_t after = ordered();
        wrong += after < before + (1ull << 50) || after > before + (1ull << 50) + 60000 * MS;
        wrmsr(MSR_TSC, 12345);
        after = ordered();
        wrong += after < 12345 || after > 60000 * MS;
        wrmsr(MSR_TSC_ADJUST, 0);
        after = ordered();
        wrong += after < before || after > before + 60000 * MS;
    }
    CHECK_EQ(wrong, 0);
}

/* A deadline's interrupt does not come before the counter has got there. */
static volatile uint64_t came;
static void note(struct frame *f)
{
    came = ordered();
    apic_eoi(f);
}

TEST(a_deadline_is_not_early)
{
    enum { MSR_DEADLINE = 0x6e0, V = 0x50, TSC_DEADLINE_MODE = 2 << 17 };
    unsigned early = 0;
    apic_quiet();
    count_hits(V, V, note);
    apic_write(APIC_LVT_TIMER, TSC_DEADLINE_MODE | V);
    for (unsigned i = 1; i <= 300; i++) {
        uint64_t due = ordered() + 1000 + i * 3001;
        wrmsr(MSR_DEADLINE, due);
        CHECK(wait_hits(V, i));
        early += came < due;
    }
    CHECK_EQ(early, 0);
}

const struct test guest_tests[] = {T(one_counter_for_rdtsc_and_rdmsr),
                                   T(one_counter_for_two_processors),
                                   T(vectors_stay),
                                   T(registers_stay),
                                   T(it_can_be_moved),
                                   T(a_deadline_is_not_early),
                                   {0, 0}};
