/*
 * keyval.h - the shapes of option arguments: "a=1,b=2" lists, sizes, numbers, and "did you mean".
 * Private to src/machine.
 */
#ifndef MACHINE_KEYVAL_H
#define MACHINE_KEYVAL_H

#include "internal/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KEYVAL_MAX 32

/* "key=value,key=value"; a doubled comma in a value means one comma (QEMU's rule). An item without
 * '=' is the value of `implied` if it comes first, else a switch: its value is "on". */
struct keyval {
    char *storage;
    unsigned count;
    struct {
        const char *key, *value;
    } item[KEYVAL_MAX];
};

/* `what` ("-drive") begins the messages. */
bool keyval_parse(struct keyval *kv, const char *text, const char *implied, const char *what,
                  struct error *err);
void keyval_free(struct keyval *kv);
/* The last value given for key, or NULL. */
const char *keyval_get(const struct keyval *kv, const char *key);
/* Fails, naming the nearest, when there is a key that is not in the NULL-terminated list. */
bool keyval_only(const struct keyval *kv, const char *const *keys, const char *what,
                 struct error *err);

/* The word of the NULL-terminated list with the fewest edits from `word`. */
const char *nearest_word(const char *word, const char *const *words);
/* Index of `word` in the list, or -1 with a message: "WHAT: 'word' is not available; the nearest is
 * 'other'". */
int choose_word(const char *word, const char *const *words, const char *what, struct error *err);

/* key=on|off (also true, yes, and so on as QEMU has them); keeps *value when the key is absent. */
bool keyval_bool(const struct keyval *kv, const char *key, bool *value, const char *what,
                 struct error *err);
/* key=NUMBER in C notation, at most `max`; keeps *value when the key is absent. */
bool keyval_number(const struct keyval *kv, const char *key, uint64_t max, uint64_t *value,
                   const char *what, struct error *err);
/* Decimal with an optional fraction and one of B K M G T; `unit` is what no suffix means. */
bool parse_size(const char *text, uint64_t unit, uint64_t *size);
bool parse_number(const char *text, uint64_t *value);

/* strdup that never returns NULL: an option is not worth running out of memory over. */
char *copy_string(const char *text);

#endif
