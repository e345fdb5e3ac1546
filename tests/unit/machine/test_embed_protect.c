/*
 * test_embed_protect.c - the protection interface for the program that the machine runs in, against
 * small real-mode guests: what is refused, who is told what, questions and their time.
 */
#include "bailey/bailey.h"
#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static struct bailey_error error;

/* ---- Guests ---------------------------------------------------------------------------------- */

enum { GUARDED = 0x600, START = 0x7c00 };

/* mov al, N; out 0f4h, al; hlt */
#define EXIT_WITH(n) 0xb0, n, 0xe6, 0xf4, 0xf4
#define STATUS(n)    (2 * (n) + 1)

/* Vectors 13 and 14 lead to `handler`, in segment 0. Takes 24 bytes. */
#define FAULTS_TO(handler)                                                                         \
    0xc7, 0x06, 0x34, 0x00, (handler)&0xff, (handler) >> 8,     /* mov word [34h], handler */      \
        0xc7, 0x06, 0x36, 0x00, 0x00, 0x00,                     /* mov word [36h], 0 */            \
        0xc7, 0x06, 0x38, 0x00, (handler)&0xff, (handler) >> 8, /* mov word [38h], handler */      \
        0xc7, 0x06, 0x3a, 0x00, 0x00, 0x00                      /* mov word [3ah], 0 */

/* Stores 55h to the guarded byte; exits with 1 if it may, with 2 if it faults. */
static const uint8_t stores[] = {FAULTS_TO(START + 0x30),
                                 0xc6,
                                 0x06,
                                 GUARDED & 0xff,
                                 GUARDED >> 8,
                                 0x55, /* mov byte [600h], 55h */
                                 EXIT_WITH(1),
                                 [0x30] = EXIT_WITH(2)};
enum { THE_STORE = START + 24 };

/* Exits with what it reads from the guarded byte, or with 2 if it faults. */
static const uint8_t loads[] = {FAULTS_TO(START + 0x30),
                                0xa0,
                                GUARDED & 0xff,
                                GUARDED >> 8, /* mov al, [600h] */
                                0xe6,
                                0xf4,
                                0xf4,
                                [0x30] = EXIT_WITH(2)};

/* Stores as often as CX says, then exits with 1. */
enum { STORES = 5000 };
static const uint8_t stores_often[] = {
    0xb9,        STORES & 0xff, STORES >> 8,                  /* mov cx, STORES */
    0xfe,        0x06,          GUARDED & 0xff, GUARDED >> 8, /* inc byte [600h] */
    0xe2,        0xfa,                                        /* loop */
    EXIT_WITH(1)};

static struct bailey *make_with(const void *program, size_t len, const char *more)
{
    char name[] = "/tmp/bailey-embed-XXXXXX";
    int fd = mkstemp(name);
    ck_assert_int_eq(write(fd, program, len), (ssize_t)len);
    close(fd);
    const char *argv[] = {"-kernel",     name,       "-m",
                          "4",           "-device",  "isa-debug-exit,iobase=0xf4,iosize=1",
                          "-nodefaults", "-machine", more};
    struct bailey *m = bailey_new(9, argv, NULL, &error);
    unlink(name);
    ck_assert_msg(m != NULL, "%s", error.text);
    return m;
}
#define make(program) make_with(program, sizeof(program), "pc")

/* ---- Protection ------------------------------------------------------------------------------ */

static struct protect_rule rule_for_kernel(uint8_t allow, uint8_t action)
{
    struct protect_rule rule = {.count = 1, .fault = PROTECT_FAULT_GENERAL};
    memset(rule.allow, PROTECT_ALL, sizeof(rule.allow));
    rule.allow[PROTECT_KERNEL] = allow;
    rule.action[PROTECT_KERNEL] = action;
    return rule;
}

static enum protect_status set_rule(struct bailey_protection *p, struct protect_rule rule)
{
    struct protect_command set = {.op = PROTECT_OP_SET_RULES, .arg = {(uintptr_t)&rule, 1}};
    return bailey_protect(p, &set);
}

static struct bailey_protection *guard(struct bailey *m,
                                       const struct bailey_protection_callbacks *callbacks,
                                       struct protect_rule rule)
{
    struct bailey_protection *p = bailey_protection_new(m, callbacks, NULL, &error);
    ck_assert_msg(p != NULL, "%s", error.text);
    struct protect_region region = {
        .base = GUARDED, .length = 1, .flags = PROTECT_PHYSICAL, .cookie = 0x1234};
    struct protect_command add = {.op = PROTECT_OP_ADD_REGIONS, .arg = {(uintptr_t)&region, 1}};
    ck_assert_int_eq(bailey_protect(p, &add), PROTECT_OK);
    ck_assert_int_eq(set_rule(p, rule), PROTECT_OK);
    return p;
}

/* What the callbacks saw. */
struct witness {
    struct bailey_protection *p;
    _Atomic unsigned events, asks;
    _Atomic uint64_t lost;
    struct protect_event event;
    unsigned context;
    enum protect_verdict verdict;
    uint64_t value;
    _Atomic bool hold; /* callbacks do not return */
};

static void wait_while(_Atomic bool *flag)
{
    while (atomic_load(flag))
        usleep(1000);
}

static void on_event(void *opaque, unsigned context, const struct protect_event *event)
{
    struct witness *w = opaque;
    w->event = *event;
    w->context = context;
    atomic_fetch_add(&w->events, 1);
    wait_while(&w->hold);
}

static enum protect_verdict on_ask(void *opaque, const struct protect_event *event, uint64_t *value)
{
    struct witness *w = opaque;
    w->event = *event;
    *value = w->value;
    atomic_fetch_add(&w->asks, 1);
    wait_while(&w->hold);
    return w->verdict;
}

static void on_lost(void *opaque, uint64_t events)
{
    struct witness *w = opaque;
    atomic_fetch_add(&w->lost, events);
}

/* Events are told by another thread: in a while. */
static void await(const _Atomic unsigned *count, unsigned n)
{
    for (unsigned i = 0; i < 60000 && atomic_load(count) < n; i++)
        usleep(1000);
    ck_assert_uint_eq(atomic_load(count), n);
}

static int run(struct bailey *m)
{
    ck_assert_int_eq(bailey_run(m, &error), BAILEY_EXITED);
    return bailey_status(m);
}

static uint8_t guarded_byte(struct bailey *m)
{
    uint8_t byte;
    ck_assert(bailey_read(m, GUARDED, &byte, 1));
    return byte;
}

/* ---- Tests ----------------------------------------------------------------------------------- */

START_TEST(a_store_is_refused_and_told)
{
    struct witness w = {0};
    const struct bailey_protection_callbacks callbacks = {.opaque = &w, .event = on_event};
    struct bailey *m = make(stores);
    struct bailey_protection *p =
        guard(m, &callbacks, rule_for_kernel(PROTECT_READ | PROTECT_EXEC, PROTECT_DENY));
    ck_assert_int_eq(run(m), STATUS(2));
    ck_assert_uint_eq(guarded_byte(m), 0);
    await(&w.events, 1);
    ck_assert_uint_eq(w.context, bailey_protection_context(p));
    ck_assert_uint_eq(w.event.type, PROTECT_EVENT_ACCESS);
    ck_assert_uint_eq(w.event.access, PROTECT_WRITE);
    ck_assert_uint_eq(w.event.subject, PROTECT_KERNEL);
    ck_assert_uint_eq(w.event.action, PROTECT_DENY);
    ck_assert_uint_eq(w.event.gpa, GUARDED);
    ck_assert_uint_eq(w.event.cookie, 0x1234);
    ck_assert_uint_eq(w.event.rip, THE_STORE);
    ck_assert_uint_eq(w.event.length, 1);
    ck_assert_uint_eq(w.event.value[0], 0x55);
    bailey_protection_free(p);
    bailey_free(m);
}
END_TEST

START_TEST(without_callbacks_and_after_the_end)
{
    struct bailey *m = make(stores);
    struct bailey_protection *p = guard(m, NULL, rule_for_kernel(0, PROTECT_ASK_HOST));
    ck_assert_int_eq(run(m), STATUS(2)); /* nobody to ask */
    struct protect_statistics statistics;
    struct protect_command command = {.op = PROTECT_OP_STATISTICS, .arg = {(uintptr_t)&statistics}};
    ck_assert_int_eq(bailey_protect(p, &command), PROTECT_OK);
    ck_assert_uint_ge(statistics.events, 1);
    bailey_protection_free(p);
    bailey_protection_free(NULL);
    bailey_free(m);
}
END_TEST

START_TEST(a_rule_ends_with_its_protection)
{
    struct bailey *m = make(stores);
    bailey_protection_free(guard(m, NULL, rule_for_kernel(PROTECT_READ, PROTECT_DENY)));
    ck_assert_int_eq(run(m), STATUS(1));
    ck_assert_uint_eq(guarded_byte(m), 0x55);
    bailey_free(m);
}
END_TEST

START_TEST(verdicts_on_a_store)
{
    static const struct {
        enum protect_verdict verdict;
        int exit;
        uint8_t byte;
    } cases[] = {
        {PROTECT_LET, 1, 0x55}, {PROTECT_DROP, 1, 0}, {PROTECT_GIVE, 1, 0},
        {PROTECT_REFUSE, 2, 0}, {PROTECT_SET, 2, 0},  {PROTECT_VERDICTS, 2, 0},
    };
    struct witness w = {.verdict = cases[_i].verdict};
    const struct bailey_protection_callbacks callbacks = {
        .opaque = &w, .ask = on_ask, .timeout_ms = 60000};
    struct bailey *m = make(stores);
    struct bailey_protection *p =
        guard(m, &callbacks, rule_for_kernel(PROTECT_READ | PROTECT_EXEC, PROTECT_ASK_HOST));
    ck_assert_int_eq(run(m), STATUS(cases[_i].exit));
    ck_assert_uint_eq(guarded_byte(m), cases[_i].byte);
    ck_assert_uint_eq(w.asks, 1);
    ck_assert_uint_eq(w.event.rip, THE_STORE);
    bailey_protection_free(p);
    bailey_free(m);
}
END_TEST

START_TEST(verdicts_on_a_load)
{
    static const struct {
        enum protect_verdict verdict;
        uint64_t value;
        int exit;
    } cases[] = {
        {PROTECT_LET, 0, 0x42},
        {PROTECT_DROP, 0, 0},
        {PROTECT_GIVE, 0x33, 0x33},
        {PROTECT_REFUSE, 0, 2},
    };
    struct witness w = {.verdict = cases[_i].verdict, .value = cases[_i].value};
    const struct bailey_protection_callbacks callbacks = {
        .opaque = &w, .ask = on_ask, .timeout_ms = 60000};
    struct bailey *m = make(loads);
    uint8_t byte = 0x42;
    ck_assert(bailey_write(m, GUARDED, &byte, 1));
    struct bailey_protection *p = guard(m, &callbacks, rule_for_kernel(0, PROTECT_ASK_HOST));
    ck_assert_int_eq(run(m), STATUS(cases[_i].exit));
    ck_assert_uint_eq(w.asks, 1);
    bailey_protection_free(p);
    bailey_free(m);
}
END_TEST

/* A callback may change the very rule that asked. */
static enum protect_verdict allow_and_retry(void *opaque, const struct protect_event *event,
                                            uint64_t *value)
{
    struct witness *w = opaque;
    (void)event, (void)value;
    atomic_fetch_add(&w->asks, 1);
    ck_assert_int_eq(set_rule(w->p, rule_for_kernel(PROTECT_ALL, PROTECT_DENY)), PROTECT_OK);
    return PROTECT_RETRY;
}

START_TEST(callbacks_may_give_commands)
{
    struct witness w = {0};
    const struct bailey_protection_callbacks callbacks = {
        .opaque = &w, .ask = allow_and_retry, .timeout_ms = 60000};
    struct bailey *m = make(stores);
    w.p = guard(m, &callbacks, rule_for_kernel(PROTECT_READ, PROTECT_ASK_HOST));
    ck_assert_int_eq(run(m), STATUS(1));
    ck_assert_uint_eq(guarded_byte(m), 0x55);
    ck_assert_uint_eq(w.asks, 1);
    bailey_protection_free(w.p);
    bailey_free(m);
}
END_TEST

START_TEST(a_callback_that_takes_too_long_has_refused)
{
    struct witness w = {.verdict = PROTECT_LET, .hold = true};
    const struct bailey_protection_callbacks callbacks = {
        .opaque = &w, .ask = on_ask, .timeout_ms = 100};
    struct bailey *m = make(stores);
    struct bailey_protection *p =
        guard(m, &callbacks, rule_for_kernel(PROTECT_READ, PROTECT_ASK_HOST));
    ck_assert_int_eq(run(m), STATUS(2)); /* while the callback still sleeps */
    ck_assert_uint_eq(guarded_byte(m), 0);
    atomic_store(&w.hold, false);
    bailey_protection_free(p);
    bailey_free(m);
}
END_TEST

static void *runner(void *opaque)
{
    struct bailey_error mine;
    return (void *)(intptr_t)bailey_run(opaque, &mine);
}

static enum bailey_end finish(pthread_t thread)
{
    void *result;
    ck_assert_int_eq(pthread_join(thread, &result), 0);
    return (enum bailey_end)(intptr_t)result;
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* The time-out is a minute; the machine does not wait for it. */
START_TEST(a_machine_that_is_stopped_does_not_wait_for_answers)
{
    struct witness w = {.verdict = PROTECT_LET, .hold = true};
    const struct bailey_protection_callbacks callbacks = {
        .opaque = &w, .ask = on_ask, .timeout_ms = 60000};
    struct bailey *m = make(stores);
    struct bailey_protection *p =
        guard(m, &callbacks, rule_for_kernel(PROTECT_READ, PROTECT_ASK_HOST));
    pthread_t thread;
    pthread_create(&thread, NULL, runner, m);
    await(&w.asks, 1);
    double start = seconds();
    bailey_stop(m);
    ck_assert_int_eq(finish(thread), BAILEY_STOPPED);
    ck_assert_double_lt(seconds() - start, 30);
    atomic_store(&w.hold, false);
    bailey_protection_free(p);
    bailey_free(m);
}
END_TEST

START_TEST(a_rule_pauses_the_machine)
{
    struct protect_rule rule = rule_for_kernel(PROTECT_READ, PROTECT_ALLOW);
    rule.notify = PROTECT_NOTIFY_PAUSE;
    struct bailey *m = make(stores);
    struct bailey_protection *p = guard(m, NULL, rule);
    pthread_t thread;
    pthread_create(&thread, NULL, runner, m);
    for (unsigned i = 0; i < 60000 && !bailey_paused(m); i++)
        usleep(1000);
    ck_assert(bailey_paused(m));
    ck_assert_uint_eq(guarded_byte(m), 0x55); /* the machine pauses behind the access */
    bailey_resume(m);
    ck_assert_int_eq(finish(thread), BAILEY_EXITED);
    ck_assert_int_eq(bailey_status(m), STATUS(1));
    bailey_protection_free(p);
    bailey_free(m);
}
END_TEST

/* Every store is told or counted. */
START_TEST(events_that_are_too_many_are_counted)
{
    struct witness w = {.hold = true};
    const struct bailey_protection_callbacks callbacks = {
        .opaque = &w, .event = on_event, .lost = on_lost};
    struct bailey *m = make(stores_often);
    struct bailey_protection *p =
        guard(m, &callbacks, rule_for_kernel(PROTECT_READ, PROTECT_ALLOW));
    ck_assert_int_eq(run(m), STATUS(1));
    ck_assert_uint_eq(guarded_byte(m), STORES & 0xff);
    atomic_store(&w.hold, false);
    for (unsigned i = 0; i < 60000 && w.events + w.lost < STORES; i++)
        usleep(1000);
    ck_assert_uint_eq(w.events + w.lost, STORES);
    ck_assert_uint_gt(w.lost, 0);
    bailey_protection_free(p);
    bailey_free(m);
}
END_TEST

START_TEST(refusals_have_the_statuses_of_the_interface)
{
    struct bailey *m = make(stores);
    struct bailey_protection *p = guard(m, NULL, rule_for_kernel(PROTECT_READ, PROTECT_DENY));
    struct protect_region regions[2] = {{.base = 0, .length = 1, .flags = PROTECT_PHYSICAL},
                                        {.base = 0, .length = 0, .flags = PROTECT_PHYSICAL}};
    struct protect_command add = {.op = PROTECT_OP_ADD_REGIONS, .arg = {(uintptr_t)regions, 2}};
    ck_assert_int_eq(bailey_protect(p, &add), PROTECT_BAD_RANGE);
    ck_assert_uint_eq(add.element, 1);
    add.arg[0] = 0;
    ck_assert_int_eq(bailey_protect(p, &add), PROTECT_NOT_MAPPED);
    struct protect_command bind = {.op = PROTECT_OP_BIND};
    ck_assert_int_eq(bailey_protect(p, &bind), PROTECT_BUSY);
    struct protect_command wrong = {.op = PROTECT_OP_STATISTICS, .session = 5};
    ck_assert_int_eq(bailey_protect(p, &wrong), PROTECT_WRONG_SESSION);
    ck_assert_str_eq(bailey_protect_text(PROTECT_BUSY), "the door has a context already");
    bailey_protection_free(p);
    bailey_free(m);
}
END_TEST

START_TEST(failures_say_why)
{
    enum { CONTEXTS = 16 };
    struct bailey *m = make_with(stores, sizeof(stores), "pc,protect=off");
    ck_assert_ptr_null(bailey_protection_new(m, NULL, NULL, &error));
    ck_assert_int_eq(error.code, BAILEY_FAILED);
    ck_assert_ptr_nonnull(strstr(error.text, "protect=off"));
    bailey_free(m);
    m = make(stores);
    const struct bailey_protection_callbacks slow = {.ask = on_ask, .timeout_ms = 60001};
    ck_assert_ptr_null(bailey_protection_new(m, &slow, NULL, &error));
    ck_assert_ptr_nonnull(strstr(error.text, "60001 ms is too long"));
    struct bailey_protection *p[CONTEXTS];
    for (unsigned i = 0; i < CONTEXTS; i++) {
        p[i] = bailey_protection_new(m, NULL, NULL, &error);
        ck_assert_msg(p[i] != NULL, "%u: %s", i, error.text);
    }
    ck_assert_ptr_null(bailey_protection_new(m, NULL, NULL, &error));
    ck_assert_ptr_nonnull(strstr(error.text, "more elements, regions or pages"));
    for (unsigned i = 0; i < CONTEXTS; i++)
        bailey_protection_free(p[i]);
    bailey_free(m);
}
END_TEST

START_TEST(machines_in_one_process_keep_their_rules_apart)
{
    struct bailey *guarded = make(stores), *open = make(stores);
    struct bailey_protection *p = guard(guarded, NULL, rule_for_kernel(PROTECT_READ, PROTECT_DENY));
    ck_assert_int_eq(run(open), STATUS(1));
    ck_assert_int_eq(run(guarded), STATUS(2));
    bailey_protection_free(p);
    bailey_free(guarded);
    bailey_free(open);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("embed_protect");
    TCase *t = tcase_create("embed_protect");
    tcase_set_timeout(t, 120);
    tcase_add_test(t, a_store_is_refused_and_told);
    tcase_add_test(t, without_callbacks_and_after_the_end);
    tcase_add_test(t, a_rule_ends_with_its_protection);
    tcase_add_loop_test(t, verdicts_on_a_store, 0, 6);
    tcase_add_loop_test(t, verdicts_on_a_load, 0, 4);
    tcase_add_test(t, callbacks_may_give_commands);
    tcase_add_test(t, a_callback_that_takes_too_long_has_refused);
    tcase_add_test(t, a_machine_that_is_stopped_does_not_wait_for_answers);
    tcase_add_test(t, a_rule_pauses_the_machine);
    tcase_add_test(t, events_that_are_too_many_are_counted);
    tcase_add_test(t, refusals_have_the_statuses_of_the_interface);
    tcase_add_test(t, failures_say_why);
    tcase_add_test(t, machines_in_one_process_keep_their_rules_apart);
    suite_add_tcase(suite, t);
    SRunner *sr = srunner_create(suite);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
