/*
 * jit_x87.c - what a translator keeps in the host's x87 registers: the stack, tags, control and
 * status words through runs of instructions, faults in the middle, instructions that change or show
 * all of it, and MMX in the same registers; and the pointers to the last instruction and operand
 * (SDM vol. 1, 8.1.8; APM vol. 1, 6.2.6), which nobody but FNSTENV and FNSAVE shows.
 *
 * guest options: -cpu max
 */
#include "pieces.h"

enum {
    RC = 10,
    PC = 8,
    FCW = 0x37f,
    ZM = 4,
    ZE = 4,
    PE = 0x20,
    SF = 0x40,
    ES = 0x80,
    BUSY = 0x8000
};

/* What FNSAVE stores in 64-bit code (SDM vol. 1, figure 8-9, and the registers behind it). */
static struct state {
    uint32_t fcw, fsw, ftw, fip, fcs_fop, fdp, fds;
    uint8_t st[8][10];
} state;
static uint64_t room[64] __attribute__((aligned(64)));
static bool amd;

static void begin(void)
{
    vectors_on();
    amd = is_amd();
    memset(room, 0, sizeof room);
}
static void save(void)
{
    asm volatile("fnsave %0" : "=m"(state));
}
static unsigned top(void)
{
    return state.fsw >> 11 & 7;
}
static uint64_t mantissa(unsigned i)
{
    uint64_t v;
    memcpy(&v, state.st[i], 8);
    return v;
}

static bool says(const char *name, uint64_t got, uint64_t want)
{
    if (got == want)
        return true;
    print("  %s is %lx, not %lx\n", name, got, want);
    return false;
}

/* The pointers as this processor has them; `operand` 0: there is none. */
static bool points(word instruction, unsigned opcode, uint64_t operand)
{
    bool good = says("FIP", state.fip, (uint32_t)instruction);
    if (!amd) /* the selectors are zero, the rest changes with unmasked exceptions only */
        return good & says("FCS", state.fcs_fop & 0xffff, 0) & says("FDS", state.fds & 0xffff, 0);
    good &=
        says("FCS", state.fcs_fop & 0xffff, SEL_CODE) & says("FOP", state.fcs_fop >> 16, opcode);
    if (operand)
        good &=
            says("FDP", state.fdp, (uint32_t)operand) & says("FDS", state.fds & 0xffff, SEL_DATA);
    return good;
}

/* ---- Pointers ---------------------------------------------------------------------------------
 */

/* What stands between the last two x87 instructions and FNSAVE, which executes in C. */
TEST(pointers_behind_everything)
{
    begin();
    for (unsigned i = 0; i < 60; i++) {
        unsigned k = i % 12;
        struct context c = kernel_context();
        c.rdi = (word)room, c.rsi = 8, c.rax = 1, c.rdx = (word)&state;
        asm volatile("fninit");
        pieces_begin_sized(256);
        put(PIECE("fld1; jmp 1f; 1:"));
        word load = pieces_here();
        put(PIECE("fld qword ptr [rdi+rsi*2+4]"));
        word last = load;
        put(k == 1   ? PIECE("add rdi, 64")
            : k == 2 ? PIECE("mov [rdi+128], rax")
            : k == 3 ? PIECE("jmp 1f; 1: nop")
            : k == 4 ? PIECE("push rsi; pop rsi; mov rsi, 9")
            : k == 5 ? PIECE("call 1f; jmp 2f; 1: ret; 2: xor edi, edi")
            : k == 6 ? PIECE("cpuid; mov rdi, 1")
            : k == 7 ? PIECE("fnstsw ax; fnstcw [rdx]; fnclex")
            : k == 8 ? PIECE("lea rdi, [rdi+8]; mov ecx, 3; 1: dec ecx; jnz 1b")
            : k == 9 ? PIECE("xchg rdi, r9")
                     : PIECE("nop"));
        unsigned opcode = 0x544;
        if (k >= 10) {
            last = pieces_here();
            put(k == 10 ? PIECE("faddp") : PIECE("fxch; mov esi, 1"));
            opcode = k == 10 ? 0x6c1 : 0x1c9;
        }
        pieces_run(&c);
        save();
        if (!points(last, opcode, (word)room + 20))
            print("  (case %u)\n", k);
        CHECK_EQ(state.fip, (uint32_t)last);
        CHECK(points(last, opcode, (word)room + 20));
    }
}

/* Where ways meet, each has its own last instruction. */
TEST(pointers_where_ways_meet)
{
    begin();
    for (unsigned i = 0; i < 20; i++) {
        struct context c = kernel_context();
        c.rax = i & 1;
        asm volatile("fninit");
        pieces_begin();
        put(PIECE("test eax, eax"));
        word first = pieces_here();
        put(PIECE("fld1; jz 1f; fldpi; 1: mov ebx, eax; mov ecx, ebx"));
        pieces_run(&c);
        save();
        CHECK(points(i & 1 ? first + 4 : first, i & 1 ? 0x1eb : 0x1e8, 0));
    }
}

/* A fault's handler sees the instructions before it, with their operands; and the stack. */
TEST(faults_in_the_middle)
{
    begin();
    paging_reset();
    for (unsigned i = 0; i < 40; i++) {
        unsigned k = i % 6;
        struct context c = kernel_context();
        c.rdi = (word)room, c.rsi = WINDOW + 0x7000;
        room[1] = 0x3ff8000000000000; /* 1.5 */
        asm volatile("fninit");
        pieces_begin();
        put(PIECE("cmp rdi, rsi; fld1; fadd qword ptr [rdi+8]"));
        word last = pieces_here();
        put(PIECE("fst qword ptr [rdi+16]"));
        put(k % 3 == 0   ? PIECE("lea rdi, [rdi+8]")
            : k % 3 == 1 ? PIECE("mov ebx, ecx")
                         : PIECE("nop"));
        word at = pieces_here();
        put(k < 3 ? PIECE("fmul dword ptr [rsi]; fldz") : PIECE("fstp tbyte ptr [rsi]; fldz"));
        struct trap t = pieces_run(&c);
        save();
        CHECK_EQ(t.vector, VECTOR_PF);
        CHECK_EQ(t.rip, at);
        CHECK_EQ(t.error, k < 3 ? 0 : PF_W);
        CHECK_EQ(top(), 7);
        CHECK_EQ(state.ftw & 0xffff, 0x3fff);
        CHECK_EQ(mantissa(0), 0xa000000000000000); /* 2.5 */
        CHECK_EQ(room[2], 0x4004000000000000);
        CHECK(points(last, 0x557, (word)room + 16));
    }
}

/* ---- Control ----------------------------------------------------------------------------------
 */

/* 1/3 by each rounding mode and precision, both changed in the middle of the code. */
TEST(rounding_and_precision)
{
    static const uint64_t down[] = {0xaaaaaa0000000000, 0, 0xaaaaaaaaaaaaa800, 0xaaaaaaaaaaaaaaaa};
    static const uint64_t unit[] = {0x10000000000, 0, 0x800, 1};
    begin();
    for (unsigned i = 0; i < 64; i++) {
        unsigned rc = i & 3, pc = i >> 2 & 3;
        struct context c = kernel_context();
        c.rdi = (word)room;
        if (pc == 1)
            continue;
        room[0] = (FCW & ~0xf00u) | rc << RC | pc << PC;
        room[1] = 3;
        asm volatile("fninit");
        pieces_begin();
        put(PIECE("fld1; fldcw [rdi]; fidiv dword ptr [rdi+8]; fldcw [rdi+16]; fnstsw ax; "
                  "fnstcw [rdi+24]; fwait"));
        room[2] = FCW;
        struct trap t = pieces_run(&c);
        save();
        CHECK_EQ(t.vector, V_BP);
        bool up = rc == 2 || (rc == 0 && pc != 2); /* in 53 bits the nearest is below */
        CHECK_EQ(mantissa(0), down[pc] + (up ? unit[pc] : 0));
        CHECK_EQ(t.frame.rax & 0xffff, PE | 7 << 11 | (up ? 1 << 9 : 0));
        CHECK_EQ(room[3], FCW);
    }
}

/* Unmasked in the middle: the exception waits for the next instruction that waits, which is #MF's;
 * masked again, or cleared, none comes. */
TEST(unmasked_in_the_middle)
{
    begin();
    write_cr0(read_cr0() | 1 << 5); /* NE */
    for (unsigned i = 0; i < 60; i++) {
        unsigned k = i % 5;
        struct context c = kernel_context();
        c.rdi = (word)room;
        room[0] = k == 0 ? FCW : FCW & ~ZM, room[1] = FCW;
        asm volatile("fninit");
        pieces_begin();
        put(PIECE("fld1; fldz; fldcw [rdi]; mov ebx, 1"));
        word divide = pieces_here();
        put(PIECE("fdivp; mov ebx, 2; fnstsw [rdi+16]"));
        put(k == 2   ? PIECE("fnclex")
            : k == 3 ? PIECE("fninit")
            : k == 4 ? PIECE("fnstenv [rdi+128]; nop")
                     : PIECE("nop"));
        word at = pieces_here();
        put(k == 4 ? PIECE("fldz; nop; mov ebx, 3") : PIECE("fldz; fwait; mov ebx, 3"));
        struct trap t = pieces_run(&c);
        bool raised = k == 1;
        save();
        CHECK_EQ(t.vector, raised ? V_MF : V_BP);
        CHECK_EQ(t.frame.rbx, raised ? 2 : 3);
        if (raised)
            CHECK_EQ(t.rip, at);
        CHECK_EQ(room[2] & 0xff, k == 0 ? ZE : ES | ZE);
        CHECK_EQ(room[2] >> 15, k != 0);
        if (raised) {
            CHECK_EQ(top(), 6); /* operands and stack are as they were */
            CHECK_EQ(state.fip, (uint32_t)divide);
            CHECK_EQ(state.fcs_fop >> 16, 0x6f9);
        } else if (k == 4) {
            CHECK_EQ(state.fcw & 0xffff, FCW); /* FNSTENV masks all */
            CHECK_EQ(state.fsw & 0xff, ZE);
        } else {
            CHECK_EQ(state.fsw & 0xff, k == 0 ? ZE : 0);
        }
    }
}

/* A program that runs with exceptions unmasked, and meets none. */
TEST(unmasked_all_the_time)
{
    begin();
    for (unsigned i = 0; i < 6; i++) {
        struct context c = kernel_context();
        c.rdi = (word)room, c.rcx = 50;
        room[0] = 0x372, room[1] = 5;
        asm volatile("fninit");
        pieces_begin();
        put(PIECE("fldcw [rdi]; fldz; 1: fiadd dword ptr [rdi+8]; dec ecx; jnz 1b; "
                  "fistp qword ptr [rdi+16]; fldcw [rdi+24]; fild dword ptr [rdi+8]"));
        room[3] = FCW;
        CHECK_EQ(pieces_run(&c).vector, V_BP);
        save();
        CHECK_EQ(room[2], 250);
        CHECK_EQ(state.fcw & 0xffff, FCW);
        CHECK_EQ(mantissa(0), 5ull << 61);
    }
}

/* CR0.TS between two x87 instructions of one piece of code: #NM, which waits for nothing. */
TEST(task_switched)
{
    begin();
    for (unsigned i = 0; i < 20; i++) {
        struct context c = kernel_context();
        c.rdi = (word)room, c.rax = read_cr0() | 8;
        asm volatile("fninit");
        pieces_begin();
        put(PIECE("fld1; fld1; mov cr0, rax"));
        word at = pieces_here();
        put(i & 1 ? PIECE("faddp") : PIECE("paddb mm0, mm1"));
        struct trap t = pieces_run(&c);
        write_cr0(read_cr0() & ~8ull);
        save();
        CHECK_EQ(t.vector, V_NM);
        CHECK_EQ(t.rip, at);
        CHECK_EQ(top(), 6);
        CHECK_EQ(state.ftw & 0xffff, 0x0fff);
    }
}

/* ---- All of the state -------------------------------------------------------------------------
 */

/* The state goes through C and comes back, in the middle of a run. */
TEST(through_everything_else)
{
    begin();
    for (unsigned i = 0; i < 70; i++) {
        unsigned k = i % 7;
        struct context c = kernel_context();
        c.rdi = (word)room, c.rcx = 5, c.rdx = (word)&state;
        asm volatile("fninit");
        pieces_begin_sized(256);
        put(PIECE("fldpi; fld1; fldz; fcos; fchs"));
        word again = pieces_here();
        put(k == 0   ? PIECE("fxsave64 [rdi]; fninit; fxrstor64 [rdi]")
            : k == 1 ? PIECE("fnsave [rdx]; frstor [rdx]")
            : k == 2 ? PIECE("fnstenv [rdx]; fldenv [rdx]")
            : k == 3 ? PIECE("push rcx; cpuid; pop rcx")
            : k == 4 ? PIECE("fbstp [rdi]; fbld [rdi]")
            : k == 5
                ? PIECE("fincstp; fdecstp; fld st(1); ffree st(0); fincstp; call 3f; jmp 4f; 3: "
                        "fnop; ret; 4:")
                : PIECE("mov rax, cr3; mov cr3, rax; invlpg [rdi]"));
        put(PIECE("fadd st(2), st; fxch; fxch; dec ecx"));
        uint8_t jnz[6] = {0x0f, 0x85};
        int32_t back = (int32_t)(again - (pieces_here() + 6));
        memcpy(jnz + 2, &back, 4);
        put_bytes(jnz, 6);
        CHECK_EQ(pieces_run(&c).vector, V_BP);
        save();
        CHECK_EQ(top(), 5);
        CHECK_EQ(state.ftw & 0xffff, 0x03ff);
        CHECK_EQ(mantissa(0), 1ull << 63);
        CHECK_EQ(state.st[0][9], 0xbf);
        CHECK_EQ(mantissa(1), 1ull << 63);
        CHECK_EQ(state.st[1][9], 0x3f);
        /* pi - 5 */
        CHECK_EQ(mantissa(2), 0xede04abbbd2e7b96);
        CHECK_EQ(state.st[2][9], 0xbf);
    }
}

/* Conditions go to EFLAGS and to AX; FCMOV reads them. */
TEST(comparisons)
{
    static const struct {
        uint64_t value;
        unsigned flags, codes;
    } want[] = {{0x3ff0000000000000, 0x44, 0x4000}, /* 1 = 1 */
                {0x4000000000000000, 0x00, 0x0000}, /* 2 > 1 */
                {0x3fe0000000000000, 0x05 & 1, 0x0100},
                {0x7ff8000000000000, 0x45, 0x4500}}; /* unordered */
    begin();
    for (unsigned i = 0; i < 40; i++) {
        unsigned k = i % 4;
        struct context c = kernel_context();
        c.rdi = (word)room, c.rbx = 0;
        room[0] = want[k].value;
        asm volatile("fninit");
        pieces_begin();
        put(PIECE("fld1; fld qword ptr [rdi]; fucomi st(1); pushfq; pop rcx; fldz; fxch; fcmovb "
                  "st, st(1);"
                  "fstp st(1); fucomi st(1); ja 1f; mov ebx, 1; 1: fucomp st(1); fnstsw ax"));
        struct trap t = pieces_run(&c);
        save();
        CHECK_EQ(t.vector, V_BP);
        bool zero = want[k].flags & 1; /* FCMOVB has taken the 0 */
        CHECK_EQ(t.frame.rcx & F_ARITH, (k == 0 ? 0x40 : want[k].flags));
        CHECK_EQ(t.frame.rbx, k == 1 ? 0 : 1);
        CHECK_EQ(t.frame.rax & 0x4500, zero ? 0x0100 : want[k].codes);
    }
}

/* The stack overflows and underflows: masked, they leave the indefinite value, and C1 says which.
 */
TEST(stack_faults)
{
    begin();
    for (unsigned i = 0; i < 20; i++) {
        struct context c = kernel_context();
        asm volatile("fninit");
        c.rcx = i & 1 ? 9 : 1;
        pieces_begin();
        put(i & 1 ? PIECE("1: fld1; dec ecx; jnz 1b; fnstsw ax") : PIECE("fsqrt; fnstsw ax"));
        struct trap t = pieces_run(&c);
        save();
        CHECK_EQ(t.frame.rax & (SF | 0x201), i & 1 ? SF | 0x201 : SF | 1);
        CHECK_EQ(mantissa(0), 0xc000000000000000);
        CHECK_EQ(state.st[0][9], 0xff);
    }
}

/* ---- MMX --------------------------------------------------------------------------------------
 */

/* The same registers: TOP becomes 0, all are in use, exponents are ones; EMMS empties them. */
TEST(mmx_beside_x87)
{
    begin();
    for (unsigned i = 0; i < 40; i++) {
        bool emms = i & 1;
        struct context c = kernel_context();
        c.rdi = (word)room, c.r10 = 7, c.rcx = 3;
        room[0] = 0x1000200030004000;
        asm volatile("fninit");
        pieces_begin();
        put(PIECE("fld1; fld1; movq mm2, [rdi]; movd mm3, r10d; movq mm4, r10; 1: paddw mm2, mm3; "
                  "dec ecx; jnz 1b; pmovmskb r10d, mm2; movq [rdi+8], mm2; movq2dq xmm1, mm4; "
                  "movdqu [rdi+16], xmm1; pshufw mm5, mm2, 0x1b; pextrw r11d, mm5, 3"));
        put(emms ? PIECE("emms; fldpi") : PIECE("nop"));
        struct trap t = pieces_run(&c);
        save();
        CHECK_EQ(t.vector, V_BP);
        CHECK_EQ(room[1], 0x1000200030004015);
        CHECK_EQ(room[2], 7);
        CHECK_EQ(room[3], 0);
        CHECK_EQ(t.frame.r10, 0);
        CHECK_EQ(t.frame.r11, 0x4015);
        CHECK_EQ(top(), emms ? 7 : 0);
        if (emms) {
            CHECK_EQ(state.ftw & 0xffff, 0x3fff);
        } else {
            CHECK_EQ(state.ftw & 0x0880, 0x0880); /* MM3 and MM5 */
            CHECK_EQ(mantissa(2), 0x1000200030004015);
            CHECK_EQ(state.st[2][9], 0xff);
            CHECK_EQ(state.st[2][8], 0xff);
        }
    }
}

const struct test guest_tests[] = {T(pointers_behind_everything),
                                   T(pointers_where_ways_meet),
                                   T(faults_in_the_middle),
                                   T(rounding_and_precision),
                                   T(unmasked_in_the_middle),
                                   T(unmasked_all_the_time),
                                   T(task_switched),
                                   T(through_everything_else),
                                   T(comparisons),
                                   T(stack_faults),
                                   T(mmx_beside_x87),
                                   {0, 0}};
