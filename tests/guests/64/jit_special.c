/*
 * jit_special.c - instructions that a translator cannot copy as they are: bits beyond their
 * operand, branches on rCX that leave flags alone, wide compare-and-exchange, POP of memory, POPF,
 * ENTER, XLAT.
 */
#include "pieces.h"

static uint8_t memory[2 * 4096] __attribute__((aligned(4096)));

/* ---- Bits --------------------------------------------------------------------------------------
 */

enum bit_op { TEST, SET, RESET, COMPLEMENT };

static struct piece bit_piece(enum bit_op op, unsigned size, bool lock)
{
#define BY_SIZE(name, prefix)                                                                      \
    (size == 2   ? PIECE(prefix name " word ptr [rdx], cx")                                        \
     : size == 4 ? PIECE(prefix name " dword ptr [rdx+rbx*4], r15d")                               \
                 : PIECE(prefix name " qword ptr [rdx], rcx"))
    switch (op) {
    case TEST:
        return BY_SIZE("bt", "");
    case SET:
        return lock ? BY_SIZE("bts", "lock ") : BY_SIZE("bts", "");
    case RESET:
        return lock ? BY_SIZE("btr", "lock ") : BY_SIZE("btr", "");
    default:
        return lock ? BY_SIZE("btc", "lock ") : BY_SIZE("btc", "");
    }
#undef BY_SIZE
}

static unsigned bit_wrong(enum bit_op op, unsigned size, bool lock, unsigned at, int64_t bit)
{
    struct context c = kernel_context();
    struct piece p = bit_piece(op, size, lock);
    int64_t place = (int64_t)at * 8 + bit;
    uint8_t want = (uint8_t)(place * 37), *byte = &memory[place >> 3], mask = 1 << (place & 7);
    memset(memory + 4096 - 64, 0x5a, 128);
    *byte = want;
    word carry = want & mask ? F_CF : 0;
    want = op == SET ? want | mask : op == RESET ? want & ~mask : op == TEST ? want : want ^ mask;
    c.rdx = (word)memory + at, c.rbx = 0;
    c.rcx = c.r15 = (word)bit ^ (size == 2 ? 0xabcdull << 16 : size == 4 ? 0xabcdull << 32 : 0);
    c.rflags |= at & 1 ? F_ZF : 0;
    pieces_begin_sized(32);
    put(p);
    struct trap t = pieces_run(&c);
    bool bad = differs("vector", t.vector, V_BP, &p, 1) | differs("byte", *byte, want, &p, 1) |
               differs("CF, ZF", t.rflags & (F_CF | F_ZF), carry | (at & 1 ? F_ZF : 0), &p, 1);
    *byte = 0x5a;
    for (unsigned i = 4096 - 64; i < 4096 + 64; i++)
        bad |= differs("another byte", memory[i], 0x5a, &p, 1);
    return bad;
}

/* From either side of the page's end, aligned or not, the number positive or negative. */
TEST(bits_beyond_the_operand)
{
    static const int bits[] = {-200, -65, -64, -33, -32, -17, -16, -9, -8, -1,
                               0,    7,   15,  16,  31,  32,  63,  64, 150};
    unsigned bad = 0;
    for (unsigned op = TEST; op <= COMPLEMENT; op++)
        for (unsigned size = 2; size <= 8; size *= 2)
            for (unsigned lock = 0; lock < (op == TEST ? 1 : 2); lock++)
                for (unsigned at = 4096 - 16; at < 4096 + 16 && bad < 10; at += 3)
                    for (unsigned n = 0; n < sizeof bits / sizeof bits[0]; n++)
                        bad += bit_wrong(op, size, lock, at, bits[n]);
    CHECK_EQ(bad, 0);
}

/* The faulting address is that of the operand which has the bit. */
TEST(bits_that_are_not_there)
{
    paging_reset();
    map_page(WINDOW, FREE_RAM, 1, PG_ALL);
    for (unsigned i = 0; i < 3; i++) {
        static const int64_t bit[] = {8 * 4096, -1, 8 * 4096ll * 100000 + 63};
        struct context c = kernel_context();
        c.rdx = WINDOW, c.rcx = (word)bit[i];
        pieces_begin_sized(32);
        put(PIECE("btc qword ptr [rdx], rcx"));
        struct trap t = pieces_run(&c);
        CHECK_EQ(t.vector, VECTOR_PF);
        CHECK_EQ(t.error, PF_W);
        CHECK_EQ(t.cr2, WINDOW + (word)((bit[i] >> 6) * 8));
    }
    map_page(WINDOW, FREE_RAM, 1, PG_P);
    CHECK_NO_TRAP(try_read((void *)WINDOW));
    write_cr0(read_cr0() | CR0_WP);
    struct context c = kernel_context();
    c.rdx = WINDOW, c.rcx = 100;
    pieces_begin_sized(32);
    put(PIECE("bt dword ptr [rdx], ecx; bts dword ptr [rdx], ecx"));
    struct trap t = pieces_run(&c);
    CHECK_EQ(t.vector, VECTOR_PF);
    CHECK_EQ(t.error, PF_P | PF_W);
    CHECK_EQ(t.cr2, WINDOW + 12);
}

/* 32-bit addresses wrap, also by the bit's number. */
TEST(bits_over_4_gib)
{
    const word above = (1ull << 32) + (word)memory;
    struct context c = kernel_context();
    paging_reset();
    map_page(above, FREE_RAM, 1, PG_ALL);
    memory[16] = 0x81;
    CHECK_NO_TRAP(try_write((void *)(above + 16), 0));
    c.rdx = 0xabcdabcdfffffff0ull;
    c.rcx = ((word)memory + 32) * 8;
    pieces_begin_sized(32);
    put(PIECE("btr dword ptr [edx], ecx; setc al; movzx eax, al"));
    struct trap t = pieces_run(&c);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.frame.rax, 1);
    CHECK_EQ(memory[16], 0x80);
}

/* ---- Branches on rCX ---------------------------------------------------------------------------
 */

/* Taken backwards (a loop of its own), forwards, and out of the middle of more code. */
TEST(loop_and_jrcxz)
{
    static const struct {
        word rcx, flags;
    } c[] = {{1, 0}, {5, F_CF | F_ZF}, {(1ull << 32) + 2, F_OF}, {1ull << 32, F_CF}, {0, F_ZF}};
    for (unsigned i = 0; i < sizeof c / sizeof c[0]; i++)
        for (unsigned narrow = 0; narrow < 2; narrow++) {
            word rcx = narrow ? (uint32_t)c[i].rcx : c[i].rcx;
            struct context x = kernel_context();
            if (rcx == 0 || rcx > 1000)
                continue;
            x.rcx = c[i].rcx, x.rdx = 0, x.rflags |= c[i].flags;
            pieces_begin_sized(64);
            put(narrow ? PIECE("1: lea rdx, [rdx+1]; .byte 0x67; loop 1b")
                       : PIECE("1: lea rdx, [rdx+1]; loop 1b"));
            struct trap t = pieces_run(&x);
            CHECK_EQ(t.vector, V_BP);
            CHECK_EQ(t.frame.rdx, rcx);
            CHECK_EQ(t.frame.rcx, 0);
            CHECK_EQ(t.rflags & F_ARITH, c[i].flags);
        }
    for (unsigned i = 0; i < sizeof c / sizeof c[0]; i++)
        for (unsigned narrow = 0; narrow < 2; narrow++) {
            word rcx = narrow ? (uint32_t)c[i].rcx : c[i].rcx;
            struct context x = kernel_context();
            x.rcx = c[i].rcx, x.rdx = 0, x.rflags |= c[i].flags;
            pieces_begin_sized(64);
            put(narrow ? PIECE("jecxz 1f; lea rdx, [rdx+1]; 1: lea rdx, [rdx+2]")
                       : PIECE("jrcxz 1f; lea rdx, [rdx+1]; 1: lea rdx, [rdx+2]"));
            struct trap t = pieces_run(&x);
            CHECK_EQ(t.frame.rdx, rcx ? 3 : 2);
            CHECK_EQ(t.frame.rcx, c[i].rcx);
            CHECK_EQ(t.rflags & F_ARITH, c[i].flags);
        }
}

/* ZF decides with RCX; a comparison's flags stay for whoever comes behind. */
TEST(loope_and_loopne)
{
    for (unsigned rcx = 1; rcx < 4; rcx++)
        for (unsigned zero = 0; zero < 2; zero++) {
            struct context c = kernel_context();
            c.rcx = rcx, c.rax = 5, c.rbx = zero ? 5 : 6, c.rdi = (word)memory;
            pieces_begin_sized(64);
            put(PIECE("xor edx, edx; cmp rax, rbx; loope 1f; lea edx, [rdx+1]; 1: mov [rdi], rdx;"
                      "loopne 2f; lea edx, [rdx+2]; 2: mov [rdi], rdx; setb sil"));
            struct trap t = pieces_run(&c);
            bool first = rcx != 1 && zero, second = rcx != 2 && !zero;
            CHECK_EQ(t.vector, V_BP);
            CHECK_EQ(t.frame.rdx, (first ? 0 : 1) + (second ? 0 : 2));
            CHECK_EQ(t.frame.rcx, (word)rcx - 2);
            CHECK_EQ(t.frame.rsi & 0xff, !zero);
        }
}

/* ---- CMPXCHG8B, CMPXCHG16B ---------------------------------------------------------------------
 */

TEST(wide_exchanges)
{
    for (unsigned wide = 0; wide < 2; wide++)
        for (unsigned lock = 0; lock < 2; lock++)
            for (unsigned equal = 0; equal < 2; equal++)
                for (unsigned at = 4096 - 32; at <= 4096; at += 4) {
                    struct context c = kernel_context();
                    uint64_t was[2] = {0x1111111122222222, 0x3333333344444444}, is[2];
                    memcpy(memory + at, was, 16);
                    c.rdi = (word)memory + at;
                    c.rax = was[0] - !equal, c.rdx = wide ? was[1] : 0xffffffff11111111;
                    c.rbx = 0x5555555566666666, c.rcx = 0x7777777788888888;
                    c.rflags |= F_CF | F_OF | (equal ? 0 : F_ZF);
                    pieces_begin_sized(32);
                    put(wide   ? lock ? PIECE("lock cmpxchg16b [rdi]") : PIECE("cmpxchg16b [rdi]")
                          : lock ? PIECE("lock cmpxchg8b [rdi]")
                               : PIECE("cmpxchg8b [rdi]"));
                    struct trap t = pieces_run(&c);
                    memcpy(is, memory + at, 16);
                    if (wide && at % 16) {
                        CHECK_EQ(t.vector, VECTOR_GP);
                        CHECK_EQ(is[0], was[0]);
                        continue;
                    }
                    CHECK_EQ(t.vector, V_BP);
                    CHECK_EQ(t.rflags & F_ARITH, F_CF | F_OF | (equal ? F_ZF : 0));
                    CHECK_EQ(is[0], !equal ? was[0] : wide ? c.rbx : 0x8888888866666666);
                    CHECK_EQ(is[1], equal && wide ? c.rcx : was[1]);
                    CHECK_EQ(t.frame.rax, equal ? c.rax : wide ? was[0] : (uint32_t)was[0]);
                    CHECK_EQ(t.frame.rdx, equal || wide ? c.rdx : 0x11111111);
                }
}

/* It writes even where it exchanges nothing. */
TEST(wide_exchanges_need_to_write)
{
    paging_reset();
    write_cr0(read_cr0() | CR0_WP);
    map_page(WINDOW, FREE_RAM, 1, PG_P);
    CHECK_NO_TRAP(try_read((void *)WINDOW));
    struct context c = kernel_context();
    c.rdi = WINDOW, c.rax = ~0ull;
    pieces_begin_sized(32);
    put(PIECE("cmpxchg16b [rdi]"));
    struct trap t = pieces_run(&c);
    CHECK_EQ(t.vector, VECTOR_PF);
    CHECK_EQ(t.error, PF_P | PF_W);
    CHECK_EQ(t.frame.rax, ~0ull);
}

/* ---- POP ---------------------------------------------------------------------------------------
 */

/* The address counts from where RSP will be. INT3 has a stack that works by then. */
TEST(pop_of_memory)
{
    uint64_t *stack = (uint64_t *)memory;
    struct piece p[] = {PIECE("pop [rdi]"),
                        PIECE("pop [rsp]"),
                        PIECE("pop [rsp+rax*8]"),
                        PIECE("pop [rdi+r15]"),
                        PIECE("pop r12; pop [rsp+rax*8+8]"),
                        PIECE("pop [r10]"),
                        PIECE("push [rsp+8]; pop [rdi]")};
    static const unsigned from[] = {100, 100, 100, 100, 101, 100, 101},
                          to[] = {200, 101, 104, 201, 106, 202, 200},
                          after[] = {101, 101, 101, 101, 102, 101, 100};
    for (unsigned i = 0; i < sizeof p / sizeof p[0]; i++) {
        struct context c = kernel_context();
        for (unsigned n = 0; n < 512; n++)
            stack[n] = 0x1000 + n;
        c.rbp = c.rsp;
        c.rsp = (word)&stack[100], c.rdi = (word)&stack[200], c.rax = 3, c.r15 = 8;
        c.r10 = (word)&stack[202];
        pieces_begin_sized(64);
        put(p[i]);
        put(PIECE("mov rsi, rsp; mov rsp, rbp"));
        struct trap t = pieces_run(&c);
        CHECK_EQ(t.vector, V_BP);
        CHECK_EQ(t.frame.rsi, (word)&stack[after[i]]);
        CHECK_EQ(stack[to[i]], 0x1000 + from[i]);
    }
}

/* ---- POPF, ENTER, XLAT -------------------------------------------------------------------------
 */

/* Arithmetic flags alone, and with each other flag that POPF may change or not (SDM vol. 2, POPF).
 */
TEST(popf_of_everything)
{
    enum { ID = 1 << 21, ARITH = F_ARITH, ALWAYS = 2 };
    static const uint32_t bits[] = {0,    F_CF, F_OF, 0x80, 0x55,    F_ARITH, F_IF,     F_DF,
                                    F_NT, F_AC, ID,   F_RF, F_IOPL3, 0x28,    1u << 31, F_VM};
    for (unsigned i = 0; i < 2 * 16 * 16; i++) {
        uint32_t before = bits[i & 15] & (F_ARITH | F_DF | ID), value = bits[i >> 4 & 15];
        bool user = i >> 8;
        struct context c = user ? any_stack() : kernel_context();
        uint32_t fixed = (uint32_t)c.rflags & ~(F_ARITH | F_DF | ID),
                 may = F_ARITH | F_DF | F_NT | F_AC | ID | (user ? 0 : F_IF | F_IOPL3);
        c.rflags = fixed | before;
        c.rsp = (word)&memory[2048], c.rax = value | (i & 1 ? ALWAYS : 0), c.rbp = c.rsp;
        struct piece p = PIECE("push rax; popfq; mov rcx, rsp; mov rsp, rbp; pushfq; pop rbx; "
                               "push 2; popfq; mov rsp, rbp");
        pieces_begin_sized(64);
        put(p);
        if (!user) /* which has no stack of its own */
            c.rbp = c.rsp = (word)&memory[2048];
        struct trap t = pieces_run(&c);
        uint32_t want = ((fixed | before) & ~may) | (value & may) | ALWAYS;
        bool bad = differs("vector", t.vector, V_BP, &p, 1) |
                   differs("flags", t.frame.rbx & 0x3fffff, want & ~F_RF & 0x3fffff, &p, 1) |
                   differs("RSP", t.frame.rcx, c.rsp, &p, 1);
        CHECK(!bad);
    }
}

/* The last word of the frame has to be writable; what cannot be leaves registers alone. */
TEST(enter_and_its_frame)
{
    static const uint16_t sizes[] = {0, 8, 100, 488, 504, 511, 512, 513, 520, 4000, 5000, 0xffff};
    enum { PAGES = 20, ABSENT = 18 };
    static const word from[] = {WINDOW + 20 * PAGE, WINDOW + 19 * PAGE, WINDOW + 17 * PAGE + 300};
    paging_reset();
    for (unsigned n = 0; n < PAGES; n++)
        if (n != ABSENT)
            map_page(WINDOW + n * PAGE, FREE_RAM + (PAGES - n) * PAGE, 1, PG_ALL);
    for (unsigned i = 0; i < 12 * 3 * 12; i++) {
        unsigned size = sizes[i % 12], level = i / 12 % 3;
        word sp = from[i / 36 % 3] - 16 * (i / 108) - 24;
        struct context c = any_stack();
        c.rsp = sp, c.rbp = WINDOW + 17 * PAGE + 512;
        for (unsigned n = 0; n < PAGES; n++)
            if (n != ABSENT)
                memset((void *)(FREE_RAM + (PAGES - n) * PAGE), 0x5a, PAGE);
        word first = sp - 8, last = sp - 8 * (level + 1) - size;
        bool fails = (first - WINDOW) / PAGE == ABSENT || (last - WINDOW) / PAGE == ABSENT;
        uint8_t enter[] = {0xc8, size & 0xff, size >> 8, level};
        pieces_begin_sized(16);
        put_bytes(enter, 4);
        struct trap t = pieces_run(&c);
        CHECK_EQ(t.vector, fails ? V_PF : V_BP);
        CHECK_EQ(t.rsp, fails ? sp : last);
        CHECK_EQ(t.frame.rbp, fails ? c.rbp : first);
        if (fails)
            continue;
        const uint64_t *frame = (const uint64_t *)first;
        CHECK_EQ(frame[0], c.rbp);
        if (level)
            CHECK_EQ(frame[-(int)level], first);
        CHECK_EQ(frame[-(int)level - 1], 0x5a5a5a5a5a5a5a5a);
        CHECK_EQ(*(const uint64_t *)(FREE_RAM + ABSENT * PAGE), 0x5a5a5a5a5a5a5a5a);
    }
}

TEST(xlat_of_every_byte)
{
    for (unsigned i = 0; i < 512; i++)
        memory[4096 - 256 + i] = (uint8_t)(i * 7 + 3);
    for (unsigned i = 0; i < 256; i++) {
        struct context c = kernel_context();
        c.rbx = (word)memory + 4096 - (i & 1 ? 256 : 100), c.rax = 0xabcdef00 | i;
        struct piece p =
            i & 2 ? PIECE("cmp rbx, rbx; xlatb") : PIECE("cmp rbx, rbx; .byte 0x67; xlatb");
        word table = c.rbx - (word)memory;
        if (!(i & 2))
            c.rbx |= 1ull << 40; /* which the address does not have */
        pieces_begin_sized(16);
        put(p);
        struct trap t = pieces_run(&c);
        bool bad = differs("RAX", t.frame.rax, 0xabcdef00 | memory[table + i], &p, 1) |
                   differs("flags", t.rflags & F_ARITH, 0x44, &p, 1);
        CHECK(!bad);
    }
}

const struct test guest_tests[] = {T(bits_beyond_the_operand),
                                   T(bits_that_are_not_there),
                                   T(bits_over_4_gib),
                                   T(loop_and_jrcxz),
                                   T(loope_and_loopne),
                                   T(wide_exchanges),
                                   T(wide_exchanges_need_to_write),
                                   T(pop_of_memory),
                                   T(popf_of_everything),
                                   T(enter_and_its_frame),
                                   T(xlat_of_every_byte),
                                   {0, 0}};
