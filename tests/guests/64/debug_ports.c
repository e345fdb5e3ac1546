/*
 * debug_ports.c - the debug console and isa-debug-exit: a value v ends the program with status
 * 2 v + 1 (QEMU's devices of these names).
 *
 * guest exit: 171
 * guest prints: what is written to E9h comes out
 */
#include "machine.h"

TEST(debugcon)
{
    CHECK_EQ(inb(0xe9), 0xe9); /* that is how it is found */
    for (const char *s = "what is written "; *s; s++)
        outb(0xe9, (uint8_t)*s);
    static const char text[] = "to E9h comes out\n";
    const char *from = text;
    word n = sizeof(text) - 1;
    asm volatile("rep outsb" : "+S"(from), "+c"(n) : "d"(0xe9) : "memory");
    CHECK_EQ(n, 0);
}

TEST(exit_port_can_be_read)
{
    inb(0x501);
    inb(0x501);
}

TEST(exit_status)
{
    if (all_passed())
        outb(0x501, 85);
    CHECK(!"still here");
}

const struct test guest_tests[] = {T(debugcon), T(exit_port_can_be_read), T(exit_status), {0, 0}};
