/*
 * virtio_rng.c - the entropy device: fills what it is given, tells how much, and is never twice the
 * same (virtio 1.2, 5.4).
 *
 * guest options: -device virtio-rng-pci
 */
#include "virtio.h"

enum { V = 0x61 };

static struct virtio rng;
static uint8_t a[4096], b[4096];

/* Enough for a buffer of `len` bytes not to be zeros, nor the same as another, in a very long time.
 */
static bool random(const uint8_t *p, unsigned len)
{
    unsigned ones = 0;
    for (unsigned i = 0; i < 8 * len; i++)
        ones += p[i / 8] >> i % 8 & 1;
    return ones > len * 7 / 2 && ones < len * 9 / 2; /* 4 of 8; 7 sigma for 200 bytes */
}

/* Fills `len` bytes, in as many requests as the device wants. */
static bool fill(uint8_t *p, uint32_t len)
{
    while (len) {
        const struct part part = {p, len, IN};
        uint32_t got = virtio_do(&rng, &part, 1);
        if (got == NO_ANSWER || got == 0 || got > len)
            return false;
        p += got;
        len -= got;
    }
    return true;
}

TEST(fills)
{
    for (enum interface i = MODERN; i <= LEGACY; i++) {
        CHECK(virtio_open(&rng, VIRTIO_RNG, 0));
        CHECK(virtio_start(&rng, i, 0));
        memset(a, 0, sizeof(a));
        memset(b, 0, sizeof(b));
        CHECK(fill(a, sizeof(a)));
        CHECK(fill(b, sizeof(b)));
        CHECK(random(a, sizeof(a)));
        CHECK(random(b, sizeof(b)));
        CHECK(memcmp(a, b, sizeof(a)) != 0);
    }
}

/* Not a byte more than there is room for. */
TEST(small_buffers)
{
    CHECK(virtio_open(&rng, VIRTIO_RNG, 0));
    CHECK(virtio_start(&rng, MODERN, 0));
    for (uint32_t len = 1; len <= 64; len++) {
        const struct part part = {a, len, IN};
        memset(a, 0xcc, 128);
        uint32_t got = virtio_do(&rng, &part, 1);
        CHECK(got >= 1 && got <= len);
        for (unsigned n = len; n < 128; n++)
            if (a[n] != 0xcc)
                CHECK_EQ(a[n], 0xcc);
    }
}

TEST(scattered)
{
    CHECK(virtio_open(&rng, VIRTIO_RNG, 0));
    CHECK(virtio_start(&rng, MODERN, 0));
    memset(a, 0, sizeof(a));
    const struct part parts[] = {{a, 100, IN}, {a + 200, 300, IN}, {a + 1000, 56, IN}};
    uint32_t got = virtio_do(&rng, parts, 3);
    CHECK(got >= 1 && got <= 456);
    if (got == 456) {
        CHECK(random(a, 100));
        CHECK(random(a + 200, 300));
    }
    for (unsigned n = 100; n < 200; n++)
        CHECK_EQ(a[n], 0);
}

TEST(msix)
{
    apic_quiet();
    count_hits(0x30, 0xef, apic_eoi);
    CHECK(virtio_open(&rng, VIRTIO_RNG, 0));
    msix_control(&rng, MSIX_ENABLE);
    msix_set(&rng, 0, V, false);
    CHECK(virtio_negotiate(&rng, MODERN, 0));
    virtio_place(&rng, virtio_queue_max(&rng));
    c_write16(&rng, C_QUEUE_VECTOR, 0);
    virtio_set_queue(&rng);
    virtio_set_status(&rng, virtio_status(&rng) | S_DRIVER_OK);
    for (unsigned i = 1; i <= 10; i++) {
        CHECK(fill(a, 1));
        CHECK(wait_hits(V, i));
    }
    CHECK_EQ(hits[V], 10);
    virtio_set_status(&rng, 0);
    msix_control(&rng, 0);
}

const struct test guest_tests[] = {T(fills), T(small_buffers), T(scattered), T(msix), {0, 0}};
