/*
 * again.c - what translated code remembers and has to ask about again, in C that it calls without
 * putting vectors away.
 *
 * An edge to another page and an entry of the table of addresses hold under a number of the MMU's,
 * which changes whenever any page of code may have become another one: for a process that has been
 * flushed, or is new, all of them are outdated, and nearly all are right. The view says so: where
 * it has the page, and that is the frame that the target was made for, they hold under the new
 * number.
 *
 * A group of accesses (held.c) that does not lie in one page can be covered all the same, where
 * both pages may be accessed and lie side by side in host memory.
 *
 * This file is compiled for general registers only (cpu/CMakeLists.txt). Nothing here may call a
 * function that is not, nor raise.
 */
#include "cpu/jit/jit.h"
#include "cpu/mem_inline.h"
#include "cpu/mem_internal.h"

/* At gva there still is what the region was made for; sets the number under which that holds. Of
 * one that goes on in another page both would have to be asked for. */
static bool still_there(const struct cpu *cpu, uint64_t gva, const struct jit_region *region,
                        uint64_t *generation)
{
    uint64_t gpa, now;
    if (region->stale || region->tail ||
        !mmu_fetch_known(&cpu->mmu, mem_cpl_priv(cpu), gva, &gpa, &now) || gpa != region->gpa)
        return false;
    *generation = now;
    return true;
}

const void *jit_again_edge(struct cpu *cpu, struct jit_edge *edge)
{
    uint64_t gva = jit_wrap(cpu, cpu->jx.page_va + (uint64_t)(int64_t)edge->target);
    if (!edge->to || !jit_may_run(edge->to, gva) ||
        !still_there(cpu, gva, edge->to, &edge->generation))
        return NULL;
    edge->va = cpu->jx.page_va;
    return edge->retry;
}

struct jit_pc *jit_again_target(struct cpu *cpu, uint64_t pc)
{
    struct jit_pc *slot = jit_pc_slot(cpu->jx.pcs, pc);
    if (!is_canonical(pc)) /* as what free places have is not: jit_pcs_seek() */
        return NULL;
    for (unsigned place = 0; place < 2; place++, slot = jit_pc_other(slot))
        if (slot->pc == pc && still_there(cpu, pc, slot->region, &slot->generation))
            return slot;
    return NULL;
}

void *jit_group_address(const struct cpu *cpu, uint64_t lin, unsigned span, enum access_kind kind)
{
    uint64_t room = PAGE_SIZE - (lin & ~PAGE_MASK);
    if (span <= room)
        return mem_hit(cpu, lin, span, kind);
    char *host = mem_hit(cpu, lin, (unsigned)room, kind);
    const char *behind = mem_hit(cpu, jit_wrap(cpu, lin + room), span - (unsigned)room, kind);
    return host && behind == host + room ? host : NULL;
}

const void *jit_again_group(struct cpu *cpu, uint32_t site_offset)
{
    const struct jit_group *group = site_group((struct jit_site *)(cpu->jit->data + site_offset));
    uint64_t lin = cpu->jx.jump;
    uint64_t host = (uint64_t)(uintptr_t)jit_group_address(cpu, lin, group->span,
                                                           (enum access_kind)group->kind);
    if (!host || cpu->jx.watch) /* C is to watch this access (last.c) */
        return NULL;
    cpu->jx.jump = host - (group->relative ? lin : 0);
    return group->begun;
}
