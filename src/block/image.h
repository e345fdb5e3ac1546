/*
 * image.h - a disk image of any format: what blockdev.c asks of it, and how formats are found.
 * Private to src/block.
 *
 * The operations are called by worker threads, several at once; they return 0 or a negative errno,
 * and do all of it or fail. Offsets and lengths are multiples of IMAGE_SECTOR inside the image.
 */
#ifndef BLOCK_IMAGE_H
#define BLOCK_IMAGE_H

#include "hostfile.h"
#include <stdbool.h>
#include <stdint.h>

struct error;
struct image;

#define IMAGE_SECTOR 512u
#define IMAGE_HEAD   512u /* bytes that tell the formats apart */
#define IMAGE_CHAIN  64   /* images on top of each other, at most */

struct image_ops {
    int (*read)(struct image *image, struct span to, uint64_t offset, uint64_t len);
    int (*write)(struct image *image, struct span from, uint64_t offset, uint64_t len);
    int (*zero)(struct image *image, uint64_t offset, uint64_t len, enum hostfile_zero_how how);
    int (*discard)(struct image *image, uint64_t offset, uint64_t len); /* NULL: does nothing */
    /* What has been written before is on the disk. */
    int (*flush)(struct image *image);
    void (*close)(struct image *image); /* without a flush; frees it */
};

/* The beginning of every format's own struct. */
struct image {
    const struct image_ops *ops;
    const char *format; /* its name */
    char *path;
    uint64_t size;   /* bytes, a multiple of IMAGE_SECTOR; fixed at opening */
    bool probed_raw; /* raw for want of anything better, not because somebody said so */
    bool remote;     /* a network, or another program, decides when an operation ends */
};

struct image_options {
    const char *path;
    const char *format; /* NULL: what the contents say */
    bool write, direct, unsafe /* a flush need not reach the disk */, unmap /* give space back */;
    /* Of a backing file: the images above it. */
    const struct image_link *above;
};

struct image_link {
    dev_t dev;
    ino_t ino;
    unsigned depth; /* 1: the topmost */
    const struct image_link *above;
};

/* NULL with *err, one line that names the file. */
struct image *image_open(const struct image_options *options, struct error *err);
void image_close(struct image *image); /* NULL is fine */

/* Puts an anonymous overlay on it that takes all writes. Takes `below`, also when it fails. */
struct image *snapshot_open(struct image *below, struct error *err);

/* ---- Formats ---- */

struct format {
    const char *name;
    /* Do the first IMAGE_HEAD bytes (fewer: zero-filled) look like it? NULL: never. */
    bool (*probe)(const uint8_t *head);
    /* Takes `file`, also when it fails. The path, and room for the image's base, are the callee's.
     */
    struct image *(*open)(struct hostfile *file, const struct image_options *options,
                          struct error *err);
};
/* By content; the raw format when nothing matches. */
const struct format *format_probe(const uint8_t *head);
const struct format *format_find(const char *name); /* NULL: unknown */
const struct format *format_at(unsigned index);     /* NULL: no more */

struct image *raw_open(struct hostfile *file, const struct image_options *options,
                       struct error *err);

#endif
