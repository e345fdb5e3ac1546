/*
 * view.h - what a vCPU's views are made of. Private to mmu/; docs/mmu.md draws the picture.
 *
 * A vCPU caches up to VIEW_SPACES address spaces; each has one hashed table per privilege index. A
 * table is two parallel arrays: `entries`, which generated code reads, and `meta`, which says where
 * an entry came from and links it into
 *   - the reverse map: all entries that show one frame (rmap.c),
 *   - what came from the same large or global page (source.c),
 *   - one of its space's three lists: VOLATILE entries go with the next flushing MOV CR3; EXACT
 *     ones survive it, because every table behind them is traced; GLOBAL ones survive it as the
 *     manual says, and even a change of the root.
 * An entry is named by a 32-bit id: table number in the high byte, index in the others.
 */
#ifndef MMU_VIEW_H
#define MMU_VIEW_H

#include "map.h"
#include "paging.h"

enum {
    VIEW_SPACES = 32,
    VIEW_MIN_BITS = 8,     /* 256 entries: 1 MiB */
    VIEW_AMPLE_BITS = 12,  /* 4096 entries: not soon larger for a few pages */
    ID_INDEX_BITS = 24,    /* of an entry's id */
    VIEW_MAX_BITS = 18,    /* 262144 entries: 1 GiB */
    VIEW_BUDGET = 1 << 20, /* entries of one vCPU: 88 MiB of host memory */
};
#define ENTRY_NONE UINT32_MAX
#define GVA_NONE   (~0ull) /* no page's address */
/* Of the budget, what growing leaves alone, so that every table can have its first entries. */
#define VIEW_RESERVE (VIEW_SPACES * MMU_PRIVS << VIEW_MIN_BITS)
_Static_assert(VIEW_RESERVE <= VIEW_BUDGET / 4, "most of the budget is for growing");
_Static_assert(VIEW_SPACES <= 32, "a bit each in source.hidden_in");
_Static_assert(VIEW_SPACES *MMU_PRIVS < 0xff && VIEW_MAX_BITS <= ID_INDEX_BITS,
               "ids are 8 + 24 bits");

enum meta_flags {
    META_GLOBAL = 1 << 0, /* G in the leaf, CR4.PGE = 1 */
    META_EXACT = 1 << 1,  /* a change of any table entry behind it drops it at once; never global */
    META_USER = 1 << 2,   /* a user page: PKRU has a say */
    META_FETCH = 1 << 3, /* fetches have been derived to be allowed: a tag of its own, as it were */
};

struct view_meta {
    uint64_t gva; /* of the page; GVA_NONE: the slot is empty */
    uint64_t gpa; /* of the page */
    uint32_t
        frame; /* FRAME_NONE: not whole-page memory, so never fast and not in the reverse map */
    uint32_t frame_next, frame_prev;
    uint32_t list_next, list_prev;
    uint32_t source_next, source_prev; /* of a large or global page: source.c */
    uint8_t perm;  /* ACCESS_* that the guest's tables allow; W only once D is set */
    uint8_t shift; /* of the source page */
    uint8_t flags; /* META_* */
    uint8_t pkey;
};

struct view_table {
    struct view_entry *entries; /* NULL until the first fill */
    struct view_meta *meta;
    uint8_t bits;
    uint8_t idle;       /* flushes in a row that found it nearly empty */
    uint32_t live;      /* entries in use */
    uint32_t conflicts; /* evictions by another page since it was last resized */
};

enum { HIDDEN_BITS = 1 << 14 }; /* 64 MiB of code */

enum space_list { LIST_VOLATILE, LIST_EXACT, LIST_GLOBAL, LISTS };

struct space {
    bool used;
    uint64_t key;      /* see space_key() */
    uint64_t root;     /* cr3 without the PCID: a PCID may get another root */
    uint64_t pdpte[4]; /* PAE */
    struct view_table table[MMU_PRIVS];
    uint32_t head[LISTS], count[LISTS];
    uint64_t exec_generation;
    /* Pages whose fetch permission was evicted for want of room: no entry shows them, yet a
     * virtual-PC cache may. A bit for each local 4-KiB page, by the low bits of its number, so that
     * an invalidation of such a page still changes the generation, and hardly any other does; of
     * large and global ones source.c knows. */
    uint64_t hidden[HIDDEN_BITS / 64];
    bool hidden_small;  /* some of these are set */
    bool hidden_large;  /* some are parts of local large pages */
    uint64_t used_at;   /* for LRU */
    unsigned unflushed; /* entries by no-flush MOV CR3 in a row: see the A-bit sweep */
    /* -- tracing (trace.c) -- */
    bool tracing;
    uint32_t uses, uses_pending;
    int32_t score; /* what tracing has saved, less what it has cost */
    uint32_t uses_head;
    unsigned reloads, refills, ban;
};

struct mailbox {
    pthread_mutex_t lock;
    _Atomic bool pending_views, pending_code;
    bool flush;
    struct letter *views, *code;
    unsigned views_count, code_count, code_room;
};

struct trace;

/* Which entries came from which large or global page (source.c). */
struct source_index {
    struct source *source;
    uint32_t *bucket;
    uint32_t room, free; /* room: of both arrays */
    uint32_t count[31];  /* sources by shift */
    uint32_t bare;       /* those without entries, kept because of what is hidden */
};

struct mmu_cpu_private {
    /* Where the vCPU's last slow accesses went, below and above 2 GiB: to memory and to devices. */
    struct phys_range near[2];
    struct mmu_cpu_hooks hooks;
    struct exclusive *exclusive;
    struct log *log;
    struct mmu_counters counters;
    struct space *current;
    bool fast_off;              /* mmu_fast_paths() */
    uint64_t clock, generation; /* both only count up */
    uint32_t entries;           /* allocated over all tables */
    bool forgetting;            /* entries go for want of room, not because they are wrong */
    struct mmu_range watch[4];
    unsigned watch_count;
    uint32_t pkey_live[16]; /* entries of user pages by key, while CR4.PKE = 1 */
    uint32_t **rmap;        /* [frame >> 10][frame & 1023]: head of the frame's entries */
    uint32_t rmap_chunks;
    struct trace *trace; /* NULL until a space is traced */
    struct mailbox box;
    struct source_index sources;
    /* What the map said last, of a table and of a page: walks look it up only when that is not it.
     */
    struct phys_range tables, pages;
    struct space space[VIEW_SPACES];
};

/* ---- Ids ------------------------------------------------------------------------------------ */

static inline struct view_table *entry_table(struct mmu_cpu *mmu, uint32_t id)
{
    unsigned table = id >> ID_INDEX_BITS;
    return &mmu->priv->space[table / MMU_PRIVS].table[table % MMU_PRIVS];
}
static inline struct space *entry_space(struct mmu_cpu *mmu, uint32_t id)
{
    return &mmu->priv->space[(id >> ID_INDEX_BITS) / MMU_PRIVS];
}
static inline uint32_t entry_index(uint32_t id)
{
    return id & ((1u << ID_INDEX_BITS) - 1);
}
static inline struct view_meta *entry_meta(struct mmu_cpu *mmu, uint32_t id)
{
    return &entry_table(mmu, id)->meta[entry_index(id)];
}
static inline struct view_entry *entry_fast(struct mmu_cpu *mmu, uint32_t id)
{
    return &entry_table(mmu, id)->entries[entry_index(id)];
}
static inline uint32_t entry_id(struct mmu_cpu *mmu, const struct space *space, unsigned priv,
                                uint32_t index)
{
    return ((uint32_t)(space - mmu->priv->space) * MMU_PRIVS + priv) << ID_INDEX_BITS | index;
}
static inline uint32_t table_index(const struct view_table *table, uint64_t gva)
{
    return (uint32_t)(gva >> PAGE_SHIFT) & ((1u << table->bits) - 1);
}

/* What the current space has of the page of gva, and in *entry its fast half; NULL: nothing. */
static inline struct view_meta *view_present(const struct mmu_cpu *mmu, enum mmu_priv priv,
                                             uint64_t gva, struct view_entry **entry)
{
    const struct view_table *table = &mmu->priv->current->table[priv];
    if (!table->entries)
        return NULL;
    uint32_t index = table_index(table, gva);
    *entry = &table->entries[index];
    return table->meta[index].gva == (gva & PAGE_MASK) ? &table->meta[index] : NULL;
}

/* ---- table.c: entries ----------------------------------------------------------------------- */

/* Puts an entry for meta->gva in, making room. Returns its id, or ENTRY_NONE when host memory is
 * short. Tags are left invalid, but for a fetch permission that the page had already. */
uint32_t view_insert(struct mmu_cpu *mmu, struct space *space, enum mmu_priv priv,
                     const struct view_meta *meta);
void view_drop(struct mmu_cpu *mmu, uint32_t id);
void view_drop_list(struct mmu_cpu *mmu, struct space *space, enum space_list list);
void view_drop_space(struct mmu_cpu *mmu, struct space *space);
enum drop_what { DROP_ALL, DROP_LOCAL };
/* Entries for [gva, gva + size), a power of two of at least a page. */
void view_drop_range(struct mmu_cpu *mmu, struct space *space, uint64_t gva, uint64_t size,
                     enum drop_what what);
/* Before a flush: when much of the budget is spent, gives back memory of tables that are found
 * nearly empty again and again. */
void view_trim(struct mmu_cpu *mmu, struct space *space);
void view_free_table(struct mmu_cpu *mmu, struct view_table *table);
/* The space, empty now, is given up: its tables are kept for the next one unless they have grown.
 */
void view_recycle(struct mmu_cpu *mmu, struct space *space);
/* Fetches that were valid in the space may no longer be. */
void view_exec_changed(struct mmu_cpu *mmu, struct space *space);
/* Fetches from global pages that were valid may no longer be. */
void view_global_changed(struct mmu_cpu *mmu);
/* Points mmu->fast[] at the current space. */
void view_set_fast(struct mmu_cpu *mmu);

/* ---- last.c --------------------------------------------------------------------------------- */

/* Something that the current address space's entry for the page allowed has been taken away; of all
 * pages. */
void last_forget(struct mmu_cpu *mmu, enum mmu_priv priv, uint64_t gva);
void last_forget_all(struct mmu_cpu *mmu);

/* ---- rmap.c --------------------------------------------------------------------------------- */

bool rmap_link(struct mmu_cpu *mmu, uint32_t id);
void rmap_unlink(struct mmu_cpu *mmu, uint32_t id);
uint32_t rmap_first(const struct mmu_cpu *mmu, uint32_t frame);
/* Takes write validity from all of this vCPU's entries of the frame. In the owner's thread, or with
 * the owner stopped. */
void rmap_revoke_write(struct mmu_cpu *mmu, uint32_t frame);
/* Takes read or fetch validity from them. Likewise. After the last of a number of frames whose
 * fetch validity was taken: rmap_exec_changed(). */
void rmap_revoke_read(struct mmu_cpu *mmu, uint32_t frame, bool read, bool exec);
void rmap_exec_changed(struct mmu_cpu *mmu);
void rmap_free(struct mmu_cpu *mmu);

/* ---- source.c ------------------------------------------------------------------------------- */

/* For entries of large and of global pages; nothing happens for others. False: out of memory. */
bool source_link(struct mmu_cpu *mmu, uint32_t id);
void source_unlink(struct mmu_cpu *mmu, uint32_t id);
/* The entry is about to go although it is not wrong, and fetches by it may be remembered elsewhere:
 * an invalidation of its page will change the generations. False: it has no source. */
bool source_hide(struct mmu_cpu *mmu, uint32_t id);
/* Drops what the space has of the large pages around gva that are not global; what all spaces have
 * of the global pages around gva, small ones included. */
void source_drop_local(struct mmu_cpu *mmu, struct space *space, uint64_t gva);
void source_drop_global(struct mmu_cpu *mmu, uint64_t gva);
void source_free(struct mmu_cpu *mmu);

/* The vCPU's remembered range, where the access is an instruction's, so that its thread makes it;
 * else `own`. (Walks are made for others, too.) */
static inline struct phys_range *view_near(struct phys_map *map, const struct access *access,
                                           uint64_t gpa, struct phys_range *own)
{
    if (access->initiator > INITIATOR_VCPU_KERNEL || access->vcpu >= MMU_MAX_CPUS)
        return own;
    struct mmu_cpu *mmu = atomic_load_explicit(&map->cpus[access->vcpu], memory_order_relaxed);
    return mmu ? &mmu->priv->near[gpa >> 31 & 1] : own;
}

/* ---- space.c -------------------------------------------------------------------------------- */

void space_flush_all(struct mmu_cpu *mmu);

/* ---- trace.c -------------------------------------------------------------------------------- */

/* Whether every table entry that the walk read is traced, and still as it was read; notes the
 * frames that are not traced yet. */
bool trace_walk(struct mmu_cpu *mmu, struct space *space, const struct walk *walk);
/* At a flushing MOV CR3 to `space`, before volatile entries go: decides whether tracing pays. */
void trace_judge(struct space *space);
/* Begins to trace the frames that trace_walk() noted. Not while an instruction holds host
 * addresses. */
void trace_pending(struct mmu_cpu *mmu, struct space *space);
void trace_stop(struct mmu_cpu *mmu, struct space *space);
void trace_written(struct mmu_cpu *mmu, uint32_t frame, uint32_t offset, uint32_t len);
void trace_free(struct mmu_cpu *mmu);

#endif
