/*
 * delivery.c - delivery of interrupts and exceptions in 64-bit mode: IST, alignment of the stack,
 * change of privilege, and everything that can be wrong with a gate (SDM vol. 3, 6.11-6.14; vol. 2,
 * INT n).
 */
#include "context.h"

enum { GATE = 0x61, SEL_CODE64_DPL1 = FREE(0), SEL_BAD = FREE(1), NON_CANONICAL_RIP = 1 };
enum { D_CODE64 = D_CODE | D_LONG };
#define NON_CANONICAL 0x800000000000ull

static char stacks[8][4096] __attribute__((aligned(4096)));

/* What the handler saw: the end of the frame, which is where RSP began. */
static word frame_end, handler_ss, handler_ds, handler_flags;
static struct frame frame;
static bool note(struct frame *f)
{
    frame_end = (word)(f + 1);
    frame = *f;
    asm volatile("mov %%ss, %0; mov %%ds, %1" : "=r"(handler_ss), "=r"(handler_ds));
    handler_flags = read_flags();
    return true;
}

static word stub(unsigned vector)
{
    return (word)trap_stubs + 16 * vector;
}

static void set_tss(unsigned offset, word value)
{
    memcpy((char *)tss + offset, &value, 8);
}
static word get_tss(unsigned offset)
{
    word value;
    memcpy(&value, (char *)tss + offset, 8);
    return value;
}
enum { TSS_RSP0 = 4, TSS_RSP1 = 12, TSS_IST1 = 0x24 };

static void set_ist(unsigned n, word rsp)
{
    set_tss(TSS_IST1 + 8 * (n - 1), rsp);
}
static word stack_end(unsigned n)
{
    return (word)stacks[n] + sizeof stacks[n];
}

/* The test's gate as it should be. */
static void good_gate(unsigned vector, unsigned dpl)
{
    set_gate(vector, stub(vector), SEL_CODE, 14, dpl, 0);
}

asm(LABEL(user_int) "int $0x61\n" LABEL(user_int_next) "int $0x62");

/* ---- Stacks ---------------------------------------------------------------------------------- */

TEST(each_ist_gives_its_stack)
{
    trap_handlers[GATE] = note;
    for (unsigned n = 1; n <= 7; n++) {
        set_ist(n, stack_end(n) - n); /* whatever it is, it is rounded down to 16 */
        set_gate(GATE, stub(GATE), SEL_CODE, 14, 0, n);
        frame_end = 0;
        word rsp;
        asm volatile("mov %%rsp, %0; int $0x61" : "=&r"(rsp)::"memory");
        CHECK_EQ(frame_end, stack_end(n) - 16);
        CHECK_EQ(frame.rsp, rsp);
        CHECK_EQ(frame.ss, SEL_DATA);
        CHECK_EQ(handler_ss, SEL_DATA); /* the same level: SS stays */
    }
    good_gate(GATE, 0);
}

TEST(ist_is_for_one_vector_only)
{
    set_ist(3, stack_end(3));
    set_gate(GATE, stub(GATE), SEL_CODE, 14, 0, 3);
    set_gate(0x62, stub(0x62), SEL_CODE, 14, 0, 0);
    trap_handlers[GATE] = trap_handlers[0x62] = note;
    asm volatile("int $0x61" ::: "memory");
    CHECK_EQ(frame_end, stack_end(3));
    asm volatile("int $0x62" ::: "memory");
    CHECK(frame_end < (word)stacks || frame_end > stack_end(7));
    trap_handlers[0x62] = 0; /* ends what runs at CPL 3 from now on */
    set_gate(0x62, stub(0x62), SEL_CODE, 14, 3, 0);
    good_gate(GATE, 0);
}

TEST(rsp_is_aligned_before_the_frame)
{
    trap_handlers[GATE] = note;
    good_gate(GATE, 0);
    for (word off = 0; off < 16; off++) {
        word rsp = stack_end(1) - 64 + off, after;
        asm volatile("mov %%rsp, %%rbx; mov %1, %%rsp; int $0x61; mov %%rsp, %0; mov %%rbx, %%rsp"
                     : "=&r"(after)
                     : "r"(rsp)
                     : "rbx", "memory");
        CHECK_EQ(frame.rsp, rsp);
        CHECK_EQ(frame_end, rsp & ~15ull);
        CHECK_EQ(after, rsp); /* IRETQ takes RSP from the frame */
    }
    /* With an error code the frame is one item longer: RSP itself is aligned, not the handler's. */
    trap_handlers[V_GP] = 0;
    struct trap t = CATCH(asm volatile("mov %w0, %%ds" ::"r"(0x1f8)));
    CHECK_TRAP(t, V_GP, 0x1f8, t.rip);
}

/* From CPL 3: RSP0, SS null with RPL 0; the data segments stay (SDM vol. 3, 6.14.4). */
TEST(from_cpl_3_by_rsp0)
{
    word rsp0 = get_tss(TSS_RSP0);
    trap_handlers[GATE] = note;
    good_gate(GATE, 3);
    for (word off = 0; off < 16; off += 5) {
        set_tss(TSS_RSP0, stack_end(2) - off);
        struct context c = context_user(SYMBOL(user_int));
        c.rsp -= 3;
        c.rflags = 2 | F_CF | F_IF;
        struct trap t = RUN(c);
        CHECK_TRAP(t, 0x62, 0, SYMBOL(user_int_next) + 2);
        CHECK_EQ(frame_end, (stack_end(2) - off) & ~15ull);
        CHECK_EQ(frame.rip, SYMBOL(user_int_next));
        CHECK_EQ(frame.cs, SEL_UCODE);
        CHECK_EQ(frame.ss, SEL_UDATA);
        CHECK_EQ(frame.rsp, c.rsp);
        CHECK_EQ(frame.rflags, 2 | F_CF | F_IF);
        CHECK_EQ(handler_ss, 0);
        CHECK_EQ(handler_ds, SEL_UDATA);
        CHECK_EQ(t.rsp, c.rsp); /* IRETQ in between brought everything back */
        CHECK_EQ(t.ss, SEL_UDATA);
        CHECK_EQ(t.rflags, 2 | F_CF | F_IF);
    }
    set_tss(TSS_RSP0, rsp0);
}

/* A handler at CPL 1 gets RSP1 and a null SS of RPL 1. */
TEST(to_cpl_1_by_rsp1)
{
    gdt[SEL_CODE64_DPL1 / 8] = descriptor(0, 0xfffff, D_CODE64 | 0x20 | D_PAGES);
    set_tss(TSS_RSP1, stack_end(4) - 7);
    set_gate(GATE, stub(GATE), SEL_CODE64_DPL1, 14, 3, 0);
    trap_handlers[GATE] = note;
    struct trap t = RUN(context_user(SYMBOL(user_int)));
    CHECK_TRAP(t, 0x62, 0, SYMBOL(user_int_next) + 2);
    CHECK_EQ(frame_end, stack_end(4) - 16);
    CHECK_EQ(handler_ss, 1);
    good_gate(GATE, 3);
}

/* A conforming handler runs at the caller's level, on the caller's stack. */
TEST(conforming_handler_keeps_the_level)
{
    gdt[SEL_BAD / 8] = descriptor(0, 0xfffff, D_CONFORMING | D_LONG | D_PAGES);
    set_gate(GATE, stub(GATE), SEL_BAD, 14, 3, 0);
    trap_handlers[GATE] = note;
    struct context c = context_user(SYMBOL(user_int));
    struct trap t = RUN(c);
    CHECK_TRAP(t, 0x62, 0, SYMBOL(user_int_next) + 2);
    CHECK_EQ(frame_end, c.rsp & ~15ull);
    CHECK_EQ(handler_ss, SEL_UDATA);
    good_gate(GATE, 3);
}

/* ---- Flags ----------------------------------------------------------------------------------- */

/* TF, NT, RF and, by an interrupt gate only, IF are cleared; AC and the rest stay. */
TEST(flags_in_the_handler)
{
    trap_handlers[GATE] = note;
    for (unsigned type = 14; type <= 15; type++) {
        set_gate(GATE, stub(GATE), SEL_CODE, type, 3, 0);
        struct context c = context_user(SYMBOL(user_int));
        c.rflags = 2 | F_IF | F_NT | F_AC | F_IOPL3 | F_RF | F_DF;
        struct trap t = RUN(c);
        CHECK_EQ(t.vector, 0x62);
        /* RF is over when the INT has run (17.3.1.1). */
        CHECK_EQ(frame.rflags, 2 | F_IF | F_NT | F_AC | F_IOPL3 | F_DF);
        CHECK_EQ(handler_flags & (F_IF | F_NT | F_AC | F_IOPL3),
                 F_AC | F_IOPL3 | (type == 15 ? F_IF : 0));
    }
    asm volatile("pushf; andl $~0x47400, (%rsp); popf"); /* not the tests' own */
    good_gate(GATE, 0);
}

/* ---- Gates ----------------------------------------------------------------------------------- */

static const struct gate_case {
    const char *what;
    unsigned selector, type, present, dpl;
    unsigned flags; /* NON_CANONICAL_RIP */
    unsigned attr;  /* of the segment SEL_BAD */
    unsigned vector, error, names_gate;
} gate_cases[] = {
    {"not present", SEL_CODE, 14, 0, 0, 0, 0, V_NP, 0, 1},
    {"type 0", SEL_CODE, 0, 1, 0, 0, 0, V_GP, 0, 1},
    {"LDT", SEL_CODE, 2, 1, 0, 0, 0, V_GP, 0, 1},
    {"task gate", SEL_CODE, 5, 1, 0, 0, 0, V_GP, 0, 1},
    {"16-bit interrupt gate", SEL_CODE, 6, 1, 0, 0, 0, V_GP, 0, 1},
    {"16-bit trap gate", SEL_CODE, 7, 1, 0, 0, 0, V_GP, 0, 1},
    {"TSS", SEL_CODE, 9, 1, 0, 0, 0, V_GP, 0, 1},
    {"call gate", SEL_CODE, 12, 1, 0, 0, 0, V_GP, 0, 1},
    {"type before presence", SEL_CODE, 12, 0, 0, 0, 0, V_GP, 0, 1},
    {"S = 1", SEL_CODE, 0x1e, 1, 0, 0, 0, V_GP, 0, 1},
    {"null selector", 0, 14, 1, 0, 0, 0, V_GP, 0, 0},
    {"null selector with RPL 3", 3, 14, 1, 0, 0, 0, V_GP, 0, 0},
    {"beyond the GDT", 0x1000, 14, 1, 0, 0, 0, V_GP, 0x1000, 0},
    {"LDT, none loaded", 0x0c, 14, 1, 0, 0, 0, V_GP, 0x0c, 0},
    {"data segment", SEL_DATA, 14, 1, 0, 0, 0, V_GP, SEL_DATA, 0},
    {"system segment", SEL_TSS, 14, 1, 0, 0, 0, V_GP, SEL_TSS, 0},
    {"32-bit code", SEL_CODE32, 14, 1, 0, 0, 0, V_GP, SEL_CODE32, 0},
    {"RPL is no matter", SEL_CODE32 | 3, 14, 1, 0, 0, 0, V_GP, SEL_CODE32, 0},
    {"16-bit code", SEL_CODE16, 14, 1, 0, 0, 0, V_GP, SEL_CODE16, 0},
    {"less privileged code", SEL_UCODE64, 14, 1, 0, 0, 0, V_GP, SEL_UCODE64 & ~3, 0},
    {"less privileged conforming code", SEL_BAD, 14, 1, 0, 0, (D_CONFORMING | 0x60) | D_LONG, V_GP,
     SEL_BAD, 0},
    {"L and D", SEL_BAD, 14, 1, 0, 0, D_CODE64 | D_BIG, V_GP, SEL_BAD, 0},
    {"code not present", SEL_BAD, 14, 1, 0, 0, D_CODE64 & ~D_PRESENT, V_NP, SEL_BAD, 0},
    {"data not present", SEL_BAD, 14, 1, 0, 0, D_DATA & ~D_PRESENT, V_GP, SEL_BAD, 0},
    {"handler at a non-canonical address", SEL_CODE, 14, 1, 0, NON_CANONICAL_RIP, 0, V_GP, 0, 0},
};

static void set_bad_gate(unsigned vector, const struct gate_case *g)
{
    if (g->attr)
        gdt[SEL_BAD / 8] = descriptor(0, 0xfffff, g->attr | D_PAGES);
    set_gate(vector, g->flags & NON_CANONICAL_RIP ? NON_CANONICAL : stub(vector), g->selector,
             g->type, g->dpl, 0);
    if (!g->present)
        idt[vector].word[1] &= ~0x8000u;
}

static void check_gate(const struct gate_case *g, struct trap t, unsigned gate, unsigned ext,
                       word rip)
{
    word error = (g->names_gate ? gate * 8 + 2 : g->error) | ext;
    if (t.vector != g->vector || t.error != error || t.rip != rip)
        print("  %s, gate %x:\n", g->what, gate);
    CHECK_TRAP(t, g->vector, error, rip);
    CHECK_EQ(t.rflags & F_RF, F_RF);
}

/* Met by INT n: a fault of the INT itself, EXT = 0. */
TEST(bad_gates_of_int_n)
{
    asm volatile("lldt %w0" ::"r"(0));
    for (volatile unsigned i = 0; i < sizeof gate_cases / sizeof gate_cases[0]; i++) {
        set_bad_gate(GATE, &gate_cases[i]);
        struct trap t = CATCH(asm volatile(LABEL(int_bad) "int $0x61"));
        check_gate(&gate_cases[i], t, GATE, 0, SYMBOL(int_bad));
    }
    good_gate(GATE, 0);
}

/* Met by an exception, which is benign here: delivered instead of it, EXT = 1. */
TEST(bad_gates_of_exceptions)
{
    for (volatile unsigned i = 0; i < sizeof gate_cases / sizeof gate_cases[0]; i++) {
        set_bad_gate(V_UD, &gate_cases[i]);
        struct trap t = CATCH(asm volatile(LABEL(ud_bad) "ud2"));
        check_gate(&gate_cases[i], t, V_UD, 1, SYMBOL(ud_bad));
    }
    good_gate(V_UD, 0);
}

/* Met by an external interrupt: EXT = 1, and the interrupted instruction has not begun. */
TEST(bad_gates_of_interrupts)
{
    mmio_write32(0xfee000f0, 0x1ff);
    for (volatile unsigned i = 0; i < sizeof gate_cases / sizeof gate_cases[0]; i++) {
        set_bad_gate(GATE, &gate_cases[i]);
        mmio_write32(0xfee00300, 0x44000 | GATE);
        struct trap t = CATCH(asm volatile("sti; nop\n" LABEL(intr_bad) "nop; nop; cli"));
        asm volatile("cli");
        check_gate(&gate_cases[i], t, GATE, 1, SYMBOL(intr_bad));
        mmio_write32(0xfee000b0, 0);
    }
    good_gate(GATE, 0);
}

/* INT3 is software (EXT = 0), INT1 is not (SDM vol. 3, 6.13). */
TEST(ext_of_int3_and_int1)
{
    set_gate(V_BP, stub(V_BP), SEL_DATA, 14, 0, 0);
    struct trap t = CATCH(asm volatile(LABEL(int3_bad) "int3"));
    CHECK_TRAP(t, V_GP, SEL_DATA, SYMBOL(int3_bad));
    set_gate(V_BP, stub(V_BP), SEL_CODE, 12, 0, 0);
    t = CATCH(asm volatile(LABEL(int3_type) "int3"));
    CHECK_TRAP(t, V_GP, V_BP * 8 + 2, SYMBOL(int3_type));
    good_gate(V_BP, 3);
    set_gate(V_DB, stub(V_DB), SEL_DATA, 14, 0, 0);
    t = CATCH(asm volatile(LABEL(int1_bad) ".byte 0xf1"));
    CHECK_EQ(t.vector, V_GP);
    CHECK_EQ(t.error, SEL_DATA | 1);
    good_gate(V_DB, 0);
}

/* ---- The gate's DPL -------------------------------------------------------------------------- */

asm(LABEL(user_int3) "int3\n" LABEL(user_int3_next) "nop");
asm(LABEL(user_int1) ".byte 0xf1\n" LABEL(user_int1_next) "nop");
asm(LABEL(user_ud) "ud2");

TEST(gate_dpl_is_for_int_n_and_int3)
{
    good_gate(GATE, 0);
    struct trap t = RUN(context_user(SYMBOL(user_int)));
    CHECK_TRAP(t, V_GP, GATE * 8 + 2, SYMBOL(user_int));
    CHECK_EQ(t.cs, SEL_UCODE);
    CHECK_EQ(t.rflags & F_RF, F_RF);
    idt[GATE].word[1] &= ~0x8000u; /* DPL comes before presence */
    CHECK_TRAP(RUN(context_user(SYMBOL(user_int))), V_GP, GATE * 8 + 2, SYMBOL(user_int));
    good_gate(GATE, 3);
    idt[GATE].word[1] &= ~0x8000u;
    CHECK_TRAP(RUN(context_user(SYMBOL(user_int))), V_NP, GATE * 8 + 2, SYMBOL(user_int));
    good_gate(V_BP, 0);
    CHECK_TRAP(RUN(context_user(SYMBOL(user_int3))), V_GP, V_BP * 8 + 2, SYMBOL(user_int3));
    good_gate(V_BP, 3);
    CHECK_TRAP(RUN(context_user(SYMBOL(user_int3))), V_BP, 0, SYMBOL(user_int3_next));
    good_gate(V_DB, 0); /* INT1 and exceptions pass whatever it is */
    CHECK_TRAP(RUN(context_user(SYMBOL(user_int1))), V_DB, 0, SYMBOL(user_int1_next));
    CHECK_TRAP(RUN(context_user(SYMBOL(user_ud))), V_UD, 0, SYMBOL(user_ud));
    good_gate(GATE, 0);
}

/* ---- Limits ---------------------------------------------------------------------------------- */

static void load_idt(unsigned limit)
{
    struct __attribute__((packed)) {
        uint16_t limit;
        word base;
    } idtr = {(uint16_t)limit, (word)idt};
    asm volatile("lidt %0" ::"m"(idtr));
}
static void load_gdt(unsigned limit)
{
    struct __attribute__((packed)) {
        uint16_t limit;
        word base;
    } gdtr = {(uint16_t)limit, (word)gdt};
    asm volatile("lgdt %0" ::"m"(gdtr));
}

TEST(all_16_bytes_within_the_idt)
{
    trap_handlers[GATE] = 0;
    load_idt(GATE * 16 + 15);
    struct trap t = CATCH(asm volatile("int $0x61\n" LABEL(idt_enough) "nop"));
    CHECK_TRAP(t, GATE, 0, SYMBOL(idt_enough));
    load_idt(GATE * 16 + 14);
    t = CATCH(asm volatile(LABEL(idt_short) "int $0x61"));
    CHECK_TRAP(t, V_GP, GATE * 8 + 2, SYMBOL(idt_short));
    load_idt(GATE * 16 + 7);
    t = CATCH(asm volatile(LABEL(idt_shorter) "int $0x61"));
    CHECK_TRAP(t, V_GP, GATE * 8 + 2, SYMBOL(idt_shorter));
    load_idt(20 * 16 - 1);
    mmio_write32(0xfee000f0, 0x1ff);
    mmio_write32(0xfee00300, 0x44000 | GATE);
    t = CATCH(asm volatile("sti; nop\n" LABEL(idt_intr) "nop; nop; cli"));
    asm volatile("cli");
    CHECK_TRAP(t, V_GP, GATE * 8 + 3, SYMBOL(idt_intr));
    mmio_write32(0xfee000b0, 0);
    load_idt(sizeof idt - 1);
}

TEST(code_segment_beyond_the_gdt)
{
    gdt[31] = descriptor(0, 0xfffff, D_CODE64 | D_PAGES);
    set_gate(GATE, stub(GATE), 31 * 8, 14, 0, 0);
    load_gdt(31 * 8 + 7);
    struct trap t = CATCH(asm volatile("int $0x61\n" LABEL(gdt_enough) "nop"));
    CHECK_TRAP(t, GATE, 0, SYMBOL(gdt_enough));
    asm volatile("pushq %0; lea 1f(%%rip), %%rax; push %%rax; lretq; 1:" ::"i"(SEL_CODE) : "rax");
    load_gdt(31 * 8 + 6);
    t = CATCH(asm volatile(LABEL(gdt_short) "int $0x61"));
    CHECK_TRAP(t, V_GP, 31 * 8, SYMBOL(gdt_short));
    load_gdt(32 * 8 - 1);
    good_gate(GATE, 0);
}

/* ---- The TSS --------------------------------------------------------------------------------- */

static void load_tr(unsigned limit)
{
    uint64_t d = gdt[SEL_TSS / 8] & ~(0xf00000000ffffull | 2ull << 40);
    gdt[SEL_TSS / 8] = d | limit;
    asm volatile("ltr %w0" ::"r"(SEL_TSS));
}

TEST(stack_pointer_beyond_the_tss)
{
    set_ist(7, stack_end(7));
    set_gate(GATE, stub(GATE), SEL_CODE, 14, 0, 7);
    trap_handlers[GATE] = 0;
    load_tr(0x5b);
    struct trap t = CATCH(asm volatile("int $0x61\n" LABEL(tss_enough) "nop"));
    CHECK_TRAP(t, GATE, 0, SYMBOL(tss_enough));
    load_tr(0x5a); /* the last byte of IST7 is missing */
    t = CATCH(asm volatile(LABEL(tss_short) "int $0x61"));
    CHECK_TRAP(t, V_TS, SEL_TSS, SYMBOL(tss_short));
    set_gate(V_UD, stub(V_UD), SEL_CODE, 14, 0, 7);
    t = CATCH(asm volatile(LABEL(tss_short_ud) "ud2"));
    CHECK_TRAP(t, V_TS, SEL_TSS | 1, SYMBOL(tss_short_ud));
    good_gate(V_UD, 0);
    good_gate(GATE, 0);
    load_tr(103);
}

/* ---- Non-canonical stacks -------------------------------------------------------------------- */

TEST(non_canonical_stack_pointer)
{
    struct trap t;
    trap_handlers[GATE] = 0;
    set_ist(1, stack_end(1));
    set_gate(V_SS, stub(V_SS), SEL_CODE, 14, 0, 1);
    set_ist(2, NON_CANONICAL + 0x1000);
    set_gate(GATE, stub(GATE), SEL_CODE, 14, 0, 2);
    t = CATCH(asm volatile(LABEL(ist_bad) "int $0x61"));
    CHECK_TRAP(t, V_SS, 0, SYMBOL(ist_bad));
    set_gate(V_UD, stub(V_UD), SEL_CODE, 14, 0, 2);
    t = CATCH(asm volatile(LABEL(ist_bad_ud) "ud2"));
    CHECK_TRAP(t, V_SS, 1, SYMBOL(ist_bad_ud));
    /* RSP0 is read only on the way from CPL 3. */
    word rsp0 = get_tss(TSS_RSP0);
    set_tss(TSS_RSP0, NON_CANONICAL + 0x1000);
    good_gate(V_UD, 0);
    CHECK_EQ(CATCH(asm volatile("ud2")).vector, V_UD);
    t = RUN(context_user(SYMBOL(user_ud)));
    CHECK_TRAP(t, V_SS, 1, SYMBOL(user_ud));
    CHECK_EQ(t.cs, SEL_UCODE);
    CHECK_EQ(t.ss, SEL_UDATA);
    set_tss(TSS_RSP0, rsp0);
    /* The running stack itself, at CPL 0. RSP goes into the image as it was. */
    good_gate(GATE, 0);
    t = CATCH(asm volatile("mov %0, %%rsp\n" LABEL(rsp_bad) "int $0x61" ::"r"(NON_CANONICAL + 64)
                           : "memory"));
    CHECK_TRAP(t, V_SS, 0, SYMBOL(rsp_bad));
    CHECK_EQ(t.rsp, NON_CANONICAL + 64);
    good_gate(V_SS, 0);
}

const struct test guest_tests[] = {T(each_ist_gives_its_stack),
                                   T(ist_is_for_one_vector_only),
                                   T(rsp_is_aligned_before_the_frame),
                                   T(from_cpl_3_by_rsp0),
                                   T(to_cpl_1_by_rsp1),
                                   T(conforming_handler_keeps_the_level),
                                   T(flags_in_the_handler),
                                   T(bad_gates_of_int_n),
                                   T(bad_gates_of_exceptions),
                                   T(bad_gates_of_interrupts),
                                   T(ext_of_int3_and_int1),
                                   T(gate_dpl_is_for_int_n_and_int3),
                                   T(all_16_bytes_within_the_idt),
                                   T(code_segment_beyond_the_gdt),
                                   T(stack_pointer_beyond_the_tss),
                                   T(non_canonical_stack_pointer),
                                   {0, 0}};
