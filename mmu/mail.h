/*
 * mail.h - what one thread asks of another vCPU's memory management. Private to mmu/.
 *
 * Only a vCPU's own thread edits its views (or, with that vCPU stopped, the initiator of an
 * exclusive section). Everybody else leaves a message and kicks; the owner reads it in
 * mmu_service() before its next block, or when it next loads CR3 or invalidates, whichever comes
 * first.
 */
#ifndef MMU_MAIL_H
#define MMU_MAIL_H

#include "internal/mmu.h"

/* All code decoded at the page gpa is stale. `frame` is what was there, and its code_by bit of this
 * vCPU has been cleared, so that there is at most one such letter per frame. */
void mail_code(struct phys_map *map, unsigned vcpu, uint64_t gpa, uint32_t frame);
/* Code of the vCPU in whose thread this runs: told at once. */
void mail_own_code(struct phys_map *map, unsigned vcpu, uint64_t gpa, uint64_t len);
/* Bytes of a traced page table were stored. `own`: by that vCPU's thread, so act at once. */
void mail_table(struct phys_map *map, unsigned vcpu, bool own, uint32_t frame, uint32_t offset,
                uint32_t len);
/* Give up writable entries of the frame. */
void mail_revoke(struct phys_map *map, unsigned vcpu, uint32_t frame);
/* The map has changed: drop everything. */
void mail_flush(struct phys_map *map, unsigned vcpu);

/* Acts on what concerns views. Owner's thread; not while an instruction holds host addresses. */
void mail_read_views(struct mmu_cpu *mmu);
/* Acts on stale code, by the hook. */
void mail_read_code(struct mmu_cpu *mmu);

bool mail_init(struct mmu_cpu *mmu);
void mail_fini(struct mmu_cpu *mmu);

#endif
