/*
 * protect_upcall.c - what an upcall leaves of the thread that it interrupted, and when a deferred
 * one that was masked comes (include/bailey/protect.h, "Upcalls").
 *
 * guest options: -serial null
 */
#include "context.h"
#include "door.h"
#include "paging.h"

enum { CR4_FSGSBASE = 1 << 16, WAYS = 3 };
#define MSR_FS_BASE 0xc0000100u
#define MSR_GS_BASE 0xc0000101u

static uint8_t secret[4096] __attribute__((aligned(4096)));
static uint64_t elsewhere[8];
static uint64_t session;
static struct protect_handler handler;
static unsigned calls, verdict;
/* What the handler does to the thread. */
static bool writes_bases, loads_selectors;

static __attribute__((used)) void handle(struct protect_frame *f)
{
    calls++;
    if (loads_selectors)
        asm volatile("mov %w0, %%ds; mov %w0, %%es; mov %w0, %%fs; mov %w0, %%gs" ::"r"(0));
    if (writes_bases)
        asm volatile("wrfsbase %0; wrgsbase %1" ::"r"(elsewhere), "r"(elsewhere + 4));
    f->set = 0;
    DOOR(2)->resume = PROTECT_RESUME(f->token, verdict);
    guest_exit(1); /* it must not come back */
}

/* Owner's and kernel's accesses to `secret` by these actions. */
struct actions {
    uint8_t owner, kernel;
};
static word user_bind(word actions)
{
    const struct actions *a = (const struct actions *)actions;
    if (door_command(2, PROTECT_OP_BIND, 0, 0, 0) != PROTECT_OK)
        return 1;
    session = door_result(2);
    handler = (struct protect_handler){.rip = (word)handle, .timeout_ms = 60000};
    if (door_command(2, PROTECT_OP_SET_HANDLER, session, (word)&handler, 0) != PROTECT_OK)
        return 2;
    struct protect_rule r = door_rule(door_add(2, session, (word)secret, 64, 0, 3));
    r.allow[PROTECT_OWNER] = r.allow[PROTECT_KERNEL] = 0;
    r.action[PROTECT_OWNER] = a->owner;
    r.action[PROTECT_KERNEL] = a->kernel;
    return door_set(2, session, &r) == PROTECT_OK ? 0 : 3;
}
static word user_unbind(word x)
{
    return door_command(2, PROTECT_OP_UNBIND, session, 0, 0);
}
static void begin(uint8_t owner, uint8_t kernel)
{
    static struct actions actions;
    actions = (struct actions){owner, kernel};
    calls = 0;
    verdict = PROTECT_LET;
    CHECK_EQ(call_user(user_bind, (word)&actions), 0);
}
static void end(void)
{
    CHECK_EQ(call_user(user_unbind, 0), PROTECT_OK);
}

/* ---- Segments -----------------------------------------------------------------------------------
 */

/* What a thread has after an access through FS that its handler was asked about. */
static struct {
    uint64_t loaded, through_gs, fs_base, gs_base;
    uint16_t ds, es, fs, gs;
} after;

static word user_through_fs(word selector)
{
    asm volatile("mov %w0, %%ds; mov %w0, %%es; mov %w0, %%fs; mov %w0, %%gs;"
                 "wrfsbase %1; wrgsbase %2" ::"r"(selector),
                 "r"(secret), "r"(elsewhere));
    asm volatile("movq %%fs:8, %0; movq %%gs:8, %1"
                 : "=&r"(after.loaded), "=&r"(after.through_gs)::"memory");
    asm volatile("rdfsbase %0; rdgsbase %1" : "=r"(after.fs_base), "=r"(after.gs_base));
    asm volatile("mov %%ds, %0; mov %%es, %1; mov %%fs, %2; mov %%gs, %3"
                 : "=r"(after.ds), "=r"(after.es), "=r"(after.fs), "=r"(after.gs));
    return 0;
}

static void thread_is_itself_again(word selector)
{
    memset(&after, 0, sizeof after);
    calls = 0;
    call_user(user_through_fs, selector);
    CHECK_EQ(calls, 1);
    CHECK_EQ(after.loaded, 0x1111); /* the access that was let is through the old base */
    CHECK_EQ(after.through_gs, 0x2222);
    CHECK_EQ(after.fs_base, (word)secret);
    CHECK_EQ(after.gs_base, (word)elsewhere);
    CHECK_EQ(after.ds, selector);
    CHECK_EQ(after.es, selector);
    CHECK_EQ(after.fs, selector);
    CHECK_EQ(after.gs, selector);
}

TEST(segments_are_put_back)
{
    REQUIRE(cpu_has(7, REG_EBX, 0));
    write_cr4(read_cr4() | CR4_FSGSBASE);
    *(uint64_t *)(secret + 8) = 0x1111;
    elsewhere[1] = 0x2222;
    elsewhere[5] = 0x3333;
    begin(PROTECT_UPCALL, PROTECT_ALLOW);
    for (volatile unsigned way = 0; way <= WAYS; way++) {
        writes_bases = way & 1;
        loads_selectors = way & 2;
        thread_is_itself_again(SEL_UDATA);
        thread_is_itself_again(0);
    }
    writes_bases = loads_selectors = false;
    end();
    asm volatile("mov %w0, %%ds; mov %w0, %%es; mov %w0, %%fs; mov %w0, %%gs" ::"r"(SEL_DATA));
}

/* A base that the handler has the kernel change is put back as well: it is the thread's. */
static bool change_fs_base(struct frame *f)
{
    wrmsr(MSR_FS_BASE, (word)elsewhere);
    wrmsr(MSR_GS_BASE, 0);
    return true;
}
static __attribute__((used)) void handle_by_the_kernel(struct protect_frame *f)
{
    calls++;
    asm volatile("int $3");
    DOOR(2)->resume = PROTECT_RESUME(f->token, PROTECT_LET);
    guest_exit(1);
}
static word user_kernel_handler(word x)
{
    handler.rip = (word)handle_by_the_kernel;
    return door_command(2, PROTECT_OP_SET_HANDLER, session, (word)&handler, 0);
}
static word user_load_fs(word x)
{
    word value;
    asm volatile("movq %%fs:8, %0; addq %%gs:8, %0" : "=r"(value)::"memory");
    return value;
}
TEST(bases_that_the_kernel_set)
{
    set_gate(V_BP, (word)trap_stubs + 16 * V_BP, SEL_CODE, 14, 3, 0);
    begin(PROTECT_UPCALL, PROTECT_ALLOW);
    CHECK_EQ(call_user(user_kernel_handler, 0), PROTECT_OK);
    wrmsr(MSR_FS_BASE, (word)secret);
    wrmsr(MSR_GS_BASE, (word)elsewhere);
    trap_handlers[V_BP] = change_fs_base;
    CHECK_EQ(call_user(user_load_fs, 0), 0x3333);
    trap_handlers[V_BP] = 0;
    CHECK_EQ(calls, 1);
    CHECK_EQ(rdmsr(MSR_FS_BASE), (word)secret);
    CHECK_EQ(rdmsr(MSR_GS_BASE), (word)elsewhere);
    end();
}

/* ---- Unmasking ----------------------------------------------------------------------------------
 */

static word user_mask(word x)
{
    DOOR(2)->masked = x;
    return calls;
}

/* The ways to store to `masked`; how often the handler has run by the next instruction. Often
 * enough for an engine that translates what has been met often. */
enum { UNMASKINGS = 6, ROUNDS = 50 };
static word user_unmask(word way)
{
    volatile uint64_t *masked = &DOOR(2)->masked;
    uint32_t seen = ~0u;
    uint64_t zero = 0;
    switch (way) {
    case 0:
        asm volatile("movq $0, (%1); movl calls, %0" : "=r"(seen) : "r"(masked) : "memory");
        break;
    case 1:
        asm volatile("movl $0, (%1); movl calls, %0" : "=r"(seen) : "r"(masked) : "memory");
        break;
    case 2:
        asm volatile("andq $0, (%1); movl calls, %0" : "=r"(seen) : "r"(masked) : "memory", "cc");
        break;
    case 3:
        asm volatile("lock andq $0, (%1); movl calls, %0"
                     : "=r"(seen)
                     : "r"(masked)
                     : "memory", "cc");
        break;
    case 4:
        asm volatile("xchgq %1, (%2); movl calls, %0"
                     : "=r"(seen), "+r"(zero)
                     : "r"(masked)
                     : "memory");
        break;
    case 5:
        asm volatile("cld; stosq; movl calls, %0"
                     : "=r"(seen)
                     : "a"(0), "D"(masked)
                     : "memory", "cc");
        break;
    }
    return seen;
}

TEST(what_was_masked_comes_before_the_next_instruction)
{
    begin(PROTECT_ALLOW, PROTECT_DEFERRED);
    for (volatile unsigned n = 0; n < UNMASKINGS * ROUNDS; n++) {
        unsigned way = n % UNMASKINGS;
        calls = 0;
        CHECK_EQ(call_user(user_mask, 1), 0);
        *(volatile uint8_t *)&secret[8] = 9;
        *(volatile uint8_t *)&secret[9] = 9;
        CHECK_EQ(call_user(user_mask, 7), 0); /* back at CPL 3, and masked still */
        CHECK_EQ(call_user(user_unmask, way), 2);
        CHECK_EQ(calls, 2);
        CHECK_EQ(call_user(user_unmask, way), 2); /* none waits any more */
    }
    end();
}

/* Inside a handler unmasking waits for the handler's end. */
static unsigned calls_in_handler;
static __attribute__((used)) void handle_and_unmask(struct protect_frame *f)
{
    unsigned before = ++calls;
    DOOR(2)->masked = 0;
    calls_in_handler += calls - before;
    DOOR(2)->resume = PROTECT_RESUME(f->token, PROTECT_LET);
    guest_exit(1);
}
static word user_unmasking_handler(word x)
{
    handler.rip = (word)handle_and_unmask;
    return door_command(2, PROTECT_OP_SET_HANDLER, session, (word)&handler, 0);
}
static word user_touch(word x)
{
    uint32_t seen;
    asm volatile("movb secret+8, %%al; movl calls, %0" : "=r"(seen)::"rax", "memory");
    return seen;
}
TEST(unmasked_by_a_handler)
{
    begin(PROTECT_UPCALL, PROTECT_DEFERRED);
    CHECK_EQ(call_user(user_unmasking_handler, 0), PROTECT_OK);
    CHECK_EQ(call_user(user_mask, 1), 0);
    *(volatile uint8_t *)&secret[8] = 9;
    calls_in_handler = 0;
    CHECK_EQ(call_user(user_touch, 0), 2); /* its own upcall, and the one that waited */
    CHECK_EQ(calls_in_handler, 0);
    end();
}

const struct test guest_tests[] = {T(segments_are_put_back),
                                   T(bases_that_the_kernel_set),
                                   T(what_was_masked_comes_before_the_next_instruction),
                                   T(unmasked_by_a_handler),
                                   {0, 0}};
