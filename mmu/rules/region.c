/*
 * region.c - regions: adding, removing, giving them rules, all or nothing.
 *
 * A command is first validated, then all that it can run out of is reserved, and only then is
 * anything changed. A million pages in one command is meant to be ordinary, so nothing here costs
 * more per page than a table entry read, a list insertion and an attribute word.
 */
#include "table.h"
#include <stdlib.h>
#include <string.h>

/* ---- Ids ------------------------------------------------------------------------------------- */

struct ruled_region *region_find(struct rules *r, const struct context *c, uint64_t id)
{
    if (id >= c->id_count || c->ids[id] == NONE)
        return NULL;
    return region_at(r, c->ids[id]);
}

/* The first of `count` ids that are free one after another below c->id_count; NONE. */
static uint32_t find_gap(const struct context *c, uint32_t count)
{
    uint32_t run = 0;
    for (uint32_t id = 0; id < c->id_count; id++) {
        run = c->ids[id] == NONE ? run + 1 : 0;
        if (run == count)
            return id - count + 1;
    }
    return NONE;
}

/* Ids are given out upwards; when most of what was given out is free again, gaps are used first, so
 * that adding and removing for ever does not cost memory. Who leaves no gap that is long enough for
 * the next command comes to the limit. */
static bool reserve_ids(struct rules *r, struct context *c, uint32_t count, uint32_t *first)
{
    *first = c->id_count;
    if (c->id_count > 2 * (c->live + count) + 1024) {
        uint32_t gap = find_gap(c, count);
        if (gap != NONE)
            *first = gap;
    }
    uint64_t need = (uint64_t)*first + count, room = c->id_room ? c->id_room : 64;
    while (room < need)
        room *= 2;
    if (room > c->id_room) {
        if (r->id_room + (room - c->id_room) > RULES_MAX_IDS)
            return false;
        uint32_t *ids = realloc(c->ids, room * sizeof *ids);
        if (!ids)
            return false;
        r->id_room += room - c->id_room;
        c->ids = ids;
        c->id_room = (uint32_t)room;
    }
    return true;
}

static void take_ids(struct context *c, uint32_t first, uint32_t count)
{
    for (; c->id_count < first + count; c->id_count++)
        c->ids[c->id_count] = NONE;
}

/* ---- Adding: validation ---------------------------------------------------------------------- */

/* User space as every processor with 4-level paging has it; below 4 GiB there is no upper half. */
#define USER_END (1ull << 47)

static enum protect_status check_region(const struct context *c, const struct protect_region *d)
{
    if (d->reserved)
        return PROTECT_BAD_RESERVED;
    if (d->flags & ~(uint32_t)(PROTECT_PIN | PROTECT_PHYSICAL))
        return PROTECT_BAD_FLAGS;
    uint64_t last = d->base + d->length - 1;
    if (d->length == 0 || last < d->base)
        return PROTECT_BAD_RANGE;
    if ((d->length - 1) >> PAGE_SHIFT >= PROTECT_MAX_PAGES - 1)
        return PROTECT_TOO_MANY;
    if (d->flags & PROTECT_PHYSICAL)
        return c->kind == RULES_USER && !(c->grants & PROTECT_GRANT_PHYSICAL) ? PROTECT_NO_GRANT
                                                                              : PROTECT_OK;
    if (c->kind == RULES_USER && last >= USER_END)
        return PROTECT_BAD_RANGE;
    enum paging_mode mode = paging_mode(&c->paging);
    bool wide = mode == PAGING_4LEVEL;
    uint64_t top = (uint64_t)((int64_t)d->base >> 47), last_top = (uint64_t)((int64_t)last >> 47);
    if (wide ? top != last_top || (top != 0 && top != ~0ull) : last >> 32 != 0)
        return PROTECT_BAD_RANGE;
    return PROTECT_OK;
}

/* ---- Adding: frames -------------------------------------------------------------------------- */

static bool make_frames(struct ruled_region *g)
{
    uint32_t pages = region_pages(g);
    if (pages == 1) {
        g->frames.one = NONE;
        return true;
    }
    g->frames.many = malloc(pages * sizeof *g->frames.many);
    if (!g->frames.many)
        return false;
    for (uint32_t i = 0; i < pages; i++)
        g->frames.many[i] = NONE;
    return true;
}

/* The frames that the region's pages have now. */
static enum protect_status resolve(struct rules *r, struct ruled_region *g, struct cursor *cursor)
{
    uint32_t pages = region_pages(g), *frames = region_frames(g);
    uint64_t first = g->base & PAGE_MASK;
    for (uint32_t i = 0; i < pages; i++) {
        uint64_t at = first + ((uint64_t)i << PAGE_SHIFT);
        enum resolved what = g->flags & PROTECT_PHYSICAL ? cursor_physical(cursor, at, &frames[i])
                                                         : cursor_virtual(cursor, at, &frames[i]);
        if (what == RESOLVED_NOT_MEMORY)
            return PROTECT_NOT_MEMORY;
        if (what == RESOLVED_NOTHING)
            frames[i] = NONE;
        else if (!span_reserve_head(r, frames[i]))
            return PROTECT_NO_MEMORY;
    }
    return PROTECT_OK;
}

static void free_frames(struct ruled_region *g)
{
    if (region_pages(g) > 1)
        free(g->frames.many);
}

/* ---- Adding ---------------------------------------------------------------------------------- */

/* Regions made so far by a command that may still be refused. */
struct batch {
    uint32_t *index;
    uint32_t count;
};

/* Without frames. */
static enum protect_status make_region(struct rules *r, unsigned context,
                                       const struct protect_region *d, struct batch *batch)
{
    uint32_t index = pool_take(&r->regions, sizeof(struct ruled_region));
    struct ruled_region *g = region_at(r, index);
    g->base = d->base;
    g->length = d->length;
    g->cookie = d->cookie;
    g->rule = NONE;
    g->context = (uint16_t)context;
    g->flags = (uint8_t)d->flags;
    if (!make_frames(g)) {
        pool_give(&r->regions, index, sizeof(struct ruled_region));
        return PROTECT_NO_MEMORY;
    }
    batch->index[batch->count++] = index;
    return PROTECT_OK;
}

static enum protect_status add_one(struct rules *r, unsigned context,
                                   const struct protect_region *d, struct cursor *cursor,
                                   struct batch *batch)
{
    enum protect_status status = make_region(r, context, d, batch);
    return status == PROTECT_OK ? resolve(r, region_at(r, batch->index[batch->count - 1]), cursor)
                                : status;
}

static void link_pages(struct rules *r, uint32_t index)
{
    struct ruled_region *g = region_at(r, index);
    uint32_t pages = region_pages(g), *frames = region_frames(g);
    for (uint32_t i = 0; i < pages; i++)
        if (frames[i] != NONE)
            span_add(r, index, i, frames[i]);
}

static void give_up(struct rules *r, struct batch *batch)
{
    for (uint32_t i = 0; i < batch->count; i++) {
        free_frames(region_at(r, batch->index[i]));
        pool_give(&r->regions, batch->index[i], sizeof(struct ruled_region));
    }
}

enum protect_status regions_add(struct rules *r, unsigned context,
                                const struct protect_region *array, uint32_t count,
                                uint32_t *element, uint64_t *first)
{
    struct context *c = r->contexts[context];
    uint64_t pages = 0;
    for (uint32_t i = 0; i < count; i++) {
        enum protect_status status = check_region(c, &array[i]);
        *element = i;
        if (status != PROTECT_OK)
            return status;
        pages += pages_of(array[i].base, array[i].length);
    }
    *element = 0;
    if (r->live_regions + (uint64_t)count > PROTECT_MAX_REGIONS ||
        r->live_pages + pages > RULES_MAX_PAGES)
        return PROTECT_TOO_MANY;
    struct batch batch = {.index = malloc((count + 1ull) * sizeof *batch.index)};
    struct cursor cursor;
    uint32_t first_id;
    if (!batch.index || !reserve_ids(r, c, count, &first_id) ||
        !pool_reserve(&r->regions, count, sizeof(struct ruled_region)) ||
        !pool_reserve(&r->spans, (uint32_t)pages, sizeof(struct span))) {
        free(batch.index);
        return PROTECT_NO_MEMORY;
    }
    enum protect_status status = PROTECT_OK;
    cursor_init(&cursor, r, context);
    for (uint32_t i = 0; i < count && status == PROTECT_OK; i++) {
        *element = i;
        status = add_one(r, context, &array[i], &cursor, &batch);
    }
    if (status != PROTECT_OK) {
        give_up(r, &batch);
        free(batch.index);
        return status;
    }
    *element = 0;
    take_ids(c, first_id, count);
    for (uint32_t i = 0; i < count; i++) {
        c->ids[first_id + i] = batch.index[i];
        region_at(r, batch.index[i])->id = first_id + i;
        link_pages(r, batch.index[i]);
    }
    free(batch.index);
    c->live += count;
    c->sorted = false;
    r->live_regions += count;
    r->live_pages += pages;
    *first = first_id;
    return PROTECT_OK;
}

/* ---- Removing -------------------------------------------------------------------------------- */

void rule_release(struct rules *r, uint32_t rule)
{
    if (rule != NONE && --rule_at(r, rule)->refs == 0)
        pool_give(&r->rules, rule, sizeof(struct rule));
}

void region_drop(struct rules *r, uint32_t index)
{
    struct ruled_region *g = region_at(r, index);
    struct context *c = r->contexts[g->context];
    uint32_t pages = region_pages(g), *frames = region_frames(g);
    for (uint32_t i = pages; i-- > 0;) { /* backwards, since lists begin with what came last */
        if (frames[i] == NONE)
            continue;
        span_remove(r, index, i, frames[i]);
        if (g->rule != NONE)
            span_derive(r, frames[i]);
    }
    rule_release(r, g->rule);
    free_frames(g);
    c->ids[g->id] = NONE;
    c->live--;
    c->sorted = false;
    r->live_regions--;
    r->live_pages -= pages;
    pool_give(&r->regions, index, sizeof(struct ruled_region));
}

enum protect_status regions_remove(struct rules *r, unsigned context, uint64_t first,
                                   uint64_t count)
{
    struct context *c = r->contexts[context];
    if (c->seals & PROTECT_SEAL_REMOVE)
        return PROTECT_SEALED;
    if (count == 0 || first > c->id_count || count > c->id_count - first)
        return PROTECT_NO_REGION;
    for (uint64_t i = first; i < first + count; i++)
        if (c->ids[i] == NONE)
            return PROTECT_NO_REGION;
    for (uint64_t i = first + count; i-- > first;) /* as in context_end() */
        region_drop(r, c->ids[i]);
    while (c->id_count && c->ids[c->id_count - 1] == NONE)
        c->id_count--;
    return PROTECT_OK;
}

/* The frames' bytes, whatever the map shows there now: a BAR that covers them can be moved away,
 * and shadow RAM be opened again. */
void region_zero(struct rules *r, struct ruled_region *g)
{
    uint32_t pages = region_pages(g), *frames = region_frames(g);
    for (uint32_t i = 0; i < pages; i++) {
        uint16_t lo, hi;
        if (frames[i] == NONE)
            continue;
        region_bytes(g, i, &lo, &hi);
        struct ram_block *block = block_by_number(r->map, frames[i]);
        uint64_t offset = ((uint64_t)(frames[i] - block->first_frame) << PAGE_SHIFT) + lo;
        memset(block->base + offset, 0, hi - lo + 1u);
        phys_block_written(r->map, block, offset, hi - lo + 1u);
    }
}

/* ---- Rules ----------------------------------------------------------------------------------- */

/* The grant that restricting a subject takes; 0: none. */
static const uint32_t needs_grant[PROTECT_SUBJECTS] = {
    [PROTECT_OTHER_USER] = PROTECT_GRANT_USERS, [PROTECT_KERNEL] = PROTECT_GRANT_KERNEL,
    [PROTECT_WALKER] = PROTECT_GRANT_KERNEL,    [PROTECT_EVENT] = PROTECT_GRANT_KERNEL,
    [PROTECT_DEVICE] = PROTECT_GRANT_DEVICES,   [PROTECT_HOST] = PROTECT_GRANT_HOST,
    [PROTECT_DEBUGGER] = PROTECT_GRANT_HOST,
};
#define COMPLETES (1u << PROTECT_ALLOW | 1u << PROTECT_DEFERRED)

/* Bits of a page fault's error code that no page walk sets (SDM vol. 3, 4.7; APM vol. 2, 8.4.2). */
enum { MARKER_FIRST = 7, MARKER_LAST = 30 };

/* What can be wrong with a rule whosever it is. */
static enum protect_status check_rule_form(const struct protect_rule *d)
{
    if (d->reserved)
        return PROTECT_BAD_RESERVED;
    if (d->notify & ~PROTECT_NOTIFY_ALL)
        return PROTECT_BAD_NOTIFY;
    if (d->fault > PROTECT_FAULT_GENERAL ||
        (d->marker && (d->marker < MARKER_FIRST || d->marker > MARKER_LAST)))
        return PROTECT_BAD_FAULT;
    for (unsigned s = 0; s < PROTECT_SUBJECTS; s++) {
        if (d->allow[s] & ~PROTECT_ALL)
            return PROTECT_BAD_ACCESS;
        if (d->action[s] >= PROTECT_ACTIONS || !(PROTECT_ACTIONS_OF(s) >> d->action[s] & 1))
            return PROTECT_BAD_ACTION;
    }
    return PROTECT_OK;
}

static enum protect_status check_rule(const struct context *c, const struct protect_rule *d)
{
    enum protect_status status = check_rule_form(d);
    if (status != PROTECT_OK)
        return status;
    for (unsigned s = 0; s < PROTECT_SUBJECTS; s++) {
        bool restricts = d->allow[s] != PROTECT_ALL && !(COMPLETES >> d->action[s] & 1);
        if (restricts && needs_grant[s] & ~c->grants)
            return PROTECT_NO_GRANT;
    }
    if (d->notify & (PROTECT_NOTIFY_PAUSE | PROTECT_NOTIFY_STOP) &&
        !(c->grants & PROTECT_GRANT_CONTROL))
        return PROTECT_NO_GRANT;
    return PROTECT_OK;
}

/* Whether action `b` in the place of `a` weakens nothing. Who may be asked may say yes: so asking
 * is stricter only than what completes anyway. */
static bool action_as_strict(unsigned a, unsigned b)
{
    bool asks = b == PROTECT_UPCALL || b == PROTECT_ASK_HOST;
    return b <= a && (!asks || b == a || a >= PROTECT_DEFERRED);
}

/* The subject's action in a region where it has been used up for the subjects in `once`. */
static unsigned action_now(const struct protect_rule *d, unsigned subject, uint8_t once)
{
    bool used = d->action[subject] == PROTECT_ALLOW_ONCE && once >> subject & 1;
    return used ? PROTECT_DENY : d->action[subject];
}

/* Whether `b` takes away all that `a` takes away, at least as strictly. */
static bool at_least_as_strict(const struct protect_rule *a, const struct protect_rule *b,
                               uint8_t once)
{
    for (unsigned s = 0; s < PROTECT_SUBJECTS; s++) {
        if (b->allow[s] & ~a->allow[s])
            return false;
        if (a->allow[s] != PROTECT_ALL &&
            !action_as_strict(action_now(a, s, once), action_now(b, s, once)))
            return false;
    }
    return !(a->notify & ~b->notify & ~(uint32_t)PROTECT_NOTIFY_QUIET) &&
           !(b->notify & ~a->notify & PROTECT_NOTIFY_QUIET);
}

static enum protect_status check_targets(struct rules *r, const struct context *c,
                                         const struct protect_rule *d)
{
    if (d->count == 0)
        return PROTECT_NO_REGION;
    for (uint64_t id = d->region; id < (uint64_t)d->region + d->count; id++) {
        const struct ruled_region *g = region_find(r, c, id);
        if (!g)
            return PROTECT_NO_REGION;
        if (c->seals & PROTECT_SEAL_WEAKEN && g->rule != NONE &&
            !at_least_as_strict(&rule_at(r, g->rule)->set, d, atomic_load(&g->once)))
            return PROTECT_SEALED;
    }
    return PROTECT_OK;
}

static void make_rule(struct rule *rule, const struct protect_rule *d)
{
    static const unsigned code[] = {PROTECT_OWNER, PROTECT_OTHER_USER, PROTECT_KERNEL,
                                    PROTECT_EVENT};
    unsigned by_code = 0;
    rule->set = *d;
    if (!rule->set.marker)
        rule->set.marker = PROTECT_DEFAULT_MARKER;
    for (unsigned s = 0; s < PROTECT_SUBJECTS; s++)
        rule->forbids |= ~d->allow[s] & PROTECT_ALL;
    for (unsigned i = 0; i < sizeof code / sizeof code[0]; i++)
        by_code |= ~d->allow[code[i]];
    rule->attr = (rule->forbids ? FRAME_RULED : 0) |
                 (by_code & PROTECT_READ ? FRAME_RULED_READ : 0) |
                 (by_code & PROTECT_WRITE ? FRAME_RULED_WRITE : 0) |
                 (by_code & PROTECT_EXEC ? FRAME_RULED_EXEC : 0);
}

static void give_rule(struct rules *r, struct ruled_region *g, uint32_t rule)
{
    uint32_t pages = region_pages(g), *frames = region_frames(g), old = g->rule;
    uint32_t attr = rule_at(r, rule)->attr;
    bool grows = old == NONE || !(rule_at(r, old)->attr & ~attr);
    g->rule = rule;
    if (!(r->contexts[g->context]->seals & PROTECT_SEAL_WEAKEN)) /* what is used up stays so */
        atomic_store(&g->once, 0);
    rule_at(r, rule)->refs++;
    for (uint32_t i = 0; i < pages; i++) {
        if (frames[i] == NONE)
            continue;
        if (!grows)
            span_derive(r, frames[i]);
        span_tighten(r, frames[i], attr);
    }
    rule_release(r, old);
}

enum protect_status rules_set(struct rules *r, unsigned context, const struct protect_rule *array,
                              uint32_t count, uint32_t *element)
{
    struct context *c = r->contexts[context];
    uint64_t targets = 0;
    for (uint32_t i = 0; i < count; i++) {
        *element = i;
        enum protect_status status = check_rule(c, &array[i]);
        targets += array[i].count;
        if (status == PROTECT_OK && targets > PROTECT_MAX_REGIONS)
            status = PROTECT_TOO_MANY; /* one command must not keep the machine busy for ever */
        if (status == PROTECT_OK)
            status = check_targets(r, c, &array[i]);
        if (status != PROTECT_OK)
            return status;
    }
    *element = 0;
    if (!pool_reserve(&r->rules, count, sizeof(struct rule)))
        return PROTECT_NO_MEMORY;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t rule = pool_take(&r->rules, sizeof(struct rule));
        make_rule(rule_at(r, rule), &array[i]);
        rule_at(r, rule)->refs = 1; /* ours, while regions take theirs */
        for (uint32_t n = 0; n < array[i].count; n++)
            give_rule(r, region_find(r, c, array[i].region + n), rule);
        rule_release(r, rule);
    }
    return PROTECT_OK;
}

/* ---- From saved state ------------------------------------------------------------------------ */

bool ids_put(struct rules *r, struct context *c, uint32_t count)
{
    uint32_t first;
    if (!reserve_ids(r, c, count, &first))
        return false;
    take_ids(c, first, count);
    return true;
}

enum protect_status rule_put(struct rules *r, const struct protect_rule *set, uint32_t *rule)
{
    enum protect_status status = check_rule_form(set);
    if (status != PROTECT_OK)
        return status;
    if (!pool_reserve(&r->rules, 1, sizeof(struct rule)))
        return PROTECT_NO_MEMORY;
    *rule = pool_take(&r->rules, sizeof(struct rule));
    make_rule(rule_at(r, *rule), set);
    rule_at(r, *rule)->refs = 1;
    return PROTECT_OK;
}

enum protect_status region_put(struct rules *r, unsigned context, const struct protect_region *d,
                               uint32_t id, uint32_t rule, uint32_t *index)
{
    struct context *c = r->contexts[context];
    enum protect_status status = check_region(c, d);
    if (status != PROTECT_OK && status != PROTECT_NO_GRANT) /* taken away since */
        return status;
    uint32_t pages = pages_of(d->base, d->length);
    if (r->live_regions >= PROTECT_MAX_REGIONS || r->live_pages + pages > RULES_MAX_PAGES)
        return PROTECT_TOO_MANY;
    if (id >= c->id_count || c->ids[id] != NONE)
        return PROTECT_NO_REGION;
    struct batch batch = {.index = index};
    if (!pool_reserve(&r->regions, 1, sizeof(struct ruled_region)) ||
        make_region(r, context, d, &batch) != PROTECT_OK)
        return PROTECT_NO_MEMORY;
    struct ruled_region *g = region_at(r, *index);
    g->id = id;
    g->rule = rule;
    if (rule != NONE)
        rule_at(r, rule)->refs++;
    c->ids[id] = *index;
    c->live++;
    c->sorted = false;
    r->live_regions++;
    r->live_pages += pages;
    return PROTECT_OK;
}

/* ---- Moving, describing ---------------------------------------------------------------------- */

void region_move_page(struct rules *r, uint32_t index, uint32_t page, uint32_t frame)
{
    struct ruled_region *g = region_at(r, index);
    uint32_t *at = &region_frames(g)[page], old = *at;
    if (old == frame)
        return;
    if (frame != NONE &&
        (!span_reserve_head(r, frame) || !pool_reserve(&r->spans, 1, sizeof(struct span)))) {
        LOG(r->log, LOG_GUEST_ERRORS, "protection: no host memory for a page that moved\n");
        frame = NONE;
    }
    if (old != NONE)
        span_remove(r, index, page, old);
    *at = frame;
    if (frame != NONE)
        span_add(r, index, page, frame);
    if (g->rule == NONE)
        return;
    if (old != NONE)
        span_derive(r, old);
    if (frame != NONE)
        span_tighten(r, frame, rule_at(r, g->rule)->attr);
}

void region_describe(struct rules *r, struct ruled_region *g, struct protect_query *query)
{
    uint32_t pages = region_pages(g), *frames = region_frames(g);
    *query = (struct protect_query){.address = query->address,
                                    .region = g->id,
                                    .pages = pages,
                                    .base = g->base,
                                    .length = g->length,
                                    .cookie = g->cookie,
                                    .flags = g->flags};
    for (uint32_t i = 0; i < pages; i++)
        query->resolved += frames[i] != NONE;
    if (g->rule != NONE)
        query->rule = rule_at(r, g->rule)->set;
}
