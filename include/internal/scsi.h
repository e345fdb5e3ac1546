/*
 * scsi.h - SCSI disks and CD-ROM drives, as the machine plugs them into a host bus adapter.
 *
 * A logical unit is a device of its own. The adapter must be made before its units and destroyed
 * after them, and stands before them on the machine's list. Machine lock, or before it runs.
 *
 *     struct pci_device *adapter = virtio_scsi_create(bus, devfn, 1, &err);
 *     struct device *disk = scsi_unit_create(virtio_scsi_bus(adapter), &options, &err);
 */
#ifndef INTERNAL_SCSI_H
#define INTERNAL_SCSI_H

#include "internal/device.h"

struct blockdev;
struct error;
struct scsi_bus;

#define SCSI_TARGETS 256u
#define SCSI_LUNS    16384u

struct scsi_unit_options {
    bool cdrom;            /* a CD/DVD-ROM drive; else a disk */
    struct blockdev *disk; /* the image, which must outlive the unit; NULL: no medium (cdrom) */
    unsigned target, lun;  /* below SCSI_TARGETS and SCSI_LUNS */
    const char *serial;    /* up to 20 characters; NULL or "": "BL" and a number */
    unsigned number;       /* of the drive in its machine, for serial numbers */
    uint64_t wwn;          /* world wide name; 0: none */
};

/* Fails when the place is taken. */
struct device *scsi_unit_create(struct scsi_bus *bus, const struct scsi_unit_options *options,
                                struct error *err);

#endif
