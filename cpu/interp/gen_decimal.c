/*
 * gen_decimal.c - packed and unpacked decimal adjustment: AAA AAS AAM AAD DAA DAS (SDM vol. 2).
 */
#include "cpu/interp/flags.h"
#include "cpu/opnd.h"
#include "insn_exec.h"

#define X(name) void name(struct cpu *cpu, const struct insn *insn);
INSN_GENERIC_EXECS(X)
#undef X

static uint32_t result_flags(uint8_t al)
{
    return (al == 0 ? FLAG_ZF : 0) | (al & 0x80 ? FLAG_SF : 0) |
           (__builtin_parity(al) ? 0 : FLAG_PF);
}

static void unpacked_adjust(struct cpu *cpu, int direction)
{
    uint16_t ax = (uint16_t)cpu->gpr[RAX];
    bool adjust = (ax & 0xf) > 9 || (cc_flags(cpu) & FLAG_AF);
    if (adjust)
        ax = (uint16_t)(ax + direction * 0x106);
    ax &= 0xff0f;
    opnd_set_gpr(cpu, RAX, 2, ax);
    /* SF, ZF, PF are undefined: those of AL. */
    cpu_set_arith(cpu, result_flags((uint8_t)ax) | (adjust ? FLAG_AF | FLAG_CF : 0));
}

void gen_aaa(struct cpu *cpu, const struct insn *insn)
{
    (void)insn;
    unpacked_adjust(cpu, 1);
}
void gen_aas(struct cpu *cpu, const struct insn *insn)
{
    (void)insn;
    unpacked_adjust(cpu, -1);
}

void gen_aam(struct cpu *cpu, const struct insn *insn)
{
    uint8_t base = (uint8_t)insn->imm, al = (uint8_t)cpu->gpr[RAX];
    if (base == 0)
        cpu_raise(cpu, VECTOR_DE);
    opnd_set_gpr(cpu, RAX, 2, (uint64_t)(al / base) << 8 | al % base);
    cpu_set_arith(cpu, result_flags(al % base));
}

void gen_aad(struct cpu *cpu, const struct insn *insn)
{
    uint16_t ax = (uint16_t)cpu->gpr[RAX];
    uint8_t al = (uint8_t)((ax & 0xff) + (ax >> 8) * (uint8_t)insn->imm);
    opnd_set_gpr(cpu, RAX, 2, al);
    cpu_set_arith(cpu, result_flags(al));
}

static void packed_adjust(struct cpu *cpu, bool subtract)
{
    uint8_t old = (uint8_t)cpu->gpr[RAX], al = old;
    uint32_t before = cc_flags(cpu), flags = 0;
    if ((old & 0xf) > 9 || (before & FLAG_AF)) {
        /* The low digit's own carry out of the byte counts too. */
        flags |= FLAG_AF;
        if (subtract ? old < 6 : old > 0xff - 6)
            flags |= FLAG_CF;
        al = (uint8_t)(subtract ? al - 6 : al + 6);
    }
    flags |= before & FLAG_CF;
    if (old > 0x99 || (before & FLAG_CF)) {
        al = (uint8_t)(subtract ? al - 0x60 : al + 0x60);
        flags |= FLAG_CF;
    } else if (!subtract) {
        flags &= ~(uint32_t)FLAG_CF;
    }
    opnd_set_gpr(cpu, RAX, 1, al);
    cpu_set_arith(cpu, flags | result_flags(al));
}

void gen_daa(struct cpu *cpu, const struct insn *insn)
{
    (void)insn;
    packed_adjust(cpu, false);
}
void gen_das(struct cpu *cpu, const struct insn *insn)
{
    (void)insn;
    packed_adjust(cpu, true);
}
