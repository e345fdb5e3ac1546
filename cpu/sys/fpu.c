/*
 * fpu.c - may this x87, MMX, SSE or AVX instruction run now? (SDM vol. 3, 2.5, table 2-8 ff.; vol.
 * 2, 2.4, 2.7.)
 */
#include "cpu/sys/internal.h"

enum { FSW_ES = 1 << 7, OPCODE_WAIT = 0x9b };

/* An unmasked x87 exception waits: #MF, or with CR0.NE = 0 the interrupt of the PC's FERR# wire.
 * With that one execution goes on, as after IGNNE#. */
static void check_pending(struct cpu *cpu)
{
    if (!(cpu->x87.fsw & FSW_ES))
        return;
    if (cpu->cr0 & CR0_NE)
        cpu_raise(cpu, VECTOR_MF);
    irq_set(&cpu->ferr, true);
}

static bool is_wait(const struct insn *insn)
{
    return insn->row->map == MAP_1B && insn->bytes[insn->off_opcode] == OPCODE_WAIT;
}

void sys_check_fpu(struct cpu *cpu, const struct insn *insn)
{
    uint32_t attr = insn->row->attr, mode = cpu->mode;

    if (attr & INSN_AVX) {
        if (!(mode & MODE_AVX) || !(mode & MODE_PROT))
            cpu_raise(cpu, VECTOR_UD);
    } else if (attr & INSN_SSE) {
        if (mode & MODE_EM || !(mode & MODE_OSFXSR))
            cpu_raise(cpu, VECTOR_UD);
    } else if (attr & INSN_MMX) {
        if (mode & MODE_EM)
            cpu_raise(cpu, VECTOR_UD);
    } else if (attr & INSN_X87 && is_wait(insn)) {
        if ((mode & (MODE_MP | MODE_TS)) == (MODE_MP | MODE_TS))
            cpu_raise(cpu, VECTOR_NM);
        check_pending(cpu);
        return;
    } else if (attr & INSN_X87 && mode & MODE_EM) {
        cpu_raise(cpu, VECTOR_NM);
    }
    if (mode & MODE_TS && attr & (INSN_AVX | INSN_SSE | INSN_MMX | INSN_X87))
        cpu_raise(cpu, VECTOR_NM);
    if (attr & INSN_MMX || (attr & INSN_X87 && !(attr & INSN_NOWAIT)))
        check_pending(cpu);
}
