/*
 * protect_board.h - the protection device on a board, with a fake of the rules behind it that
 * binds, unbinds, and records what it is asked. Included by one test program each. Offsets are
 * protect.h's, written out.
 */
#ifndef TEST_PROTECT_BOARD_H
#define TEST_PROTECT_BOARD_H

#include "bench.h"
#include "internal/door.h"

enum {
    ID = 0x00,
    VERSION = 0x04,
    INDEX = 0x08,
    STATE = 0x0c,
    GRANTS = 0x10,
    SEALS = 0x14,
    HEAD = 0x18,
    TAIL = 0x20,
    LOST = 0x28,
    DEPTH = 0x30,
    MASKED = 0x38,
    DOORBELL = 0x40,
    RESUME = 0x48,
    RESUME_STATUS = 0x50,
    SLOTS = 0x400,
    SLOTS_END = 0x800,
    EVENTS = 0x1000,
};
/* Of a slot. */
enum { OP = 0, SESSION = 8, ARG0 = 16, STATUS = 48, ELEMENT = 52, RESULT = 56 };

#define BAR_ADMIN 0xe0000000u
#define BAR_DOORS 0xe0080000u
#define BAR_MSIX  0xe0001000u

/* ---- The fake rules -------------------------------------------------------------------------- */

struct rules {
    struct rules_context_info info[PROTECT_DOORS];
    int changing; /* by this vCPU; -1: no */
    uint64_t sessions;
    unsigned executed, context;
    struct protect_command command,
        answer; /* what came, and what an operation of no meaning gets */
    struct rules_caller caller;
    void (*while_executing)(void);
    unsigned grants, destroyed;
    uint32_t granted;
    bool taken;
    enum protect_status grant_status;
};
static struct rules rules;

void rules_change_begin(struct rules *r, int vcpu)
{
    ck_assert_int_eq(r->changing, -1);
    ck_assert_int_eq(pthread_mutex_lock(&bench.lock), 0);
    r->changing = vcpu;
}

void rules_change_end(struct rules *r, int vcpu)
{
    ck_assert_int_eq(r->changing, vcpu);
    r->changing = -1;
    pthread_mutex_unlock(&bench.lock);
}

static void bind(struct rules *r, unsigned context, struct protect_command *command,
                 const struct rules_caller *caller)
{
    struct rules_context_info *info = &r->info[context];
    if (info->kind != RULES_FREE) {
        command->status = PROTECT_BUSY;
        return;
    }
    *info = (struct rules_context_info){.kind = caller->kind,
                                        .session = r->sessions += 0x1111111111111111,
                                        .root = caller->paging->cr3 & 0x7ffffffffffff000,
                                        .root_mask = 0x7ffffffffffff000};
    command->result = info->session;
}

void rules_execute(struct rules *r, unsigned context, struct protect_command *command,
                   const struct rules_caller *caller)
{
    ck_assert_int_ge(r->changing, 0);
    r->executed++;
    r->context = context;
    r->command = *command;
    r->caller = *caller;
    if (r->while_executing)
        r->while_executing();
    command->status = PROTECT_OK;
    if (command->op == PROTECT_OP_BIND) {
        bind(r, context, command, caller);
    } else if (command->op == PROTECT_OP_UNBIND) {
        memset(&r->info[context], 0, sizeof(r->info[context]));
    } else {
        command->status = r->answer.status;
        command->element = r->answer.element;
        command->result = r->answer.result;
    }
}

enum protect_status rules_grant(struct rules *r, unsigned context, uint32_t grants, bool take)
{
    ck_assert_int_ge(r->changing, 0);
    r->grants++;
    r->context = context;
    r->granted = grants;
    r->taken = take;
    return r->grant_status;
}

enum protect_status rules_destroy(struct rules *r, unsigned context)
{
    ck_assert_int_ge(r->changing, 0);
    r->destroyed++;
    enum protect_status status = r->info[context].kind ? PROTECT_OK : PROTECT_NOT_BOUND;
    memset(&r->info[context], 0, sizeof(r->info[context]));
    return status;
}

void rules_context_info(struct rules *r, unsigned context, struct rules_context_info *info)
{
    *info = r->info[context];
}

void rules_context_owner(const struct rules *r, unsigned context, struct rules_owner *owner)
{
    const struct rules_context_info *info = &r->info[context];
    *owner = (struct rules_owner){info->kind, info->session, info->root, info->root_mask};
}

void rules_totals(struct rules *r, uint64_t *regions, uint64_t *ruled_pages,
                  struct protect_statistics *total)
{
    (void)r;
    *regions = 0x1234567800000009;
    *ruled_pages = 11;
    uint64_t *counter = (uint64_t *)total;
    for (unsigned i = 0; i < sizeof(*total) / 8; i++)
        counter[i] = 0x8000000000000000 + i;
}

void rules_read_event(struct rules *r, unsigned context, unsigned slot, struct protect_event *event)
{
    (void)r;
    ck_assert_uint_lt(slot, PROTECT_EVENTS);
    event->sequence = context * 100 + slot;
    event->cookie = 0xc00c1e;
    event->cpl = 3;
}

bool rules_set_event_tail(struct rules *r, unsigned context, uint64_t tail)
{
    if (tail > r->info[context].event_head)
        return false;
    r->info[context].event_tail = tail;
    return true;
}

void rules_set_masked(struct rules *r, unsigned context, bool masked)
{
    r->info[context].masked = masked;
}

/* ---- The board ------------------------------------------------------------------------------- */

enum { VCPUS = 2 };
static struct pci_bus *bus;
static struct pci_device *device;
static struct access who; /* makes the accesses */
static struct paging paging[VCPUS];
static struct {
    phys_after_fn *fn;
    void *opaque;
    struct access access;
} after[VCPUS];
static enum protect_status resume_answer;
static unsigned resumes, unmasks;
static struct {
    uint64_t address;
    uint32_t data;
} message;
static unsigned messages;

enum phys_result phys_read(struct phys_map *map, const struct access *access, uint64_t gpa,
                           void *buf, size_t len)
{
    (void)map, (void)access, (void)gpa, (void)buf, (void)len;
    ck_abort_msg("the device does no DMA");
}
enum phys_result phys_write(struct phys_map *map, const struct access *access, uint64_t gpa,
                            const void *buf, size_t len)
{
    (void)map, (void)access, (void)gpa, (void)buf, (void)len;
    ck_abort_msg("the device does no DMA");
}
void *phys_hva(struct phys_map *map, uint64_t gpa, uint64_t *len)
{
    (void)map, (void)gpa, (void)len;
    return NULL;
}
struct phys_loan *phys_loan_new(struct phys_map *map, bool to_memory, unsigned pieces)
{
    (void)map, (void)to_memory, (void)pieces;
    ck_abort_msg("the device does no DMA");
}

/* The host bridge's, which has no memory here. */
uint8_t *phys_block_bytes(struct ram_block *block)
{
    (void)block;
    ck_abort_msg("the bridge has no memory");
}
int phys_add_memory(struct phys_map *map, const struct phys_memory *memory, struct error *err)
{
    (void)map, (void)memory, (void)err;
    ck_abort_msg("the bridge has no memory");
}
int phys_map_block(struct phys_map *map, uint64_t gpa, uint64_t size, struct ram_block *block,
                   uint64_t offset, const char *name, struct error *err)
{
    (void)map, (void)gpa, (void)size, (void)block, (void)offset, (void)name, (void)err;
    ck_abort_msg("no BAR of memory here");
}
bool phys_block_ruled(const struct ram_block *block, uint64_t offset, uint64_t len)
{
    (void)block, (void)offset, (void)len;
    return false;
}
bool phys_switch(struct phys_map *map, struct phys_switch *switches, unsigned count)
{
    (void)map, (void)switches, (void)count;
    ck_abort_msg("the bridge has no memory");
}

bool phys_after_store(struct phys_map *map, const struct access *access, phys_after_fn *fn,
                      void *opaque)
{
    (void)map;
    ck_assert(access->initiator == INITIATOR_VCPU_USER ||
              access->initiator == INITIATOR_VCPU_KERNEL);
    after[access->vcpu].fn = fn;
    after[access->vcpu].opaque = opaque;
    after[access->vcpu].access = *access;
    return true;
}

static void caller_of(void *opaque, unsigned vcpu, struct rules_caller *caller)
{
    ck_assert_ptr_eq(opaque, paging);
    caller->kind = after[vcpu].access.cpl == 3 ? RULES_USER : RULES_SUPERVISOR;
    caller->paging = &paging[vcpu];
}

static enum protect_status resume(void *opaque, unsigned vcpu, unsigned context, uint64_t value)
{
    ck_assert_ptr_eq(opaque, paging);
    ck_assert_uint_eq(vcpu, who.vcpu);
    resumes++;
    rules.context = context;
    rules.command.result = value;
    return resume_answer;
}

static void unmasked(void *opaque, unsigned vcpu)
{
    ck_assert_ptr_eq(opaque, paging);
    ck_assert_uint_eq(vcpu, who.vcpu);
    unmasks++;
}

static void send(void *opaque, uint64_t address, uint32_t data)
{
    (void)opaque;
    messages++;
    message.address = address;
    message.data = data;
}

/* The store retires. */
static void retire(unsigned vcpu)
{
    phys_after_fn *fn = after[vcpu].fn;
    after[vcpu].fn = NULL;
    if (fn)
        fn(after[vcpu].opaque, &after[vcpu].access);
}

static uint64_t load(uint64_t gpa, unsigned size)
{
    struct bench_claim *c = bench_find(bench.mmio, gpa);
    ck_assert_ptr_nonnull(c);
    uint64_t value = c->ops->read(c->opaque, &who, gpa - c->base, size);
    return size == 8 ? value : value & ((1ull << 8 * size) - 1);
}

static void store_only(uint64_t gpa, unsigned size, uint64_t value)
{
    struct bench_claim *c = bench_find(bench.mmio, gpa);
    ck_assert_ptr_nonnull(c);
    c->ops->write(c->opaque, &who, gpa - c->base, size, value);
}

static void store(uint64_t gpa, unsigned size, uint64_t value)
{
    store_only(gpa, size, value);
    retire(who.vcpu);
}

static void be(enum initiator initiator, uint8_t cpl, uint64_t cr3)
{
    who = (struct access){.initiator = initiator, .vcpu = who.vcpu, .cpl = cpl, .cr3 = cr3};
    paging[who.vcpu].cr3 = cr3;
}
static void be_user(uint64_t cr3)
{
    be(INITIATOR_VCPU_USER, 3, cr3);
}
static void be_kernel(uint64_t cr3)
{
    be(INITIATOR_VCPU_KERNEL, 0, cr3);
}

/* Register or slot of a door, at its fixed address. */
static uint64_t door(unsigned n, unsigned offset)
{
    return 0xfef10000 + 0x2000ull * n + offset;
}
static uint64_t slot(unsigned n, unsigned index, unsigned offset)
{
    return door(n, SLOTS + 64 * index + offset);
}
static inline uint64_t reg(unsigned offset)
{
    return load(door(5, offset), 8);
}

static inline void command(unsigned n, unsigned index, uint64_t op)
{
    store(slot(n, index, OP), 8, op);
    store(door(n, DOORBELL), 8, index);
}

static uint64_t bind_door(unsigned n)
{
    command(n, 0, PROTECT_OP_BIND);
    ck_assert_uint_eq(load(slot(n, 0, STATUS), 4), PROTECT_OK);
    return load(slot(n, 0, RESULT), 8);
}

static struct pci_device *make(void)
{
    const struct protect_config config = {
        .rules = &rules, .port = {paging, caller_of, resume, unmasked}, .vcpus = VCPUS};
    struct error *none = NULL;
    struct pci_device *dev = protect_create(bus, PCI_DEVFN(31, 0), &config, none);
    ck_assert_ptr_nonnull(dev);
    return dev;
}

static void setup(void)
{
    struct board *board = bench_setup();
    struct msi_port msi = {.send = send};
    memset(&rules, 0, sizeof(rules));
    memset(after, 0, sizeof(after));
    memset(&who, 0, sizeof(who));
    rules.changing = -1;
    resumes = unmasks = messages = 0;
    resume_answer = PROTECT_BAD_TOKEN;
    bus = i440fx_create(board, &msi, NULL);
    ck_assert_ptr_nonnull(bus);
    device = make();
    be_kernel(0x1000);
}

static void teardown(void)
{
    bench_destroy(device);
    bench_destroy(bus->host);
}

static inline uint32_t config_in(unsigned offset)
{
    return pci_config_read(bus, PCI_DEVFN(31, 0), offset, 4);
}
static inline void config_out(unsigned offset, uint32_t value)
{
    pci_config_write(bus, PCI_DEVFN(31, 0), offset, 4, value);
}
static inline void map_bars(void)
{
    config_out(PCI_BAR0, BAR_ADMIN);
    config_out(PCI_BAR0 + 8, BAR_DOORS);
    config_out(PCI_BAR0 + 16, BAR_MSIX);
    config_out(PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

static inline void fill(unsigned n)
{
    for (unsigned offset = SLOTS; offset < SLOTS_END; offset += 8)
        store(door(n, offset), 8, 0x5ec5e7);
}

/* What anybody finds in the slots of a free door. */
static inline uint64_t left_behind(unsigned n)
{
    uint64_t any = 0;
    be_user(0xdead000);
    for (unsigned offset = SLOTS; offset < SLOTS_END; offset += 8)
        any |= load(door(n, offset), 8);
    return any;
}

static inline int protect_main(const char *name, const TTest *const *tests, unsigned count)
{
    Suite *suite = suite_create(name);
    TCase *t = tcase_create(name);
    tcase_add_checked_fixture(t, setup, teardown);
    for (unsigned i = 0; i < count; i++)
        tcase_add_test(t, tests[i]);
    suite_add_tcase(suite, t);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
#define PROTECT_MAIN(name, ...)                                                                    \
    int main(void)                                                                                 \
    {                                                                                              \
        const TTest *const tests[] = {__VA_ARGS__};                                                \
        return protect_main(name, tests, sizeof(tests) / sizeof(tests[0]));                        \
    }

#endif
