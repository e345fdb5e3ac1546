/*
 * disks.c - what `./dev bench disk` runs in its guests: one kind of access to a disk, timed.
 *
 *     disk FILE KIND FIRST-MIB MIBS MILLISECONDS
 *
 * The file is opened with O_DIRECT, so that the guest's page cache has no part in it. KIND is one
 * of `kinds` below. Sequential ones go over the area once and again until the time is up, random
 * ones choose each of its blocks once, in an order that is the same everywhere; those that are
 * "new" go over it once at most. Buffers are one piece of the guest's memory; "apart" ones are
 * pages of which no two lie side by side: how long a request can be then, the controller's and the
 * driver's lists decide. A line "KIND NANOSECONDS BYTES OPERATIONS" says what was done.
 *
 * Every 4 KiB that is written begins with where it belongs, and every read looks at that: bytes at
 * the wrong place end the program ("KIND failed ...", status 1). Before anything is read, the area
 * must have been written.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, HUGE_PAGE = 2 << 20, MOST_THREADS = 8 };
enum access { READ, WRITE, WRITE_FLUSH };

static const struct kind {
    const char *name;
    enum access access;
    size_t block;
    enum { RANDOM = 1, ONCE = 2, APART = 4 } how;
    unsigned threads;
} kinds[] = {
    {"write-1m-new", WRITE, 1 << 20, ONCE, 1},
    {"write-4k-new", WRITE, PAGE, RANDOM | ONCE, 1},
    {"read-1m", READ, 1 << 20, 0, 1},
    {"write-1m", WRITE, 1 << 20, 0, 1},
    {"read-1m-apart", READ, 1 << 20, APART, 1},
    {"write-1m-apart", WRITE, 1 << 20, APART, 1},
    {"read-256k", READ, 256 << 10, 0, 1},
    {"write-256k", WRITE, 256 << 10, 0, 1},
    {"read-4k", READ, PAGE, RANDOM, 1},
    {"write-4k", WRITE, PAGE, RANDOM, 1},
    {"read-4k-8", READ, PAGE, RANDOM, MOST_THREADS},
    {"write-4k-8", WRITE, PAGE, RANDOM, MOST_THREADS},
    {"flush-4k", WRITE_FLUSH, PAGE, RANDOM, 1},
};

static const struct kind *kind;
static int fd;
static uint64_t base, blocks, stop; /* bytes, blocks, CLOCK_MONOTONIC */
static _Atomic uint64_t next_block, operations;

static uint64_t now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static _Noreturn void fail(const char *what, uint64_t at)
{
    printf("%s failed: %s at %llu: %s\n", kind->name, what, (unsigned long long)at,
           strerror(errno));
    exit(1);
}

/* A prime step visits every block once: blocks are a power of two times a small number. */
static uint64_t place(uint64_t turn)
{
    uint64_t block = turn % blocks;
    if (kind->how & RANDOM)
        block = block * 1000003 % blocks;
    return base + block * kind->block;
}

static void stamp(uint8_t *buffer, uint64_t at)
{
    for (size_t i = 0; i < kind->block; i += PAGE) {
        const uint64_t where = at + i;
        memcpy(buffer + i, &where, sizeof(where));
    }
}

static void look(const uint8_t *buffer, uint64_t at)
{
    for (size_t i = 0; i < kind->block; i += PAGE) {
        uint64_t where;
        memcpy(&where, buffer + i, sizeof(where));
        if (where != at + i) {
            errno = EIO;
            fail("other bytes than were written", at + i);
        }
    }
}

/* The kernel gives out pages in the order of their addresses, and in the order in which they are
 * first touched. */
static uint8_t *new_buffer(void)
{
    uint8_t *buffer = aligned_alloc(HUGE_PAGE, HUGE_PAGE);
    if (!buffer || madvise(buffer, HUGE_PAGE, kind->how & APART ? MADV_NOHUGEPAGE : MADV_HUGEPAGE))
        fail("memory", 0);
    for (size_t i = 0; kind->how & APART && i < kind->block; i += 2 * PAGE)
        buffer[i] = 0xa5;
    memset(buffer, 0xa5, kind->block);
    return buffer;
}

static void *work(void *unused)
{
    uint8_t *buffer = new_buffer();
    for (uint64_t turn; now() < stop;) {
        turn = atomic_fetch_add(&next_block, 1);
        if (kind->how & ONCE && turn >= blocks)
            break;
        const uint64_t at = place(turn);
        if (kind->access == READ) {
            if (pread(fd, buffer, kind->block, (off_t)at) != (ssize_t)kind->block)
                fail("read", at);
            look(buffer, at);
        } else {
            stamp(buffer, at);
            if (pwrite(fd, buffer, kind->block, (off_t)at) != (ssize_t)kind->block)
                fail("write", at);
            if (kind->access == WRITE_FLUSH && fdatasync(fd))
                fail("flush", at);
        }
        atomic_fetch_add(&operations, 1);
    }
    free(buffer);
    return unused;
}

int main(int argc, char **argv)
{
    pthread_t threads[MOST_THREADS];
    for (size_t i = 0; argc == 6 && i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (!strcmp(argv[2], kinds[i].name))
            kind = &kinds[i];
    if (!kind) {
        fprintf(stderr, "usage: disk FILE KIND FIRST-MIB MIBS MILLISECONDS\n");
        return 2;
    }
    fd = open(argv[1], O_RDWR | O_DIRECT);
    if (fd < 0)
        fail(argv[1], 0);
    base = strtoull(argv[3], NULL, 10) << 20;
    blocks = (strtoull(argv[4], NULL, 10) << 20) / kind->block;
    if (kind->access == WRITE_FLUSH && fdatasync(fd)) /* what earlier writes have left */
        fail("flush", 0);
    const uint64_t start = now();
    stop = start + strtoull(argv[5], NULL, 10) * 1000000;
    for (unsigned i = 1; i < kind->threads; i++)
        if (pthread_create(&threads[i], NULL, work, NULL))
            fail("thread", i);
    work(NULL);
    for (unsigned i = 1; i < kind->threads; i++)
        pthread_join(threads[i], NULL);
    const uint64_t end = now();
    printf("%s %llu %llu %llu\n", kind->name, (unsigned long long)(end - start),
           (unsigned long long)(operations * kind->block), (unsigned long long)operations);
    return 0;
}
