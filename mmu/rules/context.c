/*
 * context.c - contexts: binding, grants, the end of one, and the whole that they belong to.
 */
#include "internal/clock.h"
#include "internal/error.h"
#include "internal/exclusive.h"
#include "internal/random.h"
#include "table.h"
#include <stdlib.h>
#include <string.h>

/* ---- All of it ------------------------------------------------------------------------------- */

struct rules *rules_new(struct phys_map *map, struct exclusive *exclusive, struct clock *clock,
                        struct log *log, struct error *err)
{
    struct rules *r = calloc(1, sizeof *r);
    if (!r || !follow_init(r)) {
        free(r);
        error_set(err, "no host memory for the protection rules");
        return NULL;
    }
    r->map = map;
    r->exclusive = exclusive;
    r->clock = clock;
    r->log = log ? log : map->log;
    pthread_mutex_init(&r->lock, NULL);
    atomic_store(&map->rules, r);
    return r;
}

static void drop_everything(struct rules *r)
{
    for (unsigned i = 0; i < RULES_CONTEXTS; i++)
        if (r->contexts[i])
            context_end(r, i);
}

void rules_free(struct rules *r)
{
    if (!r)
        return;
    drop_everything(r);
    atomic_store(&r->map->rules, NULL);
    for (uint32_t i = 0; i < r->head_chunks; i++)
        free(r->heads[i]);
    free(r->heads);
    free(r->use_hash);
    free(r->regions.items);
    free(r->spans.items);
    free(r->rules.items);
    free(r->uses.items);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

struct rules *phys_rules(const struct phys_map *map)
{
    return atomic_load_explicit(&map->rules, memory_order_relaxed);
}

void rules_set_hooks(struct rules *r, const struct rules_hooks *hooks)
{
    r->hooks = *hooks;
}

void rules_reset(struct rules *r)
{
    drop_everything(r);
    memset(&r->total, 0, sizeof r->total);
}

/* The order is that of every exclusive section: first all vCPUs parked, then the lock, which no
 * parked vCPU holds. */
void rules_change_begin(struct rules *r, int vcpu)
{
    if (r->exclusive) {
        if (vcpu >= 0)
            exclusive_begin(r->exclusive, (unsigned)vcpu);
        else
            exclusive_begin_outside(r->exclusive);
    }
    pthread_mutex_lock(r->map->machine_lock);
}

uint64_t rules_generation(const struct rules *r)
{
    return atomic_load_explicit(&r->generation, memory_order_relaxed);
}

void rules_change_end(struct rules *r, int vcpu)
{
    if (atomic_load(&r->any_dirty)) /* by DMA; or a command's answer lies in a followed table */
        follow_dirty(r);
    span_settle(r);
    atomic_fetch_add(&r->generation, 1);
    pthread_mutex_unlock(r->map->machine_lock);
    if (r->exclusive && vcpu >= 0)
        exclusive_end(r->exclusive, (unsigned)vcpu);
    else if (r->exclusive)
        exclusive_end_outside(r->exclusive);
    struct mmu_cpu *mmu = vcpu >= 0 ? atomic_load(&r->map->cpus[vcpu]) : NULL;
    if (mmu) /* the code around the doorbell's store may be forbidden now */
        mmu_service_code(mmu);
}

/* ---- Binding --------------------------------------------------------------------------------- */

static bool number_fits(unsigned number, enum rules_kind kind)
{
    return number < RULES_CONTEXTS && (kind == RULES_HOST) == (number >= PROTECT_DOORS);
}

/* Notes the tables that map the door, so that its end is seen. */
static bool watch_door(struct rules *r, unsigned number)
{
    struct context *c = r->contexts[number];
    struct cursor cursor;
    uint32_t frame;
    uint64_t gpa;
    cursor_init(&cursor, r, number);
    cursor_virtual(&cursor, c->door_gva, &frame);
    if (!follow_walk(r, number, c->door_gva, &gpa))
        return false;
    c->door_gpa = gpa & PAGE_MASK;
    return true;
}

enum protect_status context_bind(struct rules *r, unsigned number, uint64_t cr3,
                                 const struct rules_caller *caller, uint64_t *session)
{
    if (!number_fits(number, caller->kind))
        return PROTECT_BAD_ARGUMENT;
    if (r->contexts[number])
        return PROTECT_BUSY;
    if (caller->kind == RULES_USER && paging_mode(caller->paging) == PAGING_NONE)
        return PROTECT_NOT_NOW;
    struct context *c = calloc(1, sizeof *c);
    if (!c)
        return PROTECT_NO_MEMORY;
    c->kind = caller->kind;
    c->paging = *caller->paging;
    if (caller->kind == RULES_HOST)
        c->paging.cr3 = cr3;
    c->grants = caller->kind == RULES_USER ? 0 : PROTECT_GRANT_ALL;
    c->uses = NONE;
    c->door_gva = caller->door_gva & PAGE_MASK;
    while (c->session == 0)
        host_random(&c->session, sizeof c->session);
    r->contexts[number] = c;
    if (c->kind == RULES_USER && !watch_door(r, number)) {
        context_end(r, number);
        return PROTECT_NOT_MAPPED;
    }
    if (c->kind == RULES_USER)
        atomic_fetch_add(&r->users, 1);
    *session = c->session;
    LOG(r->log, LOG_MMU, "protection: context %u bound, root %#llx\n", number,
        (unsigned long long)(c->paging.cr3 & context_root_mask(c)));
    return PROTECT_OK;
}

static void add_counters(struct protect_statistics *to, const struct protect_statistics *from)
{
#define X(name) to->name += from->name;
    PROTECT_COUNTERS(X)
#undef X
}

/* A context that is sealed against removal does not leave its bytes to whoever comes next. */
void context_end(struct rules *r, unsigned number)
{
    struct context *c = r->contexts[number];
    /* Backwards, since lists begin with what came last. */
    for (uint32_t id = c->id_count; id-- > 0;) {
        if (c->ids[id] == NONE)
            continue;
        if (c->seals & PROTECT_SEAL_REMOVE)
            region_zero(r, region_at(r, c->ids[id]));
        region_drop(r, c->ids[id]);
    }
    uses_drop_context(r, number);
    pthread_mutex_lock(&r->lock);
    tokens_drop(r, c);
    atomic_fetch_sub(&r->deferred_waiting, c->deferred_count);
    add_counters(&r->total, &c->statistics);
    r->contexts[number] = NULL;
    pthread_mutex_unlock(&r->lock);
    if (c->kind == RULES_USER && c->door_gpa)
        atomic_fetch_sub(&r->users, 1);
    r->id_room -= c->id_room;
    free(c->ids);
    free(c->by_base);
    free(c->by_base_end);
    free(c);
}

/* ---- The admin page -------------------------------------------------------------------------- */

enum protect_status rules_grant(struct rules *r, unsigned number, uint32_t grants, bool take)
{
    if (number >= RULES_CONTEXTS || !r->contexts[number])
        return PROTECT_NOT_BOUND;
    if (grants & ~PROTECT_GRANT_ALL)
        return PROTECT_BAD_ARGUMENT;
    struct context *c = r->contexts[number];
    c->grants = take ? c->grants & ~grants : c->grants | grants;
    return PROTECT_OK;
}

enum protect_status rules_destroy(struct rules *r, unsigned number)
{
    if (number >= RULES_CONTEXTS || !r->contexts[number])
        return PROTECT_NOT_BOUND;
    if (r->contexts[number]->seals & PROTECT_SEAL_REMOVE)
        return PROTECT_SEALED;
    context_end(r, number);
    return PROTECT_OK;
}

void rules_context_owner(const struct rules *r, unsigned number, struct rules_owner *owner)
{
    const struct context *c = number < RULES_CONTEXTS ? r->contexts[number] : NULL;
    *owner = (struct rules_owner){0};
    if (c)
        *owner = (struct rules_owner){.kind = c->kind,
                                      .session = c->session,
                                      .root = c->paging.cr3 & context_root_mask(c),
                                      .root_mask = context_root_mask(c)};
}

void rules_context_info(struct rules *r, unsigned number, struct rules_context_info *info)
{
    memset(info, 0, sizeof *info);
    if (number >= RULES_CONTEXTS || !r->contexts[number])
        return;
    struct context *c = r->contexts[number];
    pthread_mutex_lock(&r->lock);
    tokens_expire_locked(r, c);
    *info = (struct rules_context_info){.kind = c->kind,
                                        .grants = c->grants,
                                        .seals = c->seals,
                                        .session = c->session,
                                        .root = c->paging.cr3 & context_root_mask(c),
                                        .root_mask = context_root_mask(c),
                                        .regions = c->live,
                                        .event_head = c->event_head,
                                        .event_tail = c->event_tail,
                                        .event_lost = c->event_lost,
                                        .upcall_depth = c->live_tokens,
                                        .masked = c->masked,
                                        .handler = c->handler,
                                        .statistics = c->statistics};
    pthread_mutex_unlock(&r->lock);
}

void rules_totals(struct rules *r, uint64_t *regions, uint64_t *ruled_pages,
                  struct protect_statistics *total)
{
    *regions = r->live_regions;
    *ruled_pages = r->ruled_pages;
    pthread_mutex_lock(&r->lock);
    *total = r->total;
    for (unsigned i = 0; i < RULES_CONTEXTS; i++)
        if (r->contexts[i])
            add_counters(total, &r->contexts[i]->statistics);
    pthread_mutex_unlock(&r->lock);
}

bool rules_next_region(struct rules *r, unsigned number, uint32_t *id, struct protect_query *query)
{
    struct context *c = number < RULES_CONTEXTS ? r->contexts[number] : NULL;
    if (!c)
        return false;
    while (*id < c->id_count && c->ids[*id] == NONE)
        ++*id;
    if (*id >= c->id_count)
        return false;
    region_describe(r, region_at(r, c->ids[*id]), query);
    return true;
}

/* Adds one to a counter of every context whose owner's address space this is. */
static void count_for_owner(struct rules *r, uint64_t cr3, size_t counter)
{
    if (!atomic_load_explicit(&r->users, memory_order_relaxed))
        return;
    pthread_mutex_lock(&r->lock);
    for (unsigned i = 0; i < PROTECT_DOORS; i++) {
        struct context *c = r->contexts[i];
        if (c && c->kind == RULES_USER && context_is_root(c, cr3))
            ++*(uint64_t *)((char *)&c->statistics + counter);
    }
    pthread_mutex_unlock(&r->lock);
}

void rules_count_page_fault(struct rules *r, uint64_t cr3)
{
    count_for_owner(r, cr3, offsetof(struct protect_statistics, page_faults));
}

void rules_count_system_call(struct rules *r, uint64_t cr3)
{
    count_for_owner(r, cr3, offsetof(struct protect_statistics, system_calls));
}

const _Atomic unsigned *rules_users_word(const struct rules *r)
{
    return &r->users;
}

const _Atomic unsigned *rules_deferred_word(const struct rules *r)
{
    return &r->deferred_waiting;
}

const char *rules_status_text(enum protect_status status)
{
    static const char *const texts[] = {
#define X(name, text) text,
        PROTECT_STATUSES(X)
#undef X
    };
    return (unsigned)status < PROTECT_STATUS_COUNT ? texts[status] : "unknown status";
}
