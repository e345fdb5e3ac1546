/*
 * virtio_readonly.c - a read-only virtio disk says so and refuses to be written (virtio 1.2, 5.2.5,
 * 5.2.6).
 *
 * guest devices: -drive file=ZEROS,if=none,id=d,format=raw,readonly=on
 * guest devices: -device virtio-blk-pci,drive=d
 */
#include "blk.h"

static struct virtio disk;
static uint8_t buffer[2 * SECTOR];

TEST(says_so)
{
    CHECK(virtio_open(&disk, VIRTIO_BLK, 0));
    CHECK_EQ(virtio_offered(&disk) & BLK_F_RO, BLK_F_RO);
    disk.interface = LEGACY;
    CHECK_EQ(virtio_offered(&disk) & BLK_F_RO, BLK_F_RO);
}

TEST(refuses)
{
    static volatile struct {
        uint64_t sector;
        uint32_t sectors, flags;
    } range = {0, 1, 0};
    for (enum interface i = MODERN; i <= LEGACY; i++) {
        CHECK(virtio_open(&disk, VIRTIO_BLK, 0));
        CHECK(virtio_start(&disk, i, BLK_F_RO | BLK_F_FLUSH));
        memset(buffer, 0x5a, sizeof(buffer));
        CHECK_EQ(blk_do(&disk, T_OUT, 0, buffer, SECTOR), S_IOERR);
        CHECK(blk_do(&disk, T_WRITE_ZEROES, 0, &range, 16) != S_OK);
        CHECK(blk_do(&disk, T_DISCARD, 0, &range, 16) != S_OK);
        CHECK_EQ(blk_do(&disk, T_IN, 0, buffer, 2 * SECTOR), S_OK);
        for (unsigned n = 0; n < sizeof(buffer); n++)
            if (buffer[n])
                CHECK_EQ(buffer[n], 0);
        CHECK_EQ(blk_do(&disk, T_FLUSH, 0, 0, 0), S_OK); /* nothing to do, but no error */
    }
}

/* A driver that does not know the feature gets the same. */
TEST(without_the_feature)
{
    CHECK(virtio_open(&disk, VIRTIO_BLK, 0));
    if (!virtio_start(&disk, MODERN, 0)) {
        print("  skipped: the device insists on VIRTIO_BLK_F_RO\n");
        return;
    }
    CHECK_EQ(blk_do(&disk, T_OUT, 0, buffer, SECTOR), S_IOERR);
    CHECK_EQ(blk_do(&disk, T_IN, 0, buffer, SECTOR), S_OK);
}

const struct test guest_tests[] = {T(says_so), T(refuses), T(without_the_feature), {0, 0}};
