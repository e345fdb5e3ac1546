/*
 * symbols.h - names of guest addresses, from a System.map, a copy of /proc/kallsyms or an ELF file.
 *
 * Stands by itself, since the client library (bailey/ctl.h) has it, too: hence no struct error.
 */
#ifndef INTERNAL_SYMBOLS_H
#define INTERNAL_SYMBOLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct symbols;

/* NULL, with one line in `why`: the file cannot be read, or has no symbols. */
struct symbols *symbols_open(const char *path, char *why, size_t why_size);
void symbols_free(struct symbols *symbols); /* NULL is allowed */
/* Where the running program is, less where the file says. */
void symbols_slide(struct symbols *symbols, int64_t slide);
/* *size may be 0: not known. */
bool symbols_find(const struct symbols *symbols, const char *name, uint64_t *address,
                  uint64_t *size);
/* The symbol that the address lies in; NULL: none. */
const char *symbols_at(const struct symbols *symbols, uint64_t address, uint64_t *offset);

#endif
