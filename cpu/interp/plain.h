/*
 * plain.h - every plain row of the instruction table as a function of the decoded instruction.
 *
 * These are the complete semantics: any operand, any mode, LOCK, alignment checks. The fast
 * handlers (int_alu.c and others) do the common forms of the same; the block builder falls back on
 * these, and single-stepping runs nothing else. Called with cpu->rip at the instruction and
 * cpu->next_rip behind it; branches change next_rip.
 */
#ifndef CPU_INTERP_PLAIN_H
#define CPU_INTERP_PLAIN_H

#include "internal/cpu.h"

typedef void plain_fn(struct cpu *cpu, const struct insn *insn);

/* One list for the declarations and the block builder's table. */
#define PLAIN_EXECS(X)                                                                             \
    X(add)                                                                                         \
    X(or)                                                                                          \
    X(adc)                                                                                         \
    X(sbb) X(and) X(sub) X(xor) X(cmp) X(test) X(inc) X(dec) X(neg) X(not ) X(mov) X(movzx)        \
        X(movsx) X(lea) X(xchg) X(xadd) X(cmpxchg) X(push) X(pop) X(call) X(jmp) X(ret) X(jcc)     \
            X(setcc) X(cmovcc) X(loop) X(jcxz) X(shl) X(shr) X(sar) X(rol) X(ror) X(rcl) X(rcr)    \
                X(shld) X(shrd) X(imul) X(mul) X(div) X(idiv) X(bt) X(bts) X(btr) X(btc) X(bsf)    \
                    X(bsr) X(tzcnt) X(lzcnt) X(popcnt) X(bswap) X(cbw) X(cwd) X(leave) X(nop)      \
                        X(movs) X(stos) X(lods) X(cmps) X(scas)

#define X(name) void plain_##name(struct cpu *cpu, const struct insn *insn);
PLAIN_EXECS(X)
#undef X

#endif
