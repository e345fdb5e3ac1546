/*
 * far.c - far JMP, CALL and RET in 64-bit mode: between 64-bit and compatibility code, and through
 * call gates of 16 bytes (SDM vol. 3, 5.8; vol. 2, JMP, CALL, RET).
 */
#include "context.h"
#include "paging.h"

enum {
    GATE = 0x62,
    CODE64_1 = FREE(0),
    CONFORMING = FREE(1),
    BAD = FREE(2),
    CALL_GATE = FREE(4), /* two entries */
    LAST = 31 * 8,
    D_CODE64 = D_CODE | D_LONG,
};
#define NON_CANONICAL 0x800000000000ull

static char stacks[2][4096] __attribute__((aligned(16)));
static word stack_end(unsigned n)
{
    return (word)stacks[n] + sizeof stacks[n];
}

static struct __attribute__((packed)) {
    uint32_t offset;
    uint16_t selector;
} far32;
static struct __attribute__((packed)) {
    uint16_t offset, selector;
} far16;

/* INT 62h wherever it is, in any code size. */
asm(LABEL(arrive) "int $0x62\n" LABEL(arrive_end) "nop");

static void set_up(void)
{
    gdt[CODE64_1 / 8] = descriptor(0, 0xfffff, D_CODE64 | 0x20 | D_PAGES);
    gdt[CONFORMING / 8] = descriptor(0, 0xfffff, D_CONFORMING | D_LONG | D_PAGES);
    set_gate(GATE, (word)trap_stubs + 16 * GATE, SEL_CODE, 14, 3, 0);
    asm volatile("mov %0, %%ss; lldt %w1" ::"r"(SEL_DATA), "r"(0));
}

/* ---- Direct ---------------------------------------------------------------------------------- */

static struct trap jump(unsigned selector, uint32_t offset)
{
    far32.selector = (uint16_t)selector;
    far32.offset = offset;
    return CATCH(asm volatile(LABEL(far_jump) "ljmpl *%0" ::"m"(far32)));
}
static word call_rsp;
static struct trap call(unsigned selector, uint32_t offset)
{
    far32.selector = (uint16_t)selector;
    far32.offset = offset;
    return CATCH(asm volatile(
        "mov %%rsp, %1\n" LABEL(far_call) "lcalll *%0\n" LABEL(far_call_end) "nop" ::"m"(far32),
        "m"(call_rsp)
        : "memory"));
}

TEST(jump_to_each_code_size)
{
    static const unsigned to[] = {SEL_CODE64, SEL_CODE32, CONFORMING};
    set_up();
    for (volatile unsigned i = 0; i < sizeof to / sizeof to[0]; i++) {
        struct trap t = jump(to[i], (uint32_t)SYMBOL(arrive));
        CHECK_TRAP(t, GATE, 0, SYMBOL(arrive_end));
        CHECK_EQ(t.cs, to[i]);
    }
    memcpy((void *)0x5000, (void *)SYMBOL(arrive), 2);
    far16.offset = 0x5000, far16.selector = SEL_CODE16;
    struct trap t = CATCH(asm volatile("ljmpw *%0" ::"m"(far16)));
    CHECK_TRAP(t, GATE, 0, 0x5002);
    CHECK_EQ(t.cs, SEL_CODE16);
}

/* From compatibility code back, by the direct forms that 64-bit code lacks. */
asm(".code32\n" LABEL(
    compat_code) "ljmp $0x18, $1f\n"
                 ".code64\n1: mov $0x1234, %r8; lea back_call(%rip), %rax; mov %eax, far_back; "
                 "movw $8, "
                 "far_back+4; ljmpl *far_back\n"
                 ".code32\n" LABEL(back_call) "lcall $0x18, $2f\n" LABEL(
                     back_end) "int $0x62\n"
                               ".code64\n2: mov (%rsp), %r9d; mov 4(%rsp), %r10d; lretl\n"
                               ".data\nfar_back: .skip 6\n.text");
TEST(there_and_back)
{
    set_up();
    struct context c = context_at(SYMBOL(compat_code), SEL_CODE32, SEL_DATA);
    c.r8 = 0;
    struct trap t = RUN(c);
    CHECK_TRAP(t, GATE, 0, SYMBOL(back_end) + 2);
    CHECK_EQ(t.cs, SEL_CODE32);
    CHECK_EQ(t.frame.r8, 0x1234);
    CHECK_EQ(t.frame.r9, SYMBOL(back_end)); /* items of 4 bytes */
    CHECK_EQ(t.frame.r10, SEL_CODE32);
    CHECK_EQ(t.rsp, c.rsp);
}

TEST(call_pushes_items_of_the_operand_size)
{
    set_up();
    struct trap t = call(SEL_CODE64, (uint32_t)SYMBOL(arrive));
    CHECK_TRAP(t, GATE, 0, SYMBOL(arrive_end));
    CHECK_EQ(t.rsp, call_rsp - 8);
    CHECK_EQ(((uint32_t *)t.rsp)[0], SYMBOL(far_call_end));
    CHECK_EQ(((uint32_t *)t.rsp)[1], SEL_CODE64);
    t = call(SEL_CODE32, (uint32_t)SYMBOL(arrive));
    CHECK_TRAP(t, GATE, 0, SYMBOL(arrive_end));
    CHECK_EQ(t.cs, SEL_CODE32);
    CHECK_EQ(((uint32_t *)t.rsp)[1], SEL_CODE64);
}

static const struct {
    const char *what;
    unsigned selector, attr; /* of BAD */
    uint32_t limit, offset;
    unsigned vector, error;
} bad_targets[] = {
    {"null", 0, 0, 0, 0, V_GP, 0},
    {"null with RPL", 3, 0, 0, 0, V_GP, 0},
    {"beyond the GDT", 0x1000, 0, 0, 0, V_GP, 0x1000},
    {"LDT, none loaded", 0x0c, 0, 0, 0, V_GP, 0x0c},
    {"data", SEL_DATA, 0, 0, 0, V_GP, SEL_DATA},
    {"busy TSS", SEL_TSS, 0, 0, 0, V_GP, SEL_TSS},
    {"free TSS", BAD, D_TSS32, 103, 0, V_GP, BAD},
    {"16-bit TSS", BAD, D_TSS16, 43, 0, V_GP, BAD},
    {"task gate", BAD, D_TASK_GATE, 0, 0, V_GP, BAD},
    {"16-bit call gate", BAD, D_CALL16, 0, 0, V_GP, BAD},
    {"interrupt gate", BAD, 0x8e, 0, 0, V_GP, BAD},
    {"LDT", BAD, D_LDT, 0, 0, V_GP, BAD},
    {"less privileged", SEL_UCODE64 & ~3, 0, 0, 0, V_GP, SEL_UCODE64 & ~3},
    {"less privileged conforming", BAD, D_CONFORMING | 0x60 | D_LONG, 0xfffff, 0, V_GP, BAD},
    {"RPL above CPL", SEL_CODE64 | 3, 0, 0, 0, V_GP, SEL_CODE64},
    {"not present", BAD, D_CODE64 & ~D_PRESENT, 0xfffff, 0, V_NP, BAD},
    {"L and D", BAD, D_CODE64 | D_BIG, 0xfffff, 0, V_GP, BAD},
    {"beyond the limit", BAD, D_CODE | D_BIG, 0xfff, 0x1000, V_GP, 0},
};
TEST(bad_targets_of_jump_and_call)
{
    set_up();
    for (volatile unsigned i = 0; i < sizeof bad_targets / sizeof bad_targets[0]; i++) {
        gdt[BAD / 8] = descriptor(0, bad_targets[i].limit, bad_targets[i].attr);
        for (volatile unsigned calls = 0; calls < 2; calls++) {
            struct trap t = (calls ? call : jump)(bad_targets[i].selector, bad_targets[i].offset);
            if (t.vector != bad_targets[i].vector || t.error != bad_targets[i].error)
                print("  %s: %s:\n", calls ? "CALL" : "JMP", bad_targets[i].what);
            CHECK_TRAP(t, bad_targets[i].vector, bad_targets[i].error,
                       calls ? SYMBOL(far_call) : SYMBOL(far_jump));
            if (calls)
                CHECK_EQ(t.rsp, call_rsp);
        }
    }
}

/* A conforming segment does not change the CPL, whatever RPL the selector has. */
asm(LABEL(user_jump) "ljmpl *(%rax)");
TEST(conforming_code_from_cpl_3)
{
    set_up();
    far32.selector = CONFORMING | 1, far32.offset = (uint32_t)SYMBOL(arrive);
    struct context c = context_user(SYMBOL(user_jump));
    c.rax = (word)&far32;
    struct trap t = RUN(c);
    CHECK_TRAP(t, GATE, 0, SYMBOL(arrive_end));
    CHECK_EQ(t.cs, CONFORMING | 3);
}

/* The operand's second page, and the stack's, are missing: nothing has happened. */
TEST(page_faults_commit_nothing)
{
    static char page[4096] __attribute__((aligned(4096)));
    set_up();
    map_page(WINDOW + 0x1000, (word)page, 1, PG_ALL);
    void *m = (void *)(WINDOW + 0x2000 - 4); /* the selector is on the missing page */
    *(uint32_t *)m = (uint32_t)SYMBOL(arrive);
    struct trap t = CATCH(asm volatile(LABEL(call_operand) "lcalll *(%0)" ::"r"(m)));
    CHECK_PF(t, WINDOW + 0x2000, 0, SYMBOL(call_operand));
    word ist1 = stack_end(0);
    memcpy((char *)tss + 0x24, &ist1, 8);
    set_gate(V_PF, (word)trap_stubs + 16 * V_PF, SEL_CODE, 14, 0, 1);
    far32.selector = SEL_CODE64, far32.offset = (uint32_t)SYMBOL(arrive);
    for (volatile unsigned items = 0; items < 2; items++) {
        word rsp = WINDOW + 0x1000 + 4 * items;
        t = CATCH(
            asm volatile("mov %1, %%rsp\n" LABEL(call_stack) "lcalll *%0" ::"m"(far32), "r"(rsp)
                         : "memory"));
        CHECK_PF(t, WINDOW + 0x1000 - 4, PF_W, SYMBOL(call_stack));
        CHECK_EQ(t.rsp, rsp);
        CHECK_EQ(*(uint32_t *)page, 0);
        CHECK_EQ(t.cs, SEL_CODE64);
    }
    set_gate(V_PF, (word)trap_stubs + 16 * V_PF, SEL_CODE, 14, 0, 0);
    paging_reset();
}

/* ---- RET ------------------------------------------------------------------------------------- */

asm(LABEL(do_lretq) "lretq\n" LABEL(do_lretq_16) "lretq $16");

static struct context return_to(word rip, word cs, word rsp, word ss)
{
    word *sp = (word *)(stack_end(1) - 256);
    sp[0] = rip, sp[1] = cs, sp[2] = rsp, sp[3] = ss;
    struct context c = context_at(SYMBOL(do_lretq), SEL_CODE, SEL_DATA);
    c.rsp = (word)sp;
    return c;
}

TEST(return_to_each_level)
{
    set_up();
    struct context c = return_to(SYMBOL(arrive), SEL_CODE64, 0, 0);
    struct trap t = RUN(c);
    CHECK_TRAP(t, GATE, 0, SYMBOL(arrive_end));
    CHECK_EQ(t.rsp, c.rsp + 16);
    c = return_to(SYMBOL(arrive), SEL_CODE32, 0, 0);
    t = RUN(c);
    CHECK_TRAP(t, GATE, 0, SYMBOL(arrive_end));
    CHECK_EQ(t.cs, SEL_CODE32);
    CHECK_EQ(t.rsp, c.rsp + 16);
    c = return_to(SYMBOL(arrive), SEL_UCODE64, 0x123456789000, SEL_UDATA);
    c.rflags = 2 | F_CF;
    t = RUN(c);
    CHECK_TRAP(t, GATE, 0, SYMBOL(arrive_end));
    CHECK_EQ(t.cs, SEL_UCODE64);
    CHECK_EQ(t.ss, SEL_UDATA);
    CHECK_EQ(t.rsp, 0x123456789000);
    CHECK_EQ(t.rflags, 2 | F_CF); /* no flags in it */
    c = return_to(SYMBOL(arrive), SEL_UCODE32, 0x123456789000, SEL_UDATA);
    t = RUN(c);
    CHECK_EQ(t.cs, SEL_UCODE32);
    CHECK_EQ(t.rsp & 0xffffffff, 0x56789000);
    /* SS may be null below CPL 3. */
    c = return_to(SYMBOL(arrive), CODE64_1 | 1, stack_end(0), 1);
    t = RUN(c);
    CHECK_TRAP(t, GATE, 0, SYMBOL(arrive_end));
    CHECK_EQ(t.ss, 1);
}

/* RET n drops n bytes of both stacks: SS:RSP stand behind the parameters. */
TEST(return_and_release)
{
    set_up();
    struct context c = return_to(SYMBOL(arrive), SEL_CODE64, 0, 0);
    c.rip = SYMBOL(do_lretq_16);
    CHECK_EQ(RUN(c).rsp, c.rsp + 32);
    c = return_to(SYMBOL(arrive), SEL_UCODE64, 1, 1);
    c.rip = SYMBOL(do_lretq_16);
    ((word *)c.rsp)[4] = 0x5000;
    ((word *)c.rsp)[5] = SEL_UDATA;
    struct trap t = RUN(c);
    CHECK_TRAP(t, GATE, 0, SYMBOL(arrive_end));
    CHECK_EQ(t.rsp, 0x5010);
    CHECK_EQ(t.ss, SEL_UDATA);
}

static const struct {
    const char *what;
    word rip;
    unsigned cs, ss, attr, vector, error;
} bad_returns[] = {
    {"null CS", 0x1000, 0, 0, 0, V_GP, 0},
    {"CS beyond the GDT", 0x1000, 0x1003, SEL_UDATA, 0, V_GP, 0x1000},
    {"CS is data", 0x1000, SEL_UDATA, SEL_UDATA, 0, V_GP, SEL_UDATA & ~3},
    {"CS is a call gate", 0x1000, CALL_GATE, 0, 0, V_GP, CALL_GATE},
    {"DPL is not RPL", 0x1000, SEL_CODE64 | 3, SEL_UDATA, 0, V_GP, SEL_CODE64},
    {"CS not present", 0x1000, BAD | 3, SEL_UDATA, 0x7b | D_LONG, V_NP, BAD},
    {"non-canonical RIP", NON_CANONICAL, SEL_CODE64, 0, 0, V_GP, 0},
    {"beyond the limit", 0x1000000, BAD | 3, SEL_UDATA, 0xfb | D_BIG, V_GP, 0},
    {"null SS to CPL 3", 0x1000, SEL_UCODE64, 0, 0, V_GP, 0},
    {"SS with another RPL", 0x1000, SEL_UCODE64, SEL_UDATA & ~3, 0, V_GP, SEL_UDATA & ~3},
    {"SS with another DPL", 0x1000, SEL_UCODE64, SEL_DATA | 3, 0, V_GP, SEL_DATA},
    {"SS is code", 0x1000, SEL_UCODE64, SEL_UCODE64, 0, V_GP, SEL_UCODE64 & ~3},
    {"SS is read-only", 0x1000, SEL_UCODE64, BAD | 3, 0xf1 | D_BIG, V_GP, BAD},
    {"SS not present", 0x1000, SEL_UCODE64, BAD | 3, 0x73 | D_BIG, V_SS, BAD},
};
TEST(bad_returns_fault_at_the_ret)
{
    set_up();
    gdt[CALL_GATE / 8] = gate(SEL_CODE64, (uint32_t)SYMBOL(arrive), D_CALL32, 0);
    gdt[CALL_GATE / 8 + 1] = 0;
    for (volatile unsigned i = 0; i < sizeof bad_returns / sizeof bad_returns[0]; i++) {
        gdt[BAD / 8] = descriptor(0, 0xfffff, bad_returns[i].attr);
        struct context c =
            return_to(bad_returns[i].rip, bad_returns[i].cs, 0x5000, bad_returns[i].ss);
        struct trap t = RUN(c);
        if (t.vector != bad_returns[i].vector || t.error != bad_returns[i].error)
            print("  %s:\n", bad_returns[i].what);
        CHECK_TRAP(t, bad_returns[i].vector, bad_returns[i].error, SYMBOL(do_lretq));
        CHECK_EQ(t.rsp, c.rsp);
        CHECK_EQ(t.cs, SEL_CODE64);
    }
}

/* ---- Call gates ------------------------------------------------------------------------------ */

static void set_call_gate(unsigned at, unsigned selector, word offset, unsigned attr)
{
    gdt[at / 8] = gate(selector, (uint32_t)offset, attr, 31); /* no parameters in 64-bit mode */
    gdt[at / 8 + 1] = offset >> 32;
}

/* What an entry through a gate does: INT 62h shows it, from the new level. */
asm(LABEL(gate_entry) "mov %ss, %r8d; mov %rsp, %r9; mov (%rsp), %r10; mov 8(%rsp), %r11; "
                      "mov 16(%rsp), %r12; mov 24(%rsp), %r13; pushf; pop %r14; int $0x62\n" LABEL(
                          gate_entry_end) "lretq");
asm(LABEL(user_call) "lcalll *(%rax)\n" LABEL(user_call_end) "int $0x63");
asm(LABEL(user_gate_jump) "ljmpl *(%rax)");

static struct context through_gate(unsigned selector, word rip)
{
    far32.selector = (uint16_t)selector, far32.offset = 0xdeadbeef; /* which does not count */
    struct context c = context_user(rip);
    c.rax = (word)&far32;
    c.rflags = 2 | F_CF | F_DF | F_IF;
    return c;
}

static word swap_rsp(unsigned level, word rsp)
{
    word old;
    memcpy(&old, &tss[1 + 2 * level], 8);
    memcpy(&tss[1 + 2 * level], &rsp, 8);
    return old;
}

static bool back_from_gate(struct frame *f)
{
    f->rip = SYMBOL(gate_entry_end);
    return true;
}

TEST(gate_to_cpl_0)
{
    set_up();
    set_call_gate(CALL_GATE, SEL_CODE64 | 3, SYMBOL(gate_entry), D_CALL32 | D_DPL3);
    word rsp0 = swap_rsp(0, stack_end(0) - 3); /* not aligned, unlike an interrupt's */
    struct context c = through_gate(CALL_GATE | 3, SYMBOL(user_call));
    c.rsp -= 5;
    struct trap t = RUN(c);
    CHECK_TRAP(t, GATE, 0, SYMBOL(gate_entry_end));
    CHECK_EQ(t.cs, SEL_CODE64);
    CHECK_EQ(t.frame.r8, 0); /* null SS */
    CHECK_EQ(t.frame.r9, stack_end(0) - 3 - 32);
    CHECK_EQ(t.frame.r10, SYMBOL(user_call_end));
    CHECK_EQ(t.frame.r11, SEL_UCODE64);
    CHECK_EQ(t.frame.r12, c.rsp);
    CHECK_EQ(t.frame.r13, SEL_UDATA);
    CHECK_EQ(t.frame.r14, c.rflags);
    /* And back by LRETQ. */
    trap_handlers[GATE] = back_from_gate;
    set_gate(0x63, (word)trap_stubs + 16 * 0x63, SEL_CODE, 14, 3, 0);
    t = RUN(c);
    trap_handlers[GATE] = 0;
    CHECK_TRAP(t, 0x63, 0, SYMBOL(user_call_end) + 2);
    CHECK_EQ(t.cs, SEL_UCODE64);
    CHECK_EQ(t.rsp, c.rsp);
    CHECK_EQ(t.ss, SEL_UDATA);
    swap_rsp(0, rsp0);
}

TEST(gate_to_cpl_1_and_from_compatibility_code)
{
    set_up();
    set_call_gate(CALL_GATE, CODE64_1, SYMBOL(gate_entry), D_CALL32 | D_DPL3);
    word rsp1 = swap_rsp(1, stack_end(0));
    struct context c = through_gate(CALL_GATE, SYMBOL(user_call));
    c.cs = SEL_UCODE32;
    struct trap t = RUN(c);
    CHECK_TRAP(t, GATE, 0, SYMBOL(gate_entry_end));
    CHECK_EQ(t.cs, CODE64_1 | 1);
    CHECK_EQ(t.ss, 1);
    CHECK_EQ(t.frame.r8, 1);
    CHECK_EQ(t.frame.r9, stack_end(0) - 32); /* 8 bytes an item, whoever calls */
    CHECK_EQ(t.frame.r10, SYMBOL(user_call_end));
    CHECK_EQ(t.frame.r11, SEL_UCODE32);
    CHECK_EQ(t.frame.r12, c.rsp);
    swap_rsp(1, rsp1);
}

/* No change of level: the same stack, two items of 8 bytes. */
TEST(gate_to_the_same_level)
{
    set_up();
    set_call_gate(CALL_GATE, SEL_CODE64, SYMBOL(gate_entry), D_CALL32);
    struct trap t = call(CALL_GATE, 0);
    CHECK_TRAP(t, GATE, 0, SYMBOL(gate_entry_end));
    CHECK_EQ(t.frame.r9, call_rsp - 16);
    CHECK_EQ(t.frame.r10, SYMBOL(far_call_end));
    CHECK_EQ(t.frame.r11, SEL_CODE64);
    t = jump(CALL_GATE, 0);
    CHECK_TRAP(t, GATE, 0, SYMBOL(gate_entry_end));
    CHECK_EQ(t.cs, SEL_CODE64);
    set_call_gate(CALL_GATE, CONFORMING, SYMBOL(gate_entry), D_CALL32 | D_DPL3);
    struct context c = through_gate(CALL_GATE, SYMBOL(user_call));
    t = RUN(c);
    CHECK_TRAP(t, GATE, 0, SYMBOL(gate_entry_end));
    CHECK_EQ(t.cs, CONFORMING | 3);
    CHECK_EQ(t.frame.r9, c.rsp - 16);
}

/* JMP through a gate gains no privilege. */
TEST(jump_through_a_gate_keeps_the_level)
{
    set_up();
    set_call_gate(CALL_GATE, SEL_CODE64, SYMBOL(gate_entry), D_CALL32 | D_DPL3);
    struct trap t = RUN(through_gate(CALL_GATE, SYMBOL(user_gate_jump)));
    CHECK_TRAP(t, V_GP, SEL_CODE64, SYMBOL(user_gate_jump));
    set_call_gate(CALL_GATE, SEL_UCODE64, SYMBOL(arrive), D_CALL32 | D_DPL3);
    t = RUN(through_gate(CALL_GATE, SYMBOL(user_gate_jump)));
    CHECK_TRAP(t, GATE, 0, SYMBOL(arrive_end));
}

static const struct {
    const char *what;
    unsigned gate_rpl, gate_attr, selector, attr;
    word offset, upper;
    unsigned vector, error;
} bad_gates[] = {
    {"gate DPL", 0, D_CALL32 | 0x40, SEL_CODE64, 0, 0x1000, 0, V_GP, CALL_GATE},
    {"gate DPL below RPL", 3, D_CALL32 | 0x40, SEL_CODE64, 0, 0x1000, 0, V_GP, CALL_GATE},
    {"not present", 3, 0x6c, SEL_CODE64, 0, 0x1000, 0, V_NP, CALL_GATE},
    {"upper type", 3, 0xec, SEL_CODE64, 0, 0x1000, 1ull << 40, V_GP, CALL_GATE},
    {"upper S", 3, 0xec, SEL_CODE64, 0, 0x1000, 16ull << 40, V_GP, CALL_GATE},
    {"null code", 3, 0xec, 3, 0, 0x1000, 0, V_GP, 0},
    {"code beyond the GDT", 3, 0xec, 0x1003, 0, 0x1000, 0, V_GP, 0x1000},
    {"data", 3, 0xec, SEL_DATA, 0, 0x1000, 0, V_GP, SEL_DATA},
    {"32-bit code", 3, 0xec, SEL_CODE32, 0, 0x1000, 0, V_GP, SEL_CODE32},
    {"L and D", 3, 0xec, BAD, D_CODE64 | D_BIG, 0x1000, 0, V_GP, BAD},
    {"code not present", 3, 0xec, BAD, D_CODE64 & ~D_PRESENT, 0x1000, 0, V_NP, BAD},
    {"non-canonical offset", 3, 0xec, SEL_CODE64, 0, NON_CANONICAL, 0, V_GP, 0},
};
TEST(bad_gates)
{
    set_up();
    for (volatile unsigned i = 0; i < sizeof bad_gates / sizeof bad_gates[0]; i++) {
        gdt[BAD / 8] = descriptor(0, 0xfffff, bad_gates[i].attr);
        set_call_gate(CALL_GATE, bad_gates[i].selector, bad_gates[i].offset,
                      bad_gates[i].gate_attr);
        gdt[CALL_GATE / 8 + 1] |= bad_gates[i].upper;
        struct context c = through_gate(CALL_GATE | bad_gates[i].gate_rpl, SYMBOL(user_call));
        struct trap t = RUN(c);
        if (t.vector != bad_gates[i].vector || t.error != bad_gates[i].error)
            print("  %s:\n", bad_gates[i].what);
        CHECK_TRAP(t, bad_gates[i].vector, bad_gates[i].error, SYMBOL(user_call));
        CHECK_EQ(t.cs, SEL_UCODE64);
        CHECK_EQ(t.rsp, c.rsp);
    }
    /* Its second half is beyond the GDT. */
    struct __attribute__((packed)) {
        uint16_t limit;
        word base;
    } gdtr = {32 * 8 - 1, (word)gdt};
    asm volatile("lgdt %0" ::"m"(gdtr));
    gdt[31] = gate(SEL_CODE64, 0x1000, D_CALL32 | D_DPL3, 0);
    CHECK_TRAP(RUN(through_gate(LAST, SYMBOL(user_call))), V_GP, LAST, SYMBOL(user_call));
    gdt[31] = 0;
}

TEST(gate_and_the_tss)
{
    set_up();
    set_call_gate(CALL_GATE, CODE64_1, SYMBOL(gate_entry), D_CALL32 | D_DPL3);
    struct context c = through_gate(CALL_GATE, SYMBOL(user_call));
    word rsp1 = swap_rsp(1, NON_CANONICAL + 0x1000);
    struct trap t = RUN(c);
    CHECK_TRAP(t, V_SS, 0, SYMBOL(user_call));
    swap_rsp(1, WINDOW + 0x800); /* not mapped */
    t = RUN(c);
    CHECK_PF(t, WINDOW + 0x7f8, PF_W, SYMBOL(user_call));
    CHECK_EQ(t.cs, SEL_UCODE64);
    /* RSP1's last byte is beyond the limit; RSP0, which the #TS needs, is not. */
    gdt[SEL_TSS / 8] = (gdt[SEL_TSS / 8] & ~(0xf00000000ffffull | 2ull << 40)) | (12 + 6);
    asm volatile("ltr %w0" ::"r"(SEL_TSS));
    t = RUN(c);
    CHECK_TRAP(t, V_TS, SEL_TSS, SYMBOL(user_call));
    gdt[SEL_TSS / 8] = (gdt[SEL_TSS / 8] & ~(0xf00000000ffffull | 2ull << 40)) | 103;
    asm volatile("ltr %w0" ::"r"(SEL_TSS));
    swap_rsp(1, rsp1);
}

const struct test guest_tests[] = {T(jump_to_each_code_size),
                                   T(there_and_back),
                                   T(call_pushes_items_of_the_operand_size),
                                   T(bad_targets_of_jump_and_call),
                                   T(conforming_code_from_cpl_3),
                                   T(page_faults_commit_nothing),
                                   T(return_to_each_level),
                                   T(return_and_release),
                                   T(bad_returns_fault_at_the_ret),
                                   T(gate_to_cpl_0),
                                   T(gate_to_cpl_1_and_from_compatibility_code),
                                   T(gate_to_the_same_level),
                                   T(jump_through_a_gate_keeps_the_level),
                                   T(bad_gates),
                                   T(gate_and_the_tss),
                                   {0, 0}};
