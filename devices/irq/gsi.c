/*
 * gsi.c - global system interrupts: which chips' inputs a device's wire goes to.
 *
 * GSI n is input n of the I/O APIC and, below 16, ISA IRQ n of the 8259A pair; except that the
 * timer (ISA IRQ 0) sits on I/O APIC input 2 (ACPI 6.5, 5.2.12.5: the MADT's interrupt source
 * override tells the guest). Several wires may share one GSI: its level is the OR of theirs.
 */
#include "internal/chips.h"
#include <stdlib.h>

enum { ISA_IRQS = 16, TIMER_GSI = 0, TIMER_PIN = 2, CASCADE_IRQ = 2, WIRES = 32 };

struct gsi {
    struct device dev;
    struct pic *pic;
    struct ioapic *ioapic;
    uint32_t level[IOAPIC_PINS];   /* one bit per wire */
    uint32_t counted[IOAPIC_PINS]; /* the wires that matter: all, but for gsi_take_over() */
    bool shown[IOAPIC_PINS];       /* what the inputs were driven to last */
    uint8_t wires[IOAPIC_PINS];    /* how many gsi_line() has given out */
};

/* A line's `pin` is the GSI in bits 7-0 and the wire in bits 15-8. */
static unsigned line_gsi(unsigned pin)
{
    return pin & 0xff;
}

static uint32_t line_wire(unsigned pin)
{
    return 1u << (pin >> 8);
}

static void gsi_update(struct gsi *gsi, unsigned n)
{
    bool level = gsi->level[n] & gsi->counted[n];
    if (level == gsi->shown[n])
        return;
    gsi->shown[n] = level;
    struct irq_line ioapic = ioapic_line(gsi->ioapic, n == TIMER_GSI ? TIMER_PIN : n);
    if (n != CASCADE_IRQ) /* its input belongs to the timer */
        irq_set(&ioapic, level);
    if (n < ISA_IRQS) {
        struct irq_line pic = pic_line(gsi->pic, n);
        irq_set(&pic, level);
    }
}

static void gsi_set(void *opaque, unsigned pin, bool level)
{
    struct gsi *gsi = opaque;
    unsigned n = line_gsi(pin);
    uint32_t wire = line_wire(pin);
    gsi->level[n] = level ? gsi->level[n] | wire : gsi->level[n] & ~wire;
    gsi_update(gsi, n);
}

void gsi_take_over(const struct irq_line *line, bool on)
{
    struct gsi *gsi = line->opaque;
    unsigned n = line_gsi(line->pin);
    gsi->counted[n] = on ? line_wire(line->pin) : UINT32_MAX;
    gsi_update(gsi, n);
}

struct irq_line gsi_line(struct gsi *gsi, unsigned n)
{
    if (n >= IOAPIC_PINS || gsi->wires[n] == WIRES)
        abort(); /* the machine's wiring is wrong */
    unsigned wire = gsi->wires[n]++;
    return (struct irq_line){.set = gsi_set, .opaque = gsi, .pin = n | wire << 8};
}

/* The wires show what their drivers drive; those reset themselves. */
static void gsi_reset(struct device *dev)
{
    (void)dev;
}

static void gsi_destroy(struct device *dev)
{
    free(dev);
}

static const struct field gsi_fields[] = {
    FIELD_ARRAY(struct gsi, level, FIELD_U32, 1),
    FIELD_ARRAY(struct gsi, counted, FIELD_U32, 1),
    FIELD_ARRAY(struct gsi, shown, FIELD_U8, 1),
};
static const struct state_desc gsi_state = STATE_DESC("gsi", 1, gsi_fields);

struct gsi *gsi_new(struct board *board, struct pic *pic, struct ioapic *ioapic)
{
    struct gsi *gsi = chip_alloc(sizeof(*gsi));
    (void)board;
    gsi->dev = (struct device){
        .name = "gsi", .state = &gsi_state, .reset = gsi_reset, .destroy = gsi_destroy};
    gsi->pic = pic;
    gsi->ioapic = ioapic;
    for (unsigned n = 0; n < IOAPIC_PINS; n++)
        gsi->counted[n] = UINT32_MAX;
    return gsi;
}
