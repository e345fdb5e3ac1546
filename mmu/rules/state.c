/*
 * state.c - all of the rules as records for saving, and back (rules.h, "Saving").
 *
 *     head
 *     rule...                         shared by regions, which name them by their order here
 *     context...                      each followed by
 *         event... (the ring), event... (deferred upcalls)
 *         region...                   each followed by
 *             frames...               where its pages lie, FRAMES at a time
 *         token...                    each followed by what save_upcall() says
 *
 * Records are structs of their own, so that the tables may change while what has been saved can
 * still be read. What a record says is not believed: it may come from anywhere, and is checked as a
 * command is. Derived things (spans, attributes of frames, uses) are made anew; frames are not
 * derived, because a pinned region stays with the one it had.
 */
#include "internal/error.h"
#include "internal/fields.h"
#include "table.h"
#include <stdlib.h>
#include <string.h>

enum { FRAMES = 64 };
#define NO_FRAME UINT64_MAX

/* ---- Records --------------------------------------------------------------------------------- */

#define COUNTER(name) FIELD(COUNTERS_OF, statistics.name, FIELD_U64, 1),

struct saved_head {
    uint32_t rules, contexts;
    struct protect_statistics statistics; /* of contexts that have ended */
};
static const struct field head_fields[] = {FIELD(struct saved_head, rules, FIELD_U32, 1),
                                           FIELD(struct saved_head, contexts, FIELD_U32, 1),
#define COUNTERS_OF struct saved_head
                                           PROTECT_COUNTERS(COUNTER)
#undef COUNTERS_OF
};
static const struct state_desc head_desc = STATE_DESC("rules", 1, head_fields);

/* `region` and `count` only said whom the command was about. */
static const struct field rule_fields[] = {
    FIELD_ARRAY(struct protect_rule, allow, FIELD_U8, 1),
    FIELD_ARRAY(struct protect_rule, action, FIELD_U8, 1),
    FIELD(struct protect_rule, notify, FIELD_U32, 1),
    FIELD(struct protect_rule, fault, FIELD_U8, 1),
    FIELD(struct protect_rule, marker, FIELD_U8, 1),
    FIELD(struct protect_rule, value, FIELD_U64, 1),
};
static const struct state_desc rule_desc = STATE_DESC("rules.rule", 1, rule_fields);

struct saved_context {
    uint32_t number, kind, grants, seals;
    uint64_t session;
    uint64_t cr0, cr3, cr4, efer, pdpte[4];
    uint32_t pkru;
    uint8_t maxphyaddr, nx, gib_pages, a20, masked;
    uint64_t door_gva, door_gpa;
    uint32_t ids, regions, tokens, deferred;
    struct protect_handler handler;
    uint64_t event_head, event_tail, event_lost;
    struct protect_statistics statistics;
};
#define F(member, type) FIELD(struct saved_context, member, type, 1)
static const struct field context_fields[] = {
    F(number, FIELD_U32),
    F(kind, FIELD_U32),
    F(grants, FIELD_U32),
    F(seals, FIELD_U32),
    F(session, FIELD_U64),
    F(cr0, FIELD_U64),
    F(cr3, FIELD_U64),
    F(cr4, FIELD_U64),
    F(efer, FIELD_U64),
    FIELD_ARRAY(struct saved_context, pdpte, FIELD_U64, 1),
    F(pkru, FIELD_U32),
    F(maxphyaddr, FIELD_U8),
    F(nx, FIELD_U8),
    F(gib_pages, FIELD_U8),
    F(a20, FIELD_U8),
    F(masked, FIELD_U8),
    F(door_gva, FIELD_U64),
    F(door_gpa, FIELD_U64),
    F(ids, FIELD_U32),
    F(regions, FIELD_U32),
    F(tokens, FIELD_U32),
    F(deferred, FIELD_U32),
    F(handler.rip, FIELD_U64),
    F(handler.stacks, FIELD_U32),
    F(handler.timeout_ms, FIELD_U32),
    FIELD_ARRAY(struct saved_context, handler.stack, FIELD_U64, 1),
    F(event_head, FIELD_U64),
    F(event_tail, FIELD_U64),
    F(event_lost, FIELD_U64),
#define COUNTERS_OF struct saved_context
    PROTECT_COUNTERS(COUNTER)
#undef COUNTERS_OF
};
#undef F
static const struct state_desc context_desc = STATE_DESC("rules.context", 1, context_fields);

#define F(member, type) FIELD(struct protect_event, member, type, 1)
static const struct field event_fields[] = {
    F(sequence, FIELD_U64),
    F(type, FIELD_U16),
    F(access, FIELD_U8),
    F(subject, FIELD_U8),
    F(action, FIELD_U8),
    F(flags, FIELD_U8),
    F(vcpu, FIELD_U16),
    F(region, FIELD_U32),
    F(length, FIELD_U32),
    F(cookie, FIELD_U64),
    F(gva, FIELD_U64),
    F(home, FIELD_U64),
    F(gpa, FIELD_U64),
    F(rip, FIELD_U64),
    F(cr3, FIELD_U64),
    FIELD_ARRAY(struct protect_event, value, FIELD_U64, 1),
    FIELD_ARRAY(struct protect_event, preimage, FIELD_U64, 1),
    F(time, FIELD_U64),
    F(device, FIELD_U16),
    F(cpl, FIELD_U8),
};
#undef F
static const struct state_desc event_desc = STATE_DESC("rules.event", 1, event_fields);

struct saved_region {
    uint64_t base, length, cookie;
    uint32_t flags, id, rule; /* rule: in order; NONE */
    uint8_t once;
};
static const struct field region_fields[] = {
    FIELD(struct saved_region, base, FIELD_U64, 1),
    FIELD(struct saved_region, length, FIELD_U64, 1),
    FIELD(struct saved_region, cookie, FIELD_U64, 1),
    FIELD(struct saved_region, flags, FIELD_U32, 1),
    FIELD(struct saved_region, id, FIELD_U32, 1),
    FIELD(struct saved_region, rule, FIELD_U32, 1),
    FIELD(struct saved_region, once, FIELD_U8, 1),
};
static const struct state_desc region_desc = STATE_DESC("rules.region", 1, region_fields);

struct saved_frames {
    uint64_t gpa[FRAMES]; /* NO_FRAME: the page has none */
};
static const struct field frames_fields[] = {FIELD_ARRAY(struct saved_frames, gpa, FIELD_U64, 1)};
static const struct state_desc frames_desc = STATE_DESC("rules.frames", 1, frames_fields);

struct saved_token {
    uint64_t value, deadline;
    uint32_t slot, stack; /* NONE: the thread's own */
};
static const struct field token_fields[] = {
    FIELD(struct saved_token, value, FIELD_U64, 1),
    FIELD(struct saved_token, deadline, FIELD_U64, 1),
    FIELD(struct saved_token, slot, FIELD_U32, 1),
    FIELD(struct saved_token, stack, FIELD_U32, 1),
};
static const struct state_desc token_desc = STATE_DESC("rules.token", 1, token_fields);

/* ---- Saving ---------------------------------------------------------------------------------- */

struct saving {
    struct rules *rules;
    rules_record_fn *put;
    void *opaque;
    uint32_t *order; /* of rules, by index; NONE: not in use */
    uint32_t rule_count;
};

/* Puts the rules that regions have, each once. */
static bool save_rules(struct saving *s)
{
    struct rules *r = s->rules;
    for (unsigned i = 0; i < RULES_CONTEXTS; i++) {
        const struct context *c = r->contexts[i];
        for (uint32_t id = 0; c && id < c->id_count; id++) {
            const struct ruled_region *g = region_find(r, c, id);
            if (!g || g->rule == NONE || s->order[g->rule] != NONE)
                continue;
            struct protect_rule set = rule_at(r, g->rule)->set;
            s->order[g->rule] = s->rule_count++;
            if (!s->put(s->opaque, &rule_desc, &set))
                return false;
        }
    }
    return true;
}

static uint32_t count_rules(const struct rules *r)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < r->rules.count; i++)
        n += rule_at(r, i)->refs != 0;
    return n;
}

static bool save_region(struct saving *s, struct ruled_region *g)
{
    struct saved_region record = {.base = g->base,
                                  .length = g->length,
                                  .cookie = g->cookie,
                                  .flags = g->flags,
                                  .id = g->id,
                                  .rule = g->rule == NONE ? NONE : s->order[g->rule],
                                  .once = atomic_load(&g->once)};
    uint32_t pages = region_pages(g);
    const uint32_t *frames = region_frames(g);
    if (!s->put(s->opaque, &region_desc, &record))
        return false;
    for (uint32_t i = 0; i < pages; i += FRAMES) {
        struct saved_frames some;
        for (uint32_t n = 0; n < FRAMES; n++)
            if (i + n >= pages || frames[i + n] == NONE ||
                !phys_frame_gpas(s->rules->map, frames[i + n], &some.gpa[n], 1))
                some.gpa[n] = NO_FRAME;
        if (!s->put(s->opaque, &frames_desc, &some))
            return false;
    }
    return true;
}

static bool save_token(struct saving *s, const struct context *c, uint32_t slot)
{
    const struct token *t = &c->token[slot];
    const struct rules_hooks *h = &s->rules->hooks;
    struct saved_token record = {
        .value = t->value, .deadline = t->deadline, .slot = slot, .stack = t->stack};
    return s->put(s->opaque, &token_desc, &record) && h->save_upcall &&
           h->save_upcall(t->state, s->put, s->opaque);
}

static bool save_lists(struct saving *s, struct context *c)
{
    for (unsigned i = 0; i < PROTECT_EVENTS; i++)
        if (!s->put(s->opaque, &event_desc, &c->ring[i]))
            return false;
    for (unsigned i = 0; i < c->deferred_count; i++)
        if (!s->put(s->opaque, &event_desc, &c->deferred[(c->deferred_first + i) % RULES_DEFERRED]))
            return false;
    for (uint32_t id = 0; id < c->id_count; id++)
        if (c->ids[id] != NONE && !save_region(s, region_at(s->rules, c->ids[id])))
            return false;
    for (uint32_t i = 0; i < PROTECT_MAX_LIVE; i++)
        if (c->token[i].value && !save_token(s, c, i))
            return false;
    return true;
}

static bool save_context(struct saving *s, unsigned number, struct context *c)
{
    const struct paging *p = &c->paging;
    struct saved_context record = {.number = number,
                                   .kind = c->kind,
                                   .grants = c->grants,
                                   .seals = c->seals,
                                   .session = c->session,
                                   .cr0 = p->cr0,
                                   .cr3 = p->cr3,
                                   .cr4 = p->cr4,
                                   .efer = p->efer,
                                   .pkru = p->pkru,
                                   .maxphyaddr = p->maxphyaddr,
                                   .nx = p->nx,
                                   .gib_pages = p->gib_pages,
                                   .a20 = p->a20,
                                   .masked = c->masked,
                                   .door_gva = c->door_gva,
                                   .door_gpa = c->door_gpa,
                                   .ids = c->id_count,
                                   .regions = c->live,
                                   .tokens = c->live_tokens,
                                   .deferred = c->deferred_count,
                                   .handler = c->handler,
                                   .event_head = c->event_head,
                                   .event_tail = c->event_tail,
                                   .event_lost = c->event_lost,
                                   .statistics = c->statistics};
    memcpy(record.pdpte, p->pdpte, sizeof record.pdpte);
    return s->put(s->opaque, &context_desc, &record) && save_lists(s, c);
}

static bool save_all(struct saving *s)
{
    struct rules *r = s->rules;
    struct saved_head head = {.rules = count_rules(r), .statistics = r->total};
    for (unsigned i = 0; i < RULES_CONTEXTS; i++)
        head.contexts += r->contexts[i] != NULL;
    if (!s->put(s->opaque, &head_desc, &head) || !save_rules(s))
        return false;
    for (unsigned i = 0; i < RULES_CONTEXTS; i++)
        if (r->contexts[i] && !save_context(s, i, r->contexts[i]))
            return false;
    return true;
}

/* What DMA has done to tables is acted on first, so that it need not be saved. */
bool rules_save(struct rules *r, rules_record_fn *put, void *opaque)
{
    follow_dirty(r);
    struct saving s = {r, put, opaque, malloc((r->rules.count + 1ull) * sizeof *s.order), 0};
    if (!s.order)
        return false;
    memset(s.order, 0xff, (r->rules.count + 1ull) * sizeof *s.order);
    bool ok = save_all(&s);
    free(s.order);
    return ok;
}

/* ---- Restoring ------------------------------------------------------------------------------- */

struct restoring {
    struct rules *rules;
    rules_record_fn *get;
    void *opaque;
    uint32_t *rule; /* indices, in the records' order */
    uint32_t rule_count, rule_room;
    struct error *err;
};

static bool get(struct restoring *s, const struct state_desc *desc, void *record, size_t size)
{
    memset(record, 0, size);
    return s->get(s->opaque, desc, record) ||
           error_set(s->err, "the protection rules: a record \"%s\" cannot be read", desc->name);
}
#define GET(s, desc, record) get(s, &(desc), &(record), sizeof(record))

static bool refuse(struct restoring *s, const struct state_desc *desc, enum protect_status why)
{
    return error_set(s->err, "the protection rules: a record \"%s\" is wrong: %s", desc->name,
                     rules_status_text(why));
}

static bool restore_rules(struct restoring *s, uint32_t count)
{
    while (s->rule_count < count) {
        struct protect_rule set;
        if (s->rule_count == s->rule_room) { /* as they come: the count may be anything */
            uint32_t room = s->rule_room ? 2 * s->rule_room : 64;
            uint32_t *more = realloc(s->rule, room * sizeof *more);
            if (!more)
                return refuse(s, &rule_desc, PROTECT_NO_MEMORY);
            s->rule = more;
            s->rule_room = room;
        }
        if (!GET(s, rule_desc, set))
            return false;
        enum protect_status status = rule_put(s->rules, &set, &s->rule[s->rule_count]);
        if (status != PROTECT_OK)
            return refuse(s, &rule_desc, status);
        s->rule_count++;
    }
    return true;
}

static bool restore_frames(struct restoring *s, uint32_t index, struct cursor *cursor)
{
    uint32_t pages = region_pages(region_at(s->rules, index));
    for (uint32_t i = 0; i < pages; i += FRAMES) {
        struct saved_frames some;
        if (!GET(s, frames_desc, some))
            return false;
        for (uint32_t n = 0; n < FRAMES && i + n < pages; n++) {
            uint32_t frame;
            if (some.gpa[n] == NO_FRAME)
                continue;
            if (some.gpa[n] & ~PAGE_MASK ||
                cursor_physical(cursor, some.gpa[n], &frame) != RESOLVED)
                return refuse(s, &frames_desc, PROTECT_NOT_MEMORY);
            region_move_page(s->rules, index, i + n, frame);
            if (region_frames(region_at(s->rules, index))[i + n] != frame)
                return refuse(s, &frames_desc, PROTECT_NO_MEMORY);
        }
    }
    return true;
}

static bool restore_region(struct restoring *s, unsigned number, struct cursor *cursor)
{
    struct saved_region record;
    uint32_t index, rule = NONE;
    if (!GET(s, region_desc, record))
        return false;
    if (record.rule != NONE) {
        if (record.rule >= s->rule_count)
            return refuse(s, &region_desc, PROTECT_BAD_ARGUMENT);
        rule = s->rule[record.rule];
    }
    const struct protect_region d = {.base = record.base,
                                     .length = record.length,
                                     .flags = record.flags,
                                     .cookie = record.cookie};
    enum protect_status status = region_put(s->rules, number, &d, record.id, rule, &index);
    if (status != PROTECT_OK)
        return refuse(s, &region_desc, status);
    atomic_store(&region_at(s->rules, index)->once, record.once);
    return restore_frames(s, index, cursor);
}

static bool restore_token(struct restoring *s, struct context *c)
{
    struct saved_token record;
    const struct rules_hooks *h = &s->rules->hooks;
    if (!GET(s, token_desc, record))
        return false;
    bool own = record.stack == NONE;
    if (record.slot >= PROTECT_MAX_LIVE || c->token[record.slot].value || !record.value ||
        (!own && (record.stack >= c->handler.stacks || c->stacks_busy >> record.stack & 1)))
        return refuse(s, &token_desc, PROTECT_BAD_TOKEN);
    void *state = h->restore_upcall ? h->restore_upcall(s->get, s->opaque) : NULL;
    if (!state)
        return error_set(s->err, "the protection rules: an upcall cannot be restored");
    c->token[record.slot] = (struct token){
        .value = record.value, .state = state, .deadline = record.deadline, .stack = record.stack};
    if (!own)
        c->stacks_busy |= 1u << record.stack;
    c->live_tokens++;
    return true;
}

static bool restore_lists(struct restoring *s, struct context *c, const struct saved_context *from)
{
    struct cursor cursor;
    for (unsigned i = 0; i < PROTECT_EVENTS; i++)
        if (!GET(s, event_desc, c->ring[i]))
            return false;
    for (unsigned i = 0; i < from->deferred; i++) {
        if (!GET(s, event_desc, c->deferred[i]))
            return false;
        c->deferred_count++;
        atomic_fetch_add(&s->rules->deferred_waiting, 1);
    }
    cursor_init(&cursor, s->rules, from->number);
    for (uint32_t i = 0; i < from->regions; i++)
        if (!restore_region(s, from->number, &cursor))
            return false;
    for (uint32_t i = 0; i < from->tokens; i++)
        if (!restore_token(s, c))
            return false;
    return true;
}

static enum protect_status check_context(const struct rules *r, const struct saved_context *from)
{
    bool host = from->number >= PROTECT_DOORS, user = from->kind == RULES_USER;
    if (from->number >= RULES_CONTEXTS || from->kind == RULES_FREE || from->kind > RULES_HOST ||
        host != (from->kind == RULES_HOST) || !from->session)
        return PROTECT_BAD_ARGUMENT;
    if (r->contexts[from->number])
        return PROTECT_BUSY;
    if (from->grants & ~PROTECT_GRANT_ALL || from->seals & ~PROTECT_SEAL_ALL)
        return PROTECT_BAD_FLAGS;
    if (from->maxphyaddr < 32 || from->maxphyaddr > 52 || from->ids > RULES_MAX_IDS ||
        from->regions > from->ids)
        return PROTECT_TOO_MANY;
    if (!handler_is_possible(&from->handler) || (from->handler.rip && !user) ||
        (!from->handler.rip && from->deferred) || from->deferred > RULES_DEFERRED ||
        from->tokens > PROTECT_MAX_LIVE)
        return PROTECT_BAD_HANDLER;
    if (from->event_head - from->event_tail > PROTECT_EVENTS)
        return PROTECT_BAD_RANGE;
    if (user && (!from->door_gpa || (from->door_gva | from->door_gpa) & ~PAGE_MASK))
        return PROTECT_NOT_MAPPED;
    return PROTECT_OK;
}

static struct context *make_context(const struct saved_context *from)
{
    struct context *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->kind = (enum rules_kind)from->kind;
    c->grants = from->grants;
    c->seals = from->seals;
    c->session = from->session;
    c->paging = (struct paging){.cr0 = from->cr0,
                                .cr3 = from->cr3,
                                .cr4 = from->cr4,
                                .efer = from->efer,
                                .pkru = from->pkru,
                                .maxphyaddr = from->maxphyaddr,
                                .nx = from->nx,
                                .gib_pages = from->gib_pages,
                                .a20 = from->a20};
    memcpy(c->paging.pdpte, from->pdpte, sizeof c->paging.pdpte);
    c->door_gva = from->door_gva;
    c->door_gpa = from->door_gpa;
    c->uses = NONE;
    c->handler = from->handler;
    c->masked = from->masked;
    c->event_head = from->event_head;
    c->event_tail = from->event_tail;
    c->event_lost = from->event_lost;
    c->statistics = from->statistics;
    return c;
}

static bool restore_context(struct restoring *s)
{
    struct rules *r = s->rules;
    struct saved_context from;
    if (!GET(s, context_desc, from))
        return false;
    enum protect_status status = check_context(r, &from);
    if (status != PROTECT_OK)
        return refuse(s, &context_desc, status);
    struct context *c = make_context(&from);
    if (!c || !ids_put(r, c, from.ids)) {
        free(c);
        return refuse(s, &context_desc, PROTECT_NO_MEMORY);
    }
    r->contexts[from.number] = c;
    if (c->kind == RULES_USER)
        atomic_fetch_add(&r->users, 1);
    return restore_lists(s, c, &from);
}

/* Not as at a reset: what was protected is not there any more. */
static void forget_everything(struct rules *r)
{
    for (unsigned i = 0; i < RULES_CONTEXTS; i++) {
        if (!r->contexts[i])
            continue;
        r->contexts[i]->seals = 0;
        context_end(r, i);
    }
    memset(&r->total, 0, sizeof r->total);
}

bool rules_restore(struct rules *r, rules_record_fn *get_, void *opaque, struct error *err)
{
    struct restoring s = {.rules = r, .get = get_, .opaque = opaque, .err = err};
    struct saved_head head;
    follow_dirty(r);
    forget_everything(r);
    bool ok = GET(&s, head_desc, head) && restore_rules(&s, head.rules);
    for (uint32_t i = 0; ok && i < head.contexts; i++)
        ok = restore_context(&s);
    for (uint32_t i = 0; i < s.rule_count; i++)
        rule_release(r, s.rule[i]);
    free(s.rule);
    if (!ok) {
        forget_everything(r);
        return false;
    }
    r->total = head.statistics;
    for (unsigned i = 0; i < RULES_CONTEXTS; i++)
        if (r->contexts[i])
            follow_restored(r, i);
    return true;
}
