/*
 * walk.c - the page walk: SDM vol. 3, 4.3 (32-bit), 4.4 (PAE), 4.5 (4-level), 4.6 (access rights),
 * 4.7 (error code), 4.8 (accessed and dirty flags).
 *
 * The walk leaves a record of every entry that it read. One loop serves all modes; what differs is
 * in `shapes` and in reserved_bits(). A is set in each entry as the walk passes it, D and A in the
 * leaf once the access is found to be allowed; each by compare-and-exchange, and when somebody
 * changed the entry in between, the whole walk starts again.
 */
#include "map.h"
#include "paging.h"
#include <string.h>

struct shape {
    uint8_t levels, index_bits, entry_size;
};
static const struct shape shapes[] = {
    [PAGING_NONE] = {0, 0, 0},
    [PAGING_32] = {2, 10, 4},
    [PAGING_PAE] = {3, 9, 8}, /* the top level has 4 entries, in registers */
    [PAGING_4LEVEL] = {4, 9, 8},
};

unsigned paging_index_bits(enum paging_mode mode)
{
    return shapes[mode].index_bits;
}
unsigned paging_levels(enum paging_mode mode)
{
    return shapes[mode].levels;
}

/* ---- What an entry says --------------------------------------------------------------------- */

static bool is_leaf(const struct paging *p, enum paging_mode mode, unsigned level, uint64_t entry)
{
    if (level == 1)
        return true;
    if (!(entry & PTE_PS))
        return false;
    if (level == 2)
        return mode != PAGING_32 || (p->cr4 & PG_CR4_PSE);
    return level == 3 && mode == PAGING_4LEVEL && p->gib_pages;
}

/* Physical-address width as far as 4-MiB pages can reach: PSE-36 (SDM 4.3, table 4-4). */
static unsigned pse36_width(const struct paging *p)
{
    return p->maxphyaddr < 40 ? p->maxphyaddr : 40;
}

/* Bits that must be 0 in a present entry. PDPTEs of PAE mode were checked when MOV CR3 loaded them.
 */
static uint64_t reserved_bits(const struct paging *p, enum paging_mode mode, unsigned level,
                              bool leaf)
{
    if (mode == PAGING_32)
        return leaf && level == 2 ? bits(21, pse36_width(p) - 19) : 0;
    if (mode == PAGING_PAE && level == 3)
        return 0;
    uint64_t mask = bits(mode == PAGING_PAE ? 62 : 51, p->maxphyaddr);
    if (!(p->efer & PG_EFER_NXE))
        mask |= PTE_XD;
    if (leaf && level == 2)
        mask |= bits(20, 13);
    else if (leaf && level == 3)
        mask |= bits(29, 13);
    else if (level >= 3)
        mask |= PTE_PS; /* always in a PML4E; in a PDPTE when there are no 1-GiB pages */
    return mask;
}

static uint64_t leaf_address(enum paging_mode mode, uint64_t entry, unsigned shift)
{
    if (mode != PAGING_32)
        return entry & bits(51, shift);
    if (shift == 12)
        return entry & bits(31, 12);
    return (entry & bits(31, 22)) | ((entry & bits(20, 13)) << (32 - 13));
}

/* Folds one level's rights into the record. */
static void combine(const struct paging *p, enum paging_mode mode, unsigned level, uint64_t entry,
                    struct walk *walk)
{
    if (mode == PAGING_PAE && level == 3)
        return; /* a PAE PDPTE has no rights */
    walk->writable &= (entry & PTE_RW) != 0;
    walk->user &= (entry & PTE_US) != 0;
    if (mode != PAGING_32 && (p->efer & PG_EFER_NXE))
        walk->nx |= (entry & PTE_XD) != 0;
}

static void describe_leaf(const struct paging *p, enum paging_mode mode, unsigned level,
                          uint64_t entry, struct walk *walk)
{
    unsigned shift = PAGE_SHIFT + (level - 1) * shapes[mode].index_bits;
    uint64_t pat = level == 1 ? entry & PTE_PAT : entry & PTE_LARGE_PAT;
    walk->page_shift = (uint8_t)shift;
    walk->gpa = a20_gate(p, leaf_address(mode, entry, shift) | (walk->gva & ((1ull << shift) - 1)));
    walk->global = (entry & PTE_G) && (p->cr4 & PG_CR4_PGE);
    walk->dirty = (entry & PTE_D) != 0;
    walk->pat = (uint8_t)((pat ? 4 : 0) | (entry & (PTE_PCD | PTE_PWT)) >> 3);
    if (mode == PAGING_4LEVEL && (p->cr4 & PG_CR4_PKE))
        walk->pkey = (entry >> PTE_KEY_SHIFT) & 0xf;
}

/* ---- Rights --------------------------------------------------------------------------------- */

/* SDM 4.6.2. Keys guard data accesses to user pages, whoever makes them. */
static bool key_refuses(const struct paging *p, const struct walk *walk, enum access_kind kind,
                        enum mmu_priv priv)
{
    if (!(p->cr4 & PG_CR4_PKE) || !(p->efer & PG_EFER_LMA) || !walk->user || kind == ACCESS_EXEC)
        return false;
    unsigned key = p->pkru >> (2 * walk->pkey);
    bool access_disable = key & 1, write_disable = key & 2;
    return access_disable ||
           (write_disable && kind == ACCESS_WRITE && (priv == MMU_USER || (p->cr0 & PG_CR0_WP)));
}

enum walk_fault paging_rights(const struct paging *p, const struct walk *walk,
                              enum access_kind kind, enum mmu_priv priv)
{
    if (priv == MMU_USER && !walk->user)
        return WALK_USER;
    if (kind == ACCESS_EXEC) {
        if (walk->nx)
            return WALK_NX;
        return priv != MMU_USER && walk->user && (p->cr4 & PG_CR4_SMEP) ? WALK_SMEP : WALK_OK;
    }
    if (priv == MMU_SUPERVISOR && walk->user && (p->cr4 & PG_CR4_SMAP))
        return WALK_SMAP;
    if (kind == ACCESS_WRITE && !walk->writable && (priv == MMU_USER || (p->cr0 & PG_CR0_WP)))
        return WALK_WRITE;
    return key_refuses(p, walk, kind, priv) ? WALK_PKEY : WALK_OK;
}

/* ---- Faults --------------------------------------------------------------------------------- */

static bool fault(const struct paging *p, enum walk_fault why, unsigned level,
                  enum access_kind kind, enum mmu_priv priv, struct walk *walk)
{
    bool nx_paging = (p->cr4 & PG_CR4_PAE) && (p->efer & PG_EFER_NXE);
    uint32_t code = 0;
    if (why != WALK_NOT_PRESENT)
        code |= PF_P;
    if (kind == ACCESS_WRITE)
        code |= PF_W;
    if (priv == MMU_USER)
        code |= PF_U;
    if (why == WALK_RESERVED)
        code |= PF_RSVD;
    if (kind == ACCESS_EXEC && (nx_paging || (p->cr4 & PG_CR4_SMEP)))
        code |= PF_I;
    /* PK says what PKRU thinks of the access, whatever else is wrong with it (SDM 4.7). */
    if (why > WALK_RESERVED && why != WALK_REFUSED && key_refuses(p, walk, kind, priv))
        code |= PF_PK;
    if (why == WALK_REFUSED)
        code |= PF_REFUSED;
    walk->fault = why;
    walk->fault_level = (uint8_t)level;
    walk->error_code = code;
    return false;
}

/* ---- The walk ------------------------------------------------------------------------------- */

enum step { STEP_DOWN, STEP_LEAF, STEP_FAULT, STEP_AGAIN };

/* One walk's surroundings, so that its pieces need few arguments. */
struct walker {
    struct phys_map *map;
    const struct paging *p;
    struct access access; /* INITIATOR_WALKER */
    enum access_kind kind;
    enum mmu_priv priv;
    bool peek;
    enum paging_mode mode;
    struct phys_range *tables; /* the last map lookup: tables tend to be in one region */
};

static enum step stop(struct walker *w, enum walk_fault why, unsigned level, struct walk *walk)
{
    fault(w->p, why, level, w->kind, w->priv, walk);
    return STEP_FAULT;
}

/* Sets `want` in the entry. STEP_DOWN: done; STEP_AGAIN: it has changed since it was read; or a
 * rule forbids it. */
static enum step set_flags(struct walker *w, const struct walk_level *at, uint64_t want,
                           struct walk *walk)
{
    uint64_t expected = at->entry;
    bool done;
    if (w->peek || (expected & want) == want)
        return STEP_DOWN;
    if (phys_cmpxchg(w->map, &w->access, at->gpa, at->size, &expected, expected | want, &done) !=
        PHYS_OK)
        return stop(w, WALK_REFUSED, at->level, walk);
    return done ? STEP_DOWN : STEP_AGAIN;
}

/* Reads the entry of one level, from the table at *table, which becomes the next one. */
static enum step walk_level(struct walker *w, unsigned level, uint64_t *table, struct walk *walk)
{
    const struct shape *shape = &shapes[w->mode];
    bool in_register = w->mode == PAGING_PAE && level == 3;
    unsigned shift = PAGE_SHIFT + (level - 1) * shape->index_bits;
    uint64_t index = (walk->gva >> shift) & (in_register ? 3 : (1u << shape->index_bits) - 1);
    struct walk_level *at = &walk->level[walk->levels++];

    at->gpa = a20_gate(w->p, *table + index * shape->entry_size);
    at->level = (uint8_t)level;
    at->size = shape->entry_size;
    if (in_register)
        at->entry = w->p->pdpte[index];
    else if (phys_read_entry(w->map, &w->access, w->tables, at->gpa, at->size, &at->entry) !=
             PHYS_OK)
        return stop(w, WALK_REFUSED, level, walk);

    if (!(at->entry & PTE_P))
        return stop(w, WALK_NOT_PRESENT, level, walk);
    bool leaf = is_leaf(w->p, w->mode, level, at->entry);
    if (at->entry & reserved_bits(w->p, w->mode, level, leaf))
        return stop(w, WALK_RESERVED, level, walk);
    combine(w->p, w->mode, level, at->entry, walk);
    if (leaf)
        return STEP_LEAF;
    enum step flags = in_register ? STEP_DOWN : set_flags(w, at, PTE_A, walk);
    if (flags != STEP_DOWN)
        return flags;
    *table = at->entry & (w->mode == PAGING_32 ? bits(31, 12) : bits(51, 12));
    return STEP_DOWN;
}

static uint64_t root_table(const struct walker *w)
{
    switch (w->mode) {
    case PAGING_32:
        return w->p->cr3 & bits(31, 12);
    case PAGING_PAE:
        return w->p->cr3 & bits(31, 5);
    default:
        return w->p->cr3 & bits(51, 12);
    }
}

static enum step walk_once(struct walker *w, struct walk *walk)
{
    uint64_t table = root_table(w);
    unsigned level = shapes[w->mode].levels;
    enum step step;
    walk->levels = 0;
    walk->writable = walk->user = true;
    walk->nx = false;
    while ((step = walk_level(w, level, &table, walk)) == STEP_DOWN)
        level--;
    if (step != STEP_LEAF)
        return step;

    struct walk_level *leaf = &walk->level[walk->levels - 1];
    describe_leaf(w->p, w->mode, level, leaf->entry, walk);
    enum walk_fault why = paging_rights(w->p, walk, w->kind, w->priv);
    if (why != WALK_OK)
        return stop(w, why, level, walk);
    bool write = w->kind == ACCESS_WRITE;
    enum step flags = set_flags(w, leaf, PTE_A | (write ? PTE_D : 0), walk);
    if (flags != STEP_DOWN)
        return flags;
    if (write && !w->peek)
        walk->dirty = true;
    return STEP_LEAF;
}

/* Paging off: linear addresses are physical, everything is allowed. */
static void walk_nothing(const struct paging *p, struct walk *walk)
{
    walk->gpa = a20_gate(p, walk->gva & bits(31, 0));
    walk->writable = walk->user = walk->dirty = true;
}

bool walk_tables(struct phys_map *map, const struct paging *paging, const struct access *access,
                 uint64_t gva, enum access_kind kind, enum mmu_priv priv, bool peek,
                 struct phys_range *tables, struct walk *walk)
{
    /* All but the levels, which are many bytes and not read beyond their number. */
    walk->gva = gva;
    walk->gpa = 0;
    walk->levels = 0;
    walk->page_shift = PAGE_SHIFT;
    walk->writable = walk->user = walk->nx = walk->global = walk->dirty = false;
    walk->pkey = walk->pat = 0;
    walk->fault = WALK_OK;
    walk->fault_level = 0;
    walk->error_code = 0;
    struct walker w = {.map = map,
                       .p = paging,
                       .access = *access,
                       .kind = kind & ACCESS_WRITE ? ACCESS_WRITE : kind,
                       .priv = priv,
                       .peek = peek,
                       .mode = paging_mode(paging),
                       .tables = tables};
    w.access.initiator = INITIATOR_WALKER;
    if (w.mode == PAGING_NONE) {
        walk_nothing(paging, walk);
        return true;
    }
    enum step step;
    do
        step = walk_once(&w, walk);
    while (step == STEP_AGAIN);
    return step == STEP_LEAF;
}

bool mmu_walk(struct phys_map *map, const struct paging *paging, const struct access *access,
              uint64_t gva, enum access_kind kind, enum mmu_priv priv, bool peek, struct walk *walk)
{
    struct phys_range tables = PHYS_RANGE_INIT;
    return walk_tables(map, paging, access, gva, kind, priv, peek, &tables, walk);
}
