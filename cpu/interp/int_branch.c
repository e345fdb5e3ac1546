/*
 * int_branch.c - handlers that end a block: near branches, alone or together with the CMP or TEST
 * before them.
 *
 * [0] of a pair is for flat 32-bit code, [1] for 64-bit code: their stacks and targets need no
 * limits. Whether the target of a direct jump is canonical is interp_follow()'s question.
 */
#include "cpu/interp/handlers.h"
#include "cpu/interp/int_ops.h"

#define A(S) reg_get(cpu, u->a, S)
#define B(S) reg_get(cpu, u->b, S)

HANDLER(fall)
{
    /* Not an instruction: the count is that of the block. */
    GO(u, 0);
}

HANDLER(jmp)
{
    GO(u, 1);
}

#define CONDITIONS(M, ...)                                                                         \
    M(__VA_ARGS__, 0)                                                                              \
    M(__VA_ARGS__, 1)                                                                              \
    M(__VA_ARGS__, 2)                                                                              \
    M(__VA_ARGS__, 3)                                                                              \
    M(__VA_ARGS__, 4) M(__VA_ARGS__, 5) M(__VA_ARGS__, 6) M(__VA_ARGS__, 7) M(__VA_ARGS__, 8)      \
        M(__VA_ARGS__, 9) M(__VA_ARGS__, 10) M(__VA_ARGS__, 11) M(__VA_ARGS__, 12)                 \
            M(__VA_ARGS__, 13) M(__VA_ARGS__, 14) M(__VA_ARGS__, 15)

#define BRANCH_IF(condition)                                                                       \
    do {                                                                                           \
        if (condition)                                                                             \
            GO(u, 1);                                                                              \
        GO(u, 0);                                                                                  \
    } while (0)

#define JCC(unused, C)                                                                             \
    HANDLER(jcc_##C)                                                                               \
    {                                                                                              \
        BRANCH_IF(cc_test(cpu, C));                                                                \
    }
CONDITIONS(JCC, )

/* The flags are left as CMP and TEST leave them: somebody at the target may want them. */
#define FUSED(S, C)                                                                                \
    HANDLER(cmp_jcc_rr##S##_##C)                                                                   \
    {                                                                                              \
        uint64_t a = A(S), b = B(S);                                                               \
        op_sub(cpu, a, b, S);                                                                      \
        BRANCH_IF(cc_compare(a, b, S, C));                                                         \
    }                                                                                              \
    HANDLER(cmp_jcc_ri##S##_##C)                                                                   \
    {                                                                                              \
        uint64_t a = A(S);                                                                         \
        op_sub(cpu, a, u->imm, S);                                                                 \
        BRANCH_IF(cc_compare(a, u->imm, S, C));                                                    \
    }                                                                                              \
    HANDLER(test_jcc_rr##S##_##C)                                                                  \
    {                                                                                              \
        uint64_t r = op_and(cpu, A(S), B(S), S);                                                   \
        BRANCH_IF(cc_logic_cond(r, S, C));                                                         \
    }                                                                                              \
    HANDLER(test_jcc_ri##S##_##C)                                                                  \
    {                                                                                              \
        uint64_t r = op_and(cpu, A(S), u->imm, S);                                                 \
        BRANCH_IF(cc_logic_cond(r, S, C));                                                         \
    }
CONDITIONS(FUSED, 1)
CONDITIONS(FUSED, 2)
CONDITIONS(FUSED, 4)
CONDITIONS(FUSED, 8)

/* ---- CALL, RET, indirect jumps --------------------------------------------------------------- */

#define CUT(S, v) (S == 4 ? (uint32_t)(v) : (v))
#define CHECK(S, target)                                                                           \
    do {                                                                                           \
        if (S == 8 && __builtin_expect(!is_canonical(target), 0))                                  \
            interp_bad_target(cpu, u);                                                             \
    } while (0)
/* Pushes the address behind this instruction. u->seg is that of a memory operand, so the stack has
 * a store of its own. A bad target leaves the store, but not the new stack pointer. */
#define PUSH_RETURN(S, target)                                                                     \
    do {                                                                                           \
        uint64_t sp = CUT(S, cpu->gpr[RSP] - S);                                                   \
        st_stack(cpu, u, sp, CUT(S, cpu->rip + u->off + u->len), S);                               \
        CHECK(S, target);                                                                          \
        cpu->gpr[RSP] = sp;                                                                        \
    } while (0)

#define BRANCHES(S)                                                                                \
    HANDLER(call##S)                                                                               \
    {                                                                                              \
        PUSH_RETURN(S, cpu->rip + (uint64_t)(int64_t)uop_link(u)->delta[1]);                       \
        GO(u, 1);                                                                                  \
    }                                                                                              \
    HANDLER(ret##S)                                                                                \
    {                                                                                              \
        uint64_t sp = CUT(S, cpu->gpr[RSP]), target = ld(cpu, u, sp, S);                           \
        CHECK(S, target);                                                                          \
        cpu->gpr[RSP] = CUT(S, sp + S);                                                            \
        GO_INDIRECT(u, target);                                                                    \
    }                                                                                              \
    HANDLER(jmp_r##S)                                                                              \
    {                                                                                              \
        uint64_t target = B(S);                                                                    \
        CHECK(S, target);                                                                          \
        GO_INDIRECT(u, target);                                                                    \
    }                                                                                              \
    HANDLER(jmp_m##S)                                                                              \
    {                                                                                              \
        uint64_t target = ld(cpu, u, EA_G(S, ACCESS_READ), S);                                     \
        CHECK(S, target);                                                                          \
        GO_INDIRECT(u, target);                                                                    \
    }                                                                                              \
    HANDLER(call_r##S)                                                                             \
    {                                                                                              \
        uint64_t target = B(S);                                                                    \
        PUSH_RETURN(S, target);                                                                    \
        GO_INDIRECT(u, target);                                                                    \
    }                                                                                              \
    HANDLER(call_m##S)                                                                             \
    {                                                                                              \
        uint64_t target = ld(cpu, u, EA_G(S, ACCESS_READ), S);                                     \
        PUSH_RETURN(S, target);                                                                    \
        GO_INDIRECT(u, target);                                                                    \
    }
BRANCHES(4)
BRANCHES(8)

#define BY_CONDITION(n)                                                                            \
    {                                                                                              \
        n##0, n##1, n##2, n##3, n##4, n##5, n##6, n##7, n##8, n##9, n##10, n##11, n##12, n##13,    \
            n##14, n##15                                                                           \
    }
#define BY_SIZE_AND_CONDITION(n)                                                                   \
    {                                                                                              \
        BY_CONDITION(n##1_), BY_CONDITION(n##2_), BY_CONDITION(n##4_), BY_CONDITION(n##8_)         \
    }

const struct branch_handlers int_branch_handlers = {
    .fall = fall,
    .jmp = jmp,
    .jcc = BY_CONDITION(jcc_),
    .cmp_jcc_rr = BY_SIZE_AND_CONDITION(cmp_jcc_rr),
    .cmp_jcc_ri = BY_SIZE_AND_CONDITION(cmp_jcc_ri),
    .test_jcc_rr = BY_SIZE_AND_CONDITION(test_jcc_rr),
    .test_jcc_ri = BY_SIZE_AND_CONDITION(test_jcc_ri),
    .call = {call4, call8},
    .ret = {ret4, ret8},
    .jmp_r = {jmp_r4, jmp_r8},
    .jmp_m = {jmp_m4, jmp_m8},
    .call_r = {call_r4, call_r8},
    .call_m = {call_m4, call_m8},
};
