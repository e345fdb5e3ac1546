/*
 * log.c - see include/internal/log.h.
 */
#include "internal/log.h"
#include <stdarg.h>
#include <string.h>

static const struct {
    const char *name;
    uint32_t bit;
} categories[] = {
#define X(id, name, help) {name, LOG_##id},
    LOG_CATEGORIES(X)
#undef X
};

static uint32_t category_bit(const char *name, size_t len)
{
    for (size_t i = 0; i < sizeof(categories) / sizeof(categories[0]); i++)
        if (strlen(categories[i].name) == len && !memcmp(categories[i].name, name, len))
            return categories[i].bit;
    return 0;
}

const char *log_parse(const char *items, uint32_t *mask)
{
    uint32_t found = 0;
    for (const char *item = items; item;) {
        const char *comma = strchr(item, ',');
        size_t len = comma ? (size_t)(comma - item) : strlen(item);
        uint32_t bit = category_bit(item, len);
        if (!bit)
            return item;
        found |= bit;
        item = comma ? comma + 1 : NULL;
    }
    *mask = found;
    return NULL;
}

void log_printf(struct log *log, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    flockfile(log->out);
    vfprintf(log->out, fmt, ap);
    size_t len = strlen(fmt);
    if (len && fmt[len - 1] != '\n')
        fputc('\n', log->out);
    funlockfile(log->out);
    va_end(ap);
}
