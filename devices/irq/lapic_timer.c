/*
 * lapic_timer.c - the local APIC's timer: one-shot, periodic, TSC deadline.
 *
 * Specified in SDM vol. 3, 11.5.4. The input clock is the machine's counter (1 GHz) before the
 * divider, so a count is an exact number of guest nanoseconds, and the TSC deadline is compared
 * with clock_now(): the CPU takes its TSC offset off.
 */
#include "apic.h"
#include "internal/clock.h"

/* A guest may ask for a period of one nanosecond; deliveries are never closer than this. */
#define MIN_PERIOD_NS 10000ull

/* DCR bits 3, 1, 0: 2, 4, ... 128, 1. */
static uint64_t timer_divisor(const struct lapic *l)
{
    unsigned code = (l->divide & 3u) | (l->divide >> 1 & 4u);
    return 1ull << ((code + 1) & 7);
}

static unsigned timer_mode(const struct lapic *l)
{
    return LVT_TIMER_MODE(l->lvt[LVT_TIMER]);
}

static uint64_t timer_period(const struct lapic *l)
{
    return l->initial_count * timer_divisor(l);
}

/* The CPU has turned the guest's TSC into this before it wrote the MSR. */
static uint64_t tsc_now(const struct lapic *l)
{
    return clock_now(l->board->clock);
}

/* Arms for the end of the count: of the present period, or of a later one when that is too soon. */
static void timer_arm_count(struct lapic *l)
{
    uint64_t period = timer_period(l);
    uint64_t elapsed = clock_now(l->board->clock) - l->count_start;
    uint64_t end = period;
    if (timer_mode(l) == TIMER_PERIODIC)
        end = ((period < MIN_PERIOD_NS ? elapsed + MIN_PERIOD_NS : elapsed) / period + 1) * period;
    timer_arm(&l->timer, l->count_start + end);
}

/* The deadline, or as near to it as 64 bits of nanoseconds go. */
static void timer_arm_deadline(struct lapic *l, uint64_t tsc)
{
    uint64_t now = clock_now(l->board->clock);
    uint64_t wait = l->tsc_deadline - tsc;
    timer_arm(&l->timer, wait > UINT64_MAX / 2 - now ? UINT64_MAX / 2 : now + wait);
}

/* Fires when the deadline has come, else waits for it. */
static void timer_check_deadline(struct lapic *l)
{
    timer_cancel(&l->timer);
    if (!l->tsc_deadline)
        return;
    uint64_t tsc = tsc_now(l);
    if (tsc < l->tsc_deadline) {
        timer_arm_deadline(l, tsc);
        return;
    }
    l->tsc_deadline = 0;
    lapic_local(l, LVT_TIMER);
}

static void timer_expired(void *opaque)
{
    struct lapic *l = opaque;
    switch (timer_mode(l)) {
    case TIMER_ONE_SHOT:
        l->counting = false;
        lapic_local(l, LVT_TIMER);
        break;
    case TIMER_PERIODIC:
        timer_arm_count(l);
        lapic_local(l, LVT_TIMER);
        break;
    case TIMER_TSC_DEADLINE:
        timer_check_deadline(l);
        break;
    }
}

void lapic_timer_sync(struct lapic *l)
{
    if (l->timer.deadline > clock_now(l->board->clock) || !timer_armed(&l->timer))
        return;
    timer_cancel(&l->timer);
    timer_expired(l);
}

void lapic_timer_set_count(struct lapic *l, uint32_t count)
{
    lapic_timer_sync(l);
    if (timer_mode(l) == TIMER_TSC_DEADLINE || timer_mode(l) == TIMER_RESERVED)
        return;
    timer_cancel(&l->timer);
    l->initial_count = count;
    l->counting = count != 0;
    l->count_start = clock_now(l->board->clock);
    if (l->counting)
        timer_arm_count(l);
}

uint32_t lapic_timer_count(const struct lapic *l)
{
    if (!l->counting)
        return 0;
    uint64_t ticks = (clock_now(l->board->clock) - l->count_start) / timer_divisor(l);
    if (timer_mode(l) == TIMER_PERIODIC)
        ticks %= l->initial_count;
    return ticks < l->initial_count ? (uint32_t)(l->initial_count - ticks) : 0;
}

/* The count goes on from where it is, at the new rate. */
void lapic_timer_set_divide(struct lapic *l, uint8_t divide)
{
    lapic_timer_sync(l);
    uint64_t done = l->initial_count - lapic_timer_count(l);
    l->divide = divide & 0xb;
    if (!l->counting)
        return;
    l->count_start = clock_now(l->board->clock) - done * timer_divisor(l);
    timer_arm_count(l);
}

void lapic_timer_set_mode(struct lapic *l, uint32_t lvt)
{
    lapic_timer_sync(l);
    unsigned before = timer_mode(l), after = LVT_TIMER_MODE(lvt);
    l->lvt[LVT_TIMER] = lvt;
    if (before == after)
        return;
    if (before >= TIMER_TSC_DEADLINE || after >= TIMER_TSC_DEADLINE) {
        lapic_timer_reset(l); /* a switch to or from TSC-deadline mode disarms (11.5.4.1) */
    } else if (l->counting) {
        uint32_t count = lapic_timer_count(l);
        if (count == 0 && after == TIMER_ONE_SHOT)
            count = 1;
        l->count_start = clock_now(l->board->clock) - (l->initial_count - count) * timer_divisor(l);
        timer_arm_count(l);
    }
}

void lapic_timer_set_deadline(struct lapic *l, uint64_t tsc)
{
    if (timer_mode(l) != TIMER_TSC_DEADLINE)
        return;
    lapic_timer_sync(l);
    l->tsc_deadline = tsc;
    timer_check_deadline(l);
}

uint64_t lapic_timer_deadline(struct lapic *l)
{
    lapic_timer_sync(l);
    return timer_mode(l) == TIMER_TSC_DEADLINE ? l->tsc_deadline : 0;
}

void lapic_timer_reset(struct lapic *l)
{
    timer_cancel(&l->timer);
    l->initial_count = 0;
    l->counting = false;
    l->tsc_deadline = 0;
}

void lapic_timer_init(struct lapic *l)
{
    timer_init(&l->timer, l->board->queue, timer_expired, l);
}
