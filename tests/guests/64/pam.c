/*
 * pam.c - shadow RAM as the instruction behind the store to its register sees it: data and code at
 * C0000h and D0000h, switched again and again, so that views and translated code have to follow.
 * Without firmware there is no ROM: what is not RAM reads as all ones.
 */
#include "pci.h"

enum {
    HOST = 0,
    PAM1 = 0x5a,
    PAM3 = 0x5c,
    NOTHING = 0,
    READ = 1,
    WRITE = 2,
    BOTH = 3,
    ROUNDS = 200
};

static volatile uint32_t *at(uint32_t address)
{
    return (volatile uint32_t *)(word)address;
}

/* One straight line: what `to` does is seen by the very next instruction. */
static uint32_t load_behind(uint8_t to, const volatile uint32_t *address)
{
    uint32_t value;
    pci_select(HOST, PAM1);
    asm volatile("outb %b1, %w2\n movl (%3), %0"
                 : "=&r"(value)
                 : "a"(to), "d"((uint16_t)(PCI_DATA + (PAM1 & 3))), "r"(address)
                 : "memory");
    return value;
}
static void store_behind(uint8_t to, volatile uint32_t *address, uint32_t value)
{
    pci_select(HOST, PAM1);
    asm volatile("outb %b0, %w1\n movl %3, (%2)"
                 :
                 : "a"(to), "d"((uint16_t)(PCI_DATA + (PAM1 & 3))), "r"(address), "r"(value)
                 : "memory");
}

TEST(data_follow_at_once)
{
    volatile uint32_t *p = at(0xc0120);
    for (uint32_t i = 1; i <= ROUNDS; i++) {
        store_behind(BOTH, p, i);
        CHECK_EQ(*p, i);
        CHECK_EQ(load_behind(NOTHING, p), 0xffffffff);
        store_behind(READ, p, 1000 + i); /* ignored */
        CHECK_EQ(*p, i);
        store_behind(NOTHING, p, 2000 + i); /* nobody is there */
        CHECK_EQ(load_behind(BOTH, p), i);
        store_behind(WRITE, p, 3000 + i);
        CHECK_EQ(*p, 0xffffffff);
        CHECK_EQ(load_behind(READ, p), 3000 + i);
    }
}

/* Locked, string, vector and stack stores into RAM that has become read-only. */
TEST(no_store_gets_through)
{
    volatile uint32_t *p = at(0xc1000);
    uint8_t *stack = (uint8_t *)(word)0xc1100;
    pci_write8(HOST, PAM1, BOTH);
    for (unsigned i = 0; i < 128; i++)
        p[i] = 0x5a5a5a5a;
    for (unsigned round = 0; round < ROUNDS; round++) {
        pci_write8(HOST, PAM1, READ);
        asm volatile("lock xaddl %0, %1" : : "r"(1), "m"(*p) : "memory");
        asm volatile("lock cmpxchgl %1, %2" : : "a"(0x5a5a5a5a), "r"(0), "m"(p[1]) : "memory");
        word n = 64;
        uint8_t *to = (uint8_t *)(word)0xc1020;
        asm volatile("rep stosb" : "+c"(n), "+D"(to) : "a"(0) : "memory");
        asm volatile("movdqu %%xmm0, (%0)" : : "r"(0xc1080ul) : "memory");
        asm volatile("mov %%rsp, %%rbx\n mov %0, %%rsp\n push %%rax\n push %%rcx\n mov %%rbx, %%rsp"
                     :
                     : "r"(stack)
                     : "rbx", "memory");
        for (unsigned i = 0; i < 128; i++)
            CHECK_EQ(p[i], 0x5a5a5a5a);
        pci_write8(HOST, PAM1, BOTH);
        CHECK_EQ(*p, 0x5a5a5a5a);
    }
}

/* Code in shadow RAM: gone when the RAM is, there again with it, and new when it was changed. */
TEST(code_follows)
{
    volatile uint8_t *code = (volatile uint8_t *)(word)0xd0000;
    uint32_t (*run)(void) = (uint32_t(*)(void))(word)0xd0000;
    pci_write8(HOST, PAM3, BOTH);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        pci_write8(HOST, PAM3, BOTH);
        code[0] = 0xb8; /* mov $i, %eax; ret */
        code[1] = (uint8_t)i;
        code[2] = code[3] = code[4] = 0;
        code[5] = 0xc3;
        CHECK_EQ(run(), i);
        pci_write8(HOST, PAM3, READ);
        code[1] = 0xee;
        CHECK_EQ(run(), i);
        pci_write8(HOST, PAM3, WRITE);
        code[1] = (uint8_t)(i + 1); /* beneath: nobody sees it yet */
        pci_write8(HOST, PAM3, READ);
        CHECK_EQ(run(), (uint8_t)(i + 1));
    }
}

const struct test guest_tests[] = {
    T(data_follow_at_once), T(no_store_gets_through), T(code_follows), {0, 0}};
