/*
 * i8042.c - the PS/2 controller: keyboard and mouse at one end, ports 60h and 64h at the other, and
 * the A20 gate and the reset pulse, which found room in it.
 *
 * Specified in the IBM PS/2 Technical Reference, Keyboard and Auxiliary Device Controller. It holds
 * one byte for the guest at a time. A device's next byte comes when the guest has fetched the one
 * before, and the device's interface is enabled; the controller's own answers come first.
 */
#include "internal/chips.h"
#include "internal/input.h"
#include "ps2.h"
#include <stdlib.h>

enum {
    STS_OBF = 1 << 0,
    STS_SYS = 1 << 2,
    STS_CMD = 1 << 3,
    STS_UNLOCKED = 1 << 4,
    STS_AUX_OBF = 1 << 5,
};
enum {
    MODE_KBD_INT = 1 << 0,
    MODE_AUX_INT = 1 << 1,
    MODE_SYS = 1 << 2,
    MODE_NO_KBD = 1 << 4,
    MODE_NO_AUX = 1 << 5,
    MODE_TRANSLATE = 1 << 6,
};
enum { OUT_NO_RESET = 1 << 0, OUT_A20 = 1 << 1, OUT_OBF = 1 << 4, OUT_AUX_OBF = 1 << 5 };

/* Commands, to port 64h. */
enum {
    CMD_READ_MODE = 0x20,
    CMD_WRITE_MODE = 0x60,
    CMD_PASSWORD_TEST = 0xa4,
    CMD_AUX_DISABLE = 0xa7,
    CMD_AUX_ENABLE = 0xa8,
    CMD_AUX_TEST = 0xa9,
    CMD_SELF_TEST = 0xaa,
    CMD_KBD_TEST = 0xab,
    CMD_KBD_DISABLE = 0xad,
    CMD_KBD_ENABLE = 0xae,
    CMD_READ_INPUT = 0xc0,
    CMD_READ_OUTPUT = 0xd0,
    CMD_WRITE_OUTPUT = 0xd1,
    CMD_WRITE_KBD_BUFFER = 0xd2,
    CMD_WRITE_AUX_BUFFER = 0xd3,
    CMD_WRITE_AUX = 0xd4,
    CMD_A20_OFF = 0xdd,
    CMD_A20_ON = 0xdf,
    CMD_READ_TEST = 0xe0,
    CMD_PULSE = 0xf0,
};
enum { SELF_TEST_OK = 0x55, PORT_TEST_OK = 0x00, NO_PASSWORD = 0xf1, INPUT_UNLOCKED = 0x80 };
enum { SET2_RELEASE = 0xf0 };

/* Where the byte in the output buffer, or an answer that waits, comes from. */
enum source { FROM_KEYBOARD, FROM_AUX };

struct i8042 {
    struct device dev;
    struct board *board;
    struct irq_line irq1, irq12, a20;
    uint8_t status, mode, output, outport;
    uint8_t command; /* that waits for its data byte; 0: the next one is for the keyboard */
    uint8_t answers; /* the controller's own, which wait for the buffer: 0 or 1 */
    uint8_t answer, answer_source;
    uint8_t releasing; /* translation has swallowed the release prefix of set 2 */
    struct ps2_keyboard keyboard;
    struct ps2_mouse mouse;
    struct input *input;
    bool irq_level[2]; /* as driven */
    int data_port, command_port;
};

/* ---- The output buffer ----------------------------------------------------------------------- */

static void drive(struct i8042 *k, unsigned which, bool level)
{
    if (k->irq_level[which] == level)
        return;
    k->irq_level[which] = level;
    irq_set(which ? &k->irq12 : &k->irq1, level);
}

static void update_lines(struct i8042 *k)
{
    bool full = k->status & STS_OBF, aux = k->status & STS_AUX_OBF;
    drive(k, 0, full && !aux && k->mode & MODE_KBD_INT);
    drive(k, 1, full && aux && k->mode & MODE_AUX_INT);
}

static void fill(struct i8042 *k, uint8_t byte, enum source source)
{
    k->output = byte;
    k->status |= STS_OBF;
    if (source == FROM_AUX)
        k->status |= STS_AUX_OBF;
    else
        k->status &= (uint8_t)~STS_AUX_OBF;
}

/* The keyboard's next byte as the guest is to see it; prefixes vanish. */
static bool take_keyboard(struct i8042 *k, uint8_t *byte)
{
    while (ps2_keyboard_take(&k->keyboard, byte)) {
        if (!(k->mode & MODE_TRANSLATE))
            return true;
        if (*byte == SET2_RELEASE) {
            k->releasing = 1;
            continue;
        }
        *byte = ps2_translate(*byte) | (k->releasing ? 0x80 : 0);
        k->releasing = 0;
        return true;
    }
    return false;
}

/* Puts the next byte that there is into the buffer, once it is empty. */
static void refill(struct i8042 *k)
{
    uint8_t byte;
    if (!(k->status & STS_OBF)) {
        if (k->answers) {
            k->answers = 0;
            fill(k, k->answer, k->answer_source);
        } else if (!(k->mode & MODE_NO_KBD) && take_keyboard(k, &byte)) {
            fill(k, byte, FROM_KEYBOARD);
        } else if (!(k->mode & MODE_NO_AUX) && ps2_mouse_take(&k->mouse, &byte)) {
            fill(k, byte, FROM_AUX);
        }
    }
    update_lines(k);
}

static void device_ready(void *opaque)
{
    refill(opaque);
}

/* The controller's own. */
static void answer(struct i8042 *k, uint8_t byte, enum source source)
{
    k->answers = 1;
    k->answer = byte;
    k->answer_source = source;
}

/* ---- Commands -------------------------------------------------------------------------------- */

static void write_outport(struct i8042 *k, uint8_t value)
{
    k->outport = value & (uint8_t) ~(OUT_OBF | OUT_AUX_OBF);
    irq_set(&k->a20, value & OUT_A20);
    if (!(value & OUT_NO_RESET))
        k->board->shutdown(k->board->machine, BOARD_RESET, 0);
}

/* Two of its bits are wires from the buffer. */
static uint8_t read_outport(const struct i8042 *k)
{
    unsigned full = k->status & STS_OBF, aux = k->status & STS_AUX_OBF;
    return (uint8_t)(k->outport | (full ? aux ? OUT_AUX_OBF : OUT_OBF : 0));
}

static void write_mode(struct i8042 *k, uint8_t value)
{
    k->mode = value;
    k->status = (uint8_t)((k->status & ~STS_SYS) | (value & MODE_SYS));
}

static void write_command(struct i8042 *k, uint8_t value)
{
    k->status |= STS_CMD;
    k->command = 0;
    switch (value) {
    case CMD_READ_MODE:
        answer(k, k->mode, FROM_KEYBOARD);
        break;
    case CMD_WRITE_MODE:
    case CMD_WRITE_OUTPUT:
    case CMD_WRITE_KBD_BUFFER:
    case CMD_WRITE_AUX_BUFFER:
    case CMD_WRITE_AUX:
        k->command = value;
        break;
    case CMD_PASSWORD_TEST:
        answer(k, NO_PASSWORD, FROM_KEYBOARD);
        break;
    case CMD_AUX_DISABLE:
        k->mode |= MODE_NO_AUX;
        break;
    case CMD_AUX_ENABLE:
        k->mode &= (uint8_t)~MODE_NO_AUX;
        break;
    case CMD_SELF_TEST:
        k->mode |= MODE_SYS;
        k->status |= STS_SYS;
        answer(k, SELF_TEST_OK, FROM_KEYBOARD);
        break;
    case CMD_AUX_TEST:
    case CMD_KBD_TEST:
        answer(k, PORT_TEST_OK, FROM_KEYBOARD);
        break;
    case CMD_KBD_DISABLE:
        k->mode |= MODE_NO_KBD;
        break;
    case CMD_KBD_ENABLE:
        k->mode &= (uint8_t)~MODE_NO_KBD;
        break;
    case CMD_READ_INPUT:
        answer(k, INPUT_UNLOCKED, FROM_KEYBOARD);
        break;
    case CMD_READ_OUTPUT:
        answer(k, read_outport(k), FROM_KEYBOARD);
        break;
    case CMD_READ_TEST: /* the clock lines, low while an interface is disabled */
        answer(k, (uint8_t)((k->mode & MODE_NO_KBD ? 0 : 1) | (k->mode & MODE_NO_AUX ? 0 : 2)),
               FROM_KEYBOARD);
        break;
    case CMD_A20_OFF:
        write_outport(k, k->outport & (uint8_t)~OUT_A20);
        break;
    case CMD_A20_ON:
        write_outport(k, k->outport | OUT_A20);
        break;
    default: /* F0h-FFh pulse the output bits that are 0; only bit 0, the reset, is wired */
        if (value >= CMD_PULSE && !(value & OUT_NO_RESET))
            k->board->shutdown(k->board->machine, BOARD_RESET, 0);
    }
}

static void write_data(struct i8042 *k, uint8_t value)
{
    uint8_t command = k->command;
    k->status &= (uint8_t)~STS_CMD;
    k->command = 0;
    switch (command) {
    case CMD_WRITE_MODE:
        write_mode(k, value);
        break;
    case CMD_WRITE_OUTPUT:
        write_outport(k, value);
        break;
    case CMD_WRITE_KBD_BUFFER:
        answer(k, value, FROM_KEYBOARD);
        break;
    case CMD_WRITE_AUX_BUFFER:
        answer(k, value, FROM_AUX);
        break;
    case CMD_WRITE_AUX: /* a byte to a device enables its interface, or it could not answer */
        k->mode &= (uint8_t)~MODE_NO_AUX;
        ps2_mouse_write(&k->mouse, value);
        break;
    default:
        k->mode &= (uint8_t)~MODE_NO_KBD;
        k->releasing = 0;
        ps2_keyboard_write(&k->keyboard, value);
    }
}

/* ---- Ports ----------------------------------------------------------------------------------- */

static uint64_t data_read(void *opaque, const struct access *access, uint64_t offset, unsigned size)
{
    struct i8042 *k = opaque;
    (void)access, (void)offset, (void)size;
    uint8_t value = k->output;
    k->status &= (uint8_t) ~(STS_OBF | STS_AUX_OBF);
    update_lines(k); /* low for a moment: the next byte is a new edge */
    refill(k);
    return value;
}

static void data_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                       uint64_t value)
{
    (void)access, (void)offset, (void)size;
    write_data(opaque, (uint8_t)value);
    refill(opaque);
}

static uint64_t command_read(void *opaque, const struct access *access, uint64_t offset,
                             unsigned size)
{
    struct i8042 *k = opaque;
    (void)access, (void)offset, (void)size;
    return k->status;
}

static void command_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                          uint64_t value)
{
    (void)access, (void)offset, (void)size;
    write_command(opaque, (uint8_t)value);
    refill(opaque);
}

/* ---- Input ----------------------------------------------------------------------------------- */

static void on_key(void *opaque, unsigned code, bool down)
{
    ps2_keyboard_key(&((struct i8042 *)opaque)->keyboard, code, down);
}

static void on_motion(void *opaque, int dx, int dy, int wheel)
{
    ps2_mouse_motion(&((struct i8042 *)opaque)->mouse, dx, dy, wheel);
}

static void on_buttons(void *opaque, unsigned buttons)
{
    ps2_mouse_buttons(&((struct i8042 *)opaque)->mouse, buttons);
}

struct input *i8042_input(struct i8042 *k)
{
    return k->input;
}

/* ---- Life ------------------------------------------------------------------------------------ */

/* As a BIOS leaves it behind, translating: machines that start without one find the same. */
static void i8042_reset(struct device *dev)
{
    struct i8042 *k = (struct i8042 *)dev;
    input_reset(k->input);
    ps2_keyboard_power_on(&k->keyboard);
    k->mouse.buttons = 0;
    ps2_mouse_power_on(&k->mouse);
    k->mode = MODE_KBD_INT | MODE_SYS | MODE_TRANSLATE;
    k->status = STS_SYS | STS_CMD | STS_UNLOCKED;
    k->outport = OUT_NO_RESET | OUT_A20;
    k->output = k->command = k->answers = k->answer = k->answer_source = k->releasing = 0;
    irq_set(&k->a20, true);
    update_lines(k);
}

static void i8042_restored(struct device *dev)
{
    struct i8042 *k = (struct i8042 *)dev;
    ps2_keyboard_restored(&k->keyboard);
    irq_set(&k->a20, k->outport & OUT_A20);
    refill(k);
}

static void i8042_destroy(struct device *dev)
{
    struct i8042 *k = (struct i8042 *)dev;
    timer_cancel(&k->keyboard.timer);
    input_free(k->input);
    io_remove(k->board->io, k->data_port);
    io_remove(k->board->io, k->command_port);
    free(k);
}

static const struct field i8042_fields[] = {
    FIELD(struct i8042, status, FIELD_U8, 1),    FIELD(struct i8042, mode, FIELD_U8, 1),
    FIELD(struct i8042, output, FIELD_U8, 1),    FIELD(struct i8042, outport, FIELD_U8, 1),
    FIELD(struct i8042, command, FIELD_U8, 1),   FIELD(struct i8042, answers, FIELD_U8, 1),
    FIELD(struct i8042, answer, FIELD_U8, 1),    FIELD(struct i8042, answer_source, FIELD_U8, 1),
    FIELD(struct i8042, releasing, FIELD_U8, 1), PS2_KEYBOARD_FIELDS(struct i8042, keyboard),
    PS2_MOUSE_FIELDS(struct i8042, mouse),
};
static const struct state_desc i8042_state = STATE_DESC("i8042", 1, i8042_fields);

static const struct io_ops data_ops = {data_read, data_write, 1, 1};
static const struct io_ops command_ops = {command_read, command_write, 1, 1};

struct i8042 *i8042_new(struct board *board, struct irq_line irq1, struct irq_line irq12,
                        struct irq_line a20)
{
    struct i8042 *k = chip_alloc(sizeof(*k));
    const struct input_sink sink = {
        .opaque = k, .key = on_key, .motion = on_motion, .buttons = on_buttons};
    k->dev = (struct device){.name = "i8042",
                             .state = &i8042_state,
                             .reset = i8042_reset,
                             .destroy = i8042_destroy,
                             .restored = i8042_restored};
    k->board = board;
    k->irq1 = irq1;
    k->irq12 = irq12;
    k->a20 = a20;
    ps2_keyboard_init(&k->keyboard, board, device_ready, k);
    k->mouse.ready = device_ready;
    k->mouse.opaque = k;
    k->input = input_new(board, &sink);
    k->data_port = io_add(board->io, 0x60, 1, &data_ops, k, "i8042 data");
    k->command_port = io_add(board->io, 0x64, 1, &command_ops, k, "i8042 command");
    i8042_reset(&k->dev);
    return k;
}
