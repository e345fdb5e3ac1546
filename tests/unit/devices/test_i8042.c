/*
 * test_i8042.c - the PS/2 controller with its keyboard and mouse, from the guest's ports and from
 * those who press keys.
 */
#include "bench.h"
#include "internal/error.h"
#include "internal/input.h"

static struct probe irq1, irq12, a20;
static struct i8042 *chip;
static struct input *input;

static void begin(void)
{
    irq1 = irq12 = a20 = (struct probe){0};
    chip = i8042_new(bench_setup(), probe_line(&irq1), probe_line(&irq12), probe_line(&a20));
    input = i8042_input(chip);
}

static uint8_t command(uint8_t value)
{
    out8(0x64, value);
    ck_assert_uint_eq(in8(0x64) & 1, 1);
    return in8(0x60);
}
static void mode(uint8_t value)
{
    out8(0x64, 0x60);
    out8(0x60, value);
}
static bool full(void)
{
    return in8(0x64) & 1;
}
/* Everything that waits is exactly this, from the keyboard or the mouse. */
static void expect(bool aux, const char *hex)
{
    for (const char *at = hex; *at; at += at[2] ? 3 : 2) {
        uint8_t status = in8(0x64);
        ck_assert_msg(status & 1, "nothing where %s should be", at);
        ck_assert_uint_eq(status >> 5 & 1, aux);
        unsigned byte = in8(0x60), want = (unsigned)strtoul(at, NULL, 16);
        ck_assert_msg(byte == want, "%02x where %s should be", byte, at);
    }
    ck_assert(!full());
}
static void tell_keyboard(uint8_t value, const char *hex)
{
    out8(0x60, value);
    expect(false, hex);
}
static void tell_mouse(uint8_t value, const char *hex)
{
    out8(0x64, 0xd4);
    out8(0x60, value);
    expect(true, hex);
}
static void press(const char *name, bool down)
{
    const struct input_key *key = input_key_by_name(name, strlen(name));
    ck_assert_ptr_nonnull(key);
    ck_assert(input_key(input, key->code, down));
}

START_TEST(controller)
{
    begin();
    ck_assert_uint_eq(in8(0x64) & 3, 0);
    ck_assert_uint_eq(command(0xaa), 0x55);
    ck_assert_uint_eq(command(0xab), 0x00);
    ck_assert_uint_eq(command(0xa9), 0x00);
    ck_assert_uint_eq(command(0xa4), 0xf1);
    ck_assert_uint_eq(command(0xc0), 0x80);
    mode(0x44);
    ck_assert_uint_eq(command(0x20), 0x44);
    out8(0x64, 0xad);
    out8(0x64, 0xa7);
    ck_assert_uint_eq(command(0x20), 0x74);
    ck_assert_uint_eq(command(0xe0), 0);
    out8(0x64, 0xae);
    out8(0x64, 0xa8);
    ck_assert_uint_eq(command(0x20), 0x44);
    out8(0x64, 0xd2), out8(0x60, 0x5a);
    expect(false, "5a");
    out8(0x64, 0xd3), out8(0x60, 0xa5);
    expect(true, "a5");
    bench_destroy(chip);
}
END_TEST

START_TEST(a20_and_reset)
{
    begin();
    ck_assert(a20.level);
    ck_assert_uint_eq(command(0xd0) & 0x33, 3);
    out8(0x64, 0xd1), out8(0x60, 0x01);
    ck_assert(!a20.level);
    out8(0x64, 0xdf);
    ck_assert(a20.level);
    out8(0x64, 0xdd);
    ck_assert(!a20.level);
    ck_assert_uint_eq(bench.shutdowns, 0);
    out8(0x64, 0xff); /* pulses nothing */
    ck_assert_uint_eq(bench.shutdowns, 0);
    out8(0x64, 0xfe);
    ck_assert_uint_eq(bench.shutdowns, 1);
    ck_assert_int_eq(bench.shutdown_what, BOARD_RESET);
    out8(0x64, 0xd1), out8(0x60, 0x02);
    ck_assert_uint_eq(bench.shutdowns, 2);
    for (unsigned c = 0; c < 256; c++) { /* any command ends with the controller ready */
        out8(0x64, (uint8_t)c);
        in8(0x60);
        ck_assert_uint_eq(in8(0x64) & 2, 0);
    }
    bench_destroy(chip);
}
END_TEST

START_TEST(interrupts_are_edges)
{
    begin();
    mode(0x47);
    press("a", true); /* two keys wait: two edges */
    press("a", false);
    ck_assert_uint_eq(irq1.rises, 1);
    ck_assert_uint_eq(in8(0x60), 0x1e);
    ck_assert_uint_eq(irq1.rises, 2);
    ck_assert_uint_eq(in8(0x60), 0x9e);
    ck_assert(!irq1.level);
    ck_assert_uint_eq(irq12.rises, 0);
    out8(0x64, 0xd4), out8(0x60, 0xf2);
    ck_assert_uint_eq(irq12.rises, 1);
    expect(true, "fa 00");
    ck_assert_uint_eq(irq12.rises, 2);
    mode(0x44);
    press("a", true);
    ck_assert(full());
    ck_assert(!irq1.level);
    mode(0x45); /* the byte was there already */
    ck_assert(irq1.level);
    bench_destroy(chip);
}
END_TEST

START_TEST(scan_codes)
{
    static const struct {
        const char *key, *set1, *set2, *set3;
    } rows[] = {
        {"a", "1e 9e", "1c f0 1c", "1c f0 1c"},
        {"f7", "41 c1", "83 f0 83", "37 f0 37"},
        {"right", "e0 4d e0 cd", "e0 74 e0 f0 74", "6a f0 6a"},
        {"ctrl_r", "e0 1d e0 9d", "e0 14 e0 f0 14", "58 f0 58"},
        {"kp_divide", "e0 35 e0 b5", "e0 4a e0 f0 4a", "77 f0 77"},
        {"meta_l", "e0 5b e0 db", "e0 1f e0 f0 1f", "8b f0 8b"},
        {"print", "e0 2a e0 37 e0 b7 e0 aa", "e0 12 e0 7c e0 f0 7c e0 f0 12", "57 f0 57"},
        {"pause", "e1 1d 45 e1 9d c5", "e1 14 77 e1 f0 14 f0 77", "62 f0 62"},
        {"less", "56 d6", "61 f0 61", "13 f0 13"},
        {"0xc8", "e0 48 e0 c8", "e0 75 e0 f0 75", "63 f0 63"}, /* up */
    };
    struct error err;
    begin();
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        for (unsigned set = 0; set < 4; set++) { /* 0: set 2, translated */
            mode(set ? 0x04 : 0x44);
            out8(0x60, 0xf0), in8(0x60);
            tell_keyboard((uint8_t)(set ? set : 2), "fa");
            if (set == 3)
                tell_keyboard(0xf8, "fa"); /* all with release codes */
            ck_assert(input_send_keys(input, rows[i].key, 0, &err));
            bench_advance(200000000);
            expect(false, set == 2 ? rows[i].set2 : set == 3 ? rows[i].set3 : rows[i].set1);
        }
    }
    bench_destroy(chip);
}
END_TEST

START_TEST(print_and_pause_with_others)
{
    begin();
    press("alt", true);
    press("print", true);
    press("print", false);
    press("alt", false);
    expect(false, "38 54 d4 b8");
    press("ctrl", true);
    press("pause", true);
    press("pause", false);
    press("ctrl", false);
    expect(false, "1d e0 46 e0 c6 9d");
    press("shift", true);
    press("print", true);
    press("print", false);
    press("shift", false);
    expect(false, "2a e0 37 e0 b7 aa");
    bench_destroy(chip);
}
END_TEST

START_TEST(keyboard_commands)
{
    begin();
    mode(0x04);
    tell_keyboard(0xff, "fa aa");
    tell_keyboard(0xf2, "fa ab 83");
    tell_keyboard(0xee, "ee");
    tell_keyboard(0xed, "fa");
    tell_keyboard(0x05, "fa");
    tell_keyboard(0xf0, "fa");
    tell_keyboard(0x00, "fa 02");
    tell_keyboard(0xfe, "02"); /* the last byte again */
    tell_keyboard(0xf0, "fa");
    tell_keyboard(0x04, "fe");
    tell_keyboard(0x12, "fe"); /* no command */
    tell_keyboard(0xed, "fa");
    tell_keyboard(0xf2, "fa ab 83"); /* a command instead of the argument */
    tell_keyboard(0xf5, "fa");
    press("a", true);
    press("a", false);
    expect(false, "");
    tell_keyboard(0xf4, "fa");
    press("a", true);
    expect(false, "1c");
    tell_keyboard(0xf6, "fa");
    mode(0x44); /* the identity, translated */
    tell_keyboard(0xf2, "fa ab 41");
    bench_destroy(chip);
}
END_TEST

START_TEST(answers_overtake_keys)
{
    begin();
    out8(0x64, 0xad); /* the interface is off: keys wait in the keyboard */
    press("a", true);
    press("a", false);
    ck_assert(!full());
    out8(0x60, 0xf2); /* which also turns it on */
    expect(false, "fa ab 41 1e 9e");
    bench_destroy(chip);
}
END_TEST

START_TEST(overrun)
{
    begin();
    out8(0x64, 0xad);
    for (unsigned i = 0; i < 20; i++) {
        press("f1", true);
        press("f1", false);
    }
    out8(0x64, 0xae);
    /* five keys of three bytes, a make code; then no room for a release */
    expect(false, "3b bb 3b bb 3b bb 3b bb 3b bb 3b");
    press("a", true);
    expect(false, "1e");
    bench_destroy(chip);
}
END_TEST

START_TEST(typematic)
{
    begin();
    press("a", true);
    expect(false, "1e");
    bench_advance(499000000);
    expect(false, "");
    bench_advance(2000000);
    expect(false, "1e");
    bench_advance(91000000); /* 10.9 a second */
    expect(false, "");
    bench_advance(2000000);
    expect(false, "1e");
    press("b", true); /* the last one repeats */
    expect(false, "30");
    bench_advance(501000000);
    expect(false, "30");
    press("b", false);
    expect(false, "b0");
    bench_advance(1000000000);
    expect(false, "");
    tell_keyboard(0xf3, "fa");
    tell_keyboard(0x00, "fa"); /* a quarter of a second, then 30 a second */
    press("c", true);
    expect(false, "2e");
    bench_advance(251000000);
    expect(false, "2e");
    bench_advance(34000000);
    expect(false, "2e");
    bench_advance(1000000000); /* nobody reads: they do not pile up */
    expect(false, "2e 2e");
    bench_destroy(chip);
}
END_TEST

START_TEST(modes_of_set_3)
{
    begin();
    mode(0x04);
    tell_keyboard(0xf0, "fa");
    tell_keyboard(0x03, "fa");
    press("a", true), press("a", false);
    press("shift", true), press("shift", false);
    expect(false, "1c 12 f0 12");
    tell_keyboard(0xfc, "fa"); /* this one: with release */
    tell_keyboard(0x1c, "fa");
    press("a", true), press("a", false);
    expect(false, "1c f0 1c");
    press("esc", true); /* alone */
    expect(false, "08");
    bench_advance(2000000000);
    expect(false, "");
    bench_destroy(chip);
}
END_TEST

START_TEST(mouse_commands)
{
    begin();
    tell_mouse(0xff, "fa aa 00");
    tell_mouse(0xf2, "fa 00");
    tell_mouse(0xe9, "fa 00 02 64");
    tell_mouse(0xe8, "fa");
    tell_mouse(0x03, "fa");
    tell_mouse(0xe7, "fa");
    tell_mouse(0xf4, "fa");
    input_buttons(input, INPUT_RIGHT | INPUT_MIDDLE);
    expect(true, "0e 00 00");
    tell_mouse(0xe9, "fa 33 03 64");
    tell_mouse(0x99, "fe");
    tell_mouse(0xfe, "fe");
    tell_mouse(0xee, "fa");
    tell_mouse(0xf2, "f2"); /* wrapped */
    tell_mouse(0xec, "fa");
    tell_mouse(0xf6, "fa");
    tell_mouse(0xe9, "fa 03 02 64");
    bench_destroy(chip);
}
END_TEST

START_TEST(mouse_packets)
{
    begin();
    input_motion(input, 1, 1, 0); /* not enabled */
    expect(true, "");
    tell_mouse(0xf4, "fa");
    input_motion(input, 5, 3, 0);
    expect(true, "28 05 fd"); /* down is negative */
    input_motion(input, -1, -2, 7);
    expect(true, "18 ff 02");
    input_buttons(input, INPUT_LEFT);
    input_buttons(input, 0);
    expect(true, "09 00 00 08 00 00");
    input_motion(input, 200, 0, 0);
    expect(true, "08 7f 00 08 49 00");
    for (unsigned i = 0; i < 1000; i++) /* nobody reads: it adds up */
        input_motion(input, 1, 0, 0);
    unsigned sum = 0;
    while (full()) {
        in8(0x60);
        sum += in8(0x60);
        in8(0x60);
    }
    ck_assert_uint_eq(sum, 1000);
    input_motion(input, INT32_MIN, INT32_MIN, INT32_MIN);
    input_motion(input, INT32_MIN, INT32_MIN, INT32_MIN);
    tell_mouse(0xf5, "18 fa"); /* the controller had fetched one before the command */
    bench_destroy(chip);
}
END_TEST

START_TEST(mouse_remote_and_scaling)
{
    begin();
    tell_mouse(0xf0, "fa");
    input_motion(input, 4, 0, 0);
    expect(true, "");
    tell_mouse(0xeb, "fa 08 04 00");
    tell_mouse(0xeb, "fa 08 00 00");
    tell_mouse(0xea, "fa");
    tell_mouse(0xe7, "fa");
    tell_mouse(0xf4, "fa");
    input_motion(input, 3, 0, 0);
    expect(true, "08 03 00");
    input_motion(input, 4, -5, 0);
    expect(true, "08 06 09");
    input_motion(input, 10, 0, 0);
    expect(true, "08 14 00");
    bench_destroy(chip);
}
END_TEST

static void rate(uint8_t value)
{
    tell_mouse(0xf3, "fa");
    tell_mouse(value, "fa");
}

START_TEST(mouse_wheel)
{
    begin();
    rate(200), rate(100), rate(80);
    tell_mouse(0xf2, "fa 03");
    tell_mouse(0xf4, "fa");
    input_motion(input, 0, 0, -1);
    expect(true, "08 00 00 ff");
    rate(200), rate(200), rate(80);
    tell_mouse(0xf2, "fa 04");
    input_buttons(input, INPUT_SIDE);
    expect(true, "08 00 00 10");
    input_motion(input, 0, 0, 2);
    expect(true, "08 00 00 12");
    tell_mouse(0xff, "fa aa 00");
    tell_mouse(0xf2, "fa 00");
    bench_destroy(chip);
}
END_TEST

START_TEST(mouse_can_be_disabled)
{
    begin();
    tell_mouse(0xf4, "fa");
    out8(0x64, 0xa7);
    input_motion(input, 1, 0, 0);
    ck_assert(!full());
    press("a", true);
    expect(false, "1e");
    out8(0x64, 0xa8);
    expect(true, "08 01 00");
    bench_destroy(chip);
}
END_TEST

START_TEST(keys_by_name)
{
    struct error err = {""};
    begin();
    ck_assert(input_send_keys(input, "ctrl-alt-delete", 0, &err));
    expect(false, "1d 38 e0 53");
    bench_advance(99000000);
    expect(false, "");
    bench_advance(2000000);
    expect(false, "e0 d3 b8 9d");
    ck_assert(input_send_keys(input, "shift-a", 1000, &err));
    ck_assert(input_send_keys(input, "ret", 0, &err)); /* waits until the others are up */
    bench_advance(50000000);
    expect(false, "2a 1e");
    for (unsigned i = 0; i < 12; i++) { /* a repeats meanwhile */
        bench_advance(100000000);
        while (full() && in8(0x60) != 0xaa)
            ;
    }
    bench_advance(400000000);
    expect(false, "1c 9c");
    ck_assert(!input_send_keys(input, "ctrl-alt-frob", 0, &err));
    ck_assert_ptr_nonnull(strstr(err.msg, "'frob'"));
    ck_assert(!input_send_keys(input, "", 0, &err));
    ck_assert(!input_send_keys(input, "a-", 0, &err));
    ck_assert(!input_send_keys(input, "0x", 0, &err));
    ck_assert(!input_send_keys(input, "a", INPUT_HOLD_MAX + 1, &err));
    ck_assert(!input_send_keys(input, "a-b-c-d-e-f-g-h-i-j-k-l-m-n-o-p-q", 0, &err));
    unsigned sent = 0;
    while (input_send_keys(input, "a", 0, &err))
        sent++;
    ck_assert_uint_eq(sent, INPUT_RING / 4);
    bench_reset(chip);
    bench_advance(10000000000);
    expect(false, "");
    bench_destroy(chip);
}
END_TEST

/* A saved state that says that a command waits which takes no argument. */
START_TEST(restored_command_without_argument)
{
    begin();
    struct device *dev = chip_device(chip);
    for (size_t i = 0; i < dev->state->field_count; i++)
        if (strcmp(dev->state->fields[i].name, "keyboard.command") == 0)
            field_set(&dev->state->fields[i], dev, 0, 0x12);
    dev->restored(dev);
    tell_keyboard(0x00, "fa");
    bench_destroy(chip);
}
END_TEST

BENCH_MAIN("i8042", controller, a20_and_reset, interrupts_are_edges, scan_codes,
           print_and_pause_with_others, keyboard_commands, answers_overtake_keys, overrun,
           typematic, modes_of_set_3, mouse_commands, mouse_packets, mouse_remote_and_scaling,
           mouse_wheel, mouse_can_be_disabled, keys_by_name, restored_command_without_argument)
