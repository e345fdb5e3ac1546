/*
 * int_alu.c - handlers of ADD and its kind: arithmetic and logic with two operands or one, in
 * registers and memory.
 *
 * What they compute is in int_ops.h. A memory destination is looked up once, for writing; when the
 * view does not have it, the load proves the store, so the flags may change between the two.
 */
#include "cpu/interp/handlers.h"
#include "cpu/interp/int_ops.h"

#define A(S) reg_get(cpu, u->a, S)
#define B(S) reg_get(cpu, u->b, S)

/* mem = OP(mem, src) */
#define READ_MODIFY_WRITE(op, S, EA, src)                                                          \
    do {                                                                                           \
        uint64_t lin = EA(S, ACCESS_READ | ACCESS_WRITE);                                          \
        void *p = mem_hit(cpu, lin, S, ACCESS_WRITE);                                              \
        if (__builtin_expect(p != 0, 1)) {                                                         \
            mem_host_store(p, op_##op(cpu, mem_host_load(p, S), src, S), S);                       \
        } else {                                                                                   \
            uint64_t old = interp_load_rmw(cpu, u, lin, S);                                        \
            interp_store(cpu, u, lin, op_##op(cpu, old, src, S), S);                               \
        }                                                                                          \
    } while (0)

/* ---- Results that are written back ----------------------------------------------------------- */

#define WRITING_EA(op, S, E)                                                                       \
    HANDLER(op##_rm##E##S)                                                                         \
    {                                                                                              \
        uint64_t v = ld(cpu, u, EA_##E(S, ACCESS_READ), S);                                        \
        reg_set(cpu, u->a, S, op_##op(cpu, A(S), v, S));                                           \
        NEXT;                                                                                      \
    }                                                                                              \
    HANDLER(op##_mr##E##S)                                                                         \
    {                                                                                              \
        READ_MODIFY_WRITE(op, S, EA_##E, B(S));                                                    \
        NEXT;                                                                                      \
    }                                                                                              \
    HANDLER(op##_mi##E##S)                                                                         \
    {                                                                                              \
        READ_MODIFY_WRITE(op, S, EA_##E, u->imm);                                                  \
        NEXT;                                                                                      \
    }
#define WRITING(op, S)                                                                             \
    HANDLER(op##_rr##S)                                                                            \
    {                                                                                              \
        reg_set(cpu, u->a, S, op_##op(cpu, A(S), B(S), S));                                        \
        NEXT;                                                                                      \
    }                                                                                              \
    HANDLER(op##_ri##S)                                                                            \
    {                                                                                              \
        reg_set(cpu, u->a, S, op_##op(cpu, A(S), u->imm, S));                                      \
        NEXT;                                                                                      \
    }                                                                                              \
    WRITING_EA(op, S, B)                                                                           \
    WRITING_EA(op, S, X)                                                                           \
    WRITING_EA(op, S, G)

/* Where nobody reads the flags: the value alone. */
#define DEAD(op, S, expression_rr, expression_ri)                                                  \
    HANDLER(op##_rr_dead##S)                                                                       \
    {                                                                                              \
        reg_set(cpu, u->a, S, expression_rr);                                                      \
        NEXT;                                                                                      \
    }                                                                                              \
    HANDLER(op##_ri_dead##S)                                                                       \
    {                                                                                              \
        reg_set(cpu, u->a, S, expression_ri);                                                      \
        NEXT;                                                                                      \
    }

/* ---- One operand ----------------------------------------------------------------------------- */

#define UNARY_EA(op, S, E)                                                                         \
    HANDLER(op##_mr##E##S)                                                                         \
    {                                                                                              \
        READ_MODIFY_WRITE(op, S, EA_##E, 0);                                                       \
        NEXT;                                                                                      \
    }
#define UNARY(op, S, dead)                                                                         \
    HANDLER(op##_rr##S)                                                                            \
    {                                                                                              \
        reg_set(cpu, u->a, S, op_##op(cpu, A(S), 0, S));                                           \
        NEXT;                                                                                      \
    }                                                                                              \
    HANDLER(op##_rr_dead##S)                                                                       \
    {                                                                                              \
        reg_set(cpu, u->a, S, dead);                                                               \
        NEXT;                                                                                      \
    }                                                                                              \
    UNARY_EA(op, S, B)                                                                             \
    UNARY_EA(op, S, X)                                                                             \
    UNARY_EA(op, S, G)

/* ---- CMP and TEST: only flags ---------------------------------------------------------------- */

#define READING_EA(name, op, S, E)                                                                 \
    HANDLER(name##_rm##E##S)                                                                       \
    {                                                                                              \
        uint64_t v = ld(cpu, u, EA_##E(S, ACCESS_READ), S);                                        \
        op_##op(cpu, A(S), v, S);                                                                  \
        NEXT;                                                                                      \
    }                                                                                              \
    HANDLER(name##_mr##E##S)                                                                       \
    {                                                                                              \
        uint64_t v = ld(cpu, u, EA_##E(S, ACCESS_READ), S);                                        \
        op_##op(cpu, v, B(S), S);                                                                  \
        NEXT;                                                                                      \
    }                                                                                              \
    HANDLER(name##_mi##E##S)                                                                       \
    {                                                                                              \
        uint64_t v = ld(cpu, u, EA_##E(S, ACCESS_READ), S);                                        \
        op_##op(cpu, v, u->imm, S);                                                                \
        NEXT;                                                                                      \
    }
#define READING(name, op, S)                                                                       \
    HANDLER(name##_rr##S)                                                                          \
    {                                                                                              \
        op_##op(cpu, A(S), B(S), S);                                                               \
        NEXT;                                                                                      \
    }                                                                                              \
    HANDLER(name##_ri##S)                                                                          \
    {                                                                                              \
        op_##op(cpu, A(S), u->imm, S);                                                             \
        NEXT;                                                                                      \
    }                                                                                              \
    READING_EA(name, op, S, B)                                                                     \
    READING_EA(name, op, S, X)                                                                     \
    READING_EA(name, op, S, G)

/* ---- All of them ----------------------------------------------------------------------------- */

#define SIZES(M, ...) M(__VA_ARGS__, 1) M(__VA_ARGS__, 2) M(__VA_ARGS__, 4) M(__VA_ARGS__, 8)

SIZES(WRITING, add)
SIZES(WRITING, or)
SIZES(WRITING, adc)
SIZES(WRITING, sbb)
SIZES(WRITING, and)
SIZES(WRITING, sub)
SIZES(WRITING, xor)
SIZES(READING, cmp, sub)
SIZES(READING, test, and)

#define DEAD_BINARY(op, symbol, S) DEAD(op, S, A(S) symbol B(S), A(S) symbol u->imm)
SIZES(DEAD_BINARY, add, +)
SIZES(DEAD_BINARY, or, |)
SIZES(DEAD_BINARY, and, &)
SIZES(DEAD_BINARY, sub, -)
SIZES(DEAD_BINARY, xor, ^)

#define UNARY_INC(S) UNARY(inc, S, A(S) + 1)
#define UNARY_DEC(S) UNARY(dec, S, A(S) - 1)
#define UNARY_NEG(S) UNARY(neg, S, -A(S))
#define UNARY_NOT(S) UNARY(not, S, ~A(S))
#define EACH_SIZE(M) M(1) M(2) M(4) M(8)
EACH_SIZE(UNARY_INC)
EACH_SIZE(UNARY_DEC)
EACH_SIZE(UNARY_NEG)
EACH_SIZE(UNARY_NOT)

#define FOUR(name)                                                                                 \
    {                                                                                              \
        name##1, name##2, name##4, name##8                                                         \
    }
#define WRITING_TABLE(op)                                                                          \
    .rr = FOUR(op##_rr), .ri = FOUR(op##_ri),                                                      \
    .rm = {FOUR(op##_rmB), FOUR(op##_rmX), FOUR(op##_rmG)},                                        \
    .mr = {FOUR(op##_mrB), FOUR(op##_mrX), FOUR(op##_mrG)},                                        \
    .mi = {FOUR(op##_miB), FOUR(op##_miX), FOUR(op##_miG)}
#define DEAD_TABLE(op) .rr_dead = FOUR(op##_rr_dead), .ri_dead = FOUR(op##_ri_dead)
#define UNARY_TABLE(op)                                                                            \
    .rr = FOUR(op##_rr), .rr_dead = FOUR(op##_rr_dead),                                            \
    .mr = {FOUR(op##_mrB), FOUR(op##_mrX), FOUR(op##_mrG)}

const struct alu_handlers int_alu_handlers[ALU_OPS] = {
    [ALU_ADD] = {WRITING_TABLE(add), DEAD_TABLE(add)},
    [ALU_OR] = {WRITING_TABLE(or), DEAD_TABLE(or)},
    [ALU_ADC] = {WRITING_TABLE(adc)},
    [ALU_SBB] = {WRITING_TABLE(sbb)},
    [ALU_AND] = {WRITING_TABLE(and), DEAD_TABLE(and)},
    [ALU_SUB] = {WRITING_TABLE(sub), DEAD_TABLE(sub)},
    [ALU_XOR] = {WRITING_TABLE(xor), DEAD_TABLE(xor)},
    [ALU_CMP] = {WRITING_TABLE(cmp)},
    [ALU_TEST] = {WRITING_TABLE(test)},
    [ALU_INC] = {UNARY_TABLE(inc)},
    [ALU_DEC] = {UNARY_TABLE(dec)},
    [ALU_NEG] = {UNARY_TABLE(neg)},
    [ALU_NOT] = {UNARY_TABLE(not )},
};
