/*
 * event.c - what a context is told: its ring, its deferred upcalls, and everybody else who wants to
 * know.
 */
#include "internal/clock.h"
#include "table.h"
#include <inttypes.h>
#include <string.h>

static uint64_t now(struct rules *r)
{
    return r->hooks.time ? r->hooks.time(r->hooks.opaque) : r->clock ? clock_now(r->clock) : 0;
}

static void append_locked(struct rules *r, struct context *c, struct protect_event *event,
                          uint32_t notify)
{
    c->statistics.events++;
    if (notify & PROTECT_NOTIFY_QUIET)
        return;
    if (c->event_head - c->event_tail >= PROTECT_EVENTS) {
        c->event_lost++;
        c->statistics.lost_events++;
        return;
    }
    event->sequence = ++c->event_head;
    c->ring[(event->sequence - 1) % PROTECT_EVENTS] = *event;
    (void)r;
}

/* The context has objected to an access, of which this became. */
static void count_locked(struct context *c, enum protect_action action)
{
    struct protect_statistics *s = &c->statistics;
    s->checks++;
    s->denied += action == PROTECT_DENY;
    s->substituted += action == PROTECT_SUBSTITUTE;
    s->skipped += action == PROTECT_SKIP;
    s->deferred += action == PROTECT_DEFERRED;
    s->allowed += action >= PROTECT_ALLOW_ONCE;
}

/* One line for a person: what a machine that stops or pauses has to say. */
static void describe(unsigned context, const struct protect_event *e, char *line, size_t size)
{
    static const char *const subjects[PROTECT_SUBJECTS] = {
        "its own code",   "other user code", "the kernel",    "the page walker",
        "event delivery", "a device",        "a host client", "the debugger"};
    snprintf(line, size,
             "protection: context %u: %s (vcpu %u, cpl %u, rip %#" PRIx64 ", cr3 %#" PRIx64
             ") %s%s%s %#" PRIx64 ", %u bytes, region %u",
             context, subjects[e->subject % PROTECT_SUBJECTS], e->vcpu, e->cpl, e->rip, e->cr3,
             e->access & PROTECT_READ ? "read" : "",
             (e->access & (PROTECT_READ | PROTECT_WRITE)) == (PROTECT_READ | PROTECT_WRITE) ? "+"
                                                                                            : "",
             e->access & PROTECT_WRITE  ? "wrote"
             : e->access & PROTECT_EXEC ? "executed"
                                        : "",
             e->home, e->length, e->region);
}

/* Puts off an upcall; one that the queue has no room for is a lost event. */
static void defer_locked(struct rules *r, struct context *c, const struct protect_event *event)
{
    if (c->deferred_count == RULES_DEFERRED) {
        c->statistics.lost_events++;
        return;
    }
    c->deferred[(c->deferred_first + c->deferred_count++) % RULES_DEFERRED] = *event;
    atomic_fetch_add(&r->deferred_waiting, 1);
}

/* Whether anybody will see the event's time, which the host has to be asked for. */
static bool is_timed(const struct context *c, const struct protect_event *e, uint32_t notify)
{
    return !(notify & PROTECT_NOTIFY_QUIET) || notify & PROTECT_NOTIFY_HOST ||
           c->kind == RULES_HOST || e->action == PROTECT_DEFERRED || e->action == PROTECT_ASK_HOST;
}

void event_append(struct rules *r, unsigned context, struct protect_event *event, uint32_t notify)
{
    const struct rules_hooks *h = &r->hooks;
    struct context *c = r->contexts[context];
    event->time = is_timed(c, event, notify) ? now(r) : 0;
    pthread_mutex_lock(&r->lock);
    if (event->type == PROTECT_EVENT_ACCESS)
        count_locked(c, (enum protect_action)event->action);
    append_locked(r, c, event, notify);
    if (event->type == PROTECT_EVENT_ACCESS && event->action == PROTECT_DEFERRED && c->handler.rip)
        defer_locked(r, c, event);
    pthread_mutex_unlock(&r->lock);
    if (h->event && (notify & PROTECT_NOTIFY_HOST || c->kind == RULES_HOST))
        h->event(h->opaque, context, event, notify);
    if (h->interrupt && notify & PROTECT_NOTIFY_INTERRUPT)
        h->interrupt(h->opaque, context);
    if (notify & (PROTECT_NOTIFY_PAUSE | PROTECT_NOTIFY_STOP)) {
        char line[256];
        describe(context, event, line, sizeof line);
        if (h->stop && notify & PROTECT_NOTIFY_STOP)
            h->stop(h->opaque, line);
        else if (h->pause)
            h->pause(h->opaque, line);
    }
}

void event_of_page(struct rules *r, const struct ruled_region *g, uint32_t page,
                   enum protect_event_type type)
{
    uint64_t gva = (g->base & PAGE_MASK) + ((uint64_t)page << PAGE_SHIFT);
    struct protect_event event = {.type = (uint16_t)type,
                                  .region = g->id,
                                  .cookie = g->cookie,
                                  .gva = gva,
                                  .home = gva,
                                  .flags = PROTECT_EVENT_HAS_GVA};
    if (g->rule != NONE)
        event_append(r, g->context, &event,
                     rule_at(r, g->rule)->set.notify &
                         (PROTECT_NOTIFY_QUIET | PROTECT_NOTIFY_INTERRUPT | PROTECT_NOTIFY_HOST));
}

/* In the ring only: nobody outside waits for it. */
void event_of_timeout_locked(struct rules *r, struct context *c, const struct token *t)
{
    struct protect_event event = {.type = PROTECT_EVENT_TIMEOUT,
                                  .flags = PROTECT_EVENT_VALUE,
                                  .value = {t->value},
                                  .time = now(r)};
    append_locked(r, c, &event, 0);
}

/* ---- Reading the ring ------------------------------------------------------------------------ */

void rules_read_event(struct rules *r, unsigned context, unsigned slot, struct protect_event *event)
{
    memset(event, 0, sizeof *event);
    pthread_mutex_lock(&r->lock);
    if (context < RULES_CONTEXTS && r->contexts[context] && slot < PROTECT_EVENTS) {
        tokens_expire_locked(r, r->contexts[context]);
        *event = r->contexts[context]->ring[slot];
    }
    pthread_mutex_unlock(&r->lock);
}

bool rules_set_event_tail(struct rules *r, unsigned context, uint64_t tail)
{
    bool ok = false;
    pthread_mutex_lock(&r->lock);
    struct context *c = context < RULES_CONTEXTS ? r->contexts[context] : NULL;
    if (c)
        tokens_expire_locked(r, c);
    if (c && tail >= c->event_tail && tail <= c->event_head) {
        c->event_tail = tail;
        ok = true;
    }
    pthread_mutex_unlock(&r->lock);
    return ok;
}

void rules_set_masked(struct rules *r, unsigned context, bool masked)
{
    pthread_mutex_lock(&r->lock);
    if (context < RULES_CONTEXTS && r->contexts[context])
        r->contexts[context]->masked = masked;
    pthread_mutex_unlock(&r->lock);
}

/* ---- Deferred upcalls ------------------------------------------------------------------------ */

bool rules_deferred_waiting(const struct rules *r)
{
    return atomic_load_explicit(&r->deferred_waiting, memory_order_relaxed);
}

int rules_deferred_due(struct rules *r, uint64_t cr3)
{
    int due = -1;
    if (!rules_deferred_waiting(r))
        return -1;
    pthread_mutex_lock(&r->lock);
    for (unsigned i = 0; i < PROTECT_DOORS && due < 0; i++) {
        struct context *c = r->contexts[i];
        if (c && c->deferred_count)
            tokens_expire_locked(r, c);
        if (c && c->deferred_count && !c->masked && !c->live_tokens && context_is_root(c, cr3))
            due = (int)i;
    }
    pthread_mutex_unlock(&r->lock);
    return due;
}

bool rules_take_deferred(struct rules *r, unsigned context, struct protect_event *event)
{
    bool ok = false;
    pthread_mutex_lock(&r->lock);
    struct context *c = r->contexts[context];
    if (c && c->deferred_count) {
        *event = c->deferred[c->deferred_first];
        c->deferred_first = (c->deferred_first + 1) % RULES_DEFERRED;
        c->deferred_count--;
        atomic_fetch_sub(&r->deferred_waiting, 1);
        ok = true;
    }
    pthread_mutex_unlock(&r->lock);
    return ok;
}
