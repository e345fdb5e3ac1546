/*
 * phys.c - the single choke point: every access to guest-physical memory that is not a view hit.
 *
 * An access is cut into pieces, each inside one frame, one MMIO region or one hole. What a store
 * has to do beyond storing (code invalidation, traced page tables) happens here, after the bytes
 * are visible. Protection rules are asked here too: at the head of phys_read(), phys_write(),
 * phys_cmpxchg() and phys_read_entry(), over all bytes of the access and before the first one
 * moves, which is why those four return a result and why nobody else in the tree touches guest RAM
 * for the guest. The exception are instructions and event delivery: cpu/guard.c has asked for the
 * whole of what an instruction does (access->judged), and where it has not, they are asked here
 * like all.
 */
#include "internal/rules.h"
#include "mail.h"
#include "view.h"
#include <string.h>

/* ---- Bytes ---------------------------------------------------------------------------------- */

static bool is_aligned(const void *p, size_t len)
{
    return ((uintptr_t)p & (len - 1)) == 0;
}

/* By one instruction of the host, where there is one. */
MEM_RACY static inline void copy_bytes(void *to, const void *from, size_t len)
{
    switch (len) {
    case 2:
        *(volatile mem_u16 *)to = *(const volatile mem_u16 *)from;
        break;
    case 4:
        *(volatile mem_u32 *)to = *(const volatile mem_u32 *)from;
        break;
    case 8:
        *(volatile mem_u64 *)to = *(const volatile mem_u64 *)from;
        break;
    case 16:
        *(volatile mem_u128 *)to = *(const volatile mem_u128 *)from;
        break;
    default:
        memcpy(to, from, len);
    }
}

/* Aligned accesses of 1, 2, 4 and 8 bytes are single-copy atomic, as SDM vol. 3, 9.1.1 promises; so
 * are others of these sizes inside a cache line, and, with AVX, aligned ones of 16 bytes. */
static void load_bytes(void *to, const uint8_t *from, size_t len)
{
    if (len == 8 && is_aligned(from, 8)) {
        uint64_t v = __atomic_load_n((const uint64_t *)from, __ATOMIC_ACQUIRE);
        memcpy(to, &v, 8);
    } else if (len == 4 && is_aligned(from, 4)) {
        uint32_t v = __atomic_load_n((const uint32_t *)from, __ATOMIC_ACQUIRE);
        memcpy(to, &v, 4);
    } else if (len == 2 && is_aligned(from, 2)) {
        uint16_t v = __atomic_load_n((const uint16_t *)from, __ATOMIC_ACQUIRE);
        memcpy(to, &v, 2);
    } else {
        copy_bytes(to, from, len);
    }
}

static void store_bytes(uint8_t *to, const void *from, size_t len)
{
    if (len == 8 && is_aligned(to, 8)) {
        uint64_t v;
        memcpy(&v, from, 8);
        __atomic_store_n((uint64_t *)to, v, __ATOMIC_RELEASE);
    } else if (len == 4 && is_aligned(to, 4)) {
        uint32_t v;
        memcpy(&v, from, 4);
        __atomic_store_n((uint32_t *)to, v, __ATOMIC_RELEASE);
    } else if (len == 2 && is_aligned(to, 2)) {
        uint16_t v;
        memcpy(&v, from, 2);
        __atomic_store_n((uint16_t *)to, v, __ATOMIC_RELEASE);
    } else {
        copy_bytes(to, from, len);
    }
}

/* How much of an access lies in this range and, for memory, in the frame of gpa. Above the last
 * region there is nothing up to the end of all addresses, and DMA may ask for that end. */
static size_t piece(const struct phys_range *range, uint64_t gpa, size_t len)
{
    uint64_t n = range->end - gpa;
    if (!range->mapped && range->end == UINT64_MAX)
        return len;
    if (range_is_memory(range) && n > PAGE_SIZE - (gpa & ~PAGE_MASK))
        n = PAGE_SIZE - (gpa & ~PAGE_MASK);
    return n < len ? (size_t)n : len;
}

/* ---- MMIO and holes ------------------------------------------------------------------------- */

static unsigned register_width(size_t left)
{
    return left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
}

/* The range was looked up without the lock; a region may have gone since. ROM may have somebody who
 * hears of stores: flash. */
static bool still_mmio_locked(struct phys_map *map, uint64_t gpa, struct phys_range *range)
{
    phys_find(map, gpa, range);
    return range->mapped && range->kind != REGION_RAM && range->region->ops;
}

static void mmio_read(struct phys_map *map, const struct access *access, struct phys_range range,
                      uint64_t gpa, uint8_t *buf, size_t len)
{
    pthread_mutex_lock(map->machine_lock);
    while (len > 0) {
        unsigned n = register_width(len);
        uint64_t value = ~0ull;
        if (still_mmio_locked(map, gpa, &range) && range.kind == REGION_MMIO) {
            while (n > range.end - gpa)
                n /= 2;
            struct region *r = range.region;
            value = io_dispatch_read(r->ops, r->opaque, access, gpa - r->gpa, n);
        }
        memcpy(buf, &value, n);
        buf += n;
        gpa += n;
        len -= n;
    }
    pthread_mutex_unlock(map->machine_lock);
}

static bool by_instruction(const struct access *access)
{
    return access->initiator == INITIATOR_VCPU_USER || access->initiator == INITIATOR_VCPU_KERNEL;
}

bool phys_after_store(struct phys_map *map, const struct access *access, phys_after_fn *fn,
                      void *opaque)
{
    if (!by_instruction(access))
        return false;
    map->after = fn;
    map->after_opaque = opaque;
    return true;
}

/* A device has changed the map at an instruction's store, as flash does at a command: the next
 * instruction sees it, and that may be of the same block. In the vCPU's thread, which may hold host
 * addresses of other pieces of the store: RAM does not vanish. */
static void map_moved(struct phys_map *map, const struct access *access)
{
    struct mmu_cpu *mmu =
        access->vcpu < MMU_MAX_CPUS ? atomic_load(&map->cpus[access->vcpu]) : NULL;
    if (!mmu)
        return;
    mail_read_views(mmu);
    mail_read_code(mmu);
}

static void mmio_write(struct phys_map *map, const struct access *access, struct phys_range range,
                       uint64_t gpa, const uint8_t *buf, size_t len)
{
    pthread_mutex_lock(map->machine_lock);
    const uint32_t sequence = atomic_load(&map->sequence);
    while (len > 0) {
        unsigned n = register_width(len);
        uint64_t value = 0;
        if (still_mmio_locked(map, gpa, &range)) {
            while (n > range.end - gpa)
                n /= 2;
            memcpy(&value, buf, n);
            struct region *r = range.region;
            io_dispatch_write(r->ops, r->opaque, access, gpa - r->gpa, n, value);
        }
        buf += n;
        gpa += n;
        len -= n;
    }
    phys_after_fn *after = map->after;
    void *opaque = map->after_opaque;
    map->after = NULL;
    const bool moved = atomic_load(&map->sequence) != sequence;
    pthread_mutex_unlock(map->machine_lock);
    if (moved && by_instruction(access))
        map_moved(map, access);
    if (after)
        after(opaque, access); /* may not return */
}

static void log_hole(struct phys_map *map, const struct access *access, const char *what,
                     uint64_t gpa, size_t len)
{
    LOG(map->log, LOG_GUEST_ERRORS, "%s of %zu bytes at %#llx, where nothing is, rip %#llx\n", what,
        len, (unsigned long long)gpa, (unsigned long long)access->rip);
}

/* ---- Rules ---------------------------------------------------------------------------------- */

static bool judge(struct rules *rules, const struct access *access, uint64_t gpa, size_t len,
                  uint8_t kind, const void *value)
{
    bool walks = access->initiator == INITIATOR_WALKER, vcpu = access->initiator <= INITIATOR_EVENT;
    const struct rules_check check = {.access = access,
                                      .kind = kind,
                                      .has_gva = vcpu && !walks,
                                      .gva = access->gva,
                                      .pieces = 1,
                                      .piece = {{gpa, len}},
                                      .value = value,
                                      .nobody_to_ask = true};
    struct rules_verdict verdict;
    if (!rules_touches(rules, access, gpa, len, kind))
        return true;
    rules_judge(rules, &check, &verdict);
    return verdict.action >= PROTECT_ALLOW_ONCE;
}

/* vCPUs read the rules without a lock, and the walker and event delivery are vCPUs too; all others
 * need the machine lock. */
static bool judge_with_lock(struct phys_map *map, struct rules *rules, const struct access *access,
                            uint64_t gpa, size_t len, uint8_t kind, const void *value)
{
    pthread_mutex_lock(map->machine_lock);
    bool allowed = judge(rules, access, gpa, len, kind, value);
    pthread_mutex_unlock(map->machine_lock);
    return allowed;
}

/* Whether the rules let the access happen. Costs a load when there are none. */
static inline bool rules_allow(struct phys_map *map, const struct access *access, uint64_t gpa,
                               size_t len, uint8_t kind, const void *value)
{
    struct rules *rules = atomic_load_explicit(&map->rules, memory_order_relaxed);
    if (__builtin_expect(!rules || access->judged || access->initiator == INITIATOR_LOADER, 1))
        return true;
    return access->initiator <= INITIATOR_EVENT
               ? judge(rules, access, gpa, len, kind, value)
               : judge_with_lock(map, rules, access, gpa, len, kind, value);
}

/* ---- Memory --------------------------------------------------------------------------------- */

static bool may_change_rom(const struct access *access)
{
    return access->initiator == INITIATOR_LOADER || access->initiator == INITIATOR_DEBUGGER;
}

/* After a store: the locked read orders the bytes before it, so that whoever sets an attribute
 * either reads the new bytes afterwards or is seen here (frame.c). */
static void after_store(struct phys_map *map, const struct access *access,
                        const struct phys_range *range, uint64_t gpa, size_t len)
{
    uint32_t attr = atomic_fetch_or(&range_frame(range, gpa)->attr, 0);
    if (__builtin_expect(attr & (FRAME_CODE | FRAME_TABLE), 0))
        frame_written(map, access, range, gpa, len);
    /* Instructions follow their own stores to such tables (cpu/guard.c); A and D move nothing. */
    if (__builtin_expect(attr & FRAME_RULED_TABLE, 0) && access->initiator > INITIATOR_EVENT)
        rules_table_dirty(phys_rules(map), gpa, len);
}

static bool rom_listens(struct phys_map *map, uint64_t gpa)
{
    struct phys_range range = PHYS_RANGE_INIT;
    pthread_mutex_lock(map->machine_lock);
    bool listens = still_mmio_locked(map, gpa, &range);
    pthread_mutex_unlock(map->machine_lock);
    return listens;
}

/* One piece, inside one frame. */
static void memory_write(struct phys_map *map, const struct access *access,
                         const struct phys_range *range, uint64_t gpa, const void *buf, size_t len)
{
    uint32_t attr = atomic_load_explicit(&range_frame(range, gpa)->attr, memory_order_relaxed);
    if ((attr & FRAME_ROM) && !may_change_rom(access)) {
        if (range->kind == REGION_ROM && rom_listens(map, gpa)) {
            mmio_write(map, access, *range, gpa, buf, len);
            return;
        }
        LOG(map->log, LOG_GUEST_ERRORS, "write of %zu bytes to ROM at %#llx, rip %#llx\n", len,
            (unsigned long long)gpa, (unsigned long long)access->rip);
        return;
    }
    atomic_fetch_add(&map->stores, 1);
    store_bytes(range_hva(range, gpa), buf, len);
    after_store(map, access, range, gpa, len);
    atomic_fetch_sub(&map->stores, 1);
}

enum phys_result phys_read(struct phys_map *map, const struct access *access, uint64_t gpa,
                           void *buf, size_t len)
{
    struct phys_range own = PHYS_RANGE_INIT, *range = view_near(map, access, gpa, &own);
    uint8_t *to = buf;
    if (!rules_allow(map, access, gpa, len, PROTECT_READ, NULL))
        return PHYS_REFUSED;
    while (len > 0) {
        phys_find(map, gpa, range);
        size_t n = piece(range, gpa, len);
        if (range_is_memory(range)) {
            load_bytes(to, range_hva(range, gpa), n);
        } else if (range->mapped) {
            mmio_read(map, access, *range, gpa, to, n);
        } else {
            log_hole(map, access, "read", gpa, n);
            memset(to, 0xff, n);
        }
        to += n;
        gpa += n;
        len -= n;
    }
    return PHYS_OK;
}

enum phys_result phys_write(struct phys_map *map, const struct access *access, uint64_t gpa,
                            const void *buf, size_t len)
{
    struct phys_range own = PHYS_RANGE_INIT, *range = view_near(map, access, gpa, &own);
    const uint8_t *from = buf;
    if (!rules_allow(map, access, gpa, len, PROTECT_WRITE, buf))
        return PHYS_REFUSED;
    while (len > 0) {
        phys_find(map, gpa, range);
        size_t n = piece(range, gpa, len);
        if (range_is_memory(range))
            memory_write(map, access, range, gpa, from, n);
        else if (range->mapped)
            mmio_write(map, access, *range, gpa, from, n);
        else
            log_hole(map, access, "write", gpa, n);
        from += n;
        gpa += n;
        len -= n;
    }
    return PHYS_OK;
}

enum phys_result phys_read_entry(struct phys_map *map, const struct access *access,
                                 struct phys_range *range, uint64_t gpa, unsigned size,
                                 uint64_t *value)
{
    *value = 0;
    phys_find(map, gpa, range);
    if (!range_is_memory(range))
        return phys_read(map, access, gpa, value, size);
    if (atomic_load_explicit(&range_frame(range, gpa)->attr, memory_order_relaxed) & FRAME_RULED &&
        !rules_allow(map, access, gpa, size, PROTECT_READ, NULL))
        return PHYS_REFUSED;
    const uint8_t *from = range_hva(range, gpa);
    *value = size == 8 ? __atomic_load_n((const uint64_t *)from, __ATOMIC_ACQUIRE)
                       : __atomic_load_n((const uint32_t *)from, __ATOMIC_ACQUIRE);
    return PHYS_OK;
}

/* ---- Compare-and-exchange ------------------------------------------------------------------- */

static bool exchange(uint8_t *at, unsigned size, uint64_t *expected, uint64_t desired)
{
    if (size == 8)
        return __atomic_compare_exchange_n((uint64_t *)at, expected, desired, false,
                                           __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    uint32_t old = (uint32_t)*expected;
    bool same = __atomic_compare_exchange_n((uint32_t *)at, &old, (uint32_t)desired, false,
                                            __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    *expected = old;
    return same;
}

/* Outside memory there is nothing to be atomic with: a device's registers under the machine lock.
 */
static bool exchange_elsewhere(struct phys_map *map, const struct access *access, uint64_t gpa,
                               unsigned size, uint64_t *expected, uint64_t desired)
{
    uint64_t now = 0;
    pthread_mutex_lock(map->machine_lock);
    phys_read(map, access, gpa, &now, size);
    bool same = now == *expected;
    *expected = now;
    if (same)
        phys_write(map, access, gpa, &desired, size);
    pthread_mutex_unlock(map->machine_lock);
    return same;
}

/* In RAM or ROM. */
static bool exchange_memory(struct phys_map *map, const struct access *access,
                            const struct phys_range *range, uint64_t gpa, unsigned size,
                            uint64_t *expected, uint64_t desired)
{
    uint8_t *at = range_hva(range, gpa);
    uint32_t attr = atomic_load_explicit(&range_frame(range, gpa)->attr, memory_order_relaxed);
    if ((attr & FRAME_ROM) && !may_change_rom(access)) {
        /* The bus cycle happens and changes nothing: page tables in ROM stay as they are. */
        uint64_t now = 0;
        load_bytes(&now, at, size);
        bool same = now == *expected;
        *expected = now;
        return same;
    }
    atomic_fetch_add(&map->stores, 1);
    bool same = exchange(at, size, expected, desired);
    if (same)
        after_store(map, access, range, gpa, size);
    atomic_fetch_sub(&map->stores, 1);
    return same;
}

enum phys_result phys_cmpxchg(struct phys_map *map, const struct access *access, uint64_t gpa,
                              unsigned size, uint64_t *expected, uint64_t desired, bool *exchanged)
{
    struct phys_range range = PHYS_RANGE_INIT;
    if (!rules_allow(map, access, gpa, size, PROTECT_READ | PROTECT_WRITE, &desired))
        return PHYS_REFUSED;
    phys_find(map, gpa, &range);
    *exchanged = range_is_memory(&range)
                     ? exchange_memory(map, access, &range, gpa, size, expected, desired)
                     : exchange_elsewhere(map, access, gpa, size, expected, desired);
    return PHYS_OK;
}
