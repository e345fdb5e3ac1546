/*
 * test_qcow2.c - qcow2 images of every shape against qemu-img: what it made is read, what we wrote
 * it reads, and its check finds nothing wrong.
 */
#include "lab.h"

#define DISK ((3u << 20) + 5 * 512) /* not a multiple of any larger cluster */

static uint8_t model[DISK], buf[DISK];

/* ---- Random operations against a model ---------------------------------------------------------
 */

static const struct shape {
    const char *options; /* of qemu-img create */
    const char *before;  /* commands that make the backing file, or "" */
} shapes[] = {
    {"-o compat=1.1", ""},
    {"-o compat=0.10", ""},
    {"-o compat=1.1,cluster_size=512", ""},
    {"-o compat=0.10,cluster_size=1k", ""},
    {"-o cluster_size=4k", ""},
    {"-o cluster_size=256k", ""},
    {"-o cluster_size=2M", ""},
    {"-o cluster_size=512,refcount_bits=64", ""}, /* the refcount table grows */
    {"-o cluster_size=512,refcount_bits=1", ""},
    {"-o cluster_size=1k,refcount_bits=2", ""},
    {"-o refcount_bits=4", ""},
    {"-o refcount_bits=8", ""},
    {"-o refcount_bits=32", ""},
    {"-o refcount_bits=64", ""},
    {"-o lazy_refcounts=on", ""},
    {"-o preallocation=metadata", ""},
    {"-o preallocation=falloc,cluster_size=4k", ""},
    {"-o preallocation=full", ""},
    {"-o extended_l2=on,cluster_size=16k", ""},
    {"-o extended_l2=on", ""},
    {"-o extended_l2=on,cluster_size=2M,preallocation=metadata", ""},
    {"-b base -F raw", "head -c 3145728 /dev/urandom >base"},
    {"-b base -F raw -o compat=0.10,cluster_size=4k", "head -c 1234944 /dev/urandom >base"},
    {"-b base -F raw -o extended_l2=on", "head -c 1234944 /dev/urandom >base"},
    {"-b base -F qcow2",
     "head -c 2000000 /dev/urandom >r && truncate -s 2097152 r && qemu-img convert -c -O qcow2 r "
     "base"},
    {"-b base -F qcow2 -o cluster_size=4k",
     "head -c 1048576 /dev/urandom >r && qemu-img create -f qcow2 -b r -F raw -o cluster_size=2M "
     "base"},
};

static uint64_t choose_offset(uint64_t *seed, uint64_t *len)
{
    static const uint64_t lengths[] = {512, 1024, 4096, 12288, 65536, 131072, 500 * 512};
    uint64_t sectors = DISK / 512;
    *len = lengths[lab_random(seed) % 7];
    if (lab_random(seed) % 3 == 0)
        *len = 512 * (1 + lab_random(seed) % 300);
    uint64_t at = lab_random(seed) % sectors;
    if (lab_random(seed) % 4 == 0)
        at &= ~127ull; /* a cluster's beginning, often */
    if (*len > (sectors - at) * 512)
        *len = (sectors - at) * 512;
    return at * 512;
}

/* In pieces, as controllers hand them on. */
static int write_pieces(struct image *image, const uint8_t *from, uint64_t offset, uint64_t len)
{
    struct iovec iov[8];
    int n = 0;
    for (uint64_t done = 0, piece; done < len; done += piece) {
        piece = n == 7 || len - done < 700 ? len - done : (len - done) / 2 + 3;
        iov[n++] = (struct iovec){(void *)(uintptr_t)(from + done), piece};
    }
    return image->ops->write(image, (struct span){iov, n, 0}, offset, len);
}

static void random_operation(struct image *image, uint64_t *seed, uint8_t stamp)
{
    uint64_t len, offset = choose_offset(seed, &len);
    unsigned kind = lab_random(seed) % 100;
    if (kind < 45) {
        for (uint64_t i = 0; i < len; i++)
            model[offset + i] = (uint8_t)(stamp + i / 512 * 3 + i);
        ck_assert_int_eq(write_pieces(image, model + offset, offset, len), 0);
    } else if (kind < 70) {
        ck_assert_int_eq(lab_read(image, buf, offset, len), 0);
        ck_assert_int_eq(memcmp(buf, model + offset, len), 0);
    } else if (kind < 82) {
        memset(model + offset, 0, len);
        ck_assert_int_eq(image->ops->zero(image, offset, len, lab_random(seed) % 2), 0);
    } else if (kind < 94) {
        ck_assert_int_eq(image->ops->discard(image, offset, len), 0);
        ck_assert_int_eq(lab_read(image, buf, offset, len), 0);
        for (uint64_t at = 0; at < len; at += 512) {
            bool zero = !buf[at] && !memcmp(buf + at, buf + at + 1, 511);
            ck_assert(zero || !memcmp(buf + at, model + offset + at, 512));
            memcpy(model + offset + at, buf + at, 512);
        }
    } else {
        ck_assert_int_eq(image->ops->flush(image), 0);
    }
}

START_TEST(random_operations)
{
    const struct shape *shape = &shapes[_i];
    uint64_t seed = 88172645463325252ull + (uint64_t)_i;
    if (*shape->before)
        lab_run("%s", shape->before);
    lab_run("qemu-img create -f qcow2 %s disk %u", shape->options, DISK);
    struct image *image = lab_open("disk", true);
    ck_assert_uint_eq(image->size, DISK);
    ck_assert_str_eq(image->format, "qcow2");
    ck_assert_int_eq(lab_read(image, model, 0, DISK), 0);
    image_close(image);
    lab_expect_qemu("disk", "", model, DISK);
    for (unsigned round = 0; round < (lab_long() ? 20 : 2); round++) {
        image = lab_open("disk", true);
        for (unsigned i = 0; i < 250; i++)
            random_operation(image, &seed, (uint8_t)(round * 80 + i));
        lab_expect(image, model, DISK);
        image_close(image);
        lab_run("qemu-img check disk");
        lab_expect_qemu("disk", "", model, DISK);
    }
    image = lab_open("disk", false);
    lab_expect(image, model, DISK);
    image_close(image);
}
END_TEST

/* cache=none: data and tables past the page cache, where they are aligned. */
START_TEST(direct_io)
{
    static const char *const kinds[] = {"cluster_size=64k", "cluster_size=512",
                                        "extended_l2=on,cluster_size=16k"};
    const struct image_options options = {.write = true, .direct = true, .unmap = true};
    struct error err = {""};
    uint64_t seed = 5 + (uint64_t)_i;
    lab_teardown();
    strcpy(lab_dir, "/var/tmp/bailey-lab-XXXXXX"); /* a tmpfs has no direct I/O */
    ck_assert_ptr_nonnull(mkdtemp(lab_dir));
    lab_run("qemu-img create -f qcow2 -o %s disk %u", kinds[_i], DISK);
    struct image *image = lab_open_with("disk", &options, &err);
    ck_assert_msg(image || strstr(err.msg, "no direct I/O"), "%s", err.msg);
    for (unsigned i = 0; i < 150 && image; i++)
        random_operation(image, &seed, (uint8_t)i);
    if (image)
        lab_expect(image, model, DISK);
    image_close(image);
    lab_run("qemu-img check disk");
    lab_expect_qemu("disk", "", model, DISK);
}
END_TEST

/* ---- Compressed clusters, snapshots, chains -----------------------------------------------------
 */

/* Text-like data, which compresses, with holes. */
static void make_model(void)
{
    for (unsigned i = 0; i < DISK; i++)
        model[i] =
            i / 65536 % 3 == 2 ? 0 : (uint8_t)("packed and unpacked "[i % 20] + i / 4096 % 7);
    int fd = open(lab_path("r"), O_RDWR | O_CREAT | O_TRUNC, 0600);
    ck_assert_int_eq(write(fd, model, DISK), (int)DISK);
    close(fd);
}

START_TEST(compressed_clusters)
{
    static const char *const kinds[] = {"compression_type=zlib",
                                        "compression_type=zstd",
                                        "compat=0.10,cluster_size=4k",
                                        "compression_type=zlib,cluster_size=512",
                                        "compression_type=zstd,cluster_size=2M",
                                        "compression_type=zstd,extended_l2=on"};
    uint64_t seed = 77 + (uint64_t)_i;
    make_model();
    lab_run("qemu-img convert -c -O qcow2 -o %s r disk", kinds[_i]);
    struct image *image = lab_open("disk", true);
    lab_expect(image, model, DISK);
    for (uint64_t at = 0; at < DISK; at += 512) { /* piece by piece, backwards too */
        ck_assert_int_eq(lab_read(image, buf, DISK - 512 - at, 512), 0);
        ck_assert_int_eq(memcmp(buf, model + DISK - 512 - at, 512), 0);
    }
    for (unsigned i = 0; i < 150; i++)
        random_operation(image, &seed, (uint8_t)i);
    lab_expect(image, model, DISK);
    image_close(image);
    lab_run("qemu-img check disk");
    lab_expect_qemu("disk", "", model, DISK);
}
END_TEST

/* What a snapshot has stays as it was, whatever is written afterwards. */
START_TEST(internal_snapshots_stay)
{
    static const char *const kinds[] = {"compat=1.1", "compat=0.10,cluster_size=4k",
                                        "cluster_size=512", "extended_l2=on,cluster_size=16k"};
    static uint8_t before[DISK];
    uint64_t seed = 99 + (uint64_t)_i;
    make_model();
    lab_run("qemu-img convert -O qcow2 -o %s r disk && qemu-img snapshot -c one disk", kinds[_i]);
    memcpy(before, model, DISK);
    struct image *image = lab_open("disk", true);
    for (unsigned i = 0; i < 200; i++)
        random_operation(image, &seed, (uint8_t)i);
    image_close(image);
    lab_run("qemu-img check disk && qemu-img snapshot -c two disk && qemu-img check disk");
    lab_expect_qemu("disk", "-l one", before, DISK);
    image = lab_open("disk", true);
    for (unsigned i = 0; i < 100; i++)
        random_operation(image, &seed, (uint8_t)i);
    lab_expect(image, model, DISK);
    image_close(image);
    lab_run("qemu-img check disk");
    lab_expect_qemu("disk", "-l one", before, DISK);
    lab_expect_qemu("disk", "", model, DISK);
    lab_run(
        "qemu-img snapshot -a one disk && qemu-img snapshot -d two disk && qemu-img check disk");
    image = lab_open("disk", true);
    lab_expect(image, before, DISK);
    image_close(image);
}
END_TEST

START_TEST(chains)
{
    struct error err = {""};
    const struct image_options options = {.write = true};
    make_model();
    lab_run("mkdir sub && qemu-img convert -O qcow2 r sub/0"); /* names are relative to the image */
    for (unsigned i = 1; i < 70; i++)
        lab_run("cd sub && qemu-img create -f qcow2 -u -b %u -F qcow2 %u %u", i - 1, i, DISK);
    struct image *image = lab_open("sub/63", true);
    lab_expect(image, model, DISK);
    memset(model + 70000, 0x5a, 1000 * 512);
    ck_assert_int_eq(lab_write(image, model + 69632, 69632, 1000 * 512 + 1024), 0);
    lab_expect(image, model, DISK);
    image_close(image);
    lab_expect_qemu("sub/63", "", model, DISK);
    ck_assert_ptr_null(lab_open_with("sub/69", &options, &err));
    ck_assert_msg(strstr(err.msg, "more than 64 images"), "%s", err.msg);
    lab_run("cd sub && qemu-img rebase -u -b 3 -F qcow2 1");
    ck_assert_ptr_null(lab_open_with("sub/3", &options, &err));
    ck_assert_msg(strstr(err.msg, "is its own backing file"), "%s", err.msg);
    lab_run("cd sub && qemu-img create -f qcow2 -u -b missing -F qcow2 m %u", DISK);
    ck_assert_ptr_null(lab_open_with("sub/m", &options, &err));
    ck_assert_msg(strstr(err.msg, "sub/missing: No such file"), "%s", err.msg);
}
END_TEST

/* The backing file is not ours to write, nor anybody's while we use it. */
START_TEST(backing_files_are_only_read)
{
    struct error err = {""};
    const struct image_options options = {.write = true};
    make_model();
    lab_run("qemu-img create -f qcow2 -b r -F raw disk && chmod 444 r");
    struct image *image = lab_open("disk", true), *second;
    ck_assert_ptr_null(lab_open_with("r", &options, &err));
    lab_run("qemu-img create -f qcow2 -b r -F raw other");
    second = lab_open("other", true);
    uint8_t sector[512] = {1};
    ck_assert_int_eq(lab_write(image, sector, 4096, 512), 0);
    lab_expect(second, model, DISK);
    image_close(second);
    image_close(image);
    lab_run("qemu-img check disk && qemu-img check other");
    image = lab_open("r", false);
    lab_expect(image, model, DISK);
    image_close(image);
}
END_TEST

/* Bitmaps are not kept up to date here: the image must say so before the first write. */
START_TEST(autoclear_features_are_cleared)
{
    lab_run("qemu-img create -f qcow2 disk 1M && qemu-img bitmap --add disk marks");
    ck_assert_uint_eq(lab_peek("disk", 88, 8), 1);
    image_close(lab_open("disk", false));
    ck_assert_uint_eq(lab_peek("disk", 88, 8), 1);
    image_close(lab_open("disk", true));
    ck_assert_uint_eq(lab_peek("disk", 88, 8), 0);
}
END_TEST

/* ---- Space --------------------------------------------------------------------------------------
 */

static uint64_t blocks_of(const char *name)
{
    struct stat st;
    ck_assert_int_eq(stat(lab_path(name), &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

START_TEST(discarded_space_goes_back_and_is_used_again)
{
    lab_run("qemu-img create -f qcow2 disk 3M");
    struct image *image = lab_open("disk", true);
    memset(buf, 0x33, DISK);
    ck_assert_int_eq(lab_write(image, buf, 0, 3u << 20), 0);
    ck_assert_int_eq(image->ops->flush(image), 0);
    uint64_t full = blocks_of("disk");
    ck_assert_int_eq(image->ops->discard(image, 0, 2u << 20), 0);
    ck_assert_uint_eq(blocks_of("disk"), full); /* the file still refers to it */
    ck_assert_int_eq(image->ops->flush(image), 0);
    ck_assert_uint_le(blocks_of("disk") + (2u << 20), full);
    ck_assert_int_eq(lab_read(image, model, 0, 3u << 20), 0);
    ck_assert(model[0] == 0 && !memcmp(model, model + 1, (2u << 20) - 1));
    ck_assert_int_eq(lab_write(image, buf, 0, 2u << 20), 0);
    image_close(image);
    struct stat st;
    ck_assert_int_eq(stat(lab_path("disk"), &st), 0);
    ck_assert_int_le(st.st_size, (3 << 20) + 6 * 65536);
    lab_run("qemu-img check disk");
}
END_TEST

/* Zeroes cost no space, whatever their number. */
START_TEST(zeroes_on_nothing_are_nothing)
{
    lab_run("qemu-img create -f qcow2 disk 900G");
    struct image *image = lab_open("disk", true);
    uint64_t before = blocks_of("disk");
    ck_assert_int_eq(image->ops->zero(image, 0, 900ull << 30, HOSTFILE_ZERO_KEEP), 0);
    ck_assert_int_eq(image->ops->discard(image, 0, 900ull << 30), 0);
    image_close(image);
    ck_assert_uint_eq(blocks_of("disk"), before);
    lab_run("qemu-img check disk");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("qcow2");
    TCase *tc = tcase_create("qemu-img");
    tcase_add_checked_fixture(tc, lab_setup, lab_teardown);
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, random_operations, 0, sizeof(shapes) / sizeof(shapes[0]));
    tcase_add_loop_test(tc, direct_io, 0, 3);
    tcase_add_loop_test(tc, compressed_clusters, 0, 6);
    tcase_add_loop_test(tc, internal_snapshots_stay, 0, 4);
    tcase_add_test(tc, chains);
    tcase_add_test(tc, backing_files_are_only_read);
    tcase_add_test(tc, autoclear_features_are_cleared);
    tcase_add_test(tc, discarded_space_goes_back_and_is_used_again);
    tcase_add_test(tc, zeroes_on_nothing_are_nothing);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
