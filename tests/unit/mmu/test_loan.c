/*
 * test_loan.c - guest memory that is lent to the host's kernel (mmu/loan.c): what is lent, and who
 * waits for its return. The waiters are threads; run it under ThreadSanitizer too.
 */
#include "mmu/view.h"
#include "rules_guest.h"
#include <sched.h>
#include <time.h>

#define AT 0x10000ull

static void setup(void)
{
    start(PAGING_NONE, 4 * MIB);
    bind_supervisor();
}

static bool lends(bool to_memory, uint64_t gpa, uint64_t len)
{
    struct phys_loan *loan = phys_loan_new(g->map, to_memory, 8);
    bool ok = phys_loan_add(loan, gpa, len);
    phys_loan_end(loan);
    return ok;
}

static uint32_t attr(uint64_t gpa)
{
    return *phys_frame_attr(g->map, gpa);
}

static void nothing_is_lent(void)
{
    for (uint64_t gpa = 0; gpa < g->size; gpa += PAGE_SIZE)
        ck_assert(!phys_frame_attr(g->map, gpa) || /* registers lie over it */
                  !(attr(gpa) & (FRAME_LENT | FRAME_LENT_WRITE)));
}

/* ---- What is lent ----------------------------------------------------------------------------
 */

START_TEST(pieces)
{
    struct phys_loan *loan = phys_loan_new(g->map, true, 2);
    ck_assert(phys_loan_add(loan, AT, 2 * PAGE_SIZE));
    ck_assert(phys_loan_add(loan, AT + 2 * PAGE_SIZE, PAGE_SIZE)); /* goes on there */
    ck_assert(phys_loan_add(loan, AT + 8 * PAGE_SIZE, PAGE_SIZE));
    ck_assert_uint_eq(loan->count, 2);
    ck_assert_ptr_eq(loan->iov[0].iov_base, phys_hva(g->map, AT, NULL));
    ck_assert_uint_eq(loan->iov[0].iov_len, 3 * PAGE_SIZE);
    ck_assert_ptr_eq(loan->iov[1].iov_base, phys_hva(g->map, AT + 8 * PAGE_SIZE, NULL));
    ck_assert_uint_eq(attr(AT) & (FRAME_LENT | FRAME_LENT_WRITE), FRAME_LENT | FRAME_LENT_WRITE);
    ck_assert(!phys_loan_add(loan, AT + 4 * PAGE_SIZE, PAGE_SIZE)); /* a third */
    ck_assert(phys_loan_add(loan, AT + 9 * PAGE_SIZE, PAGE_SIZE));
    phys_loan_end(loan);
    phys_loan_end(NULL);
    nothing_is_lent();
}
END_TEST

/* Frames next to each other for the guest, which a hole keeps apart in the block; and the other way
 * round: host memory that goes on behind a hole of the guest's. */
START_TEST(halves_of_ram)
{
    enum { HALF = 4 * PAGE_SIZE };
    const uint64_t low = 0x800000, high = 0xc00000;
    struct error err;
    struct ram_block *ram = phys_ram_new(g->map, 4 * HALF, &err);
    ck_assert(phys_add_ram(g->map, low, HALF, ram, 0, "low", &err));
    ck_assert(phys_add_ram(g->map, low + HALF, HALF, ram, 2 * HALF, "next", &err));
    ck_assert(phys_add_ram(g->map, high, HALF, ram, HALF, "high", &err));
    struct phys_loan *loan = phys_loan_new(g->map, true, 4);
    ck_assert(phys_loan_add(loan, low, 2 * HALF));
    ck_assert_uint_eq(loan->count, 2);
    for (unsigned i = 0; i < 2; i++) {
        ck_assert_ptr_eq(loan->iov[i].iov_base, phys_hva(g->map, low + i * HALF, NULL));
        ck_assert_uint_eq(loan->iov[i].iov_len, HALF);
    }
    phys_loan_end(loan);
    ck_assert(!lends(true, low, high - low + HALF)); /* the hole */
    loan = phys_loan_new(g->map, true, 4);
    ck_assert(phys_loan_add(loan, low, HALF));
    ck_assert(phys_loan_add(loan, high, HALF));
    ck_assert_uint_eq(loan->count, 1);
    ck_assert_uint_eq(loan->iov[0].iov_len, 2 * HALF);
    phys_loan_end(loan);
    for (uint64_t i = 0; i < HALF; i += PAGE_SIZE)
        ck_assert(!((attr(low + i) | attr(low + HALF + i) | attr(high + i)) &
                    (FRAME_LENT | FRAME_LENT_WRITE)));
}
END_TEST

START_TEST(what_is_not_lent)
{
    struct error err;
    static const struct io_ops ops = {.min = 1, .max = 8};
    const uint8_t byte = 1;
    struct ram_block *rom = phys_rom_new(g->map, PAGE_SIZE, &byte, 1, &err);
    ck_assert_int_ge(phys_map_block(g->map, 0x40000, PAGE_SIZE, rom, 0, "rom", &err), 0);
    ck_assert_int_ge(phys_add_mmio(g->map, 0x50000, PAGE_SIZE, &ops, NULL, "mmio", &err), 0);
    for (unsigned to_memory = 0; to_memory < 2; to_memory++) {
        ck_assert(lends(to_memory, AT, 4 * PAGE_SIZE));
        ck_assert(!lends(to_memory, AT + 512, PAGE_SIZE));
        ck_assert(!lends(to_memory, AT, 512));
        ck_assert(!lends(to_memory, 0x4f000, 2 * PAGE_SIZE)); /* the second is registers */
        ck_assert(!lends(to_memory, g->size - PAGE_SIZE, 2 * PAGE_SIZE));
        ck_assert(!lends(to_memory, UINT64_MAX - PAGE_SIZE + 1, PAGE_SIZE));
        ck_assert_int_eq(lends(to_memory, 0x40000, PAGE_SIZE), !to_memory); /* ROM */
        nothing_is_lent();
    }
}
END_TEST

/* Of a frame that the host only reads nobody but rules must hear. */
START_TEST(frames_of_which_somebody_hears)
{
    mmu_code_added(&g->mmu[0], AT + 0x100, 16);
    ck_assert(!lends(true, AT, PAGE_SIZE));
    ck_assert(lends(false, AT, PAGE_SIZE));
    mmu_code_gone(&g->mmu[0], AT);
    ck_assert(lends(true, AT, PAGE_SIZE));
    static const uint32_t written[] = {FRAME_TABLE, FRAME_WATCHED, FRAME_DIRTY_LOG,
                                       FRAME_RULED_TABLE};
    for (unsigned i = 0; i < 4; i++) {
        atomic_fetch_or(phys_frame_attr(g->map, AT), written[i]);
        ck_assert(!lends(true, AT - PAGE_SIZE, 2 * PAGE_SIZE));
        ck_assert(lends(false, AT, PAGE_SIZE));
        atomic_fetch_and(phys_frame_attr(g->map, AT), ~written[i]);
    }
    nothing_is_lent();
}
END_TEST

START_TEST(frames_with_a_rule)
{
    static const unsigned subjects[] = {PROTECT_OWNER, PROTECT_DEVICE, PROTECT_HOST};
    for (unsigned i = 0; i < 3; i++) {
        uint64_t at = AT + i * 4 * PAGE_SIZE;
        uint32_t id = add(at + 8, 1, 0); /* of one byte */
        ck_assert(lends(true, at, PAGE_SIZE));
        const struct protect_rule r =
            rule(id, subjects[i], PROTECT_READ | PROTECT_EXEC, PROTECT_DENY);
        ck_assert_int_eq(do_op(PROTECT_OP_SET_RULES, &r, 1), PROTECT_OK);
        ck_assert(!lends(true, at, PAGE_SIZE));
        ck_assert(!lends(false, at, PAGE_SIZE));
        ck_assert_int_eq(give(0, RULES_SUPERVISOR, PROTECT_OP_REMOVE_REGIONS, id, 1), PROTECT_OK);
        ck_assert(lends(true, at, PAGE_SIZE));
    }
    nothing_is_lent();
}
END_TEST

START_TEST(one_borrower_at_a_time)
{
    struct phys_loan *loan = phys_loan_new(g->map, false, 1);
    ck_assert(phys_loan_add(loan, AT, PAGE_SIZE));
    ck_assert(!lends(false, AT, PAGE_SIZE));
    ck_assert(!lends(true, AT, PAGE_SIZE));
    ck_assert_uint_eq(attr(AT), FRAME_LENT); /* they have left no mark */
    phys_loan_end(loan);
    ck_assert(lends(true, AT, PAGE_SIZE));
}
END_TEST

/* ---- Who waits -------------------------------------------------------------------------------
 */

static _Atomic bool returned;
static uint8_t seen;

static void *decode(void *opaque)
{
    (void)opaque;
    mmu_code_added(&g->mmu[0], AT + 0x100, 16);
    atomic_store(&returned, true);
    seen = __atomic_load_n((uint8_t *)phys_hva(g->map, AT + 0x100, NULL), __ATOMIC_ACQUIRE);
    return NULL;
}

static void *protect(void *opaque)
{
    const struct protect_rule *r = opaque;
    ck_assert_int_eq(do_op(PROTECT_OP_SET_RULES, r, 1), PROTECT_OK);
    atomic_store(&returned, true);
    return NULL;
}

/* It has set the mark, and is given time to be wrong. */
static void must_wait(pthread_t *thread, void *(*fn)(void *), void *opaque, uint64_t gpa,
                      uint32_t mark)
{
    atomic_store(&returned, false);
    ck_assert_int_eq(pthread_create(thread, NULL, fn, opaque), 0);
    while (!(attr(gpa) & mark))
        sched_yield();
    for (unsigned i = 0; i < 20; i++)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    ck_assert(!atomic_load(&returned));
}

START_TEST(code_waits_for_what_is_written)
{
    pthread_t thread;
    struct phys_loan *loan = phys_loan_new(g->map, true, 1);
    ck_assert(phys_loan_add(loan, AT, PAGE_SIZE));
    must_wait(&thread, decode, NULL, AT, FRAME_CODE);
    __atomic_store_n((uint8_t *)loan->iov[0].iov_base + 0x100, 0xc3, __ATOMIC_RELEASE);
    phys_loan_end(loan);
    pthread_join(thread, NULL);
    ck_assert_uint_eq(seen, 0xc3); /* and not what was there before */
    ck_assert(!lends(true, AT, PAGE_SIZE));
}
END_TEST

START_TEST(code_does_not_wait_for_what_is_read)
{
    struct phys_loan *loan = phys_loan_new(g->map, false, 1);
    ck_assert(phys_loan_add(loan, AT, PAGE_SIZE));
    mmu_code_added(&g->mmu[0], AT + 0x100, 16);
    phys_loan_end(loan);
}
END_TEST

START_TEST(rules_wait)
{
    pthread_t thread;
    uint32_t id = add(AT + 0x200, 4, 0);
    struct protect_rule r = rule(id, PROTECT_DEVICE, 0, PROTECT_DENY);
    struct phys_loan *loan = phys_loan_new(g->map, _i, 1);
    ck_assert(phys_loan_add(loan, AT, PAGE_SIZE));
    must_wait(&thread, protect, &r, AT, FRAME_RULED);
    phys_loan_end(loan);
    pthread_join(thread, NULL);
    ck_assert(atomic_load(&returned));
    ck_assert(!lends(_i, AT, PAGE_SIZE));
}
END_TEST

#define GVA 0x400000ull

static void *protect_address(void *opaque)
{
    (void)opaque;
    const struct protect_rule r = rule(add(GVA, 8, 0), PROTECT_OWNER, 0, PROTECT_DENY);
    ck_assert_int_eq(do_op(PROTECT_OP_SET_RULES, &r, 1), PROTECT_OK);
    atomic_store(&returned, true);
    return NULL;
}

/* A region's page table is on its way from a disk: the rule goes to the frame that it names in the
 * end. */
START_TEST(tables_under_way)
{
    pthread_t thread;
    finish();
    start(PAGING_4LEVEL, 4 * MIB);
    bind_supervisor();
    guest_map(g, &paging, GVA, 0x20000 | PTE_P | PTE_RW, 1);
    const uint64_t entry = guest_entry(g, &paging, GVA, 1), table = entry & PAGE_MASK;
    struct phys_loan *loan = phys_loan_new(g->map, true, 1);
    ck_assert(phys_loan_add(loan, table, PAGE_SIZE));
    must_wait(&thread, protect_address, NULL, table, FRAME_RULED_TABLE);
    __atomic_store_n((uint64_t *)phys_hva(g->map, entry, NULL), 0x30000 | PTE_P | PTE_RW,
                     __ATOMIC_RELEASE);
    phys_loan_end(loan);
    pthread_join(thread, NULL);
    ck_assert(attr(0x30000) & FRAME_RULED);
    ck_assert(!(attr(0x20000) & FRAME_RULED));
}
END_TEST

/* Lenders in one thread, decoding and forgetting in another: a frame is never both, and nobody is
 * left waiting. */
static _Atomic unsigned loans;
static _Atomic bool enough;

static void *lend_often(void *opaque)
{
    (void)opaque;
    for (unsigned i = 0; !atomic_load(&enough); i++) {
        struct phys_loan *loan = phys_loan_new(g->map, true, 4);
        if (phys_loan_add(loan, AT, 4 * PAGE_SIZE)) {
            memset(loan->iov[0].iov_base, (int)i, 64);
            atomic_fetch_add(&loans, 1);
        }
        phys_loan_end(loan);
    }
    return NULL;
}

START_TEST(lending_and_decoding)
{
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, lend_often, NULL), 0);
    for (unsigned i = 0; i < 20000 || atomic_load(&loans) < 100; i++) {
        uint8_t bytes[64], again[64];
        const uint8_t *page = phys_hva(g->map, AT, NULL);
        mmu_code_added(&g->mmu[0], AT, 64);
        memcpy(bytes, page, 64); /* what stands still while it is code */
        sched_yield();
        memcpy(again, page, 64);
        ck_assert(!memcmp(bytes, again, 64));
        mmu_code_gone(&g->mmu[0], AT);
        if (i % 8 == 0)
            sched_yield();
    }
    atomic_store(&enough, true);
    pthread_join(thread, NULL);
    nothing_is_lent();
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {pieces,
                                  halves_of_ram,
                                  what_is_not_lent,
                                  frames_of_which_somebody_hears,
                                  frames_with_a_rule,
                                  one_borrower_at_a_time,
                                  code_waits_for_what_is_written,
                                  code_does_not_wait_for_what_is_read,
                                  tables_under_way,
                                  lending_and_decoding};
    Suite *suite = suite_create("loan");
    TCase *tcase = tcase_create("loan");
    tcase_add_checked_fixture(tcase, setup, finish);
    tcase_set_timeout(tcase, 60);
    for (unsigned i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
        tcase_add_test(tcase, tests[i]);
    tcase_add_loop_test(tcase, rules_wait, 0, 2);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
