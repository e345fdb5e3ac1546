/*
 * pvh.c - ELF kernels with a PVH entry point (Xen: xen/include/public/arch-x86/hvm/start_info.h and
 * docs/misc/pvh.pandoc). Entered in 32-bit protected mode without paging, EBX = start info.
 *
 * An ELF file that has neither the note nor a multiboot header is ours too, to be refused with a
 * message that says what is missing.
 */
#include "image.h"

#define START_INFO_MAGIC 0x336ec578u
enum { INFO_SIZE = 56, MODULE_SIZE = 32, RANGE_SIZE = 24, ROOM = 0x1000 };

static bool write_start_info(struct placer *placer, const struct boot_image *image,
                             const struct boot_platform *platform, const uint64_t *modules,
                             struct boot_entry *entry, struct error *err)
{
    uint8_t info[ROOM] = {0};
    uint64_t gpa, cmdline;
    uint8_t *p = info + INFO_SIZE;
    _Static_assert(INFO_SIZE + MODULES_MAX * MODULE_SIZE + 16 * RANGE_SIZE <= ROOM, "start info");

    if (!place_lowest(placer, ROOM, PAGE_SIZE, LOW_MIN, LOW_MAX, "the start info", &gpa, err) ||
        !place_string(placer, image->append, &cmdline, err))
        return false;
    put32(info, START_INFO_MAGIC);
    put32(info + 4, 1); /* version: has the memory map */
    put32(info + 12, image->module_count);
    put64(info + 16, image->module_count ? gpa + (uint64_t)(p - info) : 0);
    put64(info + 24, cmdline);
    put64(info + 32, platform->rsdp);
    for (unsigned i = 0; i < image->module_count; i++, p += MODULE_SIZE) {
        uint64_t text;
        if (!place_string(placer, image->modules[i].cmdline, &text, err))
            return false;
        put64(p, modules[i]);
        put64(p + 8, image->modules[i].file.len);
        put64(p + 16, text);
    }
    put64(info + 40, gpa + (uint64_t)(p - info));
    put32(info + 48, platform->memory->count);
    for (unsigned i = 0; i < platform->memory->count; i++, p += RANGE_SIZE) {
        put64(p, platform->memory->range[i].base);
        put64(p + 8, platform->memory->range[i].size);
        put32(p + 16, platform->memory->range[i].type);
    }
    guest_write(placer, gpa, info, sizeof(info));
    entry->rbx = gpa;
    return true;
}

static bool pvh_load(const struct boot_image *image, const struct boot_platform *platform,
                     struct boot_entry *entry, struct error *err)
{
    struct placer placer;
    uint64_t start, ignored, modules[MODULES_MAX];

    placer_init(&placer, platform);
    if (!elf_pvh_entry(&image->kernel, &start, err) ||
        !elf_load(&image->kernel, &placer, &ignored, err))
        return false;
    if (start >= 1ull << 32)
        return error_set(err, "its PVH entry %#llx is above 4 GiB", (unsigned long long)start);
    if (!place_modules(&placer, image, modules, err) || !boot_flat32(&placer, entry, err) ||
        !write_start_info(&placer, image, platform, modules, entry, err))
        return false;
    entry->rip = start;
    return true;
}

const struct protocol loader_pvh = {
    .name = "PVH",
    .probe = elf_probe,
    .load = pvh_load,
    .many_modules = true,
};
