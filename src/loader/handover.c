/*
 * handover.c - a Linux kernel for a firmware that starts it: by its setup code, which calls the
 * BIOS (Documentation/arch/x86/boot.rst, "real-mode kernel header"), or by its EFI stub.
 *
 * The parts are placed where QEMU places them, since firmware copies them there unasked.
 */
#include "linux.h"
#include <stdlib.h>

#define SETUP_ADDRESS   0x10000u
#define SETUP_MAX       (65 * 512u)        /* its heap and stack lie behind it, in 64 KiB */
#define HEAP_END        (0xfe00u - 0x200u) /* from the setup code's start */
#define CMDLINE_ADDRESS 0x20000u
#define CMDLINE_MAX     0x7f000u /* up to A0000h, less the BIOS's own area */
#define KERNEL_ADDRESS  0x100000u
/* Below the end of RAM, for what firmware keeps there. */
#define RESERVED 0x28000u

static bool is_bzimage(const uint8_t *h)
{
    return le16(h + HDR_VERSION) >= 0x202 && h[HDR_LOADFLAGS] & LOADED_HIGH;
}

/* A kernel without a 32-bit entry: there is only its setup code. Linux always has one. */
bool boot_image_calls_bios(const struct boot_image *image)
{
    const uint8_t *h = file_get(&image->kernel, 0, HDR_END);
    return image->protocol == &loader_linux && h && is_bzimage(h) &&
           le32(h + HDR_CODE32_START) == 0;
}

static bool place_ramdisk(const struct boot_image *image, uint64_t ram_low, uint64_t kernel_end,
                          struct boot_handover *to, struct error *err)
{
    uint8_t *h = to->setup;
    uint64_t most = le16(h + HDR_VERSION) >= 0x203 ? le32(h + HDR_INITRD_ADDR_MAX) : 0x37ffffff;
    if (!image->module_count)
        return true;
    const struct file *file = &image->modules[0].file;
    if (ram_low < RESERVED + file->len)
        return error_set(err, "initrd '%s' does not fit below the end of memory", file->name);
    if (most > ram_low - RESERVED - 1)
        most = ram_low - RESERVED - 1;
    to->initrd = file->bytes;
    to->initrd_size = (uint32_t)file->len;
    to->initrd_address = (uint32_t)((most + 1 - file->len) & PAGE_MASK);
    if (file->len > most || to->initrd_address < kernel_end)
        return error_set(err, "initrd '%s' does not fit behind the kernel; try a larger -m",
                         file->name);
    put32(h + HDR_RAMDISK_IMAGE, to->initrd_address);
    put32(h + HDR_RAMDISK_SIZE, to->initrd_size);
    return true;
}

static bool split(const struct boot_image *image, struct boot_handover *to, struct error *err)
{
    const struct file *file = &image->kernel;
    const uint8_t *h = file_get(file, 0, HDR_END);
    if (image->protocol != &loader_linux || !h)
        return error_set(err, "is a %s image; firmware starts Linux kernels (bzImage) only",
                         image->protocol->name);
    to->setup_size = linux_setup_size(h);
    if (!is_bzimage(h))
        return error_set(err, "is a zImage, or older than boot protocol 2.02");
    if (to->setup_size > SETUP_MAX)
        return error_set(err, "its setup code has %u bytes; %u is the most", to->setup_size,
                         SETUP_MAX);
    if (!file_get(file, 0, (uint64_t)to->setup_size + 1) || file->len > UINT32_MAX)
        return error_set(err, "truncated: it ends with its setup code");
    to->kernel = file->bytes + to->setup_size;
    to->kernel_size = (uint32_t)(file->len - to->setup_size);
    to->setup = malloc(to->setup_size);
    if (!to->setup)
        return error_set(err, "no host memory for the kernel");
    memcpy(to->setup, file->bytes, to->setup_size);
    return true;
}

static bool prepare(const struct boot_image *image, uint64_t ram_low, struct boot_handover *to,
                    struct error *err)
{
    if (!split(image, to, err))
        return false;
    size_t len = strlen(image->append) + 1;
    if (len > CMDLINE_MAX)
        return error_set(err, "-append: longer than %u characters", CMDLINE_MAX - 1);
    to->cmdline = image->append;
    to->cmdline_size = (uint32_t)len;
    to->setup_address = SETUP_ADDRESS;
    to->kernel_address = KERNEL_ADDRESS;
    to->cmdline_address = CMDLINE_ADDRESS;
    to->setup[HDR_LOADER] = LOADER_UNDEFINED;
    to->setup[HDR_LOADFLAGS] |= CAN_USE_HEAP;
    put16(to->setup + HDR_HEAP_END, HEAP_END);
    put32(to->setup + HDR_CMD_LINE_PTR, CMDLINE_ADDRESS);
    return place_ramdisk(image, ram_low, (uint64_t)KERNEL_ADDRESS + to->kernel_size, to, err);
}

bool boot_image_hand_over(const struct boot_image *image, uint64_t ram_low,
                          struct boot_handover *to, struct error *err)
{
    *to = (struct boot_handover){0};
    if (prepare(image, ram_low, to, err))
        return true;
    boot_handover_free(to);
    return error_prefix(err, "kernel '%s'", image->kernel.name);
}

void boot_handover_free(struct boot_handover *handover)
{
    free(handover->setup);
    handover->setup = NULL;
}
