/*
 * blockdev.h - disk images behind storage controllers.
 *
 * Requests are asynchronous: a worker thread does the I/O, the completion is delivered through the
 * event queue. Nothing is acknowledged as flushed before fdatasync() has returned.
 */
#ifndef INTERNAL_BLOCKDEV_H
#define INTERNAL_BLOCKDEV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct error;
struct event_queue;
struct blockdev;

enum blockdev_flags {
    BLOCKDEV_READ_ONLY = 1,
    BLOCKDEV_SNAPSHOT = 2, /* writes go to an anonymous overlay and are dropped at close */
};

/* Opens a raw image and locks it: shared for readers, exclusive for a writer, so that no second
 * machine writes it (the error names the file). Size is rounded down to 512 bytes. */
struct blockdev *blockdev_open(const char *path, unsigned flags, struct event_queue *queue,
                               struct error *err);
void blockdev_close(struct blockdev *dev);          /* waits for all requests; flushes */
uint64_t blockdev_size(const struct blockdev *dev); /* bytes */
bool blockdev_read_only(const struct blockdev *dev);

enum blockdev_op {
    BLOCKDEV_READ,
    BLOCKDEV_WRITE,
    BLOCKDEV_FLUSH,
    BLOCKDEV_DISCARD,
    BLOCKDEV_WRITE_ZEROES
};

/* The caller owns the request and its buffers until `done` has been called. */
struct blockdev_request {
    enum blockdev_op op;
    uint64_t offset, len; /* bytes; len is the iovecs' total for reads and writes */
    const struct iovec *iov;
    int iovcnt;
    int result;                                     /* 0 or a negative errno */
    void (*done)(struct blockdev_request *request); /* I/O thread, machine lock held */
    void *opaque;
    struct blockdev_request *next; /* the back end's */
    struct blockdev *dev;          /* the back end's */
};
void blockdev_submit(struct blockdev *dev, struct blockdev_request *request);

#endif
