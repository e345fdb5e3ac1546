/*
 * loan.c - guest memory that the host's kernel reads or writes by itself, for a device's transfer.
 *
 * DMA by phys_read() and phys_write() is an event: it asks the rules, and tells who has decoded
 * code or traces tables there. A loan has a length in time, so it must not meet any of these:
 *
 * * A frame of which somebody has to hear is not lent; the device copies then.
 * * Who makes such a frame of one that is lent sets the attribute first and then waits until it has
 *   come back (frame_await()): rules, and decoded code. Page tables need not wait: what is derived
 *   from one that is lent is not exact (trace.c).
 *
 * Both sides change or read the one attribute word, so whichever comes second sees the first. A
 * frame has one borrower at a time. The end of a loan needs no lock that a waiter may hold: the
 * borrower may be waited for with the machine lock held or with all vCPUs parked.
 */
#include "map.h"
#include <stdlib.h>

/* What keeps a frame from being lent: for the host to read it, and for the host to write it. */
enum {
    NOT_TO_READ = FRAME_LENT | FRAME_RULED | FRAME_RULED_CODE,
    NOT_TO_WRITE = NOT_TO_READ | FRAME_SLOW_WRITE,
};

static uint32_t mark_of(const struct phys_loan *loan)
{
    return loan->to_memory ? FRAME_LENT | FRAME_LENT_WRITE : FRAME_LENT;
}

struct phys_loan *phys_loan_new(struct phys_map *map, bool to_memory, unsigned pieces)
{
    struct phys_loan *loan =
        malloc(sizeof(*loan) + pieces * (sizeof(loan->iov[0]) + sizeof(loan->frames[0])));
    if (!loan)
        return NULL;
    *loan = (struct phys_loan){.map = map, .to_memory = to_memory, .room = pieces};
    loan->frames = (struct frame **)&loan->iov[pieces];
    return loan;
}

static bool lend(struct frame *frame, const struct phys_loan *loan)
{
    const uint32_t barred = loan->to_memory ? NOT_TO_WRITE : NOT_TO_READ;
    uint32_t attr = atomic_load(&frame->attr);
    do {
        if (attr & barred)
            return false;
    } while (!atomic_compare_exchange_weak(&frame->attr, &attr, attr | mark_of(loan)));
    return true;
}

/* Appends one frame. */
static bool append(struct phys_loan *loan, uint8_t *hva, struct frame *frame)
{
    struct iovec *last = loan->count ? &loan->iov[loan->count - 1] : NULL;
    bool follows = last && (uint8_t *)last->iov_base + last->iov_len == hva &&
                   loan->frames[loan->count - 1] + last->iov_len / PAGE_SIZE == frame;
    if ((!follows && loan->count == loan->room) || !lend(frame, loan))
        return false;
    if (follows) {
        last->iov_len += PAGE_SIZE;
        return true;
    }
    loan->frames[loan->count] = frame;
    loan->iov[loan->count++] = (struct iovec){hva, PAGE_SIZE};
    return true;
}

bool phys_loan_add(struct phys_loan *loan, uint64_t gpa, uint64_t len)
{
    struct phys_range range = PHYS_RANGE_INIT;
    if ((gpa | len) & ~PAGE_MASK)
        return false;
    for (; len; gpa += PAGE_SIZE, len -= PAGE_SIZE) {
        phys_find(loan->map, gpa, &range);
        if (!range_is_memory(&range) || range.end - gpa < PAGE_SIZE ||
            (range_block_offset(&range, gpa) & ~PAGE_MASK) ||
            !append(loan, range_hva(&range, gpa), range_frame(&range, gpa)))
            return false;
    }
    return true;
}

void phys_loan_end(struct phys_loan *loan)
{
    if (!loan)
        return;
    struct phys_map *map = loan->map;
    for (unsigned i = 0; i < loan->count; i++)
        for (size_t n = 0; n < loan->iov[i].iov_len / PAGE_SIZE; n++)
            atomic_fetch_and(&loan->frames[i][n].attr, ~mark_of(loan));
    if (atomic_load(&map->loan_waiters)) { /* who comes now finds the mark gone */
        pthread_mutex_lock(&map->loan_lock);
        pthread_cond_broadcast(&map->loan_ended);
        pthread_mutex_unlock(&map->loan_lock);
    }
    free(loan);
}

void frame_await(struct phys_map *map, struct frame *frame, uint32_t mark)
{
    if (!(atomic_load(&frame->attr) & mark))
        return;
    pthread_mutex_lock(&map->loan_lock);
    atomic_fetch_add(&map->loan_waiters, 1);
    while (atomic_load(&frame->attr) & mark)
        pthread_cond_wait(&map->loan_ended, &map->loan_lock);
    atomic_fetch_sub(&map->loan_waiters, 1);
    pthread_mutex_unlock(&map->loan_lock);
}
