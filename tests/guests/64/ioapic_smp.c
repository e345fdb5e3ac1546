/*
 * ioapic_smp.c - the I/O APIC in front of several processors: whom an input reaches by physical,
 * logical and lowest-priority destination, and who ends a level (82093AA data sheet, 3.2.4; SDM
 * vol. 3, 11.6.2, 11.8.5).
 *
 * guest options: -smp 4 -serial null
 */
#include "cpus.h"

enum { V = 0x61 };

static void begin(void)
{
    serial_irq(false);
    CHECK(all_cpus_up());
    ioapic_entry(COM1_IRQ, 0, ENTRY_MASKED);
}

static void edge(void)
{
    serial_irq(false);
    serial_irq(true);
}

TEST(physical)
{
    begin();
    for (unsigned id = 0; id < 4; id++) {
        ioapic_entry(COM1_IRQ, id, V);
        edge();
        CHECK_HIT(V, 1u << id);
    }
    ioapic_entry(COM1_IRQ, 0xff, V);
    edge();
    CHECK_HIT(V, 15);
}

TEST(logical)
{
    begin();
    for (unsigned mask = 0; mask < 16; mask++) {
        ioapic_entry(COM1_IRQ, mask, ENTRY_LOGICAL | V);
        edge();
        CHECK_HIT(V, mask);
    }
}

TEST(lowest_priority)
{
    begin();
    for (unsigned quiet = 1; quiet < 4; quiet++) {
        for (unsigned id = 1; id < 4; id++) {
            tell(id, HALT, id == quiet ? 0x10 : 0x30);
            CHECK(obeyed(id));
        }
        ioapic_entry(COM1_IRQ, 0x0e, ENTRY_LOGICAL | 0x100 | V);
        edge();
        CHECK_HIT(V, 1u << quiet);
    }
}

/* A level goes to another processor: its EOI ends it, from there. */
static volatile unsigned ends;

static bool lower_and_end(struct frame *f)
{
    if (++ends >= 5)
        serial_irq(false);
    apic_write(APIC_EOI, 0);
    return true;
}

TEST(level_on_another_processor)
{
    begin();
    trap_handlers[V] = lower_and_end;
    ends = 0;
    ioapic_entry(COM1_IRQ, 2, ENTRY_LEVEL | V);
    serial_irq(true);
    for (uint64_t end = rdtsc() + FOREVER; ends < 5 && rdtsc() < end;)
        asm volatile("pause");
    settle();
    CHECK_EQ(ends, 5);
    CHECK(!ioapic_remote_irr(COM1_IRQ));
}

/* A level that one processor holds in service does not come to the next, even when the entry is
 * changed to it: one is outstanding. */
static volatile unsigned held;

static bool hold(struct frame *f)
{
    held = 1;
    while (held == 1)
        asm volatile("pause");
    apic_write(APIC_EOI, 0);
    held = 3;
    return true;
}

TEST(level_moved_while_in_service)
{
    begin();
    trap_handlers[V] = hold;
    held = 0;
    ioapic_entry(COM1_IRQ, 1, ENTRY_LEVEL | V);
    serial_irq(true);
    for (uint64_t end = rdtsc() + FOREVER; !held && rdtsc() < end;)
        asm volatile("pause");
    CHECK_EQ(held, 1);
    trap_handlers[V] = lower_and_end;
    ends = 4;
    ioapic_write(0x11 + 2 * COM1_IRQ, 2u << 24);
    CHECK(ioapic_remote_irr(COM1_IRQ));
    CHECK_EQ(ends, 4);
    held = 2; /* its EOI makes the I/O APIC send anew, to processor 2 */
    for (uint64_t end = rdtsc() + FOREVER; (ends < 5 || held != 3) && rdtsc() < end;)
        asm volatile("pause");
    settle();
    CHECK_EQ(held, 3);
    CHECK_EQ(ends, 5);
    CHECK(!ioapic_remote_irr(COM1_IRQ));
}

const struct test guest_tests[] = {T(physical),
                                   T(logical),
                                   T(lowest_priority),
                                   T(level_on_another_processor),
                                   T(level_moved_while_in_service),
                                   {0, 0}};
