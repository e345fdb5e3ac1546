/*
 * code.c - frames that hold decoded code: taking away everybody's fast stores (DESIGN section 5,
 * "Frames" and "SMP").
 *
 * A store that was under way on another vCPU when CODE was set may still be unseen when this one
 * returns without having stopped it; so the caller adds the frame FIRST and reads the bytes that it
 * decodes afterwards, or compares them again.
 */
#include "internal/exclusive.h"
#include "view.h"

/* Takes write validity from the other vCPUs, who are stopped meanwhile. Their threads own their
 * views; that they are parked is what makes it right to edit them here. */
static void revoke_others(struct mmu_cpu *mmu, struct frame *frame, uint32_t number)
{
    struct exclusive *x = mmu->priv->exclusive;
    if (x)
        exclusive_begin(x, mmu->vcpu);
    unsigned writers = frame_other_writers(frame, mmu->vcpu);
    for (unsigned i = 0; i < MMU_MAX_CPUS; i++) {
        struct mmu_cpu *other = atomic_load(&mmu->map->cpus[i]);
        if ((writers & (1u << i)) && other)
            rmap_revoke_write(other, number);
    }
    if (x)
        exclusive_end(x, mmu->vcpu);
}

void mmu_code_added(struct mmu_cpu *mmu, uint64_t gpa, uint64_t len)
{
    struct phys_range range = PHYS_RANGE_INIT;
    phys_find(mmu->map, gpa, &range);
    if (!range_is_memory(&range) || len == 0)
        return;
    struct frame *frame = range_frame(&range, gpa);
    uint32_t number = range_frame_number(&range, gpa);
    uint64_t offset = gpa & ~PAGE_MASK;
    if (len > PAGE_SIZE - offset)
        len = PAGE_SIZE - offset;
    uint64_t granules = frame_granules(offset, len);
    bool known = (atomic_load(&frame->code_by) & (1u << mmu->vcpu)) &&
                 (atomic_load(&frame->code_granules) & granules) == granules;
    if (!known) {
        frame_code_added(mmu->map, frame, mmu->vcpu, granules);
        frame_await(mmu->map, frame, FRAME_LENT_WRITE);
    }
    rmap_revoke_write(mmu, number);
    if (frame_other_writers(frame, mmu->vcpu))
        revoke_others(mmu, frame, number);
}

void mmu_code_gone(struct mmu_cpu *mmu, uint64_t frame_gpa)
{
    struct phys_range range = PHYS_RANGE_INIT;
    phys_find(mmu->map, frame_gpa, &range);
    if (range_is_memory(&range))
        frame_code_gone(mmu->map, range_frame(&range, frame_gpa), mmu->vcpu);
}
