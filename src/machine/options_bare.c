/*
 * options_bare.c - `bailey FILE...`: what a file without an option before it is for, found out by
 * looking into it.
 *
 * Only what a file says of itself counts, never its name. Kernels come first, for a bzImage also
 * looks like a boot sector; then CDs, for their images may look like disks as well.
 */
#include "options.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    HEAD = 64 << 10,
    FIRMWARE_UNIT = 64 << 10,
    FIRMWARE_MAX = 16 << 20,
    MULTIBOOT_SEARCH = 8192
};

/* The file's first and last bytes; what is not there is zero. */
struct look {
    const char *path;
    uint64_t size;
    uint8_t head[HEAD], tail[16];
};

static bool is_at(const struct look *look, size_t offset, const char *magic, size_t len)
{
    return memcmp(look->head + offset, magic, len) == 0;
}

/* Multiboot Specification 0.6.96, 3.1.1: a header on a dword in the first 8 KiB. */
static bool is_multiboot(const struct look *look)
{
    for (size_t i = 0; i + 12 <= MULTIBOOT_SEARCH; i += 4) {
        uint32_t header[3];
        memcpy(header, look->head + i, sizeof(header));
        if (header[0] == 0x1badb002 && header[0] + header[1] + header[2] == 0)
            return true;
    }
    return false;
}

static bool is_kernel(const struct look *look)
{
    return is_at(look, 0,
                 "\x7f"
                 "ELF",
                 4) ||
           is_at(look, 0x202, "HdrS", 4) || is_multiboot(look);
}

/* ISO 9660 (ECMA-119, 8.1), or UDF alone: the volume descriptors in sector 16. */
static bool is_cdrom(const struct look *look)
{
    return is_at(look, 0x8001, "CD001", 5) || is_at(look, 0x8001, "BEA01", 5);
}

/* A PC's firmware begins 16 bytes before its end, with a jump; a UEFI firmware volume's header is
 * at its start. */
static bool is_firmware(const struct look *look)
{
    if (look->size % FIRMWARE_UNIT || look->size > FIRMWARE_MAX)
        return false;
    bool volume = is_at(look, 40, "_FVH", 4);
    uint8_t first = look->tail[0];
    return volume || (first == 0xea && look->tail[3] == 0x00 && look->tail[4] == 0xf0);
}

/* Images with no partitions that have exactly the size of a disk that PCs had. */
static bool is_floppy(const struct look *look)
{
    static const uint32_t kib[] = {160, 180, 320, 360, 720, 1200, 1440, 2880};
    for (unsigned i = 0; i < sizeof(kib) / sizeof(kib[0]); i++)
        if (look->size == kib[i] * 1024ull)
            return true;
    return false;
}

/* What has a header of its own (qcow2, VMDK, VHDX, VDI, VHD), or whole sectors. */
static bool is_disk(const struct look *look)
{
    return look->size >= 512 &&
           (look->size % 512 == 0 || is_at(look, 0, "QFI\xfb", 4) || is_at(look, 0, "KDMV", 4) ||
            is_at(look, 0, "vhdxfile", 8) || is_at(look, 0, "<<< ", 4) ||
            is_at(look, 0, "# Disk DescriptorFile", 21));
}

/* ---- What follows from it -------------------------------------------------------------------- */

static bool set_once(struct options *o, char **string, const char *path, const char *what)
{
    if (*string)
        return error_set(o->err, "%s: is a %s, like '%s'; there can be one", path, what, *string);
    *string = copy_string(path);
    return true;
}

static bool use_kernel(struct options *o, const char *path)
{
    return set_once(o, &o->config->kernel, path, "kernel");
}
static bool use_firmware(struct options *o, const char *path)
{
    return set_once(o, &o->config->bios, path, "firmware image");
}
static bool use_cdrom(struct options *o, const char *path)
{
    return option_drive_index(o, 2, true, path, path);
}
static bool use_floppy(struct options *o, const char *path)
{
    return option_floppy(o, 0, path);
}
static bool use_disk(struct options *o, const char *path)
{
    return option_disk(o, path);
}

static const struct {
    bool (*is)(const struct look *look);
    bool (*use)(struct options *o, const char *path);
} kinds[] = {
    {is_kernel, use_kernel}, {is_cdrom, use_cdrom}, {is_firmware, use_firmware},
    {is_floppy, use_floppy}, {is_disk, use_disk},
};

static bool look_at(struct look *look, const char *path, struct error *err)
{
    struct stat st;
    look->path = path;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) < 0) {
        error_set(err, "%s: %s", path, strerror(errno));
        if (fd >= 0)
            close(fd);
        return false;
    }
    off_t end = lseek(fd, 0, SEEK_END); /* of block devices, too */
    bool ok = !S_ISDIR(st.st_mode) && end >= 0 && pread(fd, look->head, HEAD, 0) >= 0;
    look->size = ok ? (uint64_t)end : 0;
    if (ok && end >= 16)
        ok = pread(fd, look->tail, sizeof(look->tail), end - 16) == sizeof(look->tail);
    close(fd);
    return ok || error_set(err, "%s: is no file that could be booted", path);
}

bool option_bare(struct options *o, const char *path)
{
    o->bare = true;
    if (strncmp(path, "nbd:", 4) == 0 || strncmp(path, "nbds:", 5) == 0)
        return use_disk(o, path);
    struct look *look = calloc(1, sizeof(*look));
    bool ok = look && look_at(look, path, o->err), found = false;
    for (unsigned i = 0; ok && !found && i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (kinds[i].is(look)) {
            found = true;
            ok = kinds[i].use(o, path);
        }
    free(look);
    if (ok && !found)
        return error_set(o->err,
                         "%s: is no kernel, firmware, CD or disk image that Bailey knows; "
                         "-drive file=%s,format=raw takes it as a disk all the same",
                         path, path);
    return ok;
}
