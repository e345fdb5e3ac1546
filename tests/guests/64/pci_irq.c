/*
 * pci_irq.c - PCI interrupts: which PIRQ a slot's INTA# is, where the PIIX3 routes it, two devices
 * on one line, both interrupt controllers (82371SB data sheet, 2.2.10; PCI 3.0, 2.2.6).
 *
 * The sources are entropy devices in slots 4 to 7: a filled buffer raises INTx, reading the ISR
 * status lowers it.
 *
 * guest devices: -device virtio-rng-pci,addr=4 -device virtio-rng-pci,addr=5
 * guest devices: -device virtio-rng-pci,addr=6 -device virtio-rng-pci,addr=7
 */
#include "virtio.h"

enum { V = 0x61, SLOTS = 4, FIRST = 4 };

static struct virtio rng[SLOTS];
static uint8_t byte;
static uint8_t memories[SLOTS][sizeof(queue_memory)] __attribute__((aligned(4096)));

/* Each device needs a ring of its own. */
static void place(struct virtio *d, uint8_t *memory, unsigned size)
{
    memset(memory, 0, sizeof(queue_memory));
    d->size = size;
    d->desc = (void *)memory;
    d->avail = (void *)(memory + 16 * size);
    d->used = (void *)(memory + 4096);
    d->avail_idx = d->used_seen = 0;
}

static void begin(void)
{
    apic_quiet();
    for (unsigned i = 0; i < SLOTS; i++) {
        bool open = virtio_open(&rng[i], VIRTIO_RNG, FIRST + i);
        CHECK(open && rng[i].devfn == (FIRST + i) << 3);
        CHECK(virtio_negotiate(&rng[i], MODERN, 0));
        place(&rng[i], memories[i], virtio_queue_max(&rng[i]));
        virtio_set_queue(&rng[i]);
        virtio_set_status(&rng[i], virtio_status(&rng[i]) | S_DRIVER_OK);
    }
    count_hits(0x20, 0xef, apic_eoi);
    for (unsigned pin = 0; pin < 24; pin++)
        ioapic_entry(pin, 0, ENTRY_MASKED);
    for (unsigned i = 0; i < 4; i++)
        pci_write8(PIIX3, 0x60 + i, 0x80);
    outb(0x4d0, 0);
    outb(0x4d1, 0x0c); /* 10 and 11 are levels */
}

static bool asserts(const struct virtio *d)
{
    return pci_read16(d->devfn, PCI_STATUS) & STATUS_INTERRUPT;
}

static void raise(struct virtio *d)
{
    const struct part part = {&byte, 1, IN};
    CHECK_EQ(virtio_do(d, &part, 1), 1);
    for (uint64_t end = rdtsc() + FOREVER; !asserts(d) && rdtsc() < end;)
        asm volatile("pause");
    CHECK(asserts(d));
}

static void lower(struct virtio *d)
{
    virtio_isr(d);
    CHECK(!asserts(d));
}

/* On this board slot 1's INTA# is PIRQA, and each slot turns by one. */
static unsigned pirq_of(unsigned slot)
{
    return (slot - 1) % 4;
}

TEST(slots_rotate)
{
    for (unsigned i = 0; i < SLOTS; i++) {
        begin();
        for (unsigned pirq = 0; pirq < 4; pirq++)
            pci_write8(PIIX3, 0x60 + pirq, (uint8_t)(pirq_of(FIRST + i) == pirq ? 10 : 11));
        raise(&rng[i]);
        CHECK_EQ(PIC_IRR() & 0xc00, 0x400);
        lower(&rng[i]);
        CHECK_EQ(PIC_IRR() & 0xc00, 0);
    }
}

TEST(routing)
{
    static const uint8_t irqs[] = {3, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15};
    begin();
    outb(0x4d0, 0xf8);
    outb(0x4d1, 0xde);
    raise(&rng[0]);
    CHECK_EQ(PIC_IRR() & 0xdef8, 0);
    for (unsigned i = 0; i < sizeof(irqs); i++) {
        pci_write8(PIIX3, 0x60 + pirq_of(FIRST), irqs[i]); /* moves while it is up */
        CHECK_EQ(PIC_IRR() & 0xdef8, 1 << irqs[i]);
        pci_write8(PIIX3, 0x60 + pirq_of(FIRST), 0x80 | irqs[i]);
        CHECK_EQ(PIC_IRR() & 0xdef8, 0);
    }
    lower(&rng[0]);
    outb(0x4d0, 0);
    outb(0x4d1, 0x0c);
}

static void lower_first_and_eoi(struct frame *f)
{
    virtio_isr(&rng[0]);
    pic_eoi(f);
}

TEST(through_the_pic)
{
    begin();
    apic_write(APIC_LINT0, 0x700);
    pci_write8(PIIX3, 0x60 + pirq_of(FIRST), 10);
    hit_ends = lower_first_and_eoi;
    pic_allow(0x404);
    raise(&rng[0]);
    let_in();
    CHECK_EQ(hits[0x2a], 1);
    CHECK(!asserts(&rng[0]));
    raise(&rng[0]);
    let_in();
    CHECK_EQ(hits[0x2a], 2);
}

static void lower_one_and_eoi(struct frame *f)
{
    virtio_isr(&rng[hits[V] == 1 ? 0 : 1]);
    apic_eoi(f);
}

/* Two devices, one line: it is up as long as one of them is. */
TEST(shared_line)
{
    begin();
    for (unsigned i = 0; i < 4; i++)
        pci_write8(PIIX3, 0x60 + i, 11);
    hit_ends = lower_one_and_eoi;
    raise(&rng[0]);
    raise(&rng[1]);
    ioapic_entry(11, 0, ENTRY_LEVEL | V);
    let_in();
    CHECK_EQ(hits[V], 2);
    CHECK(!asserts(&rng[0]) && !asserts(&rng[1]));
    CHECK(!ioapic_remote_irr(11));
}

/* INTx off, MSI-X on: the line goes, also while it is up. */
TEST(switched_off)
{
    begin();
    pci_write8(PIIX3, 0x60 + pirq_of(FIRST), 10);
    raise(&rng[0]);
    CHECK_EQ(PIC_IRR() & 0x400, 0x400);
    pci_write16(rng[0].devfn, PCI_COMMAND,
                COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER | COMMAND_NO_INTX);
    CHECK_EQ(PIC_IRR() & 0x400, 0);
    CHECK(asserts(&rng[0])); /* the status bit tells the device's wish */
    pci_write16(rng[0].devfn, PCI_COMMAND, COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER);
    CHECK_EQ(PIC_IRR() & 0x400, 0x400);
    msix_control(&rng[0], MSIX_ENABLE);
    CHECK_EQ(PIC_IRR() & 0x400, 0);
    msix_control(&rng[0], 0);
    virtio_set_status(&rng[0], 0); /* a reset lowers it */
    CHECK_EQ(PIC_IRR() & 0x400, 0);
    CHECK(!asserts(&rng[0]));
}

const struct test guest_tests[] = {T(slots_rotate), T(routing),      T(through_the_pic),
                                   T(shared_line),  T(switched_off), {0, 0}};
