/*
 * tlb.c - what a translation may outlive and what it must not: INVLPG, CR3, CR4.PGE, large pages,
 * paging-structure caches (SDM vol. 3, 4.10).
 *
 * Only what the manual requires is checked: a stale translation may be used until then, so no test
 * says that it is.
 */
#include "paging.h"

static uint8_t frame[4][4096] __attribute__((aligned(4096)));

static void mark_frames(void)
{
    for (unsigned i = 0; i < 4; i++)
        memset(frame[i], (int)(0x10 + i), 4096);
    /* and some beyond the image: 2-MiB pages A and B */
    for (unsigned i = 0; i < 2; i++) {
        uint8_t *big = (uint8_t *)(FREE_RAM + i * 0x200000);
        big[0] = big[0x1000] = big[0x100000] = big[0x1ff000] = (uint8_t)(0xa0 + i);
    }
}

static uint8_t look(const volatile uint8_t *p)
{
    return *p;
}

TEST(invlpg_and_a_new_frame)
{
    paging_reset();
    mark_frames();
    volatile uint8_t *p = map_page(WINDOW, phys(frame[0]), 1, PG_ALL);
    CHECK_EQ(look(p), 0x10);
    for (unsigned i = 1; i < 4; i++) {
        *entry_of(WINDOW, 1) = phys(frame[i]) | PG_ALL;
        invlpg((void *)(WINDOW + 0xfff)); /* any address in the page */
        CHECK_EQ(look(p), 0x10 + i);
        p[1] = 0x99;
        CHECK_EQ(frame[i][1], 0x99);
        CHECK_EQ(frame[i - 1][1], i == 1 ? 0x10 : 0x99);
        frame[i][1] = 0x99;
    }
}

TEST(invlpg_and_fewer_rights)
{
    paging_reset();
    mark_frames();
    uint8_t *p = map_page(WINDOW, phys(frame[0]), 1, PG_ALL);
    frame[0][0] = 0xc3;
    CHECK_NO_TRAP(try_write(p, 0xc3));
    CHECK_NO_TRAP(try_call(p));
    CHECK_NO_TRAP(try_user(user_read_, p));
    *entry_of(WINDOW, 1) &= ~PG_W;
    invlpg(p);
    CHECK_PF(try_write(p, 1), (word)p, PF_P | PF_W, SYMBOL(write_here));
    *entry_of(WINDOW, 1) |= PG_NX;
    invlpg(p);
    CHECK_PF(try_call(p), (word)p, PF_P | PF_I, (word)p);
    *entry_of(WINDOW, 1) &= ~PG_U;
    invlpg(p);
    CHECK_PF(try_user(user_read_, p), (word)p, PF_P | PF_U, SYMBOL(user_read_here));
    CHECK_NO_TRAP(try_read(p));
    *entry_of(WINDOW, 1) = 0;
    invlpg(p);
    CHECK_PF(try_read(p), (word)p, 0, SYMBOL(read_here));
}

/* What faulted is not remembered: more rights need no flush after the fault (SDM 4.10.4.1, 4.10.4.3). */
TEST(more_rights_need_no_flush_after_a_fault)
{
    paging_reset();
    mark_frames();
    uint8_t *p = (uint8_t *)WINDOW;
    uint64_t *pte = entry_of(WINDOW, 1);
    frame[0][0] = 0xc3;
    CHECK_EQ(try_read(p).vector, VECTOR_PF);
    *pte = phys(frame[0]) | PG_P | PG_NX;
    CHECK_NO_TRAP(try_read(p));
    CHECK_EQ(try_write(p, 0xc3).vector, VECTOR_PF);
    *pte |= PG_W;
    CHECK_NO_TRAP(try_write(p, 0xc3));
    CHECK_EQ(try_call(p).vector, VECTOR_PF);
    *pte &= ~PG_NX;
    CHECK_NO_TRAP(try_call(p));
    CHECK_EQ(try_user(user_write_, p).vector, VECTOR_PF);
    *pte |= PG_U;
    CHECK_NO_TRAP(try_user(user_write_, p));
    /* reserved bits */
    map_page(WINDOW + 0x200000, FREE_RAM | 1 << 13, 2, PG_ALL);
    CHECK_EQ(try_read(p + 0x200000).error, PF_P | PF_RSVD);
    *entry_of(WINDOW + 0x200000, 2) &= ~(1ull << 13);
    CHECK_NO_TRAP(try_read(p + 0x200000));
}

/* A handler that fixes the entry and returns: the instruction is started again and succeeds. */
static volatile unsigned faults;
static bool fix_entry(struct frame *f)
{
    *entry_of(WINDOW, 1) = phys(frame[1]) | PG_ALL;
    faults++;
    return faults < 3;
}

TEST(demand_paging)
{
    paging_reset();
    mark_frames();
    volatile uint32_t *p = (volatile uint32_t *)WINDOW;
    *entry_of(WINDOW, 1) = 0;
    faults = 0;
    trap_handlers[14] = fix_entry;
    struct trap t = CATCH(*p += 1);
    CHECK_NO_TRAP(t);
    CHECK_EQ(faults, 1);
    CHECK_EQ(*(uint32_t *)frame[1], 0x11111112);
    *entry_of(WINDOW, 1) &= ~PG_W;
    invlpg((void *)WINDOW);
    t = CATCH(*p += 1);
    trap_handlers[14] = 0;
    CHECK_NO_TRAP(t);
    CHECK_EQ(faults, 2);
    CHECK_EQ(*(uint32_t *)frame[1], 0x11111113);
}

TEST(cr3_load_flushes)
{
    paging_reset();
    mark_frames();
    volatile uint8_t *p = map_page(WINDOW, phys(frame[0]), 1, PG_ALL);
    CHECK_EQ(look(p), 0x10);
    *entry_of(WINDOW, 1) = phys(frame[1]) | PG_ALL;
    write_cr3(read_cr3());
    CHECK_EQ(look(p), 0x11);
    p[1] = 0x77;
    CHECK_EQ(frame[1][1], 0x77);
    CHECK_EQ(frame[0][1], 0x10);
    *entry_of(WINDOW, 1) = 0;
    write_cr3(read_cr3());
    CHECK_PF(try_write((void *)p, 1), (word)p, PF_W, SYMBOL(write_here));
}

/* Two address spaces, back and forth: each its own translation, also after one of them changed
 * while the other was loaded. */
TEST(two_address_spaces)
{
    static uint64_t other_pml4[512] __attribute__((aligned(4096)));
    static uint64_t other[3][512] __attribute__((aligned(4096)));
    paging_reset();
    mark_frames();
    volatile uint8_t *p = map_page(WINDOW, phys(frame[0]), 1, PG_ALL);
    word cr3 = read_cr3();
    memcpy(other_pml4, boot_pml4, 4096);
    other_pml4[1] = phys(other[0]) | PG_ALL;
    other[0][0] = phys(other[1]) | PG_ALL;
    other[1][0] = phys(other[2]) | PG_ALL;
    other[2][0] = phys(frame[1]) | PG_ALL;
    for (unsigned i = 0; i < 10; i++) {
        CHECK_EQ(look(p), i % 2 ? 0x12 : 0x10);
        write_cr3((word)other_pml4);
        CHECK_EQ(look(p), i % 2 ? 0x13 : 0x11);
        /* change both, from the other one */
        *entry_of(WINDOW, 1) = phys(frame[i % 2 ? 0 : 2]) | PG_ALL;
        other[2][0] = phys(frame[i % 2 ? 1 : 3]) | PG_ALL;
        write_cr3(cr3);
    }
    write_cr3((word)other_pml4);
    CHECK_EQ(look(p), 0x11);
    write_cr3(cr3);
}

/* Global translations may stay over a CR3 load, but not over INVLPG or a change of CR4.PGE. */
TEST(global_pages)
{
    paging_reset();
    mark_frames();
    write_cr4(read_cr4() | CR4_PGE);
    volatile uint8_t *p = map_page(WINDOW, phys(frame[0]), 1, PG_ALL | PG_G);
    CHECK_EQ(look(p), 0x10);
    *entry_of(WINDOW, 1) = phys(frame[1]) | PG_ALL | PG_G;
    write_cr3(read_cr3());
    CHECK(look(p) == 0x10 || look(p) == 0x11);
    invlpg((void *)p);
    CHECK_EQ(look(p), 0x11);
    *entry_of(WINDOW, 1) = phys(frame[2]) | PG_ALL | PG_G;
    write_cr4(read_cr4() & ~CR4_PGE);
    CHECK_EQ(look(p), 0x12);
    *entry_of(WINDOW, 1) = phys(frame[3]) | PG_ALL | PG_G;
    write_cr4(read_cr4() | CR4_PGE);
    CHECK_EQ(look(p), 0x13);
    /* G without CR4.PGE is nothing */
    write_cr4(read_cr4() & ~CR4_PGE);
    CHECK_EQ(look(p), 0x13);
    *entry_of(WINDOW, 1) = phys(frame[0]) | PG_ALL | PG_G;
    write_cr3(read_cr3());
    CHECK_EQ(look(p), 0x10);
    /* a translation made without G is not global, also next to one that is */
    write_cr4(read_cr4() | CR4_PGE);
    map_page(WINDOW, phys(frame[0]), 1, PG_ALL | PG_G);
    map_page(WINDOW + PAGE, phys(frame[0]), 1, PG_ALL);
    CHECK_EQ(look(p) + look(p + PAGE), 0x20);
    *entry_of(WINDOW + PAGE, 1) = phys(frame[1]) | PG_ALL;
    write_cr3(read_cr3());
    CHECK_EQ(look(p + PAGE), 0x11);
    write_cr4(read_cr4() & ~CR4_PGE);
}

/* One INVLPG somewhere in a large page takes all of its translation away. */
TEST(invlpg_inside_a_large_page)
{
    static const uint32_t at[] = {0, 0x1000, 0x100000, 0x1ff000};
    for (unsigned level = 2; level <= (HAS_GBPAGES() ? 3 : 2); level++) {
        paging_reset();
        mark_frames();
        uint64_t base = level == 3 ? FREE_RAM : 0;
        volatile uint8_t *p = map_page(WINDOW, level == 3 ? 0 : FREE_RAM, level, PG_ALL) + base;
        for (unsigned i = 0; i < 4; i++)
            CHECK_EQ(look(p + at[i]), 0xa0);
        if (level == 3) { /* down to one 2-MiB page, of other memory */
            *entry_of(WINDOW, 3) = 0;
            *entry_of(WINDOW + base, 2) = (FREE_RAM + 0x200000) | PG_ALL | PG_PS;
            invlpg((void *)(WINDOW + 0x3ffff000)); /* the far end */
            invlpg((void *)(WINDOW + base));       /* and as software should, the new page */
        } else {
            *entry_of(WINDOW, 2) = (FREE_RAM + 0x200000) | PG_ALL | PG_PS;
            invlpg((void *)(WINDOW + 0x80123));
        }
        for (unsigned i = 0; i < 4; i++)
            CHECK_EQ(look(p + at[i]), 0xa1);
        *entry_of((word)p, 2) &= ~PG_W;
        invlpg((void *)(p + 0x1abcde));
        for (unsigned i = 0; i < 4; i++)
            CHECK_PF(try_write((void *)(p + at[i]), 1), (word)p + at[i], PF_P | PF_W,
                     SYMBOL(write_here));
    }
}

/* A large page split into small ones and joined again. */
TEST(split_and_join)
{
    paging_reset();
    mark_frames();
    volatile uint8_t *p = map_page(WINDOW, FREE_RAM, 2, PG_ALL);
    CHECK_EQ(look(p) + look(p + 0x1000), 0x140);
    *entry_of(WINDOW, 2) = 0;
    uint64_t *table = entry_of(WINDOW, 1);
    for (unsigned i = 0; i < 512; i++)
        table[i] = (FREE_RAM + i * PAGE) | PG_ALL;
    table[1] = phys(frame[2]) | PG_ALL;
    for (unsigned i = 0; i < 512; i++)
        invlpg((void *)(p + i * PAGE));
    CHECK_EQ(look(p), 0xa0);
    CHECK_EQ(look(p + 0x1000), 0x12);
    *entry_of(WINDOW, 2) = (FREE_RAM + 0x200000) | PG_ALL | PG_PS;
    write_cr3(read_cr3());
    CHECK_EQ(look(p), 0xa1);
    CHECK_EQ(look(p + 0x1000), 0xa1);
}

/* Entries above the leaf may be cached, too; INVLPG and CR3 loads drop them. */
TEST(tables_replaced)
{
    static uint64_t table[2][512] __attribute__((aligned(4096)));
    paging_reset();
    mark_frames();
    volatile uint8_t *p = map_page(WINDOW, phys(frame[0]), 1, PG_ALL);
    map_page(WINDOW + PAGE, phys(frame[0]), 1, PG_ALL);
    table[0][0] = table[0][1] = phys(frame[1]) | PG_ALL;
    CHECK_EQ(look(p), 0x10);
    *entry_of(WINDOW, 2) = phys(table[0]) | PG_ALL;
    invlpg((void *)p);
    CHECK_EQ(look(p), 0x11);
    CHECK_EQ(look(p + PAGE), 0x11); /* not translated before, and the PDE cache is gone */
    /* a new page directory */
    table[1][0] = (FREE_RAM + 0x200000) | PG_ALL | PG_PS;
    *entry_of(WINDOW, 3) = phys(table[1]) | PG_ALL;
    write_cr3(read_cr3());
    CHECK_EQ(look(p), 0xa1);
    /* rights in a PDPTE */
    *entry_of(WINDOW, 3) &= ~PG_W;
    invlpg((void *)p);
    CHECK_PF(try_write((void *)p, 1), (word)p, PF_P | PF_W, SYMBOL(write_here));
    *entry_of(WINDOW, 4) &= ~PG_P;
    invlpg((void *)p);
    CHECK_PF(try_read((void *)p), (word)p, 0, SYMBOL(read_here));
}

/* Page tables that map themselves: changes through the window count like any other. */
TEST(recursive_mapping)
{
    paging_reset();
    mark_frames();
    boot_pml4[3] = (word)boot_pml4 | PG_P | PG_W;
    flush_all();
    volatile uint8_t *p = map_page(WINDOW, phys(frame[0]), 1, PG_ALL);
    CHECK_EQ(look(p), 0x10);
    volatile uint64_t *pte =
        (volatile uint64_t *)(3ull << 39 | (WINDOW >> 9 & 0x7ffffffff8)); /* its PTE */
    CHECK_EQ(*pte & ~(PG_A | PG_D), phys(frame[0]) | PG_ALL);
    *pte = phys(frame[1]) | PG_ALL;
    invlpg((void *)p);
    CHECK_EQ(look(p), 0x11);
    CHECK_EQ(*entry_of(WINDOW, 1) & PG_A, PG_A);
    boot_pml4[3] = 0;
    flush_all();
}

/* Rights follow CR0.WP, EFER.NXE and the privilege level at once. */
TEST(mode_bits_need_no_flush)
{
    word cr0 = read_cr0();
    paging_reset();
    mark_frames();
    frame[0][0] = 0xc3;
    uint8_t *p = map_page(WINDOW, phys(frame[0]), 1, PG_P | PG_NX);
    for (unsigned i = 0; i < 3; i++) {
        CHECK_EQ(try_write(p, 0xc3).vector, VECTOR_PF);
        write_cr0(cr0 & ~CR0_WP);
        CHECK_NO_TRAP(try_write(p, 0xc3));
        write_cr0(cr0);
        CHECK_NO_TRAP(try_read(p));
        CHECK_EQ(try_user(user_read_, p).error, PF_P | PF_U);
        CHECK_EQ(try_call(p).error, PF_P | PF_I);
    }
}

TEST(invlpg_itself)
{
    /* not canonical: nothing happens, no fault (SDM vol. 2, INVLPG); unmapped: nothing either */
    struct trap t = CATCH(invlpg((void *)0x8000000000000000); invlpg((void *)0x7f0000000000));
    CHECK_NO_TRAP(t);
}

static word user_invlpg(word p)
{
    asm volatile(LABEL(user_invlpg_here) "invlpg (%0)" ::"r"(p));
    return 0;
}

TEST(invlpg_at_cpl_3)
{
    struct trap t = try_user(user_invlpg, 0);
    CHECK_EQ(t.vector, VECTOR_GP);
    CHECK_EQ(t.error, 0);
    CHECK_EQ(t.rip, SYMBOL(user_invlpg_here));
}

/* More translations than any TLB holds, then all changed. */
TEST(many_pages)
{
    paging_reset();
    volatile uint32_t *ram = (volatile uint32_t *)FREE_RAM;
    for (unsigned i = 0; i < 4096; i++)
        ram[i * 1024] = i;
    for (unsigned i = 0; i < 4096; i++)
        *entry_of(WINDOW + i * PAGE, 1) = (FREE_RAM + i * PAGE) | PG_ALL;
    unsigned wrong = 0;
    for (unsigned round = 0; round < 2; round++)
        for (unsigned i = 0; i < 4096; i++)
            wrong += *(volatile uint32_t *)(WINDOW + i * PAGE) != i;
    for (unsigned i = 0; i < 4096; i++)
        *entry_of(WINDOW + i * PAGE, 1) = (FREE_RAM + (4095 - i) * PAGE) | PG_ALL;
    write_cr3(read_cr3());
    for (unsigned i = 0; i < 4096; i++)
        wrong += *(volatile uint32_t *)(WINDOW + i * PAGE) != 4095 - i;
    CHECK_EQ(wrong, 0);
}

const struct test guest_tests[] = {T(invlpg_and_a_new_frame),
                                   T(invlpg_and_fewer_rights),
                                   T(more_rights_need_no_flush_after_a_fault),
                                   T(demand_paging),
                                   T(cr3_load_flushes),
                                   T(two_address_spaces),
                                   T(global_pages),
                                   T(invlpg_inside_a_large_page),
                                   T(split_and_join),
                                   T(tables_replaced),
                                   T(recursive_mapping),
                                   T(mode_bits_need_no_flush),
                                   T(invlpg_itself),
                                   T(invlpg_at_cpl_3),
                                   T(many_pages),
                                   {0, 0}};
