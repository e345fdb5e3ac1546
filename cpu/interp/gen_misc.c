/*
 * gen_misc.c - instructions that are executed as a whole and belong to no family: flags, stack
 * frames, hints, fences, random numbers, direct stores, wide compare-and-exchange.
 *
 * Called by the engine as void (struct cpu *, const struct insn *); SDM vol. 2 under each name.
 */
#include "cpu/interp/flags.h"
#include "cpu/interp/stack.h"
#include "cpu/opnd.h"
#include "insn_exec.h"
#include "internal/random.h"
#include <string.h>

#define X(name) void name(struct cpu *cpu, const struct insn *insn);
INSN_GENERIC_EXECS(X)
#undef X

void gen_ud(struct cpu *cpu, const struct insn *insn)
{
    (void)insn;
    cpu_raise(cpu, VECTOR_UD);
}

/* ---- Flags ----------------------------------------------------------------------------------- */

enum { LAHF_FLAGS = FLAG_SF | FLAG_ZF | FLAG_AF | FLAG_PF | FLAG_CF };

void gen_lahf(struct cpu *cpu, const struct insn *insn)
{
    (void)insn;
    uint64_t ah = (cc_flags(cpu) & LAHF_FLAGS) | RFLAGS_FIXED;
    cpu->gpr[RAX] = (cpu->gpr[RAX] & ~0xff00ull) | ah << 8;
}

void gen_sahf(struct cpu *cpu, const struct insn *insn)
{
    (void)insn;
    cc_set_some(cpu, LAHF_FLAGS, (uint32_t)(cpu->gpr[RAX] >> 8) & LAHF_FLAGS);
}

void gen_cmc(struct cpu *cpu, const struct insn *insn)
{
    (void)insn;
    cpu_set_arith(cpu, cc_flags(cpu) ^ FLAG_CF);
}
void gen_clc(struct cpu *cpu, const struct insn *insn)
{
    (void)insn;
    cc_set_some(cpu, FLAG_CF, 0);
}
void gen_stc(struct cpu *cpu, const struct insn *insn)
{
    (void)insn;
    cc_set_some(cpu, FLAG_CF, FLAG_CF);
}
void gen_cld(struct cpu *cpu, const struct insn *insn)
{
    (void)insn;
    cpu->rflags &= ~(uint64_t)RFLAGS_DF;
}
void gen_std(struct cpu *cpu, const struct insn *insn)
{
    (void)insn;
    cpu->rflags |= RFLAGS_DF;
}

/* Undocumented by Intel for long: AL = CF ? FFh : 0. */
void gen_salc(struct cpu *cpu, const struct insn *insn)
{
    (void)insn;
    opnd_set_gpr(cpu, RAX, 1, cc_carry(cpu) ? 0xff : 0);
}

/* ---- Table look-up, bounds ------------------------------------------------------------------- */

void gen_xlat(struct cpu *cpu, const struct insn *insn)
{
    uint64_t ea = cpu->gpr[RBX] + opnd_gpr(cpu, RAX, 1);
    ea = cc_trunc(ea, insn->adsize);
    unsigned seg = insn->mem.seg;
    opnd_set_gpr(cpu, RAX, 1, mem_load(cpu, seg, mem_linear(cpu, seg, ea, 1, ACCESS_READ), 1));
}

void gen_bound(struct cpu *cpu, const struct insn *insn)
{
    unsigned size = insn->opsize, seg = insn->mem.seg;
    uint64_t lin = mem_operand(cpu, insn, size, ACCESS_READ);
    int64_t index = (int64_t)cc_sext(opnd_read(cpu, insn, 0), size);
    int64_t low = (int64_t)cc_sext(mem_load(cpu, seg, lin, size), size);
    /* Intel's processors do not read the upper bound any more, AMD's do. */
    if (index < low && !cpu_is_amd(cpu))
        cpu_raise(cpu, VECTOR_BR);
    lin = mem_operand_behind(cpu, insn, size, size, ACCESS_READ);
    int64_t high = (int64_t)cc_sext(mem_load(cpu, seg, lin, size), size);
    if (index < low || index > high)
        cpu_raise(cpu, VECTOR_BR);
}

/* ---- Stack ----------------------------------------------------------------------------------- */

/* The `n`th slot of `size` bytes below the top. */
static uint64_t slot_below(struct cpu *cpu, unsigned n, unsigned size)
{
    uint64_t sp = (cpu->gpr[RSP] - (uint64_t)n * size) & sys_stack_mask(cpu);
    return mem_linear(cpu, SEG_SS, sp, size, ACCESS_WRITE);
}

/* All eight slots are proved before the first is written. */
void gen_pusha(struct cpu *cpu, const struct insn *insn)
{
    unsigned size = insn->opsize;
    for (unsigned n = 1; n <= 8; n++)
        mem_probe_write(cpu, SEG_SS, slot_below(cpu, n, size), size);
    for (unsigned n = 1; n <= 8; n++)
        mem_store(cpu, SEG_SS, slot_below(cpu, n, size), opnd_gpr(cpu, n - 1, size), size);
    stack_add(cpu, -(uint64_t)8 * size);
}

/* Registers change one by one and the stack pointer last: as on processors, a fault in the middle
 * leaves those that have been popped, and the instruction starts over. */
void gen_popa(struct cpu *cpu, const struct insn *insn)
{
    unsigned size = insn->opsize;
    for (unsigned n = 0; n < 8; n++) {
        uint64_t value = stack_read(cpu, n * size, size);
        if (7 - n != RSP) /* the pushed SP is thrown away */
            opnd_set_gpr(cpu, 7 - n, size, value);
    }
    stack_add(cpu, (uint64_t)8 * size);
}

static void store_slot(struct cpu *cpu, unsigned n, uint64_t value, unsigned size)
{
    mem_store(cpu, SEG_SS, slot_below(cpu, n, size), cc_trunc(value, size), size);
}

/* SDM vol. 2, ENTER: pushes rBP, copies level - 1 frame pointers, pushes the new one, and proves
 * the last word of the frame writable. What has been stored below the stack pointer stays when a
 * later access faults; no register has changed then. The operand and stack sizes may differ. */
void gen_enter(struct cpu *cpu, const struct insn *insn)
{
    unsigned size = insn->opsize, level = (unsigned)insn->imm2 & 31;
    uint64_t mask = sys_stack_mask(cpu), rbp = cpu->gpr[RBP];
    /* Where rBP is saved. On a 16-bit stack a 32-bit EBP gets the upper half of ESP with it. */
    uint64_t frame = stack_pointer(cpu, cpu->gpr[RSP], cpu->gpr[RSP] - size);
    store_slot(cpu, 1, rbp, size);
    for (unsigned i = 1; i < level; i++) {
        uint64_t bp = (rbp - (uint64_t)i * size) & mask;
        uint64_t lin = mem_linear(cpu, SEG_SS, bp, size, ACCESS_READ);
        store_slot(cpu, i + 1, mem_load(cpu, SEG_SS, lin, size), size);
    }
    if (level)
        store_slot(cpu, level + 1, frame, size);
    uint64_t sp = (frame - (uint64_t)level * size - (uint16_t)insn->imm) & mask;
    mem_probe_write(cpu, SEG_SS, mem_linear(cpu, SEG_SS, sp, size, ACCESS_WRITE), size);
    opnd_set_gpr(cpu, RBP, size, frame);
    cpu->gpr[RSP] = stack_pointer(cpu, cpu->gpr[RSP], sp);
}

/* ---- Hints and fences ------------------------------------------------------------------------ */

void gen_hint(struct cpu *cpu, const struct insn *insn)
{
    (void)cpu, (void)insn;
}

/* MFENCE orders stores before later loads, which the host does not do by itself. */
void gen_fence(struct cpu *cpu, const struct insn *insn)
{
    (void)cpu, (void)insn;
#if defined(__x86_64__)
    __asm__ volatile("mfence" ::: "memory"); /* ThreadSanitizer has no fences */
#else
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}

/* CLFLUSH, CLFLUSHOPT, CLWB: checked like a read of one byte; there is no cache to flush. */
void gen_clflush(struct cpu *cpu, const struct insn *insn)
{
    mem_load(cpu, insn->mem.seg, mem_operand(cpu, insn, 1, ACCESS_READ), 1);
}

/* ---- Random numbers -------------------------------------------------------------------------- */

/* From the host's one source (random.h): guests seed their keys with it. Never out of entropy. */
static void random_number(struct cpu *cpu, const struct insn *insn)
{
    uint64_t x;
    host_random(&x, sizeof(x));
    opnd_write(cpu, insn, 0, x);
    cpu_set_arith(cpu, FLAG_CF);
}

void gen_rdrand(struct cpu *cpu, const struct insn *insn)
{
    random_number(cpu, insn);
}
void gen_rdseed(struct cpu *cpu, const struct insn *insn)
{
    random_number(cpu, insn);
}

/* ---- Moves ----------------------------------------------------------------------------------- */

void gen_movnti(struct cpu *cpu, const struct insn *insn)
{
    opnd_write(cpu, insn, 0, opnd_read(cpu, insn, 1));
}
void gen_movdiri(struct cpu *cpu, const struct insn *insn)
{
    opnd_write(cpu, insn, 0, opnd_read(cpu, insn, 1));
}

void gen_movdir64b(struct cpu *cpu, const struct insn *insn)
{
    uint8_t line[64];
    uint64_t to = opnd_gpr(cpu, insn->op[0].reg, insn->adsize);
    uint64_t from = mem_operand(cpu, insn, sizeof(line), ACCESS_READ);
    mem_read(cpu, insn->mem.seg, from, line, sizeof(line));
    to = mem_linear(cpu, SEG_ES, to, sizeof(line), ACCESS_WRITE);
    if (to & (sizeof(line) - 1))
        cpu_raise_error(cpu, VECTOR_GP, 0);
    mem_write(cpu, SEG_ES, to, line, sizeof(line));
}

void gen_movbe(struct cpu *cpu, const struct insn *insn)
{
    unsigned size = insn->op[0].size;
    opnd_write(cpu, insn, 0, __builtin_bswap64(opnd_read(cpu, insn, 1)) >> (64 - size * 8));
}

/* ---- CMPXCHG8B, CMPXCHG16B ------------------------------------------------------------------- */

struct wide_cmpxchg {
    uint64_t expected[2], desired[2];
    unsigned size;
};

static void wide_update(void *opaque, const void *old_value, void *new_value)
{
    struct wide_cmpxchg *w = opaque;
    bool equal = !memcmp(old_value, w->expected, w->size);
    memcpy(new_value, equal ? (const void *)w->desired : old_value, w->size);
}

static void two_registers(const struct cpu *cpu, unsigned half, unsigned high, unsigned low,
                          uint64_t value[2])
{
    if (half == 8) {
        value[0] = cpu->gpr[low];
        value[1] = cpu->gpr[high];
    } else {
        value[0] = cpu->gpr[high] << 32 | (uint32_t)cpu->gpr[low];
    }
}

/* Always locked here: without the prefix that is merely stronger than required. */
void gen_cmpxchg8b(struct cpu *cpu, const struct insn *insn)
{
    unsigned half = insn->op[0].size / 2, size = half * 2;
    struct wide_cmpxchg w = {.size = size};
    uint64_t old[2] = {0};
    two_registers(cpu, half, RDX, RAX, w.expected);
    two_registers(cpu, half, RCX, RBX, w.desired);
    uint64_t lin = mem_operand(cpu, insn, size, ACCESS_READ | ACCESS_WRITE);
    if (size == 16 && (lin & 15))
        cpu_raise_error(cpu, VECTOR_GP, 0);
    mem_locked_rmw(cpu, insn->mem.seg, lin, size, wide_update, &w, old);
    bool equal = !memcmp(old, w.expected, size);
    if (!equal) {
        uint64_t low = half == 8 ? old[0] : (uint32_t)old[0];
        uint64_t high = half == 8 ? old[1] : old[0] >> 32;
        opnd_set_gpr(cpu, RAX, half, low);
        opnd_set_gpr(cpu, RDX, half, high);
    }
    cc_set_some(cpu, FLAG_ZF, equal ? FLAG_ZF : 0);
}
