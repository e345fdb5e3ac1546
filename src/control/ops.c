/*
 * ops.c - requests carried out: one function an operation, each fills in the reply.
 */
#include "ops.h"
#include "clients.h"
#include "internal/error.h"
#include "show.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void set_status(json_t *reply, const char *status, const char *text)
{
    json_object_set_new(reply, "status", json_string(status));
    json_object_set_new(reply, "text", json_string(text));
}

static void set_protect_status(json_t *reply, enum protect_status status)
{
    json_object_set_new(reply, "status", json_string(wire_statuses[status]));
    if (status != PROTECT_OK)
        json_object_set_new(reply, "text", json_string(wire_status_text(status)));
}

/* A request without a context means the client's own. */
static bool resolve_context(struct control_client *client, struct request *r, json_t *reply)
{
    if (r->has_context || control_context(client, &r->context))
        return true;
    set_protect_status(reply, PROTECT_NOT_BOUND);
    return false;
}

/* ---- Commands -------------------------------------------------------------------------------- */

static bool copy_in(void *opaque, uint64_t from, void *to, size_t len)
{
    const void *memory = wire_command_memory(opaque, from, len);
    if (memory)
        memcpy(to, memory, len);
    return memory != NULL;
}

static bool copy_out(void *opaque, uint64_t to, const void *from, size_t len)
{
    void *memory = wire_command_memory(opaque, to, len);
    if (memory)
        memcpy(memory, from, len);
    return memory != NULL;
}

static void run_command(struct control_client *client, struct request *r, json_t *reply)
{
    struct protect_command *command = &r->command.command;
    struct rules_caller caller = {.opaque = &r->command, .copy_in = copy_in, .copy_out = copy_out};
    bool bind = command->op == PROTECT_OP_BIND;
    if (!bind && !resolve_context(client, r, reply))
        return;
    control_execute(client, &r->context, command, &caller, &r->space);
    wire_reply_encode(command, reply);
    if (!bind || command->status != PROTECT_OK)
        return;
    json_object_set_new(reply, "context", json_integer(r->context));
    if (r->keep)
        control_keep(client, r->context);
}

static void run_grant(struct control_client *client, struct request *r, json_t *reply)
{
    set_protect_status(reply, control_grant(client->control, r->context, r->grants, r->take));
}

static void run_destroy(struct control_client *client, struct request *r, json_t *reply)
{
    set_protect_status(reply, control_destroy(client->control, r->context));
}

/* ---- What there is, and what happened -------------------------------------------------------- */

static void run_list(struct control_client *client, struct request *r, json_t *reply)
{
    if (!r->has_context) {
        show_contexts(client->control, reply);
        set_protect_status(reply, PROTECT_OK);
    } else if (r->context >= RULES_CONTEXTS) {
        set_protect_status(reply, PROTECT_BAD_ARGUMENT);
    } else {
        show_regions(client->control, r->context, r->first, r->count, reply);
        set_protect_status(reply, PROTECT_OK);
    }
}

/* The ring of a host context, for clients that would rather ask than be told. */
static void run_events(struct control_client *client, struct request *r, json_t *reply)
{
    if (!resolve_context(client, r, reply))
        return;
    if (!is_host_context(r->context))
        set_protect_status(reply, PROTECT_WRONG_CALLER);
    else
        set_protect_status(reply, show_events(client, r->context, r->session,
                                              r->has_acknowledge ? &r->acknowledge : NULL, reply));
}

static void run_subscribe(struct control_client *client, struct request *r, json_t *reply)
{
    control_subscribe(client, r->watch);
    set_protect_status(reply, PROTECT_OK);
}

static void run_handle(struct control_client *client, struct request *r, json_t *reply)
{
    if (resolve_context(client, r, reply))
        set_protect_status(reply, control_handle(client, r->context, r->on, r->timeout_ms));
}

static void run_answer(struct control_client *client, struct request *r, json_t *reply)
{
    set_protect_status(reply, control_answer(client, r->token, r->verdict, r->value));
}

/* ---- Memory ---------------------------------------------------------------------------------- */

static void set_memory_result(json_t *reply, enum control_result result, size_t done)
{
    switch (result) {
    case CONTROL_OK:
        set_protect_status(reply, PROTECT_OK);
        break;
    case CONTROL_NOT_MEMORY:
        set_protect_status(reply, PROTECT_NOT_MEMORY);
        break;
    case CONTROL_NOT_MAPPED:
        set_protect_status(reply, PROTECT_NOT_MAPPED);
        break;
    case CONTROL_REFUSED:
        set_status(reply, "REFUSED", "a protection rule refused the access");
        json_object_set_new(reply, "done", json_integer((json_int_t)done));
        break;
    }
}

static void run_memory(struct control_client *client, struct request *r, json_t *reply)
{
    size_t done;
    bool write = r->op == REQUEST_WRITE;
    uint8_t *buf = write ? r->data : malloc(r->length + 1);
    if (!buf) {
        set_protect_status(reply, PROTECT_NO_MEMORY);
        return;
    }
    enum control_result result = control_memory(client->control, r->physical ? NULL : &r->space,
                                                r->address, buf, r->length, write, &done);
    set_memory_result(reply, result, done);
    if (!write && result == CONTROL_OK)
        json_object_set_new(reply, "data", wire_bytes_json(buf, r->length));
    if (!write)
        free(buf);
}

/* ---- The machine ----------------------------------------------------------------------------- */

/* The vCPUs stop at their next safepoint: at once, unless one waits for an answer. The reply says
 * whether they have. */
static void await_pause(const struct control_machine *m)
{
    const struct timespec moment = {.tv_nsec = 1000000};
    for (unsigned i = 0; i < 2000 && !m->paused(m->opaque); i++)
        nanosleep(&moment, NULL);
}

static void run_machine(struct control_client *client, struct request *r, json_t *reply)
{
    const struct control_machine *m = &client->control->machine;
    if (r->op == REQUEST_PAUSE) {
        m->pause(m->opaque);
        await_pause(m);
    } else if (r->op == REQUEST_CONTINUE) {
        m->resume(m->opaque);
    } else if (r->op == REQUEST_STOP) {
        m->stop(m->opaque);
    } else {
        json_object_set_new(reply, "vcpus", json_integer(m->vcpus));
    }
    json_object_set_new(reply, "machine", json_string(m->paused(m->opaque) ? "paused" : "running"));
    set_protect_status(reply, PROTECT_OK);
}

static void run_counters(struct control_client *client, struct request *r, json_t *reply)
{
    (void)r;
    show_counters(client->control, reply);
    set_protect_status(reply, PROTECT_OK);
}

/* ---- Screen and keyboard --------------------------------------------------------------------- */

static const struct error no_screen = {"the machine has neither display nor keyboard"};

static void set_outcome(json_t *reply, bool ok, const struct error *err)
{
    if (ok)
        set_protect_status(reply, PROTECT_OK);
    else
        set_status(reply, "FAILED", err->msg);
}

static void run_screendump(struct control_client *client, struct request *r, json_t *reply)
{
    const struct control_machine *m = &client->control->machine;
    struct error err = no_screen;
    set_outcome(reply, m->screendump && m->screendump(m->opaque, r->text, &err), &err);
}

static json_t *lines_of(char *text)
{
    json_t *lines = json_array();
    char *rest = text, *line;
    while ((line = strsep(&rest, "\n")) && rest)
        json_array_append_new(lines, json_string(line));
    return lines;
}

static void run_screen(struct control_client *client, struct request *r, json_t *reply)
{
    const struct control_machine *m = &client->control->machine;
    struct error err = no_screen;
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    (void)r;
    if (!out)
        error_set(&err, "no memory");
    bool ok = out && m->screen && m->screen(m->opaque, out, &err);
    if (out && fclose(out) != 0)
        ok = false;
    set_outcome(reply, ok, &err);
    if (ok)
        json_object_set_new(reply, "lines", lines_of(text));
    free(text);
}

static void run_sendkey(struct control_client *client, struct request *r, json_t *reply)
{
    const struct control_machine *m = &client->control->machine;
    struct error err = no_screen;
    set_outcome(reply, m->sendkey && m->sendkey(m->opaque, r->text, r->hold_ms, &err), &err);
}

/* ---- Disks and CDs ----------------------------------------------------------------------------
 */

static void run_change(struct control_client *client, struct request *r, json_t *reply)
{
    const struct control_machine *m = &client->control->machine;
    struct error err = {"the machine has no drives whose medium could be changed"};
    set_outcome(reply,
                m->change && m->change(m->opaque, r->drive, r->text, r->format, r->force, &err),
                &err);
}

/* ---- Lines ----------------------------------------------------------------------------------- */

static char *to_line(json_t *object)
{
    size_t len = 0;
    char *text = json_dumps(object, JSON_COMPACT), *line = NULL;
    json_decref(object);
    if (text) {
        len = strlen(text);
        line = realloc(text, len + 2);
        if (line)
            strcpy(line + len, "\n");
        else
            free(text);
    }
    return line;
}

static json_t *new_reply(const struct request *r)
{
    json_t *reply = json_object();
    json_object_set_new(reply, "id", r->id ? json_incref(r->id) : json_null());
    return reply;
}

char *op_run(struct control_client *client, struct request *r)
{
    static void (*const run[])(struct control_client *, struct request *, json_t *) = {
        [REQUEST_COMMAND] = run_command,   [REQUEST_LIST] = run_list,
        [REQUEST_EVENTS] = run_events,     [REQUEST_GRANT] = run_grant,
        [REQUEST_DESTROY] = run_destroy,   [REQUEST_SUBSCRIBE] = run_subscribe,
        [REQUEST_HANDLE] = run_handle,     [REQUEST_ANSWER] = run_answer,
        [REQUEST_READ] = run_memory,       [REQUEST_WRITE] = run_memory,
        [REQUEST_PAUSE] = run_machine,     [REQUEST_CONTINUE] = run_machine,
        [REQUEST_STOP] = run_machine,      [REQUEST_STATUS] = run_machine,
        [REQUEST_COUNTERS] = run_counters, [REQUEST_SCREENDUMP] = run_screendump,
        [REQUEST_SCREEN] = run_screen,     [REQUEST_SENDKEY] = run_sendkey,
        [REQUEST_EJECT] = run_change,      [REQUEST_CHANGE] = run_change,
    };
    json_t *reply = new_reply(r);
    run[r->op](client, r, reply);
    return to_line(reply);
}

char *op_refuse(const struct request *r, enum request_problem problem, const struct wire_error *err)
{
    json_t *reply = new_reply(r);
    set_status(reply, problem == REQUEST_BAD_JSON ? "BAD_JSON" : "BAD_REQUEST", err->text);
    return to_line(reply);
}

char *line_greeting(void)
{
    return to_line(json_pack("{s{sssiss}}", "bailey", "version", BAILEY_VERSION, "protocol",
                             WIRE_PROTOCOL, "protect", "0x10000"));
}

char *line_closed(const char *status, const char *text)
{
    return to_line(json_pack("{s{ssss}}", "closed", "status", status, "text", text));
}

char *line_message(const struct control_message *m)
{
    json_t *event;
    switch (m->type) {
    case CONTROL_EVENT:
        event = wire_encode(&wire_event, &m->event);
        json_object_set_new(event, "context", json_integer(m->context));
        return to_line(json_pack("{so}", "event", event));
    case CONTROL_ASK:
        event = wire_encode(&wire_event, &m->event);
        return to_line(json_pack("{s{sososiso}}", "ask", "token", wire_hex(m->token), "context",
                                 json_integer(m->context), "timeout_ms", (int)m->timeout_ms,
                                 "event", event));
    case CONTROL_LOST:
        return to_line(json_pack("{s{sI}}", "lost", "events", (json_int_t)m->lost));
    case CONTROL_STATE:
        return to_line(json_pack("{s{ssss}}", "machine", "state", m->state, "report", m->text));
    }
    return NULL;
}
