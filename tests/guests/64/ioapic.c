/*
 * ioapic.c - the I/O APIC on one processor: registers, edge and level, remote IRR, masks,
 * destination modes, ExtINT against the 8259A pair, the EOI that lets a raised line come again
 * (82093AA data sheet, 3.2; SDM vol. 3, 11.8.4 and 11.8.5).
 *
 * guest options: -serial null
 */
#include "machine.h"

enum { V = 0x61, TIMER_PIN = 2, POLARITY_LOW = 1 << 13 };

static void begin(void (*ends)(struct frame *))
{
    pit_start(0, 1, 0); /* counter 0 waits for a trigger that never comes: its output stays high */
    serial_irq(false);
    apic_quiet();
    apic_write(APIC_DFR, 0xffffffff);
    apic_write(APIC_LDR, 0);
    outb(0x4d0, 0);
    for (unsigned pin = 0; pin < 24; pin++)
        ioapic_entry(pin, 0, ENTRY_MASKED);
    count_hits(0x20, 0x2f, ends);
    count_hits(0x30, 0xef, ends);
}

static void no_eoi(struct frame *f) {}

/* An edge on ISA interrupt 0, soon. */
static void raise_timer(void)
{
    pit_start(0, 0, 1);
}

TEST(registers)
{
    begin(apic_eoi);
    CHECK_EQ(ioapic_read(1) & 0xff, 0x20);
    CHECK_EQ(ioapic_read(1) >> 16 & 0xff, 23); /* 24 entries */
    uint32_t id = ioapic_read(0);
    ioapic_write(0, 0xffffffff);
    CHECK_EQ(ioapic_read(0), 0x0f000000);
    ioapic_write(0, 0x05000000);
    CHECK_EQ(ioapic_read(0), 0x05000000);
    CHECK_EQ(ioapic_read(2) & 0x0f000000, 0x05000000); /* arbitration: loaded with the id */
    ioapic_write(0, id);
    ioapic_write(1, 0); /* read only */
    CHECK_EQ(ioapic_read(1) >> 16 & 0xff, 23);
    mmio_write32(IOAPIC_PAGE, 0x1f);
    CHECK_EQ(mmio_read32(IOAPIC_PAGE), 0x1f);
    for (unsigned pin = 0; pin < 24; pin++) {
        ioapic_write(0x10 + 2 * pin, 0xffffffff);
        ioapic_write(0x11 + 2 * pin, 0xffffffff);
        /* delivery status and remote IRR are read only */
        CHECK_EQ(ioapic_read(0x10 + 2 * pin), 0x1afff);
        CHECK_EQ(ioapic_read(0x11 + 2 * pin) & 0xff000000, 0xff000000);
        ioapic_entry(pin, 0, ENTRY_MASKED);
        CHECK_EQ(ioapic_read(0x10 + 2 * pin), ENTRY_MASKED);
    }
}

TEST(edge)
{
    begin(apic_eoi);
    ioapic_entry(COM1_IRQ, 0, V);
    serial_irq(true);
    CHECK(apic_bit(APIC_IRR, V));
    CHECK(!apic_bit(APIC_TMR, V));
    CHECK(!ioapic_remote_irr(COM1_IRQ));
    let_in();
    CHECK_EQ(hits[V], 1); /* the line is still up */
    let_in();
    CHECK_EQ(hits[V], 1);
    serial_irq(false);
    let_in();
    CHECK_EQ(hits[V], 1);
    serial_irq(true);
    let_in();
    CHECK_EQ(hits[V], 2);
}

/* "If the mask bit is set, edge-sensitive interrupts are not delivered or held pending" (3.2.4). */
TEST(edge_while_masked_is_lost)
{
    begin(apic_eoi);
    ioapic_entry(COM1_IRQ, 0, ENTRY_MASKED | V);
    serial_irq(true);
    let_in();
    CHECK_EQ(hits[V], 0);
    ioapic_write(0x10 + 2 * COM1_IRQ, V);
    let_in();
    CHECK_EQ(hits[V], 0);
    serial_irq(false);
    serial_irq(true);
    let_in();
    CHECK_EQ(hits[V], 1);
}

TEST(level)
{
    begin(no_eoi);
    ioapic_entry(COM1_IRQ, 0, ENTRY_LEVEL | V);
    serial_irq(true);
    CHECK(apic_bit(APIC_IRR, V));
    CHECK(apic_bit(APIC_TMR, V));
    CHECK(ioapic_remote_irr(COM1_IRQ));
    let_in();
    CHECK_EQ(hits[V], 1);
    CHECK(ioapic_remote_irr(COM1_IRQ)); /* until EOI */
    serial_irq(false);
    serial_irq(true); /* while it is in service: nothing new */
    CHECK(!apic_bit(APIC_IRR, V));
    apic_write(APIC_EOI, 0); /* the line is up: at once again */
    CHECK(apic_bit(APIC_IRR, V));
    CHECK(ioapic_remote_irr(COM1_IRQ));
    let_in();
    CHECK_EQ(hits[V], 2);
    serial_irq(false);
    apic_write(APIC_EOI, 0);
    CHECK(!apic_bit(APIC_IRR, V));
    CHECK(!ioapic_remote_irr(COM1_IRQ));
    let_in();
    CHECK_EQ(hits[V], 2);
    /* the trigger mode register follows the last interrupt of the vector */
    ioapic_entry(COM1_IRQ, 0, V);
    serial_irq(true);
    CHECK(!apic_bit(APIC_TMR, V));
    let_in();
    apic_write(APIC_EOI, 0);
}

TEST(level_while_masked_waits)
{
    begin(apic_eoi);
    ioapic_entry(COM1_IRQ, 0, ENTRY_LEVEL | ENTRY_MASKED | V);
    serial_irq(true);
    let_in();
    CHECK_EQ(hits[V], 0);
    CHECK(!ioapic_remote_irr(COM1_IRQ));
    serial_irq(false);
    ioapic_write(0x10 + 2 * COM1_IRQ, ENTRY_LEVEL | V); /* gone: nothing */
    let_in();
    CHECK_EQ(hits[V], 0);
    ioapic_write(0x10 + 2 * COM1_IRQ, ENTRY_LEVEL | ENTRY_MASKED | V);
    serial_irq(true);
    ioapic_write(0x10 + 2 * COM1_IRQ, ENTRY_LEVEL | V); /* up: now */
    CHECK(apic_bit(APIC_IRR, V));
    serial_irq(false);
    let_in();
    CHECK_EQ(hits[V], 1);
    CHECK(!ioapic_remote_irr(COM1_IRQ));
}

/* Between interrupt and EOI the entry is masked, as operating systems do: EOI ends it, but only the
 * unmasking brings the next. */
TEST(level_masked_in_service)
{
    begin(no_eoi);
    ioapic_entry(COM1_IRQ, 0, ENTRY_LEVEL | V);
    serial_irq(true);
    let_in();
    ioapic_write(0x10 + 2 * COM1_IRQ, ENTRY_LEVEL | ENTRY_MASKED | V);
    apic_write(APIC_EOI, 0);
    CHECK(!ioapic_remote_irr(COM1_IRQ));
    let_in();
    CHECK_EQ(hits[V], 1);
    ioapic_write(0x10 + 2 * COM1_IRQ, ENTRY_LEVEL | V);
    CHECK(ioapic_remote_irr(COM1_IRQ));
    let_in();
    CHECK_EQ(hits[V], 2);
    serial_irq(false);
    apic_write(APIC_EOI, 0);
    CHECK(!ioapic_remote_irr(COM1_IRQ));
}

static void third_time_lowers(struct frame *f)
{
    if (hits[V] == 3)
        serial_irq(false);
    apic_eoi(f);
}

TEST(level_comes_again_after_each_eoi)
{
    begin(third_time_lowers);
    ioapic_entry(COM1_IRQ, 0, ENTRY_LEVEL | V);
    serial_irq(true);
    let_in();
    CHECK_EQ(hits[V], 3);
    CHECK(!ioapic_remote_irr(COM1_IRQ));
}

/* SVR bit 12, where it exists, keeps EOIs from the I/O APIC; then its EOI register ends them. */
TEST(eoi_register)
{
    begin(no_eoi);
    if (!(apic_read(APIC_VERSION) >> 24 & 1)) {
        print("  skipped: EOI broadcasts cannot be suppressed here\n");
        return;
    }
    apic_write(APIC_SVR, 0x11ff);
    ioapic_entry(COM1_IRQ, 0, ENTRY_LEVEL | V);
    serial_irq(true);
    let_in();
    apic_write(APIC_EOI, 0);
    CHECK(ioapic_remote_irr(COM1_IRQ));
    mmio_write32(IOAPIC_PAGE + 0x40, V + 1); /* another's vector */
    CHECK(ioapic_remote_irr(COM1_IRQ));
    serial_irq(false);
    mmio_write32(IOAPIC_PAGE + 0x40, V);
    CHECK(!ioapic_remote_irr(COM1_IRQ));
    apic_write(APIC_SVR, 0x1ff);
}

/* How systems get rid of a stuck remote IRR: edge triggered and back. */
TEST(changing_to_edge_clears_remote_irr)
{
    begin(no_eoi);
    ioapic_entry(COM1_IRQ, 0, ENTRY_LEVEL | V);
    serial_irq(true);
    let_in();
    CHECK(ioapic_remote_irr(COM1_IRQ));
    serial_irq(false);
    ioapic_write(0x10 + 2 * COM1_IRQ, ENTRY_MASKED | V);
    ioapic_write(0x10 + 2 * COM1_IRQ, ENTRY_MASKED | ENTRY_LEVEL | V);
    CHECK(!ioapic_remote_irr(COM1_IRQ));
    apic_write(APIC_EOI, 0);
}

TEST(destinations)
{
    begin(apic_eoi);
    unsigned id = apic_read(APIC_ID) >> 24, want = 0;
    const struct {
        unsigned dest;
        uint32_t mode;
        bool comes;
    } cases[] = {
        {id, 0, true},
        {id + 1, 0, false},
        {0xff, 0, true},          /* physical broadcast */
        {4, ENTRY_LOGICAL, true}, /* the flat model: LDR 04h */
        {0x0e, ENTRY_LOGICAL, true},
        {0xfb, ENTRY_LOGICAL, false},
        {0xff, ENTRY_LOGICAL, true},
        {0, ENTRY_LOGICAL, false},
        {4, ENTRY_LOGICAL | 0x100, true}, /* lowest priority */
        {0xff, ENTRY_LOGICAL | 0x100, true},
        {0xfb, ENTRY_LOGICAL | 0x100, false},
    };
    apic_write(APIC_LDR, 4u << 24);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        serial_irq(false);
        ioapic_entry(COM1_IRQ, cases[i].dest, cases[i].mode | V);
        serial_irq(true);
        let_in();
        want += cases[i].comes;
        CHECK_EQ(hits[V], want);
    }
    /* the cluster model: cluster 3, member 2 */
    serial_irq(false);
    apic_write(APIC_DFR, 0x0fffffff);
    apic_write(APIC_LDR, 0x32000000);
    ioapic_entry(COM1_IRQ, 0x26, ENTRY_LOGICAL | V);
    serial_irq(true);
    let_in();
    CHECK_EQ(hits[V], want);
    serial_irq(false);
    ioapic_entry(COM1_IRQ, 0x36, ENTRY_LOGICAL | V);
    serial_irq(true);
    let_in();
    CHECK_EQ(hits[V], want + 1);
}

/* A level that nobody takes is not outstanding: remote IRR is "set when local APIC(s) accept". */
TEST(level_to_nobody)
{
    begin(third_time_lowers);
    ioapic_entry(COM1_IRQ, 0x5e, ENTRY_LEVEL | V);
    serial_irq(true);
    let_in();
    CHECK_EQ(hits[V], 0);
    CHECK(!ioapic_remote_irr(COM1_IRQ));
    ioapic_entry(COM1_IRQ, 0, ENTRY_LEVEL | V);
    let_in();
    CHECK_EQ(hits[V], 3);
}

/* Polarity names the electrical sense of a line that here has none: asserted is asserted. */
TEST(polarity_is_kept)
{
    begin(apic_eoi);
    ioapic_entry(COM1_IRQ, 0, POLARITY_LOW | V);
    CHECK_EQ(ioapic_read(0x10 + 2 * COM1_IRQ), POLARITY_LOW | V);
    let_in();
    CHECK_EQ(hits[V], 0);
    serial_irq(true);
    let_in();
    CHECK_EQ(hits[V], 1);
}

TEST(nmi)
{
    begin(apic_eoi);
    count_hits(2, 2, NULL);
    ioapic_entry(COM1_IRQ, 0, 0x400);
    serial_irq(true);
    for (unsigned i = 0; i < 1000 && !hits[2]; i++)
        asm volatile("pause");
    CHECK_EQ(hits[2], 1);
    trap_handlers[2] = 0;
}

/* ISA interrupt 0 is on pin 2; pin 0 belongs to the 8259A pair's output, if to anything. */
TEST(timer_is_on_pin_2)
{
    begin(apic_eoi);
    ioapic_entry(0, 0, V);
    ioapic_entry(TIMER_PIN, 0, V + 1);
    raise_timer();
    CHECK(wait_hits(V + 1, 1));
    CHECK_EQ(hits[V], 0);
}

/* Both ways at once: by the 8259A pair and LINT0, and by pin 2. */
TEST(pic_and_ioapic_both)
{
    begin(NULL);
    apic_write(APIC_LINT0, 0x700);
    pic_allow(1);
    ioapic_entry(TIMER_PIN, 0, V);
    raise_timer();
    CHECK(wait_hits(PIC_BASE, 1));
    CHECK(wait_hits(V, 1)); /* the pair's service is no business of the local APIC */
    CHECK_EQ(PIC_ISR(), 1);
    CHECK(apic_bit(APIC_ISR, V));
    apic_write(APIC_EOI, 0);
    CHECK(!apic_bit(APIC_ISR, V));
    CHECK_EQ(PIC_ISR(), 1);
    outb(0x20, 0x20);
    CHECK_EQ(PIC_ISR(), 0);
}

/* ExtINT: the pin only says "ask the 8259A pair"; no ISR bit, no EOI of the local APIC. */
TEST(ext_int)
{
    begin(pic_eoi);
    pic_allow(1);
    apic_write(APIC_LINT0, APIC_MASKED | 0x700);
    ioapic_entry(TIMER_PIN, 0, 0x700 | V); /* the vector means nothing */
    raise_timer();
    CHECK(wait_hits(PIC_BASE, 1));
    CHECK_EQ(hits[V], 0);
    for (unsigned bank = 0; bank < 8; bank++)
        CHECK_EQ(apic_read(APIC_ISR + 16 * bank), 0);
    CHECK_EQ(PIC_ISR(), 0);
    let_in();
    CHECK_EQ(hits[PIC_BASE], 1);
}

/* A vector below 16 is an error that the receiver notes (SDM vol. 3, 11.5.3). */
TEST(illegal_vector)
{
    begin(apic_eoi);
    apic_write(APIC_ESR, 0);
    apic_write(APIC_ESR, 0);
    ioapic_entry(COM1_IRQ, 0, 5);
    serial_irq(true);
    let_in();
    apic_write(APIC_ESR, 0);
    CHECK_EQ(apic_read(APIC_ESR) & 0x40, 0x40);
    ioapic_entry(COM1_IRQ, 0, ENTRY_MASKED);
}

TEST(access_widths)
{
    begin(apic_eoi);
    /* "must be accessed 32 bits at a time"; the index is 8 bits wide */
    mmio_write32(IOAPIC_PAGE, 0xffffff01);
    CHECK_EQ(mmio_read32(IOAPIC_PAGE), 1);
    CHECK_EQ(mmio_read32(IOAPIC_PAGE + 0x10) >> 16 & 0xff, 23);
    mmio_write32(IOAPIC_PAGE, 0x40); /* no such register */
    mmio_write32(IOAPIC_PAGE + 0x10, 0xffffffff);
    CHECK_EQ(ioapic_read(0x10), ENTRY_MASKED);
}

const struct test guest_tests[] = {T(registers),
                                   T(edge),
                                   T(edge_while_masked_is_lost),
                                   T(level),
                                   T(level_while_masked_waits),
                                   T(level_masked_in_service),
                                   T(level_comes_again_after_each_eoi),
                                   T(eoi_register),
                                   T(changing_to_edge_clears_remote_irr),
                                   T(destinations),
                                   T(level_to_nobody),
                                   T(polarity_is_kept),
                                   T(nmi),
                                   T(timer_is_on_pin_2),
                                   T(pic_and_ioapic_both),
                                   T(ext_int),
                                   T(illegal_vector),
                                   T(access_widths),
                                   {0, 0}};
