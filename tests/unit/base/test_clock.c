/*
 * Unit tests of src/base/clock.c and clock_rate.c: a clock that is made of lines over the TSC never
 * goes back and stays with the host's, whoever reads it and whatever the host's clocks do.
 */
#include "internal/clock.h"
#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

/* ---- A host whose time passes when somebody looks -------------------------------------------- */

static struct {
    double now;        /* nanoseconds */
    double tsc, ns;    /* what its clocks show */
    double ghz, steer; /* the TSC's rate; how much faster than 1 the monotonic clock is */
    uint64_t random;
} host;

static uint64_t roll(uint64_t below)
{
    host.random = host.random * 6364136223846793005ull + 1442695040888963407ull;
    return (host.random >> 33) % below;
}

static void pass(double ns)
{
    host.now += ns;
    host.tsc += ns * host.ghz;
    host.ns += ns * (1 + host.steer);
}

/* A look takes some nanoseconds, and is seldom interrupted. */
static void pass_a_look(void)
{
    pass(8 + (double)roll(30) + (roll(500) ? 0 : (double)roll(20000)));
}

static uint64_t fake_ns(void *opaque)
{
    (void)opaque;
    pass_a_look();
    return (uint64_t)host.ns;
}

static uint64_t fake_tsc(void *opaque)
{
    (void)opaque;
    pass_a_look();
    return (uint64_t)host.tsc;
}

static struct clock *fake_clock(double ghz)
{
    static const struct clock_host fake = {.ns = fake_ns, .tsc = fake_tsc};
    host.now = 5e9;
    host.tsc = 7e12;
    host.ns = 3e12;
    host.ghz = ghz;
    host.steer = 0;
    host.random = 1;
    return clock_new_on(&fake);
}

/* How far the clock is from the host's, which showed `from` when it began. */
static double off(uint64_t now, double from)
{
    return (double)now - (host.ns - from);
}

/* ---- Readers that keep pieces, as vCPUs do --------------------------------------------------- */

enum { READERS = 4 };
static struct clock_piece kept[READERS];
static unsigned by_piece, by_clock;

static uint64_t look(struct clock *clock, unsigned reader)
{
    uint64_t now;
    if (clock_piece_at(&kept[reader], fake_tsc(NULL), &now)) {
        by_piece++;
        return now;
    }
    by_clock++;
    return clock_now_piece(clock, &kept[reader]);
}

/* Readers in any order, with pauses of up to `pause` ns: none sees a time before another's, and it
 * is never off by more than `most`. Returns what the last one saw. */
static uint64_t watch(struct clock *clock, unsigned looks, uint64_t pause, double from, double most,
                      void (*meanwhile)(unsigned i))
{
    uint64_t last = 0;
    for (unsigned i = 0; i < looks; i++) {
        if (meanwhile)
            meanwhile(i);
        pass((double)roll(pause));
        unsigned reader = (unsigned)roll(READERS + 1);
        uint64_t now = reader < READERS ? look(clock, reader) : clock_now(clock);
        ck_assert_uint_ge(now, last);
        double wrong = off(now, from);
        ck_assert_msg(wrong < most && wrong > -most - 25000, "off by %f after %u", wrong, i);
        last = now;
    }
    return last;
}

static void begin(void)
{
    for (unsigned i = 0; i < READERS; i++)
        kept[i].length = 0;
    by_piece = by_clock = 0;
}

START_TEST(it_follows_a_steady_host)
{
    static const double ghz[] = {0.1, 0.9, 1, 2.6, 5.7};
    struct clock *clock = fake_clock(ghz[_i]);
    double from = host.ns;
    begin();
    watch(clock, 300000, 10000, from, 200, NULL); /* 1.5 s */
    ck_assert_uint_gt(by_piece, 50 * by_clock);   /* it is worth it */
    watch(clock, 3000, 100000000, from, 200, NULL);
    clock_free(clock);
}
END_TEST

static void steer(unsigned i)
{
    if (!(i % 4000)) /* 20 ms */
        host.steer = ((double)roll(1001) - 500) * 1e-6;
}

START_TEST(it_follows_a_host_that_is_steered)
{
    struct clock *clock = fake_clock(2.6);
    double from = host.ns;
    begin();
    watch(clock, 400000, 10000, from, 30000, steer);
    host.steer = 0;
    watch(clock, 800000, 10000, from, 30000, NULL); /* in 4 s all windows have seen it steady */
    watch(clock, 100000, 10000, from, 200, NULL);
    clock_free(clock);
}
END_TEST

static void sleep_or_jump(unsigned i)
{
    if (i % 40000 != 39999)
        return;
    if (i / 40000 % 3 == 0)
        host.tsc += 1e10; /* suspended: the TSC went on */
    else if (i / 40000 % 3 == 1)
        host.tsc = 1e9; /* moved to another machine: the TSC is another one */
    else
        host.ns += 3e9; /* the TSC stood */
    pass(2e7);          /* longer than a piece, which cannot know */
}

START_TEST(it_survives_a_tsc_that_jumps)
{
    struct clock *clock = fake_clock(2.6);
    double from = host.ns;
    begin();
    watch(clock, 400000, 10000, from, 1.1e7, sleep_or_jump); /* no more than a piece's length */
    begin();
    watch(clock, 400000, 10000, from, 1.1e7, NULL);
    watch(clock, 100000, 10000, from, 200, NULL);
    clock_free(clock);
}
END_TEST

/* Before the rate is known: what is learned is not that of a jump. */
static void jump_early(unsigned i)
{
    if (i == 1000 * (1 + roll(8)))
        host.tsc += 3e9;
}

START_TEST(it_survives_a_tsc_that_jumps_early)
{
    for (unsigned i = 0; i < 30; i++) {
        struct clock *clock = fake_clock(2.6);
        host.random = i;
        double from = host.ns;
        begin();
        watch(clock, 10000, 10000, from, 6e6, jump_early); /* a piece of then */
        begin();
        clock_free(clock);
    }
}
END_TEST

/* Two TSCs that differ by more than a look takes would be a host that lies; but a look at one may
 * come late: the value is from before a piece began that others know already. */
START_TEST(a_late_look_is_not_too_early)
{
    struct clock *clock = fake_clock(2.6);
    struct clock_piece piece;
    uint64_t early, late, now;
    begin();
    watch(clock, 100000, 10000, host.ns, 1e9, NULL);
    for (unsigned i = 0; i < 1000; i++) {
        uint64_t tsc = fake_tsc(NULL);
        pass((double)roll(30000000));
        early = clock_now_piece(clock, &piece);
        if (clock_piece_at(&piece, tsc, &now)) { /* of the same piece */
            ck_assert_uint_le(now, early);
            late = clock_now(clock);
            ck_assert_uint_ge(late, early);
        }
    }
    clock_free(clock);
}
END_TEST

START_TEST(it_stands_while_it_is_stopped)
{
    struct clock *clock = fake_clock(2.6);
    uint64_t last = 0;
    for (unsigned i = 0; i < 200; i++) {
        begin(); /* the vCPUs forget theirs */
        uint64_t now = watch(clock, 1000, 2000, host.ns, 1e18, NULL);
        ck_assert_uint_ge(now, last);
        clock_stop(clock);
        uint64_t stopped = clock_now(clock);
        ck_assert_uint_ge(stopped, now);
        struct clock_piece piece = {.length = 1};
        pass((double)roll(1000000000));
        ck_assert_uint_eq(clock_now_piece(clock, &piece), stopped);
        ck_assert_uint_eq(piece.length, 0);
        clock_start(clock);
        last = clock_now(clock);
        ck_assert_uint_ge(last, stopped);
        ck_assert_uint_le(last, stopped + 200000);
    }
    ck_assert_uint_gt(by_piece, 100);
    clock_free(clock);
}
END_TEST

START_TEST(without_a_tsc_it_is_the_hosts_clock)
{
    struct clock *other = fake_clock(1);
    struct clock_piece piece = {.length = 1};
    const struct clock_host no_tsc = {.ns = fake_ns};
    struct clock *clock = clock_new_on(&no_tsc);
    uint64_t from = (uint64_t)host.ns;
    for (unsigned i = 0; i < 100000; i++) {
        uint64_t now = clock_now_piece(clock, &piece);
        ck_assert_uint_eq(now, (uint64_t)host.ns - from);
        ck_assert_uint_eq(piece.length, 0);
    }
    clock_free(clock);
    clock_free(other);
}
END_TEST

/* ---- Threads, on the real host --------------------------------------------------------------- */

static _Atomic uint64_t latest;
static _Atomic unsigned backwards;

/* Hands what it has seen to whoever comes next. */
static void *hand_on(void *opaque)
{
    struct clock *clock = opaque;
    uint64_t seen, now;
    do {
        seen = atomic_load(&latest);
        now = clock_now(clock);
        if (now < seen)
            atomic_fetch_add(&backwards, 1);
        while (seen < now && !atomic_compare_exchange_weak(&latest, &seen, now))
            ;
    } while (now < 400000000);
    return NULL;
}

START_TEST(it_is_one_clock_for_all_threads)
{
    pthread_t thread[4];
    struct clock *clock = clock_new();
    for (unsigned i = 0; i < 4; i++)
        pthread_create(&thread[i], NULL, hand_on, clock);
    for (unsigned i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
    ck_assert_uint_eq(backwards, 0);
    clock_free(clock);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("clock");
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, it_follows_a_steady_host, 0, 5);
    tcase_add_test(tc, it_follows_a_host_that_is_steered);
    tcase_add_test(tc, it_survives_a_tsc_that_jumps);
    tcase_add_test(tc, it_survives_a_tsc_that_jumps_early);
    tcase_add_test(tc, a_late_look_is_not_too_early);
    tcase_add_test(tc, it_stands_while_it_is_stopped);
    tcase_add_test(tc, without_a_tsc_it_is_the_hosts_clock);
    tcase_add_test(tc, it_is_one_clock_for_all_threads);
    Suite *suite = suite_create("clock");
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
