/*
 * call.c - uops that run a whole decoded instruction by its semantic function (handlers.h).
 */
#include "cpu/interp/block.h"
#include "cpu/interp/execute.h"
#include "cpu/interp/handlers.h"

/* A repeated string instruction stops between iterations when something wants attention: next_rip
 * is then the instruction itself, and it is not retired. */
#define UNFINISHED (cpu->next_rip == cpu->rip)

const struct uop *uop_call(struct cpu *cpu, const struct uop *u)
{
    const struct uop_call *c = uop_call_data(u);
    interp_at(cpu, u);
    cpu->next_rip = cpu->rip + u->len;
    c->fn(cpu, c->insn);
    if (__builtin_expect(UNFINISHED, 0))
        GOTO_UOP_OR_LEAVE(interp_dispatch(cpu));
    interp_back(cpu, u);
    GOTO_UOP(u + 2);
}

const struct uop *uop_call_checked(struct cpu *cpu, const struct uop *u)
{
    const struct uop_call *c = uop_call_data(u);
    interp_at(cpu, u);
    execute_insn(cpu, c->insn, c->prepared);
    if (__builtin_expect(UNFINISHED, 0))
        GOTO_UOP_OR_LEAVE(interp_dispatch(cpu));
    interp_back(cpu, u);
    GOTO_UOP(u + 2);
}

const struct uop *uop_call_end(struct cpu *cpu, const struct uop *u)
{
    const struct uop_call *c = uop_call_data(u);
    interp_at(cpu, u);
    execute_insn(cpu, c->insn, c->prepared);
    if (!(UNFINISHED && c->insn->rep))
        cpu->retired++;
    cpu->rip = cpu->next_rip;
    GOTO_UOP_OR_LEAVE(interp_dispatch(cpu));
}
