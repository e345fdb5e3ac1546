/*
 * storage.c - the board's IDE controller, further controllers and the drives behind them, as the
 * configuration has them; and what firmware calls each device that can be booted from.
 */
#include "internal/ata.h"
#include "internal/scsi.h"
#include "pc.h"
#include <string.h>

enum { IDE_IRQ = 14 };

bool storage_build_ide(struct machine *m, struct error *err)
{
    const struct irq_line irqs[2] = {gsi_line(m->gsi, IDE_IRQ), gsi_line(m->gsi, IDE_IRQ + 1)};
    m->ide = piix3_ide_create(m->pci, irqs, err);
    return pc_own(m, m->ide, err);
}

bool storage_build_ahci(struct machine *m, const struct device_config *d, struct error *err)
{
    struct pci_device *ahci = ahci_create(m->pci, d->devfn, err);
    m->controllers[d - m->config->devices] = ahci;
    return pc_own(m, ahci, err);
}

bool storage_build_scsi(struct machine *m, const struct device_config *d, struct error *err)
{
    unsigned queues = d->queues ? d->queues : m->config->cpus;
    struct pci_device *adapter = virtio_scsi_create(m->pci, d->devfn, queues, err);
    m->controllers[d - m->config->devices] = adapter;
    return pc_own(m, adapter, err);
}

bool storage_build_scsi_unit(struct machine *m, const struct device_config *d, struct error *err)
{
    struct pci_device *adapter = m->controllers[d->controller];
    const struct scsi_unit_options options = {
        .cdrom = d->kind == DEVICE_SCSI_CD,
        .disk = d->drive ? m->disks[d->drive - m->config->drives] : NULL,
        .target = d->bus,
        .lun = d->unit,
        .serial = d->serial,
        .number = 1000u + (unsigned)(d - m->config->devices), /* apart from ATA drives' */
        .wwn = d->wwn,
    };
    return pc_own(m, scsi_unit_create(virtio_scsi_bus(adapter), &options, err), err);
}

bool storage_build_drive(struct machine *m, const struct device_config *d, struct error *err)
{
    struct ata_host *host = d->controller < 0 ? piix3_ide_host(m->ide, d->bus)
                                              : ahci_host(m->controllers[d->controller], d->bus);
    const struct ata_drive_options options = {
        .cdrom = d->kind == DEVICE_IDE_CD,
        .disk = d->drive ? m->disks[d->drive - m->config->drives] : NULL,
        .serial = d->serial,
        .model = d->model,
        .number = d->controller < 0 ? d->bus * 2 + d->unit + 1
                                    : 10u * (unsigned)(d->controller + 1) + d->bus,
        .wwn = d->wwn,
    };
    struct device *drive = ata_drive_create(host, d->unit, &options, err);
    if (options.cdrom)
        m->cdroms[d - m->config->devices] = drive;
    return pc_own(m, drive, err);
}

/* ---- Open Firmware's names ---------------------------------------------------------------------
 */

static void slot_name(char *text, size_t size, const struct pci_device *pci)
{
    if (pci->devfn & 7)
        snprintf(text, size, "%x,%x", pci->devfn >> 3, pci->devfn & 7);
    else
        snprintf(text, size, "%x", pci->devfn >> 3);
}

bool storage_boot_path(const struct machine *m, const struct device_config *d, char *path,
                       size_t size)
{
    const struct pci_device *pci = m->controllers[d - m->config->devices];
    char slot[8];
    if (d->kind == DEVICE_IDE_HD || d->kind == DEVICE_IDE_CD)
        pci = d->controller < 0 ? m->ide : m->controllers[d->controller];
    if (d->kind == DEVICE_SCSI_HD || d->kind == DEVICE_SCSI_CD)
        pci = m->controllers[d->controller];
    if (!pci)
        return false;
    slot_name(slot, sizeof(slot), pci);
    switch (d->kind) {
    case DEVICE_IDE_HD:
    case DEVICE_IDE_CD:
        snprintf(path, size, "/pci@i0cf8/%s@%s/drive@%x/disk@%x",
                 d->controller < 0 ? "ide" : "pci8086,2922", slot, d->bus, d->unit);
        return true;
    case DEVICE_VIRTIO_BLK:
        snprintf(path, size, "/pci@i0cf8/scsi@%s/disk@0,0", slot);
        return true;
    case DEVICE_SCSI_HD:
    case DEVICE_SCSI_CD:
        snprintf(path, size, "/pci@i0cf8/scsi@%s/channel@0/disk@%x,%x", slot, d->bus, d->unit);
        return true;
    default:
        return false;
    }
}
