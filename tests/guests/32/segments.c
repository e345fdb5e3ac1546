/*
 * segments.c - what a loaded segment allows: limits of every kind, types, null registers, stacks of
 * 16 and 32 bits, code limits (SDM vol. 3, 3.4, 5.3-5.5; vol. 1, 6.2).
 *
 * QEMU's TCG checks neither limits nor types nor presence here: only wraps and sizes agree.
 */
#include "rings.h"

static uint8_t arena[0x20000] __attribute__((aligned(0x10000)));

/* ---- Limits ------------------------------------------------------------------------------------
 */

static __attribute__((noinline, noclone)) struct trap access_fs(unsigned sel, uint32_t offset,
                                                                unsigned size, bool write)
{
    asm volatile("movw %w0, %%fs" ::"r"(sel) : "memory");
    switch (size << 1 | write) {
    case 1 << 1:
        return CATCH(asm volatile("movb %%fs:(%0), %%al" ::"r"(offset) : "eax", "memory"));
    case 2 << 1:
        return CATCH(asm volatile("movw %%fs:(%0), %%ax" ::"r"(offset) : "eax", "memory"));
    case 4 << 1:
        return CATCH(asm volatile("movl %%fs:(%0), %%eax" ::"r"(offset) : "eax", "memory"));
    case 8 << 1: /* compares, and does not match: a read and a write of 8 bytes */
        return CATCH(
            asm volatile("cmpxchg8b %%fs:(%0)" ::"r"(offset), "a"(1), "d"(2), "b"(3), "c"(4)
                         : "memory"));
    case 10 << 1:
        return CATCH(asm volatile("fldt %%fs:(%0); fstp %%st(0)" ::"r"(offset) : "memory"));
    case 1 << 1 | 1:
        return CATCH(asm volatile("movb %%al, %%fs:(%0)" ::"r"(offset), "a"(0) : "memory"));
    case 2 << 1 | 1:
        return CATCH(asm volatile("movw %%ax, %%fs:(%0)" ::"r"(offset), "a"(0) : "memory"));
    case 4 << 1 | 1:
        return CATCH(asm volatile("movl %%eax, %%fs:(%0)" ::"r"(offset), "a"(0) : "memory"));
    case 8 << 1 | 1: /* SIDT stores 6 bytes */
        return CATCH(asm volatile("sidt %%fs:(%0)" ::"r"(offset) : "memory"));
    default:
        return CATCH(asm volatile("fnstenv %%fs:(%0)" ::"r"(offset) : "memory"));
    }
}
static const unsigned write_size[] = {[1] = 1, [2] = 2, [4] = 4, [8] = 6, [10] = 28};

static bool inside(unsigned attr, uint64_t limit, uint64_t offset, unsigned size)
{
    if ((attr & 0x1c) == 0x14) /* expand-down */
        return offset > limit && offset + size - 1 <= (attr & D_BIG ? 0xffffffffu : 0xffffu);
    return offset + size - 1 <= limit;
}

static void limits_of(uint32_t base, unsigned attr, uint32_t limit)
{
    static const uint8_t sizes[] = {1, 2, 4, 8, 10};
    const uint32_t effective = attr & D_PAGES ? limit << 12 | 0xfff : limit;
    const uint32_t around[] = {0, effective, 0x10000, 0x7fffff00, 0xffffffff};

    gdt[FREE(0) / 8] = descriptor(base, limit, attr);
    for (unsigned n = 0; n < sizeof(around) / sizeof(around[0]); n++) {
        for (int d = -30; d <= 12; d++) {
            uint32_t offset = around[n] + (uint32_t)d, lin = base + offset;
            for (unsigned s = 0; s < sizeof(sizes); s++) {
                unsigned size = sizes[s];
                bool ok = inside(attr, effective, offset, size);
                if (ok || size != 8) { /* CMPXCHG8B writes */
                    if (!(ok && lin - (word)arena > sizeof(arena) - 32)) {
                        struct trap t = access_fs(FREE(0), offset, size, false);
                        if (t.vector != (ok ? NO_TRAP : V_GP) || (!ok && t.error))
                            print("  read of %u at %x, limit %x, attr %x: %u\n", size, offset,
                                  effective, attr, (unsigned)t.vector);
                        CHECK_EQ(t.vector, ok ? NO_TRAP : V_GP);
                        CHECK(ok || t.error == 0);
                    }
                }
                ok = inside(attr, effective, offset, write_size[size]);
                if (ok && lin - (word)arena > sizeof(arena) - 32)
                    continue; /* allowed, but not ours */
                struct trap t = access_fs(FREE(0), offset, size, true);
                CHECK_EQ(t.vector, ok ? NO_TRAP : V_GP);
                CHECK(ok || t.error == 0);
            }
        }
    }
}

TEST(byte_granular_limits)
{
    limits_of((word)arena, D_DATA | D_BIG, 0);
    limits_of((word)arena, D_DATA, 0xffff);
    limits_of((word)arena, D_DATA | D_BIG, 0x12345);
}

TEST(page_granular_limits)
{
    limits_of((word)arena, D_DATA | FLAT, 0);
    limits_of((word)arena, D_DATA | FLAT, 0x10);
}

TEST(expand_down_limits)
{
    limits_of((word)arena, D_EXPAND_DOWN, 0x0fff); /* 16 bits: 1000h-FFFFh */
    limits_of((word)arena, D_EXPAND_DOWN, 0);
    limits_of((word)arena, D_EXPAND_DOWN, 0xffff); /* nothing */
    limits_of((word)arena + 0x10000, D_EXPAND_DOWN | D_BIG, 0xffff);
    limits_of((word)arena + 0x10000, D_EXPAND_DOWN | FLAT, 0xffff0);
    limits_of((word)arena, D_EXPAND_DOWN | D_PAGES, 7); /* 8000h-FFFFh */
}

TEST(linear_addresses_wrap)
{
    arena[0x100] = 0xb4;
    uint8_t got;
    gdt[FREE(0) / 8] = descriptor(0xfffff000, 0xfffff, D_DATA | FLAT);
    asm volatile("movw %w1, %%fs; movb %%fs:(%2), %0"
                 : "=q"(got)
                 : "r"(FREE(0)), "r"((word)arena + 0x100 + 0x1000)
                 : "memory");
    CHECK_EQ(got, 0xb4);
}

/* ---- Types -------------------------------------------------------------------------------------
 */

#define FS_TRAP(sel, instruction)                                                                  \
    ({                                                                                             \
        asm volatile("movw %w0, %%fs" ::"r"(sel) : "memory");                                      \
        CATCH(asm volatile(instruction ::: "eax", "cc", "memory"));                                \
    })

TEST(read_only_data)
{
    gdt[FREE(0) / 8] = descriptor((word)arena, 0xfff, D_READ_ONLY | D_BIG);
    memset(arena, 0, 64);
    CHECK_EQ(FS_TRAP(FREE(0), "movl %%fs:0, %%eax").vector, NO_TRAP);
    CHECK_EQ(FS_TRAP(FREE(0), "btl $0, %%fs:0").vector, NO_TRAP);
    CHECK_EQ(FS_TRAP(FREE(0), "cmpl $0, %%fs:0").vector, NO_TRAP);
    struct trap t = FS_TRAP(FREE(0), LABEL(ro_store) "movl %%eax, %%fs:0");
    CHECK_TRAP(t, V_GP, 0, SYMBOL(ro_store));
    t = FS_TRAP(FREE(0), LABEL(ro_add) "addl $1, %%fs:0");
    CHECK_TRAP(t, V_GP, 0, SYMBOL(ro_add));
    t = FS_TRAP(FREE(0), LABEL(ro_bts) "btsl $0, %%fs:0");
    CHECK_TRAP(t, V_GP, 0, SYMBOL(ro_bts));
    t = FS_TRAP(FREE(0), LABEL(ro_xchg) "xchgl %%eax, %%fs:0");
    CHECK_TRAP(t, V_GP, 0, SYMBOL(ro_xchg));
    /* The compare fails, and yet the destination is written to (SDM vol. 2, CMPXCHG). */
    t = FS_TRAP(FREE(0), "movl $1, %%eax\n" LABEL(ro_cmpxchg) "cmpxchgl %%ecx, %%fs:0");
    CHECK_TRAP(t, V_GP, 0, SYMBOL(ro_cmpxchg));
    t = FS_TRAP(FREE(0), LABEL(ro_setcc) "sete %%fs:0");
    CHECK_TRAP(t, V_GP, 0, SYMBOL(ro_setcc));
    t = FS_TRAP(FREE(0), LABEL(ro_fnstcw) "fnstcw %%fs:0");
    CHECK_TRAP(t, V_GP, 0, SYMBOL(ro_fnstcw));
    CHECK_EQ(arena[0], 0);
}

TEST(code_through_a_data_register)
{
    gdt[FREE(0) / 8] = descriptor((word)arena, 0xfff, D_CODE | D_BIG);
    CHECK_EQ(FS_TRAP(FREE(0), "movl %%fs:0, %%eax").vector, NO_TRAP);
    struct trap t = FS_TRAP(FREE(0), LABEL(code_store) "movl %%eax, %%fs:0");
    CHECK_TRAP(t, V_GP, 0, SYMBOL(code_store));
}

CODE32(read_cs, LABEL(read_cs_here) "movl %cs:(%ebx), %eax; int3");
CODE32(write_cs, LABEL(write_cs_here) "movl %eax, %cs:(%ebx); int3");

TEST(accesses_through_cs)
{
    rings_setup();
    struct context c = context_ring((word)read_cs, 3);
    c.rbx = (word)arena;
    CHECK_EQ(RUN(c).vector, V_BP);
    c.rip = (word)write_cs;
    CHECK_TRAP(RUN(c), V_GP, 0, SYMBOL(write_cs_here));
    gdt[FREE(0) / 8] = descriptor(0, 0xfffff, D_CODE_XO | FLAT | D_DPL3);
    c.cs = FREE(0) | 3;
    CHECK_TRAP(RUN(c), V_GP, 0, SYMBOL(write_cs_here));
    c.rip = (word)read_cs;
    CHECK_TRAP(RUN(c), V_GP, 0, SYMBOL(read_cs_here));
}

TEST(null_segments)
{
    for (unsigned rpl = 0; rpl < 4; rpl++) {
        struct trap t = access_fs(rpl, 0, 1, false);
        CHECK_EQ(t.vector, V_GP);
        CHECK_EQ(t.error, 0);
        t = access_fs(rpl, 0x1000, 1, true);
        CHECK_EQ(t.vector, V_GP);
        CHECK_EQ(t.error, 0);
    }
}

/* ---- Stacks ------------------------------------------------------------------------------------
 */

CODE32(push_long, "pushl $0x12345678; int3");
CODE32(push_word, "pushw $0x1234; int3");
CODE32(pop_long, "popl %eax; int3");
CODE32(push_all, "pushal; int3");
CODE32(pop_all, "popal; int3");
CODE32(call_near, "call int3_here\n" LABEL(int3_here) "int3");
CODE32(ret_near, "ret; int3");
CODE32(enter_frame, "enter $0x20, $0; int3");
CODE32(leave_frame, "leave; int3");
CODE32(at_ebp, "movl (%ebp), %eax; int3");
CODE32(at_ss, "movb %ss:(%ebx), %al; int3");
CODE32(push_flags, "pushfl; int3");
CODE32(pop_memory, "popl (%ebx); int3");

/* IRET to a 16-bit stack loads SP only, so ESP is set by this. */
CODE32(with_esp, "movl %edx, %esp; jmp *%ecx");

/* At CPL 3 on a stack with its base at the arena: traps arrive on the inner stack, as they should
 * with one that is full. */
static struct trap on_stack(const char *code, unsigned attr, uint32_t limit, uint32_t esp)
{
    gdt[FREE(0) / 8] = descriptor((word)arena, limit, attr | D_DPL3);
    struct context c = context_ring((word)with_esp, 3);
    c.ss = FREE(0) | 3;
    c.rcx = (word)code;
    c.rdx = c.rbp = c.rbx = esp;
    return RUN(c);
}

static void check_overflow(const char *code, unsigned attr, uint32_t limit, uint32_t esp)
{
    struct trap t = on_stack(code, attr, limit, esp);
    CHECK_TRAP(t, V_SS, 0, (word)code);
    CHECK_EQ(t.rsp, esp); /* unmoved */
    CHECK_EQ(t.ss, FREE(0) | 3);
    CHECK_EQ(t.rflags & F_RF, F_RF);
}

TEST(stack_limits)
{
    const unsigned big = D_DATA | D_BIG, down = D_EXPAND_DOWN | D_BIG;
    rings_setup();
    CHECK_EQ(on_stack(push_long, big, 0xfff, 4).rsp, 0);
    check_overflow(push_long, big, 0xfff, 0); /* FFFFFFFCh */
    check_overflow(push_long, big, 0xfff, 3);
    check_overflow(push_flags, big, 0xfff, 3);
    CHECK_EQ(on_stack(push_long, big, 0xfff, 0x1000).rsp, 0xffc);
    check_overflow(push_long, big, 0xfff, 0x1001);
    CHECK_EQ(on_stack(pop_long, big, 0xfff, 0xffc).rsp, 0x1000);
    check_overflow(pop_long, big, 0xfff, 0xffd);
    CHECK_EQ(on_stack(push_long, down, 0x1003, 0x1008).rsp, 0x1004);
    check_overflow(push_long, down, 0x1003, 0x1007);
    CHECK_EQ(on_stack(pop_long, down, 0x1003, 0x1004).rsp, 0x1008);
    check_overflow(pop_long, down, 0x1003, 0x1003);
    check_overflow(call_near, big, 0xfff, 2);
    check_overflow(ret_near, big, 0xfff, 0xffd);
    check_overflow(enter_frame, big, 0xfff, 2);
    check_overflow(leave_frame, big, 0xfff, 0xffd);
    check_overflow(push_all, big, 0xfff, 0x1f);
    CHECK_EQ(on_stack(push_all, big, 0xfff, 0x20).rsp, 0);
    check_overflow(pop_all, big, 0xfff, 0xfe1);
    CHECK_EQ(on_stack(pop_all, big, 0xfff, 0xfe0).rsp, 0x1000);
    check_overflow(at_ebp, big, 0xfff, 0xffd);
    check_overflow(at_ss, big, 0xfff, 0x1000);
}

TEST(a_pop_to_bad_memory_keeps_the_stack_pointer)
{
    rings_setup();
    struct context c = context_ring((word)pop_memory, 3);
    c.ds = 0;
    c.rbx = (word)arena;
    struct trap t = RUN(c);
    CHECK_TRAP(t, V_GP, 0, (word)pop_memory);
    CHECK_EQ(t.rsp, c.rsp);
}

TEST(sixteen_bit_stacks)
{
    const volatile uint32_t *top = (const volatile uint32_t *)(arena + 0xfffc);
    struct trap t;
    rings_setup();
    t = on_stack(push_long, D_DATA, 0xffff, 0x56780000);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.rsp, 0x5678fffc); /* SP alone moves */
    CHECK_EQ(*top, 0x12345678);
    t = on_stack(pop_long, D_DATA, 0xffff, 0x9abcfffc);
    CHECK_EQ(t.rsp, 0x9abc0000);
    CHECK_EQ(t.frame.rax, 0x12345678);
    t = on_stack(push_word, D_DATA, 0xffff, 0x10002);
    CHECK_EQ(t.rsp, 0x10000);
    check_overflow(push_long, D_DATA, 0xffff, 0x10002); /* FFFEh-10001h */
    check_overflow(pop_long, D_DATA, 0xffff, 0xfffe);
    *(uint32_t *)(arena + 0xc) = 0x56789abc;
    t = on_stack(leave_frame, D_DATA, 0xffff, 0x1234000c);
    CHECK_EQ(t.rsp, 0x12340010);
    CHECK_EQ(t.frame.rbp, 0x56789abc);
    t = on_stack(push_all, D_DATA, 0xffff, 0x45670008); /* wraps between items */
    CHECK_EQ(t.rsp, 0x4567ffe8);
    CHECK_EQ(*(uint32_t *)arena, (word)push_all);        /* ECX, pushed second */
    CHECK_EQ(*(uint32_t *)(arena + 0xfff4), 0x45670008); /* ESP as it was */
    t = on_stack(call_near, D_DATA, 0xffff, 0xabcd0000);
    CHECK_EQ(t.rsp, 0xabcdfffc);
    CHECK_EQ(*top, SYMBOL(int3_here));
}

CODE32(enter_nested, "enter $0x20, $2; int3");

TEST(enter_takes_all_of_esp_into_ebp_on_a_16_bit_stack)
{
    rings_setup();
    struct trap t = on_stack(enter_frame, D_DATA, 0xffff, 0x12340010);
    CHECK_EQ(t.rsp, 0x1234ffec);
    CHECK_EQ(t.frame.rbp, 0x1234000c);
    CHECK_EQ(*(uint32_t *)(arena + 0xc), 0x12340010);
    t = on_stack(enter_nested, D_DATA, 0xffff, 0x12341010);
    CHECK_EQ(t.rsp, 0x12340fe4);
    CHECK_EQ(t.frame.rbp, 0x1234100c);
    CHECK_EQ(*(uint32_t *)(arena + 0x1004), 0x1234100c);
}

/* ---- Code --------------------------------------------------------------------------------------
 */

/* A code segment over this code, its limit cut short: offsets count from code_base. */
asm(".pushsection .text\n.code32\n" LABEL(code_base) LABEL(run_on) "nop; nop\n" LABEL(over_the_end) "movl $1, %eax; int3\n" LABEL(jumps) "jmp limit_end\n" LABEL(jcc) "jz limit_end\n" LABEL(calls) "call limit_end\n" LABEL(
    returns) "ret\n" LABEL(jumps_to) "jmp *%eax\n" LABEL(calls_to) "call *%eax\n" LABEL(loops) "loo"
                                                                                               "p "
                                                                                               ". "
                                                                                               "+ "
                                                                                               "127"
                                                                                               "\n" LABEL(returns_16) "retw\n"
                                                                                                                      ".fill 200, 1, 0xcc\n" LABEL(
                                                                                                                          limit_end) "int3\n.popsection");

static struct trap in_short_code(word at, uint32_t limit)
{
    const word base = SYMBOL(code_base);
    gdt[FREE(1) / 8] = descriptor(base, limit, D_CODE | D_BIG | D_DPL3);
    struct context c = context_ring(at - base, 3);
    c.cs = FREE(1) | 3;
    c.rax = SYMBOL(limit_end) - base;
    c.rcx = 2;
    c.rflags |= F_ZF;
    *(uint32_t *)(c.rsp - 4) = (uint32_t)c.rax;
    c.rsp -= 4;
    struct trap t = RUN(c);
    CHECK_EQ(t.rsp, c.rsp); /* neither CALL nor RET has moved it when it faults */
    return t;
}

TEST(code_limits)
{
    const word base = SYMBOL(code_base), end = SYMBOL(limit_end) - base;
    struct trap t;
    rings_setup();
    t = in_short_code(SYMBOL(run_on), 3); /* two NOPs, then the first two bytes of a MOV */
    CHECK_TRAP(t, V_GP, 0, SYMBOL(over_the_end) - base);
    t = in_short_code(SYMBOL(run_on), 1);
    CHECK_TRAP(t, V_GP, 0, SYMBOL(over_the_end) - base);
    t = in_short_code(SYMBOL(over_the_end), SYMBOL(jumps) - base - 2); /* up to the MOV's end */
    CHECK_TRAP(t, V_GP, 0, SYMBOL(jumps) - base - 1);
    t = in_short_code(SYMBOL(over_the_end), SYMBOL(jumps) - base - 1);
    CHECK_EQ(t.vector, V_BP);
    /* A branch that leaves the segment faults itself. */
    static const struct {
        const char *name;
        word at;
    } branches[] = {{"jmp", 0}, {"jcc", 1}, {"call", 2}, {"ret", 3}, {"jmp r", 4}, {"call r", 5}};
    const word at[] = {SYMBOL(jumps),   SYMBOL(jcc),      SYMBOL(calls),
                       SYMBOL(returns), SYMBOL(jumps_to), SYMBOL(calls_to)};
    for (unsigned i = 0; i < 6; i++) {
        t = in_short_code(at[i], (uint32_t)end - 1);
        if (t.vector != V_GP || t.rip != at[i] - base)
            print("  %s: vector %u, eip %lx\n", branches[i].name, (unsigned)t.vector,
                  (unsigned long)t.rip);
        CHECK_TRAP(t, V_GP, 0, at[i] - base);
    }
    t = in_short_code(SYMBOL(loops), (uint32_t)(SYMBOL(loops) - base) + 64);
    CHECK_TRAP(t, V_GP, 0, SYMBOL(loops) - base);
    CHECK_EQ(t.frame.rcx, 2); /* LOOP has not counted */
    t = in_short_code(SYMBOL(jumps), (uint32_t)end);
    CHECK_EQ(t.vector, V_BP);
}

/* 16-bit code in protected mode: operands, addresses and branch targets of 16 bits. */
CODE16(word_code, "movl $0xffffffff, %eax; movw $0x1234, %ax; pushw %ax; movw $0xffff, %bx;"
                  "leaw 2(%bx), %cx; movl $0x12345678, %edx; leal 2(%edx), %edi; jmp 1f; int3;"
                  "1: movzwl %cx, %ecx; int3\n" LABEL(word_code_last) "int3");

TEST(sixteen_bit_code)
{
    rings_setup();
    gdt[FREE(1) / 8] = descriptor((word)word_code, 0xffff, D_CODE | D_DPL3);
    struct context c = context_ring(0, 3);
    c.cs = FREE(1) | 3;
    struct trap t = RUN(c);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.rip, OFFSET16(word_code, word_code_last));
    CHECK_EQ(t.frame.rax, 0xffff1234);
    CHECK_EQ(t.frame.rcx, 1);
    CHECK_EQ(t.frame.rdi, 0x1234567a);
    CHECK_EQ(t.rsp, c.rsp - 2); /* the stack has its own size: ESP counts with SS.B */
}

TEST(sixteen_bit_code_on_a_sixteen_bit_stack)
{
    rings_setup();
    gdt[FREE(0) / 8] = descriptor((word)arena, 0xffff, D_DATA | D_DPL3);
    gdt[FREE(1) / 8] = descriptor((word)word_code, 0xffff, D_CODE | D_DPL3);
    struct context c = context_ring(0, 3);
    c.cs = FREE(1) | 3;
    c.ss = FREE(0) | 3;
    c.rsp = 0;
    struct trap t = RUN(c);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.rsp & 0xffff, 0xfffe);
    CHECK_EQ(*(uint16_t *)(arena + 0xfffe), 0x1234);
}

const struct test guest_tests[] = {T(byte_granular_limits),
                                   T(page_granular_limits),
                                   T(expand_down_limits),
                                   T(linear_addresses_wrap),
                                   T(read_only_data),
                                   T(code_through_a_data_register),
                                   T(accesses_through_cs),
                                   T(null_segments),
                                   T(stack_limits),
                                   T(a_pop_to_bad_memory_keeps_the_stack_pointer),
                                   T(sixteen_bit_stacks),
                                   T(enter_takes_all_of_esp_into_ebp_on_a_16_bit_stack),
                                   T(code_limits),
                                   T(sixteen_bit_code),
                                   T(sixteen_bit_code_on_a_sixteen_bit_stack),
                                   {0, 0}};
