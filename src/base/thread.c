/*
 * thread.c - starting threads. Signals are for the program's own: a thread of ours must not run its
 * handlers, and a file-size limit is an error of the write, not the end of the process.
 */
#include "internal/thread.h"
#include <signal.h>

int thread_start(pthread_t *thread, void *(*fn)(void *), void *opaque)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT};
    sigset_t blocked, before;
    sigfillset(&blocked);
    for (unsigned i = 0; i < sizeof faults / sizeof faults[0]; i++)
        sigdelset(&blocked, faults[i]);
    pthread_sigmask(SIG_BLOCK, &blocked, &before);
    int error = pthread_create(thread, NULL, fn, opaque);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}
