/*
 * clock.h - the one source of guest time.
 *
 * Every guest-visible counter (TSC, APIC timer, PIT, PM timer, RTC, HPET) is an exact ratio of this
 * one counter, so that they never drift against each other. It counts guest nanoseconds since the
 * machine was made. It is driven by the host's monotonic clock, and stands still while the machine
 * is stopped; a deterministic machine will drive it from retired instructions instead. Nobody else
 * may ask the host for the time.
 */
#ifndef INTERNAL_CLOCK_H
#define INTERNAL_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#define CLOCK_HZ     1000000000ull /* the counter's own rate */
#define CLOCK_TSC_HZ CLOCK_HZ      /* the TSC counts the counter itself: 1 GHz */

struct clock;

struct clock *clock_new(void);
void clock_free(struct clock *clock);

/* Guest nanoseconds since clock_new(), not counting the time spent stopped. Thread safe, and never
 * goes backwards, also across threads. */
uint64_t clock_now(const struct clock *clock);

void clock_stop(struct clock *clock);
void clock_start(struct clock *clock);

/* Wall-clock time (seconds since 1970-01-01 UTC, nanoseconds in *ns) that belongs to clock_now();
 * the RTC starts from it. */
int64_t clock_wall(const struct clock *clock, uint32_t *ns);

/* Takes the clock off the host's time and sets it: from now on it moves only by further calls. For
 * deterministic machines and tests. `ns` must not go backwards. */
void clock_set_manual(struct clock *clock, uint64_t ns);

/* floor(a * b / c) without overflow of the product: the ratio between the counter and a chip's. */
static inline uint64_t clock_muldiv(uint64_t a, uint64_t b, uint64_t c)
{
    return (uint64_t)((unsigned __int128)a * b / c);
}
/* The smallest counter value whose floor(ns * hz / CLOCK_HZ) is at least `ticks`: when to fire. */
static inline uint64_t clock_ticks_to_ns(uint64_t ticks, uint64_t hz)
{
    return (uint64_t)(((unsigned __int128)ticks * CLOCK_HZ + hz - 1) / hz);
}

#endif
