/*
 * hpet.c - the high precision event timer: a 64-bit counter of 100 MHz and three comparators.
 *
 * Specified in the IA-PC HPET Specification 1.0a. Comparators interrupt through the I/O APIC (GSI
 * 20-23), by FSB message, or in place of the PIT (IRQ 0) and the RTC (IRQ 8).
 */
#include "internal/chips.h"
#include "internal/clock.h"
#include "internal/event.h"
#include <stdlib.h>

enum { TIMERS = 3, TICK_NS = 10, FIRST_ROUTE = 20, ROUTES = 4 };
/* A guest may set any period; interrupts are never closer than this (10 us). */
enum { MIN_TICKS = 1000 };

/* Registers; those of comparator n from 100h + 20h * n. */
enum { GCAP_ID = 0x000, GEN_CONF = 0x010, GINTR_STA = 0x020, MAIN_CNT = 0x0f0, TIMER0 = 0x100 };
enum { TN_CONF = 0x00, TN_CMP = 0x08, TN_FSB = 0x10, TIMER_STRIDE = 0x20 };

enum { CONF_ENABLE = 1 << 0, CONF_LEGACY = 1 << 1 };
enum {
    TN_LEVEL = 1 << 1,
    TN_ENABLE = 1 << 2,
    TN_PERIODIC = 1 << 3,
    TN_SET_VALUE = 1 << 6,
    TN_32BIT = 1 << 8,
    TN_FSB_ENABLE = 1 << 14,
    TN_WRITABLE = 0x7f4e,
};
/* Can be periodic, 64 bits wide, deliver by FSB, on GSI 20-23. */
#define TN_CAPABILITIES (1ull << 4 | 1ull << 5 | 1ull << 15 | 0xfull << (32 + FIRST_ROUTE))
#define TN_ROUTE(conf)  ((conf) >> 9 & 31)
/* Period 10^7 fs; vendor 8086h; legacy replacement, 64 bits, 3 timers, revision 1. */
#define CAPABILITIES                                                                               \
    ((uint64_t)TICK_NS * 1000000 << 32 | 0x80860000ull | 1 << 15 | 1 << 13 | (TIMERS - 1) << 8 | 1)

struct comparator {
    struct hpet *hpet;
    uint64_t conf, value, period, fsb;
    struct timer timer;
};

struct hpet {
    struct device dev;
    struct board *board;
    struct msi_port msi;
    struct irq_line route[TIMERS][ROUTES]; /* each comparator's wire to GSI 20-23 */
    struct irq_line legacy[2];             /* wires to IRQ 0 and IRQ 8 */
    uint64_t conf, status;
    uint64_t offset; /* the running counter minus the clock's ticks, modulo 2^64 */
    uint64_t halted; /* the counter while it is not enabled */
    struct comparator timers[TIMERS];
    int page;
};

/* ---- The counter ----------------------------------------------------------------------------- */

static uint64_t clock_ticks(const struct hpet *h)
{
    return clock_now(h->board->clock) / TICK_NS;
}

/* The counter when the clock has come to `ticks`. */
static uint64_t counter_at(const struct hpet *h, uint64_t ticks)
{
    return h->conf & CONF_ENABLE ? ticks + h->offset : h->halted;
}

static uint64_t hpet_counter(const struct hpet *h)
{
    return counter_at(h, clock_ticks(h));
}

/* ---- Interrupts ------------------------------------------------------------------------------ */

static unsigned comparator_index(const struct comparator *t)
{
    return (unsigned)(t - t->hpet->timers);
}

static bool is_legacy(const struct comparator *t)
{
    return (t->hpet->conf & CONF_LEGACY) && comparator_index(t) < 2;
}

static bool wants_level(const struct comparator *t)
{
    return (t->conf & TN_LEVEL) && !(t->conf & TN_FSB_ENABLE);
}

static struct irq_line comparator_line(const struct comparator *t)
{
    unsigned n = comparator_index(t), route = TN_ROUTE(t->conf) - FIRST_ROUTE;
    if (is_legacy(t))
        return t->hpet->legacy[n];
    return route < ROUTES ? t->hpet->route[n][route] : (struct irq_line){0};
}

/* Lines as status and configuration make them now, outside of edges. */
static void hpet_update(struct hpet *h)
{
    for (unsigned n = 0; n < TIMERS; n++) {
        const struct comparator *t = &h->timers[n];
        struct irq_line line = comparator_line(t);
        for (unsigned r = 0; r < ROUTES; r++)
            if (!line.set || line.pin != h->route[n][r].pin)
                irq_set(&h->route[n][r], false);
        bool level = (h->status >> n & 1) && wants_level(t) && (t->conf & TN_ENABLE);
        irq_set(&line, level);
    }
    for (unsigned i = 0; i < 2; i++)
        gsi_take_over(&h->legacy[i], h->conf & CONF_LEGACY);
}

static void comparator_interrupt(struct comparator *t)
{
    struct hpet *h = t->hpet;
    if (wants_level(t)) {
        h->status |= 1ull << comparator_index(t);
        hpet_update(h);
    } else if (!(t->conf & TN_ENABLE)) {
        return;
    } else if ((t->conf & TN_FSB_ENABLE) && h->msi.send) {
        h->msi.send(h->msi.opaque, t->fsb >> 32, (uint32_t)t->fsb);
    } else {
        struct irq_line line = comparator_line(t);
        irq_set(&line, true);
        irq_set(&line, false);
    }
}

/* ---- Comparators ----------------------------------------------------------------------------- */

static uint64_t comparator_mask(const struct comparator *t)
{
    return t->conf & TN_32BIT ? UINT32_MAX : UINT64_MAX;
}

/* Arms for when the counter equals the comparator. A value in the past is met after a wrap: never,
 * with 64 bits. So whoever makes a value that is ahead says what he took for now: by the time this
 * is reached, it may have passed. */
static void comparator_arm(struct comparator *t, uint64_t ticks, bool just_met)
{
    struct hpet *h = t->hpet;
    uint64_t wait = (t->value - counter_at(h, ticks)) & comparator_mask(t);
    timer_cancel(&t->timer);
    if (!(h->conf & CONF_ENABLE))
        return;
    if (wait == 0 && just_met) /* one wrap later */
        wait = t->conf & TN_32BIT ? 1ull << 32 : UINT64_MAX;
    if (wait < 1ull << 56)
        timer_arm(&t->timer, (ticks + wait) * TICK_NS);
}

/* A periodic comparator moves on by whole periods until it is ahead of the counter. */
static void comparator_advance(struct comparator *t, uint64_t ticks)
{
    uint64_t mask = comparator_mask(t), period = t->period & mask;
    uint64_t late = (counter_at(t->hpet, ticks) - t->value) & mask;
    if (!(t->conf & TN_PERIODIC) || period == 0)
        return;
    if (period < MIN_TICKS)
        late += MIN_TICKS;
    t->value = (t->value + (late / period + 1) * period) & mask;
}

static void comparator_expired(void *opaque)
{
    struct comparator *t = opaque;
    uint64_t ticks = clock_ticks(t->hpet);
    comparator_advance(t, ticks);
    comparator_arm(t, ticks, true);
    comparator_interrupt(t);
}

/* Delivers what is due before anything is read or changed: the I/O thread may be late. */
static void hpet_sync(struct hpet *h)
{
    for (unsigned n = 0; n < TIMERS; n++) {
        struct comparator *t = &h->timers[n];
        if (timer_armed(&t->timer) && t->timer.deadline <= clock_now(h->board->clock))
            comparator_expired(t);
    }
}

/* ---- Registers ------------------------------------------------------------------------------- */

static uint64_t read_register(struct hpet *h, unsigned reg)
{
    switch (reg) {
    case GCAP_ID:
        return CAPABILITIES;
    case GEN_CONF:
        return h->conf;
    case GINTR_STA:
        return h->status;
    case MAIN_CNT:
        return hpet_counter(h);
    }
    unsigned n = (reg - TIMER0) / TIMER_STRIDE;
    if (reg < TIMER0 || n >= TIMERS)
        return 0;
    switch ((reg - TIMER0) % TIMER_STRIDE) {
    case TN_CONF:
        return h->timers[n].conf | TN_CAPABILITIES;
    case TN_CMP:
        return h->timers[n].value;
    case TN_FSB:
        return h->timers[n].fsb;
    }
    return 0;
}

static void write_conf(struct hpet *h, uint64_t value)
{
    uint64_t ticks = clock_ticks(h), counter = counter_at(h, ticks);
    h->conf = value & (CONF_ENABLE | CONF_LEGACY);
    h->halted = counter;
    h->offset = counter - ticks;
    for (unsigned n = 0; n < TIMERS; n++)
        comparator_arm(&h->timers[n], ticks, false);
}

static void write_counter(struct hpet *h, uint64_t value)
{
    if (h->conf & CONF_ENABLE)
        return; /* only while it is halted (2.3.7) */
    h->halted = value;
}

/* In periodic mode a plain write is the period; after TN_SET_VALUE it is the first match too. */
static void write_comparator(struct comparator *t, uint64_t value, uint64_t mask)
{
    if (!(t->conf & TN_PERIODIC) || (t->conf & TN_SET_VALUE))
        t->value = (t->value & ~mask) | (value & mask);
    if (t->conf & TN_PERIODIC)
        t->period = (t->period & ~mask) | (value & mask);
    t->value &= comparator_mask(t);
    t->conf &= ~(uint64_t)TN_SET_VALUE;
    comparator_arm(t, clock_ticks(t->hpet), false);
}

static void write_timer(struct hpet *h, unsigned n, unsigned reg, uint64_t value, uint64_t mask)
{
    struct comparator *t = &h->timers[n];
    switch (reg) {
    case TN_CONF:
        t->conf = (t->conf & ~mask) | (value & mask & TN_WRITABLE);
        t->value &= comparator_mask(t);
        comparator_arm(t, clock_ticks(t->hpet), false);
        break;
    case TN_CMP:
        write_comparator(t, value, mask);
        break;
    case TN_FSB:
        t->fsb = (t->fsb & ~mask) | (value & mask);
        break;
    }
}

/* `mask` has the bits of the register that are written: all, or one half. */
static void write_register(struct hpet *h, unsigned reg, uint64_t value, uint64_t mask)
{
    unsigned n = (reg - TIMER0) / TIMER_STRIDE;
    switch (reg) {
    case GEN_CONF:
        write_conf(h, (h->conf & ~mask) | (value & mask));
        break;
    case GINTR_STA:
        h->status &= ~(value & mask);
        break;
    case MAIN_CNT:
        write_counter(h, (h->halted & ~mask) | (value & mask));
        break;
    default:
        if (reg >= TIMER0 && n < TIMERS)
            write_timer(h, n, (reg - TIMER0) % TIMER_STRIDE, value, mask);
    }
    hpet_update(h);
}

static uint64_t hpet_read(void *opaque, const struct access *access, uint64_t offset, unsigned size)
{
    (void)access, (void)size;
    hpet_sync(opaque);
    return read_register(opaque, (unsigned)offset & ~7u) >> (offset & 7) * 8;
}

static void hpet_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                       uint64_t value)
{
    unsigned shift = (offset & 4) * 8;
    (void)access;
    hpet_sync(opaque);
    if ((offset & (size - 1)) == 0) /* an access across a register's middle is undefined (2.3.2) */
        write_register(opaque, (unsigned)offset & ~7u, value << shift,
                       size == 8 ? UINT64_MAX : (uint64_t)UINT32_MAX << shift);
}

/* ---- Life ------------------------------------------------------------------------------------ */

static void hpet_reset(struct device *dev)
{
    struct hpet *h = (struct hpet *)dev;
    h->conf = h->status = h->offset = h->halted = 0;
    for (unsigned n = 0; n < TIMERS; n++) {
        struct comparator *t = &h->timers[n];
        timer_cancel(&t->timer);
        t->conf = t->period = t->fsb = 0;
        t->value = UINT64_MAX;
    }
    hpet_update(h);
}

static void hpet_destroy(struct device *dev)
{
    struct hpet *h = (struct hpet *)dev;
    for (unsigned n = 0; n < TIMERS; n++)
        timer_cancel(&h->timers[n].timer);
    phys_remove(h->board->map, h->page);
    free(h);
}

#define COMPARATOR_FIELDS(i)                                                                       \
    FIELD(struct hpet, timers[i].conf, FIELD_U64, 1),                                              \
        FIELD(struct hpet, timers[i].value, FIELD_U64, 1),                                         \
        FIELD(struct hpet, timers[i].period, FIELD_U64, 1),                                        \
        FIELD(struct hpet, timers[i].fsb, FIELD_U64, 1)

static const struct field hpet_fields[] = {
    FIELD(struct hpet, conf, FIELD_U64, 1),
    FIELD(struct hpet, status, FIELD_U64, 1),
    FIELD(struct hpet, offset, FIELD_U64, 1),
    FIELD(struct hpet, halted, FIELD_U64, 1),
    COMPARATOR_FIELDS(0),
    COMPARATOR_FIELDS(1),
    COMPARATOR_FIELDS(2),
};
static const struct state_desc hpet_state = STATE_DESC("hpet", 1, hpet_fields);

static const struct io_ops hpet_ops = {hpet_read, hpet_write, 4, 8};

struct hpet *hpet_new(struct board *board, struct gsi *gsi, struct msi_port msi, struct error *err)
{
    struct hpet *h = chip_alloc(sizeof(*h));
    h->dev = (struct device){
        .name = "hpet", .state = &hpet_state, .reset = hpet_reset, .destroy = hpet_destroy};
    h->board = board;
    h->msi = msi;
    h->page = phys_add_mmio(board->map, HPET_BASE, PAGE_SIZE, &hpet_ops, h, "hpet", err);
    if (h->page < 0) {
        free(h);
        return NULL;
    }
    h->legacy[0] = gsi_line(gsi, 0);
    h->legacy[1] = gsi_line(gsi, 8);
    for (unsigned n = 0; n < TIMERS; n++) {
        h->timers[n].hpet = h;
        timer_init(&h->timers[n].timer, board->queue, comparator_expired, &h->timers[n]);
        for (unsigned r = 0; r < ROUTES; r++)
            h->route[n][r] = gsi_line(gsi, FIRST_ROUTE + r);
    }
    hpet_reset(&h->dev);
    return h;
}
