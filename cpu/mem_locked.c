/*
 * mem_locked.c - locked read-modify-write (mem.h).
 *
 * SDM vol. 3, 8.1.2: a locked access is atomic whatever its alignment and wherever it goes. Aligned
 * ones in plain RAM are a compare-and-exchange loop on the host's memory; all others stop the other
 * vCPUs for the time of the access (exclusive.h).
 */
#include "cpu/guard.h"
#include "cpu/mem_inline.h"
#include "cpu/mem_internal.h"
#include "internal/exclusive.h"
#include <string.h>

/* The largest operand: CMPXCHG16B. */
union locked_value {
    uint8_t u8;
    uint16_t u16;
    uint32_t u32;
    uint64_t u64;
    unsigned __int128 u128;
};

#define CAS_LOOP(type, field)                                                                      \
    do {                                                                                           \
        type *p = host;                                                                            \
        old->field = __atomic_load_n(p, __ATOMIC_RELAXED);                                         \
        do {                                                                                       \
            new = *old;                                                                            \
            update(opaque, old, &new);                                                             \
        } while (!__atomic_compare_exchange_n(p, &old->field, new.field, false, __ATOMIC_SEQ_CST,  \
                                              __ATOMIC_SEQ_CST));                                  \
    } while (0)

/* 16 bytes: CMPXCHG16B of the host where it is x86-64; __sync builtins inline it with -mcx16. */
#if defined(__x86_64__)
static bool cas16(void *host, unsigned __int128 *expected, unsigned __int128 desired)
{
    uint64_t lo = (uint64_t)*expected, hi = (uint64_t)(*expected >> 64);
    bool ok;
    __asm__ volatile("lock cmpxchg16b %1"
                     : "=@ccz"(ok), "+m"(*(unsigned __int128 *)host), "+a"(lo), "+d"(hi)
                     : "b"((uint64_t)desired), "c"((uint64_t)(desired >> 64))
                     : "memory");
    *expected = (unsigned __int128)hi << 64 | lo;
    return ok;
}
#endif

/* Naturally aligned, in RAM that may be written directly. False when this host cannot. */
static bool rmw_host(void *host, unsigned size, mem_update_fn *update, void *opaque,
                     union locked_value *old)
{
    union locked_value new;
    switch (size) {
    case 1:
        CAS_LOOP(uint8_t, u8);
        return true;
    case 2:
        CAS_LOOP(uint16_t, u16);
        return true;
    case 4:
        CAS_LOOP(uint32_t, u32);
        return true;
    case 8:
        CAS_LOOP(uint64_t, u64);
        return true;
    default:
#if defined(__x86_64__)
        memset(old, 0, sizeof(*old));
        do {
            new = *old;
            update(opaque, old, &new);
        } while (!cas16(host, &old->u128, new.u128));
        return true;
#else
        return false;
#endif
    }
}

/* True when every page of the access translates for writing, without raising. */
static bool still_writable(struct cpu *cpu, uint64_t lin, unsigned size)
{
    struct access access = mem_access(cpu, cpu->priv);
    struct mmu_xlat x;
    uint64_t last = cpu->mode & MODE_LONG ? lin + size - 1 : (uint32_t)(lin + size - 1);
    return mmu_translate(&cpu->mmu, &access, lin, ACCESS_WRITE, cpu->priv, &x) == MMU_OK &&
           mmu_translate(&cpu->mmu, &access, last, ACCESS_WRITE, cpu->priv, &x) == MMU_OK;
}

/* With all other vCPUs parked. An exception must not leave the section open, so the outer unwind
 * point is replaced for its duration. */
static void rmw_exclusive(struct cpu *cpu, unsigned seg, uint64_t lin, unsigned size,
                          mem_update_fn *update, void *opaque, union locked_value *old)
{
    sigjmp_buf here, *outer = cpu->unwind;
    bool alone = exclusive_alone(cpu->exclusive);
    for (;;) {
        mem_probe_write(cpu, seg, lin, size);
        if (!alone)
            exclusive_begin(cpu->exclusive, cpu->index);
        /* Beginning may have waited, and what was proved may be gone: then prove it again. */
        if (alone || still_writable(cpu, lin, size))
            break;
        exclusive_end(cpu->exclusive, cpu->index);
    }
    if (sigsetjmp(here, 0)) {
        cpu->unwind = outer;
        if (!alone)
            exclusive_end(cpu->exclusive, cpu->index);
        siglongjmp(*outer, 1);
    }
    cpu->unwind = &here;
    union locked_value new;
    mem_read(cpu, seg, lin, old, size);
    new = *old;
    update(opaque, old, &new);
    mem_write(cpu, seg, lin, &new, size);
    cpu->unwind = outer;
    if (alone)
        return;
    exclusive_end(cpu->exclusive, cpu->index);
    mmu_service_code(&cpu->mmu);
}

void mem_locked_rmw(struct cpu *cpu, unsigned seg, uint64_t lin, unsigned size,
                    mem_update_fn *update, void *opaque, void *old_value)
{
    union locked_value old = {0};
    mem_check_alignment(cpu, lin, size);
    if (guard_active(cpu)) {
        union locked_value new;
        guard_locked(cpu);
        mem_probe_write(cpu, seg, lin, size);
        mem_read(cpu, seg, lin, &old, size);
        new = old;
        update(opaque, &old, &new);
        mem_write(cpu, seg, lin, &new, size);
        memcpy(old_value, &old, size);
        return;
    }
    void *host = 0;
    if (!(lin & (size - 1)) && !(host = mem_hit(cpu, lin, size, ACCESS_WRITE))) {
        mem_probe_write(cpu, seg, lin, size); /* the first touch of a page fills the view */
        host = mem_hit(cpu, lin, size, ACCESS_WRITE);
    }
    if (!host || !rmw_host(host, size, update, opaque, &old))
        rmw_exclusive(cpu, seg, lin, size, update, opaque, &old);
    memcpy(old_value, &old, size);
}
