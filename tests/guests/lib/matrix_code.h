/*
 * matrix_code.h - what a row of the protection matrix is, and all of them, assembled for each code
 * size: rows_16, rows_32 and, in 64-bit guests, rows_64. Included by matrix.h.
 */
#ifndef GUEST_MATRIX_CODE_H
#define GUEST_MATRIX_CODE_H

#include "door.h"

enum { R = PROTECT_READ, W = PROTECT_WRITE, RW = R | W };
enum { MAX_ACCESSES = 8, OPERAND_MAX = 1024 };

enum row_memory { /* what the operand holds */
                  PATTERN,
                  SELECTOR,
                  FAR_SELECTOR,
                  LIKE_RAX,
                  LIKE_RDX_RAX,
                  LIKE_RDX_RAX_64,
                  NEXT, /* the address behind the instruction */
                  ZERO,
                  MACHINE_STATUS,
                  CONTROL_WORD,
                  MXCSR,
                  BOUNDS,      /* RAX lies between them: Intel's processors read both only then */
                  FAR_POINTER, /* a far pointer behind the instruction */
                  FAR_NEXT,    /* the same with CS, as a far RET pops it */
                  IRET_FRAME,  /* and as IRET does */
                  X87_STATE,   /* as FNSAVE leaves it, in the format of the code size */
                  VECTORS,     /* as XSAVE leaves them, with other values */
};
enum row_flags { PF = 4, AF = 0x10, ZF = 0x40, SF = 0x80, OF = 0x800 };
enum row_vendor { INTEL = 1, AMD = 2 };
enum row_needs { ANY, SSE, AVX2, XSAVE, XSAVEOPT, XSAVEC }; /* from SSE on: vector state counts */
struct row_access {
    uint8_t kind;
    uint16_t offset, length;
};
struct row {
    const char *name;
    const char *code, *end;
    struct row_access access[MAX_ACCESSES]; /* ends with a kind of 0 */
    uint16_t si, di, sp, bp;                /* AT(): where else registers point into the operand */
    uint32_t ax, cx;
    uint16_t undefined; /* flags that the manual leaves undefined: engines may differ in them */
    uint8_t align, memory;
    uint8_t vector; /* enum row_needs */
    uint8_t vendor; /* enum row_vendor: whose processors do it like this */
    bool far;       /* S points to a far pointer to the next instruction */
    bool rep, cpl0, no_value;
    uint8_t partial; /* whose processors may leave registers changed by an instruction that faults:
                        gathers and POPA what is loaded already (SDM vol. 2, VGATHER;
                        docs/gaps.md), MMX the state of the x87 */
};
#define AT(n)    (0x4000 + (n))
#define ACC(...) .access = {__VA_ARGS__}

/* ---- The rows, assembled for each code size -----------------------------------------------------
 */

#define STRING_(x) #x
#define STRING(x)  STRING_(x)
#ifdef __x86_64__
#define OWN_CODE ".code64"
#else
#define OWN_CODE ".code32"
#endif
#define ASSEMBLE(prefix, directive, name, text)                                                    \
    asm(".pushsection .text.matrix\n" directive "\n" prefix #name ":\n" text "\n" prefix #name     \
        "_end: int3\n" OWN_CODE "\n.popsection");

/* 16-bit segments begin here. */
asm(".pushsection .text.matrix, \"ax\"\n.balign 16\nmatrix_code:\n.popsection");
extern const char matrix_code[];

#define CODE_SIZE 16
#define B         "%ebx"
#define S         "%esi"
#define P         "addr32 "
#define WS        2
#define WX        "w"
#define AX        "ax"
#define CX        "cx"
#define ROW(name, text, ...)                                                                       \
    ASSEMBLE("m16_", ".code16", name, text) extern const char m16_##name[], m16_##name##_end[];
#include "matrix_rows.h"
#undef ROW
#define ROW(name, text, ...) {#name, m16_##name, m16_##name##_end, __VA_ARGS__},
static const struct row rows_16[] = {
#include "matrix_rows.h"
    {0}};
#undef ROW
#undef CODE_SIZE
#undef P
#undef WS
#undef WX
#undef AX
#undef CX

#define CODE_SIZE 32
#define P         ""
#define WS        4
#define WX        "l"
#define AX        "eax"
#define CX        "ecx"
#define ROW(name, text, ...)                                                                       \
    ASSEMBLE("m32_", ".code32", name, text) extern const char m32_##name[], m32_##name##_end[];
#include "matrix_rows.h"
#undef ROW
#define ROW(name, text, ...) {#name, m32_##name, m32_##name##_end, __VA_ARGS__},
static const struct row rows_32[] = {
#include "matrix_rows.h"
    {0}};
#undef ROW
#undef CODE_SIZE
#undef B
#undef S
#undef WS
#undef WX
#undef AX
#undef CX

#ifdef __x86_64__
#define CODE_SIZE 64
#define B         "%rbx"
#define S         "%rsi"
#define WS        8
#define WX        "q"
#define AX        "rax"
#define CX        "rcx"
#define ROW(name, text, ...)                                                                       \
    ASSEMBLE("m64_", ".code64", name, text) extern const char m64_##name[], m64_##name##_end[];
#include "matrix_rows.h"
#undef ROW
#define ROW(name, text, ...) {#name, m64_##name, m64_##name##_end, __VA_ARGS__},
static const struct row rows_64[] = {
#include "matrix_rows.h"
    {0}};
#undef ROW
#undef CODE_SIZE
#undef B
#undef S
#undef WS
#undef WX
#undef AX
#undef CX
#endif
#undef P

#endif
