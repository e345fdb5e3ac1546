/*
 * nested.c - exceptions met while another event is delivered in 64-bit mode: one after the other,
 * or a double fault, which IST saves (SDM vol. 3, 6.15, tables 6-4 and 6-5).
 */
#include "context.h"
#include "paging.h"

static char stacks[3][4096] __attribute__((aligned(4096)));
static word stub(unsigned vector)
{
    return (word)trap_stubs + 16 * vector;
}
static void good_gate(unsigned vector)
{
    set_gate(vector, stub(vector), SEL_CODE, 14, 0, 0);
}
/* Raises #NP with the gate's number. */
static void absent_gate(unsigned vector)
{
    good_gate(vector);
    idt[vector].word[1] &= ~0x8000u;
}
static void ist_gate(unsigned vector, unsigned n, word rsp)
{
    memcpy((char *)tss + 0x24 + 8 * (n - 1), &rsp, 8);
    set_gate(vector, stub(vector), SEL_CODE, 14, 0, n);
}

/* #DF on its own stack; what it saves as RIP is undefined (6.15), what it pushes as error is 0. */
static void df_on_ist(void)
{
    ist_gate(V_DF, 1, (word)stacks[1]);
}
#define CHECK_DF(t_)                                                                               \
    do {                                                                                           \
        struct trap df_ = (t_);                                                                    \
        CHECK_EQ(df_.vector, V_DF);                                                                \
        CHECK_EQ(df_.error, 0);                                                                    \
    } while (0)

enum { UNMAPPED_OFFSET = 0x5000 };
#define UNMAPPED (WINDOW + UNMAPPED_OFFSET)

static struct trap raise_de(void)
{
    return CATCH(asm volatile(LABEL(de_here) "divl %0" ::"r"(0) : "eax", "edx"));
}
static struct trap raise_ud(void)
{
    return CATCH(asm volatile(LABEL(ud_here) "ud2"));
}
static struct trap raise_gp(void)
{
    return CATCH(asm volatile(LABEL(gp_here) "mov %w0, %%ds" ::"r"(0x1f8)));
}
static struct trap raise_pf(void)
{
    return CATCH(asm volatile(LABEL(pf_here) "movb $1, (%0)" ::"r"(UNMAPPED)));
}

/* ---- Benign first: the second one is delivered ----------------------------------------------- */

TEST(ud_then_np)
{
    absent_gate(V_UD);
    struct trap t = raise_ud();
    CHECK_TRAP(t, V_NP, V_UD * 8 + 3, SYMBOL(ud_here));
    CHECK_EQ(t.rflags & F_RF, F_RF);
    good_gate(V_UD);
}

TEST(ud_then_pf)
{
    ist_gate(V_UD, 2, UNMAPPED + 0x800);
    struct trap t = raise_ud();
    CHECK_PF(t, UNMAPPED + 0x7f8, PF_W, SYMBOL(ud_here)); /* SS is pushed first */
    good_gate(V_UD);
}

/* ---- Contributory first ---------------------------------------------------------------------- */

TEST(contributory_then_contributory_is_df)
{
    df_on_ist();
    absent_gate(V_DE);
    CHECK_DF(raise_de());
    good_gate(V_DE);
    absent_gate(V_GP);
    CHECK_DF(raise_gp());
    good_gate(V_GP);
    absent_gate(V_UD); /* #UD is benign, but the #NP of its gate is not */
    absent_gate(V_NP);
    CHECK_DF(raise_ud());
    good_gate(V_NP);
    good_gate(V_UD);
}

TEST(contributory_then_pf_is_pf)
{
    df_on_ist();
    ist_gate(V_DE, 2, UNMAPPED + 0x800);
    struct trap t = raise_de();
    CHECK_PF(t, UNMAPPED + 0x7f8, PF_W, SYMBOL(de_here));
    ist_gate(V_GP, 2, UNMAPPED + 0x800);
    t = raise_gp();
    CHECK_PF(t, UNMAPPED + 0x7f8, PF_W, SYMBOL(gp_here));
    good_gate(V_DE);
    good_gate(V_GP);
}

/* ---- Page fault first ------------------------------------------------------------------------ */

TEST(pf_then_contributory_is_df)
{
    df_on_ist();
    absent_gate(V_PF);
    write_cr2(0);
    struct trap t = raise_pf();
    CHECK_DF(t);
    CHECK_EQ(t.cr2, UNMAPPED); /* of the first */
    good_gate(V_PF);
}

TEST(pf_then_pf_is_df)
{
    df_on_ist();
    ist_gate(V_PF, 2, UNMAPPED + 0x1800);
    struct trap t = raise_pf();
    CHECK_DF(t);
    CHECK_EQ(t.cr2, UNMAPPED + 0x17f8); /* of the second */
    good_gate(V_PF);
}

/* A stack that has run out of its page: the guard-page situation of every kernel. */
TEST(stack_overflow_into_a_guard_page)
{
    df_on_ist();
    map_page(UNMAPPED + 0x1000, (word)stacks[2], 1, PG_ALL);
    struct trap t =
        CATCH(asm volatile("mov %0, %%rsp; 1: push %%rax; jmp 1b" ::"r"(UNMAPPED + 0x1100)
                           : "memory"));
    CHECK_DF(t); /* #PF by PUSH, then again by its own frame */
    CHECK_EQ(t.cr2, UNMAPPED + 0xff8);
    CHECK_EQ(t.rsp, UNMAPPED + 0x1000);
    CHECK_EQ(stacks[2][0x100], 0);
    *entry_of(UNMAPPED + 0x1000, 1) = 0;
    flush_all();
}

/* ---- Interrupts and INT n are benign --------------------------------------------------------- */

TEST(interrupt_then_fault)
{
    df_on_ist();
    mmio_write32(0xfee000f0, 0x1ff);
    ist_gate(0x51, 2, UNMAPPED + 0x800);
    mmio_write32(0xfee00300, 0x44051);
    struct trap t = CATCH(asm volatile("sti; nop\n" LABEL(intr_here) "nop; nop; cli"));
    CHECK_PF(t, UNMAPPED + 0x7f8, PF_W, SYMBOL(intr_here));
    mmio_write32(0xfee000b0, 0);
    t = CATCH(asm volatile(LABEL(int_here) "int $0x51"));
    CHECK_PF(t, UNMAPPED + 0x7f8, PF_W, SYMBOL(int_here));
    /* Two faults behind an INT n are as bad as behind anything else. */
    absent_gate(V_NP);
    absent_gate(0x51);
    CHECK_DF(CATCH(asm volatile("int $0x51")));
    good_gate(V_NP);
    good_gate(0x51);
}

/* ---- The frame ------------------------------------------------------------------------------- */

TEST(frame_across_a_page_boundary)
{
    df_on_ist();
    map_page(UNMAPPED + 0x1000, (word)stacks[2], 1, PG_ALL);
    for (word room = 16; room < 40; room += 16) { /* of the 40 bytes */
        ist_gate(0x51, 2, UNMAPPED + 0x1000 + room);
        struct trap t = CATCH(asm volatile(LABEL(cross_here) "int $0x51"));
        CHECK_PF(t, UNMAPPED + 0xff8, PF_W, SYMBOL(cross_here));
    }
    map_page(UNMAPPED, (word)stacks[0], 1, PG_ALL);
    ist_gate(0x51, 2, UNMAPPED + 0x1010);
    struct trap t = CATCH(asm volatile("int $0x51\n" LABEL(crossed) "nop"));
    CHECK_TRAP(t, 0x51, 0, SYMBOL(crossed));
    CHECK_EQ(*(word *)(stacks[2] + 8), SEL_DATA);
    CHECK_EQ(*(word *)(stacks[0] + 0xff8), t.rflags);
    CHECK_EQ(*(word *)(stacks[0] + 0xff0), SEL_CODE);
    CHECK_EQ(*(word *)(stacks[0] + 0xfe8), t.rip);
    paging_reset();
    good_gate(0x51);
}

/* A read-only stack: CPL 0 with WP, and the page is present. */
TEST(read_only_stack)
{
    map_page(UNMAPPED, (word)stacks[0], 1, PG_P);
    ist_gate(0x51, 2, UNMAPPED + 0x1000);
    struct trap t = CATCH(asm volatile(LABEL(ro_here) "int $0x51"));
    CHECK_PF(t, UNMAPPED + 0xff8, PF_W | PF_P, SYMBOL(ro_here));
    paging_reset();
    good_gate(0x51);
}

/* What delivery from CPL 3 touches is the supervisor's: no U in the error code (4.7). */
asm(LABEL(user_ud) "ud2");
TEST(faults_of_delivery_are_the_supervisors)
{
    word rsp0, bad = UNMAPPED + 0x800;
    memcpy(&rsp0, &tss[1], 8);
    memcpy(&tss[1], &bad, 8);
    ist_gate(V_PF, 2, (word)stacks[1]);
    struct trap t = RUN(context_user(SYMBOL(user_ud)));
    CHECK_PF(t, UNMAPPED + 0x7f8, PF_W, SYMBOL(user_ud));
    CHECK_EQ(t.cs, SEL_UCODE);
    CHECK_EQ(t.ss, SEL_UDATA);
    memcpy(&tss[1], &rsp0, 8);
    good_gate(V_PF);
}

/* The IDT itself is not there: #PF while #PF is looked up. */
TEST(idt_missing_behind_the_df_gate)
{
    struct __attribute__((packed)) {
        uint16_t limit;
        word base;
    } idtr = {sizeof idt - 1, UNMAPPED + 0x1000 - 9 * 16}, normal = {sizeof idt - 1, (word)idt};
    df_on_ist();
    /* The gates up to #DF are on a present page, those behind it are not. */
    static char page[4096] __attribute__((aligned(4096)));
    memcpy(page + 4096 - 9 * 16, idt, 9 * 16);
    map_page(UNMAPPED, (word)page, 1, PG_ALL);
    struct trap t = CATCH({
        asm volatile("lidt %0" ::"m"(idtr));
        asm volatile("movb $1, (%0)" ::"r"(UNMAPPED + 0x3000));
    });
    asm volatile("lidt %0" ::"m"(normal));
    CHECK_DF(t);
    CHECK_EQ(t.cr2, idtr.base + V_PF * 16);
    paging_reset();
    good_gate(V_DF);
}

const struct test guest_tests[] = {T(ud_then_np),
                                   T(ud_then_pf),
                                   T(contributory_then_contributory_is_df),
                                   T(contributory_then_pf_is_pf),
                                   T(pf_then_contributory_is_df),
                                   T(pf_then_pf_is_df),
                                   T(stack_overflow_into_a_guard_page),
                                   T(interrupt_then_fault),
                                   T(frame_across_a_page_boundary),
                                   T(read_only_stack),
                                   T(faults_of_delivery_are_the_supervisors),
                                   T(idt_missing_behind_the_df_gate),
                                   {0, 0}};
