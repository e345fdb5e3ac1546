/*
 * vga_text.c - text modes: characters from the font in plane 2, and the characters themselves.
 *
 * IBM PS/2 Hardware Interface Technical Reference, Video Subsystems: a character is in plane 0, its
 * attribute in plane 1, its picture in plane 2, 32 bytes each.
 */
#include "internal/error.h"
#include "vga.h"

/* ---- As dots --------------------------------------------------------------------------------- */

enum { FONT_ATTRIBUTE = 0x08, CURSOR_FRAMES = 8, BLINK_FRAMES = 16 };

/* Where the two fonts of 8 KiB lie that SEQ_FONT selects: for attributes with and without bit 3. */
static uint32_t font_address(const struct vga *vga, uint8_t attribute)
{
    unsigned reg = vga->seq[SEQ_FONT];
    unsigned number =
        attribute & FONT_ATTRIBUTE ? (reg >> 2 & 3) | (reg >> 3 & 4) : (reg & 3) | (reg >> 2 & 4);
    return (number & 3) * 0x4000 + (number >> 2) * 0x2000;
}

static bool cursor_is_at(const struct vga *vga, uint32_t address, unsigned row_line)
{
    const uint8_t *crtc = vga->crtc;
    uint32_t where = (uint32_t)(crtc[CRTC_CURSOR_HIGH] << 8 | crtc[CRTC_CURSOR_LOW]);
    return (address & 0xffff) == where && !(crtc[CRTC_CURSOR_START] & CURSOR_OFF) &&
           row_line >= (crtc[CRTC_CURSOR_START] & 0x1fu) &&
           row_line <= (crtc[CRTC_CURSOR_END] & 0x1fu);
}

/* The eight dots of a character's line, and in bit 0 a ninth. */
static unsigned character_dots(const struct vga *vga, const uint8_t *cell, unsigned row_line)
{
    uint8_t character = cell[0], attribute = cell[1];
    uint32_t font = font_address(vga, attribute) + character * 32u + row_line;
    unsigned dots = vga_planes(vga, font)[2] * 2u;
    bool joins = character >= 0xc0 && character <= 0xdf; /* the box-drawing ones */
    if (joins && vga->attr[ATTR_MODE] & ATTR_MODE_LINE_GRAPHICS)
        dots |= dots >> 1 & 1;
    if ((attribute & 0x77) == 0x01 && row_line == (vga->crtc[CRTC_UNDERLINE] & 0x1fu))
        dots = 0x1ff;
    return dots;
}

void vga_text_line(const struct vga *vga, const struct vga_geometry *g,
                   const struct vga_colors *colors, uint32_t address, unsigned row_line,
                   uint8_t *out)
{
    bool blinks = vga->attr[ATTR_MODE] & ATTR_MODE_BLINK;
    bool cursor_on = vga_frame(vga) / CURSOR_FRAMES % 2 == 0;
    bool blink_on = vga_frame(vga) / BLINK_FRAMES % 2 == 0;
    for (unsigned c = 0; c <= g->columns; c++, address++) {
        const uint8_t *cell = vga_planes(vga, address);
        unsigned dots = character_dots(vga, cell, row_line);
        unsigned front = cell[1] & 15, back = cell[1] >> 4;
        if (blinks) {
            if (back & 8 && !blink_on)
                dots = 0;
            back &= 7;
        }
        if (cursor_on && cursor_is_at(vga, address, row_line))
            dots = 0x1ff;
        for (unsigned i = 0; i < g->dots; i++)
            *out++ = colors->palette[dots >> (8 - i) & 1 ? front : back];
    }
}

/* ---- As characters --------------------------------------------------------------------------- */

/* Code page 437, which the adapter's own font shows, in Unicode. */
static const uint16_t unicode[256] = {
    0x0020, 0x263a, 0x263b, 0x2665, 0x2666, 0x2663, 0x2660, 0x2022, 0x25d8, 0x25cb, 0x25d9, 0x2642,
    0x2640, 0x266a, 0x266b, 0x263c, 0x25ba, 0x25c4, 0x2195, 0x203c, 0x00b6, 0x00a7, 0x25ac, 0x21a8,
    0x2191, 0x2193, 0x2192, 0x2190, 0x221f, 0x2194, 0x25b2, 0x25bc, 0x0020, 0x0021, 0x0022, 0x0023,
    0x0024, 0x0025, 0x0026, 0x0027, 0x0028, 0x0029, 0x002a, 0x002b, 0x002c, 0x002d, 0x002e, 0x002f,
    0x0030, 0x0031, 0x0032, 0x0033, 0x0034, 0x0035, 0x0036, 0x0037, 0x0038, 0x0039, 0x003a, 0x003b,
    0x003c, 0x003d, 0x003e, 0x003f, 0x0040, 0x0041, 0x0042, 0x0043, 0x0044, 0x0045, 0x0046, 0x0047,
    0x0048, 0x0049, 0x004a, 0x004b, 0x004c, 0x004d, 0x004e, 0x004f, 0x0050, 0x0051, 0x0052, 0x0053,
    0x0054, 0x0055, 0x0056, 0x0057, 0x0058, 0x0059, 0x005a, 0x005b, 0x005c, 0x005d, 0x005e, 0x005f,
    0x0060, 0x0061, 0x0062, 0x0063, 0x0064, 0x0065, 0x0066, 0x0067, 0x0068, 0x0069, 0x006a, 0x006b,
    0x006c, 0x006d, 0x006e, 0x006f, 0x0070, 0x0071, 0x0072, 0x0073, 0x0074, 0x0075, 0x0076, 0x0077,
    0x0078, 0x0079, 0x007a, 0x007b, 0x007c, 0x007d, 0x007e, 0x2302, 0x00c7, 0x00fc, 0x00e9, 0x00e2,
    0x00e4, 0x00e0, 0x00e5, 0x00e7, 0x00ea, 0x00eb, 0x00e8, 0x00ef, 0x00ee, 0x00ec, 0x00c4, 0x00c5,
    0x00c9, 0x00e6, 0x00c6, 0x00f4, 0x00f6, 0x00f2, 0x00fb, 0x00f9, 0x00ff, 0x00d6, 0x00dc, 0x00a2,
    0x00a3, 0x00a5, 0x20a7, 0x0192, 0x00e1, 0x00ed, 0x00f3, 0x00fa, 0x00f1, 0x00d1, 0x00aa, 0x00ba,
    0x00bf, 0x2310, 0x00ac, 0x00bd, 0x00bc, 0x00a1, 0x00ab, 0x00bb, 0x2591, 0x2592, 0x2593, 0x2502,
    0x2524, 0x2561, 0x2562, 0x2556, 0x2555, 0x2563, 0x2551, 0x2557, 0x255d, 0x255c, 0x255b, 0x2510,
    0x2514, 0x2534, 0x252c, 0x251c, 0x2500, 0x253c, 0x255e, 0x255f, 0x255a, 0x2554, 0x2569, 0x2566,
    0x2560, 0x2550, 0x256c, 0x2567, 0x2568, 0x2564, 0x2565, 0x2559, 0x2558, 0x2552, 0x2553, 0x256b,
    0x256a, 0x2518, 0x250c, 0x2588, 0x2584, 0x258c, 0x2590, 0x2580, 0x03b1, 0x00df, 0x0393, 0x03c0,
    0x03a3, 0x03c3, 0x00b5, 0x03c4, 0x03a6, 0x0398, 0x03a9, 0x03b4, 0x221e, 0x03c6, 0x03b5, 0x2229,
    0x2261, 0x00b1, 0x2265, 0x2264, 0x2320, 0x2321, 0x00f7, 0x2248, 0x00b0, 0x2219, 0x00b7, 0x221a,
    0x207f, 0x00b2, 0x25a0, 0x00a0,
};

static void put_character(FILE *out, uint16_t c)
{
    if (c < 0x80) {
        fputc(c, out);
    } else if (c < 0x800) {
        fputc(0xc0 | c >> 6, out);
        fputc(0x80 | (c & 0x3f), out);
    } else {
        fputc(0xe0 | c >> 12, out);
        fputc(0x80 | (c >> 6 & 0x3f), out);
        fputc(0x80 | (c & 0x3f), out);
    }
}

static void put_row(const struct vga *vga, uint32_t address, unsigned columns, FILE *out)
{
    while (columns && unicode[vga_planes(vga, address + columns - 1)[0]] == ' ')
        columns--;
    for (unsigned c = 0; c < columns; c++)
        put_character(out, unicode[vga_planes(vga, address + c)[0]]);
    fputc('\n', out);
}

bool vga_text(const struct vga *vga, FILE *out, struct error *err)
{
    struct vga_geometry g;
    if (vga_vbe_enabled(vga) || vga->gc[GC_MISC] & GC_MISC_GRAPHICS)
        return error_set(err, "the display is in a graphics mode, which has no characters; "
                              "screendump makes a picture of it");
    vga_geometry(vga, &g);
    unsigned twice = vga->crtc[CRTC_MAX_SCAN] & MAX_SCAN_DOUBLE ? 2 : 1;
    unsigned height = g.row_lines * twice, above = g.split < g.lines ? g.split : g.lines;
    for (unsigned y = 0; y + height <= above; y += height)
        put_row(vga, g.start + y / height * g.pitch, g.columns, out);
    for (unsigned y = above; y + height <= g.lines; y += height)
        put_row(vga, (y - above) / height * g.pitch, g.columns, out);
    return true;
}
