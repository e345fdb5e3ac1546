/*
 * hostfile.h - a host file or block device that holds an image: opening, locking, whole transfers.
 *
 * Everything but opening and closing returns 0 or a negative errno, does all of it or fails, and
 * may be called by several threads at once.
 */
#ifndef BLOCK_HOSTFILE_H
#define BLOCK_HOSTFILE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct error;

/* Bytes in memory: those of `iov` from its byte `skip` on. */
struct span {
    const struct iovec *iov;
    int iovcnt;
    uint64_t skip; /* bytes */
};

struct hostfile {
    char *path;
    int fd;
    int direct_fd; /* the same with O_DIRECT, for transfers that are aligned; -1: none */
    bool write;
    bool regular;  /* a file whose length can change, not a block device */
    uint64_t size; /* bytes when it was opened */
    dev_t dev;     /* with ino: which file it is */
    ino_t ino;
    _Atomic int lost; /* what hostfile_sync() failed with */
};

enum hostfile_mode { HOSTFILE_READ = 0, HOSTFILE_WRITE = 1, HOSTFILE_DIRECT = 2 };

/* NULL with *err, which names the path. Locks: shared to read, alone to write. */
struct hostfile *hostfile_open(const char *path, unsigned mode, struct error *err);
void hostfile_close(struct hostfile *file); /* and unlock; NULL is fine */

int hostfile_read(struct hostfile *file, struct span to, uint64_t offset, uint64_t len);
int hostfile_write(struct hostfile *file, struct span from, uint64_t offset, uint64_t len);
/* Of one buffer. */
int hostfile_read_bytes(struct hostfile *file, void *to, uint64_t offset, uint64_t len);
int hostfile_write_bytes(struct hostfile *file, const void *from, uint64_t offset, uint64_t len);
/* As hostfile_read(), but what is beyond the file's end is zero; *there: how much was not. */
int hostfile_read_to_end(struct hostfile *file, struct span to, uint64_t offset, uint64_t len,
                         uint64_t *there);
/* fdatasync(). When that fails, the kernel may have dropped the pages it could not write and report
 * success the next time; so all later ones fail too. */
int hostfile_sync(struct hostfile *file);
int hostfile_length(const struct hostfile *file, uint64_t *length);
int hostfile_extend(struct hostfile *file,
                    uint64_t length); /* grows a regular file, never shrinks it */

enum hostfile_zero_how {
    HOSTFILE_ZERO_KEEP,
    HOSTFILE_ZERO_UNMAP /* the space may be given back */
};
int hostfile_zero(struct hostfile *file, uint64_t offset, uint64_t len, enum hostfile_zero_how how);
/* Gives the space back; a hint, contents are undefined afterwards. */
int hostfile_punch(struct hostfile *file, uint64_t offset, uint64_t len);

/* ---- Spans, of use to every format ---- */

struct span span_at(struct span span, uint64_t bytes); /* what is `bytes` further on */
void span_fill(struct span span, int byte, uint64_t len);
void span_copy_out(struct span to, const void *from, uint64_t len);
void span_copy_in(void *to, struct span from, uint64_t len);
bool span_is_zero(struct span span, uint64_t len);
/* Do all its pieces begin and end at multiples of `to`, a power of two? */
bool span_is_aligned(struct span span, uint64_t len, size_t to);
/* Up to `max` pieces of at most len bytes; how many. */
int span_slice(struct iovec *out, int max, struct span span, uint64_t len);

/* An unlinked file in $TMPDIR or /var/tmp; -1 with errno. */
int hostfile_temporary(void);
/* The same whole transfers for a bare descriptor. */
int fd_read(int fd, struct span to, uint64_t offset, uint64_t len);
int fd_write(int fd, struct span from, uint64_t offset, uint64_t len);
int fd_zero(int fd, uint64_t offset, uint64_t len, enum hostfile_zero_how how);

#endif
