/*
 * chardev.h - byte-stream back ends (terminal, file, nothing) behind serial ports and consoles.
 */
#ifndef INTERNAL_CHARDEV_H
#define INTERNAL_CHARDEV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;
struct event_queue;
struct chardev;

/* What the owner of a back end (a UART) gives. Called in the I/O thread with the machine lock. */
struct chardev_front {
    void *opaque;
    size_t (*can_receive)(void *opaque); /* bytes that receive() would take now */
    void (*receive)(void *opaque, const uint8_t *bytes, size_t len);
    void (*writable)(void *opaque);   /* may be NULL: after a short chardev_write() */
    void (*line_break)(void *opaque); /* may be NULL: Ctrl-A b, a break condition on the line */
};

/* `spec` as after -serial: "stdio", "null", "file:PATH", "mon:stdio". Escapes of a multiplexed
 * terminal (Ctrl-A x, h, c, Ctrl-A Ctrl-A) are handled here; `quit` is what Ctrl-A x does. */
struct chardev_hooks {
    void *opaque;
    void (*quit)(void *opaque);
};
struct chardev *chardev_open(const char *spec, struct event_queue *queue,
                             const struct chardev_hooks *hooks, struct error *err);
/* Restores the terminal, drains what was written. */
void chardev_close(struct chardev *chr);
void chardev_connect(struct chardev *chr, const struct chardev_front *front);
/* Bytes taken, possibly fewer than len when the other side is slow; never blocks. */
size_t chardev_write(struct chardev *chr, const uint8_t *bytes, size_t len);
/* The front end has room again: deliver input that waited. */
void chardev_accept_input(struct chardev *chr);
/* SIGTSTP, SIGCONT and exit paths: puts a raw terminal back, and raw again. Async-signal-safe. */
void chardev_terminal_restore(void);

#endif
