/*
 * fuzz_door.c - the protection device and the rules behind it, met by a hostile guest: any store
 * and load by anybody, commands with good and bad arrays, page tables and memory that change
 * meanwhile.
 *
 * The input is a script. Whatever it says, nobody but its owner sees a bound door's slots and
 * events or changes its context by them, a door that is free shows no session, statuses are known
 * ones, and nothing hangs. AddressSanitizer watches the rest.
 */
#include "internal/clock.h"
#include "internal/door.h"
#include "internal/error.h"
#include "internal/log.h"
#include "tests/fuzz/script.h"
#include <stdlib.h>
#include <string.h>

enum {
    RAM = 256 << 10,
    STEPS = 300,
    VCPUS = 2,
    ROOTS = 3,
    TABLES = 0x1000, /* of root r: PML4, PDPT, PD low, PD high, PT of the first 2 MiB */
    TABLE_PAGES = 5,
    ARRAYS = 0x20000, /* where commands find theirs, mostly */
};
#define DEVFN       PCI_DEVFN(31, 0)
#define BAR_MSIX    0xe0000000u
#define DOOR(n, at) (PROTECT_DOOR_ADDRESS(n) + offsetof(struct protect_door, at))

/* ---- The machine ----------------------------------------------------------------------------- */

struct machine {
    pthread_mutex_t lock;
    struct log log;
    struct board board;
    struct clock *clock;
    uint64_t now;
    struct rules *rules;
    struct pci_bus *bus;
    struct pci_device *device;
    struct access who; /* makes the accesses */
    struct paging paging[VCPUS];
    uint64_t session[PROTECT_DOORS]; /* as the owner has read it */
    uint64_t token;                  /* the last one */
    unsigned stops, pauses, interrupts;
};

static uint64_t root_of(unsigned r)
{
    return TABLES + 0x1000ull * TABLE_PAGES * (r % ROOTS);
}

static void place(struct machine *m, uint64_t gpa, const void *bytes, size_t len)
{
    static const struct access loader = {.initiator = INITIATOR_LOADER};
    phys_write(m->board.map, &loader, gpa, bytes, len);
}

static void put(struct machine *m, uint64_t gpa, uint64_t value)
{
    place(m, gpa, &value, 8);
}

/* Virtual = physical: RAM by 4-KiB pages, the device by two of 2 MiB; all the user's. */
static void make_tables(struct machine *m, unsigned r)
{
    uint64_t pml4 = root_of(r), pdpt = pml4 + 0x1000, low = pdpt + 0x1000, high = low + 0x1000,
             pt = high + 0x1000;
    put(m, pml4, pdpt | 7);
    put(m, pdpt, low | 7);
    put(m, pdpt + 8 * 3, high | 7);
    put(m, low, pt | 7);
    put(m, high + 8 * 0x1f7, 0xfee00000 | 0x87);
    for (uint64_t page = 0; page < RAM >> 12; page++)
        put(m, pt + 8 * page, page << 12 | 7);
}

static bool copy(struct machine *m, uint64_t address, void *to, const void *from, size_t len)
{
    uint64_t there = 0;
    struct access access = m->who;
    if (!phys_hva(m->board.map, address, &there) || there < len)
        return false;
    return (from ? phys_write(m->board.map, &access, address, from, len)
                 : phys_read(m->board.map, &access, address, to, len)) == PHYS_OK;
}
static bool copy_in(void *opaque, uint64_t address, void *to, size_t len)
{
    return copy(opaque, address, to, NULL, len);
}
static bool copy_out(void *opaque, uint64_t address, const void *from, size_t len)
{
    return copy(opaque, address, NULL, from, len);
}

static void caller_of(void *opaque, unsigned vcpu, struct rules_caller *caller)
{
    struct machine *m = opaque;
    require(vcpu == m->who.vcpu);
    caller->kind = m->who.cpl == 3 ? RULES_USER : RULES_SUPERVISOR;
    caller->paging = &m->paging[vcpu];
    caller->opaque = m;
    caller->copy_in = copy_in;
    caller->copy_out = copy_out;
}

/* There is no processor that could be in an upcall. */
static enum protect_status resume(void *opaque, unsigned vcpu, unsigned context, uint64_t value)
{
    struct machine *m = opaque;
    require(vcpu == m->who.vcpu && context < PROTECT_DOORS);
    void *state = rules_token_redeem(m->rules, context, value >> 8);
    free(state);
    return state ? PROTECT_BAD_VERDICT : PROTECT_BAD_TOKEN;
}

static void unmasked(void *opaque, unsigned vcpu)
{
    (void)opaque;
    require(vcpu < VCPUS);
}

static void on_interrupt(void *opaque, unsigned context)
{
    struct machine *m = opaque;
    m->interrupts++;
    pthread_mutex_lock(&m->lock);
    protect_interrupt(m->device, context);
    pthread_mutex_unlock(&m->lock);
}
static void on_pause(void *opaque, const char *report)
{
    struct machine *m = opaque;
    m->pauses += report[0] != 0;
}
static void on_stop(void *opaque, const char *report)
{
    struct machine *m = opaque;
    m->stops += report[0] != 0;
}
static uint64_t guest_time(void *opaque)
{
    struct machine *m = opaque;
    return m->now + 5;
}
static void send(void *opaque, uint64_t address, uint32_t data)
{
    (void)opaque, (void)address, (void)data;
}

static void make_board(struct machine *m)
{
    struct error err;
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&m->lock, &attr);
    m->log.out = stderr;
    m->board = (struct board){.lock = &m->lock, .log = &m->log};
    m->board.map = phys_new(&m->lock, &m->log);
    m->board.io = io_space_new(&m->lock, &m->log);
    struct ram_block *ram = phys_ram_new(m->board.map, RAM, &err);
    require(phys_add_ram(m->board.map, 0, RAM, ram, 0, "ram", &err));
}

static void machine_init(struct machine *m)
{
    struct error err;
    struct msi_port msi = {.send = send};
    memset(m, 0, sizeof(*m));
    make_board(m);
    const struct rules_hooks hooks = {.opaque = m,
                                      .interrupt = on_interrupt,
                                      .pause = on_pause,
                                      .stop = on_stop,
                                      .time = guest_time};
    m->clock = clock_new();
    clock_set_manual(m->clock, m->now = 0);
    m->rules = rules_new(m->board.map, NULL, m->clock, &m->log, &err);
    rules_set_hooks(m->rules, &hooks);
    m->bus = i440fx_create(&m->board, &msi, &err);
    const struct protect_config config = {
        .rules = m->rules, .port = {m, caller_of, resume, unmasked}, .vcpus = VCPUS};
    m->device = protect_create(m->bus, DEVFN, &config, &err);
    require(m->device != NULL);
    pci_config_write(m->bus, DEVFN, PCI_BAR0 + 16, 4, BAR_MSIX);
    pci_config_write(m->bus, DEVFN, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    for (unsigned r = 0; r < ROOTS; r++)
        make_tables(m, r);
    for (unsigned i = 0; i < VCPUS; i++)
        m->paging[i] = (struct paging){.cr0 = 0x80010011,
                                       .cr3 = root_of(0),
                                       .cr4 = 0x20,
                                       .efer = 0xd00,
                                       .maxphyaddr = 40,
                                       .nx = true,
                                       .a20 = true};
}

static void machine_free(struct machine *m)
{
    m->device->dev.destroy(&m->device->dev);
    m->bus->host->dev.destroy(&m->bus->host->dev);
    rules_free(m->rules);
    clock_free(m->clock);
    io_space_free(m->board.io);
    phys_free(m->board.map);
    pthread_mutex_destroy(&m->lock);
}

/* ---- Who ------------------------------------------------------------------------------------- */

static struct access somebody(struct script *s)
{
    unsigned bits = (unsigned)take(s, 1);
    static const enum initiator others[] = {INITIATOR_WALKER, INITIATOR_EVENT, INITIATOR_DMA,
                                            INITIATOR_HOST, INITIATOR_DEBUGGER};
    struct access a = {.initiator = INITIATOR_VCPU_USER,
                       .vcpu = bits & 1,
                       .cpl = 3,
                       .cr3 = root_of(bits >> 1 & 3) | (bits & 8 ? 0x123 : 0)};
    if ((bits & 0x30) == 0x10) {
        a.initiator = INITIATOR_VCPU_KERNEL;
        a.cpl = bits >> 6; /* 3: an implicit supervisor access */
    } else if ((bits & 0x30) == 0x20) {
        a.initiator = others[(bits >> 6) + (bits & 1)];
        a.cpl = bits >> 6;
    }
    return a;
}

static void become(struct machine *m, const struct access *a)
{
    m->who = *a;
    if (a->initiator <= INITIATOR_EVENT)
        m->paging[a->vcpu].cr3 = a->cr3;
}

/* As whom the door belongs to, if it is bound. */
static void become_owner(struct machine *m, unsigned door)
{
    struct rules_context_info info;
    rules_context_info(m->rules, door, &info);
    if (info.kind == RULES_FREE)
        return;
    struct access a = {.initiator = INITIATOR_VCPU_KERNEL, .cr3 = m->who.cr3};
    if (info.kind == RULES_USER)
        a = (struct access){.initiator = INITIATOR_VCPU_USER, .cpl = 3, .cr3 = info.root};
    become(m, &a);
}

/* With what follows in a vCPU: its own store to a page table, and others' (cpu/guard.c, run.c). */
static void store(struct machine *m, uint64_t gpa, const void *value, size_t len)
{
    m->who.gva = gpa;
    enum phys_result result = phys_write(m->board.map, &m->who, gpa, value, len);
    if (result == PHYS_OK && m->who.initiator <= INITIATOR_VCPU_KERNEL &&
        rules_follows(m->rules, &m->who, gpa)) {
        rules_change_begin(m->rules, m->who.vcpu);
        rules_table_written(m->rules, gpa, len);
        rules_change_end(m->rules, m->who.vcpu);
    }
    rules_service(m->rules, m->who.vcpu);
}

static uint64_t load(struct machine *m, uint64_t gpa, unsigned len)
{
    uint64_t value = 0;
    m->who.gva = gpa;
    phys_read(m->board.map, &m->who, gpa, &value, len);
    return value;
}

static bool owns(struct machine *m, unsigned door)
{
    struct rules_context_info info;
    rules_context_info(m->rules, door, &info);
    if (info.kind == RULES_USER)
        return m->who.initiator == INITIATOR_VCPU_USER &&
               (m->who.cr3 & info.root_mask) == info.root;
    return info.kind == RULES_SUPERVISOR && m->who.initiator == INITIATOR_VCPU_KERNEL &&
           m->who.cpl < 3;
}

/* ---- What must hold -------------------------------------------------------------------------- */

static bool same(const struct rules_context_info *a, const struct rules_context_info *b)
{
    return a->kind == b->kind && a->session == b->session && a->root == b->root &&
           a->grants == b->grants && a->seals == b->seals && a->regions == b->regions &&
           a->event_head == b->event_head && a->event_tail == b->event_tail &&
           a->masked == b->masked && memcmp(&a->handler, &b->handler, sizeof(a->handler)) == 0 &&
           memcmp(&a->statistics, &b->statistics, sizeof(a->statistics)) == 0;
}

/* What the present accessor finds in a door. */
static void check_door(struct machine *m, unsigned n)
{
    struct rules_context_info info;
    rules_context_info(m->rules, n, &info);
    require(load(m, DOOR(n, id), 4) == PROTECT_ID);
    require(load(m, DOOR(n, index), 4) == n);
    require(load(m, DOOR(n, state), 4) == info.kind);
    require(info.event_head - info.event_tail <= PROTECT_EVENTS);
    bool owner = owns(m, n);
    require(load(m, DOOR(n, event_head), 8) == (owner ? info.event_head : 0));
    for (unsigned i = 0; i < PROTECT_COMMANDS; i++) {
        uint64_t session = load(m, DOOR(n, command[i].session), 8);
        uint64_t status = load(m, DOOR(n, command[i].status), 4);
        uint64_t result = load(m, DOOR(n, command[i].result), 8);
        require(status < PROTECT_STATUS_COUNT);
        if (info.kind != RULES_FREE && !owner)
            require(session == 0 && result == 0 && status == PROTECT_WRONG_CALLER);
        require(info.kind != RULES_FREE || result == 0);
    }
    for (unsigned i = 0; i < PROTECT_EVENTS && !owner; i++)
        require(load(m, DOOR(n, event[i].sequence), 8) == 0 &&
                load(m, DOOR(n, event[i].rip), 8) == 0);
}

/* ---- Commands of the script ------------------------------------------------------------------ */

static uint64_t some_address(struct script *s)
{
    unsigned kind = (unsigned)take(s, 1);
    if (kind < 0xc0)
        return ARRAYS + (kind & 7) * 0x100;
    if (kind < 0xe0)
        return take(s, 3) & (RAM - 1);
    return kind < 0xf0 ? PROTECT_DOORS_ADDRESS + take(s, 3) % 0x80000 : take(s, 8);
}

static void fill_region(struct script *s, struct protect_region *g)
{
    unsigned kind = (unsigned)take(s, 1);
    *g = (struct protect_region){
        .base = kind & 1 ? take(s, 3) & (RAM - 1) : 0x10000 + (kind >> 4) * 0x800 + (kind & 15),
        .length = kind & 2 ? take(s, 2) : 1 + (kind & 0xf0),
        .flags = kind & 4 ? kind >> 3 & 3 : 0,
        .reserved = kind == 0xff,
        .cookie = kind,
    };
    if (kind == 0xfe)
        g->base = take(s, 8);
    if (kind == 0xfd)
        g->length = take(s, 8);
}

static void fill_rule(struct script *s, struct protect_rule *r)
{
    unsigned kind = (unsigned)take(s, 1);
    *r = (struct protect_rule){.region = kind & 1, .count = 1 + (kind >> 1 & 3)};
    for (unsigned i = 0; i < PROTECT_SUBJECTS; i++) {
        unsigned byte = i == 0 || kind & 0x10 ? (unsigned)take(s, 1) : 7;
        r->allow[i] = byte & 7;
        r->action[i] = byte >> 3 & 7;
        if (byte < 0xc0 && !(PROTECT_ACTIONS_OF(i) >> r->action[i] & 1))
            r->action[i] = byte & 8 ? PROTECT_DENY : PROTECT_ALLOW;
    }
    r->notify = (uint32_t)take(s, 1) & (kind & 0x80 ? PROTECT_NOTIFY_ALL : 7);
    if (kind & 0x20)
        r->fault = (uint8_t)take(s, 1);
    if (kind & 0x40)
        r->marker = (uint8_t)take(s, 1);
    r->value = kind;
}

/* An array where the next command will look for it, and its address and length. */
static void make_array(struct machine *m, struct script *s, struct protect_command *c)
{
    unsigned count = (unsigned)take(s, 1) % 8;
    c->arg[0] = some_address(s);
    c->arg[1] = count;
    for (unsigned i = 0; i < count; i++) {
        struct protect_region region;
        struct protect_rule rule;
        if (c->op == PROTECT_OP_ADD_REGIONS) {
            fill_region(s, &region);
            place(m, ARRAYS + (c->arg[0] & 0x700) + i * sizeof(region), &region, sizeof(region));
        } else {
            fill_rule(s, &rule);
            place(m, ARRAYS + (c->arg[0] & 0x700) + i * sizeof(rule), &rule, sizeof(rule));
        }
    }
}

static void make_handler(struct machine *m, struct script *s, struct protect_command *c)
{
    unsigned form = (unsigned)take(s, 1);
    struct protect_handler h = {
        .rip = 0x400000, .stacks = form & 31, .timeout_ms = form & 0x40 ? 60001 : 0};
    for (unsigned i = 0; i < PROTECT_MAX_STACKS; i++)
        h.stack[i] = form & 0x80 ? form - 0x80u : 0x20000;
    c->arg[0] = ARRAYS;
    place(m, ARRAYS, &h, sizeof(h));
}

/* Fills the slot and rings; what the slot says then. */
static uint64_t order(struct machine *m, unsigned door, unsigned slot,
                      const struct protect_command *c)
{
    const uint64_t at = DOOR(door, command[0]) + slot * sizeof(*c), number = slot;
    for (unsigned i = 0; i < offsetof(struct protect_command, status); i += 8)
        store(m, at + i, (const uint8_t *)c + i, 8);
    store(m, DOOR(door, doorbell), &number, 8);
    uint64_t result = load(m, at + offsetof(struct protect_command, result), 8);
    if (c->op == PROTECT_OP_BIND && owns(m, door) && result)
        m->session[door] = result;
    return result;
}

/* A context with regions and one rule for them all. */
static void furnish(struct machine *m, struct script *s, unsigned door)
{
    unsigned form = (unsigned)take(s, 1), count = 1 + (form >> 2 & 7);
    struct access a = {.initiator = INITIATOR_VCPU_KERNEL, .cr3 = root_of(form)};
    if (form & 0x40)
        a = (struct access){.initiator = INITIATOR_VCPU_USER, .cpl = 3, .cr3 = root_of(form)};
    become(m, &a);
    order(m, door, 0, &(struct protect_command){.op = PROTECT_OP_BIND});
    for (unsigned i = 0; i < count; i++) {
        struct protect_region g = {.base = 0x10000 + take(s, 1) * 0x84, .length = 1 + take(s, 1)};
        g.flags = form >> 7;
        place(m, ARRAYS + i * sizeof(g), &g, sizeof(g));
    }
    uint64_t first = order(m, door, 1,
                           &(struct protect_command){.op = PROTECT_OP_ADD_REGIONS,
                                                     .session = m->session[door],
                                                     .arg = {ARRAYS, count}});
    const struct protect_handler h = {.rip = 0x400000, .stacks = form & 1, .stack = {0x20000}};
    place(m, ARRAYS, &h, sizeof(h));
    order(m, door, 3,
          &(struct protect_command){
              .op = PROTECT_OP_SET_HANDLER, .session = m->session[door], .arg = {ARRAYS}});
    struct protect_rule r;
    fill_rule(s, &r);
    r.region = (uint32_t)first;
    r.count = count;
    place(m, ARRAYS, &r, sizeof(r));
    order(m, door, 2,
          &(struct protect_command){
              .op = PROTECT_OP_SET_RULES, .session = m->session[door], .arg = {ARRAYS, 1}});
}

static void give_command(struct machine *m, struct script *s, unsigned door)
{
    unsigned form = (unsigned)take(s, 1), slot = form & 15;
    struct protect_command c = {.op = take(s, 1) % 12, .session = m->session[door]};
    struct rules_context_info before, after;
    if (c.op == PROTECT_OP_ADD_REGIONS || c.op == PROTECT_OP_SET_RULES)
        make_array(m, s, &c);
    else if (c.op == PROTECT_OP_SET_HANDLER && form & 0x20)
        make_handler(m, s, &c);
    else if (c.op > PROTECT_OP_UNBIND)
        c.arg[0] = form & 0x10 ? some_address(s) : take(s, 1) & 7;
    if (c.op == PROTECT_OP_REMOVE_REGIONS)
        c.arg[1] = take(s, 1);
    if (form >= 0xf0)
        c.session ^= 1;
    if (form >= 0xe0 && form < 0xf0)
        c.arg[3] = form & 1;
    rules_context_info(m->rules, door, &before);
    bool owner = owns(m, door);
    order(m, door, slot, &c);
    rules_context_info(m->rules, door, &after);
    if (before.kind != RULES_FREE && !owner)
        require(same(&before, &after));
    require(after.grants == before.grants || after.kind != before.kind);
    require((before.seals & ~after.seals) == 0 || after.kind != before.kind);
    require(after.kind == RULES_FREE || after.session != 0);
}

/* Anything, anywhere in the device, or in its MSI-X table. */
static void poke(struct machine *m, struct script *s)
{
    static const uint64_t bases[] = {PROTECT_ADMIN_ADDRESS, PROTECT_DOOR_ADDRESS(0),
                                     PROTECT_DOOR_ADDRESS(0), BAR_MSIX};
    unsigned form = (unsigned)take(s, 1);
    uint64_t at = bases[form & 3];
    at += form & 4 ? take(s, 1) : take(s, 2) & 0x3fff;
    uint8_t bytes[32];
    size_t len = 1 + (form >> 3);
    for (size_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)take(s, 1);
    if (form & 0x80)
        phys_read(m->board.map, &m->who, at, bytes, len);
    else
        store(m, at, bytes, len);
}

/* RAM: protected bytes, arrays, and page tables. */
static void touch(struct machine *m, struct script *s)
{
    unsigned form = (unsigned)take(s, 1);
    uint64_t at = take(s, 2) << 2 & (RAM - 1), value = take(s, 2);
    if (form & 1)
        at = 0x10000 + (at & 0x7fff);
    if ((form & 0xe) == 0xe) { /* a table entry: mostly of some frame */
        at = TABLES + (at & 0xfff8) % (ROOTS * TABLE_PAGES * 0x1000);
        value = value << 12 | (form >> 4 ? 7 : 0);
        store(m, at, &value, 8);
        return;
    }
    uint8_t bytes[64] = {0};
    size_t len = 1 + (form >> 2);
    memcpy(bytes, &value, 2);
    if (form & 2)
        store(m, at, bytes, len > 8 ? 8 : len);
    else
        phys_read(m->board.map, &m->who, at, bytes, len);
}

/* Some bytes of a page or two, of which the rules are asked as by cpu/guard.c. */
static void judge(struct machine *m, struct script *s)
{
    unsigned form = (unsigned)take(s, 1);
    uint64_t at = 0x10000 + (take(s, 2) & 0x7fff), len = 1 + (form & 31);
    uint8_t value[32], mask[32];
    struct rules_check check = {.access = &m->who,
                                .kind = 1 + (form >> 5) % 7,
                                .has_gva = true,
                                .gva = at,
                                .pieces = 1,
                                .piece = {{at, len}},
                                .value = form & 1 ? value : NULL};
    uint64_t left = 0x1000 - (at & 0xfff);
    memset(value, (int)form, sizeof(value));
    if (left < len) {
        check.pieces = 2;
        check.piece[0].len = left;
        check.piece[1].gpa = 0x10000 + (take(s, 1) & 7) * 0x1000;
        check.piece[1].len = len - left;
    }
    struct rules_verdict v;
    clock_set_manual(m->clock, m->now += 100000000);
    rules_judge(m->rules, &check, &v);
    require(v.action < PROTECT_ACTIONS && (v.objected || v.action == PROTECT_ALLOW));
    if (!v.objected)
        return;
    require(v.context < RULES_CONTEXTS && v.subject < PROTECT_SUBJECTS && v.offset < len);
    rules_mask(m->rules, &check, v.context, mask);
    unsigned kept = 0;
    for (unsigned i = 0; i < len; i++)
        kept += mask[i];
    require(v.action >= PROTECT_ALLOW_ONCE || kept);
    for (unsigned i = 0; i < v.offset; i++)
        require(mask[i] == 0);
    if (v.action == PROTECT_UPCALL && rules_handler(m->rules, v.context)) {
        uint64_t stack, token;
        unsigned depth = 0;
        void *state = malloc(8);
        token = rules_token_issue(m->rules, v.context, state, &stack, &depth);
        require(!token == !depth && token >> 56 == 0);
        if (token)
            m->token = token;
        else
            free(state);
    }
}

static void resume_one(struct machine *m, struct script *s, unsigned door)
{
    struct protect_event deferred;
    struct rules_context_info info;
    uint64_t value = m->token << 8 | take(s, 1);
    if (owns(m, door))
        store(m, DOOR(door, resume), &value, 8);
    require(load(m, DOOR(door, resume_status), 8) < PROTECT_STATUS_COUNT);
    int due = rules_deferred_due(m->rules, m->who.cr3);
    if (due >= 0) {
        rules_context_info(m->rules, (unsigned)due, &info);
        require(info.kind == RULES_USER && !info.masked);
        require(rules_take_deferred(m->rules, (unsigned)due, &deferred));
    }
    value = value >> 8 & 1;
    store(m, DOOR(door, masked), &value, 8);
}

static void administrate(struct machine *m, struct script *s, unsigned door)
{
    uint64_t value = door | take(s, 1) << 8;
    struct access before = m->who, kernel = {.initiator = INITIATOR_VCPU_KERNEL, .cr3 = root_of(0)};
    become(m, &kernel);
    if (value & 1 << 15)
        store(m, PROTECT_ADMIN_ADDRESS + offsetof(struct protect_admin, destroy), &door, 4);
    else
        store(m, PROTECT_ADMIN_ADDRESS + offsetof(struct protect_admin, grant), &value, 8);
    require(load(m, PROTECT_ADMIN_ADDRESS + offsetof(struct protect_admin, grant), 8) <
            PROTECT_STATUS_COUNT);
    require(load(m, PROTECT_ADMIN_ADDRESS + offsetof(struct protect_admin, destroy), 8) <
            PROTECT_STATUS_COUNT);
    become(m, &before);
}

static void reset(struct machine *m)
{
    pthread_mutex_lock(&m->lock);
    rules_reset(m->rules);
    m->device->dev.reset(&m->device->dev);
    pthread_mutex_unlock(&m->lock);
    for (unsigned n = 0; n < PROTECT_DOORS; n++) {
        struct rules_context_info info;
        rules_context_info(m->rules, n, &info);
        require(info.kind == RULES_FREE);
        m->session[n] = 0;
    }
}

static void one_step(struct machine *m, struct script *s)
{
    unsigned what = (unsigned)take(s, 1), door = what >> 6;
    uint64_t tail;
    switch (what & 15) {
    case 0: {
        struct access next = somebody(s);
        become(m, &next);
        break;
    }
    case 1:
        become_owner(m, door);
        break;
    case 2:
    case 3:
    case 4:
    case 5:
        give_command(m, s, door);
        break;
    case 6:
        judge(m, s);
        break;
    case 7:
        resume_one(m, s, door);
        break;
    case 8:
        poke(m, s);
        break;
    case 9:
        administrate(m, s, door);
        break;
    case 10:
        check_door(m, door);
        tail = load(m, DOOR(door, event_head), 8);
        store(m, DOOR(door, event_tail), &tail, 8);
        break;
    case 12:
        furnish(m, s, door);
        break;
    case 11:
        if (take(s, 1) == 0x55)
            reset(m);
        break;
    default:
        touch(m, s);
    }
    check_door(m, door);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct script s = {data, data + size};
    static struct machine m;
    machine_init(&m);
    struct access first = somebody(&s);
    become(&m, &first);
    for (unsigned i = 0; i < STEPS && s.at < s.end; i++)
        one_step(&m, &s);
    for (unsigned n = 0; n < 4; n++)
        check_door(&m, n);
    machine_free(&m);
    return 0;
}
