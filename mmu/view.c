/*
 * view.c - filling views: what mmu_translate() does when the inline lookup has missed.
 *
 *      guest tables --walk--> rights ---+
 *      frame attributes ----------------+--derive()--> tag_read, tag_write, META_FETCH
 *      protection rules ----------------+    (as attributes of frames: mmu/rules/span.c)
 *      data breakpoints ----------------+
 *
 * An entry's meta word keeps what the guest's tables allow (`perm`); the tags say what may go by
 * the fast path NOW. So a page whose stores are slow for a while (code, a traced table) keeps its
 * translation and needs no new walk, and gets its write tag back when the reason has gone.
 */
#include "view.h"
#include "internal/error.h"
#include "internal/exclusive.h"
#include "internal/rules.h"
#include "mail.h"
#include <stdlib.h>

/* ---- Deriving ------------------------------------------------------------------------------- */

static bool is_watched(const struct mmu_cpu_private *priv, uint64_t page)
{
    for (unsigned i = 0; i < priv->watch_count; i++)
        if (priv->watch[i].lo <= page + (PAGE_SIZE - 1) && priv->watch[i].hi - 1 >= page)
            return true;
    return false;
}

/* The attributes that make an access of this kind one to be asked about. */
static uint32_t ruled_for(enum access_kind kind)
{
    switch (kind) {
    case ACCESS_WRITE:
        return FRAME_RULED_WRITE | FRAME_RULED_TABLE;
    case ACCESS_EXEC:
        return FRAME_RULED_EXEC;
    default:
        return FRAME_RULED_READ;
    }
}

/* Host address for one access through the entry, or NULL: it has to go by phys_*(). Sets the tag
 * when accesses of this kind may go by the fast path from now on.
 *
 * This is THE place where an entry's validity is derived; the protection rules take their share
 * here, from the frame's RULED attributes. Write and fetch tags are set when first used, not at the
 * fill: each costs others something to take back. */
static void *derive(struct mmu_cpu *mmu, struct view_meta *meta, struct view_entry *entry,
                    uint64_t gva, enum access_kind kind, bool *ruled)
{
    *ruled = false;
    if (meta->frame == FRAME_NONE)
        return NULL;
    struct ram_block *block = block_by_number(mmu->map, meta->frame);
    struct frame *frame = block_frame(block, meta->frame);
    uint32_t attr = atomic_load(&frame->attr);
    if (attr & ruled_for(kind)) {
        *ruled = true;
        return NULL;
    }
    bool fast = !is_watched(mmu->priv, meta->gva);
    switch (kind) {
    case ACCESS_WRITE:
        if (!frame_grant_write(frame, mmu->vcpu))
            return NULL;
        touch_write(mmu->map, block, entry->page);
        if (fast)
            entry->tag_write = entry->tag_read = meta->gva;
        break;
    case ACCESS_EXEC:
        meta->flags |= META_FETCH; /* data breakpoints do not see fetches */
        break;
    default:
        if (fast)
            entry->tag_read = meta->gva;
    }
    return (uint8_t *)entry->page + (gva & ~PAGE_MASK);
}

/* ---- Filling -------------------------------------------------------------------------------- */

static uint8_t permissions(const struct paging *paging, const struct walk *walk, enum mmu_priv priv)
{
    uint8_t perm = 0;
    if (paging_rights(paging, walk, ACCESS_READ, priv) == WALK_OK)
        perm |= ACCESS_READ;
    if (walk->dirty && paging_rights(paging, walk, ACCESS_WRITE, priv) == WALK_OK)
        perm |= ACCESS_WRITE;
    if (paging_rights(paging, walk, ACCESS_EXEC, priv) == WALK_OK)
        perm |= ACCESS_EXEC;
    return perm;
}

/* The frame behind a whole page of memory; FRAME_NONE for MMIO, holes, and pages that are only
 * partly memory because a small region lies over them. */
static uint32_t frame_behind(struct mmu_cpu *mmu, uint64_t gpa_page, uint8_t **hva)
{
    struct phys_range *range = &mmu->priv->pages;
    phys_find(mmu->map, gpa_page, range);
    if (!range_is_memory(range) || range->end - gpa_page < PAGE_SIZE)
        return FRAME_NONE;
    *hva = range_hva(range, gpa_page);
    return range_frame_number(range, gpa_page);
}

static uint32_t fill(struct mmu_cpu *mmu, const struct walk *walk, enum mmu_priv priv, uint8_t *hva,
                     const struct view_meta *meta)
{
    struct space *space = mmu->priv->current;
    uint32_t id = view_insert(mmu, space, priv, meta);
    if (id == ENTRY_NONE)
        return id;
    entry_fast(mmu, id)->page = hva;
    entry_fast(mmu, id)->delta = (uint64_t)(uintptr_t)hva - meta->gva;
    mmu->priv->counters.fills++;
    LOG(mmu->priv->log, LOG_MMU, "mmu%u: fill %#llx -> %#llx perm %u priv %u shift %u%s\n",
        mmu->vcpu, (unsigned long long)walk->gva, (unsigned long long)walk->gpa, meta->perm, priv,
        walk->page_shift, meta->flags & META_EXACT ? " exact" : "");
    return id;
}

static struct view_meta describe(struct mmu_cpu *mmu, const struct walk *walk, enum mmu_priv priv,
                                 uint8_t **hva)
{
    const struct paging *paging = &mmu->paging;
    struct space *space = mmu->priv->current;
    struct view_meta meta = {.gva = walk->gva & PAGE_MASK,
                             .gpa = walk->gpa & PAGE_MASK,
                             .shift = walk->page_shift,
                             .pkey = walk->pkey};
    meta.frame = frame_behind(mmu, meta.gpa, hva);
    meta.perm = permissions(paging, walk, priv);
    if (walk->global)
        meta.flags |= META_GLOBAL;
    if (walk->user && (paging->cr4 & PG_CR4_PKE))
        meta.flags |= META_USER;
    if (space->tracing && !walk->global && trace_walk(mmu, space, walk))
        meta.flags |= META_EXACT;
    return meta;
}

static enum mmu_result refuse(struct mmu_cpu *mmu, const struct access *access,
                              const struct walk *walk)
{
    mmu->priv->counters.faults++;
    LOG(mmu->priv->log, LOG_MMU, "mmu%u: fault %d at level %u, gva %#llx error %#x rip %#llx\n",
        mmu->vcpu, walk->fault, walk->fault_level, (unsigned long long)walk->gva, walk->error_code,
        (unsigned long long)access->rip);
    return MMU_FAULT;
}

static enum mmu_result miss(struct mmu_cpu *mmu, const struct access *access, uint64_t gva,
                            enum access_kind kind, enum mmu_priv priv, struct mmu_xlat *out)
{
    mmu->priv->counters.walks++;
    if (!walk_tables(mmu->map, &mmu->paging, access, gva, kind, priv, false, &mmu->priv->tables,
                     &out->walk))
        return refuse(mmu, access, &out->walk);
    uint8_t *hva = NULL;
    struct view_meta meta = describe(mmu, &out->walk, priv, &hva);
    out->gpa = out->walk.gpa;
    out->global = meta.flags & META_GLOBAL;
    uint32_t id = fill(mmu, &out->walk, priv, hva, &meta);
    if (id != ENTRY_NONE) {
        out->hva = derive(mmu, entry_meta(mmu, id), entry_fast(mmu, id), gva, kind, &out->ruled);
    } else {
        struct view_entry passing = {.page = hva};
        out->hva = derive(mmu, &meta, &passing, gva, kind, &out->ruled);
    }
    return MMU_OK;
}

enum mmu_result mmu_translate(struct mmu_cpu *mmu, const struct access *access, uint64_t gva,
                              enum access_kind kind, enum mmu_priv priv, struct mmu_xlat *out)
{
    if (kind & ACCESS_WRITE)
        kind = ACCESS_WRITE; /* a read-modify-write is a write to the tables */
    struct view_entry *entry;
    struct view_meta *meta = view_present(mmu, priv, gva, &entry);
    if (!meta || !(meta->perm & kind))
        return miss(mmu, access, gva, kind, priv, out);
    out->gpa = meta->gpa | (gva & ~PAGE_MASK);
    out->global = meta->flags & META_GLOBAL;
    out->ruled = false;
    bool derived =
        kind == ACCESS_EXEC ? (meta->flags & META_FETCH) != 0 : view_tag(entry, kind) == meta->gva;
    out->hva = derived ? (uint8_t *)entry->page + (gva & ~PAGE_MASK)
                       : derive(mmu, meta, entry, gva, kind, &out->ruled);
    return MMU_OK;
}

bool mmu_view_grant(struct mmu_cpu *mmu, enum mmu_priv priv, uint64_t gva, enum access_kind kind)
{
    struct view_entry *entry;
    struct view_meta *meta = view_present(mmu, priv, gva, &entry);
    bool ruled;
    return meta && (meta->perm & kind) && derive(mmu, meta, entry, gva, kind, &ruled);
}

const uint8_t *mmu_view_code(const struct mmu_cpu *mmu, enum mmu_priv priv, uint64_t gva)
{
    struct view_entry *entry;
    const struct view_meta *meta = view_present(mmu, priv, gva, &entry);
    if (!meta || !(meta->flags & META_FETCH))
        return NULL;
    return (const uint8_t *)entry->page + (gva & ~PAGE_MASK);
}

/* ---- Watches -------------------------------------------------------------------------------- */

/* `hi` may be 0 for the end of the address space. */
static void drop_watched(struct mmu_cpu *mmu, const struct mmu_range *range)
{
    uint64_t first = range->lo >> PAGE_SHIFT, last = (range->hi - 1) >> PAGE_SHIFT;
    if (last - first > 16) {
        mmu_flush_all(mmu);
        return;
    }
    for (uint64_t page = first; page <= last; page++)
        for (unsigned s = 0; s < VIEW_SPACES; s++)
            if (mmu->priv->space[s].used)
                view_drop_range(mmu, &mmu->priv->space[s], page << PAGE_SHIFT, PAGE_SIZE, DROP_ALL);
}

void mmu_set_watch(struct mmu_cpu *mmu, const struct mmu_range *ranges, unsigned count)
{
    struct mmu_cpu_private *priv = mmu->priv;
    priv->watch_count = count > 4 ? 4 : count;
    for (unsigned i = 0; i < priv->watch_count; i++) {
        priv->watch[i] = ranges[i];
        drop_watched(mmu, &ranges[i]);
    }
}

/* ---- Life ----------------------------------------------------------------------------------- */

const struct mmu_counters *mmu_counters(const struct mmu_cpu *mmu)
{
    return &mmu->priv->counters;
}

void mmu_service(struct mmu_cpu *mmu)
{
    mail_read_views(mmu);
    mail_read_code(mmu);
    if (phys_rules(mmu->map))
        rules_service(phys_rules(mmu->map), mmu->vcpu);
}

void mmu_service_code(struct mmu_cpu *mmu)
{
    mail_read_code(mmu);
}

bool mmu_cpu_init(struct mmu_cpu *mmu, struct phys_map *map, struct exclusive *exclusive,
                  unsigned vcpu, const struct mmu_cpu_hooks *hooks, struct log *log,
                  struct error *err)
{
    if (vcpu >= MMU_MAX_CPUS)
        return error_set(err, "vCPU %u: at most %d vCPUs are supported", vcpu, MMU_MAX_CPUS);
    *mmu = (struct mmu_cpu){.map = map, .vcpu = vcpu};
    mmu->paging = (struct paging){.cr0 = 0x60000010, .maxphyaddr = 36, .a20 = true};
    mmu->priv = calloc(1, sizeof *mmu->priv);
    if (!mmu->priv || !mail_init(mmu)) {
        free(mmu->priv);
        mmu->priv = NULL; /* mmu_cpu_fini() may follow */
        return error_set(err, "out of host memory");
    }
    mmu->priv->hooks = *hooks;
    mmu->priv->exclusive = exclusive;
    mmu->priv->tables = mmu->priv->pages = mmu->priv->near[0] = mmu->priv->near[1] =
        (struct phys_range)PHYS_RANGE_INIT;
    mmu->priv->log = log ? log : map->log;
    space_flush_all(mmu);
    atomic_store(&map->cpus[vcpu], mmu);
    return true;
}

void mmu_cpu_fini(struct mmu_cpu *mmu)
{
    if (!mmu->priv)
        return;
    atomic_store(&mmu->map->cpus[mmu->vcpu], NULL);
    trace_free(mmu);
    for (unsigned s = 0; s < VIEW_SPACES; s++)
        for (unsigned i = 0; i < MMU_PRIVS; i++)
            view_free_table(mmu, &mmu->priv->space[s].table[i]);
    rmap_free(mmu);
    source_free(mmu);
    mail_fini(mmu);
    free(mmu->priv);
    mmu->priv = NULL;
}
