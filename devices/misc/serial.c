/*
 * serial.c - the 16550A UART, between a port range, an interrupt line and a character back end.
 *
 * Specified in National Semiconductor's PC16550D data sheet.
 *
 * Bytes go out as fast as the back end takes them, whatever the divisor says; when it takes no more
 * they wait in the FIFO, THRE stays clear, and the back end's `writable` goes on. Bytes come in as
 * the FIFO has room, so nothing is lost either way as long as the guest respects THRE. Only the
 * receiver's time-out uses the divisor. Parity and framing errors never happen on such a line.
 */
#include "internal/chardev.h"
#include "internal/chips.h"
#include "internal/clock.h"
#include "internal/event.h"
#include <stdlib.h>
#include <string.h>

enum { FIFO_SIZE = 16, INPUT_HZ = 115200 /* 1.8432 MHz / 16 */ };

/* Registers; with LCR.DLAB 0 and 1 are the divisor. */
enum { RBR = 0, THR = 0, IER = 1, IIR = 2, FCR = 2, LCR = 3, MCR = 4, LSR = 5, MSR = 6, SCR = 7 };

enum { IER_RDI = 1 << 0, IER_THRI = 1 << 1, IER_RLSI = 1 << 2, IER_MSI = 1 << 3, IER_ALL = 0x0f };
/* IIR bits 3-0, and which of them say that the FIFOs are on. */
enum { IIR_NONE = 1, IIR_MSI = 0, IIR_THRI = 2, IIR_RDI = 4, IIR_RLSI = 6, IIR_CTI = 0xc };
enum { IIR_FIFOS = 0xc0 };
enum { FCR_ENABLE = 1 << 0, FCR_CLEAR_RX = 1 << 1, FCR_CLEAR_TX = 1 << 2 };
enum { LCR_STOP = 1 << 2, LCR_PARITY = 1 << 3, LCR_DLAB = 1 << 7 };
enum { MCR_DTR = 1, MCR_RTS = 2, MCR_OUT1 = 4, MCR_OUT2 = 8, MCR_LOOP = 16, MCR_ALL = 31 };
enum { LSR_DR = 1 << 0, LSR_OE = 1 << 1, LSR_BI = 1 << 4, LSR_THRE = 1 << 5, LSR_TEMT = 1 << 6 };
enum { LSR_ERRORS = 0x1e };
enum { MSR_DELTAS = 0x0f, MSR_TERI = 4, MSR_CTS = 16, MSR_DSR = 32, MSR_RI = 64, MSR_DCD = 128 };

struct fifo {
    uint8_t bytes[FIFO_SIZE];
    uint8_t first, count;
};

struct serial {
    struct device dev;
    struct board *board;
    struct serial_config config;
    uint8_t ier, fcr, lcr, mcr, scr;
    uint8_t msr;   /* as it reads */
    uint8_t error; /* LSR bits 4-1 */
    uint16_t divisor;
    bool thr_pending; /* a THRE interrupt that neither IIR nor THR has answered */
    bool timed_out;   /* the receiver's time-out is up */
    struct fifo rx, tx;
    uint64_t deadline; /* of the receiver's time-out; 0: not armed */
    struct timer timer;
    int ports;
};

/* ---- FIFOs ----------------------------------------------------------------------------------- */

static bool fifos_on(const struct serial *s)
{
    return s->fcr & FCR_ENABLE;
}

/* Without FIFOs there is one holding register each way. */
static unsigned fifo_size(const struct serial *s)
{
    return fifos_on(s) ? FIFO_SIZE : 1;
}

static void fifo_push(struct fifo *f, uint8_t byte)
{
    f->bytes[(f->first + f->count++) % FIFO_SIZE] = byte;
}

static uint8_t fifo_pop(struct fifo *f)
{
    uint8_t byte = f->bytes[f->first];
    f->first = (f->first + 1) % FIFO_SIZE;
    f->count--;
    return byte;
}

static unsigned trigger_level(const struct serial *s)
{
    static const uint8_t levels[4] = {1, 4, 8, 14};
    return fifos_on(s) ? levels[s->fcr >> 6] : 1;
}

/* ---- Interrupts (data sheet, table IV: in this order) ---------------------------------------- */

static uint8_t interrupt_id(const struct serial *s)
{
    if ((s->ier & IER_RLSI) && s->error)
        return IIR_RLSI;
    if ((s->ier & IER_RDI) && s->rx.count >= trigger_level(s))
        return IIR_RDI;
    if ((s->ier & IER_RDI) && s->timed_out)
        return IIR_CTI;
    if ((s->ier & IER_THRI) && s->thr_pending)
        return IIR_THRI;
    if ((s->ier & IER_MSI) && (s->msr & MSR_DELTAS))
        return IIR_MSI;
    return IIR_NONE;
}

static void serial_update(struct serial *s)
{
    bool connected = !s->config.out2_gates_irq || (s->mcr & (MCR_OUT2 | MCR_LOOP)) == MCR_OUT2;
    irq_set(&s->config.irq, connected && interrupt_id(s) != IIR_NONE);
}

/* ---- Receiver -------------------------------------------------------------------------------- */

/* Start bit, 5-8 data bits, parity, stop bit(s). */
static uint64_t characters_ns(const struct serial *s, uint64_t count)
{
    uint64_t bits = 7 + (s->lcr & 3) + ((s->lcr & LCR_PARITY) != 0) + ((s->lcr & LCR_STOP) != 0);
    return clock_ticks_to_ns(count * bits * (s->divisor ? s->divisor : 1), INPUT_HZ);
}

/* The time-out starts anew with every byte that comes or is read (data sheet, 8.4.1: four
 * characters' time). */
static void restart_timeout(struct serial *s)
{
    s->timed_out = false;
    s->deadline = 0;
    timer_cancel(&s->timer);
    if (!fifos_on(s) || s->rx.count == 0)
        return;
    s->deadline = clock_now(s->board->clock) + characters_ns(s, 4);
    timer_arm(&s->timer, s->deadline);
}

static void receive_timeout(void *opaque)
{
    struct serial *s = opaque;
    s->deadline = 0;
    s->timed_out = s->rx.count != 0;
    serial_update(s);
}

static void receive_byte(struct serial *s, uint8_t byte)
{
    if (s->rx.count < fifo_size(s)) {
        fifo_push(&s->rx, byte);
    } else {
        s->error |= LSR_OE;
        if (!fifos_on(s)) /* the holding register is overwritten; a full FIFO keeps its bytes */
            s->rx.bytes[s->rx.first] = byte;
    }
}

static size_t front_can_receive(void *opaque)
{
    struct serial *s = opaque;
    return s->mcr & MCR_LOOP ? 0 : fifo_size(s) - s->rx.count;
}

static void front_receive(void *opaque, const uint8_t *bytes, size_t len)
{
    struct serial *s = opaque;
    for (size_t i = 0; i < len; i++)
        receive_byte(s, bytes[i]);
    restart_timeout(s);
    serial_update(s);
}

/* A break shows as a zero byte with its own error bit. */
static void front_line_break(void *opaque)
{
    struct serial *s = opaque;
    if (s->mcr & MCR_LOOP)
        return;
    receive_byte(s, 0);
    s->error |= LSR_BI;
    restart_timeout(s);
    serial_update(s);
}

static void accept_input(struct serial *s)
{
    if (s->config.chr)
        chardev_accept_input(s->config.chr);
}

static uint8_t read_rbr(struct serial *s)
{
    if (s->rx.count == 0)
        return 0;
    uint8_t byte = fifo_pop(&s->rx);
    restart_timeout(s);
    serial_update(s);
    accept_input(s);
    return byte;
}

/* ---- Transmitter ----------------------------------------------------------------------------- */

/* Sends what waits, as far as the other side takes it. THRE rises when all has gone. */
static void transmit(struct serial *s)
{
    bool waited = s->tx.count != 0;
    while (s->tx.count) {
        uint8_t byte = s->tx.bytes[s->tx.first];
        if (s->mcr & MCR_LOOP)
            receive_byte(s, byte);
        else if (s->config.chr && chardev_write(s->config.chr, &byte, 1) == 0)
            break;
        fifo_pop(&s->tx);
    }
    if (s->mcr & MCR_LOOP && waited)
        restart_timeout(s);
    if (waited && s->tx.count == 0)
        s->thr_pending = true;
}

static void front_writable(void *opaque)
{
    struct serial *s = opaque;
    transmit(s);
    serial_update(s);
}

static void write_thr(struct serial *s, uint8_t byte)
{
    s->thr_pending = false;
    if (s->tx.count < fifo_size(s))
        fifo_push(&s->tx, byte);
    else if (!fifos_on(s)) /* written over, by a guest that did not wait for THRE */
        s->tx.bytes[s->tx.first] = byte;
    serial_update(s); /* the line falls before it rises again: the PIC wants an edge */
    transmit(s);
}

/* ---- Control registers ----------------------------------------------------------------------- */

static uint8_t read_lsr(struct serial *s)
{
    uint8_t lsr = s->error | (s->rx.count ? LSR_DR : 0);
    if (s->tx.count == 0)
        lsr |= LSR_THRE | LSR_TEMT;
    s->error = 0;
    return lsr;
}

/* In loopback the four outputs come back as the four inputs; else a modem that is always ready. */
static void update_modem(struct serial *s)
{
    uint8_t lines = s->config.chr ? MSR_CTS | MSR_DSR | MSR_DCD : 0;
    if (s->mcr & MCR_LOOP)
        lines = (s->mcr & MCR_RTS ? MSR_CTS : 0) | (s->mcr & MCR_DTR ? MSR_DSR : 0) |
                (s->mcr & MCR_OUT1 ? MSR_RI : 0) | (s->mcr & MCR_OUT2 ? MSR_DCD : 0);
    uint8_t changed = (lines ^ s->msr) & 0xf0;
    uint8_t deltas = (uint8_t)(changed >> 4 & ~MSR_TERI);
    if (changed & ~lines & MSR_RI) /* TERI: only the trailing edge counts */
        deltas |= MSR_TERI;
    s->msr = lines | (s->msr & MSR_DELTAS) | deltas;
}

/* Switching the FIFOs on or off empties both (data sheet, 8.3). */
static void write_fcr(struct serial *s, uint8_t value)
{
    if ((value ^ s->fcr) & FCR_ENABLE)
        value |= FCR_CLEAR_RX | FCR_CLEAR_TX;
    s->fcr = value & FCR_ENABLE ? value & 0xc9 : 0;
    if (value & FCR_CLEAR_RX) {
        memset(&s->rx, 0, sizeof(s->rx));
        restart_timeout(s);
    }
    if (value & FCR_CLEAR_TX && s->tx.count) {
        memset(&s->tx, 0, sizeof(s->tx));
        s->thr_pending = true;
    }
}

/* Enabling the THRE interrupt while the register is empty raises it at once. */
static void write_ier(struct serial *s, uint8_t value)
{
    if ((value & ~s->ier & IER_THRI) && s->tx.count == 0)
        s->thr_pending = true;
    s->ier = value & IER_ALL;
}

static void write_mcr(struct serial *s, uint8_t value)
{
    s->mcr = value & MCR_ALL;
    update_modem(s);
}

/* Reading IIR answers the THRE interrupt, if that is what it shows. */
static uint8_t read_iir(struct serial *s)
{
    uint8_t id = interrupt_id(s);
    if (id == IIR_THRI)
        s->thr_pending = false;
    return id | (fifos_on(s) ? IIR_FIFOS : 0);
}

static uint8_t read_msr(struct serial *s)
{
    uint8_t msr = s->msr;
    s->msr &= (uint8_t)~MSR_DELTAS;
    return msr;
}

static uint8_t read_register(struct serial *s, unsigned reg)
{
    bool dlab = s->lcr & LCR_DLAB;
    switch (reg) {
    case RBR:
        return dlab ? (uint8_t)s->divisor : read_rbr(s);
    case IER:
        return dlab ? (uint8_t)(s->divisor >> 8) : s->ier;
    case IIR:
        return read_iir(s);
    case LCR:
        return s->lcr;
    case MCR:
        return s->mcr;
    case LSR:
        return read_lsr(s);
    case MSR:
        return read_msr(s);
    default:
        return s->scr;
    }
}

static void write_register(struct serial *s, unsigned reg, uint8_t value)
{
    bool dlab = s->lcr & LCR_DLAB;
    switch (reg) {
    case THR:
        if (dlab)
            s->divisor = (uint16_t)((s->divisor & 0xff00) | value);
        else
            write_thr(s, value);
        break;
    case IER:
        if (dlab)
            s->divisor = (uint16_t)((s->divisor & 0x00ff) | value << 8);
        else
            write_ier(s, value);
        break;
    case FCR:
        write_fcr(s, value);
        break;
    case LCR:
        s->lcr = value;
        break;
    case MCR:
        write_mcr(s, value);
        break;
    case SCR:
        s->scr = value;
        break;
    } /* LSR and MSR are read only */
}

static uint64_t serial_read(void *opaque, const struct access *access, uint64_t offset,
                            unsigned size)
{
    struct serial *s = opaque;
    (void)access, (void)size;
    uint8_t value = read_register(s, (unsigned)offset);
    serial_update(s);
    return value;
}

/* The receiver may have got room, or have left loopback: input that waited goes on. */
static void serial_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                         uint64_t value)
{
    struct serial *s = opaque;
    (void)access, (void)size;
    write_register(s, (unsigned)offset, (uint8_t)value);
    serial_update(s);
    if (offset == FCR || offset == MCR)
        accept_input(s);
}

/* ---- Life ------------------------------------------------------------------------------------ */

/* Master reset (data sheet, table III). The divisor, undefined there, is firmware's 9600 baud. */
static void serial_reset(struct device *dev)
{
    struct serial *s = (struct serial *)dev;
    s->ier = s->fcr = s->lcr = s->mcr = s->scr = s->error = 0;
    s->divisor = 12;
    memset(&s->rx, 0, sizeof(s->rx));
    memset(&s->tx, 0, sizeof(s->tx));
    s->thr_pending = false;
    restart_timeout(s);
    update_modem(s);
    s->msr &= (uint8_t)~MSR_DELTAS;
    serial_update(s);
}

static void serial_destroy(struct device *dev)
{
    struct serial *s = (struct serial *)dev;
    timer_cancel(&s->timer);
    io_remove(s->board->io, s->ports);
    free(s);
}

static const struct field serial_fields[] = {
    FIELD(struct serial, ier, FIELD_U8, 1),
    FIELD(struct serial, fcr, FIELD_U8, 1),
    FIELD(struct serial, lcr, FIELD_U8, 1),
    FIELD(struct serial, mcr, FIELD_U8, 1),
    FIELD(struct serial, scr, FIELD_U8, 1),
    FIELD(struct serial, msr, FIELD_U8, 1),
    FIELD(struct serial, error, FIELD_U8, 1),
    FIELD(struct serial, divisor, FIELD_U16, 1),
    FIELD(struct serial, thr_pending, FIELD_U8, 1),
    FIELD(struct serial, timed_out, FIELD_U8, 1),
    FIELD_ARRAY(struct serial, rx.bytes, FIELD_U8, 1),
    FIELD(struct serial, rx.first, FIELD_U8, 1),
    FIELD(struct serial, rx.count, FIELD_U8, 1),
    FIELD_ARRAY(struct serial, tx.bytes, FIELD_U8, 1),
    FIELD(struct serial, tx.first, FIELD_U8, 1),
    FIELD(struct serial, tx.count, FIELD_U8, 1),
    FIELD(struct serial, deadline, FIELD_U64, 1),
};
static const struct state_desc serial_state = STATE_DESC("serial", 1, serial_fields);

static const struct io_ops serial_ops = {serial_read, serial_write, 1, 1};

struct serial *serial_new(struct board *board, const struct serial_config *config)
{
    struct serial *s = chip_alloc(sizeof(*s));
    s->dev = (struct device){
        .name = "serial", .state = &serial_state, .reset = serial_reset, .destroy = serial_destroy};
    s->board = board;
    s->config = *config;
    timer_init(&s->timer, board->queue, receive_timeout, s);
    s->ports = io_add(board->io, config->base, 8, &serial_ops, s, "serial");
    serial_reset(&s->dev);
    if (config->chr) {
        struct chardev_front front = {.opaque = s,
                                      .can_receive = front_can_receive,
                                      .receive = front_receive,
                                      .writable = front_writable,
                                      .line_break = front_line_break};
        chardev_connect(config->chr, &front);
    }
    return s;
}
