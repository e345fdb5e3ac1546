/*
 * raw.c - images that are the disk's bytes and nothing else.
 *
 * A file that has become shorter than it was at opening gives EIO for reads beyond its end and for
 * all writes, which would otherwise hide the loss.
 */
#include "image.h"
#include "internal/error.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct raw {
    struct image image;
    struct hostfile *file;
    bool unsafe;
};

static struct raw *raw_of(struct image *image)
{
    return (struct raw *)image;
}

/* Writing into a file that lost its tail would grow it again, with zeroes for what was lost. */
static int check_length(struct raw *raw)
{
    uint64_t length;
    int result = hostfile_length(raw->file, &length);
    return !result && length < raw->image.size ? -EIO : result;
}

static int raw_read(struct image *image, struct span to, uint64_t offset, uint64_t len)
{
    return hostfile_read(raw_of(image)->file, to, offset, len);
}

static int raw_write(struct image *image, struct span from, uint64_t offset, uint64_t len)
{
    int result = check_length(raw_of(image));
    return result ? result : hostfile_write(raw_of(image)->file, from, offset, len);
}

static int raw_zero(struct image *image, uint64_t offset, uint64_t len, enum hostfile_zero_how how)
{
    int result = check_length(raw_of(image));
    return result ? result : hostfile_zero(raw_of(image)->file, offset, len, how);
}

static int raw_discard(struct image *image, uint64_t offset, uint64_t len)
{
    int result = check_length(raw_of(image));
    return result ? result : hostfile_punch(raw_of(image)->file, offset, len);
}

static int raw_flush(struct image *image)
{
    return raw_of(image)->unsafe ? 0 : hostfile_sync(raw_of(image)->file);
}

static void raw_close(struct image *image)
{
    hostfile_close(raw_of(image)->file);
    free(image->path);
    free(image);
}

static const struct image_ops raw_ops = {.read = raw_read,
                                         .write = raw_write,
                                         .zero = raw_zero,
                                         .discard = raw_discard,
                                         .flush = raw_flush,
                                         .close = raw_close};

struct image *raw_open(struct hostfile *file, const struct image_options *options,
                       struct error *err)
{
    struct raw *raw = calloc(1, sizeof(*raw));
    char *path = strdup(options->path);
    uint64_t size = file->size & ~(uint64_t)(IMAGE_SECTOR - 1);
    if (!raw || !path)
        error_set(err, "%s: out of memory", options->path);
    else if (!size)
        error_set(err, "%s: is smaller than one sector (512 bytes)", options->path);
    if (!raw || !path || !size) {
        hostfile_close(file);
        free(path);
        free(raw);
        return NULL;
    }
    raw->image = (struct image){.ops = &raw_ops, .path = path, .size = size};
    raw->file = file;
    raw->unsafe = options->unsafe;
    return &raw->image;
}
