/*
 * dispatch.c - interp_run(), and how control passes from block to block (interp.h).
 */
#include "cpu/interp/block.h"
#include "cpu/interp/execute.h"
#include "internal/log.h"

/* ---- Memory operands, the slow half ---------------------------------------------------------- */

uint64_t interp_address(struct cpu *cpu, const struct uop *u, unsigned size, unsigned kind)
{
    uint64_t ea = reg_get(cpu, u->base, 8) + (reg_get(cpu, u->index, 8) << u->scale) +
                  (uint64_t)(int64_t)u->disp;
    if (u->adsize != 8)
        ea = u->adsize == 4 ? (uint32_t)ea : (uint16_t)ea;
    if (cpu->mode & MODE_CODE64)
        return ea + cpu->seg_base[u->seg];
    if ((cpu->mode & MODE_FLAT) && u->seg < SEG_FS && (u->seg != SEG_CS || !(kind & ACCESS_WRITE)))
        return ea;
    interp_at(cpu, u);
    uint64_t lin = mem_linear(cpu, u->seg, ea, size, kind);
    interp_back(cpu, u);
    return lin;
}

uint64_t interp_load(struct cpu *cpu, const struct uop *u, uint64_t lin, unsigned size)
{
    uint64_t value = 0;
    interp_at(cpu, u);
    mem_read(cpu, u->seg, lin, &value, size);
    interp_back(cpu, u);
    return value;
}

uint64_t interp_load_rmw(struct cpu *cpu, const struct uop *u, uint64_t lin, unsigned size)
{
    uint64_t value = 0;
    interp_at(cpu, u);
    mem_probe_write(cpu, u->seg, lin, size);
    mem_read(cpu, u->seg, lin, &value, size);
    interp_back(cpu, u);
    return value;
}

void interp_store(struct cpu *cpu, const struct uop *u, uint64_t lin, uint64_t value, unsigned size)
{
    interp_at(cpu, u);
    mem_write(cpu, u->seg, lin, &value, size);
    interp_back(cpu, u);
}

void interp_push(struct cpu *cpu, const struct uop *u, uint64_t lin, uint64_t value, unsigned size)
{
    interp_at(cpu, u);
    mem_write(cpu, SEG_SS, lin, &value, size);
    interp_back(cpu, u);
}

/* ---- From block to block --------------------------------------------------------------------- */

static void log_entry(struct cpu *cpu)
{
    if (LOG_ON(cpu->log, LOG_EXEC))
        log_printf(cpu->log, "cpu%u: %04x:%016llx mode %x\n", cpu->index, cpu->seg[SEG_CS].selector,
                   (unsigned long long)cpu->rip, cpu->mode);
    if (LOG_ON(cpu->log, LOG_CPU))
        cpu_dump(cpu, cpu->log->out);
}

const struct uop *interp_dispatch(struct cpu *cpu)
{
    if (cpu->jit)
        return 0; /* block by block: the translator looks first */
    for (;;) {
        if (interp_attention(cpu) || cpu->activity != CPU_RUNNING)
            return 0;
        struct pc_entry *e = pc_slot(cpu, cpu->rip);
        if (pc_matches(cpu, e, cpu->rip) && !uop_is_stale(e->uops))
            return e->uops;
        struct block *b = block_find(cpu);
        if (LOG_ON(cpu->log, LOG_EXEC | LOG_CPU))
            log_entry(cpu);
        if (b)
            return b->uops;
        execute_step(cpu);
    }
}

/* A near branch to an address that is not canonical faults itself (SDM vol. 2, JMP, Jcc). A block
 * may run at many addresses, so nobody knows before; links stay in the page, and need not ask. */
static _Noreturn void bad_link_target(struct cpu *cpu, const struct uop_link *l)
{
    cpu->rip += (uint64_t)((int64_t)l->delta[0] - l->delta[1] - l->branch);
    cpu->retired--;
    cpu_raise_error(cpu, VECTOR_GP, 0);
}

const struct uop *interp_follow(struct cpu *cpu, struct uop_link *l, unsigned way)
{
    if (l->code != 64)
        cpu->rip = l->code == 32 ? (uint32_t)cpu->rip : (uint16_t)cpu->rip;
    if (way == 1 && l->code == 64 && !is_canonical(cpu->rip))
        bad_link_target(cpu, l);
    uint64_t flushes = cpu->blocks->flushes, target_rip = cpu->rip;
    const struct uop *to = interp_dispatch(cpu);
    /* After a flush the link's memory is another block's. When the target has no block, it has been
     * executed by itself, and `to` is what comes after it. */
    if (!to || cpu->rip != target_rip || flushes != cpu->blocks->flushes ||
        LOG_ON(cpu->log, LOG_EXEC | LOG_CPU))
        return to;
    struct block *from = (struct block *)((char *)l - l->owner);
    if (!(l->same_page >> way & 1) || from->stale)
        return to;
    /* Both blocks are alive and in one frame: whoever takes out `target` finds this link. */
    struct block *target = (struct block *)((char *)to - offsetof(struct block, uops));
    if (target->frame == from->frame && target->mode == from->mode)
        l->to[way] = to;
    return to;
}

void interp_bad_target(struct cpu *cpu, const struct uop *u)
{
    interp_at(cpu, u);
    cpu_raise_error(cpu, VECTOR_GP, 0);
}

const struct uop *uop_stale(struct cpu *cpu, const struct uop *u)
{
    interp_at(cpu, u);
    GOTO_UOP_OR_LEAVE(interp_dispatch(cpu));
}

/* ---- Running --------------------------------------------------------------------------------- */

static void run_uops(struct cpu *cpu, const struct uop *u)
{
#ifdef INTERP_LOOP
    while (u)
        u = u->fn(cpu, u);
#else
    if (u)
        u->fn(cpu, u);
#endif
}

void interp_block(struct cpu *cpu)
{
    struct block *b = block_find(cpu);
    if (LOG_ON(cpu->log, LOG_EXEC | LOG_CPU))
        log_entry(cpu);
    cpu->blocks->single = false;
    if (b)
        run_uops(cpu, b->uops);
    else
        execute_step(cpu);
}

void interp_run(struct cpu *cpu, bool single)
{
    struct block_cache *cache = cpu->blocks;
    cache->single = single;
    cpu->next_rip = cpu->rip;
    if (single) {
        execute_step(cpu);
        return;
    }
    /* Blocks that are linked are entered unseen by the log. */
    if ((cpu->log->mask ^ cache->log_mask) & (LOG_EXEC | LOG_CPU)) {
        cache->log_mask = cpu->log->mask;
        block_flush(cpu);
    }
    run_uops(cpu, interp_dispatch(cpu));
    cpu->next_rip = cpu->rip;
}
