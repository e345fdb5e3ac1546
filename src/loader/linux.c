/*
 * linux.c - the Linux/x86 boot protocol, versions 2.00 to 2.15 (kernel source,
 * Documentation/arch/x86/boot.rst and zero-page.rst).
 *
 * A bzImage is a boot sector and setup code (512 to 32 KiB), then the protected-mode kernel. The
 * setup code is not run: the kernel is entered at its 64-bit entry when it has one, else at its
 * 32-bit entry, with the "zero page" filled as the setup code would have.
 */
#include "linux.h"

#define MAGIC_HDRS      0x53726448u /* "HdrS" */
#define XLF_KERNEL_64   0x01
#define VID_MODE_NORMAL 0xffff
#define OLD_CL_MAGIC    0xa33f
#define OLD_ZERO_PAGE   0x90000ull /* protocols before 2.02 fix it, for the command line's sake */
#define OLD_LOAD        0x10000ull /* a zImage's place */
#define HIGH_LOAD       0x100000ull
#define ENTRY64         0x200

/* What load needs of the header, with the defaults of older protocols. */
struct kernel {
    unsigned version;
    uint64_t setup_size; /* bytes before the protected-mode kernel */
    const uint8_t *code; /* the protected-mode kernel */
    uint64_t code_size;
    uint8_t loadflags;
    bool relocatable, entry64;
    uint64_t alignment, min_alignment;
    uint64_t preferred, init_size;
    uint64_t initrd_max;   /* last byte an initrd may occupy */
    uint64_t cmdline_size; /* without the terminator */
};

static bool linux_probe(const struct file *file)
{
    const uint8_t *magic = file_get(file, HDR_MAGIC, 4);
    return magic && le32(magic) == MAGIC_HDRS && le16(file->bytes + HDR_BOOT_FLAG) == 0xaa55;
}

static bool truncated(uint64_t have, uint64_t want, struct error *err)
{
    return error_set(err, "truncated: %llu bytes, but its header says %llu",
                     (unsigned long long)have, (unsigned long long)want);
}

static bool power_of_two(uint64_t v)
{
    return v && !(v & (v - 1));
}

static bool parse_size(const struct file *file, const uint8_t *h, struct kernel *k,
                       struct error *err)
{
    k->setup_size = linux_setup_size(h);
    /* syssize counts 16-byte paragraphs and rounds up. Before 2.04 its upper half is not reliable.
     */
    uint64_t syssize = k->version >= 0x204 ? le32(h + HDR_SYSSIZE) : le16(h + HDR_SYSSIZE);
    uint64_t want = k->setup_size + syssize * 16;
    if (file->len <= k->setup_size || file->len + 15 < want)
        return truncated(file->len, want, err);
    k->code_size = file->len - k->setup_size;
    k->code = file->bytes + k->setup_size;
    if (k->version >= 0x208) {
        uint64_t payload = (uint64_t)le32(h + HDR_PAYLOAD_OFFSET) + le32(h + HDR_PAYLOAD_LENGTH);
        if (payload > k->code_size)
            return truncated(file->len, k->setup_size + payload, err);
    }
    return true;
}

static bool parse(const struct file *file, struct kernel *k, struct error *err)
{
    const uint8_t *h = file_get(file, 0, HDR_END);
    if (!h)
        return error_set(err, "truncated: the setup header is incomplete");
    memset(k, 0, sizeof(*k));
    k->version = le16(h + HDR_VERSION);
    if (k->version < 0x200 || k->version >= 0x300)
        return error_set(err, "boot protocol %u.%02u is not known (2.00 to 2.15 are)",
                         k->version >> 8, k->version & 0xff);
    if (!parse_size(file, h, k, err))
        return false;

    k->loadflags = h[HDR_LOADFLAGS];
    k->initrd_max = k->version >= 0x203 ? le32(h + HDR_INITRD_ADDR_MAX) : 0x37ffffff;
    k->cmdline_size = k->version >= 0x206 ? le32(h + HDR_CMDLINE_SIZE) : 255;
    k->preferred = k->loadflags & LOADED_HIGH ? HIGH_LOAD : OLD_LOAD;
    k->init_size = k->code_size;
    k->alignment = k->min_alignment = PAGE_SIZE;
    if (k->version >= 0x205 && h[HDR_RELOCATABLE]) {
        k->relocatable = true;
        k->alignment = k->min_alignment = le32(h + HDR_KERNEL_ALIGNMENT);
    }
    if (k->version >= 0x20a) {
        k->preferred = le64(h + HDR_PREF_ADDRESS);
        if (le32(h + HDR_INIT_SIZE) > k->init_size)
            k->init_size = le32(h + HDR_INIT_SIZE);
        if (h[HDR_MIN_ALIGNMENT] < 32)
            k->min_alignment = 1ull << h[HDR_MIN_ALIGNMENT];
    }
    if (k->version >= 0x20c)
        k->entry64 = le16(h + HDR_XLOADFLAGS) & XLF_KERNEL_64;
    if (!power_of_two(k->alignment) || k->alignment > 1ull << 31)
        return error_set(err, "kernel_alignment %#llx is not a power of two",
                         (unsigned long long)k->alignment);
    if (k->entry64 && k->code_size <= ENTRY64)
        return truncated(file->len, k->setup_size + ENTRY64 + 1, err);
    return true;
}

/* The preferred address; where that is not free, a relocatable kernel's lowest place with the best
 * alignment that can be had. */
static bool place_kernel(struct placer *placer, const struct kernel *k, uint64_t *load,
                         struct error *err)
{
    const uint64_t top = 1ull << 32; /* the zero page's pointers and the identity map end there */
    *load = k->preferred;
    if (*load >= top || k->init_size > top - *load)
        return error_set(err, "wants to be loaded at %#llx, above 4 GiB",
                         (unsigned long long)*load);
    if (place_is_free(placer, *load, k->init_size) || !k->relocatable)
        return place_at(placer, *load, k->init_size, "the kernel", err);
    uint64_t align = k->alignment, least = k->min_alignment;
    if (least < PAGE_SIZE)
        least = PAGE_SIZE;
    while (align > least &&
           !place_lowest(placer, k->init_size, align, HIGH_LOAD, top, "the kernel", load, NULL))
        align >>= 1;
    if (align > least)
        return true;
    return place_lowest(placer, k->init_size, align, HIGH_LOAD, top, "the kernel", load, err);
}

static bool place_initrd(struct placer *placer, const struct boot_image *image,
                         const struct kernel *k, uint8_t *zp, struct error *err)
{
    if (!image->module_count)
        return true;
    const struct file *file = &image->modules[0].file;
    uint64_t gpa, limit = k->initrd_max + 1 < 1ull << 32 ? k->initrd_max + 1 : 1ull << 32;
    if (!place_highest(placer, file->len, PAGE_SIZE, HIGH_LOAD, limit, "the initrd", &gpa, err))
        return false;
    guest_write(placer, gpa, file->bytes, file->len);
    put32(zp + HDR_RAMDISK_IMAGE, (uint32_t)gpa);
    put32(zp + HDR_RAMDISK_SIZE, (uint32_t)file->len);
    return true;
}

static bool place_cmdline(struct placer *placer, const struct boot_image *image,
                          const struct kernel *k, uint8_t *zp, struct error *err)
{
    uint64_t gpa, len = strlen(image->append);
    if (len > k->cmdline_size)
        return error_set(err, "-append: %llu characters, but this kernel takes %llu",
                         (unsigned long long)len, (unsigned long long)k->cmdline_size);
    if (k->version >= 0x202) {
        if (!place_string(placer, image->append, &gpa, err))
            return false;
        put32(zp + HDR_CMD_LINE_PTR, (uint32_t)gpa);
        return true;
    }
    gpa = OLD_ZERO_PAGE + ZP_SIZE;
    if (!place_at(placer, gpa, len + 1, "the command line", err))
        return false;
    guest_write(placer, gpa, image->append, len + 1);
    put16(zp + ZP_OLD_CL_MAGIC, OLD_CL_MAGIC);
    put16(zp + ZP_OLD_CL_OFFSET, ZP_SIZE);
    return true;
}

static void put_memory_map(uint8_t *zp, const struct memory_map *memory)
{
    unsigned n = 0;
    for (; n < memory->count && n < ZP_E820_MAX; n++) {
        uint8_t *e = zp + ZP_E820_TABLE + 20 * n;
        const struct memory_range *r = &memory->range[n];
        put64(e, r->base);
        put64(e + 8, r->size);
        put32(e + 16, r->type);
        if (r->type == MEMORY_USABLE && r->base == HIGH_LOAD) {
            uint64_t kib = r->size >> 10;
            put16(zp + ZP_EXT_MEM_K, (uint16_t)(kib < 0xffff ? kib : 0xffff));
            put32(zp + ZP_ALT_MEM_K, (uint32_t)kib);
        }
    }
    zp[ZP_E820_ENTRIES] = (uint8_t)n;
}

/* What the setup code asks the BIOS for; without it a kernel leaves the screen dark. */
static void put_screen(uint8_t *zp)
{
    enum { MODE_COLOR_TEXT = 3, COLOR_256_KIB = 0x0003 /* INT 10h, AH = 12h, BL = 10h */ };
    zp[ZP_VIDEO_MODE] = MODE_COLOR_TEXT;
    zp[ZP_VIDEO_COLS] = 80;
    zp[ZP_VIDEO_LINES] = 25;
    zp[ZP_VIDEO_IS_VGA] = 1;
    put16(zp + ZP_VIDEO_EGA_BX, COLOR_256_KIB);
    put16(zp + ZP_VIDEO_POINTS, 16);
}

static void put_header(uint8_t *zp, const uint8_t *h, const struct kernel *k, uint64_t load)
{
    unsigned end = HDR_MAGIC + h[HDR_JUMP + 1];
    memcpy(zp + HDR_START, h + HDR_START, (end < HDR_END ? end : HDR_END) - HDR_START);
    zp[HDR_LOADER] = LOADER_UNDEFINED;
    put16(zp + HDR_VID_MODE, VID_MODE_NORMAL);
    put32(zp + HDR_CODE32_START, (uint32_t)load);
    put32(zp + HDR_RAMDISK_IMAGE, 0);
    put32(zp + HDR_RAMDISK_SIZE, 0);
    if (k->version >= 0x202)
        put32(zp + HDR_CMD_LINE_PTR, 0);
}

static bool linux_load(const struct boot_image *image, const struct boot_platform *platform,
                       struct boot_entry *entry, struct error *err)
{
    struct placer placer;
    struct kernel k;
    uint64_t load, zero_page = OLD_ZERO_PAGE;
    uint8_t zp[ZP_SIZE] = {0};

    placer_init(&placer, platform);
    if (!parse(&image->kernel, &k, err) || !place_kernel(&placer, &k, &load, err))
        return false;
    put_header(zp, image->kernel.bytes, &k, load);
    put_memory_map(zp, platform->memory);
    put64(zp + ZP_RSDP, platform->rsdp);
    if (platform->text_mode)
        put_screen(zp);
    bool placed = k.version >= 0x202 ? place_lowest(&placer, ZP_SIZE, PAGE_SIZE, 0x10000, LOW_MAX,
                                                    "the zero page", &zero_page, err)
                                     : place_at(&placer, zero_page, ZP_SIZE, "the zero page", err);
    if (!placed || !place_cmdline(&placer, image, &k, zp, err) ||
        !place_initrd(&placer, image, &k, zp, err))
        return false;
    if (!(k.entry64 ? boot_flat64 : boot_flat32)(&placer, entry, err))
        return false;
    guest_write(&placer, load, k.code, k.code_size);
    guest_write(&placer, zero_page, zp, sizeof(zp));
    entry->rip = load + (k.entry64 ? ENTRY64 : 0);
    entry->rsi = zero_page;
    return true;
}

const struct protocol loader_linux = {
    .name = "Linux",
    .probe = linux_probe,
    .load = linux_load,
};
