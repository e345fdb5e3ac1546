/*
 * opnd.c - reading and writing operands of a decoded instruction (opnd.h).
 */
#include "cpu/opnd.h"
#include "cpu/mem.h"

static uint64_t read_mem(struct cpu *cpu, const struct insn *insn, const struct opnd *op)
{
    bool rmw = (op->access & OPND_W) != 0;
    uint64_t lin = mem_operand(cpu, insn, op->size, rmw ? ACCESS_READ | ACCESS_WRITE : ACCESS_READ);
    if (rmw)
        mem_probe_write(cpu, insn->mem.seg, lin, op->size);
    uint64_t value = 0;
    mem_read(cpu, insn->mem.seg, lin, &value, op->size <= 8 ? op->size : 8);
    return value;
}

uint64_t opnd_read(struct cpu *cpu, const struct insn *insn, unsigned n)
{
    const struct opnd *op = &insn->op[n];
    switch (op->kind) {
    case OPND_GPR:
        return opnd_gpr(cpu, op->reg, op->size);
    case OPND_GPR8H:
        return (cpu->gpr[op->reg] >> 8) & 0xff;
    case OPND_MEM:
        return read_mem(cpu, insn, op);
    case OPND_IMM:
    case OPND_REL:
        return (uint64_t)insn->imm;
    case OPND_IMM2:
        return (uint64_t)insn->imm2;
    case OPND_SEG:
        return cpu->seg[op->reg].selector;
    case OPND_ONE:
        return 1;
    default:
        __builtin_trap(); /* a row names an operand that its function does not expect */
    }
}

void opnd_write(struct cpu *cpu, const struct insn *insn, unsigned n, uint64_t value)
{
    const struct opnd *op = &insn->op[n];
    switch (op->kind) {
    case OPND_GPR:
        opnd_set_gpr(cpu, op->reg, op->size, value);
        break;
    case OPND_GPR8H:
        cpu->gpr[op->reg] = (cpu->gpr[op->reg] & ~0xff00ull) | (value & 0xff) << 8;
        break;
    case OPND_MEM: {
        uint64_t lin = mem_operand(cpu, insn, op->size, ACCESS_WRITE);
        mem_write(cpu, insn->mem.seg, lin, &value, op->size <= 8 ? op->size : 8);
        break;
    }
    default:
        __builtin_trap(); /* see opnd_read() */
    }
}

uint64_t opnd_address(struct cpu *cpu, const struct insn *insn, unsigned kind)
{
    unsigned size = 0;
    for (unsigned n = 0; n < insn->opnds; n++)
        if (insn->op[n].kind == OPND_MEM)
            size = insn->op[n].size;
    return mem_operand(cpu, insn, size, kind);
}
