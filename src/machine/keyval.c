/*
 * keyval.c - the shapes of option arguments. See keyval.h.
 */
#include "keyval.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char *copy_string(const char *text)
{
    char *copy = strdup(text);
    if (!copy) {
        perror("bailey: options");
        abort();
    }
    return copy;
}

/* ---- Lists ----------------------------------------------------------------------------------- */

/* Cuts the next item off; undoubles commas in place. */
static char *cut_item(char **rest)
{
    char *item = *rest, *to = item, *from = item;
    while (*from && !(from[0] == ',' && from[1] != ',')) {
        if (*from == ',')
            from++;
        *to++ = *from++;
    }
    *rest = *from ? from + 1 : from;
    *to = 0;
    return item;
}

bool keyval_parse(struct keyval *kv, const char *text, const char *implied, const char *what,
                  struct error *err)
{
    memset(kv, 0, sizeof(*kv));
    kv->storage = copy_string(text);
    for (char *rest = kv->storage; *rest;) {
        char *item = cut_item(&rest), *equals = strchr(item, '=');
        if (!*item)
            continue;
        if (kv->count == KEYVAL_MAX)
            return error_set(err, "%s: more than %d properties", what, KEYVAL_MAX);
        if (equals) {
            *equals = 0;
            kv->item[kv->count].key = item;
            kv->item[kv->count].value = equals + 1;
        } else if (kv->count == 0 && implied) {
            kv->item[0].key = implied;
            kv->item[0].value = item;
        } else {
            kv->item[kv->count].key = item;
            kv->item[kv->count].value = "on";
        }
        kv->count++;
    }
    return true;
}

void keyval_free(struct keyval *kv)
{
    free(kv->storage);
    memset(kv, 0, sizeof(*kv));
}

const char *keyval_get(const struct keyval *kv, const char *key)
{
    for (unsigned i = kv->count; i-- > 0;)
        if (strcmp(kv->item[i].key, key) == 0)
            return kv->item[i].value;
    return NULL;
}

bool keyval_only(const struct keyval *kv, const char *const *keys, const char *what,
                 struct error *err)
{
    for (unsigned i = 0; i < kv->count; i++) {
        bool known = false;
        for (const char *const *key = keys; *key && !known; key++)
            known = strcmp(*key, kv->item[i].key) == 0;
        if (!known)
            return error_set(err, "%s: unknown property '%s'; did you mean '%s'?", what,
                             kv->item[i].key, nearest_word(kv->item[i].key, keys));
    }
    return true;
}

/* ---- Words ----------------------------------------------------------------------------------- */

static unsigned min3(unsigned a, unsigned b, unsigned c)
{
    unsigned m = a < b ? a : b;
    return m < c ? m : c;
}

/* Insertions, deletions and substitutions from a to b (Levenshtein), of the first 31 characters. */
static unsigned distance(const char *a, const char *b)
{
    enum { MAX = 31 };
    unsigned la = (unsigned)strnlen(a, MAX), lb = (unsigned)strnlen(b, MAX);
    unsigned row[MAX + 1];
    for (unsigned j = 0; j <= lb; j++)
        row[j] = j;
    for (unsigned i = 1; i <= la; i++) {
        unsigned diagonal = row[0];
        row[0] = i;
        for (unsigned j = 1; j <= lb; j++) {
            unsigned up = row[j];
            row[j] = min3(up + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1]));
            diagonal = up;
        }
    }
    return row[lb];
}

const char *nearest_word(const char *word, const char *const *words)
{
    const char *best = words[0];
    for (; *words; words++)
        if (distance(word, *words) < distance(word, best))
            best = *words;
    return best;
}

int choose_word(const char *word, const char *const *words, const char *what, struct error *err)
{
    for (int i = 0; words[i]; i++)
        if (strcmp(words[i], word) == 0)
            return i;
    error_set(err, "%s: '%s' is not available; the nearest is '%s'", what, word,
              nearest_word(word, words));
    return -1;
}

/* ---- Values ---------------------------------------------------------------------------------- */

bool keyval_bool(const struct keyval *kv, const char *key, bool *value, const char *what,
                 struct error *err)
{
    static const char *const words[] = {"on", "off", "yes", "no", "true", "false", "y", "n", NULL};
    const char *text = keyval_get(kv, key);
    if (!text)
        return true;
    char where[64];
    snprintf(where, sizeof(where), "%s: %s", what, key);
    int i = choose_word(text, words, where, err);
    if (i < 0)
        return false;
    *value = i % 2 == 0;
    return true;
}

bool parse_number(const char *text, uint64_t *value)
{
    char *end;
    errno = 0;
    if (*text < '0' || *text > '9')
        return false;
    *value = strtoull(text, &end, 0);
    return errno == 0 && *end == 0;
}

bool keyval_number(const struct keyval *kv, const char *key, uint64_t max, uint64_t *value,
                   const char *what, struct error *err)
{
    const char *text = keyval_get(kv, key);
    uint64_t v;
    if (!text)
        return true;
    if (!parse_number(text, &v) || v > max)
        return error_set(err, "%s: %s=%s is not a number from 0 to %llu", what, key, text,
                         (unsigned long long)max);
    *value = v;
    return true;
}

bool parse_size(const char *text, uint64_t unit, uint64_t *size)
{
    static const char suffixes[] = "bkmgt";
    unsigned __int128 scaled = 0, fraction_unit = 1;
    bool digits = false, fraction = false;
    for (; (*text >= '0' && *text <= '9') || (*text == '.' && !fraction); text++) {
        if (*text == '.') {
            fraction = true;
            continue;
        }
        digits = true;
        scaled = scaled * 10 + (unsigned)(*text - '0');
        if (fraction)
            fraction_unit *= 10;
        if (scaled >> 64 || fraction_unit >> 60)
            return false;
    }
    if (*text) {
        const char *at = strchr(suffixes, *text | 0x20);
        if (!at || text[1])
            return false;
        unit = 1ull << 10 * (at - suffixes);
    }
    if (!digits)
        return false;
    scaled = scaled * unit / fraction_unit;
    *size = (uint64_t)scaled;
    return scaled >> 64 == 0;
}
