/*
 * test_handover.c - a bzImage taken apart for firmware that starts it: where the parts go, what the
 * setup code is told, and images that are none.
 */
#include "guest.h"

enum { SETUP = 5 * 512, CODE = 0x3000 };
#define RESERVED 0x28000u

static struct error err;
static char folder[] = "/tmp/bailey-handover-XXXXXX";

static uint8_t *make_kernel(void)
{
    uint8_t *k = calloc(1, SETUP + CODE);
    k[0x1f1] = 4;
    set16(k + 0x1fe, 0xaa55);
    memcpy(k + 0x202, "HdrS", 4);
    set16(k + 0x206, 0x207);
    k[0x211] = 1; /* LOADED_HIGH */
    set32(k + 0x214, 0x100000);
    set32(k + 0x22c, 0x37ffffff);
    memset(k + SETUP, 0x5a, CODE);
    return k;
}

/* With an initrd of `initrd` bytes, or none. */
static struct boot_image *open_kernel(const uint8_t *k, size_t len, const char *append,
                                      size_t initrd)
{
    char kernel_path[64], initrd_path[64];
    snprintf(kernel_path, sizeof(kernel_path), "%s/kernel", folder);
    snprintf(initrd_path, sizeof(initrd_path), "%s/initrd", folder);
    FILE *file = fopen(kernel_path, "w");
    ck_assert_uint_eq(fwrite(k, 1, len, file), len);
    fclose(file);
    file = fopen(initrd_path, "w");
    ck_assert_int_eq(ftruncate(fileno(file), (off_t)initrd), 0);
    fclose(file);
    const struct boot_source source = {.kernel = kernel_path,
                                       .initrd = initrd ? initrd_path : NULL,
                                       .append = append,
                                       .limit = RAM_SIZE};
    struct boot_image *image = boot_image_open(&source, &err);
    ck_assert_msg(image != NULL, "%s", err.msg);
    return image;
}

static void setup(void)
{
    ck_assert_ptr_nonnull(mkdtemp(folder));
}
static void teardown(void)
{
    char command[96];
    snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    ck_assert_int_eq(system(command), 0);
}

START_TEST(the_parts_have_places)
{
    uint8_t *k = make_kernel();
    struct boot_image *image = open_kernel(k, SETUP + CODE, "quiet", 5000);
    struct boot_handover h;
    ck_assert_msg(boot_image_hand_over(image, RAM_SIZE, &h, &err), "%s", err.msg);
    ck_assert_uint_eq(h.setup_size, SETUP);
    ck_assert_uint_eq(h.kernel_size, CODE);
    ck_assert_mem_eq(h.kernel, k + SETUP, CODE);
    ck_assert_uint_eq(h.kernel_address, 0x100000);
    ck_assert_str_eq(h.cmdline, "quiet");
    ck_assert_uint_eq(h.cmdline_size, 6);
    ck_assert_uint_eq(h.initrd_size, 5000);
    ck_assert_uint_eq(h.initrd_address % 4096, 0);
    ck_assert_uint_le(h.initrd_address + 5000, RAM_SIZE - RESERVED);
    ck_assert_uint_gt(h.initrd_address + 5000 + 4096, RAM_SIZE - RESERVED);
    /* What the setup code reads; the rest is the file's. */
    uint32_t fields[4];
    memcpy(&fields[0], h.setup + 0x218, 4);
    memcpy(&fields[1], h.setup + 0x21c, 4);
    memcpy(&fields[2], h.setup + 0x228, 4);
    ck_assert_uint_eq(fields[0], h.initrd_address);
    ck_assert_uint_eq(fields[1], 5000);
    ck_assert_uint_eq(fields[2], h.cmdline_address);
    ck_assert_uint_eq(h.setup[0x210], 0xff);
    ck_assert_uint_eq(h.setup[0x211], 0x81);
    ck_assert_mem_eq(h.setup, k, 0x210);
    ck_assert_mem_eq(h.setup + 0x230, k + 0x230, SETUP - 0x230);
    boot_handover_free(&h);
    boot_image_free(image);
    free(k);
}
END_TEST

/* The header's limit, where it is below the end of memory. */
START_TEST(the_kernel_says_where_an_initrd_may_be)
{
    uint8_t *k = make_kernel();
    set32(k + 0x22c, 0x2000fff);
    struct boot_image *image = open_kernel(k, SETUP + CODE, "", 0x1001);
    struct boot_handover h;
    ck_assert_msg(boot_image_hand_over(image, RAM_SIZE, &h, &err), "%s", err.msg);
    ck_assert_uint_eq(h.initrd_address, 0x1fff000);
    boot_handover_free(&h);
    boot_image_free(image);
    free(k);
}
END_TEST

START_TEST(setup_code_without_an_entry_behind_it)
{
    uint8_t *k = make_kernel();
    struct boot_image *image = open_kernel(k, SETUP + CODE, "", 0);
    ck_assert(!boot_image_calls_bios(image));
    boot_image_free(image);
    set32(k + 0x214, 0);
    image = open_kernel(k, SETUP + CODE, "", 0);
    ck_assert(boot_image_calls_bios(image));
    boot_image_free(image);
    image = open_kernel(k + 1, 1000, "", 0); /* flat */
    ck_assert(!boot_image_calls_bios(image));
    boot_image_free(image);
    free(k);
}
END_TEST

START_TEST(what_cannot_be_handed_over_is_named)
{
    static const struct {
        unsigned at;
        uint8_t byte;
        size_t len, initrd;
        const char *message;
    } cases[] = {
        {0x202, 'X', SETUP + CODE, 0, "firmware starts Linux kernels (bzImage) only"},
        {0x211, 0, SETUP + CODE, 0, "is a zImage"},
        {0x206, 1, SETUP + CODE, 0, "older than boot protocol 2.02"},
        {0x1f1, 4, SETUP, 0, "it ends with its setup code"},
        {0x1f1, 200, SETUP + CODE, 0, "its setup code has 102912 bytes"},
        {0x1f1, 4, SETUP + CODE, RAM_SIZE - 0x100000, "does not fit"},
        {0x22f, 0, SETUP + CODE, 0xffff00, "does not fit behind the kernel"},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t *k = make_kernel();
        k[cases[i].at] = cases[i].byte;
        struct boot_image *image = open_kernel(k, cases[i].len, "", cases[i].initrd);
        struct boot_handover h;
        ck_assert_msg(!boot_image_hand_over(image, RAM_SIZE, &h, &err), "case %u", i);
        ck_assert_msg(strstr(err.msg, cases[i].message) != NULL, "case %u: %s", i, err.msg);
        ck_assert_ptr_null(h.setup);
        boot_image_free(image);
        free(k);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("handover");
    TCase *t = tcase_create("handover");
    tcase_add_unchecked_fixture(t, setup, teardown);
    tcase_add_test(t, the_parts_have_places);
    tcase_add_test(t, the_kernel_says_where_an_initrd_may_be);
    tcase_add_test(t, setup_code_without_an_entry_behind_it);
    tcase_add_test(t, what_cannot_be_handed_over_is_named);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
