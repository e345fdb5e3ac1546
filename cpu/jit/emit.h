/*
 * emit.h - host instructions into a buffer.
 *
 * Only the forms that the translator needs. `w` says the operand size: 4 or 8 bytes; registers are
 * numbers 0-15. Code is written through one mapping and runs in another, `shift` bytes away.
 */
#ifndef CPU_JIT_EMIT_H
#define CPU_JIT_EMIT_H

#include "cpu/jit/abi.h"
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct emit {
    uint8_t *p;     /* where the next byte goes */
    intptr_t shift; /* address that runs = address that is written + shift */
};

/* Much of translating is this. So a host instruction is put together behind a pointer of its own:
 * through e->p each byte would wait for the one before. What may be missing is written all the
 * same, and then counted or not: more follows behind it, always. */
static inline uint8_t *put8(uint8_t *p, unsigned v)
{
    *p = (uint8_t)v;
    return p + 1;
}
static inline uint8_t *put32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, 4);
    return p + 4;
}
static inline void emit8(struct emit *e, unsigned v)
{
    e->p = put8(e->p, v);
}
static inline void emit32(struct emit *e, uint32_t v)
{
    e->p = put32(e->p, v);
}
static inline void emit64(struct emit *e, uint64_t v)
{
    memcpy(e->p, &v, 8);
    e->p += 8;
}
static inline void emit_bytes(struct emit *e, const void *bytes, unsigned n)
{
    memcpy(e->p, bytes, n);
    e->p += n;
}
/* Where the next instruction will run. */
static inline const uint8_t *emit_here(const struct emit *e)
{
    return e->p + e->shift;
}

/* ---- Registers and memory -------------------------------------------------------------------- */

static inline uint8_t *put_rex(uint8_t *p, unsigned w, unsigned reg, unsigned index, unsigned base)
{
    unsigned rex = (w == 8 ? 8 : 0) | (reg >> 3) << 2 | (index >> 3) << 1 | base >> 3;
    *p = (uint8_t)(0x40 | rex);
    return p + (rex != 0);
}
static inline void emit_rex(struct emit *e, unsigned w, unsigned reg, unsigned index, unsigned base)
{
    e->p = put_rex(e->p, w, reg, index, base);
}
static inline uint8_t *put_rr(uint8_t *p, unsigned w, unsigned opcode, unsigned reg, unsigned rm)
{
    p = put8(put_rex(p, w, reg, 0, rm), opcode);
    return put8(p, 0xc0 | (reg & 7) << 3 | (rm & 7));
}
/* op reg, rm (or op rm, reg: the opcode says) */
static inline void emit_rr(struct emit *e, unsigned w, unsigned opcode, unsigned reg, unsigned rm)
{
    e->p = put_rr(e->p, w, opcode, reg, rm);
}

/* ModRM.mod of [base + disp], and the displacement: none, of one byte, of four. */
static inline unsigned mod_of(unsigned base, int32_t disp)
{
    return disp == 0 && (base & 7) != 5 ? 0 : disp == (int8_t)disp ? 1 : 2;
}
static inline uint8_t *put_disp(uint8_t *p, unsigned mod, int32_t disp)
{
    return put32(p, (uint32_t)disp) - 4 + mod * mod;
}

/* ModRM, SIB and displacement of [base + disp]. */
static inline uint8_t *put_modrm_mem(uint8_t *p, unsigned reg, unsigned base, int32_t disp)
{
    unsigned mod = mod_of(base, disp);
    p = put8(p, mod << 6 | (reg & 7) << 3 | (base & 7));
    p = put8(p, 0x24) - ((base & 7) != 4);
    return put_disp(p, mod, disp);
}
static inline void emit_modrm_mem(struct emit *e, unsigned reg, unsigned base, int32_t disp)
{
    e->p = put_modrm_mem(e->p, reg, base, disp);
}

/* [base + index << scale + disp], where the index is not RSP. */
static inline uint8_t *put_modrm_sib(uint8_t *p, unsigned reg, unsigned base, unsigned index,
                                     unsigned scale, int32_t disp)
{
    unsigned mod = mod_of(base, disp);
    p = put8(p, mod << 6 | (reg & 7) << 3 | 4);
    p = put8(p, scale << 6 | (index & 7) << 3 | (base & 7));
    return put_disp(p, mod, disp);
}
static inline void emit_modrm_sib(struct emit *e, unsigned reg, unsigned base, unsigned index,
                                  unsigned scale, int32_t disp)
{
    e->p = put_modrm_sib(e->p, reg, base, index, scale, disp);
}

static inline uint8_t *put_rm(uint8_t *p, unsigned w, unsigned opcode, unsigned reg, unsigned base,
                              int32_t disp)
{
    p = put8(put_rex(p, w, reg, 0, base), opcode);
    return put_modrm_mem(p, reg, base, disp);
}
static inline void emit_rm(struct emit *e, unsigned w, unsigned opcode, unsigned reg, unsigned base,
                           int32_t disp)
{
    e->p = put_rm(e->p, w, opcode, reg, base, disp);
}

/* op reg, [base + index + disp] */
static inline void emit_rm_indexed(struct emit *e, unsigned w, unsigned opcode, unsigned reg,
                                   unsigned base, unsigned index, int32_t disp)
{
    uint8_t *p = put8(put_rex(e->p, w, reg, index, base), opcode);
    e->p = put_modrm_sib(p, reg, base, index, 0, disp);
}

/* op reg, [struct cpu + offset] */
static inline void emit_cpu(struct emit *e, unsigned w, unsigned opcode, unsigned reg,
                            int32_t offset)
{
    emit_rm(e, w, opcode, reg, HOST_CPU, offset - CPU_NEAR);
}

enum {
    OP_ADD_LOAD = 0x03,
    OP_OR_LOAD = 0x0b,
    OP_AND_LOAD = 0x23,
    OP_SUB_LOAD = 0x2b,
    OP_CMP_LOAD = 0x3b,
    OP_TEST = 0x85,
    OP_GRP3_BYTE = 0xf6, /* with GRP3_TEST and an immediate: TEST */
    OP_GRP3 = 0xf7,
    OP_GRP1_IMM32 = 0x81,
    OP_GRP1_IMM8 = 0x83,
    OP_STORE = 0x89,
    OP_LOAD = 0x8b,
    OP_LEA = 0x8d,
    OP_STORE_IMM8 = 0xc6, /* of a byte */
    OP_STORE_IMM = 0xc7,
    OP_GRP5 = 0xff,
};
enum { GRP1_ADD, GRP1_OR, GRP1_ADC, GRP1_SBB, GRP1_AND, GRP1_SUB, GRP1_XOR, GRP1_CMP };
enum { GRP3_TEST };
enum { GRP5_CALL = 2, GRP5_JMP = 4 };

static inline void emit_mov(struct emit *e, unsigned w, unsigned to, unsigned from)
{
    emit_rr(e, w, OP_LOAD, to, from);
}
static inline void emit_cpu_load(struct emit *e, unsigned reg, int32_t offset)
{
    emit_cpu(e, 8, OP_LOAD, reg, offset);
}
static inline void emit_cpu_store(struct emit *e, unsigned reg, int32_t offset)
{
    emit_cpu(e, 8, OP_STORE, reg, offset);
}
/* op reg, imm32 */
static inline void emit_ri(struct emit *e, unsigned w, unsigned grp1, unsigned reg, int32_t imm)
{
    bool byte = imm == (int8_t)imm;
    uint8_t *p = put_rex(e->p, w, 0, 0, reg);
    p = put8(p, byte ? OP_GRP1_IMM8 : OP_GRP1_IMM32);
    p = put8(p, 0xc0 | grp1 << 3 | (reg & 7));
    e->p = put32(p, (uint32_t)imm) - (byte ? 3 : 0);
}
static inline void emit_mov_imm32(struct emit *e, unsigned reg, uint32_t imm)
{
    uint8_t *p = put_rex(e->p, 4, 0, 0, reg);
    e->p = put32(put8(p, 0xb8 | (reg & 7)), imm);
}
static inline void emit_mov_imm64(struct emit *e, unsigned reg, uint64_t imm)
{
    emit_rex(e, 8, 0, 0, reg);
    emit8(e, 0xb8 | (reg & 7));
    emit64(e, imm);
}
/* ROR, SHL, SHR, SAR of a register by a constant; `digit` is ModRM.reg of C1h. */
enum { SHIFT_DIGIT_ROR = 1, SHIFT_DIGIT_SHL = 4, SHIFT_DIGIT_SHR, SHIFT_DIGIT_SAR = 7 };
static inline void emit_shift(struct emit *e, unsigned w, unsigned digit, unsigned reg, unsigned by)
{
    uint8_t *p = put8(put_rex(e->p, w, 0, 0, reg), 0xc1);
    e->p = put8(put8(p, 0xc0 | digit << 3 | (reg & 7)), by);
}
static inline void emit_vzeroupper(struct emit *e)
{
    static const uint8_t code[] = {0xc5, 0xf8, 0x77};
    emit_bytes(e, code, sizeof code);
}
/* op dword [struct cpu + offset], imm; `digit` is ModRM.reg. */
static inline void emit_cpu_imm32(struct emit *e, unsigned opcode, unsigned digit, int32_t offset,
                                  uint32_t imm)
{
    e->p = put32(put_rm(e->p, 4, opcode, digit, HOST_CPU, offset - CPU_NEAR), imm);
}
static inline void emit_cpu_imm8(struct emit *e, unsigned opcode, unsigned digit, int32_t offset,
                                 unsigned imm)
{
    e->p = put8(put_rm(e->p, 4, opcode, digit, HOST_CPU, offset - CPU_NEAR), imm);
}
/* 0F op reg, [struct cpu + offset] */
static inline void emit_cpu_0f(struct emit *e, unsigned w, unsigned opcode, unsigned reg,
                               int32_t offset)
{
    uint8_t *p = put8(put8(put_rex(e->p, w, reg, 0, HOST_CPU), 0x0f), opcode);
    e->p = put_modrm_mem(p, reg, HOST_CPU, offset - CPU_NEAR);
}
enum {
    OP_0F_MOVUPS_LOAD = 0x10,
    OP_0F_MOVUPS_STORE,
    OP_0F_ORPS = 0x56,
    OP_0F_GRP15 = 0xae,
    OP_0F_IMUL
};
/* VMOVUPS between a YMM register and its home. */
static inline void emit_cpu_ymm(struct emit *e, unsigned opcode, unsigned reg)
{
    uint8_t *p = put8(e->p, 0xc4);
    p = put8(p, (reg & 8 ? 0 : 0x80) | 0x40 | 1); /* R and B of R14 inverted; map 0F */
    p = put8(put8(p, 0x7c), opcode);
    e->p = put_modrm_mem(p, reg, HOST_CPU, CPU_YMM(reg) - CPU_NEAR);
}
enum { OP_0F_MOVZX_BYTE = 0xb6, OP_0F_MOVZX_WORD };

static inline void emit_test_imm32(struct emit *e, unsigned reg, uint32_t imm)
{
    e->p = put32(put_rr(e->p, 4, OP_GRP3, GRP3_TEST, reg), imm);
}
/* test reg's lowest byte, imm; not of RSP to RDI */
static inline void emit_test_byte(struct emit *e, unsigned reg, unsigned imm)
{
    e->p = put8(put_rr(e->p, 4, OP_GRP3_BYTE, GRP3_TEST, reg), imm);
}
/* Arithmetic flags to AX by LAHF and SETO AL, and from there. */
static inline void emit_flags_to_ax(struct emit *e)
{
    static const uint8_t lahf_seto_al[] = {0x9f, 0x0f, 0x90, 0xc0};
    emit_bytes(e, lahf_seto_al, sizeof lahf_seto_al);
}
static inline void emit_flags_from_ax(struct emit *e)
{
    static const uint8_t add_al_7f_sahf[] = {0x04, 0x7f, 0x9e};
    emit_bytes(e, add_al_7f_sahf, sizeof add_al_7f_sahf);
}
/* op reg, [rip-relative address] */
static inline void emit_rip(struct emit *e, unsigned w, unsigned opcode, unsigned reg,
                            const void *address)
{
    uint8_t *p = put8(put8(put_rex(e->p, w, reg, 0, 0), opcode), (reg & 7) << 3 | 5);
    e->p = put32(p, (uint32_t)((intptr_t)address - (intptr_t)(p + 4 + e->shift)));
}

/* ---- Jumps ----------------------------------------------------------------------------------- */

enum { CC_O, CC_NO, CC_B, CC_AE, CC_E, CC_NE, CC_BE, CC_A, CC_S, CC_NS };

/* The displacement at `at` (written address) is to lead to `target` (running address). */
static inline void emit_patch32(uint8_t *at, intptr_t shift, const void *target)
{
    int32_t d = (int32_t)((intptr_t)target - ((intptr_t)at + shift + 4));
    memcpy(at, &d, 4);
}
/* A jump whose target is patched later: where its displacement is. */
static inline uint8_t *emit_jmp_later(struct emit *e)
{
    e->p = put32(put8(e->p, 0xe9), 0);
    return e->p - 4;
}
static inline void emit_jmp(struct emit *e, const void *target)
{
    emit_patch32(emit_jmp_later(e), e->shift, target);
}
static inline uint8_t *emit_call_later(struct emit *e)
{
    e->p = put32(put8(e->p, 0xe8), 0);
    return e->p - 4;
}
static inline void emit_call(struct emit *e, const void *target)
{
    emit_patch32(emit_call_later(e), e->shift, target);
}
static inline void emit_ret(struct emit *e)
{
    emit8(e, 0xc3);
}
static inline void emit_push(struct emit *e, unsigned reg)
{
    e->p = put8(put_rex(e->p, 4, 0, 0, reg), 0x50 | (reg & 7));
}
static inline void emit_pop(struct emit *e, unsigned reg)
{
    e->p = put8(put_rex(e->p, 4, 0, 0, reg), 0x58 | (reg & 7));
}
static inline void emit_jmp_reg(struct emit *e, unsigned reg)
{
    emit_rr(e, 4, OP_GRP5, GRP5_JMP, reg);
}
/* Over the next `bytes` bytes when RCX is 0; no flag counts or changes. */
enum { JMP_BYTES = 5, JCC_BYTES = 6, CALL_BYTES = 5 };
static inline void emit_jrcxz(struct emit *e, unsigned bytes)
{
    e->p = put8(put8(e->p, 0xe3), bytes);
}
static inline uint8_t *emit_jcc_later(struct emit *e, unsigned cc)
{
    e->p = put32(put8(put8(e->p, 0x0f), 0x80 | cc), 0);
    return e->p - 4;
}

#endif
