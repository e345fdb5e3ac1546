/*
 * int_shift.c - handlers of shifts and rotates of registers, and of IMUL with two and three
 * operands.
 */
#include "cpu/interp/handlers.h"
#include "cpu/interp/int_ops.h"

#define A(S) reg_get(cpu, u->a, S)
#define B(S) reg_get(cpu, u->b, S)
#define N(S) shift_count(B(1), S)

#define SHIFT(op, S)                                                                               \
    HANDLER(op##_rr##S)                                                                            \
    {                                                                                              \
        reg_set(cpu, u->a, S, op_##op(cpu, A(S), B(1), S));                                        \
        NEXT;                                                                                      \
    }                                                                                              \
    HANDLER(op##_ri##S)                                                                            \
    {                                                                                              \
        reg_set(cpu, u->a, S, op_##op(cpu, A(S), u->imm, S));                                      \
        NEXT;                                                                                      \
    }
/* imm is masked to the operand's count already, and not 0. */
#define DEAD(op, S, rr, ri)                                                                        \
    HANDLER(op##_rr_dead##S)                                                                       \
    {                                                                                              \
        reg_set(cpu, u->a, S, rr);                                                                 \
        NEXT;                                                                                      \
    }                                                                                              \
    HANDLER(op##_ri_dead##S)                                                                       \
    {                                                                                              \
        reg_set(cpu, u->a, S, ri);                                                                 \
        NEXT;                                                                                      \
    }
#define SIGNED(S)   ((int64_t)cc_sext(A(S), S))
#define RIGHT(n, S) (S * 8 - ((n) & (S * 8 - 1)))
#define ALL(S)                                                                                     \
    SHIFT(shl, S)                                                                                  \
    SHIFT(shr, S)                                                                                  \
    SHIFT(sar, S)                                                                                  \
    SHIFT(rol, S)                                                                                  \
    SHIFT(ror, S)                                                                                  \
    DEAD(shl, S, A(S) << N(S), A(S) << u->imm)                                                     \
    DEAD(shr, S, A(S) >> N(S), A(S) >> u->imm)                                                     \
    DEAD(sar, S, (uint64_t)(SIGNED(S) >> N(S)), (uint64_t)(SIGNED(S) >> u->imm))                   \
    DEAD(rol, S, rol_value(A(S), N(S), S), rol_value(A(S), (unsigned)u->imm, S))                   \
    DEAD(ror, S, rol_value(A(S), RIGHT(N(S), S), S), rol_value(A(S), RIGHT((unsigned)u->imm, S), S))
ALL(1)
ALL(2)
ALL(4)
ALL(8)

#define FOUR(name)                                                                                 \
    {                                                                                              \
        name##1, name##2, name##4, name##8                                                         \
    }
#define TABLE(op)                                                                                  \
    {                                                                                              \
        .rr = FOUR(op##_rr), .ri = FOUR(op##_ri), .rr_dead = FOUR(op##_rr_dead),                   \
        .ri_dead = FOUR(op##_ri_dead)                                                              \
    }
const struct shift_handlers int_shift_handlers[SHIFT_OPS] = {
    [SHIFT_SHL] = TABLE(shl), [SHIFT_SHR] = TABLE(shr), [SHIFT_SAR] = TABLE(sar),
    [SHIFT_ROL] = TABLE(rol), [SHIFT_ROR] = TABLE(ror),
};

/* ---- IMUL ------------------------------------------------------------------------------------ */

#define IMUL_EA(S, E)                                                                              \
    HANDLER(imul_rm##E##S)                                                                         \
    {                                                                                              \
        uint64_t v = ld(cpu, u, EA_##E(S, ACCESS_READ), S);                                        \
        reg_set(cpu, u->a, S, op_imul(cpu, A(S), v, S));                                           \
        NEXT;                                                                                      \
    }
#define IMUL(S)                                                                                    \
    HANDLER(imul_rr##S)                                                                            \
    {                                                                                              \
        reg_set(cpu, u->a, S, op_imul(cpu, A(S), B(S), S));                                        \
        NEXT;                                                                                      \
    }                                                                                              \
    HANDLER(imul_rri##S)                                                                           \
    {                                                                                              \
        reg_set(cpu, u->a, S, op_imul(cpu, B(S), u->imm, S));                                      \
        NEXT;                                                                                      \
    }                                                                                              \
    IMUL_EA(S, B)                                                                                  \
    IMUL_EA(S, X)                                                                                  \
    IMUL_EA(S, G)
IMUL(4)
IMUL(8)

const struct imul_handlers int_imul_handlers = {
    .rr = {imul_rr4, imul_rr8},
    .rm = {{imul_rmB4, imul_rmB8}, {imul_rmX4, imul_rmX8}, {imul_rmG4, imul_rmG8}},
    .rri = {imul_rri4, imul_rri8},
};
