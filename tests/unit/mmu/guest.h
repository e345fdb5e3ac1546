/*
 * guest.h - a machine's memory for the tests of mmu/: RAM, one vCPU or more with hooks that record,
 * and a builder of page tables. One .c file per test program includes it.
 */
#ifndef TESTS_MMU_GUEST_H
#define TESTS_MMU_GUEST_H

#include "internal/error.h"
#include "internal/exclusive.h"
#include "internal/log.h"
#include "internal/mmu.h"
#include "mmu/paging.h"
#include <check.h>
#include <stdlib.h>
#include <string.h>

#define KIB 1024ull
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

struct guest {
    pthread_mutex_t lock;
    struct phys_map *map;
    struct ram_block *ram;
    uint64_t size;
    struct mmu_cpu mmu[2];
    unsigned cpus;
    unsigned stale, kicks[2]; /* what the hooks of vCPU 0 saw; of each */
    uint64_t stale_gpa, stale_len;
    uint64_t next_table; /* bump allocator of page-table frames */
};

static const struct access KERNEL = {.initiator = INITIATOR_VCPU_KERNEL, .vcpu = 0};
static const struct access DMA = {.initiator = INITIATOR_DMA, .device = 0x18};
static const struct access LOADER = {.initiator = INITIATOR_LOADER};

static void hook_stale(void *opaque, uint64_t gpa, uint64_t len)
{
    struct guest *g = opaque;
    g->stale++;
    g->stale_gpa = gpa;
    g->stale_len = len;
}
static void hook_kick0(void *opaque)
{
    __atomic_fetch_add(&((struct guest *)opaque)->kicks[0], 1, __ATOMIC_RELAXED);
}
static void hook_kick1(void *opaque)
{
    __atomic_fetch_add(&((struct guest *)opaque)->kicks[1], 1, __ATOMIC_RELAXED);
}

/* RAM at 0. Page tables come from the upper half. */
static inline struct guest *guest_new(uint64_t ram, unsigned cpus, struct exclusive *exclusive)
{
    struct guest *g = calloc(1, sizeof *g);
    struct error err;
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&g->lock, &attr);
    g->map = phys_new(&g->lock, NULL);
    g->ram = phys_ram_new(g->map, ram, &err);
    g->size = ram;
    ck_assert_ptr_nonnull(g->ram);
    ck_assert(phys_add_ram(g->map, 0, ram, g->ram, 0, "ram", &err));
    g->next_table = ram / 2;
    g->cpus = cpus;
    for (unsigned i = 0; i < cpus; i++) {
        struct mmu_cpu_hooks hooks = {g, hook_stale, i ? hook_kick1 : hook_kick0};
        ck_assert(mmu_cpu_init(&g->mmu[i], g->map, exclusive, i, &hooks, NULL, &err));
    }
    return g;
}

static inline void guest_free(struct guest *g)
{
    for (unsigned i = 0; i < g->cpus; i++)
        mmu_cpu_fini(&g->mmu[i]);
    phys_free(g->map);
    pthread_mutex_destroy(&g->lock);
    free(g);
}

static inline uint64_t guest_table(struct guest *g)
{
    uint64_t gpa = g->next_table;
    g->next_table += PAGE_SIZE;
    ck_assert_uint_le(g->next_table, g->size);
    return gpa;
}

static inline uint64_t peek64(struct guest *g, uint64_t gpa)
{
    uint64_t v = 0;
    phys_read(g->map, &LOADER, gpa, &v, 8);
    return v;
}
static inline void poke(struct guest *g, uint64_t gpa, uint64_t value, unsigned size)
{
    phys_write(g->map, &LOADER, gpa, &value, size);
}
static inline void poke64(struct guest *g, uint64_t gpa, uint64_t value)
{
    poke(g, gpa, value, 8);
}

static inline struct paging paging_for(enum paging_mode mode, uint64_t cr3)
{
    struct paging p = {.cr0 = 0x80000011 | PG_CR0_WP,
                       .cr3 = cr3,
                       .maxphyaddr = 40,
                       .nx = true,
                       .gib_pages = true,
                       .a20 = true};
    if (mode == PAGING_NONE)
        p.cr0 = 0x11;
    if (mode == PAGING_32)
        p.cr4 = PG_CR4_PSE;
    if (mode >= PAGING_PAE)
        p.cr4 = PG_CR4_PAE, p.efer = PG_EFER_NXE;
    if (mode == PAGING_4LEVEL)
        p.efer |= PG_EFER_LMA;
    return p;
}

/* The address of the entry that maps gva at `level`, tables made on the way (present, RW, US, A).
 */
static inline uint64_t guest_entry(struct guest *g, struct paging *p, uint64_t gva, unsigned level)
{
    enum paging_mode mode = paging_mode(p);
    unsigned width = paging_index_bits(mode), size = mode == PAGING_32 ? 4 : 8;
    uint64_t table =
        p->cr3 & (mode == PAGING_32 ? bits(31, 12) : bits(51, mode == PAGING_PAE ? 5 : 12));
    for (unsigned l = paging_levels(mode);; l--) {
        uint64_t index = (gva >> (PAGE_SHIFT + (l - 1) * width)) & ((1u << width) - 1);
        bool in_register = mode == PAGING_PAE && l == 3;
        if (in_register)
            index &= 3;
        uint64_t at = table + index * size, entry = 0;
        if (l == level)
            return at;
        phys_read(g->map, &LOADER, at, &entry, size);
        if (!(entry & PTE_P)) {
            entry = guest_table(g) | PTE_P | (in_register ? 0 : PTE_RW | PTE_US | PTE_A);
            poke(g, at, entry, size);
        }
        if (in_register)
            p->pdpte[index] = entry;
        table = entry & bits(51, 12);
    }
}

/* Maps a page of the level's size. */
static inline uint64_t guest_map(struct guest *g, struct paging *p, uint64_t gva, uint64_t entry,
                                 unsigned level)
{
    uint64_t at = guest_entry(g, p, gva, level);
    poke(g, at, entry, paging_mode(p) == PAGING_32 ? 4 : 8);
    return at;
}

/* What an access may go by without a walk: mmu_view_lookup(), and for fetches, which generated code
 * does not make, mmu_view_code(). */
static inline void *view_hit(const struct mmu_cpu *m, enum mmu_priv priv, uint64_t gva,
                             enum access_kind kind)
{
    if (kind != ACCESS_EXEC)
        return mmu_view_lookup(m, priv, gva, 1, kind);
    return (void *)(uintptr_t)mmu_view_code(m, priv, gva);
}

#endif
