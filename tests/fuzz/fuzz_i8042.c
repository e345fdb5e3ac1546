/*
 * fuzz_i8042.c - the PS/2 controller with keyboard and mouse between a hostile guest and clients
 * who press any keys, with restored states. Its interrupt lines must change when they are driven.
 */
#include "board.h"
#include "internal/input.h"

enum { STEPS = 500 };

static bool levels[3];

static void line_set(void *opaque, unsigned pin, bool level)
{
    (void)opaque;
    require(pin == 2 || levels[pin] != level);
    levels[pin] = level;
}

static void step(struct i8042 *chip, struct script *s)
{
    struct input *input = i8042_input(chip);
    struct error err;
    char keys[33] = "";
    unsigned op = (unsigned)take(s, 1);
    switch (op & 15) {
    case 0:
    case 1:
    case 2:
        io_write(board.io, &guest, 0x60, 1, (uint32_t)take(s, 1));
        break;
    case 3:
    case 4:
        io_write(board.io, &guest, 0x64, 1, (uint32_t)take(s, 1));
        break;
    case 5: /* to the mouse */
        io_write(board.io, &guest, 0x64, 1, 0xd4);
        io_write(board.io, &guest, 0x60, 1, (uint32_t)take(s, 1));
        break;
    case 6:
    case 7:
        io_read(board.io, &guest, 0x64, 1);
        io_read(board.io, &guest, 0x60, 1);
        break;
    case 8:
    case 9:
        input_key(input, (unsigned)take(s, 1), op & 16);
        break;
    case 10:
        input_motion(input, (int)(uint32_t)take(s, 4), (int)(uint32_t)take(s, 4),
                     (int)(uint32_t)take(s, 4));
        break;
    case 11:
        input_buttons(input, (unsigned)take(s, 1));
        break;
    case 12:
        for (unsigned i = 0, n = (unsigned)take(s, 1) % 32; i < n; i++)
            keys[i] = (char)take(s, 1);
        input_send_keys(input, keys, (unsigned)take(s, 2), &err);
        break;
    case 13:
        restore(chip_device(chip), s);
        break;
    case 14:
        if (op == 0xfe)
            chip_device(chip)->reset(chip_device(chip));
        break;
    case 15:
        advance(take(s, 3) << 8);
        break;
    }
    event_poll(board.queue);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct script s = {data, data + size};
    board_begin();
    memset(levels, 0, sizeof(levels));
    struct irq_line lines[3];
    for (unsigned i = 0; i < 3; i++)
        lines[i] = (struct irq_line){.set = line_set, .pin = i};
    struct i8042 *chip = i8042_new(&board, lines[0], lines[1], lines[2]);
    for (unsigned i = 0; i < STEPS && s.at < s.end; i++)
        step(chip, &s);
    /* Whatever has happened: who reads long enough has read everything. */
    for (unsigned i = 0; i < 2000 && io_read(board.io, &guest, 0x64, 1) & 1; i++)
        io_read(board.io, &guest, 0x60, 1);
    chip_device(chip)->destroy(chip_device(chip));
    board_end();
    return 0;
}
