/*
 * blockdev.c - requests to a disk image: worker threads do them, the event queue brings the results
 * back. See internal/blockdev.h for the contract.
 *
 * Requests are taken in order but may complete in any order, as on a disk with a queue. A flush
 * therefore promises what fdatasync() does: whatever was reported complete before it was submitted
 * is on the disk when it completes. When fdatasync() fails, the kernel may have dropped the pages
 * it could not write and report success the next time; so a failed flush makes all later ones fail.
 *
 * Results come back through one timer that is armed for "now": unlike a post, it can be taken back
 * when the device is closed.
 */
#include "internal/blockdev.h"
#include "image.h"
#include "internal/error.h"
#include "internal/event.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_WORKERS 2

struct request_list {
    struct blockdev_request *first, **last;
};

struct blockdev {
    struct image image;
    bool read_only;
    struct timer deliver; /* armed while `completed` waits */
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t work;
    struct request_list submitted, completed;
    bool closing;
    int flush_error;
    int reported; /* the errno that was last reported on stderr */
    unsigned workers;
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
    if (news)
        fprintf(stderr, "bailey: %s: %s %llu bytes at offset %llu: %s\n", dev->image.path,
                verbs[request->op], (unsigned long long)request->len,
                (unsigned long long)request->offset, strerror(-request->result));
}

static int flush(struct blockdev *dev)
{
    pthread_mutex_lock(&dev->lock);
    int result = dev->flush_error;
    pthread_mutex_unlock(&dev->lock);
    if (result || dev->read_only)
        return result;
    result = image_flush(&dev->image);
    if (result) {
        pthread_mutex_lock(&dev->lock);
        dev->flush_error = result;
        pthread_mutex_unlock(&dev->lock);
    }
    return result;
}

static int check(const struct blockdev *dev, const struct blockdev_request *request)
{
    if (request->op == BLOCKDEV_FLUSH)
        return 0;
    if (request->op != BLOCKDEV_READ && dev->read_only)
        return -EROFS;
    if (request->offset % IMAGE_SECTOR || request->len % IMAGE_SECTOR)
        return -EINVAL;
    if (request->offset > dev->image.size || request->len > dev->image.size - request->offset)
        return -EINVAL;
    return 0;
}

static int perform(struct blockdev *dev, const struct blockdev_request *request)
{
    struct image *image = &dev->image;
    int result = check(dev, request);
    if (result || (!request->len && request->op != BLOCKDEV_FLUSH))
        return result;
    switch (request->op) {
    case BLOCKDEV_READ:
        return image_read(image, request->iov, request->iovcnt, request->offset, request->len);
    case BLOCKDEV_WRITE:
        return image_write(image, request->iov, request->iovcnt, request->offset, request->len);
    case BLOCKDEV_FLUSH:
        return flush(dev);
    case BLOCKDEV_DISCARD:
        return image_discard(image, request->offset, request->len);
    case BLOCKDEV_WRITE_ZEROES:
        return image_write_zeroes(image, request->offset, request->len);
    }
    return -EINVAL;
}

static void run(struct blockdev *dev, struct blockdev_request *request)
{
    request->result = perform(dev, request);
    if (request->result)
        report(dev, request);
    pthread_mutex_lock(&dev->lock);
    list_add(&dev->completed, request);
    timer_arm(&dev->deliver, 0);
    pthread_mutex_unlock(&dev->lock);
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
            pthread_mutex_unlock(&dev->lock);
            run(dev, request);
            pthread_mutex_lock(&dev->lock);
        } else {
            pthread_cond_wait(&dev->work, &dev->lock);
        }
    }
    pthread_mutex_unlock(&dev->lock);
    return NULL;
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
    pthread_mutex_lock(&dev->lock);
    list_add(&dev->submitted, request);
    pthread_cond_signal(&dev->work);
    pthread_mutex_unlock(&dev->lock);
}

/* ---- Open and close ---------------------------------------------------------------------------
 */

/* Signals are the main thread's; a worker must not run its handlers. */
static unsigned start_workers(struct blockdev *dev, unsigned wanted)
{
    sigset_t all, old;
    unsigned n = 0;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    while (n < wanted && pthread_create(&dev->threads[n], NULL, worker, dev) == 0)
        n++;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return n;
}

struct blockdev *blockdev_open(const char *path, unsigned flags, struct event_queue *queue,
                               struct error *err)
{
    struct blockdev *dev = calloc(1, sizeof(*dev));
    if (!dev) {
        error_set(err, "%s: out of memory", path);
        return NULL;
    }
    if (!image_open(&dev->image, path, flags, err)) {
        free(dev);
        return NULL;
    }
    dev->read_only = (flags & BLOCKDEV_READ_ONLY) != 0;
    dev->submitted.last = &dev->submitted.first;
    dev->completed.last = &dev->completed.first;
    timer_init(&dev->deliver, queue, deliver, dev);
    pthread_mutex_init(&dev->lock, NULL);
    pthread_cond_init(&dev->work, NULL);
    /* The snapshot's map has no lock of its own: one worker. */
    dev->workers = start_workers(dev, flags & BLOCKDEV_SNAPSHOT ? 1 : MAX_WORKERS);
    if (!dev->workers) {
        error_set(err, "%s: cannot start a worker thread", path);
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
    image_close(&dev->image);
    pthread_cond_destroy(&dev->work);
    pthread_mutex_destroy(&dev->lock);
    free(dev);
}

uint64_t blockdev_size(const struct blockdev *dev)
{
    return dev->image.size;
}

bool blockdev_read_only(const struct blockdev *dev)
{
    return dev->read_only;
}
