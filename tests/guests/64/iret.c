/*
 * iret.c - IRET in 64-bit mode: to every privilege level and code size, null SS, flags, and
 * everything that can be wrong with a frame (SDM vol. 2, IRET; vol. 3, 6.14.3).
 */
#include "context.h"
#include "paging.h"

enum {
    GATE = 0x62,
    CODE64_1 = FREE(0),
    CODE64_2 = FREE(1),
    CODE32_1 = FREE(2),
    CODE32_2 = FREE(3),
    DATA_1 = FREE(4),
    DATA_2 = FREE(5),
    CODE16_3 = FREE(6),
    BAD = FREE(7),
};
#define NON_CANONICAL 0x800000000000ull

static void set_up(void)
{
    gdt[CODE64_1 / 8] = descriptor(0, 0xfffff, D_CODE | 0x20 | D_LONG | D_PAGES);
    gdt[CODE64_2 / 8] = descriptor(0, 0xfffff, D_CODE | 0x40 | D_LONG | D_PAGES);
    gdt[CODE32_1 / 8] = descriptor(0, 0xfffff, D_CODE | 0x20 | D_BIG | D_PAGES);
    gdt[CODE32_2 / 8] = descriptor(0, 0xfffff, D_CODE | 0x40 | D_BIG | D_PAGES);
    gdt[DATA_1 / 8] = descriptor(0, 0xfffff, D_DATA | 0x20 | D_BIG | D_PAGES);
    gdt[DATA_2 / 8] = descriptor(0, 0xfffff, D_DATA | 0x40 | D_BIG | D_PAGES);
    gdt[CODE16_3 / 8] = descriptor(0, 0xfffff, D_CODE | D_DPL3);
    set_gate(GATE, (word)trap_stubs + 16 * GATE, SEL_CODE, 14, 3, 0);
}

/* The same bytes in every code size: INT 62h. The INC tells 64-bit code (REX) from the others. */
asm(LABEL(arrive) ".byte 0x40, 0x90\n" LABEL(arrive_int) "int $0x62\n" LABEL(arrive_end) "nop");

/* ---- Where IRETQ can go ---------------------------------------------------------------------- */

static const struct {
    unsigned cs, ss, null_ss, code64;
} levels[] = {
    {SEL_CODE64, SEL_DATA, 0, 1},
    {CODE64_1 | 1, DATA_1 | 1, 0, 1},
    {CODE64_2 | 2, DATA_2 | 2, 0, 1},
    {SEL_UCODE64, SEL_UDATA, 0, 1},
    {SEL_CODE64, 0, 1, 1},
    {CODE64_1 | 1, 1, 1, 1},
    {CODE64_2 | 2, 2, 1, 1},
    {SEL_CODE32, SEL_DATA, 0, 0},
    {CODE32_1 | 1, DATA_1 | 1, 0, 0},
    {CODE32_2 | 2, DATA_2 | 2, 0, 0},
    {SEL_UCODE32, SEL_UDATA, 0, 0},
    {SEL_CODE16, SEL_DATA, 0, 0},
    {CODE16_3 | 3, SEL_UDATA, 0, 0},
};

TEST(iretq_to_every_level_and_code_size)
{
    set_up();
    for (volatile unsigned i = 0; i < sizeof levels / sizeof levels[0]; i++) {
        static uint8_t *const low = (uint8_t *)0x5000; /* 16-bit code reaches it */
        memcpy(low, (void *)SYMBOL(arrive), 16);
        struct context c = context_at((word)low, levels[i].cs, SEL_UDATA);
        c.ss = levels[i].ss;
        c.rax = 0x1111111122222222;
        struct trap t = RUN(c);
        word arrived = (word)low + (SYMBOL(arrive_end) - SYMBOL(arrive));
        if (t.vector != GATE || t.cs != levels[i].cs || t.ss != levels[i].ss)
            print("  to %x:%x\n", levels[i].cs, levels[i].ss);
        CHECK_TRAP(t, GATE, 0, arrived);
        CHECK_EQ(t.cs, levels[i].cs);
        CHECK_EQ(t.ss, levels[i].ss);
        CHECK_EQ(t.rsp, c.rsp);
        /* 40h is a REX in 64-bit code, INC EAX or AX elsewhere. */
        if (levels[i].code64)
            CHECK_EQ(t.frame.rax, 0x1111111122222222);
        else
            CHECK_EQ(t.frame.rax & 0xffffffff, 0x22222223);
    }
}

/* RSP above 4 GiB survives in 64-bit code; from compatibility code 32 bits of it come back. */
TEST(rsp_of_each_code_size)
{
    struct context c = context_at(SYMBOL(arrive), SEL_UCODE64, SEL_UDATA);
    c.rsp = 0x712345678abcd;
    CHECK_EQ(RUN(c).rsp, c.rsp);
    c = context_at(SYMBOL(arrive), SEL_UCODE32, SEL_UDATA);
    c.rsp = 0x12345678abcd;
    CHECK_EQ(RUN(c).rsp & 0xffffffff, 0x5678abcd);
}

/* ---- Null SS --------------------------------------------------------------------------------- */

/* In 64-bit code below CPL 3 SS may be null; its RPL must be the CPL (vol. 3, 5.4.1.1). */
TEST(null_ss_in_64_bit_code)
{
    static word v;
    struct trap t = CATCH(asm volatile("mov %1, %%ss; push %2; pop %0; mov %3, %%ss"
                                       : "=m"(v)
                                       : "r"(0), "r"(0x1234ul), "r"(SEL_DATA)));
    CHECK_NO_TRAP(t);
    CHECK_EQ(v, 0x1234);
    t = CATCH(asm volatile(LABEL(null_rpl) "mov %0, %%ss" ::"r"(1)));
    CHECK_TRAP(t, V_GP, 0, SYMBOL(null_rpl));
    t = CATCH(asm volatile(LABEL(null_rpl3) "mov %0, %%ss" ::"r"(3)));
    CHECK_TRAP(t, V_GP, 0, SYMBOL(null_rpl3));
    asm volatile("mov %0, %%ss" ::"r"(SEL_DATA));
}

asm(LABEL(user_null_ss) "mov %eax, %ss; ud2");
TEST(null_ss_at_cpl_3)
{
    struct context c = context_user(SYMBOL(user_null_ss));
    c.rax = 3;
    CHECK_TRAP(RUN(c), V_GP, 0, SYMBOL(user_null_ss));
    c.rax = 0;
    CHECK_TRAP(RUN(c), V_GP, 0, SYMBOL(user_null_ss));
}

/* ---- Bad frames ------------------------------------------------------------------------------ */

static const struct {
    const char *what;
    unsigned cs, ss, attr; /* of BAD */
    word rip;
    unsigned vector, error;
} bad_frames[] = {
    {"null CS", 0, SEL_DATA, 0, 0x1000, V_GP, 0},
    {"null CS with RPL", 3, SEL_UDATA, 0, 0x1000, V_GP, 0},
    {"CS beyond the GDT", 0x1003, SEL_UDATA, 0, 0x1000, V_GP, 0x1000},
    {"CS in an LDT, none loaded", 0x0f, SEL_UDATA, 0, 0x1000, V_GP, 0x0c},
    {"CS is data", SEL_UDATA, SEL_UDATA, 0, 0x1000, V_GP, SEL_UDATA & ~3},
    {"CS is a TSS", SEL_TSS, SEL_DATA, 0, 0x1000, V_GP, SEL_TSS},
    {"DPL is not RPL", SEL_CODE64 | 3, SEL_UDATA, 0, 0x1000, V_GP, SEL_CODE64},
    {"DPL above RPL", SEL_UCODE64 & ~3, SEL_DATA, 0, 0x1000, V_GP, SEL_UCODE64 & ~3},
    {"conforming DPL above RPL", BAD | 1, DATA_1 | 1, (D_CONFORMING | 0x40) | D_LONG, 0x1000, V_GP,
     BAD},
    {"CS not present", BAD | 3, SEL_UDATA, 0x7b | D_LONG, 0x1000, V_NP, BAD},
    {"CS with L and D", BAD | 3, SEL_UDATA, 0xfb | D_LONG | D_BIG, 0x1000, V_GP, BAD},
    {"non-canonical RIP", SEL_UCODE64, SEL_UDATA, 0, NON_CANONICAL, V_GP, 0},
    {"non-canonical RIP, CPL 0", SEL_CODE64, SEL_DATA, 0, NON_CANONICAL, V_GP, 0},
    {"EIP beyond the limit", BAD | 3, SEL_UDATA, 0xfb | D_BIG, 0x1000000, V_GP, 0},
    {"null SS to CPL 3", SEL_UCODE64, 3, 0, 0x1000, V_GP, 0},
    {"null SS with another RPL", SEL_CODE64, 1, 0, 0x1000, V_GP, 0},
    {"null SS to compatibility code", SEL_CODE32, 0, 0, 0x1000, V_GP, 0},
    {"SS beyond the GDT", SEL_UCODE64, 0x1003, 0, 0x1000, V_GP, 0x1000},
    {"SS with another RPL", SEL_UCODE64, SEL_UDATA & ~3, 0, 0x1000, V_GP, SEL_UDATA & ~3},
    {"SS with another DPL", SEL_UCODE64, SEL_DATA | 3, 0, 0x1000, V_GP, SEL_DATA},
    {"SS is code", SEL_UCODE64, SEL_UCODE64, 0, 0x1000, V_GP, SEL_UCODE64 & ~3},
    {"SS is read-only", SEL_UCODE64, BAD | 3, 0xf1 | D_BIG, 0x1000, V_GP, BAD},
    {"SS not present", SEL_UCODE64, BAD | 3, 0x73 | D_BIG, 0x1000, V_SS, BAD},
    {"SS not present, CPL 0", SEL_CODE64, BAD, 0x13 | D_BIG, 0x1000, V_SS, BAD},
};

/* The fault is IRETQ's own, and nothing has changed. (For an SS that is not present vol. 2 says #SS
 * in its pseudo-code and #NP in its list; AMD says #SS.) */
TEST(bad_frames_fault_at_the_iretq)
{
    set_up();
    asm volatile("lldt %w0" ::"r"(0));
    for (volatile unsigned i = 0; i < sizeof bad_frames / sizeof bad_frames[0]; i++) {
        gdt[BAD / 8] = descriptor(0, 0xfffff, bad_frames[i].attr);
        struct context c = context_at(bad_frames[i].rip, bad_frames[i].cs, SEL_DATA);
        c.ss = bad_frames[i].ss;
        c.rflags = 2 | F_CF | F_DF;
        struct trap t = RUN(c);
        if (t.vector != bad_frames[i].vector || t.error != bad_frames[i].error)
            print("  %s:\n", bad_frames[i].what);
        CHECK_TRAP(t, bad_frames[i].vector, bad_frames[i].error, SYMBOL(context_iret));
        CHECK_EQ(t.cs, SEL_CODE);
        CHECK_EQ(t.rflags & F_DF, 0);
        CHECK_EQ(((word *)t.rsp)[0], bad_frames[i].rip); /* RSP still points to the frame */
        CHECK_EQ(((word *)t.rsp)[4], bad_frames[i].ss);
    }
}

TEST(frame_that_runs_into_a_missing_page)
{
    static char page[4096] __attribute__((aligned(4096)));
    map_page(WINDOW, (word)page, 1, PG_ALL);
    for (unsigned items = 1; items <= 4; items++) {
        word *sp = (word *)(WINDOW + 0x1000 - 8 * items);
        const word frame[4] = {SYMBOL(arrive), SEL_CODE, 2, WINDOW + 0x800};
        memcpy(sp, frame, 8 * items);
        struct trap t = CATCH(asm volatile("mov %0, %%rsp\n" LABEL(iret_hole) "iretq" ::"r"(sp)
                                           : "memory"));
        CHECK_TRAP(t, V_PF, 0, SYMBOL(iret_hole));
        CHECK_EQ(t.cr2 & ~0xfffull, WINDOW + 0x1000); /* in which order is not said */
        CHECK_EQ(t.rsp, (word)sp);
    }
    paging_reset();
}

TEST(nested_task_is_gp)
{
    struct trap t =
        CATCH(asm volatile("pushf; orl $0x4000, (%%rsp); popf\n" LABEL(iret_nt) "iretq" ::
                               : "memory", "cc"));
    asm volatile("pushf; andl $~0x4000, (%rsp); popf");
    CHECK_TRAP(t, V_GP, 0, SYMBOL(iret_nt));
    CHECK_EQ(t.rflags & F_NT, F_NT);
}

/* A more privileged CS is no way in. */
asm(LABEL(user_iret) "iretq");
TEST(iretq_inwards)
{
    word *frame = (word *)(context_stack + 2048);
    frame[0] = SYMBOL(arrive), frame[1] = SEL_CODE64, frame[2] = 2, frame[3] = (word)frame,
    frame[4] = SEL_DATA;
    struct context c = context_user(SYMBOL(user_iret));
    c.rsp = (word)frame;
    struct trap t = RUN(c);
    CHECK_TRAP(t, V_GP, SEL_CODE64, SYMBOL(user_iret));
    CHECK_EQ(t.rsp, (word)frame);
}

/* ---- Flags ----------------------------------------------------------------------------------- */

enum { ID = 1 << 21, EVERYTHING = 0x3ffffd & ~(F_TF | F_NT) };

/* From CPL 0 all of them; VM is ignored in IA-32e mode, reserved bits are fixed. RF is used up by
 * the first instruction. */
TEST(flags_from_cpl_0)
{
    set_up();
    struct context c = context_user(SYMBOL(arrive_int));
    c.rflags = 0xffffffffffffffff & ~(word)(F_TF | F_NT);
    struct trap t = RUN(c);
    CHECK_EQ(t.vector, GATE);
    CHECK_EQ(t.rflags, (0x3f7fd7 & ~(F_TF | F_NT | F_RF | F_VM)) | 2);
    c.rflags = 0;
    CHECK_EQ(RUN(c).rflags, 2);
    asm volatile("pushf; andl $~0x1c7400, (%rsp); popf");
}

/* At CPL 3 IRETQ leaves IOPL, VIF, VIP and, above IOPL, IF alone. */
asm(LABEL(user_iret_flags) "pushq %rdx; pushq %rsi; pushq %rbx; pushq %rcx; pushq %rax; iretq");
TEST(flags_from_cpl_3)
{
    set_up();
    struct context c = context_user(SYMBOL(user_iret_flags));
    c.rax = SYMBOL(arrive_int), c.rcx = SEL_UCODE, c.rsi = c.rsp, c.rdx = SEL_UDATA;
    c.rbx = EVERYTHING;
    struct trap t = RUN(c);
    CHECK_EQ(t.vector, GATE);
    CHECK_EQ(t.rflags, (EVERYTHING & (0xcd5 | F_AC | ID) & ~F_IF) | 2);
    c.rflags = 2 | F_IOPL3;
    t = RUN(c);
    CHECK_EQ(t.rflags, (EVERYTHING & (0xcd5 | F_AC | ID)) | F_IF | F_IOPL3 | 2);
    c.rflags = 2 | F_IF | F_VIF;
    c.rbx = 0;
    t = RUN(c);
    CHECK_EQ(t.rflags, 2 | F_IF | F_VIF);
    asm volatile("pushf; andl $~0x1c7400, (%rsp); popf");
}

/* RF = 1 lets the next instruction, and only it, pass its breakpoint. */
TEST(rf_from_the_image)
{
    set_up();
    write_dr6(0xffff0ff0);
    write_dr0(SYMBOL(arrive));
    write_dr7(0x402);
    struct context c = context_user(SYMBOL(arrive));
    struct trap t = RUN(c);
    write_dr7(0x402);
    CHECK_TRAP(t, V_DB, 0, SYMBOL(arrive));
    c.rflags |= F_RF;
    t = RUN(c);
    CHECK_EQ(t.vector, GATE);
    CHECK_EQ(t.rflags & F_RF, 0);
    write_dr7(0x400);
    write_dr6(0xffff0ff0);
}

/* ---- Operand sizes --------------------------------------------------------------------------- */

/* IRETD and IRETW in 64-bit code: five items of 4 or 2 bytes; the upper RSP is zero. */
TEST(iretd_and_iretw)
{
    set_up();
    static uint32_t frame4[5];
    static uint16_t frame2[5];
    static uint8_t *const low = (uint8_t *)0x5000;
    memcpy(low, (void *)SYMBOL(arrive), 16);
    frame4[0] = (uint32_t)SYMBOL(arrive), frame4[1] = SEL_UCODE64, frame4[2] = F_VM | F_AC | 2;
    frame4[3] = 0x89abcdef, frame4[4] = SEL_UDATA;
    struct trap t = CATCH(asm volatile("mov %0, %%rsp; iretl" ::"r"(frame4) : "memory"));
    CHECK_TRAP(t, GATE, 0, SYMBOL(arrive_end));
    CHECK_EQ(t.cs, SEL_UCODE64);
    CHECK_EQ(t.rsp, 0x89abcdef);
    CHECK_EQ(t.rflags, F_AC | 2);
    asm volatile("pushf; andl $~0x40000, (%rsp); popf");
    frame2[0] = 0x5000, frame2[1] = SEL_UCODE32, frame2[2] = F_CF | 2, frame2[3] = 0xcdef,
    frame2[4] = SEL_UDATA;
    t = CATCH(asm volatile("mov %0, %%rsp; iretw" ::"r"(frame2) : "memory"));
    CHECK_TRAP(t, GATE, 0, 0x5000 + SYMBOL(arrive_end) - SYMBOL(arrive));
    CHECK_EQ(t.cs, SEL_UCODE32);
    CHECK_EQ(t.rsp, 0xcdef);
    CHECK_EQ(t.rflags & F_CF, F_CF); /* INC leaves it alone */
}

/* ---- Data segments --------------------------------------------------------------------------- */

/* Segments that the outer level may not have become null (vol. 3, 5.8.6). */
asm(LABEL(read_segments) "mov %ds, %eax; mov %es, %ebx; mov %fs, %ecx; mov %gs, %edx; int $0x62");
TEST(inner_data_segments_become_null)
{
    set_up();
    struct context c = context_user(SYMBOL(read_segments));
    c.ds = SEL_DATA;
    c.es = SEL_UDATA;
    c.fs = DATA_2 | 2;
    c.gs = SEL_DATA;
    struct trap t = RUN(c);
    CHECK_EQ(t.vector, GATE);
    CHECK_EQ(t.frame.rax & 0xffff, 0);
    CHECK_EQ(t.frame.rbx & 0xffff, SEL_UDATA);
    CHECK_EQ(t.frame.rcx & 0xffff, 0);
    CHECK_EQ(t.frame.rdx & 0xffff, 0);
    /* Null selectors lose their RPL (SDM vol. 2, IRET). */
    c.ds = 1;
    c.es = 2;
    c.fs = 3;
    c.gs = 0;
    t = RUN(c);
    CHECK_EQ(t.frame.rax & 0xffff, 0);
    CHECK_EQ(t.frame.rbx & 0xffff, 0);
    CHECK_EQ(t.frame.rcx & 0xffff, 0);
    CHECK_EQ(t.frame.rdx & 0xffff, 0);
    asm volatile("mov %0, %%ds; mov %0, %%es" ::"r"(SEL_DATA));
}

const struct test guest_tests[] = {T(iretq_to_every_level_and_code_size),
                                   T(rsp_of_each_code_size),
                                   T(null_ss_in_64_bit_code),
                                   T(null_ss_at_cpl_3),
                                   T(bad_frames_fault_at_the_iretq),
                                   T(frame_that_runs_into_a_missing_page),
                                   T(nested_task_is_gp),
                                   T(iretq_inwards),
                                   T(flags_from_cpl_0),
                                   T(flags_from_cpl_3),
                                   T(rf_from_the_image),
                                   T(iretd_and_iretw),
                                   T(inner_data_segments_become_null),
                                   {0, 0}};
