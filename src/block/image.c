/*
 * image.c - raw disk images: opening, locking, reading and writing them whole.
 *
 * Locks are open-file-description locks on the byte ranges that QEMU uses for its image locks, so
 * that the two programs respect each other: whoever uses an image read-locks byte 100, whoever
 * writes it read-locks 101, whoever does not stand another writer read-locks 201. A writer here
 * write-locks the lot.
 *
 * Short transfers and EINTR are continued; a file that has become shorter than it was at opening
 * gives EIO for reads beyond its end and for all writes, which would otherwise hide the loss.
 */
#include "image.h"
#include "internal/blockdev.h"
#include "internal/error.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCK_USED       100
#define LOCK_WRITTEN    101
#define LOCK_NO_WRITER  201
#define LOCK_NO_RESIZER 203
#define LOCK_END        204

#define IOV_AT_ONCE 64

/* ---- Locks ------------------------------------------------------------------------------------
 */

static int lock_range(int fd, int command, short type, off_t first, off_t count)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = first, .l_len = count};
    if (fcntl(fd, command, &lock) < 0)
        return -errno;
    if (command == F_OFD_GETLK && lock.l_type != F_UNLCK)
        return -EAGAIN;
    return 0;
}

static int lock_to_read(int fd)
{
    static const off_t bytes[] = {LOCK_USED, LOCK_NO_WRITER, LOCK_NO_RESIZER};
    for (unsigned i = 0; i < sizeof(bytes) / sizeof(bytes[0]); i++) {
        int result = lock_range(fd, F_OFD_SETLK, F_RDLCK, bytes[i], 1);
        if (result)
            return result;
    }
    return lock_range(fd, F_OFD_GETLK, F_WRLCK, LOCK_WRITTEN, 1);
}

static bool lock_image(const struct image *image, bool write, struct error *err)
{
    int result = write
                     ? lock_range(image->fd, F_OFD_SETLK, F_WRLCK, LOCK_USED, LOCK_END - LOCK_USED)
                     : lock_to_read(image->fd);
    if (result == -EAGAIN || result == -EACCES)
        return error_set(err,
                         write ? "%s: in use by another machine, and a writer needs it alone "
                                 "(-snapshot leaves it unwritten)"
                               : "%s: another machine is writing it",
                         image->path);
    if (result == -ENOLCK || result == -EINVAL || result == -EOPNOTSUPP) {
        fprintf(stderr,
                "bailey: warning: %s: its file system has no locks; make sure that no "
                "other machine uses it\n",
                image->path);
        return true;
    }
    return !result || error_set(err, "%s: cannot lock: %s", image->path, strerror(-result));
}

/* ---- Opening ----------------------------------------------------------------------------------
 */

static bool check_kind(struct image *image, struct error *err)
{
    static const uint8_t qcow_magic[4] = {'Q', 'F', 'I', 0xfb};
    struct stat st;
    uint8_t magic[4];
    if (fstat(image->fd, &st) < 0)
        return error_set(err, "%s: %s", image->path, strerror(errno));
    if (S_ISDIR(st.st_mode))
        return error_set(err, "%s: is a directory, not a disk image", image->path);
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
        return error_set(err, "%s: is neither a file nor a block device", image->path);
    image->regular = S_ISREG(st.st_mode);
    off_t end = lseek(image->fd, 0, SEEK_END); /* works for block devices too */
    if (end < 0)
        return error_set(err, "%s: cannot find its size: %s", image->path, strerror(errno));
    image->size = (uint64_t)end & ~(uint64_t)(IMAGE_SECTOR - 1);
    if (!image->size)
        return error_set(err, "%s: is smaller than one sector (512 bytes)", image->path);
    if (pread(image->fd, magic, sizeof(magic), 0) == sizeof(magic) &&
        !memcmp(magic, qcow_magic, sizeof(magic)))
        return error_set(err,
                         "%s: is a qcow2 image; only raw images are supported (convert it with "
                         "'qemu-img convert -O raw')",
                         image->path);
    return true;
}

static int temporary_file(void)
{
    const char *dir = getenv("TMPDIR");
    if (!dir || !*dir)
        dir = "/var/tmp";
    int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL))
        return fd;
    char path[PATH_MAX];
    if (snprintf(path, sizeof(path), "%s/bailey-XXXXXX", dir) >= (int)sizeof(path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    fd = mkostemp(path, O_CLOEXEC);
    if (fd >= 0)
        unlink(path);
    return fd;
}

static bool open_overlay(struct image *image, struct error *err)
{
    uint64_t sectors = image->size / IMAGE_SECTOR;
    image->overlay = temporary_file();
    if (image->overlay < 0 || ftruncate(image->overlay, (off_t)image->size) < 0)
        return error_set(err, "%s: no temporary file for the snapshot: %s", image->path,
                         strerror(errno));
    image->in_overlay = calloc(sectors / 8 + 1, 1);
    return image->in_overlay || error_set(err, "%s: no memory for the snapshot", image->path);
}

bool image_open(struct image *image, const char *path, unsigned flags, struct error *err)
{
    bool write = !(flags & (BLOCKDEV_READ_ONLY | BLOCKDEV_SNAPSHOT));
    *image = (struct image){.fd = -1, .overlay = -1, .path = strdup(path)};
    if (!image->path)
        return error_set(err, "%s: out of memory", path);
    /* O_NONBLOCK: a FIFO must not hang us before check_kind() refuses it. */
    image->fd = open(path, (write ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK);
    if (image->fd < 0) {
        bool readable = write && (errno == EACCES || errno == EROFS || errno == EPERM) &&
                        access(path, R_OK) == 0;
        error_set(err, "%s: %s%s", path, strerror(errno),
                  readable ? " (it can be read: readonly=on or -snapshot would do)" : "");
        image_close(image);
        return false;
    }
    bool ok = check_kind(image, err) && lock_image(image, write, err);
    if (ok && (flags & BLOCKDEV_SNAPSHOT))
        ok = open_overlay(image, err);
    if (!ok)
        image_close(image);
    return ok;
}

void image_close(struct image *image)
{
    if (image->fd >= 0)
        close(image->fd); /* and with it the locks */
    if (image->overlay >= 0)
        close(image->overlay);
    free(image->in_overlay);
    free(image->path);
    *image = (struct image){.fd = -1, .overlay = -1};
}

/* ---- Whole transfers --------------------------------------------------------------------------
 */

enum direction { FROM_FILE, TO_FILE };

/* Up to IOV_AT_ONCE pieces of at most `len` bytes of `iov` from its byte `skip` on. */
static int slice(struct iovec *out, const struct iovec *iov, int iovcnt, uint64_t skip,
                 uint64_t len)
{
    int n = 0;
    for (int i = 0; i < iovcnt && len && n < IOV_AT_ONCE; i++) {
        if (skip >= iov[i].iov_len) {
            skip -= iov[i].iov_len;
            continue;
        }
        uint64_t take = iov[i].iov_len - skip;
        if (take > len)
            take = len;
        out[n++] = (struct iovec){(uint8_t *)iov[i].iov_base + skip, take};
        len -= take;
        skip = 0;
    }
    return n;
}

/* Moves len bytes between the file at `offset` and the vector from its byte `skip` on. */
static int transfer(int fd, enum direction dir, const struct iovec *iov, int iovcnt, uint64_t skip,
                    uint64_t offset, uint64_t len)
{
    while (len) {
        struct iovec part[IOV_AT_ONCE];
        int n = slice(part, iov, iovcnt, skip, len);
        if (!n)
            return -EINVAL;
        ssize_t moved = dir == FROM_FILE ? preadv(fd, part, n, (off_t)offset)
                                         : pwritev(fd, part, n, (off_t)offset);
        if (moved < 0 && errno == EINTR)
            continue;
        if (moved < 0)
            return -errno;
        if (moved == 0) /* beyond the end of a truncated file; a disk that takes nothing */
            return -EIO;
        skip += (uint64_t)moved;
        offset += (uint64_t)moved;
        len -= (uint64_t)moved;
    }
    return 0;
}

/* Writing into a file that lost its tail would grow it again, with zeroes for what was lost. */
static int check_length(const struct image *image)
{
    struct stat st;
    if (!image->regular)
        return 0;
    if (fstat(image->fd, &st) < 0)
        return -errno;
    return (uint64_t)st.st_size < image->size ? -EIO : 0;
}

/* ---- The overlay ------------------------------------------------------------------------------
 */

static bool sector_in_overlay(const struct image *image, uint64_t sector)
{
    return image->in_overlay[sector / 8] >> sector % 8 & 1;
}

static void mark_in_overlay(struct image *image, uint64_t offset, uint64_t len)
{
    uint64_t end = (offset + len) / IMAGE_SECTOR;
    for (uint64_t sector = offset / IMAGE_SECTOR; sector < end; sector++)
        image->in_overlay[sector / 8] |= (uint8_t)(1u << sector % 8);
}

/* Bytes from `offset` on, at most len, that come from the same file as the first. */
static uint64_t run_length(const struct image *image, uint64_t offset, uint64_t len)
{
    bool first = sector_in_overlay(image, offset / IMAGE_SECTOR);
    uint64_t run = IMAGE_SECTOR;
    while (run < len && sector_in_overlay(image, (offset + run) / IMAGE_SECTOR) == first)
        run += IMAGE_SECTOR;
    return run;
}

static int read_snapshot(struct image *image, const struct iovec *iov, int iovcnt, uint64_t offset,
                         uint64_t len)
{
    uint64_t done = 0;
    while (done < len) {
        uint64_t run = run_length(image, offset + done, len - done);
        bool overlay = sector_in_overlay(image, (offset + done) / IMAGE_SECTOR);
        int result = transfer(overlay ? image->overlay : image->fd, FROM_FILE, iov, iovcnt, done,
                              offset + done, run);
        if (result)
            return result;
        done += run;
    }
    return 0;
}

/* ---- Operations -------------------------------------------------------------------------------
 */

int image_read(struct image *image, const struct iovec *iov, int iovcnt, uint64_t offset,
               uint64_t len)
{
    if (image->overlay >= 0)
        return read_snapshot(image, iov, iovcnt, offset, len);
    return transfer(image->fd, FROM_FILE, iov, iovcnt, 0, offset, len);
}

int image_write(struct image *image, const struct iovec *iov, int iovcnt, uint64_t offset,
                uint64_t len)
{
    bool snapshot = image->overlay >= 0;
    int result = snapshot ? 0 : check_length(image);
    if (!result)
        result =
            transfer(snapshot ? image->overlay : image->fd, TO_FILE, iov, iovcnt, 0, offset, len);
    if (!result && snapshot)
        mark_in_overlay(image, offset, len);
    return result;
}

int image_flush(struct image *image)
{
    if (image->overlay >= 0)
        return 0; /* nothing of it will be kept */
    return fdatasync(image->fd) < 0 ? -errno : 0;
}

static int allocate(int fd, int mode, uint64_t offset, uint64_t len)
{
    int result;
    do
        result = fallocate(fd, mode, (off_t)offset, (off_t)len);
    while (result < 0 && errno == EINTR);
    return result < 0 ? -errno : 0;
}

static int write_zero_bytes(int fd, uint64_t offset, uint64_t len)
{
    enum { BYTES = 1 << 20 };
    uint8_t *zeroes = calloc(1, BYTES);
    int result = zeroes ? 0 : -ENOMEM;
    while (len && !result) {
        const struct iovec iov = {zeroes, len < BYTES ? len : BYTES};
        result = transfer(fd, TO_FILE, &iov, 1, 0, offset, iov.iov_len);
        offset += iov.iov_len;
        len -= iov.iov_len;
    }
    free(zeroes);
    return result;
}

int image_discard(struct image *image, uint64_t offset, uint64_t len)
{
    if (image->overlay >= 0)
        return image_write_zeroes(image, offset, len);
    int result = check_length(image);
    if (!result)
        result = allocate(image->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, len);
    /* A hint: where holes cannot be punched, the old contents do no harm. */
    return result == -EOPNOTSUPP || result == -ENODEV ? 0 : result;
}

int image_write_zeroes(struct image *image, uint64_t offset, uint64_t len)
{
    static const int modes[] = {FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
                                FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE};
    bool snapshot = image->overlay >= 0;
    int fd = snapshot ? image->overlay : image->fd;
    int result = snapshot ? 0 : check_length(image);
    if (result)
        return result;
    result = -EOPNOTSUPP;
    /* A snapshot's temporary file need not keep space for zeroes. */
    for (unsigned i = snapshot ? 1 : 0; i < 2 && result; i++)
        result = allocate(fd, modes[i], offset, len);
    if (result)
        result = write_zero_bytes(fd, offset, len);
    if (!result && snapshot)
        mark_in_overlay(image, offset, len);
    return result;
}
