/*
 * paging.h - bits of the paging registers and entries (SDM vol. 3, 2.5 and 4.2-4.5), and the paging
 * mode that they select. Private to mmu/.
 */
#ifndef MMU_PAGING_H
#define MMU_PAGING_H

#include "internal/mmu.h"

#define PG_CR0_WP    (1ull << 16)
#define PG_CR0_PG    (1ull << 31)
#define PG_CR4_PSE   (1ull << 4)
#define PG_CR4_PAE   (1ull << 5)
#define PG_CR4_PGE   (1ull << 7)
#define PG_CR4_PCIDE (1ull << 17)
#define PG_CR4_SMEP  (1ull << 20)
#define PG_CR4_SMAP  (1ull << 21)
#define PG_CR4_PKE   (1ull << 22)
#define PG_EFER_LMA  (1ull << 10)
#define PG_EFER_NXE  (1ull << 11)

#define PTE_P         (1ull << 0)
#define PTE_RW        (1ull << 1)
#define PTE_US        (1ull << 2)
#define PTE_PWT       (1ull << 3)
#define PTE_PCD       (1ull << 4)
#define PTE_A         (1ull << 5)
#define PTE_D         (1ull << 6)
#define PTE_PS        (1ull << 7) /* in a PDE or PDPTE */
#define PTE_PAT       (1ull << 7) /* in a PTE */
#define PTE_G         (1ull << 8)
#define PTE_LARGE_PAT (1ull << 12) /* in an entry that maps a large page */
#define PTE_XD        (1ull << 63)
#define PTE_KEY_SHIFT 59

/* #PF error code (SDM vol. 3, 4.7) */
enum { PF_P = 1, PF_W = 2, PF_U = 4, PF_RSVD = 8, PF_I = 16, PF_PK = 32 };
/* Not of the manual: refused by a protection rule (protect.h, PROTECT_DEFAULT_MARKER), so that a
 * kernel does not take the fault for one of its own tables. */
enum { PF_REFUSED = 1 << 15 };

enum paging_mode { PAGING_NONE, PAGING_32, PAGING_PAE, PAGING_4LEVEL };

static inline enum paging_mode paging_mode(const struct paging *p)
{
    if (!(p->cr0 & PG_CR0_PG))
        return PAGING_NONE;
    if (!(p->cr4 & PG_CR4_PAE))
        return PAGING_32;
    return p->efer & PG_EFER_LMA ? PAGING_4LEVEL : PAGING_PAE;
}

/* Bits hi..lo, both included. */
static inline uint64_t bits(unsigned hi, unsigned lo)
{
    return hi < lo ? 0 : (~0ull >> (63 - hi)) & (~0ull << lo);
}

/* The A20 gate sits between the CPU and the bus: all its physical addresses pass it. */
static inline uint64_t a20_gate(const struct paging *p, uint64_t gpa)
{
    return p->a20 ? gpa : gpa & ~(1ull << 20);
}

/* May this access go through the page that the walk found? WALK_OK or the rule that says no. */
enum walk_fault paging_rights(const struct paging *paging, const struct walk *walk,
                              enum access_kind kind, enum mmu_priv priv);
/* mmu_walk() with the lookup of the tables cached in *tables (PHYS_RANGE_INIT at first). */
struct phys_range;
bool walk_tables(struct phys_map *map, const struct paging *paging, const struct access *access,
                 uint64_t gva, enum access_kind kind, enum mmu_priv priv, bool peek,
                 struct phys_range *tables, struct walk *walk);
/* The shape of a mode: how many bits of the address each level takes, and of how many levels. */
unsigned paging_index_bits(enum paging_mode mode);
unsigned paging_levels(enum paging_mode mode);

#endif
