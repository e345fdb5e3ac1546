/*
 * jit_places.c - one page of code that is entered at each of its offsets, with and without masked
 * exceptions (which make two translations), while its bytes change: what a translator remembers of
 * a page has room for all of that, and finds each by its own offset and mode. And code whose page
 * becomes another one under it, or that kernel and programs share.
 */
#include "pieces.h"

enum { SIZE = 4096, LODSB = 0xac, RET = 0xc3 };
static uint8_t page[2 * SIZE] __attribute__((aligned(4096)));
static uint8_t data[SIZE + 1];
static uint32_t seed;

static unsigned any(unsigned below)
{
    seed = seed * 1103515245u + 12345;
    return (seed >> 8) % below;
}

static void mask_exceptions(bool on)
{
    uint32_t mxcsr = on ? 0x1f80 : 0x1f00;
    asm volatile("ldmxcsr %0" ::"m"(mxcsr));
}

/* How many LODSB are run from there. */
static unsigned run(unsigned off)
{
    uint8_t *from = data;
    asm volatile("call *%1" : "+S"(from) : "r"(page + off) : "rax", "memory", "cc");
    return (unsigned)(from - data);
}

static unsigned expected(unsigned off)
{
    unsigned n = 0;
    while (page[off + n] == LODSB)
        n++;
    return n;
}

/* One byte in `often` is RET, and the last one. */
static void fill(unsigned often)
{
    for (unsigned i = 0; i < SIZE; i++)
        page[i] = any(often) && i != SIZE - 1 ? LODSB : RET;
}

static unsigned wrong_in_all(unsigned step)
{
    unsigned wrong = 0;
    for (unsigned masked = 0; masked < 2; masked++) {
        mask_exceptions(masked);
        for (unsigned i = 0, off = 0; i < SIZE; i++, off = (off + step) % SIZE)
            wrong += run(off) != expected(off);
    }
    mask_exceptions(true);
    return wrong;
}

TEST(every_offset)
{
    vectors_on();
    for (unsigned round = 0; round < 6; round++) {
        fill(3 + round * 2);
        CHECK_EQ(wrong_in_all(round % 2 ? 1 : 1365), 0);
        CHECK_EQ(wrong_in_all(1), 0);
    }
}

/* Some offsets, more of them as time goes by, and a byte that changes after each. */
TEST(more_and_more)
{
    unsigned wrong = 0;
    vectors_on();
    fill(6);
    for (unsigned n = 0; n < 6000; n++) {
        unsigned off = any(1 + n * (SIZE - 1) / 6000), changed = (off + any(8)) % (SIZE - 1);
        mask_exceptions(any(2));
        wrong += run(off) != expected(off);
        page[changed] ^= LODSB ^ RET;
        wrong += run(off) != expected(off);
    }
    mask_exceptions(true);
    CHECK_EQ(wrong, 0);
}

/* Code that gives its own page another frame goes on there, behind INVLPG and behind MOV to CR3. */
TEST(own_page_moves)
{
    static uint8_t frames[2][SIZE] __attribute__((aligned(4096)));
    const struct piece by_invlpg = PIECE("mov [rdi], rsi; invlpg [rdx]; mov eax, 0; ret"),
                       by_cr3 =
                           PIECE("mov [rdi], rsi; mov rcx, cr3; mov cr3, rcx; mov eax, 0; ret");
    for (unsigned n = 0; n < 12; n++) {
        const struct piece *p = n / 2 % 2 ? &by_cr3 : &by_invlpg;
        size_t size = (size_t)(p->end - p->at);
        for (unsigned k = 0; k < 2; k++) {
            memcpy(frames[k] + n * 64, p->at, size);
            frames[k][n * 64 + size - 5] = (uint8_t)(k + 1); /* of the MOV EAX */
        }
        map_page(WINDOW, phys(frames[n % 2]), 1, PG_ALL);
        uint64_t to = phys(frames[!(n % 2)]) | PG_ALL;
        for (unsigned times = 0; times < 3; times++) {
            uint32_t got;
            map_page(WINDOW, phys(frames[n % 2]), 1, PG_ALL);
            asm volatile("call *%4"
                         : "=a"(got)
                         : "D"(entry_of(WINDOW, 1)), "S"(to), "d"(WINDOW), "r"(WINDOW + n * 64)
                         : "rcx", "memory");
            CHECK_EQ(got, 2 - n % 2);
        }
    }
}

/* One piece of code for the kernel, which may read what it reads, and for its programs, which may
 * not. */
TEST(by_turns)
{
    map_page(WINDOW, phys(data), 1, PG_P | PG_W);
    pieces_begin();
    word p = pieces_here();
    put(PIECE("mov rax, 0x8000000000; mov al, [rax]; ret"));
    for (unsigned i = 0; i < 12; i++) {
        if (i % 3 != 1) /* the kernel first: what is made for it must not serve others */
            CHECK_NO_TRAP(try_call((void *)p));
        CHECK_PF(try_user(user_call_, (void *)p), WINDOW, 5, p + 10); /* present, user */
    }
}

const struct test guest_tests[] = {
    T(every_offset), T(more_and_more), T(own_page_moves), T(by_turns), {0, 0}};
