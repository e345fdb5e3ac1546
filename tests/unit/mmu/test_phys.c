/*
 * test_phys.c - the physical map and its choke point: overlaps, moves, splitting, ROM, holes,
 * frames.
 */
#include "guest.h"
#include "mmu/map.h"
#include <stdio.h>

static struct guest *g;
static struct error err;

struct chip {
    unsigned reads, writes, sizes[16];
    uint64_t offsets[16], values[16];
    pthread_mutex_t *lock;
    struct phys_map *map;
    int remove; /* a handle to take out during the callback, or -1 */
};

static uint64_t chip_read(void *opaque, const struct access *access, uint64_t offset, unsigned size)
{
    struct chip *c = opaque;
    ck_assert_int_eq(access->initiator, INITIATOR_VCPU_KERNEL);
    c->offsets[c->reads & 15] = offset;
    c->sizes[c->reads++ & 15] = size;
    return 0x8877665544332211ull + offset * 0x0101010101010101ull;
}
static void chip_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                       uint64_t value)
{
    struct chip *c = opaque;
    (void)access;
    c->offsets[c->writes & 15] = offset;
    c->values[c->writes & 15] = value;
    c->sizes[c->writes++ & 15] = size;
    if (c->remove >= 0)
        phys_remove(c->map, c->remove);
}
static const struct io_ops wide = {chip_read, chip_write, 0, 0};
static const struct io_ops dwords = {chip_read, chip_write, 4, 4};
static const struct io_ops deaf = {NULL, NULL, 0, 0};

static void setup(void)
{
    g = guest_new(4 * MIB, 1, NULL);
}
static void teardown(void)
{
    guest_free(g);
}
static struct chip chip_new(void)
{
    return (struct chip){.map = g->map, .remove = -1};
}
static uint64_t get(uint64_t gpa, size_t len)
{
    uint64_t v = 0;
    ck_assert_int_eq(phys_read(g->map, &KERNEL, gpa, &v, len), PHYS_OK);
    return v;
}
static void put(uint64_t gpa, uint64_t v, size_t len)
{
    ck_assert_int_eq(phys_write(g->map, &KERNEL, gpa, &v, len), PHYS_OK);
}

START_TEST(test_mmio_over_rom_over_ram)
{
    uint8_t image[2 * PAGE_SIZE];
    struct chip c = chip_new();
    memset(image, 0xaa, sizeof image);
    put(0x10ff8, 0x1111111111111111, 8);
    put(0x13000, 0x2222222222222222, 8);
    int chip = phys_add_mmio(g->map, 0x12000, 0x1000, &wide, &c, "chip", &err);
    ck_assert_int_ge(chip, 0);
    /* added later, but beneath the chip */
    struct ram_block *rom = phys_rom_new(g->map, sizeof image, image, sizeof image, &err);
    ck_assert(rom && phys_map_block(g->map, 0x11000, sizeof image, rom, 0, "rom", &err) >= 0);
    ck_assert_uint_eq(get(0x10ff8, 8), 0x1111111111111111);
    ck_assert_uint_eq(get(0x11000, 8), 0xaaaaaaaaaaaaaaaa);
    ck_assert_uint_eq(get(0x12000, 8), 0x8877665544332211);
    ck_assert_uint_eq(get(0x13000, 8), 0x2222222222222222);
    ck_assert_ptr_null(phys_hva(g->map, 0x12000, NULL));
    uint64_t len;
    ck_assert_ptr_nonnull(phys_hva(g->map, 0x11800, &len));
    ck_assert_uint_eq(len, 0x800);
    phys_remove(g->map, chip);
    ck_assert_uint_eq(get(0x12000, 8), 0xaaaaaaaaaaaaaaaa);
    phys_remove(g->map, chip); /* twice is harmless */
    put(0x12000, 0, 8);        /* ROM ignores it */
    ck_assert_uint_eq(get(0x12000, 8), 0xaaaaaaaaaaaaaaaa);
    uint64_t v = 7;
    phys_write(g->map, &LOADER, 0x12000, &v, 8);
    ck_assert_uint_eq(get(0x12000, 8), 7);
}
END_TEST

START_TEST(test_access_across_regions)
{
    struct chip c = chip_new();
    phys_add_mmio(g->map, 0x12000, 0x1000, &wide, &c, "chip", &err);
    memset(phys_hva(g->map, 0x11ff8, NULL), 0x55, 8);
    memset(phys_hva(g->map, 0x13000, NULL), 0x66, 8);
    /* 3 bytes of RAM, then registers */
    ck_assert_uint_eq(get(0x11ffd, 8), 0x1544332211555555);
    ck_assert_uint_eq(c.reads, 2);
    ck_assert_uint_eq(c.sizes[0], 4);
    ck_assert_uint_eq(c.offsets[1], 4);
    ck_assert_uint_eq(c.sizes[1], 1);
    c.writes = 0;
    put(0x12ffe, 0xdeadbeefcafe1234, 8);
    ck_assert_uint_eq(c.writes, 1);
    ck_assert_uint_eq(c.values[0], 0x1234);
    ck_assert_uint_eq(get(0x13000, 8), 0x6666deadbeefcafe);
}
END_TEST

START_TEST(test_widths)
{
    struct chip c = chip_new();
    phys_add_mmio(g->map, 0x800000, 0x100, &dwords, &c, "chip", &err); /* smaller than a page */
    ck_assert_uint_eq(get(0x800005, 1), 0x26);
    ck_assert_uint_eq(c.offsets[0], 4);
    ck_assert_uint_eq(c.sizes[0], 4);
    c.reads = 0;
    ck_assert_uint_eq(get(0x800008, 8), 0x503f2e1d4c3b2a19);
    ck_assert_uint_eq(c.reads, 2);
    c.reads = 0;
    ck_assert_uint_eq(get(0x800003, 2), 0x1544); /* straddles two registers */
    ck_assert_uint_eq(c.reads, 2);
    put(0x800006, 0xabcd, 2);
    ck_assert_uint_eq(c.offsets[0], 4);
    ck_assert_uint_eq(c.values[0], 0xabcd0000);
    put(0x800010, 0x1122334455667788, 8);
    ck_assert_uint_eq(c.values[1], 0x55667788);
    ck_assert_uint_eq(c.values[2], 0x11223344);
    ck_assert_uint_eq(c.offsets[2], 0x14);
    ck_assert_uint_eq(get(0x8000fe, 4) >> 16, 0xffff); /* beyond its end: nothing */
}
END_TEST

/* Two threads store equal bytes over each other; whoever looks sees what one of them stored. Few
 * looks would see anything else, and sanitizers leave time for few. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
enum { LOOKS = 20000 };
#else
enum { LOOKS = 2000000 };
#endif
struct racer {
    uint64_t gpa;
    unsigned size;
    uint8_t pattern;
    _Atomic bool stop;
};

static void *store_again(void *opaque)
{
    struct racer *r = opaque;
    uint8_t bytes[16];
    memset(bytes, r->pattern, sizeof bytes);
    while (!r->stop)
        phys_write(g->map, &KERNEL, r->gpa, bytes, r->size);
    return NULL;
}

static void race(uint64_t gpa, unsigned size)
{
    struct racer r[2] = {{gpa, size, 0x11, false}, {gpa, size, 0x22, false}};
    pthread_t thread[2];
    unsigned torn = 0;
    put(gpa, 0, 8);
    put(gpa + 8, 0, 8);
    for (unsigned i = 0; i < 2; i++)
        ck_assert_int_eq(pthread_create(&thread[i], NULL, store_again, &r[i]), 0);
    for (unsigned n = 0; n < LOOKS; n++) {
        uint8_t bytes[16];
        phys_read(g->map, &KERNEL, gpa, bytes, size);
        for (unsigned i = 1; i < size; i++)
            torn += bytes[i] != bytes[0];
    }
    for (unsigned i = 0; i < 2; i++) {
        r[i].stop = true;
        pthread_join(thread[i], NULL);
    }
    ck_assert_uint_eq(torn, 0);
}

START_TEST(test_atomic)
{
    race(0x1000, 8);
    race(0x1001, 2);
    race(0x1005, 4);
    race(0x1003, 8);
    race(0x1010, 16);
}
END_TEST

START_TEST(test_holes)
{
    ck_assert_uint_eq(get(0x90000000, 8), ~0ull);
    put(0x90000000, 0, 8);
    ck_assert_uint_eq(get(4 * MIB - 2, 4), 0xffff0000);
    uint8_t buf[64];
    memset(buf, 0, sizeof buf);
    phys_read(g->map, &DMA, ~0ull - 7, buf, sizeof buf); /* wraps: must end, and be all ones */
    ck_assert_uint_eq(buf[0], 0xff);
    ck_assert_uint_eq(buf[63], 0xff);
    phys_write(g->map, &DMA, ~0ull, buf, sizeof buf);
    struct chip c = chip_new();
    phys_add_mmio(g->map, 0x800000, 0x1000, &deaf, &c, "deaf", &err);
    ck_assert_uint_eq(get(0x800000, 4), 0xffffffff);
    put(0x800000, 0, 4);
}
END_TEST

START_TEST(test_region_vanishes_under_its_own_callback)
{
    struct chip c = chip_new();
    c.remove = phys_add_mmio(g->map, 0x12000, 0x1000, &wide, &c, "chip", &err);
    uint8_t buf[32] = {1, 2, 3, 4};
    phys_write(g->map, &KERNEL, 0x12000, buf, sizeof buf);
    ck_assert_uint_eq(c.writes, 1); /* the rest of the store finds no region */
    put(0x12000, 5, 8);
    ck_assert_uint_eq(get(0x12000, 8), 5);
}
END_TEST

START_TEST(test_bar_moves_for_ever)
{
    /* What a hostile guest does. The table's storage stays the same. */
    struct chip c = chip_new();
    const void *table = NULL;
    for (unsigned i = 0; i < 20000; i++) {
        int h = phys_add_mmio(g->map, 0x800000 + i * 0x1000ull, 0x1000, &wide, &c, "bar", &err);
        ck_assert_int_ge(h, 0);
        ck_assert_uint_eq(get(0x800000 + i * 0x1000ull, 1), 0x11);
        phys_remove(g->map, h);
        if (i == 0)
            table = atomic_load(&g->map->table);
        mmu_service(&g->mmu[0]);
    }
    ck_assert_ptr_eq(table, atomic_load(&g->map->table));
}
END_TEST

START_TEST(test_aliases_share_a_frame)
{
    ck_assert(phys_add_ram(g->map, 0x100000000, MIB, g->ram, MIB, "high", &err));
    put(0x100000010, 42, 8);
    ck_assert_uint_eq(get(MIB + 0x10, 8), 42);
    ck_assert_ptr_eq(phys_frame_attr(g->map, 0x100000010), phys_frame_attr(g->map, MIB));
    /* Code decoded at one address, stored to at the other: both addresses are told. */
    mmu_code_added(&g->mmu[0], 0x100000000, 16);
    put(MIB + 4, 1, 1);
    ck_assert_uint_eq(g->stale, 2);
    ck_assert_uint_eq(g->stale_gpa, 0x100000004);
}
END_TEST

/* The same pages as ROM, as RAM, as RAM that ignores stores: what PAM registers do. */
START_TEST(test_switches)
{
    struct ram_block *bios = phys_rom_new(g->map, 2 * PAGE_SIZE, NULL, 0, &err);
    memset(phys_block_bytes(bios), 0xb0, 2 * PAGE_SIZE);
    const struct phys_memory rom = {
        .gpa = 8 * MIB, .size = 2 * PAGE_SIZE, .block = bios, .name = "bios"};
    const struct phys_memory ram = {.gpa = 8 * MIB,
                                    .size = 2 * PAGE_SIZE,
                                    .block = g->ram,
                                    .offset = MIB,
                                    .name = "shadow",
                                    .hidden = true};
    const int above = phys_add_memory(g->map, &rom, &err);
    const int below = phys_add_memory(g->map, &ram, &err);
    ck_assert_int_ge(above, 0);
    ck_assert_int_ge(below, 0);
    put(8 * MIB, 1, 8);
    ck_assert_uint_eq(get(8 * MIB, 8), 0xb0b0b0b0b0b0b0b0);

    /* A view of the ROM, and code in it, are dropped by the switch. */
    mmu_code_added(&g->mmu[0], 8 * MIB, 16);
    unsigned kicks = g->kicks[0];
    ck_assert(phys_switch(g->map,
                          (struct phys_switch[]){{above, false, false}, {below, true, false}}, 2));
    ck_assert_uint_gt(g->kicks[0], kicks);
    mmu_service(&g->mmu[0]);
    ck_assert_uint_eq(g->stale, 1);
    ck_assert_uint_eq(g->stale_gpa, 8 * MIB);
    put(8 * MIB, 2, 8);
    ck_assert_uint_eq(get(8 * MIB, 8), 2);
    ck_assert_uint_eq(get(MIB, 8), 2);

    ck_assert(phys_switch(g->map, (struct phys_switch[]){{below, true, true}}, 1));
    ck_assert(*phys_frame_attr(g->map, 8 * MIB + PAGE_SIZE) & FRAME_ROM);
    put(8 * MIB, 3, 8);
    ck_assert_uint_eq(get(8 * MIB, 8), 2);
    ck_assert(!(*phys_frame_attr(g->map, MIB + 2 * PAGE_SIZE) & FRAME_ROM));

    struct phys_switch hide[] = {{below, false, false}};
    ck_assert(phys_switch(g->map, hide, 1));
    ck_assert_msg(hide[0].visible && hide[0].read_only, "what it was is told");
    ck_assert_uint_eq(get(8 * MIB, 8), ~0ull);
    put(MIB, 4, 8);
    ck_assert_uint_eq(get(MIB, 8), 4);
}
END_TEST

/* Flash: reads are ROM's, stores are the chip's. */
START_TEST(test_rom_that_listens)
{
    struct chip c = chip_new();
    struct ram_block *flash = phys_rom_new(g->map, PAGE_SIZE, NULL, 0, &err);
    memset(phys_block_bytes(flash), 0xf1, PAGE_SIZE);
    const struct phys_memory rom = {.gpa = 8 * MIB,
                                    .size = PAGE_SIZE,
                                    .block = flash,
                                    .name = "flash",
                                    .rom_ops = &wide,
                                    .opaque = &c};
    ck_assert_int_ge(phys_add_memory(g->map, &rom, &err), 0);
    ck_assert_uint_eq(get(8 * MIB + 0x10, 4), 0xf1f1f1f1);
    ck_assert_uint_eq(c.reads, 0);
    put(8 * MIB + 0x10, 0x98, 1);
    ck_assert_uint_eq(c.writes, 1);
    ck_assert_uint_eq(c.offsets[0], 0x10);
    ck_assert_uint_eq(c.values[0], 0x98);
    ck_assert_uint_eq(get(8 * MIB + 0x10, 4), 0xf1f1f1f1);
}
END_TEST

/* What a store does to the map holds for the vCPU's next access, with no mmu_service() in between:
 * views and code of ROM that its own chip takes away. */
START_TEST(test_rom_that_goes_at_a_store)
{
    struct chip c = chip_new();
    struct paging p = paging_for(PAGING_NONE, 0);
    struct mmu_cpu *m = &g->mmu[0];
    struct mmu_xlat x;
    const struct phys_memory rom = {.gpa = 8 * MIB,
                                    .size = PAGE_SIZE,
                                    .block = phys_rom_new(g->map, PAGE_SIZE, NULL, 0, &err),
                                    .name = "flash",
                                    .rom_ops = &wide,
                                    .opaque = &c};
    c.remove = phys_add_memory(g->map, &rom, &err);
    ck_assert_int_ge(c.remove, 0);
    mmu_paging_changed(m, &p);
    mmu_service(m);
    ck_assert_int_eq(mmu_translate(m, &KERNEL, 8 * MIB, ACCESS_READ, MMU_SUPERVISOR, &x), MMU_OK);
    ck_assert_ptr_nonnull(view_hit(m, MMU_SUPERVISOR, 8 * MIB, ACCESS_READ));
    mmu_code_added(m, 8 * MIB, 64);
    put(8 * MIB, 0x70, 1);
    ck_assert_uint_eq(c.writes, 1);
    ck_assert_ptr_null(view_hit(m, MMU_SUPERVISOR, 8 * MIB, ACCESS_READ));
    ck_assert_uint_eq(g->stale, 1);
    ck_assert_uint_eq(get(8 * MIB, 4), 0xffffffff);
}
END_TEST

START_TEST(test_block_comes_moves_and_goes)
{
    struct paging p = paging_for(PAGING_NONE, 0);
    struct mmu_cpu *m = &g->mmu[0];
    struct ram_block *vram = phys_ram_new(g->map, MIB, &err);
    ck_assert_ptr_nonnull(vram);
    mmu_paging_changed(m, &p);
    int h = phys_map_block(g->map, 16 * MIB, MIB, vram, 0, "vram", &err);
    ck_assert_int_ge(h, 0);
    mmu_service(m);
    put(16 * MIB + 8, 0x1122, 8);
    ck_assert_uint_eq(phys_block_bytes(vram)[8], 0x22);
    struct mmu_xlat x;
    ck_assert_int_eq(mmu_translate(m, &KERNEL, 16 * MIB, ACCESS_WRITE, MMU_SUPERVISOR, &x), MMU_OK);
    ck_assert_ptr_nonnull(view_hit(m, MMU_SUPERVISOR, 16 * MIB, ACCESS_WRITE));
    /* Code there that the device overwrites: as if by DMA, so the vCPU is told by mail. */
    mmu_code_added(m, 16 * MIB, 64);
    phys_block_bytes(vram)[9] = 0x33;
    phys_block_written(g->map, vram, 9, PAGE_SIZE);
    mmu_service(m);
    ck_assert_uint_eq(g->stale, 1);
    /* The BAR moves: nothing is left of it at the old place, and its contents are at the new. */
    phys_remove(g->map, h);
    mmu_service(m);
    ck_assert_ptr_null(view_hit(m, MMU_SUPERVISOR, 16 * MIB, ACCESS_WRITE));
    ck_assert_uint_eq(get(16 * MIB + 8, 4), 0xffffffff);
    phys_block_written(g->map, vram, 0, MIB); /* shown nowhere: harmless */
    h = phys_map_block(g->map, 32 * MIB, MIB, vram, 0, "vram", &err);
    ck_assert_uint_eq(get(32 * MIB + 8, 8), 0x3322);
    phys_remove(g->map, h);
    /* A ROM of a device's. */
    struct ram_block *rom = phys_rom_new(g->map, PAGE_SIZE, "\x55\xaa", 2, &err);
    ck_assert_int_ge(phys_map_block(g->map, 16 * MIB, PAGE_SIZE, rom, 0, "rom", &err), 0);
    put(16 * MIB, 0, 8);
    ck_assert_uint_eq(get(16 * MIB, 4), 0xaa55);
    ck_assert_int_eq(phys_map_block(g->map, 0, 2 * PAGE_SIZE, rom, 0, "rom", &err), -1);
}
END_TEST

START_TEST(test_errors_are_told)
{
    struct ram_block *none = phys_ram_new(g->map, 1ull << 58, &err);
    ck_assert_ptr_null(none);
    ck_assert_ptr_nonnull(strstr(err.msg, "GiB of guest RAM"));
    ck_assert_ptr_null(phys_ram_new(g->map, 1000, &err));
    ck_assert(!phys_add_ram(g->map, 0x800, PAGE_SIZE, g->ram, 0, "odd", &err));
    ck_assert(!phys_add_ram(g->map, 0, 8 * MIB, g->ram, 0, "big", &err));
    ck_assert_int_eq(phys_add_mmio(g->map, ~0ull - 10, 100, &wide, NULL, "wraps", &err), -1);
    uint8_t b[8192];
    ck_assert_ptr_null(phys_rom_new(g->map, PAGE_SIZE, b, sizeof b, &err));
}
END_TEST

START_TEST(test_cmpxchg)
{
    uint64_t old = 5;
    put(0x1000, 5, 8);
    bool done;
    ck_assert(phys_cmpxchg(g->map, &KERNEL, 0x1000, 8, &old, 6, &done) == PHYS_OK && done);
    ck_assert(phys_cmpxchg(g->map, &KERNEL, 0x1000, 8, &old, 7, &done) == PHYS_OK && !done);
    ck_assert_uint_eq(old, 6);
    old = 6;
    ck_assert(phys_cmpxchg(g->map, &KERNEL, 0x1000, 4, &old, 0xffffffff, &done) == PHYS_OK && done);
    ck_assert_uint_eq(get(0x1000, 8), 0xffffffff);
}
END_TEST

START_TEST(test_large_sparse_ram)
{
    struct guest *big = guest_new(64 * GIB, 1, NULL); /* nothing is touched, so it costs nothing */
    uint64_t v = 9;
    phys_write(big->map, &KERNEL, 64 * GIB - 8, &v, 8);
    ck_assert_uint_eq(peek64(big, 64 * GIB - 8), 9);
    guest_free(big);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("phys");
    TCase *t = tcase_create("phys");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, test_mmio_over_rom_over_ram);
    tcase_add_test(t, test_access_across_regions);
    tcase_add_test(t, test_widths);
    tcase_add_test(t, test_atomic);
    tcase_add_test(t, test_holes);
    tcase_add_test(t, test_region_vanishes_under_its_own_callback);
    tcase_add_test(t, test_bar_moves_for_ever);
    tcase_add_test(t, test_aliases_share_a_frame);
    tcase_add_test(t, test_switches);
    tcase_add_test(t, test_rom_that_listens);
    tcase_add_test(t, test_rom_that_goes_at_a_store);
    tcase_add_test(t, test_block_comes_moves_and_goes);
    tcase_add_test(t, test_errors_are_told);
    tcase_add_test(t, test_cmpxchg);
    tcase_add_test(t, test_large_sparse_ram);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
