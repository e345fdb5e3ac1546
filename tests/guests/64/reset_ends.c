/*
 * reset_ends.c - with -no-reboot a reset ends the program, with status 0.
 *
 * guest exit: 0
 * guest prints: resetting
 */
#include "machine.h"

TEST(reset)
{
    print("resetting\n");
    outb(0xcf9, 2);
    outb(0xcf9, 6);
    for (unsigned i = 0; i < 50; i++)
        pit_wait(60000);
    CHECK(!"still here");
}

const struct test guest_tests[] = {T(reset), {0, 0}};
