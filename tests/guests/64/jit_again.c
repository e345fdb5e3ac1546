/*
 * jit_again.c - calls between two pages while what code is where changes, and while it does not but
 * might have: what a translator remembers of the way must be asked about again, and that must give
 * what the tables say.
 */
#include "any.h"
#include "paging.h"

enum { SETS = 3, PLACES = 2 };
static uint8_t caller[4096] __attribute__((aligned(4096)));
static uint8_t called[SETS][4096] __attribute__((aligned(4096)));
static uint8_t other[4096] __attribute__((aligned(4096)));

/* The pair of pages is mapped at two places, other code at a third. */
#define PLACE(n) (WINDOW + (n)*0x10000)
#define OTHER    (WINDOW + 0x80000)

static void put(uint8_t *at, const void *code, size_t size)
{
    memcpy(at, code, size);
}

/* The caller's page: CALL to offset 10h of the page behind it, ADD EAX, 100h, and RET; behind that
 * a JMP to 30h there. Each set of that page says its number, from 30h on plus 10h. */
static void set_up(void)
{
    static const uint8_t call[] = {0xe8, 0x0b, 0x10, 0, 0, 0x05, 0, 1, 0, 0, 0xc3},
                         jump[] = {0xe9, 0x0b, 0x10, 0, 0};
    put(caller, call, sizeof call);
    put(caller + 0x20, jump, sizeof jump);
    for (uint8_t n = 0; n < SETS; n++) {
        const uint8_t a[] = {0xb8, n, 0, 0, 0, 0xc3},
                      b[] = {0xb8, (uint8_t)(n + 0x10), 0, 0, 0, 0xc3};
        put(called[n] + 0x10, a, sizeof a);
        put(called[n] + 0x30, b, sizeof b);
    }
    other[0] = 0xc3;
}

static __attribute__((noinline)) unsigned go_to(word at)
{
    unsigned got;
    asm volatile("call *%1" : "=a"(got) : "r"(at) : "memory", "cc");
    return got;
}

static void show(unsigned place, unsigned set, uint64_t rights)
{
    map_page(PLACE(place) + PAGE, (word)called[set], 1, rights);
    invlpg((void *)(PLACE(place) + PAGE));
}

/* Everything that was found out about fetches is outdated now; nothing has changed. */
static void outdate(unsigned how)
{
    if (how == 0)
        write_cr3(read_cr3());
    else if (how == 1)
        invlpg((void *)OTHER);
    else if (how == 2)
        invlpg(caller);
    go_to(OTHER);
}

static void run(uint64_t rights)
{
    unsigned set[PLACES] = {0, 1}, bad = 0;
    paging_reset();
    for (unsigned n = 0; n < PLACES; n++) {
        map_page(PLACE(n), (word)caller, 1, rights);
        show(n, set[n], rights);
    }
    map_page(OTHER, (word)other, 1, rights);
    for (unsigned i = 0; i < 20000 && !bad; i++) {
        unsigned place = any(PLACES), jump = any(2), why = any(30);
        if (why == 0)
            show(place, set[place] = any(SETS), rights);
        else if (why < 12)
            outdate(any(3));
        unsigned got = go_to(PLACE(place) + jump * 0x20),
                 want = jump ? 0x10 + set[place] : 0x100 + set[place];
        if (got != want) {
            print("  place %u, set %u at %u: %x\n", place, set[place], i, got);
            bad++;
        }
    }
    CHECK_EQ(bad, 0);
}

TEST(local_pages)
{
    set_up();
    run(PG_P | PG_W);
}

TEST(global_pages)
{
    set_up();
    write_cr4(read_cr4() | CR4_PGE);
    run(PG_P | PG_W | PG_G);
    write_cr4(read_cr4() & ~CR4_PGE);
}

/* Of the target, after the way to it has been gone often. */
TEST(rights_that_go)
{
    set_up();
    paging_reset();
    map_page(PLACE(0), (word)caller, 1, PG_P | PG_W);
    map_page(OTHER, (word)other, 1, PG_P | PG_W);
    for (unsigned i = 0; i < 120; i++) {
        unsigned gone = i % 3; /* not at all; not present; not executable */
        show(0, 1, PG_P | PG_W);
        for (unsigned k = 0; k < 5; k++) {
            outdate(k % 3);
            CHECK_EQ(go_to(PLACE(0)), 0x101);
        }
        if (gone)
            show(0, 1, gone == 1 ? 0 : PG_P | PG_W | PG_NX);
        if (gone == 2) /* the page is known then, for reading */
            (void)*(volatile uint8_t *)(PLACE(0) + PAGE);
        struct trap t = CATCH(go_to(PLACE(0)));
        CHECK_EQ(t.vector, gone ? VECTOR_PF : NO_TRAP);
        if (!gone)
            continue;
        CHECK_EQ(t.cr2, PLACE(0) + PAGE + 0x10);
        CHECK_EQ(t.rip, PLACE(0) + PAGE + 0x10);
        CHECK_EQ(t.error, gone == 1 ? 0x10 : 0x11);
    }
}

/* The code itself changes, by its other mapping. */
TEST(code_that_changes)
{
    set_up();
    paging_reset();
    map_page(PLACE(0), (word)caller, 1, PG_P | PG_W);
    map_page(OTHER, (word)other, 1, PG_P | PG_W);
    show(0, 0, PG_P | PG_W);
    for (unsigned i = 0; i < 300; i++) {
        if (i % 4 == 0)
            ((volatile uint8_t *)called[0])[0x11] = (uint8_t)i;
        outdate(i % 3);
        CHECK_EQ(go_to(PLACE(0)), 0x100 + (i & ~3u & 0xff));
    }
}

const struct test guest_tests[] = {
    T(local_pages), T(global_pages), T(rights_that_go), T(code_that_changes), {0, 0}};
