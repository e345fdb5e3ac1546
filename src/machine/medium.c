/*
 * medium.c - what lies in CD-ROM and floppy drives, and changing it while the machine runs: QEMU's
 * monitor commands eject and change.
 *
 * Drives have the name that the user gave to -drive or -device by id=, or else QEMU's: ide1-cd0 is
 * the CD-ROM drive at the board's channel 1, place 0; floppy0 is drive A:.
 */
#include "internal/ata.h"
#include "pc.h"
#include <string.h>

/* A drive whose medium can be changed. */
struct bay {
    char name[80];
    struct device *cdrom;              /* NULL: a floppy drive */
    unsigned floppy;                   /* its number */
    const struct drive_config *config; /* NULL: it began empty */
    struct blockdev **image;
};

static void name_it(struct bay *bay, const char *id, const char *otherwise, unsigned a, unsigned b)
{
    if (id && *id)
        snprintf(bay->name, sizeof(bay->name), "%s", id);
    else
        snprintf(bay->name, sizeof(bay->name), otherwise, a, b);
}

static struct bay cdrom_bay(struct machine *m, unsigned i)
{
    const struct device_config *d = &m->config->devices[i];
    struct bay bay = {.cdrom = m->cdroms[i], .config = d->drive, .image = &m->media[i]};
    if (d->drive)
        bay.image = &m->disks[d->drive - m->config->drives];
    name_it(&bay, d->drive && *d->drive->id ? d->drive->id : d->id,
            d->controller < 0 ? "ide%u-cd%u" : "sata%u-cd%u", d->bus, d->unit);
    return bay;
}

static struct bay floppy_bay(struct machine *m, unsigned i)
{
    const struct drive_config *drive = &m->config->drives[i];
    struct bay bay = {.floppy = drive->floppy, .config = drive, .image = &m->disks[i]};
    name_it(&bay, drive->id, "floppy%u", drive->floppy, 0);
    return bay;
}

/* The n-th of all; false: there are no more. */
static bool bay_at(struct machine *m, unsigned n, struct bay *bay)
{
    for (unsigned i = 0; i < m->config->device_count; i++)
        if (m->cdroms[i] && n-- == 0) {
            *bay = cdrom_bay(m, i);
            return true;
        }
    for (unsigned i = 0; i < m->config->drive_count; i++)
        if (m->config->drives[i].interface == DRIVE_FLOPPY && n-- == 0) {
            *bay = floppy_bay(m, i);
            return true;
        }
    return false;
}

static bool find(struct machine *m, const char *name, struct bay *bay, struct error *err)
{
    char names[160] = "";
    size_t len = 0;
    for (unsigned n = 0; bay_at(m, n, bay); n++) {
        if (strcmp(bay->name, name) == 0)
            return true;
        if (len < sizeof(names))
            len += (size_t)snprintf(names + len, sizeof(names) - len, "%s%s", n ? ", " : "",
                                    bay->name);
    }
    return error_set(err, "there is no drive '%.40s' whose medium could be changed; there is %s",
                     name, *names ? names : "none");
}

static struct blockdev *open_medium(struct machine *m, const struct bay *bay, const char *file,
                                    const char *format, struct error *err)
{
    static const struct drive_config none = {.read_only = true};
    const struct drive_config *drive = bay->config ? bay->config : &none;
    const struct blockdev_options options = {
        .path = file,
        .format = format,
        .read_only = drive->read_only,
        .snapshot = drive->snapshot,
        .cache = drive->cache,
        .discard = drive->discard,
        .detect_zeroes = drive->detect_zeroes,
    };
    if (format && !blockdev_format_known(format)) {
        error_set(err, "there is no image format '%.40s'", format);
        return NULL;
    }
    return blockdev_open(&options, m->queue, err);
}

/* The drive asks nothing more of the old image, but the image may still be at work for it. */
static bool exchange(struct machine *m, struct bay *bay, struct blockdev *image, bool force,
                     struct error *err)
{
    bool ok = bay->cdrom ? ata_drive_change(bay->cdrom, image, force, err)
                         : fdc_change(m->fdc, bay->floppy, image, err);
    blockdev_close(ok ? *bay->image : image);
    if (ok)
        *bay->image = image;
    return ok;
}

bool medium_change(void *opaque, const char *name, const char *file, const char *format, bool force,
                   struct error *err)
{
    struct machine *m = opaque;
    struct blockdev *image = NULL;
    struct bay bay;
    bool ok;
    pthread_mutex_lock(&m->lock);
    ok = find(m, name, &bay, err);
    pthread_mutex_unlock(&m->lock);
    if (ok && file) /* without the lock: a network disk may take its time, and the guest goes on */
        ok = (image = open_medium(m, &bay, file, format, err)) != NULL;
    if (!ok)
        return false;
    pthread_mutex_lock(&m->lock);
    ok = exchange(m, &bay, image, force, err);
    pthread_mutex_unlock(&m->lock);
    return ok;
}
