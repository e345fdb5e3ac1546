/*
 * interp.h - micro-operations: what a decoded block is made of, and how one leads to the next.
 *
 * A block is an array of struct uop. Each names its handler, which does the work and goes on to the
 * next one by a tail call, so that every handler has an indirect jump of its own for the host to
 * predict. In builds where the compiler makes no tail calls (no optimisation, sanitizers) handlers
 * return the next uop to the loop in interp_run(). NULL ends the run.
 *
 * While a block runs, cpu->rip is the address of the block's beginning. It is brought to the
 * current instruction, and cpu->retired likewise, before anything can raise (interp_at()). So the
 * fast path touches neither.
 *
 *     handler of ADD r64, r64:   load a, load b, add, store r, store cc_op, cc_dst, cc_src, jump
 */
#ifndef CPU_INTERP_INTERP_H
#define CPU_INTERP_INTERP_H

#include "cpu/interp/flags.h"
#include "cpu/mem_inline.h"
#include "internal/cpu.h"
#include <stdatomic.h>
#include <stddef.h>

struct uop;
struct uop_link;
typedef const struct uop *uop_fn(struct cpu *cpu, const struct uop *u);

/* Registers are byte offsets from struct cpu: AH is RAX's plus 1 and needs no test. */
struct uop {
    uop_fn *fn;
    uint64_t imm;
    int32_t disp;
    uint8_t a, b;        /* destination (or first operand), source: register offsets */
    uint8_t base, index; /* register offsets; gpr_zero's when absent, rip's for RIP-relative */
    uint8_t scale;       /* shift */
    uint8_t seg;         /* SEG_* */
    uint8_t len;         /* of the instruction */
    uint8_t number;      /* how many instructions of the block come before this one */
    uint16_t off;        /* from the block's beginning to this instruction */
    uint8_t flags;       /* UOP_* */
    uint8_t adsize;      /* 2, 4, 8 */
};
_Static_assert(sizeof(struct uop) == 32, "two to a cache line");
_Static_assert(offsetof(struct cpu, gpr) == 0, "register offsets count from struct cpu");
_Static_assert(offsetof(struct cpu, rip) == REG_PC * 8, "REG_PC as a register offset");

enum {
    UOP_DATA = 1 << 0, /* the next slot is not a uop but data of this one */
    UOP_LAST = 1 << 1, /* ends the block */
};

/* The data slot behind a uop that runs a whole struct insn. */
struct uop_call {
    void (*fn)(struct cpu *cpu, const struct insn *insn);
    const struct insn *insn;
    const void *prepared; /* vec_host */
    uint64_t unused;
};
_Static_assert(sizeof(struct uop_call) == sizeof(struct uop), "one slot");

/* The data slot behind the uop that ends a block: where it goes. */
struct uop_link {
    const struct uop *to[2]; /* first uop of the block there when linked: [1] taken, [0] not */
    int32_t delta[2];        /* target minus the block's beginning */
    uint16_t count;          /* instructions in the block */
    uint8_t same_page : 2;   /* bit i: to[i] may be linked */
    uint8_t branch : 4;      /* bytes of the instruction that leads to [1] */
    uint8_t code;            /* 16, 32, 64 */
    uint32_t owner;          /* bytes from struct block to this slot */
};
_Static_assert(sizeof(struct uop_link) == sizeof(struct uop), "one slot");

static inline struct uop_link *uop_link(const struct uop *u)
{
    return (struct uop_link *)(u + 1);
}
static inline const struct uop_call *uop_call_data(const struct uop *u)
{
    return (const struct uop_call *)(u + 1);
}

/* ---- From one uop to the next ---------------------------------------------------------------- */

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ||                         \
    __has_feature(memory_sanitizer)
#define INTERP_LOOP 1
#endif
#endif
#if !defined(__OPTIMIZE__) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define INTERP_LOOP 1
#endif

#ifdef INTERP_LOOP
#define GOTO_UOP(u) return (void)cpu, (u)
#elif defined(__clang__)
#define GOTO_UOP(u)                                                                                \
    do {                                                                                           \
        const struct uop *next_ = (u);                                                             \
        __attribute__((musttail)) return next_->fn(cpu, next_);                                    \
    } while (0)
#else
#define GOTO_UOP(u)                                                                                \
    do {                                                                                           \
        const struct uop *next_ = (u);                                                             \
        return next_->fn(cpu, next_);                                                              \
    } while (0)
#endif
#define NEXT GOTO_UOP(u + 1)
/* For a pointer that may be NULL: leave. */
#define GOTO_UOP_OR_LEAVE(u)                                                                       \
    do {                                                                                           \
        const struct uop *maybe_ = (u);                                                            \
        if (__builtin_expect(!maybe_, 0))                                                          \
            return 0;                                                                              \
        GOTO_UOP(maybe_);                                                                          \
    } while (0)

#define HANDLER(name) static const struct uop *name(struct cpu *cpu, const struct uop *u)

/* ---- Registers ------------------------------------------------------------------------------- */

static inline uint64_t reg_get(const struct cpu *cpu, unsigned offset, unsigned size)
{
    const char *p = (const char *)cpu + offset;
    switch (size) {
    case 1:
        return *(const uint8_t *)p;
    case 2:
        return *(const uint16_t *)p;
    case 4:
        return *(const uint32_t *)p;
    default:
        return *(const uint64_t *)p;
    }
}
static inline void reg_set(struct cpu *cpu, unsigned offset, unsigned size, uint64_t value)
{
    char *p = (char *)cpu + offset;
    switch (size) {
    case 1:
        *(uint8_t *)p = (uint8_t)value;
        break;
    case 2:
        *(uint16_t *)p = (uint16_t)value;
        break;
    case 4:
        *(uint64_t *)p = (uint32_t)value;
        break;
    default:
        *(uint64_t *)p = value;
        break;
    }
}

/* ---- Memory operands ------------------------------------------------------------------------- */

/* Three ways to form an address. EA_B and EA_X are for flat 64-bit segments with 64-bit addresses:
 * base and displacement, and with an index. EA_G is any other: 32- and 16-bit addresses, FS and GS,
 * limits. */
uint64_t interp_address(struct cpu *cpu, const struct uop *u, unsigned size, unsigned kind);
#define EA_B(size, kind) (reg_get(cpu, u->base, 8) + (uint64_t)(int64_t)u->disp)
#define EA_X(size, kind)                                                                           \
    (reg_get(cpu, u->base, 8) + (reg_get(cpu, u->index, 8) << u->scale) +                          \
     (uint64_t)(int64_t)u->disp)
#define EA_G(size, kind) interp_address(cpu, u, size, kind)

/* Makes rip and retired those of instruction u before something that may raise, and back. */
static inline void interp_at(struct cpu *cpu, const struct uop *u)
{
    cpu->rip += u->off;
    cpu->retired += u->number;
}
static inline void interp_back(struct cpu *cpu, const struct uop *u)
{
    cpu->rip -= u->off;
    cpu->retired -= u->number;
}

/* Out of line, for what the view does not have; they raise at the right rip. */
uint64_t interp_load(struct cpu *cpu, const struct uop *u, uint64_t lin, unsigned size);
void interp_store(struct cpu *cpu, const struct uop *u, uint64_t lin, uint64_t value,
                  unsigned size);
/* The same to the stack segment, whatever u->seg is. */
void interp_push(struct cpu *cpu, const struct uop *u, uint64_t lin, uint64_t value, unsigned size);
/* A load that proves the later interp_store() to the same place. */
uint64_t interp_load_rmw(struct cpu *cpu, const struct uop *u, uint64_t lin, unsigned size);

static inline __attribute__((always_inline)) uint64_t ld(struct cpu *cpu, const struct uop *u,
                                                         uint64_t lin, unsigned size)
{
    void *p = mem_hit(cpu, lin, size, ACCESS_READ);
    return __builtin_expect(p != 0, 1) ? mem_host_load(p, size) : interp_load(cpu, u, lin, size);
}
static inline __attribute__((always_inline)) void st(struct cpu *cpu, const struct uop *u,
                                                     uint64_t lin, uint64_t value, unsigned size)
{
    void *p = mem_hit(cpu, lin, size, ACCESS_WRITE);
    if (__builtin_expect(p != 0, 1))
        mem_host_store(p, value, size);
    else
        interp_store(cpu, u, lin, value, size);
}

static inline __attribute__((always_inline)) void
st_stack(struct cpu *cpu, const struct uop *u, uint64_t lin, uint64_t value, unsigned size)
{
    void *p = mem_hit(cpu, lin, size, ACCESS_WRITE);
    if (__builtin_expect(p != 0, 1))
        mem_host_store(p, value, size);
    else
        interp_push(cpu, u, lin, value, size);
}

/* ---- Leaving a block (dispatch.c) ------------------------------------------------------------ */

/* Runs the block at cpu->rip, or one instruction when there is none to be had. For a CPU with a
 * translator. */
void interp_block(struct cpu *cpu);
/* The block at cpu->rip, or NULL: leave interp_run(). */
const struct uop *interp_dispatch(struct cpu *cpu);
/* Something wants attention, or link `l` is not made: it may not be yet, or may lead to another
 * page. cpu->rip is already there. */
const struct uop *interp_follow(struct cpu *cpu, struct uop_link *l, unsigned way);
/* #GP(0) at instruction u: its target is not canonical. */
_Noreturn void interp_bad_target(struct cpu *cpu, const struct uop *u);

/* Blocks by virtual address. Equal exec_generation = the page is mapped and executable as it was.
 */
struct pc_entry {
    uint64_t pc; /* rip; with a CS base that is not 0, blocks are not entered here */
    uint64_t generation;
    const struct uop *uops;
    uint64_t mode;
};
enum { PC_ENTRIES = 1 << 12 };
#define PC_NONE (1ull << 63) /* no rip, since not canonical */
struct pc_cache {
    struct pc_entry entry[PC_ENTRIES];
};

static inline struct pc_entry *pc_slot(struct cpu *cpu, uint64_t pc)
{
    struct pc_cache *cache = (struct pc_cache *)cpu->blocks; /* its first member */
    return &cache->entry[(pc ^ pc >> 12) & (PC_ENTRIES - 1)];
}
static inline bool pc_matches(const struct cpu *cpu, const struct pc_entry *e, uint64_t pc)
{
    return e->pc == pc && e->generation == cpu->mmu.exec_generation && e->mode == cpu->mode;
}

static inline bool interp_attention(const struct cpu *cpu)
{
    return atomic_load_explicit(&cpu->request, memory_order_relaxed) & cpu->attention;
}

/* Ends a block by its link: direct branches and falling off its end. */
#define GO(u, way)                                                                                 \
    do {                                                                                           \
        struct uop_link *l_ = uop_link(u);                                                         \
        cpu->rip += (uint64_t)(int64_t)l_->delta[way];                                             \
        cpu->retired += l_->count;                                                                 \
        const struct uop *to_ = l_->to[way];                                                       \
        if (__builtin_expect(!to_ || interp_attention(cpu), 0))                                    \
            to_ = interp_follow(cpu, l_, way);                                                     \
        GOTO_UOP_OR_LEAVE(to_);                                                                    \
    } while (0)

/* Ends a block by a target that was computed, and is canonical and below the limit. */
#define GO_INDIRECT(u, target)                                                                     \
    do {                                                                                           \
        uint64_t pc_ = (target);                                                                   \
        struct pc_entry *e_ = pc_slot(cpu, pc_);                                                   \
        cpu->rip = pc_;                                                                            \
        cpu->retired += (u)->number + 1u;                                                          \
        const struct uop *to_ = e_->uops;                                                          \
        if (__builtin_expect(!pc_matches(cpu, e_, pc_) || interp_attention(cpu), 0))               \
            to_ = interp_dispatch(cpu);                                                            \
        GOTO_UOP_OR_LEAVE(to_);                                                                    \
    } while (0)

#endif
