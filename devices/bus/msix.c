/*
 * msix.c - MSI-X: a table of address/data pairs, one per vector, with masks and pending bits.
 * PCI Local Bus Specification 3.0, section 6.8.2.
 *
 * The table is at offset 0 of its BAR and the pending bit array at 800h:
 *
 *     entry: +0 address (64 bits)  +8 data  +12 vector control, bit 0 = masked
 *
 * Accesses other than whole dwords and qwords are undefined by the specification; here they work
 * bytewise.
 */
#include "internal/log.h"
#include "internal/pci.h"
#include <string.h>

#define MSIX_BAR_SIZE     4096
#define MSIX_PBA          0x800
#define MSIX_CONTROL      2 /* offset in the capability: message control */
#define CONTROL_ENABLE    0x8000
#define CONTROL_MASK_ALL  0x4000
#define ENTRY_SIZE        16
#define ENTRY_VECTOR_CTRL 12

static uint16_t control(const struct pci_device *dev)
{
    return dev->msix.capability ? pci_get16(dev, dev->msix.capability + MSIX_CONTROL) : 0;
}

bool msix_enabled(const struct pci_device *dev)
{
    return (control(dev) & CONTROL_ENABLE) != 0;
}

static uint64_t get_le(const uint8_t *bytes, unsigned size)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)bytes[i] << 8 * i;
    return value;
}

static bool vector_masked(const struct pci_device *dev, unsigned vector)
{
    return (control(dev) & CONTROL_MASK_ALL) ||
           (dev->msix.table[vector * ENTRY_SIZE + ENTRY_VECTOR_CTRL] & 1);
}

/* The message is a memory write, so it needs bus mastering like any other. */
static void send(struct pci_device *dev, unsigned vector)
{
    const uint8_t *entry = &dev->msix.table[vector * ENTRY_SIZE];
    const struct msi_port *port = &dev->bus->msi;
    if (!pci_bus_master(dev)) {
        LOG(dev->bus->board->log, LOG_GUEST_ERRORS,
            "pci %02x.%x: MSI-X vector %u lost: bus mastering is off\n", dev->devfn >> 3,
            dev->devfn & 7, vector);
        return;
    }
    if (port->send)
        port->send(port->opaque, get_le(entry, 8), (uint32_t)get_le(entry + 8, 4));
}

static void send_pending(struct pci_device *dev)
{
    for (unsigned v = 0; v < dev->msix.vectors && msix_enabled(dev); v++) {
        if (!(dev->msix.pending >> v & 1) || vector_masked(dev, v))
            continue;
        dev->msix.pending &= ~(1ull << v);
        send(dev, v);
    }
}

void msix_notify(struct pci_device *dev, unsigned vector)
{
    if (vector >= dev->msix.vectors || !msix_enabled(dev))
        return;
    if (vector_masked(dev, vector))
        dev->msix.pending |= 1ull << vector;
    else
        send(dev, vector);
}

void msix_control_changed(struct pci_device *dev)
{
    send_pending(dev);
    pci_update_intx(dev);
}

void msix_reset(struct pci_device *dev)
{
    dev->msix.pending = 0;
    memset(dev->msix.table, 0, sizeof(dev->msix.table));
    for (unsigned v = 0; v < MSIX_MAX_VECTORS; v++)
        dev->msix.table[v * ENTRY_SIZE + ENTRY_VECTOR_CTRL] = 1;
}

/* ---- The BAR ----------------------------------------------------------------------------------
 */

static uint64_t msix_read(void *opaque, const struct access *access, uint64_t offset, unsigned size)
{
    const struct pci_device *dev = opaque;
    uint64_t value = 0;
    (void)access;
    for (unsigned i = 0; i < size; i++, offset++) {
        uint8_t byte = 0;
        if (offset < (uint64_t)dev->msix.vectors * ENTRY_SIZE)
            byte = dev->msix.table[offset];
        else if (offset >= MSIX_PBA && offset < MSIX_PBA + 8)
            byte = (uint8_t)(dev->msix.pending >> 8 * (offset - MSIX_PBA));
        value |= (uint64_t)byte << 8 * i;
    }
    return value;
}

static void msix_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                       uint64_t value)
{
    struct pci_device *dev = opaque;
    (void)access;
    for (unsigned i = 0; i < size; i++, offset++, value >>= 8) {
        if (offset >= (uint64_t)dev->msix.vectors * ENTRY_SIZE)
            continue; /* the pending bits are read-only */
        uint8_t mask = 0xff;
        if (offset % ENTRY_SIZE >= ENTRY_VECTOR_CTRL)
            mask = offset % ENTRY_SIZE == ENTRY_VECTOR_CTRL ? 1 : 0; /* the rest is reserved */
        if (offset % ENTRY_SIZE == 0)
            mask = 0xfc; /* messages are dword writes */
        dev->msix.table[offset] = (uint8_t)value & mask;
    }
    send_pending(dev);
}

static const struct io_ops msix_ops = {.read = msix_read, .write = msix_write, .min = 1, .max = 8};

void msix_init(struct pci_device *dev, unsigned bar, unsigned vectors)
{
    unsigned cap = pci_add_capability(dev, PCI_CAP_ID_MSIX, 12);
    dev->msix.capability = (uint8_t)cap;
    dev->msix.vectors = (uint8_t)vectors;
    pci_put16(dev, cap + MSIX_CONTROL, (uint16_t)(vectors - 1));
    dev->writable[cap + MSIX_CONTROL + 1] = (CONTROL_ENABLE | CONTROL_MASK_ALL) >> 8;
    pci_put32(dev, cap + 4, bar);            /* table: offset 0 in this BAR */
    pci_put32(dev, cap + 8, MSIX_PBA | bar); /* pending bits */
    pci_set_bar(dev, bar, PCI_BAR_MEM32, MSIX_BAR_SIZE, &msix_ops, dev, "msix");
}
