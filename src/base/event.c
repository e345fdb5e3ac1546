/*
 * event.c - timers, posts and descriptors, delivered by one thread. See include/internal/event.h.
 *
 * The queue's own lock protects its lists only; it is never held while a callback runs, so that
 * callbacks may arm timers and post. Lock order: machine lock, then queue lock.
 */
#include "internal/event.h"
#include "internal/clock.h"
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

struct post {
    event_fn *fn;
    void *opaque;
    struct post *next;
};

struct watch {
    int fd;
    short events;
    event_fd_fn *fn;
    void *opaque;
};

struct event_queue {
    struct clock *clock;
    pthread_mutex_t *machine_lock;
    pthread_mutex_t lock;
    int wake_fd;
    _Atomic bool quit;
    /* a binary heap of armed timers, earliest first; index 0 is unused */
    struct timer **heap;
    uint32_t heap_len, heap_size;
    struct post *first, **last;
    size_t post_count;
    struct watch *watches;
    size_t watch_count;
    struct pollfd *polls; /* the loop's copy of the watches, and the wake descriptor */
    size_t poll_size;
};

static void oom(void)
{
    perror("bailey: event queue");
    abort();
}

struct event_queue *event_queue_new(struct clock *clock, pthread_mutex_t *lock)
{
    struct event_queue *q = calloc(1, sizeof(*q));
    if (!q)
        return NULL;
    q->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (q->wake_fd < 0) {
        free(q);
        return NULL;
    }
    pthread_mutex_init(&q->lock, NULL);
    q->clock = clock;
    q->machine_lock = lock;
    q->last = &q->first;
    return q;
}

void event_queue_free(struct event_queue *q)
{
    if (!q)
        return;
    while (q->first) {
        struct post *post = q->first;
        q->first = post->next;
        free(post);
    }
    close(q->wake_fd);
    pthread_mutex_destroy(&q->lock);
    free(q->heap);
    free(q->watches);
    free(q->polls);
    free(q);
}

static void wake(struct event_queue *q)
{
    uint64_t one = 1;
    ssize_t n = write(q->wake_fd, &one, sizeof(one));
    (void)n; /* EAGAIN: the counter is full, so the loop is awake anyway */
}

/* ---- The heap -----------------------------------------------------------------------------------
 */

static void heap_put_locked(struct event_queue *q, uint32_t i, struct timer *timer)
{
    q->heap[i] = timer;
    timer->heap = i;
}

/* Moves `timer` from the hole at index i to where the order holds. */
static void heap_settle_locked(struct event_queue *q, uint32_t i, struct timer *timer)
{
    while (i > 1 && timer->deadline < q->heap[i / 2]->deadline) {
        heap_put_locked(q, i, q->heap[i / 2]);
        i /= 2;
    }
    for (;;) {
        uint32_t child = 2 * i;
        if (child > q->heap_len)
            break;
        if (child < q->heap_len && q->heap[child + 1]->deadline < q->heap[child]->deadline)
            child++;
        if (timer->deadline <= q->heap[child]->deadline)
            break;
        heap_put_locked(q, i, q->heap[child]);
        i = child;
    }
    heap_put_locked(q, i, timer);
}

static void heap_remove_locked(struct event_queue *q, struct timer *timer)
{
    uint32_t hole = timer->heap;
    struct timer *moved = q->heap[q->heap_len--];
    timer->heap = 0;
    if (moved != timer)
        heap_settle_locked(q, hole, moved);
}

void timer_init(struct timer *timer, struct event_queue *queue, event_fn *fn, void *opaque)
{
    memset(timer, 0, sizeof(*timer));
    timer->queue = queue;
    timer->fn = fn;
    timer->opaque = opaque;
}

void timer_arm(struct timer *timer, uint64_t deadline)
{
    struct event_queue *q = timer->queue;
    pthread_mutex_lock(&q->lock);
    if (timer->heap)
        heap_remove_locked(q, timer);
    if (q->heap_len + 1 >= q->heap_size) {
        uint32_t size = q->heap_size ? 2 * q->heap_size : 32;
        struct timer **heap = realloc(q->heap, size * sizeof(*heap));
        if (!heap)
            oom();
        q->heap = heap;
        q->heap_size = size;
    }
    timer->deadline = deadline;
    heap_settle_locked(q, ++q->heap_len, timer);
    bool first = timer->heap == 1;
    pthread_mutex_unlock(&q->lock);
    if (first)
        wake(q);
}

void timer_cancel(struct timer *timer)
{
    struct event_queue *q = timer->queue;
    if (!q)
        return;
    pthread_mutex_lock(&q->lock);
    if (timer->heap)
        heap_remove_locked(q, timer);
    pthread_mutex_unlock(&q->lock);
}

bool timer_armed(const struct timer *timer)
{
    if (!timer->queue)
        return false;
    pthread_mutex_lock(&timer->queue->lock);
    bool armed = timer->heap != 0;
    pthread_mutex_unlock(&timer->queue->lock);
    return armed;
}

/* ---- Posts and descriptors ------------------------------------------------------------------- */

void event_post(struct event_queue *q, event_fn *fn, void *opaque)
{
    struct post *post = malloc(sizeof(*post));
    if (!post)
        oom();
    *post = (struct post){.fn = fn, .opaque = opaque};
    pthread_mutex_lock(&q->lock);
    *q->last = post;
    q->last = &post->next;
    q->post_count++;
    pthread_mutex_unlock(&q->lock);
    wake(q);
}

static struct watch *find_watch_locked(struct event_queue *q, int fd)
{
    for (size_t i = 0; i < q->watch_count; i++)
        if (q->watches[i].fd == fd)
            return &q->watches[i];
    return NULL;
}

void event_watch(struct event_queue *q, int fd, unsigned poll_events, event_fd_fn *fn, void *opaque)
{
    pthread_mutex_lock(&q->lock);
    struct watch *w = find_watch_locked(q, fd);
    if (!fn) {
        if (w)
            *w = q->watches[--q->watch_count];
    } else {
        if (!w) {
            struct watch *bigger = realloc(q->watches, (q->watch_count + 1) * sizeof(*w));
            if (!bigger)
                oom();
            q->watches = bigger;
            w = &q->watches[q->watch_count++];
        }
        *w = (struct watch){.fd = fd, .events = (short)poll_events, .fn = fn, .opaque = opaque};
    }
    pthread_mutex_unlock(&q->lock);
    wake(q);
}

/* ---- The loop -------------------------------------------------------------------------------- */

/* Takes one due timer or one post off the queue; false when there is none. */
static bool take_one(struct event_queue *q, uint64_t now, event_fn **fn, void **opaque)
{
    bool found = false;
    struct post *post = NULL;
    pthread_mutex_lock(&q->lock);
    if (q->heap_len && q->heap[1]->deadline <= now) {
        struct timer *timer = q->heap[1];
        heap_remove_locked(q, timer);
        *fn = timer->fn;
        *opaque = timer->opaque;
        found = true;
    } else if ((post = q->first)) {
        q->first = post->next;
        q->post_count--;
        if (!q->first)
            q->last = &q->first;
        *fn = post->fn;
        *opaque = post->opaque;
        found = true;
    }
    pthread_mutex_unlock(&q->lock);
    free(post);
    return found;
}

/* The machine lock is taken before a timer is taken off the heap, so that whoever holds it and
 * cancels a timer knows that it will not fire any more. What callbacks add is left for the next
 * turn: a timer that arms itself for the past cannot keep the loop from the descriptors. */
static void deliver_due(struct event_queue *q)
{
    uint64_t now = clock_now(q->clock);
    pthread_mutex_lock(&q->lock);
    size_t left = q->heap_len + q->post_count;
    pthread_mutex_unlock(&q->lock);
    bool more = true;
    while (more && left--) {
        event_fn *fn = NULL;
        void *opaque = NULL;
        pthread_mutex_lock(q->machine_lock);
        more = take_one(q, now, &fn, &opaque);
        if (more)
            fn(opaque);
        pthread_mutex_unlock(q->machine_lock);
    }
}

/* Copies the watches into q->polls; returns how many. */
static size_t gather_polls(struct event_queue *q)
{
    pthread_mutex_lock(&q->lock);
    size_t n = q->watch_count + 1;
    if (n > q->poll_size) {
        struct pollfd *polls = realloc(q->polls, n * sizeof(*polls));
        if (!polls)
            oom();
        q->polls = polls;
        q->poll_size = n;
    }
    q->polls[0] = (struct pollfd){.fd = q->wake_fd, .events = POLLIN};
    for (size_t i = 0; i + 1 < n; i++) /* poll ignores negative descriptors: a paused watch */
        q->polls[i + 1] = (struct pollfd){.fd = q->watches[i].events ? q->watches[i].fd : -1,
                                          .events = q->watches[i].events};
    pthread_mutex_unlock(&q->lock);
    return n;
}

static void deliver_descriptor(struct event_queue *q, int fd, short revents)
{
    pthread_mutex_lock(q->machine_lock);
    pthread_mutex_lock(&q->lock);
    struct watch *w = find_watch_locked(q, fd);
    struct watch copy = w ? *w : (struct watch){0};
    pthread_mutex_unlock(&q->lock);
    if (copy.fn && copy.events)
        copy.fn(copy.opaque, fd, (unsigned)revents);
    pthread_mutex_unlock(q->machine_lock);
}

/* Waits for a descriptor until the next deadline (or not at all), then delivers. */
static void turn(struct event_queue *q, bool may_wait)
{
    size_t n = gather_polls(q);
    uint64_t now = clock_now(q->clock);
    struct timespec timeout = {0, 0}, *limit = &timeout;
    pthread_mutex_lock(&q->lock);
    bool work = q->first || (q->heap_len && q->heap[1]->deadline <= now);
    if (may_wait && !work && q->heap_len) {
        uint64_t ns = q->heap[1]->deadline - now;
        timeout.tv_sec = (time_t)(ns / 1000000000ull < 3600 ? ns / 1000000000ull : 3600);
        timeout.tv_nsec = (long)(ns % 1000000000ull);
    } else if (may_wait && !work) {
        limit = NULL;
    }
    pthread_mutex_unlock(&q->lock);
    int ready = ppoll(q->polls, n, limit, NULL);
    if (ready < 0 && errno != EINTR)
        oom();
    if (ready > 0 && q->polls[0].revents) {
        uint64_t count;
        ssize_t got = read(q->wake_fd, &count, sizeof(count));
        (void)got; /* EAGAIN: somebody else's wake was read already */
    }
    deliver_due(q);
    for (size_t i = 1; ready > 0 && i < n; i++)
        if (q->polls[i].revents && q->polls[i].fd >= 0)
            deliver_descriptor(q, q->polls[i].fd, q->polls[i].revents);
}

void event_poll(struct event_queue *q)
{
    turn(q, false);
}

void event_loop_run(struct event_queue *q)
{
    while (!atomic_load(&q->quit))
        turn(q, true);
    atomic_store(&q->quit, false);
}

void event_loop_quit(struct event_queue *q)
{
    atomic_store(&q->quit, true);
    wake(q);
}
