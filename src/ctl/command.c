/*
 * command.c - the operations of the control socket as C functions.
 */
#include "connection.h"
#include <string.h>

/* ---- Commands -------------------------------------------------------------------------------- */

void bctl_use(struct bctl *ctl, unsigned context, uint64_t session)
{
    ctl->context = context;
    ctl->session = session;
}

unsigned bctl_context(const struct bctl *ctl)
{
    return ctl->context;
}

uint64_t bctl_session(const struct bctl *ctl)
{
    return ctl->session;
}

void bctl_space(struct bctl *ctl, unsigned vcpu, const uint64_t *cr3)
{
    ctl->vcpu = vcpu;
    ctl->has_cr3 = cr3 != NULL;
    ctl->cr3 = cr3 ? *cr3 : 0;
}

static void set_space(const struct bctl *ctl, json_t *request)
{
    if (ctl->vcpu)
        json_object_set_new(request, "vcpu", json_integer(ctl->vcpu));
    if (ctl->has_cr3)
        json_object_set_new(request, "cr3", wire_hex(ctl->cr3));
}

/* Sends a request whose reply says nothing but whether it was carried out. */
static bool simple(struct bctl *ctl, json_t *request, struct bctl_error *error)
{
    json_t *reply = bctl_request(ctl, request, error);
    bool ok = reply && bctl_check(reply, error);
    json_decref(reply);
    return ok;
}

bool bctl_bind(struct bctl *ctl, bool keep, struct bctl_error *error)
{
    struct wire_error wrong;
    json_t *request = json_pack("{sssb}", "op", "bind", "keep", (int)keep);
    set_space(ctl, request);
    json_t *reply = bctl_request(ctl, request, error);
    bool ok = reply && bctl_check(reply, error);
    if (ok) {
        ctl->context = (unsigned)json_integer_value(json_object_get(reply, "context"));
        ok = wire_number(json_object_get(reply, "result"), "result", UINT64_MAX, &ctl->session,
                         &wrong) ||
             ctl_lose(error, "%s", wrong.text);
    }
    json_decref(reply);
    return ok;
}

/* What only the server says: not a status of the interface, so not the command's either. */
static bool is_trouble(const json_t *reply)
{
    const char *status = json_string_value(json_object_get(reply, "status"));
    return !status || wire_word(wire_statuses, status) < 0;
}

bool bctl_command(struct bctl *ctl, struct protect_command *command, struct bctl_error *error)
{
    struct wire_error wrong;
    bool bind = command->op == PROTECT_OP_BIND;
    json_t *request = wire_command_encode(command);
    if (ctl->context && !bind)
        json_object_set_new(request, "context", json_integer(ctl->context));
    if (!command->session && ctl->session && !bind)
        json_object_set_new(request, "session", wire_hex(ctl->session));
    if (bind)
        set_space(ctl, request);
    json_t *reply = bctl_request(ctl, request, error);
    if (!reply)
        return false;
    bool ok = is_trouble(reply)
                  ? bctl_check(reply, error)
                  : wire_reply_decode(reply, command, &wrong) || ctl_lose(error, "%s", wrong.text);
    if (ok && bind && command->status == PROTECT_OK)
        bctl_use(ctl, (unsigned)json_integer_value(json_object_get(reply, "context")),
                 command->result);
    json_decref(reply);
    return ok;
}

/* A command that must succeed. */
static bool must(struct bctl *ctl, struct protect_command *command, struct bctl_error *error)
{
    if (!bctl_command(ctl, command, error))
        return false;
    return command->status == PROTECT_OK ||
           ctl_fail(error, "%s: %s", wire_statuses[command->status],
                    wire_status_text(command->status));
}

bool bctl_protect(struct bctl *ctl, const struct protect_region *region, struct protect_rule *rule,
                  struct bctl_error *error)
{
    struct protect_command add = {.op = PROTECT_OP_ADD_REGIONS, .arg = {(uintptr_t)region, 1}};
    struct bctl_error ignored;
    if (!must(ctl, &add, error))
        return false;
    rule->region = (uint32_t)add.result;
    rule->count = 1;
    struct protect_command set = {.op = PROTECT_OP_SET_RULES, .arg = {(uintptr_t)rule, 1}};
    if (must(ctl, &set, error))
        return true;
    struct protect_command remove = {.op = PROTECT_OP_REMOVE_REGIONS, .arg = {add.result, 1}};
    if (!error->lost)
        bctl_command(ctl, &remove, &ignored);
    return false;
}

bool bctl_grant(struct bctl *ctl, unsigned context, uint32_t grants, bool take,
                struct bctl_error *error)
{
    return simple(ctl,
                  json_pack("{sssisIsb}", "op", "grant", "context", (int)context, "grants",
                            (json_int_t)grants, "take", (int)take),
                  error);
}

bool bctl_destroy(struct bctl *ctl, unsigned context, struct bctl_error *error)
{
    return simple(ctl, json_pack("{sssi}", "op", "destroy", "context", (int)context), error);
}

/* ---- Memory and the machine ------------------------------------------------------------------ */

static json_t *memory_request(struct bctl *ctl, const char *op, enum bctl_address kind,
                              uint64_t address)
{
    json_t *request = json_pack("{ss}", "op", op);
    if (kind == BCTL_PHYSICAL) {
        json_object_set_new(request, "address", json_pack("{so}", "physical", wire_hex(address)));
    } else {
        json_object_set_new(request, "address", wire_hex(address));
        set_space(ctl, request);
    }
    return request;
}

static bool read_piece(struct bctl *ctl, enum bctl_address kind, uint64_t address, void *buffer,
                       size_t length, struct bctl_error *error)
{
    struct wire_error wrong;
    size_t got = 0;
    json_t *request = memory_request(ctl, "read", kind, address);
    json_object_set_new(request, "length", json_integer((json_int_t)length));
    json_t *reply = bctl_request(ctl, request, error);
    bool ok = reply && bctl_check(reply, error);
    if (ok && (!wire_bytes(json_object_get(reply, "data"), "data", buffer, length, &got, &wrong) ||
               got != length))
        ok = ctl_lose(error, "the server's data are not what was asked for");
    json_decref(reply);
    return ok;
}

static bool write_piece(struct bctl *ctl, enum bctl_address kind, uint64_t address,
                        const void *buffer, size_t length, struct bctl_error *error)
{
    json_t *request = memory_request(ctl, "write", kind, address);
    json_object_set_new(request, "data", wire_bytes_json(buffer, length));
    return simple(ctl, request, error);
}

bool bctl_read(struct bctl *ctl, enum bctl_address kind, uint64_t address, void *buffer,
               size_t length, struct bctl_error *error)
{
    for (size_t at = 0, piece; at < length; at += piece) {
        piece = length - at < WIRE_DATA_MAX ? length - at : WIRE_DATA_MAX;
        if (!read_piece(ctl, kind, address + at, (char *)buffer + at, piece, error))
            return false;
    }
    return true;
}

bool bctl_write(struct bctl *ctl, enum bctl_address kind, uint64_t address, const void *buffer,
                size_t length, struct bctl_error *error)
{
    for (size_t at = 0, piece; at < length; at += piece) {
        piece = length - at < WIRE_DATA_MAX ? length - at : WIRE_DATA_MAX;
        if (!write_piece(ctl, kind, address + at, (const char *)buffer + at, piece, error))
            return false;
    }
    return true;
}

bool bctl_pause(struct bctl *ctl, struct bctl_error *error)
{
    return simple(ctl, json_pack("{ss}", "op", "pause"), error);
}

bool bctl_continue(struct bctl *ctl, struct bctl_error *error)
{
    return simple(ctl, json_pack("{ss}", "op", "continue"), error);
}

bool bctl_stop(struct bctl *ctl, struct bctl_error *error)
{
    return simple(ctl, json_pack("{ss}", "op", "stop"), error);
}

/* ---- Events and questions -------------------------------------------------------------------- */

bool bctl_subscribe(struct bctl *ctl, bool on, struct bctl_error *error)
{
    return simple(ctl, json_pack("{ssss}", "op", "subscribe", "events", on ? "all" : "none"),
                  error);
}

bool bctl_handle(struct bctl *ctl, unsigned timeout_ms, struct bctl_error *error)
{
    return bctl_handle_of(ctl, ctl->context, timeout_ms, error);
}

bool bctl_handle_of(struct bctl *ctl, unsigned context, unsigned timeout_ms,
                    struct bctl_error *error)
{
    return simple(ctl,
                  json_pack("{sssisI}", "op", "handle", "context", (int)context, "timeout_ms",
                            (json_int_t)timeout_ms),
                  error);
}

bool bctl_answer(struct bctl *ctl, uint64_t token, enum protect_verdict verdict, uint64_t value,
                 struct bctl_error *error)
{
    const char *word = wire_word_of(wire_verdicts, verdict);
    if (!word)
        return ctl_fail(error, "no such verdict");
    return simple(ctl,
                  json_pack("{sssossso}", "op", "answer", "token", wire_hex(token), "verdict", word,
                            "value", wire_hex(value)),
                  error);
}
