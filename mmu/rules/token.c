/*
 * token.c - upcalls that have not been resumed yet. A token names one, can be redeemed once, and
 * has a deadline; what it stands for (the true registers) never leaves the monitor.
 */
#include "internal/clock.h"
#include "internal/random.h"
#include "table.h"
#include <stdlib.h>

enum { TOKEN_BITS = 56, DEFAULT_MS = 1000, NS_PER_MS = 1000000 };

static uint64_t now(const struct rules *r)
{
    return r->clock ? clock_now(r->clock) : 0;
}

static void release_locked(struct context *c, struct token *t)
{
    if (t->stack != NONE)
        c->stacks_busy &= ~(1u << t->stack);
    t->value = 0;
    c->live_tokens--;
}

void tokens_drop(struct rules *r, struct context *c)
{
    (void)r;
    for (unsigned i = 0; i < PROTECT_MAX_LIVE; i++) {
        if (!c->token[i].value)
            continue;
        free(c->token[i].state);
        release_locked(c, &c->token[i]);
    }
}

/* Handlers that took too long: their slots and stacks are free again, their tokens void. */
static void expire_locked(struct rules *r, struct context *c, uint64_t time)
{
    for (unsigned i = 0; i < PROTECT_MAX_LIVE; i++) {
        struct token *t = &c->token[i];
        if (!t->value || time < t->deadline)
            continue;
        event_of_timeout_locked(r, c, t);
        free(t->state);
        release_locked(c, t);
        c->statistics.timeouts++;
    }
}

void tokens_expire_locked(struct rules *r, struct context *c)
{
    if (c->live_tokens) /* else the host need not be asked what time it is */
        expire_locked(r, c, now(r));
}

/* The host's random numbers come by system call: many at once. */
static uint64_t random_locked(struct rules *r)
{
    if (r->random_left == 0) {
        host_random(r->random, sizeof r->random);
        r->random_left = sizeof r->random / sizeof r->random[0];
    }
    return r->random[--r->random_left];
}

static struct token *free_slot(struct context *c)
{
    for (unsigned i = 0; i < PROTECT_MAX_LIVE; i++)
        if (!c->token[i].value)
            return &c->token[i];
    return NULL;
}

static bool take_stack(struct context *c, struct token *t, uint64_t *top)
{
    t->stack = NONE;
    *top = 0;
    if (c->handler.stacks == 0)
        return true;
    for (unsigned i = 0; i < c->handler.stacks; i++) {
        if (c->stacks_busy >> i & 1)
            continue;
        c->stacks_busy |= 1u << i;
        t->stack = i;
        *top = c->handler.stack[i];
        return true;
    }
    return false;
}

uint64_t rules_token_issue(struct rules *r, unsigned context, void *state, uint64_t *stack,
                           unsigned *depth)
{
    uint64_t value = 0, time = now(r);
    pthread_mutex_lock(&r->lock);
    struct context *c = r->contexts[context];
    struct token *t = NULL;
    if (c) {
        expire_locked(r, c, time);
        t = c->handler.rip ? free_slot(c) : NULL;
    }
    if (t && take_stack(c, t, stack)) {
        while (!value)
            value = random_locked(r) & ((1ull << TOKEN_BITS) - 1);
        unsigned ms = c->handler.timeout_ms ? c->handler.timeout_ms : DEFAULT_MS;
        t->value = value;
        t->state = state;
        t->deadline = time + (uint64_t)ms * NS_PER_MS;
        c->live_tokens++;
        c->statistics.upcalls++;
        *depth = c->live_tokens;
    }
    pthread_mutex_unlock(&r->lock);
    return value;
}

static struct token *find_locked(struct context *c, uint64_t value)
{
    for (unsigned i = 0; c && value && i < PROTECT_MAX_LIVE; i++)
        if (c->token[i].value == value)
            return &c->token[i];
    return NULL;
}

void *rules_token_redeem(struct rules *r, unsigned context, uint64_t token)
{
    void *state = NULL;
    pthread_mutex_lock(&r->lock);
    struct context *c = context < RULES_CONTEXTS ? r->contexts[context] : NULL;
    if (c)
        tokens_expire_locked(r, c);
    struct token *t = find_locked(c, token);
    if (t) {
        state = t->state;
        release_locked(c, t);
        c->statistics.resumes++;
    }
    pthread_mutex_unlock(&r->lock);
    return state;
}

void *rules_token_cancel(struct rules *r, unsigned context, uint64_t token)
{
    void *state = NULL;
    pthread_mutex_lock(&r->lock);
    struct context *c = r->contexts[context];
    struct token *t = find_locked(c, token);
    if (t) {
        state = t->state;
        release_locked(c, t);
        c->statistics.upcalls--;
    }
    pthread_mutex_unlock(&r->lock);
    return state;
}

uint64_t rules_handler(struct rules *r, unsigned context)
{
    struct context *c = r->contexts[context];
    return c ? c->handler.rip : 0;
}
