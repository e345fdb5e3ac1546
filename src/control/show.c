/*
 * show.c - contexts, regions, events and counters as JSON. Rules are read under the machine lock
 * (rules.h); JSON is made after it has been let go.
 */
#include "show.h"
#include "clients.h"
#include <stdlib.h>

/* ---- Contexts -------------------------------------------------------------------------------- */

static json_t *context_json(struct control *c, unsigned context,
                            const struct rules_context_info *info)
{
    json_t *json = json_object();
    pthread_mutex_lock(&c->lock);
    bool handled = c->handler[context].client != NULL;
    pthread_mutex_unlock(&c->lock);
    json_object_set_new(json, "context", json_integer(context));
    json_object_set_new(json, "kind", wire_choice_json(wire_kinds, info->kind));
    json_object_set_new(json, "grants", wire_bits_json(wire_grants, info->grants));
    json_object_set_new(json, "seals", wire_bits_json(wire_seals, info->seals));
    if (info->kind != RULES_SUPERVISOR)
        json_object_set_new(json, "root", wire_hex(info->root));
    json_object_set_new(json, "regions", wire_decimal(info->regions));
    json_object_set_new(json, "event_head", wire_decimal(info->event_head));
    json_object_set_new(json, "event_tail", wire_decimal(info->event_tail));
    json_object_set_new(json, "event_lost", wire_decimal(info->event_lost));
    json_object_set_new(json, "upcall_depth", wire_decimal(info->upcall_depth));
    json_object_set_new(json, "masked", json_boolean(info->masked));
    json_object_set_new(json, "handled_outside", json_boolean(handled));
    json_object_set_new(json, "statistics", wire_encode(&wire_statistics, &info->statistics));
    return json;
}

void show_contexts(struct control *c, json_t *reply)
{
    static const size_t size = sizeof(struct rules_context_info);
    uint64_t regions = 0, pages = 0;
    struct protect_statistics total = {0};
    struct rules_context_info *info = calloc(RULES_CONTEXTS, size);
    json_t *list = json_array();
    if (info) {
        pthread_mutex_lock(c->machine.lock);
        for (unsigned i = 0; i < RULES_CONTEXTS; i++)
            rules_context_info(c->rules, i, &info[i]);
        rules_totals(c->rules, &regions, &pages, &total);
        pthread_mutex_unlock(c->machine.lock);
    }
    for (unsigned i = 0; info && i < RULES_CONTEXTS; i++)
        if (info[i].kind != RULES_FREE)
            json_array_append_new(list, context_json(c, i, &info[i]));
    free(info);
    json_object_set_new(reply, "contexts", list);
    json_object_set_new(reply, "regions", wire_decimal(regions));
    json_object_set_new(reply, "ruled_pages", wire_decimal(pages));
    json_object_set_new(reply, "statistics", wire_encode(&wire_statistics, &total));
}

/* ---- Regions --------------------------------------------------------------------------------- */

void show_regions(struct control *c, unsigned context, uint32_t first, uint32_t count,
                  json_t *reply)
{
    struct protect_query *query = calloc(count + 1, sizeof(*query));
    json_t *list = json_array();
    uint32_t id = first, n = 0;
    bool more = query != NULL;
    if (query) {
        pthread_mutex_lock(c->machine.lock);
        while (n <= count && (more = rules_next_region(c->rules, context, &id, &query[n]))) {
            query[n++].region = id;
            if (id++ == UINT32_MAX)
                break;
        }
        pthread_mutex_unlock(c->machine.lock);
    }
    for (uint32_t i = 0; i < n && i < count; i++)
        json_array_append_new(list, wire_encode(&wire_query, &query[i]));
    json_object_set_new(reply, "regions", list);
    json_object_set_new(reply, "next", n > count ? json_integer(query[count].region) : json_null());
    free(query);
}

/* ---- Events ---------------------------------------------------------------------------------- */

enum protect_status show_events(struct control_client *client, unsigned context, uint64_t session,
                                const uint64_t *acknowledge, json_t *reply)
{
    struct control *c = client->control;
    struct rules_context_info info;
    struct protect_event event[PROTECT_EVENTS];
    unsigned n = 0;
    enum protect_status status = PROTECT_OK;
    pthread_mutex_lock(&c->lock);
    if (!session && c->owner[context - PROTECT_DOORS].client == client)
        session = c->owner[context - PROTECT_DOORS].session;
    pthread_mutex_unlock(&c->lock);
    pthread_mutex_lock(c->machine.lock);
    rules_context_info(c->rules, context, &info);
    if (info.kind != RULES_HOST)
        status = PROTECT_NOT_BOUND;
    else if (info.session != session)
        status = PROTECT_WRONG_SESSION;
    else if (acknowledge && !rules_set_event_tail(c->rules, context, *acknowledge))
        status = PROTECT_BAD_ARGUMENT;
    if (status == PROTECT_OK) {
        rules_context_info(c->rules, context, &info);
        for (uint64_t s = info.event_tail + 1; s <= info.event_head && n < PROTECT_EVENTS; s++) {
            rules_read_event(c->rules, context, (unsigned)((s - 1) % PROTECT_EVENTS), &event[n]);
            n += event[n].sequence == s; /* else: not ready */
        }
    }
    pthread_mutex_unlock(c->machine.lock);
    if (status != PROTECT_OK)
        return status;
    json_t *list = json_array();
    for (unsigned i = 0; i < n; i++)
        json_array_append_new(list, wire_encode(&wire_event, &event[i]));
    json_object_set_new(reply, "events", list);
    json_object_set_new(reply, "event_head", wire_decimal(info.event_head));
    json_object_set_new(reply, "event_tail", wire_decimal(info.event_tail));
    json_object_set_new(reply, "event_lost", wire_decimal(info.event_lost));
    return PROTECT_OK;
}

/* ---- Counters -------------------------------------------------------------------------------- */

static void put_counter(void *opaque, const char *group, const char *name, uint64_t value)
{
    json_t *vcpu = opaque, *counters = json_object_get(vcpu, group);
    if (!counters) {
        counters = json_object();
        json_object_set_new(vcpu, group, counters);
    }
    json_object_set_new(counters, name, wire_decimal(value));
}

void show_counters(struct control *c, json_t *reply)
{
    json_t *list = json_array();
    rules_change_begin(c->rules, -1); /* parks the vCPUs */
    for (unsigned i = 0; i < c->machine.vcpus; i++) {
        json_t *vcpu = json_object();
        c->machine.counters(c->machine.opaque, i, put_counter, vcpu);
        json_array_append_new(list, vcpu);
    }
    rules_change_end(c->rules, -1);
    json_object_set_new(reply, "counters", list);
}
