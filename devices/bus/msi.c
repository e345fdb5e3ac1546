/*
 * msi.c - MSI with one vector: its address and data are in configuration space. PCI Local Bus
 * Specification 3.0, section 6.8.1.
 *
 *     +2 control: 0 enable | 7 64-bit address   +4 address   +8 its high half   +12 data
 */
#include "internal/log.h"
#include "internal/pci.h"

#define MSI_CONTROL    2
#define CONTROL_ENABLE 0x0001
#define CONTROL_64     0x0080

void msi_init(struct pci_device *dev)
{
    unsigned cap = pci_add_capability(dev, PCI_CAP_ID_MSI, 14);
    dev->msi = (uint8_t)cap;
    pci_put16(dev, cap + MSI_CONTROL, CONTROL_64);
    dev->writable[cap + MSI_CONTROL] = CONTROL_ENABLE;
    for (unsigned i = 4; i < 14; i++)
        dev->writable[cap + i] = 0xff;
    dev->writable[cap + 4] = 0xfc; /* messages are dword writes */
}

bool msi_enabled(const struct pci_device *dev)
{
    return dev->msi && pci_get16(dev, dev->msi + MSI_CONTROL) & CONTROL_ENABLE;
}

void msi_notify(struct pci_device *dev)
{
    const struct msi_port *port = &dev->bus->msi;
    if (!msi_enabled(dev))
        return;
    if (!pci_bus_master(dev)) {
        LOG(dev->bus->board->log, LOG_GUEST_ERRORS, "pci %02x.%x: MSI lost: bus mastering is off\n",
            dev->devfn >> 3, dev->devfn & 7);
        return;
    }
    if (port->send)
        port->send(port->opaque,
                   pci_get32(dev, dev->msi + 4u) | (uint64_t)pci_get32(dev, dev->msi + 8u) << 32,
                   pci_get16(dev, dev->msi + 12u));
}
