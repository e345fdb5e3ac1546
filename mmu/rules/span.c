/*
 * span.c - which bytes of a frame have rules, what that makes of the frame, and taking it out of
 * the views (DESIGN section 6: derivation).
 *
 * A frame's attribute word says which kinds of access must be asked about: RULED_READ, RULED_WRITE,
 * RULED_EXEC for those that some rule forbids to some code, RULED when anybody at all, DMA for
 * instance, is meant. Views give no fast permission of that kind for such a frame (view.c), so an
 * unprotected page costs nothing, and a page that is protected against stores still reads at full
 * speed.
 */
#include "../mail.h"
#include "../view.h"
#include "table.h"
#include <stdlib.h>

enum { CHUNK_SHIFT = 10, CHUNK = 1 << CHUNK_SHIFT };

/* ---- Lists ----------------------------------------------------------------------------------- */

static uint32_t *head_of(const struct rules *r, uint32_t frame)
{
    uint32_t chunk = frame >> CHUNK_SHIFT;
    if (chunk >= r->head_chunks || !r->heads[chunk])
        return NULL;
    return &r->heads[chunk][frame & (CHUNK - 1)];
}

uint32_t span_first(const struct rules *r, uint32_t frame)
{
    const uint32_t *head = head_of(r, frame);
    return head ? *head : NONE;
}

static bool grow_directory(struct rules *r, uint32_t chunk)
{
    uint32_t n = r->head_chunks ? r->head_chunks : 64;
    while (n <= chunk)
        n *= 2;
    uint32_t **more = realloc(r->heads, n * sizeof *more);
    if (!more)
        return false;
    for (uint32_t i = r->head_chunks; i < n; i++)
        more[i] = NULL;
    r->heads = more;
    r->head_chunks = n;
    return true;
}

bool span_reserve_head(struct rules *r, uint32_t frame)
{
    uint32_t chunk = frame >> CHUNK_SHIFT;
    if (chunk >= r->head_chunks && !grow_directory(r, chunk))
        return false;
    if (r->heads[chunk])
        return true;
    uint32_t *heads = malloc(CHUNK * sizeof *heads);
    if (!heads)
        return false;
    for (unsigned i = 0; i < CHUNK; i++)
        heads[i] = NONE;
    r->heads[chunk] = heads;
    return true;
}

void span_add(struct rules *r, uint32_t region, uint32_t page, uint32_t frame)
{
    uint32_t index = pool_take(&r->spans, sizeof(struct span)), *head = head_of(r, frame);
    struct span *s = span_at(r, index);
    *s = (struct span){.next = *head, .region = region, .page = page};
    region_bytes(region_at(r, region), page, &s->lo, &s->hi);
    r->ruled_pages += *head == NONE;
    *head = index;
}

void span_remove(struct rules *r, uint32_t region, uint32_t page, uint32_t frame)
{
    uint32_t *link = head_of(r, frame);
    while (span_at(r, *link)->region != region || span_at(r, *link)->page != page)
        link = &span_at(r, *link)->next;
    uint32_t index = *link;
    *link = span_at(r, index)->next;
    pool_give(&r->spans, index, sizeof(struct span));
    r->ruled_pages -= span_first(r, frame) == NONE;
}

/* ---- Deriving -------------------------------------------------------------------------------- */

/* Takes the fast permissions that `attr` forbids out of all views. The vCPUs are parked, which is
 * what makes it right to edit them here. */
static void revoke(struct rules *r, uint32_t frame, uint32_t attr)
{
    for (unsigned i = 0; i < MMU_MAX_CPUS; i++) {
        struct mmu_cpu *mmu = atomic_load(&r->map->cpus[i]);
        if (!mmu)
            continue;
        if (attr & FRAME_SLOW_WRITE)
            rmap_revoke_write(mmu, frame);
        if (attr & (FRAME_RULED_READ | FRAME_RULED_EXEC))
            rmap_revoke_read(mmu, frame, attr & FRAME_RULED_READ, attr & FRAME_RULED_EXEC);
    }
    if (attr & FRAME_RULED_EXEC) {
        frame_forget_code(r->map, frame);
        r->exec_taken = true;
    }
}

void span_settle(struct rules *r)
{
    for (unsigned i = 0; r->exec_taken && i < MMU_MAX_CPUS; i++) {
        struct mmu_cpu *mmu = atomic_load(&r->map->cpus[i]);
        if (mmu)
            rmap_exec_changed(mmu);
    }
    r->exec_taken = false;
}

void span_tighten(struct rules *r, uint32_t frame, uint32_t attr)
{
    struct frame *f = frame_by_number(r->map, frame);
    uint32_t before = atomic_load(&f->attr);
    if ((before & attr) == attr)
        return;
    atomic_fetch_or(&f->attr, attr);
    frame_await(r->map, f, FRAME_LENT); /* DMA under way ends before the rule is in force */
    if (attr & ~before & (FRAME_RULED_CODE | FRAME_RULED_TABLE))
        revoke(r, frame, attr & ~before);
}

void span_derive(struct rules *r, uint32_t frame)
{
    struct frame *f = frame_by_number(r->map, frame);
    uint32_t attr = 0, had = atomic_load(&f->attr) & (FRAME_RULED | FRAME_RULED_CODE);
    /* Until it is clear that the frame keeps what it has. */
    for (uint32_t i = span_first(r, frame); i != NONE && had & ~attr; i = span_at(r, i)->next) {
        uint32_t rule = region_at(r, span_at(r, i)->region)->rule;
        if (rule != NONE)
            attr |= rule_at(r, rule)->attr;
    }
    atomic_fetch_and(&f->attr, ~((FRAME_RULED | FRAME_RULED_CODE) & ~attr));
    span_tighten(r, frame, attr);
}
