/*
 * machine.h - the chips of a PC as guests drive them: 8259A pair, 8254, local APIC, I/O APIC; and
 * interrupts that are counted. Included once per guest.
 */
#ifndef GUEST_MACHINE_H
#define GUEST_MACHINE_H

#include "guest.h"

#define UNUSED_OK static __attribute__((unused))

/* ---- Counting interrupts -----------------------------------------------------------------------
 */

static volatile unsigned hits[256];
static volatile uint8_t order[64]; /* vectors in the order of their arrival */
static volatile unsigned order_count;
static void (*volatile hit_ends)(struct frame *); /* EOI or what else is due; NULL: nothing */

UNUSED_OK bool count_hit(struct frame *f)
{
    hits[f->vector]++;
    if (order_count < sizeof(order))
        order[order_count++] = (uint8_t)f->vector;
    if (hit_ends)
        hit_ends(f);
    return true;
}

/* From now on these vectors count, from zero. */
UNUSED_OK void count_hits(unsigned first, unsigned last, void (*ends)(struct frame *))
{
    for (unsigned v = first; v <= last; v++) {
        trap_handlers[v] = count_hit;
        hits[v] = 0;
    }
    order_count = 0;
    hit_ends = ends;
}

#define INTERRUPTS_ON()  asm volatile("sti; nop" ::: "memory")
#define INTERRUPTS_OFF() asm volatile("cli" ::: "memory")
/* So long that it means never, in TSC ticks. */
#define FOREVER 8000000000ull

/* Interrupts on until `vector` has come `n` times; false when it does not. */
UNUSED_OK bool wait_hits(unsigned vector, unsigned n)
{
    INTERRUPTS_ON();
    for (uint64_t end = rdtsc() + FOREVER; hits[vector] < n && rdtsc() < end;)
        asm volatile("pause");
    INTERRUPTS_OFF();
    return hits[vector] >= n;
}

/* Interrupts on for a moment: what is pending comes. */
UNUSED_OK void let_in(void)
{
    for (unsigned i = 0; i < 100; i++)
        asm volatile("sti; nop; nop; cli" ::: "memory");
}

/* ---- 8254: counter 2 measures time, whatever else is broken -------------------------------------
 */

enum { PIT_HZ = 1193182 };

UNUSED_OK void pit_start(unsigned counter, unsigned mode, unsigned count)
{
    outb(0x43, (uint8_t)(counter << 6 | 0x30 | mode << 1));
    outb((uint16_t)(0x40 + counter), (uint8_t)count);
    outb((uint16_t)(0x40 + counter), (uint8_t)(count >> 8));
}

/* Waits so many ticks of the 8254 (up to 65535), by its counter 2. */
UNUSED_OK void pit_wait(unsigned ticks)
{
    uint8_t port = inb(0x61);
    outb(0x61, (port & ~2u) | 1);
    pit_start(2, 0, ticks);
    while (!(inb(0x61) & 0x20))
        asm volatile("pause");
}

/* ---- 8259A pair: IRQ n at vector 20h + n --------------------------------------------------------
 */

enum { PIC_BASE = 0x20 };

UNUSED_OK void pic_init(unsigned icw4)
{
    outb(0x20, 0x11);
    outb(0x21, PIC_BASE);
    outb(0x21, 4);
    outb(0x21, (uint8_t)icw4);
    outb(0xa0, 0x11);
    outb(0xa1, PIC_BASE + 8);
    outb(0xa1, 2);
    outb(0xa1, (uint8_t)icw4);
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
}

UNUSED_OK void pic_allow(unsigned irqs)
{
    outb(0x21, (uint8_t)~irqs);
    outb(0xa1, (uint8_t)(~irqs >> 8));
}

UNUSED_OK uint8_t pic_read(uint16_t port, bool isr)
{
    outb(port, isr ? 0x0b : 0x0a);
    return inb(port);
}
#define PIC_IRR() (pic_read(0x20, false) | pic_read(0xa0, false) << 8)
#define PIC_ISR() (pic_read(0x20, true) | pic_read(0xa0, true) << 8)

UNUSED_OK void pic_eoi(struct frame *f)
{
    if (f->vector >= PIC_BASE + 8)
        outb(0xa0, 0x20);
    outb(0x20, 0x20);
}

/* ---- Local APIC ---------------------------------------------------------------------------------
 */

enum {
    APIC_ID = 0x20,
    APIC_VERSION = 0x30,
    APIC_TPR = 0x80,
    APIC_PPR = 0xa0,
    APIC_EOI = 0xb0,
    APIC_LDR = 0xd0,
    APIC_DFR = 0xe0,
    APIC_SVR = 0xf0,
    APIC_ISR = 0x100,
    APIC_TMR = 0x180,
    APIC_IRR = 0x200,
    APIC_ESR = 0x280,
    APIC_ICR = 0x300,
    APIC_ICR_HIGH = 0x310,
    APIC_LVT_TIMER = 0x320,
    APIC_LINT0 = 0x350,
    APIC_LINT1 = 0x360,
    APIC_LVT_ERROR = 0x370,
    APIC_INITIAL = 0x380,
    APIC_CURRENT = 0x390,
    APIC_DIVIDE = 0x3e0,
};
enum { APIC_MASKED = 0x10000, TIMER_PERIODIC = 0x20000, TIMER_DEADLINE = 0x40000 };
enum { MSR_APIC_BASE = 0x1b, MSR_TSC_DEADLINE = 0x6e0 };

UNUSED_OK uint32_t apic_read(unsigned reg)
{
    return mmio_read32(0xfee00000 + reg);
}

UNUSED_OK void apic_write(unsigned reg, uint32_t v)
{
    mmio_write32(0xfee00000 + reg, v);
}

UNUSED_OK bool apic_bit(unsigned bank, unsigned vector)
{
    return apic_read(bank + vector / 32 * 16) >> vector % 32 & 1;
}

UNUSED_OK void apic_eoi(struct frame *f)
{
    apic_write(APIC_EOI, 0);
}

/* Software-enabled, nothing but self-made interrupts; the 8259A pair is masked. */
UNUSED_OK void apic_quiet(void)
{
    pic_init(1);
    apic_write(APIC_SVR, 0x1ff);
    apic_write(APIC_LINT0, APIC_MASKED | 0x700);
    apic_write(APIC_LINT1, APIC_MASKED | 0x400);
    apic_write(APIC_LVT_TIMER, APIC_MASKED);
    apic_write(APIC_LVT_ERROR, APIC_MASKED);
    apic_write(APIC_INITIAL, 0);
    apic_write(APIC_TPR, 0);
}

/* Lets in what earlier tests have left in the local APIC; its sources must be quiet by now. */
UNUSED_OK void drain(void)
{
    count_hits(0x20, 0xef, apic_eoi);
    let_in();
}

/* ---- I/O APIC -----------------------------------------------------------------------------------
 */

enum { IOAPIC_PAGE = 0xfec00000 };
enum {
    ENTRY_LOGICAL = 1 << 11,
    ENTRY_LOW = 1 << 13,
    ENTRY_REMOTE_IRR = 1 << 14,
    ENTRY_LEVEL = 1 << 15,
    ENTRY_MASKED = 1 << 16
};

UNUSED_OK uint32_t ioapic_read(unsigned reg)
{
    mmio_write32(IOAPIC_PAGE, reg);
    return mmio_read32(IOAPIC_PAGE + 0x10);
}

UNUSED_OK void ioapic_write(unsigned reg, uint32_t v)
{
    mmio_write32(IOAPIC_PAGE, reg);
    mmio_write32(IOAPIC_PAGE + 0x10, v);
}

UNUSED_OK void ioapic_entry(unsigned pin, unsigned dest, uint32_t low)
{
    ioapic_write(0x10 + 2 * pin, ENTRY_MASKED);
    ioapic_write(0x11 + 2 * pin, dest << 24);
    ioapic_write(0x10 + 2 * pin, low);
}

UNUSED_OK bool ioapic_remote_irr(unsigned pin)
{
    return ioapic_read(0x10 + 2 * pin) & ENTRY_REMOTE_IRR;
}

/* ---- COM1's transmitter: an interrupt source (IRQ 4) that rises and falls by register writes
 * ----- */

enum { COM1 = 0x3f8, COM1_IRQ = 4 };

UNUSED_OK void serial_irq(bool on)
{
    outb(COM1 + 4, 8); /* OUT2 lets interrupts through; no loop */
    outb(COM1 + 3, 3);
    outb(COM1 + 1, on ? 2 : 0); /* THR empty */
}

#endif
