/*
 * panic.c - pvpanic: what it can report, a crash kernel that goes on, and a panic that ends the
 * program (QEMU's docs/specs/pvpanic).
 *
 * guest options: -device pvpanic
 * guest exit: 0
 * guest prints: panic!
 */
#include "machine.h"

enum { PANIC = 0x505, PANICKED = 1, CRASH_LOADED = 2 };

TEST(what_it_can)
{
    CHECK_EQ(inb(PANIC) & (PANICKED | CRASH_LOADED), PANICKED | CRASH_LOADED);
}

TEST(goes_on)
{
    outb(PANIC, CRASH_LOADED);
    outb(PANIC, 0);
    pit_wait(1000);
}

TEST(panics)
{
    if (!all_passed())
        return;
    print("panic!\n");
    outb(PANIC, PANICKED);
    for (unsigned i = 0; i < 50; i++)
        pit_wait(60000);
    CHECK(!"still here");
}

const struct test guest_tests[] = {T(what_it_can), T(goes_on), T(panics), {0, 0}};
