/*
 * pic.c - the pair of 8259A interrupt controllers of a PC, the second cascaded on the first's IR2.
 *
 * Specified in Intel's 8259A data sheet (231468) and, for the edge/level registers 4D0h and 4D1h
 * that replace ICW1.LTIM on a PC, in the PIIX data sheets (section 3.2.4).
 *
 * One deviation, shared with the pc that guests know: an edge that was latched stays latched when
 * the line falls before the INTA cycle (the chip would answer with the spurious IR7), because
 * devices here may pulse their lines in no time.
 */
#include "internal/chips.h"
#include "internal/log.h"
#include <stdlib.h>

enum { MASTER, SLAVE };
enum { CASCADE = 2, SPURIOUS = 7 };

/* ICW1, OCW2 and OCW3 share the even port, told apart by bits 4 and 3. */
enum { ICW1_IC4 = 1 << 0, ICW1_SNGL = 1 << 1, ICW1 = 1 << 4 };
enum { ICW4_UPM = 1 << 0, ICW4_AEOI = 1 << 1, ICW4_SFNM = 1 << 4 };
enum { OCW3 = 1 << 3, OCW3_RIS = 1 << 0, OCW3_RR = 1 << 1, OCW3_POLL = 1 << 2 };
enum { OCW3_SMM = 1 << 5, OCW3_ESMM = 1 << 6 };

struct i8259 {
    uint8_t line;   /* levels of the inputs now */
    uint8_t latch;  /* edges seen since the last INTA */
    uint8_t elcr;   /* 1: the input is level sensitive */
    uint8_t imr;    /* masked inputs */
    uint8_t isr;    /* in service */
    uint8_t base;   /* ICW2: vector of IR0 */
    uint8_t lowest; /* input of the lowest priority; 7 unless rotated */
    uint8_t icw;    /* the initialisation word the odd port expects (2-4); 0: none */
    bool need_icw4; /* ICW1.IC4 */
    bool single;    /* ICW1.SNGL: no cascade, no ICW3 */
    bool auto_eoi;
    bool rotate_aeoi; /* rotate in automatic EOI mode */
    bool special_mask;
    bool nested;   /* special fully nested mode */
    bool poll;     /* the next read is an INTA by hand */
    bool read_isr; /* the even port reads ISR, else IRR */
    bool out;      /* INT now */
};

struct pic {
    struct device dev;
    struct i8259 chip[2];
    struct irq_line intr;
    struct board *board;
    int ports[3];
};

/* ---- One chip -------------------------------------------------------------------------------- */

static uint8_t chip_irr(const struct i8259 *c)
{
    return (uint8_t)((c->latch & ~c->elcr) | (c->line & c->elcr));
}

/* The input of the highest priority among `inputs`, or -1. */
static int chip_first(const struct i8259 *c, uint8_t inputs)
{
    for (unsigned i = 1; i <= 8; i++) {
        unsigned n = (c->lowest + i) & 7;
        if (inputs & (1u << n))
            return (int)n;
    }
    return -1;
}

static unsigned chip_rank(const struct i8259 *c, int n)
{
    return n < 0 ? 8 : ((unsigned)n - c->lowest - 1) & 7;
}

/* The request that the chip would pass on now, or -1: the first unmasked one, if it outranks what
 * is in service. In special mask mode a masked input in service blocks nothing; in special fully
 * nested mode the slave may interrupt its own service. Nothing passes during initialisation. */
static int chip_request(const struct i8259 *c, bool master)
{
    int request = chip_first(c, chip_irr(c) & (uint8_t)~c->imr);
    if (request < 0 || c->icw)
        return -1;
    uint8_t service = c->isr;
    if (c->special_mask)
        service &= (uint8_t)~c->imr;
    if (c->nested && master && request == CASCADE)
        service &= (uint8_t) ~(1u << CASCADE);
    return chip_rank(c, request) < chip_rank(c, chip_first(c, service)) ? request : -1;
}

static void chip_set_line(struct i8259 *c, unsigned n, bool level)
{
    uint8_t bit = (uint8_t)(1u << n);
    if (level && !(c->line & bit))
        c->latch |= bit;
    c->line = (uint8_t)(level ? c->line | bit : c->line & ~bit);
}

/* First INTA pulse for `n`: request into service. */
static void chip_service(struct i8259 *c, unsigned n)
{
    c->latch &= (uint8_t) ~(1u << n);
    if (!c->auto_eoi)
        c->isr |= (uint8_t)(1u << n);
    else if (c->rotate_aeoi)
        c->lowest = (uint8_t)n;
}

/* ---- The pair -------------------------------------------------------------------------------- */

/* Passes both INT outputs on. */
static void pic_update(struct pic *pic)
{
    struct i8259 *master = &pic->chip[MASTER], *slave = &pic->chip[SLAVE];
    slave->out = chip_request(slave, false) >= 0;
    chip_set_line(master, CASCADE, slave->out);
    bool out = chip_request(master, true) >= 0;
    if (out != master->out) {
        master->out = out;
        irq_set(&pic->intr, out);
    }
}

/* INTA lowers INT; it rises again, as a new edge, if another request waits. */
static void pic_drop_output(struct pic *pic, unsigned which)
{
    if (which == SLAVE) {
        chip_set_line(&pic->chip[MASTER], CASCADE, false);
    } else if (pic->chip[MASTER].out) {
        pic->chip[MASTER].out = false;
        irq_set(&pic->intr, false);
    }
}

uint8_t pic_acknowledge(struct pic *pic)
{
    struct i8259 *c = &pic->chip[MASTER];
    int n = chip_request(c, true);
    if (n >= 0) {
        chip_service(c, (unsigned)n);
        pic_drop_output(pic, MASTER);
        if (n == CASCADE && !c->single) {
            c = &pic->chip[SLAVE];
            n = chip_request(c, false);
            if (n >= 0) {
                chip_service(c, (unsigned)n);
                pic_drop_output(pic, SLAVE);
            }
        }
    }
    if (n < 0)
        n = SPURIOUS;
    pic_update(pic);
    return (uint8_t)(c->base + n);
}

static void pic_set(void *opaque, unsigned irq, bool level)
{
    struct pic *pic = opaque;
    if (irq == CASCADE)
        return;
    chip_set_line(&pic->chip[irq >> 3], irq & 7, level);
    pic_update(pic);
}

struct irq_line pic_line(struct pic *pic, unsigned irq)
{
    return (struct irq_line){.set = pic_set, .opaque = pic, .pin = irq & 15};
}

void pic_connect(struct pic *pic, struct irq_line intr)
{
    pic->intr = intr;
    irq_set(&intr, pic->chip[MASTER].out);
}

/* ---- Command words --------------------------------------------------------------------------- */

/* ICW1: edges are forgotten, the mask is cleared, IR7 is lowest, and the modes of ICW4 go. */
static void write_icw1(struct i8259 *c, uint8_t value)
{
    c->latch = c->imr = c->isr = 0;
    c->lowest = 7;
    c->special_mask = c->poll = c->read_isr = false;
    c->auto_eoi = c->rotate_aeoi = c->nested = false;
    c->need_icw4 = value & ICW1_IC4;
    c->single = value & ICW1_SNGL;
    c->icw = 2;
}

/* Non-specific EOI: the highest in service, but not one that the special mask hides. */
static int eoi_target(const struct i8259 *c)
{
    return chip_first(c, c->special_mask ? c->isr & (uint8_t)~c->imr : c->isr);
}

static void write_ocw2(struct i8259 *c, uint8_t value)
{
    int n = value & 7;
    switch (value >> 5) { /* R, SL, EOI */
    case 0:               /* rotate in automatic EOI mode: clear, set */
    case 4:
        c->rotate_aeoi = value >> 7;
        break;
    case 1: /* non-specific EOI; with rotation */
    case 5:
        n = eoi_target(c);
        if (n < 0)
            break;
        c->isr &= (uint8_t) ~(1u << n);
        if (value & 0x80)
            c->lowest = (uint8_t)n;
        break;
    case 3: /* specific EOI; with rotation */
    case 7:
        c->isr &= (uint8_t) ~(1u << n);
        if (value & 0x80)
            c->lowest = (uint8_t)n;
        break;
    case 6: /* set priority */
        c->lowest = (uint8_t)n;
        break;
    }
}

static void write_ocw3(struct i8259 *c, uint8_t value)
{
    if (value & OCW3_ESMM)
        c->special_mask = value & OCW3_SMM;
    c->poll = value & OCW3_POLL;
    if (value & OCW3_RR)
        c->read_isr = value & OCW3_RIS;
}

/* The odd port: ICW2-ICW4 in turn after ICW1, else OCW1. */
static void write_odd(struct pic *pic, struct i8259 *c, uint8_t value)
{
    switch (c->icw) {
    case 0:
        c->imr = value;
        break;
    case 2:
        c->base = value & 0xf8;
        c->icw = c->single ? (c->need_icw4 ? 4 : 0) : 3;
        break;
    case 3: /* which input has a slave: soldered on a PC */
        c->icw = c->need_icw4 ? 4 : 0;
        break;
    case 4:
        c->nested = value & ICW4_SFNM;
        c->auto_eoi = value & ICW4_AEOI;
        if (!(value & ICW4_UPM))
            LOG(pic->board->log, LOG_GUEST_ERRORS, "pic: ICW4 asks for MCS-80/85 mode\n");
        c->icw = 0;
        break;
    }
}

static void pic_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                      uint64_t value, unsigned which)
{
    struct pic *pic = opaque;
    struct i8259 *c = &pic->chip[which];
    uint8_t byte = (uint8_t)value;
    (void)access, (void)size;
    if (offset & 1)
        write_odd(pic, c, byte);
    else if (byte & ICW1)
        write_icw1(c, byte);
    else if (byte & OCW3)
        write_ocw3(c, byte);
    else
        write_ocw2(c, byte);
    pic_update(pic);
}

/* Poll mode: the read is the INTA; bit 7 says whether there was a request. */
static uint8_t poll_read(struct pic *pic, unsigned which)
{
    struct i8259 *c = &pic->chip[which];
    int n = chip_request(c, which == MASTER);
    c->poll = false;
    if (n < 0)
        return 0;
    chip_service(c, (unsigned)n);
    pic_drop_output(pic, which);
    pic_update(pic);
    return (uint8_t)(0x80 | n);
}

static uint64_t pic_read(struct pic *pic, uint64_t offset, unsigned which)
{
    struct i8259 *c = &pic->chip[which];
    if (c->poll)
        return poll_read(pic, which);
    if (offset & 1)
        return c->imr;
    return c->read_isr ? c->isr : chip_irr(c);
}

static uint64_t master_read(void *opaque, const struct access *access, uint64_t offset,
                            unsigned size)
{
    (void)access, (void)size;
    return pic_read(opaque, offset, MASTER);
}

static uint64_t slave_read(void *opaque, const struct access *access, uint64_t offset,
                           unsigned size)
{
    (void)access, (void)size;
    return pic_read(opaque, offset, SLAVE);
}

static void master_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                         uint64_t value)
{
    pic_write(opaque, access, offset, size, value, MASTER);
}

static void slave_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                        uint64_t value)
{
    pic_write(opaque, access, offset, size, value, SLAVE);
}

/* ELCR: the timer, keyboard, cascade, RTC and FPU inputs are always edge triggered. */
static const uint8_t elcr_mask[2] = {0xf8, 0xde};

static uint64_t elcr_read(void *opaque, const struct access *access, uint64_t offset, unsigned size)
{
    struct pic *pic = opaque;
    (void)access, (void)size;
    return pic->chip[offset & 1].elcr;
}

static void elcr_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                       uint64_t value)
{
    struct pic *pic = opaque;
    (void)access, (void)size;
    pic->chip[offset & 1].elcr = (uint8_t)value & elcr_mask[offset & 1];
    pic_update(pic);
}

/* ---- Life ------------------------------------------------------------------------------------ */

static void pic_reset(struct device *dev)
{
    struct pic *pic = (struct pic *)dev;
    for (unsigned i = 0; i < 2; i++) {
        struct i8259 *c = &pic->chip[i];
        uint8_t line = c->line;
        bool out = c->out;
        *c = (struct i8259){.line = line, .lowest = 7, .out = out};
    }
    pic_update(pic);
}

static void pic_destroy(struct device *dev)
{
    struct pic *pic = (struct pic *)dev;
    for (unsigned i = 0; i < 3; i++)
        io_remove(pic->board->io, pic->ports[i]);
    free(pic);
}

#define CHIP_FIELDS(i)                                                                             \
    FIELD(struct pic, chip[i].line, FIELD_U8, 1), FIELD(struct pic, chip[i].latch, FIELD_U8, 1),   \
        FIELD(struct pic, chip[i].elcr, FIELD_U8, 1), FIELD(struct pic, chip[i].imr, FIELD_U8, 1), \
        FIELD(struct pic, chip[i].isr, FIELD_U8, 1), FIELD(struct pic, chip[i].base, FIELD_U8, 1), \
        FIELD(struct pic, chip[i].lowest, FIELD_U8, 1),                                            \
        FIELD(struct pic, chip[i].icw, FIELD_U8, 1),                                               \
        FIELD(struct pic, chip[i].need_icw4, FIELD_U8, 1),                                         \
        FIELD(struct pic, chip[i].single, FIELD_U8, 1),                                            \
        FIELD(struct pic, chip[i].auto_eoi, FIELD_U8, 1),                                          \
        FIELD(struct pic, chip[i].rotate_aeoi, FIELD_U8, 1),                                       \
        FIELD(struct pic, chip[i].special_mask, FIELD_U8, 1),                                      \
        FIELD(struct pic, chip[i].nested, FIELD_U8, 1),                                            \
        FIELD(struct pic, chip[i].poll, FIELD_U8, 1),                                              \
        FIELD(struct pic, chip[i].read_isr, FIELD_U8, 1),                                          \
        FIELD(struct pic, chip[i].out, FIELD_U8, 1)

static const struct field pic_fields[] = {CHIP_FIELDS(0), CHIP_FIELDS(1)};
static const struct state_desc pic_state = STATE_DESC("pic", 1, pic_fields);

static const struct io_ops master_ops = {master_read, master_write, 1, 1};
static const struct io_ops slave_ops = {slave_read, slave_write, 1, 1};
static const struct io_ops elcr_ops = {elcr_read, elcr_write, 1, 1};

struct pic *pic_new(struct board *board)
{
    struct pic *pic = chip_alloc(sizeof(*pic));
    pic->dev = (struct device){
        .name = "pic", .state = &pic_state, .reset = pic_reset, .destroy = pic_destroy};
    pic->board = board;
    pic->ports[0] = io_add(board->io, 0x20, 2, &master_ops, pic, "pic master");
    pic->ports[1] = io_add(board->io, 0xa0, 2, &slave_ops, pic, "pic slave");
    pic->ports[2] = io_add(board->io, 0x4d0, 2, &elcr_ops, pic, "pic elcr");
    pic_reset(&pic->dev);
    return pic;
}
