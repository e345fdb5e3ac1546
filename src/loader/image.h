/*
 * image.h - what the loaders share: the files, and where things go in guest memory.
 *
 * Private to src/loader. The placer is the one bounds check of all loaders: nothing is written to
 * guest memory that has not been placed inside usable RAM and clear of everything placed before.
 */
#ifndef LOADER_IMAGE_H
#define LOADER_IMAGE_H

#include "internal/error.h"
#include "internal/loader.h"
#include "internal/phys.h"
#include <string.h>

/* A file in memory. Bytes beyond the end are never touched: file_get() checks. */
struct file {
    char *name;
    uint8_t *bytes;
    size_t len;
};

bool file_read(struct file *file, const char *path, const char *what, uint64_t limit,
               struct error *err);
void file_free(struct file *file);
/* The `len` bytes at `offset`, or NULL when the file has not that many. */
const uint8_t *file_get(const struct file *file, uint64_t offset, uint64_t len);

static inline uint16_t le16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}
static inline uint32_t le32(const uint8_t *p)
{
    return le16(p) | (uint32_t)le16(p + 2) << 16;
}
static inline uint64_t le64(const uint8_t *p)
{
    return le32(p) | (uint64_t)le32(p + 4) << 32;
}
static inline void put16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}
static inline void put32(uint8_t *p, uint32_t v)
{
    put16(p, (uint16_t)v);
    put16(p + 2, (uint16_t)(v >> 16));
}
static inline void put64(uint8_t *p, uint64_t v)
{
    put32(p, (uint32_t)v);
    put32(p + 4, (uint32_t)(v >> 32));
}

/* ---- One module (initrd) per file ------------------------------------------------------------ */

struct module {
    struct file file;
    char *cmdline; /* "file args" as given */
};

struct boot_image;
/* One boot protocol. */
struct protocol {
    const char *name;
    /* Is this file for us? Cheap; a file that is ours but broken is load's affair. */
    bool (*probe)(const struct file *kernel);
    bool (*load)(const struct boot_image *image, const struct boot_platform *platform,
                 struct boot_entry *entry, struct error *err);
    bool many_modules; /* -initrd is a list of files with arguments */
    bool no_modules;   /* it has no use for -initrd at all */
};
extern const struct protocol loader_linux, loader_multiboot, loader_pvh, loader_flat;

#define MODULES_MAX 64

struct boot_image {
    struct file kernel;
    char *append;
    struct module *modules;
    unsigned module_count;
    const struct protocol *protocol;
};

/* ---- The placer ------------------------------------------------------------------------------ */

struct placer {
    struct phys_map *map;
    const struct memory_map *memory;
    unsigned count;
    struct {
        uint64_t base, end;
        const char *what;
    } used[MODULES_MAX * 2 + 160];
};

void placer_init(struct placer *placer, const struct boot_platform *platform);
/* Claims [base, base + size) for `what`; fails where that is not usable RAM or already taken. */
bool place_at(struct placer *placer, uint64_t base, uint64_t size, const char *what,
              struct error *err);
/* Claims the lowest / the highest free range of that size and alignment (a power of two) that lies
 * in [min, max). */
bool place_lowest(struct placer *placer, uint64_t size, uint64_t align, uint64_t min, uint64_t max,
                  const char *what, uint64_t *base, struct error *err);
bool place_highest(struct placer *placer, uint64_t size, uint64_t align, uint64_t min, uint64_t max,
                   const char *what, uint64_t *base, struct error *err);
/* Is the range usable RAM and free? */
bool place_is_free(const struct placer *placer, uint64_t base, uint64_t size);

/* Both take what place_* gave. */
void guest_write(struct placer *placer, uint64_t gpa, const void *bytes, uint64_t len);
void guest_zero(struct placer *placer, uint64_t gpa, uint64_t len);

/* Low memory for a few small structures: above the real-mode vectors and the BIOS data area. */
#define LOW_MIN 0x1000ull
#define LOW_MAX 0x9f000ull

/* Writes `text` with its terminator into low memory. */
bool place_string(struct placer *placer, const char *text, uint64_t *gpa, struct error *err);
/* The modules' contents, page aligned above 1 MiB; gpa[i] for each. */
bool place_modules(struct placer *placer, const struct boot_image *image, uint64_t *gpa,
                   struct error *err);

/* Descriptor table (and for 64-bit the identity map of 4 GiB), and the entry's fields for them. */
bool boot_flat32(struct placer *placer, struct boot_entry *entry, struct error *err);
bool boot_flat64(struct placer *placer, struct boot_entry *entry, struct error *err);

/* ---- ELF (elf.c) ----------------------------------------------------------------------------- */

bool elf_probe(const struct file *file);
/* Loads every PT_LOAD segment at its physical address. */
bool elf_load(const struct file *file, struct placer *placer, uint64_t *entry, struct error *err);
/* The address in the note XEN_ELFNOTE_PHYS32_ENTRY. */
bool elf_pvh_entry(const struct file *file, uint64_t *entry, struct error *err);

#endif
