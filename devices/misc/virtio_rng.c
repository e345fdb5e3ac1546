/*
 * virtio_rng.c - the entropy device of virtio 1.2, section 5.4: fills the driver's buffers with
 * random bytes from the machine's one source (internal/random.h).
 */
#include "internal/error.h"
#include "internal/random.h"
#include "internal/virtio.h"
#include <stdlib.h>

/* A buffer may be any size; 5.4.6.1 lets the device fill less of it. */
#define RNG_MAX_BYTES 4096

struct virtio_rng {
    struct virtio_device virtio;
};

static const struct field rng_fields[] = {
    VIRTIO_DEVICE_FIELDS(struct virtio_rng, virtio),
    VIRTQUEUE_FIELDS(struct virtio_rng, virtio.queues[0]),
};
static const struct state_desc rng_state = STATE_DESC("virtio-rng", 1, rng_fields);

static bool fill(struct virtio_device *dev, struct virtqueue *queue)
{
    uint8_t bytes[RNG_MAX_BYTES];
    const struct virtq_chain *chain = &dev->chain;
    size_t len = chain->in_len < sizeof(bytes) ? (size_t)chain->in_len : sizeof(bytes);
    host_random(bytes, len);
    switch (virtq_write(dev, chain->segments + chain->out_count, chain->in_count, 0, bytes, len)) {
    case VIRTQ_MOVED:
        break;
    case VIRTQ_REFUSED:
        len = 0; /* the buffer comes back empty */
        break;
    case VIRTQ_NOT_MEMORY:
        virtio_break(dev, "entropy buffer is not in memory");
        return false;
    }
    return virtq_push(dev, queue, chain->head, (uint32_t)len);
}

static void rng_serve(struct virtio_device *dev, unsigned index)
{
    struct virtqueue *queue = &dev->queues[index];
    unsigned served = 0;
    while (served < queue->size && virtq_pop(dev, queue, &dev->chain) == VIRTQ_CHAIN &&
           fill(dev, queue))
        served++;
    if (served)
        virtio_notify_queue(dev, queue);
    if (served == queue->size) /* others want the I/O thread too */
        virtio_kick(dev, index);
}

static void rng_reset(struct virtio_device *dev)
{
    (void)dev;
}

static void rng_destroy(struct virtio_device *dev)
{
    free(dev);
}

static const struct virtio_class rng_class = {
    .name = "virtio-rng",
    .type = 4,
    .transitional = 0x1005,
    .class_code = 0x00ff00,
    .queue_count = 1,
    .queue_size = 8,
    .state = &rng_state,
    .serve = rng_serve,
    .reset = rng_reset,
    .destroy = rng_destroy,
};

struct pci_device *virtio_rng_create(struct pci_bus *bus, int devfn, struct error *err)
{
    struct virtio_rng *rng = calloc(1, sizeof(*rng));
    if (!rng) {
        error_set(err, "virtio-rng: out of memory");
        return NULL;
    }
    if (!virtio_device_add(&rng->virtio, &rng_class, 0, bus, devfn, err)) {
        free(rng);
        return NULL;
    }
    return &rng->virtio.pci;
}
