/*
 * smp.c - two processors: INIT/SIPI, locked instructions, store order, IPIs, self-modifying and
 * cross-modifying code, TLB shootdown (SDM vol. 3, 9.1-9.4, 8.4, 11.6).
 *
 * guest options: -smp 2
 */
#include "guest.h"

enum { ROUNDS = 20000, LAPIC = 0xfee00000 };

static volatile uint32_t counter, turn, stop;
static volatile uint64_t wide[2] __attribute__((aligned(64)));
static uint8_t line_crosser[256] __attribute__((aligned(64)));

static void wait_for(volatile uint32_t *word, uint32_t value)
{
    while (*word != value)
        asm volatile("pause");
}

/* Runs a() on the other processor while b() runs here. */
static void together(void (*a)(unsigned), void (*b)(void))
{
    unsigned before = cpus_done;
    CHECK(start_cpu(1, a));
    b();
    while (cpus_done == before)
        asm volatile("pause");
}

static void add_many(unsigned id)
{
    for (int i = 0; i < ROUNDS; i++)
        asm volatile("lock incl %0" : "+m"(counter));
}

static void add_many_here(void)
{
    add_many(0);
}

TEST(locked_increments_are_never_lost)
{
    counter = 0;
    together(add_many, add_many_here);
    CHECK_EQ(counter, 2 * ROUNDS);
}

/* A locked access that crosses a cache line is still atomic (SDM vol. 3, 9.1.2). */
static void add_across_lines(unsigned id)
{
    for (int i = 0; i < ROUNDS / 4; i++)
        asm volatile("lock addq $1, %0" : "+m"(*(uint64_t *)(line_crosser + 60)));
}

static void add_across_lines_here(void)
{
    add_across_lines(0);
}

TEST(locked_access_across_a_cache_line)
{
    memset(line_crosser, 0, sizeof(line_crosser));
    together(add_across_lines, add_across_lines_here);
    CHECK_EQ(*(uint64_t *)(line_crosser + 60), 2 * (ROUNDS / 4));
}

/* XCHG locks without a prefix: a spin lock out of it protects a plain counter. */
static volatile uint32_t spin, plain;
static void spin_many(unsigned id)
{
    for (int i = 0; i < ROUNDS / 4; i++) {
        uint32_t one;
        do {
            one = 1;
            asm volatile("xchg %0, %1" : "+r"(one), "+m"(spin)::"memory");
            if (one)
                asm volatile("pause");
        } while (one);
        plain = plain + 1;
        asm volatile("" ::: "memory");
        spin = 0;
    }
}

static void spin_many_here(void)
{
    spin_many(0);
}

TEST(xchg_makes_a_lock)
{
    plain = spin = 0;
    together(spin_many, spin_many_here);
    CHECK_EQ(plain, 2 * (ROUNDS / 4));
}

static void cmpxchg16_many(unsigned id)
{
    for (int i = 0; i < ROUNDS / 4; i++) {
        uint64_t lo = wide[0], hi = wide[1];
        uint8_t done;
        do {
            asm volatile("mov %[lo], %%rbx; add $1, %%rbx; mov %[hi], %%rcx; add $2, %%rcx\n"
                         "lock cmpxchg16b %[m]; setz %[done]"
                         : [m] "+m"(*(__int128 *)wide), "+a"(lo), "+d"(hi), [done] "=&r"(done)
                         : [lo] "r"(lo), [hi] "r"(hi)
                         : "rbx", "rcx", "memory");
        } while (!done);
    }
}

static void cmpxchg16_many_here(void)
{
    cmpxchg16_many(0);
}

TEST(cmpxchg16b_changes_both_halves_at_once)
{
    wide[0] = wide[1] = 0;
    together(cmpxchg16_many, cmpxchg16_many_here);
    CHECK_EQ(wide[0], 2 * (ROUNDS / 4));
    CHECK_EQ(wide[1], 4 * (ROUNDS / 4));
}

/* Message passing: stores of one processor are seen in order (SDM vol. 3, 9.2.3.2). */
static volatile uint32_t payload, flag, order_errors;
static void sender(unsigned id)
{
    for (uint32_t i = 1; i <= ROUNDS; i++) {
        payload = i;
        flag = i;
    }
}

static void receiver(void)
{
    uint32_t seen;
    do {
        seen = flag;
        if (payload < seen)
            order_errors++;
    } while (seen != ROUNDS);
}

TEST(stores_are_seen_in_order)
{
    payload = flag = order_errors = 0;
    together(sender, receiver);
    CHECK_EQ(order_errors, 0);
}

/* The other processor patches a function; this one serialises with CPUID and must run the new
 * bytes. */
static uint8_t patch_area[4096] __attribute__((aligned(4096)));
static void patcher(unsigned id)
{
    for (uint32_t i = 1; i <= 200; i++) {
        *(volatile uint32_t *)(patch_area + 1) = i; /* mov $i, %eax */
        turn = i;
        wait_for(&stop, i);
    }
}

static void runner(void)
{
    uint32_t (*fn)(void) = (uint32_t(*)(void))patch_area;
    for (uint32_t i = 1; i <= 200; i++) {
        uint32_t r[4];
        wait_for(&turn, i);
        cpuid(0, 0, r);
        CHECK_EQ(fn(), i);
        stop = i;
    }
}

TEST(cross_modified_code_is_seen_after_serialising)
{
    static const uint8_t code[] = {0xb8, 0, 0, 0, 0, 0xc3};
    memcpy(patch_area, code, sizeof(code));
    turn = stop = 0;
    together(patcher, runner);
}

/* TLB shootdown: the other processor uses a mapping; this one removes it, interrupts it, and it
 * must fault from then on. The other's handler does INVLPG, as an operating system's would. */
static volatile uint32_t ipis, touching, faulted;
static uint8_t *const window = (uint8_t *)0x40000000;

static bool shootdown_ipi(struct frame *f)
{
    invlpg(window);
    ipis++;
    mmio_write32(LAPIC + 0xb0, 0);
    return true;
}

static bool window_fault(struct frame *f)
{
    faulted = 1;
    f->rip += 3; /* the three bytes of the store below */
    return true;
}

static void toucher(unsigned id)
{
    mmio_write32(LAPIC + 0xf0, 0x1ff);
    asm volatile("sti");
    while (!faulted) {
        asm volatile(".byte 0xc6, 0x07, 0x01" ::"D"(window) : "memory"); /* movb $1, (%rdi) */
        touching++;
    }
    asm volatile("cli");
}

static void remover(void)
{
    while (touching < 1000)
        asm volatile("pause");
    boot_pd[(uintptr_t)window >> 21] = 0; /* the boot tables map 4 GiB by 2-MiB pages */
    mmio_write32(LAPIC + 0x310, 1u << 24);
    mmio_write32(LAPIC + 0x300, 0x4000 | 0x50);
    while (!ipis)
        asm volatile("pause");
    for (uint64_t end = rdtsc() + 5000000000ull; !faulted && rdtsc() < end;)
        asm volatile("pause");
}

TEST(tlb_shootdown_by_ipi)
{
    uint64_t saved = boot_pd[(uintptr_t)window >> 21];
    boot_pd[(uintptr_t)window >> 21] = 0x200000 | 0x87; /* alias of the second 2 MiB of RAM */
    invlpg(window);
    trap_handlers[0x50] = shootdown_ipi;
    trap_handlers[14] = window_fault;
    ipis = touching = faulted = 0;
    together(toucher, remover);
    CHECK_EQ(ipis, 1);
    CHECK_EQ(faulted, 1);
    trap_handlers[14] = 0;
    boot_pd[(uintptr_t)window >> 21] = saved;
    invlpg(window);
}

const struct test guest_tests[] = {T(locked_increments_are_never_lost),
                                   T(locked_access_across_a_cache_line),
                                   T(xchg_makes_a_lock),
                                   T(cmpxchg16b_changes_both_halves_at_once),
                                   T(stores_are_seen_in_order),
                                   T(cross_modified_code_is_seen_after_serialising),
                                   T(tlb_shootdown_by_ipi),
                                   {0, 0}};
