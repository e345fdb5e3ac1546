/*
 * real.c - real mode: the interrupt table, limits and wraps at 64 KiB, flags by IRET and POPF, far
 * transfers, "unreal" limits, A20 (SDM vol. 3, 20.1; vol. 2, INT n, IRET, POPF).
 *
 * QEMU's TCG checks no segment limits and lets LOCK MOV run: it fails undefined_encodings,
 * accesses_across_64k, second_parts_wrap, ip_does_not_wrap, limits_survive, far_transfers (the last
 * check), and never ends stack_items_across_64k.
 */
#include "real.h"

#define FLAGS_FIXED 2u

/* ---- Interrupts --------------------------------------------------------------------------------
 */

CODE16(int_n, "int $0x41\n" LABEL(int_n_after) "nop");

TEST(int_pushes_flags_cs_ip)
{
    struct real_regs r = real_default();
    r.eflags = 2 | F_CF | F_ZF | F_DF | F_IF | F_AC | F_NT | F_IOPL3;
    struct real_trap t = RUN16(int_n, r);
    CHECK_EQ(t.vector, 0x41);
    CHECK_EQ(t.ip, OFFSET16(int_n, int_n_after));
    CHECK_EQ(t.cs, REAL_CODE);
    CHECK_EQ(t.flags, 2 | F_CF | F_ZF | F_DF | F_IF | F_NT | F_IOPL3);
    CHECK_EQ(t.regs.esp, 0x1000 - 6);
    /* IF, TF and AC go off, the others stay: NT too, unlike in protected mode. */
    CHECK_EQ(t.regs.eflags, 2 | F_CF | F_ZF | F_DF | F_NT | F_IOPL3);
}

CODE16(step,
       "pushf; orw $0x100, %ss:0xffe; popf\n" LABEL(step_first) "nop\n" LABEL(step_next) "nop");

TEST(single_step)
{
    struct real_trap t = RUN16(step, real_default());
    CHECK_EQ(t.vector, V_DB);
    CHECK_EQ(t.ip, OFFSET16(step, step_next));
    CHECK_EQ(t.flags & F_TF, F_TF);
    CHECK_EQ(t.regs.eflags & F_TF, 0);
}

CODE16(divide, "nop\n" LABEL(divide_here) "div %cl");
CODE16(aam_0, "nop\n" LABEL(aam_here) "aam $0");
CODE16(bound, "movw $1, 0; movw $5, 2; movw $6, %ax\n" LABEL(bound_here) "boundw %ax, 0");
CODE16(into, "movb $0x7f, %al; addb $1, %al; into\n" LABEL(into_after) "nop");
CODE16(three, "int3\n" LABEL(three_after) "nop");

TEST(exceptions_of_instructions)
{
    struct real_trap t = RUN16(divide, real_default());
    CHECK_EQ(t.vector, V_DE);
    CHECK_EQ(t.ip, OFFSET16(divide, divide_here));
    CHECK_EQ(t.regs.esp, 0x1000 - 6); /* no error codes in real mode */
    t = RUN16(aam_0, real_default());
    CHECK_EQ(t.vector, V_DE);
    CHECK_EQ(t.ip, OFFSET16(aam_0, aam_here));
    t = RUN16(bound, real_default());
    CHECK_EQ(t.vector, V_BR);
    CHECK_EQ(t.ip, OFFSET16(bound, bound_here));
    t = RUN16(into, real_default());
    CHECK_EQ(t.vector, V_OF);
    CHECK_EQ(t.ip, OFFSET16(into, into_after));
    t = RUN16(three, real_default());
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.ip, OFFSET16(three, three_after));
}

/* Each at offset 1, behind a NOP. */
static const struct {
    const char *name;
    uint8_t code[8];
} undefined[] = {
    {"ud2", {0x0f, 0x0b}},
    {"ud1", {0x0f, 0xb9, 0xc0}},
    {"lock mov", {0xf0, 0x89, 0x07}}, /* QEMU: runs */
    {"lock add ax, ax", {0xf0, 0x01, 0xc0}},
    {"lock nop", {0xf0, 0x90}},
    {"mov cs, ax", {0x8e, 0xc8}},
    {"lea ax, ax", {0x8d, 0xc0}},
    {"les with a register", {0xc4, 0xc0}},
    {"bound with a register", {0x62, 0xc0}},
    {"arpl", {0x63, 0xc0}},
    {"sldt", {0x0f, 0x00, 0xc0}},
    {"str", {0x0f, 0x00, 0xc8}},
    {"lldt", {0x0f, 0x00, 0xd0}},
    {"ltr", {0x0f, 0x00, 0xd8}},
    {"verr", {0x0f, 0x00, 0xe0}},
    {"verw", {0x0f, 0x00, 0xe8}},
    {"lar", {0x0f, 0x02, 0xc0}},
    {"lsl", {0x0f, 0x03, 0xc0}},
    {"rsm", {0x0f, 0xaa}},
    {"mov cr1", {0x0f, 0x20, 0xc8}},
    {"jmp far with a register", {0xff, 0xe8}},
    {"ff /7", {0xff, 0xf8}},
};

TEST(undefined_encodings)
{
    for (unsigned i = 0; i < sizeof(undefined) / sizeof(undefined[0]); i++) {
        uint8_t *at = (uint8_t *)(REAL_CODE << 4);
        memset(at, 0xcc, 16);
        at[0] = 0x90;
        unsigned len = 8;
        while (!undefined[i].code[len - 1])
            len--;
        memcpy(at + 1, undefined[i].code, len);
        struct real_trap t = real_run(real_default());
        if (t.vector != V_UD || t.ip != 1)
            print("  %s: vector %u, ip %x\n", undefined[i].name, t.vector, t.ip);
        CHECK_EQ(t.vector, V_UD);
        CHECK_EQ(t.ip, 1);
    }
}

CODE16(too_long, "nop; .fill 15, 1, 0x3e; nop");

TEST(instructions_of_16_bytes)
{
    struct real_trap t = RUN16(too_long, real_default());
    CHECK_EQ(t.vector, V_GP);
    CHECK_EQ(t.ip, 1);
}

TEST(idt_limit)
{
    real_idtr.limit = 0x41 * 4 + 2; /* one byte too few */
    struct real_trap t = RUN16(int_n, real_default());
    CHECK_EQ(t.vector, V_GP);
    CHECK_EQ(t.ip, 0);
    CHECK_EQ(t.regs.esp, 0x1000 - 6);
    real_idtr.limit = 0x41 * 4 + 3;
    CHECK_EQ(RUN16(int_n, real_default()).vector, 0x41);
    real_idtr.limit = 0x3ff;
}

TEST(idt_base)
{
    real_idtr.base = 0x50000;
    /* real_run() fills the table at 0: this one has 42h's stub for 41h. */
    uint32_t stub = real_low(real_stubs) + 16 * 0x42;
    memcpy((void *)(0x50000 + 4 * 0x41), &stub, 4);
    CHECK_EQ(RUN16(int_n, real_default()).vector, 0x42);
    real_idtr.base = 0;
}

/* ---- 64 KiB ------------------------------------------------------------------------------------
 */

CODE16(load_word, LABEL(load_word_here) "movw (%bx), %ax; int3");
CODE16(store_word, "movw %ax, (%bx); int3");
CODE16(load_byte, "movb (%bx), %al; int3");
CODE16(load_long, "movl (%bx), %eax; int3");
CODE16(load_wide, "movb (%ebx), %al; int3");
CODE16(load_stack, LABEL(load_stack_here) "movw %ss:(%bx), %ax; int3");
CODE16(load_bp, "movw (%bp), %ax; int3");
CODE16(load_sum, "movb 0x10(%bx), %al; int3");
CODE16(move_word, "movsw; int3");
CODE16(move_byte, "movsb; int3");

#define AT_OFFSET(name, bx)                                                                        \
    ({                                                                                             \
        struct real_regs r_ = real_default();                                                      \
        r_.ebx = r_.ebp = r_.esi = (bx);                                                           \
        RUN16(name, r_);                                                                           \
    })

TEST(accesses_across_64k)
{
    struct real_trap t = AT_OFFSET(load_word, 0xffff);
    CHECK_EQ(t.vector, V_GP);
    CHECK_EQ(t.ip, 0);
    CHECK_EQ(AT_OFFSET(load_word, 0xfffe).vector, V_BP);
    CHECK_EQ(AT_OFFSET(store_word, 0xffff).vector, V_GP);
    CHECK_EQ(AT_OFFSET(load_byte, 0xffff).vector, V_BP);
    CHECK_EQ(AT_OFFSET(load_long, 0xfffd).vector, V_GP);
    CHECK_EQ(AT_OFFSET(load_long, 0xfffc).vector, V_BP);
    CHECK_EQ(AT_OFFSET(load_wide, 0xffff).vector, V_BP);
    CHECK_EQ(AT_OFFSET(load_wide, 0x10000).vector, V_GP);
    CHECK_EQ(AT_OFFSET(load_wide, 0xffffffff).vector, V_GP);
    t = AT_OFFSET(load_stack, 0xffff);
    CHECK_EQ(t.vector, V_SS);
    CHECK_EQ(t.ip, 0);
    CHECK_EQ(AT_OFFSET(load_bp, 0xffff).vector, V_SS); /* SS by default */
    CHECK_EQ(AT_OFFSET(move_word, 0xffff).vector, V_GP);
}

TEST(sixteen_bit_addresses_wrap)
{
    ((uint8_t *)(REAL_DATA << 4))[0x0f] = 0x5a;
    CHECK_EQ(AT_OFFSET(load_sum, 0xffff).regs.eax & 0xff, 0x5a);
    struct real_trap t = AT_OFFSET(move_byte, 0xffff);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.regs.esi, 0); /* SI alone wraps */
}

CODE16(load_far, "les (%bx), %dx; int3");
CODE16(jump_far, "ljmpw *(%bx)");
CODE16(bound_at, LABEL(bound_at_here) "boundw %ax, (%bx); int3");

/* Far pointers and the bounds of BOUND are two accesses, each with an address of 16 bits. */
TEST(second_parts_wrap)
{
    volatile uint16_t *first = (volatile uint16_t *)((REAL_DATA << 4) + 0xfffe);
    volatile uint16_t *second = (volatile uint16_t *)(REAL_DATA << 4);
    *first = 0x1234;
    *second = REAL_STACK;
    struct real_trap t = AT_OFFSET(load_far, 0xfffe);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.regs.edx & 0xffff, 0x1234);
    CHECK_EQ(t.regs.es, REAL_STACK);
    CHECK_EQ(AT_OFFSET(load_far, 0xffff).vector, V_GP);
    *(volatile uint8_t *)((REAL_STACK << 4) + 0x1234) = 0xcc;
    t = AT_OFFSET(jump_far, 0xfffe);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.cs, REAL_STACK);
    CHECK_EQ(t.ip, 0x1235);
    *first = 0;
    *second = 5;
    struct real_regs r = real_default();
    r.ebx = 0xfffe;
    r.eax = 5;
    CHECK_EQ(RUN16(bound_at, r).vector, V_BP);
    r.eax = 6;
    t = RUN16(bound_at, r);
    CHECK_EQ(t.vector, V_BR);
    CHECK_EQ(t.ip, OFFSET16(bound_at, bound_at_here));
}

/* Two bytes of code at the end of the segment, run from `ip`. */
static struct real_trap at_end(uint8_t first, uint8_t second, unsigned ip)
{
    uint8_t *end = (uint8_t *)(REAL_CODE << 4) + 0xfffe;
    end[0] = first;
    end[1] = second;
    end[2] = 0xcc; /* what lies behind the limit, and what lies at 0 */
    *(volatile uint8_t *)(REAL_CODE << 4) = 0xcc;
    struct real_regs r = real_default();
    r.eip = ip;
    return real_run(r);
}

TEST(ip_does_not_wrap)
{
    struct real_trap t = at_end(0x90, 0x90, 0xfffe); /* NOP, NOP, and on */
    CHECK_EQ(t.vector, V_GP);
    CHECK_EQ(t.ip, 0);              /* IP of 10000h, cut */
    t = at_end(0x90, 0xb0, 0xffff); /* MOV AL, imm8 across the limit */
    CHECK_EQ(t.vector, V_GP);
    CHECK_EQ(t.ip, 0xffff);
    t = at_end(0xeb, 0x00, 0xfffe); /* a branch does: its target is cut to 16 bits */
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.ip, 1);
}

/* ---- Stacks ------------------------------------------------------------------------------------
 */

CODE16(push_word, "pushw $0x1234; int3");
CODE16(push_long, LABEL(push_long_here) "pushl $0x12345678; int3");
CODE16(pop_word, LABEL(pop_word_here) "popw %ax; int3");
CODE16(pop_long, LABEL(pop_long_here) "popl %eax; int3");
CODE16(ret_near, LABEL(ret_near_here) "ret");
CODE16(enter_leave, "enterw $8, $0; leavew; int3");

static struct real_trap with_sp(const char *code, const char *end, uint32_t esp)
{
    memcpy((void *)(REAL_CODE << 4), code, (size_t)(end - code));
    struct real_regs r = real_default();
    r.esp = esp;
    return real_run(r);
}
#define WITH_SP(name, esp) with_sp(name, name##_end, esp)

TEST(stack_pointer_wraps)
{
    volatile uint16_t *stack = (uint16_t *)(REAL_STACK << 4);
    struct real_trap t = WITH_SP(push_word, 0x56780000);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.regs.esp, 0x5678fff8); /* the upper half stays; INT3 has pushed 6 bytes */
    CHECK_EQ(stack[0xfffe / 2], 0x1234);
    stack[0xfffe / 2] = 0x4321;
    t = WITH_SP(pop_word, 0xfffe);
    CHECK_EQ(t.regs.eax & 0xffff, 0x4321);
    CHECK_EQ(t.regs.esp, 0xfffa); /* 0 after the POP */
    t = WITH_SP(enter_leave, 0x9abc0004);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.regs.esp, 0x9abcfffe);
    t = WITH_SP(int_n, 0x0004); /* the frame wraps in the middle */
    CHECK_EQ(t.vector, 0x41);
    CHECK_EQ(t.regs.esp, 0xfffe);
    CHECK_EQ(stack[0xfffe / 2], OFFSET16(int_n, int_n_after));
    CHECK_EQ(stack[0], REAL_CODE);
}

TEST(stack_items_across_64k)
{
    struct real_trap t = WITH_SP(push_long, 0x2);
    CHECK_EQ(t.vector, V_SS);
    CHECK_EQ(t.ip, 0);
    CHECK_EQ(t.regs.esp, 0xfffc); /* unmoved by the PUSH */
    t = WITH_SP(pop_word, 0xffff);
    CHECK_EQ(t.vector, V_SS);
    CHECK_EQ(t.ip, 0);
    t = WITH_SP(pop_long, 0xfffe);
    CHECK_EQ(t.vector, V_SS);
    t = WITH_SP(ret_near, 0xffff);
    CHECK_EQ(t.vector, V_SS);
    CHECK_EQ(t.ip, 0);
}

/* ---- Far transfers -----------------------------------------------------------------------------
 */

CODE16(far_call, "lcallw $0x2100, $0x20\n" LABEL(far_call_after) "nop");
CODE16(far_call_long, "lcalll $0x2100, $0x20\n" LABEL(far_call_long_after) "nop");
CODE16(far_jump, "ljmpw $0x2100, $0x20");
CODE16(far_jump_beyond, "nop; ljmpl $0x2100, $0x10000");
CODE16(far_return, "pushw $0x2100; pushw $0x20; lretw $4");
CODE16(far_return_long, "pushl $0x12342100; pushl $0x20; lretl");
CODE16(load_pointer,
       "movl $0xabcd1234, 0; lesw 0, %di; lssw 0, %sp; movw $0x3000, %ax; movw %ax, %ss;"
       "movw $0x800, %sp; int3");

TEST(far_transfers)
{
    uint8_t *target = (uint8_t *)0x21020;
    struct real_trap t;
    const volatile uint16_t *stack = (const volatile uint16_t *)(REAL_STACK << 4);
    *(volatile uint8_t *)target = 0xcc;
    t = RUN16(far_call, real_default());
    CHECK_EQ(t.cs, 0x2100);
    CHECK_EQ(t.ip, 0x21);
    CHECK_EQ(t.regs.esp, 0x1000 - 4 - 6);
    CHECK_EQ(stack[0xffe / 2], REAL_CODE);
    CHECK_EQ(stack[0xffc / 2], OFFSET16(far_call, far_call_after));
    t = RUN16(far_call_long, real_default());
    CHECK_EQ(t.cs, 0x2100);
    CHECK_EQ(t.regs.esp, 0x1000 - 8 - 6);
    CHECK_EQ(stack[0xffc / 2], REAL_CODE);
    CHECK_EQ(stack[0xff8 / 2], OFFSET16(far_call_long, far_call_long_after));
    t = RUN16(far_jump, real_default());
    CHECK_EQ(t.cs, 0x2100);
    CHECK_EQ(t.ip, 0x21);
    t = RUN16(far_return, real_default());
    CHECK_EQ(t.cs, 0x2100);
    CHECK_EQ(t.ip, 0x21);
    CHECK_EQ(t.regs.esp, 0x1000 + 4 - 6);
    t = RUN16(far_return_long, real_default());
    CHECK_EQ(t.cs, 0x2100);
    CHECK_EQ(t.regs.esp, 0x1000 - 6);
    t = RUN16(load_pointer, real_default()); /* no descriptors: any selector goes */
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.regs.es, 0xabcd);
    CHECK_EQ(t.regs.edi & 0xffff, 0x1234);
    t = RUN16(far_jump_beyond, real_default());
    CHECK_EQ(t.vector, V_GP);
    CHECK_EQ(t.cs, REAL_CODE);
    CHECK_EQ(t.ip, 1);
}

/* ---- Flags -------------------------------------------------------------------------------------
 */

CODE16(popf_16, "pushw %bx; popfw; pushfw; popw %cx; int3");
CODE16(popf_32, "pushl %ebx; popfl; pushfl; popl %ecx; int3");
CODE16(iret_16, "pushw %bx; pushw %cs; pushw $9f - iret_16; iretw; 9: pushfl; popl %ecx; int3");
CODE16(iret_32,
       "pushl %ebx; pushl $0x2000; pushl $9f - iret_32; iretl; 9: pushfl; popl %ecx; int3");

static uint32_t flags_after(const char *code, const char *end, uint32_t before, uint32_t image)
{
    memcpy((void *)(REAL_CODE << 4), code, (size_t)(end - code));
    struct real_regs r = real_default();
    r.eflags = before;
    r.ebx = image;
    struct real_trap t = real_run(r);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.regs.esp, 0x1000 - 6);
    return t.regs.ecx;
}
#define FLAGS_AFTER(name, before, image) flags_after(name, name##_end, before, image)

enum { ID = 1 << 21, STATUS = 0x8d5 };

TEST(flags_by_popf_and_iret)
{
    const uint32_t low = STATUS | F_IF | F_DF | F_IOPL3 | F_NT | FLAGS_FIXED; /* all but TF */

    CHECK_EQ(FLAGS_AFTER(popf_16, 2, 0xfeff), low);
    CHECK_EQ(FLAGS_AFTER(popf_16, low, 0), FLAGS_FIXED);
    CHECK_EQ(FLAGS_AFTER(popf_32, 2, 0xfffffeff), low | F_AC | ID); /* not VM, VIF, VIP */
    CHECK_EQ(FLAGS_AFTER(popf_32, low | F_AC | ID, 0), FLAGS_FIXED);
    CHECK_EQ(FLAGS_AFTER(iret_16, 2 | ID, 0xfeff), low | ID); /* the upper half stays */
    CHECK_EQ(FLAGS_AFTER(iret_16, low | F_AC, 0), FLAGS_FIXED | F_AC);
    CHECK_EQ(FLAGS_AFTER(iret_32, 2, 0xfffffeff), low | F_AC | ID);
    CHECK_EQ(FLAGS_AFTER(iret_32, low | ID, 0), FLAGS_FIXED);
}

/* NT means nothing here: IRET is no task switch. TF set by IRET traps behind the next instruction.
 */
CODE16(iret_tf,
       "pushw $0x4102; pushw %cs; pushw $9f - iret_tf; iretw; 9: nop\n" LABEL(iret_tf_after) "nop");

TEST(iret_sets_tf)
{
    struct real_trap t = RUN16(iret_tf, real_default());
    CHECK_EQ(t.vector, V_DB);
    CHECK_EQ(t.ip, OFFSET16(iret_tf, iret_tf_after));
    CHECK_EQ(t.flags, 2 | F_TF | F_NT);
}

/* ---- Hidden parts ------------------------------------------------------------------------------
 */

CODE16(reload, "movw $0x1000, %ax; movw %ax, %ds; movb (%ebx), %al; int3");

TEST(limits_survive)
{
    /* 4 GiB out of protected mode: "unreal" mode. A new selector changes the base only. */
    static volatile uint8_t mark;
    mark = 0xa7;
    struct real_regs r = real_default();
    r.ebx = (uint32_t)(word)&mark - 0x10000;
    PLACE16(reload, REAL_CODE << 4);
    gdt[FREE(0) / 8] = descriptor(0, 0xfffff, D_DATA | D_PAGES);
    struct real_trap t = real_run_limits(r, FREE(0));
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.regs.eax & 0xff, 0xa7);
    gdt[FREE(0) / 8] = descriptor(0, 0xfff, D_DATA); /* and a small one stays as well */
    r.ebx = 0x1000;
    r.esp = 0x800;
    CHECK_EQ(real_run_limits(r, FREE(0)).vector, V_GP);
    r.ebx = 0xfff;
    CHECK_EQ(real_run_limits(r, FREE(0)).vector, V_BP);
}

CODE16(write_code, "movw $0x9090, %cs:0x80; movw %cs:0x80, %ax; int3");

TEST(code_is_writable)
{
    struct real_trap t = RUN16(write_code, real_default());
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.regs.eax & 0xffff, 0x9090);
}

/* ---- A20 ---------------------------------------------------------------------------------------
 */

/* Reads FFFF:0010 with A20 as port 92h has it, masked, and unmasked again; writes 0:4 through the
 * wrap. The image lies above 1 MiB, so A20 must be on before it goes back. */
CODE16(gate_a20, "inb $0x92, %al; orb $2, %al; andb $0xfe, %al; outb %al, $0x92; movl 0x10, %ecx;"
                 "andb $0xfd, %al; outb %al, $0x92; movl 0x10, %edx; movl %ebp, 0x14;"
                 "orb $2, %al; outb %al, $0x92; movl 0x10, %esi; int3");

TEST(a20_masks_bit_20)
{
    uint32_t at_1m, at_0;
    struct real_regs r = real_default();
    r.ds = 0xffff;
    r.ebp = real_low(real_stubs) + 16; /* IVT[1]: what is there anyway */
    const volatile uint32_t *one = (const volatile uint32_t *)0x100000;
    at_1m = *one;
    uint32_t next = one[1];
    at_0 = real_low(real_stubs);
    struct real_trap t = RUN16(gate_a20, r);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.regs.ecx, at_1m);
    CHECK_EQ(t.regs.edx, at_0);
    CHECK_EQ(t.regs.esi, at_1m);
    CHECK_EQ(one[1], next);
    CHECK(at_1m != at_0);
}

/* ---- System registers --------------------------------------------------------------------------
 */

CODE16(tables,
       "sgdtw 0x10; movw $0x1234, 0; movl $0xab654321, 2; lgdtw 0; sgdtl 8; lgdtl 0; sgdtl 0x20;"
       "lgdtl 0x10; int3");

TEST(lgdt_takes_24_bits_with_16_bit_operands)
{
    const volatile uint8_t *data = (const volatile uint8_t *)(REAL_DATA << 4);
    uint32_t base;
    gdt[FREE(0) / 8] = 0;
    /* SGDT stores all 32 bits, so what it stores may be loaded again. */
    PLACE16(tables, REAL_CODE << 4);
    struct real_trap t = real_run(real_default());
    CHECK_EQ(t.vector, V_BP);
    memcpy(&base, (const void *)(data + 10), 4);
    CHECK_EQ(base, 0x654321);
    memcpy(&base, (const void *)(data + 0x22), 4);
    CHECK_EQ(base, 0xab654321);
}

CODE16(words,
       "smsw %ax; movl %cr0, %ecx; orb $0x08, %al; lmsw %ax; smswl %edx; movl %ecx, %cr0; int3");

TEST(machine_status_word)
{
    struct real_trap t = RUN16(words, real_default());
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.regs.ecx & 1, 0);
    CHECK_EQ(t.regs.eax & 0xfff7, t.regs.ecx & 0xfff7);
    CHECK_EQ(t.regs.edx & 0xffff, (t.regs.ecx & 0xffff) | 8); /* TS */
}

CODE16(access_checks, ".byte 0x0f, 0x01, 0xcb; pushfl; popl %eax\n" /* STAC, CLAC */
                      ".byte 0x0f, 0x01, 0xca; pushfl; popl %ebx; int3");

/* There is nothing here that AC is asked for, but the two change it. */
TEST(stac_and_clac)
{
    uint32_t r[4];
    cpuid(7, 0, r);
    if (!(r[1] >> 20 & 1))
        return;
    struct real_trap t = RUN16(access_checks, real_default());
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.regs.eax & F_AC, F_AC);
    CHECK_EQ(t.regs.ebx & F_AC, 0);
}

const struct test guest_tests[] = {T(int_pushes_flags_cs_ip),
                                   T(single_step),
                                   T(exceptions_of_instructions),
                                   T(undefined_encodings),
                                   T(instructions_of_16_bytes),
                                   T(idt_limit),
                                   T(idt_base),
                                   T(accesses_across_64k),
                                   T(sixteen_bit_addresses_wrap),
                                   T(second_parts_wrap),
                                   T(ip_does_not_wrap),
                                   T(stack_pointer_wraps),
                                   T(far_transfers),
                                   T(flags_by_popf_and_iret),
                                   T(iret_sets_tf),
                                   T(limits_survive),
                                   T(code_is_writable),
                                   T(a20_masks_bit_20),
                                   T(lgdt_takes_24_bits_with_16_bit_operands),
                                   T(machine_status_word),
                                   T(stac_and_clac),
                                   T(stack_items_across_64k),
                                   {0, 0}};
