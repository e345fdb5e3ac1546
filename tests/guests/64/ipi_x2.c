/*
 * ipi_x2.c - interprocessor interrupts between processors in x2APIC mode: 32-bit destinations,
 * logical ids, broadcasts, shorthands, INIT and SIPI through the MSR; I/O APIC interrupts to them
 * (SDM vol. 3, 11.12.9-11.12.11).
 *
 * guest options: -smp 4 -serial null
 */
#include "cpus.h"

enum { V = 0x51, EXTD = 0x400, X2_ICR = 0x830, X2_SELF = 0x83f };
enum { LOGICAL = 0x800, SELF = 0x40000, ALL = 0x80000, OTHERS = 0xc0000, NMI = 0x400 };

static volatile unsigned ready, leave;

static unsigned x2_id(void)
{
    return (unsigned)rdmsr(0x802);
}

static bool x2_hit(struct frame *f)
{
    __atomic_add_fetch(&hits_on[x2_id()][f->vector], 1, __ATOMIC_SEQ_CST);
    if (f->vector != NMI_VECTOR)
        wrmsr(0x80b, 0);
    return true;
}

static void x2_serve(unsigned id)
{
    wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | EXTD);
    wrmsr(0x80f, 0x1ff);
    __atomic_add_fetch(&ready, 1, __ATOMIC_SEQ_CST);
    while (!leave)
        asm volatile("sti; hlt; cli" ::: "memory");
}

static bool has_x2apic(void)
{
    uint32_t r[4];
    cpuid(1, 0, r);
    return r[2] >> 21 & 1;
}

/* This processor and all others into x2APIC mode. */
static bool begin(void)
{
    if (!has_x2apic()) {
        print("  skipped: no x2APIC\n");
        return false;
    }
    apic_quiet();
    ready = leave = 0;
    for (unsigned v = 0x30; v < 0xf0; v++)
        trap_handlers[v] = x2_hit;
    trap_handlers[NMI_VECTOR] = x2_hit;
    memset((void *)hits_on, 0, sizeof(hits_on));
    for (unsigned id = 1; id < cpu_count(); id++)
        CHECK(start_cpu(id, x2_serve));
    for (uint64_t end = rdtsc() + FOREVER; ready < cpu_count() - 1 && rdtsc() < end;)
        asm volatile("pause");
    CHECK_EQ(ready, cpu_count() - 1);
    wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | EXTD);
    return true;
}

static void end(void)
{
    wrmsr(MSR_APIC_BASE, 0xfee00100);
    wrmsr(MSR_APIC_BASE, 0xfee00900);
    apic_quiet();
}

static void x2_send(uint32_t dest, uint32_t low)
{
    wrmsr(X2_ICR, (uint64_t)dest << 32 | low);
}

/* Who got it: those in `mask`, once; the marker is sent to all behind it and outranked by it. */
static void check_hit(unsigned vector, unsigned mask)
{
    unsigned got = 0;
    x2_send(0xffffffff, 0x31);
    for (unsigned id = 0; id < cpu_count(); id++) {
        for (uint64_t end = rdtsc() + FOREVER; !hits_on[id][0x31] && rdtsc() < end;)
            if (id == 0)
                let_in();
        CHECK_EQ(hits_on[id][0x31], 1);
        CHECK(hits_on[id][vector] <= 1);
        got |= (hits_on[id][vector] != 0) << id;
        hits_on[id][0x31] = hits_on[id][vector] = 0;
    }
    CHECK_EQ(got, mask);
}

TEST(physical)
{
    if (!begin())
        return;
    for (unsigned id = 0; id < 4; id++) {
        x2_send(id, V);
        check_hit(V, 1u << id);
    }
    x2_send(4, V); /* nobody, and not modulo anything */
    check_hit(V, 0);
    x2_send(0x101, V);
    check_hit(V, 0);
    x2_send(0xff, V); /* no broadcast here */
    check_hit(V, 0);
    x2_send(0xffffffff, V);
    check_hit(V, 15);
    end();
}

/* Logical ids are given: cluster in the upper half, one bit in the lower. */
TEST(logical)
{
    if (!begin())
        return;
    for (unsigned mask = 0; mask < 16; mask++) {
        x2_send(mask, LOGICAL | V);
        check_hit(V, mask);
    }
    x2_send(0x1000f, LOGICAL | V); /* another cluster */
    check_hit(V, 0);
    x2_send(0xffffffff, LOGICAL | V);
    check_hit(V, 15);
    end();
}

TEST(shorthands)
{
    if (!begin())
        return;
    x2_send(2, SELF | V);
    check_hit(V, 1);
    x2_send(2, ALL | V);
    check_hit(V, 15);
    x2_send(2, OTHERS | V);
    check_hit(V, 14);
    wrmsr(X2_SELF, V);
    check_hit(V, 1);
    x2_send(2, OTHERS | NMI);
    check_hit(NMI_VECTOR, 14);
    end();
}

TEST(from_the_ioapic)
{
    if (!begin())
        return;
    for (unsigned id = 0; id < 4; id++) {
        serial_irq(false);
        ioapic_entry(COM1_IRQ, id, V);
        serial_irq(true);
        check_hit(V, 1u << id);
        serial_irq(false);
        ioapic_entry(COM1_IRQ, 1u << id, ENTRY_LOGICAL | V);
        serial_irq(true);
        check_hit(V, 1u << id);
    }
    serial_irq(false);
    ioapic_entry(COM1_IRQ, 0, ENTRY_MASKED);
    end();
}

/* A level ends by an EOI through the MSR, from another processor. */
static volatile unsigned levels;

static bool lower_and_end(struct frame *f)
{
    if (++levels == 3)
        serial_irq(false);
    wrmsr(0x80b, 0);
    return true;
}

TEST(level_from_the_ioapic)
{
    if (!begin())
        return;
    levels = 0;
    trap_handlers[V] = lower_and_end;
    ioapic_entry(COM1_IRQ, 2, ENTRY_LEVEL | V);
    serial_irq(true);
    for (uint64_t end = rdtsc() + FOREVER; levels < 3 && rdtsc() < end;)
        asm volatile("pause");
    check_hit(V + 1, 0);
    CHECK_EQ(levels, 3);
    CHECK(!ioapic_remote_irr(COM1_IRQ));
    end();
}

/* The register page is not there in this mode. */
TEST(no_page)
{
    if (!begin())
        return;
    wrmsr(0x808, 0x20);
    mmio_write32(0xfee00080, 0x50);
    CHECK_EQ(rdmsr(0x808), 0x20);
    wrmsr(0x808, 0);
    end();
}

/* INIT and SIPI by the MSR; INIT leaves the receiver in x2APIC mode (11.12.5.1). */
static volatile uint64_t seen_base;

static void look(unsigned id)
{
    seen_base = rdmsr(MSR_APIC_BASE);
}

static void wait_done(unsigned before)
{
    for (uint64_t end = rdtsc() + FOREVER; cpus_done == before && rdtsc() < end;)
        asm volatile("pause");
    CHECK(cpus_done != before);
}

TEST(init_and_sipi)
{
    if (!begin())
        return;
    end();
    unsigned before = cpus_done;
    CHECK(start_cpu(1, look)); /* puts the trampoline in place */
    wait_done(before);
    CHECK_EQ(seen_base, 0xfee00800 | EXTD);
    wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | EXTD);
    before = cpus_done;
    seen_base = 0;
    x2_send(1, 0x4500);
    x2_send(1, 0x4608);
    wait_done(before);
    CHECK_EQ(seen_base, 0xfee00800 | EXTD);
    end();
}

const struct test guest_tests[] = {
    T(physical), T(logical),       T(shorthands), T(from_the_ioapic), T(level_from_the_ioapic),
    T(no_page),  T(init_and_sipi), {0, 0}};
