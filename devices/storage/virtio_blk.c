/*
 * virtio_blk.c - the block device of virtio 1.2, section 5.2, in front of a disk image.
 *
 * A request lives from the chain's arrival to its push on the used ring. Data in whole pages that
 * nobody watches is lent to the image, which reads or writes the guest's memory itself (phys.h,
 * "Lending"). All other data moves through bounce buffers, BLK_CHUNK bytes each: read from the
 * guest before a write is submitted, written to the guest when a read completes, both in the I/O
 * thread and through phys_read()/phys_write(), so that protection and code invalidation see every
 * byte. A long request has four chunks at the image at a time, so that some are there while another
 * is copied, and ends when all have come back. Memory in use is bounded by the queue's size times
 * four BLK_CHUNKs whatever the guest asks for. Data that a protection rule keeps from the device
 * fails its request; data where no memory is breaks the device.
 *
 * A reset waits for what is lent. It forgets the requests in flight but not their effects: until
 * the last of these "stale" ones has completed, nothing new is taken, so that an old write never
 * lands after a newer one.
 *
 * Write cache (5.2.5.2): with CONFIG_WCE the driver switches the image's own. A driver that has
 * negotiated neither that nor FLUSH cannot flush: each of its writes is followed by a flush.
 */
#include "internal/blockdev.h"
#include "internal/error.h"
#include "internal/virtio.h"
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#define SECTOR_SIZE   512u
#define BLK_QUEUE     256
#define BLK_CHUNK     (256u << 10)
#define BLK_CHUNKS    4
#define BLK_LENT_MAX  (4u << 20) /* a rule or a reset may have to wait for it */
#define BLK_PAGE      4096u
#define BLK_ID_BYTES  20
#define BLK_MAX_ERASE ((1u << 22) - 1) /* sectors of one discard or write-zeroes: 2 GiB */

enum {
    BLK_F_SEG_MAX = 1 << 2,
    BLK_F_GEOMETRY = 1 << 4,
    BLK_F_RO = 1 << 5,
    BLK_F_BLK_SIZE = 1 << 6,
    BLK_F_FLUSH = 1 << 9,
    BLK_F_TOPOLOGY = 1 << 10,
    BLK_F_CONFIG_WCE = 1 << 11,
    BLK_F_DISCARD = 1 << 13,
    BLK_F_WRITE_ZEROES = 1 << 14,
};
enum {
    BLK_T_IN = 0,
    BLK_T_OUT = 1,
    BLK_T_FLUSH = 4,
    BLK_T_GET_ID = 8,
    BLK_T_DISCARD = 11,
    BLK_T_WRITE_ZEROES = 13,
};
enum { BLK_S_OK = 0, BLK_S_IOERR = 1, BLK_S_UNSUPP = 2 };
enum { ERASE_UNMAP = 1 };

/* 5.2.4, little-endian */
struct blk_config {
    uint64_t capacity; /* sectors */
    uint32_t size_max, seg_max;
    uint16_t cylinders;
    uint8_t heads, sectors;
    uint32_t blk_size;
    uint8_t physical_block_exp, alignment_offset;
    uint16_t min_io_size;
    uint32_t opt_io_size;
    uint8_t writeback, unused0;
    uint16_t num_queues;
    uint32_t max_discard_sectors, max_discard_seg, discard_sector_alignment;
    uint32_t max_write_zeroes_sectors, max_write_zeroes_seg;
    uint8_t write_zeroes_may_unmap, unused1[3];
};
_Static_assert(sizeof(struct blk_config) == 64, "60 bytes and padding to the next uint64_t");
#define BLK_CONFIG_SIZE 60

struct blk_header {
    uint32_t type, reserved;
    uint64_t sector;
};
struct blk_erase {
    uint64_t sector;
    uint32_t num_sectors, flags;
};

/* A piece of a request's data that is at the image; a flush or an erasure uses the first. */
struct blk_chunk {
    struct blockdev_request io;
    struct iovec iov; /* its bounce buffer */
    struct blk_request *request;
};

struct blk_request {
    struct blk_chunk chunks[BLK_CHUNKS];
    struct virtio_blk *disk; /* NULL: the device is gone, only free this */
    struct blk_request *prev, *next;
    bool stale;             /* taken before a reset */
    unsigned at_image;      /* chunks */
    bool lent;              /* chunks[0] has all of the data */
    struct phys_loan *loan; /* then; from submission on the worker's */
    uint16_t head;
    uint64_t position;     /* byte on the disk where data begins */
    uint64_t len, given;   /* bytes of data, and how many of them have gone to the image */
    uint64_t in_len;       /* bytes of all device-writable segments; the last is the status */
    bool failed;           /* at the image */
    enum virtq_move moved; /* not so: to or from the guest */
    unsigned out_count, in_count;
    struct virtq_segment segments[];
};

struct virtio_blk {
    struct virtio_device virtio;
    struct blockdev *image;
    struct blk_request *requests; /* all in flight */
    unsigned in_flight, stale;
    uint8_t writeback; /* the configuration field: has the disk a volatile write cache? */
    char id[BLK_ID_BYTES];
};

static const struct field blk_fields[] = {
    VIRTIO_DEVICE_FIELDS(struct virtio_blk, virtio),
    VIRTQUEUE_FIELDS(struct virtio_blk, virtio.queues[0]),
    FIELD(struct virtio_blk, writeback, FIELD_U8, 1),
};
static const struct state_desc blk_state = STATE_DESC("virtio-blk", 1, blk_fields);

static void chunk_done(struct blockdev_request *io);

/* ---- Request records --------------------------------------------------------------------------
 */

static struct blk_request *request_new(struct virtio_blk *disk, const struct virtq_chain *chain)
{
    unsigned count = chain->out_count + chain->in_count;
    struct blk_request *r = calloc(1, sizeof(*r) + count * sizeof(r->segments[0]));
    if (!r)
        return NULL;
    r->disk = disk;
    r->head = chain->head;
    r->out_count = chain->out_count;
    r->in_count = chain->in_count;
    r->in_len = chain->in_len;
    memcpy(r->segments, chain->segments, count * sizeof(r->segments[0]));
    for (unsigned i = 0; i < BLK_CHUNKS; i++) {
        r->chunks[i].request = r;
        r->chunks[i].io.done = chunk_done;
        r->chunks[i].io.opaque = &r->chunks[i];
    }
    r->next = disk->requests;
    if (r->next)
        r->next->prev = r;
    disk->requests = r;
    disk->in_flight++;
    return r;
}

static void request_free(struct blk_request *r)
{
    struct virtio_blk *disk = r->disk;
    if (disk) {
        if (r->next)
            r->next->prev = r->prev;
        if (r->prev)
            r->prev->next = r->next;
        else
            disk->requests = r->next;
        disk->in_flight--;
        disk->stale -= r->stale;
    }
    for (unsigned i = 0; i < BLK_CHUNKS; i++)
        free(r->chunks[i].iov.iov_base);
    free(r);
}

/* ---- Completion -------------------------------------------------------------------------------
 */

/* Writes the status byte and gives the chain back; `data` bytes were written before it. */
static void finish(struct blk_request *r, uint8_t status, uint64_t data)
{
    struct virtio_device *dev = &r->disk->virtio;
    struct virtqueue *queue = &dev->queues[0];
    /* 2.7.8.2: `written` may not claim bytes before the status that were not written. */
    uint32_t written = data + 1 == r->in_len ? (uint32_t)r->in_len : (uint32_t)data;
    if (virtio_broken(dev)) {
        request_free(r);
        return;
    }
    if (virtq_write(dev, r->segments + r->out_count, r->in_count, r->in_len - 1, &status, 1) !=
        VIRTQ_MOVED)
        virtio_break(dev, "block request's status byte is not in memory");
    else if (virtq_push(dev, queue, r->head, written))
        virtio_notify_queue(dev, queue);
    request_free(r);
}

/* Something of the request could not be read or written. */
static void not_moved(struct blk_request *r, enum virtq_move why)
{
    if (why == VIRTQ_REFUSED) {
        finish(r, BLK_S_IOERR, 0);
    } else {
        virtio_break(&r->disk->virtio, "part of a block request is not in memory");
        request_free(r);
    }
}

/* ---- Data -------------------------------------------------------------------------------------
 */

static void submit(struct blk_chunk *c, enum blockdev_op op, uint64_t offset, uint64_t len,
                   const struct iovec *iov, unsigned iovcnt)
{
    c->io.op = op;
    c->io.offset = offset;
    c->io.len = len;
    c->io.iov = iov;
    c->io.iovcnt = (int)iovcnt;
    c->request->at_image++;
    blockdev_submit(c->request->disk->image, &c->io);
}

/* Must the device flush after each write, because the driver cannot? */
static bool write_through(const struct virtio_blk *disk)
{
    return blockdev_write_cache(disk->image) && !virtio_has(&disk->virtio, BLK_F_CONFIG_WCE) &&
           !virtio_has(&disk->virtio, BLK_F_FLUSH);
}

/* In a worker's thread. */
static void give_back(struct blockdev_request *io)
{
    struct blk_chunk *c = io->opaque;
    phys_loan_end(c->request->loan);
    io->let_go = NULL;
}

/* All of the data at once, if it may be lent. */
static bool submit_lent(struct blk_request *r, enum blockdev_op op)
{
    struct blk_chunk *c = &r->chunks[0];
    struct virtio_device *dev = &r->disk->virtio;
    if (!r->len || r->len > BLK_LENT_MAX || !blockdev_may_lend(r->disk->image, op, r->position))
        return false;
    r->loan =
        op == BLOCKDEV_READ
            ? virtq_lend(dev, r->segments + r->out_count, r->in_count, 0, r->len, true)
            : virtq_lend(dev, r->segments, r->out_count, sizeof(struct blk_header), r->len, false);
    if (!r->loan)
        return false;
    r->lent = true;
    r->given = r->len;
    c->io.let_go = give_back;
    submit(c, op, r->position, r->len, r->loan->iov, r->loan->count);
    return true;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* The next of the request's data, unless it has failed, go to the image by way of c's buffer. */
static void next_chunk(struct blk_chunk *c, enum blockdev_op op)
{
    struct blk_request *r = c->request;
    const uint64_t at = r->given, len = least(r->len - at, BLK_CHUNK);
    if (!len || r->failed || r->moved != VIRTQ_MOVED)
        return;
    if (op == BLOCKDEV_WRITE)
        r->moved = virtq_read(&r->disk->virtio, r->segments, r->out_count,
                              sizeof(struct blk_header) + at, c->iov.iov_base, len);
    if (r->moved != VIRTQ_MOVED)
        return;
    c->iov.iov_len = len;
    r->given += len;
    submit(c, op, r->position + at, len, &c->iov, 1);
}

/* What the image has read. */
static void pass_on(struct blk_chunk *c)
{
    struct blk_request *r = c->request;
    if (!r->failed && r->moved == VIRTQ_MOVED)
        r->moved = virtq_write(&r->disk->virtio, r->segments + r->out_count, r->in_count,
                               c->io.offset - r->position, c->iov.iov_base, c->io.len);
}

/* Nothing of it is at the image any more. */
static void all_done(struct blk_request *r, enum blockdev_op op)
{
    bool flush = op != BLOCKDEV_READ && op != BLOCKDEV_FLUSH && write_through(r->disk);
    if (r->failed)
        finish(r, BLK_S_IOERR, 0);
    else if (r->moved != VIRTQ_MOVED)
        not_moved(r, r->moved);
    else if (flush)
        submit(&r->chunks[0], BLOCKDEV_FLUSH, 0, 0, NULL, 0);
    else
        finish(r, BLK_S_OK, op == BLOCKDEV_READ ? r->len : 0);
}

/* The image has done what c->io asked for. I/O thread, machine lock held. */
static void chunk_done(struct blockdev_request *io)
{
    struct blk_chunk *c = io->opaque;
    struct blk_request *r = c->request;
    struct virtio_blk *disk = r->disk;
    bool was_full = disk && (disk->stale || disk->in_flight >= disk->virtio.queues[0].size);
    bool last = --r->at_image == 0;
    if (!disk || r->stale || virtio_broken(&disk->virtio)) {
        if (last)
            request_free(r);
    } else {
        r->failed |= io->result < 0;
        if (io->op == BLOCKDEV_READ && !r->lent)
            pass_on(c);
        if (io->op == BLOCKDEV_READ || io->op == BLOCKDEV_WRITE)
            next_chunk(c, io->op);
        if (!r->at_image)
            all_done(r, io->op);
    }
    if (was_full && !disk->stale)
        virtio_kick(&disk->virtio, 0); /* chains may have been left waiting */
}

/* ---- Requests ---------------------------------------------------------------------------------
 */

static bool in_bounds(const struct virtio_blk *disk, uint64_t sector, uint64_t sectors)
{
    uint64_t capacity = blockdev_size(disk->image) / SECTOR_SIZE;
    return sector <= capacity && sectors <= capacity - sector;
}

/* Whole pages, which the image needs not copy once more for direct I/O. */
static void *buffer(uint64_t len)
{
    return aligned_alloc(BLK_PAGE, (len + BLK_PAGE - 1) & ~(uint64_t)(BLK_PAGE - 1));
}

static void start_data(struct blk_request *r, enum blockdev_op op, uint64_t sector, uint64_t len)
{
    struct virtio_blk *disk = r->disk;
    bool refused = op == BLOCKDEV_WRITE && blockdev_read_only(disk->image);
    if (refused || len % SECTOR_SIZE || !in_bounds(disk, sector, len / SECTOR_SIZE)) {
        finish(r, BLK_S_IOERR, 0);
        return;
    }
    r->position = sector * SECTOR_SIZE;
    r->len = len;
    if (submit_lent(r, op))
        return;
    for (unsigned i = 0; i < BLK_CHUNKS && r->given < len; i++) {
        struct blk_chunk *c = &r->chunks[i];
        c->iov.iov_base = buffer(least(len, BLK_CHUNK));
        if (c->iov.iov_base)
            next_chunk(c, op);
        else
            r->failed |= i == 0; /* one buffer is enough */
    }
    if (!r->at_image)
        all_done(r, op);
}

/* Discard and write-zeroes carry one segment, as max_discard_seg and its sibling promise. */
static void start_erase(struct blk_request *r, enum blockdev_op op, uint64_t len)
{
    struct virtio_blk *disk = r->disk;
    struct blk_erase erase;
    if (len != sizeof(erase) || blockdev_read_only(disk->image)) {
        finish(r, BLK_S_IOERR, 0);
        return;
    }
    enum virtq_move moved = virtq_read(&disk->virtio, r->segments, r->out_count,
                                       sizeof(struct blk_header), &erase, sizeof(erase));
    if (moved != VIRTQ_MOVED) {
        not_moved(r, moved);
        return;
    }
    uint64_t sector = le64toh(erase.sector);
    uint32_t count = le32toh(erase.num_sectors), flags = le32toh(erase.flags);
    if ((flags & ~(uint32_t)ERASE_UNMAP) || (op == BLOCKDEV_DISCARD && flags)) { /* 5.2.6.2 */
        finish(r, BLK_S_UNSUPP, 0);
    } else if (count > BLK_MAX_ERASE || !in_bounds(disk, sector, count)) {
        finish(r, BLK_S_IOERR, 0);
    } else if (count == 0) {
        finish(r, BLK_S_OK, 0);
    } else {
        submit(&r->chunks[0], op, sector * SECTOR_SIZE, (uint64_t)count * SECTOR_SIZE, NULL, 0);
    }
}

static void get_id(struct blk_request *r)
{
    struct virtio_blk *disk = r->disk;
    size_t len = r->in_len - 1 < BLK_ID_BYTES ? (size_t)r->in_len - 1 : BLK_ID_BYTES;
    enum virtq_move moved =
        virtq_write(&disk->virtio, r->segments + r->out_count, r->in_count, 0, disk->id, len);
    if (moved != VIRTQ_MOVED)
        not_moved(r, moved);
    else
        finish(r, BLK_S_OK, len);
}

static void start(struct blk_request *r, const struct blk_header *header, uint64_t out_data)
{
    switch (le32toh(header->type)) {
    case BLK_T_IN:
        start_data(r, BLOCKDEV_READ, le64toh(header->sector), r->in_len - 1);
        break;
    case BLK_T_OUT:
        start_data(r, BLOCKDEV_WRITE, le64toh(header->sector), out_data);
        break;
    case BLK_T_FLUSH:
        submit(&r->chunks[0], BLOCKDEV_FLUSH, 0, 0, NULL, 0);
        break;
    case BLK_T_GET_ID:
        get_id(r);
        break;
    case BLK_T_DISCARD:
        start_erase(r, BLOCKDEV_DISCARD, out_data);
        break;
    case BLK_T_WRITE_ZEROES:
        start_erase(r, BLOCKDEV_WRITE_ZEROES, out_data);
        break;
    default:
        finish(r, BLK_S_UNSUPP, 0);
    }
}

/* Turns the chain that was just taken into a request. */
static void take(struct virtio_blk *disk)
{
    struct virtio_device *dev = &disk->virtio;
    const struct virtq_chain *chain = &dev->chain;
    struct blk_header header;
    if (chain->out_len < sizeof(header) || chain->in_len < 1) {
        virtio_break(dev, "block request without header or status byte");
        return;
    }
    struct blk_request *r = request_new(disk, chain);
    if (!r) {
        virtio_break(dev, "out of memory for a block request");
        return;
    }
    uint64_t out_data = chain->out_len - sizeof(header);
    enum virtq_move moved =
        virtq_read(dev, chain->segments, chain->out_count, 0, &header, sizeof(header));
    if (moved != VIRTQ_MOVED)
        not_moved(r, moved);
    else
        start(r, &header, out_data);
}

static void blk_serve(struct virtio_device *dev, unsigned index)
{
    struct virtio_blk *disk = (struct virtio_blk *)dev;
    struct virtqueue *queue = &dev->queues[index];
    /* More requests than descriptors is a guest's trick: they wait for the others to complete. */
    for (unsigned taken = 0; !disk->stale && disk->in_flight < queue->size; taken++) {
        if (taken == queue->size) { /* others want the I/O thread too */
            virtio_kick(dev, index);
            break;
        }
        if (virtq_pop(dev, queue, &dev->chain) != VIRTQ_CHAIN)
            break;
        take(disk);
    }
}

/* ---- Configuration ----------------------------------------------------------------------------
 */

static void fill_config(const struct virtio_blk *disk, struct blk_config *c)
{
    uint64_t capacity = blockdev_size(disk->image) / SECTOR_SIZE;
    uint64_t cylinders = capacity / (16 * 63);
    memset(c, 0, sizeof(*c));
    c->capacity = htole64(capacity);
    c->seg_max = htole32(BLK_QUEUE - 2); /* header and status take two */
    c->cylinders = htole16((uint16_t)(cylinders > 16383 ? 16383 : cylinders));
    c->heads = 16;
    c->sectors = 63;
    c->blk_size = htole32(SECTOR_SIZE);
    c->writeback = disk->writeback;
    c->num_queues = htole16(1);
    c->max_discard_sectors = c->max_write_zeroes_sectors = htole32(BLK_MAX_ERASE);
    c->max_discard_seg = c->max_write_zeroes_seg = htole32(1);
    c->discard_sector_alignment = htole32(1);
    c->write_zeroes_may_unmap = 1;
}

static uint8_t blk_config_read(struct virtio_device *dev, unsigned offset)
{
    struct blk_config config;
    fill_config((const struct virtio_blk *)dev, &config);
    return ((const uint8_t *)&config)[offset];
}

static void blk_config_write(struct virtio_device *dev, unsigned offset, uint8_t value)
{
    struct virtio_blk *disk = (struct virtio_blk *)dev;
    if (offset != offsetof(struct blk_config, writeback) || !virtio_has(dev, BLK_F_CONFIG_WCE))
        return;
    disk->writeback = value & 1;
    blockdev_set_write_cache(disk->image, disk->writeback);
}

/* ---- Life -------------------------------------------------------------------------------------
 */

static void blk_reset(struct virtio_device *dev)
{
    struct virtio_blk *disk = (struct virtio_blk *)dev;
    blockdev_settle(disk->image); /* the guest's memory is left alone from now on */
    for (struct blk_request *r = disk->requests; r; r = r->next)
        r->stale = true;
    disk->stale = disk->in_flight;
    disk->writeback = blockdev_default_write_cache(disk->image);
    blockdev_set_write_cache(disk->image, disk->writeback);
}

static void blk_master_off(struct pci_device *pci)
{
    blockdev_settle(((struct virtio_blk *)pci)->image);
}

static void blk_destroy(struct virtio_device *dev)
{
    struct virtio_blk *disk = (struct virtio_blk *)dev;
    blockdev_settle(disk->image); /* the guest's memory is left alone from now on */
    for (struct blk_request *r = disk->requests; r; r = r->next)
        r->disk = NULL; /* freed when the image is done with them */
    free(disk);
}

static const struct virtio_class blk_class = {
    .name = "virtio-blk",
    .type = 2,
    .transitional = 0x1001,
    .class_code = 0x010000,
    .queue_count = 1,
    .queue_size = BLK_QUEUE,
    .features = BLK_F_SEG_MAX | BLK_F_GEOMETRY | BLK_F_BLK_SIZE | BLK_F_FLUSH | BLK_F_TOPOLOGY |
                BLK_F_CONFIG_WCE,
    .config_size = BLK_CONFIG_SIZE,
    .state = &blk_state,
    .serve = blk_serve,
    .reset = blk_reset,
    .destroy = blk_destroy,
    .config_read = blk_config_read,
    .config_write = blk_config_write,
};

struct pci_device *virtio_blk_create(struct pci_bus *bus, int devfn,
                                     const struct virtio_blk_options *options, struct error *err)
{
    struct virtio_blk *disk = calloc(1, sizeof(*disk));
    if (!disk) {
        error_set(err, "virtio-blk: out of memory");
        return NULL;
    }
    disk->image = options->disk;
    disk->virtio.pci.master_off = blk_master_off;
    disk->writeback = blockdev_default_write_cache(disk->image);
    if (options->serial)
        memcpy(disk->id, options->serial, strnlen(options->serial, sizeof(disk->id)));
    uint64_t more = blockdev_read_only(disk->image) ? BLK_F_RO : BLK_F_DISCARD | BLK_F_WRITE_ZEROES;
    if (!virtio_device_add(&disk->virtio, &blk_class, more, bus, devfn, err)) {
        free(disk);
        return NULL;
    }
    return &disk->virtio.pci;
}
