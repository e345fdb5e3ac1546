/*
 * test_qcow2_bad.c - qcow2 images that are damaged, hostile, too short or on a full disk: one line
 * when they are opened, EIO when it is found later, and no byte written where it should not be.
 */
#include "lab.h"
#include <signal.h>
#include <sys/resource.h>

enum { CLUSTER = 65536, DISK = 1 << 20 };

static uint8_t buf[DISK];

static void put(const char *name, uint64_t offset, unsigned bytes, uint64_t value)
{
    uint8_t b[8];
    for (unsigned i = 0; i < bytes; i++)
        b[i] = (uint8_t)(value >> 8 * (bytes - 1 - i));
    lab_patch(name, offset, b, bytes);
}

/* An image with data in its first half. */
static void make_disk(void)
{
    lab_run("qemu-img create -f qcow2 disk 1M");
    struct image *image = lab_open("disk", true);
    memset(buf, 0x42, sizeof(buf));
    ck_assert_int_eq(lab_write(image, buf, 0, DISK / 2), 0);
    image_close(image);
}

/* ---- At opening ---------------------------------------------------------------------------------
 */

static const struct {
    unsigned at, bytes;
    uint64_t value;
    const char *words; /* NULL: opens, and must not crash */
    bool readable;     /* without writing */
} headers[] = {
    {4, 4, 1, "version 1", false},
    {4, 4, 4, "version 4", false},
    {8, 8, 1ull << 63, "backing file's name lies outside", false},
    {20, 4, 8, "cluster size", false},
    {20, 4, 22, "cluster size", false},
    {20, 4, 0xffffffff, "cluster size", false},
    {24, 8, 0, "size is no disk's", false},
    {24, 8, UINT64_MAX, "size is no disk's", false},
    {24, 8, 1ull << 50, "L1 table is too small", false},
    {32, 4, 1, "encrypted", false},
    {36, 4, 0, "L1 table is too small", false},
    {36, 4, 0xffffffff, "L1 table is larger", false},
    {36, 4, 4 << 20, "L1 table lies outside", false},
    {40, 8, 0, "L1 table lies outside", false},
    {40, 8, 512, "L1 table lies outside", false},
    {40, 8, 1ull << 62, "L1 table lies outside", false},
    {40, 8, UINT64_MAX - 65535, "L1 table lies outside", false},
    {40, 8, 65536, "overlaps", true}, /* the refcount table's place */
    {48, 8, 0, "refcount table lies outside", false},
    {48, 8, 1, "refcount table lies outside", false},
    {48, 8, 1ull << 55, "refcount table lies outside", false},
    {56, 4, 0, "refcount table is larger", false},
    {56, 4, 0x80000000, "refcount table is larger", false},
    {60, 4, 65537, "more than 65536 snapshots", false},
    {60, 4, 1, "snapshot table is not aligned", true},
    {72, 8, 1, NULL, false}, /* refcounts are rebuilt */
    {72, 8, 2, "marked corrupt", true},
    {72, 8, 4, "data is in another file", false},
    {72, 8, 8, "do not agree", false},
    {72, 8, 16, NULL, false},
    {72, 8, 32, "'bit 5'", false},
    {72, 8, 1ull << 63, "'bit 63'", false},
    {96, 4, 7, "wider than 64", false},
    {100, 4, 0, "header's length", false},
    {100, 4, 103, "header's length", false},
    {100, 4, 1 << 30, "header's length", false},
    {104, 1, 1, "do not agree", false},
    {116, 4, 0xfffffff0, "header extension is longer", false},
};

START_TEST(bad_headers)
{
    const struct image_options write = {.write = true}, read = {0};
    struct error err = {""};
    make_disk();
    put("disk", headers[_i].at, headers[_i].bytes, headers[_i].value);
    if (headers[_i].at == 116)
        put("disk", 112, 4, 0x12345678);
    if (headers[_i].at == 8)
        put("disk", 16, 4, 5);
    struct image *image = lab_open_with("disk", &write, &err);
    if (headers[_i].words) {
        ck_assert_ptr_null(image);
        ck_assert_msg(strstr(err.msg, lab_path("disk")) && strstr(err.msg, headers[_i].words),
                      "'%s' lacks '%s'", err.msg, headers[_i].words);
        ck_assert_ptr_null(strchr(err.msg, '\n'));
    } else {
        ck_assert_msg(image != NULL, "%s", err.msg);
        lab_read(image, buf, 0, DISK);
        lab_write(image, buf, 0, DISK);
        image_close(image);
    }
    image = lab_open_with("disk", &read, &err);
    ck_assert_int_eq(image != NULL, headers[_i].readable || !headers[_i].words);
    image_close(image);
}
END_TEST

/* The image's own table says what a feature is called; it may say it in escape sequences. */
START_TEST(unknown_features_are_named)
{
    static const uint8_t table[] = {0x68, 0x03, 0xf8, 0x57, 0,   0,      0,   48,  0,  7,
                                    't',  'i',  'm',  'e',  ' ', '\x1b', '[', '2', 'J'};
    const struct image_options write = {.write = true};
    uint8_t clean[256] = {0};
    struct error err = {""};
    make_disk();
    lab_patch("disk", 112, clean, sizeof(clean));
    lab_patch("disk", 112, table, sizeof(table));
    put("disk", 72, 8, 1 << 7);
    ck_assert_ptr_null(lab_open_with("disk", &write, &err));
    ck_assert_msg(strstr(err.msg, "feature 'time ?[2J'"), "%s", err.msg);
}
END_TEST

START_TEST(cut_off_anywhere)
{
    const struct image_options write = {.write = true};
    make_disk();
    for (int len = 5 * CLUSTER; len >= 0; len = len > 200 ? len - 9973 : len - 8) {
        struct error err = {""};
        lab_run("cp disk short");
        ck_assert_int_eq(truncate(lab_path("short"), len), 0);
        const struct image_options as = {.write = true, .format = "qcow2"};
        struct image *image = lab_open_with("short", len % 2 ? &write : &as, &err);
        if (image)
            lab_read(image, buf, 0, DISK);
        else
            ck_assert(err.msg[0] && !strchr(err.msg, '\n'));
        image_close(image);
    }
}
END_TEST

/* ---- Later --------------------------------------------------------------------------------------
 */

static uint64_t l1_at(void)
{
    return lab_peek("disk", 40, 8);
}
static uint64_t l2_at(void)
{
    return lab_peek("disk", l1_at(), 8) & 0x00fffffffffffe00;
}

enum place { L1, L2, REFTABLE, REFBLOCK, COUNTS /* of clusters 4 to 7 */ };

static const struct {
    enum place place;
    uint64_t value;
    bool opens;                    /* for writing */
    int read, write, write_behind; /* sector 0, sector 0, a sector that needs a cluster */
} damages[] = {
    {L1, 0x8000000000900200, true, -EIO, -EIO, -EIO},  /* not aligned */
    {L1, 0x80ffffffffff0000, true, -EIO, -EIO, -EIO},  /* beyond the end */
    {L1, 0x8000000000010000, false, 0, 0, 0},          /* the refcount table */
    {L2, 0x8000000000000200, true, -EIO, -EIO, -EIO},  /* not aligned */
    {L2, 0x80ffffffffff0000, true, -EIO, -EIO, -EIO},  /* beyond the end */
    {L2, 0x8000000000010000, true, 0, -EIO, -EIO},     /* the refcount table */
    {L2, 0x8000000000000000, true, 0, 0, 0},           /* nothing */
    {L2, 0x4000000000000000, true, -EIO, -EIO, 0},     /* the header is no deflate stream */
    {L2, 0x7fffffffffffffff, true, -EIO, -EIO, -EIO},  /* compressed, beyond the end */
    {REFTABLE, 512, false, 0, 0, 0},                   /* the header */
    {REFTABLE, 0x900200, true, 0, -EIO, -EIO},         /* not aligned */
    {REFTABLE, 1ull << 60, true, 0, -EIO, -EIO},       /* beyond the end */
    {REFTABLE, 0, true, 0, -EIO, -EIO},                /* nothing is counted */
    {REFBLOCK, 0, true, 0, 0, -EIO},                   /* tables are free, it says */
    {COUNTS, 0x0001000000010001, true, 0, -EIO, -EIO}, /* sector 0's cluster is */
};

/* What is written with damage like this must go nowhere near the tables. */
START_TEST(damaged_tables)
{
    make_disk();
    const uint64_t reftable = lab_peek("disk", 48, 8);
    const uint64_t refblock = lab_peek("disk", reftable, 8);
    const uint64_t places[] = {l1_at(), l2_at(), reftable, refblock, refblock + 8};
    const struct image_options write = {.write = true};
    struct error err = {""};
    uint8_t ones[512];
    memset(ones, 0x11, sizeof(ones));
    put("disk", places[damages[_i].place], 8, damages[_i].value);
    uint64_t table = lab_peek("disk", reftable, 8), magic = lab_peek("disk", 0, 8);
    struct image *image = lab_open_with("disk", &write, &err);
    ck_assert_msg((image != NULL) == damages[_i].opens, "%s", err.msg);
    if (!image)
        return;
    ck_assert_int_eq(lab_read(image, buf, 0, 512), damages[_i].read);
    ck_assert_int_eq(lab_write(image, ones, 0, 512), damages[_i].write);
    ck_assert_int_eq(lab_write(image, ones, DISK - 512, 512), damages[_i].write_behind);
    if (damages[_i].write_behind) { /* corrupt: no more writes, not even good ones */
        ck_assert_int_eq(lab_write(image, ones, 65536, 512), -EIO);
        ck_assert_int_eq(image->ops->zero(image, 0, 512, HOSTFILE_ZERO_KEEP), -EIO);
        ck_assert_int_eq(image->ops->discard(image, 0, DISK), -EIO);
        ck_assert_int_eq(image->ops->flush(image), -EIO);
        ck_assert_uint_eq(lab_peek("disk", 72, 8), 2); /* it is marked */
    }
    ck_assert_int_eq(lab_read(image, buf, 65536, 512), damages[_i].place == L1 ? -EIO : 0);
    image_close(image);
    ck_assert_uint_eq(lab_peek("disk", reftable, 8), table);
    ck_assert_uint_eq(lab_peek("disk", 0, 8), magic);
}
END_TEST

/* Compressed data that ends in cluster 6, which counts as free and which no other entry has. */
START_TEST(end_of_compressed_data_is_free)
{
    static const uint8_t sector[512];
    const unsigned sectors = 2, shift = 62 - (16 - 8);
    make_disk();
    const uint64_t reftable = lab_peek("disk", 48, 8), counts = lab_peek("disk", reftable, 8) + 8;
    put("disk", counts, 8, 0x0001000100000001);
    put("disk", l2_at(), 8, 1ull << 62 | (uint64_t)(sectors - 1) << shift | (6 * CLUSTER - 512));
    put("disk", l2_at() + 8, 8, 0);
    struct image *image = lab_open("disk", true);
    ck_assert_int_eq(lab_write(image, sector, DISK - 512, 512), -EIO);
    image_close(image);
    ck_assert_uint_eq(lab_peek("disk", 72, 8), 2);
}
END_TEST

/* Dropping an entry that points at tables would free them, and punch a hole into the header. */
START_TEST(tables_are_not_let_go)
{
    static const uint64_t entries[] = {0x4000000000000000, 0x8000000000010000, 0x20000};
    make_disk();
    put("disk", l2_at(), 8, entries[_i]);
    struct image *image = lab_open("disk", true);
    ck_assert_int_eq(image->ops->discard(image, 0, DISK), -EIO);
    image_close(image);
    ck_assert_uint_eq(lab_peek("disk", 0, 4), 0x514649fb);
    ck_assert_uint_eq(lab_peek("disk", 72, 8), 2);
}
END_TEST

/* ---- Not closed ---------------------------------------------------------------------------------
 */

/* QEMU dies with refcounts that it had not written: they are rebuilt from the tables. */
START_TEST(lazy_refcounts_are_rebuilt)
{
    static const char *const kinds[] = {"compat=1.1", "cluster_size=512,refcount_bits=64",
                                        "extended_l2=on", "cluster_size=4k,refcount_bits=1"};
    static uint8_t model[DISK];
    make_disk();
    lab_run("qemu-img convert -O qcow2 -o lazy_refcounts=on,%s disk lazy", kinds[_i]);
    ck_assert_int_ne(lab_status("qemu-io -c 'write -P 0x5a 600k 200k' -c 'write -z 64k 64k' "
                                "-c 'write -P 0x33 70k 2k' -c flush -c abort lazy"),
                     0);
    ck_assert_uint_eq(lab_peek("lazy", 72, 8) & 1, 1);
    ck_assert_int_ne(lab_status("qemu-img check lazy"), 0);
    memset(model, 0x42, DISK / 2);
    memset(model + (600 << 10), 0x5a, 200 << 10);
    memset(model + (64 << 10), 0, 64 << 10);
    memset(model + (70 << 10), 0x33, 2 << 10);
    struct image *image = lab_open("lazy", false);
    lab_expect(image, model, DISK);
    image_close(image);
    ck_assert_uint_eq(lab_peek("lazy", 72, 8) & 1, 1); /* only looked at */
    image = lab_open("lazy", true);
    ck_assert_uint_eq(lab_peek("lazy", 72, 8) & 1, 0);
    lab_run("cp lazy copy && qemu-img check copy");
    memset(model + 5120, 0x77, 512 * 900);
    ck_assert_int_eq(lab_write(image, model + 5120, 5120, 512 * 900), 0);
    lab_expect(image, model, DISK);
    image_close(image);
    lab_run("qemu-img check lazy");
    lab_expect_qemu("lazy", "", model, DISK);
}
END_TEST

/* What cannot be rebuilt is not written to. */
START_TEST(rebuilding_can_fail)
{
    const struct image_options write = {.write = true};
    struct error err = {""};
    make_disk();
    lab_run("cp disk good && qemu-img snapshot -c one good");
    put("good", 72, 8, 1);
    ck_assert_ptr_null(lab_open_with("good", &write, &err));
    ck_assert_msg(strstr(err.msg, "it has snapshots"), "%s", err.msg);
    put("disk", 72, 8, 1);
    put("disk", l2_at(), 8, 0x8000000000010000); /* data where the refcount table is */
    ck_assert_ptr_null(lab_open_with("disk", &write, &err));
    ck_assert_msg(strstr(err.msg, "cannot be rebuilt: its tables overlap"), "%s", err.msg);
    ck_assert_uint_eq(lab_peek("disk", 72, 8), 1);
}
END_TEST

/* ---- Files that fail ----------------------------------------------------------------------------
 */

START_TEST(truncated_under_us)
{
    make_disk();
    struct image *image = lab_open("disk", true);
    ck_assert_int_eq(lab_read(image, buf, 0, 512), 0);
    ck_assert_int_eq(truncate(lab_path("disk"), 6 * CLUSTER), 0);
    ck_assert_int_eq(lab_read(image, buf, DISK / 2 - 512, 512), -EIO);
    ck_assert_int_eq(lab_write(image, buf, DISK / 2 - 512, 512), -EIO);
    ck_assert_int_eq(lab_read(image, buf, 0, 512), 0);
    struct stat st;
    ck_assert_int_eq(stat(lab_path("disk"), &st), 0);
    ck_assert_int_eq(st.st_size, 6 * CLUSTER);
    image_close(image);
}
END_TEST

/* The disk fills up and is made larger: an error in between, and nothing lost. A limit on the
 * file's length gives EFBIG where a file system gives ENOSPC, on the same ways. */
START_TEST(disk_full)
{
    static uint8_t model[DISK];
    static const char *const kinds[] = {"cluster_size=64k", "cluster_size=512", "cluster_size=4k",
                                        "extended_l2=on,cluster_size=16k"};
    struct rlimit limit, all;
    uint64_t seed = 4711;
    signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &all), 0);
    lab_run("qemu-img create -f qcow2 -o %s disk 1M", kinds[_i]);
    struct image *image = lab_open("disk", true);
    unsigned failed = 0;
    for (unsigned room = 400; room <= 1100; room += 100) { /* KiB */
        limit = (struct rlimit){room << 10, all.rlim_max};
        ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
        for (unsigned i = 0; i < 60; i++) {
            uint64_t at = lab_random(&seed) % (DISK / 512) * 512, len = 512 * (1 + i % 20);
            len = len > DISK - at ? DISK - at : len;
            memset(buf, (int)(room / 100 + i), len);
            int result = lab_write(image, buf, at, len);
            if (result) {
                ck_assert_int_eq(result, -EFBIG);
                failed++;
                ck_assert_int_eq(lab_read(image, model + at, at, len), 0); /* some or none */
            } else {
                memcpy(model + at, buf, len);
            }
            if (i % 8 == 0)
                image->ops->flush(image);
        }
        lab_expect(image, model, DISK);
    }
    ck_assert_uint_gt(failed, 0);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &all), 0);
    ck_assert_int_eq(image->ops->flush(image), 0);
    lab_expect(image, model, DISK);
    image_close(image);
    lab_run("qemu-img check disk || [ $? = 3 ]");
    lab_expect_qemu("disk", "", model, DISK);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bad qcow2");
    TCase *tc = tcase_create("bad");
    tcase_add_checked_fixture(tc, lab_setup, lab_teardown);
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, bad_headers, 0, sizeof(headers) / sizeof(headers[0]));
    tcase_add_test(tc, unknown_features_are_named);
    tcase_add_test(tc, cut_off_anywhere);
    tcase_add_loop_test(tc, damaged_tables, 0, sizeof(damages) / sizeof(damages[0]));
    tcase_add_test(tc, end_of_compressed_data_is_free);
    tcase_add_loop_test(tc, tables_are_not_let_go, 0, 3);
    tcase_add_loop_test(tc, lazy_refcounts_are_rebuilt, 0, 4);
    tcase_add_test(tc, rebuilding_can_fail);
    tcase_add_test(tc, truncated_under_us);
    tcase_add_loop_test(tc, disk_full, 0, 4);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
