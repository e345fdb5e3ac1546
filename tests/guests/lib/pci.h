/*
 * pci.h - PCI configuration mechanism #1 as guests use it (PCI 3.0, 3.2.2.3.2). A device is named
 * by slot << 3 | function on bus 0.
 */
#ifndef GUEST_PCI_H
#define GUEST_PCI_H

#include "machine.h"

enum { PCI_ADDRESS = 0xcf8, PCI_DATA = 0xcfc };
enum {
    PCI_ID = 0x00,
    PCI_COMMAND = 0x04,
    PCI_STATUS = 0x06,
    PCI_REVISION = 0x08,
    PCI_HEADER_TYPE = 0x0e,
    PCI_BAR = 0x10,
    PCI_SUBSYSTEM = 0x2c,
    PCI_CAPABILITIES = 0x34,
    PCI_INTERRUPT_LINE = 0x3c,
    PCI_INTERRUPT_PIN = 0x3d,
};
enum { COMMAND_IO = 1, COMMAND_MEMORY = 2, COMMAND_MASTER = 4, COMMAND_NO_INTX = 0x400 };
enum { STATUS_INTERRUPT = 8, STATUS_CAPABILITIES = 16 };
enum { PIIX3 = 1 << 3, PIIX4_PM = 1 << 3 | 3, NO_DEVICE = 0x100 };

UNUSED_OK void pci_select(unsigned devfn, unsigned reg)
{
    outl(PCI_ADDRESS, 0x80000000u | devfn << 8 | (reg & 0xfc));
}

UNUSED_OK uint32_t pci_read32(unsigned devfn, unsigned reg)
{
    pci_select(devfn, reg);
    return inl(PCI_DATA);
}
UNUSED_OK uint16_t pci_read16(unsigned devfn, unsigned reg)
{
    pci_select(devfn, reg);
    return inw((uint16_t)(PCI_DATA + (reg & 2)));
}
UNUSED_OK uint8_t pci_read8(unsigned devfn, unsigned reg)
{
    pci_select(devfn, reg);
    return inb((uint16_t)(PCI_DATA + (reg & 3)));
}
UNUSED_OK void pci_write32(unsigned devfn, unsigned reg, uint32_t v)
{
    pci_select(devfn, reg);
    outl(PCI_DATA, v);
}
UNUSED_OK void pci_write16(unsigned devfn, unsigned reg, uint16_t v)
{
    pci_select(devfn, reg);
    outw((uint16_t)(PCI_DATA + (reg & 2)), v);
}
UNUSED_OK void pci_write8(unsigned devfn, unsigned reg, uint8_t v)
{
    pci_select(devfn, reg);
    outb((uint16_t)(PCI_DATA + (reg & 3)), v);
}

/* The first device with this id (device << 16 | vendor), from slot `from` on; NO_DEVICE. */
UNUSED_OK unsigned pci_find(uint32_t id, unsigned from)
{
    for (unsigned devfn = from << 3; devfn < 256; devfn++)
        if (pci_read32(devfn, PCI_ID) == id)
            return devfn;
    return NO_DEVICE;
}

/* Where a BAR is. */
UNUSED_OK uint64_t pci_bar(unsigned devfn, unsigned bar)
{
    uint32_t low = pci_read32(devfn, PCI_BAR + 4 * bar);
    if (low & 1)
        return low & ~3u;
    uint64_t high = (low & 6) == 4 ? pci_read32(devfn, PCI_BAR + 4 * bar + 4) : 0;
    return high << 32 | (low & ~15u);
}

/* The first capability of this id at or behind the one at `after` (0: from the start); 0: none. */
UNUSED_OK unsigned pci_capability(unsigned devfn, uint8_t id, unsigned after)
{
    unsigned at = pci_read8(devfn, after ? after + 1 : PCI_CAPABILITIES);
    for (unsigned i = 0; at && i < 48; i++, at = pci_read8(devfn, at + 1))
        if (pci_read8(devfn, at) == id)
            return at;
    return 0;
}

/* Where the ACPI registers are: PIIX4's PMBA. */
UNUSED_OK uint16_t pm_base(void)
{
    return pci_read32(PIIX4_PM, 0x40) & 0xffc0;
}

#endif
