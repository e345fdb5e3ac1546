/*
 * event.h - the one queue through which everything from outside reaches a device.
 *
 * Timers, file descriptors and completions that worker threads post are all delivered by one
 * thread, the machine's I/O thread, in event_loop_run(), with the machine lock held. A worker does
 * I/O but never calls into a device. In a deterministic machine the same deliveries will happen at
 * a retired-instruction count; that is why there is only this one way in.
 */
#ifndef INTERNAL_EVENT_H
#define INTERNAL_EVENT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct clock;
struct event_queue;

typedef void event_fn(void *opaque);
typedef void event_fd_fn(void *opaque, int fd, unsigned poll_events);

/* A one-shot timer, embedded in its device. Zero-initialise, then timer_init(). */
struct timer {
    struct event_queue *queue;
    event_fn *fn;
    void *opaque;
    uint64_t deadline; /* clock_now() value at which to fire */
    uint32_t heap;     /* 1 + index in the queue's heap; 0 = not armed */
};

/* `lock` is the machine lock: taken around every delivery. */
struct event_queue *event_queue_new(struct clock *clock, pthread_mutex_t *lock);
void event_queue_free(struct event_queue *queue);

void timer_init(struct timer *timer, struct event_queue *queue, event_fn *fn, void *opaque);
/* (Re)arms; a deadline in the past fires as soon as possible, but never inside this call. Thread
 * safe. */
void timer_arm(struct timer *timer, uint64_t deadline);
void timer_cancel(struct timer *timer);
bool timer_armed(const struct timer *timer);

/* Asks for fn(opaque) in the I/O thread. Thread safe; events of one thread keep their order. */
void event_post(struct event_queue *queue, event_fn *fn, void *opaque);

/* Calls fn whenever poll(2) reports one of poll_events on fd. One watch per fd; 0 events pauses
 * it; fn NULL removes it. */
void event_watch(struct event_queue *queue, int fd, unsigned poll_events, event_fd_fn *fn,
                 void *opaque);

/* Delivers what is due now (timers, posts, ready descriptors) and returns: one turn of the loop
 * without waiting. Called without the lock. */
void event_poll(struct event_queue *queue);
/* Delivers until event_loop_quit(); called by the I/O thread, without the lock. */
void event_loop_run(struct event_queue *queue);
void event_loop_quit(struct event_queue *queue); /* thread safe */

#endif
