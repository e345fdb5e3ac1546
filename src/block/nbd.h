/*
 * nbd.h - disks behind the NBD protocol. Private to src/block.
 */
#ifndef BLOCK_NBD_H
#define BLOCK_NBD_H

#include "image.h"

bool nbd_image_uri(const char *path);
/* NULL with *err, as image_open(). */
struct image *nbd_image_open(const struct image_options *options, struct error *err);
/* An image of a format that qemu-nbd knows; takes `file`. */
struct image *nbd_image_foreign(struct hostfile *file, const struct format *format,
                                const struct image_options *options, struct error *err);

#endif
