/*
 * ata.h - ATA disks and ATAPI CD-ROM drives, and the controllers that they are plugged into.
 *
 * A drive is a device of its own; a controller has places for drives, called hosts here: each
 * channel of PIIX3's IDE function is a host for two drives (units 0 and 1: master and slave), each
 * port of an AHCI controller a host for one. All functions are called with the machine lock held,
 * or before the machine runs.
 *
 *     struct pci_device *ide = piix3_ide_create(bus, lines_of_irq_14_and_15, &err);
 *     struct device *disk = ata_drive_create(piix3_ide_host(ide, 0), 0, &options, &err);
 *     add both to the machine's device list, the controller first: it must be destroyed last.
 */
#ifndef INTERNAL_ATA_H
#define INTERNAL_ATA_H

#include "internal/pci.h"

struct ata_host;
struct blockdev;

#define AHCI_PORTS 6

struct ata_drive_options {
    bool cdrom;            /* an ATAPI CD/DVD-ROM drive; else a disk */
    struct blockdev *disk; /* the image, which must outlive the drive; NULL: no medium (cdrom) */
    const char *serial;    /* up to 20 characters; NULL or "": "BL" and a number */
    const char *model;     /* up to 40 characters; NULL or "": BAILEY HARDDISK, BAILEY DVD-ROM */
    unsigned number;       /* of the drive in its machine, for serial numbers */
    uint64_t wwn;          /* world wide name; 0: none */
};

/* A drive at place `unit` of the host. Fails when the place is taken. */
struct device *ata_drive_create(struct ata_host *host, unsigned unit,
                                const struct ata_drive_options *options, struct error *err);

/* Puts another medium into a CD-ROM drive; NULL: takes it out and leaves the tray open. Without
 * `force` only if the guest has not locked the tray; it is told of the wish then. The drive does
 * not begin any more requests at the old image, but may wait for one: closing it comes next. */
bool ata_drive_change(struct device *drive, struct blockdev *image, bool force, struct error *err);

/* 82371SB (PIIX3) function 1, IDE, 8086:7010 at 00:01.1. irqs[0] and [1] are ISA interrupts 14 and
 * 15. */
struct pci_device *piix3_ide_create(struct pci_bus *bus, const struct irq_line irqs[2],
                                    struct error *err);
struct ata_host *piix3_ide_host(struct pci_device *ide, unsigned channel);

/* 82801IR (ICH9) AHCI controller 8086:2922 with AHCI_PORTS ports. */
struct pci_device *ahci_create(struct pci_bus *bus, int devfn, struct error *err);
struct ata_host *ahci_host(struct pci_device *ahci, unsigned port);

#endif
