/*
 * test_io.c - the port space: claims, precedence, widths, accesses across claims.
 */
#include "internal/io.h"
#include <check.h>
#include <stdlib.h>

static pthread_mutex_t lock;
static struct io_space *io;
static const struct access cpu = {.initiator = INITIATOR_VCPU_KERNEL};

struct chip {
    uint8_t id;
    unsigned calls, size;
    uint64_t offset, value;
};

static uint64_t chip_read(void *opaque, const struct access *access, uint64_t offset, unsigned size)
{
    struct chip *c = opaque;
    (void)access;
    c->calls++;
    c->size = size;
    c->offset = offset;
    return c->id * 0x01010101u + (uint32_t)offset;
}
static void chip_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                       uint64_t value)
{
    struct chip *c = opaque;
    (void)access;
    c->calls++;
    c->size = size;
    c->offset = offset;
    c->value = value;
}
static const struct io_ops any = {chip_read, chip_write, 1, 4};
static const struct io_ops bytes = {chip_read, chip_write, 1, 1};

static void setup(void)
{
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&lock, &attr);
    io = io_space_new(&lock, NULL);
}
static void teardown(void)
{
    io_space_free(io);
}

START_TEST(test_unclaimed)
{
    ck_assert_uint_eq(io_read(io, &cpu, 0x80, 1), 0xff);
    ck_assert_uint_eq(io_read(io, &cpu, 0x80, 2), 0xffff);
    ck_assert_uint_eq(io_read(io, &cpu, 0xffff, 4), 0xffffffff);
    io_write(io, &cpu, 0xffff, 4, 1);
}
END_TEST

START_TEST(test_widths)
{
    struct chip a = {.id = 0x10};
    io_add(io, 0x40, 4, &bytes, &a, "a");
    ck_assert_uint_eq(io_read(io, &cpu, 0x40, 4), 0x13121110);
    ck_assert_uint_eq(a.calls, 4);
    a.calls = 0;
    io_write(io, &cpu, 0x42, 2, 0xbeef);
    ck_assert_uint_eq(a.calls, 2);
    ck_assert_uint_eq(a.offset, 3);
    ck_assert_uint_eq(a.value, 0xbe);
}
END_TEST

START_TEST(test_across_claims)
{
    struct chip a = {.id = 0x10}, b = {.id = 0x20};
    io_add(io, 0x60, 1, &any, &a, "a");
    io_add(io, 0x61, 1, &any, &b, "b");
    ck_assert_uint_eq(io_read(io, &cpu, 0x5f, 4), 0xff2010ff);
    io_write(io, &cpu, 0x60, 2, 0x1234);
    ck_assert_uint_eq(a.value, 0x34);
    ck_assert_uint_eq(b.value, 0x12);
}
END_TEST

START_TEST(test_later_wins_and_goes)
{
    struct chip a = {.id = 0x10}, b = {.id = 0x20};
    int ha = io_add(io, 0x100, 8, &any, &a, "a");
    int hb = io_add(io, 0x104, 8, &any, &b, "b");
    ck_assert_uint_eq(io_read(io, &cpu, 0x104, 4), 0x20202020);
    io_remove(io, hb);
    ck_assert_uint_eq(io_read(io, &cpu, 0x104, 4), 0x10101014);
    ck_assert_uint_eq(io_read(io, &cpu, 0x108, 4), 0xffffffff);
    io_remove(io, ha);
    io_remove(io, ha);
    ck_assert_uint_eq(io_read(io, &cpu, 0x100, 1), 0xff);
    for (unsigned i = 0; i < 100000; i++) /* BARs that move for ever do not use up handles */
        io_remove(io, io_add(io, (uint16_t)i, 16, &any, &a, "a"));
    ck_assert_int_gt(io_add(io, 0xfff8, 100, &any, &a, "end"), 0);
    ck_assert_uint_eq(io_read(io, &cpu, 0xffff, 2), 0xff17);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("io");
    TCase *t = tcase_create("io");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, test_unclaimed);
    tcase_add_test(t, test_widths);
    tcase_add_test(t, test_across_claims);
    tcase_add_test(t, test_later_wins_and_goes);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
