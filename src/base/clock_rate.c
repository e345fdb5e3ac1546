/*
 * clock_rate.c - the host's TSC against its monotonic clock (clock_rate.h).
 *
 * The monotonic clock is steered (NTP: up to 500 ppm, slowly), so the rate is that of the last one
 * to two seconds. A pair is right to some 20 ns: one part in a million over the first 20 ms.
 */
#include "clock_rate.h"

#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <x86intrin.h>

#define CLOCKSOURCE "/sys/devices/system/clocksource/clocksource0/current_clocksource"

enum { LOOKS = 5 };
enum { GOOD_TICKS = 500, MOST_TICKS = 20000 };
enum { LEARN_NS = 20000000, WINDOW_NS = 1000000000 };
/* A jump is what is off by more than this and a thousandth of the time between. */
enum { JUMP_NS = 100000 };

bool clock_tsc_is_trusted(void)
{
    char name[16] = "";
    int mode = PR_TSC_SIGSEGV;
    if (prctl(PR_GET_TSC, &mode) != 0 || mode != PR_TSC_ENABLE)
        return false;
    FILE *file = fopen(CLOCKSOURCE, "re");
    if (!file)
        return false;
    bool read = fgets(name, sizeof(name), file);
    fclose(file);
    return read && !strcmp(name, "tsc\n");
}

uint64_t clock_tsc(void *opaque)
{
    (void)opaque;
    _mm_lfence();
    return __rdtsc();
}

bool clock_pair_take(const struct clock_host *host, struct clock_pair *pair)
{
    uint64_t best = UINT64_MAX;
    for (unsigned i = 0; i < LOOKS && best > GOOD_TICKS; i++) {
        uint64_t from = host->tsc(host->opaque), ns = host->ns(host->opaque);
        uint64_t ticks = host->tsc(host->opaque) - from;
        if (ticks < best) {
            best = ticks;
            *pair = (struct clock_pair){from + ticks / 2, ns};
        }
    }
    return best <= MOST_TICKS;
}

static void begin(struct clock_rate *rate, const struct clock_pair *pair)
{
    *rate = (struct clock_rate){.begun = true, .first = *pair, .middle = *pair, .latest = *pair};
}

static bool jumped(const struct clock_rate *rate, const struct clock_pair *pair)
{
    uint64_t ticks = pair->tsc - rate->latest.tsc, ns = pair->ns - rate->latest.ns;
    if ((int64_t)ticks < 0 || (int64_t)ns < 0)
        return true;
    if (!rate->mult)
        return false;
    int64_t off = (int64_t)(clock_muldiv(ticks, rate->mult, 1ull << 32) - ns);
    return (uint64_t)(off < 0 ? -off : off) > JUMP_NS + (ns >> 10);
}

/* Is the rate before `middle` that of the time since? Before a rate is known nothing else tells a
 * jump. */
static bool steady(const struct clock_rate *rate, const struct clock_pair *pair)
{
    uint64_t before = rate->middle.tsc - rate->first.tsc, ticks = pair->tsc - rate->middle.tsc;
    uint64_t expected =
        clock_muldiv(pair->ns - rate->middle.ns, before, rate->middle.ns - rate->first.ns);
    return (expected > ticks ? expected - ticks : ticks - expected) <= ticks >> 9;
}

/* Not before there are two halves that agree. */
static bool may_learn(struct clock_rate *rate, const struct clock_pair *pair)
{
    if (rate->mult)
        return true;
    if (pair->ns - rate->middle.ns < LEARN_NS / 2)
        return false;
    if (rate->middle.ns == rate->first.ns) {
        rate->middle = *pair;
        return false;
    }
    if (steady(rate, pair))
        return true;
    begin(rate, pair);
    return false;
}

void clock_rate_note(struct clock_rate *rate, const struct clock_pair *pair)
{
    if (!rate->begun || jumped(rate, pair)) {
        begin(rate, pair);
        return;
    }
    rate->latest = *pair;
    if (!may_learn(rate, pair))
        return;
    uint64_t ticks = pair->tsc - rate->first.tsc, ns = pair->ns - rate->first.ns;
    if (ticks < ns >> 4) /* slower than 62 MHz: no TSC */
        return;
    rate->mult = clock_muldiv(ns, 1ull << 32, ticks);
    if (pair->ns - rate->middle.ns > WINDOW_NS) {
        rate->first = rate->middle;
        rate->middle = *pair;
    }
}
