/*
 * thread.h - a thread that no signal of the program's comes to.
 */
#ifndef INTERNAL_THREAD_H
#define INTERNAL_THREAD_H

#include <pthread.h>

/* pthread_create() with all signals blocked in the new thread but those of faults, which are to end
 * the program as ever, or are for a handler of the thread's own. Returns 0, or an error number. */
int thread_start(pthread_t *thread, void *(*fn)(void *), void *opaque);

#endif
