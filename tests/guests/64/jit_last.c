/*
 * jit_last.c - loops that access one page again and again by the same register, for translators
 * that remember the page that was found last: it changes, it goes elsewhere, its rights are taken
 * away, it becomes code, and accesses come close to its end.
 */
#include "paging.h"
#include "watch.h"

#define TWO      WINDOW /* two pages, their frames in the other order */
#define FRAME(n) (FREE_RAM + 0x100000 - 2 * (n)*PAGE)
enum { ROUNDS = 200 };

static void map_two(uint64_t rights)
{
    paging_reset();
    map_page(TWO, FRAME(0), 1, PG_ALL);
    map_page(TWO + PAGE, FRAME(1), 1, rights);
    write_cr0(read_cr0() | CR0_WP);
}

static volatile uint64_t *frame(unsigned n)
{
    return (volatile uint64_t *)(word)FRAME(n);
}

/* ---- Which page ------------------------------------------------------------------------------ */

/* Adds up what the pointers point to, and counts it up; by one register, in one loop. */
static uint64_t visit(const word *list, unsigned count)
{
    uint64_t sum = 0;
    asm volatile("1: mov (%1), %%rsi; add 8(%%rsi), %0; incq 8(%%rsi); add $8, %1; dec %2; jnz 1b"
                 : "+r"(sum), "+r"(list), "+r"(count)
                 :
                 : "rsi", "memory");
    return sum;
}

/* The page is another one each time, mostly the same one, never; so that what is made for one
 * pattern meets the others. */
TEST(pages_in_turn)
{
    static word list[ROUNDS];
    static const unsigned patterns[] = {1, 2, 50, 1, 3, 150, 2};
    for (unsigned p = 0; p < 7; p++)
        for (unsigned again = 0; again < 4; again++) {
            uint64_t want = 0, have[2];
            map_two(PG_ALL);
            for (unsigned n = 0; n < 2; n++)
                have[n] = frame(n)[1] = 1000 * n + p;
            for (unsigned i = 0; i < ROUNDS; i++) {
                unsigned n = patterns[p] == 1 ? 0 : patterns[p] < 10 ? i & 1 : i / patterns[p] & 1;
                list[i] = TWO + n * PAGE;
                want += have[n]++;
            }
            CHECK_EQ(visit(list, ROUNDS), want);
            CHECK_EQ(frame(0)[1], have[0]);
            CHECK_EQ(frame(1)[1], have[1]);
        }
}

/* ---- Ends of pages --------------------------------------------------------------------------- */

/* Three times at each address, so that the page is known. */
#define COPY(load, store, reg, from, to)                                                           \
    asm volatile("mov $3, %%ecx; 1: " load " (%0), %%" reg "; " store " %%" reg                    \
                 ", (%1); dec %%ecx; jnz 1b" ::"r"(from),                                          \
                 "r"(to)                                                                           \
                 : "ecx", "rax", "memory")

TEST(ends_of_pages)
{
    static uint8_t got[48];
    map_two(PG_ALL);
    for (unsigned i = 0; i < PAGE; i++)
        ((volatile uint8_t *)frame(0))[i] = (uint8_t)(i * 7),
                           ((volatile uint8_t *)frame(1))[i] = (uint8_t)(i * 11 + 1);
    for (word at = TWO + PAGE - 40; at < TWO + PAGE + 4; at++)
        for (unsigned size = 1; size <= 16; size *= 2) {
            memset(got, 0xee, sizeof got);
            COPY("mov", "mov", "al", TWO + 8, got); /* the page is the first one now */
            if (size == 1)
                COPY("mov", "mov", "al", at, got);
            else if (size == 2)
                COPY("mov", "mov", "ax", at, got);
            else if (size == 4)
                COPY("mov", "mov", "eax", at, got);
            else if (size == 8)
                COPY("mov", "mov", "rax", at, got);
            else
                COPY("movups", "movups", "xmm0", at, got);
            for (unsigned i = 0; i < size; i++) {
                word p = at + i;
                CHECK_EQ(got[i], ((volatile uint8_t *)frame(p >= TWO + PAGE))[p % PAGE]);
            }
            CHECK_EQ(got[size], 0xee);
        }
}

/* Accesses that lie further apart than any one is long. */
TEST(far_apart_at_the_end_of_a_page)
{
    map_two(PG_ALL);
    for (unsigned i = 0; i < 512; i++)
        frame(0)[i] = i, frame(1)[i] = 1000 + i;
    for (word at = TWO + PAGE - 80; at <= TWO + PAGE; at += 8) {
        uint64_t sum = 0, want = 0;
        asm volatile("mov %1, %%rsi; mov $6, %%ecx; 1: add (%%rsi), %0; add 40(%%rsi), %0; add "
                     "64(%%rsi), %0;"
                     "mov %2, %%rsi; dec %%ecx; jnz 1b"
                     : "+r"(sum)
                     : "r"(TWO), "r"(at)
                     : "rsi", "ecx", "memory");
        for (unsigned round = 0; round < 6; round++)
            for (unsigned d = 0; d <= 64; d += d ? 24 : 40) {
                word p = (round ? at : TWO) + d;
                want += frame(p >= TWO + PAGE)[p % PAGE / 8];
            }
        CHECK_EQ(sum, want);
    }
}

/* Sixteen bytes that must be aligned. */
TEST(alignment)
{
    map_two(PG_ALL);
    for (volatile unsigned off = 0; off < 64; off++) {
        struct trap t =
            CATCH(asm volatile("mov $40, %%ecx; mov %0, %%rsi; 1: movaps (%%rsi), %%xmm0;"
                               "cmp $8, %%ecx; cmove %1, %%rsi; dec %%ecx; jnz 1b" ::"r"(TWO),
                               "r"(TWO + off)
                               : "ecx", "rsi"));
        CHECK_EQ(t.vector, off & 15 ? VECTOR_GP : NO_TRAP);
    }
}

/* An address with the same lower bits, and addresses that are no more canonical. */
TEST(aliases_of_the_page)
{
    map_two(PG_ALL);
    for (volatile unsigned bit = 47; bit < 64; bit++)
        for (volatile unsigned store = 0; store < 2; store++) {
            word strange = TWO ^ 1ull << bit;
            struct trap t = CATCH(
                asm volatile("mov $40, %%ecx; mov %0, %%rsi; 1: mov (%%rsi), %%rax; cmp $8, %%ecx;"
                             "cmove %1, %%rsi; test %2, %2; jz 2f; mov %%rax, (%%rsi);"
                             "2: dec %%ecx; jnz 1b" ::"r"(TWO),
                             "r"(strange), "r"(store)
                             : "ecx", "rsi", "rax", "memory"));
            CHECK_EQ(t.vector, VECTOR_GP);
        }
}

/* ---- What is taken away ---------------------------------------------------------------------- */

/* The page goes to the other frame and back in each round, by the register and by the stack
 * pointer. */
TEST(a_page_that_moves)
{
    map_two(PG_ALL);
    for (unsigned f = 0; f < 2; f++)
        for (unsigned i = 0; i < 512; i++)
            frame(f)[i] = f + 1;
    volatile uint64_t *entry = entry_of(TWO, 1);
    word change = *entry ^ (FRAME(1) | (*entry & 0xfff));
    uint64_t sum = 0, stack = 0;
    asm volatile("mov $200, %%ecx; 1: add 16(%2), %0; xor %3, (%4); invlpg (%2); dec %%ecx; jnz 1b"
                 : "+r"(sum)
                 : "0"(sum), "r"(TWO), "r"(change), "r"(entry)
                 : "ecx", "memory");
    CHECK_EQ(sum, 100 * 1 + 100 * 2);
    sum = 0;
    asm volatile(
        "mov $200, %%ecx; 1: add 16(%2), %0; xor %3, (%4); mov %%cr3, %%rax; mov %%rax, %%cr3;"
        "dec %%ecx; jnz 1b"
        : "+r"(sum)
        : "0"(sum), "r"(TWO), "r"(change), "r"(entry)
        : "ecx", "rax", "memory");
    CHECK_EQ(sum, 100 * 1 + 100 * 2);
    asm volatile(
        "mov %%rsp, %%rdi; lea 64(%1), %%rsp; mov $200, %%ecx; 1: add 8(%%rsp), %0; pop %%rax;"
        "push %%rax; xor %2, (%3); invlpg (%1); dec %%ecx; jnz 1b; mov %%rdi, %%rsp"
        : "+r"(stack)
        : "r"(TWO), "r"(change), "r"(entry)
        : "ecx", "rax", "rdi", "memory");
    CHECK_EQ(stack, 100 * 1 + 100 * 2);
}

/* The address space changes, and with it the page. */
TEST(another_address_space)
{
    static uint64_t other[512] __attribute__((aligned(4096)));
    map_two(PG_ALL);
    frame(0)[2] = 1, frame(1)[2] = 2;
    memcpy(other, boot_pml4, sizeof other);
    word mine = read_cr3();
    paging_used = 8;
    boot_pml4[1] = 0;
    map_page(TWO, FRAME(1), 1, PG_ALL);
    uint64_t sum = 0, tmp = other[1];
    other[1] = boot_pml4[1];
    boot_pml4[1] = tmp;
    flush_all();
    asm volatile("mov $200, %%ecx; 1: add 16(%1), %0; xchg %2, %3; mov %2, %%cr3; dec %%ecx; jnz 1b"
                 : "+r"(sum)
                 : "r"(TWO), "r"(mine), "r"((word)other)
                 : "ecx", "memory");
    write_cr3(mine);
    CHECK_EQ(sum, 100 * 1 + 100 * 2);
    /* And nothing is flushed (SDM vol. 3, 4.10.4.1). */
    enum { PCID_KEEP = 63 };
    sum = 0;
    write_cr4(read_cr4() | CR4_PCIDE);
    word one = mine | 1 | 1ull << PCID_KEEP, two = (word)other | 2 | 1ull << PCID_KEEP;
    asm volatile("mov $200, %%ecx; 1: add 16(%3), %0; xchg %1, %2; mov %1, %%cr3; dec %%ecx; jnz 1b"
                 : "+r"(sum), "+r"(one), "+r"(two)
                 : "r"(TWO)
                 : "ecx", "memory");
    write_cr3(mine);
    write_cr4(read_cr4() & ~CR4_PCIDE);
    CHECK_EQ(sum, 100 * 1 + 100 * 2);
}

/* Reads go on; the first store behind the change faults, and nothing is stored. */
TEST(a_page_that_becomes_read_only)
{
    for (volatile unsigned round = 0; round < 8; round++) {
        map_two(PG_ALL);
        volatile uint64_t *entry = entry_of(TWO, 1);
        *entry |= PG_A | PG_D; /* so that no walk changes what is read here */
        frame(0)[0] = 0;
        struct trap t =
            CATCH(asm volatile("mov $100, %%ecx; 1: mov (%0), %%rax; inc %%rax;" LABEL(
                                   last_store) "mov %%rax, (%0);"
                                               "cmp $20, %%ecx; jne 2f; and $-3, %1; mov %1, (%2); "
                                               "invlpg (%0); 2: dec %%ecx; jnz 1b" ::"r"(TWO),
                               "r"(*entry), "r"(entry)
                               : "ecx", "rax", "memory"));
        CHECK_EQ(t.vector, VECTOR_PF);
        CHECK_EQ(t.rip, SYMBOL(last_store));
        CHECK_EQ(t.cr2, TWO);
        CHECK_EQ(t.error, PF_P | PF_W);
        CHECK_EQ(frame(0)[0], 81);
    }
}

/* What has been read only is not writable for that. */
TEST(a_store_behind_loads)
{
    map_two(PG_ALL & ~PG_W);
    for (volatile unsigned round = 0; round < 8; round++) {
        struct trap t = CATCH(asm volatile(
            "mov $100, %%ecx; 1: mov (%0), %%rax; cmp $20, %%ecx; jne 2f;" LABEL(
                last_read_only) "mov %%rax, (%0); 2: dec %%ecx; jnz 1b" ::"r"(TWO + PAGE)
            : "ecx", "rax", "memory"));
        CHECK_EQ(t.vector, VECTOR_PF);
        CHECK_EQ(t.rip, SYMBOL(last_read_only));
        CHECK_EQ(t.error, PF_P | PF_W);
    }
}

static uint8_t code[4096] __attribute__((aligned(4096)));

/* MOV EAX, imm32; RET, whose immediate each round writes anew. */
TEST(a_page_that_becomes_code)
{
    uint64_t sum = 0;
    memcpy(code, "\xb8\0\0\0\0\xc3", 6);
    asm volatile("mov $300, %%ecx; 1: mov %%ecx, 1(%1); mov 1(%1), %%eax; cmp $150, %%ecx; ja 2f;"
                 "call *%1; 2: add %%rax, %0; dec %%ecx; jnz 1b"
                 : "+r"(sum)
                 : "r"(code)
                 : "ecx", "rax", "memory");
    CHECK_EQ(sum, 300 * 301 / 2);
}

static uint8_t page[4096] __attribute__((aligned(4096)));

/* A store to the door protects the page in the middle of the loop. */
TEST(a_page_protected_in_the_loop)
{
    static volatile uint32_t nothing[64];
    for (unsigned round = 0; round < 4; round++) {
        watch_begin();
        watch_refuse_at_doorbell(page, sizeof page);
        memset(page, 0, sizeof page);
        struct trap t = CATCH(asm volatile(
            "mov $100, %%ecx; mov %2, %%rdi; 1: cmp $20, %%ecx; cmove %1, %%rdi; movl $0, (%%rdi);"
            "mov (%0), %%rax; inc %%rax;" LABEL(last_refused) "mov %%rax, (%0); dec %%ecx; jnz 1b"
            :
            : "r"(page), "r"(&DOOR(0)->doorbell), "r"(nothing)
            : "ecx", "rax", "rdi", "memory"));
        CHECK_EQ(t.vector, VECTOR_PF);
        CHECK_EQ(t.rip, SYMBOL(last_refused));
        CHECK_EQ(t.cr2, (word)page);
        CHECK_EQ(((volatile uint64_t *)page)[0], 80);
        watch_end();
    }
}

const struct test guest_tests[] = {T(pages_in_turn),
                                   T(ends_of_pages),
                                   T(far_apart_at_the_end_of_a_page),
                                   T(alignment),
                                   T(aliases_of_the_page),
                                   T(a_page_that_moves),
                                   T(another_address_space),
                                   T(a_page_that_becomes_read_only),
                                   T(a_store_behind_loads),
                                   T(a_page_that_becomes_code),
                                   T(a_page_protected_in_the_loop),
                                   {0, 0}};
