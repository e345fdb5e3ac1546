/*
 * blockdev.c - requests to a disk image: worker threads do them, the event queue brings the results
 * back. See internal/blockdev.h for the contract.
 *
 * Requests are taken in order but may complete in any order, as on a disk with a queue. A flush
 * therefore promises what fdatasync() does: whatever was reported complete before it was submitted
 * is on the disk when it completes.
 *
 * Workers are started when requests wait and none is idle. Results come back through one timer that
 * is armed for "now": unlike a post, it can be taken back when the device is closed.
 */
#include "internal/blockdev.h"
#include "image.h"
#include "internal/error.h"
#include "internal/event.h"
#include "internal/thread.h"
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_WORKERS 16

struct request_list {
    struct blockdev_request *first, **last;
};

struct blockdev {
    struct image *image;
    bool read_only;
    bool default_write_cache, write_cache; /* of the machine lock */
    enum blockdev_discard discard;
    enum blockdev_detect detect_zeroes;
    struct timer deliver; /* armed while `completed` waits */
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t work, settled;
    struct request_list submitted, completed;
    bool closing;
    int reported;     /* the errno that was last reported on stderr */
    unsigned waiting; /* requests in `submitted` */
    unsigned holding; /* requests, there or at a worker, with buffers to be let go of */
    unsigned workers, idle;
    pthread_t threads[MAX_WORKERS];
};

static void list_add(struct request_list *list, struct blockdev_request *request)
{
    request->next = NULL;
    *list->last = request;
    list->last = &request->next;
}

static struct blockdev_request *list_take(struct request_list *list)
{
    struct blockdev_request *request = list->first;
    if (request) {
        list->first = request->next;
        if (!list->first)
            list->last = &list->first;
    }
    return request;
}

/* ---- Workers ----------------------------------------------------------------------------------
 */

/* One line for the user when things begin to fail, or fail differently. */
static void report(struct blockdev *dev, const struct blockdev_request *request)
{
    static const char *const verbs[] = {[BLOCKDEV_READ] = "reading",
                                        [BLOCKDEV_WRITE] = "writing",
                                        [BLOCKDEV_FLUSH] = "flushing",
                                        [BLOCKDEV_DISCARD] = "discarding",
                                        [BLOCKDEV_WRITE_ZEROES] = "zeroing"};
    pthread_mutex_lock(&dev->lock);
    bool news = dev->reported != request->result;
    dev->reported = request->result;
    pthread_mutex_unlock(&dev->lock);
    if (news && request->result == -EPERM)
        fprintf(stderr,
                "bailey: %s: the guest's write would make this raw image look like one of another "
                "format; format=raw allows that\n",
                dev->image->path);
    else if (news)
        fprintf(stderr, "bailey: %s: %s %llu bytes at offset %llu: %s\n", dev->image->path,
                verbs[request->op], (unsigned long long)request->len,
                (unsigned long long)request->offset, strerror(-request->result));
}

static int flush(struct blockdev *dev)
{
    return dev->read_only ? 0 : dev->image->ops->flush(dev->image);
}

static int check(const struct blockdev *dev, const struct blockdev_request *request)
{
    if (request->op == BLOCKDEV_FLUSH)
        return 0;
    if (request->op != BLOCKDEV_READ && dev->read_only)
        return -EROFS;
    if (request->offset % IMAGE_SECTOR || request->len % IMAGE_SECTOR)
        return -EINVAL;
    if (request->offset > dev->image->size || request->len > dev->image->size - request->offset)
        return -EINVAL;
    return 0;
}

/* An image that was taken for raw must still look raw when the guest has written its beginning. */
static int keeps_format(struct blockdev *dev, const struct blockdev_request *request,
                        struct span data)
{
    uint8_t head[IMAGE_HEAD];
    if (!dev->image->probed_raw || request->offset >= IMAGE_HEAD)
        return 0;
    span_copy_in(head, data, sizeof(head)); /* requests are whole sectors */
    return format_probe(head)->probe ? -EPERM : 0;
}

static int write_data(struct blockdev *dev, const struct blockdev_request *request)
{
    struct image *image = dev->image;
    const struct span data = {request->iov, request->iovcnt, 0};
    int result = keeps_format(dev, request, data);
    if (result)
        return result;
    if (dev->detect_zeroes != BLOCKDEV_DETECT_OFF && span_is_zero(data, request->len)) {
        bool unmap =
            dev->detect_zeroes == BLOCKDEV_DETECT_UNMAP && dev->discard == BLOCKDEV_DISCARD_UNMAP;
        return image->ops->zero(image, request->offset, request->len,
                                unmap ? HOSTFILE_ZERO_UNMAP : HOSTFILE_ZERO_KEEP);
    }
    return image->ops->write(image, data, request->offset, request->len);
}

/* Without the flush behind it. */
static int perform(struct blockdev *dev, const struct blockdev_request *request)
{
    struct image *image = dev->image;
    bool unmap = dev->discard == BLOCKDEV_DISCARD_UNMAP;
    int result = check(dev, request);
    if (result || (!request->len && request->op != BLOCKDEV_FLUSH))
        return result;
    switch (request->op) {
    case BLOCKDEV_READ:
        return image->ops->read(image, (struct span){request->iov, request->iovcnt, 0},
                                request->offset, request->len);
    case BLOCKDEV_FLUSH:
        return flush(dev);
    case BLOCKDEV_WRITE:
        return write_data(dev, request);
    case BLOCKDEV_DISCARD: /* a hint */
        return unmap && image->ops->discard
                   ? image->ops->discard(image, request->offset, request->len)
                   : 0;
    case BLOCKDEV_WRITE_ZEROES:
        return image->ops->zero(image, request->offset, request->len,
                                unmap ? HOSTFILE_ZERO_UNMAP : HOSTFILE_ZERO_KEEP);
    }
    return -EINVAL;
}

/* As soon as nobody looks at them: a flush may take long, and stderr may be somebody's full pipe.
 */
static void let_buffers_go(struct blockdev *dev, struct blockdev_request *request)
{
    if (!request->let_go)
        return;
    request->let_go(request);
    pthread_mutex_lock(&dev->lock);
    if (!--dev->holding)
        pthread_cond_broadcast(&dev->settled);
    pthread_mutex_unlock(&dev->lock);
}

static bool changes_data(enum blockdev_op op)
{
    return op != BLOCKDEV_READ && op != BLOCKDEV_FLUSH;
}

static void run(struct blockdev *dev, struct blockdev_request *request)
{
    request->result = perform(dev, request);
    let_buffers_go(dev, request);
    if (!request->result && request->through && changes_data(request->op))
        request->result = flush(dev);
    if (request->result)
        report(dev, request);
    pthread_mutex_lock(&dev->lock);
    bool first = !dev->completed.first; /* else the timer is armed already, or will be */
    list_add(&dev->completed, request);
    pthread_mutex_unlock(&dev->lock);
    if (first)
        timer_arm(&dev->deliver, 0);
}

static void *worker(void *opaque)
{
    struct blockdev *dev = opaque;
    pthread_mutex_lock(&dev->lock);
    for (;;) {
        struct blockdev_request *request = list_take(&dev->submitted);
        if (!request && dev->closing)
            break;
        if (request) {
            dev->waiting--;
            pthread_mutex_unlock(&dev->lock);
            run(dev, request);
            pthread_mutex_lock(&dev->lock);
        } else {
            dev->idle++;
            pthread_cond_wait(&dev->work, &dev->lock);
            dev->idle--;
        }
    }
    pthread_mutex_unlock(&dev->lock);
    return NULL;
}

/* Another thread, if it can be had. */
static void start_worker_locked(struct blockdev *dev)
{
    if (thread_start(&dev->threads[dev->workers], worker, dev) == 0)
        dev->workers++;
}

/* ---- The event queue's side -------------------------------------------------------------------
 */

/* Calls the completions that wait now; those that their callbacks cause come with the next event.
 */
static void deliver(void *opaque)
{
    struct blockdev *dev = opaque;
    pthread_mutex_lock(&dev->lock);
    struct blockdev_request *request = dev->completed.first;
    dev->completed = (struct request_list){NULL, &dev->completed.first};
    pthread_mutex_unlock(&dev->lock);
    while (request) {
        struct blockdev_request *next = request->next; /* done() may free or resubmit it */
        request->done(request);
        request = next;
    }
}

void blockdev_submit(struct blockdev *dev, struct blockdev_request *request)
{
    request->dev = dev;
    request->through = !dev->write_cache;
    pthread_mutex_lock(&dev->lock);
    list_add(&dev->submitted, request);
    dev->holding += request->let_go != NULL;
    if (++dev->waiting > dev->idle && dev->workers < MAX_WORKERS)
        start_worker_locked(dev);
    bool wake = dev->idle > 0;
    pthread_mutex_unlock(&dev->lock);
    if (wake) /* without the lock, which is the first thing that the worker wants */
        pthread_cond_signal(&dev->work);
}

void blockdev_settle(struct blockdev *dev)
{
    pthread_mutex_lock(&dev->lock);
    while (dev->holding)
        pthread_cond_wait(&dev->settled, &dev->lock);
    pthread_mutex_unlock(&dev->lock);
}

int blockdev_read_now(struct blockdev *dev, uint64_t offset, void *buf, size_t len)
{
    const struct iovec iov = {buf, len};
    const struct blockdev_request request = {
        .op = BLOCKDEV_READ, .offset = offset, .len = len, .iov = &iov, .iovcnt = 1};
    return perform(dev, &request);
}

/* ---- Open and close ---------------------------------------------------------------------------
 */

static struct image *open_image(const struct blockdev_options *o, struct error *err)
{
    const struct image_options options = {
        .path = o->path,
        .format = o->format,
        .write = !o->read_only && !o->snapshot,
        .direct = o->cache == BLOCKDEV_CACHE_NONE || o->cache == BLOCKDEV_CACHE_DIRECTSYNC,
        .unsafe = o->cache == BLOCKDEV_CACHE_UNSAFE,
        .unmap = o->discard == BLOCKDEV_DISCARD_UNMAP,
    };
    struct image *image = image_open(&options, err);
    return image && o->snapshot ? snapshot_open(image, err) : image;
}

struct blockdev *blockdev_open(const struct blockdev_options *o, struct event_queue *queue,
                               struct error *err)
{
    struct blockdev *dev = calloc(1, sizeof(*dev));
    if (!dev) {
        error_set(err, "%s: out of memory", o->path);
        return NULL;
    }
    dev->image = open_image(o, err);
    if (!dev->image) {
        free(dev);
        return NULL;
    }
    dev->read_only = o->read_only;
    dev->discard = o->discard;
    dev->detect_zeroes = o->detect_zeroes;
    dev->default_write_cache = dev->write_cache =
        o->cache != BLOCKDEV_CACHE_WRITETHROUGH && o->cache != BLOCKDEV_CACHE_DIRECTSYNC;
    dev->submitted.last = &dev->submitted.first;
    dev->completed.last = &dev->completed.first;
    timer_init(&dev->deliver, queue, deliver, dev);
    pthread_mutex_init(&dev->lock, NULL);
    pthread_cond_init(&dev->work, NULL);
    pthread_cond_init(&dev->settled, NULL);
    start_worker_locked(dev);
    if (!dev->workers) {
        error_set(err, "%s: cannot start a worker thread", o->path);
        blockdev_close(dev);
        return NULL;
    }
    return dev;
}

void blockdev_close(struct blockdev *dev)
{
    if (!dev)
        return;
    struct blockdev_request *request;
    pthread_mutex_lock(&dev->lock);
    dev->closing = true;
    pthread_cond_broadcast(&dev->work);
    pthread_mutex_unlock(&dev->lock);
    for (unsigned i = 0; i < dev->workers; i++)
        pthread_join(dev->threads[i], NULL);
    dev->workers = MAX_WORKERS; /* no more of them */
    deliver(dev);
    while ((request = list_take(&dev->submitted))) { /* what the completions asked for */
        run(dev, request);
        deliver(dev);
    }
    timer_cancel(&dev->deliver);
    struct blockdev_request last = {.op = BLOCKDEV_FLUSH};
    last.result = flush(dev);
    if (last.result)
        report(dev, &last);
    image_close(dev->image);
    pthread_cond_destroy(&dev->work);
    pthread_cond_destroy(&dev->settled);
    pthread_mutex_destroy(&dev->lock);
    free(dev);
}

/* ---- Questions --------------------------------------------------------------------------------
 */

uint64_t blockdev_size(const struct blockdev *dev)
{
    return dev->image->size;
}

bool blockdev_may_lend(const struct blockdev *dev, enum blockdev_op op, uint64_t offset)
{
    bool head = dev->image->probed_raw && offset < IMAGE_HEAD;
    bool looked_at = op == BLOCKDEV_WRITE && (head || dev->detect_zeroes != BLOCKDEV_DETECT_OFF);
    return !dev->image->remote && !looked_at;
}

bool blockdev_read_only(const struct blockdev *dev)
{
    return dev->read_only;
}

const char *blockdev_format(const struct blockdev *dev)
{
    return dev->image->format;
}

bool blockdev_write_cache(const struct blockdev *dev)
{
    return dev->write_cache;
}

bool blockdev_default_write_cache(const struct blockdev *dev)
{
    return dev->default_write_cache;
}

void blockdev_set_write_cache(struct blockdev *dev, bool on)
{
    dev->write_cache = on;
}

bool blockdev_format_known(const char *name)
{
    return format_find(name) != NULL;
}

void blockdev_format_names(const char **names, size_t n)
{
    size_t i = 0;
    for (const struct format *format; i + 1 < n && (format = format_at((unsigned)i)); i++)
        names[i] = format->name;
    names[i] = NULL;
}
