/*
 * snapshot.c - snapshot=on: an image whose writes go to a temporary file and are gone at the end.
 *
 * The overlay is an unlinked sparse file of the disk's layout and a bit for each sector that is
 * there. A sector's bit is set when its data is in the file, so that a reader finds the one or the
 * other whole.
 */
#include "image.h"
#include "internal/error.h"
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct snapshot {
    struct image image;
    struct image *below;
    int fd;
    pthread_mutex_t lock; /* of: */
    uint8_t *present;     /* a bit for each sector */
};

static struct snapshot *snapshot_of(struct image *image)
{
    return (struct snapshot *)image;
}

static bool present_locked(const struct snapshot *s, uint64_t sector)
{
    return s->present[sector / 8] >> sector % 8 & 1;
}

/* Bytes from `offset` on, at most len, that come from the same file as the first; whether it is
 * the overlay. */
static uint64_t run_length(struct snapshot *s, uint64_t offset, uint64_t len, bool *overlay)
{
    pthread_mutex_lock(&s->lock);
    *overlay = present_locked(s, offset / IMAGE_SECTOR);
    uint64_t run = IMAGE_SECTOR;
    while (run < len && present_locked(s, (offset + run) / IMAGE_SECTOR) == *overlay)
        run += IMAGE_SECTOR;
    pthread_mutex_unlock(&s->lock);
    return run;
}

static void mark(struct snapshot *s, uint64_t offset, uint64_t len)
{
    uint64_t end = (offset + len) / IMAGE_SECTOR;
    pthread_mutex_lock(&s->lock);
    for (uint64_t sector = offset / IMAGE_SECTOR; sector < end; sector++)
        s->present[sector / 8] |= (uint8_t)(1u << sector % 8);
    pthread_mutex_unlock(&s->lock);
}

static int snapshot_read(struct image *image, struct span to, uint64_t offset, uint64_t len)
{
    struct snapshot *s = snapshot_of(image);
    uint64_t done = 0;
    while (done < len) {
        bool overlay;
        uint64_t run = run_length(s, offset + done, len - done, &overlay);
        struct span part = span_at(to, done);
        int result = overlay ? fd_read(s->fd, part, offset + done, run)
                             : s->below->ops->read(s->below, part, offset + done, run);
        if (result)
            return result;
        done += run;
    }
    return 0;
}

static int snapshot_write(struct image *image, struct span from, uint64_t offset, uint64_t len)
{
    struct snapshot *s = snapshot_of(image);
    int result = fd_write(s->fd, from, offset, len);
    if (!result)
        mark(s, offset, len);
    return result;
}

static int snapshot_zero(struct image *image, uint64_t offset, uint64_t len,
                         enum hostfile_zero_how how)
{
    struct snapshot *s = snapshot_of(image);
    (void)how; /* a temporary file need not keep space for zeroes */
    int result = fd_zero(s->fd, offset, len, HOSTFILE_ZERO_UNMAP);
    if (!result)
        mark(s, offset, len);
    return result;
}

static int snapshot_discard(struct image *image, uint64_t offset, uint64_t len)
{
    return snapshot_zero(image, offset, len, HOSTFILE_ZERO_UNMAP);
}

static int snapshot_flush(struct image *image)
{
    (void)image;
    return 0; /* nothing of it will be kept */
}

static void snapshot_close(struct image *image)
{
    struct snapshot *s = snapshot_of(image);
    image_close(s->below);
    if (s->fd >= 0)
        close(s->fd);
    pthread_mutex_destroy(&s->lock);
    free(s->present);
    free(s);
}

static const struct image_ops snapshot_ops = {.read = snapshot_read,
                                              .write = snapshot_write,
                                              .zero = snapshot_zero,
                                              .discard = snapshot_discard,
                                              .flush = snapshot_flush,
                                              .close = snapshot_close};

struct image *snapshot_open(struct image *below, struct error *err)
{
    struct snapshot *s = calloc(1, sizeof(*s));
    if (!s) {
        error_set(err, "%s: out of memory", below->path);
        image_close(below);
        return NULL;
    }
    s->image = *below; /* size, format, path: the path stays that image's */
    s->image.ops = &snapshot_ops;
    s->image.probed_raw = false; /* nothing reaches the file */
    s->below = below;
    pthread_mutex_init(&s->lock, NULL);
    s->present = calloc(below->size / IMAGE_SECTOR / 8 + 1, 1);
    s->fd = hostfile_temporary();
    if (!s->present)
        error_set(err, "%s: no memory for the snapshot", below->path);
    else if (s->fd < 0 || ftruncate(s->fd, (off_t)below->size) < 0)
        error_set(err, "%s: no temporary file for the snapshot: %s", below->path, strerror(errno));
    else
        return &s->image;
    snapshot_close(&s->image);
    return NULL;
}
