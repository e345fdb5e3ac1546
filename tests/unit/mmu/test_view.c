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
    return mmu_view_lookup(m, priv, gva, 1, kind);
}
static void *host(uint64_t gpa)
{
    return phys_hva(g->map, gpa, NULL);
}

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

int main(void)
{
    Suite *s = suite_create("view");
    TCase *t = tcase_create("view");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, test_fill_and_hit);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
