/*
 * options.h - what options.c and options_device.c share. Private to src/machine.
 */
#ifndef MACHINE_OPTIONS_H
#define MACHINE_OPTIONS_H

#include "internal/error.h"
#include "internal/machine.h"
#include "keyval.h"

struct options {
    struct machine_config *config;
    FILE *info;
    struct error *err;
    bool informed; /* a help text has been written */
    bool nographic, no_display, nodefaults, snapshot, serial_given, vga_device, bare;
    /* -device virtio-blk-pci,drive=ID, to be resolved when all drives are known */
    char *drive_ids[MACHINE_MAX_DEVICES];
    char *bus_names[MACHINE_MAX_DEVICES]; /* likewise: bus= and unit=; NULL, -1: not given */
    int units[MACHINE_MAX_DEVICES];
    int targets[MACHINE_MAX_DEVICES]; /* scsi-id=; -1: not given */
};

bool option_drive(struct options *o, const char *arg);
/* What is said of the image, not of its controller (options_image.c). */
bool option_drive_image(const struct keyval *kv, struct drive_config *drive, struct error *err);
struct drive_config *option_new_drive(struct options *o, const char *file, const char *id);
/* -fda and -fdb; the place of -drive if=floppy. */
bool option_floppy(struct options *o, unsigned index, const char *file);
bool option_floppy_place(struct options *o, const struct keyval *kv, struct drive_config *drive);
/* Where it is plugged in (options_ide.c); then -hda to -hdd, -cdrom; then all that is IDE, after
 * the last option. */
bool option_drive_place(struct options *o, const struct keyval *kv, struct drive_config *drive);
bool option_drive_index(struct options *o, unsigned index, bool cdrom, const char *file,
                        const char *what);
bool options_attach_ide(struct options *o);
/* What -device says of SCSI adapters and drives (options_scsi.c); then where the drives are. */
bool option_scsi_device(struct options *o, const struct keyval *kv, struct device_config *device,
                        const char *what);
bool option_is_scsi(const struct device_config *d);
bool options_attach_scsi(struct options *o);
/* An IDE disk in the next place. */
bool option_disk(struct options *o, const char *file);
/* A file without an option: looked at, and used as what it is (options_bare.c). */
bool option_bare(struct options *o, const char *path);
/* -pflash; the place of -drive if=pflash (options_firmware.c). */
bool option_pflash(struct options *o, const char *file);
bool option_pflash_place(struct options *o, const struct keyval *kv, struct drive_config *drive);
bool option_firmware_folder(struct options *o, const char *arg);
bool option_boot(struct options *o, const char *arg);
bool option_fw_cfg(struct options *o, const char *arg);
/* -smbios and -uuid (options_smbios.c), as rows of the table call them. */
struct option;
bool option_smbios(struct options *o, const struct option *option, const char *arg);
bool option_uuid(struct options *o, const struct option *option, const char *arg);
void smbios_config_free(struct smbios_config *smbios);
bool option_device(struct options *o, const char *arg);
/* Joins devices and drives after the last option; drives with an interface get a
 * device. */
bool options_attach_drives(struct options *o);

#endif
