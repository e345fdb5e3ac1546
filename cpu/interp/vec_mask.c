/*
 * vec_mask.c - masked moves and gathers: only what the mask selects is touched, and only that can
 * fault (SDM vol. 2, VMASKMOV, VPMASKMOV, MASKMOVDQU, VPGATHERDD and relatives). Of elements only
 * those of gathers on AMD's processors are checked for their alignment.
 */
#include "cpu/interp/vec_internal.h"

/* The linear address of `size` bytes `at` bytes into the memory operand, its own segment checks
 * done. */
static uint64_t element_address(struct cpu *cpu, const struct insn *insn, uint64_t at,
                                unsigned size, enum access_kind kind)
{
    uint64_t offset = mem_effective(cpu, insn) + at;
    if (insn->adsize < 8)
        offset &= (1ull << insn->adsize * 8) - 1;
    return mem_linear(cpu, insn->mem.seg, offset, size, kind);
}

/* One bit for each element whose mask has its top bit set. */
static unsigned selected(const union vreg *mask, unsigned size, unsigned count)
{
    unsigned bits = 0;
    for (unsigned i = 0; i < count; i++)
        bits |= (mask->b[(i + 1) * size - 1] >> 7u) << i;
    return bits;
}

/* Stores the selected elements: first all are proved writable, so that nothing is committed before
 * a fault. */
static void store_selected(struct cpu *cpu, const struct insn *insn, const uint8_t *from,
                           unsigned size, unsigned bits)
{
    for (unsigned left = bits; left; left &= left - 1) {
        unsigned i = (unsigned)__builtin_ctz(left);
        uint64_t lin = element_address(cpu, insn, i * size, size, ACCESS_WRITE);
        mem_probe_write_unaligned(cpu, insn->mem.seg, lin, size);
    }
    for (unsigned left = bits; left; left &= left - 1) {
        unsigned i = (unsigned)__builtin_ctz(left);
        uint64_t lin = element_address(cpu, insn, i * size, size, ACCESS_WRITE);
        mem_write_unaligned(cpu, insn->mem.seg, lin, from + i * size, size);
    }
}

/* VMASKMOVPS/PD, VPMASKMOVD/Q from memory: what is not selected becomes zero. */
void vec_maskmov_load(struct cpu *cpu, const struct insn *insn)
{
    unsigned size = insn->row->exec_arg, width = insn->op[0].size;
    union vreg value = {{0}};
    unsigned bits = selected(&cpu->ymm[insn->op[1].reg], size, width / size);
    for (; bits; bits &= bits - 1) {
        unsigned i = (unsigned)__builtin_ctz(bits);
        uint64_t lin = element_address(cpu, insn, i * size, size, ACCESS_READ);
        mem_read_unaligned(cpu, insn->mem.seg, lin, value.b + i * size, size);
    }
    cpu->ymm[insn->op[0].reg] = value;
}

void vec_maskmov_store(struct cpu *cpu, const struct insn *insn)
{
    unsigned size = insn->row->exec_arg, width = insn->op[2].size;
    unsigned bits = selected(&cpu->ymm[insn->op[1].reg], size, width / size);
    store_selected(cpu, insn, cpu->ymm[insn->op[2].reg].b, size, bits);
}

/* MASKMOVQ, MASKMOVDQU: bytes to [rDI], which the decoder gives as memory operand. */
void vec_maskmov_bytes(struct cpu *cpu, const struct insn *insn)
{
    if (insn->op[0].kind == OPND_MMX) {
        union vreg mask = {{0}};
        x87_enter_mmx(&cpu->x87); /* processors do so also when the store faults */
        memcpy(&mask, cpu->x87.st[insn->op[1].reg], 8);
        store_selected(cpu, insn, cpu->x87.st[insn->op[0].reg], 1, selected(&mask, 1, 8));
    } else {
        store_selected(cpu, insn, cpu->ymm[insn->op[0].reg].b, 1,
                       selected(&cpu->ymm[insn->op[1].reg], 1, 16));
    }
}

/* ---- Gathers --------------------------------------------------------------------------------- */

/* Where element i is: base + index[i] * scale + displacement, wrapped to the address size. */
static uint64_t gather_address(struct cpu *cpu, const struct insn *insn, unsigned i,
                               unsigned index_size, unsigned size)
{
    const union vreg *indices = &cpu->ymm[insn->mem.index];
    uint64_t index = index_size == 4 ? (uint64_t)(int64_t)(int32_t)indices->d[i] : indices->q[i];
    uint64_t offset = vec_address_register(cpu, insn->mem.base) + (index << insn->mem.scale) +
                      (uint64_t)insn->mem.disp;
    if (insn->adsize < 8)
        offset = (uint32_t)offset;
    return mem_linear(cpu, insn->mem.seg, offset, size, ACCESS_READ);
}

/* Elements are fetched in order; each one that is done is in the destination with its mask cleared
 * when a later one faults, so that the instruction goes on there (SDM: "partially complete").
 * Destination, index and mask must be three registers. The rest of the registers then is as the
 * vendor's processors leave it:
 *
 *                                  Intel                             AMD
 *   mask, not done yet             the elements' signs               as it was
 *   mask, not selected             0                                 0 when its turn has come
 *   above the operand size         mask 0, and destination with      as it was
 *                                  the first element
 */
void vec_gather(struct cpu *cpu, const struct insn *insn)
{
    unsigned size = insn->row->exec_arg & 15, index_size = insn->row->exec_arg >> 4;
    unsigned to = insn->op[0].reg, with = insn->op[2].reg, index = insn->mem.index;
    if (to == with || to == index || with == index)
        cpu_raise(cpu, VECTOR_UD);
    unsigned bytes = insn->vex_l ? 32 : 16;
    unsigned count = bytes / (size > index_size ? size : index_size);
    union vreg *dest = &cpu->ymm[to], *mask = &cpu->ymm[with];
    bool amd = cpu_is_amd(cpu);

    if (!amd) {
        for (unsigned i = 0; i < bytes / size; i++)
            memset(mask->b + i * size, mask->b[(i + 1) * size - 1] & 0x80 ? 0xff : 0, size);
        memset(mask->b + bytes, 0, sizeof(*mask) - bytes);
    }
    for (unsigned i = 0; i < count; i++) {
        if (mask->b[(i + 1) * size - 1] & 0x80) {
            uint64_t lin = gather_address(cpu, insn, i, index_size, size), value = 0;
            (amd ? mem_read : mem_read_unaligned)(cpu, insn->mem.seg, lin, &value, size);
            memcpy(dest->b + i * size, &value, size);
            if (!amd)
                memset(dest->b + bytes, 0, sizeof(*dest) - bytes);
        }
        memset(mask->b + i * size, 0, size);
    }
    memset(mask, 0, sizeof(*mask));
    memset(dest->b + count * size, 0, sizeof(*dest) - count * size);
}
