/*
 * insn.h - one row per encoding, and what the decoder makes of bytes.
 *
 * The rows are in cpu/insn/X.def. The generator (cpu/insn/gen.c, a build-time program) reads them,
 * rejects overlaps and writes the decode tree, the row table with its lookup by name, the coverage
 * page, and the tables for the tests. The decoder (cpu/insn/decode.c) is the only code that reads
 * guest instruction bytes: the interpreter, the translator, the tests and the dumps share its
 * result.
 */
#ifndef INTERNAL_INSN_H
#define INTERNAL_INSN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- Decoded operands ------------------------------------------------------------------------ */

enum opnd_kind {
    OPND_NONE,
    OPND_GPR,   /* reg 0-15; size 1, 2, 4, 8 */
    OPND_GPR8H, /* AH, CH, DH, BH as reg 0-3; size 1 */
    OPND_MEM,   /* insn.mem; size in bytes, 0 for LEA, INVLPG and the like, which do not access */
    OPND_IMM,   /* insn.imm, sign- or zero-extended to 64 bits as the instruction does */
    OPND_IMM2,  /* insn.imm2: second immediate of ENTER; also is4's low bits */
    OPND_REL,   /* branch displacement, insn.imm, relative to the next instruction */
    OPND_FAR,   /* ptr16:16/32: selector in insn.imm2, offset in insn.imm */
    OPND_SEG,   /* ES CS SS DS FS GS as reg 0-5 */
    OPND_CR,
    OPND_DR,
    OPND_ST,      /* x87 stack register */
    OPND_MMX,     /* reg 0-7 */
    OPND_XMM,     /* reg 0-15; size 16 (or less: scalar) */
    OPND_YMM,     /* reg 0-15; size 32 */
    OPND_STR_SRC, /* [seg:rSI], no ModRM; insn.mem.seg holds the segment */
    OPND_STR_DST, /* [ES:rDI] */
    OPND_ONE,     /* the constant 1 of shifts */
};

enum { OPND_R = 1, OPND_W = 2, OPND_RW = 3 };

struct opnd {
    uint8_t kind; /* enum opnd_kind */
    uint8_t reg;
    uint8_t access; /* OPND_R | OPND_W */
    uint8_t
        implicit;  /* 1: fixed by the row (AL, DX, CL, 1); 2: fixed and not written in assembly */
    uint16_t size; /* bytes */
};

enum { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_NONE, SEG_COUNT };
enum { REG_NONE = 16, REG_PC = 17 }; /* base and index of struct insn_mem beyond 0-15 */

struct insn_mem {
    uint8_t base;  /* 0-15, REG_NONE, REG_PC */
    uint8_t index; /* 0-15, REG_NONE; for VSIB an XMM/YMM register */
    uint8_t scale; /* shift: 0-3 */
    uint8_t seg;   /* effective segment, overrides and defaults applied (SEG_*). In 64-bit code:
                      SEG_FS   and SEG_GS only by override, others as they would be named (base 0). */
    bool vsib;
    int64_t disp; /* sign-extended; moffs: the address */
};

enum insn_map {
    MAP_1B,
    MAP_0F,
    MAP_0F38,
    MAP_0F3A,
    MAP_X87,
    MAP_VEX0F,
    MAP_VEX0F38,
    MAP_VEX0F3A,
    MAP_COUNT
};

/* ---- Rows --------------------------------------------------------------------------------------
 */

/* The six arithmetic flags, bit for bit as in RFLAGS, so that masks need no translation. */
enum {
    FLAG_CF = 1 << 0,
    FLAG_PF = 1 << 2,
    FLAG_AF = 1 << 4,
    FLAG_ZF = 1 << 6,
    FLAG_SF = 1 << 7,
    FLAG_DF = 1 << 10,
    FLAG_OF = 1 << 11,
    FLAGS_ARITH = FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF,
};

enum insn_attr {
    INSN_LOCK = 1 << 0,    /* LOCK is legal when the destination is memory */
    INSN_REP = 1 << 1,     /* REP repeats (MOVS, STOS, LODS, INS, OUTS) */
    INSN_REPCC = 1 << 2,   /* REPE/REPNE repeat (CMPS, SCAS) */
    INSN_NO64 = 1 << 3,    /* #UD in 64-bit code */
    INSN_ONLY64 = 1 << 4,  /* #UD (or another row) outside 64-bit code */
    INSN_DEF64 = 1 << 5,   /* operand size defaults to 64 in 64-bit code (PUSH, POP ...) */
    INSN_FORCE64 = 1 << 6, /* ... and 66h cannot change it (MOV CR) */
    INSN_CPL0 = 1 << 7,    /* #GP(0) at CPL > 0; not where #UD or #NM by the mode comes first */
    INSN_IOPL = 1 << 8,    /* sensitive to IOPL; the semantic function checks */
    INSN_PROT = 1 << 9,    /* #UD in real and virtual-8086 mode */
    INSN_END = 1 << 10,    /* ends a block: control flow, mode or mapping may change after it */
    INSN_BRANCH = 1 << 11, /* changes RIP */
    INSN_COND = 1 << 12,   /* ... conditionally */
    INSN_CALL = 1 << 13,
    INSN_RET = 1 << 14,
    INSN_INDIRECT = 1 << 15,
    INSN_SYSTEM = 1 << 16, /* implemented in cpu/sys; may touch any CPU state */
    INSN_SSE = 1 << 17,    /* needs CR4.OSFXSR, CR0.EM = 0, CR0.TS = 0 */
    INSN_AVX = 1 << 18,    /* needs XCR0[2:1] = 3, CR4.OSXSAVE, CR0.TS = 0, protected mode */
    INSN_X87 = 1 << 19,    /* CR0.EM, TS; pending exceptions unless INSN_NOWAIT */
    INSN_NOWAIT = 1 << 20,
    INSN_MMX = 1 << 21,
    INSN_MXCSR = 1 << 22,       /* arithmetic that may raise SIMD floating-point exceptions */
    INSN_ALIGN = 1 << 23,       /* memory operand must be aligned to its size, else #GP(0) */
    INSN_HOST = 1 << 24,        /* a stub may run this very instruction on the host */
    INSN_PASS = 1 << 25,        /* the translator may copy it (allow-list) */
    INSN_SERIAL = 1 << 26,      /* serialising */
    INSN_RAND = 1 << 27,        /* result is not a function of guest state: no oracle comparison */
    INSN_NEAR64 = 1 << 28,      /* near branch: FORCE64 on Intel's processors, DEF64 on AMD's */
    INSN_ALIGN_INTEL = 1 << 29, /* as ALIGN, on Intel's processors only */
    INSN_LOW8 = 1 << 30, /* of a vector in memory only the low 8 bytes are touched where MXCSR.MM
                            lifts ALIGN */
};

/* CPUID features that gate rows and rules of the decoder; the CPU model says which exist. INTEL and
 * AMD are the vendor, of which a CPU has one; from AMD to MISALIGNSSE it is what only AMD's have. */
/* clang-format off */
#define INSN_FEATURES(X)                                                                           \
    X(BASE)                                                                                        \
    X(INTEL)                                                                                       \
    X(AMD) X(CR8LEGACY) X(MISALIGNSSE)                                                             \
    X(FPU) X(CMOV) X(CX8) X(CX16) X(MMX) X(FXSR) X(SSE) X(SSE2) X(SSE3) X(SSSE3) X(SSE4_1)         \
    X(SSE4_2) X(POPCNT) X(AESNI) X(PCLMUL) X(MOVBE) X(XSAVE) X(XSAVEOPT) X(XSAVEC) X(XSAVES)       \
    X(AVX) X(F16C) X(FMA) X(AVX2) X(BMI1) X(BMI2) X(LZCNT) X(ADX) X(SHA) X(VAES) X(VPCLMUL)        \
    X(GFNI) X(RDRAND) X(RDSEED) X(CLFLUSH) X(CLFLUSHOPT) X(CLWB) X(FSGSBASE) X(INVPCID) X(SMAP)    \
    X(PKU) X(RDTSCP) X(RDPID) X(LAHF64) X(SYSCALL) X(SEP) X(LM) X(PREFETCHW) X(MONITOR) X(RDPMC)   \
    X(TSC) X(MSR) X(UMIP) X(SERIALIZE) X(MOVDIRI) X(MOVDIR64B)
/* clang-format on */
enum insn_feature {
#define X(name) FEAT_##name,
    INSN_FEATURES(X)
#undef X
        FEAT_COUNT
};

struct insn_row {
    const char *mnemonic; /* lower case, Intel's; size suffixes only where Intel has them */
    const char *encoding; /* as in the .def file: for dumps, messages and the coverage page */
    const char *operands; /* likewise */
    uint16_t id;          /* index in insn_rows[] */
    uint16_t exec;        /* enum insn_exec: which semantic function */
    uint8_t map, feature;
    uint16_t flags_read, flags_written, flags_undefined; /* FLAG_* */
    uint32_t attr;                                       /* INSN_* */
    uint32_t exec_arg; /* for exec functions shared by rows: condition code, vector shape ... */
};

extern const struct insn_row insn_rows[];
extern const unsigned insn_row_count;

/* ---- Decoding ----------------------------------------------------------------------------------
 */

struct insn {
    const struct insn_row *row;
    uint8_t len;    /* bytes, 1-15 */
    uint8_t code;   /* 16, 32 or 64 */
    uint8_t opsize; /* 2, 4 or 8: effective operand size for "v" operands */
    uint8_t adsize; /* 2, 4 or 8 */
    uint8_t opnds;  /* used entries of op[] */
    bool lock;
    uint8_t rep; /* 0, 0xf2 or 0xf3: the last of them */
    uint8_t rex; /* 0 or 40h-4Fh, only when effective */
    bool osz66, asz67;
    bool vex, vex_w;
    uint8_t vex_l; /* 0: 128, 1: 256 */
    uint8_t vvvv;
    uint8_t modrm; /* valid when has_modrm */
    bool has_modrm,
        has_mem; /* has_mem: also moffs and the implied memory of XLAT, MASKMOVQ, MONITOR */
    /* Byte offsets inside the instruction, for the translator and the stubs; 0 = absent */
    uint8_t off_opcode, off_modrm, off_disp, off_imm;
    uint8_t disp_size, imm_size; /* imm_size: all immediate bytes together */
    struct opnd op[5];
    struct insn_mem mem;
    int64_t imm, imm2;
    uint8_t bytes[15]; /* a copy */
};

enum decode_result {
    DECODE_OK,
    DECODE_MORE, /* bytes end inside the instruction: fetch the next page (or fault there) */
    DECODE_UD,   /* undefined: #UD. insn->len is how many bytes had to be read to know */
    DECODE_LONG, /* longer than 15 bytes: #GP(0) */
};

/* Bit i: FEAT_i exists. */
struct insn_features {
    uint64_t bits[(FEAT_COUNT + 63) / 64];
};
/* NULL: an Intel processor that has everything. */
static inline bool insn_has_feature(const struct insn_features *features, unsigned feature)
{
    if (!features)
        return feature < FEAT_AMD || feature > FEAT_MISALIGNSSE;
    return features->bits[feature / 64] >> (feature % 64) & 1;
}

/* `code` 16, 32 or 64. `v86_or_real` makes INSN_PROT and VEX rows #UD. `avail` may exceed 15. */
enum decode_result insn_decode(const uint8_t *bytes, size_t avail, unsigned code, bool real_or_v86,
                               const struct insn_features *features, struct insn *insn);

/* Prints in Intel syntax with Capstone; `rip` for branch targets. Returns its length in bytes, 0
 * when Capstone does not know it (then "(bad)" is printed). */
unsigned insn_disassemble(const uint8_t *bytes, size_t avail, unsigned code, uint64_t rip,
                          char *out, size_t out_size);

#endif
