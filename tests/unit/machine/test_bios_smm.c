/*
 * test_bios_smm.c - which firmware images need system management mode: those that are installed,
 * and what is left of one that somebody has damaged.
 */
#include "src/machine/pc.h"
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#define FOLDER "/usr/share/OVMF/"
enum { MOST = 4 << 20, SECTION_AT = 0x94 /* GUID of the compressed section */ };

static uint8_t *image;
static size_t image_len;

static void load(const char *path)
{
    FILE *file = fopen(path, "re");
    ck_assert_msg(file != NULL, "%s is missing (Debian's packages ovmf and seabios)", path);
    free(image);
    image = malloc(MOST);
    image_len = fread(image, 1, MOST, file);
    fclose(file);
    ck_assert_uint_gt(image_len, SECTION_AT);
}

static void forget(void)
{
    free(image);
    image = NULL;
}

static const struct {
    const char *path;
    bool needs;
} images[] = {
    {FOLDER "OVMF_CODE.fd", false},         {FOLDER "OVMF_CODE_4M.fd", false},
    {"/usr/share/ovmf/OVMF.fd", false},     {FOLDER "OVMF_VARS_4M.fd", false},
    {"/usr/share/seabios/bios.bin", false}, {FOLDER "OVMF_CODE.secboot.fd", true},
    {FOLDER "OVMF_CODE.ms.fd", true},       {FOLDER "OVMF_CODE_4M.secboot.fd", true},
    {FOLDER "OVMF_CODE_4M.ms.fd", true},
};

START_TEST(secure_boot_images_do)
{
    load(images[_i].path);
    ck_assert_msg(bios_needs_smm(image, image_len) == images[_i].needs, "%s", images[_i].path);
}
END_TEST

/* Every byte around the section's header, and every length of the image around it. */
START_TEST(damaged_images_are_looked_at_no_further)
{
    load(FOLDER "OVMF_CODE.secboot.fd");
    for (size_t len = 0; len < SECTION_AT + 64; len++) {
        uint8_t *part = malloc(len ? len : 1);
        memcpy(part, image, len);
        ck_assert(!bios_needs_smm(part, len));
        free(part);
    }
    for (size_t at = SECTION_AT + 16; at < SECTION_AT + 18; at++) {
        uint8_t kept = image[at];
        image[at] = 0xff;
        bios_needs_smm(image, image_len);
        image[at] = 0;
        bios_needs_smm(image, image_len);
        image[at] = kept;
    }
    image[SECTION_AT + 24] = 0xff; /* properties that LZMA does not have */
    ck_assert(!bios_needs_smm(image, image_len));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("firmware that needs SMM");
    TCase *tc = tcase_create("images");
    tcase_add_checked_fixture(tc, NULL, forget);
    tcase_add_loop_test(tc, secure_boot_images_do, 0, sizeof(images) / sizeof(images[0]));
    tcase_add_test(tc, damaged_images_are_looked_at_no_further);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
