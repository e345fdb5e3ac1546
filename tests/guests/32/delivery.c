/*
 * delivery.c - 32-bit interrupt and exception delivery through the IDT: gates, frames, privileges,
 * and what a gate may name (SDM vol. 3, 6.10-6.13; vol. 2, INT n).
 *
 * Failing deliveries here start from something benign, so that the fault met on the way is
 * delivered itself; delivery_faults.c has those that make a double fault. QEMU has no INT1 here, no
 * RF, and checks no limits.
 */
#include "machine.h"
#include "rings.h"

enum { GATE_INT16 = 6, GATE_TRAP16 = 7, GATE_INT32 = 14, GATE_TRAP32 = 15, V = 0x40 };

/* A handler that shows where its frame begins (EAX), then ends the run. */
CODE32(probe, "movl %esp, %eax; int3");
/* Its flags, and everything else as before, are in the frame of that INT3. */

CODE32(int_v, LABEL(int_v_here) "int $0x40\n" LABEL(int_v_after) "int3");
CODE32(icebp, LABEL(icebp_here) ".byte 0xf1\n" LABEL(icebp_after) "int3");
CODE32(undefined, LABEL(undefined_here) "ud2");
CODE32(do_into,
       "movb $0x7f, %al; addb $1, %al\n" LABEL(into_here) "into\n" LABEL(into_after) "int3");
CODE32(do_int3, LABEL(int3_here) "int3");
CODE32(do_bound, LABEL(bound_here) "boundl %eax, bounds_pair; int3");
CODE32(do_divide, LABEL(divide_here) "divl %ecx; int3");
CODE32(do_hlt, LABEL(hlt_here) "hlt");
CODE32(int_13, "int $13\n" LABEL(int_13_after) "nop");
CODE32(stepped_int,
       "pushfl; orl $0x100, (%esp); popfl\n int $0x40\n" LABEL(stepped_after) "nop; int3");
static const uint32_t bounds_pair[2] __attribute__((used)) = {1, 2};

static void stub_gate(unsigned vector, unsigned dpl)
{
    set_gate(vector, (word)trap_stubs + 16 * vector, SEL_CODE, GATE_INT32, dpl, 0);
}
static struct trap at_ring(const char *code, unsigned cpl, uint32_t eflags)
{
    struct context c = context_ring((word)code, cpl);
    c.rflags |= eflags;
    return RUN(c);
}

/* ---- Frames ------------------------------------------------------------------------------------
 */

TEST(frame_of_the_same_level)
{
    rings_setup();
    set_gate(V, (word)probe, SEL_CODE, GATE_INT32, 0, 0);
    struct trap t = at_ring(int_v, 0, F_CF | F_DF);
    const uint32_t *f = (const uint32_t *)t.frame.rax;
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.cs, SEL_CODE);
    CHECK_EQ(f[0], SYMBOL(int_v_after));
    CHECK_EQ(f[1], SEL_CODE);
    CHECK_EQ(f[2], 2 | F_CF | F_DF);
    /* Conforming code runs at the caller's level, on its stack. */
    gdt[FREE(0) / 8] = descriptor(0, 0xfffff, D_CONFORMING | FLAT);
    set_gate(V, (word)probe, FREE(0), GATE_INT32, 3, 0);
    t = at_ring(int_v, 3, F_CF);
    f = (const uint32_t *)t.frame.rax;
    CHECK_EQ(t.cs, FREE(0) | 3);
    CHECK_EQ(t.ss, SEL_UDATA);
    CHECK_EQ(t.rsp, context_ring(0, 3).rsp - 12);
    CHECK_EQ(f[0], SYMBOL(int_v_after));
    CHECK_EQ(f[1], SEL_UCODE);
    CHECK_EQ(f[2], 2 | F_CF);
}

TEST(frames_of_inner_levels)
{
    rings_setup();
    for (unsigned to = 0; to < 3; to++) {
        for (unsigned from = to + 1; from < 4; from++) {
            set_gate(V, (word)probe, ring_code(to) & ~3u, GATE_INT32, 3, 0);
            struct trap t = at_ring(int_v, from, F_ZF);
            const uint32_t *top = (const uint32_t *)tss[1 + 2 * to], *f = top - 5;
            CHECK_EQ(t.vector, V_BP);
            CHECK_EQ(t.frame.rax, (word)f);
            CHECK_EQ(t.cs, ring_code(to));
            if (to)
                CHECK_EQ(t.ss, ring_data(to));
            CHECK_EQ(f[0], SYMBOL(int_v_after));
            CHECK_EQ(f[1], ring_code(from));
            CHECK_EQ(f[2], 2 | F_ZF);
            CHECK_EQ(f[3], context_ring(0, from).rsp);
            CHECK_EQ(f[4], ring_data(from));
        }
    }
}

TEST(frames_of_16_bit_gates)
{
    rings_setup();
    gdt[FREE(0) / 8] = descriptor((word)probe, 0xffff, D_CODE | D_BIG | ATTR_DPL(1));
    set_gate(V, 0, FREE(0), GATE_TRAP16, 3, 0);
    struct trap t = at_ring(int_v, 3, F_CF);
    const uint16_t *f = (const uint16_t *)t.frame.rax;
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.frame.rax, tss[3] - 10);
    CHECK_EQ(f[0], SYMBOL(int_v_after) & 0xffff);
    CHECK_EQ(f[1], SEL_UCODE);
    CHECK_EQ(f[2], 2 | F_CF);
    CHECK_EQ(f[3], context_ring(0, 3).rsp & 0xffff);
    CHECK_EQ(f[4], SEL_UDATA);
    t = at_ring(int_v, 1, 0); /* the same level */
    f = (const uint16_t *)t.rsp;
    CHECK_EQ(t.rsp, context_ring(0, 1).rsp - 6);
    CHECK_EQ(f[0], SYMBOL(int_v_after) & 0xffff);
    CHECK_EQ(f[1], ring_code(1));
    /* An exception's error code is a word, too. */
    set_gate(V_GP, 0, FREE(0), GATE_INT16, 0, 0);
    t = at_ring(do_hlt, 3, 0);
    stub_gate(V_GP, 0);
    f = (const uint16_t *)t.frame.rax;
    CHECK_EQ(t.frame.rax, tss[3] - 12);
    CHECK_EQ(f[0], 0);
    CHECK_EQ(f[1], SYMBOL(hlt_here) & 0xffff);
    CHECK_EQ(f[2], SEL_UCODE);
}

/* Only exceptions push error codes, not INT n with their numbers. */
TEST(int_13_pushes_no_error_code)
{
    rings_setup();
    set_gate(V_GP, (word)probe, SEL_CODE, GATE_INT32, 3, 0);
    struct trap t = at_ring(int_13, 3, 0);
    stub_gate(V_GP, 0);
    const uint32_t *f = (const uint32_t *)t.frame.rax;
    CHECK_EQ(t.frame.rax, tss[1] - 20);
    CHECK_EQ(f[0], SYMBOL(int_13_after));
    CHECK_EQ(f[1], SEL_UCODE);
}

TEST(flags_in_the_handler)
{
    static const uint8_t types[] = {GATE_INT16, GATE_TRAP16, GATE_INT32, GATE_TRAP32};
    rings_setup();
    gdt[FREE(0) / 8] = descriptor((word)probe, 0xffff, D_CODE | D_BIG);
    for (unsigned i = 0; i < 4; i++) {
        const uint32_t keep = F_CF | F_DF | F_AC | F_IOPL3 | 1 << 21;
        set_gate(V, 0, FREE(0), types[i], 3, 0);
        bool interrupt_gate = types[i] == GATE_INT16 || types[i] == GATE_INT32;
        struct trap t = at_ring(int_v, 3, keep | F_IF | F_NT);
        CHECK_EQ(t.vector, V_BP);
        CHECK_EQ(t.rflags, 2 | keep | (interrupt_gate ? 0 : F_IF)); /* no TF, NT, RF, VM */
    }
}

/* TF is saved, and off in the handler: INT n is not stepped into. */
TEST(int_n_under_tf)
{
    rings_setup();
    set_gate(V, (word)probe, SEL_CODE, GATE_TRAP32, 3, 0);
    struct trap t = at_ring(stepped_int, 3, 0);
    const uint32_t *f = (const uint32_t *)t.frame.rax;
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.rflags & F_TF, 0);
    CHECK_EQ(f[0], SYMBOL(stepped_after));
    CHECK_EQ(f[2] & F_TF, F_TF);
}

/* ---- Who may ask -------------------------------------------------------------------------------
 */

TEST(dpl_of_the_gate_is_for_software)
{
    rings_setup();
    for (unsigned cpl = 0; cpl < 4; cpl++) {
        for (unsigned dpl = 0; dpl < 4; dpl++) {
            stub_gate(V, dpl);
            stub_gate(V_OF, dpl);
            struct trap t = at_ring(int_v, cpl, 0);
            if (dpl >= cpl)
                CHECK_EQ(t.vector, V);
            else
                CHECK_TRAP(t, V_GP, V * 8 + 2, SYMBOL(int_v_here));
            t = at_ring(do_into, cpl, 0);
            if (dpl >= cpl)
                CHECK_TRAP(t, V_OF, 0, SYMBOL(into_after));
            else
                CHECK_TRAP(t, V_GP, V_OF * 8 + 2, SYMBOL(into_here));
            stub_gate(V_BP, dpl);
            t = at_ring(do_int3, cpl, 0);
            if (dpl >= cpl)
                CHECK_TRAP(t, V_BP, 0, SYMBOL(int3_here) + 1);
            else
                CHECK_TRAP(t, V_GP, V_BP * 8 + 2, SYMBOL(int3_here));
            /* Not for exceptions, BOUND and INT1 among them. */
            stub_gate(V_BR, dpl);
            stub_gate(V_DE, dpl);
            stub_gate(V_DB, dpl);
            t = at_ring(do_bound, cpl, 0);
            CHECK_TRAP(t, V_BR, 0, SYMBOL(bound_here));
            CHECK_EQ(t.rflags & F_RF, F_RF); /* QEMU: clear */
            t = at_ring(do_divide, cpl, 0);
            CHECK_TRAP(t, V_DE, 0, SYMBOL(divide_here));
            t = at_ring(icebp, cpl, 0);
            CHECK_TRAP(t, V_DB, 0, SYMBOL(icebp_after));
        }
    }
    stub_gate(V_OF, 0);
    stub_gate(V_DB, 0);
}

/* ---- Gates that are none -----------------------------------------------------------------------
 */

/* The fault that delivering `V` to CPL `cpl` meets: by INT n, by INT1 (as V_DB) and by #UD, which
 * have EXT = 0, 1 and 1. */
static void expect(unsigned cpl, uint32_t low, uint32_t high, unsigned vector, int error)
{
    const unsigned vectors[3] = {V, V_DB, V_UD};
    const char *const code[3] = {int_v, icebp, undefined};
    const word at[3] = {SYMBOL(int_v_here), SYMBOL(icebp_here), SYMBOL(undefined_here)};
    for (unsigned i = 0; i < 3; i++) {
        struct idt_entry saved = idt[vectors[i]];
        idt[vectors[i]].word[0] = low;
        idt[vectors[i]].word[1] = high;
        struct trap t = at_ring(code[i], cpl, 0);
        idt[vectors[i]] = saved;
        /* error < 0: the gate itself is wrong, and named by its vector. */
        unsigned want = (error < 0 ? vectors[i] * 8 + 2 : (unsigned)error) | (i ? 1 : 0);
        CHECK_EQ(t.vector, vector);
        CHECK_EQ(t.error, want);
        CHECK_EQ(t.rip, at[i]); /* nothing has happened yet, so INT n and INT1 run again */
        CHECK_EQ(t.cs, ring_code(cpl));
        CHECK_EQ(t.rflags & F_RF, F_RF);
    }
}
enum { GATE_NAMED = -1 };
/* The upper half of a gate. */
static uint32_t high(unsigned access)
{
    return ((word)probe & 0xffff0000) | access << 8;
}
static uint32_t low(unsigned selector)
{
    return ((word)probe & 0xffff) | selector << 16;
}

TEST(types_and_presence_of_gates)
{
    rings_setup();
    for (unsigned type = 0; type < 32; type++) {
        bool gate_type = type == 5 || type == 6 || type == 7 || type == 14 || type == 15;
        if (!gate_type) {
            expect(3, low(SEL_CODE), high(0xe0 | type), V_GP, GATE_NAMED);
            expect(3, low(SEL_CODE), high(0x60 | type), V_GP, GATE_NAMED);
        } else {
            expect(3, low(SEL_CODE), high(0x60 | type), V_NP, GATE_NAMED);
        }
    }
    expect(0, 0, 0, V_GP, GATE_NAMED);
}

TEST(idt_limit)
{
    struct __attribute__((packed)) {
        uint16_t limit;
        uint32_t base;
    } idtr = {V * 8 + 6, (word)idt};
    rings_setup();
    stub_gate(V, 3);
    asm volatile("lidt %0" ::"m"(idtr));
    struct trap t = at_ring(int_v, 3, 0);
    CHECK_TRAP(t, V_GP, V * 8 + 2, SYMBOL(int_v_here));
    idtr.limit++;
    asm volatile("lidt %0" ::"m"(idtr));
    t = at_ring(int_v, 3, 0);
    CHECK_EQ(t.vector, V);
    idtr.limit = 0x7ff;
    asm volatile("lidt %0" ::"m"(idtr));
}

/* ---- Code segments -----------------------------------------------------------------------------
 */

TEST(code_segments_of_handlers)
{
    rings_setup();
    const uint32_t up = high(0xee);
    expect(3, low(0), up, V_GP, 0);
    expect(3, low(3), up, V_GP, 0);
    expect(3, low(0xfff8), up, V_GP, 0xfff8);
    expect(3, low(LDT_ENTRY(1)), up, V_GP, LDT_ENTRY(1));
    for (unsigned access = 0; access < 256; access++) {
        unsigned dpl = access >> 5 & 3;
        gdt[FREE(0) / 8] = descriptor(0, 0xfffff, access | FLAT);
        for (unsigned cpl = 0; cpl < 4; cpl += 3) {
            if ((access & 0x18) != 0x18 || dpl > cpl)
                expect(cpl, low(FREE(0)), up, V_GP, FREE(0));
            else if (!(access & D_PRESENT))
                expect(cpl, low(FREE(0)), up, V_NP, FREE(0));
        }
    }
    /* The RPL in the gate does not count. */
    set_gate(V, (word)probe, SEL_CODE | 3, GATE_INT32, 3, 0);
    struct trap t = at_ring(int_v, 3, 0);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.cs, SEL_CODE);
}

TEST(offsets_beyond_the_limit) /* QEMU: goes there */
{
    rings_setup();
    gdt[FREE(0) / 8] = descriptor((word)probe, 3, D_CODE | D_BIG);
    expect(3, 4 | FREE(0) << 16, 0xee00, V_GP, 0);
    set_gate(V, 0, FREE(0), GATE_INT32, 3, 0);
    CHECK_EQ(at_ring(int_v, 3, 0).vector, V_BP);
}

/* ---- Stacks ------------------------------------------------------------------------------------
 */

static void expect_stack(unsigned ss, uint32_t esp, unsigned vector, unsigned error)
{
    uint32_t esp1 = tss[3], ss1 = tss[4];
    tss[3] = esp;
    tss[4] = ss;
    expect(3, low(ring_code(1)), high(0xee), vector, (int)error);
    tss[3] = esp1;
    tss[4] = ss1;
}

TEST(bad_inner_stacks)
{
    static char room[0x1000];
    const uint32_t esp = (word)room + 128;
    rings_setup();
    expect_stack(0, esp, V_TS, 0);
    expect_stack(1, esp, V_TS, 0);
    expect_stack(0xfff9, esp, V_TS, 0xfff8);
    expect_stack(LDT_ENTRY(0) | 1, esp, V_TS, LDT_ENTRY(0));
    expect_stack(ring_data(1) & ~3u, esp, V_TS, ring_data(1) & ~3u);
    expect_stack(ring_data(2), esp, V_TS, ring_data(2) & ~3u);
    for (unsigned access = 0; access < 256; access++) {
        bool ok = (access & 0x1a) == 0x12 && (access >> 5 & 3) == 1;
        gdt[FREE(0) / 8] = descriptor(0, 0xfffff, access | FLAT);
        if (!ok)
            expect_stack(FREE(0) | 1, esp, V_TS, FREE(0));
        else if (!(access & D_PRESENT))
            expect_stack(FREE(0) | 1, esp, V_SS, FREE(0));
    }
}

TEST(inner_stack_without_room) /* QEMU: no limits */
{
    static char room[0x1000];
    rings_setup();
    gdt[FREE(0) / 8] = descriptor((word)room, 0xfff, D_DATA | D_BIG | ATTR_DPL(1));
    expect_stack(FREE(0) | 1, 19, V_SS, FREE(0));
    expect_stack(FREE(0) | 1, 0x1001, V_SS, FREE(0));
}

TEST(outer_stack_without_room) /* a handler of the same level; QEMU: no limits */
{
    static char room[0x1000];
    rings_setup();
    gdt[FREE(0) / 8] = descriptor((word)room, 0xfff, D_DATA | D_BIG | D_DPL3);
    set_gate(V, (word)probe, SEL_UCODE, GATE_INT32, 3, 0);
    struct context c = context_ring((word)int_v, 3);
    c.ss = FREE(0) | 3;
    c.rsp = 12;
    CHECK_EQ(RUN(c).vector, V_BP);
    c.rsp = 11;
    struct trap t = RUN(c);
    CHECK_TRAP(t, V_SS, 0, SYMBOL(int_v_here));
    CHECK_EQ(t.rsp, 11);
}

TEST(tss_too_small)
{
    rings_setup();
    gdt[SEL_TSS / 8] = descriptor((word)tss, 4 + 8 + 4, D_TSS32);
    asm volatile("ltr %w0" ::"r"(SEL_TSS) : "memory");
    expect(3, low(ring_code(1)), high(0xee), V_TS, SEL_TSS);
    gdt[SEL_TSS / 8] = descriptor((word)tss, 103, D_TSS32);
    asm volatile("ltr %w0" ::"r"(SEL_TSS) : "memory");
}

/* ---- Interrupts from outside -------------------------------------------------------------------
 */

static __attribute__((noinline, noclone)) struct trap interrupted(void)
{
    apic_write(APIC_ICR, 0x44000 | 0x51); /* to myself */
    return CATCH(asm volatile("sti; nop\n" LABEL(external_here) "nop; nop; cli" ::: "memory"));
}

TEST(external_interrupts_have_ext)
{
    rings_setup();
    apic_quiet();
    stub_gate(0x51, 0);
    struct trap t = interrupted();
    apic_eoi(0);
    CHECK_EQ(t.vector, 0x51);
    CHECK_EQ(t.rip, SYMBOL(external_here));
    CHECK_EQ(t.rflags & (F_IF | F_RF), F_IF);
    idt[0x51].word[1] &= ~0x8000u;
    t = interrupted();
    apic_eoi(0);
    CHECK_TRAP(t, V_NP, 0x51 * 8 + 3, SYMBOL(external_here));
    idt[0x51].word[1] = 0;
    t = interrupted();
    apic_eoi(0);
    CHECK_TRAP(t, V_GP, 0x51 * 8 + 3, SYMBOL(external_here));
    gdt[FREE(0) / 8] = descriptor(0, 0xfffff, (D_CODE | FLAT) & ~D_PRESENT);
    set_gate(0x51, (word)probe, FREE(0), GATE_INT32, 0, 0);
    t = interrupted();
    apic_eoi(0);
    CHECK_TRAP(t, V_NP, FREE(0) | 1, SYMBOL(external_here));
}

const struct test guest_tests[] = {T(frame_of_the_same_level),
                                   T(frames_of_inner_levels),
                                   T(frames_of_16_bit_gates),
                                   T(int_13_pushes_no_error_code),
                                   T(flags_in_the_handler),
                                   T(int_n_under_tf),
                                   T(dpl_of_the_gate_is_for_software),
                                   T(types_and_presence_of_gates),
                                   T(idt_limit),
                                   T(code_segments_of_handlers),
                                   T(bad_inner_stacks),
                                   T(tss_too_small),
                                   T(external_interrupts_have_ext),
                                   T(offsets_beyond_the_limit),
                                   T(inner_stack_without_room),
                                   T(outer_stack_without_room),
                                   {0, 0}};
