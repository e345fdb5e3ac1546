/*
 * jit_operands.c - every register as base, index, source and destination: a translator keeps some
 * of them elsewhere, above all RSP. The stack with itself as operand and over page boundaries,
 * division at the limits of the quotient, branches to where they would go anyway.
 */
#include "pieces.h"

/* ---- Registers everywhere ----------------------------------------------------------------------
 */

static uint8_t arena[256] __attribute__((aligned(64)));

struct form {
    const char *name;
    uint8_t opcode[2]; /* 0Fh first for the second map */
    uint8_t size;
    bool wide; /* REX.W */
};
static const struct form forms[] = {
    {"mov r64, m", {0x8b}, 8, true},    {"mov m, r64", {0x89}, 8, true},
    {"add r64, m", {0x03}, 8, true},    {"add m, r64", {0x01}, 8, true},
    {"xchg m, r64", {0x87}, 8, true},   {"mov r32, m", {0x8b}, 4, false},
    {"mov m8, r8", {0x88}, 1, false},   {"movzx r32, m8", {0x0f, 0xb6}, 1, false},
    {"movsxd r64, m", {0x63}, 4, true}, {"imul r64, m", {0x0f, 0xaf}, 8, true},
    {"lea r64, m", {0x8d}, 8, true},    {"bts m, r64", {0x0f, 0xab}, 8, true},
};
enum { FORMS = sizeof forms / sizeof forms[0], NO_INDEX = 4 };

/* reg, [base + index * (1 << scale) + disp32] */
static void encode(const struct form *f, unsigned reg, unsigned base, unsigned index,
                   unsigned scale, int32_t disp)
{
    uint8_t b[16], *p = b;
    *p++ = 0x40 | f->wide << 3 | (reg >> 3) << 2 | (index >> 3) << 1 | base >> 3;
    *p++ = f->opcode[0];
    if (f->opcode[0] == 0x0f)
        *p++ = f->opcode[1];
    *p++ = 0x84 | (reg & 7) << 3;
    *p++ = scale << 6 | (index & 7) << 3 | (base & 7);
    memcpy(p, &disp, 4);
    put_bytes(b, (size_t)(p + 4 - b));
}

static bool operand_wrong(unsigned form, unsigned reg, unsigned base, unsigned index,
                          unsigned scale)
{
    const struct form *f = &forms[form];
    struct context c = any_stack();
    uint64_t memory = 0x8877665544332211ull, want_memory = memory, want, before;
    for (unsigned n = 0; n < 16; n++)
        *register_of(&c, n) = 0x1f0 + n * 0x40357;
    uint64_t ea = *register_of(&c, base);
    if (index != NO_INDEX)
        ea += *register_of(&c, index) << scale;
    word target = (word)arena + 96;
    want = before = *register_of(&c, reg);
    memcpy((void *)target, &memory, 8);
    switch (form) {
    case 0:
        want = memory;
        break;
    case 1:
        want_memory = before;
        break;
    case 2:
        want = memory + before;
        break;
    case 3:
        want_memory = memory + before;
        break;
    case 4:
        want = memory, want_memory = before;
        break;
    case 5:
        want = (uint32_t)memory;
        break;
    case 6:
        want_memory = (memory & ~0xffull) | (uint8_t)before;
        break;
    case 7:
        want = (uint8_t)memory;
        break;
    case 8:
        want = (uint64_t)(int64_t)(int32_t)memory;
        break;
    case 9:
        want = memory * before;
        break;
    case 10:
        want = target;
        break;
    case 11: /* a bit string: the register also moves the address */
        target -= before >> 6 << 3;
        want_memory |= 1ull << (before & 63);
        break;
    }
    pieces_begin_sized(32);
    encode(f, reg, base, index, scale, (int32_t)(target - ea));
    struct trap t = pieces_run(&c);
    memcpy(&memory, arena + 96, 8);
    bool bad = t.vector != V_BP || memory != want_memory;
    for (unsigned n = 0; n < 16; n++)
        bad |= register_at_trap(&t, n) != (n == reg ? want : *register_of(&c, n));
    if (bad)
        print("  %s: reg %u, base %u, index %u: vector %lx, register %lx not %lx, memory %lx not "
              "%lx\n",
              f->name, reg, base, index, t.vector, register_at_trap(&t, reg), want, memory,
              want_memory);
    return bad;
}

TEST(every_register_everywhere)
{
    unsigned bad = 0;
    for (unsigned form = 0; form < FORMS; form++)
        for (unsigned reg = 0; reg < 16; reg++)
            for (unsigned base = 0; base < 16; base++)
                for (unsigned index = 0; index < 16 && bad < 20; index += form & 1 ? 1 : 2)
                    bad += operand_wrong(form, reg, base, index, (reg + index) & 3);
    CHECK_EQ(bad, 0);
}

/* Register to register: homed ones on both sides. 01h ADD r/m, r; 87h XCHG; 0FAFh IMUL r, r/m. */
TEST(every_pair)
{
    for (unsigned op = 0; op < 3; op++)
        for (unsigned a = 0; a < 16; a++)
            for (unsigned b = 0; b < 16; b++) {
                struct context c = any_stack();
                uint64_t want[16];
                for (unsigned n = 0; n < 16; n++)
                    want[n] = *register_of(&c, n) = 0x100000001ull * (n + 3);
                uint64_t x = want[a], y = want[b];
                if (op == 0)
                    want[a] = x + y;
                else if (op == 1)
                    want[a] = y, want[b] = x;
                else
                    want[a] = x * y;
                unsigned reg = op == 2 ? a : b, rm = op == 2 ? b : a;
                const uint8_t code[] = {0x48 | (reg >> 3) << 2 | rm >> 3, 0x0f, 0xaf,
                                        0xc0 | (reg & 7) << 3 | (rm & 7)};
                const uint8_t one[] = {code[0], op == 0 ? 0x01 : 0x87, code[3]};
                pieces_begin_sized(32);
                put_bytes(op == 2 ? code : one, op == 2 ? 4 : 3);
                struct trap t = pieces_run(&c);
                CHECK_EQ(t.vector, V_BP);
                for (unsigned n = 0; n < 16; n++)
                    CHECK_EQ(register_at_trap(&t, n), want[n]);
            }
}

/* AH, CH, DH, BH with memory and with each other: no REX, bases RAX to RDI. */
TEST(high_bytes)
{
    static const uint8_t opcode[] = {0x88, 0x8a, 0x00, 0x02, 0x28, 0x30, 0x86};
    for (unsigned op = 0; op < sizeof opcode; op++)
        for (unsigned reg = 4; reg < 8; reg++)
            for (unsigned base = 0; base < 8; base++) {
                struct context c = any_stack();
                for (unsigned n = 0; n < 16; n++)
                    *register_of(&c, n) = 0x112233440000ull + n * 0x1213;
                arena[0] = 0x35;
                uint64_t at = 0x4455 + reg * 0x100;
                *register_of(&c, base) = at;
                uint64_t was = *register_of(&c, reg - 4);
                uint8_t r = (uint8_t)(was >> 8), m = 0x35;
                const uint8_t r_after[] = {r, m, r, (uint8_t)(r + m), r, r, m},
                              m_after[] = {r, m, (uint8_t)(m + r), m, (uint8_t)(m - r), m ^ r, r};
                const int32_t disp = (int32_t)((word)arena - at);
                const uint8_t head[] = {opcode[op], (uint8_t)(0x80 | reg << 3 | base), 0x24};
                pieces_begin_sized(32);
                put_bytes(head, base == 4 ? 3 : 2);
                put_bytes(&disp, 4);
                struct trap t = pieces_run(&c);
                CHECK_EQ(t.vector, V_BP);
                CHECK_EQ(arena[0], m_after[op]);
                CHECK_EQ(register_at_trap(&t, reg - 4),
                         (was & ~0xff00ull) | (uint64_t)r_after[op] << 8);
            }
}

/* ---- The stack ----------------------------------------------------------------------------------
 */

static uint64_t stack[1024] __attribute__((aligned(4096)));

#define STACK_CASE(text, rsp_, bp_, check)                                                         \
    do {                                                                                           \
        struct context c = any_stack();                                                            \
        for (unsigned i = 0; i < 1024; i++)                                                        \
            stack[i] = 0x1000 + i;                                                                 \
        c.rsp = (word)&stack[rsp_];                                                                \
        c.rbp = (word)&stack[bp_];                                                                 \
        c.rax = 0xaaaa, c.r10 = 0x1010, c.r11 = 0x1111, c.r15 = 0x1515;                            \
        pieces_begin();                                                                            \
        put(PIECE(text));                                                                          \
        struct trap t = pieces_run(&c);                                                            \
        CHECK_EQ(t.vector, V_BP);                                                                  \
        check;                                                                                     \
    } while (0)
#define SP_IS(n) CHECK_EQ(t.rsp, (word)&stack[n])

TEST(the_stack_pointer_as_operand)
{
    STACK_CASE("push rsp", 100, 0, SP_IS(99); CHECK_EQ(stack[99], (word)&stack[100]));
    STACK_CASE("pop rsp", 100, 0, CHECK_EQ(t.rsp, 0x1000 + 100));
    STACK_CASE("push [rsp]", 100, 0, SP_IS(99); CHECK_EQ(stack[99], 0x1000 + 100));
    STACK_CASE("push [rsp-8]", 100, 0, SP_IS(99); CHECK_EQ(stack[99], 0x1000 + 99));
    STACK_CASE("pop [rsp]", 100, 0, SP_IS(101); CHECK_EQ(stack[101], 0x1000 + 100));
    STACK_CASE("pop [rsp+8]", 100, 0, SP_IS(101); CHECK_EQ(stack[102], 0x1000 + 100));
    STACK_CASE("push r10; push r11; push r15; pop r10; pop r15; pop r11", 100, 0, SP_IS(100);
               CHECK_EQ(t.frame.r10, 0x1515); CHECK_EQ(t.frame.r15, 0x1111);
               CHECK_EQ(t.frame.r11, 0x1010));
    STACK_CASE("push -2; pop rax", 100, 0, SP_IS(100); CHECK_EQ(t.frame.rax, ~0ull - 1));
    STACK_CASE("pushw 0x1234; popw ax", 100, 0, SP_IS(100); CHECK_EQ(t.frame.rax, 0x1234));
    STACK_CASE("leave", 100, 50, SP_IS(51); CHECK_EQ(t.frame.rbp, 0x1000 + 50));
    STACK_CASE("enter 16, 0", 100, 50, SP_IS(97); CHECK_EQ(stack[99], (word)&stack[50]);
               CHECK_EQ(t.frame.rbp, (word)&stack[99]));
    STACK_CASE("mov rsp, rbp; push rsp; pop rax", 100, 50, SP_IS(50);
               CHECK_EQ(t.frame.rax, (word)&stack[50]));
    STACK_CASE("xchg rsp, rbp; pop rax; add rsp, 8; sub rsp, [rsp-8]", 100, 50,
               CHECK_EQ(t.rsp, (word)&stack[52] - 0x1000 - 51));
    STACK_CASE("lea rsp, [rsp+rax*8-0x55550]; pop r15", 100, 0, SP_IS(101);
               CHECK_EQ(t.frame.r15, 0x1000 + 100));
    STACK_CASE("mov spl, 0x20; mov eax, esp; and rsp, -64", 100, 0,
               CHECK_EQ(t.frame.rax, ((word)&stack[100] & ~0xffull) | 0x20));
    STACK_CASE("call 1f; 1: pop rax; lea rcx, [rip+1b]; sub rax, rcx", 100, 0, SP_IS(100);
               CHECK_EQ(t.frame.rax, 0));
}

/* Over a page boundary: all of it, or none with a fault, and then nothing has moved. */
TEST(stacks_over_page_boundaries)
{
    static const char *const what[] = {"push", "call", "push m", "pop", "ret", "leave"};
    paging_reset();
    map_page(WINDOW + PAGE, FREE_RAM, 1, PG_ALL);
    map_page(WINDOW + 2 * PAGE, FREE_RAM + PAGE, 1, PG_ALL);
    for (unsigned present = 0; present < 4; present++) { /* bit 0 the lower page, bit 1 the upper */
        const bool both = present == 3;
        for (unsigned kind = 0; kind < 6; kind++) {
            *entry_of(WINDOW + PAGE, 1) = FREE_RAM | PG_ALL;
            *entry_of(WINDOW + 2 * PAGE, 1) = (FREE_RAM + PAGE) | PG_ALL;
            flush_all();
            word border = WINDOW + 2 * PAGE;
            memset((void *)(border - 64), 0x11, 128);
            *entry_of(WINDOW + PAGE, 1) = present & 1 ? FREE_RAM | PG_ALL : 0;
            *entry_of(WINDOW + 2 * PAGE, 1) = present & 2 ? (FREE_RAM + PAGE) | PG_ALL : 0;
            flush_all();
            struct context c = any_stack();
            c.rsp = kind < 3 ? border + 4 : border - 4;
            c.rbp = border - 4;
            c.rdi = (word)arena;
            c.rax = 0x99;
            pieces_begin();
            word at = pieces_here();
            put(kind == 0   ? PIECE("push rdi")
                : kind == 1 ? PIECE("call 1f; 1:")
                : kind == 2 ? PIECE("push [rdi]")
                : kind == 3 ? PIECE("pop rax")
                : kind == 4 ? PIECE("ret")
                            : PIECE("leave"));
            struct trap t = pieces_run(&c);
            bool through = kind == 4 ? t.vector == V_GP || t.vector == V_PF : t.vector == V_BP;
            if (both && kind == 4) /* to a place that is not there */
                CHECK(through &&
                      (t.rsp == border + 4 || (t.vector == V_GP && t.rsp == border - 4)));
            else if (both)
                CHECK(through);
            else {
                if (t.vector != VECTOR_PF || t.rip != at)
                    print("  %s, present %u: vector %lx at %lx\n", what[kind], present, t.vector,
                          t.rip);
                CHECK_EQ(t.vector, VECTOR_PF);
                CHECK_EQ(t.rip, at);
                CHECK_EQ(t.rsp, c.rsp);
                CHECK_EQ(t.frame.rax, 0x99);
                CHECK_EQ(t.frame.rbp, border - 4);
                CHECK_EQ(t.cr2, present & 1 ? border : border - 4);
            }
            if (both || kind >= 3)
                continue;
            word rest = present & 1 ? FREE_RAM + PAGE - 4 : FREE_RAM + PAGE;
            CHECK_EQ(*(uint32_t *)rest, 0x11111111);
        }
    }
}

/* ---- Division -----------------------------------------------------------------------------------
 */

static bool divide_wrong(struct piece p, unsigned bits, bool is_signed, uint64_t hi, uint64_t lo,
                         uint64_t by)
{
    struct context c = any_stack();
    const uint64_t mask = bits == 64 ? ~0ull : (1ull << bits) - 1;
    hi &= mask, lo &= mask, by &= mask;
    c.rax = lo, c.rdx = hi, c.r10 = c.rcx = by, c.rdi = (word)arena;
    memcpy(arena, &by, 8);
    unsigned __int128 n = (unsigned __int128)hi << bits | lo;
    bool fits = by != 0;
    uint64_t q = 0, r = 0;
    /* by repeated doubling: there is no division of this size in a freestanding program */
    unsigned __int128 magnitude = n, remainder = 0, quotient = 0;
    uint64_t divisor = by;
    bool n_negative = is_signed && hi >> (bits - 1) & 1,
         d_negative = is_signed && by >> (bits - 1) & 1;
    if (n_negative)
        magnitude = bits == 64 ? -n : -n & (((unsigned __int128)1 << 2 * bits) - 1);
    if (d_negative)
        divisor = -by & mask;
    for (int i = 127; fits && i >= 0; i--) {
        remainder = remainder << 1 | (magnitude >> i & 1);
        if (remainder >= divisor)
            remainder -= divisor, quotient |= (unsigned __int128)1 << i;
    }
    if (is_signed) {
        unsigned __int128 limit = (unsigned __int128)1 << (bits - 1);
        fits = fits && quotient <= (n_negative != d_negative ? limit : limit - 1);
    } else {
        fits = fits && quotient <= mask;
    }
    q = (n_negative != d_negative ? -(uint64_t)quotient : (uint64_t)quotient) & mask;
    r = (n_negative ? -(uint64_t)remainder : (uint64_t)remainder) & mask;
    pieces_begin_sized(32);
    word at = pieces_here();
    put(p);
    struct trap t = pieces_run(&c);
    uint64_t want_rax = fits ? q : c.rax, want_rdx = fits ? r : c.rdx;
    if (bits == 16 && fits)
        want_rax |= c.rax & ~mask, want_rdx |= c.rdx & ~mask;
    bool bad = differs("vector", t.vector, fits ? V_BP : V_DE, &p, 1) |
               differs("rax", t.frame.rax, want_rax, &p, 1) |
               differs("rdx", t.frame.rdx, want_rdx, &p, 1);
    if (!fits)
        bad |= differs("rip", t.rip, at, &p, 1);
    if (bad)
        print("    %lx:%lx by %lx\n", hi, lo, by);
    return bad;
}

TEST(division_at_its_limits)
{
    static const uint64_t value[] = {0,          1,          2,          3,
                                     7,          0x7fff,     0x8000,     0xffff,
                                     0x7fffffff, 0x80000000, 0xffffffff, 0x7fffffffffffffff,
                                     1ull << 63, ~0ull - 1,  ~0ull};
    enum { VALUES = sizeof value / sizeof value[0] };
    unsigned bad = 0;
    for (unsigned h = 0; h < VALUES; h++)
        for (unsigned l = 0; l < VALUES; l++)
            for (unsigned d = 0; d < VALUES && bad < 10; d++) {
                const uint64_t hi = value[h], lo = value[l], by = value[d];
                bad += divide_wrong(PIECE("div rcx"), 64, false, hi, lo, by);
                bad += divide_wrong(PIECE("div qword ptr [rdi]"), 64, false, hi, lo, by);
                bad += divide_wrong(PIECE("idiv r10"), 64, true, hi, lo, by);
                bad += divide_wrong(PIECE("idiv qword ptr [rdi]"), 64, true, hi, lo, by);
                bad += divide_wrong(PIECE("div r10d"), 32, false, hi, lo, by);
                bad += divide_wrong(PIECE("idiv ecx"), 32, true, hi, lo, by);
                bad += divide_wrong(PIECE("idiv dword ptr [rdi]"), 32, true, hi, lo, by);
                bad += divide_wrong(PIECE("div cx"), 16, false, hi, lo, by);
                bad += divide_wrong(PIECE("idiv r10w"), 16, true, hi, lo, by);
            }
    CHECK_EQ(bad, 0);
}

/* ---- Branches -----------------------------------------------------------------------------------
 */

/* Where the branch leads is what comes next anyway, or is reached by the wrong means. */
TEST(branches_that_lead_on)
{
    for (unsigned i = 0; i < 20; i++) {
        STACK_CASE("lea rax, [rip+1f]; jmp rax; 1: mov r10d, 5", 100, 0, CHECK_EQ(t.frame.r10, 5));
        STACK_CASE("lea r11, [rip+1f]; jmp r11; 1: mov r10d, 6", 100, 0, CHECK_EQ(t.frame.r10, 6));
        STACK_CASE("lea r15, [rip+1f]; call r15; 1: pop rax; sub rax, r15", 100, 0, SP_IS(100);
                   CHECK_EQ(t.frame.rax, 0));
        STACK_CASE("lea rax, [rip+1f]; mov [rsp], rax; call [rsp]; 1: pop rcx", 100, 0, SP_IS(100);
                   CHECK_EQ(t.frame.rcx, t.frame.rax));
        STACK_CASE("lea rax, [rip+1f]; push rax; ret; 1: nop", 100, 0, SP_IS(100));
        STACK_CASE("lea rax, [rip+1f]; push rax; ret 16; 1: nop", 100, 0, SP_IS(102));
        STACK_CASE("lea rax, [rip+1f]; mov [rsp-8], rax; jmp [rsp-8]; 1: nop", 100, 0, SP_IS(100));
        STACK_CASE("call 1f; 1: call 2f; 2: add rsp, 16", 100, 0, SP_IS(100));
        STACK_CASE("jz 1f; 1: jnz 2f; 2: jmp 3f; 3: mov eax, 9", 100, 0, CHECK_EQ(t.frame.rax, 9));
        STACK_CASE("call 1f; jmp 2f; mov eax, 9; jmp 2f; 1: add qword ptr [rsp], 2; ret; 2: nop",
                   100, 0, SP_IS(100);
                   CHECK_EQ(t.frame.rax, 9));
    }
}

/* Calls whose returns go elsewhere, deeper than any return stack. */
TEST(calls_and_returns_that_do_not_match)
{
    /* recursion with every third frame dropped */
    STACK_CASE(
        "mov ecx, 300; xor eax, eax; call 1f; jmp 9f; 1: inc eax; dec ecx; jz 3f; test ecx, 1; "
        "jz 2f; call 1b; inc r10; ret; 2: pop rdx; call 1b; jmp rdx; 3: ret; 9: nop",
        1000, 0, CHECK_EQ(t.frame.rax, 300));
    /* two stacks taking turns */
    STACK_CASE(
        "mov ecx, 100; xor eax, eax; lea rdx, [rip+5f]; mov [rbp], rdx; 1: call 4f; inc rax; dec "
        "ecx; jnz 1b; jmp 9f; 4: xchg rsp, rbp; ret; 5: add rax, 2; call 4b; jmp 5b; 9: nop",
        1000, 500, CHECK_EQ(t.frame.rax, 300));
}

/* ---- Locked operations where a line or a page ends
 * ----------------------------------------------- */

TEST(locked_over_boundaries)
{
    paging_reset();
    map_page(WINDOW + PAGE, FREE_RAM, 1, PG_ALL);
    map_page(WINDOW + 2 * PAGE, FREE_RAM + 5 * PAGE, 1, PG_ALL);
    for (unsigned page = 0; page < 2; page++)
        for (unsigned before = 1; before < 8; before++) {
            word at = WINDOW + (page ? 2 * PAGE : PAGE + 64) - before;
            *(volatile uint64_t *)at = 0x1122334455667788;
            struct context c = any_stack();
            c.rdi = at, c.rax = 0x1122334455667789, c.rcx = 0x4242, c.r10 = 5, c.r15 = 1;
            pieces_begin();
            put(PIECE(
                "lock inc qword ptr [rdi]; lock cmpxchg [rdi], rcx; setz bl; lock xadd [rdi], "
                "r10; xchg [rdi], r15; lock or dword ptr [rdi+2], 0x100; lock not byte ptr "
                "[rdi+7]; lock bts qword ptr [rdi], 63"));
            struct trap t = pieces_run(&c);
            CHECK_EQ(t.vector, V_BP);
            CHECK_EQ(t.frame.rbx & 1, 1);
            CHECK_EQ(t.frame.r10, 0x4242);
            CHECK_EQ(t.frame.r15, 0x4247);
            CHECK_EQ(*(volatile uint64_t *)at, 0xff00000001000001);
        }
    /* the second page is not there: nothing has happened */
    *entry_of(WINDOW + 2 * PAGE, 1) = 0;
    invlpg((void *)(WINDOW + 2 * PAGE));
    *(volatile uint32_t *)(WINDOW + 2 * PAGE - 4) = 7;
    struct context c = any_stack();
    c.rdi = WINDOW + 2 * PAGE - 4, c.rax = 1;
    pieces_begin();
    word at = pieces_here();
    put(PIECE("lock xadd [rdi], rax"));
    struct trap t = pieces_run(&c);
    CHECK_EQ(t.vector, VECTOR_PF);
    CHECK_EQ(t.rip, at);
    CHECK_EQ(t.cr2, WINDOW + 2 * PAGE);
    CHECK_EQ(t.frame.rax, 1);
    CHECK_EQ(*(volatile uint32_t *)(WINDOW + 2 * PAGE - 4), 7);
}

/* A register that a translator keeps in memory, with its value elsewhere, too, for a while: not
 * where ways meet, nor where the access has been made another way. */
TEST(values_where_ways_meet)
{
    paging_reset();
    map_page(WINDOW + PAGE, FREE_RAM, 1, PG_ALL);
    map_page(WINDOW + 2 * PAGE, FREE_RAM + 5 * PAGE, 1, PG_ALL);
    for (unsigned round = 0; round < 6; round++) {
        struct context c = any_stack();
        pieces_begin();
        put(PIECE(
            "test dil, 1; jz 1f; mov r14, rsi; mov r15, r8; 2: mov rbx, r14; add rbx, r14; "
            "mov [r8], rsi; mov r15, [r8]; mov rcx, r15; shl r15, 4; mov r11d, r15d; mov rdx, r11; "
            "mov r10b, 7; mov rax, r10; mov r9, r15; int3; 1: mov r15, 5; mov r11, 3; mov r14, "
            "rdx; "
            "jmp 2b"));
        c.rdi = round, c.rsi = 0x1122334455667788, c.rdx = 0x99, c.r10 = 0x1234;
        c.r8 = round < 4 ? (word)arena : WINDOW + 2 * PAGE - 4;
        struct trap t = pieces_run(&c);
        CHECK_EQ(t.vector, V_BP);
        CHECK_EQ(t.frame.rbx, 2 * (round & 1 ? c.rsi : c.rdx));
        CHECK_EQ(t.frame.rcx, c.rsi);
        CHECK_EQ(t.frame.rdx, (uint32_t)(c.rsi << 4));
        CHECK_EQ(t.frame.rax, 0x1207);
        CHECK_EQ(t.frame.r9, c.rsi << 4);
    }
}

/* MOV with the address in the instruction, of 64 bits: A0h to A3h. */
TEST(addresses_in_the_instruction)
{
    static uint64_t cell[512] __attribute__((aligned(4096))),
        other[512] __attribute__((aligned(4096)));
    word above = WINDOW + phys(other); /* whose low half is the address of something else */
    paging_reset();
    map_page(above, phys(cell), 1, PG_ALL);
    for (unsigned i = 0; i < 16 * 4; i++) {
        unsigned size = 1u << (i & 3);
        bool store = i & 4, high = i & 8;
        uint64_t at = high ? above : (word)cell, old = 0x1122334455667788, rax = 0xa1a2a3a4a5a6a7a8;
        uint64_t mask = size == 8 ? ~0ull : (1ull << 8 * size) - 1;
        struct context c = kernel_context();
        cell[0] = old, c.rax = rax;
        ((volatile uint64_t *)other)[0] = i;
        pieces_begin_sized(24);
        if (size == 2)
            put_bytes("\x66", 1);
        if (size == 8)
            put_bytes("\x48", 1);
        put_bytes((uint8_t[]){0xa0 | store << 1 | (size > 1)}, 1);
        put_bytes(&at, 8);
        struct trap t = pieces_run(&c);
        uint64_t loaded = size == 4 ? old & mask : (rax & ~mask) | (old & mask);
        CHECK_EQ(t.vector, V_BP);
        CHECK_EQ(t.frame.rax, store ? rax : loaded);
        CHECK_EQ(cell[0], store ? (old & ~mask) | (rax & mask) : old);
    }
}

const struct test guest_tests[] = {T(every_register_everywhere),
                                   T(every_pair),
                                   T(high_bytes),
                                   T(the_stack_pointer_as_operand),
                                   T(stacks_over_page_boundaries),
                                   T(division_at_its_limits),
                                   T(branches_that_lead_on),
                                   T(calls_and_returns_that_do_not_match),
                                   T(locked_over_boundaries),
                                   T(values_where_ways_meet),
                                   T(addresses_in_the_instruction),
                                   {0, 0}};
