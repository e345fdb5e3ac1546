/*
 * test_lapic.c - local APICs: acceptance and priorities, EOI, IPIs in every destination form, the
 * three timer modes, mode changes of IA32_APIC_BASE, x2APIC's reserved bits, LINT pins and ExtINT.
 */
#include "bench.h"

enum { CPUS = 4 };
enum { ID = 0x20, VERSION = 0x30, TPR = 0x80, PPR = 0xa0, EOI = 0xb0, LDR = 0xd0, DFR = 0xe0 };
enum { SVR = 0xf0, ISR = 0x100, TMR = 0x180, IRR = 0x200, ESR = 0x280, ICR = 0x300 };
enum {
    ICR_HIGH = 0x310,
    LVT_TIMER = 0x320,
    LVT_LINT0 = 0x350,
    LVT_LINT1 = 0x360,
    LVT_ERROR = 0x370
};
enum { INITIAL = 0x380, CURRENT = 0x390, DIVIDE = 0x3e0 };
enum { MASKED = 1 << 16 };

static struct pic *pic;
static struct apic_bus *bus;
static struct fake_cpu cpu[CPUS];
static struct lapic *lapic[CPUS];
static struct lapic_port port[CPUS];

static void setup(void)
{
    struct board *board = bench_setup();
    memset(cpu, 0, sizeof(cpu));
    bench_access.vcpu = 0;
    pic = pic_new(board);
    bus = apic_bus_new(board, pic, NULL);
    for (unsigned i = 0; i < CPUS; i++) {
        struct lapic_config config = fake_cpu_config(&cpu[i], i);
        lapic[i] = lapic_new(bus, &config);
        port[i] = lapic_port(lapic[i]);
    }
    pic_connect(pic, lapic_lint(lapic[0], 0));
}

static void teardown(void)
{
    for (unsigned i = 0; i < CPUS; i++)
        bench_destroy(lapic[i]);
    apic_bus_free(bus);
    bench_destroy(pic);
}

static uint32_t rd(unsigned n, uint32_t reg)
{
    bench_access.vcpu = (uint16_t)n;
    return mmio_read(APIC_DEFAULT_BASE + reg);
}

static void wr(unsigned n, uint32_t reg, uint32_t value)
{
    bench_access.vcpu = (uint16_t)n;
    mmio_write(APIC_DEFAULT_BASE + reg, value);
}

static void enable_all(void)
{
    for (unsigned i = 0; i < CPUS; i++)
        wr(i, SVR, 0x1ff);
}

static void self_ipi(unsigned n, uint8_t vector)
{
    wr(n, ICR, 0x40000u | vector);
}

static int ack(unsigned n)
{
    return port[n].acknowledge(port[n].lapic);
}

static bool interrupted(unsigned n)
{
    return fake_cpu_interrupted(&cpu[n]);
}

static bool wrmsr(unsigned n, uint32_t msr, uint64_t value)
{
    return port[n].write_msr(port[n].lapic, msr, value);
}

static bool rdmsr(unsigned n, uint32_t msr, uint64_t *value)
{
    return port[n].read_msr(port[n].lapic, msr, value);
}

static bool to_x2apic(unsigned n)
{
    return port[n].write_base(port[n].lapic, port[n].read_base(port[n].lapic) | 0xc00);
}

static bool irr(unsigned n, uint8_t vector)
{
    return rd(n, IRR + vector / 32 * 16) >> vector % 32 & 1;
}

START_TEST(power_on_state)
{
    setup();
    ck_assert_uint_eq(port[0].read_base(port[0].lapic), 0xfee00900);
    ck_assert_uint_eq(port[1].read_base(port[1].lapic), 0xfee00800);
    ck_assert_uint_eq(rd(1, ID), 1u << 24);
    ck_assert_uint_eq(rd(1, SVR), 0xff);
    ck_assert_uint_eq(rd(1, DFR), UINT32_MAX);
    ck_assert_uint_eq(rd(1, LVT_LINT0), MASKED);
    ck_assert_uint_eq(rd(0, LVT_LINT0), 0x700); /* virtual wire on the boot processor */
    ck_assert_uint_eq(rd(1, VERSION) & 0xff00ff, 0x050014);
    wr(1, SVR, 0xff); /* software disabled: entries stay masked */
    wr(1, LVT_TIMER, 0x40);
    ck_assert_uint_eq(rd(1, LVT_TIMER), MASKED | 0x40);
    teardown();
}
END_TEST

START_TEST(priorities_and_eoi)
{
    setup();
    enable_all();
    self_ipi(0, 0x51);
    self_ipi(0, 0x62);
    ck_assert(interrupted(0));
    ck_assert(irr(0, 0x51));
    ck_assert_int_eq(ack(0), 0x62);
    ck_assert(!interrupted(0)); /* 51h is of a lower class */
    ck_assert_uint_eq(rd(0, PPR), 0x60);
    self_ipi(0, 0x6f); /* the same class waits too */
    ck_assert(!interrupted(0));
    ck_assert_int_eq(ack(0), -1);
    self_ipi(0, 0x70);
    ck_assert_int_eq(ack(0), 0x70);
    wr(0, EOI, 0);
    ck_assert(!interrupted(0));
    wr(0, EOI, 0);
    ck_assert_int_eq(ack(0), 0x6f);
    wr(0, EOI, 0);
    ck_assert_int_eq(ack(0), 0x51);
    ck_assert_uint_eq(rd(0, ISR + 0x20), 1u << 0x11);
    wr(0, EOI, 0);
    ck_assert_uint_eq(rd(0, ISR + 0x20), 0);
    wr(0, EOI, 0); /* nothing in service */
    ck_assert(!interrupted(0));
    teardown();
}
END_TEST

START_TEST(task_priority_and_cr8)
{
    setup();
    enable_all();
    port[0].write_cr8(port[0].lapic, 5);
    ck_assert_uint_eq(rd(0, TPR), 0x50);
    self_ipi(0, 0x5f);
    ck_assert(!interrupted(0));
    wr(0, TPR, 0x4f);
    ck_assert_uint_eq(port[0].read_cr8(port[0].lapic), 4);
    ck_assert_uint_eq(rd(0, PPR), 0x4f);
    ck_assert(interrupted(0));
    wr(0, TPR, 0x50); /* withdrawn before the CPU came for it */
    ck_assert(!interrupted(0));
    ck_assert_int_eq(ack(0), -1);
    teardown();
}
END_TEST

START_TEST(ipi_physical_and_shorthands)
{
    setup();
    enable_all();
    wr(0, ICR_HIGH, 2u << 24);
    wr(0, ICR, 0x4041);
    ck_assert(!interrupted(0) && !interrupted(1) && interrupted(2) && !interrupted(3));
    ck_assert_uint_eq(rd(0, ICR), 0x4041); /* idle at once */
    ck_assert_int_eq(ack(2), 0x41);
    wr(1, ICR, 0xc4042); /* all but self */
    ck_assert(interrupted(0) && !interrupted(1) && !interrupted(2) && interrupted(3));
    ck_assert(irr(2, 0x42)); /* blocked by 41h in service */
    wr(1, ICR, 0x84043);     /* all */
    ck_assert(irr(1, 0x43) && irr(0, 0x43) && irr(3, 0x43));
    wr(1, ICR_HIGH, 0xffu << 24); /* physical broadcast */
    wr(1, ICR, 0x4044);
    ck_assert(irr(0, 0x44) && irr(1, 0x44) && irr(2, 0x44) && irr(3, 0x44));
    wr(2, SVR, 0xff); /* software disabled: takes no fixed interrupts */
    wr(1, ICR, 0x4045);
    ck_assert(irr(0, 0x45) && !irr(2, 0x45));
    teardown();
}
END_TEST

START_TEST(ipi_logical)
{
    setup();
    enable_all();
    for (unsigned i = 0; i < CPUS; i++)
        wr(i, LDR, 1u << (24 + i));
    wr(0, ICR_HIGH, 0x0au << 24); /* flat: 1 and 3 */
    wr(0, ICR, 0x4850);
    ck_assert(!irr(0, 0x50) && irr(1, 0x50) && !irr(2, 0x50) && irr(3, 0x50));
    for (unsigned i = 0; i < CPUS; i++) { /* clusters: 0 and 1 in cluster 1, 2 and 3 in cluster 2 */
        wr(i, DFR, 0);
        wr(i, LDR, (0x10u << (i / 2) | 1u << i % 2) << 24);
    }
    ck_assert_uint_eq(rd(0, DFR), 0x0fffffff);
    wr(0, ICR_HIGH, 0x23u << 24);
    wr(0, ICR, 0x4851);
    ck_assert(!irr(0, 0x51) && !irr(1, 0x51) && irr(2, 0x51) && irr(3, 0x51));
    wr(0, ICR_HIGH, 0x12u << 24);
    wr(0, ICR, 0x4852);
    ck_assert(!irr(0, 0x52) && irr(1, 0x52) && !irr(2, 0x52) && !irr(3, 0x52));
    teardown();
}
END_TEST

START_TEST(lowest_priority_goes_to_the_least_busy)
{
    setup();
    enable_all();
    wr(0, TPR, 0x30);
    wr(1, TPR, 0x10);
    wr(2, TPR, 0x20);
    wr(3, SVR, 0xff); /* out of the arbitration though its TPR is 0 */
    wr(0, ICR_HIGH, 0xffu << 24);
    wr(0, ICR, 0x4160);
    ck_assert(!irr(0, 0x60) && irr(1, 0x60) && !irr(2, 0x60) && !irr(3, 0x60));
    ck_assert_int_eq(ack(1), 0x60); /* now it is busy with class 6 */
    wr(0, ICR, 0x4161);
    ck_assert(irr(2, 0x61) && !irr(1, 0x61));
    teardown();
}
END_TEST

START_TEST(nmi_init_sipi_smi)
{
    setup(); /* works on software-disabled APICs */
    wr(0, ICR_HIGH, 1u << 24);
    wr(0, ICR, 0x4500);
    wr(0, ICR, 0x8500); /* INIT level de-assert: nothing */
    ck_assert_uint_eq(cpu[1].inits, 1);
    wr(0, ICR, 0x4699);
    ck_assert_uint_eq(cpu[1].sipis, 1);
    ck_assert_uint_eq(cpu[1].sipi_vector, 0x99);
    cpu[1].requests |= CPU_REQ_SIPI;
    wr(0, ICR, 0x4500); /* a SIPI that the CPU has not seen yet is not for after this INIT */
    ck_assert_uint_eq(cpu[1].requests & (CPU_REQ_SIPI | CPU_REQ_INIT), CPU_REQ_INIT);
    wr(0, ICR, 0x4400);
    ck_assert_uint_eq(cpu[1].nmis, 1);
    wr(0, ICR, 0x4200);
    ck_assert_uint_eq(cpu[1].smis, 1);
    wr(0, ICR, 0xc4500);
    ck_assert_uint_eq(cpu[0].inits, 0);
    ck_assert_uint_eq(cpu[1].inits, 3);
    ck_assert_uint_eq(cpu[3].inits, 1);
    wr(0, ICR, 0x84500); /* INIT to all including self is not valid */
    ck_assert_uint_eq(cpu[0].inits + cpu[3].inits, 1);
    teardown();
}
END_TEST

START_TEST(illegal_vectors_are_errors)
{
    setup();
    enable_all();
    wr(0, LVT_ERROR, 0xfe);
    self_ipi(0, 0x0f);
    ck_assert(irr(0, 0xfe));
    ck_assert_uint_eq(rd(0, ESR), 0); /* shown only after a write */
    wr(0, ESR, 0);
    ck_assert_uint_eq(rd(0, ESR), 1u << 5);
    wr(0, ESR, 0);
    ck_assert_uint_eq(rd(0, ESR), 0);
    struct msi_port msi = apic_bus_msi(bus);
    msi.send(msi.opaque, 0xfee00000, 0x05);
    rd(0, 0x40); /* a reserved register */
    wr(0, ESR, 0);
    ck_assert_uint_eq(rd(0, ESR), 1u << 6 | 1u << 7);
    wr(0, LVT_ERROR, 0x03); /* the error interrupt itself illegal: ends */
    self_ipi(0, 0x0f);
    wr(0, ESR, 0);
    ck_assert_uint_eq(rd(0, ESR), 1u << 5 | 1u << 6);
    teardown();
}
END_TEST

START_TEST(timer_one_shot)
{
    setup();
    enable_all();
    wr(0, LVT_TIMER, 0x30);
    wr(0, DIVIDE, 0x3); /* by 16 */
    wr(0, INITIAL, 1000);
    bench_advance(8000);
    ck_assert_uint_eq(rd(0, CURRENT), 500);
    bench_advance(7999);
    ck_assert(!interrupted(0));
    bench_advance(1);
    ck_assert(interrupted(0));
    ck_assert_uint_eq(rd(0, CURRENT), 0);
    ck_assert_int_eq(ack(0), 0x30);
    wr(0, EOI, 0);
    bench_advance(1000000);
    ck_assert(!interrupted(0));
    /* masked: counts, but does not interrupt; a divider change goes on from the present count */
    wr(0, LVT_TIMER, MASKED | 0x30);
    wr(0, INITIAL, 1000);
    bench_advance(1600);
    wr(0, DIVIDE, 0xb); /* by 1 */
    ck_assert_uint_eq(rd(0, CURRENT), 900);
    bench_advance(400);
    ck_assert_uint_eq(rd(0, CURRENT), 500);
    bench_advance(500);
    ck_assert(!interrupted(0));
    wr(0, LVT_TIMER, 0x30);
    wr(0, INITIAL, 1000);
    wr(0, INITIAL, 0); /* stops it */
    ck_assert_uint_eq(bench_advance(5000), 0);
    ck_assert(!interrupted(0));
    teardown();
}
END_TEST

START_TEST(timer_periodic_keeps_its_grid)
{
    setup();
    enable_all();
    wr(0, DIVIDE, 0xb);
    wr(0, LVT_TIMER, 0x20030);
    wr(0, INITIAL, 1000003);
    for (uint64_t i = 1; i <= 5; i++) {
        bench_advance(i * 1000003 - 1 - bench.now);
        ck_assert(!interrupted(0));
        ck_assert_uint_eq(rd(0, CURRENT), 1);
        bench_advance(1);
        ck_assert_int_eq(ack(0), 0x30);
        wr(0, EOI, 0);
        ck_assert_uint_eq(rd(0, CURRENT), 1000003);
    }
    /* a guest that asks for a storm gets 10 us */
    wr(0, INITIAL, 1);
    unsigned fired = bench_advance(1000000);
    ck_assert_uint_ge(fired, 90);
    ck_assert_uint_le(fired, 110);
    teardown();
}
END_TEST

START_TEST(timer_tsc_deadline)
{
    setup();
    enable_all();
    uint64_t value;
    ck_assert(wrmsr(0, 0x6e0, 9000)); /* not in deadline mode: ignored */
    ck_assert(rdmsr(0, 0x6e0, &value));
    ck_assert_uint_eq(value, 0);
    wr(0, LVT_TIMER, 0x40030);
    uint64_t deadline = bench.now + 4000;
    ck_assert(wrmsr(0, 0x6e0, deadline));
    wr(0, INITIAL, 77);
    ck_assert_uint_eq(rd(0, CURRENT), 0);
    bench_advance(3999);
    ck_assert(!interrupted(0));
    ck_assert(rdmsr(0, 0x6e0, &value));
    ck_assert_uint_eq(value, deadline);
    bench_advance(1);
    ck_assert_int_eq(ack(0), 0x30);
    wr(0, EOI, 0);
    ck_assert(rdmsr(0, 0x6e0, &value));
    ck_assert_uint_eq(value, 0);
    ck_assert(wrmsr(0, 0x6e0, 1)); /* long past: at once */
    ck_assert_int_eq(ack(0), 0x30);
    wr(0, EOI, 0);
    ck_assert(wrmsr(0, 0x6e0, UINT64_MAX)); /* never, without overflow */
    bench_advance(1000000);
    ck_assert(!interrupted(0));
    ck_assert(wrmsr(0, 0x6e0, bench.now + 9000));
    wr(0, LVT_TIMER, 0x30); /* leaving the mode disarms */
    bench_advance(100000);
    ck_assert(!interrupted(0));
    teardown();
}
END_TEST

static bool took(unsigned n)
{
    if (ack(n) != 0x30)
        return false;
    wr(n, EOI, 0);
    return true;
}

/* The I/O thread may be late. What is due has happened before the guest looks or changes it. */
START_TEST(late_timer_is_not_lost)
{
    setup();
    enable_all();
    uint64_t value;
    wr(0, DIVIDE, 0xb);
    wr(0, LVT_TIMER, 0x30);
    wr(0, INITIAL, 1000);
    bench_be_late(1000);
    ck_assert_uint_eq(rd(0, CURRENT), 0);
    ck_assert(interrupted(0) && irr(0, 0x30));
    ck_assert(took(0));
    wr(0, INITIAL, 1000);
    bench_be_late(1000);
    wr(0, LVT_TIMER, MASKED | 0x30);
    ck_assert(took(0));
    wr(0, LVT_TIMER, 0x30);
    wr(0, INITIAL, 1000);
    bench_be_late(1000);
    wr(0, INITIAL, 0);
    ck_assert(took(0));
    ck_assert_uint_eq(bench_advance(1000000), 0); /* once */
    wr(0, LVT_TIMER, 0x20030);
    wr(0, INITIAL, 20000);
    bench_be_late(20000);
    wr(0, DIVIDE, 0xb);
    ck_assert(took(0));
    bench_advance(19999);
    ck_assert(!interrupted(0));
    bench_advance(1);
    ck_assert(took(0));
    bench_be_late(20000);
    wr(0, SVR, 0xff); /* masks it */
    ck_assert(irr(0, 0x30));
    ck_assert(took(0));
    wr(0, SVR, 0x1ff);
    wr(0, LVT_TIMER, 0x40030);
    ck_assert(wrmsr(0, 0x6e0, bench.now + 1000));
    bench_be_late(1000);
    ck_assert(rdmsr(0, 0x6e0, &value));
    ck_assert_uint_eq(value, 0);
    ck_assert(took(0));
    ck_assert(wrmsr(0, 0x6e0, bench.now + 1000));
    bench_be_late(1000);
    ck_assert(wrmsr(0, 0x6e0, 0));
    ck_assert(took(0));
    teardown();
}
END_TEST

START_TEST(base_transitions)
{
    setup();
    const struct lapic_port *p = &port[0];
    uint64_t off = 0xfee00100, x1 = 0xfee00900, x2 = 0xfee00d00, bad = 0xfee00500;
    ck_assert(!p->write_base(p->lapic, bad));
    ck_assert(!p->write_base(p->lapic, x1 | 1));
    ck_assert(!p->write_base(p->lapic, x1 | 1ull << 40));
    ck_assert(p->write_base(p->lapic, x2));
    ck_assert(!p->write_base(p->lapic, x1)); /* x2APIC to xAPIC */
    ck_assert_uint_eq(p->read_base(p->lapic), x2);
    ck_assert_uint_eq(rd(0, VERSION), UINT32_MAX); /* the page is gone */
    ck_assert(p->write_base(p->lapic, off));
    ck_assert(!p->write_base(p->lapic, x2)); /* off to x2APIC */
    ck_assert(p->write_base(p->lapic, x1));
    ck_assert_uint_eq(rd(0, SVR), 0xff);
    ck_assert(p->write_base(p->lapic, x2));
    p->cpu_reset(p->lapic, true); /* INIT keeps the mode */
    ck_assert_uint_eq(p->read_base(p->lapic), x2);
    p->cpu_reset(p->lapic, false);
    ck_assert_uint_eq(p->read_base(p->lapic), x1);
    teardown();
}
END_TEST

START_TEST(x2apic_registers)
{
    setup();
    uint64_t v;
    ck_assert(!rdmsr(3, 0x802, &v)); /* not in xAPIC mode */
    ck_assert(to_x2apic(3));
    ck_assert(rdmsr(3, 0x802, &v));
    ck_assert_uint_eq(v, 3);
    ck_assert(rdmsr(3, 0x80d, &v));
    ck_assert_uint_eq(v, 8);
    ck_assert(!wrmsr(3, 0x80d, 1)); /* read only here */
    ck_assert(!rdmsr(3, 0x80e, &v) && !rdmsr(3, 0x831, &v) && !rdmsr(3, 0x80b, &v));
    ck_assert(!rdmsr(3, 0x83f, &v) && !rdmsr(3, 0x8ff, &v));
    ck_assert(!wrmsr(3, 0x802, 3) && !wrmsr(3, 0x803, 0) && !wrmsr(3, 0x839, 0));
    ck_assert(!wrmsr(3, 0x80b, 1) && wrmsr(3, 0x80b, 0));
    ck_assert(!wrmsr(3, 0x828, 1) && wrmsr(3, 0x828, 0));
    ck_assert(!wrmsr(3, 0x808, 0x100) && wrmsr(3, 0x808, 0xff) && wrmsr(3, 0x808, 0));
    ck_assert(!wrmsr(3, 0x808, 1ull << 32));
    ck_assert(wrmsr(3, 0x80f, 0x1ff) && !wrmsr(3, 0x80f, 0x3ff));
    ck_assert(wrmsr(3, 0x832, 0x20031) && !wrmsr(3, 0x832, 0x80000) && !wrmsr(3, 0x832, 0x100));
    ck_assert(!wrmsr(3, 0x83e, 4) && wrmsr(3, 0x83e, 0xb));
    ck_assert(!wrmsr(3, 0x830, 1ull << 20 | 0x40) && !wrmsr(3, 0x830, 1 << 13 | 0x40));
    ck_assert(wrmsr(3, 0x83f, 0x71)); /* self IPI */
    ck_assert(!wrmsr(3, 0x83f, 0x171));
    ck_assert_int_eq(ack(3), 0x71);
    ck_assert(rdmsr(3, 0x813, &v));
    ck_assert_uint_eq(v, 1u << 0x11);
    teardown();
}
END_TEST

START_TEST(x2apic_destinations)
{
    setup();
    enable_all();
    for (unsigned i = 0; i < CPUS; i++)
        ck_assert(to_x2apic(i));
    ck_assert(wrmsr(0, 0x830, 2ull << 32 | 0x40));
    ck_assert(!interrupted(1) && interrupted(2) && !interrupted(3));
    ck_assert_int_eq(ack(2), 0x40);
    ck_assert(wrmsr(0, 0x830, 0xaull << 32 | 0x841)); /* logical: cluster 0, 1 and 3 */
    ck_assert(!interrupted(0) && interrupted(1) && !interrupted(2) && interrupted(3));
    ck_assert(wrmsr(0, 0x830, 0x1000aull << 32 | 0x8f0)); /* cluster 1: nobody */
    ck_assert_int_eq(ack(1), 0x41);
    ck_assert_int_eq(ack(3), 0x41);
    ck_assert(
        wrmsr(0, 0x830, 0xffull << 32 | 0x8e0)); /* FFh is no broadcast: bits 0-3 of cluster 0 */
    ck_assert_int_eq(ack(3), 0xe0);
    ck_assert(wrmsr(0, 0x830, 0xffull << 32 | 0xe8)); /* physical id FFh: nobody */
    ck_assert_int_eq(ack(3), -1);
    ck_assert(wrmsr(0, 0x830, 0xffffffffull << 32 | 0xf1));
    for (unsigned i = 0; i < CPUS; i++)
        ck_assert_int_eq(ack(i), 0xf1);
    teardown();
}
END_TEST

START_TEST(msi_reaches_its_cpu)
{
    setup();
    enable_all();
    struct msi_port msi = apic_bus_msi(bus);
    msi.send(msi.opaque, 0xfee01000, 0x91);
    ck_assert(interrupted(1) && !interrupted(0));
    wr(2, LDR, 4u << 24);
    msi.send(msi.opaque, 0xfee0400c, 0x192); /* logical, redirection hint, lowest priority */
    ck_assert(interrupted(2));
    msi.send(msi.opaque, 0xfee01000, 0x4600); /* SIPI cannot come this way */
    ck_assert_uint_eq(cpu[1].sipis, 0);
    msi.send(msi.opaque, 0xfee03000, 0x400);
    ck_assert_uint_eq(cpu[3].nmis, 1);
    msi.send(msi.opaque, 0x1000, 0x93); /* not the window */
    ck_assert(!interrupted(0));
    bench_access.initiator = INITIATOR_DMA; /* the same by a device's own write */
    mmio_write(0xfee00000, 0x94);
    bench_access.initiator = INITIATOR_VCPU_KERNEL;
    ck_assert_int_eq(ack(0), 0x94);
    teardown();
}
END_TEST

static void pic_raise(unsigned irq)
{
    struct irq_line line = pic_line(pic, irq);
    irq_set(&line, true);
    irq_set(&line, false);
}

START_TEST(extint_through_lint0)
{
    setup();
    out8(0x20, 0x11), out8(0x21, 0x20), out8(0x21, 0x04), out8(0x21, 0x01);
    pic_raise(3);
    ck_assert(interrupted(0) && !interrupted(1)); /* virtual wire, APIC still software disabled */
    ck_assert_int_eq(ack(0), 0x23);
    ck_assert(!interrupted(0));
    out8(0x20, 0x20);
    wr(0, SVR, 0x1ff);
    wr(0, LVT_LINT0, MASKED | 0x700);
    pic_raise(4);
    ck_assert(!interrupted(0));
    wr(0, LVT_LINT0, 0x700);
    ck_assert(interrupted(0));
    self_ipi(0, 0x80);
    wr(0, TPR, 0xf0); /* ExtINT has no priority */
    ck_assert_int_eq(ack(0), 0x24);
    out8(0x20, 0x20);
    ck_assert(!interrupted(0));
    wr(0, TPR, 0);
    ck_assert_int_eq(ack(0), 0x80);
    pic_raise(6); /* a reset CPU forgets its requests; the APIC says again what is up */
    cpu[0].requests = 0;
    port[0].cpu_reset(port[0].lapic, false);
    ck_assert_int_eq(interrupted(0), true);
    ck_assert_int_eq(ack(0), 0x26);
    out8(0x20, 0x20);
    /* globally disabled: LINT0 is INTR, LINT1 NMI */
    ck_assert(port[0].write_base(port[0].lapic, 0xfee00100));
    pic_raise(5);
    ck_assert_int_eq(ack(0), 0x25);
    struct irq_line nmi = lapic_lint(lapic[0], 1);
    irq_set(&nmi, true);
    irq_set(&nmi, true);
    ck_assert_uint_eq(cpu[0].nmis, 1);
    teardown();
}
END_TEST

START_TEST(lint_pins)
{
    setup();
    enable_all();
    struct irq_line lint0 = lapic_lint(lapic[1], 0), lint1 = lapic_lint(lapic[1], 1);
    wr(1, LVT_LINT1, 0x400);
    irq_set(&lint1, true);
    ck_assert_uint_eq(cpu[1].nmis, 1);
    wr(1, LVT_LINT0, 0x8055); /* fixed, level */
    irq_set(&lint0, true);
    ck_assert_uint_eq(rd(1, LVT_LINT0), 0xc055); /* remote IRR */
    ck_assert_int_eq(ack(1), 0x55);
    ck_assert_uint_eq(rd(1, TMR + 0x20), 1u << 0x15);
    wr(1, EOI, 0);
    ck_assert_int_eq(ack(1), 0x55); /* still high */
    irq_set(&lint0, false);
    wr(1, EOI, 0);
    ck_assert(!interrupted(1));
    ck_assert_uint_eq(rd(1, LVT_LINT0), 0x8055);
    wr(1, LVT_LINT0, 0x56); /* edge */
    irq_set(&lint0, true);
    ck_assert_int_eq(ack(1), 0x56);
    wr(1, EOI, 0);
    ck_assert(!interrupted(1));
    teardown();
}
END_TEST

START_TEST(pages_are_private_and_narrow_accesses_harmless)
{
    setup();
    wr(2, TPR, 0x20);
    ck_assert_uint_eq(rd(1, TPR), 0);
    ck_assert_uint_eq(rd(2, TPR), 0x20);
    struct bench_claim *c = bench_find(bench.mmio, APIC_DEFAULT_BASE);
    bench_access.vcpu = 2;
    ck_assert_uint_eq(c->ops->read(c->opaque, &bench_access, ID + 3, 1), 2);
    c->ops->write(c->opaque, &bench_access, TPR, 1, 0x77);
    c->ops->write(c->opaque, &bench_access, TPR + 4, 4, 0x77);
    ck_assert_uint_eq(rd(2, TPR), 0x20);
    bench_access.vcpu = 200;
    ck_assert_uint_eq(mmio_read(APIC_DEFAULT_BASE + ID), UINT32_MAX);
    teardown();
}
END_TEST

BENCH_MAIN("lapic", power_on_state, priorities_and_eoi, task_priority_and_cr8,
           ipi_physical_and_shorthands, ipi_logical, lowest_priority_goes_to_the_least_busy,
           nmi_init_sipi_smi, illegal_vectors_are_errors, timer_one_shot,
           timer_periodic_keeps_its_grid, timer_tsc_deadline, late_timer_is_not_lost,
           base_transitions, x2apic_registers, x2apic_destinations, msi_reaches_its_cpu,
           extint_through_lint0, lint_pins, pages_are_private_and_narrow_accesses_harmless)
