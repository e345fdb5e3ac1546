/*
 * trace.c - traced page tables: entries that stay right without being flushed (docs/mmu.md,
 * "Tracing").
 *
 * With CR4.PCIDE = 0 every MOV CR3 would empty the view it enters. But an entry need not go if
 * nothing it was derived from can have changed unseen. So, for spaces that are left and entered
 * again often, the frames of the page tables behind each entry get FRAME_TABLE: stores to them go
 * slow, end in trace_written(), and drop at once what was derived from the bytes stored. Such an
 * entry is EXACT and survives MOV CR3. (It also sees an A bit that the guest clears without
 * invalidating: the entry goes, the next access sets A again.)
 *
 * Correctness never depends on a frame being traced: an entry is EXACT only if, when it was filled,
 * every table on its path was traced already, no other vCPU could still store to one by its own
 * view, and the table entries read the same once more after that was established. All others are
 * VOLATILE as if there were no tracing.
 *
 * A *use* says that one space reads a frame as a table of one level for one range of addresses. One
 * frame may have several: shared kernel tables, tables that map themselves.
 *
 * Frames become traced only between instructions (trace_pending(), from MOV CR3): within one, the
 * engine may hold a host address that it is about to store to.
 */
#include "mail.h"
#include "view.h"
#include <stdlib.h>

enum {
    USES = 8192,
    USE_HASH_BITS = 12,
    USES_OF_FRAME = 128, /* a guest may let tables map themselves many times over */
    JUDGE_AFTER = 4,     /* flushing reloads of a space before tracing is considered */
    WORTH = 8,           /* entries refilled per reload that make it worth while */
    SCORE_START = 512,   /* traced stores beyond what was saved, until it stops */
    SCORE_MAX = 8192,
    COST_LEAF = 1,
    COST_INNER = 4,
    BAN = 256, /* reloads until a space that did not pay is considered again */
};
#define USE_NONE UINT32_MAX

struct use {
    uint64_t base; /* of the addresses that the table translates */
    uint32_t frame;
    uint32_t hash_next;
    uint32_t space_next, space_prev;
    uint8_t space, level;
    bool pending; /* noted, to be traced at the next MOV CR3 */
    bool begun;   /* the frame has been told; perhaps pending again, while stores go by unseen */
};

struct trace {
    struct use use[USES];
    uint32_t free;
    uint32_t hash[1 << USE_HASH_BITS]; /* by frame */
};

/* ---- Uses ----------------------------------------------------------------------------------- */

static uint32_t *bucket(struct trace *t, uint32_t frame)
{
    return &t->hash[(frame * 0x9e3779b1u) >> (32 - USE_HASH_BITS)];
}

static struct trace *get_trace(struct mmu_cpu *mmu)
{
    if (mmu->priv->trace)
        return mmu->priv->trace;
    struct trace *t = malloc(sizeof *t);
    if (!t)
        return NULL;
    for (uint32_t i = 0; i < USES; i++)
        t->use[i].hash_next = i + 1 < USES ? i + 1 : USE_NONE;
    t->free = 0;
    for (uint32_t i = 0; i < 1 << USE_HASH_BITS; i++)
        t->hash[i] = USE_NONE;
    mmu->priv->trace = t;
    return t;
}

void trace_free(struct mmu_cpu *mmu)
{
    for (unsigned i = 0; i < VIEW_SPACES; i++)
        if (mmu->priv->space[i].used)
            trace_stop(mmu, &mmu->priv->space[i]);
    free(mmu->priv->trace);
}

static struct use *find_use(struct trace *t, uint32_t frame, unsigned space, unsigned level,
                            uint64_t base)
{
    for (uint32_t i = *bucket(t, frame); i != USE_NONE; i = t->use[i].hash_next) {
        struct use *u = &t->use[i];
        if (u->frame == frame && u->space == space && u->level == level && u->base == base)
            return u;
    }
    return NULL;
}

static unsigned count_uses(struct trace *t, uint32_t frame)
{
    unsigned n = 0;
    for (uint32_t i = *bucket(t, frame); i != USE_NONE; i = t->use[i].hash_next)
        n += t->use[i].frame == frame;
    return n;
}

static struct use *add_use(struct trace *t, struct space *space, unsigned number, uint32_t frame,
                           unsigned level, uint64_t base)
{
    uint32_t i = t->free;
    if (i == USE_NONE || count_uses(t, frame) >= USES_OF_FRAME)
        return NULL;
    struct use *u = &t->use[i];
    t->free = u->hash_next;
    *u = (struct use){.base = base,
                      .frame = frame,
                      .hash_next = *bucket(t, frame),
                      .space_next = space->uses_head,
                      .space_prev = USE_NONE,
                      .space = (uint8_t)number,
                      .level = (uint8_t)level,
                      .pending = true};
    *bucket(t, frame) = i;
    if (u->space_next != USE_NONE)
        t->use[u->space_next].space_prev = i;
    space->uses_head = i;
    space->uses++;
    space->uses_pending++;
    return u;
}

static bool is_traced_elsewhere(struct trace *t, const struct use *but)
{
    for (uint32_t i = *bucket(t, but->frame); i != USE_NONE; i = t->use[i].hash_next)
        if (t->use[i].frame == but->frame && t->use[i].begun && &t->use[i] != but)
            return true;
    return false;
}

static void remove_use(struct mmu_cpu *mmu, uint32_t number)
{
    struct trace *t = mmu->priv->trace;
    struct use *u = &t->use[number];
    struct space *space = &mmu->priv->space[u->space];
    if (u->begun && !is_traced_elsewhere(t, u))
        frame_trace_end(mmu->map, frame_by_number(mmu->map, u->frame), mmu->vcpu);
    uint32_t *link = bucket(t, u->frame);
    while (*link != number)
        link = &t->use[*link].hash_next;
    *link = u->hash_next;
    if (u->space_next != USE_NONE)
        t->use[u->space_next].space_prev = u->space_prev;
    if (u->space_prev != USE_NONE)
        t->use[u->space_prev].space_next = u->space_next;
    else
        space->uses_head = u->space_next;
    space->uses--;
    space->uses_pending -= u->pending;
    u->hash_next = t->free;
    t->free = number;
}

/* ---- Filling: is this walk exact? ----------------------------------------------------------- */

static void make_pending(struct space *space, struct use *use)
{
    if (!use->pending) {
        use->pending = true;
        space->uses_pending++;
    }
}

/* Notes that the space reads this table. True when it is traced and nobody can store unseen. */
static bool note_table(struct mmu_cpu *mmu, struct space *space, const struct walk *walk,
                       const struct walk_level *at, struct phys_range *range, bool *full)
{
    phys_find(mmu->map, at->gpa, range);
    if (!range_is_memory(range))
        return false;
    if (range->kind == REGION_ROM)
        return true; /* the guest cannot change it */
    struct trace *t = get_trace(mmu);
    uint32_t frame = range_frame_number(range, at->gpa);
    unsigned number = (unsigned)(space - mmu->priv->space);
    unsigned covered = PAGE_SHIFT + at->level * paging_index_bits(paging_mode(&mmu->paging));
    uint64_t base = walk->gva & (~0ull << covered);
    struct use *use = t ? find_use(t, frame, number, at->level, base) : NULL;
    if (t && !use)
        use = add_use(t, space, number, frame, at->level, base);
    *full = !use;
    if (!use || use->pending)
        return false;
    if (frame_written_unseen(range_frame(range, at->gpa), mmu->vcpu)) {
        make_pending(space, use); /* ask again */
        return false;
    }
    return true;
}

static bool reads_the_same(struct mmu_cpu *mmu, const struct walk *walk, unsigned i,
                           struct phys_range *range)
{
    struct access access = {.initiator = INITIATOR_WALKER, .vcpu = (uint16_t)mmu->vcpu};
    const struct walk_level *at = &walk->level[i];
    bool leaf = i == walk->levels - 1u;
    uint64_t expected = at->entry | PTE_A | (leaf && walk->dirty ? PTE_D : 0), now;
    phys_read_entry(mmu->map, &access, range, at->gpa, at->size, &now);
    return (now & ~(leaf ? PTE_D : 0)) == (expected & ~(leaf ? PTE_D : 0)) &&
           (now & expected) == expected;
}

bool trace_walk(struct mmu_cpu *mmu, struct space *space, const struct walk *walk)
{
    struct phys_range range = PHYS_RANGE_INIT;
    /* The PDPTEs of PAE are registers: space.c compares them when CR3 is loaded. */
    unsigned first = paging_mode(&mmu->paging) == PAGING_PAE ? 1 : 0;
    bool exact = true, full = false;
    for (unsigned i = first; i < walk->levels && !full; i++)
        exact &= note_table(mmu, space, walk, &walk->level[i], &range, &full);
    if (full) {
        trace_stop(mmu, space);
        return false;
    }
    for (unsigned i = first; exact && i < walk->levels; i++)
        exact = reads_the_same(mmu, walk, i, &range);
    return exact;
}

/* ---- Beginning and ending ------------------------------------------------------------------- */

static void begin(struct mmu_cpu *mmu, struct space *space, struct use *use)
{
    struct frame *frame = frame_by_number(mmu->map, use->frame);
    frame_trace_begin(mmu->map, frame, mmu->vcpu);
    rmap_revoke_write(mmu, use->frame);
    unsigned writers = frame_other_writers(frame, mmu->vcpu);
    for (unsigned i = 0; i < MMU_MAX_CPUS; i++)
        if (writers & (1u << i))
            mail_revoke(mmu->map, i, use->frame);
    use->begun = true;
    use->pending = false;
    space->uses_pending--;
    mmu->priv->counters.traced_frames++;
}

void trace_pending(struct mmu_cpu *mmu, struct space *space)
{
    struct trace *t = mmu->priv->trace;
    if (!t || !space->uses_pending)
        return;
    for (uint32_t i = space->uses_head; i != USE_NONE && space->uses_pending;
         i = t->use[i].space_next)
        if (t->use[i].pending)
            begin(mmu, space, &t->use[i]);
}

void trace_stop(struct mmu_cpu *mmu, struct space *space)
{
    if (!space->tracing)
        return;
    while (space->uses_head != USE_NONE)
        remove_use(mmu, space->uses_head);
    view_drop_list(mmu, space, LIST_EXACT);
    space->tracing = false;
    space->ban = BAN;
    space->reloads = space->refills = 0;
}

void trace_judge(struct space *space)
{
    if (space->tracing) {
        space->score += (int32_t)space->count[LIST_EXACT];
        if (space->score > SCORE_MAX)
            space->score = SCORE_MAX;
        return;
    }
    if (space->ban) {
        space->ban--;
        return;
    }
    space->reloads++;
    space->refills += space->count[LIST_VOLATILE];
    if (space->reloads < JUDGE_AFTER)
        return;
    if (space->refills >= space->reloads * WORTH) {
        space->tracing = true;
        space->score = SCORE_START;
    }
    space->reloads = space->refills = 0;
}

/* ---- Stores --------------------------------------------------------------------------------- */

/* An inner entry has changed: tables below it may be tables no longer. */
static void forget_below(struct mmu_cpu *mmu, struct space *space, uint64_t gva, uint64_t size,
                         unsigned level)
{
    struct trace *t = mmu->priv->trace;
    for (uint32_t i = space->uses_head, next; i != USE_NONE; i = next) {
        next = t->use[i].space_next;
        if (t->use[i].level < level && t->use[i].base - gva < size)
            remove_use(mmu, i);
    }
}

static void drop_derived(struct mmu_cpu *mmu, const struct use *use, uint32_t offset, uint32_t len)
{
    struct space *space = &mmu->priv->space[use->space];
    enum paging_mode mode = paging_mode(&mmu->paging);
    unsigned width = paging_index_bits(mode), entry_size = mode == PAGING_32 ? 4 : 8;
    unsigned level = use->level, shift = PAGE_SHIFT + (level - 1) * width;
    uint32_t first = offset / entry_size, last = (offset + len - 1) / entry_size;
    uint64_t base = use->base;
    if (last - first >= 8) { /* a whole page or so: one sweep is cheaper */
        first = last = 0;
        shift += width;
    }
    for (uint32_t i = first; i <= last; i++) {
        uint64_t gva = base + ((uint64_t)i << shift), size = 1ull << shift;
        view_drop_range(mmu, space, gva, size, DROP_ALL);
        if (level > 1)
            forget_below(mmu, space, gva, size, level);
    }
    space->score -= level > 1 ? COST_INNER + (int32_t)(space->count[LIST_EXACT] / 64) : COST_LEAF;
}

/* The next use of the frame at or after link `i` that is traced. */
static uint32_t next_use(const struct trace *t, uint32_t i, uint32_t frame)
{
    while (i != USE_NONE && (t->use[i].frame != frame || t->use[i].pending))
        i = t->use[i].hash_next;
    return i;
}

void trace_written(struct mmu_cpu *mmu, uint32_t frame, uint32_t offset, uint32_t len)
{
    struct trace *t = mmu->priv->trace;
    if (!t)
        return;
    mmu->priv->counters.trace_hits++;
    /* A use that is dropped with a table above it may be any, so look again after each; uses are
     * marked by the order of their numbers: each is visited once, ascending. */
    for (int64_t done = -1;;) {
        uint32_t best = USE_NONE;
        for (uint32_t i = next_use(t, *bucket(t, frame), frame); i != USE_NONE;
             i = next_use(t, t->use[i].hash_next, frame))
            if ((int64_t)i > done && i < best)
                best = i;
        if (best == USE_NONE)
            return;
        done = best;
        struct space *space = &mmu->priv->space[t->use[best].space];
        struct use use = t->use[best];
        drop_derived(mmu, &use, offset, len);
        if (space->score < 0)
            trace_stop(mmu, space);
    }
}
