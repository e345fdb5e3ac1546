/*
 * a20.c - the A20 gate: with it closed bit 20 of every physical address is 0, whoever puts it out:
 * loads, stores, code, page walks. Closed and opened by port 92h and by the keyboard controller, of
 * which either opens what the other has closed (PS/2 Technical Reference, system control port A).
 *
 * While it is closed the guest's own image, which is in the second MiB, is gone: the code that runs
 * then, and its stack and tables, are copied to the fifth.
 */
#include "machine.h"

#define EVEN 0x400000u /* code and stack, while the gate is closed */

enum { LOW = 0x200000, HIGH = 0x300000 }; /* one address with the gate closed */

/* ---- What is copied: no calls but to itself, no data but by its argument ------------------------
 */

struct work {
    uint32_t by_keyboard;               /* which gate to close */
    uint32_t open_by_keyboard;          /* which one opens it */
    uint32_t at_low, at_high, at_mixed; /* what was read while it was closed */
    uint32_t code;                      /* what the code at HIGH returned */
    uint32_t paged_low, paged_high;     /* read through page tables, with the gate closed */
    uint32_t paging;                    /* CR3; 0: not */
};

#define IN_COPY static __attribute__((section("copy"), noinline, used))

IN_COPY void copy_out(uint16_t port, uint8_t v)
{
    asm volatile("outb %0, %1" ::"a"(v), "d"(port));
}

IN_COPY uint8_t copy_in(uint16_t port)
{
    uint8_t v;
    asm volatile("inb %1, %0" : "=a"(v) : "d"(port));
    return v;
}

IN_COPY void copy_gate(uint32_t by_keyboard, uint32_t open)
{
    if (!by_keyboard) {
        copy_out(0x92, open ? 2 : 0);
        return;
    }
    copy_out(0x64, 0xd1); /* write the output port: A20 and no reset */
    copy_out(0x60, open ? 3 : 1);
    (void)copy_in(0x64);
}

IN_COPY void copy_main(struct work *w)
{
    copy_gate(w->by_keyboard, 0);
    *(volatile uint32_t *)HIGH = 0x11111111; /* goes to LOW */
    w->at_low = *(volatile uint32_t *)LOW;
    *(volatile uint32_t *)LOW = 0x22222222;
    w->at_high = *(volatile uint32_t *)HIGH;
    *(volatile uint32_t *)(LOW + 0x100000 - 2) = 0x33334444; /* its end is at LOW again */
    w->at_mixed = *(volatile uint32_t *)LOW;
    w->code = ((uint32_t(*)(void))(HIGH + 0x1000))();
    if (w->paging) {
        asm volatile(
            "mov %0, %%cr3; mov %%cr0, %%eax; or $0x80000000, %%eax; mov %%eax, %%cr0" ::"r"(
                w->paging)
            : "eax", "memory");
        w->paged_low = *(volatile uint32_t *)(0x40000000 + LOW + 0x10);
        w->paged_high = *(volatile uint32_t *)(0x40000000 + HIGH + 0x10);
        asm volatile("mov %%cr0, %%eax; and $0x7fffffff, %%eax; mov %%eax, %%cr0" ::
                         : "eax", "memory");
    }
    copy_gate(w->open_by_keyboard, 1);
}

/* ---- Here the gate is open ----------------------------------------------------------------------
 */

static void run_copy(struct work *w)
{
    static const uint8_t returns_1[] = {0xb8, 1, 0, 0, 0, 0xc3},
                         returns_2[] = {0xb8, 2, 0, 0, 0, 0xc3};
    extern char __start_copy[], __stop_copy[];
    memcpy((void *)EVEN, __start_copy, (size_t)(__stop_copy - __start_copy));
    memset((void *)LOW, 0, 0x20);
    memset((void *)HIGH, 0, 0x20);
    *(volatile uint32_t *)(LOW + 0x10) = 0x77;
    *(volatile uint32_t *)(HIGH + 0x10) = 0x88;
    memcpy((void *)(LOW + 0x1000), returns_1, 6);
    memcpy((void *)(HIGH + 0x1000), returns_2, 6);
    /* the copied code has its argument and its stack in an even MiB, too */
    struct work *there = (void *)(EVEN + 0x20000);
    *there = *w;
    void (*fn)(struct work *) = (void *)(EVEN + ((uintptr_t)copy_main - (uintptr_t)__start_copy));
    asm volatile("mov %%esp, %%ebx; mov %0, %%esp; push %1; call *%2; mov %%ebx, %%esp" ::"r"(
                     EVEN + 0x30000),
                 "r"(there), "r"(fn)
                 : "eax", "ebx", "ecx", "edx", "memory", "cc");
    *w = *there;
}

static void check_open(void)
{
    *(volatile uint32_t *)LOW = 5;
    *(volatile uint32_t *)HIGH = 6;
    CHECK_EQ(*(volatile uint32_t *)LOW, 5);
    CHECK_EQ(*(volatile uint32_t *)HIGH, 6);
    CHECK_EQ(((uint32_t(*)(void))(LOW + 0x1000))(), 1);
    CHECK_EQ(((uint32_t(*)(void))(HIGH + 0x1000))(), 2);
}

static void check_closed(const struct work *w)
{
    CHECK_EQ(w->at_low, 0x11111111);
    CHECK_EQ(w->at_high, 0x22222222);
    CHECK_EQ(w->at_mixed, 0x22223333);
    CHECK_EQ(w->code, 1);
    check_open();
}

TEST(open_at_the_start)
{
    CHECK_EQ(inb(0x92) & 2, 2);
    outb(0x64, 0xd0); /* read the output port */
    while (!(inb(0x64) & 1))
        asm volatile("pause");
    CHECK_EQ(inb(0x60) & 3, 3);
}

TEST(by_port_92)
{
    struct work w = {0};
    run_copy(&w);
    check_closed(&w);
}

TEST(by_the_keyboard_controller)
{
    struct work w = {.by_keyboard = 1, .open_by_keyboard = 1};
    run_copy(&w);
    check_closed(&w);
}

TEST(either_opens_what_the_other_closed)
{
    struct work w = {.by_keyboard = 1};
    run_copy(&w);
    check_closed(&w);
    w = (struct work){.open_by_keyboard = 1};
    run_copy(&w);
    check_closed(&w);
}

TEST(again_and_again)
{
    for (unsigned i = 0; i < 50; i++) {
        struct work w = {.by_keyboard = i & 1, .open_by_keyboard = i >> 1 & 1};
        run_copy(&w);
        check_closed(&w);
    }
}

/* Bit 20 goes after translation, and from the addresses of the tables themselves. */
TEST(page_walks)
{
    uint32_t *pd = (void *)(EVEN + 0x40000), *pt = (void *)(EVEN + 0x41000);
    uint32_t *decoy = (void *)(EVEN + 0x141000); /* the same page, but for bit 20 */
    memset(pd, 0, 4096);
    memset(decoy, 0, 4096);
    write_cr4(read_cr4() | 0x10);
    pd[EVEN >> 22] = EVEN | 0x83;
    pd[0] = 0x83; /* LOW and HIGH, as they are */
    pd[0x40000000 >> 22] = (uint32_t)(uintptr_t)decoy | 3;
    for (unsigned i = 0; i < 1024; i++)
        pt[i] = i << 12 | 3;
    struct work w = {.paging = (uint32_t)(uintptr_t)pd + 0x100000};
    memset((void *)(EVEN + 0x140000), 0, 4096); /* CR3 points here, with the gate open */
    run_copy(&w);
    CHECK_EQ(w.paged_low, 0x77);
    CHECK_EQ(w.paged_high, 0x77);
    check_closed(&w);
}

TEST(second_mib_is_back)
{
    static volatile uint32_t here = 0x12345678; /* in the image, at 1 MiB */
    struct work w = {0};
    run_copy(&w);
    CHECK_EQ(here, 0x12345678);
}

const struct test guest_tests[] = {T(open_at_the_start),
                                   T(by_port_92),
                                   T(by_the_keyboard_controller),
                                   T(either_opens_what_the_other_closed),
                                   T(again_and_again),
                                   T(page_walks),
                                   T(second_mib_is_back),
                                   {0, 0}};
