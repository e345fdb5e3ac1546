/*
 * i8042.c - the keyboard controller with neither keyboard nor mouse plugged in: what is left is the
 * A20 gate, the reset pulse, and a controller that answers its self-tests, so that a system that
 * probes it finds an empty port at once instead of waiting for time-outs.
 *
 * Specified in the IBM PS/2 Technical Reference, keyboard and auxiliary device controller.
 */
#include "internal/chips.h"
#include <stdlib.h>

enum { STS_OBF = 1 << 0, STS_SYS = 1 << 2, STS_CMD = 1 << 3, STS_UNLOCKED = 1 << 4 };
enum { STS_TIMEOUT = 1 << 6 };
enum { MODE_KBD_INT = 1 << 0, MODE_SYS = 1 << 2, MODE_NO_KBD = 1 << 4, MODE_NO_AUX = 1 << 5 };
enum { OUT_NO_RESET = 1 << 0, OUT_A20 = 1 << 1 };

/* Commands, to port 64h. */
enum {
    CMD_READ_MODE = 0x20,
    CMD_WRITE_MODE = 0x60,
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
    CMD_PULSE = 0xf0,
};
enum { SELF_TEST_OK = 0x55, KBD_TEST_OK = 0x00, AUX_CLOCK_STUCK = 0x01, KEYBOARD_SILENT = 0xfe };

struct i8042 {
    struct device dev;
    struct board *board;
    struct irq_line irq1, a20;
    uint8_t status, mode, output, outport;
    uint8_t command; /* that waits for its data byte; 0: the next one is for the keyboard */
    int data_port, command_port;
};

static void i8042_update(struct i8042 *k)
{
    irq_set(&k->irq1, (k->status & STS_OBF) && (k->mode & MODE_KBD_INT));
}

/* The next byte for port 60h. */
static void answer(struct i8042 *k, uint8_t byte, uint8_t flags)
{
    k->output = byte;
    k->status = (uint8_t)((k->status & ~STS_TIMEOUT) | STS_OBF | flags);
}

static void write_outport(struct i8042 *k, uint8_t value)
{
    k->outport = value;
    irq_set(&k->a20, value & OUT_A20);
    if (!(value & OUT_NO_RESET))
        k->board->shutdown(k->board->machine, BOARD_RESET, 0);
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
        answer(k, k->mode, 0);
        break;
    case CMD_WRITE_MODE:
    case CMD_WRITE_OUTPUT:
    case CMD_WRITE_KBD_BUFFER:
    case CMD_WRITE_AUX_BUFFER:
    case CMD_WRITE_AUX:
        k->command = value;
        break;
    case CMD_AUX_DISABLE:
        k->mode |= MODE_NO_AUX;
        break;
    case CMD_AUX_ENABLE:
        k->mode &= (uint8_t)~MODE_NO_AUX;
        break;
    case CMD_AUX_TEST:
        answer(k, AUX_CLOCK_STUCK, 0);
        break;
    case CMD_SELF_TEST:
        k->mode |= MODE_SYS;
        k->status |= STS_SYS;
        answer(k, SELF_TEST_OK, 0);
        break;
    case CMD_KBD_TEST:
        answer(k, KBD_TEST_OK, 0);
        break;
    case CMD_KBD_DISABLE:
        k->mode |= MODE_NO_KBD;
        break;
    case CMD_KBD_ENABLE:
        k->mode &= (uint8_t)~MODE_NO_KBD;
        break;
    case CMD_READ_INPUT:
        answer(k, 0x80, 0); /* keyboard not locked */
        break;
    case CMD_READ_OUTPUT:
        answer(k, k->outport, 0);
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
    case CMD_WRITE_AUX_BUFFER: /* there is no auxiliary port: it comes back as from the keyboard */
        answer(k, value, 0);
        break;
    default: /* for a device that is not there: the controller gives up waiting for its clock */
        answer(k, KEYBOARD_SILENT, STS_TIMEOUT);
    }
}

static uint64_t data_read(void *opaque, const struct access *access, uint64_t offset, unsigned size)
{
    struct i8042 *k = opaque;
    (void)access, (void)offset, (void)size;
    k->status &= (uint8_t) ~(STS_OBF | STS_TIMEOUT);
    i8042_update(k);
    return k->output;
}

static void data_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                       uint64_t value)
{
    (void)access, (void)offset, (void)size;
    write_data(opaque, (uint8_t)value);
    i8042_update(opaque);
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
    i8042_update(opaque);
}

/* ---- Life ------------------------------------------------------------------------------------ */

static void i8042_reset(struct device *dev)
{
    struct i8042 *k = (struct i8042 *)dev;
    k->mode = MODE_KBD_INT | MODE_SYS;
    k->status = STS_SYS | STS_CMD | STS_UNLOCKED;
    k->outport = OUT_NO_RESET | OUT_A20;
    k->output = k->command = 0;
    irq_set(&k->a20, true);
    i8042_update(k);
}

static void i8042_destroy(struct device *dev)
{
    struct i8042 *k = (struct i8042 *)dev;
    io_remove(k->board->io, k->data_port);
    io_remove(k->board->io, k->command_port);
    free(k);
}

static const struct field i8042_fields[] = {
    FIELD(struct i8042, status, FIELD_U8, 1),  FIELD(struct i8042, mode, FIELD_U8, 1),
    FIELD(struct i8042, output, FIELD_U8, 1),  FIELD(struct i8042, outport, FIELD_U8, 1),
    FIELD(struct i8042, command, FIELD_U8, 1),
};
static const struct state_desc i8042_state = STATE_DESC("i8042", 1, i8042_fields);

static const struct io_ops data_ops = {data_read, data_write, 1, 1};
static const struct io_ops command_ops = {command_read, command_write, 1, 1};

struct i8042 *i8042_new(struct board *board, struct irq_line irq1, struct irq_line a20)
{
    struct i8042 *k = chip_alloc(sizeof(*k));
    k->dev = (struct device){
        .name = "i8042", .state = &i8042_state, .reset = i8042_reset, .destroy = i8042_destroy};
    k->board = board;
    k->irq1 = irq1;
    k->a20 = a20;
    k->data_port = io_add(board->io, 0x60, 1, &data_ops, k, "i8042 data");
    k->command_port = io_add(board->io, 0x64, 1, &command_ops, k, "i8042 command");
    i8042_reset(&k->dev);
    return k;
}
