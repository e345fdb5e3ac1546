/*
 * test_socket.c - the socket as a file, and lines as lines: who may connect, what is done about an
 * old socket, lines that are malformed, cut, too long or too many, readers that do not read.
 */
#include "world.h"
#include <fcntl.h>
#include <sys/wait.h>

static struct world w;
static struct error err;

/* ---- The file -------------------------------------------------------------------------------- */

START_TEST(the_socket_is_its_owners)
{
    struct stat st;
    umask(0); /* as bad as can be */
    world_listen(&w);
    ck_assert_int_eq(stat(w.path, &st), 0);
    ck_assert_uint_eq(st.st_mode & 07777, 0600);
    ck_assert_uint_eq(umask(022), 0); /* the process's own is what it was */
    world_free(&w);
    ck_assert_int_eq(stat(w.path, &st), -1);
}
END_TEST

/* Even where the file's mode does not keep others out, their credentials do. */
START_TEST(other_users_are_turned_away)
{
    enum { NOBODY = 65534 };
    struct wire c;
    int status;
    if (geteuid() != 0) {
        printf("other_users_are_turned_away: skipped, only root can become somebody else\n");
        return;
    }
    world_listen(&w);
    ck_assert_int_eq(chmod(w.path, 0666), 0);
    ck_assert_int_eq(chmod(w.folder, 0755), 0);
    pid_t child = fork();
    if (child == 0) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        char text[512] = "";
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        strcpy(address.sun_path, w.path);
        if (setgid(NOBODY) || setuid(NOBODY) ||
            connect(fd, (struct sockaddr *)&address, sizeof(address)))
            _exit(2);
        ssize_t n = recv(fd, text, sizeof(text) - 1, 0);
        _exit(n > 0 && strstr(text, "WRONG_CALLER") && recv(fd, text, 1, 0) == 0 ? 0 : 3);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    wire_open(&c, &w); /* the owner still gets in */
    wire_close(&c);
    world_free(&w);
}
END_TEST

static int leave_an_old_socket(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    strcpy(address.sun_path, path);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

START_TEST(an_old_socket_is_replaced)
{
    struct wire c;
    world_init(&w);
    close(leave_an_old_socket(w.path));
    ck_assert_msg(control_listen(w.control, w.path, &err), "%s", err.msg);
    wire_open(&c, &w);
    wire_close(&c);
    world_free(&w);
}
END_TEST

START_TEST(a_machine_that_listens_is_left_alone)
{
    struct world second;
    struct wire c;
    world_listen(&w);
    world_init(&second);
    ck_assert(!control_listen(second.control, w.path, &err));
    ck_assert_ptr_nonnull(strstr(err.msg, "another machine listens there"));
    world_free(&second);
    wire_open(&c, &w); /* and has its socket still */
    wire_close(&c);
    world_free(&w);
}
END_TEST

/* What somebody else has put there since is not taken away at the end. */
START_TEST(the_end_removes_only_its_own_socket)
{
    struct world second;
    struct wire c;
    world_listen(&w);
    ck_assert_int_eq(unlink(w.path), 0);
    world_init(&second);
    ck_assert(control_listen(second.control, w.path, &err));
    control_free(w.control);
    w.control = NULL;
    wire_open(&c, &w);
    wire_close(&c);
    world_free(&second);
    world_free(&w);
}
END_TEST

START_TEST(paths_that_cannot_be_are_said)
{
    char path[200], file[80];
    world_init(&w);
    memset(path, 'x', sizeof(path) - 1);
    path[0] = '/';
    path[sizeof(path) - 1] = 0;
    ck_assert(!control_listen(w.control, path, &err));
    ck_assert_ptr_nonnull(strstr(err.msg, "1 to 103 bytes"));
    ck_assert(!control_listen(w.control, "/nonexistent/socket", &err));
    ck_assert_ptr_nonnull(strstr(err.msg, "No such file or directory"));
    snprintf(file, sizeof(file), "%s/file", w.folder);
    int fd = open(file, O_CREAT | O_WRONLY, 0600);
    ck_assert_int_eq(write(fd, "precious", 8), 8);
    ck_assert(!control_listen(w.control, file, &err));
    ck_assert_ptr_nonnull(strstr(err.msg, "there is a file of that name"));
    ck_assert_int_eq(lseek(fd, 0, SEEK_END), 8);
    ck_assert_int_eq(access(file, F_OK), 0);
    close(fd);
    unlink(file);
    world_free(&w);
}
END_TEST

/* Whoever waits for the name to appear can connect as soon as it has. */
static void *connects_at_once(void *opaque)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat st;
    (void)opaque;
    strcpy(address.sun_path, w.path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    while (stat(w.path, &st) != 0)
        ;
    int result = connect(fd, (struct sockaddr *)&address, sizeof(address));
    close(fd);
    return (void *)(intptr_t)result;
}

START_TEST(the_name_appears_when_somebody_listens)
{
    for (unsigned i = 0; i < 200; i++) {
        pthread_t thread;
        void *result;
        world_init(&w);
        ck_assert_int_eq(pthread_create(&thread, NULL, connects_at_once, NULL), 0);
        ck_assert_msg(control_listen(w.control, w.path, &err), "%s", err.msg);
        pthread_join(thread, &result);
        ck_assert_int_eq((int)(intptr_t)result, 0);
        world_free(&w);
    }
}
END_TEST

/* ---- Lines ----------------------------------------------------------------------------------- */

START_TEST(the_greeting_says_who_is_there)
{
    struct wire c;
    world_listen(&w);
    wire_connect(&c, &w);
    json_t *greeting = wire_next(&c), *bailey = json_object_get(greeting, "bailey");
    ck_assert_str_eq(text_of(bailey, "version"), BAILEY_VERSION);
    ck_assert_uint_eq(number_of(bailey, "protocol"), 1);
    ck_assert_uint_eq(number_of(bailey, "protect"), PROTECT_VERSION);
    json_decref(greeting);
    wire_close(&c);
    world_free(&w);
}
END_TEST

START_TEST(malformed_lines_are_answered_and_survived)
{
    static const struct {
        const char *line, *status, *text;
    } cases[] = {
        {"hello", "BAD_JSON", "column"},
        {"{", "BAD_JSON", "column"},
        {"{\"op\":\"list\"", "BAD_JSON", "column"},
        {"{\"op\":\"list\"}}", "BAD_JSON", "end of file expected"},
        {"{\"op\":\"list\",\"op\":\"stop\"}", "BAD_JSON", "duplicate"},
        {"{\"op\":\"\\ud800\"}", "BAD_JSON", "column"},
        {"{\"op\":\"li\\u0000st\"}", "BAD_JSON", "column"},
        {"{\"op\":\"\xff\"}", "BAD_JSON", "decode byte 0xff"},
        {"{\"token\":99999999999999999999}", "BAD_JSON", "too big"},
        {"[]", "BAD_REQUEST", "must be an object"},
        {"7", "BAD_REQUEST", "must be an object"},
        {"null", "BAD_REQUEST", "must be an object"},
        {"{}", "BAD_REQUEST", "'op' is missing"},
        {"{\"op\":null}", "BAD_REQUEST", "'op' is missing"},
        {"{\"op\":[\"list\"]}", "BAD_REQUEST", "'op' is missing"},
        {"{\"op\":\"lists\"}", "BAD_REQUEST", "no operation 'lists'"},
        {"{\"op\":-1}", "BAD_REQUEST", "must be a number"},
        {"{\"op\":65536}", "BAD_REQUEST", "at most"},
        {"{\"op\":\"list\",\"contxt\":1}", "BAD_REQUEST", "no member 'contxt'"},
        {"{\"op\":\"bind\",\"token\":1}", "BAD_REQUEST", "no member 'token'"},
        {"{\"op\":\"list\",\"count\":1001}", "BAD_REQUEST", "at most"},
        {"{\"op\":\"list\",\"id\":{}}", "BAD_REQUEST", "'id' must be"},
        {"{\"op\":\"list\",\"id\":1.5}", "BAD_REQUEST", "'id' must be"},
        {"{\"op\":\"bind\",\"keep\":1}", "BAD_REQUEST", "true or false"},
        {"{\"op\":\"add-regions\"}", "BAD_REQUEST", "needs a list"},
        {"{\"op\":\"add-regions\",\"regions\":[7]}", "BAD_REQUEST", "regions[0]: a region must"},
        {"{\"op\":\"add-regions\",\"regions\":[{\"base\":{},\"length\":1}]}", "BAD_REQUEST",
         "either 'virtual'"},
        {"{\"op\":\"add-regions\",\"regions\":[{\"base\":{\"physical\":1,\"virtual\":1}}]}",
         "BAD_REQUEST", "either 'virtual'"},
        {"{\"op\":\"add-regions\",\"regions\":[{\"base\":{\"physical\":1,\"cr3\":1}}]}",
         "BAD_REQUEST", "either 'virtual'"},
        {"{\"op\":\"add-regions\",\"regions\":[{\"base\":{\"virtual\":1,\"cr3\":4096},\"length\":1}"
         ","
         "{\"base\":{\"virtual\":1,\"cr3\":8192},\"length\":1}]}",
         "BAD_REQUEST", "two address spaces"},
        {"{\"op\":\"remove-regions\"}", "BAD_REQUEST", "needs 'region'"},
        {"{\"op\":\"seal\"}", "BAD_REQUEST", "needs 'seals'"},
        {"{\"op\":\"seal\",\"seals\":\"everything\"}", "BAD_REQUEST", "cannot hold"},
        {"{\"op\":\"query\"}", "BAD_REQUEST", "needs an object"},
        {"{\"op\":\"grant\",\"context\":1}", "BAD_REQUEST", "'grants' is missing"},
        {"{\"op\":\"grant\",\"grants\":1}", "BAD_REQUEST", "'context' is missing"},
        {"{\"op\":\"destroy\"}", "BAD_REQUEST", "'context' is missing"},
        {"{\"op\":\"subscribe\",\"events\":\"some\"}", "BAD_REQUEST", "cannot be 'some'"},
        {"{\"op\":\"answer\",\"token\":1}", "BAD_REQUEST", "'verdict' is missing"},
        {"{\"op\":\"read\",\"address\":0}", "BAD_REQUEST", "'length' is missing"},
        {"{\"op\":\"read\",\"address\":0,\"length\":65537}", "BAD_REQUEST", "at most"},
        {"{\"op\":\"write\",\"address\":0,\"data\":\"0\"}", "BAD_REQUEST", "hexadecimal"},
        {"{\"op\":\"write\",\"address\":0}", "BAD_REQUEST", "'data' is missing"},
    };
    struct wire c;
    world_listen(&w);
    wire_open(&c, &w);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        json_t *reply = wire_expect(&c, cases[i].line, cases[i].status);
        ck_assert_msg(strstr(text_of(reply, "text"), cases[i].text) != NULL, "%s: %s",
                      cases[i].line, text_of(reply, "text"));
        json_decref(reply);
    }
    wire_line(&c, ""); /* not a request at all */
    wire_line(&c, " \r");
    wire_do(&c, "{\"op\":\"status\"}", "OK");
    wire_close(&c);
    world_free(&w);
}
END_TEST

/* A deep nest is refused by the parser, not by the stack. */
START_TEST(deep_nests_are_refused)
{
    enum { DEPTH = 500000 };
    struct wire c;
    char *line = malloc(DEPTH + 1);
    memset(line, '[', DEPTH);
    line[DEPTH] = 0;
    world_listen(&w);
    wire_open(&c, &w);
    wire_do(&c, line, "BAD_JSON");
    wire_do(&c, "{\"op\":\"status\"}", "OK");
    wire_close(&c);
    world_free(&w);
    free(line);
}
END_TEST

START_TEST(ids_come_back)
{
    struct wire c;
    world_listen(&w);
    wire_open(&c, &w);
    json_t *reply = wire_ask(&c, "{\"op\":\"status\",\"id\":-7}");
    ck_assert_int_eq(json_integer_value(json_object_get(reply, "id")), -7);
    json_decref(reply);
    reply = wire_ask(&c, "{\"id\":\"a \\\"b\",\"op\":\"nonsense\"}");
    ck_assert_str_eq(text_of(reply, "id"), "a \"b");
    json_decref(reply);
    reply = wire_ask(&c, "{\"op\":\"status\"}");
    ck_assert(json_is_null(json_object_get(reply, "id")));
    json_decref(reply);
    wire_close(&c);
    world_free(&w);
}
END_TEST

START_TEST(a_line_may_have_a_mebibyte_and_no_more)
{
    static const char head[] = "{\"op\":\"status\"", tail[] = "}";
    struct wire c;
    char *line = malloc(WIRE_LINE_MAX + 2);
    world_listen(&w);
    wire_open(&c, &w);
    /* with its newline exactly as long as it may be */
    memset(line, ' ', WIRE_LINE_MAX - 1);
    memcpy(line, head, sizeof(head) - 1);
    memcpy(line + WIRE_LINE_MAX - 2, tail, 1);
    line[WIRE_LINE_MAX - 1] = 0;
    wire_do(&c, line, "OK");
    /* one more: a last line that says so, and the end */
    memset(line, ' ', WIRE_LINE_MAX);
    line[WIRE_LINE_MAX] = 0;
    wire_send(&c, line, WIRE_LINE_MAX);
    json_t *last = wire_next(&c);
    ck_assert_str_eq(text_of(json_object_get(last, "closed"), "status"), "TOO_LONG");
    json_decref(last);
    ck_assert_ptr_null(wire_next(&c));
    wire_close(&c);
    wire_open(&c, &w); /* the others go on */
    wire_do(&c, "{\"op\":\"status\"}", "OK");
    wire_close(&c);
    world_free(&w);
    free(line);
}
END_TEST

START_TEST(lines_may_come_in_pieces_and_in_bunches)
{
    static const char line[] = "{\"op\":\"status\",\"id\":\"in pieces\"}\n";
    char many[200 * 40] = "";
    struct wire c;
    world_listen(&w);
    wire_open(&c, &w);
    for (unsigned i = 0; line[i]; i++)
        wire_send(&c, line + i, 1);
    json_t *reply = wire_next(&c);
    ck_assert_str_eq(text_of(reply, "id"), "in pieces");
    json_decref(reply);
    for (unsigned i = 0; i < 200; i++)
        sprintf(many + strlen(many), "{\"op\":\"status\",\"id\":%u}\n", i);
    wire_send(&c, many, strlen(many));
    for (unsigned i = 0; i < 200; i++) {
        reply = wire_next(&c);
        ck_assert_uint_eq(number_of(reply, "id"), i);
        json_decref(reply);
    }
    wire_close(&c);
    world_free(&w);
}
END_TEST

/* Whoever does not give ids tells replies by their order. */
START_TEST(refusals_wait_for_their_turn)
{
    struct wire c;
    world_listen(&w);
    wire_open(&c, &w);
    atomic_store(&w.pause_waits, true);
    wire_line(&c, "{\"op\":\"pause\",\"id\":1}");
    wire_line(&c, "{\"op\":\"nonsense\",\"id\":2}");
    wire_line(&c, "{\"id\":3");
    wire_line(&c, "{\"op\":\"answer\",\"id\":4,\"token\":1}"); /* these overtake */
    json_t *reply = wire_next(&c);
    ck_assert_uint_eq(number_of(reply, "id"), 4);
    ck_assert_str_eq(text_of(reply, "status"), "BAD_REQUEST");
    json_decref(reply);
    atomic_store(&w.paused, true);
    for (unsigned i = 1; i < 3; i++) {
        reply = wire_next(&c);
        ck_assert_uint_eq(number_of(reply, "id"), i);
        json_decref(reply);
    }
    reply = wire_next(&c);
    ck_assert_str_eq(text_of(reply, "status"), "BAD_JSON");
    json_decref(reply);
    wire_close(&c);
    world_free(&w);
}
END_TEST

/* printf '...' | socat - UNIX:... */
START_TEST(who_has_said_all_still_gets_the_replies)
{
    struct wire c;
    world_listen(&w);
    wire_open(&c, &w);
    for (unsigned i = 0; i < 50; i++)
        wire_line(&c, "{\"op\":\"status\"}");
    ck_assert_int_eq(shutdown(c.fd, SHUT_WR), 0);
    for (unsigned i = 0; i < 50; i++) {
        json_t *reply = wire_next(&c);
        ck_assert_str_eq(text_of(reply, "status"), "OK");
        json_decref(reply);
    }
    ck_assert_ptr_null(wire_next(&c));
    wire_close(&c);
    world_free(&w);
}
END_TEST

START_TEST(there_are_only_so_many_connections)
{
    enum { MOST = 16 };
    struct wire c[MOST], more;
    world_listen(&w);
    for (unsigned i = 0; i < MOST; i++)
        wire_open(&c[i], &w);
    wire_connect(&more, &w);
    json_t *last = wire_next(&more);
    ck_assert_str_eq(text_of(json_object_get(last, "closed"), "status"), "TOO_MANY");
    json_decref(last);
    ck_assert_ptr_null(wire_next(&more));
    wire_close(&more);
    wire_close(&c[3]);
    /* the place is free as soon as the server has seen it */
    for (bool in = false; !in;) {
        wire_connect(&more, &w);
        json_t *first = wire_next(&more);
        in = json_object_get(first, "bailey") != NULL;
        json_decref(first);
        if (!in)
            wire_close(&more);
    }
    wire_do(&more, "{\"op\":\"status\"}", "OK");
    wire_close(&more);
    for (unsigned i = 0; i < MOST; i++)
        if (i != 3)
            wire_close(&c[i]);
    world_free(&w);
}
END_TEST

/* ---- Who does not read ----------------------------------------------------------------------- */

static json_int_t lost_of(const json_t *line)
{
    return json_integer_value(json_object_get(json_object_get(line, "lost"), "events"));
}

/* Events beyond what a client's queue and buffers hold are counted, in their place. */
START_TEST(a_slow_reader_loses_events_and_is_told_how_many)
{
    enum { EVENTS = 30000 };
    struct wire slow, other;
    uint64_t told = 0, lost = 0;
    world_listen(&w);
    wire_open(&slow, &w);
    wire_open(&other, &w);
    wire_protect(&slow, 0x5000, 16, NO_DMA);
    wire_do(&slow, "{\"op\":\"subscribe\"}", "OK");
    for (unsigned i = 0; i < EVENTS; i++)
        ck_assert(!dma_write(&w, 0x5000, 1));
    wire_do(&other, "{\"op\":\"status\"}", "OK"); /* the server has time for others */
    while (told + lost < EVENTS) {
        json_t *line = wire_next(&slow);
        json_t *event = json_object_get(line, "event");
        if (event) {
            told++;
            ck_assert_uint_eq(number_of(event, "sequence"), told + lost);
        } else {
            ck_assert_int_gt(lost_of(line), 0);
            lost += (uint64_t)lost_of(line);
        }
        json_decref(line);
    }
    ck_assert_uint_eq(told + lost, EVENTS);
    ck_assert_uint_gt(lost, 0);
    ck_assert_uint_ge(told, CONTROL_QUEUE);
    wire_close(&slow);
    wire_close(&other);
    world_free(&w);
}
END_TEST

/* A reader that takes a full buffer at once gets what had to wait behind it, too. */
static void *writes_events(void *opaque)
{
    for (unsigned i = 0; i < *(unsigned *)opaque; i++)
        dma_write(&w, 0x5000, 1);
    return NULL;
}

START_TEST(a_full_buffer_that_is_read_at_once_does_not_stop_the_rest)
{
    enum { ROUNDS = 20 };
    unsigned events = 5000;
    struct wire c;
    world_listen(&w);
    wire_open(&c, &w);
    wire_protect(&c, 0x5000, 16, NO_DMA);
    wire_do(&c, "{\"op\":\"subscribe\"}", "OK");
    for (unsigned round = 0; round < ROUNDS; round++) {
        pthread_t thread;
        uint64_t heard = 0;
        pthread_create(&thread, NULL, writes_events, &events);
        while (heard < events) {
            json_t *line = wire_next(&c);
            heard += json_object_get(line, "event") ? 1 : (uint64_t)lost_of(line);
            json_decref(line);
        }
        pthread_join(thread, NULL);
    }
    wire_close(&c);
    world_free(&w);
}
END_TEST

/* Requests without end from one who reads no reply: the server stops reading them. */
START_TEST(who_reads_no_replies_is_not_heard_any_more)
{
    static const char line[] = "{\"op\":\"read\",\"address\":{\"physical\":0},\"length\":65536}\n";
    struct wire deaf, other;
    size_t sent = 0;
    world_listen(&w);
    wire_open(&deaf, &w);
    wire_open(&other, &w);
    fcntl(deaf.fd, F_SETFL, O_NONBLOCK);
    for (;;) { /* until the socket takes nothing more, for good */
        struct pollfd poll_fd = {.fd = deaf.fd, .events = POLLOUT};
        ssize_t n = send(deaf.fd, line, sizeof(line) - 1, MSG_NOSIGNAL);
        if (n > 0)
            sent += (size_t)n;
        else if (poll(&poll_fd, 1, 300) == 0)
            break;
        ck_assert_uint_lt(sent, 64 << 20);
        wire_do(&other, "{\"op\":\"status\"}", "OK");
    }
    wire_do(&other, "{\"op\":\"status\"}", "OK");
    wire_close(&deaf);
    wire_close(&other);
    world_free(&w);
}
END_TEST

/* One who asks for more than the buffers hold, and reads it later, gets all of it. */
START_TEST(requests_that_had_to_wait_are_answered)
{
    enum { REQUESTS = 100 };
    struct wire c;
    world_listen(&w);
    wire_open(&c, &w);
    for (unsigned i = 0; i < REQUESTS; i++)
        wire_line(&c, "{\"op\":\"read\",\"address\":{\"physical\":0},\"length\":65536}");
    usleep(100000); /* so that most of them do have to wait */
    for (unsigned i = 0; i < REQUESTS; i++) {
        json_t *reply = wire_next(&c);
        ck_assert_uint_eq(strlen(text_of(reply, "data")), 2 * 65536);
        json_decref(reply);
    }
    wire_close(&c);
    world_free(&w);
}
END_TEST

START_TEST(the_end_of_the_machine_is_said)
{
    struct wire c;
    world_listen(&w);
    wire_open(&c, &w);
    world_free(&w);
    json_t *last = wire_next(&c);
    ck_assert_str_eq(text_of(json_object_get(last, "closed"), "status"), "OK");
    json_decref(last);
    ck_assert_ptr_null(wire_next(&c));
    wire_close(&c);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("socket");
    TCase *t = tcase_create("socket");
    tcase_set_timeout(t, 240);
    tcase_add_test(t, the_socket_is_its_owners);
    tcase_add_test(t, other_users_are_turned_away);
    tcase_add_test(t, an_old_socket_is_replaced);
    tcase_add_test(t, a_machine_that_listens_is_left_alone);
    tcase_add_test(t, the_end_removes_only_its_own_socket);
    tcase_add_test(t, paths_that_cannot_be_are_said);
    tcase_add_test(t, the_name_appears_when_somebody_listens);
    tcase_add_test(t, the_greeting_says_who_is_there);
    tcase_add_test(t, malformed_lines_are_answered_and_survived);
    tcase_add_test(t, deep_nests_are_refused);
    tcase_add_test(t, ids_come_back);
    tcase_add_test(t, a_line_may_have_a_mebibyte_and_no_more);
    tcase_add_test(t, lines_may_come_in_pieces_and_in_bunches);
    tcase_add_test(t, refusals_wait_for_their_turn);
    tcase_add_test(t, who_has_said_all_still_gets_the_replies);
    tcase_add_test(t, there_are_only_so_many_connections);
    tcase_add_test(t, a_slow_reader_loses_events_and_is_told_how_many);
    tcase_add_test(t, a_full_buffer_that_is_read_at_once_does_not_stop_the_rest);
    tcase_add_test(t, who_reads_no_replies_is_not_heard_any_more);
    tcase_add_test(t, requests_that_had_to_wait_are_answered);
    tcase_add_test(t, the_end_of_the_machine_is_said);
    suite_add_tcase(suite, t);
    return run_suite(suite);
}
