/*
 * mem.h - guest memory as instructions see it: logical address -> linear -> view or slow path.
 *
 * Every function here raises (cpu_raise*: does not return) on a fault, with cpu->rip at the current
 * instruction, before anything of that access has been committed; a write that crosses a page checks
 * both pages before it stores a byte. `lin` is a linear address, already wrapped to 32 bits outside
 * 64-bit mode.
 *
 * cpu/mem.c is shared by the engines and by cpu/sys. The inline fast paths are in cpu/mem_inline.h.
 */
#ifndef CPU_MEM_H
#define CPU_MEM_H

#include "internal/cpu.h"

/* ---- Explicit accesses, with the CPU's current privilege (cpu->priv) ------------------------------- */

/* size 1-64 bytes; 1, 2, 4, 8 are single-copy atomic when aligned. Checks canonicality (#GP(0), or
 * #SS(0) for seg == SEG_SS), paging, data breakpoints and, where MODE_ALIGN, alignment. */
void mem_read(struct cpu *cpu, unsigned seg, uint64_t lin, void *buf, unsigned size);
void mem_write(struct cpu *cpu, unsigned seg, uint64_t lin, const void *buf, unsigned size);
/* Proves that a later write of `size` bytes will not fault (walks, sets A and D); nothing is stored. */
void mem_probe_write(struct cpu *cpu, unsigned seg, uint64_t lin, unsigned size);
/* The same without #AC, for what is aligned otherwise than by its size, or need not be. */
void mem_read_unaligned(struct cpu *cpu, unsigned seg, uint64_t lin, void *buf, unsigned size);
void mem_write_unaligned(struct cpu *cpu, unsigned seg, uint64_t lin, const void *buf, unsigned size);
void mem_probe_write_unaligned(struct cpu *cpu, unsigned seg, uint64_t lin, unsigned size);
/* The instruction's m16:16, m16:32 or m16:64, aligned by its offset, which has `size` bytes. */
void mem_read_far_pointer(struct cpu *cpu, const struct insn *insn, void *buf, unsigned size);
/* Linear address of what is `first` bytes into a memory operand: an access of its own, whose offset is
 * cut to the address size again. */
uint64_t mem_operand_behind(struct cpu *cpu, const struct insn *insn, unsigned first, unsigned size, unsigned kind);

/* Offset in a segment -> linear address, with all checks of the mode (limit, type, presence, null
 * selector, expand-down, canonicality): #GP(0) or #SS(0). `kind` ACCESS_READ, _WRITE or both. In 64-bit
 * code only FS and GS add a base. Offsets wrap by the address size before they come here. */
uint64_t mem_linear(struct cpu *cpu, unsigned seg, uint64_t offset, unsigned size, unsigned kind);

/* The effective address of a decoded operand: base + index * scale + disp, wrapped to the address
 * size, without the segment. REG_PC is relative to cpu->rip + insn->len. */
uint64_t mem_effective(struct cpu *cpu, const struct insn *insn);
/* Both at once. */
uint64_t mem_operand(struct cpu *cpu, const struct insn *insn, unsigned size, unsigned kind);

/* Locked read-modify-write of 1, 2, 4, 8 or 16 bytes, atomic against all vCPUs also where it crosses a
 * line, page or hits MMIO (exclusive section). `update` computes *value -> *value; it may be called
 * more than once. Returns the value before in *old. Always a write for the MMU, also if nothing
 * changes. */
typedef void mem_update_fn(void *opaque, const void *old_value, void *new_value);
void mem_locked_rmw(struct cpu *cpu, unsigned seg, uint64_t lin, unsigned size, mem_update_fn *update,
                    void *opaque, void *old_value);

/* ---- Implicit supervisor accesses: GDT, LDT, IDT, TSS; and pushes of event delivery ------------------ */

/* As above but always MMU_SUPERVISOR (SMAP applies: SDM 4.6.1), INITIATOR_EVENT when `event`. */
void mem_sys_read(struct cpu *cpu, uint64_t lin, void *buf, unsigned size, bool event);
void mem_sys_write(struct cpu *cpu, uint64_t lin, const void *buf, unsigned size, bool event);
/* A push of event delivery on a stack of CPL 0 to 2: INITIATOR_EVENT. */
void mem_event_push(struct cpu *cpu, uint64_t lin, const void *buf, unsigned size, enum mmu_priv priv);
/* With a privilege of the caller's choice: stacks of inner levels during far transfers and delivery. */
void mem_priv_read(struct cpu *cpu, unsigned seg, uint64_t lin, void *buf, unsigned size,
                   enum mmu_priv priv);
void mem_priv_write(struct cpu *cpu, unsigned seg, uint64_t lin, const void *buf, unsigned size,
                    enum mmu_priv priv);
void mem_priv_probe_write(struct cpu *cpu, unsigned seg, uint64_t lin, unsigned size,
                          enum mmu_priv priv);

/* ---- Code ---------------------------------------------------------------------------------------------- */

/* Fetches up to `want` instruction bytes at CS:rip for decoding, not beyond the page; *gpa gets the
 * physical address of the first. Raises #PF (fetch) or #GP(0) (limit, canonicality) only for the first
 * byte. Returns how many. */
unsigned mem_fetch(struct cpu *cpu, uint64_t rip, uint8_t *buf, unsigned want, uint64_t *gpa);

/* ---- Reads of what may not raise (monitor, dumps): false instead of a fault ----------------------------- */
bool mem_peek(struct cpu *cpu, uint64_t lin, void *buf, size_t len);

#endif
