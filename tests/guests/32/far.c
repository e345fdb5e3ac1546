/*
 * far.c - far JMP, CALL, RET and IRET straight to code segments: every access byte, RPL and CPL,
 * then limits, stacks, and what an outer level may not keep (SDM vol. 3, 5.8; vol. 2, JMP, CALL,
 * RET, IRET).
 */
#include "rings.h"

struct verdict {
    unsigned vector, error;
};
static const struct verdict fine = {V_BP, 0};

static bool is_code(unsigned access)
{
    return (access & 0x18) == 0x18;
}
static unsigned dpl_of(unsigned access)
{
    return access >> 5 & 3;
}

/* JMP and CALL keep the privilege. */
static struct verdict direct_rule(unsigned access, unsigned sel, unsigned cpl)
{
    unsigned rpl = sel & 3, dpl = dpl_of(access);
    bool bad = !is_code(access) || (access & 4 ? dpl > cpl : rpl > cpl || dpl != cpl);
    if (bad)
        return (struct verdict){V_GP, sel & ~3u};
    return access & D_PRESENT ? fine : (struct verdict){V_NP, sel & ~3u};
}
/* RET and IRET go to the privilege in RPL, never inwards. */
static struct verdict return_rule(unsigned access, unsigned sel, unsigned cpl)
{
    unsigned rpl = sel & 3, dpl = dpl_of(access);
    bool bad = !is_code(access) || rpl < cpl || (access & 4 ? dpl > rpl : dpl != rpl);
    if (bad)
        return (struct verdict){V_GP, sel & ~3u};
    return access & D_PRESENT ? fine : (struct verdict){V_NP, sel & ~3u};
}

/* The pointer in memory, at EBX; for returns SS:ESP in EDX and ECX. */
CODE32(jump, LABEL(jump_here) "ljmp *(%ebx)");
CODE32(call, LABEL(call_here) "lcall *(%ebx)\n" LABEL(call_after) "nop");
CODE32(retf, "pushl %edx; pushl %ecx; pushl 4(%ebx); pushl (%ebx)\n" LABEL(retf_here) "lret");
CODE32(iret,
       "pushl %edx; pushl %ecx; pushl $2; pushl 4(%ebx); pushl (%ebx)\n" LABEL(iret_here) "iretl");
CODE32(arrive, "int3\n" LABEL(arrived) "nop");

static uint32_t pointer[2];
static char outer_stack[512] __attribute__((aligned(16)));
#define OUTER_TOP ((word)outer_stack + sizeof(outer_stack))

static struct trap go(const char *code, unsigned selector, uint32_t offset, unsigned cpl)
{
    struct context c = context_ring((word)code, cpl);
    pointer[0] = offset;
    pointer[1] = selector;
    c.rbx = (word)pointer;
    c.rcx = OUTER_TOP;
    c.rdx = ring_data(selector & 3);
    return RUN(c);
}

static unsigned complaints, not_accessed;
static void matrix(const char *name, const char *code, word at, bool returns)
{
    rings_setup();
    complaints = not_accessed = 0;
    for (unsigned access = 0; access < 256; access++) {
        /* Gates and TSSs have files of their own. */
        unsigned system = access & 0x10 ? 0 : access & 15;
        if (!returns && (system == 1 || system == 4 || system == 5 || system == 9 || system == 12))
            continue;
        for (unsigned rc = 0; rc < 16; rc++) {
            unsigned sel = FREE(0) | (rc & 3), cpl = rc >> 2;
            struct verdict v =
                returns ? return_rule(access, sel, cpl) : direct_rule(access, sel, cpl);
            gdt[sel / 8] = descriptor(0, 0xfffff, access | FLAT);
            struct trap t = go(code, sel, (word)arrive, cpl);
            unsigned level = returns ? sel & 3 : cpl;
            bool same = t.vector == v.vector && t.error == v.error;
            if (v.vector == V_BP)
                same = same && t.rip == SYMBOL(arrived) && t.cs == (FREE(0) | level);
            else
                same = same && t.rip == at;
            if (!same && complaints++ < 5)
                print("  %s: access byte %x, selector %x, CPL %u: vector %u error %x cs %lx rip "
                      "%lx\n",
                      name, access, sel, cpl, (unsigned)t.vector, (unsigned)t.error,
                      (unsigned long)t.cs, (unsigned long)t.rip);
            if (v.vector == V_BP) /* QEMU: stays clear */
                not_accessed += desc_type(FREE(0)) != (access | 1);
        }
    }
    CHECK_EQ(complaints, 0);
    CHECK_EQ(not_accessed, 0);
}

TEST(jumps_by_access_byte)
{
    matrix("jmp", jump, SYMBOL(jump_here), false);
}
TEST(calls_by_access_byte)
{
    matrix("call", call, SYMBOL(call_here), false);
}
TEST(returns_by_access_byte)
{
    matrix("ret", retf, SYMBOL(retf_here), true);
}
TEST(irets_by_access_byte)
{
    matrix("iret", iret, SYMBOL(iret_here), true);
}

/* ---- Selectors and limits ----------------------------------------------------------------------
 */

TEST(null_and_beyond_the_table)
{
    const struct {
        const char *code;
        word at;
    } kinds[] = {{jump, SYMBOL(jump_here)},
                 {call, SYMBOL(call_here)},
                 {retf, SYMBOL(retf_here)},
                 {iret, SYMBOL(iret_here)}};
    rings_setup();
    for (unsigned n = 0; n < 4; n++) {
        const char *code = kinds[n].code;
        word at = kinds[n].at;
        struct trap t = go(code, 3, (word)arrive, 3);
        CHECK_TRAP(t, V_GP, 0, at);
        t = go(code, 0xfff8 | 3, (word)arrive, 3);
        CHECK_TRAP(t, V_GP, 0xfff8, at);
        t = go(code, LDT_ENTRY(0) | 3, (word)arrive, 3); /* there is no LDT */
        CHECK_TRAP(t, V_GP, LDT_ENTRY(0), at);
        CHECK_EQ(t.rflags & F_RF, F_RF);
    }
}

TEST(through_the_ldt)
{
    rings_setup();
    ldt_setup(FREE(1));
    ldt[1] = descriptor(0, 0xfffff, D_CODE | FLAT | D_DPL3);
    struct trap t = go(jump, LDT_ENTRY(1) | 3, (word)arrive, 3);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.cs, LDT_ENTRY(1) | 3);
    t = go(retf, LDT_ENTRY(1) | 3, (word)arrive, 0);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.cs, LDT_ENTRY(1) | 3);
}

TEST(offsets_beyond_the_limit)
{
    rings_setup();
    gdt[FREE(0) / 8] = descriptor((word)arrive - 0x100, 0xff, D_CODE | D_BIG | D_DPL3);
    CHECK_TRAP(go(jump, FREE(0) | 3, 0x100, 3), V_GP, 0, SYMBOL(jump_here));
    CHECK_TRAP(go(call, FREE(0) | 3, 0x100, 3), V_GP, 0, SYMBOL(call_here));
    CHECK_TRAP(go(retf, FREE(0) | 3, 0x100, 3), V_GP, 0, SYMBOL(retf_here));
    CHECK_TRAP(go(retf, FREE(0) | 3, 0x100, 0), V_GP, 0, SYMBOL(retf_here));
    CHECK_TRAP(go(iret, FREE(0) | 3, 0x100, 3), V_GP, 0, SYMBOL(iret_here));
    CHECK_TRAP(go(iret, FREE(0) | 3, 0x100, 0), V_GP, 0, SYMBOL(iret_here));
    gdt[FREE(0) / 8] = descriptor((word)arrive - 0x100, 0x100, D_CODE | D_BIG | D_DPL3);
    CHECK_EQ(go(jump, FREE(0) | 3, 0x100, 3).vector, V_BP);
}

/* ---- Same level --------------------------------------------------------------------------------
 */

CODE32(call_16, "lcallw *(%ebx)\n" LABEL(call_16_after) "nop");
CODE32(ret_imm, "pushl 4(%ebx); pushl (%ebx); lret $0x18");
CODE32(ret_16, "pushw 4(%ebx); pushw (%ebx); lretw");

TEST(call_pushes_cs_and_eip)
{
    rings_setup();
    struct context c = context_ring(0, 3);
    struct trap t = go(call, SEL_UCODE, (word)arrive, 3);
    const volatile uint32_t *stack = (const volatile uint32_t *)t.rsp;
    CHECK_EQ(t.rsp, c.rsp - 8);
    CHECK_EQ(stack[0], SYMBOL(call_after));
    CHECK_EQ(stack[1], SEL_UCODE); /* as far as 16 bits go, see below */
    /* A 16-bit CALL: the pointer is m16:16, the offset is cut to 16 bits. */
    gdt[FREE(0) / 8] = descriptor((word)arrive, 0xffff, D_CODE | D_BIG | D_DPL3);
    pointer[0] = (FREE(0) | 3) << 16;
    c.rip = (word)call_16;
    c.rbx = (word)pointer;
    t = RUN(c);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.rip, 1);
    CHECK_EQ(t.cs, FREE(0) | 3);
    CHECK_EQ(t.rsp, c.rsp - 4);
    CHECK_EQ(*(uint16_t *)t.rsp, SYMBOL(call_16_after) & 0xffff);
    CHECK_EQ(*(uint16_t *)(t.rsp + 2), SEL_UCODE);
}

TEST(return_releases_parameters)
{
    rings_setup();
    struct context c = context_ring(0, 3);
    struct trap t = go(ret_imm, SEL_UCODE, (word)arrive, 3);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.rsp, c.rsp + 0x18);
    gdt[FREE(0) / 8] = descriptor((word)arrive & ~0xffffu, 0xffff, D_CODE | D_BIG | D_DPL3);
    t = go(ret_16, FREE(0) | 3, (word)arrive, 3); /* the offset's upper half is not popped */
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.rip, SYMBOL(arrived) & 0xffff);
    CHECK_EQ(t.rsp, c.rsp);
}

CODE32(call_on_full_stack, "movl $4, %esp\n" LABEL(full_here) "lcall *(%ebx)");
CODE32(ret_on_empty_stack, "movl $0xff9, %esp\n" LABEL(empty_here) "lret");

TEST(stack_without_room)
{
    static char small[0x1000];
    rings_setup();
    gdt[FREE(1) / 8] = descriptor((word)small, 0xfff, D_DATA | D_BIG | D_DPL3);
    struct context c = context_ring((word)call_on_full_stack, 3);
    pointer[0] = (word)arrive;
    pointer[1] = SEL_UCODE;
    c.rbx = (word)pointer;
    c.ss = FREE(1) | 3;
    struct trap t = RUN(c);
    CHECK_TRAP(t, V_SS, 0, SYMBOL(full_here));
    CHECK_EQ(t.rsp, 4);
    CHECK_EQ(t.cs, SEL_UCODE);
    c.rip = (word)ret_on_empty_stack;
    t = RUN(c);
    CHECK_TRAP(t, V_SS, 0, SYMBOL(empty_here));
    CHECK_EQ(t.rsp, 0xff9);
}

/* ---- To an outer level -------------------------------------------------------------------------
 */

/* From CPL 0; ECX, EDX are the outer ESP, SS. */
CODE32(ret_outer, "pushl %edx; pushl %ecx; subl $0x10, %esp; pushl 4(%ebx); pushl (%ebx)\n" LABEL(
                      ret_outer_here) "lret $0x10");

static struct trap return_to(unsigned selector, unsigned ss)
{
    struct context c = context_ring((word)ret_outer, 0);
    pointer[0] = (word)arrive;
    pointer[1] = selector;
    c.rbx = (word)pointer;
    c.rcx = OUTER_TOP - 64;
    c.rdx = ss;
    return RUN(c);
}

TEST(return_outer_releases_on_both_stacks)
{
    rings_setup();
    for (unsigned cpl = 1; cpl < 4; cpl++) {
        struct trap t = return_to(ring_code(cpl), ring_data(cpl));
        CHECK_EQ(t.vector, V_BP);
        CHECK_EQ(t.cs, ring_code(cpl));
        CHECK_EQ(t.ss, ring_data(cpl));
        CHECK_EQ(t.rsp, OUTER_TOP - 64 + 0x10);
    }
}

/* SS for every access byte and RPL, returning to CPL 3. */
TEST(outer_stack_by_access_byte)
{
    rings_setup();
    complaints = 0;
    for (unsigned access = 0; access < 256; access++) {
        for (unsigned rpl = 0; rpl < 4; rpl++) {
            unsigned ss = FREE(1) | rpl;
            gdt[ss / 8] = descriptor(0, 0xfffff, access | FLAT);
            struct verdict v = fine;
            if (rpl != 3 || (access & 0x1a) != 0x12 || dpl_of(access) != 3)
                v = (struct verdict){V_GP, FREE(1)};
            else if (!(access & D_PRESENT))
                v = (struct verdict){V_SS, FREE(1)};
            struct trap t = return_to(SEL_UCODE, ss);
            if (t.vector != v.vector || t.error != v.error ||
                (v.vector != V_BP && t.rip != SYMBOL(ret_outer_here))) {
                if (complaints++ < 5)
                    print("  access byte %x, RPL %u: vector %u error %x\n", access, rpl,
                          (unsigned)t.vector, (unsigned)t.error);
            }
        }
    }
    CHECK_EQ(complaints, 0);
    CHECK_TRAP(return_to(SEL_UCODE, 3), V_GP, 0, SYMBOL(ret_outer_here));
    CHECK_TRAP(return_to(SEL_UCODE, 0xfffb), V_GP, 0xfff8, SYMBOL(ret_outer_here));
}

/* Data registers that the outer level may not use come out null (SDM vol. 2, RET). DS, ES, FS, GS
 * are read at CPL 3 by this. */
CODE32(show_segments, "movw %fs, %cx; shll $16, %ecx; movw %gs, %cx; int3");

static struct trap with_segments(const char *code, unsigned ds, unsigned es, unsigned fs,
                                 unsigned gs)
{
    struct context c = context_ring((word)code, 0);
    pointer[0] = (word)show_segments;
    pointer[1] = SEL_UCODE;
    c.rbx = (word)pointer;
    c.rcx = OUTER_TOP - 64;
    c.rdx = SEL_UDATA;
    c.ds = ds;
    c.es = es;
    c.fs = fs;
    c.gs = gs;
    return RUN(c);
}

static void check_nulling(const char *code)
{
    gdt[FREE(0) / 8] = descriptor(0, 0xfffff, D_CONFORMING | FLAT); /* DPL 0, readable */
    gdt[FREE(1) / 8] = descriptor(0, 0xfffff, D_CODE | FLAT);       /* DPL 0, readable */
    struct trap t = with_segments(code, SEL_DATA, SEL_UDATA, FREE(0), FREE(1));
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.frame.ds & 0xffff, 0);
    CHECK_EQ(t.frame.es & 0xffff, SEL_UDATA);
    CHECK_EQ(t.frame.rcx >> 16, FREE(0)); /* conforming code stays */
    CHECK_EQ(t.frame.rcx & 0xffff, 0);
    t = with_segments(code, SEL_UDATA, SEL_DATA, ring_data(1), ring_data(2));
    CHECK_EQ(t.frame.ds & 0xffff, SEL_UDATA);
    CHECK_EQ(t.frame.es & 0xffff, 0);
    CHECK_EQ(t.frame.rcx, 0);
}

TEST(return_outer_clears_segments)
{
    rings_setup();
    check_nulling(ret_outer);
}
TEST(iret_outer_clears_segments)
{
    rings_setup();
    check_nulling(iret);
}

/* ---- IRET: flags by privilege ------------------------------------------------------------------
 */

CODE32(iret_flags, "pushl %edx; pushl %ecx; pushl %esi; pushl 4(%ebx); pushl (%ebx); iretl");
CODE32(read_flags_then_stop, "pushfl; popl %eax; int3");

static uint32_t flags_of(unsigned cpl, uint32_t before, uint32_t image, unsigned to)
{
    struct context c = context_ring((word)iret_flags, cpl);
    pointer[0] = (word)read_flags_then_stop;
    pointer[1] = ring_code(to);
    c.rbx = (word)pointer;
    c.rcx = OUTER_TOP;
    c.rdx = ring_data(to);
    c.rsi = image;
    c.rflags = before | 2;
    struct trap t = RUN(c);
    CHECK_EQ(t.vector, V_BP);
    return t.frame.rax;
}

TEST(iret_loads_flags_by_privilege)
{
    const uint32_t user = 0x8d5 | F_DF | F_AC | 1 << 21, system = F_IOPL3 | F_IF | F_VIF | F_VIP;
    rings_setup();
    /* NT would make the next IRET a task switch, so it is not among them; TF has debug.c. */
    CHECK_EQ(flags_of(0, 0, user | system, 3), user | system | 2);
    CHECK_EQ(flags_of(3, 0, user | system, 3), user | 2);
    CHECK_EQ(flags_of(3, F_IF | F_VIF | F_VIP, 0, 3), F_IF | F_VIF | F_VIP | 2);
    CHECK_EQ(flags_of(3, F_IOPL3, F_IF, 3), F_IOPL3 | F_IF | 2); /* CPL <= IOPL: IF */
    CHECK_EQ(flags_of(1, 1 << 12, F_IF | F_IOPL3, 3), 1 << 12 | F_IF | 2);
    CHECK_EQ(flags_of(2, 1 << 12 | F_IF, F_IOPL3, 3), 1 << 12 | F_IF | 2);
    CHECK_EQ(flags_of(1, 0, F_VM, 1), 2); /* VM only from CPL 0 */
}

const struct test guest_tests[] = {T(jumps_by_access_byte),
                                   T(calls_by_access_byte),
                                   T(returns_by_access_byte),
                                   T(irets_by_access_byte),
                                   T(null_and_beyond_the_table),
                                   T(through_the_ldt),
                                   T(offsets_beyond_the_limit),
                                   T(call_pushes_cs_and_eip),
                                   T(return_releases_parameters),
                                   T(stack_without_room),
                                   T(return_outer_releases_on_both_stacks),
                                   T(outer_stack_by_access_byte),
                                   T(return_outer_clears_segments),
                                   T(iret_outer_clears_segments),
                                   T(iret_loads_flags_by_privilege),
                                   {0, 0}};
