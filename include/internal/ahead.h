/*
 * ahead.h - host memory got before it is used, by a thread of its own.
 *
 * The host gives memory when it is first touched: it finds a page and clears it. That takes 0.2 ms
 * for 2 MiB, and several where the host is itself a guest. A vCPU that has to wait for it stands
 * still; a thread beside it need not be waited for. What is asked for here is a hint: nothing else
 * changes when it comes late, is dropped because too much has been asked for, or is not known to
 * the host (MADV_POPULATE_READ and _WRITE, madvise(2), are there since Linux 5.14).
 */
#ifndef INTERNAL_AHEAD_H
#define INTERNAL_AHEAD_H

#include <stdbool.h>
#include <stddef.h>

struct ahead;

/* In a mapping made to be written or to be read; those SOON go before all others. */
enum ahead_kind { AHEAD_WRITE, AHEAD_WRITE_SOON, AHEAD_READ_SOON };

/* NULL: out of host memory. The thread begins when there is something to do for it. */
struct ahead *ahead_new(void);
void ahead_free(struct ahead *ahead); /* waits for its thread; NULL does nothing */

/* Asks for [memory, memory + size), whole pages. Never waits for memory. Any thread; what one asks
 * for comes in that order. */
void ahead_ask(struct ahead *ahead, void *memory, size_t size, enum ahead_kind kind);

/* Nothing of [memory, memory + size) is being got or will be: before it is unmapped. */
void ahead_forget(struct ahead *ahead, const void *memory, size_t size);

#endif
