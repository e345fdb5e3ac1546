/*
 * modes.c - which combinations of CR0, CR4 and EFER there are, and the ways between the paging
 * modes (SDM vol. 3, 2.5, 4.1, 9.8.5; AMD APM vol. 2, 14.6).
 */
#include "legacy.h"

static word initial_cr0, initial_cr4;
static uint64_t initial_efer;

static void reset(void)
{
    if (!initial_cr0) {
        initial_cr0 = read_cr0() & ~(CR0_PG | CR0_WP);
        initial_cr4 = read_cr4();
        initial_efer = rdmsr(MSR_EFER);
    }
    write_cr0(initial_cr0);
    write_cr4(initial_cr4);
    wrmsr(MSR_EFER, initial_efer);
}
static struct trap set_cr0(word value)
{
    return CATCH(asm volatile(LABEL(do_cr0) "mov %0, %%cr0" ::"r"(value)));
}
static struct trap set_cr4(word value)
{
    return CATCH(asm volatile(LABEL(do_cr4) "mov %0, %%cr4" ::"r"(value)));
}
static struct trap set_efer(uint64_t value)
{
    return CATCH(asm volatile(LABEL(do_efer) "wrmsr" ::"c"(MSR_EFER), "a"((uint32_t)value),
                              "d"((uint32_t)(value >> 32))));
}
#define CHECK_GP(t, label) CHECK_TRAP(t, V_GP, 0, SYMBOL(label))

/* ---- CR0 ------------------------------------------------------------------------------------- */

TEST(cr0_combinations)
{
    reset();
    CHECK_GP(set_cr0((initial_cr0 | CR0_PG) & ~(word)CR0_PE), do_cr0);
    CHECK_GP(set_cr0((initial_cr0 | CR0_NW) & ~(word)CR0_CD), do_cr0);
    CHECK_EQ(read_cr0(), initial_cr0);
    CHECK_NO_TRAP(set_cr0(initial_cr0 | CR0_CD));
    CHECK_EQ(read_cr0(), initial_cr0 | CR0_CD);
    CHECK_NO_TRAP(set_cr0(initial_cr0 | CR0_CD | CR0_NW));
    CHECK_GP(set_cr0((initial_cr0 | CR0_NW) & ~(word)CR0_CD), do_cr0);
    CHECK_EQ(read_cr0(), initial_cr0 | CR0_CD | CR0_NW);
    reset();
    /* ET is always 1; reserved bits are ignored, as ever below bit 32. */
    CHECK_NO_TRAP(set_cr0((initial_cr0 | 0x1ffaffc0) & ~0x10ul));
    CHECK_EQ(read_cr0() & 0x1ffaffd0, 0x10);
    reset();
}

/* LMSW sets PE, MP, EM and TS, and cannot clear PE (vol. 2, LMSW). */
TEST(lmsw)
{
    reset();
    asm volatile("lmsw %w0" ::"r"(0xfffe));
    CHECK_EQ(read_cr0(), initial_cr0 | 0xe);
    asm volatile("lmsw %w0" ::"r"(0));
    CHECK_EQ(read_cr0(), initial_cr0 & ~(word)0xe);
    uint32_t msw = 0;
    asm volatile("smsw %0" : "=r"(msw));
    CHECK_EQ(msw & 0xffff, read_cr0() & 0xffff);
    reset();
}

/* ---- CR4 ------------------------------------------------------------------------------------- */

/* Every bit that no feature backs is refused, each that one backs is taken. */
TEST(cr4_bits)
{
    static const struct {
        uint8_t bit;
        uint32_t leaf;
        uint8_t reg, feature;
    } known[] = {
        {0, 1, REG_EDX, 1},  {1, 1, REG_EDX, 1},   {2, 1, REG_EDX, 4},  {3, 1, REG_EDX, 2},
        {4, 1, REG_EDX, 3},  {5, 1, REG_EDX, 6},   {6, 1, REG_EDX, 7},  {7, 1, REG_EDX, 13},
        {9, 1, REG_EDX, 24}, {10, 1, REG_EDX, 25}, {11, 7, REG_ECX, 2}, {12, 7, REG_ECX, 16},
        {13, 1, REG_ECX, 5}, {14, 1, REG_ECX, 6},  {16, 7, REG_EBX, 0}, {18, 1, REG_ECX, 26},
        {20, 7, REG_EBX, 7}, {21, 7, REG_EBX, 20}, {22, 7, REG_ECX, 3}, {24, 7, REG_ECX, 31},
    };
    reset();
    for (volatile unsigned bit = 0; bit < 32; bit++) {
        bool backed = bit == 8; /* PCE needs no feature */
        for (unsigned i = 0; i < sizeof known / sizeof known[0]; i++)
            if (known[i].bit == bit)
                backed = cpu_has(known[i].leaf, known[i].reg, known[i].feature);
        struct trap t = set_cr4(initial_cr4 | 1ul << bit);
        if ((t.vector == NO_TRAP) != (backed || (initial_cr4 >> bit & 1)))
            print("  CR4 bit %u:\n", bit);
        if (backed)
            CHECK_NO_TRAP(t);
        else
            CHECK_GP(t, do_cr4);
        write_cr4(initial_cr4);
    }
}

/* PCIDE needs IA-32e mode (4.10.1), which this guest is not in. */
TEST(pcide_outside_long_mode)
{
    reset();
    CHECK_GP(set_cr4(initial_cr4 | CR4_PAE | CR4_PCIDE), do_cr4);
}

/* ---- EFER ------------------------------------------------------------------------------------ */

TEST(efer_bits)
{
    reset();
    for (volatile unsigned bit = 1; bit < 64; bit++) {
        if (bit == 8 || (bit >= 10 && bit <= 18) || bit == 20 || bit == 21)
            continue; /* what processors have, and AMD's */
        CHECK_GP(set_efer(initial_efer | 1ull << bit), do_efer);
    }
    CHECK_EQ(rdmsr(MSR_EFER), initial_efer);
    CHECK_NO_TRAP(set_efer(initial_efer | EFER_LME | EFER_NXE));
    CHECK_EQ(rdmsr(MSR_EFER), initial_efer | EFER_LME | EFER_NXE);
    reset();
}

/* ---- Paging modes ---------------------------------------------------------------------------- */

/* Between 32-bit paging and PAE paging there and back with paging on (4.1.2). CR3 names a page that
 * is a directory in the one mode and PDPTEs in the other. Its entries 0-7 are the latter: below
 * 32 MiB nothing may be touched, or they would get A bits. So the code runs from a copy at 32 MiB,
 * and looks at 36 MiB, where each mode has another frame. */
enum { HIGH_CODE = 0x2000000, HIGH_DATA = 0x2400000, FRAME_32 = 0x1000000, FRAME_PAE = 0x1200000 };
static uint32_t root[1024] __attribute__((aligned(4096)));
static uint64_t pae_pd[512] __attribute__((aligned(4096)));

static void make_tables(void)
{
    memset(root, 0, sizeof root);
    memset(pae_pd, 0, sizeof pae_pd);
    root[0] = (word)pae_pd | E_P;
    root[HIGH_CODE >> 22] = HIGH_CODE | E_ALL | E_PS;
    root[HIGH_DATA >> 22] = FRAME_32 | E_ALL | E_PS;
    pae_pd[HIGH_CODE >> 21] = HIGH_CODE | E_ALL | E_PS;
    pae_pd[HIGH_DATA >> 21] = FRAME_PAE | E_ALL | E_PS;
    *(uint32_t *)FRAME_32 = 0x32;
    *(uint32_t *)FRAME_PAE = 0x64;
    write_cr3((word)root);
}
asm(LABEL(switch_pae) "mov %eax, %cr0; mov (%esi), %ebx; mov %ecx, %cr4; mov (%esi), %ebp;"
                      "mov %edx, %cr4; mov (%esi), %ecx; and $0x7fffffff, %eax; mov %eax, %cr0;"
                      "jmp *%edi\n" LABEL(switch_pae_end) "nop");

TEST(pae_with_paging_on)
{
    uint32_t first = HIGH_CODE, second, third; /* EBX: where to, then what was first read */
    reset();
    second = initial_cr0 | CR0_PG;
    third = initial_cr4 | CR4_PSE | CR4_PAE;
    write_cr4(initial_cr4 | CR4_PSE);
    make_tables();
    memcpy((void *)HIGH_CODE, (void *)SYMBOL(switch_pae),
           SYMBOL(switch_pae_end) - SYMBOL(switch_pae));
    asm volatile("push %%ebp; mov $1f, %%edi; jmp *%%ebx; 1: mov %%ebp, %%eax; pop %%ebp"
                 : "+b"(first), "+a"(second), "+c"(third)
                 : "d"(initial_cr4 | CR4_PSE), "S"(HIGH_DATA)
                 : "edi", "memory", "cc");
    CHECK_EQ(first, 0x32);
    CHECK_EQ(second, 0x64);
    CHECK_EQ(third, 0x32);
    CHECK_EQ(root[0], (word)pae_pd | E_P);
    CHECK_EQ(pae_pd[HIGH_DATA >> 21] & E_A, E_A);
    reset();
}

/* EFER.LME is not to be changed while paging is on. */
TEST(lme_with_paging_on)
{
    reset();
    write_cr4(initial_cr4 | CR4_PSE);
    memset(root, 0, sizeof root);
    root[0] = E_ALL | E_PS;
    write_cr3((word)root);
    CHECK_NO_TRAP(set_cr0(initial_cr0 | CR0_PG));
    CHECK_GP(set_efer(initial_efer | EFER_LME), do_efer);
    CHECK_EQ(rdmsr(MSR_EFER), initial_efer);
    reset();
}

/* ---- Into IA-32e mode, and out again --------------------------------------------------------- */

static uint64_t pml4[512] __attribute__((aligned(4096)));
static uint64_t pdpt[512] __attribute__((aligned(4096)));
static uint64_t pd[512] __attribute__((aligned(4096)));

static void long_tables(void)
{
    pml4[0] = (word)pdpt | E_ALL;
    pdpt[0] = (word)pd | E_ALL;
    for (unsigned i = 0; i < 512; i++)
        pd[i] = (uint64_t)i << 21 | E_ALL | E_PS;
    write_cr3((word)pml4);
}

TEST(long_mode_without_pae)
{
    reset();
    long_tables();
    wrmsr(MSR_EFER, initial_efer | EFER_LME);
    CHECK_GP(set_cr0(initial_cr0 | CR0_PG), do_cr0);
    CHECK_EQ(read_cr0(), initial_cr0);
    CHECK_EQ(rdmsr(MSR_EFER), initial_efer | EFER_LME); /* LMA has not come */
    reset();
}

/* From compatibility code, without a word of 64-bit code. The IDT is of the wrong kind meanwhile,
 * so nothing here may trap. LMA comes and goes with PG; LME stays. */
TEST(long_mode_and_back)
{
    uint32_t inside = 0, outside = 0;
    reset();
    long_tables();
    write_cr4(initial_cr4 | CR4_PAE);
    wrmsr(MSR_EFER, initial_efer | EFER_LME);
    asm volatile("cli; mov %2, %%cr0; rdmsr; mov %%eax, %0; mov %3, %%cr0; rdmsr; mov %%eax, %1"
                 : "=&r"(inside), "=&r"(outside)
                 : "r"(initial_cr0 | CR0_PG), "r"(initial_cr0), "c"(MSR_EFER)
                 : "eax", "edx", "memory");
    CHECK_EQ(inside & (EFER_LME | EFER_LMA), EFER_LME | EFER_LMA);
    CHECK_EQ(outside & (EFER_LME | EFER_LMA), EFER_LME);
    CHECK_EQ(read_cr0(), initial_cr0);
    reset();
}

/* CS.L = 1 must wait until afterwards, and TR may not hold a 16-bit TSS (9.8.5). In legacy mode the
 * L bit of a descriptor has no meaning: this is 16-bit code. */
asm(".code16\n" LABEL(l_code) "mov %ebx, %cr0\n" LABEL(l_code_end) "int $0x62\n.code32");
TEST(long_mode_from_code_with_l)
{
    reset();
    long_tables();
    write_cr4(initial_cr4 | CR4_PAE);
    wrmsr(MSR_EFER, initial_efer | EFER_LME);
    gdt[SEL_FREE / 8] = descriptor((word)SYMBOL(l_code), 0xffff, D_CODE | D_LONG);
    struct context c = context_at(0, SEL_FREE, SEL_DATA);
    c.rbx = initial_cr0 | CR0_PG;
    struct trap t = RUN(c);
    CHECK_TRAP(t, V_GP, 0, 0);
    CHECK_EQ(t.cs, SEL_FREE);
    CHECK_EQ(read_cr0(), initial_cr0);
    gdt[SEL_FREE / 8] = descriptor((word)SYMBOL(l_code), 0xffff, D_CODE);
    c.rbx = initial_cr0;
    CHECK_EQ(RUN(c).vector, 0x62);
    reset();
}

TEST(long_mode_with_a_16_bit_tss)
{
    static uint16_t tss16[22];
    reset();
    long_tables();
    write_cr4(initial_cr4 | CR4_PAE);
    wrmsr(MSR_EFER, initial_efer | EFER_LME);
    gdt[SEL_FREE / 8] = descriptor((word)tss16, 43, D_TSS16);
    asm volatile("ltr %w0" ::"r"(SEL_FREE));
    CHECK_GP(set_cr0(initial_cr0 | CR0_PG), do_cr0);
    CHECK_EQ(read_cr0(), initial_cr0);
    gdt[SEL_TSS / 8] &= ~((uint64_t)D_BUSY << 40);
    asm volatile("ltr %w0" ::"r"(SEL_TSS));
    reset();
}

const struct test guest_tests[] = {T(cr0_combinations),
                                   T(lmsw),
                                   T(cr4_bits),
                                   T(pcide_outside_long_mode),
                                   T(efer_bits),
                                   T(pae_with_paging_on),
                                   T(lme_with_paging_on),
                                   T(long_mode_without_pae),
                                   T(long_mode_and_back),
                                   T(long_mode_from_code_with_l),
                                   T(long_mode_with_a_16_bit_tss),
                                   {0, 0}};
