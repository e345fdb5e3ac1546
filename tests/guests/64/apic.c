/*
 * apic.c - the local APIC in xAPIC mode: registers, self-made interrupts, priorities, timer in its
 * three modes, errors, spurious vector (SDM vol. 3, chapter 11).
 */
#include "machine.h"

enum { V = 0x50 };

static void begin(void (*ends)(struct frame *))
{
    apic_quiet();
    count_hits(0x30, 0xef, ends);
    count_hits(0xff, 0xff, ends);
}

static void self(unsigned vector)
{
    apic_write(APIC_ICR, 0x40000 | vector);
}

TEST(identification)
{
    uint32_t r[4];
    begin(apic_eoi);
    cpuid(1, 0, r);
    CHECK_EQ(r[3] >> 9 & 1, 1);
    CHECK_EQ(apic_read(APIC_ID) >> 24, r[1] >> 24);
    CHECK_EQ(apic_read(APIC_VERSION) & 0xf0, 0x10);
    CHECK((apic_read(APIC_VERSION) >> 16 & 0xff) >= 4);
    CHECK_EQ(rdmsr(MSR_APIC_BASE), 0xfee00900); /* there, enabled, the boot processor */
}

TEST(writable_bits)
{
    begin(apic_eoi);
    apic_write(APIC_TPR, 0xffffffff);
    CHECK_EQ(apic_read(APIC_TPR), 0xff);
    apic_write(APIC_TPR, 0);
    apic_write(APIC_LDR, 0xffffffff);
    CHECK_EQ(apic_read(APIC_LDR), 0xff000000);
    apic_write(APIC_DFR, 0);
    CHECK_EQ(apic_read(APIC_DFR), 0x0fffffff);
    apic_write(APIC_DFR, 0xffffffff);
    CHECK_EQ(apic_read(APIC_DFR), 0xffffffff);
    apic_write(APIC_ICR_HIGH, 0xffffffff);
    CHECK_EQ(apic_read(APIC_ICR_HIGH), 0xff000000);
    apic_write(APIC_LVT_ERROR, 0xffff0000 | V);
    CHECK_EQ(apic_read(APIC_LVT_ERROR), APIC_MASKED | V);
}

TEST(self_ipi)
{
    begin(apic_eoi);
    self(V);
    CHECK(apic_bit(APIC_IRR, V));
    CHECK(!apic_bit(APIC_ISR, V));
    CHECK_EQ(hits[V], 0);
    self(V); /* twice the same is once */
    let_in();
    CHECK_EQ(hits[V], 1);
    CHECK(!apic_bit(APIC_IRR, V));
    CHECK(!apic_bit(APIC_ISR, V));
    CHECK(!apic_bit(APIC_TMR, V));
    /* by physical and by logical destination, and to everybody */
    apic_write(APIC_ICR_HIGH, apic_read(APIC_ID));
    apic_write(APIC_ICR, V);
    let_in();
    CHECK_EQ(hits[V], 2);
    apic_write(APIC_LDR, 0x02000000);
    apic_write(APIC_ICR_HIGH, 0x06000000);
    apic_write(APIC_ICR, 0x800 | V);
    let_in();
    CHECK_EQ(hits[V], 3);
    apic_write(APIC_ICR_HIGH, 0x05000000);
    apic_write(APIC_ICR, 0x800 | V);
    let_in();
    CHECK_EQ(hits[V], 3);
    apic_write(APIC_ICR, 0x80000 | V);
    let_in();
    CHECK_EQ(hits[V], 4);
    apic_write(APIC_ICR, 0xc0000 | V); /* all but this one */
    let_in();
    CHECK_EQ(hits[V], 4);
    /* cluster model: bits 31-28 name the cluster */
    apic_write(APIC_DFR, 0x0fffffff);
    apic_write(APIC_LDR, 0x32000000);
    apic_write(APIC_ICR_HIGH, 0x36000000);
    apic_write(APIC_ICR, 0x800 | V);
    let_in();
    CHECK_EQ(hits[V], 5);
    apic_write(APIC_ICR_HIGH, 0x26000000);
    apic_write(APIC_ICR, 0x800 | V);
    let_in();
    CHECK_EQ(hits[V], 5);
    apic_write(APIC_DFR, 0xffffffff);
}

TEST(priority_order)
{
    static const uint8_t sent[] = {0x41, 0xe0, 0x7f, 0x70, 0x42};
    static const uint8_t want[] = {0xe0, 0x7f, 0x70, 0x42, 0x41};
    begin(apic_eoi);
    for (unsigned i = 0; i < 5; i++)
        self(sent[i]);
    let_in();
    CHECK_EQ(order_count, 5);
    for (unsigned i = 0; i < 5; i++)
        CHECK_EQ(order[i], want[i]);
}

static void no_eoi(struct frame *f) {}

/* What is in service blocks its class and those below, until EOI. */
TEST(service_blocks_its_class)
{
    begin(no_eoi);
    self(0x65);
    let_in();
    CHECK(apic_bit(APIC_ISR, 0x65));
    CHECK_EQ(apic_read(APIC_PPR), 0x60);
    self(0x6f);
    self(0x40);
    let_in();
    CHECK_EQ(hits[0x6f] + hits[0x40], 0);
    CHECK(apic_bit(APIC_IRR, 0x6f));
    self(0x70);
    let_in();
    CHECK_EQ(hits[0x70], 1);
    CHECK_EQ(apic_read(APIC_PPR), 0x70);
    apic_write(APIC_EOI, 0); /* ends the highest */
    CHECK(!apic_bit(APIC_ISR, 0x70));
    CHECK(apic_bit(APIC_ISR, 0x65));
    apic_write(APIC_EOI, 0);
    let_in();
    CHECK_EQ(hits[0x6f], 1);
    CHECK_EQ(hits[0x40], 0);
    apic_write(APIC_EOI, 0);
    let_in();
    CHECK_EQ(hits[0x40], 1);
    apic_write(APIC_EOI, 0);
    CHECK_EQ(apic_read(APIC_PPR), 0);
    apic_write(APIC_EOI, 0); /* one too many: nothing */
}

static word read_cr8(void)
{
    word v;
    asm volatile("mov %%cr8, %0" : "=r"(v));
    return v;
}
static void write_cr8(word v)
{
    asm volatile("mov %0, %%cr8" ::"r"(v) : "memory");
}

TEST(task_priority)
{
    begin(apic_eoi);
    apic_write(APIC_TPR, 0x54);
    CHECK_EQ(read_cr8(), 5);
    CHECK_EQ(apic_read(APIC_PPR), 0x54);
    self(0x5f);
    let_in();
    CHECK_EQ(hits[0x5f], 0);
    self(0x60);
    let_in();
    CHECK_EQ(hits[0x60], 1);
    write_cr8(4);
    CHECK_EQ(apic_read(APIC_TPR), 0x40);
    let_in();
    CHECK_EQ(hits[0x5f], 1);
    /* with interrupts on, lowering it is enough */
    write_cr8(15);
    self(0xef);
    INTERRUPTS_ON();
    CHECK_EQ(hits[0xef], 0);
    write_cr8(0);
    for (unsigned i = 0; i < 1000 && !hits[0xef]; i++)
        asm volatile("pause");
    INTERRUPTS_OFF();
    CHECK_EQ(hits[0xef], 1);
    struct trap t = CATCH(asm volatile(LABEL(cr8_here) "mov %0, %%cr8" ::"r"((word)16)));
    CHECK_EQ(t.vector, 13);
    CHECK_EQ(t.error, 0);
    CHECK_EQ(t.rip, SYMBOL(cr8_here));
}

TEST(nmi)
{
    begin(apic_eoi);
    count_hits(2, 2, NULL);
    apic_write(APIC_ICR_HIGH, apic_read(APIC_ID));
    apic_write(APIC_TPR, 0xff);
    apic_write(APIC_ICR, 0x4400); /* comes with IF clear and any priority */
    for (unsigned i = 0; i < 1000 && !hits[2]; i++)
        asm volatile("pause");
    CHECK_EQ(hits[2], 1);
    apic_write(APIC_ICR, 0x4400); /* IRET has ended the first one's blocking */
    for (unsigned i = 0; i < 1000 && hits[2] < 2; i++)
        asm volatile("pause");
    CHECK_EQ(hits[2], 2);
    trap_handlers[2] = 0;
}

/* ---- Errors ------------------------------------------------------------------------------------
 */

static uint32_t esr(void)
{
    apic_write(APIC_ESR, 0);
    return apic_read(APIC_ESR);
}

TEST(errors)
{
    begin(apic_eoi);
    esr();
    esr();
    CHECK_EQ(esr(), 0);
    self(3); /* illegal vector: sent, and received where it arrives */
    CHECK_EQ(esr() & 0x20, 0x20);
    CHECK_EQ(esr(), 0);
    apic_read(0x40); /* no such register */
    CHECK_EQ(esr(), 0x80);
    apic_write(APIC_LVT_ERROR, V);
    apic_write(0x40, 0);
    let_in();
    CHECK_EQ(hits[V], 1);
    CHECK_EQ(esr(), 0x80);
}

/* ---- Software disable --------------------------------------------------------------------------
 */

TEST(software_disable)
{
    begin(apic_eoi);
    apic_write(APIC_LVT_TIMER, V);
    apic_write(APIC_SVR, 0xff);
    CHECK_EQ(apic_read(APIC_LVT_TIMER), APIC_MASKED | V); /* all entries become masked ... */
    apic_write(APIC_LVT_TIMER, V);
    CHECK_EQ(apic_read(APIC_LVT_TIMER), APIC_MASKED | V); /* ... and stay it */
    self(V);
    let_in();
    CHECK_EQ(hits[V], 0);
    CHECK(!apic_bit(APIC_IRR, V));
    apic_write(APIC_SVR, 0x1ff);
    CHECK_EQ(apic_read(APIC_LVT_TIMER), APIC_MASKED | V);
    self(V);
    let_in();
    CHECK_EQ(hits[V], 1);
}

/* ---- Timer -------------------------------------------------------------------------------------
 */

TEST(timer_one_shot)
{
    begin(apic_eoi);
    apic_write(APIC_DIVIDE, 3); /* by 16 */
    apic_write(APIC_LVT_TIMER, V);
    CHECK_EQ(apic_read(APIC_CURRENT), 0);
    apic_write(APIC_INITIAL, 20000);
    CHECK_EQ(apic_read(APIC_INITIAL), 20000);
    CHECK(apic_read(APIC_CURRENT) <= 20000);
    CHECK(wait_hits(V, 1));
    CHECK_EQ(apic_read(APIC_CURRENT), 0);
    pit_wait(20000);
    let_in();
    CHECK_EQ(hits[V], 1);
    /* 0 stops it */
    apic_write(APIC_INITIAL, 0x7fffffff);
    uint32_t a = apic_read(APIC_CURRENT);
    pit_wait(1000);
    uint32_t b = apic_read(APIC_CURRENT);
    CHECK(b < a && b > 0);
    apic_write(APIC_INITIAL, 0);
    CHECK_EQ(apic_read(APIC_CURRENT), 0);
    pit_wait(1000);
    let_in();
    CHECK_EQ(hits[V], 1);
}

TEST(timer_periodic)
{
    begin(apic_eoi);
    apic_write(APIC_DIVIDE, 3);
    apic_write(APIC_LVT_TIMER, TIMER_PERIODIC | V);
    apic_write(APIC_INITIAL, 50000);
    CHECK(wait_hits(V, 5));
    CHECK(apic_read(APIC_CURRENT) > 0);
    /* masked: it runs on, but nothing comes */
    apic_write(APIC_LVT_TIMER, APIC_MASKED | TIMER_PERIODIC | V);
    let_in();
    unsigned before = hits[V];
    pit_wait(20000);
    let_in();
    CHECK_EQ(hits[V], before);
    apic_write(APIC_LVT_TIMER, TIMER_PERIODIC | V);
    CHECK(wait_hits(V, before + 2));
    apic_write(APIC_INITIAL, 0);
}

/* The divider: the count runs slower in proportion. */
static uint64_t ticks_in(unsigned divide)
{
    apic_write(APIC_DIVIDE, divide);
    apic_write(APIC_LVT_TIMER, APIC_MASKED | V);
    apic_write(APIC_INITIAL, 0xffffffff);
    uint64_t start = rdtsc();
    pit_wait(10000);
    uint32_t left = apic_read(APIC_CURRENT);
    uint64_t tsc = rdtsc() - start;
    apic_write(APIC_INITIAL, 0);
    return (uint64_t)(0xffffffff - left) * 1000000 / (tsc / 1000); /* per 10^9 TSC ticks */
}

TEST(timer_divider)
{
    begin(apic_eoi);
    uint64_t by_1 = ticks_in(0xb), by_2 = ticks_in(0), by_8 = ticks_in(2), by_128 = ticks_in(0xa);
    CHECK(by_1 > by_2 * 19 / 10 && by_1 < by_2 * 21 / 10);
    CHECK(by_1 > by_8 * 76 / 10 && by_1 < by_8 * 84 / 10);
    CHECK(by_1 > by_128 * 120 && by_1 < by_128 * 136);
}

static bool has_deadline(void)
{
    uint32_t r[4];
    cpuid(1, 0, r);
    return r[2] >> 24 & 1;
}

TEST(timer_tsc_deadline)
{
    begin(apic_eoi);
    if (!has_deadline()) {
        print("  skipped: no TSC deadline\n");
        return;
    }
    apic_write(APIC_LVT_TIMER, TIMER_DEADLINE | V);
    CHECK_EQ(rdmsr(MSR_TSC_DEADLINE), 0);
    uint64_t when = rdtsc() + 10000000;
    wrmsr(MSR_TSC_DEADLINE, when);
    CHECK(rdmsr(MSR_TSC_DEADLINE) == when || hits[V] || apic_bit(APIC_IRR, V));
    CHECK(wait_hits(V, 1));
    CHECK(rdtsc() >= when);
    CHECK_EQ(rdmsr(MSR_TSC_DEADLINE), 0); /* disarmed */
    /* past: at once */
    wrmsr(MSR_TSC_DEADLINE, 1);
    CHECK(wait_hits(V, 2));
    CHECK_EQ(rdmsr(MSR_TSC_DEADLINE), 0);
    /* 0 disarms; the counter is not used */
    wrmsr(MSR_TSC_DEADLINE, rdtsc() + 20000000);
    wrmsr(MSR_TSC_DEADLINE, 0);
    apic_write(APIC_INITIAL, 100);
    CHECK_EQ(apic_read(APIC_CURRENT), 0);
    pit_wait(30000);
    let_in();
    CHECK_EQ(hits[V], 2);
    /* leaving the mode disarms, too; outside of it writes to the MSR are ignored */
    wrmsr(MSR_TSC_DEADLINE, rdtsc() + 20000000);
    apic_write(APIC_LVT_TIMER, V);
    wrmsr(MSR_TSC_DEADLINE, rdtsc() + 1000);
    CHECK_EQ(rdmsr(MSR_TSC_DEADLINE), 0);
    pit_wait(30000);
    let_in();
    CHECK_EQ(hits[V], 2);
}

/* HLT waits for it. */
TEST(hlt_until_the_timer)
{
    begin(apic_eoi);
    apic_write(APIC_DIVIDE, 3);
    apic_write(APIC_LVT_TIMER, V);
    for (unsigned i = 1; i <= 5; i++) {
        apic_write(APIC_INITIAL, 100000);
        asm volatile("sti; hlt; cli" ::: "memory");
        CHECK_EQ(hits[V], i);
    }
}

const struct test guest_tests[] = {T(identification),
                                   T(writable_bits),
                                   T(self_ipi),
                                   T(priority_order),
                                   T(service_blocks_its_class),
                                   T(task_priority),
                                   T(nmi),
                                   T(errors),
                                   T(software_disable),
                                   T(timer_one_shot),
                                   T(timer_periodic),
                                   T(timer_divider),
                                   T(timer_tsc_deadline),
                                   T(hlt_until_the_timer),
                                   {0, 0}};
