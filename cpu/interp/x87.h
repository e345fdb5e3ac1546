/*
 * x87.h - what the files of the x87 share.
 */
#ifndef CPU_INTERP_X87_H
#define CPU_INTERP_X87_H

#include "internal/cpu.h"

enum {
    X87_IE = 1 << 0,
    X87_DE = 1 << 1,
    X87_ZE = 1 << 2,
    X87_OE = 1 << 3,
    X87_UE = 1 << 4,
    X87_PE = 1 << 5,
    X87_EXCEPTIONS = 0x3f,
    X87_SF = 1 << 6,
    X87_ES = 1 << 7,
    X87_C1 = 1 << 9,
    X87_TOP = 7 << 11,
    X87_B = 1 << 15,
    X87_FCW_VALID = 0x1f3f, /* bits that can be changed */
    X87_FCW_ONES = 0x40,    /* reads as one */
};

/* TOP += by: the old ST(by) becomes ST0. Tags belong to physical registers and stay. */
void x87_rotate_stack(struct x87 *x87, unsigned by);
/* FIP, FOP and FDP after a non-control instruction (SDM vol. 1, 8.1.8). */
void x87_note(struct cpu *cpu, const struct insn *insn);
/* False: FXSAVE and the XSAVE family store zeros for them. */
bool x87_shows_pointers(const struct cpu *cpu);
/* SDM vol. 1, 8.1.7: 00 valid, 01 zero, 10 special (invalid, NaN, infinity, denormal). */
unsigned x87_tag_of(const uint8_t st[16]);
/* x87_fast.c: executes the instruction if it can in the state that it finds; false: nothing was
 * done. `mem` is the memory operand or NULL. FIP is the caller's. */
bool x87_fast(struct cpu *cpu, const struct insn *insn, const struct opnd *mem);

/* ModRM with [rsi] for every memory operand. */
static inline unsigned x87_canonical_modrm(const struct insn *insn)
{
    return insn->has_mem ? (insn->modrm & 0x38) | 6 : insn->modrm;
}
/* Linear addresses are 32 bits wide outside 64-bit code. */
static inline uint64_t x87_wrap(const struct cpu *cpu, uint64_t lin)
{
    return cpu->mode & MODE_CODE64 ? lin : (uint32_t)lin;
}

#endif
