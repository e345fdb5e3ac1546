/*
 * test_code.c - code frames: who is told of a store, who may store fast, and that after a revoke a
 * scan of all views finds nothing. The last test is two threads; run it under ThreadSanitizer too.
 */
#include "guest.h"
#include "mmu/view.h"

#define G0   0x400000ull
#define CODE 0x5000ull

static struct guest *g;
static struct mmu_cpu *m0, *m1;

static void setup(void)
{
    g = guest_new(4 * MIB, 2, NULL);
    m0 = &g->mmu[0];
    m1 = &g->mmu[1];
}
static void teardown(void)
{
    guest_free(g);
}

/* Not by the reverse map: every entry of every table is looked at. */
static unsigned scan_writable(struct mmu_cpu *mmu, uint64_t gpa)
{
    uint8_t *host = phys_hva(mmu->map, gpa, NULL);
    unsigned n = 0;
    for (unsigned s = 0; s < VIEW_SPACES; s++)
        for (unsigned i = 0; i < MMU_PRIVS; i++) {
            const struct view_table *t = &mmu->priv->space[s].table[i];
            for (uint32_t e = 0; t->entries && e < 1u << t->bits; e++)
                n += view_tag_allows(t->entries[e].tag_write, e) &&
                     t->entries[e].page == host;
        }
    return n;
}

static void *write_to(struct mmu_cpu *m, uint64_t gva)
{
    struct mmu_xlat x;
    struct access a = {.initiator = INITIATOR_VCPU_KERNEL, .vcpu = (uint16_t)m->vcpu};
    ck_assert_int_eq(mmu_translate(m, &a, gva, ACCESS_WRITE, MMU_SUPERVISOR, &x), MMU_OK);
    return x.hva;
}

/* Several spaces and several pages that show one frame. */
static void show_everywhere(struct mmu_cpu *m)
{
    struct paging p = paging_for(PAGING_4LEVEL, guest_table(g));
    for (unsigned i = 0; i < 5; i++)
        guest_map(g, &p, G0 + i * 3 * PAGE_SIZE, CODE | PTE_P | PTE_RW, 1);
    mmu_paging_changed(m, &p);
    for (unsigned space = 0; space < 3; space++) {
        struct paging q = p;
        q.cr3 = guest_table(g);
        poke64(g, q.cr3, peek64(g, p.cr3));
        mmu_set_cr3(m, q.cr3, false, NULL);
        for (unsigned i = 0; i < 5; i++)
            ck_assert_ptr_nonnull(write_to(m, G0 + i * 3 * PAGE_SIZE));
    }
}

START_TEST(test_revoke_finds_all)
{
    show_everywhere(m0);
    show_everywhere(m1);
    ck_assert_uint_eq(scan_writable(m0, CODE), 15);
    ck_assert_uint_eq(scan_writable(m1, CODE), 15);
    ck_assert_uint_eq(mmu_count_entries_of_frame(m1, CODE), 15);
    mmu_code_added(m0, CODE + 0x100, 20);
    ck_assert_uint_eq(scan_writable(m0, CODE), 0);
    ck_assert_uint_eq(scan_writable(m1, CODE), 0);
    ck_assert_msg(mmu_count_entries_of_frame(m1, CODE) == 15, "reads stay fast");
    ck_assert_uint_eq(*phys_frame_attr(g->map, CODE), FRAME_CODE); /* nobody may write */
    ck_assert_ptr_null(write_to(m1, G0));
    ck_assert_ptr_null(write_to(m0, G0));
    mmu_code_gone(m0, CODE);
    ck_assert_ptr_nonnull(write_to(m1, G0));
}
END_TEST

START_TEST(test_own_store)
{
    uint8_t b[8] = {0x90};
    mmu_code_added(m0, CODE + 0x100, 20);
    phys_write(g->map, &KERNEL, CODE + 0x140, b, 8); /* the next granule: data beside code */
    phys_write(g->map, &KERNEL, CODE + 0xf8, b, 8);
    ck_assert_uint_eq(g->stale, 0);
    phys_write(g->map, &KERNEL, CODE + 0x110, b, 2);
    ck_assert_uint_eq(g->stale, 1);
    ck_assert_uint_eq(g->stale_gpa, CODE + 0x110);
    ck_assert_uint_eq(g->stale_len, 2);
    ck_assert_uint_eq(g->kicks[0], 0);
    phys_write(g->map, &KERNEL, CODE + 0xfc, b, 8); /* crosses into the code's granule */
    ck_assert_uint_eq(g->stale, 2);
    uint64_t old = peek64(g, CODE + 0x100);
    bool done;
    ck_assert(phys_cmpxchg(g->map, &KERNEL, CODE + 0x100, 8, &old, 1, &done) == PHYS_OK && done);
    ck_assert_uint_eq(g->stale, 3);
    phys_write(g->map, &KERNEL, CODE - 4, b, 8); /* crosses into the frame, before the code */
    ck_assert_uint_eq(g->stale, 3);
}
END_TEST

START_TEST(test_store_by_others)
{
    uint8_t page[2 * PAGE_SIZE] = {0};
    struct access other = {.initiator = INITIATOR_VCPU_KERNEL, .vcpu = 1};
    mmu_code_added(m0, CODE, 64);
    phys_write(g->map, &other, CODE + 8, page, 1);
    ck_assert_uint_eq(g->stale, 0);
    ck_assert_uint_eq(g->kicks[0], 1);
    mmu_service(m0);
    ck_assert_uint_eq(g->stale, 1);
    ck_assert_uint_eq(g->stale_gpa, CODE);
    ck_assert_uint_eq(g->stale_len, PAGE_SIZE);
    ck_assert_uint_eq(*phys_frame_attr(g->map, CODE) & FRAME_CODE, 0);

    mmu_code_added(m0, CODE, 64);
    mmu_code_added(m0, CODE + PAGE_SIZE, 64);
    mmu_code_added(m1, CODE, 64);
    for (unsigned i = 0; i < 1000; i++) /* one letter is enough, however often */
        phys_write(g->map, &DMA, CODE, page, sizeof page);
    ck_assert_uint_eq(m0->priv->box.code_count, 2);
    ck_assert_uint_eq(m1->priv->box.code_count, 1);
    g->stale = 0;
    mmu_service(m0);
    ck_assert_uint_eq(g->stale, 2);
    mmu_service(m1);
    ck_assert_uint_eq(g->stale, 3);
}
END_TEST

START_TEST(test_walker_on_a_code_frame)
{
    /* A page table beside code: setting A is a store like any other. */
    struct paging p = paging_for(PAGING_4LEVEL, guest_table(g));
    uint64_t at = guest_map(g, &p, G0, 0x9000 | PTE_P | PTE_RW, 1);
    struct mmu_xlat x;
    mmu_paging_changed(m0, &p);
    mmu_code_added(m0, at, 8);
    ck_assert_int_eq(mmu_translate(m0, &KERNEL, G0, ACCESS_READ, MMU_SUPERVISOR, &x), MMU_OK);
    ck_assert_uint_eq(g->stale, 1);
    ck_assert_uint_eq(g->stale_gpa, at);
}
END_TEST

/* ---- Two vCPUs ------------------------------------------------------------------------------- */

enum { ROUNDS = 3000 };

struct race {
    struct guest *g;
    struct exclusive *x;
    _Atomic int ask[2]; /* CPU_REQ_EXCLUSIVE */
    _Atomic unsigned round, stored;
    bool decoded; /* vCPU 0's: a block is held */
    uint64_t copy;
    unsigned stale;
};

static void race_ask(void *cpu)
{
    *(_Atomic int *)cpu = 1;
}
static void race_stale(void *opaque, uint64_t gpa, uint64_t len)
{
    struct race *r = opaque;
    (void)len;
    ck_assert_uint_eq(gpa & PAGE_MASK, CODE);
    r->decoded = false;
    r->stale++;
}
static void race_kick(void *opaque)
{
    (void)opaque;
}
static void safepoint(struct race *r, unsigned vcpu)
{
    if (r->ask[vcpu]) {
        r->ask[vcpu] = 0;
        exclusive_poll(r->x, vcpu);
    }
}

/* Stores the round's number, by a view where it may. */
static void *storer(void *opaque)
{
    struct race *r = opaque;
    struct mmu_cpu *m = &r->g->mmu[1];
    struct access a = {.initiator = INITIATOR_VCPU_KERNEL, .vcpu = 1};
    exclusive_enter(r->x, 1);
    for (unsigned done = 0; done < ROUNDS;) {
        safepoint(r, 1);
        mmu_service(m);
        unsigned round = r->round;
        if (round == done)
            continue;
        struct mmu_xlat x;
        void *hva = mmu_view_lookup(m, MMU_SUPERVISOR, CODE, 8, ACCESS_WRITE);
        if (!hva) {
            mmu_translate(m, &a, CODE, ACCESS_WRITE, MMU_SUPERVISOR, &x);
            hva = x.hva;
        }
        uint64_t value = round;
        if (hva)
            __atomic_store_n((uint64_t *)hva, value, __ATOMIC_RELEASE);
        else
            phys_write(r->g->map, &a, CODE, &value, 8);
        r->stored = done = round;
    }
    exclusive_leave(r->x, 1);
    return NULL;
}

static void decode(struct race *r, struct mmu_cpu *m)
{
    mmu_code_added(m, CODE, 16); /* first this, then the bytes */
    phys_read(r->g->map, &KERNEL, CODE, &r->copy, 8);
    r->decoded = true;
}

START_TEST(test_no_store_is_missed)
{
    static struct race r;
    memset(&r, 0, sizeof r);
    r.x = exclusive_new(2, race_ask);
    r.g = guest_new(4 * MIB, 0, NULL);
    for (unsigned i = 0; i < 2; i++) {
        struct mmu_cpu_hooks hooks = {&r, race_stale, race_kick};
        ck_assert(mmu_cpu_init(&r.g->mmu[i], r.g->map, r.x, i, &hooks, NULL, NULL));
        exclusive_set_cpu(r.x, i, (void *)&r.ask[i]);
    }
    r.g->cpus = 2;
    struct mmu_cpu *m = &r.g->mmu[0];
    pthread_t thread;
    pthread_create(&thread, NULL, storer, &r);
    exclusive_enter(r.x, 0);
    unsigned caught = 0;
    for (unsigned i = 1; i <= ROUNDS; i++) {
        unsigned seed = i * 2654435761u, spin = (seed >> 20) % 300;
        if (i % 3 == 0) {
            mmu_code_gone(m, CODE);
            r.decoded = false;
        }
        r.round = i; /* now the other stores, while this one decodes */
        for (volatile unsigned n = 0; n < spin; n++)
            safepoint(&r, 0);
        if (!r.decoded)
            decode(&r, m);
        while (r.stored != i)
            safepoint(&r, 0);
        unsigned before = r.stale;
        mmu_service(m);
        caught += r.stale != before;
        if (r.decoded)
            ck_assert_uint_eq(r.copy, peek64(r.g, CODE));
    }
    exclusive_leave(r.x, 0);
    pthread_join(thread, NULL);
    ck_assert_uint_gt(caught, 0);
    guest_free(r.g);
    exclusive_free(r.x);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("code");
    TCase *t = tcase_create("code");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, test_revoke_finds_all);
    tcase_add_test(t, test_own_store);
    tcase_add_test(t, test_store_by_others);
    tcase_add_test(t, test_walker_on_a_code_frame);
    suite_add_tcase(s, t);
    t = tcase_create("threads");
    tcase_set_timeout(t, 120);
    tcase_add_test(t, test_no_store_is_missed);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
