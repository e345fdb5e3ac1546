/*
 * deliver_real.c - delivery through the real-mode interrupt vector table (SDM vol. 3, 20.1.4), and
 * the same for a virtual-8086 program's own handlers (VME, 20.3.3).
 *
 * No error codes are pushed. IDTR moves the table and limits it.
 */
#include "cpu/sys/internal.h"

/* Pushes FLAGS, CS, IP and jumps; the flags are the caller's affair. */
static void enter_handler(struct cpu *cpu, const struct event *event, uint32_t vector,
                          uint64_t flags)
{
    uint64_t frame[3] = {flags & 0xffff, cpu->seg[SEG_CS].selector, event->rip & 0xffff};
    struct stack stack = stack_current(cpu);
    uint16_t ip = vector & 0xffff;

    stack.event = true;
    if (ip > cpu->seg[SEG_CS].limit)
        cpu_raise_error(cpu, VECTOR_GP, 0);
    stack_push(cpu, &stack, frame, 3, 2);
    cpu->gpr[RSP] = stack.sp;
    sys_set_real_segment(cpu, SEG_CS, (uint16_t)(vector >> 16));
    cpu->next_rip = ip;
}

void deliver_real(struct cpu *cpu, const struct event *event)
{
    uint32_t vector, offset = event->vector * 4u;
    uint64_t flags = cpu_rflags(cpu);

    if (offset + 3 > cpu->idtr.limit)
        cpu_raise_error(cpu, VECTOR_GP, event->vector * 8u + 2);
    mem_sys_read(cpu, (uint32_t)(cpu->idtr.base + offset), &vector, 4, true);
    enter_handler(cpu, event, vector, event->rflags);
    cpu_set_rflags(cpu, flags & ~(uint64_t)(RFLAGS_IF | RFLAGS_TF | RFLAGS_AC | RFLAGS_RF));
    cpu_mode_update(cpu);
}

/* With IOPL < 3 the program sees its own IF (VIF) and IOPL 3; the real ones stay. */
void deliver_v86_redirected(struct cpu *cpu, const struct event *event)
{
    uint64_t flags = cpu->rflags, image = event->rflags;
    uint32_t vector;

    /* An access of the task itself, in its own first 1024 bytes. */
    mem_priv_read(cpu, SEG_DS, event->vector * 4u, &vector, 4, MMU_USER);
    if (iopl(cpu) < 3) {
        image |= RFLAGS_IOPL;
        image = flags & RFLAGS_VIF ? image | RFLAGS_IF : image & ~(uint64_t)RFLAGS_IF;
    }
    enter_handler(cpu, event, vector, image);
    flags &= ~(uint64_t)(RFLAGS_TF | RFLAGS_RF); /* as in real mode, NT stays (20.3.3.4) */
    flags &= ~(uint64_t)(iopl(cpu) < 3 ? RFLAGS_VIF : RFLAGS_IF);
    cpu_set_rflags(cpu, flags);
    cpu_mode_update(cpu);
}
