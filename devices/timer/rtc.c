/*
 * rtc.c - the MC146818 real-time clock and its CMOS memory, ports 70h and 71h.
 *
 * Specified in Motorola's MC146818A data sheet; the century byte 32h in the PIIX4 tradition.
 *
 * Nothing ticks here unless somebody wants interrupts: the time is clock_now() plus an offset, and
 * the flags of register C are worked out from what has passed since they were last looked at. While
 * SET is on, or the divider is held in reset, the time stands still in the registers.
 */
#include "internal/chips.h"
#include "internal/clock.h"
#include "internal/event.h"
#include <stdlib.h>

enum {
    REG_SECONDS,
    REG_SECONDS_ALARM,
    REG_MINUTES,
    REG_MINUTES_ALARM,
    REG_HOURS,
    REG_HOURS_ALARM,
    REG_WEEKDAY,
    REG_DAY,
    REG_MONTH,
    REG_YEAR,
    REG_A,
    REG_B,
    REG_C,
    REG_D,
    REG_CENTURY = 0x32,
    REG_COUNT = 128,
};
enum { A_RATE = 0x0f, A_DIVIDER = 0x70, A_UIP = 0x80, A_DIVIDER_RESET = 0x60, A_32KHZ = 0x20 };
enum { B_24H = 1 << 1, B_BINARY = 1 << 2, B_UIE = 1 << 4, B_AIE = 1 << 5, B_PIE = 1 << 6 };
enum { B_SQWE = 1 << 3, B_SET = 1 << 7 };
enum { C_UF = 1 << 4, C_AF = 1 << 5, C_PF = 1 << 6, C_IRQF = 1 << 7 };
enum { D_VALID = 0x80, ALARM_ANY = 0xc0, HOURS_PM = 0x80 };

#define SECOND_NS   1000000000ull
#define UIP_NS      244141ull /* update in progress shows this long before the update */
#define PERIODIC_HZ 32768ull
#define DAY_SECONDS 86400

struct rtc {
    struct device dev;
    struct board *board;
    struct irq_line irq8;
    uint8_t index;
    uint8_t cmos[REG_COUNT]; /* the time registers only count while the clock is stopped */
    /* Seconds since 1970 = offset + (clock_now() + phase) / 1 s. */
    uint64_t offset;        /* modulo 2^64 */
    uint32_t phase;         /* nanoseconds, below 1 s */
    uint8_t weekday_offset; /* the guest's day of the week minus the true one, modulo 7 */
    uint64_t seen_second;   /* up to this second UF and AF have been worked out */
    uint64_t seen_period;   /* up to this tick of the periodic rate, PF */
    uint64_t deadline;      /* of the timer; 0: not armed */
    struct timer timer;
    int ports;
};

/* ---- Calendar -------------------------------------------------------------------------------- */

struct date {
    unsigned second, minute, hour, day, month, weekday; /* day and month from 1, Sunday is 1 */
    int64_t year;
};

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

/* Days since 1970-01-01 of a date in the Gregorian calendar. Years are counted from March, so that
 * the leap day is their last; 153 days make five months. */
static int64_t days_of(int64_t year, unsigned month, unsigned day)
{
    int64_t y = month > 2 ? year : year - 1;
    unsigned m = (month + 9) % 12;
    return 365 * y + floor_div(y, 4) - floor_div(y, 100) + floor_div(y, 400) +
           (153 * (int64_t)m + 2) / 5 + day - 1 - 719468;
}

static struct date date_of(int64_t seconds)
{
    int64_t days = floor_div(seconds, DAY_SECONDS);
    unsigned rest = (unsigned)(seconds - days * DAY_SECONDS);
    struct date d = {.second = rest % 60, .minute = rest / 60 % 60, .hour = rest / 3600};
    d.weekday = (unsigned)((days % 7 + 11) % 7) + 1; /* 1970-01-01 was a Thursday */
    d.year = 1970 + floor_div(days * 400, 146097);
    while (days_of(d.year + 1, 1, 1) <= days)
        d.year++;
    while (days_of(d.year, 1, 1) > days)
        d.year--;
    d.month = 1;
    while (d.month < 12 && days_of(d.year, d.month + 1, 1) <= days)
        d.month++;
    d.day = (unsigned)(days - days_of(d.year, d.month, 1)) + 1;
    return d;
}

/* ---- Registers as numbers -------------------------------------------------------------------- */

static uint8_t encode(const struct rtc *rtc, unsigned n)
{
    return (uint8_t)(rtc->cmos[REG_B] & B_BINARY ? n : n / 10 << 4 | n % 10);
}

static unsigned decode(const struct rtc *rtc, uint8_t byte)
{
    return rtc->cmos[REG_B] & B_BINARY ? byte : (byte >> 4) * 10u + (byte & 15);
}

static uint8_t encode_hour(const struct rtc *rtc, unsigned hour)
{
    if (rtc->cmos[REG_B] & B_24H)
        return encode(rtc, hour);
    return encode(rtc, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? HOURS_PM : 0);
}

static unsigned decode_hour(const struct rtc *rtc, uint8_t byte)
{
    if (rtc->cmos[REG_B] & B_24H)
        return decode(rtc, byte);
    return decode(rtc, byte & 0x7f) % 12 + (byte & HOURS_PM ? 12 : 0);
}

/* What a guest wrote, made a date: out-of-range values are cut, as no two chips agree on them. */
static unsigned clamp(unsigned n, unsigned low, unsigned high)
{
    return n < low ? low : n > high ? high : n;
}

static int64_t registers_to_seconds(const struct rtc *rtc)
{
    const uint8_t *r = rtc->cmos;
    unsigned month = clamp(decode(rtc, r[REG_MONTH]), 1, 12);
    unsigned day = clamp(decode(rtc, r[REG_DAY]), 1, 31);
    int64_t year =
        clamp(decode(rtc, r[REG_CENTURY]), 0, 99) * 100 + clamp(decode(rtc, r[REG_YEAR]), 0, 99);
    return days_of(year, month, day) * DAY_SECONDS +
           clamp(decode_hour(rtc, r[REG_HOURS]), 0, 23) * 3600 +
           clamp(decode(rtc, r[REG_MINUTES]), 0, 59) * 60 +
           clamp(decode(rtc, r[REG_SECONDS]), 0, 59);
}

static void seconds_to_registers(struct rtc *rtc, int64_t seconds)
{
    struct date d = date_of(seconds);
    uint8_t *r = rtc->cmos;
    r[REG_SECONDS] = encode(rtc, d.second);
    r[REG_MINUTES] = encode(rtc, d.minute);
    r[REG_HOURS] = encode_hour(rtc, d.hour);
    r[REG_WEEKDAY] = encode(rtc, (d.weekday - 1 + rtc->weekday_offset) % 7 + 1);
    r[REG_DAY] = encode(rtc, d.day);
    r[REG_MONTH] = encode(rtc, d.month);
    r[REG_YEAR] = encode(rtc, (unsigned)((d.year % 100 + 100) % 100));
    r[REG_CENTURY] = encode(rtc, (unsigned)((d.year / 100 % 100 + 100) % 100));
}

/* ---- The running time ------------------------------------------------------------------------ */

static bool rtc_stopped(const struct rtc *rtc)
{
    return (rtc->cmos[REG_B] & B_SET) || (rtc->cmos[REG_A] & A_DIVIDER_RESET) == A_DIVIDER_RESET;
}

static uint64_t rtc_counter(const struct rtc *rtc)
{
    return clock_now(rtc->board->clock) + rtc->phase;
}

/* The running clock's second, and nanoseconds into it. */
static int64_t rtc_second(const struct rtc *rtc)
{
    return (int64_t)(rtc->offset + rtc_counter(rtc) / SECOND_NS);
}

static uint64_t rtc_phase(const struct rtc *rtc)
{
    return rtc_counter(rtc) % SECOND_NS;
}

/* From now on the running clock shows `seconds`; when the next one comes is the phase's business.
 */
static void rtc_set_second(struct rtc *rtc, int64_t seconds)
{
    rtc->offset = (uint64_t)seconds - rtc_counter(rtc) / SECOND_NS;
    rtc->seen_second = (uint64_t)seconds;
}

static void rtc_set_phase(struct rtc *rtc, uint64_t phase)
{
    uint64_t now = clock_now(rtc->board->clock);
    rtc->phase = (uint32_t)((phase + SECOND_NS - now % SECOND_NS) % SECOND_NS);
}

/* The clock_now() at which the running clock comes to `second`. */
static uint64_t second_to_ns(const struct rtc *rtc, int64_t second)
{
    return ((uint64_t)second - rtc->offset) * SECOND_NS - rtc->phase;
}

/* Brings the time registers up to date, while the clock runs. */
static void rtc_fetch(struct rtc *rtc)
{
    if (!rtc_stopped(rtc))
        seconds_to_registers(rtc, rtc_second(rtc));
}

/* ---- Flags and interrupts -------------------------------------------------------------------- */

static bool alarm_matches(uint8_t alarm, unsigned decoded, unsigned n)
{
    return alarm >= ALARM_ANY || decoded == n;
}

static bool alarm_possible(uint8_t alarm, unsigned decoded, unsigned limit)
{
    return alarm >= ALARM_ANY || decoded < limit;
}

/* The first second after `from` that the alarm names, within a day; else 0. Skips whole hours and
 * minutes that do not match. */
static int64_t next_alarm(const struct rtc *rtc, int64_t from)
{
    const uint8_t *r = rtc->cmos;
    unsigned second = decode(rtc, r[REG_SECONDS_ALARM]), minute = decode(rtc, r[REG_MINUTES_ALARM]);
    unsigned hour = decode_hour(rtc, r[REG_HOURS_ALARM]);
    int64_t t = from + 1;
    if (!alarm_possible(r[REG_HOURS_ALARM], hour, 24) ||
        !alarm_possible(r[REG_MINUTES_ALARM], minute, 60) ||
        !alarm_possible(r[REG_SECONDS_ALARM], second, 60))
        return 0;
    while (t <= from + DAY_SECONDS) {
        unsigned in_day = (unsigned)(t - floor_div(t, DAY_SECONDS) * DAY_SECONDS);
        if (!alarm_matches(r[REG_HOURS_ALARM], hour, in_day / 3600))
            t += 3600 - in_day % 3600;
        else if (!alarm_matches(r[REG_MINUTES_ALARM], minute, in_day / 60 % 60))
            t += 60 - in_day % 60;
        else if (!alarm_matches(r[REG_SECONDS_ALARM], second, in_day % 60))
            t++;
        else
            return t;
    }
    return 0;
}

/* Ticks of 32768 Hz per period; 0: off. Rates 1 and 2 are those of 8 and 9 with this time base. */
static uint64_t periodic_ticks(const struct rtc *rtc)
{
    unsigned rate = rtc->cmos[REG_A] & A_RATE;
    if (rate == 0 || (rtc->cmos[REG_A] & A_DIVIDER) != A_32KHZ)
        return 0;
    if (rate <= 2)
        rate += 7;
    return 1ull << (rate - 1);
}

static uint64_t periodic_now(const struct rtc *rtc)
{
    return clock_muldiv(clock_now(rtc->board->clock), PERIODIC_HZ, CLOCK_HZ);
}

/* Adds to register C what has happened since the last time. */
static void rtc_sync(struct rtc *rtc)
{
    uint64_t ticks = periodic_ticks(rtc), now = periodic_now(rtc);
    if (ticks && now / ticks != rtc->seen_period / ticks)
        rtc->cmos[REG_C] |= C_PF;
    rtc->seen_period = now;
    if (rtc_stopped(rtc))
        return;
    int64_t second = rtc_second(rtc), seen = (int64_t)rtc->seen_second;
    if (second > seen) {
        int64_t alarm = next_alarm(rtc, seen);
        rtc->cmos[REG_C] |= C_UF;
        if (alarm && alarm <= second)
            rtc->cmos[REG_C] |= C_AF;
    }
    rtc->seen_second = (uint64_t)second;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a && a < b ? a : b;
}

/* Arms for the next enabled interrupt whose flag is not up yet. */
static void rtc_arm(struct rtc *rtc)
{
    uint8_t wanted = rtc->cmos[REG_B] & (uint8_t)~rtc->cmos[REG_C];
    uint64_t deadline = 0, ticks = periodic_ticks(rtc);
    if ((wanted & B_PIE) && ticks)
        deadline = clock_ticks_to_ns((rtc->seen_period / ticks + 1) * ticks, PERIODIC_HZ);
    if (!rtc_stopped(rtc)) {
        int64_t alarm = wanted & B_AIE ? next_alarm(rtc, (int64_t)rtc->seen_second) : 0;
        if (wanted & B_UIE)
            deadline = earlier(deadline, second_to_ns(rtc, (int64_t)rtc->seen_second + 1));
        if (alarm)
            deadline = earlier(deadline, second_to_ns(rtc, alarm));
    }
    rtc->deadline = deadline;
    if (deadline)
        timer_arm(&rtc->timer, deadline);
    else
        timer_cancel(&rtc->timer);
}

/* The three enables of register B and flags of register C have the same bits. */
static void rtc_update(struct rtc *rtc)
{
    uint8_t *c = &rtc->cmos[REG_C];
    bool irq = rtc->cmos[REG_B] & *c & (C_UF | C_AF | C_PF);
    *c = (uint8_t)(irq ? *c | C_IRQF : *c & ~C_IRQF);
    irq_set(&rtc->irq8, irq);
    rtc_arm(rtc);
}

/* By the timer, and before anything is read or changed: the I/O thread may be late, and a flag that
 * is read away would neither show IRQF nor raise the line. */
static void rtc_expired(void *opaque)
{
    struct rtc *rtc = opaque;
    rtc_sync(rtc);
    rtc_update(rtc);
}

/* ---- Ports ----------------------------------------------------------------------------------- */

static bool is_time(unsigned reg)
{
    switch (reg) {
    case REG_SECONDS:
    case REG_MINUTES:
    case REG_HOURS:
    case REG_WEEKDAY:
    case REG_DAY:
    case REG_MONTH:
    case REG_YEAR:
    case REG_CENTURY:
        return true;
    }
    return false;
}

/* True in the last moments before the registers change. */
static bool update_in_progress(const struct rtc *rtc)
{
    return !rtc_stopped(rtc) && rtc_phase(rtc) >= SECOND_NS - UIP_NS;
}

static uint8_t rtc_read_register(struct rtc *rtc, unsigned reg)
{
    uint8_t value;
    switch (reg) {
    case REG_A:
        return rtc->cmos[REG_A] | (update_in_progress(rtc) ? A_UIP : 0);
    case REG_C: /* reading clears it, and so releases the line */
        value = rtc->cmos[REG_C];
        rtc->cmos[REG_C] = 0;
        return value;
    case REG_D:
        return D_VALID;
    }
    if (is_time(reg))
        rtc_fetch(rtc);
    return rtc->cmos[reg];
}

/* Registers became the time; the next second comes when it would have come. */
static void adopt_registers(struct rtc *rtc)
{
    int64_t seconds = registers_to_seconds(rtc);
    unsigned true_weekday = date_of(seconds).weekday - 1;
    unsigned weekday = clamp(decode(rtc, rtc->cmos[REG_WEEKDAY]), 1, 7) - 1;
    rtc->weekday_offset = (uint8_t)((weekday + 7 - true_weekday) % 7);
    rtc_set_second(rtc, seconds);
}

/* Registers A and B: the clock may stop (the registers keep the time) or go on from what they hold.
 * After a divider reset the first update comes half a second later; SET keeps the phase. */
static void write_control(struct rtc *rtc, unsigned reg, uint8_t value)
{
    bool was_stopped = rtc_stopped(rtc);
    bool was_held = (rtc->cmos[REG_A] & A_DIVIDER_RESET) == A_DIVIDER_RESET;
    rtc_fetch(rtc);
    if (reg == REG_A) {
        rtc->cmos[REG_A] = value & (A_RATE | A_DIVIDER);
    } else {
        bool format = (rtc->cmos[REG_B] ^ value) & (B_24H | B_BINARY);
        rtc->cmos[REG_B] = value & B_SET ? value & ~B_UIE : value;
        if (format && !was_stopped && !(value & B_SET)) /* the same time, written otherwise */
            seconds_to_registers(rtc, (int64_t)rtc->seen_second);
    }
    if (!was_stopped || rtc_stopped(rtc))
        return;
    if (was_held)
        rtc_set_phase(rtc, SECOND_NS / 2);
    adopt_registers(rtc);
}

static void rtc_write_register(struct rtc *rtc, unsigned reg, uint8_t value)
{
    switch (reg) {
    case REG_A:
    case REG_B:
        write_control(rtc, reg, value);
        return;
    case REG_C:
    case REG_D:
        return; /* read only */
    }
    if (is_time(reg))
        rtc_fetch(rtc);
    rtc->cmos[reg] = value;
    if (is_time(reg) && !rtc_stopped(rtc))
        adopt_registers(rtc);
}

static uint64_t rtc_read(void *opaque, const struct access *access, uint64_t offset, unsigned size)
{
    struct rtc *rtc = opaque;
    (void)access, (void)size;
    if (offset == 0)
        return 0xff; /* the index is write only */
    rtc_expired(rtc);
    uint8_t value = rtc_read_register(rtc, rtc->index);
    rtc_update(rtc);
    return value;
}

/* Bit 7 of the index gates NMIs on a PC; nothing here raises any but through the APIC. */
static void rtc_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                      uint64_t value)
{
    struct rtc *rtc = opaque;
    (void)access, (void)size;
    if (offset == 0) {
        rtc->index = value & 0x7f;
        return;
    }
    rtc_expired(rtc);
    rtc_write_register(rtc, rtc->index, (uint8_t)value);
    rtc_update(rtc);
}

/* ---- For the machine ------------------------------------------------------------------------- */

void rtc_cmos_set(struct rtc *rtc, unsigned index, uint8_t value)
{
    if (index > REG_D && index < REG_COUNT && index != REG_CENTURY)
        rtc->cmos[index] = value;
}

uint8_t rtc_cmos_get(struct rtc *rtc, unsigned index)
{
    if (index >= REG_COUNT)
        return 0;
    if (is_time(index))
        rtc_fetch(rtc);
    return rtc->cmos[index];
}

static void cmos_set_word(struct rtc *rtc, unsigned index, uint64_t value)
{
    rtc_cmos_set(rtc, index, (uint8_t)value);
    rtc_cmos_set(rtc, index + 1, (uint8_t)(value >> 8));
}

void rtc_cmos_set_memory(struct rtc *rtc, uint64_t below_4g, uint64_t above_4g)
{
    const uint64_t mib = 1 << 20;
    uint64_t extended = below_4g > mib ? (below_4g - mib) >> 10 : 0;
    uint64_t above_16m = below_4g > 16 * mib ? (below_4g - 16 * mib) >> 16 : 0;
    extended = extended > 0xffff ? 0xffff : extended;
    cmos_set_word(rtc, 0x15, 640);      /* base memory, KiB */
    cmos_set_word(rtc, 0x17, extended); /* above 1 MiB, KiB; twice */
    cmos_set_word(rtc, 0x30, extended);
    cmos_set_word(rtc, 0x34, above_16m > 0xffff ? 0xffff : above_16m); /* 64 KiB */
    cmos_set_word(rtc, 0x5b, above_4g >> 16);                          /* 64 KiB, 24 bits */
    rtc_cmos_set(rtc, 0x5d, (uint8_t)(above_4g >> 32));
}

/* ---- Life ------------------------------------------------------------------------------------ */

/* RESET clears the interrupt enables and flags; time and memory have a battery. */
static void rtc_reset(struct device *dev)
{
    struct rtc *rtc = (struct rtc *)dev;
    rtc_sync(rtc);
    rtc->cmos[REG_B] &= (uint8_t) ~(B_UIE | B_AIE | B_PIE | B_SQWE);
    rtc->cmos[REG_C] = 0;
    rtc->index = 0;
    rtc_update(rtc);
}

static void rtc_destroy(struct device *dev)
{
    struct rtc *rtc = (struct rtc *)dev;
    timer_cancel(&rtc->timer);
    io_remove(rtc->board->io, rtc->ports);
    free(rtc);
}

static const struct field rtc_fields[] = {
    FIELD(struct rtc, index, FIELD_U8, 1),          FIELD_ARRAY(struct rtc, cmos, FIELD_U8, 1),
    FIELD(struct rtc, offset, FIELD_U64, 1),        FIELD(struct rtc, phase, FIELD_U32, 1),
    FIELD(struct rtc, weekday_offset, FIELD_U8, 1), FIELD(struct rtc, seen_second, FIELD_U64, 1),
    FIELD(struct rtc, seen_period, FIELD_U64, 1),   FIELD(struct rtc, deadline, FIELD_U64, 1),
};
static const struct state_desc rtc_state = STATE_DESC("rtc", 1, rtc_fields);

static const struct io_ops rtc_ops = {rtc_read, rtc_write, 1, 1};

struct rtc *rtc_new(struct board *board, const struct rtc_config *config, struct irq_line irq8)
{
    struct rtc *rtc = chip_alloc(sizeof(*rtc));
    uint32_t ns = 0;
    int64_t wall = clock_wall(board->clock, &ns);
    rtc->dev = (struct device){
        .name = "rtc", .state = &rtc_state, .reset = rtc_reset, .destroy = rtc_destroy};
    rtc->board = board;
    rtc->irq8 = irq8;
    rtc->cmos[REG_A] = A_32KHZ | 6;
    rtc->cmos[REG_B] = B_24H;
    rtc_set_phase(rtc, config->fixed ? 0 : ns);
    rtc_set_second(rtc, config->fixed ? config->seconds : wall + config->seconds);
    rtc->seen_period = periodic_now(rtc);
    timer_init(&rtc->timer, board->queue, rtc_expired, rtc);
    rtc->ports = io_add(board->io, 0x70, 2, &rtc_ops, rtc, "rtc");
    rtc_reset(&rtc->dev);
    return rtc;
}
