/*
 * edid.c - what the monitor says of itself: VESA Enhanced EDID Standard, release A, revision 2
 * (EDID 1.4), one block of 128 bytes.
 */
#include "vga.h"
#include <string.h>

/* The mode whose timings are in the first detailed descriptor, made by VESA's reduced blanking
 * (CVT 1.2, section 3.4): 160 dots of horizontal and at least 460 us of vertical blanking. */
struct timing {
    unsigned clock_10khz, h, h_blank, h_front, h_sync, v, v_blank, v_front, v_sync;
};

static struct timing reduced_blanking(unsigned width, unsigned height)
{
    struct timing t = {.h = width, .v = height, .h_blank = 160, .h_front = 48, .h_sync = 32};
    t.v_front = 3;
    t.v_sync = 6;
    /* lines that take 460 us of the 16667 of a frame, in which `height` others are shown */
    t.v_blank = 460 * height / (16667 - 460) + 1;
    if (t.v_blank < t.v_front + t.v_sync + 6)
        t.v_blank = t.v_front + t.v_sync + 6;
    t.clock_10khz = (t.h + t.h_blank) * (t.v + t.v_blank) * 60 / 10000;
    return t;
}

/* 3.10.2: detailed timing descriptor. */
static void put_timing(uint8_t *d, const struct timing *t, unsigned width_mm, unsigned height_mm)
{
    d[0] = (uint8_t)t->clock_10khz;
    d[1] = (uint8_t)(t->clock_10khz >> 8);
    d[2] = (uint8_t)t->h;
    d[3] = (uint8_t)t->h_blank;
    d[4] = (uint8_t)(t->h >> 8 << 4 | t->h_blank >> 8);
    d[5] = (uint8_t)t->v;
    d[6] = (uint8_t)t->v_blank;
    d[7] = (uint8_t)(t->v >> 8 << 4 | t->v_blank >> 8);
    d[8] = (uint8_t)t->h_front;
    d[9] = (uint8_t)t->h_sync;
    d[10] = (uint8_t)((t->v_front & 15) << 4 | (t->v_sync & 15));
    d[12] = (uint8_t)width_mm;
    d[13] = (uint8_t)height_mm;
    d[14] = (uint8_t)(width_mm >> 8 << 4 | height_mm >> 8);
    d[17] = 0x1a; /* digital separate sync, horizontal positive */
}

/* 3.10.3: a descriptor of another kind; text ends with a line feed and is padded with blanks. */
static void put_text(uint8_t *d, uint8_t tag, const char *text)
{
    d[3] = tag;
    memset(d + 5, ' ', 13);
    size_t len = strlen(text);
    memcpy(d + 5, text, len);
    d[5 + len] = '\n';
}

void edid_make(uint8_t edid[EDID_BYTES], unsigned width, unsigned height)
{
    static const uint8_t header[8] = {0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0};
    /* 3.8: standard timings: (width / 8 - 31), aspect ratio 4:3 in bits 7-6 and 60 Hz */
    static const uint16_t standard[] = {2048, 1920, 1600, 1280, 1024, 800, 640};
    const struct timing t = reduced_blanking(width, height);
    unsigned width_mm = width * 254 / 960, height_mm = height * 254 / 960; /* 96 dots an inch */
    memset(edid, 0, EDID_BYTES);
    memcpy(edid, header, sizeof(header));
    unsigned maker = ('B' - '@') << 10 | ('L' - '@') << 5 | ('Y' - '@');
    edid[8] = (uint8_t)(maker >> 8);
    edid[9] = (uint8_t)maker;
    edid[10] = 0x01;
    edid[17] = 2014 - 1990;
    edid[18] = 1;
    edid[19] = 4;
    edid[20] = 0xa5; /* digital, 8 bits a colour, DisplayPort */
    edid[21] = (uint8_t)(width_mm / 10);
    edid[22] = (uint8_t)(height_mm / 10);
    edid[23] = 120;  /* gamma 2.2 */
    edid[24] = 0x06; /* sRGB, the preferred timing is the native one */
    /* 3.7: chromaticity of sRGB: red .640 .330, green .300 .600, blue .150 .060, white .3127 .3290
     */
    static const uint8_t chromaticity[10] = {0xee, 0x91, 0xa3, 0x54, 0x4c,
                                             0x99, 0x26, 0x0f, 0x50, 0x54};
    memcpy(edid + 25, chromaticity, sizeof(chromaticity));
    edid[35] = 0x21; /* 640 x 480 and 800 x 600 at 60 Hz */
    edid[36] = 0x08; /* 1024 x 768 at 60 Hz */
    for (unsigned i = 0; i < 8; i++) {
        bool used = i < sizeof(standard) / sizeof(standard[0]);
        edid[38 + 2 * i] = used ? (uint8_t)(standard[i] / 8 - 31) : 1;
        edid[39 + 2 * i] = used ? 0x40 : 1;
    }
    put_timing(edid + 54, &t, width_mm, height_mm);
    put_text(edid + 72, 0xfc, "Bailey");
    static const uint8_t range[13] = {0, 0, 0, 0xfd, 0, 50, 125, 30, 160, 255, 1, '\n', ' '};
    memcpy(edid + 90, range, sizeof(range));
    memset(edid + 90 + 12, ' ', 6);
    edid[108 + 3] = 0x10; /* unused */
    uint8_t sum = 0;
    for (unsigned i = 0; i < EDID_BYTES - 1; i++)
        sum += edid[i];
    edid[127] = (uint8_t)-sum;
}
