/*
 * smc.c - self-modifying code: the next instruction, across pages, through other mappings, by
 * every kind of store, and code that the processor itself writes (SDM vol. 3, 9.1.3, 12.6).
 */
#include "paging.h"

static uint8_t code[4][4096] __attribute__((aligned(4096)));
static void serialise(void)
{
    uint32_t r[4];
    cpuid(0, 0, r);
}
static unsigned run(const volatile void *p)
{
    return ((unsigned (*)(void))(word)p)();
}
/* mov $value, %eax; ret */
static void put_mov(uint8_t *at, uint32_t value)
{
    at[0] = 0xb8;
    memcpy(at + 1, &value, 4);
    at[5] = 0xc3;
}

/* The store and the code through the same linear address: no jump, no serialising is needed. */
TEST(the_next_instruction)
{
    for (unsigned i = 1; i < 200; i++) {
        unsigned got;
        asm volatile("movb %b1, 1f+1(%%rip)\n1: movb $0, %%al\n movzbl %%al, %0"
                     : "=r"(got)
                     : "r"(i & 0xff)
                     : "rax", "memory");
        CHECK_EQ(got, i & 0xff);
    }
}

TEST(the_instruction_itself)
{
    /* rep stosb over itself and what follows: it goes on as it was, the rest is NOPs then */
    static const uint8_t master[] = {0xf3, 0xaa, 0xff, 0xc2, 0xff, 0xc2, 0xc3};
    memcpy(code[0], master, sizeof(master)); /* rep stosb; inc %edx; inc %edx; ret */
    unsigned count = 6, incs = 0;
    uint8_t *to = code[0];
    asm volatile("call *%3"
                 : "+c"(count), "+D"(to), "+d"(incs)
                 : "r"(code[0]), "a"(0x90)
                 : "memory");
    CHECK_EQ(count, 0);
    CHECK_EQ(incs, 0);
    CHECK_EQ(code[0][5], 0x90);
}

TEST(a_function_many_times)
{
    for (uint32_t i = 0; i < 3000; i++) {
        put_mov(code[0] + 100, i);
        CHECK_EQ(run(code[0] + 100), i);
    }
}

/* Of another length, with other boundaries. */
TEST(other_instruction_boundaries)
{
    memcpy(code[0], "\xb8\x01\x00\x00\x00\x83\xc0\x02\xc3", 9); /* mov $1; add $2 */
    CHECK_EQ(run(code[0]), 3);
    code[0][1] = 0xb0; /* mov $0x..b0 */
    CHECK_EQ(run(code[0]), 0xb2);
    memcpy(code[0], "\x31\xc0\xff\xc0\xff\xc0\xff\xc0\xc3", 9); /* xor; inc; inc; inc */
    CHECK_EQ(run(code[0]), 3);
    code[0][2] = 0xc3;
    CHECK_EQ(run(code[0]), 0);
}

/* An instruction over a page boundary: either half can change. */
TEST(across_pages)
{
    uint8_t *at = code[1] - 3;
    for (uint32_t i = 0; i < 300; i++) {
        put_mov(at, i * 0x01010101);
        CHECK_EQ(run(at), i * 0x01010101);
        code[1][1] = 0x77; /* the last byte of the number */
        CHECK_EQ(run(at), (i * 0x01010101 & 0xffffff) | 0x77000000);
        at[1] = 0x66;
        CHECK_EQ(run(at), (i * 0x01010101 & 0xffff00) | 0x77000066);
    }
    /* a block that goes on into the next page */
    memset(code[0], 0x90, 4096);
    memset(code[1], 0x90, 16);
    put_mov(code[1] + 16, 1);
    for (uint32_t i = 0; i < 100; i++) {
        put_mov(code[1] + 16, i);
        CHECK_EQ(run(code[1] - 8), i);
    }
}

/* Through another linear address; then a serialising instruction is due. */
TEST(through_an_alias)
{
    paging_reset();
    volatile uint8_t *alias = map_page(WINDOW, phys(code[0]), 1, PG_ALL);
    uint64_t base = phys(code[0]) & ~0x1fffffull;
    volatile uint8_t *big = map_page(WINDOW + 0x200000, base, 2, PG_ALL) + (phys(code[0]) - base);
    for (uint32_t i = 0; i < 300; i++) {
        put_mov(code[0] + 64, i);
        CHECK_EQ(run(code[0] + 64), i);
        alias[65] = 0x55;
        serialise();
        CHECK_EQ(run(code[0] + 64), (i & ~0xffu) | 0x55);
        big[66] = 0x44;
        serialise();
        CHECK_EQ(run(code[0] + 64), (i & ~0xffffu) | 0x4455);
        CHECK_EQ(run(alias + 64), (i & ~0xffffu) | 0x4455);
        code[0][65] = 0x33;
        serialise();
        CHECK_EQ(run(big + 64), (i & ~0xffffu) | 0x4433);
    }
}

/* Another frame under the same linear address. */
TEST(another_frame)
{
    paging_reset();
    put_mov(code[0], 100);
    put_mov(code[1], 101);
    put_mov(code[2], 102);
    volatile uint8_t *p = map_page(WINDOW, phys(code[0]), 1, PG_ALL);
    for (unsigned i = 0; i < 100; i++) {
        CHECK_EQ(run(p), 100 + i % 3);
        *entry_of(WINDOW, 1) = phys(code[(i + 1) % 3]) | PG_ALL;
        if (i & 1)
            invlpg((void *)p);
        else
            write_cr3(read_cr3());
    }
    /* the second half of an instruction that crosses pages */
    put_mov(code[3] + 4094, 0);
    *entry_of(WINDOW, 1) = phys(code[3]) | PG_ALL;
    invlpg((void *)p);
    memcpy(code[3] + 4094, "\xb8\x01", 2);
    for (unsigned i = 0; i < 20; i++) {
        memcpy(code[i & 1], "\x02\x03\x04\xc3", 4);
        code[i & 1][0] = (uint8_t)i;
        map_page(WINDOW + PAGE, phys(code[i & 1]), 1, PG_ALL);
        CHECK_EQ(run(p + 4094), 0x04030001 | i << 8);
    }
}

/* Code in a page that is read-only through the address it runs at, and data next to code. */
TEST(data_beside_code)
{
    volatile uint32_t *counter = (uint32_t *)(code[0] + 2048);
    /* incl 2048-...(%rip) in a loop: writes the page it runs in */
    static const uint8_t loop[] = {0xff, 0x05, 0xfa, 0x07, 0,   0, /* incl +0x7fa(%rip) */
                                   0xff, 0xc9, 0x75, 0xf6, 0xc3};  /* dec %ecx; jnz; ret */
    memcpy(code[0], loop, sizeof(loop));
    *counter = 0;
    unsigned n = 10000;
    asm volatile("call *%1" : "+c"(n) : "r"(code[0]) : "memory", "cc");
    CHECK_EQ(*counter, 10000);
}

/* Every kind of store. */
TEST(kinds_of_stores)
{
    uint8_t *at = code[0] + 0x100;
    uint32_t want = 0;
    uint32_t bytes[8] __attribute__((aligned(16)));
    put_mov(at, 0);
#define STORED(...)                                                                                \
    do {                                                                                           \
        CHECK_EQ(run(at), want);                                                                   \
        want += 0x01010101;                                                                        \
        __VA_ARGS__;                                                                               \
        CHECK_EQ(run(at), want);                                                                   \
    } while (0)
    STORED(asm volatile("movl %1, (%0)" ::"r"(at + 1), "r"(want) : "memory"));
    STORED(asm volatile("lock addl $0x01010101, (%0)" ::"r"(at + 1) : "memory", "cc"));
    STORED(asm volatile("addl $0x01010101, (%0)" ::"r"(at + 1) : "memory", "cc"));
    STORED(uint32_t v = want; asm volatile("xchg %1, (%0)" ::"r"(at + 1), "r"(v) : "memory"));
    STORED(uint32_t v = 0x01010101; asm volatile("lock xaddl %1, (%0)" ::"r"(at + 1), "r"(v)
                                                 : "memory", "cc"));
    STORED(asm volatile("lock cmpxchgl %1, (%0)" ::"r"(at + 1), "r"(want), "a"(want - 0x01010101)
                        : "memory", "cc"));
    STORED(asm volatile("movnti %1, (%0)" ::"r"(at + 1), "r"(want) : "memory"));
    STORED(void *d = at + 1; asm volatile("stosl" : "+D"(d) : "a"(want) : "memory"));
    STORED(void *d = at + 1; const void *s = &want; word n = 4;
           asm volatile("rep movsb"
                        : "+D"(d), "+S"(s), "+c"(n)::"memory"));
    memcpy(bytes, at, 16);
    STORED(memcpy((uint8_t *)bytes + 1, &want, 4);
           asm volatile("movups (%1), %%xmm0; movups %%xmm0, (%0)" ::"r"(at), "r"(bytes)
                        : "memory"));
    STORED(memcpy((uint8_t *)bytes + 1, &want, 4);
           asm volatile("movaps (%1), %%xmm0; movaps %%xmm0, (%0)" ::"r"(at), "r"(bytes)
                        : "memory"));
    STORED(asm volatile("movd %1, %%xmm1; movd %%xmm1, (%0)" ::"r"(at + 1), "r"(want) : "memory"));
    STORED(asm volatile("mov %%rsp, %%rcx; lea 8(%0), %%rsp; push %1; mov %%rcx, %%rsp" ::"r"(at),
                        "r"(0xc3ull << 40 | (uint64_t)want << 8 | 0xb8)
                        : "memory", "rcx"));
    asm volatile("fninit"); /* after RESET the stack is full and exceptions are unmasked */
    STORED(asm volatile("fildl (%1); fistpl (%0)" ::"r"(at + 1), "r"(&want) : "memory"));
    STORED(for (unsigned bit = 0; bit < 32;
                bit++) if (want >> bit & 1) asm volatile("lock bts %1, (%0)" ::"r"(at + 1), "r"(bit)
                                                         : "memory", "cc");
           else asm volatile("btr %1, (%0)" ::"r"(at + 1), "r"(bit)
                             : "memory", "cc"));
    /* the 16 bytes of CMPXCHG16B */
    uint64_t lo, hi;
    memcpy(&lo, at, 8);
    memcpy(&hi, at + 8, 8);
    STORED(asm volatile("lock cmpxchg16b (%0)" ::"r"(at), "a"(lo), "d"(hi),
                        "b"((lo & ~0xffffffff00ull) | (uint64_t)want << 8), "c"(hi)
                        : "memory", "cc"));
    /* SIDT writes ten bytes, FXSAVE 512: that they are code must not matter */
    asm volatile("sidt (%0)" ::"r"(at - 10) : "memory");
    CHECK_EQ(run(at), want);
    asm volatile("fxsave64 (%0)" ::"r"(at + 16) : "memory");
    CHECK_EQ(run(at), want);
    asm volatile("fxsave64 (%0)" ::"r"(at) : "memory");
    CHECK_EQ(*(uint16_t *)at, 0x37f); /* FCW */
}

/* A processor's own writes: the walker sets A and D in a PTE that is also code. 03 C1 is ADD %ecx,
 * %eax; with A, 23 C1 is AND; with D, too, 63 C1 is MOVSXD. C3 in the frame's number returns. */
TEST(the_walker_writes_code)
{
    paging_reset();
    *entry_of(WINDOW, 1) = 0x00c3c103;
    volatile uint8_t *entry = (volatile uint8_t *)entry_of(WINDOW, 1);
    unsigned got;
#define EXECUTE()                                                                                  \
    ({                                                                                             \
        serialise();                                                                               \
        asm volatile("call *%1" : "=a"(got) : "r"(entry), "a"(6), "c"(3) : "memory", "cc");        \
        got;                                                                                       \
    })
    CHECK_EQ(EXECUTE(), 9);
    CHECK_NO_TRAP(try_read((void *)WINDOW));
    CHECK_EQ(*entry, 0x23);
    CHECK_EQ(EXECUTE(), 2);
    CHECK_NO_TRAP(try_write((void *)WINDOW, 0));
    CHECK_EQ(*entry, 0x63);
    CHECK_EQ(EXECUTE(), 3);
}

/* Interrupt delivery writes the stack, and segment loads the GDT: code there changes, too. */
static word return_address;
static bool note_frame(struct frame *f)
{
    return_address = f->rip;
    return true;
}

TEST(delivery_writes_code)
{
    /* The stack is in the page of code that runs next: the frame that INT pushes overwrites it. */
    uint8_t *top = code[2] + 1024;
    put_mov(top - 48,
            77); /* where SS goes to: -8, RSP -16, RFLAGS -24, CS -32, RIP -40, error -48 */
    CHECK_EQ(run(top - 48), 77);
    trap_handlers[0x31] = note_frame;
    asm volatile("mov %%rsp, %%rbx; mov %0, %%rsp; int $0x31; mov %%rbx, %%rsp" ::"r"(top)
                 : "rbx", "memory", "cc");
    trap_handlers[0x31] = 0;
    CHECK_EQ(*(uint32_t *)(top - 40), (uint32_t)return_address);
    put_mov(top - 48, 78);
    CHECK_EQ(run(top - 48), 78);
}

/* The code changes itself while it is single-stepped, and steps are not lost. */
static volatile unsigned steps;
static bool count_step(struct frame *f)
{
    steps++;
    return true;
}

TEST(while_single_stepping)
{
    trap_handlers[1] = count_step;
    steps = 0;
    unsigned got;
    asm volatile("pushf; orl $0x100, (%%rsp); popf\n"
                 "movb $0x5c, 1f+1(%%rip)\n1: movb $0, %%al\n movzbl %%al, %0\n"
                 "pushf; andl $~0x100, (%%rsp); popf"
                 : "=r"(got)::"rax", "memory", "cc");
    trap_handlers[1] = 0;
    CHECK_EQ(got, 0x5c);
    CHECK_EQ(steps, 6);
}

const struct test guest_tests[] = {T(the_next_instruction),
                                   T(the_instruction_itself),
                                   T(a_function_many_times),
                                   T(other_instruction_boundaries),
                                   T(across_pages),
                                   T(through_an_alias),
                                   T(another_frame),
                                   T(data_beside_code),
                                   T(kinds_of_stores),
                                   T(the_walker_writes_code),
                                   T(delivery_writes_code),
                                   T(while_single_stepping),
                                   {0, 0}};
