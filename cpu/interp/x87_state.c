/*
 * x87_state.c - the x87 register stack, tags and status word as data (SDM vol. 1, chapter 8).
 */
#include "cpu/interp/vec_internal.h"
#include "cpu/interp/x87.h"

/* ---- Tags ------------------------------------------------------------------------------------ */

unsigned x87_tag_of(const uint8_t st[16])
{
    uint64_t mantissa;
    uint16_t head;
    memcpy(&mantissa, st, 8);
    memcpy(&head, st + 8, 2);
    unsigned exponent = head & 0x7fff;
    if (exponent == 0)
        return mantissa == 0 ? 1 : 2;
    if (exponent == 0x7fff || !(mantissa >> 63))
        return 2;
    return 0;
}

uint16_t x87_full_tags(const struct x87 *x87)
{
    unsigned top = x87_top(x87), tags = 0;
    for (unsigned physical = 0; physical < 8; physical++) {
        unsigned tag = x87->ftw >> physical * 2 & 3;
        if (tag != 3)
            tag = x87_tag_of(x87->st[(physical - top) & 7]);
        tags |= tag << physical * 2;
    }
    return (uint16_t)tags;
}

/* ---- The stack ------------------------------------------------------------------------------- */

void x87_rotate_stack(struct x87 *x87, unsigned by)
{
    uint8_t old[8][16];
    if (!(by & 7))
        return;
    memcpy(old, x87->st, sizeof(old));
    for (unsigned i = 0; i < 8; i++)
        memcpy(x87->st[i], old[(i + by) & 7], 16);
    x87->fsw = (uint16_t)((x87->fsw & ~X87_TOP) | ((x87_top(x87) + by) & 7) << 11);
}

void x87_set_top(struct x87 *x87, unsigned top)
{
    x87_rotate_stack(x87, (top - x87_top(x87)) & 7);
}

void x87_enter_mmx(struct x87 *x87)
{
    x87_set_top(x87, 0);
    x87->ftw = 0;
}

void x87_init(struct x87 *x87)
{
    x87_set_top(x87, 0);
    x87->fcw = 0x37f;
    x87->fsw = 0;
    x87->ftw = 0xffff;
    x87->fop = x87->fcs = x87->fds = 0;
    x87->fip = x87->fdp = 0;
}

void x87_update_es(struct x87 *x87)
{
    bool pending = x87->fsw & ~x87->fcw & X87_EXCEPTIONS;
    x87->fsw = (uint16_t)((x87->fsw & ~(X87_ES | X87_B)) | (pending ? X87_ES | X87_B : 0));
}

/* ---- Pointers to the last instruction and operand -------------------------------------------- */

/* On current Intel processors the selectors are always zero (CPUID leaf 7, EBX bit 13), and FDP and
 * FOP change only with an unmasked exception (EBX bit 6; FOP: SDM vol. 1, 8.1.9.1). AMD's note all
 * of it for every instruction that is not a control instruction, and FDP where there is an operand
 * in memory; FXSAVE and its kind hide it again (x87_shows_pointers). */
void x87_note(struct cpu *cpu, const struct insn *insn)
{
    struct x87 *x87 = &cpu->x87;
    bool all = cpu_is_amd(cpu);
    x87->fip = cpu->rip;
    if (all)
        x87->fcs = cpu->seg[SEG_CS].selector;
    else if (!(x87->fsw & X87_ES))
        return;
    x87->fop = (uint16_t)((insn->bytes[insn->off_modrm - 1] & 7) << 8 | insn->modrm);
    if (!insn->has_mem)
        return;
    x87->fdp = mem_effective(cpu, insn);
    if (all)
        x87->fds = cpu->seg[insn->mem.seg].selector;
}

/* AMD: zeros unless an exception is pending (APM vol. 2, 11.4.4; CPUID 80000008h EBX bit 2). */
bool x87_shows_pointers(const struct cpu *cpu)
{
    return !cpu_is_amd(cpu) || (cpu->x87.fsw & X87_ES);
}
