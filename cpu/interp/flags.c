/*
 * flags.c - forming the arithmetic flags from what the last operation left (flags.h).
 */
#include "cpu/interp/flags.h"

static uint32_t sub_flags(uint64_t a, uint64_t b, uint64_t r, unsigned size, bool cf)
{
    return (cf ? FLAG_CF : 0) | ((uint32_t)(a ^ b ^ r) & FLAG_AF) |
           (cc_msb((a ^ b) & (a ^ r), size) ? FLAG_OF : 0);
}

static uint32_t add_flags(uint64_t a, uint64_t b, uint64_t r, unsigned size, bool cf)
{
    return (cf ? FLAG_CF : 0) | ((uint32_t)(a ^ b ^ r) & FLAG_AF) |
           (cc_msb((a ^ r) & (b ^ r), size) ? FLAG_OF : 0);
}

/* CF, AF and OF; the other three depend on the result alone. */
static uint32_t carry_flags(const struct cpu *cpu, unsigned size)
{
    uint64_t r = cpu->cc_dst, b = cpu->cc_src, c = cpu->cc_src2;
    uint64_t top = 1ull << (size * 8 - 1), a;
    switch (cpu->cc_op & ~3u) {
    case CC_ADD:
        return add_flags(r - b, b, r, size, r < b);
    case CC_ADC:
        return add_flags(r - b - c, b, r, size, c ? r <= b : r < b);
    case CC_SUB:
        a = cc_trunc(r + b, size);
        return sub_flags(a, b, r, size, a < b);
    case CC_SBB:
        a = cc_trunc(r + b + c, size);
        return sub_flags(a, b, r, size, c ? a <= b : a < b);
    case CC_INC:
        return (b ? FLAG_CF : 0) | (r == top ? FLAG_OF : 0) | ((r & 0xf) == 0 ? FLAG_AF : 0);
    case CC_DEC:
        return (b ? FLAG_CF : 0) | (r == top - 1 ? FLAG_OF : 0) | ((r & 0xf) == 0xf ? FLAG_AF : 0);
    case CC_SHL:
        return (cc_msb(b, size) ? FLAG_CF : 0) | (cc_msb(b ^ r, size) ? FLAG_OF : 0);
    case CC_SHR:
        return (b & 1 ? FLAG_CF : 0) | (cc_msb(b ^ r, size) ? FLAG_OF : 0);
    case CC_MUL:
        return b ? FLAG_CF | FLAG_OF : 0;
    default: /* CC_LOGIC */
        return 0;
    }
}

uint32_t cc_flags(const struct cpu *cpu)
{
    if (cpu->cc_op == CC_RFLAGS)
        return cpu->rflags & FLAGS_ARITH;
    unsigned size = 1u << (cpu->cc_op & 3);
    uint64_t r = cpu->cc_dst;
    return carry_flags(cpu, size) | (r == 0 ? FLAG_ZF : 0) | (cc_msb(r, size) ? FLAG_SF : 0) |
           (__builtin_parity(r & 0xff) ? 0 : FLAG_PF);
}

unsigned cc_carry_slow(const struct cpu *cpu)
{
    uint64_t r = cpu->cc_dst, b = cpu->cc_src, c = cpu->cc_src2, a;
    unsigned size = 1u << (cpu->cc_op & 3);
    switch (cpu->cc_op & ~3u) {
    case CC_RFLAGS:
        return cpu->rflags & FLAG_CF;
    case CC_ADD:
        return r < b;
    case CC_ADC:
        return c ? r <= b : r < b;
    case CC_SUB:
        return cc_trunc(r + b, size) < b;
    case CC_SBB:
        a = cc_trunc(r + b + c, size);
        return c ? a <= b : a < b;
    case CC_SHL:
        return cc_msb(b, size);
    case CC_SHR:
        return b & 1;
    case CC_INC:
    case CC_DEC:
    case CC_MUL:
        return b != 0;
    default:
        return 0;
    }
}

uint64_t cpu_rflags(struct cpu *cpu)
{
    if (cpu->cc_op != CC_RFLAGS)
        cpu_set_arith(cpu, cc_flags(cpu));
    return cpu->rflags;
}
