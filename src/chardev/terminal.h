/*
 * terminal.h - the process's terminal, borrowed by one stdio back end: private to src/chardev.
 */
#ifndef CHARDEV_TERMINAL_H
#define CHARDEV_TERMINAL_H

#include <stdbool.h>

struct error;

/* What Ctrl-C, Ctrl-\ and Ctrl-Z do: signals for this process, or bytes for the guest. */
enum terminal_keys { TERMINAL_SIGNALS, TERMINAL_BYTES };

/* Claims stdin and stdout: one back end at a time. A stdin that is a terminal becomes raw, and
 * whatever ends or stops the process from now on first puts it back. *out is a descriptor for
 * stdout that does not block; it belongs to the claim. */
bool terminal_claim(enum terminal_keys keys, int *out, struct error *err);
/* Puts everything back. */
void terminal_release(void);

#endif
