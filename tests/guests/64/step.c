/*
 * step.c - single-stepping (RFLAGS.TF, DEBUGCTL.BTF) through everything that treats it specially
 * (SDM vol. 3, 17.3.1.4, 17.4.1, 17.4.3; vol. 2 under each name).
 */
#include "paging.h"
#include "trace.h"

enum { GATE = 0x60, SHOW = 0x62, MSR_DEBUGCTL = 0x1d9, DEBUGCTL_BTF = 2 };
#define MSR_STAR   0xc0000081u
#define MSR_LSTAR  0xc0000082u
#define MSR_SFMASK 0xc0000084u

/* ---- INT n, INT3, exceptions ----------------------------------------------------------------- */

static volatile word flags_in_handler, flags_in_frame, traps_in_handler;
static bool on_gate(struct frame *f)
{
    flags_in_handler = read_flags();
    flags_in_frame = f->rflags;
    traps_in_handler = traps;
    return true;
}

/* The handler runs without TF; the INT itself is not trapped, nor is the IRET, which brings TF
 * back: the next trap is one instruction further. */
TEST(through_int_n)
{
    listen(true, false);
    trap_handlers[GATE] = on_gate;
    asm volatile(STEP_ON "nop\n" LABEL(int_1) "int $0x60\n" LABEL(int_2) "nop\n" LABEL(int_3)
                     STEP_OFF ::
                         : "memory", "cc");
    CHECK_DEBUG(0, int_1, DR6_BS);
    CHECK_EQ(traps_in_handler, 1);
    CHECK_EQ(flags_in_handler & F_TF, 0);
    CHECK_EQ(flags_in_frame & F_TF, F_TF);
    CHECK_DEBUG(1, int_3, DR6_BS);
    CHECK_EQ(traps, 2 + STEP_OFF_TRAPS);
}

TEST(through_int3)
{
    listen(true, false);
    trap_handlers[V_BP] = on_gate;
    asm volatile(STEP_ON "int3\n" LABEL(bp_1) "nop\n" LABEL(bp_2) STEP_OFF ::: "memory", "cc");
    CHECK_EQ(traps_in_handler, 0);
    CHECK_DEBUG(0, bp_2, DR6_BS);
    trap_handlers[V_BP] = 0;
}

/* A fault has nothing to trap: the instruction has not been executed. TF is in its image. */
static bool skip_ud(struct frame *f)
{
    on_gate(f);
    f->rip += 2;
    return true;
}
TEST(through_a_fault)
{
    listen(true, false);
    trap_handlers[V_UD] = skip_ud;
    asm volatile(STEP_ON "ud2\n" LABEL(fault_1) "nop\n" LABEL(fault_2) STEP_OFF ::: "memory", "cc");
    CHECK_EQ(traps_in_handler, 0);
    CHECK_EQ(flags_in_frame & (F_TF | F_RF), F_TF | F_RF);
    CHECK_DEBUG(0, fault_2, DR6_BS);
    CHECK_EQ(seen[0].rflags & F_RF, 0); /* RF went with the NOP */
    trap_handlers[V_UD] = 0;
}

/* INT1 enters the same handler; DR6 has no BS of it, and it is not trapped behind. */
TEST(through_int1)
{
    listen(true, false);
    asm volatile(STEP_ON ".byte 0xf1\n" LABEL(ice_1) "nop\n" LABEL(ice_2) STEP_OFF ::
                     : "memory", "cc");
    CHECK_DEBUG(0, ice_1, 0);
    CHECK_DEBUG(1, ice_2, DR6_BS);
    CHECK_EQ(traps, 2 + STEP_OFF_TRAPS);
}

/* It ends steps from branch to branch, as any #DB. */
TEST(int1_ends_branch_steps)
{
    listen(false, false);
    wrmsr(MSR_DEBUGCTL, DEBUGCTL_BTF);
    asm volatile(".byte 0xf1");
    CHECK_EQ(traps, 1);
    CHECK_EQ(rdmsr(MSR_DEBUGCTL), 0);
    wrmsr(MSR_DEBUGCTL, 0);
}

/* ---- IRET, and code at CPL 3 ----------------------------------------------------------------- */

asm(LABEL(user_steps) "nop\n" LABEL(user_1) "mov $1, %eax\n" LABEL(
    user_2) "jmp 1f; nop\n1:\n" LABEL(user_3) "int $0x62");
TEST(iret_into_a_stepped_program)
{
    listen(true, false);
    set_gate(SHOW, (word)trap_stubs + 16 * SHOW, SEL_CODE, 14, 3, 0);
    struct context c = context_user(SYMBOL(user_steps));
    c.rflags |= F_TF;
    struct trap t = RUN(c);
    CHECK_EQ(t.vector, SHOW);
    CHECK_EQ(traps, 3);             /* the INT is not trapped */
    CHECK_DEBUG(0, user_1, DR6_BS); /* not at the IRET's target, one further */
    CHECK_DEBUG(1, user_2, DR6_BS);
    CHECK_DEBUG(2, user_3, DR6_BS);
    CHECK_EQ(seen[0].cs, SEL_UCODE);
    CHECK_EQ(t.rflags & F_TF, F_TF);
}

/* ---- SYSCALL, SYSRET ------------------------------------------------------------------------- */

asm(LABEL(step_syscall) "syscall\n" LABEL(step_syscall_1) "nop\n" LABEL(
    step_syscall_2) "int $0x62\n" LABEL(step_entry) "nop\n" LABEL(step_entry_1) "sysretq");

static struct trap step_through_syscall(word mask)
{
    listen(true, false);
    set_gate(SHOW, (word)trap_stubs + 16 * SHOW, SEL_CODE, 14, 3, 0);
    gdt[SEL_FREE / 8] = gdt[SEL_CODE64 / 8]; /* here the handler's IRET does read them */
    gdt[SEL_FREE / 8 + 1] = gdt[SEL_DATA / 8];
    wrmsr(MSR_STAR, 0x20ull << 48 | (uint64_t)SEL_FREE << 32);
    wrmsr(MSR_LSTAR, SYMBOL(step_entry));
    wrmsr(MSR_SFMASK, mask);
    struct context c = context_user(SYMBOL(step_syscall));
    c.rflags |= F_TF;
    struct trap t = RUN(c);
    asm volatile("mov %0, %%ss" ::"r"(SEL_DATA));
    return t;
}

/* SFMASK clears TF: no trap in the kernel. SYSRET brings it back and, unlike IRET, is trapped at
 * once. */
TEST(through_syscall_with_tf_masked)
{
    struct trap t = step_through_syscall(F_TF | F_IF);
    CHECK_EQ(t.vector, SHOW);
    CHECK_EQ(traps, 2);
    CHECK_DEBUG(0, step_syscall_1, DR6_BS);
    CHECK_EQ(seen[0].cs, SEL_UCODE64);
    CHECK_DEBUG(1, step_syscall_2, DR6_BS);
}

TEST(through_syscall_with_tf_not_masked)
{
    struct trap t = step_through_syscall(0);
    CHECK_EQ(t.vector, SHOW);
    CHECK_EQ(traps, 4);
    CHECK_DEBUG(0, step_entry, DR6_BS);
    CHECK_EQ(seen[0].cs, SEL_FREE);
    CHECK_DEBUG(1, step_entry_1, DR6_BS);
    CHECK_DEBUG(2, step_syscall_1, DR6_BS);
    CHECK_DEBUG(3, step_syscall_2, DR6_BS);
}

/* ---- MOV SS, STI ----------------------------------------------------------------------------- */

/* The trap behind MOV SS is dropped, the one behind the next instruction comes (6.8.3). */
TEST(through_mov_ss)
{
    listen(true, false);
    asm volatile(STEP_ON "nop\n" LABEL(ss_1) "mov %0, %%ss\n" LABEL(ss_2) "nop\n" LABEL(
                     ss_3) "nop\n" LABEL(ss_4) STEP_OFF ::"r"(SEL_DATA)
                 : "memory", "cc");
    CHECK_DEBUG(0, ss_1, DR6_BS);
    CHECK_DEBUG(1, ss_3, DR6_BS);
    CHECK_DEBUG(2, ss_4, DR6_BS);
    CHECK_EQ(traps, 3 + STEP_OFF_TRAPS);
}

/* STI holds interrupts off, not traps. */
TEST(through_sti)
{
    listen(true, false);
    asm volatile(STEP_ON "sti\n" LABEL(sti_1) "cli\n" LABEL(sti_2) STEP_OFF ::: "memory", "cc");
    CHECK_DEBUG(0, sti_1, DR6_BS);
    CHECK_DEBUG(1, sti_2, DR6_BS);
}

/* ---- REP ------------------------------------------------------------------------------------- */

/* A trap behind each iteration; RF is set in the image of all but the last (17.3.1.1). */
TEST(through_rep)
{
    static char from[5] = "abcd", to[5];
    listen(true, false);
    asm volatile(STEP_ON LABEL(rep_0) "rep movsb\n" LABEL(rep_1) STEP_OFF ::"S"(from), "D"(to),
                 "c"(4ul)
                 : "memory", "cc");
    CHECK_EQ(traps, 4 + STEP_OFF_TRAPS);
    for (unsigned i = 0; i < 4; i++) {
        CHECK_EQ(seen[i].rip, i < 3 ? SYMBOL(rep_0) : SYMBOL(rep_1));
        CHECK_EQ(seen[i].rcx, 3 - i);
        CHECK_EQ(seen[i].rflags & F_RF, i < 3 ? F_RF : 0);
    }
    CHECK_EQ(memcmp(from, to, 4), 0);
}

TEST(through_rep_with_nothing_to_do)
{
    listen(true, false);
    asm volatile(STEP_ON LABEL(rep0_0) "rep stosb\n" LABEL(rep0_1) STEP_OFF ::"D"(0), "c"(0ul),
                 "a"(0)
                 : "memory", "cc");
    CHECK_DEBUG(0, rep0_1, DR6_BS);
    CHECK_EQ(traps, 1 + STEP_OFF_TRAPS);
}

TEST(through_repne_scas)
{
    static const char text[] = "xxy";
    listen(true, false);
    word rcx = 10;
    asm volatile(STEP_ON LABEL(scas_0) "repne scasb\n" LABEL(scas_1) STEP_OFF
                 : "+c"(rcx)
                 : "D"(text), "a"('y')
                 : "memory", "cc");
    CHECK_EQ(rcx, 7);
    CHECK_EQ(traps, 3 + STEP_OFF_TRAPS);
    CHECK_EQ(seen[1].rip, SYMBOL(scas_0));
    CHECK_EQ(seen[2].rip, SYMBOL(scas_1));
}

/* Between two iterations, and in a fault behind, flags are those from before the instruction on
 * Intel's processors, those of the iteration on AMD's (SDM vol. 2, REP). */
static volatile word flags_of_fault;
static bool leave_scas(struct frame *f)
{
    flags_of_fault = f->rflags;
    f->rip = SYMBOL(scas_flags_1);
    return true;
}
TEST(flags_within_repne_scas)
{
    enum { SHOWN = 0xc5, OF_XOR = 0x44, OF_SCAS = 0x85 }; /* SF ZF PF CF; SCAS is 0 - 7Fh */
    uint8_t *end = hole();
    word want = is_amd() ? OF_SCAS : OF_XOR;
    memset(end - 3, 0x7f, 3);
    listen(true, false);
    trap_handlers[V_PF] = leave_scas;
    asm volatile("xor %%eax, %%eax\n" STEP_ON LABEL(scas_flags_0) "repne scasb\n" LABEL(
                     scas_flags_1) STEP_OFF
                 :
                 : "D"(end - 3), "c"(10)
                 : "rax", "memory", "cc");
    trap_handlers[V_PF] = 0;
    for (unsigned i = 0; i < 3; i++) {
        CHECK_EQ(seen[i].rip, SYMBOL(scas_flags_0));
        CHECK_EQ(seen[i].rflags & SHOWN, want);
    }
    CHECK_EQ(flags_of_fault & SHOWN, want);
}

/* ---- HLT ------------------------------------------------------------------------------------- */

/* The trap ends the halt at once. */
TEST(through_hlt)
{
    listen(true, false);
    asm volatile(STEP_ON "hlt\n" LABEL(hlt_1) STEP_OFF ::: "memory", "cc");
    CHECK_DEBUG(0, hlt_1, DR6_BS);
    CHECK_EQ(traps, 1 + STEP_OFF_TRAPS);
}

/* ---- TF and DR6 ------------------------------------------------------------------------------ */

/* The handler decides: TF off in the image ends it after one. */
TEST(one_step)
{
    listen(false, false);
    asm volatile(STEP_ON "nop\n" LABEL(one_1) "nop; nop" ::: "memory", "cc");
    CHECK_DEBUG(0, one_1, DR6_BS);
    CHECK_EQ(traps, 1);
}

/* A data breakpoint hit by the stepped instruction: one #DB for both. */
TEST(step_and_breakpoint_together)
{
    static uint64_t watched;
    listen(false, false);
    write_dr1((word)&watched);
    write_dr7(0x408 | 0x900000); /* G1, writes, 8 bytes */
    asm volatile(STEP_ON "movb $1, %0\n" LABEL(both_1) "nop; nop" : "=m"(watched)::"memory", "cc");
    write_dr7(0x400);
    CHECK_EQ(traps, 1);
    CHECK_DEBUG(0, both_1, DR6_BS | DR6_B1);
}

/* The processor sets BS and never clears it. */
static bool keep_dr6(struct frame *f)
{
    seen[traps & 63].dr6 = read_dr6();
    traps++;
    f->rflags &= ~(word)F_TF;
    return true;
}
TEST(bs_is_sticky)
{
    static uint64_t watched;
    listen(false, false);
    trap_handlers[V_DB] = keep_dr6;
    asm volatile(STEP_ON "nop; nop" ::: "memory", "cc");
    CHECK_EQ(seen[0].dr6 & 0xe00f, DR6_BS);
    write_dr0((word)&watched);
    write_dr7(0x402 | 0x10000);
    asm volatile("movb $1, %0; nop" : "=m"(watched));
    write_dr7(0x400);
    CHECK_EQ(traps, 2);
    CHECK_EQ(seen[1].dr6 & 0xe00f, DR6_BS | DR6_B0);
    write_dr6(DR6_CLEAR);
}

/* ---- DEBUGCTL.BTF ---------------------------------------------------------------------------- */

/* Steps from one taken branch to the next; the trap clears BTF (17.4.1). */
static bool rearm_btf(struct frame *f)
{
    seen[traps & 63].rflags = rdmsr(MSR_DEBUGCTL);
    seen[traps & 63].rip = f->rip;
    traps++;
    wrmsr(MSR_DEBUGCTL, DEBUGCTL_BTF);
    write_dr6(DR6_CLEAR);
    return true;
}
TEST(branch_steps)
{
    listen(true, false);
    trap_handlers[V_DB] = rearm_btf;
    wrmsr(MSR_DEBUGCTL, DEBUGCTL_BTF);
    asm volatile(
        STEP_ON
        "nop; xor %%eax, %%eax; jnz 9f; jz 1f; nop\n"
        "1:\n" LABEL(
            btf_1) "nop; jmp 2f; nop\n"
                   "2:\n" LABEL(btf_2) "nop; call 3f\n" LABEL(
                       btf_4) "nop; jmp 4f; nop\n"
                              "3:\n" LABEL(
                                  btf_3) "nop; nop; ret\n"
                                         "4:\n" LABEL(
                                             btf_5) "mov $2, %%ecx; 5: nop; loop 5b\n" STEP_OFF
                                                    "9:" ::
                                                        : "eax", "ecx", "memory", "cc");
    wrmsr(MSR_DEBUGCTL, 0);
    CHECK_EQ(seen[0].rip, SYMBOL(btf_1));
    CHECK_EQ(seen[0].rflags & DEBUGCTL_BTF, 0);
    CHECK_EQ(seen[1].rip, SYMBOL(btf_2));
    CHECK_EQ(seen[2].rip, SYMBOL(btf_3));
    CHECK_EQ(seen[3].rip, SYMBOL(btf_4));
    CHECK_EQ(seen[4].rip, SYMBOL(btf_5));
    CHECK_EQ(traps, 6); /* and one LOOP that is taken */
}

/* Branches to the next instruction are branches, too; those that are not taken are none. */
extern const char to_the_next[], next_1[], next_2[], next_3[], next_4[], next_5[], next_6[];
asm("to_the_next: call next_1\n"
    "next_1: pop %rax; jmp next_2\n"
    "next_2: xor %eax, %eax; jnz 1f\n"
    "1: jz next_3\n"
    "next_3: lea next_4(%rip), %rax; jmp *%rax\n"
    "next_4: mov $1, %ecx; loop 2f\n"
    "2: inc %ecx; jrcxz 3f\n"
    "3: loop 4f\n"
    "4: mov $2, %ecx; loop next_5\n"
    "next_5: dec %ecx; jrcxz next_6\n"
    "next_6: jmp *%rbx");
TEST(branch_steps_to_the_next_instruction)
{
    const char *const places[] = {to_the_next, next_1, next_2, next_3, next_4, next_5, next_6};
    listen(true, false);
    trap_handlers[V_DB] = rearm_btf;
    wrmsr(MSR_DEBUGCTL, DEBUGCTL_BTF);
    asm volatile("lea 1f(%%rip), %%rbx\n" STEP_ON "jmp *%0\n1:\n" STEP_OFF
                 :
                 : "r"(to_the_next)
                 : "rax", "rbx", "rcx", "memory", "cc");
    wrmsr(MSR_DEBUGCTL, 0);
    CHECK_EQ(traps, 8); /* with the jump back */
    for (unsigned i = 0; i < 7; i++)
        CHECK_EQ(seen[i].rip, (word)places[i]);
}

const struct test guest_tests[] = {T(through_int_n),
                                   T(through_int3),
                                   T(through_a_fault),
                                   T(through_int1),
                                   T(int1_ends_branch_steps),
                                   T(iret_into_a_stepped_program),
                                   T(through_syscall_with_tf_masked),
                                   T(through_syscall_with_tf_not_masked),
                                   T(through_mov_ss),
                                   T(through_sti),
                                   T(through_rep),
                                   T(through_rep_with_nothing_to_do),
                                   T(through_repne_scas),
                                   T(flags_within_repne_scas),
                                   T(through_hlt),
                                   T(one_step),
                                   T(step_and_breakpoint_together),
                                   T(bs_is_sticky),
                                   T(branch_steps),
                                   T(branch_steps_to_the_next_instruction),
                                   {0, 0}};
