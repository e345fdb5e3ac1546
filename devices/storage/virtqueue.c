/*
 * virtqueue.c - split virtqueues (virtio 1.2, section 2.7), the device's side.
 *
 * The rings are the guest's memory and may change under us at any time: every field is read once
 * into a local, checked, and used from there. Bounds: an index is masked by the queue size, a chain
 * has at most VIRTQ_MAX_SEGMENTS descriptors (so a loop ends), an indirect table does not contain
 * another. What cannot be served breaks the device (virtio_break); nothing here trusts a length.
 *
 *     descriptor (16 bytes): addr u64 | len u32 | flags u16 | next u16
 *     available ring: flags u16 | idx u16 | ring[size] u16 | used_event u16
 *     used ring:      flags u16 | idx u16 | ring[size] {id u32, len u32} | avail_event u16
 */
#include "internal/virtio.h"
#include <endian.h>
#include <stdatomic.h>

enum { DESC_NEXT = 1, DESC_WRITE = 2, DESC_INDIRECT = 4 };
enum { AVAIL_NO_INTERRUPT = 1 };

struct descriptor {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};
_Static_assert(sizeof(struct descriptor) == 16, "as in the specification");

static bool read16(struct virtio_device *dev, uint64_t gpa, uint16_t *value)
{
    uint16_t raw;
    if (!pci_dma_read(&dev->pci, gpa, &raw, sizeof(raw)))
        return false;
    *value = le16toh(raw);
    return true;
}

static bool write16(struct virtio_device *dev, uint64_t gpa, uint16_t value)
{
    uint16_t raw = htole16(value);
    return pci_dma_write(&dev->pci, gpa, &raw, sizeof(raw));
}

static bool read_descriptor(struct virtio_device *dev, uint64_t table, unsigned index,
                            struct descriptor *desc)
{
    if (!pci_dma_read(&dev->pci, table + 16ull * index, desc, sizeof(*desc)))
        return false;
    desc->addr = le64toh(desc->addr);
    desc->len = le32toh(desc->len);
    desc->flags = le16toh(desc->flags);
    desc->next = le16toh(desc->next);
    return true;
}

/* ---- Taking chains ----------------------------------------------------------------------------
 */

/* Appends a buffer to the chain; the reason why not, or NULL. */
static const char *add_segment(struct virtq_chain *chain, const struct descriptor *desc)
{
    unsigned count = chain->out_count + chain->in_count;
    if (count == VIRTQ_MAX_SEGMENTS)
        return "descriptor chain too long or a loop";
    if (desc->addr + desc->len < desc->addr)
        return "buffer wraps around the address space";
    if (desc->flags & DESC_WRITE) {
        chain->in_count++;
        chain->in_len += desc->len;
    } else {
        if (chain->in_count)
            return "device-readable descriptor after a device-writable one";
        chain->out_count++;
        chain->out_len += desc->len;
    }
    chain->segments[count] = (struct virtq_segment){.gpa = desc->addr, .len = desc->len};
    return NULL;
}

/* Walks the chain that starts at `index` of a table with `size` entries; when it ends in an
 * indirect descriptor, goes on there once. Returns the reason for a malformed chain, or NULL. */
static const char *walk_chain(struct virtio_device *dev, const struct virtqueue *queue,
                              struct virtq_chain *chain)
{
    uint64_t table = queue->desc;
    uint32_t size = queue->size;
    uint32_t index = chain->head;
    bool indirect = false;
    for (unsigned steps = 0; steps <= VIRTQ_MAX_SEGMENTS; steps++) {
        struct descriptor desc;
        if (index >= size)
            return "descriptor index out of range";
        if (!read_descriptor(dev, table, index, &desc))
            return "descriptor table is not in memory";
        if (desc.flags & DESC_INDIRECT) {
            /* 2.7.5.3: never together with NEXT, never inside an indirect table */
            if (!virtio_has(dev, VIRTIO_F_INDIRECT_DESC) || indirect || (desc.flags & DESC_NEXT))
                return "indirect descriptor where none may be";
            if (desc.len == 0 || desc.len % 16 != 0 || desc.addr + desc.len < desc.addr)
                return "indirect table of a bad size";
            table = desc.addr;
            size = desc.len / 16;
            index = 0;
            indirect = true;
            continue;
        }
        const char *why = add_segment(chain, &desc);
        if (why)
            return why;
        if (!(desc.flags & DESC_NEXT))
            return NULL;
        index = desc.next;
    }
    return "descriptor chain too long or a loop";
}

/* Asks the driver to notify from the next chain on (2.7.10). */
static bool enable_notifications(struct virtio_device *dev, const struct virtqueue *queue)
{
    if (!virtio_has(dev, VIRTIO_F_EVENT_IDX))
        return true;
    return write16(dev, queue->used + 4 + 8ull * queue->size, queue->last_avail);
}

static enum virtq_result broken(struct virtio_device *dev, const char *why)
{
    virtio_break(dev, why);
    return VIRTQ_BROKEN;
}

enum virtq_result virtq_pop(struct virtio_device *dev, struct virtqueue *queue,
                            struct virtq_chain *chain)
{
    uint16_t idx, head;
    if (virtio_broken(dev)) /* by the chain before, as its device has found */
        return VIRTQ_BROKEN;
    if (!read16(dev, queue->avail + 2, &idx))
        return broken(dev, "available ring is not in memory");
    if (idx == queue->last_avail) {
        if (!enable_notifications(dev, queue))
            return broken(dev, "used ring is not in memory");
        /* The driver may have added a chain before it saw the new event index. */
        atomic_thread_fence(memory_order_seq_cst);
        if (!read16(dev, queue->avail + 2, &idx))
            return broken(dev, "available ring is not in memory");
        if (idx == queue->last_avail)
            return VIRTQ_EMPTY;
    }
    if ((uint16_t)(idx - queue->last_avail) > queue->size)
        return broken(dev, "available index runs ahead by more than the queue size");
    atomic_thread_fence(memory_order_acquire); /* the ring entry is read after the index */
    uint64_t entry = queue->avail + 4 + 2ull * (queue->last_avail % queue->size);
    if (!read16(dev, entry, &head))
        return broken(dev, "available ring is not in memory");
    chain->head = head;
    chain->out_count = chain->in_count = 0;
    chain->out_len = chain->in_len = 0;
    const char *why = walk_chain(dev, queue, chain);
    if (why)
        return broken(dev, why);
    queue->last_avail++;
    return VIRTQ_CHAIN;
}

/* ---- Giving them back -------------------------------------------------------------------------
 */

bool virtq_push(struct virtio_device *dev, struct virtqueue *queue, uint16_t head, uint32_t written)
{
    const uint32_t element[2] = {htole32(head), htole32(written)};
    uint64_t entry = queue->used + 4 + 8ull * (queue->used_idx % queue->size);
    bool ok = pci_dma_write(&dev->pci, entry, element, sizeof(element));
    atomic_thread_fence(memory_order_release); /* the element is there before the index says so */
    ok = ok && write16(dev, queue->used + 2, (uint16_t)(queue->used_idx + 1));
    if (!ok) {
        virtio_break(dev, "used ring is not in memory");
        return false;
    }
    queue->used_idx++;
    return true;
}

bool virtq_should_notify(struct virtio_device *dev, struct virtqueue *queue)
{
    uint16_t old = queue->signalled, new = queue->used_idx, event, flags;
    bool valid = queue->signalled_valid != 0;
    atomic_thread_fence(
        memory_order_seq_cst); /* the index is out before the driver's wish is read */
    if (!virtio_has(dev, VIRTIO_F_EVENT_IDX))
        return read16(dev, queue->avail, &flags) && !(flags & AVAIL_NO_INTERRUPT);
    if (!read16(dev, queue->avail + 4 + 2ull * queue->size, &event))
        return false;
    queue->signalled = new;
    queue->signalled_valid = 1;
    /* 2.7.7.2: notify when the index has just passed used_event, all modulo 2^16 */
    return !valid || (uint16_t)(new - event - 1) < (uint16_t)(new - old);
}

/* ---- Buffers ----------------------------------------------------------------------------------
 */

enum direction { FROM_GUEST, TO_GUEST };

static enum virtq_move transfer(struct virtio_device *dev, const struct virtq_segment *segments,
                                unsigned count, uint64_t offset, uint8_t *buf, size_t len,
                                enum direction dir)
{
    for (unsigned i = 0; i < count && len; i++) {
        if (offset >= segments[i].len) {
            offset -= segments[i].len;
            continue;
        }
        uint64_t gpa = segments[i].gpa + offset;
        size_t n = segments[i].len - (size_t)offset;
        if (n > len)
            n = len;
        bool ok = dir == FROM_GUEST ? pci_dma_read(&dev->pci, gpa, buf, n)
                                    : pci_dma_write(&dev->pci, gpa, buf, n);
        if (!ok)
            return pci_dma_possible(&dev->pci, gpa, n) ? VIRTQ_REFUSED : VIRTQ_NOT_MEMORY;
        buf += n;
        len -= n;
        offset = 0;
    }
    return len == 0 ? VIRTQ_MOVED : VIRTQ_NOT_MEMORY;
}

enum virtq_move virtq_read(struct virtio_device *dev, const struct virtq_segment *segments,
                           unsigned count, uint64_t offset, void *buf, size_t len)
{
    return transfer(dev, segments, count, offset, buf, len, FROM_GUEST);
}

enum virtq_move virtq_write(struct virtio_device *dev, const struct virtq_segment *segments,
                            unsigned count, uint64_t offset, const void *buf, size_t len)
{
    return transfer(dev, segments, count, offset, (uint8_t *)buf, len, TO_GUEST);
}

struct phys_loan *virtq_lend(struct virtio_device *dev, const struct virtq_segment *segments,
                             unsigned count, uint64_t offset, uint64_t len, bool to_memory)
{
    struct phys_loan *loan = pci_dma_lend(&dev->pci, to_memory, count);
    for (unsigned i = 0; loan && i < count && len; i++) {
        if (offset >= segments[i].len) {
            offset -= segments[i].len;
            continue;
        }
        uint64_t n = segments[i].len - offset;
        if (n > len)
            n = len;
        if (!phys_loan_add(loan, segments[i].gpa + offset, n))
            break;
        len -= n;
        offset = 0;
    }
    if (!len)
        return loan;
    phys_loan_end(loan);
    return NULL;
}
