/*
 * test_image.c - reading the files, and flat binaries.
 */
#include "guest.h"

static bool opens(struct guest *g, const char *kernel, const char *initrd, uint64_t limit)
{
    struct boot_source source = {.kernel = kernel, .initrd = initrd, .limit = limit};
    struct boot_image *image = boot_image_open(&source, &g->err);
    boot_image_free(image);
    return image != NULL;
}

START_TEST(names_files_that_cannot_be_read)
{
    struct guest g;
    guest_open(&g);
    ck_assert(!opens(&g, "/nonexistent/kernel", NULL, RAM_SIZE));
    ck_assert_str_eq(g.err.msg,
                     "could not open kernel '/nonexistent/kernel': No such file or directory");
    ck_assert(!opens(&g, "/tmp", NULL, RAM_SIZE));
    ck_assert_ptr_nonnull(strstr(g.err.msg, "Is a directory"));
    char *empty = make_file("", 0);
    ck_assert(!opens(&g, empty, NULL, RAM_SIZE));
    ck_assert_ptr_nonnull(strstr(g.err.msg, "is empty"));
    drop_file(empty);
    ck_assert(!opens(&g, "/dev/zero", NULL, 1000)); /* endless */
    ck_assert_ptr_nonnull(strstr(g.err.msg, "larger than the guest's memory"));
    guest_close(&g);
}
END_TEST

START_TEST(loads_a_flat_binary)
{
    struct guest g;
    static uint8_t flat[FIRMWARE_EBDA - 0x7c00 + 1];
    memset(flat, 0x90, sizeof(flat));
    guest_open(&g);
    ck_assert(load_bytes(&g, flat, sizeof(flat) - 1, ""));
    ck_assert_int_eq(g.entry.mode, BOOT_REAL16);
    ck_assert_uint_eq(g.entry.rip, 0x7c00);
    ck_assert_uint_eq(g.entry.rdx, 0x80);
    guest_expect_bytes(&g, 0x7c00, flat, sizeof(flat) - 1);
    ck_assert(!load_bytes(&g, flat, sizeof(flat), ""));
    ck_assert_ptr_nonnull(strstr(g.err.msg, "too large"));
    ck_assert(!load_bytes(&g, flat, 16, "text"));
    ck_assert_ptr_nonnull(strstr(g.err.msg, "no command line"));
    char *file = make_file(flat, 100);
    ck_assert(!opens(&g, file, file, RAM_SIZE));
    ck_assert_ptr_nonnull(strstr(g.err.msg, "takes no initrd"));
    drop_file(file);
    guest_close(&g);
}
END_TEST

START_TEST(loads_again_after_the_guest_wrote_over_it)
{
    struct guest g;
    uint8_t flat[64];
    memset(flat, 0xab, sizeof(flat));
    guest_open(&g);
    struct boot_image *image = boot_image_from_memory("x", flat, sizeof(flat), NULL, &g.err);
    ck_assert(boot_image_load(image, &g.platform, &g.entry, &g.err));
    guest_fill(&g, 0x7c00, 0, sizeof(flat));
    ck_assert(boot_image_load(image, &g.platform, &g.entry, &g.err));
    guest_expect_bytes(&g, 0x7c00, flat, sizeof(flat));
    boot_image_free(image);
    guest_close(&g);
}
END_TEST

static void add(TCase *t)
{
    tcase_add_test(t, names_files_that_cannot_be_read);
    tcase_add_test(t, loads_a_flat_binary);
    tcase_add_test(t, loads_again_after_the_guest_wrote_over_it);
}

int main(void)
{
    return run_cases("image", add);
}
