/*
 * test_multiboot.c - multiboot 1: ELF of both classes, load addresses in the header, modules, and
 * headers that lie.
 */
#include "elf_file.h"

/* Puts a header with these flags at `at`. */
static void put_header(uint8_t *f, size_t at, uint32_t flags)
{
    set32(f + at, 0x1badb002);
    set32(f + at + 4, flags);
    set32(f + at + 8, 0u - 0x1badb002 - flags);
}

enum { KLUDGE_AT = 0x80, KLUDGE_LOAD = 0x300000, KLUDGE_LEN = 0x1000 };

static uint8_t *make_kludge(size_t *len)
{
    uint8_t *f = malloc(KLUDGE_LEN);
    for (unsigned i = 0; i < KLUDGE_LEN; i++)
        f[i] = (uint8_t)(i ^ 0x55);
    put_header(f, KLUDGE_AT, 0x10003);
    set32(f + KLUDGE_AT + 12, KLUDGE_LOAD + 0x40); /* the text begins 40h before the header */
    set32(f + KLUDGE_AT + 16, KLUDGE_LOAD);
    set32(f + KLUDGE_AT + 20, KLUDGE_LOAD + 0x800);
    set32(f + KLUDGE_AT + 24, KLUDGE_LOAD + 0x900);
    set32(f + KLUDGE_AT + 28, KLUDGE_LOAD + 0x60);
    *len = KLUDGE_LEN;
    return f;
}

START_TEST(loads_elf_of_both_classes)
{
    struct guest g;
    guest_open(&g);
    for (unsigned bits = 32; bits <= 64; bits += 32) {
        size_t len;
        uint8_t *f = make_elf(bits, true, &len); /* the note does not matter then */
        put_header(f, ELF_CODE_AT + 0x20, 3);
        ck_assert_msg(load_bytes(&g, f, len, "one two"), "%s", g.err.msg);
        ck_assert_uint_eq(g.entry.rax, 0x2badb002);
        ck_assert_uint_eq(g.entry.rip,
                          ELF_LOAD + ELF_ENTRY); /* physical, whatever it is linked to */
        guest_expect_bytes(&g, ELF_LOAD, f + ELF_CODE_AT, ELF_BYTES);
        uint64_t info = g.entry.rbx;
        ck_assert_uint_eq(guest32(&g, info) & 0x24d, 0x24d);
        ck_assert_uint_eq(guest32(&g, info + 4), 639);
        ck_assert_uint_eq(guest32(&g, info + 8), (RAM_SIZE - MIB) / 1024);
        guest_expect_string(&g, guest32(&g, info + 16), "test one two");
        guest_expect_string(&g, guest32(&g, info + 64), "bailey");
        uint64_t range = guest32(&g, info + 48);
        ck_assert_uint_eq(guest32(&g, info + 44), g.memory.count * 24);
        ck_assert_uint_eq(guest32(&g, range), 20);
        ck_assert_uint_eq(guest64(&g, range + 3 * 24 + 4), MIB);
        ck_assert_uint_eq(guest64(&g, range + 3 * 24 + 12), RAM_SIZE - MIB);
        free(f);
    }
    guest_close(&g);
}
END_TEST

START_TEST(loads_by_addresses_in_the_header)
{
    struct guest g;
    size_t len;
    uint8_t *f = make_kludge(&len), zeros[0x100] = {0};
    guest_open(&g);
    guest_fill(&g, KLUDGE_LOAD, 0xff, 0x1000);
    ck_assert_msg(load_bytes(&g, f, len, ""), "%s", g.err.msg);
    ck_assert_uint_eq(g.entry.rip, KLUDGE_LOAD + 0x60);
    guest_expect_bytes(&g, KLUDGE_LOAD, f + KLUDGE_AT - 0x40, 0x800);
    guest_expect_bytes(&g, KLUDGE_LOAD + 0x800, zeros, 0x100);
    ck_assert_uint_eq(guest32(&g, KLUDGE_LOAD + 0x900), 0xffffffff);

    set32(f + KLUDGE_AT + 20, 0); /* to the end of the file */
    set32(f + KLUDGE_AT + 24, 0);
    ck_assert(load_bytes(&g, f, len, ""));
    guest_expect_bytes(&g, KLUDGE_LOAD, f + KLUDGE_AT - 0x40, KLUDGE_LEN - 0x40);
    guest_close(&g);
    free(f);
}
END_TEST

START_TEST(passes_modules)
{
    struct guest g;
    size_t len;
    uint8_t *f = make_kludge(&len);
    char *kernel = make_file(f, len), *one = make_file("first", 5), *two = make_file("second!", 7);
    char list[256];
    snprintf(list, sizeof(list), "%s args here,%s", one, two);
    struct boot_source source = {.kernel = kernel, .initrd = list, .limit = RAM_SIZE};
    guest_open(&g);
    struct boot_image *image = boot_image_open(&source, &g.err);
    ck_assert_msg(image != NULL, "%s", g.err.msg);
    ck_assert_str_eq(boot_image_kind(image), "multiboot");
    ck_assert(boot_image_load(image, &g.platform, &g.entry, &g.err));
    uint64_t info = g.entry.rbx, mods = guest32(&g, info + 24);
    ck_assert_uint_eq(guest32(&g, info + 20), 2);
    for (unsigned i = 0; i < 2; i++)
        ck_assert_uint_eq(guest32(&g, mods + 16 * i) & 0xfff, 0); /* page aligned */
    guest_expect_bytes(&g, guest32(&g, mods), "first", 5);
    ck_assert_uint_eq(guest32(&g, mods + 4) - guest32(&g, mods), 5);
    guest_expect_bytes(&g, guest32(&g, mods + 16), "second!", 7);
    snprintf(list, sizeof(list), "%s args here", one);
    guest_expect_string(&g, guest32(&g, mods + 8), list);
    boot_image_free(image);
    guest_close(&g);
    drop_file(kernel);
    drop_file(one);
    drop_file(two);
    free(f);
}
END_TEST

START_TEST(refuses_headers_that_lie)
{
    static const struct {
        unsigned offset;
        uint32_t value;
        const char *message;
    } cases[] = {
        {12, KLUDGE_LOAD - 4, "do not fit"},     {12, KLUDGE_LOAD + 0x84, "do not fit"},
        {16, KLUDGE_LOAD + 0x44, "do not fit"},  {20, KLUDGE_LOAD - 1, "below load_addr"},
        {20, KLUDGE_LOAD + 0x1000, "truncated"}, {24, RAM_SIZE + 1, "does not lie"},
        {24, 0xffffffff, "does not lie"},
    };
    struct guest g;
    guest_open(&g);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t len;
        uint8_t *f = make_kludge(&len);
        set32(f + KLUDGE_AT + cases[i].offset, cases[i].value);
        ck_assert_msg(!load_bytes(&g, f, len, ""), "case %u was loaded", i);
        ck_assert_msg(strstr(g.err.msg, cases[i].message) != NULL, "case %u: %s", i, g.err.msg);
        free(f);
    }
    guest_close(&g);
}
END_TEST

START_TEST(refuses_unknown_requirements)
{
    struct guest g;
    size_t len;
    uint8_t *f = make_kludge(&len);
    guest_open(&g);
    put_header(f, KLUDGE_AT, 0x10008);
    ck_assert(!load_bytes(&g, f, len, ""));
    ck_assert_ptr_nonnull(strstr(g.err.msg, "requires features 0x8"));
    put_header(f, KLUDGE_AT, 0x40010007); /* a wish for a video mode; upper flags are optional */
    ck_assert_msg(load_bytes(&g, f, len, ""), "%s", g.err.msg);
    put_header(f, KLUDGE_AT, 3); /* neither addresses nor ELF */
    ck_assert(!load_bytes(&g, f, len, ""));
    guest_close(&g);
    free(f);
}
END_TEST

START_TEST(needs_a_right_checksum_in_the_first_8_KiB)
{
    struct guest g;
    size_t len = 0x3000;
    uint8_t *f = calloc(1, len);
    guest_open(&g);
    put_header(f, 0x2000 - 12, 0x10000); /* the last place; its addresses are all zero */
    ck_assert(load_bytes(&g, f, len, ""));
    ck_assert_int_eq(g.entry.mode, BOOT_FLAT32);
    memset(f, 0, len);
    put_header(f, 0x2000 - 8, 0x10000); /* one dword too late: a flat binary then */
    ck_assert(load_bytes(&g, f, len, ""));
    ck_assert_int_eq(g.entry.mode, BOOT_REAL16);
    memset(f, 0, len);
    put_header(f, 0x10, 0x10000);
    f[0x18]++;
    ck_assert(load_bytes(&g, f, len, ""));
    ck_assert_int_eq(g.entry.mode, BOOT_REAL16);
    guest_close(&g);
    free(f);
}
END_TEST

START_TEST(survives_mutations)
{
    size_t len;
    uint8_t *f = make_kludge(&len);
    memmove(f, f + KLUDGE_AT, 0x40); /* so that mutations meet the header; the text begins there */
    set32(f + 12, KLUDGE_LOAD);
    ck_assert_uint_gt(load_mutations(f, len, 0x28, 4000), 500);
    free(f);
}
END_TEST

static void add(TCase *t)
{
    tcase_add_test(t, loads_elf_of_both_classes);
    tcase_add_test(t, loads_by_addresses_in_the_header);
    tcase_add_test(t, passes_modules);
    tcase_add_test(t, refuses_headers_that_lie);
    tcase_add_test(t, refuses_unknown_requirements);
    tcase_add_test(t, needs_a_right_checksum_in_the_first_8_KiB);
    tcase_add_test(t, survives_mutations);
}

int main(void)
{
    return run_cases("multiboot", add);
}
