/*
 * ps2_keyboard.c - a keyboard of 101/102 keys with its three sets of scan codes.
 *
 * IBM PS/2 Hardware Interface Technical Reference, Keyboard (101/102-key). It powers up with set 2,
 * scanning; the controller makes set 1 of that. Shift states that the numeric keys fake for old
 * programs are left out, as QEMU leaves them out; those of PRINT are there.
 */
#include "internal/clock.h"
#include "ps2.h"
#include <string.h>

enum { PS2_ECHO = 0xee, OVERRUN_SET1 = 0xff, OVERRUN = 0x00, RELEASE = 0xf0 };
enum {
    CMD_LEDS = 0xed,
    CMD_ECHO = 0xee,
    CMD_SET = 0xf0,
    CMD_RATE = 0xf3,
    CMD_ALL_FIRST = 0xf7, /* F7h-FAh: all keys of set 3; FBh-FDh: one of them */
    CMD_ALL_LAST = 0xfa,
    CMD_ONE_LAST = 0xfd,
};
enum { DEFAULT_RATE = 0x2b /* 10.9 a second after half a second */ };
/* Of set 3's keys; each bit is one thing that they may do beside their make code. */
enum { MODE_REPEAT = 1 << 0, MODE_RELEASE = 1 << 1 };
enum { KEY_PRINT = 99, KEY_PAUSE = 119, KEY_LEFTALT = 56, KEY_RIGHTALT = 100 };
enum { KEY_LEFTCTRL = 29, KEY_RIGHTCTRL = 97, KEY_LEFTSHIFT = 42, KEY_RIGHTSHIFT = 54 };

/* ---- Queues ---------------------------------------------------------------------------------- */

void ps2_put(struct ps2_queue *queue, const uint8_t *bytes, unsigned count)
{
    for (unsigned i = 0; i < count && queue->count < PS2_QUEUE; i++)
        queue->bytes[(queue->first + queue->count++) % PS2_QUEUE] = bytes[i];
}

bool ps2_take(struct ps2_queue *queue, uint8_t *byte)
{
    if (queue->count == 0)
        return false;
    *byte = queue->bytes[queue->first % PS2_QUEUE];
    queue->first = (queue->first + 1) % PS2_QUEUE;
    queue->count--;
    return true;
}

bool ps2_keyboard_take(struct ps2_keyboard *k, uint8_t *byte)
{
    if (!ps2_take(&k->answers, byte) && !ps2_take(&k->queue, byte))
        return false;
    k->last = *byte;
    return true;
}

/* ---- Scan codes ------------------------------------------------------------------------------ */

static bool is_down(const struct ps2_keyboard *k, unsigned code)
{
    return k->down[code / 8] >> (code % 8) & 1;
}

/* A scan code is dropped as a whole when the buffer is full, and an overrun code stands for it. */
static void put_scan(struct ps2_keyboard *k, const uint8_t *bytes, unsigned count)
{
    if (k->queue.count + count > PS2_SCAN_ROOM) {
        if (k->queue.count < PS2_SCAN_ROOM)
            ps2_put1(&k->queue, k->set == 1 ? OVERRUN_SET1 : OVERRUN);
        return;
    }
    ps2_put(&k->queue, bytes, count);
}

/* The bytes of one code of set 2, E0h in its high byte or not, in the set that is used. */
static unsigned code_bytes(const struct ps2_keyboard *k, uint16_t set2, bool down, uint8_t *out)
{
    unsigned n = 0;
    if (set2 >> 8)
        out[n++] = (uint8_t)(set2 >> 8);
    if (k->set == 1) {
        out[n++] = ps2_translate((uint8_t)set2) | (down ? 0 : 0x80);
        return n;
    }
    if (!down)
        out[n++] = RELEASE;
    out[n++] = (uint8_t)set2;
    return n;
}

/* PRINT comes with a shift around it, unless one or CTRL is held; with ALT it is another code. */
static void put_print(struct ps2_keyboard *k, bool down)
{
    uint8_t bytes[8];
    unsigned n = 0;
    bool alone = is_down(k, KEY_LEFTCTRL) || is_down(k, KEY_RIGHTCTRL) ||
                 is_down(k, KEY_LEFTSHIFT) || is_down(k, KEY_RIGHTSHIFT);
    if (is_down(k, KEY_LEFTALT) || is_down(k, KEY_RIGHTALT)) {
        n = code_bytes(k, 0x84, down, bytes);
    } else {
        if (!alone && down)
            n += code_bytes(k, 0xe012, true, bytes);
        n += code_bytes(k, 0xe07c, down, bytes + n);
        if (!alone && !down)
            n += code_bytes(k, 0xe012, false, bytes + n);
    }
    put_scan(k, bytes, n);
}

/* PAUSE has a make code only, and with CTRL it is another key. */
static void put_pause(struct ps2_keyboard *k, bool down)
{
    static const uint8_t set1[] = {0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5};
    static const uint8_t set2[] = {0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77};
    uint8_t bytes[8];
    if (!down)
        return;
    if (is_down(k, KEY_LEFTCTRL) || is_down(k, KEY_RIGHTCTRL)) {
        unsigned n = code_bytes(k, 0xe07e, true, bytes);
        put_scan(k, bytes, n + code_bytes(k, 0xe07e, false, bytes + n));
    } else if (k->set == 1) {
        put_scan(k, set1, sizeof(set1));
    } else {
        put_scan(k, set2, sizeof(set2));
    }
}

static unsigned mode_of(const struct ps2_keyboard *k, uint8_t set3)
{
    return k->modes[set3 / 4] >> (set3 % 4 * 2) & 3u;
}

static void put_set3(struct ps2_keyboard *k, uint8_t set3, bool down)
{
    const uint8_t bytes[] = {RELEASE, set3};
    if (set3 == 0)
        return;
    if (down)
        put_scan(k, bytes + 1, 1);
    else if (mode_of(k, set3) & MODE_RELEASE)
        put_scan(k, bytes, 2);
}

static void put_key(struct ps2_keyboard *k, const struct input_key *key, bool down)
{
    uint8_t bytes[8];
    if (k->set == 3)
        put_set3(k, key->set3, down);
    else if (key->code == KEY_PRINT)
        put_print(k, down);
    else if (key->code == KEY_PAUSE)
        put_pause(k, down);
    else
        put_scan(k, bytes, code_bytes(k, key->set2, down, bytes));
}

/* ---- Repeating ------------------------------------------------------------------------------- */

static uint64_t repeat_delay(const struct ps2_keyboard *k)
{
    return ((k->rate >> 5 & 3) + 1) * 250000000ull;
}

/* (8 + A) * 2^B * 4.17 ms, A in bits 2-0 and B in bits 4-3. */
static uint64_t repeat_period(const struct ps2_keyboard *k)
{
    return (uint64_t)(8 + (k->rate & 7)) << (k->rate >> 3 & 3) << 22; /* 2^22 ns: 4.19 ms */
}

static void repeat_in(struct ps2_keyboard *k, uint64_t ns)
{
    k->repeat_at = clock_now(k->clock) + ns;
    timer_arm(&k->timer, k->repeat_at);
}

static void stop_repeating(struct ps2_keyboard *k)
{
    k->repeats = 0;
    timer_cancel(&k->timer);
}

static void on_repeat(void *opaque)
{
    struct ps2_keyboard *k = opaque;
    const struct input_key *key = input_key_by_code(k->repeats);
    if (!key || !k->enabled)
        return;
    /* Only when the guest keeps up: the buffer is for what people do. */
    if (k->queue.count == 0) {
        put_key(k, key, true);
        k->ready(k->opaque);
    }
    repeat_in(k, repeat_period(k));
}

static void begin_repeating(struct ps2_keyboard *k, const struct input_key *key)
{
    bool repeats =
        k->set == 3 ? key->set3 && mode_of(k, key->set3) & MODE_REPEAT : key->code != KEY_PAUSE;
    stop_repeating(k);
    if (!repeats)
        return;
    k->repeats = key->code;
    repeat_in(k, repeat_delay(k));
}

void ps2_keyboard_key(struct ps2_keyboard *k, unsigned code, bool down)
{
    const struct input_key *key = input_key_by_code(code);
    if (!key || is_down(k, code) == down)
        return;
    if (k->enabled)
        put_key(k, key, down);
    k->down[code / 8] ^= (uint8_t)(1 << (code % 8));
    if (down && k->enabled)
        begin_repeating(k, key);
    else if (k->repeats == code)
        stop_repeating(k);
    k->ready(k->opaque);
}

/* ---- Commands -------------------------------------------------------------------------------- */

/* Set 3's own: CTRL, SHIFT and ALT of the left side and CAPS LOCK have release codes; keys that
 * come alone have neither; the others repeat. */
static void default_modes(struct ps2_keyboard *k)
{
    static const uint8_t release[] = {0x11, 0x12, 0x14, 0x19, 0x59};
    static const uint8_t make_only[] = {0x08, 0x07, 0x0f, 0x17, 0x1f, 0x27, 0x2f, 0x37, 0x3f, 0x47,
                                        0x4f, 0x56, 0x5e, 0x57, 0x5f, 0x62, 0x39, 0x58, 0x67, 0x6e,
                                        0x6f, 0x65, 0x6d, 0x76, 0x6c, 0x6b, 0x69, 0x77, 0x75, 0x73,
                                        0x72, 0x70, 0x7e, 0x7d, 0x74, 0x7a, 0x71, 0x84, 0x79};
    memset(k->modes, 0x55 * MODE_REPEAT, sizeof(k->modes));
    for (unsigned i = 0; i < sizeof(make_only); i++)
        k->modes[make_only[i] / 4] &= (uint8_t) ~(3 << (make_only[i] % 4 * 2));
    for (unsigned i = 0; i < sizeof(release); i++) {
        uint8_t *mode = &k->modes[release[i] / 4];
        unsigned shift = release[i] % 4 * 2u;
        *mode = (uint8_t)((*mode & ~(3u << shift)) | MODE_RELEASE << shift);
    }
}

static void set_defaults(struct ps2_keyboard *k)
{
    k->set = 2;
    k->rate = DEFAULT_RATE;
    k->command = 0;
    k->queue.count = 0;
    default_modes(k);
    stop_repeating(k);
}

void ps2_keyboard_power_on(struct ps2_keyboard *k)
{
    k->answers = k->queue = (struct ps2_queue){0};
    k->last = 0;
    k->repeat_at = 0;
    set_defaults(k);
    k->enabled = 1;
    k->leds = 0;
    memset(k->down, 0, sizeof(k->down));
}

static void set_mode(struct ps2_keyboard *k, uint8_t set3, unsigned mode)
{
    unsigned shift = set3 % 4 * 2u;
    k->modes[set3 / 4] = (uint8_t)((k->modes[set3 / 4] & ~(3u << shift)) | mode << shift);
}

/* F7h-FAh and FBh-FDh: repeat; release; neither; both. */
static unsigned mode_by_command(uint8_t command)
{
    static const uint8_t modes[] = {MODE_REPEAT, MODE_RELEASE, 0, MODE_REPEAT | MODE_RELEASE,
                                    MODE_REPEAT, MODE_RELEASE, 0};
    return modes[command - CMD_ALL_FIRST];
}

static void choose_set(struct ps2_keyboard *k, uint8_t set)
{
    if (set > 3) {
        ps2_put1(&k->answers, PS2_RESEND);
        return;
    }
    ps2_put1(&k->answers, PS2_ACK);
    if (set == 0)
        ps2_put1(&k->answers, k->set);
    else
        k->set = set;
}

static void take_argument(struct ps2_keyboard *k, uint8_t command, uint8_t value)
{
    if (command == CMD_SET) {
        choose_set(k, value);
        return;
    }
    if (command == CMD_LEDS)
        k->leds = value & 7;
    else if (command == CMD_RATE)
        k->rate = value & 0x7f;
    else if (command > CMD_ALL_LAST && command <= CMD_ONE_LAST) /* a restored one may be any */
        set_mode(k, value, mode_by_command(command));
    ps2_put1(&k->answers, PS2_ACK);
}

static void take_command(struct ps2_keyboard *k, uint8_t value)
{
    static const uint8_t identity[] = {PS2_ACK, 0xab, 0x83};
    static const uint8_t reset[] = {PS2_ACK, PS2_SELF_TEST_OK};
    switch (value) {
    case CMD_ECHO:
        ps2_put1(&k->answers, PS2_ECHO);
        return;
    case PS2_RESEND:
        ps2_put1(&k->answers, k->last);
        return;
    case PS2_IDENTIFY:
        ps2_put(&k->answers, identity, sizeof(identity));
        return;
    case PS2_RESET:
        ps2_keyboard_power_on(k);
        ps2_put(&k->answers, reset, sizeof(reset));
        return;
    case PS2_ENABLE:
        k->queue.count = 0;
        k->enabled = 1;
        break;
    case PS2_DISABLE:
    case PS2_SET_DEFAULTS:
        set_defaults(k);
        k->enabled = value == PS2_SET_DEFAULTS;
        break;
    case CMD_LEDS:
    case CMD_RATE:
    case CMD_SET:
        k->command = value;
        break;
    default:
        if (value < CMD_ALL_FIRST || value > CMD_ONE_LAST) {
            ps2_put1(&k->answers, PS2_RESEND);
            return;
        }
        if (value > CMD_ALL_LAST)
            k->command = value;
        else
            memset(k->modes, (int)(0x55 * mode_by_command(value)), sizeof(k->modes));
    }
    ps2_put1(&k->answers, PS2_ACK);
}

/* Answers overtake scan codes, and take the place of answers that have not been fetched. An
 * argument with bit 7 is a command instead. */
void ps2_keyboard_write(struct ps2_keyboard *k, uint8_t byte)
{
    uint8_t command = k->command;
    k->command = 0;
    k->answers.count = 0;
    if (command && !(byte & 0x80))
        take_argument(k, command, byte);
    else
        take_command(k, byte);
    k->ready(k->opaque);
}

/* ---- Life ------------------------------------------------------------------------------------ */

void ps2_keyboard_init(struct ps2_keyboard *k, struct board *board, void (*ready)(void *opaque),
                       void *opaque)
{
    k->clock = board->clock;
    k->ready = ready;
    k->opaque = opaque;
    timer_init(&k->timer, board->queue, on_repeat, k);
}

void ps2_keyboard_restored(struct ps2_keyboard *k)
{
    if (k->repeats)
        timer_arm(&k->timer, k->repeat_at);
}
