/*
 * stack.h - pushes and pops with the stack's own address size (SDM vol. 1, 6.2.3).
 */
#ifndef CPU_INTERP_STACK_H
#define CPU_INTERP_STACK_H

#include "cpu/mem_inline.h"
#include "cpu/sys/sys.h"

/* RSP with its low 16, 32 or 64 bits replaced by `sp`. */
static inline uint64_t stack_pointer(const struct cpu *cpu, uint64_t rsp, uint64_t sp)
{
    uint64_t mask = sys_stack_mask(cpu);
    return mask == 0xffff ? (rsp & ~mask) | (sp & mask) : sp & mask;
}
static inline void stack_add(struct cpu *cpu, uint64_t n)
{
    cpu->gpr[RSP] = stack_pointer(cpu, cpu->gpr[RSP], cpu->gpr[RSP] + n);
}
/* The value `offset` bytes above the top of the stack. */
static inline uint64_t stack_read(struct cpu *cpu, uint64_t offset, unsigned size)
{
    uint64_t sp = (cpu->gpr[RSP] + offset) & sys_stack_mask(cpu);
    return mem_load(cpu, SEG_SS, mem_linear(cpu, SEG_SS, sp, size, ACCESS_READ), size);
}
/* Pushes; RSP changes only when the write has succeeded. */
static inline void stack_push(struct cpu *cpu, uint64_t value, unsigned size)
{
    uint64_t sp = (cpu->gpr[RSP] - size) & sys_stack_mask(cpu);
    mem_store(cpu, SEG_SS, mem_linear(cpu, SEG_SS, sp, size, ACCESS_WRITE), value, size);
    cpu->gpr[RSP] = stack_pointer(cpu, cpu->gpr[RSP], sp);
}

#endif
