/*
 * symbols.c - the symbol tables of src/symbols under the names of the client library: a struct
 * bctl_symbols is a struct symbols.
 */
#include "internal/symbols.h"
#include "connection.h"

static const struct symbols *table(const struct bctl_symbols *s)
{
    return (const struct symbols *)s;
}

struct bctl_symbols *bctl_symbols_open(const char *path, struct bctl_error *error)
{
    char why[sizeof(error->text)];
    struct symbols *s = symbols_open(path, why, sizeof(why));
    if (!s)
        ctl_fail(error, "%s", why);
    return (struct bctl_symbols *)s;
}

void bctl_symbols_free(struct bctl_symbols *s)
{
    symbols_free((struct symbols *)s);
}

void bctl_symbols_slide(struct bctl_symbols *s, int64_t slide)
{
    symbols_slide((struct symbols *)s, slide);
}

bool bctl_symbol_find(const struct bctl_symbols *s, const char *name, uint64_t *address,
                      uint64_t *size)
{
    return symbols_find(table(s), name, address, size);
}

const char *bctl_symbol_at(const struct bctl_symbols *s, uint64_t address, uint64_t *offset)
{
    return symbols_at(table(s), address, offset);
}
