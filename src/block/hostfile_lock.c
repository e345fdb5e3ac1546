/*
 * hostfile_lock.c - locks that keep a second machine from an image.
 *
 * They are open-file-description locks on the byte ranges that QEMU uses for its image locks, so
 * that the two programs respect each other: whoever uses an image read-locks byte 100, whoever
 * writes it read-locks 101, whoever does not stand another writer read-locks 201. A writer here
 * write-locks the lot.
 */
#include "hostfile_lock.h"
#include "internal/error.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define LOCK_USED       100
#define LOCK_WRITTEN    101
#define LOCK_NO_WRITER  201
#define LOCK_NO_RESIZER 203
#define LOCK_END        204

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

bool hostfile_lock(int fd, const char *path, bool write, struct error *err)
{
    int result = write ? lock_range(fd, F_OFD_SETLK, F_WRLCK, LOCK_USED, LOCK_END - LOCK_USED)
                       : lock_to_read(fd);
    if (result == -EAGAIN || result == -EACCES)
        return error_set(err,
                         write ? "%s: in use by another machine, and a writer needs it alone "
                                 "(-snapshot leaves it unwritten)"
                               : "%s: another machine is writing it",
                         path);
    if (result == -ENOLCK || result == -EINVAL || result == -EOPNOTSUPP) {
        fprintf(stderr,
                "bailey: warning: %s: its file system has no locks; make sure that no "
                "other machine uses it\n",
                path);
        return true;
    }
    return !result || error_set(err, "%s: cannot lock: %s", path, strerror(-result));
}
