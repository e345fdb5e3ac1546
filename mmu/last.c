/*
 * last.c - the pages that were looked up last (struct view_last): copies of entries of the current
 * address space's tables, one for each place in generated code's numbering.
 *
 * Whatever takes a tag from an entry calls here, so that a copy never allows more than its entry
 * does. Generated code fills them too (cpu/jit/last.c).
 */
#include "view.h"
#include <string.h>

static void forget(struct mmu_cpu *mmu, unsigned priv, unsigned k)
{
    struct view_last *last = &mmu->last[k][priv];
    memset(last->limit, 0, sizeof last->limit);
    mmu->last_used[priv] &= ~(1u << k);
}

void last_forget(struct mmu_cpu *mmu, enum mmu_priv priv, uint64_t gva)
{
    for (uint32_t left = mmu->last_used[priv]; left; left &= left - 1) {
        unsigned k = (unsigned)__builtin_ctz(left);
        if (mmu->last[k][priv].page == gva)
            forget(mmu, priv, k);
    }
}

void last_forget_all(struct mmu_cpu *mmu)
{
    for (unsigned priv = 0; priv < MMU_PRIVS; priv++)
        while (mmu->last_used[priv])
            forget(mmu, priv, (unsigned)__builtin_ctz(mmu->last_used[priv]));
}

void mmu_last_fill(struct mmu_cpu *mmu, enum mmu_priv priv, unsigned k, uint64_t gva)
{
    uint64_t page = gva & PAGE_MASK;
    const uint8_t *read = mmu_view_lookup(mmu, priv, page, 1, ACCESS_READ);
    const uint8_t *write = mmu_view_lookup(mmu, priv, page, 1, ACCESS_WRITE);
    const uint8_t *host = read ? read : write;
    struct view_last *last = &mmu->last[k][priv];
    forget(mmu, priv, k);
    last->page = page;
    if (!host)
        return;
    last->delta = (uint64_t)(uintptr_t)host - page;
    for (enum view_last_size size = 0; size < VIEW_LAST_SIZES; size++) {
        last->limit[size][0] = read ? view_last_limit(size) : 0;
        last->limit[size][1] = write ? view_last_limit(size) : 0;
    }
    mmu->last_used[priv] |= 1u << k;
}
