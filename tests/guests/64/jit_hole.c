/*
 * jit_hole.c - code in the last pages before the addresses that are not canonical, and in the first
 * ones behind them: there a branch may lead to such an address, while the same code does not
 * elsewhere.
 *
 * SDM vol. 2, JMP, CALL, Jcc: #GP(0) if the target is not canonical, at the branch.
 */
#include "any.h"
#include "paging.h"

enum { NEAR_PAGES = 12, STUB = 0x10, AHEAD = 3 };
static uint8_t code[4096] __attribute__((aligned(4096)));
static uint8_t stub[4096] __attribute__((aligned(4096)));
static word copy; /* of the page of code: physical */

#define HOLE     (1ull << 47)
#define HOLE_END (0ull - HOLE)

static bool is_canonical(uint64_t at)
{
    return (uint64_t)((int64_t)(at << 16) >> 16) == at;
}

/* Functions in the page, by their offsets; those behind COUNT branch by a number of pages, and say
 * so by that branch's own offset. */
enum {
    COUNT = 0x000,
    IF_UP = 0x040,
    JUMP_UP = 0x080,
    CALL_UP = 0x0c0,
    LINK_UP = 0x100, /* goes to IF_UP */
    IF_DOWN = 0x140,
    JUMP_DOWN = 0x180,
    LINK_DOWN = 0x1c0, /* goes to IF_DOWN */
    GUARD = 0x200,     /* goes to IF_UP if EDI is not 0 */
};

/* A rel32 at code[at + len] that leads to the stub's page, AHEAD pages away. */
static void put_branch(unsigned at, const void *opcode, unsigned len, int pages)
{
    int32_t rel = pages * 4096 + STUB - (int32_t)(at + len + 4);
    memcpy(code + at, opcode, len);
    memcpy(code + at + len, &rel, 4);
}

/* mov eax, 7; test edi, edi; jnz stub; inc eax; ret */
static void put_if(unsigned at, int pages)
{
    static const uint8_t begin[] = {0xb8, 7, 0, 0, 0, 0x85, 0xff}, jnz[] = {0x0f, 0x85},
                         end[] = {0xff, 0xc0, 0xc3};
    memcpy(code + at, begin, sizeof begin);
    put_branch(at + 7, jnz, sizeof jnz, pages);
    memcpy(code + at + 13, end, sizeof end);
}

static void put_jump(unsigned at, unsigned to)
{
    int32_t rel = (int32_t)(to - at - 5);
    code[at] = 0xe9;
    memcpy(code + at + 1, &rel, 4);
}

static void set_up(void)
{
    /* mov ecx, 20; xor eax, eax; again: add eax, edi; dec ecx; jnz again; ret */
    static const uint8_t count[] = {0xb9, 20,   0,    0,    0,    0x31, 0xc0,
                                    0x01, 0xf8, 0xff, 0xc9, 0x75, 0xfa, 0xc3};
    static const uint8_t jmp[] = {0xe9}, call[] = {0xe8}, ret[] = {0xc3};
    /* test edi, edi; jz end; jmp IF_UP; end: mov eax, 8; ret */
    static const uint8_t guard[] = {0x85, 0xff, 0x74, 5, 0, 0, 0, 0, 0, 0xb8, 8, 0, 0, 0, 0xc3};
    static const uint8_t there[] = {0xb8, 0x55, 0, 0, 0, 0xc3};
    memcpy(code + COUNT, count, sizeof count);
    put_if(IF_UP, AHEAD);
    put_branch(JUMP_UP, jmp, sizeof jmp, AHEAD);
    put_branch(CALL_UP, call, sizeof call, AHEAD);
    memcpy(code + CALL_UP + 5, ret, sizeof ret);
    put_jump(LINK_UP, IF_UP);
    put_if(IF_DOWN, -AHEAD);
    put_branch(JUMP_DOWN, jmp, sizeof jmp, -AHEAD);
    put_jump(LINK_DOWN, IF_DOWN);
    memcpy(code + GUARD, guard, sizeof guard);
    put_jump(GUARD + 4, IF_UP);
    memcpy(stub + STUB, there, sizeof there);
}

/* A translator knows nothing of a page that has not been run. */
static void new_page(void)
{
    copy = copy ? copy + PAGE : FREE_RAM;
    memcpy((void *)copy, code, sizeof code);
}

/* The page of code at `at`, the stub's at both its branches' targets where these are. */
static void place(uint64_t at)
{
    map_page(at, copy, 1, PG_P | PG_W);
    for (int d = -AHEAD; d <= AHEAD; d += 2 * AHEAD) {
        uint64_t to = at + (uint64_t)(int64_t)d * PAGE;
        if (is_canonical(to))
            map_page(to, (word)stub, 1, PG_P | PG_W);
    }
}

/* An empty address space but for the guest itself; tests begin so. */
static void clear(void)
{
    boot_pml4[255] = boot_pml4[256] = 0;
    paging_reset();
}

static __attribute__((noinline)) unsigned run(uint64_t at, unsigned edi)
{
    unsigned got;
    asm volatile("call *%1" : "=a"(got), "+r"(at), "+D"(edi) : : "rcx", "memory", "cc");
    return got;
}

/* A number of pages from the hole, before or behind it; or far away. */
static uint64_t place_of(unsigned n)
{
    if (n == 0)
        return WINDOW + 16 * PAGE;
    return n <= NEAR_PAGES ? HOLE - n * 16 * PAGE : HOLE_END + (n - NEAR_PAGES - 1) * 16 * PAGE;
}

/* Where a function's branch is, and whether it leads up or down. */
static unsigned branch_of(unsigned fn, bool *up)
{
    *up = fn < IF_DOWN || fn == GUARD;
    switch (fn) {
    case IF_UP:
    case LINK_UP:
    case GUARD:
        return IF_UP + 7;
    case IF_DOWN:
    case LINK_DOWN:
        return IF_DOWN + 7;
    default:
        return fn;
    }
}

static void check(uint64_t page, unsigned fn, unsigned edi)
{
    bool up, is_if = fn != JUMP_UP && fn != JUMP_DOWN && fn != CALL_UP;
    volatile unsigned branch = branch_of(fn, &up);
    uint64_t to = page + (up ? AHEAD * PAGE : 0 - AHEAD * PAGE);
    bool canonical = is_canonical(to);
    bool taken = !is_if || edi;
    volatile unsigned got = 0;
    struct trap t = CATCH(got = run(page + fn, edi));
    CHECK_EQ(t.vector, taken && !canonical ? VECTOR_GP : NO_TRAP);
    if (t.vector == NO_TRAP) {
        CHECK_EQ(got, taken ? 0x55 : 8);
        return;
    }
    CHECK_EQ(t.error, 0);
    CHECK_EQ(t.rip, page + branch);
}

/* What runs in the same page at one place must not lead astray at another: whatever was run first,
 * and was linked to what. */
TEST(branches_into_the_hole)
{
    static const uint64_t pages[] = {WINDOW + 64 * PAGE, HOLE - PAGE,        HOLE - 2 * PAGE,
                                     HOLE - 3 * PAGE,    HOLE - 4 * PAGE,    HOLE_END,
                                     HOLE_END + PAGE,    HOLE_END + 3 * PAGE};
    static const unsigned fns[] = {IF_UP, JUMP_UP, CALL_UP, LINK_UP, IF_DOWN, JUMP_DOWN, LINK_DOWN};
    set_up();
    for (unsigned round = 0; round < 150; round++) {
        new_page();
        for (unsigned i = 0; i < 10; i++) {
            uint64_t page = pages[any(8)];
            clear();
            place(page);
            for (unsigned n = any(4); n-- > 0;)
                check(page, fns[any(7)], any(3));
        }
    }
}

/* The same page at two places, nothing else changes: at one of them the way that the code has found
 * at the other one may not be gone. */
TEST(ways_found_elsewhere)
{
    static const uint64_t pages[] = {WINDOW + 64 * PAGE, HOLE - 2 * PAGE};
    set_up();
    clear();
    for (unsigned round = 0; round < 400; round++) {
        new_page();
        place(pages[0]);
        map_page(pages[1], copy, 1, PG_P | PG_W);
        for (unsigned n = 0; n < 2; n++)
            invlpg((void *)pages[n]);
        for (unsigned i = 0; i < 12; i++)
            for (unsigned far = any(2), fn = any(2) ? GUARD : IF_UP, edi = any(2), k = any(4);
                 k-- > 0;)
                check(pages[far], fn, edi);
    }
}

/* Tens of pages away from the hole, as libraries and the vDSO lie: -d jit-profile tells whether
 * that is translated (tests/app/profile.py). */
TEST(code_near_the_hole)
{
    set_up();
    new_page();
    for (unsigned n = 0; n <= 2 * NEAR_PAGES; n++) {
        clear();
        place(place_of(n));
        for (unsigned i = 0; i < 2000; i++)
            CHECK_EQ(run(place_of(n) + COUNT, i), 20 * i);
        check(place_of(n), IF_UP, 0);
    }
}

const struct test guest_tests[] = {
    T(branches_into_the_hole), T(ways_found_elsewhere), T(code_near_the_hole), {0, 0}};
