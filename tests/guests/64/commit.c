/*
 * commit.c - an instruction whose operand runs into a page that is missing or read-only has done
 * nothing: registers, flags, FPU and vectors, and the part of its operand that could be written
 * (SDM vol. 3, 6.5: faults restart).
 */
#include "context.h"
#include "paging.h"

enum kind { R, W, RW };

/* Instruction with its operand at RAX, the operand's size and alignment, how it is accessed. */
#define INSTRUCTIONS(X)                                                                            \
    X("movw (%rax), %cx", 2, 1, R)                                                                 \
    X("movl (%rax), %ecx", 4, 1, R)                                                                \
    X("movq (%rax), %rcx", 8, 1, R)                                                                \
    X("movzwl (%rax), %ecx", 2, 1, R)                                                              \
    X("movslq (%rax), %rcx", 4, 1, R)                                                              \
    X("movbe (%rax), %rcx", 8, 1, R)                                                               \
    X("addq (%rax), %rcx", 8, 1, R)                                                                \
    X("cmpq %rcx, (%rax)", 8, 1, R)                                                                \
    X("testl $0x7f, (%rax)", 4, 1, R)                                                              \
    X("imulq $3, (%rax), %rcx", 8, 1, R)                                                           \
    X("mulq (%rax)", 8, 1, R)                                                                      \
    X("divl (%rax)", 4, 1, R)                                                                      \
    X("idivq (%rax)", 8, 1, R)                                                                     \
    X("cmovcq (%rax), %rcx", 8, 1, R) /* whatever the condition is */                              \
    X("cmovncq (%rax), %rcx", 8, 1, R)                                                             \
    X("bsfq (%rax), %rcx", 8, 1, R)                                                                \
    X("popcntl (%rax), %ecx", 4, 1, R)                                                             \
    X("crc32q (%rax), %rcx", 8, 1, R)                                                              \
    X("btq $3, (%rax)", 8, 1, R)                                                                   \
    X("pushq (%rax)", 8, 1, R)                                                                     \
    X("pushw (%rax)", 2, 1, R)                                                                     \
    X("call *(%rax)", 8, 1, R)                                                                     \
    X("jmp *(%rax)", 8, 1, R)                                                                      \
    X("lcalll *(%rax)", 6, 1, R)                                                                   \
    X("ljmpl *(%rax)", 6, 1, R)                                                                    \
    X("lfs (%rax), %ecx", 6, 1, R)                                                                 \
    X("mov (%rax), %fs", 2, 1, R)                                                                  \
    X("larw (%rax), %cx", 2, 1, R)                                                                 \
    X("flds (%rax)", 4, 1, R)                                                                      \
    X("fldl (%rax)", 8, 1, R)                                                                      \
    X("fldt (%rax)", 10, 1, R)                                                                     \
    X("fildq (%rax)", 8, 1, R)                                                                     \
    X("fbld (%rax)", 10, 1, R)                                                                     \
    X("faddl (%rax)", 8, 1, R)                                                                     \
    X("fldcw (%rax)", 2, 1, R)                                                                     \
    X("fldenv (%rax)", 28, 1, R)                                                                   \
    X("frstor (%rax)", 108, 1, R)                                                                  \
    X("fxrstor (%rax)", 512, 16, R)                                                                \
    X("ldmxcsr (%rax)", 4, 1, R)                                                                   \
    X("movups (%rax), %xmm0", 16, 1, R)                                                            \
    X("movsd (%rax), %xmm0", 8, 1, R)                                                              \
    X("movhps (%rax), %xmm0", 8, 1, R)                                                             \
    X("movq (%rax), %mm0", 8, 1, R)                                                                \
    X("cvtsi2sdq (%rax), %xmm0", 8, 1, R)                                                          \
    X("pinsrq $1, (%rax), %xmm0", 8, 1, R)                                                         \
    X("movw %cx, (%rax)", 2, 1, W)                                                                 \
    X("movl %ecx, (%rax)", 4, 1, W)                                                                \
    X("movq %rcx, (%rax)", 8, 1, W)                                                                \
    X("movq $5, (%rax)", 8, 1, W)                                                                  \
    X("movnti %rcx, (%rax)", 8, 1, W)                                                              \
    X("movbe %rcx, (%rax)", 8, 1, W)                                                               \
    X("movw %ds, (%rax)", 2, 1, W)                                                                 \
    X("popq (%rax)", 8, 1, W)                                                                      \
    X("popw (%rax)", 2, 1, W)                                                                      \
    X("sgdt (%rax)", 10, 1, W)                                                                     \
    X("sidt (%rax)", 10, 1, W)                                                                     \
    X("sldtw (%rax)", 2, 1, W)                                                                     \
    X("smsww (%rax)", 2, 1, W)                                                                     \
    X("fsts (%rax)", 4, 1, W)                                                                      \
    X("fstpl (%rax)", 8, 1, W)                                                                     \
    X("fstpt (%rax)", 10, 1, W)                                                                    \
    X("fistpq (%rax)", 8, 1, W)                                                                    \
    X("fisttpl (%rax)", 4, 1, W)                                                                   \
    X("fbstp (%rax)", 10, 1, W)                                                                    \
    X("fnstcw (%rax)", 2, 1, W)                                                                    \
    X("fnstsw (%rax)", 2, 1, W)                                                                    \
    X("fnstenv (%rax)", 28, 1, W)                                                                  \
    X("fnsave (%rax)", 108, 1, W)                                                                  \
    X("fxsave (%rax)", 416, 16, W)                                                                 \
    X("stmxcsr (%rax)", 4, 1, W)                                                                   \
    X("movups %xmm0, (%rax)", 16, 1, W)                                                            \
    X("movsd %xmm0, (%rax)", 8, 1, W)                                                              \
    X("movhps %xmm0, (%rax)", 8, 1, W)                                                             \
    X("pextrq $1, %xmm0, (%rax)", 8, 1, W)                                                         \
    X("addl %ecx, (%rax)", 4, 1, RW)                                                               \
    X("adcq $5, (%rax)", 8, 1, RW)                                                                 \
    X("lock subq %rcx, (%rax)", 8, 1, RW)                                                          \
    X("orw $0x55, (%rax)", 2, 1, RW)                                                               \
    X("incl (%rax)", 4, 1, RW)                                                                     \
    X("lock decq (%rax)", 8, 1, RW)                                                                \
    X("negq (%rax)", 8, 1, RW)                                                                     \
    X("notl (%rax)", 4, 1, RW)                                                                     \
    X("shlq %cl, (%rax)", 8, 1, RW)                                                                \
    X("rcrl $3, (%rax)", 4, 1, RW)                                                                 \
    X("shldq $5, %rcx, (%rax)", 8, 1, RW)                                                          \
    X("shrdl %cl, %ecx, (%rax)", 4, 1, RW)                                                         \
    X("btsq $3, (%rax)", 8, 1, RW)                                                                 \
    X("lock btrl $3, (%rax)", 4, 1, RW)                                                            \
    X("xchgq %rcx, (%rax)", 8, 1, RW)                                                              \
    X("xaddq %rcx, (%rax)", 8, 1, RW)                                                              \
    X("lock xaddl %ecx, (%rax)", 4, 1, RW)                                                         \
    X("cmpxchgq %rcx, (%rax)", 8, 1, RW)                                                           \
    X("lock cmpxchgl %ecx, (%rax)", 4, 1, RW)                                                      \
    X("cmpxchg8b (%rax)", 8, 1, RW)                                                                \
    X("lock cmpxchg8b (%rax)", 8, 1, RW)

/* Each in a slot of 16 bytes, with UD2 behind. */
#define SLOT(text, size, align, kind) ".balign 16\n" text "\nud2\n"
asm(".balign 16\n" LABEL(slots) INSTRUCTIONS(SLOT));
static const struct {
    const char *text;
    uint16_t size, align;
    enum kind kind;
} instructions[] = {
#define ROW(text, size, align, kind) {text, size, align, kind},
    INSTRUCTIONS(ROW)
#undef ROW
};
enum { COUNT = sizeof instructions / sizeof instructions[0] };

static uint8_t pages[2][4096] __attribute__((aligned(4096)));
static uint8_t fpu_before[512] __attribute__((aligned(16)));
static uint8_t fpu_after[512] __attribute__((aligned(16)));
#define EDGE (WINDOW + PAGE) /* between the page that is there and the one that is not */

static void fill(void)
{
    for (unsigned i = 0; i < PAGE; i++)
        pages[0][i] = pages[1][i] = (uint8_t)(0x3f & (i * 7));
}
static bool is_filled(const uint8_t *page)
{
    for (unsigned i = 0; i < PAGE; i++) {
        if (page[i] != (uint8_t)(0x3f & (i * 7)))
            return false;
    }
    return true;
}

/* Distinct, and good for whatever a row makes of them. */
static struct context start(word rip)
{
    struct context c = context_user(rip);
    c.rcx = 0x1122334455667705, c.rdx = 0, c.rbx = 0xb0b0, c.rbp = 0xbbbb;
    c.rsi = 0x5151, c.rdi = 0xd1d1;
    c.r8 = 0x88, c.r9 = 0x99, c.r10 = 0xaa, c.r11 = 0xbb, c.r12 = 0xcc, c.r13 = 0xdd, c.r14 = 0xee;
    c.r15 = 0xff;
    c.rflags = 2 | F_CF | F_ZF | F_OF | F_IF;
    return c;
}

static bool same(const struct context *c, const struct trap *t)
{
    const struct frame *f = &t->frame;
    return c->rax == f->rax && c->rcx == f->rcx && c->rdx == f->rdx && c->rbx == f->rbx &&
           c->rbp == f->rbp && c->rsi == f->rsi && c->rdi == f->rdi && c->r8 == f->r8 &&
           c->r9 == f->r9 && c->r10 == f->r10 && c->r11 == f->r11 && c->r12 == f->r12 &&
           c->r13 == f->r13 && c->r14 == f->r14 && c->r15 == f->r15 && c->rsp == t->rsp &&
           (c->rflags | F_RF) == t->rflags;
}

static void set_fpu(void)
{
    static const uint64_t v[2] = {0x1234567812345678, 0x3ff0000000000000};
    asm volatile("clts; fninit; fld1; fldpi; movups %0, %%xmm0" ::"m"(v[0]), "m"(v[1]));
    asm volatile("fxsave %0" : "=m"(fpu_before));
}
/* But for the last instruction's opcode and addresses, which processors treat as they like; they
 * also do their worst with TOP when an MMX store faults, so there is no row for that. */
static bool same_fpu(void)
{
    asm volatile("fxsave %0" : "=m"(fpu_after));
    return memcmp(fpu_before, fpu_after, 6) == 0 &&
           memcmp(fpu_before + 24, fpu_after + 24, sizeof fpu_before - 24) == 0;
}

/* Runs row `i` with `before` bytes of its operand on the first page. */
static void check(unsigned i, unsigned before, word cr2, unsigned error)
{
    struct context c = start(SYMBOL(slots));
    c.rip += 16 * i;
    c.rax = EDGE - before;
    fill();
    set_fpu();
    struct trap t = RUN(c);
    bool ok = t.vector == V_PF && t.error == error && t.cr2 == cr2 && t.rip == c.rip &&
              same(&c, &t) && same_fpu() && is_filled(pages[0]) && is_filled(pages[1]);
    if (!ok)
        print("  %s, %u bytes before the edge: vector %lx error %lx cr2 %lx rip %lx (%lx) flags "
              "%lx %s%s%s%s\n",
              instructions[i].text, before, (long)t.vector, (long)t.error, (long)t.cr2, (long)t.rip,
              (long)c.rip, (long)t.rflags, same(&c, &t) ? "" : "registers ",
              same_fpu() ? "" : "FPU ", is_filled(pages[0]) ? "" : "first ",
              is_filled(pages[1]) ? "" : "second");
    CHECK(ok);
}

static void each_position(uint64_t second, unsigned present)
{
    map_page(WINDOW, (word)pages[0], 1, PG_ALL);
    map_page(EDGE, (word)pages[1], 1, second);
    for (unsigned i = 0; i < COUNT; i++) {
        unsigned size = instructions[i].size, step = instructions[i].align;
        if (present && instructions[i].kind == R)
            continue;
        unsigned error = PF_U | present | (instructions[i].kind == R ? 0 : PF_W);
        check(i, step, EDGE, error);
        if (size / 2 / step * step != 0)
            check(i, size / 2 / step * step, EDGE, error);
        check(i, (size - 1) / step * step, EDGE, error);
    }
    paging_reset();
}

static bool has_all(void)
{
    return cpu_has(1, REG_ECX, 22) && cpu_has(1, REG_ECX, 20) && cpu_has(1, REG_ECX, 23);
}

TEST(second_page_missing)
{
    REQUIRE(has_all());
    each_position(0, 0);
}

TEST(second_page_read_only)
{
    REQUIRE(has_all());
    each_position(PG_P | PG_U, PF_P);
}

/* The first page is missing, the second there: the fault is at the operand itself. */
TEST(first_page_missing)
{
    REQUIRE(has_all());
    map_page(WINDOW, 0, 1, 0);
    map_page(EDGE, (word)pages[1], 1, PG_ALL);
    for (unsigned i = 0; i < COUNT; i++) {
        unsigned step = instructions[i].align;
        check(i, step, EDGE - step, PF_U | (instructions[i].kind == R ? 0 : PF_W));
    }
    paging_reset();
}

/* ---- The stack ------------------------------------------------------------------------------- */

asm(LABEL(s_push) "push %rax; ud2\n" LABEL(s_pushf) "pushf; ud2\n" LABEL(s_pushi) "pushq $5; "
                                                                                  "ud2\n" LABEL(s_pushfs) "push %fs; ud2\n" LABEL(s_call) "call 1f; 1: ud2\n" LABEL(s_enter) "enter $0, $0; ud2\n" LABEL(s_enter_deep) "enter $32, $3; ud2\n" LABEL(s_enter_alloc) "enter $4096, $0; ud2\n" LABEL(s_pushw) "pushw %ax; ud2\n" LABEL(s_pop) "pop %rcx; ud2\n" LABEL(
                                                                                      s_popf) "popf"
                                                                                              "; "
                                                                                              "ud2"
                                                                                              "\n" LABEL(s_popfs) "pop %fs; ud2\n" LABEL(s_ret) "ret\n" LABEL(s_retn) "ret $8\n" LABEL(s_lret) "lretq\n" LABEL(s_iret) "iretq\n" LABEL(s_popm) "popq (%rbx); ud2\n" LABEL(s_poprsp) "popq 8(%rsp); ud2\n" LABEL(s_leave) "leave; ud2");

extern char s_push[], s_pushf[], s_pushi[], s_pushfs[], s_call[], s_enter[], s_enter_deep[],
    s_enter_alloc[], s_pushw[], s_pop[], s_popf[], s_popfs[], s_ret[], s_retn[], s_lret[], s_iret[],
    s_popm[], s_poprsp[], s_leave[];

static void stack_case(const char *what, char *rip, word rsp, word rbp, word rbx, word cr2,
                       unsigned error)
{
    bool enters = rip == s_enter_deep || rip == s_enter_alloc; /* may have pushed, below RSP */
    struct context c = start((word)rip);
    c.rsp = rsp;
    c.rbp = rbp;
    c.rbx = rbx;
    fill();
    struct trap t = RUN(c);
    bool ok = t.vector == V_PF && t.error == error && t.cr2 == cr2 && t.rip == c.rip &&
              same(&c, &t) && is_filled(pages[0]) && (enters || is_filled(pages[1]));
    if (!ok)
        print("  %s: vector %lx error %lx cr2 %lx rip %lx (%lx) rsp %lx rbp %lx\n", what,
              (long)t.vector, (long)t.error, (long)t.cr2, (long)t.rip, (long)c.rip, (long)t.rsp,
              (long)t.frame.rbp);
    CHECK(ok);
}

/* The page below EDGE is missing, the one above is there. */
TEST(pushes)
{
    const unsigned u = PF_U | PF_W;
    map_page(WINDOW, 0, 1, 0);
    map_page(EDGE, (word)pages[1], 1, PG_ALL);
    stack_case("PUSH", s_push, EDGE, 0, 0, EDGE - 8, u);
    stack_case("PUSH across", s_push, EDGE + 3, 0, 0, EDGE - 5, u);
    stack_case("PUSH 16 bits", s_pushw, EDGE + 1, 0, 0, EDGE - 1, u);
    stack_case("PUSHF", s_pushf, EDGE + 4, 0, 0, EDGE - 4, u);
    stack_case("PUSH imm", s_pushi, EDGE, 0, 0, EDGE - 8, u);
    stack_case("PUSH FS", s_pushfs, EDGE, 0, 0, EDGE - 8, u);
    stack_case("CALL", s_call, EDGE + 1, 0, 0, EDGE - 7, u);
    stack_case("ENTER", s_enter, EDGE, 0, 0, EDGE - 8, u);
    /* The frame pointers of outer levels are copied: one push fits, the second does not. */
    stack_case("ENTER 3", s_enter_deep, EDGE + 8, EDGE + 0x80, 0, EDGE - 8, u);
    /* The display is read through RBP. */
    stack_case("ENTER 3, no display", s_enter_deep, EDGE + 0x80, EDGE, 0, EDGE - 8, PF_U);
    /* ENTER touches the new top of the stack, too: a write check (vol. 2, ENTER). */
    stack_case("ENTER with room", s_enter_alloc, EDGE + 0x100, 0, 0, EDGE + 0xf8 - 0x1000, u);
    paging_reset();
}

/* The page above EDGE is missing. */
TEST(pops)
{
    map_page(WINDOW, (word)pages[0], 1, PG_ALL);
    map_page(EDGE, 0, 1, 0);
    stack_case("POP", s_pop, EDGE - 3, 0, 0, EDGE, PF_U);
    stack_case("POPF", s_popf, EDGE - 4, 0, 0, EDGE, PF_U);
    stack_case("POP FS", s_popfs, EDGE, 0, 0, EDGE, PF_U);
    stack_case("RET", s_ret, EDGE - 1, 0, 0, EDGE, PF_U);
    stack_case("RET n", s_retn, EDGE - 7, 0, 0, EDGE, PF_U);
    stack_case("RETF", s_lret, EDGE - 8, 0, 0, EDGE, PF_U);
    stack_case("IRET", s_iret, EDGE - 8, 0, 0, EDGE, PF_U);
    stack_case("LEAVE", s_leave, WINDOW + 0x100, EDGE - 4, 0, EDGE, PF_U);
    /* The destination faults after the stack has been read: RSP is as before. */
    stack_case("POP mem", s_popm, WINDOW + 0x100, 0, EDGE - 2, EDGE, PF_U | PF_W);
    /* Its address is formed with the RSP that the pop leaves (vol. 2, POP). */
    stack_case("POP 8(RSP)", s_poprsp, EDGE - 0x10 - 4, 0, 0, EDGE, PF_U | PF_W);
    paging_reset();
}

/* ---- AVX ------------------------------------------------------------------------------------- */

asm(LABEL(v_store) "vmovups %ymm0, (%rax); ud2\n" LABEL(v_load) "vmovups (%rax), %ymm0; "
                                                                "ud2\n" LABEL(v_mask) "vmaskmovps "
                                                                                      "%ymm0, "
                                                                                      "%ymm1, "
                                                                                      "(%rax)"
                                                                                      "\n" LABEL(v_mask_end) "ud2\n" LABEL(v_mask_load) "vmaskmovps (%rax), %ymm1, %ymm0\n" LABEL(
                                                                                          v_mask_load_end) "ud2");
extern char v_store[], v_load[], v_mask[], v_mask_end[], v_mask_load[], v_mask_load_end[];

static uint64_t ymm[4] = {1, 2, 3, 4};
static void get_ymm0(uint64_t v[4])
{
    asm volatile("vmovups %%ymm0, (%0)" ::"r"(v) : "memory");
}

static void vector_case(const char *what, char *rip, word rax, word cr2, unsigned error)
{
    uint64_t after[4];
    struct context c = start((word)rip);
    c.rax = rax;
    fill();
    asm volatile("vmovups (%0), %%ymm0" ::"r"(ymm));
    struct trap t = RUN(c);
    get_ymm0(after);
    bool ok = t.vector == V_PF && t.error == error && t.cr2 == cr2 && t.rip == c.rip &&
              same(&c, &t) && is_filled(pages[0]) && is_filled(pages[1]) &&
              memcmp(after, ymm, 32) == 0;
    if (!ok)
        print("  %s: vector %lx error %lx cr2 %lx rip %lx (%lx)\n", what, (long)t.vector,
              (long)t.error, (long)t.cr2, (long)t.rip, (long)c.rip);
    CHECK(ok);
}

TEST(avx)
{
    REQUIRE(cpu_has(1, REG_ECX, 28));
    static const uint32_t mask[8] = {~0u, ~0u, 0, 0, 0, 0, 0, 0};
    word cr4 = read_cr4();
    write_cr4(cr4 | 1 << 18);
    asm volatile("xsetbv" ::"a"(7), "d"(0), "c"(0));
    map_page(WINDOW, (word)pages[0], 1, PG_ALL);
    map_page(EDGE, (word)pages[1], 1, 0);
    vector_case("VMOVUPS store", v_store, EDGE - 31, EDGE, PF_U | PF_W);
    vector_case("VMOVUPS store", v_store, EDGE - 1, EDGE, PF_U | PF_W);
    vector_case("VMOVUPS load", v_load, EDGE - 16, EDGE, PF_U);
    /* Elements that the mask leaves out may lie on the missing page. */
    asm volatile("vmovups (%0), %%ymm1; vmovups (%1), %%ymm0" ::"r"(mask), "r"(ymm));
    fill();
    struct context c = start((word)v_mask);
    c.rax = EDGE - 8;
    struct trap t = RUN(c);
    CHECK_TRAP(t, V_UD, 0, (word)v_mask_end);
    CHECK_EQ(*(uint64_t *)(pages[0] + PAGE - 8), 1);
    c.rax = EDGE - 4; /* the second one is on it */
    fill();
    t = RUN(c);
    CHECK_TRAP(t, V_PF, PF_U | PF_W, (word)v_mask);
    CHECK(is_filled(pages[0]));
    c.rip = (word)v_mask_load;
    c.rax = EDGE - 8;
    CHECK_TRAP(RUN(c), V_UD, 0, (word)v_mask_load_end);
    paging_reset();
    write_cr4(cr4);
}

const struct test guest_tests[] = {T(second_page_missing),
                                   T(second_page_read_only),
                                   T(first_page_missing),
                                   T(pushes),
                                   T(pops),
                                   T(avx),
                                   {0, 0}};
