/*
 * flat.c - a file of no known format is a flat binary, started as a PC starts a boot sector: at
 * 0000:7C00 in real mode, DL = 80h. Unlike a boot sector it is loaded whole, as far as conventional
 * memory reaches. There are no BIOS services.
 */
#include "image.h"

#define FLAT_LOAD 0x7c00ull
#define FLAT_DISK 0x80 /* the first hard disk's BIOS number */

static bool flat_probe(const struct file *file)
{
    (void)file;
    return true;
}

static bool flat_load(const struct boot_image *image, const struct boot_platform *platform,
                      struct boot_entry *entry, struct error *err)
{
    struct placer placer;
    placer_init(&placer, platform);
    if (image->kernel.len > FIRMWARE_EBDA - FLAT_LOAD)
        return error_set(err,
                         "not a Linux, multiboot or PVH kernel, and as a flat binary (at most "
                         "%llu bytes) too large",
                         (unsigned long long)(FIRMWARE_EBDA - FLAT_LOAD));
    if (*image->append)
        return error_set(err, "-append: a flat binary takes no command line");
    if (!place_at(&placer, FLAT_LOAD, image->kernel.len, "the flat binary", err))
        return false;
    guest_write(&placer, FLAT_LOAD, image->kernel.bytes, image->kernel.len);
    entry->mode = BOOT_REAL16;
    entry->rip = FLAT_LOAD;
    entry->rsp = FLAT_LOAD;
    entry->rdx = FLAT_DISK;
    return true;
}

const struct protocol loader_flat = {
    .name = "flat",
    .probe = flat_probe,
    .load = flat_load,
    .no_modules = true,
};
