/*
 * test_ports.c - the small chips: debug console, isa-debug-exit, pvpanic, port 92h, FPU errors.
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

BENCH_MAIN("ports", debug_console, debug_exit, panic_port, port_92, fpu_errors)
