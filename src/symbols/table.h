/*
 * table.h - a table of symbols while it is being filled. Private to src/symbols.
 */
#ifndef SYMBOLS_TABLE_H
#define SYMBOLS_TABLE_H

#include "internal/symbols.h"

struct symbol {
    uint64_t address, size; /* size 0: up to the next symbol */
    uint32_t order;         /* of the file: first come, first found */
    const char *name;       /* in the file's bytes */
};

struct symbols {
    char *bytes; /* the file, and a 0 behind it */
    size_t len;
    struct symbol *symbol; /* sorted by address, then by order */
    size_t count, room;
    int64_t slide;
    char *why; /* where the reason goes when it fails */
    size_t why_size;
};

/* `name` must lie in ->bytes and end with a 0. False: no memory. */
bool symbols_add(struct symbols *s, uint64_t address, uint64_t size, const char *name);

/* Puts the reason down; false. */
bool symbols_fail(struct symbols *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* elf.c */
bool symbols_is_elf(const struct symbols *s);
bool symbols_read_elf(struct symbols *s, const char *path);

#endif
