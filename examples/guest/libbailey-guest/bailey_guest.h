/*
 * bailey_guest.h - the guest's side of the protection device: a program protects its own memory.
 *
 * One small library for programs on Linux and for code on the bare machine: freestanding C, no
 * libc, no allocation, nothing to initialise. It wraps the stores that <bailey/protect.h> documents
 * and adds what is easily got wrong: arrays are faulted in before the device reads them, command
 * slots are shared between threads, a handler is a C function that returns a verdict.
 *
 *     struct bailey_door door;
 *     uint32_t region;
 *     struct protect_rule rule = PROTECT_RULE_DEFAULT(0, 1, PROTECT_READ, PROTECT_DENY);
 *     enum protect_status status = bailey_linux_open(&door);         // or bailey_fixed_open()
 *     if (status == PROTECT_OK)
 *         status = bailey_protect(&door, table, sizeof(table), &rule, &region);
 *     if (status != PROTECT_OK)
 *         die(bailey_status_text(status));
 *
 * From there on a write to `table` by this program is a fault; a write by anybody else is an event
 * that bailey_event_next() returns.
 *
 * Functions return enum protect_status, or one of enum bailey_open_status where a door is opened.
 * Any thread may give commands; opening, closing and setting the handler are for one at a time, and
 * events have one reader at a time. A handler may give commands, too.
 */
#ifndef BAILEY_GUEST_H
#define BAILEY_GUEST_H

#include <bailey/protect.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct bailey_door {
    volatile struct protect_door *regs;
    uint64_t session; /* what BIND gave */
    uint32_t index;   /* of the door */
    uint32_t slots;   /* bit n: command slot n is in use by some thread */
    uint32_t element; /* of the last command that was refused: which element of its array */
    uint32_t entry;   /* of the handler's entry points: its number + 1; 0: none */
};

/* Why no door could be opened; for the rest see enum protect_status (PROTECT_BUSY: all doors are
 * taken). bailey_status_text() knows both. */
enum bailey_open_status {
    BAILEY_NO_DEVICE =
        256, /* this machine has no protection device, or one of another major version */
    BAILEY_NO_PERMISSION, /* the operating system does not let this process map the device */
};

/* ---- Doors (door.c, linux.c) --------------------------------------------------------------------
 */

/* Binds the first free door of `count` that are mapped at `doors`, one after another. */
int bailey_door_open(struct bailey_door *door, volatile void *doors, unsigned count);
/* On the bare machine with the fixed address identity-mapped (uncached or not does not matter). */
int bailey_fixed_open(struct bailey_door *door);
/* Ends the context: its regions and rules with it. A sealed context refuses. */
enum protect_status bailey_door_close(struct bailey_door *door);

/* In a Linux process: finds the PCI function in sysfs, maps its doors and binds a free one. Makes
 * system calls, but only here and in close. A child process does not inherit the door. */
int bailey_linux_open(struct bailey_door *door);
enum protect_status bailey_linux_close(struct bailey_door *door);
/* Gives this process's context grants (enum protect_grant) through the admin page, which root can
 * map. */
int bailey_linux_grant(struct bailey_door *door, uint32_t grants);

/* ---- Regions and rules (regions.c) --------------------------------------------------------------
 *
 * A rule applies to the frames that are there. Write to fresh anonymous memory before protecting
 * it (bailey_touch() for BAILEY_TOUCH_WRITE): until then the system's page of zeros is there.
 */

/* *first: id of the first one, the others follow. */
enum protect_status bailey_regions_add(struct bailey_door *door,
                                       const struct protect_region *regions, unsigned count,
                                       uint32_t *first);
enum protect_status bailey_regions_remove(struct bailey_door *door, uint32_t first, unsigned count);
enum protect_status bailey_rules_set(struct bailey_door *door, const struct protect_rule *rules,
                                     unsigned count);
/* One region and its rule (whose `region` and `count` do not matter). *region: its id; may be NULL.
 * The cookie is the region's base. */
enum protect_status bailey_protect(struct bailey_door *door, const volatile void *base,
                                   uint64_t length, const struct protect_rule *rule,
                                   uint32_t *region);
/* The first region that holds the address. */
enum protect_status bailey_query(struct bailey_door *door, const volatile void *address,
                                 struct protect_query *query);
enum protect_status bailey_query_region(struct bailey_door *door, uint32_t region,
                                        struct protect_query *query);
enum protect_status bailey_seal(struct bailey_door *door, uint32_t seals);
enum protect_status bailey_statistics(struct bailey_door *door,
                                      struct protect_statistics *statistics);

/* ---- Handler (handler.c, entry.S) ---------------------------------------------------------------
 */

/* Called on a PROTECT_UPCALL: decides what becomes of the access. Runs like a signal handler: the
 * code that it interrupted may hold any lock. It must return, within the time-out. */
typedef enum protect_verdict bailey_handler(struct protect_frame *frame, void *opaque);

enum { BAILEY_HANDLERS = 8 }; /* doors of one program that have a handler at the same time */

/* `stacks`: tops of `count` stacks for handlers to run on; count = 0: the faulting thread's own.
 * timeout_ms: how long a call may take; 0: one second. handler = NULL: none any more. */
enum protect_status bailey_handler_set(struct bailey_door *door, bailey_handler *handler,
                                       void *opaque, void *const *stacks, unsigned count,
                                       unsigned timeout_ms);

/* ---- Events (events.c) --------------------------------------------------------------------------
 */

/* Takes the oldest event that has not been read yet; false: there is none. */
bool bailey_event_next(struct bailey_door *door, struct protect_event *event);
/* How many events found the ring full, since the door was bound. */
uint64_t bailey_events_lost(struct bailey_door *door);

/* ---- The admin page (admin.c) -------------------------------------------------------------------
 */

enum protect_status bailey_admin_grant(volatile struct protect_admin *admin, unsigned door,
                                       uint32_t grants);
enum protect_status bailey_admin_revoke(volatile struct protect_admin *admin, unsigned door,
                                        uint32_t grants);
enum protect_status bailey_admin_destroy(volatile struct protect_admin *admin, unsigned door);

/* ---- Words (text.c) -----------------------------------------------------------------------------
 */

const char *bailey_status_text(int status);
const char *bailey_subject_text(unsigned subject); /* "another process" ... */
const char *bailey_action_text(unsigned action);   /* as what happened: "refused" ... */
const char *bailey_access_text(unsigned access);   /* "read", "write" ... */
/* One line without a newline, always terminated; returns its length. */
size_t bailey_event_text(char *buffer, size_t size, const struct protect_event *event);

/* ---- Lower down (command.c, touch.c) ------------------------------------------------------------
 */

/* One command in a free slot. `result` may be NULL. */
enum protect_status bailey_command(struct bailey_door *door, enum protect_op op, uint64_t arg0,
                                   uint64_t arg1, uint64_t *result);
/* The same with an array at arg0 that the device reads, or (BAILEY_TOUCH_WRITE) writes too: faulted
 * in first, and again when the system took a page away meanwhile. */
enum bailey_touch { BAILEY_TOUCH_READ, BAILEY_TOUCH_WRITE };
enum protect_status bailey_command_array(struct bailey_door *door, enum protect_op op,
                                         const volatile void *array, size_t bytes,
                                         enum bailey_touch touch, uint64_t arg1, uint64_t *result);
/* Touches every page of a range, so that it is present (WRITE: writable, and private if it is
 * anonymous); changes nothing. */
void bailey_touch(const volatile void *start, size_t bytes, enum bailey_touch touch);

#ifdef __cplusplus
}
#endif
#endif
