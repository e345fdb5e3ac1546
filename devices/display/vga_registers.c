/*
 * vga_registers.c - the VGA's ports 3B0h-3DFh: five groups of registers, and the DAC.
 *
 * Each group is an index and a table of bytes with a mask of the bits that exist. Names and bits:
 * IBM PS/2 Hardware Interface Technical Reference, Video Subsystems, sections on each group.
 */
#include "vga.h"
#include <string.h>

/* ---- Groups of indexed registers ------------------------------------------------------------- */

static const uint8_t seq_mask[VGA_SEQ_REGS] = {0x03, 0x3d, 0x0f, 0x3f, 0x0e};
static const uint8_t gc_mask[VGA_GC_REGS] = {0x0f, 0x0f, 0x0f, 0x1f, 0x03, 0x7b, 0x0f, 0x0f, 0xff};
static const uint8_t attr_mask[VGA_ATTR_REGS] = {
    0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0x3f,
    0x3f, 0x3f, 0x3f, 0x3f, 0x3f, 0xef, 0xff, 0x3f, 0x0f, 0x0f,
};

static uint8_t get(const uint8_t *regs, unsigned count, unsigned index)
{
    return index < count ? regs[index] : 0;
}

static void put(uint8_t *regs, const uint8_t *mask, unsigned count, unsigned index, uint8_t value)
{
    if (index < count)
        regs[index] = value & mask[index];
}

/* With PROTECT set, registers 0-7 cannot be changed, but for bit 4 of the overflow register, which
 * belongs to the line compare. */
static void crtc_write(struct vga *vga, uint8_t value)
{
    unsigned index = vga->crtc_index;
    if (index >= VGA_CRTC_REGS)
        return;
    if (index <= CRTC_OVERFLOW && vga->crtc[CRTC_V_RETRACE_END] & CRTC_PROTECT) {
        if (index == CRTC_OVERFLOW)
            vga->crtc[index] = (uint8_t)((vga->crtc[index] & ~0x10) | (value & 0x10));
        return;
    }
    vga->crtc[index] = value;
}

/* One port for index and value in turn; reading input status 1 makes the index come next. */
static void attr_write(struct vga *vga, uint8_t value)
{
    if (vga->attr_data)
        put(vga->attr, attr_mask, VGA_ATTR_REGS, vga->attr_index & 0x1f, value);
    else
        vga->attr_index = value & 0x3f;
    vga->attr_data = !vga->attr_data;
}

/* ---- DAC ------------------------------------------------------------------------------------- */

static uint8_t dac_data_read(struct vga *vga)
{
    uint8_t value = vga->dac[vga->dac_read_index * 3u + vga->dac_component % 3u];
    vga->dac_component = (vga->dac_component + 1u) % 3u;
    if (vga->dac_component == 0)
        vga->dac_read_index++;
    return value;
}

/* A colour changes with its third component. */
static void dac_data_write(struct vga *vga, uint8_t value)
{
    vga->dac_latch[vga->dac_component % 3u] =
        vga->vbe[VBE_ENABLE] & VBE_8BIT_DAC ? value : value & 0x3f;
    vga->dac_component = (vga->dac_component + 1u) % 3u;
    if (vga->dac_component == 0)
        memcpy(&vga->dac[vga->dac_write_index++ * 3u], vga->dac_latch, 3);
}

static void dac_index(struct vga *vga, uint8_t value, bool reading)
{
    *(reading ? &vga->dac_read_index : &vga->dac_write_index) = value;
    vga->dac_component = 0;
    vga->dac_reading = reading;
}

/* ---- Ports ----------------------------------------------------------------------------------- */

/* The CRTC's ports and input status 1 are at 3Bxh on a monochrome adapter and at 3Dxh on a colour
 * one; MISC_COLOR says which this is. The other ones are not there. */
static bool is_elsewhere(const struct vga *vga, uint16_t port)
{
    bool mono = port >= 0x3b0 && port < 0x3c0, color = port >= 0x3d0;
    return vga->misc & MISC_COLOR ? mono : color;
}

uint8_t vga_port_read(struct vga *vga, uint16_t port)
{
    if (is_elsewhere(vga, port))
        return 0xff;
    switch (port) {
    case 0x3c0:
        return vga->attr_index;
    case 0x3c1:
        return get(vga->attr, VGA_ATTR_REGS, vga->attr_index & 0x1f);
    case 0x3c2: /* input status 0: a monitor is sensed; there is no vertical interrupt */
        return 0x10;
    case 0x3c4:
        return vga->seq_index;
    case 0x3c5:
        return get(vga->seq, VGA_SEQ_REGS, vga->seq_index);
    case 0x3c6:
        return vga->dac_mask;
    case 0x3c7:
        return vga->dac_reading ? 3 : 0;
    case 0x3c8:
        return vga->dac_write_index;
    case 0x3c9:
        return dac_data_read(vga);
    case 0x3ca:
        return vga->feature;
    case 0x3cc:
        return vga->misc;
    case 0x3ce:
        return vga->gc_index;
    case 0x3cf:
        return get(vga->gc, VGA_GC_REGS, vga->gc_index);
    case 0x3b4:
    case 0x3d4:
        return vga->crtc_index;
    case 0x3b5:
    case 0x3d5:
        return get(vga->crtc, VGA_CRTC_REGS, vga->crtc_index);
    case 0x3ba:
    case 0x3da:
        vga->attr_data = 0;
        return vga_beam(vga);
    }
    return 0xff;
}

void vga_port_write(struct vga *vga, uint16_t port, uint8_t value)
{
    if (is_elsewhere(vga, port))
        return;
    switch (port) {
    case 0x3c0:
        attr_write(vga, value);
        break;
    case 0x3c2:
        vga->misc = value & 0xef;
        break;
    case 0x3c4:
        vga->seq_index = value & 7;
        break;
    case 0x3c5:
        put(vga->seq, seq_mask, VGA_SEQ_REGS, vga->seq_index, value);
        break;
    case 0x3c6:
        vga->dac_mask = value;
        break;
    case 0x3c7:
        dac_index(vga, value, true);
        break;
    case 0x3c8:
        dac_index(vga, value, false);
        break;
    case 0x3c9:
        dac_data_write(vga, value);
        break;
    case 0x3ce:
        vga->gc_index = value & 0x0f;
        break;
    case 0x3cf:
        put(vga->gc, gc_mask, VGA_GC_REGS, vga->gc_index, value);
        break;
    case 0x3b4:
    case 0x3d4:
        vga->crtc_index = value;
        break;
    case 0x3b5:
    case 0x3d5:
        crtc_write(vga, value);
        break;
    case 0x3ba:
    case 0x3da:
        vga->feature = value & 0x13;
        break;
    }
}

/* ---- States to start from -------------------------------------------------------------------- */

void vga_reset(struct vga *vga)
{
    struct vga fresh = {.memory = vga->memory,
                        .memory_size = vga->memory_size,
                        .clock = vga->clock,
                        .written = vga->written,
                        .dac_mask = 0xff};
    fresh.vbe[VBE_ID] = VBE_ID_LAST;
    *vga = fresh;
}

/* The registers of BIOS mode 3 (IBM's video BIOS, 720 x 400 with 9 x 16 characters). */
static const uint8_t text_seq[VGA_SEQ_REGS] = {0x03, 0x00, 0x03, 0x00, 0x02};
static const uint8_t text_crtc[VGA_CRTC_REGS] = {
    0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0x00, 0x4f, 0x0d, 0x0e, 0x00,
    0x00, 0x00, 0x00, 0x9c, 0x8e, 0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff,
};
static const uint8_t text_gc[VGA_GC_REGS] = {0, 0, 0, 0, 0, 0x10, 0x0e, 0, 0xff};
static const uint8_t text_attr[VGA_ATTR_REGS] = {
    0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3a,
    0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x0c, 0x00, 0x0f, 0x08, 0x00,
};

/* The EGA's 64 colours: bits 0-2 are blue, green, red of two thirds, bits 3-5 of one third. */
static void ega_colors(struct vga *vga)
{
    for (unsigned i = 0; i < 64; i++)
        for (unsigned c = 0; c < 3; c++)
            vga->dac[3 * i + c] =
                (uint8_t)((i >> (2 - c) & 1 ? 0x2a : 0) + (i >> (5 - c) & 1 ? 0x15 : 0));
}

void vga_text_mode(struct vga *vga, const uint8_t *font)
{
    vga_reset(vga);
    vga->misc = 0x67;
    memcpy(vga->seq, text_seq, sizeof(text_seq));
    memcpy(vga->crtc, text_crtc, sizeof(text_crtc));
    memcpy(vga->gc, text_gc, sizeof(text_gc));
    memcpy(vga->attr, text_attr, sizeof(text_attr));
    vga->attr_index = ATTR_INDEX_SHOW;
    ega_colors(vga);
    memset(vga->memory, 0, 4 * VGA_PLANE_BYTES);
    for (unsigned i = 0; i < 0x4000; i++) {
        vga->memory[4 * i] = ' ';
        vga->memory[4 * i + 1] = 0x07;
    }
    for (unsigned i = 0; font && i < 256 * 16; i++) /* characters are 32 bytes apart in plane 2 */
        vga->memory[4 * (i / 16 * 32 + i % 16) + 2] = font[i];
    if (vga->written)
        vga->written(vga, 0, 4 * VGA_PLANE_BYTES);
}
