/*
 * judge.c - the question "may this access happen", asked of all contexts at once.
 *
 * An access is cut into pages; the spans of each page's frame say which of its bytes belong to
 * which region; a region's rule says what the subject may do. Of each context that objects, the
 * lowest byte that it objects to is named in its event, and the strictest of its rules speaks for
 * it; of all contexts the strictest wins, among equals the lowest (protect.h, enum protect_action).
 */
#include "../view.h"
#include "table.h"
#include <string.h>

/* ---- Who is it ------------------------------------------------------------------------------- */

/* PROTECT_SUBJECTS: nobody that rules speak of (the machine itself, before the guest runs). */
static enum protect_subject subject_for(const struct context *c, const struct access *a)
{
    switch (a->initiator) {
    case INITIATOR_VCPU_USER:
        return c->kind == RULES_USER && context_is_root(c, a->cr3) ? PROTECT_OWNER
                                                                   : PROTECT_OTHER_USER;
    case INITIATOR_VCPU_KERNEL:
        return c->kind == RULES_SUPERVISOR ? PROTECT_OWNER : PROTECT_KERNEL;
    case INITIATOR_WALKER:
        return PROTECT_WALKER;
    case INITIATOR_EVENT:
        return PROTECT_EVENT;
    case INITIATOR_DMA:
        return PROTECT_DEVICE;
    case INITIATOR_HOST:
        return PROTECT_HOST;
    case INITIATOR_DEBUGGER:
        return PROTECT_DEBUGGER;
    default:
        return PROTECT_SUBJECTS;
    }
}

/* ---- Looking --------------------------------------------------------------------------------- */

/* One overlap of an access with a region that forbids it. */
struct objection {
    uint32_t region;
    enum protect_subject subject;
    enum protect_action action;
    uint64_t offset; /* of its first byte, from the start of the access */
    uint64_t length; /* bytes from there on */
    uint64_t gpa;
    uint32_t page; /* of the region */
    uint16_t at;   /* first byte, in the page */
};
/* False ends the search. */
typedef bool objection_fn(void *opaque, const struct objection *o);

static enum protect_action action_of(const struct ruled_region *g, const struct rule *rule,
                                     enum protect_subject subject)
{
    enum protect_action action = rule->set.action[subject];
    if (action == PROTECT_ALLOW_ONCE && atomic_load(&g->once) >> subject & 1)
        return PROTECT_DENY;
    return action;
}

/* What of the access lies in this frame: bytes lo..hi of it, `offset` bytes into the access. */
static bool search_frame(struct rules *r, const struct access *access, uint8_t kind, uint32_t frame,
                         uint64_t gpa, uint16_t lo, uint16_t hi, uint64_t offset, objection_fn *fn,
                         void *opaque)
{
    for (uint32_t i = span_first(r, frame); i != NONE;) {
        const struct span *s = span_at(r, i);
        i = s->next;
        if (s->hi < lo || s->lo > hi)
            continue;
        const struct ruled_region *g = region_at(r, s->region);
        if (g->rule == NONE)
            continue;
        const struct rule *rule = rule_at(r, g->rule);
        if (!(rule->forbids & kind))
            continue;
        enum protect_subject subject = subject_for(r->contexts[g->context], access);
        if (subject == PROTECT_SUBJECTS || !(kind & ~rule->set.allow[subject]))
            continue;
        uint16_t from = s->lo > lo ? s->lo : lo, to = s->hi < hi ? s->hi : hi;
        const struct objection o = {.region = s->region,
                                    .subject = subject,
                                    .action = action_of(g, rule, subject),
                                    .offset = offset + (from - lo),
                                    .length = to - from + 1u,
                                    .gpa = (gpa & PAGE_MASK) + from,
                                    .page = s->page,
                                    .at = from};
        if (!fn(opaque, &o))
            return false;
    }
    return true;
}

static bool search(struct rules *r, const struct access *access, uint8_t kind, uint64_t gpa,
                   uint64_t len, uint64_t offset, objection_fn *fn, void *opaque)
{
    struct phys_range own = PHYS_RANGE_INIT, *range = view_near(r->map, access, gpa, &own);
    while (len) {
        uint64_t in_page = PAGE_SIZE - (gpa & ~PAGE_MASK), n = len < in_page ? len : in_page;
        phys_find(r->map, gpa, range);
        if (range_is_memory(range) &&
            atomic_load_explicit(&range_frame(range, gpa)->attr, memory_order_relaxed) &
                FRAME_RULED) {
            uint16_t lo = gpa & ~PAGE_MASK;
            if (!search_frame(r, access, kind, range_frame_number(range, gpa), gpa, lo,
                              (uint16_t)(lo + n - 1), offset, fn, opaque))
                return false;
        }
        gpa += n;
        len -= n;
        offset += n;
    }
    return true;
}

static bool stop_at_first(void *opaque, const struct objection *o)
{
    (void)o;
    *(bool *)opaque = true;
    return false;
}

bool rules_touches(struct rules *r, const struct access *access, uint64_t gpa, uint64_t len,
                   uint8_t kind)
{
    bool found = false;
    search(r, access, kind, gpa, len, 0, stop_at_first, &found);
    return found;
}

/* ---- Judging --------------------------------------------------------------------------------- */

enum { PREIMAGE = sizeof((struct protect_event *)0)->preimage };

/* What one context has to say. */
struct opinion {
    unsigned context;
    struct objection lowest;
    uint32_t strictest; /* region */
    enum protect_action action;
};
struct trial {
    struct rules *rules;
    const struct rules_set *decided;
    unsigned count;
    struct opinion opinion[RULES_CONTEXTS]; /* the first `count` are in use */
};

static uint32_t id_of(const struct rules *r, const struct objection *o)
{
    return region_at(r, o->region)->id;
}

/* Among equals the region with the lowest id speaks. */
static bool hear(void *opaque, const struct objection *o)
{
    struct trial *t = opaque;
    unsigned context = region_at(t->rules, o->region)->context, i = 0;
    if (rules_set_has(t->decided, context))
        return true;
    while (i < t->count && t->opinion[i].context != context)
        i++;
    struct opinion *op = &t->opinion[i];
    if (i == t->count) {
        t->count++;
        *op = (struct opinion){context, *o, o->region, o->action};
        return true;
    }
    if (o->offset < op->lowest.offset ||
        (o->offset == op->lowest.offset && id_of(t->rules, o) < id_of(t->rules, &op->lowest)))
        op->lowest = *o;
    if (o->action < op->action || (o->action == op->action && o->region != op->strictest &&
                                   id_of(t->rules, o) < region_at(t->rules, op->strictest)->id)) {
        op->action = o->action;
        op->strictest = o->region;
    }
    return true;
}

static const struct opinion *strictest(const struct trial *t)
{
    const struct opinion *best = &t->opinion[0];
    for (unsigned i = 1; i < t->count; i++) {
        const struct opinion *o = &t->opinion[i];
        if (o->action < best->action || (o->action == best->action && o->context < best->context))
            best = o;
    }
    return best;
}

/* Where a byte of a region's page is at home: its address as the region was named. */
static uint64_t home_of(const struct ruled_region *g, const struct objection *o)
{
    return (g->base & PAGE_MASK) + ((uint64_t)o->page << PAGE_SHIFT) + o->at;
}

/* Up to `most` bytes of the access as they are now, from `offset` bytes into it on. */
static uint8_t read_preimage(struct rules *r, const struct rules_check *check, uint64_t offset,
                             uint64_t most, uint8_t preimage[PREIMAGE])
{
    struct access own = *check->access;
    uint64_t done = 0;
    own.judged = true;
    memset(preimage, 0, PREIMAGE);
    for (unsigned i = 0; i < check->pieces && done < most; i++) {
        uint64_t len = check->piece[i].len;
        if (offset >= len) {
            offset -= len;
            continue;
        }
        uint64_t n = len - offset < most - done ? len - offset : most - done;
        phys_read(r->map, &own, check->piece[i].gpa + offset, preimage + done, n);
        done += n;
        offset = 0;
    }
    return PROTECT_EVENT_PREIMAGE;
}

/* What a context may see of another subject's access without a grant: bytes of its region, not
 * those behind it, which may be somebody else's memory. */
static uint64_t preimage_length(const struct protect_event *e, const struct objection *o)
{
    return e->flags & PROTECT_EVENT_HIDDEN && o->length < PREIMAGE ? o->length : PREIMAGE;
}

static uint64_t access_length(const struct rules_check *check)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < check->pieces; i++)
        n += check->piece[i].len;
    return n;
}

static struct protect_event describe(struct rules *r, const struct rules_check *check,
                                     const struct opinion *o, enum protect_action action)
{
    const struct access *a = check->access;
    const struct ruled_region *g = region_at(r, o->lowest.region);
    const struct context *c = r->contexts[o->context];
    uint64_t length = access_length(check), left = length - o->lowest.offset;
    struct protect_event e = {
        .type = PROTECT_EVENT_ACCESS,
        .access = check->kind,
        .subject = (uint8_t)o->lowest.subject,
        .action = (uint8_t)action,
        .region = g->id,
        .length = (uint32_t)length,
        .cookie = g->cookie,
        .home = home_of(g, &o->lowest),
        .cpl = a->cpl,
    };
    if (a->initiator <= INITIATOR_EVENT)
        e.vcpu = a->vcpu;
    if (a->initiator == INITIATOR_DMA)
        e.device = a->device;
    if (c->grants & PROTECT_GRANT_PHYSICAL)
        e.gpa = o->lowest.gpa;
    if (o->lowest.subject != PROTECT_OWNER && !(c->grants & PROTECT_GRANT_OBSERVE)) {
        e.flags = PROTECT_EVENT_HIDDEN;
        return e;
    }
    if (a->initiator <= INITIATOR_EVENT) {
        e.rip = a->rip;
        e.cr3 = a->cr3;
    }
    if (check->has_gva) {
        e.gva = check->gva + o->lowest.offset;
        e.flags |= PROTECT_EVENT_HAS_GVA;
    }
    if (check->value) {
        memcpy(e.value, (const char *)check->value + o->lowest.offset, left < 16 ? left : 16);
        e.flags |= PROTECT_EVENT_VALUE;
    }
    return e;
}

/* Marks what the access uses up. */
static bool use_once(void *opaque, const struct objection *o)
{
    struct rules *r = opaque;
    if (o->action == PROTECT_ALLOW_ONCE)
        atomic_fetch_or(&region_at(r, o->region)->once, (uint8_t)(1u << o->subject));
    return true;
}

static void search_all(struct rules *r, const struct rules_check *check, objection_fn *fn,
                       void *opaque)
{
    uint64_t offset = 0;
    for (unsigned i = 0; i < check->pieces; i++) {
        search(r, check->access, check->kind, check->piece[i].gpa, check->piece[i].len, offset, fn,
               opaque);
        offset += check->piece[i].len;
    }
}

/* Of two vCPUs that have both found PROTECT_ALLOW_ONCE unused, one gets it. False: another was
 * faster; then the judgement is another one. */
static bool claim_once(struct rules *r, const struct rules_check *check, const struct trial *t)
{
    bool ours = true;
    pthread_mutex_lock(&r->lock);
    for (unsigned i = 0; i < t->count; i++) {
        const struct ruled_region *g = region_at(r, t->opinion[i].strictest);
        ours &=
            action_of(g, rule_at(r, g->rule), t->opinion[i].lowest.subject) >= t->opinion[i].action;
    }
    if (ours)
        search_all(r, check, use_once, r);
    pthread_mutex_unlock(&r->lock);
    return ours;
}

/* Who cannot be asked, has refused: an upcall needs a handler, and so does a question to outside.
 */
static enum protect_action possible(struct rules *r, bool nobody, const struct opinion *o)
{
    bool upcall = o->action == PROTECT_UPCALL, ask = o->action == PROTECT_ASK_HOST;
    if ((upcall && (nobody || !r->contexts[o->context]->handler.rip)) ||
        (ask && (nobody || !r->hooks.ask || !r->hooks.can_ask ||
                 !r->hooks.can_ask(r->hooks.opaque, o->context))))
        return PROTECT_DENY;
    return o->action;
}

enum { ASK_TIMEOUT_MS = 1000 };

bool rules_ask(struct rules *r, const struct rules_verdict *verdict, enum protect_verdict *answer,
               uint64_t *value)
{
    return r->hooks.ask && r->hooks.ask(r->hooks.opaque, verdict->context, &verdict->event,
                                        ASK_TIMEOUT_MS, answer, value);
}

/* The winner's context is told, and all others that objected. */
static void tell(struct rules *r, const struct rules_check *check, const struct trial *t,
                 struct rules_verdict *v)
{
    for (unsigned i = 0; i < t->count; i++) {
        const struct opinion *o = &t->opinion[i];
        uint32_t notify = rule_at(r, region_at(r, o->strictest)->rule)->set.notify;
        struct protect_event event = describe(r, check, o, v->action);
        bool again = rules_set_has(&check->told, o->context);
        if (notify & PROTECT_NOTIFY_PREIMAGE && check->kind & PROTECT_WRITE)
            event.flags |=
                read_preimage(r, check, o->lowest.offset, preimage_length(&event, &o->lowest),
                              (uint8_t *)event.preimage);
        v->notify |= notify;
        if (!again)
            event_append(r, o->context, &event, notify);
        if (o->context == v->context)
            v->event = event;
    }
}

/* What everybody has to say; NULL: nothing. Else who wins. */
static const struct opinion *hear_all(struct rules *r, const struct rules_check *check, bool nobody,
                                      struct trial *t)
{
    t->rules = r;
    t->decided = &check->decided;
    t->count = 0;
    search_all(r, check, hear, t);
    for (unsigned i = 0; i < t->count; i++)
        t->opinion[i].action = possible(r, nobody, &t->opinion[i]);
    return t->count ? strictest(t) : NULL;
}

static void fill_verdict(struct rules *r, const struct rules_check *check, const struct trial *t,
                         const struct opinion *won, struct rules_verdict *v)
{
    v->objectors = (struct rules_set){{0}};
    for (unsigned i = 0; i < t->count; i++)
        rules_set_add(&v->objectors, t->opinion[i].context);
    const struct ruled_region *g = region_at(r, won->lowest.region);
    const struct protect_rule *rule = &rule_at(r, region_at(r, won->strictest)->rule)->set;
    v->action = won->action;
    v->objected = true;
    v->context = won->context;
    v->region = g->id;
    v->cookie = g->cookie;
    v->offset = won->lowest.offset;
    v->gva = check->gva + won->lowest.offset;
    v->home = home_of(g, &won->lowest);
    v->subject = (uint8_t)won->lowest.subject;
    v->fault = rule->fault;
    v->marker = rule->marker;
    v->value = rule->value;
    if (check->kind & PROTECT_WRITE)
        read_preimage(r, check, won->lowest.offset, PREIMAGE, v->preimage);
}

/* Of the same context, and for the same to answer. */
static bool same_question(const struct opinion *a, const struct opinion *b)
{
    return a->context == b->context && a->action == b->action;
}

/* Preparing may have waited for other vCPUs: then what was heard may not hold any more, and is
 * heard again. That it is somebody else who would have to be asked now is not worth a second time.
 */
void rules_judge(struct rules *r, const struct rules_check *check, struct rules_verdict *v)
{
    struct trial trial;
    bool nobody = check->nobody_to_ask, prepared = !check->prepare;
    struct opinion asked = {.context = RULES_CONTEXTS};
    for (;;) {
        const struct opinion *won = hear_all(r, check, nobody, &trial);
        *v = (struct rules_verdict){.action = PROTECT_ALLOW};
        if (!won)
            return;
        bool asks = won->action == PROTECT_UPCALL || won->action == PROTECT_ASK_HOST;
        if (won->action == PROTECT_ALLOW_ONCE && !claim_once(r, check, &trial))
            continue;
        fill_verdict(r, check, &trial, won, v);
        if (asks && prepared && check->prepare && !same_question(won, &asked)) {
            nobody = true;
        } else if (asks && !prepared) {
            uint64_t generation = rules_generation(r);
            prepared = true;
            asked = *won;
            nobody = !check->prepare(check->opaque, v);
            if (!nobody && generation == rules_generation(r))
                break;
        } else {
            break;
        }
    }
    tell(r, check, &trial, v);
}

/* ---- Byte masks ------------------------------------------------------------------------------ */

struct masking {
    struct rules *rules;
    unsigned context;
    uint8_t *mask;
};

static bool mask_bytes(void *opaque, const struct objection *o)
{
    struct masking *m = opaque;
    if (region_at(m->rules, o->region)->context == m->context && o->action < PROTECT_ALLOW_ONCE)
        memset(m->mask + o->offset, 1, o->length);
    return true;
}

void rules_mask(struct rules *r, const struct rules_check *check, unsigned context, uint8_t *mask)
{
    struct masking m = {r, context, mask};
    memset(mask, 0, access_length(check));
    search_all(r, check, mask_bytes, &m);
}
