/*
 * jit_chain.c - instructions in a row that a translator has none of its own for, so that it may
 * execute several at once: what becomes of the second one must not depend on the first.
 */
#include "paging.h"

enum { VECTOR_MF = 16, TIMES = 6 };

static int64_t one = 1, two = 2;

/* How many registers are in use; then none is. */
static unsigned depth_of_stack(void)
{
    uint16_t status;
    asm volatile("fnstsw %0; fninit" : "=a"(status));
    return (8 - (status >> 11 & 7)) & 7;
}

TEST(values)
{
    int64_t got;
    uint32_t low, high;
    for (unsigned i = 0; i < TIMES; i++) {
        one = i;
        asm volatile(
            "fninit; fildll %1; fildll %2; faddp; fildll %2; fmulp; fld1; fsubrp; fistpll %0"
            : "=m"(got)
            : "m"(one), "m"(two));
        CHECK_EQ(got == 1 - (i + 2) * 2 || got == (i + 2) * 2 - 1, 1);
        asm volatile("fninit; fildll %1; fildll %2; fprem; fnstsw %%ax; fstp %%st(1); fistpll %0"
                     : "=m"(got)
                     : "m"(two), "m"(one)
                     : "rax");
        CHECK_EQ(got, i & 1);
        asm volatile("cpuid; cpuid; cpuid" : "=a"(low), "=d"(high) : "a"(0), "c"(0) : "rbx");
        CHECK_EQ(low != 0 || high != 0, 1);
    }
}

/* One of three loads is from a page that is not there; those before it have been done. */
TEST(fault_in_the_middle)
{
    paging_reset();
    map_page(WINDOW, FREE_RAM, 1, PG_P | PG_W);
    *(int64_t *)WINDOW = 5;
    for (unsigned bad = 0; bad < 4; bad++)
        for (unsigned i = 0; i < TIMES; i++) {
            int64_t *at[3] = {(int64_t *)WINDOW, (int64_t *)WINDOW, (int64_t *)WINDOW};
            word begin;
            if (bad < 3)
                at[bad] = (int64_t *)(WINDOW + PAGE + 8 * bad);
            asm volatile("fninit; lea 1f(%%rip), %0" : "=r"(begin));
            struct trap t = CATCH(({
                asm volatile("1: fildll (%0); fildll (%1); fildll (%2)"
                             :
                             : "r"(at[0]), "r"(at[1]), "r"(at[2]));
            }));
            unsigned depth = depth_of_stack();
            CHECK_EQ(t.vector, bad < 3 ? VECTOR_PF : NO_TRAP);
            CHECK_EQ(depth, bad);
            if (bad < 3) {
                CHECK_EQ(t.cr2, (word)at[bad]);
                CHECK_EQ(t.rip, begin + 2 * bad);
            }
        }
}

/* An unmasked exception is reported by the next instruction that waits. */
TEST(exception_of_the_one_before)
{
    static uint16_t control = 0x37b; /* ZM = 0 */
    write_cr0(read_cr0() | 1 << 5);  /* NE */
    for (volatile unsigned i = 0; i < TIMES; i++) {
        word fdiv;
        asm volatile("fninit; fldcw %1; lea 1f(%%rip), %0" : "=r"(fdiv) : "m"(control));
        struct trap t = CATCH(({ asm volatile("fld1; fldz; 1: fdivr %st(1), %st; fld1; fld1"); }));
        asm volatile("fnclex");
        unsigned depth = depth_of_stack();
        CHECK_EQ(t.vector, VECTOR_MF);
        CHECK_EQ(t.rip, fdiv + 2);
        CHECK_EQ(depth, 2);
    }
}

/* The first one writes over the second one: 1 + 2 or 1 - 2. */
TEST(the_next_one_is_new)
{
    static const uint8_t code[] = {0xdf, 0x3f,        /* fistp qword [rdi] */
                                   0xd8, 0xc1,        /* fadd st0, st1 */
                                   0xd9, 0xe8,        /* fld1 */
                                   0xde, 0xc1,        /* faddp st1, st0 */
                                   0xdf, 0x3e, 0xc3}; /* fistp qword [rsi]; ret */
    paging_reset();
    map_page(WINDOW, FREE_RAM, 1, PG_P | PG_W);
    uint8_t *p = (uint8_t *)WINDOW;
    memcpy(p, code, sizeof code);
    for (unsigned i = 0; i < 4 * TIMES; i++) {
        int64_t got, bytes;
        bool subtracts = i % 3 == 2;
        memcpy(&bytes, code + 2, 8);
        ((uint8_t *)&bytes)[1] = subtracts ? 0xe1 : 0xc1;
        one = 1;
        asm volatile("fninit; fildll %1; fildll %2; fildll %3; call *%0"
                     :
                     : "r"(p), "m"(two), "m"(one), "m"(bytes), "D"(p + 2), "S"(&got)
                     : "memory");
        CHECK_EQ(got, subtracts ? 0 : 4);
    }
}

/* With something between them that does nothing; and a fault behind it. */
TEST(nothing_in_between)
{
    paging_reset();
    for (volatile unsigned i = 0; i < TIMES; i++) {
        int64_t got;
        asm volatile("fninit; fildll %1; nop; nop; fildll %1; nopl 0(%%rax); jmp 1f; 1: faddp; "
                     "nop; fistpll %0"
                     : "=m"(got)
                     : "m"(two));
        CHECK_EQ(got, 4);
        word begin;
        asm volatile("fninit; lea 1f(%%rip), %0" : "=r"(begin));
        struct trap t = CATCH(({
            asm volatile("1: fld1; nop; nop; fildll (%0)" : : "r"(WINDOW));
        }));
        CHECK_EQ(t.vector, VECTOR_PF);
        CHECK_EQ(t.rip, begin + 4);
        CHECK_EQ(depth_of_stack(), 1);
    }
}

/* A jump to the second one. */
TEST(way_into_the_middle)
{
    for (unsigned i = 0; i < 20; i++) {
        int64_t got;
        asm volatile(
            "fninit; fildll %1; fildll %1; test %2, %2; jnz 1f; fildll %1; 1: faddp; fistpll %0"
            : "=m"(got)
            : "m"(two), "r"(i & 1));
        CHECK_EQ(got, 4);
    }
}

const struct test guest_tests[] = {T(values),
                                   T(fault_in_the_middle),
                                   T(exception_of_the_one_before),
                                   T(the_next_one_is_new),
                                   T(nothing_in_between),
                                   T(way_into_the_middle),
                                   {0, 0}};
