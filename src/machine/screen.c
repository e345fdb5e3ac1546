/*
 * screen.c - the display adapter in its machine, and what clients outside have of it and of the
 * keyboard: pictures, characters, keys.
 */
#include "internal/display.h"
#include "internal/input.h"
#include "pc.h"
#include <string.h>
#include <unistd.h>

/* ---- The adapter ----------------------------------------------------------------------------- */

/* Debian's package seabios. */
#define VGA_ROM "/usr/share/seabios/vgabios-stdvga.bin"

enum { VGA_DEVFN = PCI_DEVFN(2, 0) /* QEMU's: the first slot behind the ISA bridge */ };

bool screen_add_vga(struct machine *m, const struct device_config *d, struct error *err)
{
    const struct vga_options options = {.memory_mib = d->vgamem_mb,
                                        .rom = !d->romfile   ? VGA_ROM
                                               : *d->romfile ? d->romfile
                                                             : NULL};
    if (m->vga)
        return error_set(err,
                         "-device VGA: the machine has a VGA already; -vga none leaves it out");
    m->vga = vga_create(m->pci, d->devfn, &options, err);
    if (!pc_own(m, m->vga, err))
        return error_prefix(err, "-device VGA");
    m->firmware.has_vga = true;
    m->display = vga_display(m->vga);
    return true;
}

/* The adapter that is there by default does without its BIOS when that is not installed: machines
 * that start a kernel need none. */
bool screen_build(struct machine *m, struct error *err)
{
    static char none[] = "";
    struct device_config vga = {.devfn = VGA_DEVFN};
    if (m->config->vga == VGA_NONE)
        return true;
    if (m->config->vga == VGA_DEFAULT && access(VGA_ROM, R_OK) != 0)
        vga.romfile = none;
    return screen_add_vga(m, &vga, err);
}

void screen_start(struct machine *m)
{
    if (m->vga)
        vga_start_text(m->vga);
}

/* ---- For clients ----------------------------------------------------------------------------- */

static bool there_is_one(const struct machine *m, struct error *err)
{
    return m->vga || error_set(err, "the machine has no display (-vga none)");
}

bool screen_dump(void *opaque, const char *path, struct error *err)
{
    struct machine *m = opaque;
    struct display_picture picture = {0};
    if (!there_is_one(m, err))
        return false;
    pthread_mutex_lock(&m->lock);
    bool ok = m->display.draw(m->display.opaque, &picture, err);
    pthread_mutex_unlock(&m->lock);
    ok = ok && display_write_png(&picture, path, err);
    display_free_picture(&picture);
    return ok;
}

bool screen_text(void *opaque, FILE *out, struct error *err)
{
    struct machine *m = opaque;
    if (!there_is_one(m, err))
        return false;
    pthread_mutex_lock(&m->lock);
    bool ok = m->display.text(m->display.opaque, out, err);
    pthread_mutex_unlock(&m->lock);
    return ok;
}

bool screen_send_keys(void *opaque, const char *keys, unsigned hold_ms, struct error *err)
{
    struct machine *m = opaque;
    return input_send_keys(i8042_input(m->i8042), keys, hold_ms, err);
}
