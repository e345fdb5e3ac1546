/*
 * test_linux.c - the Linux boot protocol against small generated kernels, whole, truncated and
 * hostile.
 */
#include "guest.h"

enum { SETUP = 5 * 512, CODE = 0x3000 };

/* A bzImage with 4 setup sectors and CODE bytes of protected-mode code. */
static uint8_t *make_kernel(uint16_t version, size_t *len)
{
    uint8_t *k = calloc(1, SETUP + CODE);
    k[0x1f1] = 4;
    set32(k + 0x1f4, CODE / 16);
    set16(k + 0x1fe, 0xaa55);
    k[0x200] = 0xeb;
    k[0x201] = 0x66; /* the header ends at 268h */
    memcpy(k + 0x202, "HdrS", 4);
    set16(k + 0x206, version);
    k[0x211] = 1; /* LOADED_HIGH */
    set32(k + 0x22c, 0x7fffffff);
    set32(k + 0x230, 0x200000);
    k[0x234] = 1;
    k[0x235] = 21;
    set16(k + 0x236, 1); /* XLF_KERNEL_64 */
    set32(k + 0x238, 100);
    set32(k + 0x248, 0x100);
    set32(k + 0x24c, CODE - 0x100);
    set64(k + 0x258, 0x1000000);
    set32(k + 0x260, 0x100000);
    for (unsigned i = 0; i < CODE; i++)
        k[SETUP + i] = (uint8_t)(i * 7 + 1);
    *len = SETUP + CODE;
    return k;
}

START_TEST(loads_a_64_bit_kernel)
{
    struct guest g;
    size_t len;
    uint8_t *k = make_kernel(0x20f, &len);
    guest_open(&g);
    ck_assert_msg(load_bytes(&g, k, len, "console=ttyS0"), "%s", g.err.msg);
    ck_assert_int_eq(g.entry.mode, BOOT_FLAT64);
    ck_assert_uint_eq(g.entry.rip, 0x1000200);
    guest_expect_bytes(&g, 0x1000000, k + SETUP, CODE);

    uint64_t zp = g.entry.rsi;
    guest_expect_bytes(&g, zp + 0x202, "HdrS", 4);
    guest_expect_string(&g, guest32(&g, zp + 0x228), "console=ttyS0");
    ck_assert_uint_eq(guest64(&g, zp + 0x70), RSDP);
    ck_assert_uint_eq(guest32(&g, zp + 0x218), 0);
    ck_assert_uint_eq(guest32(&g, zp + 0x268), 0); /* nothing behind the header's end */
    uint8_t entries;
    guest_read(&g, zp + 0x1e8, &entries, 1);
    ck_assert_uint_eq(entries, g.memory.count);
    ck_assert_uint_eq(guest64(&g, zp + 0x2d0 + 20 * 3), MIB);
    ck_assert_uint_eq(guest64(&g, zp + 0x2d0 + 20 * 3 + 8), RAM_SIZE - MIB);
    guest_close(&g);
    free(k);
}
END_TEST

/* The setup code, which is not run, would have found out what the display shows. */
START_TEST(tells_of_the_display)
{
    static const uint8_t text[] = {0, 0, 3, 80, 0, 0, 3, 0, 0, 0, 25, 1, 16, 0}, none[sizeof(text)];
    struct guest g;
    size_t len;
    uint8_t *k = make_kernel(0x20f, &len);
    guest_open(&g);
    ck_assert(load_bytes(&g, k, len, ""));
    guest_expect_bytes(&g, g.entry.rsi + 4, none, sizeof(none));
    g.platform.text_mode = true;
    ck_assert(load_bytes(&g, k, len, ""));
    guest_expect_bytes(&g, g.entry.rsi + 4, text, sizeof(text));
    guest_close(&g);
    free(k);
}
END_TEST

START_TEST(builds_an_identity_map)
{
    struct guest g;
    size_t len;
    uint8_t *k = make_kernel(0x20f, &len);
    guest_open(&g);
    ck_assert(load_bytes(&g, k, len, ""));
    for (uint64_t gva = 0; gva < 1ull << 32; gva += 0x12345678) {
        uint64_t pdpte = guest64(&g, g.entry.cr3) & ~0xfffull;
        uint64_t pde_table = guest64(&g, pdpte + 8 * (gva >> 30)) & ~0xfffull;
        uint64_t pde = guest64(&g, pde_table + 8 * (gva >> 21 & 511));
        ck_assert_uint_eq(pde, (gva & ~0x1fffffull) | 0x83);
    }
    ck_assert_uint_eq(guest64(&g, g.entry.gdt + BOOT_SEL_CODE) >> 32 & 0x200000, 0x200000); /* L */
    guest_close(&g);
    free(k);
}
END_TEST

START_TEST(uses_the_32_bit_entry_of_older_kernels)
{
    struct guest g;
    size_t len;
    uint8_t *k = make_kernel(0x20b, &len);
    guest_open(&g);
    ck_assert(load_bytes(&g, k, len, "x"));
    ck_assert_int_eq(g.entry.mode, BOOT_FLAT32);
    ck_assert_uint_eq(g.entry.rip, 0x1000000);
    set16(k + 0x206, 0x204); /* no preferred address, not relocatable */
    ck_assert(load_bytes(&g, k, len, "x"));
    ck_assert_uint_eq(g.entry.rip, 0x100000);
    guest_expect_string(&g, guest32(&g, g.entry.rsi + 0x228), "x");
    set16(k + 0x206, 0x201); /* the old command line protocol, a zImage */
    k[0x211] = 0;
    ck_assert(load_bytes(&g, k, len, "old"));
    ck_assert_uint_eq(g.entry.rip, 0x10000);
    ck_assert_uint_eq(g.entry.rsi, 0x90000);
    ck_assert_uint_eq(guest32(&g, 0x90020) & 0xffff, 0xa33f);
    guest_expect_string(&g, 0x90000 + (guest32(&g, 0x90020) >> 16), "old");
    guest_close(&g);
    free(k);
}
END_TEST

START_TEST(moves_a_relocatable_kernel)
{
    struct guest g;
    size_t len;
    uint8_t *k = make_kernel(0x20f, &len);
    guest_open(&g);
    set64(k + 0x258, RAM_SIZE - 0x1000); /* does not fit there */
    ck_assert(load_bytes(&g, k, len, ""));
    ck_assert_uint_eq(g.entry.rip, 0x200000 + 0x200);
    k[0x234] = 0;
    ck_assert(!load_bytes(&g, k, len, ""));
    ck_assert_ptr_nonnull(strstr(g.err.msg, "does not lie in the guest's memory"));
    guest_close(&g);
    free(k);
}
END_TEST

static bool load_with_initrd(struct guest *g, const uint8_t *k, size_t len, size_t initrd_len)
{
    uint8_t *initrd = malloc(initrd_len);
    memset(initrd, 0x5a, initrd_len);
    char *kernel_file = make_file(k, len), *initrd_file = make_file(initrd, initrd_len);
    struct boot_source source = {.kernel = kernel_file, .initrd = initrd_file, .limit = RAM_SIZE};
    struct boot_image *image = boot_image_open(&source, &g->err);
    bool ok = image && boot_image_load(image, &g->platform, &g->entry, &g->err);
    boot_image_free(image);
    drop_file(kernel_file);
    drop_file(initrd_file);
    free(initrd);
    return ok;
}

START_TEST(places_the_initrd)
{
    struct guest g;
    size_t len;
    uint8_t *k = make_kernel(0x20f, &len), byte;
    guest_open(&g);
    ck_assert_msg(load_with_initrd(&g, k, len, 5000), "%s", g.err.msg);
    uint64_t at = guest32(&g, g.entry.rsi + 0x218);
    ck_assert_uint_eq(at, RAM_SIZE - 0x2000);
    ck_assert_uint_eq(guest32(&g, g.entry.rsi + 0x21c), 5000);
    guest_read(&g, at + 4999, &byte, 1);
    ck_assert_uint_eq(byte, 0x5a);

    set32(k + 0x22c, 0x1ffffff); /* initrd_addr_max: below 32 MiB */
    ck_assert(load_with_initrd(&g, k, len, 5000));
    ck_assert_uint_eq(guest32(&g, g.entry.rsi + 0x218), 0x2000000 - 0x2000);

    set32(k + 0x22c, 0x10fffff); /* all of that is the kernel's and the rest too small */
    ck_assert(!load_with_initrd(&g, k, len, 16 * MIB));
    ck_assert_ptr_nonnull(strstr(g.err.msg, "no room for the initrd"));
    guest_close(&g);
    free(k);
}
END_TEST

START_TEST(refuses_an_initrd_larger_than_memory)
{
    struct guest g;
    size_t len;
    uint8_t *k = make_kernel(0x20f, &len);
    guest_open(&g);
    ck_assert(!load_with_initrd(&g, k, len, RAM_SIZE + 1));
    ck_assert_ptr_nonnull(strstr(g.err.msg, "larger than the guest's memory"));
    guest_close(&g);
    free(k);
}
END_TEST

START_TEST(refuses_what_is_truncated)
{
    struct guest g;
    size_t len;
    uint8_t *k = make_kernel(0x20f, &len);
    const size_t lengths[] = {0x210, 0x28f, 512, SETUP, SETUP + 1, len / 2, len - 16};
    guest_open(&g);
    for (unsigned i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        uint8_t *exact = malloc(lengths[i]);
        memcpy(exact, k, lengths[i]);
        bool ok = load_bytes(&g, exact, lengths[i], "");
        free(exact);
        if (lengths[i] == 512) /* no header at all: a boot sector, and a valid one */
            ck_assert(ok);
        else
            ck_assert_msg(!ok && strstr(g.err.msg, "truncated"), "%zu: %s", lengths[i], g.err.msg);
    }
    guest_close(&g);
    free(k);
}
END_TEST

START_TEST(refuses_what_cannot_be)
{
    static const struct {
        unsigned offset, size;
        uint64_t value;
        const char *message;
    } cases[] = {
        {0x206, 2, 0x0105, "boot protocol"},           {0x206, 2, 0x0300, "boot protocol"},
        {0x230, 4, 0x300000, "not a power of two"},    {0x260, 4, 0xf0000000, ""},
        {0x248, 4, 0xffffffff, "truncated"},           {0x1f4, 4, 0xffffffff, "truncated"},
        {0x258, 8, 0xfffffffffffff000, "above 4 GiB"}, {0x258, 8, 1ull << 32, "above 4 GiB"},
    };
    struct guest g;
    guest_open(&g);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t len;
        uint8_t *k = make_kernel(0x20f, &len);
        memcpy(k + cases[i].offset, &cases[i].value, cases[i].size);
        ck_assert_msg(!load_bytes(&g, k, len, ""), "case %u was loaded", i);
        ck_assert_msg(strstr(g.err.msg, cases[i].message) != NULL, "case %u: %s", i, g.err.msg);
        free(k);
    }
    guest_close(&g);
}
END_TEST

START_TEST(refuses_a_long_command_line)
{
    struct guest g;
    size_t len;
    uint8_t *k = make_kernel(0x20f, &len);
    char text[102];
    memset(text, 'a', 101);
    text[101] = 0;
    guest_open(&g);
    ck_assert(!load_bytes(&g, k, len, text));
    ck_assert_ptr_nonnull(strstr(g.err.msg, "-append: 101 characters"));
    text[100] = 0;
    ck_assert(load_bytes(&g, k, len, text));
    guest_close(&g);
    free(k);
}
END_TEST

START_TEST(survives_mutations)
{
    size_t len;
    uint8_t *k = make_kernel(0x20f, &len);
    unsigned refused = load_mutations(k, len, 0x290, 4000);
    ck_assert_uint_gt(refused, 400);
    ck_assert_uint_lt(refused, 3600);
    free(k);
}
END_TEST

static void add(TCase *t)
{
    tcase_add_test(t, loads_a_64_bit_kernel);
    tcase_add_test(t, tells_of_the_display);
    tcase_add_test(t, builds_an_identity_map);
    tcase_add_test(t, uses_the_32_bit_entry_of_older_kernels);
    tcase_add_test(t, moves_a_relocatable_kernel);
    tcase_add_test(t, places_the_initrd);
    tcase_add_test(t, refuses_an_initrd_larger_than_memory);
    tcase_add_test(t, refuses_what_is_truncated);
    tcase_add_test(t, refuses_what_cannot_be);
    tcase_add_test(t, refuses_a_long_command_line);
    tcase_add_test(t, survives_mutations);
}

int main(void)
{
    return run_cases("linux", add);
}
