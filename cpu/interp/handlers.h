/*
 * handlers.h - the tables of specialised handlers, from which lower.c chooses by operation, operand
 * forms and size. An empty place means that there is no handler: the plain function does it.
 */
#ifndef CPU_INTERP_HANDLERS_H
#define CPU_INTERP_HANDLERS_H

#include "cpu/interp/interp.h"

enum ea_kind { EA_KIND_B, EA_KIND_X, EA_KIND_G, EA_KINDS }; /* EA_B ... of interp.h */

/* Two-operand operations. Arrays of 4: by log2 of the operand size. */
struct alu_handlers {
    uop_fn *rr[4], *ri[4];           /* a = a OP b; a = a OP imm. One-operand ones use rr */
    uop_fn *rr_dead[4], *ri_dead[4]; /* the same where nobody reads the flags */
    uop_fn *rm[EA_KINDS][4];         /* a = a OP mem */
    uop_fn *mr[EA_KINDS][4];         /* mem = mem OP b. One-operand ones use this */
    uop_fn *mi[EA_KINDS][4];
};
enum alu_op {
    ALU_ADD,
    ALU_OR,
    ALU_ADC,
    ALU_SBB,
    ALU_AND,
    ALU_SUB,
    ALU_XOR,
    ALU_CMP,
    ALU_TEST,
    ALU_INC,
    ALU_DEC,
    ALU_NEG,
    ALU_NOT,
    ALU_OPS
};
extern const struct alu_handlers int_alu_handlers[ALU_OPS];

/* Shifts of registers: rr has the count in u->b. */
enum shift_op { SHIFT_SHL, SHIFT_SHR, SHIFT_SAR, SHIFT_ROL, SHIFT_ROR, SHIFT_OPS };
struct shift_handlers {
    uop_fn *rr[4], *ri[4], *rr_dead[4], *ri_dead[4];
};
extern const struct shift_handlers int_shift_handlers[SHIFT_OPS];

/* IMUL with two and three operands: [0] 32-bit, [1] 64-bit. */
struct imul_handlers {
    uop_fn *rr[2], *rm[EA_KINDS][2];
    uop_fn *rri[2]; /* a = b * imm */
};
extern const struct imul_handlers int_imul_handlers;

struct move_handlers {
    uop_fn *rr[4], *ri[4];
    uop_fn *load[EA_KINDS][4], *store[EA_KINDS][4], *store_imm[EA_KINDS][4];
    /* To 32 bits and thereby to 64; sources of 1 and 2 bytes */
    uop_fn *zx_rr[2], *zx_load[EA_KINDS][2];
    /* [destination 4, 8][source 1, 2, 4] */
    uop_fn *sx_rr[2][3], *sx_load[2][EA_KINDS][3];
    uop_fn *lea_b[2], *lea_x[2]; /* destination 4, 8 */
    uop_fn *xchg[2];             /* registers, 4 and 8 */
    uop_fn *cmov_rr[2][16];      /* destination 4, 8 */
    uop_fn *cmov_load[2][16];    /* address by EA_G */
    uop_fn *setcc[16];           /* byte register */
    uop_fn *cdqe, *cdq, *cqo, *cwde;
    uop_fn *nop;
    uop_fn *push_r[2], *push_i[2], *pop_r[2], *leave[2]; /* [0] flat 32-bit, [1] 64-bit */
};
extern const struct move_handlers int_move_handlers;

/* These end a block; [0] flat 32-bit code, [1] 64-bit code where there are two. */
struct branch_handlers {
    uop_fn *fall, *jmp, *jcc[16];
    uop_fn *cmp_jcc_rr[4][16], *cmp_jcc_ri[4][16]; /* CMP and Jcc in one */
    uop_fn *test_jcc_rr[4][16], *test_jcc_ri[4][16];
    uop_fn *call[2], *ret[2];
    uop_fn *jmp_r[2], *jmp_m[2], *call_r[2], *call_m[2];
};
extern const struct branch_handlers int_branch_handlers;

/* Uops that run a whole struct insn (call.c). */
extern uop_fn uop_call;         /* nothing to check */
extern uop_fn uop_call_checked; /* privilege, x87 and SSE availability, flags, stubs */
extern uop_fn uop_call_end;     /* the same; may change anything, ends the block */

#endif
