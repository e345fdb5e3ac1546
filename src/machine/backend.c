/*
 * backend.c - what lies behind the guest's devices on the host: disk images and character devices.
 */
#include "pc.h"
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* ---- Disk images ----------------------------------------------------------------------------- */

/* Images that are not raw would be shown to the guest, and overwritten, as they are in the file. */
static bool refuse_other_formats(const char *path, struct error *err)
{
    static const struct {
        const char *name, *magic;
        size_t len;
    } formats[] = {
        {"qcow2", "QFI\xfb", 4},
        {"VMDK", "KDMV", 4},
        {"VHDX", "vhdxfile", 8},
        {"VDI", "<<< ", 4},
    };
    char head[8] = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return true; /* opening it in earnest will say why */
    ssize_t n = read(fd, head, sizeof(head));
    close(fd);
    for (unsigned i = 0; n > 0 && i < sizeof(formats) / sizeof(formats[0]); i++)
        if (memcmp(head, formats[i].magic, formats[i].len) == 0)
            return error_set(err, "disk '%s' is a %s image; only raw images can be used", path,
                             formats[i].name);
    return true;
}

static bool open_disk(struct machine *m, unsigned i, struct error *err)
{
    const struct drive_config *drive = &m->config->drives[i];
    unsigned flags = drive->read_only ? BLOCKDEV_READ_ONLY : 0;
    if (drive->snapshot)
        flags |= BLOCKDEV_SNAPSHOT;
    if (!refuse_other_formats(drive->file, err))
        return false;
    m->disks[i] = blockdev_open(drive->file, flags, m->queue, err);
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
    while (m->chardev_count)
        chardev_close(m->chardevs[--m->chardev_count]);
}
