/*
 * edges.c - what each kind of control transfer and memory access costs, one at a time.
 *
 * Built twice: as a bare-metal guest (tests/guests/lib), and with -DHOSTED as a program for the
 * host, which leaves out what needs privilege. Prints "NAME PICOSECONDS" per event. Each is
 * repeated until it has taken a tenth of a second, so that what happens once (translating) does not
 * show.
 */
#include <stdint.h>

#ifdef HOSTED
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define PAGES_AT ((uint8_t *)pages)
static uint8_t *pages;

static uint64_t now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}
#else
#include "machine.h"
#include "paging.h"

#define PAGES_AT ((uint8_t *)0x4000000) /* free RAM, above the image */

/* The HPET's counter: its period in femtoseconds is in its first register (IA-PC HPET 1.0a, 2.3.4).
 */
enum { HPET = 0xfed00000 };
static uint64_t now(void)
{
    static uint64_t high, last;
    if (!last)
        mmio_write32(HPET + 0x10, 1);
    uint64_t low = mmio_read32(HPET + 0xf0);
    if (low < (last & 0xffffffff))
        high += 1ull << 32;
    last = high | low | 1;
    return (high | low) * mmio_read32(HPET + 4) / 1000000;
}
#endif

enum { PAGES = 16384 };

/* A loop around `body`; `n` in RCX, `a` in RSI. */
#define LOOP(body, n, a)                                                                           \
    do {                                                                                           \
        uint64_t n_ = (n), a_ = (uint64_t)(a);                                                     \
        asm volatile(".p2align 6\n70: " body "\n dec %0; jnz 70b"                                  \
                     : "+c"(n_), "+S"(a_)::"rax", "rbx", "rdx", "rdi", "r8", "r9", "cc",           \
                       "memory");                                                                  \
    } while (0)

static void loop(uint64_t n)
{
    LOOP("", n, 0);
}

/* Sixteen jumps, each over the next one's neighbour, so that none falls through. */
static void direct(uint64_t n)
{
    LOOP(
        "jmp 1f; 2: jmp 3f; 4: jmp 5f; 6: jmp 7f; 8: jmp 9f; 10: jmp 11f; 12: jmp 13f; 14: jmp 15f;"
        "1: jmp 2b; 3: jmp 4b; 5: jmp 6b; 7: jmp 8b; 9: jmp 10b; 11: jmp 12b; 13: jmp 14b; 15: jmp "
        "16f; 16:",
        n, 0);
}

/* Two jumps, to the next page and back. */
static void direct_page(uint64_t n)
{
    LOOP("jmp 1f; 2: jmp 3f; .skip 4096, 0x90; 1: jmp 2b; 3:", n, 0);
}

static void indirect_same(uint64_t n)
{
    LOOP("lea 1f(%%rip), %%rax; jmp *%%rax; ud2; 1:", n, 0);
}

/* One jump that goes to eight places in turn. */
static void indirect_8(uint64_t n)
{
    LOOP("lea 1f(%%rip), %%rax; mov %%ecx, %%edx; and $7, %%edx; lea (%%rax,%%rdx,8), %%rax; jmp "
         "*%%rax;"
         ".p2align 3; 1: jmp 2f; .p2align 3; jmp 2f; .p2align 3; jmp 2f; .p2align 3; jmp 2f;"
         ".p2align 3; jmp 2f; .p2align 3; jmp 2f; .p2align 3; jmp 2f; .p2align 3; jmp 2f; .p2align "
         "3; 2:",
         n, 0);
}

asm(".pushsection .text\n.p2align 6\nedge_leaf: ret\n"
    "edge_deep: dec %edx; jz 1f; call edge_deep; 1: ret\n.popsection");

static void call_return(uint64_t n)
{
    LOOP("call edge_leaf", n, 0);
}

/* Sixteen calls inside each other, then sixteen returns. */
static void call_return_deep(uint64_t n)
{
    LOOP("mov $16, %%edx; call edge_deep", n, 0);
}

static void call_indirect(uint64_t n)
{
    LOOP("lea edge_leaf(%%rip), %%rax; call *%%rax", n, 0);
}

#define FOUR(what, a, b, c, d) what(a) what(b) what(c) what(d)
#define LOAD(offset)           "mov " #offset "(%%rsi), %%rax;"
#define STORE(offset)          "mov %%rax, " #offset "(%%rsi);"

static void load_hit(uint64_t n)
{
    LOOP(FOUR(LOAD, 0, 64, 128, 192) FOUR(LOAD, 256, 320, 384, 448), n, PAGES_AT);
}

static void store_hit(uint64_t n)
{
    LOOP(FOUR(STORE, 0, 64, 128, 192) FOUR(STORE, 256, 320, 384, 448), n, PAGES_AT);
}

/* Loads from 16384 pages in turn: more than a hashed table or the host's TLB has entries for. */
static void load_pages(uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        uint8_t *at = PAGES_AT + (i % PAGES) * 4096 + i % 64 * 64;
        asm volatile("mov (%0), %%rax" ::"r"(at) : "rax");
    }
}

#ifndef HOSTED
/* INVLPG by itself, and with a load behind it: a walk of the guest's tables and a new entry. Once
 * for a page of 4 KiB, once for one of 2 MiB, of which the loads above have used every part. */
static void invalidate(uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        asm volatile("invlpg (%0)" ::"r"(WINDOW) : "memory");
}

static void load_miss(uint64_t n)
{
    map_page(WINDOW, (uint64_t)PAGES_AT, 1, PG_ALL);
    for (uint64_t i = 0; i < n; i++)
        asm volatile("invlpg (%0); mov (%0), %%rax" ::"r"(WINDOW) : "rax", "memory");
}

static void load_miss_large(uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        asm volatile("invlpg (%0); mov (%0), %%rax" ::"r"(PAGES_AT) : "rax", "memory");
}

/* MOV to CR3 with its own value, then a load: what a change of address spaces costs at least. */
static void load_cr3(uint64_t n)
{
    word cr3 = read_cr3();
    for (uint64_t i = 0; i < n; i++) {
        write_cr3(cr3);
        asm volatile("mov (%0), %%rax" ::"r"(WINDOW) : "rax", "memory");
    }
}

/* A page-table entry changed, its page invalidated and used: what mmap() and fork() do. */
static void change_entry(uint64_t n)
{
    uint64_t *entry = entry_of(WINDOW, 1), pa = (uint64_t)PAGES_AT;
    for (uint64_t i = 0; i < n; i++) {
        *(volatile uint64_t *)entry = (pa + i % 2 * 4096) | PG_ALL;
        asm volatile("invlpg (%0); mov %%rax, (%0)" ::"r"(WINDOW) : "memory");
    }
}

static void mmio_read(uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        apic_read(APIC_ID);
}

static void port_read(uint64_t n)
{
    for (uint64_t i = 0; i < n; i++)
        inb(0x21);
}

/* The processor interrupts itself through its local APIC; delivery, EOI, IRET. */
static void interrupt(uint64_t n)
{
    count_hits(0x80, 0x80, apic_eoi);
    for (uint64_t i = 0; i < n; i++) {
        unsigned before = hits[0x80];
        apic_write(APIC_ICR, 0x40080);
        INTERRUPTS_ON();
        while (hits[0x80] == before)
            asm volatile("pause");
        INTERRUPTS_OFF();
    }
}

/* INT n, handler, IRET, all at CPL 0. */
static void software_interrupt(uint64_t n)
{
    count_hits(0x81, 0x81, 0);
    for (uint64_t i = 0; i < n; i++)
        asm volatile("int $0x81" ::: "memory");
}
#endif

static const struct {
    const char *name;
    unsigned per; /* events in one round */
    void (*run)(uint64_t n);
} edges[] = {
    {"loop", 1, loop},
    {"direct", 16, direct},
    {"direct_other_page", 2, direct_page},
    {"indirect_one_target", 1, indirect_same},
    {"indirect_8_targets", 1, indirect_8},
    {"call_return", 1, call_return},
    {"call_return_16_deep", 16, call_return_deep},
    {"call_indirect_return", 1, call_indirect},
    {"load_hit", 8, load_hit},
    {"store_hit", 8, store_hit},
    {"load_of_16384_pages", 1, load_pages},
#ifndef HOSTED
    {"load_miss", 1, load_miss},
    {"load_miss_2m_page", 1, load_miss_large},
    {"invlpg", 1, invalidate},
    {"mov_cr3_load", 1, load_cr3},
    {"change_pte_store", 1, change_entry},
    {"mmio_read", 1, mmio_read},
    {"port_read", 1, port_read},
    {"interrupt", 1, interrupt},
    {"software_interrupt", 1, software_interrupt},
#endif
};

static uint64_t picoseconds(unsigned i)
{
    enum { LONG_ENOUGH = 100000000 }; /* ns */
    for (uint64_t n = 1000;; n *= 4) {
        uint64_t start = now();
        edges[i].run(n);
        uint64_t took = now() - start;
        if (took >= LONG_ENOUGH)
            return took * 1000 / n / edges[i].per;
    }
}

#ifdef HOSTED
int main(void)
{
    pages = aligned_alloc(1 << 21, PAGES * 4096ul);
    if (!pages)
        return 1;
    for (unsigned i = 0; i < PAGES * 4096u; i += 4096)
        pages[i] = 1;
    for (unsigned i = 0; i < sizeof(edges) / sizeof(edges[0]); i++)
        printf("%s %llu\n", edges[i].name, (unsigned long long)picoseconds(i));
    return 0;
}
#else
TEST(all_edges)
{
    apic_quiet();
    for (unsigned i = 0; i < sizeof(edges) / sizeof(edges[0]); i++)
        print("%s %lu\n", edges[i].name, (unsigned long)picoseconds(i));
}

const struct test guest_tests[] = {T(all_edges), {0, 0}};
#endif
