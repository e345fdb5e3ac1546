/*
 * piix4_pm.c - configuration space of the power-management function of Intel's 82371AB (PIIX4).
 * Intel 82371AB datasheet (290562), chapter 7.
 *
 *     40h  PMBA       15:6 base of the ACPI registers (64 ports) | 0 = 1, I/O space
 *     58h  DEVACTB    25 = writes to the APM control port raise an SMI
 *     80h  PMREGMISC  0 = the registers at PMBA are decoded
 *
 * The registers themselves are another chip's. There is no system management mode: DEVACTB's bit 25
 * is set from the start, by which SeaBIOS knows that somebody else sees to the APM port, and does
 * not set SMM up. There is no SMBus controller (90h reads zero). The SCI is hardwired to interrupt
 * 9 and does not go through a PIRQ, although the header names INTA#.
 */
#include "internal/error.h"
#include "internal/pci.h"
#include <stdlib.h>
#include <string.h>

enum { PIIX4_PMBA = 0x40, PIIX4_DEVACTB = 0x58, PIIX4_PMREGMISC = 0x80 };
#define DEVACTB_APMC_EN (1u << 25)

struct piix4_pm {
    struct pci_device pci;
    struct piix4_pm_port port;
};

static const struct field piix4_pm_fields[] = {PCI_DEVICE_FIELDS(struct piix4_pm, pci)};
static const struct state_desc piix4_pm_state = STATE_DESC("piix4-pm", 1, piix4_pm_fields);

static void move(struct piix4_pm *pm)
{
    bool decoded = pm->pci.config[PIIX4_PMREGMISC] & 1;
    pm->port.moved(pm->port.opaque, decoded ? pci_get16(&pm->pci, PIIX4_PMBA) & (uint16_t)~1u : 0);
}

static void piix4_pm_written(struct pci_device *dev, unsigned offset, unsigned size)
{
    if ((offset < PIIX4_PMBA + 2 && offset + size > PIIX4_PMBA) ||
        (offset <= PIIX4_PMREGMISC && offset + size > PIIX4_PMREGMISC))
        move((struct piix4_pm *)dev);
}

static void piix4_pm_reset(struct device *dev)
{
    pci_device_reset(&((struct piix4_pm *)dev)->pci);
    move((struct piix4_pm *)dev);
}

static void piix4_pm_restored(struct device *dev)
{
    pci_device_restored(&((struct piix4_pm *)dev)->pci);
    move((struct piix4_pm *)dev);
}

static void piix4_pm_destroy(struct device *dev)
{
    pci_device_remove(&((struct piix4_pm *)dev)->pci);
    free(dev);
}

struct pci_device *piix4_pm_create(struct pci_bus *bus, const struct piix4_pm_port *port,
                                   struct error *err)
{
    static const struct pci_identity identity = {.vendor = 0x8086,
                                                 .device = 0x7113,
                                                 .subsystem_vendor = 0x1af4,
                                                 .subsystem = 0x1100,
                                                 .revision = 3,
                                                 .class_code = 0x068000};
    struct piix4_pm *pm = calloc(1, sizeof(*pm));
    if (!pm) {
        error_set(err, "piix4-pm: out of memory");
        return NULL;
    }
    pm->pci.dev = (struct device){.name = "piix4-pm",
                                  .state = &piix4_pm_state,
                                  .reset = piix4_pm_reset,
                                  .destroy = piix4_pm_destroy,
                                  .restored = piix4_pm_restored};
    pci_device_init(&pm->pci, &identity);
    pm->pci.writable[PCI_COMMAND] |= PCI_COMMAND_IO;
    pci_put16(&pm->pci, PCI_STATUS, 0x0280);
    pm->pci.config[PCI_INTERRUPT_PIN] = 1;
    pci_put32(&pm->pci, PIIX4_PMBA, 1);
    pm->pci.writable[PIIX4_PMBA] = 0xc0;
    pm->pci.writable[PIIX4_PMBA + 1] = 0xff;
    pm->pci.writable[PIIX4_PMREGMISC] = 1;
    pci_put32(&pm->pci, PIIX4_DEVACTB, DEVACTB_APMC_EN);
    memset(&pm->pci.writable[PIIX4_DEVACTB], 0xff, 4);
    pm->pci.config_written = piix4_pm_written;
    pm->port = *port;
    if (!pci_device_add(bus, &pm->pci, PCI_DEVFN(1, 3), err)) {
        free(pm);
        return NULL;
    }
    return &pm->pci;
}

void piix4_pm_decode(struct pci_bus *bus, uint16_t base)
{
    pci_config_write(bus, PCI_DEVFN(1, 3), PIIX4_PMBA, 2, base);
    pci_config_write(bus, PCI_DEVFN(1, 3), PIIX4_PMREGMISC, 1, 1);
}
