/*
 * blockdev.h - disk images behind storage controllers.
 *
 * Requests are asynchronous: worker threads do the I/O, the completion is delivered through the
 * event queue. Nothing is acknowledged as flushed before fdatasync() has returned (but see
 * BLOCKDEV_CACHE_UNSAFE).
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

/* QEMU's cache= modes. Each says whether the guest sees a disk with a volatile write cache, and
 * whether the host's page cache is used: */
enum blockdev_cache {
    BLOCKDEV_CACHE_WRITEBACK,    /* write cache; page cache */
    BLOCKDEV_CACHE_NONE,         /* write cache; O_DIRECT */
    BLOCKDEV_CACHE_WRITETHROUGH, /* a write is complete when it is on the disk; page cache */
    BLOCKDEV_CACHE_DIRECTSYNC,   /* a write is complete when it is on the disk; O_DIRECT */
    BLOCKDEV_CACHE_UNSAFE,       /* as writeback, but flushes reach the host's kernel only */
};

/* What a guest's discards do; write-zeroes may give space back only with UNMAP. */
enum blockdev_discard { BLOCKDEV_DISCARD_IGNORE, BLOCKDEV_DISCARD_UNMAP };

/* Writes of nothing but zeroes become write-zeroes, which may give space back (UNMAP) or not. */
enum blockdev_detect { BLOCKDEV_DETECT_OFF, BLOCKDEV_DETECT_ON, BLOCKDEV_DETECT_UNMAP };

struct blockdev_options {
    const char *path;   /* a file or block device, or a network disk: nbd://HOST[:PORT]/[EXPORT] */
    const char *format; /* "raw", "qcow2", ...; NULL: what the contents say */
    bool read_only;
    bool snapshot; /* writes go to an anonymous overlay and are dropped at close */
    enum blockdev_cache cache;
    enum blockdev_discard discard;
    enum blockdev_detect detect_zeroes;
};

/* Opens an image and locks it: shared for readers, exclusive for a writer, so that no second
 * machine writes it (the error names the file). The size is rounded down to 512 bytes. Strings are
 * copied. NULL with *err. */
struct blockdev *blockdev_open(const struct blockdev_options *options, struct event_queue *queue,
                               struct error *err);
void blockdev_close(struct blockdev *dev);          /* waits for all requests; flushes */
uint64_t blockdev_size(const struct blockdev *dev); /* bytes */
bool blockdev_read_only(const struct blockdev *dev);
const char *blockdev_format(const struct blockdev *dev);  /* "raw", "qcow2", ... */
bool blockdev_format_known(const char *name);             /* for the command line */
void blockdev_format_names(const char **names, size_t n); /* NULL-terminated, at most n */

/* The volatile write cache. Without it a write, discard or write-zeroes is complete only when it
 * is on the disk; a controller whose guest switches it (ATA SET FEATURES 02h and 82h, SCSI's and
 * virtio's WCE) says so here. It holds for requests submitted afterwards. A controller's reset
 * goes back to blockdev_default_write_cache(), which cache= decides. Machine lock. */
bool blockdev_write_cache(const struct blockdev *dev);
bool blockdev_default_write_cache(const struct blockdev *dev);
void blockdev_set_write_cache(struct blockdev *dev, bool on);

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
    /* NULL, or: the image has let go of the buffers; `result` says how that went so far. In a
     * worker's thread, or blockdev_close()'s, without any lock; `done` comes later. May not block.
     */
    void (*let_go)(struct blockdev_request *request);
    void *opaque;
    struct blockdev_request *next; /* the back end's */
    struct blockdev *dev;          /* the back end's */
    bool through;                  /* the back end's: submitted without a write cache */
};
void blockdev_submit(struct blockdev *dev, struct blockdev_request *request);

/* May the buffers of such a request be memory that the guest sees and changes meanwhile, and that
 * somebody waits for? Not where bytes are looked at before they are written, and not if a network
 * decides when the request ends. */
bool blockdev_may_lend(const struct blockdev *dev, enum blockdev_op op, uint64_t offset);
/* Waits until the buffers of every request with `let_go` have been let go of. The completions come
 * later, as always. The machine lock may be held. */
void blockdev_settle(struct blockdev *dev);

/* For a device that is being made, before any request has been submitted: reads in this thread.
 * 0 or a negative errno. */
int blockdev_read_now(struct blockdev *dev, uint64_t offset, void *buf, size_t len);

#endif
