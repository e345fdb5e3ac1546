/*
 * test_random.c - views against a simple model, at random.
 *
 * The model is the architecture's: a set of translations that a processor MAY hold for each page,
 * which grows with every version the tables go through and shrinks to the present one when an
 * invalidation demands it (SDM vol. 3, 4.10). An access that succeeds must be allowed by one of
 * them; an access that faults must fault by the tables as they are. The model walks the tables by
 * its own simple code. Tables are changed by the vCPU through its own views (so a frame that
 * tracing forgot to protect is caught), by phys_write(), by DMA, and through the views of a second
 * vCPU.
 */
#include "guest.h"
#include "mmu/view.h"
#include <stdio.h>

enum { TABLES = 12, ROOTS = 3, DATA = 10, MAX_VERSIONS = 64, STEPS = 60000 };

static const uint64_t bases[] = {0, 0x200000, 0x40000000, 0xffff800000000000, 0xffff800000200000};
enum { PER_BASE = 5, PAGES = 5 * PER_BASE };

struct version {
    uint64_t gpa; /* of the 4-KiB page */
    bool w, u, nx, dirty, global, large;
    uint8_t key;
};
struct history {
    unsigned count;
    struct version v[MAX_VERSIONS];
};

static struct guest *g;
static struct mmu_cpu *m, *second;
static struct paging p;
static uint64_t table[TABLES];        /* roots, then others */
static struct history held[3][PAGES]; /* by PCID (0 without PCIDE); not global */
static struct history held_global[PAGES];
static uint64_t rng;
static unsigned traced_kept, slow_table_stores, remembered, remembered_global;
/* What a virtual-PC cache would hold: good for as long as the generation is the same. */
static struct {
    uint64_t generation, gpa;
} fetched[PAGES][MMU_PRIVS], fetched_global[PAGES][MMU_PRIVS];

static unsigned rnd(unsigned n)
{
    rng = rng * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)((rng >> 33) % n);
}
static uint64_t page_gva(unsigned i)
{
    return bases[i / PER_BASE] + (i % PER_BASE) * PAGE_SIZE;
}
static unsigned pcid(void)
{
    return p.cr4 & PG_CR4_PCIDE ? p.cr3 & 0xfff : 0;
}

/* ---- The model ------------------------------------------------------------------------------- */

static bool bad_bits(uint64_t e, unsigned level)
{
    uint64_t reserved = 0x000fff0000000000ull; /* MAXPHYADDR 40 */
    if (level == 4)
        reserved |= 1 << 7;
    if (level == 3 && (e & 0x80))
        reserved |= 0x3fffe000;
    if (level == 2 && (e & 0x80))
        reserved |= 0x1fe000;
    return e & reserved;
}

/* Error code bits P and RSVD, or the translation. */
static bool model_walk(uint64_t gva, struct version *v, unsigned *code)
{
    uint64_t at = p.cr3 & 0xfffffff000;
    *v = (struct version){.w = true, .u = true};
    for (unsigned level = 4;; level--) {
        unsigned shift = 12 + 9 * (level - 1);
        uint64_t e = peek64(g, at + 8 * ((gva >> shift) & 511));
        *code = 0;
        if (!(e & 1))
            return false;
        *code = 9;
        if (bad_bits(e, level))
            return false;
        v->w &= (e >> 1) & 1;
        v->u &= (e >> 2) & 1;
        v->nx |= e >> 63;
        if (level > 1 && !(e & 0x80)) {
            at = e & 0xfffffff000;
            continue;
        }
        uint64_t size = 1ull << shift;
        v->gpa = ((e & 0xfffffff000 & ~(size - 1)) | (gva & (size - 1))) & PAGE_MASK;
        v->dirty = (e >> 6) & 1;
        v->global = (e >> 8) & 1;
        v->key = (e >> 59) & 15;
        v->large = level > 1;
        return true;
    }
}

static bool same(const struct version *a, const struct version *b)
{
    return a->gpa == b->gpa && a->w == b->w && a->u == b->u && a->nx == b->nx &&
           a->dirty == b->dirty && a->global == b->global && a->large == b->large &&
           a->key == b->key;
}

static void add_version(struct history *h, const struct version *v)
{
    for (unsigned i = 0; i < h->count; i++)
        if (same(&h->v[i], v))
            return;
    ck_assert_uint_lt(h->count, MAX_VERSIONS);
    h->v[h->count++] = *v;
}

/* The tables may have changed: whatever they say now may be held. */
static void note_all(void)
{
    for (unsigned i = 0; i < PAGES; i++) {
        struct version v;
        unsigned code;
        if (!model_walk(page_gva(i), &v, &code))
            continue;
        struct history *h = v.global ? &held_global[i] : &held[pcid()][i];
        if (h->count == MAX_VERSIONS) { /* too long without an invalidation to be interesting */
            mmu_invlpg(m, page_gva(i));
            held_global[i].count = held[pcid()][i].count = 0;
        }
        add_version(h, &v);
    }
}

static bool rights(const struct version *v, enum access_kind kind, enum mmu_priv priv)
{
    unsigned key = p.pkru >> (2 * v->key) & 3;
    if (priv == MMU_USER && !v->u)
        return false;
    if (kind == ACCESS_EXEC)
        return !v->nx && !(priv != MMU_USER && v->u && (p.cr4 & PG_CR4_SMEP));
    if (priv == MMU_SUPERVISOR && v->u && (p.cr4 & PG_CR4_SMAP))
        return false;
    if (kind == ACCESS_WRITE && !v->w && (priv == MMU_USER || (p.cr0 & PG_CR0_WP)))
        return false;
    if (v->u && (p.cr4 & PG_CR4_PKE)) {
        if (key & 1)
            return false;
        if ((key & 2) && kind == ACCESS_WRITE && (priv == MMU_USER || (p.cr0 & PG_CR0_WP)))
            return false;
    }
    return true;
}

static bool may_go(const struct history *h, enum access_kind kind, enum mmu_priv priv, uint64_t gpa)
{
    for (unsigned i = 0; i < h->count; i++)
        if (h->v[i].gpa == gpa && (kind != ACCESS_WRITE || h->v[i].dirty) &&
            rights(&h->v[i], kind, priv))
            return true;
    return false;
}

static void forget(struct history *h)
{
    h->count = 0;
}
static void forget_large(struct history *h)
{
    unsigned n = 0;
    for (unsigned i = 0; i < h->count; i++)
        if (!h->v[i].large)
            h->v[n++] = h->v[i];
    h->count = n;
}

/* ---- Accesses -------------------------------------------------------------------------------- */

static void complain(const char *what, uint64_t gva, unsigned kind, unsigned priv, uint64_t gpa)
{
    ck_abort_msg("%s: gva %#llx kind %u priv %u gpa %#llx", what, (unsigned long long)gva, kind,
                 priv, (unsigned long long)gpa);
}

static void check_success(unsigned page, enum access_kind kind, enum mmu_priv priv, uint64_t gpa)
{
    struct version now;
    unsigned code;
    bool present = model_walk(page_gva(page), &now, &code);
    if (present && now.gpa == gpa && (kind != ACCESS_WRITE || now.dirty) &&
        rights(&now, kind, priv))
        return;
    if (!may_go(&held[pcid()][page], kind, priv, gpa) &&
        !may_go(&held_global[page], kind, priv, gpa))
        complain("a stale entry was used", page_gva(page), kind, priv, gpa);
}

static uint64_t guest_address(const void *hva)
{
    uint64_t offset = (uint64_t)((const uint8_t *)hva - (uint8_t *)phys_hva(g->map, 0, NULL));
    ck_assert_uint_lt(offset, g->size);
    return offset;
}

static void note_fetch(unsigned page, enum access_kind kind, enum mmu_priv priv, uint64_t gpa)
{
    if (kind == ACCESS_EXEC) {
        fetched[page][priv].generation = m->exec_generation;
        fetched[page][priv].gpa = gpa;
    }
}

static void note_global_fetch(unsigned page, enum mmu_priv priv, uint64_t gpa)
{
    fetched_global[page][priv].generation = m->global_generation;
    fetched_global[page][priv].gpa = gpa;
}

static void do_access(unsigned page, enum access_kind kind, enum mmu_priv priv)
{
    uint64_t gva = page_gva(page);
    const void *fast = view_hit(m, priv, gva, kind);
    if (kind == ACCESS_EXEC && fetched[page][priv].generation == m->exec_generation) {
        check_success(page, kind, priv, fetched[page][priv].gpa);
        remembered++;
    }
    if (kind == ACCESS_EXEC && fetched_global[page][priv].generation == m->global_generation) {
        check_success(page, kind, priv, fetched_global[page][priv].gpa);
        remembered_global++;
    }
    if (fast) {
        check_success(page, kind, priv, guest_address(fast));
        note_fetch(page, kind, priv, guest_address(fast));
        traced_kept += m->priv->current->tracing;
        return;
    }
    struct mmu_xlat x;
    struct version now;
    unsigned code;
    enum mmu_result result = mmu_translate(m, &KERNEL, gva, kind, priv, &x);
    bool present = model_walk(gva, &now, &code);
    if (result == MMU_OK) {
        check_success(page, kind, priv, x.gpa);
        if (x.hva)
            ck_assert_uint_eq(guest_address(x.hva), x.gpa);
        if (x.hva)
            note_fetch(page, kind, priv, x.gpa);
        if (x.hva && x.global && kind == ACCESS_EXEC)
            note_global_fetch(page, priv, x.gpa);
        note_all(); /* D may have been set */
        return;
    }
    unsigned expected = code | (kind == ACCESS_WRITE ? 2 : 0) | (priv == MMU_USER ? 4 : 0) |
                        (kind == ACCESS_EXEC ? 16 : 0);
    if (present) {
        if (rights(&now, kind, priv))
            complain("a fault that the tables do not give", gva, kind, priv, x.walk.fault);
        expected = (expected & ~9u) | 1;
    }
    ck_assert_uint_eq(x.walk.error_code & ~32u, expected);
}

/* ---- Changes of the tables ------------------------------------------------------------------- */

static uint64_t random_entry(unsigned which)
{
    uint64_t flags = rnd(8) | (uint64_t)rnd(16) << 5 | (rnd(6) == 0 ? PTE_XD : 0) |
                     (uint64_t)rnd(3) << PTE_KEY_SHIFT;
    flags |= rnd(6) ? PTE_P | PTE_RW | PTE_US : 0;
    flags &= rnd(5) ? ~PTE_PS : ~0ull;
    flags &= rnd(3) ? ~PTE_G : ~0ull;
    if (rnd(40) == 0)
        flags |= 1ull << 45;
    /* Mostly sensible trees: roots and the first others point to tables, the rest to data. */
    uint64_t to = which < TABLES - 4 || rnd(6) == 0 ? table[ROOTS + rnd(TABLES - ROOTS)]
                                                    : rnd(DATA) * PAGE_SIZE;
    if (which < TABLES - 4 && rnd(8) == 0)
        to = (uint64_t)rnd(2) << 21;
    return to | flags;
}

/* Through the vCPU's own views, when some page shows the table for writing. */
static bool store_by_view(uint64_t gpa, uint64_t value)
{
    for (unsigned i = 0; i < PAGES; i++) {
        struct mmu_xlat x;
        enum mmu_priv priv = rnd(MMU_PRIVS);
        uint64_t gva = page_gva(i);
        uint64_t *fast = mmu_view_lookup(m, priv, gva, 8, ACCESS_WRITE);
        if (fast && guest_address(fast) == (gpa & PAGE_MASK)) {
            fast[(gpa & ~PAGE_MASK) / 8] = value;
            return true;
        }
        if (mmu_translate(m, &KERNEL, gva, ACCESS_WRITE, priv, &x) != MMU_OK)
            continue;
        note_all();
        if (x.gpa != (gpa & PAGE_MASK))
            continue;
        if (x.hva) {
            ((uint64_t *)x.hva)[(gpa & ~PAGE_MASK) / 8] = value;
        } else {
            phys_write(g->map, &KERNEL, gpa, &value, 8);
            slow_table_stores++;
        }
        return true;
    }
    return false;
}

static void store_by_second(uint64_t gpa, uint64_t value)
{
    struct access a = {.initiator = INITIATOR_VCPU_KERNEL, .vcpu = 1};
    struct mmu_xlat x;
    uint64_t *fast = mmu_view_lookup(second, MMU_SUPERVISOR, gpa, 8, ACCESS_WRITE);
    if (!fast) {
        mmu_translate(second, &a, gpa, ACCESS_WRITE, MMU_SUPERVISOR, &x);
        fast = x.hva;
    }
    if (fast)
        *fast = value;
    else
        phys_write(g->map, &a, gpa, &value, 8);
}

static void change_table(void)
{
    static const uint16_t upper[] = {0, 1, 256};
    unsigned which = rnd(TABLES), how = rnd(6);
    unsigned index = which < ROOTS ? upper[rnd(3)] : rnd(PER_BASE);
    uint64_t gpa = table[which] + 8 * index, value = random_entry(which);
    if (rnd(4) == 0) /* clear A or D, as page reclaim does */
        value = peek64(g, gpa) & ~(rnd(2) ? PTE_A : PTE_D);
    if (how == 0)
        phys_write(g->map, &DMA, gpa, &value, 8);
    else if (how == 1)
        store_by_second(gpa, value);
    else if (how > 3 || !store_by_view(gpa, value))
        phys_write(g->map, &KERNEL, gpa, &value, 8);
    note_all();
}

/* ---- Invalidations --------------------------------------------------------------------------- */

static void invlpg(void)
{
    unsigned page = rnd(PAGES);
    mmu_invlpg(m, page_gva(page) + rnd(4096));
    forget(&held[pcid()][page]);
    forget(&held_global[page]);
    for (unsigned i = 0; i < PAGES; i++) /* also what shares its large page */
        if (page_gva(i) >> 21 == page_gva(page) >> 21) {
            forget_large(&held[pcid()][i]);
            forget_large(&held_global[i]);
        }
}

static void forget_local(unsigned id)
{
    for (unsigned i = 0; i < PAGES; i++)
        forget(&held[id][i]);
}
static void forget_all(void)
{
    for (unsigned id = 0; id < 3; id++)
        forget_local(id);
    for (unsigned i = 0; i < PAGES; i++)
        forget(&held_global[i]);
}

static void mov_cr3(void)
{
    bool keep = rnd(2);
    p.cr3 = table[rnd(ROOTS)] | (p.cr4 & PG_CR4_PCIDE ? rnd(3) : 0);
    mmu_set_cr3(m, p.cr3, keep, NULL);
    if (!keep || !(p.cr4 & PG_CR4_PCIDE))
        forget_local(pcid());
}

static void invpcid(void)
{
    unsigned type = rnd(4), id = p.cr4 & PG_CR4_PCIDE ? rnd(3) : 0, page = rnd(PAGES);
    mmu_invpcid(m, type, (uint16_t)id, page_gva(page));
    if (type == 0) {
        forget(&held[id][page]);
        for (unsigned i = 0; i < PAGES; i++)
            if (page_gva(i) >> 21 == page_gva(page) >> 21)
                forget_large(&held[id][i]);
    } else if (type == 1) {
        forget_local(id);
    } else if (type == 2) {
        forget_all();
    } else {
        for (unsigned i = 0; i < 3; i++)
            forget_local(i);
    }
}

static void change_registers(void)
{
    static const uint64_t cr4[] = {PG_CR4_SMEP, PG_CR4_SMAP, PG_CR4_PGE, PG_CR4_PKE};
    unsigned what = rnd(20);
    if (what < 4) {
        p.cr4 ^= cr4[what];
        p.cr4 |= PG_CR4_PGE; /* the model's globals need it; the toggle flushes all the same */
        mmu_paging_changed(m, &p);
    } else if (what == 4) {
        p.cr0 ^= PG_CR0_WP;
        mmu_paging_changed(m, &p);
    } else {
        p.pkru = rnd(64);
        mmu_paging_changed(m, &p);
    }
}

/* ---- The run --------------------------------------------------------------------------------- */

static void start(bool use_pcid, unsigned seed)
{
    g = guest_new(4 * MIB, 2, NULL);
    m = &g->mmu[0];
    second = &g->mmu[1];
    rng = seed * 0x9e3779b97f4a7c15ull + 1;
    for (unsigned i = 0; i < TABLES; i++)
        table[i] = guest_table(g);
    p = paging_for(PAGING_4LEVEL, table[0]);
    p.cr4 |= PG_CR4_PGE | (use_pcid ? PG_CR4_PCIDE : 0);
    mmu_paging_changed(m, &p);
    for (unsigned i = 0; i < 300; i++) {
        unsigned which = rnd(TABLES);
        poke64(g, table[which] + 8 * (which < ROOTS ? rnd(2) * 256 : rnd(PER_BASE)),
               random_entry(which));
    }
    mmu_flush_all(m);
    forget_all();
    traced_kept = slow_table_stores = remembered = remembered_global = 0;
    memset(fetched, 0, sizeof fetched);
    memset(fetched_global, 0, sizeof fetched_global);
}

static void step(unsigned edits)
{
    static unsigned favourite; /* the same page again, mostly: so there is something to be stale */
    unsigned what = rnd(100);
    if (what < edits)
        change_table();
    else if (what < edits + 4)
        invlpg();
    else if (what < edits + 9)
        mov_cr3();
    else if (what < edits + 10)
        invpcid();
    else if (what == 99 && rnd(20) == 0)
        change_registers();
    else if (what == 98)
        mmu_service(rnd(2) ? m : second);
    else
        do_access(favourite = rnd(3) ? favourite : rnd(PAGES), 1u << rnd(3), rnd(MMU_PRIVS));
}

/* Small spaces would not be found worth tracing: every other phase asks for it. */
static void choose_tracing(bool wanted)
{
    struct space *s = m->priv->current;
    if (wanted && !s->tracing && rnd(16) == 0) {
        s->tracing = true;
        s->score = 1000;
    } else if (!wanted) {
        trace_stop(m, s);
    }
}

static void run(bool use_pcid, unsigned seed, unsigned edits)
{
    start(use_pcid, seed);
    for (unsigned i = 0; i < STEPS; i++) {
        choose_tracing((i >> 12) & 1);
        step(edits);
        note_all();
    }
}

START_TEST(test_without_pcid)
{
    run(false, _i + 1, _i & 1 ? 4 : 12);
    ck_assert_uint_gt(traced_kept, 100);
    ck_assert_uint_gt(slow_table_stores, 0);
    ck_assert_uint_gt(mmu_counters(m)->trace_hits, 100);
    ck_assert_uint_gt(remembered, 20);
    ck_assert_uint_gt(remembered_global, 20);
    guest_free(g);
}
END_TEST

START_TEST(test_with_pcid)
{
    run(true, _i + 100, _i & 1 ? 4 : 12);
    guest_free(g);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("random");
    TCase *t = tcase_create("random");
    tcase_set_timeout(t, 250);
    tcase_add_loop_test(t, test_without_pcid, 0, 12);
    tcase_add_loop_test(t, test_with_pcid, 0, 6);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
