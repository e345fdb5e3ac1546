/*
 * test_symbols.c - symbols from System.map, /proc/kallsyms and ELF files of both classes, whole,
 * truncated and damaged.
 */
#include "bailey/ctl.h"
#include <check.h>
#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct bctl_error error;

static struct bctl_symbols *open_bytes(const void *bytes, size_t len)
{
    char name[] = "/tmp/bailey-symbols-XXXXXX";
    int fd = mkstemp(name);
    ck_assert_int_eq(write(fd, bytes, len), (ssize_t)len);
    close(fd);
    struct bctl_symbols *symbols = bctl_symbols_open(name, &error);
    unlink(name);
    return symbols;
}

static struct bctl_symbols *open_text(const char *text)
{
    return open_bytes(text, strlen(text));
}

static void check_find(const struct bctl_symbols *s, const char *name, uint64_t address,
                       uint64_t size)
{
    uint64_t a = 1, z = 1;
    ck_assert_msg(bctl_symbol_find(s, name, &a, &z), "%s", name);
    ck_assert_uint_eq(a, address);
    ck_assert_uint_eq(z, size);
}

static void check_at(const struct bctl_symbols *s, uint64_t address, const char *name,
                     uint64_t offset)
{
    uint64_t o = 0;
    const char *found = bctl_symbol_at(s, address, &o);
    if (!name) {
        ck_assert_msg(found == NULL, "%s", found);
        return;
    }
    ck_assert_msg(found && strcmp(found, name) == 0, "%s", found ? found : "none");
    ck_assert_uint_eq(o, offset);
}

static const char map[] = "0000000000000000 A fixed_percpu_data\n"
                          "ffffffff81000000 T _text\n"
                          "ffffffff81000000 T _stext\n"
                          "ffffffff82a00040 D modprobe_path\n"
                          "ffffffff81000100 t local\n"
                          "ffffffff82a00140 d other\n"
                          "ffffffff81000180 t local\n";

START_TEST(a_system_map)
{
    struct bctl_symbols *s = open_text(map);
    ck_assert_msg(s != NULL, "%s", error.text);
    check_find(s, "modprobe_path", 0xffffffff82a00040, 0x100);
    check_find(s, "_stext", 0xffffffff81000000, 0x100);
    check_find(s, "local", 0xffffffff81000100, 0x80); /* the first of two */
    check_find(s, "other", 0xffffffff82a00140, 0);    /* the last: nobody knows */
    check_at(s, 0xffffffff81000000, "_text", 0);
    check_at(s, 0xffffffff82a00041, "modprobe_path", 1);
    check_at(s, 0xffffffff82a0013f, "modprobe_path", 0xff);
    check_at(s, 0xffffffff82a00140, "other", 0);
    check_at(s, 0xffffffffffffffff, NULL, 0); /* too far from anything */
    check_at(s, 0x1000, "fixed_percpu_data", 0x1000);
    check_at(s, 0x55550000, NULL, 0); /* in the gap between sections */
    uint64_t a, z;
    ck_assert(!bctl_symbol_find(s, "modprobe_pat", &a, &z));
    bctl_symbols_slide(s, 0x1000000);
    check_find(s, "modprobe_path", 0xffffffff83a00040, 0x100);
    check_at(s, 0xffffffff83a00041, "modprobe_path", 1);
    bctl_symbols_slide(s, -0x1000000);
    check_find(s, "modprobe_path", 0xffffffff81a00040, 0x100);
    bctl_symbols_free(s);
}
END_TEST

START_TEST(kallsyms_with_modules_and_without_a_last_newline)
{
    struct bctl_symbols *s = open_text("ffffffffc0001000 t init\t[virtio_blk]\n"
                                       "ffffffffc0002000 t probe\t[virtio_blk]");
    ck_assert_msg(s != NULL, "%s", error.text);
    check_find(s, "init", 0xffffffffc0001000, 0x1000);
    check_find(s, "probe", 0xffffffffc0002000, 0);
    bctl_symbols_free(s);
}
END_TEST

START_TEST(what_is_no_symbol_file_is_said)
{
    static const struct {
        const char *text, *reason;
    } cases[] = {
        {"", "has no symbols"},
        {"\n\n", "has no symbols"},
        {"hello\n", "line 1: neither ELF nor"},
        {"ffffffff81000000 T ok\nffffffff81000000\n", "line 2"},
        {"ffffffff81000000 T \n", "line 1"},
        {"ffffffff81000000 TT x\n", "line 1"},
        {"0ffffffff81000000 T x\n", "line 1"},
        {"0000000000000000 T a\n0000000000000000 T b\n", "copy /proc/kallsyms as root"},
        {"ffffffffffffffff B The real System.map is elsewhere\n", NULL},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct bctl_symbols *s = open_text(cases[i].text);
        if (cases[i].reason)
            ck_assert_msg(!s && strstr(error.text, cases[i].reason), "%u: %s", i, error.text);
        bctl_symbols_free(s);
    }
    ck_assert_ptr_null(bctl_symbols_open("/nonexistent", &error));
    ck_assert_ptr_nonnull(strstr(error.text, "/nonexistent"));
    ck_assert_ptr_null(bctl_symbols_open("/", &error));
}
END_TEST

/* ---- ELF ------------------------------------------------------------------------------------- */

static const char names[] = "\0first\0second\0absent\0file.c";
enum { FIRST = 1, SECOND = 7, ABSENT = 14, FILE_C = 21 };

struct elf64 {
    Elf64_Ehdr header;
    Elf64_Shdr section[3];
    Elf64_Sym symbol[5];
    char names[sizeof(names)];
};
struct elf32 {
    Elf32_Ehdr header;
    Elf32_Shdr section[3];
    Elf32_Sym symbol[3];
    char names[sizeof(names)];
};

static void make_elf64(struct elf64 *e)
{
    *e = (struct elf64){
        .header = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                   .e_shoff = offsetof(struct elf64, section),
                   .e_shentsize = sizeof(Elf64_Shdr),
                   .e_shnum = 3},
        .section = {[1] = {.sh_type = SHT_SYMTAB,
                           .sh_link = 2,
                           .sh_offset = offsetof(struct elf64, symbol),
                           .sh_size = sizeof(e->symbol)},
                    [2] = {.sh_type = SHT_STRTAB,
                           .sh_offset = offsetof(struct elf64, names),
                           .sh_size = sizeof(names)}},
        .symbol = {[1] = {.st_name = SECOND, .st_shndx = 1, .st_value = 0x2000, .st_size = 4},
                   [2] = {.st_name = FIRST, .st_shndx = 1, .st_value = 0x1000},
                   [3] = {.st_name = ABSENT, .st_shndx = SHN_UNDEF, .st_value = 0x1800},
                   [4] = {.st_name = FILE_C, .st_shndx = 1, .st_info = STT_FILE}}};
    memcpy(e->names, names, sizeof(names));
}

START_TEST(an_elf_file_of_64_bits)
{
    struct elf64 e;
    make_elf64(&e);
    struct bctl_symbols *s = open_bytes(&e, sizeof(e));
    ck_assert_msg(s != NULL, "%s", error.text);
    check_find(s, "first", 0x1000, 0x1000);
    check_find(s, "second", 0x2000, 4);
    check_at(s, 0x2003, "second", 3);
    check_at(s, 0x2004, NULL, 0);
    uint64_t a, z;
    ck_assert(!bctl_symbol_find(s, "absent", &a, &z));
    ck_assert(!bctl_symbol_find(s, "file.c", &a, &z));
    bctl_symbols_free(s);
}
END_TEST

START_TEST(an_elf_file_of_32_bits)
{
    struct elf32 e = {
        .header = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS32, ELFDATA2LSB, EV_CURRENT},
                   .e_shoff = offsetof(struct elf32, section),
                   .e_shentsize = sizeof(Elf32_Shdr),
                   .e_shnum = 3},
        .section = {[1] = {.sh_type = SHT_SYMTAB,
                           .sh_link = 2,
                           .sh_offset = offsetof(struct elf32, symbol),
                           .sh_size = sizeof(e.symbol)},
                    [2] = {.sh_type = SHT_STRTAB,
                           .sh_offset = offsetof(struct elf32, names),
                           .sh_size = sizeof(names)}},
        .symbol = {[1] = {.st_name = FIRST, .st_shndx = 1, .st_value = 0x80100000, .st_size = 2},
                   [2] = {.st_name = SECOND, .st_shndx = 1, .st_value = 0x80100002}}};
    memcpy(e.names, names, sizeof(names));
    struct bctl_symbols *s = open_bytes(&e, sizeof(e));
    ck_assert_msg(s != NULL, "%s", error.text);
    check_find(s, "first", 0x80100000, 2);
    check_at(s, 0x80100001, "first", 1);
    bctl_symbols_free(s);
}
END_TEST

/* Anybody's file: every truncation, and every 32-bit word replaced, ends in symbols or an error. */
START_TEST(damaged_elf_files_do_no_harm)
{
    static const uint32_t evil[] = {0, 1, 0xff, 0x7fffffff, 0x80000000, 0xffffffff};
    struct elf64 whole, e;
    unsigned opened = 0;
    make_elf64(&whole);
    for (size_t len = 0; len < sizeof(whole); len += 3)
        bctl_symbols_free(open_bytes(&whole, len));
    for (size_t at = 0; at + 4 <= offsetof(struct elf64, names); at += 4)
        for (unsigned i = 0; i < 6; i++) {
            uint64_t offset;
            e = whole;
            memcpy((char *)&e + at, &evil[i], 4);
            struct bctl_symbols *s = open_bytes(&e, sizeof(e));
            opened += s != NULL;
            if (s)
                bctl_symbol_at(s, 0x1001, &offset);
            bctl_symbols_free(s);
        }
    ck_assert_uint_gt(opened, 100);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("symbols");
    TCase *t = tcase_create("symbols");
    tcase_add_test(t, a_system_map);
    tcase_add_test(t, kallsyms_with_modules_and_without_a_last_newline);
    tcase_add_test(t, what_is_no_symbol_file_is_said);
    tcase_add_test(t, an_elf_file_of_64_bits);
    tcase_add_test(t, an_elf_file_of_32_bits);
    tcase_add_test(t, damaged_elf_files_do_no_harm);
    suite_add_tcase(suite, t);
    SRunner *sr = srunner_create(suite);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
