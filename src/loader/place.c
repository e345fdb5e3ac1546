/*
 * place.c - where things go in guest memory: the loaders' one bounds check.
 *
 * Constraint: a range is either wholly inside one usable range of the memory map and free, or it is
 * refused. Addresses and sizes come from hostile files, so every sum is checked for wrap-around.
 */
#include "image.h"
#include "internal/access.h"

#define MIB (1ull << 20)

static const struct access loader_access = {.initiator = INITIATOR_LOADER};

void placer_init(struct placer *placer, const struct boot_platform *platform)
{
    memset(placer, 0, sizeof(*placer));
    placer->map = platform->map;
    placer->memory = platform->memory;
}

/* The usable range that holds all of [base, base + size), or NULL. */
static const struct memory_range *usable_range(const struct placer *placer, uint64_t base,
                                               uint64_t size)
{
    for (unsigned i = 0; i < placer->memory->count; i++) {
        const struct memory_range *r = &placer->memory->range[i];
        if (r->type == MEMORY_USABLE && base >= r->base && size <= r->size &&
            base - r->base <= r->size - size)
            return r;
    }
    return NULL;
}

/* Index of a placed range that overlaps, or -1. Only for ranges that do not wrap. */
static int overlap(const struct placer *placer, uint64_t base, uint64_t size)
{
    for (unsigned i = 0; i < placer->count; i++)
        if (base < placer->used[i].end && base + size > placer->used[i].base)
            return (int)i;
    return -1;
}

bool place_is_free(const struct placer *placer, uint64_t base, uint64_t size)
{
    return usable_range(placer, base, size) && overlap(placer, base, size) < 0;
}

static bool claim(struct placer *placer, uint64_t base, uint64_t size, const char *what,
                  struct error *err)
{
    if (placer->count == sizeof(placer->used) / sizeof(placer->used[0]))
        return error_set(err, "too many pieces to load at %s", what);
    placer->used[placer->count].base = base;
    placer->used[placer->count].end = base + size;
    placer->used[placer->count].what = what;
    placer->count++;
    return true;
}

bool place_at(struct placer *placer, uint64_t base, uint64_t size, const char *what,
              struct error *err)
{
    if (!usable_range(placer, base, size))
        return error_set(err, "%s (%llu bytes at %#llx) does not lie in the guest's memory", what,
                         (unsigned long long)size, (unsigned long long)base);
    int other = overlap(placer, base, size);
    if (other >= 0)
        return error_set(err, "%s (%llu bytes at %#llx) overlaps %s", what,
                         (unsigned long long)size, (unsigned long long)base,
                         placer->used[other].what);
    return claim(placer, base, size, what, err);
}

static bool no_room(uint64_t size, const char *what, struct error *err)
{
    return error_set(err, "no room for %s (%llu KiB) in the guest's memory; try a larger -m", what,
                     (unsigned long long)((size + 1023) / 1024));
}

bool place_lowest(struct placer *placer, uint64_t size, uint64_t align, uint64_t min, uint64_t max,
                  const char *what, uint64_t *base, struct error *err)
{
    for (unsigned i = 0; i < placer->memory->count; i++) {
        const struct memory_range *r = &placer->memory->range[i];
        if (r->type != MEMORY_USABLE)
            continue;
        uint64_t at = r->base > min ? r->base : min;
        uint64_t end = r->base + r->size < max ? r->base + r->size : max;
        at = (at + align - 1) & ~(align - 1);
        while (at < end && size <= end - at) {
            int other = overlap(placer, at, size);
            if (other < 0) {
                *base = at;
                return claim(placer, at, size, what, err);
            }
            at = (placer->used[other].end + align - 1) & ~(align - 1);
        }
    }
    return no_room(size, what, err);
}

bool place_highest(struct placer *placer, uint64_t size, uint64_t align, uint64_t min, uint64_t max,
                   const char *what, uint64_t *base, struct error *err)
{
    for (unsigned i = placer->memory->count; i-- > 0;) {
        const struct memory_range *r = &placer->memory->range[i];
        if (r->type != MEMORY_USABLE)
            continue;
        uint64_t start = r->base > min ? r->base : min;
        uint64_t end = r->base + r->size < max ? r->base + r->size : max;
        while (end > start && size <= end - start) {
            uint64_t at = (end - size) & ~(align - 1);
            if (at < start)
                break;
            int other = overlap(placer, at, size);
            if (other < 0) {
                *base = at;
                return claim(placer, at, size, what, err);
            }
            end = placer->used[other].base;
        }
    }
    return no_room(size, what, err);
}

void guest_write(struct placer *placer, uint64_t gpa, const void *bytes, uint64_t len)
{
    phys_write(placer->map, &loader_access, gpa, bytes, len);
}

void guest_zero(struct placer *placer, uint64_t gpa, uint64_t len)
{
    static const uint8_t zeros[65536];
    while (len) {
        uint64_t n = len < sizeof(zeros) ? len : sizeof(zeros);
        guest_write(placer, gpa, zeros, n);
        gpa += n;
        len -= n;
    }
}

bool place_string(struct placer *placer, const char *text, uint64_t *gpa, struct error *err)
{
    uint64_t len = strlen(text) + 1;
    if (!place_lowest(placer, len, 16, LOW_MIN, LOW_MAX, "a command line", gpa, err))
        return false;
    guest_write(placer, *gpa, text, len);
    return true;
}

bool place_modules(struct placer *placer, const struct boot_image *image, uint64_t *gpa,
                   struct error *err)
{
    for (unsigned i = 0; i < image->module_count; i++) {
        const struct file *file = &image->modules[i].file;
        if (!place_lowest(placer, file->len, PAGE_SIZE, MIB, 1ull << 32, file->name, &gpa[i], err))
            return false;
        guest_write(placer, gpa[i], file->bytes, file->len);
    }
    return true;
}

/* ---- Descriptor tables and the identity map -------------------------------------------------- */

/* SDM vol. 3, 3.4.5: base 0, limit 4 GiB, present, ring 0, accessed. */
#define DESC_CODE32 0x00cf9b000000ffffull
#define DESC_CODE64 0x00af9b000000ffffull
#define DESC_DATA   0x00cf93000000ffffull
#define DESC_TSS    0x00008b0000000067ull /* 32- or 64-bit TSS at 0, busy; nobody has used it yet */

static bool place_gdt(struct placer *placer, uint64_t code, struct boot_entry *entry,
                      struct error *err)
{
    uint8_t gdt[0x30] = {0}; /* the TSS descriptor is 16 bytes in long mode */
    put64(gdt + BOOT_SEL_CODE, code);
    put64(gdt + BOOT_SEL_DATA, DESC_DATA);
    put64(gdt + BOOT_SEL_TSS, DESC_TSS);
    if (!place_lowest(placer, sizeof(gdt), 16, LOW_MIN, LOW_MAX, "the descriptor table",
                      &entry->gdt, err))
        return false;
    guest_write(placer, entry->gdt, gdt, sizeof(gdt));
    entry->gdt_limit = sizeof(gdt) - 1;
    return true;
}

bool boot_flat32(struct placer *placer, struct boot_entry *entry, struct error *err)
{
    entry->mode = BOOT_FLAT32;
    return place_gdt(placer, DESC_CODE32, entry, err);
}

bool boot_flat64(struct placer *placer, struct boot_entry *entry, struct error *err)
{
    enum { PDS = 4, ENTRIES = 512 };
    const uint64_t present_write = 3, large = 1 << 7; /* SDM vol. 3, table 4-17 */
    uint64_t root;

    entry->mode = BOOT_FLAT64;
    if (!place_gdt(placer, DESC_CODE64, entry, err) ||
        !place_lowest(placer, (2 + PDS) * PAGE_SIZE, PAGE_SIZE, LOW_MIN, LOW_MAX,
                      "the identity map", &root, err))
        return false;
    uint8_t page[PAGE_SIZE];
    memset(page, 0, sizeof(page));
    put64(page, (root + PAGE_SIZE) | present_write);
    guest_write(placer, root, page, sizeof(page));
    for (unsigned i = 0; i < PDS; i++)
        put64(page + 8 * i, (root + (2 + i) * PAGE_SIZE) | present_write);
    guest_write(placer, root + PAGE_SIZE, page, sizeof(page));
    for (unsigned i = 0; i < PDS; i++) {
        for (unsigned j = 0; j < ENTRIES; j++)
            put64(page + 8 * j, ((uint64_t)(i * ENTRIES + j) << 21) | present_write | large);
        guest_write(placer, root + (2 + i) * PAGE_SIZE, page, sizeof(page));
    }
    entry->cr3 = root;
    return true;
}
