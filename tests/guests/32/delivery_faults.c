/*
 * delivery_faults.c - an exception whose delivery meets another one: which pairs make a double
 * fault, what #DF saves, and #DF by a task gate (SDM vol. 3, 6.15, table 6-5). QEMU knows no EXT,
 * no limits, no #AC, and has #TS for an absent inner stack.
 */
#include "machine.h"
#include "paging32.h"
#include "task.h"

/* ---- First exceptions --------------------------------------------------------------------------
 */

CODE32(raise_de, "divl %ecx");
CODE32(raise_ud, "ud2");
CODE32(raise_br, "boundl %eax, bounds_pair");
CODE32(raise_int, "int $0x40");
CODE32(raise_bp, "int3");
CODE32(raise_ac, "movl 1(%ebx), %eax");
CODE32(raise_ts, "iretl"); /* with NT, and no back link */
CODE32(raise_np, "movw %dx, %fs");
CODE32(raise_ss, "movl %ss:(%ebx), %eax");
CODE32(raise_gp, "hlt");
CODE32(raise_pf, "movl (%esi), %eax");
static const uint32_t bounds_pair[2] __attribute__((used)) = {1, 2};
static uint32_t ss_words[2];

enum class { BENIGN, CONTRIBUTORY, PAGE };
static const struct first {
    const char *name, *code;
    unsigned vector;
    enum class class;
    bool software; /* EXT = 0 */
} firsts[] = {
    {"#DE", raise_de, V_DE, CONTRIBUTORY, false}, {"#UD", raise_ud, V_UD, BENIGN, false},
    {"#BR", raise_br, V_BR, BENIGN, false},       {"INT n", raise_int, 0x40, BENIGN, true},
    {"INT3", raise_bp, V_BP, BENIGN, true},       {"#AC", raise_ac, V_AC, BENIGN, false},
    {"#TS", raise_ts, V_TS, CONTRIBUTORY, false}, {"#NP", raise_np, V_NP, CONTRIBUTORY, false},
    {"#SS", raise_ss, V_SS, CONTRIBUTORY, false}, {"#GP", raise_gp, V_GP, CONTRIBUTORY, false},
    {"#PF", raise_pf, V_PF, PAGE, false},
};

static struct trap raise(const struct first *f)
{
    struct context c = context_ring((word)f->code, 3);
    if (f->vector == V_AC)
        c.rflags |= F_AC;
    if (f->vector == V_TS)
        c.rflags |= F_NT;
    if (f->vector == V_SS) {
        gdt[FREE(7) / 8] = descriptor((word)ss_words, 3, D_DATA | D_BIG | D_DPL3);
        c.ss = FREE(7) | 3;
        c.rbx = 4;
    } else {
        c.rbx = (word)ss_words;
    }
    gdt[FREE(8) / 8] = descriptor(0, 0xfffff, (D_DATA | FLAT | D_DPL3) & ~D_PRESENT);
    c.rdx = FREE(8) | 3;
    c.rsi = (word)WINDOW(0) + 0x123; /* not present */
    MAIN_TSS->link = 0;
    return RUN(c);
}

static void setup(void)
{
    rings_setup();
    paging_on();
    write_cr0(read_cr0() | 1 << 18); /* AM */
    window_set(0, 0);
    set_gate(0x40, (word)trap_stubs + 16 * 0x40, SEL_CODE, 14, 3, 0);
}
static void finish(void)
{
    write_cr0(read_cr0() & ~(word)(1 << 18));
    paging_off();
}

TEST(the_first_exceptions_alone)
{
    setup();
    for (unsigned i = 0; i < sizeof(firsts) / sizeof(firsts[0]); i++) {
        struct trap t = raise(&firsts[i]);
        if (t.vector != firsts[i].vector)
            print("  %s: vector %u\n", firsts[i].name, (unsigned)t.vector);
        CHECK_EQ(t.vector, firsts[i].vector);
    }
    finish();
}

/* ---- Second exceptions, met on the way to the first one's handler ------------------------------
 */

enum second {
    ABSENT_GATE,
    BAD_GATE,
    BAD_STACK,
    ABSENT_STACK,
    FULL_STACK,
    PAGED_DESCRIPTOR,
    PAGED_STACK
};
enum { SECONDS = PAGED_STACK + 1 };
static const struct {
    const char *name;
    unsigned vector;
} seconds[SECONDS] = {{"absent gate", V_NP},
                      {"bad gate", V_GP},
                      {"bad stack", V_TS},
                      {"absent stack", V_SS},
                      {"full stack", V_SS},
                      {"descriptor on an absent page", V_PF},
                      {"stack on an absent page", V_PF}};

/* Makes `vector`'s gate meet it. Stacks of CPL 1 are the bad ones, so that the second exception's
 * own handler, at CPL 0, has a good one. */
static void break_gate(unsigned vector, enum second second)
{
    word stub = (word)trap_stubs + 16 * vector;
    set_gate(vector, stub, ring_code(1) & ~3u, 14, 3, 0);
    switch (second) {
    case ABSENT_GATE:
        idt[vector].word[1] &= ~0x8000u;
        break;
    case BAD_GATE:
        idt[vector].word[1] = 0xec00; /* a call gate */
        break;
    case BAD_STACK:
        tss[4] = SEL_UDATA;
        break;
    case ABSENT_STACK:
        gdt[FREE(9) / 8] = descriptor(0, 0xfffff, (D_DATA | FLAT | ATTR_DPL(1)) & ~D_PRESENT);
        tss[4] = FREE(9) | 1;
        break;
    case FULL_STACK:
        gdt[FREE(9) / 8] = descriptor(0, 0xfff, D_DATA | D_BIG | ATTR_DPL(1));
        tss[4] = FREE(9) | 1;
        tss[3] = 8;
        break;
    case PAGED_DESCRIPTOR: /* in an LDT that lies in the window */
        gdt[FREE(10) / 8] = descriptor((word)WINDOW(1), 0xfff, D_LDT);
        asm volatile("lldt %w0" ::"r"(FREE(10)) : "memory");
        window_set(1, 0);
        set_gate(vector, stub, LDT_ENTRY(3), 14, 3, 0);
        break;
    case PAGED_STACK:
        tss[3] = (word)WINDOW(2) + 4; /* one item above the page's beginning; below it nothing */
        window_set(1, 0);
        window_set(2, PG_ALL);
        break;
    }
}

/* What the second one's error code is; with EXT unless software asked for the first. */
static unsigned error_of(enum second second, unsigned vector, bool software)
{
    unsigned ext = software ? 0 : 1;
    switch (second) {
    case ABSENT_GATE:
    case BAD_GATE:
        return vector * 8 + 2 + ext;
    case BAD_STACK:
        return (SEL_UDATA & ~3u) + ext;
    case ABSENT_STACK:
    case FULL_STACK:
        return FREE(9) + ext;
    case PAGED_DESCRIPTOR:
        return 0; /* read, supervisor, not present */
    default:
        return PF_W;
    }
}

static void pair(const struct first *first, enum second second)
{
    setup();
    break_gate(first->vector, second);
    struct trap t = raise(first);
    bool second_pages = seconds[second].vector == V_PF;
    bool df = (first->class == CONTRIBUTORY && !second_pages) || first->class == PAGE;
    unsigned vector = df ? V_DF : seconds[second].vector;
    unsigned error = df ? 0 : error_of(second, first->vector, first->software);
    if (t.vector != vector || t.error != error)
        print("  %s, then %s: vector %u error %x\n", first->name, seconds[second].name,
              (unsigned)t.vector, (unsigned)t.error);
    CHECK_EQ(t.vector, vector);
    CHECK_EQ(t.error, error);
    /* Each leaves the instruction that began it all, and its stack. */
    CHECK_EQ(t.rip, (word)first->code);
    CHECK_EQ(t.cs, SEL_UCODE);
    CHECK_EQ(t.ss, first->vector == V_SS ? FREE(7) | 3 : SEL_UDATA);
    if (second == PAGED_DESCRIPTOR)
        CHECK_EQ(t.cr2, (word)WINDOW(1) + 24);
    else if (second == PAGED_STACK)
        CHECK_EQ(t.cr2, (word)WINDOW(2) - 4);
    else if (first->class == PAGE)
        CHECK_EQ(t.cr2, (word)WINDOW(0) + 0x123);
    set_gate(first->vector, (word)trap_stubs + 16 * first->vector, SEL_CODE, 14, 0, 0);
    finish();
}

TEST(pairs)
{
    for (unsigned i = 0; i < sizeof(firsts) / sizeof(firsts[0]); i++) {
        for (unsigned s = 0; s < SECONDS; s++)
            pair(&firsts[i], (enum second)s);
    }
}

/* Three in a row without a double fault: benign, contributory, page fault. #UD's gate is absent,
 * #NP's handler has its code segment on an absent page. */
TEST(a_chain_of_three)
{
    setup();
    break_gate(V_NP, PAGED_DESCRIPTOR);
    idt[V_UD].word[1] &= ~0x8000u;
    struct trap t = raise(&firsts[1]);
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.error, 0);
    CHECK_EQ(t.cr2, (word)WINDOW(1) + 24);
    CHECK_EQ(t.rip, (word)raise_ud);
    set_gate(V_NP, (word)trap_stubs + 16 * V_NP, SEL_CODE, 14, 0, 0);
    set_gate(V_UD, (word)trap_stubs + 16 * V_UD, SEL_CODE, 14, 0, 0);
    finish();
}

/* And with one: benign, then two contributory ones. */
TEST(a_double_fault_at_the_third)
{
    setup();
    idt[V_UD].word[1] &= ~0x8000u;
    idt[V_NP].word[1] &= ~0x8000u;
    struct trap t = raise(&firsts[1]);
    CHECK_EQ(t.vector, V_DF);
    CHECK_EQ(t.error, 0);
    CHECK_EQ(t.rip, (word)raise_ud);
    set_gate(V_NP, (word)trap_stubs + 16 * V_NP, SEL_CODE, 14, 0, 0);
    set_gate(V_UD, (word)trap_stubs + 16 * V_UD, SEL_CODE, 14, 0, 0);
    finish();
}

static __attribute__((noinline, noclone)) struct trap interrupted(void)
{
    apic_write(APIC_ICR, 0x44000 | 0x51);
    return CATCH(asm volatile("sti; nop\n" LABEL(external_here) "nop; nop; cli" ::: "memory"));
}

/* An external interrupt is benign, whatever its vector is the number of. */
TEST(external_interrupts_are_benign)
{
    setup();
    apic_quiet();
    idt[0x51].word[1] = 0;
    struct trap t = interrupted();
    apic_eoi(0);
    CHECK_TRAP(t, V_GP, 0x51 * 8 + 3, SYMBOL(external_here));
    idt[V_GP].word[1] &= ~0x8000u; /* but the #GP that it brings is not */
    t = interrupted();
    apic_eoi(0);
    CHECK_TRAP(t, V_DF, 0, SYMBOL(external_here));
    set_gate(V_GP, (word)trap_stubs + 16 * V_GP, SEL_CODE, 14, 0, 0);
    finish();
}

/* INT 8 is no double fault: its failing delivery ends in an ordinary exception. */
CODE32(int_8, "int $8");

TEST(int_8_is_benign)
{
    setup();
    set_gate(V_DF, 0, SEL_DATA, 14, 3, 0);
    struct context c = context_ring((word)int_8, 3);
    struct trap t = RUN(c);
    CHECK_TRAP(t, V_GP, SEL_DATA, (word)int_8);
    set_gate(V_DF, (word)trap_stubs + 16 * V_DF, SEL_CODE, 14, 0, 0);
    finish();
}

/* ---- By a task gate ----------------------------------------------------------------------------
 */

static uint32_t df_error __attribute__((used));
CODE32(df_task, "popl df_error; andb $0xfd, gdt + 0x48 + 5; addl $2, tss + 32; jmp task_entry");

TEST(double_fault_by_a_task_gate)
{
    rings_setup();
    struct tss32 *t = task_new(0);
    t->eip = (word)df_task;
    df_error = 0xffff;
    set_gate(V_DF, 0, TASK(0), 5, 0, 0);
    idt[V_GP].word[1] &= ~0x8000u;
    uint32_t esp;
    /* #GP at CPL 0 by a bad selector, then #NP: the task skips the instruction, as no real one
     * should. */
    asm volatile("movl %%esp, %0; movl %1, %%eax\n" LABEL(df_here) "movl %%eax, %%fs"
                 : "=m"(esp)
                 : "i"(SEL_TSS)
                 : "eax", "memory", "cc");
    asm volatile("clts" ::: "memory");
    set_gate(V_GP, (word)trap_stubs + 16 * V_GP, SEL_CODE, 14, 0, 0);
    set_gate(V_DF, (word)trap_stubs + 16 * V_DF, SEL_CODE, 14, 0, 0);
    CHECK_EQ(df_error, 0);
    CHECK_EQ(MAIN_TSS->eip, SYMBOL(df_here) + 2);
    CHECK_EQ(MAIN_TSS->esp, esp);
    CHECK_EQ(task_seen.tr, TASK(0));
    CHECK_EQ(task_seen.regs.eflags & F_NT, F_NT);
    CHECK_EQ(t->link & 0xffff, SEL_TSS);
}

/* With the stack gone at CPL 0 only a task can take the double fault. */
CODE32(df_stack_task, "popl df_error; andb $0xfd, gdt + 0x48 + 5; movl saved_esp, %eax;"
                      "movl %eax, tss + 56; movl $stack_lost_after, tss + 32; jmp task_entry");
static uint32_t saved_esp __attribute__((used));

TEST(stack_lost_at_cpl_0)
{
    rings_setup();
    paging_on();
    struct tss32 *t = task_new(0);
    t->eip = (word)df_stack_task;
    t->cr3 = (word)page_directory;
    MAIN_TSS->cr3 = (word)page_directory;
    df_error = 0xffff;
    set_gate(V_DF, 0, TASK(0), 5, 0, 0);
    window_set(0, 0);
    asm volatile(
        "pushal; movl %%esp, saved_esp; movl %0, %%esp\n" LABEL(stack_lost_here) "pushl $0\n" LABEL(
            stack_lost_after) "popal; clts" ::"i"(WINDOW_BASE + 0x800)
        : "memory", "cc");
    set_gate(V_DF, (word)trap_stubs + 16 * V_DF, SEL_CODE, 14, 0, 0);
    CHECK_EQ(df_error, 0);
    CHECK_EQ(MAIN_TSS->eip, SYMBOL(stack_lost_after));
    CHECK_EQ(read_cr2(), WINDOW_BASE + 0x800 - 4); /* of the frame's first item */
    MAIN_TSS->cr3 = 0;
    paging_off();
}

const struct test guest_tests[] = {T(the_first_exceptions_alone),
                                   T(pairs),
                                   T(a_chain_of_three),
                                   T(a_double_fault_at_the_third),
                                   T(external_interrupts_are_benign),
                                   T(int_8_is_benign),
                                   T(double_fault_by_a_task_gate),
                                   T(stack_lost_at_cpl_0),
                                   {0, 0}};
