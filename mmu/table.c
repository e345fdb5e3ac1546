/*
 * table.c - view tables: putting entries in, taking them out, growing and shrinking.
 *
 * A table is direct-mapped by the low bits of the page number, so consecutive pages lie in
 * consecutive slots, and whatever came from one large page lies in one run of slots. Nothing here
 * decides WHETHER an entry has to go: space.c and trace.c do.
 */
#include "view.h"
#include <stdlib.h>
#include <string.h>

/* What fast paths see before a table has its first entry. Never written. */
#define NO_TAGS(index)                                                                             \
    {                                                                                              \
        ((index) ^ 2ull) << PAGE_SHIFT, ((index) ^ 2ull) << PAGE_SHIFT, 0, NULL                    \
    }
static const struct view_entry no_table[4] = {NO_TAGS(0), NO_TAGS(1), NO_TAGS(2), NO_TAGS(3)};

void view_set_fast(struct mmu_cpu *mmu)
{
    struct space *space = mmu->priv->current;
    for (unsigned i = 0; i < MMU_PRIVS; i++) {
        const struct view_table *t = &space->table[i];
        bool usable = t->entries && !mmu->priv->fast_off;
        mmu->fast[i].table = usable ? t->entries : (struct view_entry *)no_table;
        mmu->fast[i].mask = (usable ? (1ull << t->bits) - 1 : 3) << 5;
    }
    mmu->exec_generation = space->exec_generation;
    last_forget_all(mmu);
}

void mmu_fast_paths(struct mmu_cpu *mmu, bool on)
{
    mmu->priv->fast_off = !on;
    mmu->taken++;
    view_set_fast(mmu);
}

void view_exec_changed(struct mmu_cpu *mmu, struct space *space)
{
    space->exec_generation = ++mmu->priv->generation;
    if (space->hidden_small)
        memset(space->hidden, 0, sizeof space->hidden);
    space->hidden_small = space->hidden_large = false;
    if (space == mmu->priv->current)
        mmu->exec_generation = space->exec_generation;
}

void view_global_changed(struct mmu_cpu *mmu)
{
    mmu->global_generation = ++mmu->priv->generation;
}

static void hide(struct space *space, uint64_t gva)
{
    uint64_t bit = gva >> PAGE_SHIFT & (HIDDEN_BITS - 1);
    space->hidden[bit / 64] |= 1ull << bit % 64;
    space->hidden_small = true;
}

/* May something of [gva, gva + size) be hidden? A power of two of pages, and aligned to that. */
static bool is_hidden(const struct space *space, uint64_t gva, uint64_t size)
{
    uint64_t bit = gva >> PAGE_SHIFT & (HIDDEN_BITS - 1), pages = size >> PAGE_SHIFT;
    if (pages > 1 && space->hidden_large)
        return true;
    if (!space->hidden_small || pages >= HIDDEN_BITS)
        return space->hidden_small;
    if (pages < 64)
        return space->hidden[bit / 64] >> bit % 64 & ((1ull << pages) - 1);
    for (uint64_t i = 0; i < pages / 64; i++)
        if (space->hidden[bit / 64 + i])
            return true;
    return false;
}

/* ---- Lists ---------------------------------------------------------------------------------- */

static enum space_list list_of(const struct view_meta *meta)
{
    if (meta->flags & META_GLOBAL)
        return LIST_GLOBAL;
    return meta->flags & META_EXACT ? LIST_EXACT : LIST_VOLATILE;
}

static void list_add(struct mmu_cpu *mmu, struct space *space, uint32_t id, struct view_meta *meta)
{
    enum space_list list = list_of(meta);
    meta->list_prev = ENTRY_NONE;
    meta->list_next = space->head[list];
    if (meta->list_next != ENTRY_NONE)
        entry_meta(mmu, meta->list_next)->list_prev = id;
    space->head[list] = id;
    space->count[list]++;
}

static void list_remove(struct mmu_cpu *mmu, struct space *space, struct view_meta *meta)
{
    enum space_list list = list_of(meta);
    if (meta->list_next != ENTRY_NONE)
        entry_meta(mmu, meta->list_next)->list_prev = meta->list_prev;
    if (meta->list_prev != ENTRY_NONE)
        entry_meta(mmu, meta->list_prev)->list_next = meta->list_next;
    else
        space->head[list] = meta->list_next;
    space->count[list]--;
}

/* ---- One entry ------------------------------------------------------------------------------ */

static bool link_entry(struct mmu_cpu *mmu, struct space *space, struct view_table *table,
                       uint32_t id, const struct view_meta *meta)
{
    struct view_meta *m = &table->meta[entry_index(id)];
    *m = *meta;
    bool in_rmap = m->frame != FRAME_NONE && rmap_link(mmu, id);
    if ((m->frame != FRAME_NONE && !in_rmap) || !source_link(mmu, id)) {
        if (in_rmap)
            rmap_unlink(mmu, id);
        m->gva = GVA_NONE;
        return false;
    }
    list_add(mmu, space, id, m);
    if (m->flags & META_USER)
        mmu->priv->pkey_live[m->pkey]++;
    table->live++;
    return true;
}

static void unlink_entry(struct mmu_cpu *mmu, struct space *space, struct view_table *table,
                         uint32_t id)
{
    struct view_meta *m = &table->meta[entry_index(id)];
    struct view_entry *e = &table->entries[entry_index(id)];
    if (m->frame != FRAME_NONE)
        rmap_unlink(mmu, id);
    source_unlink(mmu, id);
    list_remove(mmu, space, m);
    if (m->flags & META_USER)
        mmu->priv->pkey_live[m->pkey]--;
    uint64_t gva = m->gva;
    m->gva = GVA_NONE;
    m->flags &= (uint8_t)~META_FETCH;
    e->tag_read = e->tag_write = view_no_tag(id);
    mmu->taken++;
    if (space == mmu->priv->current)
        last_forget(mmu, (enum mmu_priv)(table - space->table), gva);
    table->live--;
}

void view_drop(struct mmu_cpu *mmu, uint32_t id)
{
    struct space *space = entry_space(mmu, id);
    struct view_table *table = entry_table(mmu, id);
    const struct view_meta *m = &table->meta[entry_index(id)];
    bool exec = m->flags & META_FETCH;
    bool global = exec && (m->flags & META_GLOBAL);
    if (global && mmu->priv->forgetting)
        source_hide(mmu, id);
    unlink_entry(mmu, space, table, id);
    if (exec)
        view_exec_changed(mmu, space);
    if (global && !mmu->priv->forgetting)
        view_global_changed(mmu);
}

/* Another page needs the slot. The translation is as true as before, so the generation stays; but
 * an invalidation of that page must not be overlooked for want of an entry. */
static void evict(struct mmu_cpu *mmu, struct space *space, struct view_table *table, uint32_t id)
{
    const struct view_meta *m = &table->meta[entry_index(id)];
    if (m->flags & META_FETCH) {
        if (!source_hide(mmu, id))
            hide(space, m->gva);
        else if (!(m->flags & META_GLOBAL))
            space->hidden_large = true;
    }
    unlink_entry(mmu, space, table, id);
}

/* ---- Size ----------------------------------------------------------------------------------- */

/* What a process and a kernel need from the start, less of it would soon be outgrown. */
static const uint8_t first_bits[MMU_PRIVS] = {
    [MMU_SUPERVISOR] = 10,
    [MMU_USER] = 10,
    [MMU_SUPERVISOR_AC] = VIEW_MIN_BITS,
};

static bool allocate(struct mmu_cpu *mmu, struct view_table *table, unsigned bits_wanted)
{
    uint32_t n = 1u << bits_wanted;
    uint32_t budget = bits_wanted > VIEW_MIN_BITS ? VIEW_BUDGET - VIEW_RESERVE : VIEW_BUDGET;
    if (mmu->priv->entries + n > budget)
        return false;
    struct view_entry *entries = aligned_alloc(64, n * sizeof *entries);
    struct view_meta *meta = malloc(n * sizeof *meta);
    if (!entries || !meta) {
        free(entries);
        free(meta);
        return false;
    }
    for (uint32_t i = 0; i < n; i++) {
        entries[i] = no_table[i & 3];
        meta[i].gva = GVA_NONE;
    }
    table->entries = entries;
    table->meta = meta;
    table->bits = (uint8_t)bits_wanted;
    table->live = table->conflicts = 0;
    table->idle = 0;
    mmu->priv->entries += n;
    return true;
}

void view_free_table(struct mmu_cpu *mmu, struct view_table *table)
{
    if (!table->entries)
        return;
    mmu->priv->entries -= 1u << table->bits;
    free(table->entries);
    free(table->meta);
    memset(table, 0, sizeof *table);
}

/* An emptied table is as good as a new one: every slot that was used has been reset. */
void view_recycle(struct mmu_cpu *mmu, struct space *space)
{
    for (unsigned priv = 0; priv < MMU_PRIVS; priv++) {
        struct view_table *t = &space->table[priv];
        if (t->bits > first_bits[priv])
            view_free_table(mmu, t);
        t->conflicts = 0;
        t->idle = 0;
    }
}

/* Moves one entry of the old arrays into the resized table, tags and all. */
static void move_entry(struct mmu_cpu *mmu, struct space *space, enum mmu_priv priv,
                       const struct view_meta *meta, const struct view_entry *entry)
{
    struct view_table *table = &space->table[priv];
    uint32_t id = entry_id(mmu, space, priv, table_index(table, meta->gva));
    if (table->meta[entry_index(id)].gva != GVA_NONE)
        evict(mmu, space, table, id); /* only when it shrinks */
    if (link_entry(mmu, space, table, id, meta))
        table->entries[entry_index(id)] = *entry;
}

static void resize(struct mmu_cpu *mmu, struct space *space, enum mmu_priv priv,
                   unsigned bits_wanted)
{
    struct view_table *table = &space->table[priv], old = *table, fresh;
    struct view_meta *meta = malloc((old.live + 1) * sizeof *meta);
    struct view_entry *entry = malloc((old.live + 1) * sizeof *entry);
    mmu->priv->entries -= 1u << old.bits; /* those to be given back may be used: it may shrink */
    bool ok = meta && entry && allocate(mmu, &fresh, bits_wanted);
    mmu->priv->entries += 1u << old.bits;
    if (!ok) {
        free(meta);
        free(entry);
        table->conflicts = 0; /* so as not to ask again at every fill */
        return;
    }
    /* Links go by id, and ids change: all out of the lists first, then in again. */
    uint32_t kept = 0;
    for (uint32_t i = 0; i < 1u << old.bits; i++)
        if (old.meta[i].gva != GVA_NONE) {
            meta[kept] = old.meta[i];
            entry[kept++] = old.entries[i];
            unlink_entry(mmu, space, table, entry_id(mmu, space, priv, i));
        }
    *table = fresh;
    for (uint32_t i = 0; i < kept; i++)
        move_entry(mmu, space, priv, &meta[i], &entry[i]);
    free(meta);
    free(entry);
    view_free_table(mmu, &old);
    mmu->priv->counters.resizes++;
    if (space == mmu->priv->current)
        view_set_fast(mmu);
}

/* Growing costs about what the conflicts have cost by then, whether they came in a rush or, say,
 * thirty after each flush. So they are not forgotten at flushes: a table whose pages keep pushing
 * one another out grows in the end. More slowly where few slots are in use: two pages that share
 * one may well share one of a larger table. But a stack and an array that meet in every call of a
 * function cost more than any table does: a millisecond for each few thousand calls, as long as the
 * program runs. */
static bool is_crowded(const struct view_table *table)
{
    enum { MANY = 8192 };
    uint32_t slots = 1u << table->bits;
    bool sparse = table->bits >= VIEW_AMPLE_BITS && table->live < slots / 16;
    uint32_t enough = sparse || slots / 2 > MANY ? MANY : slots / 2;
    return table->conflicts > enough && table->bits < VIEW_MAX_BITS;
}

enum { TRIM_AFTER = 16 };

/* An empty slot costs nothing but memory: so only when that is getting scarce. */
void view_trim(struct mmu_cpu *mmu, struct space *space)
{
    if (mmu->priv->entries < VIEW_BUDGET / 2)
        return;
    for (unsigned priv = 0; priv < MMU_PRIVS; priv++) {
        struct view_table *t = &space->table[priv];
        if (!t->entries)
            continue;
        bool sparse = t->bits > VIEW_MIN_BITS && t->live < (1u << t->bits) / 16;
        t->idle = sparse ? (uint8_t)(t->idle + 1) : 0;
        if (t->idle >= TRIM_AFTER)
            resize(mmu, space, priv, t->bits - 1u);
    }
}

/* ---- In and out ----------------------------------------------------------------------------- */

uint32_t view_insert(struct mmu_cpu *mmu, struct space *space, enum mmu_priv priv,
                     const struct view_meta *meta)
{
    struct view_table *table = &space->table[priv];
    if (!table->entries) {
        if (!allocate(mmu, table, first_bits[priv]) && !allocate(mmu, table, VIEW_MIN_BITS))
            return ENTRY_NONE;
        if (space == mmu->priv->current)
            view_set_fast(mmu);
    }
    if (is_crowded(table))
        resize(mmu, space, priv,
               table->bits + 2u > VIEW_MAX_BITS ? VIEW_MAX_BITS : table->bits + 2u);
    uint32_t id = entry_id(mmu, space, priv, table_index(table, meta->gva));
    struct view_meta *there = &table->meta[entry_index(id)];
    bool keep_exec = false;
    if (there->gva == meta->gva) {
        /* Filled before for another kind of access, say before D was set. Fetches that were valid
         * stay valid if they go to the same place, under the same number: a local page's is not the
         * one that code of a global page goes by. */
        keep_exec = (there->flags & META_FETCH) && there->gpa == meta->gpa &&
                    there->frame == meta->frame && (meta->perm & ACCESS_EXEC) &&
                    !((there->flags ^ meta->flags) & META_GLOBAL);
        if (keep_exec)
            unlink_entry(mmu, space, table, id);
        else
            view_drop(mmu, id);
    } else if (there->gva != GVA_NONE) {
        table->conflicts++;
        evict(mmu, space, table, id);
    }
    if (!link_entry(mmu, space, table, id, meta)) {
        if (keep_exec) {
            view_exec_changed(mmu, space);
            view_global_changed(mmu);
        }
        return ENTRY_NONE;
    }
    if (keep_exec)
        there->flags |= META_FETCH;
    return id;
}

void view_drop_list(struct mmu_cpu *mmu, struct space *space, enum space_list list)
{
    if (space == mmu->priv->current)
        last_forget_all(mmu); /* not one by one */
    while (space->head[list] != ENTRY_NONE)
        view_drop(mmu, space->head[list]);
    if (space->hidden_small || space->hidden_large)
        view_exec_changed(mmu, space);
}

void view_drop_space(struct mmu_cpu *mmu, struct space *space)
{
    for (unsigned list = 0; list < LISTS; list++)
        view_drop_list(mmu, space, list);
}

static bool concerned(const struct view_meta *m, uint64_t gva, uint64_t size, enum drop_what what)
{
    if (m->gva == GVA_NONE || m->gva - gva >= size)
        return false;
    return what == DROP_ALL || !(m->flags & META_GLOBAL);
}

/* How many slots of the table may hold something of a range of that size. */
static uint32_t slots_for(const struct view_table *table, uint64_t size)
{
    uint64_t pages = size >> PAGE_SHIFT, slots = 1u << table->bits;
    return table->live == 0 ? 0 : (uint32_t)(pages < slots ? pages : slots);
}

static void drop_by_slots(struct mmu_cpu *mmu, struct space *space, enum mmu_priv priv,
                          uint64_t gva, uint64_t size, enum drop_what what)
{
    struct view_table *t = &space->table[priv];
    uint32_t first = table_index(t, gva), mask = (1u << t->bits) - 1, count = slots_for(t, size);
    mmu->priv->counters.drop_steps += count;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t index = (first + i) & mask;
        if (concerned(&t->meta[index], gva, size, what))
            view_drop(mmu, entry_id(mmu, space, priv, index));
    }
}

static void drop_by_lists(struct mmu_cpu *mmu, struct space *space, uint64_t gva, uint64_t size,
                          enum drop_what what)
{
    for (unsigned list = 0; list < LISTS; list++)
        for (uint32_t id = space->head[list], next; id != ENTRY_NONE; id = next) {
            const struct view_meta *m = entry_meta(mmu, id);
            next = m->list_next;
            mmu->priv->counters.drop_steps++;
            if (concerned(m, gva, size, what))
                view_drop(mmu, id);
        }
}

void view_drop_range(struct mmu_cpu *mmu, struct space *space, uint64_t gva, uint64_t size,
                     enum drop_what what)
{
    uint32_t slots = 0, entries = 0;
    gva &= ~(size - 1);
    for (unsigned priv = 0; priv < MMU_PRIVS; priv++)
        slots += slots_for(&space->table[priv], size);
    for (unsigned list = 0; list < LISTS; list++)
        entries += space->count[list];
    if (entries < slots)
        drop_by_lists(mmu, space, gva, size, what);
    else
        for (unsigned priv = 0; priv < MMU_PRIVS; priv++)
            drop_by_slots(mmu, space, priv, gva, size, what);
    if (is_hidden(space, gva, size))
        view_exec_changed(mmu, space);
}
