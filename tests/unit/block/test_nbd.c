/*
 * test_nbd.c - images of foreign formats and network disks, by NBD.
 */
#include "internal/blockdev.h"
#include "internal/clock.h"
#include "internal/event.h"
#include "lab.h"
#include <pthread.h>

enum { DISK = 3 << 20 };

static uint8_t model[DISK];

static void make_model(void)
{
    for (unsigned i = 0; i < DISK; i++)
        model[i] = i / 65536 % 3 == 2 ? 0 : (uint8_t)(i / 512 * 7 + i % 251);
    int fd = open(lab_path("r"), O_RDWR | O_CREAT | O_TRUNC, 0600);
    ck_assert_int_eq(write(fd, model, DISK), (int)DISK);
    close(fd);
}

#ifdef BAILEY_LIBNBD

/* ---- Foreign formats ----------------------------------------------------------------------------
 */

static const struct {
    const char *name, *options;
    bool found; /* by content */
} formats[] = {
    {"vmdk", "-o subformat=monolithicSparse", true},
    {"vmdk", "-o subformat=twoGbMaxExtentSparse", true}, /* a text file that names others */
    {"vpc", "-o subformat=dynamic,force_size=on", true},
    {"vpc", "-o subformat=fixed,force_size=on", false}, /* its header is at the end */
    {"vhdx", "", true},
    {"vdi", "", true},
};

START_TEST(foreign_formats_are_read)
{
    struct error err = {""};
    make_model();
    lab_run("qemu-img convert -O %s %s r disk", formats[_i].name, formats[_i].options);
    const struct image_options read = {.format = formats[_i].found ? NULL : formats[_i].name};
    const struct image_options write = {.format = read.format, .write = true};
    struct image *image = lab_open_with("disk", &read, &err);
    ck_assert_msg(image != NULL, "%s", err.msg);
    ck_assert_str_eq(image->format, formats[_i].name);
    ck_assert_uint_ge(image->size, DISK);
    lab_expect(image, model, DISK);
    uint8_t sector[512] = {1};
    ck_assert_int_lt(lab_read(image, sector, image->size, 512), 0);
    image = snapshot_open(image, &err);
    ck_assert_int_eq(lab_write(image, sector, 4096, 512), 0);
    memcpy(model + 4096, sector, 512);
    lab_expect(image, model, DISK);
    image_close(image);
    ck_assert_ptr_null(lab_open_with("disk", &write, &err));
    ck_assert_msg(strstr(err.msg, "can only be read"), "%s", err.msg);
}
END_TEST

START_TEST(what_is_missing_is_named)
{
    struct error err = {""};
    const struct image_options read = {0};
    make_model();
    lab_run("qemu-img convert -O vdi r disk");
    char *path = strdup(getenv("PATH"));
    setenv("PATH", "/nonexistent", 1);
    ck_assert_ptr_null(lab_open_with("disk", &read, &err));
    setenv("PATH", path, 1);
    free(path);
    ck_assert_msg(strstr(err.msg, "qemu-nbd") && strstr(err.msg, "qemu-utils"), "%s", err.msg);
    lab_patch("disk", 0x44, "\xff\xff\xff\xff", 4); /* no such version */
    ck_assert_ptr_null(lab_open_with("disk", &read, &err));
    ck_assert_msg(strstr(err.msg, lab_path("disk")) == err.msg && !strchr(err.msg, '\n'), "%s",
                  err.msg);
}
END_TEST

/* ---- Network disks ------------------------------------------------------------------------------
 */

static struct image *open_uri(const char *uri, bool write, struct error *err)
{
    const struct image_options options = {.path = uri, .write = write, .unmap = true};
    return image_open(&options, err);
}

START_TEST(network_disks)
{
    static const char *const uris[] = {"nbd+unix:///?socket=%s", "nbd:unix:%s"};
    struct error err = {""};
    char uri[160], *path;
    make_model();
    ck_assert_int_ge(asprintf(&path, "%s/socket", lab_dir), 0);
    lab_run("qemu-nbd --fork --pid-file=pid -k $PWD/socket -f raw --discard=unmap r");
    snprintf(uri, sizeof(uri), uris[_i], path);
    free(path);
    struct image *image = open_uri(uri, true, &err);
    ck_assert_msg(image != NULL, "%s", err.msg);
    ck_assert_uint_eq(image->size, DISK);
    ck_assert(image->remote);
    lab_expect(image, model, DISK);
    memset(model + 1024, 0x77, 2 << 20);
    ck_assert_int_eq(lab_write(image, model + 1024, 1024, 2 << 20), 0);
    memset(model + 65536, 0, 70000 / 512 * 512);
    ck_assert_int_eq(image->ops->zero(image, 65536, 70000 / 512 * 512, HOSTFILE_ZERO_UNMAP), 0);
    ck_assert_int_eq(image->ops->discard(image, DISK - 65536, 65536), 0);
    memset(model + DISK - 65536, 0, 65536);
    ck_assert_int_eq(image->ops->flush(image), 0);
    lab_expect(image, model, DISK);
    image_close(image);
    lab_run("tail --pid=$(cat pid) -f /dev/null"); /* it lets the image go a while after us */
    image = lab_open("r", false);
    lab_expect(image, model, DISK);
    image_close(image);
}
END_TEST

/* Who waits for memory that is lent would wait for a network. */
START_TEST(network_disks_borrow_nothing)
{
    struct error err = {""};
    char uri[160];
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    make_model();
    lab_run("qemu-nbd --fork --pid-file=pid -k $PWD/socket -f raw r");
    snprintf(uri, sizeof(uri), "nbd+unix:///?socket=%s", lab_path("socket"));
    struct clock *clock = clock_new();
    struct event_queue *queue = event_queue_new(clock, &lock);
    const struct blockdev_options options = {.path = uri};
    struct blockdev *dev = blockdev_open(&options, queue, &err);
    ck_assert_msg(dev != NULL, "%s", err.msg);
    for (uint64_t offset = 0; offset < DISK; offset += 65536) {
        ck_assert(!blockdev_may_lend(dev, BLOCKDEV_READ, offset));
        ck_assert(!blockdev_may_lend(dev, BLOCKDEV_WRITE, offset));
    }
    blockdev_close(dev);
    event_queue_free(queue);
    clock_free(clock);
    lab_run("tail --pid=$(cat pid) -f /dev/null");
}
END_TEST

/* Its address is no name of a file beside the image. */
START_TEST(a_backing_file_may_be_a_network_disk)
{
    make_model();
    lab_run("qemu-nbd --fork --pid-file=pid -k $PWD/socket -f raw -r r");
    lab_run("qemu-img create -u -f qcow2 -b 'nbd+unix:///?socket='$PWD/socket -F raw over %u",
            (unsigned)DISK);
    struct image *image = lab_open("over", true);
    ck_assert(image->remote); /* by what lies below */
    memset(model + 4096, 0x77, 512);
    ck_assert_int_eq(lab_write(image, model + 4096, 4096, 512), 0);
    lab_expect(image, model, DISK);
    image_close(image);
    lab_run("tail --pid=$(cat pid) -f /dev/null");
}
END_TEST

START_TEST(servers_that_are_not_there)
{
    static const char *const uris[] = {"nbd+unix:///?socket=/nonexistent/socket",
                                       "nbd://127.0.0.1:1/", "nbd:127.0.0.1:1", "nbd:nowhere"};
    struct error err = {""};
    ck_assert_ptr_null(open_uri(uris[_i], true, &err));
    ck_assert_msg(strstr(err.msg, uris[_i]) == err.msg && !strchr(err.msg, '\n'), "%s", err.msg);
}
END_TEST

/* The server dies: errors, and no end of ours. */
START_TEST(a_server_that_goes_away)
{
    struct error err = {""};
    char uri[160];
    make_model();
    lab_run("qemu-nbd --fork --pid-file=pid -k $PWD/socket -f raw r");
    snprintf(uri, sizeof(uri), "nbd+unix:///?socket=%s", lab_path("socket"));
    struct image *image = open_uri(uri, true, &err);
    ck_assert_msg(image != NULL, "%s", err.msg);
    lab_run("kill -9 $(cat pid)");
    uint8_t sector[512] = {0};
    int result = 0;
    for (unsigned i = 0; i < 100 && !result; i++) /* what the socket still holds */
        result = lab_read(image, sector, 0, 512);
    ck_assert_int_lt(result, 0);
    ck_assert_int_lt(lab_write(image, sector, 0, 512), 0);
    ck_assert_int_lt(image->ops->flush(image), 0);
    image_close(image);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_loop_test(tc, foreign_formats_are_read, 0, sizeof(formats) / sizeof(formats[0]));
    tcase_add_test(tc, what_is_missing_is_named);
    tcase_add_loop_test(tc, network_disks, 0, 2);
    tcase_add_test(tc, network_disks_borrow_nothing);
    tcase_add_test(tc, a_backing_file_may_be_a_network_disk);
    tcase_add_loop_test(tc, servers_that_are_not_there, 0, 4);
    tcase_add_test(tc, a_server_that_goes_away);
}

#else

START_TEST(without_libnbd_it_says_so)
{
    struct error err = {""};
    const struct image_options read = {0};
    make_model();
    lab_run("qemu-img convert -O vdi r disk");
    ck_assert_ptr_null(lab_open_with("disk", &read, &err));
    ck_assert_msg(strstr(err.msg, "built without libnbd"), "%s", err.msg);
}
END_TEST

static void add_tests(TCase *tc)
{
    tcase_add_test(tc, without_libnbd_it_says_so);
}
#endif

int main(void)
{
    Suite *suite = suite_create("nbd");
    TCase *tc = tcase_create("nbd");
    tcase_add_checked_fixture(tc, lab_setup, lab_teardown);
    tcase_set_timeout(tc, 60);
    add_tests(tc);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
