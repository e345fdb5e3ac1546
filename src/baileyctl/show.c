/*
 * show.c - contexts, regions and events as lines for people, and with --json as they came.
 */
#include "baileyctl.h"
#include "internal/wire.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- Replies --------------------------------------------------------------------------------- */

static void print_json(const json_t *json)
{
    json_dumpf(json, stdout, JSON_COMPACT);
    putchar('\n');
}

/* A value as it is: strings without quotes, lists with commas. */
static void print_value(const json_t *value)
{
    size_t i;
    json_t *element;
    if (json_is_string(value)) {
        fputs(json_string_value(value), stdout);
    } else if (json_is_array(value)) {
        json_array_foreach ((json_t *)value, i, element) {
            fputs(i ? "," : "", stdout);
            print_value(element);
        }
        fputs(i ? "" : "-", stdout);
    } else {
        json_dumpf(value, stdout, JSON_ENCODE_ANY | JSON_COMPACT);
    }
}

static void print_members(const json_t *object, const char *const *names)
{
    for (; *names; names++) {
        const json_t *value = json_object_get(object, *names);
        if (!value)
            continue;
        printf("  %s ", *names);
        print_value(value);
    }
}

/* Counters that are not zero. */
static void print_counters(const json_t *statistics)
{
    const char *name;
    json_t *value;
    json_object_foreach ((json_t *)statistics, name, value) {
        if (json_is_integer(value) && json_integer_value(value) == 0)
            continue;
        printf("  %s ", name);
        print_value(value);
    }
}

static void print_contexts(const json_t *reply)
{
    static const char *const names[] = {"root",       "grants",     "seals",           "regions",
                                        "event_head", "event_lost", "handled_outside", NULL};
    static const char *const totals[] = {"regions", "ruled_pages", NULL};
    size_t i;
    json_t *context;
    json_array_foreach (json_object_get(reply, "contexts"), i, context) {
        printf("context %lld", (long long)json_integer_value(json_object_get(context, "context")));
        printf("  %s", json_string_value(json_object_get(context, "kind")));
        print_members(context, names);
        print_counters(json_object_get(context, "statistics"));
        putchar('\n');
    }
    printf("total");
    print_members(reply, totals);
    print_counters(json_object_get(reply, "statistics"));
    putchar('\n');
}

/* "kernel -w- deny": what each subject may not do, in the order of the subjects. */
static void print_rule(const json_t *rule)
{
    const json_t *allow = json_object_get(rule, "allow"), *action = json_object_get(rule, "action");
    for (unsigned s = 0; wire_subjects[s]; s++) {
        const char *allowed = json_string_value(json_object_get(allow, wire_subjects[s]));
        const char *what = json_string_value(json_object_get(action, wire_subjects[s]));
        if (!allowed || !what || strlen(allowed) == 3)
            continue;
        printf("  %s ", wire_subjects[s]);
        for (const char *letter = "rwx"; *letter; letter++)
            putchar(strchr(allowed, *letter) ? '-' : *letter);
        printf(" %s", what);
    }
}

static void print_regions(const struct program *p, const json_t *reply)
{
    static const char *const names[] = {"length", "flags", "pages", "resolved", "cookie", NULL};
    size_t i;
    json_t *region;
    json_array_foreach (json_object_get(reply, "regions"), i, region) {
        struct wire_error ignored;
        uint64_t base = 0;
        wire_number(json_object_get(region, "base"), "base", UINT64_MAX, &base, &ignored);
        printf("region %lld", (long long)json_integer_value(json_object_get(region, "region")));
        printf("  base 0x%" PRIx64, base);
        print_symbol(stdout, p, base);
        print_members(region, names);
        print_rule(json_object_get(region, "rule"));
        putchar('\n');
    }
}

/* One request, its reply printed; *reply stays the caller's. */
static int show(struct program *p, json_t *request, json_t **reply)
{
    *reply = bctl_request(p->ctl, request, &p->error);
    if (!*reply || !bctl_check(*reply, &p->error))
        return fail_error(p);
    if (p->set.json)
        print_json(*reply);
    return EXIT_DONE;
}

static int list_regions(struct program *p)
{
    uint64_t context, first = 0;
    if (!parse_number(p->set.operand[0], &context) || context > INT32_MAX)
        return fail_use("'%s' is no context", p->set.operand[0]);
    for (bool more = true; more;) {
        json_t *reply;
        int status = show(p,
                          json_pack("{sssIsI}", "op", "list", "context", (json_int_t)context,
                                    "first", (json_int_t)first),
                          &reply);
        const json_t *next = json_object_get(reply, "next");
        if (status == EXIT_DONE && !p->set.json)
            print_regions(p, reply);
        more = status == EXIT_DONE && json_is_integer(next);
        first = (uint64_t)json_integer_value(next);
        json_decref(reply);
        if (status != EXIT_DONE)
            return status;
    }
    return EXIT_DONE;
}

int run_list(struct program *p)
{
    json_t *reply;
    if (p->set.count)
        return list_regions(p);
    int status = show(p, json_pack("{ss}", "op", "list"), &reply);
    if (status == EXIT_DONE && !p->set.json)
        print_contexts(reply);
    json_decref(reply);
    return status;
}

int run_counters(struct program *p)
{
    json_t *reply, *vcpu, *counters;
    size_t i;
    const char *group;
    int status = show(p, json_pack("{ss}", "op", "counters"), &reply);
    if (status == EXIT_DONE && !p->set.json)
        json_array_foreach (json_object_get(reply, "counters"), i, vcpu)
            json_object_foreach (vcpu, group, counters) {
                printf("cpu%zu %s", i, group);
                print_counters(counters);
                putchar('\n');
            }
    json_decref(reply);
    return status;
}

int run_status(struct program *p)
{
    json_t *reply;
    int status = show(p, json_pack("{ss}", "op", "status"), &reply);
    if (status == EXIT_DONE && !p->set.json)
        printf("%s, %lld processor%s\n", json_string_value(json_object_get(reply, "machine")),
               (long long)json_integer_value(json_object_get(reply, "vcpus")),
               json_integer_value(json_object_get(reply, "vcpus")) == 1 ? "" : "s");
    json_decref(reply);
    return status;
}

/* ---- Messages -------------------------------------------------------------------------------- */

static const char *verb(uint8_t access)
{
    static const char *const verbs[] = {"touches",
                                        "reads",
                                        "writes",
                                        "reads and writes",
                                        "executes",
                                        "reads and executes",
                                        "writes and executes",
                                        "reads, writes and executes"};
    return verbs[access & PROTECT_ALL];
}

/* What the action makes of it. */
static const char *outcome(uint8_t action)
{
    static const char *const outcomes[] = {
        [PROTECT_DENY] = "refused",
        [PROTECT_UPCALL] = "the guest's handler decides",
        [PROTECT_ASK_HOST] = "a handler outside decides",
        [PROTECT_SUBSTITUTE] = "substituted",
        [PROTECT_SKIP] = "skipped",
        [PROTECT_ALLOW_ONCE] = "let through, this once",
        [PROTECT_DEFERRED] = "let through, the guest's handler will hear of it",
        [PROTECT_ALLOW] = "let through",
    };
    return action < PROTECT_ACTIONS ? outcomes[action] : "?";
}

static const char *subject_name(uint8_t subject)
{
    const char *name = wire_word_of(wire_subjects, subject);
    return name ? name : "?";
}

static void print_who(FILE *out, const struct program *p, const struct protect_event *e)
{
    fputs(subject_name(e->subject), out);
    if (e->subject == PROTECT_DEVICE) {
        fprintf(out, " %02x:%02x.%x", e->device >> 8, e->device >> 3 & 31, e->device & 7);
    } else if (e->subject < PROTECT_DEVICE) {
        fprintf(out, " (cpu %u, CPL %u", e->vcpu, e->cpl);
        if (!(e->flags & PROTECT_EVENT_HIDDEN)) {
            fprintf(out, ", CR3 0x%" PRIx64 ") at 0x%" PRIx64, e->cr3, e->rip);
            print_symbol(out, p, e->rip);
        } else {
            fputc(')', out);
        }
    }
}

/* Up to 16 bytes in the order of memory. */
static void print_bytes(FILE *out, const char *name, const uint64_t value[2], uint32_t length)
{
    const uint8_t *bytes = (const uint8_t *)value;
    fprintf(out, ", %s", name);
    for (uint32_t i = 0; i < length && i < 16; i++)
        fprintf(out, "%s%02x", i ? "" : " ", bytes[i]);
}

static void print_event(FILE *out, const struct program *p, const struct bctl_message *m)
{
    const struct protect_event *e = &m->event;
    const char *type = wire_word_of(wire_event_types, e->type);
    uint64_t where = e->flags & PROTECT_EVENT_HAS_GVA ? e->gva : e->home;
    fprintf(out, "context %u region %u: ", m->context, e->region);
    if (e->type != PROTECT_EVENT_ACCESS) {
        fprintf(out, "%s at 0x%" PRIx64, type ? type : "?", where);
        print_symbol(out, p, where);
        fputc('\n', out);
        return;
    }
    print_who(out, p, e);
    fprintf(out, " %s %u byte%s at 0x%" PRIx64, verb(e->access), e->length,
            e->length == 1 ? "" : "s", where);
    print_symbol(out, p, where);
    if (where != e->home && e->home != e->gpa) { /* by another mapping than the region's */
        fprintf(out, ", which is 0x%" PRIx64, e->home);
        print_symbol(out, p, e->home);
    }
    if (e->flags & PROTECT_EVENT_VALUE)
        print_bytes(out, "value", e->value, e->length);
    if (e->flags & PROTECT_EVENT_PREIMAGE)
        print_bytes(out, "before", e->preimage, e->length);
    fprintf(out, ": %s\n", outcome(e->action));
}

void print_message(FILE *out, const struct program *p, const struct bctl_message *m)
{
    if (p->set.json) {
        fprintf(out, "%s\n", m->json);
    } else {
        switch (m->type) {
        case BCTL_EVENT:
        case BCTL_ASK:
            print_event(out, p, m);
            break;
        case BCTL_LOST:
            fprintf(out, "%" PRIu64 " events were lost\n", m->lost);
            break;
        case BCTL_STATE:
            fprintf(out, "machine %s%s%s\n", m->state, *m->text ? ": " : "", m->text);
            break;
        }
    }
    fflush(out); /* somebody may be reading along */
}
