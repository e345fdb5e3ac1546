/*
 * apic_x2.c - x2APIC mode: transitions, MSRs, what they refuse, self-IPI (SDM vol. 3, 11.12).
 */
#include "machine.h"

enum { V = 0x50 };
#define X2(reg) (0x800u + ((reg) >> 4))
enum { X2_SELF_IPI = 0x83f, EN = 0x800, EXTD = 0x400 };

static bool has_x2apic(void)
{
    uint32_t r[4];
    cpuid(1, 0, r);
    return r[2] >> 21 & 1;
}
#define NEED_X2APIC()                                                                              \
    do {                                                                                           \
        if (!has_x2apic()) {                                                                       \
            print("  skipped: no x2APIC\n");                                                       \
            return;                                                                                \
        }                                                                                          \
    } while (0)

static struct trap __attribute__((noinline, noclone)) try_wrmsr(uint32_t msr, uint64_t v)
{
    return CATCH(asm volatile(LABEL(wrmsr_here) "wrmsr" ::"c"(msr), "a"((uint32_t)v),
                              "d"((uint32_t)(v >> 32))));
}
static struct trap __attribute__((noinline, noclone)) try_rdmsr(uint32_t msr)
{
    return CATCH(asm volatile(LABEL(rdmsr_here) "rdmsr" ::"c"(msr) : "rax", "rdx"));
}
#define REFUSED(t, at)                                                                             \
    do {                                                                                           \
        struct trap t_ = (t);                                                                      \
        CHECK_EQ(t_.vector, 13);                                                                   \
        CHECK_EQ(t_.error, 0);                                                                     \
        CHECK_EQ(t_.rip, at);                                                                      \
    } while (0)
#define WRITE_REFUSED(msr, v) REFUSED(try_wrmsr(msr, v), SYMBOL(wrmsr_here))
#define READ_REFUSED(msr)     REFUSED(try_rdmsr(msr), SYMBOL(rdmsr_here))
#define ALLOWED(t)            CHECK_EQ((t).vector, NO_TRAP)

static void x2_eoi(struct frame *f)
{
    wrmsr(X2(APIC_EOI), 0);
}

static uint64_t base;

static void begin(void)
{
    apic_quiet();
    base = rdmsr(MSR_APIC_BASE);
    wrmsr(MSR_APIC_BASE, base | EXTD);
    count_hits(0x30, 0xef, x2_eoi);
}

static void end(void)
{
    wrmsr(MSR_APIC_BASE, base & ~(uint64_t)(EN | EXTD));
    wrmsr(MSR_APIC_BASE, base);
    apic_quiet();
}

TEST(transitions)
{
    NEED_X2APIC();
    uint32_t r[4];
    base = rdmsr(MSR_APIC_BASE);
    CHECK_EQ(base & (EN | EXTD), EN);
    WRITE_REFUSED(MSR_APIC_BASE, (base & ~(uint64_t)EN) | EXTD); /* EXTD without EN */
    wrmsr(MSR_APIC_BASE, base | EXTD);
    CHECK_EQ(rdmsr(MSR_APIC_BASE), base | EXTD);
    WRITE_REFUSED(MSR_APIC_BASE, base); /* back to xAPIC only by way of off */
    WRITE_REFUSED(MSR_APIC_BASE, (base & ~(uint64_t)EN) | EXTD);
    wrmsr(MSR_APIC_BASE, base & ~(uint64_t)(EN | EXTD));
    cpuid(1, 0, r);
    CHECK_EQ(r[3] >> 9 & 1, 0);                /* no APIC now */
    WRITE_REFUSED(MSR_APIC_BASE, base | EXTD); /* off to x2APIC */
    wrmsr(MSR_APIC_BASE, base);
    cpuid(1, 0, r);
    CHECK_EQ(r[3] >> 9 & 1, 1);
    WRITE_REFUSED(MSR_APIC_BASE, base | 1); /* reserved bits */
    WRITE_REFUSED(MSR_APIC_BASE, base | 1ull << 63);
}

TEST(no_msrs_outside_the_mode)
{
    apic_quiet();
    for (uint32_t msr = 0x800; msr < 0x840; msr++) {
        READ_REFUSED(msr);
        WRITE_REFUSED(msr, 0);
    }
}

TEST(which_registers_exist)
{
    NEED_X2APIC();
    begin();
    for (uint32_t reg = 0; reg < 0x400; reg += 0x10) {
        bool readable = reg == APIC_ID || reg == APIC_VERSION || reg == APIC_TPR ||
                        reg == APIC_PPR || reg == APIC_LDR || reg == APIC_SVR ||
                        (reg >= APIC_ISR && reg <= APIC_ESR) || reg == APIC_ICR ||
                        (reg >= APIC_LVT_TIMER && reg <= APIC_CURRENT) || reg == APIC_DIVIDE;
        struct trap t = try_rdmsr(X2(reg));
        CHECK_EQ(t.vector, readable ? NO_TRAP : 13);
        if (readable && reg != APIC_ICR)
            CHECK_EQ(rdmsr(X2(reg)) >> 32, 0);
    }
    for (uint32_t msr = 0x840; msr < 0x900; msr++)
        READ_REFUSED(msr);
    /* read-only ones */
    WRITE_REFUSED(X2(APIC_ID), 0);
    WRITE_REFUSED(X2(APIC_VERSION), 0);
    WRITE_REFUSED(X2(APIC_LDR), 0);
    WRITE_REFUSED(X2(APIC_PPR), 0);
    WRITE_REFUSED(X2(APIC_ISR), 0);
    WRITE_REFUSED(X2(APIC_CURRENT), 0);
    WRITE_REFUSED(X2(APIC_DFR), 0xffffffff);
    WRITE_REFUSED(X2(APIC_ICR_HIGH), 0);
    end();
}

TEST(reserved_bits)
{
    NEED_X2APIC();
    begin();
    WRITE_REFUSED(X2(APIC_EOI), 1);
    ALLOWED(try_wrmsr(X2(APIC_EOI), 0));
    WRITE_REFUSED(X2(APIC_ESR), 1);
    WRITE_REFUSED(X2(APIC_TPR), 0x100);
    WRITE_REFUSED(X2(APIC_TPR), 1ull << 32);
    WRITE_REFUSED(X2(APIC_SVR), 1 << 31 | 0x1ff);
    WRITE_REFUSED(X2(APIC_ICR), 1 << 20);
    WRITE_REFUSED(X2(APIC_LVT_TIMER), 1 << 19);
    WRITE_REFUSED(X2(APIC_DIVIDE), 1 << 4);
    WRITE_REFUSED(X2(APIC_INITIAL), 1ull << 32);
    WRITE_REFUSED(X2_SELF_IPI, 0x100 | V);
    end();
}

TEST(identification)
{
    NEED_X2APIC();
    begin();
    uint32_t id = (uint32_t)rdmsr(X2(APIC_ID)), r[4];
    cpuid(1, 0, r);
    CHECK_EQ(id, r[1] >> 24);
    CHECK_EQ(rdmsr(X2(APIC_LDR)), (id >> 4) << 16 | 1u << (id & 15));
    cpuid(0xb, 0, r);
    CHECK_EQ(r[3], id);
    end();
}

TEST(interrupts)
{
    NEED_X2APIC();
    begin();
    wrmsr(X2_SELF_IPI, V);
    CHECK_EQ(rdmsr(X2(APIC_IRR) + V / 32) >> V % 32 & 1, 1);
    let_in();
    CHECK_EQ(hits[V], 1);
    CHECK_EQ(rdmsr(X2(APIC_ISR) + V / 32), 0);
    READ_REFUSED(X2_SELF_IPI);
    uint64_t id = rdmsr(X2(APIC_ID));
    wrmsr(X2(APIC_ICR), id << 32 | V);
    CHECK_EQ(rdmsr(X2(APIC_ICR)), id << 32 | V);
    let_in();
    CHECK_EQ(hits[V], 2);
    wrmsr(X2(APIC_ICR), rdmsr(X2(APIC_LDR)) << 32 | 0x800 | V);
    let_in();
    CHECK_EQ(hits[V], 3);
    wrmsr(X2(APIC_ICR), 0xffffffffull << 32 | V); /* everybody */
    let_in();
    CHECK_EQ(hits[V], 4);
    wrmsr(X2(APIC_ICR), 0x40000 | V);
    let_in();
    CHECK_EQ(hits[V], 5);
    wrmsr(X2(APIC_ICR), (id + 1) << 32 | V); /* nobody */
    let_in();
    CHECK_EQ(hits[V], 5);
    wrmsr(X2(APIC_TPR), 0x50);
    wrmsr(X2_SELF_IPI, V);
    let_in();
    CHECK_EQ(hits[V], 5);
    asm volatile("mov %0, %%cr8" ::"r"((word)4));
    CHECK_EQ(rdmsr(X2(APIC_TPR)), 0x40);
    let_in();
    CHECK_EQ(hits[V], 6);
    end();
}

TEST(timer)
{
    NEED_X2APIC();
    begin();
    wrmsr(X2(APIC_DIVIDE), 3);
    wrmsr(X2(APIC_LVT_TIMER), V);
    wrmsr(X2(APIC_INITIAL), 20000);
    CHECK(wait_hits(V, 1));
    CHECK_EQ(rdmsr(X2(APIC_CURRENT)), 0);
    end();
}

/* Turning the APIC off and on resets it. */
TEST(off_and_on_resets)
{
    NEED_X2APIC();
    begin();
    wrmsr(X2(APIC_TPR), 0x70);
    wrmsr(X2(APIC_LVT_TIMER), V);
    wrmsr(MSR_APIC_BASE, base & ~(uint64_t)(EN | EXTD));
    wrmsr(MSR_APIC_BASE, base);
    CHECK_EQ(apic_read(APIC_TPR), 0);
    CHECK_EQ(apic_read(APIC_SVR), 0xff);
    CHECK_EQ(apic_read(APIC_LVT_TIMER), APIC_MASKED);
    apic_quiet();
    /* what the mode change keeps */
    apic_write(APIC_TPR, 0x30);
    wrmsr(MSR_APIC_BASE, base | EXTD);
    CHECK_EQ(rdmsr(X2(APIC_TPR)), 0x30);
    CHECK_EQ(rdmsr(X2(APIC_SVR)), 0x1ff);
    end();
}

const struct test guest_tests[] = {
    T(transitions),   T(no_msrs_outside_the_mode), T(which_registers_exist),
    T(reserved_bits), T(identification),           T(interrupts),
    T(timer),         T(off_and_on_resets),        {0, 0}};
