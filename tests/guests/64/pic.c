/*
 * pic.c - the 8259A pair through LINT0: initialisation, masks, priorities, the kinds of EOI,
 * automatic EOI, rotation, special mask, poll, spurious interrupts, the slave, ELCR (8259A data
 * sheet; PIIX data sheet 3.2.4).
 *
 * guest options: -serial null
 */
#include "machine.h"

static void begin(unsigned icw4, void (*ends)(struct frame *))
{
    pit_start(0, 1, 0); /* counter 0 waits for a trigger that never comes: its output stays high */
    serial_irq(false);
    apic_quiet();
    pic_init(icw4); /* forgets edges */
    apic_write(APIC_LINT0, 0x700);
    outb(0x4d0, 0);
    count_hits(0x20, 0x2f, ends);
}

/* An edge on IRQ 0, waited for. */
static void raise_timer(void)
{
    pit_start(0, 0, 1);
    for (uint64_t end = rdtsc() + FOREVER; !(pic_read(0x20, false) & 1) && rdtsc() < end;)
        asm volatile("pause");
}

TEST(registers)
{
    begin(1, pic_eoi);
    CHECK_EQ(inb(0x21), 0xff);
    CHECK_EQ(inb(0xa1), 0xff);
    outb(0x21, 0xa5);
    outb(0xa1, 0x5a);
    CHECK_EQ(inb(0x21), 0xa5);
    CHECK_EQ(inb(0xa1), 0x5a);
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    CHECK_EQ(PIC_ISR(), 0);
}

TEST(initialisation_clears)
{
    begin(1, pic_eoi);
    raise_timer();
    CHECK_EQ(PIC_IRR() & 1, 1);
    outb(0x20, 0x11); /* ICW1: edges, mask and service are forgotten */
    outb(0x21, 0x20);
    outb(0x21, 4);
    outb(0x21, 1);
    CHECK_EQ(inb(0x21), 0);
    CHECK_EQ(PIC_ISR(), 0);
    let_in();
    CHECK_EQ(hits[0x20], 0);
}

TEST(an_interrupt)
{
    begin(1, pic_eoi);
    pic_allow(1);
    raise_timer();
    CHECK_EQ(PIC_IRR() & 1, 1);
    CHECK_EQ(hits[0x20], 0);
    let_in();
    CHECK_EQ(hits[0x20], 1);
    CHECK_EQ(PIC_IRR() & 1, 0);
    CHECK_EQ(PIC_ISR(), 0);
    let_in();
    CHECK_EQ(hits[0x20], 1); /* one edge, one interrupt */
}

TEST(a_masked_request_waits)
{
    begin(1, pic_eoi);
    raise_timer();
    let_in();
    CHECK_EQ(hits[0x20], 0);
    CHECK_EQ(PIC_IRR() & 1, 1);
    pic_allow(1);
    let_in();
    CHECK_EQ(hits[0x20], 1);
}

static void no_eoi(struct frame *f) {}

TEST(service_blocks_until_eoi)
{
    begin(1, no_eoi);
    pic_allow(0x11);
    serial_irq(true);
    let_in();
    CHECK_EQ(hits[0x24], 1);
    CHECK_EQ(PIC_ISR(), 0x10);
    /* IRQ 4 is in service: 0 outranks it, 4 itself must wait */
    serial_irq(false);
    serial_irq(true);
    raise_timer();
    let_in();
    CHECK_EQ(hits[0x20], 1);
    CHECK_EQ(hits[0x24], 1);
    CHECK_EQ(PIC_ISR(), 0x11);
    outb(0x20, 0x20); /* non-specific: the highest */
    CHECK_EQ(PIC_ISR(), 0x10);
    outb(0x20, 0x64); /* specific: 4 */
    CHECK_EQ(PIC_ISR(), 0);
    let_in();
    CHECK_EQ(hits[0x24], 2);
    outb(0x20, 0x20);
    serial_irq(false);
}

TEST(priorities)
{
    begin(1, pic_eoi);
    serial_irq(true);
    raise_timer();
    pic_allow(0x11);
    let_in();
    CHECK_EQ(order_count, 2);
    CHECK_EQ(order[0], 0x20);
    CHECK_EQ(order[1], 0x24);
    /* with 3 the lowest, 4 is the highest */
    begin(1, pic_eoi);
    outb(0x20, 0xc3);
    serial_irq(true);
    raise_timer();
    pic_allow(0x11);
    let_in();
    CHECK_EQ(order_count, 2);
    CHECK_EQ(order[0], 0x24);
    CHECK_EQ(order[1], 0x20);
    serial_irq(false);
}

static void rotate_eoi(struct frame *f)
{
    outb(0x20, 0xa0);
}

TEST(rotation_on_eoi)
{
    begin(1, rotate_eoi);
    pic_allow(0x11);
    raise_timer();
    let_in(); /* 0 is lowest after its EOI */
    pic_allow(0);
    serial_irq(true);
    raise_timer();
    pic_allow(0x11);
    let_in();
    CHECK_EQ(order_count, 3);
    CHECK_EQ(order[1], 0x24);
    CHECK_EQ(order[2], 0x20);
    serial_irq(false);
}

TEST(automatic_eoi)
{
    begin(3, no_eoi);
    pic_allow(0x11);
    for (unsigned i = 1; i <= 3; i++) {
        raise_timer();
        let_in();
        CHECK_EQ(hits[0x20], i);
        CHECK_EQ(PIC_ISR(), 0);
    }
}

TEST(special_mask_mode)
{
    begin(1, no_eoi);
    pic_allow(0x11);
    raise_timer();
    let_in(); /* 0 in service: 4 is blocked */
    serial_irq(true);
    let_in();
    CHECK_EQ(hits[0x24], 0);
    outb(0x20, 0x68); /* special mask mode, 0 masked: 4 may pass */
    pic_allow(0x10);
    let_in();
    CHECK_EQ(hits[0x24], 1);
    CHECK_EQ(PIC_ISR(), 0x11);
    outb(0x20, 0x48);
    serial_irq(false);
}

TEST(poll)
{
    begin(1, pic_eoi);
    outb(0x20, 0x0c);
    CHECK_EQ(inb(0x20) & 0x80, 0);
    serial_irq(true);
    pic_allow(0x10);
    outb(0x20, 0x0c);
    CHECK_EQ(inb(0x20), 0x84); /* the read is the acknowledge */
    CHECK_EQ(PIC_ISR(), 0x10);
    let_in();
    CHECK_EQ(hits[0x24], 0);
    outb(0x20, 0x20);
    serial_irq(false);
}

/* The RTC's periodic interrupt: IRQ 8, through the cascade. */
static void rtc_periodic(bool on)
{
    outb(0x70, 0x0a);
    outb(0x71, 0x26);
    outb(0x70, 0x0b);
    outb(0x71, on ? 0x42 : 0x02);
    outb(0x70, 0x0c);
    inb(0x71);
}

TEST(the_slave)
{
    begin(1, no_eoi);
    rtc_periodic(true);
    pic_allow(0x100); /* not the cascade */
    pit_wait(6000);
    let_in();
    CHECK_EQ(hits[0x28], 0);
    CHECK_EQ(PIC_IRR() & 0x104, 0x104);
    pic_allow(0x104);
    CHECK(wait_hits(0x28, 1));
    CHECK_EQ(PIC_ISR(), 0x104);
    outb(0x20, 0x20);
    CHECK_EQ(PIC_ISR(), 0x100);
    outb(0xa0, 0x60); /* specific, IR0 of the slave */
    CHECK_EQ(PIC_ISR(), 0);
    rtc_periodic(false);
    /* IRQ 8 is between 1 and 3. (Its line stays up until register C is read: one edge.) */
    begin(1, pic_eoi);
    rtc_periodic(true);
    serial_irq(true);
    pit_wait(6000);
    raise_timer();
    pic_allow(0x115);
    let_in();
    rtc_periodic(false);
    CHECK_EQ(order_count, 3);
    CHECK_EQ(order[0], 0x20);
    CHECK_EQ(order[1], 0x28);
    CHECK_EQ(order[2], 0x24);
    serial_irq(false);
}

/* Level sensitive by ELCR: as long as the line is up, it comes again after each EOI. */
static void third_time_lowers(struct frame *f)
{
    if (hits[0x24] == 3)
        serial_irq(false);
    pic_eoi(f);
}

TEST(level_by_elcr)
{
    begin(1, pic_eoi);
    outb(0x4d0, 0x10);
    CHECK_EQ(inb(0x4d0), 0x10);
    outb(0x4d0, 0);
    pic_allow(0x10);
    serial_irq(true); /* edge: once */
    let_in();
    CHECK_EQ(hits[0x24], 1);
    serial_irq(false);
    begin(1, third_time_lowers);
    outb(0x4d0, 0x10);
    pic_allow(0x10);
    serial_irq(true);
    let_in();
    CHECK_EQ(hits[0x24], 3);
    /* a level that goes away is no request any more */
    pic_allow(0);
    serial_irq(true);
    CHECK_EQ(PIC_IRR() & 0x10, 0x10);
    serial_irq(false);
    CHECK_EQ(PIC_IRR() & 0x10, 0);
    outb(0x4d0, 0);
}

/* An acknowledge when there is nothing to acknowledge (an ExtINT message of the I/O APIC): IR7's
 * vector, and nothing goes into service. */
TEST(spurious)
{
    begin(1, no_eoi);
    apic_write(APIC_LINT0, APIC_MASKED | 0x700);
    ioapic_entry(2, 0, 0x700);
    raise_timer();
    let_in();
    ioapic_entry(2, 0, ENTRY_MASKED);
    CHECK_EQ(hits[0x27], 1);
    CHECK_EQ(hits[0x20], 0);
    CHECK_EQ(PIC_ISR(), 0);
}

TEST(masked_at_lint0)
{
    begin(1, pic_eoi);
    pic_allow(1);
    apic_write(APIC_LINT0, APIC_MASKED | 0x700);
    raise_timer();
    let_in();
    CHECK_EQ(hits[0x20], 0);
    apic_write(APIC_LINT0, 0x700);
    let_in();
    CHECK_EQ(hits[0x20], 1);
}

/* The APIC globally disabled: INTR goes straight to the processor (SDM 11.4.3). */
TEST(with_the_apic_disabled)
{
    begin(1, pic_eoi);
    uint64_t base = rdmsr(MSR_APIC_BASE);
    wrmsr(MSR_APIC_BASE, base & ~0x800ull);
    pic_allow(1);
    raise_timer();
    let_in();
    CHECK_EQ(hits[0x20], 1);
    wrmsr(MSR_APIC_BASE, base);
    begin(1, pic_eoi);
    pic_allow(1);
    raise_timer();
    let_in();
    CHECK_EQ(hits[0x20], 1);
}

/* HLT ends with the interrupt, and the saved RIP is behind it; STI's shadow covers the HLT. */
static word halted_rip;
static void note_rip(struct frame *f)
{
    halted_rip = f->rip;
    pic_eoi(f);
}

TEST(hlt)
{
    begin(1, note_rip);
    pic_allow(1);
    pit_start(0, 0, 2000);
    asm volatile("sti; hlt\n" LABEL(after_hlt) "cli" ::: "memory");
    CHECK_EQ(hits[0x20], 1);
    CHECK_EQ(halted_rip, SYMBOL(after_hlt));
    /* pending already: it comes after the HLT, not before */
    raise_timer();
    asm volatile("sti; hlt\n" LABEL(after_hlt2) "cli" ::: "memory");
    CHECK_EQ(hits[0x20], 2);
    CHECK_EQ(halted_rip, SYMBOL(after_hlt2));
}

const struct test guest_tests[] = {T(registers),
                                   T(initialisation_clears),
                                   T(an_interrupt),
                                   T(a_masked_request_waits),
                                   T(service_blocks_until_eoi),
                                   T(priorities),
                                   T(rotation_on_eoi),
                                   T(automatic_eoi),
                                   T(special_mask_mode),
                                   T(poll),
                                   T(the_slave),
                                   T(level_by_elcr),
                                   T(spurious),
                                   T(masked_at_lint0),
                                   T(with_the_apic_disabled),
                                   T(hlt),
                                   {0, 0}};
