/*
 * v86.c - virtual-8086 mode without its extensions: entry, frames, sensitive instructions, INT n,
 * segments, I/O permissions (SDM vol. 3, 20.2, 20.3; vol. 1, 19.5).
 */
#include "v86.h"
#include "task.h"

/* ---- Entry and frames --------------------------------------------------------------------------
 */

CODE16(nothing, "int3\n" LABEL(nothing_after) "nop");

TEST(iret_enters)
{
    rings_setup();
    struct context c = v86_context(F_CF | F_IOPL3 | F_NT);
    c.rsp = 0x12340800;
    c.v86_ds = 0x4001;
    c.v86_es = 0xffff;
    c.v86_fs = 3;
    c.v86_gs = 0;
    PLACE16(nothing, V86_CODE << 4);
    struct trap t = RUN(c);
    struct v86_segments s = v86_pushed();
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.rip, OFFSET16(nothing, nothing_after));
    CHECK_EQ(t.cs, V86_CODE);
    CHECK_EQ(t.rflags, 2 | F_VM | F_CF | F_IOPL3 | F_NT);
    CHECK_EQ(t.rsp, 0x12340800);
    CHECK_EQ(t.ss, V86_STACK);
    CHECK_EQ(s.ds, 0x4001);
    CHECK_EQ(s.es, 0xffff);
    CHECK_EQ(s.fs, 3);
    CHECK_EQ(s.gs, 0);
    /* The handler began with null data segments; the stubs save DS and ES of then. */
    CHECK_EQ(t.frame.ds & 0xffff, 0);
    CHECK_EQ(t.frame.es & 0xffff, 0);
    uint16_t fs, gs;
    asm volatile("movw %%fs, %0; movw %%gs, %1" : "=r"(fs), "=r"(gs));
    CHECK_EQ(fs | gs, 0);
}

TEST(entry_refuses_eip_beyond_64k)
{
    struct context c = v86_context(2);
    rings_setup();
    c.rip = 0x10000;
    struct trap t = RUN(c); /* QEMU: goes there */
    CHECK_TRAP(t, V_GP, 0, SYMBOL(context_iret));
    CHECK_EQ(t.cs, SEL_CODE);
    CHECK_EQ(t.rflags & F_VM, 0);
}

TEST(a_task_may_be_in_virtual_8086_mode)
{
    rings_setup();
    PLACE16(nothing, V86_CODE << 4);
    struct tss32 *t = task_new(0);
    t->eflags = 2 | F_VM;
    t->eip = 0;
    t->cs = V86_CODE;
    t->ss = V86_STACK;
    t->esp = 0x900;
    t->ds = 0x1234;
    t->es = 0xfff8; /* no descriptors: nothing to be checked */
    t->fs = 7;
    t->gs = 0;
    struct trap trap = CATCH(asm volatile("ljmp %0, $0" ::"i"(TASK(0)) : "memory"));
    CHECK_EQ(trap.vector, V_BP);
    CHECK_EQ(trap.cs, V86_CODE);
    CHECK_EQ(trap.rflags & F_VM, F_VM);
    CHECK_EQ(trap.ss, V86_STACK);
    CHECK_EQ(trap.rsp, 0x900);
    const struct v86_segments *s = (const struct v86_segments *)(t->esp0 - 16);
    CHECK_EQ(s->ds, 0x1234);
    CHECK_EQ(s->es, 0xfff8);
    CHECK_EQ(s->fs, 7);
    task_home();
}

/* And back to it from a handler's task: IRET with NT from a task that a fault called. */
CODE16(interrupted, "int $0x40\n" LABEL(interrupted_after) "int3\n" LABEL(interrupted_last) "nop");

TEST(out_and_in_by_task_gate)
{
    rings_setup();
    struct tss32 *t = task_new(0);
    task_exit = EXIT_IRET;
    set_gate(0x40, 0, TASK(0), 5, 3, 0);
    PLACE16(interrupted, V86_CODE << 4);
    struct context c = v86_context(F_IOPL3);
    struct trap trap = RUN(c);
    CHECK_EQ(trap.vector, V_BP);
    CHECK_EQ(trap.cs, V86_CODE);
    CHECK_EQ(trap.rip, OFFSET16(interrupted, interrupted_last));
    CHECK_EQ(task_seen.tr, TASK(0));
    CHECK_EQ(task_seen.regs.eflags & (F_NT | F_VM), F_NT);
    CHECK_EQ(t->link & 0xffff, SEL_TSS);
    CHECK_EQ(MAIN_TSS->eflags, 2 | F_VM | F_IOPL3);
    CHECK_EQ(MAIN_TSS->cs, V86_CODE);
    CHECK_EQ(MAIN_TSS->eip, OFFSET16(interrupted, interrupted_after));
    asm volatile("clts");
}

/* ---- Exceptions --------------------------------------------------------------------------------
 */

CODE16(fault_de, "nop\n" LABEL(fault_de_here) "divb %bl");
CODE16(fault_ud, "nop\n" LABEL(fault_ud_here) "ud2");
CODE16(fault_hlt, "nop\n" LABEL(fault_hlt_here) "hlt");
CODE16(fault_cr0, "nop\n" LABEL(fault_cr0_here) "movl %cr0, %eax");
CODE16(fault_lgdt, "nop\n" LABEL(fault_lgdt_here) "lgdt 0");
CODE16(fault_lldt, "nop\n" LABEL(fault_lldt_here) "lldt %ax");
CODE16(fault_arpl, "nop\n" LABEL(fault_arpl_here) "arpl %ax, %bx");
CODE16(fault_clts, "nop\n" LABEL(fault_clts_here) "clts");
CODE16(fault_lmsw, "nop\n" LABEL(fault_lmsw_here) "lmsw %ax");
CODE16(fault_rdmsr, "nop\n" LABEL(fault_rdmsr_here) "rdmsr");

static void check_fault(struct trap t, unsigned vector, unsigned ip)
{
    CHECK_TRAP(t, vector, 0, ip);
    CHECK_EQ(t.cs, V86_CODE);
    CHECK_EQ(t.rflags & F_VM, F_VM);
    CHECK_EQ(t.rflags & F_RF, F_RF); /* QEMU: clear */
    CHECK_EQ(t.rsp, 0x1000);
    CHECK_EQ(t.ss, V86_STACK);
}
#define FAULT(name, vector) check_fault(V86(name, F_IOPL3), vector, OFFSET16(name, name##_here))

TEST(exceptions)
{
    rings_setup();
    FAULT(fault_de, V_DE);
    FAULT(fault_ud, V_UD);
    FAULT(fault_hlt, V_GP); /* privileged: CPL is 3, whatever IOPL */
    FAULT(fault_cr0, V_GP);
    FAULT(fault_lgdt, V_GP);
    FAULT(fault_clts, V_GP);
    FAULT(fault_lmsw, V_GP);
    FAULT(fault_rdmsr, V_GP);
    FAULT(fault_lldt, V_UD); /* not recognized outside protected mode */
    FAULT(fault_arpl, V_UD);
}

/* ---- Sensitive to IOPL -------------------------------------------------------------------------
 */

CODE16(cli, LABEL(cli_here) "cli; int3");
CODE16(sti, LABEL(sti_here) "sti; int3");
CODE16(pushf, LABEL(pushf_here) "pushfw; int3");
CODE16(popf, LABEL(popf_here) "popfw; int3");
CODE16(pushfd, LABEL(pushfd_here) "pushfl; int3");
CODE16(popfd, LABEL(popfd_here) "popfl; int3");
CODE16(intn, LABEL(intn_here) "int $0x40\n" LABEL(intn_after) "int3");
CODE16(iret, LABEL(iret_here) "iretw; int3");
CODE16(iretd, LABEL(iretd_here) "iretl; int3");

TEST(iopl_below_3_faults)
{
    rings_setup();
    set_gate(0x40, (word)trap_stubs + 16 * 0x40, SEL_CODE, 14, 3, 0);
    for (unsigned iopl = 0; iopl < 3; iopl++) {
        uint32_t f = iopl << 12;
        check_fault(V86(cli, f), V_GP, 0);
        check_fault(V86(sti, f), V_GP, 0);
        check_fault(V86(pushf, f), V_GP, 0);
        check_fault(V86(popf, f), V_GP, 0);
        check_fault(V86(pushfd, f), V_GP, 0);
        check_fault(V86(popfd, f), V_GP, 0);
        check_fault(V86(intn, f), V_GP, 0); /* error 0, not the vector's */
        check_fault(V86(iret, f), V_GP, 0);
        check_fault(V86(iretd, f), V_GP, 0);
    }
}

/* Code that makes itself an image of flags, loads it, and shows what became of it in ECX. */
CODE16(popf_image, "pushl %ebx; popfl; pushfl; popl %ecx; int3");
CODE16(popf_image_16, "pushw %bx; popfw; pushfl; popl %ecx; int3");
CODE16(iret_image,
       "pushl %ebx; pushl $0x2000; pushl $9f - iret_image; iretl; 9: pushfl; popl %ecx; int3");
CODE16(iret_image_16,
       "pushw %bx; pushw %cs; pushw $9f - iret_image_16; iretw; 9: pushfl; popl %ecx; int3");

static uint32_t flags_after(const char *code, const char *end, uint32_t before, uint32_t image)
{
    memcpy((void *)(V86_CODE << 4), code, (size_t)(end - code));
    struct context c = v86_context(before);
    c.rbx = image;
    struct trap t = RUN(c);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.rflags & F_VM, F_VM); /* it stays, whatever the image says */
    CHECK_EQ(t.rflags & ~(F_VM | F_IF), t.frame.rcx & ~F_IF);
    return t.frame.rcx;
}
#define FLAGS_AFTER(name, before, image) flags_after(name, name##_end, F_IOPL3 | (before), image)

TEST(flags_with_iopl_3)
{
    const uint32_t low = 0x8d5 | F_DF | F_NT | F_IOPL3 | 2, id = 1 << 21;
    rings_setup();
    /* IF may be loaded, IOPL not; PUSHF shows VM and RF as 0. */
    CHECK_EQ(FLAGS_AFTER(popf_image_16, 0, 0xfeff), low | F_IF);
    CHECK_EQ(FLAGS_AFTER(popf_image_16, low, 0), 2 | F_IOPL3);
    CHECK_EQ(FLAGS_AFTER(popf_image, 0, 0xfffffeff), low | F_IF | F_AC | id);
    CHECK_EQ(FLAGS_AFTER(popf_image, F_AC | F_VIF | F_VIP, 0), 2 | F_IOPL3 | F_VIF | F_VIP);
    CHECK_EQ(FLAGS_AFTER(iret_image_16, F_AC, 0xcfff & ~F_TF), low | F_IF | F_AC);
    CHECK_EQ(FLAGS_AFTER(iret_image, 0, 0xfffffeff), low | F_IF | F_AC | id);
    CHECK_EQ(FLAGS_AFTER(iret_image, F_AC | F_VIF, 0), 2 | F_IOPL3 | F_VIF);
}

TEST(cli_and_sti_with_iopl_3)
{
    rings_setup();
    CHECK_EQ(V86(sti, F_IOPL3).rflags & F_IF, F_IF);
    CHECK_EQ(V86(cli, F_IOPL3 | F_IF).rflags & F_IF, 0);
}

/* ---- INT n with IOPL 3 -------------------------------------------------------------------------
 */

TEST(int_n_with_iopl_3)
{
    rings_setup();
    set_gate(0x40, (word)trap_stubs + 16 * 0x40, SEL_CODE, 14, 3, 0);
    struct trap t = V86(intn, F_IOPL3);
    CHECK_EQ(t.vector, 0x40);
    CHECK_EQ(t.rip, OFFSET16(intn, intn_after));
    CHECK_EQ(t.rflags, 2 | F_VM | F_IOPL3);
    set_gate(0x40, (word)trap_stubs + 16 * 0x40, SEL_CODE, 14, 2, 0); /* DPL < 3 */
    t = V86(intn, F_IOPL3);
    CHECK_TRAP(t, V_GP, 0x40 * 8 + 2, 0);
    idt[0x40].word[1] = (idt[0x40].word[1] | 3 << 13) & ~0x8000u;
    t = V86(intn, F_IOPL3);
    CHECK_TRAP(t, V_NP, 0x40 * 8 + 2, 0);
    set_gate(0x40, (word)trap_stubs + 16 * 0x40, SEL_CODE, 14, 3, 0);
}

/* INT3, INTO and exceptions ask for no IOPL, but INT3 and INTO for the gate's DPL. */
CODE16(overflow, "movb $0x7f, %al; addb $1, %al\n" LABEL(overflow_here) "into");

TEST(int3_and_into)
{
    rings_setup();
    set_gate(V_OF, (word)trap_stubs + 16 * V_OF, SEL_CODE, 14, 3, 0);
    struct trap t = V86(overflow, 0);
    CHECK_EQ(t.vector, V_OF);
    CHECK_EQ(t.rip, OFFSET16(overflow, overflow_here) + 1);
    set_gate(V_OF, (word)trap_stubs + 16 * V_OF, SEL_CODE, 14, 0, 0);
    t = V86(overflow, 0);
    CHECK_TRAP(t, V_GP, V_OF * 8 + 2, OFFSET16(overflow, overflow_here));
    set_gate(V_BP, (word)trap_stubs + 16 * V_BP, SEL_CODE, 14, 0, 0);
    t = V86(nothing, 0);
    CHECK_TRAP(t, V_GP, V_BP * 8 + 2, 0);
}

/* From virtual-8086 mode a handler must run at CPL 0: not in conforming code, not at CPL 1. */
TEST(handlers_must_have_dpl_0)
{
    rings_setup();
    gdt[FREE(4) / 8] = descriptor(0, 0xfffff, D_CONFORMING | FLAT);
    set_gate(V_BP, (word)trap_stubs + 16 * V_BP, FREE(4), 14, 3, 0);
    struct trap t = V86(nothing, 0);
    CHECK_TRAP(t, V_GP, FREE(4), 0);
    set_gate(V_BP, (word)trap_stubs + 16 * V_BP, ring_code(1), 14, 3, 0);
    t = V86(nothing, 0);
    CHECK_TRAP(t, V_GP, ring_code(1) & ~3u, 0);
}

/* A 16-bit gate: words on the inner stack, all nine of them. */
CODE32(gate16_handler, "movl %esp, %eax; int3");

CODE16(int_41, "int $0x41\n" LABEL(int_41_after) "nop");

TEST(frame_of_a_16_bit_gate)
{
    rings_setup();
    /* Its offset has 16 bits: the segment's base is the handler. */
    gdt[FREE(4) / 8] = descriptor((word)gate16_handler, 0xffff, D_CODE | D_BIG);
    set_gate(0x41, 0, FREE(4), 6, 3, 0);
    struct context c = v86_context(F_IOPL3 | F_CF);
    PLACE16(int_41, V86_CODE << 4);
    c.v86_gs = 0x6666;
    struct trap t = RUN(c);
    const uint16_t *w = (const uint16_t *)t.frame.rax;
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.frame.rax, tss[1] - 18);
    CHECK_EQ(w[0], OFFSET16(int_41, int_41_after));
    CHECK_EQ(w[1], V86_CODE);
    CHECK_EQ(w[2], 2 | F_CF | F_IOPL3);
    CHECK_EQ(w[3], 0x1000);
    CHECK_EQ(w[4], V86_STACK);
    CHECK_EQ(w[5], V86_DATA);
    CHECK_EQ(w[6], V86_DATA);
    CHECK_EQ(w[8], 0x6666);
}

/* ---- Segments ----------------------------------------------------------------------------------
 */

CODE16(segment_code,
       "movw $0x4100, %ax; movw %ax, %ds; movw 0x10, %cx; movw $0x40ff, %ax; movw %ax, %es;"
       "movw %es:0x20, %dx; lcallw $0x2001, $(9f - segment_code - 0x10); int3; 9: int3");
CODE16(load_word, "movw (%bx), %ax; int3");
CODE16(load_ss_word, "movw %ss:(%bx), %ax; int3");
CODE16(load_wide, "movb (%ebx), %al; int3");
CODE16(store_cs, "movw %ax, %cs:(%bx); int3");
CODE16(push_word, "movw %bx, %sp; pushl %eax; int3");
CODE16(jump_far_wide, "ljmpl $0x2000, $0x10000");

static struct trap at_offset(const char *code, const char *end, uint32_t bx)
{
    memcpy((void *)(V86_CODE << 4), code, (size_t)(end - code));
    struct context c = v86_context(0);
    c.rbx = bx;
    return RUN(c);
}
#define AT_OFFSET(name, bx) at_offset(name, name##_end, bx)

TEST(segments_have_base_16_times_selector)
{
    rings_setup();
    *(uint16_t *)0x41010 = 0xbeef;
    struct trap t = V86(segment_code, 0);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.frame.rcx & 0xffff, 0xbeef);
    CHECK_EQ(t.frame.rdx & 0xffff, 0xbeef);
    CHECK_EQ(t.cs, 0x2001);
    CHECK_EQ(t.rip + 0x10, (word)(segment_code_end - segment_code));
}

TEST(limits_of_64k) /* QEMU: no limits */
{
    rings_setup();
    CHECK_EQ(AT_OFFSET(load_word, 0xfffe).vector, V_BP);
    check_fault(AT_OFFSET(load_word, 0xffff), V_GP, 0);
    check_fault(AT_OFFSET(load_ss_word, 0xffff), V_SS, 0);
    check_fault(AT_OFFSET(load_wide, 0x10000), V_GP, 0);
    CHECK_EQ(AT_OFFSET(store_cs, 0x8000).vector, V_BP); /* code is writable */
    struct trap t = AT_OFFSET(push_word, 2);            /* FFFEh-10001h */
    CHECK_EQ(t.vector, V_SS);
    CHECK_EQ(t.rsp, 2);
    CHECK_EQ(AT_OFFSET(push_word, 0).rsp, 0xfffc);
    check_fault(AT_OFFSET(jump_far_wide, 0), V_GP, 0);
}

/* ---- I/O ---------------------------------------------------------------------------------------
 */

CODE16(in_port, LABEL(in_port_here) "inb %dx, %al; int3");
CODE16(in_port_16, "inw %dx, %ax; int3");
CODE16(in_port_32, "inl %dx, %eax; int3");
CODE16(out_imm, "outb %al, $0x80; int3");
CODE16(ins_port, "insb; int3");
CODE32(user_in, LABEL(user_in_here) "inb %dx, %al; int3");

/* The guest's TSS, followed by a bitmap that the tests fill. */
static struct {
    uint32_t tss[26];
    uint8_t map[8192 + 1];
} wide_tss __attribute__((aligned(128)));

static void io_setup(unsigned limit)
{
    memcpy(wide_tss.tss, tss, 104);
    memset(wide_tss.map, 0, sizeof(wide_tss.map));
    wide_tss.tss[25] = 104 << 16;
    gdt[SEL_TSS / 8] = descriptor((word)&wide_tss, limit, D_TSS32);
    asm volatile("ltr %w0" ::"r"(SEL_TSS) : "memory");
}
static void io_end(void)
{
    gdt[SEL_TSS / 8] = descriptor((word)tss, 103, D_TSS32);
    asm volatile("ltr %w0" ::"r"(SEL_TSS) : "memory");
}
static void forbid(unsigned port)
{
    wide_tss.map[port / 8] |= (uint8_t)(1 << port % 8);
}

static struct trap io(const char *code, const char *end, unsigned port, uint32_t eflags)
{
    memcpy((void *)(V86_CODE << 4), code, (size_t)(end - code));
    struct context c = v86_context(eflags);
    c.rdx = port;
    return RUN(c);
}
#define IO(name, port) io(name, name##_end, port, F_IOPL3).vector

TEST(io_permission_bitmap)
{
    rings_setup();
    io_setup(sizeof(wide_tss) - 1);
    CHECK_EQ(IO(in_port, 0x80), V_BP);
    forbid(0x80);
    /* IOPL 3 does not help: in virtual-8086 mode the bitmap alone decides. */
    struct trap t = io(in_port, in_port_end, 0x80, F_IOPL3);
    check_fault(t, V_GP, 0);
    CHECK_EQ(IO(in_port, 0x81), V_BP);
    CHECK_EQ(IO(in_port, 0x7f), V_BP);
    CHECK_EQ(IO(in_port_16, 0x7f), V_GP);
    CHECK_EQ(IO(in_port_16, 0x7e), V_BP);
    CHECK_EQ(IO(in_port_32, 0x7d), V_GP);
    CHECK_EQ(IO(in_port_32, 0x7c), V_BP);
    CHECK_EQ(IO(in_port_32, 0x80), V_GP);
    CHECK_EQ(IO(out_imm, 0), V_GP);
    CHECK_EQ(IO(ins_port, 0x80), V_GP);
    io_end();
}

TEST(io_bitmap_is_read_two_bytes_at_a_time)
{
    rings_setup();
    io_setup(104 + 16); /* 17 bytes of bitmap: ports to 7Fh, and the byte behind */
    CHECK_EQ(IO(in_port, 0x7f), V_BP);
    CHECK_EQ(IO(in_port, 0x80), V_GP); /* its second byte lies beyond the limit */
    CHECK_EQ(IO(in_port, 0xffff), V_GP);
    io_setup(104 - 1);
    CHECK_EQ(IO(in_port, 0), V_GP);
    io_setup(sizeof(wide_tss) - 1);
    wide_tss.tss[25] = (sizeof(wide_tss) - 1) << 16; /* the map begins at the limit */
    CHECK_EQ(IO(in_port, 0), V_GP);
    wide_tss.tss[25] = 0xffffu << 16;
    CHECK_EQ(IO(in_port, 0), V_GP);
    io_end();
}

TEST(io_in_protected_mode_asks_iopl_first)
{
    rings_setup();
    io_setup(sizeof(wide_tss) - 1);
    forbid(0x80);
    for (unsigned cpl = 0; cpl < 4; cpl++) {
        for (unsigned iopl = 0; iopl < 4; iopl++) {
            struct context c = context_ring((word)user_in, cpl);
            c.rdx = 0x80;
            c.rflags |= iopl << 12;
            struct trap t = RUN(c);
            CHECK_EQ(t.vector, cpl <= iopl ? V_BP : V_GP);
            c.rdx = 0x81;
            CHECK_EQ(RUN(c).vector, V_BP);
        }
    }
    io_end();
}

const struct test guest_tests[] = {T(iret_enters),
                                   T(a_task_may_be_in_virtual_8086_mode),
                                   T(out_and_in_by_task_gate),
                                   T(exceptions),
                                   T(iopl_below_3_faults),
                                   T(flags_with_iopl_3),
                                   T(cli_and_sti_with_iopl_3),
                                   T(int_n_with_iopl_3),
                                   T(int3_and_into),
                                   T(handlers_must_have_dpl_0),
                                   T(frame_of_a_16_bit_gate),
                                   T(segments_have_base_16_times_selector),
                                   T(io_permission_bitmap),
                                   T(io_bitmap_is_read_two_bytes_at_a_time),
                                   T(io_in_protected_mode_asks_iopl_first),
                                   T(limits_of_64k),
                                   T(entry_refuses_eip_beyond_64k),
                                   {0, 0}};
