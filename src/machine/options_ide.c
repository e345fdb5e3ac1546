/*
 * options_ide.c - where drives are plugged in: index=, bus= and unit= of -drive if=ide, bus= and
 * unit= of -device ide-hd and ide-cd, and the CD-ROM drive that a PC has without being asked.
 *
 * Places have QEMU's names: ide.0 and ide.1 are the channels of the board's IDE controller, ID.0 to
 * ID.5 the ports of `-device ich9-ahci,id=ID`; those of a controller without an id are the next
 * numbers of ide.N.
 */
#include "options.h"
#include <stdlib.h>
#include <string.h>

enum { IDE_BUSES = 2, IDE_UNITS = 2, AHCI_BUSES = 6, CDROM_INDEX = 2 };

/* ---- -drive ------------------------------------------------------------------------------------
 */

static struct drive_config *drive_at(const struct options *o, unsigned bus, unsigned unit)
{
    for (unsigned i = 0; i < o->config->drive_count; i++) {
        struct drive_config *d = &o->config->drives[i];
        if (d->interface == DRIVE_IDE && d->placed && d->bus == bus && d->unit == unit)
            return d;
    }
    return NULL;
}

static bool place(struct options *o, struct drive_config *drive, unsigned index, const char *what)
{
    unsigned bus = index / IDE_UNITS, unit = index % IDE_UNITS;
    if (drive_at(o, bus, unit))
        return error_set(o->err, "%s: there already is a drive with bus=%u, unit=%u (index=%u)",
                         what, bus, unit, index);
    drive->bus = bus;
    drive->unit = unit;
    return drive->placed = true;
}

/* The first place from `index` on that is free, or `last`. */
static unsigned free_place(const struct options *o, unsigned index, unsigned last)
{
    while (index < last && drive_at(o, index / IDE_UNITS, index % IDE_UNITS))
        index++;
    return index;
}

bool option_disk(struct options *o, const char *file)
{
    unsigned index = free_place(o, 0, IDE_BUSES * IDE_UNITS);
    if (index == IDE_BUSES * IDE_UNITS)
        return error_set(o->err,
                         "%s: all four places for IDE drives are taken; -drive if=virtio "
                         "has more",
                         file);
    return option_drive_index(o, index, false, file, file);
}

bool option_drive_place(struct options *o, const struct keyval *kv, struct drive_config *drive)
{
    uint64_t index = 0, bus = 0, unit = 0;
    bool has_index = keyval_get(kv, "index") != NULL;
    bool has_place = keyval_get(kv, "bus") || keyval_get(kv, "unit");
    unsigned last = drive->interface == DRIVE_IDE ? IDE_BUSES * IDE_UNITS : MACHINE_MAX_DRIVES;
    if (!keyval_number(kv, "index", last - 1, &index, "-drive", o->err) ||
        !keyval_number(kv, "bus", IDE_BUSES - 1, &bus, "-drive", o->err) ||
        !keyval_number(kv, "unit", last / IDE_BUSES - 1, &unit, "-drive", o->err))
        return false;
    if (has_index && has_place)
        return error_set(o->err, "-drive: index= says the same as bus= and unit=; give one");
    if (drive->interface != DRIVE_IDE)
        return true;
    if (has_place)
        index = bus * IDE_UNITS + unit;
    if (!has_index && !has_place)
        index = free_place(o, 0, last);
    if (index == last)
        return error_set(o->err, "-drive: all four places for IDE drives are taken; if=virtio has "
                                 "more");
    return place(o, drive, (unsigned)index, "-drive");
}

/* -hda to -hdd, -cdrom */
bool option_drive_index(struct options *o, unsigned index, bool cdrom, const char *file,
                        const char *what)
{
    struct drive_config *drive = option_new_drive(o, file, "");
    if (!drive)
        return false;
    drive->interface = DRIVE_IDE;
    drive->cdrom = drive->read_only = cdrom;
    return place(o, drive, index, what);
}

/* ---- -device -----------------------------------------------------------------------------------
 */

static bool ide_device(const struct device_config *d)
{
    return d->kind == DEVICE_IDE_HD || d->kind == DEVICE_IDE_CD;
}

/* Is the place taken by an earlier device, or by a -drive if=ide? */
static bool taken(const struct options *o, const struct device_config *before, int controller,
                  unsigned bus, unsigned unit)
{
    for (const struct device_config *d = o->config->devices; d < before; d++)
        if (ide_device(d) && d->controller == controller && d->bus == bus && d->unit == unit)
            return true;
    return controller < 0 && drive_at(o, bus, unit);
}

/* Finds what `name` names among the controllers before `device`: "ide.1", "ahci0.3". */
static bool find_bus(const struct options *o, struct device_config *device, const char *name)
{
    const char *dot = strrchr(name, '.');
    uint64_t number;
    if (!dot || !parse_number(dot + 1, &number))
        return false;
    size_t len = (size_t)(dot - name);
    bool numbered = len == 3 && memcmp(name, "ide", 3) == 0;
    device->controller = -1;
    device->bus = (unsigned)number;
    if (numbered && number < IDE_BUSES)
        return true;
    uint64_t first = IDE_BUSES;
    for (const struct device_config *d = o->config->devices; d < device; d++) {
        if (d->kind != DEVICE_AHCI)
            continue;
        device->controller = (int)(d - o->config->devices);
        if (*d->id) {
            if (strlen(d->id) == len && memcmp(d->id, name, len) == 0)
                return number < AHCI_BUSES;
            continue;
        }
        device->bus = (unsigned)(number - first);
        if (numbered && number >= first && number - first < AHCI_BUSES)
            return true;
        first += AHCI_BUSES;
    }
    return false;
}

static bool first_free(const struct options *o, struct device_config *device)
{
    device->controller = -1;
    for (unsigned index = 0; index < IDE_BUSES * IDE_UNITS; index++) {
        device->bus = index / IDE_UNITS;
        device->unit = index % IDE_UNITS;
        if (!taken(o, device, -1, device->bus, device->unit))
            return true;
    }
    return false;
}

static bool place_device(struct options *o, struct device_config *device, unsigned i)
{
    const char *what = device->kind == DEVICE_IDE_CD ? "-device ide-cd" : "-device ide-hd";
    const char *bus = o->bus_names[i];
    int unit = o->units[i];
    if (!bus && unit < 0)
        return first_free(o, device) ||
               error_set(o->err,
                         "%s: all four places of ide.0 and ide.1 are taken; bus= names one "
                         "of an AHCI controller's",
                         what);
    if (bus ? !find_bus(o, device, bus) : !find_bus(o, device, "ide.0"))
        return error_set(o->err,
                         "%s: there is no bus '%s' yet; there are ide.0, ide.1, and ID.0 to ID.5 "
                         "behind -device ich9-ahci,id=ID",
                         what, bus);
    unsigned units = device->controller < 0 ? IDE_UNITS : 1;
    if (unit < 0)
        for (unit = 0; unit < (int)units - 1; unit++)
            if (!taken(o, device, device->controller, device->bus, (unsigned)unit))
                break;
    if ((unsigned)unit >= units)
        return error_set(o->err, "%s: bus '%s' has no unit %d", what, bus ? bus : "ide.0", unit);
    device->unit = (unsigned)unit;
    if (taken(o, device, device->controller, device->bus, device->unit))
        return error_set(o->err, "%s: unit %d of bus '%s' is taken", what, unit,
                         bus ? bus : "ide.0");
    return true;
}

static bool check_medium(struct options *o, const struct device_config *device)
{
    if (device->kind == DEVICE_IDE_CD || (device->drive && *device->drive->file))
        return true;
    return error_set(o->err, "-device ide-hd: needs drive=ID of a drive with file=PATH");
}

/* An ATA disk has no way to say that it is (ATA-7 knows only commands that fail). */
static bool check_writable(struct options *o, const struct device_config *device)
{
    return device->kind == DEVICE_IDE_CD || !device->drive->read_only ||
           error_set(o->err,
                     "-drive file=%s: an IDE or SATA disk cannot be read-only; with snapshot=on "
                     "instead of readonly=on its file stays as it is",
                     device->drive->file);
}

/* ---- All of them -------------------------------------------------------------------------------
 */

static bool add_device(struct options *o, struct drive_config *drive, bool cdrom, unsigned bus,
                       unsigned unit)
{
    struct machine_config *c = o->config;
    if (c->device_count == MACHINE_MAX_DEVICES)
        return error_set(o->err, "-drive: more than %d devices", MACHINE_MAX_DEVICES);
    c->devices[c->device_count++] =
        (struct device_config){.kind = cdrom ? DEVICE_IDE_CD : DEVICE_IDE_HD,
                               .drive = drive,
                               .devfn = -1,
                               .controller = -1,
                               .bus = bus,
                               .unit = unit,
                               .bootindex = -1,
                               .id = copy_string(""),
                               .serial = copy_string(""),
                               .model = copy_string("")};
    return true;
}

/* QEMU's rule: an empty CD-ROM drive at index 2, unless something is there or some -device is a
 * drive. */
static bool add_default_cdrom(struct options *o)
{
    unsigned bus = CDROM_INDEX / IDE_UNITS, unit = CDROM_INDEX % IDE_UNITS;
    for (unsigned i = 0; i < o->config->device_count; i++)
        if (ide_device(&o->config->devices[i]) || option_is_scsi(&o->config->devices[i]))
            return true;
    return o->nodefaults || drive_at(o, bus, unit) || add_device(o, NULL, true, bus, unit);
}

bool options_attach_ide(struct options *o)
{
    struct machine_config *c = o->config;
    for (unsigned i = 0; i < c->device_count; i++)
        if (ide_device(&c->devices[i]) &&
            (!check_medium(o, &c->devices[i]) || !place_device(o, &c->devices[i], i)))
            return false;
    if (!add_default_cdrom(o))
        return false;
    for (unsigned i = 0; i < c->drive_count; i++)
        if (c->drives[i].interface == DRIVE_IDE) {
            c->drives[i].attached = true;
            if (!add_device(o, &c->drives[i], c->drives[i].cdrom, c->drives[i].bus,
                            c->drives[i].unit))
                return false;
        }
    for (unsigned i = 0; i < c->device_count; i++)
        if (ide_device(&c->devices[i]) && !check_writable(o, &c->devices[i]))
            return false;
    return true;
}
