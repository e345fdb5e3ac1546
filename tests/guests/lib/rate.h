/*
 * rate.h - comparing clocks on a machine that may be stopped at any moment: what is read between
 * two looks at the TSC is known to have been so at some time between them, and a look that took too
 * long is taken again.
 */
#ifndef GUEST_RATE_H
#define GUEST_RATE_H

#include "machine.h"

/* A clock's value, and the TSC just before and after it was read. */
struct reading {
    uint64_t value, before, after;
};

/* The sharpest of a few tries. */
UNUSED_OK struct reading read_clock(uint64_t (*clock)(void))
{
    struct reading best = {.after = UINT64_MAX};
    for (unsigned i = 0; i < 16; i++) {
        struct reading r = {.before = rdtsc()};
        r.value = clock();
        r.after = rdtsc();
        if (r.after - r.before < best.after - best.before)
            best = r;
    }
    return best;
}

/* What the clock counts in 2^32 TSC ticks, over about `tsc` of them (in which it counts less than
 * 2^32); `mask` is its width. */
UNUSED_OK uint64_t clock_rate(uint64_t (*clock)(void), uint64_t mask, uint64_t tsc)
{
    struct reading a = read_clock(clock);
    while (rdtsc() - a.before < tsc)
        asm volatile("pause");
    struct reading b = read_clock(clock);
    uint64_t ticks = (b.value - a.value) & mask;
    uint64_t time = (b.before + (b.after - b.before) / 2) - (a.before + (a.after - a.before) / 2);
    return (ticks << 32) / time;
}

/* Are a : b and want_a : want_b the same, to within `ppm` millionths? */
UNUSED_OK bool same_ratio(uint64_t a, uint64_t b, uint64_t want_a, uint64_t want_b, unsigned ppm)
{
    unsigned __int128 x = (unsigned __int128)a * want_b, y = (unsigned __int128)b * want_a;
    unsigned __int128 difference = x > y ? x - y : y - x;
    return difference * 1000000 <= y * ppm;
}

/* Counter 2 of the 8254, counting up through 65536 in mode 2. */
UNUSED_OK void pit_clock_start(void)
{
    outb(0x61, (inb(0x61) & ~2u) | 1);
    pit_start(2, 2, 0);
}

UNUSED_OK uint64_t pit_clock(void)
{
    outb(0x43, 0x80);
    unsigned low = inb(0x42);
    return 0x10000 - (low | (unsigned)inb(0x42) << 8);
}

/* 8254 ticks in 2^32 TSC ticks, measured anew. Its count wraps after 55 ms: the look is repeated
 * until it is shorter. */
UNUSED_OK uint64_t pit_rate(void)
{
    for (;;) {
        pit_clock_start();
        uint64_t start = rdtsc(), rate;
        while (pit_clock() > 1000)
            asm volatile("pause");
        struct reading a = read_clock(pit_clock), b;
        do
            b = read_clock(pit_clock);
        while (b.value - a.value < 30000 && b.value >= a.value);
        uint64_t time =
            (b.before + (b.after - b.before) / 2) - (a.before + (a.after - a.before) / 2);
        rate = b.value > a.value ? ((b.value - a.value) << 32) / time : 0;
        /* no wrap: from the start to the end it is less than 65536 ticks at that rate */
        if (rate && ((unsigned __int128)(b.after - start) * rate >> 32) < 65000)
            return rate;
    }
}

#endif
