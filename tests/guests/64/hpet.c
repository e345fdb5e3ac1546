/*
 * hpet.c - the high precision event timer: counter, one-shot and periodic comparators, edge and
 * level, FSB delivery, legacy replacement (IA-PC HPET specification 1.0a).
 *
 * guest options: -serial null
 */
#include "rate.h"

enum { HPET = 0xfed00000, V = 0x71 };
enum { CAPABILITIES = 0, CONF = 0x10, STATUS = 0x20, COUNTER = 0xf0 };
enum { ENABLE = 1, LEGACY = 2 };
enum {
    T_LEVEL = 2,
    T_ENABLE = 4,
    T_PERIODIC = 8,
    T_SET_VALUE = 0x40,
    T_32BIT = 0x100,
    T_FSB = 0x4000
};
enum { T_CAN_PERIODIC = 0x10, T_64BIT = 0x20, T_CAN_FSB = 0x8000 };

static volatile uint64_t *reg(unsigned offset)
{
    return (volatile uint64_t *)(uintptr_t)(HPET + offset);
}
static volatile uint64_t *timer_conf(unsigned n)
{
    return reg(0x100 + 0x20 * n);
}
static volatile uint64_t *timer_value(unsigned n)
{
    return reg(0x108 + 0x20 * n);
}
static volatile uint64_t *timer_fsb(unsigned n)
{
    return reg(0x110 + 0x20 * n);
}

static uint64_t counter(void)
{
    return *reg(COUNTER);
}

static uint64_t ticks_of_us(uint64_t us)
{
    return us * 1000000000 / (*reg(CAPABILITIES) >> 32);
}

static void wait_us(uint64_t us)
{
    for (uint64_t start = counter(); counter() - start < ticks_of_us(us);)
        asm volatile("pause");
}

/* The highest I/O APIC input that timer n can have. */
static unsigned route(unsigned n)
{
    uint32_t routes = (uint32_t)(*timer_conf(n) >> 32);
    for (unsigned i = 23; i > 0; i--)
        if (routes >> i & 1)
            return i;
    return 0;
}

static void begin(void (*ends)(struct frame *))
{
    pit_start(0, 1, 0);
    apic_quiet();
    *reg(CONF) = 0;
    for (unsigned n = 0; n < 3; n++)
        *timer_conf(n) = 0;
    *reg(STATUS) = 7;
    *reg(COUNTER) = 0;
    for (unsigned pin = 0; pin < 24; pin++)
        ioapic_entry(pin, 0, ENTRY_MASKED);
    drain();
    count_hits(0x20, 0xef, ends);
}

TEST(capabilities)
{
    begin(apic_eoi);
    uint64_t c = *reg(CAPABILITIES);
    CHECK((c & 0xff) != 0);       /* revision */
    CHECK((c >> 8 & 31) >= 2);    /* three timers at least */
    CHECK(c >> 13 & 1);           /* 64 bits */
    CHECK(c >> 15 & 1);           /* legacy replacement */
    CHECK(c >> 32 <= 0x05f5e100); /* a period of 100 ns at most (2.3.4) */
    CHECK(c >> 32 > 0);
    *reg(CAPABILITIES) = 0; /* read only */
    CHECK_EQ(*reg(CAPABILITIES), c);
    CHECK_EQ(mmio_read32(HPET), (uint32_t)c); /* by halves */
    CHECK_EQ(mmio_read32(HPET + 4), c >> 32);
    CHECK(*timer_conf(0) & T_CAN_PERIODIC); /* timer 0 must be (2.3.8) */
    for (unsigned n = 0; n < 3; n++)
        CHECK(route(n));
}

TEST(counter_stands_and_runs)
{
    begin(apic_eoi);
    CHECK_EQ(counter(), 0);
    *reg(COUNTER) = 0x123456789abcdef0;
    CHECK_EQ(counter(), 0x123456789abcdef0);
    CHECK_EQ(mmio_read32(HPET + COUNTER), 0x9abcdef0);
    CHECK_EQ(mmio_read32(HPET + COUNTER + 4), 0x12345678);
    mmio_write32(HPET + COUNTER, 0x11); /* by halves */
    CHECK_EQ(counter(), 0x1234567800000011);
    *reg(COUNTER) = 0xfffffff0;
    *reg(CONF) = ENABLE;
    uint64_t last = counter();
    for (unsigned i = 0; i < 2000; i++) {
        uint64_t now = counter();
        CHECK(now >= last);
        last = now;
    }
    wait_us(10);
    CHECK(counter() > 0xfffffff0); /* past 32 bits */
    *reg(CONF) = 0;
    uint64_t stopped = counter();
    pit_wait(100);
    CHECK_EQ(counter(), stopped);
    *reg(CONF) = ENABLE; /* goes on from there */
    CHECK(counter() >= stopped);
    CHECK(counter() - stopped < ticks_of_us(10000000));
    *reg(CONF) = 0;
}

TEST(rate_against_the_8254)
{
    begin(apic_eoi);
    *reg(CONF) = ENABLE;
    uint64_t pit = pit_rate(), rate = clock_rate(counter, UINT64_MAX, 100000000);
    uint64_t hz = 1000000000000000 / (*reg(CAPABILITIES) >> 32);
    CHECK(same_ratio(rate, pit, hz, 1193182, 2000));
    *reg(CONF) = 0;
}

TEST(one_shot)
{
    begin(apic_eoi);
    unsigned pin = route(1);
    ioapic_entry(pin, 0, V);
    *timer_conf(1) = (uint64_t)pin << 9 | T_ENABLE;
    *timer_value(1) = ticks_of_us(2000);
    *reg(CONF) = ENABLE;
    CHECK(wait_hits(V, 1));
    CHECK(counter() >= ticks_of_us(2000));
    wait_us(5000);
    let_in();
    CHECK_EQ(hits[V], 1);
    CHECK_EQ(*reg(STATUS) & 2, 0);                   /* for levels only */
    *timer_value(1) = counter() + ticks_of_us(1000); /* once more */
    CHECK(wait_hits(V, 2));
    *reg(CONF) = 0;
}

/* A comparator that is met while its timer may not interrupt does nothing later. */
TEST(disabled)
{
    begin(apic_eoi);
    unsigned pin = route(1);
    ioapic_entry(pin, 0, V);
    *timer_conf(1) = (uint64_t)pin << 9;
    *timer_value(1) = ticks_of_us(500);
    *reg(CONF) = ENABLE;
    wait_us(2000);
    *timer_conf(1) = (uint64_t)pin << 9 | T_ENABLE;
    let_in();
    CHECK_EQ(hits[V], 0);
    *reg(CONF) = 0;
}

TEST(periodic)
{
    begin(apic_eoi);
    unsigned pin = route(0);
    uint64_t period = ticks_of_us(2000);
    ioapic_entry(pin, 0, V);
    *timer_conf(0) = (uint64_t)pin << 9 | T_ENABLE | T_PERIODIC | T_SET_VALUE;
    *timer_value(0) = period; /* the first match ... */
    *timer_value(0) = period; /* ... and the period */
    CHECK_EQ(*timer_conf(0) & T_SET_VALUE, 0);
    *reg(CONF) = ENABLE;
    CHECK(wait_hits(V, 5));
    CHECK(counter() >= 5 * period);
    bool moved_on = false; /* the register is ahead of the counter, but for moments */
    for (uint64_t end = rdtsc() + FOREVER; !moved_on && rdtsc() < end;)
        moved_on = *timer_value(0) > counter();
    CHECK(moved_on);
    CHECK_EQ(*timer_value(0) % period, 0);
    CHECK(hits[V] <= counter() / period);
    *reg(CONF) = 0;
}

static void clear_status(struct frame *f)
{
    *reg(STATUS) = 4;
    apic_eoi(f);
}

TEST(level)
{
    begin(clear_status);
    unsigned pin = route(2);
    ioapic_entry(pin, 0, ENTRY_LEVEL | V);
    *timer_conf(2) = (uint64_t)pin << 9 | T_ENABLE | T_LEVEL;
    *timer_value(2) = ticks_of_us(1000);
    *reg(CONF) = ENABLE;
    for (uint64_t end = rdtsc() + FOREVER; !(*reg(STATUS) & 4) && rdtsc() < end;)
        asm volatile("pause");
    CHECK(ioapic_remote_irr(pin));
    *reg(STATUS) = 3; /* the others': nothing */
    CHECK_EQ(*reg(STATUS) & 4, 4);
    CHECK(wait_hits(V, 1));
    CHECK_EQ(*reg(STATUS), 0);
    CHECK(!ioapic_remote_irr(pin));
    let_in();
    CHECK_EQ(hits[V], 1);
    *reg(CONF) = 0;
}

/* Compares and counts in 32 bits when told so. */
TEST(comparator_of_32_bits)
{
    begin(apic_eoi);
    unsigned pin = route(1);
    ioapic_entry(pin, 0, V);
    *reg(COUNTER) = 0x5fffffff0;
    *timer_conf(1) = (uint64_t)pin << 9 | T_ENABLE | T_32BIT;
    if (!(*timer_conf(1) & T_32BIT)) {
        print("  skipped: no 32-bit mode\n");
        return;
    }
    *timer_value(1) = 0x100; /* behind the wrap of the low half */
    *reg(CONF) = ENABLE;
    CHECK(wait_hits(V, 1));
    CHECK(counter() >= 0x600000100);
    *reg(CONF) = 0;
}

TEST(fsb)
{
    begin(apic_eoi);
    if (!(*timer_conf(0) & T_CAN_FSB)) {
        print("  skipped: no FSB delivery\n");
        return;
    }
    *timer_fsb(0) = 0xfee00000ull << 32 | V;
    CHECK_EQ(*timer_fsb(0), 0xfee00000ull << 32 | V);
    *timer_conf(0) = T_ENABLE | T_FSB;
    *timer_value(0) = ticks_of_us(1000);
    *reg(CONF) = ENABLE;
    CHECK(wait_hits(V, 1));
    *reg(CONF) = 0;
}

/* Timers 0 and 1 in place of 8254 and RTC. */
TEST(legacy_replacement)
{
    begin(apic_eoi);
    ioapic_entry(2, 0, V);
    ioapic_entry(8, 0, V + 1);
    *timer_conf(0) = T_ENABLE;
    *timer_conf(1) = T_ENABLE;
    *timer_value(0) = ticks_of_us(20000);
    *timer_value(1) = ticks_of_us(30000);
    pit_start(0, 2, 1000); /* loud, but not heard: 1.2 kHz */
    *reg(CONF) = ENABLE | LEGACY;
    unsigned before = hits[V];
    let_in();
    CHECK(hits[V] <= before + 1); /* what was under way */
    CHECK(wait_hits(V + 1, 1));
    CHECK(counter() >= ticks_of_us(30000));
    CHECK(hits[V] - before >= 1 && hits[V] - before <= 2);
    *reg(CONF) = 0; /* the 8254 is back */
    before = hits[V];
    CHECK(wait_hits(V, before + 3));
    pit_start(0, 1, 0);
}

const struct test guest_tests[] = {T(capabilities),
                                   T(counter_stands_and_runs),
                                   T(rate_against_the_8254),
                                   T(one_shot),
                                   T(disabled),
                                   T(periodic),
                                   T(level),
                                   T(comparator_of_32_bits),
                                   T(fsb),
                                   T(legacy_replacement),
                                   {0, 0}};
