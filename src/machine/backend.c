/*
 * backend.c - what lies behind the guest's devices on the host: disk images and character devices.
 */
#include "pc.h"
#include <string.h>

/* ---- Disk images ----------------------------------------------------------------------------- */

static bool open_disk(struct machine *m, unsigned i, struct error *err)
{
    const struct drive_config *drive = &m->config->drives[i];
    if (!*drive->file)
        return true; /* an empty CD-ROM drive */
    const struct blockdev_options options = {
        .path = drive->file,
        .format = drive->format,
        .read_only = drive->read_only,
        .snapshot = drive->snapshot,
        .cache = drive->cache,
        .discard = drive->discard,
        .detect_zeroes = drive->detect_zeroes,
    };
    m->disks[i] = blockdev_open(&options, m->queue, err);
    return m->disks[i] != NULL;
}

/* ---- Character devices ----------------------------------------------------------------------- */

/* Ctrl-A x. */
static void terminal_quit(void *opaque)
{
    machine_stop(opaque);
}

bool backend_chardev(struct machine *m, const char *spec, struct chardev **chr, struct error *err)
{
    const struct chardev_hooks hooks = {.opaque = m, .quit = terminal_quit};
    *chr = NULL;
    if (!spec || strcmp(spec, "none") == 0)
        return true;
    *chr = chardev_open(spec, m->queue, &hooks, err);
    if (*chr)
        m->chardevs[m->chardev_count++] = *chr;
    return *chr != NULL;
}

bool backends_open(struct machine *m, struct error *err)
{
    for (unsigned i = 0; i < m->config->drive_count; i++)
        if (!open_disk(m, i, err))
            return false;
    return true;
}

void backends_close(struct machine *m)
{
    for (unsigned i = 0; i < MACHINE_MAX_DRIVES; i++) {
        if (m->disks[i])
            blockdev_close(m->disks[i]);
        m->disks[i] = NULL;
    }
    for (unsigned i = 0; i < MACHINE_MAX_DEVICES; i++) {
        blockdev_close(m->media[i]);
        m->media[i] = NULL;
    }
    while (m->chardev_count)
        chardev_close(m->chardevs[--m->chardev_count]);
}
