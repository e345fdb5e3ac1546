/*
 * test_medium.c - CDs and floppy disks that are taken out and put in while there is a machine.
 */
#include "src/machine/pc.h"
#include <check.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static char folder[32];
static struct machine_config config;
static struct machine *m;
static struct error err;

/* A file of zeroes. */
static const char *file(const char *name, off_t size)
{
    static char path[2][64];
    static unsigned next;
    char *p = path[next++ % 2];
    snprintf(p, sizeof(path[0]), "%s/%s", folder, name);
    int fd = open(p, O_RDWR | O_CREAT, 0600);
    ck_assert(fd >= 0 && ftruncate(fd, size) == 0);
    close(fd);
    return p;
}

static void make(unsigned argc, const char *const *more)
{
    const char *argv[16] = {"-display", "none", "-serial", "none", "-m", "16"};
    memset(&config, 0, sizeof(config));
    for (unsigned i = 0; i < argc; i++)
        argv[6 + i] = more[i];
    ck_assert_msg(options_parse(&config, 6 + argc, argv, stderr, &err) == OPTIONS_OK, "%s",
                  err.msg);
    m = machine_new(&config, &err);
    ck_assert_msg(m != NULL, "%s", err.msg);
}

static void setup(void)
{
    strcpy(folder, "/tmp/bailey-medium-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
}

static void teardown(void)
{
    char line[64];
    machine_free(m);
    machine_config_free(&config);
    snprintf(line, sizeof(line), "rm -r %s", folder);
    ck_assert_int_eq(system(line), 0);
}

START_TEST(the_drive_that_every_machine_has)
{
    const char *disc = file("disc", 4 << 20);
    make(0, NULL);
    ck_assert_msg(medium_change(m, "ide1-cd0", disc, NULL, false, &err), "%s", err.msg);
    struct blockdev *first = m->media[0];
    ck_assert_uint_eq(blockdev_size(first), 4 << 20);
    ck_assert(blockdev_read_only(first));
    ck_assert(!medium_change(m, "ide1-cd0", "/nonexistent", NULL, false, &err));
    ck_assert_str_eq(err.msg, "/nonexistent: No such file or directory");
    ck_assert(!medium_change(m, "ide1-cd0", disc, "vfat", false, &err));
    ck_assert_str_eq(err.msg, "there is no image format 'vfat'");
    ck_assert_ptr_eq(m->media[0], first); /* still there */
    ck_assert(medium_change(m, "ide1-cd0", NULL, NULL, false, &err));
    ck_assert_ptr_null(m->media[0]);
    ck_assert(medium_change(m, "ide1-cd0", NULL, NULL, false, &err));
}
END_TEST

#ifdef BAILEY_LIBNBD
static void *insert_network_disk(void *opaque)
{
    char uri[128];
    (void)opaque;
    snprintf(uri, sizeof(uri), "nbd+unix:///?socket=%s/mute", folder);
    ck_assert(!medium_change(m, "ide1-cd0", uri, NULL, false, &err));
    return NULL;
}

/* A server that accepts and says nothing costs the one who asked some time, and nobody else. */
START_TEST(a_mute_server_does_not_hold_up_the_machine)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    pthread_t thread;
    int server = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/mute", folder);
    ck_assert_int_eq(bind(server, (struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_eq(listen(server, 1), 0);
    make(0, NULL);
    ck_assert_int_eq(pthread_create(&thread, NULL, insert_network_disk, NULL), 0);
    int peer = accept(server, NULL, NULL);
    ck_assert_int_eq(pthread_mutex_trylock(&m->lock), 0);
    pthread_mutex_unlock(&m->lock);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
    ck_assert_msg(strstr(err.msg, "does not answer"), "%s", err.msg);
    close(peer);
    close(server);
}
END_TEST
#endif

START_TEST(drives_by_name)
{
    char cd[128], floppy[128];
    snprintf(cd, sizeof(cd), "file=%s,media=cdrom,index=2,id=films", file("disc", 1 << 20));
    snprintf(floppy, sizeof(floppy), "file=%s,if=floppy,format=raw", file("a", 1474560));
    const char *const more[] = {"-drive", cd, "-drive", floppy};
    make(4, more);
    ck_assert(medium_change(m, "films", file("disc2", 2 << 20), NULL, false, &err));
    ck_assert_uint_eq(blockdev_size(m->disks[0]), 2 << 20);
    ck_assert(!medium_change(m, "floppy0", file("big", 2949120), NULL, false, &err));
    ck_assert_str_eq(err.msg, "a disk of 2949120 bytes does not fit the floppy drive");
    ck_assert_msg(medium_change(m, "floppy0", file("b", 737280), "raw", false, &err), "%s",
                  err.msg);
    ck_assert_uint_eq(blockdev_size(m->disks[1]), 737280);
    ck_assert(!blockdev_read_only(m->disks[1]));
    ck_assert(!medium_change(m, "floppy1", NULL, NULL, false, &err));
    ck_assert_str_eq(err.msg, "there is no drive 'floppy1' whose medium could be changed; there is "
                              "films, floppy0");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("medium");
    TCase *tc = tcase_create("medium");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, the_drive_that_every_machine_has);
#ifdef BAILEY_LIBNBD
    tcase_add_test(tc, a_mute_server_does_not_hold_up_the_machine);
#endif
    tcase_add_test(tc, drives_by_name);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
