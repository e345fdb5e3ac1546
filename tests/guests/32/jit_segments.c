/*
 * jit_segments.c - FS and GS in flat 32-bit code, as threads of 32-bit programs and 32-bit kernels
 * use them: with a base, and a limit that allows everything; the same code with segments that do
 * not; bases that change between two accesses. And MOV with the address in the instruction, which
 * compilers prefer for EAX.
 */
#include "pieces.h"
#include "rings.h"

static uint8_t arena[3 * 4096] __attribute__((aligned(4096)));
static uint32_t *const cell = (uint32_t *)(arena + 4096);
enum { BASE = 0x5000 }; /* displacements lead from here to the arena */

static void set_up(uint32_t base, uint32_t limit, unsigned attr)
{
    gdt[FREE(0) / 8] = descriptor(base, limit, attr);
    gdt[FREE(1) / 8] = descriptor(base + 64, limit, attr);
    for (unsigned n = 0; n < 64; n++)
        cell[n] = 0x1000 + n;
}

/* Accesses of all kinds by GS and FS, whose bases are such that offset 40h is cell[0]; or wraps. */
static const uint32_t bases[] = {0x40, 0xfffff000, 0x80000000, 0x7ff};

static void put_offset(uint8_t prefix, uint8_t opcode, uint32_t offset)
{
    uint8_t b[6] = {prefix, opcode};
    memcpy(b + 2, &offset, 4);
    put_bytes(b, 6);
}

TEST(open_segments)
{
    vectors_on();
    for (unsigned i = 0; i < 40; i++) {
        uint32_t base = bases[i & 3], at = (word)cell - base;
        struct context c = kernel_context();
        set_up(base, 0xfffff, D_DATA | FLAT);
        c.rax = FREE(0), c.rcx = FREE(1), c.rbx = at, c.rsi = 3, c.rdi = (word)cell;
        pieces_begin();
        put(PIECE("mov gs, ax; mov fs, cx"));
        put(PIECE(
            "mov edx, gs:[ebx]; add edx, fs:[ebx+esi*4]; add dword ptr gs:[ebx+8], edx; push "
            "dword ptr gs:[ebx+4]; pop dword ptr fs:[ebx+4]; xchg edx, gs:[ebx+20]; fild dword "
            "ptr fs:[ebx]; fistp dword ptr gs:[ebx+24]; movzx ecx, byte ptr fs:[ebx-56]"));
        put_offset(0x65, 0xa1, at + 4 * 40); /* mov eax, gs:[...] */
        put_offset(0x64, 0xa3, at + 4 * 32); /* mov fs:[...], eax: cell[48] */
        put_offset(0x64, 0xa0, at + 2);      /* mov al, fs:[...] */
        put_offset(0x65, 0xa2, at + 4 * 41); /* mov gs:[...], al */
        put_offset(0x3e, 0xa1, (word)&cell[50]);
        struct trap t = pieces_run(&c);
        uint32_t sum = 0x1000 + 0x1000 + 16 + 3;
        CHECK_EQ(t.vector, V_BP);
        CHECK_EQ(cell[2], 0x1002 + sum);
        CHECK_EQ(cell[17], 0x1001);
        CHECK_EQ(cell[5], sum);
        CHECK_EQ(t.frame.rdx, 0x1005);
        CHECK_EQ(cell[6], 0x1010);
        CHECK_EQ(t.frame.rcx, cell[2] & 0xff);
        CHECK_EQ(cell[48], 0x1000 + 40);
        CHECK_EQ(cell[41], 0x1000);
        CHECK_EQ(t.frame.rax, 0x1000 + 50);
    }
}

/* The base between two accesses by the same registers, in a loop and in a row. */
TEST(bases_that_change)
{
    for (unsigned i = 0; i < 20; i++) {
        struct context c = kernel_context();
        set_up(BASE, 0xfffff, D_DATA | FLAT);
        c.rax = FREE(0), c.rcx = FREE(1), c.rbx = (word)cell - BASE, c.rsi = 5, c.rdx = 0;
        pieces_begin();
        put(PIECE(
            "1: mov gs, ax; add edx, gs:[ebx]; mov gs, cx; add edx, gs:[ebx]; xchg eax, ecx; "
            "mov gs, cx; mov edi, gs:[ebx+4]; mov ebp, gs:[ebx]; add edx, ebp; dec esi; jnz 1b"));
        struct trap t = pieces_run(&c);
        CHECK_EQ(t.vector, V_BP);
        CHECK_EQ(t.frame.rdx, 5 * (0x1000 + 0x1010) + 3 * 0x1000 + 2 * 0x1010);
        CHECK_EQ(t.frame.rdi, 0x1001);
    }
}

/* The same code first with a segment that allows everything, then with one that does not. */
TEST(segments_that_refuse)
{
    enum { KINDS = 7 };
    for (unsigned i = 0; i < 8 * KINDS; i++) {
        unsigned k = i % KINDS;
        bool store = i / KINDS & 1;
        pieces_begin();
        put(PIECE("mov gs, ax; mov edx, 1"));
        word at = pieces_here();
        put(store ? PIECE("mov gs:[ebx], edx") : PIECE("mov edx, gs:[ebx]"));
        bool works = k == 0 || k == 6 || (!store && k < 3);
        for (unsigned round = 0; round < 3; round++) {
            struct context c = kernel_context();
            set_up(BASE, 0xfffff, D_DATA | FLAT);
            c.rax = FREE(0), c.rbx = (word)cell - BASE;
            if (round == 1) {
                gdt[FREE(0) / 8] = k == 1   ? descriptor(BASE, 0xfffff, D_READ_ONLY | FLAT)
                                   : k == 2 ? descriptor(BASE, 0xfffff, D_CODE | FLAT)
                                   : k == 3 ? descriptor(BASE, 0xffff, D_DATA | D_BIG)
                                   : k == 4 ? descriptor(BASE, 0xfffff, D_EXPAND_DOWN | FLAT)
                                   : k == 6 ? descriptor(BASE, 0xffffe, D_DATA | FLAT)
                                            : gdt[FREE(0) / 8];
                if (k == 5)
                    c.rax = 0;
            }
            struct trap t;
            if (round == 0) /* INT3 goes behind it once */
                t = pieces_run(&c);
            else
                t = pieces_again(&c);
            bool good = round != 1 || works;
            CHECK_EQ(t.vector, good ? V_BP : V_GP);
            if (!good)
                CHECK_EQ(t.rip, at);
            CHECK_EQ(t.frame.rdx, good && !store ? 0x1000 : 1);
            CHECK_EQ(cell[0], good && store ? 1 : 0x1000);
        }
    }
}

const struct test guest_tests[] = {
    T(open_segments), T(bases_that_change), T(segments_that_refuse), {0, 0}};
