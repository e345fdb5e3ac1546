/*
 * ahead.c - the thread that gets host memory ahead, and its queue.
 *
 * Piece by piece, so that forgetting never waits for long, nor a thread that wants to map or unmap
 * something: the host's kernel keeps the list of mappings locked while it fills one.
 */
#include "internal/ahead.h"
#include "internal/thread.h"
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { QUEUE = 64, PIECE = 2 << 20 };

/* Addresses, since bytes of several mappings are compared. */
struct piece {
    uintptr_t begin, end;
    enum ahead_kind kind;
};

struct queue {
    struct piece piece[QUEUE];
    unsigned first, count;
};

struct ahead {
    pthread_mutex_t lock;
    pthread_cond_t changed; /* something to do, quit, or `now` is done */
    pthread_t thread;
    bool started, quit;
    bool idle;             /* the thread waits for something to do */
    bool useless;          /* the host cannot, or there is no thread */
    struct queue queue[2]; /* what is wanted soon, what else */
    struct piece now;      /* empty: none */
};

struct ahead *ahead_new(void)
{
    struct ahead *ahead = calloc(1, sizeof *ahead);
    if (!ahead)
        return NULL;
    pthread_mutex_init(&ahead->lock, NULL);
    pthread_cond_init(&ahead->changed, NULL);
    return ahead;
}

void ahead_free(struct ahead *ahead)
{
    if (!ahead)
        return;
    pthread_mutex_lock(&ahead->lock);
    ahead->quit = true;
    pthread_cond_broadcast(&ahead->changed);
    pthread_mutex_unlock(&ahead->lock);
    if (ahead->started)
        pthread_join(ahead->thread, NULL);
    pthread_cond_destroy(&ahead->changed);
    pthread_mutex_destroy(&ahead->lock);
    free(ahead);
}

/* ---- The thread ------------------------------------------------------------------------------ */

static struct queue *next_queue(struct ahead *ahead)
{
    return ahead->queue[0].count   ? &ahead->queue[0]
           : ahead->queue[1].count ? &ahead->queue[1]
                                   : NULL;
}

/* The first of the queue, up to the next multiple of PIECE. */
static struct piece next_piece(struct queue *q)
{
    struct piece *first = &q->piece[q->first], piece = *first;
    uintptr_t end = (piece.begin | (PIECE - 1)) + 1;
    if (end < piece.end) {
        piece.end = first->begin = end;
    } else {
        q->first = (q->first + 1) % QUEUE;
        q->count--;
    }
    return piece;
}

static void *run(void *opaque)
{
    struct ahead *ahead = opaque;
    pthread_mutex_lock(&ahead->lock);
    while (!ahead->quit) {
        struct queue *q = next_queue(ahead);
        if (!q) {
            ahead->idle = true;
            pthread_cond_wait(&ahead->changed, &ahead->lock);
            ahead->idle = false;
            continue;
        }
        struct piece piece = ahead->now = next_piece(q);
        pthread_mutex_unlock(&ahead->lock);
        /* Other errors are of this piece, like memory that the host does not have. */
        bool known = madvise((void *)piece.begin, piece.end - piece.begin,
                             piece.kind == AHEAD_READ_SOON ? MADV_POPULATE_READ
                                                           : MADV_POPULATE_WRITE) == 0 ||
                     errno != EINVAL;
        pthread_mutex_lock(&ahead->lock);
        ahead->now = (struct piece){0};
        ahead->useless |= !known;
        pthread_cond_broadcast(&ahead->changed);
    }
    pthread_mutex_unlock(&ahead->lock);
    return NULL;
}

/* ---- Asking ---------------------------------------------------------------------------------- */

void ahead_ask(struct ahead *ahead, void *memory, size_t size, enum ahead_kind kind)
{
    struct queue *q = &ahead->queue[kind == AHEAD_WRITE];
    pthread_mutex_lock(&ahead->lock);
    if (!ahead->started && !ahead->useless) {
        ahead->started = thread_start(&ahead->thread, run, ahead) == 0;
        ahead->useless = !ahead->started;
    }
    if (!ahead->useless && q->count < QUEUE) {
        uintptr_t begin = (uintptr_t)memory;
        q->piece[(q->first + q->count++) % QUEUE] = (struct piece){begin, begin + size, kind};
        if (ahead->idle) /* else it looks before it does */
            pthread_cond_broadcast(&ahead->changed);
    }
    pthread_mutex_unlock(&ahead->lock);
}

static bool overlap(const struct piece *piece, uintptr_t begin, size_t size)
{
    return piece->begin < begin + size && begin < piece->end;
}

static void forget_queued(struct queue *q, uintptr_t begin, size_t size)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < q->count; i++) {
        struct piece piece = q->piece[(q->first + i) % QUEUE];
        if (!overlap(&piece, begin, size))
            q->piece[(q->first + kept++) % QUEUE] = piece;
    }
    q->count = kept;
}

void ahead_forget(struct ahead *ahead, const void *memory, size_t size)
{
    uintptr_t begin = (uintptr_t)memory;
    pthread_mutex_lock(&ahead->lock);
    forget_queued(&ahead->queue[0], begin, size);
    forget_queued(&ahead->queue[1], begin, size);
    while (overlap(&ahead->now, begin, size))
        pthread_cond_wait(&ahead->changed, &ahead->lock);
    pthread_mutex_unlock(&ahead->lock);
}
