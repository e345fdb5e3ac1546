/*
 * task_faults.c - task switches that fail: before the commit point in the old task, behind it in
 * the new one; IRET's back link (SDM vol. 3, 7.3, table 7-1).
 *
 * QEMU gives #TS for some of what a task gate names wrongly and for an absent CS, #NP for an absent
 * SS, takes TSSs in the LDT, saves the old task's EIP when the new one faults, and knows no EXT
 * here.
 *
 * Faults in the new task arrive in a task of their own (task 2), since their stack may be what is
 * wrong. Its TSS links to the task that faulted.
 */
#include "task.h"

struct verdict {
    unsigned vector, error;
};

CODE32(jump, LABEL(jump_here) "ljmp *(%ebx)");
CODE32(call, LABEL(call_here) "lcall *(%ebx)");
static uint32_t pointer[2];

static struct trap at_ring(const char *code, unsigned selector, unsigned cpl)
{
    struct context c = context_ring((word)code, cpl);
    pointer[1] = selector;
    c.rbx = (word)pointer;
    return RUN(c);
}

/* ---- Before the switch -------------------------------------------------------------------------
 */

static unsigned complaints;
static void refused(const char *code, unsigned selector, unsigned cpl, struct verdict v)
{
    struct trap t = at_ring(code, selector, cpl);
    uint16_t tr;
    asm volatile("str %0" : "=m"(tr));
    if (t.vector != v.vector || t.error != v.error ||
        t.rip != (code == jump ? SYMBOL(jump_here) : SYMBOL(call_here)) || tr != SEL_TSS) {
        if (complaints++ < 5)
            print("  %s to %x at CPL %u: vector %u error %x, expected %u error %x\n",
                  code == jump ? "jmp" : "call", selector, cpl, (unsigned)t.vector,
                  (unsigned)t.error, v.vector, v.error);
    }
    if (tr != SEL_TSS)
        task_home();
}

static unsigned dpl_of(unsigned access)
{
    return access >> 5 & 3;
}

/* Every system descriptor, DPL, RPL and CPL that does not lead into a task. */
TEST(who_may_switch)
{
    static const uint8_t types[] = {1, 3, 9, 11};
    rings_setup();
    task_new(0);
    complaints = 0;
    for (unsigned bits = 0; bits < 512; bits++) {
        unsigned cpl = bits & 3, rpl = bits >> 2 & 3, sel = FREE(4) | rpl;
        unsigned access = types[bits >> 4 & 3] | ATTR_DPL(bits >> 6 & 3) | (bits >> 8 & 1) << 7;
        gdt[FREE(4) / 8] = descriptor((word)&task_tss[0], 103, access);
        struct verdict v;
        if (dpl_of(access) < cpl || dpl_of(access) < rpl || access & D_BUSY)
            v = (struct verdict){V_GP, FREE(4)};
        else if (!(access & D_PRESENT))
            v = (struct verdict){V_NP, FREE(4)};
        else
            continue;
        refused(jump, sel, cpl, v);
        refused(call, sel, cpl, v);
        CHECK_EQ(desc_type(FREE(4)), access);
    }
    CHECK_EQ(complaints, 0);
}

/* The gate's DPL counts, not the TSS's. */
TEST(who_may_use_a_task_gate)
{
    rings_setup();
    complaints = 0;
    for (unsigned bits = 0; bits < 128; bits++) {
        unsigned cpl = bits & 3, rpl = bits >> 2 & 3, sel = FREE(4) | rpl;
        unsigned access = 5 | ATTR_DPL(bits >> 4 & 3) | (bits >> 6 & 1) << 7;
        gdt[FREE(4) / 8] = gate(FREE(5), 0, access, 0);
        gdt[FREE(5) / 8] = descriptor((word)&task_tss[0], 103, D_TSS32 & ~D_PRESENT);
        struct verdict v;
        if (dpl_of(access) < cpl || dpl_of(access) < rpl)
            v = (struct verdict){V_GP, FREE(4)};
        else if (!(access & D_PRESENT))
            v = (struct verdict){V_NP, FREE(4)};
        else
            v = (struct verdict){V_NP, FREE(5)};
        refused(jump, sel, cpl, v);
        refused(call, sel, cpl, v);
    }
    CHECK_EQ(complaints, 0);
}

static __attribute__((noinline, noclone)) struct trap int_40(void)
{
    return CATCH(asm volatile("int $0x40" ::: "memory"));
}

TEST(what_a_task_gate_names)
{
    rings_setup();
    ldt_setup(FREE(5));
    complaints = 0;
    for (unsigned access = 0; access < 256; access++) {
        unsigned type = access & 0x1f;
        if ((type == 1 || type == 9) && access & D_PRESENT)
            continue;
        gdt[FREE(4) / 8] = descriptor((word)&task_tss[0], 103, access);
        task_gate(FREE(4), 0);
        unsigned vector = type == 1 || type == 9 ? V_NP : V_GP;
        refused(jump, TASK_GATE, 0, (struct verdict){vector, FREE(4)});
        set_gate(0x40, 0, FREE(4), 5, 0, 0);
        struct trap t = int_40();
        CHECK_EQ(t.vector, vector);
        CHECK_EQ(t.error, FREE(4)); /* EXT is clear: software asked for it */
    }
    CHECK_EQ(complaints, 0);
    static const uint16_t bad[] = {0, 3, 0xfff8, LDT_ENTRY(0)};
    ldt[0] = descriptor((word)&task_tss[0], 103, D_TSS32);
    for (unsigned i = 0; i < 4; i++) {
        task_gate(bad[i], 0);
        refused(jump, TASK_GATE, 0, (struct verdict){V_GP, bad[i] & ~3u});
        set_gate(0x40, 0, bad[i], 5, 0, 0);
        struct trap t = int_40();
        CHECK_EQ(t.vector, V_GP);
        CHECK_EQ(t.error, bad[i] & ~3u);
    }
    CHECK_EQ(complaints, 0);
}

TEST(a_tss_in_the_ldt_is_none)
{
    rings_setup();
    task_new(0);
    ldt_setup(FREE(5));
    ldt[2] = gdt[TASK(0) / 8];
    complaints = 0;
    refused(jump, LDT_ENTRY(2), 0, (struct verdict){V_GP, LDT_ENTRY(2)});
    refused(call, LDT_ENTRY(2), 0, (struct verdict){V_GP, LDT_ENTRY(2)});
    CHECK_EQ(complaints, 0);
}

TEST(tss_limits)
{
    rings_setup();
    task_new(0);
    complaints = 0;
    gdt[FREE(4) / 8] = descriptor((word)&task_tss[0], 102, D_TSS32);
    refused(jump, FREE(4), 0, (struct verdict){V_TS, FREE(4)});
    refused(call, FREE(4), 0, (struct verdict){V_TS, FREE(4)});
    CHECK_EQ(desc_type(FREE(4)), D_TSS32);
    gdt[FREE(4) / 8] = descriptor((word)&task_tss[0], 42, D_TSS16);
    refused(jump, FREE(4), 0, (struct verdict){V_TS, FREE(4)});
    CHECK_EQ(complaints, 0);
}

CODE32(user_int, "int $0x40");

TEST(int_through_a_task_gate_checks_dpl_and_presence)
{
    rings_setup();
    task_new(0);
    struct context c = context_ring((word)user_int, 3);
    set_gate(0x40, 0, TASK(0), 5, 2, 0);
    struct trap t = RUN(c);
    CHECK_TRAP(t, V_GP, 0x40 * 8 + 2, (word)user_int);
    set_gate(0x40, 0, TASK(0), 5, 3, 0);
    idt[0x40].word[1] &= ~0x8000u;
    t = RUN(c);
    CHECK_TRAP(t, V_NP, 0x40 * 8 + 2, (word)user_int);
    CHECK(!(desc_type(TASK(0)) & D_BUSY));
}

/* ---- IRET --------------------------------------------------------------------------------------
 */

CODE32(iret_nt, "pushfl; orl $0x4000, (%esp); popfl\n" LABEL(iret_nt_here) "iretl");

static struct trap iret_to(unsigned link)
{
    MAIN_TSS->link = link;
    struct context c = context_ring((word)iret_nt, 3);
    return RUN(c);
}

TEST(back_links)
{
    rings_setup();
    CHECK_TRAP(iret_to(0), V_TS, 0, SYMBOL(iret_nt_here));
    CHECK_TRAP(iret_to(0xfff8), V_TS, 0xfff8, SYMBOL(iret_nt_here));
    ldt_setup(FREE(5));
    ldt[0] = descriptor((word)&task_tss[0], 103, D_TSS32 | D_BUSY);
    CHECK_TRAP(iret_to(LDT_ENTRY(0)), V_TS, LDT_ENTRY(0), SYMBOL(iret_nt_here));
    for (unsigned access = 0; access < 256; access++) {
        unsigned type = access & 0x1f;
        if ((type == 3 || type == 11) && access & D_PRESENT)
            continue; /* a busy TSS, whatever its DPL */
        gdt[FREE(4) / 8] = descriptor((word)&task_tss[0], 103, access);
        struct trap t = iret_to(FREE(4));
        CHECK_TRAP(t, type == 3 || type == 11 ? V_NP : V_TS, FREE(4), SYMBOL(iret_nt_here));
        CHECK_EQ(t.rflags & F_NT, F_NT);
    }
    gdt[FREE(4) / 8] = descriptor((word)&task_tss[0], 102, D_TSS32 | D_BUSY);
    CHECK_TRAP(iret_to(FREE(4)), V_TS, FREE(4), SYMBOL(iret_nt_here));
}

/* ---- In the new task ---------------------------------------------------------------------------
 */

/* Task 2 takes the faults: it notes the error code and its vector, and goes home by JMP. */
static uint32_t rescue_error, rescue_vector;
asm(".pushsection .text\n" LABEL(rescue_10) "movl $10, rescue_vector; jmp rescue\n" LABEL(rescue_11) "movl $11, rescue_vector; jmp rescue\n" LABEL(
    rescue_12) "movl $12, rescue_vector; jmp rescue\n" LABEL(rescue_13) "movl $13, rescue_vector; "
                                                                        "jmp rescue\n"
                                                                        "rescue: popl "
                                                                        "rescue_error; jmp "
                                                                        "task_entry\n.popsection");

static void jump_to(unsigned selector)
{
    static struct {
        uint32_t offset;
        uint16_t selector;
    } to;
    to.selector = (uint16_t)selector;
    asm volatile("ljmp *%0" ::"m"(to) : "memory", "cc");
}

/* Every vector has a TSS descriptor of its own for task 2's state, with its own entry point. */
static struct tss32 rescue_tss[4];
static void rescue_setup(void)
{
    const word entry[4] = {SYMBOL(rescue_10), SYMBOL(rescue_11), SYMBOL(rescue_12),
                           SYMBOL(rescue_13)};
    task_new(2);
    for (unsigned i = 0; i < 4; i++) {
        rescue_tss[i] = task_tss[2];
        rescue_tss[i].eip = entry[i];
        gdt[FREE(6 + i) / 8] = descriptor((word)&rescue_tss[i], 103, D_TSS32);
        set_gate(10 + i, 0, FREE(6 + i), 5, 0, 0);
    }
}
static void rescue_off(void)
{
    for (unsigned v = 10; v < 14; v++)
        set_gate(v, (word)trap_stubs + 16 * v, SEL_CODE, 14, 0, 0);
}

static unsigned wrong_eip; /* QEMU: the old task's */

/* The fault that JMP to `selector` ends in, and the new task's EIP as it was saved. */
static struct verdict fault_in(unsigned selector, struct tss32 *t)
{
    uint32_t eip = t->eip;
    rescue_setup();
    rescue_vector = rescue_error = 0xffff;
    asm volatile("" ::: "memory");
    jump_to(selector);
    asm volatile("" ::: "memory");
    asm volatile("clts");
    rescue_off();
    if (rescue_vector != 0xffff) {
        CHECK_EQ(rescue_tss[rescue_vector - 10].link & 0xffff, selector);
        wrong_eip += t->eip != eip; /* nothing of it has run */
        CHECK(desc_type(selector) & D_BUSY);
    }
    CHECK(desc_type(SEL_TSS) & D_BUSY);
    return (struct verdict){rescue_vector, rescue_error};
}

#define CHECK_FAULT(vector_, error_)                                                               \
    do {                                                                                           \
        struct verdict v_ = fault_in(TASK(0), t);                                                  \
        CHECK_EQ(v_.vector, vector_);                                                              \
        CHECK_EQ(v_.error, error_);                                                                \
        t = task_new(0);                                                                           \
    } while (0)

TEST(bad_ldt)
{
    struct tss32 *t = task_new(0);
    t->ldt = 0xfff8;
    CHECK_FAULT(V_TS, 0xfff8);
    t->ldt = LDT_ENTRY(0);
    CHECK_FAULT(V_TS, LDT_ENTRY(0));
    for (unsigned access = 0; access < 256; access++) {
        gdt[FREE(4) / 8] = descriptor((word)ldt, 31, access);
        if ((access & 0x9f) == (D_LDT & 0x9f))
            continue;
        t->ldt = FREE(4);
        CHECK_FAULT(V_TS, FREE(4)); /* absent ones are #TS, too */
    }
}

TEST(bad_cs)
{
    struct tss32 *t = task_new(0);
    t->cs = 0;
    CHECK_FAULT(V_TS, 0);
    t->cs = 0xfff8;
    CHECK_FAULT(V_TS, 0xfff8);
    t->cs = LDT_ENTRY(0);
    CHECK_FAULT(V_TS, LDT_ENTRY(0));
    for (unsigned access = 0; access < 256; access++) {
        for (unsigned rpl = 0; rpl < 4; rpl += 3) {
            bool code = (access & 0x18) == 0x18, conforming = access & 4;
            bool ok = code && (conforming ? dpl_of(access) <= rpl : dpl_of(access) == rpl);
            if (ok && access & D_PRESENT)
                continue;
            gdt[FREE(4) / 8] = descriptor(0, 0xfffff, access | FLAT);
            t->cs = FREE(4) | rpl;
            t->ss = rpl ? SEL_UDATA : SEL_DATA;
            CHECK_FAULT(ok ? V_NP : V_TS, FREE(4));
        }
    }
}

TEST(bad_ss)
{
    struct tss32 *t = task_new(0);
    t->ss = 0;
    CHECK_FAULT(V_TS, 0);
    t->ss = 0xfff8;
    CHECK_FAULT(V_TS, 0xfff8);
    t->ss = SEL_UDATA;
    CHECK_FAULT(V_TS, SEL_UDATA & ~3u);
    for (unsigned access = 0; access < 256; access++) {
        for (unsigned rpl = 0; rpl < 4; rpl++) {
            bool ok = (access & 0x1a) == 0x12 && dpl_of(access) == 0 && rpl == 0;
            if (ok && access & D_PRESENT)
                continue;
            gdt[FREE(4) / 8] = descriptor(0, 0xfffff, access | FLAT);
            t->ss = FREE(4) | rpl;
            CHECK_FAULT(ok ? V_SS : V_TS, FREE(4));
        }
    }
}

TEST(bad_data_segments)
{
    struct tss32 *t = task_new(0);
    uint32_t *const fields[] = {&t->ds, &t->es, &t->fs, &t->gs};
    for (unsigned i = 0; i < 4; i++) {
        *fields[i] = 0xfff8;
        CHECK_FAULT(V_TS, 0xfff8);
        *fields[i] = LDT_ENTRY(2);
        CHECK_FAULT(V_TS, LDT_ENTRY(2));
        for (unsigned access = 0; access < 256; access++) {
            for (unsigned rpl = 0; rpl < 4; rpl += 3) {
                bool code = (access & 0x18) == 0x18, conforming = code && access & 4;
                bool ok =
                    access & 0x10 && (!code || access & 2) && (conforming || dpl_of(access) >= rpl);
                if (ok && access & D_PRESENT)
                    continue;
                gdt[FREE(4) / 8] = descriptor(0, 0xfffff, access | FLAT);
                *fields[i] = FREE(4) | rpl;
                CHECK_FAULT(ok ? V_NP : V_TS, FREE(4));
            }
        }
    }
}

/* The stack of the new task serves as soon as SS is loaded, in its own size. */
TEST(late_faults_are_pushed_on_the_new_stack)
{
    struct tss32 *t = task_new(0);
    memset(task_stack[0], 0, sizeof task_stack[0]);
    t->ds = 0xfff8;
    struct trap trap = CATCH(jump_to(TASK(0)));
    const uint32_t *pushed = (const uint32_t *)(t->esp - 16);
    CHECK_TRAP(trap, V_TS, 0xfff8, SYMBOL(task_entry));
    CHECK_EQ(pushed[0], 0xfff8);
    CHECK_EQ(pushed[1], SYMBOL(task_entry));
    CHECK_EQ(pushed[2], SEL_CODE);
    task_home();
}

TEST(bad_eip)
{
    struct tss32 *t = task_new(0);
    gdt[FREE(4) / 8] = descriptor(0, 0xfffff, D_CODE | D_BIG);
    t->cs = FREE(4);
    t->eip = 0x100000;
    CHECK_FAULT(V_GP, 0);
}

TEST(several_faults_at_once)
{
    struct tss32 *t = task_new(0);
    t->ldt = 0xfff8;
    t->cs = t->ss = t->ds = 0xffe8;
    CHECK_FAULT(V_TS, 0xfff8); /* LDT, then CS, then SS, then the others (table 7-1) */
    t->cs = 0xffe8;
    t->ss = 0xffd8;
    t->ds = 0xffc8;
    CHECK_FAULT(V_TS, 0xffe8);
    t->ss = 0xffd8;
    t->ds = 0xffc8;
    CHECK_FAULT(V_TS, 0xffd8);
}

/* EXT in the error code tells that it was no INT n that led there. Main stays busy while the task
 * is nested in it, so the rescuer has to free it before its JMP. */
CODE32(rescue_nested, "popl rescue_error; andb $0xfd, gdt + 0x48 + 5; movl skip, %eax;"
                      "addl %eax, tss + 32; jmp task_entry");
static uint32_t skip __attribute__((used)); /* bytes of the instruction that main stopped at */

static uint32_t nested_fault(bool exception)
{
    struct tss32 *t = task_new(0);
    t->ds = 0xfff8;
    rescue_setup();
    rescue_tss[0].eip = (word)rescue_nested;
    rescue_error = 0xffff;
    set_gate(V_UD, 0, TASK(0), 5, 0, 0);
    set_gate(0x40, 0, TASK(0), 5, 0, 0);
    asm volatile("" ::: "memory");
    skip = exception ? 2 : 0; /* UD2 */
    asm volatile("" ::: "memory");
    if (exception)
        asm volatile("ud2" ::: "memory", "cc");
    else
        asm volatile("int $0x40" ::: "memory", "cc");
    asm volatile("clts" ::: "memory");
    rescue_off();
    set_gate(V_UD, (word)trap_stubs + 16 * V_UD, SEL_CODE, 14, 0, 0);
    CHECK_EQ(rescue_tss[0].link & 0xffff, TASK(0));
    CHECK_EQ(t->link & 0xffff, SEL_TSS);
    CHECK_EQ(t->eflags & F_NT, F_NT); /* saved of the task that never ran */
    return rescue_error;
}

TEST(ext_for_events)
{
    CHECK_EQ(wrong_eip, 0); /* of all the tests above */
    CHECK_EQ(nested_fault(false), 0xfff8);
    CHECK_EQ(nested_fault(true), 0xfff8 | 1);
}

const struct test guest_tests[] = {T(who_may_switch),
                                   T(who_may_use_a_task_gate),
                                   T(what_a_task_gate_names),
                                   T(a_tss_in_the_ldt_is_none),
                                   T(tss_limits),
                                   T(int_through_a_task_gate_checks_dpl_and_presence),
                                   T(back_links),
                                   T(bad_ldt),
                                   T(bad_cs),
                                   T(bad_ss),
                                   T(bad_data_segments),
                                   T(late_faults_are_pushed_on_the_new_stack),
                                   T(bad_eip),
                                   T(several_faults_at_once),
                                   T(ext_for_events),
                                   {0, 0}};
