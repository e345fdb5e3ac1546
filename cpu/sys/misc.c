/*
 * misc.c - system instructions that fit nowhere else: HLT, MWAIT, cache and TLB control,
 * RDMSR/WRMSR and CPUID as instructions, protection keys, RSM, SERIALIZE.
 */
#include "cpu/sys/internal.h"

void sys_hlt(struct cpu *cpu, const struct insn *insn)
{
    (void)insn;
    require_cpl0(cpu);
    cpu->activity = CPU_HALTED;
    sys_attention_update(cpu);
}

/* MONITOR arms nothing: MWAIT returns at once, which the manual allows. Not advertised by default.
 */
void sys_monitor(struct cpu *cpu, const struct insn *insn)
{
    uint64_t lin;
    uint8_t byte;

    if (!model_has(cpu, MODEL_1_ECX, 3) || cpu->cpl != 0)
        cpu_raise(cpu, VECTOR_UD);
    if ((uint32_t)cpu->gpr[RCX] != 0)
        cpu_raise_error(cpu, VECTOR_GP, 0);
    lin = mem_linear(cpu, insn->mem.seg <= SEG_GS ? insn->mem.seg : SEG_DS,
                     opnd_gpr(cpu, RAX, insn->adsize), 1, ACCESS_READ);
    mem_read(cpu, SEG_DS, lin, &byte, 1);
}

void sys_mwait(struct cpu *cpu, const struct insn *insn)
{
    (void)insn;
    if (!model_has(cpu, MODEL_1_ECX, 3) || cpu->cpl != 0)
        cpu_raise(cpu, VECTOR_UD);
    if ((uint32_t)cpu->gpr[RCX] & ~1u)
        cpu_raise_error(cpu, VECTOR_GP, 0);
}

/* ---- TLB and caches -------------------------------------------------------------------------- */

/* No segment checks, and a non-canonical address is a no-op (SDM vol. 2, INVLPG). */
void sys_invlpg(struct cpu *cpu, const struct insn *insn)
{
    uint64_t lin = cpu->seg_base[insn->mem.seg] + mem_effective(cpu, insn);

    require_cpl0(cpu);
    if (!in_code64(cpu))
        lin = (uint32_t)lin;
    else if (!is_canonical(lin))
        return;
    mmu_invlpg(&cpu->mmu, lin);
}

void sys_invpcid(struct cpu *cpu, const struct insn *insn)
{
    uint64_t type = opnd_gpr(cpu, insn->op[0].reg, in_code64(cpu) ? 8 : 4), desc[2], pcid;

    require_cpl0(cpu);
    mem_read(cpu, insn->mem.seg, mem_operand(cpu, insn, 16, ACCESS_READ), desc, 16);
    pcid = desc[0] & 0xfff;
    if (type > 3 || desc[0] >> 12)
        cpu_raise_error(cpu, VECTOR_GP, 0);
    if (type < 2 && pcid && !(cpu->cr4 & CR4_PCIDE))
        cpu_raise_error(cpu, VECTOR_GP, 0);
    if (type == 0 && !is_canonical(desc[1]))
        cpu_raise_error(cpu, VECTOR_GP, 0);
    mmu_invpcid(&cpu->mmu, (unsigned)type, (uint16_t)pcid, desc[1]);
}

/* There is no cache to write back or lose. */
void sys_invd(struct cpu *cpu, const struct insn *insn)
{
    (void)insn;
    require_cpl0(cpu);
}

void sys_wbinvd(struct cpu *cpu, const struct insn *insn)
{
    (void)insn;
    require_cpl0(cpu);
}

/* ---- MSRs, CPUID ----------------------------------------------------------------------------- */

void sys_rdmsr(struct cpu *cpu, const struct insn *insn)
{
    uint64_t value;

    (void)insn;
    require_cpl0(cpu);
    if (!msr_read(cpu, (uint32_t)cpu->gpr[RCX], &value))
        cpu_raise_error(cpu, VECTOR_GP, 0);
    cpu->gpr[RAX] = (uint32_t)value;
    cpu->gpr[RDX] = value >> 32;
}

void sys_wrmsr(struct cpu *cpu, const struct insn *insn)
{
    (void)insn;
    require_cpl0(cpu);
    if (!msr_write(cpu, (uint32_t)cpu->gpr[RCX], cpu->gpr[RDX] << 32 | (uint32_t)cpu->gpr[RAX]))
        cpu_raise_error(cpu, VECTOR_GP, 0);
}

void sys_cpuid(struct cpu *cpu, const struct insn *insn)
{
    uint32_t regs[4];

    (void)insn;
    cpu_cpuid(cpu, (uint32_t)cpu->gpr[RAX], (uint32_t)cpu->gpr[RCX], regs);
    cpu->gpr[RAX] = regs[0];
    cpu->gpr[RBX] = regs[1];
    cpu->gpr[RCX] = regs[2];
    cpu->gpr[RDX] = regs[3];
}

/* ---- Protection keys, and the rest ----------------------------------------------------------- */

void sys_rdpkru(struct cpu *cpu, const struct insn *insn)
{
    (void)insn;
    if (!(cpu->cr4 & CR4_PKE))
        cpu_raise(cpu, VECTOR_UD);
    if ((uint32_t)cpu->gpr[RCX] != 0)
        cpu_raise_error(cpu, VECTOR_GP, 0);
    cpu->gpr[RAX] = cpu->pkru;
    cpu->gpr[RDX] = 0;
}

void sys_wrpkru(struct cpu *cpu, const struct insn *insn)
{
    (void)insn;
    if (!(cpu->cr4 & CR4_PKE))
        cpu_raise(cpu, VECTOR_UD);
    if ((uint32_t)cpu->gpr[RCX] != 0 || (uint32_t)cpu->gpr[RDX] != 0)
        cpu_raise_error(cpu, VECTOR_GP, 0);
    sys_set_pkru(cpu, (uint32_t)cpu->gpr[RAX]);
}

/* There is no system management mode, and outside it RSM is undefined. */
void sys_rsm(struct cpu *cpu, const struct insn *insn)
{
    (void)insn;
    cpu_raise(cpu, VECTOR_UD);
}

void sys_serialize(struct cpu *cpu, const struct insn *insn)
{
    (void)cpu;
    (void)insn;
}
