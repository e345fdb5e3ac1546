/*
 * gen_bits.c - BMI1, BMI2, ADX and CRC32 (SDM vol. 2 under each name).
 *
 * Results and flags of these are independent of what the host has, so they are plain C.
 */
#include "cpu/interp/flags.h"
#include "cpu/opnd.h"
#include "insn_exec.h"

#define X(name) void name(struct cpu *cpu, const struct insn *insn);
INSN_GENERIC_EXECS(X)
#undef X

static uint32_t sign_and_zero(uint64_t r, unsigned size)
{
    return (r == 0 ? FLAG_ZF : 0) | (cc_msb(r, size) ? FLAG_SF : 0);
}

/* CF as given, OF = 0; AF and PF are undefined, and left at 0. */
static void finish(struct cpu *cpu, const struct insn *insn, uint64_t r, bool cf)
{
    unsigned size = insn->op[0].size;
    r = cc_trunc(r, size);
    opnd_write(cpu, insn, 0, r);
    cpu_set_arith(cpu, sign_and_zero(r, size) | (cf ? FLAG_CF : 0));
}

void gen_andn(struct cpu *cpu, const struct insn *insn)
{
    uint64_t a = opnd_read(cpu, insn, 1), b = opnd_read(cpu, insn, 2);
    finish(cpu, insn, ~a & b, false);
}

void gen_bextr(struct cpu *cpu, const struct insn *insn)
{
    uint64_t a = opnd_read(cpu, insn, 1), control = opnd_read(cpu, insn, 2);
    unsigned start = control & 0xff, len = control >> 8 & 0xff;
    uint64_t r = start < 64 ? a >> start : 0;
    if (len < 64)
        r &= (1ull << len) - 1;
    opnd_write(cpu, insn, 0, r);
    cpu_set_arith(cpu, r == 0 ? FLAG_ZF : 0);
}

void gen_blsi(struct cpu *cpu, const struct insn *insn)
{
    uint64_t a = opnd_read(cpu, insn, 1);
    finish(cpu, insn, a & -a, a != 0);
}
void gen_blsr(struct cpu *cpu, const struct insn *insn)
{
    uint64_t a = opnd_read(cpu, insn, 1);
    finish(cpu, insn, a & (a - 1), a == 0);
}
void gen_blsmsk(struct cpu *cpu, const struct insn *insn)
{
    uint64_t a = opnd_read(cpu, insn, 1);
    finish(cpu, insn, a ^ (a - 1), a == 0);
}

void gen_bzhi(struct cpu *cpu, const struct insn *insn)
{
    uint64_t a = opnd_read(cpu, insn, 1);
    unsigned n = opnd_read(cpu, insn, 2) & 0xff, bits = insn->op[0].size * 8;
    finish(cpu, insn, n < bits ? a & ((1ull << n) - 1) : a, n >= bits);
}

/* Deposits the low bits of a at the places of the mask's ones. */
void gen_pdep(struct cpu *cpu, const struct insn *insn)
{
    uint64_t a = opnd_read(cpu, insn, 1), mask = opnd_read(cpu, insn, 2), r = 0;
    for (; mask; mask &= mask - 1, a >>= 1)
        if (a & 1)
            r |= mask & -mask;
    opnd_write(cpu, insn, 0, r);
}

void gen_pext(struct cpu *cpu, const struct insn *insn)
{
    uint64_t a = opnd_read(cpu, insn, 1), mask = opnd_read(cpu, insn, 2), r = 0;
    for (unsigned n = 0; mask; mask &= mask - 1, n++)
        if (a & mask & -mask)
            r |= 1ull << n;
    opnd_write(cpu, insn, 0, r);
}

/* Neither reads nor writes flags. The high half wins when both destinations are one register. */
void gen_mulx(struct cpu *cpu, const struct insn *insn)
{
    unsigned size = insn->op[0].size;
    unsigned __int128 p = (unsigned __int128)opnd_gpr(cpu, RDX, size) * opnd_read(cpu, insn, 2);
    opnd_write(cpu, insn, 1, (uint64_t)p);
    opnd_write(cpu, insn, 0, (uint64_t)(p >> (size * 8)));
}

void gen_rorx(struct cpu *cpu, const struct insn *insn)
{
    unsigned bits = insn->op[0].size * 8, n = (unsigned)insn->imm & (bits - 1);
    uint64_t a = opnd_read(cpu, insn, 1);
    opnd_write(cpu, insn, 0, n ? a >> n | a << (bits - n) : a);
}

void gen_sarx(struct cpu *cpu, const struct insn *insn)
{
    unsigned size = insn->op[0].size;
    uint64_t a = opnd_read(cpu, insn, 1), n = opnd_read(cpu, insn, 2) & (size * 8 - 1);
    opnd_write(cpu, insn, 0, (uint64_t)((int64_t)cc_sext(a, size) >> n));
}
void gen_shlx(struct cpu *cpu, const struct insn *insn)
{
    uint64_t a = opnd_read(cpu, insn, 1);
    opnd_write(cpu, insn, 0, a << (opnd_read(cpu, insn, 2) & (insn->op[0].size * 8 - 1)));
}
void gen_shrx(struct cpu *cpu, const struct insn *insn)
{
    uint64_t a = opnd_read(cpu, insn, 1);
    opnd_write(cpu, insn, 0, a >> (opnd_read(cpu, insn, 2) & (insn->op[0].size * 8 - 1)));
}

/* ---- ADX: two independent carry chains ------------------------------------------------------- */

static void add_with(struct cpu *cpu, const struct insn *insn, uint32_t flag)
{
    unsigned size = insn->op[0].size;
    uint64_t a = opnd_read(cpu, insn, 0), b = opnd_read(cpu, insn, 1);
    unsigned __int128 sum = (unsigned __int128)a + b + ((cc_flags(cpu) & flag) != 0);
    opnd_write(cpu, insn, 0, (uint64_t)sum);
    cc_set_some(cpu, flag, sum >> (size * 8) & 1 ? flag : 0);
}

void gen_adcx(struct cpu *cpu, const struct insn *insn)
{
    add_with(cpu, insn, FLAG_CF);
}
void gen_adox(struct cpu *cpu, const struct insn *insn)
{
    add_with(cpu, insn, FLAG_OF);
}

/* ---- CRC32 ----------------------------------------------------------------------------------- */

/* The polynomial 11EDC6F41h, bit-reflected. */
void gen_crc32(struct cpu *cpu, const struct insn *insn)
{
    uint32_t crc = (uint32_t)opnd_read(cpu, insn, 0);
    uint64_t data = opnd_read(cpu, insn, 1);
    for (unsigned i = 0; i < insn->op[1].size; i++, data >>= 8) {
        crc ^= data & 0xff;
        for (unsigned bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    opnd_write(cpu, insn, 0, crc);
}
