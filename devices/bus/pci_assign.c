/*
 * pci_assign.c - what firmware would do with the bus, for machines that start without any: places
 * the BARs, routes the interrupts, enables decoding. The choices (windows, IRQ 10 and 11) are those
 * that operating systems meet on this board under its usual BIOS.
 *
 * An expansion ROM gets its place, but is not switched on.
 *
 * Everything goes through configuration and port writes, as if code in the guest had done it.
 */
#include "internal/error.h"
#include "internal/pci.h"

#define IO_WINDOW_START 0xc000u
#define IO_WINDOW_END   0x10000u
#define ELCR            0x4d0 /* edge/level control of the two interrupt controllers */
#define PIIX3_PIRQRC    0x60
#define PIIX3_IDETIM    0x40
#define IDETIM_DECODE   0x8000u
#define SCI_IRQ         9

static const uint8_t pirq_irqs[4] = {10, 10, 11, 11};

/* The window of each kind as it is used up: memory shrinks from its end, I/O from its start. */
struct windows {
    uint64_t mem_start, mem_end;
    uint32_t io_next;
};

static void place(struct pci_device *dev, unsigned index, uint64_t base)
{
    unsigned offset = pci_bar_register(index);
    pci_config_write(dev->bus, dev->devfn, offset, 4, (uint32_t)base);
    if (dev->bars[index].kind == PCI_BAR_MEM64)
        pci_config_write(dev->bus, dev->devfn, offset + 4, 4, (uint32_t)(base >> 32));
}

static bool assign_bar(struct windows *w, struct pci_device *dev, unsigned index, struct error *err)
{
    const struct pci_bar *bar = &dev->bars[index];
    if (bar->kind == PCI_BAR_IO) {
        uint32_t base = (w->io_next + (uint32_t)bar->size - 1) & ~((uint32_t)bar->size - 1);
        if (base + bar->size > IO_WINDOW_END)
            return error_set(err, "%s: no I/O ports left for %s", dev->dev.name, bar->name);
        w->io_next = base + (uint32_t)bar->size;
        place(dev, index, base);
        return true;
    }
    if (w->mem_end - w->mem_start < bar->size)
        return error_set(err, "%s: no address space left for %s", dev->dev.name, bar->name);
    uint64_t base = (w->mem_end - bar->size) & ~(bar->size - 1);
    if (base < w->mem_start)
        return error_set(err, "%s: no address space left for %s", dev->dev.name, bar->name);
    w->mem_end = base;
    place(dev, index, base);
    return true;
}

/* Largest first, so that natural alignment wastes nothing. */
static bool assign_bars(struct pci_bus *bus, struct windows *w, struct error *err)
{
    for (uint64_t size = 1ull << 40; size; size >>= 1)
        for (unsigned devfn = 0; devfn < 256; devfn++)
            for (unsigned i = 0; bus->devices[devfn] && i < PCI_REGIONS; i++) {
                const struct pci_bar *bar = &bus->devices[devfn]->bars[i];
                if (bar->kind != PCI_BAR_NONE && bar->size == size &&
                    !assign_bar(w, bus->devices[devfn], i, err))
                    return false;
            }
    return true;
}

/* PIRQs to their interrupts in the ISA bridge, and those to level triggering. */
static void route_interrupts(struct pci_bus *bus)
{
    static const struct access access = {.initiator = INITIATOR_LOADER};
    struct io_space *io = bus->board->io;
    uint32_t elcr = io_read(io, &access, ELCR, 1) | io_read(io, &access, ELCR + 1, 1) << 8;
    for (unsigned pirq = 0; pirq < 4; pirq++) {
        pci_config_write(bus, PCI_DEVFN(1, 0), PIIX3_PIRQRC + pirq, 1, pirq_irqs[pirq]);
        elcr |= 1u << pirq_irqs[pirq];
    }
    io_write(io, &access, ELCR, 1, elcr & 0xff);
    io_write(io, &access, ELCR + 1, 1, elcr >> 8);
}

static void enable(struct pci_device *dev)
{
    uint8_t pin = dev->config[PCI_INTERRUPT_PIN];
    if (pin) {
        uint8_t irq = pirq_irqs[pci_pirq(dev->devfn, pin - 1u)];
        if (dev->devfn == PCI_DEVFN(1, 3)) /* the PM function's SCI does not use the PIRQs */
            irq = SCI_IRQ;
        pci_config_write(dev->bus, dev->devfn, PCI_INTERRUPT_LINE, 1, irq);
    }
    if (dev->devfn == PCI_DEVFN(1, 1)) /* PIIX3's IDE: IDETIM, both channels are decoded */
        pci_config_write(dev->bus, dev->devfn, PIIX3_IDETIM, 4,
                         IDETIM_DECODE << 16 | IDETIM_DECODE);
    uint32_t command = pci_config_read(dev->bus, dev->devfn, PCI_COMMAND, 2);
    pci_config_write(dev->bus, dev->devfn, PCI_COMMAND, 2,
                     command | PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_SERR);
}

bool pci_assign_resources(struct pci_bus *bus, uint64_t mem_start, uint64_t mem_end,
                          struct error *err)
{
    struct windows windows = {mem_start, mem_end, IO_WINDOW_START};
    if (!assign_bars(bus, &windows, err))
        return false;
    route_interrupts(bus);
    for (unsigned devfn = 0; devfn < 256; devfn++)
        if (bus->devices[devfn])
            enable(bus->devices[devfn]);
    return true;
}
