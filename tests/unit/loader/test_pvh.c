/*
 * test_pvh.c - ELF kernels with a PVH note, of both classes, whole and broken.
 */
#include "elf_file.h"

static void check_loaded(struct guest *g, const uint8_t *f)
{
    uint8_t zeros[ELF_BSS] = {0};
    guest_expect_bytes(g, ELF_LOAD, f + ELF_CODE_AT, ELF_BYTES);
    guest_expect_bytes(g, ELF_LOAD + ELF_BYTES, zeros, ELF_BSS);
    ck_assert_int_eq(g->entry.mode, BOOT_FLAT32);
    ck_assert_uint_eq(g->entry.rip, ELF_LOAD + ELF_ENTRY);
}

START_TEST(loads_both_classes)
{
    struct guest g;
    guest_open(&g);
    for (unsigned bits = 32; bits <= 64; bits += 32) {
        size_t len;
        uint8_t *f = make_elf(bits, true, &len);
        guest_fill(&g, ELF_LOAD, 0xff, ELF_BYTES + ELF_BSS); /* bss must become zero */
        ck_assert_msg(load_bytes(&g, f, len, "root=x"), "%s", g.err.msg);
        check_loaded(&g, f);
        uint64_t info = g.entry.rbx;
        ck_assert_uint_eq(guest32(&g, info), 0x336ec578);
        ck_assert_uint_eq(guest32(&g, info + 12), 0);
        guest_expect_string(&g, guest64(&g, info + 24), "root=x");
        ck_assert_uint_eq(guest64(&g, info + 32), RSDP);
        ck_assert_uint_eq(guest32(&g, info + 48), g.memory.count);
        uint64_t range = guest64(&g, info + 40) + 3 * 24;
        ck_assert_uint_eq(guest64(&g, range), MIB);
        ck_assert_uint_eq(guest64(&g, range + 8), RAM_SIZE - MIB);
        ck_assert_uint_eq(guest32(&g, range + 16), MEMORY_USABLE);
        free(f);
    }
    guest_close(&g);
}
END_TEST

START_TEST(passes_modules)
{
    struct guest g;
    size_t len;
    uint8_t *f = make_elf(64, true, &len);
    char *kernel = make_file(f, len), *one = make_file("first", 5), *two = make_file("second", 6);
    char list[256];
    snprintf(list, sizeof(list), "%s a=1,,2 b,%s", one, two);
    struct boot_source source = {.kernel = kernel, .initrd = list, .limit = RAM_SIZE};
    guest_open(&g);
    struct boot_image *image = boot_image_open(&source, &g.err);
    ck_assert_msg(image != NULL, "%s", g.err.msg);
    ck_assert(boot_image_load(image, &g.platform, &g.entry, &g.err));
    uint64_t info = g.entry.rbx, modules = guest64(&g, info + 16);
    ck_assert_uint_eq(guest32(&g, info + 12), 2);
    guest_expect_bytes(&g, guest64(&g, modules), "first", 5);
    ck_assert_uint_eq(guest64(&g, modules + 8), 5);
    guest_expect_bytes(&g, guest64(&g, modules + 32), "second", 6);
    snprintf(list, sizeof(list), "%s a=1,2 b", one);
    guest_expect_string(&g, guest64(&g, modules + 16), list);
    guest_expect_string(&g, guest64(&g, modules + 48), two);
    boot_image_free(image);
    guest_close(&g);
    drop_file(kernel);
    drop_file(one);
    drop_file(two);
    free(f);
}
END_TEST

START_TEST(refuses_a_plain_elf_file)
{
    struct guest g;
    size_t len;
    uint8_t *f = make_elf(64, false, &len);
    guest_open(&g);
    ck_assert(!load_bytes(&g, f, len, ""));
    ck_assert_ptr_nonnull(strstr(g.err.msg, "neither a PVH note"));
    guest_close(&g);
    free(f);
}
END_TEST

START_TEST(refuses_broken_files)
{
    enum { PH = sizeof(Elf64_Ehdr) };
    static const struct {
        size_t offset, size;
        uint64_t value;
        const char *message;
    } cases[] = {
        {offsetof(Elf64_Ehdr, e_machine), 2, EM_ARM, "not an x86"},
        {offsetof(Elf64_Ehdr, e_type), 2, ET_REL, "not an x86"},
        {PH + offsetof(Elf64_Phdr, p_filesz), 8, ELF_BYTES + 1, "truncated"},
        {PH + offsetof(Elf64_Phdr, p_offset), 8, ~0ull, "truncated"},
        {PH + offsetof(Elf64_Phdr, p_memsz), 8, 1, "smaller in memory"},
        {PH + offsetof(Elf64_Phdr, p_memsz), 8, ~0ull, "does not lie"},
        {PH + offsetof(Elf64_Phdr, p_paddr), 8, 0x9f000, "does not lie"},
        {PH + offsetof(Elf64_Phdr, p_paddr), 8, RAM_SIZE - ELF_BYTES, "does not lie"},
        {PH + offsetof(Elf64_Phdr, p_paddr), 8, ~0ull - 0x800, "does not lie"},
        {PH + offsetof(Elf64_Phdr, p_type), 4, PT_NULL, "no segment"},
        {0x210, 4, 0x6e655901, "neither a PVH note"},
    };
    struct guest g;
    guest_open(&g);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t len;
        uint8_t *f = make_elf(64, true, &len);
        memcpy(f + cases[i].offset, &cases[i].value, cases[i].size);
        if (cases[i].offset == 0x210)
            memcpy(f + 0x20c, "Yen", 4);
        ck_assert_msg(!load_bytes(&g, f, len, ""), "case %u was loaded", i);
        ck_assert_msg(strstr(g.err.msg, cases[i].message) != NULL, "case %u: %s", i, g.err.msg);
        free(f);
    }
    guest_close(&g);
}
END_TEST

START_TEST(survives_mutations)
{
    for (unsigned bits = 32; bits <= 64; bits += 32) {
        size_t len;
        uint8_t *f = make_elf(bits, true, &len);
        ck_assert_uint_gt(load_mutations(f, len, 0x240, 4000), 500);
        free(f);
    }
}
END_TEST

static void add(TCase *t)
{
    tcase_add_test(t, loads_both_classes);
    tcase_add_test(t, passes_modules);
    tcase_add_test(t, refuses_a_plain_elf_file);
    tcase_add_test(t, refuses_broken_files);
    tcase_add_test(t, survives_mutations);
}

int main(void)
{
    return run_cases("pvh", add);
}
