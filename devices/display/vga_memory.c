/*
 * vga_memory.c - the window A0000h-BFFFFh: from the processor's byte to four planes and back.
 *
 * IBM PS/2 Hardware Interface Technical Reference, Video Subsystems, Graphics Controller and
 * Sequencer. Where a byte lies is said in vga.h.
 */
#include "internal/io.h"
#include "vga.h"

/* What the processor's address selects. */
struct place {
    uint32_t address; /* in the planes; with chain-4 the byte in memory */
    uint8_t planes;   /* that odd/even and chain-4 leave, a bit each */
};

/* The window's part that GC_MISC selects: 128 KiB, 64, and 32 at B0000h or B8000h. */
static const struct {
    uint32_t start, size;
} parts[4] = {{0, 0x20000}, {0, 0x10000}, {0x10000, 0x8000}, {0x18000, 0x8000}};

/* False: the adapter does not answer there. */
static bool locate(const struct vga *vga, uint32_t offset, struct place *place)
{
    unsigned part = vga->gc[GC_MISC] >> 2 & 3;
    uint32_t address = offset - parts[part].start;
    if (!(vga->misc & MISC_RAM) || offset < parts[part].start || address >= parts[part].size)
        return false;
    if (part <= 1)
        address += (uint32_t)vga->vbe[VBE_BANK] << 16; /* 0 without VBE */
    place->planes = 0x0f;
    if (vga->seq[SEQ_MODE] & SEQ_MODE_CHAIN4) {
        place->planes = (uint8_t)(1 << (address & 3));
        place->address =
            address & (vga_vbe_enabled(vga) ? vga->memory_size - 1 : 4 * VGA_PLANE_BYTES - 1);
        return true;
    }
    if (vga->gc[GC_MODE] & GC_MODE_ODD_EVEN) {
        place->planes = address & 1 ? 0x0a : 0x05;
        address >>= 1;
    }
    place->address = address & vga_plane_mask(vga);
    return true;
}

/* ---- Reading --------------------------------------------------------------------------------- */

/* Read mode 1: a bit is set where the four planes show the colour to compare with, as far as
 * DONT_CARE lets planes take part. */
static uint8_t compare(const struct vga *vga)
{
    uint8_t differs = 0;
    for (unsigned p = 0; p < 4; p++)
        if (vga->gc[GC_DONT_CARE] >> p & 1)
            differs |= vga->latch[p] ^ (vga->gc[GC_COLOR_COMPARE] >> p & 1 ? 0xff : 0);
    return (uint8_t)~differs;
}

uint8_t vga_memory_read(struct vga *vga, uint32_t offset)
{
    struct place place;
    if (!locate(vga, offset, &place))
        return 0xff;
    if (vga->seq[SEQ_MODE] & SEQ_MODE_CHAIN4) {
        for (unsigned p = 0; p < 4; p++)
            vga->latch[p] = vga->memory[(place.address & ~3u) + p];
        return vga->memory[place.address];
    }
    for (unsigned p = 0; p < 4; p++)
        vga->latch[p] = vga->memory[(size_t)place.address * 4 + p];
    if (vga->gc[GC_MODE] & GC_MODE_READ1)
        return compare(vga);
    unsigned plane = vga->gc[GC_READ_MAP];
    if (vga->gc[GC_MODE] & GC_MODE_ODD_EVEN)
        plane = (plane & 2) | (place.planes == 0x0a);
    return vga->latch[plane & 3];
}

/* ---- Writing --------------------------------------------------------------------------------- */

static uint8_t spread(uint8_t bits, unsigned plane)
{
    return bits >> plane & 1 ? 0xff : 0;
}

static uint8_t combine(unsigned function, uint8_t value, uint8_t latch)
{
    switch (function) {
    case 1:
        return value & latch;
    case 2:
        return value | latch;
    case 3:
        return value ^ latch;
    default:
        return value;
    }
}

/* The byte for one plane, by write mode: 0 the processor's, rotated, or a plane of set/reset; 1 the
 * latches; 2 each plane all of one bit of the processor's; 3 set/reset where the processor's byte,
 * rotated, has ones. */
static uint8_t plane_byte(const struct vga *vga, unsigned plane, uint8_t value)
{
    const uint8_t *gc = vga->gc;
    unsigned rotate = gc[GC_ROTATE] & 7, function = gc[GC_ROTATE] >> 3 & 3;
    uint8_t turned = (uint8_t)(value >> rotate | value << (8 - rotate)), latch = vga->latch[plane];
    uint8_t mask = gc[GC_BIT_MASK], byte = turned;
    switch (gc[GC_MODE] & 3) {
    case 1:
        return latch;
    case 0:
        if (gc[GC_ENABLE_SET_RESET] >> plane & 1)
            byte = spread(gc[GC_SET_RESET], plane);
        break;
    case 2:
        byte = spread(value, plane);
        break;
    case 3:
        mask &= turned;
        byte = spread(gc[GC_SET_RESET], plane);
        break;
    }
    byte = combine(function, byte, latch);
    return (uint8_t)((byte & mask) | (latch & ~mask));
}

/* Changes the bytes; says which, for vga->written(). */
static void store(struct vga *vga, uint32_t offset, uint8_t value, uint32_t *first, uint32_t *end)
{
    struct place place;
    if (!locate(vga, offset, &place))
        return;
    uint8_t planes = place.planes & vga->seq[SEQ_MAP_MASK];
    uint32_t at = vga->seq[SEQ_MODE] & SEQ_MODE_CHAIN4 ? place.address & ~3u : place.address * 4;
    for (unsigned p = 0; p < 4; p++)
        if (planes >> p & 1)
            vga->memory[at + p] =
                vga->seq[SEQ_MODE] & SEQ_MODE_CHAIN4 ? value : plane_byte(vga, p, value);
    if (*first == *end)
        *first = *end = at;
    if (at < *first)
        *first = at;
    if (at + 4 > *end)
        *end = at + 4;
}

void vga_memory_write(struct vga *vga, uint32_t offset, uint8_t value)
{
    uint32_t first = 0, end = 0;
    store(vga, offset, value, &first, &end);
    if (vga->written && first != end)
        vga->written(vga, first, end - first);
}

/* ---- As a region ----------------------------------------------------------------------------- */

static uint64_t window_read(void *opaque, const struct access *access, uint64_t offset,
                            unsigned size)
{
    uint64_t value = 0;
    (void)access;
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)vga_memory_read(opaque, (uint32_t)offset + i) << 8 * i;
    return value;
}

static void window_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                         uint64_t value)
{
    struct vga *vga = opaque;
    uint32_t first = 0, end = 0;
    (void)access;
    for (unsigned i = 0; i < size; i++)
        store(vga, (uint32_t)offset + i, (uint8_t)(value >> 8 * i), &first, &end);
    if (vga->written && first != end)
        vga->written(vga, first, end - first);
}

const struct io_ops vga_memory_ops = {window_read, window_write, 1, 8};
