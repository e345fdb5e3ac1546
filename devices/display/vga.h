/*
 * vga.h - the registers and the memory of a VGA with the Bochs extensions, as its files share them.
 *
 * Registers are IBM's (PS/2 Hardware Interface Technical Reference, Video Subsystems; the bits are
 * also in Intel's PRMs, VGA and Extended VGA Registers); the extensions those of the Bochs VBE
 * interface (ports 1CEh and 1CFh), which QEMU's `-vga std` has.
 *
 * Memory is laid out as on that adapter: byte 4 * n + p of the memory is byte n of plane p.
 *
 *     planar      address a, plane p    4 * a + p
 *     odd/even    address a             4 * (a / 2) + a % 2: text is at plane offsets 0, 1, 2
 *     chain-4     address a             a, which is also where the linear frame buffer has it
 *
 * On IBM's adapter chained addresses keep their low bits and the CRT controller, in word or
 * doubleword mode, skips as many. Here both are compact, which a guest can tell only by mixing
 * addressing modes.
 */
#ifndef DEVICES_VGA_H
#define DEVICES_VGA_H

#include "internal/device.h"
#include "internal/display.h"

enum {
    VGA_SEQ_REGS = 5,
    VGA_CRTC_REGS = 0x19,
    VGA_GC_REGS = 9,
    VGA_ATTR_REGS = 0x15,
    VGA_PLANE_BYTES = 65536, /* what IBM's registers reach: 256 KiB in four planes */
    VGA_WINDOW = 0xa0000,
    VGA_WINDOW_SIZE = 0x20000,
};

enum vga_misc { MISC_COLOR = 1 << 0, MISC_RAM = 1 << 1, MISC_CLOCK = 3 << 2 };
enum vga_seq { SEQ_RESET, SEQ_CLOCKING, SEQ_MAP_MASK, SEQ_FONT, SEQ_MODE };
enum { CLOCKING_8_DOTS = 1 << 0, CLOCKING_HALF = 1 << 3, CLOCKING_SCREEN_OFF = 1 << 5 };
enum { SEQ_MODE_CHAIN4 = 1 << 3 };
enum vga_crtc {
    CRTC_H_TOTAL = 0x00,
    CRTC_H_DISPLAYED = 0x01,
    CRTC_V_TOTAL = 0x06,
    CRTC_OVERFLOW = 0x07,
    CRTC_PRESET_ROW = 0x08,
    CRTC_MAX_SCAN = 0x09,
    CRTC_CURSOR_START = 0x0a,
    CRTC_CURSOR_END = 0x0b,
    CRTC_START_HIGH = 0x0c,
    CRTC_START_LOW = 0x0d,
    CRTC_CURSOR_HIGH = 0x0e,
    CRTC_CURSOR_LOW = 0x0f,
    CRTC_V_RETRACE_START = 0x10,
    CRTC_V_RETRACE_END = 0x11,
    CRTC_V_DISPLAYED = 0x12,
    CRTC_OFFSET = 0x13,
    CRTC_UNDERLINE = 0x14,
    CRTC_MODE = 0x17,
    CRTC_LINE_COMPARE = 0x18,
};
enum { CRTC_PROTECT = 1 << 7 /* of V_RETRACE_END */, MAX_SCAN_DOUBLE = 1 << 7 };
enum { CURSOR_OFF = 1 << 5 /* of CURSOR_START */ };
enum { CRTC_MODE_NO_BANK0 = 1 << 0, CRTC_MODE_NO_BANK1 = 1 << 1, CRTC_MODE_BYTE = 1 << 6 };
enum vga_gc {
    GC_SET_RESET,
    GC_ENABLE_SET_RESET,
    GC_COLOR_COMPARE,
    GC_ROTATE,
    GC_READ_MAP,
    GC_MODE,
    GC_MISC,
    GC_DONT_CARE,
    GC_BIT_MASK,
};
enum { GC_MODE_READ1 = 1 << 3, GC_MODE_ODD_EVEN = 1 << 4 };
enum { GC_MODE_SHIFT_CGA = 1 << 5, GC_MODE_SHIFT_256 = 1 << 6, GC_MISC_GRAPHICS = 1 << 0 };
enum vga_attr {
    ATTR_MODE = 0x10,
    ATTR_OVERSCAN = 0x11,
    ATTR_PLANE_ENABLE = 0x12,
    ATTR_PANNING = 0x13,
    ATTR_COLOR_SELECT = 0x14,
};
enum {
    ATTR_MODE_MONO = 1 << 1,
    ATTR_MODE_LINE_GRAPHICS = 1 << 2,
    ATTR_MODE_BLINK = 1 << 3,
    ATTR_MODE_PAN_TOP = 1 << 5, /* below the split no panning */
    ATTR_MODE_PAIRS = 1 << 6,   /* two dots' 4 bits make up one colour of 8 */
    ATTR_MODE_SELECT54 = 1 << 7,
};
enum { ATTR_INDEX_SHOW = 1 << 5 }; /* of the index register: the palette is the CRT's */

/* Bochs VBE's registers by index, and bits of VBE_ENABLE. */
enum vga_vbe {
    VBE_ID,
    VBE_XRES,
    VBE_YRES,
    VBE_BPP,
    VBE_ENABLE,
    VBE_BANK,
    VBE_VIRT_WIDTH,
    VBE_VIRT_HEIGHT,
    VBE_X_OFFSET,
    VBE_Y_OFFSET,
    VBE_MEMORY_64K,
    VBE_REGS,
};
enum {
    VBE_ENABLED = 1 << 0,
    VBE_GETCAPS = 1 << 1,
    VBE_8BIT_DAC = 1 << 5,
    VBE_LFB = 1 << 6,
    VBE_NO_CLEAR = 1 << 7,
    VBE_ID_FIRST = 0xb0c0,
    VBE_ID_LAST = 0xb0c5,
    VBE_MAX_XRES = 16000,
    VBE_MAX_YRES = 12000,
};

struct vga {
    uint8_t misc, feature;
    uint8_t seq_index, crtc_index, gc_index, attr_index;
    uint8_t attr_data; /* port 3C0h takes a register's value next, not an index */
    uint8_t seq[VGA_SEQ_REGS], crtc[VGA_CRTC_REGS], gc[VGA_GC_REGS], attr[VGA_ATTR_REGS];
    uint8_t dac_mask, dac_reading, dac_read_index, dac_write_index, dac_component;
    uint8_t dac_latch[3];
    uint8_t dac[768]; /* as written: 6 bits each, or 8 with VBE_8BIT_DAC */
    uint8_t latch[4]; /* what the last read left, a byte of each plane */
    uint16_t vbe_index, vbe[VBE_REGS];

    uint8_t *memory;
    uint32_t memory_size; /* a power of two, at least 256 KiB */
    struct clock *clock;
    /* Bytes of `memory` have been changed by way of the window; may be NULL. */
    void (*written)(struct vga *vga, uint32_t offset, uint32_t len);
};

/* The saved state; `member` is the struct vga in `st`. Memory is saved as memory. */
#define VGA_FIELDS(st, member)                                                                     \
    FIELD(st, member.misc, FIELD_U8, 1), FIELD(st, member.feature, FIELD_U8, 1),                   \
        FIELD(st, member.seq_index, FIELD_U8, 1), FIELD(st, member.crtc_index, FIELD_U8, 1),       \
        FIELD(st, member.gc_index, FIELD_U8, 1), FIELD(st, member.attr_index, FIELD_U8, 1),        \
        FIELD(st, member.attr_data, FIELD_U8, 1), FIELD_ARRAY(st, member.seq, FIELD_U8, 1),        \
        FIELD_ARRAY(st, member.crtc, FIELD_U8, 1), FIELD_ARRAY(st, member.gc, FIELD_U8, 1),        \
        FIELD_ARRAY(st, member.attr, FIELD_U8, 1), FIELD(st, member.dac_mask, FIELD_U8, 1),        \
        FIELD(st, member.dac_reading, FIELD_U8, 1), FIELD(st, member.dac_read_index, FIELD_U8, 1), \
        FIELD(st, member.dac_write_index, FIELD_U8, 1),                                            \
        FIELD(st, member.dac_component, FIELD_U8, 1),                                              \
        FIELD_ARRAY(st, member.dac_latch, FIELD_BYTES, 1),                                         \
        FIELD_ARRAY(st, member.dac, FIELD_BYTES, 1),                                               \
        FIELD_ARRAY(st, member.latch, FIELD_BYTES, 1), FIELD(st, member.vbe_index, FIELD_U16, 1),  \
        FIELD_ARRAY(st, member.vbe, FIELD_U16, 1)

/* ---- vga_registers.c ------------------------------------------------------------------------- */

/* Ports 3B0h-3DFh, one byte each. */
uint8_t vga_port_read(struct vga *vga, uint16_t port);
void vga_port_write(struct vga *vga, uint16_t port, uint8_t value);
/* Power-on; memory stays. */
void vga_reset(struct vga *vga);
/* Colour text of 80 x 25, as a BIOS leaves it behind, cleared. `font` has 256 characters of 16
 * bytes, or is NULL. */
void vga_text_mode(struct vga *vga, const uint8_t *font);

/* ---- vga_memory.c ---------------------------------------------------------------------------- */

/* The window A0000h-BFFFFh; offset counts from its start. */
uint8_t vga_memory_read(struct vga *vga, uint32_t offset);
void vga_memory_write(struct vga *vga, uint32_t offset, uint8_t value);
extern const struct io_ops vga_memory_ops; /* opaque: the struct vga */

/* ---- vga_vbe.c ------------------------------------------------------------------------------- */

uint16_t vga_vbe_read(const struct vga *vga, unsigned index);
void vga_vbe_write(struct vga *vga, unsigned index, uint16_t value);
static inline bool vga_vbe_enabled(const struct vga *vga)
{
    return vga->vbe[VBE_ENABLE] & VBE_ENABLED;
}
/* Bytes of memory from one line to the next. */
uint32_t vga_vbe_line_bytes(const struct vga *vga);

/* ---- vga_timing.c ---------------------------------------------------------------------------- */

/* Vertical registers with their high bits from elsewhere. */
unsigned vga_vertical(const struct vga *vga, enum vga_crtc which);
/* Input status register 1 but for its diagnostic bits: bit 0 outside of the picture, bit 3 vertical
 * retrace. */
uint8_t vga_beam(const struct vga *vga);
/* Which frame is being shown, counted from the clock's start: for what blinks. */
uint64_t vga_frame(const struct vga *vga);

/* ---- vga_render.c, vga_text.c ---------------------------------------------------------------- */

bool vga_draw(const struct vga *vga, struct display_picture *picture, struct error *err);
bool vga_text(const struct vga *vga, FILE *out, struct error *err);

/* How the picture of a VGA mode, without VBE, is cut. */
struct vga_geometry {
    unsigned columns;   /* character clocks a line */
    unsigned dots;      /* of one: 8 or 9, before they are doubled */
    unsigned repeat;    /* 2: each dot twice */
    unsigned lines;     /* scan lines of the picture */
    unsigned row_lines; /* scan lines of a row of characters or of memory */
    unsigned start;     /* address of the first row, in units of one byte of all planes */
    unsigned pitch;     /* from row to row */
    unsigned split;     /* first scan line that shows address 0 */
};
void vga_geometry(const struct vga *vga, struct vga_geometry *g);
/* Where each colour that the attribute controller puts out goes to in the DAC. */
struct vga_colors {
    uint32_t rgb[256];   /* 00RRGGBBh of a DAC index, the mask applied */
    uint8_t palette[16]; /* DAC index of an attribute */
};
void vga_colors(const struct vga *vga, struct vga_colors *colors);
/* Plane addresses wrap at 64 KiB, but for VBE's planar modes, which have all of the memory. */
static inline uint32_t vga_plane_mask(const struct vga *vga)
{
    return (vga_vbe_enabled(vga) ? vga->memory_size / 4 : VGA_PLANE_BYTES) - 1;
}
/* The four planes' bytes at an address, any one. */
static inline const uint8_t *vga_planes(const struct vga *vga, uint32_t address)
{
    return vga->memory + (size_t)(address & vga_plane_mask(vga)) * 4;
}
/* DAC indices of one scan line of text, for a character more than there are columns: line
 * `row_line` of the row that starts at `address`. */
void vga_text_line(const struct vga *vga, const struct vga_geometry *g,
                   const struct vga_colors *colors, uint32_t address, unsigned row_line,
                   uint8_t *out);

/* ---- edid.c ---------------------------------------------------------------------------------- */

enum { EDID_BYTES = 128 };
/* A monitor whose preferred mode is width x height at 60 Hz. */
void edid_make(uint8_t edid[EDID_BYTES], unsigned width, unsigned height);

#endif
