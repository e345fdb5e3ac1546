/*
 * jit_pressure.c - more code than the translator's cache holds. There are 48 Ki functions, each of
 * them a run of instructions that no other shares, of which 1 MiB cannot hold a quarter: even 64
 * bytes of host code and data for each would be 3 MiB. So the cache is emptied again and again:
 * between calls, in chains of jumps, and while code changes.
 *
 * guest jit: tb-size=1
 */
#include "pieces.h"

enum { COUNT = 48 * 1024, ROOM = 32, CHAIN = 16 };
#define FUNCTION(i) ((uint8_t *)FREE_RAM + (uint64_t)(i)*ROOM)

typedef uint64_t fn(uint64_t a, uint64_t *cell);

/* lea rax, [rdi + imm32]; add [rsi], rax; then RET, or a JMP to the next of its chain by way of RDI
 */
static void make(unsigned i, int32_t add, bool last)
{
    uint8_t *p = FUNCTION(i);
    const int32_t to_next = ROOM - 18;
    memcpy(p, "\x48\x8d\x87", 3);
    memcpy(p + 3, &add, 4);
    memcpy(p + 7, "\x48\x01\x06\x48\x89\xc7", 6); /* add [rsi], rax; mov rdi, rax */
    p[13] = last ? 0xc3 : 0xe9;
    memcpy(p + 14, &to_next, 4);
}

static void make_all(unsigned seed)
{
    for (unsigned i = 0; i < COUNT; i++)
        make(i, (int32_t)(i + seed), i % CHAIN == CHAIN - 1);
}

TEST(chains_of_functions)
{
    for (unsigned round = 0; round < 3; round++) {
        unsigned wrong = 0;
        make_all(round * 1000);
        for (unsigned i = 0; i < COUNT; i += CHAIN) {
            uint64_t cell = 7, want = round, want_cell = 7;
            for (unsigned k = 0; k < CHAIN; k++)
                want_cell += want += i + k + round * 1000;
            wrong += ((fn *)FUNCTION(i))(round, &cell) != want;
            wrong += cell != want_cell;
        }
        CHECK_EQ(wrong, 0);
    }
}

/* In an order in which neighbours are far apart, with code that changes on the way. */
TEST(here_and_there)
{
    unsigned wrong = 0;
    make_all(5);
    for (unsigned n = 0, i = 1; n < 2 * COUNT; n++) {
        i = (i * 1103515245u + 12345) % COUNT;
        uint64_t cell = 0;
        if (n % 7 == 0)
            make(i, (int32_t)n, true);
        else
            make(i, 3, true);
        wrong += ((fn *)FUNCTION(i))(n, &cell) != (n % 7 == 0 ? 2ull * n : n + 3ull);
        wrong += cell != (n % 7 == 0 ? 2ull * n : n + 3ull);
    }
    CHECK_EQ(wrong, 0);
}

/* One hot loop that calls them all: it goes stale with everything else, and comes back. */
TEST(from_one_loop)
{
    make_all(0);
    uint64_t sum = 0, want = 0;
    unsigned n = COUNT / CHAIN;
    uint8_t *p = FUNCTION(0);
    for (unsigned i = 0; i < COUNT; i += CHAIN) {
        uint64_t x = 0;
        for (unsigned k = 0; k < CHAIN; k++)
            want += x += i + k;
    }
    asm volatile("1: xor %%edi, %%edi; call *%1; add %3, %1; dec %0; jnz 1b"
                 : "+r"(n), "+r"(p)
                 : "S"(&sum), "i"(ROOM * CHAIN)
                 : "rax", "rdi", "memory", "cc");
    CHECK_EQ(sum, want);
}

/* New functions, short and long in no order, go on to one old one by its address. When the cache is
 * emptied for a long one, this stands where the old one stood, and must not find it by what was
 * known of addresses before. */
TEST(ways_to_one_function)
{
    enum { WAYS = 16 * 1024, SIZE = 256, ADDS = 56 };
    static const uint8_t target[] = {0x48, 0x05, 0xe8, 0x03, 0, 0, 0xc3}; /* add rax, 1000; ret */
    uint8_t *to = FUNCTION(0);
    uint64_t three = 3;
    unsigned wrong = 0;
    memcpy(to, target, sizeof target);
    for (unsigned i = 1; i <= WAYS; i++) {
        uint8_t *p = FUNCTION(0) + SIZE * (uint64_t)i, *start = p;
        uint64_t adds = i * 2654435761u >> 31 ? ADDS : 0, x = i;
        for (unsigned k = 0; k < adds; k++, p += 3)
            memcpy(p, "\x48\x03\x06", 3); /* add rax, [rsi] */
        memcpy(p, "\xff\xe7", 2);         /* jmp rdi */
        asm volatile("call *%3" : "+a"(x) : "D"(to), "S"(&three), "r"(start) : "memory", "cc");
        wrong += x != i + 3 * adds + 1000;
    }
    CHECK_EQ(wrong, 0);
}

const struct test guest_tests[] = {
    T(chains_of_functions), T(here_and_there), T(from_one_loop), T(ways_to_one_function), {0, 0}};
