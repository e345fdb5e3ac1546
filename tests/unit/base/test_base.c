/*
 * Unit tests of src/base: error.c, log.c, fields.c, exclusive.c.
 */
#include "internal/error.h"
#include "internal/exclusive.h"
#include "internal/fields.h"
#include "internal/log.h"
#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

START_TEST(errors_are_prefixed_and_cut)
{
    struct error err;
    ck_assert(!error_set(&err, "no %s", "disk"));
    error_prefix(&err, "drive %d", 3);
    ck_assert_str_eq(err.msg, "drive 3: no disk");
    char longer[2000];
    memset(longer, 'x', sizeof(longer));
    longer[sizeof(longer) - 1] = 0;
    error_set(&err, "%s", longer);
    error_prefix(&err, "p");
    ck_assert_uint_eq(strlen(err.msg), sizeof(err.msg) - 1);
    ck_assert_int_eq(strncmp(err.msg, "p: xxx", 6), 0);
    ck_assert(!error_set(NULL, "nobody listens"));
}
END_TEST

START_TEST(log_items)
{
    uint32_t mask = 0;
    ck_assert_ptr_null(log_parse("int,mmu", &mask));
    ck_assert_uint_eq(mask, LOG_INT | LOG_MMU);
    ck_assert_str_eq(log_parse("int,nonsense,cpu", &mask), "nonsense,cpu");
    ck_assert_uint_eq(mask, LOG_INT | LOG_MMU);     /* untouched by the failure */
    ck_assert_str_eq(log_parse("in", &mask), "in"); /* a prefix of a name is not the name */
}
END_TEST

struct sample {
    uint8_t a;
    uint16_t b[3];
    uint32_t c;
    uint64_t d;
};
static const struct field sample_fields[] = {
    FIELD(struct sample, a, FIELD_U8, 1),
    FIELD_ARRAY(struct sample, b, FIELD_U16, 1),
    FIELD(struct sample, c, FIELD_U32, 1),
    FIELD(struct sample, d, FIELD_U64, 2),
};
static const struct state_desc sample_state = STATE_DESC("sample", 2, sample_fields);

START_TEST(fields_read_and_write)
{
    struct sample s = {1, {2, 3, 4}, 0xdeadbeef, 1ull << 63};
    ck_assert_uint_eq(sample_state.field_count, 4);
    ck_assert_uint_eq(sample_fields[1].count, 3);
    ck_assert_uint_eq(field_get(&sample_fields[1], &s, 2), 4);
    ck_assert_uint_eq(field_get(&sample_fields[2], &s, 0), 0xdeadbeef);
    ck_assert_uint_eq(field_get(&sample_fields[3], &s, 0), 1ull << 63);
    field_set(&sample_fields[1], &s, 1, 0x12345);
    ck_assert_uint_eq(s.b[1], 0x2345);
    ck_assert_uint_eq(s.b[2], 4);
}
END_TEST

/* ---- Exclusive sections: `plain` is not atomic, so any overlap loses counts. ----------------- */

enum { VCPUS = 4, ROUNDS = 2000 };
static struct exclusive *x;
static bool nested; /* each section begins and ends another */
static _Atomic bool asked[VCPUS];
static _Atomic int running;
static unsigned long plain;

static void ask(void *cpu)
{
    atomic_store((_Atomic bool *)cpu, true);
}

static void *vcpu_thread(void *opaque)
{
    unsigned id = (unsigned)(uintptr_t)opaque;
    exclusive_enter(x, id);
    for (int i = 0; i < ROUNDS; i++) {
        if (atomic_exchange(&asked[id], false))
            exclusive_poll(x, id);
        if (i % 7 == 0) {
            exclusive_begin(x, id);
            unsigned long copy = *(volatile unsigned long *)&plain;
            if (nested) {
                exclusive_begin(x, id);
                exclusive_end(x, id);
            }
            for (volatile int spin = 0; spin < 20; spin++)
                ;
            *(volatile unsigned long *)&plain = copy + 1;
            exclusive_end(x, id);
        }
        if (i % 31 == 0) { /* a halt */
            exclusive_leave(x, id);
            exclusive_enter(x, id);
        }
    }
    exclusive_leave(x, id);
    atomic_fetch_sub(&running, 1);
    return NULL;
}

/* Without and with a section inside each: so a LOCK instruction rings the protection device's
 * doorbell. */
START_TEST(sections_exclude_each_other_and_never_deadlock)
{
    pthread_t thread[VCPUS];
    nested = _i;
    x = exclusive_new(VCPUS, ask);
    plain = 0;
    for (unsigned i = 0; i < VCPUS; i++)
        exclusive_set_cpu(x, i, (void *)&asked[i]);
    for (uintptr_t i = 0; i < VCPUS; i++)
        pthread_create(&thread[i], NULL, vcpu_thread, (void *)i);
    for (unsigned i = 0; i < VCPUS; i++)
        pthread_join(thread[i], NULL);
    ck_assert_uint_eq(plain, VCPUS * ((ROUNDS + 6) / 7));
    exclusive_free(x);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("base");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, errors_are_prefixed_and_cut);
    tcase_add_test(tc, log_items);
    tcase_add_test(tc, fields_read_and_write);
    tcase_add_loop_test(tc, sections_exclude_each_other_and_never_deadlock, 0, 2);
    Suite *suite = suite_create("base");
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
