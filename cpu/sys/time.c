/*
 * time.c - the time-stamp counter (SDM vol. 3, 17.17). It counts the clock's nanoseconds: 1 GHz,
 * invariant, the same on all vCPUs until a guest moves it.
 */
#include "cpu/sys/internal.h"
#include "internal/clock.h"

enum { MSR_TSC_DEADLINE = 0x6e0 };

uint64_t sys_tsc(struct cpu *cpu)
{
    return (cpu->clock ? clock_now_piece(cpu->clock, &cpu->jx.tsc) : cpu->retired) +
           cpu->tsc_offset;
}

/* The local APIC keeps its deadline in clock time, so an armed one moves with the TSC. */
void sys_set_tsc_offset(struct cpu *cpu, uint64_t offset)
{
    uint64_t deadline = 0;

    if (offset == cpu->tsc_offset)
        return;
    if (cpu->lapic.read_msr && !cpu->lapic.read_msr(cpu->lapic.lapic, MSR_TSC_DEADLINE, &deadline))
        deadline = 0;
    if (deadline) {
        uint64_t moved = deadline + cpu->tsc_offset - offset;

        if (moved == 0 || moved >> 63)
            moved = 1; /* long past */
        cpu->lapic.write_msr(cpu->lapic.lapic, MSR_TSC_DEADLINE, moved);
    }
    __atomic_store_n(&cpu->tsc_offset, offset, __ATOMIC_RELAXED); /* others look at the time */
}

static void check_tsd(struct cpu *cpu)
{
    if (cpu->cr4 & CR4_TSD && cpu->cpl != 0)
        cpu_raise_error(cpu, VECTOR_GP, 0);
}

static void put_edx_eax(struct cpu *cpu, uint64_t value)
{
    cpu->gpr[RAX] = (uint32_t)value;
    cpu->gpr[RDX] = value >> 32;
}

void sys_rdtsc(struct cpu *cpu, const struct insn *insn)
{
    (void)insn;
    check_tsd(cpu);
    put_edx_eax(cpu, sys_tsc(cpu));
}

void sys_rdtscp(struct cpu *cpu, const struct insn *insn)
{
    (void)insn;
    check_tsd(cpu);
    put_edx_eax(cpu, sys_tsc(cpu));
    cpu->gpr[RCX] = (uint32_t)cpu->msr_tsc_aux;
}

void sys_rdpid(struct cpu *cpu, const struct insn *insn)
{
    opnd_set_gpr(cpu, insn->op[0].reg, in_code64(cpu) ? 8 : 4, cpu->msr_tsc_aux);
}

/* There are no performance counters (CPUID 0Ah is 0), so every index is out of range. */
void sys_rdpmc(struct cpu *cpu, const struct insn *insn)
{
    (void)insn;
    cpu_raise_error(cpu, VECTOR_GP, 0);
}
