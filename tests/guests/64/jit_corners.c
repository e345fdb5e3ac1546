/*
 * jit_corners.c - what a translator may take for granted and must not: that a group of accesses
 * ends behind its beginning, that a jump takes along what is known of addresses, that no program
 * jumps to what fills its tables, that comparing again says the same (docs/isolation.md,
 * docs/jit.md).
 */
#include "context.h"
#include "paging.h"

enum { ROUNDS = 20, GATE = 0x62, FRAME = FREE_RAM + 0x100000 };
#define ABSENT (WINDOW + PAGE)

/* ---- Groups of accesses ---------------------------------------------------------------------- */

/* The first access ends behind the largest displacement, and so its end is "before" its beginning.
 */
ALONE uint64_t at_the_largest(word at, bool far)
{
    uint64_t a = 0, b = 0;
    if (far)
        asm volatile("mov 0x7ffffffc(%2), %0; movb -0x80000000(%2), %b1"
                     : "=&r"(a), "+&r"(b)
                     : "r"(at)
                     : "memory");
    else
        asm volatile("mov 0x7ffffffc(%2), %0; movb 0x7fffff00(%2), %b1"
                     : "=&r"(a), "+&r"(b)
                     : "r"(at)
                     : "memory");
    return a;
}

TEST(displacements_at_the_limit)
{
    paging_reset();
    map_page(WINDOW, FRAME, 1, PG_ALL);
    map_page(ABSENT, FRAME + PAGE, 1, 0);
    for (unsigned i = 0; i < ROUNDS; i++) {
        volatile uint64_t got = 0;
        CHECK_EQ(*(volatile uint8_t *)WINDOW, 0);
        struct trap t = CATCH(got = at_the_largest(ABSENT - 1 - 0x7fffff00, false));
        CHECK_EQ(t.vector, VECTOR_PF);
        CHECK_EQ(got, 0);
        t = CATCH(got = at_the_largest(WINDOW + 16 + 0x80000000, true));
        CHECK_EQ(t.vector, VECTOR_PF);
    }
}

/* LOOP changes RCX on its way to where it jumps. */
ALONE uint64_t by_the_count(word at)
{
    uint64_t a, b, c;
    asm volatile("mov (%%rcx), %0; mov 8(%%rcx), %1; loop 1f; 2: hlt; jmp 2b; 1: mov (%%rcx), %2"
                 : "=&r"(a), "=&r"(b), "=&r"(c), "+c"(at)::"memory");
    return c;
}
ALONE uint64_t by_the_count_and(word at, word index)
{
    uint64_t a, b, c;
    asm volatile("mov (%%rcx,%4), %0; mov 8(%%rcx,%4), %1; loop 1f; 2: hlt; jmp 2b;"
                 "1: mov 1(%%rcx,%4), %2"
                 : "=&r"(a), "=&r"(b), "=&r"(c), "+c"(at)
                 : "r"(index)
                 : "memory");
    return c;
}

TEST(loop_forward)
{
    uint64_t words[4] = {0x1111111111111111, 0x2222222222222222, 0x3333333333333333};
    paging_reset();
    map_page(WINDOW, FRAME, 1, 0);
    map_page(WINDOW + PAGE, FRAME + 8 * PAGE, 1, PG_ALL);
    for (unsigned i = 0; i < ROUNDS; i++) {
        CHECK_EQ(*(volatile uint8_t *)(WINDOW + PAGE), 0);
        struct trap t = CATCH(by_the_count(WINDOW + PAGE));
        CHECK_EQ(t.vector, VECTOR_PF);
        CHECK_EQ(t.cr2, WINDOW + PAGE - 1);
        CHECK_EQ(by_the_count_and((word)words, 0), words[0]);
    }
}

/* 32-bit code ignores bit 3 of VEX.vvvv: there are eight registers. */
asm(".code32\n" LABEL(andn_10) "mov (%ebx,%esi), %edi; .byte 0xc4,0xe2,0x28,0xf2,0xc1; int "
                               "$0x62\n" LABEL(
                                   blsr_9) "mov (%ebx,%esi), %edi; .byte 0xc4,0xe2,0x28,0xf3,0xc9; "
                                           "int $0x62\n" LABEL(andn_8) "mov (%ebx,%esi), %edi; "
                                                                       ".byte "
                                                                       "0xc4,0xe2,0x38,0xf2,0xc1; "
                                                                       "int $0x62\n.code64");

TEST(registers_by_vvvv_in_32_bit_code)
{
    static char data[4096] __attribute__((aligned(4096)));
    if (!cpu_has(7, REG_EBX, 3)) /* BMI1 */
        return;
    set_gate(GATE, (word)trap_stubs + 16 * GATE, SEL_CODE, 14, 3, 0);
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct context c = context_at(SYMBOL(andn_10), SEL_UCODE32, SEL_UDATA);
        c.rbx = (word)data, c.rsi = 16, c.rcx = 0xffffffff, c.rdx = 0x12345678, c.rax = 0;
        struct trap t = RUN(c);
        CHECK_EQ(t.vector, GATE);
        CHECK_EQ(t.frame.rax, (uint32_t)~0x12345678);
        c.rip = SYMBOL(blsr_9), c.rcx = 0x70;
        t = RUN(c);
        CHECK_EQ(t.vector, GATE);
        CHECK_EQ(t.frame.rdx, 0x60);
        c.rip = SYMBOL(andn_8), c.rcx = 0xffffffff, c.rax = 0x11;
        t = RUN(c);
        CHECK_EQ(t.frame.rax, (uint32_t)~0x11);
    }
}

TEST(farthest_relative_to_rip)
{
    uint64_t far, here;
    for (unsigned i = 0; i < ROUNDS; i++) {
        asm volatile(
            "call 1f; 1: pop %1; .byte 0x48,0x8d,0x05,0xff,0xff,0xff,0x7f; 2: add $2b-1b, %1"
            : "=&a"(far), "=&r"(here));
        CHECK_EQ(far - here, 0x7fffffff);
    }
}

/* ---- Branches -------------------------------------------------------------------------------- */

/* An address that is not canonical, as one that fills an empty table of addresses might be. */
asm(LABEL(jump_away) "jmp *%rax; ud2\n" LABEL(call_away) "call *%rax; ud2\n" LABEL(
    return_away) "push %rax; ret; ud2\n");

TEST(targets_that_are_not_canonical)
{
    static const uint64_t targets[] = {0x8080808080808080, 0x8000000000000000, 0xffff000000000000,
                                       0x0000800000000000, 0xfefefefefefefefe};
    const word from[] = {SYMBOL(jump_away), SYMBOL(call_away), SYMBOL(return_away)};
    for (unsigned i = 0; i < ROUNDS; i++)
        for (unsigned n = 0; n < 15; n++) {
            struct context c = context_user(from[n % 3]);
            c.rax = targets[n / 3];
            struct trap t = RUN(c);
            CHECK_EQ(t.vector, V_GP);
            CHECK_EQ(t.rip, from[n % 3] + (n % 3 == 2)); /* behind the PUSH */
        }
}

/* Two pages that are linked, then the same in front of the hole, where the second one's Jcc leads
 * to an address that is not canonical. */
TEST(linked_pages_before_the_hole)
{
    static uint8_t code[2][4096] __attribute__((aligned(4096)));
    static const uint8_t to_the_next[] = {0x90, 0xe9, 0xfa, 0x0f, 0, 0},
                         far_jnz[] = {0x85, 0xff, 0x0f, 0x85, 0, 0x50, 0,
                                      0,    0xb8, 7,    0,    0, 0,    0xc3};
    const word high = 0x7fffffffd000;
    const struct {
        word at;
        unsigned edi;
    } calls[] = {{WINDOW, 0}, {high + PAGE, 0}, {high, 0}, {high, 1}};
    paging_reset();
    memcpy(code[0], to_the_next, sizeof to_the_next);
    memcpy(code[1], far_jnz, sizeof far_jnz);
    for (unsigned i = 0; i < 2; i++) {
        map_page(WINDOW + i * PAGE, phys(code[i]), 1, PG_P | PG_W);
        map_page(high + i * PAGE, phys(code[i]), 1, PG_P | PG_W);
    }
    for (unsigned n = 0; n < 4; n++)
        for (unsigned i = 0; i < ROUNDS; i++) {
            struct trap t = CATCH(asm volatile("call *%0" ::"r"(calls[n].at), "D"(calls[n].edi)
                                               : "rax", "rcx", "rdx", "memory", "cc"));
            CHECK_EQ(t.vector, calls[n].edi ? V_GP : NO_TRAP);
            if (calls[n].edi)
                CHECK_EQ(t.rip, high + PAGE + 2);
        }
}

ALONE uint32_t call_often(word at, unsigned n)
{
    uint32_t sum = 0, r;
    for (unsigned i = 0; i < n; i++, sum += r)
        asm volatile("call *%1" : "=a"(r) : "r"(at) : "memory", "rcx", "rdx");
    return sum;
}

/* A global page that becomes local before it becomes another one: INVLPG is for both. */
TEST(global_page_becomes_local)
{
    static uint8_t code[2][4096] __attribute__((aligned(4096)));
    enum { GLOBAL = 1 << 8, ACCESSED = 1 << 5 };
    paging_reset();
    write_cr4(read_cr4() | CR4_PGE);
    for (unsigned i = 0; i < 2; i++)
        memcpy(code[i], (uint8_t[]){0xb8, (uint8_t)(1 + i), 0, 0, 0, 0xc3},
               6); /* mov eax, i; ret */
    volatile uint64_t *entry = entry_of(WINDOW, 1);
    *entry = phys(code[0]) | PG_P | PG_W | GLOBAL | ACCESSED;
    invlpg((void *)WINDOW);
    CHECK_EQ(call_often(WINDOW, 1000), 1000);
    *entry = phys(code[0]) | PG_P | PG_W | ACCESSED;
    *(volatile uint8_t *)(WINDOW + 0x800) =
        1; /* the first store, which walks the tables to set D */
    *entry = phys(code[1]) | PG_P | PG_W | ACCESSED;
    invlpg((void *)WINDOW);
    CHECK_EQ(call_often(WINDOW, 10), 20);
}

/* A page becomes another one in front of STAC, without INVLPG, and what the view has of it is
 * pushed out by another page that wants the same place: STAC may lead to the other frame then, but
 * not when the page is the old one again. */
ALONE unsigned call_storing(word at, volatile uint64_t *to, uint64_t value, word same_place)
{
    unsigned r;
    asm volatile("call *%1"
                 : "=&a"(r)
                 : "r"(at), "D"(to), "S"(value), "d"(same_place)
                 : "memory", "cc");
    return r;
}

TEST(stac_on_a_page_that_has_changed)
{
    static uint8_t code[2][4096] __attribute__((aligned(4096)));
    /* mov [rdi], rsi; mov al, [rdx]; stac; mov eax, 1; clac; ret */
    static const uint8_t text[] = {0x48, 0x89, 0x37, 0x8a, 0x02, 0x0f, 0x01, 0xcb, 0xb8,
                                   1,    0,    0,    0,    0x0f, 0x01, 0xca, 0xc3};
    enum { IMMEDIATE = 9, SAME_PLACE = 0x2000000 };
    volatile uint64_t other;
    if (!cpu_has(7, REG_EBX, 20)) /* SMAP */
        return;
    paging_reset();
    for (unsigned i = 0; i < 2; i++) {
        memcpy(code[i], text, sizeof text);
        code[i][IMMEDIATE] = (uint8_t)(1 + i);
    }
    map_page(WINDOW + PAGE, phys(code[1]), 1, PG_P | PG_W);
    for (unsigned i = 0; i < ROUNDS; i++) {
        CHECK_EQ(call_storing(WINDOW + PAGE, &other, 0, SAME_PLACE), 2);
        map_page(WINDOW, phys(code[0]), 1, PG_P | PG_W);
        call_storing(WINDOW, entry_of(WINDOW, 1), phys(code[1]) | PG_P | PG_W, SAME_PLACE);
        map_page(WINDOW, phys(code[0]), 1, PG_P | PG_W);
        if (i > 4)
            CHECK_EQ(call_storing(WINDOW, &other, 0, SAME_PLACE), 1);
    }
}

/* ---- Flags ----------------------------------------------------------------------------------- */

static uint32_t csr[3];
static volatile uint64_t memory;

/* UCOMISD a, b; LDMXCSR; NE. In csr: before the comparison, behind it, and at the end. */
ALONE unsigned differ_under(uint64_t a, uint64_t b)
{
    unsigned ne;
    asm volatile("ldmxcsr %2; movq %4, %%xmm0; movq %5, %%xmm1; mov $0, %%eax\n"
                 "ucomisd %%xmm1, %%xmm0; ldmxcsr %3; setne %%al; stmxcsr %1"
                 : "=&a"(ne), "=m"(csr[2])
                 : "m"(csr[0]), "m"(csr[1]), "r"(a), "r"(b)
                 : "memory", "cc");
    return ne;
}
ALONE unsigned differ_before_vzeroall(uint64_t a, uint64_t b)
{
    unsigned ne;
    asm volatile("movq %2, %%xmm0; movq %3, %%xmm1; mov $0, %%eax\n"
                 "ucomisd %%xmm1, %%xmm0; vzeroall; movq $3, %1; setne %%al"
                 : "=&a"(ne), "=m"(memory)
                 : "r"(a), "r"(b)
                 : "memory", "cc");
    return ne;
}

TEST(comparisons_and_what_comes_behind_them)
{
    enum { PLAIN = 0x1f80, DAZ = 0x1fc0 };
    static const struct {
        uint64_t a;
        uint32_t before, after;
        bool ne;
    } rows[] = {
        {1, PLAIN, DAZ, true}, {1, DAZ, PLAIN, false}, {0x7ff0000000000001, PLAIN, PLAIN, false}};
    write_cr0((read_cr0() & ~0xcul) | 2);
    write_cr4(read_cr4() | 0x600);
    for (unsigned i = 0; i < ROUNDS; i++)
        for (unsigned n = 0; n < 3; n++) {
            csr[0] = rows[n].before, csr[1] = rows[n].after;
            CHECK_EQ(differ_under(rows[n].a, 0), rows[n].ne);
            CHECK_EQ(csr[2], rows[n].after);
        }
    if (!cpu_has(1, REG_ECX, 28)) /* AVX */
        return;
    write_cr4(read_cr4() | 0x40000);
    asm volatile("xor %%ecx, %%ecx; xgetbv; or $7, %%eax; xsetbv" ::: "eax", "ecx", "edx");
    for (unsigned i = 0; i < ROUNDS; i++)
        CHECK_EQ(differ_before_vzeroall(0x3ff0000000000000, 0x4000000000000000), 1);
}

/* PUSHes with a move that ends a description of flags by memory, over a page's end, too. */
ALONE unsigned carry_over_pushes(word sp, uint64_t add)
{
    static uint64_t ones = ~0ull;
    unsigned carry;
    asm volatile("mov %%rsp, %%r12; mov $0, %0; mov %1, %%r11; mov %2, %%rsp; add %3, %%r11;"
                 "push %%rax; push %%rbx; mov $5, %%r11d; push $7; setc %b0; mov %%r12, %%rsp"
                 : "=&q"(carry)
                 : "r"(add), "r"(sp), "m"(ones)
                 : "r11", "r12", "memory", "cc");
    return carry;
}

TEST(flags_over_pushes)
{
    static uint8_t stack[16384] __attribute__((aligned(4096)));
    for (unsigned i = 0; i < ROUNDS; i++)
        for (word sp = (word)stack + 8192 - 40; sp < (word)stack + 8192 + 40; sp += 4) {
            CHECK_EQ(carry_over_pushes(sp, 5), 1);
            CHECK_EQ(carry_over_pushes(sp, 0), 0);
        }
}

const struct test guest_tests[] = {T(displacements_at_the_limit),
                                   T(loop_forward),
                                   T(registers_by_vvvv_in_32_bit_code),
                                   T(farthest_relative_to_rip),
                                   T(targets_that_are_not_canonical),
                                   T(linked_pages_before_the_hole),
                                   T(global_page_becomes_local),
                                   T(stac_on_a_page_that_has_changed),
                                   T(comparisons_and_what_comes_behind_them),
                                   T(flags_over_pushes),
                                   {0, 0}};
