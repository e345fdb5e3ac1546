/*
 * bits.c - BT, BTS, BTR, BTC of memory with the bit's number in a register, which reaches beyond
 * the operand (SDM vol. 2, BT): the address is that of the operand plus the signed number of
 * operands that the bit number makes up; the bits below that are the bit.
 */
#include "cpu/jit/build.h"
#include "insn_exec.h"

/* R11 = the register's value, sign-extended. */
static void load_number(struct build *b, const struct opnd *o)
{
    enum { MOVSXD = 0x63, MOVSX16 = 0xbf };
    struct emit *e = &b->e;
    unsigned reg = guest_value(b, o->reg, SCRATCH2);
    if (o->size == 2) {
        emit_rex(e, 8, SCRATCH2, 0, reg);
        emit8(e, 0x0f);
        emit8(e, MOVSX16);
        emit8(e, 0xc0 | (SCRATCH2 & 7) << 3 | (reg & 7));
        return;
    }
    emit_rr(e, 8, o->size == 4 ? MOVSXD : OP_LOAD, SCRATCH2, reg);
}

/* R10 = linear address of the operand that has the bit. */
static void find_operand(struct build *b, const struct insn *insn, struct cold *site)
{
    struct emit *e = &b->e;
    unsigned size = insn->op[1].size, log2_size = (unsigned)__builtin_ctz(size);
    load_number(b, &insn->op[1]);
    emit_shift(e, 8, SHIFT_DIGIT_SAR, SCRATCH2, 3 + log2_size);
    emit_shift(e, 8, SHIFT_DIGIT_SHL, SCRATCH2, log2_size);
    emit_cpu_store(e, SCRATCH2, CPU_AT(jx.jump));
    lookup_effective(b, SCRATCH1, b->width);
    emit_cpu(e, insn->adsize, OP_ADD_LOAD, SCRATCH1, CPU_AT(jx.jump));
    lookup_add_segment(b);
    if (!insn->lock)
        return;
    emit_test_byte(e, SCRATCH1, size - 1); /* what crosses a line is for C */
    cold_jump(site, emit_jcc_later(e, CC_NE));
}

/* The instruction: [R10], R11. */
static void emit_bit_op(struct emit *e, const struct insn *insn)
{
    unsigned size = insn->op[1].size;
    if (insn->lock)
        emit8(e, 0xf0);
    if (size == 2)
        emit8(e, 0x66);
    emit_rex(e, size, SCRATCH2, 0, SCRATCH1);
    emit8(e, 0x0f);
    emit8(e, insn->bytes[insn->off_opcode]);
    emit_modrm_mem(e, SCRATCH2, SCRATCH1, 0);
}

bool bits_translate(struct build *b)
{
    const struct insn *insn = build_insn(b);
    struct emit *e = &b->e;
    bool writes = insn->op[0].access & OPND_W;
    if (insn->op[0].kind != OPND_MEM || insn->op[1].kind != OPND_GPR || insn->adsize == 2 ||
        !build_easy_segment(b, insn, writes))
        return false;
    bool keeps = b->visible_after[b->i] & ~b->kills[b->i]; /* ZF is left alone */
    if (keeps)
        flags_store(b);
    else
        flags_spill(b);
    struct cold *site = site_begin(b);
    find_operand(b, insn, site);
    lookup_stack(b, SCRATCH1, 0, insn->op[1].size, writes ? ACCESS_WRITE : ACCESS_READ, site);
    load_number(b, &insn->op[1]);
    emit_ri(e, 4, GRP1_AND, SCRATCH2, (int32_t)(8 * insn->op[1].size - 1));
    flags_clobbered(b);
    if (keeps) {
        b->flags.desc.from = FLAGS_MEMORY;
        emit_cpu_store(e, SCRATCH2, CPU_AT(jx.jump));
        flags_load(b);
        emit_cpu_load(e, SCRATCH2, CPU_AT(jx.jump));
    }
    emit_bit_op(e, insn);
    flags_produced(b, (struct flags_desc){.from = FLAGS_MEMORY});
    site_resume(b, site);
    return true;
}
