/*
 * heap.c - malloc() and its kind for an unmodified program, by LD_PRELOAD: every byte that is not a
 * living block's is out of bounds.
 *
 * Freed blocks wait in a quarantine before their memory is used again, so that a use after free is
 * still known for what it is.
 */
#include "heap.h"
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>

/* glibc's names, some with an argument that the compiler would check against its own ideas. */
#define EXPORT __attribute__((visibility("default")))
#define CALLER __builtin_return_address(0)

enum { QUARANTINE_BLOCKS = 4096 };
#define QUARANTINE_BYTES ((size_t)8 << 20)

static char lock;
static enum { CLOSED, OPENING, OPEN, FORKED } state;
static uint32_t oldest, newest; /* of the quarantine */
static unsigned quarantined;
static size_t quarantined_bytes;

static void in_child(void)
{
    state = FORKED;
}

static void acquire(void)
{
    while (__atomic_test_and_set(&lock, __ATOMIC_ACQUIRE))
        sched_yield();
}

static void release(void)
{
    __atomic_clear(&lock, __ATOMIC_RELEASE);
}

static void acquire_open(void)
{
    acquire();
    if (state == CLOSED)
        zones_open();
    else if (state == FORKED)
        zones_reopen();
    state = OPEN;
}

/* A child process is another address space: it needs a door of its own, and opens it when it first
 * allocates. A child that only calls exec() needs none. */
static __attribute__((constructor)) void watch_forks(void)
{
    pthread_atfork(acquire, release, release);
    pthread_atfork(NULL, NULL, in_child);
}

/* ---- Blocks -------------------------------------------------------------------------------------
 */

static void *allocate(size_t size, size_t alignment, const void *caller)
{
    void *start = NULL;
    acquire_open();
    uint32_t number = block_new(size, alignment);
    if (number) {
        block_at(number)->allocated_by = caller;
        zones_protect(number);
        start = block_at(number)->start;
    }
    release();
    if (!start)
        errno = ENOMEM;
    return start;
}

static void leave_quarantine(void)
{
    uint32_t number = oldest;
    struct block *block = block_at(number);
    oldest = block->queue;
    quarantined--;
    quarantined_bytes -= block->space;
    zones_drop(number);
    block_release(number);
}

static void enter_quarantine(uint32_t number)
{
    struct block *block = block_at(number);
    block->queue = 0;
    if (quarantined++)
        block_at(newest)->queue = number;
    else
        oldest = number;
    newest = number;
    quarantined_bytes += block->space;
    while (quarantined > QUARANTINE_BLOCKS ||
           (quarantined > 1 && quarantined_bytes > QUARANTINE_BYTES))
        leave_quarantine();
}

static void deallocate(void *start, const void *caller)
{
    if (!start)
        return;
    acquire_open();
    uint32_t number = block_find(start);
    struct block *block = block_at(number);
    if (!number || block->state != BLOCK_LIVE) {
        report_free(start, number ? block : NULL, caller);
    } else {
        block->state = BLOCK_FREED;
        block->freed_by = caller;
        zones_free(number);
        enter_quarantine(number);
    }
    release();
}

/* The size that was asked for; 0 for what is no block. */
static size_t size_of(const void *start)
{
    acquire();
    uint32_t number = block_find(start);
    size_t size = number && block_at(number)->state == BLOCK_LIVE ? block_at(number)->size : 0;
    release();
    return size;
}

/* ---- What programs call -------------------------------------------------------------------------
 */

EXPORT void *malloc(size_t size)
{
    return allocate(size, ALIGNMENT, CALLER);
}

EXPORT void free(void *start)
{
    int error = errno; /* POSIX 2024: free() keeps it */
    deallocate(start, CALLER);
    errno = error;
}

EXPORT void *calloc(size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    void *start = allocate(bytes, ALIGNMENT, CALLER);
    return start ? memset(start, 0, bytes) : NULL;
}

EXPORT void *realloc(void *old, size_t size)
{
    if (old && !size) {
        deallocate(old, CALLER);
        return NULL;
    }
    void *start = allocate(size, ALIGNMENT, CALLER);
    if (start && old) {
        size_t before = size_of(old);
        memcpy(start, old, before < size ? before : size);
        deallocate(old, CALLER);
    }
    return start;
}

EXPORT int posix_memalign(void **start, size_t alignment, size_t size)
{
    if (alignment < sizeof(void *) || alignment & (alignment - 1))
        return EINVAL;
    int error = errno;
    void *got = allocate(size, alignment, CALLER);
    errno = error;
    if (!got)
        return ENOMEM;
    *start = got;
    return 0;
}

EXPORT void *memalign(size_t alignment, size_t size)
{
    return allocate(size, alignment, CALLER);
}

EXPORT void *aligned_alloc(size_t alignment, size_t size)
{
    return allocate(size, alignment, CALLER);
}

EXPORT void *valloc(size_t size)
{
    return allocate(size, PAGE, CALLER);
}

EXPORT size_t malloc_usable_size(void *start)
{
    return size_of(start);
}
