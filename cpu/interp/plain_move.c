/*
 * plain_move.c - data movement, stack and control transfer in their plain form (plain.h).
 *
 * Stack: SDM vol. 1, 6.2; PUSH, POP, CALL, RET, ENTER, LEAVE in vol. 2. RSP is committed after the
 * last access that can fault.
 */
#include "cpu/interp/flags.h"
#include "cpu/interp/plain.h"
#include "cpu/interp/stack.h"
#include "cpu/opnd.h"

void plain_mov(struct cpu *cpu, const struct insn *insn)
{
    opnd_write(cpu, insn, 0, opnd_read(cpu, insn, 1));
}

void plain_movzx(struct cpu *cpu, const struct insn *insn)
{
    opnd_write(cpu, insn, 0, opnd_read(cpu, insn, 1));
}

void plain_movsx(struct cpu *cpu, const struct insn *insn)
{
    opnd_write(cpu, insn, 0, cc_sext(opnd_read(cpu, insn, 1), insn->op[1].size));
}

void plain_lea(struct cpu *cpu, const struct insn *insn)
{
    opnd_write(cpu, insn, 0, mem_effective(cpu, insn));
}

void plain_nop(struct cpu *cpu, const struct insn *insn)
{
    (void)cpu, (void)insn;
}

void plain_setcc(struct cpu *cpu, const struct insn *insn)
{
    opnd_write(cpu, insn, 0, cc_test(cpu, insn->row->exec_arg & 15));
}

/* The source is read, and a 32-bit destination zero-extended, whatever the condition. */
void plain_cmovcc(struct cpu *cpu, const struct insn *insn)
{
    uint64_t b = opnd_read(cpu, insn, 1);
    unsigned size = insn->op[0].size;
    if (!cc_test(cpu, insn->row->exec_arg & 15))
        b = opnd_gpr(cpu, insn->op[0].reg, size);
    opnd_set_gpr(cpu, insn->op[0].reg, size, b);
}

void plain_cbw(struct cpu *cpu, const struct insn *insn)
{
    unsigned half = insn->opsize / 2;
    opnd_set_gpr(cpu, RAX, insn->opsize, cc_sext(opnd_gpr(cpu, RAX, half), half));
}

void plain_cwd(struct cpu *cpu, const struct insn *insn)
{
    bool negative = cc_msb(opnd_gpr(cpu, RAX, insn->opsize), insn->opsize);
    opnd_set_gpr(cpu, RDX, insn->opsize, negative ? ~0ull : 0);
}

/* ---- Stack ----------------------------------------------------------------------------------- */

void plain_push(struct cpu *cpu, const struct insn *insn)
{
    stack_push(cpu, opnd_read(cpu, insn, 0), insn->opsize);
}

void plain_pop(struct cpu *cpu, const struct insn *insn)
{
    const struct opnd *op = &insn->op[0];
    unsigned size = insn->opsize;
    uint64_t value = stack_read(cpu, 0, size), rsp = cpu->gpr[RSP];
    if (op->kind != OPND_MEM) {
        stack_add(cpu, size);
        opnd_write(cpu, insn, 0, value); /* POP SP: the popped value stays */
        return;
    }
    /* An address based on RSP is formed with the incremented RSP (SDM vol. 2, POP). */
    stack_add(cpu, size);
    uint64_t popped = cpu->gpr[RSP], ea = mem_effective(cpu, insn);
    cpu->gpr[RSP] = rsp;
    uint64_t lin = mem_linear(cpu, insn->mem.seg, ea, size, ACCESS_WRITE);
    mem_write(cpu, insn->mem.seg, lin, &value, size);
    cpu->gpr[RSP] = popped;
}

void plain_leave(struct cpu *cpu, const struct insn *insn)
{
    uint64_t rsp = cpu->gpr[RSP], value;
    uint64_t sp = cpu->gpr[RBP] & sys_stack_mask(cpu);
    uint64_t lin = mem_linear(cpu, SEG_SS, sp, insn->opsize, ACCESS_READ);
    value = mem_load(cpu, SEG_SS, lin, insn->opsize);
    cpu->gpr[RSP] = stack_pointer(cpu, rsp, sp + insn->opsize);
    opnd_set_gpr(cpu, RBP, insn->opsize, value);
}

/* ---- Control transfer ------------------------------------------------------------------------ */

/* A near branch's target, cut to the operand size and checked (SDM vol. 2, JMP: #GP(0) beyond the
 * CS limit or not canonical), before anything is committed. */
static uint64_t near_target(struct cpu *cpu, const struct insn *insn, uint64_t target)
{
    if (insn->opsize == 2)
        target = (uint16_t)target;
    else if (insn->opsize == 4)
        target = (uint32_t)target;
    if (cpu->mode & MODE_CODE64) {
        if (!is_canonical(target))
            cpu_raise_error(cpu, VECTOR_GP, 0);
    } else if (target > cpu->seg[SEG_CS].limit) {
        cpu_raise_error(cpu, VECTOR_GP, 0);
    }
    return target;
}

/* Relative or through a register or memory; not checked yet. */
static uint64_t branch_operand(struct cpu *cpu, const struct insn *insn)
{
    uint64_t v = opnd_read(cpu, insn, 0);
    return insn->op[0].kind == OPND_REL ? v + cpu->next_rip : v;
}
static uint64_t branch_target(struct cpu *cpu, const struct insn *insn)
{
    return near_target(cpu, insn, branch_operand(cpu, insn));
}

void plain_jmp(struct cpu *cpu, const struct insn *insn)
{
    cpu->next_rip = branch_target(cpu, insn);
}

void plain_jcc(struct cpu *cpu, const struct insn *insn)
{
    if (cc_test(cpu, insn->row->exec_arg & 15))
        cpu->next_rip = branch_target(cpu, insn);
}

void plain_call(struct cpu *cpu, const struct insn *insn)
{
    uint64_t target = branch_operand(cpu, insn), rsp = cpu->gpr[RSP];
    /* The push comes first, and leaves its store when the target is bad; not the new stack pointer.
     */
    stack_push(cpu, cpu->next_rip, insn->opsize);
    uint64_t pushed = cpu->gpr[RSP];
    cpu->gpr[RSP] = rsp;
    cpu->next_rip = near_target(cpu, insn, target);
    cpu->gpr[RSP] = pushed;
}

void plain_ret(struct cpu *cpu, const struct insn *insn)
{
    uint64_t target = near_target(cpu, insn, stack_read(cpu, 0, insn->opsize));
    uint64_t release = 0;
    for (unsigned n = 0; n < insn->opnds; n++)
        if (insn->op[n].kind == OPND_IMM)
            release = (uint16_t)insn->imm;
    stack_add(cpu, insn->opsize + release);
    cpu->next_rip = target;
}

void plain_jcxz(struct cpu *cpu, const struct insn *insn)
{
    if (opnd_gpr(cpu, RCX, insn->adsize) == 0)
        cpu->next_rip = branch_target(cpu, insn);
}

void plain_loop(struct cpu *cpu, const struct insn *insn)
{
    enum { LOOPNE, LOOPE, LOOP };
    uint64_t count = opnd_gpr(cpu, RCX, insn->adsize) - 1;
    count = cc_trunc(count, insn->adsize);
    bool taken = count != 0;
    if (insn->row->exec_arg != LOOP)
        taken = taken && cc_zero(cpu) == (insn->row->exec_arg == LOOPE);
    if (taken)
        cpu->next_rip = branch_target(cpu, insn);
    opnd_set_gpr(cpu, RCX, insn->adsize, count);
}
