/*
 * jit_smp.c - code that another processor changes while it runs (SDM vol. 3, 9.1.3, cross-modifying
 * code): by the manual's handshake, by a single aligned store, and out of a loop that does nothing
 * but jump to itself.
 *
 * guest options: -smp 2
 */
#include "machine.h"
#include "pieces.h"

static volatile uint32_t *immediate; /* of MOV EAX in the loop that the other one runs */
static volatile unsigned turn, seen, wrong, stop;
static uint8_t code[2][4096] __attribute__((aligned(4096)));

static void serialise(void)
{
    uint32_t r[4];
    cpuid(0, 0, r);
}
static unsigned run(const volatile void *p)
{
    return ((unsigned (*)(void))(word)p)();
}
static bool until(volatile unsigned *what, unsigned value)
{
    for (uint64_t end = rdtsc() + FOREVER; *what != value && rdtsc() < end;)
        asm volatile("pause");
    return *what == value;
}

/* mov eax, imm32; ret, the immediate aligned to 4 */
static uint8_t *put_function(uint8_t *page)
{
    memcpy(page + 3, "\xb8\0\0\0\0\xc3", 6);
    immediate = (volatile uint32_t *)(page + 4);
    return page + 3;
}

enum { ROUNDS = 300 };

static void follow(unsigned id)
{
    for (unsigned i = 1; i <= ROUNDS; i++) {
        if (!until(&turn, i))
            return;
        serialise();
        wrong += run(code[0] + 3) != i;
        seen = i;
    }
}

TEST(handshake)
{
    put_function(code[0]);
    turn = seen = wrong = 0;
    CHECK(start_cpu(1, follow));
    for (unsigned i = 1; i <= ROUNDS; i++) {
        *immediate = i;
        turn = i;
        CHECK(until(&seen, i));
        if (seen != i)
            break;
    }
    CHECK_EQ(wrong, 0);
    until(&cpus_done, 1);
}

/* Never back, never a mixture; and the last value arrives. */
static void watch(unsigned id)
{
    unsigned last = 0;
    while (!stop) {
        unsigned now = run(code[0] + 3);
        wrong += now < last || (now >> 16) != (now & 0xffff);
        last = now;
        seen = now;
    }
}

TEST(one_store_at_any_time)
{
    put_function(code[0]);
    seen = wrong = stop = 0;
    unsigned done = cpus_done;
    CHECK(start_cpu(1, watch));
    for (unsigned i = 1; i <= 2000; i++) {
        *immediate = i * 0x10001;
        for (volatile unsigned wait = 0; wait < 200; wait++)
            ;
    }
    CHECK(until(&seen, 2000 * 0x10001));
    stop = 1;
    CHECK(until(&cpus_done, done + 1));
    CHECK_EQ(wrong, 0);
}

static void enter_the_loop(unsigned id)
{
    for (unsigned i = 1; i <= 50; i++) {
        if (!until(&turn, i))
            return;
        serialise();
        seen = i;
        run(code[i & 1] + 64); /* jmp to itself, until it is two NOPs; then ret */
        wrong++;               /* how often it came out */
    }
}

TEST(out_of_a_loop_that_jumps_to_itself)
{
    turn = seen = wrong = 0;
    unsigned done = cpus_done;
    CHECK(start_cpu(1, enter_the_loop));
    for (unsigned i = 1; i <= 50; i++) {
        volatile uint16_t *jump = (volatile uint16_t *)(code[i & 1] + 64);
        memcpy(code[i & 1] + 64, "\xeb\xfe\xc3", 3);
        turn = i;
        if (!until(&seen, i))
            break;
        for (volatile unsigned wait = 0; wait < 20000; wait++)
            ;
        CHECK_EQ(wrong, i - 1);
        *jump = 0x9090;
        CHECK(until(&wrong, i));
    }
    CHECK(until(&cpus_done, done + 1));
}

const struct test guest_tests[] = {
    T(handshake), T(one_store_at_any_time), T(out_of_a_loop_that_jumps_to_itself), {0, 0}};
