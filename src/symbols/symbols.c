/*
 * symbols.c - names of addresses and addresses of names, from System.map, /proc/kallsyms or ELF.
 *
 * The text forms are lines "ADDRESS TYPE NAME", kallsyms with a further column for modules. A file
 * that an unprivileged user copied from /proc/kallsyms has only zeros, which is said.
 */
#include "table.h"
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_FILE = 1 << 30, GUESSED_MAX = 1 << 20 };

bool symbols_fail(struct symbols *s, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(s->why, s->why_size, fmt, ap);
    va_end(ap);
    return false;
}

/* ---- The file -------------------------------------------------------------------------------- */

/* Reads to the end: files in /proc have no size. */
static bool read_all(int fd, struct symbols *s)
{
    size_t room = 0;
    for (;;) {
        if (room - s->len < 2) {
            room = room ? 2 * room : 1 << 20;
            char *bigger = room <= MAX_FILE ? realloc(s->bytes, room) : NULL;
            if (!bigger) {
                errno = EFBIG;
                return false;
            }
            s->bytes = bigger;
        }
        ssize_t n = read(fd, s->bytes + s->len, room - s->len - 1);
        if (n < 0 && errno != EINTR)
            return false;
        if (n == 0)
            break;
        if (n > 0)
            s->len += (size_t)n;
    }
    s->bytes[s->len] = 0;
    return true;
}

static bool read_file(struct symbols *s, const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool ok = fd >= 0 && read_all(fd, s);
    if (!ok)
        symbols_fail(s, "could not read symbols from '%s': %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return ok;
}

bool symbols_add(struct symbols *s, uint64_t address, uint64_t size, const char *name)
{
    if (s->count == s->room) {
        size_t room = s->room ? 2 * s->room : 4096;
        struct symbol *bigger = realloc(s->symbol, room * sizeof(*bigger));
        if (!bigger)
            return false;
        s->symbol = bigger;
        s->room = room;
    }
    s->symbol[s->count] = (struct symbol){
        .address = address, .size = size, .order = (uint32_t)s->count, .name = name};
    s->count++;
    return true;
}

/* ---- Text ------------------------------------------------------------------------------------ */

/* Takes "ADDRESS TYPE NAME[\t[MODULE]]" apart, in place; false: it is not like that. */
static bool parse_line(char *line, uint64_t *address, const char **name)
{
    char *end;
    size_t digits = strspn(line, "0123456789abcdefABCDEF");
    if (digits == 0 || digits > 16 || line[digits] != ' ')
        return false;
    *address = strtoull(line, &end, 16);
    if (!end[1] || end[2] != ' ' || !end[3] || end[3] == ' ')
        return false;
    end[3 + strcspn(end + 3, " \t\r")] = 0;
    *name = end + 3;
    return true;
}

static bool read_text(struct symbols *s, const char *path)
{
    bool any = false;
    unsigned number = 0;
    for (char *line = s->bytes, *next; line < s->bytes + s->len; line = next) {
        uint64_t address;
        const char *name;
        char *newline = memchr(line, '\n', (size_t)(s->bytes + s->len - line));
        next = newline ? newline + 1 : s->bytes + s->len;
        number++;
        if (newline)
            *newline = 0;
        if (!*line)
            continue;
        if (!parse_line(line, &address, &name))
            return symbols_fail(s, "'%s', line %u: neither ELF nor \"ADDRESS TYPE NAME\"", path,
                                number);
        any |= address != 0;
        if (!symbols_add(s, address, 0, name))
            return symbols_fail(s, "no memory for the symbols of '%s'", path);
    }
    if (s->count && !any)
        return symbols_fail(s, "all addresses in '%s' are 0: copy /proc/kallsyms as root", path);
    return true;
}

/* ---- Looking up ------------------------------------------------------------------------------ */

static int compare(const void *left, const void *right)
{
    const struct symbol *a = left, *b = right;
    if (a->address != b->address)
        return a->address < b->address ? -1 : 1;
    return a->order < b->order ? -1 : a->order > b->order;
}

static bool read_symbols(struct symbols *s, const char *path)
{
    return read_file(s, path) &&
           (symbols_is_elf(s) ? symbols_read_elf(s, path) : read_text(s, path)) &&
           (s->count || symbols_fail(s, "'%s' has no symbols", path));
}

struct symbols *symbols_open(const char *path, char *why, size_t why_size)
{
    struct symbols *s = calloc(1, sizeof(*s));
    if (!s) {
        snprintf(why, why_size, "no memory");
        return NULL;
    }
    s->why = why;
    s->why_size = why_size;
    if (read_symbols(s, path)) {
        qsort(s->symbol, s->count, sizeof(*s->symbol), compare);
        return s;
    }
    symbols_free(s);
    return NULL;
}

void symbols_free(struct symbols *s)
{
    if (!s)
        return;
    free(s->bytes);
    free(s->symbol);
    free(s);
}

void symbols_slide(struct symbols *s, int64_t slide)
{
    s->slide = slide;
}

/* Up to the next symbol that has another address; 0: there is none. */
static uint64_t size_of(const struct symbols *s, size_t i)
{
    if (s->symbol[i].size)
        return s->symbol[i].size;
    for (size_t next = i + 1; next < s->count; next++)
        if (s->symbol[next].address != s->symbol[i].address)
            return s->symbol[next].address - s->symbol[i].address;
    return 0;
}

bool symbols_find(const struct symbols *s, const char *name, uint64_t *address, uint64_t *size)
{
    const struct symbol *best = NULL;
    for (size_t i = 0; i < s->count; i++)
        if (strcmp(s->symbol[i].name, name) == 0 && (!best || s->symbol[i].order < best->order))
            best = &s->symbol[i];
    if (!best)
        return false;
    *address = best->address + (uint64_t)s->slide;
    *size = size_of(s, (size_t)(best - s->symbol));
    return true;
}

const char *symbols_at(const struct symbols *s, uint64_t address, uint64_t *offset)
{
    uint64_t at = address - (uint64_t)s->slide;
    size_t low = 0, high = s->count;
    while (low < high) { /* the first one above `at` */
        size_t middle = low + (high - low) / 2;
        if (s->symbol[middle].address <= at)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0)
        return NULL;
    size_t i = low - 1;
    while (i > 0 && s->symbol[i - 1].address == s->symbol[i].address)
        i--;
    uint64_t size = size_of(s, i);
    *offset = at - s->symbol[i].address;
    /* The end of a text table's symbols is a guess: not across a gap between sections. */
    if (!s->symbol[i].size && (!size || size > GUESSED_MAX))
        size = GUESSED_MAX;
    return *offset < size ? s->symbol[i].name : NULL;
}
