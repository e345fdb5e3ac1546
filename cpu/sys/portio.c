/*
 * portio.c - IN, OUT, INS, OUTS: IOPL and the I/O permission bitmap, I/O breakpoints, the port
 * space (SDM vol. 1, ch. 19; vol. 2).
 *
 * INS and OUTS do one iteration per call; the engine repeats them.
 */
#include "cpu/guard.h"
#include "cpu/sys/internal.h"
#include "internal/io.h"

static void check_port(struct cpu *cpu, uint16_t port, unsigned size)
{
    if (!(cpu->cr0 & CR0_PE) || (!in_v86(cpu) && cpu->cpl <= iopl(cpu)))
        return;
    if (!tss_io_allowed(cpu, port, size))
        cpu_raise_error(cpu, VECTOR_GP, 0);
}

static void note_breakpoint(struct cpu *cpu, uint16_t port, unsigned size)
{
    if (cpu->data_breakpoints)
        cpu->debug_pending |= debug_match_io(cpu, port, size);
}

static uint32_t port_read(struct cpu *cpu, uint16_t port, unsigned size)
{
    struct access access = cpu_access(cpu);

    guard_effect(cpu);
    note_breakpoint(cpu, port, size);
    if (!cpu->io)
        return size == 4 ? 0xffffffff : (1u << size * 8) - 1;
    return io_read(cpu->io, &access, port, size);
}

static void port_write(struct cpu *cpu, uint16_t port, unsigned size, uint32_t value)
{
    struct access access = cpu_access(cpu);

    guard_effect(cpu);
    note_breakpoint(cpu, port, size);
    if (cpu->io)
        io_write(cpu->io, &access, port, size, value);
}

static uint16_t port_operand(struct cpu *cpu, const struct insn *insn, unsigned n)
{
    return insn->op[n].kind == OPND_IMM ? (uint8_t)insn->imm : (uint16_t)cpu->gpr[RDX];
}

static unsigned data_size(const struct insn *insn, unsigned n)
{
    return insn->op[n].size > 4 ? 4 : insn->op[n].size;
}

void sys_in(struct cpu *cpu, const struct insn *insn)
{
    uint16_t port = port_operand(cpu, insn, 1);
    unsigned size = data_size(insn, 0);

    check_port(cpu, port, size);
    opnd_set_gpr(cpu, RAX, size, port_read(cpu, port, size));
}

void sys_out(struct cpu *cpu, const struct insn *insn)
{
    uint16_t port = port_operand(cpu, insn, 0);
    unsigned size = data_size(insn, 1);

    check_port(cpu, port, size);
    port_write(cpu, port, size, (uint32_t)opnd_gpr(cpu, RAX, size));
}

/* ---- Strings --------------------------------------------------------------------------------- */

static bool rep_finished(struct cpu *cpu, const struct insn *insn)
{
    return insn->rep && opnd_gpr(cpu, RCX, insn->adsize) == 0;
}

/* After one element: index and count move together, so that an interrupt between iterations
 * restarts right. */
static void advance(struct cpu *cpu, const struct insn *insn, unsigned index, unsigned size)
{
    uint64_t delta = cpu->rflags & RFLAGS_DF ? -(uint64_t)size : size;

    opnd_set_gpr(cpu, index, insn->adsize, opnd_gpr(cpu, index, insn->adsize) + delta);
    if (!insn->rep)
        return;
    opnd_set_gpr(cpu, RCX, insn->adsize, opnd_gpr(cpu, RCX, insn->adsize) - 1);
    if (opnd_gpr(cpu, RCX, insn->adsize) != 0)
        cpu->next_rip = cpu->rip;
}

/* The destination is proved writable before the port is read: reading may have effects. */
void sys_ins(struct cpu *cpu, const struct insn *insn)
{
    uint16_t port = (uint16_t)cpu->gpr[RDX];
    unsigned size = data_size(insn, 0);
    uint64_t lin;
    uint32_t value;

    check_port(cpu, port, size); /* also when the count is zero */
    if (rep_finished(cpu, insn))
        return;
    lin = mem_linear(cpu, SEG_ES, opnd_gpr(cpu, RDI, insn->adsize), size, ACCESS_WRITE);
    mem_probe_write(cpu, SEG_ES, lin, size);
    value = port_read(cpu, port, size);
    mem_write(cpu, SEG_ES, lin, &value, size);
    advance(cpu, insn, RDI, size);
}

void sys_outs(struct cpu *cpu, const struct insn *insn)
{
    uint16_t port = (uint16_t)cpu->gpr[RDX];
    unsigned size = data_size(insn, 1);
    uint32_t value = 0;
    uint64_t lin;

    check_port(cpu, port, size); /* also when the count is zero */
    if (rep_finished(cpu, insn))
        return;
    lin = mem_linear(cpu, insn->mem.seg, opnd_gpr(cpu, RSI, insn->adsize), size, ACCESS_READ);
    mem_read(cpu, insn->mem.seg, lin, &value, size);
    port_write(cpu, port, size, value);
    advance(cpu, insn, RSI, size);
}
