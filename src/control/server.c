/*
 * server.c - the control socket: connections, lines in, lines out (docs/socket.md).
 *
 * The server has a thread of its own rather than a place in the machine's event loop: the loop's
 * callbacks hold the machine lock, which would make every device wait while a megabyte of JSON is
 * parsed, and the loop stands still while vCPUs are being paused, which may itself wait for a
 * client's answer. Answers to asks are therefore handled right here; everything else goes to the
 * worker.
 *
 * A reader that is too slow costs bounded memory: its events stay in its queue and are counted when
 * that is full, and its requests are not read while replies pile up.
 */
#include "server.h"
#include "clients.h"
#include "internal/error.h"
#include "internal/thread.h"
#include "ops.h"
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

struct connection {
    struct server *server;
    int fd; /* -1: gone; what is left waits for the worker */
    struct control_client *client;
    char *in;
    size_t in_len, in_size;
    char *out;
    size_t out_len, out_size;
    bool eof;     /* nothing more will come in */
    bool closing; /* closed as soon as all is written */
    bool retired; /* the client answers no more */
    bool leaving; /* the worker has been told to end the client */
    /* under the server's lock: */
    unsigned pending; /* requests with the worker */
    bool left;        /* the client has been ended */
    char *done;       /* replies of the worker */
    size_t done_len;
};

struct server {
    struct control *control;
    struct worker *worker;
    char *path;
    int listen_fd, wake_fd;
    bool full; /* this process has no descriptors left: accepting waits a moment */
    pthread_t thread;
    bool thread_started;
    _Atomic bool quit, woken;
    pthread_mutex_t lock;
    struct connection *connection[SERVER_CONNECTIONS];
};

/* Any thread, any lock held. */
static void wake(void *opaque)
{
    struct server *s = opaque;
    uint64_t one = 1;
    if (!atomic_exchange(&s->woken, true)) {
        ssize_t n = write(s->wake_fd, &one, sizeof(one));
        (void)n; /* the counter cannot be full */
    }
}

/* ---- Output ---------------------------------------------------------------------------------- */

/* Grows *buffer so that `more` bytes fit behind `len`. */
static bool make_room(char **buffer, size_t *size, size_t len, size_t more)
{
    size_t want = *size ? *size : 4096;
    while (want < len + more)
        want *= 2;
    if (want != *size) {
        char *bigger = realloc(*buffer, want);
        if (!bigger)
            return false;
        *buffer = bigger;
        *size = want;
    }
    return true;
}

static void put_bytes(struct connection *c, const char *bytes, size_t len)
{
    if (len == 0)
        return;
    if (!make_room(&c->out, &c->out_size, c->out_len, len)) {
        c->closing = true; /* no memory: better no line than half of one */
        return;
    }
    memcpy(c->out + c->out_len, bytes, len);
    c->out_len += len;
}

/* `line` is freed. */
static void put_line(struct connection *c, char *line)
{
    if (line)
        put_bytes(c, line, strlen(line));
    else
        c->closing = true;
    free(line);
}

static void flush(struct connection *c)
{
    size_t sent = 0;
    while (sent < c->out_len) {
        ssize_t n = send(c->fd, c->out + sent, c->out_len - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            break;
        if (n < 0) { /* nobody reads any more */
            c->eof = c->closing = true;
            sent = c->out_len;
            break;
        }
        sent += (size_t)n;
    }
    if (sent)
        memmove(c->out, c->out + sent, c->out_len - sent);
    c->out_len -= sent;
}

static void put_replies(struct connection *c)
{
    pthread_mutex_lock(&c->server->lock);
    char *done = c->done;
    size_t len = c->done_len;
    c->done = NULL;
    c->done_len = 0;
    pthread_mutex_unlock(&c->server->lock);
    put_bytes(c, done, len);
    free(done);
}

/* Asks, events and the like, as long as the reader keeps up. */
static void put_messages(struct connection *c)
{
    struct control_message message;
    while (!c->closing && c->out_len < SERVER_OUTPUT_SOFT && control_take(c->client, &message))
        put_line(c, line_message(&message));
}

/* ---- Requests -------------------------------------------------------------------------------- */

/* In the worker's thread. */
static void request_done(void *opaque, char *reply)
{
    struct connection *c = opaque;
    pthread_mutex_lock(&c->server->lock);
    size_t len = reply ? strlen(reply) : 0;
    char *bigger = len ? realloc(c->done, c->done_len + len) : NULL;
    if (bigger) {
        memcpy(bigger + c->done_len, reply, len);
        c->done = bigger;
        c->done_len += len;
    }
    c->pending--;
    pthread_mutex_unlock(&c->server->lock);
    free(reply);
    wake(c->server);
}

static void add_pending(struct connection *c, int n)
{
    pthread_mutex_lock(&c->server->lock);
    c->pending += (unsigned)n;
    pthread_mutex_unlock(&c->server->lock);
}

/* A refusal goes the same way, or it would overtake the replies to what came before it. */
static void queue_request(struct connection *c, struct request *request, char *refusal)
{
    add_pending(c, 1);
    if (worker_request(c->server->worker, c->client, request, refusal, request_done, c))
        return;
    add_pending(c, -1);
    c->closing = true;
    free(refusal);
}

static void handle_line(struct connection *c, const char *line, size_t len)
{
    struct request request;
    struct wire_error err;
    if (strspn(line, " \t\r") >= len)
        return;
    control_alive(c->client);
    enum request_problem problem = request_parse(line, len, &request, &err);
    bool fine = problem == REQUEST_FINE;
    char *refusal = fine ? NULL : op_refuse(&request, problem, &err);
    if (request.op == REQUEST_ANSWER)
        put_line(c, fine ? op_run(c->client, &request) : refusal);
    else if (fine || refusal)
        queue_request(c, &request, refusal);
    else
        c->closing = true;
    request_free(&request);
}

static unsigned pending(struct connection *c)
{
    pthread_mutex_lock(&c->server->lock);
    unsigned n = c->pending;
    pthread_mutex_unlock(&c->server->lock);
    return n;
}

/* No request of the connection's is with the worker, and no reply of it waits to be put out. */
static bool settled(struct connection *c)
{
    pthread_mutex_lock(&c->server->lock);
    bool is = c->pending == 0 && c->done_len == 0;
    pthread_mutex_unlock(&c->server->lock);
    return is;
}

static bool takes_requests(struct connection *c)
{
    return !c->closing && pending(c) < SERVER_PENDING && c->out_len < SERVER_OUTPUT_HARD;
}

/* The end of the line that begins at `at`, if it has come; nothing at all may have come yet. */
static char *end_of_line(const struct connection *c, size_t at)
{
    return at < c->in_len ? memchr(c->in + at, '\n', c->in_len - at) : NULL;
}

static void drop_input(struct connection *c, size_t len)
{
    if (len == 0)
        return;
    memmove(c->in, c->in + len, c->in_len - len);
    c->in_len -= len;
}

/* The lines that have come in whole. */
static void handle_lines(struct connection *c)
{
    size_t at = 0;
    while (takes_requests(c)) {
        char *newline = end_of_line(c, at);
        if (!newline)
            break;
        *newline = 0;
        handle_line(c, c->in + at, (size_t)(newline - (c->in + at)));
        at = (size_t)(newline + 1 - c->in);
    }
    drop_input(c, at);
    if (c->in_len == WIRE_LINE_MAX && !end_of_line(c, 0) && !c->closing) {
        put_line(c, line_closed("TOO_LONG", "a line has more than 1 MiB"));
        c->closing = true;
    }
}

static void read_some(struct connection *c)
{
    if (c->in_len == WIRE_LINE_MAX)
        return; /* whole lines that wait for the worker */
    if (!make_room(&c->in, &c->in_size, c->in_len, 1)) {
        c->closing = true;
        return;
    }
    size_t room = c->in_size - c->in_len, most = WIRE_LINE_MAX - c->in_len;
    ssize_t n = recv(c->fd, c->in + c->in_len, room < most ? room : most, MSG_DONTWAIT);
    if (n > 0)
        c->in_len += (size_t)n;
    else if (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR))
        c->eof = true;
}

/* ---- Connections ----------------------------------------------------------------------------- */

static void refuse_connection(int fd, const char *status, const char *text)
{
    char *line = line_closed(status, text);
    if (line) {
        ssize_t n = send(fd, line, strlen(line), MSG_NOSIGNAL | MSG_DONTWAIT);
        (void)n; /* a courtesy */
    }
    free(line);
    close(fd);
}

static void accept_one(struct server *s)
{
    unsigned i = 0;
    int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    s->full = fd < 0 && errno != EAGAIN && errno != EINTR && errno != ECONNABORTED;
    if (fd < 0)
        return;
    if (!socket_peer_allowed(fd)) {
        refuse_connection(fd, "WRONG_CALLER", "the socket belongs to another user");
        return;
    }
    while (i < SERVER_CONNECTIONS && s->connection[i])
        i++;
    struct connection *c = i < SERVER_CONNECTIONS ? calloc(1, sizeof(*c)) : NULL;
    if (c)
        c->client = control_join(s->control, wake, s);
    if (!c || !c->client) {
        free(c);
        refuse_connection(fd, "TOO_MANY", "there are too many clients already");
        return;
    }
    c->server = s;
    c->fd = fd;
    s->connection[i] = c;
    put_line(c, line_greeting());
}

static void free_connection(struct connection *c)
{
    if (c->fd >= 0)
        close(c->fd);
    free(c->in);
    free(c->out);
    free(c->done);
    free(c);
}

/* In the worker's thread. */
static void client_left(void *opaque, char *reply)
{
    struct connection *c = opaque;
    struct server *s = c->server;
    (void)reply;
    pthread_mutex_lock(&s->lock);
    c->left = true; /* the server may free it as soon as the lock is let go */
    pthread_mutex_unlock(&s->lock);
    wake(s);
}

/* One that has nothing more to say is closed; its client is ended by the worker, after what it
 * still has to do for it; then the connection is freed. True: it is gone. */
static bool wind_up(struct connection *c)
{
    if ((c->eof || c->closing) && !c->retired) {
        control_retire(c->client); /* so that another may handle what it did, at once */
        c->retired = true;
    }
    bool over = c->closing || (c->eof && settled(c) && !end_of_line(c, 0));
    if (c->fd >= 0 && over && c->out_len == 0) {
        close(c->fd);
        c->fd = -1;
    }
    if (c->fd >= 0)
        return false;
    if (!c->leaving)
        c->leaving = worker_farewell(c->server->worker, c->client, client_left, c);
    pthread_mutex_lock(&c->server->lock);
    bool left = c->left;
    pthread_mutex_unlock(&c->server->lock);
    if (left)
        free_connection(c);
    return left;
}

static void serve(struct server *s, struct connection *c, unsigned events)
{
    if (events & (POLLIN | POLLHUP | POLLERR))
        read_some(c);
    put_replies(c);
    handle_lines(c);
    put_messages(c);
    bool any = c->out_len != 0;
    if (c->fd >= 0)
        flush(c);
    if (any && c->out_len == 0)
        wake(s); /* what the full buffer held back has another turn: nothing else would tell */
}

/* ---- The thread ------------------------------------------------------------------------------ */

static short wanted_events(struct connection *c)
{
    short events = 0;
    if (!c->eof && takes_requests(c) && c->in_len < WIRE_LINE_MAX)
        events |= POLLIN;
    if (c->out_len)
        events |= POLLOUT;
    return events;
}

/* One turn: polls[0] is the wake descriptor, polls[1] the listening one, then the connections. */
static void turn(struct server *s)
{
    struct pollfd polls[2 + SERVER_CONNECTIONS] = {
        {.fd = s->wake_fd, .events = POLLIN},
        {.fd = s->full ? -1 : s->listen_fd, .events = POLLIN}};
    for (unsigned i = 0; i < SERVER_CONNECTIONS; i++) {
        struct connection *c = s->connection[i];
        short events = c && c->fd >= 0 ? wanted_events(c) : 0;
        /* poll() reports hang-ups even of those that wait for the worker: not now */
        polls[2 + i].fd = events ? c->fd : -1;
        polls[2 + i].events = events;
    }
    int ready = poll(polls, 2 + SERVER_CONNECTIONS, s->full ? 1000 : -1);
    s->full = false;
    if (ready < 0)
        return;
    if (polls[0].revents) {
        uint64_t count;
        ssize_t n = read(s->wake_fd, &count, sizeof(count));
        (void)n;
        atomic_store(&s->woken, false); /* what comes from now on wakes again */
    }
    for (unsigned i = 0; i < SERVER_CONNECTIONS; i++) {
        struct connection *c = s->connection[i];
        if (!c)
            continue;
        if (c->fd >= 0)
            serve(s, c, (unsigned)polls[2 + i].revents);
        if (wind_up(c))
            s->connection[i] = NULL;
    }
    if (polls[1].revents)
        accept_one(s);
}

static void *server_main(void *opaque)
{
    struct server *s = opaque;
    while (!atomic_load(&s->quit))
        turn(s);
    return NULL;
}

/* So that the last line is whole for a reader who is only a little behind. */
static void flush_last(struct connection *c)
{
    enum { PATIENCE_MS = 100 };
    struct pollfd poll_fd = {.fd = c->fd, .events = POLLOUT};
    flush(c);
    while (c->out_len && poll(&poll_fd, 1, PATIENCE_MS) > 0)
        flush(c);
}

/* The machine is gone; whoever listens learns it. */
static void say_goodbye(struct server *s)
{
    for (unsigned i = 0; i < SERVER_CONNECTIONS; i++) {
        struct connection *c = s->connection[i];
        if (!c)
            continue;
        if (c->fd >= 0) {
            put_replies(c);
            put_messages(c);
            put_line(c, line_closed("OK", "the machine has ended"));
            flush_last(c);
        }
        if (!c->left)
            control_leave(c->client);
        free_connection(c);
    }
}

void server_free(struct server *s)
{
    if (!s)
        return;
    atomic_store(&s->quit, true);
    wake(s);
    if (s->thread_started)
        pthread_join(s->thread, NULL);
    if (s->worker)
        worker_free(s->worker);
    say_goodbye(s);
    if (s->listen_fd >= 0)
        socket_remove(s->listen_fd, s->path);
    if (s->wake_fd >= 0)
        close(s->wake_fd);
    pthread_mutex_destroy(&s->lock);
    free(s->path);
    free(s);
}

static bool start(struct server *s, struct error *err)
{
    s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!s->path || s->wake_fd < 0)
        return error_set(err, "no host memory or descriptors for the control socket");
    s->listen_fd = socket_listen(s->path, err);
    s->worker = s->listen_fd >= 0 ? worker_new(err) : NULL;
    if (!s->worker)
        return false;
    s->thread_started = thread_start(&s->thread, server_main, s) == 0;
    return s->thread_started || error_set(err, "could not start a thread for the control socket");
}

struct server *server_new(struct control *control, const char *path, struct error *err)
{
    struct server *s = calloc(1, sizeof(*s));
    if (!s) {
        error_set(err, "no host memory for the control socket");
        return NULL;
    }
    s->control = control;
    s->path = strdup(path);
    s->listen_fd = s->wake_fd = -1;
    pthread_mutex_init(&s->lock, NULL);
    if (start(s, err))
        return s;
    server_free(s);
    return NULL;
}

bool control_listen(struct control *c, const char *path, struct error *err)
{
    c->server = server_new(c, path, err);
    return c->server != NULL;
}

void control_free(struct control *c)
{
    if (!c)
        return;
    control_hush(c, true);
    server_free(c->server);
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->lock);
    free(c);
}
