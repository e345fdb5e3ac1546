/*
 * debug.c - single-step traps, hardware breakpoints, interrupt shadows, alignment checks, illegal
 * encodings in 64-bit mode (SDM vol. 3, 17.2, 17.3, 6.8.3, 6.15).
 */
#include "guest.h"

enum { DB = 1, GP = 13, AC = 17, UD = 6, DR6_B0 = 1, DR6_BD = 1 << 13, DR6_BS = 1 << 14 };

/* What each #DB saw; the handler goes on. */
static struct {
    word rip, dr6, rflags;
} seen[64];
static unsigned traps;

static bool note_debug(struct frame *f)
{
    if (traps < 64) {
        seen[traps].rip = f->rip;
        seen[traps].dr6 = read_dr6();
        seen[traps].rflags = f->rflags;
    }
    traps++;
    f->rflags |= 0x10000; /* past an instruction breakpoint; for the traps it means nothing */
    write_dr6(0xffff0ff0);
    return true;
}

static void listen(void)
{
    traps = 0;
    write_dr6(0xffff0ff0);
    trap_handlers[DB] = note_debug;
}

TEST(single_step_traps_behind_each_instruction)
{
    listen();
    asm volatile(
        "pushf; orl $0x100, (%%rsp); popf\n" LABEL(step_1) "nop\n" LABEL(step_2) "nop\n" LABEL(
            step_3) "pushf; andl $~0x100, (%%rsp); popf\n" LABEL(step_end) "nop" ::
            : "cc", "memory");
    CHECK_EQ(seen[0].rip, SYMBOL(step_2)); /* POPF that sets TF is not trapped itself */
    CHECK_EQ(seen[1].rip, SYMBOL(step_3));
    CHECK_EQ(traps, 5); /* the two NOPs, PUSHF, AND, and the POPF that clears it */
    CHECK_EQ(seen[4].rip, SYMBOL(step_end));
    CHECK_EQ(seen[0].dr6 & (DR6_BS | 15), DR6_BS);
    CHECK_EQ(seen[0].rflags & 0x100, 0x100); /* saved with TF, although the handler runs without */
}

TEST(mov_ss_delays_the_single_step)
{
    listen();
    asm volatile("mov %%ss, %%eax; pushf; orl $0x100, (%%rsp); popf\n"
                 "mov %%eax, %%ss\n" LABEL(ss_next) "nop\n" LABEL(
                     ss_after) "pushf; andl $~0x100, (%%rsp); popf" ::
                     : "eax", "cc", "memory");
    CHECK_EQ(seen[0].rip, SYMBOL(ss_after)); /* none between MOV SS and the NOP */
}

TEST(single_step_of_a_repeated_instruction_stops_at_each_iteration)
{
    static char from[4] = "abc", to[4];
    listen();
    asm volatile("pushf; orl $0x100, (%%rsp); popf\n" LABEL(rep_here) "rep movsb\n" LABEL(
                     rep_after) "pushf; andl $~0x100, (%%rsp); popf" ::"S"(from),
                 "D"(to), "c"(4L)
                 : "cc", "memory");
    CHECK_EQ(seen[0].rip, SYMBOL(rep_here));
    CHECK_EQ(seen[2].rip, SYMBOL(rep_here));
    CHECK_EQ(seen[3].rip, SYMBOL(rep_after));
    CHECK_EQ(memcmp(from, to, 4), 0);
}

TEST(instruction_breakpoint_is_a_fault_that_rf_steps_over)
{
    listen();
    write_dr0(SYMBOL(code_break));
    write_dr7(0x403); /* L0, G0, execute */
    unsigned ran = 0;
    asm volatile(LABEL(code_break) "incl %0" : "+r"(ran)::"cc");
    write_dr7(0x400);
    CHECK_EQ(traps, 1); /* the handler set RF, so the IRET goes on */
    CHECK_EQ(ran, 1);
    CHECK_EQ(seen[0].rip, SYMBOL(code_break));
    CHECK_EQ(seen[0].dr6 & 15, DR6_B0);
    CHECK_EQ(seen[0].rflags & 0x10000, 0); /* the one fault whose image has it clear */
}

static uint64_t watched[4] __attribute__((aligned(32)));

TEST(data_breakpoints_trap_behind_the_access)
{
    listen();
    write_dr0((word)&watched[1]);
    write_dr7(0x402 | 0xd0000); /* G0, write, 4 bytes */
    asm volatile("movl $1, %0\n" LABEL(write_after) "nop" : "=m"(watched[1]));
    CHECK_EQ(traps, 1);
    CHECK_EQ(seen[0].rip, SYMBOL(write_after));
    CHECK_EQ(seen[0].dr6 & 15, DR6_B0);
    CHECK_EQ(watched[1], 1);
    uint64_t v;
    asm volatile("mov %1, %0" : "=r"(v) : "m"(watched[1])); /* reads do not match */
    CHECK_EQ(traps, 1);
    asm volatile("movb $2, 4+%0" : "=m"(watched[1])); /* nor the fifth byte */
    CHECK_EQ(traps, 1);
    write_dr7(0x402 | 0xf0000); /* read or write */
    asm volatile("mov %1, %0" : "=r"(v) : "m"(watched[1]));
    CHECK_EQ(traps, 2);
    write_dr7(0x400);
    asm volatile("movl $3, %0" : "=m"(watched[1]));
    CHECK_EQ(traps, 2);
}

TEST(general_detect)
{
    trap_handlers[DB] = 0;
    write_dr6(0xffff0ff0);
    write_dr7(0x2400);
    struct trap t = CATCH(asm volatile(LABEL(gd_here) "mov %%dr0, %%rax" ::: "rax"));
    CHECK_EQ(t.vector, DB);
    CHECK_EQ(t.rip, SYMBOL(gd_here));
    CHECK_EQ(t.dr6 & DR6_BD, DR6_BD);
    CHECK_EQ(read_dr7() & 0x2000, 0); /* GD is cleared on the way into the handler */
    write_dr6(0xffff0ff0);
}

/* ---- Interrupt shadows, with a local APIC interrupt to itself -------------------------------- */

enum { LAPIC = 0xfee00000, SELF = 0x51 };
static volatile unsigned interrupts;
static word interrupted_at;

static bool on_self(struct frame *f)
{
    interrupts++;
    interrupted_at = f->rip;
    mmio_write32(LAPIC + 0xb0, 0);
    return true;
}

static void send_self(void)
{
    mmio_write32(LAPIC + 0xf0, 0x1ff);
    trap_handlers[SELF] = on_self;
    interrupts = 0;
    mmio_write32(LAPIC + 0x300, 0x44000 | SELF);
}

TEST(sti_takes_effect_one_instruction_later)
{
    send_self();
    CHECK_EQ(interrupts, 0);
    asm volatile("sti\n" LABEL(sti_next) "nop\n" LABEL(sti_after) "nop; cli");
    CHECK_EQ(interrupts, 1);
    CHECK_EQ(interrupted_at, SYMBOL(sti_after));
}

TEST(sti_cli_lets_nothing_in)
{
    send_self();
    asm volatile("sti; cli");
    CHECK_EQ(interrupts, 0);
    asm volatile("sti; nop; nop; cli");
    CHECK_EQ(interrupts, 1);
}

TEST(sti_hlt_wakes)
{
    send_self();
    asm volatile("sti; hlt; cli");
    CHECK_EQ(interrupts, 1);
}

/* ---- Encodings ------------------------------------------------------------------------------- */

TEST(lock_on_the_wrong_instruction)
{
    struct trap t = CATCH(asm volatile(LABEL(lock_here) ".byte 0xf0, 0x89, 0x00" ::"a"(watched)));
    CHECK_EQ(t.vector, UD); /* LOCK MOV */
    CHECK_EQ(t.rip, SYMBOL(lock_here));
    t = CATCH(asm volatile(".byte 0xf0, 0x01, 0xc0" ::: "eax")); /* LOCK ADD eax, eax */
    CHECK_EQ(t.vector, UD);
}

TEST(fifteen_bytes_are_enough)
{
    struct trap t = CATCH(asm volatile(".fill 14, 1, 0x66; nop"));
    CHECK_EQ(t.vector, NO_TRAP);
    t = CATCH(asm volatile(LABEL(long_here) ".fill 15, 1, 0x66; nop"));
    CHECK_EQ(t.vector, GP);
    CHECK_EQ(t.error, 0);
    CHECK_EQ(t.rip, SYMBOL(long_here));
}

/* ---- Alignment checks ------------------------------------------------------------------------ */

static word misaligned(word address)
{
    asm volatile("pushf; orl $0x40000, (%%rsp); popf\n" LABEL(
                     ac_here) "movl (%0), %%eax\n"
                              "pushf; andl $~0x40000, (%%rsp); popf" ::"r"(address)
                 : "eax", "cc", "memory");
    return 1;
}

TEST(alignment_check_at_cpl_3_only)
{
    write_cr0(read_cr0() | 1 << 18);
    struct trap t = CATCH(call_user(misaligned, (word)watched + 1));
    CHECK_EQ(t.vector, AC);
    CHECK_EQ(t.error, 0);
    CHECK_EQ(t.rip, SYMBOL(ac_here));
    CHECK_EQ(call_user(misaligned, (word)watched + 4), 1);
    CHECK_EQ(misaligned((word)watched + 1), 1);
    write_cr0(read_cr0() & ~(word)(1 << 18));
}

const struct test guest_tests[] = {T(single_step_traps_behind_each_instruction),
                                   T(mov_ss_delays_the_single_step),
                                   T(single_step_of_a_repeated_instruction_stops_at_each_iteration),
                                   T(instruction_breakpoint_is_a_fault_that_rf_steps_over),
                                   T(data_breakpoints_trap_behind_the_access),
                                   T(general_detect),
                                   T(sti_takes_effect_one_instruction_later),
                                   T(sti_cli_lets_nothing_in),
                                   T(sti_hlt_wakes),
                                   T(lock_on_the_wrong_instruction),
                                   T(fifteen_bytes_are_enough),
                                   T(alignment_check_at_cpl_3_only),
                                   {0, 0}};
