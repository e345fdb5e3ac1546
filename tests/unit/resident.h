/*
 * resident.h - which pages the host has given, for tests of what is got ahead.
 */
#ifndef TESTS_RESIDENT_H
#define TESTS_RESIDENT_H

#include <check.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#define RESIDENT_PAGE 4096ul

/* False, and it says so: this host gives nothing ahead. */
static inline bool resident_can_be_asked_for(void)
{
    if (madvise(NULL, 0, MADV_POPULATE_WRITE) == 0 || errno != EINVAL)
        return true;
    puts("skipped: this host's madvise() knows no MADV_POPULATE_WRITE (Linux 5.14)");
    return false;
}

static inline size_t resident_pages(void *memory, size_t size)
{
    unsigned char *there = malloc(size / RESIDENT_PAGE);
    size_t n = 0;
    ck_assert_int_eq(mincore(memory, size, there), 0);
    for (size_t i = 0; i < size / RESIDENT_PAGE; i++)
        n += there[i] & 1;
    free(there);
    return n;
}

/* All of it, in the end; false after ten seconds. */
static inline bool resident_comes(void *memory, size_t size)
{
    for (int i = 0; i < 10000; i++) {
        if (resident_pages(memory, size) == size / RESIDENT_PAGE)
            return true;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return false;
}

#endif
