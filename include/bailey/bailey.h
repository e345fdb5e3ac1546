/*
 * bailey.h - run an x86-64 machine inside your program.
 *
 *     struct bailey_error error;
 *     const char *args[] = {"-m", "512", "-kernel", "bzImage", "-serial", "file:log"};
 *     struct bailey *machine = bailey_new(6, args, NULL, &error);
 *     if (!machine)
 *         return fail(error.text);
 *     enum bailey_end end = bailey_run(machine, &error);
 *     int status = bailey_status(machine);
 *     bailey_free(machine);
 *
 * A machine is described by command-line arguments: those of the program `bailey`, which are QEMU's
 * (`bailey -help` lists them). Any number of machines may live in one process, each with its own
 * threads; they share nothing, except that only one can have the terminal. The library never exits
 * and never writes to standard output by itself, apart from what `-serial stdio` sends there. Its
 * threads block all signals but those of faults. Of the program's own signals it handles SIGFPE,
 * and passes on those that no guest has caused; while a machine has output to a file or to stdio,
 * SIGPIPE is ignored where it would end the program; and while one has the terminal, signals that
 * would end or stop the program put its modes back first.
 *
 * Link with libbailey.a, -lelf, -lcapstone, -ljansson, -lpthread, -lm.
 */
#ifndef BAILEY_BAILEY_H
#define BAILEY_BAILEY_H

#include "bailey/protect.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

struct bailey;

enum bailey_code {
    BAILEY_OK = 0,
    BAILEY_INFORMED, /* the arguments asked for information (-help, -cpu help ...), now written */
    BAILEY_USAGE,    /* the arguments are wrong */
    BAILEY_FAILED,   /* a file, the host's memory, or the like */
};

struct bailey_error {
    enum bailey_code code;
    char text[512]; /* one line for a user, without a newline; empty when the code is OK or INFORMED
                     */
};

/* Why a run ended. */
enum bailey_end {
    BAILEY_POWERED_OFF, /* the guest switched itself off through ACPI */
    BAILEY_RESET,  /* with -no-reboot: the guest reset the machine or shut down by a triple fault */
    BAILEY_EXITED, /* the guest wrote to isa-debug-exit */
    BAILEY_PANICKED, /* the guest reported a panic through pvpanic */
    BAILEY_STOPPED,  /* bailey_stop(), or Ctrl-A x on the terminal */
    BAILEY_ERROR,    /* the machine could not go on: *error says why */
    BAILEY_REFUSED,  /* somebody broke a protection rule that says PROTECT_NOTIFY_STOP; standard
                        error has a line about it */
};

/* Makes a machine from `argc` arguments (without a program name). Help texts go to `info`, or
 * nowhere when it is NULL. NULL on failure and for help, with *error set. `error` may not be NULL.
 */
struct bailey *bailey_new(unsigned argc, const char *const *argv, FILE *info,
                          struct bailey_error *error);

/* Runs the machine; returns when its guest has ended. The calling thread does the machine's I/O;
 * every processor has a thread of its own. Once per machine. */
enum bailey_end bailey_run(struct bailey *machine, struct bailey_error *error);

/* Makes bailey_run() return soon. From any thread, at any time between bailey_new() and
 * bailey_free(). */
void bailey_stop(struct bailey *machine);

/* The guest and its clocks stand still until bailey_resume(); bailey_run() does not return. A
 * protection rule with PROTECT_NOTIFY_PAUSE does the same. From any thread, between bailey_new()
 * and bailey_free(). A pause takes a moment: bailey_paused() tells when the guest stands. */
void bailey_pause(struct bailey *machine);
void bailey_resume(struct bailey *machine);
bool bailey_paused(struct bailey *machine);

/* After bailey_run(): what a process should exit with. 0: the guest ended normally; 1:
 * BAILEY_ERROR; 3: BAILEY_REFUSED; isa-debug-exit: (value << 1) | 1, of which a process shows the
 * low 8 bits. */
int bailey_status(const struct bailey *machine);

/* Guest-physical memory, from any thread, also while the machine runs. Where there is no memory,
 * reads give all ones and writes are lost. False: a protection rule of the guest's refused the
 * access, and nothing was transferred. */
bool bailey_read(struct bailey *machine, uint64_t address, void *buffer, size_t length);
bool bailey_write(struct bailey *machine, uint64_t address, const void *buffer, size_t length);

/* ---- Protecting the guest's memory from outside
 *
 * The same descriptors and statuses as at a door in the guest (bailey/protect.h), and as over the
 * control socket (docs/socket.md):
 *
 *     struct bailey_protection *p = bailey_protection_new(machine, &callbacks, NULL, &error);
 *     struct protect_region region = {.base = 0x5000, .length = 16, .flags = PROTECT_PHYSICAL};
 *     struct protect_command add = {.op = PROTECT_OP_ADD_REGIONS, .arg = {(uintptr_t)&region, 1}};
 *     if (bailey_protect(p, &add) != PROTECT_OK) ...
 */

struct bailey_protection;

/* Called one after another, by a thread that the protection has for it and that holds no lock: they
 * may call everything but bailey_protection_free() and bailey_free(). All may be NULL. */
struct bailey_protection_callbacks {
    void *opaque;
    /* Something happened to the regions of this context, or, with `all`, of another one that the
     * host may hear of. */
    void (*event)(void *opaque, unsigned context, const struct protect_event *event);
    /* What becomes of an access whose rule says PROTECT_ASK_HOST. The guest's processor waits, up
     * to timeout_ms; then the access is refused, and it does not wait again before the callback
     * has returned. *value is for PROTECT_GIVE; PROTECT_SET is a refusal. Without this callback
     * such accesses are refused. */
    enum protect_verdict (*ask)(void *opaque, const struct protect_event *event, uint64_t *value);
    /* So many events came faster than event() returned, and were dropped. */
    void (*lost)(void *opaque, uint64_t events);
    bool all;
    unsigned timeout_ms; /* 0: one second; at most 60000 */
};

/* Binds a host context. At any time between bailey_new() and bailey_free(), from any thread. NULL
 * on failure: the machine has no protection device, or there are too many contexts or clients. Its
 * virtual addresses belong to the address space of cr3, or, with cr3 = NULL, to the one that the
 * first processor is in at the moment. */
struct bailey_protection *bailey_protection_new(struct bailey *machine,
                                                const struct bailey_protection_callbacks *callbacks,
                                                const uint64_t *cr3, struct bailey_error *error);
/* Ends the context with everything in it, unless it is sealed against that; returns when no
 * callback runs. Before bailey_free(). NULL is allowed. */
void bailey_protection_free(struct bailey_protection *protection);
/* The context's number, as in events. */
unsigned bailey_protection_context(const struct bailey_protection *protection);

/* Carries out a command, on every processor, before it returns. Addresses in it are this program's;
 * the session is filled in where it is 0. command->status is returned, too. Not BIND: that has been
 * done. Any thread that holds no lock that a callback takes. */
enum protect_status bailey_protect(struct bailey_protection *protection,
                                   struct protect_command *command);
/* "done" and so on. */
const char *bailey_protect_text(enum protect_status status);

/* Flushes and closes disk images, puts the terminal back. After bailey_run() has returned, or
 * instead of it. NULL is allowed. */
void bailey_free(struct bailey *machine);

/* "Bailey 0.1.0 (...)": the version, and the optional parts that this build has. */
const char *bailey_version(void);

/* Puts a terminal that a machine made raw back as it was; for handlers of fatal signals
 * (async-signal-safe). */
void bailey_restore_terminal(void);

#ifdef __cplusplus
}
#endif
#endif
