/*
 * test_asks.c - questions: guest threads that wait for an answer from outside, and never longer
 * than the stated time, whatever the client does or does not do.
 */
#include "world.h"

static struct world w;
static struct wire c;
static const struct protect_event event = {.type = PROTECT_EVENT_ACCESS,
                                           .access = PROTECT_WRITE,
                                           .subject = PROTECT_KERNEL,
                                           .gva = 0xffffffff82345678,
                                           .rip = 0xffffffff81000000};

/* The longest that a loaded host may add to a wait; a wait that nobody bounds is far longer. */
enum { FOREVER_MS = 60000, SLACK_S = 30 };

static void setup(void)
{
    world_listen(&w);
    wire_open(&c, &w);
}

static void teardown(void)
{
    wire_close(&c);
    world_free(&w);
}

/* A guest thread that asks. */
struct guest {
    pthread_t thread;
    unsigned context, timeout_ms;
    bool answered;
    enum protect_verdict verdict;
    uint64_t value;
    double seconds;
};

static void *guest_main(void *opaque)
{
    struct guest *g = opaque;
    double start = seconds();
    g->answered = control_ask(w.control, g->context, &event, g->timeout_ms, &g->verdict, &g->value);
    g->seconds = seconds() - start;
    return NULL;
}

static void guest_ask(struct guest *g, unsigned context, unsigned timeout_ms)
{
    *g = (struct guest){.context = context, .timeout_ms = timeout_ms};
    ck_assert_int_eq(pthread_create(&g->thread, NULL, guest_main, g), 0);
}

static bool guest_answered(struct guest *g)
{
    ck_assert_int_eq(pthread_join(g->thread, NULL), 0);
    return g->answered;
}

/* An ask in this thread; true: it was answered. */
static bool ask_now(unsigned context, unsigned timeout_ms, double *took)
{
    struct guest g = {.context = context, .timeout_ms = timeout_ms};
    guest_main(&g);
    *took = g.seconds;
    return g.answered;
}

static uint64_t next_token(struct wire *client)
{
    json_t *line = wire_next(client);
    json_t *ask = json_object_get(line, "ask");
    ck_assert_ptr_nonnull(ask);
    uint64_t token = number_of(ask, "token");
    json_decref(line);
    return token;
}

static void answer(struct wire *client, uint64_t token, const char *rest, const char *status)
{
    char line[128];
    snprintf(line, sizeof(line), "{\"op\":\"answer\",\"token\":%llu,%s}", (unsigned long long)token,
             rest);
    wire_do(client, line, status);
}

START_TEST(an_answer_reaches_the_guest)
{
    struct guest g;
    wire_do(&c, "{\"op\":\"handle\",\"context\":7}", "OK");
    guest_ask(&g, 7, FOREVER_MS);
    json_t *line = wire_next(&c), *ask = json_object_get(line, "ask");
    ck_assert_uint_eq(number_of(ask, "context"), 7);
    ck_assert_uint_eq(number_of(ask, "timeout_ms"), FOREVER_MS);
    ck_assert_str_eq(text_of(json_object_get(ask, "event"), "subject"), "kernel");
    ck_assert_uint_eq(number_of(json_object_get(ask, "event"), "gva"), event.gva);
    uint64_t token = number_of(ask, "token");
    json_decref(line);
    answer(&c, token, "\"verdict\":\"give\",\"value\":\"0xfedcba9876543210\"", "OK");
    ck_assert(guest_answered(&g));
    ck_assert_int_eq(g.verdict, PROTECT_GIVE);
    ck_assert_uint_eq(g.value, 0xfedcba9876543210);
    answer(&c, token, "\"verdict\":\"let\"", "BAD_TOKEN"); /* single-use */
}
END_TEST

START_TEST(every_verdict_but_registers)
{
    static const char *const words[] = {"retry", "let", "drop", "give", "refuse"};
    struct guest g;
    char text[40];
    wire_do(&c, "{\"op\":\"handle\",\"context\":7}", "OK");
    for (unsigned i = 0; i < 5; i++) {
        guest_ask(&g, 7, FOREVER_MS);
        uint64_t token = next_token(&c);
        answer(&c, token, "\"verdict\":\"set\"", "BAD_VERDICT");
        answer(&c, token, "\"verdict\":77", "BAD_VERDICT");
        snprintf(text, sizeof(text), "\"verdict\":\"%s\"", words[i]);
        answer(&c, token, text, "OK");
        ck_assert(guest_answered(&g));
        ck_assert_int_eq((int)g.verdict, (int)i);
    }
}
END_TEST

START_TEST(several_guests_ask_at_once)
{
    enum { GUESTS = 8 };
    struct guest g[GUESTS];
    uint64_t token[GUESTS];
    char text[60];
    wire_do(&c, "{\"op\":\"handle\",\"context\":64}", "OK");
    for (unsigned i = 0; i < GUESTS; i++) {
        guest_ask(&g[i], 64, FOREVER_MS);
        token[i] = next_token(&c); /* so that i is known to be this one's */
    }
    for (unsigned i = GUESTS; i-- > 0;) {
        snprintf(text, sizeof(text), "\"verdict\":\"give\",\"value\":%u", i);
        answer(&c, token[i], text, "OK");
    }
    for (unsigned i = 0; i < GUESTS; i++) {
        ck_assert(guest_answered(&g[i]));
        ck_assert_uint_eq(g[i].value, i);
    }
}
END_TEST

START_TEST(without_a_handler_nobody_waits)
{
    double took;
    ck_assert(!ask_now(7, FOREVER_MS, &took));
    wire_do(&c, "{\"op\":\"handle\",\"context\":8}", "OK");
    ck_assert(!ask_now(7, FOREVER_MS, &took));
    wire_do(&c, "{\"op\":\"handle\",\"context\":8,\"on\":false}", "OK");
    ck_assert(!ask_now(8, FOREVER_MS, &took));
    ck_assert_double_lt(took, SLACK_S);
}
END_TEST

START_TEST(a_context_has_one_handler)
{
    struct wire other;
    struct guest g;
    wire_open(&other, &w);
    wire_do(&c, "{\"op\":\"handle\"}", "NOT_BOUND");
    wire_do(&c, "{\"op\":\"bind\"}", "OK");
    wire_do(&c, "{\"op\":\"handle\"}", "OK");
    wire_do(&c, "{\"op\":\"handle\",\"context\":80}", "BAD_ARGUMENT");
    wire_do(&c, "{\"op\":\"handle\",\"timeout_ms\":60001}", "BAD_ARGUMENT");
    wire_do(&other, "{\"op\":\"handle\",\"context\":64}", "BUSY");
    wire_do(&other, "{\"op\":\"handle\",\"context\":64,\"on\":false}", "BUSY");
    guest_ask(&g, 64, FOREVER_MS);
    uint64_t token = next_token(&c);
    answer(&other, token, "\"verdict\":\"let\"", "BAD_TOKEN"); /* not the one that was asked */
    answer(&c, token, "\"verdict\":\"refuse\"", "OK");
    ck_assert(guest_answered(&g));
    ck_assert_int_eq(g.verdict, PROTECT_REFUSE);
    wire_close(&other);
}
END_TEST

/* The number of a context that has ended is given to the next one, whose questions are not for the
 * old one's handler. */
START_TEST(a_handler_ends_with_its_context)
{
    struct wire other;
    struct guest g;
    wire_open(&other, &w);
    for (unsigned round = 0; round < 2; round++) {
        wire_do(&c, "{\"op\":\"bind\"}", "OK");
        wire_do(&c, "{\"op\":\"handle\"}", "OK");
        if (round == 0)
            wire_do(&c, "{\"op\":\"unbind\"}", "OK");
        else
            wire_do(&other, "{\"op\":\"destroy\",\"context\":64}", "OK");
        json_t *reply = wire_expect(&other, "{\"op\":\"bind\"}", "OK");
        ck_assert_uint_eq(number_of(reply, "context"), 64);
        json_decref(reply);
        wire_do(&other, "{\"op\":\"handle\"}", "OK");
        guest_ask(&g, 64, FOREVER_MS);
        answer(&other, next_token(&other), "\"verdict\":\"let\"", "OK");
        ck_assert(guest_answered(&g));
        wire_do(&other, "{\"op\":\"unbind\"}", "OK");
    }
    /* whoever is there before the context stays */
    wire_do(&c, "{\"op\":\"handle\",\"context\":65}", "OK");
    wire_do(&other, "{\"op\":\"bind\"}", "OK");
    wire_do(&other, "{\"op\":\"bind\"}", "OK");
    wire_do(&other, "{\"op\":\"handle\",\"context\":65}", "BUSY");
    wire_close(&other);
}
END_TEST

/* The time-out is the client's own if it named one, else the asker's; it is kept from both sides.
 */
START_TEST(a_slow_client_costs_its_time_out)
{
    double took;
    wire_do(&c, "{\"op\":\"handle\",\"context\":7}", "OK");
    ck_assert(!ask_now(7, 300, &took));
    ck_assert_double_ge(took, 0.299);
    ck_assert_double_lt(took, SLACK_S);
    uint64_t token = next_token(&c);
    answer(&c, token, "\"verdict\":\"let\"", "BAD_TOKEN"); /* too late */
    wire_do(&c, "{\"op\":\"handle\",\"context\":7,\"timeout_ms\":200}", "OK");
    ck_assert(!ask_now(7, FOREVER_MS, &took));
    ck_assert_double_ge(took, 0.199);
    ck_assert_double_lt(took, SLACK_S);
}
END_TEST

/* One that hangs costs one time-out, not one for each of a million accesses. */
START_TEST(a_client_that_hangs_is_waited_for_once)
{
    double took, all = seconds();
    struct guest g;
    wire_do(&c, "{\"op\":\"handle\",\"context\":7}", "OK");
    ck_assert(!ask_now(7, 500, &took));
    for (unsigned i = 0; i < 1000; i++)
        ck_assert(!ask_now(7, FOREVER_MS, &took));
    ck_assert_double_lt(seconds() - all, SLACK_S);
    /* any sign of life brings it back */
    next_token(&c);
    wire_do(&c, "{\"op\":\"status\"}", "OK");
    guest_ask(&g, 7, FOREVER_MS);
    answer(&c, next_token(&c), "\"verdict\":\"let\"", "OK");
    ck_assert(guest_answered(&g));
}
END_TEST

START_TEST(a_client_that_dies_frees_who_waits_for_it)
{
    struct guest g;
    double took;
    wire_do(&c, "{\"op\":\"handle\",\"context\":7}", "OK");
    guest_ask(&g, 7, FOREVER_MS);
    next_token(&c);
    wire_close(&c);
    ck_assert(!guest_answered(&g));
    ck_assert_double_lt(g.seconds, SLACK_S);
    ck_assert(!ask_now(7, FOREVER_MS, &took));
    wire_open(&c, &w);
}
END_TEST

/* Whoever takes over from a handler that has gone does not meet its shadow: what the old one still
 * wants done (here a pause that waits) does not keep the context. */
START_TEST(a_handler_that_has_gone_is_not_in_the_way)
{
    struct wire old, new;
    atomic_store(&w.pause_waits, true);
    wire_open(&old, &w);
    wire_do(&old, "{\"op\":\"handle\",\"context\":7}", "OK");
    wire_line(&old, "{\"op\":\"pause\"}");
    wire_close(&old);
    wire_open(&new, &w);
    wire_line(&new, "{\"op\":\"handle\",\"context\":7}");
    usleep(100000); /* so that it waits behind the pause; if it does not, nothing is shown */
    atomic_store(&w.paused, true);
    json_t *reply = wire_next(&new);
    ck_assert_str_eq(text_of(reply, "status"), "OK");
    json_decref(reply);
    wire_close(&new);
}
END_TEST

/* A question that never reached its client is not held against it for good. */
static void nothing(void *opaque)
{
    (void)opaque;
}

START_TEST(a_question_that_was_not_taken_is_forgiven)
{
    struct control_client *client = control_join(w.control, nothing, NULL);
    struct control_message message;
    struct guest g;
    double took, all = seconds();
    ck_assert_int_eq(control_handle(client, 7, true, 0), PROTECT_OK);
    ck_assert(!ask_now(7, 200, &took)); /* nobody takes it */
    ck_assert_double_ge(took, 0.199);
    for (unsigned i = 0; i < 1000; i++) /* and nobody waits for that again */
        ck_assert(!ask_now(7, FOREVER_MS, &took));
    ck_assert_double_lt(seconds() - all, SLACK_S);
    ck_assert(!control_take(client, &message)); /* there it is again; the question has gone */
    guest_ask(&g, 7, FOREVER_MS);
    while (!control_take(client, &message))
        usleep(1000);
    ck_assert_int_eq(message.type, CONTROL_ASK);
    ck_assert_int_eq(control_answer(client, message.token, PROTECT_LET, 0), PROTECT_OK);
    ck_assert(guest_answered(&g));
    control_leave(client);
}
END_TEST

/* A question waits for an answer while its client's own earlier request waits for the guest. */
START_TEST(answers_overtake_requests)
{
    struct guest g;
    atomic_store(&w.pause_waits, true);
    wire_do(&c, "{\"op\":\"handle\",\"context\":7}", "OK");
    guest_ask(&g, 7, FOREVER_MS);
    uint64_t token = next_token(&c);
    wire_line(&c, "{\"op\":\"pause\",\"id\":\"pause\"}");
    answer(&c, token, "\"verdict\":\"let\"", "OK"); /* the first reply is this one's */
    ck_assert(guest_answered(&g));
    atomic_store(&w.paused, true);
    json_t *reply = wire_next(&c);
    ck_assert_str_eq(text_of(reply, "id"), "pause");
    json_decref(reply);
}
END_TEST

/* Questions do not wait behind events that a slow reader has not read. */
START_TEST(asks_come_before_events)
{
    struct guest g;
    uint64_t token = 0;
    unsigned before = 0;
    wire_protect(&c, 0x5000, 1, NO_DMA);
    wire_do(&c, "{\"op\":\"subscribe\"}", "OK");
    wire_do(&c, "{\"op\":\"handle\"}", "OK");
    for (unsigned i = 0; i < 20000; i++)
        ck_assert(!dma_write(&w, 0x5000, 1));
    guest_ask(&g, 64, FOREVER_MS);
    while (!token) {
        json_t *line = wire_next(&c), *ask = json_object_get(line, "ask");
        before++;
        if (ask)
            token = number_of(ask, "token");
        json_decref(line);
    }
    /* what the buffers held, but not the queue behind them */
    ck_assert_uint_lt(before, 20000 - CONTROL_QUEUE);
    char text[100];
    snprintf(text, sizeof(text), "{\"op\":\"answer\",\"token\":%llu,\"verdict\":\"let\"}",
             (unsigned long long)token);
    wire_line(&c, text);
    ck_assert(guest_answered(&g));
}
END_TEST

START_TEST(a_machine_that_ends_waits_for_nobody)
{
    struct guest g;
    double took;
    wire_do(&c, "{\"op\":\"handle\",\"context\":7}", "OK");
    guest_ask(&g, 7, FOREVER_MS);
    next_token(&c);
    control_hush(w.control, true);
    ck_assert(!guest_answered(&g));
    ck_assert_double_lt(g.seconds, SLACK_S);
    ck_assert(!ask_now(7, FOREVER_MS, &took));
    control_hush(w.control, false); /* it was a reset */
    guest_ask(&g, 7, FOREVER_MS);
    answer(&c, next_token(&c), "\"verdict\":\"let\"", "OK");
    ck_assert(guest_answered(&g));
}
END_TEST

/* Clients that come, ask to handle, answer or not, and go, against guests that ask all the time. */
static _Atomic bool over;

static void *asks_all_the_time(void *opaque)
{
    unsigned *count = opaque;
    enum protect_verdict verdict;
    uint64_t value;
    while (!atomic_load(&over))
        *count += control_ask(w.control, 7, &event, 50, &verdict, &value);
    return NULL;
}

START_TEST(clients_come_and_go_under_load)
{
    pthread_t thread[4];
    unsigned count[4] = {0}, answers = 0;
    for (unsigned i = 0; i < 4; i++)
        pthread_create(&thread[i], NULL, asks_all_the_time, &count[i]);
    for (unsigned round = 0; round < 200; round++) {
        struct wire client;
        wire_open(&client, &w);
        wire_line(&client, "{\"op\":\"handle\",\"context\":7}");
        for (unsigned n = 0; n < round % 5; n++) {
            json_t *line = wire_next(&client);
            json_t *ask = json_object_get(line, "ask");
            char text[100];
            if (ask) {
                snprintf(text, sizeof(text), "{\"op\":\"answer\",\"token\":%llu,\"verdict\":1}",
                         (unsigned long long)number_of(ask, "token"));
                wire_line(&client, text);
                answers++;
            }
            json_decref(line);
        }
        wire_close(&client);
    }
    atomic_store(&over, true);
    for (unsigned i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
    ck_assert_uint_gt(answers, 0);
    ck_assert_uint_gt(count[0] + count[1] + count[2] + count[3], 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("asks");
    TCase *t = tcase_create("asks");
    tcase_set_timeout(t, 240);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, an_answer_reaches_the_guest);
    tcase_add_test(t, every_verdict_but_registers);
    tcase_add_test(t, several_guests_ask_at_once);
    tcase_add_test(t, without_a_handler_nobody_waits);
    tcase_add_test(t, a_context_has_one_handler);
    tcase_add_test(t, a_handler_ends_with_its_context);
    tcase_add_test(t, a_slow_client_costs_its_time_out);
    tcase_add_test(t, a_client_that_hangs_is_waited_for_once);
    tcase_add_test(t, a_client_that_dies_frees_who_waits_for_it);
    tcase_add_test(t, a_handler_that_has_gone_is_not_in_the_way);
    tcase_add_test(t, a_question_that_was_not_taken_is_forgiven);
    tcase_add_test(t, answers_overtake_requests);
    tcase_add_test(t, asks_come_before_events);
    tcase_add_test(t, a_machine_that_ends_waits_for_nobody);
    tcase_add_test(t, clients_come_and_go_under_load);
    suite_add_tcase(suite, t);
    return run_suite(suite);
}
