/*
 * protect.c - a bare-metal guest that times the protection device (PROTECT targets of
 * docs/bench/protect.md). Prints "NAME NANOSECONDS" lines; tests/bench/protect.py makes a table of
 * them. The guest's TSC counts nanoseconds.
 */
#include "bailey/protect.h"
#include "context.h"

#define DOOR(n) ((volatile struct protect_door *)PROTECT_DOOR_ADDRESS(n))
#define RAM     0x10000000ull /* free, above the image; with 2-MiB pages up to 4 GiB */

enum { MILLION = 1000000, ROUNDS = 20000, RULES = 10000 };

static uint8_t page[4096] __attribute__((aligned(4096)));
static uint64_t work[4096] __attribute__((aligned(4096)));

static uint32_t command(unsigned door, unsigned op, uint64_t session, uint64_t a0, uint64_t a1)
{
    volatile struct protect_command *c = &DOOR(door)->command[0];
    *(volatile uint64_t *)c = op;
    c->session = session;
    c->arg[0] = a0;
    c->arg[1] = a1;
    c->arg[2] = c->arg[3] = 0;
    DOOR(door)->doorbell = 0;
    if (c->status != PROTECT_OK) {
        print("command %u: status %u, element %u\n", op, c->status, c->element);
        guest_exit(1);
    }
    return (uint32_t)c->result;
}

static uint64_t bind(unsigned door)
{
    command(door, PROTECT_OP_BIND, 0, 0, 0);
    return DOOR(door)->command[0].result;
}

static void say(const char *name, uint64_t ns, uint64_t per)
{
    print("%s %lu\n", name, (unsigned long)(ns / per));
}

/* ---- Pages that the workload does not touch ------------------------------------------------------ */

static uint64_t workload(void)
{
    uint64_t begin = rdtsc();
    for (unsigned round = 0; round < 200; round++)
        for (unsigned i = 0; i < 4096; i++)
            ((volatile uint64_t *)work)[i] += i ^ round;
    return rdtsc() - begin;
}

static uint64_t best_of_5(uint64_t (*fn)(void))
{
    uint64_t best = ~0ull;
    for (unsigned i = 0; i < 5; i++) {
        uint64_t t = fn();
        best = t < best ? t : best;
    }
    return best;
}

static struct protect_region *const array = (struct protect_region *)RAM;

static uint64_t fill(unsigned count, uint64_t base)
{
    for (unsigned i = 0; i < count; i++)
        array[i] = (struct protect_region){.base = base + i * 4096ull, .length = 4096};
    return (uint64_t)array;
}

static struct protect_rule rule_for(unsigned first, unsigned count, uint8_t allow, uint8_t action)
{
    struct protect_rule r = PROTECT_RULE_DEFAULT(first, count, allow, action);
    r.notify = PROTECT_NOTIFY_QUIET;
    return r;
}

static void unrelated_rules(void)
{
    workload();
    uint64_t before = best_of_5(workload);
    uint64_t s = bind(0);
    unsigned first = command(0, PROTECT_OP_ADD_REGIONS, s, fill(RULES, RAM + (64 << 20)), RULES);
    struct protect_rule r = rule_for(first, RULES, PROTECT_READ, PROTECT_DENY);
    command(0, PROTECT_OP_SET_RULES, s, (word)&r, 1);
    uint64_t with = best_of_5(workload);
    command(0, PROTECT_OP_UNBIND, s, 0, 0);
    say("workload_no_rules", before, 1000);
    say("workload_10000_rules", with, 1000);
}

/* ---- A million ----------------------------------------------------------------------------------- */

static uint64_t logged(void)
{
    uint64_t begin = rdtsc();
    for (unsigned i = 0; i < ROUNDS; i++)
        *(volatile uint8_t *)(page + 5) = 1;
    return (rdtsc() - begin) / ROUNDS;
}

static void guard_page(uint64_t s, uint8_t action)
{
    static struct protect_region region;
    region = (struct protect_region){.base = (word)page, .length = sizeof page};
    struct protect_rule r = rule_for(0, 1, PROTECT_READ | PROTECT_EXEC, action);
    r.region = command(0, PROTECT_OP_ADD_REGIONS, s, (word)&region, 1);
    command(0, PROTECT_OP_SET_RULES, s, (word)&r, 1);
}

static void a_million(void)
{
    uint64_t s = bind(0);
    fill(MILLION, 0);
    for (unsigned i = 0; i < MILLION; i++) /* around the image, the array and the hole */
        array[i].base = (i < 500000 ? 0x14000000ull : 0x18000000ull) + i * 2048ull;
    uint64_t t = rdtsc();
    unsigned first = command(0, PROTECT_OP_ADD_REGIONS, s, (word)array, MILLION);
    say("add_1000000_regions", rdtsc() - t, 1000);
    struct protect_rule r = rule_for(first, MILLION, PROTECT_READ, PROTECT_DENY);
    t = rdtsc();
    command(0, PROTECT_OP_SET_RULES, s, (word)&r, 1);
    say("set_1000000_rules", rdtsc() - t, 1000);
    guard_page(s, PROTECT_ALLOW);
    say("logged_store_1000001_regions", best_of_5(logged), 1);
    t = rdtsc();
    command(0, PROTECT_OP_UNBIND, s, 0, 0);
    say("unbind_1000000_regions", rdtsc() - t, 1000);
}

/* Physical memory may be named whether it is mapped or not: a region of all RAM that is free. */
static void one_large_region(void)
{
    static struct protect_region region;
    uint64_t s = bind(0);
    region = (struct protect_region){
        .base = 0x100000000ull, .length = MILLION * 4096ull, .flags = PROTECT_PHYSICAL};
    uint64_t t = rdtsc();
    struct protect_rule r =
        rule_for(command(0, PROTECT_OP_ADD_REGIONS, s, (word)&region, 1), 1, 1, PROTECT_DENY);
    uint64_t added = rdtsc();
    command(0, PROTECT_OP_SET_RULES, s, (word)&r, 1);
    say("add_region_1000000_pages", added - t, 1000);
    say("set_rule_1000000_pages", rdtsc() - added, 1000);
    command(0, PROTECT_OP_UNBIND, s, 0, 0);
}

/* ---- One access ---------------------------------------------------------------------------------- */

static uint64_t refused(void)
{
    uint64_t begin = rdtsc();
    for (volatile unsigned i = 0; i < ROUNDS; i++)
        CATCH(*(volatile uint8_t *)(page + 5) = 1);
    return (rdtsc() - begin) / ROUNDS;
}

static uint64_t undefined(void)
{
    uint64_t begin = rdtsc();
    for (volatile unsigned i = 0; i < ROUNDS; i++)
        CATCH(asm volatile("ud2"));
    return (rdtsc() - begin) / ROUNDS;
}

static void one_access(void)
{
    say("plain_store", best_of_5(logged), 1);
    say("plain_exception", best_of_5(undefined), 1);
    static const struct {
        const char *name;
        uint8_t action;
        uint64_t (*fn)(void);
    } actions[] = {
        {"logged_store", PROTECT_ALLOW, logged},
        {"skipped_store", PROTECT_SKIP, logged},
        {"refused_store", PROTECT_DENY, refused},
    };
    for (unsigned i = 0; i < sizeof actions / sizeof actions[0]; i++) {
        uint64_t s = bind(0);
        guard_page(s, actions[i].action);
        say(actions[i].name, best_of_5(actions[i].fn), 1);
        command(0, PROTECT_OP_UNBIND, s, 0, 0);
    }
}

/* ---- Upcalls ------------------------------------------------------------------------------------- */

static struct protect_handler handler;

static __attribute__((used)) void handle(struct protect_frame *f)
{
    DOOR(1)->resume = PROTECT_RESUME(f->token, PROTECT_LET);
    guest_exit(1);
}

static word user(word x)
{
    static struct protect_region region;
    uint64_t s = bind(1);
    handler = (struct protect_handler){.rip = (word)handle};
    command(1, PROTECT_OP_SET_HANDLER, s, (word)&handler, 0);
    region = (struct protect_region){.base = (word)page, .length = sizeof page};
    struct protect_rule r = rule_for(0, 1, PROTECT_READ, PROTECT_UPCALL);
    r.region = command(1, PROTECT_OP_ADD_REGIONS, s, (word)&region, 1);
    command(1, PROTECT_OP_SET_RULES, s, (word)&r, 1);
    word t = best_of_5(logged);
    command(1, PROTECT_OP_UNBIND, s, 0, 0);
    return t;
}

TEST(times)
{
    unrelated_rules();
    one_access();
    say("upcall_and_resume", call_user(user, 0), 1);
    a_million();
    one_large_region();
}

const struct test guest_tests[] = {T(times), {0, 0}};
