/*
 * display.h - what a display adapter shows: the current picture, and the characters in it.
 *
 * An adapter keeps registers and memory; nothing is drawn until somebody asks. Who asks (a screen
 * dump, a window) keeps the picture, so the next one is compared with it line by line: that is all
 * the dirty tracking there is, and it costs the guest nothing.
 */
#ifndef INTERNAL_DISPLAY_H
#define INTERNAL_DISPLAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct error;
struct pci_bus;
struct pci_device;

/* Zero-initialise; display_free_picture() at the end. */
struct display_picture {
    unsigned width, height; /* in dots, as a monitor would show them */
    uint32_t *pixels;       /* 00RRGGBBh, rows from the top, `width` apart */
    size_t room;            /* pixels allocated */
    unsigned first, end;    /* rows [first, end) differ from the picture before; equal: none do */
};

/* One adapter's picture. Both functions are called with the machine lock held, and change nothing
 * that the guest can see. */
struct display {
    void *opaque;
    /* Brings the picture up to date; a new mode changes its size. A blank screen is black. */
    bool (*draw)(void *opaque, struct display_picture *picture, struct error *err);
    /* Writes the characters of a text mode to `out` in UTF-8, a line each without the blanks at its
     * end. Fails in other modes. */
    bool (*text)(void *opaque, FILE *out, struct error *err);
};

/* Makes it width x height, black, when it is not already; all of it has changed then. */
bool display_resize(struct display_picture *picture, unsigned width, unsigned height,
                    struct error *err);
/* Puts a row in; notes whether it differs. */
void display_put_row(struct display_picture *picture, unsigned y, const uint32_t *row);
void display_free_picture(struct display_picture *picture);
/* As a PNG file (src/display/png.c), which appears whole or not at all. */
bool display_write_png(const struct display_picture *picture, const char *path, struct error *err);

/* ---- Adapters -------------------------------------------------------------------------------- */

struct vga_options {
    uint32_t memory_mib; /* a power of two, 1 to 256; 0: 16 */
    const char *rom;     /* file with its BIOS; NULL: no expansion ROM */
};

/* QEMU's `-vga std`, 1234:1111 (devices/display/vga_pci.c). */
struct pci_device *vga_create(struct pci_bus *bus, int devfn, const struct vga_options *options,
                              struct error *err);
struct display vga_display(struct pci_device *vga);
/* For machines that start without a BIOS: the text mode that one would have left behind, with the
 * font in the adapter's ROM. After each reset. */
void vga_start_text(struct pci_device *vga);

#endif
