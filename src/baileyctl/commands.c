/*
 * commands.c - baileyctl's commands but for listing and serving.
 */
#include "baileyctl.h"
#include "internal/wire.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- Protecting and watching ----------------------------------------------------------------- */

static int done(const struct program *p, bool ok)
{
    return ok ? EXIT_DONE : fail_error(p);
}

static void make_rule(const struct settings *set, struct protect_rule *rule)
{
    *rule = (struct protect_rule){
        .count = 1, .notify = set->notify, .fault = set->fault, .value = set->value};
    for (unsigned s = 0; s < PROTECT_SUBJECTS; s++) {
        bool denied = set->subjects >> s & 1;
        rule->allow[s] = denied ? PROTECT_ALL & ~set->deny : PROTECT_ALL;
        rule->action[s] = PROTECT_ACTIONS_OF(s) >> set->action & 1 ? set->action : PROTECT_DENY;
    }
}

static void print_region(const struct program *p, const struct protect_region *region, uint32_t id)
{
    printf("context %u session 0x%" PRIx64 " region %u: 0x%" PRIx64, bctl_context(p->ctl),
           bctl_session(p->ctl), id, region->base);
    print_symbol(stdout, p, region->base);
    printf(", %" PRIu64 " bytes\n", region->length);
    fflush(stdout); /* whoever reads along wants to know the context before the first event */
}

/* A number of bytes, or the symbol that lies behind the last of them. */
static bool parse_length(struct program *p, const char *text, uint64_t base, uint64_t *length)
{
    uint64_t end, size;
    if (parse_number(text, length))
        return true;
    if (!parse_address(p, text, &end, &size))
        return false;
    *length = end - base;
    if (end > base)
        return true;
    p->error.lost = false;
    snprintf(p->error.text, sizeof(p->error.text), "'%s' does not lie behind the address", text);
    return false;
}

int run_protect(struct program *p)
{
    const struct settings *set = &p->set;
    struct protect_region region = {.cookie = set->cookie};
    struct protect_rule rule;
    if (!parse_address(p, set->operand[0], &region.base, &region.length))
        return fail_error(p);
    if (set->count > 1 && !parse_length(p, set->operand[1], region.base, &region.length))
        return fail_error(p);
    if (region.length == 0)
        return fail_use("how many bytes? The length of '%s' is not known", set->operand[0]);
    region.flags = (set->physical ? PROTECT_PHYSICAL : 0) | (set->pin ? PROTECT_PIN : 0);
    make_rule(set, &rule);
    if (set->has_context)
        bctl_use(p->ctl, set->context, set->session);
    else if (!bctl_bind(p->ctl, !set->watch, &p->error))
        return fail_error(p);
    if ((set->watch && !bctl_subscribe(p->ctl, true, &p->error)) ||
        !bctl_protect(p->ctl, &region, &rule, &p->error)) {
        int status = fail_error(p);
        if (!set->has_context && !set->watch) /* leave no empty context behind */
            bctl_destroy(p->ctl, bctl_context(p->ctl), &p->error);
        return status;
    }
    print_region(p, &region, rule.region);
    return set->watch && !ferror(stdout) ? watch(p) : EXIT_DONE;
}

int watch(struct program *p)
{
    for (;;) {
        struct bctl_message message;
        switch (bctl_next(p->ctl, -1, &message, &p->error)) {
        case BCTL_MESSAGE:
            print_message(stdout, p, &message);
            if (ferror(stdout))
                return EXIT_DONE; /* which main() will deny */
            break;
        case BCTL_TIMEOUT:
            break;
        case BCTL_ENDED:
            return EXIT_DONE;
        case BCTL_FAILED:
            return fail_error(p);
        }
    }
}

int run_watch(struct program *p)
{
    return bctl_subscribe(p->ctl, true, &p->error) ? watch(p) : fail_error(p);
}

/* ---- Contexts -------------------------------------------------------------------------------- */

static bool get_context(const struct program *p, unsigned *context)
{
    uint64_t value;
    bool ok = parse_number(p->set.operand[0], &value) && value <= INT32_MAX;
    *context = ok ? (unsigned)value : 0;
    return ok;
}

int run_seal(struct program *p)
{
    unsigned context;
    uint64_t session;
    uint32_t seals;
    if (!get_context(p, &context))
        return fail_use("'%s' is no context", p->set.operand[0]);
    if (!parse_number(p->set.operand[1], &session))
        return fail_use("'%s' is no session", p->set.operand[1]);
    if (!parse_bits(p->set.operand[2], wire_seals, &seals) || !seals)
        return fail_use("'%s' is no list of weaken, remove and rebind", p->set.operand[2]);
    bctl_use(p->ctl, context, session);
    struct protect_command command = {.op = PROTECT_OP_SEAL, .arg = {seals}};
    if (!bctl_command(p->ctl, &command, &p->error))
        return fail_error(p);
    if (command.status == PROTECT_OK)
        return EXIT_DONE;
    fprintf(stderr, "baileyctl: %s: %s\n", wire_word_of(wire_statuses, command.status),
            wire_status_text(command.status));
    return EXIT_REFUSED;
}

static int grant(struct program *p, bool take)
{
    unsigned context;
    uint32_t grants;
    if (!get_context(p, &context))
        return fail_use("'%s' is no door", p->set.operand[0]);
    if (!parse_bits(p->set.operand[1], wire_grants, &grants) || !grants)
        return fail_use("'%s' is no list of users, kernel, devices, host, physical, observe and "
                        "control",
                        p->set.operand[1]);
    return done(p, bctl_grant(p->ctl, context, grants, take, &p->error));
}

int run_grant(struct program *p)
{
    return grant(p, false);
}

int run_revoke(struct program *p)
{
    return grant(p, true);
}

int run_destroy(struct program *p)
{
    unsigned context;
    if (!get_context(p, &context))
        return fail_use("'%s' is no context", p->set.operand[0]);
    return done(p, bctl_destroy(p->ctl, context, &p->error));
}

/* ---- The machine and its memory -------------------------------------------------------------- */

int run_pause(struct program *p)
{
    return done(p, bctl_pause(p->ctl, &p->error));
}

int run_continue(struct program *p)
{
    return done(p, bctl_continue(p->ctl, &p->error));
}

int run_stop(struct program *p)
{
    return done(p, bctl_stop(p->ctl, &p->error));
}

static enum bctl_address address_kind(const struct program *p)
{
    return p->set.physical ? BCTL_PHYSICAL : BCTL_VIRTUAL;
}

/* Sixteen bytes a line, as letters too where they are some. */
static void dump(const uint8_t *bytes, size_t length, uint64_t address)
{
    for (size_t line = 0; line < length; line += 16) {
        printf("%016" PRIx64 " ", address + line);
        for (size_t i = line; i < line + 16; i++)
            printf(i < length ? " %02x" : "   ", i < length ? bytes[i] : 0);
        printf("  ");
        for (size_t i = line; i < line + 16 && i < length; i++)
            putchar(bytes[i] >= ' ' && bytes[i] < 0x7f ? bytes[i] : '.');
        putchar('\n');
    }
}

int run_read(struct program *p)
{
    enum { MOST = 64 << 20 };
    uint64_t address, length, size;
    if (!parse_address(p, p->set.operand[0], &address, &size))
        return fail_error(p);
    if (!parse_number(p->set.operand[1], &length) || length > MOST)
        return fail_use("'%s' is not a length of at most 64 MiB", p->set.operand[1]);
    uint8_t *bytes = malloc(length + 1);
    if (!bytes)
        return fail_use("no memory for %" PRIu64 " bytes", length);
    bool ok = bctl_read(p->ctl, address_kind(p), address, bytes, length, &p->error);
    if (ok && p->set.raw)
        fwrite(bytes, 1, length, stdout);
    else if (ok)
        dump(bytes, length, address);
    free(bytes);
    return done(p, ok);
}

int run_write(struct program *p)
{
    uint8_t bytes[WIRE_DATA_MAX];
    uint64_t address, size;
    size_t length;
    struct wire_error wrong;
    if (!parse_address(p, p->set.operand[0], &address, &size))
        return fail_error(p);
    json_t *text = json_string(p->set.operand[1]);
    bool ok = wire_bytes(text, "BYTES", bytes, sizeof(bytes), &length, &wrong);
    json_decref(text);
    if (!ok)
        return fail_use("%s", wrong.text);
    return done(p, bctl_write(p->ctl, address_kind(p), address, bytes, length, &p->error));
}
