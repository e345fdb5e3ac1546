/*
 * descriptors.c - LDT and TSS descriptors of 16 bytes, and LAR, LSL, VERR, VERW in 64-bit mode (SDM
 * vol. 3, 7.2.3, 3.5; vol. 2 under each name).
 */
#include "context.h"
#include "paging.h"

enum {
    SYSTEM = FREE(0), /* two entries */
    OTHER = FREE(2),
    CALL_GATE = FREE(4),
    LAST = 31 * 8,
};
#define NON_CANONICAL 0x800000000000ull

static void set_system(unsigned at, word base, uint32_t limit, unsigned attr)
{
    gdt[at / 8] = descriptor((uint32_t)base, limit, attr);
    gdt[at / 8 + 1] = base >> 32;
}
static void set_limit_of_gdt(void)
{
    struct __attribute__((packed)) {
        uint16_t limit;
        word base;
    } gdtr = {32 * 8 - 1, (word)gdt};
    asm volatile("lgdt %0" ::"m"(gdtr));
}

static struct trap lldt(unsigned selector)
{
    return CATCH(asm volatile(LABEL(do_lldt) "lldt %w0" ::"r"(selector)));
}
static struct trap ltr(unsigned selector)
{
    return CATCH(asm volatile(LABEL(do_ltr) "ltr %w0" ::"r"(selector)));
}
static struct trap load_fs(unsigned selector)
{
    return CATCH(asm volatile(LABEL(do_load_fs) "mov %0, %%fs" ::"r"(selector)));
}

/* ---- LDT ------------------------------------------------------------------------------------- */

/* A table above 4 GiB, with the limit to the byte. */
TEST(ldt_above_4_gib)
{
    static uint64_t table[512] __attribute__((aligned(4096)));
    map_page(WINDOW + 0x5000, (word)table, 1, PG_ALL);
    table[0] = descriptor(0x11223344, 0xfffff, D_DATA | D_BIG | D_PAGES);
    table[1] = descriptor(0x55667788, 0xfffff, (D_DATA & ~1) | D_BIG | D_PAGES); /* not accessed */
    table[2] = table[0];
    set_system(SYSTEM, WINDOW + 0x5000, 0x17, D_LDT);
    CHECK_NO_TRAP(lldt(SYSTEM));
    uint16_t sel;
    asm volatile("sldt %0" : "=r"(sel));
    CHECK_EQ(sel, SYSTEM);
    CHECK_NO_TRAP(load_fs(0x04)); /* entry 0 of an LDT is an entry */
    CHECK_EQ(rdmsr(0xc0000100), 0x11223344);
    CHECK_NO_TRAP(load_fs(0x0c));
    CHECK_EQ(rdmsr(0xc0000100), 0x55667788);
    CHECK_EQ(table[1] >> 40 & 1, 1); /* accessed now */
    CHECK_NO_TRAP(load_fs(0x14));
    CHECK_TRAP(load_fs(0x1c), V_GP, 0x1c, SYMBOL(do_load_fs));
    set_system(SYSTEM, WINDOW + 0x5000, 0x16, D_LDT);
    CHECK_NO_TRAP(load_fs(0x14)); /* the register keeps what it has read */
    CHECK_NO_TRAP(lldt(SYSTEM));
    CHECK_TRAP(load_fs(0x17), V_GP, 0x14, SYMBOL(do_load_fs));
    CHECK_NO_TRAP(load_fs(0x0c));
    /* The table's page goes away: a page fault of the supervisor's. */
    *entry_of(WINDOW + 0x5000, 1) = 0;
    invlpg((void *)(WINDOW + 0x5000));
    CHECK_PF(load_fs(0x0c), WINDOW + 0x5008, 0, SYMBOL(do_load_fs));
    CHECK_NO_TRAP(lldt(0)); /* no LDT at all */
    CHECK_TRAP(load_fs(0x0c), V_GP, 0x0c, SYMBOL(do_load_fs));
    load_fs(0);
    paging_reset();
}

static const struct {
    const char *what;
    unsigned attr;
    word base, upper;
    unsigned vector;
} bad_system[] = {
    {"TSS for LDT", D_TSS32, 0x1000, 0, V_GP},
    {"data", D_DATA, 0x1000, 0, V_GP},
    {"code", D_CODE, 0x1000, 0, V_GP},
    {"call gate", D_CALL32, 0x1000, 0, V_GP},
    {"not present", D_LDT & ~D_PRESENT, 0x1000, 0, V_NP},
    {"upper type", D_LDT, 0x1000, 1ull << 40, V_GP},
    {"non-canonical base", D_LDT, NON_CANONICAL, 0, V_GP},
};
/* The accessed bit is a store, whatever may be loaded from the page. */
TEST(accessed_bit_in_a_read_only_page)
{
    static uint64_t table[512] __attribute__((aligned(4096)));
    word cr0 = read_cr0();
    write_cr0(cr0 | CR0_WP);
    map_page(WINDOW + 0x5000, (word)table, 1, PG_P);
    table[0] = descriptor(0x11223344, 0xfffff, D_DATA | D_BIG | D_PAGES);
    table[1] = descriptor(0x55667788, 0xfffff, (D_DATA & ~1) | D_BIG | D_PAGES);
    set_system(SYSTEM, WINDOW + 0x5000, 0x17, D_LDT);
    CHECK_NO_TRAP(lldt(SYSTEM));
    for (unsigned i = 0; i < 3; i++) {
        CHECK_NO_TRAP(load_fs(0x04));
        CHECK_PF(load_fs(0x0c), WINDOW + 0x500d, PF_P | PF_W, SYMBOL(do_load_fs));
        CHECK_EQ(table[1] >> 40 & 1, 0);
    }
    write_cr0(cr0 & ~CR0_WP);
    CHECK_NO_TRAP(load_fs(0x0c));
    CHECK_NO_TRAP(load_fs(0));
    CHECK_NO_TRAP(lldt(0));
    write_cr0(cr0);
    paging_reset();
}

TEST(bad_ldt_descriptors)
{
    set_limit_of_gdt();
    for (volatile unsigned i = 0; i < sizeof bad_system / sizeof bad_system[0]; i++) {
        set_system(SYSTEM, bad_system[i].base, 0xfff, bad_system[i].attr);
        gdt[SYSTEM / 8 + 1] |= bad_system[i].upper;
        struct trap t = lldt(SYSTEM | 3);
        if (t.vector != bad_system[i].vector)
            print("  %s:\n", bad_system[i].what);
        CHECK_TRAP(t, bad_system[i].vector, SYSTEM, SYMBOL(do_lldt));
    }
    CHECK_TRAP(lldt(SYSTEM | 4), V_GP, SYSTEM | 4, SYMBOL(do_lldt)); /* only in the GDT */
    CHECK_TRAP(lldt(0x1000), V_GP, 0x1000, SYMBOL(do_lldt));
    gdt[31] = descriptor(0x1000, 0xfff, D_LDT);
    CHECK_TRAP(lldt(LAST), V_GP, LAST, SYMBOL(do_lldt)); /* its second half is beyond the GDT */
    gdt[31] = 0;
    CHECK_NO_TRAP(lldt(3));
}

/* ---- TSS ------------------------------------------------------------------------------------- */

TEST(tss_above_4_gib)
{
    static char page[4096] __attribute__((aligned(4096)));
    word base = WINDOW + 0x6000 - 0x10; /* and across a page: only the first is there */
    map_page(WINDOW + 0x5000, (word)page, 1, PG_ALL);
    set_system(SYSTEM, base, 103, D_TSS32);
    CHECK_NO_TRAP(ltr(SYSTEM));
    CHECK_EQ(desc_type(SYSTEM), D_TSS32 | D_BUSY);
    uint16_t sel;
    asm volatile("str %0" : "=r"(sel));
    CHECK_EQ(sel, SYSTEM);
    CHECK_TRAP(ltr(SYSTEM), V_GP, SYSTEM, SYMBOL(do_ltr)); /* busy */
    /* IST1 lies on the missing page. */
    set_gate(0x62, (word)trap_stubs + 16 * 0x62, SEL_CODE, 14, 0, 1);
    struct trap t = CATCH(asm volatile(LABEL(ist_missing) "int $0x62"));
    CHECK_PF(t, base + 0x24, 0, SYMBOL(ist_missing));
    map_page(WINDOW + 0x6000, FREE_RAM, 1, PG_ALL);
    static char stack[1024] __attribute__((aligned(16)));
    *(word *)(base + 0x24) = (word)(stack + sizeof stack);
    t = CATCH(asm volatile("int $0x62\n" LABEL(ist_there) "nop"));
    CHECK_TRAP(t, 0x62, 0, SYMBOL(ist_there));
    gdt[SEL_TSS / 8] &= ~((uint64_t)D_BUSY << 40);
    CHECK_NO_TRAP(ltr(SEL_TSS));
    CHECK_EQ(desc_type(SYSTEM), D_TSS32 | D_BUSY); /* LTR does not free the old one */
    set_gate(0x62, (word)trap_stubs + 16 * 0x62, SEL_CODE, 14, 3, 0);
    paging_reset();
}

TEST(bad_tss_descriptors)
{
    static const struct {
        const char *what;
        unsigned attr;
        word base, upper;
        unsigned vector;
    } bad[] = {
        {"LDT", D_LDT, 0x1000, 0, V_GP},
        {"16-bit TSS", D_TSS16, 0x1000, 0, V_GP},
        {"busy", D_TSS32 | D_BUSY, 0x1000, 0, V_GP},
        {"data", D_DATA, 0x1000, 0, V_GP},
        {"not present", D_TSS32 & ~D_PRESENT, 0x1000, 0, V_NP},
        {"upper type", D_TSS32, 0x1000, 1ull << 40, V_GP},
        {"non-canonical base", D_TSS32, NON_CANONICAL, 0, V_GP},
    };
    for (volatile unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        set_system(SYSTEM, bad[i].base, 103, bad[i].attr);
        gdt[SYSTEM / 8 + 1] |= bad[i].upper;
        struct trap t = ltr(SYSTEM);
        if (t.vector != bad[i].vector)
            print("  %s:\n", bad[i].what);
        CHECK_TRAP(t, bad[i].vector, SYSTEM, SYMBOL(do_ltr));
        CHECK_EQ(desc_type(SYSTEM), bad[i].attr);
    }
    CHECK_TRAP(ltr(0), V_GP, 0, SYMBOL(do_ltr));
    CHECK_TRAP(ltr(3), V_GP, 0, SYMBOL(do_ltr));
    CHECK_TRAP(ltr(SYSTEM | 4), V_GP, SYSTEM | 4, SYMBOL(do_ltr));
    gdt[31] = descriptor(0x1000, 103, D_TSS32);
    CHECK_TRAP(ltr(LAST), V_GP, LAST, SYMBOL(do_ltr));
    CHECK_EQ(desc_type(LAST), D_TSS32);
    gdt[31] = 0;
}

/* ---- LAR, LSL, VERR, VERW -------------------------------------------------------------------- */

struct answer {
    bool zf;
    uint32_t value;
};
#define ASK(instruction, selector)                                                                 \
    ({                                                                                             \
        struct answer a_ = {.value = 0xdeadbeef};                                                  \
        asm volatile(instruction " %2, %1; setz %0"                                                \
                     : "=q"(a_.zf), "+r"(a_.value)                                                 \
                     : "r"((uint32_t)(selector))                                                   \
                     : "cc");                                                                      \
        a_;                                                                                        \
    })
#define VERIFY(instruction, selector)                                                              \
    ({                                                                                             \
        bool zf_;                                                                                  \
        asm volatile(instruction " %w1; setz %0" : "=q"(zf_) : "r"(selector) : "cc");              \
        zf_;                                                                                       \
    })

TEST(lar_and_lsl_of_each_type)
{
    static const struct {
        unsigned attr;
        bool lar, lsl;
    } types[] = {
        {D_LDT, true, true},       {D_TSS32, true, true},
        {D_TSS32 | 2, true, true}, {D_CALL32, true, false},
        {D_TSS16, false, false},   {D_TSS16 | 2, false, false},
        {D_CALL16, false, false},  {D_TASK_GATE, false, false},
        {0x86, false, false},      {0x87, false, false},
        {0x8e, false, false},      {0x8f, false, false},
        {0x80, false, false},      {0x88, false, false},
        {0x8a, false, false},      {0x8d, false, false},
        {D_CODE, true, true},      {D_DATA, true, true},
        {D_CODE_XO, true, true},   {D_DATA & ~D_PRESENT, true, true},
    };
    for (unsigned i = 0; i < sizeof types / sizeof types[0]; i++) {
        set_system(SYSTEM, 0x12345678, 0x54321, types[i].attr | D_PAGES);
        gdt[SYSTEM / 8 + 1] = 0;
        struct answer lar = ASK("lar", SYSTEM), lsl = ASK("lsl", SYSTEM);
        if (lar.zf != types[i].lar || lsl.zf != types[i].lsl)
            print("  attributes %x:\n", types[i].attr);
        CHECK_EQ(lar.zf, types[i].lar);
        CHECK_EQ(lsl.zf, types[i].lsl);
        if (lar.zf) /* bits 16-19 are undefined */
            CHECK_EQ(lar.value & 0xfff0ffff, gdt[SYSTEM / 8] >> 32 & 0x00f0ff00);
        else
            CHECK_EQ(lar.value, 0xdeadbeef);
        CHECK_EQ(lsl.value, types[i].lsl ? 0x54321fff : 0xdeadbeef);
    }
}

TEST(queries_respect_privilege)
{
    gdt[OTHER / 8] = descriptor(0, 0xfff, D_DATA);
    CHECK(ASK("lar", OTHER).zf);
    CHECK(!ASK("lar", OTHER | 3).zf);
    CHECK(!VERIFY("verr", OTHER | 3));
    gdt[OTHER / 8] = descriptor(0, 0xfff, D_DATA | D_DPL3);
    CHECK(ASK("lar", OTHER | 3).zf);
    CHECK(VERIFY("verw", OTHER | 3));
    gdt[OTHER / 8] = descriptor(0, 0xfff, D_CONFORMING);
    CHECK(ASK("lsl", OTHER | 3).zf);
    CHECK(VERIFY("verr", OTHER | 3));
    CHECK(!VERIFY("verw", OTHER));
    gdt[OTHER / 8] = descriptor(0, 0xfff, D_CODE_XO);
    CHECK(!VERIFY("verr", OTHER));
    gdt[OTHER / 8] = descriptor(0, 0xfff, D_READ_ONLY);
    CHECK(VERIFY("verr", OTHER));
    CHECK(!VERIFY("verw", OTHER));
    set_system(SYSTEM, 0, 103, D_TSS32);
    CHECK(!VERIFY("verr", SYSTEM));
    CHECK(!ASK("lar", 0).zf);
    CHECK(!ASK("lsl", 0x1000).zf);
    CHECK(!VERIFY("verr", 3));
    CHECK(!ASK("lar", 0x0c).zf); /* no LDT */
}

/* With an operand of 64 bits the upper half is zero (vol. 2, LAR). */
TEST(lar_and_lsl_with_64_bits)
{
    word lar = ~0ull, lsl = ~0ull;
    gdt[OTHER / 8] = descriptor(0, 0xfffff, D_DATA | D_PAGES | D_BIG);
    asm volatile("larq %2, %0; lslq %2, %1" : "+r"(lar), "+r"(lsl) : "r"((word)OTHER) : "cc");
    CHECK_EQ(lar & ~0xf0000ull, gdt[OTHER / 8] >> 32 & 0x00f0ff00);
    CHECK_EQ(lsl, 0xffffffff);
}

const struct test guest_tests[] = {T(ldt_above_4_gib),
                                   T(accessed_bit_in_a_read_only_page),
                                   T(bad_ldt_descriptors),
                                   T(tss_above_4_gib),
                                   T(bad_tss_descriptors),
                                   T(lar_and_lsl_of_each_type),
                                   T(queries_respect_privilege),
                                   T(lar_and_lsl_with_64_bits),
                                   {0, 0}};
