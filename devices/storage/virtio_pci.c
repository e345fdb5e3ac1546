/*
 * virtio_pci.c - the PCI transport of virtio 1.2 (section 4.1), transitional: the modern register
 * structures in BAR 4, found through vendor capabilities, and the legacy ones in I/O BAR 0 (4.1.4.8
 * and 4.1.4.10). The device's common part: status, features, queues, interrupts (chapter 2).
 *
 *     BAR 0  I/O     legacy header, then device-specific configuration
 *     BAR 1  memory  MSI-X: one vector per queue and one for configuration changes
 *     BAR 4  memory  0000h common | 1000h ISR | 2000h device-specific | 3000h notifications, 4 x
 * queue
 *
 * A notification only notes the queue and arms a timer for now: queues are served in the I/O thread
 * and no vCPU ever does DMA on a device's behalf.
 */
#include "internal/clock.h"
#include "internal/error.h"
#include "internal/log.h"
#include "internal/virtio.h"

#define VIRTIO_VENDOR 0x1af4

enum { BAR_LEGACY = 0, BAR_MSIX = 1, BAR_MODERN = 4 };
enum {
    MODERN_COMMON = 0x0000,
    MODERN_ISR = 0x1000,
    MODERN_DEVICE = 0x2000,
    MODERN_NOTIFY = 0x3000,
    MODERN_SIZE = 0x4000,
    NOTIFY_MULTIPLIER = 4,
};
enum { ISR_QUEUE = 1, ISR_CONFIG = 2 };

/* struct virtio_pci_cap, 4.1.4 */
enum {
    CAP_LEN = 2,
    CAP_CFG_TYPE = 3,
    CAP_BAR = 4,
    CAP_OFFSET = 8,
    CAP_LENGTH = 12,
    CAP_EXTRA = 16, /* notify_off_multiplier, or pci_cfg_data */
};
enum { CFG_COMMON = 1, CFG_NOTIFY = 2, CFG_ISR = 3, CFG_DEVICE = 4, CFG_PCI = 5 };

/* ---- Interrupts and breakage ------------------------------------------------------------------
 */

/* 4.1.4.5: with MSI-X enabled the ISR status is not used. */
static void interrupt(struct virtio_device *dev, uint16_t vector, uint8_t isr)
{
    if (msix_enabled(&dev->pci)) {
        msix_notify(&dev->pci, vector);
        return;
    }
    dev->isr |= isr;
    pci_set_intx(&dev->pci, true);
}

void virtio_notify_queue(struct virtio_device *dev, struct virtqueue *queue)
{
    if (!virtio_broken(dev) && virtq_should_notify(dev, queue))
        interrupt(dev, queue->vector, ISR_QUEUE);
}

void virtio_notify_config(struct virtio_device *dev)
{
    dev->config_generation++;
    interrupt(dev, dev->config_vector, ISR_CONFIG);
}

void virtio_break(struct virtio_device *dev, const char *why)
{
    if (virtio_broken(dev))
        return;
    LOG(dev->pci.bus->board->log, LOG_GUEST_ERRORS, "%s at %02x.%x stops: %s\n", dev->class->name,
        dev->pci.devfn >> 3, dev->pci.devfn & 7, why);
    dev->status |= VIRTIO_NEEDS_RESET;
    if (dev->status & VIRTIO_DRIVER_OK) /* 2.1.2 */
        interrupt(dev, dev->config_vector, ISR_CONFIG);
}

/* ---- Serving ----------------------------------------------------------------------------------
 */

bool virtio_queue_ready(const struct virtio_device *dev, const struct virtqueue *queue)
{
    /* Legacy drivers use their queues before DRIVER_OK (3.1.2 allows it): for them, setting the
     * queue's address is enough. */
    bool driver_ready =
        !virtio_has(dev, VIRTIO_F_VERSION_1) || (dev->status & VIRTIO_DRIVER_OK) != 0;
    return queue->enabled && driver_ready && !virtio_broken(dev) && pci_bus_master(&dev->pci);
}

void virtio_kick(struct virtio_device *dev, unsigned queue)
{
    if (queue >= dev->queue_count)
        return;
    dev->kicked |= 1u << queue;
    if (!timer_armed(&dev->service))
        timer_arm(&dev->service, clock_now(dev->pci.bus->board->clock));
}

static void kick_all(struct virtio_device *dev)
{
    for (unsigned i = 0; i < dev->queue_count; i++)
        if (virtio_queue_ready(dev, &dev->queues[i]))
            virtio_kick(dev, i);
}

static void service(void *opaque)
{
    struct virtio_device *dev = opaque;
    uint32_t kicked = dev->kicked;
    dev->kicked = 0;
    for (unsigned i = 0; i < dev->queue_count; i++)
        if ((kicked >> i & 1) && virtio_queue_ready(dev, &dev->queues[i]))
            dev->class->serve(dev, i);
}

/* ---- Status and features ----------------------------------------------------------------------
 */

static void queue_reset(struct virtqueue *queue)
{
    *queue = (struct virtqueue){
        .size = queue->max_size, .max_size = queue->max_size, .vector = VIRTIO_NO_VECTOR};
}

static void reset(struct virtio_device *dev)
{
    timer_cancel(&dev->service);
    dev->kicked = 0;
    dev->class->reset(dev);
    for (unsigned i = 0; i < dev->queue_count; i++)
        queue_reset(&dev->queues[i]);
    dev->accepted = 0;
    dev->device_feature_select = dev->driver_feature_select = 0;
    dev->queue_select = 0;
    dev->config_vector = VIRTIO_NO_VECTOR;
    dev->status = 0;
    dev->isr = 0;
    pci_set_intx(&dev->pci, false);
}

/* 2.2.2: the driver's choice stands when it is a subset of the offer and of the modern kind. */
static bool features_acceptable(const struct virtio_device *dev)
{
    return !(dev->accepted & ~dev->offered) && virtio_has(dev, VIRTIO_F_VERSION_1);
}

static void write_status(struct virtio_device *dev, uint8_t value, bool legacy)
{
    if (value == 0) {
        reset(dev);
        return;
    }
    uint8_t old = dev->status;
    value = (value & ~VIRTIO_NEEDS_RESET) | (old & VIRTIO_NEEDS_RESET);
    if (!legacy && (value & ~old & VIRTIO_FEATURES_OK) && !features_acceptable(dev))
        value &= ~VIRTIO_FEATURES_OK;
    dev->status = value;
    /* Old drivers forget bus mastering; they worked when there was nothing to enforce it. */
    if (legacy && (value & VIRTIO_DRIVER) && !pci_bus_master(&dev->pci))
        pci_config_write(dev->pci.bus, dev->pci.devfn, PCI_COMMAND, 2,
                         pci_get16(&dev->pci, PCI_COMMAND) | PCI_COMMAND_MASTER);
    if (value & ~old & VIRTIO_DRIVER_OK)
        kick_all(dev);
}

static uint32_t offered_word(const struct virtio_device *dev, uint32_t select)
{
    return select < 2 ? (uint32_t)(dev->offered >> 32 * select) : 0;
}

static void accept_word(struct virtio_device *dev, uint32_t select, uint32_t value)
{
    if (select >= 2 || (dev->status & VIRTIO_FEATURES_OK))
        return;
    dev->accepted &= ~((uint64_t)UINT32_MAX << 32 * select);
    dev->accepted |= (uint64_t)value << 32 * select;
}

/* 4.1.5.1.2: a vector that does not exist reads back as none. */
static uint16_t checked_vector(const struct virtio_device *dev, uint16_t vector)
{
    return vector < dev->pci.msix.vectors ? vector : VIRTIO_NO_VECTOR;
}

static struct virtqueue *selected(struct virtio_device *dev)
{
    return dev->queue_select < dev->queue_count ? &dev->queues[dev->queue_select] : NULL;
}

/* ---- Common configuration structure (4.1.4.3) --------------------------------------------------
 */

#define COMMON_FIELDS(X)                                                                           \
    X(DEVICE_FEATURE_SELECT, 0x00, 4)                                                              \
    X(DEVICE_FEATURE, 0x04, 4)                                                                     \
    X(DRIVER_FEATURE_SELECT, 0x08, 4)                                                              \
    X(DRIVER_FEATURE, 0x0c, 4)                                                                     \
    X(CONFIG_VECTOR, 0x10, 2)                                                                      \
    X(NUM_QUEUES, 0x12, 2)                                                                         \
    X(DEVICE_STATUS, 0x14, 1)                                                                      \
    X(CONFIG_GENERATION, 0x15, 1)                                                                  \
    X(QUEUE_SELECT, 0x16, 2)                                                                       \
    X(QUEUE_SIZE, 0x18, 2)                                                                         \
    X(QUEUE_VECTOR, 0x1a, 2)                                                                       \
    X(QUEUE_ENABLE, 0x1c, 2)                                                                       \
    X(QUEUE_NOTIFY_OFF, 0x1e, 2)                                                                   \
    X(QUEUE_DESC, 0x20, 8)                                                                         \
    X(QUEUE_DRIVER, 0x28, 8)                                                                       \
    X(QUEUE_DEVICE, 0x30, 8)
#define COMMON_LENGTH 0x38

enum common_field {
#define X(name, offset, size) COMMON_##name,
    COMMON_FIELDS(X)
#undef X
};
static const struct {
    uint8_t offset, size;
} common_layout[] = {
#define X(name, offset, size) {offset, size},
    COMMON_FIELDS(X)
#undef X
};
#define COMMON_FIELD_COUNT (sizeof(common_layout) / sizeof(common_layout[0]))

static uint64_t queue_field_get(const struct virtio_device *dev, const struct virtqueue *queue,
                                enum common_field field)
{
    switch (field) {
    case COMMON_QUEUE_SIZE:
        return queue->size;
    case COMMON_QUEUE_VECTOR:
        return queue->vector;
    case COMMON_QUEUE_ENABLE:
        return queue->enabled;
    case COMMON_QUEUE_NOTIFY_OFF:
        return dev->queue_select;
    case COMMON_QUEUE_DESC:
        return queue->desc;
    case COMMON_QUEUE_DRIVER:
        return queue->avail;
    case COMMON_QUEUE_DEVICE:
        return queue->used;
    default:
        return 0;
    }
}

static uint64_t common_get(struct virtio_device *dev, enum common_field field)
{
    switch (field) {
    case COMMON_DEVICE_FEATURE_SELECT:
        return dev->device_feature_select;
    case COMMON_DEVICE_FEATURE:
        return offered_word(dev, dev->device_feature_select);
    case COMMON_DRIVER_FEATURE_SELECT:
        return dev->driver_feature_select;
    case COMMON_DRIVER_FEATURE:
        return dev->driver_feature_select < 2
                   ? (uint32_t)(dev->accepted >> 32 * dev->driver_feature_select)
                   : 0;
    case COMMON_CONFIG_VECTOR:
        return dev->config_vector;
    case COMMON_NUM_QUEUES:
        return dev->queue_count;
    case COMMON_DEVICE_STATUS:
        return dev->status;
    case COMMON_CONFIG_GENERATION:
        return dev->config_generation;
    case COMMON_QUEUE_SELECT:
        return dev->queue_select;
    default: {
        const struct virtqueue *queue = selected(dev);
        return queue ? queue_field_get(dev, queue, field) : 0; /* 4.1.4.3.1: size 0, no queue */
    }
    }
}

static bool power_of_two(uint64_t n)
{
    return n && !(n & (n - 1));
}

static void queue_enable(struct virtio_device *dev, struct virtqueue *queue)
{
    if (queue->desc % 16 || queue->avail % 2 || queue->used % 4) { /* 2.7 */
        virtio_break(dev, "queue areas are not aligned");
        return;
    }
    queue->enabled = 1;
    kick_all(dev);
}

static void queue_field_set(struct virtio_device *dev, struct virtqueue *queue,
                            enum common_field field, uint64_t value)
{
    if (field == COMMON_QUEUE_VECTOR)
        queue->vector = checked_vector(dev, (uint16_t)value);
    if (queue->enabled)
        return; /* 4.1.4.3.2: fixed from here on, and only a reset disables */
    switch (field) {
    case COMMON_QUEUE_SIZE:
        if (power_of_two(value) && value <= queue->max_size)
            queue->size = (uint16_t)value;
        break;
    case COMMON_QUEUE_ENABLE:
        if (value == 1)
            queue_enable(dev, queue);
        break;
    case COMMON_QUEUE_DESC:
        queue->desc = value;
        break;
    case COMMON_QUEUE_DRIVER:
        queue->avail = value;
        break;
    case COMMON_QUEUE_DEVICE:
        queue->used = value;
        break;
    default:
        break;
    }
}

static void common_set(struct virtio_device *dev, enum common_field field, uint64_t value)
{
    switch (field) {
    case COMMON_DEVICE_FEATURE_SELECT:
        dev->device_feature_select = (uint32_t)value;
        break;
    case COMMON_DRIVER_FEATURE_SELECT:
        dev->driver_feature_select = (uint32_t)value;
        break;
    case COMMON_DRIVER_FEATURE:
        accept_word(dev, dev->driver_feature_select, (uint32_t)value);
        break;
    case COMMON_CONFIG_VECTOR:
        dev->config_vector = checked_vector(dev, (uint16_t)value);
        break;
    case COMMON_DEVICE_STATUS:
        write_status(dev, (uint8_t)value, false);
        break;
    case COMMON_QUEUE_SELECT:
        dev->queue_select = (uint16_t)value;
        break;
    case COMMON_DEVICE_FEATURE:
    case COMMON_NUM_QUEUES:
    case COMMON_CONFIG_GENERATION:
        break; /* read-only */
    default:
        if (selected(dev))
            queue_field_set(dev, selected(dev), field, value);
    }
}

static uint8_t common_read_byte(struct virtio_device *dev, uint64_t offset)
{
    for (unsigned f = 0; f < COMMON_FIELD_COUNT; f++) {
        uint64_t in = offset - common_layout[f].offset;
        if (in < common_layout[f].size)
            return (uint8_t)(common_get(dev, (enum common_field)f) >> 8 * in);
    }
    return 0;
}

/* Sets each field that [offset, offset + size) touches; the bytes of a field that it leaves out
 * stay (so a 64-bit address may be written in halves). */
static void common_write(struct virtio_device *dev, uint64_t offset, unsigned size, uint64_t value)
{
    for (unsigned f = 0; f < COMMON_FIELD_COUNT; f++) {
        uint64_t merged = 0, mask = 0;
        for (unsigned i = 0; i < size; i++) {
            uint64_t in = offset + i - common_layout[f].offset;
            if (in >= common_layout[f].size)
                continue;
            mask |= 0xffull << 8 * in;
            merged |= (value >> 8 * i & 0xff) << 8 * in;
        }
        if (mask)
            common_set(dev, (enum common_field)f,
                       (common_get(dev, (enum common_field)f) & ~mask) | merged);
    }
}

/* ---- What both interfaces share ----------------------------------------------------------------
 */

static uint8_t isr_read(struct virtio_device *dev)
{
    uint8_t isr = dev->isr;
    dev->isr = 0;
    pci_set_intx(&dev->pci, false);
    return isr;
}

static uint64_t config_read(struct virtio_device *dev, uint64_t offset, unsigned size)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < size && offset + i < dev->class->config_size; i++)
        value |= (uint64_t)dev->class->config_read(dev, (unsigned)offset + i) << 8 * i;
    return value;
}

static void config_write(struct virtio_device *dev, uint64_t offset, unsigned size, uint64_t value)
{
    for (unsigned i = 0; i < size && offset + i < dev->class->config_size; i++)
        dev->class->config_write(dev, (unsigned)offset + i, (uint8_t)(value >> 8 * i));
}

/* ---- BAR 4 ------------------------------------------------------------------------------------
 */

static uint64_t modern_read(void *opaque, const struct access *access, uint64_t offset,
                            unsigned size)
{
    struct virtio_device *dev = opaque;
    uint64_t value = 0;
    (void)access;
    switch (offset & ~0xfffull) {
    case MODERN_COMMON:
        for (unsigned i = 0; i < size; i++)
            value |= (uint64_t)common_read_byte(dev, offset + i) << 8 * i;
        return value;
    case MODERN_ISR:
        return offset == MODERN_ISR ? isr_read(dev) : 0;
    case MODERN_DEVICE:
        return config_read(dev, offset - MODERN_DEVICE, size);
    default:
        return 0;
    }
}

static void modern_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                         uint64_t value)
{
    struct virtio_device *dev = opaque;
    (void)access;
    switch (offset & ~0xfffull) {
    case MODERN_COMMON:
        common_write(dev, offset, size, value);
        break;
    case MODERN_DEVICE:
        config_write(dev, offset - MODERN_DEVICE, size, value);
        break;
    case MODERN_NOTIFY:
        virtio_kick(dev, (unsigned)(offset - MODERN_NOTIFY) / NOTIFY_MULTIPLIER);
        break;
    default:
        break;
    }
}

static const struct io_ops modern_ops = {
    .read = modern_read, .write = modern_write, .min = 1, .max = 4};

/* ---- BAR 0: the legacy interface (4.1.4.8) -----------------------------------------------------
 */

enum {
    LEGACY_DEVICE_FEATURES = 0x00,
    LEGACY_GUEST_FEATURES = 0x04,
    LEGACY_QUEUE_ADDRESS = 0x08,
    LEGACY_QUEUE_SIZE = 0x0c,
    LEGACY_QUEUE_SELECT = 0x0e,
    LEGACY_QUEUE_NOTIFY = 0x10,
    LEGACY_STATUS = 0x12,
    LEGACY_ISR = 0x13,
    LEGACY_CONFIG_VECTOR = 0x14, /* these two only while MSI-X is enabled */
    LEGACY_QUEUE_VECTOR = 0x16,
    LEGACY_CONFIG = 0x14, /* 18h while MSI-X is enabled */
    LEGACY_CONFIG_MSIX = 0x18,
};
#define LEGACY_ALIGN 4096ull

static unsigned legacy_config(const struct virtio_device *dev)
{
    return msix_enabled(&dev->pci) ? LEGACY_CONFIG_MSIX : LEGACY_CONFIG;
}

static uint64_t legacy_read(void *opaque, const struct access *access, uint64_t offset,
                            unsigned size)
{
    struct virtio_device *dev = opaque;
    struct virtqueue *queue = selected(dev);
    (void)access;
    if (offset >= legacy_config(dev))
        return config_read(dev, offset - legacy_config(dev), size);
    switch (offset) {
    case LEGACY_DEVICE_FEATURES:
        return (uint32_t)(dev->offered | VIRTIO_F_ANY_LAYOUT);
    case LEGACY_GUEST_FEATURES:
        return (uint32_t)dev->accepted;
    case LEGACY_QUEUE_ADDRESS:
        return queue && queue->enabled ? queue->desc / LEGACY_ALIGN : 0;
    case LEGACY_QUEUE_SIZE:
        return queue ? queue->max_size : 0;
    case LEGACY_QUEUE_SELECT:
        return dev->queue_select;
    case LEGACY_STATUS:
        return dev->status;
    case LEGACY_ISR:
        return isr_read(dev);
    case LEGACY_CONFIG_VECTOR:
        return dev->config_vector;
    case LEGACY_QUEUE_VECTOR:
        return queue ? queue->vector : VIRTIO_NO_VECTOR;
    default:
        return 0;
    }
}

/* 2.7.2: one contiguous area, whose layout follows from its page number and the queue's size. */
static void legacy_queue_address(struct virtqueue *queue, uint32_t page)
{
    uint16_t vector = queue->vector;
    queue_reset(queue);
    queue->vector = vector;
    if (!page)
        return;
    queue->desc = page * LEGACY_ALIGN;
    queue->avail = queue->desc + 16ull * queue->size;
    uint64_t avail_end = queue->avail + 4 + 2ull * queue->size + 2;
    queue->used = (avail_end + LEGACY_ALIGN - 1) & ~(LEGACY_ALIGN - 1);
    queue->enabled = 1;
}

static void legacy_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                         uint64_t value)
{
    struct virtio_device *dev = opaque;
    struct virtqueue *queue = selected(dev);
    (void)access;
    if (offset >= legacy_config(dev)) {
        config_write(dev, offset - legacy_config(dev), size, value);
        return;
    }
    switch (offset) {
    case LEGACY_GUEST_FEATURES:
        dev->accepted = (uint32_t)value & (dev->offered | VIRTIO_F_ANY_LAYOUT);
        break;
    case LEGACY_QUEUE_ADDRESS:
        if (queue)
            legacy_queue_address(queue, (uint32_t)value);
        break;
    case LEGACY_QUEUE_SELECT:
        dev->queue_select = (uint16_t)value;
        break;
    case LEGACY_QUEUE_NOTIFY:
        virtio_kick(dev, (uint16_t)value);
        break;
    case LEGACY_STATUS:
        write_status(dev, (uint8_t)value, true);
        break;
    case LEGACY_CONFIG_VECTOR:
        dev->config_vector = checked_vector(dev, (uint16_t)value);
        break;
    case LEGACY_QUEUE_VECTOR:
        if (queue)
            queue->vector = checked_vector(dev, (uint16_t)value);
        break;
    default:
        break;
    }
}

static const struct io_ops legacy_ops = {
    .read = legacy_read, .write = legacy_write, .min = 1, .max = 4};

/* ---- Configuration space: capabilities, and BAR 4 through a window (4.1.4.9) --------------------
 */

static unsigned add_capability(struct virtio_device *dev, uint8_t type, uint32_t offset,
                               uint32_t length)
{
    unsigned size = type == CFG_NOTIFY || type == CFG_PCI ? CAP_EXTRA + 4 : CAP_EXTRA;
    unsigned cap = pci_add_capability(&dev->pci, PCI_CAP_ID_VENDOR, size);
    dev->pci.config[cap + CAP_LEN] = (uint8_t)size;
    dev->pci.config[cap + CAP_CFG_TYPE] = type;
    dev->pci.config[cap + CAP_BAR] = type == CFG_PCI ? 0 : BAR_MODERN;
    pci_put32(&dev->pci, cap + CAP_OFFSET, offset);
    pci_put32(&dev->pci, cap + CAP_LENGTH, length);
    return cap;
}

static void add_capabilities(struct virtio_device *dev)
{
    unsigned queues = dev->queue_count;
    add_capability(dev, CFG_COMMON, MODERN_COMMON, COMMON_LENGTH);
    add_capability(dev, CFG_ISR, MODERN_ISR, 1);
    if (dev->class->config_size)
        add_capability(dev, CFG_DEVICE, MODERN_DEVICE, dev->class->config_size);
    unsigned notify = add_capability(dev, CFG_NOTIFY, MODERN_NOTIFY, NOTIFY_MULTIPLIER * queues);
    pci_put32(&dev->pci, notify + CAP_EXTRA, NOTIFY_MULTIPLIER);
    unsigned window = add_capability(dev, CFG_PCI, 0, 0);
    dev->pci_cfg_capability = (uint8_t)window;
    dev->pci.writable[window + CAP_BAR] = 0xff;
    for (unsigned i = CAP_OFFSET; i < CAP_EXTRA + 4; i++)
        dev->pci.writable[window + i] = 0xff;
}

/* Whether [offset, offset + size) touches the window's data, and the window names an access that
 * can be made: then *at and *length are that access. */
static bool window_access(const struct virtio_device *dev, unsigned offset, unsigned size,
                          uint32_t *at, uint32_t *length)
{
    unsigned cap = dev->pci_cfg_capability;
    if (offset >= cap + CAP_EXTRA + 4 || offset + size <= cap + CAP_EXTRA)
        return false;
    *at = pci_get32(&dev->pci, cap + CAP_OFFSET);
    *length = pci_get32(&dev->pci, cap + CAP_LENGTH);
    return dev->pci.config[cap + CAP_BAR] == BAR_MODERN && *at < MODERN_SIZE &&
           (*length == 1 || *length == 2 || *length == 4) && *at % *length == 0;
}

static void pci_config_before_read(struct pci_device *pci, unsigned offset, unsigned size)
{
    struct virtio_device *dev = (struct virtio_device *)pci;
    uint32_t at, length;
    if (window_access(dev, offset, size, &at, &length))
        pci_put32(pci, dev->pci_cfg_capability + CAP_EXTRA,
                  (uint32_t)modern_read(dev, NULL, at, length));
}

static void pci_config_after_write(struct pci_device *pci, unsigned offset, unsigned size)
{
    struct virtio_device *dev = (struct virtio_device *)pci;
    uint32_t at, length;
    if (window_access(dev, offset, size, &at, &length))
        modern_write(dev, NULL, at, length, pci_get32(pci, dev->pci_cfg_capability + CAP_EXTRA));
    if (offset <= PCI_COMMAND && offset + size > PCI_COMMAND)
        kick_all(dev); /* bus mastering may have been what was missing */
}

/* ---- The device --------------------------------------------------------------------------------
 */

static void virtio_device_reset(struct device *head)
{
    struct virtio_device *dev = (struct virtio_device *)head;
    reset(dev);
    dev->config_generation = 0;
    pci_device_reset(&dev->pci);
}

/* A saved state comes from a file: what the queues rely on is checked again. */
static void virtio_device_restored(struct device *head)
{
    struct virtio_device *dev = (struct virtio_device *)head;
    for (unsigned i = 0; i < dev->queue_count; i++) {
        struct virtqueue *queue = &dev->queues[i];
        if (!power_of_two(queue->size) || queue->size > queue->max_size)
            queue_reset(queue);
    }
    pci_device_restored(&dev->pci);
    if (dev->class->restored)
        dev->class->restored(dev);
    kick_all(dev);
}

static void virtio_device_destroy(struct device *head)
{
    struct virtio_device *dev = (struct virtio_device *)head;
    timer_cancel(&dev->service);
    pci_device_remove(&dev->pci);
    dev->class->destroy(dev);
}

static uint64_t legacy_bar_size(const struct virtio_class *class)
{
    uint64_t size = 32;
    while (size < LEGACY_CONFIG_MSIX + class->config_size)
        size *= 2;
    return size;
}

bool virtio_device_add(struct virtio_device *dev, const struct virtio_class *class,
                       uint64_t more_features, struct pci_bus *bus, int devfn, struct error *err)
{
    /* 4.1.2.3: a transitional device has revision 0 and its type as subsystem id. */
    const struct pci_identity identity = {.vendor = VIRTIO_VENDOR,
                                          .device = class->transitional,
                                          .subsystem_vendor = VIRTIO_VENDOR,
                                          .subsystem = class->type,
                                          .class_code = class->class_code};
    dev->class = class;
    if (!dev->queue_count)
        dev->queue_count = class->queue_count;
    dev->offered = class->features | more_features | VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC |
                   VIRTIO_F_EVENT_IDX;
    dev->pci.dev = (struct device){.name = class->name,
                                   .state = class->state,
                                   .reset = virtio_device_reset,
                                   .destroy = virtio_device_destroy,
                                   .restored = virtio_device_restored};
    pci_device_init(&dev->pci, &identity);
    dev->pci.config[PCI_INTERRUPT_PIN] = 1;
    pci_set_bar(&dev->pci, BAR_LEGACY, PCI_BAR_IO, legacy_bar_size(class), &legacy_ops, dev,
                "virtio-legacy");
    msix_init(&dev->pci, BAR_MSIX, dev->queue_count + 1);
    pci_set_bar(&dev->pci, BAR_MODERN, PCI_BAR_MEM64, MODERN_SIZE, &modern_ops, dev, "virtio");
    add_capabilities(dev);
    dev->pci.config_read = pci_config_before_read;
    dev->pci.config_written = pci_config_after_write;
    for (unsigned i = 0; i < dev->queue_count; i++) {
        dev->queues[i].max_size = class->queue_size;
        queue_reset(&dev->queues[i]);
    }
    dev->config_vector = VIRTIO_NO_VECTOR;
    timer_init(&dev->service, bus->board->queue, service, dev);
    return pci_device_add(bus, &dev->pci, devfn, err);
}
