/*
 * paging.c - 32-bit paging: pages of 4 KiB and 4 MiB, PSE-36, rights, accessed and dirty bits,
 * global pages (SDM vol. 3, 4.3, 4.6-4.10).
 */
#include "legacy.h"

enum {
    SMALL = 0x40000000, /* the window of 4-KiB pages */
    LARGE = 0x50000000, /* one 4-MiB page */
    RAM = 0x1000000,    /* free, 4 MiB twice */
    RAM2 = 0x1400000,
};

static uint32_t directory[1024] __attribute__((aligned(4096)));
static uint32_t table[1024] __attribute__((aligned(4096)));
static uint32_t table2[1024] __attribute__((aligned(4096)));

#define PTE  table[0]
#define PDE4 directory[LARGE >> 22] /* of the 4-MiB page */
#define PDE  directory[SMALL >> 22]

static void paging_on(void)
{
    write_cr0(read_cr0() & ~(CR0_PG | CR0_WP));
    for (unsigned i = 0; i < 1024; i++)
        directory[i] = i << 22 | E_ALL | E_PS;
    memset(table, 0, sizeof table);
    PDE = (word)table | E_ALL;
    PTE = RAM | E_ALL;
    PDE4 = RAM | E_ALL | E_PS;
    *(uint8_t *)RAM = 0xc3; /* RET */
    write_cr4((read_cr4() | CR4_PSE) & ~(word)(CR4_PAE | CR4_PGE | CR4_SMEP));
    write_cr3((word)directory);
    write_cr0(read_cr0() | CR0_PG | CR0_WP);
}
static void set(uint32_t *entry, uint32_t value)
{
    *entry = value;
    write_cr3((word)directory);
}

/* ---- Translation ----------------------------------------------------------------------------- */

TEST(sizes_and_offsets)
{
    paging_on();
    table[5] = (RAM + 0x7000) | E_ALL;
    for (unsigned i = 0; i < 4096; i += 4)
        *(volatile uint32_t *)(RAM + 0x7000 + i) = i * 3;
    bool ok = true;
    for (unsigned i = 0; i < 4096; i += 4)
        ok = ok && *(volatile uint32_t *)(SMALL + 0x5000 + i) == i * 3;
    CHECK(ok);
    for (unsigned at = 0; at < 0x400000; at += 0x1234) {
        *(volatile uint8_t *)(RAM + at) = (uint8_t)(at >> 3);
        ok = ok && *(volatile uint8_t *)(LARGE + at) == (uint8_t)(at >> 3);
    }
    CHECK(ok);
}

/* Without CR4.PSE bit 7 is ignored, and the entry names a table. */
TEST(ps_without_pse)
{
    paging_on();
    /* The code itself must do without: the first 4 MiB by a table. */
    for (unsigned i = 0; i < 1024; i++)
        table2[i] = i << 12 | E_ALL;
    directory[0] = (word)table2 | E_ALL;
    table[3] = RAM2 | E_ALL;
    PDE4 = (word)table | E_ALL | E_PS;
    directory[RAM >> 22] = (word)table | E_ALL;
    write_cr3((word)directory);
    word cr4 = read_cr4();
    write_cr4(cr4 & ~(word)CR4_PSE);
    *(volatile uint8_t *)(LARGE + 0x3000) = 0x77;
    write_cr4(cr4);
    write_cr0(read_cr0() & ~CR0_PG);
    CHECK_EQ(*(volatile uint8_t *)RAM2, 0x77);
}

/* ---- Rights ---------------------------------------------------------------------------------- */

TEST(not_present)
{
    paging_on();
    set(&PTE, RAM | 6);
    CHECK_PF(try_read(SMALL + 9), SMALL + 9, 0, SYMBOL(read_here));
    CHECK_PF(try_write(SMALL + 9), SMALL + 9, PF_W, SYMBOL(write_here));
    CHECK_PF(try_user(user_write_, SMALL), SMALL, PF_W | PF_U, SYMBOL(user_write_here));
    CHECK_PF(try_call(SMALL), SMALL, 0, SMALL); /* fetches are not told apart without NX or SMEP */
    set(&PTE, RAM | E_ALL);
    set(&PDE, (word)table | 6);
    CHECK_PF(try_read(SMALL + 9), SMALL + 9, 0, SYMBOL(read_here));
    set(&PDE4, RAM | 6 | E_PS);
    CHECK_PF(try_read(LARGE + 0x3fffff), LARGE + 0x3fffff, 0, SYMBOL(read_here));
}

/* User and write are the AND of both levels; WP holds the supervisor to the latter. */
TEST(rights_of_both_levels)
{
    for (volatile unsigned i = 0; i < 16; i++) {
        for (volatile unsigned wp = 0; wp < 2; wp++) {
            unsigned pte = (i & 3) << 1, pde = (i >> 2) << 1, both = pte & pde;
            paging_on();
            set(&PTE, RAM | E_P | pte);
            set(&PDE, (word)table | E_P | pde);
            set(&PDE4, RAM | E_P | E_PS | pte);
            write_cr0(wp ? read_cr0() | CR0_WP : read_cr0() & ~(word)CR0_WP);
            CHECK_NO_TRAP(try_read(SMALL));
            struct trap t = try_write(SMALL);
            if (wp && !(both & E_W))
                CHECK_PF(t, SMALL, PF_P | PF_W, SYMBOL(write_here));
            else
                CHECK_NO_TRAP(t);
            t = try_user(user_read_, SMALL);
            if (both & E_U)
                CHECK_NO_TRAP(t);
            else
                CHECK_PF(t, SMALL, PF_P | PF_U, SYMBOL(user_read_here));
            t = try_user(user_write_, SMALL);
            if ((both & (E_U | E_W)) == (E_U | E_W))
                CHECK_NO_TRAP(t);
            else
                CHECK_PF(t, SMALL, PF_P | PF_U | PF_W, SYMBOL(user_write_here));
            t = try_user(user_write_, LARGE);
            if ((pte & (E_U | E_W)) == (E_U | E_W))
                CHECK_NO_TRAP(t);
            else
                CHECK_PF(t, LARGE, PF_P | PF_U | PF_W, SYMBOL(user_write_here));
        }
    }
}

TEST(smep)
{
    REQUIRE(cpu_has(7, REG_EBX, 7));
    paging_on();
    /* The guest's own pages must be the supervisor's. */
    for (unsigned i = 0; i < 1024; i++)
        if (i != SMALL >> 22 && i != LARGE >> 22)
            directory[i] &= ~(uint32_t)E_U;
    write_cr3((word)directory);
    *(uint8_t *)RAM = 0xc3;
    write_cr4(read_cr4() | CR4_SMEP);
    struct trap t = try_call(SMALL);
    CHECK_PF(t, SMALL, PF_P | PF_I, SMALL);
    CHECK_NO_TRAP(try_read(SMALL));
    set(&PTE, RAM | E_P | E_W);
    CHECK_NO_TRAP(try_call(SMALL));
    set(&PTE, 0);
    CHECK_PF(try_call(SMALL), SMALL, PF_I, SMALL); /* SMEP alone shows fetches */
    write_cr4(read_cr4() & ~(word)CR4_SMEP);
    set(&PTE, RAM | E_ALL);
    CHECK_NO_TRAP(try_call(SMALL));
}

/* ---- Reserved bits --------------------------------------------------------------------------- */

/* Of a 4-MiB page bits 20:13 are physical address bits 39:32 (PSE-36), as far as there are such;
 * bit 21 and the rest are reserved. Nothing is reserved elsewhere (4.3, table 4-4 ff.). */
TEST(reserved_bits_of_4_mib_pages)
{
    unsigned bits = physical_bits() > 40 ? 40 : physical_bits();
    paging_on();
    for (volatile unsigned bit = 13; bit <= 21; bit++) {
        set(&PDE4, RAM | E_ALL | E_PS | 1u << bit);
        struct trap t = try_read(LARGE);
        if (bit - 13 + 32 >= bits || bit == 21)
            CHECK_PF(t, LARGE, PF_P | PF_RSVD, SYMBOL(read_here));
        else
            CHECK_NO_TRAP(t);
    }
    set(&PDE4, RAM | E_ALL | E_PS | 1u << 21);
    CHECK_PF(try_user(user_write_, LARGE), LARGE, PF_P | PF_RSVD | PF_W | PF_U,
             SYMBOL(user_write_here));
    set(&PDE4, RAM | E_PS | 1u << 21 | 6); /* of an entry that is not present nothing is */
    CHECK_PF(try_read(LARGE), LARGE, 0, SYMBOL(read_here));
    set(&PTE, RAM | 0xfff); /* PAT, G, the ignored bits */
    CHECK_NO_TRAP(try_read(SMALL));
    set(&PDE, (word)table | 0xf7f);
    CHECK_NO_TRAP(try_read(SMALL));
}

/* Bit 12 of a 4-MiB page is PAT, not an address bit. */
TEST(pat_bit_of_4_mib_pages)
{
    paging_on();
    *(volatile uint8_t *)RAM = 0x31;
    set(&PDE4, RAM | E_ALL | E_PS | 1u << 12);
    CHECK_EQ(*(volatile uint8_t *)LARGE, 0x31);
}

/* ---- Accessed, dirty ------------------------------------------------------------------------- */

TEST(accessed_and_dirty)
{
    paging_on();
    set(&PTE, RAM | E_ALL);
    set(&PDE, (word)table | E_ALL);
    set(&PDE4, RAM | E_ALL | E_PS);
    CHECK_NO_TRAP(try_read(SMALL));
    CHECK_EQ(PTE & (E_A | E_D), E_A);
    CHECK_EQ(PDE & (E_A | E_D), E_A);
    CHECK_NO_TRAP(try_write(SMALL));
    CHECK_EQ(PTE & (E_A | E_D), E_A | E_D);
    CHECK_EQ(PDE & (E_A | E_D), E_A); /* a directory entry for a table has no D */
    CHECK_NO_TRAP(try_read(LARGE));
    CHECK_EQ(PDE4 & (E_A | E_D), E_A);
    CHECK_NO_TRAP(try_write(LARGE + 0x3ff000));
    CHECK_EQ(PDE4 & (E_A | E_D), E_A | E_D);
    /* A refused write dirties nothing. */
    set(&PTE, RAM | E_P | E_U);
    CHECK_EQ(try_write(SMALL).vector, V_PF);
    CHECK_EQ(PTE & E_D, 0);
}

/* ---- The TLB --------------------------------------------------------------------------------- */

static uint8_t at(uint32_t address)
{
    return *(volatile uint8_t *)address;
}

TEST(invlpg_drops_a_4_mib_page)
{
    paging_on();
    *(volatile uint8_t *)RAM = 1;
    *(volatile uint8_t *)RAM2 = 2;
    *(volatile uint8_t *)(RAM + 0x200000) = 3;
    *(volatile uint8_t *)(RAM2 + 0x200000) = 4;
    CHECK_EQ(at(LARGE), 1);
    CHECK_EQ(at(LARGE + 0x200000), 3);
    PDE4 = RAM2 | E_ALL | E_PS;
    invlpg((void *)(LARGE + 0x3ff000)); /* any address in it */
    CHECK_EQ(at(LARGE), 2);
    CHECK_EQ(at(LARGE + 0x200000), 4);
}

/* A global page survives MOV CR3, and not a change of CR4.PGE (4.10.2.4, 4.10.4.1). */
TEST(global_pages)
{
    REQUIRE(cpu_has(1, REG_EDX, 13));
    paging_on();
    *(volatile uint8_t *)RAM = 1;
    *(volatile uint8_t *)RAM2 = 2;
    write_cr4(read_cr4() | CR4_PGE);
    set(&PTE, RAM | E_ALL | E_G);
    set(&PDE4, RAM | E_ALL | E_PS | E_G);
    CHECK_EQ(at(SMALL) + at(LARGE), 2);
    PTE = RAM2 | E_ALL | E_G;
    PDE4 = RAM2 | E_ALL | E_PS | E_G;
    write_cr4(read_cr4() & ~(word)CR4_PGE);
    CHECK_EQ(at(SMALL) + at(LARGE), 4);
    PTE = RAM | E_ALL | E_G; /* without PGE G means nothing */
    write_cr3((word)directory);
    CHECK_EQ(at(SMALL), 1);
    /* INVLPG drops global ones. */
    write_cr4(read_cr4() | CR4_PGE);
    CHECK_EQ(at(SMALL), 1);
    PTE = RAM2 | E_ALL | E_G;
    invlpg((void *)SMALL);
    CHECK_EQ(at(SMALL), 2);
    write_cr4(read_cr4() & ~(word)CR4_PGE);
}

TEST(paging_off_and_on)
{
    paging_on();
    *(volatile uint8_t *)RAM = 1;
    *(volatile uint8_t *)RAM2 = 2;
    CHECK_EQ(at(SMALL), 1);
    PTE = RAM2 | E_ALL;
    word cr0 = read_cr0();
    write_cr0(cr0 & ~CR0_PG); /* drops everything (4.10.4.1) */
    write_cr0(cr0);
    CHECK_EQ(at(SMALL), 2);
}

/* CR3 in this mode: nothing is reserved, PWT and PCD read back. */
TEST(cr3_bits)
{
    paging_on();
    write_cr3((word)directory | E_PWT | E_PCD);
    CHECK_EQ(read_cr3(), (word)directory | E_PWT | E_PCD);
    CHECK_NO_TRAP(try_read(SMALL));
    write_cr3((word)directory);
}

const struct test guest_tests[] = {T(sizes_and_offsets),
                                   T(ps_without_pse),
                                   T(not_present),
                                   T(rights_of_both_levels),
                                   T(smep),
                                   T(reserved_bits_of_4_mib_pages),
                                   T(pat_bit_of_4_mib_pages),
                                   T(accessed_and_dirty),
                                   T(invlpg_drops_a_4_mib_page),
                                   T(global_pages),
                                   T(paging_off_and_on),
                                   T(cr3_bits),
                                   {0, 0}};
