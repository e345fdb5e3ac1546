/*
 * virtio.h - a small virtio driver over PCI, modern and legacy, for one device with one queue at a
 * time, number 0 unless the test says otherwise (virtio 1.2, 2.7 split queues, 4.1 PCI transport).
 *
 *     struct virtio d;
 *     if (virtio_open(&d, VIRTIO_BLK, 0) && virtio_start(&d, MODERN, 0)) {
 *         struct part parts[] = {{&header, 16, OUT}, {sector, 512, IN}, {&status, 1, IN}};
 *         uint32_t written = virtio_do(&d, parts, 3);
 *     }
 */
#ifndef GUEST_VIRTIO_H
#define GUEST_VIRTIO_H

#include "pci.h"

enum { VIRTIO_BLK = 0x10011af4, VIRTIO_RNG = 0x10051af4, VIRTIO_SCSI = 0x10041af4 };
enum { S_ACKNOWLEDGE = 1, S_DRIVER = 2, S_DRIVER_OK = 4, S_FEATURES_OK = 8, S_NEEDS_RESET = 64 };
#define F_INDIRECT_DESC (1ull << 28)
#define F_EVENT_IDX     (1ull << 29)
#define F_VERSION_1     (1ull << 32)
enum { DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4 };
enum { NO_INTERRUPT = 1, NO_VECTOR = 0xffff, NO_ANSWER = 0xffffffff };
/* The common configuration structure (4.1.4.3). */
enum {
    C_DEVICE_FEATURE_SELECT = 0x00,
    C_DEVICE_FEATURE = 0x04,
    C_DRIVER_FEATURE_SELECT = 0x08,
    C_DRIVER_FEATURE = 0x0c,
    C_CONFIG_VECTOR = 0x10,
    C_NUM_QUEUES = 0x12,
    C_STATUS = 0x14,
    C_GENERATION = 0x15,
    C_QUEUE_SELECT = 0x16,
    C_QUEUE_SIZE = 0x18,
    C_QUEUE_VECTOR = 0x1a,
    C_QUEUE_ENABLE = 0x1c,
    C_QUEUE_NOTIFY_OFF = 0x1e,
    C_QUEUE_DESC = 0x20,
    C_QUEUE_DRIVER = 0x28,
    C_QUEUE_DEVICE = 0x30,
};

struct vdesc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};
struct vavail {
    uint16_t flags, idx, ring[];
};
struct vused {
    uint16_t flags, idx;
    struct {
        uint32_t id, len;
    } ring[];
};

enum interface { MODERN, LEGACY };
struct virtio {
    unsigned devfn;
    enum interface interface;
    uint16_t io;                          /* BAR 0 */
    uint64_t common, notify, isr, config; /* modern structures */
    uint32_t notify_multiplier, window;   /* window: the capability of type 5 */
    unsigned queue, size;
    volatile struct vdesc *desc;
    volatile struct vavail *avail;
    volatile struct vused *used;
    volatile uint16_t *used_event;
    uint16_t avail_idx, used_seen;
};

/* ---- Finding ------------------------------------------------------------------------------------
 */

/* The device of this id from slot `from` on, its structures found and decoding on. */
UNUSED_OK bool virtio_open(struct virtio *d, uint32_t id, unsigned from)
{
    memset(d, 0, sizeof(*d));
    d->devfn = pci_find(id, from);
    if (d->devfn == NO_DEVICE)
        return false;
    pci_write16(d->devfn, PCI_COMMAND, COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER);
    d->io = (uint16_t)pci_bar(d->devfn, 0);
    for (unsigned at = pci_capability(d->devfn, 9, 0); at; at = pci_capability(d->devfn, 9, at)) {
        unsigned type = pci_read8(d->devfn, at + 3);
        uint64_t where =
            pci_bar(d->devfn, pci_read8(d->devfn, at + 4)) + pci_read32(d->devfn, at + 8);
        if (type == 1)
            d->common = where;
        else if (type == 2)
            d->notify = where, d->notify_multiplier = pci_read32(d->devfn, at + 16);
        else if (type == 3)
            d->isr = where;
        else if (type == 4)
            d->config = where;
        else if (type == 5)
            d->window = at;
    }
    return true;
}

/* ---- Registers ----------------------------------------------------------------------------------
 */

UNUSED_OK uint8_t c_read8(const struct virtio *d, unsigned reg)
{
    return *(volatile uint8_t *)(uintptr_t)(d->common + reg);
}
UNUSED_OK uint16_t c_read16(const struct virtio *d, unsigned reg)
{
    return *(volatile uint16_t *)(uintptr_t)(d->common + reg);
}
UNUSED_OK uint32_t c_read32(const struct virtio *d, unsigned reg)
{
    return mmio_read32((uintptr_t)d->common + reg);
}
UNUSED_OK void c_write8(const struct virtio *d, unsigned reg, uint8_t v)
{
    *(volatile uint8_t *)(uintptr_t)(d->common + reg) = v;
}
UNUSED_OK void c_write16(const struct virtio *d, unsigned reg, uint16_t v)
{
    *(volatile uint16_t *)(uintptr_t)(d->common + reg) = v;
}
UNUSED_OK void c_write32(const struct virtio *d, unsigned reg, uint32_t v)
{
    mmio_write32((uintptr_t)d->common + reg, v);
}
UNUSED_OK void c_write64(const struct virtio *d, unsigned reg, uint64_t v)
{
    c_write32(d, reg, (uint32_t)v);
    c_write32(d, reg + 4, (uint32_t)(v >> 32));
}

UNUSED_OK uint8_t virtio_status(const struct virtio *d)
{
    return d->interface == MODERN ? c_read8(d, C_STATUS) : inb(d->io + 18);
}
UNUSED_OK void virtio_set_status(const struct virtio *d, uint8_t v)
{
    if (d->interface == MODERN)
        c_write8(d, C_STATUS, v);
    else
        outb(d->io + 18, v);
}
UNUSED_OK uint8_t virtio_isr(const struct virtio *d)
{
    return d->interface == MODERN ? *(volatile uint8_t *)(uintptr_t)d->isr : inb(d->io + 19);
}

UNUSED_OK bool msix_on(const struct virtio *d)
{
    unsigned cap = pci_capability(d->devfn, 0x11, 0);
    return cap && pci_read16(d->devfn, cap + 2) & 0x8000;
}
UNUSED_OK uint8_t virtio_config8(const struct virtio *d, unsigned offset)
{
    if (d->interface == MODERN)
        return *(volatile uint8_t *)(uintptr_t)(d->config + offset);
    return inb((uint16_t)(d->io + (msix_on(d) ? 24 : 20) + offset));
}
UNUSED_OK uint32_t virtio_config32(const struct virtio *d, unsigned offset)
{
    if (d->interface == MODERN)
        return mmio_read32((uintptr_t)d->config + offset);
    return inl((uint16_t)(d->io + (msix_on(d) ? 24 : 20) + offset));
}

UNUSED_OK uint64_t virtio_offered(const struct virtio *d)
{
    if (d->interface == LEGACY)
        return inl(d->io);
    c_write32(d, C_DEVICE_FEATURE_SELECT, 1);
    uint64_t high = c_read32(d, C_DEVICE_FEATURE);
    c_write32(d, C_DEVICE_FEATURE_SELECT, 0);
    return high << 32 | c_read32(d, C_DEVICE_FEATURE);
}
UNUSED_OK void virtio_accept(const struct virtio *d, uint64_t features)
{
    if (d->interface == LEGACY) {
        outl(d->io + 4, (uint32_t)features);
        return;
    }
    for (unsigned i = 0; i < 2; i++) {
        c_write32(d, C_DRIVER_FEATURE_SELECT, i);
        c_write32(d, C_DRIVER_FEATURE, (uint32_t)(features >> 32 * i));
    }
}

/* ---- Start --------------------------------------------------------------------------------------
 */

/* One area as legacy queues of up to 256 entries want it; modern ones may, too. */
static uint8_t queue_memory[3 * 4096] __attribute__((aligned(4096)));

UNUSED_OK void virtio_place(struct virtio *d, unsigned size)
{
    memset(queue_memory, 0, sizeof(queue_memory));
    d->size = size;
    d->desc = (void *)queue_memory;
    d->avail = (void *)(queue_memory + 16 * size);
    d->used_event = &d->avail->ring[size];
    uintptr_t used = ((uintptr_t)(d->used_event + 1) + 4095) & ~4095ul;
    d->used = (void *)used;
    d->avail_idx = d->used_seen = 0;
}

UNUSED_OK void virtio_set_queue(struct virtio *d)
{
    if (d->interface == LEGACY) {
        outw(d->io + 14, (uint16_t)d->queue);
        outl(d->io + 8, (uint32_t)((uintptr_t)d->desc >> 12));
        return;
    }
    c_write16(d, C_QUEUE_SELECT, (uint16_t)d->queue);
    c_write16(d, C_QUEUE_SIZE, (uint16_t)d->size);
    c_write64(d, C_QUEUE_DESC, (uintptr_t)d->desc);
    c_write64(d, C_QUEUE_DRIVER, (uintptr_t)d->avail);
    c_write64(d, C_QUEUE_DEVICE, (uintptr_t)d->used);
    c_write16(d, C_QUEUE_ENABLE, 1);
}

UNUSED_OK unsigned virtio_queue_max(struct virtio *d)
{
    if (d->interface == LEGACY) {
        outw(d->io + 14, (uint16_t)d->queue);
        return inw(d->io + 12);
    }
    c_write16(d, C_QUEUE_SELECT, (uint16_t)d->queue);
    return c_read16(d, C_QUEUE_SIZE);
}

/* Reset and features, up to but without DRIVER_OK and queues (3.1.1). */
UNUSED_OK bool virtio_negotiate(struct virtio *d, enum interface interface, uint64_t features)
{
    d->interface = interface;
    virtio_set_status(d, 0);
    for (uint64_t end = rdtsc() + FOREVER; virtio_status(d) && rdtsc() < end;)
        asm volatile("pause");
    virtio_set_status(d, S_ACKNOWLEDGE);
    virtio_set_status(d, S_ACKNOWLEDGE | S_DRIVER);
    if (interface == LEGACY) {
        virtio_accept(d, features);
        return true;
    }
    virtio_accept(d, features | F_VERSION_1);
    virtio_set_status(d, S_ACKNOWLEDGE | S_DRIVER | S_FEATURES_OK);
    return virtio_status(d) & S_FEATURES_OK;
}

UNUSED_OK bool virtio_start(struct virtio *d, enum interface interface, uint64_t features)
{
    if (!virtio_negotiate(d, interface, features))
        return false;
    virtio_place(d, virtio_queue_max(d));
    virtio_set_queue(d);
    virtio_set_status(d, virtio_status(d) | S_DRIVER_OK);
    return true;
}

/* ---- Requests -----------------------------------------------------------------------------------
 */

enum direction { OUT, IN }; /* as the driver sees it */
struct part {
    const volatile void *at;
    uint32_t len;
    enum direction direction;
};

UNUSED_OK void virtio_desc(struct virtio *d, unsigned i, uint64_t addr, uint32_t len,
                           unsigned flags, unsigned next)
{
    d->desc[i] = (struct vdesc){addr, len, (uint16_t)flags, (uint16_t)next};
}

/* A chain from descriptor `first` on. */
UNUSED_OK void virtio_chain(struct virtio *d, unsigned first, const struct part *parts, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        virtio_desc(d, first + i, (uintptr_t)parts[i].at, parts[i].len,
                    (parts[i].direction == IN ? DESC_WRITE : 0) | (i + 1 < n ? DESC_NEXT : 0),
                    first + i + 1);
}

UNUSED_OK void virtio_available(struct virtio *d, unsigned head)
{
    d->avail->ring[d->avail_idx % d->size] = (uint16_t)head;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    d->avail->idx = ++d->avail_idx;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

UNUSED_OK void virtio_kick(struct virtio *d)
{
    if (d->interface == LEGACY) {
        outw(d->io + 16, (uint16_t)d->queue);
        return;
    }
    c_write16(d, C_QUEUE_SELECT, (uint16_t)d->queue);
    uint64_t at = d->notify + d->notify_multiplier * c_read16(d, C_QUEUE_NOTIFY_OFF);
    *(volatile uint16_t *)(uintptr_t)at = (uint16_t)d->queue;
}

/* Waits for one used element; *written has its length. Its head, or NO_ANSWER. */
UNUSED_OK uint32_t virtio_wait(struct virtio *d, uint32_t *written)
{
    uint64_t end = rdtsc() + FOREVER;
    while (d->used->idx == d->used_seen)
        if (rdtsc() > end || (virtio_status(d) & S_NEEDS_RESET))
            return NO_ANSWER;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    unsigned i = d->used_seen++ % d->size;
    *written = d->used->ring[i].len;
    return d->used->ring[i].id;
}

/* One request, alone, from start to end: how many bytes the device wrote, or NO_ANSWER. */
UNUSED_OK uint32_t virtio_do(struct virtio *d, const struct part *parts, unsigned n)
{
    uint32_t written = 0;
    virtio_chain(d, 0, parts, n);
    virtio_available(d, 0);
    virtio_kick(d);
    return virtio_wait(d, &written) == 0 ? written : NO_ANSWER;
}

/* ---- Interrupts ---------------------------------------------------------------------------------
 */

/* MSI-X entry n: to this processor, as `vector`. The table is at the offset that the capability
 * says. */
UNUSED_OK volatile uint32_t *msix_entry(const struct virtio *d, unsigned n)
{
    unsigned cap = pci_capability(d->devfn, 0x11, 0);
    uint32_t table = pci_read32(d->devfn, cap + 4);
    return (void *)(uintptr_t)(pci_bar(d->devfn, table & 7) + (table & ~7u) + 16 * n);
}
UNUSED_OK bool msix_pending(const struct virtio *d, unsigned n)
{
    unsigned cap = pci_capability(d->devfn, 0x11, 0);
    uint32_t pba = pci_read32(d->devfn, cap + 8);
    return *(volatile uint32_t *)(uintptr_t)(pci_bar(d->devfn, pba & 7) + (pba & ~7u)) >> n & 1;
}
/* Enable and function mask, bits 15 and 14 of message control. */
UNUSED_OK void msix_control(const struct virtio *d, uint16_t bits)
{
    unsigned cap = pci_capability(d->devfn, 0x11, 0);
    pci_write16(d->devfn, cap + 2, (uint16_t)((pci_read16(d->devfn, cap + 2) & 0x3fff) | bits));
}
enum { MSIX_ENABLE = 0x8000, MSIX_MASK_ALL = 0x4000 };
UNUSED_OK void msix_set(const struct virtio *d, unsigned n, unsigned vector, bool masked)
{
    volatile uint32_t *entry = msix_entry(d, n);
    entry[0] = 0xfee00000;
    entry[1] = 0;
    entry[2] = vector;
    entry[3] = masked;
}

#endif
