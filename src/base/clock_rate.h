/*
 * clock_rate.h - the host's TSC against its monotonic clock: may it be used, and how fast is it?
 */
#ifndef BASE_CLOCK_RATE_H
#define BASE_CLOCK_RATE_H

#include "internal/clock.h"

/* Does the host's kernel take its own time from the TSC? Then it is invariant, the same on all
 * processors, and will be given up by the kernel when it turns out not to be. */
bool clock_tsc_is_trusted(void);
/* Read behind all earlier loads, as the kernel reads it for clock_gettime(). */
uint64_t clock_tsc(void *opaque);

/* Both at one moment. */
struct clock_pair {
    uint64_t tsc, ns;
};
/* False: this thread was interrupted each time, so they may be far apart. */
bool clock_pair_take(const struct clock_host *host, struct clock_pair *pair);

/* What is known of the rate. All 0: nothing. */
struct clock_rate {
    bool begun;
    struct clock_pair first, middle, latest; /* drawn from first; middle is the next one's first */
    uint64_t mult; /* nanoseconds per tick, times 2^32; 0: not known (yet) */
};
/* Learns from a pair, later than all before. One that does not go with them (the host slept, or its
 * time was set in some other way) begins everything anew. */
void clock_rate_note(struct clock_rate *rate, const struct clock_pair *pair);

#endif
