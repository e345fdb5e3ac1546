/*
 * mem_inline.h - the inline half of guest memory: host accesses that guests share, and the view's
 * fast path.
 *
 * Guest memory is written by several vCPUs and devices at once, at any alignment. Every access here
 * is one volatile access of its size: the compiler can neither tear, merge nor reorder them among
 * themselves, and the host (x86-64) then gives what the guest expects: aligned accesses are
 * single-copy atomic, and loads and stores are ordered as in SDM vol. 3, 8.2. MEM_RACY: see
 * internal/phys.h.
 */
#ifndef CPU_MEM_INLINE_H
#define CPU_MEM_INLINE_H

#include "cpu/mem.h"

/* size 1, 2, 4 or 8 */
MEM_RACY static inline uint64_t mem_host_load(const void *p, unsigned size)
{
    switch (size) {
    case 1:
        return *(const volatile uint8_t *)p;
    case 2:
        return *(const volatile mem_u16 *)p;
    case 4:
        return *(const volatile mem_u32 *)p;
    default:
        return *(const volatile mem_u64 *)p;
    }
}

MEM_RACY static inline void mem_host_store(void *p, uint64_t value, unsigned size)
{
    switch (size) {
    case 1:
        *(volatile uint8_t *)p = (uint8_t)value;
        break;
    case 2:
        *(volatile mem_u16 *)p = (uint16_t)value;
        break;
    case 4:
        *(volatile mem_u32 *)p = (uint32_t)value;
        break;
    default:
        *(volatile mem_u64 *)p = value;
        break;
    }
}

/* Any size: in pieces of 8, 4, 2, 1 bytes, in ascending order. */
MEM_RACY static inline void mem_host_read(void *to, const void *from, unsigned size)
{
    unsigned done = 0;
    for (; size - done >= 8; done += 8)
        *(mem_u64 *)((char *)to + done) = *(const volatile mem_u64 *)((const char *)from + done);
    if (size - done >= 4) {
        *(mem_u32 *)((char *)to + done) = *(const volatile mem_u32 *)((const char *)from + done);
        done += 4;
    }
    if (size - done >= 2) {
        *(mem_u16 *)((char *)to + done) = *(const volatile mem_u16 *)((const char *)from + done);
        done += 2;
    }
    if (size - done)
        *((char *)to + done) = *((const volatile char *)from + done);
}

MEM_RACY static inline void mem_host_write(void *to, const void *from, unsigned size)
{
    unsigned done = 0;
    for (; size - done >= 8; done += 8)
        *(volatile mem_u64 *)((char *)to + done) = *(const mem_u64 *)((const char *)from + done);
    if (size - done >= 4) {
        *(volatile mem_u32 *)((char *)to + done) = *(const mem_u32 *)((const char *)from + done);
        done += 4;
    }
    if (size - done >= 2) {
        *(volatile mem_u16 *)((char *)to + done) = *(const mem_u16 *)((const char *)from + done);
        done += 2;
    }
    if (size - done)
        *((volatile char *)to + done) = *((const char *)from + done);
}

/* The same, 16 bytes at once where there are that many: aligned, they are single-copy atomic (SDM
 * vol. 3, 9.1.1), and a vector load that follows gets its data from one store. Not for code that is
 * compiled for general registers only. */
MEM_RACY static inline void mem_host_read_wide(void *to, const void *from, unsigned size)
{
    unsigned done = 0;
    for (; size - done >= 16; done += 16)
        *(mem_u128 *)((char *)to + done) = *(const volatile mem_u128 *)((const char *)from + done);
    if (size - done)
        mem_host_read((char *)to + done, (const char *)from + done, size - done);
}
MEM_RACY static inline void mem_host_write_wide(void *to, const void *from, unsigned size)
{
    unsigned done = 0;
    for (; size - done >= 16; done += 16)
        *(volatile mem_u128 *)((char *)to + done) = *(const mem_u128 *)((const char *)from + done);
    if (size - done)
        mem_host_write((char *)to + done, (const char *)from + done, size - done);
}

/* The host address of an explicit access that the current view allows, else NULL. Neither alignment
 * (MODE_ALIGN) nor segment limits are looked at. */
static inline void *mem_hit(const struct cpu *cpu, uint64_t lin, unsigned size,
                            enum access_kind kind)
{
    return mmu_view_lookup(&cpu->mmu, (enum mmu_priv)cpu->priv, lin, size, kind);
}

/* mem_read() and mem_write() of 1, 2, 4 or 8 bytes as a value. cpu->rip is the instruction's. */
static inline uint64_t mem_load(struct cpu *cpu, unsigned seg, uint64_t lin, unsigned size)
{
    void *p = cpu->mode & MODE_ALIGN ? 0 : mem_hit(cpu, lin, size, ACCESS_READ);
    if (__builtin_expect(p != 0, 1))
        return mem_host_load(p, size);
    uint64_t value = 0;
    mem_read(cpu, seg, lin, &value, size);
    return value;
}

static inline void mem_store(struct cpu *cpu, unsigned seg, uint64_t lin, uint64_t value,
                             unsigned size)
{
    void *p = cpu->mode & MODE_ALIGN ? 0 : mem_hit(cpu, lin, size, ACCESS_WRITE);
    if (__builtin_expect(p != 0, 1))
        mem_host_store(p, value, size);
    else
        mem_write(cpu, seg, lin, &value, size);
}

#endif
