/*
 * abi.h - the register convention of translated code (DESIGN section 4), and the part of struct cpu
 * that it reads and writes.
 *
 *     guest                      host while translated code runs
 *     RAX RCX RDX RBX RBP RSI    the register of the same name
 *     RDI R8 R9 R12 R13
 *     RSP                        R15
 *     R10 R11 R14 R15            no register: "homed", they stay in cpu->gpr[]
 *     XMM, YMM                   the register of the same name, from the first region that uses any
 *                                until C is called (cpu->jx.vec_home = 0); else cpu->ymm[]
 *     arithmetic flags           EFLAGS between their producer and what changes EFLAGS next; in
 *                                cpu->jx.flags at every way to C and to other pages
 *     RIP                        cpu->jx.page_va plus an offset that the code knows
 *     MXCSR                      the host's, while vectors are in registers and when all exceptions
 *                                are masked (jit_mode()); from and to cpu->jx.mxcsr
 *
 *     host R10, R11   scratch: addresses, homed registers, copies of RAX
 *     host R14        in the middle of what is used most of struct cpu
 *     host FS base    glibc's; GS is not used
 *     host RSP        the host's stack: the guest's open calls (branch.c), 16 bytes each
 *
 * A field of struct cpu is named by R14 and a displacement: one byte where it lies near (CPU_NEAR),
 * else four. By RIP, which struct cpu is in reach of, would be as long, but Intel's processors are
 * slower then: loops full of such operands take 1.1 to 1.3 times as long, and what has just been
 * stored is forwarded at no cost only to a load by the same register and displacement.
 *
 * Since most registers keep their names, most instructions are copied byte for byte. R10, R11, R14
 * and R15 are homed because compilers use them least of all that need a REX prefix anyway.
 */
#ifndef CPU_JIT_ABI_H
#define CPU_JIT_ABI_H

#include "internal/cpu.h"

enum { HOST_SP = R15, HOST_CPU = R14, SCRATCH1 = R10, SCRATCH2 = R11 };

/* Is this guest register in memory only? */
static inline bool abi_is_homed(unsigned guest)
{
    return guest == R10 || guest == R11 || guest >= R14;
}
/* The host register of a guest register that is not homed. */
static inline unsigned abi_host(unsigned guest)
{
    return guest == RSP ? HOST_SP : guest;
}

#define CPU_GPR(n)        ((int32_t)(offsetof(struct cpu, gpr) + 8 * (n)))
#define CPU_YMM(n)        ((int32_t)(offsetof(struct cpu, ymm) + sizeof(union vreg) * (n)))
#define CPU_AT(member)    ((int32_t)offsetof(struct cpu, member))
#define CPU_SEG_BASE(seg) (CPU_AT(seg_base) + 8 * (int32_t)(seg))
#define CPU_SEGMENT(n)    (CPU_AT(seg) + (int32_t)sizeof(struct segment) * (int32_t)(n))
#define CPU_SELECTOR(n)   (CPU_SEGMENT(n) + (int32_t)offsetof(struct segment, selector))
#define CPU_FAST(priv)                                                                             \
    ((int32_t)(offsetof(struct cpu, mmu.fast) + sizeof(struct view_fast) * (priv)))
#define CPU_LAST(priv, k)                                                                          \
    ((int32_t)(offsetof(struct cpu, mmu.last) +                                                    \
               sizeof(struct view_last) * (MMU_PRIVS * (k) + (priv))))

_Static_assert(sizeof(union vreg) == 32, "CPU_YMM");
_Static_assert(sizeof(struct view_fast) == 16 && offsetof(struct view_fast, mask) == 8, "lookup");
_Static_assert(offsetof(struct view_entry, tag_read) == 0 &&
                   offsetof(struct view_entry, tag_write) == 8 &&
                   offsetof(struct view_entry, delta) == 16 &&
                   offsetof(struct view_entry, page) == 24,
               "lookup");

/* Where R14 points: between the fields of jx that are used most and the MMU's, down to the last
 * pages of the stack pointer, of the user's to those of its fields that are used most. */
#define CPU_NEAR ((int32_t)offsetof(struct cpu, mmu) + 32)
_Static_assert(CPU_NEAR - CPU_AT(jx.self) <= 128 && CPU_NEAR - CPU_AT(jx.kick) > 0 &&
                   CPU_LAST(MMU_USER, 0) + (int32_t)offsetof(struct view_last, limit[1]) -
                           CPU_NEAR <=
                       128,
               "near");

/* Bytes of host stack for open calls: its end is where RSP is a multiple of it. */
enum { CALLS_BYTES = 8192 };

/* Why translated code came back. */
enum jit_exit {
    JIT_EXIT_EDGE, /* at jx.edge, a way out that is not linked (yet) */
    JIT_EXIT_POLL, /* before the instruction at jx.exit_off, because something wants attention */
    JIT_EXIT_HERE, /* before the instruction at jx.exit_off, which C has to execute */
    JIT_EXIT_GATE, /* at cpu->rip, where a gate (gates.c) has led */
    JIT_EXIT_LEFT, /* cpu->rip is right already, and the flags are in RFLAGS */
};

#endif
