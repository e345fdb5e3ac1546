/*
 * source.c - from a large or global page to every view entry that came from it.
 *
 * INVLPG must drop all that was derived from the large page around an address, and what came from
 * global pages in every space (SDM vol. 3, 4.10.4.1). A kernel's large page may be in use in 32
 * spaces, four times as many tables and thousands of slots; mostly there is nothing at all. So the
 * entries of each such page form a list, and an invalidation costs one look into a hash table and
 * what there is to drop.
 *
 *      bucket -> source { page, shift, space } -> source ...       by hash_next
 *                   |
 *                  head -> entry <-> entry <-> entry               by meta.source_next, source_prev
 *
 * A local source belongs to one space, a global one to all. Entries of local 4-KiB pages have none:
 * their slot is found by the address.
 */
#include "view.h"
#include <stdlib.h>

enum { SOURCES_MIN = 256 };
#define SOURCE_NONE UINT32_MAX

struct source {
    uint64_t page;  /* gva >> shift */
    uint16_t space; /* a number, or SPACE_ANY */
    uint8_t shift;
    uint32_t head; /* of its entries; never empty while it is in the table */
    uint32_t hash_next;
};
enum { SPACE_ANY = VIEW_SPACES };

/* ---- Finding -------------------------------------------------------------------------------- */

static uint32_t *bucket(const struct source_index *index, uint64_t page, unsigned shift,
                        unsigned space)
{
    uint64_t h = (page << 12 | shift << 6 | space) * 0x9e3779b97f4a7c15ull;
    return &index->bucket[(h >> 32) & (index->room - 1)];
}

static unsigned space_of(const struct mmu_cpu *mmu, const struct space *space, bool global)
{
    return global ? SPACE_ANY : (unsigned)(space - mmu->priv->space);
}

/* The link that leads to the source: *link is SOURCE_NONE when there is none. */
static uint32_t *find(const struct source_index *index, uint64_t gva, unsigned shift,
                      unsigned space)
{
    uint32_t *link = bucket(index, gva >> shift, shift, space);
    for (; *link != SOURCE_NONE; link = &index->source[*link].hash_next) {
        const struct source *s = &index->source[*link];
        if (s->page == gva >> shift && s->shift == shift && s->space == space)
            break;
    }
    return link;
}

/* ---- Room ----------------------------------------------------------------------------------- */

static bool grow(struct source_index *index)
{
    uint32_t room = index->room ? 2 * index->room : SOURCES_MIN;
    struct source *source = realloc(index->source, room * sizeof *source);
    if (source)
        index->source = source;
    uint32_t *heads = malloc(room * sizeof *heads);
    if (!source || !heads) {
        free(heads);
        return false;
    }
    free(index->bucket);
    index->bucket = heads;
    /* Growing happens when none is free: all of the old ones are in use. */
    uint32_t used = index->room;
    index->room = room;
    for (uint32_t i = 0; i < room; i++)
        heads[i] = SOURCE_NONE;
    for (uint32_t i = 0; i < used; i++) {
        uint32_t *at = bucket(index, source[i].page, source[i].shift, source[i].space);
        source[i].hash_next = *at;
        *at = i;
    }
    for (uint32_t i = used; i < room; i++)
        source[i].hash_next = i + 1 < room ? i + 1 : SOURCE_NONE;
    index->free = used;
    return true;
}

void source_free(struct mmu_cpu *mmu)
{
    free(mmu->priv->sources.source);
    free(mmu->priv->sources.bucket);
}

/* ---- Entries -------------------------------------------------------------------------------- */

static bool has_source(const struct view_meta *meta)
{
    return meta->shift > PAGE_SHIFT || (meta->flags & META_GLOBAL);
}

static unsigned space_of_entry(struct mmu_cpu *mmu, uint32_t id, const struct view_meta *meta)
{
    return space_of(mmu, entry_space(mmu, id), meta->flags & META_GLOBAL);
}

bool source_link(struct mmu_cpu *mmu, uint32_t id)
{
    struct source_index *index = &mmu->priv->sources;
    struct view_meta *m = entry_meta(mmu, id);
    if (!has_source(m))
        return true;
    if ((!index->room || index->free == SOURCE_NONE) && !grow(index))
        return false;
    unsigned space = space_of_entry(mmu, id, m);
    uint32_t *link = find(index, m->gva, m->shift, space);
    if (*link == SOURCE_NONE) {
        *link = index->free;
        struct source *fresh = &index->source[*link];
        index->free = fresh->hash_next;
        *fresh = (struct source){.page = m->gva >> m->shift,
                                 .space = (uint16_t)space,
                                 .shift = m->shift,
                                 .head = ENTRY_NONE,
                                 .hash_next = SOURCE_NONE};
        index->live[m->shift]++;
    }
    struct source *s = &index->source[*link];
    m->source_prev = ENTRY_NONE;
    m->source_next = s->head;
    if (s->head != ENTRY_NONE)
        entry_meta(mmu, s->head)->source_prev = id;
    s->head = id;
    return true;
}

void source_unlink(struct mmu_cpu *mmu, uint32_t id)
{
    struct source_index *index = &mmu->priv->sources;
    const struct view_meta *m = entry_meta(mmu, id);
    if (!has_source(m))
        return;
    if (m->source_next != ENTRY_NONE)
        entry_meta(mmu, m->source_next)->source_prev = m->source_prev;
    if (m->source_prev != ENTRY_NONE) {
        entry_meta(mmu, m->source_prev)->source_next = m->source_next;
        return;
    }
    uint32_t *link = find(index, m->gva, m->shift, space_of_entry(mmu, id, m)), at = *link;
    struct source *s = &index->source[at];
    s->head = m->source_next;
    if (s->head != ENTRY_NONE)
        return;
    *link = s->hash_next;
    s->hash_next = index->free;
    index->free = at;
    index->live[m->shift]--;
}

static void drop_source(struct mmu_cpu *mmu, uint64_t gva, unsigned shift, unsigned space)
{
    const struct source_index *index = &mmu->priv->sources;
    if (!index->live[shift])
        return;
    uint32_t at = *find(index, gva, shift, space);
    mmu->priv->counters.drop_steps++;
    if (at == SOURCE_NONE)
        return;
    for (uint32_t id = index->source[at].head, next; id != ENTRY_NONE; id = next) {
        next = entry_meta(mmu, id)->source_next;
        view_drop(mmu, id);
        mmu->priv->counters.drop_steps++;
    }
}

void source_drop_local(struct mmu_cpu *mmu, struct space *space, uint64_t gva)
{
    static const uint8_t shifts[] = {21, 22, 30};
    for (unsigned i = 0; i < sizeof shifts; i++)
        drop_source(mmu, gva, shifts[i], space_of(mmu, space, false));
}

void source_drop_global(struct mmu_cpu *mmu, uint64_t gva)
{
    static const uint8_t shifts[] = {PAGE_SHIFT, 21, 22, 30};
    for (unsigned i = 0; i < sizeof shifts; i++)
        drop_source(mmu, gva, shifts[i], SPACE_ANY);
}
