/*
 * paging.h - page tables for 64-bit guests (SDM vol. 3, 4.5), and accesses that tell what became of
 * them.
 *
 * The guest itself lives in the first 512 GiB, mapped by start.S. The tables here are for WINDOW,
 * the next 512 GiB, where nothing is but what a test maps. Included once per guest.
 */
#ifndef GUEST_PAGING_H
#define GUEST_PAGING_H

#include "guest.h"

#define PG_P   0x1ull
#define PG_W   0x2ull
#define PG_U   0x4ull
#define PG_A   0x20ull
#define PG_D   0x40ull
#define PG_PS  0x80ull
#define PG_G   0x100ull
#define PG_NX  (1ull << 63)
#define PG_ALL (PG_P | PG_W | PG_U)

/* Error code of #PF (SDM vol. 3, 4.7). */
enum { PF_P = 1, PF_W = 2, PF_U = 4, PF_RSVD = 8, PF_I = 16, PF_PK = 32 };
enum { VECTOR_UD = 6, VECTOR_GP = 13, VECTOR_PF = 14 };

#define CR0_WP    (1ull << 16)
#define CR4_PGE   (1ull << 7)
#define CR4_PCIDE (1ull << 17)
#define CR4_SMEP  (1ull << 20)
#define CR4_SMAP  (1ull << 21)
#define CR4_PKE   (1ull << 22)
#define MSR_EFER  0xc0000080u
#define EFER_NXE  (1ull << 11)
#define FLAG_RF   (1ull << 16)
#define FLAG_AC   (1ull << 18)

#define PAGE   0x1000ull
#define WINDOW 0x8000000000ull
#define MAYBE  static __attribute__((unused))
#define ALONE  static __attribute__((unused, noinline, noclone))

/* RAM beyond the image, for what needs no symbol: free, aligned to 2 MiB. */
#define FREE_RAM 0x1000000ull

static uint64_t paging_pool[24][512] __attribute__((aligned(4096)));
static unsigned paging_used;

MAYBE void flush_all(void)
{
    word cr4 = read_cr4();
    if (cr4 & CR4_PGE)
        write_cr4(cr4 & ~CR4_PGE);
    write_cr3(read_cr3());
    write_cr4(cr4);
}

/* An empty window. */
MAYBE void paging_reset(void)
{
    boot_pml4[1] = 0;
    paging_used = 0;
    flush_all();
}

/* The entry for `va` at `level` (4 = PML4E ... 1 = PTE); tables in between are made, with all
 * rights, where there are none. */
MAYBE uint64_t *entry_of(uint64_t va, unsigned level)
{
    uint64_t *table = boot_pml4;
    for (unsigned l = 4;; l--) {
        uint64_t *entry = &table[va >> (12 + 9 * (l - 1)) & 511];
        if (l == level)
            return entry;
        if (!(*entry & PG_P)) {
            uint64_t *fresh = paging_pool[paging_used++];
            memset(fresh, 0, 4096);
            *entry = (uintptr_t)fresh | PG_ALL;
        }
        table = (uint64_t *)(uintptr_t)(*entry & 0x000ffffffffff000ull);
    }
}

/* Maps a page: level 1 = 4 KiB, 2 = 2 MiB, 3 = 1 GiB. Returns its address. */
MAYBE uint8_t *map_page(uint64_t va, uint64_t pa, unsigned level, uint64_t flags)
{
    *entry_of(va, level) = pa | flags | (level > 1 ? PG_PS : 0);
    invlpg((void *)va);
    return (uint8_t *)va;
}

MAYBE uint64_t phys(const volatile void *p)
{
    return (uintptr_t)p;
}

/* ---- Accesses ---------------------------------------------------------------------------------- */

ALONE struct trap try_read(const volatile void *p)
{
    return CATCH(asm volatile(LABEL(read_here) "movb (%0), %%al" ::"r"(p) : "rax", "memory"));
}

ALONE struct trap try_write(volatile void *p, uint8_t value)
{
    return CATCH(asm volatile(LABEL(write_here) "movb %b1, (%0)" ::"r"(p), "r"(value) : "memory"));
}

/* Calls `p`, where there should be a RET at least. */
ALONE struct trap try_call(const volatile void *p)
{
    return CATCH(asm volatile("call *%0" ::"r"(p) : "memory", "rax", "rcx", "rdx"));
}

/* The same at CPL 3; the guest's own pages are the user's, too. */
MAYBE word user_read_(word p)
{
    asm volatile(LABEL(user_read_here) "movb (%0), %%al" ::"r"(p) : "rax", "memory");
    return 0;
}
MAYBE word user_write_(word p)
{
    asm volatile(LABEL(user_write_here) "movb $0x5a, (%0)" ::"r"(p) : "memory");
    return 0;
}
MAYBE word user_call_(word p)
{
    asm volatile("call *%0" ::"r"(p) : "memory", "rax", "rcx", "rdx");
    return 0;
}
ALONE struct trap try_user(word (*fn)(word), const volatile void *p)
{
    return CATCH(call_user(fn, (word)p));
}

/* Was it this page fault? RF is set in the image that a fault saves (SDM vol. 3, 17.3.1.1). */
#define CHECK_PF(t, address, code, at)                                                             \
    do {                                                                                           \
        struct trap t_ = (t);                                                                      \
        CHECK_EQ(t_.vector, VECTOR_PF);                                                            \
        CHECK_EQ(t_.error, code);                                                                  \
        CHECK_EQ(t_.cr2, address);                                                                 \
        CHECK_EQ(t_.rip, at);                                                                      \
        CHECK_EQ(t_.rflags &FLAG_RF, FLAG_RF);                                                     \
    } while (0)
#define CHECK_NO_TRAP(t) CHECK_EQ((t).vector, NO_TRAP)

/* ---- What the processor has -------------------------------------------------------------------- */

enum { REG_EAX, REG_EBX, REG_ECX, REG_EDX };

MAYBE bool cpu_has(uint32_t leaf, unsigned reg, unsigned bit)
{
    uint32_t r[4];
    cpuid(leaf & 0x80000000, 0, r);
    if (r[0] < leaf)
        return false;
    cpuid(leaf, 0, r);
    return r[reg] >> bit & 1;
}
#define HAS_PCID()    cpu_has(1, REG_ECX, 17)
#define HAS_INVPCID() cpu_has(7, REG_EBX, 10)
#define HAS_SMEP()    cpu_has(7, REG_EBX, 7)
#define HAS_SMAP()    cpu_has(7, REG_EBX, 20)
#define HAS_PKU()     cpu_has(7, REG_ECX, 3)
#define HAS_GBPAGES() cpu_has(0x80000001, REG_EDX, 26)
#define REQUIRE(feature)                                                                           \
    do {                                                                                           \
        if (!(feature)) {                                                                          \
            print("  skipped: not %s\n", #feature);                                                \
            return;                                                                                \
        }                                                                                          \
    } while (0)

MAYBE unsigned physical_bits(void)
{
    uint32_t r[4];
    cpuid(0x80000008, 0, r);
    return r[0] & 0xff;
}

/* The first byte behind a page: the page behind is not present. Among the boot's own tables. */
static inline uint8_t *hole(void)
{
    static uint64_t table[512] __attribute__((aligned(4096)));
    static uint8_t page[4096] __attribute__((aligned(4096)));
    word at = 0x10000000;
    table[0] = (word)page | 7;
    boot_pd[at >> 21] = (word)table | 7;
    invlpg((void *)at);
    invlpg((void *)(at + 4096));
    return (uint8_t *)at + 4096; /* not present; the page below it is */
}

#endif
