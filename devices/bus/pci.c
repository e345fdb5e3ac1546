/*
 * pci.c - a PCI device as its bus sees it: configuration space, base address registers,
 * capabilities, INTx and DMA. Specified by the PCI Local Bus Specification 3.0, chapter 6.
 *
 * Configuration space is an array of bytes with a mask of what the guest may change; sizing a BAR
 * (write ones, read back) falls out of the mask. Whenever the command register or a BAR changes,
 * every region of the device is compared with where it should be and moved. See internal/pci.h.
 */
#include "internal/pci.h"
#include "internal/error.h"
#include "internal/log.h"
#include <string.h>

/* ---- Little-endian fields ---------------------------------------------------------------------
 */

uint16_t pci_get16(const struct pci_device *dev, unsigned offset)
{
    return (uint16_t)(dev->config[offset] | dev->config[offset + 1] << 8);
}

uint32_t pci_get32(const struct pci_device *dev, unsigned offset)
{
    return pci_get16(dev, offset) | (uint32_t)pci_get16(dev, offset + 2) << 16;
}

void pci_put16(struct pci_device *dev, unsigned offset, uint16_t value)
{
    dev->config[offset] = (uint8_t)value;
    dev->config[offset + 1] = (uint8_t)(value >> 8);
}

void pci_put32(struct pci_device *dev, unsigned offset, uint32_t value)
{
    pci_put16(dev, offset, (uint16_t)value);
    pci_put16(dev, offset + 2, (uint16_t)(value >> 16));
}

/* ---- Building a device ------------------------------------------------------------------------
 */

void pci_device_init(struct pci_device *dev, const struct pci_identity *identity)
{
    pci_put16(dev, PCI_VENDOR_ID, identity->vendor);
    pci_put16(dev, PCI_DEVICE_ID, identity->device);
    dev->config[PCI_REVISION_ID] = identity->revision;
    dev->config[PCI_CLASS_PROG] = (uint8_t)identity->class_code;
    pci_put16(dev, PCI_CLASS_PROG + 1, (uint16_t)(identity->class_code >> 8));
    pci_put16(dev, PCI_SUBSYSTEM_VENDOR_ID, identity->subsystem_vendor);
    pci_put16(dev, PCI_SUBSYSTEM_ID, identity->subsystem);
    const uint16_t command = PCI_COMMAND_MASTER | PCI_COMMAND_PARITY | PCI_COMMAND_SERR;
    dev->writable[PCI_COMMAND] = (uint8_t)command;
    dev->writable[PCI_COMMAND + 1] = command >> 8;
    dev->writable[PCI_CACHE_LINE_SIZE] = 0xff;
    dev->writable[PCI_LATENCY_TIMER] = 0xff;
    dev->capability_end = 0x40;
}

void pci_set_bar(struct pci_device *dev, unsigned index, enum pci_bar_kind kind, uint64_t size,
                 const struct io_ops *ops, void *opaque, const char *name)
{
    dev->bars[index] =
        (struct pci_bar){.kind = kind, .size = size, .ops = ops, .opaque = opaque, .name = name};
    unsigned offset = PCI_BAR0 + 4 * index;
    uint64_t mask = ~(size - 1);
    /* 6.2.5.1: bit 0 I/O space; memory: bits 2:1 = 10b for 64 bits wide */
    uint32_t flags = kind == PCI_BAR_IO ? 1 : kind == PCI_BAR_MEM64 ? 4 : 0;
    pci_put32(dev, offset, flags);
    for (unsigned i = 0; i < (kind == PCI_BAR_MEM64 ? 8u : 4u); i++)
        dev->writable[offset + i] = (uint8_t)(mask >> 8 * i);
    dev->writable[PCI_COMMAND] |= kind == PCI_BAR_IO ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY;
}

unsigned pci_bar_register(unsigned index)
{
    return index == PCI_ROM ? PCI_ROM_ADDRESS : PCI_BAR0 + 4 * index;
}

void pci_set_memory_bar(struct pci_device *dev, unsigned index, uint64_t size,
                        struct ram_block *block, const char *name)
{
    pci_set_bar(dev, index, PCI_BAR_MEM32, size, NULL, NULL, name);
    dev->bars[index].block = block;
    dev->config[PCI_BAR0 + 4 * index] |= 1 << 3; /* prefetchable */
}

/* Bits 31-11 are the address, bit 0 enables decoding, between them is nothing. */
void pci_set_rom(struct pci_device *dev, uint64_t size, struct ram_block *block, const char *name)
{
    dev->bars[PCI_ROM] =
        (struct pci_bar){.kind = PCI_BAR_ROM, .size = size, .block = block, .name = name};
    uint32_t mask = (uint32_t) ~(size - 1) | PCI_ROM_ENABLE;
    for (unsigned i = 0; i < 4; i++)
        dev->writable[PCI_ROM_ADDRESS + i] = (uint8_t)(mask >> 8 * i);
    dev->writable[PCI_COMMAND] |= PCI_COMMAND_MEMORY;
}

unsigned pci_add_capability(struct pci_device *dev, uint8_t id, unsigned size)
{
    unsigned offset = dev->capability_end;
    /* Append: drivers then meet the capabilities in the order in which the device added them. */
    unsigned link = PCI_CAPABILITY_LIST;
    while (dev->config[link])
        link = dev->config[link] + 1u;
    dev->config[link] = (uint8_t)offset;
    dev->config[offset] = id;
    dev->config[offset + 1] = 0;
    dev->config[PCI_STATUS] |= PCI_STATUS_CAP_LIST;
    dev->capability_end = (uint8_t)(offset + ((size + 3) & ~3u));
    return offset;
}

/* ---- Decoding ---------------------------------------------------------------------------------
 */

/* Where the guest has put BAR `index`; false when it is not decoded. */
static bool bar_wanted(const struct pci_device *dev, unsigned index, uint64_t *base)
{
    const struct pci_bar *bar = &dev->bars[index];
    uint16_t command = pci_get16(dev, PCI_COMMAND);
    uint64_t value = pci_get32(dev, pci_bar_register(index));
    uint64_t limit = UINT32_MAX; /* the last byte may not be the last of the space: that address
                                    is what sizing leaves behind while decoding is on */
    switch (bar->kind) {
    case PCI_BAR_NONE:
        return false;
    case PCI_BAR_IO:
        if (!(command & PCI_COMMAND_IO))
            return false;
        limit = UINT16_MAX + 1u; /* sizing leaves ones above the ports as well */
        break;
    case PCI_BAR_MEM64:
        value |= (uint64_t)pci_get32(dev, PCI_BAR0 + 4 * index + 4) << 32;
        limit = UINT64_MAX;
        /* fall through */
    case PCI_BAR_ROM:
        if (bar->kind == PCI_BAR_ROM && !(value & PCI_ROM_ENABLE))
            return false;
        /* fall through */
    case PCI_BAR_MEM32:
        if (!(command & PCI_COMMAND_MEMORY))
            return false;
        break;
    }
    *base = value & ~(bar->size - 1);
    return *base != 0 && *base + (bar->size - 1) < limit;
}

static void bar_unmap(struct pci_device *dev, struct pci_bar *bar)
{
    if (!bar->mapped)
        return;
    if (bar->kind == PCI_BAR_IO)
        io_remove(dev->bus->board->io, bar->handle);
    else
        phys_remove(dev->bus->board->map, bar->handle);
    bar->mapped = false;
}

static void bar_map(struct pci_device *dev, struct pci_bar *bar, uint64_t base)
{
    struct board *board = dev->bus->board;
    struct error err = {.msg = "no room in the port space"};
    if (bar->kind == PCI_BAR_IO)
        bar->handle = io_add(board->io, (uint16_t)base, (unsigned)bar->size, bar->ops, bar->opaque,
                             bar->name);
    else if (bar->block)
        bar->handle = phys_map_block(board->map, base, bar->size, bar->block, 0, bar->name, &err);
    else
        bar->handle =
            phys_add_mmio(board->map, base, bar->size, bar->ops, bar->opaque, bar->name, &err);
    bar->mapped = bar->handle >= 0;
    bar->base = base;
    if (!bar->mapped)
        LOG(board->log, LOG_GUEST_ERRORS, "pci %02x.%x: %s not mapped at %#llx: %s\n",
            dev->devfn >> 3, dev->devfn & 7, bar->name, (unsigned long long)base, err.msg);
}

static void update_bars(struct pci_device *dev)
{
    for (unsigned i = 0; i < PCI_REGIONS; i++) {
        struct pci_bar *bar = &dev->bars[i];
        uint64_t base = 0;
        bool wanted = bar_wanted(dev, i, &base);
        if (bar->mapped && wanted && bar->base == base)
            continue;
        bar_unmap(dev, bar);
        if (wanted)
            bar_map(dev, bar, base);
    }
}

/* ---- Interrupts -------------------------------------------------------------------------------
 */

void pci_update_intx(struct pci_device *dev)
{
    struct pci_bus *bus = dev->bus;
    bool disabled = (pci_get16(dev, PCI_COMMAND) & PCI_COMMAND_INTX_DISABLE) != 0;
    bool level = dev->intx && !disabled && !msix_enabled(dev) && !msi_enabled(dev);
    dev->config[PCI_STATUS] &= (uint8_t)~PCI_STATUS_INTERRUPT;
    if (dev->intx)
        dev->config[PCI_STATUS] |= PCI_STATUS_INTERRUPT;
    if (level == dev->intx_driven || !dev->config[PCI_INTERRUPT_PIN])
        return;
    dev->intx_driven = level;
    unsigned pirq = pci_pirq(dev->devfn, dev->config[PCI_INTERRUPT_PIN] - 1u);
    bool before = bus->pirq_count[pirq] != 0;
    bus->pirq_count[pirq] += level ? 1 : -1;
    bool after = bus->pirq_count[pirq] != 0;
    if (before != after && bus->pirq_changed)
        bus->pirq_changed(bus->bridge, pirq, after);
}

void pci_set_intx(struct pci_device *dev, bool level)
{
    dev->intx = level;
    pci_update_intx(dev);
}

unsigned pci_pirq(uint8_t devfn, unsigned pin)
{
    /* The board's wiring: slot 1 has INTA# on PIRQA, and each slot turns by one. */
    return ((devfn >> 3) + 3 + pin) & 3;
}

/* ---- Configuration accesses -------------------------------------------------------------------
 */

static bool overlaps(unsigned offset, unsigned size, unsigned first, unsigned count)
{
    return offset < first + count && first < offset + size;
}

uint32_t pci_config_read(struct pci_bus *bus, uint8_t devfn, unsigned offset, unsigned size)
{
    struct pci_device *dev = bus->devices[devfn];
    if (!dev)
        return UINT32_MAX >> (32 - 8 * size); /* 3.2.2.3.4: master abort */
    if (dev->config_read)
        dev->config_read(dev, offset, size);
    uint32_t value = 0;
    for (unsigned i = 0; i < size && offset + i < PCI_CONFIG_SIZE; i++)
        value |= (uint32_t)dev->config[offset + i] << 8 * i;
    return value;
}

static void master_changed(struct pci_device *dev, bool before)
{
    if (before && !pci_bus_master(dev) && dev->master_off)
        dev->master_off(dev);
}

void pci_config_write(struct pci_bus *bus, uint8_t devfn, unsigned offset, unsigned size,
                      uint32_t value)
{
    struct pci_device *dev = bus->devices[devfn];
    if (!dev)
        return;
    const bool master = pci_bus_master(dev);
    for (unsigned i = 0; i < size && offset + i < PCI_CONFIG_SIZE; i++) {
        uint8_t mask = dev->writable[offset + i];
        uint8_t *byte = &dev->config[offset + i];
        *byte = (uint8_t)((*byte & ~mask) | (value >> 8 * i & mask));
    }
    if (overlaps(offset, size, PCI_COMMAND, 2) || overlaps(offset, size, PCI_BAR0, 4 * PCI_BARS) ||
        overlaps(offset, size, PCI_ROM_ADDRESS, 4))
        update_bars(dev);
    if (dev->msix.capability && overlaps(offset, size, dev->msix.capability + 2u, 2))
        msix_control_changed(dev);
    if (overlaps(offset, size, PCI_COMMAND, 2) || (dev->msi && overlaps(offset, size, dev->msi, 4)))
        pci_update_intx(dev);
    master_changed(dev, master);
    if (dev->config_written)
        dev->config_written(dev, offset, size);
}

/* ---- Life on the bus --------------------------------------------------------------------------
 */

bool pci_device_add(struct pci_bus *bus, struct pci_device *dev, int devfn, struct error *err)
{
    if (devfn == PCI_FIRST_FREE) {
        /* Slots 1 and 2 are the ISA bridge's and, on this board, the display adapter's. */
        for (devfn = PCI_DEVFN(3, 0); devfn < 256 && bus->devices[devfn]; devfn += 8)
            ;
    }
    if (devfn < 0 || devfn > 255)
        return error_set(err, "%s: all 32 slots of the PCI bus are taken", dev->dev.name);
    if (bus->devices[devfn])
        return error_set(err, "%s: PCI slot %02x.%x is taken by %s", dev->dev.name, devfn >> 3,
                         devfn & 7, bus->devices[devfn]->dev.name);
    if (dev->config[PCI_INTERRUPT_PIN]) {
        dev->writable[PCI_INTERRUPT_LINE] = 0xff;
        dev->writable[PCI_COMMAND + 1] |= PCI_COMMAND_INTX_DISABLE >> 8;
    }
    dev->bus = bus;
    dev->devfn = (uint8_t)devfn;
    memcpy(dev->initial, dev->config, sizeof(dev->initial));
    bus->devices[devfn] = dev;
    msix_reset(dev);
    return true;
}

void pci_device_reset(struct pci_device *dev)
{
    const bool master = pci_bus_master(dev);
    memcpy(dev->config, dev->initial, sizeof(dev->config));
    master_changed(dev, master);
    update_bars(dev);
    msix_reset(dev);
    pci_set_intx(dev, false);
}

void pci_device_remove(struct pci_device *dev)
{
    if (!dev->bus)
        return;
    for (unsigned i = 0; i < PCI_REGIONS; i++)
        bar_unmap(dev, &dev->bars[i]);
    pci_set_intx(dev, false);
    dev->bus->devices[dev->devfn] = NULL;
    dev->bus = NULL;
}

void pci_device_restored(struct pci_device *dev)
{
    update_bars(dev);
    pci_update_intx(dev);
}

/* ---- DMA --------------------------------------------------------------------------------------
 */

bool pci_bus_master(const struct pci_device *dev)
{
    return (pci_get16(dev, PCI_COMMAND) & PCI_COMMAND_MASTER) != 0;
}

/* Only memory, never registers: see internal/pci.h. */
bool pci_dma_possible(const struct pci_device *dev, uint64_t gpa, size_t len)
{
    if (!pci_bus_master(dev))
        return false;
    while (len) {
        uint64_t there = 0;
        if (!phys_hva(dev->bus->board->map, gpa, &there) || !there)
            return false;
        if (there >= len)
            return true;
        len -= (size_t)there;
        if (gpa + there < gpa)
            return false;
        gpa += there;
    }
    return true;
}

static struct access dma_access(const struct pci_device *dev)
{
    return (struct access){.initiator = INITIATOR_DMA, .device = dev->devfn};
}

bool pci_dma_read(struct pci_device *dev, uint64_t gpa, void *buf, size_t len)
{
    struct access access = dma_access(dev);
    return pci_dma_possible(dev, gpa, len) &&
           phys_read(dev->bus->board->map, &access, gpa, buf, len) == PHYS_OK;
}

struct phys_loan *pci_dma_lend(struct pci_device *dev, bool to_memory, unsigned pieces)
{
    return pci_bus_master(dev) ? phys_loan_new(dev->bus->board->map, to_memory, pieces) : NULL;
}

bool pci_dma_write(struct pci_device *dev, uint64_t gpa, const void *buf, size_t len)
{
    struct access access = dma_access(dev);
    return pci_dma_possible(dev, gpa, len) &&
           phys_write(dev->bus->board->map, &access, gpa, buf, len) == PHYS_OK;
}
