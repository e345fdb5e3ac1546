/*
 * outside.c - guards a variable of a running Linux kernel from another process: every write by the
 * kernel's code waits until this program has looked who is behind it.
 *
 *     outside SOCKET KALLSYMS SYMBOL [COMMAND]...
 *
 * Writes on behalf of one of the COMMANDs are let through, all others are dropped: the kernel goes
 * on as if they had happened, the variable keeps its value.
 */
#include "bailey/ctl.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COMM = 16 /* TASK_COMM_LEN */, PATIENCE_MS = 5000 };

struct guard {
    struct bctl *ctl;
    struct bctl_symbols *symbols;
    struct bctl_error error;
    uint64_t per_cpu, current_task; /* addresses */
    uint64_t comm;                  /* where in struct task_struct the command's name is */
    char **allowed;
    /* the write before: a string arrives byte by byte and is one line here */
    uint64_t last_address;
};

static int fail(const char *what)
{
    fprintf(stderr, "outside: %s\n", what);
    return 1;
}

/* ---- Who is running -------------------------------------------------------------------------- */

static bool find(struct guard *g, const char *name, uint64_t *address)
{
    uint64_t size;
    if (bctl_symbol_find(g->symbols, name, address, &size))
        return true;
    snprintf(g->error.text, sizeof(g->error.text), "the kernel has no symbol '%s'", name);
    return false;
}

/* The first task is called "swapper" in every Linux: where it says so, all tasks have their names.
 */
static bool find_comm(struct guard *g)
{
    enum { SIZE = 8192 };
    uint64_t init_task;
    char task[SIZE];
    if (!find(g, "init_task", &init_task) ||
        !bctl_read(g->ctl, BCTL_VIRTUAL, init_task, task, SIZE, &g->error))
        return false;
    const char *name = memmem(task, SIZE, "swapper", 7);
    g->comm = (uint64_t)(name ? name - task : 0);
    return name || !strcpy(g->error.text, "init_task is not called 'swapper'");
}

/* The command that runs on the processor: current->comm, found as the kernel does. The processor
 * stands still at the write, so this is the command that writes. */
static bool who(struct guard *g, unsigned cpu, char name[COMM + 1])
{
    uint64_t base, task;
    name[COMM] = 0;
    bctl_space(g->ctl, cpu, NULL);
    return bctl_read(g->ctl, BCTL_VIRTUAL, g->per_cpu + 8 * cpu, &base, 8, &g->error) &&
           bctl_read(g->ctl, BCTL_VIRTUAL, base + g->current_task, &task, 8, &g->error) &&
           bctl_read(g->ctl, BCTL_VIRTUAL, task + g->comm, name, COMM, &g->error);
}

/* ---- Deciding -------------------------------------------------------------------------------- */

static bool is_allowed(const struct guard *g, const char *name)
{
    for (char **allowed = g->allowed; *allowed; allowed++)
        if (strcmp(*allowed, name) == 0)
            return true;
    return false;
}

static void report(struct guard *g, const struct protect_event *e, const char *name, bool allowed)
{
    uint64_t in_code = 0, in_data = 0;
    const char *code = bctl_symbol_at(g->symbols, e->rip, &in_code);
    const char *data = bctl_symbol_at(g->symbols, e->home, &in_data);
    bool goes_on = e->home == g->last_address + 1;
    g->last_address = e->home;
    if (goes_on)
        return;
    printf("'%s' on cpu %u, in %s+0x%" PRIx64 ", writes to %s+0x%" PRIx64 ": %s\n", name, e->vcpu,
           code ? code : "?", in_code, data ? data : "?", in_data, allowed ? "allowed" : "dropped");
    fflush(stdout);
}

static bool decide(struct guard *g, const struct bctl_message *m)
{
    char name[COMM + 1] = "?";
    bool known = who(g, m->event.vcpu, name), allowed = known && is_allowed(g, name);
    report(g, &m->event, name, allowed);
    /* An answer that comes too late is an error that does not matter. */
    return bctl_answer(g->ctl, m->token, allowed ? PROTECT_LET : PROTECT_DROP, 0, &g->error) ||
           !g->error.lost;
}

/* ---- Guarding -------------------------------------------------------------------------------- */

static bool protect(struct guard *g, const char *name)
{
    struct protect_region region = {.flags = PROTECT_FOLLOW};
    struct protect_rule rule = {.count = 1};
    memset(rule.allow, PROTECT_ALL, sizeof(rule.allow));
    rule.allow[PROTECT_KERNEL] = PROTECT_READ | PROTECT_EXEC;
    rule.action[PROTECT_KERNEL] = PROTECT_ASK_HOST;
    rule.allow[PROTECT_DEVICE] = PROTECT_READ; /* devices cannot be asked: they are refused */
    if (!bctl_symbol_find(g->symbols, name, &region.base, &region.length))
        return find(g, name, &region.base);
    if (!bctl_bind(g->ctl, false, &g->error) || !bctl_protect(g->ctl, &region, &rule, &g->error) ||
        !bctl_handle(g->ctl, PATIENCE_MS, &g->error))
        return false;
    printf("guarding %s, %" PRIu64 " bytes at 0x%" PRIx64 "\n", name, region.length, region.base);
    return fflush(stdout) == 0;
}

static bool serve(struct guard *g)
{
    for (;;) {
        struct bctl_message message;
        switch (bctl_next(g->ctl, -1, &message, &g->error)) {
        case BCTL_MESSAGE:
            if (message.type == BCTL_ASK && !decide(g, &message))
                return false;
            break;
        case BCTL_ENDED:
            printf("the machine has ended\n");
            return true;
        default:
            return false;
        }
    }
}

int main(int argc, char **argv)
{
    struct guard g = {.allowed = argv + 4};
    if (argc < 4)
        return fail("usage: outside SOCKET KALLSYMS SYMBOL [COMMAND]...");
    g.symbols = bctl_symbols_open(argv[2], &g.error);
    g.ctl = g.symbols ? bctl_open(argv[1], &g.error) : NULL;
    bool ok = g.ctl && find(&g, "__per_cpu_offset", &g.per_cpu) &&
              find(&g, "current_task", &g.current_task) && find_comm(&g) && protect(&g, argv[3]) &&
              serve(&g);
    bctl_close(g.ctl);
    bctl_symbols_free(g.symbols);
    return ok ? 0 : fail(g.error.text);
}
