/*
 * request.c - one line from a client, taken apart and checked as far as that goes without the
 * machine: a pure function, which is what the fuzzer drives.
 *
 * A table says which members an operation has; a member that it does not have is an error, so that
 * a misspelt one is not silently nothing.
 */
#include "request.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- Members --------------------------------------------------------------------------------- */

static bool number(const json_t *json, const char *name, uint64_t max, uint64_t *out,
                   struct wire_error *err)
{
    const json_t *value = json_object_get(json, name);
    return !value || wire_number(value, name, max, out, err);
}

static bool number32(const json_t *json, const char *name, uint32_t max, uint32_t *out,
                     struct wire_error *err)
{
    uint64_t value = *out;
    bool ok = number(json, name, max, &value, err);
    *out = (uint32_t)value;
    return ok;
}

static bool truth(const json_t *json, const char *name, bool *out, struct wire_error *err)
{
    const json_t *value = json_object_get(json, name);
    if (value && !json_is_boolean(value))
        return wire_fail(err, "'%s' must be true or false", name);
    *out = value ? json_is_true(value) : *out;
    return true;
}

static bool need(const json_t *json, const char *name, struct wire_error *err)
{
    return json_object_get(json, name) || wire_fail(err, "'%s' is missing", name);
}

/* ---- Addresses ------------------------------------------------------------------------------- */

/* All virtual addresses of a request are looked up in one address space. */
static bool one_space(struct request *r, const json_t *cr3, struct wire_error *err)
{
    uint64_t value;
    if (!wire_number(cr3, "cr3", UINT64_MAX, &value, err))
        return false;
    if (r->space.has_cr3 && r->space.cr3 != value)
        return wire_fail(err, "one request cannot name two address spaces");
    r->space.has_cr3 = true;
    r->space.cr3 = value;
    return true;
}

/* N, {"virtual": N, "cr3": N} or {"physical": N}. */
static bool address(struct request *r, const json_t *value, const char *name, uint64_t *out,
                    bool *physical, struct wire_error *err)
{
    static const char *const keys[] = {"virtual", "physical", "cr3", NULL};
    *physical = false;
    if (!json_is_object(value))
        return wire_number(value, name, UINT64_MAX, out, err);
    const json_t *virtual = json_object_get(value, "virtual"),
                 *phys = json_object_get(value, "physical"), *cr3 = json_object_get(value, "cr3");
    if (!wire_only(value, keys, err))
        return false;
    if (!virtual == !phys || (phys && cr3))
        return wire_fail(err, "'%s' must have either 'virtual' (and perhaps 'cr3') or 'physical'",
                         name);
    *physical = phys != NULL;
    return (!cr3 || one_space(r, cr3, err)) &&
           wire_number(phys ? phys : virtual, name, UINT64_MAX, out, err);
}

/* A region's base in its long form becomes what struct protect_region has: a number and a flag. */
static bool plain_base(struct request *r, json_t *region, struct wire_error *err)
{
    const json_t *base = json_object_get(region, "base"), *flags = json_object_get(region, "flags");
    uint64_t value, bits = 0;
    bool physical;
    if (!json_is_object(base))
        return true;
    if (!address(r, base, "base", &value, &physical, err) ||
        (flags && !wire_bits(flags, "flags", wire_region_flags, UINT32_MAX, &bits, err)))
        return false;
    json_object_set_new(region, "base", wire_hex(value));
    if (physical)
        json_object_set_new(region, "flags", wire_hex(bits | PROTECT_PHYSICAL));
    return true;
}

/* ---- The operations -------------------------------------------------------------------------- */

static bool get_command(struct request *r, json_t *json, struct wire_error *err)
{
    json_t *regions = json_object_get(json, "regions"), *region;
    size_t i;
    if (json_is_array(regions))
        json_array_foreach (regions, i, region)
            if (!plain_base(r, region, err))
                return false;
    return truth(json, "keep", &r->keep, err) && wire_command_decode(json, &r->command, err);
}

static bool get_list(struct request *r, json_t *json, struct wire_error *err)
{
    r->count = REQUEST_LIST_MAX;
    return number32(json, "first", UINT32_MAX, &r->first, err) &&
           number32(json, "count", REQUEST_LIST_MAX, &r->count, err);
}

static bool get_events(struct request *r, json_t *json, struct wire_error *err)
{
    r->has_acknowledge = json_object_get(json, "acknowledge") != NULL;
    return number(json, "acknowledge", UINT64_MAX, &r->acknowledge, err) &&
           number(json, "session", UINT64_MAX, &r->session, err);
}

static bool get_grant(struct request *r, json_t *json, struct wire_error *err)
{
    uint64_t bits = 0;
    bool ok =
        need(json, "context", err) && need(json, "grants", err) &&
        wire_bits(json_object_get(json, "grants"), "grants", wire_grants, UINT32_MAX, &bits, err) &&
        truth(json, "take", &r->take, err);
    r->grants = (uint32_t)bits;
    return ok;
}

static bool get_destroy(struct request *r, json_t *json, struct wire_error *err)
{
    (void)r;
    return need(json, "context", err);
}

static bool get_subscribe(struct request *r, json_t *json, struct wire_error *err)
{
    static const char *const words[] = {"none", "own", "all", NULL};
    uint64_t watch = CONTROL_ALL;
    const json_t *value = json_object_get(json, "events");
    bool ok = !value || wire_choice(value, "events", words, CONTROL_ALL, &watch, err);
    r->watch = (enum control_watch)watch;
    return ok;
}

static bool get_handle(struct request *r, json_t *json, struct wire_error *err)
{
    r->on = true;
    return truth(json, "on", &r->on, err) &&
           number32(json, "timeout_ms", UINT32_MAX, &r->timeout_ms, err);
}

static bool get_answer(struct request *r, json_t *json, struct wire_error *err)
{
    uint64_t verdict = 0;
    bool ok = need(json, "token", err) && number(json, "token", UINT64_MAX, &r->token, err) &&
              need(json, "verdict", err) &&
              wire_choice(json_object_get(json, "verdict"), "verdict", wire_verdicts, UINT8_MAX,
                          &verdict, err) &&
              number(json, "value", UINT64_MAX, &r->value, err);
    r->verdict = (unsigned)verdict;
    return ok;
}

static bool get_memory(struct request *r, json_t *json, struct wire_error *err)
{
    return need(json, "address", err) &&
           address(r, json_object_get(json, "address"), "address", &r->address, &r->physical, err);
}

static bool get_read(struct request *r, json_t *json, struct wire_error *err)
{
    uint64_t length = 0;
    bool ok = get_memory(r, json, err) && need(json, "length", err) &&
              number(json, "length", WIRE_DATA_MAX, &length, err);
    r->length = length;
    return ok;
}

static bool get_write(struct request *r, json_t *json, struct wire_error *err)
{
    r->data = malloc(WIRE_DATA_MAX);
    if (!r->data)
        return wire_fail(err, "no memory for the request");
    return get_memory(r, json, err) && need(json, "data", err) &&
           wire_bytes(json_object_get(json, "data"), "data", r->data, WIRE_DATA_MAX, &r->length,
                      err);
}

/* A string; those with NULs do not get through the parser. */
static bool get_string(char **to, const json_t *json, const char *name, struct wire_error *err)
{
    const json_t *value = json_object_get(json, name);
    const char *text = json_string_value(value);
    if (!need(json, name, err))
        return false;
    if (!text || !*text)
        return wire_fail(err, "'%s' must be a string", name);
    *to = strdup(text);
    return *to || wire_fail(err, "no memory for the request");
}

static bool get_text(struct request *r, const json_t *json, const char *name,
                     struct wire_error *err)
{
    return get_string(&r->text, json, name, err);
}

/* The machine has a working directory of its own, which the client need not know. */
static bool get_screendump(struct request *r, json_t *json, struct wire_error *err)
{
    if (!get_text(r, json, "file", err))
        return false;
    return r->text[0] == '/' || wire_fail(err, "'file' must be an absolute path");
}

static bool get_sendkey(struct request *r, json_t *json, struct wire_error *err)
{
    return get_text(r, json, "keys", err) &&
           number32(json, "hold_ms", UINT32_MAX, &r->hold_ms, err);
}

static bool get_eject(struct request *r, json_t *json, struct wire_error *err)
{
    return get_string(&r->drive, json, "drive", err) && truth(json, "force", &r->force, err);
}

/* The file is one of the machine's, as in screendump, or a network disk. */
static bool get_change(struct request *r, json_t *json, struct wire_error *err)
{
    bool formatted = json_object_get(json, "format") != NULL;
    if (!get_eject(r, json, err) || !get_text(r, json, "file", err) ||
        (formatted && !get_string(&r->format, json, "format", err)))
        return false;
    return r->text[0] == '/' || strncmp(r->text, "nbd", 3) == 0 ||
           wire_fail(err, "'file' must be an absolute path");
}

static bool get_nothing(struct request *r, json_t *json, struct wire_error *err)
{
    (void)r, (void)json, (void)err;
    return true;
}

enum { OWN_KEYS = 6 };

static const struct op {
    const char *name;
    enum request_op op;
    bool (*get)(struct request *r, json_t *json, struct wire_error *err);
    const char *keys[OWN_KEYS]; /* beside "id" and "op" */
} ops[] = {
    {"list", REQUEST_LIST, get_list, {"context", "first", "count"}},
    {"events", REQUEST_EVENTS, get_events, {"context", "session", "acknowledge"}},
    {"grant", REQUEST_GRANT, get_grant, {"context", "grants", "take"}},
    {"destroy", REQUEST_DESTROY, get_destroy, {"context"}},
    {"subscribe", REQUEST_SUBSCRIBE, get_subscribe, {"events"}},
    {"handle", REQUEST_HANDLE, get_handle, {"context", "on", "timeout_ms"}},
    {"answer", REQUEST_ANSWER, get_answer, {"token", "verdict", "value"}},
    {"read", REQUEST_READ, get_read, {"address", "length", "cr3", "vcpu"}},
    {"write", REQUEST_WRITE, get_write, {"address", "data", "cr3", "vcpu"}},
    {"pause", REQUEST_PAUSE, get_nothing, {0}},
    {"continue", REQUEST_CONTINUE, get_nothing, {0}},
    {"stop", REQUEST_STOP, get_nothing, {0}},
    {"status", REQUEST_STATUS, get_nothing, {0}},
    {"counters", REQUEST_COUNTERS, get_nothing, {0}},
    {"screendump", REQUEST_SCREENDUMP, get_screendump, {"file"}},
    {"screen", REQUEST_SCREEN, get_nothing, {0}},
    {"sendkey", REQUEST_SENDKEY, get_sendkey, {"keys", "hold_ms"}},
    {"eject", REQUEST_EJECT, get_eject, {"drive", "force"}},
    {"change", REQUEST_CHANGE, get_change, {"drive", "force", "file", "format"}},
};
static const struct op command_op = {
    "command", REQUEST_COMMAND, get_command, {"context", "cr3", "vcpu", "keep"}};

static bool in_list(const char *const *list, unsigned max, const char *key)
{
    for (unsigned i = 0; i < max && list[i]; i++)
        if (strcmp(list[i], key) == 0)
            return true;
    return false;
}

static bool check_keys(const json_t *json, const struct op *op, struct wire_error *err)
{
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)json, key, value) {
        bool known = strcmp(key, "id") == 0 || strcmp(key, "op") == 0 ||
                     in_list(op->keys, OWN_KEYS, key) ||
                     (op == &command_op && in_list(wire_command_keys, ~0u, key));
        if (!known)
            return wire_fail(err, "a request of this kind has no member '%.40s'", key);
    }
    return true;
}

/* ---- A line ---------------------------------------------------------------------------------- */

static const struct op *find_op(const json_t *json, struct wire_error *err)
{
    const json_t *value = json_object_get(json, "op");
    const char *name = json_string_value(value);
    for (unsigned i = 0; name && i < sizeof(ops) / sizeof(ops[0]); i++)
        if (strcmp(ops[i].name, name) == 0)
            return &ops[i];
    if (json_is_integer(value) || (name && wire_op_number(name)))
        return &command_op;
    wire_fail(err, name ? "there is no operation '%.40s'" : "'op' is missing", name);
    return NULL;
}

/* Integers and short strings; they come back in the reply. */
static bool get_id(struct request *r, const json_t *json, struct wire_error *err)
{
    json_t *id = json_object_get(json, "id");
    if (!id || json_is_null(id))
        return true;
    if (!json_is_integer(id) && !(json_is_string(id) && json_string_length(id) <= 64))
        return wire_fail(err, "'id' must be an integer or a string of at most 64 bytes");
    r->id = json_incref(id);
    return true;
}

static bool get_common(struct request *r, const json_t *json, struct wire_error *err)
{
    const json_t *cr3 = json_object_get(json, "cr3");
    uint64_t context = 0, vcpu = 0;
    r->has_context = json_object_get(json, "context") != NULL;
    if (!number(json, "context", UINT32_MAX, &context, err) ||
        !number(json, "vcpu", UINT16_MAX, &vcpu, err) || (cr3 && !one_space(r, cr3, err)))
        return false;
    r->context = (unsigned)context;
    r->space.vcpu = (unsigned)vcpu;
    return true;
}

static bool get_request(struct request *r, json_t *json, struct wire_error *err)
{
    if (!json_is_object(json))
        return wire_fail(err, "a request must be an object");
    if (!get_id(r, json, err))
        return false;
    const struct op *op = find_op(json, err);
    if (!op)
        return false;
    r->op = op->op;
    return check_keys(json, op, err) && get_common(r, json, err) && op->get(r, json, err);
}

enum request_problem request_parse(const char *line, size_t len, struct request *r,
                                   struct wire_error *err)
{
    json_error_t why;
    memset(r, 0, sizeof(*r));
    json_t *json = json_loadb(line, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &why);
    if (!json) {
        wire_fail(err, "column %d: %s", why.column, why.text);
        return REQUEST_BAD_JSON;
    }
    bool ok = get_request(r, json, err);
    json_decref(json);
    return ok ? REQUEST_FINE : REQUEST_BAD;
}

void request_free(struct request *r)
{
    json_decref(r->id);
    wire_command_free(&r->command);
    free(r->data);
    free(r->text);
    free(r->drive);
    free(r->format);
    memset(r, 0, sizeof(*r));
}
