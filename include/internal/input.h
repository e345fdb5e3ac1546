/*
 * input.h - keys, motion and buttons from outside, on their way to the guest's devices.
 *
 * Whoever has them (a client's sendkey, a window) hands them in from any thread; they wait in a
 * ring and are delivered in order through the event queue, in guest time where they say for how
 * long a key is held. Keys have the numbers of Linux's input-event-codes.h and QEMU's names.
 */
#ifndef INTERNAL_INPUT_H
#define INTERNAL_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct board;
struct error;
struct input;

enum {
    INPUT_KEYS_AT_ONCE = 16,
    INPUT_RING = 1024,   /* events that wait */
    INPUT_HOLD_MS = 100, /* for which input_send_keys() holds keys where nobody says otherwise */
    INPUT_HOLD_MAX = 10000,
};
enum input_button {
    INPUT_LEFT = 1 << 0,
    INPUT_RIGHT = 1 << 1,
    INPUT_MIDDLE = 1 << 2,
    INPUT_SIDE = 1 << 3,
    INPUT_EXTRA = 1 << 4,
};

/* The devices' side: called in the I/O thread with the machine lock held. Any may be NULL. */
struct input_sink {
    void *opaque;
    void (*key)(void *opaque, unsigned code, bool down);
    /* Since the last time, to the right and down; of the wheel, towards the user. */
    void (*motion)(void *opaque, int dx, int dy, int wheel);
    void (*buttons)(void *opaque, unsigned buttons); /* enum input_button, those that are down */
};

struct input *input_new(struct board *board, const struct input_sink *sink);
void input_free(struct input *input);
/* Forgets what waits. With the machine lock held. */
void input_reset(struct input *input);

/* Any thread. False: too much waits already, and this was dropped. */
bool input_key(struct input *input, unsigned code, bool down);
bool input_motion(struct input *input, int dx, int dy, int wheel);
bool input_buttons(struct input *input, unsigned buttons);
/* "ctrl-alt-delete": pressed in this order, held, released in the opposite order. hold_ms 0:
 * INPUT_HOLD_MS. A key may also be a number, as QEMU has it: its scan code, 0xe0 in bit 7. */
bool input_send_keys(struct input *input, const char *keys, unsigned hold_ms, struct error *err);

/* ---- Keys (devices/input/keys.c) ---------------------------------------------------------------
 */

/* How a PS/2 keyboard calls a key: a byte of each scan code set, with E0h before it where the high
 * byte says so. Set 1 follows from set 2 by ps2_translate(). */
struct input_key {
    uint8_t code; /* Linux's KEY_... */
    uint16_t set2;
    uint8_t set3;             /* 0: that set does not have it */
    const char *name, *alias; /* QEMU's */
};
const struct input_key *input_key_by_code(unsigned code); /* NULL: not on a PS/2 keyboard */
const struct input_key *input_key_by_name(const char *name, size_t len);
/* What the keyboard controller makes of a byte of set 2. */
uint8_t ps2_translate(uint8_t set2);

#endif
