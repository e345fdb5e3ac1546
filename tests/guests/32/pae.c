/*
 * pae.c - PAE paging: the four registers that MOV CR3 loads, pages of 4 KiB and 2 MiB above 4 GiB,
 * NX, reserved bits (SDM vol. 3, 4.4).
 *
 * guest options: -m 5G
 */
#include "legacy.h"

enum {
    SMALL = 0x40000000, /* the window of 4-KiB pages: PDPTE 1 */
    LARGE = 0x80000000, /* one 2-MiB page: PDPTE 2 */
    RAM = 0x1000000,
    RAM2 = 0x1200000,
};
#define ABOVE 0x100000000ull /* RAM above 4 GiB */

static uint64_t pdpt[4] __attribute__((aligned(32)));
static uint64_t pdpt2[4] __attribute__((aligned(32)));
static uint64_t pd[4][512] __attribute__((aligned(4096)));
static uint64_t table[512] __attribute__((aligned(4096)));
#define PTE       table[0]
#define PDE       pd[1][0]
#define LARGE_PDE pd[2][0]

static void reload(void)
{
    write_cr3((word)pdpt);
}
static void set(uint64_t *entry, uint64_t value)
{
    *entry = value;
    reload();
}
ALONE struct trap try_cr3(const void *to)
{
    return CATCH(asm volatile(LABEL(load_cr3) "mov %0, %%cr3" ::"r"(to)));
}
ALONE struct trap try_cr0(word value)
{
    return CATCH(asm volatile(LABEL(set_pg) "mov %0, %%cr0" ::"r"(value)));
}
static void set_efer(uint64_t on, uint64_t off)
{
    wrmsr(MSR_EFER, (rdmsr(MSR_EFER) | on) & ~off);
}

static void paging_on(void)
{
    write_cr0(read_cr0() & ~(CR0_PG | CR0_WP));
    set_efer(EFER_NXE, EFER_LME);
    for (unsigned i = 0; i < 4; i++) {
        pdpt[i] = pdpt2[i] = (word)pd[i] | E_P;
        for (unsigned j = 0; j < 512; j++)
            pd[i][j] = ((uint64_t)i << 30 | j << 21) | E_ALL | E_PS;
    }
    memset(table, 0, sizeof table);
    PDE = (word)table | E_ALL;
    PTE = RAM | E_ALL;
    LARGE_PDE = RAM | E_ALL | E_PS;
    *(uint8_t *)RAM = 0xc3;
    write_cr4((read_cr4() | CR4_PAE) & ~(word)(CR4_PGE | CR4_SMEP));
    reload();
    write_cr0(read_cr0() | CR0_PG | CR0_WP);
}
static uint8_t at(uint32_t address)
{
    return *(volatile uint8_t *)address;
}

/* ---- The page-directory-pointer registers ---------------------------------------------------- */

/* They are loaded by MOV CR3 and by nothing in between: a change in memory waits (4.4.1). */
TEST(pdptes_are_loaded_by_mov_cr3)
{
    paging_on();
    CHECK_EQ(at(LARGE), 0xc3);
    pdpt[2] = 0;
    invlpg((void *)LARGE);
    CHECK_NO_TRAP(try_read(LARGE));
    reload();
    CHECK_PF(try_read(LARGE), LARGE, 0, SYMBOL(read_here));
    pdpt[2] = (word)pd[2] | E_P;
    invlpg((void *)LARGE);
    CHECK_PF(try_read(LARGE), LARGE, 0, SYMBOL(read_here));
    reload();
    CHECK_NO_TRAP(try_read(LARGE));
}

/* ... and by changes of CR0.CD and NW, CR4.PGE and the like (4.4.1). */
TEST(pdptes_are_loaded_by_changes_of_cr0_and_cr4)
{
    REQUIRE(cpu_has(1, REG_EDX, 13));
    word cr0, cr4;
    paging_on();
    cr0 = read_cr0(), cr4 = read_cr4();
    pdpt[2] = 0;
    write_cr0(cr0 | CR0_CD);
    CHECK_PF(try_read(LARGE), LARGE, 0, SYMBOL(read_here));
    pdpt[2] = (word)pd[2] | E_P;
    write_cr0(cr0 | CR0_CD | CR0_NW);
    CHECK_NO_TRAP(try_read(LARGE));
    write_cr0(cr0);
    pdpt[2] = 0;
    write_cr4(cr4 | CR4_PGE);
    CHECK_PF(try_read(LARGE), LARGE, 0, SYMBOL(read_here));
    pdpt[2] = (word)pd[2] | E_P;
    write_cr4(cr4);
    CHECK_NO_TRAP(try_read(LARGE));
}

/* A present one with a reserved bit is #GP, and CR3 and the registers are as before. */
TEST(reserved_bits_of_pdptes)
{
    for (volatile unsigned bit = 1; bit < 64; bit++) {
        bool reserved = bit <= 2 || (bit >= 5 && bit <= 8) || bit >= physical_bits();
        if (!reserved)
            continue;
        paging_on();
        pdpt2[3] = (word)pd[3] | E_P | 1ull << bit;
        struct trap t = try_cr3(pdpt2);
        if (t.vector != V_GP)
            print("  bit %u:\n", bit);
        CHECK_TRAP(t, V_GP, 0, SYMBOL(load_cr3));
        CHECK_EQ(read_cr3(), (word)pdpt);
        CHECK_NO_TRAP(try_read(0xc0000000));
        pdpt2[3] &= ~1ull; /* not present: nothing is reserved */
        CHECK_NO_TRAP(try_cr3(pdpt2));
        CHECK_EQ(read_cr3(), (word)pdpt2);
        CHECK_EQ(try_read(0xc0000000).vector, V_PF);
    }
    /* The same when paging is turned on, or PAE. */
    paging_on();
    word cr0 = read_cr0();
    write_cr0(cr0 & ~CR0_PG);
    pdpt[3] |= 2;
    struct trap t = try_cr0(cr0);
    CHECK_TRAP(t, V_GP, 0, SYMBOL(set_pg));
    CHECK_EQ(read_cr0(), cr0 & ~CR0_PG);
    pdpt[3] &= ~2ull;
    CHECK_NO_TRAP(try_cr0(cr0));
}

/* CR3 names them to 32 bytes; PWT and PCD are no address. */
TEST(cr3_to_32_bytes)
{
    paging_on();
    CHECK((word)pdpt2 % 32 == 0);
    pdpt2[2] = 0;
    write_cr3((word)pdpt2 | E_PWT | E_PCD);
    CHECK_EQ(read_cr3(), (word)pdpt2 | E_PWT | E_PCD);
    CHECK_PF(try_read(LARGE), LARGE, 0, SYMBOL(read_here));
    write_cr3((word)pdpt);
    CHECK_NO_TRAP(try_read(LARGE));
}

/* ---- Translation ----------------------------------------------------------------------------- */

/* Frames above 4 GiB, by pages of both sizes, and by the tables themselves. */
TEST(above_4_gib)
{
    paging_on();
    set(&PTE, (ABOVE + 0x5000) | E_ALL);
    set(&LARGE_PDE, ABOVE | E_ALL | E_PS);
    *(volatile uint32_t *)(SMALL + 0x123 * 4) = 0x600df00d;
    CHECK_EQ(*(volatile uint32_t *)(LARGE + 0x5000 + 0x123 * 4), 0x600df00d);
    *(volatile uint32_t *)(LARGE + 0x1ffffc) = 0xcafe;
    set(&PTE, (ABOVE + 0x1ff000) | E_ALL);
    CHECK_EQ(*(volatile uint32_t *)(SMALL + 0xffc), 0xcafe);
    /* A page table up there. */
    volatile uint64_t *high_table = (volatile uint64_t *)(LARGE + 0x10000);
    for (unsigned i = 0; i < 512; i++)
        high_table[i] = RAM2 | E_ALL;
    *(volatile uint32_t *)RAM2 = 0x1234;
    set(&PDE, (ABOVE + 0x10000) | E_ALL);
    CHECK_EQ(*(volatile uint32_t *)(SMALL + 0x7000), 0x1234);
    CHECK_EQ(high_table[7] & (E_A | E_D), E_A);
}

/* ---- Rights, NX ------------------------------------------------------------------------------ */

TEST(rights)
{
    paging_on();
    set(&PTE, RAM | E_P | E_U);
    CHECK_PF(try_write(SMALL), SMALL, PF_P | PF_W, SYMBOL(write_here));
    write_cr0(read_cr0() & ~(word)CR0_WP);
    CHECK_NO_TRAP(try_write(SMALL));
    CHECK_PF(try_user(user_write_, SMALL), SMALL, PF_P | PF_W | PF_U, SYMBOL(user_write_here));
    paging_on();
    set(&PDE, (word)table | E_P | E_W);
    CHECK_PF(try_user(user_read_, SMALL), SMALL, PF_P | PF_U, SYMBOL(user_read_here));
    set(&LARGE_PDE, RAM | E_P | E_PS | E_U);
    CHECK_PF(try_write(LARGE + 0x1fffff), LARGE + 0x1fffff, PF_P | PF_W, SYMBOL(write_here));
}

TEST(nx)
{
    REQUIRE(cpu_has(0x80000001, REG_EDX, 20));
    paging_on();
    set(&PTE, RAM | E_ALL | E_NX);
    CHECK_NO_TRAP(try_read(SMALL));
    CHECK_PF(try_call(SMALL), SMALL, PF_P | PF_I, SMALL);
    CHECK_PF(try_user(user_call_, SMALL), SMALL, PF_P | PF_I | PF_U, SMALL);
    set(&PTE, RAM | E_ALL);
    CHECK_NO_TRAP(try_call(SMALL));
    set(&PDE, (word)table | E_ALL | E_NX);
    CHECK_PF(try_call(SMALL), SMALL, PF_P | PF_I, SMALL);
    set(&LARGE_PDE, RAM | E_ALL | E_PS | E_NX);
    CHECK_PF(try_call(LARGE), LARGE, PF_P | PF_I, LARGE);
    set(&PTE, 0);
    CHECK_PF(try_call(SMALL), SMALL, PF_I, SMALL);
}

/* Without EFER.NXE bit 63 is reserved, and fetches are not told apart. */
TEST(nx_without_nxe)
{
    paging_on();
    set_efer(0, EFER_NXE);
    set(&PTE, RAM | E_ALL | E_NX);
    CHECK_PF(try_read(SMALL), SMALL, PF_P | PF_RSVD, SYMBOL(read_here));
    CHECK_PF(try_call(SMALL), SMALL, PF_P | PF_RSVD, SMALL);
    set(&PTE, 0);
    CHECK_PF(try_call(SMALL), SMALL, 0, SMALL);
    set(&LARGE_PDE, RAM | E_ALL | E_PS | E_NX);
    CHECK_PF(try_read(LARGE), LARGE, PF_P | PF_RSVD, SYMBOL(read_here));
}

/* ---- Reserved bits --------------------------------------------------------------------------- */

TEST(reserved_bits)
{
    unsigned maxphyaddr = physical_bits();
    for (volatile unsigned bit = 12; bit < 63; bit++) {
        bool high = bit >= maxphyaddr;
        paging_on();
        if (high) {
            set(&PTE, RAM | E_ALL | 1ull << bit);
            CHECK_PF(try_read(SMALL), SMALL, PF_P | PF_RSVD, SYMBOL(read_here));
            set(&PTE, RAM | E_ALL);
            set(&PDE, (word)table | E_ALL | 1ull << bit);
            CHECK_PF(try_write(SMALL), SMALL, PF_P | PF_RSVD | PF_W, SYMBOL(write_here));
        }
        if (high || (bit >= 13 && bit < 21)) {
            set(&LARGE_PDE, RAM2 | E_ALL | E_PS | 1ull << bit);
            CHECK_PF(try_read(LARGE), LARGE, PF_P | PF_RSVD, SYMBOL(read_here));
        }
    }
    paging_on(); /* bit 12 is PAT */
    set(&LARGE_PDE, RAM | E_ALL | E_PS | 1 << 12);
    CHECK_EQ(at(LARGE), 0xc3);
}

/* ---- Accessed, dirty, global ----------------------------------------------------------------- */

TEST(accessed_and_dirty)
{
    paging_on();
    set(&PTE, RAM | E_ALL);
    set(&LARGE_PDE, RAM | E_ALL | E_PS);
    CHECK_NO_TRAP(try_read(SMALL));
    CHECK_EQ(PTE & (E_A | E_D), E_A);
    CHECK_EQ(PDE & (E_A | E_D), E_A);
    CHECK_EQ(pdpt[1], (word)pd[1] | E_P); /* PDPTEs have neither */
    CHECK_NO_TRAP(try_write(SMALL));
    CHECK_EQ(PTE & (E_A | E_D), E_A | E_D);
    CHECK_NO_TRAP(try_read(LARGE));
    CHECK_EQ(LARGE_PDE & (E_A | E_D), E_A);
    CHECK_NO_TRAP(try_write(LARGE));
    CHECK_EQ(LARGE_PDE & (E_A | E_D), E_A | E_D);
}

TEST(global_pages)
{
    REQUIRE(cpu_has(1, REG_EDX, 13));
    paging_on();
    *(volatile uint8_t *)RAM = 1;
    *(volatile uint8_t *)RAM2 = 2;
    write_cr4(read_cr4() | CR4_PGE);
    set(&LARGE_PDE, RAM | E_ALL | E_PS | E_G);
    CHECK_EQ(at(LARGE), 1);
    LARGE_PDE = RAM2 | E_ALL | E_PS | E_G;
    write_cr4(read_cr4() & ~(word)CR4_PGE);
    CHECK_EQ(at(LARGE), 2);
    LARGE_PDE = RAM | E_ALL | E_PS;
    invlpg((void *)(LARGE + 0x100000));
    CHECK_EQ(at(LARGE), 1);
    CHECK_EQ(at(LARGE + 0x1000), *(volatile uint8_t *)(RAM + 0x1000));
}

const struct test guest_tests[] = {T(pdptes_are_loaded_by_mov_cr3),
                                   T(pdptes_are_loaded_by_changes_of_cr0_and_cr4),
                                   T(reserved_bits_of_pdptes),
                                   T(cr3_to_32_bytes),
                                   T(above_4_gib),
                                   T(rights),
                                   T(nx),
                                   T(nx_without_nxe),
                                   T(reserved_bits),
                                   T(accessed_and_dirty),
                                   T(global_pages),
                                   {0, 0}};
