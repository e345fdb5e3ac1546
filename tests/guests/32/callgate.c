/*
 * callgate.c - 16- and 32-bit call gates: who may pass, what lies on which stack, what goes wrong
 * with the inner stack (SDM vol. 3, 5.8.3-5.8.6; vol. 2, CALL, JMP, RET). QEMU gives #GP where a
 * JMP through a gate meets absent code, checks no limits, and jumps to all 32 bits of a 16-bit
 * gate's offset, which is the end of it (offsets_by_gate_size comes last).
 */
#include "rings.h"

struct verdict {
    unsigned vector, error;
};
static const struct verdict fine = {V_BP, 0};

/* Gates are FREE(0), the code segment behind them FREE(1), with its base at `arrive`. */
CODE32(arrive, "int3\n" LABEL(arrived) "nop");
CODE32(call, LABEL(call_here) "lcall *(%ebx)\n" LABEL(call_after) "int3");
CODE32(jump, LABEL(jump_here) "ljmp *(%ebx)");

static uint32_t pointer[2];

static struct context through(const char *code, unsigned gate_selector, unsigned cpl)
{
    struct context c = context_ring((word)code, cpl);
    pointer[0] = 0xdeadbeef; /* of no interest */
    pointer[1] = gate_selector;
    c.rbx = (word)pointer;
    return c;
}

/* ---- Who may pass ------------------------------------------------------------------------------
 */

static unsigned dpl_of(unsigned access)
{
    return access >> 5 & 3;
}

static struct verdict rule(unsigned gate_access, unsigned gate_sel, unsigned code_access,
                           bool is_call, unsigned cpl)
{
    unsigned dpl = dpl_of(code_access);
    bool conforming = code_access & 4;

    if (dpl_of(gate_access) < cpl || dpl_of(gate_access) < (gate_sel & 3))
        return (struct verdict){V_GP, gate_sel & ~3u};
    if (!(gate_access & D_PRESENT))
        return (struct verdict){V_NP, gate_sel & ~3u};
    if ((code_access & 0x18) != 0x18 || dpl > cpl || (!is_call && !conforming && dpl != cpl))
        return (struct verdict){V_GP, FREE(1)};
    if (!(code_access & D_PRESENT))
        return (struct verdict){V_NP, FREE(1)};
    return fine;
}

static unsigned complaints;

static void one_passage(unsigned type, unsigned gate_access, unsigned rpl, unsigned code_access,
                        bool is_call, unsigned cpl)
{
    unsigned sel = FREE(0) | rpl;
    struct verdict v = rule(gate_access, sel, code_access, is_call, cpl);
    /* The selector's RPL in the gate does not count. */
    gdt[FREE(0) / 8] = gate(FREE(1) | (rpl ^ 3), 0, gate_access | type, 0);
    gdt[FREE(1) / 8] = descriptor((word)arrive, 0xffff, code_access | D_BIG);
    struct context c = through(is_call ? call : jump, sel, cpl);
    struct trap t = RUN(c);
    bool inner = is_call && !(code_access & 4) && dpl_of(code_access) < cpl;
    unsigned level = inner ? dpl_of(code_access) : cpl;
    bool same = t.vector == v.vector && t.error == v.error;
    if (v.vector == V_BP)
        same = same && t.rip == 1 && t.cs == (FREE(1) | level);
    else
        same = same && t.rip == (is_call ? SYMBOL(call_here) : SYMBOL(jump_here));
    if (!same && complaints++ < 5)
        print("  %s, gate %x, RPL %u, code %x, CPL %u: vector %u error %x cs %lx rip %lx\n",
              is_call ? "call" : "jmp", gate_access | type, rpl, code_access, cpl,
              (unsigned)t.vector, (unsigned)t.error, (unsigned long)t.cs, (unsigned long)t.rip);
}

static void passages(unsigned type)
{
    static const uint8_t codes[] = {0x9b, 0x9f, 0x99, 0x1b, 0x1f, 0x93, 0x82, 0x8c};
    rings_setup();
    complaints = 0;
    for (unsigned bits = 0; bits < 1024; bits++) {
        unsigned cpl = bits & 3, rpl = bits >> 2 & 3, gate_dpl = bits >> 4 & 3,
                 code_dpl = bits >> 6 & 3;
        bool is_call = bits & 0x100, present = bits & 0x200;
        for (unsigned i = 0; i < sizeof(codes); i++)
            one_passage(type, ATTR_DPL(gate_dpl) | (present ? D_PRESENT : 0), rpl,
                        codes[i] | ATTR_DPL(code_dpl), is_call, cpl);
    }
    CHECK_EQ(complaints, 0);
}

TEST(passage_of_32_bit_gates)
{
    passages(D_CALL32 & 0xf);
}
TEST(passage_of_16_bit_gates)
{
    passages(D_CALL16 & 0xf);
}

static struct trap call_gate(uint64_t descriptor_, unsigned cpl)
{
    gdt[FREE(0) / 8] = descriptor_;
    struct context c = through(call, FREE(0) | 3, cpl);
    return RUN(c);
}

TEST(where_gates_lead)
{
    rings_setup();
    struct trap t = call_gate(gate(3, 0, D_CALL32 | D_DPL3, 0), 3);
    CHECK_TRAP(t, V_GP, 0, SYMBOL(call_here));
    t = call_gate(gate(0xfff8, 0, D_CALL32 | D_DPL3, 0), 3);
    CHECK_TRAP(t, V_GP, 0xfff8, SYMBOL(call_here));
    t = call_gate(gate(LDT_ENTRY(1), 0, D_CALL32 | D_DPL3, 0), 3); /* no LDT */
    CHECK_TRAP(t, V_GP, LDT_ENTRY(1), SYMBOL(call_here));
    ldt_setup(FREE(2));
    ldt[1] = descriptor((word)arrive, 0, D_CODE | D_BIG);
    t = call_gate(gate(LDT_ENTRY(1), 0, D_CALL32 | D_DPL3, 0), 3);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.cs, LDT_ENTRY(1));
    ldt[2] = gate(LDT_ENTRY(1), 0, (D_CALL32 | D_DPL3) & ~D_PRESENT, 0); /* a gate in the LDT */
    struct context c = through(call, LDT_ENTRY(2) | 3, 3);
    CHECK_TRAP(RUN(c), V_NP, LDT_ENTRY(2), SYMBOL(call_here));
    ldt[2] |= (uint64_t)D_PRESENT << 40;
    CHECK_EQ(RUN(c).vector, V_BP);
}

TEST(offsets_by_gate_size)
{
    rings_setup();
    gdt[FREE(1) / 8] = descriptor((word)arrive - 0x1000, 0x1000, D_CODE | D_BIG);
    struct trap t = call_gate(gate(FREE(1), 0x1000, D_CALL32 | D_DPL3, 0), 3);
    CHECK_EQ(t.rip, 0x1001);
    t = call_gate(gate(FREE(1), 0x12341000, D_CALL16 | D_DPL3, 0), 3); /* upper half ignored */
    CHECK_EQ(t.rip, 0x1001);
    t = call_gate(gate(FREE(1), 0x1001, D_CALL32 | D_DPL3, 0), 3); /* beyond the limit */
    CHECK_TRAP(t, V_GP, 0, SYMBOL(call_here));
    CHECK_EQ(t.ss, SEL_UDATA);
}

/* ---- Frames ------------------------------------------------------------------------------------
 */

static uint32_t parameters[40];

/* From CPL 3, on a stack that holds `parameters`. */
static struct trap inner_call(unsigned attr, unsigned code_dpl, unsigned count)
{
    for (unsigned i = 0; i < 40; i++)
        parameters[i] = 0xa0b0c0d0 + i * 0x01010101;
    gdt[FREE(0) / 8] = gate(FREE(1), 0, attr | D_DPL3, count);
    gdt[FREE(1) / 8] = descriptor((word)arrive, 0xffff, D_CODE | D_BIG | ATTR_DPL(code_dpl));
    struct context c = through(call, FREE(0) | 3, 3);
    c.rsp = (word)parameters;
    return RUN(c);
}

TEST(frame_of_32_bit_gates)
{
    static const uint8_t counts[] = {0, 1, 5, 31};
    rings_setup();
    for (unsigned dpl = 0; dpl < 3; dpl++) {
        for (unsigned n = 0; n < sizeof(counts); n++) {
            unsigned count = counts[n];
            struct trap t = inner_call(D_CALL32, dpl, count);
            const uint32_t *top = (const uint32_t *)tss[1 + 2 * dpl], *esp = top - 4 - count;
            CHECK_EQ(t.vector, V_BP);
            CHECK_EQ(t.cs, FREE(1) | dpl);
            if (dpl) { /* else INT3 has not switched stacks */
                CHECK_EQ(t.rsp, (word)esp);
                CHECK_EQ(t.ss, ring_data(dpl));
            }
            CHECK_EQ(esp[0], SYMBOL(call_after));
            CHECK_EQ(esp[1], SEL_UCODE);
            for (unsigned i = 0; i < count; i++)
                CHECK_EQ(esp[2 + i], parameters[i]);
            CHECK_EQ(esp[2 + count], (word)parameters);
            CHECK_EQ(esp[3 + count], SEL_UDATA);
        }
    }
}

TEST(frame_of_16_bit_gates)
{
    static const uint8_t counts[] = {0, 1, 6, 31};
    rings_setup();
    for (unsigned dpl = 0; dpl < 3; dpl++) {
        for (unsigned n = 0; n < sizeof(counts); n++) {
            unsigned count = counts[n];
            struct trap t = inner_call(D_CALL16, dpl, count);
            const uint16_t *top = (const uint16_t *)tss[1 + 2 * dpl], *sp = top - 4 - count;
            const uint16_t *words = (const uint16_t *)parameters;
            CHECK_EQ(t.vector, V_BP);
            CHECK_EQ(t.cs, FREE(1) | dpl);
            if (dpl)
                CHECK_EQ(t.rsp, (word)sp);
            CHECK_EQ(sp[0], SYMBOL(call_after) & 0xffff);
            CHECK_EQ(sp[1], SEL_UCODE);
            for (unsigned i = 0; i < count; i++)
                CHECK_EQ(sp[2 + i], words[i]);
            CHECK_EQ(sp[2 + count], (word)parameters & 0xffff);
            CHECK_EQ(sp[3 + count], SEL_UDATA);
        }
    }
}

TEST(same_level_copies_no_parameters)
{
    rings_setup();
    struct trap t = inner_call(D_CALL32, 3, 5);
    const uint32_t *esp = (const uint32_t *)t.rsp;
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.rsp, (word)parameters - 8);
    CHECK_EQ(esp[0], SYMBOL(call_after));
    CHECK_EQ(esp[1], SEL_UCODE);
    t = inner_call(D_CALL16, 3, 5);
    CHECK_EQ(t.rsp, (word)parameters - 4);
    CHECK_EQ(*(uint16_t *)t.rsp, SYMBOL(call_after) & 0xffff);
}

/* The inner stack may be a 16-bit one: SP wraps, and ESP is cut to SP on the way in. */
TEST(inner_stack_of_16_bits)
{
    static uint8_t stack[0x10000] __attribute__((aligned(16)));
    uint32_t esp1 = tss[3], ss1 = tss[4];
    rings_setup();
    gdt[FREE(3) / 8] = descriptor((word)stack, 0xffff, D_DATA | ATTR_DPL(1));
    tss[3] = 0x12340008;
    tss[4] = FREE(3) | 1;
    struct trap t = inner_call(D_CALL32, 1, 1);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.ss, FREE(3) | 1);
    CHECK_EQ(t.rsp & 0xffff, 0xfff4);
    CHECK_EQ(*(uint32_t *)(stack + 0xfff4), SYMBOL(call_after));
    CHECK_EQ(*(uint32_t *)(stack + 0xfffc), parameters[0]);
    CHECK_EQ(*(uint32_t *)(stack + 0), (word)parameters);
    CHECK_EQ(*(uint32_t *)(stack + 4), SEL_UDATA);
    tss[3] = esp1;
    tss[4] = ss1;
}

/* There and back: both stacks drop the parameters. */
CODE32(sum, "movl 8(%esp), %eax; addl 12(%esp), %eax; lret $8");
CODE32(ask, "pushl $30; pushl $12; lcall *(%ebx); movl %esp, %ecx; int3");
CODE32(ask_16, "pushw $30; pushw $12; lcall *(%ebx); movl %esp, %ecx; int3");
CODE32(sum_16, "movw 4(%esp), %ax; addw 6(%esp), %ax; lretw $4");

TEST(there_and_back)
{
    rings_setup();
    for (unsigned dpl = 0; dpl < 4; dpl++) {
        gdt[FREE(1) / 8] = descriptor(0, 0xfffff, D_CODE | FLAT | ATTR_DPL(dpl));
        gdt[FREE(0) / 8] = gate(FREE(1), (word)sum, D_CALL32 | D_DPL3, 2);
        struct context c = through(ask, FREE(0) | 3, 3);
        struct trap t = RUN(c);
        CHECK_EQ(t.vector, V_BP);
        CHECK_EQ(t.frame.rax, 42);
        CHECK_EQ(t.frame.rcx, c.rsp);
        CHECK_EQ(t.cs, SEL_UCODE);
        CHECK_EQ(t.ss, SEL_UDATA);
    }
    /* 16 bits: the caller must lie in the first 64 KiB of its segment, and so must its stack. */
    for (unsigned dpl = 0; dpl < 3; dpl++) {
        gdt[FREE(1) / 8] = descriptor((word)sum_16, 0xffff, D_CODE | D_BIG | ATTR_DPL(dpl));
        gdt[FREE(2) / 8] = descriptor((word)ask_16, 0xffff, D_CODE | D_BIG | D_DPL3);
        gdt[FREE(3) / 8] = descriptor((word)parameters, 0xffff, D_DATA | D_DPL3);
        gdt[FREE(0) / 8] = gate(FREE(1), 0, D_CALL16 | D_DPL3, 2);
        struct context c = through(ask_16, FREE(0) | 3, 3);
        c.rip = 0;
        c.cs = FREE(2) | 3;
        c.ss = FREE(3) | 3;
        c.rsp = 0x80;
        struct trap t = RUN(c);
        CHECK_EQ(t.vector, V_BP);
        CHECK_EQ(t.cs, FREE(2) | 3);
        CHECK_EQ(t.ss, FREE(3) | 3);
        CHECK_EQ(t.rsp & 0xffff, 0x80);
        CHECK_EQ(t.frame.rax & 0xffff, 42);
    }
}

/* ---- Inner stacks that are no good -------------------------------------------------------------
 */

static struct trap with_inner_stack(unsigned ss, uint32_t esp)
{
    uint32_t esp1 = tss[3], ss1 = tss[4];
    tss[3] = esp;
    tss[4] = ss;
    struct trap t = inner_call(D_CALL32, 1, 2);
    tss[3] = esp1;
    tss[4] = ss1;
    if (t.vector != V_BP) { /* everything as before the CALL */
        CHECK_EQ(t.rip, SYMBOL(call_here));
        CHECK_EQ(t.cs, SEL_UCODE);
        CHECK_EQ(t.rsp, (word)parameters);
        CHECK_EQ(t.ss, SEL_UDATA);
        CHECK_EQ(t.rflags & F_RF, F_RF); /* QEMU: clear */
    }
    return t;
}
#define CHECK_ERROR(t, vector_, error_)                                                            \
    do {                                                                                           \
        struct trap t_ = (t);                                                                      \
        CHECK_EQ(t_.vector, vector_);                                                              \
        CHECK_EQ(t_.error, error_);                                                                \
    } while (0)

TEST(bad_inner_stacks)
{
    static char room[256];
    const uint32_t esp = (word)room + 128;
    rings_setup();
    CHECK_EQ(with_inner_stack(ring_data(1), esp).vector, V_BP);
    CHECK_ERROR(with_inner_stack(0, esp), V_TS, 0);
    CHECK_ERROR(with_inner_stack(1, esp), V_TS, 0);
    CHECK_ERROR(with_inner_stack(0xfff9, esp), V_TS, 0xfff8);
    CHECK_ERROR(with_inner_stack(LDT_ENTRY(1) | 1, esp), V_TS, LDT_ENTRY(1));
    CHECK_ERROR(with_inner_stack(ring_data(1) & ~3u, esp), V_TS, ring_data(1) & ~3u); /* RPL */
    CHECK_ERROR(with_inner_stack(ring_data(2), esp), V_TS, ring_data(2) & ~3u);
    CHECK_ERROR(with_inner_stack(ring_code(1), esp), V_TS, ring_code(1) & ~3u);
    for (unsigned access = 0; access < 256; access++) {
        unsigned vector = V_BP;
        if ((access & 0x1a) != 0x12 || dpl_of(access) != 1)
            vector = V_TS;
        else if (!(access & D_PRESENT))
            vector = V_SS;
        else if (access & 4)
            continue; /* expand-down */
        gdt[FREE(3) / 8] = descriptor(0, 0xfffff, access | FLAT);
        CHECK_ERROR(with_inner_stack(FREE(3) | 1, esp), vector, vector == V_BP ? 0 : FREE(3));
    }
}

TEST(inner_stack_without_room)
{
    static char room[0x1000];
    rings_setup();
    gdt[FREE(3) / 8] = descriptor((word)room, 0xfff, D_DATA | D_BIG | ATTR_DPL(1));
    CHECK_EQ(with_inner_stack(FREE(3) | 1, 6 * 4).vector, V_BP);
    CHECK_ERROR(with_inner_stack(FREE(3) | 1, 6 * 4 - 1), V_SS, FREE(3)); /* QEMU: no limits */
    CHECK_ERROR(with_inner_stack(FREE(3) | 1, 4), V_SS, FREE(3));
    CHECK_ERROR(with_inner_stack(FREE(3) | 1, 0x1001), V_SS, FREE(3));
}

TEST(parameters_beyond_the_outer_stack)
{
    rings_setup();
    inner_call(D_CALL32, 1, 2);
    gdt[FREE(3) / 8] = descriptor((word)parameters, 8, D_DATA | D_BIG | D_DPL3);
    struct context c = through(call, FREE(0) | 3, 3);
    c.ss = FREE(3) | 3;
    c.rsp = 1;
    CHECK_EQ(RUN(c).vector, V_BP);
    c.rsp = 2; /* the second one crosses the limit */
    struct trap t = RUN(c);
    CHECK_TRAP(t, V_SS, 0, SYMBOL(call_here));
    CHECK_EQ(t.rsp, 2);
    CHECK_EQ(t.ss, FREE(3) | 3);
}

static void load_tr(uint64_t tss_descriptor)
{
    gdt[SEL_TSS / 8] = tss_descriptor;
    asm volatile("ltr %w0" ::"r"(SEL_TSS) : "memory");
}

TEST(tss_too_small_for_the_stack)
{
    rings_setup();
    load_tr(descriptor((word)tss, 4 + 8 + 5, D_TSS32)); /* ESP1 and SS1 just fit */
    struct trap t = inner_call(D_CALL32, 1, 0);
    CHECK_EQ(t.vector, V_BP);
    load_tr(descriptor((word)tss, 4 + 8 + 4, D_TSS32));
    t = inner_call(D_CALL32, 1, 0);
    CHECK_TRAP(t, V_TS, SEL_TSS, SYMBOL(call_here));
    load_tr(descriptor((word)tss, 103, D_TSS32));
}

TEST(inner_stack_out_of_a_16_bit_tss)
{
    static uint16_t tss16[22];
    const volatile uint16_t *sp = (const volatile uint16_t *)0x6f00;
    rings_setup();
    tss16[1] = 0x7000; /* flat, in the first 64 KiB: ESP gets SP with a clear upper half */
    tss16[2] = SEL_DATA;
    tss16[3] = 0x6f00 + 3 * 8;
    tss16[4] = ring_data(1);
    load_tr(descriptor((word)tss16, 43, D_TSS16));
    struct trap t = inner_call(D_CALL16, 1, 2);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.rsp, (word)sp + 12);
    CHECK_EQ(sp[6], SYMBOL(call_after) & 0xffff);
    CHECK_EQ(sp[11], SEL_UDATA);
    t = inner_call(D_CALL32, 1, 0); /* gate and TSS need not be of a size */
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.rsp, 0x6f00 + 8);
    load_tr(descriptor((word)tss16, 2 + 4 + 2, D_TSS16)); /* SS1's second byte is missing */
    t = inner_call(D_CALL16, 1, 0);
    CHECK_TRAP(t, V_TS, SEL_TSS, SYMBOL(call_here));
    load_tr(descriptor((word)tss, 103, D_TSS32));
}

const struct test guest_tests[] = {T(passage_of_32_bit_gates),
                                   T(passage_of_16_bit_gates),
                                   T(where_gates_lead),
                                   T(frame_of_32_bit_gates),
                                   T(frame_of_16_bit_gates),
                                   T(same_level_copies_no_parameters),
                                   T(inner_stack_of_16_bits),
                                   T(there_and_back),
                                   T(bad_inner_stacks),
                                   T(inner_stack_without_room),
                                   T(parameters_beyond_the_outer_stack),
                                   T(tss_too_small_for_the_stack),
                                   T(inner_stack_out_of_a_16_bit_tss),
                                   T(offsets_by_gate_size),
                                   {0, 0}};
