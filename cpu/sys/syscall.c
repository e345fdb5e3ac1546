/*
 * syscall.c - fast system calls and the FS and GS bases (SDM vol. 2, SYSCALL, SYSRET, SYSENTER,
 * SYSEXIT, SWAPGS; AMD APM vol. 3).
 *
 * Where the vendors differ:
 *                         Intel                          AMD
 *   SYSCALL outside 64    #UD                            legacy and compatibility mode too
 *   SYSENTER in long mode works                          #UD
 *   SYSRET to a bad RIP   #GP at CPL 0                   #GP at CPL 3, from the target
 *   SYSRET outside 64     #UD                            R11 plays no part: RFLAGS.IF is set
 *   SYSRET and SS         all fixed values               only selector and DPL: limit and base stay
 */
#include "cpu/sys/flat.h"
#include "cpu/sys/internal.h"
#include "internal/rules.h"

static void require_sce(struct cpu *cpu)
{
    if (!(cpu->efer & EFER_SCE) || (!cpu_is_amd(cpu) && !in_code64(cpu)))
        cpu_raise(cpu, VECTOR_UD);
}

/* TF counts as it is after the instruction: a kernel that masks it sees no trap, and SYSRET to a
 * program with TF traps at once, as if SYSCALL had just completed. */
static void recheck_tf(struct cpu *cpu)
{
    if (cpu->rflags & RFLAGS_TF)
        cpu->debug_pending |= DR6_BS;
    else
        cpu->debug_pending &= ~DR6_BS;
}

/* sys_cpl_update() follows. */
static void load_rflags(struct cpu *cpu, uint64_t rflags)
{
    cpu->rflags = (rflags & RFLAGS_ALL) | RFLAGS_FIXED;
    cpu->cc_op = CC_RFLAGS;
}

static void count_call(struct cpu *cpu)
{
    if (cpu->cpl == 3 && phys_rules(cpu->map))
        rules_count_system_call(phys_rules(cpu->map), cpu->cr3);
}

void sys_syscall(struct cpu *cpu, const struct insn *insn)
{
    uint16_t selector = cpu->msr_star >> 32 & 0xffff;
    bool from64 = in_code64(cpu);

    (void)insn;
    require_sce(cpu);
    count_call(cpu);
    cpu->gpr[RCX] = from64 ? cpu->next_rip : (uint32_t)cpu->next_rip;
    if (in_long(cpu)) {
        cpu->gpr[R11] = cpu->rflags & ~(uint64_t)RFLAGS_RF;
        cpu->next_rip = from64 ? cpu->msr_lstar : cpu->msr_cstar;
        flat_enter_ring0(cpu, selector, true);
        load_rflags(cpu, cpu->rflags & ~(cpu->msr_sfmask | RFLAGS_RF));
    } else {
        cpu->next_rip = (uint32_t)cpu->msr_star;
        flat_enter_ring0(cpu, selector, false);
        load_rflags(cpu, cpu->rflags & ~(uint64_t)(RFLAGS_IF | RFLAGS_RF | RFLAGS_VM));
    }
    recheck_tf(cpu);
    sys_cpl_update(cpu);
}

void sys_sysret(struct cpu *cpu, const struct insn *insn)
{
    bool from64 = in_code64(cpu), to64 = from64 && insn->opsize == 8;
    uint64_t rip = to64 ? cpu->gpr[RCX] : (uint32_t)cpu->gpr[RCX];

    require_sce(cpu);
    if (!in_prot(cpu))
        cpu_raise_error(cpu, VECTOR_GP, 0);
    require_cpl0(cpu);
    if (to64 && !cpu_is_amd(cpu) && !is_canonical(rip))
        cpu_raise_error(cpu, VECTOR_GP, 0);
    flat_sysret(cpu, to64);
    cpu->next_rip = rip;
    if (from64)
        load_rflags(cpu, cpu->gpr[R11] & SYSRET_FLAGS);
    else
        load_rflags(cpu, cpu->rflags | RFLAGS_IF);
    recheck_tf(cpu);
    sys_cpl_update(cpu);
}

/* SYSENTER does not touch TF: a single-stepped program traps in the kernel. */
void sys_sysenter(struct cpu *cpu, const struct insn *insn)
{
    uint16_t selector = cpu->msr_sysenter_cs & 0xffff;
    bool is_long = in_long(cpu);

    (void)insn;
    if (cpu_is_amd(cpu) && is_long)
        cpu_raise(cpu, VECTOR_UD);
    if (!(cpu->cr0 & CR0_PE) || selector_is_null(selector))
        cpu_raise_error(cpu, VECTOR_GP, 0);
    count_call(cpu);
    flat_enter_ring0(cpu, selector, is_long);
    cpu->next_rip = is_long ? cpu->msr_sysenter_eip : (uint32_t)cpu->msr_sysenter_eip;
    cpu->gpr[RSP] = is_long ? cpu->msr_sysenter_esp : (uint32_t)cpu->msr_sysenter_esp;
    cpu_set_rflags(cpu, cpu->rflags & ~(uint64_t)(RFLAGS_VM | RFLAGS_IF | RFLAGS_RF));
    cpu_mode_update(cpu);
}

void sys_sysexit(struct cpu *cpu, const struct insn *insn)
{
    uint16_t selector = cpu->msr_sysenter_cs & 0xffff;
    bool to64 = in_code64(cpu) && insn->opsize == 8;
    uint64_t rip = cpu->gpr[RDX], rsp = cpu->gpr[RCX];

    if (cpu_is_amd(cpu) && in_long(cpu))
        cpu_raise(cpu, VECTOR_UD);
    if (!in_prot(cpu) || selector_is_null(selector))
        cpu_raise_error(cpu, VECTOR_GP, 0);
    require_cpl0(cpu);
    if (to64 && (!is_canonical(rip) || !is_canonical(rsp)))
        cpu_raise_error(cpu, VECTOR_GP, 0);
    selector = (uint16_t)((selector & 0xfffc) + (to64 ? 32 : 16));
    cpu->seg[SEG_CS] = flat_code(selector | 3, 3, to64);
    cpu->seg[SEG_SS] = flat_stack((uint16_t)(selector + 8) | 3, 3);
    cpu->cpl = 3;
    cpu->next_rip = to64 ? rip : (uint32_t)rip;
    cpu->gpr[RSP] = to64 ? rsp : (uint32_t)rsp;
    cpu_mode_update(cpu);
}

/* ---- FS and GS ------------------------------------------------------------------------------- */

void sys_swapgs(struct cpu *cpu, const struct insn *insn)
{
    uint64_t base = cpu->seg[SEG_GS].base;

    (void)insn;
    if (!in_code64(cpu))
        cpu_raise(cpu, VECTOR_UD);
    require_cpl0(cpu);
    cpu->seg[SEG_GS].base = cpu->seg_base[SEG_GS] = cpu->msr_kernel_gs_base;
    cpu->msr_kernel_gs_base = base;
}

static void require_fsgsbase(struct cpu *cpu)
{
    if (!in_code64(cpu) || !(cpu->cr4 & CR4_FSGSBASE))
        cpu_raise(cpu, VECTOR_UD);
}

void sys_rdfsbase(struct cpu *cpu, const struct insn *insn)
{
    require_fsgsbase(cpu);
    opnd_set_gpr(cpu, insn->op[0].reg, insn->op[0].size, cpu->seg[insn->row->exec_arg].base);
}

void sys_wrfsbase(struct cpu *cpu, const struct insn *insn)
{
    unsigned seg = insn->row->exec_arg;
    uint64_t base = opnd_gpr(cpu, insn->op[0].reg, insn->op[0].size);

    require_fsgsbase(cpu);
    if (!is_canonical(base))
        cpu_raise_error(cpu, VECTOR_GP, 0);
    cpu->seg[seg].base = cpu->seg_base[seg] = base;
}
