/*
 * test_view.c - views: what hits, what each invalidation drops, and what it must not drop.
 */
#include "guest.h"

#define G0 0x400000ull /* a user address */
#define K0 0xffff800000200000ull

static struct guest *g;
static struct paging p;
static struct mmu_cpu *m;

static void setup(void)
{
    g = guest_new(8 * MIB, 1, NULL);
    m = &g->mmu[0];
    p = paging_for(PAGING_4LEVEL, guest_table(g));
    p.cr4 |= PG_CR4_PGE;
}
static void teardown(void)
{
    guest_free(g);
}

static bool go(uint64_t gva, enum access_kind kind, enum mmu_priv priv, struct mmu_xlat *x)
{
    return mmu_translate(m, &KERNEL, gva, kind, priv, x) == MMU_OK;
}
static void *hit(uint64_t gva, enum access_kind kind, enum mmu_priv priv)
{
    return view_hit(m, priv, gva, kind);
}
static void *host(uint64_t gpa)
{
    return phys_hva(g->map, gpa, NULL);
}

/* The linker puts these between Bailey and libc. */
static bool no_memory;

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_malloc(size_t size)
{
    return no_memory ? NULL : __real_malloc(size);
}

/* cpu_new() frees what it has made so far, and that is this half. */
START_TEST(test_no_memory_for_the_second_half)
{
    static const struct mmu_cpu_hooks hooks;
    struct mmu_cpu mmu;
    struct error err;
    no_memory = true;
    bool made = mmu_cpu_init(&mmu, g->map, NULL, 1, &hooks, NULL, &err);
    no_memory = false;
    ck_assert(!made);
    mmu_cpu_fini(&mmu);
}
END_TEST

START_TEST(test_fill_and_hit)
{
    struct mmu_xlat x;
    guest_map(g, &p, G0, 0x5000 | PTE_P | PTE_RW | PTE_US, 1);
    mmu_paging_changed(m, &p);
    ck_assert_ptr_null(hit(G0 + 8, ACCESS_READ, MMU_USER));
    ck_assert(go(G0 + 8, ACCESS_READ, MMU_USER, &x));
    ck_assert_uint_eq(x.gpa, 0x5008);
    ck_assert_ptr_eq(x.hva, host(0x5008));
    ck_assert_ptr_eq(hit(G0 + 8, ACCESS_READ, MMU_USER), host(0x5008));
    ck_assert_ptr_null(mmu_view_lookup(m, MMU_USER, G0 + 0xffc, 8, ACCESS_READ));
    ck_assert_msg(!hit(G0, ACCESS_WRITE, MMU_USER), "D is clear: writes must walk");
    ck_assert(go(G0, ACCESS_WRITE, MMU_USER, &x));
    ck_assert_ptr_eq(hit(G0, ACCESS_WRITE, MMU_USER), host(0x5000));
    ck_assert_uint_eq(peek64(g, guest_entry(g, &p, G0, 1)) & (PTE_A | PTE_D), PTE_A | PTE_D);
}
END_TEST

/* Maps a page, ready to be written (A and D set), and looks at it once. */
static uint64_t map_and_touch(uint64_t gva, uint64_t entry, unsigned level, enum mmu_priv priv)
{
    struct mmu_xlat x;
    uint64_t at = guest_map(g, &p, gva, entry | PTE_P | PTE_A | PTE_D, level);
    ck_assert(go(gva, ACCESS_READ, priv, &x));
    ck_assert_ptr_nonnull(hit(gva, ACCESS_READ, priv));
    return at;
}

START_TEST(test_faults_leave_nothing)
{
    struct mmu_xlat x;
    mmu_paging_changed(m, &p);
    ck_assert(!go(G0, ACCESS_READ, MMU_USER, &x));
    ck_assert_int_eq(x.walk.fault, WALK_NOT_PRESENT);
    ck_assert_uint_eq(x.walk.error_code, PF_U);
    /* Not-present entries are never remembered: the page may come without an invalidation. */
    guest_map(g, &p, G0, 0x5000 | PTE_P | PTE_US, 1);
    ck_assert(go(G0, ACCESS_READ, MMU_USER, &x));
    ck_assert(!go(G0, ACCESS_WRITE, MMU_USER, &x));
    ck_assert_uint_eq(x.walk.error_code, PF_P | PF_W | PF_U);
    ck_assert_msg(go(G0, ACCESS_READ, MMU_USER, &x) && x.hva, "the fault took nothing away");
}
END_TEST

START_TEST(test_privileges_are_apart)
{
    struct mmu_xlat x;
    p.cr4 |= PG_CR4_SMAP | PG_CR4_SMEP;
    guest_map(g, &p, G0, 0x5000 | PTE_P | PTE_RW | PTE_US, 1);
    mmu_paging_changed(m, &p);
    ck_assert(go(G0, ACCESS_READ, MMU_USER, &x));
    ck_assert(!go(G0, ACCESS_READ, MMU_SUPERVISOR, &x));
    ck_assert_int_eq(x.walk.fault, WALK_SMAP);
    ck_assert(go(G0, ACCESS_WRITE, MMU_SUPERVISOR_AC, &x));
    ck_assert(!go(G0, ACCESS_EXEC, MMU_SUPERVISOR_AC, &x));
    ck_assert(go(G0, ACCESS_EXEC, MMU_USER, &x));
    ck_assert_ptr_null(hit(G0, ACCESS_READ, MMU_SUPERVISOR));
    ck_assert_ptr_nonnull(hit(G0, ACCESS_WRITE, MMU_SUPERVISOR_AC));
    p.cr4 &= ~(PG_CR4_SMAP | PG_CR4_SMEP);
    mmu_paging_changed(m, &p);
    ck_assert(go(G0, ACCESS_READ, MMU_SUPERVISOR, &x));
    ck_assert(go(G0, ACCESS_EXEC, MMU_SUPERVISOR, &x));
    p.cr4 |= PG_CR4_SMEP;
    mmu_paging_changed(m, &p);
    ck_assert_ptr_null(hit(G0, ACCESS_EXEC, MMU_SUPERVISOR));
    ck_assert(!go(G0, ACCESS_EXEC, MMU_SUPERVISOR, &x));
}
END_TEST

START_TEST(test_wp_toggle)
{
    struct mmu_xlat x;
    p.cr0 &= ~PG_CR0_WP;
    guest_map(g, &p, G0, 0x5000 | PTE_P | PTE_US, 1);
    mmu_paging_changed(m, &p);
    ck_assert(go(G0, ACCESS_WRITE, MMU_SUPERVISOR, &x));
    ck_assert_ptr_nonnull(hit(G0, ACCESS_WRITE, MMU_SUPERVISOR));
    p.cr0 |= PG_CR0_WP;
    mmu_paging_changed(m, &p);
    ck_assert_ptr_null(hit(G0, ACCESS_WRITE, MMU_SUPERVISOR));
    ck_assert(!go(G0, ACCESS_WRITE, MMU_SUPERVISOR, &x));
    ck_assert_uint_eq(x.walk.error_code, PF_P | PF_W);
}
END_TEST

START_TEST(test_pkru)
{
    struct mmu_xlat x;
    p.cr4 |= PG_CR4_PKE;
    mmu_paging_changed(m, &p);
    map_and_touch(G0, 0x5000 | PTE_RW | PTE_US | 4ull << PTE_KEY_SHIFT, 1, MMU_USER);
    map_and_touch(G0 + PAGE_SIZE, 0x6000 | PTE_RW | PTE_US, 1, MMU_USER);
    ck_assert(go(G0, ACCESS_WRITE, MMU_USER, &x));
    p.pkru = 2u << 8;
    mmu_paging_changed(m, &p);
    ck_assert(!go(G0, ACCESS_WRITE, MMU_USER, &x));
    ck_assert_int_eq(x.walk.fault, WALK_PKEY);
    ck_assert(go(G0, ACCESS_READ, MMU_USER, &x));
    ck_assert_msg(hit(G0 + PAGE_SIZE, ACCESS_READ, MMU_USER), "another key's page is not touched");
    p.pkru = 0;
    mmu_paging_changed(m, &p);
    ck_assert(go(G0, ACCESS_WRITE, MMU_USER, &x));
}
END_TEST

START_TEST(test_invlpg_inside_a_large_page)
{
    mmu_paging_changed(m, &p);
    uint64_t at = map_and_touch(G0, 0x200000 | PTE_RW | PTE_US | PTE_PS, 2, MMU_USER);
    for (unsigned i = 0; i < 512; i += 37) {
        struct mmu_xlat x;
        ck_assert(go(G0 + i * PAGE_SIZE, ACCESS_READ, MMU_USER, &x));
        ck_assert_uint_eq(x.gpa, 0x200000 + i * PAGE_SIZE);
    }
    map_and_touch(G0 + 2 * MIB, 0x5000 | PTE_US, 1, MMU_USER);
    poke64(g, at, 0x400000 | PTE_P | PTE_RW | PTE_US | PTE_PS);
    mmu_invlpg(m, G0 + 0x12345); /* one address of it is enough for all of it */
    for (unsigned i = 0; i < 512; i++)
        ck_assert_ptr_null(hit(G0 + i * PAGE_SIZE, ACCESS_READ, MMU_USER));
    ck_assert_ptr_nonnull(hit(G0 + 2 * MIB, ACCESS_READ, MMU_USER));
}
END_TEST

START_TEST(test_invlpg_takes_only_its_page)
{
    mmu_paging_changed(m, &p);
    map_and_touch(G0, 0x5000 | PTE_US, 1, MMU_USER);
    map_and_touch(G0 + PAGE_SIZE, 0x6000 | PTE_US, 1, MMU_USER);
    mmu_invlpg(m, G0 + 5);
    ck_assert_ptr_null(hit(G0, ACCESS_READ, MMU_USER));
    ck_assert_ptr_nonnull(hit(G0 + PAGE_SIZE, ACCESS_READ, MMU_USER));
}
END_TEST

/* Another root with the same kernel half. */
static struct paging second_root(void)
{
    struct paging q = p;
    q.cr3 = guest_table(g);
    for (unsigned i = 256; i < 512; i++)
        poke64(g, q.cr3 + 8 * i, peek64(g, p.cr3 + 8 * i));
    return q;
}

START_TEST(test_cr3_without_pcid)
{
    guest_map(g, &p, K0, 0, 1);
    mmu_paging_changed(m, &p);
    map_and_touch(K0, 0x5000 | PTE_G, 1, MMU_SUPERVISOR);
    map_and_touch(G0, 0x6000 | PTE_US, 1, MMU_USER);
    struct paging q = second_root();
    mmu_set_cr3(m, q.cr3, false, NULL);
    ck_assert_ptr_null(hit(G0, ACCESS_READ, MMU_USER));
    mmu_set_cr3(m, p.cr3, true, NULL); /* bit 63 means nothing with PCIDE = 0 */
    ck_assert_ptr_null(hit(G0, ACCESS_READ, MMU_USER));
    ck_assert_ptr_nonnull(hit(K0, ACCESS_READ, MMU_SUPERVISOR));
    mmu_set_cr3(m, q.cr3, false, NULL);
    mmu_invlpg(m, K0); /* of a global page, in another space */
    mmu_set_cr3(m, p.cr3, false, NULL);
    ck_assert_ptr_null(hit(K0, ACCESS_READ, MMU_SUPERVISOR));
    map_and_touch(K0, 0x5000 | PTE_G, 1, MMU_SUPERVISOR);
    p.cr4 &= ~PG_CR4_PGE;
    mmu_paging_changed(m, &p);
    ck_assert_ptr_null(hit(K0, ACCESS_READ, MMU_SUPERVISOR));
}
END_TEST

START_TEST(test_global_large_page_across_spaces)
{
    guest_map(g, &p, K0, 0, 2);
    mmu_paging_changed(m, &p);
    map_and_touch(K0, 0x200000 | PTE_G | PTE_PS, 2, MMU_SUPERVISOR);
    struct paging q = second_root();
    mmu_set_cr3(m, q.cr3, false, NULL);
    mmu_invlpg(m, K0 + 0x1ff000);
    mmu_set_cr3(m, p.cr3, false, NULL);
    ck_assert_ptr_null(hit(K0, ACCESS_READ, MMU_SUPERVISOR));
}
END_TEST

START_TEST(test_pcid)
{
    p.cr4 |= PG_CR4_PCIDE;
    uint64_t root = p.cr3;
    p.cr3 = root | 1;
    mmu_paging_changed(m, &p);
    map_and_touch(G0, 0x6000 | PTE_US, 1, MMU_USER);
    map_and_touch(G0 + PAGE_SIZE, 0x7000 | PTE_US | PTE_G, 1, MMU_USER);
    mmu_set_cr3(m, root | 2, true, NULL);
    ck_assert_ptr_null(hit(G0, ACCESS_READ, MMU_USER));
    mmu_set_cr3(m, root | 1, true, NULL);
    ck_assert_ptr_nonnull(hit(G0, ACCESS_READ, MMU_USER));
    uint64_t same = m->exec_generation;
    mmu_set_cr3(m, root | 2, true, NULL);
    ck_assert_uint_ne(m->exec_generation, same);
    mmu_invlpg(m, G0);        /* of this PCID only: it is not global */
    mmu_invpcid(m, 0, 3, G0); /* of a PCID without entries */
    mmu_set_cr3(m, root | 1, true, NULL);
    ck_assert_uint_eq(m->exec_generation, same);
    ck_assert_ptr_nonnull(hit(G0, ACCESS_READ, MMU_USER));
    mmu_set_cr3(m, root | 2, true, NULL);
    mmu_invpcid(m, 0, 1, G0);
    mmu_set_cr3(m, root | 1, true, NULL);
    ck_assert_ptr_null(hit(G0, ACCESS_READ, MMU_USER));
    map_and_touch(G0, 0x6000 | PTE_US, 1, MMU_USER);
    mmu_set_cr3(m, root | 1, false, NULL); /* flushes its own, not globals */
    ck_assert_ptr_null(hit(G0, ACCESS_READ, MMU_USER));
    ck_assert_ptr_nonnull(hit(G0 + PAGE_SIZE, ACCESS_READ, MMU_USER));
    for (unsigned type = 1; type <= 3; type++) {
        map_and_touch(G0, 0x6000 | PTE_US, 1, MMU_USER);
        map_and_touch(G0 + PAGE_SIZE, 0x7000 | PTE_US | PTE_G, 1, MMU_USER);
        mmu_set_cr3(m, root | 2, true, NULL);
        mmu_invpcid(m, type, 1, 0);
        mmu_set_cr3(m, root | 1, true, NULL);
        ck_assert_ptr_null(hit(G0, ACCESS_READ, MMU_USER));
        ck_assert_int_eq(hit(G0 + PAGE_SIZE, ACCESS_READ, MMU_USER) != NULL, type != 2);
    }
    /* A PCID that gets another root without a flush may keep nothing here. */
    map_and_touch(G0, 0x6000 | PTE_US, 1, MMU_USER);
    mmu_set_cr3(m, guest_table(g) | 1, true, NULL);
    ck_assert_ptr_null(hit(G0, ACCESS_READ, MMU_USER));
}
END_TEST

/* Kernels give one PCID to one process after the other; what is global stays (SDM 4.10.2.4), also
 * for virtual-PC caches. */
START_TEST(test_globals_outlive_the_root_of_a_pcid)
{
    struct mmu_xlat x;
    p.cr4 |= PG_CR4_PCIDE;
    p.cr3 |= 1;
    mmu_paging_changed(m, &p);
    map_and_touch(G0, 0x6000 | PTE_US, 1, MMU_USER);
    map_and_touch(K0, 0x7000 | PTE_G, 1, MMU_SUPERVISOR);
    ck_assert(go(G0, ACCESS_EXEC, MMU_USER, &x));
    ck_assert(go(K0, ACCESS_EXEC, MMU_SUPERVISOR, &x));
    uint64_t local = m->exec_generation, global = m->global_generation;
    for (unsigned no_flush = 0; no_flush <= 1; no_flush++) {
        mmu_set_cr3(m, guest_table(g) | 1, no_flush, NULL);
        ck_assert_ptr_null(hit(G0, ACCESS_READ, MMU_USER));
        ck_assert(!go(G0, ACCESS_READ, MMU_USER, &x));
        ck_assert_ptr_nonnull(hit(K0, ACCESS_READ, MMU_SUPERVISOR));
        ck_assert_uint_ne(m->exec_generation, local);
        ck_assert_uint_eq(m->global_generation, global);
    }
    mmu_invlpg(m, K0);
    ck_assert_ptr_null(hit(K0, ACCESS_READ, MMU_SUPERVISOR));
    ck_assert_uint_ne(m->global_generation, global);
}
END_TEST

START_TEST(test_more_spaces_than_views)
{
    uint64_t root[100];
    mmu_paging_changed(m, &p);
    for (unsigned i = 0; i < 100; i++) {
        root[i] = p.cr3 = guest_table(g);
        guest_map(g, &p, G0, (0x100000 + i * PAGE_SIZE) | PTE_P | PTE_US | PTE_G, 1);
    }
    for (unsigned round = 0; round < 3; round++)
        for (unsigned i = 0; i < 100; i++) {
            struct mmu_xlat x;
            mmu_set_cr3(m, root[i], false, NULL);
            for (unsigned k = ACCESS_READ; k <= ACCESS_EXEC;
                 k *= 2) /* a table of another space's */
                ck_assert_ptr_null(hit(G0, k, MMU_USER));
            ck_assert(go(G0, ACCESS_READ, MMU_USER, &x));
            ck_assert_uint_eq(x.gpa, 0x100000 + i * PAGE_SIZE);
            ck_assert(go(G0, ACCESS_EXEC, MMU_USER, &x));
        }
    ck_assert_uint_gt(mmu_counters(m)->views_evicted, 60);
}
END_TEST

START_TEST(test_pae_pdptes_at_cr3_load)
{
    struct mmu_xlat x;
    p = paging_for(PAGING_PAE, guest_table(g));
    p.cr4 |= PG_CR4_PGE;
    guest_map(g, &p, G0, 0x5000 | PTE_P | PTE_US, 1);
    mmu_paging_changed(m, &p);
    ck_assert(go(G0, ACCESS_READ, MMU_USER, &x));
    uint64_t none[4] = {0};
    mmu_set_cr3(m, p.cr3, false, none);
    ck_assert(!go(G0, ACCESS_READ, MMU_USER, &x));
    mmu_set_cr3(m, p.cr3, false, p.pdpte);
    ck_assert(go(G0, ACCESS_READ, MMU_USER, &x));
}
END_TEST

START_TEST(test_growth_and_conflicts)
{
    enum { PAGES = 1600 };
    struct mmu_xlat x;
    mmu_paging_changed(m, &p);
    for (unsigned i = 0; i < PAGES; i++)
        guest_map(g, &p, G0 + i * PAGE_SIZE, (i % 512 * PAGE_SIZE) | PTE_P | PTE_US, 1);
    for (unsigned round = 0; round < 10; round++)
        for (unsigned i = 0; i < PAGES; i++) {
            ck_assert(go(G0 + i * PAGE_SIZE, ACCESS_READ, MMU_USER, &x));
            ck_assert_ptr_eq(hit(G0 + i * PAGE_SIZE, ACCESS_READ, MMU_USER),
                             host(i % 512 * PAGE_SIZE));
        }
    ck_assert_uint_ge(mmu_counters(m)->resizes, 1);
    for (unsigned i = 0; i < PAGES; i++)
        ck_assert_ptr_eq(hit(G0 + i * PAGE_SIZE, ACCESS_READ, MMU_USER), host(i % 512 * PAGE_SIZE));
}
END_TEST

/* Two kernel pages that share a slot, and a flush after each look at both: few conflicts between
 * flushes, but always the same ones. */
START_TEST(test_conflicts_between_flushes_count_too)
{
    struct mmu_xlat x;
    uint64_t far = K0 + (1ull << 22);
    mmu_paging_changed(m, &p);
    guest_map(g, &p, K0, 0x5000 | PTE_P | PTE_G, 1);
    guest_map(g, &p, far, 0x6000 | PTE_P | PTE_G, 1);
    for (unsigned i = 0; i < 600; i++) {
        ck_assert(go(K0, ACCESS_READ, MMU_SUPERVISOR, &x));
        ck_assert(go(far, ACCESS_READ, MMU_SUPERVISOR, &x));
        mmu_set_cr3(m, p.cr3, false, NULL);
    }
    ck_assert_ptr_nonnull(hit(K0, ACCESS_READ, MMU_SUPERVISOR));
    ck_assert_ptr_nonnull(hit(far, ACCESS_READ, MMU_SUPERVISOR));
}
END_TEST

/* All pages of 800 MiB, again and again, find room in the end; and go together. */
START_TEST(test_a_large_working_set)
{
    enum { LARGE = 400, PAGES = LARGE * 512 };
    struct mmu_xlat x;
    unsigned hits = 0;
    mmu_paging_changed(m, &p);
    for (unsigned i = 0; i < LARGE; i++)
        guest_map(g, &p, G0 + ((uint64_t)i << 21), PTE_P | PTE_US | PTE_PS, 2);
    for (unsigned round = 0; round < 2; round++)
        for (unsigned i = 0; i < PAGES; i++)
            ck_assert(go(G0 + i * PAGE_SIZE, ACCESS_READ, MMU_USER, &x));
    for (unsigned i = 0; i < PAGES; i++)
        hits += hit(G0 + i * PAGE_SIZE, ACCESS_READ, MMU_USER) == host(i % 512 * PAGE_SIZE);
    ck_assert_uint_eq(hits, PAGES);
    mmu_flush_all(m);
    for (unsigned i = 0; i < PAGES; i++)
        ck_assert_ptr_null(hit(G0 + i * PAGE_SIZE, ACCESS_READ, MMU_USER));
}
END_TEST

/* Two pages that share a slot of a table in which they are nearly alone: so many bits of their
 * addresses are the same, and the table has to grow so often. */
static const struct {
    unsigned same, rounds, resizes;
} pairs[] = {{24, 8000, 2}, {28, 16000, 4}};

START_TEST(test_two_pages_in_a_large_table)
{
    struct mmu_xlat x;
    uint64_t far = G0 + (1ull << pairs[_i].same);
    mmu_paging_changed(m, &p);
    guest_map(g, &p, G0, 0x5000 | PTE_P | PTE_US, 1);
    guest_map(g, &p, far, 0x6000 | PTE_P | PTE_US, 1);
    for (unsigned i = 0; i < pairs[_i].rounds; i++) {
        ck_assert(go(G0, ACCESS_READ, MMU_USER, &x));
        ck_assert(go(far, ACCESS_READ, MMU_USER, &x));
    }
    ck_assert_ptr_eq(hit(G0, ACCESS_READ, MMU_USER), host(0x5000));
    ck_assert_ptr_eq(hit(far, ACCESS_READ, MMU_USER), host(0x6000));
    ck_assert_uint_eq(mmu_counters(m)->resizes, pairs[_i].resizes);
}
END_TEST

/* Ten spaces whose tables want to grow without end: the next one gets its own table all the same.
 */
START_TEST(test_growth_leaves_room_for_other_spaces)
{
    struct mmu_xlat x;
    uint64_t root[11];
    for (unsigned s = 0; s < 11; s++) {
        root[s] = p.cr3 = guest_table(g);
        guest_map(g, &p, 0, PTE_P | PTE_US | PTE_PS | PTE_A, 3);
    }
    mmu_paging_changed(m, &p);
    for (unsigned s = 0; s < 11; s++) {
        mmu_set_cr3(m, root[s], false, NULL);
        for (unsigned i = 0; s < 10 && i < 32000; i++)
            ck_assert(go((i & 1ull) << 29 | (i & 0xfffe) << 11, ACCESS_READ, MMU_USER, &x));
        ck_assert(go(0x3000, ACCESS_READ, MMU_USER, &x));
        ck_assert_ptr_nonnull(hit(0x3000, ACCESS_READ, MMU_USER));
    }
    mmu_set_cr3(m, root[0], false, NULL);
    uint64_t entries = m->fast[MMU_USER].mask;
    for (unsigned i = 0; i < 64; i++)
        mmu_set_cr3(m, root[0], false, NULL);
    ck_assert_uint_lt(m->fast[MMU_USER].mask, entries); /* nothing in it for long: smaller again */
}
END_TEST

/* Steps of an INVLPG beyond one for each entry that goes: a slot of each privilege index, and a
 * look at each size of page. */
enum { INVLPG_STEPS = 16 };

static unsigned steps_of_invlpg(uint64_t gva)
{
    uint64_t before = mmu_counters(m)->drop_steps;
    mmu_invlpg(m, gva);
    return (unsigned)(mmu_counters(m)->drop_steps - before);
}

/* Large pages all over the tables, global and not, in many spaces; neither an
 * INVLPG where nothing is nor one that drops a few entries looks at more than it has to. */
START_TEST(test_invlpg_costs_what_it_drops)
{
    enum { LARGE = 512, SPACES = 4 };
    const uint64_t step = 2 * MIB;
    struct mmu_xlat x;
    uint64_t root[SPACES];
    p.cr4 |= PG_CR4_PCIDE;
    for (unsigned s = 0; s < SPACES; s++)
        root[s] = guest_table(g);
    for (unsigned s = 0; s < SPACES; s++) {
        p.cr3 = root[s];
        for (uint64_t i = 0; i < LARGE; i++) {
            guest_map(g, &p, K0 + i * step, PTE_P | PTE_PS | PTE_G | PTE_A, 2);
            guest_map(g, &p, G0 + i * step, PTE_P | PTE_PS | PTE_US | PTE_A, 2);
        }
    }
    mmu_paging_changed(m, &p);
    for (unsigned s = 0; s < SPACES; s++) {
        mmu_set_cr3(m, root[s] | s, true, NULL);
        for (uint64_t i = 0; i < 4 * LARGE; i++) {
            uint64_t at = i % LARGE * step + i / LARGE * 37 * PAGE_SIZE;
            ck_assert(go(K0 + at, ACCESS_EXEC, MMU_SUPERVISOR, &x));
            ck_assert(go(G0 + at, ACCESS_READ, MMU_USER, &x));
        }
    }
    uint64_t before = mmu_counters(m)->drop_steps;
    for (uint64_t i = 0; i < 10000; i++)
        mmu_invlpg(m, (1ull << 40) + i * step);
    ck_assert_uint_le(mmu_counters(m)->drop_steps - before, 10000 * INVLPG_STEPS);
    for (uint64_t i = 0; i < LARGE; i += 7) {
        uint64_t kernel = K0 + i * step, user = G0 + i * step;
        ck_assert_uint_le(steps_of_invlpg(kernel + 5 * PAGE_SIZE), INVLPG_STEPS + 4 * SPACES);
        ck_assert_uint_le(steps_of_invlpg(user + 5 * PAGE_SIZE), INVLPG_STEPS + 4);
        for (unsigned part = 0; part < 4; part++) {
            ck_assert_ptr_null(hit(kernel + part * 37 * PAGE_SIZE, ACCESS_EXEC, MMU_SUPERVISOR));
            ck_assert_ptr_null(hit(user + part * 37 * PAGE_SIZE, ACCESS_READ, MMU_USER));
        }
    }
    ck_assert_ptr_nonnull(hit(K0 + (LARGE - 2) * step, ACCESS_EXEC, MMU_SUPERVISOR));
    for (unsigned s = 0; s < SPACES; s++) { /* global ones are gone from all spaces */
        mmu_set_cr3(m, root[s] | s, true, NULL);
        for (uint64_t i = 0; i < LARGE; i += 7)
            for (unsigned part = 0; part < 4; part++)
                ck_assert_ptr_null(
                    hit(K0 + i * step + part * 37 * PAGE_SIZE, ACCESS_EXEC, MMU_SUPERVISOR));
    }
}
END_TEST

START_TEST(test_mmio_and_holes_are_never_fast)
{
    struct mmu_xlat x;
    static const struct io_ops ops = {NULL, NULL, 0, 0};
    struct error err;
    /* Small registers over RAM: the rest of the page goes slow as well. */
    phys_add_mmio(g->map, 0x9100, 0x10, &ops, NULL, "small", &err);
    mmu_paging_changed(m, &p);
    guest_map(g, &p, G0, 0x90000000 | PTE_P | PTE_RW, 1);
    guest_map(g, &p, G0 + PAGE_SIZE, 0x9000 | PTE_P | PTE_RW, 1);
    for (unsigned i = 0; i < 2; i++)
        for (unsigned k = ACCESS_READ; k <= ACCESS_EXEC; k *= 2) {
            ck_assert(go(G0 + i * PAGE_SIZE, k, MMU_SUPERVISOR, &x));
            ck_assert_ptr_null(x.hva);
            ck_assert_ptr_null(hit(G0 + i * PAGE_SIZE, k, MMU_SUPERVISOR));
        }
    uint64_t walks = mmu_counters(m)->walks;
    ck_assert(go(G0, ACCESS_WRITE, MMU_SUPERVISOR, &x));
    ck_assert_msg(mmu_counters(m)->walks == walks, "the translation itself is kept");
    ck_assert_uint_eq(x.gpa, 0x90000000);
}
END_TEST

START_TEST(test_map_changes_reach_views)
{
    struct mmu_xlat x;
    static const struct io_ops ops = {NULL, NULL, 0, 0};
    struct error err;
    mmu_paging_changed(m, &p);
    map_and_touch(G0, 0x5000 | PTE_RW | PTE_US, 1, MMU_USER);
    mmu_code_added(m, 0x5000, 64);
    int bar = phys_add_mmio(g->map, 0x5000, PAGE_SIZE, &ops, NULL, "bar", &err);
    ck_assert_uint_ge(g->kicks[0], 1);
    mmu_service(m);
    ck_assert_uint_eq(g->stale, 1); /* code at that address is not that code any more */
    ck_assert_uint_eq(g->stale_gpa, 0x5000);
    ck_assert_ptr_null(hit(G0, ACCESS_READ, MMU_USER));
    ck_assert(go(G0, ACCESS_READ, MMU_USER, &x));
    ck_assert_ptr_null(x.hva);
    phys_remove(g->map, bar);
    mmu_service(m);
    ck_assert(go(G0, ACCESS_READ, MMU_USER, &x));
    ck_assert_ptr_eq(x.hva, host(0x5000));
}
END_TEST

START_TEST(test_watch)
{
    struct mmu_xlat x;
    mmu_paging_changed(m, &p);
    map_and_touch(G0, 0x5000 | PTE_RW | PTE_US, 1, MMU_USER);
    map_and_touch(G0 + PAGE_SIZE, 0x6000 | PTE_RW | PTE_US, 1, MMU_USER);
    struct mmu_range r = {G0 + 0xffc, G0 + 0x1000};
    mmu_set_watch(m, &r, 1);
    ck_assert_ptr_null(hit(G0, ACCESS_READ, MMU_USER));
    ck_assert_ptr_nonnull(hit(G0 + PAGE_SIZE, ACCESS_READ, MMU_USER));
    ck_assert(go(G0, ACCESS_WRITE, MMU_USER, &x));
    ck_assert_ptr_eq(x.hva, host(0x5000));
    ck_assert_ptr_null(hit(G0, ACCESS_WRITE, MMU_USER));
    mmu_set_watch(m, NULL, 0);
    ck_assert(go(G0, ACCESS_WRITE, MMU_USER, &x));
    ck_assert_ptr_nonnull(hit(G0, ACCESS_WRITE, MMU_USER));
    struct mmu_range top = {~0ull - 7, 0}; /* the last 8 bytes there are */
    mmu_set_watch(m, &top, 1);
}
END_TEST

/* What a read has shown of stores is used for stores; but D is for a walk to set, and code, watches
 * and what has never been read have a say. */
START_TEST(test_grant)
{
    struct mmu_xlat x;
    mmu_paging_changed(m, &p);
    guest_map(g, &p, G0, 0x5000 | PTE_P | PTE_RW | PTE_US | PTE_A | PTE_D, 1);
    ck_assert(!mmu_view_grant(m, MMU_USER, G0, ACCESS_WRITE));
    go(G0, ACCESS_READ, MMU_USER, &x);
    ck_assert_ptr_null(hit(G0, ACCESS_WRITE, MMU_USER));
    ck_assert(mmu_view_grant(m, MMU_USER, G0 + 8, ACCESS_WRITE));
    ck_assert_ptr_eq(hit(G0, ACCESS_WRITE, MMU_USER), host(0x5000));
    ck_assert(!mmu_view_grant(m, MMU_SUPERVISOR, G0, ACCESS_WRITE));
    guest_map(g, &p, G0 + PAGE_SIZE, 0x6000 | PTE_P | PTE_RW | PTE_US | PTE_A, 1);
    guest_map(g, &p, G0 + 2 * PAGE_SIZE, 0x7000 | PTE_P | PTE_US | PTE_A | PTE_D, 1);
    guest_map(g, &p, G0 + 3 * PAGE_SIZE, 0x8000 | PTE_P | PTE_RW | PTE_US | PTE_A | PTE_D, 1);
    guest_map(g, &p, G0 + 4 * PAGE_SIZE, 0x9000 | PTE_P | PTE_RW | PTE_US | PTE_A | PTE_D, 1);
    mmu_code_added(m, 0x8000, 64);
    struct mmu_range watched = {G0 + 4 * PAGE_SIZE, G0 + 4 * PAGE_SIZE + 4};
    mmu_set_watch(m, &watched, 1);
    for (unsigned i = 1; i <= 4; i++) {
        go(G0 + i * PAGE_SIZE, ACCESS_READ, MMU_USER, &x);
        mmu_view_grant(m, MMU_USER, G0 + i * PAGE_SIZE, ACCESS_WRITE);
        ck_assert_ptr_null(hit(G0 + i * PAGE_SIZE, ACCESS_WRITE, MMU_USER));
    }
    ck_assert_uint_eq(peek64(g, guest_entry(g, &p, G0 + PAGE_SIZE, 1)) & PTE_D, 0);
    mmu_set_watch(m, NULL, 0);
}
END_TEST

START_TEST(test_exec_generation)
{
    struct mmu_xlat x;
    mmu_paging_changed(m, &p);
    guest_map(g, &p, G0, 0x5000 | PTE_P | PTE_RW | PTE_US, 1);
    guest_map(g, &p, G0 + PAGE_SIZE, 0x6000 | PTE_P | PTE_RW | PTE_US, 1);
    go(G0, ACCESS_EXEC, MMU_USER, &x);
    go(G0 + PAGE_SIZE, ACCESS_READ, MMU_USER, &x);
    uint64_t gen = m->exec_generation;
    go(G0, ACCESS_READ, MMU_USER, &x);
    go(G0, ACCESS_WRITE, MMU_USER, &x); /* D is set: filled anew, to the same place */
    ck_assert_ptr_nonnull(hit(G0, ACCESS_EXEC, MMU_USER));
    mmu_invlpg(m, G0 + PAGE_SIZE); /* was never fetched from */
    ck_assert_uint_eq(m->exec_generation, gen);
    mmu_invlpg(m, G0);
    ck_assert_uint_ne(m->exec_generation, gen);
    /* Evicted by a conflict: what was cached stays true, but INVLPG must still be noticed. */
    go(G0, ACCESS_EXEC, MMU_USER, &x);
    gen = m->exec_generation;
    uint64_t slots = (m->fast[MMU_USER].mask >> 5) + 1;
    guest_map(g, &p, G0 + slots * PAGE_SIZE, 0x7000 | PTE_P | PTE_US, 1);
    go(G0 + slots * PAGE_SIZE, ACCESS_READ, MMU_USER, &x);
    ck_assert_ptr_null(hit(G0, ACCESS_EXEC, MMU_USER));
    ck_assert_uint_eq(m->exec_generation, gen);
    mmu_invlpg(m, G0);
    ck_assert_uint_ne(m->exec_generation, gen);
    /* Filled anew, to another place: INVLPG finds no fetch permission, and must be noticed still.
     */
    go(G0, ACCESS_EXEC, MMU_USER, &x);
    gen = m->exec_generation;
    guest_map(g, &p, G0, 0x8000 | PTE_P | PTE_RW | PTE_US, 1);
    go(G0 + slots * PAGE_SIZE, ACCESS_READ, MMU_USER, &x);
    go(G0, ACCESS_WRITE, MMU_USER, &x);
    mmu_invlpg(m, G0);
    ck_assert_uint_ne(m->exec_generation, gen);
}
END_TEST

/* It outlives the address space and its view, and ends with the page, entry or not. */
START_TEST(test_global_generation)
{
    struct mmu_xlat x;
    uint64_t root = p.cr3;
    p.cr4 |= PG_CR4_PGE;
    mmu_paging_changed(m, &p);
    guest_map(g, &p, K0, 0x5000 | PTE_P | PTE_RW | PTE_G, 1);
    guest_map(g, &p, G0, 0x6000 | PTE_P | PTE_RW | PTE_US, 1);
    go(G0, ACCESS_EXEC, MMU_USER, &x);
    ck_assert(!x.global);
    go(K0, ACCESS_EXEC, MMU_SUPERVISOR, &x);
    ck_assert(x.global);
    uint64_t gen = m->global_generation;
    mmu_invlpg(m, G0);
    mmu_set_cr3(m, root, false, NULL);
    for (unsigned i = 1; i <= 40; i++) /* more than there are views: the first is given up */
        mmu_set_cr3(m, root + i * PAGE_SIZE, false, NULL);
    ck_assert_uint_eq(m->global_generation, gen);
    mmu_invlpg(m, K0);
    ck_assert_uint_ne(m->global_generation, gen);
    mmu_set_cr3(m, root, false, NULL);
    go(K0, ACCESS_EXEC, MMU_SUPERVISOR, &x);
    gen = m->global_generation;
    mmu_invpcid(m, 3, 0, 0); /* all but globals */
    ck_assert_uint_eq(m->global_generation, gen);
    mmu_flush_all(m);
    ck_assert_uint_ne(m->global_generation, gen);
}
END_TEST

/* A global page is fetched from in one space and evicted; INVLPG in another one ends it in both. */
START_TEST(test_exec_generation_of_an_evicted_global)
{
    struct mmu_xlat x;
    uint64_t root = p.cr3;
    p.cr4 |= PG_CR4_PCIDE;
    p.cr3 = root | 1;
    mmu_paging_changed(m, &p);
    guest_map(g, &p, K0, 0x5000 | PTE_P | PTE_G, 1);
    go(K0, ACCESS_EXEC, MMU_SUPERVISOR, &x);
    uint64_t gen = m->exec_generation, far = K0 + ((m->fast[MMU_SUPERVISOR].mask + 32) << 7);
    guest_map(g, &p, far, 0x6000 | PTE_P | PTE_G, 1);
    go(far, ACCESS_READ, MMU_SUPERVISOR, &x);
    ck_assert_ptr_null(hit(K0, ACCESS_EXEC, MMU_SUPERVISOR));
    mmu_set_cr3(m, root | 2, true, NULL);
    mmu_invlpg(m, K0 + PAGE_SIZE); /* another page */
    mmu_set_cr3(m, root | 1, true, NULL);
    ck_assert_uint_eq(m->exec_generation, gen);
    mmu_set_cr3(m, root | 2, true, NULL);
    mmu_invlpg(m, K0);
    mmu_set_cr3(m, root | 1, true, NULL);
    ck_assert_uint_ne(m->exec_generation, gen);
}
END_TEST

/* The same with a part of a large page, global or not: INVLPG of another page leaves the
 * generations alone, INVLPG anywhere in the large page does not. */
START_TEST(test_exec_generation_of_an_evicted_part)
{
    for (unsigned global = 0; global <= 1; global++) {
        struct mmu_xlat x;
        enum mmu_priv priv = global ? MMU_SUPERVISOR : MMU_USER;
        uint64_t flags = PTE_P | PTE_PS | PTE_A | (global ? PTE_G : PTE_US);
        uint64_t base = global ? K0 : G0, far;
        guest_map(g, &p, base, flags, 2);
        mmu_paging_changed(m, &p);
        go(base + PAGE_SIZE, ACCESS_EXEC, priv, &x);
        far = base + PAGE_SIZE + ((m->fast[priv].mask + 32) << 7);
        guest_map(g, &p, far & ~(2 * MIB - 1), flags, 2);
        uint64_t gen = m->exec_generation, gen_global = m->global_generation;
        go(far, ACCESS_READ, priv, &x);
        ck_assert_ptr_null(hit(base + PAGE_SIZE, ACCESS_EXEC, priv));
        for (unsigned i = 0; i < 256; i++)
            mmu_invlpg(m, (1ull << 40) + i * PAGE_SIZE);
        ck_assert_uint_eq(m->exec_generation, gen);
        ck_assert_uint_eq(m->global_generation, gen_global);
        mmu_invlpg(m, base + 100 * PAGE_SIZE);
        ck_assert_uint_ne(m->exec_generation, gen);
        ck_assert_int_eq(m->global_generation != gen_global, global);
    }
}
END_TEST

/* A local small page is fetched from and evicted: INVLPG of it changes the generation, INVLPG of
 * others does not, however many there are. */
START_TEST(test_exec_generation_of_evicted_small_pages)
{
    enum { PAGES = 300 };
    struct mmu_xlat x;
    const uint64_t apart = PAGE_SIZE << 16; /* one slot at any size of the table */
    for (unsigned i = 0; i < PAGES; i++) {
        guest_map(g, &p, G0 + i * PAGE_SIZE, 0x5000 | PTE_P | PTE_US | PTE_A, 1);
        guest_map(g, &p, G0 + i * PAGE_SIZE + apart, 0x6000 | PTE_P | PTE_US | PTE_A, 1);
    }
    mmu_paging_changed(m, &p);
    for (unsigned i = 0; i < PAGES; i++) {
        go(G0 + i * PAGE_SIZE, ACCESS_EXEC, MMU_USER, &x);
        go(G0 + i * PAGE_SIZE + apart, ACCESS_READ, MMU_USER, &x);
    }
    uint64_t gen = m->exec_generation;
    for (unsigned i = PAGES; i < 2 * PAGES; i++)
        mmu_invlpg(m, G0 + i * PAGE_SIZE);
    ck_assert_uint_eq(m->exec_generation, gen);
    for (unsigned i = 0; i < PAGES; i++) {
        go(G0 + i * PAGE_SIZE, ACCESS_EXEC, MMU_USER, &x);
        go(G0 + i * PAGE_SIZE + apart, ACCESS_READ, MMU_USER, &x);
        gen = m->exec_generation;
        mmu_invlpg(m, G0 + i * PAGE_SIZE);
        ck_assert_uint_ne(m->exec_generation, gen);
    }
}
END_TEST

/* More evicted pages than are remembered: none of them may be lost. */
START_TEST(test_exec_generation_of_many_evicted)
{
    enum { PAGES = 1500 };
    struct mmu_xlat x;
    uint64_t gen[PAGES], last;
    for (unsigned i = 0; i < PAGES; i++) /* each pushes the one before it out, at any size */
        guest_map(g, &p, K0 + i * GIB, PTE_P | PTE_G | PTE_PS | PTE_A, 3);
    mmu_paging_changed(m, &p);
    for (unsigned i = 0; i < PAGES; i++) {
        ck_assert(go(K0 + i * GIB, ACCESS_EXEC, MMU_SUPERVISOR, &x));
        gen[i] = m->global_generation;
    }
    for (unsigned i = 0; i < PAGES; i++) {
        mmu_invlpg(m, K0 + i * GIB + PAGE_SIZE);
        ck_assert_uint_ne(m->global_generation, gen[i]);
    }
    last = m->global_generation;
    mmu_invlpg(m, K0);
    ck_assert_uint_eq(m->global_generation, last);
}
END_TEST

START_TEST(test_exec_generation_when_the_page_moves)
{
    struct mmu_xlat x;
    guest_map(g, &p, G0, 0x5000 | PTE_P | PTE_RW | PTE_US, 1);
    mmu_paging_changed(m, &p);
    go(G0, ACCESS_EXEC, MMU_USER, &x);
    uint64_t gen = m->exec_generation;
    guest_map(g, &p, G0, 0x8000 | PTE_P | PTE_RW | PTE_US, 1);
    go(G0, ACCESS_WRITE, MMU_USER, &x); /* D was clear: walked, and filled to the other place */
    ck_assert_uint_eq(x.gpa, 0x8000);
    mmu_invlpg(m, G0);
    ck_assert_uint_ne(m->exec_generation, gen);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("view");
    TCase *t = tcase_create("view");
    tcase_set_timeout(t, 30);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, test_no_memory_for_the_second_half);
    tcase_add_test(t, test_fill_and_hit);
    tcase_add_test(t, test_faults_leave_nothing);
    tcase_add_test(t, test_privileges_are_apart);
    tcase_add_test(t, test_wp_toggle);
    tcase_add_test(t, test_pkru);
    tcase_add_test(t, test_invlpg_inside_a_large_page);
    tcase_add_test(t, test_invlpg_takes_only_its_page);
    tcase_add_test(t, test_cr3_without_pcid);
    tcase_add_test(t, test_global_large_page_across_spaces);
    tcase_add_test(t, test_pcid);
    tcase_add_test(t, test_globals_outlive_the_root_of_a_pcid);
    tcase_add_test(t, test_more_spaces_than_views);
    tcase_add_test(t, test_pae_pdptes_at_cr3_load);
    tcase_add_test(t, test_growth_and_conflicts);
    tcase_add_test(t, test_conflicts_between_flushes_count_too);
    tcase_add_test(t, test_a_large_working_set);
    tcase_add_loop_test(t, test_two_pages_in_a_large_table, 0, sizeof pairs / sizeof pairs[0]);
    tcase_add_test(t, test_growth_leaves_room_for_other_spaces);
    tcase_add_test(t, test_invlpg_costs_what_it_drops);
    tcase_add_test(t, test_mmio_and_holes_are_never_fast);
    tcase_add_test(t, test_map_changes_reach_views);
    tcase_add_test(t, test_watch);
    tcase_add_test(t, test_grant);
    tcase_add_test(t, test_exec_generation);
    tcase_add_test(t, test_global_generation);
    tcase_add_test(t, test_exec_generation_of_an_evicted_global);
    tcase_add_test(t, test_exec_generation_of_an_evicted_part);
    tcase_add_test(t, test_exec_generation_of_evicted_small_pages);
    tcase_add_test(t, test_exec_generation_of_many_evicted);
    tcase_add_test(t, test_exec_generation_when_the_page_moves);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
