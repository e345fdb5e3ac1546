/*
 * mem_internal.h - what the files behind mem.h, and the block builder, share.
 */
#ifndef CPU_MEM_INTERNAL_H
#define CPU_MEM_INTERNAL_H

#include "cpu/mem.h"

/* Who is accessing, for the choke point. */
struct access mem_access(const struct cpu *cpu, enum mmu_priv priv);
/* Of fetches, and of what else EFLAGS.AC has no say in. */
static inline enum mmu_priv mem_cpl_priv(const struct cpu *cpu)
{
    return cpu->cpl == 3 ? MMU_USER : MMU_SUPERVISOR;
}
/* mmu_translate(), raising #PF. `lin` is checked and inside one page. */
void mem_translate(struct cpu *cpu, const struct access *access, uint64_t lin,
                   enum access_kind kind, enum mmu_priv priv, struct mmu_xlat *x);
/* #AC(0) where MODE_ALIGN (SDM vol. 3, 6.15, table 6-7). */
void mem_check_alignment(struct cpu *cpu, uint64_t lin, unsigned size);
/* Notes data breakpoints that an access of the current instruction has met. */
void mem_check_breakpoints(struct cpu *cpu, uint64_t lin, unsigned size, unsigned kind);
/* Translates CS:rip for execution. Returns how many bytes from there are in the page and in the
 * limit; raises for the first byte as mem_fetch() does. */
unsigned mem_fetch_page(struct cpu *cpu, uint64_t rip, struct mmu_xlat *x);

#endif
