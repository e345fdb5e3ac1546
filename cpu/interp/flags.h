/*
 * flags.h - the six arithmetic flags, computed only when somebody asks.
 *
 * An instruction that sets all six stores its result, an operand and what kind of operation it was
 * (cc_dst, cc_src, cc_op); conditions are then evaluated from these, most of them without ever
 * forming the flags. What sets only some flags brings the others into `rflags` first. Code outside
 * the interpreter's core uses cpu_rflags() and cpu_set_arith() and nothing else.
 *
 * EFLAGS: SDM vol. 1, 3.4.3; condition codes: SDM vol. 1, appendix B.
 */
#ifndef CPU_INTERP_FLAGS_H
#define CPU_INTERP_FLAGS_H

#include "internal/cpu.h"

/* cc_op is a kind plus log2 of the operand size. All values are zero-extended from that size. */
enum cc_kind {
    /* CC_RFLAGS = 0: the flags are in rflags */
    CC_ADD = 4,    /* dst = a + src */
    CC_ADC = 8,    /* dst = a + src + src2; src2 = carry in */
    CC_SUB = 12,   /* dst = a - src; also CMP, NEG */
    CC_SBB = 16,   /* dst = a - src - src2 */
    CC_LOGIC = 20, /* dst; CF = OF = AF = 0 */
    CC_INC = 24,   /* dst = a + 1; src = CF */
    CC_DEC = 28,   /* dst = a - 1; src = CF */
    CC_SHL = 32,   /* dst; CF = top bit of src (the value before the last shift by one) */
    CC_SHR = 36,   /* SHR, SAR: dst; CF = low bit of src */
    CC_MUL = 40,   /* dst = low half; CF = OF = (src != 0) */
};

/* As encoded in the opcode's low bits; odd ones negate. */
enum cc_cond {
    COND_O,
    COND_NO,
    COND_B,
    COND_AE,
    COND_E,
    COND_NE,
    COND_BE,
    COND_A,
    COND_S,
    COND_NS,
    COND_P,
    COND_NP,
    COND_L,
    COND_GE,
    COND_LE,
    COND_G,
};

/* The six flags now (FLAG_*), without changing the state. */
uint32_t cc_flags(const struct cpu *cpu);
/* Only CF, 0 or 1, without the tests of cc_carry(). */
unsigned cc_carry_slow(const struct cpu *cpu);

/* cpu_rflags() of internal/cpu.h brings all flags into cpu->rflags and returns it. */

/* Replaces the six arithmetic flags. */
static inline void cpu_set_arith(struct cpu *cpu, uint32_t six)
{
    cpu->rflags = (cpu->rflags & ~(uint64_t)FLAGS_ARITH) | (six & FLAGS_ARITH);
    cpu->cc_op = CC_RFLAGS;
}
/* Replaces those in `mask`; the others keep their value. */
static inline void cc_set_some(struct cpu *cpu, uint32_t mask, uint32_t flags)
{
    cpu_set_arith(cpu, (cc_flags(cpu) & ~mask) | (flags & mask));
}

/* The flags as they are, to be put back when something is tried again. */
struct cc_state {
    uint64_t rflags, dst, src, src2;
    uint32_t op;
};
static inline struct cc_state cc_save(const struct cpu *cpu)
{
    return (struct cc_state){cpu->rflags, cpu->cc_dst, cpu->cc_src, cpu->cc_src2, cpu->cc_op};
}
static inline void cc_restore(struct cpu *cpu, const struct cc_state *s)
{
    cpu->rflags = s->rflags;
    cpu->cc_dst = s->dst;
    cpu->cc_src = s->src;
    cpu->cc_src2 = s->src2;
    cpu->cc_op = s->op;
}

/* log2 of an operand size; a constant wherever the size is one. */
static inline unsigned cc_log2(unsigned size)
{
    return size == 1 ? 0 : size == 2 ? 1 : size == 4 ? 2 : 3;
}
static inline uint64_t cc_trunc(uint64_t value, unsigned size)
{
    return size == 8 ? value : value & ((1ull << (size * 8)) - 1);
}
static inline uint64_t cc_sext(uint64_t value, unsigned size)
{
    unsigned up = 64 - size * 8;
    return (uint64_t)((int64_t)(value << up) >> up);
}
static inline unsigned cc_msb(uint64_t value, unsigned size)
{
    return (value >> (size * 8 - 1)) & 1;
}

static inline void cc_set(struct cpu *cpu, enum cc_kind kind, unsigned size, uint64_t dst,
                          uint64_t src)
{
    cpu->cc_op = kind + cc_log2(size);
    cpu->cc_dst = dst;
    *(volatile uint64_t *)&cpu->cc_src = src; /* else the two go through a vector register */
}

static inline unsigned cc_carry(const struct cpu *cpu)
{
    if (cpu->cc_op == CC_RFLAGS)
        return cpu->rflags & FLAG_CF;
    if ((cpu->cc_op & ~3u) == CC_LOGIC)
        return 0;
    return cc_carry_slow(cpu);
}

static inline bool cc_zero(const struct cpu *cpu)
{
    return cpu->cc_op == CC_RFLAGS ? (cpu->rflags & FLAG_ZF) != 0 : cpu->cc_dst == 0;
}

/* A condition from flags that are formed already. */
static inline bool cc_cond_of(uint32_t f, unsigned cond)
{
    bool sf_ne_of = !(f & FLAG_SF) != !(f & FLAG_OF), yes;
    switch (cond >> 1) {
    case COND_O >> 1:
        yes = f & FLAG_OF;
        break;
    case COND_B >> 1:
        yes = f & FLAG_CF;
        break;
    case COND_E >> 1:
        yes = f & FLAG_ZF;
        break;
    case COND_BE >> 1:
        yes = f & (FLAG_CF | FLAG_ZF);
        break;
    case COND_S >> 1:
        yes = f & FLAG_SF;
        break;
    case COND_P >> 1:
        yes = f & FLAG_PF;
        break;
    case COND_L >> 1:
        yes = sf_ne_of;
        break;
    default:
        yes = sf_ne_of || (f & FLAG_ZF);
        break;
    }
    return yes != (cond & 1);
}

/* a CONDITION b for operands zero-extended from `size`, as after CMP a, b. `cond` is a constant. */
static inline bool cc_compare(uint64_t a, uint64_t b, unsigned size, unsigned cond)
{
    int64_t sa = (int64_t)cc_sext(a, size), sb = (int64_t)cc_sext(b, size);
    bool yes;
    switch (cond >> 1) {
    case COND_B >> 1:
        yes = a < b;
        break;
    case COND_E >> 1:
        yes = a == b;
        break;
    case COND_BE >> 1:
        yes = a <= b;
        break;
    case COND_S >> 1:
        yes = cc_msb(a - b, size);
        break;
    case COND_L >> 1:
        yes = sa < sb;
        break;
    case COND_LE >> 1:
        yes = sa <= sb;
        break;
    default: {
        uint64_t r = a - b;
        yes = cond >> 1 == COND_O >> 1 ? cc_msb((a ^ b) & (a ^ r), size)
                                       : !__builtin_parity(r & 0xff);
        break;
    }
    }
    return yes != (cond & 1);
}

/* The same after a logical operation with result r (CF = OF = 0). */
static inline bool cc_logic_cond(uint64_t r, unsigned size, unsigned cond)
{
    bool s = cc_msb(r, size), z = r == 0, yes;
    switch (cond >> 1) {
    case COND_O >> 1:
    case COND_B >> 1:
        yes = false;
        break;
    case COND_E >> 1:
    case COND_BE >> 1:
        yes = z;
        break;
    case COND_S >> 1:
    case COND_L >> 1:
        yes = s;
        break;
    case COND_P >> 1:
        yes = !__builtin_parity(r & 0xff);
        break;
    default:
        yes = s || z;
        break;
    }
    return yes != (cond & 1);
}

/* A condition on the flags as they stand. After a subtraction or comparison the operands are
 * compared themselves, moved to the top of 64 bits, where signed and unsigned order are the
 * machine's own. */
static inline bool cc_test(const struct cpu *cpu, unsigned cond)
{
    if (cond >> 1 == COND_E >> 1)
        return cc_zero(cpu) != (cond & 1);
    unsigned kind = cpu->cc_op & ~3u, up = 64 - (8u << (cpu->cc_op & 3));
    if (kind == CC_SUB && cond >> 1 != COND_O >> 1 && cond >> 1 != COND_P >> 1)
        return cc_compare((cpu->cc_dst + cpu->cc_src) << up, cpu->cc_src << up, 8, cond);
    if (kind == CC_LOGIC && cond >> 1 != COND_P >> 1)
        return cc_logic_cond(cpu->cc_dst << up, 8, cond);
    if (cond >> 1 == COND_B >> 1)
        return cc_carry_slow(cpu) != (cond & 1);
    return cc_cond_of(cc_flags(cpu), cond);
}

#endif
