/*
 * exceptions.c - exceptions of single instructions in 64-bit mode: vector, error code, saved RIP
 * and RFLAGS (SDM vol. 3, 6.5, 6.15, 17.3.1.1).
 */
#include "guest.h"

TEST(divide_by_zero)
{
    struct trap t = CATCH(asm volatile("xor %%ecx, %%ecx\n" LABEL(div_here) "div %%ecx" ::
                                           : "eax", "ecx", "edx"));
    CHECK_EQ(t.vector, 0);
    CHECK_EQ(t.rip, SYMBOL(div_here));
    CHECK_EQ(t.cs, SEL_CODE);
    CHECK_EQ(t.rflags & 0x10000, 0x10000); /* RF is set in the image that a fault saves */
}

TEST(undefined_opcode)
{
    struct trap t = CATCH(asm volatile(LABEL(ud_here) "ud2"));
    CHECK_EQ(t.vector, 6);
    CHECK_EQ(t.rip, SYMBOL(ud_here));
}

TEST(breakpoint_is_a_trap)
{
    struct trap t = CATCH(asm volatile("int3\n" LABEL(after_int3) "nop"));
    CHECK_EQ(t.vector, 3);
    CHECK_EQ(t.rip, SYMBOL(after_int3));
    CHECK_EQ(t.rflags & 0x10000, 0);
}

TEST(non_canonical_is_gp)
{
    struct trap t = CATCH(asm volatile(LABEL(gp_here) "mov (%0), %%al" ::"r"(0x800000000000ull)
                                       : "eax"));
    CHECK_EQ(t.vector, 13);
    CHECK_EQ(t.error, 0);
    CHECK_EQ(t.rip, SYMBOL(gp_here));
}

TEST(null_and_bad_selector)
{
    struct trap t = CATCH(asm volatile("mov %w0, %%ds" ::"r"(0x1f8)));
    CHECK_EQ(t.vector, 13);
    CHECK_EQ(t.error, 0x1f8);
}

static word at_cpl3(word arg)
{
    asm volatile(LABEL(cli_here) "cli");
    return arg;
}

TEST(cli_at_cpl_3)
{
    struct trap t = CATCH(call_user(at_cpl3, 0));
    CHECK_EQ(t.vector, 13);
    CHECK_EQ(t.error, 0);
    CHECK_EQ(t.rip, SYMBOL(cli_here));
    CHECK_EQ(t.cs, SEL_UCODE);
    CHECK_EQ(t.ss, SEL_UDATA);
}

static word add_one(word arg)
{
    return arg + 1;
}

TEST(user_call_returns)
{
    CHECK_EQ(call_user(add_one, 41), 42);
}

const struct test guest_tests[] = {
    T(divide_by_zero),        T(undefined_opcode), T(breakpoint_is_a_trap), T(non_canonical_is_gp),
    T(null_and_bad_selector), T(cli_at_cpl_3),     T(user_call_returns),    {0, 0}};
