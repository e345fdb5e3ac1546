/*
 * test_ahead.c - memory that is asked for comes; what has been forgotten does not.
 */
#include "../resident.h"
#include "internal/ahead.h"

#define MIB  (1024ul * 1024)
#define PAGE RESIDENT_PAGE

static struct ahead *ahead;

static void setup(void)
{
    ahead = ahead_new();
    ck_assert_ptr_nonnull(ahead);
}
static void teardown(void)
{
    ahead_free(ahead);
}

static char *map(size_t size)
{
    char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(p, MAP_FAILED);
    return p;
}

START_TEST(what_is_asked_for_comes)
{
    size_t size = 9 * MIB;
    char *memory = map(size);
    ck_assert_uint_eq(resident_pages(memory, size), 0);
    ahead_ask(ahead, memory + MIB, size - 2 * MIB, AHEAD_WRITE);
    ck_assert(resident_comes(memory + MIB, size - 2 * MIB));
    ahead_ask(ahead, memory, MIB, AHEAD_WRITE_SOON);
    ahead_ask(ahead, memory + size - MIB, MIB, AHEAD_READ_SOON);
    ck_assert(resident_comes(memory, size));
    for (size_t i = 0; i < size; i += PAGE)
        ck_assert_int_eq(memory[i], 0);
    munmap(memory, size);
}
END_TEST

START_TEST(what_is_forgotten_does_not_come)
{
    size_t size = 64 * MIB;
    char *before = map(size), *between = map(size), *after = map(MIB);
    ahead_ask(ahead, before, size, AHEAD_WRITE);
    ahead_ask(ahead, between, size, AHEAD_WRITE);
    ahead_ask(ahead, after, MIB, AHEAD_WRITE);
    ahead_forget(ahead, between + size - PAGE, PAGE); /* a part is enough */
    size_t n = resident_pages(between, size);
    ck_assert(resident_comes(before, size) && resident_comes(after, MIB));
    ck_assert_uint_eq(resident_pages(between, size), n);
    ck_assert_uint_lt(n, size / PAGE);
    munmap(before, size);
    munmap(between, size);
    munmap(after, MIB);
}
END_TEST

START_TEST(more_than_it_takes_and_what_is_not_mapped)
{
    char *memory = map(MIB);
    munmap(memory, MIB);
    for (int i = 0; i < 1000; i++)
        ahead_ask(ahead, memory, MIB, AHEAD_WRITE);
    ahead_forget(ahead, memory, MIB);
    memory = map(MIB);
    ahead_ask(ahead, memory, MIB, AHEAD_WRITE);
    ck_assert(resident_comes(memory, MIB));
    munmap(memory, MIB);
}
END_TEST

START_TEST(ending_drops_what_is_left)
{
    struct ahead *another = ahead_new();
    char *memory = map(256 * MIB);
    ahead_ask(another, memory, 256 * MIB, AHEAD_WRITE);
    ahead_free(another);
    size_t n = resident_pages(memory, 256 * MIB);
    ck_assert_uint_eq(resident_pages(memory, 256 * MIB), n);
    munmap(memory, 256 * MIB);
    ahead_free(NULL);
    ahead_free(ahead_new()); /* its thread has not begun */
}
END_TEST

int main(void)
{
    if (!resident_can_be_asked_for())
        return EXIT_SUCCESS;
    TCase *tc = tcase_create("ahead");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, what_is_asked_for_comes);
    tcase_add_test(tc, what_is_forgotten_does_not_come);
    tcase_add_test(tc, more_than_it_takes_and_what_is_not_mapped);
    tcase_add_test(tc, ending_drops_what_is_left);
    Suite *suite = suite_create("ahead");
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
