/*
 * ps2.h - a keyboard and a mouse as the controller at the other end of their cables meets them:
 * both take bytes, and have bytes to give.
 *
 * IBM PS/2 Hardware Interface Technical Reference, Keyboard (101/102-key) and Mouse.
 */
#ifndef DEVICES_PS2_H
#define DEVICES_PS2_H

#include "internal/device.h"
#include "internal/event.h"
#include "internal/input.h"

/* Answers common to both. */
enum {
    PS2_ACK = 0xfa,
    PS2_RESEND = 0xfe,
    PS2_SELF_TEST_OK = 0xaa,
    PS2_SET_DEFAULTS = 0xf6,
    PS2_DISABLE = 0xf5,
    PS2_ENABLE = 0xf4,
    PS2_IDENTIFY = 0xf2,
    PS2_RESET = 0xff,
};

enum { PS2_QUEUE = 32, PS2_SCAN_ROOM = 16 /* bytes of it that a keyboard's buffer holds */ };

/* What a device has to give. */
struct ps2_queue {
    uint8_t bytes[PS2_QUEUE];
    uint8_t first, count;
};

void ps2_put(struct ps2_queue *queue, const uint8_t *bytes, unsigned count);
bool ps2_take(struct ps2_queue *queue, uint8_t *byte);
static inline void ps2_put1(struct ps2_queue *queue, uint8_t byte)
{
    ps2_put(queue, &byte, 1);
}

#define PS2_QUEUE_FIELDS(st, member)                                                               \
    FIELD_ARRAY(st, member.bytes, FIELD_BYTES, 1), FIELD(st, member.first, FIELD_U8, 1),           \
        FIELD(st, member.count, FIELD_U8, 1)

/* ---- Keyboard (ps2_keyboard.c) --------------------------------------------------------------- */

struct ps2_keyboard {
    struct ps2_queue answers, queue; /* queue: scan codes */
    uint8_t last;                    /* byte given, for RESEND */
    uint8_t command;                 /* that waits for its argument; 0: none */
    uint8_t enabled;                 /* scanning */
    uint8_t set;                     /* of scan codes: 1, 2, 3 */
    uint8_t leds;                    /* bit 0 scroll lock, 1 num lock, 2 caps lock */
    uint8_t rate;                    /* typematic: bits 4-0 rate, 6-5 delay */
    uint8_t repeats;                 /* code of the key that repeats; 0: none */
    uint8_t down[32];                /* a bit for each key held, by code */
    uint8_t modes[64];               /* of set 3's keys, two bits each */
    uint64_t repeat_at;              /* clock_now() value */
    struct clock *clock;
    struct timer timer;
    /* There are bytes in the queue. */
    void (*ready)(void *opaque);
    void *opaque;
};

#define PS2_KEYBOARD_FIELDS(st, member)                                                            \
    PS2_QUEUE_FIELDS(st, member.answers), PS2_QUEUE_FIELDS(st, member.queue),                      \
        FIELD(st, member.last, FIELD_U8, 1), FIELD(st, member.command, FIELD_U8, 1),               \
        FIELD(st, member.enabled, FIELD_U8, 1), FIELD(st, member.set, FIELD_U8, 1),                \
        FIELD(st, member.leds, FIELD_U8, 1), FIELD(st, member.rate, FIELD_U8, 1),                  \
        FIELD(st, member.repeats, FIELD_U8, 1), FIELD_ARRAY(st, member.down, FIELD_BYTES, 1),      \
        FIELD_ARRAY(st, member.modes, FIELD_BYTES, 1), FIELD(st, member.repeat_at, FIELD_U64, 1)

void ps2_keyboard_init(struct ps2_keyboard *k, struct board *board, void (*ready)(void *opaque),
                       void *opaque);
void ps2_keyboard_power_on(struct ps2_keyboard *k);
void ps2_keyboard_restored(struct ps2_keyboard *k);
void ps2_keyboard_write(struct ps2_keyboard *k, uint8_t byte);
bool ps2_keyboard_take(struct ps2_keyboard *k, uint8_t *byte);
void ps2_keyboard_key(struct ps2_keyboard *k, unsigned code, bool down);

/* ---- Mouse (ps2_mouse.c) --------------------------------------------------------------------- */

struct ps2_mouse {
    struct ps2_queue queue;
    uint8_t last;       /* byte given, for RESEND */
    uint8_t command;    /* that waits for its argument; 0: none */
    uint8_t id;         /* 0; 3 with a wheel; 4 with five buttons too */
    uint8_t remote;     /* packets only when asked */
    uint8_t wrap;       /* echoes what it gets */
    uint8_t enabled;    /* reporting */
    uint8_t scaled;     /* 2:1 */
    uint8_t resolution; /* 0-3 */
    uint8_t rate;       /* samples a second */
    uint8_t knock;      /* how far the rates that change the id have come: the last two of them */
    uint8_t knock_before;
    uint8_t buttons, reported_buttons;
    uint32_t dx, dy, dz; /* not reported yet; two's complement, up and away counted positive */
    void (*ready)(void *opaque);
    void *opaque;
};

#define PS2_MOUSE_FIELDS(st, member)                                                               \
    PS2_QUEUE_FIELDS(st, member.queue), FIELD(st, member.last, FIELD_U8, 1),                       \
        FIELD(st, member.command, FIELD_U8, 1), FIELD(st, member.id, FIELD_U8, 1),                 \
        FIELD(st, member.remote, FIELD_U8, 1), FIELD(st, member.wrap, FIELD_U8, 1),                \
        FIELD(st, member.enabled, FIELD_U8, 1), FIELD(st, member.scaled, FIELD_U8, 1),             \
        FIELD(st, member.resolution, FIELD_U8, 1), FIELD(st, member.rate, FIELD_U8, 1),            \
        FIELD(st, member.knock, FIELD_U8, 1), FIELD(st, member.knock_before, FIELD_U8, 1),         \
        FIELD(st, member.buttons, FIELD_U8, 1), FIELD(st, member.reported_buttons, FIELD_U8, 1),   \
        FIELD(st, member.dx, FIELD_U32, 1), FIELD(st, member.dy, FIELD_U32, 1),                    \
        FIELD(st, member.dz, FIELD_U32, 1)

void ps2_mouse_power_on(struct ps2_mouse *m);
void ps2_mouse_write(struct ps2_mouse *m, uint8_t byte);
void ps2_mouse_motion(struct ps2_mouse *m, int dx, int dy, int wheel);
void ps2_mouse_buttons(struct ps2_mouse *m, unsigned buttons);
bool ps2_mouse_take(struct ps2_mouse *m, uint8_t *byte);

#endif
