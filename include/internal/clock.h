/*
 * clock.h - the one source of guest time.
 *
 * Every guest-visible counter (TSC, APIC timer, PIT, PM timer, RTC, HPET) is an exact ratio of this
 * one counter, so that they never drift against each other. It counts guest nanoseconds since the
 * machine was made. It is driven by the host's monotonic clock, and stands still while the machine
 * is stopped; a deterministic machine will drive it from retired instructions instead. Nobody else
 * may ask the host for the time.
 *
 * Asking the host's kernel takes longer than a short system call of the guest has, and kernels read
 * the TSC in each. So, where the host's own kernel takes its time from the TSC, the clock is cut
 * into pieces of a few milliseconds in each of which it is a line over the host's TSC. A piece is
 * never changed, and no two hold for the same value of the TSC. So all who know any pieces, in
 * whichever thread, see one function that nowhere falls; a piece that is old ends by itself.
 */
#ifndef INTERNAL_CLOCK_H
#define INTERNAL_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#define CLOCK_HZ     1000000000ull /* the counter's own rate */
#define CLOCK_TSC_HZ CLOCK_HZ      /* the TSC counts the counter itself: 1 GHz */

struct clock;

/* Where tsc - start < length (modulo 2^64), the time is base + ((tsc - start) * mult >> 32), and
 * the product has no more than 64 bits. Translated code computes it, too. */
struct clock_piece {
    uint64_t start, length; /* length 0: holds nowhere */
    uint64_t base, mult;
};

static inline bool clock_piece_at(const struct clock_piece *piece, uint64_t tsc, uint64_t *now)
{
    uint64_t since = tsc - piece->start;
    *now = piece->base + (since * piece->mult >> 32);
    return since < piece->length;
}

/* Where the time comes from. */
struct clock_host {
    uint64_t (*ns)(void *opaque);  /* monotonic */
    uint64_t (*tsc)(void *opaque); /* read behind all earlier loads; NULL: `ns` is all there is */
    void *opaque;
};

struct clock *clock_new(void);
struct clock *clock_new_on(const struct clock_host *host); /* for tests: another host's time */
void clock_free(struct clock *clock);

/* Guest nanoseconds since clock_new(), not counting the time spent stopped. Thread safe, and never
 * goes backwards, also across threads. */
uint64_t clock_now(struct clock *clock);

/* The same, and the piece that it lies in, if any. A piece must not be used once the clock has been
 * stopped: whoever keeps one forgets it before it runs again. */
uint64_t clock_now_piece(struct clock *clock, struct clock_piece *piece);

void clock_stop(struct clock *clock);
void clock_start(struct clock *clock);

/* Wall-clock time (seconds since 1970-01-01 UTC, nanoseconds in *ns) that belongs to clock_now();
 * the RTC starts from it. */
int64_t clock_wall(struct clock *clock, uint32_t *ns);

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
