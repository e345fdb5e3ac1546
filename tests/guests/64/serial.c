/*
 * serial.c - the 16550A: registers, loopback, FIFOs, trigger levels and time-out, the order of
 * interrupts, what answers each, interrupt 4 by both controllers (PC16550D data sheet).
 *
 * guest options: -m 64
 * guest serial: polled, by FIFO, by interrupts: done
 */
#include "machine.h"

enum { RBR = COM1, THR = COM1, IER, IIR, FCR = IIR, LCR, MCR, LSR, MSR, SCR };
enum { RDI = 1, THRI = 2, RLSI = 4, MSI = 8 };
enum { DR = 1, OE = 2, THRE = 0x20, TEMT = 0x40 };
enum { DTR = 1, RTS = 2, OUT1 = 4, OUT2 = 8, LOOP = 0x10 };
enum { V = 0x61 };

static void begin(void (*ends)(struct frame *))
{
    pit_start(0, 1, 0);
    apic_quiet();
    count_hits(0x20, 0xef, ends);
    ioapic_entry(COM1_IRQ, 0, ENTRY_MASKED);
    outb(LCR, 3);
    outb(IER, 0);
    outb(MCR, LOOP);
    outb(FCR, 0);
    for (unsigned i = 0; i < 20; i++)
        inb(RBR);
    inb(LSR);
    inb(MSR);
    inb(IIR);
}

static bool wait_lsr(uint8_t bits)
{
    for (uint64_t end = rdtsc() + FOREVER; rdtsc() < end;)
        if ((inb(LSR) & bits) == bits)
            return true;
    return false;
}

/* By loopback, the whole way. LSR is not read, so that its error bits stay. */
static void loop_byte(uint8_t v)
{
    outb(THR, v);
    pit_wait(300); /* two characters at 9600 baud are longer, but here, as in most, it is at once */
}

TEST(registers)
{
    begin(NULL);
    outb(SCR, 0x5a);
    CHECK_EQ(inb(SCR), 0x5a);
    outb(SCR, 0xa5);
    CHECK_EQ(inb(SCR), 0xa5);
    outb(IER, 0xff);
    CHECK_EQ(inb(IER), 0x0f);
    outb(IER, 0);
    outb(MCR, 0xff);
    CHECK_EQ(inb(MCR), 0x1f);
    outb(MCR, LOOP);
    outb(LCR, 0x1b);
    CHECK_EQ(inb(LCR), 0x1b);
    outb(LCR, 0x83); /* the divisor, and not IER and RBR */
    outb(COM1, 0x01);
    outb(COM1 + 1, 0x02);
    CHECK_EQ(inb(COM1), 0x01);
    CHECK_EQ(inb(COM1 + 1), 0x02);
    outb(COM1, 0x01);
    outb(COM1 + 1, 0x00); /* 115200 baud */
    outb(LCR, 3);
    CHECK_EQ(inb(IER), 0);
    CHECK_EQ(inb(LSR), THRE | TEMT);
    outb(LSR, 0); /* this one is for factory tests only */
}

TEST(identification)
{
    begin(NULL);
    CHECK_EQ(inb(IIR), 1); /* a 16450, so far */
    outb(FCR, 1);
    CHECK_EQ(inb(IIR), 0xc1);
    outb(FCR, 0);
    CHECK_EQ(inb(IIR), 1);
    CHECK_EQ(inb(0x2f8 + 7), 0xff); /* no COM2 */
}

TEST(loopback_modem_lines)
{
    begin(NULL);
    static const struct {
        uint8_t out, in;
    } wires[] = {{RTS, 0x10}, {DTR, 0x20}, {OUT1, 0x40}, {OUT2, 0x80}};
    outb(MCR, LOOP);
    inb(MSR);
    CHECK_EQ(inb(MSR), 0);
    for (unsigned i = 0; i < 4; i++) {
        uint8_t delta = i == 2 ? 0 : wires[i].in >> 4; /* RI counts when it ends */
        outb(MCR, LOOP | wires[i].out);
        CHECK_EQ(inb(MSR), wires[i].in | delta);
        CHECK_EQ(inb(MSR), wires[i].in); /* reading clears the deltas */
        outb(MCR, LOOP);
        CHECK_EQ(inb(MSR), wires[i].in >> 4);
        CHECK_EQ(inb(MSR), 0);
    }
}

TEST(loopback_data)
{
    begin(NULL);
    for (unsigned v = 0; v < 256; v += 5) {
        CHECK_EQ(inb(LSR) & DR, 0);
        outb(THR, (uint8_t)v);
        CHECK(wait_lsr(DR | TEMT));
        CHECK_EQ(inb(RBR), v);
    }
    CHECK_EQ(inb(LSR) & DR, 0);
}

/* Without FIFOs the newcomer takes the place of what was not read. */
TEST(overrun)
{
    begin(NULL);
    loop_byte(1);
    loop_byte(2);
    CHECK_EQ(inb(LSR) & (OE | DR), OE | DR);
    CHECK_EQ(inb(LSR) & (OE | DR), DR); /* reading clears the error */
    CHECK_EQ(inb(RBR), 2);
}

TEST(fifo)
{
    begin(NULL);
    outb(FCR, 7);
    for (uint8_t v = 0; v < 16; v++)
        loop_byte(v + 1);
    CHECK_EQ(inb(LSR), DR | THRE | TEMT);
    loop_byte(99); /* the seventeenth is lost */
    CHECK_EQ(inb(LSR) & (OE | DR), OE | DR);
    for (uint8_t v = 0; v < 16; v++)
        CHECK_EQ(inb(RBR), v + 1);
    CHECK_EQ(inb(LSR) & (OE | DR), 0);
    loop_byte(5);
    loop_byte(6);
    outb(FCR, 3); /* clears the receiver's; the bit resets itself */
    CHECK_EQ(inb(LSR) & DR, 0);
    loop_byte(7);
    CHECK_EQ(inb(RBR), 7);
    loop_byte(8);
    outb(FCR, 0); /* switching them clears them */
    CHECK_EQ(inb(LSR) & DR, 0);
}

/* ---- Interrupt identification ------------------------------------------------------------------
 */

TEST(nothing_enabled)
{
    begin(NULL);
    loop_byte(1);
    loop_byte(2);
    outb(MCR, LOOP | RTS);
    CHECK_EQ(inb(IIR), 1);
}

TEST(order_of_interrupts)
{
    begin(NULL);
    loop_byte(1);
    loop_byte(2);
    outb(MCR, LOOP | RTS);
    outb(IER, RDI | THRI | RLSI | MSI);
    CHECK_EQ(inb(IIR), 6); /* line status */
    CHECK_EQ(inb(IIR), 6); /* reading IIR does not answer it */
    CHECK_EQ(inb(LSR) & OE, OE);
    CHECK_EQ(inb(IIR), 4); /* received data */
    CHECK_EQ(inb(IIR), 4);
    inb(RBR);
    CHECK_EQ(inb(IIR), 2); /* transmitter empty; and that answers it */
    CHECK_EQ(inb(IIR), 0); /* modem status */
    CHECK_EQ(inb(IIR), 0);
    inb(MSR);
    CHECK_EQ(inb(IIR), 1);
}

TEST(transmitter_empty)
{
    begin(NULL);
    outb(IER, THRI); /* at once: it is empty */
    CHECK_EQ(inb(IIR), 2);
    CHECK_EQ(inb(IIR), 1);
    outb(IER, 0);
    outb(IER, THRI); /* enabled anew */
    CHECK_EQ(inb(IIR), 2);
    loop_byte(1);
    CHECK_EQ(inb(IIR), 2);
    outb(IER, 0);
    CHECK_EQ(inb(IIR), 1);
    outb(IER, RDI | THRI); /* data hides it: reading IIR answers only what it shows */
    CHECK_EQ(inb(IIR), 4);
    inb(RBR);
    CHECK_EQ(inb(IIR), 2);
    CHECK_EQ(inb(IIR), 1);
}

/* The time-out's interrupt, unless the trigger level comes first. */
static uint8_t wait_iir(void)
{
    uint8_t id;
    uint64_t end = rdtsc() + FOREVER;
    do
        id = inb(IIR);
    while ((id & 1) && rdtsc() < end);
    return id;
}

TEST(trigger_levels)
{
    static const uint8_t levels[] = {1, 4, 8, 14};
    for (unsigned i = 0; i < 4; i++) {
        begin(NULL);
        /* so slow that the time-out stays away: 4 characters at 50 baud are 0.8 s */
        outb(LCR, 0x83);
        outb(COM1 + 1, 9);
        outb(COM1, 0);
        outb(LCR, 3);
        outb(FCR, (uint8_t)(7 | i << 6));
        outb(IER, RDI);
        uint64_t start = rdtsc();
        for (uint8_t n = 1; n <= 16; n++) {
            outb(THR, n);
            uint8_t id = inb(IIR);
            if (rdtsc() - start > 100000000) {
                print("  level %u not judged: the host was too slow\n", levels[i]);
                break;
            }
            CHECK_EQ(id, n >= levels[i] ? 0xc4 : 0xc1);
        }
        /* below the level it goes away */
        for (uint8_t n = 16; n >= levels[i]; n--)
            inb(RBR);
        CHECK(inb(IIR) == 0xc1 || rdtsc() - start > 100000000);
    }
    outb(LCR, 0x83);
    outb(COM1, 1);
    outb(COM1 + 1, 0);
    outb(LCR, 3);
}

TEST(receiver_time_out)
{
    begin(NULL);
    outb(FCR, 7 | 3 << 6);
    outb(IER, RDI);
    outb(THR, 1);
    outb(THR, 2);
    CHECK_EQ(wait_iir(), 0xcc);
    CHECK_EQ(inb(RBR), 1); /* a read clears and restarts it */
    CHECK_EQ(wait_iir(), 0xcc);
    CHECK_EQ(inb(RBR), 2);
    pit_wait(10000);
    CHECK_EQ(inb(IIR), 0xc1); /* empty: none */
}

/* ---- Interrupt 4 -------------------------------------------------------------------------------
 */

TEST(through_the_ioapic)
{
    begin(apic_eoi);
    outb(MCR, OUT2);
    inb(MSR);
    ioapic_entry(COM1_IRQ, 0, V);
    outb(IER, THRI);
    let_in();
    CHECK_EQ(hits[V], 1);
    CHECK_EQ(inb(IIR) & 15, 2); /* lowers the line */
    outb(IER, 0);
    outb(IER, THRI);
    let_in();
    CHECK_EQ(hits[V], 2);
    outb(IER, 0);
}

TEST(through_the_pic)
{
    begin(pic_eoi);
    apic_write(APIC_LINT0, 0x700);
    pic_allow(0x10);
    outb(MCR, OUT2);
    inb(MSR);
    outb(IER, THRI);
    let_in();
    CHECK_EQ(hits[0x24], 1);
    inb(IIR);
    outb(IER, 0);
}

/* The output is a level: it stays until what raised it is answered. */
TEST(level)
{
    begin(apic_eoi);
    ioapic_entry(COM1_IRQ, 0, ENTRY_LEVEL | V);
    outb(MCR, OUT2);
    inb(MSR);
    CHECK(!ioapic_remote_irr(COM1_IRQ));
    outb(IER, THRI);
    CHECK(ioapic_remote_irr(COM1_IRQ));
    CHECK_EQ(inb(IIR), 2); /* answered before it is taken: it comes once all the same */
    let_in();
    CHECK_EQ(hits[V], 1);
    CHECK(!ioapic_remote_irr(COM1_IRQ));
    outb(IER, 0);
}

/* ---- Output ------------------------------------------------------------------------------------
 */

static const char *volatile left;

static void refill(struct frame *f)
{
    if ((inb(IIR) & 15) == 2) {
        for (unsigned i = 0; i < 16 && *left; i++)
            outb(THR, (uint8_t)*left++);
        if (!*left)
            outb(IER, 0);
    }
    apic_eoi(f);
}

TEST(output)
{
    begin(refill);
    outb(MCR, DTR | RTS | OUT2);
    for (const char *s = "polled, "; *s; s++) {
        CHECK(wait_lsr(THRE));
        outb(THR, (uint8_t)*s);
    }
    CHECK(wait_lsr(TEMT));
    outb(FCR, 7);
    for (const char *s = "by FIFO, "; *s; s++) /* fits: no waiting */
        outb(THR, (uint8_t)*s);
    CHECK(wait_lsr(TEMT));
    left = "by interrupts: done\n";
    inb(IIR);
    ioapic_entry(COM1_IRQ, 0, V);
    outb(IER, THRI);
    for (uint64_t end = rdtsc() + FOREVER; *left && rdtsc() < end;)
        let_in();
    CHECK_EQ(*left, 0);
    CHECK(wait_lsr(TEMT));
    outb(IER, 0);
}

const struct test guest_tests[] = {T(registers),
                                   T(identification),
                                   T(loopback_modem_lines),
                                   T(loopback_data),
                                   T(overrun),
                                   T(fifo),
                                   T(nothing_enabled),
                                   T(order_of_interrupts),
                                   T(transmitter_empty),
                                   T(trigger_levels),
                                   T(receiver_time_out),
                                   T(through_the_ioapic),
                                   T(through_the_pic),
                                   T(level),
                                   T(output),
                                   {0, 0}};
