/*
 * message.c - what the server says unasked: events, questions, losses, the machine's state.
 */
#include "connection.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool member_number(const json_t *object, const char *name, uint64_t max, uint64_t *out)
{
    struct wire_error ignored;
    const json_t *value = json_object_get(object, name);
    return value && wire_number(value, name, max, out, &ignored);
}

static bool get_event(const json_t *object, const json_t *event, struct bctl_message *m)
{
    struct wire_error ignored;
    uint64_t context = 0;
    bool ok = member_number(object, "context", UINT32_MAX, &context) &&
              wire_decode(event, &wire_event, WIRE_LENIENT, &m->event, &ignored);
    m->context = (unsigned)context;
    return ok;
}

static bool get_ask(const json_t *ask, struct bctl_message *m)
{
    uint64_t timeout = 0;
    bool ok = get_event(ask, json_object_get(ask, "event"), m) &&
              member_number(ask, "token", UINT64_MAX, &m->token) &&
              member_number(ask, "timeout_ms", UINT32_MAX, &timeout);
    m->timeout_ms = (unsigned)timeout;
    return ok;
}

static void copy_text(char *to, size_t size, const json_t *value)
{
    const char *text = json_string_value(value);
    snprintf(to, size, "%s", text ? text : "");
}

/* False: not a message that this library knows; newer servers may have more of them. */
static bool decode(const json_t *json, struct bctl_message *m)
{
    const json_t *it;
    memset(m, 0, sizeof(*m));
    if ((it = json_object_get(json, "event"))) {
        m->type = BCTL_EVENT;
        return get_event(it, it, m);
    }
    if ((it = json_object_get(json, "ask"))) {
        m->type = BCTL_ASK;
        return get_ask(it, m);
    }
    if ((it = json_object_get(json, "lost"))) {
        m->type = BCTL_LOST;
        return member_number(it, "events", UINT64_MAX, &m->lost);
    }
    if ((it = json_object_get(json, "machine"))) {
        m->type = BCTL_STATE;
        copy_text(m->state, sizeof(m->state), json_object_get(it, "state"));
        copy_text(m->text, sizeof(m->text), json_object_get(it, "report"));
        return true;
    }
    return false;
}

static void set_line(struct bctl *ctl, char *line)
{
    free(ctl->line);
    ctl->line = line;
}

/* One that came while a reply was waited for. */
static bool take_pushed(struct bctl *ctl, json_t **json)
{
    struct pushed *p = ctl->first;
    if (!p)
        return false;
    ctl->first = p->next;
    if (!ctl->first)
        ctl->last = &ctl->first;
    ctl->pushed_count--;
    *json = p->json;
    set_line(ctl, p->line);
    free(p);
    return true;
}

static void report_dropped(struct bctl *ctl, struct bctl_message *m)
{
    char line[64];
    memset(m, 0, sizeof(*m));
    m->type = BCTL_LOST;
    m->lost = ctl->dropped;
    snprintf(line, sizeof(line), "{\"lost\":{\"events\":%llu}}", (unsigned long long)m->lost);
    set_line(ctl, strdup(line));
    ctl->dropped = 0;
}

static enum bctl_next receive(struct bctl *ctl, int timeout_ms, json_t **json,
                              struct bctl_error *error)
{
    char *line = NULL;
    switch (ctl_receive(ctl, timeout_ms, json, &line, error)) {
    case CTL_LINE:
        set_line(ctl, line);
        return BCTL_MESSAGE;
    case CTL_TIMEOUT:
        return BCTL_TIMEOUT;
    case CTL_CLOSED:
        ctl_lose(error, "the server closed the connection");
        return BCTL_FAILED;
    case CTL_FAILED:
        break;
    }
    return BCTL_FAILED;
}

enum bctl_next bctl_next(struct bctl *ctl, int timeout_ms, struct bctl_message *m,
                         struct bctl_error *error)
{
    for (;;) {
        json_t *json = NULL;
        enum bctl_next got = BCTL_MESSAGE;
        if (ctl->dropped && !ctl->first) {
            report_dropped(ctl, m);
        } else {
            if (!take_pushed(ctl, &json))
                got = receive(ctl, timeout_ms, &json, error);
            if (got != BCTL_MESSAGE)
                return got;
            bool over = ctl_goodbye(ctl, json, error), known = !over && decode(json, m);
            json_decref(json);
            if (over)
                return ctl->ended ? BCTL_ENDED : BCTL_FAILED;
            if (!known)
                continue;
        }
        m->json = ctl->line;
        return BCTL_MESSAGE;
    }
}
