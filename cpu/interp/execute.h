/*
 * execute.h - one decoded instruction with everything around it: availability checks, flags, the
 * call of its semantic function. Used for uops without a handler of their own, and for single
 * steps.
 */
#ifndef CPU_INTERP_EXECUTE_H
#define CPU_INTERP_EXECUTE_H

#include "internal/cpu.h"

/* The semantic function of a row: a plain one (plain.h) or a prefixed one. */
typedef void execute_fn(struct cpu *cpu, const struct insn *insn);
execute_fn *execute_function(const struct insn *insn);

/* Must sys_check_fpu() be called before each execution of this row in this mode? SDM vol. 3, 2.5.
 */
bool execute_needs_check(uint32_t mode, const struct insn_row *row);
/* The same, as far as SSE and AVX are concerned. */
bool execute_vector_needs_check(uint32_t mode, const struct insn_row *row);

/* Executes at cpu->rip and sets cpu->next_rip, or raises. `prepared` is of vec_prepare(). */
void execute_insn(struct cpu *cpu, const struct insn *insn, const void *prepared);

/* Decodes an instruction of which the caller has a copy, all of it; valid in this mode. */
void execute_prepare(struct cpu *cpu, const uint8_t *bytes, unsigned len, struct insn *insn,
                     const void **prepared);
/* Executes such a one at cpu->rip. */
void execute_copied(struct cpu *cpu, const uint8_t *bytes, unsigned len);

/* The instruction at cpu->rip, if execute_step() has executed it before, it lies in one page and
 * the view knows that fetches from there are allowed, so that no rule has a say. NULL: not so. */
const struct insn *execute_known(struct cpu *cpu);

/* Fetches, decodes and executes the instruction at cpu->rip: also one that crosses a page or lies
 * outside RAM. Advances cpu->rip and cpu->retired. */
void execute_step(struct cpu *cpu);

/* Executes from cpu->rip to where a block ends, decoding each instruction as it comes: code that is
 * run a few times before it is translated is not worth more. `code` is cpu->rip's host address,
 * with `avail` bytes in the page and below the limit. */
void execute_once(struct cpu *cpu, const uint8_t *code, unsigned avail);

#endif
