/*
 * task.h - task state segments and a task that tells what it found (32-bit guests; SDM vol. 3, ch.
 * 7).
 *
 *     struct tss32 *t = task_new(0);              // TSS descriptor TASK(0), ready to run
 *     TASK_JMP(TASK(0));                          // there, and back by JMP
 *     CHECK_EQ(task_seen.tr, TASK(0));
 *
 * The task's code is task_entry: it notes its registers in task_seen and goes back as `task_exit`
 * says. When a fault in a task has ended a CATCH(), task_home() makes the guest's own TSS current
 * again. Uses FREE(0) to FREE(5). Included once per guest.
 */
#ifndef GUEST_TASK_H
#define GUEST_TASK_H

#include "rings.h"

struct tss32 {
    uint32_t link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags;
    uint32_t eax, ecx, edx, ebx, esp, ebp, esi, edi;
    uint32_t es, cs, ss, ds, fs, gs, ldt;
    uint16_t trap, io_map;
};
struct tss16 {
    uint16_t link, sp0, ss0, sp1, ss1, sp2, ss2, ip, flags;
    uint16_t ax, cx, dx, bx, sp, bp, si, di;
    uint16_t es, cs, ss, ds, ldt;
};
#define TASK(n)   FREE(n) /* n = 0-2 */
#define TASK_GATE FREE(3) /* to a task; task_gate() */
#define MAIN_TSS  ((struct tss32 *)tss)

enum { TASK_STACK = 4096 };
static struct tss32 task_tss[3] __attribute__((aligned(128), unused));
static char task_stack[3][TASK_STACK] __attribute__((aligned(16), unused));

/* What task_entry found, and what it shall do: IRET, or JMP to the guest's own TSS. */
static struct {
    struct {
        uint32_t edi, esi, ebp, esp, ebx, edx, ecx, eax, eflags;
    } regs;
    uint32_t cr0, dr7, es, cs, ss, ds, fs, gs;
    uint16_t tr, ldtr;
    unsigned runs;
} task_seen __attribute__((used));
static volatile unsigned task_exit __attribute__((unused));
enum { EXIT_JMP, EXIT_IRET };

static __attribute__((used)) void task_main(const uint32_t *image)
{
    memcpy(&task_seen.regs, image, sizeof(task_seen.regs));
    task_seen.cr0 = read_cr0();
    task_seen.dr7 = read_dr7();
    asm volatile("str %0; sldt %1" : "=m"(task_seen.tr), "=m"(task_seen.ldtr));
    asm volatile("movl %%cs, %0" : "=r"(task_seen.cs));
    asm volatile("movl %%ss, %0" : "=r"(task_seen.ss));
    asm volatile("movl %%ds, %0" : "=r"(task_seen.ds));
    asm volatile("movl %%es, %0" : "=r"(task_seen.es));
    asm volatile("movl %%fs, %0" : "=r"(task_seen.fs));
    asm volatile("movl %%gs, %0" : "=r"(task_seen.gs));
    task_seen.runs++;
}

/* Runs again from the top when the task is entered again. */
asm(".pushsection .text\n.code32\n" LABEL(
    task_entry) "pushfl; pushal; movl %esp, %eax; pushl %eax; call task_main; addl $4, %esp;"
                "cmpl $0, task_exit; jne 1f; popal; popfl\n" LABEL(
                    task_jumps) "ljmp $0x48, $0; jmp task_entry\n"
                                "1: popal; popfl\n" LABEL(task_irets) "iretl\n" LABEL(
                                    task_after_iret) "jmp task_entry\n"
                                                     ".popsection");

/* A 32-bit task at CPL 0 with registers that can be told apart. */
static __attribute__((unused)) struct tss32 *task_new(unsigned n)
{
    struct tss32 *t = &task_tss[n];
    *t = (struct tss32){.eip = SYMBOL(task_entry),
                        .eflags = 2,
                        .eax = 0xa0a0a0a0 + n,
                        .ecx = 0xc1c1c1c1 + n,
                        .edx = 0xd2d2d2d2 + n,
                        .ebx = 0xb3b3b3b3 + n,
                        .esp = (word)task_stack[n] + TASK_STACK,
                        .ebp = 0xb4b4b4b4 + n,
                        .esi = 0x56565656 + n,
                        .edi = 0xd7d7d7d7 + n,
                        .es = SEL_DATA,
                        .cs = SEL_CODE,
                        .ss = SEL_DATA,
                        .ds = SEL_DATA,
                        .esp0 = (word)task_stack[n] + TASK_STACK,
                        .ss0 = SEL_DATA,
                        .io_map = 104};
    gdt[TASK(n) / 8] = descriptor((word)t, 103, D_TSS32);
    task_exit = EXIT_JMP;
    return t;
}

/* The guest's own TSS is current, whatever was. */
static __attribute__((unused)) void task_home(void)
{
    gdt[SEL_TSS / 8] &= ~(2ull << 40);
    asm volatile("pushfl; andl $~0x4000, (%%esp); popfl; ltr %w0; clts" ::"r"(SEL_TSS)
                 : "memory", "cc");
}

static __attribute__((unused)) void task_gate(unsigned selector, unsigned dpl)
{
    gdt[TASK_GATE / 8] = gate(selector, 0, D_TASK_GATE | ATTR_DPL(dpl), 0);
}

/* Registers come back out of the TSS, FS and GS included. */
#define TASK_JMP(selector)                                                                         \
    asm volatile(LABEL(task_jmp_here) "ljmp %0, $0\n" LABEL(task_jmp_after) "clts" ::"i"(selector) \
                 : "memory", "cc")
#define TASK_CALL(selector)                                                                        \
    asm volatile(                                                                                  \
        LABEL(task_call_here) "lcall %0, $0\n" LABEL(task_call_after) "clts" ::"i"(selector)       \
        : "memory", "cc")

#endif
