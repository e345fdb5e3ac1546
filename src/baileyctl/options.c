/*
 * options.c - baileyctl's command line: a table of options, which may stand anywhere before the
 * PROGRAM of `serve`.
 */
#include "baileyctl.h"
#include "internal/wire.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What is usually meant by "nobody may write this". */
#define DEFAULT_SUBJECTS                                                                           \
    (1u << PROTECT_OWNER | 1u << PROTECT_OTHER_USER | 1u << PROTECT_KERNEL | 1u << PROTECT_DEVICE)

struct option {
    const char *name, *arg, *help;
    bool (*set)(struct settings *set, const char *arg);
};

/* ---- Values ---------------------------------------------------------------------------------- */

bool parse_number(const char *text, uint64_t *out)
{
    bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    char *end;
    if (!(*text >= '0' && *text <= '9'))
        return false;
    errno = 0;
    *out = strtoull(hex ? text + 2 : text, &end, hex ? 16 : 10);
    return errno == 0 && !*end && end != text + 2 * hex;
}

static bool parse_unsigned(const char *text, unsigned *out)
{
    uint64_t value;
    bool ok = parse_number(text, &value) && value <= UINT32_MAX;
    *out = ok ? (unsigned)value : 0;
    return ok;
}

/* The next word of a list; false at its end. */
static bool next_word(const char **list, char word[32])
{
    size_t len = strcspn(*list, ",");
    if (!**list)
        return false;
    snprintf(word, 32, "%.*s", (int)len, *list);
    *list += len + ((*list)[len] == ',');
    return true;
}

bool parse_bits(const char *text, const char *const *words, uint32_t *bits)
{
    char word[32];
    *bits = 0;
    while (next_word(&text, word)) {
        int bit = wire_word(words, word);
        if (bit < 0)
            return false;
        *bits |= 1u << bit;
    }
    return true;
}

/* ---- One function an option ------------------------------------------------------------------ */

static bool set_socket(struct settings *s, const char *arg)
{
    s->socket = arg;
    return true;
}
static bool set_symbols(struct settings *s, const char *arg)
{
    s->symbols_file = arg;
    return true;
}
static bool set_slide(struct settings *s, const char *arg)
{
    uint64_t value;
    bool minus = *arg == '-';
    if (!parse_number(arg + minus, &value))
        return false;
    s->slide = (int64_t)(minus ? 0 - value : value);
    return true;
}
static bool set_json(struct settings *s, const char *arg)
{
    (void)arg;
    return s->json = true;
}
static bool set_raw(struct settings *s, const char *arg)
{
    (void)arg;
    return s->raw = true;
}
static bool set_force(struct settings *s, const char *arg)
{
    (void)arg;
    return s->force = true;
}
static bool set_format(struct settings *s, const char *arg)
{
    s->format = arg;
    return true;
}
static bool set_physical(struct settings *s, const char *arg)
{
    (void)arg;
    return s->physical = true;
}
static bool set_cr3(struct settings *s, const char *arg)
{
    return s->has_cr3 = parse_number(arg, &s->cr3);
}
static bool set_vcpu(struct settings *s, const char *arg)
{
    return parse_unsigned(arg, &s->vcpu);
}
static bool set_deny(struct settings *s, const char *arg)
{
    static const char letters[] = "rwx";
    s->deny = 0;
    for (; *arg; arg++) {
        const char *letter = strchr(letters, *arg);
        if (!letter)
            return false;
        s->deny |= (uint8_t)(1 << (letter - letters));
    }
    return s->deny != 0;
}
static bool set_subject(struct settings *s, const char *arg)
{
    char word[32];
    s->subjects = 0;
    while (next_word(&arg, word)) {
        int subject = wire_word(wire_subjects, word);
        if (strcmp(word, "user") == 0)
            s->subjects |= 1u << PROTECT_OWNER | 1u << PROTECT_OTHER_USER;
        else if (strcmp(word, "all") == 0)
            s->subjects |= (1u << PROTECT_SUBJECTS) - 1;
        else if (subject >= 0)
            s->subjects |= 1u << subject;
        else
            return false;
    }
    return s->subjects != 0;
}
static bool set_action(struct settings *s, const char *arg)
{
    int action = strcmp(arg, "ask") == 0 ? PROTECT_ASK_HOST : wire_word(wire_actions, arg);
    s->action = (uint8_t)action;
    return action >= 0;
}
static bool set_notify(struct settings *s, const char *arg)
{
    return parse_bits(arg, wire_notify, &s->notify);
}
static bool set_fault(struct settings *s, const char *arg)
{
    int fault = wire_word(wire_faults, arg);
    s->fault = (uint8_t)fault;
    return fault >= 0;
}
static bool set_value(struct settings *s, const char *arg)
{
    return parse_number(arg, &s->value);
}
static bool set_cookie(struct settings *s, const char *arg)
{
    return parse_number(arg, &s->cookie);
}
static bool set_pin(struct settings *s, const char *arg)
{
    (void)arg;
    return s->pin = true;
}
static bool set_watch(struct settings *s, const char *arg)
{
    (void)arg;
    return s->watch = true;
}
static bool set_context(struct settings *s, const char *arg)
{
    return s->has_context = parse_unsigned(arg, &s->context);
}
static bool set_session(struct settings *s, const char *arg)
{
    return parse_number(arg, &s->session);
}
static bool set_timeout(struct settings *s, const char *arg)
{
    return parse_unsigned(arg, &s->timeout_ms) && s->timeout_ms <= 60000;
}

static const struct option options[] = {
    {"socket", "PATH", "the machine's socket (default: $BAILEY_SOCKET)", set_socket},
    {"symbols", "FILE", "System.map, a copy of /proc/kallsyms, or ELF", set_symbols},
    {"slide", "NUMBER", "add to the symbols' addresses (KASLR)", set_slide},
    {"json", NULL, "print what the machine says as it says it", set_json},
    {"physical", NULL, "ADDRESS is guest-physical", set_physical},
    {"cr3", "NUMBER", "virtual addresses mean this address space", set_cr3},
    {"vcpu", "N", "or the one that this processor is in (default 0)", set_vcpu},
    {"deny", "rwx", "protect: what is not allowed (default w)", set_deny},
    {"subject", "WHO,...",
     "protect: whom: user, kernel, device, walker, event, host, debugger, all\n"
     "                       (default user,kernel,device)",
     set_subject},
    {"action", "WHAT",
     "protect: what happens: deny (default), ask, skip, substitute, allow-once,\n"
     "                       allow; subjects that cannot be asked or fooled are denied",
     set_action},
    {"notify", "HOW,...", "protect: quiet, preimage, host, pause, stop (default host,preimage)",
     set_notify},
    {"fault", "WHICH", "protect: deny looks like page (#PF, default) or general (#GP)", set_fault},
    {"value", "NUMBER", "protect: what substitute gives", set_value},
    {"cookie", "NUMBER", "protect: a number of yours, in every event", set_cookie},
    {"pin", NULL, "protect: the rule stays with the page frame", set_pin},
    {"watch", NULL, "protect: print events; the rule ends with this program", set_watch},
    {"context", "N", "protect: add to this context; serve: answer for it", set_context},
    {"session", "NUMBER", "protect: the context's session", set_session},
    {"timeout", "MS", "serve: how long an answer may take (default 1000)", set_timeout},
    {"raw", NULL, "read: bytes as they are", set_raw},
    {"force", NULL, "eject, change: even if the guest has locked the drive", set_force},
    {"format", "NAME", "change: raw, qcow2, ... (default: what the contents say)", set_format},
};
enum { OPTIONS = sizeof(options) / sizeof(options[0]) };

void print_options(FILE *out)
{
    for (unsigned i = 0; i < OPTIONS; i++) {
        char left[32];
        snprintf(left, sizeof(left), "--%s%s%s", options[i].name, options[i].arg ? " " : "",
                 options[i].arg ? options[i].arg : "");
        fprintf(out, "  %-20s %s\n", left, options[i].help);
    }
    fprintf(out, "  %-20s %s\n", "--help, --version", "say what there is to say");
}

/* ---- The command line ------------------------------------------------------------------------ */

/* --NAME ARG or --NAME=ARG; *at moves behind it. */
static int parse_option(struct settings *set, int argc, char **argv, int *at)
{
    const char *name = argv[(*at)++] + 2, *equals = strchr(name, '=');
    size_t len = equals ? (size_t)(equals - name) : strlen(name);
    for (unsigned i = 0; i < OPTIONS; i++) {
        const struct option *o = &options[i];
        if (strlen(o->name) != len || strncmp(o->name, name, len) != 0)
            continue;
        if (!o->arg && equals)
            return fail_use("--%s takes no value", o->name);
        const char *arg = equals ? equals + 1 : NULL;
        if (o->arg && !arg)
            arg = *at < argc ? argv[(*at)++] : NULL;
        if (o->arg && !arg)
            return fail_use("--%s needs a value: %s", o->name, o->arg);
        return o->set(set, arg) ? 0 : fail_use("--%s cannot be '%s'", o->name, arg);
    }
    return fail_use("there is no option --%.*s", (int)len, name);
}

int parse_options(struct settings *set, int argc, char **argv)
{
    int at = 1, status = 0;
    *set = (struct settings){.socket = getenv("BAILEY_SOCKET"),
                             .subjects = DEFAULT_SUBJECTS,
                             .deny = PROTECT_WRITE,
                             .action = PROTECT_DENY,
                             .notify = PROTECT_NOTIFY_HOST | PROTECT_NOTIFY_PREIMAGE,
                             .operand = argv};
    while (status == 0 && at < argc) {
        /* operands are collected at the front of argv, which has been read that far */
        bool program_next = set->count == 1 && strcmp(set->operand[0], "serve") == 0;
        if (strcmp(argv[at], "--") == 0) {
            at++;
            break;
        }
        if (strncmp(argv[at], "--", 2) == 0)
            status = parse_option(set, argc, argv, &at);
        else if (argv[at][0] == '-' && argv[at][1])
            status = fail_use("there is no option %s", argv[at]);
        else if (program_next)
            break;
        else
            set->operand[set->count++] = argv[at++];
    }
    while (status == 0 && at < argc)
        set->operand[set->count++] = argv[at++];
    if (status == 0)
        set->operand[set->count] = NULL; /* count < argc: the program's own name is gone */
    return status;
}
