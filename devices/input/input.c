/*
 * input.c - the ring between those who have input and the devices that take it (input.h).
 */
#include "internal/input.h"
#include "internal/chips.h"
#include "internal/clock.h"
#include "internal/error.h"
#include "internal/event.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum what { WHAT_KEY, WHAT_WAIT, WHAT_MOTION, WHAT_BUTTONS };

struct input_event {
    enum what what;
    unsigned code; /* KEY; BUTTONS: the mask; WAIT: milliseconds */
    bool down;
    int dx, dy, wheel;
};

struct input {
    struct board *board;
    struct input_sink sink;
    struct timer timer;   /* of a WAIT */
    bool waiting;         /* for it; the machine lock */
    pthread_mutex_t lock; /* guards what follows; taken last */
    struct input_event ring[INPUT_RING];
    unsigned first, count;
    bool posted; /* deliver() will be called */
};

/* ---- The devices' side ----------------------------------------------------------------------- */

static bool take(struct input *in, struct input_event *event)
{
    pthread_mutex_lock(&in->lock);
    bool some = in->count > 0;
    if (some) {
        *event = in->ring[in->first];
        in->first = (in->first + 1) % INPUT_RING;
        in->count--;
    }
    pthread_mutex_unlock(&in->lock);
    return some;
}

static void hand_over(const struct input_sink *sink, const struct input_event *event)
{
    if (event->what == WHAT_KEY && sink->key)
        sink->key(sink->opaque, event->code, event->down);
    if (event->what == WHAT_MOTION && sink->motion)
        sink->motion(sink->opaque, event->dx, event->dy, event->wheel);
    if (event->what == WHAT_BUTTONS && sink->buttons)
        sink->buttons(sink->opaque, event->code);
}

static void deliver(struct input *in)
{
    struct input_event event;
    while (!in->waiting && take(in, &event)) {
        if (event.what != WHAT_WAIT) {
            hand_over(&in->sink, &event);
            continue;
        }
        in->waiting = true;
        timer_arm(&in->timer, clock_now(in->board->clock) + event.code * 1000000ull);
    }
}

static void on_post(void *opaque)
{
    struct input *in = opaque;
    pthread_mutex_lock(&in->lock);
    in->posted = false;
    pthread_mutex_unlock(&in->lock);
    deliver(in);
}

static void on_timer(void *opaque)
{
    struct input *in = opaque;
    in->waiting = false;
    deliver(in);
}

/* ---- The other side -------------------------------------------------------------------------- */

/* All of them or none. */
static bool put(struct input *in, const struct input_event *events, unsigned count)
{
    pthread_mutex_lock(&in->lock);
    bool room = count <= INPUT_RING - in->count, post = room && !in->posted;
    for (unsigned i = 0; room && i < count; i++)
        in->ring[(in->first + in->count++) % INPUT_RING] = events[i];
    in->posted |= post;
    pthread_mutex_unlock(&in->lock);
    if (post)
        event_post(in->board->queue, on_post, in);
    return room;
}

bool input_key(struct input *input, unsigned code, bool down)
{
    return put(input, &(struct input_event){.what = WHAT_KEY, .code = code, .down = down}, 1);
}

bool input_motion(struct input *input, int dx, int dy, int wheel)
{
    return put(input,
               &(struct input_event){.what = WHAT_MOTION, .dx = dx, .dy = dy, .wheel = wheel}, 1);
}

bool input_buttons(struct input *input, unsigned buttons)
{
    return put(input, &(struct input_event){.what = WHAT_BUTTONS, .code = buttons}, 1);
}

/* A name, or 0x and the scan code of set 1, with bit 7 for those that E0h comes before. */
static const struct input_key *parse_key(const char *text, size_t len)
{
    const struct input_key *key = input_key_by_name(text, len);
    char digits[8] = "", *end;
    if (key || len < 3 || len >= sizeof(digits) || text[0] != '0' || text[1] != 'x')
        return key;
    memcpy(digits, text, len);
    unsigned long number = strtoul(digits + 2, &end, 16);
    for (unsigned code = 1; !*end && number && number < 256 && code < 256; code++) {
        key = input_key_by_code(code);
        if (key && (key->set2 >> 8 != 0) == (number >> 7 != 0) &&
            ps2_translate((uint8_t)key->set2) == (number & 0x7f))
            return key;
    }
    return NULL;
}

static int parse_keys(const char *keys, uint8_t codes[INPUT_KEYS_AT_ONCE], struct error *err)
{
    int count = 0;
    for (const char *at = keys; at; count++) {
        const char *end = strchr(at, '-');
        size_t len = end ? (size_t)(end - at) : strlen(at);
        const struct input_key *key = parse_key(at, len);
        if (!key) {
            error_set(err, "there is no key '%.*s'; keys have QEMU's names, as ctrl-alt-delete",
                      (int)(len < 40 ? len : 40), at);
            return -1;
        }
        if (count == INPUT_KEYS_AT_ONCE) {
            error_set(err, "more than %d keys at once", INPUT_KEYS_AT_ONCE);
            return -1;
        }
        codes[count] = key->code;
        at = end ? end + 1 : NULL;
    }
    return count;
}

bool input_send_keys(struct input *input, const char *keys, unsigned hold_ms, struct error *err)
{
    uint8_t codes[INPUT_KEYS_AT_ONCE];
    struct input_event events[2 * INPUT_KEYS_AT_ONCE + 2];
    int count = parse_keys(keys, codes, err), n = 0;
    if (count < 0)
        return false;
    if (hold_ms > INPUT_HOLD_MAX)
        return error_set(err, "keys can be held for %d ms at most", INPUT_HOLD_MAX);
    unsigned hold = hold_ms ? hold_ms : INPUT_HOLD_MS;
    for (int i = 0; i < count; i++)
        events[n++] = (struct input_event){.what = WHAT_KEY, .code = codes[i], .down = true};
    events[n++] = (struct input_event){.what = WHAT_WAIT, .code = hold};
    for (int i = count - 1; i >= 0; i--)
        events[n++] = (struct input_event){.what = WHAT_KEY, .code = codes[i]};
    /* What comes next is not to find the keyboard's buffer full of this. */
    events[n++] = (struct input_event){.what = WHAT_WAIT, .code = hold / 4 + 1};
    return put(input, events, (unsigned)n) || error_set(err, "too many keys wait already");
}

/* ---- Life ------------------------------------------------------------------------------------ */

struct input *input_new(struct board *board, const struct input_sink *sink)
{
    struct input *in = chip_alloc(sizeof(*in));
    in->board = board;
    in->sink = *sink;
    timer_init(&in->timer, board->queue, on_timer, in);
    pthread_mutex_init(&in->lock, NULL);
    return in;
}

void input_reset(struct input *in)
{
    pthread_mutex_lock(&in->lock);
    in->count = 0;
    pthread_mutex_unlock(&in->lock);
    timer_cancel(&in->timer);
    in->waiting = false;
}

void input_free(struct input *in)
{
    timer_cancel(&in->timer);
    pthread_mutex_destroy(&in->lock);
    free(in);
}
