/*
 * main.c - the program `bailey`: the library, an exit status, and signals.
 *
 * Exit status: 0 the guest ended normally (or was told to end), 1 it could not start or the host
 * failed, 2 the command line is wrong, 3 a protection rule said stop; isa-debug-exit chooses its
 * own.
 */
#include "bailey/bailey.h"
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { EXIT_USAGE = 2 };

/* A crash must not leave the user's terminal raw. */
static void on_crash(int signal)
{
    bailey_restore_terminal();
    raise(signal); /* SA_RESETHAND: the default action, once this handler returns */
}

static void catch_crashes(void)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    struct sigaction action = {.sa_handler = on_crash, .sa_flags = SA_RESETHAND};
    for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        sigaction(signals[i], &action, NULL);
}

/* The signals that ask the program to end: blocked in all threads while the machine runs, and
 * waited for by one. Those that whoever started it has it ignore (nohup, a shell's background jobs)
 * are not among them: sigwait() would take them all the same. */
static void ending_signals(sigset_t *set)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action;
    sigemptyset(set);
    for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        if (sigaction(signals[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN)
            sigaddset(set, signals[i]);
}

static void *wait_for_signal(void *machine)
{
    sigset_t set;
    int signal;
    ending_signals(&set);
    if (sigwait(&set, &signal) == 0) {
        bailey_stop(machine);
        fprintf(stderr, "bailey: ended by signal %d (%s)\n", signal, strsignal(signal));
    }
    return NULL;
}

static int run(struct bailey *machine)
{
    struct bailey_error error;
    pthread_t waiter;
    sigset_t set;
    ending_signals(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL); /* not before: making a machine may have to wait */
    bool waiting = pthread_create(&waiter, NULL, wait_for_signal, machine) == 0;
    enum bailey_end end = bailey_run(machine, &error);
    int status = bailey_status(machine);
    if (waiting) {
        pthread_cancel(waiter); /* sigwait() is a cancellation point */
        pthread_join(waiter, NULL);
    }
    bailey_free(machine);
    if (end == BAILEY_ERROR)
        fprintf(stderr, "bailey: %s\n", error.text);
    if (end == BAILEY_PANICKED)
        fprintf(stderr, "bailey: the guest reported a panic\n");
    return status;
}

int main(int argc, char **argv)
{
    struct bailey_error error;
    catch_crashes();
    struct bailey *machine = bailey_new((unsigned)(argc > 0 ? argc - 1 : 0),
                                        (const char *const *)argv + 1, stdout, &error);
    if (machine)
        return run(machine);
    if (error.code == BAILEY_INFORMED)
        return fflush(stdout) == 0 ? 0 : 1;
    fprintf(stderr, "bailey: %s\n", error.text);
    return error.code == BAILEY_USAGE ? EXIT_USAGE : EXIT_FAILURE;
}
