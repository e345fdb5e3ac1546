/*
 * codec.c - numbers, words, bits and bytes as JSON, and structures by their table of fields.
 */
#include "internal/wire.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Numbers --------------------------------------------------------------------------------- */

/* "0x1f" or "31", nothing else: strtoull() alone would take signs, spaces and octal. */
static bool parse_number(const char *text, uint64_t *out)
{
    bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    const char *digits = hex ? text + 2 : text;
    size_t len = strspn(digits, hex ? "0123456789abcdefABCDEF" : "0123456789");
    if (len == 0 || digits[len])
        return false;
    errno = 0;
    *out = strtoull(digits, NULL, hex ? 16 : 10);
    return errno == 0;
}

bool wire_number(const json_t *value, const char *name, uint64_t max, uint64_t *out,
                 struct wire_error *err)
{
    uint64_t number = 0;
    bool ok = false;
    if (json_is_integer(value)) {
        json_int_t n = json_integer_value(value);
        number = (uint64_t)n;
        ok = n >= 0;
    } else if (json_is_string(value)) {
        ok = parse_number(json_string_value(value), &number);
    }
    if (!ok)
        return wire_fail(err, "'%s' must be a number, such as 16 or \"0x10\"", name);
    if (number > max)
        return wire_fail(err, "'%s' is %#" PRIx64 ", but at most %#" PRIx64 " fits", name, number,
                         max);
    *out = number;
    return true;
}

json_t *wire_hex(uint64_t value)
{
    char text[24];
    snprintf(text, sizeof(text), "0x%" PRIx64, value);
    return json_string(text);
}

json_t *wire_decimal(uint64_t value)
{
    return value <= INT64_MAX ? json_integer((json_int_t)value) : wire_hex(value);
}

/* ---- Words and bits -------------------------------------------------------------------------- */

/* A string that is no number is a word. */
static bool is_word(const json_t *value)
{
    const char *text = json_string_value(value);
    return text && !(*text >= '0' && *text <= '9');
}

bool wire_choice(const json_t *value, const char *name, const char *const *words, uint64_t max,
                 uint64_t *out, struct wire_error *err)
{
    if (!is_word(value))
        return wire_number(value, name, max, out, err);
    int index = wire_word(words, json_string_value(value));
    if (index < 0)
        return wire_fail(err, "'%s' cannot be '%.40s'", name, json_string_value(value));
    *out = (uint64_t)index;
    return true;
}

/* A word, or a number for bits that have none. */
static bool some_bits(const json_t *value, const char *name, const char *const *words, uint64_t max,
                      uint64_t *bits, struct wire_error *err)
{
    uint64_t number = 0;
    if (!is_word(value)) {
        if (!wire_number(value, name, max, &number, err))
            return false;
        *bits |= number;
        return true;
    }
    int index = wire_word(words, json_string_value(value));
    if (index < 0)
        return wire_fail(err, "'%s' cannot hold '%.40s'", name, json_string_value(value));
    *bits |= 1ull << index;
    return true;
}

bool wire_bits(const json_t *value, const char *name, const char *const *words, uint64_t max,
               uint64_t *out, struct wire_error *err)
{
    uint64_t bits = 0;
    size_t i;
    const json_t *element;
    if (!json_is_array(value) && !some_bits(value, name, words, max, &bits, err))
        return false;
    json_array_foreach ((json_t *)value, i, element)
        if (!some_bits(element, name, words, max, &bits, err))
            return false;
    *out = bits;
    return true;
}

json_t *wire_choice_json(const char *const *words, uint64_t value)
{
    const char *word = wire_word_of(words, value);
    return word ? json_string(word) : wire_decimal(value);
}

json_t *wire_bits_json(const char *const *words, uint64_t value)
{
    json_t *list = json_array();
    for (unsigned i = 0; words[i] && i < 64; i++)
        if (value >> i & 1) {
            json_array_append_new(list, json_string(words[i]));
            value &= ~(1ull << i);
        }
    if (value) /* bits without a name */
        json_array_append_new(list, wire_hex(value));
    return list;
}

static const char access_letters[] = "rwx";

static bool decode_access(const json_t *value, const char *name, uint64_t max, uint64_t *out,
                          struct wire_error *err)
{
    const char *text = json_string_value(value);
    uint64_t bits = 0;
    if (!text || (*text >= '0' && *text <= '9'))
        return wire_number(value, name, max, out, err);
    for (; *text; text++) {
        const char *letter = strchr(access_letters, *text);
        if (!letter)
            return wire_fail(err, "'%s' must be made of the letters r, w and x", name);
        bits |= 1ull << (letter - access_letters);
    }
    *out = bits;
    return true;
}

static json_t *encode_access(uint64_t value)
{
    char text[4];
    unsigned n = 0;
    if (value > PROTECT_ALL)
        return wire_decimal(value);
    for (unsigned i = 0; i < 3; i++)
        if (value >> i & 1)
            text[n++] = access_letters[i];
    return json_stringn(text, n);
}

/* ---- Bytes ----------------------------------------------------------------------------------- */

json_t *wire_bytes_json(const void *bytes, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *from = bytes;
    char *text = malloc(2 * len + 1);
    if (!text)
        return NULL;
    for (size_t i = 0; i < len; i++) {
        text[2 * i] = digits[from[i] >> 4];
        text[2 * i + 1] = digits[from[i] & 15];
    }
    json_t *json = json_stringn(text, 2 * len);
    free(text);
    return json;
}

static int digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

bool wire_bytes(const json_t *value, const char *name, void *out, size_t max, size_t *len,
                struct wire_error *err)
{
    const char *text = json_string_value(value);
    size_t digits = json_string_length(value);
    uint8_t *to = out;
    if (!text || digits % 2)
        return wire_fail(err, "'%s' must be bytes, two hexadecimal digits each", name);
    if (digits / 2 > max)
        return wire_fail(err, "'%s' has %zu bytes, but at most %zu fit", name, digits / 2, max);
    for (size_t i = 0; i < digits / 2; i++) {
        int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
        if (high < 0 || low < 0)
            return wire_fail(err, "'%s' must be bytes, two hexadecimal digits each", name);
        to[i] = (uint8_t)(high << 4 | low);
    }
    *len = digits / 2;
    return true;
}

/* ---- Structures ------------------------------------------------------------------------------ */

bool wire_only(const json_t *object, const char *const *names, struct wire_error *err)
{
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)object, key, value) {
        unsigned i = 0;
        while (names[i] && strcmp(names[i], key) != 0)
            i++;
        if (!names[i])
            return wire_fail(err, "there is no member '%.40s' here", key);
    }
    return true;
}

static uint64_t max_of(unsigned size)
{
    return size >= 8 ? UINT64_MAX : (1ull << 8 * size) - 1;
}

/* Little-endian hosts only, like all of Bailey. */
static void store(void *to, unsigned size, uint64_t value)
{
    memcpy(to, &value, size);
}

static uint64_t load(const void *from, unsigned size)
{
    uint64_t value = 0;
    memcpy(&value, from, size);
    return value;
}

static bool decode_one(const json_t *value, const struct wire_field *f, enum wire_unknown unknown,
                       uint8_t *to, struct wire_error *err)
{
    uint64_t max = max_of(f->size), number = 0;
    bool ok = false;
    switch (f->type) {
    case WIRE_DECIMAL:
    case WIRE_HEX:
        ok = wire_number(value, f->name, max, &number, err);
        break;
    case WIRE_CHOICE:
        ok = wire_choice(value, f->name, f->words, max, &number, err);
        break;
    case WIRE_BITS:
        ok = wire_bits(value, f->name, f->words, max, &number, err);
        break;
    case WIRE_ACCESS:
        ok = decode_access(value, f->name, max, &number, err);
        break;
    case WIRE_NESTED:
        return wire_decode(value, f->layout, unknown, to, err);
    }
    if (ok)
        store(to, f->size, number);
    return ok;
}

static bool decode_list(const json_t *value, const struct wire_field *f, enum wire_unknown unknown,
                        uint8_t *to, struct wire_error *err)
{
    size_t i;
    const json_t *element;
    if (!json_is_array(value) || json_array_size(value) > f->count)
        return wire_fail(err, "'%s' must be a list of at most %u", f->name, f->count);
    json_array_foreach ((json_t *)value, i, element)
        if (!decode_one(element, f, unknown, to + i * f->size, err))
            return false;
    return true;
}

/* {"kernel": ..., "owner": ...}, or a list in the order of the keys. */
static bool decode_keyed(const json_t *value, const struct wire_field *f, enum wire_unknown unknown,
                         uint8_t *to, struct wire_error *err)
{
    const char *key;
    json_t *element;
    if (!json_is_object(value))
        return decode_list(value, f, unknown, to, err);
    json_object_foreach ((json_t *)value, key, element) {
        int index = wire_word(f->keys, key);
        if (index < 0)
            return wire_fail(err, "'%s' has no '%.40s'", f->name, key);
        if (!decode_one(element, f, unknown, to + index * f->size, err))
            return false;
    }
    return true;
}

static bool decode_field(const json_t *value, const struct wire_field *f, enum wire_unknown unknown,
                         uint8_t *to, struct wire_error *err)
{
    return f->keys    ? decode_keyed(value, f, unknown, to, err)
           : f->count ? decode_list(value, f, unknown, to, err)
                      : decode_one(value, f, unknown, to, err);
}

static const struct wire_field *find_field(const struct wire_layout *layout, const char *name)
{
    for (const struct wire_field *f = layout->fields; f->name; f++)
        if (strcmp(f->name, name) == 0)
            return f;
    return NULL;
}

bool wire_decode(const json_t *object, const struct wire_layout *layout, enum wire_unknown unknown,
                 void *to, struct wire_error *err)
{
    const char *key;
    json_t *value;
    if (!json_is_object(object))
        return wire_fail(err, "a %s must be an object", layout->name);
    json_object_foreach ((json_t *)object, key, value) {
        const struct wire_field *f = find_field(layout, key);
        if (!f && unknown == WIRE_STRICT)
            return wire_fail(err, "a %s has no '%.40s'", layout->name, key);
        if (f && !decode_field(value, f, unknown, (uint8_t *)to + f->offset, err))
            return false;
    }
    for (const struct wire_field *f = layout->fields; f->name; f++)
        if (f->required && !json_object_get(object, f->name))
            return wire_fail(err, "a %s needs '%s'", layout->name, f->name);
    return true;
}

static json_t *encode_one(const struct wire_field *f, const uint8_t *from)
{
    if (f->type == WIRE_NESTED)
        return wire_encode(f->layout, from);
    uint64_t value = load(from, f->size);
    switch (f->type) {
    case WIRE_HEX:
        return wire_hex(value);
    case WIRE_CHOICE:
        return wire_choice_json(f->words, value);
    case WIRE_BITS:
        return wire_bits_json(f->words, value);
    case WIRE_ACCESS:
        return encode_access(value);
    default:
        return wire_decimal(value);
    }
}

static json_t *encode_field(const struct wire_field *f, const uint8_t *from)
{
    if (!f->count)
        return encode_one(f, from);
    json_t *all = f->keys ? json_object() : json_array();
    for (unsigned i = 0; i < f->count; i++) {
        json_t *one = encode_one(f, from + i * f->size);
        if (f->keys)
            json_object_set_new(all, f->keys[i], one);
        else
            json_array_append_new(all, one);
    }
    return all;
}

static bool is_zero(const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (bytes[i])
            return false;
    return true;
}

json_t *wire_encode(const struct wire_layout *layout, const void *from)
{
    json_t *object = json_object();
    for (const struct wire_field *f = layout->fields; f->name; f++) {
        const uint8_t *at = (const uint8_t *)from + f->offset;
        if (f->hidden && is_zero(at, (size_t)f->size * (f->count ? f->count : 1)))
            continue;
        json_object_set_new(object, f->name, encode_field(f, at));
    }
    return object;
}
