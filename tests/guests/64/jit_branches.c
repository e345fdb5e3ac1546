/*
 * jit_branches.c - indirect calls, jumps and returns to addresses that a table of targets may hold
 * in the same places, next to each other, or no longer: each goes where it says.
 */
#include "any.h"
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

/* Page `n` of a set in a space of its own, by its last table. */
static void show_in(uint64_t *table, unsigned set, unsigned n)
{
    table[n * APART / PAGE] = (word)pages[set][n] | PG_P | PG_W;
}

/* Processes of one program: two address spaces, kept apart by PCIDs and entered without a flush,
 * have other code at the same addresses; which one, changes while the other space is current. */
TEST(two_address_spaces)
{
    enum { PCID_KEEP = 63 };
    static uint64_t tables[2][4][512] __attribute__((aligned(4096)));
    unsigned shown[2][PAGES] = {{0}, {1, 1, 1, 1, 1, 1}}, bad = 0;
    word mine = read_cr3(), root[2];
    set_up();
    for (unsigned space = 0; space < 2; space++) {
        uint64_t(*t)[512] = tables[space];
        memcpy(t[0], boot_pml4, sizeof t[0]);
        t[0][1] = (word)t[1] | PG_ALL, t[1][0] = (word)t[2] | PG_ALL, t[2][0] = (word)t[3] | PG_ALL;
        for (unsigned n = 0; n < PAGES; n++)
            show_in(t[3], space, n);
        root[space] = (word)t[0] | (space + 1) | 1ull << PCID_KEEP;
    }
    write_cr4(read_cr4() | CR4_PCIDE);
    for (unsigned i = 0; i < 6000 && !bad; i++) {
        unsigned space = i & 1024 ? any(2) : i & 1, n = any(i & 2048 ? PAGES : 2);
        write_cr3(root[space]);
        if (any(100) == 0) {
            shown[space][n] ^= 1;
            show_in(tables[space][3], shown[space][n], n);
            invlpg((void *)(WINDOW + n * APART));
        } else if (any(100) == 0) { /* the other one's: a flush when that is entered */
            unsigned other = space ^ 1;
            shown[other][n] ^= 1;
            show_in(tables[other][3], shown[other][n], n);
            write_cr3(root[other] & ~(1ull << PCID_KEEP));
            write_cr3(root[space]);
        }
        unsigned got = go_to(WINDOW + n * APART, any(3));
        if (got != (shown[space][n] << 8 | n)) {
            print("  page %u in space %u at %u: %x\n", n, space, i, got);
            bad++;
        }
    }
    write_cr3(mine);
    write_cr4(read_cr4() & ~CR4_PCIDE);
    CHECK_EQ(bad, 0);
}

const struct test guest_tests[] = {T(targets_that_collide), T(two_address_spaces), {0, 0}};
