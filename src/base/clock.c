/*
 * clock.c - guest time from the host's monotonic clock. See include/internal/clock.h.
 *
 * Running:  now = host_now + offset.  Stopped or manual:  now = frozen.
 * Readers take no lock: `mode` tells which of the two holds, and both values are atomics. A stop
 * writes `frozen` before `mode`, a start writes `offset` before `mode`, so that a reader that sees
 * the new mode sees its value too.
 */
#include "internal/clock.h"
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

enum clock_mode { CLOCK_RUNNING, CLOCK_FROZEN };

struct clock {
    _Atomic int mode;
    _Atomic uint64_t offset; /* added to the host's clock, modulo 2^64 */
    _Atomic uint64_t frozen;
    int64_t wall_base; /* wall-clock nanoseconds when the counter was 0 */
};

static uint64_t host_ns(clockid_t id)
{
    struct timespec ts;
    clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

struct clock *clock_new(void)
{
    struct clock *clock = calloc(1, sizeof(*clock));
    if (!clock)
        return NULL;
    atomic_store(&clock->offset, -host_ns(CLOCK_MONOTONIC));
    clock->wall_base = (int64_t)host_ns(CLOCK_REALTIME);
    return clock;
}

void clock_free(struct clock *clock)
{
    free(clock);
}

uint64_t clock_now(const struct clock *clock)
{
    if (atomic_load_explicit(&clock->mode, memory_order_acquire) == CLOCK_FROZEN)
        return atomic_load_explicit(&clock->frozen, memory_order_relaxed);
    return host_ns(CLOCK_MONOTONIC) + atomic_load_explicit(&clock->offset, memory_order_relaxed);
}

void clock_stop(struct clock *clock)
{
    atomic_store(&clock->frozen, clock_now(clock));
    atomic_store(&clock->mode, CLOCK_FROZEN);
}

void clock_start(struct clock *clock)
{
    if (atomic_load(&clock->mode) == CLOCK_RUNNING)
        return;
    atomic_store(&clock->offset, atomic_load(&clock->frozen) - host_ns(CLOCK_MONOTONIC));
    atomic_store(&clock->mode, CLOCK_RUNNING);
}

void clock_set_manual(struct clock *clock, uint64_t ns)
{
    atomic_store(&clock->frozen, ns);
    atomic_store(&clock->mode, CLOCK_FROZEN);
}

int64_t clock_wall(const struct clock *clock, uint32_t *ns)
{
    int64_t wall = clock->wall_base + (int64_t)clock_now(clock);
    if (ns)
        *ns = (uint32_t)(wall % 1000000000);
    return wall / 1000000000;
}
