/*
 * rmap.c - the reverse map: from a guest frame to every view entry of this vCPU that shows it.
 *
 * One doubly linked list per frame, threaded through the entries' own meta words, so linking
 * allocates nothing. The list heads are a two-level array over frame numbers: a chunk of 1024 heads
 * appears when the first of its frames gets an entry.
 *
 * Only the owner's thread comes here, or the initiator of an exclusive section while the owner is
 * stopped; the latter never links, so it never allocates.
 */
#include "view.h"
#include <stdlib.h>

enum { CHUNK_SHIFT = 10, CHUNK = 1 << CHUNK_SHIFT };

static uint32_t *head_of(const struct mmu_cpu *mmu, uint32_t frame)
{
    const struct mmu_cpu_private *priv = mmu->priv;
    uint32_t chunk = frame >> CHUNK_SHIFT;
    if (chunk >= priv->rmap_chunks || !priv->rmap[chunk])
        return NULL;
    return &priv->rmap[chunk][frame & (CHUNK - 1)];
}

static bool grow_directory(struct mmu_cpu_private *priv, uint32_t chunk)
{
    uint32_t n = priv->rmap_chunks ? priv->rmap_chunks : 64;
    while (n <= chunk)
        n *= 2;
    uint32_t **more = realloc(priv->rmap, n * sizeof *more);
    if (!more)
        return false;
    for (uint32_t i = priv->rmap_chunks; i < n; i++)
        more[i] = NULL;
    priv->rmap = more;
    priv->rmap_chunks = n;
    return true;
}

static uint32_t *make_head(struct mmu_cpu *mmu, uint32_t frame)
{
    struct mmu_cpu_private *priv = mmu->priv;
    uint32_t chunk = frame >> CHUNK_SHIFT;
    if (chunk >= priv->rmap_chunks && !grow_directory(priv, chunk))
        return NULL;
    if (!priv->rmap[chunk]) {
        uint32_t *heads = malloc(CHUNK * sizeof *heads);
        if (!heads)
            return NULL;
        for (unsigned i = 0; i < CHUNK; i++)
            heads[i] = ENTRY_NONE;
        priv->rmap[chunk] = heads;
    }
    return &priv->rmap[chunk][frame & (CHUNK - 1)];
}

uint32_t rmap_first(const struct mmu_cpu *mmu, uint32_t frame)
{
    const uint32_t *head = head_of(mmu, frame);
    return head ? *head : ENTRY_NONE;
}

bool rmap_link(struct mmu_cpu *mmu, uint32_t id)
{
    struct view_meta *m = entry_meta(mmu, id);
    uint32_t *head = head_of(mmu, m->frame);
    if (!head && !(head = make_head(mmu, m->frame)))
        return false;
    m->frame_prev = ENTRY_NONE;
    m->frame_next = *head;
    if (*head != ENTRY_NONE)
        entry_meta(mmu, *head)->frame_prev = id;
    *head = id;
    return true;
}

void rmap_unlink(struct mmu_cpu *mmu, uint32_t id)
{
    struct view_meta *m = entry_meta(mmu, id);
    if (m->frame_next != ENTRY_NONE)
        entry_meta(mmu, m->frame_next)->frame_prev = m->frame_prev;
    if (m->frame_prev != ENTRY_NONE)
        entry_meta(mmu, m->frame_prev)->frame_next = m->frame_next;
    else
        *head_of(mmu, m->frame) = m->frame_next;
}

void rmap_revoke_write(struct mmu_cpu *mmu, uint32_t frame)
{
    struct frame *f = frame_by_number(mmu->map, frame);
    if (!frame_may_write(f, mmu->vcpu))
        return;
    for (uint32_t id = rmap_first(mmu, frame); id != ENTRY_NONE;
         id = entry_meta(mmu, id)->frame_next)
        entry_fast(mmu, id)->tag_write = view_no_tag(id);
    frame_revoked(f, mmu->vcpu);
    last_forget_all(mmu);
    mmu->taken++;
    mmu->priv->counters.revokes++;
}

void rmap_revoke_read(struct mmu_cpu *mmu, uint32_t frame, bool read, bool exec)
{
    for (uint32_t id = rmap_first(mmu, frame); id != ENTRY_NONE;
         id = entry_meta(mmu, id)->frame_next) {
        if (read)
            entry_fast(mmu, id)->tag_read = view_no_tag(id);
        if (exec)
            entry_meta(mmu, id)->flags &= (uint8_t)~META_FETCH;
    }
    last_forget_all(mmu);
    mmu->taken++;
    mmu->priv->counters.revokes++;
}

/* Fetches may be remembered where no entry shows them (view_exec_changed()), so every space counts
 * as changed. */
void rmap_exec_changed(struct mmu_cpu *mmu)
{
    for (unsigned i = 0; i < VIEW_SPACES; i++)
        if (mmu->priv->space[i].used)
            view_exec_changed(mmu, &mmu->priv->space[i]);
    view_global_changed(mmu);
}

void rmap_free(struct mmu_cpu *mmu)
{
    for (uint32_t i = 0; i < mmu->priv->rmap_chunks; i++)
        free(mmu->priv->rmap[i]);
    free(mmu->priv->rmap);
}

unsigned mmu_count_entries_of_frame(struct mmu_cpu *mmu, uint64_t frame_gpa)
{
    struct phys_range range = PHYS_RANGE_INIT;
    unsigned n = 0;
    phys_find(mmu->map, frame_gpa, &range);
    if (!range_is_memory(&range))
        return 0;
    for (uint32_t id = rmap_first(mmu, range_frame_number(&range, frame_gpa)); id != ENTRY_NONE;
         id = entry_meta(mmu, id)->frame_next) {
        const struct view_entry *e = entry_fast(mmu, id);
        n += view_tag_allows(e->tag_read, id) || view_tag_allows(e->tag_write, id) ||
             (entry_meta(mmu, id)->flags & META_FETCH);
    }
    return n;
}
