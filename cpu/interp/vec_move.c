/*
 * vec_move.c - vector moves, element insertion and extraction: no arithmetic, hence in C.
 *
 * Legacy SSE keeps bits 255:128 of a destination register, VEX zeroes them (vec_zero_above).
 */
#include "cpu/interp/vec_internal.h"

/* MOVAPS, MOVUPS, MOVDQA, MOVDQU, LDDQU, MOVNTDQA ...: register = register or memory. */
void vec_load(struct cpu *cpu, const struct insn *insn)
{
    union vreg *to = &cpu->ymm[insn->op[0].reg];
    unsigned size = insn->op[0].size;
    if (insn->op[1].kind != OPND_MEM) {
        memmove(to, &cpu->ymm[insn->op[1].reg], size);
    } else {
        union vreg buf;
        vec_read_mem(cpu, insn, &buf, size);
        memcpy(to, &buf, size);
    }
    vec_zero_above(insn, to, size);
}

void vec_store(struct cpu *cpu, const struct insn *insn)
{
    const union vreg *from = &cpu->ymm[insn->op[1].reg];
    unsigned size = insn->op[1].size;
    if (insn->op[0].kind == OPND_MEM) {
        vec_write_mem(cpu, insn, from, size);
        return;
    }
    union vreg *to = &cpu->ymm[insn->op[0].reg];
    memmove(to, from, size);
    vec_zero_above(insn, to, size);
}

/* MOVSS, MOVSD from memory, MOVD, MOVQ: the rest of the low 128 bits becomes zero. A general
 * register's size decides; exec_arg is the number of bytes otherwise. */
void vec_load_low(struct cpu *cpu, const struct insn *insn)
{
    const struct opnd *from = &insn->op[1];
    union vreg *to = &cpu->ymm[insn->op[0].reg];
    uint64_t value;
    if (from->kind == OPND_GPR)
        value = opnd_gpr(cpu, from->reg, from->size);
    else if (from->kind == OPND_MEM)
        value = vec_read_scalar(cpu, insn, from->size);
    else
        value = cpu->ymm[from->reg].q[0];
    to->q[0] = value;
    to->q[1] = 0;
    vec_zero_above(insn, to, 16);
}

void vec_store_low(struct cpu *cpu, const struct insn *insn)
{
    const struct opnd *to = &insn->op[0];
    uint64_t value = cpu->ymm[insn->op[1].reg].q[0];
    if (to->kind == OPND_GPR) {
        opnd_set_gpr(cpu, to->reg, to->size, value);
    } else if (to->kind == OPND_MEM) {
        vec_write_scalar(cpu, insn, value, to->size);
    } else {
        union vreg *reg = &cpu->ymm[to->reg];
        reg->q[0] = value;
        reg->q[1] = 0;
        vec_zero_above(insn, reg, 16);
    }
}

/* MOVSS, MOVSD between registers: exec_arg bytes of the last operand, the rest of the first source.
 */
void vec_merge_low(struct cpu *cpu, const struct insn *insn)
{
    union vreg *to = &cpu->ymm[insn->op[0].reg];
    union vreg value = insn->vex ? cpu->ymm[insn->op[1].reg] : *to;
    memcpy(&value, &cpu->ymm[insn->op[insn->opnds - 1].reg], insn->row->exec_arg);
    memcpy(to, &value, 16);
    vec_zero_above(insn, to, 16);
}

/* MOVLPS, MOVHPS, MOVLPD, MOVHPD, MOVHLPS, MOVLHPS: one half of the destination is replaced.
 * exec_arg bit 0: which one; bit 1: which half of a register source. */
void vec_move_half(struct cpu *cpu, const struct insn *insn)
{
    unsigned arg = insn->row->exec_arg;
    const struct opnd *from = &insn->op[insn->opnds - 1];
    union vreg *to = &cpu->ymm[insn->op[0].reg];
    union vreg value = insn->vex ? cpu->ymm[insn->op[1].reg] : *to;
    if (from->kind == OPND_MEM)
        value.q[arg & 1] = vec_read_scalar(cpu, insn, 8);
    else
        value.q[arg & 1] = cpu->ymm[from->reg].q[arg >> 1];
    memcpy(to, &value, 16);
    vec_zero_above(insn, to, 16);
}

void vec_store_half(struct cpu *cpu, const struct insn *insn)
{
    uint64_t value = cpu->ymm[insn->op[1].reg].q[insn->row->exec_arg];
    vec_write_scalar(cpu, insn, value, 8);
}

/* VZEROUPPER, VZEROALL (exec_arg 1): registers 8-15 only in 64-bit code. */
void vec_zero(struct cpu *cpu, const struct insn *insn)
{
    unsigned count = insn->code == 64 ? 16 : 8;
    for (unsigned i = 0; i < count; i++) {
        union vreg *reg = &cpu->ymm[i];
        reg->q[2] = reg->q[3] = 0;
        if (insn->row->exec_arg)
            reg->q[0] = reg->q[1] = 0;
    }
}

/* ---- Elements -------------------------------------------------------------------------------- */

/* Their size: exec_arg, or the operand's where both dword and qword share a row. */
static unsigned element_size(const struct insn *insn, const struct opnd *op)
{
    return insn->row->exec_arg ? insn->row->exec_arg : op->size;
}

/* PEXTRB, PEXTRW, PEXTRD, PEXTRQ, EXTRACTPS: to memory one element, to a register zero-extended. */
void vec_pextr(struct cpu *cpu, const struct insn *insn)
{
    const struct opnd *to = &insn->op[0], *from = &insn->op[1];
    unsigned size = element_size(insn, to);
    unsigned width = from->kind == OPND_MMX ? 8 : 16;
    unsigned at = ((unsigned)insn->imm & (width / size - 1)) * size;
    uint64_t value = 0;
    if (from->kind == OPND_MMX) {
        x87_enter_mmx(&cpu->x87);
        memcpy(&value, cpu->x87.st[from->reg] + at, size);
    } else {
        memcpy(&value, cpu->ymm[from->reg].b + at, size);
    }
    if (to->kind == OPND_MEM)
        vec_write_scalar(cpu, insn, value, size);
    else
        opnd_set_gpr(cpu, to->reg, 8, value);
}

/* PINSRB, PINSRW, PINSRD, PINSRQ. */
void vec_pinsr(struct cpu *cpu, const struct insn *insn)
{
    const struct opnd *to = &insn->op[0], *from = &insn->op[insn->vex ? 2 : 1];
    unsigned size = element_size(insn, from);
    unsigned width = to->kind == OPND_MMX ? 8 : 16;
    unsigned at = ((unsigned)insn->imm & (width / size - 1)) * size;
    uint64_t value =
        from->kind == OPND_MEM ? vec_read_scalar(cpu, insn, size) : cpu->gpr[from->reg];
    if (to->kind == OPND_MMX) {
        x87_enter_mmx(&cpu->x87);
        memcpy(cpu->x87.st[to->reg] + at, &value, size);
        memset(cpu->x87.st[to->reg] + 8, 0xff, 2);
        return;
    }
    union vreg *reg = &cpu->ymm[to->reg];
    union vreg result = insn->vex ? cpu->ymm[insn->op[1].reg] : *reg;
    memcpy(result.b + at, &value, size);
    memcpy(reg, &result, 16);
    vec_zero_above(insn, reg, 16);
}

/* ---- MMX ------------------------------------------------------------------------------------- */

/* MOVD, MOVQ to an MM register. */
void vec_mmx_load(struct cpu *cpu, const struct insn *insn)
{
    const struct opnd *from = &insn->op[1];
    uint64_t value = 0;
    if (from->kind == OPND_GPR)
        value = opnd_gpr(cpu, from->reg, from->size);
    else if (from->kind == OPND_MEM)
        value = vec_read_scalar(cpu, insn, from->size);
    x87_enter_mmx(&cpu->x87);
    if (from->kind == OPND_MMX)
        memcpy(&value, cpu->x87.st[from->reg], 8);
    vec_set_mmx(cpu, insn->op[0].reg, value);
}

/* MOVD, MOVQ, MOVNTQ from an MM register. */
void vec_mmx_store(struct cpu *cpu, const struct insn *insn)
{
    const struct opnd *to = &insn->op[0];
    uint64_t value;
    if (to->kind == OPND_MEM)
        vec_prove_store(cpu, insn, to->size);
    x87_set_top(&cpu->x87, 0); /* also when the store faults, where it has not been proved */
    memcpy(&value, cpu->x87.st[insn->op[1].reg], 8);
    if (to->kind == OPND_MEM)
        vec_write_scalar(cpu, insn, value, to->size);
    x87_enter_mmx(&cpu->x87);
    if (to->kind == OPND_GPR)
        opnd_set_gpr(cpu, to->reg, to->size, value);
    else if (to->kind == OPND_MMX)
        vec_set_mmx(cpu, to->reg, value);
}

void vec_movq2dq(struct cpu *cpu, const struct insn *insn)
{
    union vreg *to = &cpu->ymm[insn->op[0].reg];
    x87_enter_mmx(&cpu->x87);
    memcpy(to, cpu->x87.st[insn->op[1].reg], 8);
    to->q[1] = 0;
}

void vec_movdq2q(struct cpu *cpu, const struct insn *insn)
{
    x87_enter_mmx(&cpu->x87);
    vec_set_mmx(cpu, insn->op[0].reg, cpu->ymm[insn->op[1].reg].q[0]);
}
