/*
 * connection.c - a connection to the control socket: lines out, lines in, replies told from
 * messages that the server pushes in between.
 */
#include "connection.h"
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* ---- Errors ---------------------------------------------------------------------------------- */

static void set_error(struct bctl_error *error, bool lost, const char *fmt, va_list ap)
{
    vsnprintf(error->text, sizeof(error->text), fmt, ap);
    error->lost = lost;
    for (char *c = error->text; *c; c++)
        if ((unsigned char)*c < ' ')
            *c = ' ';
}

bool ctl_fail(struct bctl_error *error, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    set_error(error, false, fmt, ap);
    va_end(ap);
    return false;
}

bool ctl_lose(struct bctl_error *error, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    set_error(error, true, fmt, ap);
    va_end(ap);
    return false;
}

/* ---- Lines in -------------------------------------------------------------------------------- */

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Waits for bytes; false: the time is up. */
static bool wait_readable(int fd, int64_t deadline)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    for (;;) {
        int64_t left = deadline < 0 ? -1 : deadline - now_ms();
        int n = poll(&poll_fd, 1, deadline < 0 ? -1 : left > 0 ? (int)left : 0);
        if (n > 0)
            return true;
        if (n == 0 || (errno != EINTR && errno != EAGAIN))
            return false;
    }
}

static bool make_room(struct bctl *ctl)
{
    if (ctl->in_len < ctl->in_size)
        return true;
    size_t size = ctl->in_size ? 2 * ctl->in_size : 16384;
    char *bigger = size <= 2 * WIRE_LINE_MAX ? realloc(ctl->in, size) : NULL;
    if (!bigger)
        return false;
    ctl->in = bigger;
    ctl->in_size = size;
    return true;
}

static enum ctl_receive parse_line(struct bctl *ctl, size_t len, json_t **json, char **line,
                                   struct bctl_error *error)
{
    json_error_t why;
    *json = json_loadb(ctl->in, len, 0, &why);
    if (line)
        *line = *json ? strndup(ctl->in, len) : NULL;
    memmove(ctl->in, ctl->in + len + 1, ctl->in_len - len - 1);
    ctl->in_len -= len + 1;
    if (json_is_object(*json) && (!line || *line))
        return CTL_LINE;
    json_decref(*json);
    if (line)
        free(*line);
    ctl_lose(error, "the server said something that is not JSON");
    return CTL_FAILED;
}

enum ctl_receive ctl_receive(struct bctl *ctl, int timeout_ms, json_t **json, char **line,
                             struct bctl_error *error)
{
    int64_t deadline = timeout_ms < 0 ? -1 : now_ms() + timeout_ms;
    size_t seen = 0;
    for (;;) {
        char *newline = ctl->in ? memchr(ctl->in + seen, '\n', ctl->in_len - seen) : NULL;
        if (newline)
            return parse_line(ctl, (size_t)(newline - ctl->in), json, line, error);
        seen = ctl->in_len;
        if (!wait_readable(ctl->fd, deadline))
            return CTL_TIMEOUT;
        if (!make_room(ctl)) {
            ctl_lose(error, "the server sent a line without end");
            return CTL_FAILED;
        }
        ssize_t n = recv(ctl->fd, ctl->in + ctl->in_len, ctl->in_size - ctl->in_len, 0);
        if (n > 0)
            ctl->in_len += (size_t)n;
        else if (n == 0)
            return CTL_CLOSED;
        else if (errno != EINTR && errno != EAGAIN) {
            ctl_lose(error, "the connection failed: %s", strerror(errno));
            return CTL_FAILED;
        }
    }
}

/* ---- Messages that are not replies ----------------------------------------------------------- */

/* Keeps a message for bctl_next(). Of too many, events go: questions have somebody waiting. */
static void keep_pushed(struct bctl *ctl, json_t *json, char *line)
{
    struct pushed *p = malloc(sizeof(*p));
    if (!p || (ctl->pushed_count >= CTL_PUSHED_MAX && !json_object_get(json, "ask") &&
               !json_object_get(json, "closed"))) {
        ctl->dropped++;
        json_decref(json);
        free(line);
        free(p);
        return;
    }
    *p = (struct pushed){.json = json, .line = line};
    *ctl->last = p;
    ctl->last = &p->next;
    ctl->pushed_count++;
}

bool ctl_goodbye(struct bctl *ctl, const json_t *json, struct bctl_error *error)
{
    const json_t *closed = json_object_get(json, "closed");
    const char *status = json_string_value(json_object_get(closed, "status"));
    const char *text = json_string_value(json_object_get(closed, "text"));
    if (!closed)
        return false;
    ctl->ended = status && strcmp(status, "OK") == 0;
    ctl_lose(error, "the server closed the connection: %s", text ? text : "");
    return true;
}

/* ---- Requests -------------------------------------------------------------------------------- */

static bool send_all(struct bctl *ctl, const char *bytes, size_t len, struct bctl_error *error)
{
    while (len) {
        ssize_t n = send(ctl->fd, bytes, len, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR)
            return ctl_lose(error, "the connection failed: %s", strerror(errno));
        if (n > 0) {
            bytes += n;
            len -= (size_t)n;
        }
    }
    return true;
}

static bool send_request(struct bctl *ctl, json_t *request, struct bctl_error *error)
{
    json_object_set_new(request, "id", json_integer(++ctl->last_id));
    char *text = json_dumps(request, JSON_COMPACT);
    size_t len = text ? strlen(text) : 0;
    json_decref(request);
    bool ok = text ? len < WIRE_LINE_MAX || ctl_fail(error, "the request is longer than a line may "
                                                            "be; send it in parts")
                   : ctl_fail(error, "no memory for the request");
    if (ok) {
        text[len] = '\n'; /* in the place of the 0 */
        ok = send_all(ctl, text, len + 1, error);
    }
    free(text);
    return ok;
}

/* Nothing can be sent any more: what the server has said before it went, its goodbye above all, is
 * kept for bctl_next(). */
static void keep_last_words(struct bctl *ctl, struct bctl_error *error)
{
    json_t *json;
    char *line;
    while (ctl_receive(ctl, 0, &json, &line, error) == CTL_LINE)
        keep_pushed(ctl, json, line);
}

json_t *bctl_request(struct bctl *ctl, json_t *request, struct bctl_error *error)
{
    if (!send_request(ctl, request, error)) {
        struct bctl_error later;
        if (error->lost)
            keep_last_words(ctl, &later);
        return NULL;
    }
    for (;;) {
        json_t *json;
        char *line;
        enum ctl_receive got = ctl_receive(ctl, -1, &json, &line, error);
        if (got == CTL_CLOSED)
            ctl_lose(error, "the server closed the connection");
        if (got != CTL_LINE)
            return NULL;
        if (ctl_goodbye(ctl, json, error)) {
            keep_pushed(ctl, json, line); /* bctl_next() is to say it, too */
            return NULL;
        }
        if (!json_object_get(json, "status")) {
            keep_pushed(ctl, json, line);
            continue;
        }
        free(line);
        if (json_integer_value(json_object_get(json, "id")) == ctl->last_id)
            return json;
        json_decref(json); /* of a request that nobody waits for any more */
    }
}

bool bctl_check(const json_t *reply, struct bctl_error *error)
{
    const char *status = json_string_value(json_object_get(reply, "status"));
    const char *text = json_string_value(json_object_get(reply, "text"));
    const json_t *element = json_object_get(reply, "element");
    if (status && strcmp(status, "OK") == 0)
        return true;
    if (json_integer_value(element) > 0)
        return ctl_fail(error, "%s: %s (element %lld)", status, text ? text : "",
                        (long long)json_integer_value(element));
    return ctl_fail(error, "%s: %s", status ? status : "?", text ? text : "");
}

/* ---- Coming and going ------------------------------------------------------------------------ */

static bool greet(struct bctl *ctl, const char *path, struct bctl_error *error)
{
    enum { PATIENCE_MS = 10000 };
    json_t *json = NULL;
    enum ctl_receive got = ctl_receive(ctl, PATIENCE_MS, &json, NULL, error);
    if (got == CTL_FAILED)
        return false;
    if (got != CTL_LINE)
        return ctl_lose(error, "'%s' does not answer like a Bailey machine", path);
    const json_t *bailey = json_object_get(json, "bailey");
    json_int_t protocol = json_integer_value(json_object_get(bailey, "protocol"));
    bool ok = !ctl_goodbye(ctl, json, error);
    if (ok && protocol != WIRE_PROTOCOL)
        ok = bailey ? ctl_lose(error, "'%s' speaks protocol %lld, this client %d", path,
                               (long long)protocol, WIRE_PROTOCOL)
                    : ctl_lose(error, "'%s' does not answer like a Bailey machine", path);
    json_decref(json);
    return ok;
}

static bool connect_to(struct bctl *ctl, const char *path, struct bctl_error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!*path || strlen(path) >= sizeof(address.sun_path))
        return ctl_lose(error, "a socket's path has 1 to %zu bytes: '%s'",
                        sizeof(address.sun_path) - 1, path);
    strcpy(address.sun_path, path);
    ctl->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (ctl->fd < 0 || connect(ctl->fd, (struct sockaddr *)&address, sizeof(address)) != 0)
        return ctl_lose(error, "could not connect to '%s': %s", path, strerror(errno));
    return greet(ctl, path, error);
}

struct bctl *bctl_open(const char *path, struct bctl_error *error)
{
    struct bctl *ctl = calloc(1, sizeof(*ctl));
    if (!ctl) {
        ctl_lose(error, "no memory");
        return NULL;
    }
    ctl->fd = -1;
    ctl->last = &ctl->first;
    if (connect_to(ctl, path, error))
        return ctl;
    bctl_close(ctl);
    return NULL;
}

void bctl_close(struct bctl *ctl)
{
    if (!ctl)
        return;
    while (ctl->first) {
        struct pushed *p = ctl->first;
        ctl->first = p->next;
        json_decref(p->json);
        free(p->line);
        free(p);
    }
    if (ctl->fd >= 0)
        close(ctl->fd);
    free(ctl->in);
    free(ctl->line);
    free(ctl);
}

int bctl_fd(const struct bctl *ctl)
{
    return ctl->fd;
}
