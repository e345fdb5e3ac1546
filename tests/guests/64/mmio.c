/*
 * mmio.c - instructions of every kind that meet device registers or nothing at all: widths,
 * strings, read-modify-write, locked and vector accesses, stack, code and page tables where no
 * memory is; the end of RAM in the middle of an access (-m 64).
 */
#include "machine.h"

#define NOWHERE 0xd8000000ull
#define RAM_END (64ull << 20)
enum { HPET = 0xfed00000, HPET_CONF = 0x10, HPET_COUNTER = 0xf0, HPET_CMP = 0x108 };

static volatile uint8_t *b(uint64_t a)
{
    return (volatile uint8_t *)(uintptr_t)a;
}
static volatile uint32_t *d(uint64_t a)
{
    return (volatile uint32_t *)(uintptr_t)a;
}
static volatile uint64_t *q(uint64_t a)
{
    return (volatile uint64_t *)(uintptr_t)a;
}

/* ---- Nothing ------------------------------------------------------------------------------------
 */

TEST(nothing_reads_as_ones)
{
    static const uint64_t places[] = {NOWHERE, NOWHERE + 0x123456, RAM_END,    0xa0000,
                                      0xc8000, 0xfffffff0,         0xfec10000, 0xfefa0000};
    for (unsigned i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        *q(places[i]) = 0;
        CHECK_EQ(*q(places[i]), ~0ull);
        CHECK_EQ(*d(places[i] + 1), 0xffffffff); /* misaligned */
        CHECK_EQ(*b(places[i]), 0xff);
    }
}

TEST(arithmetic_on_nothing)
{
    uint32_t v = 5;
    *d(NOWHERE) += 1;
    CHECK_EQ(*d(NOWHERE), 0xffffffff);
    asm volatile("lock addl $1, %0" : "+m"(*d(NOWHERE)));
    CHECK_EQ(*d(NOWHERE), 0xffffffff);
    asm volatile("xchg %0, %1" : "+r"(v), "+m"(*d(NOWHERE)));
    CHECK_EQ(v, 0xffffffff);
    v = 7;
    asm volatile("lock xadd %0, %1" : "+r"(v), "+m"(*d(NOWHERE)));
    CHECK_EQ(v, 0xffffffff);
    uint64_t lo = ~0ull, hi = ~0ull;
    bool equal;
    asm volatile("lock cmpxchg16b %1; setz %0"
                 : "=r"(equal), "+m"(*(volatile __int128 *)q(NOWHERE)), "+a"(lo), "+d"(hi)
                 : "b"(1ull), "c"(2ull));
    CHECK(equal);
    CHECK_EQ(*q(NOWHERE), ~0ull);
    lo = hi = 0;
    asm volatile("lock cmpxchg16b %1; setz %0"
                 : "=r"(equal), "+m"(*(volatile __int128 *)q(NOWHERE)), "+a"(lo), "+d"(hi)
                 : "b"(1ull), "c"(2ull));
    CHECK(!equal);
    CHECK_EQ(lo & hi, ~0ull);
}

TEST(strings_and_nothing)
{
    static uint8_t buffer[4096];
    void *to = (void *)NOWHERE;
    const void *from = buffer;
    word n = 4096;
    asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n)::"memory");
    CHECK_EQ((word)to, NOWHERE + 4096);
    to = buffer, from = (void *)(NOWHERE + 1), n = 512;
    asm volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(n)::"memory");
    for (unsigned i = 0; i < 4096; i++)
        if (buffer[i] != 0xff)
            CHECK_EQ(buffer[i], 0xff);
    to = (void *)NOWHERE, n = 100;
    asm volatile("rep stosl" : "+D"(to), "+c"(n) : "a"(0) : "memory");
    CHECK_EQ((word)to, NOWHERE + 400);
    to = (void *)NOWHERE, n = 1000;
    asm volatile("repe scasb" : "+D"(to), "+c"(n) : "a"(0xff) : "memory", "cc");
    CHECK_EQ(n, 0);
    /* out of RAM into nothing, in one go */
    to = (void *)(RAM_END - 100), n = 200;
    asm volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(0x5a) : "memory");
    CHECK_EQ(*b(RAM_END - 1), 0x5a);
    CHECK_EQ(*b(RAM_END), 0xff);
}

TEST(vectors_and_nothing)
{
    static uint64_t out[2] __attribute__((aligned(16)));
    asm volatile("movups (%0), %%xmm0; movups %%xmm0, (%1)" ::"r"(NOWHERE), "r"(out) : "memory");
    CHECK_EQ(out[0] & out[1], ~0ull);
    asm volatile("movups %%xmm0, (%0)" ::"r"(NOWHERE + 5) : "memory");
    *q(RAM_END - 8) = 0x1122334455667788;
    asm volatile("movups (%0), %%xmm0; movups %%xmm0, (%1)" ::"r"(RAM_END - 8), "r"(out)
                 : "memory");
    CHECK_EQ(out[0], 0x1122334455667788);
    CHECK_EQ(out[1], ~0ull);
    out[0] = out[1] = 0xabababababababab;
    asm volatile("movups (%1), %%xmm0; movups %%xmm0, (%0)" ::"r"(RAM_END - 8), "r"(out)
                 : "memory");
    CHECK_EQ(*q(RAM_END - 8), 0xabababababababab);
    CHECK_EQ(*q(RAM_END), ~0ull);
}

TEST(the_end_of_ram)
{
    for (unsigned i = 1; i < 8; i++) {
        *q(RAM_END - 8) = 0x1122334455667788;
        CHECK_EQ(*q(RAM_END - i), (0x1122334455667788 >> 8 * (8 - i)) | ~0ull << 8 * i);
        *q(RAM_END - i) = 0;
        CHECK_EQ(*q(RAM_END - 8), 0x1122334455667788 & ((1ull << 8 * (8 - i)) - 1));
    }
    *q(RAM_END - 8) = 0x00000005ffffffff;
    asm volatile("lock addq $1, %0" : "+m"(*q(RAM_END - 4)));
    CHECK_EQ(*q(RAM_END - 8), 0x00000006ffffffff);
    asm volatile("addl $1, %0" : "+m"(*d(RAM_END - 2)));
    CHECK_EQ(*q(RAM_END - 8) >> 48, 1);
}

TEST(stack_in_nothing)
{
    word popped = 1, flags = 1;
    asm volatile(
        "mov %%rsp, %%rbx; mov %2, %%rsp; push $0x77; pop %0; pushf; popq %1; mov %%rbx, %%rsp"
        : "=&r"(popped), "=&r"(flags)
        : "r"(NOWHERE + 0x800)
        : "rbx", "memory");
    CHECK_EQ(popped, ~0ull);
    CHECK_EQ(flags, ~0ull);
}

/* FF FF is no instruction. */
TEST(code_in_nothing)
{
    struct trap t = CATCH(asm volatile("call *%0" ::"r"(NOWHERE) : "memory"));
    CHECK_EQ(t.vector, 6);
    CHECK_EQ(t.rip, NOWHERE);
    /* MOV EAX, FFFFFFFFh: its first byte is the last of RAM */
    *b(RAM_END - 1) = 0xb8;
    t = CATCH(asm volatile("call *%0" ::"r"(RAM_END - 1) : "memory", "rax"));
    CHECK_EQ(t.vector, 6);
    CHECK_EQ(t.rip, RAM_END + 4);
    CHECK_EQ(t.frame.rax, 0xffffffff);
}

/* Entries of ones: present, with reserved bits. */
TEST(page_table_in_nothing)
{
    boot_pdpt[8] = NOWHERE | 7;
    struct trap t = CATCH(asm volatile("movb 0x200000000, %%al" ::: "rax", "memory"));
    CHECK_EQ(t.vector, 14);
    CHECK_EQ(t.error, 9); /* P, RSVD */
    CHECK_EQ(t.cr2, 0x200000000);
    boot_pdpt[8] = 0;
    write_cr3(read_cr3());
}

/* ---- Registers ----------------------------------------------------------------------------------
 */

/* The HPET's comparators are plain 64-bit registers, to be had by halves. */
TEST(instructions_on_registers)
{
    volatile uint64_t *r = q(HPET + HPET_CMP);
    *d(HPET + HPET_CONF) = 0;
    *r = 0x1111111122222222;
    CHECK_EQ(*r, 0x1111111122222222);
    CHECK_EQ(*d(HPET + HPET_CMP + 4), 0x11111111);
    *d(HPET + HPET_CMP + 4) = 0x33333333;
    CHECK_EQ(*r, 0x3333333322222222);
    asm volatile("addq $1, %0" : "+m"(*r));
    CHECK_EQ(*r, 0x3333333322222223);
    asm volatile("lock addq $1, %0" : "+m"(*r));
    CHECK_EQ(*r, 0x3333333322222224);
    asm volatile("lock incl %0" : "+m"(*(volatile uint32_t *)r));
    CHECK_EQ(*r, 0x3333333322222225);
    asm volatile("notl %0" : "+m"(*(volatile uint32_t *)r));
    CHECK_EQ(*r, 0x33333333ddddddda);
    uint64_t v = 5;
    asm volatile("xchg %0, %1" : "+r"(v), "+m"(*r));
    CHECK_EQ(v, 0x33333333ddddddda);
    CHECK_EQ(*r, 5);
    uint64_t expected = 5;
    bool equal;
    asm volatile("lock cmpxchg %3, %1; setz %0"
                 : "=r"(equal), "+m"(*r), "+a"(expected)
                 : "r"(9ull));
    CHECK(equal);
    CHECK_EQ(*r, 9);
    asm volatile("lock cmpxchg %3, %1; setz %0"
                 : "=r"(equal), "+m"(*r), "+a"(expected)
                 : "r"(11ull));
    CHECK(!equal);
    CHECK_EQ(expected, 9);
    asm volatile("btsl $4, %0" : "+m"(*(volatile uint32_t *)r));
    CHECK_EQ(*r, 25);
    /* by string instructions, each element one access */
    uint32_t words[2] = {0xcafe, 0xbabe};
    const void *from = words;
    void *to = (void *)(uintptr_t)r;
    word n = 2;
    asm volatile("rep movsl" : "+D"(to), "+S"(from), "+c"(n)::"memory");
    CHECK_EQ(*r, 0x0000babe0000cafe);
    from = (const void *)(uintptr_t)r, to = words, n = 2;
    words[0] = words[1] = 0;
    asm volatile("rep movsl" : "+D"(to), "+S"(from), "+c"(n)::"memory");
    CHECK_EQ(words[0], 0xcafe);
    CHECK_EQ(words[1], 0xbabe);
    *r = ~0ull;
}

/* An instruction that reads and writes does both: INC of the I/O APIC's data register. */
TEST(read_modify_write_of_a_window)
{
    ioapic_entry(5, 0, ENTRY_MASKED | 0x40);
    *d(IOAPIC_PAGE) = 0x1a;
    asm volatile("incl %0" : "+m"(*d(IOAPIC_PAGE + 0x10)));
    CHECK_EQ(ioapic_read(0x1a), ENTRY_MASKED | 0x41);
    asm volatile("lock orl $2, %0" : "+m"(*d(IOAPIC_PAGE + 0x10)));
    CHECK_EQ(ioapic_read(0x1a), ENTRY_MASKED | 0x43);
    ioapic_entry(5, 0, ENTRY_MASKED);
}

/* The local APIC: dwords on 16-byte boundaries. Others are undefined (SDM vol. 3, 11.4.1), but may
 * do no harm. */
TEST(local_apic_by_odd_accesses)
{
    apic_quiet();
    apic_write(APIC_TPR, 0x20);
    volatile uint64_t sink = 0;
    for (unsigned reg = 0; reg < 0xff8; reg++) {
        sink += *b(0xfee00000 + reg);
        sink += *d(0xfee00000 + reg);
        sink += *q(0xfee00000 + reg);
    }
    sink += *q(0xfee00ffc); /* out of the page */
    CHECK_EQ(apic_read(APIC_TPR), 0x20);
    apic_write(APIC_TPR, 0);
    CHECK_EQ(apic_read(APIC_TPR), 0);
    (void)sink;
}

const struct test guest_tests[] = {T(nothing_reads_as_ones),
                                   T(arithmetic_on_nothing),
                                   T(strings_and_nothing),
                                   T(vectors_and_nothing),
                                   T(the_end_of_ram),
                                   T(stack_in_nothing),
                                   T(code_in_nothing),
                                   T(page_table_in_nothing),
                                   T(instructions_on_registers),
                                   T(read_modify_write_of_a_window),
                                   T(local_apic_by_odd_accesses),
                                   {0, 0}};
