/*
 * test_serial.c - the 16550A: FIFOs and trigger levels, the receiver's time-out, interrupt
 * priorities, loopback, and a back end that is slow.
 */
#include "bench.h"
#include "internal/chardev.h"

/* A back end that takes at most `room` bytes. */
struct chardev {
    struct chardev_front front;
    uint8_t sent[4096];
    size_t count, room;
    unsigned accepts; /* chardev_accept_input() calls */
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
    chr->accepts++;
}

static struct chardev chr;
static struct serial *serial;
static struct probe irq;
enum { COM1 = 0x3f8 };

static void setup(bool out2_gates)
{
    memset(&chr, 0, sizeof(chr));
    chr.room = sizeof(chr.sent);
    irq = (struct probe){0};
    struct serial_config config = {
        .base = COM1, .irq = probe_line(&irq), .chr = &chr, .out2_gates_irq = out2_gates};
    serial = serial_new(bench_setup(), &config);
}

static uint8_t rd(unsigned reg)
{
    return in8((uint16_t)(COM1 + reg));
}
static void wr(unsigned reg, uint8_t value)
{
    out8((uint16_t)(COM1 + reg), value);
}

static size_t type(const char *text)
{
    size_t len = strlen(text), room = chr.front.can_receive(chr.front.opaque);
    size_t n = len < room ? len : room;
    chr.front.receive(chr.front.opaque, (const uint8_t *)text, n);
    return n;
}

START_TEST(power_on_state)
{
    setup(false);
    ck_assert_uint_eq(rd(1), 0);
    ck_assert_uint_eq(rd(2), 0x01);
    ck_assert_uint_eq(rd(5), 0x60);
    ck_assert_uint_eq(rd(6), 0xb0);
    wr(7, 0xa5);
    ck_assert_uint_eq(rd(7), 0xa5);
    wr(3, 0x83);
    wr(0, 0x01), wr(1, 0x02);
    ck_assert_uint_eq(rd(0), 0x01);
    ck_assert_uint_eq(rd(1), 0x02);
    wr(3, 0x03);
    ck_assert_uint_eq(rd(1), 0);
    wr(5, 0), wr(6, 0xff); /* read only */
    ck_assert_uint_eq(rd(5), 0x60);
    bench_destroy(serial);
}
END_TEST

START_TEST(transmits)
{
    setup(false);
    wr(1, 0x02); /* THRE interrupt: at once, the register is empty */
    ck_assert(irq.level);
    ck_assert_uint_eq(rd(2), 0x02);
    ck_assert(!irq.level); /* reading IIR answered it */
    ck_assert_uint_eq(rd(2), 0x01);
    wr(0, 'h'), wr(0, 'i');
    ck_assert(irq.level);
    ck_assert_uint_eq(irq.rises, 3); /* an edge for each */
    ck_assert_mem_eq(chr.sent, "hi", 2);
    ck_assert_uint_eq(rd(5), 0x60);
    bench_destroy(serial);
}
END_TEST

START_TEST(a_slow_back_end_loses_nothing)
{
    setup(false);
    wr(2, 0x01); /* FIFOs */
    wr(1, 0x02);
    rd(2);
    chr.room = 3;
    for (char c = 'a'; c < 'a' + 16; c++)
        wr(0, (uint8_t)c);
    ck_assert_uint_eq(chr.count, 3);
    ck_assert_uint_eq(rd(5), 0x00); /* neither THRE nor TEMT: the guest waits */
    ck_assert(!irq.level);
    wr(0, 'q'), wr(0, 'r'), wr(0, 's'); /* the FIFO has 13 of 16 */
    chr.room = 5;
    chr.front.writable(chr.front.opaque);
    ck_assert_uint_eq(rd(5), 0x00);
    chr.room = 100;
    chr.front.writable(chr.front.opaque);
    ck_assert_uint_eq(rd(5), 0x60);
    ck_assert(irq.level);
    ck_assert_uint_eq(rd(2), 0xc2);
    ck_assert_uint_eq(chr.count, 19);
    ck_assert_mem_eq(chr.sent, "abcdefghijklmnopqrs", 19);
    /* without FIFOs one byte waits */
    wr(2, 0x00);
    chr.room = 0;
    wr(0, 'x');
    ck_assert_uint_eq(rd(5), 0x00);
    chr.room = 1;
    chr.front.writable(chr.front.opaque);
    ck_assert_uint_eq(rd(5), 0x60);
    ck_assert_uint_eq(chr.sent[19], 'x');
    bench_destroy(serial);
}
END_TEST

START_TEST(receives_one_byte_without_fifos)
{
    setup(false);
    wr(1, 0x01);
    ck_assert_uint_eq(type("ab"), 1);
    ck_assert(irq.level);
    ck_assert_uint_eq(rd(2), 0x04);
    ck_assert_uint_eq(rd(5), 0x61);
    unsigned accepts = chr.accepts;
    ck_assert_uint_eq(rd(0), 'a');
    ck_assert(!irq.level);
    ck_assert_uint_eq(chr.accepts, accepts + 1); /* the rest may come */
    ck_assert_uint_eq(rd(5), 0x60);
    bench_destroy(serial);
}
END_TEST

START_TEST(trigger_level_and_time_out)
{
    setup(false);
    wr(3, 0x83), wr(0, 1), wr(1, 0), wr(3, 0x03); /* 115200 8N1: 10 bits = 86.8 us */
    wr(2, 0x81);                                  /* FIFOs, trigger at 8 */
    wr(1, 0x01);
    ck_assert_uint_eq(type("1234567"), 7);
    ck_assert(!irq.level);
    bench_advance(347222 - 1); /* 4 characters */
    ck_assert(!irq.level);
    bench_advance(2);
    ck_assert(irq.level);
    ck_assert_uint_eq(rd(2), 0xcc);
    ck_assert_uint_eq(rd(0), '1'); /* a read ends the time-out and starts a new one */
    ck_assert(!irq.level);
    ck_assert_uint_eq(type("89"), 2);
    ck_assert(irq.level);
    ck_assert_uint_eq(rd(2), 0xc4);
    ck_assert_uint_eq(rd(0), '2');
    ck_assert(!irq.level);
    ck_assert_uint_eq(chr.front.can_receive(chr.front.opaque), 9);
    for (char c = '3'; c <= '9'; c++)
        ck_assert_uint_eq(rd(0), (unsigned)c);
    bench_advance(1000000);
    ck_assert(!irq.level); /* empty: no time-out */
    type("x");
    wr(2, 0x83); /* clears the receiver */
    ck_assert_uint_eq(rd(5), 0x60);
    bench_advance(1000000);
    ck_assert(!irq.level);
    bench_destroy(serial);
}
END_TEST

START_TEST(interrupt_priorities)
{
    setup(false);
    wr(1, 0x0f);
    rd(2);
    type("a");
    chr.front.line_break(chr.front.opaque); /* and overruns the holding register */
    wr(4, 0x10);                            /* loopback: CTS, DSR, DCD fall */
    wr(4, 0x00);
    wr(0, 'z');
    ck_assert_uint_eq(rd(2), 0x06);
    ck_assert_uint_eq(rd(5), 0x60 | 0x13); /* BI, OE, DR */
    ck_assert_uint_eq(rd(2), 0x04);
    rd(0);
    ck_assert_uint_eq(rd(2), 0x02);
    ck_assert_uint_eq(rd(2), 0x00);
    ck_assert_uint_eq(rd(6), 0xbb);
    ck_assert_uint_eq(rd(6), 0xb0);
    ck_assert_uint_eq(rd(2), 0x01);
    ck_assert(!irq.level);
    bench_destroy(serial);
}
END_TEST

START_TEST(loopback)
{
    setup(false);
    wr(4, 0x1a); /* loop, OUT2, RTS */
    ck_assert_uint_eq(rd(6) & 0xf0, 0x90);
    ck_assert_uint_eq(chr.front.can_receive(chr.front.opaque), 0); /* input waits outside */
    wr(0, 0x5a);
    ck_assert_uint_eq(chr.count, 0);
    ck_assert_uint_eq(rd(0), 0x5a);
    rd(6);
    wr(4, 0x1e); /* RI rises: no TERI */
    ck_assert_uint_eq(rd(6), 0xd0);
    wr(4, 0x1a);
    ck_assert_uint_eq(rd(6), 0x94);
    wr(2, 0x01);
    for (unsigned i = 0; i < 17; i++)
        wr(0, (uint8_t)i);
    ck_assert_uint_eq(rd(5) & 0x02, 0x02); /* overrun: the FIFO keeps the first 16 */
    for (unsigned i = 0; i < 16; i++)
        ck_assert_uint_eq(rd(0), i);
    unsigned accepts = chr.accepts;
    wr(4, 0x0b);
    ck_assert_uint_gt(chr.accepts, accepts);
    bench_destroy(serial);
}
END_TEST

START_TEST(out2_may_gate_the_interrupt)
{
    setup(true);
    wr(1, 0x02);
    ck_assert(!irq.level);
    wr(4, 0x08);
    ck_assert(irq.level);
    wr(4, 0x18);
    ck_assert(!irq.level);
    bench_destroy(serial);
    setup(false);
    wr(1, 0x02);
    ck_assert(irq.level);
    bench_destroy(serial);
}
END_TEST

START_TEST(works_unconnected)
{
    struct serial_config config = {.base = COM1};
    serial = serial_new(bench_setup(), &config);
    ck_assert_uint_eq(rd(6), 0x00);
    wr(0, 'a');
    ck_assert_uint_eq(rd(5), 0x60);
    ck_assert_uint_eq(rd(0), 0);
    bench_reset(serial);
    bench_destroy(serial);
}
END_TEST

BENCH_MAIN("serial", power_on_state, transmits, a_slow_back_end_loses_nothing,
           receives_one_byte_without_fifos, trigger_level_and_time_out, interrupt_priorities,
           loopback, out2_may_gate_the_interrupt, works_unconnected)
