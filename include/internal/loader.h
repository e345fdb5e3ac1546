/*
 * loader.h - guests that start without a firmware image: Linux bzImage, PVH and multiboot ELF
 * kernels, flat binaries.
 *
 * A boot image is read once and can be loaded again at every reset. Every byte of it is hostile:
 * all sizes and addresses are checked against the guest's memory map before anything is written.
 */
#ifndef INTERNAL_LOADER_H
#define INTERNAL_LOADER_H

#include "internal/firmware.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;
struct phys_map;

/* What the bootstrap processor finds at its first instruction. Everything not named here is as
 * after a reset. */
enum boot_mode {
    BOOT_REAL16, /* CS = entry >> 4 or 0, no paging */
    BOOT_FLAT32, /* protected mode, flat 4-GiB segments, no paging */
    BOOT_FLAT64, /* long mode, identity map */
};
/* Selectors of the descriptor table that the loader leaves in low memory. */
enum { BOOT_SEL_CODE = 0x10, BOOT_SEL_DATA = 0x18, BOOT_SEL_TSS = 0x20 };

struct boot_entry {
    enum boot_mode mode;
    uint64_t rip;
    uint64_t rax, rbx, rdx, rsi, rsp;
    uint64_t gdt; /* FLAT32, FLAT64: where the descriptor table lies */
    uint16_t gdt_limit;
    uint64_t cr3; /* FLAT64: root of the identity map */
};

struct boot_source {
    const char *kernel;
    const char *initrd; /* NULL: none. Multiboot and PVH: "file args,file2 args" */
    const char *append; /* NULL: empty */
    uint64_t limit;     /* no file may be larger than this: the guest's RAM */
};
struct boot_platform {
    struct phys_map *map;
    const struct memory_map *memory;
    uint64_t rsdp;  /* 0: no ACPI */
    bool text_mode; /* a VGA shows colour text of 80 x 25, as a BIOS leaves it behind */
};

struct boot_image;

/* Reads the files and finds out what they are. */
struct boot_image *boot_image_open(const struct boot_source *source, struct error *err);
/* The same for a kernel that is in memory; the bytes are copied. `name` is for messages. */
struct boot_image *boot_image_from_memory(const char *name, const void *bytes, size_t len,
                                          const char *append, struct error *err);
void boot_image_free(struct boot_image *image);

/* "Linux", "multiboot", "PVH" or "flat": for messages and tests. */
const char *boot_image_kind(const struct boot_image *image);

/* ---- For a firmware that starts it (handover.c) ---------------------------------------------- */

/* Does the image have no entry but its setup code, which calls the BIOS (such as ipxe.lkrn)? */
bool boot_image_calls_bios(const struct boot_image *image);

/* The parts, and where in guest memory firmware is to put them. Bytes are the image's, but for the
 * setup code, which is a copy with the loader's fields filled in. */
struct boot_handover {
    uint8_t *setup;
    const uint8_t *kernel, *initrd;
    const char *cmdline;
    uint32_t setup_address, setup_size, kernel_address, kernel_size;
    uint32_t initrd_address, initrd_size; /* size 0: none */
    uint32_t cmdline_address, cmdline_size;
};
/* `ram_low` is where RAM ends, below 4 GiB. False for anything but a bzImage. */
bool boot_image_hand_over(const struct boot_image *image, uint64_t ram_low,
                          struct boot_handover *handover, struct error *err);
void boot_handover_free(struct boot_handover *handover);

/* Writes the image and what its protocol wants into guest memory. */
bool boot_image_load(const struct boot_image *image, const struct boot_platform *platform,
                     struct boot_entry *entry, struct error *err);

#endif
