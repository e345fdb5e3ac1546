/*
 * triple_fault.c - what shuts the processor down: a double fault that cannot be delivered, for
 * every reason there is; and the machine starts again (SDM vol. 3, 6.15, interrupt 8). A byte of
 * CMOS memory counts the rounds.
 *
 * guest reboots: yes
 */
#include "context.h"
#include "machine.h"
#include "paging.h"

enum { STAGE = 0x7e };

static uint8_t stage(void)
{
    outb(0x70, STAGE);
    return inb(0x71);
}
static void set_stage(unsigned n)
{
    outb(0x70, STAGE);
    outb(0x71, (uint8_t)n);
}

static void absent_gate(unsigned vector)
{
    idt[vector].word[1] &= ~0x8000u;
}
static void ist_gate(unsigned vector, word rsp)
{
    memcpy((char *)tss + 0x24, &rsp, 8);
    set_gate(vector, (word)trap_stubs + 16 * vector, SEL_CODE, 14, 0, 1);
}

/* ---- The ways -------------------------------------------------------------------------------- */

/* #GP, its gate is absent: #NP, hence #DF, whose gate is absent. */
static void df_gate_absent(void)
{
    absent_gate(V_GP);
    absent_gate(V_DF);
    asm volatile("mov %0, %%ds" ::"r"(0x1f8));
}
static void df_stack_missing(void)
{
    absent_gate(V_GP);
    ist_gate(V_DF, WINDOW + 0x800);
    asm volatile("mov %0, %%ds" ::"r"(0x1f8));
}
static void df_stack_not_canonical(void)
{
    absent_gate(V_GP);
    ist_gate(V_DF, 0x800000000000);
    asm volatile("mov %0, %%ds" ::"r"(0x1f8));
}
static void df_code_segment_bad(void)
{
    absent_gate(V_DE);
    set_gate(V_DF, (word)trap_stubs + 16 * V_DF, SEL_CODE32, 14, 0, 0);
    asm volatile("divl %0" ::"r"(0) : "eax", "edx");
}
/* The stack runs into a missing page: #PF by PUSH, #PF by its frame, #PF by that of #DF. */
static void stack_overflow(void)
{
    asm volatile("mov %0, %%rsp; push %%rax" ::"r"(WINDOW + 0x1000) : "memory");
}
static void no_idt(void)
{
    struct __attribute__((packed)) {
        uint16_t limit;
        word base;
    } none = {0, 0};
    asm volatile("lidt %0; ud2" ::"m"(none));
}
static void idt_missing(void)
{
    struct __attribute__((packed)) {
        uint16_t limit;
        word base;
    } missing = {0xfff, WINDOW};
    asm volatile("lidt %0; int $0x40" ::"m"(missing));
}
/* The tables under the running code are gone. */
static void no_tables(void)
{
    static uint64_t none[512] __attribute__((aligned(4096)));
    write_cr3((word)none);
}
/* From CPL 3: RSP0 leads nowhere. */
asm(LABEL(user_ud) "ud2");
static void no_rsp0(void)
{
    word nowhere = WINDOW;
    memcpy(&tss[1], &nowhere, 8);
    struct context c = context_user(SYMBOL(user_ud));
    context_enter(&c);
}
/* An NMI that cannot be delivered is as bad as a fault. */
static void nmi(void)
{
    absent_gate(V_NMI);
    absent_gate(V_NP);
    absent_gate(V_DF);
    apic_write(APIC_SVR, 0x1ff);
    apic_write(APIC_ICR_HIGH, 0);
    apic_write(APIC_ICR, 0x4400);
    for (;;)
        asm volatile("pause");
}

static const struct {
    const char *name;
    void (*run)(void);
} ways[] = {{"#DF gate absent", df_gate_absent},
            {"#DF stack missing", df_stack_missing},
            {"#DF stack not canonical", df_stack_not_canonical},
            {"#DF code segment bad", df_code_segment_bad},
            {"stack overflow", stack_overflow},
            {"no IDT", no_idt},
            {"IDT missing", idt_missing},
            {"no page tables", no_tables},
            {"no RSP0", no_rsp0},
            {"NMI", nmi}};
enum { WAYS = sizeof ways / sizeof ways[0] };

TEST(next)
{
    unsigned n = stage();
    CHECK(n <= WAYS);
    if (!all_passed() || n >= WAYS)
        return;
    set_stage(n + 1);
    print("  %s\n", ways[n].name);
    ways[n].run();
    CHECK(!"still here");
}

/* The last round: all ways have been gone, in their order. */
TEST(all_of_them)
{
    CHECK_EQ(stage(), WAYS);
}

const struct test guest_tests[] = {T(next), T(all_of_them), {0, 0}};
