/*
 * test_rules_state.c - the rules saved and restored (mmu/rules/state.c): a machine with everything
 * in it goes on in another one as in the first; seals hold there; what is not a saved state is
 * refused, wherever it is wrong.
 */
#include "internal/fields.h"
#include "rules_guest.h"

enum {
    RAM = 8 * MIB,
    CODE = 0x400000,
    ARENA = 0x100000,
    GVA = 0x40100000,
    PINNED = 0x50000000,
    PAGES = 200
};
enum { OWNER_DOOR = 1, CLIENT = PROTECT_DOORS + 3 };

/* ---- A tape -------------------------------------------------------------------------------------
 *
 * The least that a saved machine can be: each record's name, and the values of its fields.
 */

struct tape {
    uint64_t *value;
    struct place {
        const struct state_desc *desc;
        const struct field *field; /* NULL: the name */
    } * place;
    size_t count, room, at;
};

static void append(struct tape *t, const struct state_desc *desc, const struct field *field,
                   uint64_t value)
{
    if (t->count == t->room) {
        t->room = t->room ? 2 * t->room : 1024;
        t->value = realloc(t->value, t->room * sizeof *t->value);
        t->place = realloc(t->place, t->room * sizeof *t->place);
    }
    t->place[t->count] = (struct place){desc, field};
    t->value[t->count++] = value;
}

static uint64_t hash(const char *name)
{
    uint64_t h = 0;
    while (*name)
        h = h * 31 + (uint8_t)*name++;
    return h;
}

static bool put(void *opaque, const struct state_desc *desc, void *record)
{
    append(opaque, desc, NULL, hash(desc->name));
    for (size_t i = 0; i < desc->field_count; i++) {
        ck_assert_uint_le(desc->fields[i].version, desc->version);
        for (size_t n = 0; n < desc->fields[i].count; n++)
            append(opaque, desc, &desc->fields[i], field_get(&desc->fields[i], record, n));
    }
    return true;
}

static bool get(void *opaque, const struct state_desc *desc, void *record)
{
    struct tape *t = opaque;
    if (t->at == t->count || t->value[t->at++] != hash(desc->name))
        return false;
    for (size_t i = 0; i < desc->field_count; i++)
        for (size_t n = 0; n < desc->fields[i].count; n++) {
            if (t->at == t->count)
                return false;
            field_set(&desc->fields[i], record, n, t->value[t->at++]);
        }
    return true;
}

static struct tape save(void)
{
    struct tape t = {0};
    rules_change_begin(rules, -1);
    ck_assert(rules_save(rules, put, &t));
    rules_change_end(rules, -1);
    return t;
}
static bool restore(struct tape *t, struct error *err)
{
    t->at = 0;
    rules_change_begin(rules, -1);
    bool ok = rules_restore(rules, get, t, err);
    rules_change_end(rules, -1);
    return ok;
}

/* Of a token's state: a number. */
struct upcall {
    uint64_t number;
};
static const struct field upcall_fields[] = {FIELD(struct upcall, number, FIELD_U64, 1)};
static const struct state_desc upcall_desc = STATE_DESC("test.upcall", 1, upcall_fields);

static bool save_upcall(const void *state, rules_record_fn *fn, void *opaque)
{
    struct upcall copy = *(const struct upcall *)state;
    return fn(opaque, &upcall_desc, &copy);
}
static void *restore_upcall(rules_record_fn *fn, void *opaque)
{
    struct upcall *u = calloc(1, sizeof *u);
    if (fn(opaque, &upcall_desc, u))
        return u;
    free(u);
    return NULL;
}

/* ---- Two machines -------------------------------------------------------------------------------
 */

struct machine {
    struct guest *g;
    struct rules *rules;
    struct clock *clock;
};
static struct machine present(void)
{
    return (struct machine){g, rules, manual};
}
static void go_to(struct machine m)
{
    g = m.g;
    rules = m.rules;
    manual = m.clock;
}

static void begin_machine(void)
{
    static const struct rules_hooks hooks = {.save_upcall = save_upcall,
                                             .restore_upcall = restore_upcall};
    start(PAGING_4LEVEL, RAM);
    rules_set_hooks(rules, &hooks);
}

/* Another machine with the same memory and clock. */
static struct machine twin(void)
{
    struct machine first = present();
    struct paging kept = paging;
    uint64_t room;
    begin_machine();
    paging = kept;
    memcpy(phys_hva(g->map, 0, &room), phys_hva(first.g->map, 0, &room), RAM);
    g->next_table = first.g->next_table;
    clock_set_manual(manual, 5000);
    return first;
}

/* ---- What is in the first -----------------------------------------------------------------------
 */

static uint64_t sessions[RULES_CONTEXTS], tokens[2];
static uint64_t pinned_entry, followed_entry; /* in different tables */

static enum rules_kind kind_of(unsigned context)
{
    return context == CLIENT ? RULES_HOST : context == OWNER_DOOR ? RULES_USER : RULES_SUPERVISOR;
}
static enum protect_status command(unsigned context, unsigned op, uint64_t a0, uint64_t a1)
{
    session = sessions[context];
    return give(context, kind_of(context), op, a0, a1);
}
static uint32_t add_to(unsigned context, uint64_t base, uint64_t length, uint32_t flags)
{
    const struct protect_region r = {
        .base = base, .length = length, .flags = flags, .cookie = ~base};
    ck_assert_int_eq(command(context, PROTECT_OP_ADD_REGIONS, (uintptr_t)&r, 1), PROTECT_OK);
    return (uint32_t)last.result;
}
static void set_in(unsigned context, struct protect_rule r)
{
    ck_assert_int_eq(command(context, PROTECT_OP_SET_RULES, (uintptr_t)&r, 1), PROTECT_OK);
}
static void bind_it(unsigned context)
{
    ck_assert_int_eq(
        command(context, PROTECT_OP_BIND, kind_of(context) == RULES_HOST ? paging.cr3 : 0, 0),
        PROTECT_OK);
    sessions[context] = last.result;
}

static const struct access kernel = {.initiator = INITIATOR_VCPU_KERNEL, .rip = CODE},
                           dma = {.initiator = INITIATOR_DMA, .device = 0x30},
                           client = {.initiator = INITIATOR_HOST},
                           debugger = {.initiator = INITIATOR_DEBUGGER};

static void fill_owner(void)
{
    const struct protect_handler h = {
        .rip = CODE, .stacks = 3, .timeout_ms = 50, .stack = {0x7000000, 0x7010000, 0x7020000}};
    uint64_t stack;
    unsigned depth;
    bind_it(OWNER_DOOR);
    ck_assert_int_eq(
        rules_grant(rules, OWNER_DOOR, PROTECT_GRANT_KERNEL | PROTECT_GRANT_DEVICES, false),
        PROTECT_OK);
    ck_assert_int_eq(command(OWNER_DOOR, PROTECT_OP_SET_HANDLER, (uintptr_t)&h, 0), PROTECT_OK);
    uint32_t first = add_to(OWNER_DOOR, GVA + 3, 10, 0); /* three regions, one rule */
    add_to(OWNER_DOOR, PINNED + 8, 4, PROTECT_PIN);
    add_to(OWNER_DOOR, GVA + 0x2000, PAGES * PAGE_SIZE, 0); /* its end is not mapped */
    uint32_t gone = add_to(OWNER_DOOR, GVA + 0x40, 1, 0);
    struct protect_rule r = rule(first, PROTECT_KERNEL, PROTECT_READ, PROTECT_DEFERRED);
    r.count = 3;
    r.notify = PROTECT_NOTIFY_PREIMAGE;
    r.marker = 17;
    r.value = 0x1122334455667788;
    r.allow[PROTECT_DEVICE] = 0;
    r.action[PROTECT_DEVICE] = PROTECT_ALLOW_ONCE;
    set_in(OWNER_DOOR, r);
    add_to(OWNER_DOOR, GVA + 0x50, 1, 0); /* no rule */
    ck_assert_int_eq(command(OWNER_DOOR, PROTECT_OP_REMOVE_REGIONS, gone, 1), PROTECT_OK);
    /* Pending: deferred upcalls, two live ones, events unread. */
    uint64_t value = 0x5a;
    for (unsigned i = 0; i < 3; i++) {
        struct rules_check check = {.access = &kernel,
                                    .kind = PROTECT_WRITE,
                                    .pieces = 1,
                                    .piece = {{ARENA + 4 + i, 1}},
                                    .value = &value};
        struct rules_verdict verdict;
        rules_judge(rules, &check, &verdict);
        ck_assert_int_eq(verdict.action, PROTECT_DEFERRED);
    }
    ck_assert(rules_set_event_tail(rules, OWNER_DOOR, 1));
    for (unsigned i = 0; i < 2; i++) {
        struct upcall *u = calloc(1, sizeof *u);
        u->number = 77 + i;
        tokens[i] = rules_token_issue(rules, OWNER_DOOR, u, &stack, &depth);
        ck_assert_uint_ne(tokens[i], 0);
    }
    rules_set_masked(rules, OWNER_DOOR, true);
    uint8_t byte = 1;
    ck_assert_int_eq(phys_write(g->map, &dma, ARENA + 3, &byte, 1), PHYS_OK); /* its once */
}

static void fill(void)
{
    begin_machine();
    guest_map(g, &paging, 0x7000, 0x20000 | PTE_P | PTE_RW | PTE_US, 1);
    for (unsigned i = 0; i < 100; i++)
        guest_map(g, &paging, GVA + i * PAGE_SIZE,
                  (ARENA + i * PAGE_SIZE) | PTE_P | PTE_RW | PTE_US, 1);
    guest_map(g, &paging, PINNED, (ARENA + PAGE_SIZE) | PTE_P | PTE_RW | PTE_US, 1);
    followed_entry = guest_entry(g, &paging, GVA, 1);
    clock_set_manual(manual, 5000);
    fill_owner();
    bind_it(0); /* supervisor: seals, a used ALLOW_ONCE that would be weakened */
    struct protect_rule r = rule(add_to(0, 0x200010, 32, PROTECT_PHYSICAL), PROTECT_DEBUGGER,
                                 PROTECT_READ, PROTECT_DENY);
    r.notify = PROTECT_NOTIFY_PREIMAGE;
    set_in(0, r);
    ck_assert_int_eq(command(0, PROTECT_OP_SEAL, PROTECT_SEAL_WEAKEN | PROTECT_SEAL_REMOVE, 0),
                     PROTECT_OK);
    bind_it(CLIENT); /* overlaps with the others */
    r = rule(add_to(CLIENT, ARENA, 2 * PAGE_SIZE, PROTECT_PHYSICAL), PROTECT_HOST, 0, PROTECT_DENY);
    set_in(CLIENT, r);
    /* A pinned page that is mapped elsewhere by now, with its event. */
    pinned_entry = guest_entry(g, &paging, PINNED, 1);
    poke64(g, pinned_entry, 0x300000 | PTE_P | PTE_RW | PTE_US);
    rules_change_begin(rules, -1);
    rules_table_written(rules, pinned_entry, 8);
    rules_change_end(rules, -1);
}

/* ---- Comparing ----------------------------------------------------------------------------------
 */

static void check_same_tape(const struct tape *a, const struct tape *b)
{
    ck_assert_uint_eq(a->count, b->count);
    for (size_t i = 0; i < a->count; i++)
        ck_assert_msg(a->value[i] == b->value[i], "value %zu: %#llx, %#llx", i,
                      (unsigned long long)a->value[i], (unsigned long long)b->value[i]);
}

/* The same accesses in both machines end alike, byte for byte and event for event. */
static void access_both(struct machine first, struct machine second)
{
    static const struct access *const who[] = {&kernel, &dma, &client, &debugger};
    static const uint64_t places[] = {ARENA,
                                      ARENA + 3,
                                      ARENA + 0xff8,
                                      ARENA + 0xffe,
                                      ARENA + 4096,
                                      ARENA + 8200,
                                      ARENA + 70 * PAGE_SIZE,
                                      0x200008,
                                      0x20002f,
                                      0x200030,
                                      0x300000};
    for (unsigned i = 0; i < sizeof places / sizeof places[0]; i++)
        for (unsigned n = 0; n < 4; n++)
            for (unsigned size = 1; size <= 16; size *= 4) {
                uint8_t one[16] = {0}, two[16] = {0}, bytes[16];
                memset(bytes, (int)(i * 16 + n), sizeof bytes);
                ck_assert_int_eq(phys_write(first.g->map, who[n], places[i], bytes, size),
                                 phys_write(second.g->map, who[n], places[i], bytes, size));
                ck_assert_int_eq(phys_read(first.g->map, who[n], places[i], one, size),
                                 phys_read(second.g->map, who[n], places[i], two, size));
                ck_assert(!memcmp(one, two, sizeof one));
            }
    uint64_t room;
    ck_assert(!memcmp(phys_hva(first.g->map, 0, &room), phys_hva(second.g->map, 0, &room), RAM));
}

static void free_tape(struct tape *t)
{
    free(t->value);
    free(t->place);
}

/* ---- The tests ----------------------------------------------------------------------------------
 */

START_TEST(a_machine_goes_on_in_another)
{
    struct error err;
    fill();
    struct tape saved = save();
    struct machine first = twin(), second = present();
    ck_assert_msg(restore(&saved, &err), "%s", err.msg);
    ck_assert_uint_eq(saved.at, saved.count);
    struct tape again = save();
    check_same_tape(&saved, &again);
    free_tape(&again);
    access_both(first, second);
    /* Tables are followed as before, pinned ones too. */
    const uint64_t entries[] = {followed_entry, pinned_entry};
    for (unsigned i = 0; i < 2; i++)
        for (unsigned n = 0; n < 2; n++) {
            go_to(n ? second : first);
            ck_assert(rules_follows(rules, &kernel, entries[i]));
            poke64(g, entries[i], (0x310000 + i * PAGE_SIZE) | PTE_P | PTE_RW | PTE_US);
            rules_change_begin(rules, -1);
            rules_table_written(rules, entries[i], 8);
            rules_change_end(rules, -1);
        }
    access_both(first, second);
    for (unsigned n = 0; n < 2; n++) {
        go_to(n ? second : first);
        struct protect_event e;
        ck_assert_int_eq(rules_deferred_due(rules, paging.cr3), -1); /* masked, and two live */
        for (unsigned i = 0; i < 2; i++) {
            struct upcall *u = rules_token_redeem(rules, OWNER_DOOR, tokens[i]);
            ck_assert_ptr_nonnull(u);
            ck_assert_uint_eq(u->number, 77 + i);
            free(u);
        }
        ck_assert_int_eq(rules_deferred_due(rules, paging.cr3), -1);
        rules_set_masked(rules, OWNER_DOOR, false);
        ck_assert_int_eq(rules_deferred_due(rules, paging.cr3), OWNER_DOOR);
        ck_assert(rules_take_deferred(rules, OWNER_DOOR, &e));
        ck_assert_uint_eq(e.home, GVA + 4);
        clock_set_manual(manual, 6000);
    }
    go_to(first);
    struct tape one = save();
    go_to(second);
    struct tape two = save();
    check_same_tape(&one, &two);
    free_tape(&one);
    free_tape(&two);
    free_tape(&saved);
    finish();
    go_to(first);
    finish();
}
END_TEST

/* A token's time goes on, too. */
START_TEST(upcalls_still_time_out)
{
    struct error err;
    struct rules_context_info info;
    fill();
    struct tape saved = save();
    struct machine first = twin();
    ck_assert(restore(&saved, &err));
    clock_set_manual(manual, 5000 + 49999999);
    rules_context_info(rules, OWNER_DOOR, &info);
    ck_assert_uint_eq(info.upcall_depth, 2);
    clock_set_manual(manual, 5000 + 50000000);
    rules_context_info(rules, OWNER_DOOR, &info);
    ck_assert_uint_eq(info.upcall_depth, 0);
    free_tape(&saved);
    finish();
    go_to(first);
    finish();
}
END_TEST

START_TEST(seals_survive)
{
    struct error err;
    struct rules_context_info info;
    fill();
    struct tape saved = save();
    struct machine first = twin();
    ck_assert(restore(&saved, &err));
    rules_context_info(rules, 0, &info);
    ck_assert_uint_eq(info.seals, PROTECT_SEAL_WEAKEN | PROTECT_SEAL_REMOVE);
    ck_assert_int_eq(command(0, PROTECT_OP_UNBIND, 0, 0), PROTECT_SEALED);
    ck_assert_int_eq(command(0, PROTECT_OP_REMOVE_REGIONS, 0, 1), PROTECT_SEALED);
    ck_assert_int_eq(rules_destroy(rules, 0), PROTECT_SEALED);
    struct protect_rule weaker = rule(0, PROTECT_DEBUGGER, PROTECT_ALL, PROTECT_ALLOW);
    ck_assert_int_eq(command(0, PROTECT_OP_SET_RULES, (uintptr_t)&weaker, 1), PROTECT_SEALED);
    poke64(g, 0x200008, ~0ull);
    poke64(g, 0x200010, ~0ull);
    poke64(g, 0x200030, ~0ull);
    rules_reset(rules);
    ck_assert_uint_eq(peek64(g, 0x200008), ~0ull);
    ck_assert_uint_eq(peek64(g, 0x200010), 0);
    ck_assert_uint_eq(peek64(g, 0x200030), ~0ull);
    free_tape(&saved);
    finish();
    go_to(first);
    finish();
}
END_TEST

/* What is there goes without a trace, sealed or not; memory, which is the saved machine's by then,
 * is left alone. */
START_TEST(replaces_what_is_there)
{
    struct error err;
    fill();
    struct tape full = save();
    struct machine first = twin();
    struct tape empty = save();
    ck_assert(restore(&full, &err));
    poke64(g, 0x200010, ~0ull);
    ck_assert(restore(&full, &err)); /* onto itself */
    ck_assert_uint_eq(peek64(g, 0x200010), ~0ull);
    struct tape again = save();
    check_same_tape(&full, &again);
    ck_assert(restore(&empty, &err));
    ck_assert_uint_eq(peek64(g, 0x200010), ~0ull);
    ck_assert(!rules_touches(rules, &kernel, 0, RAM, PROTECT_ALL));
    ck_assert(!rules_follows(rules, &kernel, followed_entry));
    ck_assert_int_eq(rules_deferred_waiting(rules), 0);
    free_tape(&full);
    free_tape(&empty);
    free_tape(&again);
    finish();
    go_to(first);
    finish();
}
END_TEST

static void check_empty(const char *why, size_t at)
{
    struct rules_context_info info;
    uint64_t regions, pages;
    struct protect_statistics total;
    rules_totals(rules, &regions, &pages, &total);
    ck_assert_msg(regions == 0 && pages == 0 && !rules_deferred_waiting(rules), "%s at %zu", why,
                  at);
    for (unsigned i = 0; i < RULES_CONTEXTS; i++) {
        rules_context_info(rules, i, &info);
        ck_assert_msg(info.kind == RULES_FREE, "%s at %zu", why, at);
    }
    ck_assert(!rules_touches(rules, &kernel, 0, RAM, PROTECT_ALL));
}

/* Cut anywhere; any value another one. What can be restored in spite of that can be used. */
START_TEST(what_is_not_a_saved_state)
{
    static const uint64_t others[] = {0, 1, ~0ull, 1ull << 31, 0x7fff};
    struct error err;
    unsigned refused = 0, taken = 0;
    fill();
    struct tape saved = save();
    struct machine first = twin();
    size_t count = saved.count;
    for (size_t n = 0; n < count; n++) {
        saved.count = n;
        err.msg[0] = 0;
        ck_assert_msg(!restore(&saved, &err), "cut at %zu", n);
        ck_assert_msg(err.msg[0] != 0, "cut at %zu", n);
        check_empty("cut", n);
    }
    saved.count = count;
    for (size_t n = 0; n < count; n++) {
        uint64_t kept = saved.value[n];
        for (unsigned i = 0; i < sizeof others / sizeof others[0]; i++) {
            saved.value[n] = others[i];
            if (restore(&saved, &err)) {
                uint8_t bytes[4096];
                taken++;
                for (uint64_t at = 0x200000 - 8; at < 0x200100; at += 64)
                    phys_read(g->map, &dma, at, bytes, 64);
                rules_change_begin(rules, -1);
                rules_table_written(rules, followed_entry, 8);
                rules_change_end(rules, -1);
            } else {
                refused++;
                check_empty("another value", n);
            }
        }
        saved.value[n] = kept;
    }
    printf("%zu values: %u changes refused, %u taken\n", count, refused, taken);
    ck_assert_uint_gt(refused, 100);
    ck_assert(restore(&saved, &err));
    free_tape(&saved);
    finish();
    go_to(first);
    finish();
}
END_TEST

/* The place of a field in the n-th record of a kind. */
static size_t find(const struct tape *t, const char *record, const char *field, unsigned n)
{
    for (size_t i = 0; i < t->count; i++)
        if (!strcmp(t->place[i].desc->name, record) && t->place[i].field &&
            !strcmp(t->place[i].field->name, field) && n-- == 0)
            return i;
    ck_abort_msg("no field %s in %s", field, record);
}

/* Each of these would break something of ours, if it were believed. */
START_TEST(what_no_machine_can_have_saved)
{
    static const struct {
        const char *record, *field;
        unsigned n;
        uint64_t value;
    } bad[] = {
        {"rules", "rules", 0, 1000000000},
        {"rules", "contexts", 0, 4},
        {"rules.rule", "action", PROTECT_DEVICE, PROTECT_UPCALL},
        {"rules.rule", "action", 0, PROTECT_ACTIONS},
        {"rules.rule", "allow", 0, 8},
        {"rules.rule", "marker", 0, 31},
        {"rules.rule", "fault", 0, 2},
        {"rules.rule", "notify", 0, 0x40},
        {"rules.context", "number", 1, 0}, /* as the first one */
        {"rules.context", "number", 0, RULES_CONTEXTS},
        {"rules.context", "number", 0, PROTECT_DOORS}, /* a client's */
        {"rules.context", "kind", 0, RULES_FREE},
        {"rules.context", "kind", 0, RULES_HOST + 1},
        {"rules.context", "session", 0, 0},
        {"rules.context", "grants", 0, 0x80},
        {"rules.context", "seals", 0, 8},
        {"rules.context", "maxphyaddr", 0, 64},
        {"rules.context", "ids", 0, ~0u},
        {"rules.context", "regions", 0, 1000},
        {"rules.context", "deferred", 1, 33},
        {"rules.context", "deferred", 0, 1}, /* nobody to take it */
        {"rules.context", "tokens", 1, PROTECT_MAX_LIVE + 1},
        {"rules.context", "handler.rip", 1, 0xffff800000000000},
        {"rules.context", "handler.stacks", 1, PROTECT_MAX_STACKS + 1},
        {"rules.context", "event_tail", 1, 100},
        {"rules.context", "door_gpa", 1, 0},
        {"rules.region", "id", 2, 0}, /* of the second context's, as its first */
        {"rules.region", "id", 0, 1000},
        {"rules.region", "rule", 0, 3},
        {"rules.region", "length", 0, 0},
        {"rules.region", "length", 1, 1ull << 47},
        {"rules.region", "flags", 0, 4},
        {"rules.frames", "gpa", 0, 0x200001},
        {"rules.frames", "gpa", 0, RAM},
        {"rules.token", "value", 0, 0},
        {"rules.token", "slot", 1, 0},
        {"rules.token", "slot", 0, PROTECT_MAX_LIVE},
        {"rules.token", "stack", 1, 0}, /* the first one's */
        {"rules.token", "stack", 0, 3},
    };
    struct error err;
    fill();
    struct tape saved = save();
    struct machine first = twin();
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        size_t at = find(&saved, bad[i].record, bad[i].field, bad[i].n);
        uint64_t kept = saved.value[at];
        ck_assert_msg(kept != bad[i].value, "row %u", i);
        saved.value[at] = bad[i].value;
        ck_assert_msg(!restore(&saved, &err), "row %u", i);
        check_empty(bad[i].field, i);
        saved.value[at] = kept;
    }
    ck_assert(restore(&saved, &err));
    free_tape(&saved);
    finish();
    go_to(first);
    finish();
}
END_TEST

/* An upcall that nobody can save is no saved state; rather none than half of one. */
START_TEST(an_upcall_that_cannot_be_saved)
{
    static const struct rules_hooks none = {0};
    struct tape t = {0};
    fill();
    rules_set_hooks(rules, &none);
    rules_change_begin(rules, -1);
    ck_assert(!rules_save(rules, put, &t));
    rules_change_end(rules, -1);
    free_tape(&t);
    finish();
}
END_TEST

int main(void)
{
    Suite *s = suite_create("rules state");
    TCase *c = tcase_create("state");
    tcase_set_timeout(c, 250);
    tcase_add_test(c, a_machine_goes_on_in_another);
    tcase_add_test(c, upcalls_still_time_out);
    tcase_add_test(c, seals_survive);
    tcase_add_test(c, replaces_what_is_there);
    tcase_add_test(c, what_is_not_a_saved_state);
    tcase_add_test(c, what_no_machine_can_have_saved);
    tcase_add_test(c, an_upcall_that_cannot_be_saved);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
