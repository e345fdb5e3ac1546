/*
 * int.c - INT n, INT3, INTO, INT1 (SDM vol. 2, INT n/INTO/INT3/INT1).
 *
 * Faults met on the way are the instruction's own and restart it: they unwind to the run loop like
 * any other, with EXT = 0. What is saved is the RIP behind the instruction. TF is off in the
 * handler before the next boundary, so there is no single-step trap; data breakpoints that MOV SS
 * has deferred do come, in the handler.
 */
#include "cpu/guard.h"
#include "cpu/sys/internal.h"

static void soft_interrupt(struct cpu *cpu, uint8_t vector)
{
    struct event event = {
        .kind = EVENT_SOFTWARE, .vector = vector, .rip = cpu->next_rip, .rflags = cpu_rflags(cpu)};

    if (!guard_active(cpu)) /* there it is the second time */
        note_event(cpu, &event);
    deliver_event(cpu, &event);
    cpu->debug_pending &= ~DR6_BS;
    sys_attention_update(cpu);
}

/* SDM vol. 3, table 20-2: IOPL, VME and the redirection bitmap decide. Only INT n is sensitive, not
 * INT3, INTO and INT1. */
static void v86_interrupt(struct cpu *cpu, uint8_t vector)
{
    struct event event = {
        .kind = EVENT_SOFTWARE, .vector = vector, .rip = cpu->next_rip, .rflags = cpu_rflags(cpu)};

    if (cpu->cr4 & CR4_VME && tss_int_redirected(cpu, vector)) {
        deliver_v86_redirected(cpu, &event);
        cpu->debug_pending &= ~DR6_BS;
        sys_attention_update(cpu);
        return;
    }
    if (iopl(cpu) < 3)
        cpu_raise_error(cpu, VECTOR_GP, 0);
    soft_interrupt(cpu, vector);
}

void sys_int(struct cpu *cpu, const struct insn *insn)
{
    uint8_t vector = (uint8_t)insn->imm;

    if (in_v86(cpu))
        v86_interrupt(cpu, vector);
    else
        soft_interrupt(cpu, vector);
}

void sys_int3(struct cpu *cpu, const struct insn *insn)
{
    (void)insn;
    soft_interrupt(cpu, VECTOR_BP);
}

void sys_into(struct cpu *cpu, const struct insn *insn)
{
    (void)insn;
    if (cpu->rflags & FLAG_OF)
        soft_interrupt(cpu, VECTOR_OF);
}

/* Like a hardware #DB: no DPL check, EXT in error codes, GD and BTF end; DR6 is left alone. */
void sys_int1(struct cpu *cpu, const struct insn *insn)
{
    (void)insn;
    cpu->debug_pending &= ~DR6_BS;
    sys_deliver(cpu, EVENT_ICEBP, VECTOR_DB);
}
