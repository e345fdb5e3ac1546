/*
 * escape.h - the Ctrl-A commands of a terminal that is shared between a guest's console and the
 * monitor: private to src/chardev.
 */
#ifndef CHARDEV_ESCAPE_H
#define CHARDEV_ESCAPE_H

#include <stdbool.h>
#include <stdint.h>

enum escape_action {
    ESCAPE_BYTE,    /* the byte is for the guest */
    ESCAPE_NOTHING, /* swallowed: Ctrl-A itself, or an unknown command */
    ESCAPE_HELP,
    ESCAPE_QUIT,
    ESCAPE_MONITOR,
    ESCAPE_BREAK,
};

#define ESCAPE_KEY 0x01 /* Ctrl-A */

extern const char escape_help[];

/* What to do with the next byte typed; *pending is true between Ctrl-A and its command. */
enum escape_action escape_feed(bool *pending, uint8_t byte);

#endif
