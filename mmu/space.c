/*
 * space.c - address spaces: which views exist, which is current, and what each architectural
 * invalidation drops (SDM vol. 3, 4.10.4; vol. 2, INVLPG and INVPCID; docs/mmu.md, "Exactness").
 *
 * With CR4.PCIDE = 1 a space is a PCID; with PCIDE = 0 it is a root, although the processor knows
 * one PCID only then: MOV CR3 drops what it must of the space that is ENTERED, and spaces that are
 * not current are never used, so dropping late is dropping in time.
 *
 * A global entry lives in the space that filled it. Being allowed to forget is what makes that
 * right: another space fills its own. Whatever invalidates globals looks into all spaces.
 */
#include "mail.h"
#include "view.h"
#include <string.h>

/* No-flush switches to one space before its entries are dropped all the same, so that A bits that
 * the guest has cleared without invalidating get set again (DESIGN section 5). */
enum { SWEEP_AFTER = 4096 };

/* ---- Finding -------------------------------------------------------------------------------- */

#define KEY_NO_PAGING (1ull << 60)
#define KEY_PCID      (2ull << 60)
#define KEY_ROOT      (3ull << 60)

static uint64_t pcid_key(const struct paging *p, uint64_t pcid)
{
    return p->cr4 & PG_CR4_PCIDE ? KEY_PCID | pcid : 0;
}

static uint64_t root_of(const struct paging *p)
{
    return p->cr3 & (paging_mode(p) == PAGING_PAE ? bits(51, 5) : bits(51, 12));
}

static uint64_t space_key(const struct paging *p)
{
    if (paging_mode(p) == PAGING_NONE)
        return KEY_NO_PAGING;
    if (p->cr4 & PG_CR4_PCIDE)
        return pcid_key(p, p->cr3 & 0xfff);
    return KEY_ROOT | root_of(p);
}

static struct space *find_space(struct mmu_cpu *mmu, uint64_t key)
{
    for (unsigned i = 0; i < VIEW_SPACES; i++)
        if (mmu->priv->space[i].used && mmu->priv->space[i].key == key)
            return &mmu->priv->space[i];
    return NULL;
}

/* Its entries go, but what was global is as true as before, elsewhere. */
static void forget_space(struct mmu_cpu *mmu, struct space *space)
{
    mmu->priv->forgetting = true;
    view_drop_space(mmu, space);
    mmu->priv->forgetting = false;
}

static void release(struct mmu_cpu *mmu, struct space *space)
{
    trace_stop(mmu, space);
    forget_space(mmu, space);
    view_recycle(mmu, space);
    space->used = false;
}

/* A free slot, or the one that was used longest ago. */
static struct space *vacate(struct mmu_cpu *mmu)
{
    struct space *oldest = NULL;
    for (unsigned i = 0; i < VIEW_SPACES; i++) {
        struct space *s = &mmu->priv->space[i];
        if (!s->used)
            return s;
        if (s != mmu->priv->current && (!oldest || s->used_at < oldest->used_at))
            oldest = s;
    }
    mmu->priv->counters.views_evicted++;
    release(mmu, oldest);
    return oldest;
}

static void name_space(const struct mmu_cpu *mmu, struct space *space)
{
    space->root = root_of(&mmu->paging);
    memcpy(space->pdpte, mmu->paging.pdpte, sizeof space->pdpte);
}

static struct space *make_space(struct mmu_cpu *mmu, uint64_t key)
{
    struct space *space = vacate(mmu);
    struct view_table table[MMU_PRIVS];
    memcpy(table, space->table, sizeof table);
    *space = (struct space){.used = true, .key = key};
    memcpy(space->table, table, sizeof table);
    for (unsigned list = 0; list < LISTS; list++)
        space->head[list] = ENTRY_NONE;
    space->uses_head = UINT32_MAX;
    space->exec_generation = ++mmu->priv->generation;
    name_space(mmu, space);
    mmu->priv->counters.views_made++;
    return space;
}

static bool is_other_root(const struct mmu_cpu *mmu, const struct space *space)
{
    return space->root != root_of(&mmu->paging) ||
           (paging_mode(&mmu->paging) == PAGING_PAE &&
            memcmp(space->pdpte, mmu->paging.pdpte, sizeof space->pdpte) != 0);
}

static void make_current(struct mmu_cpu *mmu, struct space *space)
{
    mmu->priv->current = space;
    space->used_at = ++mmu->priv->clock;
    view_set_fast(mmu);
}

/* ---- Flushes -------------------------------------------------------------------------------- */

/* What is neither global nor exact. */
static void flush_local(struct mmu_cpu *mmu, struct space *space)
{
    view_trim(mmu, space); /* looks at what it held until now */
    view_drop_list(mmu, space, LIST_VOLATILE);
    space->unflushed = 0;
}

/* Forgets all spaces; the way after a change of mode, and at power-on. */
void space_flush_all(struct mmu_cpu *mmu)
{
    mmu->priv->current = NULL;
    for (unsigned i = 0; i < VIEW_SPACES; i++)
        if (mmu->priv->space[i].used)
            release(mmu, &mmu->priv->space[i]);
    view_global_changed(mmu);
    make_current(mmu, make_space(mmu, space_key(&mmu->paging)));
}

void mmu_flush_all(struct mmu_cpu *mmu)
{
    mmu->priv->counters.flushes++;
    for (unsigned i = 0; i < VIEW_SPACES; i++)
        if (mmu->priv->space[i].used) {
            view_drop_space(mmu, &mmu->priv->space[i]);
            view_exec_changed(mmu, &mmu->priv->space[i]);
        }
    view_global_changed(mmu);
}

/* ---- MOV CR3 -------------------------------------------------------------------------------- */

/* `storing`: another thread may have stored to a traced table without having posted its letter yet.
 * Had the guest seen that store, this instruction would have to make it take effect. */
static void flush_context(struct mmu_cpu *mmu, struct space *space, bool storing)
{
    if (storing && space->tracing)
        view_drop_list(mmu, space, LIST_EXACT);
    flush_local(mmu, space);
}

static void enter_known(struct mmu_cpu *mmu, struct space *space, bool no_flush, bool storing)
{
    if (is_other_root(mmu, space)) {
        /* Globals belong to no root (SDM 4.10.2.4). Of a kernel they are most of its entries, and
         * kernels give a PCID to one process after the other. */
        trace_stop(mmu, space);
        flush_local(mmu, space);
        name_space(mmu, space);
    } else if (!no_flush) {
        trace_judge(space);
        flush_context(mmu, space, storing);
    } else if (++space->unflushed >= SWEEP_AFTER) {
        flush_local(mmu, space);
    }
}

void mmu_set_cr3(struct mmu_cpu *mmu, uint64_t cr3, bool no_flush, const uint64_t pdpte[4])
{
    struct paging *p = &mmu->paging;
    bool storing = atomic_load(&mmu->map->stores) != 0; /* before the box is read */
    mail_read_views(mmu);
    trace_pending(mmu, mmu->priv->current);
    p->cr3 = cr3;
    if (pdpte)
        memcpy(p->pdpte, pdpte, sizeof p->pdpte);
    if (paging_mode(p) == PAGING_NONE)
        return;
    mmu->priv->counters.view_switches++;
    uint64_t key = space_key(p);
    struct space *space = find_space(mmu, key);
    if (space)
        enter_known(mmu, space, no_flush && (p->cr4 & PG_CR4_PCIDE), storing);
    else
        space = make_space(mmu, key);
    make_current(mmu, space);
}

/* ---- Other registers ------------------------------------------------------------------------ */

/* A change of any of these makes entries mean something else. Rare enough to forget everything. */
static bool is_structural(const struct paging *a, const struct paging *b)
{
    uint64_t cr0 = PG_CR0_PG | PG_CR0_WP;
    uint64_t cr4 = PG_CR4_PSE | PG_CR4_PAE | PG_CR4_PGE | PG_CR4_PCIDE | PG_CR4_SMEP | PG_CR4_SMAP |
                   PG_CR4_PKE;
    uint64_t efer = PG_EFER_LMA | PG_EFER_NXE;
    return ((a->cr0 ^ b->cr0) & cr0) || ((a->cr4 ^ b->cr4) & cr4) || ((a->efer ^ b->efer) & efer) ||
           a->maxphyaddr != b->maxphyaddr || a->nx != b->nx || a->gib_pages != b->gib_pages ||
           a->a20 != b->a20;
}

static void drop_keys(struct mmu_cpu *mmu, struct space *space, unsigned keys)
{
    for (unsigned list = 0; list < LISTS; list++)
        for (uint32_t id = space->head[list], next; id != ENTRY_NONE; id = next) {
            const struct view_meta *m = entry_meta(mmu, id);
            next = m->list_next;
            if ((m->flags & META_USER) && (keys & (1u << m->pkey)))
                view_drop(mmu, id);
        }
}

/* WRPKRU: entries of user pages whose key has other rights now. */
static void change_pkru(struct mmu_cpu *mmu, uint32_t pkru)
{
    uint32_t changed = mmu->paging.pkru ^ pkru;
    unsigned keys = 0;
    mmu->paging.pkru = pkru;
    for (unsigned key = 0; key < 16; key++)
        if (((changed >> (2 * key)) & 3) && mmu->priv->pkey_live[key])
            keys |= 1u << key;
    for (unsigned i = 0; keys && i < VIEW_SPACES; i++)
        if (mmu->priv->space[i].used)
            drop_keys(mmu, &mmu->priv->space[i], keys);
}

void mmu_paging_changed(struct mmu_cpu *mmu, const struct paging *paging)
{
    struct paging now = *paging, *p = &mmu->paging;
    mail_read_views(mmu);
    if (is_structural(p, &now)) {
        mmu->priv->counters.flushes++;
        *p = now;
        space_flush_all(mmu);
        return;
    }
    if (p->pkru != now.pkru)
        change_pkru(mmu, now.pkru);
    bool root = p->cr3 != now.cr3 || memcmp(p->pdpte, now.pdpte, sizeof p->pdpte) != 0;
    uint64_t old_cr3 = p->cr3;
    uint64_t old_pdpte[4];
    memcpy(old_pdpte, p->pdpte, sizeof old_pdpte);
    *p = now;
    if (root) {
        p->cr3 = old_cr3;
        memcpy(p->pdpte, old_pdpte, sizeof p->pdpte);
        mmu_set_cr3(mmu, now.cr3, false, now.pdpte);
    }
}

/* ---- INVLPG and INVPCID --------------------------------------------------------------------- */

static void drop_local(struct mmu_cpu *mmu, struct space *space, uint64_t gva)
{
    view_drop_range(mmu, space, gva, PAGE_SIZE, DROP_LOCAL);
    source_drop_local(mmu, space, gva);
}

void mmu_invlpg(struct mmu_cpu *mmu, uint64_t gva)
{
    mmu->priv->counters.invlpg++;
    mail_read_views(mmu);
    drop_local(mmu, mmu->priv->current, gva);
    source_drop_global(mmu, gva);
}

void mmu_invpcid(struct mmu_cpu *mmu, unsigned type, uint16_t pcid, uint64_t gva)
{
    bool storing = atomic_load(&mmu->map->stores) != 0; /* before the box is read */
    mail_read_views(mmu);
    if (type == 2) {
        mmu_flush_all(mmu);
        return;
    }
    if (type == 3) {
        for (unsigned i = 0; i < VIEW_SPACES; i++)
            if (mmu->priv->space[i].used)
                flush_context(mmu, &mmu->priv->space[i], storing);
        mmu->priv->counters.flushes++;
        return;
    }
    struct space *space = mmu->paging.cr4 & PG_CR4_PCIDE
                              ? find_space(mmu, pcid_key(&mmu->paging, pcid))
                              : mmu->priv->current;
    if (!space)
        return;
    if (type == 1) {
        flush_context(mmu, space, storing);
        mmu->priv->counters.flushes++;
        return;
    }
    drop_local(mmu, space, gva);
    mmu->priv->counters.invlpg++;
}
