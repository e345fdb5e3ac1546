/*
 * compat.c - compatibility mode: 32- and 16-bit code under a 64-bit kernel. Segments have limits,
 * addresses wrap at 4 GiB, and every exception arrives in 64-bit code (SDM vol. 3, 3.2.4, 5.3, 9.8;
 * vol. 1, 3.3.7).
 */
#include "context.h"
#include "paging.h"

enum {
    GATE = 0x62,
    SMALL = FREE(0), /* data */
    HIGH = FREE(1),
    SMALL_CODE = FREE(2),
    STACK16 = FREE(3),
};

static char data[4096] __attribute__((aligned(4096)));

static void set_up(void)
{
    set_gate(GATE, (word)trap_stubs + 16 * GATE, SEL_CODE, 14, 3, 0);
    set_gate(V_OF, (word)trap_stubs + 16 * V_OF, SEL_CODE, 14, 3, 0);
    asm volatile("mov %0, %%ss" ::"r"(SEL_DATA));
}
static struct context compat_user(word rip)
{
    struct context c = context_at(rip, SEL_UCODE32, SEL_UDATA);
    return c;
}

/* ---- Limits ---------------------------------------------------------------------------------- */

asm(".code32\n" LABEL(c_load) "mov (%ebx), %eax; int $0x62\n" LABEL(
    c_store) "mov %eax, (%ebx); "
             "int $0x62\n" LABEL(c_rmw) "incl (%ebx); int $0x62\n" LABEL(
                 c_ss) "mov "
                       "(%ebp), "
                       "%eax; int "
                       "$0x62"
                       "\n" LABEL(c_push) "push %eax; int $0x62\n" LABEL(
                           c_fs) "mov %fs:(%ebx), %eax; int $0x62\n.code64");

static const struct limit_case {
    const char *what;
    unsigned attr;
    uint32_t base, limit, at;
    unsigned bad_load, bad_store;
} limits[] = {
    {"last double word", D_DATA | D_DPL3 | D_BIG, 0, 0xfff, 0xffc, 0, 0},
    {"one byte too far", D_DATA | D_DPL3 | D_BIG, 0, 0xfff, 0xffd, 1, 1},
    {"far beyond", D_DATA | D_DPL3 | D_BIG, 0, 0xfff, 0x80000000, 1, 1},
    {"limit in pages", D_DATA | D_DPL3 | D_BIG | D_PAGES, 0, 0, 0xffc, 0, 0},
    {"beyond a page", D_DATA | D_DPL3 | D_BIG | D_PAGES, 0, 0, 0xffd, 1, 1},
    {"read-only", D_READ_ONLY | D_DPL3 | D_BIG, 0, 0xfff, 0x10, 0, 1},
    {"readable code", D_CODE | D_DPL3 | D_BIG, 0, 0xfff, 0x10, 0, 1},
    {"expand-down, below", D_EXPAND_DOWN | D_DPL3 | D_BIG, 0, 0xfff, 0xfff, 1, 1},
    {"expand-down, above", D_EXPAND_DOWN | D_DPL3 | D_BIG, 0, 0x10, 0x11, 0, 0},
    {"16-bit expand-down, top", D_EXPAND_DOWN | D_DPL3, 0, 0x10, 0xfffd, 1, 1},
};

TEST(limits_of_data_segments)
{
    set_up();
    for (volatile unsigned i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        const struct limit_case *l = &limits[i];
        gdt[SMALL / 8] = descriptor((uint32_t)(word)data + l->base, l->limit, l->attr);
        for (volatile unsigned store = 0; store < 3; store++) {
            word code = store == 2 ? SYMBOL(c_rmw) : store ? SYMBOL(c_store) : SYMBOL(c_load);
            struct context c = compat_user(code);
            c.ds = SMALL | 3;
            c.rbx = l->at;
            c.rax = 0x55555555;
            memset(data, 0x11, 8);
            struct trap t = RUN(c);
            bool bad = store ? l->bad_store : l->bad_load;
            if (t.vector != (bad ? (word)V_GP : GATE))
                print("  %s: %s\n", l->what, store ? "store" : "load");
            CHECK_EQ(t.vector, bad ? (word)V_GP : GATE);
            CHECK_EQ(t.error, 0);
            if (bad) {
                CHECK_EQ(t.rip, code);
                CHECK_EQ(t.cs, SEL_UCODE32);
                CHECK_EQ(t.frame.rax, 0x55555555);
                CHECK_EQ(t.rflags & F_RF, F_RF);
            }
        }
    }
    asm volatile("mov %0, %%ds" ::"r"(SEL_DATA));
}

/* The same segments mean nothing to 64-bit code, except that FS and GS have a base. */
TEST(no_limits_in_64_bit_code)
{
    uint32_t v = 0;
    gdt[SMALL / 8] = descriptor(0x1000, 0, D_READ_ONLY | D_DPL3 | D_BIG);
    *(uint32_t *)data = 0x1234;
    asm volatile("mov %1, %%ds; mov %1, %%es; movl (%2), %0; movl %0, %%es:4(%2); mov %3, %%ds;"
                 "mov %3, %%es"
                 : "=&r"(v)
                 : "r"(SMALL), "r"(data), "r"(SEL_DATA)
                 : "memory");
    CHECK_EQ(v, 0x1234);
    CHECK_EQ(*(uint32_t *)(data + 4), 0x1234);
    gdt[SMALL / 8] = descriptor((uint32_t)(word)data, 0, D_READ_ONLY | D_BIG);
    asm volatile("mov %1, %%fs; movl %%fs:4, %0; movl %0, %%fs:8"
                 : "=&r"(v)
                 : "r"(SMALL)
                 : "memory");
    CHECK_EQ(*(uint32_t *)(data + 8), 0x1234);
}

TEST(null_and_execute_only)
{
    set_up();
    struct context c = compat_user(SYMBOL(c_load));
    c.ds = 0;
    c.rbx = (word)data;
    CHECK_TRAP(RUN(c), V_GP, 0, SYMBOL(c_load));
    c = compat_user(SYMBOL(c_fs));
    c.rbx = (word)data;
    CHECK_TRAP(RUN(c), V_GP, 0, SYMBOL(c_fs));
    gdt[SMALL / 8] = descriptor(0, 0xfffff, D_CODE_XO | D_DPL3 | D_BIG | D_PAGES);
    struct trap t = CATCH(asm volatile(LABEL(load_xo) "mov %0, %%ds" ::"r"(SMALL | 3)));
    CHECK_TRAP(t, V_GP, SMALL, SYMBOL(load_xo));
    /* An execute-only CS runs but does not read. */
    c = compat_user(SYMBOL(c_load));
    c.cs = SMALL | 3;
    c.rbx = (word)data;
    CHECK_EQ(RUN(c).vector, GATE);
    asm volatile("mov %0, %%ds" ::"r"(SEL_DATA));
}

TEST(limits_of_the_stack)
{
    set_up();
    gdt[SMALL / 8] = descriptor((uint32_t)(word)data, 0xfff, D_DATA | D_DPL3 | D_BIG);
    struct context c = compat_user(SYMBOL(c_push));
    c.ss = SMALL | 3;
    c.rsp = 0x1000;
    struct trap t = RUN(c);
    CHECK_EQ(t.vector, GATE);
    CHECK_EQ(t.rsp, 0xffc);
    CHECK_EQ(t.ss, SMALL | 3);
    c.rsp = 0x1001;
    t = RUN(c);
    CHECK_TRAP(t, V_SS, 0, SYMBOL(c_push));
    CHECK_EQ(t.rsp, 0x1001);
    c.rsp = 2; /* wraps to the top, which is beyond the limit */
    CHECK_TRAP(RUN(c), V_SS, 0, SYMBOL(c_push));
    c = compat_user(SYMBOL(c_ss));
    c.ss = SMALL | 3;
    c.rbp = 0xffd;
    CHECK_TRAP(RUN(c), V_SS, 0, SYMBOL(c_ss));
    /* SS.B = 0: SP wraps at 64 KiB, the upper half of ESP stays. */
    static char stack[0x10000] __attribute__((aligned(4096)));
    gdt[STACK16 / 8] = descriptor((uint32_t)(word)stack, 0xffff, D_DATA | D_DPL3);
    c = compat_user(SYMBOL(c_push));
    c.ss = STACK16 | 3;
    c.rsp = 0x12340000;
    c.rax = 0xabcdef01;
    t = RUN(c);
    CHECK_EQ(t.vector, GATE);
    CHECK_EQ(t.rsp & 0xffff, 0xfffc);
    CHECK_EQ(*(uint32_t *)(stack + 0xfffc), 0xabcdef01);
}

TEST(limit_of_the_code_segment)
{
    set_up();
    static uint8_t code[16] = {0x90, 0x90, 0xb8, 1, 2, 3, 4, 0xcd, 0x62};
    for (volatile unsigned end = 1; end <= 9; end++) {
        gdt[SMALL_CODE / 8] = descriptor((uint32_t)(word)code, end - 1, D_CODE | D_DPL3 | D_BIG);
        struct context c = compat_user(0);
        c.cs = SMALL_CODE | 3;
        struct trap t = RUN(c);
        /* The first instruction with a byte outside faults, where it begins. */
        word at = end < 2 ? 1 : end < 7 ? 2 : 7;
        CHECK_TRAP(t, end == 9 ? (word)GATE : V_GP, 0, end == 9 ? 9 : at);
        CHECK_EQ(t.cs, SMALL_CODE | 3);
    }
}

/* ---- 32-bit addresses ------------------------------------------------------------------------ */

asm(".code32\n" LABEL(c_wrap) "mov 0x20(%ebx), %eax; mov %fs:0x2000, %ecx; lea 0x30(%ebx), %edx;"
                              "int $0x62\n.code64");
TEST(addresses_wrap_at_4_gib)
{
    set_up();
    gdt[HIGH / 8] =
        descriptor((uint32_t)(word)data - 0x2000, 0xfffff, D_DATA | D_DPL3 | D_BIG | D_PAGES);
    *(uint32_t *)data = 0x600df00d;
    *(uint32_t *)0x5010 = 0x12345678;
    struct context c = compat_user(SYMBOL(c_wrap));
    c.rbx = 0xffffffff00004ff0; /* only EBX counts */
    c.fs = HIGH | 3;
    struct trap t = RUN(c);
    CHECK_EQ(t.vector, GATE);
    CHECK_EQ((uint32_t)t.frame.rax, 0x12345678);
    CHECK_EQ((uint32_t)t.frame.rcx, 0x600df00d);
    c.rbx = 0xfffffff0; /* + 20h = 10h */
    *(uint32_t *)0x10 = 0x87654321;
    t = RUN(c);
    CHECK_EQ((uint32_t)t.frame.rax, 0x87654321);
    CHECK_EQ((uint32_t)t.frame.rdx, 0x20);
    /* Base and offset together wrap, too. */
    gdt[HIGH / 8] = descriptor(0xffff0000, 0xfffff, D_DATA | D_DPL3 | D_BIG | D_PAGES);
    *(uint32_t *)0x5000 = 0xaabbccdd;
    c = compat_user(SYMBOL(c_load));
    c.ds = HIGH | 3;
    c.rbx = 0x15000;
    t = RUN(c);
    CHECK_EQ(t.vector, GATE);
    CHECK_EQ((uint32_t)t.frame.rax, 0xaabbccdd);
    asm volatile("mov %0, %%ds" ::"r"(SEL_DATA));
}

/* Accesses by one register that wraps between them; what 64-bit code has behind it is another page,
 * which even lies behind it in memory. */
asm(".code32\n" LABEL(
    c_wrap_both) "addl $1, (%ebx); mov 0x20(%ebx), %ecx; addl $1, 0x24(%ebx); int $0x62\n.code64");
TEST(neighbours_wrap_at_4_gib)
{
    enum { ROUNDS = 40, LAST = FREE_RAM + 0x200000, BEHIND = LAST + PAGE };
    static uint64_t table[512] __attribute__((aligned(4096)));
    uint32_t *last = (uint32_t *)(LAST + 0xff0), *behind = (uint32_t *)(BEHIND + 0x10);
    uint32_t *wrapped = (uint32_t *)0x10;
    uint64_t old = boot_pd[2047];
    set_up();
    for (unsigned i = 0; i < 512; i++)
        table[i] = (0xffe00000 + i * PAGE) | PG_ALL;
    table[511] = LAST | PG_ALL;
    boot_pd[2047] = (word)table | PG_ALL;
    map_page(0x100000000, BEHIND, 1, PG_ALL);
    flush_all();
    last[0] = 1, behind[0] = 2, behind[1] = 3, wrapped[0] = 4, wrapped[1] = 5;
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct context c = compat_user(SYMBOL(c_wrap_both));
        c.rbx = 0xfffffff0;
        CHECK_NO_TRAP(try_user(user_write_, (void *)0x100000000)); /* so that the view has it */
        struct trap t = RUN(c);
        CHECK_EQ(t.vector, GATE);
        CHECK_EQ(last[0], 2 + i);
        CHECK_EQ((uint32_t)t.frame.rcx, 4);
        CHECK_EQ(wrapped[1], 6 + i);
        CHECK_EQ(behind[1], 3);
    }
    boot_pd[2047] = old;
    *entry_of(0x100000000, 1) = 0;
    flush_all();
}

/* What is above 4 GiB cannot be reached, nor does anything leak into it. */
TEST(eip_wraps_at_4_gib)
{
    static uint8_t page[4096] __attribute__((aligned(4096)));
    static uint64_t table[512] __attribute__((aligned(4096)));
    set_up();
    uint64_t old = boot_pd[2047];
    for (unsigned i = 0; i < 512; i++)
        table[i] = (0xffe00000 + i * PAGE) | PG_ALL;
    table[511] = (word)page | PG_ALL;
    boot_pd[2047] = (word)table | PG_ALL;
    flush_all();
    /* FFFFFFF0: JMP +5010h-5 */
    static const uint8_t jump[5] = {0xe9, 0x0b, 0x50, 0, 0};
    memcpy(page + 0xff0, jump, 5);
    memcpy((void *)0x5000, "\xcd\x62", 2);
    struct trap t = RUN(compat_user(0xfffffff0));
    CHECK_TRAP(t, GATE, 0, 0x5002);
    boot_pd[2047] = old;
    flush_all();
}

/* ---- Instructions that 64-bit code lacks ------------------------------------------------------
 */

static const struct {
    const char *what;
    uint8_t code[12];
} legacy[] = {
    {"PUSH ES; POP ES", {0x06, 0x07}},
    {"PUSH CS; POP EAX", {0x0e, 0x58}},
    {"PUSHA; POPA", {0x60, 0x61}},
    {"DAA, DAS, AAA, AAS", {0x27, 0x2f, 0x37, 0x3f}},
    {"AAM, AAD", {0xd4, 0x0a, 0xd5, 0x0a}},
    {"82h", {0x80, 0xc0, 0x01}},
    {"INC, DEC", {0x40, 0x48}},
    {"SALC", {0xd6}},
    {"BOUND", {0x62, 0x03}},
    {"LES", {0xc4, 0x06}},
    {"ARPL", {0x63, 0xc0}},
};
TEST(legacy_instructions)
{
    static uint8_t code[16];
    static struct {
        uint32_t lower, upper;
    } bounds = {0, 0x7fffffff};
    static struct __attribute__((packed)) {
        uint32_t offset;
        uint16_t selector;
    } pointer = {0x11223344, SEL_UDATA};
    set_up();
    for (volatile unsigned i = 0; i < sizeof legacy / sizeof legacy[0]; i++) {
        memcpy(code, legacy[i].code, sizeof legacy[i].code);
        unsigned end = sizeof legacy[i].code;
        while (end > 1 && !code[end - 1])
            end--;
        code[end] = 0xcd, code[end + 1] = 0x62;
        struct context c = compat_user((word)code);
        c.rbx = (word)&bounds, c.rsi = (word)&pointer;
        struct trap t = RUN(c);
        if (t.vector != GATE)
            print("  %s:\n", legacy[i].what);
        CHECK_TRAP(t, GATE, 0, (word)code + end + 2);
    }
}

asm(".code32\n" LABEL(c_bound) "bound %eax, (%ebx)\n" LABEL(c_into) "into\n" LABEL(
    c_into_end) "int $0x62\n" LABEL(c_div) "div %ecx\n" LABEL(c_swapgs) ".byte 0x0f, 0x01, "
                                                                        "0xf8\n.code64");
TEST(exceptions_of_32_bit_code)
{
    static struct {
        uint32_t lower, upper;
    } bounds = {1, 5};
    set_up();
    struct context c = compat_user(SYMBOL(c_bound));
    c.rax = 6, c.rbx = (word)&bounds;
    struct trap t = RUN(c);
    CHECK_TRAP(t, V_BR, 0, SYMBOL(c_bound));
    CHECK_EQ(t.rflags & F_RF, F_RF);
    c.rip = SYMBOL(c_into);
    CHECK_TRAP(RUN(c), GATE, 0, SYMBOL(c_into_end) + 2);
    c.rflags |= F_OF;
    t = RUN(c);
    CHECK_TRAP(t, V_OF, 0, SYMBOL(c_into_end)); /* a trap */
    CHECK_EQ(t.cs, SEL_UCODE32);
    CHECK_EQ(t.ss, SEL_UDATA);
    set_gate(V_OF, (word)trap_stubs + 16 * V_OF, SEL_CODE, 14, 0, 0);
    CHECK_TRAP(RUN(c), V_GP, V_OF * 8 + 2, SYMBOL(c_into));
    c.rip = SYMBOL(c_div);
    CHECK_TRAP(RUN(c), V_DE, 0, SYMBOL(c_div));
    c.rip = SYMBOL(c_swapgs);
    CHECK_TRAP(RUN(c), V_UD, 0, SYMBOL(c_swapgs));
}

/* A page fault: CR2 has 64 bits, the upper ones zero; the frame has eight-byte items. */
TEST(page_fault_of_32_bit_code)
{
    set_up();
    uint64_t old = boot_pd[0x7f];
    boot_pd[0x7f] = 0;
    flush_all();
    struct context c = compat_user(SYMBOL(c_store));
    c.rbx = 0xfffffff00fe00123;
    struct trap t = RUN(c);
    CHECK_PF(t, 0x0fe00123, PF_W | PF_U, SYMBOL(c_store));
    boot_pd[0x7f] = old;
    flush_all();
}

/* ---- Compatibility code at CPL 0 --------------------------------------------------------------
 */

/* Its IRETD to the same level pops three items, as ever; VM in the image means nothing. */
asm(".code32\n" LABEL(c_iretd) "mov %esp, %ebx; pushl $0x00020003; pushl $8; pushl $1f; "
                               "iretl; 1: mov %esp, %ecx; pushf; pop %edx; int $0x62\n" LABEL(
                                   c_sgdt) "sgdt (%ebx); mov %cr0, %eax; mov %cr3, %ecx; int "
                                           "$0x62\n" LABEL(c_set_cr4) "mov %eax, %cr4\n" LABEL(
                                               c_paging_off) "mov %eax, %cr0; ud2\n.code64");
TEST(iretd_at_cpl_0)
{
    set_up();
    struct context c = context_at(SYMBOL(c_iretd), SEL_CODE32, SEL_DATA);
    struct trap t = RUN(c);
    CHECK_EQ(t.vector, GATE);
    CHECK_EQ(t.cs, SEL_CODE32);
    CHECK_EQ((uint32_t)t.frame.rbx, (uint32_t)t.frame.rcx);
    CHECK_EQ((uint32_t)t.frame.rdx, 3);
    CHECK_EQ(t.rsp, c.rsp);
    CHECK_EQ(t.ss, SEL_DATA);
}

TEST(system_instructions_have_32_bits)
{
    static uint8_t m[12];
    set_up();
    memset(m, 0xee, sizeof m);
    struct context c = context_at(SYMBOL(c_sgdt), SEL_CODE32, SEL_DATA);
    c.rbx = (word)m;
    struct trap t = RUN(c);
    CHECK_EQ(t.vector, GATE);
    CHECK_EQ(*(uint32_t *)(m + 2), (word)gdt);
    CHECK_EQ(m[6], 0xee); /* six bytes */
    CHECK_EQ((uint32_t)t.frame.rax, read_cr0());
    CHECK_EQ((uint32_t)t.frame.rcx, read_cr3());
    /* Long mode is not left by PAE. */
    c.rip = SYMBOL(c_set_cr4);
    c.rax = read_cr4() & ~0x20ull;
    CHECK_TRAP(RUN(c), V_GP, 0, SYMBOL(c_set_cr4));
}

const struct test guest_tests[] = {T(limits_of_data_segments),
                                   T(no_limits_in_64_bit_code),
                                   T(null_and_execute_only),
                                   T(limits_of_the_stack),
                                   T(limit_of_the_code_segment),
                                   T(addresses_wrap_at_4_gib),
                                   T(neighbours_wrap_at_4_gib),
                                   T(eip_wraps_at_4_gib),
                                   T(legacy_instructions),
                                   T(exceptions_of_32_bit_code),
                                   T(page_fault_of_32_bit_code),
                                   T(iretd_at_cpl_0),
                                   T(system_instructions_have_32_bits),
                                   {0, 0}};
