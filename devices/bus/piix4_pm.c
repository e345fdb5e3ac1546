/*
 * piix4_pm.c - configuration space of the power-management function of Intel's 82371AB (PIIX4).
 * Intel 82371AB datasheet (290562), chapter 7.
 *
 *     40h  PMBA       base of the ACPI registers (64 ports) | 0 = 1, I/O space
 *     80h  PMREGMISC  0 = the registers at PMBA are decoded
 *
 * This machine has the ACPI registers at a fixed address, implemented by another chip: PMBA shows
 * it and cannot be changed. There is no SMBus controller (90h reads zero). The SCI is hardwired to
 * interrupt 9 and does not go through a PIRQ, although the header names INTA#.
 */
#include "internal/error.h"
#include "internal/pci.h"
#include <stdlib.h>

enum { PIIX4_PMBA = 0x40, PIIX4_PMREGMISC = 0x80 };

struct piix4_pm {
    struct pci_device pci;
};

static const struct field piix4_pm_fields[] = {PCI_DEVICE_FIELDS(struct piix4_pm, pci)};
static const struct state_desc piix4_pm_state = STATE_DESC("piix4-pm", 1, piix4_pm_fields);

static void piix4_pm_reset(struct device *dev)
{
    pci_device_reset(&((struct piix4_pm *)dev)->pci);
}

static void piix4_pm_restored(struct device *dev)
{
    pci_device_restored(&((struct piix4_pm *)dev)->pci);
}

static void piix4_pm_destroy(struct device *dev)
{
    pci_device_remove(&((struct piix4_pm *)dev)->pci);
    free(dev);
}

struct pci_device *piix4_pm_create(struct pci_bus *bus, uint16_t pm_base, struct error *err)
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
    pci_put32(&pm->pci, PIIX4_PMBA, pm_base | 1u);
    pm->pci.config[PIIX4_PMREGMISC] = 1;
    if (!pci_device_add(bus, &pm->pci, PCI_DEVFN(1, 3), err)) {
        free(pm);
        return NULL;
    }
    return &pm->pci;
}
