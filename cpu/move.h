/*
 * move.h - MOV, MOVZX and MOVSX between a register and memory, by C: an instruction that makes one
 * access and changes nothing before it.
 *
 * So protection rules can judge the access before it is made, and nothing has to be undone or done
 * again: where the general way (guard.h) runs an instruction twice, this one runs it once. It is
 * for 64-bit code and for accesses inside one page; everything else is the general way's, which
 * begins anew.
 */
#ifndef CPU_MOVE_H
#define CPU_MOVE_H

#include "cpu/guard.h"

bool move_is_plain(const struct insn *insn);

/* Executes such an instruction at cpu->rip and sets cpu->next_rip, or raises: as execute_insn().
 * Where rules have a say, cpu->next_rip may be a handler's. */
void move_execute(struct cpu *cpu, const struct insn *insn);

/* What its access is; false: a case for the general way. Changes nothing, and raises nothing but
 * #PF, if that. */
enum move_fault { MOVE_GIVES_UP, MOVE_RAISES };
bool move_describe(struct cpu *cpu, const struct insn *insn, enum move_fault fault,
                   struct guard_move *move);
/* The access has been made: puts what it has loaded where it belongs. */
void move_finish(struct cpu *cpu, const struct guard_move *move);

#endif
