/*
 * vec_int.c - the most frequent integer operations on XMM and YMM, in C for speed.
 *
 * Each is one line of vector-extension C on 16 bytes; a 256-bit instruction does it twice, for AVX2
 * integer instructions work within 128-bit lanes. MMX forms and everything else run on the host
 * (vec_run.c), and the tests compare these with it.
 */
#include "cpu/interp/vec_internal.h"

typedef uint8_t v16b __attribute__((vector_size(16), may_alias));
typedef uint16_t v8w __attribute__((vector_size(16), may_alias));
typedef uint32_t v4d __attribute__((vector_size(16), may_alias));
typedef uint64_t v2q __attribute__((vector_size(16), may_alias));

/* Destination and both sources, whichever way the instruction names them: two operands (legacy) or
 * three (VEX). Reads memory. */
struct binary {
    union vreg *to;
    const union vreg *a, *b;
    unsigned size;
    alignas(32) union vreg buf;
};
static inline void binary_operands(struct cpu *cpu, const struct insn *insn, struct binary *o)
{
    o->to = &cpu->ymm[insn->op[0].reg];
    o->a = insn->vex ? &cpu->ymm[insn->op[1].reg] : o->to;
    o->b = vec_source(cpu, insn, insn->vex ? 2 : 1, &o->buf);
    o->size = insn->op[0].size;
}

/* A function vec_NAME that computes `expr` of a and b for every 16 bytes. */
#define BINARY(name, type, expr)                                                                   \
    void vec_##name(struct cpu *cpu, const struct insn *insn)                                      \
    {                                                                                              \
        struct binary o;                                                                           \
        binary_operands(cpu, insn, &o);                                                            \
        for (unsigned at = 0; at < o.size; at += 16) {                                             \
            type a, b;                                                                             \
            memcpy(&a, o.a->b + at, 16);                                                           \
            memcpy(&b, o.b->b + at, 16);                                                           \
            type result = (type)(expr);                                                            \
            memcpy(o.to->b + at, &result, 16);                                                     \
        }                                                                                          \
        vec_zero_above(insn, o.to, o.size);                                                        \
    }

BINARY(and, v2q, a &b)
BINARY(andn, v2q, ~a &b)
BINARY(or, v2q, a | b)
BINARY(xor, v2q, a ^ b)
BINARY(paddb, v16b, a + b)
BINARY(paddw, v8w, a + b)
BINARY(paddd, v4d, a + b)
BINARY(paddq, v2q, a + b)
BINARY(psubb, v16b, a - b)
BINARY(psubw, v8w, a - b)
BINARY(psubd, v4d, a - b)
BINARY(psubq, v2q, a - b)
BINARY(pcmpeqb, v16b, a == b)
BINARY(pcmpeqw, v8w, a == b)
BINARY(pcmpeqd, v4d, a == b)
BINARY(pminub, v16b, (a & (v16b)(a < b)) | (b & ~(v16b)(a < b)))
BINARY(punpcklbw, v16b,
       ((v16b){a[0], b[0], a[1], b[1], a[2], b[2], a[3], b[3], a[4], b[4], a[5], b[5], a[6], b[6],
               a[7], b[7]}))
BINARY(punpcklwd, v8w, ((v8w){a[0], b[0], a[1], b[1], a[2], b[2], a[3], b[3]}))
BINARY(punpckldq, v4d, ((v4d){a[0], b[0], a[1], b[1]}))
BINARY(punpcklqdq, v2q, ((v2q){a[0], b[0]}))

void vec_pshufd(struct cpu *cpu, const struct insn *insn)
{
    alignas(32) union vreg buf;
    union vreg *to = &cpu->ymm[insn->op[0].reg];
    union vreg from = *vec_source(cpu, insn, 1, &buf);
    unsigned order = (unsigned)insn->imm, count = insn->op[0].size / 4;
    for (unsigned i = 0; i < count; i++)
        to->d[i] = from.d[(i & 4) | (order >> (i & 3) * 2 & 3)];
    vec_zero_above(insn, to, insn->op[0].size);
}

/* The top bits of 8 bytes, gathered by a multiplication: bit 7 of byte i goes to bit 56 + i. */
static inline unsigned sign_bits(uint64_t bytes)
{
    return (unsigned)(((bytes >> 7 & 0x0101010101010101ull) * 0x0102040810204080ull) >> 56);
}

void vec_pmovmskb(struct cpu *cpu, const struct insn *insn)
{
    const union vreg *from = &cpu->ymm[insn->op[1].reg];
    uint32_t mask = sign_bits(from->q[0]) | sign_bits(from->q[1]) << 8;
    if (insn->op[1].size == 32)
        mask |= sign_bits(from->q[2]) << 16 | sign_bits(from->q[3]) << 24;
    cpu->gpr[insn->op[0].reg] = mask;
}
