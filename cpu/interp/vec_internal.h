/*
 * vec_internal.h - what the files of the vector room share.
 */
#ifndef CPU_INTERP_VEC_INTERNAL_H
#define CPU_INTERP_VEC_INTERNAL_H

#include "cpu/interp/flags.h"
#include "cpu/interp/vec.h"
#include "cpu/mem_inline.h"
#include "cpu/opnd.h"
#include "insn_exec.h"

#include <string.h>

/* The semantic functions that rows of this room name. */
#define X(name) void name(struct cpu *cpu, const struct insn *insn);
INSN_GENERIC_EXECS(X)
#undef X

/* ---- Host code (vec_code.c) ------------------------------------------------------------------ */

/* Memory that is written through one mapping and executed through another. */
struct vec_arena {
    uint8_t *write; /* NULL while `flips`: then `exec` changes between the two */
    uint8_t *exec;
    size_t size, used;
    bool flips;
};
bool vec_arena_init(struct vec_arena *arena, size_t size, struct error *err);
void vec_arena_fini(struct vec_arena *arena);
/* Copies code into fresh memory; NULL when the arena is full. */
const void *vec_arena_add(struct vec_arena *arena, const uint8_t *code, size_t len);
/* Copies it to `at`, which an earlier vec_arena_add() returned, over code of at least that length.
 */
bool vec_arena_replace(struct vec_arena *arena, const void *at, const uint8_t *code, size_t len);

/* ---- Stubs (vec_stub.c) ---------------------------------------------------------------------- */

/* v, rm, h, l: the operands' values (l: is4 or implicit XMM0, or the GPRs of PCMPESTRx); out: where
 * the vector result goes, 16, 32 or (MMX) 8 bytes. Returns a GPR result, or flags. */
typedef uint64_t vec_code(const void *v, const void *rm, const void *h, const void *l, void *out);

enum vec_dest { DEST_NONE, DEST_V, DEST_H, DEST_RM, DEST_GPR };

struct vec_stub {
    vec_code *code;
    int8_t v, rm, h, l; /* which insn->op[] they are; -1: none */
    uint8_t dest;       /* enum vec_dest */
    uint8_t dest_op;    /* index in insn->op[] */
    uint8_t out_size;   /* bytes that the stub stores at `out` */
    bool flags;         /* returns flags for RFLAGS */
    bool mxcsr, mmx;
    uint8_t key_len;
    uint8_t key[15]; /* the canonical encoding */
    uint8_t insn_at; /* where it stands in the code */
    struct vec_stub *next;
};

/* x87_host.c: image is in FXSAVE's layout, mem the operand, flags the arithmetic ones. Returns
 * flags. */
typedef uint64_t x87_code(void *image, void *mem, uint64_t flags);
/* x87_fast.c: returns FSW, and EFLAGS above bit 31. */
typedef uint64_t x87_fast_code(void *st0, void *sti, void *mem, const uint16_t *fcw, uint16_t fsw);
struct x87_entry {
    x87_code *full;      /* NULL: not made yet */
    x87_fast_code *fast; /* NULL: there is none, or (known) not made yet */
    uint16_t flags;
    bool known;
};

enum { VEC_BUCKETS = 4096 };

struct vector_engine {
    struct vec_arena arena;
    struct vec_stub *buckets[VEC_BUCKETS];
    unsigned stubs;
    struct vec_stub scratch; /* for stubs that found no room */
    const void *scratch_code;
    struct x87_entry x87[8][256];   /* by opcode D8-DF and ModRM, filled when first met */
    alignas(64) uint8_t image[512]; /* x87_host.c's FXSAVE area */
};

/* The stub for insn, from the cache or new; the scratch stub when there is no room. Never NULL. */
const struct vec_stub *vec_stub_get(struct cpu *cpu, const struct insn *insn);

/* The stub's arguments, gathered from the instruction. */
struct vec_call {
    const void *v, *rm, *h, *l;
    void *out;
};
static inline uint64_t vec_call_stub(const struct vec_stub *stub, const struct vec_call *call)
{
    return stub->code(call->v, call->rm, call->h, call->l, call->out);
}

/* ---- Unmasked SIMD exceptions (vec_trap.c) --------------------------------------------------- */

enum vec_trap_end { TRAP_COMPLETED, TRAP_RAISED, TRAP_UNAVAILABLE };
/* Calls the stub under *mxcsr, with exceptions unmasked; *mxcsr becomes what the processor left. If
 * the instruction raised, what it stored means nothing. TRAP_UNAVAILABLE: nothing has been done. */
enum vec_trap_end vec_trap(const struct vec_stub *stub, const struct vec_call *call,
                           uint32_t *mxcsr, uint64_t *result);

/* ---- Operands -------------------------------------------------------------------------------- */

/* A base or index register. REG_NONE is gpr_zero, right behind the array (internal/cpu.h asserts
 * it). */
static inline uint64_t vec_address_register(const struct cpu *cpu, unsigned reg)
{
    const uint64_t *registers = cpu->gpr;
    return registers[reg];
}

/* The host address of the memory operand where that is easy to say: 64-bit code or flat segments,
 * and the view has the page. NULL: the slow way, with all checks and faults. */
static inline void *vec_hit(const struct cpu *cpu, const struct insn *insn, unsigned size,
                            enum access_kind kind)
{
    const struct insn_mem *m = &insn->mem;
    uint64_t base = m->base == REG_PC ? cpu->rip + insn->len : vec_address_register(cpu, m->base);
    uint64_t lin = base + (vec_address_register(cpu, m->index) << m->scale) + (uint64_t)m->disp;
    if (insn->adsize == 4)
        lin = (uint32_t)lin;
    if (cpu->mode & MODE_CODE64)
        lin += cpu->seg_base[m->seg];
    else if (!(cpu->mode & MODE_FLAT) || insn->adsize != 4 || m->seg == SEG_CS || m->seg > SEG_DS)
        return NULL;
    if ((cpu->mode & MODE_ALIGN) ||
        ((insn->row->attr & (INSN_ALIGN | INSN_ALIGN_INTEL)) && (lin & (size - 1))))
        return NULL;
    return mem_hit(cpu, lin, size, kind);
}
/* Reads or writes `size` bytes of the instruction's memory operand; #GP(0) where the row demands
 * alignment. */
void vec_read_mem(struct cpu *cpu, const struct insn *insn, void *buf, unsigned size);
void vec_write_mem(struct cpu *cpu, const struct insn *insn, const void *buf, unsigned size);
/* The same for 1, 2, 4 or 8 bytes. */
uint64_t vec_read_scalar(struct cpu *cpu, const struct insn *insn, unsigned size);
void vec_write_scalar(struct cpu *cpu, const struct insn *insn, uint64_t value, unsigned size);
/* Before anything changes, where a store comes at the end. On AMD's processors a fault of that
 * store finds everything as it was; on Intel's it finds MMX state entered and exception flags set.
 */
void vec_prove_store(struct cpu *cpu, const struct insn *insn, unsigned size);
/* Vector operand n: the register itself, or memory read into buf. */
static inline const union vreg *vec_source(struct cpu *cpu, const struct insn *insn, unsigned n,
                                           union vreg *buf)
{
    const struct opnd *op = &insn->op[n];
    if (op->kind != OPND_MEM)
        return &cpu->ymm[op->reg];
    vec_read_mem(cpu, insn, buf, op->size);
    return buf;
}
/* After a VEX instruction of `size` bytes: the rest of the register is zero. */
static inline void vec_zero_above(const struct insn *insn, union vreg *reg, unsigned size)
{
    if (insn->vex && size <= 16)
        reg->q[2] = reg->q[3] = 0;
}

/* Writes MM register `reg` after x87_enter_mmx(): bits 79:64 become ones (SDM vol. 1, 9.5.2). */
static inline void vec_set_mmx(struct cpu *cpu, unsigned reg, uint64_t value)
{
    memcpy(cpu->x87.st[reg], &value, 8);
    memset(cpu->x87.st[reg] + 8, 0xff, 2);
}

#endif
