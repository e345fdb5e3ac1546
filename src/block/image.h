/*
 * image.h - one raw disk image as a file: private to src/block. All functions but open and close
 * are called by worker threads, return 0 or a negative errno, and do all of it or fail.
 */
#ifndef BLOCK_IMAGE_H
#define BLOCK_IMAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

struct error;

struct image {
    char *path;
    int fd;
    bool regular;  /* a file whose length can change behind our back, not a block device */
    uint64_t size; /* bytes, a multiple of IMAGE_SECTOR; fixed at opening */
    /* Snapshot: writes go to `overlay`, an unlinked temporary file of the same layout; a bit for
     * each sector that is there. One thread only. */
    int overlay; /* -1: none */
    uint8_t *in_overlay;
};

#define IMAGE_SECTOR 512u

/* `flags` of enum blockdev_flags. Locks the image. */
bool image_open(struct image *image, const char *path, unsigned flags, struct error *err);
void image_close(struct image *image);
/* Offsets and lengths are multiples of IMAGE_SECTOR inside the image; `iov` has at least len. */
int image_read(struct image *image, const struct iovec *iov, int iovcnt, uint64_t offset,
               uint64_t len);
int image_write(struct image *image, const struct iovec *iov, int iovcnt, uint64_t offset,
                uint64_t len);
int image_flush(struct image *image);
int image_discard(struct image *image, uint64_t offset, uint64_t len); /* contents undefined */
int image_write_zeroes(struct image *image, uint64_t offset, uint64_t len);

#endif
