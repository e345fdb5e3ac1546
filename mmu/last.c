/*
 * last.c - the pages that were looked up last (struct view_last): copies of entries of the current
 * address space's tables, one for each place in generated code's numbering.
 *
 * Whatever takes a tag from an entry calls here, so that a copy never allows more than its entry
 * does. Generated code fills them too (cpu/jit/last.c).
 */
#include "view.h"

static void forget(struct mmu_cpu *mmu, unsigned priv, unsigned k)
{
    struct view_last *last = &mmu->last[k][priv];
    last->limit[0] = last->limit[1] = 0;
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
    if (!host)
        return;
    mmu->last[k][priv] =
        (struct view_last){.page = page,
                           .delta = (uint64_t)(uintptr_t)host - page,
                           .limit = {read ? VIEW_LAST_LIMIT : 0, write ? VIEW_LAST_LIMIT : 0}};
    mmu->last_used[priv] |= 1u << k;
}
