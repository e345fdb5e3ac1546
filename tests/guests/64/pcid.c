/*
 * pcid.c - process-context identifiers: CR4.PCIDE, bit 63 of MOV CR3, the four types of INVPCID
 * (SDM vol. 3, 4.10.1, 4.10.4.1; vol. 2, INVPCID).
 *
 * That a translation is still used is never required, so only what must be gone is checked, and
 * that PCIDs are kept apart.
 */
#include "paging.h"

static uint8_t frame[4][4096] __attribute__((aligned(4096)));
static uint64_t other_pml4[512] __attribute__((aligned(4096)));
static uint64_t other[3][512] __attribute__((aligned(4096)));

#define NO_FLUSH (1ull << 63)
#define SPACE_A  ((word)boot_pml4 | 1)
#define SPACE_B  ((word)other_pml4 | 2)

static uint8_t look(word a)
{
    return *(volatile uint8_t *)a;
}

static void invpcid(word type, uint64_t pcid, uint64_t address)
{
    struct {
        uint64_t pcid, address;
    } d = {pcid, address};
    asm volatile("invpcid %1, %0" ::"r"(type), "m"(d) : "memory");
}

/* Space A (PCID 1) maps WINDOW to frame 0 and space B (PCID 2) to frame 1; both have been used. */
static void begin(void)
{
    paging_reset();
    for (unsigned i = 0; i < 4; i++)
        memset(frame[i], (int)(0x10 + i), 4096);
    map_page(WINDOW, phys(frame[0]), 1, PG_ALL);
    memcpy(other_pml4, boot_pml4, 4096);
    other_pml4[1] = phys(other[0]) | PG_ALL;
    other[0][0] = phys(other[1]) | PG_ALL;
    other[1][0] = phys(other[2]) | PG_ALL;
    other[2][0] = phys(frame[1]) | PG_ALL;
    write_cr4(read_cr4() | CR4_PCIDE | CR4_PGE);
    write_cr3(SPACE_A);
    CHECK_EQ(look(WINDOW), 0x10);
    write_cr3(SPACE_B);
    CHECK_EQ(look(WINDOW), 0x11);
    write_cr3(SPACE_A | NO_FLUSH);
}

static void end(void)
{
    write_cr3((word)boot_pml4);
    write_cr4(read_cr4() & ~(CR4_PCIDE | CR4_PGE));
    flush_all();
}

TEST(spaces_are_kept_apart)
{
    REQUIRE(HAS_PCID());
    begin();
    for (unsigned i = 0; i < 20; i++) {
        CHECK_EQ(look(WINDOW), 0x10);
        write_cr3(SPACE_B | NO_FLUSH);
        CHECK_EQ(look(WINDOW), 0x11);
        write_cr3(SPACE_A | NO_FLUSH);
    }
    end();
}

TEST(cr3_does_not_keep_bit_63)
{
    REQUIRE(HAS_PCID());
    begin();
    write_cr3(SPACE_B | NO_FLUSH);
    CHECK_EQ(read_cr3(), SPACE_B);
    end();
    struct trap t = CATCH(asm volatile(LABEL(cr3_here) "mov %0, %%cr3" ::"r"(SPACE_A | NO_FLUSH)));
    CHECK_EQ(t.vector, VECTOR_GP); /* without PCIDE it is reserved */
    CHECK_EQ(t.error, 0);
    CHECK_EQ(t.rip, SYMBOL(cr3_here));
}

TEST(load_without_bit_63_flushes_its_pcid)
{
    REQUIRE(HAS_PCID());
    begin();
    *entry_of(WINDOW, 1) = phys(frame[2]) | PG_ALL;
    other[2][0] = phys(frame[3]) | PG_ALL;
    write_cr3(SPACE_B);
    CHECK_EQ(look(WINDOW), 0x13);
    write_cr3(SPACE_A);
    CHECK_EQ(look(WINDOW), 0x12);
    end();
}

/* The same PCID for another set of tables, with a flush. */
TEST(pcid_reused)
{
    REQUIRE(HAS_PCID());
    begin();
    write_cr3((word)other_pml4 | 1);
    CHECK_EQ(look(WINDOW), 0x11);
    write_cr3((word)boot_pml4 | 1);
    CHECK_EQ(look(WINDOW), 0x10);
    write_cr3((word)boot_pml4 | 2);
    CHECK_EQ(look(WINDOW), 0x10);
    end();
}

TEST(invlpg_is_for_the_current_pcid)
{
    REQUIRE(HAS_PCID());
    begin();
    *entry_of(WINDOW, 1) = phys(frame[2]) | PG_ALL;
    invlpg((void *)WINDOW);
    CHECK_EQ(look(WINDOW), 0x12);
    write_cr3(SPACE_B | NO_FLUSH);
    CHECK_EQ(look(WINDOW), 0x11);
    end();
}

TEST(invpcid_0_one_address)
{
    REQUIRE(HAS_PCID() && HAS_INVPCID());
    begin();
    other[2][0] = phys(frame[3]) | PG_ALL; /* of B, from A */
    invpcid(0, 2, WINDOW + 0x123);
    CHECK_EQ(look(WINDOW), 0x10);
    write_cr3(SPACE_B | NO_FLUSH);
    CHECK_EQ(look(WINDOW), 0x13);
    other[2][0] = phys(frame[2]) | PG_ALL; /* the current one */
    invpcid(0, 2, WINDOW);
    CHECK_EQ(look(WINDOW), 0x12);
    end();
}

TEST(invpcid_1_one_context)
{
    REQUIRE(HAS_PCID() && HAS_INVPCID());
    begin();
    other[2][0] = phys(frame[3]) | PG_ALL;
    invpcid(1, 2, 0);
    write_cr3(SPACE_B | NO_FLUSH);
    CHECK_EQ(look(WINDOW), 0x13);
    other[2][0] = phys(frame[2]) | PG_ALL;
    invpcid(1, 2, 0);
    CHECK_EQ(look(WINDOW), 0x12);
    end();
}

TEST(invpcid_2_all_with_globals)
{
    REQUIRE(HAS_PCID() && HAS_INVPCID());
    begin();
    *entry_of(WINDOW, 1) |= PG_G;
    invlpg((void *)WINDOW);
    CHECK_EQ(look(WINDOW), 0x10); /* now cached as global */
    *entry_of(WINDOW, 1) = phys(frame[2]) | PG_ALL | PG_G;
    other[2][0] = phys(frame[3]) | PG_ALL;
    invpcid(2, 0, 0);
    CHECK_EQ(look(WINDOW), 0x12);
    *entry_of(WINDOW, 1) = phys(frame[2]) | PG_ALL;
    invpcid(2, 0, 0);
    write_cr3(SPACE_B | NO_FLUSH);
    CHECK_EQ(look(WINDOW), 0x13);
    end();
}

TEST(invpcid_3_all_but_globals)
{
    REQUIRE(HAS_PCID() && HAS_INVPCID());
    begin();
    *entry_of(WINDOW, 1) = phys(frame[2]) | PG_ALL;
    other[2][0] = phys(frame[3]) | PG_ALL;
    invpcid(3, 0, 0);
    CHECK_EQ(look(WINDOW), 0x12);
    write_cr3(SPACE_B | NO_FLUSH);
    CHECK_EQ(look(WINDOW), 0x13);
    end();
}

/* A change of CR4.PGE, or of PCIDE to 0, takes the translations of all PCIDs away. */
TEST(cr4_flushes_every_pcid)
{
    REQUIRE(HAS_PCID());
    begin();
    *entry_of(WINDOW, 1) = phys(frame[2]) | PG_ALL;
    other[2][0] = phys(frame[3]) | PG_ALL;
    write_cr4(read_cr4() & ~CR4_PGE);
    CHECK_EQ(look(WINDOW), 0x12);
    write_cr3(SPACE_B | NO_FLUSH);
    CHECK_EQ(look(WINDOW), 0x13);
    other[2][0] = phys(frame[1]) | PG_ALL;
    write_cr4(read_cr4() & ~CR4_PCIDE); /* from PCID 2: CR3's low bits are PWT and the like now */
    CHECK_EQ(look(WINDOW), 0x11);
    end();
}

ALONE struct trap bad_cr4(word value)
{
    return CATCH(asm volatile(LABEL(cr4_here) "mov %0, %%cr4" ::"r"(value)));
}

TEST(pcide_needs_pcid_0)
{
    REQUIRE(HAS_PCID());
    word cr4 = read_cr4();
    write_cr3((word)boot_pml4 | 0x18);
    struct trap t = bad_cr4(cr4 | CR4_PCIDE);
    CHECK_EQ(t.vector, VECTOR_GP);
    CHECK_EQ(t.error, 0);
    CHECK_EQ(t.rip, SYMBOL(cr4_here));
    CHECK_EQ(read_cr4(), cr4);
    write_cr3((word)boot_pml4);
}

ALONE struct trap bad_invpcid(word type, const uint64_t *descriptor)
{
    return CATCH(asm volatile(LABEL(invpcid_here) "invpcid (%1), %0" ::"r"(type), "r"(descriptor)
                              : "memory"));
}

#define CHECK_GP(t, at)                                                                            \
    do {                                                                                           \
        struct trap t_ = (t);                                                                      \
        CHECK_EQ(t_.vector, VECTOR_GP);                                                            \
        CHECK_EQ(t_.error, 0);                                                                     \
        CHECK_EQ(t_.rip, at);                                                                      \
    } while (0)

TEST(invpcid_refuses)
{
    REQUIRE(HAS_INVPCID());
    static const uint64_t reserved[2] = {0x1000, 0}, pcid_1[2] = {1, 0}, pcid_0[2] = {0, 0},
                          odd_address[2] = {0, 0x800000000000};
    CHECK_GP(bad_invpcid(4, pcid_0), SYMBOL(invpcid_here));
    CHECK_GP(bad_invpcid(1ull << 32, pcid_0), SYMBOL(invpcid_here));
    for (unsigned type = 0; type < 4; type++)
        CHECK_GP(bad_invpcid(type, reserved), SYMBOL(invpcid_here));
    /* without CR4.PCIDE only PCID 0 can be named */
    CHECK_GP(bad_invpcid(0, pcid_1), SYMBOL(invpcid_here));
    CHECK_GP(bad_invpcid(1, pcid_1), SYMBOL(invpcid_here));
    CHECK_NO_TRAP(bad_invpcid(0, pcid_0));
    CHECK_GP(bad_invpcid(0, odd_address), SYMBOL(invpcid_here));
    CHECK_NO_TRAP(bad_invpcid(1, odd_address));
    CHECK_NO_TRAP(bad_invpcid(2, odd_address));
    CHECK_PF(bad_invpcid(2, (uint64_t *)(WINDOW + 0x7000)), WINDOW + 0x7000, 0,
             SYMBOL(invpcid_here));
}

const struct test guest_tests[] = {T(spaces_are_kept_apart),
                                   T(cr3_does_not_keep_bit_63),
                                   T(load_without_bit_63_flushes_its_pcid),
                                   T(pcid_reused),
                                   T(invlpg_is_for_the_current_pcid),
                                   T(invpcid_0_one_address),
                                   T(invpcid_1_one_context),
                                   T(invpcid_2_all_with_globals),
                                   T(invpcid_3_all_but_globals),
                                   T(cr4_flushes_every_pcid),
                                   T(pcide_needs_pcid_0),
                                   T(invpcid_refuses),
                                   {0, 0}};
