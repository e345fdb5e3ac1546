/*
 * protect.c - the protection device from bare metal: binding, denying, every kind of event, user
 * contexts and upcalls (include/bailey/protect.h).
 *
 * guest options: -serial null
 */
#include "bailey/protect.h"
#include "context.h"

#define DOOR(n) ((volatile struct protect_door *)PROTECT_DOOR_ADDRESS(n))
static volatile struct protect_admin *const admin =
    (volatile struct protect_admin *)PROTECT_ADMIN_ADDRESS;

static uint8_t page[4096] __attribute__((aligned(4096)));
static uint8_t other[4096] __attribute__((aligned(4096)));

/* Stores of 64 bits, as the device wants them. */
static uint32_t command(unsigned door, unsigned op, uint64_t session, uint64_t a0, uint64_t a1)
{
    volatile struct protect_command *c = &DOOR(door)->command[0];
    *(volatile uint64_t *)c = op;
    c->session = session;
    c->arg[0] = a0;
    c->arg[1] = a1;
    c->arg[2] = c->arg[3] = 0;
    DOOR(door)->doorbell = 0;
    return c->status;
}

static uint64_t bind(unsigned door)
{
    CHECK_EQ(command(door, PROTECT_OP_BIND, 0, 0, 0), PROTECT_OK);
    return DOOR(door)->command[0].result;
}

static struct protect_rule rule;
static struct protect_region region;

static uint32_t add(unsigned door, uint64_t session, const void *at, uint64_t length)
{
    region = (struct protect_region){.base = (word)at, .length = length, .cookie = 0x1234};
    CHECK_EQ(command(door, PROTECT_OP_ADD_REGIONS, session, (word)&region, 1), PROTECT_OK);
    return (uint32_t)DOOR(door)->command[0].result;
}

static uint32_t set(unsigned door, uint64_t session, const struct protect_rule *r)
{
    rule = *r;
    return command(door, PROTECT_OP_SET_RULES, session, (word)&rule, 1);
}

static struct protect_event event_of(unsigned door, uint64_t sequence)
{
    struct protect_event e;
    volatile uint64_t *from = (volatile uint64_t *)&DOOR(door)->event[(sequence - 1) % 32];
    for (unsigned i = 0; i < sizeof e / 8; i++)
        ((uint64_t *)&e)[i] = from[i];
    return e;
}

static struct protect_rule only(uint8_t allow, uint8_t action)
{
    struct protect_rule r = PROTECT_RULE_DEFAULT(0, 1, allow, action);
    return r;
}

TEST(identity)
{
    CHECK_EQ(admin->id, PROTECT_ID);
    CHECK_EQ(admin->doors, PROTECT_DOORS);
    CHECK_EQ(DOOR(3)->id, PROTECT_ID);
    CHECK_EQ(DOOR(3)->index, 3);
    CHECK_EQ(DOOR(3)->state, PROTECT_DOOR_FREE);
}

TEST(a_store_is_refused)
{
    uint64_t s = bind(0);
    page[0x10] = 7;
    struct protect_rule r = only(PROTECT_READ | PROTECT_EXEC, PROTECT_DENY);
    r.region = add(0, s, page + 0x10, 8);
    CHECK_EQ(set(0, s, &r), PROTECT_OK);
    CHECK_EQ(*(volatile uint8_t *)(page + 0x10), 7);
    struct trap t = CATCH(asm volatile(LABEL(store_here) "movb $9, %0" : "=m"(page[0x12])));
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.error, 1 | 2 | 1 << PROTECT_DEFAULT_MARKER);
    CHECK_EQ(t.rip, SYMBOL(store_here));
    CHECK_EQ(t.cr2, (word)page + 0x12);
    CHECK_EQ(page[0x12], 0);
    CHECK_EQ(DOOR(0)->event_head, 1);
    struct protect_event e = event_of(0, 1);
    CHECK_EQ(e.sequence, 1);
    CHECK_EQ(e.type, PROTECT_EVENT_ACCESS);
    CHECK_EQ(e.access, PROTECT_WRITE);
    CHECK_EQ(e.subject, PROTECT_OWNER);
    CHECK_EQ(e.action, PROTECT_DENY);
    CHECK_EQ(e.length, 1);
    CHECK_EQ(e.gva, (word)page + 0x12);
    CHECK_EQ(e.home, (word)page + 0x12);
    CHECK_EQ(e.gpa, (word)page + 0x12);
    CHECK_EQ(e.rip, SYMBOL(store_here));
    CHECK_EQ(e.value[0], 9);
    CHECK_EQ(e.cookie, 0x1234);
    page[0x18] = 1; /* the rest of the page is as it was */
    page[0x0f] = 1;
    CHECK_EQ(page[0x18], 1);
    CHECK_EQ(DOOR(0)->event_head, 1);
    CHECK_EQ(command(0, PROTECT_OP_UNBIND, s, 0, 0), PROTECT_OK);
    page[0x12] = 9;
    CHECK_EQ(page[0x12], 9);
    CHECK_EQ(DOOR(0)->state, PROTECT_DOOR_FREE);
}

TEST(one_event_for_a_read_modify_write)
{
    uint64_t s = bind(0);
    struct protect_rule r = only(0, PROTECT_ALLOW);
    r.region = add(0, s, page, 4096);
    CHECK_EQ(set(0, s, &r), PROTECT_OK);
    asm volatile("addl $1, %0" : "+m"(*(uint32_t *)(page + 0x20)));
    CHECK_EQ(DOOR(0)->event_head, 1);
    CHECK_EQ(event_of(0, 1).access, PROTECT_READ | PROTECT_WRITE);
    asm volatile("lock addl $1, %0" : "+m"(*(uint32_t *)(page + 0x20)));
    CHECK_EQ(DOOR(0)->event_head, 2);
    CHECK_EQ(event_of(0, 2).access, PROTECT_READ | PROTECT_WRITE);
    CHECK_EQ(event_of(0, 2).value[0] & 0xffffffff, 2);
    CHECK_EQ(command(0, PROTECT_OP_UNBIND, s, 0, 0), PROTECT_OK);
    CHECK_EQ(*(uint32_t *)(page + 0x20), 2);
}

TEST(substituted_and_skipped)
{
    uint64_t s = bind(1);
    *(uint64_t *)(page + 0x40) = 0x1111111111111111;
    struct protect_rule r = only(0, PROTECT_SUBSTITUTE);
    r.region = add(1, s, page + 0x42, 2);
    r.value = 0x8877665544332211;
    CHECK_EQ(set(1, s, &r), PROTECT_OK);
    CHECK_EQ(*(volatile uint64_t *)(page + 0x40), 0x1111111144331111);
    *(volatile uint64_t *)(page + 0x40) = 0x2222222222222222;
    CHECK_EQ(DOOR(1)->event_head, 2);
    r.action[PROTECT_OWNER] = PROTECT_SKIP;
    CHECK_EQ(set(1, s, &r), PROTECT_OK);
    CHECK_EQ(*(volatile uint64_t *)(page + 0x40), 0x2222222200002222);
    CHECK_EQ(command(1, PROTECT_OP_UNBIND, s, 0, 0), PROTECT_OK);
    CHECK_EQ(*(volatile uint64_t *)(page + 0x40), 0x2222222211112222);
}

static __attribute__((noipa, section(".text.victim"), aligned(4096))) word victim(word x)
{
    return x + 1;
}
static __attribute__((noipa, section(".text.victim"))) word neighbour(word x)
{
    return x + 2;
}

TEST(a_fetch_is_refused)
{
    CHECK_EQ(victim(1), 2);
    uint64_t s = bind(0);
    struct protect_rule r = only(PROTECT_READ | PROTECT_WRITE, PROTECT_DENY);
    r.region = add(0, s, (void *)victim, 4);
    CHECK_EQ(set(0, s, &r), PROTECT_OK);
    struct trap t = CATCH(victim(1));
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.error, 1 | 16 | 1 << PROTECT_DEFAULT_MARKER);
    CHECK_EQ(t.rip, (word)victim);
    CHECK_EQ(neighbour(1), 3);
    CHECK_EQ(DOOR(0)->event_head, 1);
    CHECK_EQ(event_of(0, 1).access, PROTECT_EXEC);
    CHECK_EQ(command(0, PROTECT_OP_UNBIND, s, 0, 0), PROTECT_OK);
    CHECK_EQ(victim(1), 2);
}

/* ---- A user context -------------------------------------------------------------------------- */

static uint64_t user_session;
static struct protect_handler handler;
static unsigned calls;
static struct protect_frame seen;

static __attribute__((used)) void handle(struct protect_frame *f)
{
    calls++;
    seen = *f;
    unsigned verdict = f->cookie & 0xff;
    if (verdict == PROTECT_SET) {
        f->set = 1 << 16 | 1;
        f->gpr[0] = 0x77;
        f->rip += f->instruction_length;
    }
    f->substitute = 0xabcdabcdabcdabcd;
    DOOR(2)->resume = PROTECT_RESUME(f->token, verdict);
    guest_exit(1); /* it must not come back */
}

static word user_bind(word verdict)
{
    if (command(2, PROTECT_OP_BIND, 0, 0, 0) != PROTECT_OK)
        return 1;
    user_session = DOOR(2)->command[0].result;
    handler = (struct protect_handler){.rip = (word)handle};
    if (command(2, PROTECT_OP_SET_HANDLER, user_session, (word)&handler, 0) != PROTECT_OK)
        return 2;
    region = (struct protect_region){.base = (word)other, .length = 64, .cookie = verdict};
    if (command(2, PROTECT_OP_ADD_REGIONS, user_session, (word)&region, 1) != PROTECT_OK)
        return 3;
    struct protect_rule r = only(0, PROTECT_UPCALL);
    r.allow[PROTECT_KERNEL] = 7;
    r.region = (uint32_t)DOOR(2)->command[0].result;
    rule = r;
    return command(2, PROTECT_OP_SET_RULES, user_session, (word)&rule, 1) == PROTECT_OK ? 0 : 4;
}
static word user_unbind(word x)
{
    return command(2, PROTECT_OP_UNBIND, user_session, 0, 0);
}
static word user_load(word x)
{
    word v = x;
    asm volatile(LABEL(user_load_here) "mov %1, %%rax; mov %%rax, %0"
                 : "=r"(v)
                 : "m"(*(uint64_t *)(other + 8))
                 : "rax");
    return v;
}
static word user_store(word x)
{
    *(volatile uint64_t *)(other + 8) = x;
    return 5;
}

static void upcall_with(unsigned verdict)
{
    calls = 0;
    *(uint64_t *)(other + 8) = 0x5555;
    CHECK_EQ(call_user(user_bind, verdict), 0);
    CHECK_EQ(DOOR(2)->state, PROTECT_DOOR_USER);
}

TEST(upcall_let)
{
    upcall_with(PROTECT_LET);
    CHECK_EQ(call_user(user_load, 0), 0x5555);
    CHECK_EQ(calls, 1);
    CHECK_EQ(seen.rip, SYMBOL(user_load_here));
    CHECK_EQ(seen.value[0], 0x5555);
    CHECK_EQ(seen.access, PROTECT_READ);
    CHECK_EQ(seen.gva, (word)other + 8);
    CHECK_EQ(call_user(user_store, 0x6666), 5);
    CHECK_EQ(calls, 2);
    CHECK_EQ(seen.access, PROTECT_WRITE);
    CHECK_EQ(seen.value[0], 0x6666);
    CHECK_EQ(*(uint64_t *)(other + 8), 0x6666);
    CHECK_EQ(call_user(user_unbind, 0), PROTECT_OK);
}

TEST(upcall_drop_and_give)
{
    upcall_with(PROTECT_DROP);
    CHECK_EQ(call_user(user_store, 0x6666), 5);
    CHECK_EQ(calls, 1);
    CHECK_EQ(*(uint64_t *)(other + 8), 0x5555);
    CHECK_EQ(call_user(user_unbind, 0), PROTECT_OK);
    upcall_with(PROTECT_GIVE);
    CHECK_EQ(call_user(user_load, 0), 0xabcdabcdabcdabcd);
    CHECK_EQ(calls, 1);
    CHECK_EQ(call_user(user_unbind, 0), PROTECT_OK);
}

TEST(upcall_refuse)
{
    upcall_with(PROTECT_REFUSE);
    struct trap t = CATCH(call_user(user_load, 0));
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.error, 1 | 4 | 1 << PROTECT_DEFAULT_MARKER);
    CHECK_EQ(t.rip, SYMBOL(user_load_here));
    CHECK_EQ(t.cr2, (word)other + 8);
    CHECK_EQ(calls, 1);
    CHECK_EQ(call_user(user_unbind, 0), PROTECT_OK);
}

TEST(upcall_set)
{
    upcall_with(PROTECT_SET);
    CHECK_EQ(call_user(user_load, 0), 0x77);
    CHECK_EQ(calls, 1);
    CHECK_EQ(call_user(user_unbind, 0), PROTECT_OK);
}

TEST(others_at_the_door)
{
    upcall_with(PROTECT_LET);
    CHECK_EQ(command(2, PROTECT_OP_UNBIND, user_session, 0, 0), PROTECT_WRONG_CALLER); /* CPL 0 */
    CHECK_EQ(DOOR(2)->state, PROTECT_DOOR_USER);
    CHECK_EQ(call_user(user_unbind, 0), PROTECT_OK);
}

const struct test guest_tests[] = {T(identity),
                                   T(a_store_is_refused),
                                   T(one_event_for_a_read_modify_write),
                                   T(substituted_and_skipped),
                                   T(a_fetch_is_refused),
                                   T(upcall_let),
                                   T(upcall_drop_and_give),
                                   T(upcall_refuse),
                                   T(upcall_set),
                                   T(others_at_the_door),
                                   {0, 0}};
