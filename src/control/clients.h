/*
 * clients.h - what the files of src/control share: the clients, their messages, their contexts.
 */
#ifndef CONTROL_CLIENTS_H
#define CONTROL_CLIENTS_H

#include "internal/control.h"
#include <stdatomic.h>

struct server;

struct control_client {
    struct control *control;
    void (*wake)(void *opaque);
    void *opaque;
    enum control_watch watch;
    bool asleep;  /* was asked, let the time run out, and has not been heard of since */
    bool behind;  /* an ask's time ran out before it was taken, and nothing has been taken since */
    bool retired; /* will not be heard of any more */
    /* events that wait: a ring */
    struct {
        unsigned context;
        uint64_t lost_before; /* events that found the queue full since the one before */
        struct protect_event event;
    } queue[CONTROL_QUEUE];
    unsigned first, count;
    uint64_t lost; /* since the newest in the queue */
    /* the latest change of state that the client has not been told of */
    bool state_due;
    char state[16], report[256];
};

/* A guest thread that waits for an answer; lives on its stack. */
struct ask {
    struct ask *next;
    struct control_client *client; /* NULL: it has gone */
    uint64_t token;
    unsigned context, timeout_ms;
    const struct protect_event *event;
    bool taken, answered;
    enum protect_verdict verdict;
    uint64_t value;
};

struct control {
    struct rules *rules;
    struct phys_map *map;
    struct control_machine machine;
    struct server *server; /* server.c; NULL: no socket */

    pthread_mutex_t lock;   /* guards what follows; taken last, held briefly */
    pthread_cond_t changed; /* an ask has been answered, or will not be */
    struct control_client *client[CONTROL_CLIENTS];
    _Atomic unsigned watchers; /* clients that want events: 0: nothing to do for an event */
    struct ask *asks;          /* oldest first */
    uint64_t last_token;
    bool hushed;
    struct {
        struct control_client *client;
        uint64_t session; /* of a host context; 0: it was free when the client began to handle it */
        unsigned timeout_ms;
    } handler[RULES_CONTEXTS];
    struct {
        struct control_client *client;
        uint64_t session;
        bool keep;
    } owner[RULES_HOST_CONTEXTS]; /* of context PROTECT_DOORS + index */
};

static inline bool is_host_context(unsigned context)
{
    return context >= PROTECT_DOORS && context < RULES_CONTEXTS;
}

#endif
