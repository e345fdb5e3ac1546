/*
 * shutdowns.c - every mode's way to a triple fault: each must reset the machine, once. What has
 * been done stands in RAM that no image covers and a reset keeps (SDM vol. 3, 6.15, interrupt 8).
 *
 * guest reboots: yes
 */
#include "paging32.h"
#include "real.h"
#include "task.h"
#include "v86.h"

static struct progress {
    uint32_t magic[2], stage;
} *const progress = (struct progress *)0x2000000;
enum { MAGIC_0 = 0x7e5e7e5e, MAGIC_1 = 0x0ddba115 };

static void load_idt(uint32_t base, unsigned limit)
{
    struct table_pointer idtr = {(uint16_t)limit, base};
    asm volatile("lidt %0" ::"m"(idtr));
}

/* ---- The ways ----------------------------------------------------------------------------------
 */

static void no_idt(void)
{
    load_idt(0, 0);
    asm volatile("ud2");
}

static void no_double_fault_gate(void)
{
    idt[V_GP].word[1] &= ~0x8000u;
    idt[V_DF].word[1] &= ~0x8000u;
    asm volatile("movl %0, %%eax; movw %%ax, %%fs" ::"r"(SEL_TSS) : "eax");
}

static void no_stack(void)
{
    gdt[FREE(0) / 8] = descriptor(0, 0xfff, D_DATA | D_BIG);
    asm volatile("movw %w0, %%ss; movl $2, %%esp; pushl $0" ::"r"(FREE(0)));
}

CODE32(at_cpl_3, "hlt");
static void no_inner_stack(void)
{
    rings_setup();
    tss[2] = SEL_UDATA;
    struct context c = context_ring((word)at_cpl_3, 3);
    context_enter(&c);
}

static void no_page_tables(void)
{
    paging_on();
    memset(page_directory, 0, sizeof(page_directory));
    write_cr3((word)page_directory);
    asm volatile("ud2");
}

static void double_fault_task_is_busy(void)
{
    task_new(0);
    gdt[TASK(0) / 8] |= 2ull << 40;
    set_gate(V_DF, 0, TASK(0), 5, 0, 0);
    idt[V_GP].word[1] &= ~0x8000u;
    asm volatile("movl %0, %%eax; movw %%ax, %%fs" ::"r"(SEL_TSS) : "eax");
}

/* The switch succeeds; then the new task's SS faults, and no stack is left for anything. */
static void double_fault_task_has_no_stack(void)
{
    struct tss32 *t = task_new(0);
    t->ss = 0;
    set_gate(V_DF, 0, TASK(0), 5, 0, 0);
    idt[V_GP].word[1] &= ~0x8000u;
    asm volatile("movl %0, %%eax; movw %%ax, %%fs" ::"r"(SEL_TSS) : "eax");
}

CODE16(v86_code, "hlt");
static void no_idt_in_v86(void)
{
    rings_setup();
    PLACE16(v86_code, V86_CODE << 4);
    load_idt(0, 0);
    struct context c = v86_context(2);
    context_enter(&c);
}

CODE16(real_code, "int $0x40");
static void no_table_in_real_mode(void)
{
    real_idtr.limit = 3; /* vector 0 only */
    RUN16(real_code, real_default());
}

/* PUSH with SP = 1 is #SS, whose frame does not fit either: FFFFh-10000h (20.1.4). */
CODE16(odd_stack, "pushw %ax");
static void odd_stack_in_real_mode(void)
{
    struct real_regs r = real_default();
    r.esp = 1;
    RUN16(odd_stack, r);
}

static const struct way {
    const char *name;
    void (*run)(void);
} ways[] = {{"no IDT", no_idt},
            {"no gate for #DF", no_double_fault_gate},
            {"no inner stack", no_inner_stack},
            {"no page tables", no_page_tables},
            {"the task for #DF is busy", double_fault_task_is_busy},
            {"the task for #DF has no stack", double_fault_task_has_no_stack},
            {"virtual-8086 mode, no IDT", no_idt_in_v86},
            {"real mode, no table", no_table_in_real_mode},
            /* These need segment limits, which QEMU's TCG lacks. */
            {"real mode, odd stack", odd_stack_in_real_mode},
            {"no stack", no_stack}};
enum { WAYS = sizeof(ways) / sizeof(ways[0]) };

TEST(each_resets_once)
{
    if (progress->magic[0] != MAGIC_0 || progress->magic[1] != MAGIC_1)
        *progress = (struct progress){{MAGIC_0, MAGIC_1}, 0};
    if (progress->stage == WAYS)
        return;
    const struct way *way = &ways[progress->stage++];
    print("  %s\n", way->name);
    way->run();
    print("  and the processor runs on\n");
    CHECK(false);
}

const struct test guest_tests[] = {T(each_resets_once), {0, 0}};
