/*
 * hostfile.c - a host file or block device that holds an image (hostfile.h).
 *
 * Short transfers and EINTR are continued. With HOSTFILE_DIRECT there are two descriptors of the
 * file: what is aligned to DIRECT_ALIGN goes through the one with O_DIRECT, by way of an aligned
 * buffer where the caller's memory is not, and the odd rest (metadata of image formats, single
 * sectors) through the page cache. Linux keeps the two views of a file coherent: direct reads write
 * dirty pages back first, direct writes drop the pages they overtake.
 */
#include "hostfile.h"
#include "hostfile_lock.h"
#include "internal/error.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define IOV_AT_ONCE  256
#define DIRECT_ALIGN 4096u
#define BOUNCE       (1u << 20)

/* ---- Opening ----------------------------------------------------------------------------------
 */

static bool check_kind(struct hostfile *file, struct error *err)
{
    struct stat st;
    if (fstat(file->fd, &st) < 0)
        return error_set(err, "%s: %s", file->path, strerror(errno));
    if (S_ISDIR(st.st_mode))
        return error_set(err, "%s: is a directory, not a disk image", file->path);
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
        return error_set(err, "%s: is neither a file nor a block device", file->path);
    file->regular = S_ISREG(st.st_mode);
    file->dev = st.st_dev;
    file->ino = st.st_ino;
    off_t end = lseek(file->fd, 0, SEEK_END); /* works for block devices too */
    if (end < 0)
        return error_set(err, "%s: cannot find its size: %s", file->path, strerror(errno));
    file->size = (uint64_t)end;
    return true;
}

static bool open_direct(struct hostfile *file, struct error *err)
{
    char self[32];
    /* By the descriptor: the path may name another file by now. */
    snprintf(self, sizeof(self), "/proc/self/fd/%d", file->fd);
    file->direct_fd = open(self, (file->write ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_DIRECT);
    if (file->direct_fd >= 0)
        return true;
    if (errno == EINVAL)
        return error_set(err,
                         "%s: its file system has no direct I/O, which cache=none and "
                         "cache=directsync need (cache=writeback and writethrough do without)",
                         file->path);
    return error_set(err, "%s: %s", file->path, strerror(errno));
}

struct hostfile *hostfile_open(const char *path, unsigned mode, struct error *err)
{
    struct hostfile *file = calloc(1, sizeof(*file));
    char *copy = strdup(path);
    if (!file || !copy) {
        free(file);
        free(copy);
        error_set(err, "%s: out of memory", path);
        return NULL;
    }
    *file = (struct hostfile){.path = copy, .direct_fd = -1, .write = (mode & HOSTFILE_WRITE) != 0};
    /* O_NONBLOCK: a FIFO must not hang us before check_kind() refuses it. */
    file->fd = open(path, (file->write ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK);
    if (file->fd < 0) {
        bool readable = file->write && (errno == EACCES || errno == EROFS || errno == EPERM) &&
                        access(path, R_OK) == 0;
        error_set(err, "%s: %s%s", path, strerror(errno),
                  readable ? " (it can be read: readonly=on or -snapshot would do)" : "");
        hostfile_close(file);
        return NULL;
    }
    if (!check_kind(file, err) || !hostfile_lock(file->fd, path, file->write, err) ||
        ((mode & HOSTFILE_DIRECT) && !open_direct(file, err))) {
        hostfile_close(file);
        return NULL;
    }
    return file;
}

void hostfile_close(struct hostfile *file)
{
    if (!file)
        return;
    if (file->direct_fd >= 0)
        close(file->direct_fd);
    if (file->fd >= 0)
        close(file->fd); /* and with it the locks */
    free(file->path);
    free(file);
}

int hostfile_temporary(void)
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

/* ---- Whole transfers --------------------------------------------------------------------------
 */

enum direction { FROM_FILE, TO_FILE };

/* Moves len bytes, or what there is of them before the file's end; *moved: how many. */
static int transfer(int fd, enum direction dir, struct span span, uint64_t offset, uint64_t len,
                    uint64_t *moved)
{
    *moved = 0;
    if (offset > INT64_MAX || len > INT64_MAX - offset)
        return -EFBIG;
    while (*moved < len) {
        struct iovec part[IOV_AT_ONCE];
        int n = span_slice(part, IOV_AT_ONCE, span, len - *moved);
        if (!n)
            return -EINVAL;
        off_t at = (off_t)(offset + *moved);
        ssize_t now = dir == FROM_FILE ? preadv(fd, part, n, at) : pwritev(fd, part, n, at);
        if (now < 0 && errno == EINTR)
            continue;
        if (now < 0)
            return -errno;
        if (now == 0)
            break;
        span = span_at(span, (uint64_t)now);
        *moved += (uint64_t)now;
    }
    return 0;
}

static int transfer_all(int fd, enum direction dir, struct span span, uint64_t offset, uint64_t len)
{
    uint64_t moved;
    int result = transfer(fd, dir, span, offset, len, &moved);
    /* beyond the end of a truncated file; a disk that takes nothing */
    return !result && moved < len ? -EIO : result;
}

int fd_read(int fd, struct span to, uint64_t offset, uint64_t len)
{
    return transfer_all(fd, FROM_FILE, to, offset, len);
}

int fd_write(int fd, struct span from, uint64_t offset, uint64_t len)
{
    return transfer_all(fd, TO_FILE, from, offset, len);
}

/* ---- Direct transfers -------------------------------------------------------------------------
 */

/* Aligned bytes of the file through the O_DIRECT descriptor; BOUNCE at a time where the memory is
 * not aligned. */
static int transfer_direct(struct hostfile *file, enum direction dir, struct span span,
                           uint64_t offset, uint64_t len, uint64_t *moved)
{
    void *bounce;
    if (span_is_aligned(span, len, DIRECT_ALIGN))
        return transfer(file->direct_fd, dir, span, offset, len, moved);
    int result = -posix_memalign(&bounce, DIRECT_ALIGN, len < BOUNCE ? len : BOUNCE);
    *moved = 0;
    if (result)
        return result;
    while (*moved < len && !result) {
        const uint64_t size = len - *moved < BOUNCE ? len - *moved : BOUNCE;
        const struct iovec iov = {bounce, size};
        uint64_t now;
        if (dir == TO_FILE)
            span_copy_in(bounce, span_at(span, *moved), size);
        result =
            transfer(file->direct_fd, dir, (struct span){&iov, 1, 0}, offset + *moved, size, &now);
        if (dir == FROM_FILE && !result)
            span_copy_out(span_at(span, *moved), bounce, now);
        if (!result)
            *moved += now;
        if (now < size)
            break;
    }
    free(bounce);
    return result;
}

/* Head and tail that are not aligned by the page cache, what lies between directly. */
static int transfer_mixed(struct hostfile *file, enum direction dir, struct span span,
                          uint64_t offset, uint64_t len, uint64_t *moved)
{
    uint64_t head = (DIRECT_ALIGN - offset % DIRECT_ALIGN) % DIRECT_ALIGN;
    if (head > len)
        head = len;
    const uint64_t middle = (len - head) & ~(uint64_t)(DIRECT_ALIGN - 1);
    const uint64_t sizes[] = {head, middle, len - head - middle};
    *moved = 0;
    for (unsigned i = 0; i < 3; i++) {
        uint64_t now = 0;
        int result = 0;
        if (sizes[i])
            result = i == 1 ? transfer_direct(file, dir, span_at(span, *moved), offset + *moved,
                                              sizes[i], &now)
                            : transfer(file->fd, dir, span_at(span, *moved), offset + *moved,
                                       sizes[i], &now);
        if (result)
            return result;
        *moved += now;
        if (now < sizes[i])
            break;
    }
    return 0;
}

static int move(struct hostfile *file, enum direction dir, struct span span, uint64_t offset,
                uint64_t len, uint64_t *moved)
{
    return file->direct_fd < 0 ? transfer(file->fd, dir, span, offset, len, moved)
                               : transfer_mixed(file, dir, span, offset, len, moved);
}

int hostfile_read(struct hostfile *file, struct span to, uint64_t offset, uint64_t len)
{
    uint64_t moved;
    int result = move(file, FROM_FILE, to, offset, len, &moved);
    return !result && moved < len ? -EIO : result;
}

int hostfile_read_to_end(struct hostfile *file, struct span to, uint64_t offset, uint64_t len,
                         uint64_t *there)
{
    int result = move(file, FROM_FILE, to, offset, len, there);
    if (!result)
        span_fill(span_at(to, *there), 0, len - *there);
    return result;
}

int hostfile_write(struct hostfile *file, struct span from, uint64_t offset, uint64_t len)
{
    uint64_t moved;
    int result = move(file, TO_FILE, from, offset, len, &moved);
    return !result && moved < len ? -EIO : result;
}

int hostfile_read_bytes(struct hostfile *file, void *to, uint64_t offset, uint64_t len)
{
    const struct iovec iov = {to, len};
    return hostfile_read(file, (struct span){&iov, 1, 0}, offset, len);
}

int hostfile_write_bytes(struct hostfile *file, const void *from, uint64_t offset, uint64_t len)
{
    const struct iovec iov = {(void *)(uintptr_t)from, len};
    return hostfile_write(file, (struct span){&iov, 1, 0}, offset, len);
}

/* ---- The rest ---------------------------------------------------------------------------------
 */

int hostfile_sync(struct hostfile *file)
{
    int lost = atomic_load(&file->lost);
    if (lost || fdatasync(file->fd) == 0)
        return lost;
    lost = -errno;
    atomic_store(&file->lost, lost);
    return lost;
}

int hostfile_length(const struct hostfile *file, uint64_t *length)
{
    struct stat st;
    *length = file->size;
    if (!file->regular)
        return 0;
    if (fstat(file->fd, &st) < 0)
        return -errno;
    *length = (uint64_t)st.st_size;
    return 0;
}

int hostfile_extend(struct hostfile *file, uint64_t length)
{
    uint64_t now;
    int result = hostfile_length(file, &now);
    if (result || !file->regular || now >= length)
        return result;
    return ftruncate(file->fd, (off_t)length) < 0 ? -errno : 0;
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
        result = fd_write(fd, (struct span){&iov, 1, 0}, offset, iov.iov_len);
        offset += iov.iov_len;
        len -= iov.iov_len;
    }
    free(zeroes);
    return result;
}

int fd_zero(int fd, uint64_t offset, uint64_t len, enum hostfile_zero_how how)
{
    static const int modes[] = {FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE};
    int result = -EOPNOTSUPP;
    for (unsigned i = how == HOSTFILE_ZERO_UNMAP ? 0 : 1; i < 2 && result; i++)
        result = allocate(fd, modes[i], offset, len);
    return result ? write_zero_bytes(fd, offset, len) : 0;
}

int hostfile_zero(struct hostfile *file, uint64_t offset, uint64_t len, enum hostfile_zero_how how)
{
    return fd_zero(file->fd, offset, len, how);
}

int hostfile_punch(struct hostfile *file, uint64_t offset, uint64_t len)
{
    int result = allocate(file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, len);
    /* Where holes cannot be punched, the old contents do no harm. */
    return result == -EOPNOTSUPP || result == -ENODEV ? 0 : result;
}
