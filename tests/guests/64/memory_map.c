/*
 * memory_map.c - a machine with more memory than fits below the PCI hole: the map that PVH hands
 * over, every part of RAM in its place and only there, the hole, DMA, code and page tables above 4
 * GiB (the rule of QEMU's `pc`: from 3.5 GiB on, 3 GiB are low).
 *
 * guest options: -m 5G -device virtio-rng-pci
 */
#include "virtio.h"

#define GIB      (1ull << 30)
#define LOW_END  (3 * GIB)
#define HIGH     (4 * GIB)
#define HIGH_END (6 * GIB)

static uint64_t tables[4][512] __attribute__((aligned(4096)));

/* Maps 4 to 8 GiB to itself. */
static void map_high(void)
{
    for (unsigned i = 0; i < 4; i++) {
        for (unsigned j = 0; j < 512; j++)
            tables[i][j] = ((4 + i) * GIB + ((uint64_t)j << 21)) | 0x87;
        boot_pdpt[4 + i] = (uintptr_t)tables[i] | 7;
    }
    write_cr3(read_cr3());
}

static volatile uint64_t *at(uint64_t address)
{
    return (volatile uint64_t *)(uintptr_t)address;
}

struct range {
    uint64_t base, size;
    uint32_t type, reserved;
};

TEST(what_pvh_hands_over)
{
    const uint32_t *info = (void *)(uintptr_t)start_info;
    CHECK_EQ(info[0], 0x336ec578);
    CHECK(info[1] >= 1); /* version: with the memory map */
    const struct range *map = (void *)(uintptr_t)(info[10] | (uint64_t)info[11] << 32);
    unsigned count = info[12];
    uint64_t usable = 0, high = 0;
    bool image = false, low_end = false;
    CHECK(count >= 4 && count < 32);
    for (unsigned i = 0; i < count; i++) {
        const struct range *r = &map[i];
        CHECK(r->size != 0);
        CHECK(r->base + r->size > r->base);
        for (unsigned j = 0; j < i; j++) /* no overlaps */
            CHECK(r->base >= map[j].base + map[j].size || map[j].base >= r->base + r->size);
        if (r->type != 1)
            continue;
        usable += r->size;
        if (r->base >= HIGH)
            high += r->size;
        image |= r->base <= 0x100000 && r->base + r->size >= (uintptr_t)guest_end;
        low_end |= r->base + r->size <= LOW_END && r->base + r->size > LOW_END - (1 << 20);
        CHECK(r->base >= HIGH || r->base + r->size <= LOW_END);
        CHECK(r->base + r->size <= 0xa0000 || r->base >= 0x100000);
    }
    CHECK_EQ(high, 2 * GIB);
    CHECK(usable <= 5 * GIB && usable > 5 * GIB - (2 << 20));
    CHECK(image);
    CHECK(low_end);
}

TEST(cmos_tells_it_too)
{
    outb(0x70, 0x5b);
    unsigned low = inb(0x71);
    outb(0x70, 0x5c);
    unsigned middle = inb(0x71);
    outb(0x70, 0x5d);
    CHECK_EQ(low | middle << 8 | (unsigned)inb(0x71) << 16, 2 * GIB >> 16);
}

/* A value of its own in each 64 MiB; then all of them are still there. */
TEST(every_part_is_there_once)
{
    map_high();
    for (uint64_t a = 0x2000000; a < HIGH_END; a += 0x4000000)
        if (a < LOW_END || a >= HIGH)
            *at(a) = ~a;
    *at(LOW_END - 8) = 1;
    *at(HIGH) = 2;
    *at(HIGH_END - 8) = 3;
    for (uint64_t a = 0x2000000; a < HIGH_END; a += 0x4000000)
        if (a < LOW_END || a >= HIGH)
            CHECK_EQ(*at(a), ~a);
    CHECK_EQ(*at(LOW_END - 8), 1);
    CHECK_EQ(*at(HIGH), 2);
    CHECK_EQ(*at(HIGH_END - 8), 3);
}

TEST(nothing_beyond)
{
    map_high();
    static const uint64_t nowhere[] = {
        LOW_END,  LOW_END + 0x1000,  0xd8000000, 0xf0000000, 0xfebf0000 - 0x100000,
        HIGH_END, HIGH_END + 0x1000, 7 * GIB};
    for (unsigned i = 0; i < sizeof(nowhere) / sizeof(nowhere[0]); i++) {
        CHECK_EQ(*at(nowhere[i]), ~0ull);
        *at(nowhere[i]) = 0x55;
        CHECK_EQ(*at(nowhere[i]), ~0ull);
    }
}

/* Half in RAM, half in nothing. */
TEST(across_the_ends)
{
    map_high();
    static const uint64_t ends[] = {LOW_END, HIGH_END};
    for (unsigned i = 0; i < 2; i++) {
        *at(ends[i] - 8) = 0x1122334455667788;
        CHECK_EQ(*at(ends[i] - 4), 0xffffffff11223344);
        CHECK_EQ(*at(ends[i] - 1), 0xffffffffffffff11);
        *at(ends[i] - 4) = 0xaabbccddeeff0011;
        CHECK_EQ(*at(ends[i] - 8), 0xeeff001155667788);
        CHECK_EQ(*at(ends[i] - 4), 0xffffffffeeff0011);
    }
    /* from nothing into RAM */
    *at(HIGH) = 0x1122334455667788;
    CHECK_EQ(*at(HIGH - 4) >> 32, 0x55667788);
    *at(HIGH - 4) = 0xaabbccdd00000000;
    CHECK_EQ(*at(HIGH), 0x11223344aabbccdd);
}

TEST(code_above_4_gib)
{
    map_high();
    static const uint8_t code[] = {0xb8, 0x78, 0x56,
                                   0x34, 0x12, 0xc3};          /* mov $12345678h, %eax; ret */
    memcpy((void *)at(HIGH + 0x1000 - 3), code, sizeof(code)); /* across pages, too */
    CHECK_EQ(((uint32_t(*)(void))(uintptr_t)(HIGH + 0x1000 - 3))(), 0x12345678);
    *(volatile uint8_t *)at(HIGH + 0x1000 - 2) = 0x79;
    CHECK_EQ(((uint32_t(*)(void))(uintptr_t)(HIGH + 0x1000 - 3))(), 0x12345679);
}

TEST(page_table_above_4_gib)
{
    map_high();
    volatile uint64_t *pd = at(HIGH + 0x200000), *pt = at(HIGH_END - 0x1000);
    pd[0] = (HIGH_END - 0x1000) | 7;
    pt[0] = (HIGH + 0x300000) | 7;
    boot_pdpt[8] = (HIGH + 0x200000) | 7;
    *at(HIGH + 0x300000) = 0xfeedface;
    CHECK_EQ(*at(8 * GIB), 0xfeedface);
    CHECK_EQ(pt[0] & 0x20, 0x20); /* accessed */
    CHECK_EQ(pd[0] & 0x20, 0x20);
    boot_pdpt[8] = 0;
    write_cr3(read_cr3());
}

TEST(dma_above_4_gib)
{
    struct virtio rng;
    map_high();
    static const uint64_t places[] = {LOW_END - 4096, HIGH, HIGH_END - 4096};
    bool open = virtio_open(&rng, VIRTIO_RNG, 0);
    CHECK(open && virtio_start(&rng, MODERN, 0));
    if (!open)
        return;
    for (unsigned i = 0; i < 3; i++) {
        volatile uint64_t *p = at(places[i]);
        for (unsigned j = 0; j < 64; j++)
            p[j] = 0;
        const struct part part = {p, 512, IN};
        CHECK_EQ(virtio_do(&rng, &part, 1), 512);
        for (unsigned j = 0; j < 64; j++)
            CHECK(p[j] != 0);
    }
}

const struct test guest_tests[] = {
    T(what_pvh_hands_over),    T(cmos_tells_it_too), T(every_part_is_there_once),
    T(nothing_beyond),         T(across_the_ends),   T(code_above_4_gib),
    T(page_table_above_4_gib), T(dma_above_4_gib),   {0, 0}};
