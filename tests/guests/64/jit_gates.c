/*
 * jit_gates.c - SYSCALL, SYSRET and IRETQ that have been taken often, so that a translator does
 * them in place: what they load, and that they notice when what they depend on changes (SDM vol. 2
 * under each name; vol. 3, 6.8.1, 17.3.1).
 */
#include "machine.h"
#include "pieces.h"

enum {
    EFER_SCE = 1,
    SELF = 0x51,
    STAR_USER = 0x20, /* SYSRET: 32-bit code 23h, data 2Bh, 64-bit code 33h */
    ID = 1 << 21,
    TIMES = 20,
    BAD = FREE(7),
};
#define MSR_STAR      0xc0000081u
#define MSR_LSTAR     0xc0000082u
#define MSR_SFMASK    0xc0000084u
#define NON_CANONICAL 0x800000000000ull

/* ---- The kernel ------------------------------------------------------------------------------ */

/* What it has seen of its last caller, and how often it was called. */
struct seen {
    uint64_t flags, r11, rcx, calls, cs, ss;
};
struct seen gates_seen;
uint64_t gates_frame[64] __attribute__((aligned(4096))); /* an IRETQ frame; a stack above it */

/* Keeps RDX to RDI, RBP; RSP is its own meanwhile. */
#define NOTE                                                                                       \
    "mov %rsp, %r14; lea gates_frame+400(%rip), %rsp; pushf; pop %r13; mov %r13, "                 \
    "gates_seen(%rip);"                                                                            \
    "mov %cs, gates_seen+32(%rip); mov %ss, gates_seen+40(%rip); mov %r11, gates_seen+8(%rip);"    \
    " mov %rcx, gates_seen+16(%rip); incq gates_seen+24(%rip);"                                    \
    "mov %r14, %rsp;"
asm(LABEL(by_sysret) NOTE LABEL(sysret_here) "sysretq");
asm(LABEL(by_sysret_2) NOTE "addq $100, gates_seen+24(%rip); sysretq");
/* Goes back to R9 with flags R8, after sending itself an interrupt when R12 is not 0. */
asm(LABEL(by_sysret_to) NOTE "test %r12, %r12; jz 1f; mov %r12d, (%r10); mov $100, %ecx;"
                             "2: dec %ecx; jnz 2b; 1: mov %r9, %rcx; mov %r8, %r11; sysretq");
asm(LABEL(by_iret) NOTE "lea gates_frame(%rip), %rsp; mov %rcx, (%rsp); mov %r11, 16(%rsp);"
                        "mov %r14, 24(%rsp);" LABEL(iret_here) "iretq");

static void set_up(word entry)
{
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);
    wrmsr(MSR_STAR, (uint64_t)STAR_USER << 48 | (uint64_t)SEL_CODE64 << 32);
    wrmsr(MSR_LSTAR, entry);
    wrmsr(MSR_SFMASK, F_IF | F_DF | F_TF | F_AC);
    gates_seen = (struct seen){0};
    gates_frame[1] = SEL_UCODE64;
    gates_frame[4] = SEL_UDATA;
}

/* ---- A program ------------------------------------------------------------------------------- */

/* EBX system calls, each with the flags R8; then UD2. */
static word program_at, program_call;
static struct context program(unsigned calls, uint64_t flags)
{
    struct context c = context_user(0);
    pieces_begin();
    program_at = pieces_here();
    put(PIECE("1: push r8; popf"));
    program_call = pieces_here();
    put(PIECE("syscall; dec ebx; jnz 1b; mov eax, cs; mov edx, ss; push r8; popf; ud2"));
    c.rip = program_at;
    c.rflags = 2 | (flags & (F_IF | F_IOPL3));
    c.r8 = flags;
    c.rbx = calls;
    return c;
}

static struct trap again(struct context c, unsigned calls)
{
    c.rip = program_at;
    c.rbx = calls;
    return RUN(c);
}

/* ---- Flags and selectors --------------------------------------------------------------------- */

static void check_flags(uint64_t flags, uint64_t mask, word entry)
{
    set_up(entry);
    wrmsr(MSR_SFMASK, mask);
    struct trap t = RUN(program(TIMES, flags));
    CHECK_EQ(t.vector, V_UD);
    CHECK_EQ(gates_seen.calls, TIMES);
    CHECK_EQ(gates_seen.r11, flags | 2);
    CHECK_EQ(gates_seen.flags, (flags & ~mask) | 2);
    CHECK_EQ(gates_seen.rcx, program_call + 2);
    CHECK_EQ(t.rflags & ~(word)F_RF, flags | 2);
    CHECK_EQ(t.frame.rax, SEL_UCODE64);
    CHECK_EQ(t.frame.rdx, SEL_UDATA);
    CHECK_EQ(gates_seen.cs, SEL_CODE64);
    CHECK_EQ(gates_seen.ss, SEL_CODE64 + 8);
}

TEST(flags_and_masks)
{
    static const uint64_t flags[] = {
        0,       F_CF,      F_ZF | 0x80, F_OF | 0x14,
        F_ARITH, F_DF,      F_IF | F_DF, F_IOPL3,
        F_AC,    ID | F_CF, F_NT,        F_AC | F_ARITH | F_IF | F_IOPL3 | ID | F_DF};
    static const uint64_t masks[] = {F_TF | F_NT,    F_NT | F_IF | F_DF, 0x257fd5,   ~0u,
                                     F_ARITH | F_NT, F_AC | F_NT,        F_OF | F_NT};
    for (unsigned f = 0; f < sizeof flags / sizeof *flags; f++)
        for (unsigned m = 0; m < sizeof masks / sizeof *masks; m++) {
            check_flags(flags[f], masks[m], SYMBOL(by_sysret));
            check_flags(flags[f], masks[m], SYMBOL(by_iret));
        }
}

/* Flags that a comparison has left, wherever a translator keeps them. */
TEST(flags_of_comparisons)
{
    static const uint64_t values[] = {0, 1, 0x7fffffffffffffff, 0x8000000000000000, ~0ull};
    set_up(SYMBOL(by_sysret));
    wrmsr(MSR_SFMASK, F_CF | F_OF);
    pieces_begin();
    word at = pieces_here();
    put(PIECE("cmp rsi, r10; syscall; pushf; pop rax; cmp rdi, r10; nop; syscall; ud2"));
    for (unsigned i = 0; i < 75; i++) {
        struct context c = context_user(at);
        uint64_t want;
        c.rsi = values[i % 5], c.r10 = values[i / 5 % 5], c.rdi = ~c.rsi;
        asm("cmp %2, %1; pushf; pop %0" : "=r"(want) : "r"(c.rsi), "r"(c.r10) : "cc");
        struct trap t = RUN(c);
        CHECK_EQ(t.vector, V_UD);
        CHECK_EQ(t.frame.rax & F_ARITH, want & F_ARITH);
        asm("cmp %2, %1; pushf; pop %0" : "=r"(want) : "r"(c.rdi), "r"(c.r10) : "cc");
        CHECK_EQ(gates_seen.r11 & F_ARITH, want & F_ARITH);
        CHECK_EQ(gates_seen.flags & F_ARITH, want & F_ARITH & ~(uint64_t)(F_CF | F_OF));
        CHECK_EQ(t.rflags & F_ARITH, want & F_ARITH);
    }
}

/* AC that SFMASK leaves is the kernel's, behind calls without, and is gone again. */
TEST(mask_changes)
{
    set_up(SYMBOL(by_sysret));
    struct context c = program(TIMES, F_AC | F_CF | F_DF);
    for (unsigned i = 0; i < 12; i++) {
        uint64_t mask = i & 1 ? F_DF : F_AC;
        wrmsr(MSR_SFMASK, mask);
        CHECK_EQ(again(c, 1 + i).vector, V_UD);
        CHECK_EQ(gates_seen.flags, 2 | ((F_AC | F_CF | F_DF) & ~mask));
    }
}

TEST(star_and_lstar_change)
{
    set_up(SYMBOL(by_sysret));
    struct context c = program(TIMES, 0);
    CHECK_EQ(RUN(c).vector, V_UD);
    CHECK_EQ(gates_seen.calls, TIMES);
    wrmsr(MSR_LSTAR, SYMBOL(by_sysret_2));
    CHECK_EQ(again(c, 3).vector, V_UD);
    CHECK_EQ(gates_seen.calls, TIMES + 303);
    wrmsr(MSR_LSTAR, SYMBOL(by_sysret));
    CHECK_EQ(again(c, 3).vector, V_UD);
    CHECK_EQ(gates_seen.calls, TIMES + 306);
    /* The descriptors are not read, and RPL does not count. */
    wrmsr(MSR_STAR, (uint64_t)(STAR_USER + 0x100) << 48 | (uint64_t)(SEL_CODE64 | 0x203) << 32);
    struct trap t = again(c, 3);
    CHECK_EQ(gates_seen.cs, SEL_CODE64 | 0x200);
    CHECK_EQ(gates_seen.ss, (SEL_CODE64 | 0x200) + 8);
    CHECK_EQ(t.vector, V_UD);
    CHECK_EQ(t.frame.rax, STAR_USER + 0x110 + 3);
    CHECK_EQ(t.frame.rdx, STAR_USER + 0x108 + 3);
    CHECK_EQ(t.cs, STAR_USER + 0x110 + 3);
}

TEST(sce_is_taken_away)
{
    set_up(SYMBOL(by_sysret));
    struct context c = program(TIMES, F_CF);
    CHECK_EQ(RUN(c).vector, V_UD);
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~(uint64_t)EFER_SCE);
    struct trap t = again(c, 3);
    CHECK_TRAP(t, V_UD, 0, program_call);
    CHECK_EQ(t.cs, SEL_UCODE64);
    CHECK_EQ(gates_seen.calls, TIMES);
    c = kernel_context();
    c.rip = SYMBOL(sysret_here);
    CHECK_TRAP(RUN(c), V_UD, 0, SYMBOL(sysret_here));
}

/* ---- Unusual returns ------------------------------------------------------------------------- */

asm(LABEL(gates_target) "nop\n" LABEL(gates_target_2) "nop; ud2");

/* Back to the target by `entry`, often; then with another RIP and other flags. */
static struct trap sysret_to(word rip, uint64_t flags)
{
    set_up(SYMBOL(by_sysret_to));
    struct context c = program(1, 0);
    c.r9 = SYMBOL(gates_target);
    c.r12 = 0;
    for (unsigned i = 0; i < TIMES; i++)
        CHECK_TRAP(again(c, 1), V_UD, 0, SYMBOL(gates_target) + 2);
    c.r9 = rip, c.r8 = flags;
    return again(c, 1);
}

TEST(sysret_to_no_address)
{
    struct trap t = sysret_to(NON_CANONICAL, 0);
    CHECK_EQ(t.vector, V_GP);
    CHECK_EQ(t.cs, is_amd() ? SEL_UCODE64 : SEL_CODE64);
    t = sysret_to(SYMBOL(gates_target_2), 0x8080808080808080 & ~(word)F_TF);
    CHECK_TRAP(t, V_UD, 0, SYMBOL(gates_target) + 2);
    t = sysret_to(0x7fffffffe000, 0);
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.rip, 0x7fffffffe000);
}

/* The program's single step, as if SYSCALL had just been completed. */
TEST(sysret_with_tf)
{
    write_dr6(0xffff0ff0);
    struct trap t = sysret_to(SYMBOL(gates_target), F_TF | 2);
    CHECK_TRAP(t, V_DB, 0, SYMBOL(gates_target));
    CHECK_EQ(t.dr6 & 0x4000, 0x4000);
    CHECK_EQ(t.cs, SEL_UCODE64);
    write_dr6(0xffff0ff0);
}

/* #AC is live at once. */
asm(LABEL(gates_misaligned) "mov 1(%rsp), %eax; ud2");
TEST(sysret_with_ac)
{
    word cr0 = read_cr0();
    write_cr0(cr0 | 1 << 18);
    struct trap t = sysret_to(SYMBOL(gates_misaligned), F_AC | 2);
    CHECK_TRAP(t, V_AC, 0, SYMBOL(gates_misaligned));
    write_cr0(cr0);
    t = sysret_to(SYMBOL(gates_misaligned), F_AC | 2);
    CHECK_EQ(t.vector, V_UD);
}

/* Where the gates lead is somewhere else when the mapping has changed. */
TEST(mapping_changes)
{
    static uint8_t pages[2][4096] __attribute__((aligned(4096)));
    const struct piece target[2] = {PIECE("mov eax, 1; ud2"), PIECE("mov eax, 2; ud2")},
                       entry[2] = {PIECE("mov edx, 1; mov rcx, r9; sysretq"),
                                   PIECE("mov edx, 2; mov rcx, r9; sysretq")};
    for (unsigned i = 0; i < 2; i++) {
        memcpy(pages[i], target[i].at, (size_t)(target[i].end - target[i].at));
        memcpy(pages[i] + 256, entry[i].at, (size_t)(entry[i].end - entry[i].at));
    }
    set_up(WINDOW + 256);
    struct context c = program(1, 0);
    c.r9 = WINDOW;
    for (unsigned i = 0; i < 24; i++) {
        unsigned n = i / 3 & 1;
        map_page(WINDOW, (word)pages[n], 1, PG_ALL | (i >= 12 ? PG_G : 0));
        invlpg((void *)WINDOW);
        struct trap t = again(c, 1);
        CHECK_TRAP(t, V_UD, 0, WINDOW + 5);
        CHECK_EQ(t.frame.rax, n + 1);
        CHECK_EQ(t.frame.rdx, n + 1);
    }
    paging_reset();
}

/* Addresses that a table may hold in one place. */
TEST(addresses_that_collide)
{
    static uint8_t pages[2][4096] __attribute__((aligned(4096)));
    const struct piece target[2] = {PIECE("mov eax, 1; ud2"), PIECE("mov eax, 2; ud2")};
    set_up(SYMBOL(by_sysret_to));
    struct context c = program(1, 0);
    c.r12 = 0;
    for (unsigned i = 0; i < 2; i++) {
        memcpy(pages[i], target[i].at, (size_t)(target[i].end - target[i].at));
        map_page(WINDOW + i * 0x10000, (word)pages[i], 1, PG_ALL);
    }
    for (unsigned i = 0; i < 40; i++) {
        unsigned n = i / 10 & 1;
        c.r9 = WINDOW + n * 0x10000;
        struct trap t = again(c, 1);
        CHECK_TRAP(t, V_UD, 0, c.r9 + 5);
        CHECK_EQ(t.frame.rax, n + 1);
    }
    paging_reset();
}

/* What the kernel may do at an address, by way of an indirect branch, the program may not. */
asm(LABEL(gates_cli) "cli; ret");
asm(LABEL(by_sysret_cli) NOTE
    "lea gates_frame+400(%rip), %rsp; call *%rax; mov %r14, %rsp; sysretq");
TEST(branches_behind_a_gate)
{
    set_up(SYMBOL(by_sysret_cli));
    struct context c = context_user(0);
    pieces_begin();
    word at = pieces_here();
    put(PIECE("1: syscall; dec ebx; jnz 1b; call rax; ud2"));
    for (unsigned i = 0; i < 10; i++) {
        c.rip = at, c.rbx = 1 + i, c.rax = SYMBOL(gates_cli);
        CHECK_TRAP(RUN(c), V_GP, 0, SYMBOL(gates_cli));
    }
    CHECK_EQ(gates_seen.calls, 55);
}

/* ---- IRETQ ----------------------------------------------------------------------------------- */

static const struct {
    const char *what;
    unsigned cs, ss, attr; /* of BAD */
    word rip, rflags;
    unsigned vector, error;
} frames[] = {
    {"null CS", 3, SEL_UDATA, 0, 0, 2, V_GP, 0},
    {"CS beyond the GDT", 0x1003, SEL_UDATA, 0, 0, 2, V_GP, 0x1000},
    {"CS in the LDT", 0x37, SEL_UDATA, 0, 0, 2, V_GP, 0x34},
    {"CS is data", SEL_UDATA, SEL_UDATA, 0, 0, 2, V_GP, SEL_UDATA & ~3},
    {"CS not present", BAD | 3, SEL_UDATA, 0x7b | D_LONG, 0, 2, V_NP, BAD},
    {"CS with L and D", BAD | 3, SEL_UDATA, 0xfb | D_LONG | D_BIG, 0, 2, V_GP, BAD},
    {"DPL is not RPL", SEL_CODE64 | 3, SEL_UDATA, 0, 0, 2, V_GP, SEL_CODE64},
    {"conforming CS", BAD | 3, SEL_UDATA, D_CONFORMING | D_LONG, 0, 2, V_UD, 0},
    {"CS not accessed", BAD | 3, SEL_UDATA, 0xfa | D_LONG, 0, 2, V_UD, 0},
    {"kernel's CS", SEL_CODE64, SEL_DATA, 0, 0, 2, V_UD, 0},
    {"kernel's CS, null SS", SEL_CODE64, 0, 0, 0, 2, V_UD, 0},
    {"kernel's CS with AC", SEL_CODE64, 0, 0, 0, F_AC | 2, V_UD, 0},
    {"kernel's CS, SS with RPL 3", SEL_CODE64, 3, 0, 0, 2, V_GP, 0},
    {"non-canonical RIP", SEL_UCODE64, SEL_UDATA, 0, NON_CANONICAL, 2, V_GP, 0},
    {"null SS", SEL_UCODE64, 3, 0, 0, 2, V_GP, 0},
    {"SS beyond the GDT", SEL_UCODE64, 0x1003, 0, 0, 2, V_GP, 0x1000},
    {"SS with another RPL", SEL_UCODE64, SEL_UDATA & ~3, 0, 0, 2, V_GP, SEL_UDATA & ~3},
    {"SS with another DPL", SEL_UCODE64, SEL_DATA | 3, 0, 0, 2, V_GP, SEL_DATA},
    {"SS is code", SEL_UCODE64, SEL_UCODE64, 0, 0, 2, V_GP, SEL_UCODE64 & ~3},
    {"SS is read-only", SEL_UCODE64, BAD | 3, 0xf1 | D_BIG, 0, 2, V_GP, BAD},
    {"SS not present", SEL_UCODE64, BAD | 3, 0x73 | D_BIG, 0, 2, V_SS, BAD},
    {"SS not accessed", SEL_UCODE64, BAD | 3, 0xf2 | D_BIG, 0, 2, V_UD, 0},
    {"TF", SEL_UCODE64, SEL_UDATA, 0, 0, F_TF | 2, V_DB, 0},
    {"RF", SEL_UCODE64, SEL_UDATA, 0, 0, F_RF | F_CF | 2, V_UD, 0},
    {"flags", SEL_UCODE64, SEL_UDATA, 0, 0, ID | F_AC | F_VIF | F_IOPL3 | F_ARITH | F_DF | 2, V_UD,
     0},
};

static struct trap iret_to(word rsp)
{
    struct context c = kernel_context();
    c.rip = SYMBOL(iret_here);
    c.rsp = rsp;
    c.ds = c.es = 0;
    return RUN(c);
}

static void good_frame(word *f)
{
    f[0] = SYMBOL(gates_target), f[1] = SEL_UCODE64, f[2] = 2, f[3] = 0x123456789abc,
    f[4] = SEL_UDATA;
}

/* Each between good ones: that is taken in place, this is not. */
TEST(frames_of_all_kinds)
{
    word *f = gates_frame;
    write_dr6(0xffff0ff0);
    for (volatile unsigned i = 0; i < sizeof frames / sizeof *frames; i++) {
        for (volatile unsigned n = 0; n < 4; n++) {
            good_frame(f);
            struct trap t = iret_to((word)f);
            CHECK_TRAP(t, V_UD, 0, SYMBOL(gates_target) + 2);
            CHECK_EQ(t.rsp, 0x123456789abc);
        }
        gdt[BAD / 8] = descriptor(0, 0xfffff, frames[i].attr);
        f[1] = frames[i].cs, f[4] = frames[i].ss, f[2] = frames[i].rflags;
        f[3] = (word)(f + 40);
        if (frames[i].rip)
            f[0] = frames[i].rip;
        struct trap t = iret_to((word)f);
        bool faults = frames[i].vector != V_UD && frames[i].vector != V_DB;
        word rip = faults                     ? SYMBOL(iret_here)
                   : frames[i].vector == V_DB ? SYMBOL(gates_target_2)
                                              : SYMBOL(gates_target) + 2;
        if (t.vector != frames[i].vector || t.rip != rip || t.error != frames[i].error)
            print("  %s:\n", frames[i].what);
        CHECK_TRAP(t, frames[i].vector, frames[i].error, rip);
        CHECK_EQ(t.cs, faults ? SEL_CODE64 : frames[i].cs);
        CHECK_EQ(t.rsp, (word)(faults ? f : f + 40));
        if (!faults) {
            CHECK_EQ(t.ss, frames[i].ss);
            CHECK_EQ(t.rflags & ~(word)F_RF, frames[i].rflags & ~(word)F_RF);
        }
        if (frames[i].attr && !faults && frames[i].attr != (D_CONFORMING | D_LONG))
            CHECK_EQ(desc_type(BAD) & 1, 1);
        asm volatile("pushf; andl $~0x1c7400, (%rsp); popf");
    }
    write_dr6(0xffff0ff0);
}

/* The frame in two pages; in a page that is not there; NT; inner data segments. */
TEST(other_ways_of_iretq)
{
    static word room[1024] __attribute__((aligned(4096)));
    for (unsigned i = 508; i <= 512; i++) {
        good_frame(room + i);
        struct trap t = iret_to((word)(room + i));
        CHECK_TRAP(t, V_UD, 0, SYMBOL(gates_target) + 2);
        CHECK_EQ(t.rsp, 0x123456789abc);
    }
    struct context c = kernel_context();
    good_frame(gates_frame);
    c.rip = SYMBOL(iret_here), c.rsp = (word)gates_frame, c.rflags = F_NT | 2;
    c.ds = c.es = 0;
    CHECK_TRAP(RUN(c), V_GP, 0, SYMBOL(iret_here));
    asm volatile("pushf; andl $~0x4000, (%rsp); popf");
    /* Beyond the GDT's limit is nothing, whatever lies there. */
    struct {
        uint16_t limit;
        word base;
    } __attribute__((packed)) gdtr;
    asm volatile("sgdt %0" : "=m"(gdtr));
    gdt[BAD / 8] = descriptor(0, 0xfffff, 0xfb | D_LONG);
    gates_frame[1] = BAD | 3;
    for (unsigned i = 0; i < 6; i++) {
        uint16_t limit = gdtr.limit;
        gdtr.limit = i & 1 ? BAD + 6 : BAD + 7;
        asm volatile("lgdt %0" ::"m"(gdtr));
        struct trap t = iret_to((word)gates_frame);
        gdtr.limit = limit;
        asm volatile("lgdt %0" ::"m"(gdtr));
        CHECK_TRAP(t, i & 1 ? V_GP : V_UD, i & 1 ? BAD : 0,
                   i & 1 ? SYMBOL(iret_here) : SYMBOL(gates_target) + 2);
    }
    /* #AC is live behind it. */
    word cr0 = read_cr0();
    gates_frame[0] = SYMBOL(gates_misaligned), gates_frame[1] = SEL_UCODE64;
    gates_frame[2] = F_AC | 2, gates_frame[3] = (word)gates_frame;
    for (unsigned i = 0; i < 6; i++) {
        write_cr0(i & 1 ? cr0 | 1 << 18 : cr0 & ~(word)(1 << 18));
        CHECK_EQ(iret_to((word)gates_frame).vector, i & 1 ? V_AC : V_UD);
    }
    write_cr0(cr0);
    gates_frame[2] = 2;
    gates_frame[0] = SYMBOL(gates_segments);
    for (unsigned i = 0; i < 4; i++) {
        c.rflags = 2;
        c.ds = i & 1 ? SEL_DATA : SEL_UDATA, c.es = c.gs = SEL_UDATA, c.fs = i & 2 ? SEL_DATA : 0;
        struct trap t = RUN(c);
        CHECK_EQ(t.vector, V_UD);
        CHECK_EQ(t.frame.rax, i & 1 ? 0 : SEL_UDATA);
        CHECK_EQ(t.frame.rbx, SEL_UDATA);
        CHECK_EQ(t.frame.rcx, 0);
        CHECK_EQ(t.frame.rdx, SEL_UDATA);
    }
    asm volatile("mov %0, %%ds; mov %0, %%es" ::"r"(SEL_DATA));
}
asm(LABEL(gates_segments) "mov %ds, %eax; mov %es, %ebx; mov %fs, %ecx; mov %gs, %edx; ud2");

/* CPL 1 is not the kernel, though it runs the kernel's code. */
asm(LABEL(gates_privileged) "cli; ud2");
TEST(iretq_to_cpl_1)
{
    enum { CODE64_1 = FREE(0), DATA_1 = FREE(1) };
    word *f = gates_frame;
    gdt[CODE64_1 / 8] = descriptor(0, 0xfffff, D_CODE | 0x20 | D_LONG | D_PAGES);
    gdt[DATA_1 / 8] = descriptor(0, 0xfffff, D_DATA | 0x20 | D_BIG | D_PAGES);
    for (unsigned i = 0; i < 12; i++) {
        bool inner = i % 4 != 3;
        f[0] = SYMBOL(gates_privileged), f[2] = 2, f[3] = (word)(f + 40);
        f[1] = inner ? SEL_CODE64 : CODE64_1 | 1, f[4] = inner ? SEL_DATA : DATA_1 | 1;
        CHECK_TRAP(iret_to((word)f), inner ? V_UD : V_GP, 0,
                   SYMBOL(gates_privileged) + (inner ? 1 : 0));
    }
}

/* ---- Interrupts ------------------------------------------------------------------------------ */

static volatile unsigned interrupts;
static word interrupted_at, interrupted_cs, interrupted_flags;
static bool on_self(struct frame *f)
{
    interrupts++;
    interrupted_at = f->rip, interrupted_cs = f->cs, interrupted_flags = f->rflags;
    apic_write(APIC_EOI, 0);
    return true;
}

/* What has become pending in the kernel comes when SYSRET has let it in: before the program's next
 * instruction. */
TEST(interrupt_behind_sysret)
{
    set_up(SYMBOL(by_sysret_to));
    apic_quiet();
    trap_handlers[SELF] = on_self;
    interrupts = 0;
    struct context c = program(1, F_IF | 2);
    c.r9 = SYMBOL(gates_target);
    c.r10 = 0xfee00000 + APIC_ICR;
    for (unsigned i = 0; i < 40; i++) {
        c.r12 = i % 4 == 3 ? 0x44000 | SELF : 0;
        interrupted_at = interrupted_cs = 0;
        CHECK_TRAP(again(c, 1), V_UD, 0, SYMBOL(gates_target) + 2);
        CHECK_EQ(interrupts, (i + 1) / 4);
        CHECK_EQ(interrupted_at, c.r12 ? SYMBOL(gates_target) : 0);
        CHECK_EQ(interrupted_cs, c.r12 ? SEL_UCODE64 : 0);
    }
}

/* The same behind IRETQ, to a program and to the kernel; with IF = 0 it stays out. */
asm(LABEL(gates_iret_pending) "test %r12, %r12; jz 1f; mov %r12d, (%r10); mov $100, %ecx;"
                              "2: dec %ecx; jnz 2b; 1: iretq");
TEST(interrupt_behind_iretq)
{
    word *f = gates_frame;
    apic_quiet();
    trap_handlers[SELF] = on_self;
    interrupts = 0;
    for (volatile unsigned i = 0; i < 64; i++) {
        bool kernel = i & 8, in = i & 16, rf = i & 32;
        struct context c = kernel_context();
        good_frame(f);
        if (kernel)
            f[1] = SEL_CODE64, f[4] = SEL_DATA, f[3] = (word)(f + 40);
        f[2] = 2 | (in ? F_IF : 0) | (rf ? F_RF : 0);
        c.rip = SYMBOL(gates_iret_pending), c.rsp = (word)f;
        c.r10 = 0xfee00000 + APIC_ICR;
        c.r12 = i % 4 == 3 ? 0x44000 | SELF : 0;
        interrupted_at = 0;
        CHECK_TRAP(RUN(c), V_UD, 0, SYMBOL(gates_target) + 2);
        CHECK_EQ(interrupted_at, c.r12 && in ? SYMBOL(gates_target) : 0);
        if (c.r12 && in)
            CHECK_EQ(interrupted_flags & F_RF, rf ? F_RF : 0);
        if (!in)
            let_in();
        CHECK_EQ(interrupts, (i + 1) / 4);
    }
}

/* A loop of nothing but gates lets interrupts in. */
asm(LABEL(gates_spin) "sysretq");
TEST(loop_of_gates)
{
    set_up(SYMBOL(gates_spin));
    apic_quiet();
    trap_handlers[SELF] = on_self;
    interrupts = 0;
    static const uint8_t call[] = {0x0f, 0x05}; /* RCX is made to lead back to it */
    pieces_begin();
    word at = pieces_here();
    put_bytes(call, 2);
    put(PIECE("jmp .-2"));
    struct context c = context_user(at);
    c.rflags |= F_IF;
    apic_write(APIC_DIVIDE, 0xb);
    apic_write(APIC_LVT_TIMER, V_NMI + 0x60);
    apic_write(APIC_INITIAL, 3000000);
    struct trap t = RUN(c); /* nobody handles that vector: it ends the run */
    CHECK_EQ(t.vector, V_NMI + 0x60);
    apic_write(APIC_EOI, 0);
    apic_quiet();
}

/* ---- The rest -------------------------------------------------------------------------------- */

/* Vector registers come through, whoever holds them meanwhile. */
TEST(vectors_come_through)
{
    vectors_on();
    set_up(SYMBOL(by_sysret));
    for (unsigned way = 0; way < 2; way++) {
        if (way)
            wrmsr(MSR_LSTAR, SYMBOL(by_iret));
        struct context c = context_user(0);
        c.rbx = 100, c.rdi = (word)(gates_frame + 48);
        pieces_begin();
        put(PIECE("movd xmm1, ebx; pxor xmm0, xmm0; pcmpeqd xmm15, xmm15;"
                  "1: paddq xmm0, xmm1; syscall; paddq xmm1, xmm15; dec ebx; jnz 1b;"
                  "movq rax, xmm0; movq rdx, xmm15; ud2"));
        struct trap t = pieces_run(&c);
        CHECK_EQ(t.vector, V_UD);
        CHECK_EQ(t.frame.rax, 5050);
        CHECK_EQ(t.frame.rdx, ~0ull);
    }
}

/* All registers but RCX and R11. */
TEST(registers_come_through)
{
    set_up(SYMBOL(gates_spin));
    wrmsr(MSR_SFMASK, 0);
    for (unsigned way = 0; way < 2; way++) {
        struct context c = program(TIMES, 0);
        c.rax = 1, c.rdx = 2, c.rsi = 3, c.rdi = 4, c.rbp = 5, c.r9 = 6, c.r10 = 7;
        c.r12 = 8, c.r13 = 9, c.r14 = 10, c.r15 = 11;
        struct trap t = RUN(c);
        CHECK_EQ(t.vector, V_UD);
        CHECK_EQ(t.frame.rsi, 3);
        CHECK_EQ(t.frame.rdi, 4);
        CHECK_EQ(t.frame.rbp, 5);
        CHECK_EQ(t.frame.r9, 6);
        CHECK_EQ(t.frame.r10, 7);
        CHECK_EQ(t.frame.r12, 8);
        CHECK_EQ(t.frame.r13, 9);
        CHECK_EQ(t.frame.r14, 10);
        CHECK_EQ(t.frame.r15, 11);
        CHECK_EQ(t.rsp, c.rsp);
    }
}

/* RDTSC goes on, and keeps what it does not write; TSD refuses it to programs, and only to them. */
TEST(time_stamp_counter)
{
    for (unsigned i = 0; i < 8; i++) {
        bool user = i & 1, tsd = i & 2, vectors = i & 4;
        struct context c = user ? context_user(0) : kernel_context();
        c.rsi = 0x1234567812345678, c.rdi = ~0ull, c.r8 = 8, c.r9 = 9, c.r10 = 10, c.r11 = 11;
        c.rcx = ~0ull, c.rbx = 50;
        write_cr4(tsd ? read_cr4() | 4 : read_cr4() & ~(word)4);
        wrmsr(0xc0000103, 0x87654321);
        if (vectors)
            vectors_on();
        pieces_begin();
        put(PIECE("xor r12d, r12d; xor r13d, r13d"));
        if (vectors)
            put(PIECE("movq xmm3, rsi; paddq xmm3, xmm3"));
        word at = pieces_here();
        put(PIECE("1: cmp rsi, rdi; rdtsc; setc r14b; setz r15b; shl rdx, 32; or rax, rdx;"
                  "cmp rax, r12; adc r13, 0; mov r12, rax; cmp ebx, 25; rdtscp; pushf; pop rbp;"
                  "shl rdx, 32; or rax, rdx; cmp rax, r12; adc r13, 0; dec ebx; jnz 1b; ud2"));
        struct trap t = pieces_run(&c);
        if (user && tsd) {
            CHECK_TRAP(t, V_GP, 0, at + 3);
            continue;
        }
        CHECK_EQ(t.vector, V_UD);
        CHECK_EQ(t.frame.r13, 0);
        CHECK(t.frame.r12 != 0);
        CHECK_EQ(t.frame.rcx, 0x87654321);
        CHECK_EQ(t.frame.r14, 1);
        CHECK_EQ(t.frame.r15 & 0xff, 0);
        CHECK_EQ(t.frame.rbp & F_CF, F_CF); /* 1 - 25 */
        CHECK_EQ(t.frame.rsi, c.rsi);
        CHECK_EQ(t.frame.rdi, c.rdi);
        CHECK_EQ(t.frame.r8, 8);
        CHECK_EQ(t.frame.r9, 9);
        CHECK_EQ(t.frame.r10, 10);
        CHECK_EQ(t.frame.r11, 11);
    }
    write_cr4(read_cr4() & ~(word)4);
}

const struct test guest_tests[] = {
    T(flags_and_masks),        T(flags_of_comparisons),   T(mask_changes),
    T(star_and_lstar_change),  T(sce_is_taken_away),      T(sysret_to_no_address),
    T(sysret_with_tf),         T(sysret_with_ac),         T(mapping_changes),
    T(addresses_that_collide), T(branches_behind_a_gate), T(frames_of_all_kinds),
    T(other_ways_of_iretq),    T(iretq_to_cpl_1),         T(interrupt_behind_sysret),
    T(interrupt_behind_iretq), T(loop_of_gates),          T(vectors_come_through),
    T(registers_come_through), T(time_stamp_counter),     {0, 0}};
