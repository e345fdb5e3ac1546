/*
 * rules_guest.h - protection rules on the memory of guest.h: one machine, and commands whose arrays
 * are the test's own memory. One .c file per test program includes it.
 */
#ifndef TESTS_MMU_RULES_GUEST_H
#define TESTS_MMU_RULES_GUEST_H

#include "guest.h"
#include "internal/clock.h"
#include "internal/rules.h"

static struct guest *g;
static struct rules *rules;
static struct clock *manual;
static struct paging paging;
static uint64_t session;

static inline bool copy_in(void *opaque, uint64_t address, void *to, size_t len)
{
    (void)opaque;
    if (address < PAGE_SIZE)
        return false;
    memcpy(to, (const void *)(uintptr_t)address, len);
    return true;
}
static inline bool copy_out(void *opaque, uint64_t address, const void *from, size_t len)
{
    (void)opaque;
    if (address < PAGE_SIZE)
        return false;
    memcpy((void *)(uintptr_t)address, from, len);
    return true;
}

static struct protect_command last;
/* `session` is what the commands carry. */
static inline enum protect_status give(unsigned context, enum rules_kind kind, unsigned op,
                                       uint64_t a0, uint64_t a1)
{
    struct rules_caller caller = {.kind = kind,
                                  .door_gva = 0x7000,
                                  .paging = &paging,
                                  .copy_in = copy_in,
                                  .copy_out = copy_out};
    last = (struct protect_command){.op = (uint16_t)op, .session = session, .arg = {a0, a1}};
    rules_change_begin(rules, -1);
    rules_execute(rules, context, &last, &caller);
    rules_change_end(rules, -1);
    return last.status;
}
static inline enum protect_status do_op(unsigned op, const void *array, uint64_t count)
{
    return give(0, RULES_SUPERVISOR, op, (uintptr_t)array, count);
}

static inline void start(enum paging_mode mode, uint64_t ram)
{
    struct error err;
    g = guest_new(ram, 1, NULL);
    manual = clock_new();
    clock_set_manual(manual, 0);
    rules = rules_new(g->map, NULL, manual, NULL, &err);
    paging = paging_for(mode, mode == PAGING_NONE ? 0 : guest_table(g));
    session = 0;
}
static inline void bind_supervisor(void)
{
    ck_assert_int_eq(do_op(PROTECT_OP_BIND, NULL, 0), PROTECT_OK);
    session = last.result;
}
static inline void finish(void)
{
    rules_free(rules);
    clock_free(manual);
    guest_free(g);
}

static inline uint32_t add(uint64_t base, uint64_t length, uint32_t flags)
{
    const struct protect_region r = {
        .base = base, .length = length, .flags = flags, .cookie = base};
    ck_assert_int_eq(do_op(PROTECT_OP_ADD_REGIONS, &r, 1), PROTECT_OK);
    return (uint32_t)last.result;
}
static inline struct protect_rule rule(uint32_t region, unsigned subject, uint8_t allow,
                                       uint8_t action)
{
    struct protect_rule r = {.region = region, .count = 1};
    memset(r.allow, PROTECT_ALL, sizeof r.allow);
    memset(r.action, PROTECT_ALLOW, sizeof r.action);
    r.allow[subject] = allow;
    r.action[subject] = action;
    return r;
}

#endif
