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
 *
 * A source also remembers that fetches from its page may be cached by virtual address although the
 * entry that showed them was evicted ("hidden"): an invalidation must change the generations of
 * those spaces, and one of another page should not, or a kernel whose code collides with something
 * would lose its virtual-PC cache at every INVLPG.
 */
#include "view.h"
#include <stdlib.h>

enum { SOURCES_MIN = 256, BARE_MAX = 1024 };
#define SOURCE_NONE UINT32_MAX

struct source {
    uint64_t page;  /* gva >> shift */
    uint16_t space; /* a number, or SPACE_ANY */
    uint8_t shift;
    bool hidden;        /* global: global_generation is concerned; local: hidden_in is not 0 */
    uint32_t hidden_in; /* the spaces whose exec_generation is concerned, a bit each */
    uint32_t head;      /* of its entries; ENTRY_NONE only while hidden */
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
        index->count[m->shift]++;
        index->bare++; /* until it gets its entry below */
    }
    struct source *s = &index->source[*link];
    m->source_prev = ENTRY_NONE;
    m->source_next = s->head;
    if (s->head != ENTRY_NONE)
        entry_meta(mmu, s->head)->source_prev = id;
    else
        index->bare--;
    s->head = id;
    return true;
}

/* Takes a source without entries out of the table. */
static void remove_bare(struct source_index *index, uint32_t *link)
{
    uint32_t at = *link;
    struct source *s = &index->source[at];
    *link = s->hash_next;
    s->hash_next = index->free;
    index->free = at;
    index->count[s->shift]--;
    index->bare--;
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
    uint32_t *link = find(index, m->gva, m->shift, space_of_entry(mmu, id, m));
    struct source *s = &index->source[*link];
    s->head = m->source_next;
    if (s->head != ENTRY_NONE)
        return;
    index->bare++;
    if (!s->hidden)
        remove_bare(index, link);
}

/* ---- What is hidden ------------------------------------------------------------------------- */

static void spaces_changed(struct mmu_cpu *mmu, uint32_t spaces)
{
    for (; spaces; spaces &= spaces - 1) {
        struct space *space = &mmu->priv->space[__builtin_ctz(spaces)];
        if (space->used)
            view_exec_changed(mmu, space);
    }
}

/* A guest can fetch from any number of pages. Too many of them: all fetches count as changed, and
 * nothing is hidden any more. */
static void forget_hidden(struct mmu_cpu *mmu)
{
    struct source_index *index = &mmu->priv->sources;
    for (uint32_t i = 0; i < index->room; i++)
        for (uint32_t *link = &index->bucket[i]; *link != SOURCE_NONE;) {
            struct source *s = &index->source[*link];
            s->hidden = false;
            s->hidden_in = 0;
            if (s->head == ENTRY_NONE)
                remove_bare(index, link);
            else
                link = &s->hash_next;
        }
    spaces_changed(mmu, UINT32_MAX);
    view_global_changed(mmu);
}

bool source_hide(struct mmu_cpu *mmu, uint32_t id)
{
    struct source_index *index = &mmu->priv->sources;
    const struct view_meta *m = entry_meta(mmu, id);
    if (!has_source(m))
        return false;
    if (index->bare >= BARE_MAX)
        forget_hidden(mmu);
    struct source *s = &index->source[*find(index, m->gva, m->shift, space_of_entry(mmu, id, m))];
    s->hidden = true;
    s->hidden_in |= 1u << space_of(mmu, entry_space(mmu, id), false);
    return true;
}

/* ---- Dropping ------------------------------------------------------------------------------- */

static void drop_source(struct mmu_cpu *mmu, uint64_t gva, unsigned shift, unsigned space)
{
    struct source_index *index = &mmu->priv->sources;
    if (!index->count[shift])
        return;
    uint32_t *link = find(index, gva, shift, space);
    mmu->priv->counters.drop_steps++;
    if (*link == SOURCE_NONE)
        return;
    struct source *s = &index->source[*link];
    uint32_t id = s->head, hidden_in = s->hidden_in;
    bool hidden = s->hidden;
    s->hidden = false;
    s->hidden_in = 0;
    if (id == ENTRY_NONE)
        remove_bare(index, link);
    for (uint32_t next; id != ENTRY_NONE; id = next) { /* the last one takes the source along */
        next = entry_meta(mmu, id)->source_next;
        view_drop(mmu, id);
        mmu->priv->counters.drop_steps++;
    }
    spaces_changed(mmu, hidden_in);
    if (hidden && space == SPACE_ANY)
        view_global_changed(mmu);
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
