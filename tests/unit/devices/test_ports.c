/*
 * test_ports.c - the small chips: debug console, isa-debug-exit, pvpanic, port 92h, i8042, FPU
 * errors.
 */
#include "bench.h"
#include "internal/chardev.h"

struct chardev {
    struct chardev_front front;
    uint8_t sent[256];
    size_t count, room;
};

void chardev_connect(struct chardev *chr, const struct chardev_front *front)
{
    chr->front = *front;
}

size_t chardev_write(struct chardev *chr, const uint8_t *bytes, size_t len)
{
    size_t n = len < chr->room ? len : chr->room;
    memcpy(chr->sent + chr->count, bytes, n);
    chr->count += n;
    chr->room -= n;
    return n;
}

void chardev_accept_input(struct chardev *chr)
{
    (void)chr;
}

START_TEST(debug_console)
{
    struct chardev chr = {.room = 2};
    struct debugcon *d = debugcon_new(bench_setup(), 0xe9, &chr);
    ck_assert_uint_eq(in8(0xe9), 0xe9);
    for (const char *c = "hello"; *c; c++)
        out8(0xe9, (uint8_t)*c);
    ck_assert_uint_eq(chr.count, 2);
    chr.room = 1;
    chr.front.writable(chr.front.opaque);
    chr.room = 100;
    out8(0xe9, '!'); /* keeps its place */
    chr.front.writable(chr.front.opaque);
    ck_assert_uint_eq(chr.count, 6);
    ck_assert_mem_eq(chr.sent, "hello!", 6);
    bench_destroy(d);
}
END_TEST

START_TEST(debug_exit)
{
    struct debug_exit *d = debug_exit_new(bench_setup(), 0x501, 2);
    ck_assert_uint_eq(in8(0x501), 0);
    out_sized(0x501, 2, 0x10);
    ck_assert_int_eq(bench.shutdown_what, BOARD_EXIT);
    ck_assert_int_eq(bench.shutdown_status, 0x21);
    out8(0x502, 0);
    ck_assert_int_eq(bench.shutdown_status, 1);
    ck_assert_uint_eq(in8(0x503), 0xff); /* two ports, not three */
    out_sized(0x501, 4, 0xffffffff);
    bench_destroy(d);
}
END_TEST

START_TEST(panic_port)
{
    struct pvpanic *p = pvpanic_new(bench_setup(), 0x505);
    ck_assert_uint_eq(in8(0x505), 3);
    out8(0x505, 2);
    ck_assert_uint_eq(bench.shutdowns, 0);
    out8(0x505, 1);
    ck_assert_uint_eq(bench.shutdowns, 1);
    ck_assert_int_eq(bench.shutdown_what, BOARD_PANIC);
    bench_destroy(p);
}
END_TEST

START_TEST(port_92)
{
    struct probe a20 = {0};
    struct port92 *p = port92_new(bench_setup(), probe_line(&a20));
    ck_assert(a20.level);
    ck_assert_uint_eq(in8(0x92), 2);
    out8(0x92, 0);
    ck_assert(!a20.level);
    out8(0x92, 3);
    ck_assert(a20.level);
    ck_assert_uint_eq(bench.shutdowns, 1);
    ck_assert_int_eq(bench.shutdown_what, BOARD_RESET);
    out8(0x92, 3); /* no new edge */
    ck_assert_uint_eq(bench.shutdowns, 1);
    bench_destroy(p);
}
END_TEST

static uint8_t kbd(uint8_t command)
{
    out8(0x64, command);
    ck_assert_uint_eq(in8(0x64) & 1, 1);
    return in8(0x60);
}

START_TEST(i8042)
{
    struct probe irq1 = {0}, a20 = {0};
    struct i8042 *k = i8042_new(bench_setup(), probe_line(&irq1), probe_line(&a20));
    ck_assert_uint_eq(in8(0x64) & 3, 0); /* nothing to read, ready for a command */
    ck_assert_uint_eq(kbd(0xaa), 0x55);
    ck_assert_uint_eq(kbd(0xab), 0x00);
    ck_assert_uint_ne(kbd(0xa9), 0x00); /* no auxiliary port */
    ck_assert_uint_eq(in8(0x64) & 1, 0);
    out8(0x64, 0x60), out8(0x60, 0x44); /* no interrupts */
    ck_assert_uint_eq(kbd(0x20), 0x44);
    unsigned rises = irq1.rises;
    out8(0x60, 0xf2); /* a command for the keyboard: refused, with the time-out flag */
    ck_assert_uint_eq(in8(0x64) & 0x41, 0x41);
    ck_assert_uint_eq(in8(0x60), 0xfe);
    ck_assert_uint_eq(irq1.rises, rises);
    out8(0x64, 0x60), out8(0x60, 0x45);
    out8(0x60, 0xf2);
    ck_assert(irq1.level);
    in8(0x60);
    ck_assert(!irq1.level);
    ck_assert_uint_eq(kbd(0xd0) & 3, 3);
    out8(0x64, 0xd1), out8(0x60, 0x01);
    ck_assert(!a20.level);
    out8(0x64, 0xdf);
    ck_assert(a20.level);
    ck_assert_uint_eq(bench.shutdowns, 0);
    out8(0x64, 0xff); /* pulses nothing */
    ck_assert_uint_eq(bench.shutdowns, 0);
    out8(0x64, 0xfe);
    ck_assert_uint_eq(bench.shutdowns, 1);
    ck_assert_int_eq(bench.shutdown_what, BOARD_RESET);
    for (unsigned c = 0; c < 256; c++) { /* any command ends with the controller ready */
        out8(0x64, (uint8_t)c);
        in8(0x60);
        ck_assert_uint_eq(in8(0x64) & 2, 0);
    }
    bench_destroy(k);
}
END_TEST

START_TEST(fpu_errors)
{
    struct probe irq13 = {0};
    struct fpu_error *f = fpu_error_new(bench_setup(), probe_line(&irq13));
    struct irq_line ferr = fpu_error_line(f);
    irq_set(&ferr, true);
    ck_assert(irq13.level);
    irq_set(&ferr, false);
    ck_assert(irq13.level);
    out8(0xf0, 0);
    ck_assert(!irq13.level);
    irq_set(&ferr, true);
    bench_reset(f);
    ck_assert(!irq13.level);
    bench_destroy(f);
}
END_TEST

BENCH_MAIN("ports", debug_console, debug_exit, panic_port, port_92, i8042, fpu_errors)
