/*
 * options_scsi.c - where SCSI drives are plugged in: bus=, scsi-id= and lun= of -device scsi-hd and
 * scsi-cd.
 *
 * Buses have QEMU's names: ID.0 is that of `-device virtio-scsi-pci,id=ID`; those of adapters
 * without an id are scsi.0, scsi.1 and so on.
 */
#include "internal/scsi.h"
#include "internal/virtio.h"
#include "options.h"
#include <string.h>

bool option_is_scsi(const struct device_config *d)
{
    return d->kind == DEVICE_SCSI_HD || d->kind == DEVICE_SCSI_CD;
}

bool option_scsi_device(struct options *o, const struct keyval *kv, struct device_config *device,
                        const char *what)
{
    uint64_t target = 0, lun = 0, channel = 0, queues = 0;
    unsigned i = (unsigned)(device - o->config->devices);
    if (!keyval_number(kv, "scsi-id", SCSI_TARGETS - 1, &target, what, o->err) ||
        !keyval_number(kv, "lun", SCSI_LUNS - 1, &lun, what, o->err) ||
        !keyval_number(kv, "channel", 0, &channel, what, o->err) ||
        !keyval_number(kv, "num_queues", VIRTIO_SCSI_MAX_REQUEST_QUEUES, &queues, what, o->err))
        return false;
    if (keyval_get(kv, "num_queues") && !queues)
        return error_set(o->err, "%s: num_queues=0; it has 1 to %d", what,
                         VIRTIO_SCSI_MAX_REQUEST_QUEUES);
    o->targets[i] = keyval_get(kv, "scsi-id") ? (int)target : -1;
    device->unit = (unsigned)lun;
    device->queues = (unsigned)queues;
    return true;
}

/* The adapter that `name` names, or the first, among those before `device`. */
static bool find_bus(const struct options *o, struct device_config *device, const char *name)
{
    unsigned unnamed = 0;
    for (const struct device_config *d = o->config->devices; d < device; d++) {
        char bus[256];
        if (d->kind != DEVICE_VIRTIO_SCSI)
            continue;
        if (*d->id)
            snprintf(bus, sizeof(bus), "%s.0", d->id);
        else
            snprintf(bus, sizeof(bus), "scsi.%u", unnamed++);
        device->controller = (int)(d - o->config->devices);
        if (!name || strcmp(bus, name) == 0)
            return true;
    }
    return false;
}

static bool taken(const struct options *o, const struct device_config *device, unsigned target)
{
    for (const struct device_config *d = o->config->devices; d < device; d++)
        if (option_is_scsi(d) && d->controller == device->controller && d->bus == target &&
            d->unit == device->unit)
            return true;
    return false;
}

static bool place_device(struct options *o, struct device_config *device, unsigned i)
{
    const char *what = device->kind == DEVICE_SCSI_CD ? "-device scsi-cd" : "-device scsi-hd";
    const char *bus = o->bus_names[i];
    if (device->kind == DEVICE_SCSI_HD && !(device->drive && *device->drive->file))
        return error_set(o->err, "%s: needs drive=ID of a drive with file=PATH", what);
    if (!find_bus(o, device, bus))
        return bus ? error_set(o->err,
                               "%s: there is no bus '%s' yet; -device virtio-scsi-pci,id=ID "
                               "before it makes ID.0",
                               what, bus)
                   : error_set(o->err,
                               "%s: there is no SCSI adapter yet; put -device virtio-scsi-pci "
                               "before it",
                               what);
    unsigned target = o->targets[i] < 0 ? 0 : (unsigned)o->targets[i];
    while (o->targets[i] < 0 && target < SCSI_TARGETS && taken(o, device, target))
        target++;
    device->bus = target;
    return !taken(o, device, target) ||
           error_set(o->err, "%s: scsi-id=%u, lun=%u is taken", what, target, device->unit);
}

bool options_attach_scsi(struct options *o)
{
    struct machine_config *c = o->config;
    for (unsigned i = 0; i < c->device_count; i++)
        if (option_is_scsi(&c->devices[i]) && !place_device(o, &c->devices[i], i))
            return false;
    return true;
}
