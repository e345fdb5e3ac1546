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

/* The moment of a reading, and how uncertain two of them make the time between. */
UNUSED_OK uint64_t moment(struct reading r)
{
    return r.before + (r.after - r.before) / 2;
}
UNUSED_OK bool sharp(struct reading a, struct reading b)
{
    return (a.after - a.before) + (b.after - b.before) < (b.before - a.after) / 4000;
}

/* What the clock counts in 2^32 TSC ticks, over about `tsc` of them (in which it counts less than
 * 2^32); `mask` is its width, and it does not wrap in ten times as long. */
UNUSED_OK uint64_t clock_rate(uint64_t (*clock)(void), uint64_t mask, uint64_t tsc)
{
    for (;;) {
        struct reading a = read_clock(clock);
        while (rdtsc() - a.before < tsc)
            asm volatile("pause");
        struct reading b = read_clock(clock);
        if (sharp(a, b) && b.after - a.before < 10 * tsc)
            return (((b.value - a.value) & mask) << 32) / (moment(b) - moment(a));
    }
}

/* Are a : b and want_a : want_b the same, to within `ppm` millionths? */
UNUSED_OK bool same_ratio(uint64_t a, uint64_t b, uint64_t want_a, uint64_t want_b, unsigned ppm)
{
    unsigned __int128 x = (unsigned __int128)a * want_b, y = (unsigned __int128)b * want_a;
    unsigned __int128 difference = x > y ? x - y : y - x;
    return difference * 1000000 <= y * ppm;
}

/* Does an interrupt come once per period? On a host that is slow some come late or not at all, but
 * never too many; and sooner or later three come in time, one period after the other. */
struct beat {
    uint64_t period; /* in TSC ticks */
    uint64_t start, last;
    unsigned count, in_time; /* in_time: of late, in a row */
    bool good;
};
static volatile struct beat beat;

UNUSED_OK void beat_begin(uint64_t period)
{
    beat = (struct beat){.period = period, .start = rdtsc()};
}

/* For the interrupt's handler. */
UNUSED_OK void beat_hit(void)
{
    uint64_t now = rdtsc(), gap = now - beat.last;
    bool in_time = gap > beat.period - beat.period / 8 && gap < beat.period + beat.period / 8;
    beat.in_time = in_time ? beat.in_time + 1 : 0;
    beat.good |= beat.in_time == 2;
    beat.last = now;
    beat.count++;
}

/* Waits for it to be good. A host on which it never is must be seen to stop the guest, again and
 * again. Ends with interrupts off. */
UNUSED_OK void beat_check(void)
{
    unsigned stops = 0;
    for (uint64_t last = rdtsc(), now; !beat.good && last - beat.start < FOREVER; last = now) {
        let_in();
        now = rdtsc();
        stops += now - last > beat.period / 4;
    }
    if (!beat.good && stops > 20)
        print("  not judged: the host stopped the guest %u times\n", stops);
    else
        CHECK(beat.good);
    CHECK(beat.count <= (rdtsc() - beat.start) / (beat.period - beat.period / 256) + 2);
}

/* How far counter 2 of the 8254 has counted since pit_clock_start(), up to 65535. */
UNUSED_OK uint64_t pit_clock(void)
{
    outb(0x43, 0x80);
    unsigned low = inb(0x42);
    return (0x10000 - (low | (unsigned)inb(0x42) << 8)) & 0xffff;
}

/* 8254 ticks in 2^32 TSC ticks, measured anew over 25 to 55 ms. In mode 0 the output tells whether
 * the count has gone past its end meanwhile; then once more. */
UNUSED_OK uint64_t pit_rate(void)
{
    outb(0x61, (inb(0x61) & ~2u) | 1);
    for (;;) {
        pit_start(2, 0, 0);
        struct reading a = read_clock(pit_clock), b;
        do
            b = read_clock(pit_clock);
        while (b.value - a.value < 30000 && !(inb(0x61) & 0x20));
        if (!(inb(0x61) & 0x20) && sharp(a, b))
            return ((b.value - a.value) << 32) / (moment(b) - moment(a));
    }
}

#endif
