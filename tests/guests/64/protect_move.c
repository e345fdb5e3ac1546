/*
 * protect_move.c - MOV, MOVZX and MOVSX to and from protected memory: what is judged before it is
 * made (cpu/move.c). Every case is met several times, so that translated code meets it, too.
 *
 * guest options: -serial null
 */
#include "context.h"
#include "door.h"
#include "paging.h"
#include "trace.h"

enum { TIMES = 4, AT = 0x48 };
#define MSR_FS_BASE 0xc0000100u
#define VALUE       0x8182838485868788ull

static uint8_t area[3 * 4096] __attribute__((aligned(4096)));
static uint8_t code[4096] __attribute__((aligned(4096)));
static uint64_t session;

static void begin(void)
{
    CHECK_EQ(door_command(0, PROTECT_OP_BIND, 0, 0, 0), PROTECT_OK);
    session = door_result(0);
}
static void end(void)
{
    CHECK_EQ(door_command(0, PROTECT_OP_UNBIND, session, 0, 0), PROTECT_OK);
}
static void set_rule(uint32_t region, uint8_t allow, uint8_t action)
{
    struct protect_rule r = door_rule(region);
    r.allow[PROTECT_OWNER] = allow;
    r.action[PROTECT_OWNER] = action;
    r.value = VALUE;
    CHECK_EQ(door_set(0, session, &r), PROTECT_OK);
}
/* Our own accesses to these bytes, beyond `allow`. */
static uint32_t protect(const void *at, uint64_t bytes, uint8_t allow, uint8_t action)
{
    uint32_t region = door_add(0, session, (word)at, bytes, 0, 7);
    set_rule(region, allow, action);
    return region;
}
static uint64_t events(void)
{
    return DOOR(0)->event_head;
}
static struct protect_event last_event(void)
{
    struct protect_event e = door_event(0, events());
    DOOR(0)->event_tail = events();
    return e;
}

/* ---- Encodings ----------------------------------------------------------------------------------
 */

/* With RBX = area + AT, FS based at area, and RAX_BEFORE. */
struct encoding {
    uint8_t bytes[12], len, size;
    uint8_t absolute, relative; /* where in the bytes such an address goes; 0: nowhere */
    uint64_t value;             /* what it stores */
};
#define RAX_BEFORE 0x1122334455667788ull
static const struct encoding stores[] = {
    {{0x88, 0x03}, 2, 1, 0, 0, 0x88},
    {{0x88, 0x23}, 2, 1, 0, 0, 0x77},
    {{0x89, 0x03}, 2, 4, 0, 0, 0x55667788},
    {{0x66, 0x89, 0x03}, 3, 2, 0, 0, 0x7788},
    {{0x48, 0x89, 0x03}, 3, 8, 0, 0, RAX_BEFORE},
    {{0xc6, 0x03, 0x5a}, 3, 1, 0, 0, 0x5a},
    {{0xc6, 0x43, 0x00, 0x5a}, 4, 1, 0, 0, 0x5a},
    {{0x66, 0xc7, 0x03, 0x5a, 0x5b}, 5, 2, 0, 0, 0x5b5a},
    {{0xc7, 0x03, 1, 2, 3, 4}, 6, 4, 0, 0, 0x04030201},
    {{0x48, 0xc7, 0x03, 1, 2, 3, 0x84}, 7, 8, 0, 0, 0xffffffff84030201},
    {{0x48, 0xc7, 0x43, 0, 1, 2, 3, 0x84}, 8, 8, 0, 0, 0xffffffff84030201},
    {{0xc7, 0x84, 0x23, 0, 0, 0, 0, 1, 2, 3, 4}, 11, 4, 0, 0, 0x04030201},
    {{0x67, 0x48, 0xc7, 0x83, 0, 0, 0, 0, 1, 2, 3, 4}, 12, 8, 0, 0, 0x04030201},
    {{0x48, 0xa3}, 10, 8, 2, 0, RAX_BEFORE},
    {{0xa2}, 9, 1, 1, 0, 0x88},
    {{0x64, 0x89, 0x04, 0x25, AT, 0, 0, 0}, 8, 4, 0, 0, 0x55667788},
    {{0x48, 0xc7, 0x05, 0, 0, 0, 0, 1, 2, 3, 4}, 11, 8, 0, 3, 0x04030201},
};
/* How it makes a register of what it has loaded: of these bytes, the second of them for AH. */
static const struct load {
    struct encoding encoding;
    uint8_t to, high, extends_sign;
} loads[] = {
    {{{0x8a, 0x03}, 2, 1, 0, 0, 0}, 1, 0, 0},
    {{{0x8a, 0x23}, 2, 1, 0, 0, 0}, 1, 1, 0},
    {{{0x66, 0x8b, 0x03}, 3, 2, 0, 0, 0}, 2, 0, 0},
    {{{0x8b, 0x03}, 2, 4, 0, 0, 0}, 4, 0, 0},
    {{{0x48, 0x8b, 0x03}, 3, 8, 0, 0, 0}, 8, 0, 0},
    {{{0x48, 0xa1}, 10, 8, 2, 0, 0}, 8, 0, 0},
    {{{0x64, 0x8b, 0x04, 0x25, AT, 0, 0, 0}, 8, 4, 0, 0, 0}, 4, 0, 0},
    {{{0x0f, 0xb6, 0x03}, 3, 1, 0, 0, 0}, 4, 0, 0},
    {{{0x66, 0x0f, 0xb6, 0x03}, 4, 1, 0, 0, 0}, 2, 0, 0},
    {{{0x48, 0x0f, 0xb7, 0x03}, 4, 2, 0, 0, 0}, 8, 0, 0},
    {{{0x66, 0x0f, 0xbe, 0x03}, 4, 1, 0, 0, 0}, 2, 0, 1},
    {{{0x0f, 0xbe, 0x03}, 3, 1, 0, 0, 0}, 4, 0, 1},
    {{{0x48, 0x0f, 0xbf, 0x03}, 4, 2, 0, 0, 0}, 8, 0, 1},
    {{{0x48, 0x63, 0x03}, 3, 4, 0, 0, 0}, 8, 0, 1},
};
static word register_after(const struct load *l, uint64_t found)
{
    unsigned unused = 64 - 8 * l->encoding.size, shift = l->high ? 8 : 0;
    word value =
        l->extends_sign ? (word)((int64_t)(found << unused) >> unused) : found << unused >> unused;
    if (l->to == 8)
        return value;
    if (l->to == 4)
        return (uint32_t)value;
    word mask = ((1ul << 8 * l->to) - 1) << shift;
    return (RAX_BEFORE & ~mask) | (value << shift & mask);
}
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* The encoding behind so many prefixes that change nothing, and RET. */
static void write_code(const struct encoding *e, unsigned prefixes)
{
    word at = (word)area + AT;
    uint8_t *to = code;
    for (unsigned i = 0; i < prefixes; i++)
        *to++ = 0x3e;
    memcpy(to, e->bytes, e->len);
    int32_t distance = (int32_t)(at - ((word)to + e->len));
    if (e->absolute)
        memcpy(to + e->absolute, &at, 8);
    if (e->relative)
        memcpy(to + e->relative, &distance, 4);
    to[e->len] = 0xc3;
}
static word run_code(void)
{
    word rax = RAX_BEFORE;
    wrmsr(MSR_FS_BASE, (word)area);
    asm volatile("call *%1" : "+a"(rax) : "r"((word)code), "b"(area + AT) : "memory");
    return rax;
}

static void check_event(const struct encoding *e, uint8_t access, uint64_t value)
{
    struct protect_event event = last_event();
    uint64_t mask = e->size == 8 ? ~0ull : (1ull << 8 * e->size) - 1;
    CHECK_EQ(event.access, access);
    CHECK_EQ(event.length, e->size);
    CHECK_EQ(event.gva, (word)area + AT);
    CHECK_EQ(event.rip, (word)code);
    CHECK_EQ(event.value[0] & mask, value & mask);
}

static void store_by(const struct encoding *e, uint32_t region, uint8_t action)
{
    uint64_t before = events(), want = ~0ull;
    set_rule(region, PROTECT_ALL, action);
    memset(area + AT, 0xff, 8);
    set_rule(region, PROTECT_READ, action);
    struct trap t = CATCH(run_code());
    CHECK_EQ(t.vector, action == PROTECT_DENY ? V_PF : NO_TRAP);
    if (action == PROTECT_DENY) {
        CHECK_EQ(t.rip, (word)code);
        CHECK_EQ(t.cr2, (word)area + AT);
        CHECK_EQ(t.error, PF_P | PF_W | 1 << PROTECT_DEFAULT_MARKER);
        CHECK_EQ(t.frame.rax, RAX_BEFORE);
    }
    CHECK_EQ(events(), before + 1);
    check_event(e, PROTECT_WRITE, e->value);
    if (action == PROTECT_ALLOW)
        memcpy(&want, &e->value, e->size);
    CHECK_EQ(*(uint64_t *)(area + AT), want);
}

/* Skipped, logged and refused: each in every length up to the longest there is. */
TEST(stores_of_every_length)
{
    static const uint8_t actions[] = {PROTECT_SKIP, PROTECT_ALLOW, PROTECT_DENY};
    for (volatile unsigned a = 0; a < COUNT(actions); a++) {
        begin();
        uint32_t region = protect(area + AT, 8, PROTECT_READ, actions[a]);
        for (volatile unsigned i = 0; i < COUNT(stores); i++)
            for (volatile unsigned prefixes = 0; prefixes + stores[i].len <= 15; prefixes++) {
                write_code(&stores[i], prefixes);
                for (volatile unsigned n = 0; n < TIMES; n++)
                    store_by(&stores[i], region, actions[a]);
            }
        end();
    }
}

#define IN_MEMORY 0xf1f2f3f4f5f6f7f8ull
TEST(loads_of_every_kind)
{
    static const struct {
        uint8_t action;
        uint64_t found;
    } ways[] = {{PROTECT_SKIP, 0}, {PROTECT_SUBSTITUTE, VALUE}, {PROTECT_ALLOW, IN_MEMORY}};
    *(uint64_t *)(area + AT) = IN_MEMORY;
    for (volatile unsigned way = 0; way < COUNT(ways); way++) {
        begin();
        protect(area + AT, 8, PROTECT_WRITE, ways[way].action);
        for (volatile unsigned i = 0; i < COUNT(loads); i++) {
            write_code(&loads[i].encoding, 0);
            for (volatile unsigned n = 0; n < TIMES; n++) {
                uint64_t before = events();
                CHECK_EQ(run_code(), register_after(&loads[i], ways[way].found));
                CHECK_EQ(events(), before + 1);
                check_event(&loads[i].encoding, PROTECT_READ, IN_MEMORY);
            }
        }
        end();
    }
}

/* ---- Its surroundings ---------------------------------------------------------------------------
 */

static __attribute__((noinline)) void store8(void *to, uint64_t value)
{
    asm volatile(LABEL(store8_here) "movq %1, (%0)\n" LABEL(store8_behind) ""
                 :
                 : "r"(to), "r"(value)
                 : "memory");
}

/* Bytes of the page that no rule is about. */
TEST(beside_the_region)
{
    begin();
    protect(area + AT, 8, PROTECT_READ, PROTECT_DENY);
    for (volatile unsigned n = 0; n < TIMES; n++) {
        store8(area + AT + 8, n);
        store8(area + AT - 8, ~(word)n);
        CHECK_EQ(*(volatile uint64_t *)(area + AT + 8), n);
        CHECK_EQ(*(volatile uint64_t *)(area + AT - 8), ~(word)n);
        CHECK_EQ(CATCH(store8(area + AT + 7, 0)).vector, V_PF);
    }
    CHECK_EQ(events(), TIMES);
    end();
}

/* The two halves of a store are two pages', with rules of their own: it is one access. */
TEST(across_pages)
{
    static const uint8_t actions[] = {PROTECT_ALLOW, PROTECT_SKIP, PROTECT_DENY};
    uint8_t *at = (uint8_t *)WINDOW + 4096 - 4;
    paging_reset();
    *entry_of(WINDOW, 1) = ((word)area + 4096) | PG_ALL; /* the other way round in memory */
    *entry_of(WINDOW + 4096, 1) = (word)area | PG_ALL;
    flush_all();
    for (volatile unsigned pair = 0; pair < 9; pair++) {
        unsigned low = actions[pair / 3], high = actions[pair % 3];
        bool refused = low == PROTECT_DENY || high == PROTECT_DENY;
        uint32_t want[2] = {~0u, ~0u};
        if (!refused && low == PROTECT_ALLOW)
            want[0] = 0x22222222;
        if (!refused && high == PROTECT_ALLOW)
            want[1] = 0x11111111;
        memset(at, 0xff, 8);
        begin();
        protect((void *)WINDOW, 4096, PROTECT_READ, low);
        protect((void *)(WINDOW + 4096), 4096, PROTECT_READ, high);
        for (volatile unsigned n = 0; n < TIMES; n++) {
            uint64_t before = events();
            struct trap t = CATCH(store8(at, 0x1111111122222222));
            CHECK_EQ(t.vector, refused ? V_PF : NO_TRAP);
            CHECK_EQ(events(), before + 1);
            struct protect_event e = last_event();
            CHECK_EQ(e.length, 8);
            CHECK_EQ(e.gva, (word)at);
            CHECK_EQ(memcmp(at, want, 8), 0);
        }
        end();
    }
}

/* What it stores to is two rules' in two contexts: both are told, the stricter one wins. */
TEST(two_contexts)
{
    begin();
    CHECK_EQ(door_command(1, PROTECT_OP_BIND, 0, 0, 0), PROTECT_OK);
    uint64_t second = door_result(1);
    struct protect_rule r = door_rule(door_add(1, second, (word)area + AT, 8, 0, 0));
    r.allow[PROTECT_OWNER] = PROTECT_READ;
    CHECK_EQ(door_set(1, second, &r), PROTECT_OK); /* logs */
    protect(area + AT + 4, 4, PROTECT_READ, PROTECT_SKIP);
    *(uint64_t *)area = 0;
    for (volatile unsigned n = 1; n <= TIMES; n++) {
        store8(area + AT, 0x0101010101010101 * n);
        CHECK_EQ(*(volatile uint64_t *)(area + AT) & 0xffffffff, 0x01010101 * n);
        CHECK_EQ(events(), n);
        CHECK_EQ(DOOR(1)->event_head, n);
    }
    CHECK_EQ(door_command(1, PROTECT_OP_UNBIND, second, 0, 0), PROTECT_OK);
    end();
}

/* Fetches are judged as well, and before the store. */
TEST(code_and_data)
{
    begin();
    write_code(&stores[4], 0);
    protect(code, 64, PROTECT_READ | PROTECT_WRITE, PROTECT_ALLOW);
    protect(area + AT, 8, PROTECT_READ, PROTECT_ALLOW);
    for (volatile unsigned n = 0; n < TIMES; n++) {
        uint64_t before = events();
        DOOR(0)->event_tail = before;
        run_code();
        CHECK_EQ(events(), before + 3);
        struct protect_event fetch = door_event(0, before + 1), store = door_event(0, before + 2);
        CHECK_EQ(fetch.access, PROTECT_EXEC);
        CHECK_EQ(fetch.gva, (word)code);
        CHECK_EQ(fetch.length, 3);
        CHECK_EQ(store.access, PROTECT_WRITE);
        CHECK_EQ(store.gva, (word)area + AT);
        CHECK_EQ(door_event(0, before + 3).access, PROTECT_EXEC);
    }
    end();
}

/* A read-modify-write is no move: one event of its own kind. */
TEST(read_modify_write)
{
    begin();
    protect(area + AT, 8, 0, PROTECT_ALLOW);
    for (volatile unsigned n = 0; n < TIMES; n++) {
        uint64_t before = events();
        asm volatile("movq $5, (%0); addq $3, (%0); lock addq $4, (%0)" ::"r"(area + AT)
                     : "memory", "cc");
        CHECK_EQ(events(), before + 3);
        CHECK_EQ(door_event(0, before + 1).access, PROTECT_WRITE);
        CHECK_EQ(door_event(0, before + 2).access, PROTECT_READ | PROTECT_WRITE);
        CHECK_EQ(door_event(0, before + 2).value[0], 8);
        struct protect_event e = last_event();
        CHECK_EQ(e.access, PROTECT_READ | PROTECT_WRITE);
        CHECK_EQ(e.value[0], 12);
    }
    end();
}

/* ---- Traps behind it ----------------------------------------------------------------------------
 */

/* A breakpoint on the data, and single steps: behind what is logged and what is skipped alike, and
 * never behind what is refused. */
TEST(breakpoints_and_steps)
{
    static const uint8_t actions[] = {PROTECT_ALLOW, PROTECT_SKIP, PROTECT_DENY};
    for (volatile unsigned a = 0; a < COUNT(actions); a++) {
        begin();
        protect(area + AT, 8, PROTECT_READ, actions[a]);
        for (volatile unsigned n = 0; n < TIMES; n++) {
            bool refused = actions[a] == PROTECT_DENY;
            listen(false, false);
            write_dr0((word)area + AT);
            write_dr7(0x400 | 2 | 1 << 16); /* 1 byte, writes */
            uint64_t before = events();
            struct trap t = CATCH(store8(area + AT, 1));
            write_dr7(0x400);
            CHECK_EQ(t.vector, refused ? V_PF : NO_TRAP);
            CHECK_EQ(traps, !refused);
            CHECK_EQ(events(), before + 1);
            if (!refused)
                CHECK_DEBUG(0, store8_behind, DR6_B0);
            listen(true, false);
            t = CATCH(asm volatile(STEP_ON "movq $2, (%0)\n" LABEL(stepped_behind) STEP_OFF
                                   :
                                   : "r"(area + AT)
                                   : "memory", "cc"));
            CHECK_EQ(t.vector, refused ? V_PF : NO_TRAP);
            CHECK_EQ(traps, refused ? 0 : 1 + STEP_OFF_TRAPS);
            CHECK_EQ(events(), before + 2);
            if (!refused)
                CHECK_DEBUG(0, stepped_behind, DR6_BS);
        }
        trap_handlers[V_DB] = 0;
        end();
    }
}

/* ---- Handlers -----------------------------------------------------------------------------------
 */

enum plan { OPENS, TIGHTENS, CHANGES, LETS, DROPS, GIVES, REFUSES };
static enum plan plan;
static struct protect_handler handler;
static struct protect_frame seen_frame;
static uint64_t user_session, elsewhere;
static uint32_t user_region;
static unsigned calls;

static uint32_t user_rule(uint8_t allow, uint8_t action)
{
    struct protect_rule r = door_rule(user_region);
    r.allow[PROTECT_OWNER] = allow;
    r.action[PROTECT_OWNER] = action;
    return door_set(2, user_session, &r);
}
static __attribute__((used)) void handle(struct protect_frame *f)
{
    static const uint8_t verdicts[] = {
        [OPENS] = PROTECT_RETRY,   [TIGHTENS] = PROTECT_RETRY, [CHANGES] = PROTECT_SET,
        [LETS] = PROTECT_LET,      [DROPS] = PROTECT_DROP,     [GIVES] = PROTECT_GIVE,
        [REFUSES] = PROTECT_REFUSE};
    calls++;
    seen_frame = *f;
    if (plan == OPENS)
        user_rule(PROTECT_ALL, PROTECT_UPCALL);
    if (plan == TIGHTENS)
        user_rule(0, PROTECT_DENY);
    f->set = 1 << 0 | 1 << 3;
    f->gpr[0] = 0x7777;
    f->gpr[3] = (word)&elsewhere;
    f->substitute = VALUE;
    DOOR(2)->resume = PROTECT_RESUME(f->token, verdicts[plan]);
    guest_exit(1); /* it must not come back */
}
static word user_bind(word stack)
{
    if (door_command(2, PROTECT_OP_BIND, 0, 0, 0) != PROTECT_OK)
        return 1;
    user_session = door_result(2);
    handler = (struct protect_handler){
        .rip = (word)handle, .timeout_ms = 60000, .stacks = stack != 0, .stack = {stack}};
    if (door_command(2, PROTECT_OP_SET_HANDLER, user_session, (word)&handler, 0) != PROTECT_OK)
        return 2;
    user_region = door_add(2, user_session, (word)area + AT, 8, 0, 3);
    return user_rule(0, PROTECT_UPCALL) == PROTECT_OK ? 0 : 3;
}
static word user_ask(word x)
{
    return user_rule(0, PROTECT_UPCALL);
}
static word user_unbind(word x)
{
    return door_command(2, PROTECT_OP_UNBIND, user_session, 0, 0);
}

static __attribute__((noinline)) word user_store(word value)
{
    word before = 0x1234, flags;
    asm volatile("stc\n" LABEL(user_store_here) "movq %%rax, (%%rbx)\n"
                                                "pushf; pop %1"
                 : "+d"(before), "=r"(flags)
                 : "a"(value), "b"(area + AT)
                 : "memory");
    return before == 0x1234 && flags & F_CF;
}
/* Into RDI, where the handler has its frame meanwhile. */
static __attribute__((noinline)) word user_load(word x)
{
    word got = 0x1122334455667788;
    asm volatile("movzwl (%%rbx), %%edi" : "+D"(got) : "b"(area + AT) : "memory");
    return got;
}

/* What was judged is judged again when the handler has changed the rule; what it changes in the
 * registers counts. */
TEST(what_handlers_change)
{
    CHECK_EQ(call_user(user_bind, 0), 0);
    for (volatile unsigned n = 1; n <= TIMES; n++) {
        *(volatile uint64_t *)(area + AT) = 0;
        elsewhere = 0;
        calls = 0;
        plan = OPENS;
        CHECK_EQ(call_user(user_store, n), 1);
        CHECK_EQ(calls, 1);
        CHECK_EQ(*(volatile uint64_t *)(area + AT), n);
        CHECK_EQ(call_user(user_store, n + 1), 1); /* open now */
        CHECK_EQ(calls, 1);
        CHECK_EQ(call_user(user_ask, 0), PROTECT_OK);
        plan = TIGHTENS;
        struct trap t = CATCH(call_user(user_store, 9));
        CHECK_TRAP(t, V_PF, PF_P | PF_W | PF_U | 1 << PROTECT_DEFAULT_MARKER,
                   SYMBOL(user_store_here));
        CHECK_EQ(calls, 2);
        CHECK_EQ(*(volatile uint64_t *)(area + AT), n + 1);
        CHECK_EQ(call_user(user_ask, 0), PROTECT_OK);
        plan = CHANGES;
        CHECK_EQ(call_user(user_store, 9), 1);
        CHECK_EQ(calls, 3);
        CHECK_EQ(elsewhere, 0x7777);
        CHECK_EQ(*(volatile uint64_t *)(area + AT), n + 1);
    }
    CHECK_EQ(call_user(user_unbind, 0), PROTECT_OK);
}

TEST(verdicts)
{
    CHECK_EQ(call_user(user_bind, 0), 0);
    for (volatile unsigned n = 1; n <= TIMES; n++) {
        *(volatile uint64_t *)(area + AT) = 0xaaaa;
        calls = 0;
        plan = LETS;
        CHECK_EQ(call_user(user_load, 0), 0xaaaa);
        CHECK_EQ(seen_frame.value[0] & 0xffff, 0xaaaa);
        CHECK_EQ(call_user(user_store, n), 1);
        CHECK_EQ(seen_frame.instruction_length, 3);
        CHECK_EQ(memcmp(seen_frame.instruction, "\x48\x89\x03", 3), 0);
        CHECK_EQ(seen_frame.rip, SYMBOL(user_store_here));
        CHECK_EQ(seen_frame.value[0], n);
        CHECK_EQ(seen_frame.preimage[0], 0xaaaa);
        CHECK_EQ(seen_frame.gpr[0], n);
        CHECK_EQ(seen_frame.gpr[3], (word)area + AT);
        CHECK_EQ(*(volatile uint64_t *)(area + AT), n);
        plan = DROPS;
        CHECK_EQ(call_user(user_store, 9), 1);
        CHECK_EQ(*(volatile uint64_t *)(area + AT), n);
        CHECK_EQ(call_user(user_load, 0), 0);
        plan = GIVES;
        CHECK_EQ(call_user(user_load, 0), 0x8788);
        plan = REFUSES;
        struct trap t = CATCH(call_user(user_store, 9));
        CHECK_TRAP(t, V_PF, PF_P | PF_W | PF_U | 1 << PROTECT_DEFAULT_MARKER,
                   SYMBOL(user_store_here));
        CHECK_EQ(calls, 6);
        CHECK_EQ(*(volatile uint64_t *)(area + AT), n);
    }
    CHECK_EQ(call_user(user_unbind, 0), PROTECT_OK);
}

/* The frame's place is not mapped: a page fault before anybody has been told, after which it all
 * begins anew. */
static unsigned faults;
static bool map_the_stack(struct frame *f)
{
    CHECK_EQ(read_cr2() & ~0xfffull, WINDOW);
    CHECK_EQ(events(), 0);
    *entry_of(WINDOW, 1) = FREE_RAM | PG_ALL;
    faults++;
    return true;
}
TEST(a_frame_without_a_place)
{
    paging_reset();
    *entry_of(WINDOW, 1) = 0;
    flush_all();
    CHECK_EQ(call_user(user_bind, WINDOW + 4096), 0);
    for (volatile unsigned n = 1; n <= TIMES; n++) {
        begin();
        struct protect_rule r = door_rule(door_add(0, session, (word)area + AT, 8, 0, 7));
        r.allow[PROTECT_OTHER_USER] = 0; /* logs */
        CHECK_EQ(door_set(0, session, &r), PROTECT_OK);
        faults = calls = 0;
        plan = LETS;
        *entry_of(WINDOW, 1) = 0;
        invlpg((void *)WINDOW);
        trap_handlers[V_PF] = map_the_stack;
        CHECK_EQ(call_user(user_store, n), 1);
        trap_handlers[V_PF] = 0;
        CHECK_EQ(faults, 1);
        CHECK_EQ(calls, 1);
        CHECK_EQ(events(), 1);
        CHECK_EQ(*(volatile uint64_t *)(area + AT), n);
        end();
    }
    CHECK_EQ(call_user(user_unbind, 0), PROTECT_OK);
}

const struct test guest_tests[] = {T(stores_of_every_length),
                                   T(loads_of_every_kind),
                                   T(beside_the_region),
                                   T(across_pages),
                                   T(two_contexts),
                                   T(code_and_data),
                                   T(read_modify_write),
                                   T(breakpoints_and_steps),
                                   T(what_handlers_change),
                                   T(verdicts),
                                   T(a_frame_without_a_place),
                                   {0, 0}};
