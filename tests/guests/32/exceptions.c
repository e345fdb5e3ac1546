/*
 * exceptions.c - exceptions of single instructions in flat 32-bit protected mode.
 */
#include "guest.h"

TEST(divide_overflow)
{
    struct trap t = CATCH(asm volatile(LABEL(div_here) "divl %2" ::"a"(0), "d"(2), "r"(1)));
    CHECK_EQ(t.vector, 0);
    CHECK_EQ(t.rip, SYMBOL(div_here));
}

TEST(bound_range)
{
    static const int bounds[2] = {1, 5};
    struct trap t = CATCH(asm volatile(LABEL(bound_here) "bound %0, %1" ::"r"(6), "m"(bounds)));
    CHECK_EQ(t.vector, 5);
    CHECK_EQ(t.rip, SYMBOL(bound_here));
}

TEST(into_is_a_trap)
{
    struct trap t =
        CATCH(asm volatile("mov $0x7f, %%al; add $1, %%al; into\n" LABEL(after_into) "nop" ::
                               : "eax"));
    CHECK_EQ(t.vector, 4);
    CHECK_EQ(t.rip, SYMBOL(after_into));
}

static word at_cpl3(word arg)
{
    asm volatile(LABEL(hlt_here) "hlt");
    return arg;
}

TEST(hlt_at_cpl_3)
{
    struct trap t = CATCH(call_user(at_cpl3, 0));
    CHECK_EQ(t.vector, 13);
    CHECK_EQ(t.error, 0);
    CHECK_EQ(t.rip, SYMBOL(hlt_here));
    CHECK_EQ(t.cs, SEL_UCODE);
}

const struct test guest_tests[] = {
    T(divide_overflow), T(bound_range), T(into_is_a_trap), T(hlt_at_cpl_3), {0, 0}};
