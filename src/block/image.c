/*
 * image.c - the table of image formats, and which one a file is opened as.
 *
 * A format that was asked for must be there (foreign formats are judged by qemu-nbd), except that
 * "raw" means the file's bytes whatever they are. Nothing asked for, the contents decide. That is a
 * trap for raw images: the guest owns their first sector, and could make the file something else at
 * the next start, with a "backing file" of its choice on the host. So an image that is raw only
 * because nothing else was recognised takes no write that would change the answer (blockdev.c,
 * keeps_format()).
 */
#include "image.h"
#include "internal/error.h"
#include "nbd.h"
#include "qcow2.h"
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- The table --------------------------------------------------------------------------------
 */

static bool probe_qcow2(const uint8_t *head)
{
    return !memcmp(head, "QFI\xfb", 4);
}
static bool probe_vmdk(const uint8_t *head)
{
    static const char text[] = "# Disk DescriptorFile";
    return !memcmp(head, "KDMV", 4) || !memcmp(head, "COWD", 4) ||
           !memcmp(head, text, sizeof(text) - 1);
}
static bool probe_vpc(const uint8_t *head)
{
    return !memcmp(head, "conectix", 8);
}
static bool probe_vhdx(const uint8_t *head)
{
    return !memcmp(head, "vhdxfile", 8);
}
static bool probe_vdi(const uint8_t *head)
{
    return !memcmp(head + 0x40, "\x7f\x10\xda\xbe", 4);
}

static const struct format formats[] = {
    {"raw", NULL, raw_open},  {"qcow2", probe_qcow2, qcow2_open}, {"vmdk", probe_vmdk, NULL},
    {"vpc", probe_vpc, NULL}, {"vhdx", probe_vhdx, NULL},         {"vdi", probe_vdi, NULL},
};
enum { FORMATS = sizeof(formats) / sizeof(formats[0]) };

const struct format *format_at(unsigned index)
{
    return index < FORMATS ? &formats[index] : NULL;
}

const struct format *format_find(const char *name)
{
    for (unsigned i = 0; i < FORMATS; i++)
        if (!strcmp(formats[i].name, name))
            return &formats[i];
    return NULL;
}

const struct format *format_probe(const uint8_t *head)
{
    for (unsigned i = 0; i < FORMATS; i++)
        if (formats[i].probe && formats[i].probe(head))
            return &formats[i];
    return &formats[0];
}

/* ---- Opening ----------------------------------------------------------------------------------
 */

static const struct format *choose(struct hostfile *file, const struct image_options *o,
                                   struct error *err)
{
    uint8_t head[IMAGE_HEAD];
    const struct iovec iov = {head, sizeof(head)};
    uint64_t there;
    int result = hostfile_read_to_end(file, (struct span){&iov, 1, 0}, 0, sizeof(head), &there);
    if (result) {
        error_set(err, "%s: %s", o->path, strerror(-result));
        return NULL;
    }
    const struct format *found = format_probe(head);
    const struct format *asked = o->format ? format_find(o->format) : found;
    if (!asked)
        error_set(err, "%s: there is no image format '%s'", o->path, o->format);
    else if (asked != found && asked->probe && asked->open) {
        error_set(err, "%s: is not a %s image but %s (format=%s, or no format=, opens it)", o->path,
                  asked->name, found->name, found->name);
        return NULL;
    }
    return asked;
}

/* A chain that comes back to a file would never end. Before it is opened: its own lock would keep
 * us out, with a message that misleads. */
static bool check_chain(const struct image_options *o, struct error *err)
{
    struct stat st;
    bool known = o->above && stat(o->path, &st) == 0;
    for (const struct image_link *link = o->above; link && known; link = link->above)
        if (link->dev == st.st_dev && link->ino == st.st_ino)
            return error_set(err, "%s: is its own backing file", o->path);
    if (o->above && o->above->depth >= IMAGE_CHAIN)
        return error_set(err, "%s: more than %d images on top of each other", o->path, IMAGE_CHAIN);
    return true;
}

struct image *image_open(const struct image_options *o, struct error *err)
{
    unsigned mode = (o->write ? HOSTFILE_WRITE : 0u) | (o->direct ? HOSTFILE_DIRECT : 0u);
    if (nbd_image_uri(o->path))
        return nbd_image_open(o, err);
    struct hostfile *file = check_chain(o, err) ? hostfile_open(o->path, mode, err) : NULL;
    if (!file)
        return NULL;
    const struct format *format = choose(file, o, err);
    if (!format) {
        hostfile_close(file);
        return NULL;
    }
    struct image *image =
        format->open ? format->open(file, o, err) : nbd_image_foreign(file, format, o, err);
    if (image) {
        image->format = format->name;
        image->probed_raw = !o->format && !format->probe;
    }
    return image;
}

void image_close(struct image *image)
{
    if (image)
        image->ops->close(image);
}
