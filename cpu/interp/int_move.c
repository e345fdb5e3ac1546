/*
 * int_move.c - handlers of moves, extensions, LEA, conditional moves and sets, and the stack.
 */
#include "cpu/interp/handlers.h"

#define A(S) reg_get(cpu, u->a, S)
#define B(S) reg_get(cpu, u->b, S)

/* ---- MOV ------------------------------------------------------------------------------------- */

#define MOV_EA(S, E)                                                                               \
    HANDLER(load_##E##S)                                                                           \
    {                                                                                              \
        reg_set(cpu, u->a, S, ld(cpu, u, EA_##E(S, ACCESS_READ), S));                              \
        NEXT;                                                                                      \
    }                                                                                              \
    HANDLER(store_##E##S)                                                                          \
    {                                                                                              \
        st(cpu, u, EA_##E(S, ACCESS_WRITE), B(S), S);                                              \
        NEXT;                                                                                      \
    }                                                                                              \
    HANDLER(store_imm_##E##S)                                                                      \
    {                                                                                              \
        st(cpu, u, EA_##E(S, ACCESS_WRITE), u->imm, S);                                            \
        NEXT;                                                                                      \
    }
#define MOV(S)                                                                                     \
    HANDLER(mov_rr##S)                                                                             \
    {                                                                                              \
        reg_set(cpu, u->a, S, B(S));                                                               \
        NEXT;                                                                                      \
    }                                                                                              \
    HANDLER(mov_ri##S)                                                                             \
    {                                                                                              \
        reg_set(cpu, u->a, S, u->imm);                                                             \
        NEXT;                                                                                      \
    }                                                                                              \
    MOV_EA(S, B)                                                                                   \
    MOV_EA(S, X)                                                                                   \
    MOV_EA(S, G)
MOV(1)
MOV(2)
MOV(4)
MOV(8)

/* ---- MOVZX, MOVSX, MOVSXD -------------------------------------------------------------------- */

#define SX(value, from) cc_sext(value, from)
#define EXTEND_EA(to, from, E)                                                                     \
    HANDLER(sx_load_##E##to##_##from)                                                              \
    {                                                                                              \
        reg_set(cpu, u->a, to, SX(ld(cpu, u, EA_##E(from, ACCESS_READ), from), from));             \
        NEXT;                                                                                      \
    }
#define EXTEND(to, from)                                                                           \
    HANDLER(sx_rr##to##_##from)                                                                    \
    {                                                                                              \
        reg_set(cpu, u->a, to, SX(B(from), from));                                                 \
        NEXT;                                                                                      \
    }                                                                                              \
    EXTEND_EA(to, from, B)                                                                         \
    EXTEND_EA(to, from, X)                                                                         \
    EXTEND_EA(to, from, G)
EXTEND(4, 1)
EXTEND(4, 2)
EXTEND(8, 1)
EXTEND(8, 2)
EXTEND(8, 4)

#define ZERO_EXTEND_EA(from, E)                                                                    \
    HANDLER(zx_load_##E##from)                                                                     \
    {                                                                                              \
        reg_set(cpu, u->a, 8, ld(cpu, u, EA_##E(from, ACCESS_READ), from));                        \
        NEXT;                                                                                      \
    }
#define ZERO_EXTEND(from)                                                                          \
    HANDLER(zx_rr##from)                                                                           \
    {                                                                                              \
        reg_set(cpu, u->a, 8, B(from));                                                            \
        NEXT;                                                                                      \
    }                                                                                              \
    ZERO_EXTEND_EA(from, B)                                                                        \
    ZERO_EXTEND_EA(from, X)                                                                        \
    ZERO_EXTEND_EA(from, G)
ZERO_EXTEND(1)
ZERO_EXTEND(2)

/* ---- LEA, XCHG, sign extension in rAX -------------------------------------------------------- */

#define LEA(S)                                                                                     \
    HANDLER(lea_b##S)                                                                              \
    {                                                                                              \
        reg_set(cpu, u->a, S, EA_B(S, 0));                                                         \
        NEXT;                                                                                      \
    }                                                                                              \
    HANDLER(lea_x##S)                                                                              \
    {                                                                                              \
        reg_set(cpu, u->a, S, EA_X(S, 0));                                                         \
        NEXT;                                                                                      \
    }                                                                                              \
    HANDLER(xchg##S)                                                                               \
    {                                                                                              \
        uint64_t a = A(S), b = B(S);                                                               \
        reg_set(cpu, u->a, S, b);                                                                  \
        reg_set(cpu, u->b, S, a);                                                                  \
        NEXT;                                                                                      \
    }
LEA(4)
LEA(8)

HANDLER(cdqe)
{
    cpu->gpr[RAX] = SX((uint32_t)cpu->gpr[RAX], 4);
    NEXT;
}
HANDLER(cwde)
{
    cpu->gpr[RAX] = (uint32_t)SX((uint16_t)cpu->gpr[RAX], 2);
    NEXT;
}
HANDLER(cdq)
{
    cpu->gpr[RDX] = (uint32_t)((int32_t)cpu->gpr[RAX] >> 31);
    NEXT;
}
HANDLER(cqo)
{
    cpu->gpr[RDX] = (uint64_t)((int64_t)cpu->gpr[RAX] >> 63);
    NEXT;
}
HANDLER(nop)
{
    NEXT;
}

/* ---- Conditions ------------------------------------------------------------------------------ */

/* A 32-bit destination is zero-extended whatever the condition; memory is read whatever it is. */
#define CMOV(S, C)                                                                                 \
    HANDLER(cmov_rr##S##_##C)                                                                      \
    {                                                                                              \
        reg_set(cpu, u->a, S, cc_test(cpu, C) ? B(S) : A(S));                                      \
        NEXT;                                                                                      \
    }                                                                                              \
    HANDLER(cmov_load##S##_##C)                                                                    \
    {                                                                                              \
        uint64_t v = ld(cpu, u, EA_G(S, ACCESS_READ), S);                                          \
        reg_set(cpu, u->a, S, cc_test(cpu, C) ? v : A(S));                                         \
        NEXT;                                                                                      \
    }
#define CONDITION(C)                                                                               \
    CMOV(4, C)                                                                                     \
    CMOV(8, C)                                                                                     \
    HANDLER(setcc_##C)                                                                             \
    {                                                                                              \
        reg_set(cpu, u->a, 1, cc_test(cpu, C));                                                    \
        NEXT;                                                                                      \
    }
#define CONDITIONS(M)                                                                              \
    M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7) M(8) M(9) M(10) M(11) M(12) M(13) M(14) M(15)
CONDITIONS(CONDITION)

/* ---- Stack: flat 32-bit and 64-bit, with the operand size of the mode ------------------------ */

#define CUT(S, v) (S == 4 ? (uint32_t)(v) : (v))
#define STACK(S)                                                                                   \
    HANDLER(push_r##S)                                                                             \
    {                                                                                              \
        uint64_t sp = CUT(S, cpu->gpr[RSP] - S);                                                   \
        st(cpu, u, sp, B(S), S);                                                                   \
        cpu->gpr[RSP] = sp;                                                                        \
        NEXT;                                                                                      \
    }                                                                                              \
    HANDLER(push_i##S)                                                                             \
    {                                                                                              \
        uint64_t sp = CUT(S, cpu->gpr[RSP] - S);                                                   \
        st(cpu, u, sp, u->imm, S);                                                                 \
        cpu->gpr[RSP] = sp;                                                                        \
        NEXT;                                                                                      \
    }                                                                                              \
    HANDLER(pop_r##S)                                                                              \
    {                                                                                              \
        uint64_t sp = CUT(S, cpu->gpr[RSP]), v = ld(cpu, u, sp, S);                                \
        cpu->gpr[RSP] = CUT(S, sp + S);                                                            \
        reg_set(cpu, u->a, S, v);                                                                  \
        NEXT;                                                                                      \
    }                                                                                              \
    HANDLER(leave##S)                                                                              \
    {                                                                                              \
        uint64_t sp = CUT(S, cpu->gpr[RBP]), v = ld(cpu, u, sp, S);                                \
        cpu->gpr[RSP] = CUT(S, sp + S);                                                            \
        cpu->gpr[RBP] = v;                                                                         \
        NEXT;                                                                                      \
    }
STACK(4)
STACK(8)

#define FOUR(name)                                                                                 \
    {                                                                                              \
        name##1, name##2, name##4, name##8                                                         \
    }
#define EACH_EA(name)                                                                              \
    {                                                                                              \
        FOUR(name##B), FOUR(name##X), FOUR(name##G)                                                \
    }
#define BY_CONDITION(n)                                                                            \
    {                                                                                              \
        n##0, n##1, n##2, n##3, n##4, n##5, n##6, n##7, n##8, n##9, n##10, n##11, n##12, n##13,    \
            n##14, n##15                                                                           \
    }

const struct move_handlers int_move_handlers = {
    .rr = FOUR(mov_rr),
    .ri = FOUR(mov_ri),
    .load = EACH_EA(load_),
    .store = EACH_EA(store_),
    .store_imm = EACH_EA(store_imm_),
    .zx_rr = {zx_rr1, zx_rr2},
    .zx_load = {{zx_load_B1, zx_load_B2}, {zx_load_X1, zx_load_X2}, {zx_load_G1, zx_load_G2}},
    .sx_rr = {{sx_rr4_1, sx_rr4_2}, {sx_rr8_1, sx_rr8_2, sx_rr8_4}},
    .sx_load = {{{sx_load_B4_1, sx_load_B4_2},
                 {sx_load_X4_1, sx_load_X4_2},
                 {sx_load_G4_1, sx_load_G4_2}},
                {{sx_load_B8_1, sx_load_B8_2, sx_load_B8_4},
                 {sx_load_X8_1, sx_load_X8_2, sx_load_X8_4},
                 {sx_load_G8_1, sx_load_G8_2, sx_load_G8_4}}},
    .lea_b = {lea_b4, lea_b8},
    .lea_x = {lea_x4, lea_x8},
    .xchg = {xchg4, xchg8},
    .cmov_rr = {BY_CONDITION(cmov_rr4_), BY_CONDITION(cmov_rr8_)},
    .cmov_load = {BY_CONDITION(cmov_load4_), BY_CONDITION(cmov_load8_)},
    .setcc = BY_CONDITION(setcc_),
    .cdqe = cdqe,
    .cdq = cdq,
    .cqo = cqo,
    .cwde = cwde,
    .nop = nop,
    .push_r = {push_r4, push_r8},
    .push_i = {push_i4, push_i8},
    .pop_r = {pop_r4, pop_r8},
    .leave = {leave4, leave8},
};
