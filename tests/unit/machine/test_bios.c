/*
 * test_bios.c - machines that start with firmware: which are refused, and in what words.
 */
#include "bailey/bailey.h"
#include <check.h>

static struct bailey_error error;

static struct bailey *make(const char *option, const char *value)
{
    const char *argv[] = {"-display", "none",     "-nodefaults", "-m", "16",
                          "-bios",    "bios.bin", option,        value};
    return bailey_new(9, argv, NULL, &error);
}

/* The machine's files are made anew when firmware moves a chip: the user's would be gone then. */
START_TEST(a_file_named_like_ours_is_refused)
{
    ck_assert_ptr_null(make("-fw_cfg", "name=etc/e820,string=x"));
    ck_assert_str_eq(error.text, "-fw_cfg: there already is a file 'etc/e820'; names of one's own "
                                 "begin with opt/");
    struct bailey *m = make("-fw_cfg", "name=opt/e820,string=x");
    ck_assert_msg(m != NULL, "%s", error.text);
    bailey_free(m);
}
END_TEST

START_TEST(a_missing_image_is_named)
{
    ck_assert_ptr_null(make("-bios", "/nonexistent/bios"));
    ck_assert_str_eq(error.text, "firmware '/nonexistent/bios': No such file or directory");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bios");
    TCase *tc = tcase_create("bios");
    tcase_add_test(tc, a_file_named_like_ours_is_refused);
    tcase_add_test(tc, a_missing_image_is_named);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
