/*
 * system_pages.c - what the processor itself reads and writes where a page ends: frames of
 * deliveries and call gates, parameters, descriptors, TSSs; and CR3 out of a TSS (SDM vol. 3, 4.6,
 * 7.3).
 *
 * Page faults that hit the ring-0 stack arrive in task 1. QEMU knows no RF, and does not prove that
 * both TSSs can be written before it begins.
 */
#include "paging32.h"
#include "task.h"

/* ---- Page faults in a task ---------------------------------------------------------------------
 */

static uint32_t pf_error __attribute__((used)), pf_count __attribute__((used));

static struct tss32 fault_state; /* what main's TSS held when the fault had come */
static word fault_cr2;
static struct catch_buffer resume;

/* Main's TSS now describes the faulting context; task 1 has to bring C back instead. */
static __attribute__((used)) void pf_main(void)
{
    fault_state = *MAIN_TSS;
    fault_cr2 = read_cr2();
    task_home();
    catch_leave(&resume);
}
CODE32(pf_to_c, "popl pf_error; incl pf_count; call pf_main");

static void faults_to_a_task(void)
{
    struct tss32 *t = task_new(1);
    t->eip = (word)pf_to_c;
    t->cr3 = (word)page_directory;
    MAIN_TSS->cr3 = (word)page_directory;
    pf_count = 0;
    set_gate(V_PF, 0, TASK(1), 5, 0, 0);
}
static void faults_as_usual(void)
{
    set_gate(V_PF, (word)trap_stubs + 16 * V_PF, SEL_CODE, 14, 0, 0);
    MAIN_TSS->cr3 = 0;
}

/* Enters the context; true when it ended in a page fault that task 1 took. */
static __attribute__((noinline, noclone)) bool faults(const struct context *c)
{
    faults_to_a_task();
    if (!catch_enter(&resume)) {
        context_run(c);
        faults_as_usual();
        return false;
    }
    faults_as_usual();
    return true;
}

static void setup(void)
{
    rings_setup();
    paging_on();
}

/* ---- Frames of deliveries ----------------------------------------------------------------------
 */

CODE32(int_40, LABEL(int_40_here) "int $0x40\n" LABEL(int_40_after) "int3");

TEST(inner_frame_across_pages)
{
    const uint32_t esp0 = tss[1];
    setup();
    set_gate(0x40, (word)trap_stubs + 16 * 0x40, SEL_CODE, 14, 3, 0);
    struct context c = context_ring((word)int_40, 3);
    /* The frame of 20 bytes, n of them above the boundary between pages 1 and 2. */
    for (unsigned n = 0; n < 20; n++) {
        for (unsigned absent = 0; absent < 2; absent++) {
            window_set(1, absent ? 0 : PG_P | PG_U); /* absent, or read-only (CR0.WP) */
            window_set(2, PG_ALL);
            tss[1] = (word)WINDOW(2) + n;
            bool fault = faults(&c);
            tss[1] = esp0;
            CHECK(fault);
            CHECK_EQ(pf_count, 1);
            CHECK_EQ(pf_error, PF_W | (absent ? 0 : PF_P));
            /* Items go down from ESP0: the first that touches page 1 decides; of one that crosses
             * the boundary it is the first byte. */
            word cr2 = (word)WINDOW(2) + n % 4 - 4;
            CHECK_EQ(fault_cr2, cr2);
            CHECK_EQ(fault_state.eip, SYMBOL(int_40_here)); /* INT n will run again */
            CHECK_EQ(fault_state.cs, SEL_UCODE);
            CHECK_EQ(fault_state.ss, SEL_UDATA);
            CHECK_EQ(fault_state.esp, c.rsp);
            CHECK_EQ(fault_state.eflags & F_RF, F_RF);
        }
    }
    paging_off();
}

/* Shows ESP, then ends the run on a stack where the stubs have room. */
static uint32_t good_esp __attribute__((used));
CODE32(show_esp, "movl %esp, %eax; movl good_esp, %esp; int3");

TEST(inner_frame_across_two_good_pages)
{
    const uint32_t esp0 = tss[1];
    setup();
    good_esp = esp0;
    for (unsigned n = 0; n <= 20; n++) {
        set_gate(0x40, (word)show_esp, SEL_CODE, 14, 3, 0);
        struct context c = context_ring((word)int_40, 3);
        tss[1] = (word)WINDOW(2) + n;
        memset(BEHIND(1), 0, 4096);
        memset(BEHIND(2), 0, 64);
        struct trap t = RUN(c);
        tss[1] = esp0;
        CHECK_EQ(t.vector, V_BP);
        CHECK_EQ(t.frame.rax, (word)WINDOW(2) + n - 20);
        uint32_t frame[5];
        memcpy(frame, (void *)t.frame.rax, 20);
        CHECK_EQ(frame[0], SYMBOL(int_40_after));
        CHECK_EQ(frame[1], SEL_UCODE);
        CHECK_EQ(frame[3], c.rsp);
        CHECK_EQ(frame[4], SEL_UDATA);
    }
    paging_off();
}
/* At the same level: from CPL 0, with the rest of the stack on an absent page. */
CODE32(int_at_0, "movl %ebx, %esp\n" LABEL(int_at_0_here) "int $0x40");

TEST(same_level_frame_across_pages)
{
    setup();
    set_gate(0x40, (word)trap_stubs + 16 * 0x40, SEL_CODE, 14, 0, 0);
    struct context c = context_ring((word)int_at_0, 0);
    for (unsigned n = 0; n < 12; n++) {
        window_set(1, 0);
        c.rbx = (word)WINDOW(2) + n;
        CHECK(faults(&c));
        CHECK_EQ(pf_error, PF_W);
        CHECK_EQ(fault_cr2, (word)WINDOW(2) + n % 4 - 4);
        CHECK_EQ(fault_state.eip, SYMBOL(int_at_0_here));
        CHECK_EQ(fault_state.esp, c.rbx); /* unmoved */
    }
    paging_off();
}

/* ---- Call gates --------------------------------------------------------------------------------
 */

static uint32_t pointer[2];
CODE32(call, LABEL(call_here) "lcall *(%ebx)\n" LABEL(call_after) "int3");
CODE32(arrive, "int3");

static struct context gate_call(unsigned count)
{
    gdt[FREE(6) / 8] = gate(ring_code(1) & ~3u, (word)arrive, D_CALL32 | D_DPL3, count);
    struct context c = context_ring((word)call, 3);
    pointer[1] = FREE(6) | 3;
    c.rbx = (word)pointer;
    return c;
}

TEST(parameters_on_an_absent_page)
{
    setup();
    struct context c = gate_call(4);
    c.rsp = (word)WINDOW(2) - 8; /* two parameters here, two there */
    window_set(2, 0);
    struct trap t = RUN(c);
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.error,
             PF_U); /* no system structure, so a user's access (4.6.1); QEMU: supervisor's */
    CHECK_EQ(t.cr2 & ~3u, (word)WINDOW(2) | (t.cr2 & 4)); /* in what order is not said */
    CHECK_EQ(t.rip, SYMBOL(call_here));
    CHECK_EQ(t.rsp, c.rsp);
    CHECK_EQ(t.cs, SEL_UCODE);
    window_set(2, PG_ALL);
    t = RUN(c);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.cs, ring_code(1));
    paging_off();
}

TEST(gate_frame_on_an_absent_page)
{
    const uint32_t esp1 = tss[3];
    setup();
    struct context c = gate_call(3);
    for (unsigned n = 0; n < 28; n += 4) {
        tss[3] = (word)WINDOW(2) + n;
        window_set(1, 0);
        struct trap t = RUN(c);
        CHECK_EQ(t.vector, V_PF);
        CHECK_EQ(t.error, PF_W); /* by CPL 1: supervisor */
        CHECK_EQ(t.cr2, (word)WINDOW(2) - 4);
        CHECK_EQ(t.rip, SYMBOL(call_here));
        CHECK_EQ(t.rsp, c.rsp);
        CHECK_EQ(t.ss, SEL_UDATA);
        window_set(1, PG_ALL); /* and it runs as if nothing had been */
        t = RUN(c);
        CHECK_EQ(t.vector, V_BP);
        CHECK_EQ(t.rsp, (word)WINDOW(2) + n - 28);
        uint32_t frame[7];
        memcpy(frame, (void *)t.rsp, sizeof(frame));
        CHECK_EQ(frame[0], SYMBOL(call_after));
        CHECK_EQ(frame[5], c.rsp);
        CHECK_EQ(frame[6], SEL_UDATA);
    }
    tss[3] = esp1;
    paging_off();
}

/* ---- Descriptors -------------------------------------------------------------------------------
 */

CODE32(load_es, LABEL(load_es_here) "movw %ax, %es; int3");

TEST(descriptor_across_pages)
{
    setup();
    /* An LDT whose entry 1 lies across the boundary. */
    uint64_t entry = descriptor(0, 0xfffff, (D_DATA | FLAT | D_DPL3) & ~1u);
    gdt[FREE(6) / 8] = descriptor((word)WINDOW(2) - 12, 31, D_LDT);
    memcpy(WINDOW(2) - 4, &entry, 8);
    asm volatile("lldt %w0" ::"r"(FREE(6)) : "memory");
    struct context c = context_ring((word)load_es, 3);
    c.rax = LDT_ENTRY(1) | 3;
    window_set(2, 0);
    struct trap t = RUN(c);
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.error, 0); /* the processor's own read, CPL 3 or not */
    CHECK_EQ(t.cr2, (word)WINDOW(2));
    CHECK_EQ(t.rip, SYMBOL(load_es_here));
    window_set(2, PG_P); /* supervisor's, read-only: the accessed bit cannot be set (CR0.WP) */
    t = RUN(c);
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.error, PF_P | PF_W);
    CHECK_EQ(t.rip, SYMBOL(load_es_here));
    window_set(2, PG_P | PG_W);
    t = RUN(c);
    CHECK_EQ(t.vector, V_BP);
    memcpy(&entry, WINDOW(2) - 4, 8);
    CHECK_EQ(entry >> 40 & 1, 1);
    window_set(2, PG_P); /* it is set: nothing to be written */
    CHECK_EQ(RUN(c).vector, V_BP);
    asm volatile("lldt %w0" ::"r"(0) : "memory");
    paging_off();
}

/* ---- Task switches -----------------------------------------------------------------------------
 */

static struct tss32 *window_task(uint8_t *at)
{
    struct tss32 *t = task_new(0), *copy = (struct tss32 *)at;
    t->cr3 = (word)page_directory;
    MAIN_TSS->cr3 = (word)page_directory;
    memcpy(copy, t, sizeof(*t));
    gdt[TASK(0) / 8] = descriptor((word)at, 103, D_TSS32);
    return copy;
}

static __attribute__((noinline, noclone)) void jump_to_task(void)
{
    asm volatile(LABEL(jump_here) "ljmp %0, $0" ::"i"(TASK(0)) : "memory", "cc");
    asm volatile("clts");
}
static __attribute__((noinline, noclone)) void call_task(void)
{
    asm volatile(LABEL(call_task_here) "lcall %0, $0" ::"i"(TASK(0)) : "memory", "cc");
    asm volatile("clts");
}

/* The fault belongs to the old task: everything is as it was. */
static void check_no_switch(struct trap t, word cr2, unsigned error, word rip)
{
    uint16_t tr;
    asm volatile("str %0" : "=m"(tr));
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.error, error);
    CHECK_EQ(t.cr2, cr2);
    CHECK_EQ(t.rip, rip);
    CHECK_EQ(tr, SEL_TSS);
    CHECK_EQ(read_cr0() & 8, 0);
    CHECK_EQ(desc_type(SEL_TSS), D_TSS32 | D_BUSY);
    CHECK_EQ(desc_type(TASK(0)), D_TSS32);
}

TEST(new_tss_on_absent_pages)
{
    setup();
    asm volatile("clts");
    window_task(WINDOW(2) - 52);
    window_set(2, 0); /* the second half */
    check_no_switch(CATCH(jump_to_task()), (word)WINDOW(2), 0, SYMBOL(jump_here));
    check_no_switch(CATCH(call_task()), (word)WINDOW(2), 0, SYMBOL(call_task_here));
    window_set(2, PG_ALL);
    window_set(1, 0);
    struct trap t = CATCH(jump_to_task());
    CHECK(t.cr2 >= (word)WINDOW(2) - 52 && t.cr2 < (word)WINDOW(2));
    check_no_switch(t, t.cr2, 0, SYMBOL(jump_here));
    /* CALL writes the link, and so needs a page that can be written. */
    window_set(1, PG_P);
    check_no_switch(CATCH(call_task()), (word)WINDOW(2) - 52, PF_P | PF_W, SYMBOL(call_task_here));
    window_set(1, PG_ALL);
    unsigned runs = task_seen.runs;
    jump_to_task();
    CHECK_EQ(task_seen.runs, runs + 1);
    CHECK_EQ(task_seen.regs.edi, 0xd7d7d7d7);
    MAIN_TSS->cr3 = 0;
    paging_off();
}

/* The old task's TSS cannot take its registers. */
TEST(old_tss_on_read_only_pages)
{
    setup();
    struct tss32 *t = task_new(0);
    t->cr3 = (word)page_directory;
    memcpy(WINDOW(1), MAIN_TSS, 104);
    ((struct tss32 *)WINDOW(1))->cr3 = (word)page_directory;
    gdt[SEL_TSS / 8] = descriptor((word)WINDOW(1), 103, D_TSS32);
    asm volatile("ltr %w0; clts" ::"r"(SEL_TSS) : "memory");
    window_set(1, PG_P);
    struct trap trap = CATCH(jump_to_task());
    CHECK(trap.cr2 >= (word)WINDOW(1) + 0x20 && trap.cr2 < (word)WINDOW(1) + 0x60);
    check_no_switch(trap, trap.cr2, PF_P | PF_W, SYMBOL(jump_here));
    window_set(1, PG_ALL);
    unsigned runs = task_seen.runs;
    jump_to_task();
    CHECK_EQ(task_seen.runs, runs + 1);
    gdt[SEL_TSS / 8] = descriptor((word)tss, 103, D_TSS32);
    asm volatile("ltr %w0" ::"r"(SEL_TSS) : "memory");
    paging_off();
}

TEST(tss_descriptors_that_cannot_be_written)
{
    struct __attribute__((packed)) {
        uint16_t limit;
        uint32_t base;
    } gdtr = {FREE(21) + 7, (word)WINDOW(3)};
    setup();
    struct tss32 *t = task_new(0);
    t->cr3 = (word)page_directory;
    MAIN_TSS->cr3 = (word)page_directory;
    memcpy(WINDOW(3), gdt, FREE(21) + 8);
    asm volatile("lgdt %0; clts" ::"m"(gdtr) : "memory");
    window_set(3, PG_P); /* no busy bit can be set */
    struct trap trap = CATCH(jump_to_task());
    CHECK_EQ(trap.vector, V_PF);
    CHECK_EQ(trap.error, PF_P | PF_W);
    CHECK_EQ(trap.rip, SYMBOL(jump_here));
    CHECK_EQ(WINDOW(3)[SEL_TSS + 5], D_TSS32 | D_BUSY);
    CHECK_EQ(WINDOW(3)[TASK(0) + 5], D_TSS32);
    gdtr.base = (word)gdt;
    asm volatile("lgdt %0" ::"m"(gdtr) : "memory");
    MAIN_TSS->cr3 = 0;
    paging_off();
}

/* The GDT across two pages, the old TSS's descriptor on the first, the new one's on the second,
 * which is read-only: neither busy bit changes. */
TEST(second_tss_descriptor_cannot_be_written)
{
    struct __attribute__((packed)) {
        uint16_t limit;
        uint32_t base;
    } gdtr = {FREE(21) + 7, (word)WINDOW(4) - FREE(0)};
    setup();
    struct tss32 *t = task_new(0);
    t->cr3 = (word)page_directory;
    MAIN_TSS->cr3 = (word)page_directory;
    CHECK_EQ(TASK(0), FREE(0));
    memcpy((void *)gdtr.base, gdt, FREE(21) + 8);
    asm volatile("lgdt %0; clts" ::"m"(gdtr) : "memory");
    window_set(4, PG_P);
    const uint8_t *old_type = (const uint8_t *)gdtr.base + SEL_TSS + 5;
    const uint8_t *new_type = (const uint8_t *)gdtr.base + TASK(0) + 5;
    struct trap trap = CATCH(jump_to_task());
    CHECK_EQ(trap.vector, V_PF);
    CHECK_EQ(trap.error, PF_P | PF_W);
    CHECK_EQ(trap.rip, SYMBOL(jump_here));
    CHECK_EQ(*(const volatile uint8_t *)old_type, D_TSS32 | D_BUSY);
    CHECK_EQ(*(const volatile uint8_t *)new_type, D_TSS32);
    window_set(4, PG_ALL);
    unsigned runs = task_seen.runs;
    jump_to_task();
    CHECK_EQ(task_seen.runs, runs + 1);
    memcpy(gdt, (void *)gdtr.base, FREE(21) + 8);
    gdtr.base = (word)gdt;
    asm volatile("lgdt %0" ::"m"(gdtr) : "memory");
    MAIN_TSS->cr3 = 0;
    paging_off();
}

/* ---- CR3 ---------------------------------------------------------------------------------------
 */

static uint32_t other_directory[1024] __attribute__((aligned(4096)));
static uint32_t other_table[1024] __attribute__((aligned(4096)));
static uint32_t seen_word __attribute__((used)), seen_cr3 __attribute__((used));
CODE32(look, "movl 0x40000000, %eax; movl %eax, seen_word; movl %cr3, %eax; movl %eax, seen_cr3;"
             "jmp task_entry");

TEST(cr3_changes_with_the_task)
{
    setup();
    directory_fill(other_directory, other_table);
    other_table[0] = (word)BEHIND(5) | PG_ALL;
    *(uint32_t *)BEHIND(0) = 0x11111111;
    *(uint32_t *)BEHIND(5) = 0x55555555;
    struct tss32 *t = task_new(0);
    t->eip = (word)look;
    t->cr3 = (word)other_directory;
    MAIN_TSS->cr3 = (word)page_directory;
    CHECK_EQ(*(volatile uint32_t *)WINDOW(0), 0x11111111);
    jump_to_task();
    CHECK_EQ(seen_word, 0x55555555);
    CHECK_EQ(seen_cr3, (word)other_directory);
    CHECK_EQ(read_cr3(), (word)page_directory);
    CHECK_EQ(*(volatile uint32_t *)WINDOW(0), 0x11111111);
    CHECK_EQ(t->cr3, (word)other_directory); /* CR3 is not saved */
    /* A change of the tables without INVLPG counts after the switch, as after MOV CR3. */
    other_table[0] = (word)BEHIND(6) | PG_ALL;
    *(uint32_t *)BEHIND(6) = 0x66666666;
    t->eip = (word)look;
    jump_to_task();
    CHECK_EQ(seen_word, 0x66666666);
    MAIN_TSS->cr3 = 0;
    paging_off();
}

/* With paging off the field means nothing. */
TEST(cr3_stays_without_paging)
{
    setup();
    paging_off();
    struct tss32 *t = task_new(0);
    t->eip = (word)look;
    t->cr3 = 0x123000;
    word before = read_cr3();
    jump_to_task();
    CHECK_EQ(seen_cr3, before);
    CHECK_EQ(read_cr3(), before);
}

/* The new task's LDT is read through its own tables. */
TEST(ldt_in_the_new_address_space)
{
    setup();
    directory_fill(other_directory, other_table);
    other_table[0] = (word)BEHIND(5) | PG_ALL;
    *(uint64_t *)BEHIND(0) = descriptor(0, 0xfffff, D_CODE | FLAT);
    *(uint64_t *)BEHIND(5) = descriptor(0, 0xfffff, D_DATA | FLAT);
    struct tss32 *t = task_new(0);
    gdt[FREE(6) / 8] = descriptor(WINDOW_BASE, 7, D_LDT);
    t->ldt = FREE(6);
    t->ss = t->ds = t->es = LDT_ENTRY(0); /* data there, code here */
    t->cr3 = (word)other_directory;
    MAIN_TSS->cr3 = (word)page_directory;
    unsigned runs = task_seen.runs;
    jump_to_task();
    CHECK_EQ(task_seen.runs, runs + 1);
    CHECK_EQ(task_seen.ss, LDT_ENTRY(0));
    MAIN_TSS->cr3 = 0;
    paging_off();
}

const struct test guest_tests[] = {T(inner_frame_across_pages),
                                   T(inner_frame_across_two_good_pages),
                                   T(same_level_frame_across_pages),
                                   T(parameters_on_an_absent_page),
                                   T(gate_frame_on_an_absent_page),
                                   T(descriptor_across_pages),
                                   T(new_tss_on_absent_pages),
                                   T(old_tss_on_read_only_pages),
                                   T(tss_descriptors_that_cannot_be_written),
                                   T(second_tss_descriptor_cannot_be_written),
                                   T(cr3_changes_with_the_task),
                                   T(cr3_stays_without_paging),
                                   T(ldt_in_the_new_address_space),
                                   {0, 0}};
