/*
 * virtio_hostile.c - a driver that breaks every rule of the ring: the device asks for a reset,
 * tells so by its configuration interrupt, touches nothing that it was not given, and works again
 * after the reset (virtio 1.2, 2.1.1, 2.7).
 *
 * guest devices: -drive file=ZEROS,if=none,id=d,format=raw,snapshot=on
 * guest devices: -device virtio-blk-pci,drive=d -device virtio-rng-pci
 */
#include "blk.h"

#define NOWHERE   0xd8000000ull /* in the PCI hole */
#define FAR_AWAY  0x7fffffff0000ull
#define REGISTERS 0xfee00000ull

static struct virtio disk, rng;
static uint8_t buffer[8192] __attribute__((aligned(4096)));
static uint8_t canary[4096] __attribute__((aligned(4096)));

static bool start(struct virtio *d, uint32_t id, uint64_t features)
{
    memset(buffer, 0xcc, sizeof(buffer));
    memset(canary, 0xcc, sizeof(canary));
    return virtio_open(d, id, 0) && virtio_start(d, MODERN, features);
}

static bool needs_reset(struct virtio *d)
{
    for (uint64_t end = rdtsc() + FOREVER; rdtsc() < end;)
        if (virtio_status(d) & S_NEEDS_RESET)
            return true;
    return false;
}

static bool untouched(const uint8_t *p, unsigned len)
{
    for (unsigned i = 0; i < len; i++)
        if (p[i] != 0xcc)
            return false;
    return true;
}

/* It broke: says so, interrupts for it, and serves again after a reset. */
static void check_broken(struct virtio *d, uint32_t id)
{
    CHECK(needs_reset(d));
    CHECK(virtio_isr(d) & 2);
    CHECK_EQ(d->used->idx, 0);
    virtio_kick(d); /* deaf now */
    CHECK(virtio_status(d) & S_NEEDS_RESET);
    virtio_set_status(d, virtio_status(d) & ~S_NEEDS_RESET); /* only a reset clears it */
    CHECK(virtio_status(d) & S_NEEDS_RESET);
    CHECK(untouched(canary, sizeof(canary)));
    CHECK(start(d, id, 0));
    CHECK_EQ(virtio_status(d) & S_NEEDS_RESET, 0);
    if (id == VIRTIO_BLK) {
        CHECK_EQ(blk_do(d, T_IN, 0, buffer, SECTOR), S_OK);
    } else {
        const struct part part = {buffer, 16, IN};
        uint32_t got = virtio_do(d, &part, 1);
        CHECK(got >= 1 && got <= 16);
    }
}

static void header(uint32_t type)
{
    blk_header = (struct blk_header){type, 0, 0};
    blk_status = S_NOTHING;
}

/* ---- Malformed chains ---------------------------------------------------------------------------
 */

struct bad {
    const char *name;
    struct vdesc desc[4];
    unsigned head;
};

static void try(const struct bad *bad, struct virtio *d, uint32_t id, uint64_t features)
{
    bool passed = all_passed();
    CHECK(start(d, id, features));
    header(T_IN);
    for (unsigned i = 0; i < 4; i++)
        d->desc[i] = bad->desc[i];
    virtio_available(d, bad->head);
    virtio_kick(d);
    check_broken(d, id);
    if (passed && !all_passed())
        print("  that was: %s\n", bad->name);
}

#define AT(p) ((uint64_t)(uintptr_t)(p))

TEST(malformed_chains)
{
    static volatile struct vdesc inner[4] __attribute__((aligned(16)));
    inner[0] = (struct vdesc){AT(inner), 32, DESC_INDIRECT, 0};
    const struct bad bad[] = {
        {"head beyond the table", {{0}}, 5000},
        {"next beyond the table", {{AT(&blk_header), 16, DESC_NEXT, 5000}}, 0},
        {"a loop", {{AT(&blk_header), 16, DESC_NEXT, 1}, {AT(buffer), 16, DESC_NEXT, 0}}, 0},
        {"a loop of one", {{AT(&blk_header), 16, DESC_NEXT, 0}}, 0},
        {"readable behind writable",
         {{AT(buffer), 512, DESC_NEXT | DESC_WRITE, 1},
          {AT(&blk_header), 16, DESC_NEXT, 2},
          {AT(&blk_status), 1, DESC_WRITE, 0}},
         0},
        {"no status", {{AT(&blk_header), 16, 0, 0}}, 0},
        {"no header", {{AT(&blk_status), 1, DESC_WRITE, 0}}, 0},
        {"half a header",
         {{AT(&blk_header), 8, DESC_NEXT, 1}, {AT(&blk_status), 1, DESC_WRITE, 0}},
         0},
        {"an empty chain", {{0, 0, 0, 0}}, 0},
        {"header where nothing is",
         {{NOWHERE, 16, DESC_NEXT, 1}, {AT(&blk_status), 1, DESC_WRITE, 0}},
         0},
        {"header in registers",
         {{REGISTERS, 16, DESC_NEXT, 1}, {AT(&blk_status), 1, DESC_WRITE, 0}},
         0},
        {"data where nothing is",
         {{AT(&blk_header), 16, DESC_NEXT, 1},
          {NOWHERE, 512, DESC_NEXT | DESC_WRITE, 2},
          {AT(&blk_status), 1, DESC_WRITE, 0}},
         0},
        {"data far away",
         {{AT(&blk_header), 16, DESC_NEXT, 1},
          {FAR_AWAY, 512, DESC_NEXT | DESC_WRITE, 2},
          {AT(&blk_status), 1, DESC_WRITE, 0}},
         0},
        {"data that wraps",
         {{AT(&blk_header), 16, DESC_NEXT, 1},
          {~0ull - 255, 512, DESC_NEXT | DESC_WRITE, 2},
          {AT(&blk_status), 1, DESC_WRITE, 0}},
         0},
        {"data across the end of RAM",
         {{AT(&blk_header), 16, DESC_NEXT, 1},
          {(64 << 20) - 256, 512, DESC_NEXT | DESC_WRITE, 2},
          {AT(&blk_status), 1, DESC_WRITE, 0}},
         0},
        {"status where nothing is",
         {{AT(&blk_header), 16, DESC_NEXT, 1}, {NOWHERE, 1, DESC_WRITE, 0}},
         0},
        {"indirect without the feature", {{AT(inner), 64, DESC_INDIRECT, 0}}, 0},
    };
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        try(&bad[i], &disk, VIRTIO_BLK, 0);
}

TEST(malformed_indirect_tables)
{
    static volatile struct vdesc inner[4] __attribute__((aligned(16)));
    const struct bad bad[] = {
        {"not a multiple of 16", {{AT(inner), 24, DESC_INDIRECT, 0}}, 0},
        {"empty", {{AT(inner), 0, DESC_INDIRECT, 0}}, 0},
        {"with a next", {{AT(inner), 64, DESC_INDIRECT | DESC_NEXT, 1}}, 0},
        {"nested", {{AT(inner), 64, DESC_INDIRECT, 0}}, 0},
        {"where nothing is", {{NOWHERE, 64, DESC_INDIRECT, 0}}, 0},
        {"that wraps", {{~0ull - 15, 64, DESC_INDIRECT, 0}}, 0},
        {"huge and wild", {{AT(canary), 0xfffffff0, DESC_INDIRECT, 0}}, 0},
    };
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        inner[0] = (struct vdesc){AT(inner + 1), 16, DESC_INDIRECT, 0};
        try(&bad[i], &disk, VIRTIO_BLK, F_INDIRECT_DESC);
    }
}

TEST(entropy_device_too)
{
    const struct bad bad[] = {
        {"head beyond the table", {{0}}, 5000},
        {"a loop", {{AT(buffer), 16, DESC_NEXT | DESC_WRITE, 0}}, 0},
        {"where nothing is", {{NOWHERE, 64, DESC_WRITE, 0}}, 0},
        {"in registers", {{REGISTERS, 64, DESC_WRITE, 0}}, 0},
        {"far away", {{FAR_AWAY, 64, DESC_WRITE, 0}}, 0},
    };
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        try(&bad[i], &rng, VIRTIO_RNG, 0);
}

/* ---- The rings themselves -----------------------------------------------------------------------
 */

TEST(index_runs_ahead)
{
    CHECK(start(&disk, VIRTIO_BLK, 0));
    disk.avail->idx = (uint16_t)(disk.size + 1);
    virtio_kick(&disk);
    check_broken(&disk, VIRTIO_BLK);
}

static void start_with_rings(uint64_t desc, uint64_t avail, uint64_t used)
{
    memset(canary, 0xcc, sizeof(canary));
    CHECK(virtio_open(&disk, VIRTIO_BLK, 0));
    CHECK(virtio_negotiate(&disk, MODERN, 0));
    virtio_place(&disk, virtio_queue_max(&disk));
    header(T_IN);
    const struct part parts[] = {
        {&blk_header, 16, OUT}, {buffer, SECTOR, IN}, {&blk_status, 1, IN}};
    virtio_chain(&disk, 0, parts, 3);
    c_write16(&disk, C_QUEUE_SELECT, 0);
    c_write64(&disk, C_QUEUE_DESC, desc ? desc : AT(disk.desc));
    c_write64(&disk, C_QUEUE_DRIVER, avail ? avail : AT(disk.avail));
    c_write64(&disk, C_QUEUE_DEVICE, used ? used : AT(disk.used));
    c_write16(&disk, C_QUEUE_ENABLE, 1);
    virtio_set_status(&disk, virtio_status(&disk) | S_DRIVER_OK);
    virtio_available(&disk, 0);
    virtio_kick(&disk);
}

TEST(rings_where_nothing_is)
{
    static const uint64_t places[] = {NOWHERE, FAR_AWAY, REGISTERS, 0xfffffffffffff000};
    for (unsigned i = 0; i < 4; i++) {
        start_with_rings(places[i], 0, 0);
        check_broken(&disk, VIRTIO_BLK);
        start_with_rings(0, places[i], 0);
        check_broken(&disk, VIRTIO_BLK);
        start_with_rings(0, 0, places[i]);
        check_broken(&disk, VIRTIO_BLK);
    }
}

/* Numbers no device has, and registers no queue has. */
TEST(odd_registers)
{
    CHECK(start(&disk, VIRTIO_BLK, 0));
    *(volatile uint16_t *)(uintptr_t)(disk.notify + 400) =
        77;                                     /* notifies a queue that is not there */
    for (unsigned reg = 0; reg < 0x1000; reg++) /* reads of everything, in every width */
        c_read8(&disk, reg);
    for (unsigned reg = 0; reg < 0x1000; reg += 2)
        c_read16(&disk, reg);
    for (unsigned reg = 0; reg < 0x1000; reg += 4)
        c_read32(&disk, reg);
    CHECK_EQ(blk_do(&disk, T_IN, 0, buffer, SECTOR), S_OK);
    c_write16(&disk, C_QUEUE_SELECT, 0xffff);
    for (unsigned reg = C_QUEUE_SIZE; reg < 0x1000; reg += 4)
        c_write32(&disk, reg, 0xa5a5a5a5);
    CHECK_EQ(blk_do(&disk, T_IN, 0, buffer, SECTOR), S_OK);
    /* the window of configuration space at wild places */
    for (unsigned i = 0; i < 64; i++) {
        pci_write8(disk.devfn, disk.window + 4, (uint8_t)(i * 37));
        pci_write32(disk.devfn, disk.window + 8, i * 0x08765431);
        pci_write32(disk.devfn, disk.window + 12, i);
        pci_read32(disk.devfn, disk.window + 16);
        if (pci_read8(disk.devfn, disk.window + 4) !=
            pci_read8(disk.devfn, pci_capability(disk.devfn, 9, 0) + 4))
            pci_write32(disk.devfn, disk.window + 16, 0x5a5a5a5a);
    }
    CHECK(start(&disk, VIRTIO_BLK, 0));
    CHECK_EQ(blk_do(&disk, T_IN, 0, buffer, SECTOR), S_OK);
}

/* The ring changes while the device reads it; whatever it sees, the machine lives on. */
TEST(ring_that_changes)
{
    for (unsigned round = 0; round < 100; round++) {
        CHECK(start(&disk, VIRTIO_BLK, 0));
        header(T_IN);
        const struct part parts[] = {
            {&blk_header, 16, OUT}, {buffer, SECTOR, IN}, {&blk_status, 1, IN}};
        virtio_chain(&disk, 0, parts, 3);
        for (unsigned i = 0; i < 20; i++)
            virtio_available(&disk, 0);
        virtio_kick(&disk);
        for (unsigned i = 0; i < 100; i++) {
            disk.desc[i % 3].flags = (uint16_t)(i * 7 & 7);
            disk.desc[i % 3].next = (uint16_t)(i % 5);
            disk.desc[1].len = i & 1 ? SECTOR : 2 * SECTOR;
            blk_header.type = i % 14;
        }
    }
    CHECK(start(&disk, VIRTIO_BLK, 0));
    CHECK_EQ(blk_do(&disk, T_IN, 0, buffer, SECTOR), S_OK);
}

/* A reset in the middle of requests: none of them answers afterwards. */
TEST(reset_in_flight)
{
    for (unsigned round = 0; round < 50; round++) {
        CHECK(start(&disk, VIRTIO_BLK, 0));
        header(T_IN);
        const struct part parts[] = {
            {&blk_header, 16, OUT}, {buffer, 4096, IN}, {&blk_status, 1, IN}};
        virtio_chain(&disk, 0, parts, 3);
        for (unsigned i = 0; i < 8; i++)
            virtio_available(&disk, 0);
        virtio_kick(&disk);
        virtio_set_status(&disk, 0);
        for (uint64_t end = rdtsc() + FOREVER; virtio_status(&disk) && rdtsc() < end;)
            asm volatile("pause");
        unsigned answered = disk.used->idx;
        memset(buffer, 0xcc, sizeof(buffer));
        pit_wait(300);
        CHECK_EQ(disk.used->idx, answered);
        CHECK(untouched(buffer, sizeof(buffer)));
        CHECK_EQ(virtio_isr(&disk), 0);
    }
    CHECK(start(&disk, VIRTIO_BLK, 0));
    CHECK_EQ(blk_do(&disk, T_IN, 0, buffer, SECTOR), S_OK);
}

const struct test guest_tests[] = {
    T(malformed_chains),  T(malformed_indirect_tables), T(entropy_device_too),
    T(index_runs_ahead),  T(rings_where_nothing_is),    T(odd_registers),
    T(ring_that_changes), T(reset_in_flight),           {0, 0}};
