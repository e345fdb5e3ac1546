/*
 * jit_system.c - the system instructions that a translator may do in place, in the middle of other
 * code: what they read and write, what they leave alone, when they are refused after they have been
 * allowed, and which instruction an interrupt comes behind (SDM vol. 2 under each name; vol.
 * 3, 6.8.1).
 *
 * guest options: -cpu max
 */
#include "machine.h"
#include "pieces.h"

enum { FSGSBASE = 1 << 16, SELF = 0x51 };
enum { MSR_FS = 0xc0000100, MSR_GS, MSR_KERNEL_GS };
#define NOWHERE 0x7000000000ull

static uint64_t cells[16] __attribute__((aligned(64)));

/* Runs the pieces one behind the other. */
static struct trap run(struct context *c, const struct piece *piece, unsigned count)
{
    pieces_begin();
    for (unsigned i = 0; i < count; i++)
        put(piece[i]);
    return pieces_run(c);
}
#define RUN_PIECES(c, ...)                                                                         \
    ({                                                                                             \
        const struct piece pieces_[] = {__VA_ARGS__};                                              \
        run(&(c), pieces_, sizeof pieces_ / sizeof pieces_[0]);                                    \
    })

/* ---- Flags ----------------------------------------------------------------------------------- */

/* Arithmetic flags from every producer that a translator may keep elsewhere pass through all of
 * these, and PUSHF shows them. */
TEST(flags_pass_through)
{
    const struct piece through[] = {
        PIECE("nop"),
        PIECE("cld"),
        PIECE("stac; clac"),
        PIECE("clac"),
        PIECE("stac; stac; nop; clac; clac"),
        PIECE("cli"),
        PIECE("sti; nop; cli"),
        PIECE("swapgs; swapgs"),
        PIECE("rdfsbase r8"),
        PIECE("rdgsbase rax"),
        PIECE("wrfsbase r11"),
        PIECE("wrgsbase r11d"),
        PIECE("mov r8d, ds"),
        PIECE("mov eax, ss"),
        PIECE("xor ecx, ecx; cmp ecx, 1; rdpkru; cmp rbx, r10"),
        PIECE("mov [rdi], rbx; cld"),
        PIECE("push rsp; pop rsp"),
        PIECE("pushf; pop r13"),
        PIECE("lea rsp, [rsp+8]; pushf"),
        PIECE("mov rax, cr0; mov rax, [rdi]"),
        PIECE("mov r15, cr3; push r15; pop r15"),
        PIECE("mov eax, [rdi]; cli; cmp [rdi], eax; cmp rbx, r10; cld"),
    };
    static const uint64_t values[] = {0, 1, 5, 0x7fffffffffffffff, 0x8000000000000000, ~0ull};
    const struct piece producer[] = {PIECE("cmp rbx, r10"), PIECE("mov r9, rbx; sub r9, r10"),
                                     PIECE("cmp rbx, r10; inc r9; cmp rbx, r10")};
    unsigned bad = 0;
    write_cr4(read_cr4() | FSGSBASE | CR4_PKE);
    for (unsigned i = 0; i < sizeof through / sizeof *through; i++)
        for (unsigned k = 0; k < 36 * 3 && bad < 20; k++) {
            struct piece all[] = {producer[k % 3], through[i], PIECE("pushf; pop rbp")};
            uint64_t a = values[k / 3 % 6], b = values[k / 18], want;
            struct context c = kernel_context();
            asm("cmp %2, %1; pushf; pop %0" : "=r"(want) : "r"(a), "r"(b) : "cc");
            c.rbx = a, c.r10 = b, c.rdi = (word)cells;
            struct trap t = run(&c, all, 3);
            bad += differs("vector", t.vector, V_BP, all, 3) |
                   differs("flags", t.frame.rbp & F_ARITH, want & F_ARITH, all, 3) |
                   differs("RFLAGS", t.rflags & ~F_ARITH, 2, all, 3) |
                   differs("stored", t.frame.rbp & ~F_ARITH, 2, all, 3) |
                   differs("saved", t.rflags & F_ARITH, want & F_ARITH, all, 3);
        }
    CHECK_EQ(bad, 0);
}

/* PUSHF shows the other flags as well, to programs too; STD and CLD act. */
TEST(pushf)
{
    static const uint64_t flags[] = {F_DF, F_NT, F_IOPL3, 1 << 21, F_IF, F_DF | F_IOPL3, F_AC};
    for (unsigned i = 0; i < 2 * sizeof flags / sizeof *flags; i++) {
        bool user = i & 1;
        uint64_t f = flags[i / 2];
        struct context c = user ? context_user(0) : kernel_context();
        c.rflags |= f;
        c.rdi = (word)cells;
        struct trap t = RUN_PIECES(c, PIECE("cmp eax, eax; pushf; mov rsi, [rsp]; pop r15; nop"));
        uint64_t want = f | 2 | 0x44; /* ZF, PF */
        if (user && f & F_AC)
            continue;                           /* alignment is not what this is about */
        CHECK_EQ(t.vector, user ? V_GP : V_BP); /* INT3's gate is the kernel's */
        CHECK_EQ(t.frame.rsi, want);
        CHECK_EQ(t.frame.r15, want);
        CHECK_EQ(t.rsp, c.rsp);
    }
    struct context c = kernel_context();
    c.rdi = (word)(cells + 8);
    struct trap t = RUN_PIECES(c, PIECE("std; pushf; pop rbx; mov eax, 5; stosq; stosq; cld; stosq;"
                                        "pushf; pop rdx"));
    CHECK_EQ(t.frame.rbx & F_DF, F_DF);
    CHECK_EQ(t.frame.rdx & F_DF, 0);
    CHECK_EQ(t.frame.rdi, (word)(cells + 7));
}

/* STAC and CLAC over and over, behind each other and twice the same; programs may not. */
TEST(access_control_flag)
{
    struct context c = kernel_context();
    c.rcx = 200;
    struct trap t = RUN_PIECES(
        c, PIECE("1: test ecx, 1; jz 4f; stac; stac; 4: call 2f;" /* returns with AC and without */
                 "pushf; pop rax; shr eax, 18; xor eax, ecx; and eax, 1; or r9, rax;"
                 "clac; pushf; pop rax; and eax, 0x40000; or r8, rax; call 2f;"
                 "dec ecx; jnz 1b; jmp 5f; nop; 2: ret; 5: stac"));
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.frame.r8, 0);
    CHECK_EQ(t.frame.r9, 0);
    CHECK_EQ(t.rflags & F_AC, F_AC);
    for (unsigned i = 0; i < 4; i++) {
        c = i & 2 ? context_user(0) : kernel_context();
        c.rflags |= i & 1 ? F_AC : 0;
        t = i & 1 ? RUN_PIECES(c, PIECE("clac")) : RUN_PIECES(c, PIECE("stac"));
        CHECK_EQ(t.vector, i & 2 ? V_UD : V_BP);
        CHECK_EQ(t.rflags & F_AC, !(i & 2) == !(i & 1) ? F_AC : 0);
    }
}

/* Where the stack is not there, nothing has happened. */
TEST(stack_faults)
{
    paging_reset();
    struct context c = context_user(0); /* the kernel could not even take the fault */
    c.rbx = NOWHERE + 8, c.rax = 3;
    struct trap t =
        RUN_PIECES(c, PIECE("xchg rbx, rsp; cmp eax, 3; mov [rip+pushf_cell], eax; pushf"));
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.cr2, NOWHERE);
    CHECK_EQ(t.rsp, NOWHERE + 8);
    CHECK_EQ(t.rflags & F_ARITH, 0x44);
    c.rbx = NOWHERE;
    t = RUN_PIECES(c, PIECE("xchg rbx, rsp; cmp eax, 3; pop rsp"));
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.rsp, NOWHERE);
    CHECK_EQ(t.rflags & F_ARITH, 0x44);
    cells[0] = 0x123456789abcdef0;
    c.rbx = (word)cells;
    t = RUN_PIECES(c, PIECE("xchg rbx, rsp; pop rsp; mov rdx, rsp; mov rsp, rbx; ud2"));
    CHECK_EQ(t.vector, V_UD);
    CHECK_EQ(t.frame.rdx, 0x123456789abcdef0);
}
asm(".bss\n.globl pushf_cell\npushf_cell: .quad 0\n.text");

/* ---- Interrupts ------------------------------------------------------------------------------ */

static volatile unsigned interrupts;
static word interrupted_at[8];
static bool on_self(struct frame *f)
{
    interrupted_at[interrupts++ & 7] = f->rip;
    apic_write(APIC_EOI, 0);
    return true;
}

/* A context whose code may send itself an interrupt: mov [rdi], esi */
static struct context interrupting(void)
{
    struct context c = kernel_context();
    asm volatile("cli");
    apic_quiet();
    trap_handlers[SELF] = on_self;
    interrupts = 0;
    c.rdi = 0xfee00000 + APIC_ICR;
    c.rsi = 0x44000 | SELF;
    return c;
}

/* All in one run of code: the interrupt becomes pending there, and comes behind the instruction in
 * STI's shadow. */
TEST(interrupts_in_one_run)
{
    for (unsigned i = 0; i < 50; i++) {
        struct context c = interrupting();
        pieces_begin();
        put(PIECE("cli; mov [rdi], esi; mov ecx, 100; 1: dec ecx; jne 1b; sti; nop"));
        word want = pieces_here();
        put(PIECE("nop; nop; cli"));
        struct trap t = pieces_run(&c);
        CHECK_EQ(t.vector, V_BP);
        CHECK_EQ(interrupts, 1);
        CHECK_EQ(interrupted_at[0], want);
        CHECK_EQ(t.rflags & F_IF, 0);
    }
}

/* The same code over and over: the second time nothing of it is new, and nothing pends at first. */
TEST(interrupts_in_a_loop)
{
    struct context c = interrupting();
    c.rbx = 8;
    pieces_begin();
    put(PIECE("1: sti; nop; cli; sti; nop; nop; cli; mov [rdi], esi; sti; mov eax, ebx"));
    word want = pieces_here();
    put(PIECE("nop; cli; sti; cli; dec ebx; jne 1b"));
    struct trap t = pieces_run(&c);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(interrupts, 8);
    for (unsigned i = 0; i < 8; i++)
        CHECK_EQ(interrupted_at[i], want);
}

/* CLI right behind STI keeps it out, and so does CLI for any time. */
TEST(kept_out)
{
    struct context c = interrupting();
    struct trap t = RUN_PIECES(c, PIECE("sti; nop; cli; mov [rdi], esi; mov ecx, 100000;"
                                        "1: dec ecx; jne 1b; sti; cli; call 2f; jmp 3f; 2: ret;"
                                        "3: pushf; pop rax"));
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(interrupts, 0);
    CHECK_EQ(t.frame.rax & F_IF, 0);
    let_in();
    CHECK_EQ(interrupts, 1);
}

/* With IF set STI has no shadow, and a shadow ends with one instruction: also one that branches. */
TEST(shadow_over_a_branch)
{
    struct context c = interrupting();
    pieces_begin();
    put(PIECE("cli; mov [rdi], esi; sti; jmp 1f; nop; 1:"));
    word want = pieces_here();
    put(PIECE("nop; nop; cli"));
    pieces_run(&c);
    CHECK_EQ(interrupts, 1);
    CHECK_EQ(interrupted_at[0], want);
    c = interrupting();
    pieces_begin();
    put(PIECE("lea rax, [rip + 1f]; push rax; cli; mov [rdi], esi; sti; ret; nop; 1:"));
    want = pieces_here();
    put(PIECE("nop; nop; cli"));
    pieces_run(&c);
    CHECK_EQ(interrupts, 1);
    CHECK_EQ(interrupted_at[0], want);
}

/* An interrupt that comes at any moment is never taken between STI and the branch in its shadow. */
enum { OFTEN = 40 };
static word shadows[2], out;
static unsigned in_shadow;
static bool on_timer(struct frame *f)
{
    in_shadow += f->rip == shadows[0] || f->rip == shadows[1];
    apic_write(APIC_EOI, 0);
    if (++interrupts == OFTEN)
        f->rip = out;
    else
        apic_write(APIC_INITIAL, 20000 * (interrupts + 1)); /* lets slow hosts get on */
    return true;
}

TEST(no_interrupt_before_the_branch)
{
    struct context c = interrupting();
    trap_handlers[SELF] = on_timer;
    in_shadow = 0;
    pieces_begin();
    c.rcx = pieces_here();
    put(PIECE("cli; lea rax, [rip + 1f + 1]; push rax; mov edx, 20; 2: dec edx; jne 2b; sti; 1:"));
    shadows[0] = pieces_here();
    put(PIECE("ret; cli; sti"));
    shadows[1] = pieces_here();
    put(PIECE("jmp 1f; nop; 1: cli; jmp rcx"));
    out = pieces_here();
    apic_write(APIC_DIVIDE, 0xb);
    apic_write(APIC_LVT_TIMER, SELF);
    apic_write(APIC_INITIAL, 20000);
    CHECK_EQ(pieces_run(&c).vector, V_BP);
    CHECK_EQ(interrupts, OFTEN);
    CHECK_EQ(in_shadow, 0);
    apic_quiet();
}

/* STI; HLT never sleeps through its interrupt: the timer comes at any moment around them. */
TEST(hlt_in_the_shadow)
{
    struct context c = interrupting();
    apic_write(APIC_DIVIDE, 0xb);
    apic_write(APIC_LVT_TIMER, SELF);
    c.rdi = 0xfee00000 + APIC_INITIAL;
    c.rbx = 300;
    struct trap t = RUN_PIECES(c, PIECE("1: mov eax, ebx; shl eax, 5; add eax, 300; cli;"
                                        "mov [rdi], eax; sti; hlt; cli; dec ebx; jne 1b"));
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(interrupts, 300);
    apic_quiet();
}

/* SERIALIZE leaves flags and registers alone, and an interrupt in front of it. */
TEST(serialize)
{
    struct context c = interrupting();
    trap_handlers[SELF] = on_timer;
    c.rax = 1, c.rbx = 2;
    pieces_begin();
    put(PIECE("cmp eax, ebx; sti; nop"));
    put(PIECE("1: inc rcx; mov r8, rcx; cmp eax, ebx; .byte 0x0f, 0x01, 0xe8; jb 1b; ud2"));
    out = pieces_here();
    apic_write(APIC_DIVIDE, 0xb);
    apic_write(APIC_LVT_TIMER, SELF);
    apic_write(APIC_INITIAL, 20000);
    struct trap t = pieces_run(&c);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(interrupts, OFTEN);
    CHECK(t.frame.rcx > c.rcx);
    CHECK(t.frame.rcx - t.frame.r8 <= 1);
    apic_quiet();
}

/* IOPL decides for programs, and CPL 1 is not the kernel. */
TEST(cli_sti_privilege)
{
    const struct piece code[] = {PIECE("cli; nop; ud2"), PIECE("sti; nop; ud2")};
    asm volatile("cli");
    for (unsigned i = 0; i < 8; i++) {
        bool iopl = i & 2;
        struct context c = i & 4 ? context_user(0) : kernel_context();
        c.rflags |= (iopl ? F_IOPL3 : 0) | (i & 1 ? 0 : F_IF);
        struct trap t = run(&c, &code[i & 1], 1);
        bool allowed = iopl || !(i & 4);
        CHECK_EQ(t.vector, allowed ? V_UD : V_GP);
        CHECK_EQ(t.rflags & F_IF, (allowed ? i & 1 : !(i & 1)) ? F_IF : 0);
    }
}

/* ---- Registers ------------------------------------------------------------------------------- */

TEST(control_and_segment_registers)
{
    struct context c = kernel_context();
    c.fs = SEL_UDATA | 3, c.gs = SEL_DATA;
    struct trap t = RUN_PIECES(
        c, PIECE("mov rax, cr0; mov r10, cr2; mov r15, cr3; mov rsi, cr4; mov rbx, ~0; mov ebx, cs;"
                 "mov r11d, ss; mov rcx, ~0; mov cx, fs; mov rdx, ~0; mov rdx, gs; mov r12, cr8;"
                 "mov r8, ~0; mov r8w, ss; mov r9d, 0x98765; mov r9w, cs; mov r10d, 0x98765; mov "
                 "r10w, ss; mov rbp, r10; mov r10, cr2; mov r14, ~0; mov r14, r8"));
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.frame.rax, read_cr0());
    CHECK_EQ(t.frame.r10, read_cr2());
    CHECK_EQ(t.frame.r15, read_cr3());
    CHECK_EQ(t.frame.rsi, read_cr4());
    CHECK_EQ(t.frame.rbp, 0x90000 | SEL_DATA);
    CHECK_EQ(t.frame.rbx, SEL_CODE);
    CHECK_EQ(t.frame.r11, SEL_DATA);
    CHECK_EQ(t.frame.rcx, 0xffffffffffff0000 | SEL_UDATA | 3);
    CHECK_EQ(t.frame.rdx, SEL_DATA);
    CHECK_EQ(t.frame.r12, 0);
    CHECK_EQ(t.frame.r8, 0xffffffffffff0000 | SEL_DATA);
    CHECK_EQ(t.frame.r9, 0x90000 | SEL_CODE);
    CHECK_EQ(t.frame.r14, t.frame.r8);
    c.rdi = (word)cells, c.fs = SEL_UDATA | 3;
    cells[0] = cells[1] = ~0ull;
    t = RUN_PIECES(c,
                   PIECE("mov [rdi], fs; cmp eax, eax; data16 mov [rdi+10], ss; pushf; pop rax"));
    CHECK_EQ(cells[0], 0xffffffffffff0000 | SEL_UDATA | 3);
    CHECK_EQ(cells[1], 0xffffffff0000ffff | SEL_DATA << 16);
    CHECK_EQ(t.frame.rax & F_ARITH, 0x44);
    c.rdi = NOWHERE;
    t = RUN_PIECES(c, PIECE("mov [rdi], fs"));
    CHECK_TRAP(t, V_PF, PF_W, c.rip);
    c = context_user(0);
    t = RUN_PIECES(c, PIECE("mov eax, ds; mov rbx, cr0"));
    CHECK_EQ(t.vector, V_GP);
    CHECK_EQ(t.frame.rax, SEL_UDATA);
}

static uint64_t msr_of(unsigned seg)
{
    return rdmsr(seg ? MSR_GS : MSR_FS);
}

TEST(bases)
{
    write_cr4(read_cr4() | FSGSBASE);
    for (unsigned user = 0; user < 2; user++) {
        struct context c = user ? context_user(0) : kernel_context();
        c.rbx = 0x123456789abc, c.r10 = 0xffff876543210ffe, c.rcx = 0x9123456789abcdef;
        struct trap t = RUN_PIECES(
            c, PIECE("wrfsbase rbx; rdfsbase rax; wrgsbase r10; rdgsbase r11; rdgsbase ebp;"
                     "wrgsbase ecx; rdgsbase rdx; wrgsbase r10; ud2"));
        CHECK_EQ(t.vector, V_UD);
        CHECK_EQ(t.frame.rax, c.rbx);
        CHECK_EQ(t.frame.r11, c.r10);
        CHECK_EQ(t.frame.rbp, (uint32_t)c.r10);
        CHECK_EQ(t.frame.rdx, (uint32_t)c.rcx);
        CHECK_EQ(msr_of(0), c.rbx);
        CHECK_EQ(msr_of(1), c.r10);
        t = RUN_PIECES(c, PIECE("wrfsbase rcx; ud2")); /* not canonical */
        CHECK_TRAP(t, V_GP, 0, c.rip);
        CHECK_EQ(msr_of(0), 0); /* as the context has loaded it */
        /* a base is used by the next access */
        cells[3] = 0x1111, cells[4] = 0x2222;
        c.rbx = (word)cells;
        t = RUN_PIECES(c, PIECE("wrgsbase rbx; mov rax, gs:[24]; add rbx, 8; wrgsbase rbx;"
                                "mov rdx, gs:[24]; ud2"));
        CHECK_EQ(t.frame.rax, 0x1111);
        CHECK_EQ(t.frame.rdx, 0x2222);
    }
    wrmsr(MSR_FS, 0), wrmsr(MSR_GS, 0);
}

/* Code that ran is refused when CR4 changes, and runs again. */
TEST(gated_by_cr4)
{
    const struct piece code[] = {PIECE("rdfsbase rax; ud2"), PIECE("wrgsbase rbx; ud2"),
                                 PIECE("rdpkru; ud2")};
    static const uint8_t length[] = {5, 5, 3};
    for (unsigned i = 0; i < 3; i++) {
        word bit = i == 2 ? CR4_PKE : FSGSBASE;
        struct context c = kernel_context();
        pieces_begin();
        word at = pieces_here();
        put(code[i]);
        for (unsigned n = 0; n < 6; n++) {
            write_cr4(n & 1 ? read_cr4() & ~bit : read_cr4() | bit);
            c.rip = at;
            struct trap t = RUN(c);
            CHECK_TRAP(t, V_UD, 0, n & 1 ? at : at + length[i]);
        }
        write_cr4(read_cr4() | bit);
    }
}

TEST(pkru)
{
    struct context c = kernel_context();
    write_cr4(read_cr4() | CR4_PKE);
    asm volatile("wrpkru" ::"a"(0x54), "c"(0), "d"(0));
    c.rax = c.rdx = ~0ull, c.rcx = 0xffffffff00000000;
    struct trap t = RUN_PIECES(c, PIECE("rdpkru"));
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.frame.rax, 0x54);
    CHECK_EQ(t.frame.rdx, 0);
    c.rcx = 1;
    t = RUN_PIECES(c, PIECE("rdpkru"));
    CHECK_TRAP(t, V_GP, 0, c.rip);
    CHECK_EQ(t.frame.rax, ~0ull);
    asm volatile("wrpkru" ::"a"(0), "c"(0), "d"(0));
}

TEST(swapgs)
{
    struct context c = kernel_context();
    cells[0] = 0xaaaa, cells[8] = 0xbbbb;
    wrmsr(MSR_KERNEL_GS, (word)(cells + 8));
    c.rcx = (word)cells;
    struct trap t =
        RUN_PIECES(c, PIECE("wrgsbase rcx; mov rax, gs:[0]; swapgs; mov rbx, gs:[0]; swapgs;"
                            "mov rdx, gs:[0]; swapgs"));
    CHECK_EQ(t.frame.rax, 0xaaaa);
    CHECK_EQ(t.frame.rbx, 0xbbbb);
    CHECK_EQ(t.frame.rdx, 0xaaaa);
    CHECK_EQ(rdmsr(MSR_GS), (word)(cells + 8));
    CHECK_EQ(rdmsr(MSR_KERNEL_GS), (word)cells);
    c = context_user(0);
    t = RUN_PIECES(c, PIECE("swapgs"));
    CHECK_TRAP(t, V_GP, 0, c.rip);
    CHECK_EQ(rdmsr(MSR_KERNEL_GS), (word)cells);
    wrmsr(MSR_GS, 0), wrmsr(MSR_KERNEL_GS, 0);
}

const struct test guest_tests[] = {T(flags_pass_through),
                                   T(pushf),
                                   T(access_control_flag),
                                   T(stack_faults),
                                   T(interrupts_in_one_run),
                                   T(interrupts_in_a_loop),
                                   T(kept_out),
                                   T(shadow_over_a_branch),
                                   T(hlt_in_the_shadow),
                                   T(no_interrupt_before_the_branch),
                                   T(serialize),
                                   T(cli_sti_privilege),
                                   T(control_and_segment_registers),
                                   T(bases),
                                   T(gated_by_cr4),
                                   T(pkru),
                                   T(swapgs),
                                   {0, 0}};
