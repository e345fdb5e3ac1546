/*
 * multiboot.c - the Multiboot Specification, version 0.6.96 ("multiboot 1").
 *
 * A kernel with a multiboot header in its first 8 KiB, as an ELF file (32-bit, or 64-bit with an
 * entry point for 32-bit code) or with load addresses in the header (flag 16). Entered in 32-bit
 * protected mode without paging: EAX = magic, EBX = boot information (section 3.3).
 */
#include "image.h"
#include <stdlib.h>

#define HEADER_MAGIC 0x1badb002u
#define BOOT_MAGIC   0x2badb002u
enum {
    SEARCH = 8192,
    HEADER_SIZE = 12,
    KLUDGE_SIZE = 32,
    /* Header flags: page-aligned modules and memory information are always given; a video mode
     * (2) is a wish that no display can grant, and bit 16 says that addresses follow. */
    FLAGS_KNOWN = 7,
    FLAGS_REQUIRED = 0xffff,
    FLAG_KLUDGE = 1 << 16,
};
/* The boot information (section 3.3). */
enum {
    INFO_MEM = 1 << 0,
    INFO_CMDLINE = 1 << 2,
    INFO_MODS = 1 << 3,
    INFO_MMAP = 1 << 6,
    INFO_NAME = 1 << 9,
    INFO_SIZE = 116,
    MODULE_SIZE = 16,
    RANGE_SIZE = 24,
    ROOM = 0x1000,
};

/* The header's offset in the file, or -1. */
static int64_t find_header(const struct file *file)
{
    for (uint64_t at = 0; at + HEADER_SIZE <= SEARCH; at += 4) {
        const uint8_t *h = file_get(file, at, HEADER_SIZE);
        if (!h)
            return -1;
        if (le32(h) == HEADER_MAGIC && le32(h) + le32(h + 4) + le32(h + 8) == 0)
            return (int64_t)at;
    }
    return -1;
}

static bool multiboot_probe(const struct file *file)
{
    return find_header(file) >= 0;
}

/* Load addresses from the header (section 3.1.3): the text starts header_addr - load_addr before
 * the header. load_end 0 means to the end of the file, bss_end 0 no bss. */
static bool load_kludge(const struct file *file, uint64_t at, struct placer *placer,
                        uint64_t *entry, struct error *err)
{
    const uint8_t *h = file_get(file, at, KLUDGE_SIZE);
    if (!h)
        return error_set(err, "truncated: the multiboot header is incomplete");
    uint64_t header_addr = le32(h + 12), load = le32(h + 16), load_end = le32(h + 20);
    uint64_t bss_end = le32(h + 24);
    if (header_addr < load || header_addr - load > at)
        return error_set(err,
                         "broken multiboot header: header_addr %#llx and load_addr %#llx do "
                         "not fit its place in the file",
                         (unsigned long long)header_addr, (unsigned long long)load);
    uint64_t offset = at - (header_addr - load);
    if (load_end == 0)
        load_end = load + (file->len - offset);
    if (load_end < load)
        return error_set(err, "broken multiboot header: load_end_addr below load_addr");
    const uint8_t *bytes = file_get(file, offset, load_end - load);
    if (!bytes)
        return error_set(err, "truncated: its multiboot header says %llu bytes to load",
                         (unsigned long long)(load_end - load));
    if (bss_end < load_end)
        bss_end = load_end;
    if (!place_at(placer, load, bss_end - load, "the kernel", err))
        return false;
    guest_write(placer, load, bytes, load_end - load);
    guest_zero(placer, load_end, bss_end - load_end);
    *entry = le32(h + 28);
    return true;
}

static uint64_t usable_kib(const struct memory_map *memory, uint64_t base)
{
    for (unsigned i = 0; i < memory->count; i++)
        if (memory->range[i].type == MEMORY_USABLE && memory->range[i].base == base)
            return memory->range[i].size >> 10;
    return 0;
}

/* The kernel's command line begins with its name, as GRUB's and QEMU's do. */
static bool place_cmdline(struct placer *placer, const struct boot_image *image, uint64_t *gpa,
                          struct error *err)
{
    size_t room = strlen(image->kernel.name) + strlen(image->append) + 2;
    char *text = malloc(room);
    if (!text)
        return error_set(err, "no host memory for the command line");
    strcpy(text, image->kernel.name);
    if (*image->append)
        strcat(strcat(text, " "), image->append);
    bool ok = place_string(placer, text, gpa, err);
    free(text);
    return ok;
}

static bool put_modules(struct placer *placer, const struct boot_image *image, uint8_t *p,
                        struct error *err)
{
    uint64_t gpa[MODULES_MAX], text;
    if (!place_modules(placer, image, gpa, err))
        return false;
    for (unsigned i = 0; i < image->module_count; i++, p += MODULE_SIZE) {
        if (!place_string(placer, image->modules[i].cmdline, &text, err))
            return false;
        put32(p, (uint32_t)gpa[i]);
        put32(p + 4, (uint32_t)(gpa[i] + image->modules[i].file.len));
        put32(p + 8, (uint32_t)text);
    }
    return true;
}

static bool write_info(struct placer *placer, const struct boot_image *image,
                       const struct memory_map *memory, struct boot_entry *entry, struct error *err)
{
    uint8_t info[ROOM] = {0};
    uint64_t gpa, cmdline, name;
    enum { MODS = INFO_SIZE, MMAP = MODS + MODULES_MAX * MODULE_SIZE };
    _Static_assert(MMAP + 16 * RANGE_SIZE <= ROOM, "multiboot information");

    if (!place_lowest(placer, ROOM, PAGE_SIZE, LOW_MIN, LOW_MAX, "the boot information", &gpa,
                      err) ||
        !place_cmdline(placer, image, &cmdline, err) ||
        !place_string(placer, "bailey", &name, err) ||
        !put_modules(placer, image, info + MODS, err))
        return false;
    put32(info, INFO_MEM | INFO_CMDLINE | INFO_MODS | INFO_MMAP | INFO_NAME);
    put32(info + 4, (uint32_t)usable_kib(memory, 0));
    put32(info + 8, (uint32_t)usable_kib(memory, 0x100000));
    put32(info + 16, (uint32_t)cmdline);
    put32(info + 20, image->module_count);
    put32(info + 24, (uint32_t)gpa + MODS);
    put32(info + 44, memory->count * RANGE_SIZE);
    put32(info + 48, (uint32_t)gpa + MMAP);
    put32(info + 64, (uint32_t)name);
    for (unsigned i = 0; i < memory->count; i++) {
        uint8_t *p = info + MMAP + i * RANGE_SIZE;
        put32(p, RANGE_SIZE - 4); /* the size does not count itself */
        put64(p + 4, memory->range[i].base);
        put64(p + 12, memory->range[i].size);
        put32(p + 20, memory->range[i].type);
    }
    guest_write(placer, gpa, info, sizeof(info));
    entry->rbx = gpa;
    return true;
}

static bool multiboot_load(const struct boot_image *image, const struct boot_platform *platform,
                           struct boot_entry *entry, struct error *err)
{
    struct placer placer;
    int64_t at = find_header(&image->kernel);
    uint32_t flags = le32(image->kernel.bytes + at + 4);
    uint64_t start;

    placer_init(&placer, platform);
    if (flags & FLAGS_REQUIRED & ~FLAGS_KNOWN)
        return error_set(err, "its multiboot header requires features %#x that are not known",
                         flags & FLAGS_REQUIRED & ~FLAGS_KNOWN);
    if (flags & FLAG_KLUDGE) {
        if (!load_kludge(&image->kernel, (uint64_t)at, &placer, &start, err))
            return false;
    } else if (!elf_probe(&image->kernel)) {
        return error_set(err, "a multiboot kernel that is neither ELF nor has load addresses");
    } else if (!elf_load(&image->kernel, &placer, &start, err)) {
        return false;
    }
    if (start >= 1ull << 32)
        return error_set(err, "its entry point %#llx is above 4 GiB", (unsigned long long)start);
    if (!boot_flat32(&placer, entry, err) ||
        !write_info(&placer, image, platform->memory, entry, err))
        return false;
    entry->rip = start;
    entry->rax = BOOT_MAGIC;
    return true;
}

const struct protocol loader_multiboot = {
    .name = "multiboot",
    .probe = multiboot_probe,
    .load = multiboot_load,
    .many_modules = true,
};
