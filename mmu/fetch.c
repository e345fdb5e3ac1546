/*
 * fetch.c - what is known of a page that code is fetched from.
 *
 * Translated code calls this with the guest's vectors in the host's registers, so it is compiled
 * for general registers only (CMakeLists.txt) and calls nothing that is not.
 */
#include "view.h"

bool mmu_fetch_known(const struct mmu_cpu *mmu, enum mmu_priv priv, uint64_t gva, uint64_t *gpa,
                     uint64_t *generation)
{
    struct view_entry *entry;
    const struct view_meta *meta = view_present(mmu, priv, gva, &entry);
    if (!meta || !(meta->flags & META_FETCH))
        return false;
    *gpa = meta->gpa | (gva & ~PAGE_MASK);
    *generation = meta->flags & META_GLOBAL ? mmu->global_generation : mmu->exec_generation;
    return true;
}
