/*
 * options_device.c - -drive and -device.
 */
#include "options.h"
#include <stdlib.h>
#include <string.h>

/* ---- Drives ---------------------------------------------------------------------------------- */

struct drive_config *option_new_drive(struct options *o, const char *file, const char *id)
{
    struct machine_config *c = o->config;
    if (c->drive_count == MACHINE_MAX_DRIVES) {
        error_set(o->err, "more than %d drives", MACHINE_MAX_DRIVES);
        return NULL;
    }
    struct drive_config *drive = &c->drives[c->drive_count++];
    drive->file = copy_string(file);
    drive->id = copy_string(id);
    return drive;
}

static bool fill_drive(struct options *o, const struct keyval *kv)
{
    static const char *const keys[] = {"file",  "if",   "format",   "readonly", "read-only",
                                       "index", "id",   "snapshot", "media",    "cache",
                                       "aio",   "unit", "bus",      "discard",  "detect-zeroes",
                                       NULL};
    static const char *const interfaces[] = {"ide", "virtio", "pflash", "floppy", "none", NULL};
    static const char *const medias[] = {"disk", "cdrom", NULL};
    struct error *err = o->err;
    const char *file = keyval_get(kv, "file"), *id = keyval_get(kv, "id");
    const char *interface = keyval_get(kv, "if"), *media = keyval_get(kv, "media");
    int chosen = DRIVE_IDE, medium = 0;

    if (!keyval_only(kv, keys, "-drive", err) ||
        (media && (medium = choose_word(media, medias, "-drive: media", err)) < 0))
        return false;
    if (!medium && (!file || !*file))
        return error_set(err, "-drive: needs file=PATH");
    if (interface && strcmp(interface, "scsi") == 0)
        return error_set(err,
                         "-drive: if=scsi: a PC has no SCSI adapter of its own; give the drive "
                         "if=none,id=ID, with -device virtio-scsi-pci -device "
                         "scsi-hd,drive=ID (or scsi-cd)");
    if (interface && (chosen = choose_word(interface, interfaces, "-drive: if", err)) < 0)
        return false;
    for (unsigned i = 0; id && i < o->config->drive_count; i++)
        if (strcmp(o->config->drives[i].id, id) == 0)
            return error_set(err, "-drive: id '%s' is used twice", id);
    struct drive_config *drive = option_new_drive(o, file ? file : "", id ? id : "");
    if (!drive)
        return false;
    drive->interface = (enum drive_interface)chosen;
    drive->cdrom = medium;
    if (!*drive->file && chosen == DRIVE_VIRTIO)
        return error_set(err, "-drive: if=virtio needs file=PATH");
    if (!option_drive_image(kv, drive, err))
        return false;
    if (chosen == DRIVE_FLOPPY   ? !option_floppy_place(o, kv, drive)
        : chosen == DRIVE_PFLASH ? !option_pflash_place(o, kv, drive)
                                 : !option_drive_place(o, kv, drive))
        return false;
    drive->read_only |= drive->cdrom;
    return true;
}

bool option_drive(struct options *o, const char *arg)
{
    struct keyval kv;
    bool ok = keyval_parse(&kv, arg, NULL, "-drive", o->err) && fill_drive(o, &kv);
    keyval_free(&kv);
    return ok;
}

/* ---- Devices --------------------------------------------------------------------------------- */

struct device_type {
    const char *name, *alias;
    enum device_kind kind;
    const char *help;
    const char *keys[12]; /* NULL-terminated */
    uint16_t port, ports;
};

static const struct device_type device_types[] = {
    {"virtio-blk-pci",
     "virtio-blk",
     DEVICE_VIRTIO_BLK,
     "disk on the PCI bus",
     {"driver", "id", "drive", "serial", "addr", "bootindex", NULL},
     0,
     0},
    {"virtio-rng-pci",
     "virtio-rng",
     DEVICE_VIRTIO_RNG,
     "random numbers, on the PCI bus",
     {"driver", "id", "addr", NULL},
     0,
     0},
    {"VGA",
     NULL,
     DEVICE_VGA,
     "the display adapter of -vga std, on the PCI bus",
     {"driver", "id", "addr", "vgamem_mb", "romfile", NULL},
     0,
     0},
    {"ide-hd",
     NULL,
     DEVICE_IDE_HD,
     "disk at an IDE channel or AHCI port",
     {"driver", "id", "drive", "bus", "unit", "serial", "model", "wwn", "bootindex", NULL},
     0,
     0},
    {"ide-cd",
     NULL,
     DEVICE_IDE_CD,
     "CD-ROM drive at an IDE channel or AHCI port",
     {"driver", "id", "drive", "bus", "unit", "serial", "model", "wwn", "bootindex", NULL},
     0,
     0},
    {"ich9-ahci",
     "ahci",
     DEVICE_AHCI,
     "SATA controller on the PCI bus; its ports are ID.0 to ID.5",
     {"driver", "id", "addr", NULL},
     0,
     0},
    {"virtio-scsi-pci",
     "virtio-scsi",
     DEVICE_VIRTIO_SCSI,
     "SCSI adapter on the PCI bus; its bus is ID.0",
     {"driver", "id", "addr", "num_queues", NULL},
     0,
     0},
    {"scsi-hd",
     NULL,
     DEVICE_SCSI_HD,
     "disk at a SCSI adapter",
     {"driver", "id", "drive", "bus", "channel", "scsi-id", "lun", "serial", "wwn", "bootindex",
      NULL},
     0,
     0},
    {"scsi-cd",
     NULL,
     DEVICE_SCSI_CD,
     "CD-ROM drive at a SCSI adapter",
     {"driver", "id", "drive", "bus", "channel", "scsi-id", "lun", "serial", "bootindex", NULL},
     0,
     0},
    {"isa-debug-exit",
     NULL,
     DEVICE_DEBUG_EXIT,
     "a port that ends Bailey: status (value << 1) | 1",
     {"driver", "id", "iobase", "iosize", NULL},
     0x501,
     2},
    {"pvpanic",
     NULL,
     DEVICE_PVPANIC,
     "a port by which the guest reports a panic",
     {"driver", "id", "ioport", NULL},
     0x505,
     1},
};
enum { DEVICE_TYPES = sizeof(device_types) / sizeof(device_types[0]) };

static void list_devices(FILE *out)
{
    fputs("Devices for -device:\n", out);
    for (unsigned i = 0; i < DEVICE_TYPES; i++) {
        fprintf(out, "  %-16s %s (", device_types[i].name, device_types[i].help);
        for (unsigned k = 1; device_types[i].keys[k]; k++)
            fprintf(out, "%s%s=", k > 1 ? "," : "", device_types[i].keys[k]);
        fputs(")\n", out);
    }
}

static const struct device_type *find_device_type(const char *name, struct error *err)
{
    const char *names[DEVICE_TYPES + 1] = {NULL};
    for (unsigned i = 0; i < DEVICE_TYPES; i++) {
        const struct device_type *type = &device_types[i];
        if (strcmp(name, type->name) == 0 || (type->alias && strcmp(name, type->alias) == 0))
            return type;
        names[i] = type->name;
    }
    choose_word(name, names, "-device", err);
    return NULL;
}

/* addr=SLOT or SLOT.FUNCTION, in hexadecimal as QEMU has it. */
static bool parse_slot(const struct keyval *kv, int *devfn, struct error *err)
{
    const char *text = keyval_get(kv, "addr");
    unsigned slot, function = 0;
    char more;
    if (!text)
        return true;
    int got = sscanf(text, "%x.%x%c", &slot, &function, &more);
    if (got < 1 || got > 2 || slot > 31 || function > 0)
        return error_set(err, "-device: addr=%s is no PCI slot (1 to 1f)", text);
    *devfn = (int)(slot << 3);
    return true;
}

static bool fill_device(struct options *o, const struct keyval *kv)
{
    struct machine_config *c = o->config;
    struct error *err = o->err;
    const char *name = keyval_get(kv, "driver");
    const char *serial = keyval_get(kv, "serial"), *drive = keyval_get(kv, "drive");
    if (!name)
        return error_set(err, "-device: needs a device's name first; -device help lists them");
    const struct device_type *type = find_device_type(name, err);
    if (!type)
        return false;
    char what[48];
    snprintf(what, sizeof(what), "-device %s", type->name);
    if (!keyval_only(kv, type->keys, what, err))
        return false;
    if (c->device_count == MACHINE_MAX_DEVICES)
        return error_set(err, "-device: more than %d devices", MACHINE_MAX_DEVICES);
    if (type->kind == DEVICE_VIRTIO_BLK && !drive)
        return error_set(err, "%s: needs drive=ID", what);

    uint64_t port = type->port, ports = type->ports, vgamem = 0, unit = 0, boot = 0;
    const char *romfile = keyval_get(kv, "romfile");
    struct device_config *device = &c->devices[c->device_count];
    *device = (struct device_config){.kind = type->kind, .devfn = -1, .bootindex = -1};
    if (!parse_slot(kv, &device->devfn, err) ||
        !keyval_number(kv, "iobase", 0xffff, &port, "-device", err) ||
        !keyval_number(kv, "ioport", 0xffff, &port, "-device", err) ||
        !keyval_number(kv, "iosize", 8, &ports, "-device", err) ||
        !keyval_number(kv, "vgamem_mb", 256, &vgamem, "-device", err) ||
        !keyval_number(kv, "unit", 255, &unit, what, err) ||
        !keyval_number(kv, "wwn", UINT64_MAX, &device->wwn, what, err) ||
        !keyval_number(kv, "bootindex", INT32_MAX, &boot, what, err) ||
        !option_scsi_device(o, kv, device, what))
        return false;
    device->vgamem_mb = (uint32_t)vgamem;
    device->romfile = romfile ? copy_string(romfile) : NULL;
    o->vga_device |= type->kind == DEVICE_VGA;
    device->port = (uint16_t)port;
    device->ports = (uint16_t)ports;
    if (ports == 0 && type->kind == DEVICE_DEBUG_EXIT)
        return error_set(err, "-device: iosize=0 leaves no port");
    const char *id = keyval_get(kv, "id"), *model = keyval_get(kv, "model");
    const char *bus = keyval_get(kv, "bus");
    if (keyval_get(kv, "bootindex"))
        device->bootindex = (int)boot;
    device->id = copy_string(id ? id : "");
    device->serial = copy_string(serial ? serial : "");
    device->model = copy_string(model ? model : "");
    o->units[c->device_count] = keyval_get(kv, "unit") ? (int)unit : -1;
    o->bus_names[c->device_count] = bus ? copy_string(bus) : NULL;
    o->drive_ids[c->device_count++] = drive ? copy_string(drive) : NULL;
    return true;
}

bool option_device(struct options *o, const char *arg)
{
    struct keyval kv;
    if (strcmp(arg, "help") == 0 || strcmp(arg, "?") == 0) {
        list_devices(o->info);
        o->informed = true;
        return true;
    }
    bool ok = keyval_parse(&kv, arg, "driver", "-device", o->err) && fill_device(o, &kv);
    keyval_free(&kv);
    return ok;
}

/* ---- Who has which drive --------------------------------------------------------------------- */

static bool resolve_drive(struct options *o, struct device_config *device, const char *id)
{
    struct machine_config *c = o->config;
    const char *ids[MACHINE_MAX_DRIVES + 1] = {NULL};
    unsigned count = 0;
    for (unsigned i = 0; i < c->drive_count; i++) {
        struct drive_config *drive = &c->drives[i];
        if (*drive->id && strcmp(drive->id, id) == 0) {
            if (drive->attached || drive->interface != DRIVE_NONE)
                return error_set(o->err,
                                 "-device: drive '%s' already has a device (give it if=none)", id);
            if (device->kind == DEVICE_VIRTIO_BLK && !*drive->file)
                return error_set(o->err, "-device virtio-blk-pci: drive '%s' has no file=PATH", id);
            device->drive = drive;
            drive->attached = true;
            drive->read_only |= device->kind == DEVICE_IDE_CD || device->kind == DEVICE_SCSI_CD;
            return true;
        }
        if (*drive->id)
            ids[count++] = drive->id;
    }
    if (count == 0)
        return error_set(o->err,
                         "-device: there is no drive '%s'; -drive if=none,id=%s,file=PATH "
                         "makes one",
                         id, id);
    return choose_word(id, ids, "-device: drive", o->err) >= 0;
}

bool options_attach_drives(struct options *o)
{
    struct machine_config *c = o->config;
    for (unsigned i = 0; i < c->device_count; i++)
        if (o->drive_ids[i] && !resolve_drive(o, &c->devices[i], o->drive_ids[i]))
            return false;
    for (unsigned i = 0; i < c->drive_count; i++) {
        struct drive_config *drive = &c->drives[i];
        drive->snapshot |= o->snapshot;
        if (drive->interface != DRIVE_VIRTIO)
            continue;
        if (c->device_count == MACHINE_MAX_DEVICES)
            return error_set(o->err, "-drive: more than %d devices", MACHINE_MAX_DEVICES);
        c->devices[c->device_count++] = (struct device_config){.kind = DEVICE_VIRTIO_BLK,
                                                               .drive = drive,
                                                               .devfn = -1,
                                                               .bootindex = -1,
                                                               .id = copy_string(""),
                                                               .serial = copy_string(""),
                                                               .model = copy_string("")};
        drive->attached = true;
    }
    return options_attach_scsi(o) && options_attach_ide(o);
}
