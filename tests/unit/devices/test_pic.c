/*
 * test_pic.c - the 8259A pair: initialisation, priorities, end of interrupt in all its forms,
 * cascade, edge and level, poll, spurious interrupts.
 */
#include "bench.h"

static struct pic *pic;
static struct probe intr;

static void init_pair(uint8_t icw4_master, uint8_t icw4_slave)
{
    out8(0x20, 0x11), out8(0x21, 0x20), out8(0x21, 0x04), out8(0x21, icw4_master);
    out8(0xa0, 0x11), out8(0xa1, 0x28), out8(0xa1, 0x02), out8(0xa1, icw4_slave);
}

static void setup(void)
{
    pic = pic_new(bench_setup());
    intr = (struct probe){0};
    pic_connect(pic, probe_line(&intr));
    init_pair(1, 1);
}

static void drive(unsigned irq, bool level)
{
    struct irq_line line = pic_line(pic, irq);
    irq_set(&line, level);
}

static void pulse(unsigned irq)
{
    drive(irq, true);
    drive(irq, false);
}

static uint8_t isr(uint16_t port)
{
    out8(port, 0x0b);
    return in8(port);
}

static uint8_t irr(uint16_t port)
{
    out8(port, 0x0a);
    return in8(port);
}

START_TEST(edge_is_delivered_once)
{
    setup();
    drive(3, true);
    ck_assert(intr.level);
    ck_assert_int_eq(irr(0x20), 0x08);
    ck_assert_int_eq(pic_acknowledge(pic), 0x23);
    ck_assert(!intr.level);
    ck_assert_int_eq(isr(0x20), 0x08);
    ck_assert_int_eq(irr(0x20), 0x00);
    out8(0x20, 0x20);
    ck_assert_int_eq(isr(0x20), 0x00);
    ck_assert(!intr.level); /* still high, but no new edge */
    drive(3, false);
    drive(3, true);
    ck_assert(intr.level);
    bench_destroy(pic);
}
END_TEST

START_TEST(mask_holds_a_request_back)
{
    setup();
    out8(0x21, 0x10);
    ck_assert_int_eq(in8(0x21), 0x10);
    pulse(4);
    ck_assert(!intr.level);
    ck_assert_int_eq(irr(0x20), 0x10);
    out8(0x21, 0x00);
    ck_assert(intr.level);
    ck_assert_int_eq(pic_acknowledge(pic), 0x24);
    bench_destroy(pic);
}
END_TEST

START_TEST(priorities_nest)
{
    setup();
    pulse(5);
    pulse(3);
    ck_assert_int_eq(pic_acknowledge(pic), 0x23);
    ck_assert(!intr.level); /* 5 waits for 3 */
    pulse(1);
    ck_assert(intr.level); /* 1 does not */
    ck_assert_int_eq(pic_acknowledge(pic), 0x21);
    ck_assert_int_eq(isr(0x20), 0x0a);
    out8(0x20, 0x20); /* non-specific: ends the highest, 1 */
    ck_assert_int_eq(isr(0x20), 0x08);
    ck_assert(!intr.level);
    out8(0x20, 0x63); /* specific: 3 */
    ck_assert(intr.level);
    ck_assert_int_eq(pic_acknowledge(pic), 0x25);
    bench_destroy(pic);
}
END_TEST

START_TEST(cascade_gives_the_slaves_vector)
{
    setup();
    pulse(12);
    ck_assert(intr.level);
    ck_assert_int_eq(irr(0xa0), 0x10);
    ck_assert_int_eq(pic_acknowledge(pic), 0x2c);
    ck_assert_int_eq(isr(0x20), 0x04);
    ck_assert_int_eq(isr(0xa0), 0x10);
    pulse(10); /* outranks 12 at the slave, but the master serves input 2 already */
    ck_assert(!intr.level);
    pulse(13);
    out8(0xa0, 0x20);
    out8(0x20, 0x20);
    ck_assert(intr.level);
    ck_assert_int_eq(pic_acknowledge(pic), 0x2a);
    out8(0xa0, 0x20);
    out8(0x20, 0x20);
    ck_assert_int_eq(pic_acknowledge(pic), 0x2d);
    bench_destroy(pic);
}
END_TEST

START_TEST(special_fully_nested_lets_the_slave_interrupt_itself)
{
    setup();
    init_pair(0x11, 1);
    pulse(12);
    ck_assert_int_eq(pic_acknowledge(pic), 0x2c);
    pulse(10);
    ck_assert(intr.level);
    ck_assert_int_eq(pic_acknowledge(pic), 0x2a);
    pulse(11); /* lower than 10 at the slave */
    ck_assert(!intr.level);
    bench_destroy(pic);
}
END_TEST

START_TEST(the_slave_asks_again_with_a_new_edge)
{
    setup();
    init_pair(1, 3); /* automatic EOI at the slave: its second request follows at once */
    pulse(12);
    pulse(10);
    ck_assert_int_eq(pic_acknowledge(pic), 0x2a);
    out8(0x20, 0x20);
    ck_assert(intr.level);
    ck_assert_int_eq(pic_acknowledge(pic), 0x2c);
    out8(0x20, 0x20);
    ck_assert(!intr.level);
    bench_destroy(pic);
}
END_TEST

START_TEST(level_inputs_follow_the_line)
{
    setup();
    out8(0x4d0, 0xff);
    out8(0x4d1, 0xff);
    ck_assert_int_eq(in8(0x4d0), 0xf8);
    ck_assert_int_eq(in8(0x4d1), 0xde);
    drive(5, true);
    ck_assert_int_eq(pic_acknowledge(pic), 0x25);
    out8(0x20, 0x20);
    ck_assert(intr.level); /* again: the line is still high */
    ck_assert_int_eq(pic_acknowledge(pic), 0x25);
    drive(5, false);
    out8(0x20, 0x20);
    ck_assert(!intr.level);
    drive(11, true);
    ck_assert(intr.level);
    drive(11, false);
    ck_assert_int_eq(irr(0xa0), 0);
    bench_destroy(pic);
}
END_TEST

START_TEST(spurious_interrupts_set_no_service_bit)
{
    setup();
    ck_assert_int_eq(pic_acknowledge(pic), 0x27);
    ck_assert_int_eq(isr(0x20), 0);
    /* the slave withdraws a level request between the master's and its own INTA */
    out8(0x4d1, 0x08);
    drive(11, true);
    drive(11, false);
    ck_assert_int_eq(pic_acknowledge(pic), 0x2f);
    ck_assert_int_eq(isr(0x20), 0x04); /* the master does not know */
    ck_assert_int_eq(isr(0xa0), 0);
    bench_destroy(pic);
}
END_TEST

START_TEST(rotation_moves_the_lowest_priority)
{
    setup();
    pulse(2 + 1);
    pic_acknowledge(pic);
    out8(0x20, 0xa0); /* rotate on non-specific EOI: 3 becomes lowest */
    pulse(3);
    pulse(4);
    ck_assert_int_eq(pic_acknowledge(pic), 0x24);
    out8(0x20, 0xe4); /* rotate on specific EOI */
    pulse(0);
    ck_assert_int_eq(pic_acknowledge(pic), 0x20);
    out8(0x20, 0x60);
    out8(0x20, 0xc2); /* set priority: 2 lowest, so 3 highest */
    pulse(0);
    ck_assert_int_eq(pic_acknowledge(pic), 0x23);
    bench_destroy(pic);
}
END_TEST

START_TEST(automatic_eoi_leaves_nothing_in_service)
{
    setup();
    init_pair(3, 1);
    pulse(6);
    pulse(1);
    ck_assert_int_eq(pic_acknowledge(pic), 0x21);
    ck_assert_int_eq(isr(0x20), 0);
    ck_assert(intr.level);
    ck_assert_int_eq(pic_acknowledge(pic), 0x26);
    out8(0x20, 0x80); /* rotate in automatic EOI mode */
    pulse(1);
    ck_assert_int_eq(pic_acknowledge(pic), 0x21);
    pulse(1);
    pulse(3);
    ck_assert_int_eq(pic_acknowledge(pic), 0x23);
    bench_destroy(pic);
}
END_TEST

START_TEST(special_mask_opens_lower_priorities)
{
    setup();
    pulse(2 + 2);
    pic_acknowledge(pic);
    pulse(6);
    ck_assert(!intr.level);
    out8(0x21, 0x10);
    ck_assert(!intr.level);
    out8(0x20, 0x68); /* set special mask */
    ck_assert(intr.level);
    ck_assert_int_eq(pic_acknowledge(pic), 0x26);
    out8(0x20, 0x20); /* must end 6, not the masked 4 */
    ck_assert_int_eq(isr(0x20), 0x10);
    out8(0x20, 0x48);
    pulse(6);
    ck_assert(!intr.level);
    bench_destroy(pic);
}
END_TEST

START_TEST(poll_is_an_acknowledge)
{
    setup();
    pulse(5);
    out8(0x20, 0x0c);
    ck_assert_int_eq(in8(0x20), 0x85);
    ck_assert_int_eq(isr(0x20), 0x20);
    ck_assert(!intr.level);
    out8(0x20, 0x0c);
    ck_assert_int_eq(in8(0x20), 0x00);
    bench_destroy(pic);
}
END_TEST

START_TEST(initialisation_forgets_edges_and_masks)
{
    setup();
    out8(0x21, 0xff);
    drive(4, true);
    out8(0x20, 0x13); /* single, with ICW4: no ICW3 is expected */
    out8(0x21, 0x40);
    out8(0x21, 0x01);
    ck_assert_int_eq(in8(0x21), 0x00);
    ck_assert_int_eq(irr(0x20), 0x00);
    ck_assert(!intr.level);
    drive(4, false);
    drive(4, true);
    ck_assert_int_eq(pic_acknowledge(pic), 0x44);
    bench_destroy(pic);
}
END_TEST

BENCH_MAIN("pic", edge_is_delivered_once, mask_holds_a_request_back, priorities_nest,
           cascade_gives_the_slaves_vector, special_fully_nested_lets_the_slave_interrupt_itself,
           the_slave_asks_again_with_a_new_edge, level_inputs_follow_the_line,
           spurious_interrupts_set_no_service_bit, rotation_moves_the_lowest_priority,
           automatic_eoi_leaves_nothing_in_service, special_mask_opens_lower_priorities,
           poll_is_an_acknowledge, initialisation_forgets_edges_and_masks)
