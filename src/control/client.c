/*
 * client.c - clients and what they are told and asked: bounded queues on one side, guest threads
 * that must not be held up on the other.
 *
 * The control's lock is taken last, after whatever a guest thread holds, and nothing is done under
 * it that could wait. An ask is a small structure on the waiting thread's stack, in a list; the
 * waiter alone takes it out again, so an answer that comes too late finds nothing.
 *
 * The time of an ask is the host's, not the guest's (clock.h), whose clock may stand still: what is
 * bounded is how long somebody outside may take.
 */
#include "clients.h"
#include "internal/error.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static bool make_locks(struct control *c)
{
    pthread_condattr_t attr;
    if (pthread_condattr_init(&attr) != 0)
        return false;
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    bool ok = pthread_mutex_init(&c->lock, NULL) == 0 && pthread_cond_init(&c->changed, &attr) == 0;
    pthread_condattr_destroy(&attr);
    return ok;
}

struct control *control_new(struct rules *rules, struct phys_map *map,
                            const struct control_machine *machine, struct error *err)
{
    struct control *c = calloc(1, sizeof(*c));
    if (!c || !make_locks(c)) {
        free(c);
        error_set(err, "no host memory for the control socket");
        return NULL;
    }
    c->rules = rules;
    c->map = map;
    c->machine = *machine;
    return c;
}

/* ---- Clients come and go --------------------------------------------------------------------- */

struct control_client *control_join(struct control *c, void (*wake)(void *opaque), void *opaque)
{
    struct control_client *client = calloc(1, sizeof(*client));
    unsigned i = 0;
    if (!client)
        return NULL;
    *client = (struct control_client){.control = c, .wake = wake, .opaque = opaque};
    pthread_mutex_lock(&c->lock);
    while (i < CONTROL_CLIENTS && c->client[i])
        i++;
    if (i < CONTROL_CLIENTS)
        c->client[i] = client;
    pthread_mutex_unlock(&c->lock);
    if (i < CONTROL_CLIENTS)
        return client;
    free(client);
    return NULL;
}

static void set_watch_locked(struct control_client *client, enum control_watch watch)
{
    if (!client->watch != !watch)
        atomic_fetch_add(&client->control->watchers, watch ? 1u : -1u);
    client->watch = watch;
}

/* Nobody asks the client any more, and nobody waits for it. */
static void stop_asking_locked(struct control *c, struct control_client *client)
{
    for (unsigned i = 0; i < RULES_CONTEXTS; i++)
        if (c->handler[i].client == client)
            c->handler[i].client = NULL;
    for (struct ask *ask = c->asks; ask; ask = ask->next)
        if (ask->client == client)
            ask->client = NULL;
    pthread_cond_broadcast(&c->changed);
}

/* Nobody hears of the client any more, either. */
static void forget_client_locked(struct control *c, struct control_client *client)
{
    set_watch_locked(client, CONTROL_NONE);
    for (unsigned i = 0; i < CONTROL_CLIENTS; i++)
        if (c->client[i] == client)
            c->client[i] = NULL;
    stop_asking_locked(c, client);
}

void control_retire(struct control_client *client)
{
    struct control *c = client->control;
    pthread_mutex_lock(&c->lock);
    client->retired = true;
    stop_asking_locked(c, client);
    pthread_mutex_unlock(&c->lock);
}

/* Ends a context, unless it is no longer the one that the client bound, or is sealed. */
static void end_context(struct control *c, unsigned context, uint64_t session)
{
    struct rules_context_info info;
    rules_context_info(c->rules, context, &info);
    if (info.kind == RULES_HOST && info.session == session)
        rules_destroy(c->rules, context); /* SEALED: it stays */
}

void control_leave(struct control_client *client)
{
    struct control *c = client->control;
    uint64_t session[RULES_HOST_CONTEXTS] = {0};
    bool any = false;
    pthread_mutex_lock(&c->lock);
    forget_client_locked(c, client);
    for (unsigned i = 0; i < RULES_HOST_CONTEXTS; i++) {
        if (c->owner[i].client != client)
            continue;
        c->owner[i].client = NULL;
        if (!c->owner[i].keep)
            session[i] = c->owner[i].session;
        any |= session[i] != 0;
    }
    pthread_mutex_unlock(&c->lock);
    if (any) {
        rules_change_begin(c->rules, -1);
        for (unsigned i = 0; i < RULES_HOST_CONTEXTS; i++)
            if (session[i])
                end_context(c, PROTECT_DOORS + i, session[i]);
        rules_change_end(c->rules, -1);
    }
    free(client);
}

/* ---- Messages -------------------------------------------------------------------------------- */

/* Whether the client, once it watches, takes the context's events off its ring as they come. */
static bool drains_locked(const struct control *c, const struct control_client *client,
                          unsigned context)
{
    const struct control_client *owner = c->owner[context - PROTECT_DOORS].client;
    return owner == client || (!owner && client->watch == CONTROL_ALL);
}

/* What lies in the rings has been there to be read; from now on the client is told. */
static void drain_rings(struct control *c, const bool *drain)
{
    struct rules_context_info info;
    pthread_mutex_lock(c->machine.lock);
    for (unsigned i = 0; i < RULES_HOST_CONTEXTS; i++) {
        if (!drain[i])
            continue;
        rules_context_info(c->rules, PROTECT_DOORS + i, &info);
        rules_set_event_tail(c->rules, PROTECT_DOORS + i, info.event_head);
    }
    pthread_mutex_unlock(c->machine.lock);
}

void control_subscribe(struct control_client *client, enum control_watch watch)
{
    struct control *c = client->control;
    bool drain[RULES_HOST_CONTEXTS];
    pthread_mutex_lock(&c->lock);
    set_watch_locked(client, watch);
    for (unsigned i = 0; i < RULES_HOST_CONTEXTS; i++)
        drain[i] = watch && drains_locked(c, client, PROTECT_DOORS + i);
    pthread_mutex_unlock(&c->lock);
    drain_rings(c, drain);
}

static void queue_event_locked(struct control_client *client, unsigned context,
                               const struct protect_event *event)
{
    if (client->count == CONTROL_QUEUE) {
        client->lost++;
    } else {
        unsigned at = (client->first + client->count++) % CONTROL_QUEUE;
        client->queue[at].context = context;
        client->queue[at].lost_before = client->lost;
        client->lost = 0;
        client->queue[at].event = *event;
    }
    client->wake(client->opaque);
}

static bool wants_locked(const struct control *c, const struct control_client *client,
                         unsigned context, uint32_t notify)
{
    if (!is_host_context(context))
        return client->watch == CONTROL_ALL && (notify & PROTECT_NOTIFY_HOST);
    return client->watch == CONTROL_ALL ||
           (client->watch == CONTROL_OWN && c->owner[context - PROTECT_DOORS].client == client);
}

void control_event(void *control, unsigned context, const struct protect_event *event,
                   uint32_t notify)
{
    struct control *c = control;
    bool drained = false;
    if (!atomic_load(&c->watchers) ||
        ((notify & PROTECT_NOTIFY_QUIET) && !(notify & PROTECT_NOTIFY_HOST)))
        return;
    pthread_mutex_lock(&c->lock);

    for (unsigned i = 0; i < CONTROL_CLIENTS; i++) {
        struct control_client *client = c->client[i];
        if (!client || !wants_locked(c, client, context, notify))
            continue;
        queue_event_locked(client, context, event);
        drained |= is_host_context(context) && drains_locked(c, client, context);
    }
    pthread_mutex_unlock(&c->lock);
    /* Who is told of events does not read the ring, too. */
    if (drained)
        rules_set_event_tail(c->rules, context, event->sequence);
}

void control_tell(struct control *c, const char *state, const char *report)
{
    if (!c)
        return;
    pthread_mutex_lock(&c->lock);
    for (unsigned i = 0; i < CONTROL_CLIENTS; i++) {
        struct control_client *client = c->client[i];
        if (!client || client->watch == CONTROL_NONE)
            continue;
        snprintf(client->state, sizeof(client->state), "%s", state);
        snprintf(client->report, sizeof(client->report), "%s", report ? report : "");
        client->state_due = true;
        client->wake(client->opaque);
    }
    pthread_mutex_unlock(&c->lock);
}

static bool take_ask_locked(struct control_client *client, struct control_message *message)
{
    for (struct ask *ask = client->control->asks; ask; ask = ask->next) {
        if (ask->client != client || ask->taken)
            continue;
        ask->taken = true;
        message->type = CONTROL_ASK;
        message->context = ask->context;
        message->event = *ask->event;
        message->token = ask->token;
        message->timeout_ms = ask->timeout_ms;
        return true;
    }
    return false;
}

static bool take_locked(struct control_client *client, struct control_message *message)
{
    if (take_ask_locked(client, message))
        return true;
    uint64_t *lost = client->count ? &client->queue[client->first].lost_before : &client->lost;
    if (*lost) {
        message->type = CONTROL_LOST;
        message->lost = *lost;
        *lost = 0;
    } else if (client->count) {
        message->type = CONTROL_EVENT;
        message->context = client->queue[client->first].context;
        message->event = client->queue[client->first].event;
        client->first = (client->first + 1) % CONTROL_QUEUE;
        client->count--;
    } else if (client->state_due) {
        message->type = CONTROL_STATE;
        memcpy(message->state, client->state, sizeof(message->state));
        memcpy(message->text, client->report, sizeof(message->text));
        client->state_due = false;
    } else {
        return false;
    }
    return true;
}

bool control_take(struct control_client *client, struct control_message *message)
{
    pthread_mutex_lock(&client->control->lock);
    client->behind = false;
    bool any = take_locked(client, message);
    pthread_mutex_unlock(&client->control->lock);
    return any;
}

/* ---- Asking ---------------------------------------------------------------------------------- */

/* 0: it is free, or a guest's, whose handler outlives it. */
static uint64_t host_session(struct control *c, unsigned context)
{
    struct rules_owner owner;
    pthread_mutex_lock(c->machine.lock); /* rules are read under it (rules.h) */
    rules_context_owner(c->rules, context, &owner);
    pthread_mutex_unlock(c->machine.lock);
    return owner.kind == RULES_HOST ? owner.session : 0;
}

enum protect_status control_handle(struct control_client *client, unsigned context, bool on,
                                   unsigned timeout_ms)
{
    struct control *c = client->control;
    enum protect_status status = PROTECT_OK;
    if (context >= RULES_CONTEXTS || timeout_ms > CONTROL_TIMEOUT_MAX)
        return PROTECT_BAD_ARGUMENT;
    uint64_t session = host_session(c, context);
    pthread_mutex_lock(&c->lock);
    if (client->retired || (c->handler[context].client && c->handler[context].client != client)) {
        status = PROTECT_BUSY;
    } else {
        c->handler[context].client = on ? client : NULL;
        c->handler[context].session = session;
        c->handler[context].timeout_ms = timeout_ms;
    }
    pthread_mutex_unlock(&c->lock);
    return status;
}

static void link_ask_locked(struct control *c, struct ask *ask)
{
    struct ask **last = &c->asks;
    while (*last)
        last = &(*last)->next;
    *last = ask;
    ask->token = ++c->last_token;
    ask->client->wake(ask->client->opaque);
}

static void unlink_ask_locked(struct control *c, struct ask *ask)
{
    struct ask **at = &c->asks;
    while (*at != ask)
        at = &(*at)->next;
    *at = ask->next;
}

static struct timespec deadline_after(unsigned ms)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += ms / 1000;
    t.tv_nsec += (long)(ms % 1000) * 1000000;
    if (t.tv_nsec >= 1000000000) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000;
    }
    return t;
}

/* Waits until the ask is answered or nobody will answer it. */
static void wait_locked(struct control *c, struct ask *ask)
{
    const struct timespec deadline = deadline_after(ask->timeout_ms);
    int error = 0;
    while (!ask->answered && ask->client && !c->hushed && error == 0)
        error = pthread_cond_timedwait(&c->changed, &c->lock, &deadline);
    if (error == ETIMEDOUT && !ask->answered && ask->client) {
        ask->client->asleep |= ask->taken;
        ask->client->behind |= !ask->taken;
    }
}

bool control_can_ask(void *control, unsigned context)
{
    struct control *c = control;
    pthread_mutex_lock(&c->lock);
    const struct control_client *client = c->handler[context].client;
    bool can = client && !client->asleep && !c->hushed;
    pthread_mutex_unlock(&c->lock);
    return can;
}

bool control_ask(void *control, unsigned context, const struct protect_event *event,
                 unsigned timeout_ms, enum protect_verdict *verdict, uint64_t *value)
{
    struct control *c = control;
    struct ask ask = {.context = context, .event = event};
    pthread_mutex_lock(&c->lock);
    ask.client = c->handler[context].client;
    if (ask.client && !ask.client->asleep && !ask.client->behind && !c->hushed) {
        ask.timeout_ms = c->handler[context].timeout_ms ? c->handler[context].timeout_ms
                         : timeout_ms                   ? timeout_ms
                                                        : CONTROL_TIMEOUT_MS;
        link_ask_locked(c, &ask);
        wait_locked(c, &ask);
        unlink_ask_locked(c, &ask);
    }
    pthread_mutex_unlock(&c->lock);
    *verdict = ask.verdict;
    *value = ask.value;
    return ask.answered;
}

enum protect_status control_answer(struct control_client *client, uint64_t token,
                                   enum protect_verdict verdict, uint64_t value)
{
    struct control *c = client->control;
    /* Registers are not shown to handlers outside, so they cannot set them either. */
    if (verdict >= PROTECT_VERDICTS || verdict == PROTECT_SET)
        return PROTECT_BAD_VERDICT;
    pthread_mutex_lock(&c->lock);
    client->asleep = false;
    struct ask *ask = c->asks;
    while (ask && !(ask->token == token && ask->client == client && !ask->answered))
        ask = ask->next;
    if (ask) {
        ask->verdict = verdict;
        ask->value = value;
        ask->answered = true;
        pthread_cond_broadcast(&c->changed);
    }
    pthread_mutex_unlock(&c->lock);
    return ask ? PROTECT_OK : PROTECT_BAD_TOKEN;
}

void control_alive(struct control_client *client)
{
    pthread_mutex_lock(&client->control->lock);
    client->asleep = false;
    pthread_mutex_unlock(&client->control->lock);
}

void control_hush(struct control *c, bool hush)
{
    if (!c)
        return;
    pthread_mutex_lock(&c->lock);
    c->hushed = hush;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}
