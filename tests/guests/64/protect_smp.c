/*
 * protect_smp.c - protection rules and several processors: what was allowed once, arrays that
 * change while they are read, stores against the doorbell.
 *
 * guest options: -serial null -smp 2
 * guest full options: -serial null -smp 2 -append thorough
 */
#include "context.h"
#include "door.h"

static uint8_t page[4096] __attribute__((aligned(4096)));
static uint64_t session;

/* Rounds that wait for the other processor are slow where the host has fewer. */
static unsigned scale(void)
{
    const uint32_t *info = (const uint32_t *)(word)start_info; /* PVH: cmdline_paddr at 24 */
    const char *text = (const char *)(word)info[6];
    for (; text && *text; text++)
        if (!memcmp(text, "thorough", 8))
            return 20;
    return 1;
}

static void bind(void)
{
    CHECK_EQ(door_command(0, PROTECT_OP_BIND, 0, 0, 0), PROTECT_OK);
    session = door_result(0);
}
static void unbind(void)
{
    CHECK_EQ(door_command(0, PROTECT_OP_UNBIND, session, 0, 0), PROTECT_OK);
}
static struct protect_rule rule_of(uint32_t id, uint8_t allow, uint8_t action)
{
    struct protect_rule r = door_rule(id);
    r.allow[PROTECT_OWNER] = allow;
    r.action[PROTECT_OWNER] = action;
    return r;
}
static uint64_t total(size_t offset)
{
    static uint8_t statistics[sizeof(struct protect_statistics)];
    CHECK_EQ(door_command(0, PROTECT_OP_STATISTICS, session, (word)statistics, 0), PROTECT_OK);
    return *(uint64_t *)(statistics + offset);
}

/* ---- The other processor ------------------------------------------------------------------------
 */

enum job { IDLE, STORE_ONCE, HAMMER, REWRITE, EXECUTE, QUIT };
static volatile enum job job;
static volatile enum job doing; /* what the other one has seen of it */
static volatile unsigned rounds, finished;
static volatile uint64_t hammered;
static struct protect_rule shared_rules[64];

/* One block: a locked access that has to wait for this processor, and counting behind it. */
static uint8_t code[4096] __attribute__((aligned(4096)));
static uint8_t crossed[128] __attribute__((aligned(64)));
static volatile unsigned executing, forbidden;
extern const char lock_and_count[], lock_and_count_end[];
asm("lock_and_count: lock addl $1, 61(%rdi)\n"
    "incq (%rsi)\n incq (%rsi)\n incq (%rsi)\n incq (%rsi)\n"
    "incq (%rsi)\n incq (%rsi)\n incq (%rsi)\n incq (%rsi)\n"
    "cmpl $0, (%rdx)\n jne lock_and_count\n ret\n"
    "lock_and_count_end:");

/* Stores that are refused come here: the instruction is stepped over. */
static volatile unsigned refused;
static bool step_over(struct frame *f)
{
    if (!(f->error & 1 << PROTECT_DEFAULT_MARKER))
        return false;
    if (f->error & 1 << 4) { /* a fetch: wait until it is allowed */
        forbidden = 1;
        while (forbidden)
            asm volatile("pause");
        return true;
    }
    __atomic_fetch_add(&refused, 1, __ATOMIC_SEQ_CST);
    f->rip += 3; /* movq %rax, (%rbx) */
    return true;
}
static void store_rax(volatile void *at, uint64_t value)
{
    asm volatile("movq %%rax, (%%rbx)" ::"a"(value), "b"(at) : "memory");
}

static void other_cpu(unsigned apic_id)
{
    unsigned seen = 0;
    for (;;) {
        enum job now = job; /* once: it may change at any time */
        doing = now;
        switch (now) {
        case IDLE:
            asm volatile("pause");
            break;
        case STORE_ONCE:
            if (rounds == seen)
                break;
            seen = rounds;
            store_rax(page, 2);
            finished = seen;
            break;
        case HAMMER:
            store_rax(page, ++hammered);
            break;
        case REWRITE: /* all elements say the same, at any time */
            hammered++;
            for (unsigned i = 0; i < 64; i++)
                shared_rules[i].value = hammered;
            break;
        case EXECUTE: {
            word at = (word)crossed, count = (word)&hammered, on = (word)&executing;
            asm volatile("call *%3" : "+D"(at), "+S"(count), "+d"(on) : "r"(code) : "memory");
            break;
        }
        default:
            return;
        }
    }
}
static void other(void)
{
    static bool up;
    trap_handlers[14] = step_over;
    if (!up)
        CHECK(start_cpu(1, other_cpu));
    up = true;
}

/* Until the other processor is at its next store. */
static void wait_for_a_store(void)
{
    uint64_t before = hammered;
    while (hammered == before)
        asm volatile("pause");
}

TEST(allowed_once_is_once_for_all)
{
    other();
    bind();
    uint32_t id = door_add(0, session, (word)page, 8, 0, 0);
    job = STORE_ONCE;
    unsigned wrong = 0;
    for (unsigned i = 1; i <= 20 * scale(); i++) {
        struct protect_rule r = rule_of(id, PROTECT_READ, PROTECT_ALLOW_ONCE);
        r.notify = PROTECT_NOTIFY_QUIET;
        if (door_set(0, session, &r) != PROTECT_OK)
            wrong++;
        refused = 0;
        rounds = i;
        store_rax(page, 1);
        while (finished != i)
            asm volatile("pause");
        wrong += refused != 1;
    }
    CHECK_EQ(wrong, 0);
    job = IDLE;
    unbind();
}

/* When the doorbell's store has retired, no store of any processor gets through. */
TEST(no_store_behind_the_doorbell)
{
    other();
    bind();
    uint32_t id = door_add(0, session, (word)page, 8, 0, 0);
    struct protect_rule deny = rule_of(id, PROTECT_READ, PROTECT_DENY);
    struct protect_rule allow = rule_of(id, PROTECT_ALL, PROTECT_DENY);
    deny.notify = PROTECT_NOTIFY_QUIET;
    unsigned wrong = 0;
    job = HAMMER;
    for (unsigned i = 0; i < 20 * scale(); i++) {
        if (door_set(0, session, &deny) != PROTECT_OK)
            wrong++;
        uint64_t now = *(volatile uint64_t *)page;
        for (unsigned n = 0; n < 50; n++)
            wrong += *(volatile uint64_t *)page != now;
        if (door_set(0, session, &allow) != PROTECT_OK)
            wrong++;
        wait_for_a_store();
    }
    CHECK_EQ(wrong, 0);
    job = IDLE;
    unbind();
}

/* Nor does a processor go on in code that is forbidden, wherever it has been stopped meanwhile. */
TEST(no_instruction_behind_the_doorbell)
{
    other();
    bind();
    memcpy(code, lock_and_count, (size_t)(lock_and_count_end - lock_and_count));
    uint32_t id = door_add(0, session, (word)code, sizeof code, 0, 0);
    struct protect_rule deny = rule_of(id, PROTECT_READ | PROTECT_WRITE, PROTECT_DENY);
    struct protect_rule allow = rule_of(id, PROTECT_ALL, PROTECT_DENY);
    deny.notify = PROTECT_NOTIFY_QUIET;
    unsigned wrong = 0;
    executing = 1;
    job = EXECUTE;
    for (unsigned i = 0; i < 60 * scale(); i++) {
        wait_for_a_store();
        if (door_set(0, session, &deny) != PROTECT_OK)
            wrong++;
        uint64_t now = hammered;
        while (!forbidden)
            asm volatile("pause");
        wrong += hammered != now;
        if (door_set(0, session, &allow) != PROTECT_OK)
            wrong++;
        forbidden = 0;
    }
    CHECK_EQ(wrong, 0);
    job = IDLE;
    executing = 0;
    unbind();
}

/* The same by removing and adding the region: views come and go. */
TEST(no_store_into_a_fresh_region)
{
    other();
    bind();
    unsigned wrong = 0;
    job = HAMMER;
    for (unsigned i = 0; i < 20 * scale(); i++) {
        wait_for_a_store();
        uint32_t id = door_add(0, session, (word)page, 8, 0, 0);
        struct protect_rule deny = rule_of(id, PROTECT_READ, PROTECT_SKIP);
        deny.notify = PROTECT_NOTIFY_QUIET;
        if (door_set(0, session, &deny) != PROTECT_OK)
            wrong++;
        uint64_t now = *(volatile uint64_t *)page;
        for (unsigned n = 0; n < 50; n++)
            wrong += *(volatile uint64_t *)page != now;
        if (door_remove(0, session, id) != PROTECT_OK)
            wrong++;
    }
    CHECK_EQ(wrong, 0);
    job = IDLE;
    unbind();
}

/* The array is read once: what is applied is one of its states, not a mixture per use. */
TEST(arrays_that_change_meanwhile)
{
    other();
    bind();
    uint32_t first = 0;
    for (unsigned i = 0; i < 64; i++) {
        uint32_t id = door_add(0, session, (word)page + 16 * i, 8, 0, 0);
        if (i == 0)
            first = id;
        shared_rules[i] = rule_of(id, PROTECT_WRITE, PROTECT_SUBSTITUTE);
        shared_rules[i].notify = PROTECT_NOTIFY_QUIET;
    }
    CHECK_EQ(first, 0);
    job = REWRITE;
    unsigned wrong = 0;
    for (unsigned i = 0; i < 10 * scale(); i++) {
        if (door_command(0, PROTECT_OP_SET_RULES, session, (word)shared_rules, 64) != PROTECT_OK)
            wrong++;
        for (unsigned n = 0; n < 64; n++) {
            static struct protect_query q;
            q = (struct protect_query){.region = n};
            if (door_command(0, PROTECT_OP_QUERY, session, (word)&q, 0) != PROTECT_OK)
                wrong++;
            /* What the rule is said to be is what it does. */
            wrong += *(volatile uint64_t *)(page + 16 * n) != q.rule.value;
        }
    }
    CHECK_EQ(wrong, 0);
    job = IDLE;
    unbind();
}

/* Every refused store is counted, whoever makes it. */
TEST(counters_of_two_processors)
{
    other();
    bind();
    uint32_t id = door_add(0, session, (word)page, 8, 0, 0);
    struct protect_rule deny = rule_of(id, PROTECT_READ, PROTECT_DENY);
    CHECK_EQ(door_set(0, session, &deny), PROTECT_OK);
    refused = 0;
    job = HAMMER;
    for (unsigned i = 0; i < 500; i++)
        store_rax(page, i);
    job = IDLE;
    while (doing != IDLE) /* the other one finishes what it has begun */
        asm volatile("pause");
    CHECK_EQ(total(offsetof(struct protect_statistics, denied)), refused);
    CHECK_EQ(DOOR(0)->event_head + DOOR(0)->event_lost, refused);
    CHECK(refused >= 500);
    unbind();
    job = QUIT;
}

const struct test guest_tests[] = {T(allowed_once_is_once_for_all),
                                   T(no_store_behind_the_doorbell),
                                   T(no_instruction_behind_the_doorbell),
                                   T(no_store_into_a_fresh_region),
                                   T(arrays_that_change_meanwhile),
                                   T(counters_of_two_processors),
                                   {0, 0}};
