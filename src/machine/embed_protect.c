/*
 * embed_protect.c - the protection interface for the program that the machine runs in: a client of
 * the control (control.h) whose messages a thread of its own turns into callbacks.
 *
 * Callbacks do not run in the vCPUs' threads, though that would be quicker: there they would hold
 * up the guest for as long as they like, and could call nothing that parks vCPUs.
 */
#include "bailey.h"
#include "internal/control.h"
#include "internal/thread.h"
#include "pc.h"
#include <stdlib.h>
#include <string.h>

struct bailey_protection {
    struct bailey_protection_callbacks callbacks;
    struct control_client *client;
    unsigned context;
    pthread_t thread;
    bool started;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool due; /* there is a message; under the lock */
    _Atomic bool quit;
};

/* ---- Messages -------------------------------------------------------------------------------- */

/* Any thread, any lock held. */
static void wake(void *opaque)
{
    struct bailey_protection *p = opaque;
    pthread_mutex_lock(&p->lock);
    p->due = true;
    pthread_cond_signal(&p->changed);
    pthread_mutex_unlock(&p->lock);
}

static void answer(struct bailey_protection *p, const struct control_message *m)
{
    const struct bailey_protection_callbacks *c = &p->callbacks;
    uint64_t value = 0;
    enum protect_verdict verdict = c->ask(c->opaque, &m->event, &value);
    if (verdict >= PROTECT_VERDICTS || verdict == PROTECT_SET)
        verdict = PROTECT_REFUSE;
    control_answer(p->client, m->token, verdict, value);
}

static void tell(struct bailey_protection *p, const struct control_message *m)
{
    const struct bailey_protection_callbacks *c = &p->callbacks;
    if (m->type == CONTROL_ASK)
        answer(p, m);
    else if (m->type == CONTROL_EVENT && c->event)
        c->event(c->opaque, m->context, &m->event);
    else if (m->type == CONTROL_LOST && c->lost)
        c->lost(c->opaque, m->lost);
}

static bool wait_for_messages(struct bailey_protection *p)
{
    pthread_mutex_lock(&p->lock);
    while (!p->due && !p->quit)
        pthread_cond_wait(&p->changed, &p->lock);
    p->due = false;
    pthread_mutex_unlock(&p->lock);
    return !atomic_load(&p->quit);
}

static void *protection_main(void *opaque)
{
    struct bailey_protection *p = opaque;
    struct control_message message;
    while (wait_for_messages(p))
        while (!atomic_load(&p->quit) && control_take(p->client, &message))
            tell(p, &message);
    return NULL;
}

/* ---- Commands -------------------------------------------------------------------------------- */

/* The program's own memory: it is trusted as far as any C function trusts its caller. */
static bool copy_in(void *opaque, uint64_t from, void *to, size_t len)
{
    (void)opaque;
    if (from)
        memcpy(to, (const void *)(uintptr_t)from, len);
    return from != 0;
}

static bool copy_out(void *opaque, uint64_t to, const void *from, size_t len)
{
    (void)opaque;
    if (to)
        memcpy((void *)(uintptr_t)to, from, len);
    return to != 0;
}

static enum protect_status execute(struct bailey_protection *p, struct protect_command *command,
                                   const struct control_space *space)
{
    struct rules_caller caller = {.copy_in = copy_in, .copy_out = copy_out};
    control_execute(p->client, &p->context, command, &caller, space);
    return command->status;
}

enum protect_status bailey_protect(struct bailey_protection *p, struct protect_command *command)
{
    static const struct control_space same = {0};
    if (command->op == PROTECT_OP_BIND)
        return command->status = PROTECT_BUSY;
    return execute(p, command, &same);
}

const char *bailey_protect_text(enum protect_status status)
{
    return rules_status_text(status);
}

unsigned bailey_protection_context(const struct bailey_protection *p)
{
    return p->context;
}

/* ---- Coming and going ------------------------------------------------------------------------ */

static bool start(struct bailey_protection *p, struct machine *m, const uint64_t *cr3,
                  struct error *err)
{
    const struct bailey_protection_callbacks *c = &p->callbacks;
    const struct control_space space = {.has_cr3 = cr3 != NULL, .cr3 = cr3 ? *cr3 : 0};
    struct protect_command bind = {.op = PROTECT_OP_BIND};
    p->client = control_join(m->control, wake, p);
    if (!p->client)
        return error_set(err, "there are too many clients of the protection already");
    if (execute(p, &bind, &space) != PROTECT_OK)
        return error_set(err, "the protection refused: %s", rules_status_text(bind.status));
    if (c->event || c->lost)
        control_subscribe(p->client, c->all ? CONTROL_ALL : CONTROL_OWN);
    enum protect_status handle =
        c->ask ? control_handle(p->client, p->context, true, c->timeout_ms) : PROTECT_OK;
    if (handle == PROTECT_BAD_ARGUMENT)
        return error_set(err, "a time-out of %u ms is too long", c->timeout_ms);
    if (handle != PROTECT_OK)
        return error_set(err, "context %u has a handler already", p->context);
    p->started = thread_start(&p->thread, protection_main, p) == 0;
    return p->started || error_set(err, "could not start a thread for the callbacks");
}

struct bailey_protection *bailey_protection_new(struct bailey *machine,
                                                const struct bailey_protection_callbacks *callbacks,
                                                const uint64_t *cr3, struct bailey_error *error)
{
    struct error err = {{0}};
    struct bailey_protection *p = calloc(1, sizeof(*p));
    bool ok = p != NULL;
    if (!ok) {
        error_set(&err, "no host memory for the protection");
    } else {
        pthread_mutex_init(&p->lock, NULL);
        pthread_cond_init(&p->changed, NULL);
        if (callbacks)
            p->callbacks = *callbacks;
        ok = machine->machine->control
                 ? start(p, machine->machine, cr3, &err)
                 : error_set(&err, "the machine has no protection (-machine protect=off)");
    }
    bailey_set_error(error, ok ? BAILEY_OK : BAILEY_FAILED, ok ? NULL : &err);
    if (ok)
        return p;
    bailey_protection_free(p);
    return NULL;
}

void bailey_protection_free(struct bailey_protection *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->quit, true);
    pthread_cond_signal(&p->changed);
    pthread_mutex_unlock(&p->lock);
    if (p->started)
        pthread_join(p->thread, NULL);
    if (p->client)
        control_leave(p->client);
    pthread_cond_destroy(&p->changed);
    pthread_mutex_destroy(&p->lock);
    free(p);
}
