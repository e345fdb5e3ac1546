/*
 * test_library.c - the client library against the server: every command has the same status,
 * element and result over the socket as without it, and what servers may do to a client does it no
 * harm.
 */
#include "bailey/ctl.h"
#include "world.h"
#include <pthread.h>

static struct world w;
static struct bctl *ctl;
static struct bctl_error error;

static void setup(void)
{
    world_listen(&w);
    ctl = bctl_open(w.path, &error);
    ck_assert_msg(ctl != NULL, "%s", error.text);
}

static void teardown(void)
{
    bctl_close(ctl);
    world_free(&w);
}

/* ---- The same commands, with and without the socket ------------------------------------------ */

/* A client in this process, whose memory is this process's. */
static void never_mind(void *opaque)
{
    (void)opaque;
}
static bool copy_in(void *opaque, uint64_t from, void *to, size_t len)
{
    (void)opaque;
    if (from < 0x10000)
        return false;
    memcpy(to, (const void *)(uintptr_t)from, len);
    return true;
}
static bool copy_out(void *opaque, uint64_t to, const void *from, size_t len)
{
    (void)opaque;
    if (to < 0x10000)
        return false;
    memcpy((void *)(uintptr_t)to, from, len);
    return true;
}

static struct protect_region regions[] = {
    {.base = 0x5000, .length = 16, .flags = PROTECT_PHYSICAL, .cookie = 1},
    {.base = 0x6fff, .length = 2, .flags = PROTECT_PHYSICAL | PROTECT_PIN},
    {.base = 0x5000, .length = 0, .flags = PROTECT_PHYSICAL},
    {.base = 0x5000, .length = 1, .flags = 0x80000000},
    {.base = 0x5000, .length = 1, .reserved = 1},
    {.base = UINT64_MAX, .length = 2, .flags = PROTECT_PHYSICAL},
    {.base = 1ull << 47, .length = 1},
    {.base = 4 * MIB, .length = 1, .flags = PROTECT_PHYSICAL},
};
static struct protect_rule rules[] = {
    {.region = 0, .count = 2, .notify = PROTECT_NOTIFY_PREIMAGE, .marker = 20},
    {.region = 0, .count = 0},
    {.region = 7, .count = 1},
    {.region = 0, .count = UINT32_MAX},
    {.region = 0, .count = 1, .allow = {8}},
    {.region = 0, .count = 1, .action = {0, 0, 0, 0, 0, PROTECT_ASK_HOST}},
    {.region = 0, .count = 1, .notify = 64},
    {.region = 0, .count = 1, .fault = 2},
    {.region = 0, .count = 1, .marker = 3},
    {.region = 0, .count = 1, .reserved = 1},
};
#define REGIONS(first, n)                                                                          \
    {                                                                                              \
        (uintptr_t) & regions[first], (n)                                                          \
    }
#define RULES(first, n)                                                                            \
    {                                                                                              \
        (uintptr_t) & rules[first], (n)                                                            \
    }
static struct protect_handler handler = {.rip = 0x1000};
static struct protect_query query;
static struct protect_statistics statistics;

static const struct protect_command commands[] = {
    {.op = 0},
    {.op = PROTECT_OPS},
    {.op = 0xffff, .arg = {1, 2, 3, 4}},
    {.op = PROTECT_OP_ADD_REGIONS, .arg = REGIONS(0, 2)},
    {.op = PROTECT_OP_ADD_REGIONS, .arg = REGIONS(0, 3)},
    {.op = PROTECT_OP_ADD_REGIONS, .arg = REGIONS(3, 1)},
    {.op = PROTECT_OP_ADD_REGIONS, .arg = REGIONS(4, 1)},
    {.op = PROTECT_OP_ADD_REGIONS, .arg = REGIONS(5, 1)},
    {.op = PROTECT_OP_ADD_REGIONS, .arg = REGIONS(6, 1)},
    {.op = PROTECT_OP_ADD_REGIONS, .arg = REGIONS(7, 1)},
    {.op = PROTECT_OP_ADD_REGIONS, .arg = REGIONS(0, 0)},
    {.op = PROTECT_OP_ADD_REGIONS, .arg = REGIONS(0, PROTECT_MAX_ELEMENTS + 1)},
    {.op = PROTECT_OP_ADD_REGIONS, .arg = REGIONS(0, UINT64_MAX)},
    {.op = PROTECT_OP_ADD_REGIONS, .arg = {(uintptr_t)regions, 1, 5}},
    {.op = PROTECT_OP_ADD_REGIONS, .arg = REGIONS(0, 1), .version = 2},
    {.op = PROTECT_OP_ADD_REGIONS, .arg = REGIONS(0, 1), .version = 1},
    {.op = PROTECT_OP_ADD_REGIONS, .arg = REGIONS(0, 1), .reserved = 1},
    {.op = PROTECT_OP_ADD_REGIONS, .arg = REGIONS(0, 1), .session = 99},
    {.op = PROTECT_OP_SET_RULES, .arg = RULES(0, 1)},
    {.op = PROTECT_OP_SET_RULES, .arg = RULES(0, 2)},
    {.op = PROTECT_OP_SET_RULES, .arg = RULES(2, 1)},
    {.op = PROTECT_OP_SET_RULES, .arg = RULES(3, 1)},
    {.op = PROTECT_OP_SET_RULES, .arg = RULES(4, 1)},
    {.op = PROTECT_OP_SET_RULES, .arg = RULES(5, 1)},
    {.op = PROTECT_OP_SET_RULES, .arg = RULES(6, 1)},
    {.op = PROTECT_OP_SET_RULES, .arg = RULES(7, 1)},
    {.op = PROTECT_OP_SET_RULES, .arg = RULES(8, 1)},
    {.op = PROTECT_OP_SET_RULES, .arg = RULES(9, 1)},
    {.op = PROTECT_OP_SET_HANDLER, .arg = {(uintptr_t)&handler}},
    {.op = PROTECT_OP_SET_HANDLER},
    {.op = PROTECT_OP_QUERY, .arg = {(uintptr_t)&query}},
    {.op = PROTECT_OP_STATISTICS, .arg = {(uintptr_t)&statistics}},
    {.op = PROTECT_OP_REMOVE_REGIONS, .arg = {1, 9}},
    {.op = PROTECT_OP_REMOVE_REGIONS, .arg = {1, 0}},
    {.op = PROTECT_OP_REMOVE_REGIONS, .arg = {UINT64_MAX, 1}},
    {.op = PROTECT_OP_REMOVE_REGIONS, .arg = {1, 1}},
    {.op = PROTECT_OP_SEAL, .arg = {8}},
    {.op = PROTECT_OP_SEAL, .arg = {PROTECT_SEAL_WEAKEN | PROTECT_SEAL_REMOVE, 1}},
    {.op = PROTECT_OP_SEAL, .arg = {PROTECT_SEAL_WEAKEN | PROTECT_SEAL_REMOVE}},
    {.op = PROTECT_OP_REMOVE_REGIONS, .arg = {0, 1}},
    {.op = PROTECT_OP_UNBIND},
};

START_TEST(commands_mean_the_same_with_and_without_the_socket)
{
    static const struct control_space space = {0};
    struct control_client *client = control_join(w.control, never_mind, NULL);
    struct rules_caller caller = {.copy_in = copy_in, .copy_out = copy_out};
    struct protect_command bind = {.op = PROTECT_OP_BIND};
    unsigned context = 0, refused = 0;
    control_execute(client, &context, &bind, &caller, &space);
    ck_assert_uint_eq(bind.status, PROTECT_OK);
    ck_assert_msg(bctl_bind(ctl, false, &error), "%s", error.text);
    for (unsigned i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        struct protect_command direct = commands[i], wired = commands[i];
        struct protect_query direct_query;
        struct protect_statistics direct_statistics;
        query = (struct protect_query){.address = 0x6fff, .region = UINT32_MAX};
        control_execute(client, &context, &direct, &caller, &space);
        direct_query = query;
        direct_statistics = statistics;
        query = (struct protect_query){.address = 0x6fff, .region = UINT32_MAX};
        memset(&statistics, 0, sizeof(statistics));
        ck_assert_msg(bctl_command(ctl, &wired, &error), "%u: %s", i, error.text);
        ck_assert_msg(wired.status == direct.status, "%u: %s, but %s without the socket", i,
                      wire_statuses[wired.status], wire_statuses[direct.status]);
        ck_assert_msg(wired.element == direct.element, "%u: element", i);
        ck_assert_msg(wired.result == direct.result, "%u: result", i);
        ck_assert_mem_eq(&query, &direct_query, sizeof(query));
        if (wired.op == PROTECT_OP_STATISTICS)
            ck_assert_mem_eq(&statistics, &direct_statistics, sizeof(statistics));
        refused += wired.status != PROTECT_OK;
    }
    ck_assert_uint_gt(refused, 20);
    control_leave(client);
}
END_TEST

/* ---- The rest of the library ----------------------------------------------------------------- */

static enum bctl_next next(struct bctl_message *message)
{
    return bctl_next(ctl, 60000, message, &error);
}

START_TEST(protect_watch_and_answer)
{
    struct protect_region region = {.base = 0x5000, .length = 4, .flags = PROTECT_PHYSICAL};
    struct protect_rule rule = {.count = 9, .region = 9};
    struct bctl_message m;
    memset(rule.allow, PROTECT_ALL, sizeof(rule.allow));
    rule.allow[PROTECT_DEVICE] = PROTECT_READ;
    ck_assert_msg(bctl_bind(ctl, false, &error), "%s", error.text);
    ck_assert_uint_eq(bctl_context(ctl), PROTECT_DOORS);
    ck_assert_msg(bctl_protect(ctl, &region, &rule, &error), "%s", error.text);
    ck_assert_uint_eq(rule.region, 0);
    ck_assert(bctl_subscribe(ctl, true, &error));
    ck_assert_int_eq(bctl_next(ctl, 0, &m, &error), BCTL_TIMEOUT);
    ck_assert(!dma_write(&w, 0x5002, 0x77));
    ck_assert_int_eq(next(&m), BCTL_MESSAGE);
    ck_assert_int_eq(m.type, BCTL_EVENT);
    ck_assert_uint_eq(m.context, PROTECT_DOORS);
    ck_assert_uint_eq(m.event.gpa, 0x5002);
    ck_assert_uint_eq(m.event.subject, PROTECT_DEVICE);
    ck_assert_uint_eq(m.event.value[0], 0x77);
    ck_assert_ptr_nonnull(strstr(m.json, "\"device\""));
    /* messages that come while a reply is waited for are not lost */
    for (unsigned i = 0; i < 10; i++)
        ck_assert(!dma_write(&w, 0x5000, (uint8_t)i));
    uint8_t byte;
    ck_assert(bctl_read(ctl, BCTL_PHYSICAL, 0x5000, &byte, 1, &error));
    for (unsigned i = 0; i < 10; i++) {
        ck_assert_int_eq(next(&m), BCTL_MESSAGE);
        ck_assert_uint_eq(m.event.value[0], i);
    }
    control_tell(w.control, "paused", "why");
    ck_assert_int_eq(next(&m), BCTL_MESSAGE);
    ck_assert_int_eq(m.type, BCTL_STATE);
    ck_assert_str_eq(m.state, "paused");
    ck_assert_str_eq(m.text, "why");
    ck_assert(!bctl_answer(ctl, 7, PROTECT_LET, 0, &error));
    ck_assert_ptr_nonnull(strstr(error.text, "BAD_TOKEN"));
    ck_assert(!error.lost);
}
END_TEST

static void *asks(void *opaque)
{
    static const struct protect_event event = {.subject = PROTECT_KERNEL};
    enum protect_verdict verdict = PROTECT_RETRY;
    uint64_t value = 0;
    if (control_ask(w.control, PROTECT_DOORS, &event, 60000, &verdict, &value))
        *(uint64_t *)opaque = value;
    return (void *)(uintptr_t)verdict;
}

START_TEST(a_question_and_its_answer)
{
    pthread_t thread;
    uint64_t value = 0;
    void *verdict;
    struct bctl_message m;
    ck_assert(bctl_bind(ctl, false, &error) && bctl_handle(ctl, 0, &error));
    ck_assert_int_eq(pthread_create(&thread, NULL, asks, &value), 0);
    ck_assert_int_eq(next(&m), BCTL_MESSAGE);
    ck_assert_int_eq(m.type, BCTL_ASK);
    ck_assert_uint_eq(m.event.subject, PROTECT_KERNEL);
    ck_assert_uint_eq(m.timeout_ms, 60000);
    ck_assert(bctl_answer(ctl, m.token, PROTECT_GIVE, UINT64_MAX, &error));
    pthread_join(thread, &verdict);
    ck_assert_uint_eq((uintptr_t)verdict, PROTECT_GIVE);
    ck_assert_uint_eq(value, UINT64_MAX);
}
END_TEST

START_TEST(memory_of_any_length)
{
    enum { LENGTH = 200000 };
    uint8_t *out = malloc(LENGTH), *in = malloc(LENGTH);
    for (unsigned i = 0; i < LENGTH; i++)
        out[i] = (uint8_t)(i * 7 + i / 251);
    ck_assert(bctl_write(ctl, BCTL_PHYSICAL, 0x12345, out, LENGTH, &error));
    ck_assert(bctl_read(ctl, BCTL_PHYSICAL, 0x12345, in, LENGTH, &error));
    ck_assert_mem_eq(in, out, LENGTH);
    ck_assert(!bctl_read(ctl, BCTL_PHYSICAL, 4 * MIB - 1, in, 2, &error));
    ck_assert_ptr_nonnull(strstr(error.text, "NOT_MEMORY"));
    ck_assert(!error.lost);
    free(out);
    free(in);
}
END_TEST

START_TEST(a_rule_that_is_refused_leaves_no_region)
{
    struct protect_region region = {.base = 0x5000, .length = 4, .flags = PROTECT_PHYSICAL};
    struct protect_rule rule = {.fault = 9};
    ck_assert(bctl_bind(ctl, false, &error));
    ck_assert(!bctl_protect(ctl, &region, &rule, &error));
    ck_assert_ptr_nonnull(strstr(error.text, "BAD_FAULT"));
    struct protect_query q = {.region = 0};
    struct protect_command command = {.op = PROTECT_OP_QUERY, .arg = {(uintptr_t)&q}};
    ck_assert(bctl_command(ctl, &command, &error));
    ck_assert_uint_eq(command.status, PROTECT_NO_REGION);
}
END_TEST

START_TEST(what_does_not_fit_into_a_line_is_said)
{
    enum { MANY = 60000 };
    struct protect_region *many = calloc(MANY, sizeof(*many));
    struct protect_command add = {.op = PROTECT_OP_ADD_REGIONS, .arg = {(uintptr_t)many, MANY}};
    ck_assert(bctl_bind(ctl, false, &error));
    ck_assert(!bctl_command(ctl, &add, &error));
    ck_assert_ptr_nonnull(strstr(error.text, "longer than a line"));
    ck_assert(!error.lost);
    add.arg[1] = 1; /* and the connection is as good as before */
    ck_assert(bctl_command(ctl, &add, &error));
    free(many);
}
END_TEST

START_TEST(the_end_of_the_machine_ends_the_connection)
{
    struct bctl_message m;
    control_free(w.control);
    w.control = NULL;
    ck_assert_int_eq(next(&m), BCTL_ENDED);
    ck_assert(!bctl_pause(ctl, &error));
    ck_assert(error.lost);
}
END_TEST

/* ---- Servers that are none ------------------------------------------------------------------- */

static int listen_at(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_eq(listen(fd, 4), 0);
    return fd;
}

struct liar {
    int fd;
    const char *says; /* after the greeting */
    size_t endless;   /* bytes without a newline instead */
};

static void *lie(void *opaque)
{
    static const char greeting[] = "{\"bailey\":{\"protocol\":1}}\n";
    struct liar *liar = opaque;
    int fd = accept(liar->fd, NULL, NULL);
    char junk[4096];
    memset(junk, 'x', sizeof(junk));
    send(fd, greeting, sizeof(greeting) - 1, MSG_NOSIGNAL);
    if (liar->says)
        send(fd, liar->says, strlen(liar->says), MSG_NOSIGNAL);
    while (liar->endless && send(fd, junk, sizeof(junk), MSG_NOSIGNAL) > 0)
        ;
    shutdown(fd, SHUT_WR);
    while (recv(fd, junk, sizeof(junk), 0) > 0)
        ;
    close(fd);
    return NULL;
}

START_TEST(servers_that_lie_do_no_harm)
{
    static const struct {
        const char *says;
        size_t endless;
    } lies[] = {
        {"", 0},
        {"junk\n", 0},
        {"[]\n", 0},
        {"{\"status\":\"OK\",\"id\":1}\n", 0}, /* without the data that were asked for */
        {"{\"status\":\"OK\",\"id\":1,\"data\":\"00112233\"}\n", 0},
        {"{\"status\":\"OK\",\"id\":1,\"data\":\"zz\"}\n", 0},
        {"{\"status\":{},\"id\":1}\n", 0},
        {"{\"status\":\"OK\",\"id\":77}\n", 0},
        {"{\"event\":7}\n{\"ask\":{}}\n{\"lost\":[]}\n{\"machine\":{\"state\":9}}\n{\"new\":1}\n",
         0},
        {NULL, 1},
    };
    char path[80];
    snprintf(path, sizeof(path), "%s/liar", w.folder);
    struct liar liar = {.fd = listen_at(path), .says = lies[_i].says, .endless = lies[_i].endless};
    pthread_t thread;
    uint8_t byte;
    pthread_create(&thread, NULL, lie, &liar);
    struct bctl *other = bctl_open(path, &error);
    ck_assert_msg(other != NULL, "%s", error.text);
    ck_assert(!bctl_read(other, BCTL_PHYSICAL, 0, &byte, 1, &error));
    ck_assert_str_ne(error.text, "");
    struct bctl_message m;
    while (bctl_next(other, 60000, &m, &error) == BCTL_MESSAGE)
        ;
    bctl_close(other);
    pthread_join(thread, NULL);
    close(liar.fd);
    unlink(path);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("library");
    TCase *t = tcase_create("library");
    tcase_set_timeout(t, 240);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, commands_mean_the_same_with_and_without_the_socket);
    tcase_add_test(t, protect_watch_and_answer);
    tcase_add_test(t, a_question_and_its_answer);
    tcase_add_test(t, memory_of_any_length);
    tcase_add_test(t, a_rule_that_is_refused_leaves_no_region);
    tcase_add_test(t, what_does_not_fit_into_a_line_is_said);
    tcase_add_test(t, the_end_of_the_machine_ends_the_connection);
    tcase_add_loop_test(t, servers_that_lie_do_no_harm, 0, 10);
    suite_add_tcase(suite, t);
    return run_suite(suite);
}
