/*
 * pit.c - the 8254 interval timer of a PC, with the speaker port 61h that gates its third counter.
 *
 * Specified in Intel's 8254 data sheet (231164); port 61h in the PIIX data sheets (section 3.2.6).
 *
 * Nothing counts here: a counter is the tick (of PIT_HZ) at which its element was loaded and the
 * count it was loaded with; output and value follow from the present tick. Counter 0 arms a timer
 * for the next rising edge of its output. In the modes that repeat or strobe (2, 3, 4) its line is
 * shown high but for a pulse at each rising edge, since IRQ 0 is edge triggered everywhere.
 */
#include "internal/chips.h"
#include "internal/clock.h"
#include "internal/event.h"
#include <stdlib.h>

enum { COUNTERS = 3, SPEAKER_COUNTER = 2, CONTROL = 3 };
enum { RW_LATCH, RW_LOW, RW_HIGH, RW_BOTH };
/* Port 61h. */
enum { SPK_GATE = 1 << 0, SPK_WRITABLE = 0x0f, SPK_REFRESH = 1 << 4, SPK_OUT = 1 << 5 };
enum { REFRESH_TICKS = 18 }; /* counter 1 requests a DRAM refresh every 15 us */
/* A guest may program a count of two; interrupts are never closer than this (10 us). */
enum { MIN_PERIOD_TICKS = 12 };

struct counter {
    uint8_t mode;    /* 0-5 */
    uint8_t written; /* bits 3-1 of the control word: modes 2 and 3 have two names */
    uint8_t rw;
    bool bcd;
    bool gate;
    /* what the bus has seen */
    bool second_write, second_read; /* RW_BOTH: the high byte is next */
    uint8_t low_written;
    bool latched;
    uint16_t latch;
    bool status_latched;
    uint8_t status;
    /* the counting element */
    bool loaded;          /* a count was written since the control word */
    bool started;         /* modes 1 and 5: there was a trigger since the control word */
    bool running;         /* counts; else stands still at `elapsed` */
    bool out_before;      /* the output until `start` */
    uint32_t count;       /* 1-65536 */
    uint32_t next_count;  /* written, not yet in the element; 0: none */
    uint64_t switch_tick; /* modes 2, 3: when next_count gets in; 0: with the next trigger */
    bool switch_low;      /* mode 3: it begins with the low half */
    uint64_t start;       /* the tick at which `count` was loaded: the one after the write */
    uint64_t elapsed;     /* ticks since then, while not running */
};

struct pit {
    struct device dev;
    struct board *board;
    struct irq_line irq0;
    struct counter counter[COUNTERS];
    uint8_t speaker;   /* port 61h bits 3-0 */
    uint64_t deadline; /* the timer's; 0: not armed */
    bool rises;        /* counter 0's output rises then */
    struct timer timer;
    int ports[2];
};

/* ---- One counter ----------------------------------------------------------------------------- */

static bool counter_repeats(const struct counter *c)
{
    return c->mode == 2 || c->mode == 3;
}

static bool counter_triggered(const struct counter *c)
{
    return c->mode == 1 || c->mode == 5;
}

/* The count has been written, its load is one tick away. Ticks are compared modulo 2^64: mode 3 may
 * begin in the middle of a cycle that would have started before tick 0. */
static bool counter_waits(const struct counter *c, uint64_t now)
{
    return c->running && (int64_t)(now - c->start) < 0;
}

static uint64_t counter_elapsed(const struct counter *c, uint64_t now)
{
    if (!c->running)
        return c->elapsed;
    return counter_waits(c, now) ? 0 : now - c->start;
}

static uint32_t high_half(uint32_t count)
{
    return (count + 1) / 2;
}

/* A new count of modes 2 and 3 that was waiting for the end of the (half) cycle gets in. */
static void counter_sync(struct counter *c, uint64_t now)
{
    if (!c->next_count || !c->switch_tick || now < c->switch_tick)
        return;
    c->count = c->next_count;
    c->start = c->switch_tick - (c->switch_low ? high_half(c->count) : 0);
    c->next_count = 0;
    c->switch_tick = 0;
}

static bool counter_output(const struct counter *c, uint64_t now)
{
    if (!c->loaded || (counter_triggered(c) && !c->started))
        return c->mode != 0;
    if (counter_waits(c, now))
        return c->out_before;
    uint64_t elapsed = counter_elapsed(c, now);
    switch (c->mode) {
    case 0:
    case 1:
        return elapsed >= c->count;
    case 2:
        return !c->running || elapsed % c->count != c->count - 1;
    case 3:
        return !c->running || elapsed % c->count < high_half(c->count);
    default: /* 4, 5: a strobe of one tick */
        return elapsed != c->count;
    }
}

/* Mode 3 counts by two, twice per cycle; an odd count loads itself less one (data sheet, mode 3).
 */
static uint32_t square_value(const struct counter *c, uint64_t elapsed)
{
    uint32_t phase = (uint32_t)(elapsed % c->count), high = high_half(c->count);
    if (phase >= high)
        phase -= high;
    return (c->count & ~1u) - 2 * phase;
}

static uint16_t to_bcd(uint32_t n)
{
    return (uint16_t)(n % 10 | n / 10 % 10 << 4 | n / 100 % 10 << 8 | n / 1000 % 10 << 12);
}

static uint32_t from_bcd(uint16_t n)
{
    return (n & 15u) + 10 * (n >> 4 & 15u) + 100 * (n >> 8 & 15u) + 1000 * (n >> 12 & 15u);
}

static uint16_t counter_value(const struct counter *c, uint64_t now)
{
    uint64_t elapsed = counter_elapsed(c, now);
    uint32_t modulus = c->bcd ? 10000 : 65536, value;
    if (c->mode == 2)
        value = c->count - (uint32_t)(elapsed % c->count);
    else if (c->mode == 3)
        value = square_value(c, elapsed);
    else
        value = (uint32_t)((c->count + modulus - elapsed % modulus) % modulus);
    return c->bcd ? to_bcd(value) : (uint16_t)value;
}

static uint8_t counter_status(const struct counter *c, uint64_t now)
{
    bool null = !c->loaded || c->next_count || counter_waits(c, now);
    return (uint8_t)(counter_output(c, now) << 7 | null << 6 | c->rw << 4 | c->written << 1 |
                     c->bcd);
}

/* Loads the element on the next tick. */
static void counter_start(struct counter *c, uint64_t now, uint32_t count, bool out_before)
{
    c->count = count;
    c->next_count = 0;
    c->switch_tick = 0;
    c->start = now + 1;
    c->out_before = out_before;
    c->running = true;
    c->elapsed = 0;
}

static void counter_pause(struct counter *c, uint64_t now)
{
    c->elapsed = counter_elapsed(c, now);
    c->running = false;
}

/* The end of the present cycle (mode 2) or half cycle (mode 3). */
static void counter_plan_switch(struct counter *c, uint64_t now, uint32_t count)
{
    uint64_t elapsed = counter_elapsed(c, now);
    uint64_t cycle = c->start + elapsed - elapsed % c->count;
    bool in_high = elapsed % c->count < high_half(c->count);
    c->next_count = count;
    c->switch_low = c->mode == 3 && in_high;
    c->switch_tick = cycle + (c->switch_low ? high_half(c->count) : c->count);
}

/* A whole count was written. */
static void counter_load(struct counter *c, uint64_t now, uint16_t value)
{
    uint32_t count = c->bcd ? from_bcd(value) : value;
    if (count == 0)
        count = c->bcd ? 10000 : 65536;
    if (count == 1 && counter_repeats(c))
        count = 2; /* 1 is illegal there (data sheet, mode 2) */
    bool first = !c->loaded;
    c->loaded = true;
    if (counter_triggered(c)) {
        c->next_count = count;
        if (first)
            c->count = count;
    } else if (counter_repeats(c) && !first) {
        c->next_count = count;
        c->switch_tick = 0;
        if (c->running)
            counter_plan_switch(c, now, count);
    } else {
        counter_start(c, now, count, c->mode != 0);
        if (!c->gate)
            counter_pause(c, now);
    }
}

static void counter_trigger(struct counter *c, uint64_t now)
{
    bool out = counter_repeats(c) || counter_output(c, now);
    counter_start(c, now, c->next_count ? c->next_count : c->count, out);
    c->started = true;
}

static void counter_set_gate(struct counter *c, uint64_t now, bool gate)
{
    bool rising = gate && !c->gate, falling = !gate && c->gate;
    c->gate = gate;
    if (!c->loaded)
        return;
    if (counter_triggered(c)) {
        if (rising)
            counter_trigger(c, now);
    } else if (falling) {
        counter_pause(c, now);
    } else if (rising && counter_repeats(c)) {
        counter_trigger(c, now);
    } else if (rising) {
        c->start = now - c->elapsed;
        c->running = true;
    }
}

/* ---- Counter 0's interrupt ------------------------------------------------------------------- */

static uint64_t pit_now(const struct pit *pit)
{
    return clock_muldiv(clock_now(pit->board->clock), PIT_HZ, CLOCK_HZ);
}

/* The tick of the next rising edge of the output; 0: none will come by itself. */
static uint64_t next_rise(const struct counter *c, uint64_t now)
{
    uint64_t elapsed = counter_elapsed(c, now), ahead = 0;
    if (!c->loaded || !c->running)
        return 0;
    switch (c->mode) {
    case 0:
        return elapsed < c->count ? c->start + c->count : 0;
    case 4:
        return elapsed <= c->count ? c->start + c->count + 1 : 0;
    case 2:
    case 3:
        if (c->count < MIN_PERIOD_TICKS)
            ahead = MIN_PERIOD_TICKS;
        return c->start + ((elapsed + ahead) / c->count + 1) * c->count;
    }
    return 0;
}

static void pit_arm(struct pit *pit, uint64_t now)
{
    struct counter *c = &pit->counter[0];
    uint64_t tick = next_rise(c, now);
    pit->rises = true;
    if (tick && c->switch_tick && c->switch_tick < tick) {
        tick = c->switch_tick; /* the output falls, and a new count decides when it rises */
        pit->rises = false;
    }
    pit->deadline = tick ? clock_ticks_to_ns(tick, PIT_HZ) : 0;
    if (tick)
        timer_arm(&pit->timer, pit->deadline);
    else
        timer_cancel(&pit->timer);
}

/* The line as the file comment says, outside of pulses. */
static void pit_show_line(struct pit *pit, uint64_t now)
{
    const struct counter *c = &pit->counter[0];
    irq_set(&pit->irq0, c->mode != 0 || counter_output(c, now));
}

static void pit_expired(void *opaque)
{
    struct pit *pit = opaque;
    struct counter *c = &pit->counter[0];
    uint64_t now = pit_now(pit);
    counter_sync(c, now);
    if (c->mode != 0 && pit->rises)
        irq_set(&pit->irq0, false);
    pit_show_line(pit, now);
    pit_arm(pit, now);
}

/* Delivers what is due before anything is read or changed: the I/O thread may be late, and arming
 * anew, which a latch command does, too, would skip that edge. */
static void pit_sync(struct pit *pit)
{
    if (pit->deadline && pit->deadline <= clock_now(pit->board->clock))
        pit_expired(pit);
}

/* ---- Ports 40h-43h --------------------------------------------------------------------------- */

static void write_count(struct counter *c, uint64_t now, uint8_t value)
{
    switch (c->rw) {
    case RW_LOW:
        counter_load(c, now, value);
        break;
    case RW_HIGH:
        counter_load(c, now, (uint16_t)(value << 8));
        break;
    case RW_BOTH:
        c->second_write = !c->second_write;
        if (c->second_write) {
            c->low_written = value;
            if (c->mode == 0) { /* stops, and the output falls, at once */
                counter_pause(c, now);
                c->loaded = false;
            }
        } else {
            counter_load(c, now, (uint16_t)(value << 8 | c->low_written));
        }
        break;
    }
}

static uint8_t read_count(struct counter *c, uint64_t now)
{
    if (c->status_latched) {
        c->status_latched = false;
        return c->status;
    }
    uint16_t value = c->latched ? c->latch : counter_value(c, now);
    if (c->rw != RW_BOTH) {
        c->latched = false;
        return (uint8_t)(c->rw == RW_HIGH ? value >> 8 : value);
    }
    c->second_read = !c->second_read;
    if (c->second_read)
        return (uint8_t)value;
    c->latched = false;
    return (uint8_t)(value >> 8);
}

static void latch_count(struct counter *c, uint64_t now)
{
    if (c->latched)
        return; /* the first stays until it is read */
    c->latched = true;
    c->latch = counter_value(c, now);
}

static void read_back(struct pit *pit, uint64_t now, uint8_t command)
{
    for (unsigned i = 0; i < COUNTERS; i++) {
        struct counter *c = &pit->counter[i];
        if (!(command & 2u << i))
            continue;
        if (!(command & 1 << 5))
            latch_count(c, now);
        if (!(command & 1 << 4) && !c->status_latched) {
            c->status_latched = true;
            c->status = counter_status(c, now);
        }
    }
}

static void write_control(struct pit *pit, uint64_t now, uint8_t value)
{
    unsigned which = value >> 6, rw = value >> 4 & 3;
    if (which == 3) {
        read_back(pit, now, value);
        return;
    }
    struct counter *c = &pit->counter[which];
    if (rw == RW_LATCH) {
        latch_count(c, now);
        return;
    }
    unsigned mode = value >> 1 & 7;
    *c = (struct counter){
        .rw = (uint8_t)rw,
        .mode = (uint8_t)(mode > 5 ? mode - 4 : mode),
        .written = (uint8_t)mode,
        .bcd = value & 1,
        .gate = c->gate,
        .count = c->count,
        .elapsed = counter_elapsed(c, now),
    };
}

static uint64_t pit_read(void *opaque, const struct access *access, uint64_t offset, unsigned size)
{
    struct pit *pit = opaque;
    (void)access, (void)size;
    if (offset == CONTROL)
        return 0; /* write only */
    pit_sync(pit);
    uint64_t now = pit_now(pit);
    counter_sync(&pit->counter[offset], now);
    return read_count(&pit->counter[offset], now);
}

static void pit_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                      uint64_t value)
{
    struct pit *pit = opaque;
    (void)access, (void)size;
    pit_sync(pit);
    uint64_t now = pit_now(pit);
    for (unsigned i = 0; i < COUNTERS; i++)
        counter_sync(&pit->counter[i], now);
    if (offset == CONTROL)
        write_control(pit, now, (uint8_t)value);
    else
        write_count(&pit->counter[offset], now, (uint8_t)value);
    if (offset == 0 || offset == CONTROL) {
        pit_show_line(pit, now);
        pit_arm(pit, now);
    }
}

/* ---- Port 61h -------------------------------------------------------------------------------- */

static uint64_t speaker_read(void *opaque, const struct access *access, uint64_t offset,
                             unsigned size)
{
    struct pit *pit = opaque;
    struct counter *c = &pit->counter[SPEAKER_COUNTER];
    uint64_t now = pit_now(pit);
    (void)access, (void)offset, (void)size;
    counter_sync(c, now);
    return (uint64_t)(pit->speaker | (now / REFRESH_TICKS & 1 ? SPK_REFRESH : 0) |
                      (counter_output(c, now) ? SPK_OUT : 0));
}

static void speaker_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                          uint64_t value)
{
    struct pit *pit = opaque;
    struct counter *c = &pit->counter[SPEAKER_COUNTER];
    uint64_t now = pit_now(pit);
    (void)access, (void)offset, (void)size;
    pit->speaker = value & SPK_WRITABLE;
    counter_sync(c, now);
    counter_set_gate(c, now, value & SPK_GATE);
}

/* ---- Life ------------------------------------------------------------------------------------ */

/* As firmware leaves it, there may be none: counter 0 at 18.2 Hz, counter 1 at the refresh rate. */
static void pit_reset(struct device *dev)
{
    struct pit *pit = (struct pit *)dev;
    uint64_t now = pit_now(pit);
    static const struct {
        uint8_t mode;
        uint16_t count;
    } start[COUNTERS] = {{3, 0}, {2, REFRESH_TICKS}, {3, 0}};
    for (unsigned i = 0; i < COUNTERS; i++) {
        struct counter *c = &pit->counter[i];
        *c = (struct counter){.mode = start[i].mode,
                              .written = start[i].mode,
                              .rw = RW_BOTH,
                              .gate = i != SPEAKER_COUNTER,
                              .count = 65536};
        counter_load(c, now, start[i].count);
    }
    pit->speaker = 0;
    pit_show_line(pit, now);
    pit_arm(pit, now);
}

static void pit_destroy(struct device *dev)
{
    struct pit *pit = (struct pit *)dev;
    timer_cancel(&pit->timer);
    io_remove(pit->board->io, pit->ports[0]);
    io_remove(pit->board->io, pit->ports[1]);
    free(pit);
}

#define COUNTER_FIELDS(i)                                                                          \
    FIELD(struct pit, counter[i].mode, FIELD_U8, 1),                                               \
        FIELD(struct pit, counter[i].written, FIELD_U8, 1),                                        \
        FIELD(struct pit, counter[i].rw, FIELD_U8, 1),                                             \
        FIELD(struct pit, counter[i].bcd, FIELD_U8, 1),                                            \
        FIELD(struct pit, counter[i].gate, FIELD_U8, 1),                                           \
        FIELD(struct pit, counter[i].second_write, FIELD_U8, 1),                                   \
        FIELD(struct pit, counter[i].second_read, FIELD_U8, 1),                                    \
        FIELD(struct pit, counter[i].low_written, FIELD_U8, 1),                                    \
        FIELD(struct pit, counter[i].latched, FIELD_U8, 1),                                        \
        FIELD(struct pit, counter[i].latch, FIELD_U16, 1),                                         \
        FIELD(struct pit, counter[i].status_latched, FIELD_U8, 1),                                 \
        FIELD(struct pit, counter[i].status, FIELD_U8, 1),                                         \
        FIELD(struct pit, counter[i].loaded, FIELD_U8, 1),                                         \
        FIELD(struct pit, counter[i].started, FIELD_U8, 1),                                        \
        FIELD(struct pit, counter[i].running, FIELD_U8, 1),                                        \
        FIELD(struct pit, counter[i].out_before, FIELD_U8, 1),                                     \
        FIELD(struct pit, counter[i].count, FIELD_U32, 1),                                         \
        FIELD(struct pit, counter[i].next_count, FIELD_U32, 1),                                    \
        FIELD(struct pit, counter[i].switch_tick, FIELD_U64, 1),                                   \
        FIELD(struct pit, counter[i].switch_low, FIELD_U8, 1),                                     \
        FIELD(struct pit, counter[i].start, FIELD_U64, 1),                                         \
        FIELD(struct pit, counter[i].elapsed, FIELD_U64, 1)

static const struct field pit_fields[] = {
    COUNTER_FIELDS(0),
    COUNTER_FIELDS(1),
    COUNTER_FIELDS(2),
    FIELD(struct pit, speaker, FIELD_U8, 1),
    FIELD(struct pit, deadline, FIELD_U64, 1),
    FIELD(struct pit, rises, FIELD_U8, 1),
};
static const struct state_desc pit_state = STATE_DESC("pit", 1, pit_fields);

static const struct io_ops pit_ops = {pit_read, pit_write, 1, 1};
static const struct io_ops speaker_ops = {speaker_read, speaker_write, 1, 1};

struct pit *pit_new(struct board *board, struct irq_line irq0)
{
    struct pit *pit = chip_alloc(sizeof(*pit));
    pit->dev = (struct device){
        .name = "pit", .state = &pit_state, .reset = pit_reset, .destroy = pit_destroy};
    pit->board = board;
    pit->irq0 = irq0;
    timer_init(&pit->timer, board->queue, pit_expired, pit);
    pit->ports[0] = io_add(board->io, 0x40, 4, &pit_ops, pit, "pit");
    pit->ports[1] = io_add(board->io, 0x61, 1, &speaker_ops, pit, "speaker");
    pit_reset(&pit->dev);
    return pit;
}
