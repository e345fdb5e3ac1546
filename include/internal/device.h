/*
 * device.h - what every device has in common, and what the machine gives to all of them.
 */
#ifndef INTERNAL_DEVICE_H
#define INTERNAL_DEVICE_H

#include "internal/fields.h"
#include "internal/io.h"
#include "internal/irq.h"
#include "internal/phys.h"

struct clock;
struct event_queue;
struct log;

enum board_event { BOARD_POWER_OFF, BOARD_RESET, BOARD_EXIT, BOARD_PANIC };

/* The machine's services, one struct for all its devices. */
struct board {
    struct phys_map *map;
    struct io_space *io;
    struct clock *clock;
    struct event_queue *queue;
    pthread_mutex_t *lock; /* the machine lock; recursive */
    struct log *log;
    void *machine;
    /* The guest asked for the end: power-off (ACPI S5), a reset, isa-debug-exit with its status, or
     * a panic event. Returns at once; the machine acts at the next safepoint. */
    void (*shutdown)(void *machine, enum board_event what, int status);
};

/* The head of every device struct. The machine keeps a list for reset, save and `info`. */
struct device {
    const char *name;               /* "pit", "virtio-blk" ... */
    const struct state_desc *state; /* the described fields, of the device struct itself */
    void (*reset)(struct device *dev);
    void (*destroy)(struct device *dev);
    /* After all devices' fields were set from a saved state: redo what follows from them (mappings,
     * lines, timers). May be NULL. */
    void (*restored)(struct device *dev);
    struct device *next;
};

#endif
