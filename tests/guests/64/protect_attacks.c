/*
 * protect_attacks.c - ways around the protection rules, each a test that finds it closed
 * (include/bailey/protect.h; docs/protection.md).
 *
 * guest options: -serial null
 */
#include "context.h"
#include "door.h"
#include "paging.h"
#include "pci.h"

static uint8_t page[4096] __attribute__((aligned(4096)));
static uint8_t other[4096] __attribute__((aligned(4096)));
static uint8_t pages[4 * 4096] __attribute__((aligned(4096)));
static uint64_t session;
enum { REFUSED_CODE = 1 | 1 << PROTECT_DEFAULT_MARKER };

/* ---- Helpers ------------------------------------------------------------------------------------
 */

static void bind(void)
{
    CHECK_EQ(door_command(0, PROTECT_OP_BIND, 0, 0, 0), PROTECT_OK);
    session = door_result(0);
}
static void unbind(void)
{
    CHECK_EQ(door_command(0, PROTECT_OP_UNBIND, session, 0, 0), PROTECT_OK);
}
static uint64_t head(void)
{
    return DOOR(0)->event_head;
}
static struct protect_event newest(void)
{
    return door_event(0, head());
}

static struct protect_rule rule_for(uint32_t region, unsigned subject, uint8_t allow,
                                    uint8_t action)
{
    struct protect_rule r = door_rule(region);
    r.allow[subject] = allow;
    r.action[subject] = action;
    return r;
}
/* Adds a region with a rule for the owner. */
static uint32_t protect(const volatile void *at, uint64_t length, uint32_t flags, uint8_t allow,
                        uint8_t action)
{
    uint32_t id = door_add(0, session, (word)at, length, flags, 7);
    CHECK(id != ~0u);
    struct protect_rule r = rule_for(id, PROTECT_OWNER, allow, action);
    CHECK_EQ(door_set(0, session, &r), PROTECT_OK);
    return id;
}

ALONE struct trap store(volatile void *p, uint64_t value)
{
    return CATCH(asm volatile(LABEL(attack_store) "movq %1, (%0)" ::"r"(p), "r"(value) : "memory"));
}
ALONE struct trap load(volatile void *p, uint64_t *value)
{
    *value = 0;
    return CATCH({
        uint64_t v;
        asm volatile("movq (%1), %0" : "=r"(v) : "r"(p) : "memory");
        *(volatile uint64_t *)value = v;
    });
}
#define CHECK_REFUSED(trap_, code_)                                                                \
    do {                                                                                           \
        struct trap refused_ = (trap_);                                                            \
        CHECK_EQ(refused_.vector, VECTOR_PF);                                                      \
        CHECK_EQ(refused_.error, REFUSED_CODE | (code_));                                          \
    } while (0)
#define CHECK_PASSES(trap_) CHECK_EQ((trap_).vector, NO_TRAP)

/* ---- Other ways to the same bytes ---------------------------------------------------------------
 */

TEST(alias_of_the_frame)
{
    uint8_t *alias = map_page(WINDOW + 0x5000, phys(page), 1, PG_ALL);
    *(volatile uint64_t *)(alias + 0x40) = 1; /* the view has it as writable */
    bind();
    uint32_t id = protect(page + 0x40, 8, 0, PROTECT_READ, PROTECT_DENY);
    struct trap t = store(alias + 0x44, ~0ull);
    CHECK_REFUSED(t, PF_W);
    CHECK_EQ(t.cr2, (word)alias + 0x44);
    CHECK_EQ(head(), 1);
    CHECK_EQ(newest().gva, (word)alias + 0x44);
    CHECK_EQ(newest().home, (word)page + 0x44);
    CHECK_EQ(newest().region, id);
    CHECK_EQ(*(volatile uint64_t *)(page + 0x40), 1);
    /* An alias made only now. */
    uint8_t *later = map_page(WINDOW + 0x9000, phys(page), 1, PG_ALL);
    CHECK_REFUSED(store(later + 0x40, 5), PF_W);
    unbind();
    CHECK_PASSES(store(alias + 0x44, 0));
    paging_reset();
}

/* PKRU and EFER.NXE as they were at BIND decide nothing: accesses are made with what is set then.
 */
static void bind_and_change(uint32_t pkru, uint64_t efer)
{
    asm volatile("wrpkru" ::"a"(pkru), "c"(0), "d"(0) : "memory");
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~EFER_NXE);
    bind();
    asm volatile("wrpkru" ::"a"(0), "c"(0), "d"(0) : "memory");
    wrmsr(MSR_EFER, efer);
}
TEST(a_key_that_was_closed_at_bind)
{
    enum { AD1 = 1 << 2 };
    uint64_t efer = rdmsr(MSR_EFER);
    REQUIRE(HAS_PKU());
    write_cr4(read_cr4() | CR4_PKE);
    bind_and_change(AD1, efer | EFER_NXE);
    uint8_t *va = map_page(WINDOW, phys(page), 1, PG_ALL | PG_NX | 1ull << 59);
    protect(va, 8, 0, PROTECT_READ, PROTECT_DENY);
    CHECK_REFUSED(store(va, 1), PF_W);
    unbind();
    wrmsr(MSR_EFER, efer);
    write_cr4(read_cr4() & ~CR4_PKE);
    paging_reset();
}

TEST(remap_is_followed)
{
    uint8_t *va = map_page(WINDOW, phys(page), 1, PG_ALL);
    bind();
    uint32_t id = protect(va + 0x10, 8, PROTECT_FOLLOW, PROTECT_READ, PROTECT_DENY);
    CHECK_REFUSED(store(page + 0x10, 1), PF_W);
    map_page(WINDOW, phys(other), 1, PG_ALL);
    CHECK_EQ(head(), 2);
    CHECK_EQ(newest().type, PROTECT_EVENT_MOVED);
    CHECK_EQ(newest().region, id);
    CHECK_EQ(newest().gva, (word)va);
    CHECK_REFUSED(store(va + 0x10, 1), PF_W);
    CHECK_REFUSED(store(other + 0x10, 1), PF_W);
    CHECK_PASSES(store(page + 0x10, 1));
    /* away, and back */
    *entry_of(WINDOW, 1) = 0;
    CHECK_EQ(newest().type, PROTECT_EVENT_UNMAPPED);
    CHECK_PASSES(store(other + 0x10, 1));
    map_page(WINDOW, phys(page), 1, PG_ALL);
    CHECK_EQ(newest().type, PROTECT_EVENT_MOVED);
    CHECK_REFUSED(store(page + 0x10, 1), PF_W);
    unbind();
    paging_reset();
}

/* The instruction that changes the entry may be any. */
TEST(remap_by_every_kind_of_store)
{
    uint8_t *va = map_page(WINDOW, phys(page), 1, PG_ALL);
    uint64_t *entry = entry_of(WINDOW, 1), to[2] = {phys(other) | PG_ALL, phys(page) | PG_ALL};
    const uint64_t *from = to;
    uint64_t *into = entry, count = 1, expected;
    bind();
    protect(va, 8, PROTECT_FOLLOW, PROTECT_READ, PROTECT_DENY);
    asm volatile("rep movsq" : "+S"(from), "+D"(into), "+c"(count)::"memory");
    CHECK_REFUSED(store(other, 1), PF_W);
    CHECK_PASSES(store(page, 1));
    asm volatile("xchgq %0, %1" : "+r"(to[1]), "+m"(*entry)::"memory");
    CHECK_REFUSED(store(page, 1), PF_W);
    CHECK_PASSES(store(other, 1));
    expected = *entry;
    uint64_t desired = to[0];
    asm volatile("lock cmpxchgq %2, %1" : "+a"(expected), "+m"(*entry) : "r"(desired) : "memory");
    CHECK_REFUSED(store(other, 1), PF_W);
    asm volatile("lock xorq %1, %0" : "+m"(*entry) : "r"(phys(page) ^ phys(other)) : "memory");
    CHECK_REFUSED(store(page, 1), PF_W);
    CHECK_PASSES(store(other, 1));
    /* a byte of the entry */
    ((volatile uint8_t *)entry)[1] = (uint8_t)((phys(other) | PG_ALL) >> 8);
    ((volatile uint8_t *)entry)[2] = (uint8_t)((phys(other) | PG_ALL) >> 16);
    CHECK_REFUSED(store(other, 1), PF_W);
    CHECK_PASSES(store(page, 1));
    unbind();
    paging_reset();
}

/* The device stores, too: the answer to a query, with bytes of the asker's choosing. */
TEST(remap_by_an_answer)
{
    enum { PTE = 5 }; /* where `cookie` comes to lie when the query begins at entry 1 */
    _Static_assert(offsetof(struct protect_query, cookie) == (PTE - 1) * 8, "ABI");
    uint8_t *va = map_page(WINDOW + PTE * PAGE, phys(page), 1, PG_ALL);
    uint64_t *table = entry_of(WINDOW, 1);
    bind();
    protect(va, 8, PROTECT_FOLLOW, PROTECT_READ, PROTECT_DENY);
    CHECK_EQ(door_command(1, PROTECT_OP_BIND, 0, 0, 0), PROTECT_OK);
    uint64_t asker = door_result(1);
    CHECK_EQ(door_add(1, asker, (word)pages, 8, 0, phys(other) | PG_ALL), 0);
    CHECK_EQ(door_command(1, PROTECT_OP_QUERY, asker, (word)&table[1], 0), PROTECT_OK);
    CHECK_EQ(table[PTE], phys(other) | PG_ALL);
    CHECK_EQ(head(), 1);
    CHECK_EQ(newest().type, PROTECT_EVENT_MOVED);
    CHECK_REFUSED(store(other, 1), PF_W);
    CHECK_PASSES(store(page, 1));
    CHECK_EQ(door_command(1, PROTECT_OP_UNBIND, asker, 0, 0), PROTECT_OK);
    unbind();
    paging_reset();
}

TEST(remap_by_an_upper_level)
{
    uint8_t *va = map_page(WINDOW, phys(page), 1, PG_ALL);
    static uint64_t table[512] __attribute__((aligned(4096)));
    memset(table, 0, sizeof table);
    table[0] = phys(other) | PG_ALL;
    bind();
    protect(va, 8, PROTECT_FOLLOW, PROTECT_READ, PROTECT_DENY);
    uint64_t *entry = entry_of(WINDOW, 2), before = *entry;
    *entry = phys(table) | PG_ALL;
    CHECK_REFUSED(store(other, 1), PF_W);
    CHECK_PASSES(store(page, 1));
    table[0] = phys(page) | PG_ALL; /* the new table is watched, too */
    CHECK_REFUSED(store(page, 1), PF_W);
    uint64_t events = head();
    *(uint64_t *)(before & ~0xfffull) = phys(other) | PG_ALL; /* and the old one no more */
    CHECK_EQ(head(), events);
    *entry = 0;
    CHECK_PASSES(store(page, 1));
    unbind();
    paging_reset();
}

TEST(remap_of_a_pinned_page)
{
    uint8_t *va = map_page(WINDOW, phys(page), 1, PG_ALL);
    bind();
    protect(va, 8, PROTECT_PIN, PROTECT_READ, PROTECT_DENY);
    map_page(WINDOW, phys(other), 1, PG_ALL);
    CHECK_EQ(head(), 1);
    CHECK_EQ(newest().type, PROTECT_EVENT_PINNED);
    CHECK_REFUSED(store(page, 1), PF_W);
    CHECK_PASSES(store(other, 1));
    unbind();
    paging_reset();
}

/* ---- Page tables themselves ---------------------------------------------------------------------
 */

TEST(rules_on_page_tables)
{
    volatile uint8_t *va = map_page(WINDOW, phys(page), 1, PG_ALL);
    uint64_t *entry = entry_of(WINDOW, 1);
    bind();
    uint32_t id = door_add(0, session, (word)entry, 8, 0, 1);
    struct protect_rule r = rule_for(id, PROTECT_WALKER, 0, PROTECT_ALLOW);
    r.allow[PROTECT_OWNER] = PROTECT_READ;
    r.action[PROTECT_OWNER] = PROTECT_DENY;
    CHECK_EQ(door_set(0, session, &r), PROTECT_OK);
    CHECK_REFUSED(store(entry, 0), PF_W);
    uint64_t before = head();
    invlpg((void *)va);
    *va = 1; /* sets A and D */
    CHECK(head() > before);
    bool dirtied = false;
    for (uint64_t n = before + 1; n <= head(); n++) {
        struct protect_event e = door_event(0, n);
        CHECK_EQ(e.subject, PROTECT_WALKER);
        CHECK_EQ(e.home, (word)entry);
        CHECK_EQ(e.length, 8);
        dirtied |= e.access == (PROTECT_READ | PROTECT_WRITE);
    }
    CHECK(dirtied);
    CHECK_EQ(*entry & (PG_A | PG_D), PG_A | PG_D);
    /* A walk that may not read its table does not get through. */
    r.action[PROTECT_WALKER] = PROTECT_DENY;
    CHECK_EQ(door_set(0, session, &r), PROTECT_OK);
    invlpg((void *)va);
    struct trap t = store(va, 2);
    CHECK_EQ(t.vector, VECTOR_PF);
    CHECK(t.error & 1 << PROTECT_DEFAULT_MARKER);
    unbind();
    CHECK_PASSES(store(va, 2));
    paging_reset();
}

/* ---- Strangers at the door ----------------------------------------------------------------------
 */

static struct protect_handler handler;
static uint64_t user_session;
static unsigned calls, verdict;
static uint64_t last_token, scribble;
static struct protect_frame seen;
static unsigned depth_wanted, deepest;
static uint8_t secret[4096] __attribute__((aligned(4096)));

static __attribute__((used)) void handle(struct protect_frame *f)
{
    calls++;
    seen = *f;
    last_token = f->token;
    if (f->depth > deepest)
        deepest = f->depth;
    if (scribble) {
        for (unsigned i = 0; i < 16; i++)
            f->gpr[i] = 0xbad0bad0;
        f->rip = 0x1000;
        f->rflags = ~0ull;
    }
    if (f->depth < depth_wanted)
        asm volatile(LABEL(nested_load) "movq secret+8, %%rax" ::: "rax", "memory");
    DOOR(2)->resume = PROTECT_RESUME(f->token, verdict);
    guest_exit(1); /* it must not come back */
}
static word user_bind(word action)
{
    if (door_command(2, PROTECT_OP_BIND, 0, 0, 0) != PROTECT_OK)
        return 1;
    user_session = door_result(2);
    handler = (struct protect_handler){.rip = (word)handle, .timeout_ms = 60000};
    if (door_command(2, PROTECT_OP_SET_HANDLER, user_session, (word)&handler, 0) != PROTECT_OK)
        return 2;
    struct protect_rule r = rule_for(door_add(2, user_session, (word)secret, 64, 0, 3),
                                     PROTECT_OWNER, 0, (uint8_t)action);
    return door_set(2, user_session, &r) == PROTECT_OK ? 0 : 3;
}
static word user_unbind(word x)
{
    return door_command(2, PROTECT_OP_UNBIND, user_session, 0, 0);
}
static word user_load(word x)
{
    word v;
    asm volatile("movq secret+8, %0" : "=r"(v)::"memory");
    return v;
}
static word user_resume(word value)
{
    DOOR(2)->resume = value;
    return DOOR(2)->resume_status;
}
static word user_state(word x)
{
    return DOOR(2)->state;
}

static uint64_t second_pml4[512] __attribute__((aligned(4096)));
TEST(another_address_space_at_the_door)
{
    CHECK_EQ(call_user(user_bind, PROTECT_DENY), 0);
    memcpy(second_pml4, boot_pml4, 4096);
    word first = read_cr3();
    write_cr3((word)second_pml4);
    CHECK_EQ(call_user(user_unbind, 0), PROTECT_WRONG_CALLER);
    CHECK_EQ(call_user(user_resume, 0x1234), 0);
    CHECK_EQ(call_user(user_state, 0), PROTECT_DOOR_USER);
    CHECK_PASSES(CATCH(call_user(user_load, 0))); /* the rule is about its owner's code */
    write_cr3(first);
    CHECK_EQ(door_command(2, PROTECT_OP_UNBIND, user_session, 0, 0), PROTECT_WRONG_CALLER);
    struct trap t = CATCH(call_user(user_load, 0));
    CHECK_REFUSED(t, PF_U);
    CHECK_EQ(call_user(user_unbind, 0), PROTECT_OK);
}

/* When the door's page goes, so does the context: its root may become another program's. */
TEST(the_door_unmapped_ends_the_context)
{
    volatile uint64_t *pd = &boot_pd[PROTECT_DOOR_ADDRESS(2) >> 21];
    uint64_t before = *pd;
    CHECK_EQ(call_user(user_bind, PROTECT_DENY), 0);
    *pd = 0;
    *pd = before;
    CHECK_EQ(DOOR(2)->state, PROTECT_DOOR_FREE);
    CHECK_PASSES(CATCH(call_user(user_load, 0)));
}

/* Sealed bytes that the map does not show when the context ends are zeroed all the same. */
static word user_seal(word at)
{
    if (user_bind(PROTECT_DENY) || door_add(2, user_session, at, 8, 0, 3) == ~0u)
        return 1;
    return door_command(2, PROTECT_OP_SEAL, user_session, PROTECT_SEAL_REMOVE, 0);
}
TEST(sealed_bytes_behind_the_map)
{
    enum { HOST_BRIDGE = 0, PAM1 = 0x5a, CLOSED = 0, OPEN = 3, AT = 0xc0000 };
    volatile uint64_t *shadow = (volatile uint64_t *)(word)AT;
    volatile uint64_t *pd = &boot_pd[PROTECT_DOOR_ADDRESS(2) >> 21];
    uint64_t before = *pd;
    pci_write8(HOST_BRIDGE, PAM1, OPEN);
    shadow[0] = shadow[1] = 0x5ec2e7;
    CHECK_EQ(call_user(user_seal, AT), PROTECT_OK);
    pci_write8(HOST_BRIDGE, PAM1, CLOSED);
    *pd = 0;
    *pd = before;
    CHECK_EQ(DOOR(2)->state, PROTECT_DOOR_FREE);
    pci_write8(HOST_BRIDGE, PAM1, OPEN);
    CHECK_EQ(shadow[0], 0);
    CHECK_EQ(shadow[1], 0x5ec2e7);
    pci_write8(HOST_BRIDGE, PAM1, CLOSED);
}

/* Registers of the door by instructions that read, modify and write. */
static word user_exchange_resume(word value)
{
    asm volatile("xchgq %0, %1" : "+r"(value), "+m"(DOOR(2)->resume)::"memory");
    return DOOR(2)->resume_status;
}
TEST(locked_instructions_at_the_door)
{
    uint64_t doorbell = 3;
    bind();
    volatile struct protect_command *c = &DOOR(0)->command[3];
    door_put(c, PROTECT_OP_SEAL);
    door_put(&c->session, session);
    asm volatile("xchgq %0, %1" : "+r"(doorbell), "+m"(DOOR(0)->doorbell)::"memory");
    CHECK_EQ(c->status, PROTECT_OK);
    door_put(&c->session, session + 1);
    asm volatile("movl $3, %%eax; lock cmpxchgl %1, %0"
                 : "+m"(*(volatile uint32_t *)&DOOR(0)->doorbell)
                 : "r"(3)
                 : "rax", "memory");
    asm volatile("lock addq $3, %0" : "+m"(DOOR(0)->doorbell)::"memory");
    CHECK(c->status == PROTECT_OK || c->status == PROTECT_WRONG_SESSION);
    asm volatile("lock orq $-1, %0" : "+m"(DOOR(0)->event_head)::"memory");
    asm volatile("lock incq %0" : "+m"(DOOR(0)->event_tail)::"memory"); /* beyond the head: no */
    CHECK_EQ(DOOR(0)->event_head, 0);
    CHECK_EQ(DOOR(0)->event_tail, 0);
    asm volatile("lock cmpxchg16b (%0)" ::"r"(&DOOR(0)->command[5]), "a"(0), "b"(1), "c"(2), "d"(0)
                 : "memory");
    CHECK_EQ(DOOR(0)->state, PROTECT_DOOR_SUPERVISOR);
    unbind();
    CHECK_EQ(call_user(user_bind, PROTECT_DENY), 0);
    CHECK_EQ(call_user(user_exchange_resume, PROTECT_RESUME(5, PROTECT_LET)), PROTECT_BAD_TOKEN);
    CHECK_EQ(call_user(user_unbind, 0), PROTECT_OK);
}

/* ---- Tokens -------------------------------------------------------------------------------------
 */

TEST(forged_tokens)
{
    CHECK_EQ(call_user(user_bind, PROTECT_UPCALL), 0);
    verdict = PROTECT_LET;
    calls = 0;
    CHECK_EQ(call_user(user_resume, PROTECT_RESUME(0, PROTECT_LET)), PROTECT_BAD_TOKEN);
    CHECK_EQ(call_user(user_resume, PROTECT_RESUME(12345, PROTECT_LET)), PROTECT_BAD_TOKEN);
    CHECK_EQ(call_user(user_resume, 99), PROTECT_BAD_VERDICT);
    CHECK_PASSES(CATCH(call_user(user_load, 0)));
    CHECK_EQ(calls, 1);
    /* used up */
    CHECK_EQ(call_user(user_resume, PROTECT_RESUME(last_token, PROTECT_LET)), PROTECT_BAD_TOKEN);
    CHECK_EQ(call_user(user_unbind, 0), PROTECT_OK);
}

static word abandon(word x)
{
    /* the handler jumps away and never resumes */
    asm volatile("int $0xf0" ::"a"(77));
    return 0;
}
static word user_bind_short(word x)
{
    word status = user_bind(PROTECT_UPCALL);
    handler.rip = (word)abandon;
    handler.timeout_ms = 1;
    return status ? status
                  : door_command(2, PROTECT_OP_SET_HANDLER, user_session, (word)&handler, 0);
}
static word user_head(word x)
{
    return DOOR(2)->event_head;
}
static word user_depth(word x)
{
    return DOOR(2)->upcall_depth;
}
static struct protect_event user_newest_;
static word user_newest(word x)
{
    user_newest_ = door_event(2, DOOR(2)->event_head);
    return 0;
}

TEST(a_stale_token_times_out)
{
    CHECK_EQ(call_user(user_bind_short, 0), 0);
    CHECK_EQ(call_user(user_load, 0), 77);
    /* One millisecond of the guest's time; as long as it takes, then the slot is free again. */
    while (call_user(user_depth, 0))
        ;
    CHECK_EQ(call_user(user_head, 0), 2);
    call_user(user_newest, 0);
    CHECK_EQ(user_newest_.type, PROTECT_EVENT_TIMEOUT);
    CHECK(user_newest_.value[0] != 0);
    CHECK_EQ(call_user(user_resume, PROTECT_RESUME(user_newest_.value[0], PROTECT_LET)),
             PROTECT_BAD_TOKEN);
    CHECK_EQ(call_user(user_unbind, 0), PROTECT_OK);
}

TEST(a_forged_frame_changes_nothing)
{
    CHECK_EQ(call_user(user_bind, PROTECT_UPCALL), 0);
    verdict = PROTECT_LET;
    scribble = 1;
    secret[8] = 0x5a;
    CHECK_EQ(call_user(user_load, 0) & 0xff, 0x5a);
    scribble = 0;
    CHECK_EQ(call_user(user_unbind, 0), PROTECT_OK);
}

static unsigned denied_in_handler;
static bool skip_nested(struct frame *f)
{
    if (f->rip != SYMBOL(nested_load))
        return false;
    denied_in_handler++;
    f->rip += 8;
    return true;
}
TEST(handler_recursion_ends_in_a_refusal)
{
    CHECK_EQ(call_user(user_bind, PROTECT_UPCALL), 0);
    verdict = PROTECT_LET;
    depth_wanted = 1000;
    calls = deepest = denied_in_handler = 0;
    trap_handlers[VECTOR_PF] = skip_nested;
    CHECK_PASSES(CATCH(call_user(user_load, 0)));
    trap_handlers[VECTOR_PF] = 0;
    depth_wanted = 0;
    CHECK_EQ(deepest, PROTECT_MAX_LIVE);
    CHECK_EQ(calls, PROTECT_MAX_LIVE);
    CHECK_EQ(denied_in_handler, 1);
    CHECK_EQ(call_user(user_unbind, 0), PROTECT_OK);
}

/* ---- Deferred -----------------------------------------------------------------------------------
 */

static word user_defer(word x)
{
    word status = user_bind(PROTECT_DENY);
    struct protect_rule r = rule_for(0, PROTECT_KERNEL, 0, PROTECT_DEFERRED);
    return status ? status : door_set(2, user_session, &r);
}
static word user_nothing(word x)
{
    return x + 1;
}
TEST(deferred_until_the_owner_runs)
{
    CHECK_EQ(call_user(user_defer, 0), PROTECT_OK);
    calls = 0;
    verdict = PROTECT_RETRY;
    *(volatile uint8_t *)&secret[8] = 9; /* the kernel's: completes */
    CHECK_EQ(*(volatile uint8_t *)&secret[8], 9);
    CHECK_EQ(calls, 0);
    CHECK_EQ(call_user(user_nothing, 4), 5);
    CHECK_EQ(calls, 2);
    CHECK_EQ(seen.deferred, 1);
    CHECK_EQ(seen.subject, PROTECT_KERNEL);
    CHECK_EQ(seen.access, PROTECT_READ);
    CHECK_EQ(seen.home, (word)secret + 8);
    CHECK_EQ(call_user(user_unbind, 0), PROTECT_OK);
}

/* ---- Several contexts ---------------------------------------------------------------------------
 */

/* What one context's handler lets through is still another context's to judge. */
TEST(an_answer_binds_only_its_own_context)
{
    CHECK_EQ(call_user(user_bind, PROTECT_UPCALL), 0);
    bind();
    uint32_t id = door_add(0, session, (word)secret + 8, 4, 0, 1);
    struct protect_rule r = rule_for(id, PROTECT_OTHER_USER, 0, PROTECT_SUBSTITUTE);
    r.value = 0x1122334455667788;
    CHECK_EQ(door_set(0, session, &r), PROTECT_OK);
    *(volatile uint64_t *)(secret + 8) = 0xaaaaaaaabbbbbbbb;
    verdict = PROTECT_LET;
    calls = 0;
    CHECK_EQ(call_user(user_load, 0), 0xaaaaaaaa55667788);
    CHECK_EQ(calls, 1);
    CHECK_EQ(head(), 1); /* told once, with the action that won first */
    CHECK_EQ(newest().action, PROTECT_UPCALL);
    CHECK_EQ(call_user(user_head, 0), 1);
    r.action[PROTECT_OTHER_USER] = PROTECT_DENY;
    CHECK_EQ(door_set(0, session, &r), PROTECT_OK);
    struct trap t = CATCH(call_user(user_load, 0));
    CHECK_REFUSED(t, PF_U);
    CHECK_EQ(calls, 1);
    unbind();
    CHECK_EQ(call_user(user_unbind, 0), PROTECT_OK);
}

/* ---- Code that forbids itself -------------------------------------------------------------------
 */

static uint8_t code_pages[2 * 4096] __attribute__((aligned(4096)));
static volatile uint32_t went_on;
extern const char ring_then_go_on[], behind_the_ring[], ring_end[];
asm("ring_then_go_on: movl $0, (%rdi)\n"
    "behind_the_ring: movl $1, (%rsi)\n nop\n ret\n"
    "ring_end:");

/* Rings from `at`, for a rule that forbids to execute the page `forbidden`. */
static struct trap ring_from(uint8_t *at, const uint8_t *forbidden)
{
    uint32_t id = door_add(0, session, (word)forbidden, 4096, 0, 1);
    door_rule_ = rule_for(id, PROTECT_OWNER, PROTECT_READ | PROTECT_WRITE, PROTECT_DENY);
    volatile struct protect_command *c = &DOOR(0)->command[0];
    door_put(c, PROTECT_OP_SET_RULES);
    door_put(&c->session, session);
    door_put(&c->arg[0], (word)&door_rule_);
    door_put(&c->arg[1], 1);
    memcpy(at, ring_then_go_on, (size_t)(ring_end - ring_then_go_on));
    went_on = 0;
    return CATCH({
        word bell = (word)&DOOR(0)->doorbell, go = (word)&went_on;
        asm volatile("call *%2" : "+D"(bell), "+S"(go) : "r"(at) : "memory");
    });
}
TEST(the_next_instruction_is_forbidden)
{
    const word len = (word)(behind_the_ring - ring_then_go_on);
    uint8_t *const at[] = {code_pages + 0x100, code_pages + 4096 - len,
                           code_pages + 4096 - len - 2};
    for (unsigned i = 0; i < 3; i++) {
        bind();
        struct trap t = ring_from(at[i], i == 0 ? code_pages : code_pages + 4096);
        CHECK_REFUSED(t, PF_I);
        CHECK_EQ(t.rip, (word)at[i] + len);
        CHECK_EQ(went_on, 0);
        unbind();
    }
}

/* ---- What an instruction does besides -----------------------------------------------------------
 */

TEST(a_copy_of_what_is_substituted)
{
    bind();
    *(volatile uint32_t *)page = 0x12345678;
    protect(page, 4, 0, PROTECT_WRITE, PROTECT_SKIP);
    protect(other, 4, 0, PROTECT_READ, PROTECT_ALLOW);
    const void *from = page;
    void *to = other;
    asm volatile("movsl" : "+S"(from), "+D"(to)::"memory");
    CHECK_EQ(head(), 2);
    CHECK_EQ(newest().home, (word)other);
    CHECK_EQ(newest().value[0], 0); /* not what lies behind the rule */
    unbind();
    CHECK_EQ(*(volatile uint32_t *)other, 0);
    CHECK_EQ(*(volatile uint32_t *)page, 0x12345678);
}

TEST(outs_sends_nothing_that_is_refused)
{
    bind();
    outl(0xcf8, 0x80000000);
    *(volatile uint32_t *)page = 0x80000800;
    uint32_t id = protect(page, 4, 0, PROTECT_WRITE, PROTECT_DENY);
    struct trap t = CATCH({
        const void *from = page;
        asm volatile("outsl" : "+S"(from) : "d"(0xcf8) : "memory");
    });
    CHECK_REFUSED(t, 0);
    CHECK_EQ(inl(0xcf8), 0x80000000);
    struct protect_rule r = rule_for(id, PROTECT_OWNER, PROTECT_WRITE, PROTECT_SUBSTITUTE);
    r.value = 0x80000900;
    CHECK_EQ(door_set(0, session, &r), PROTECT_OK);
    const void *from = page;
    asm volatile("outsl" : "+S"(from) : "d"(0xcf8) : "memory");
    CHECK_EQ(inl(0xcf8), 0x80000900);
    CHECK_EQ(head(), 2);
    unbind();
}

TEST(a_fault_does_not_hide_a_read)
{
    bind();
    *(volatile uint32_t *)page = 0;
    uint32_t id = protect(page, 4, 0, PROTECT_WRITE, PROTECT_ALLOW);
    struct trap t = CATCH(asm volatile("divl (%0)" ::"r"(page), "a"(1), "d"(0) : "memory"));
    CHECK_EQ(t.vector, V_DE);
    CHECK_EQ(head(), 1);
    struct protect_rule r = rule_for(id, PROTECT_OWNER, PROTECT_WRITE, PROTECT_DENY);
    CHECK_EQ(door_set(0, session, &r), PROTECT_OK);
    t = CATCH(asm volatile("divl (%0)" ::"r"(page), "a"(1), "d"(0) : "memory"));
    CHECK_REFUSED(t, 0);
    r = rule_for(id, PROTECT_OWNER, PROTECT_WRITE, PROTECT_SUBSTITUTE);
    r.value = 1;
    CHECK_EQ(door_set(0, session, &r), PROTECT_OK);
    uint32_t a = 5, d = 0;
    asm volatile("divl (%2)" : "+a"(a), "+d"(d) : "r"(page) : "memory");
    CHECK_EQ(a, 5);
    CHECK_EQ(head(), 3);
    unbind();
}

TEST(a_page_fault_comes_first)
{
    bind();
    uint8_t *va = map_page(WINDOW, phys(page), 1, PG_ALL); /* nothing behind it */
    protect(va + 4092, 4, 0, 0, PROTECT_DENY);
    struct trap t = store(va + 4092, 1);
    CHECK_EQ(t.vector, VECTOR_PF);
    CHECK_EQ(t.error, PF_W);
    CHECK_EQ(t.cr2, (word)va + 4096);
    CHECK_EQ(head(), 0);
    unbind();
    paging_reset();
}

TEST(rep_across_protected_pages)
{
    memset(pages, 0x11, sizeof pages);
    bind();
    uint32_t id = protect(pages + 4096 + 100, 1, 0, PROTECT_READ, PROTECT_DENY);
    struct trap t = CATCH({
        void *to = pages;
        uint64_t n = sizeof pages;
        asm volatile(LABEL(rep_stos) "rep stosb" : "+D"(to), "+c"(n) : "a"(0x22) : "memory");
    });
    CHECK_REFUSED(t, PF_W);
    CHECK_EQ(t.rip, SYMBOL(rep_stos));
    CHECK_EQ(t.frame.rcx, sizeof pages - 4096 - 100);
    CHECK_EQ(t.frame.rdi, (word)pages + 4096 + 100);
    CHECK_EQ(pages[4096 + 99], 0x22);
    CHECK_EQ(pages[4096 + 100], 0x11);
    CHECK_EQ(pages[4096 + 101], 0x11);
    CHECK_EQ(head(), 1);
    struct protect_rule r = rule_for(id, PROTECT_OWNER, PROTECT_READ, PROTECT_SKIP);
    CHECK_EQ(door_set(0, session, &r), PROTECT_OK);
    memset(pages, 0x33, sizeof pages);
    CHECK_EQ(head(), 2);
    unsigned wrong = 0;
    for (unsigned i = 0; i < sizeof pages; i++)
        wrong += pages[i] != (i == 4096 + 100 ? 0x11 : 0x33);
    CHECK_EQ(wrong, 0);
    unbind();
}

/* ---- Rings --------------------------------------------------------------------------------------
 */

TEST(ring_flood)
{
    bind();
    protect(page, 8, 0, PROTECT_READ, PROTECT_ALLOW);
    for (unsigned i = 0; i < 50; i++)
        *(volatile uint64_t *)page = i;
    CHECK_EQ(head(), PROTECT_EVENTS);
    CHECK_EQ(DOOR(0)->event_lost, 50 - PROTECT_EVENTS);
    for (unsigned n = 1; n <= PROTECT_EVENTS; n++) {
        CHECK_EQ(door_event(0, n).sequence, n);
        CHECK_EQ(door_event(0, n).value[0], n - 1);
    }
    DOOR(0)->event_tail = 1000; /* beyond the head: no */
    CHECK_EQ(DOOR(0)->event_tail, 0);
    DOOR(0)->event_tail = 5;
    for (unsigned i = 0; i < 10; i++)
        *(volatile uint64_t *)page = 100 + i;
    CHECK_EQ(head(), PROTECT_EVENTS + 5);
    CHECK_EQ(newest().value[0], 104);
    CHECK_EQ(DOOR(0)->event_lost, 50 - PROTECT_EVENTS + 5);
    static struct protect_statistics s;
    CHECK_EQ(door_command(0, PROTECT_OP_STATISTICS, session, (word)&s, 0), PROTECT_OK);
    CHECK_EQ(s.events, 60);
    CHECK_EQ(s.lost_events, 50 - PROTECT_EVENTS + 5);
    unbind();
}

/* ---- Seals --------------------------------------------------------------------------------------
 */

TEST(seals)
{
    bind();
    uint32_t id = protect(page, 8, 0, PROTECT_READ, PROTECT_SKIP);
    CHECK_EQ(door_command(0, PROTECT_OP_SEAL, session, 8, 0), PROTECT_BAD_ARGUMENT);
    CHECK_EQ(door_command(0, PROTECT_OP_SEAL, session, PROTECT_SEAL_WEAKEN, 0), PROTECT_OK);
    CHECK_EQ(DOOR(0)->seals, PROTECT_SEAL_WEAKEN);
    struct protect_rule r = rule_for(id, PROTECT_OWNER, 7, PROTECT_SKIP);
    CHECK_EQ(door_set(0, session, &r), PROTECT_SEALED);
    for (unsigned action = 0; action < PROTECT_ACTIONS; action++) {
        /* Asking somebody is no stricter than what never lets a store through. */
        bool stricter =
            action == PROTECT_DENY || action == PROTECT_SUBSTITUTE || action == PROTECT_SKIP;
        if (stricter)
            continue;
        r = rule_for(id, PROTECT_OWNER, PROTECT_READ, (uint8_t)action);
        CHECK_EQ(door_set(0, session, &r), PROTECT_SEALED);
    }
    r = rule_for(id, PROTECT_OWNER, 0, PROTECT_DENY);
    r.notify = PROTECT_NOTIFY_QUIET;
    CHECK_EQ(door_set(0, session, &r), PROTECT_SEALED);
    r.notify = 0;
    CHECK_EQ(door_set(0, session, &r), PROTECT_OK);
    /* Used up is used up. */
    uint32_t once = protect(page + 64, 8, 0, PROTECT_READ, PROTECT_ALLOW_ONCE);
    CHECK_PASSES(store(page + 64, 1));
    CHECK_REFUSED(store(page + 64, 2), PF_W);
    r = rule_for(once, PROTECT_OWNER, PROTECT_READ, PROTECT_ALLOW_ONCE);
    CHECK_EQ(door_set(0, session, &r), PROTECT_OK);
    CHECK_REFUSED(store(page + 64, 2), PF_W);
    r = rule_for(once, PROTECT_OWNER, PROTECT_READ, PROTECT_SKIP); /* it is PROTECT_DENY by now */
    CHECK_EQ(door_set(0, session, &r), PROTECT_SEALED);
    CHECK_REFUSED(store(page + 64, 2), PF_W);
    /* No more. */
    CHECK_EQ(door_command(0, PROTECT_OP_SEAL, session, PROTECT_SEAL_ALL, 0), PROTECT_OK);
    CHECK_EQ(door_remove(0, session, id), PROTECT_SEALED);
    CHECK_EQ(door_command(0, PROTECT_OP_UNBIND, session, 0, 0), PROTECT_SEALED);
    ADMIN->destroy = 0;
    CHECK_EQ(ADMIN->destroy, PROTECT_SEALED);
    CHECK_EQ(door_command(0, PROTECT_OP_SEAL, session, 0, 0), PROTECT_OK);
    CHECK_EQ(DOOR(0)->seals, PROTECT_SEAL_ALL);
    CHECK_REFUSED(store(page, 2), PF_W);
    /* This context stays to the end of the machine; the tests that follow use others. */
}

const struct test guest_tests[] = {T(alias_of_the_frame),
                                   T(a_key_that_was_closed_at_bind),
                                   T(remap_is_followed),
                                   T(remap_by_every_kind_of_store),
                                   T(remap_by_an_answer),
                                   T(remap_by_an_upper_level),
                                   T(remap_of_a_pinned_page),
                                   T(rules_on_page_tables),
                                   T(another_address_space_at_the_door),
                                   T(the_door_unmapped_ends_the_context),
                                   T(sealed_bytes_behind_the_map),
                                   T(locked_instructions_at_the_door),
                                   T(forged_tokens),
                                   T(a_stale_token_times_out),
                                   T(a_forged_frame_changes_nothing),
                                   T(handler_recursion_ends_in_a_refusal),
                                   T(deferred_until_the_owner_runs),
                                   T(an_answer_binds_only_its_own_context),
                                   T(the_next_instruction_is_forbidden),
                                   T(a_copy_of_what_is_substituted),
                                   T(outs_sends_nothing_that_is_refused),
                                   T(a_fault_does_not_hide_a_read),
                                   T(a_page_fault_comes_first),
                                   T(rep_across_protected_pages),
                                   T(ring_flood),
                                   T(seals),
                                   {0, 0}};
