/*
 * syscall.c - SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS, FSGSBASE, and where AMD and Intel differ
 * (SDM vol. 2 and AMD APM vol. 3 under each name; SDM vol. 3, 5.8.7, 5.8.8).
 *
 * STAR is as kernels set it: SYSCALL to 18h (and SS 20h, whatever the GDT has there), SYSRET to 20h
 * and its neighbours. The descriptors themselves are not read.
 */
#include "context.h"
#include "paging.h"

enum {
    MSR_SYSENTER_CS = 0x174,
    MSR_SYSENTER_ESP = 0x175,
    MSR_SYSENTER_EIP = 0x176,
    EFER_SCE = 1,
    CR4_FSGSBASE = 1 << 16,
    GATE = 0x62,
    STAR_USER = 0x20, /* SYSRET: 32-bit code 23h, data 2Bh, 64-bit code 33h */
    ID = 1 << 21,
};
#define MSR_STAR           0xc0000081u
#define MSR_LSTAR          0xc0000082u
#define MSR_CSTAR          0xc0000083u
#define MSR_SFMASK         0xc0000084u
#define MSR_FS_BASE        0xc0000100u
#define MSR_GS_BASE        0xc0000101u
#define MSR_KERNEL_GS_BASE 0xc0000102u
#define NON_CANONICAL      0x800000000000ull

/* The entries end in INT 62h, which shows the state on arrival; the bytes mean the same in every
 * code size. */
asm(LABEL(entry) "int $0x62\n" LABEL(entry_end) "nop");
asm(LABEL(compat_entry) "int $0x62\n" LABEL(compat_entry_end) "nop");
asm(LABEL(show) "int $0x62\n" LABEL(show_end) "nop");
asm(LABEL(show_push) "push %rax\n" LABEL(show_pushed) "int $0x62");
asm(LABEL(do_syscall) "syscall\n" LABEL(do_syscall_end) "ud2");
asm(LABEL(do_sysret) "sysretq");
asm(LABEL(do_sysret32) ".byte 0x0f, 0x07");
asm(LABEL(do_sysenter) "sysenter\n" LABEL(do_sysenter_end) "ud2");
asm(LABEL(do_sysexit) "sysexitq");
asm(LABEL(do_sysexit32) ".byte 0x0f, 0x35");

static void set_up(void)
{
    set_gate(GATE, (word)trap_stubs + 16 * GATE, SEL_CODE, 14, 3, 0);
    asm volatile("mov %0, %%ss" ::"r"(SEL_DATA));
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);
    wrmsr(MSR_STAR, (uint64_t)STAR_USER << 48 | (uint64_t)SEL_CODE64 << 32 | 0x12345678);
    wrmsr(MSR_LSTAR, SYMBOL(entry));
    wrmsr(MSR_CSTAR, SYMBOL(compat_entry));
    wrmsr(MSR_SFMASK, F_IF | F_DF | F_TF);
    wrmsr(MSR_SYSENTER_CS, SEL_CODE64);
    wrmsr(MSR_SYSENTER_EIP, SYMBOL(entry));
    wrmsr(MSR_SYSENTER_ESP, (word)context_stack + 1024);
}

/* ---- SYSCALL --------------------------------------------------------------------------------- */

TEST(syscall_from_64_bit_code)
{
    set_up();
    struct context c = context_user(SYMBOL(do_syscall));
    c.rflags = 2 | F_CF | F_IF | F_DF | ID;
    c.rsp -= 5;
    c.rcx = 1, c.r11 = 2;
    struct trap t = RUN(c);
    CHECK_TRAP(t, GATE, 0, SYMBOL(entry_end));
    CHECK_EQ(t.cs, SEL_CODE64);
    CHECK_EQ(t.ss, SEL_CODE64 + 8);
    CHECK_EQ(t.rflags, 2 | F_CF | ID); /* SFMASK's bits are off */
    CHECK_EQ(t.rsp, c.rsp);            /* RSP is not touched */
    CHECK_EQ(t.frame.rcx, SYMBOL(do_syscall_end));
    CHECK_EQ(t.frame.r11, c.rflags);
}

/* The RPL in STAR does not count, and RF does not reach R11. */
TEST(syscall_selectors_and_rf)
{
    set_up();
    wrmsr(MSR_STAR, (uint64_t)STAR_USER << 48 | (uint64_t)(SEL_CODE64 | 3) << 32);
    wrmsr(MSR_SFMASK, 0);
    struct context c = context_user(SYMBOL(do_syscall));
    c.rflags = 2 | F_IF | F_RF;
    struct trap t = RUN(c);
    CHECK_TRAP(t, GATE, 0, SYMBOL(entry_end));
    CHECK_EQ(t.cs, SEL_CODE64);
    CHECK_EQ(t.ss, SEL_CODE64 + 8);
    CHECK_EQ(t.frame.r11, 2 | F_IF);
    CHECK_EQ(t.rflags, 2 | F_IF);
}

TEST(syscall_at_cpl_0)
{
    set_up();
    struct trap t = RUN(context_at(SYMBOL(do_syscall), SEL_CODE, SEL_DATA));
    CHECK_TRAP(t, GATE, 0, SYMBOL(entry_end));
    CHECK_EQ(t.frame.rcx, SYMBOL(do_syscall_end));
}

TEST(without_sce_they_are_undefined)
{
    set_up();
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~(uint64_t)EFER_SCE);
    struct context c = context_user(SYMBOL(do_syscall));
    c.rcx = 1, c.r11 = 2;
    struct trap t = RUN(c);
    CHECK_TRAP(t, V_UD, 0, SYMBOL(do_syscall));
    CHECK_EQ(t.rflags & F_RF, F_RF);
    CHECK_EQ(t.frame.rcx, 1);
    CHECK_EQ(t.frame.r11, 2);
    c = context_at(SYMBOL(do_sysret), SEL_CODE, SEL_DATA);
    CHECK_TRAP(RUN(c), V_UD, 0, SYMBOL(do_sysret));
}

/* From compatibility code AMD enters at CSTAR, with EIP in ECX; Intel has no SYSCALL there. */
TEST(syscall_from_compatibility_code)
{
    set_up();
    struct context c = context_at(SYMBOL(do_syscall), SEL_UCODE32, SEL_UDATA);
    c.rflags = 2 | F_IF | F_CF;
    c.rcx = 0xaaaaaaaaaaaaaaaa;
    struct trap t = RUN(c);
    if (is_amd()) {
        CHECK_TRAP(t, GATE, 0, SYMBOL(compat_entry_end));
        CHECK_EQ(t.cs, SEL_CODE64);
        CHECK_EQ(t.ss, SEL_CODE64 + 8);
        CHECK_EQ(t.rflags, 2 | F_CF);
        CHECK_EQ(t.frame.rcx, SYMBOL(do_syscall_end));
        CHECK_EQ(t.frame.r11, c.rflags);
    } else {
        CHECK_TRAP(t, V_UD, 0, SYMBOL(do_syscall));
        CHECK_EQ(t.cs, SEL_UCODE32);
    }
}

/* ---- SYSRET ---------------------------------------------------------------------------------- */

enum { FLAGS_FROM_R11 = F_CF | F_IF | F_IOPL3 | F_VIF | ID };

static struct context sysret_context(word instruction, word rip)
{
    struct context c = context_at(instruction, SEL_CODE, SEL_DATA);
    c.rcx = rip;
    c.r11 = FLAGS_FROM_R11 | F_RF | F_VM; /* these two do not come through, bit 1 is always there */
    return c;
}

TEST(sysret_to_64_bit_code)
{
    set_up();
    struct trap t = RUN(sysret_context(SYMBOL(do_sysret), SYMBOL(show)));
    CHECK_TRAP(t, GATE, 0, SYMBOL(show_end));
    CHECK_EQ(t.cs, (STAR_USER + 16) | 3);
    CHECK_EQ(t.ss, (STAR_USER + 8) | 3);
    CHECK_EQ(t.rflags, 2 | FLAGS_FROM_R11);
    CHECK_EQ(t.rsp, (word)context_stack + sizeof context_stack - 64);
}

TEST(sysret_to_compatibility_code)
{
    set_up();
    struct context c = sysret_context(SYMBOL(do_sysret32), SYMBOL(show_push) | 0xabcull << 32);
    struct trap t = RUN(c);
    CHECK_TRAP(t, GATE, 0, SYMBOL(show_pushed) + 2); /* ECX only */
    CHECK_EQ(t.cs, STAR_USER | 3);
    CHECK_EQ(t.ss, (STAR_USER + 8) | 3);
    CHECK_EQ(t.rflags, 2 | FLAGS_FROM_R11);
    CHECK_EQ(t.rsp, c.rsp - 4);
}

/* Intel faults at the SYSRET, with the kernel's privilege and the user's RSP; AMD at the target. */
TEST(sysret_to_a_non_canonical_address)
{
    set_up();
    struct trap t = RUN(sysret_context(SYMBOL(do_sysret), NON_CANONICAL));
    if (is_amd()) {
        CHECK_TRAP(t, V_GP, 0, NON_CANONICAL);
        CHECK_EQ(t.cs, (STAR_USER + 16) | 3);
        CHECK_EQ(t.ss, (STAR_USER + 8) | 3);
    } else {
        CHECK_TRAP(t, V_GP, 0, SYMBOL(do_sysret));
        CHECK_EQ(t.cs, SEL_CODE);
    }
    /* Whatever the upper half: a 32-bit return takes ECX. */
    t = RUN(sysret_context(SYMBOL(do_sysret32), SYMBOL(show) | NON_CANONICAL));
    CHECK_TRAP(t, GATE, 0, SYMBOL(show_end));
}

/* AMD's SYSRET leaves the hidden part of SS alone, so that a null SS stays unusable for
 * compatibility code; Intel's makes it new. */
TEST(sysret_with_a_null_ss)
{
    set_up();
    struct context c = sysret_context(SYMBOL(do_sysret32), SYMBOL(show_push));
    c.ss = 0;
    struct trap t = RUN(c);
    if (is_amd())
        CHECK_TRAP(t, V_SS, 0, SYMBOL(show_push));
    else
        CHECK_TRAP(t, GATE, 0, SYMBOL(show_pushed) + 2);
    CHECK_EQ(t.cs, STAR_USER | 3);
    CHECK_EQ(t.ss, (STAR_USER + 8) | 3);
    /* 64-bit code does not care. */
    c = sysret_context(SYMBOL(do_sysret), SYMBOL(show_push));
    c.ss = 0;
    CHECK_TRAP(RUN(c), GATE, 0, SYMBOL(show_pushed) + 2);
}

/* In compatibility code at CPL 0: AMD's is the legacy SYSRET, which only sets IF (APM vol. 3,
 * SYSRET). */
TEST(sysret_from_compatibility_code)
{
    set_up();
    struct context c = sysret_context(SYMBOL(do_sysret32), SYMBOL(show));
    c.cs = SEL_CODE32;
    c.rflags = 2 | F_CF;
    struct trap t = RUN(c);
    if (is_amd()) {
        CHECK_TRAP(t, GATE, 0, SYMBOL(show_end));
        CHECK_EQ(t.cs, STAR_USER | 3);
        CHECK_EQ(t.ss, (STAR_USER + 8) | 3);
        CHECK_EQ(t.rflags, 2 | F_CF | F_IF);
    } else {
        CHECK_TRAP(t, V_UD, 0, SYMBOL(do_sysret32));
    }
}

/* ---- SYSENTER, SYSEXIT ----------------------------------------------------------------------- */

TEST(sysenter)
{
    set_up();
    for (unsigned code32 = 0; code32 < 2; code32++) {
        struct context c = context_user(SYMBOL(do_sysenter));
        c.cs = code32 ? SEL_UCODE32 : SEL_UCODE64;
        c.rflags = 2 | F_IF | F_CF | F_DF;
        struct trap t = RUN(c);
        if (is_amd()) { /* not in long mode, neither kind of code */
            CHECK_TRAP(t, V_UD, 0, SYMBOL(do_sysenter));
            continue;
        }
        CHECK_TRAP(t, GATE, 0, SYMBOL(entry_end));
        CHECK_EQ(t.cs, SEL_CODE64);
        CHECK_EQ(t.ss, SEL_CODE64 + 8);
        CHECK_EQ(t.rsp, (word)context_stack + 1024);
        CHECK_EQ(t.rflags, 2 | F_CF | F_DF);
    }
    wrmsr(MSR_SYSENTER_CS, 3); /* null */
    struct trap t = RUN(context_user(SYMBOL(do_sysenter)));
    if (is_amd())
        CHECK_TRAP(t, V_UD, 0, SYMBOL(do_sysenter));
    else
        CHECK_TRAP(t, V_GP, 0, SYMBOL(do_sysenter));
}

static struct context sysexit_context(word instruction, word rip, word rsp)
{
    struct context c = context_at(instruction, SEL_CODE, SEL_DATA);
    c.rdx = rip, c.rcx = rsp;
    c.rflags = 2 | F_CF;
    return c;
}

TEST(sysexit)
{
    set_up();
    struct trap t = RUN(sysexit_context(SYMBOL(do_sysexit), SYMBOL(show), 0x123456789abc));
    if (is_amd()) {
        CHECK_TRAP(t, V_UD, 0, SYMBOL(do_sysexit));
        return;
    }
    CHECK_TRAP(t, GATE, 0, SYMBOL(show_end));
    CHECK_EQ(t.cs, (SEL_CODE64 + 32) | 3);
    CHECK_EQ(t.ss, (SEL_CODE64 + 40) | 3);
    CHECK_EQ(t.rsp, 0x123456789abc);
    CHECK_EQ(t.rflags, 2 | F_CF);
    t = RUN(sysexit_context(SYMBOL(do_sysexit32), SYMBOL(show) | 5ull << 40, 0xfedcba987654321));
    CHECK_TRAP(t, GATE, 0, SYMBOL(show_end));
    CHECK_EQ(t.cs, (SEL_CODE64 + 16) | 3);
    CHECK_EQ(t.ss, (SEL_CODE64 + 24) | 3);
    CHECK_EQ(t.rsp, 0x87654321);
    t = RUN(sysexit_context(SYMBOL(do_sysexit), NON_CANONICAL, 0x1000));
    CHECK_TRAP(t, V_GP, 0, SYMBOL(do_sysexit));
    t = RUN(sysexit_context(SYMBOL(do_sysexit), SYMBOL(show), NON_CANONICAL));
    CHECK_TRAP(t, V_GP, 0, SYMBOL(do_sysexit));
    wrmsr(MSR_SYSENTER_CS, 0);
    t = RUN(sysexit_context(SYMBOL(do_sysexit), SYMBOL(show), 0x1000));
    CHECK_TRAP(t, V_GP, 0, SYMBOL(do_sysexit));
}

/* ---- SWAPGS ---------------------------------------------------------------------------------- */

asm(LABEL(do_swapgs) "swapgs; ud2");

TEST(swapgs)
{
    set_up();
    static word a[2] = {0xaaaa, 0}, b[2] = {0xbbbb, 0};
    word v;
    wrmsr(MSR_GS_BASE, (word)a);
    wrmsr(MSR_KERNEL_GS_BASE, (word)b);
    asm volatile("swapgs; mov %%gs:0, %0" : "=r"(v)::"memory");
    CHECK_EQ(v, 0xbbbb);
    CHECK_EQ(rdmsr(MSR_GS_BASE), (word)b);
    CHECK_EQ(rdmsr(MSR_KERNEL_GS_BASE), (word)a);
    CHECK_TRAP(RUN(context_user(SYMBOL(do_swapgs))), V_GP, 0, SYMBOL(do_swapgs));
    /* Outside 64-bit code it is undefined. */
    struct context c = context_at(SYMBOL(do_swapgs), SEL_CODE32, SEL_DATA);
    CHECK_TRAP(RUN(c), V_UD, 0, SYMBOL(do_swapgs));
    CHECK_EQ(rdmsr(MSR_KERNEL_GS_BASE), (word)a);
    /* A base that is none: any canonical value will do, others the MSRs refuse. */
    wrmsr(MSR_KERNEL_GS_BASE, ~0ull << 47);
    asm volatile("swapgs");
    CHECK_EQ(rdmsr(MSR_GS_BASE), ~0ull << 47);
    CHECK_EQ(CATCH(wrmsr(MSR_KERNEL_GS_BASE, NON_CANONICAL)).vector, V_GP);
    CHECK_EQ(CATCH(wrmsr(MSR_GS_BASE, NON_CANONICAL)).vector, V_GP);
    CHECK_EQ(CATCH(wrmsr(MSR_FS_BASE, NON_CANONICAL)).vector, V_GP);
    wrmsr(MSR_GS_BASE, 0);
}

/* ---- RDFSBASE and its kind ------------------------------------------------------------------- */

asm(LABEL(do_wrfsbase) "wrfsbase %rax\n" LABEL(
    do_wrgsbase) "wrgsbase %rax\n"
                 "wrfsbase %ecx; rdfsbase %rdx; rdgsbase %rsi; rdgsbase %edi\n" LABEL(
                     fsgs_end) "ud2");

TEST(fsgsbase)
{
    REQUIRE(cpu_has(7, REG_EBX, 0));
    word cr4 = read_cr4();
    struct context c = context_user(SYMBOL(do_wrfsbase));
    c.rax = 0x123456789abc, c.rcx = 0xabcdef0112345678, c.rdi = ~0ull;
    write_cr4(cr4 & ~(word)CR4_FSGSBASE);
    CHECK_TRAP(RUN(c), V_UD, 0, SYMBOL(do_wrfsbase));
    write_cr4(cr4 | CR4_FSGSBASE);
    struct trap t = RUN(c);
    CHECK_TRAP(t, V_UD, 0, SYMBOL(fsgs_end));
    CHECK_EQ(t.frame.rdx, 0x12345678); /* 32 bits written: zero-extended */
    CHECK_EQ(t.frame.rsi, 0x123456789abc);
    CHECK_EQ(t.frame.rdi, 0x56789abc);
    CHECK_EQ(rdmsr(MSR_FS_BASE), 0x12345678);
    CHECK_EQ(rdmsr(MSR_GS_BASE), 0x123456789abc);
    c.rax = NON_CANONICAL;
    CHECK_TRAP(RUN(c), V_GP, 0, SYMBOL(do_wrfsbase));
    c.rip = SYMBOL(do_wrgsbase);
    CHECK_TRAP(RUN(c), V_GP, 0, SYMBOL(do_wrgsbase));
    CHECK_EQ(rdmsr(MSR_GS_BASE), 0); /* of the context's null GS */
    c.cs = SEL_UCODE32;
    c.rip = SYMBOL(do_wrfsbase) + 1; /* less its REX */
    t = RUN(c);
    CHECK_EQ(t.vector, V_UD);
    write_cr4(cr4);
    wrmsr(MSR_FS_BASE, 0);
    wrmsr(MSR_GS_BASE, 0);
}

/* A selector loaded makes the base new, with 32 bits. */
TEST(selector_and_base)
{
    gdt[SEL_FREE / 8] = descriptor(0x89abcdef, 0xfffff, D_DATA | D_BIG | D_PAGES);
    wrmsr(MSR_FS_BASE, 0x123456789abc);
    wrmsr(MSR_GS_BASE, 0x123456789abc);
    asm volatile("mov %0, %%fs; mov %0, %%gs" ::"r"(SEL_FREE));
    CHECK_EQ(rdmsr(MSR_FS_BASE), 0x89abcdef);
    CHECK_EQ(rdmsr(MSR_GS_BASE), 0x89abcdef);
    uint16_t sel;
    wrmsr(MSR_FS_BASE, 0x123456789abc);
    asm volatile("mov %%fs, %0" : "=r"(sel));
    CHECK_EQ(sel, SEL_FREE); /* the base alone moved */
    asm volatile("mov %0, %%fs; mov %0, %%gs" ::"r"(0));
    if (!is_amd() || cpu_has(0x80000021, REG_EAX, 6)) { /* NullSelectorClearsBase */
        CHECK_EQ(rdmsr(MSR_FS_BASE), 0);
        CHECK_EQ(rdmsr(MSR_GS_BASE), 0);
    }
}

const struct test guest_tests[] = {T(syscall_from_64_bit_code),
                                   T(syscall_selectors_and_rf),
                                   T(syscall_at_cpl_0),
                                   T(without_sce_they_are_undefined),
                                   T(syscall_from_compatibility_code),
                                   T(sysret_to_64_bit_code),
                                   T(sysret_to_compatibility_code),
                                   T(sysret_to_a_non_canonical_address),
                                   T(sysret_with_a_null_ss),
                                   T(sysret_from_compatibility_code),
                                   T(sysenter),
                                   T(sysexit),
                                   T(swapgs),
                                   T(fsgsbase),
                                   T(selector_and_base),
                                   {0, 0}};
