/*
 * vga_vbe.c - the Bochs VBE interface: modes by width, height and depth, with a linear frame
 * buffer.
 *
 * Registers as in the `vbe_display_api` text of Bochs, version B0C5h, and what QEMU's `-vga std`
 * makes of them: impossible values are made possible when they are written, never refused.
 */
#include "vga.h"
#include <string.h>

static unsigned depth_bits(uint16_t bpp)
{
    return bpp == 15 ? 16 : bpp;
}

uint32_t vga_vbe_line_bytes(const struct vga *vga)
{
    return vga->vbe[VBE_VIRT_WIDTH] * depth_bits(vga->vbe[VBE_BPP]) / 8u;
}

static uint16_t within(uint16_t value, unsigned low, unsigned high)
{
    return (uint16_t)(value < low ? low : value > high ? high : value);
}

static bool is_depth(uint16_t bpp)
{
    return bpp == 4 || bpp == 8 || bpp == 15 || bpp == 16 || bpp == 24 || bpp == 32;
}

/* Makes the picture lie in memory: first as high as there is room for, then not too far down. */
static void make_possible(struct vga *vga)
{
    uint16_t *r = vga->vbe;
    if (!is_depth(r[VBE_BPP]))
        r[VBE_BPP] = 8;
    r[VBE_XRES] = within(r[VBE_XRES], 8, VBE_MAX_XRES);
    if (r[VBE_BPP] == 4)
        r[VBE_XRES] &= (uint16_t)~7u;
    r[VBE_VIRT_WIDTH] = within(r[VBE_VIRT_WIDTH], r[VBE_XRES], UINT16_MAX & ~7u);
    if (r[VBE_BPP] == 4)
        r[VBE_VIRT_WIDTH] = (uint16_t)((r[VBE_VIRT_WIDTH] + 7u) & ~7u);
    uint32_t line = vga_vbe_line_bytes(vga), lines = vga->memory_size / line;
    r[VBE_VIRT_HEIGHT] = (uint16_t)(lines < UINT16_MAX ? lines : UINT16_MAX);
    r[VBE_YRES] = within(r[VBE_YRES], 1, lines < VBE_MAX_YRES ? lines : VBE_MAX_YRES);
    r[VBE_X_OFFSET] = within(r[VBE_X_OFFSET], 0, (unsigned)r[VBE_VIRT_WIDTH] - r[VBE_XRES]);
    r[VBE_Y_OFFSET] = within(r[VBE_Y_OFFSET], 0, (unsigned)r[VBE_VIRT_HEIGHT] - r[VBE_YRES]);
}

/* What a mode change does to IBM's registers, so that they agree with the mode: graphics, the
 * window at A0000h, all planes, one scan line a row, no split. */
static void set_vga_registers(struct vga *vga)
{
    unsigned y = vga->vbe[VBE_YRES] - 1u;
    uint32_t line = vga_vbe_line_bytes(vga);
    vga->gc[GC_MISC] = (uint8_t)((vga->gc[GC_MISC] & ~0x0e) | 0x04 | GC_MISC_GRAPHICS);
    vga->gc[GC_MODE] &= (uint8_t) ~(GC_MODE_SHIFT_CGA | GC_MODE_SHIFT_256 | GC_MODE_ODD_EVEN);
    vga->crtc[CRTC_MODE] |= CRTC_MODE_NO_BANK0 | CRTC_MODE_NO_BANK1;
    vga->crtc[CRTC_OFFSET] = (uint8_t)(line >> 3);
    vga->crtc[CRTC_H_DISPLAYED] = (uint8_t)((vga->vbe[VBE_XRES] >> 3) - 1);
    vga->crtc[CRTC_V_DISPLAYED] = (uint8_t)y;
    vga->crtc[CRTC_OVERFLOW] = (uint8_t)((vga->crtc[CRTC_OVERFLOW] & ~0x42) | (y >> 8 & 1) << 1 |
                                         (y >> 9 & 1) << 6 | 0x10);
    vga->crtc[CRTC_LINE_COMPARE] = 0xff;
    vga->crtc[CRTC_MAX_SCAN] = 0x40;
    vga->seq[SEQ_MAP_MASK] = 0x0f;
    if (vga->vbe[VBE_BPP] == 4) {
        vga->seq[SEQ_MODE] &= (uint8_t)~SEQ_MODE_CHAIN4;
    } else {
        vga->seq[SEQ_MODE] |= SEQ_MODE_CHAIN4;
        vga->gc[GC_MODE] |= GC_MODE_SHIFT_256;
    }
}

static void clear_picture(struct vga *vga)
{
    uint32_t bytes = vga_vbe_line_bytes(vga) * vga->vbe[VBE_YRES];
    memset(vga->memory, 0, bytes);
    if (vga->written)
        vga->written(vga, 0, bytes);
}

static void enable(struct vga *vga, uint16_t value)
{
    bool was = vga_vbe_enabled(vga), is = value & VBE_ENABLED;
    vga->vbe[VBE_ENABLE] = value;
    if (is && !was) {
        vga->vbe[VBE_VIRT_WIDTH] = vga->vbe[VBE_X_OFFSET] = vga->vbe[VBE_Y_OFFSET] = 0;
        make_possible(vga);
        set_vga_registers(vga);
        if (!(value & VBE_NO_CLEAR))
            clear_picture(vga);
    } else if (!is) {
        vga->vbe[VBE_BANK] = 0;
    }
}

uint16_t vga_vbe_read(const struct vga *vga, unsigned index)
{
    bool capabilities = vga->vbe[VBE_ENABLE] & VBE_GETCAPS;
    switch (index) {
    case VBE_XRES:
        return capabilities ? VBE_MAX_XRES : vga->vbe[index];
    case VBE_YRES:
        return capabilities ? VBE_MAX_YRES : vga->vbe[index];
    case VBE_BPP:
        return capabilities ? 32 : vga->vbe[index];
    case VBE_MEMORY_64K:
        return (uint16_t)(vga->memory_size >> 16);
    default:
        return index < VBE_REGS ? vga->vbe[index] : 0;
    }
}

void vga_vbe_write(struct vga *vga, unsigned index, uint16_t value)
{
    switch (index) {
    case VBE_ID:
        if (value >= VBE_ID_FIRST && value <= VBE_ID_LAST)
            vga->vbe[VBE_ID] = value;
        break;
    case VBE_ENABLE:
        enable(vga, value);
        break;
    case VBE_BANK:
        vga->vbe[VBE_BANK] = value & (uint16_t)((vga->memory_size >> 16) - 1);
        break;
    case VBE_XRES:
    case VBE_YRES:
    case VBE_BPP:
    case VBE_VIRT_WIDTH:
    case VBE_X_OFFSET:
    case VBE_Y_OFFSET:
        vga->vbe[index] = value;
        if (vga_vbe_enabled(vga)) {
            make_possible(vga);
            set_vga_registers(vga);
        }
        break;
    }
}
