/*
 * plain_arith.c - arithmetic, logic, shifts and bit instructions in their plain form (plain.h).
 */
#include "cpu/interp/int_ops.h"
#include "cpu/interp/plain.h"
#include "cpu/mem.h"
#include "cpu/opnd.h"

typedef uint64_t alu_fn(struct cpu *cpu, uint64_t a, uint64_t b, unsigned size);

/* ---- Two operands, the first is the destination ---------------------------------------------- */

struct locked_alu {
    struct cpu *cpu;
    alu_fn *fn;
    uint64_t b;
    unsigned size;
    struct cc_state before;
};

static void locked_alu_update(void *opaque, const void *old_value, void *new_value)
{
    struct locked_alu *l = opaque;
    uint64_t a = 0;
    __builtin_memcpy(&a, old_value, l->size);
    cc_restore(l->cpu, &l->before);
    uint64_t r = l->fn(l->cpu, a, l->b, l->size);
    __builtin_memcpy(new_value, &r, l->size);
}

/* Locked at a linear address; returns the value before. */
static uint64_t locked_alu(struct cpu *cpu, unsigned seg, uint64_t lin, alu_fn *fn, uint64_t b,
                           unsigned size)
{
    struct locked_alu l = {cpu, fn, b, size, cc_save(cpu)};
    uint64_t old = 0;
    mem_locked_rmw(cpu, seg, lin, size, locked_alu_update, &l, &old);
    return old;
}

static void alu_rmw(struct cpu *cpu, const struct insn *insn, alu_fn *fn, uint64_t b)
{
    unsigned size = insn->op[0].size;
    b = cc_trunc(b, size);
    if (insn->lock) {
        locked_alu(cpu, insn->mem.seg, opnd_address(cpu, insn, ACCESS_READ | ACCESS_WRITE), fn, b,
                   size);
        return;
    }
    /* A memory operand is proved writable by the read, so the flags are safe to change. */
    uint64_t a = opnd_read(cpu, insn, 0);
    opnd_write(cpu, insn, 0, fn(cpu, a, b, size));
}

#define BINARY(name)                                                                               \
    void plain_##name(struct cpu *cpu, const struct insn *insn)                                    \
    {                                                                                              \
        alu_rmw(cpu, insn, op_##name, opnd_read(cpu, insn, 1));                                    \
    }
BINARY(add)
BINARY(or)
BINARY(adc)
BINARY(sbb)
BINARY(and)
BINARY(sub)
BINARY(xor)
BINARY(shl)
BINARY(shr)
BINARY(sar)
BINARY(rol)
BINARY(ror)
BINARY(rcl)
BINARY(rcr)

#define UNARY(name)                                                                                \
    void plain_##name(struct cpu *cpu, const struct insn *insn)                                    \
    {                                                                                              \
        alu_rmw(cpu, insn, op_##name, 0);                                                          \
    }
UNARY(inc)
UNARY(dec)
UNARY(neg)
UNARY(not )

void plain_cmp(struct cpu *cpu, const struct insn *insn)
{
    unsigned size = insn->op[0].size;
    uint64_t a = opnd_read(cpu, insn, 0), b = opnd_read(cpu, insn, 1);
    op_sub(cpu, a, cc_trunc(b, size), size);
}

void plain_test(struct cpu *cpu, const struct insn *insn)
{
    unsigned size = insn->op[0].size;
    uint64_t a = opnd_read(cpu, insn, 0), b = opnd_read(cpu, insn, 1);
    op_and(cpu, a, cc_trunc(b, size), size);
}

void plain_shld(struct cpu *cpu, const struct insn *insn)
{
    uint64_t a = opnd_read(cpu, insn, 0), b = opnd_read(cpu, insn, 1);
    uint64_t count = opnd_read(cpu, insn, 2);
    opnd_write(cpu, insn, 0, op_shld(cpu, a, b, count, insn->op[0].size));
}

void plain_shrd(struct cpu *cpu, const struct insn *insn)
{
    uint64_t a = opnd_read(cpu, insn, 0), b = opnd_read(cpu, insn, 1);
    uint64_t count = opnd_read(cpu, insn, 2);
    opnd_write(cpu, insn, 0, op_shrd(cpu, a, b, count, insn->op[0].size));
}

/* ---- Exchange -------------------------------------------------------------------------------- */

static uint64_t take_second(struct cpu *cpu, uint64_t a, uint64_t b, unsigned size)
{
    (void)cpu, (void)a, (void)size;
    return b;
}

/* XCHG with memory is locked with or without the prefix (SDM vol. 3, 8.1.2.1). */
void plain_xchg(struct cpu *cpu, const struct insn *insn)
{
    unsigned size = insn->op[0].size;
    for (unsigned m = 0; m < 2; m++) {
        if (insn->op[m].kind != OPND_MEM)
            continue;
        uint64_t lin = opnd_address(cpu, insn, ACCESS_READ | ACCESS_WRITE);
        uint64_t b = opnd_read(cpu, insn, !m);
        opnd_write(cpu, insn, !m, locked_alu(cpu, insn->mem.seg, lin, take_second, b, size));
        return;
    }
    uint64_t a = opnd_read(cpu, insn, 0), b = opnd_read(cpu, insn, 1);
    opnd_write(cpu, insn, 0, b);
    opnd_write(cpu, insn, 1, a);
}

void plain_xadd(struct cpu *cpu, const struct insn *insn)
{
    unsigned size = insn->op[0].size;
    uint64_t a, b = opnd_read(cpu, insn, 1);
    if (insn->lock) {
        uint64_t lin = opnd_address(cpu, insn, ACCESS_READ | ACCESS_WRITE);
        a = locked_alu(cpu, insn->mem.seg, lin, op_add, b, size);
        opnd_write(cpu, insn, 1, a);
        return;
    }
    a = opnd_read(cpu, insn, 0);
    uint64_t r = op_add(cpu, a, b, size);
    if (insn->op[0].kind == OPND_MEM) {
        opnd_write(cpu, insn, 0, r);
        opnd_write(cpu, insn, 1, a);
    } else { /* both operands the same register: the sum stays */
        opnd_write(cpu, insn, 1, a);
        opnd_write(cpu, insn, 0, r);
    }
}

struct locked_cmpxchg {
    uint64_t expected, desired;
    unsigned size;
};

static void locked_cmpxchg_update(void *opaque, const void *old_value, void *new_value)
{
    struct locked_cmpxchg *l = opaque;
    uint64_t old = 0;
    __builtin_memcpy(&old, old_value, l->size);
    __builtin_memcpy(new_value, old == l->expected ? &l->desired : &old, l->size);
}

/* The destination is written in either case (SDM vol. 2, CMPXCHG). */
void plain_cmpxchg(struct cpu *cpu, const struct insn *insn)
{
    unsigned size = insn->op[0].size;
    uint64_t acc = opnd_gpr(cpu, RAX, size), b = opnd_read(cpu, insn, 1), a = 0;
    if (insn->lock) {
        struct locked_cmpxchg l = {acc, b, size};
        uint64_t lin = opnd_address(cpu, insn, ACCESS_READ | ACCESS_WRITE);
        mem_locked_rmw(cpu, insn->mem.seg, lin, size, locked_cmpxchg_update, &l, &a);
    } else {
        a = opnd_read(cpu, insn, 0);
        if (a == acc || insn->op[0].kind == OPND_MEM)
            opnd_write(cpu, insn, 0, a == acc ? b : a);
    }
    op_sub(cpu, acc, a, size);
    if (a != acc)
        opnd_set_gpr(cpu, RAX, size, a);
}

/* ---- Multiplication and division ------------------------------------------------------------- */

/* The operand that the ModRM byte names: rows may list the implied accumulator too. */
static unsigned explicit_operand(const struct insn *insn)
{
    for (unsigned n = insn->opnds; n-- > 0;)
        if (!insn->op[n].implicit)
            return n;
    return 0;
}

/* rDX:rAX, or AX for bytes. */
static void set_wide(struct cpu *cpu, unsigned size, uint64_t high, uint64_t low)
{
    if (size == 1) {
        opnd_set_gpr(cpu, RAX, 2, (high & 0xff) << 8 | (low & 0xff));
        return;
    }
    opnd_set_gpr(cpu, RAX, size, low);
    opnd_set_gpr(cpu, RDX, size, high);
}

static unsigned __int128 get_wide(const struct cpu *cpu, unsigned size)
{
    if (size == 1)
        return opnd_gpr(cpu, RAX, 2);
    return (unsigned __int128)opnd_gpr(cpu, RDX, size) << (size * 8) | opnd_gpr(cpu, RAX, size);
}

void plain_mul(struct cpu *cpu, const struct insn *insn)
{
    unsigned n = explicit_operand(insn), size = insn->op[n].size;
    unsigned __int128 p = (unsigned __int128)opnd_gpr(cpu, RAX, size) * opnd_read(cpu, insn, n);
    uint64_t low = cc_trunc((uint64_t)p, size), high = (uint64_t)(p >> (size * 8));
    set_wide(cpu, size, high, low);
    cc_set(cpu, CC_MUL, size, low, high != 0);
}

void plain_imul(struct cpu *cpu, const struct insn *insn)
{
    unsigned wanted = 0;
    for (unsigned n = 0; n < insn->opnds; n++)
        wanted += !insn->op[n].implicit;
    if (wanted > 1) {
        unsigned size = insn->op[0].size, n = wanted - 2;
        uint64_t a = opnd_read(cpu, insn, n), b = opnd_read(cpu, insn, n + 1);
        opnd_write(cpu, insn, 0, op_imul(cpu, a, cc_trunc(b, size), size));
        return;
    }
    unsigned n = explicit_operand(insn), size = insn->op[n].size;
    uint64_t a = opnd_gpr(cpu, RAX, size), b = opnd_read(cpu, insn, n);
    __int128 p = (__int128)(int64_t)cc_sext(a, size) * (int64_t)cc_sext(b, size);
    uint64_t low = cc_trunc((uint64_t)p, size);
    set_wide(cpu, size, (uint64_t)(p >> (size * 8)), low);
    cc_set(cpu, CC_MUL, size, low, p != (int64_t)cc_sext(low, size));
}

void plain_div(struct cpu *cpu, const struct insn *insn)
{
    unsigned n = explicit_operand(insn), size = insn->op[n].size;
    uint64_t divisor = opnd_read(cpu, insn, n);
    unsigned __int128 dividend = get_wide(cpu, size);
    /* The quotient fits exactly when the high half is less than the divisor. */
    if ((uint64_t)(dividend >> (size * 8)) >= divisor)
        cpu_raise(cpu, VECTOR_DE);
    if (dividend >> 64) /* saves the library's 128-bit division where it is not needed */
        set_wide(cpu, size, (uint64_t)(dividend % divisor), (uint64_t)(dividend / divisor));
    else
        set_wide(cpu, size, (uint64_t)dividend % divisor, (uint64_t)dividend / divisor);
}

void plain_idiv(struct cpu *cpu, const struct insn *insn)
{
    unsigned n = explicit_operand(insn), size = insn->op[n].size, up = 128 - size * 16;
    int64_t divisor = (int64_t)cc_sext(opnd_read(cpu, insn, n), size);
    __int128 dividend = (__int128)(get_wide(cpu, size) << up) >> up;
    if (divisor == 0)
        cpu_raise(cpu, VECTOR_DE);
    /* The one overflow of the host's own division: -2^127 / -1. */
    if (divisor == -1 && dividend == (__int128)((unsigned __int128)1 << 127))
        cpu_raise(cpu, VECTOR_DE);
    __int128 quotient = dividend / divisor, remainder = dividend % divisor;
    if (quotient != (int64_t)cc_sext((uint64_t)quotient, size))
        cpu_raise(cpu, VECTOR_DE);
    set_wide(cpu, size, (uint64_t)remainder, (uint64_t)quotient);
}

/* ---- Bits ------------------------------------------------------------------------------------ */

/* A bit number in a register reaches beyond a memory operand: it is signed, and its upper bits
 * select another operand-sized unit (SDM vol. 2, BT). */
static void bit_op(struct cpu *cpu, const struct insn *insn, alu_fn *fn, bool writes)
{
    unsigned size = insn->op[0].size;
    uint64_t bit = opnd_read(cpu, insn, 1);
    if (insn->op[0].kind != OPND_MEM || insn->op[1].kind == OPND_IMM) {
        if (writes)
            alu_rmw(cpu, insn, fn, bit);
        else
            fn(cpu, opnd_read(cpu, insn, 0), bit, size);
        return;
    }
    int64_t units = (int64_t)cc_sext(bit, size) >> (3 + cc_log2(size));
    uint64_t ea = mem_effective(cpu, insn) + (uint64_t)units * size;
    ea = insn->adsize == 8 ? ea : insn->adsize == 4 ? (uint32_t)ea : (uint16_t)ea;
    unsigned seg = insn->mem.seg, kind = writes ? ACCESS_READ | ACCESS_WRITE : ACCESS_READ;
    uint64_t lin = mem_linear(cpu, seg, ea, size, kind), a = 0;
    if (insn->lock) {
        locked_alu(cpu, seg, lin, fn, bit, size);
        return;
    }
    if (writes)
        mem_probe_write(cpu, seg, lin, size);
    mem_read(cpu, seg, lin, &a, size);
    a = fn(cpu, a, bit, size);
    if (writes)
        mem_write(cpu, seg, lin, &a, size);
}

void plain_bt(struct cpu *cpu, const struct insn *insn)
{
    bit_op(cpu, insn, op_bt, false);
}
void plain_bts(struct cpu *cpu, const struct insn *insn)
{
    bit_op(cpu, insn, op_bts, true);
}
void plain_btr(struct cpu *cpu, const struct insn *insn)
{
    bit_op(cpu, insn, op_btr, true);
}
void plain_btc(struct cpu *cpu, const struct insn *insn)
{
    bit_op(cpu, insn, op_btc, true);
}

/* With a source of 0 processors leave the destination alone, all 64 bits of it. */
static void bit_scan(struct cpu *cpu, const struct insn *insn, bool reverse)
{
    uint64_t a = opnd_read(cpu, insn, 1);
    if (a)
        opnd_write(cpu, insn, 0, reverse ? 63 - __builtin_clzll(a) : __builtin_ctzll(a));
    cc_set_some(cpu, FLAG_ZF, a ? 0 : FLAG_ZF);
}

void plain_bsf(struct cpu *cpu, const struct insn *insn)
{
    bit_scan(cpu, insn, false);
}
void plain_bsr(struct cpu *cpu, const struct insn *insn)
{
    bit_scan(cpu, insn, true);
}

static void bit_count(struct cpu *cpu, const struct insn *insn, unsigned r, bool cf)
{
    opnd_write(cpu, insn, 0, r);
    cc_set_some(cpu, FLAG_ZF | FLAG_CF, (r ? 0 : FLAG_ZF) | (cf ? FLAG_CF : 0));
}

void plain_tzcnt(struct cpu *cpu, const struct insn *insn)
{
    uint64_t a = opnd_read(cpu, insn, 1);
    bit_count(cpu, insn, a ? __builtin_ctzll(a) : insn->op[1].size * 8, a == 0);
}

void plain_lzcnt(struct cpu *cpu, const struct insn *insn)
{
    uint64_t a = opnd_read(cpu, insn, 1);
    unsigned bits = insn->op[1].size * 8;
    bit_count(cpu, insn, a ? __builtin_clzll(a) - (64 - bits) : bits, a == 0);
}

void plain_popcnt(struct cpu *cpu, const struct insn *insn)
{
    uint64_t a = opnd_read(cpu, insn, 1);
    opnd_write(cpu, insn, 0, __builtin_popcountll(a));
    cpu_set_arith(cpu, a ? 0 : FLAG_ZF);
}

void plain_bswap(struct cpu *cpu, const struct insn *insn)
{
    uint64_t a = opnd_read(cpu, insn, 0);
    unsigned size = insn->op[0].size;
    /* 16-bit operands: undefined in the manual; processors give 0. */
    opnd_write(cpu, insn, 0,
               size == 8   ? __builtin_bswap64(a)
               : size == 4 ? __builtin_bswap32((uint32_t)a)
                           : 0);
}
