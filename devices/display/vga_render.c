/*
 * vga_render.c - the picture that registers and memory make: a function of both, and of the time
 * only where something blinks.
 *
 * A scan line is made of the DAC's indices first and then of colours. VBE's direct colours have no
 * indices. Everything is cut to what there is, whatever the registers say.
 */
#include "internal/error.h"
#include "vga.h"
#include <stdlib.h>
#include <string.h>

/* ---- Colours --------------------------------------------------------------------------------- */

static uint32_t dac_color(const struct vga *vga, unsigned index)
{
    const uint8_t *c = &vga->dac[3 * index];
    bool wide = vga->vbe[VBE_ENABLE] & VBE_8BIT_DAC;
    uint32_t rgb = 0;
    for (unsigned i = 0; i < 3; i++)
        rgb = rgb << 8 | (wide ? c[i] : (uint8_t)((c[i] & 0x3f) << 2 | (c[i] & 0x3f) >> 4));
    return rgb;
}

void vga_colors(const struct vga *vga, struct vga_colors *colors)
{
    unsigned select = vga->attr[ATTR_COLOR_SELECT];
    for (unsigned i = 0; i < 256; i++)
        colors->rgb[i] = dac_color(vga, i & vga->dac_mask);
    for (unsigned i = 0; i < 16; i++) {
        unsigned index = vga->attr[i & vga->attr[ATTR_PLANE_ENABLE] & 15];
        if (vga->attr[ATTR_MODE] & ATTR_MODE_SELECT54)
            index = (index & 0x0f) | (select & 3) << 4;
        colors->palette[i] = (uint8_t)(index | (select & 0x0c) << 4);
    }
}

/* ---- How the picture is cut ------------------------------------------------------------------ */

void vga_geometry(const struct vga *vga, struct vga_geometry *g)
{
    const uint8_t *crtc = vga->crtc;
    unsigned clocking = vga->seq[SEQ_CLOCKING];
    bool graphics = vga->gc[GC_MISC] & GC_MISC_GRAPHICS;
    *g = (struct vga_geometry){
        .columns = crtc[CRTC_H_DISPLAYED] + 1u,
        .dots = graphics || clocking & CLOCKING_8_DOTS ? 8 : 9,
        .repeat = clocking & CLOCKING_HALF ? 2 : 1,
        .lines = vga_vertical(vga, CRTC_V_DISPLAYED) + 1,
        .row_lines = (crtc[CRTC_MAX_SCAN] & 0x1fu) + 1,
        .start = (unsigned)(crtc[CRTC_START_HIGH] << 8 | crtc[CRTC_START_LOW]) +
                 (crtc[CRTC_PRESET_ROW] >> 5 & 3),
        .pitch = crtc[CRTC_OFFSET] * 2u,
        .split = vga_vertical(vga, CRTC_LINE_COMPARE) + 1,
    };
}

/* ---- Graphics lines of the VGA --------------------------------------------------------------- */

/* What the four serializers put out for a character clock: 8 dots of 4 bits. CGA's way takes pairs
 * of bits, from planes 0 and 2 for the first four dots, from 1 and 3 for the others; the way of 256
 * colours takes a plane for two dots, its high half first. */
static void serialize(const uint8_t planes[4], unsigned gc_mode, uint8_t dots[8])
{
    for (unsigned i = 0; i < 8; i++) {
        unsigned dot = 0;
        if (gc_mode & GC_MODE_SHIFT_256) {
            dot = planes[i / 2] >> (i & 1 ? 0 : 4) & 15;
        } else if (gc_mode & GC_MODE_SHIFT_CGA) {
            unsigned low = 6 - 2 * (i & 3);
            dot = (planes[i / 4] >> low & 3) | (planes[i / 4 + 2] >> low & 3) << 2;
        } else {
            for (unsigned p = 0; p < 4; p++)
                dot |= (planes[p] >> (7 - i) & 1u) << p;
        }
        dots[i] = (uint8_t)dot;
    }
}

static void graphics_line(const struct vga *vga, const struct vga_colors *colors, uint32_t address,
                          unsigned columns, uint8_t *out)
{
    unsigned mode = vga->gc[GC_MODE];
    bool pairs = mode & GC_MODE_SHIFT_256 && vga->attr[ATTR_MODE] & ATTR_MODE_PAIRS;
    for (unsigned c = 0; c < columns; c++, out += 8) {
        const uint8_t *planes = vga_planes(vga, address + c);
        uint8_t dots[8];
        if (pairs) {
            for (unsigned i = 0; i < 8; i++)
                out[i] = planes[i / 2];
            continue;
        }
        serialize(planes, mode, dots);
        for (unsigned i = 0; i < 8; i++)
            out[i] = colors->palette[dots[i]];
    }
}

/* CGA and Hercules keep their lines in banks: with MODE's bits 0 and 1 clear, the row's scan line
 * takes the place of address bits 13 and 14, one bit lower where the processor's bytes alternate
 * between planes (vga.h). */
static uint32_t banked(const struct vga *vga, uint32_t address, unsigned row_line)
{
    unsigned mode = vga->crtc[CRTC_MODE], bit = mode & CRTC_MODE_BYTE ? 13 : 12;
    if (!(mode & CRTC_MODE_NO_BANK0))
        address = (address & ~(1u << bit)) | (row_line & 1) << bit;
    if (!(mode & CRTC_MODE_NO_BANK1))
        address = (address & ~(2u << bit)) | (row_line >> 1 & 1) << (bit + 1);
    return address;
}

/* ---- The VGA's picture ----------------------------------------------------------------------- */

enum { MAX_COLUMNS = 256 + 2, MAX_DOTS = MAX_COLUMNS * 9 };

/* By how many dots lines are moved to the left. With 9 dots 8 means none, and 0 one. */
static unsigned panning(const struct vga *vga, const struct vga_geometry *g)
{
    unsigned value = vga->attr[ATTR_PANNING];
    if (g->dots == 9)
        return value >= 8 ? 0 : value + 1;
    return value & 7;
}

static void vga_line(const struct vga *vga, const struct vga_geometry *g,
                     const struct vga_colors *colors, unsigned y, uint8_t *indices)
{
    bool below = y >= g->split;
    unsigned twice = vga->crtc[CRTC_MAX_SCAN] & MAX_SCAN_DOUBLE ? 2 : 1;
    unsigned scan =
        below ? (y - g->split) / twice : y / twice + (vga->crtc[CRTC_PRESET_ROW] & 0x1fu);
    unsigned row_line = scan % g->row_lines;
    uint32_t address = (below ? 0 : g->start) + scan / g->row_lines * g->pitch;
    if (vga->gc[GC_MISC] & GC_MISC_GRAPHICS)
        graphics_line(vga, colors, banked(vga, address, row_line), g->columns + 1, indices);
    else
        vga_text_line(vga, g, colors, address, row_line, indices);
}

static bool draw_vga(const struct vga *vga, const struct vga_colors *colors,
                     struct display_picture *picture, struct error *err)
{
    struct vga_geometry g;
    uint8_t indices[MAX_DOTS];
    uint32_t row[MAX_DOTS * 2];
    vga_geometry(vga, &g);
    unsigned width = g.columns * g.dots * g.repeat, shift = panning(vga, &g);
    if (!display_resize(picture, width, g.lines, err))
        return false;
    for (unsigned y = 0; y < g.lines; y++) {
        bool still = y >= g.split && vga->attr[ATTR_MODE] & ATTR_MODE_PAN_TOP;
        vga_line(vga, &g, colors, y, indices);
        const uint8_t *from = indices + (still ? 0 : shift);
        for (unsigned x = 0; x < width; x++)
            row[x] = colors->rgb[from[x / g.repeat]];
        display_put_row(picture, y, row);
    }
    return true;
}

/* ---- VBE's picture --------------------------------------------------------------------------- */

static uint32_t wide5(uint32_t v)
{
    return v << 3 | v >> 2;
}

static void direct_row(const uint8_t *from, unsigned bpp, unsigned width, uint32_t *row)
{
    for (unsigned x = 0; x < width; x++) {
        if (bpp >= 24) {
            const uint8_t *p = from + x * (bpp / 8);
            row[x] = (uint32_t)p[2] << 16 | p[1] << 8 | p[0];
            continue;
        }
        uint32_t v = from[2 * x] | (uint32_t)from[2 * x + 1] << 8;
        uint32_t green = bpp == 16 ? (v >> 5 & 63) << 2 | (v >> 9 & 3) : wide5(v >> 5 & 31);
        row[x] = wide5(v >> (bpp == 16 ? 11 : 10) & 31) << 16 | green << 8 | wide5(v & 31);
    }
}

static void planar_row(const struct vga *vga, const struct vga_colors *colors, unsigned y,
                       unsigned width, uint8_t *indices, uint32_t *row)
{
    unsigned x = vga->vbe[VBE_X_OFFSET];
    uint32_t address = (y + vga->vbe[VBE_Y_OFFSET]) * (vga->vbe[VBE_VIRT_WIDTH] / 8u) + x / 8;
    graphics_line(vga, colors, address, width / 8 + 2, indices);
    for (unsigned i = 0; i < width; i++)
        row[i] = colors->rgb[indices[i + x % 8]];
}

/* Registers that were restored, not written, may say anything: such a picture does not lie in
 * memory, and is refused. */
static bool lies_in_memory(const struct vga *vga)
{
    const uint16_t *r = vga->vbe;
    uint64_t line = vga_vbe_line_bytes(vga), bpp = r[VBE_BPP];
    uint64_t first = (uint64_t)r[VBE_X_OFFSET] * (bpp == 15 ? 16 : bpp) / 8;
    uint64_t shown = (uint64_t)r[VBE_XRES] * (bpp == 15 ? 16 : bpp) / 8;
    return (bpp == 4 || bpp == 8 || bpp == 15 || bpp == 16 || bpp == 24 || bpp == 32) &&
           first + shown <= line &&
           ((uint64_t)r[VBE_Y_OFFSET] + r[VBE_YRES]) * line <= vga->memory_size;
}

static bool draw_vbe(const struct vga *vga, const struct vga_colors *colors,
                     struct display_picture *picture, struct error *err)
{
    const uint16_t *r = vga->vbe;
    unsigned width = r[VBE_XRES], bpp = r[VBE_BPP];
    uint32_t *row = malloc((width + 24) * (sizeof(*row) + 1));
    if (!row)
        return error_set(err, "no memory for a line of %u dots", width);
    uint8_t *indices = (uint8_t *)(row + width + 24);
    bool ok = display_resize(picture, width, r[VBE_YRES], err);
    for (unsigned y = 0; ok && y < r[VBE_YRES]; y++) {
        const uint8_t *from = vga->memory +
                              (size_t)(y + r[VBE_Y_OFFSET]) * vga_vbe_line_bytes(vga) +
                              (size_t)r[VBE_X_OFFSET] * (bpp == 15 ? 16 : bpp) / 8;
        if (bpp == 4)
            planar_row(vga, colors, y, width, indices, row);
        for (unsigned x = 0; bpp == 8 && x < width; x++)
            row[x] = colors->rgb[from[x]];
        if (bpp > 8)
            direct_row(from, bpp, width, row);
        display_put_row(picture, y, row);
    }
    free(row);
    return ok;
}

/* ---- All of it ------------------------------------------------------------------------------- */

/* The attribute controller's palette in the processor's hands, or the sequencer told to show
 * nothing. */
static bool is_blank(const struct vga *vga)
{
    return !(vga->attr_index & ATTR_INDEX_SHOW) ||
           (!vga_vbe_enabled(vga) && vga->seq[SEQ_CLOCKING] & CLOCKING_SCREEN_OFF);
}

static bool draw_blank(const struct vga *vga, struct display_picture *picture, struct error *err)
{
    unsigned width = vga->vbe[VBE_XRES], height = vga->vbe[VBE_YRES];
    if (!vga_vbe_enabled(vga)) {
        struct vga_geometry g;
        vga_geometry(vga, &g);
        width = g.columns * g.dots * g.repeat;
        height = g.lines;
    }
    if (width < 64 || height < 64) /* no mode has been set yet */
        width = 640, height = 480;
    uint32_t *row = calloc(width, sizeof(*row));
    bool ok = row ? display_resize(picture, width, height, err)
                  : error_set(err, "no memory for a line of %u dots", width);
    for (unsigned y = 0; ok && y < height; y++)
        display_put_row(picture, y, row);
    free(row);
    return ok;
}

bool vga_draw(const struct vga *vga, struct display_picture *picture, struct error *err)
{
    struct vga_colors colors;
    if (vga_vbe_enabled(vga) && !lies_in_memory(vga))
        return error_set(err, "the display's registers describe no picture");
    if (is_blank(vga))
        return draw_blank(vga, picture, err);
    vga_colors(vga, &colors);
    return vga_vbe_enabled(vga) ? draw_vbe(vga, &colors, picture, err)
                                : draw_vga(vga, &colors, picture, err);
}
