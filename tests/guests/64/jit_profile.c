/*
 * jit_profile.c - a guest of which it is known where its time goes and why its translated code is
 * left, for -d jit-profile to find out (tests/app/profile.py): four fifths of it in hot_function().
 */
#include "paging.h"

enum { MILLISECOND = 1000000 }; /* TSC ticks in Bailey */
enum { CALLS = 50000, PORTS = 3000, MISALIGNED = 2000, OBJECTS = 400000 };

__attribute__((noinline)) static uint64_t hot_function(uint64_t x)
{
    for (unsigned i = 0; i < 5000; i++)
        x = x * 6364136223846793005ull + 1442695040888963407ull;
    return x;
}

__attribute__((noinline)) static uint64_t warm_function(uint64_t x)
{
    for (unsigned i = 0; i < 5000; i++)
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    return x;
}

TEST(hot_and_warm)
{
    uint64_t x = 1;
    for (unsigned turn = 0; turn < 5; turn++)
        for (uint64_t begin = rdtsc(); rdtsc() - begin < 160 * MILLISECOND;)
            x = turn == 2 ? warm_function(x) : hot_function(x);
    CHECK(x != 0);
}

/* mov eax, value; ret */
static uint8_t *put_mov(unsigned at, uint32_t value)
{
    uint8_t *p = (uint8_t *)FREE_RAM + at;
    p[0] = 0xb8;
    memcpy(p + 1, &value, 4);
    p[5] = 0xc3;
    return p;
}

__attribute__((noinline)) static uint64_t call_it(uint8_t *p)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < CALLS; i++)
        sum += ((uint32_t(*)(void))p)();
    return sum;
}

/* What was translated and then changed is translated again, though it is found by its address. */
TEST(changed_once)
{
    uint8_t *p = put_mov(64, 1);
    CHECK_EQ(call_it(p), CALLS);
    put_mov(64, 7);
    CHECK_EQ(call_it(p), 7ull * CALLS);
}

/* An instruction that C executes, and accesses that no lookup can do. */
__attribute__((noinline)) static void read_ports(void)
{
    for (unsigned i = 0; i < PORTS; i++)
        asm volatile("in $0x61, %%al" : : : "rax");
}
__attribute__((noinline)) static uint64_t cross_pages(void)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < MISALIGNED; i++)
        sum += *(volatile uint64_t *)(FREE_RAM + 0x10000 + 4092);
    return sum;
}
TEST(rare_things)
{
    *(volatile uint32_t *)(FREE_RAM + 0x10000 + 4092) = 3;
    *(volatile uint32_t *)(FREE_RAM + 0x10000 + 4096) = 0;
    read_ports();
    CHECK_EQ(cross_pages(), 3ull * MISALIGNED);
}

/* Four objects, of which the last lies over a page's end, its pages not side by side: one in 300
 * looks at it, each some microseconds after the other. */
__attribute__((noinline)) static uint64_t look_at(const volatile uint64_t *p)
{
    return p[0] + p[1] + p[2] + p[3];
}
TEST(over_a_page_end)
{
    uint64_t sum = 0;
    map_page(WINDOW, FREE_RAM + 0x20000, 1, PG_ALL);
    map_page(WINDOW + PAGE, FREE_RAM + 0x30000, 1, PG_ALL);
    for (unsigned i = 0; i < OBJECTS; i++)
        sum +=
            look_at((const volatile uint64_t *)(WINDOW + PAGE - (i % 300 ? 64 + i % 3 * 8 : 16)));
    CHECK_EQ(sum, 0);
}

const struct test guest_tests[] = {
    T(hot_and_warm), T(changed_once), T(rare_things), T(over_a_page_end), {0, 0}};
