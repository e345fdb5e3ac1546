/*
 * paging32.h - two-level page tables for 32-bit guests (SDM vol. 3, 4.3): everything mapped to
 * itself by 4-MiB pages, and one window of 4-KiB pages whose entries tests change.
 *
 *     paging_on();
 *     WINDOW_PTE(3) = 0;                     // not present
 *     invlpg(WINDOW(3));
 *
 * Included once per guest.
 */
#ifndef GUEST_PAGING32_H
#define GUEST_PAGING32_H

#include "guest.h"

enum { PG_P = 1, PG_W = 2, PG_U = 4, PG_A = 0x20, PG_D = 0x40, PG_PS = 0x80, PG_ALL = 7 };
enum { PF_P = 1, PF_W = 2, PF_U = 4 };
enum { WINDOW_PAGES = 8, WINDOW_BASE = 0x40000000 };

static uint32_t page_directory[1024] __attribute__((aligned(4096)));
static uint32_t window_table[1024] __attribute__((aligned(4096)));
static uint8_t window_ram[WINDOW_PAGES][4096] __attribute__((aligned(4096)));

/* Page n of the window, its entry, and the RAM behind it as the guest sees it elsewhere. */
#define WINDOW(n)     ((uint8_t *)(WINDOW_BASE + 4096u * (n)))
#define WINDOW_PTE(n) window_table[n]
#define BEHIND(n)     (window_ram[n])

static __attribute__((unused)) void window_set(unsigned n, uint32_t flags)
{
    WINDOW_PTE(n) = (uint32_t)(uintptr_t)window_ram[n] | flags;
    invlpg(WINDOW(n));
}

/* A directory with the window's table in it. */
static __attribute__((unused)) void directory_fill(uint32_t *directory, uint32_t *table)
{
    for (unsigned i = 0; i < 1024; i++)
        directory[i] = i << 22 | PG_ALL | PG_PS;
    directory[WINDOW_BASE >> 22] = (uint32_t)(uintptr_t)table | PG_ALL;
}

static __attribute__((unused)) void paging_on(void)
{
    directory_fill(page_directory, window_table);
    for (unsigned n = 0; n < WINDOW_PAGES; n++)
        window_set(n, PG_ALL);
    write_cr4(read_cr4() | 0x10); /* PSE */
    write_cr3((word)page_directory);
    write_cr0(read_cr0() | 0x80010000); /* PG, WP */
}
static __attribute__((unused)) void paging_off(void)
{
    write_cr0(read_cr0() & ~(word)0x80010000);
}

#endif
