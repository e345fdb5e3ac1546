/*
 * flagsys.c - instructions whose effect on RFLAGS depends on privilege (SDM vol. 2, CLI, STI,
 * PUSHF, POPF; vol. 3, 20.3, 20.4 for VME and PVI).
 */
#include "cpu/sys/internal.h"

/* CLI and STI work on VIF instead of IF: with VME in virtual-8086 mode, with PVI at CPL 3, when
 * IOPL < CPL. */
static bool uses_vif(const struct cpu *cpu)
{
    if (in_v86(cpu))
        return cpu->cr4 & CR4_VME;
    return in_prot(cpu) && cpu->cpl == 3 && cpu->cr4 & CR4_PVI;
}

static bool owns_if(const struct cpu *cpu)
{
    return !(cpu->cr0 & CR0_PE) || cpu->cpl <= iopl(cpu);
}

void sys_cli(struct cpu *cpu, const struct insn *insn)
{
    (void)insn;
    if (owns_if(cpu))
        cpu->rflags &= ~(uint64_t)RFLAGS_IF;
    else if (uses_vif(cpu))
        cpu->rflags &= ~(uint64_t)RFLAGS_VIF;
    else
        cpu_raise_error(cpu, VECTOR_GP, 0);
    sys_attention_update(cpu);
}

/* Interrupts wait one more instruction, if they were off (vol. 2, STI). */
void sys_sti(struct cpu *cpu, const struct insn *insn)
{
    (void)insn;
    if (owns_if(cpu)) {
        if (!(cpu->rflags & RFLAGS_IF))
            cpu->shadow |= SHADOW_STI | SHADOW_FRESH;
        cpu->rflags |= RFLAGS_IF;
    } else if (uses_vif(cpu) && !(cpu->rflags & RFLAGS_VIP)) {
        cpu->rflags |= RFLAGS_VIF;
    } else {
        cpu_raise_error(cpu, VECTOR_GP, 0);
    }
    sys_attention_update(cpu);
}

/* VM and RF read as 0. In virtual-8086 mode with IOPL < 3, VME shows VIF as IF to 16-bit PUSHF and
 * POPF. */
void sys_pushf(struct cpu *cpu, const struct insn *insn)
{
    uint64_t image = cpu->rflags & ~(uint64_t)(RFLAGS_VM | RFLAGS_RF), mask = sys_stack_mask(cpu);
    uint64_t sp = cpu->gpr[RSP] - insn->opsize, lin;

    if (in_v86(cpu) && iopl(cpu) < 3) {
        if (!(cpu->cr4 & CR4_VME) || insn->opsize != 2)
            cpu_raise_error(cpu, VECTOR_GP, 0);
        image |= RFLAGS_IOPL;
        image = image & RFLAGS_VIF ? image | RFLAGS_IF : image & ~(uint64_t)RFLAGS_IF;
    }
    lin = mem_linear(cpu, SEG_SS, sp & mask, insn->opsize, ACCESS_WRITE);
    mem_write(cpu, SEG_SS, lin, &image, insn->opsize);
    cpu->gpr[RSP] = stack_merge(cpu->gpr[RSP], sp, mask);
}

static void popf_vme(struct cpu *cpu, uint64_t image, uint64_t mask)
{
    if (image & RFLAGS_TF || (image & RFLAGS_IF && cpu->rflags & RFLAGS_VIP))
        cpu_raise_error(cpu, VECTOR_GP, 0);
    image = image & RFLAGS_IF ? image | RFLAGS_VIF : image & ~(uint64_t)RFLAGS_VIF;
    mask |= RFLAGS_VIF;
    cpu_set_rflags(cpu, (cpu->rflags & ~mask) | (image & mask));
}

void sys_popf(struct cpu *cpu, const struct insn *insn)
{
    uint64_t sp = cpu->gpr[RSP], image, mask = FLAGS_ARITH | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT;

    if (in_v86(cpu) && iopl(cpu) < 3 && (!(cpu->cr4 & CR4_VME) || insn->opsize != 2))
        cpu_raise_error(cpu, VECTOR_GP, 0);
    image = stack_pop(cpu, &sp, insn->opsize);
    if (insn->opsize > 2)
        mask |= RFLAGS_AC | RFLAGS_ID;
    if (in_v86(cpu) && iopl(cpu) < 3) {
        popf_vme(cpu, image, mask);
    } else {
        if (owns_if(cpu))
            mask |= RFLAGS_IF;
        if (cpu->cpl == 0)
            mask |= RFLAGS_IOPL;
        if (insn->opsize > 2)
            mask |= RFLAGS_RF; /* cleared */
        image &= ~(uint64_t)RFLAGS_RF;
        cpu_set_rflags(cpu, (cpu->rflags & ~mask) | (image & mask));
    }
    cpu->gpr[RSP] = sp;
}

/* In real mode, too; virtual-8086 mode is CPL 3. */
static void set_ac(struct cpu *cpu, bool on)
{
    if (cpu->cpl != 0 || !model_has(cpu, MODEL_7_EBX, 20))
        cpu_raise(cpu, VECTOR_UD);
    cpu_set_rflags(cpu, on ? cpu->rflags | RFLAGS_AC : cpu->rflags & ~(uint64_t)RFLAGS_AC);
}

void sys_clac(struct cpu *cpu, const struct insn *insn)
{
    (void)insn;
    set_ac(cpu, false);
}

void sys_stac(struct cpu *cpu, const struct insn *insn)
{
    (void)insn;
    set_ac(cpu, true);
}
