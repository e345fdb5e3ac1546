/*
 * error.h - one human-readable message for a failed operation.
 *
 * A function that can fail because of something a user, guest, file or client did takes a
 * `struct error *` and returns false (or NULL). The message names the culprit and, where there is
 * one, the way out; it has no trailing newline and no "error:" prefix, so that the caller can put
 * it on one line of its own.
 *
 *     struct error err;
 *     if (!blockdev_open(&dev, path, flags, &err))
 *         return fail("%s", err.msg);
 */
#ifndef INTERNAL_ERROR_H
#define INTERNAL_ERROR_H

#include <stdbool.h>

struct error {
    char msg[512];
};

/* Formats the message. Returns false always, so that `return error_set(err, ...);` reads well.
 * `err` may be NULL: then nothing is stored. */
bool error_set(struct error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Puts "PREFIX: " before the message that is there. Returns false. */
bool error_prefix(struct error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
