/*
 * vga_timing.c - where the beam is: retrace and blanking as guests poll them, from the clock and
 * the CRT controller's totals, so that the same time gives the same answer.
 *
 * IBM PS/2 Hardware Interface Technical Reference, Video Subsystems, CRT Controller and Input
 * Status Register 1.
 */
#include "internal/clock.h"
#include "vga.h"

/* Bits 8 and 9 of the vertical registers: where they are in the overflow register. */
unsigned vga_vertical(const struct vga *vga, enum vga_crtc which)
{
    const uint8_t *crtc = vga->crtc;
    unsigned overflow = crtc[CRTC_OVERFLOW], value = crtc[which];
    switch (which) {
    case CRTC_V_TOTAL:
        return value | (overflow & 1) << 8 | (overflow >> 5 & 1) << 9;
    case CRTC_V_DISPLAYED:
        return value | (overflow >> 1 & 1) << 8 | (overflow >> 6 & 1) << 9;
    case CRTC_V_RETRACE_START:
        return value | (overflow >> 2 & 1) << 8 | (overflow >> 7 & 1) << 9;
    case CRTC_LINE_COMPARE:
        return value | (overflow >> 4 & 1) << 8 | (crtc[CRTC_MAX_SCAN] >> 6 & 1u) << 9;
    default:
        return value;
    }
}

/* A frame in dots and lines. */
struct frame {
    uint32_t dots_per_s, width, height; /* the total ones */
    uint32_t shown_width, shown_height;
    uint32_t retrace, retrace_lines;
};

/* 640 x 480 at 60 Hz: what a monitor gets while the registers make no frame, or VBE has taken the
 * mode out of their hands. */
static const struct frame usual = {25175000, 800, 525, 640, 480, 490, 2};

static struct frame frame_of(const struct vga *vga)
{
    static const uint32_t clocks[4] = {25175000, 28322000, 25175000, 25175000};
    const uint8_t *crtc = vga->crtc;
    unsigned dots = vga->seq[SEQ_CLOCKING] & CLOCKING_8_DOTS ? 8 : 9;
    unsigned start = vga_vertical(vga, CRTC_V_RETRACE_START);
    struct frame f = {
        .dots_per_s = clocks[vga->misc >> 2 & 3],
        .width = (crtc[CRTC_H_TOTAL] + 5u) * dots,
        .height = vga_vertical(vga, CRTC_V_TOTAL) + 2,
        .shown_width = (crtc[CRTC_H_DISPLAYED] + 1u) * dots,
        .shown_height = vga_vertical(vga, CRTC_V_DISPLAYED) + 1,
        .retrace = start,
        .retrace_lines = ((crtc[CRTC_V_RETRACE_END] - start - 1) & 15) + 1,
    };
    if (vga->seq[SEQ_CLOCKING] & CLOCKING_HALF)
        f.dots_per_s /= 2;
    bool sane = f.shown_width < f.width && f.shown_height <= f.retrace &&
                f.retrace + f.retrace_lines <= f.height;
    return sane && !vga_vbe_enabled(vga) ? f : usual;
}

uint8_t vga_beam(const struct vga *vga)
{
    const struct frame f = frame_of(vga);
    uint64_t now = clock_now(vga->clock);
    uint64_t dot = clock_muldiv(now, f.dots_per_s, 1000000000) % ((uint64_t)f.width * f.height);
    uint32_t line = (uint32_t)(dot / f.width), column = (uint32_t)(dot % f.width);
    bool shown = line < f.shown_height && column < f.shown_width;
    bool retrace = line >= f.retrace && line < f.retrace + f.retrace_lines;
    return (uint8_t)((shown ? 0 : 1) | (retrace ? 8 : 0));
}

uint64_t vga_frame(const struct vga *vga)
{
    const struct frame f = frame_of(vga);
    return clock_muldiv(clock_now(vga->clock), f.dots_per_s, 1000000000) /
           ((uint64_t)f.width * f.height);
}
