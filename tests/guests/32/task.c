/*
 * task.c - task switches that succeed: by JMP, CALL, IRET, INT and exceptions, between TSSs of 32
 * and 16 bits (SDM vol. 3, 7.2-7.4). QEMU saves stale arithmetic flags, no RF, has no T bit and
 * sets no accessed bits here.
 */
#include "task.h"

static __attribute__((noinline, noclone)) void jump_to(unsigned selector)
{
    static struct {
        uint32_t offset;
        uint16_t selector;
    } to;
    to.selector = (uint16_t)selector;
    asm volatile(LABEL(jump_here) "ljmp *%0\n" LABEL(jump_after) "nop" ::"m"(to) : "memory", "cc");
}
static __attribute__((noinline, noclone)) void call_to(unsigned selector)
{
    static struct {
        uint32_t offset;
        uint16_t selector;
    } to;
    to.selector = (uint16_t)selector;
    asm volatile(LABEL(call_here) "lcall *%0\n" LABEL(call_after) "nop" ::"m"(to) : "memory", "cc");
}

static bool is_busy(unsigned selector)
{
    return desc_type(selector) & D_BUSY;
}

static void check_registers(unsigned n)
{
    CHECK_EQ(task_seen.regs.eax, 0xa0a0a0a0 + n);
    CHECK_EQ(task_seen.regs.ecx, 0xc1c1c1c1 + n);
    CHECK_EQ(task_seen.regs.edx, 0xd2d2d2d2 + n);
    CHECK_EQ(task_seen.regs.ebx, 0xb3b3b3b3 + n);
    CHECK_EQ(task_seen.regs.esp, (word)task_stack[n] + TASK_STACK - 4);
    CHECK_EQ(task_seen.regs.ebp, 0xb4b4b4b4 + n);
    CHECK_EQ(task_seen.regs.esi, 0x56565656 + n);
    CHECK_EQ(task_seen.regs.edi, 0xd7d7d7d7 + n);
    CHECK_EQ(task_seen.cs, SEL_CODE);
    CHECK_EQ(task_seen.ss, SEL_DATA);
    CHECK_EQ(task_seen.tr, TASK(n));
}

TEST(jump)
{
    struct tss32 *t = task_new(0), before;
    t->fs = SEL_DATA;
    t->gs = 0;
    t->es = SEL_UDATA;
    t->link = 0x7777;
    t->eflags = 2 | F_CF | F_OF;
    asm volatile("clts");
    /* What a switch does not save shows as it was. */
    MAIN_TSS->link = 0x1111;
    before = *MAIN_TSS;
    uint32_t esp_before, esp_after;
    asm volatile("movl %%esp, %0" : "=r"(esp_before));
    asm volatile("stc; movl $0x12345678, %%edi\n" LABEL(jump_1) "ljmp %0, $0\n" LABEL(
                     jump_1_after) "nop" ::"i"(TASK(0))
                 : "edi", "memory", "cc");
    asm volatile("movl %%esp, %0" : "=r"(esp_after));
    CHECK_EQ(esp_before, esp_after);
    check_registers(0);
    CHECK_EQ(task_seen.regs.eflags, 2 | F_CF | F_OF); /* no NT */
    CHECK_EQ(task_seen.es, SEL_UDATA);
    CHECK_EQ(task_seen.fs, SEL_DATA);
    CHECK_EQ(task_seen.gs, 0);
    CHECK_EQ(task_seen.ldtr, 0);
    CHECK_EQ(task_seen.cr0 & 8, 8); /* TS */
    CHECK_EQ(t->link, 0x7777);      /* JMP links nothing */
    CHECK_EQ(MAIN_TSS->eip, SYMBOL(jump_1_after));
    CHECK_EQ(MAIN_TSS->edi, 0x12345678);
    CHECK_EQ(MAIN_TSS->cs, SEL_CODE);
    CHECK_EQ(MAIN_TSS->ss, SEL_DATA);
    CHECK_EQ(MAIN_TSS->ds, SEL_DATA);
    CHECK_EQ(MAIN_TSS->esp, esp_before);
    CHECK_EQ(MAIN_TSS->eflags & (F_CF | F_NT), F_CF);
    CHECK_EQ(memcmp(&before, MAIN_TSS, offsetof(struct tss32, eip)), 0);
    CHECK_EQ(memcmp(&before.ldt, &MAIN_TSS->ldt, 8), 0);
    CHECK(!is_busy(TASK(0)));
    CHECK(is_busy(SEL_TSS));
    CHECK_EQ(read_cr0() & 8, 8); /* the way back has set it again */
    asm volatile("clts");
    /* The task's own state was saved, too. */
    CHECK_EQ(t->eip, SYMBOL(task_jumps) + 7);
}

TEST(jump_through_a_task_gate)
{
    task_new(1);
    task_gate(TASK(1), 0);
    jump_to(TASK_GATE);
    check_registers(1);
    CHECK_EQ(MAIN_TSS->eip, SYMBOL(jump_after));
    CHECK(!is_busy(TASK(1)));
}

static volatile unsigned busy_inside;
static bool note_busy(struct frame *f)
{
    busy_inside = is_busy(SEL_TSS) | is_busy(TASK(0)) << 1 | is_busy(TASK(1)) << 2;
    return true;
}
/* Asks (by INT3, the same in every task) which TSSs are busy, then goes on as usual. */
CODE32(ask_busy, "int3; jmp task_entry");

TEST(call_and_iret)
{
    struct tss32 *t = task_new(0);
    t->eip = (word)ask_busy;
    task_exit = EXIT_IRET;
    trap_handlers[V_BP] = note_busy;
    call_to(TASK(0));
    trap_handlers[V_BP] = 0;
    check_registers(0);
    CHECK_EQ(task_seen.regs.eflags & F_NT, F_NT);
    CHECK_EQ(t->link & 0xffff, SEL_TSS);
    CHECK_EQ(busy_inside, 3); /* both, while one is nested in the other */
    CHECK(!is_busy(TASK(0)));
    CHECK(is_busy(SEL_TSS));
    CHECK_EQ(MAIN_TSS->eip, SYMBOL(call_after));
    CHECK_EQ(MAIN_TSS->eflags & F_NT, 0);
    CHECK_EQ(read_flags() & F_NT, 0);
    CHECK_EQ(t->eflags & F_NT, 0); /* IRET clears it in what it saves */
    CHECK_EQ(t->eip, SYMBOL(task_after_iret));
    unsigned runs = task_seen.runs; /* so the next CALL goes on behind the IRET */
    call_to(TASK(0));
    CHECK_EQ(task_seen.runs, runs + 1);
    CHECK_EQ(t->eip, SYMBOL(task_after_iret));
}

TEST(jump_leaves_one_busy)
{
    struct tss32 *t = task_new(0);
    t->eip = (word)ask_busy;
    trap_handlers[V_BP] = note_busy;
    jump_to(TASK(0));
    trap_handlers[V_BP] = 0;
    CHECK_EQ(busy_inside, 2);
}

/* Main calls task 0, which calls task 1: IRET, IRET. */
CODE32(call_task_1, "lcall $0x60, $0; movl $0x600d, %eax; jmp task_entry");

TEST(nested_calls)
{
    struct tss32 *t0 = task_new(0), *t1 = task_new(1);
    CHECK_EQ(TASK(1), 0x60);
    t0->eip = (word)call_task_1;
    task_exit = EXIT_IRET;
    unsigned runs = task_seen.runs;
    call_to(TASK(0));
    CHECK_EQ(task_seen.runs, runs + 2);
    CHECK_EQ(t1->link & 0xffff, TASK(0));
    CHECK_EQ(t0->link & 0xffff, SEL_TSS);
    CHECK_EQ(task_seen.tr, TASK(0));
    CHECK_EQ(task_seen.regs.eax, 0x600d);
    CHECK_EQ(task_seen.regs.eflags & F_NT, F_NT);
    CHECK(!is_busy(TASK(0)) && !is_busy(TASK(1)) && is_busy(SEL_TSS));
}

/* A jump from a nested task keeps NT in the image that is saved. */
TEST(jump_saves_nt_as_it_is)
{
    struct tss32 *t = task_new(0);
    asm volatile("pushfl; orl $0x4000, (%%esp); popfl" ::: "cc", "memory");
    jump_to(TASK(0));
    CHECK_EQ(read_flags() & F_NT, F_NT); /* saved, loaded again */
    asm volatile("pushfl; andl $~0x4000, (%%esp); popfl" ::: "cc", "memory");
    CHECK_EQ(MAIN_TSS->eflags & F_NT, F_NT);
    CHECK_EQ(task_seen.regs.eflags & F_NT, 0);
    t->eflags = 2 | F_NT;
    t->eip = SYMBOL(task_entry);
    jump_to(TASK(0));
    CHECK_EQ(task_seen.regs.eflags & F_NT, F_NT); /* as the TSS says */
}

/* ---- Through the IDT ---------------------------------------------------------------------------
 */

static void task_gate_in_idt(unsigned vector, unsigned selector, unsigned dpl)
{
    set_gate(vector, 0, selector, 5, dpl, 0);
}

TEST(int_n)
{
    struct tss32 *t = task_new(0);
    task_exit = EXIT_IRET;
    task_gate_in_idt(0x40, TASK(0), 0);
    asm volatile(LABEL(int_here) "int $0x40\n" LABEL(int_after) "nop" ::: "memory", "cc");
    check_registers(0);
    CHECK_EQ(task_seen.regs.eflags & F_NT, F_NT);
    CHECK_EQ(t->link & 0xffff, SEL_TSS);
    CHECK_EQ(MAIN_TSS->eip, SYMBOL(int_after));
    CHECK_EQ(MAIN_TSS->eflags & F_RF, 0);
    CHECK(is_busy(SEL_TSS));
}

/* The error code lies on the new task's stack; the handler here takes it off and skips the
 * instruction. */
static uint32_t task_error, task_fault_eip;
CODE32(fault_task, "popl task_error; movl tss + 32, %eax; movl %eax, task_fault_eip;"
                   "addl $2, tss + 32; jmp task_entry");

TEST(exception_with_error_code)
{
    struct tss32 *t = task_new(0);
    asm volatile("" : "+m"(task_error), "+m"(task_fault_eip));
    task_exit = EXIT_IRET;
    t->eip = (word)fault_task;
    task_gate_in_idt(V_GP, TASK(0), 0);
    asm volatile(
        "pushl %%fs; movl %0, %%eax\n" LABEL(gp_here) "movl %%eax, %%fs; popl %%fs" ::"i"(SEL_TSS)
        : "eax", "memory", "cc");
    set_gate(V_GP, (word)trap_stubs + 16 * V_GP, SEL_CODE, 14, 0, 0);
    asm volatile("" : "+m"(task_error), "+m"(task_fault_eip));
    CHECK_EQ(task_error, SEL_TSS);
    CHECK_EQ(task_fault_eip, SYMBOL(gp_here));
    CHECK_EQ(MAIN_TSS->eflags & F_RF, F_RF); /* of a fault; QEMU: clear */
    CHECK_EQ(task_seen.regs.esp, (word)task_stack[0] + TASK_STACK - 4);
}

TEST(exception_without_error_code)
{
    struct tss32 *t = task_new(0);
    task_exit = EXIT_IRET;
    task_gate_in_idt(V_BP, TASK(0), 0);
    asm volatile("int3\n" LABEL(bp_after) "nop" ::: "memory", "cc");
    set_gate(V_BP, (word)trap_stubs + 16 * V_BP, SEL_CODE, 14, 3, 0);
    check_registers(0);
    CHECK_EQ(MAIN_TSS->eip, SYMBOL(bp_after));
    CHECK_EQ(t->link & 0xffff, SEL_TSS);
}

/* ---- Other privileges --------------------------------------------------------------------------
 */

CODE32(user_task, "pushfl; popl %eax; movw %cs, %bx; movl %esp, %edx; int3; iretl\n" LABEL(
                      user_task_after) "nop");

TEST(task_at_cpl_3)
{
    struct tss32 *t = task_new(0);
    rings_setup();
    t->eip = (word)user_task;
    t->cs = SEL_UCODE;
    t->ss = t->ds = t->es = SEL_UDATA;
    t->esp -= 0x800;
    t->eflags = 2;
    uint32_t esp = t->esp;
    struct trap t1 = CATCH(call_to(TASK(0)));
    CHECK_EQ(t1.vector, V_BP);
    CHECK_EQ(t1.cs, SEL_UCODE);
    CHECK_EQ(t1.ss, SEL_UDATA);
    CHECK_EQ(t1.rsp, esp);
    CHECK_EQ(t1.frame.rbx & 0xffff, SEL_UCODE);
    CHECK_EQ(t1.frame.rax & F_NT, F_NT);
    /* The trap's frame lies on the stack that the new TSS names. */
    CHECK_EQ(*(uint32_t *)(t->esp0 - 8), esp);
    task_home();
    /* Where a handler gives the way free, IRET at CPL 3 goes back: NT counts at any CPL. */
    trap_handlers[V_BP] = note_busy;
    t = task_new(0);
    t->eip = (word)user_task;
    t->cs = SEL_UCODE;
    t->ss = t->ds = t->es = SEL_UDATA;
    t->esp -= 0x800;
    call_to(TASK(0));
    trap_handlers[V_BP] = 0;
    CHECK(!is_busy(TASK(0)));
    CHECK_EQ(t->cs, SEL_UCODE);
    CHECK_EQ(t->eip, SYMBOL(user_task_after));
}

/* Main's frame at CPL 3 calls: the TSS descriptor's DPL lets it. */
CODE32(call_from_user, "lcall $0x58, $0\n" LABEL(user_call_after) "int3");

TEST(call_from_cpl_3)
{
    rings_setup();
    task_new(0);
    CHECK_EQ(TASK(0), 0x58);
    task_exit = EXIT_IRET;
    gdt[TASK(0) / 8] |= 3ull << 45;
    struct context c = context_ring((word)call_from_user, 3);
    struct trap t = RUN(c);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.cs, SEL_UCODE);
    CHECK_EQ(t.ss, SEL_UDATA);
    CHECK_EQ(MAIN_TSS->cs, SEL_UCODE);
    CHECK_EQ(MAIN_TSS->eip, SYMBOL(user_call_after));
    check_registers(0);
    asm volatile("clts");
}

/* ---- LDT ---------------------------------------------------------------------------------------
 */

TEST(task_with_an_ldt)
{
    struct tss32 *t = task_new(0);
    gdt[FREE(4) / 8] = descriptor((word)ldt, sizeof(ldt) - 1, D_LDT);
    ldt[0] = descriptor(0, 0xfffff, D_CODE | FLAT);
    ldt[1] = descriptor(0, 0xfffff, (D_DATA | FLAT) & ~1u); /* not accessed yet */
    t->ldt = FREE(4);
    t->cs = LDT_ENTRY(0);
    t->ss = t->ds = LDT_ENTRY(1);
    jump_to(TASK(0));
    CHECK_EQ(task_seen.ldtr, FREE(4));
    CHECK_EQ(task_seen.cs, LDT_ENTRY(0));
    CHECK_EQ(task_seen.ss, LDT_ENTRY(1));
    CHECK_EQ(ldt[1] >> 40 & 1, 1);
    uint16_t now;
    asm volatile("sldt %0" : "=m"(now)); /* main's own: none */
    CHECK_EQ(now, 0);
}

/* ---- Debugging ---------------------------------------------------------------------------------
 */

enum { DR6_BS = 1 << 14, DR6_BT = 1 << 15 };

TEST(trap_bit)
{
    struct tss32 *t = task_new(0);
    t->trap = 1;
    write_dr6(0xffff0ff0);
    struct trap trap = CATCH(jump_to(TASK(0)));
    CHECK_EQ(trap.vector, V_DB);
    CHECK_EQ(trap.rip, SYMBOL(task_entry)); /* before the first instruction */
    CHECK_EQ(trap.dr6 & 0xe00f, DR6_BT);    /* QEMU has no T bit */
    uint16_t tr;
    asm volatile("str %0" : "=m"(tr));
    CHECK_EQ(tr, TASK(0));
    task_home();
    write_dr6(0xffff0ff0);
}

CODE32(stepped, "nop\n" LABEL(stepped_once) "nop; jmp task_entry");

TEST(trap_flag_of_the_new_task)
{
    struct tss32 *t = task_new(0);
    t->eflags = 2 | F_TF;
    t->eip = (word)stepped;
    struct trap trap = CATCH(jump_to(TASK(0)));
    CHECK_EQ(trap.vector, V_DB);
    CHECK_EQ(trap.rip, SYMBOL(stepped_once));
    CHECK_EQ(trap.dr6 & 0xe00f, DR6_BS);
    task_home();
    write_dr6(0xffff0ff0);
}

TEST(local_breakpoints_end_with_the_task)
{
    task_new(0);
    write_dr0((word)task_stack);
    write_dr7(0x400 | 0x0f); /* L0, G0, L1, G1 */
    jump_to(TASK(0));
    CHECK_EQ(task_seen.dr7 & 0xff, 0x0a);
    CHECK_EQ(read_dr7() & 0xff, 0x0a);
    write_dr7(0x400);
}

/* ---- 16 bits -----------------------------------------------------------------------------------
 */

static struct tss16 small_tss;
/* Runs below 64 KiB, since IP and SP have 16 bits. */
CODE16(task16,
       "movl %eax, 0x100; movl %esp, 0x104; movw %fs, 0x108; movw %gs, 0x10a; pushfl; popl 0x10c;"
       "cmpw $0, 0x110; jne 1f; ljmpw $0x48, $0; 1: iretw");

static void task16_new(void)
{
    PLACE16(task16, 0x5000);
    gdt[FREE(4) / 8] = descriptor(0x5000, 0xffff, D_CODE);
    gdt[FREE(5) / 8] = descriptor(0x5000, 0xffff, D_DATA);
    small_tss = (struct tss16){.ip = 0,
                               .flags = 2 | F_CF,
                               .ax = 0xa1a1,
                               .cx = 0xc1c1,
                               .sp = 0x800,
                               .es = FREE(5),
                               .cs = FREE(4),
                               .ss = FREE(5),
                               .ds = FREE(5)};
    gdt[TASK(0) / 8] = descriptor((word)&small_tss, 43, D_TSS16);
}
#define LOW16(at) (*(volatile uint16_t *)(0x5000 + (at)))
#define LOW32(at) (*(volatile uint32_t *)(0x5000 + (at)))

TEST(sixteen_bit_task)
{
    for (unsigned nested = 0; nested < 2; nested++) {
        task16_new();
        LOW16(0x110) = (uint16_t)nested;
        asm volatile("movw %w0, %%fs" ::"r"(SEL_DATA));
        if (nested)
            call_to(TASK(0));
        else
            jump_to(TASK(0));
        CHECK_EQ(LOW16(0x100), 0xa1a1);
        CHECK_EQ(LOW16(0x104), 0x800);
        CHECK_EQ(LOW32(0x108), 0); /* FS and GS are null: its TSS has none */
        CHECK_EQ(LOW16(0x10c) & (F_CF | F_NT), F_CF | (nested ? F_NT : 0));
        CHECK_EQ(small_tss.link, nested ? SEL_TSS : 0);
        CHECK_EQ(small_tss.flags & F_NT, 0);
        CHECK_EQ(small_tss.cx, 0xc1c1);
        CHECK_EQ(small_tss.ip,
                 nested ? OFFSET16(task16, task16_end) : OFFSET16(task16, task16_end) - 1);
        CHECK(!is_busy(TASK(0)) && is_busy(SEL_TSS));
        CHECK_EQ(desc_type(TASK(0)), D_TSS16);
        asm volatile("clts");
    }
}

const struct test guest_tests[] = {T(jump),
                                   T(jump_through_a_task_gate),
                                   T(call_and_iret),
                                   T(jump_leaves_one_busy),
                                   T(nested_calls),
                                   T(jump_saves_nt_as_it_is),
                                   T(int_n),
                                   T(exception_with_error_code),
                                   T(exception_without_error_code),
                                   T(task_at_cpl_3),
                                   T(call_from_cpl_3),
                                   T(task_with_an_ldt),
                                   T(trap_bit),
                                   T(trap_flag_of_the_new_task),
                                   T(local_breakpoints_end_with_the_task),
                                   T(sixteen_bit_task),
                                   {0, 0}};
