/*
 * virtio.h - virtio 1.2 devices over PCI, transitional: the transport, split virtqueues, and the
 * devices that exist. Section numbers are those of "Virtual I/O Device (VIRTIO) Version 1.2".
 *
 * A device's struct begins with struct virtio_device and describes itself by a virtio_class; the
 * transport does registers, features, queues and interrupts. Everything runs with the machine lock
 * held. Guests are hostile: whatever a queue contains, a device either serves it or is `broken`
 * (DEVICE_NEEDS_RESET set, nothing more is read from its queues until the driver resets it).
 */
#ifndef INTERNAL_VIRTIO_H
#define INTERNAL_VIRTIO_H

#include "internal/event.h"
#include "internal/pci.h"

struct blockdev;
struct virtio_device;

/* ---- For the machine ------------------------------------------------------------------------ */

struct virtio_blk_options {
    struct blockdev *disk; /* stays the caller's; must outlive the device */
    const char *serial;    /* up to 20 characters for GET_ID; NULL or "" for none */
};
struct pci_device *virtio_blk_create(struct pci_bus *bus, int devfn,
                                     const struct virtio_blk_options *options, struct error *err);

#define VIRTIO_SCSI_MAX_REQUEST_QUEUES 13 /* besides the control and the event queue */
struct scsi_bus;
/* The units behind it are scsi_unit_create()'s (scsi.h). request_queues: 1 to the most. */
struct pci_device *virtio_scsi_create(struct pci_bus *bus, int devfn, unsigned request_queues,
                                      struct error *err);
struct scsi_bus *virtio_scsi_bus(struct pci_device *dev);
struct pci_device *virtio_rng_create(struct pci_bus *bus, int devfn, struct error *err);

/* ---- Queues --------------------------------------------------------------------------------- */

#define VIRTQ_MAX_SIZE     256
#define VIRTQ_MAX_SEGMENTS 1024 /* descriptors of one chain, indirect ones included */
#define VIRTIO_MAX_QUEUES  (MSIX_MAX_VECTORS - 1) /* one vector is for configuration changes */
#define VIRTIO_NO_VECTOR   0xffff

struct virtqueue {
    uint64_t desc, avail, used; /* guest-physical addresses of the three areas */
    uint16_t size, max_size;    /* size: as the driver chose; 0 never */
    uint16_t vector;            /* MSI-X vector or VIRTIO_NO_VECTOR */
    uint16_t last_avail;        /* next entry of the available ring to take */
    uint16_t used_idx;          /* next entry of the used ring to fill */
    uint16_t signalled;         /* used_idx at the last notification, for EVENT_IDX */
    uint8_t signalled_valid;
    uint8_t enabled;
};

struct virtq_segment {
    uint64_t gpa;
    uint32_t len;
};

/* One descriptor chain: device-readable segments first, then device-writable ones (2.7.4.2). */
struct virtq_chain {
    uint16_t head;
    unsigned out_count, in_count;
    uint64_t out_len, in_len; /* bytes */
    struct virtq_segment segments[VIRTQ_MAX_SEGMENTS];
};

enum virtq_result { VIRTQ_EMPTY, VIRTQ_CHAIN, VIRTQ_BROKEN };

/* Takes the next available chain. VIRTQ_BROKEN: virtio_break() was called, now if the ring is
 * malformed, or before. */
enum virtq_result virtq_pop(struct virtio_device *dev, struct virtqueue *queue,
                            struct virtq_chain *chain);
/* Puts a chain on the used ring with the bytes written to it, and publishes the new index. False:
 * the ring could not be written and the device is broken. */
bool virtq_push(struct virtio_device *dev, struct virtqueue *queue, uint16_t head,
                uint32_t written);
/* Whether the driver wants to be interrupted for what was pushed since the last time (2.7.7). */
bool virtq_should_notify(struct virtio_device *dev, struct virtqueue *queue);
/* Copies between `buf` and len bytes of the segments, from byte `offset` of their concatenation.
 * A refusal by a protection rule is the request's failure, everything else the device's end. */
enum virtq_move {
    VIRTQ_MOVED,
    VIRTQ_REFUSED,   /* by a protection rule */
    VIRTQ_NOT_MEMORY /* bad address or past the end: the caller breaks the device */
};
enum virtq_move virtq_read(struct virtio_device *dev, const struct virtq_segment *segments,
                           unsigned count, uint64_t offset, void *buf, size_t len);
enum virtq_move virtq_write(struct virtio_device *dev, const struct virtq_segment *segments,
                            unsigned count, uint64_t offset, const void *buf, size_t len);
/* Lends `len` bytes of them, from byte `offset` on, to the host's kernel (phys.h); NULL: they are
 * not all to be lent, and have to be moved by the two above. */
struct phys_loan *virtq_lend(struct virtio_device *dev, const struct virtq_segment *segments,
                             unsigned count, uint64_t offset, uint64_t len, bool to_memory);

/* ---- The transport -------------------------------------------------------------------------- */

enum virtio_status {
    VIRTIO_ACKNOWLEDGE = 1,
    VIRTIO_DRIVER = 2,
    VIRTIO_DRIVER_OK = 4,
    VIRTIO_FEATURES_OK = 8,
    VIRTIO_NEEDS_RESET = 0x40,
    VIRTIO_FAILED = 0x80,
};
#define VIRTIO_F_ANY_LAYOUT    (1ull << 27) /* legacy only */
#define VIRTIO_F_INDIRECT_DESC (1ull << 28)
#define VIRTIO_F_EVENT_IDX     (1ull << 29)
#define VIRTIO_F_VERSION_1     (1ull << 32)

struct virtio_class {
    const char *name;
    uint16_t type;         /* chapter 5: 2 = block, 4 = entropy */
    uint16_t transitional; /* PCI device id, 1000h-103Fh */
    uint32_t class_code;   /* PCI class, 24 bits */
    unsigned queue_count;  /* unless the device says otherwise before virtio_device_add() */
    uint16_t queue_size;
    uint64_t features;    /* device-specific bits that are always offered */
    unsigned config_size; /* bytes of device-specific configuration */
    const struct state_desc *state;
    /* The driver notified the queue, or virtio_kick(): take some chains off it, a bounded number
     * at a time. Called in the I/O thread, so that a vCPU never does a device's DMA. */
    void (*serve)(struct virtio_device *dev, unsigned queue);
    /* Drop all requests and return to the initial state. */
    void (*reset)(struct virtio_device *dev);
    void (*destroy)(struct virtio_device *dev); /* frees the device's own struct */
    uint8_t (*config_read)(struct virtio_device *dev, unsigned offset);
    void (*config_write)(struct virtio_device *dev, unsigned offset, uint8_t value);
    void (*restored)(struct virtio_device *dev); /* after a saved state was loaded; may be NULL */
};

struct virtio_device {
    struct pci_device pci;
    const struct virtio_class *class;
    uint64_t offered;  /* feature bits */
    uint64_t accepted; /* by the driver */
    uint32_t device_feature_select, driver_feature_select;
    uint16_t queue_select;
    uint16_t config_vector;
    uint8_t status;
    uint8_t isr; /* bit 0 queue, bit 1 configuration (4.1.4.5) */
    uint8_t config_generation;
    uint8_t pci_cfg_capability; /* offset of the PCI configuration access capability */
    unsigned queue_count;
    struct virtqueue queues[VIRTIO_MAX_QUEUES];
    struct timer service;     /* armed while a queue waits to be served */
    uint32_t kicked;          /* which queues, one bit each */
    struct virtq_chain chain; /* scratch for virtq_pop() */
};

#define VIRTQUEUE_FIELDS(st, m)                                                                    \
    FIELD(st, m.desc, FIELD_U64, 1), FIELD(st, m.avail, FIELD_U64, 1),                             \
        FIELD(st, m.used, FIELD_U64, 1), FIELD(st, m.size, FIELD_U16, 1),                          \
        FIELD(st, m.vector, FIELD_U16, 1), FIELD(st, m.last_avail, FIELD_U16, 1),                  \
        FIELD(st, m.used_idx, FIELD_U16, 1), FIELD(st, m.signalled, FIELD_U16, 1),                 \
        FIELD(st, m.signalled_valid, FIELD_U8, 1), FIELD(st, m.enabled, FIELD_U8, 1)
/* Of all queues that a device can have. */
#define VIRTQUEUES_FIELDS(st, m)                                                                   \
    VIRTQUEUE_FIELDS(st, m[0]), VIRTQUEUE_FIELDS(st, m[1]), VIRTQUEUE_FIELDS(st, m[2]),            \
        VIRTQUEUE_FIELDS(st, m[3]), VIRTQUEUE_FIELDS(st, m[4]), VIRTQUEUE_FIELDS(st, m[5]),        \
        VIRTQUEUE_FIELDS(st, m[6]), VIRTQUEUE_FIELDS(st, m[7]), VIRTQUEUE_FIELDS(st, m[8]),        \
        VIRTQUEUE_FIELDS(st, m[9]), VIRTQUEUE_FIELDS(st, m[10]), VIRTQUEUE_FIELDS(st, m[11]),      \
        VIRTQUEUE_FIELDS(st, m[12]), VIRTQUEUE_FIELDS(st, m[13]), VIRTQUEUE_FIELDS(st, m[14])
_Static_assert(VIRTIO_MAX_QUEUES == 15, "VIRTQUEUES_FIELDS() has them all");
#define VIRTIO_DEVICE_FIELDS(st, m)                                                                \
    PCI_DEVICE_FIELDS(st, m.pci), FIELD(st, m.accepted, FIELD_U64, 1),                             \
        FIELD(st, m.device_feature_select, FIELD_U32, 1),                                          \
        FIELD(st, m.driver_feature_select, FIELD_U32, 1), FIELD(st, m.queue_select, FIELD_U16, 1), \
        FIELD(st, m.config_vector, FIELD_U16, 1), FIELD(st, m.status, FIELD_U8, 1),                \
        FIELD(st, m.isr, FIELD_U8, 1), FIELD(st, m.config_generation, FIELD_U8, 1)

/* Builds the PCI function and plugs it in; `dev` is zeroed memory of the device's own struct. On
 * failure the caller frees it. */
bool virtio_device_add(struct virtio_device *dev, const struct virtio_class *class,
                       uint64_t more_features, struct pci_bus *bus, int devfn, struct error *err);
static inline bool virtio_has(const struct virtio_device *dev, uint64_t feature)
{
    return (dev->accepted & feature) != 0;
}
/* Asks for class->serve() in the I/O thread. */
void virtio_kick(struct virtio_device *dev, unsigned queue);
/* The queue runs: driver ready, queue enabled, bus mastering on, device not broken. */
bool virtio_queue_ready(const struct virtio_device *dev, const struct virtqueue *queue);
/* Interrupts the driver for the queue, if it wants that. */
void virtio_notify_queue(struct virtio_device *dev, struct virtqueue *queue);
/* The device changed its configuration fields. */
void virtio_notify_config(struct virtio_device *dev);
/* Sets DEVICE_NEEDS_RESET and says why in the guest_errors log. */
void virtio_break(struct virtio_device *dev, const char *why);
static inline bool virtio_broken(const struct virtio_device *dev)
{
    return (dev->status & VIRTIO_NEEDS_RESET) != 0;
}

#endif
