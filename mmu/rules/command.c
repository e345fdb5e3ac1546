/*
 * command.c - one command: from a descriptor to what the other files do with it (protect.h,
 * "Commands").
 *
 * Doors and the socket share this, and so every check and every status. Arrays are copied once,
 * before anything is looked at: what the program does to them meanwhile does not matter.
 */
#include "table.h"
#include <stdlib.h>
#include <string.h>

struct request {
    struct rules *rules;
    unsigned context;
    struct protect_command *command;
    const struct rules_caller *caller;
};
typedef enum protect_status operation(struct request *q);

/* A copy of the command's array, which the caller frees; NULL with *status. */
static void *fetch_array(struct request *q, size_t size, uint32_t *count,
                         enum protect_status *status)
{
    uint64_t n = q->command->arg[1];
    *status = PROTECT_BAD_ARGUMENT;
    if (n == 0)
        return NULL;
    *status = PROTECT_TOO_MANY;
    if (n > PROTECT_MAX_ELEMENTS)
        return NULL;
    void *array = malloc(n * size);
    *status = PROTECT_NO_MEMORY;
    if (!array)
        return NULL;
    *status = PROTECT_NOT_MAPPED;
    if (!q->caller->copy_in(q->caller->opaque, q->command->arg[0], array, n * size)) {
        free(array);
        return NULL;
    }
    *count = (uint32_t)n;
    *status = PROTECT_OK;
    return array;
}

static enum protect_status op_bind(struct request *q)
{
    uint64_t session = 0;
    if (q->caller->kind != RULES_HOST && q->command->arg[0])
        return PROTECT_BAD_RESERVED;
    enum protect_status status =
        context_bind(q->rules, q->context, q->command->arg[0], q->caller, &session);
    q->command->result = session;
    return status;
}

static enum protect_status op_unbind(struct request *q)
{
    context_end(q->rules, q->context);
    return PROTECT_OK;
}

static enum protect_status op_add_regions(struct request *q)
{
    uint32_t count, element = 0;
    enum protect_status status;
    struct protect_region *array = fetch_array(q, sizeof *array, &count, &status);
    if (!array)
        return status;
    status = regions_add(q->rules, q->context, array, count, &element, &q->command->result);
    q->command->element = element;
    free(array);
    return status;
}

static enum protect_status op_remove_regions(struct request *q)
{
    return regions_remove(q->rules, q->context, q->command->arg[0], q->command->arg[1]);
}

static enum protect_status op_set_rules(struct request *q)
{
    uint32_t count, element = 0;
    enum protect_status status;
    struct protect_rule *array = fetch_array(q, sizeof *array, &count, &status);
    if (!array)
        return status;
    status = rules_set(q->rules, q->context, array, count, &element);
    q->command->element = element;
    free(array);
    return status;
}

static bool user_address(uint64_t a)
{
    return a && a < 1ull << 47;
}

bool handler_is_possible(const struct protect_handler *h)
{
    if (!h->rip) /* none */
        return !h->stacks && !h->timeout_ms;
    if (!user_address(h->rip) || h->stacks > PROTECT_MAX_STACKS || h->timeout_ms > 60000)
        return false;
    for (unsigned i = 0; i < h->stacks; i++)
        if (!user_address(h->stack[i]) || h->stack[i] < PAGE_SIZE)
            return false;
    return true;
}

static enum protect_status op_set_handler(struct request *q)
{
    struct context *c = q->rules->contexts[q->context];
    struct protect_handler h = {0};
    if (c->kind != RULES_USER)
        return PROTECT_BAD_HANDLER; /* supervisor contexts have interrupts, clients the socket */
    if (c->seals & PROTECT_SEAL_REBIND)
        return PROTECT_SEALED;
    if (q->command->arg[0] &&
        !q->caller->copy_in(q->caller->opaque, q->command->arg[0], &h, sizeof h))
        return PROTECT_NOT_MAPPED;
    if (q->command->arg[0] && (!h.rip || !handler_is_possible(&h)))
        return PROTECT_BAD_HANDLER;
    pthread_mutex_lock(&q->rules->lock);
    c->handler = h;
    if (!h.rip) { /* nobody is there for what waits */
        atomic_fetch_sub(&q->rules->deferred_waiting, c->deferred_count);
        c->deferred_count = 0;
    }
    pthread_mutex_unlock(&q->rules->lock);
    return PROTECT_OK;
}

/* The lowest region that holds the address. */
static struct ruled_region *region_holding(struct rules *r, const struct context *c,
                                           uint64_t address)
{
    for (uint32_t id = 0; id < c->id_count; id++) {
        struct ruled_region *g = region_find(r, c, id);
        if (g && address - g->base < g->length)
            return g;
    }
    return NULL;
}

static enum protect_status op_query(struct request *q)
{
    struct rules *r = q->rules;
    const struct context *c = r->contexts[q->context];
    struct protect_query query;
    if (!q->caller->copy_in(q->caller->opaque, q->command->arg[0], &query, sizeof query))
        return PROTECT_NOT_MAPPED;
    struct ruled_region *g = query.region == UINT32_MAX ? region_holding(r, c, query.address)
                                                        : region_find(r, c, query.region);
    if (!g)
        return PROTECT_NO_REGION;
    region_describe(r, g, &query);
    q->command->result = g->id;
    return q->caller->copy_out(q->caller->opaque, q->command->arg[0], &query, sizeof query)
               ? PROTECT_OK
               : PROTECT_NOT_MAPPED;
}

static enum protect_status op_seal(struct request *q)
{
    struct context *c = q->rules->contexts[q->context];
    if (q->command->arg[0] & ~(uint64_t)PROTECT_SEAL_ALL)
        return PROTECT_BAD_ARGUMENT;
    c->seals |= (uint32_t)q->command->arg[0];
    q->command->result = c->seals;
    return PROTECT_OK;
}

static enum protect_status op_statistics(struct request *q)
{
    struct rules *r = q->rules;
    pthread_mutex_lock(&r->lock);
    tokens_expire_locked(r, r->contexts[q->context]);
    struct protect_statistics s = r->contexts[q->context]->statistics;
    pthread_mutex_unlock(&r->lock);
    return q->caller->copy_out(q->caller->opaque, q->command->arg[0], &s, sizeof s)
               ? PROTECT_OK
               : PROTECT_NOT_MAPPED;
}

static const struct {
    operation *run;
    uint8_t args; /* how many of arg[] count */
} operations[PROTECT_OPS] = {
    [PROTECT_OP_BIND] = {op_bind, 1},
    [PROTECT_OP_UNBIND] = {op_unbind, 0},
    [PROTECT_OP_ADD_REGIONS] = {op_add_regions, 2},
    [PROTECT_OP_REMOVE_REGIONS] = {op_remove_regions, 2},
    [PROTECT_OP_SET_RULES] = {op_set_rules, 2},
    [PROTECT_OP_SET_HANDLER] = {op_set_handler, 1},
    [PROTECT_OP_QUERY] = {op_query, 1},
    [PROTECT_OP_SEAL] = {op_seal, 1},
    [PROTECT_OP_STATISTICS] = {op_statistics, 1},
};

/* Who may give commands: user contexts are bound to an address space, supervisor contexts to a
 * privilege level; the session value keeps others out who share these. */
static enum protect_status check_caller(const struct request *q)
{
    const struct context *c = q->rules->contexts[q->context];
    if (!c)
        return PROTECT_NOT_BOUND;
    if (q->caller->kind != c->kind ||
        (c->kind == RULES_USER && !context_is_root(c, q->caller->paging->cr3)))
        return PROTECT_WRONG_CALLER;
    return q->command->session == c->session ? PROTECT_OK : PROTECT_WRONG_SESSION;
}

static enum protect_status check_form(const struct protect_command *d)
{
    if (d->op == 0 || d->op >= PROTECT_OPS)
        return PROTECT_BAD_OP;
    if (d->version && d->version != PROTECT_VERSION >> 16)
        return PROTECT_BAD_VERSION;
    if (d->reserved)
        return PROTECT_BAD_RESERVED;
    for (unsigned i = operations[d->op].args; i < 4; i++)
        if (d->arg[i])
            return PROTECT_BAD_RESERVED;
    return PROTECT_OK;
}

static enum protect_status run(struct request *q)
{
    enum protect_status status = check_form(q->command);
    if (status != PROTECT_OK)
        return status;
    if (q->command->op != PROTECT_OP_BIND) {
        status = check_caller(q);
        if (status != PROTECT_OK)
            return status;
        struct context *c = q->rules->contexts[q->context];
        if (q->command->op == PROTECT_OP_UNBIND && c->seals & PROTECT_SEAL_REMOVE)
            return PROTECT_SEALED;
    }
    return operations[q->command->op].run(q);
}

void rules_execute(struct rules *r, unsigned context, struct protect_command *command,
                   const struct rules_caller *caller)
{
    struct request q = {r, context, command, caller};
    command->element = 0;
    command->result = 0;
    command->status = context < RULES_CONTEXTS ? run(&q) : PROTECT_BAD_ARGUMENT;
    struct context *c = context < RULES_CONTEXTS ? r->contexts[context] : NULL;
    struct protect_statistics *counters = c ? &c->statistics : &r->total;
    pthread_mutex_lock(&r->lock);
    counters->commands++;
    counters->refused_commands += command->status != PROTECT_OK;
    pthread_mutex_unlock(&r->lock);
}
