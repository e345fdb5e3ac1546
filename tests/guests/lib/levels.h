/*
 * levels.h - the body of the guests about CPU models: CPUID shows what the model promises, what it
 * shows works, and what it does not show is #UD or #GP (SDM vol. 2, CPUID; psABI x86-64, 3.1.1).
 *
 * A guest defines MODEL (and its option -cpu) and includes this: 64/cpuid_*.c.
 */
#ifndef GUEST_LEVELS_H
#define GUEST_LEVELS_H

#include "context.h"
#include "paging.h"

enum model { QEMU64, V2, V3, MAX };

/* ---- What each level has --------------------------------------------------------------------- */

enum { LEAF1 = 1, LEAF7 = 7 };
#define LEAFX 0x80000001u

static const struct {
    const char *name;
    uint32_t leaf;
    uint8_t reg, bit;
    enum model since; /* MAX: in none of the others */
} level_features[] = {
    {"fpu", LEAF1, REG_EDX, 0, QEMU64},    {"cx8", LEAF1, REG_EDX, 8, QEMU64},
    {"cmov", LEAF1, REG_EDX, 15, QEMU64},  {"mmx", LEAF1, REG_EDX, 23, QEMU64},
    {"fxsr", LEAF1, REG_EDX, 24, QEMU64},  {"sse", LEAF1, REG_EDX, 25, QEMU64},
    {"sse2", LEAF1, REG_EDX, 26, QEMU64},  {"syscall", LEAFX, REG_EDX, 11, QEMU64},
    {"nx", LEAFX, REG_EDX, 20, QEMU64},    {"lm", LEAFX, REG_EDX, 29, QEMU64},
    {"sse3", LEAF1, REG_ECX, 0, QEMU64},   {"cx16", LEAF1, REG_ECX, 13, QEMU64},
    {"lahf", LEAFX, REG_ECX, 0, QEMU64},   {"ssse3", LEAF1, REG_ECX, 9, V2},
    {"sse4.1", LEAF1, REG_ECX, 19, V2},    {"sse4.2", LEAF1, REG_ECX, 20, V2},
    {"popcnt", LEAF1, REG_ECX, 23, V2},    {"fma", LEAF1, REG_ECX, 12, V3},
    {"movbe", LEAF1, REG_ECX, 22, V3},     {"xsave", LEAF1, REG_ECX, 26, V3},
    {"avx", LEAF1, REG_ECX, 28, V3},       {"f16c", LEAF1, REG_ECX, 29, V3},
    {"bmi1", LEAF7, REG_EBX, 3, V3},       {"avx2", LEAF7, REG_EBX, 5, V3},
    {"bmi2", LEAF7, REG_EBX, 8, V3},       {"lzcnt", LEAFX, REG_ECX, 5, V3},
    {"pclmulqdq", LEAF1, REG_ECX, 1, MAX}, {"aes", LEAF1, REG_ECX, 25, MAX},
    {"rdrand", LEAF1, REG_ECX, 30, MAX},   {"rdseed", LEAF7, REG_EBX, 18, MAX},
    {"adx", LEAF7, REG_EBX, 19, MAX},      {"sha", LEAF7, REG_EBX, 29, MAX},
    {"gfni", LEAF7, REG_ECX, 8, MAX},      {"vaes", LEAF7, REG_ECX, 9, MAX},
    {"fsgsbase", LEAF7, REG_EBX, 0, MAX},  {"smep", LEAF7, REG_EBX, 7, MAX},
    {"smap", LEAF7, REG_EBX, 20, MAX},     {"pku", LEAF7, REG_ECX, 3, MAX},
    {"umip", LEAF7, REG_ECX, 2, MAX},      {"pcid", LEAF1, REG_ECX, 17, MAX},
    {"avx512f", LEAF7, REG_EBX, 16, MAX},  {"rtm", LEAF7, REG_EBX, 11, MAX},
};

TEST(levels)
{
    for (unsigned i = 0; i < sizeof level_features / sizeof level_features[0]; i++) {
        bool has = cpu_has(level_features[i].leaf, level_features[i].reg, level_features[i].bit);
        bool want = level_features[i].since <= MODEL;
        if (MODEL == MAX && !want)
            continue; /* what the host has */
        if (MODEL == MAX && level_features[i].since == MAX)
            continue;
        if (has != want)
            print("  %s:\n", level_features[i].name);
        CHECK_EQ(has, want);
    }
}

/* ---- Instructions ---------------------------------------------------------------------------- */

enum { CR4_OSXSAVE = 1 << 18, CR4_PKE_BIT = 1 << 22, CR4_FSGSBASE = 1 << 16 };

/* RAX, RDI and RDX point to 64 aligned bytes, RCX is 0. */
static const struct {
    const char *name;
    uint8_t code[10];
    uint32_t leaf;
    uint8_t reg, bit;
    uint8_t cpl; /* where it runs */
} gated[] = {
    {"ADDSUBPS", {0xf2, 0x0f, 0xd0, 0xc0}, LEAF1, REG_ECX, 0, 3},
    {"PCLMULQDQ", {0x66, 0x0f, 0x3a, 0x44, 0xc0, 0}, LEAF1, REG_ECX, 1, 3},
    {"MONITOR", {0x0f, 0x01, 0xc8}, LEAF1, REG_ECX, 3, 0},
    {"PSHUFB", {0x66, 0x0f, 0x38, 0x00, 0xc0}, LEAF1, REG_ECX, 9, 3},
    {"PABSB mm", {0x0f, 0x38, 0x1c, 0xc0}, LEAF1, REG_ECX, 9, 3},
    {"VFMADD132PS", {0xc4, 0xe2, 0x79, 0x98, 0xc0}, LEAF1, REG_ECX, 12, 3},
    {"CMPXCHG16B", {0x48, 0x0f, 0xc7, 0x0f}, LEAF1, REG_ECX, 13, 3},
    {"PTEST", {0x66, 0x0f, 0x38, 0x17, 0xc0}, LEAF1, REG_ECX, 19, 3},
    {"ROUNDSS", {0x66, 0x0f, 0x3a, 0x0a, 0xc0, 0}, LEAF1, REG_ECX, 19, 3},
    {"CRC32", {0xf2, 0x0f, 0x38, 0xf0, 0xf0}, LEAF1, REG_ECX, 20, 3},
    {"PCMPISTRI", {0x66, 0x0f, 0x3a, 0x63, 0xc0, 0}, LEAF1, REG_ECX, 20, 3},
    {"MOVBE", {0x0f, 0x38, 0xf0, 0x37}, LEAF1, REG_ECX, 22, 3},
    {"POPCNT", {0xf3, 0x0f, 0xb8, 0xf0}, LEAF1, REG_ECX, 23, 3},
    {"AESENC", {0x66, 0x0f, 0x38, 0xdc, 0xc0}, LEAF1, REG_ECX, 25, 3},
    {"XGETBV", {0x0f, 0x01, 0xd0}, LEAF1, REG_ECX, 26, 3},
    {"VZEROUPPER", {0xc5, 0xf8, 0x77}, LEAF1, REG_ECX, 28, 3},
    {"VADDPS", {0xc5, 0xf8, 0x58, 0xc0}, LEAF1, REG_ECX, 28, 3},
    {"VCVTPH2PS", {0xc4, 0xe2, 0x79, 0x13, 0xc0}, LEAF1, REG_ECX, 29, 3},
    {"RDRAND", {0x0f, 0xc7, 0xf0}, LEAF1, REG_ECX, 30, 3},
    {"RDFSBASE", {0xf3, 0x0f, 0xae, 0xc0}, LEAF7, REG_EBX, 0, 3},
    {"ANDN", {0xc4, 0xe2, 0x78, 0xf2, 0xf0}, LEAF7, REG_EBX, 3, 3},
    {"VPADDB ymm", {0xc5, 0xfd, 0xfc, 0xc0}, LEAF7, REG_EBX, 5, 3},
    {"PDEP", {0xc4, 0xe2, 0x7b, 0xf5, 0xf0}, LEAF7, REG_EBX, 8, 3},
    {"RORX", {0xc4, 0xe3, 0x7b, 0xf0, 0xf0, 1}, LEAF7, REG_EBX, 8, 3},
    {"INVPCID", {0x66, 0x0f, 0x38, 0x82, 0x0f}, LEAF7, REG_EBX, 10, 0},
    {"XBEGIN", {0xc7, 0xf8, 0, 0, 0, 0}, LEAF7, REG_EBX, 11, 3},
    {"VADDPS zmm", {0x62, 0xf1, 0x7c, 0x48, 0x58, 0xc0}, LEAF7, REG_EBX, 16, 3},
    {"RDSEED", {0x0f, 0xc7, 0xf8}, LEAF7, REG_EBX, 18, 3},
    {"ADOX", {0xf3, 0x0f, 0x38, 0xf6, 0xf0}, LEAF7, REG_EBX, 19, 3},
    {"STAC", {0x0f, 0x01, 0xcb}, LEAF7, REG_EBX, 20, 0},
    {"CLFLUSHOPT", {0x66, 0x0f, 0xae, 0x3f}, LEAF7, REG_EBX, 23, 3},
    {"CLWB", {0x66, 0x0f, 0xae, 0x37}, LEAF7, REG_EBX, 24, 3},
    {"SHA1MSG1", {0x0f, 0x38, 0xc9, 0xc0}, LEAF7, REG_EBX, 29, 3},
    {"RDPKRU", {0x0f, 0x01, 0xee}, LEAF7, REG_ECX, 3, 3},
    {"GF2P8MULB", {0x66, 0x0f, 0x38, 0xcf, 0xc0}, LEAF7, REG_ECX, 8, 3},
    {"VAESENC ymm", {0xc4, 0xe2, 0x7d, 0xdc, 0xc0}, LEAF7, REG_ECX, 9, 3},
    {"VPCLMULQDQ ymm", {0xc4, 0xe3, 0x7d, 0x44, 0xc0, 0}, LEAF7, REG_ECX, 10, 3},
    {"RDPID", {0xf3, 0x0f, 0xc7, 0xfe}, LEAF7, REG_ECX, 22, 3},
    {"MOVDIRI", {0x0f, 0x38, 0xf9, 0x37}, LEAF7, REG_ECX, 27, 3},
    {"SERIALIZE", {0x0f, 0x01, 0xe8}, LEAF7, REG_EDX, 14, 3},
    {"LAHF", {0x9f}, LEAFX, REG_ECX, 0, 3},
    {"SAHF", {0x9e}, LEAFX, REG_ECX, 0, 3},
    {"EXTRQ", {0x66, 0x0f, 0x79, 0xc0}, LEAFX, REG_ECX, 6, 3},
    {"VPCOMB (XOP)", {0x8f, 0xe8, 0x78, 0xcc, 0xc0, 0}, LEAFX, REG_ECX, 11, 3},
    {"VFMADDPS (FMA4)", {0xc4, 0xe3, 0x79, 0x68, 0xc0, 0}, LEAFX, REG_ECX, 16, 3},
    {"BLCI (TBM)", {0x8f, 0xe9, 0x78, 0x02, 0xf0}, LEAFX, REG_ECX, 21, 3},
    {"RDTSCP", {0x0f, 0x01, 0xf9}, LEAFX, REG_EDX, 27, 3},
    {"PFADD (3DNow!)", {0x0f, 0x0f, 0xc0, 0x9e}, LEAFX, REG_EDX, 31, 3},
};

static void enable_everything(void)
{
    uint32_t r[4];
    word cr4 = read_cr4() | 0x600;
    if (cpu_has(LEAF1, REG_ECX, 26)) {
        write_cr4(cr4 | CR4_OSXSAVE);
        cpuid(0xd, 0, r);
        asm volatile("xsetbv" ::"a"(r[REG_EAX] & 7), "d"(0), "c"(0));
        cr4 |= CR4_OSXSAVE;
    }
    if (cpu_has(LEAF7, REG_ECX, 3))
        cr4 |= CR4_PKE_BIT;
    if (cpu_has(LEAF7, REG_EBX, 0))
        cr4 |= CR4_FSGSBASE;
    write_cr4(cr4);
    write_cr0((read_cr0() | 2) & ~0xcul);
}

TEST(instructions_and_their_bits)
{
    static uint8_t code[16], data[64] __attribute__((aligned(64)));
    enable_everything();
    for (unsigned i = 0; i < sizeof gated / sizeof gated[0]; i++) {
        memset(code, 0x90, sizeof code);
        memcpy(code, gated[i].code, sizeof gated[i].code);
        unsigned len = sizeof gated[i].code;
        while (len > 1 && !gated[i].code[len - 1])
            len--;
        memset(code + len, 0x90, sizeof code - len);
        /* An immediate of zero becomes a NOP's code, which is as good. */
        code[14] = 0x0f, code[15] = 0x0b;
        struct context c =
            gated[i].cpl ? context_user((word)code) : context_at((word)code, SEL_CODE, SEL_DATA);
        c.rax = c.rdi = c.rdx = (word)data;
        memset(data, 0, sizeof data);
        struct trap t = RUN(c);
        bool has = cpu_has(gated[i].leaf, gated[i].reg, gated[i].bit);
        word at = has ? (word)code + 14 : (word)code;
        if (t.vector != V_UD || t.rip != at)
            print("  %s (%s): vector %lx at +%lx\n", gated[i].name, has ? "shown" : "not shown",
                  (long)t.vector, (long)(t.rip - (word)code));
        CHECK_TRAP(t, V_UD, 0, at);
    }
    asm volatile("pushf; andl $~0x40000, (%rsp); popf");
}

/* LZCNT and TZCNT without their bits are BSR and BSF with a prefix that means nothing. */
TEST(lzcnt_and_tzcnt)
{
    uint32_t v = 0x10, lz, tz;
    bool zf;
    asm volatile(".byte 0xf3; bsr %1, %0" : "=r"(lz) : "r"(v) : "cc");
    CHECK_EQ(lz, cpu_has(LEAFX, REG_ECX, 5) ? 27 : 4);
    v = 0, tz = 99;
    asm volatile(".byte 0xf3; bsf %2, %0; setz %1" : "+r"(tz), "=q"(zf) : "r"(v) : "cc");
    if (cpu_has(LEAF7, REG_EBX, 3)) {
        CHECK_EQ(tz, 32);
        CHECK(!zf);
    } else {
        CHECK(zf);
    }
}

/* ---- CR4, EFER, MSRs ------------------------------------------------------------------------- */

TEST(cr4_bits)
{
    static const struct {
        uint8_t bit, leaf, reg, feature;
    } known[] = {{11, 7, REG_ECX, 2},  {16, 7, REG_EBX, 0},  {17, 1, REG_ECX, 17},
                 {18, 1, REG_ECX, 26}, {20, 7, REG_EBX, 7},  {21, 7, REG_EBX, 20},
                 {22, 7, REG_ECX, 3},  {12, 7, REG_ECX, 16}, {13, 1, REG_ECX, 5},
                 {14, 1, REG_ECX, 6},  {23, 7, REG_ECX, 7},  {7, 1, REG_EDX, 13},
                 {2, 1, REG_EDX, 4},   {3, 1, REG_EDX, 2}};
    volatile word cr4 = read_cr4();
    for (volatile unsigned i = 0; i < sizeof known / sizeof known[0]; i++) {
        bool has = cpu_has(known[i].leaf, known[i].reg, known[i].feature);
        word bit = 1ul << known[i].bit;
        if (bit == 1 << 20 || bit == 1 << 21 || cr4 & bit)
            continue; /* the guest's pages are the user's: see smap.c */
        struct trap t = CATCH(asm volatile(LABEL(set_cr4) "mov %0, %%cr4" ::"r"(cr4 | bit)));
        write_cr4(cr4);
        if ((t.vector == NO_TRAP) != has)
            print("  CR4 bit %u:\n", known[i].bit);
        CHECK_EQ(t.vector, has ? NO_TRAP : (word)V_GP);
    }
    /* CPUID shows CR4.OSXSAVE. */
    if (cpu_has(LEAF1, REG_ECX, 26)) {
        write_cr4(cr4 & ~(word)CR4_OSXSAVE);
        CHECK(!cpu_has(LEAF1, REG_ECX, 27));
        write_cr4(cr4 | CR4_OSXSAVE);
        CHECK(cpu_has(LEAF1, REG_ECX, 27));
        write_cr4(cr4);
    }
}

static const struct {
    const char *name;
    uint32_t msr, leaf, sub;
    uint8_t reg, bit;
} msrs[] = {
    {"IA32_TSC_ADJUST", 0x3b, 7, 0, REG_EBX, 1},
    {"IA32_TSC_DEADLINE", 0x6e0, 1, 0, REG_ECX, 24},
    {"IA32_XSS", 0xda0, 0xd, 1, REG_EAX, 3},
    {"IA32_ARCH_CAPABILITIES", 0x10a, 7, 0, REG_EDX, 29},
    {"IA32_PAT", 0x277, 1, 0, REG_EDX, 16},
    {"IA32_MTRRCAP", 0xfe, 1, 0, REG_EDX, 12},
    {"IA32_S_CET", 0x6a2, 7, 0, REG_ECX, 7},
    {"IA32_PERF_CAPABILITIES", 0x345, 1, 0, REG_ECX, 15},
    {"IA32_VMX_BASIC", 0x480, 1, 0, REG_ECX, 5},
};
TEST(msrs_and_their_bits)
{
    for (volatile unsigned i = 0; i < sizeof msrs / sizeof msrs[0]; i++) {
        uint32_t r[4] = {0}, max[4];
        cpuid(0, 0, max);
        if (max[0] >= msrs[i].leaf)
            cpuid(msrs[i].leaf, msrs[i].sub, r);
        bool has = r[msrs[i].reg] >> msrs[i].bit & 1;
        struct trap t = CATCH(asm volatile(LABEL(gated_rdmsr) "rdmsr" ::"c"(msrs[i].msr)
                                           : "rax", "rdx"));
        if ((t.vector == NO_TRAP) != has)
            print("  %s:\n", msrs[i].name);
        CHECK_EQ(t.vector, has ? NO_TRAP : (word)V_GP);
    }
    uint32_t r[4];
    cpuid(0xd, 1, r);
    CHECK_EQ(CATCH(wrmsr(0xda0, 0)).vector, r[REG_EAX] & 8 ? NO_TRAP : (word)V_GP);
    /* IA32_TSC_AUX comes with RDTSCP or RDPID. */
    bool aux = cpu_has(LEAFX, REG_EDX, 27) || cpu_has(7, REG_ECX, 22);
    CHECK_EQ(CATCH((void)rdmsr(0xc0000103)).vector, aux ? NO_TRAP : (word)V_GP);
}

/* ---- CPUID itself ---------------------------------------------------------------------------- */

/* The upper halves become zero; beyond the last leaf AMD answers zeros, Intel as for the highest
 * basic leaf. It is open to CPL 3. */
asm(LABEL(user_cpuid) "cpuid; ud2");
TEST(leaves)
{
    uint32_t r[4], last[4];
    struct context c = context_user(SYMBOL(user_cpuid));
    c.rax = 0xffffffff00000000, c.rbx = c.rcx = c.rdx = ~0ull;
    c.rcx = 0xffffffff00000000;
    struct trap t = RUN(c);
    CHECK_EQ(t.vector, V_UD);
    cpuid(0, 0, r);
    CHECK_EQ(t.frame.rax, r[0]);
    CHECK_EQ(t.frame.rbx, r[1]);
    CHECK_EQ(t.frame.rcx, r[2]);
    CHECK_EQ(t.frame.rdx, r[3]);
    cpuid(r[0], 0, last);
    cpuid(0x3fffffff, 0, r);
    for (unsigned i = 0; i < 4; i++)
        CHECK_EQ(r[i], is_amd() ? 0 : last[i]);
    CHECK(physical_bits() >= 36);
    cpuid(0x80000008, 0, r);
    CHECK_EQ(r[0] >> 8 & 0xff, 48); /* no CR4.LA57 here */
    CHECK(cpu_has(1, REG_EDX, 9));  /* the local APIC is on */
}

/* AMD repeats many bits of leaf 1 in 80000001h (APM vol. 3, appendix E). */
TEST(amd_repeats_leaf_1)
{
    REQUIRE(is_amd());
    uint32_t one[4], x[4];
    const uint32_t shared = 0x0183f3ff;
    cpuid(1, 0, one);
    cpuid(0x80000001, 0, x);
    CHECK_EQ(x[REG_EDX] & shared, one[REG_EDX] & shared);
}

/* EFER's bits are those of the features. */
TEST(efer_bits)
{
    uint64_t efer = rdmsr(MSR_EFER);
    CHECK_EQ(CATCH(wrmsr(MSR_EFER, efer | EFER_NXE)).vector,
             cpu_has(LEAFX, REG_EDX, 20) ? NO_TRAP : (word)V_GP);
    CHECK_EQ(CATCH(wrmsr(MSR_EFER, efer | 1ull << 12)).vector,
             cpu_has(LEAFX, REG_ECX, 2) ? NO_TRAP : (word)V_GP); /* SVME */
    wrmsr(MSR_EFER, efer);
}

const struct test guest_tests[] = {T(levels),
                                   T(instructions_and_their_bits),
                                   T(lzcnt_and_tzcnt),
                                   T(cr4_bits),
                                   T(msrs_and_their_bits),
                                   T(leaves),
                                   T(amd_repeats_leaf_1),
                                   T(efer_bits),
                                   {0, 0}};

#endif
