/*
 * follow.c - from a region's virtual addresses to frames, and staying right when the guest maps
 * something else there (PROTECTION: "FOLLOW", "PIN").
 *
 * Every page-table frame that was read on the way becomes a *use*: "this frame, read as a table of
 * this level, translates addresses from `base` on for this context". The frame gets RULED_TABLE, so
 * stores to it go slow, and the storing instruction moves the rules before it retires
 * (rules_table_written(), called by cpu/guard.c with every vCPU parked). It is the same idea as
 * mmu/trace.c, with one difference: a view may forget, a rule may not.
 */
#include "../view.h"
#include "table.h"
#include <stdlib.h>
#include <string.h>

enum { USE_HASH_BITS = 14 };

/* The monitor's own reading of the guest's tables: no rule is asked. */
static const struct access own = {.initiator = INITIATOR_WALKER, .judged = true};

/* ---- Uses ------------------------------------------------------------------------------------ */

static uint32_t *bucket(struct rules *r, uint32_t frame)
{
    return &r->use_hash[(frame * 0x9e3779b1u) >> (32 - USE_HASH_BITS)];
}

bool follow_init(struct rules *r)
{
    r->use_hash = malloc(sizeof(uint32_t) << USE_HASH_BITS);
    if (r->use_hash)
        memset(r->use_hash, 0xff, sizeof(uint32_t) << USE_HASH_BITS);
    return r->use_hash != NULL;
}

static uint32_t find_use(struct rules *r, unsigned context, uint32_t frame, unsigned level,
                         uint64_t base)
{
    uint32_t i = *bucket(r, frame);
    while (i != NONE) {
        const struct use *u = use_at(r, i);
        if (u->frame == frame && u->context == context && u->level == level && u->base == base)
            return i;
        i = u->hash_next;
    }
    return NONE;
}

/* False: out of host memory, or the same table at too many places. */
static bool add_use(struct rules *r, unsigned context, uint32_t frame, unsigned level,
                    uint64_t base)
{
    struct context *c = r->contexts[context];
    if (!pool_reserve(&r->uses, 1, sizeof(struct use)))
        return false;
    uint32_t i = pool_take(&r->uses, sizeof(struct use)), *chain = bucket(r, frame);
    *use_at(r, i) = (struct use){.base = base,
                                 .frame = frame,
                                 .hash_next = *chain,
                                 .context_next = c->uses,
                                 .context_prev = NONE,
                                 .context = (uint16_t)context,
                                 .level = (uint8_t)level};
    if (c->uses != NONE)
        use_at(r, c->uses)->context_prev = i;
    c->uses = i;
    *chain = i;
    span_tighten(r, frame, FRAME_RULED_TABLE);
    return true;
}

static void drop_use(struct rules *r, uint32_t index)
{
    struct use *u = use_at(r, index);
    uint32_t frame = u->frame, *link = bucket(r, frame);
    bool others = false;
    while (*link != index)
        link = &use_at(r, *link)->hash_next;
    *link = u->hash_next;
    if (u->context_next != NONE)
        use_at(r, u->context_next)->context_prev = u->context_prev;
    if (u->context_prev != NONE)
        use_at(r, u->context_prev)->context_next = u->context_next;
    else
        r->contexts[u->context]->uses = u->context_next;
    pool_give(&r->uses, index, sizeof(struct use));
    for (uint32_t i = *bucket(r, frame); i != NONE; i = use_at(r, i)->hash_next)
        others |= use_at(r, i)->frame == frame;
    if (!others)
        atomic_fetch_and(&frame_by_number(r->map, frame)->attr, ~(uint32_t)FRAME_RULED_TABLE);
}

void uses_drop_context(struct rules *r, unsigned context)
{
    while (r->contexts[context]->uses != NONE)
        drop_use(r, r->contexts[context]->uses);
}

/* ---- Resolving ------------------------------------------------------------------------------- */

void cursor_init(struct cursor *c, struct rules *r, unsigned context)
{
    *c = (struct cursor){.rules = r, .context = context};
    c->range = c->entries = (struct phys_range)PHYS_RANGE_INIT;
}

static unsigned shift_of(enum paging_mode mode, unsigned level)
{
    return PAGE_SHIFT + (level - 1) * paging_index_bits(mode);
}

/* What a table of this level translates: `bits` of the address. */
static uint64_t table_base(enum paging_mode mode, unsigned level, uint64_t gva)
{
    unsigned bits_ = shift_of(mode, level) + paging_index_bits(mode);
    return bits_ >= 64 ? 0 : gva & (~0ull << bits_);
}

/* False: there is no memory for all of them. */
static bool note_tables(struct cursor *c, const struct walk *walk, bool *news)
{
    struct rules *r = c->rules;
    enum paging_mode mode = paging_mode(&r->contexts[c->context]->paging);
    for (unsigned i = 0; i < walk->levels; i++) {
        const struct walk_level *at = &walk->level[i];
        if (mode == PAGING_PAE && at->level == 3)
            continue; /* in registers: MOV CR3 loads them, stores do not count */
        phys_find(r->map, at->gpa, &c->entries);
        if (!range_is_memory(&c->entries))
            continue;
        uint32_t frame = range_frame_number(&c->entries, at->gpa);
        uint64_t base = table_base(mode, at->level, walk->gva);
        if (find_use(r, c->context, frame, at->level, base) != NONE)
            continue;
        if (!add_use(r, c->context, frame, at->level, base))
            return false;
        *news = true;
    }
    return true;
}

enum resolved cursor_physical(struct cursor *c, uint64_t gpa, uint32_t *frame)
{
    phys_find(c->rules->map, gpa, &c->range);
    if (!range_is_memory(&c->range) || c->range.kind != REGION_RAM ||
        c->range.end - gpa < PAGE_SIZE)
        return RESOLVED_NOT_MEMORY;
    *frame = range_frame_number(&c->range, gpa);
    return RESOLVED;
}

/* A user context may only name what its own code could touch. */
static bool may_name(const struct context *c, const struct walk *walk)
{
    return c->kind != RULES_USER || walk->user;
}

/* What counts is where the page lies: that PKRU forbade it, or NXE was off, when the context was
 * bound says nothing of accesses to come. */
static bool walk_page(struct rules *r, unsigned context, uint64_t gva, struct walk *walk)
{
    struct context *c = r->contexts[context];
    struct paging paging = c->paging;
    paging.pkru = 0;
    paging.efer |= PG_EFER_NXE;
    return mmu_walk(r->map, &paging, &own, gva, ACCESS_READ, MMU_SUPERVISOR_AC, true, walk) &&
           may_name(c, walk);
}

bool follow_walk(struct rules *r, unsigned context, uint64_t gva, uint64_t *gpa)
{
    struct walk walk;
    bool ok = walk_page(r, context, gva, &walk);
    *gpa = walk.gpa;
    return ok;
}

/* The page beside the last one: only the last level's entry is read, when the levels above it were
 * all found to let users in. False: walk. */
static bool from_same_table(struct cursor *c, uint64_t gva, uint64_t *gpa, bool *present)
{
    const struct paging *p = &c->rules->contexts[c->context]->paging;
    enum paging_mode mode = paging_mode(p);
    uint64_t entry;
    if (c->large_shift && (gva ^ c->large_gva) >> c->large_shift == 0) {
        *gpa = c->large_gpa + (gva - c->large_gva);
        return *present = true;
    }
    if (!c->valid || table_base(mode, 1, gva) != c->table_base)
        return false;
    unsigned index = (gva >> PAGE_SHIFT) & ((1u << paging_index_bits(mode)) - 1);
    phys_read_entry(c->rules->map, &own, &c->entries, c->entry_gpa + index * c->entry_size,
                    c->entry_size, &entry);
    *present = entry & PTE_P;
    if (!*present)
        return true;
    if (!(entry & PTE_US) || entry & bits(51, p->maxphyaddr))
        return false; /* a case for the whole walk */
    *gpa = mode == PAGING_32 ? entry & bits(31, 12) : entry & bits(51, 12);
    return true;
}

static void remember_table(struct cursor *c, const struct walk *walk)
{
    enum paging_mode mode = paging_mode(&c->rules->contexts[c->context]->paging);
    const struct walk_level *leaf = &walk->level[walk->levels ? walk->levels - 1 : 0];
    c->valid = walk->levels && leaf->level == 1 && walk->user;
    c->large_shift = walk->fault == WALK_OK && walk->page_shift > PAGE_SHIFT ? walk->page_shift : 0;
    if (c->large_shift) {
        uint64_t offset = walk->gva & ((1ull << walk->page_shift) - 1);
        c->large_gva = walk->gva - offset;
        c->large_gpa = walk->gpa - offset;
    }
    if (!c->valid)
        return;
    unsigned index = (walk->gva >> PAGE_SHIFT) & ((1u << paging_index_bits(mode)) - 1);
    c->table_base = table_base(mode, 1, walk->gva);
    c->entry_size = leaf->size;
    c->entry_gpa = leaf->gpa - index * leaf->size;
}

enum resolved cursor_virtual(struct cursor *c, uint64_t gva, uint32_t *frame)
{
    struct walk walk;
    uint64_t gpa = 0;
    bool present;
    if (from_same_table(c, gva, &gpa, &present))
        return present ? cursor_physical(c, gpa, frame) : RESOLVED_NOTHING;
    bool found, all, news;
    do { /* a table that is new here may have been under way from a disk until it was noted */
        found = walk_page(c->rules, c->context, gva, &walk);
        if (!found)
            walk.fault = WALK_USER; /* also what the context may not name */
        news = false;
        all = note_tables(c, &walk, &news);
    } while (all && news);
    if (!all)
        LOG(c->rules->log, LOG_GUEST_ERRORS,
            "protection: a page table of context %u is not watched\n", c->context);
    remember_table(c, &walk);
    return found ? cursor_physical(c, walk.gpa & PAGE_MASK, frame) : RESOLVED_NOTHING;
}

/* ---- Regions by address ---------------------------------------------------------------------- */

static int by_base(const void *a, const void *b, void *rules)
{
    uint64_t x = region_at(rules, *(const uint32_t *)a)->base;
    uint64_t y = region_at(rules, *(const uint32_t *)b)->base;
    return x < y ? -1 : x > y;
}

/* Virtual regions of the context, by base, and the largest end up to each: so the regions that
 * reach above an address begin at a place that bisection finds. */
static bool sort_regions(struct rules *r, struct context *c)
{
    if (c->sorted)
        return true;
    if (c->by_base_room < c->live) {
        uint32_t *order = realloc(c->by_base, c->live * sizeof *order);
        uint64_t *ends = order ? realloc(c->by_base_end, c->live * sizeof *ends) : NULL;
        c->by_base = order ? order : c->by_base;
        if (!ends)
            return false;
        c->by_base_end = ends;
        c->by_base_room = c->live;
    }
    uint32_t n = 0;
    bool in_order = true;
    for (uint32_t id = 0; id < c->id_count; id++) {
        if (c->ids[id] == NONE || region_at(r, c->ids[id])->flags & PROTECT_PHYSICAL)
            continue;
        in_order &=
            n == 0 || region_at(r, c->by_base[n - 1])->base <= region_at(r, c->ids[id])->base;
        c->by_base[n++] = c->ids[id];
    }
    if (!in_order)
        qsort_r(c->by_base, n, sizeof *c->by_base, by_base, r);
    uint64_t end = 0;
    for (uint32_t i = 0; i < n; i++) {
        const struct ruled_region *g = region_at(r, c->by_base[i]);
        uint64_t last = g->base + g->length - 1;
        end = last > end ? last : end;
        c->by_base_end[i] = end;
    }
    c->by_base_count = n;
    c->sorted = true;
    return true;
}

static uint32_t first_reaching(const struct context *c, uint64_t gva)
{
    uint32_t lo = 0, hi = c->by_base_count;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (c->by_base_end[mid] < gva)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* ---- Moving ---------------------------------------------------------------------------------- */

static void move_page(struct rules *r, uint32_t index, uint32_t page, uint32_t frame)
{
    struct ruled_region *g = region_at(r, index);
    uint32_t old = region_frames(g)[page];
    if (old == frame)
        return;
    if (g->flags & PROTECT_PIN && old != NONE) {
        event_of_page(r, g, page, PROTECT_EVENT_PINNED);
        return;
    }
    region_move_page(r, index, page, frame);
    r->contexts[g->context]->statistics.moved_pages++;
    event_of_page(r, g, page, frame == NONE ? PROTECT_EVENT_UNMAPPED : PROTECT_EVENT_MOVED);
}

/* Looks up again the region's pages in [lo, hi], page-aligned addresses, both included. */
static void follow_region(struct cursor *cursor, uint32_t index, uint64_t lo, uint64_t hi)
{
    struct rules *r = cursor->rules;
    struct ruled_region *g = region_at(r, index);
    uint64_t first = g->base & PAGE_MASK, last = (g->base + g->length - 1) & PAGE_MASK;
    uint64_t from = lo > first ? lo : first, to = hi < last ? hi : last;
    for (uint64_t at = from; from <= to && at <= to && at >= from; at += PAGE_SIZE) {
        uint32_t frame = NONE;
        if (cursor_virtual(cursor, at, &frame) != RESOLVED)
            frame = NONE;
        move_page(r, index, (uint32_t)((at - first) >> PAGE_SHIFT), frame);
    }
}

static void follow_range(struct rules *r, unsigned context, uint64_t lo, uint64_t hi)
{
    struct context *c = r->contexts[context];
    struct cursor cursor;
    if (!sort_regions(r, c)) {
        LOG(r->log, LOG_GUEST_ERRORS, "protection: no host memory to follow context %u\n", context);
        return;
    }
    cursor_init(&cursor, r, context);
    for (uint32_t i = first_reaching(c, lo); i < c->by_base_count; i++) {
        if (region_at(r, c->by_base[i])->base > (hi | ~PAGE_MASK))
            break;
        follow_region(&cursor, c->by_base[i], lo & PAGE_MASK, hi & PAGE_MASK);
    }
}

/* A user context lives as long as its door is mapped where it was. */
static bool still_alive(struct rules *r, unsigned context, uint64_t lo, uint64_t hi)
{
    struct context *c = r->contexts[context];
    struct cursor cursor; /* its tables may be new ones */
    uint32_t frame;
    uint64_t gpa;
    if (c->kind != RULES_USER || c->door_gva < (lo & PAGE_MASK) || c->door_gva > hi)
        return true;
    cursor_init(&cursor, r, context);
    cursor_virtual(&cursor, c->door_gva, &frame);
    return follow_walk(r, context, c->door_gva, &gpa) && (gpa & PAGE_MASK) == c->door_gpa;
}

/* ---- Stores to tables ------------------------------------------------------------------------ */

/* What one use makes of a store: addresses of one context. */
struct change {
    unsigned context;
    uint64_t lo, hi; /* hi included */
    unsigned level;
};

static struct change change_of(struct rules *r, const struct use *u, uint64_t offset, uint64_t len)
{
    enum paging_mode mode = paging_mode(&r->contexts[u->context]->paging);
    unsigned entry = mode == PAGING_32 ? 4 : 8, shift = shift_of(mode, u->level);
    uint64_t first = offset / entry, last = (offset + len - 1) / entry;
    struct change change = {u->context, u->base + (first << shift),
                            u->base + (last << shift) + ((1ull << shift) - 1), u->level};
    if (mode == PAGING_4LEVEL) { /* the upper half's entries of the root */
        change.lo = (uint64_t)((int64_t)(change.lo << 16) >> 16);
        change.hi = (uint64_t)((int64_t)(change.hi << 16) >> 16);
    }
    return change;
}

/* Tables below the entries that changed are no longer what they were. */
static void drop_below(struct rules *r, const struct change *change)
{
    struct context *c = r->contexts[change->context];
    for (uint32_t i = c->uses, next; i != NONE; i = next) {
        const struct use *u = use_at(r, i);
        next = u->context_next;
        if (u->level < change->level && u->base >= change->lo && u->base <= change->hi)
            drop_use(r, i);
    }
}

static void apply_change(struct rules *r, const struct change *change)
{
    if (!r->contexts[change->context])
        return;
    if (change->level > 1)
        drop_below(r, change);
    if (!still_alive(r, change->context, change->lo, change->hi)) {
        LOG(r->log, LOG_GUEST_ERRORS, "protection: context %u: its door is no longer mapped\n",
            change->context);
        context_end(r, change->context);
        return;
    }
    follow_range(r, change->context, change->lo, change->hi);
}

bool rules_follows(struct rules *r, const struct access *access, uint64_t gpa)
{
    struct phys_range found = PHYS_RANGE_INIT, *range = view_near(r->map, access, gpa, &found);
    phys_find(r->map, gpa, range);
    return range_is_memory(range) &&
           atomic_load_explicit(&range_frame(range, gpa)->attr, memory_order_relaxed) &
               FRAME_RULED_TABLE;
}

void rules_table_written(struct rules *r, uint64_t gpa, uint64_t len)
{
    struct phys_range range = PHYS_RANGE_INIT;
    phys_find(r->map, gpa, &range);
    if (!range_is_memory(&range) || len == 0)
        return;
    uint32_t frame = range_frame_number(&range, gpa), count = 0;
    uint64_t offset = gpa & ~PAGE_MASK;
    if (len > PAGE_SIZE - offset)
        len = PAGE_SIZE - offset;
    for (uint32_t i = *bucket(r, frame); i != NONE; i = use_at(r, i)->hash_next)
        count += use_at(r, i)->frame == frame;
    struct change *change = malloc((count + 1) * sizeof *change);
    if (!change) {
        LOG(r->log, LOG_GUEST_ERRORS, "protection: no host memory to follow a table\n");
        return;
    }
    count = 0;
    for (uint32_t i = *bucket(r, frame); i != NONE; i = use_at(r, i)->hash_next)
        if (use_at(r, i)->frame == frame)
            change[count++] = change_of(r, use_at(r, i), offset, len);
    for (uint32_t i = 0; i < count; i++)
        apply_change(r, &change[i]);
    free(change);
}

/* ---- The registers of PAE paging ------------------------------------------------------------- */

/* PAE paging walks from four registers, not from memory (SDM vol. 3, 4.4.1): what a context's
 * addresses mean changes when they are loaded. */
static bool pdptes_differ(const struct context *c, const struct paging *now)
{
    return c && paging_mode(&c->paging) == PAGING_PAE && context_is_root(c, now->cr3) &&
           memcmp(c->paging.pdpte, now->pdpte, sizeof now->pdpte) != 0;
}

static void load_pdptes(struct rules *r, unsigned context, const struct paging *now)
{
    uint64_t before[4], *pdpte = r->contexts[context]->paging.pdpte;
    memcpy(before, pdpte, sizeof before);
    memcpy(pdpte, now->pdpte, sizeof before);
    for (unsigned i = 0; i < 4; i++) {
        unsigned shift = shift_of(PAGING_PAE, 3);
        const struct change change = {context, (uint64_t)i << shift, ((i + 1ull) << shift) - 1, 3};
        if (before[i] != now->pdpte[i])
            apply_change(r, &change); /* may end the context; then the others do nothing */
    }
}

void rules_pdptes_loaded(struct rules *r, unsigned vcpu, const struct paging *now)
{
    bool any = false;
    if (paging_mode(now) != PAGING_PAE)
        return;
    for (unsigned i = 0; i < RULES_CONTEXTS; i++)
        any |= pdptes_differ(r->contexts[i], now);
    if (!any)
        return;
    rules_change_begin(r, (int)vcpu);
    for (unsigned i = 0; i < RULES_CONTEXTS; i++)
        if (pdptes_differ(r->contexts[i], now)) /* others may have changed it meanwhile */
            load_pdptes(r, i, now);
    rules_change_end(r, (int)vcpu);
}

/* ---- Stores by others than vCPUs ------------------------------------------------------------- */

void rules_table_dirty(struct rules *r, uint64_t gpa, uint64_t len)
{
    pthread_mutex_lock(&r->lock);
    if (r->dirty_count == RULES_DIRTY) {
        r->all_dirty = true;
    } else {
        r->dirty[r->dirty_count].gpa = gpa;
        r->dirty[r->dirty_count++].len = len;
    }
    atomic_store(&r->any_dirty, true);
    pthread_mutex_unlock(&r->lock);
    for (unsigned i = 0; i < MMU_MAX_CPUS; i++) {
        struct mmu_cpu *mmu = atomic_load(&r->map->cpus[i]);
        if (mmu && mmu->priv->hooks.kick)
            mmu->priv->hooks.kick(mmu->priv->hooks.cpu);
    }
}

static void follow_all(struct rules *r)
{
    for (unsigned i = 0; i < RULES_CONTEXTS; i++) {
        const struct change all = {i, 0, UINT64_MAX, paging_levels(PAGING_4LEVEL)};
        if (r->contexts[i] && r->contexts[i]->uses != NONE)
            apply_change(r, &all);
    }
}

void follow_dirty(struct rules *r)
{
    struct {
        uint64_t gpa, len;
    } dirty[RULES_DIRTY];
    pthread_mutex_lock(&r->lock);
    unsigned count = r->dirty_count;
    bool all = r->all_dirty;
    for (unsigned i = 0; i < count; i++) {
        dirty[i].gpa = r->dirty[i].gpa;
        dirty[i].len = r->dirty[i].len;
    }
    r->dirty_count = 0;
    r->all_dirty = false;
    atomic_store(&r->any_dirty, false);
    pthread_mutex_unlock(&r->lock);
    for (unsigned i = 0; i < count && !all; i++)
        rules_table_written(r, dirty[i].gpa, dirty[i].len);
    if (all)
        follow_all(r);
}

void rules_service(struct rules *r, unsigned vcpu)
{
    if (!atomic_load(&r->any_dirty))
        return;
    rules_change_begin(r, (int)vcpu);
    rules_change_end(r, (int)vcpu); /* follows what is dirty */
}

/* ---- From saved state ------------------------------------------------------------------------ */

/* The tables of a pinned region are watched, too: a change is its event. It has had the event for
 * what they said when it was saved. */
static void watch_pinned(struct cursor *cursor, const struct ruled_region *g)
{
    uint64_t first = g->base & PAGE_MASK;
    uint32_t frame;
    for (uint32_t i = 0; i < region_pages(g); i++)
        cursor_virtual(cursor, first + ((uint64_t)i << PAGE_SHIFT), &frame);
}

void follow_restored(struct rules *r, unsigned context)
{
    struct context *c = r->contexts[context];
    struct cursor cursor;
    if (!still_alive(r, context, 0, UINT64_MAX)) {
        context_end(r, context);
        return;
    }
    cursor_init(&cursor, r, context);
    for (uint32_t id = 0; id < c->id_count; id++) {
        struct ruled_region *g = region_find(r, c, id);
        if (!g || g->flags & PROTECT_PHYSICAL)
            continue;
        if (g->flags & PROTECT_PIN)
            watch_pinned(&cursor, g);
        else
            follow_region(&cursor, c->ids[id], 0, UINT64_MAX & PAGE_MASK);
    }
}
