/*
 * iret.c - IRET, IRETD, IRETQ in every mode (SDM vol. 2, IRET; vol. 3, 6.12.1, 20.2).
 */
#include "cpu/sys/internal.h"

/* RFLAGS bits that the image may change, by operand size and by the CPL that executes IRET. */
static uint64_t loadable_flags(const struct cpu *cpu, unsigned size)
{
    uint64_t mask = FLAGS_ARITH | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT;

    if (size > 2)
        mask |= RFLAGS_RF | RFLAGS_AC | RFLAGS_ID;
    if (cpu->cpl <= iopl(cpu))
        mask |= RFLAGS_IF;
    if (cpu->cpl == 0) {
        mask |= RFLAGS_IOPL;
        if (size > 2)
            mask |= RFLAGS_VIF | RFLAGS_VIP;
    }
    return mask;
}

static void load_flags(struct cpu *cpu, uint64_t image, uint64_t mask)
{
    cpu_set_rflags(cpu, (cpu->rflags & ~mask) | (image & mask));
}

/* Real mode, and virtual-8086 mode where IOPL or VME allows it. */
static void iret_real(struct cpu *cpu, unsigned size, bool virtual_if)
{
    uint64_t sp = cpu->gpr[RSP], rip, flags, mask;
    uint16_t selector;

    rip = stack_pop(cpu, &sp, size);
    selector = (uint16_t)stack_pop(cpu, &sp, size);
    flags = stack_pop(cpu, &sp, size);
    if (rip > (in_v86(cpu) ? 0xffff : cpu->seg[SEG_CS].limit))
        cpu_raise_error(cpu, VECTOR_GP, 0);
    if (virtual_if && (flags & RFLAGS_TF || (flags & RFLAGS_IF && cpu->rflags & RFLAGS_VIP)))
        cpu_raise_error(cpu, VECTOR_GP, 0);
    mask = FLAGS_ARITH | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT | RFLAGS_IF;
    if (!in_v86(cpu))
        mask |= RFLAGS_IOPL;
    if (size > 2)
        mask |= RFLAGS_RF | RFLAGS_AC | RFLAGS_ID;
    if (virtual_if) {
        mask = (mask & ~(uint64_t)RFLAGS_IF) | RFLAGS_VIF;
        flags = flags & RFLAGS_IF ? flags | RFLAGS_VIF : flags & ~(uint64_t)RFLAGS_VIF;
    }
    cpu->gpr[RSP] = sp;
    sys_set_real_segment(cpu, SEG_CS, selector);
    cpu->next_rip = rip;
    load_flags(cpu, flags, mask);
    cpu_mode_update(cpu);
}

static void iret_v86(struct cpu *cpu, unsigned size)
{
    if (iopl(cpu) == 3)
        iret_real(cpu, size, false);
    else if (cpu->cr4 & CR4_VME && size == 2)
        iret_real(cpu, size, true);
    else
        cpu_raise_error(cpu, VECTOR_GP, 0);
}

/* NT: back to the task whose selector the TSS holds. */
static void iret_task(struct cpu *cpu)
{
    struct desc_ref ref;
    uint16_t link;
    unsigned type;

    mem_sys_read(cpu, cpu->tr.base, &link, 2, false);
    if (link & 4 || selector_is_null(link) || !desc_read(cpu, link, false, &ref))
        cpu_raise_error(cpu, VECTOR_TS, link & ~3u);
    type = attr_system_type(desc_attr(ref.low));
    if (type != SYS_TSS16_BUSY && type != SYS_TSS32_BUSY)
        cpu_raise_error(cpu, VECTOR_TS, link & ~3u);
    if (!(desc_attr(ref.low) & SEG_ATTR_P))
        cpu_raise_error(cpu, VECTOR_NP, link & ~3u);
    task_switch(cpu, link, &ref, TASK_IRET, cpu->next_rip, false, 0);
}

static void iret_to_v86(struct cpu *cpu, uint64_t sp, uint64_t rip, uint16_t cs, uint64_t flags)
{
    static const uint8_t order[] = {SEG_SS, SEG_ES, SEG_DS, SEG_FS, SEG_GS};
    uint16_t selector[5];
    uint64_t esp = stack_pop(cpu, &sp, 4);

    for (unsigned i = 0; i < 5; i++)
        selector[i] = (uint16_t)stack_pop(cpu, &sp, 4);
    if (rip > 0xffff)
        cpu_raise_error(cpu, VECTOR_GP, 0);
    cpu->cpl = 3;
    cpu_set_rflags(cpu, flags);
    sys_set_real_segment(cpu, SEG_CS, cs);
    for (unsigned i = 0; i < 5; i++)
        sys_set_real_segment(cpu, order[i], selector[i]);
    cpu->gpr[RSP] = (uint32_t)esp;
    cpu->next_rip = rip;
    cpu_mode_update(cpu);
}

/* Protected and IA-32e mode, no task. 64-bit code always pops SS:RSP. */
static void iret_prot(struct cpu *cpu, unsigned size)
{
    uint64_t sp = cpu->gpr[RSP], rip, flags, mask = loadable_flags(cpu, size), new_sp = 0;
    struct far_target target;
    struct segment ss = cpu->seg[SEG_SS];
    unsigned cpl;
    uint16_t cs;
    bool outer, pops_stack;

    rip = stack_pop(cpu, &sp, size);
    cs = (uint16_t)stack_pop(cpu, &sp, size);
    flags = stack_pop(cpu, &sp, size);
    if (flags & RFLAGS_VM && size == 4 && cpu->cpl == 0 && !in_long(cpu)) {
        iret_to_v86(cpu, sp, rip, cs, flags);
        return;
    }
    cpl = cs & 3u;
    outer = cpl > cpu->cpl;
    pops_stack = outer || in_code64(cpu);
    target = far_check_return(cpu, cs, rip);
    if (pops_stack) {
        uint16_t selector;

        new_sp = stack_pop(cpu, &sp, size);
        selector = (uint16_t)stack_pop(cpu, &sp, size);
        ss = far_check_return_stack(cpu, selector, &target);
        sp = stack_merge(cpu->gpr[RSP], new_sp, far_return_mask(cpu, &target, &ss));
    }
    cpu->gpr[RSP] = sp;
    cpu->seg[SEG_SS] = ss;
    if (outer)
        segments_drop_inner(cpu, cpl);
    cpu->rflags = (cpu->rflags & ~mask) | (flags & mask) | RFLAGS_FIXED;
    cpu->cc_op = CC_RFLAGS;
    far_commit(cpu, &target, cpl);
}

/* NMIs are let through again even by an IRET that faults (SDM vol. 3, 6.7.1 and 27.2.3). */
void sys_iret(struct cpu *cpu, const struct insn *insn)
{
    if (cpu->nmi_blocked) {
        cpu->nmi_blocked = false;
        sys_attention_update(cpu);
    }
    if (in_v86(cpu))
        iret_v86(cpu, insn->opsize);
    else if (!in_prot(cpu))
        iret_real(cpu, insn->opsize, false);
    else if (!(cpu->rflags & RFLAGS_NT))
        iret_prot(cpu, insn->opsize);
    else if (in_long(cpu))
        cpu_raise_error(cpu, VECTOR_GP, 0);
    else
        iret_task(cpu);
}
