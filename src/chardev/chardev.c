/*
 * chardev.c - byte streams: a terminal or pipe on stdin and stdout, a file, nothing. See
 * internal/chardev.h for the contract; all of it runs with the machine lock held.
 *
 * Input: bytes are read as soon as there is room in `input`, so that Ctrl-A x works although the
 * guest does not listen; they wait there until the front end takes them. When it is full the
 * descriptor is left alone (a pipe's writer then waits), and at its end it is forgotten.
 *
 * Output: written at once; what the other side does not take waits in `output` and goes out when
 * poll(2) says so. When that is full, chardev_write() takes fewer bytes than it was given.
 */
#include "internal/chardev.h"
#include "escape.h"
#include "internal/error.h"
#include "internal/event.h"
#include "terminal.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BUFFER_SIZE    8192 /* power of two */
#define DRAIN_LIMIT_MS 2000 /* for the other side to take what is left at close */

/* Bytes in the order they came; positions count up for ever. */
struct fifo {
    uint8_t bytes[BUFFER_SIZE];
    uint32_t in, out;
};

enum kind { KIND_NULL, KIND_FILE, KIND_STDIO };

struct chardev {
    enum kind kind;
    bool escapes;        /* mon:stdio */
    bool escape_pending; /* Ctrl-A came */
    bool input_open;     /* in_fd has not come to its end */
    bool input_paused;   /* not watched: no room */
    bool output_watched; /* waiting for POLLOUT */
    bool output_dead;    /* the other side is gone; output is dropped */
    bool output_short;   /* the front end is owed a writable() */
    int in_fd, out_fd;   /* -1: none */
    struct event_queue *queue;
    struct chardev_hooks hooks;
    struct chardev_front front;
    struct timer kick; /* deliver input from the I/O thread */
    struct fifo input, output;
};

/* ---- FIFO -------------------------------------------------------------------------------------
 */

static size_t fifo_used(const struct fifo *f)
{
    return f->in - f->out;
}

static size_t fifo_room(const struct fifo *f)
{
    return BUFFER_SIZE - fifo_used(f);
}

static size_t fifo_put(struct fifo *f, const uint8_t *bytes, size_t len)
{
    size_t n = len < fifo_room(f) ? len : fifo_room(f);
    for (size_t i = 0; i < n; i++)
        f->bytes[f->in++ % BUFFER_SIZE] = bytes[i];
    return n;
}

/* The oldest bytes that lie in one piece; returns how many. */
static size_t fifo_peek(const struct fifo *f, const uint8_t **bytes)
{
    size_t start = f->out % BUFFER_SIZE;
    size_t n = fifo_used(f);
    *bytes = &f->bytes[start];
    return n < BUFFER_SIZE - start ? n : BUFFER_SIZE - start;
}

/* ---- Output -----------------------------------------------------------------------------------
 */

static void output_ready(void *opaque, int fd, unsigned events);

static void watch_output(struct chardev *chr, bool on)
{
    if (chr->output_watched == on)
        return;
    chr->output_watched = on;
    event_watch(chr->queue, chr->out_fd, on ? POLLOUT : 0, on ? output_ready : NULL, chr);
}

/* As many bytes as the other side takes now. When it is gone: all, into nothing. */
static size_t write_some(struct chardev *chr, const uint8_t *bytes, size_t len)
{
    size_t done = 0;
    while (done < len && !chr->output_dead) {
        ssize_t n = write(chr->out_fd, bytes + done, len - done);
        if (n >= 0) {
            done += (size_t)n;
        } else if (errno == EAGAIN) {
            return done;
        } else if (errno != EINTR) {
            chr->output_dead = true;
            if (errno != EPIPE) /* a closed pipe is how `| head` ends */
                fprintf(stderr, "bailey: %s: output is lost from here on: %s\n",
                        chr->kind == KIND_FILE ? "file back end" : "stdio", strerror(errno));
        }
    }
    return len;
}

/* Sends what waits; true when nothing does any more. */
static bool flush_output(struct chardev *chr)
{
    const uint8_t *bytes;
    size_t len;
    while ((len = fifo_peek(&chr->output, &bytes)) != 0) {
        size_t n = write_some(chr, bytes, len);
        chr->output.out += (uint32_t)n;
        if (n < len)
            return false;
    }
    return true;
}

static void output_ready(void *opaque, int fd, unsigned events)
{
    struct chardev *chr = opaque;
    (void)fd;
    (void)events;
    if (flush_output(chr))
        watch_output(chr, false);
    if (chr->output_short && fifo_room(&chr->output) >= BUFFER_SIZE / 2) {
        chr->output_short = false;
        if (chr->front.writable)
            chr->front.writable(chr->front.opaque);
    }
}

size_t chardev_write(struct chardev *chr, const uint8_t *bytes, size_t len)
{
    size_t done = 0;
    if (chr->out_fd < 0)
        return len;
    if (!fifo_used(&chr->output))
        done = write_some(chr, bytes, len);
    done += fifo_put(&chr->output, bytes + done, len - done);
    if (fifo_used(&chr->output))
        watch_output(chr, true);
    if (done < len)
        chr->output_short = true;
    return done;
}

/* Text of our own between the guest's output. */
static void say(struct chardev *chr, const char *text)
{
    chardev_write(chr, (const uint8_t *)text, strlen(text));
}

/* ---- Input ------------------------------------------------------------------------------------
 */

static void input_ready(void *opaque, int fd, unsigned events);

/* Watches stdin while there is room, and only then. */
static void watch_input(struct chardev *chr)
{
    bool pause = fifo_room(&chr->input) == 0;
    if (!chr->input_open || pause == chr->input_paused)
        return;
    chr->input_paused = pause;
    event_watch(chr->queue, chr->in_fd, pause ? 0 : POLLIN, input_ready, chr);
}

static void deliver_input(void *opaque)
{
    struct chardev *chr = opaque;
    const struct chardev_front *front = &chr->front;
    const uint8_t *bytes;
    size_t len;
    while (front->receive && (len = fifo_peek(&chr->input, &bytes)) != 0) {
        size_t room = front->can_receive ? front->can_receive(front->opaque) : len;
        if (!room)
            break;
        if (len > room)
            len = room;
        front->receive(front->opaque, bytes, len);
        chr->input.out += (uint32_t)len;
    }
    watch_input(chr);
}

static void quit(struct chardev *chr)
{
    say(chr, "\r\nbailey: terminated\r\n");
    if (chr->hooks.quit)
        chr->hooks.quit(chr->hooks.opaque);
}

static void typed(struct chardev *chr, uint8_t byte)
{
    enum escape_action action =
        chr->escapes ? escape_feed(&chr->escape_pending, byte) : ESCAPE_BYTE;
    switch (action) {
    case ESCAPE_BYTE:
        fifo_put(&chr->input, &byte, 1);
        break;
    case ESCAPE_NOTHING:
        break;
    case ESCAPE_HELP:
        say(chr, escape_help);
        break;
    case ESCAPE_QUIT:
        quit(chr);
        break;
    case ESCAPE_MONITOR:
        say(chr,
            "\r\nbailey: there is no monitor; with -protect socket=PATH there is baileyctl\r\n");
        break;
    case ESCAPE_BREAK:
        if (chr->front.line_break)
            chr->front.line_break(chr->front.opaque);
        else
            say(chr, "\r\nbailey: the guest's console knows no break\r\n");
        break;
    }
}

static void input_ready(void *opaque, int fd, unsigned events)
{
    struct chardev *chr = opaque;
    uint8_t bytes[1024];
    size_t room = fifo_room(&chr->input);
    (void)events;
    if (!room) {
        watch_input(chr);
        return;
    }
    ssize_t n = read(fd, bytes, room < sizeof(bytes) ? room : sizeof(bytes));
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n <= 0) { /* end of file; or EIO, a terminal that was hung up */
        chr->input_open = false;
        event_watch(chr->queue, fd, 0, NULL, NULL);
    }
    for (ssize_t i = 0; i < n; i++)
        typed(chr, bytes[i]);
    deliver_input(chr);
}

void chardev_accept_input(struct chardev *chr)
{
    if (fifo_used(&chr->input) && !timer_armed(&chr->kick))
        timer_arm(&chr->kick, 0);
}

void chardev_connect(struct chardev *chr, const struct chardev_front *front)
{
    chr->front = front ? *front : (struct chardev_front){0};
    chardev_accept_input(chr);
}

/* ---- Open and close ---------------------------------------------------------------------------
 */

static bool open_stdio(struct chardev *chr, enum terminal_keys keys, struct error *err)
{
    if (!terminal_claim(keys, &chr->out_fd, err))
        return false;
    chr->kind = KIND_STDIO;
    if (fcntl(STDIN_FILENO, F_GETFD) < 0)
        return true; /* started without a stdin */
    chr->in_fd = STDIN_FILENO;
    chr->input_open = true;
    event_watch(chr->queue, chr->in_fd, POLLIN, input_ready, chr);
    return true;
}

static bool open_file(struct chardev *chr, const char *path, struct error *err)
{
    if (!*path)
        return error_set(err, "file: needs a path, as in file:serial.log");
    chr->kind = KIND_FILE;
    chr->out_fd =
        open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0666);
    return chr->out_fd >= 0 || error_set(err, "%s: %s", path, strerror(errno));
}

static bool open_spec(struct chardev *chr, const char *spec, struct error *err)
{
    static const char file[] = "file:";
    if (!strcmp(spec, "null"))
        return true;
    if (!strncmp(spec, file, sizeof(file) - 1))
        return open_file(chr, spec + sizeof(file) - 1, err);
    if (!strcmp(spec, "stdio") || !strcmp(spec, "stdio,signal=on"))
        return open_stdio(chr, TERMINAL_SIGNALS, err);
    if (!strcmp(spec, "stdio,signal=off"))
        return open_stdio(chr, TERMINAL_BYTES, err);
    if (!strcmp(spec, "mon:stdio")) {
        chr->escapes = true;
        return open_stdio(chr, TERMINAL_BYTES, err);
    }
    return error_set(err,
                     "'%s' is not a character back end; there are stdio, mon:stdio, file:PATH "
                     "and null",
                     spec);
}

/* Writing to a pipe whose reader is gone must be an error, not the end of the machine. The signal
 * is the whole program's, so it is left as it was found when the last output has been closed. */
static struct {
    pthread_mutex_t lock;
    unsigned outputs;
    bool ignored; /* by us */
} broken_pipes = {.lock = PTHREAD_MUTEX_INITIALIZER};

static bool change_sigpipe(void (*from)(int), void (*to)(int))
{
    struct sigaction action;
    if (sigaction(SIGPIPE, NULL, &action) != 0 || action.sa_handler != from)
        return false;
    action.sa_handler = to;
    return sigaction(SIGPIPE, &action, NULL) == 0;
}

static void ignore_broken_pipes(void)
{
    pthread_mutex_lock(&broken_pipes.lock);
    if (broken_pipes.outputs++ == 0)
        broken_pipes.ignored = change_sigpipe(SIG_DFL, SIG_IGN);
    pthread_mutex_unlock(&broken_pipes.lock);
}

static void heed_broken_pipes(void)
{
    pthread_mutex_lock(&broken_pipes.lock);
    if (--broken_pipes.outputs == 0 && broken_pipes.ignored)
        change_sigpipe(SIG_IGN, SIG_DFL);
    pthread_mutex_unlock(&broken_pipes.lock);
}

struct chardev *chardev_open(const char *spec, struct event_queue *queue,
                             const struct chardev_hooks *hooks, struct error *err)
{
    struct chardev *chr = calloc(1, sizeof(*chr));
    if (!chr) {
        error_set(err, "%s: out of memory", spec);
        return NULL;
    }
    chr->kind = KIND_NULL;
    chr->in_fd = chr->out_fd = -1;
    chr->queue = queue;
    if (hooks)
        chr->hooks = *hooks;
    timer_init(&chr->kick, queue, deliver_input, chr);
    if (!open_spec(chr, spec, err)) {
        free(chr);
        return NULL;
    }
    if (chr->out_fd >= 0)
        ignore_broken_pipes();
    return chr;
}

static long milliseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (long)(now.tv_sec * 1000 + now.tv_nsec / 1000000);
}

/* The host's clock, not the guest's: how long a user waits for the program to end. */
static void drain(struct chardev *chr)
{
    long end = milliseconds() + DRAIN_LIMIT_MS;
    while (!flush_output(chr)) {
        struct pollfd p = {.fd = chr->out_fd, .events = POLLOUT};
        long left = end - milliseconds();
        if (left <= 0)
            return;
        poll(&p, 1, (int)left);
    }
}

void chardev_close(struct chardev *chr)
{
    if (!chr)
        return;
    timer_cancel(&chr->kick);
    if (chr->input_open)
        event_watch(chr->queue, chr->in_fd, 0, NULL, NULL);
    if (chr->out_fd >= 0) {
        watch_output(chr, false);
        drain(chr);
        heed_broken_pipes();
    }
    if (chr->kind == KIND_STDIO)
        terminal_release();
    else if (chr->out_fd >= 0)
        close(chr->out_fd);
    free(chr);
}
