/*
 * tables.h - what the generator (gen.c) writes into insn_rows.c and the decoder reads.
 *
 * Private to cpu/insn and to the tests that make encodings out of rows. A row has three parts with
 * the same index: struct insn_row (internal/insn.h) for everybody, struct insn_shape (how to read
 * its operands) and struct insn_match (which bytes select it).
 *
 * The decode tree: insn_roots[map][opcode] is a reference; a reference is 0 (no row: #UD),
 * TREE_LEAF | row, or the index of a node in insn_tree[]. A node is its dimension followed by one
 * reference for each value of that dimension. Depth is bounded by the number of dimensions.
 */
#ifndef CPU_INSN_TABLES_H
#define CPU_INSN_TABLES_H

#include "internal/insn.h"

/* What can tell two rows of one opcode apart. Dimensions that need the ModRM byte come last. */
enum tree_dim {
    DIM_MODE,   /* 0: 16- or 32-bit code, 1: 64-bit code */
    DIM_PREFIX, /* 0 none, 1: 66, 2: F3, 3: F2; VEX.pp in VEX maps. F2 and F3 win over 66. */
    DIM_W,      /* REX.W, VEX.W */
    DIM_L,      /* VEX.L */
    DIM_OPSIZE, /* 0: 16, 1: 32, 2: 64, before the row's own defaults */
    DIM_ADSIZE, /* 0: 16, 1: 32, 2: 64 */
    DIM_REXB,   /* REX.B: NOP against XCHG R8 */
    DIM_MOD,    /* 0: memory, 1: register (mod = 3) */
    DIM_REG,    /* ModRM.reg */
    DIM_RM,     /* ModRM.rm */
    DIM_COUNT,
    DIM_MODRM = DIM_MOD, /* this and later ones need ModRM */
};
#define TREE_DIM_VALUES                                                                            \
    {                                                                                              \
        2, 4, 2, 2, 3, 3, 2, 2, 8, 8                                                               \
    }
enum { TREE_LEAF = 0x8000 };

struct insn_match {
    uint8_t map;              /* enum insn_map */
    uint8_t opcode, opcodes;  /* the first, and how many follow each other (+r) */
    uint8_t allow[DIM_COUNT]; /* bit v: value v of that dimension is in the row */
};

/* Where an operand comes from: Intel's letters (SDM vol. 2, appendix A.2.1). */
enum opnd_source {
    SRC_NONE,
    SRC_E,
    SRC_G,
    SRC_M,
    SRC_R,
    SRC_Z,
    SRC_B, /* GPRs and memory */
    SRC_I,
    SRC_IS,
    SRC_J,
    SRC_A,
    SRC_O, /* immediates (IS: sign-extended), moffs */
    SRC_S,
    SRC_C,
    SRC_D,
    SRC_X,
    SRC_Y,
    SRC_P,
    SRC_N,
    SRC_Q, /* MMX */
    SRC_V,
    SRC_U,
    SRC_W,
    SRC_H,
    SRC_L, /* XMM and YMM */
    SRC_T, /* ST(rm) */
    SRC_MX,
    SRC_MY, /* VSIB memory */
    SRC_GPR,
    SRC_GPR8H,
    SRC_SEG,
    SRC_ST,
    SRC_XMM,
    SRC_ONE, /* fixed: reg says which */
    SRC_MEM, /* memory at a fixed base register: XLAT, MASKMOVQ */
};

enum opnd_size {
    SIZE_BYTES, /* struct opnd_shape.bytes */
    SIZE_V,
    SIZE_Z,
    SIZE_Y,
    SIZE_P,
    SIZE_A,
    SIZE_S,
    SIZE_X,
    SIZE_H,
    SIZE_HH,
    SIZE_HHH,
    SIZE_SS,
    SIZE_SD,
    SIZE_N,  /* native width of the mode: 8 in 64-bit code, else 4 */
    SIZE_AD, /* address size */
};

struct opnd_shape {
    uint8_t source; /* enum opnd_source */
    uint8_t size;   /* enum opnd_size */
    uint8_t reg;    /* fixed registers */
    uint8_t access; /* OPND_R | OPND_W */
    uint8_t hidden; /* struct opnd.implicit */
    uint16_t bytes;
};

enum {
    SHAPE_MODRM = 1,       /* has a ModRM byte */
    SHAPE_MOD_IGNORED = 2, /* mod is ignored, rm is always a register (MOV CR, MOV DR) */
    SHAPE_VEX = 4,
    SHAPE_VVVV = 8,  /* VEX.vvvv names a register; otherwise it must be 1111b */
    SHAPE_VSIB = 16, /* memory by a vector of indices */
};

struct insn_shape {
    uint8_t flags, opnds;
    uint16_t
        fallback; /* row id + 1 of what the bytes mean when the CPU lacks the feature, 0: #UD */
    struct opnd_shape op[5];
};

extern const struct insn_shape insn_shapes[];
extern const struct insn_match insn_matches[];
extern const uint16_t insn_roots[MAP_COUNT][256];
extern const uint16_t insn_tree[];

#endif
