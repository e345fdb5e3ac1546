/*
 * test_trace.c - traced page tables: what survives MOV CR3, and that a store to a table takes
 * effect at once, whoever stores. test_random.c does the same at random.
 */
#include "guest.h"
#include "mmu/view.h"

#define G0    0x400000ull
#define FAR   0x840000ull
#define PAGES 32

static struct guest *g;
static struct mmu_cpu *m, *other;
static struct paging p;
static uint64_t root[2], pt, pd;

static void *hit(uint64_t gva)
{
    return mmu_view_lookup(m, MMU_USER, gva, 1, ACCESS_READ);
}
static uint64_t read_page(uint64_t gva)
{
    struct mmu_xlat x;
    return mmu_translate(m, &KERNEL, gva, ACCESS_READ, MMU_USER, &x) == MMU_OK ? x.gpa : ~0ull;
}
static void switch_to(unsigned i)
{
    mmu_set_cr3(m, root[i], false, NULL);
}
static void touch_all(void)
{
    for (unsigned i = 0; i < PAGES; i++)
        read_page(G0 + i * PAGE_SIZE);
}
static unsigned hits(void)
{
    unsigned n = 0;
    for (unsigned i = 0; i < PAGES; i++)
        n += hit(G0 + i * PAGE_SIZE) != NULL;
    return n;
}
static void store(uint64_t gpa, uint64_t value)
{
    phys_write(g->map, &KERNEL, gpa, &value, 8);
}

/* Two processes that alternate until the first one's tables are traced. */
static void setup(void)
{
    g = guest_new(4 * MIB, 2, NULL);
    m = &g->mmu[0];
    other = &g->mmu[1];
    for (unsigned r = 0; r < 2; r++) {
        p = paging_for(PAGING_4LEVEL, root[r] = guest_table(g));
        for (unsigned i = 0; i < PAGES; i++)
            guest_map(g, &p, G0 + i * PAGE_SIZE, (r * 0x40000 + i * PAGE_SIZE) | PTE_P | PTE_US, 1);
        guest_map(g, &p, FAR, 0x1000 | PTE_P | PTE_US, 1);
        if (r == 0) {
            pt = guest_entry(g, &p, G0, 1);
            pd = guest_entry(g, &p, G0, 2);
        }
    }
    mmu_paging_changed(m, &p);
    for (unsigned i = 0; i < 10; i++) {
        switch_to(0);
        touch_all();
        read_page(FAR);
        switch_to(1);
        touch_all();
    }
    switch_to(0);
}
static void teardown(void)
{
    guest_free(g);
}

START_TEST(test_entries_survive)
{
    ck_assert_uint_eq(hits(), PAGES);
    ck_assert_uint_gt(mmu_counters(m)->traced_frames, 4);
    ck_assert(*phys_frame_attr(g->map, pt) & FRAME_TABLE);
    uint64_t walks = mmu_counters(m)->walks;
    for (unsigned i = 0; i < 100; i++) {
        switch_to(i & 1);
        touch_all();
    }
    ck_assert_uint_eq(mmu_counters(m)->walks, walks);
}
END_TEST

START_TEST(test_store_to_a_leaf)
{
    store(pt + 8 * 3, 0x99000 | PTE_P | PTE_US);
    ck_assert_ptr_null(hit(G0 + 3 * PAGE_SIZE)); /* at once, and only this */
    ck_assert_uint_eq(hits(), PAGES - 1);
    ck_assert_uint_eq(read_page(G0 + 3 * PAGE_SIZE), 0x99000);
    switch_to(1);
    store(pt + 8 * 3, 0x98000 | PTE_P | PTE_US); /* while it is not current */
    switch_to(0);
    ck_assert_uint_eq(hits(), PAGES - 1);
    ck_assert_uint_eq(read_page(G0 + 3 * PAGE_SIZE), 0x98000);
    store(pt + 8 * 3 + 5, 0); /* across two entries */
    ck_assert_uint_eq(hits(), PAGES - 2);
}
END_TEST

/* The host's kernel writes a table while its frame is lent, and nobody hears of it: what is derived
 * from it then does not survive MOV CR3. */
START_TEST(test_lent_table)
{
    atomic_fetch_or(phys_frame_attr(g->map, pt), FRAME_LENT | FRAME_LENT_WRITE);
    store(pt + 8 * 3, 0x99000 | PTE_P | PTE_US);
    ck_assert_uint_eq(read_page(G0 + 3 * PAGE_SIZE), 0x99000);
    switch_to(1);
    *(uint64_t *)phys_hva(g->map, pt + 8 * 3, NULL) = 0x98000 | PTE_P | PTE_US;
    switch_to(0);
    ck_assert_ptr_null(hit(G0 + 3 * PAGE_SIZE));
    ck_assert_uint_eq(hits(), PAGES - 1);
    atomic_fetch_and(phys_frame_attr(g->map, pt), ~(uint32_t)(FRAME_LENT | FRAME_LENT_WRITE));
    for (unsigned i = 0; i < 4; i++) { /* noted, then traced, then exact */
        ck_assert_uint_eq(read_page(G0 + 3 * PAGE_SIZE), 0x98000);
        switch_to(1);
        switch_to(0);
    }
    ck_assert_uint_eq(hits(), PAGES);
}
END_TEST

/* A table that is traced, and whose entries are not exact for the moment, becomes something else:
 * its frame must not stay slow for ever. */
START_TEST(test_table_that_ends_while_it_is_lent)
{
    atomic_fetch_or(phys_frame_attr(g->map, pt), FRAME_LENT | FRAME_LENT_WRITE);
    store(pt + 8 * 3, 0x99000 | PTE_P | PTE_US);
    ck_assert_uint_eq(read_page(G0 + 3 * PAGE_SIZE), 0x99000); /* asked for once more */
    atomic_fetch_and(phys_frame_attr(g->map, pt), ~(uint32_t)(FRAME_LENT | FRAME_LENT_WRITE));
    store(pd, 0);
    ck_assert(!(*phys_frame_attr(g->map, pt) & FRAME_TABLE));
}
END_TEST

START_TEST(test_store_to_an_inner_entry)
{
    uint64_t old = peek64(g, pd);
    store(pd, 0);
    ck_assert_uint_eq(hits(), 0);
    ck_assert_ptr_nonnull(hit(FAR));
    ck_assert_uint_eq(read_page(G0), ~0ull);
    store(pd, old);
    touch_all();
    ck_assert_uint_eq(hits(), PAGES);
}
END_TEST

START_TEST(test_cleared_accessed_bit_is_set_again)
{
    store(pt + 8 * 5, peek64(g, pt + 8 * 5) & ~PTE_A); /* no invalidation follows */
    ck_assert_ptr_null(hit(G0 + 5 * PAGE_SIZE));
    read_page(G0 + 5 * PAGE_SIZE);
    ck_assert(peek64(g, pt + 8 * 5) & PTE_A);
}
END_TEST

START_TEST(test_dma_and_other_vcpus_store)
{
    uint64_t entry = 0x99000 | PTE_P | PTE_US;
    switch_to(1);
    phys_write(g->map, &DMA, pt + 8 * 3, &entry, 8);
    ck_assert_uint_ge(g->kicks[0], 1);
    switch_to(0); /* reads its letters first */
    ck_assert_uint_eq(hits(), PAGES - 1);
    ck_assert_uint_eq(read_page(G0 + 3 * PAGE_SIZE), 0x99000);
    struct access by = {.initiator = INITIATOR_VCPU_KERNEL, .vcpu = 1};
    for (unsigned i = 0; i < 1000; i++) /* more letters than the box holds */
        phys_write(g->map, &by, pt + 8 * 4, &entry, 8);
    mmu_service(m);
    ck_assert_ptr_null(hit(G0 + 4 * PAGE_SIZE));
}
END_TEST

START_TEST(test_other_vcpu_holds_a_writable_entry)
{
    /* vCPU 1 may store to a table by its view. Until it has given that up, nothing is exact. */
    struct mmu_xlat x;
    struct access by = {.initiator = INITIATOR_VCPU_KERNEL, .vcpu = 1};
    uint64_t fresh = guest_table(g);
    ck_assert_int_eq(mmu_translate(other, &by, fresh, ACCESS_WRITE, MMU_SUPERVISOR, &x), MMU_OK);
    uint64_t *table = x.hva;
    ck_assert_ptr_nonnull(table);
    table[0] = 0x99000 | PTE_P | PTE_US;
    store(pd + 8, fresh | PTE_P | PTE_US);
    const uint64_t gva = G0 + 2 * MIB;
    for (unsigned i = 0; i < 5; i++) {
        ck_assert_uint_eq(read_page(gva), i ? 0x98000 : 0x99000);
        table[0] = 0x98000 | PTE_P | PTE_US; /* by the view: nobody hears of it */
        switch_to(1);
        switch_to(0);
        ck_assert_msg(!hit(gva), "MOV CR3 must drop what may have changed unheard");
    }
    ck_assert_uint_ge(g->kicks[1], 1);
    mmu_service(other);
    ck_assert_ptr_null(mmu_view_lookup(other, MMU_SUPERVISOR, fresh, 8, ACCESS_WRITE));
    for (unsigned i = 0; i < 3; i++) {
        read_page(gva);
        switch_to(1);
        switch_to(0);
    }
    ck_assert_ptr_nonnull(hit(gva));
    uint64_t entry = 0x97000 | PTE_P | PTE_US;
    ck_assert_int_eq(mmu_translate(other, &by, fresh, ACCESS_WRITE, MMU_SUPERVISOR, &x), MMU_OK);
    ck_assert_ptr_null(x.hva);
    phys_write(g->map, &by, fresh, &entry, 8);
    switch_to(1);
    switch_to(0);
    ck_assert_uint_eq(read_page(gva), 0x97000);
}
END_TEST

START_TEST(test_own_stores_to_tables_go_slow)
{
    struct mmu_xlat x;
    guest_map(g, &p, 4 * G0, (pt & PAGE_MASK) | PTE_P | PTE_RW | PTE_US, 1);
    switch_to(1);
    ck_assert_int_eq(mmu_translate(m, &KERNEL, 4 * G0, ACCESS_WRITE, MMU_USER, &x), MMU_OK);
    ck_assert_ptr_null(x.hva);
}
END_TEST

START_TEST(test_own_writable_entry_goes_when_tracing_begins)
{
    /* A global page shows a fresh table for writing, and has been written to by the view. */
    struct mmu_xlat x;
    uint64_t fresh = guest_table(g), gva = G0 + 2 * MIB;
    p = paging_for(PAGING_4LEVEL, root[0]);
    p.cr4 |= PG_CR4_PGE;
    guest_map(g, &p, FAR + PAGE_SIZE, fresh | PTE_P | PTE_RW | PTE_US | PTE_G, 1);
    mmu_paging_changed(m, &p);
    for (unsigned i = 0; i < 10; i++) { /* the mode has changed: all begins anew */
        touch_all();
        switch_to(0);
    }
    store(pd + 8, fresh | PTE_P | PTE_US);
    ck_assert_int_eq(mmu_translate(m, &KERNEL, FAR + PAGE_SIZE, ACCESS_WRITE, MMU_USER, &x),
                     MMU_OK);
    ck_assert_ptr_nonnull(mmu_view_lookup(m, MMU_USER, FAR + PAGE_SIZE, 8, ACCESS_WRITE));
    ck_assert_uint_eq(read_page(gva), ~0ull);
    ck_assert_ptr_nonnull(mmu_view_lookup(m, MMU_USER, FAR + PAGE_SIZE, 8, ACCESS_WRITE));
    *(uint64_t *)x.hva = 0x99000 | PTE_P | PTE_US;
    ck_assert_uint_eq(read_page(gva), 0x99000);
    switch_to(0);
    ck_assert_ptr_nonnull(mmu_view_lookup(m, MMU_USER, FAR + PAGE_SIZE, 8, ACCESS_READ));
    ck_assert_ptr_null(mmu_view_lookup(m, MMU_USER, FAR + PAGE_SIZE, 8, ACCESS_WRITE));
}
END_TEST

START_TEST(test_storm_ends_tracing)
{
    for (unsigned i = 0; i < 20000; i++)
        store(pt + 8 * (i % 512), 0);
    ck_assert_msg(!(*phys_frame_attr(g->map, pt) & FRAME_TABLE), "a reused frame gets fast again");
    ck_assert(!m->priv->current->tracing);
    switch_to(0);
    ck_assert_uint_eq(hits(), 0);
}
END_TEST

START_TEST(test_more_tables_than_uses)
{
    /* 9000 tables, a page in each: tracing gives up, nothing is wrong. */
#define SPREAD(i) ((i)*2 * MIB + (i) % 512 * PAGE_SIZE)
    struct guest *big = guest_new(160 * MIB, 1, NULL);
    struct paging q = paging_for(PAGING_4LEVEL, guest_table(big));
    struct mmu_xlat x;
    for (uint64_t i = 0; i < 9000; i++)
        guest_map(big, &q, SPREAD(i), i * PAGE_SIZE | PTE_P | PTE_US, 1);
    mmu_paging_changed(&big->mmu[0], &q);
    for (unsigned round = 0; round < 12; round++) {
        if (round == 8)
            ck_assert(big->mmu[0].priv->current->uses > 100);
        for (uint64_t i = 0; i < (round < 8 ? 100 : 9000); i++) {
            ck_assert(mmu_translate(&big->mmu[0], &KERNEL, SPREAD(i), ACCESS_READ, MMU_USER, &x) ==
                      MMU_OK);
            ck_assert_uint_eq(x.gpa, i * PAGE_SIZE);
        }
        mmu_set_cr3(&big->mmu[0], q.cr3, false, NULL);
    }
    ck_assert(!big->mmu[0].priv->current->tracing);
    guest_free(big);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("trace");
    TCase *t = tcase_create("trace");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, test_entries_survive);
    tcase_add_test(t, test_store_to_a_leaf);
    tcase_add_test(t, test_store_to_an_inner_entry);
    tcase_add_test(t, test_lent_table);
    tcase_add_test(t, test_table_that_ends_while_it_is_lent);
    tcase_add_test(t, test_cleared_accessed_bit_is_set_again);
    tcase_add_test(t, test_dma_and_other_vcpus_store);
    tcase_add_test(t, test_other_vcpu_holds_a_writable_entry);
    tcase_add_test(t, test_own_stores_to_tables_go_slow);
    tcase_add_test(t, test_own_writable_entry_goes_when_tracing_begins);
    tcase_add_test(t, test_storm_ends_tracing);
    tcase_add_test(t, test_more_tables_than_uses);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
