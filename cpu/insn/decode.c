/*
 * decode.c - bytes to struct insn, driven by the generated tables (tables.h).
 *
 * The steps follow the instruction format (SDM vol. 2, chapter 2): prefixes, opcode map and opcode,
 * the row by walking the decode tree, ModRM with SIB and displacement, then the operands in the
 * row's order, which is also the order of immediates. The decoder keeps no state and knows no
 * instruction by name; what is special about one stands in its row.
 *
 * Bytes are read only when they are needed, so that an instruction which ends at the end of a page
 * never asks for the next one (DECODE_MORE). DECODE_UD is reported as soon as it is known.
 */
#include "cpu/insn/tables.h"

#include <string.h>

/* Where the decoder is. `pos` is the next byte, `seen` one more than the last byte looked at. */
struct scan {
    const uint8_t *bytes;
    unsigned pos, seen, limit;
    bool cut; /* limit is 15: an instruction that goes on is too long, not incomplete */
    struct insn *insn;
    const struct insn_features *features;
    bool real_or_v86;
    /* Prefixes and their like */
    uint8_t override;   /* segment override in force, or SEG_NONE */
    uint8_t prefix;     /* DIM_PREFIX value */
    uint8_t w, r, x, b; /* REX or VEX bits, 0 or 1, already in the sense of REX */
    uint8_t map, opcode;
    const struct insn_shape *shape;
};

enum { PREFIX_NONE, PREFIX_66, PREFIX_F3, PREFIX_F2 };

/* ---- Bytes -------------------------------------------------------------------------------------
 */

static bool have(struct scan *s, unsigned count)
{
    if (s->pos + count > s->limit)
        return false;
    if (s->seen < s->pos + count)
        s->seen = s->pos + count;
    return true;
}

static enum decode_result ran_out(const struct scan *s)
{
    return s->cut ? DECODE_LONG : DECODE_MORE;
}

/* Little-endian, sign-extended; the caller has checked that they are there. */
static int64_t take_signed(struct scan *s, unsigned size)
{
    const uint8_t *p = s->bytes + s->pos;
    s->pos += size;
    switch (size) {
    case 1:
        return (int8_t)p[0];
    case 2: {
        int16_t value;
        memcpy(&value, p, 2);
        return value;
    }
    case 4: {
        int32_t value;
        memcpy(&value, p, 4);
        return value;
    }
    default: {
        int64_t value;
        memcpy(&value, p, 8);
        return value;
    }
    }
}

/* ---- Prefixes -------------------------------------------------------------------------------- */

/* True when `byte` is a legacy prefix; notes what it says. The last of a group wins, except that in
 * 64-bit code ES, CS, SS and DS overrides are as if absent (SDM vol. 1, 3.3.7.1): FS or GS stay. */
static bool legacy_prefix(struct scan *s, uint8_t byte)
{
    struct insn *insn = s->insn;
    bool wide = insn->code == 64;
    switch (byte) {
    case 0x26:
    case 0x2e:
    case 0x36:
    case 0x3e:
        if (!wide)
            s->override = (uint8_t)(SEG_ES + (byte >> 3 & 3));
        return true;
    case 0x64:
    case 0x65:
        s->override = byte == 0x64 ? SEG_FS : SEG_GS;
        return true;
    case 0x66:
        insn->osz66 = true;
        return true;
    case 0x67:
        insn->asz67 = true;
        return true;
    case 0xf0:
        insn->lock = true;
        return true;
    case 0xf2:
    case 0xf3:
        insn->rep = byte;
        return true;
    default:
        return false;
    }
}

/* Most bytes are not, by their first digit. */
static bool may_be_prefix(uint8_t byte)
{
    enum { DIGITS = 1 << 2 | 1 << 3 | 1 << 6 | 1 << 0xf };
    return DIGITS >> (byte >> 4) & 1;
}

/* Leaves pos at the first byte that is no prefix. A REX counts only directly before the opcode. */
static bool read_prefixes(struct scan *s)
{
    for (;; s->pos++) {
        if (!have(s, 1))
            return false;
        uint8_t byte = s->bytes[s->pos];
        if ((byte & 0xf0) == 0x40 && s->insn->code == 64)
            s->insn->rex = byte;
        else if (!may_be_prefix(byte) || !legacy_prefix(s, byte))
            return true;
        else
            s->insn->rex = 0;
    }
}

static void apply_prefixes(struct scan *s)
{
    struct insn *insn = s->insn;
    s->w = insn->rex >> 3 & 1;
    s->r = insn->rex >> 2 & 1;
    s->x = insn->rex >> 1 & 1;
    s->b = insn->rex & 1;
    s->prefix = insn->rep == 0xf3   ? PREFIX_F3
                : insn->rep == 0xf2 ? PREFIX_F2
                : insn->osz66       ? PREFIX_66
                                    : PREFIX_NONE;
    if (insn->code == 64)
        insn->adsize = insn->asz67 ? 4 : 8;
    else
        insn->adsize = (insn->code == 32) != insn->asz67 ? 4 : 2;
}

static bool is_amd(const struct scan *s)
{
    return insn_has_feature(s->features, FEAT_AMD);
}

/* Operand size without a row's own defaults. */
static uint8_t plain_opsize(const struct scan *s)
{
    const struct insn *insn = s->insn;
    if (insn->code == 64 && s->w)
        return 8;
    return (insn->code == 16) != insn->osz66 ? 2 : 4;
}

/* ---- Opcode map and opcode ------------------------------------------------------------------- */

/* C4 or C5 begins VEX in 64-bit code, and elsewhere when what would be ModRM has mod = 3, which LES
 * and LDS do not have; in real and virtual-8086 mode there is no VEX (SDM vol. 2, 2.3). */
static enum decode_result read_vex(struct scan *s, uint8_t first)
{
    static const uint8_t pp_prefix[4] = {PREFIX_NONE, PREFIX_66, PREFIX_F3, PREFIX_F2};
    struct insn *insn = s->insn;
    bool long_form = first == 0xc4, wide = insn->code == 64;
    if (insn->osz66 || insn->rep || insn->lock || insn->rex)
        return DECODE_UD;
    if (!have(s, long_form ? 3 : 2))
        return ran_out(s);
    uint8_t p0 = s->bytes[s->pos + 1], p1 = long_form ? s->bytes[s->pos + 2] : p0;
    unsigned map = long_form ? p0 & 0x1f : 1;
    if (map < 1 || map > 3)
        return DECODE_UD;
    s->pos += long_form ? 3 : 2;
    s->map = (uint8_t)(MAP_VEX0F + map - 1);
    s->r = wide ? !(p0 & 0x80) : 0;
    s->x = wide && long_form ? !(p0 & 0x40) : 0;
    s->b = wide && long_form ? !(p0 & 0x20) : 0;
    s->w = long_form ? p1 >> 7 : 0;
    s->prefix = pp_prefix[p1 & 3];
    insn->vex = true;
    insn->vex_w = s->w;
    insn->vex_l = p1 >> 2 & 1;
    insn->vvvv = ~(p1 >> 3) & 15;
    return DECODE_OK;
}

static enum decode_result read_opcode(struct scan *s)
{
    struct insn *insn = s->insn;
    uint8_t byte = s->bytes[s->pos];
    s->map = MAP_1B;
    if (byte == 0xc4 || byte == 0xc5) {
        if (!have(s, 2))
            return ran_out(s);
        if (insn->code == 64 || (s->bytes[s->pos + 1] >= 0xc0 && !s->real_or_v86)) {
            enum decode_result result = read_vex(s, byte);
            if (result != DECODE_OK)
                return result;
        }
    } else if (byte == 0x0f) {
        s->map = MAP_0F;
        s->pos++;
        if (!have(s, 1))
            return ran_out(s);
        byte = s->bytes[s->pos];
        if (byte == 0x38 || byte == 0x3a) {
            s->map = byte == 0x38 ? MAP_0F38 : MAP_0F3A;
            s->pos++;
        }
    } else if (byte >= 0xd8 && byte <= 0xdf) {
        s->map = MAP_X87;
    }
    if (!have(s, 1))
        return ran_out(s);
    insn->off_opcode = (uint8_t)s->pos;
    s->opcode = s->bytes[s->pos++];
    return DECODE_OK;
}

/* ---- The row --------------------------------------------------------------------------------- */

/* log2 of 2, 4, 8 less one: values of DIM_OPSIZE and DIM_ADSIZE */
static unsigned size_value(unsigned size)
{
    return size >> 2;
}

/* The value of a dimension; the byte behind the opcode is there when it needs ModRM. */
static unsigned dimension_value(const struct scan *s, unsigned dim)
{
    switch (dim) {
    case DIM_MODE:
        return s->insn->code == 64;
    case DIM_PREFIX:
        return s->prefix;
    case DIM_W:
        return s->w;
    case DIM_L:
        return s->insn->vex_l;
    case DIM_OPSIZE:
        return size_value(plain_opsize(s));
    case DIM_ADSIZE:
        return size_value(s->insn->adsize);
    case DIM_REXB:
        return s->b;
    case DIM_MOD:
        return s->bytes[s->pos] >= 0xc0;
    case DIM_REG:
        return s->bytes[s->pos] >> 3 & 7;
    default:
        return s->bytes[s->pos] & 7;
    }
}

static enum decode_result find_row(struct scan *s)
{
    unsigned ref = insn_roots[s->map][s->opcode];
    while (ref && !(ref & TREE_LEAF)) {
        unsigned dim = insn_tree[ref];
        if (dim >= DIM_MODRM && !have(s, 1))
            return ran_out(s);
        ref = insn_tree[ref + 1 + dimension_value(s, dim)];
    }
    if (ref == 0)
        return DECODE_UD;
    unsigned id = ref & ~TREE_LEAF;
    while (!insn_has_feature(s->features, insn_rows[id].feature)) {
        if (insn_shapes[id].fallback == 0)
            return DECODE_UD;
        id = insn_shapes[id].fallback - 1u;
    }
    s->shape = &insn_shapes[id];
    s->insn->row = &insn_rows[id];
    if ((insn_rows[id].attr & INSN_PROT) && s->real_or_v86)
        return DECODE_UD;
    if (s->insn->vex && !(s->shape->flags & SHAPE_VVVV) && s->insn->vvvv)
        return DECODE_UD;
    return DECODE_OK;
}

static void set_opsize(struct scan *s)
{
    struct insn *insn = s->insn;
    insn->opsize = plain_opsize(s);
    if (insn->code != 64)
        return;
    uint32_t attr = insn->row->attr;
    if (attr & INSN_NEAR64)
        attr |= is_amd(s) ? INSN_DEF64 : INSN_FORCE64;
    if (attr & INSN_FORCE64)
        insn->opsize = 8;
    else if ((attr & INSN_DEF64) && insn->opsize == 4)
        insn->opsize = 8;
}

/* ---- ModRM, SIB, displacement ---------------------------------------------------------------- */

static bool read_disp(struct scan *s, unsigned size)
{
    if (size == 0)
        return true;
    if (!have(s, size))
        return false;
    s->insn->off_disp = (uint8_t)s->pos;
    s->insn->disp_size = (uint8_t)size;
    s->insn->mem.disp = take_signed(s, size);
    return true;
}

/* SDM vol. 2, table 2-1 */
static bool read_memory16(struct scan *s, unsigned mod, unsigned rm)
{
    static const uint8_t base[8] = {3, 3, 5, 5, 6, 7, 5, 3};
    static const uint8_t index[8] = {6, 7, 6, 7, REG_NONE, REG_NONE, REG_NONE, REG_NONE};
    struct insn_mem *mem = &s->insn->mem;
    mem->base = base[rm];
    mem->index = index[rm];
    if (mod == 0 && rm == 6) {
        mem->base = REG_NONE;
        return read_disp(s, 2);
    }
    return read_disp(s, mod);
}

/* SDM vol. 2, tables 2-2 and 2-3; RIP-relative 2.2.1.6 */
static bool read_memory32(struct scan *s, unsigned mod, unsigned rm)
{
    struct insn_mem *mem = &s->insn->mem;
    unsigned disp = mod == 1 ? 1 : mod == 2 ? 4 : 0;
    mem->base = (uint8_t)(rm | s->b << 3);
    if (rm == 4) {
        if (!have(s, 1))
            return false;
        uint8_t sib = s->bytes[s->pos++];
        mem->base = (uint8_t)((sib & 7) | s->b << 3);
        mem->index = (uint8_t)((sib >> 3 & 7) | s->x << 3);
        mem->scale = sib >> 6;
        if (mem->index == 4 && !mem->vsib) {
            mem->index = REG_NONE;
            mem->scale = 0;
        }
        if (mod == 0 && (sib & 7) == 5) {
            mem->base = REG_NONE;
            disp = 4;
        }
    } else if (mod == 0 && rm == 5) {
        mem->base = s->insn->code == 64 ? REG_PC : REG_NONE;
        disp = 4;
    }
    return read_disp(s, disp);
}

static uint8_t effective_segment(const struct scan *s, unsigned base)
{
    if (s->override != SEG_NONE)
        return s->override;
    return base == 4 || base == 5 ? SEG_SS : SEG_DS;
}

static enum decode_result read_modrm(struct scan *s)
{
    struct insn *insn = s->insn;
    if (!(s->shape->flags & SHAPE_MODRM))
        return DECODE_OK;
    if (!have(s, 1))
        return ran_out(s);
    insn->has_modrm = true;
    insn->off_modrm = (uint8_t)s->pos;
    insn->modrm = s->bytes[s->pos++];
    unsigned mod = insn->modrm >> 6, rm = insn->modrm & 7;
    if (mod == 3 || (s->shape->flags & SHAPE_MOD_IGNORED))
        return DECODE_OK;
    insn->mem.vsib = s->shape->flags & SHAPE_VSIB;
    if (insn->mem.vsib && (rm != 4 || insn->adsize == 2))
        return DECODE_UD;
    insn->has_mem = true;
    bool complete = insn->adsize == 2 ? read_memory16(s, mod, rm) : read_memory32(s, mod, rm);
    insn->mem.seg = effective_segment(s, insn->mem.base);
    return complete ? DECODE_OK : ran_out(s);
}

/* ---- Operands -------------------------------------------------------------------------------- */

static uint16_t operand_size(const struct scan *s, const struct opnd_shape *shape, bool is_register)
{
    const struct insn *insn = s->insn;
    unsigned wide = insn->code == 64, vector = 16u << insn->vex_l;
    if (shape->size <= SIZE_V) /* nearly always; which of the two is not known beforehand */
        return ((const uint16_t[]){shape->bytes, insn->opsize})[shape->size];
    switch (shape->size) {
    case SIZE_Z:
        return insn->opsize > 4 ? 4 : insn->opsize;
    case SIZE_Y:
        return wide && s->w ? 8 : 4;
    case SIZE_P: /* AMD's processors have no m16:64 (APM vol. 3, JMP Far, LFS) */
        return (uint16_t)(2 + (insn->opsize == 8 && is_amd(s) ? 4 : insn->opsize));
    case SIZE_A:
        return (uint16_t)(2 * insn->opsize);
    case SIZE_S:
        return wide ? 10 : 6;
    case SIZE_X:
        return (uint16_t)vector;
    case SIZE_H:
        return (uint16_t)(vector / 2);
    case SIZE_HH:
        return (uint16_t)(vector / 4);
    case SIZE_HHH:
        return (uint16_t)(vector / 8);
    case SIZE_SS:
        return is_register ? 16 : 4;
    case SIZE_SD:
        return is_register ? 16 : 8;
    case SIZE_N:
        return wide ? 8 : 4;
    default: /* SIZE_AD */
        return insn->adsize;
    }
}

/* A general-purpose register; without REX the byte registers 4-7 are AH, CH, DH, BH. */
static void set_gpr(const struct scan *s, struct opnd *op, unsigned reg)
{
    op->kind = OPND_GPR;
    op->reg = (uint8_t)reg;
    if (op->size == 1 && reg >= 4 && reg < 8 && !s->insn->rex && !s->insn->vex) {
        op->kind = OPND_GPR8H;
        op->reg = (uint8_t)(reg - 4);
    }
}

static void set_vector(struct opnd *op, unsigned reg)
{
    op->kind = op->size == 32 ? OPND_YMM : OPND_XMM;
    op->reg = (uint8_t)reg;
}

static enum decode_result read_immediate(struct scan *s, struct opnd *op,
                                         const struct opnd_shape *shape)
{
    struct insn *insn = s->insn;
    bool second = insn->imm_size != 0;
    unsigned size = op->size;
    if (!have(s, size))
        return ran_out(s);
    if (!second)
        insn->off_imm = (uint8_t)s->pos;
    insn->imm_size += size;
    int64_t value = take_signed(s, size);
    /* Ib and Iw are unsigned numbers (counts, ports, frame sizes); the others sign-extend. */
    if (shape->source == SRC_I && shape->size == SIZE_BYTES)
        value &= size == 1 ? 0xff : size == 2 ? 0xffff : 0xffffffff;
    op->kind = shape->source == SRC_J ? OPND_REL : second ? OPND_IMM2 : OPND_IMM;
    *(second ? &insn->imm2 : &insn->imm) = value;
    return DECODE_OK;
}

static enum decode_result read_far_pointer(struct scan *s, struct opnd *op)
{
    struct insn *insn = s->insn;
    unsigned offset = insn->opsize;
    op->kind = OPND_FAR;
    if (!have(s, offset + 2))
        return ran_out(s);
    insn->off_imm = (uint8_t)s->pos;
    insn->imm_size = (uint8_t)(offset + 2);
    insn->imm = take_signed(s, offset) & (offset == 2 ? 0xffff : 0xffffffff);
    insn->imm2 = take_signed(s, 2) & 0xffff;
    return DECODE_OK;
}

static enum decode_result read_moffs(struct scan *s, struct opnd *op)
{
    struct insn *insn = s->insn;
    unsigned size = insn->adsize;
    op->kind = OPND_MEM;
    insn->has_mem = true;
    insn->mem.seg = effective_segment(s, REG_NONE);
    if (!read_disp(s, size))
        return ran_out(s);
    if (size < 8)
        insn->mem.disp &= size == 2 ? 0xffff : 0xffffffff;
    return DECODE_OK;
}

/* SDM vol. 2, MOV control registers: CR1, CR5-CR7 and CR9-CR15 do not exist, nor DR8-DR15. On AMD's
 * processors LOCK adds 8 to the register's number: LOCK MOV CR0 is MOV CR8, in all code sizes (APM
 * vol. 3, MOV CRn). */
static enum decode_result set_special(const struct scan *s, struct opnd *op, unsigned source)
{
    unsigned reg = s->insn->modrm >> 3 & 7;
    if (source == SRC_S) {
        op->kind = OPND_SEG;
        op->reg = (uint8_t)reg;
        return reg > SEG_GS || (reg == SEG_CS && (op->access & OPND_W)) ? DECODE_UD : DECODE_OK;
    }
    reg |= s->r << 3u;
    if (source == SRC_C && s->insn->lock && insn_has_feature(s->features, FEAT_CR8LEGACY)) {
        reg += 8; /* CR8 under LOCK does not exist */
        s->insn->lock = false;
    }
    op->kind = source == SRC_C ? OPND_CR : OPND_DR;
    op->reg = (uint8_t)reg;
    unsigned valid = source == SRC_C ? 1 << 0 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 8 : 0xff;
    return valid >> reg & 1 ? DECODE_OK : DECODE_UD;
}

/* Operands fixed by the row. */
static void set_fixed(struct scan *s, struct opnd *op, const struct opnd_shape *shape)
{
    static const uint8_t kinds[] = {
        [SRC_GPR] = OPND_GPR, [SRC_GPR8H] = OPND_GPR8H, [SRC_SEG] = OPND_SEG, [SRC_ST] = OPND_ST,
        [SRC_XMM] = OPND_XMM, [SRC_ONE] = OPND_ONE,     [SRC_MEM] = OPND_MEM};
    op->kind = kinds[shape->source];
    op->reg = shape->reg;
    if (shape->source == SRC_MEM) {
        s->insn->has_mem = true;
        s->insn->mem.base = shape->reg;
        s->insn->mem.seg = s->override != SEG_NONE ? s->override : SEG_DS;
        op->reg = 0;
    }
}

static enum decode_result read_operand(struct scan *s, struct opnd *op,
                                       const struct opnd_shape *shape)
{
    struct insn *insn = s->insn;
    bool memory = insn->has_mem;
    unsigned reg = (insn->modrm >> 3 & 7) | s->r << 3u, rm = (insn->modrm & 7) | s->b << 3u;
    unsigned vvvv = insn->code == 64 ? insn->vvvv : insn->vvvv & 7;

    op->access = shape->access;
    op->implicit = shape->hidden;
    op->size = operand_size(s, shape, !memory || shape->source == SRC_V || shape->source == SRC_H);
    if (shape->source == SRC_G || (shape->source == SRC_E && !memory)) {
        set_gpr(s, op, shape->source == SRC_G ? reg : rm);
        return DECODE_OK;
    }
    switch (shape->source) {
    case SRC_E:
    case SRC_M:
    case SRC_MX:
    case SRC_MY:
    case SRC_Q:
    case SRC_W:
        if (memory) {
            op->kind = OPND_MEM;
            return DECODE_OK;
        }
        if (shape->source == SRC_Q) {
            op->kind = OPND_MMX;
            op->reg = insn->modrm & 7;
        } else {
            set_vector(op, rm);
        }
        return DECODE_OK;
    case SRC_R:
        set_gpr(s, op, rm);
        return DECODE_OK;
    case SRC_Z:
        set_gpr(s, op, (s->opcode & 7) | s->b << 3u);
        return DECODE_OK;
    case SRC_B:
        set_gpr(s, op, vvvv);
        return DECODE_OK;
    case SRC_I:
    case SRC_IS:
    case SRC_J:
        return read_immediate(s, op, shape);
    case SRC_A:
        return read_far_pointer(s, op);
    case SRC_O:
        return read_moffs(s, op);
    case SRC_S:
    case SRC_C:
    case SRC_D:
        return set_special(s, op, shape->source);
    case SRC_X:
        op->kind = OPND_STR_SRC;
        insn->mem.seg = s->override != SEG_NONE ? s->override : SEG_DS;
        return DECODE_OK;
    case SRC_Y:
        op->kind = OPND_STR_DST;
        return DECODE_OK;
    case SRC_P:
    case SRC_N:
        op->kind = OPND_MMX;
        op->reg = (shape->source == SRC_P ? insn->modrm >> 3 : insn->modrm) & 7;
        return DECODE_OK;
    case SRC_V:
        set_vector(op, reg);
        return DECODE_OK;
    case SRC_U:
        set_vector(op, rm);
        return DECODE_OK;
    case SRC_H:
        set_vector(op, vvvv);
        return DECODE_OK;
    case SRC_L: {
        struct opnd_shape byte = {.source = SRC_I, .size = SIZE_BYTES, .bytes = 1};
        struct opnd imm = {.size = 1};
        enum decode_result result = read_immediate(s, &imm, &byte);
        set_vector(op, (unsigned)insn->imm >> 4 & (insn->code == 64 ? 15 : 7));
        return result;
    }
    case SRC_T:
        op->kind = OPND_ST;
        op->reg = insn->modrm & 7;
        return DECODE_OK;
    default:
        set_fixed(s, op, shape);
        return DECODE_OK;
    }
}

/* Gathers raise #UD when destination, index and mask are not three different registers (SDM vol. 2,
 * VGATHERDPS). */
static bool gather_overlaps(const struct insn *insn)
{
    unsigned mask = insn->code == 64 ? insn->vvvv : insn->vvvv & 7;
    return insn->op[0].reg == insn->mem.index || insn->op[0].reg == mask || insn->mem.index == mask;
}

static enum decode_result read_operands(struct scan *s)
{
    struct insn *insn = s->insn;
    insn->opnds = s->shape->opnds;
    for (unsigned i = 0; i < insn->opnds; i++) {
        enum decode_result result = read_operand(s, &insn->op[i], &s->shape->op[i]);
        if (result != DECODE_OK)
            return result;
    }
    if (insn->lock && !((insn->row->attr & INSN_LOCK) && insn->op[0].kind == OPND_MEM))
        return DECODE_UD;
    if (insn->mem.vsib && gather_overlaps(insn))
        return DECODE_UD;
    return DECODE_OK;
}

static enum decode_result decode(struct scan *s)
{
    if (!read_prefixes(s))
        return ran_out(s);
    apply_prefixes(s);
    enum decode_result result = read_opcode(s);
    if (result == DECODE_OK)
        result = find_row(s);
    if (result != DECODE_OK)
        return result;
    set_opsize(s);
    result = read_modrm(s);
    if (result != DECODE_OK)
        return result;
    return read_operands(s);
}

/* `len` bytes of 15, and zeros: no call, and no loop. */
static void copy_bytes(uint8_t to[15], const uint8_t *from, unsigned len)
{
    uint64_t lo, hi; /* the last byte of one is the first of the other */
    memcpy(&lo, from, 8);
    memcpy(&hi, from + 7, 8);
    lo = len < 8 ? lo & ~(UINT64_MAX << 8 * len) : lo;
    hi = len < 8 ? 0 : len < 15 ? hi & ~(UINT64_MAX << 8 * (len - 7)) : hi;
    memcpy(to + 7, &hi, 8);
    memcpy(to, &lo, 8);
}

/* In parts that the compiler makes stores of: REP STOS takes longer than reading the prefixes. */
static void clear(struct insn *insn)
{
    enum { PART = 28 };
    char *at = (char *)insn;
    _Static_assert(sizeof *insn % PART == 0, "parts");
    for (unsigned i = 0; i < sizeof *insn / PART; i++)
        memset(at + i * PART, 0, PART);
}

enum decode_result insn_decode(const uint8_t *bytes, size_t avail, unsigned code, bool real_or_v86,
                               const struct insn_features *features, struct insn *insn)
{
    clear(insn);
    insn->code = (uint8_t)code;
    insn->mem.base = insn->mem.index = REG_NONE;
    insn->mem.seg = SEG_DS;
    struct scan s = {
        .bytes = bytes,
        .limit = avail < sizeof(insn->bytes) ? (unsigned)avail : (unsigned)sizeof(insn->bytes),
        .cut = avail >= sizeof(insn->bytes),
        .insn = insn,
        .features = features,
        .real_or_v86 = real_or_v86,
        .override = SEG_NONE,
    };
    enum decode_result result = decode(&s);
    insn->len = (uint8_t)(result == DECODE_OK ? s.pos : s.seen);
    if (s.cut)
        copy_bytes(insn->bytes, bytes, insn->len);
    else
        memcpy(insn->bytes, bytes, insn->len);
    return result;
}
