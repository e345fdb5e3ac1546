/*
 * execute.c - what clients do to the machine: commands in their contexts, grants, memory.
 *
 * All of it runs in a thread of the client's side, which holds no lock; commands park the vCPUs.
 */
#include "clients.h"
#include <string.h>

/* ---- Address spaces -------------------------------------------------------------------------- */

#define CR4_PAE  (1ull << 5)
#define EFER_LMA (1ull << 10)

static const struct access host_access = {.initiator = INITIATOR_HOST};
/* Looking an address up is not yet an access to what is there. */
static const struct access lookup_access = {.initiator = INITIATOR_HOST, .judged = true};

/* Called while the vCPUs are parked. */
static void paging_of(struct control *c, const struct control_space *space, struct paging *paging)
{
    c->machine.paging(c->machine.opaque, space->vcpu, paging);
    if (!space->has_cr3)
        return;
    paging->cr3 = space->cr3;
    /* PAE paging walks from four registers that MOV CR3 loads (SDM vol. 3, 4.4.1). */
    if ((paging->cr4 & CR4_PAE) && !(paging->efer & EFER_LMA))
        for (unsigned i = 0; i < 4; i++) {
            uint64_t len, *entry = phys_hva(c->map, (space->cr3 & 0xffffffe0) + 8 * i, &len);
            paging->pdpte[i] = entry && len >= 8 ? *entry : 0;
        }
}

/* ---- Commands -------------------------------------------------------------------------------- */

bool control_context(struct control_client *client, unsigned *context)
{
    struct control *c = client->control;
    unsigned i = 0;
    pthread_mutex_lock(&c->lock);
    while (i < RULES_HOST_CONTEXTS && c->owner[i].client != client)
        i++;
    pthread_mutex_unlock(&c->lock);
    *context = PROTECT_DOORS + i;
    return i < RULES_HOST_CONTEXTS;
}

void control_keep(struct control_client *client, unsigned context)
{
    struct control *c = client->control;
    pthread_mutex_lock(&c->lock);
    if (is_host_context(context) && c->owner[context - PROTECT_DOORS].client == client)
        c->owner[context - PROTECT_DOORS].keep = true;
    pthread_mutex_unlock(&c->lock);
}

static void set_owner(struct control *c, unsigned context, struct control_client *client,
                      uint64_t session)
{
    pthread_mutex_lock(&c->lock);
    if (c->handler[context].session) /* who answered for the one before has no say in this one */
        c->handler[context].client = NULL;
    c->owner[context - PROTECT_DOORS].client = client;
    c->owner[context - PROTECT_DOORS].session = session;
    c->owner[context - PROTECT_DOORS].keep = false;
    pthread_mutex_unlock(&c->lock);
}

static uint64_t own_session(struct control_client *client, unsigned context)
{
    struct control *c = client->control;
    pthread_mutex_lock(&c->lock);
    uint64_t session = c->owner[context - PROTECT_DOORS].client == client
                           ? c->owner[context - PROTECT_DOORS].session
                           : 0;
    pthread_mutex_unlock(&c->lock);
    return session;
}

/* CR3 without PCID and flags. */
static uint64_t root_of(uint64_t cr3)
{
    return cr3 & 0x000ffffffffff000;
}

static bool find_free_context(struct control *c, unsigned *context)
{
    struct rules_context_info info;
    for (unsigned i = PROTECT_DOORS; i < RULES_CONTEXTS; i++) {
        rules_context_info(c->rules, i, &info);
        if (info.kind == RULES_FREE) {
            *context = i;
            return true;
        }
    }
    return false;
}

/* Between rules_change_begin() and _end(), like the next. */
static void bind_parked(struct control_client *client, unsigned *context,
                        struct protect_command *command, const struct rules_caller *caller)
{
    struct control *c = client->control;
    command->status = PROTECT_TOO_MANY;
    if (!find_free_context(c, context))
        return;
    command->arg[0] = caller->paging->cr3;
    rules_execute(c->rules, *context, command, caller);
    if (command->status == PROTECT_OK)
        set_owner(c, *context, client, command->result);
}

static void execute_parked(struct control_client *client, unsigned context,
                           struct protect_command *command, const struct rules_caller *caller,
                           const struct control_space *space)
{
    struct control *c = client->control;
    struct rules_context_info info;
    rules_context_info(c->rules, context, &info);
    if (space->has_cr3 && info.kind == RULES_HOST && info.root != root_of(space->cr3)) {
        command->status = PROTECT_BAD_ARGUMENT;
        return;
    }
    if (!command->session)
        command->session = own_session(client, context);
    rules_execute(c->rules, context, command, caller);
    if (command->op == PROTECT_OP_UNBIND && command->status == PROTECT_OK)
        set_owner(c, context, NULL, 0);
}

/* What can be said without asking the rules. */
static enum protect_status check(struct control *c, unsigned context,
                                 const struct protect_command *command,
                                 const struct control_space *space)
{
    if (space->vcpu >= c->machine.vcpus)
        return PROTECT_BAD_ARGUMENT;
    if (command->op == PROTECT_OP_BIND)
        return PROTECT_OK;
    return context >= RULES_CONTEXTS ? PROTECT_BAD_ARGUMENT
           : context < PROTECT_DOORS ? PROTECT_WRONG_CALLER
                                     : PROTECT_OK;
}

void control_execute(struct control_client *client, unsigned *context,
                     struct protect_command *command, struct rules_caller *caller,
                     const struct control_space *where)
{
    struct control *c = client->control;
    struct control_space space = *where;
    struct paging paging;
    bool bind = command->op == PROTECT_OP_BIND;
    command->element = 0;
    command->result = 0;
    command->status = check(c, *context, command, &space);
    if (command->status != PROTECT_OK)
        return;
    if (bind && command->arg[0]) {
        space.has_cr3 = true;
        space.cr3 = command->arg[0];
    }
    rules_change_begin(c->rules, -1);
    paging_of(c, &space, &paging);
    caller->kind = RULES_HOST;
    caller->paging = &paging;
    if (bind)
        bind_parked(client, context, command, caller);
    else
        execute_parked(client, *context, command, caller, &space);
    caller->paging = NULL;
    rules_change_end(c->rules, -1);
}

enum protect_status control_grant(struct control *c, unsigned context, uint32_t grants, bool take)
{
    rules_change_begin(c->rules, -1);
    enum protect_status status = rules_grant(c->rules, context, grants, take);
    rules_change_end(c->rules, -1);
    return status;
}

enum protect_status control_destroy(struct control *c, unsigned context)
{
    rules_change_begin(c->rules, -1);
    enum protect_status status = rules_destroy(c->rules, context);
    rules_change_end(c->rules, -1);
    return status;
}

/* ---- Memory ---------------------------------------------------------------------------------- */

enum { MAX_PIECES = 64 };

struct pieces {
    unsigned count;
    struct {
        uint64_t gpa;
        size_t len;
    } piece[MAX_PIECES];
};

static bool add_piece(struct pieces *p, uint64_t gpa, size_t len)
{
    if (p->count) {
        uint64_t end = p->piece[p->count - 1].gpa + p->piece[p->count - 1].len;
        if (end == gpa) {
            p->piece[p->count - 1].len += len;
            return true;
        }
    }
    if (p->count == MAX_PIECES)
        return false;
    p->piece[p->count].gpa = gpa;
    p->piece[p->count++].len = len;
    return true;
}

/* What mmu_walk() expects its callers to have checked (SDM vol. 1, 3.3.7.1). */
static bool is_canonical(const struct paging *paging, uint64_t gva)
{
    if (!(paging->efer & EFER_LMA))
        return gva >> 32 == 0;
    return (uint64_t)((int64_t)(gva << 16) >> 16) == gva;
}

/* The vCPUs are parked. A client is not held by the guest's page permissions, only by rules. */
static bool translate(struct control *c, const struct control_space *space, uint64_t gva,
                      size_t len, struct pieces *pieces)
{
    struct paging paging;
    struct walk walk;
    paging_of(c, space, &paging);
    paging.pkru = 0; /* nor by its protection keys */
    while (len) {
        size_t here = PAGE_SIZE - gva % PAGE_SIZE;
        here = here < len ? here : len;
        if (!is_canonical(&paging, gva) ||
            !mmu_walk(c->map, &paging, &lookup_access, gva, ACCESS_READ, MMU_SUPERVISOR_AC, true,
                      &walk) ||
            !add_piece(pieces, walk.gpa, here))
            return false;
        gva += here;
        len -= here;
    }
    return true;
}

static bool is_memory(struct control *c, uint64_t gpa, uint64_t len)
{
    while (len) {
        uint64_t here = 0;
        if (!phys_hva(c->map, gpa, &here) || here == 0)
            return false;
        here = here < len ? here : len;
        gpa += here;
        len -= here;
    }
    return true;
}

static enum control_result transfer(struct control *c, const struct pieces *pieces, uint8_t *buf,
                                    bool write, size_t *done)
{
    for (unsigned i = 0; i < pieces->count; i++)
        if (!is_memory(c, pieces->piece[i].gpa, pieces->piece[i].len))
            return CONTROL_NOT_MEMORY;
    for (unsigned i = 0; i < pieces->count; i++) {
        uint64_t gpa = pieces->piece[i].gpa;
        size_t len = pieces->piece[i].len;
        enum phys_result result = write ? phys_write(c->map, &host_access, gpa, buf + *done, len)
                                        : phys_read(c->map, &host_access, gpa, buf + *done, len);
        if (result != PHYS_OK)
            return CONTROL_REFUSED;
        *done += len;
    }
    return CONTROL_OK;
}

enum control_result control_memory(struct control *c, const struct control_space *space,
                                   uint64_t address, void *buf, size_t len, bool write,
                                   size_t *done)
{
    struct pieces pieces = {0};
    bool mapped = true;
    *done = 0;
    if (space) {
        if (space->vcpu >= c->machine.vcpus)
            return CONTROL_NOT_MAPPED;
        rules_change_begin(c->rules, -1);
        mapped = translate(c, space, address, len, &pieces);
        rules_change_end(c->rules, -1);
    } else {
        add_piece(&pieces, address, len);
    }
    if (!mapped)
        return CONTROL_NOT_MAPPED;
    pthread_mutex_lock(c->machine.lock); /* rules are read under it (rules.h) */
    enum control_result result = transfer(c, &pieces, buf, write, done);
    pthread_mutex_unlock(c->machine.lock);
    return result;
}
