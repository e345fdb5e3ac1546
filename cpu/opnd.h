/*
 * opnd.h - operands of a decoded instruction, for semantic functions that are called with the whole
 * struct insn (gen_, sys_, x87_, vec_).
 *
 * Slower than the specialised handlers of cpu/interp, and as exact: memory goes through cpu/mem.h,
 * so that every function here may raise, before it has committed anything.
 */
#ifndef CPU_OPND_H
#define CPU_OPND_H

#include "internal/cpu.h"

/* General registers by number and size in bytes; a 32-bit write zero-extends (SDM vol. 1, 3.4.1.1).
 */
static inline uint64_t opnd_gpr(const struct cpu *cpu, unsigned reg, unsigned size)
{
    uint64_t v = cpu->gpr[reg];
    return size >= 8 ? v : v & ((1ull << (size * 8)) - 1);
}
static inline void opnd_set_gpr(struct cpu *cpu, unsigned reg, unsigned size, uint64_t value)
{
    uint64_t mask = size >= 4 ? 0 : ~((1ull << (size * 8)) - 1);
    if (size == 4)
        value = (uint32_t)value;
    cpu->gpr[reg] = (cpu->gpr[reg] & mask) | (value & ~mask);
}

/* Reads operand n: GPR, GPR8H, MEM, SEG zero-extended from its size; IMM, IMM2, REL, ONE as the
 * decoder extended them to 64 bits. A memory operand of up to 8 bytes that the instruction also
 * writes is checked for writing here already, as the processor does: so the later opnd_write() does
 * not raise. */
uint64_t opnd_read(struct cpu *cpu, const struct insn *insn, unsigned n);
/* Writes the low bytes of `value` to a GPR, GPR8H or MEM operand. */
void opnd_write(struct cpu *cpu, const struct insn *insn, unsigned n, uint64_t value);
/* Linear address of the memory operand after all segment checks for an access of that operand's
 * size and `kind` (ACCESS_READ, _WRITE or both). */
uint64_t opnd_address(struct cpu *cpu, const struct insn *insn, unsigned kind);

#endif
