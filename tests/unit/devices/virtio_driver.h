/*
 * virtio_driver.h - a small virtio driver in the place of a guest: finds the structures through
 * configuration space, negotiates, and puts chains on one queue whose areas lie in the board's RAM.
 * Everything goes through ports, MMIO and RAM, as a guest's accesses would.
 */
#ifndef TEST_VIRTIO_DRIVER_H
#define TEST_VIRTIO_DRIVER_H

#include "internal/virtio.h"
#include "pci_board.h"
#include <sched.h>

enum { DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4 };
enum interface { MODERN, LEGACY };

/* Where the driver keeps its things: areas as a legacy queue of up to 256 entries wants them. */
#define QUEUE_AT  0x100000ull
#define BUFFER_AT 0x200000ull

struct driver {
    struct pci_device *pci;
    enum interface interface;
    uint16_t io;                          /* BAR 0 */
    uint64_t common, notify, isr, config; /* modern structures */
    uint32_t notify_multiplier, notify_off;
    uint64_t features;
    unsigned queue; /* the one that it uses: 0 unless the test says otherwise */
    unsigned size;
    uint64_t desc, avail, used;
    uint16_t avail_idx, used_seen;
};

static inline uint64_t bar_address(const struct driver *d, unsigned bar)
{
    uint64_t low = config_in(d->pci->devfn, PCI_BAR0 + 4 * bar, 4);
    if (low & 1)
        return low & ~3ull;
    if ((low & 6) == 4)
        low |= (uint64_t)config_in(d->pci->devfn, PCI_BAR0 + 4 * bar + 4, 4) << 32;
    return low & ~0xfull;
}

/* Follows the capability list (4.1.4). */
static inline void driver_find(struct driver *d, struct pci_device *pci)
{
    *d = (struct driver){.pci = pci};
    unsigned devfn = pci->devfn, seen = 0;
    config_out(devfn, PCI_COMMAND, 2, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    d->io = (uint16_t)bar_address(d, 0);
    for (unsigned at = config_in(devfn, PCI_CAPABILITY_LIST, 1); at;
         at = config_in(devfn, at + 1, 1)) {
        if (config_in(devfn, at, 1) != PCI_CAP_ID_VENDOR)
            continue;
        unsigned type = config_in(devfn, at + 3, 1);
        uint64_t where = bar_address(d, config_in(devfn, at + 4, 1)) + config_in(devfn, at + 8, 4);
        seen |= 1u << type;
        if (type == 1)
            d->common = where;
        else if (type == 2)
            d->notify = where, d->notify_multiplier = config_in(devfn, at + 16, 4);
        else if (type == 3)
            d->isr = where;
        else if (type == 4)
            d->config = where;
    }
    ck_assert_msg((seen & ~(1u << 4)) == 0x2e, "capabilities %#x", seen);
}

/* ---- Registers ---------------------------------------------------------------------------------
 */

static inline uint8_t get_status(const struct driver *d)
{
    return (uint8_t)(d->interface == MODERN ? mem_in(d->common + 0x14, 1) : inp(d->io + 18, 1));
}

static inline void set_status(const struct driver *d, uint8_t status)
{
    if (d->interface == MODERN)
        mem_out(d->common + 0x14, 1, status);
    else
        outp(d->io + 18, 1, status);
}

static inline uint8_t get_isr(const struct driver *d)
{
    return (uint8_t)(d->interface == MODERN ? mem_in(d->isr, 1) : inp(d->io + 19, 1));
}

/* Device-specific configuration; MSI-X is off. */
static inline uint64_t get_config(const struct driver *d, unsigned offset, unsigned size)
{
    return d->interface == MODERN ? mem_in(d->config + offset, size)
                                  : inp((uint16_t)(d->io + 20 + offset), size);
}

static inline void set_config(const struct driver *d, unsigned offset, unsigned size, uint64_t v)
{
    if (d->interface == MODERN)
        mem_out(d->config + offset, size, v);
    else
        outp((uint16_t)(d->io + 20 + offset), size, (uint32_t)v);
}

static inline uint64_t offered_features(const struct driver *d)
{
    if (d->interface == LEGACY)
        return inp(d->io, 4);
    uint64_t features = 0;
    for (unsigned i = 0; i < 2; i++) {
        mem_out(d->common, 4, i);
        features |= mem_in(d->common + 4, 4) << 32 * i;
    }
    return features;
}

static inline void accept_features(struct driver *d, uint64_t features)
{
    d->features = features;
    if (d->interface == LEGACY) {
        outp(d->io + 4, 4, (uint32_t)features);
        return;
    }
    for (unsigned i = 0; i < 2; i++) {
        mem_out(d->common + 8, 4, i);
        mem_out(d->common + 12, 4, features >> 32 * i & 0xffffffff);
    }
}

/* ---- The queue
 * -----------------------------------------------------------------------------------
 */

static inline void place_queue(struct driver *d, unsigned size)
{
    d->size = size;
    d->desc = QUEUE_AT + 0x4000ull * d->queue;
    d->avail = d->desc + 16ull * size;
    d->used = (d->avail + 4 + 2ull * size + 2 + 4095) & ~4095ull;
    d->avail_idx = d->used_seen = 0;
    for (uint64_t at = d->desc; at < d->used + 6 + 8ull * size; at += 2)
        mem_out(at, 2, 0);
}

static inline void set_queue(struct driver *d)
{
    if (d->interface == LEGACY) {
        outp(d->io + 14, 2, d->queue);
        outp(d->io + 8, 4, (uint32_t)(d->desc >> 12));
        return;
    }
    mem_out(d->common + 0x16, 2, d->queue);
    mem_out(d->common + 0x18, 2, d->size);
    mem_out(d->common + 0x20, 8, d->desc);
    mem_out(d->common + 0x28, 4, d->avail & 0xffffffff);
    mem_out(d->common + 0x2c, 4, d->avail >> 32);
    mem_out(d->common + 0x30, 8, d->used);
    d->notify_off = (uint32_t)mem_in(d->common + 0x1e, 2);
    mem_out(d->common + 0x1c, 2, 1);
}

static inline unsigned queue_max(const struct driver *d)
{
    if (d->interface == LEGACY) {
        outp(d->io + 14, 2, d->queue);
        return inp(d->io + 12, 2);
    }
    mem_out(d->common + 0x16, 2, d->queue);
    return (unsigned)mem_in(d->common + 0x18, 2);
}

/* The whole of 3.1.1 with the given features; a queue of `size` (legacy: the device's). */
static inline void driver_start(struct driver *d, enum interface interface, uint64_t features,
                                unsigned size)
{
    d->interface = interface;
    set_status(d, 0);
    ck_assert_uint_eq(get_status(d), 0);
    set_status(d, VIRTIO_ACKNOWLEDGE);
    set_status(d, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
    uint8_t ready = VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_DRIVER_OK;
    if (interface == MODERN) {
        accept_features(d, features | VIRTIO_F_VERSION_1);
        set_status(d, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK);
        ck_assert_uint_ne(get_status(d) & VIRTIO_FEATURES_OK, 0);
        ready |= VIRTIO_FEATURES_OK;
    } else {
        accept_features(d, features);
        size = queue_max(d);
    }
    place_queue(d, size);
    set_queue(d);
    set_status(d, ready);
}

static inline void set_desc(const struct driver *d, unsigned i, uint64_t addr, uint32_t len,
                            uint16_t flags, uint16_t next)
{
    uint64_t at = d->desc + 16 * i;
    mem_out(at, 8, addr);
    mem_out(at + 8, 4, len);
    mem_out(at + 12, 2, flags);
    mem_out(at + 14, 2, next);
}

static inline void make_available(struct driver *d, uint16_t head)
{
    mem_out(d->avail + 4 + 2ull * (d->avail_idx % d->size), 2, head);
    mem_out(d->avail + 2, 2, ++d->avail_idx);
}

static inline void notify(const struct driver *d)
{
    if (d->interface == MODERN)
        mem_out(d->notify + d->notify_off * d->notify_multiplier, 2, d->queue);
    else
        outp(d->io + 16, 2, d->queue);
}

static inline uint16_t used_idx(const struct driver *d)
{
    return (uint16_t)mem_in(d->used + 2, 2);
}

/* The next element of the used ring, waiting for it; returns its head. */
static inline uint32_t next_used(struct driver *d, uint32_t *written)
{
    while (used_idx(d) == d->used_seen) {
        ck_assert_msg(!(get_status(d) & VIRTIO_NEEDS_RESET), "the device broke");
        event_poll(board.queue);
        sched_yield(); /* to the worker */
    }
    uint64_t element = d->used + 4 + 8ull * (d->used_seen++ % d->size);
    *written = (uint32_t)mem_in(element + 4, 4);
    return (uint32_t)mem_in(element, 4);
}

static inline void fill_ram(uint64_t gpa, uint8_t value, size_t len)
{
    for (size_t i = 0; i < len; i++)
        mem_out(gpa + i, 1, value);
}

#endif
