/*
 * jit_returns.c - returns that go where no call came from, against a translator that expects each
 * RET behind the last CALL: changed return addresses, frames that are skipped, more open calls than
 * anybody keeps, stacks that change; and calls that are open while the code behind them changes,
 * its page becomes another one, or the privilege does (SDM vol. 1, 6.4; vol. 2, RET).
 */
#include "pieces.h"

enum { ROUNDS = 40, GATE = 0x62 };

static uint64_t room[8192] __attribute__((aligned(4096)));
#define STACK_END ((word)(room + 8000))

/* Runs pieces at CPL 0 with a large stack. */
static struct trap run(struct piece p, word a)
{
    struct context c = kernel_context();
    c.rsp = STACK_END, c.rsi = a, c.rdi = (word)room;
    pieces_begin();
    put(p);
    return pieces_run(&c);
}

/* The same again and again at one place, so that all is linked; RAX at the end. */
static void again(struct piece p, word a, word want)
{
    struct context c = kernel_context();
    c.rsp = STACK_END, c.rsi = a, c.rdi = (word)room;
    pieces_begin();
    put(p);
    pieces_room[pieces_at++] = 0xcc;
    c.rip = (word)(pieces_room + pieces_start);
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct trap t = RUN(c);
        CHECK_EQ(t.vector, V_BP);
        CHECK_EQ(t.frame.rax, want);
        CHECK_EQ(t.frame.rsp, STACK_END);
    }
}

/* ---- Returns to elsewhere ----------------------------------------------------------------------
 */

TEST(nested_and_recursive)
{
    again(
        PIECE("xor eax, eax; call 1f; add eax, 100; jmp 9f; 1: call 2f; call 2f; add eax, 10; ret;"
              "2: call 3f; add eax, 1; ret; 3: add eax, 1000; ret; 9: nop"),
        0, 2112);
    /* deeper than what is kept of open calls; each level adds its own number on the way back */
    again(
        PIECE("xor eax, eax; mov ecx, esi; call 1f; jmp 9f;"
              "1: test ecx, ecx; jz 2f; push rcx; dec ecx; call 1b; pop rcx; add eax, ecx; 2: ret;"
              "9: nop"),
        3000, 3000 * 3001 / 2);
}

TEST(return_address_changed)
{
    again(
        PIECE(
            "xor eax, eax; call 1f; inc eax; inc eax; nop; jmp 9f; 1: add qword ptr [rsp], 2; ret;"
            "9: nop"),
        0, 1);
    again(
        PIECE(
            "xor eax, eax; mov ecx, 30; 3: lea rdx, [rip+2f]; push rdx; ret; ud2; 2: inc eax; dec "
            "ecx; jnz 3b"),
        0, 30);
    /* a jump by CALL and RET, as kernels do against speculation, with calls open before it */
    again(PIECE("xor eax, eax; lea rdx, [rip+5f]; call 1f; add eax, 1; jmp 9f;"
                "1: call 2f; add eax, 10; ret; 2: call 4f; ud2; 4: mov [rsp], rdx; ret;"
                "5: add eax, 100; ret; 9: nop"),
          0, 111);
}

/* Each level leaves out the `n` frames above it, as longjmp() does; outer calls return as ever. */
TEST(skipped_frames)
{
    again(PIECE("xor eax, eax; call 1f; add eax, 1; jmp 9f;"
                "1: call 2f; add eax, 10; ret; 2: call 3f; ud2; 3: call 4f; ud2; 4: call 5f; ud2;"
                "5: add rsp, 24; ret; 9: nop"),
          0, 11);
    again(PIECE("xor eax, eax; call 1f; add eax, 1; jmp 9f;"
                "1: mov r8, rsp; mov ecx, 20; 2: call 3f; ud2; 3: dec ecx; jnz 2b; mov rsp, r8;"
                "call 4f; add eax, 10; ret; 4: add eax, 100; ret; 9: nop"),
          0, 111);
}

TEST(calls_that_never_return)
{
    again(PIECE("xor eax, eax; 1: call 2f; 2: pop rdx; inc eax; cmp eax, esi; jne 1b"), 5000, 5000);
    /* more than any stack of the host has room for */
    struct trap t =
        run(PIECE("xor eax, eax; 1: call 2f; 2: pop rdx; inc eax; cmp eax, esi; jne 1b"), 1000000);
    CHECK_EQ(t.frame.rax, 1000000);
}

/* Two stacks that yield to each other out of nested calls. */
TEST(switched_stacks)
{
    again(PIECE("xor eax, eax; mov ecx, esi; lea r8, [rdi+8192]; lea rdx, [rip+6f]; mov [r8], rdx;"
                "5: call 2f; dec ecx; jnz 5b; jmp 9f;"
                "2: call 3f; add eax, 1; ret; 3: xchg rsp, r8; ret; " /* RSP: the other's */
                "6: call 7f; add eax, 1000; jmp 6b; 7: call 3b; add eax, 100; ret; 9: nop"),
          50, 50 + 49 * 1100);
}

TEST(ret_imm)
{
    again(PIECE("xor eax, eax; mov ecx, esi; 1: push 7; push 5; call 2f; dec ecx; jnz 1b; jmp 9f;"
                "2: add eax, [rsp+8]; call 3f; ret 16; 3: push 1; push 2; call 4f; ret; 4: ret 16;"
                "9: nop"),
          20, 100);
}

/* To an address that is none: Intel's RET faults itself and has changed nothing; AMD's goes there.
 */
TEST(not_canonical)
{
    const word nowhere = 0x8000000000000000;
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct trap t = run(PIECE("call 1f; 1: mov [rsp], rsi; ret"), nowhere);
        CHECK_EQ(t.vector, V_GP);
        if (t.frame.rip != nowhere)
            CHECK_EQ(pieces_room[t.frame.rip - (word)pieces_room], 0xc3);
        CHECK_EQ(t.frame.rsp, t.frame.rip == nowhere ? STACK_END : STACK_END - 8);
    }
}

/* To address 0, which is as good as any. */
TEST(to_zero)
{
    volatile uint8_t *zero = (volatile uint8_t *)(word)phys(0);
    asm volatile("" : "+r"(zero));
    static const uint8_t code[] = {0xff, 0xc0, 0xff, 0xe2}; /* inc eax; jmp rdx */
    for (unsigned i = 0; i < sizeof code; i++)
        zero[i] = code[i];
    again(PIECE("xor eax, eax; mov ecx, 20; lea rdx, [rip+2f]; 1: push 0; ret; 2: dec ecx; jnz 1b"),
          0, 20);
    again(PIECE("xor eax, eax; lea rdx, [rip+9f]; call 1f; 1: mov qword ptr [rsp], 0; ret; 9: nop"),
          0, 1);
}

/* ---- What changes while a call is open ---------------------------------------------------------
 */

/* The callee writes another immediate behind the call: in its own page, and in another one. */
TEST(changed_code)
{
    again(
        PIECE("mov ecx, esi; xor eax, eax; xor r8d, r8d; 1: inc r8d; call 2f; add eax, 0; dec ecx; "
              "jnz 1b; jmp 9f; 2: pop rdx; mov [rdx+2], r8b; push rdx; ret; 9: nop"),
        30, 30 * 31 / 2);
    pieces_at = 0;
    uint8_t *from = pieces_room, *to = pieces_room + 3 * 4096 + 64;
    memcpy(to, PIECE("mov rdx, [rsp]; mov [rdx+1], dil; ret").at, 9);
    from[0] = 0xe8;
    const int32_t there = (int32_t)(to - (from + 5));
    memcpy(from + 1, &there, 4);
    memcpy(from + 5, "\xb8\0\0\0\0\xc3", 6); /* mov eax, imm32; ret */
    for (unsigned i = 0; i < 3 * ROUNDS; i++)
        CHECK_EQ(((unsigned (*)(unsigned))(word)from)(i), i);
    pieces_at = 4 * 4096;
}

/* Two frames with the same call and other code behind it; the callee puts one in the other's place.
 * `global`: pages that outlive the address space. */
static void other_page(uint64_t flags)
{
    static uint8_t frame[2][4096] __attribute__((aligned(4096)));
    paging_reset();
    for (unsigned n = 0; n < 2; n++) {
        /* call 1f; mov eax, imm32; ret; 1: jmp rax: a call that is never looked up anew */
        memcpy(frame[n], "\xe8\6\0\0\0\xb8\0\0\0\0\xc3\xff\xe0", 13);
        frame[n][6] = (uint8_t)(n + 1);
        map_page(WINDOW + n * PAGE, phys(frame[n]), 1, PG_ALL | flags);
    }
    pieces_begin();
    word callee = pieces_here();
    put(PIECE("mov [rdi], rsi; invlpg [rdx]; ret"));
    uint64_t *entry = entry_of(WINDOW, 1);
    for (unsigned i = 0; i < 3 * ROUNDS; i++) {
        unsigned n = i / 2 % 2; /* every other time it stays */
        word rax = callee;
        asm volatile("call *%%rdx"
                     : "+a"(rax)
                     : "d"(WINDOW), "D"(entry), "S"(phys(frame[n]) | PG_ALL | flags)
                     : "memory", "cc");
        CHECK_EQ(rax, n + 1);
    }
}
TEST(another_page)
{
    other_page(0);
    write_cr4(read_cr4() | CR4_PGE);
    other_page(PG_G);
    write_cr4(read_cr4() & ~CR4_PGE);
}

/* One frame at two addresses: RET goes to the other one, and code knows where it is. */
TEST(the_same_page_elsewhere)
{
    static uint8_t frame[4096] __attribute__((aligned(4096)));
    paging_reset();
    memcpy(frame, "\xff\xd0\x48\x8d\x05\0\0\0\0\xc3", 10); /* call rax; lea rax, [rip+0]; ret */
    map_page(WINDOW, phys(frame), 1, PG_ALL);
    map_page(WINDOW + PAGE, phys(frame), 1, PG_ALL);
    pieces_begin();
    word callee = pieces_here();
    put(PIECE("add [rsp], rsi; ret"));
    for (unsigned i = 0; i < 3 * ROUNDS; i++) {
        word rax = callee, move = i / 3 % 2 * PAGE;
        asm volatile("call *%%rdx" : "+a"(rax) : "d"(WINDOW), "S"(move) : "memory", "cc");
        CHECK_EQ(rax, WINDOW + move + 9);
    }
}

/* A program returns to where the kernel's call is open: it may not even fetch there. */
TEST(another_privilege)
{
    static uint8_t frame[4096] __attribute__((aligned(4096)));
    const struct piece code =
        PIECE("call 1f; inc eax; int 0x62; 1: test esi, esi; jnz 2f; ret; 2: sysretq");
    memcpy(frame, code.at, (size_t)(code.end - code.at));
    set_gate(GATE, (word)trap_stubs + 16 * GATE, SEL_CODE, 14, 3, 0);
    paging_reset();
    map_page(WINDOW, phys(frame), 1, PG_P | PG_W);
    pieces_begin();
    struct context c = kernel_context();
    c.rip = WINDOW, c.rsp = STACK_END, c.rdx = WINDOW + 5, c.r11 = 2, c.rcx = pieces_here();
    put(PIECE("push rdx; ret"));
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | 1);                              /* SCE */
    wrmsr(0xc0000081, (word)SEL_CODE << 32 | (word)SEL_UCODE32 << 48); /* STAR */
    for (unsigned i = 0; i < 2 * ROUNDS; i++) {
        c.rsi = i & 1;
        struct trap t = RUN(c);
        CHECK_EQ(t.vector, i & 1 ? V_PF : GATE);
        CHECK_EQ(t.frame.rax, i & 1 ? 0 : 1);
        CHECK_EQ(t.frame.cs, i & 1 ? SEL_UCODE : SEL_CODE);
        if (i & 1)
            CHECK_EQ(t.frame.rip, WINDOW + 5);
    }
}

/* A function called with AC = 1 returns with AC = 0: the caller's accesses are refused. */
TEST(another_access)
{
    uint32_t r[4];
    cpuid(7, 0, r);
    REQUIRE(r[1] >> 20 & 1); /* SMAP */
    paging_reset();
    map_page(WINDOW, FREE_RAM, 1, PG_ALL);
    boot_pml4[0] &= ~PG_U;
    flush_all();
    write_cr4(read_cr4() | CR4_SMAP);
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct trap t =
            CATCH(asm volatile("stac; mov (%0), %%rax; call 1f\n" LABEL(
                                   refused_here) "mov (%0), %%rax; ud2; 1: test "
                                                 "%1, %1; jz 2f; clac; 2: ret" ::"r"(WINDOW),
                               "r"(i & 1)
                               : "rax", "memory", "cc"));
        CHECK_EQ(t.vector, i & 1 ? V_PF : V_UD);
        if (i & 1)
            CHECK_EQ(t.frame.rip, SYMBOL(refused_here));
        asm volatile("clac" ::: "cc");
    }
    write_cr4(read_cr4() & ~CR4_SMAP);
    boot_pml4[0] |= PG_U;
    flush_all();
}

/* ---- Steps, and 32-bit code --------------------------------------------------------------------
 */

TEST(step_over_a_return)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct trap t = run(
            PIECE("call 1f; 2: nop; nop; 1: lea rax, [rip+2b]; pushf; or dword ptr [rsp], 0x100; "
                  "popf; ret"),
            0);
        CHECK_EQ(t.vector, V_DB);
        CHECK_EQ(t.frame.rip, t.frame.rax);
        CHECK_EQ(t.frame.rsp, STACK_END);
    }
}

asm(".code32\n" LABEL(
    compat_code) "xor %eax, %eax; mov $600, %ecx; call 1f; push %eax; call 4f; pop "
                 "%eax; add $7, %eax; int $0x62;"
                 "1: test %ecx, %ecx; jz 2f; dec %ecx; call 1b; inc %eax; 2: ret;"
                 "4: push $1; push $2; call 5f; ret; 5: mov $6f, %edx; xchg %edx, (%esp); jmp 7f; "
                 "6: jmp *%edx;"
                 "7: ret $8\n.code64");

TEST(compatibility_mode)
{
    struct context c = context_at(SYMBOL(compat_code), SEL_UCODE32, SEL_UDATA);
    c.rsp = STACK_END;
    set_gate(GATE, (word)trap_stubs + 16 * GATE, SEL_CODE, 14, 3, 0);
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct trap t = RUN(c);
        CHECK_EQ(t.vector, GATE);
        CHECK_EQ(t.frame.rax, 607);
        CHECK_EQ(t.frame.rsp, STACK_END);
    }
}

/* A far JMP to 32-bit code leaves RSP alone, but each POP there clears its upper half: the words
 * that POPs and RET look up together lie where ESP points, whatever is above it before and between.
 */
asm(LABEL(to_compat_pops) "ljmpl *far_compat_pops(%rip)\n.code32\n" LABEL(
    compat_pops) "pop %eax; pop %ebx; ret; ud2\n" LABEL(compat_popped) "add %ebx, %eax; int "
                                                                       "$0x62\n.code64");
struct {
    uint32_t offset;
    uint16_t selector;
} far_compat_pops;

TEST(upper_half_of_the_stack_pointer)
{
    static const uint64_t upper[] = {0, 1, 0x1000, 0x7fff0000, 0xffffffff};
    far_compat_pops.offset = (uint32_t)SYMBOL(compat_pops);
    far_compat_pops.selector = SEL_UCODE32;
    set_gate(GATE, (word)trap_stubs + 16 * GATE, SEL_CODE, 14, 3, 0);
    for (unsigned i = 0; i < ROUNDS; i++)
        for (unsigned k = 0; k < sizeof(upper) / sizeof(upper[0]); k++) {
            struct context c = context_at(SYMBOL(to_compat_pops), SEL_UCODE, SEL_UDATA);
            uint32_t *words = (uint32_t *)(STACK_END - 16);
            words[0] = 5, words[1] = 3 + k, words[2] = (uint32_t)SYMBOL(compat_popped);
            c.rsp = (word)words | upper[k] << 32;
            struct trap t = RUN(c);
            CHECK_EQ(t.vector, GATE);
            CHECK_EQ(t.frame.rax, 8 + k);
            CHECK_EQ(t.frame.rsp, STACK_END - 4);
        }
}

const struct test guest_tests[] = {T(nested_and_recursive),
                                   T(return_address_changed),
                                   T(skipped_frames),
                                   T(calls_that_never_return),
                                   T(switched_stacks),
                                   T(ret_imm),
                                   T(not_canonical),
                                   T(to_zero),
                                   T(changed_code),
                                   T(another_page),
                                   T(the_same_page_elsewhere),
                                   T(another_privilege),
                                   T(another_access),
                                   T(step_over_a_return),
                                   T(compatibility_mode),
                                   T(upper_half_of_the_stack_pointer),
                                   {0, 0}};
