/*
 * command.c - a command of protect.h as a request, and what came of it as a reply.
 *
 * Whatever a client may put into a descriptor can be said, senseless values included: `arg` carries
 * arguments that an operation does not have, and `op` may be a number. So one suite of tests of the
 * interface's errors fits the door and the socket.
 */
#include "internal/wire.h"
#include <stdlib.h>
#include <string.h>

static const struct wire_op ops[PROTECT_OPS] = {
    [PROTECT_OP_BIND] = {"bind", WIRE_PLAIN, NULL, NULL},
    [PROTECT_OP_UNBIND] = {"unbind", WIRE_PLAIN, NULL, NULL},
    [PROTECT_OP_ADD_REGIONS] = {"add-regions", WIRE_ARRAY, "regions", &wire_region},
    [PROTECT_OP_REMOVE_REGIONS] = {"remove-regions", WIRE_RANGE, NULL, NULL},
    [PROTECT_OP_SET_RULES] = {"set-rules", WIRE_ARRAY, "rules", &wire_rule},
    [PROTECT_OP_SET_HANDLER] = {"set-handler", WIRE_IN, "handler", &wire_handler},
    [PROTECT_OP_QUERY] = {"query", WIRE_IN_OUT, "query", &wire_query},
    [PROTECT_OP_SEAL] = {"seal", WIRE_SEALS, "seals", NULL},
    [PROTECT_OP_STATISTICS] = {"statistics", WIRE_OUT, "statistics", &wire_statistics},
};

const char *const wire_command_keys[] = {"op",      "version", "reserved",   "session", "arg",
                                         "regions", "rules",   "handler",    "query",   "seals",
                                         "region",  "count",   "statistics", NULL};

const struct wire_op *wire_op(unsigned op)
{
    return op < PROTECT_OPS && ops[op].name ? &ops[op] : NULL;
}

unsigned wire_op_number(const char *name)
{
    for (unsigned op = 0; op < PROTECT_OPS; op++)
        if (ops[op].name && strcmp(ops[op].name, name) == 0)
            return op;
    return 0;
}

/* How many of arg[] the shape describes by itself. */
static unsigned own_arguments(const struct wire_op *op)
{
    if (!op || op->shape == WIRE_PLAIN)
        return 0;
    return op->shape == WIRE_ARRAY || op->shape == WIRE_RANGE ? 2 : 1;
}

/* ---- Requests, read -------------------------------------------------------------------------- */

static bool member_number(const json_t *object, const char *name, uint64_t max, uint64_t *out,
                          struct wire_error *err)
{
    const json_t *value = json_object_get(object, name);
    return !value || wire_number(value, name, max, out, err);
}

/* What an element holds where the request says nothing. */
static void preset(const struct wire_layout *layout, void *element)
{
    if (layout == &wire_rule) {
        struct protect_rule *rule = element;
        rule->count = 1;
        memset(rule->allow, PROTECT_ALL, sizeof(rule->allow));
    } else if (layout == &wire_query) {
        ((struct protect_query *)element)->region = ~0u;
    }
}

static bool allocate(struct wire_command *c, size_t count, size_t size, struct wire_error *err)
{
    c->size = count * size;
    c->memory = calloc(count ? count : 1, size);
    if (!c->memory)
        return wire_fail(err, "no memory for the request");
    c->command.arg[0] = (uintptr_t)c->memory;
    return true;
}

static bool decode_array(const json_t *request, const struct wire_op *op, struct wire_command *c,
                         struct wire_error *err)
{
    const json_t *list = json_object_get(request, op->field), *element;
    size_t size = op->layout->size, i;
    if (!json_is_array(list))
        return wire_fail(err, "'%s' needs a list '%s'", op->name, op->field);
    if (!allocate(c, json_array_size(list), size, err))
        return false;
    json_array_foreach ((json_t *)list, i, element) {
        struct wire_error inner;
        void *to = (uint8_t *)c->memory + i * size;
        preset(op->layout, to);
        if (!wire_decode(element, op->layout, WIRE_STRICT, to, &inner))
            return wire_fail(err, "%s[%zu]: %s", op->field, i, inner.text);
    }
    c->command.arg[1] = json_array_size(list);
    return member_number(request, "count", UINT64_MAX, &c->command.arg[1], err);
}

static bool decode_struct(const json_t *request, const struct wire_op *op, struct wire_command *c,
                          struct wire_error *err)
{
    const json_t *object = json_object_get(request, op->field);
    if (op->shape == WIRE_IN && json_is_null(object))
        return true; /* arg[0] = 0 */
    if (op->shape != WIRE_OUT && !json_is_object(object))
        return wire_fail(err, "'%s' needs an object '%s'", op->name, op->field);
    if (!allocate(c, 1, op->layout->size, err))
        return false;
    preset(op->layout, c->memory);
    return op->shape == WIRE_OUT || wire_decode(object, op->layout, WIRE_STRICT, c->memory, err);
}

static bool decode_arguments(const json_t *request, const struct wire_op *op,
                             struct wire_command *c, struct wire_error *err)
{
    struct protect_command *command = &c->command;
    switch (op->shape) {
    case WIRE_PLAIN:
        return true;
    case WIRE_ARRAY:
        return decode_array(request, op, c, err);
    case WIRE_RANGE:
        command->arg[1] = 1;
        if (!json_object_get(request, "region"))
            return wire_fail(err, "'%s' needs 'region'", op->name);
        return member_number(request, "region", UINT64_MAX, &command->arg[0], err) &&
               member_number(request, "count", UINT64_MAX, &command->arg[1], err);
    case WIRE_SEALS:
        if (!json_object_get(request, op->field))
            return wire_fail(err, "'%s' needs '%s'", op->name, op->field);
        return wire_bits(json_object_get(request, op->field), op->field, wire_seals, UINT64_MAX,
                         &command->arg[0], err);
    default:
        return decode_struct(request, op, c, err);
    }
}

/* Further arguments, as they are. */
static bool decode_raw(const json_t *request, unsigned own, struct wire_command *c,
                       struct wire_error *err)
{
    const json_t *list = json_object_get(request, "arg"), *element;
    size_t i;
    if (!list)
        return true;
    if (!json_is_array(list) || json_array_size(list) > 4)
        return wire_fail(err, "'arg' must be a list of at most 4");
    json_array_foreach ((json_t *)list, i, element) {
        uint64_t value;
        if (!wire_number(element, "arg", UINT64_MAX, &value, err))
            return false;
        if (i >= own)
            c->command.arg[i] = value;
    }
    return true;
}

static bool decode_op(const json_t *request, uint64_t *op, struct wire_error *err)
{
    const json_t *value = json_object_get(request, "op");
    const char *name = json_string_value(value);
    *op = name ? wire_op_number(name) : 0;
    return *op || wire_number(value, "op", UINT16_MAX, op, err);
}

bool wire_command_decode(const json_t *request, struct wire_command *c, struct wire_error *err)
{
    uint64_t op, version = 0, reserved = 0;
    memset(c, 0, sizeof(*c));
    if (!decode_op(request, &op, err) ||
        !member_number(request, "version", UINT16_MAX, &version, err) ||
        !member_number(request, "reserved", UINT32_MAX, &reserved, err) ||
        !member_number(request, "session", UINT64_MAX, &c->command.session, err))
        return false;
    c->command.op = (uint16_t)op;
    c->command.version = (uint16_t)version;
    c->command.reserved = (uint32_t)reserved;
    const struct wire_op *known = wire_op(c->command.op);
    return (!known || decode_arguments(request, known, c, err)) &&
           decode_raw(request, own_arguments(known), c, err);
}

void wire_command_free(struct wire_command *c)
{
    free(c->memory);
    c->memory = NULL;
    c->size = 0;
}

void *wire_command_memory(const struct wire_command *c, uint64_t address, size_t len)
{
    uint64_t offset = address - (uintptr_t)c->memory;
    if (!c->memory || offset > c->size || len > c->size - offset)
        return NULL;
    return (uint8_t *)c->memory + offset;
}

/* ---- Requests, written ----------------------------------------------------------------------- */

static json_t *encode_array(const struct wire_layout *layout, const struct protect_command *c)
{
    json_t *list = json_array();
    const uint8_t *from = (const uint8_t *)(uintptr_t)c->arg[0];
    for (uint64_t i = 0; i < c->arg[1]; i++)
        json_array_append_new(list, wire_encode(layout, from + i * layout->size));
    return list;
}

static void encode_arguments(const struct wire_op *op, const struct protect_command *c,
                             json_t *request)
{
    const void *memory = (const void *)(uintptr_t)c->arg[0];
    switch (op->shape) {
    case WIRE_PLAIN:
    case WIRE_OUT:
        break;
    case WIRE_ARRAY: /* too many are refused by their number: they need not be there */
        if (c->arg[1] > PROTECT_MAX_ELEMENTS)
            json_object_set_new(request, "count", wire_hex(c->arg[1]));
        json_object_set_new(request, op->field,
                            c->arg[1] > PROTECT_MAX_ELEMENTS ? json_array()
                                                             : encode_array(op->layout, c));
        break;
    case WIRE_RANGE:
        json_object_set_new(request, "region", wire_hex(c->arg[0]));
        json_object_set_new(request, "count", wire_hex(c->arg[1]));
        break;
    case WIRE_SEALS:
        json_object_set_new(request, op->field, wire_hex(c->arg[0]));
        break;
    case WIRE_IN:
    case WIRE_IN_OUT:
        json_object_set_new(request, op->field,
                            memory ? wire_encode(op->layout, memory) : json_null());
        break;
    }
}

static void encode_raw(const struct protect_command *c, unsigned own, json_t *request)
{
    bool any = false;
    json_t *list = json_array();
    for (unsigned i = 0; i < 4; i++) {
        any |= i >= own && c->arg[i];
        json_array_append_new(list, wire_hex(i >= own ? c->arg[i] : 0));
    }
    if (any)
        json_object_set(request, "arg", list);
    json_decref(list);
}

json_t *wire_command_encode(const struct protect_command *c)
{
    const struct wire_op *op = wire_op(c->op);
    json_t *request = json_object();
    json_object_set_new(request, "op", op ? json_string(op->name) : json_integer(c->op));
    if (c->version)
        json_object_set_new(request, "version", json_integer(c->version));
    if (c->reserved)
        json_object_set_new(request, "reserved", json_integer(c->reserved));
    if (c->session)
        json_object_set_new(request, "session", wire_hex(c->session));
    if (op)
        encode_arguments(op, c, request);
    encode_raw(c, own_arguments(op), request);
    return request;
}

/* ---- Replies --------------------------------------------------------------------------------- */

static bool fills_in(const struct wire_op *op)
{
    return op && (op->shape == WIRE_OUT || op->shape == WIRE_IN_OUT);
}

void wire_reply_encode(const struct protect_command *c, json_t *reply)
{
    const struct wire_op *op = wire_op(c->op);
    json_object_set_new(reply, "status", wire_choice_json(wire_statuses, c->status));
    if (c->status != PROTECT_OK) {
        json_object_set_new(reply, "element", json_integer(c->element));
        json_object_set_new(reply, "text", json_string(wire_status_text(c->status)));
        return;
    }
    json_object_set_new(reply, "result", wire_hex(c->result));
    if (fills_in(op) && c->arg[0])
        json_object_set_new(reply, op->field,
                            wire_encode(op->layout, (const void *)(uintptr_t)c->arg[0]));
}

bool wire_reply_decode(const json_t *reply, struct protect_command *c, struct wire_error *err)
{
    const struct wire_op *op = wire_op(c->op);
    uint64_t status, element = 0, result = 0;
    if (!wire_choice(json_object_get(reply, "status"), "status", wire_statuses, UINT32_MAX, &status,
                     err) ||
        !member_number(reply, "element", UINT32_MAX, &element, err) ||
        !member_number(reply, "result", UINT64_MAX, &result, err))
        return false;
    c->status = (uint32_t)status;
    c->element = (uint32_t)element;
    c->result = result;
    if (c->status != PROTECT_OK || !fills_in(op) || !c->arg[0])
        return true;
    return wire_decode(json_object_get(reply, op->field), op->layout, WIRE_LENIENT,
                       (void *)(uintptr_t)c->arg[0], err);
}
