/*
 * fuzz_door.c - the protection device and the rules behind it, met by a hostile guest: any store and
 * load by anybody, commands with good and bad arrays, page tables and memory that change meanwhile.
 *
 * The input is a script. Whatever it says, nobody but its owner sees a bound door's slots and
 * events or changes its context by them, a door that is free shows no session, statuses are known
 * ones, and nothing hangs. AddressSanitizer watches the rest.
 */
#include "internal/clock.h"
#include "internal/door.h"
#include "internal/error.h"
#include "internal/event.h"
#include "internal/log.h"
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

/* ---- The input
 * ------------------------------------------------------------------------------------------------- */

struct script {
    const uint8_t *at, *end;
};

static uint64_t take(struct script *s, unsigned bytes)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < bytes; i++)
        v |= (uint64_t)(s->at < s->end ? *s->at++ : 0) << (8 * i);
    return v;
}

static void require(bool truth)
{
    if (!truth)
        abort();
}

/* ---- The machine
 * ------------------------------------------------------------------------------------------------- */

struct machine {
    pthread_mutex_t lock;
    struct log log;
    struct board board;
    struct rules *rules;
    struct pci_bus *bus;
    struct pci_device *device;
    struct access who; /* makes the accesses */
    struct paging paging[VCPUS];
    uint64_t session[PROTECT_DOORS]; /* as the owner has read it */
    unsigned stops, pauses, interrupts;
};

static uint64_t root_of(unsigned r)
{
    return TABLES + 0x1000ull * TABLE_PAGES * (r % ROOTS);
}

static void put(struct machine *m, uint64_t gpa, uint64_t value)
{
    static const struct access loader = {.initiator = INITIATOR_LOADER};
    phys_write(m->board.map, &loader, gpa, &value, 8);
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
    return m->interrupts;
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
    m->rules = rules_new(m->board.map, NULL, NULL, &m->log, &err);
    rules_set_hooks(m->rules, &hooks);
    m->bus = i440fx_create(&m->board, &msi, &err);
    const struct protect_config config = {
        .rules = m->rules, .port = {m, caller_of, resume}, .vcpus = VCPUS};
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
    io_space_free(m->board.io);
    phys_free(m->board.map);
    pthread_mutex_destroy(&m->lock);
}

/* ---- Who
 * ------------------------------------------------------------------------------------------------------ */

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

static enum phys_result store(struct machine *m, uint64_t gpa, const void *value, size_t len)
{
    m->who.gva = gpa;
    return phys_write(m->board.map, &m->who, gpa, value, len);
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
        return m->who.initiator == INITIATOR_VCPU_USER && (m->who.cr3 & ~0xfffull) == info.root;
    return info.kind == RULES_SUPERVISOR && m->who.initiator == INITIATOR_VCPU_KERNEL &&
           m->who.cpl < 3;
}

/* ---- What must hold
 * -------------------------------------------------------------------------------------------- */

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
        if (info.kind == RULES_FREE)
            require(m->session[n] == 0 || (session != m->session[n] && result != m->session[n]));
    }
    for (unsigned i = 0; i < PROTECT_EVENTS && !owner; i++)
        require(load(m, DOOR(n, event[i].sequence), 8) == 0 &&
                load(m, DOOR(n, event[i].rip), 8) == 0);
}

/* ---- Commands of the script
 * ------------------------------------------------------------------------------------ */

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
        .base = kind & 1 ? take(s, 3) & (RAM - 1) : 0x8000 + (kind >> 4) * 0x1000,
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
    *r = (struct protect_rule){.region = kind & 3, .count = 1 + (kind >> 2 & 3)};
    for (unsigned i = 0; i < PROTECT_SUBJECTS; i++) {
        r->allow[i] = take(s, 1) & (kind & 0x80 ? 0xff : 7);
        r->action[i] = kind & 0x10 ? PROTECT_ALLOW : take(s, 1) & (kind & 0x80 ? 0xff : 7);
    }
    r->notify = (uint32_t)take(s, 1) & (kind & 0x80 ? 0xff : PROTECT_NOTIFY_ALL);
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
            store(m, ARRAYS + (c->arg[0] & 0x700) + i * sizeof(region), &region, sizeof(region));
        } else {
            fill_rule(s, &rule);
            store(m, ARRAYS + (c->arg[0] & 0x700) + i * sizeof(rule), &rule, sizeof(rule));
        }
    }
}

static void give_command(struct machine *m, struct script *s, unsigned door)
{
    unsigned form = (unsigned)take(s, 1), slot = form & 15;
    struct protect_command c = {.op = take(s, 1) % 12, .session = m->session[door]};
    struct rules_context_info before, after;
    if (c.op == PROTECT_OP_ADD_REGIONS || c.op == PROTECT_OP_SET_RULES)
        make_array(m, s, &c);
    else if (c.op > PROTECT_OP_UNBIND)
        c.arg[0] = form & 0x10 ? some_address(s) : take(s, 1) & 7;
    if (c.op == PROTECT_OP_REMOVE_REGIONS)
        c.arg[1] = take(s, 1);
    if (form >= 0xf0)
        c.session ^= 1;
    if (form >= 0xe0 && form < 0xf0)
        c.arg[3] = form & 1;
    for (unsigned i = 0; i < 6; i++)
        store(m, DOOR(door, command[0]) + slot * 64 + 8 * i, (uint64_t *)&c + i, 8);
    rules_context_info(m->rules, door, &before);
    bool owner = owns(m, door);
    uint64_t number = slot;
    store(m, DOOR(door, doorbell), &number, 8);
    rules_context_info(m->rules, door, &after);
    if (before.kind != RULES_FREE && !owner)
        require(memcmp(&before, &after, sizeof(before)) == 0);
    require(after.grants == before.grants || after.kind != before.kind);
    require((before.seals & ~after.seals) == 0 || after.kind != before.kind);
    if (owns(m, door) && load(m, DOOR(door, command[0]) + slot * 64 + 48, 4) == PROTECT_OK &&
        c.op == PROTECT_OP_BIND) {
        m->session[door] = load(m, DOOR(door, command[0]) + slot * 64 + 56, 8);
        require(m->session[door] == after.session && after.session != 0);
    }
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
        at = 0x8000 + (at & 0x7fff);
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
    case 0:
    case 1: {
        struct access next = somebody(s);
        become(m, &next);
        break;
    }
    case 2:
    case 3:
    case 4:
    case 5:
    case 6:
    case 7:
        give_command(m, s, door);
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
