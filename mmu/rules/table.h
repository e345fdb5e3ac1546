/*
 * table.h - what the rules are made of: contexts, regions, spans, table uses. Private to
 * mmu/rules/.
 *
 *     context --- ids ---> region --- frames of its pages
 *        |                   |  \___ rule (shared by the regions that one element named)
 *        |                   |
 *        |                  span: bytes lo..hi of one frame  <--- head of that frame's list
 *        |
 *        +--- uses: page-table frames that map its regions (follow.c)
 *
 * The lists by frame answer "has anybody a say about these bytes" without looking at any region; a
 * bit in the frame's attribute word (internal/phys.h) answers it for most frames without a list.
 * Everything here changes only with all vCPUs parked and the machine lock held (rules.h,
 * "Locking"), but for what `lock` guards.
 */
#ifndef MMU_RULES_TABLE_H
#define MMU_RULES_TABLE_H

#include "../map.h"
#include "../paging.h"
#include "internal/rules.h"

struct clock;

#define NONE UINT32_MAX /* end of a list, or no such index */

/* Bytes lo..hi (both included) of a frame belong to page `page` of a region. 16 bytes. */
struct span {
    uint32_t next; /* of the frame's list, or of the free list */
    uint32_t region;
    uint32_t page;
    uint16_t lo, hi;
};

struct rule {
    struct protect_rule set;
    uint32_t refs;
    uint8_t forbids; /* kinds that it forbids to any subject */
    uint32_t attr;   /* FRAME_RULED* bits that a frame gets from it */
};

struct ruled_region {
    uint64_t base, length, cookie;
    union {
        uint32_t one; /* the frame of a region inside one page; NONE: not resolved */
        uint32_t *many;
    } frames;
    uint32_t id;   /* in its context */
    uint32_t rule; /* index; NONE: has none yet */
    uint16_t context;
    uint8_t flags;        /* enum protect_region_flags */
    _Atomic uint8_t once; /* subjects whose PROTECT_ALLOW_ONCE has been used, a bit each */
};

/* A context's regions are read as page tables by this frame: a use says at which level and from
 * which address on. */
struct use {
    uint64_t base;
    uint32_t frame;
    uint32_t hash_next; /* or of the free list */
    uint32_t context_next, context_prev;
    uint16_t context;
    uint8_t level;
};

struct token {
    uint64_t value; /* 0: the slot is free */
    void *state;
    uint64_t deadline; /* guest nanoseconds */
    unsigned stack;    /* of the handler's stacks; NONE: the thread's own */
};

enum { RULES_DEFERRED = 32, RULES_DIRTY = 64 };
/* Of all regions together, mapped or not: each costs the host four bytes. */
#define RULES_MAX_PAGES (2ull * PROTECT_MAX_PAGES)
/* Ids of all contexts together, in use or not: four bytes each, too. */
#define RULES_MAX_IDS (8ull * PROTECT_MAX_REGIONS)

struct context {
    enum rules_kind kind;
    uint32_t grants, seals;
    uint64_t session;
    struct paging paging;        /* what its virtual addresses mean: control registers at BIND */
    uint64_t door_gva, door_gpa; /* USER: the page of the door as it was mapped at BIND */

    uint32_t *ids; /* region index by id; NONE: removed */
    uint32_t id_count, id_room, live;
    uint32_t *by_base; /* regions by virtual base, for follow.c; rebuilt when `sorted` is false */
    uint64_t *by_base_end; /* the largest end among by_base[0..i] */
    uint32_t by_base_count, by_base_room;
    bool sorted;
    uint32_t uses; /* head of its list */

    struct protect_handler handler;
    uint32_t stacks_busy; /* a bit each */
    struct token token[PROTECT_MAX_LIVE];
    unsigned live_tokens;
    bool masked;
    struct protect_event deferred[RULES_DEFERRED];
    unsigned deferred_first, deferred_count;

    struct protect_event ring[PROTECT_EVENTS];
    uint64_t event_head, event_tail, event_lost;
    struct protect_statistics statistics;
};

struct pool { /* of regions, spans, rules or uses: an array that grows, and a free list in it */
    void *items;
    uint32_t count, room, free;
};

struct rules {
    struct phys_map *map;
    struct exclusive *exclusive;
    struct clock *clock;
    struct log *log;
    struct rules_hooks hooks;

    struct context *contexts[RULES_CONTEXTS]; /* NULL: free */
    _Atomic unsigned users;                   /* contexts of kind RULES_USER */
    _Atomic uint64_t generation;              /* sections that may have changed something */
    struct pool regions, spans, rules, uses;
    uint32_t live_regions;
    bool exec_taken;      /* since span_settle() */
    uint64_t live_pages;  /* of all regions; at most RULES_MAX_PAGES */
    uint64_t id_room;     /* of all contexts; at most RULES_MAX_IDS */
    uint64_t ruled_pages; /* frames with a list */
    uint32_t **heads;     /* [frame >> 10][frame & 1023]: first span of the frame */
    uint32_t head_chunks;
    uint32_t *use_hash;

    /* Stores to followed tables that nobody has acted on yet; `lock`. Too many: all tables. */
    struct {
        uint64_t gpa, len;
    } dirty[RULES_DIRTY];
    unsigned dirty_count;
    bool all_dirty;
    _Atomic bool any_dirty;

    pthread_mutex_t lock; /* rings, tokens, deferred queues, statistics */
    uint64_t random[64];  /* for tokens; the last random_left have not been used */
    unsigned random_left;
    _Atomic unsigned deferred_waiting;
    struct protect_statistics total; /* of contexts that have ended */
};

static inline struct ruled_region *region_at(const struct rules *r, uint32_t i)
{
    return &((struct ruled_region *)r->regions.items)[i];
}
static inline struct span *span_at(const struct rules *r, uint32_t i)
{
    return &((struct span *)r->spans.items)[i];
}
static inline struct rule *rule_at(const struct rules *r, uint32_t i)
{
    return &((struct rule *)r->rules.items)[i];
}
static inline struct use *use_at(const struct rules *r, uint32_t i)
{
    return &((struct use *)r->uses.items)[i];
}

static inline uint32_t pages_of(uint64_t base, uint64_t length)
{
    return (uint32_t)(((base & ~PAGE_MASK) + length + PAGE_SIZE - 1) >> PAGE_SHIFT);
}
static inline uint32_t region_pages(const struct ruled_region *g)
{
    return pages_of(g->base, g->length);
}
static inline uint32_t *region_frames(struct ruled_region *g)
{
    return region_pages(g) == 1 ? &g->frames.one : g->frames.many;
}
/* Bytes of page `page` that the region has. */
static inline void region_bytes(const struct ruled_region *g, uint32_t page, uint16_t *lo,
                                uint16_t *hi)
{
    uint64_t first = g->base & ~PAGE_MASK, last = first + g->length - 1;
    *lo = page == 0 ? (uint16_t)first : 0;
    *hi = last >> PAGE_SHIFT == page ? (uint16_t)(last & ~PAGE_MASK) : PAGE_SIZE - 1;
}

/* ---- pool.c ---------------------------------------------------------------------------------- */

/* Makes sure that `more` items can be had without failing. `size`: of one; its first uint32_t links
 * free ones. */
bool pool_reserve(struct pool *pool, uint32_t more, size_t size);
uint32_t pool_take(struct pool *pool, size_t size);
void pool_give(struct pool *pool, uint32_t index, size_t size);

/* ---- span.c ---------------------------------------------------------------------------------- */

/* First span of a frame; NONE. */
uint32_t span_first(const struct rules *r, uint32_t frame);
/* Room for a head of this frame. */
bool span_reserve_head(struct rules *r, uint32_t frame);
/* The span pool and the head must have been reserved. */
void span_add(struct rules *r, uint32_t region, uint32_t page, uint32_t frame);
void span_remove(struct rules *r, uint32_t region, uint32_t page, uint32_t frame);
/* Takes from the frame's attributes what no span's rule asks for any more. */
void span_derive(struct rules *r, uint32_t frame);
/* What one more rule, or being a followed table, means for a frame: more attributes, of which the
 * views are told. */
void span_tighten(struct rules *r, uint32_t frame, uint32_t attr);

/* What is done once for any number of frames; before the vCPUs run again. */
void span_settle(struct rules *r);

/* ---- region.c -------------------------------------------------------------------------------- */

struct ruled_region *region_find(struct rules *r, const struct context *c, uint64_t id);
enum protect_status regions_add(struct rules *r, unsigned context,
                                const struct protect_region *array, uint32_t count,
                                uint32_t *element, uint64_t *first);
enum protect_status regions_remove(struct rules *r, unsigned context, uint64_t first,
                                   uint64_t count);
void region_drop(struct rules *r, uint32_t index);
enum protect_status rules_set(struct rules *r, unsigned context, const struct protect_rule *array,
                              uint32_t count, uint32_t *element);
/* From saved state: a rule with one reference, the caller's; a region without frames under an id
 * that is free, which takes one of its own. */
enum protect_status rule_put(struct rules *r, const struct protect_rule *set, uint32_t *rule);
void rule_release(struct rules *r, uint32_t rule); /* NONE: nothing */
enum protect_status region_put(struct rules *r, unsigned context, const struct protect_region *d,
                               uint32_t id, uint32_t rule, uint32_t *index);
bool ids_put(struct rules *r, struct context *c, uint32_t count); /* so many, all free */
void region_describe(struct rules *r, struct ruled_region *g, struct protect_query *query);
/* The region moves to another frame (NONE: none) with one of its pages. */
void region_move_page(struct rules *r, uint32_t index, uint32_t page, uint32_t frame);
/* Zeroes the protected bytes that have frames. */
void region_zero(struct rules *r, struct ruled_region *g);

/* ---- follow.c -------------------------------------------------------------------------------- */

bool follow_init(struct rules *r); /* false: no host memory */
/* Resolves pages one after another, cheaply where they lie close together, and notes the tables on
 * the way as uses. */
struct cursor {
    struct rules *rules;
    unsigned context;
    uint64_t table_base, entry_gpa;  /* of the last level's table that the last page was found in */
    uint64_t large_gva, large_gpa;   /* of the large page that the last page lay in */
    uint8_t entry_size, large_shift; /* large_shift 0: it lay in none */
    bool valid;
    struct phys_range range, entries;
};
enum resolved { RESOLVED, RESOLVED_NOTHING, RESOLVED_NOT_MEMORY };
void cursor_init(struct cursor *c, struct rules *r, unsigned context);
/* What rules_service() is for, between rules_change_begin() and _end(). */
void follow_dirty(struct rules *r);
/* A context from saved state, with the frames that its regions had: watches their tables and the
 * door's; what the tables say now counts. May end the context. */
void follow_restored(struct rules *r, unsigned context);
enum resolved cursor_virtual(struct cursor *c, uint64_t gva, uint32_t *frame);
enum resolved cursor_physical(struct cursor *c, uint64_t gpa, uint32_t *frame);
/* Where a virtual address of the context leads; false: nowhere. */
bool follow_walk(struct rules *r, unsigned context, uint64_t gva, uint64_t *gpa);
void uses_drop_context(struct rules *r, unsigned context);

/* ---- command.c ------------------------------------------------------------------------------- */

bool handler_is_possible(const struct protect_handler *h);

/* ---- context.c ------------------------------------------------------------------------------- */

enum protect_status context_bind(struct rules *r, unsigned number, uint64_t cr3,
                                 const struct rules_caller *caller, uint64_t *session);
void context_end(struct rules *r, unsigned number);
/* The bits of CR3 that say which address space it is: with PAE paging several roots lie in a page
 * (SDM vol. 3, 4.4.1). */
static inline uint64_t context_root_mask(const struct context *c)
{
    return paging_mode(&c->paging) == PAGING_PAE ? bits(31, 5) : bits(51, 12);
}
static inline bool context_is_root(const struct context *c, uint64_t cr3)
{
    return !((cr3 ^ c->paging.cr3) & context_root_mask(c));
}

/* ---- event.c --------------------------------------------------------------------------------- */

/* Appends to the ring and tells who is to be told. Fills in sequence and time. */
void event_append(struct rules *r, unsigned context, struct protect_event *event, uint32_t notify);
void event_of_page(struct rules *r, const struct ruled_region *g, uint32_t page,
                   enum protect_event_type type);
void event_of_timeout_locked(struct rules *r, struct context *c, const struct token *t);

/* ---- token.c --------------------------------------------------------------------------------- */

void tokens_drop(struct rules *r, struct context *c);

/* Voids the tokens whose time has run out. Whoever looks at a context's upcalls or events does this
 * first. */
void tokens_expire_locked(struct rules *r, struct context *c);

#endif
