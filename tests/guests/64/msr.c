/*
 * msr.c - model-specific registers: reserved bits, read-only and unknown ones, the time-stamp
 * counter with its companions, performance counters (SDM vol. 3, 17.17, 11.11, 11.12; vol. 4).
 */
#include "context.h"
#include "paging.h"

enum { MSR_TSC = 0x10, MSR_TSC_ADJUST = 0x3b, CR4_TSD = 1 << 2, CR4_PCE = 1 << 8 };
#define MSR_TSC_AUX   0xc0000103u
#define NON_CANONICAL 0x800000000000ull

static struct trap try_rdmsr(uint32_t msr)
{
    return CATCH(asm volatile(LABEL(do_rdmsr) "rdmsr" ::"c"(msr), "a"(7), "d"(9)));
}
static struct trap try_wrmsr(uint32_t msr, uint64_t v)
{
    return CATCH(asm volatile(LABEL(do_wrmsr) "wrmsr" ::"c"(msr), "a"((uint32_t)v),
                              "d"((uint32_t)(v >> 32))));
}
#define CHECK_REFUSED(msr, v)                                                                      \
    do {                                                                                           \
        uint64_t before_ = rdmsr(msr);                                                             \
        struct trap r_ = try_wrmsr(msr, v);                                                        \
        CHECK_TRAP(r_, V_GP, 0, SYMBOL(do_wrmsr));                                                 \
        CHECK_EQ(rdmsr(msr), before_);                                                             \
    } while (0)
#define CHECK_TAKEN(msr, v)                                                                        \
    do {                                                                                           \
        uint64_t before_ = rdmsr(msr);                                                             \
        CHECK_NO_TRAP(try_wrmsr(msr, v));                                                          \
        CHECK_EQ(rdmsr(msr), v);                                                                   \
        wrmsr(msr, before_);                                                                       \
    } while (0)

/* ---- Unknown and read-only ------------------------------------------------------------------- */

TEST(unknown)
{
    static const uint32_t unknown[] = {0x2,        0x5ff,      0x1fffffff, 0x40000000, 0x9999,
                                       0xc0000fff, 0xffffffff, 0x80000000, 0xdeadbeef};
    for (volatile unsigned i = 0; i < sizeof unknown / sizeof unknown[0]; i++) {
        struct trap t = try_rdmsr(unknown[i]);
        CHECK_TRAP(t, V_GP, 0, SYMBOL(do_rdmsr));
        CHECK_EQ(t.frame.rax, 7);
        CHECK_EQ(t.frame.rdx, 9);
        CHECK_TRAP(try_wrmsr(unknown[i], 0), V_GP, 0, SYMBOL(do_wrmsr));
    }
}

/* ECX alone names the register, and the result's upper halves are zero. */
TEST(operands)
{
    word rax, rdx;
    wrmsr(0xc0000102, 0x123456789abc);
    asm volatile("rdmsr" : "=a"(rax), "=d"(rdx) : "c"(0xffffffffc0000102), "0"(~0ull), "1"(~0ull));
    CHECK_EQ(rax, 0x56789abc);
    CHECK_EQ(rdx, 0x1234);
    asm volatile("wrmsr" ::"c"(0xabcdc0000102), "a"(0xffffffff00000011), "d"(0xffffffff00000022));
    CHECK_EQ(rdmsr(0xc0000102), 0x2200000011);
    wrmsr(0xc0000102, 0);
}

TEST(read_only)
{
    CHECK_TRAP(try_wrmsr(0xfe, 0), V_GP, 0, SYMBOL(do_wrmsr)); /* IA32_MTRRCAP */
}

/* ---- Reserved bits --------------------------------------------------------------------------- */

TEST(addresses_must_be_canonical)
{
    static const uint32_t msrs[] = {0x175,      0x176,      0xc0000082, 0xc0000083,
                                    0xc0000100, 0xc0000101, 0xc0000102};
    for (volatile unsigned i = 0; i < sizeof msrs / sizeof msrs[0]; i++) {
        CHECK_REFUSED(msrs[i], NON_CANONICAL);
        CHECK_REFUSED(msrs[i], 0x1ull << 63);
        CHECK_TAKEN(msrs[i], ~0ull << 47);
        CHECK_TAKEN(msrs[i], NON_CANONICAL - 1);
    }
}

/* Page attributes and memory types: 2, 3 and beyond 7 are none; UC- is one of the PAT's only. */
TEST(memory_types)
{
    CHECK_TAKEN(0x277, 0x0007040600070406);
    CHECK_TAKEN(0x277, 0x0706050401000000);
    CHECK_REFUSED(0x277, 2);
    CHECK_REFUSED(0x277, 3ull << 56);
    CHECK_REFUSED(0x277, 8ull << 8);
    REQUIRE(cpu_has(1, REG_EDX, 12));
    CHECK_TAKEN(0x2ff, 0xc06);
    CHECK_REFUSED(0x2ff, 0x1006);
    CHECK_REFUSED(0x2ff, 0xc02);
    CHECK_REFUSED(0x2ff, 0xc07);
    CHECK_TAKEN(0x250, 0x0606060606060606);
    CHECK_REFUSED(0x250, 0x0606060606060306);
    CHECK_TAKEN(0x200, 0x80000006);
    CHECK_REFUSED(0x200, 0x80000003);
    CHECK_REFUSED(0x200, 1ull << physical_bits());
    CHECK_REFUSED(0x201, 1ull << physical_bits() | 0x800);
}

TEST(reserved_bits)
{
    uint64_t base = rdmsr(0x1b);
    CHECK_REFUSED(0x1b, base | 1); /* IA32_APIC_BASE */
    CHECK_REFUSED(0x1b, base | 1ull << physical_bits());
    CHECK_REFUSED(0x1b, (base | 1 << 10) & ~0x800ull); /* x2APIC without the APIC */
    CHECK_REFUSED(0xc0000080, rdmsr(0xc0000080) | 2);
    CHECK_REFUSED(0xc0000080, rdmsr(0xc0000080) | 1ull << 63);
    CHECK_TAKEN(0xc0000081, ~0ull); /* IA32_STAR has none */
    CHECK_TAKEN(0xc0000084, 0xffffffff);
    if (cpu_has(1, REG_ECX, 26)) {
        uint32_t r[4];
        cpuid(0xd, 1, r);
        if (r[0] & 8) {
            CHECK_TAKEN(0xda0, 0);
            CHECK_REFUSED(0xda0, 1ull << 62);
            CHECK_REFUSED(0xda0, 1); /* x87 is the user's */
        }
    }
}

/* LMA is not to be written, LME not while paging is on. */
TEST(efer)
{
    uint64_t efer = rdmsr(0xc0000080);
    CHECK_REFUSED(0xc0000080, efer & ~0x100ull);
    CHECK_EQ(efer & 0x500, 0x500);
}

/* ---- The time-stamp counter ------------------------------------------------------------------ */

TEST(tsc_counts_and_can_be_written)
{
    uint64_t a = rdtsc(), b = rdtsc();
    CHECK(b > a);
    CHECK(rdmsr(MSR_TSC) >= b);
    uint64_t saved = rdtsc();
    wrmsr(MSR_TSC, 1ull << 62);
    a = rdtsc();
    CHECK(a >= 1ull << 62 && a < (1ull << 62) + 60000000000);
    wrmsr(MSR_TSC, saved);
}

/* Whatever moves the one moves the other (17.17.3). */
TEST(tsc_adjust)
{
    REQUIRE(cpu_has(7, REG_EBX, 1));
    const uint64_t step = 1ull << 50;
    uint64_t adjust = rdmsr(MSR_TSC_ADJUST), before = rdtsc(), after;
    wrmsr(MSR_TSC_ADJUST, adjust + step);
    after = rdtsc();
    CHECK(after - before >= step && after - before < step + 60000000000);
    CHECK_EQ(rdmsr(MSR_TSC_ADJUST), adjust + step);
    before = rdtsc();
    wrmsr(MSR_TSC, before - step);
    uint64_t moved = rdmsr(MSR_TSC_ADJUST) - adjust; /* back, less the time since RDTSC */
    CHECK((int64_t)moved <= 0 && (int64_t)moved > -60000000000);
    wrmsr(MSR_TSC_ADJUST, adjust);
}

TEST(tsc_aux)
{
    REQUIRE(cpu_has(0x80000001, REG_EDX, 27));
    word rax = ~0ull, rdx = ~0ull, rcx = ~0ull;
    CHECK_REFUSED(MSR_TSC_AUX, 1ull << 32);
    wrmsr(MSR_TSC_AUX, 0x89abcdef);
    asm volatile("rdtscp" : "+a"(rax), "+d"(rdx), "+c"(rcx));
    CHECK_EQ(rcx, 0x89abcdef);
    CHECK_EQ(rax >> 32 | rdx >> 32, 0);
    if (cpu_has(7, REG_ECX, 22)) {
        rcx = ~0ull;
        asm volatile(".byte 0xf3, 0x0f, 0xc7, 0xf9" : "+c"(rcx)); /* RDPID RCX */
        CHECK_EQ(rcx, 0x89abcdef);
    }
    wrmsr(MSR_TSC_AUX, 0);
}

/* CR4.TSD closes RDTSC and RDTSCP to CPL 3. */
asm(LABEL(user_rdtsc) "rdtsc\n" LABEL(user_rdtscp) "rdtscp\n" LABEL(user_rdtsc_end) "ud2");
TEST(tsd)
{
    REQUIRE(cpu_has(0x80000001, REG_EDX, 27));
    struct context c = context_user(SYMBOL(user_rdtsc));
    CHECK_TRAP(RUN(c), V_UD, 0, SYMBOL(user_rdtsc_end));
    write_cr4(read_cr4() | CR4_TSD);
    c.rax = 0x5555;
    struct trap t = RUN(c);
    CHECK_TRAP(t, V_GP, 0, SYMBOL(user_rdtsc));
    CHECK_EQ(t.frame.rax, 0x5555);
    c.rip = SYMBOL(user_rdtscp);
    CHECK_TRAP(RUN(c), V_GP, 0, SYMBOL(user_rdtscp));
    CHECK_NO_TRAP(CATCH((void)rdtsc())); /* CPL 0 is not concerned */
    write_cr4(read_cr4() & ~(word)CR4_TSD);
}

/* ---- Performance counters -------------------------------------------------------------------- */

asm(LABEL(user_rdpmc) "rdpmc");
TEST(rdpmc)
{
    struct context c = context_user(SYMBOL(user_rdpmc));
    write_cr4(read_cr4() & ~(word)CR4_PCE);
    CHECK_TRAP(RUN(c), V_GP, 0, SYMBOL(user_rdpmc)); /* whatever the counter */
    write_cr4(read_cr4() | CR4_PCE);
    c.rcx = 0x3fffffff; /* no such counter */
    CHECK_TRAP(RUN(c), V_GP, 0, SYMBOL(user_rdpmc));
    struct trap t = CATCH(asm volatile(LABEL(bad_rdpmc) "rdpmc" ::"c"(0x3fffffff) : "rax", "rdx"));
    CHECK_TRAP(t, V_GP, 0, SYMBOL(bad_rdpmc));
    write_cr4(read_cr4() & ~(word)CR4_PCE);
}

const struct test guest_tests[] = {
    T(unknown),      T(operands),      T(read_only), T(addresses_must_be_canonical),
    T(memory_types), T(reserved_bits), T(efer),      T(tsc_counts_and_can_be_written),
    T(tsc_adjust),   T(tsc_aux),       T(tsd),       T(rdpmc),
    {0, 0}};
