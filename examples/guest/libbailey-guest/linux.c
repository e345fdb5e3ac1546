/*
 * linux.c - finds and maps the device in a Linux process, through sysfs: no kernel module.
 *
 * System calls are made here without a libc, so that the library also works inside a replacement of
 * malloc() or before a libc is ready.
 */
#include "bailey_guest.h"
#include <asm/unistd.h>

enum { /* <fcntl.h>, <sys/mman.h>, <sys/file.h> */
       O_RDONLY_ = 0,
       O_WRONLY_ = 1,
       O_RDWR_ = 2,
       O_DIRECTORY_ = 0x10000,
       O_CLOEXEC_ = 0x80000,
       PROT_READ_WRITE = 3,
       MAP_SHARED_ = 1,
       MADV_DONTFORK_ = 10,
       LOCK_EX_ = 2,
       LOCK_UN_ = 8,
       ENOENT_ = 2,
       PAGE = 4096,
};

static long system_call(long number, long a, long b, long c, long d, long e, long f)
{
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "0"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

static int open_file(const char *path, int flags)
{
    return (int)system_call(__NR_open, (long)path, flags | O_CLOEXEC_, 0, 0, 0, 0);
}

static void close_file(int fd)
{
    system_call(__NR_close, fd, 0, 0, 0, 0, 0);
}

static void *map_file(int fd, size_t bytes)
{
    long at = system_call(__NR_mmap, 0, (long)bytes, PROT_READ_WRITE, MAP_SHARED_, fd, 0);
    return at < 0 && at > -PAGE ? NULL : (void *)at;
}

static void unmap(volatile void *at, size_t bytes)
{
    if (bytes)
        system_call(__NR_munmap, (long)at, (long)bytes, 0, 0, 0, 0);
}

/* ---- The function in /sys/bus/pci/devices -------------------------------------------------------
 */

#define DEVICES "/sys/bus/pci/devices/"
enum { PATH = 80 };

/* DEVICES + function + "/" + file; names of functions have 12 characters (0000:00:05.0). */
static void make_path(char path[PATH], const char *function, const char *file)
{
    const char *const parts[] = {DEVICES, function, "/", file};
    size_t n = 0;
    for (unsigned p = 0; p < 4; p++)
        for (const char *s = parts[p]; *s && n < PATH - 1; s++)
            path[n++] = *s;
    path[n] = 0;
}

static int open_attribute(const char *function, const char *file, int flags)
{
    char path[PATH];
    make_path(path, function, file);
    return open_file(path, flags);
}

/* An attribute file with a number in hexadecimal ("0x1b36"); ~0 when there is none. */
static unsigned read_attribute(const char *function, const char *file)
{
    int fd = open_attribute(function, file, O_RDONLY_);
    if (fd < 0)
        return ~0u;
    char text[16];
    long n = system_call(__NR_read, fd, (long)text, sizeof(text), 0, 0, 0);
    close_file(fd);
    unsigned value = 0;
    for (long i = n > 2 && text[1] == 'x' ? 2 : 0; i < n; i++) {
        char c = text[i];
        if (c >= '0' && c <= '9')
            value = value << 4 | (unsigned)(c - '0');
        else if (c >= 'a' && c <= 'f')
            value = value << 4 | (unsigned)(c - 'a' + 10);
        else
            break;
    }
    return n > 0 ? value : ~0u;
}

struct directory_entry { /* struct linux_dirent64 */
    uint64_t inode;
    int64_t offset;
    uint16_t length;
    uint8_t type;
    char name[];
};

/* Looks through one bufferful of names. */
static bool find_in(const char *buffer, long bytes, char *function, size_t size)
{
    const struct directory_entry *entry;
    for (long at = 0; at < bytes; at += entry->length) {
        entry = (const struct directory_entry *)(buffer + at);
        if (entry->name[0] == '.' || read_attribute(entry->name, "vendor") != PROTECT_PCI_VENDOR ||
            read_attribute(entry->name, "device") != PROTECT_PCI_DEVICE)
            continue;
        size_t n = 0;
        for (; entry->name[n] && n < size - 1; n++)
            function[n] = entry->name[n];
        function[n] = 0;
        return true;
    }
    return false;
}

static bool find_function(char *function, size_t size)
{
    int fd = open_file(DEVICES, O_RDONLY_ | O_DIRECTORY_);
    if (fd < 0)
        return false;
    char buffer[1024] __attribute__((aligned(8)));
    bool found = false;
    long bytes;
    while (!found &&
           (bytes = system_call(__NR_getdents64, fd, (long)buffer, sizeof(buffer), 0, 0, 0)) > 0)
        found = find_in(buffer, bytes, function, size);
    close_file(fd);
    return found;
}

/* Maps a BAR; returns 0 and *at, or why not. *fd: the file, open. */
static int map_resource(const char *file, size_t bytes, void **at, int *fd)
{
    char function[32];
    if (!find_function(function, sizeof(function)))
        return BAILEY_NO_DEVICE;
    if (read_attribute(function, "enable") == 0) {
        int enable = open_attribute(function, "enable", O_WRONLY_);
        if (enable >= 0) {
            system_call(__NR_write, enable, (long)"1", 1, 0, 0, 0);
            close_file(enable);
        }
    }
    *fd = open_attribute(function, file, O_RDWR_);
    if (*fd < 0)
        return *fd == -ENOENT_ ? BAILEY_NO_DEVICE : BAILEY_NO_PERMISSION;
    *at = map_file(*fd, bytes);
    if (!*at) {
        close_file(*fd);
        return BAILEY_NO_PERMISSION;
    }
    return 0;
}

/* ---- Doors --------------------------------------------------------------------------------------
 */

int bailey_linux_open(struct bailey_door *door)
{
    const size_t all = (size_t)PROTECT_DOORS * PROTECT_DOOR_SIZE;
    void *doors;
    int fd;
    int status = map_resource("resource2", all, &doors, &fd);
    if (status)
        return status;
    /* One process at a time looks for a door: two that fill the same slot of the same free door
     * would read each other's answer. */
    system_call(__NR_flock, fd, LOCK_EX_, 0, 0, 0, 0);
    status = bailey_door_open(door, doors, PROTECT_DOORS);
    /* The mapping keeps the file open: without this the lock would be held as long as the door. */
    system_call(__NR_flock, fd, LOCK_UN_, 0, 0, 0, 0);
    close_file(fd);
    if (status != PROTECT_OK) {
        unmap(doors, all);
        return status;
    }
    char *mine = (char *)doors + (size_t)door->index * PROTECT_DOOR_SIZE;
    unmap(doors, (size_t)(mine - (char *)doors));
    unmap(mine + PROTECT_DOOR_SIZE, all - (size_t)(mine - (char *)doors) - PROTECT_DOOR_SIZE);
    system_call(__NR_madvise, (long)mine, PROTECT_DOOR_SIZE, MADV_DONTFORK_, 0, 0, 0);
    return PROTECT_OK;
}

enum protect_status bailey_linux_close(struct bailey_door *door)
{
    volatile struct protect_door *regs = door->regs;
    enum protect_status status = bailey_door_close(door);
    if (status == PROTECT_OK)
        unmap(regs, PROTECT_DOOR_SIZE);
    return status;
}

int bailey_linux_grant(struct bailey_door *door, uint32_t grants)
{
    void *admin;
    int fd;
    int status = map_resource("resource0", PROTECT_ADMIN_SIZE, &admin, &fd);
    if (status)
        return status;
    close_file(fd);
    status = (int)bailey_admin_grant(admin, door->index, grants);
    unmap(admin, PROTECT_ADMIN_SIZE);
    return status;
}
