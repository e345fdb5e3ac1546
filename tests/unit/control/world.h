/*
 * world.h - a small machine for the control socket's tests: RAM, rules, a machine that only
 * remembers what it was told, and clients that speak in lines.
 */
#ifndef TESTS_CONTROL_WORLD_H
#define TESTS_CONTROL_WORLD_H

#include "internal/control.h"
#include "internal/error.h"
#include "internal/exclusive.h"
#include "internal/rules.h"
#include "internal/wire.h"
#include <check.h>
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MIB (1ull << 20)

static const struct access dma = {.initiator = INITIATOR_DMA, .device = 0x18};

struct world {
    pthread_mutex_t lock;
    struct phys_map *map;
    struct exclusive *exclusive;
    struct rules *rules;
    struct control *control;
    struct paging paging; /* of both vCPUs */
    _Atomic bool paused, stopped;
    _Atomic bool pause_waits;  /* a pause does not succeed at once */
    char dumped[64], keys[64]; /* what was asked for last */
    char changed[128];
    char folder[40], path[64];
};

static void ask_nobody(void *cpu)
{
    (void)cpu;
}
static void world_paging(void *opaque, unsigned vcpu, struct paging *paging)
{
    struct world *w = opaque;
    *paging = w->paging;
    paging->cr3 += vcpu ? 0x1000 : 0; /* each vCPU has an address space of its own */
}
static void world_pause(void *opaque)
{
    struct world *w = opaque;
    atomic_store(&w->paused, !w->pause_waits);
}
static void world_resume(void *opaque)
{
    struct world *w = opaque;
    atomic_store(&w->paused, false);
}
static void world_stop(void *opaque)
{
    struct world *w = opaque;
    atomic_store(&w->stopped, true);
}
static bool world_paused(void *opaque)
{
    struct world *w = opaque;
    return atomic_load(&w->paused);
}

static void world_counters(void *opaque, unsigned vcpu, control_counter *put, void *to)
{
    (void)opaque;
    put(to, "jit", "links", 10 + vcpu);
    put(to, "mmu", "fills", 1ull << 63);
    put(to, "mmu", "walks", 0);
}

static bool world_screendump(void *opaque, const char *path, struct error *err)
{
    struct world *w = opaque;
    snprintf(w->dumped, sizeof(w->dumped), "%s", path);
    return strcmp(path, "/full") != 0 || error_set(err, "%s: disk full", path);
}

static bool world_screen(void *opaque, FILE *out, struct error *err)
{
    (void)opaque, (void)err;
    fputs("one\n\n\u2554 two\n", out);
    return true;
}

static bool world_sendkey(void *opaque, const char *keys, unsigned hold_ms, struct error *err)
{
    struct world *w = opaque;
    (void)err;
    snprintf(w->keys, sizeof(w->keys), "%s %u", keys, hold_ms);
    return true;
}

static bool world_change(void *opaque, const char *drive, const char *file, const char *format,
                         bool force, struct error *err)
{
    struct world *w = opaque;
    snprintf(w->changed, sizeof(w->changed), "%s %s %s %d", drive, file ? file : "-",
             format ? format : "-", force);
    return strcmp(drive, "ide1-cd0") == 0 || error_set(err, "no such drive");
}

static void world_event(void *opaque, unsigned context, const struct protect_event *event,
                        uint32_t notify)
{
    struct world *w = opaque;
    control_event(w->control, context, event, notify);
}

/* 4 MiB of RAM at 0, two vCPUs that never run. */
static inline void world_init(struct world *w)
{
    struct error err;
    pthread_mutexattr_t attr;
    memset(w, 0, sizeof(*w));
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&w->lock, &attr);
    w->map = phys_new(&w->lock, NULL);
    struct ram_block *ram = phys_ram_new(w->map, 4 * MIB, &err);
    ck_assert_ptr_nonnull(ram);
    ck_assert(phys_add_ram(w->map, 0, 4 * MIB, ram, 0, "ram", &err));
    w->exclusive = exclusive_new(2, ask_nobody);
    w->rules = rules_new(w->map, w->exclusive, NULL, NULL, &err);
    ck_assert_ptr_nonnull(w->rules);
    w->paging = (struct paging){.cr0 = 0x11, .maxphyaddr = 40, .nx = true, .a20 = true};
    const struct control_machine machine = {.opaque = w,
                                            .vcpus = 2,
                                            .lock = &w->lock,
                                            .paging = world_paging,
                                            .pause = world_pause,
                                            .resume = world_resume,
                                            .stop = world_stop,
                                            .paused = world_paused,
                                            .counters = world_counters,
                                            .screendump = world_screendump,
                                            .screen = world_screen,
                                            .sendkey = world_sendkey,
                                            .change = world_change};
    w->control = control_new(w->rules, w->map, &machine, &err);
    ck_assert_ptr_nonnull(w->control);
    const struct rules_hooks hooks = {.opaque = w, .event = world_event};
    rules_set_hooks(w->rules, &hooks);
    strcpy(w->folder, "/tmp/bailey-control-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(w->folder));
    snprintf(w->path, sizeof(w->path), "%s/socket", w->folder);
}

static inline void world_listen(struct world *w)
{
    struct error err;
    world_init(w);
    ck_assert_msg(control_listen(w->control, w->path, &err), "%s", err.msg);
}

static inline void world_free(struct world *w)
{
    control_free(w->control);
    rules_free(w->rules);
    phys_free(w->map);
    exclusive_free(w->exclusive);
    pthread_mutex_destroy(&w->lock);
    rmdir(w->folder);
}

/* ---- Clients --------------------------------------------------------------------------------- */

struct wire {
    int fd;
    char *in;
    size_t len, size;
};

static inline void wire_connect(struct wire *c, const struct world *w)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", w->path);
    *c = (struct wire){.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    ck_assert_msg(connect(c->fd, (struct sockaddr *)&address, sizeof(address)) == 0, "%s",
                  strerror(errno));
}

static inline void wire_close(struct wire *c)
{
    close(c->fd);
    free(c->in);
    *c = (struct wire){.fd = -1};
}

static inline void wire_send(struct wire *c, const char *bytes, size_t len)
{
    while (len) {
        ssize_t n = send(c->fd, bytes, len, MSG_NOSIGNAL);
        ck_assert_msg(n > 0, "%s", strerror(errno));
        bytes += n;
        len -= (size_t)n;
    }
}

static inline void wire_line(struct wire *c, const char *line)
{
    wire_send(c, line, strlen(line));
    wire_send(c, "\n", 1);
}

/* The next line as JSON; NULL at the end. Patient: only a hang fails. */
static inline json_t *wire_next(struct wire *c)
{
    for (;;) {
        char *newline = c->len ? memchr(c->in, '\n', c->len) : NULL;
        if (newline) {
            json_error_t why;
            size_t len = (size_t)(newline - c->in);
            json_t *json = json_loadb(c->in, len, 0, &why);
            ck_assert_msg(json != NULL, "%s: %.*s", why.text, (int)len, c->in);
            memmove(c->in, newline + 1, c->len - len - 1);
            c->len -= len + 1;
            return json;
        }
        if (c->len == c->size) {
            c->size = c->size ? 2 * c->size : 4096;
            c->in = realloc(c->in, c->size);
        }
        struct pollfd poll_fd = {.fd = c->fd, .events = POLLIN};
        ck_assert_msg(poll(&poll_fd, 1, 60000) == 1, "nothing came within a minute");
        ssize_t n = recv(c->fd, c->in + c->len, c->size - c->len, 0);
        if (n <= 0)
            return NULL;
        c->len += (size_t)n;
    }
}

/* Whether a line comes within the time. */
static inline bool wire_quiet(struct wire *c, int ms)
{
    struct pollfd poll_fd = {.fd = c->fd, .events = POLLIN};
    return !(c->len && memchr(c->in, '\n', c->len)) && poll(&poll_fd, 1, ms) == 0;
}

/* Connects and reads the greeting. */
static inline void wire_open(struct wire *c, const struct world *w)
{
    wire_connect(c, w);
    json_t *greeting = wire_next(c);
    ck_assert_ptr_nonnull(json_object_get(greeting, "bailey"));
    json_decref(greeting);
}

/* Sends a line and returns the next line. */
static inline json_t *wire_ask(struct wire *c, const char *line)
{
    wire_line(c, line);
    json_t *reply = wire_next(c);
    ck_assert_msg(reply != NULL, "no reply to %s", line);
    return reply;
}

static inline const char *text_of(const json_t *json, const char *name)
{
    const char *text = json_string_value(json_object_get(json, name));
    return text ? text : "";
}

static inline uint64_t number_of(const json_t *json, const char *name)
{
    struct wire_error why;
    uint64_t value = 0;
    ck_assert_msg(wire_number(json_object_get(json, name), name, UINT64_MAX, &value, &why),
                  "%s in %s", why.text, json_dumps(json, 0));
    return value;
}

/* Sends a line whose reply must have this status. */
static inline json_t *wire_expect(struct wire *c, const char *line, const char *status)
{
    json_t *reply = wire_ask(c, line);
    ck_assert_msg(strcmp(text_of(reply, "status"), status) == 0, "%.200s: not %s but %s", line,
                  status, json_dumps(reply, 0));
    return reply;
}
static inline void wire_do(struct wire *c, const char *line, const char *status)
{
    json_decref(wire_expect(c, line, status));
}

/* Binds a context and protects [base, base + length) of physical memory against DMA writes. */
static inline unsigned wire_protect(struct wire *c, uint64_t base, uint64_t length,
                                    const char *rule_members)
{
    char line[512];
    json_t *reply = wire_expect(c, "{\"op\":\"bind\"}", "OK");
    unsigned context = (unsigned)number_of(reply, "context");
    json_decref(reply);
    snprintf(
        line, sizeof(line),
        "{\"op\":\"add-regions\",\"regions\":[{\"base\":{\"physical\":%llu},\"length\":%llu}]}",
        (unsigned long long)base, (unsigned long long)length);
    wire_do(c, line, "OK");
    snprintf(line, sizeof(line), "{\"op\":\"set-rules\",\"rules\":[{\"region\":0,%s}]}",
             rule_members);
    wire_do(c, line, "OK");
    return context;
}
#define NO_DMA "\"allow\":{\"device\":\"r\"}"

static inline bool dma_write(struct world *w, uint64_t gpa, uint8_t byte)
{
    return phys_write(w->map, &dma, gpa, &byte, 1) == PHYS_OK;
}

static inline double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static inline int run_suite(Suite *suite)
{
    SRunner *sr = srunner_create(suite);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
