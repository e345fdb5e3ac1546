/*
 * jit_held.c - accesses by the same registers, which a translator may look up together: each has to
 * behave as if it stood alone. Groups at every distance from a page's end, with pages that lie
 * together and such that do not, with the second page absent or read-only, or moved meanwhile;
 * registers that change between; a page that is protected by a store between two stores to it, and
 * one whose table entry goes meanwhile; comparisons with memory whose flags are asked for behind
 * other accesses.
 */
#include "paging.h"
#include "watch.h"

#define TWO WINDOW /* two pages */
/* Their frames: apart in the other order, side by side in that, or as the pages are. */
static const int64_t layouts[] = {-2 * PAGE, -PAGE, PAGE};
static int64_t layout = -2 * PAGE;
#define FRAME(n) (FREE_RAM + 0x100000 + (n)*layout)
#define EACH_LAYOUT(i)                                                                             \
    for (unsigned i = 3; i-- > 0 && (layout = layouts[i]);) /* leaves the first */

#define NOINLINE __attribute__((noinline)) /* so that a region begins with it */

static void map_two(uint64_t second)
{
    paging_reset();
    map_page(TWO, FRAME(0), 1, PG_ALL);
    map_page(TWO + PAGE, FRAME(1), 1, second);
}

/* ---- Ends of pages ------------------------------------------------------------------------------
 */

struct five {
    uint64_t a, b, c;
    uint32_t d;
    uint8_t e;
};

static struct five load_five(word at)
{
    struct five v;
    asm volatile("mov (%5), %0; mov 8(%5), %1; mov 16(%5), %2; mov 24(%5), %3; mov 28(%5), %4"
                 : "=&r"(v.a), "=&r"(v.b), "=&r"(v.c), "=&r"(v.d), "=&r"(v.e)
                 : "r"(at)
                 : "memory");
    return v;
}
static void store_five(word at, struct five v)
{
    asm volatile("mov %0, (%5); mov %1, 8(%5); mov %2, 16(%5); mov %3, 24(%5); mov %4, 28(%5)"
                 :
                 : "r"(v.a), "r"(v.b), "r"(v.c), "r"(v.d), "r"(v.e), "r"(at)
                 : "memory");
}

static void groups_at_the_end(void)
{
    map_two(PG_ALL);
    for (unsigned round = 0; round < 40; round++)
        for (word at = TWO + PAGE - 40; at < TWO + PAGE + 8; at++) {
            struct five v = {at * 3, at * 5 + round, at * 7, (uint32_t)(at * 11), (uint8_t)at};
            store_five(at, v);
            struct five got = load_five(at);
            CHECK_EQ(got.a, v.a);
            CHECK_EQ(got.b, v.b);
            CHECK_EQ(got.c, v.c);
            CHECK_EQ(got.d, v.d);
            CHECK_EQ(got.e, v.e);
            /* byte by byte, where the pages really are */
            for (unsigned i = 0; i < 29; i++) {
                word p = at + i;
                volatile uint8_t *frame = (volatile uint8_t *)(word)FRAME(p >= TWO + PAGE);
                const uint8_t *want = i < 8    ? (uint8_t *)&v.a
                                      : i < 16 ? (uint8_t *)&v.b - 8
                                      : i < 24 ? (uint8_t *)&v.c - 16
                                      : i < 28 ? (uint8_t *)&v.d - 24
                                               : &v.e - 28;
                CHECK_EQ(frame[p % PAGE], want[i]);
            }
        }
}

TEST(groups_at_the_end_of_a_page)
{
    EACH_LAYOUT(i)
    groups_at_the_end();
}

/* It lay side by side with the first, and does not any more; then it does again. */
TEST(the_second_page_moved)
{
    layout = PAGE;
    map_two(PG_ALL);
    volatile uint64_t *entry = entry_of(TWO + PAGE, 1);
    uint64_t entries[] = {*entry, FRAME(3) | (*entry & 0xfff)};
    ((volatile uint64_t *)(word)FRAME(1))[0] = 10;
    ((volatile uint64_t *)(word)FRAME(3))[0] = 30;
    for (unsigned i = 0; i < 200; i++) {
        unsigned away = (i / 3) & 1;
        *entry = entries[away];
        invlpg((void *)(TWO + PAGE));
        CHECK_EQ(load_five(TWO + PAGE - 16).c, away ? 30 : 10);
    }
    layout = layouts[0];
}

/* The third store faults, at its own address, and those before it have been made. */
static void fault_inside(void)
{
    for (volatile unsigned round = 0; round < 30; round++)
        for (volatile unsigned absent = 0; absent < 2; absent++) {
            map_two(absent ? 0 : PG_ALL & ~(uint64_t)PG_W);
            write_cr0(read_cr0() | CR0_WP);
            word at = TWO + PAGE - 16;
            memset((void *)(word)FRAME(0), 0, PAGE);
            struct trap t = CATCH(store_five(at, (struct five){1, 2, 3, 4, 5}));
            CHECK_EQ(t.vector, VECTOR_PF);
            CHECK_EQ(t.cr2, TWO + PAGE);
            CHECK_EQ(t.error, absent ? 2 : 3);
            CHECK_EQ(((volatile uint64_t *)at)[0], 1);
            CHECK_EQ(((volatile uint64_t *)at)[1], 2);
        }
}

TEST(a_fault_inside_a_group)
{
    EACH_LAYOUT(i)
    fault_inside();
}

/* A load by the same register does not make the page writable. */
TEST(a_store_behind_loads)
{
    map_page(TWO, FRAME(0), 1, PG_ALL & ~(uint64_t)PG_W);
    write_cr0(read_cr0() | CR0_WP);
    for (volatile unsigned round = 0; round < 30; round++) {
        struct trap t = CATCH(asm volatile("mov (%0), %%rax; mov 16(%0), %%rax;" LABEL(
                                               held_read_only) "mov %%rax, 8(%0)" ::"r"(TWO)
                                           : "rax", "memory"));
        CHECK_EQ(t.vector, VECTOR_PF);
        CHECK_EQ(t.rip, SYMBOL(held_read_only));
        CHECK_EQ(t.cr2, TWO + 8);
        CHECK_EQ(t.error, 3);
    }
}

/* ---- What changes in between --------------------------------------------------------------------
 */

TEST(registers_that_change)
{
    static uint64_t a[4] = {10, 11, 12, 13}, b[4] = {20, 21, 22, 23};
    for (unsigned round = 0; round < 40; round++) {
        uint64_t sum = 0, index = 1;
        word p = (word)a;
        asm volatile(
            "mov (%1), %%rax; add %%rax, %0;"  /* 10 */
            "mov %3, %1;"                      /* another base */
            "mov 8(%1), %%rax; add %%rax, %0;" /* 21 */
            "mov 16(%1), %1; add %1, %0;"      /* 22, over its own base */
            "lea %4, %1;"
            "mov (%1,%2,8), %%rax; add %%rax, %0;"  /* 11 */
            "inc %2;"                               /* another index */
            "mov 8(%1,%2,8), %%rax; add %%rax, %0;" /* 13 */
            "add $8, %1;"
            "mov 8(%1), %%rax; add %%rax, %0;"                                         /* 12 */
            "push %%rbx; mov %1, %%rbx; mov (%%rbx), %%rax; pop %%rbx; add %%rax, %0;" /* 11 */
            : "+r"(sum), "+r"(p), "+r"(index)
            : "r"((word)b), "m"(a)
            : "rax", "memory");
        CHECK_EQ(sum, 10 + 21 + 22 + 11 + 13 + 12 + 11);
    }
}

/* Constants are added between the accesses, by every instruction that may do it; where they are on
 * two ways different ones, on the taken way with bit 0 of `way`. */
static NOINLINE word store_and_add(word at, uint64_t v, unsigned way)
{
    asm volatile("mov %b1, (%0); add $8, %0; mov %1, -7(%0); inc %0; mov %1, (%0);"
                 "sub $-128, %0; mov %b1, -120(%0); dec %0; mov %w1, -118(%0);"
                 "lea -126(%0), %0; mov %b1, 9(%0);"
                 "test $1, %b2; jz 1f; add $2, %0; mov %b1, 8(%0); 1: mov %b1, 9(%0);"
                 "test $2, %b2; jz 2f; add $3, %0; jmp 3f; 2: add $3, %0; 3: mov %b1, 9(%0)"
                 : "+r"(at)
                 : "q"(v), "r"(way)
                 : "memory");
    return at;
}
static word model_store_and_add(uint8_t *at, uint64_t v, unsigned way)
{
    uint8_t *p = at;
    p[0] = (uint8_t)v, p += 8, memcpy(p - 7, &v, 8), p++, memcpy(p, &v, 8);
    p += 128, p[-120] = (uint8_t)v, p--, memcpy(p - 118, &v, 2);
    p -= 126, p[9] = (uint8_t)v;
    if (way & 1)
        p += 2, p[8] = (uint8_t)v;
    p[9] = (uint8_t)v, p += 3, p[9] = (uint8_t)v;
    return (word)(p - at);
}

TEST(registers_that_are_added_to)
{
    enum { ROOM = 64 };
    static uint8_t model[ROOM];
    map_two(PG_ALL);
    for (unsigned round = 0; round < 24; round++)
        for (word at = TWO + PAGE - ROOM; at < TWO + PAGE + 8; at++) {
            uint64_t v = 0x0102030405060708 * (round + 1) + at;
            unsigned bad = 0;
            for (unsigned i = 0; i < ROOM; i++)
                model[i] = (uint8_t)(i + round);
            memcpy((void *)at, model, ROOM);
            CHECK_EQ(store_and_add(at, v, round & 3) - at,
                     model_store_and_add(model, v, round & 3));
            for (unsigned i = 0; i < ROOM; i++) {
                word p = at + i;
                bad += ((volatile uint8_t *)(word)FRAME(p >= TWO + PAGE))[p % PAGE] != model[i];
            }
            CHECK_EQ(bad, 0);
        }
}

/* By an index, scaled; in a loop, whose head nothing is kept at. */
static NOINLINE uint64_t add_up(const uint64_t *p, word n)
{
    uint64_t sum = 0;
    word i = 0;
    asm volatile("1: add (%2,%1,8), %0; add $1, %1; add (%2,%1,8), %0; sub $-2, %1;"
                 "add -16(%2,%1,8), %0; cmp %3, %1; jb 1b"
                 : "+&r"(sum), "+&r"(i)
                 : "r"(p), "r"(n)
                 : "memory");
    return sum;
}

TEST(an_index_that_is_added_to)
{
    map_two(PG_ALL);
    for (unsigned round = 0; round < 20; round++)
        for (unsigned at = 0; at < 40; at++) {
            uint64_t *p = (uint64_t *)(TWO + PAGE) - at, want = 0;
            for (unsigned i = 0; i < 33; i++)
                p[i] = (uint64_t)(round + i) << i;
            for (unsigned i = 0; i < 30; i += 3)
                want += p[i] + 2 * p[i + 1];
            CHECK_EQ(add_up(p, 30), want);
        }
}

/* What has to be aligned is tested for itself, whatever else is in the group. */
static NOINLINE struct trap store_aligned(word at)
{
    return CATCH(asm volatile("movups (%0), %%xmm0; add $16, %0; movups %%xmm0, (%0);\n" LABEL(
                                  held_aligned) "movaps %%xmm0, 16(%0); movups %%xmm0, 8(%0)"
                              : "+r"(at)
                              :
                              : "memory"));
}

TEST(alignment_in_a_group)
{
    map_two(PG_ALL);
    for (volatile unsigned round = 0; round < 24; round++)
        for (volatile word at = TWO + PAGE - 64; at < TWO + PAGE + 16; at += 4) {
            memset((void *)at, 0, 64);
            *(volatile uint64_t *)at = at;
            struct trap t = store_aligned(at);
            CHECK_EQ(t.vector, at % 16 == 0 ? NO_TRAP : VECTOR_GP);
            if (at % 16)
                CHECK_EQ(t.rip, SYMBOL(held_aligned));
            CHECK_EQ(*(volatile uint64_t *)(at + 16), at);
            CHECK_EQ(*(volatile uint64_t *)(at + 24), at % 16 ? 0 : at);
            CHECK_EQ(*(volatile uint64_t *)(at + 32), 0);
        }
}

/* An AMD processor can be told not to insist (APM vol. 1, 4.2.2, MM): then C makes the access, and
 * the group goes on behind it. */
static NOINLINE uint64_t add_around_misaligned(word at)
{
    uint64_t sum;
    asm volatile("mov (%1), %0; paddq 16(%1), %%xmm0; add 8(%1), %0"
                 : "=&r"(sum)
                 : "r"(at)
                 : "memory", "cc");
    return sum;
}

TEST(misaligned_in_a_group)
{
    static const uint32_t usual = 0x1f80, lenient = 0x21f80;
    if (!cpu_has(0x80000001, REG_ECX, 7)) /* MisAlignSse */
        return;
    map_two(PG_ALL);
    asm volatile("ldmxcsr %0" ::"m"(lenient));
    for (unsigned round = 0; round < 24; round++)
        for (word at = TWO + PAGE - 64; at < TWO + PAGE + 16; at += 4) {
            *(volatile uint64_t *)at = at;
            *(volatile uint64_t *)(at + 8) = round;
            CHECK_EQ(add_around_misaligned(at), at + round);
        }
    asm volatile("ldmxcsr %0" ::"m"(usual));
}

/* ---- Where ways part and meet -------------------------------------------------------------------
 */

/* Bit 0 of `way` leaves out what finds p's page first, bit 1 changes p, bit 2 takes the taken of
 * two arms; bits 3 and 4 lead to the last load but two, with p's page found and with p changed. */
static NOINLINE uint64_t load_over_branches(const uint64_t *p, const uint64_t *q, unsigned way)
{
    uint64_t sum = 0;
    asm volatile(
        "add (%2), %0; test $1, %b3; jnz 1f; add (%1), %0; add 16(%1), %0; 1:"
        "add 8(%1), %0;"
        "test $2, %b3; jz 2f; mov %2, %1; 2:"
        "add 16(%1), %0;"
        "test $4, %b3; jnz 3f; add 24(%1), %0; jmp 4f; 3: add 32(%1), %0; 4:"
        "add 40(%1), %0;"
        "test $8, %b3; jnz 5f; mov %2, %1; test $16, %b3; jnz 5f; jmp 6f; 5: add 24(%1), %0; 6:"
        "add 16(%1), %0; add 8(%2), %0; test $1, %b3; jnz 7f; add 24(%1), %0; 7: add 32(%1), %0"
        : "+&r"(sum), "+&r"(p)
        : "r"(q), "r"(way)
        : "memory");
    return sum;
}

static uint64_t sum_over_branches(const uint64_t *p, const uint64_t *q, unsigned way)
{
    uint64_t sum = q[0] + (way & 1 ? 0 : p[0] + p[2]) + p[1];
    if (way & 2)
        p = q;
    sum += p[2] + p[way & 4 ? 4 : 3] + p[5];
    if (!(way & 8))
        p = q;
    return sum + (way & 24 ? p[3] : 0) + p[2] + q[1] + (way & 1 ? 0 : p[3]) + p[4];
}

TEST(groups_over_branches)
{
    static uint64_t here[6] = {100, 200, 300, 400, 500, 600};
    map_two(PG_ALL);
    uint64_t *at[] = {(uint64_t *)(TWO + 64), (uint64_t *)(TWO + PAGE + 64), here,
                      (uint64_t *)(TWO + PAGE - 24)};
    for (unsigned k = 0; k < 4; k++)
        for (unsigned i = 0; k != 2 && i < 6; i++)
            at[k][i] = (1 + k) << (10 * i);
    /* The last one crosses the page's end, after which there are soon no groups. */
    for (unsigned last = 0; last < 4; last++)
        for (unsigned way = 0; way < 32; way++)
            for (unsigned k = 0; k < 16; k++) {
                unsigned n = k & 3, m = k >> 2;
                if ((n > m ? n : m) == last)
                    CHECK_EQ(load_over_branches(at[n], at[m], way),
                             sum_over_branches(at[n], at[m], way));
            }
}

/* On each of two ways four addresses are kept, in an order that differs, one of them by another
 * displacement: no place is for the same on both. */
static NOINLINE uint64_t load_by_four(uint64_t *const p[4], unsigned way)
{
    uint64_t sum = 0;
    asm volatile("mov (%1), %%rax; mov 8(%1), %%rbx; mov 16(%1), %%rcx; mov 24(%1), %%rsi;"
                 "test $1, %b2; jz 1f;"
                 "add (%%rax), %0; add 8(%%rax), %0;"
                 "add (%%rbx), %0; add 8(%%rbx), %0;"
                 "add (%%rcx), %0; add 8(%%rcx), %0;"
                 "add (%%rsi,%3), %0; add 8(%%rsi,%3), %0;"
                 "jmp 2f; 1:"
                 "add (%%rbx), %0; add 8(%%rbx), %0;"
                 "add (%%rcx), %0; add 8(%%rcx), %0;"
                 "add (%%rax), %0; add 8(%%rax), %0;"
                 "add 8(%%rsi,%3), %0; add 16(%%rsi,%3), %0;"
                 "2: add 8(%%rax), %0; add 8(%%rbx), %0; add 8(%%rcx), %0; add 8(%%rsi,%3), %0"
                 : "+&r"(sum)
                 : "r"(p), "r"(way), "r"(0ul)
                 : "rax", "rbx", "rcx", "rsi", "memory");
    return sum;
}

TEST(places_for_others)
{
    static uint64_t here[3] = {7, 77, 777};
    map_two(PG_ALL);
    uint64_t *p[] = {(uint64_t *)(TWO + 256), (uint64_t *)(TWO + PAGE + 512), here,
                     (uint64_t *)(TWO + 64)};
    for (unsigned i = 0; i < 4; i++)
        for (unsigned n = 0; n < 3; n++)
            p[i][n] = 1ull << (8 * n + 2 * i);
    uint64_t both = 0;
    for (unsigned i = 0; i < 3; i++)
        both += p[i][0] + 2 * p[i][1];
    for (unsigned round = 0; round < 80; round++)
        CHECK_EQ(load_by_four(p, round), both + 2 * p[3][1] + p[3][round & 1 ? 0 : 2]);
}

/* Two ways meet with p's page found, and only on one of them it was p that was used last. */
static NOINLINE uint64_t load_last(const uint64_t *p, const uint64_t *q, unsigned way)
{
    uint64_t sum;
    asm volatile(
        "mov (%1), %0; mov (%2), %%rax; mov 8(%2), %%rax; test $1, %b3; jz 1f; mov 8(%1), %0; 1:"
        "mov 16(%1), %0"
        : "=&r"(sum)
        : "r"(p), "r"(q), "r"(way)
        : "rax", "memory");
    return sum;
}

TEST(another_used_last)
{
    map_two(PG_ALL);
    uint64_t *p = (uint64_t *)(TWO + 64), *q = (uint64_t *)(TWO + PAGE + 64);
    p[2] = 1;
    q[2] = 2;
    for (unsigned round = 0; round < 40; round++) {
        CHECK_EQ(load_last(p, q, round), 1);
        CHECK_EQ(load_last(q, p, round), 2);
    }
}

/* One of the ways to a place comes from behind it, but that is no loop. */
static NOINLINE uint64_t load_behind(const uint64_t *p, unsigned way)
{
    uint64_t sum = 0;
    asm volatile("add (%1), %0; test $1, %b2; jz 1f; test $2, %b2; jnz 2f; jmp 3f;"
                 "1: add 8(%1), %0; add 16(%1), %0; jmp 3f;"
                 "2: add 24(%1), %0; jmp 1b; 3: add 32(%1), %0"
                 : "+&r"(sum)
                 : "r"(p), "r"(way)
                 : "memory");
    return sum;
}

TEST(a_way_from_behind)
{
    static const uint64_t p[5] = {1, 10, 100, 1000, 10000};
    static const uint64_t want[4] = {10111, 10001, 10111, 11111};
    for (unsigned round = 0; round < 80; round++)
        CHECK_EQ(load_behind(p, round & 3), want[round & 3]);
}

/* What is found before a loop is not good in it when the loop moves the page. */
TEST(groups_and_loops)
{
    map_two(PG_ALL);
    volatile uint64_t *entry = entry_of(TWO, 1);
    for (unsigned round = 0; round < 40; round++) {
        uint64_t at = TWO, there = *entry, moved = FRAME(2) | (there & 0xfff), sum = 0, n = 6;
        ((volatile uint64_t *)(word)FRAME(0))[1] = 1;
        ((volatile uint64_t *)(word)FRAME(2))[1] = 100;
        asm volatile("mov (%2), %%rax; add 8(%2), %0; 1: add 8(%2), %0; add 8(%2), %0;"
                     "test $1, %b1; jz 2f; mov %3, (%5); jmp 3f; 2: mov %4, (%5); 3:"
                     "mov %2, %%rax; invlpg (%%rax); dec %1; jnz 1b"
                     : "+&r"(sum), "+&r"(n)
                     : "r"(at), "r"(moved), "r"(there), "r"(entry)
                     : "rax", "memory");
        CHECK_EQ(sum, 1 + (2 + 2) + (200 + 2) + (200 + 2)); /* rounds with n = 6 to 1 */
        map_page(TWO, FRAME(0), 1, PG_ALL);
    }
}

static uint8_t page[4096] __attribute__((aligned(4096)));

/* Between two stores by one register a store to the door protects the page: the second is refused.
 */
TEST(a_page_protected_in_between)
{
    for (unsigned round = 0; round < 24; round++) {
        watch_begin();
        watch_refuse_at_doorbell(page, sizeof page);
        memset(page, 0, sizeof page);
        struct trap t =
            CATCH(asm volatile("movq $1, (%0); movl $0, (%1);" LABEL(held_refused) "movq $2, 8(%0)"
                               :
                               : "r"(page), "r"(&DOOR(0)->doorbell)
                               : "memory"));
        CHECK_EQ(t.vector, VECTOR_PF);
        CHECK_EQ(t.rip, SYMBOL(held_refused));
        CHECK_EQ(t.cr2, (word)page + 8);
        CHECK_EQ(((volatile uint64_t *)page)[0], 1);
        CHECK_EQ(((volatile uint64_t *)page)[1], 0);
        watch_end();
    }
}

/* The same where only one of two ways goes to the door, and the second store stands where they
 * meet. */
TEST(a_page_protected_on_one_way)
{
    for (volatile unsigned round = 0; round < 24; round++) {
        watch_begin();
        watch_refuse_at_doorbell(page, sizeof page);
        memset(page, 0, sizeof page);
        struct trap t =
            CATCH(asm volatile("movq $1, (%0); test $1, %b2; jz 1f; movl $0, (%1); 1:" LABEL(
                                   held_refused_there) "movq $2, 8(%0)"
                               :
                               : "r"(page), "r"(&DOOR(0)->doorbell), "r"(round)
                               : "memory"));
        CHECK_EQ(t.vector, round & 1 ? VECTOR_PF : NO_TRAP);
        CHECK_EQ(((volatile uint64_t *)page)[0], 1);
        CHECK_EQ(((volatile uint64_t *)page)[1], round & 1 ? 0 : 2);
        if (round & 1) {
            CHECK_EQ(t.rip, SYMBOL(held_refused_there));
            CHECK_EQ(t.cr2, (word)page + 8);
        }
        watch_end();
    }
}

/* The page goes elsewhere between two loads by one register. */
TEST(a_page_moved_in_between)
{
    map_two(PG_ALL);
    for (unsigned round = 0; round < 40; round++) {
        volatile uint64_t *entry = entry_of(TWO, 1);
        map_page(TWO, FRAME(0), 1, PG_ALL);
        ((volatile uint64_t *)(word)FRAME(0))[1] = 1;
        ((volatile uint64_t *)(word)FRAME(2))[1] = 2;
        uint64_t before, after, at = TWO, moved = FRAME(2) | (*entry & 0xfff);
        asm volatile(
            "mov (%2), %0; mov 8(%2), %0; mov %3, (%4); invlpg (%2); mov 8(%2), %1; mov (%2), %2"
            : "=&r"(before), "=&r"(after), "+r"(at)
            : "r"(moved), "r"(entry)
            : "memory");
        CHECK_EQ(before, 1);
        CHECK_EQ(after, 2);
    }
}

/* ---- Flags of comparisons with memory -----------------------------------------------------------
 */

TEST(flags_behind_other_accesses)
{
    static const uint64_t values[] = {0, 1, 5, 127, 128, 255, 1ull << 31, ~0ull, 1ull << 63};
    map_two(PG_ALL);
    for (unsigned round = 0; round < 4; round++)
        for (unsigned i = 0; i < 9; i++)
            for (unsigned j = 0; j < 9; j++) {
                volatile uint64_t *other = (volatile uint64_t *)(TWO + PAGE * (round & 1));
                uint64_t m = values[i], r = values[j], sum = r;
                bool below, less, equal, byte_less, carry;
                other[4 + (round >> 1)] = m;
                uint64_t *elsewhere = (uint64_t *)(TWO + PAGE * (~round & 1));
                invlpg(elsewhere); /* the first access needs help, and flags outlive that */
                if (j & 1)
                    invlpg((void *)other);
                asm volatile("cmpq %7, %6; mov (%8), %%rax; setb %0; setl %1; sete %2;"
                             "cmpb %b7, %6; mov %%rax, 8(%8); setl %3;"
                             "addq %6, %5; mov %%rax, 16(%8); setc %4"
                             : "=&r"(below), "=&r"(less), "=&r"(equal), "=&r"(byte_less),
                               "=&r"(carry), "+&r"(sum)
                             : "m"(other[4 + (round >> 1)]), "r"(r), "r"(elsewhere)
                             : "rax", "memory", "cc");
                CHECK_EQ(below, m < r);
                CHECK_EQ(less, (int64_t)m < (int64_t)r);
                CHECK_EQ(equal, m == r);
                CHECK_EQ(byte_less, (int8_t)m < (int8_t)r);
                CHECK_EQ(carry, m + r < r);
            }
}

const struct test guest_tests[] = {T(groups_at_the_end_of_a_page),
                                   T(the_second_page_moved),
                                   T(a_fault_inside_a_group),
                                   T(a_store_behind_loads),
                                   T(registers_that_change),
                                   T(registers_that_are_added_to),
                                   T(an_index_that_is_added_to),
                                   T(alignment_in_a_group),
                                   T(misaligned_in_a_group),
                                   T(groups_over_branches),
                                   T(places_for_others),
                                   T(another_used_last),
                                   T(a_way_from_behind),
                                   T(groups_and_loops),
                                   T(a_page_protected_in_between),
                                   T(a_page_protected_on_one_way),
                                   T(a_page_moved_in_between),
                                   T(flags_behind_other_accesses),
                                   {0, 0}};
