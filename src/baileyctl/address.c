/*
 * address.c - addresses as people say them.
 */
#include "baileyctl.h"
#include <inttypes.h>
#include <string.h>

static bool fail(struct program *p, const char *what, const char *text)
{
    p->error.lost = false;
    snprintf(p->error.text, sizeof(p->error.text), "%s '%s'", what, text);
    return false;
}

bool parse_address(struct program *p, const char *text, uint64_t *address, uint64_t *size)
{
    const char *plus = strrchr(text, '+');
    uint64_t offset = 0;
    char name[256];
    *size = 0;
    if (parse_number(text, address))
        return true;
    if (plus && !parse_number(plus + 1, &offset))
        return fail(p, "not an address:", text);
    snprintf(name, sizeof(name), "%.*s", (int)(plus ? plus - text : (long)strlen(text)), text);
    if (!p->symbols)
        return fail(p, "symbols need --symbols FILE:", text);
    if (!bctl_symbol_find(p->symbols, name, address, size))
        return fail(p, "there is no symbol", name);
    *address += offset;
    *size = *size > offset ? *size - offset : 0;
    return true;
}

void print_symbol(FILE *out, const struct program *p, uint64_t address)
{
    uint64_t offset;
    const char *name = p->symbols ? bctl_symbol_at(p->symbols, address, &offset) : NULL;
    if (name)
        fprintf(out, " <%s+0x%" PRIx64 ">", name, offset);
}
