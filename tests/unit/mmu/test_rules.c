/*
 * test_rules.c - the protection rules' tables (mmu/rules/): regions of every alignment, lists by
 * frame, grants, seals, queries, following page tables of every mode, reset, counters, tokens, what
 * a command may contain; a million pages at once.
 */
#include "rules_guest.h"
#include <time.h>

static void deny_stores(uint32_t region)
{
    const struct protect_rule r = rule(region, PROTECT_OWNER, PROTECT_READ, PROTECT_DENY);
    ck_assert_int_eq(do_op(PROTECT_OP_SET_RULES, &r, 1), PROTECT_OK);
}
static bool touches(uint64_t gpa, uint64_t len, uint8_t kind)
{
    return rules_touches(rules, &KERNEL, gpa, len, kind);
}

/* ---- Bytes --------------------------------------------------------------------------------------
 */

START_TEST(regions_of_every_alignment)
{
    static const uint64_t offsets[] = {0, 1, 7, 4088, 4095},
                          lengths[] = {1, 2, 8, 4095, 4096, 4097, 9000};
    start(PAGING_NONE, 4 * MIB);
    bind_supervisor();
    for (unsigned o = 0; o < 5; o++)
        for (unsigned l = 0; l < 7; l++) {
            uint64_t base = 0x10000 + offsets[o], end = base + lengths[l];
            uint32_t id = add(base, lengths[l], 0);
            ck_assert(!touches(base, 1, PROTECT_WRITE)); /* no rule yet */
            deny_stores(id);
            ck_assert(touches(base, 1, PROTECT_WRITE));
            ck_assert(touches(end - 1, 1, PROTECT_WRITE));
            ck_assert(!touches(base - 1, 1, PROTECT_WRITE));
            ck_assert(!touches(end, 1, PROTECT_WRITE));
            ck_assert(touches(base - 8, 9, PROTECT_WRITE));
            ck_assert(touches(end - 1, 100, PROTECT_WRITE));
            ck_assert(touches(base - 4096, 3 * 4096 + lengths[l], PROTECT_WRITE));
            ck_assert(!touches(base, lengths[l], PROTECT_READ));
            ck_assert(!touches(base, lengths[l], PROTECT_EXEC) == false);
            ck_assert_int_eq(give(0, RULES_SUPERVISOR, PROTECT_OP_REMOVE_REGIONS, id, 1),
                             PROTECT_OK);
            ck_assert(!touches(base, lengths[l], PROTECT_WRITE));
        }
    uint64_t regions, pages;
    struct protect_statistics total;
    rules_totals(rules, &regions, &pages, &total);
    ck_assert_uint_eq(regions, 0);
    ck_assert_uint_eq(pages, 0);
    finish();
}
END_TEST

/* Regions that share a frame come and go without taking each other's rules along. */
START_TEST(lists_of_a_frame)
{
    uint32_t id[64];
    start(PAGING_NONE, 4 * MIB);
    bind_supervisor();
    for (unsigned i = 0; i < 64; i++) {
        id[i] = add(0x10000 + 64 * i, 32, 0);
        deny_stores(id[i]);
    }
    for (unsigned n = 0; n < 64; n++) {
        unsigned gone = n * 37 % 64;
        ck_assert_int_eq(give(0, RULES_SUPERVISOR, PROTECT_OP_REMOVE_REGIONS, id[gone], 1),
                         PROTECT_OK);
        id[gone] = UINT32_MAX;
        for (unsigned i = 0; i < 64; i++)
            ck_assert_int_eq(touches(0x10000 + 64 * i, 8, PROTECT_WRITE), id[i] != UINT32_MAX);
    }
    finish();
}
END_TEST

/* A rule that takes less away by one kind and more by another: the frame's attributes follow. */
START_TEST(attributes_follow_a_changed_rule)
{
    start(PAGING_NONE, 4 * MIB);
    bind_supervisor();
    uint32_t first = add(0x10000, 8, 0), second = add(0x10100, 8, 0);
    deny_stores(first);
    deny_stores(second);
    const struct protect_rule r = rule(first, PROTECT_OWNER, PROTECT_WRITE, PROTECT_DENY);
    ck_assert_int_eq(do_op(PROTECT_OP_SET_RULES, &r, 1), PROTECT_OK);
    ck_assert(touches(0x10000, 1, PROTECT_READ));
    ck_assert(!touches(0x10000, 1, PROTECT_WRITE));
    ck_assert(touches(0x10100, 1, PROTECT_WRITE));
    ck_assert(!touches(0x10100, 1, PROTECT_READ));
    finish();
}
END_TEST

START_TEST(the_lowest_region_that_holds_an_address)
{
    struct protect_query q = {.address = 0x10010, .region = UINT32_MAX};
    start(PAGING_NONE, 4 * MIB);
    bind_supervisor();
    add(0x20000, 16, 0);
    uint32_t a = add(0x10000, 0x3000, 0), b = add(0x10010, 1, 0);
    ck_assert_int_eq(do_op(PROTECT_OP_QUERY, &q, 0), PROTECT_OK);
    ck_assert_uint_eq(q.region, a);
    ck_assert_uint_eq(q.pages, 3);
    ck_assert_uint_eq(q.resolved, 3);
    q = (struct protect_query){.region = b};
    ck_assert_int_eq(do_op(PROTECT_OP_QUERY, &q, 0), PROTECT_OK);
    ck_assert_uint_eq(q.base, 0x10010);
    q = (struct protect_query){.address = 0x13000, .region = UINT32_MAX};
    ck_assert_int_eq(do_op(PROTECT_OP_QUERY, &q, 0), PROTECT_NO_REGION);
    finish();
}
END_TEST

/* ---- Following ----------------------------------------------------------------------------------
 */

/* _i: the paging mode. */
START_TEST(follows_tables_of_every_mode)
{
    enum paging_mode mode = (enum paging_mode)_i;
    unsigned size = mode == PAGING_32 ? 4 : 8;
    start(mode, 8 * MIB);
    uint64_t at = guest_map(g, &paging, 0x40005000, 0x10000 | PTE_P | PTE_RW | PTE_US, 1);
    bind_supervisor();
    deny_stores(add(0x40005100, 8, 0));
    ck_assert(touches(0x10100, 1, PROTECT_WRITE));
    ck_assert(rules_follows(rules, &KERNEL, at));
    poke(g, at, 0x11000 | PTE_P | PTE_RW | PTE_US, size);
    rules_change_begin(rules, -1);
    rules_table_written(rules, at, size);
    rules_change_end(rules, -1);
    ck_assert(!touches(0x10100, 1, PROTECT_WRITE));
    ck_assert(touches(0x11100, 1, PROTECT_WRITE));
    poke(g, at, 0, size);
    rules_change_begin(rules, -1);
    rules_table_written(rules, at, size);
    rules_change_end(rules, -1);
    ck_assert(!touches(0x11100, 1, PROTECT_WRITE));
    struct protect_event e;
    rules_read_event(rules, 0, 0, &e);
    ck_assert_uint_eq(e.type, PROTECT_EVENT_MOVED);
    rules_read_event(rules, 0, 1, &e);
    ck_assert_uint_eq(e.type, PROTECT_EVENT_UNMAPPED);
    ck_assert_uint_eq(e.gva, 0x40005000);
    /* DMA to a table is noted, and acted on by a vCPU. */
    poke(g, at, 0x12000 | PTE_P | PTE_RW | PTE_US, size);
    rules_table_dirty(rules, at, size);
    rules_service(rules, 0);
    ck_assert(touches(0x12100, 1, PROTECT_WRITE));
    ck_assert_int_eq(give(0, RULES_SUPERVISOR, PROTECT_OP_UNBIND, 0, 0), PROTECT_OK);
    ck_assert(!rules_follows(rules, &KERNEL, at));
    finish();
}
END_TEST

/* ---- Two machines in one process ------------------------------------------------------------- */

enum { MANY_PAGES = 256 };

/* Pages of a machine, with a region each, in an order that has to be sorted before a page table is
 * followed. `salt` makes it another one for each machine. */
struct scrambled {
    struct guest *g;
    struct rules *rules;
    struct paging paging;
    uint64_t session, table;
    unsigned salt, wrong;
    _Atomic bool stop;
};

static uint64_t do_scrambled(struct scrambled *s, unsigned op, const void *array, uint64_t count)
{
    const struct rules_caller caller = {
        .kind = RULES_SUPERVISOR, .paging = &s->paging, .copy_in = copy_in, .copy_out = copy_out};
    struct protect_command c = {
        .op = (uint16_t)op, .session = s->session, .arg = {(uintptr_t)array, count}};
    rules_change_begin(s->rules, -1);
    rules_execute(s->rules, 0, &c, &caller);
    rules_change_end(s->rules, -1);
    s->wrong += c.status != PROTECT_OK;
    return c.result;
}

static void scramble(struct scrambled *s)
{
    struct error err;
    struct protect_region r[MANY_PAGES];
    s->g = guest_new(8 * MIB, 1, NULL);
    s->rules = rules_new(s->g->map, NULL, NULL, NULL, &err);
    s->paging = paging_for(PAGING_4LEVEL, guest_table(s->g));
    s->table = guest_map(s->g, &s->paging, 0x40000000, 0x100000 | PTE_P | PTE_RW | PTE_US, 1);
    for (unsigned i = 0; i < MANY_PAGES; i++) {
        poke64(s->g, s->table + 8 * i, (0x100000 + i * PAGE_SIZE) | PTE_P | PTE_RW | PTE_US);
        r[i] = (struct protect_region){.base = 0x40000000 + (i * s->salt) % MANY_PAGES * PAGE_SIZE,
                                       .length = PAGE_SIZE};
    }
    s->session = do_scrambled(s, PROTECT_OP_BIND, NULL, 0);
    do_scrambled(s, PROTECT_OP_ADD_REGIONS, r, MANY_PAGES);
    struct protect_rule deny = rule(0, PROTECT_OWNER, PROTECT_READ, PROTECT_DENY);
    deny.count = MANY_PAGES;
    do_scrambled(s, PROTECT_OP_SET_RULES, &deny, 1);
}

/* Another page is mapped to another frame, `rounds` times. */
static void *follow_scrambled(void *opaque)
{
    enum { ROUNDS = 1000 };
    struct scrambled *s = opaque;
    const struct protect_region lowest = {.base = 0x3ffff000, .length = 1};
    for (unsigned n = 0; n < ROUNDS || (s->salt != 1 && !s->stop); n++) {
        uint64_t page = n % MANY_PAGES, frame = n / MANY_PAGES & 1 ? 0x100000 : 0x200000;
        uint64_t id = do_scrambled(s, PROTECT_OP_ADD_REGIONS, &lowest, 1); /* to be sorted again */
        poke64(s->g, s->table + 8 * page, (frame + page * PAGE_SIZE) | PTE_P | PTE_RW | PTE_US);
        rules_change_begin(s->rules, -1);
        rules_table_written(s->rules, s->table + 8 * page, 8);
        rules_change_end(s->rules, -1);
        s->wrong += !rules_touches(s->rules, &KERNEL, frame + page * PAGE_SIZE, 1, PROTECT_WRITE);
        do_scrambled(s, PROTECT_OP_REMOVE_REGIONS, (void *)(uintptr_t)id, 1);
    }
    return NULL;
}

START_TEST(two_machines_sort_at_once)
{
    struct scrambled one = {.salt = 1}, two = {.salt = 77};
    pthread_t thread;
    scramble(&one);
    scramble(&two);
    ck_assert_int_eq(pthread_create(&thread, NULL, follow_scrambled, &two), 0);
    follow_scrambled(&one);
    two.stop = true;
    pthread_join(thread, NULL);
    ck_assert_uint_eq(one.wrong, 0);
    ck_assert_uint_eq(two.wrong, 0);
    rules_free(one.rules);
    rules_free(two.rules);
    guest_free(one.g);
    guest_free(two.g);
}
END_TEST

/* Two roots of PAE paging in one page are two address spaces (SDM vol. 3, 4.4.1). */
START_TEST(pae_roots_in_one_page)
{
    struct rules_context_info info;
    start(PAGING_PAE, 8 * MIB);
    guest_map(g, &paging, 0x7000, 0x20000 | PTE_P | PTE_RW | PTE_US, 1);
    ck_assert_int_eq(give(1, RULES_USER, PROTECT_OP_BIND, 0, 0), PROTECT_OK);
    session = last.result;
    ck_assert_int_eq(give(1, RULES_USER, PROTECT_OP_SEAL, 0, 0), PROTECT_OK);
    paging.cr3 += 0x20;
    ck_assert_int_eq(give(1, RULES_USER, PROTECT_OP_SEAL, 0, 0), PROTECT_WRONG_CALLER);
    rules_context_info(rules, 1, &info);
    ck_assert_uint_ne(paging.cr3 & info.root_mask, info.root);
    finish();
}
END_TEST

/* ---- Seals, grants, reset -----------------------------------------------------------------------
 */

START_TEST(reset_zeroes_sealed_bytes_only)
{
    start(PAGING_NONE, 4 * MIB);
    bind_supervisor();
    deny_stores(add(0x10003, 5, 0));
    poke64(g, 0x10000, ~0ull);
    poke64(g, 0x10008, ~0ull);
    ck_assert_int_eq(give(0, RULES_SUPERVISOR, PROTECT_OP_SEAL, PROTECT_SEAL_REMOVE, 0),
                     PROTECT_OK);
    ck_assert_int_eq(give(0, RULES_SUPERVISOR, PROTECT_OP_UNBIND, 0, 0), PROTECT_SEALED);
    rules_reset(rules);
    ck_assert_uint_eq(peek64(g, 0x10000), 0x0000000000ffffff);
    ck_assert_uint_eq(peek64(g, 0x10008), ~0ull);
    ck_assert(!touches(0x10003, 1, PROTECT_WRITE));
    bind_supervisor();
    finish();
}
END_TEST

/* Each grant opens its subjects and nothing else. */
START_TEST(grants)
{
    static const uint32_t grant[PROTECT_SUBJECTS] = {
        [PROTECT_OTHER_USER] = PROTECT_GRANT_USERS, [PROTECT_KERNEL] = PROTECT_GRANT_KERNEL,
        [PROTECT_WALKER] = PROTECT_GRANT_KERNEL,    [PROTECT_EVENT] = PROTECT_GRANT_KERNEL,
        [PROTECT_DEVICE] = PROTECT_GRANT_DEVICES,   [PROTECT_HOST] = PROTECT_GRANT_HOST,
        [PROTECT_DEBUGGER] = PROTECT_GRANT_HOST};
    start(PAGING_4LEVEL, 8 * MIB);
    guest_map(g, &paging, 0x7000, 0x20000 | PTE_P | PTE_RW | PTE_US, 1);
    guest_map(g, &paging, 0x8000, 0x21000 | PTE_P | PTE_RW | PTE_US, 1);
    ck_assert_int_eq(give(1, RULES_USER, PROTECT_OP_BIND, 0, 0), PROTECT_OK);
    session = last.result;
    const struct protect_region r = {.base = 0x8000, .length = 8};
    ck_assert_int_eq(give(1, RULES_USER, PROTECT_OP_ADD_REGIONS, (uintptr_t)&r, 1), PROTECT_OK);
    for (uint32_t bit = 0; bit < 7; bit++) {
        ck_assert_int_eq(rules_grant(rules, 1, 1u << bit, false), PROTECT_OK);
        for (unsigned s = 0; s < PROTECT_SUBJECTS; s++) {
            const struct protect_rule denies = rule(0, s, 0, PROTECT_DENY);
            const struct protect_rule watches = rule(0, s, 0, PROTECT_ALLOW);
            bool granted = !grant[s] || grant[s] == 1u << bit;
            ck_assert_int_eq(give(1, RULES_USER, PROTECT_OP_SET_RULES, (uintptr_t)&denies, 1),
                             granted ? PROTECT_OK : PROTECT_NO_GRANT);
            ck_assert_int_eq(give(1, RULES_USER, PROTECT_OP_SET_RULES, (uintptr_t)&watches, 1),
                             PROTECT_OK);
        }
        ck_assert_int_eq(rules_grant(rules, 1, 1u << bit, true), PROTECT_OK);
    }
    ck_assert_int_eq(rules_grant(rules, 1, 1u << 7, false), PROTECT_BAD_ARGUMENT);
    finish();
}
END_TEST

/* ---- Tokens -------------------------------------------------------------------------------------
 */

/* A program that has bound a context and set a handler. */
static void start_with_handler(unsigned timeout_ms)
{
    struct protect_handler h = {.rip = 0x400000, .timeout_ms = timeout_ms};
    start(PAGING_4LEVEL, 8 * MIB);
    guest_map(g, &paging, 0x7000, 0x20000 | PTE_P | PTE_RW | PTE_US, 1);
    ck_assert_int_eq(give(1, RULES_USER, PROTECT_OP_BIND, 0, 0), PROTECT_OK);
    session = last.result;
    ck_assert_int_eq(give(1, RULES_USER, PROTECT_OP_SET_HANDLER, (uintptr_t)&h, 0), PROTECT_OK);
}

START_TEST(tokens_expire)
{
    struct rules_context_info info;
    uint64_t stack, tokens[PROTECT_MAX_LIVE];
    unsigned depth;
    start_with_handler(5);
    for (unsigned i = 0; i < PROTECT_MAX_LIVE; i++) {
        tokens[i] = rules_token_issue(rules, 1, malloc(1), &stack, &depth);
        ck_assert_uint_ne(tokens[i], 0);
        ck_assert_uint_eq(depth, i + 1);
    }
    ck_assert_uint_eq(rules_token_issue(rules, 1, NULL, &stack, &depth), 0);
    void *state = rules_token_redeem(rules, 1, tokens[3]);
    ck_assert_ptr_nonnull(state);
    free(state);
    ck_assert_ptr_null(rules_token_redeem(rules, 1, tokens[3]));
    ck_assert_ptr_null(rules_token_redeem(rules, 2, tokens[4]));
    ck_assert_ptr_null(rules_token_redeem(rules, 1, 0));
    clock_set_manual(manual, 4999999);
    rules_context_info(rules, 1, &info);
    ck_assert_uint_eq(info.upcall_depth, PROTECT_MAX_LIVE - 1);
    clock_set_manual(manual, 5000000);
    rules_context_info(rules, 1, &info);
    ck_assert_uint_eq(info.upcall_depth, 0);
    ck_assert_uint_eq(info.statistics.timeouts, PROTECT_MAX_LIVE - 1);
    ck_assert_uint_eq(info.event_head, PROTECT_MAX_LIVE - 1);
    ck_assert_ptr_null(rules_token_redeem(rules, 1, tokens[0]));
    finish();
}
END_TEST

/* ---- What a command may contain -----------------------------------------------------------------
 */

START_TEST(garbage_in_every_field)
{
    const struct protect_region good = {.base = 0x10000, .length = 8};
    struct protect_region regions[3];
    static const struct {
        struct protect_region r;
        enum protect_status status;
    } bad[] = {
        {{0x10000, 0, 0, 0, 0}, PROTECT_BAD_RANGE},
        {{~0ull, 2, 0, 0, 0}, PROTECT_BAD_RANGE},
        {{0x10000, ~0ull, 0, 0, 0}, PROTECT_BAD_RANGE},
        {{0x100000000, 8, 0, 0, 0}, PROTECT_BAD_RANGE},
        {{0x10000, 8, 4, 0, 0}, PROTECT_BAD_FLAGS},
        {{0x10000, 8, 0x80000000, 0, 0}, PROTECT_BAD_FLAGS},
        {{0x10000, 8, 0, 1, 0}, PROTECT_BAD_RESERVED},
        {{0x10000, 1ull << 40, PROTECT_PHYSICAL, 0, 0}, PROTECT_TOO_MANY},
        {{0x40000000, 8, PROTECT_PHYSICAL, 0, 0}, PROTECT_NOT_MEMORY},
        {{4 * MIB - 4, 8, PROTECT_PHYSICAL, 0, 0}, PROTECT_NOT_MEMORY},
    };
    uint64_t count, pages;
    struct protect_statistics total;
    start(PAGING_NONE, 4 * MIB);
    bind_supervisor();
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++)
        for (unsigned at = 0; at < 3; at++) {
            regions[0] = regions[1] = regions[2] = good;
            regions[at] = bad[i].r;
            ck_assert_int_eq(do_op(PROTECT_OP_ADD_REGIONS, regions, 3), bad[i].status);
            ck_assert_msg(bad[i].status == PROTECT_TOO_MANY || last.element == at, "row %u", i);
            rules_totals(rules, &count, &pages, &total);
            ck_assert_uint_eq(count, 0);
            ck_assert_uint_eq(pages, 0);
        }
    uint32_t id = add(0x10000, 8, 0);
    struct protect_rule r[2];
    const struct protect_rule fine = rule(id, PROTECT_OWNER, 0, PROTECT_DENY);
#define BAD_RULE(change, status_)                                                                  \
    do {                                                                                           \
        r[0] = r[1] = fine;                                                                        \
        change;                                                                                    \
        ck_assert_int_eq(do_op(PROTECT_OP_SET_RULES, r, 2), status_);                              \
        ck_assert_uint_eq(last.element, 1);                                                        \
        ck_assert(!touches(0x10000, 1, PROTECT_WRITE));                                            \
    } while (0)
    BAD_RULE(r[1].reserved = 1, PROTECT_BAD_RESERVED);
    BAD_RULE(r[1].notify = 0x40, PROTECT_BAD_NOTIFY);
    BAD_RULE(r[1].fault = 2, PROTECT_BAD_FAULT);
    BAD_RULE(r[1].marker = 6, PROTECT_BAD_FAULT);
    BAD_RULE(r[1].marker = 31, PROTECT_BAD_FAULT);
    BAD_RULE(r[1].region = id + 1, PROTECT_NO_REGION);
    BAD_RULE(r[1].count = 0, PROTECT_NO_REGION);
    BAD_RULE(r[1].count = 2, PROTECT_NO_REGION);
    BAD_RULE(r[1].count = UINT32_MAX, PROTECT_TOO_MANY);
    for (unsigned s = 0; s < PROTECT_SUBJECTS; s++) {
        BAD_RULE(r[1].allow[s] = 8, PROTECT_BAD_ACCESS);
        BAD_RULE(r[1].action[s] = PROTECT_ACTIONS, PROTECT_BAD_ACTION);
        if (s != PROTECT_OWNER)
            BAD_RULE(r[1].action[s] = PROTECT_UPCALL, PROTECT_BAD_ACTION);
    }
    ck_assert_int_eq(do_op(0, NULL, 0), PROTECT_BAD_OP);
    ck_assert_int_eq(do_op(PROTECT_OPS, NULL, 0), PROTECT_BAD_OP);
    ck_assert_int_eq(do_op(PROTECT_OP_ADD_REGIONS, regions, 0), PROTECT_BAD_ARGUMENT);
    ck_assert_int_eq(do_op(PROTECT_OP_ADD_REGIONS, regions, PROTECT_MAX_ELEMENTS + 1),
                     PROTECT_TOO_MANY);
    ck_assert_int_eq(do_op(PROTECT_OP_ADD_REGIONS, NULL, 1), PROTECT_NOT_MAPPED);
    ck_assert_int_eq(do_op(PROTECT_OP_UNBIND, regions, 0), PROTECT_BAD_RESERVED);
    session++;
    ck_assert_int_eq(do_op(PROTECT_OP_SEAL, NULL, 0), PROTECT_WRONG_SESSION);
    finish();
}
END_TEST

/* All regions together are bounded, mapped or not: what they cost is the host's. */
START_TEST(pages_of_all_regions_are_bounded)
{
    const struct protect_region big = {.base = 1ull << 40,
                                       .length = (PROTECT_MAX_PAGES - 2ull) << PAGE_SHIFT};
    struct protect_region many[64];
    start(PAGING_4LEVEL, 8 * MIB);
    bind_supervisor();
    for (unsigned i = 0; i < 64; i++)
        many[i] = big;
    ck_assert_int_eq(do_op(PROTECT_OP_ADD_REGIONS, many, 64), PROTECT_TOO_MANY);
    finish();
}
END_TEST

/* One region of each million stays, so no gap is ever long enough for the next million. */
START_TEST(ids_are_bounded)
{
    enum { MANY = PROTECT_MAX_ELEMENTS, LIMIT = 8 * PROTECT_MAX_REGIONS / MANY };
    struct protect_region *array = calloc(MANY, sizeof *array);
    unsigned rounds = 0;
    start(PAGING_NONE, MIB);
    bind_supervisor();
    for (unsigned i = 0; i < MANY; i++)
        array[i] = (struct protect_region){.base = 0x5000, .length = 1};
    while (rounds <= LIMIT && do_op(PROTECT_OP_ADD_REGIONS, array, MANY) == PROTECT_OK) {
        ck_assert_int_eq(
            give(0, RULES_SUPERVISOR, PROTECT_OP_REMOVE_REGIONS, last.result, MANY - 1),
            PROTECT_OK);
        rounds++;
    }
    ck_assert_uint_gt(rounds, 4);
    ck_assert_uint_le(rounds, LIMIT);
    ck_assert_int_eq(last.status, PROTECT_NO_MEMORY);
    /* Small ones find a place, and the end of the context gives everything back. */
    ck_assert_int_eq(do_op(PROTECT_OP_ADD_REGIONS, array, 5), PROTECT_OK);
    ck_assert_int_eq(do_op(PROTECT_OP_UNBIND, NULL, 0), PROTECT_OK);
    session = 0;
    bind_supervisor();
    ck_assert_int_eq(do_op(PROTECT_OP_ADD_REGIONS, array, MANY), PROTECT_OK);
    finish();
    free(array);
}
END_TEST

/* Bytes of one frame by the ten thousand, all removed again: not a square of it. */
START_TEST(many_regions_of_one_frame)
{
    enum { MANY = 200000 };
    struct protect_region *r = calloc(MANY, sizeof *r);
    start(PAGING_NONE, 4 * MIB);
    bind_supervisor();
    for (unsigned i = 0; i < MANY; i++)
        r[i] = (struct protect_region){.base = 0x10000 + i % 4096, .length = 1};
    ck_assert_int_eq(do_op(PROTECT_OP_ADD_REGIONS, r, MANY), PROTECT_OK);
    struct protect_rule all = rule(0, PROTECT_OWNER, 0, PROTECT_DENY);
    all.count = MANY;
    ck_assert_int_eq(do_op(PROTECT_OP_SET_RULES, &all, 1), PROTECT_OK);
    ck_assert(touches(0x10fff, 1, PROTECT_WRITE));
    ck_assert_int_eq(give(0, RULES_SUPERVISOR, PROTECT_OP_UNBIND, 0, 0), PROTECT_OK);
    ck_assert(!touches(0x10000, 4096, PROTECT_WRITE));
    free(r);
    finish();
}
END_TEST

START_TEST(a_million_pages_in_one_command)
{
    struct timespec from, to;
    const uint64_t pages = 1 << 20;
    start(PAGING_4LEVEL, 64 * MIB);
    /* 2048 tables that are one and the same; 512 frames. */
    guest_map(g, &paging, 1ull << 39, 0x100000 | PTE_P | PTE_RW | PTE_US, 1);
    uint64_t table = guest_entry(g, &paging, 1ull << 39, 1);
    for (unsigned i = 0; i < 512; i++)
        poke64(g, table + 8 * i, (0x100000 + i * PAGE_SIZE) | PTE_P | PTE_RW | PTE_US);
    for (uint64_t i = 0; i < 2048; i++)
        poke64(g, guest_entry(g, &paging, (1ull << 39) + (i << 21), 2),
               table | PTE_P | PTE_RW | PTE_US);
    bind_supervisor();
    clock_gettime(CLOCK_MONOTONIC, &from);
    uint32_t id = add(1ull << 39, pages << PAGE_SHIFT, 0);
    deny_stores(id);
    clock_gettime(CLOCK_MONOTONIC, &to);
    printf("a million pages: %.1f ms\n",
           (double)(to.tv_sec - from.tv_sec) * 1e3 + (double)(to.tv_nsec - from.tv_nsec) / 1e6);
    struct protect_query q = {.region = id};
    ck_assert_int_eq(do_op(PROTECT_OP_QUERY, &q, 0), PROTECT_OK);
    ck_assert_uint_eq(q.resolved, pages);
    ck_assert(touches(0x100000 + 511 * PAGE_SIZE + 4095, 1, PROTECT_WRITE));
    finish();
}
END_TEST

/* A time-out is an event and a number, whoever looks first. */
START_TEST(whoever_looks_notices_a_timeout)
{
    struct protect_statistics statistics = {0};
    struct protect_event e;
    uint64_t stack;
    unsigned depth;
    start_with_handler(5);
    for (unsigned way = 1; way <= 3; way++) {
        clock_set_manual(manual, way * 10000000ull);
        uint64_t token = rules_token_issue(rules, 1, malloc(1), &stack, &depth);
        ck_assert_uint_ne(token, 0);
        clock_set_manual(manual, way * 10000000ull + 5000000);
        if (way == 1)
            ck_assert(rules_set_event_tail(rules, 1, way));
        if (way == 2)
            ck_assert_int_eq(give(1, RULES_USER, PROTECT_OP_STATISTICS, (uintptr_t)&statistics, 0),
                             PROTECT_OK);
        rules_read_event(rules, 1, way - 1, &e);
        ck_assert_uint_eq(e.type, PROTECT_EVENT_TIMEOUT);
        ck_assert_uint_eq(e.value[0], token);
    }
    ck_assert_uint_eq(statistics.timeouts, 2);
    finish();
}
END_TEST

/* ---- Questions ----------------------------------------------------------------------------------
 */

static bool no_answer(void *opaque, unsigned context, const struct protect_event *event,
                      unsigned timeout_ms, enum protect_verdict *verdict, uint64_t *value)
{
    (void)opaque, (void)context, (void)event, (void)timeout_ms, (void)verdict, (void)value;
    return false;
}

static bool can_ask(void *opaque, unsigned context)
{
    (void)opaque;
    return context < 2;
}

/* Whoever prepares a question may find, meanwhile, that the rules have been changed. */
struct preparing {
    unsigned calls;
    bool possible, changes;
    uint8_t region, action; /* to what */
};
static bool prepare(void *opaque, const struct rules_verdict *verdict)
{
    struct preparing *p = opaque;
    struct protect_event e;
    p->calls++;
    ck_assert_int_eq(verdict->action, PROTECT_ASK_HOST);
    ck_assert_uint_eq(verdict->context, 0);
    rules_read_event(rules, 0, 0, &e);
    ck_assert_uint_eq(e.sequence, 0); /* nobody has been told */
    if (p->changes) {
        const struct protect_rule r = rule(p->region, PROTECT_OWNER, 0, p->action);
        ck_assert_int_eq(do_op(PROTECT_OP_SET_RULES, &r, 1), PROTECT_OK);
    }
    return p->possible;
}

START_TEST(questions_are_prepared)
{
    static const struct {
        bool possible, changes;
        uint8_t action, verdict; /* changed to; what comes of it */
    } cases[] = {
        {true, false, 0, PROTECT_ASK_HOST},
        {false, false, 0, PROTECT_DENY},
        {true, true, PROTECT_DENY, PROTECT_DENY},
        {true, true, PROTECT_ALLOW, PROTECT_ALLOW},
        {true, true, PROTECT_ASK_HOST, PROTECT_ASK_HOST},
        {false, true, PROTECT_ALLOW, PROTECT_ALLOW},
    };
    static const struct rules_hooks hooks = {.can_ask = can_ask, .ask = no_answer};
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct rules_verdict v;
        struct protect_event e;
        start(PAGING_NONE, 4 * MIB);
        bind_supervisor();
        rules_set_hooks(rules, &hooks);
        struct preparing p = {.possible = cases[i].possible,
                              .changes = cases[i].changes,
                              .region = (uint8_t)add(0x10000, 8, 0),
                              .action = cases[i].action};
        const struct protect_rule r = rule(p.region, PROTECT_OWNER, 0, PROTECT_ASK_HOST);
        ck_assert_int_eq(do_op(PROTECT_OP_SET_RULES, &r, 1), PROTECT_OK);
        const struct rules_check check = {.access = &KERNEL,
                                          .kind = PROTECT_WRITE,
                                          .pieces = 1,
                                          .piece = {{0x10000, 4}},
                                          .prepare = prepare,
                                          .opaque = &p};
        rules_judge(rules, &check, &v);
        ck_assert_uint_eq(p.calls, 1);
        ck_assert_int_eq(v.action, cases[i].verdict);
        rules_read_event(rules, 0, 0, &e);
        ck_assert_uint_eq(e.sequence, 1);
        ck_assert_uint_eq(e.action, cases[i].verdict);
        rules_read_event(rules, 0, 1, &e);
        ck_assert_uint_eq(e.sequence, 0);
        finish();
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("rules");
    TCase *c = tcase_create("rules");
    tcase_set_timeout(c, 120);
    tcase_add_test(c, regions_of_every_alignment);
    tcase_add_test(c, lists_of_a_frame);
    tcase_add_test(c, attributes_follow_a_changed_rule);
    tcase_add_test(c, the_lowest_region_that_holds_an_address);
    tcase_add_loop_test(c, follows_tables_of_every_mode, PAGING_32, PAGING_4LEVEL + 1);
    tcase_add_test(c, two_machines_sort_at_once);
    tcase_add_test(c, pae_roots_in_one_page);
    tcase_add_test(c, reset_zeroes_sealed_bytes_only);
    tcase_add_test(c, grants);
    tcase_add_test(c, tokens_expire);
    tcase_add_test(c, whoever_looks_notices_a_timeout);
    tcase_add_test(c, questions_are_prepared);
    tcase_add_test(c, garbage_in_every_field);
    tcase_add_test(c, pages_of_all_regions_are_bounded);
    tcase_add_test(c, ids_are_bounded);
    tcase_add_test(c, many_regions_of_one_frame);
    tcase_add_test(c, a_million_pages_in_one_command);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
