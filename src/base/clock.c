/*
 * clock.c - guest time from the host's monotonic clock. See include/internal/clock.h.
 *
 * Running:  now = host_now + offset, or the piece's line that comes very close to it.
 * Stopped or manual:  now = frozen.
 *
 * The piece that was made last stands under a sequence count, so that readers take no lock while it
 * holds. Everything else is done under the lock. A new piece begins at the TSC as it is found then,
 * behind the end of all earlier ones, with the host's time or, if these have run ahead of it, with
 * the highest time that they can have shown; then it is a little flatter, to be right at its end.
 */
#include "clock_rate.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

enum { PIECE_NS = 10000000 };
/* By how much a piece may be flatter than the host's clock: 1/16. */
enum { STEER_SHIFT = 4 };

struct clock {
    struct clock_host host;
    _Atomic uint64_t sequence; /* odd: `piece` is being written */
    struct {
        _Atomic uint64_t start, length, base, mult;
    } piece;
    /* `offset` is written before `running` becomes true, `frozen` before it becomes false. */
    _Atomic bool running;
    _Atomic uint64_t offset; /* added to the host's clock, modulo 2^64 */
    _Atomic uint64_t frozen;
    pthread_mutex_t lock; /* of what follows, and of writing the above */
    uint64_t last;        /* nobody has seen a later time, nor will by the pieces that there are */
    struct clock_rate rate;
    int64_t wall_base; /* wall-clock nanoseconds when the counter was 0 */
};

static uint64_t system_ns(clockid_t id)
{
    struct timespec ts;
    clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

static uint64_t monotonic_ns(void *opaque)
{
    (void)opaque;
    return system_ns(CLOCK_MONOTONIC);
}

static uint64_t host_ns(const struct clock *clock)
{
    return clock->host.ns(clock->host.opaque);
}

struct clock *clock_new_on(const struct clock_host *host)
{
    struct clock *clock = calloc(1, sizeof(*clock));
    if (!clock)
        return NULL;
    clock->host = *host;
    clock->running = true;
    clock->offset = -host_ns(clock);
    clock->wall_base = (int64_t)system_ns(CLOCK_REALTIME);
    pthread_mutex_init(&clock->lock, NULL);
    return clock;
}

struct clock *clock_new(void)
{
    struct clock_host host = {.ns = monotonic_ns};
    if (clock_tsc_is_trusted())
        host.tsc = clock_tsc;
    return clock_new_on(&host);
}

void clock_free(struct clock *clock)
{
    if (!clock)
        return;
    pthread_mutex_destroy(&clock->lock);
    free(clock);
}

/* ---- The piece ------------------------------------------------------------------------------- */

/* Loads are not reordered with later ones, nor stores with earlier ones; ThreadSanitizer wants it
 * said by the accesses, as it has no fences. */
static bool read_piece(const struct clock *clock, uint64_t sequence, struct clock_piece *piece)
{
    piece->start = atomic_load_explicit(&clock->piece.start, memory_order_acquire);
    piece->length = atomic_load_explicit(&clock->piece.length, memory_order_acquire);
    piece->base = atomic_load_explicit(&clock->piece.base, memory_order_acquire);
    piece->mult = atomic_load_explicit(&clock->piece.mult, memory_order_acquire);
    return !(sequence & 1) && atomic_load(&clock->sequence) == sequence;
}

static void set_piece_locked(struct clock *clock, const struct clock_piece *piece)
{
    uint64_t sequence = atomic_load(&clock->sequence);
    atomic_store(&clock->sequence, sequence + 1);
    atomic_store_explicit(&clock->piece.start, piece->start, memory_order_release);
    atomic_store_explicit(&clock->piece.length, piece->length, memory_order_release);
    atomic_store_explicit(&clock->piece.base, piece->base, memory_order_release);
    atomic_store_explicit(&clock->piece.mult, piece->mult, memory_order_release);
    atomic_store_explicit(&clock->sequence, sequence + 2, memory_order_release);
}

static void drop_piece_locked(struct clock *clock)
{
    set_piece_locked(clock, &(struct clock_piece){.length = 0});
}

/* A piece from `pair` on, where the host's time is `now` and the clock's is `base`. */
static struct clock_piece make_piece(const struct clock_rate *rate, const struct clock_pair *pair,
                                     uint64_t now, uint64_t base)
{
    uint64_t mult = rate->mult, ahead = base - now;
    struct clock_piece piece = {.start = pair->tsc, .base = base, .mult = mult};
    if (!mult)
        return piece;
    /* Not much longer than what it is drawn from: so an error of the rate stays as small as the
     * pairs' own. */
    uint64_t ns = (pair->ns - rate->first.ns) / 8;
    if (ns > PIECE_NS)
        ns = PIECE_NS;
    if (ahead > ns >> STEER_SHIFT)
        ahead = ns >> STEER_SHIFT;
    piece.length = (ns << 32) / mult;
    piece.mult -= clock_muldiv(mult, ahead, ns);
    return piece;
}

/* The host's clock, and a new piece if there can be one. */
static uint64_t renew_locked(struct clock *clock, struct clock_piece *piece)
{
    struct clock_pair pair;
    bool good = clock_pair_take(&clock->host, &pair);
    uint64_t now = pair.ns + clock->offset;
    uint64_t base = (int64_t)(now - clock->last) > 0 ? now : clock->last;
    if (good) {
        clock_rate_note(&clock->rate, &pair);
        *piece = make_piece(&clock->rate, &pair, now, base);
    } else {
        *piece = (struct clock_piece){.length = 0};
    }
    set_piece_locked(clock, piece);
    clock->last = base + (piece->length * piece->mult >> 32);
    return base;
}

/* Without pieces. */
static uint64_t plain_now(const struct clock *clock)
{
    if (!atomic_load_explicit(&clock->running, memory_order_acquire))
        return atomic_load_explicit(&clock->frozen, memory_order_relaxed);
    return host_ns(clock) + atomic_load_explicit(&clock->offset, memory_order_relaxed);
}

static uint64_t now_locked(struct clock *clock, struct clock_piece *piece)
{
    uint64_t now;
    *piece = (struct clock_piece){.length = 0};
    if (!clock->host.tsc || !clock->running)
        return plain_now(clock);
    /* Another thread may have made one meanwhile. */
    if (read_piece(clock, atomic_load(&clock->sequence), piece) &&
        clock_piece_at(piece, clock->host.tsc(clock->host.opaque), &now))
        return now;
    return renew_locked(clock, piece);
}

uint64_t clock_now_piece(struct clock *clock, struct clock_piece *piece)
{
    uint64_t now, sequence = atomic_load_explicit(&clock->sequence, memory_order_acquire);
    *piece = (struct clock_piece){.length = 0};
    if (!clock->host.tsc)
        return plain_now(clock);
    if (read_piece(clock, sequence, piece) && piece->length &&
        clock_piece_at(piece, clock->host.tsc(clock->host.opaque), &now) &&
        atomic_load(&clock->sequence) == sequence)
        return now;
    pthread_mutex_lock(&clock->lock);
    now = now_locked(clock, piece);
    pthread_mutex_unlock(&clock->lock);
    return now;
}

uint64_t clock_now(struct clock *clock)
{
    struct clock_piece piece;
    return clock_now_piece(clock, &piece);
}

/* ---- Stopping -------------------------------------------------------------------------------- */

static void freeze_locked(struct clock *clock, uint64_t ns)
{
    clock->frozen = ns;
    clock->running = false;
    drop_piece_locked(clock);
}

void clock_stop(struct clock *clock)
{
    struct clock_piece ignored;
    pthread_mutex_lock(&clock->lock);
    freeze_locked(clock, now_locked(clock, &ignored));
    pthread_mutex_unlock(&clock->lock);
}

void clock_start(struct clock *clock)
{
    pthread_mutex_lock(&clock->lock);
    if (!clock->running) {
        clock->offset = clock->frozen - host_ns(clock);
        clock->last = clock->frozen;
        clock->running = true;
    }
    pthread_mutex_unlock(&clock->lock);
}

void clock_set_manual(struct clock *clock, uint64_t ns)
{
    pthread_mutex_lock(&clock->lock);
    freeze_locked(clock, ns);
    pthread_mutex_unlock(&clock->lock);
}

int64_t clock_wall(struct clock *clock, uint32_t *ns)
{
    int64_t wall = clock->wall_base + (int64_t)clock_now(clock);
    if (ns)
        *ns = (uint32_t)(wall % 1000000000);
    return wall / 1000000000;
}
