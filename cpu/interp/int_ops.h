/*
 * int_ops.h - what integer instructions compute, once, for operands of any size.
 *
 * Each function takes its operands zero-extended from `size` bytes, returns the result likewise and
 * leaves the flags. The specialised handlers (int_alu.c and others) call them with a constant size,
 * the plain ones (plain_arith.c) with the instruction's; both get the same semantics. SDM vol. 2.
 */
#ifndef CPU_INTERP_INT_OPS_H
#define CPU_INTERP_INT_OPS_H

#include "cpu/interp/flags.h"

#define OP static inline __attribute__((always_inline)) uint64_t

OP op_add(struct cpu *cpu, uint64_t a, uint64_t b, unsigned size)
{
    uint64_t r = cc_trunc(a + b, size);
    cc_set(cpu, CC_ADD, size, r, b);
    return r;
}

OP op_adc(struct cpu *cpu, uint64_t a, uint64_t b, unsigned size)
{
    unsigned c = cc_carry(cpu);
    uint64_t r = cc_trunc(a + b + c, size);
    cc_set(cpu, CC_ADC, size, r, b);
    cpu->cc_src2 = c;
    return r;
}

OP op_sub(struct cpu *cpu, uint64_t a, uint64_t b, unsigned size)
{
    uint64_t r = cc_trunc(a - b, size);
    cc_set(cpu, CC_SUB, size, r, b);
    return r;
}

OP op_sbb(struct cpu *cpu, uint64_t a, uint64_t b, unsigned size)
{
    unsigned c = cc_carry(cpu);
    uint64_t r = cc_trunc(a - b - c, size);
    cc_set(cpu, CC_SBB, size, r, b);
    cpu->cc_src2 = c;
    return r;
}

OP op_logic(struct cpu *cpu, uint64_t r, unsigned size)
{
    cc_set(cpu, CC_LOGIC, size, r, 0);
    return r;
}
OP op_and(struct cpu *cpu, uint64_t a, uint64_t b, unsigned size)
{
    return op_logic(cpu, a & b, size);
}
OP op_or(struct cpu *cpu, uint64_t a, uint64_t b, unsigned size)
{
    return op_logic(cpu, a | b, size);
}
OP op_xor(struct cpu *cpu, uint64_t a, uint64_t b, unsigned size)
{
    return op_logic(cpu, a ^ b, size);
}

/* One-operand forms share the two-operand signature, so that they fit the same handlers. */
OP op_inc(struct cpu *cpu, uint64_t a, uint64_t unused, unsigned size)
{
    (void)unused;
    uint64_t c = cc_carry(cpu), r = cc_trunc(a + 1, size);
    cc_set(cpu, CC_INC, size, r, c);
    return r;
}
OP op_dec(struct cpu *cpu, uint64_t a, uint64_t unused, unsigned size)
{
    (void)unused;
    uint64_t c = cc_carry(cpu), r = cc_trunc(a - 1, size);
    cc_set(cpu, CC_DEC, size, r, c);
    return r;
}
OP op_neg(struct cpu *cpu, uint64_t a, uint64_t unused, unsigned size)
{
    (void)unused;
    return op_sub(cpu, 0, a, size);
}
OP op_not(struct cpu *cpu, uint64_t a, uint64_t unused, unsigned size)
{
    (void)cpu, (void)unused;
    return cc_trunc(~a, size);
}

/* ---- Shifts and rotates: a count of 0 (after masking) leaves everything alone ---------------- */

static inline unsigned shift_count(uint64_t count, unsigned size)
{
    return count & (size == 8 ? 63 : 31);
}

OP op_shl(struct cpu *cpu, uint64_t a, uint64_t count, unsigned size)
{
    unsigned n = shift_count(count, size);
    if (n == 0)
        return a;
    uint64_t before = a << (n - 1), r = cc_trunc(before << 1, size);
    cc_set(cpu, CC_SHL, size, r, cc_trunc(before, size));
    return r;
}

OP op_shr(struct cpu *cpu, uint64_t a, uint64_t count, unsigned size)
{
    unsigned n = shift_count(count, size);
    if (n == 0)
        return a;
    uint64_t before = a >> (n - 1), r = before >> 1;
    cc_set(cpu, CC_SHR, size, r, before);
    return r;
}

OP op_sar(struct cpu *cpu, uint64_t a, uint64_t count, unsigned size)
{
    unsigned n = shift_count(count, size);
    if (n == 0)
        return a;
    int64_t before = (int64_t)cc_sext(a, size) >> (n - 1);
    uint64_t r = cc_trunc((uint64_t)(before >> 1), size);
    cc_set(cpu, CC_SHR, size, r, cc_trunc((uint64_t)before, size));
    return r;
}

/* Rotates change CF and OF only. OF is defined for a count of 1; the same formula gives what
 * processors do for others. */
static inline void rotate_flags(struct cpu *cpu, bool cf, bool of)
{
    cc_set_some(cpu, FLAG_CF | FLAG_OF, (cf ? FLAG_CF : 0) | (of ? FLAG_OF : 0));
}

/* The value alone, for where nobody will read the flags. */
OP rol_value(uint64_t a, unsigned n, unsigned size)
{
    n &= size * 8 - 1;
    return n ? cc_trunc(a << n | a >> (size * 8 - n), size) : a;
}

OP op_rol(struct cpu *cpu, uint64_t a, uint64_t count, unsigned size)
{
    unsigned n = shift_count(count, size);
    if (n == 0)
        return a;
    uint64_t r = rol_value(a, n, size);
    rotate_flags(cpu, r & 1, (r & 1) ^ cc_msb(r, size));
    return r;
}

OP op_ror(struct cpu *cpu, uint64_t a, uint64_t count, unsigned size)
{
    unsigned n = shift_count(count, size);
    if (n == 0)
        return a;
    uint64_t r = rol_value(a, size * 8 - (n & (size * 8 - 1)), size);
    rotate_flags(cpu, cc_msb(r, size), cc_msb(r ^ r << 1, size));
    return r;
}

/* Rotates the value of size * 8 + 1 bits whose top bit is CF; n < its width. */
static inline unsigned __int128 rotate_wide(unsigned __int128 v, unsigned n, unsigned width)
{
    unsigned __int128 mask = ((unsigned __int128)1 << width) - 1;
    return n ? (v << n | v >> (width - n)) & mask : v;
}

OP op_rcl(struct cpu *cpu, uint64_t a, uint64_t count, unsigned size)
{
    unsigned bits = size * 8, n = shift_count(count, size) % (bits + 1);
    if (n == 0)
        return a;
    unsigned __int128 v = (unsigned __int128)cc_carry(cpu) << bits | a;
    v = rotate_wide(v, n, bits + 1);
    uint64_t r = cc_trunc((uint64_t)v, size);
    bool cf = v >> bits & 1;
    rotate_flags(cpu, cf, cf ^ cc_msb(r, size));
    return r;
}

OP op_rcr(struct cpu *cpu, uint64_t a, uint64_t count, unsigned size)
{
    unsigned bits = size * 8, n = shift_count(count, size) % (bits + 1);
    if (n == 0)
        return a;
    unsigned __int128 v = (unsigned __int128)cc_carry(cpu) << bits | a;
    v = rotate_wide(v, bits + 1 - n, bits + 1);
    uint64_t r = cc_trunc((uint64_t)v, size);
    rotate_flags(cpu, v >> bits & 1, cc_msb(r ^ r << 1, size));
    return r;
}

/* SHLD and SHRD. With 16-bit operands and counts of 17-31 the manuals leave result and CF
 * undefined. Intel's processors then go on with the destination behind the source; AMD's with the
 * source again, and CF is 0. */
static inline uint64_t double_shift_next(const struct cpu *cpu, uint64_t a, uint64_t b)
{
    return cpu_is_amd(cpu) ? b : a;
}
static inline bool double_shift_drops_carry(const struct cpu *cpu, unsigned n)
{
    return n > 16 && cpu_is_amd(cpu);
}

static inline uint64_t op_shld(struct cpu *cpu, uint64_t a, uint64_t b, uint64_t count,
                               unsigned size)
{
    unsigned n = shift_count(count, size), bits = size * 8;
    if (n == 0)
        return a;
    uint64_t before, r;
    if (size == 2) {
        uint64_t three = a << 32 | b << 16 | double_shift_next(cpu, a, b);
        before = double_shift_drops_carry(cpu, n) ? 0 : cc_trunc(three << (n - 1) >> 32, 2);
        r = cc_trunc(three << n >> 32, 2);
    } else {
        before = cc_trunc(n == 1 ? a : a << (n - 1) | b >> (bits - n + 1), size);
        r = cc_trunc(a << n | b >> (bits - n), size);
    }
    cc_set(cpu, CC_SHL, size, r, before);
    return r;
}

static inline uint64_t op_shrd(struct cpu *cpu, uint64_t a, uint64_t b, uint64_t count,
                               unsigned size)
{
    unsigned n = shift_count(count, size), bits = size * 8;
    if (n == 0)
        return a;
    uint64_t before, r;
    if (size == 2) {
        uint64_t three = double_shift_next(cpu, a, b) << 32 | b << 16 | a;
        before = double_shift_drops_carry(cpu, n) ? 0 : cc_trunc(three >> (n - 1), 2);
        r = cc_trunc(three >> n, 2);
    } else {
        before = cc_trunc(n == 1 ? a : a >> (n - 1) | b << (bits - n + 1), size);
        r = cc_trunc(a >> n | b << (bits - n), size);
    }
    cc_set(cpu, CC_SHR, size, r, before);
    return r;
}

/* ---- Multiplication -------------------------------------------------------------------------- */

/* IMUL with two or three operands: the low half, CF = OF = "the high half is not its sign". */
OP op_imul(struct cpu *cpu, uint64_t a, uint64_t b, unsigned size)
{
    __int128 p = (__int128)(int64_t)cc_sext(a, size) * (int64_t)cc_sext(b, size);
    uint64_t r = cc_trunc((uint64_t)p, size);
    cc_set(cpu, CC_MUL, size, r, p != (int64_t)cc_sext(r, size));
    return r;
}

/* ---- Bits ------------------------------------------------------------------------------------ */

static inline void set_carry(struct cpu *cpu, bool cf)
{
    cc_set_some(cpu, FLAG_CF, cf ? FLAG_CF : 0);
}
/* BT and relatives: `b` is the bit's number inside the operand. */
OP op_bt(struct cpu *cpu, uint64_t a, uint64_t b, unsigned size)
{
    set_carry(cpu, a >> (b & (size * 8 - 1)) & 1);
    return a;
}
OP op_bts(struct cpu *cpu, uint64_t a, uint64_t b, unsigned size)
{
    op_bt(cpu, a, b, size);
    return a | 1ull << (b & (size * 8 - 1));
}
OP op_btr(struct cpu *cpu, uint64_t a, uint64_t b, unsigned size)
{
    op_bt(cpu, a, b, size);
    return a & ~(1ull << (b & (size * 8 - 1)));
}
OP op_btc(struct cpu *cpu, uint64_t a, uint64_t b, unsigned size)
{
    op_bt(cpu, a, b, size);
    return a ^ 1ull << (b & (size * 8 - 1));
}

#undef OP

#endif
