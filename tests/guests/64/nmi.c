/*
 * nmi.c - the non-maskable interrupt: not masked by IF, blocked from its delivery to the next IRET,
 * one latched meanwhile; it ends HLT (SDM vol. 3, 6.7, 10.6.1).
 *
 * guest options: -smp 2
 */
#include "context.h"
#include "machine.h"
#include "paging.h"

enum { ICR_NMI = 0x4400, SELF = 0x51 };

static volatile unsigned nmis, depth, deepest, nmi_sends;
static struct frame first, last;
static void (*volatile in_nmi)(void);

/* To itself, by its number: the self shorthand is for fixed interrupts only (table 10-3). */
static void send_nmi(void)
{
    apic_write(APIC_ICR_HIGH, 0);
    apic_write(APIC_ICR, ICR_NMI);
    while (apic_read(APIC_ICR) & 0x1000)
        asm volatile("pause");
}

static bool on_nmi(struct frame *f)
{
    if (++depth > deepest)
        deepest = depth;
    if (!nmis++)
        first = *f;
    last = *f;
    if (in_nmi)
        in_nmi();
    for (unsigned i = 0; i < 20; i++)
        asm volatile("nop");
    depth--;
    return true;
}
static void set_up(void (*within)(void))
{
    apic_quiet();
    trap_handlers[V_NMI] = on_nmi;
    nmis = depth = deepest = nmi_sends = 0;
    in_nmi = within;
}

/* ---- Delivery -------------------------------------------------------------------------------- */

/* With IF = 0, and by a gate whose DPL nobody asks for. */
TEST(if_does_not_mask_it)
{
    set_up(0);
    asm volatile("cli");
    send_nmi();
    for (unsigned i = 0; i < 20; i++)
        asm volatile("nop");
    CHECK_EQ(nmis, 1);
    CHECK_EQ(first.vector, V_NMI);
    CHECK_EQ(first.cs, SEL_CODE);
    CHECK_EQ(first.rflags & (F_IF | F_RF), 0);
    asm volatile("mov %0, %%cr8" ::"r"(15ul)); /* nor does the task priority */
    send_nmi();
    for (unsigned i = 0; i < 20; i++)
        asm volatile("nop");
    CHECK_EQ(nmis, 2);
    asm volatile("mov %0, %%cr8" ::"r"(0ul));
}

static char ist_stack[4096] __attribute__((aligned(16)));
static word stack_in_nmi;
static void note_stack(void)
{
    asm volatile("mov %%rsp, %0" : "=m"(stack_in_nmi));
}
TEST(on_its_own_stack)
{
    set_up(note_stack);
    word top = (word)(ist_stack + sizeof ist_stack);
    memcpy((char *)tss + 0x24, &top, 8);
    set_gate(V_NMI, (word)trap_stubs + 16 * V_NMI, SEL_CODE, 14, 0, 1);
    send_nmi();
    CHECK_EQ(nmis, 1);
    CHECK(stack_in_nmi > (word)ist_stack && stack_in_nmi < top);
    set_gate(V_NMI, (word)trap_stubs + 16 * V_NMI, SEL_CODE, 14, 0, 0);
}

/* ---- Blocked until IRET ---------------------------------------------------------------------- */

static void send_three(void)
{
    if (nmi_sends)
        return;
    nmi_sends = 1;
    for (unsigned i = 0; i < 3; i++)
        send_nmi();
}

/* Three more from within: they wait, and are one. It comes right behind the first one's IRET. */
TEST(latched_once_and_delivered_behind_the_iret)
{
    set_up(send_three);
    send_nmi();
    for (unsigned i = 0; i < 20; i++)
        asm volatile("nop");
    CHECK_EQ(nmis, 2);
    CHECK_EQ(deepest, 1);
    CHECK_EQ(last.rip, first.rip);
    CHECK_EQ(last.rsp, first.rsp);
}

/* Any IRET will do, also one that ends another exception inside the handler. */
static volatile unsigned depth_before_int3, depth_after_int3;
static bool on_bp(struct frame *f)
{
    return true;
}
static void break_inside(void)
{
    if (nmi_sends)
        return;
    nmi_sends = 1;
    send_nmi();
    depth_before_int3 = deepest;
    asm volatile("int3");
    depth_after_int3 = deepest;
}
TEST(iret_of_another_exception_unblocks)
{
    set_up(break_inside);
    trap_handlers[V_BP] = on_bp;
    send_nmi();
    CHECK_EQ(nmis, 2);
    CHECK_EQ(depth_before_int3, 1);
    CHECK_EQ(depth_after_int3, 2);
    trap_handlers[V_BP] = 0;
}

/* A fault on the way into the handler changes nothing: the fault's own handler is not interrupted.
 */
static volatile unsigned nmis_before_iret;
static bool mend_gate(struct frame *f)
{
    CHECK_EQ(f->error, V_NMI * 8 + 3); /* IDT, EXT */
    set_gate(V_NMI, (word)trap_stubs + 16 * V_NMI, SEL_CODE, 14, 0, 0);
    send_nmi();
    for (unsigned i = 0; i < 20; i++)
        asm volatile("nop");
    nmis_before_iret = nmis;
    return true;
}
TEST(blocked_when_its_delivery_faults)
{
    set_up(0);
    trap_handlers[V_NP] = mend_gate;
    nmis_before_iret = 9;
    idt[V_NMI].word[1] &= ~0x8000u;
    send_nmi();
    for (unsigned i = 0; i < 20; i++)
        asm volatile("nop");
    CHECK_EQ(nmis_before_iret, 0);
    CHECK_EQ(nmis, 1);
    trap_handlers[V_NP] = 0;
}

/* Maskable interrupts are not blocked in the handler, only by IF. */
static volatile unsigned interrupts;
static bool on_self(struct frame *f)
{
    interrupts++;
    apic_write(APIC_EOI, 0);
    return true;
}
static volatile unsigned interrupts_inside;
static void let_interrupt_in(void)
{
    apic_write(APIC_ICR, 0x44000 | SELF);
    asm volatile("sti; nop; nop; cli");
    interrupts_inside = interrupts;
}
TEST(interrupts_within)
{
    set_up(let_interrupt_in);
    trap_handlers[SELF] = on_self;
    interrupts = 0;
    send_nmi();
    CHECK_EQ(nmis, 1);
    CHECK_EQ(interrupts_inside, 1);
}

/* Both at once: the NMI is first (table 6-2). */
static volatile unsigned interrupts_at_nmi;
static void note_interrupts(void)
{
    interrupts_at_nmi = interrupts;
}
static void queue_both(void)
{
    if (nmi_sends) {
        note_interrupts();
        return;
    }
    nmi_sends = 1;
    send_nmi();
    apic_write(APIC_ICR, 0x44000 | SELF);
}
TEST(nmi_before_interrupt)
{
    set_up(queue_both);
    interrupts = 0;
    interrupts_at_nmi = 9;
    asm volatile("sti; nop");
    send_nmi();
    asm volatile("nop; nop; cli");
    CHECK_EQ(nmis, 2);
    CHECK_EQ(interrupts, 1);
    CHECK_EQ(interrupts_at_nmi, 0);
}

/* ---- HLT ------------------------------------------------------------------------------------- */

static volatile unsigned halting;
static void wake_by_nmi(unsigned id)
{
    while (!halting)
        asm volatile("pause");
    while (halting) { /* it may have come just before the HLT: again */
        for (unsigned i = 0; i < 100000; i++)
            asm volatile("pause");
        if (!halting)
            break;
        apic_write(APIC_ICR_HIGH, 0);
        apic_write(APIC_ICR, ICR_NMI);
    }
}

TEST(nmi_ends_hlt_with_if_0)
{
    set_up(0);
    cpus_done = 0;
    CHECK(start_cpu(1, wake_by_nmi));
    halting = 1;
    asm volatile(LABEL(nmi_hlt) "cli; hlt\n" LABEL(nmi_hlt_end) "nop" ::: "memory");
    halting = 0;
    CHECK(nmis > 0);
    CHECK(last.rip == SYMBOL(nmi_hlt_end));
    CHECK_EQ(last.rflags & F_IF, 0);
    while (!cpus_done)
        asm volatile("pause");
}

const struct test guest_tests[] = {T(if_does_not_mask_it),
                                   T(on_its_own_stack),
                                   T(latched_once_and_delivered_behind_the_iret),
                                   T(iret_of_another_exception_unblocks),
                                   T(blocked_when_its_delivery_faults),
                                   T(interrupts_within),
                                   T(nmi_before_interrupt),
                                   T(nmi_ends_hlt_with_if_0),
                                   {0, 0}};
