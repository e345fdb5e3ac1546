/*
 * Unit tests of src/base/event.c and clock.c: order of timers, cancelling, posts from threads,
 * descriptors, and the clock's ratios.
 */
#include "internal/clock.h"
#include "internal/event.h"
#include <check.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

static struct clock *test_clock;
static struct event_queue *queue;
static pthread_mutex_t lock;
static char trace[64];
static size_t traced;

static void note(void *opaque)
{
    ck_assert_int_ne(pthread_mutex_trylock(&lock), 0); /* delivered with the machine lock held */
    trace[traced++] = *(char *)opaque;
}

static void setup(void)
{
    pthread_mutex_init(&lock, NULL);
    test_clock = clock_new();
    clock_set_manual(test_clock, 1000);
    queue = event_queue_new(test_clock, &lock);
    traced = 0;
}

static void teardown(void)
{
    event_queue_free(queue);
    clock_free(test_clock);
}

static const char *delivered(void)
{
    event_poll(queue);
    trace[traced] = 0;
    return trace;
}

START_TEST(timers_fire_in_order_of_deadline)
{
    struct timer t[26];
    static char names[] = "zyxwvutsrqponmlkjihgfedcba";
    for (int i = 0; i < 26; i++) {
        timer_init(&t[i], queue, note, &names[i]);
        timer_arm(&t[i], 2000 - (uint64_t)i);
    }
    ck_assert_str_eq(delivered(), "");
    timer_cancel(&t[3]);    /* w */
    timer_arm(&t[0], 1990); /* z moves between p and o: 2000 - 10 is p's deadline */
    clock_set_manual(test_clock, 1989);
    ck_assert_str_eq(delivered(), "abcdefghijklmno");
    ck_assert(timer_armed(&t[0]));
    clock_set_manual(test_clock, 5000);
    ck_assert_int_eq(strlen(delivered()), 25);
    ck_assert(!timer_armed(&t[0]));
    ck_assert_ptr_null(strchr(trace, 'w'));
    ck_assert_str_eq(trace + 17, "qrstuvxy");
}
END_TEST

static struct timer again;
static void rearm(void *opaque)
{
    note(opaque);
    timer_arm(&again, 0);
}

START_TEST(a_timer_that_rearms_itself_for_the_past_fires_once_a_turn)
{
    static char name = 'r';
    timer_init(&again, queue, rearm, &name);
    timer_arm(&again, 1);
    ck_assert_str_eq(delivered(), "r");
    ck_assert_str_eq(delivered(), "rr");
    ck_assert(timer_armed(&again));
    timer_cancel(&again);
}
END_TEST

static void *poster(void *opaque)
{
    event_post(queue, note, opaque);
    event_post(queue, note, (char *)opaque + 1);
    return NULL;
}

START_TEST(posts_of_a_thread_keep_their_order)
{
    static char names[] = "12";
    pthread_t thread;
    pthread_create(&thread, NULL, poster, names);
    pthread_join(thread, NULL);
    ck_assert_str_eq(delivered(), "12");
}
END_TEST

static void readable(void *opaque, int fd, unsigned events)
{
    char c;
    ck_assert(events & POLLIN);
    ck_assert_int_eq(read(fd, &c, 1), 1);
    note(&c);
    (void)opaque;
}

START_TEST(descriptors_can_be_paused_and_removed)
{
    int fd[2];
    ck_assert_int_eq(pipe(fd), 0);
    event_watch(queue, fd[0], POLLIN, readable, NULL);
    ck_assert_int_eq(write(fd[1], "ab", 2), 2);
    ck_assert_str_eq(delivered(), "a");
    event_watch(queue, fd[0], 0, readable, NULL);
    ck_assert_str_eq(delivered(), "a");
    event_watch(queue, fd[0], POLLIN, readable, NULL);
    ck_assert_str_eq(delivered(), "ab");
    event_watch(queue, fd[0], 0, NULL, NULL);
    ck_assert_int_eq(write(fd[1], "c", 1), 1);
    ck_assert_str_eq(delivered(), "ab");
    close(fd[0]);
    close(fd[1]);
}
END_TEST

static void *loop(void *opaque)
{
    event_loop_run(queue);
    return opaque;
}

START_TEST(quit_from_another_thread_ends_the_loop)
{
    pthread_t thread;
    pthread_create(&thread, NULL, loop, NULL);
    event_loop_quit(queue);
    pthread_join(thread, NULL); /* the test's time-out is the assertion */
}
END_TEST

START_TEST(the_clock_stops_and_goes_on)
{
    struct clock *clock = clock_new();
    clock_stop(clock);
    uint64_t stopped = clock_now(clock);
    ck_assert_uint_eq(clock_now(clock), stopped);
    clock_start(clock);
    while (clock_now(clock) == stopped)
        ;
    ck_assert_uint_gt(clock_now(clock), stopped);
    ck_assert_uint_lt(clock_now(clock), stopped + 10000000000ull);
    clock_free(clock);
}
END_TEST

START_TEST(ratios_round_the_right_way)
{
    /* the moment at which a PIT tick is due is the first at which the count shows it */
    for (uint64_t tick = 1; tick < 4000000; tick = tick * 3 + 1) {
        uint64_t ns = clock_ticks_to_ns(tick, 1193182);
        ck_assert_uint_eq(clock_muldiv(ns, 1193182, CLOCK_HZ), tick);
        ck_assert_uint_eq(clock_muldiv(ns - 1, 1193182, CLOCK_HZ), tick - 1);
    }
    ck_assert_uint_eq(clock_muldiv(UINT64_MAX, UINT64_MAX, UINT64_MAX), UINT64_MAX);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("event");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, timers_fire_in_order_of_deadline);
    tcase_add_test(tc, a_timer_that_rearms_itself_for_the_past_fires_once_a_turn);
    tcase_add_test(tc, posts_of_a_thread_keep_their_order);
    tcase_add_test(tc, descriptors_can_be_paused_and_removed);
    tcase_add_test(tc, quit_from_another_thread_ends_the_loop);
    tcase_add_test(tc, the_clock_stops_and_goes_on);
    tcase_add_test(tc, ratios_round_the_right_way);
    Suite *suite = suite_create("event");
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
