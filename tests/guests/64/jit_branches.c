/*
 * jit_branches.c - indirect calls, jumps and returns to addresses that a table of targets may hold
 * in the same places, next to each other, or no longer: each goes where it says.
 */
#include "pieces.h"

enum { PAGES = 6, APART = 0x10000 };
static uint8_t pages[2][PAGES][4096] __attribute__((aligned(4096)));

/* At the beginning of page `n` of either set, and at the bytes behind it: MOV EAX, set:n; RET. */
static void set_up(void)
{
    for (unsigned set = 0; set < 2; set++)
        for (unsigned n = 0; n < PAGES; n++) {
            const uint8_t code[] = {0x90, 0x90, 0x90, 0xb8, (uint8_t)n, (uint8_t)set, 0, 0, 0xc3};
            memcpy(pages[set][n], code, sizeof code);
        }
}

static void show(unsigned set, unsigned n)
{
    map_page(WINDOW + n * APART, (word)pages[set][n], 1, PG_P | PG_W);
    invlpg((void *)(WINDOW + n * APART));
}

/* By CALL, by PUSH and RET, by JMP. */
static __attribute__((noinline)) unsigned go_to(word target, unsigned way)
{
    unsigned got;
    if (way == 0)
        asm volatile("call *%1" : "=a"(got) : "r"(target) : "memory", "cc");
    else if (way == 1)
        asm volatile("lea 1f(%%rip), %%rcx; push %%rcx; push %1; ret; 1:"
                     : "=a"(got)
                     : "r"(target)
                     : "rcx", "memory", "cc");
    else
        asm volatile("lea 1f(%%rip), %%rcx; push %%rcx; jmp *%1; 1:"
                     : "=a"(got)
                     : "r"(target)
                     : "rcx", "memory", "cc");
    return got;
}

static unsigned seed = 1;
static unsigned any(unsigned n)
{
    seed = seed * 1664525 + 1013904223;
    return (seed >> 16) % n;
}

/* Two, three and more targets in turn and at random; the mapping changes now and then. */
TEST(targets_that_collide)
{
    unsigned shown[PAGES] = {0}, bad = 0;
    set_up();
    for (unsigned n = 0; n < PAGES; n++)
        show(0, n);
    for (unsigned many = 2; many <= PAGES; many++)
        for (unsigned i = 0; i < 3000 && !bad; i++) {
            unsigned n = i & 512 ? any(many) : i % many, off = i & 1024 ? any(4) : 0;
            if (any(200) == 0) {
                shown[n] ^= 1;
                show(shown[n], n);
            }
            unsigned got = go_to(WINDOW + n * APART + off, any(3));
            if (got != (shown[n] << 8 | n)) {
                print("  %u of %u at %u: %x\n", n, many, off, got);
                bad++;
            }
        }
    CHECK_EQ(bad, 0);
    paging_reset();
}

const struct test guest_tests[] = {T(targets_that_collide), {0, 0}};
