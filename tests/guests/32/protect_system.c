/*
 * protect_system.c - rules on what the processor touches by itself outside long mode: event
 * delivery with and without a change of stacks, call gates, task switches of both sizes, and
 * virtual-8086 mode.
 *
 * guest options: -serial null
 * guest options: -serial null -accel interp
 */
#include "task.h"
#include "v86.h"
#include "watch.h"

static uint8_t page[4096] __attribute__((aligned(4096)));
enum { REFUSED_CODE = 1 | 1 << PROTECT_DEFAULT_MARKER, CODE_W = 2, CODE_U = 4 };
enum { R = PROTECT_READ, W = PROTECT_WRITE };

/* What a region of `type *` is: a rule that lets all happen, and tells. */
#define TELL(at, length, subject) watch(at, length, PROTECT_##subject, PROTECT_ALLOW)

/* ---- Event delivery ----------------------------------------------------------------------------
 */

TEST(delivery_on_the_same_stack)
{
    uint8_t *top = page + 2048;
    watch_begin();
    uint32_t gate_rule = TELL(&idt[V_BP], 8, EVENT);
    TELL(&gdt[SEL_CODE / 8], 8, EVENT);
    TELL(top - 64, 64, EVENT);
    struct trap t = CATCH(asm volatile("movl %0, %%esp\n" LABEL(same_int3) "int3" ::"r"(top)));
    CHECK_EQ(t.vector, V_BP);
    CHECK_EVENTS(EVENT(R, EVENT, 8, &idt[V_BP]), EVENT(R, EVENT, 8, &gdt[SEL_CODE / 8]),
                 EVENT(W, EVENT, 12, top - 12));
    CHECK_EQ(event.cpl, 0);
    CHECK_EQ(event.rip, SYMBOL(same_int3));
    CHECK_EQ(event.value[0], (uint64_t)SEL_CODE << 32 | t.rip);
    CHECK_EQ(event.value[1], t.rflags);
    watch_change(gate_rule, PROTECT_EVENT, PROTECT_DENY);
    t = CATCH(asm volatile(LABEL(same_refused) "int3"));
    CHECK_TRAP(t, V_PF, REFUSED_CODE, SYMBOL(same_refused));
    CHECK_EQ(t.cr2, (word)&idt[V_BP]);
    watch_end();
}

TEST(delivery_of_an_error_code)
{
    uint8_t *top = page + 2048;
    watch_begin();
    TELL(top - 64, 64, EVENT);
    struct trap t = CATCH(asm volatile("movl %0, %%esp; movw %w1, %%es" ::"r"(top), "r"(0xfff8)));
    CHECK_EQ(t.vector, V_GP);
    CHECK_EVENTS(EVENT(W, EVENT, 16, top - 16));
    CHECK_EQ(event.value[0], (uint64_t)t.rip << 32 | 0xfff8);
    watch_end();
}

CODE32(user_int3, LABEL(user_int3_here) "int3");
TEST(delivery_to_the_inner_stack)
{
    rings_setup();
    uint8_t *top = (uint8_t *)MAIN_TSS->esp0;
    watch_begin();
    TELL(&idt[V_BP], 8, EVENT);
    TELL(MAIN_TSS, 104, EVENT);
    TELL(&gdt[SEL_CODE / 8], 8, EVENT);
    TELL(&gdt[SEL_DATA / 8], 8, EVENT);
    TELL(top - 64, 64, EVENT);
    struct trap t = RUN(context_user((word)user_int3));
    CHECK_EQ(t.vector, V_BP);
    CHECK_EVENTS(EVENT(R, EVENT, 8, &idt[V_BP]), EVENT(R, EVENT, 8, &gdt[SEL_CODE / 8]),
                 EVENT(R, EVENT, 6, &MAIN_TSS->esp0), EVENT(R, EVENT, 8, &gdt[SEL_DATA / 8]),
                 EVENT(W, EVENT, 20, top - 20));
    CHECK_EQ(event.cpl, 3);
    CHECK_EQ(event.rip, (word)user_int3);
    watch_end();
}

CODE32(user_int_50, "int $0x50\n" LABEL(user_int_50_after) "nop");
CODE32(stub_16, "ljmp $0x8, $gate_16_handler"); /* to where the stubs lie */
asm(".pushsection .text\ngate_16_handler: int3\n.popsection");
TEST(delivery_through_a_16_bit_gate)
{
    rings_setup();
    uint8_t *top = (uint8_t *)MAIN_TSS->esp0;
    /* 16 bits of the handler's address are all there is: its segment begins there. */
    gdt[FREE(5) / 8] = descriptor((word)stub_16, 0xffff, D_CODE | D_BIG);
    set_gate(0x50, 0, FREE(5), 6, 3, 0);
    watch_begin();
    TELL(&idt[0x50], 8, EVENT);
    TELL(top - 10, 10, EVENT);
    struct trap t = RUN(context_user((word)user_int_50));
    CHECK_EQ(t.vector, V_BP);
    CHECK_EVENTS(EVENT(R, EVENT, 8, &idt[0x50]), EVENT(W, EVENT, 10, top - 10));
    CHECK_EQ(event.value[0] & 0xffff, SYMBOL(user_int_50_after) & 0xffff);
    CHECK_EQ(event.value[0] >> 16 & 0xffff, SEL_UCODE);
    watch_end();
    set_gate(0x50, (word)trap_stubs + 16 * 0x50, SEL_CODE, 14, 0, 0);
}

/* The push, its page fault and the double fault all meet the refused stack: only a task has one of
 * its own. */
TEST(refused_pushes_are_a_double_fault)
{
    struct tss32 *t = task_new(0);
    rings_setup();
    set_gate(V_DF, 0, TASK(0), 5, 0, 0);
    t->eip = SYMBOL(task_entry);
    uint8_t *top = (uint8_t *)MAIN_TSS->esp0;
    memset(page, 0x11, sizeof page);
    MAIN_TSS->esp0 = (word)page + 1024;
    watch_begin();
    watch(page + 1024 - 4, 4, PROTECT_EVENT, PROTECT_DENY);
    task_seen.runs = 0;
    t->eip = (word)user_int3; /* a breakpoint of the task's own ends it */
    struct trap trap = RUN(context_user((word)user_int3));
    CHECK_EQ(trap.vector, V_BP);
    CHECK_EQ(trap.cs, SEL_CODE);
    CHECK_EQ(t->link & 0xffff, SEL_TSS);
    CHECK_EQ(*(uint32_t *)(t->esp0 - 4), 0);
    CHECK_EQ(MAIN_TSS->eip, (word)user_int3);
    CHECK_EQ(MAIN_TSS->cs & 0xffff, SEL_UCODE);
    for (unsigned i = 1024 - 64; i < 1024; i++)
        CHECK_EQ(page[i], 0x11);
    CHECK_EQ(watch_head(), 2); /* of the breakpoint's frame, of the page fault's */
    CHECK_EVENT(1, W, PROTECT_EVENT, 20, page + 1020);
    CHECK_EVENT(2, W, PROTECT_EVENT, 24, page + 1020);
    watch_end();
    task_home();
    MAIN_TSS->esp0 = (word)top;
    set_gate(V_DF, (word)trap_stubs + 16 * V_DF, SEL_CODE, 14, 0, 0);
}

/* ---- Call gates --------------------------------------------------------------------------------
 */

enum { GATE = FREE(6) };
CODE32(gate_call, "pushl $0x22222222; pushl $0x11111111\n" LABEL(
                      gate_call_here) "lcall $0x8b, $0\n" LABEL(gate_call_after) "int3");
_Static_assert((GATE | 3) == 0x8b, "as in gate_call");
CODE32(gate_target, "lretl $8");

static struct trap through_gate(uint8_t *user_top)
{
    struct context c = context_user((word)gate_call);
    c.rsp = (word)user_top;
    return RUN(c);
}
TEST(call_gate_with_parameters)
{
    rings_setup();
    uint8_t *user = page + 1024, *top = (uint8_t *)MAIN_TSS->esp0;
    gdt[GATE / 8] = gate(SEL_CODE, (word)gate_target, D_CALL32 | D_DPL3, 2);
    watch_begin();
    TELL(&gdt[GATE / 8], 8, OWNER);
    TELL(&gdt[SEL_CODE / 8], 8, OWNER);
    TELL(&gdt[SEL_DATA / 8], 8, OWNER);
    TELL(&MAIN_TSS->esp0, 8, OWNER);
    TELL(user - 64, 64, OTHER_USER);
    uint32_t stack = TELL(top - 64, 40, OWNER); /* nothing of it is touched */
    CHECK_EQ(door_remove(0, session, stack), PROTECT_OK);
    uint32_t frame = TELL(top - 24, 24, OWNER);
    /* The stubs of the final INT3 push where the frame was. */
    struct trap t = through_gate(user);
    CHECK_TRAP(t, V_BP, 0, SYMBOL(gate_call_after) + 1);
    CHECK_EQ(t.rsp, (word)user);
    CHECK(watch_head() >= 10);
    CHECK_EVENT(1, W, PROTECT_OTHER_USER, 4, user - 4);
    CHECK_EVENT(2, W, PROTECT_OTHER_USER, 4, user - 8);
    CHECK_EVENT(3, R, PROTECT_OWNER, 8, &gdt[GATE / 8]);
    CHECK_EVENT(4, R, PROTECT_OWNER, 8, &gdt[SEL_CODE / 8]);
    CHECK_EVENT(5, R, PROTECT_OWNER, 6, &MAIN_TSS->esp0);
    CHECK_EVENT(6, R, PROTECT_OWNER, 8, &gdt[SEL_DATA / 8]);
    CHECK_EVENT(7, R, PROTECT_OTHER_USER, 8, user - 8);
    CHECK_EVENT(8, W, PROTECT_OWNER, 24, top - 24);
    CHECK_EQ(event.cpl, 3);
    CHECK_EQ(event.rip, SYMBOL(gate_call_here));
    CHECK_EQ(event.value[0], (uint64_t)SEL_UCODE << 32 | SYMBOL(gate_call_after));
    CHECK_EQ(event.value[1], 0x2222222211111111ull);
    CHECK_EVENT(9, R, PROTECT_OWNER, 8, top - 24); /* RET: EIP and CS, then ESP and SS */
    CHECK_EQ(event.rip, (word)gate_target);
    CHECK_EVENT(10, R, PROTECT_OWNER, 8, top - 8);
    /* Refused as a whole. */
    watch_change(frame, PROTECT_OWNER, PROTECT_DENY);
    memset(user - 8, 0, 8);
    t = through_gate(user);
    CHECK_EQ(t.vector, V_PF); /* and the stubs' pushes begin below what they may not touch */
    watch_end();
}

CODE32(gate_target_16, "lretw $2");
TEST(call_gate_of_16_bits)
{
    rings_setup();
    uint8_t *user = page + 1024, *top = (uint8_t *)MAIN_TSS->esp0;
    gdt[FREE(5) / 8] = descriptor((word)gate_target_16, 0xffff, D_CODE | D_BIG);
    gdt[GATE / 8] = gate(FREE(5), 0, D_CALL16 | D_DPL3, 1);
    watch_begin();
    TELL(user - 8, 2, OTHER_USER);
    TELL(top - 10, 10, OWNER);
    struct context c = context_user((word)gate_call);
    c.rsp = (word)user;
    RUN(c); /* 16 bits of EIP and ESP come back: wherever that leads */
    CHECK(watch_head() >= 4);
    CHECK_EVENT(1, W, PROTECT_OTHER_USER, 4, user - 8);
    CHECK_EVENT(2, R, PROTECT_OTHER_USER, 2, user - 8);
    CHECK_EVENT(3, W, PROTECT_OWNER, 10, top - 10);
    CHECK_EQ(event.value[0], (uint64_t)(SYMBOL(gate_call_after) & 0xffff) | SEL_UCODE << 16 |
                                 0x1111ull << 32 | ((word)(user - 8) & 0xffffull) << 48);
    CHECK_EVENT(4, R, PROTECT_OWNER, 4, top - 10);
    watch_end();
}

/* ---- Task switches -----------------------------------------------------------------------------
 */

#define DESC(selector) (&gdt[(selector) / 8])
#define BUSY(selector) ((uint8_t *)DESC(selector) + 5)
/* From EIP to the first selector; then the others, apart from each other. */
#define DYNAMIC(t)                                                                                 \
    EVENT(W, OWNER, 42, &(t)->eip), EVENT(W, OWNER, 2, &(t)->cs), EVENT(W, OWNER, 2, &(t)->ss),    \
        EVENT(W, OWNER, 2, &(t)->ds), EVENT(W, OWNER, 2, &(t)->fs), EVENT(W, OWNER, 2, &(t)->gs)

static struct tss32 *watch_switches(void)
{
    struct tss32 *t = task_new(0);
    rings_setup();
    watch_begin();
    TELL(MAIN_TSS, 104, OWNER);
    TELL(t, 104, OWNER);
    TELL(DESC(SEL_TSS), 8, OWNER);
    TELL(DESC(TASK(0)), 8, OWNER);
    return t;
}

TEST(task_switch_by_jump)
{
    MAIN_TSS->es = 0x55aa0000;
    struct tss32 *t = watch_switches();
    TASK_JMP(TASK(0));
    CHECK_EVENTS(
        /* there */
        EVENT(R, OWNER, 8, DESC(TASK(0))), EVENT(R, OWNER, 104, t),
        EVENT(R, OWNER, 8, DESC(SEL_TSS)), EVENT(W, OWNER, 1, BUSY(SEL_TSS)),
        EVENT(W, OWNER, 1, BUSY(TASK(0))), DYNAMIC(MAIN_TSS),
        /* and back */
        EVENT(R, OWNER, 8, DESC(SEL_TSS)), EVENT(R, OWNER, 104, MAIN_TSS),
        EVENT(R, OWNER, 8, DESC(TASK(0))), EVENT(W, OWNER, 1, BUSY(TASK(0))),
        EVENT(W, OWNER, 1, BUSY(SEL_TSS)), DYNAMIC(t));
    event = door_event(0, 6);
    CHECK_EQ(event.rip, SYMBOL(task_jmp_here));
    CHECK_EQ(event.value[0] & 0xffffffff, SYMBOL(task_jmp_after));
    watch_end();
    CHECK_EQ(task_seen.regs.eax, 0xa0a0a0a0);
    CHECK_EQ(MAIN_TSS->es, 0x55aa0000 | SEL_DATA); /* what lies between selectors stays */
    MAIN_TSS->es = 0;
}

TEST(task_switch_by_call_and_iret)
{
    struct tss32 *t = watch_switches();
    task_exit = EXIT_IRET;
    TASK_CALL(TASK(0));
    CHECK_EVENTS(EVENT(R, OWNER, 8, DESC(TASK(0))), EVENT(R, OWNER, 104, t),
                 EVENT(R, OWNER, 8, DESC(SEL_TSS)), EVENT(W, OWNER, 1, BUSY(TASK(0))),
                 DYNAMIC(MAIN_TSS), EVENT(W, OWNER, 2, t),
                 /* IRET reads the link first; the old task is busy no more. */
                 EVENT(R, OWNER, 2, t), EVENT(R, OWNER, 8, DESC(SEL_TSS)),
                 EVENT(R, OWNER, 104, MAIN_TSS), EVENT(R, OWNER, 8, DESC(TASK(0))),
                 EVENT(W, OWNER, 1, BUSY(TASK(0))), DYNAMIC(t));
    watch_end();
    CHECK_EQ(t->link, SEL_TSS);
}

/* An interrupt's switch is the processor's, not the event's: but for gate and descriptor. */
TEST(task_switch_by_a_task_gate)
{
    struct tss32 *t = watch_switches();
    set_gate(0x50, 0, TASK(0), 5, 0, 0);
    TELL(&idt[0x50], 8, EVENT);
    uint32_t desc = TELL(DESC(TASK(0)), 8, EVENT);
    task_exit = EXIT_IRET;
    asm volatile("int $0x50; clts" ::: "memory", "cc");
    CHECK(watch_head() >= 12);
    CHECK_EVENT(1, R, PROTECT_EVENT, 8, &idt[0x50]);
    CHECK_EVENT(2, R, PROTECT_EVENT, 8, DESC(TASK(0)));
    CHECK_EVENT(3, R, PROTECT_OWNER, 104, t);
    CHECK_EQ(task_seen.tr, TASK(0));
    CHECK_EQ(t->link, SEL_TSS);
    CHECK_EQ(door_remove(0, session, desc), PROTECT_OK);
    watch_end();
    set_gate(0x50, (word)trap_stubs + 16 * 0x50, SEL_CODE, 14, 0, 0);
}

static struct tss16 short_tss __attribute__((aligned(64)));
CODE32(short_task, "ljmp $0x48, $0");
TEST(task_switch_with_16_bit_tss)
{
    rings_setup();
    gdt[FREE(5) / 8] = descriptor((word)short_task, 0xffff, D_CODE | D_BIG);
    short_tss = (struct tss16){.flags = 2, .cs = FREE(5), .ss = SEL_DATA, .ds = SEL_DATA, .ax = 7};
    gdt[TASK(1) / 8] = descriptor((word)&short_tss, 43, D_TSS16);
    watch_begin();
    TELL(&short_tss, sizeof short_tss, OWNER);
    asm volatile("pushal; ljmp %0, $0; popal; clts" ::"i"(TASK(1)) : "memory", "cc");
    CHECK_EVENTS(EVENT(R, OWNER, 44, &short_tss), EVENT(W, OWNER, 28, &short_tss.ip));
    watch_end();
    CHECK_EQ(short_tss.ip, 7);
    CHECK_EQ(short_tss.ax, 7);
    CHECK_EQ(short_tss.ds, SEL_DATA);
}

static void check_nothing_switched(const struct tss32 *t, const struct tss32 *main_was,
                                   const struct tss32 *t_was)
{
    uint16_t tr;
    asm volatile("str %0" : "=m"(tr));
    CHECK_EQ(tr, SEL_TSS);
    CHECK_EQ(desc_type(SEL_TSS), D_TSS32 | D_BUSY);
    CHECK_EQ(desc_type(TASK(0)), D_TSS32);
    CHECK_EQ(memcmp(MAIN_TSS, main_was, sizeof *t), 0);
    CHECK_EQ(memcmp(t, t_was, sizeof *t), 0);
    CHECK_EQ(task_seen.runs, 0);
}

/* Every access of a switch may be refused; then there was none. */
TEST(refused_task_switches)
{
    struct tss32 *t = task_new(0);
    t->ds = FREE(5); /* its descriptor is read behind the commit point */
    gdt[FREE(5) / 8] = descriptor(0, 0xfffff, D_DATA | FLAT);
    const struct {
        const void *at;
        unsigned length, code;
    } refused[] = {{DESC(TASK(0)), 8, 0},       {BUSY(SEL_TSS), 1, 0},      {&t->cr3, 4, 0},
                   {&MAIN_TSS->eip, 4, CODE_W}, {&MAIN_TSS->gs, 1, CODE_W}, {DESC(FREE(5)), 8, 0}};
    for (unsigned i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        struct tss32 main_was = *MAIN_TSS, t_was = *t;
        task_seen.runs = 0;
        watch_begin();
        watch(refused[i].at, refused[i].length, PROTECT_OWNER, PROTECT_DENY);
        struct trap trap = CATCH(asm volatile(LABEL(refused_jmp) "ljmp %0, $0" ::"i"(TASK(0))
                                              : "memory"));
        CHECK_TRAP(trap, V_PF, REFUSED_CODE | refused[i].code, SYMBOL(refused_jmp));
        CHECK_EQ(trap.cr2, (word)refused[i].at);
        CHECK_EQ(watch_head(), 1);
        watch_end();
        check_nothing_switched(t, &main_was, &t_was);
    }
}

/* What comes behind the commit point finds registers of the new task: no engine may give up there
 * and begin anew. */
TEST(rules_behind_the_commit_point)
{
    struct tss32 *t = task_new(0);
    t->ds = FREE(5);
    gdt[FREE(5) / 8] = descriptor(0, 0xfffff, D_DATA | FLAT);
    watch_begin();
    TELL(DESC(FREE(5)), 8, OWNER);
    task_seen.runs = 0;
    asm volatile("ljmp %0, $0; clts" ::"i"(TASK(0)) : "memory", "cc");
    CHECK_EVENTS(EVENT(R, OWNER, 8, DESC(FREE(5))));
    CHECK_EQ(event.rip, SYMBOL(task_entry));
    CHECK_EQ(task_seen.runs, 1);
    CHECK_EQ(task_seen.ds, FREE(5));
    watch_end();
}

/* A fault there is the new task's, rules or not. */
TEST(faults_behind_the_commit_point)
{
    struct tss32 *t = task_new(0);
    t->ds = FREE(5);
    gdt[FREE(5) / 8] = descriptor(0, 0xfffff, (D_DATA | FLAT) & ~D_PRESENT);
    watch_begin();
    TELL(DESC(FREE(5)), 8, OWNER);
    TELL(&MAIN_TSS->eip, 4, OWNER);
    struct trap trap =
        CATCH(asm volatile(LABEL(late_jmp) "ljmp %0, $0\n" LABEL(late_after) "nop" ::"i"(TASK(0))
                           : "memory"));
    uint16_t tr;
    asm volatile("str %0" : "=m"(tr));
    CHECK_EVENTS(EVENT(W, OWNER, 42, &MAIN_TSS->eip), EVENT(R, OWNER, 8, DESC(FREE(5))));
    CHECK_TRAP(trap, V_NP, FREE(5), SYMBOL(task_entry));
    CHECK_EQ(tr, TASK(0));
    CHECK_EQ(MAIN_TSS->eip, SYMBOL(late_after));
    CHECK_EQ(desc_type(TASK(0)), D_TSS32 | D_BUSY);
    watch_end();
    task_home();
}

/* ---- Virtual-8086 mode -------------------------------------------------------------------------
 */

#define V86_AT(segment, offset) ((uint8_t *)(((segment) << 4) + (offset)))

CODE16(v86_accesses,
       LABEL(v86_store) "movw %ax, 0x10\n"
                        "incw 0x20; pushw %ax; popw 0x30; lcall $0x2000, $1f - v86_accesses\n"
                        "1: int3");
TEST(virtual_8086_code)
{
    rings_setup();
    uint8_t *data = V86_AT(V86_DATA, 0), *stack = V86_AT(V86_STACK, 0x1000);
    memset(data, 0x33, 64);
    watch_begin();
    uint32_t id = TELL(data, 64, OTHER_USER);
    TELL(stack - 64, 64, OTHER_USER);
    struct trap t = V86(v86_accesses, F_IOPL3);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EVENTS(EVENT(W, OTHER_USER, 2, data + 0x10), EVENT(R | W, OTHER_USER, 2, data + 0x20),
                 EVENT(W, OTHER_USER, 2, stack - 2), EVENT(R, OTHER_USER, 2, stack - 2),
                 EVENT(W, OTHER_USER, 2, data + 0x30), EVENT(W, OTHER_USER, 4, stack - 4));
    CHECK_EQ(event.cpl, 3);
    watch_change(id, PROTECT_OTHER_USER, PROTECT_DENY);
    memset(data, 0x33, 64);
    t = V86(v86_accesses, F_IOPL3);
    CHECK_TRAP(t, V_PF, REFUSED_CODE | CODE_W | CODE_U, 0);
    CHECK_EQ(t.cr2, (word)data + 0x10);
    CHECK_EQ(t.rflags & F_VM, F_VM);
    CHECK_EQ(data[0x10], 0x33);
    watch_end();
}

CODE32(just_iret, "iretl");
CODE16(v86_int, LABEL(v86_int_here) "int $0x50; int3\n" LABEL(v86_int_stays) "int3");
TEST(virtual_8086_interrupts)
{
    rings_setup();
    uint8_t *top = (uint8_t *)MAIN_TSS->esp0;
    set_gate(0x50, (word)just_iret, SEL_CODE, 14, 3, 0);
    watch_begin();
    TELL(&idt[0x50], 8, EVENT);
    TELL(MAIN_TSS, 104, EVENT);
    TELL(top - 64, 64, EVENT);
    TELL(top - 36, 36, OWNER); /* the stubs read some of it again */
    struct trap t = V86(v86_int, F_IOPL3);
    CHECK_EQ(t.vector, V_BP);
    CHECK(watch_head() >= 6);
    CHECK_EVENT(1, R, PROTECT_EVENT, 8, &idt[0x50]);
    CHECK_EVENT(2, R, PROTECT_EVENT, 6, &MAIN_TSS->esp0);
    CHECK_EVENT(3, W, PROTECT_EVENT, 36, top - 36);
    CHECK_EQ(event.cpl, 3);
    CHECK_EQ(event.value[0], (uint64_t)V86_CODE << 32 | 2);
    CHECK_EVENT(4, R, PROTECT_OWNER, 36, top - 36); /* IRET */
    CHECK_EQ(event.rip, (word)just_iret);
    CHECK_EVENT(5, R, PROTECT_EVENT, 6, &MAIN_TSS->esp0);
    CHECK_EVENT(6, W, PROTECT_EVENT, 36, top - 36); /* INT3 */
    watch_end();
    set_gate(0x50, (word)trap_stubs + 16 * 0x50, SEL_CODE, 14, 0, 0);
}

/* With CR4.VME the TSS says which INT n go through the interrupt table at 0: IP and CS are read and
 * FLAGS, CS and IP pushed by the program itself. */
static struct {
    uint32_t tss[26];
    uint8_t redirection[32], io[8];
} vme_tss;
TEST(virtual_8086_interrupts_that_stay_there)
{
    uint32_t r[4];
    cpuid(1, 0, r);
    CHECK(r[3] & 2); /* VME */
    rings_setup();
    memcpy(vme_tss.tss, MAIN_TSS, 100);
    vme_tss.tss[25] = (uint32_t)offsetof(typeof(vme_tss), io) << 16;
    gdt[FREE(6) / 8] = descriptor((word)&vme_tss, sizeof vme_tss - 1, D_TSS32);
    volatile uint32_t *vectors = (volatile uint32_t *)0;
    asm volatile("" : "+r"(vectors));
    uint32_t was = vectors[0x50];
    vectors[0x50] = V86_CODE << 16 | (uint32_t)OFFSET16(v86_int, v86_int_stays);
    asm volatile("ltr %w0" ::"r"(FREE(6)));
    write_cr4(read_cr4() | 1);
    uint8_t *stack = V86_AT(V86_STACK, 0x1000);
    watch_begin();
    TELL((uint8_t *)&vme_tss + 0x66, 2, OWNER);
    TELL(vme_tss.redirection + 0x50 / 8, 1, OWNER);
    TELL(&vectors[0x50], 4, OTHER_USER);
    TELL(stack - 64, 64, OTHER_USER);
    struct trap t = V86(v86_int, F_IOPL3);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.rip, OFFSET16(v86_int, v86_int_stays) + 1);
    CHECK_EVENTS(EVENT(R, OWNER, 2, (uint8_t *)&vme_tss + 0x66),
                 EVENT(R, OWNER, 1, vme_tss.redirection + 0x50 / 8),
                 EVENT(R, OTHER_USER, 4, &vectors[0x50]), EVENT(W, OTHER_USER, 6, stack - 6));
    watch_end();
    write_cr4(read_cr4() & ~(word)1);
    vectors[0x50] = was;
    task_home();
}

const struct test guest_tests[] = {T(delivery_on_the_same_stack),
                                   T(delivery_of_an_error_code),
                                   T(delivery_to_the_inner_stack),
                                   T(delivery_through_a_16_bit_gate),
                                   T(refused_pushes_are_a_double_fault),
                                   T(call_gate_with_parameters),
                                   T(call_gate_of_16_bits),
                                   T(task_switch_by_jump),
                                   T(task_switch_by_call_and_iret),
                                   T(task_switch_by_a_task_gate),
                                   T(task_switch_with_16_bit_tss),
                                   T(refused_task_switches),
                                   T(rules_behind_the_commit_point),
                                   T(faults_behind_the_commit_point),
                                   T(virtual_8086_code),
                                   T(virtual_8086_interrupts),
                                   T(virtual_8086_interrupts_that_stay_there),
                                   {0, 0}};
