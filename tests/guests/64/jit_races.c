/*
 * jit_races.c - what another processor does at the wrong moment: it changes a divisor, interrupts
 * behind STI, changes the entry of a page that is about to be flushed.
 * guest options: -smp 2
 */
#include "context.h"
#include "machine.h"
#include "paging.h"

static volatile bool stop;
static volatile unsigned seen, wrong;

static void stop_the_other(unsigned done_before)
{
    stop = true;
    while (cpus_done == done_before)
        asm volatile("pause");
}

/* ---- Division -------------------------------------------------------------------------------- */

static volatile uint32_t divisor[16] __attribute__((aligned(64)));

static void change_divisor(unsigned id)
{
    while (!stop)
        for (unsigned i = 0; i < 1000; i++) {
            for (volatile unsigned k = i % 13; k; k--)
                ;
            divisor[0] = 0;
            for (volatile unsigned k = i % 7; k; k--)
                ;
            divisor[0] = 1;
        }
}

static bool on_divide_error(struct frame *f)
{
    f->rip += 2;
    return true;
}

/* #DE is the guest's, whatever the divisor is at which moment. */
TEST(divisor_that_changes)
{
    unsigned done = cpus_done;
    trap_handlers[V_DE] = on_divide_error;
    stop = false;
    CHECK(start_cpu(1, change_divisor));
    for (unsigned i = 0; i < 300000; i++) {
        uint32_t low = 7, high = 0;
        asm volatile("divl (%2)" : "+a"(low), "+d"(high) : "r"(&divisor[0]) : "memory", "cc");
        low = 7, high = 0;
        asm volatile("idivl (%2)" : "+a"(low), "+d"(high) : "r"(&divisor[0]) : "memory", "cc");
    }
    stop_the_other(done);
    trap_handlers[V_DE] = 0;
}

/* ---- The shadow of STI ----------------------------------------------------------------------- */

enum { VECTOR = 0x51 };

static bool on_interrupt(struct frame *f)
{
    seen++;
    wrong += f->rip == SYMBOL(in_the_shadow);
    apic_write(APIC_EOI, 0);
    return true;
}

static void interrupt_the_first(unsigned id)
{
    apic_write(APIC_SVR, 0x1ff);
    for (unsigned sent = 0; !stop; sent++) {
        unsigned before = seen;
        apic_write(APIC_ICR_HIGH, 0);
        apic_write(APIC_ICR, 0x4000 | VECTOR);
        for (unsigned k = 0; k < 100000 && seen == before && !stop; k++)
            ;
        for (volatile unsigned k = sent % 37; k; k--)
            ;
    }
}

TEST(nothing_comes_between_sti_and_serialize)
{
    unsigned done = cpus_done;
    if (!cpu_has(7, REG_EDX, 14)) /* SERIALIZE */
        return;
    asm volatile("cli; mov %0, %%cr8" ::"r"(0ul));
    apic_quiet();
    trap_handlers[VECTOR] = on_interrupt;
    stop = false, seen = wrong = 0;
    CHECK(start_cpu(1, interrupt_the_first));
    for (unsigned i = 0; i < 300000 && !wrong; i++)
        asm volatile("sti\n" LABEL(in_the_shadow) ".byte 0x0f, 0x01, 0xe8; nop; cli" ::
                         : "memory", "cc");
    stop_the_other(done);
    CHECK_EQ(wrong, 0);
}

/* ---- Page tables ----------------------------------------------------------------------------- */

enum { FLUSHES = 3000, PAGES = 300, BY_CR3 = 0, BY_ONE_CONTEXT = 1, BY_ALL_CONTEXTS = 3 };
static uint8_t frames[2][4096] __attribute__((aligned(4096)));
static volatile unsigned ready, checked, by;

static void flush(void)
{
    const struct {
        uint64_t pcid, address;
    } what = {0, 0};
    if (by == BY_CR3)
        write_cr3(read_cr3());
    else
        asm volatile("invpcid %1, %0" ::"r"((word)by), "m"(what) : "memory");
}

static void touch_all(void)
{
    for (unsigned i = 0; i < PAGES; i++)
        (void)*(volatile uint8_t *)(WINDOW + i * PAGE);
}

static uint64_t frame_of_entry(void)
{
    return *(volatile uint64_t *)entry_of(WINDOW, 1) & ~0xffful;
}

/* Waits until the entry in memory is another one, flushes, and reads through it. */
static void flush_and_read(unsigned id)
{
    for (unsigned i = 0; i < 40; i++) { /* so that tables are watched instead of flushed */
        write_cr3(read_cr3());
        touch_all();
    }
    for (unsigned i = 1; i <= FLUSHES; i++) {
        if (i % 4 == 0) {
            write_cr3(read_cr3());
            touch_all();
        }
        uint64_t before = frame_of_entry();
        (void)*(volatile uint8_t *)WINDOW;
        ready = i;
        while (frame_of_entry() == before)
            ;
        flush();
        uint8_t got = *(volatile uint8_t *)WINDOW;
        wrong += got != (frame_of_entry() == phys(frames[1]));
        checked = i;
    }
}

static void change_the_entry(unsigned how)
{
    unsigned done = cpus_done;
    paging_reset();
    memset(frames[1], 1, sizeof frames[1]);
    for (unsigned i = 0; i < PAGES; i++)
        map_page(WINDOW + i * PAGE, phys(frames[0]), 1, PG_ALL);
    by = how, ready = checked = wrong = 0;
    CHECK(start_cpu(1, flush_and_read));
    for (unsigned i = 1; i <= FLUSHES; i++) {
        while (ready < i)
            asm volatile("pause");
        for (volatile unsigned k = i % 32; k; k--)
            ;
        *(volatile uint64_t *)entry_of(WINDOW, 1) = phys(frames[i & 1]) | PG_ALL;
        while (checked < i)
            asm volatile("pause");
    }
    while (cpus_done == done)
        asm volatile("pause");
    CHECK_EQ(wrong, 0);
}

TEST(entry_changes_before_mov_cr3)
{
    change_the_entry(BY_CR3);
}
TEST(entry_changes_before_invpcid)
{
    if (!HAS_INVPCID())
        return;
    change_the_entry(BY_ONE_CONTEXT);
    change_the_entry(BY_ALL_CONTEXTS);
}

const struct test guest_tests[] = {T(divisor_that_changes),
                                   T(nothing_comes_between_sti_and_serialize),
                                   T(entry_changes_before_mov_cr3),
                                   T(entry_changes_before_invpcid),
                                   {0, 0}};
