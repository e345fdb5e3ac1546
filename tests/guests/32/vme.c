/*
 * vme.c - virtual-8086 mode extensions (CR4.VME): the virtual interrupt flag, INT n through the
 * redirection bitmap; and virtual interrupts in protected mode (CR4.PVI) (SDM vol. 3, 20.3.2,
 * 20.3.3, 20.4; vol. 2, CLI, STI, PUSHF, POPF, IRET).
 *
 * QEMU has no VME: it fails nearly all of this.
 */
#include "v86.h"

enum { CR4_VME = 1, CR4_PVI = 2 };
enum { ID = 1 << 21 };

/* The guest's TSS with both bitmaps: redirection, then I/O. */
static struct {
    uint32_t tss[26];
    uint8_t redirect[32];
    uint8_t io[33];
} vme_tss __attribute__((aligned(128)));

static void vme_setup(void)
{
    rings_setup();
    memcpy(vme_tss.tss, tss, 104);
    memset(vme_tss.redirect, 0xff, 32);
    memset(vme_tss.io, 0xff, sizeof(vme_tss.io));
    vme_tss.tss[25] = (104 + 32) << 16;
    gdt[SEL_TSS / 8] = descriptor((word)&vme_tss, sizeof(vme_tss) - 1, D_TSS32);
    asm volatile("ltr %w0" ::"r"(SEL_TSS) : "memory");
    write_cr4(read_cr4() | CR4_VME);
    set_gate(0x41, (word)trap_stubs + 16 * 0x41, SEL_CODE, 14, 3, 0);
}
static void vme_end(void)
{
    write_cr4(read_cr4() & ~(word)(CR4_VME | CR4_PVI));
    gdt[SEL_TSS / 8] = descriptor((word)tss, 103, D_TSS32);
    asm volatile("ltr %w0" ::"r"(SEL_TSS) : "memory");
}

TEST(cpuid_announces_it)
{
    uint32_t r[4];
    cpuid(1, 0, r);
    CHECK_EQ(r[3] >> 1 & 1, 1);
}

/* ---- VIF in place of IF ------------------------------------------------------------------------
 */

CODE16(cli, LABEL(cli_here) "cli; int3");
CODE16(sti, LABEL(sti_here) "sti; int3");
CODE16(pushf, "pushfw; popw %ax; int3");
CODE16(pushfd, "pushfl; int3");
CODE16(popf, "pushw %bx\n" LABEL(popf_here) "popfw; int3");
CODE16(popfd, "popfl; int3");
CODE16(iret, "pushw %bx; pushw %cs; pushw $9f - iret\n" LABEL(iret_here) "iretw; 9: int3");
CODE16(iretd, "iretl; int3");

static struct trap with_bx(const char *code, const char *end, uint32_t eflags, uint32_t bx)
{
    memcpy((void *)(V86_CODE << 4), code, (size_t)(end - code));
    struct context c = v86_context(eflags);
    c.rbx = bx;
    return RUN(c);
}
#define WITH_BX(name, eflags, bx) with_bx(name, name##_end, eflags, bx)
#define STATE(t)                  ((t).rflags & (F_IF | F_VIF | F_VIP))

TEST(cli_and_sti)
{
    vme_setup();
    for (unsigned iopl = 0; iopl < 3; iopl++) {
        uint32_t f = iopl << 12;
        struct trap t = V86(sti, f);
        CHECK_EQ(t.vector, V_BP);
        CHECK_EQ(STATE(t), F_VIF);
        CHECK_EQ(STATE(V86(sti, f | F_VIF | F_IF)), F_VIF | F_IF);
        CHECK_EQ(STATE(V86(cli, f | F_VIF | F_IF)), F_IF);
        CHECK_EQ(STATE(V86(cli, f | F_VIF | F_VIP)) & ~F_VIP, 0);
        t = V86(sti, f | F_VIP); /* an interrupt is pending: the monitor must hear of it */
        CHECK_TRAP(t, V_GP, 0, 0);
        CHECK_EQ(STATE(t), F_VIP);
    }
    /* With IOPL 3 it is IF itself, and VIP is of no interest. */
    CHECK_EQ(STATE(V86(sti, F_IOPL3 | F_VIP)), F_IF | F_VIP);
    CHECK_EQ(STATE(V86(cli, F_IOPL3 | F_IF | F_VIF)), F_VIF);
    vme_end();
}

TEST(pushf_shows_vif_as_if)
{
    vme_setup();
    CHECK_EQ(V86(pushf, 0).frame.rax & 0xffff, 2 | F_IOPL3);
    CHECK_EQ(V86(pushf, F_VIF).frame.rax & 0xffff, 2 | F_IOPL3 | F_IF);
    CHECK_EQ(V86(pushf, F_IF | 1 << 12).frame.rax & 0xffff, 2 | F_IOPL3);
    CHECK_EQ(V86(pushf, F_VIF | F_IOPL3).frame.rax & 0xffff, 2 | F_IOPL3); /* IF itself */
    CHECK_TRAP(V86(pushfd, F_VIF), V_GP, 0, 0); /* 32 bits: no extension */
    CHECK_EQ(V86(pushfd, F_IOPL3).vector, V_BP);
    vme_end();
}

TEST(popf_loads_vif)
{
    const uint32_t low = 0x8d5 | F_DF | F_NT | 2;
    vme_setup();
    struct trap t = WITH_BX(popf, 0, 0xfeff);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.rflags, F_VM | low | F_VIF); /* neither IF nor IOPL */
    t = WITH_BX(popf, low | F_VIF | F_IF | 2 << 12, 0);
    CHECK_EQ(t.rflags, F_VM | 2 | F_IF | 2 << 12);
    t = WITH_BX(popf, F_VIP, F_IF);
    CHECK_TRAP(t, V_GP, 0, OFFSET16(popf, popf_here));
    CHECK_EQ(t.rsp, 0x1000 - 2); /* before the POPF */
    CHECK_EQ(WITH_BX(popf, F_VIP, 0).vector, V_BP);
    t = WITH_BX(popf, 0, F_TF);
    CHECK_TRAP(t, V_GP, 0, OFFSET16(popf, popf_here));
    CHECK_TRAP(V86(popfd, F_VIF), V_GP, 0, 0);
    t = WITH_BX(popf, F_IOPL3 | F_VIP, F_IF); /* IOPL 3: IF itself */
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(STATE(t), F_IF | F_VIP);
    vme_end();
}

TEST(iret_loads_vif)
{
    const uint32_t low = 0x8d5 | F_DF | F_NT | 2;
    vme_setup();
    struct trap t = WITH_BX(iret, 0, 0xfeff);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.rflags, F_VM | low | F_VIF);
    CHECK_EQ(t.rsp, 0x1000);
    t = WITH_BX(iret, F_VIF | F_IF | ID, 0);
    CHECK_EQ(t.rflags, F_VM | 2 | F_IF | ID);
    t = WITH_BX(iret, F_VIP, F_IF);
    CHECK_TRAP(t, V_GP, 0, OFFSET16(iret, iret_here));
    CHECK_EQ(t.rsp, 0x1000 - 6);
    t = WITH_BX(iret, 0, F_TF);
    CHECK_TRAP(t, V_GP, 0, OFFSET16(iret, iret_here));
    CHECK_TRAP(V86(iretd, F_VIF), V_GP, 0, 0);
    vme_end();
}

/* ---- INT n -------------------------------------------------------------------------------------
 */

/* The 8086 program's handler, at segment 5000h: shows FLAGS in CX and what was pushed. */
CODE16(handler, "pushfw; popw %cx; popw %ax; popw %bx; popw %dx; int3");
CODE16(int_41, LABEL(int_41_here) "int $0x41\n" LABEL(int_41_after) "int3");

static void ivt_entry(unsigned vector, unsigned cs, unsigned ip)
{
    asm volatile("movl %1, (%0)" ::"r"(vector * 4), "r"(cs << 16 | ip) : "memory");
}

static struct trap redirected(uint32_t eflags)
{
    vme_tss.redirect[0x41 / 8] &= (uint8_t) ~(1 << 0x41 % 8);
    PLACE16(handler, 0x50123);
    ivt_entry(0x41, 0x5000, 0x123);
    struct trap t = V86(int_41, eflags);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.cs, 0x5000);
    CHECK_EQ(t.frame.rax & 0xffff, OFFSET16(int_41, int_41_after));
    CHECK_EQ(t.frame.rbx & 0xffff, V86_CODE);
    CHECK_EQ(t.rsp, 0x1000);
    return t;
}

TEST(redirected_with_iopl_3)
{
    vme_setup();
    struct trap t = redirected(F_IOPL3 | F_IF | F_CF | F_VIF);
    CHECK_EQ(t.frame.rdx & 0xffff, 2 | F_IOPL3 | F_IF | F_CF);
    CHECK_EQ(t.rflags, F_VM | 2 | F_IOPL3 | F_CF | F_VIF); /* IF is off */
    vme_end();
}

TEST(redirected_with_iopl_below_3)
{
    vme_setup();
    for (unsigned iopl = 0; iopl < 3; iopl++) {
        struct trap t = redirected(iopl << 12 | F_IF | F_VIF | F_CF);
        CHECK_EQ(t.frame.rdx & 0xffff, 2 | F_IOPL3 | F_IF | F_CF); /* VIF, and IOPL as 3 */
        CHECK_EQ(t.rflags, F_VM | 2 | iopl << 12 | F_IF | F_CF);   /* VIF is off, IF is not */
        t = redirected(iopl << 12 | F_IF | F_VIP);
        CHECK_EQ(t.frame.rdx & 0xffff, 2 | F_IOPL3);
        CHECK_EQ(t.rflags, F_VM | 2 | iopl << 12 | F_IF | F_VIP);
    }
    vme_end();
}

/* The handler is entered as in real mode (20.3.3.4): of the flags IF and TF go, NT does not. */
TEST(redirected_int_keeps_nt)
{
    vme_setup();
    struct trap t = redirected(F_NT);
    CHECK_EQ(t.frame.rdx & 0xffff, 2 | F_IOPL3 | F_NT);
    CHECK_EQ(t.rflags & F_NT, F_NT);
    CHECK_EQ(t.frame.rcx & F_NT, F_NT);
    vme_end();
}

TEST(not_redirected)
{
    vme_setup();
    struct trap t = V86(int_41, 0);
    CHECK_TRAP(t, V_GP, 0, 0);
    t = V86(int_41, F_IOPL3);
    CHECK_EQ(t.vector, 0x41);
    CHECK_EQ(t.cs, V86_CODE);
    CHECK_EQ(t.rip, OFFSET16(int_41, int_41_after));
    /* Neighbours' bits do not count. */
    vme_tss.redirect[0x41 / 8] = (uint8_t)(1 << 0x41 % 8);
    t = V86(int_41, F_IOPL3);
    CHECK_EQ(t.vector, 0x41);
    vme_end();
}

/* INT3, INTO, exceptions: never redirected. */
CODE16(undefined, "ud2");

TEST(exceptions_are_not_redirected)
{
    vme_setup();
    memset(vme_tss.redirect, 0, 32);
    ivt_entry(V_BP, 0x5000, 0);
    ivt_entry(V_UD, 0x5000, 0);
    struct trap t = V86(undefined, 0);
    CHECK_EQ(t.vector, V_UD);
    CHECK_EQ(t.cs, V86_CODE);
    t = V86(cli, 0);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.cs, V86_CODE);
    vme_end();
}

/* ---- Protected mode ----------------------------------------------------------------------------
 */

CODE32(user_cli, LABEL(user_cli_here) "cli; int3");
CODE32(user_sti, LABEL(user_sti_here) "sti; int3");
CODE32(user_flags, "pushfl; popl %eax; pushl %ebx; popfl; int3");

static struct trap at_ring(const char *code, unsigned cpl, uint32_t eflags, uint32_t ebx)
{
    struct context c = context_ring((word)code, cpl);
    c.rflags |= eflags;
    c.rbx = ebx;
    return RUN(c);
}

TEST(protected_mode_virtual_interrupts)
{
    vme_setup();
    write_cr4((read_cr4() & ~(word)CR4_VME) | CR4_PVI);
    for (unsigned iopl = 0; iopl < 3; iopl++) {
        uint32_t f = iopl << 12;
        CHECK_EQ(STATE(at_ring(user_sti, 3, f, 0)), F_VIF);
        CHECK_EQ(STATE(at_ring(user_cli, 3, f | F_VIF | F_IF, 0)), F_IF);
        struct trap t = at_ring(user_sti, 3, f | F_VIP, 0);
        CHECK_TRAP(t, V_GP, 0, SYMBOL(user_sti_here));
        /* PUSHF and POPF see the real IF, and POPF leaves it. */
        t = at_ring(user_flags, 3, f | F_VIF, F_IF);
        CHECK_EQ(t.vector, V_BP);
        CHECK_EQ(t.frame.rax & F_IF, 0);
        CHECK_EQ(STATE(t), F_VIF);
    }
    /* CPL 1 and 2 have no virtual flag. */
    CHECK_TRAP(at_ring(user_sti, 1, 0, 0), V_GP, 0, SYMBOL(user_sti_here));
    CHECK_TRAP(at_ring(user_cli, 2, 1 << 12, 0), V_GP, 0, SYMBOL(user_cli_here));
    CHECK_EQ(STATE(at_ring(user_sti, 1, 1 << 12, 0)), F_IF);
    CHECK_EQ(STATE(at_ring(user_sti, 3, F_IOPL3 | F_VIP, 0)), F_IF | F_VIP);
    vme_end();
    CHECK_TRAP(at_ring(user_sti, 3, 0, 0), V_GP, 0, SYMBOL(user_sti_here));
    CHECK_TRAP(at_ring(user_cli, 3, 0, 0), V_GP, 0, SYMBOL(user_cli_here));
}

/* PVI is not for virtual-8086 mode, nor VME for protected mode. */
TEST(each_has_a_bit_of_its_own)
{
    vme_setup();
    CHECK_TRAP(at_ring(user_sti, 3, 0, 0), V_GP, 0, SYMBOL(user_sti_here));
    write_cr4((read_cr4() & ~(word)CR4_VME) | CR4_PVI);
    CHECK_TRAP(V86(sti, 0), V_GP, 0, 0);
    vme_end();
}

const struct test guest_tests[] = {T(cpuid_announces_it),
                                   T(cli_and_sti),
                                   T(pushf_shows_vif_as_if),
                                   T(popf_loads_vif),
                                   T(iret_loads_vif),
                                   T(redirected_with_iopl_3),
                                   T(redirected_with_iopl_below_3),
                                   T(redirected_int_keeps_nt),
                                   T(not_redirected),
                                   T(exceptions_are_not_redirected),
                                   T(protected_mode_virtual_interrupts),
                                   T(each_has_a_bit_of_its_own),
                                   {0, 0}};
