/*
 * symbols.h - a table of symbols while it is being filled. Private to src/ctl.
 */
#ifndef CTL_SYMBOLS_H
#define CTL_SYMBOLS_H

#include "bailey/ctl.h"

struct symbol {
    uint64_t address, size; /* size 0: up to the next symbol */
    uint32_t order;         /* of the file: first come, first found */
    const char *name;       /* in the file's bytes */
};

struct bctl_symbols {
    char *bytes; /* the file, and a 0 behind it */
    size_t len;
    struct symbol *symbol; /* sorted by address, then by order */
    size_t count, room;
    int64_t slide;
};

/* `name` must lie in ->bytes and end with a 0. False: no memory. */
bool symbols_add(struct bctl_symbols *s, uint64_t address, uint64_t size, const char *name);

/* symbols_elf.c */
bool symbols_is_elf(const struct bctl_symbols *s);
bool symbols_read_elf(struct bctl_symbols *s, const char *path, struct bctl_error *error);

#endif
