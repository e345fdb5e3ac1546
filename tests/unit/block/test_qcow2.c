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
    for (unsigned round = 0; round < 3; round++) {
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

int main(void)
{
    Suite *suite = suite_create("qcow2");
    TCase *tc = tcase_create("qemu-img");
    tcase_add_checked_fixture(tc, lab_setup, lab_teardown);
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, random_operations, 0, sizeof(shapes) / sizeof(shapes[0]));
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
