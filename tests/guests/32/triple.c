/*
 * triple.c - a fault on the way to the double fault's handler shuts the processor down, and that
 * resets the machine: here the reset ends it, with -no-reboot (SDM vol. 3, 6.15, interrupt 8).
 *
 * guest exit: 0
 * guest prints: at the third fault
 */
#include "guest.h"

TEST(shutdown_ends_the_machine)
{
    struct __attribute__((packed)) {
        uint16_t limit;
        uint32_t base;
    } none = {0, 0};
    print("at the third fault\n");
    asm volatile("lidt %0; ud2" ::"m"(none));
}

const struct test guest_tests[] = {T(shutdown_ends_the_machine), {0, 0}};
