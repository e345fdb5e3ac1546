/*
 * ps2_mouse.c - a mouse with three buttons, with a wheel and two more for those who know how to
 * ask.
 *
 * IBM PS/2 Hardware Interface Technical Reference, Mouse. The wheel: Microsoft's IntelliMouse; five
 * buttons: IntelliMouse Explorer.
 *
 *     byte 0   Y overflow, X overflow, Y sign, X sign, 1, middle, right, left
 *     byte 1   X, to the right
 *     byte 2   Y, up
 *     byte 3   id 3: wheel, towards the user; id 4: 0, 0, button 5, button 4, wheel in 4 bits
 */
#include "ps2.h"
#include <string.h>

enum {
    CMD_SCALE_1 = 0xe6,
    CMD_SCALE_2 = 0xe7,
    CMD_RESOLUTION = 0xe8,
    CMD_STATUS = 0xe9,
    CMD_STREAM = 0xea,
    CMD_READ = 0xeb,
    CMD_UNWRAP = 0xec,
    CMD_WRAP = 0xee,
    CMD_REMOTE = 0xf0,
    CMD_RATE = 0xf3,
};
enum { PACKETS_KEPT = 4 /* in the queue; more motion is added up until there is room */ };
enum { ID_WHEEL = 3, ID_BUTTONS = 4 };

/* ---- Packets --------------------------------------------------------------------------------- */

static int limited(uint32_t *count, int low, int high)
{
    int value = (int)*count;
    value = value < low ? low : value > high ? high : value;
    *count -= (uint32_t)value;
    return value;
}

/* 2:1 makes small motion finer and large one twice as large; in stream mode only. */
static int scale(const struct ps2_mouse *m, int value)
{
    static const uint8_t small[] = {0, 1, 1, 3, 6, 9};
    int size = value < 0 ? -value : value;
    if (!m->scaled || m->remote)
        return value;
    size = size < 6 ? small[size] : 2 * size;
    return value < 0 ? -size : size;
}

static void put_packet(struct ps2_mouse *m)
{
    int dx = scale(m, limited(&m->dx, -127, 127)), dy = scale(m, limited(&m->dy, -127, 127));
    uint8_t packet[4] = {(uint8_t)(8 | (m->buttons & 7) | (dx < 0) << 4 | (dy < 0) << 5),
                         (uint8_t)dx, (uint8_t)dy};
    if (m->id == ID_WHEEL)
        packet[3] = (uint8_t)limited(&m->dz, -127, 127);
    if (m->id == ID_BUTTONS)
        packet[3] = (uint8_t)((limited(&m->dz, -7, 7) & 15) | (m->buttons & 0x18) << 1);
    m->reported_buttons = m->buttons;
    ps2_put(&m->queue, packet, m->id ? 4 : 3);
}

static bool has_news(const struct ps2_mouse *m)
{
    return m->dx || m->dy || (m->dz && m->id) || m->buttons != m->reported_buttons;
}

static void fill_queue(struct ps2_mouse *m)
{
    while (m->enabled && !m->remote && !m->wrap && has_news(m) &&
           m->queue.count <= 4 * (PACKETS_KEPT - 1))
        put_packet(m);
}

static void news(struct ps2_mouse *m)
{
    fill_queue(m);
    m->ready(m->opaque);
}

/* There is room for what has been kept back. */
bool ps2_mouse_take(struct ps2_mouse *m, uint8_t *byte)
{
    if (!ps2_take(&m->queue, byte))
        return false;
    m->last = *byte;
    fill_queue(m);
    return true;
}

/* Counters stop far away from where they would wrap. */
static void add(uint32_t *count, int value)
{
    int64_t sum = (int64_t)(int32_t)*count + value;
    *count = (uint32_t)(sum > 1 << 20 ? 1 << 20 : sum < -(1 << 20) ? -(1 << 20) : sum);
}

void ps2_mouse_motion(struct ps2_mouse *m, int dx, int dy, int wheel)
{
    if (!m->enabled && !m->remote)
        return;
    add(&m->dx, dx);
    add(&m->dy, dy == INT32_MIN ? INT32_MAX : -dy);
    if (m->id)
        add(&m->dz, wheel);
    news(m);
}

void ps2_mouse_buttons(struct ps2_mouse *m, unsigned buttons)
{
    m->buttons = buttons & 0x1f;
    news(m);
}

/* ---- Commands -------------------------------------------------------------------------------- */

static void forget_motion(struct ps2_mouse *m)
{
    m->dx = m->dy = m->dz = 0;
    m->reported_buttons = m->buttons;
}

static void set_defaults(struct ps2_mouse *m)
{
    m->enabled = m->remote = m->wrap = m->scaled = m->command = 0;
    m->resolution = 2;
    m->rate = 100;
    m->queue.count = 0;
    forget_motion(m);
}

void ps2_mouse_power_on(struct ps2_mouse *m)
{
    set_defaults(m);
    m->queue = (struct ps2_queue){0};
    m->last = m->id = m->knock = m->knock_before = 0;
}

/* Rates 200, 100, 80 ask for the wheel, 200, 200, 80 for five buttons, after the wheel or at once.
 */
static void set_rate(struct ps2_mouse *m, uint8_t rate)
{
    if (m->knock_before == 200 && m->knock == 100 && rate == 80)
        m->id = ID_WHEEL;
    else if (m->knock_before == 200 && m->knock == 200 && rate == 80)
        m->id = ID_BUTTONS;
    m->knock_before = m->knock;
    m->knock = m->rate = rate;
}

static void put_status(struct ps2_mouse *m)
{
    unsigned b = m->buttons;
    const uint8_t status[] = {PS2_ACK,
                              (uint8_t)(m->remote << 6 | m->enabled << 5 | m->scaled << 4 |
                                        (b & INPUT_LEFT ? 4 : 0) | (b & INPUT_MIDDLE ? 2 : 0) |
                                        (b & INPUT_RIGHT ? 1 : 0)),
                              m->resolution, m->rate};
    ps2_put(&m->queue, status, sizeof(status));
}

static void take_argument(struct ps2_mouse *m, uint8_t command, uint8_t value)
{
    if (command == CMD_RATE)
        set_rate(m, value);
    else
        m->resolution = value & 3;
    ps2_put1(&m->queue, PS2_ACK);
}

static void take_command(struct ps2_mouse *m, uint8_t value)
{
    const uint8_t identity[] = {PS2_ACK, m->id}, reset[] = {PS2_ACK, PS2_SELF_TEST_OK, 0};
    bool known = true;
    switch (value) {
    case CMD_SCALE_1:
    case CMD_SCALE_2:
        m->scaled = value == CMD_SCALE_2;
        break;
    case CMD_STREAM:
    case CMD_REMOTE:
        m->remote = value == CMD_REMOTE;
        forget_motion(m);
        break;
    case CMD_WRAP:
    case CMD_UNWRAP:
        m->wrap = value == CMD_WRAP;
        break;
    case CMD_RESOLUTION:
    case CMD_RATE:
        m->command = value;
        break;
    case PS2_ENABLE:
    case PS2_DISABLE:
        m->enabled = value == PS2_ENABLE;
        forget_motion(m);
        break;
    case PS2_SET_DEFAULTS:
        set_defaults(m);
        break;
    case CMD_STATUS:
        put_status(m);
        return;
    case CMD_READ:
        ps2_put1(&m->queue, PS2_ACK);
        put_packet(m);
        return;
    case PS2_IDENTIFY:
        ps2_put(&m->queue, identity, sizeof(identity));
        return;
    case PS2_RESET:
        ps2_mouse_power_on(m);
        ps2_put(&m->queue, reset, sizeof(reset));
        return;
    case PS2_RESEND:
        ps2_put1(&m->queue, m->last);
        return;
    default:
        known = false;
    }
    ps2_put1(&m->queue, known ? PS2_ACK : PS2_RESEND);
}

/* A byte from the controller takes the place of what has not been fetched. */
void ps2_mouse_write(struct ps2_mouse *m, uint8_t byte)
{
    uint8_t command = m->command;
    m->command = 0;
    m->queue.count = 0;
    if (command)
        take_argument(m, command, byte);
    else if (m->wrap && byte != CMD_UNWRAP && byte != PS2_RESET)
        ps2_put1(&m->queue, byte);
    else
        take_command(m, byte);
    m->ready(m->opaque);
}
