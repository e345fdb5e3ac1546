/*
 * jit_string.c - MOVS, STOS, LODS, CMPS, SCAS as a translator may do them in one go: overlaps in
 * both directions and through other mappings, counts around the ends of pages, faults in the
 * middle, counts whose product with the size wraps, code that they overwrite, what may not be
 * written and what is watched (SDM vol. 2, REP; vol. 3, 17.3.1.2).
 */
#include "pieces.h"

enum { VIEWS = 8, ROOM = 4 * PAGE };
#define TO   WINDOW
#define FROM (WINDOW + 0x100000)
/* Frames lie backwards, with a gap: what runs over a page's end on the host is found out. */
#define TO_FRAME(n)   (FREE_RAM + 0x100000 - 2 * (n)*PAGE)
#define FROM_FRAME(n) (FREE_RAM + 0x200000 - 2 * (n)*PAGE)

static uint8_t model[ROOM], source[ROOM];

static void set_up(void)
{
    paging_reset();
    for (unsigned i = 0; i < 4; i++) {
        map_page(TO + i * PAGE, TO_FRAME(i), 1, PG_ALL);
        map_page(FROM + i * PAGE, FROM_FRAME(i), 1, PG_ALL);
    }
}

/* By REP of more than a page: one instruction in lockstep, and no translator's own work. */
static void copy_room(void *to, const void *from)
{
    word count = ROOM / 8;
    asm volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(count)::"memory");
}
static bool same_room(const void *a, const void *b)
{
    bool same;
    word count = ROOM / 8;
    asm volatile("repe cmpsq" : "+D"(a), "+S"(b), "+c"(count), "=@ccz"(same)::"memory");
    return same;
}

/* The same bytes everywhere as before each case. */
static void fill(void)
{
    static uint8_t first[2][ROOM];
    static uint32_t seed;
    while (seed < 2 * ROOM) {
        first[seed / ROOM][seed % ROOM] = (uint8_t)((seed * 2654435761u) >> 19);
        seed++;
    }
    copy_room(model, first[0]);
    copy_room((void *)TO, first[0]);
    copy_room(source, first[1]);
    copy_room((void *)FROM, first[1]);
}

static bool is_as_the_model(void)
{
    return same_room(model, (void *)TO) && same_room(source, (void *)FROM);
}

/* As the manual describes it: element by element. */
static void model_move(uint8_t *to, const uint8_t *from, unsigned size, unsigned count, bool down)
{
    uint8_t element[8];
    for (; count; count--) {
        memcpy(element, from, size);
        memcpy(to, element, size);
        to = down ? to - size : to + size;
        from = down ? from - size : from + size;
    }
}

static struct piece rep_movs(unsigned size)
{
    return size == 1   ? PIECE("rep movsb")
           : size == 2 ? PIECE("rep movsw")
           : size == 4 ? PIECE("rep movsd")
                       : PIECE("rep movsq");
}
static struct piece rep_stos(unsigned size)
{
    return size == 1   ? PIECE("rep stosb")
           : size == 2 ? PIECE("rep stosw")
           : size == 4 ? PIECE("rep stosd")
                       : PIECE("rep stosq");
}

#define VALUE 0x8877665544332211ull

static struct context string_context(word from, word to, word count)
{
    struct context c = kernel_context();
    c.rsi = from, c.rdi = to, c.rcx = count, c.rax = VALUE;
    return c;
}

static struct trap run_one(struct piece p, struct context *c)
{
    pieces_begin_sized(32);
    put(p);
    return pieces_run(c);
}

/* Did the registers come to where `done` elements lead? */
static bool registers_wrong(const struct trap *t, const struct context *c, unsigned size, word done,
                            bool moves, struct piece p)
{
    word step = c->rflags & F_DF ? -(word)size : size;
    return differs("rcx", t->frame.rcx, c->rcx - done, &p, 1) |
           differs("rdi", t->frame.rdi, c->rdi + step * done, &p, 1) |
           differs("rsi", t->frame.rsi, c->rsi + (moves ? step * done : 0), &p, 1) |
           differs("rax", t->frame.rax, VALUE, &p, 1) |
           differs("flags", t->rflags & F_ARITH, c->rflags & F_ARITH, &p, 1);
}

/* ---- Overlaps ----------------------------------------------------------------------------------
 */

static unsigned overlap_wrong(unsigned size, int distance, unsigned count, bool down, unsigned at)
{
    struct context c = string_context(TO + at, TO + at + (word)(int64_t)distance, count);
    c.rflags |= F_CF | F_OF | (down ? F_DF : 0);
    fill();
    model_move(model + at + distance, model + at, size, count, down);
    struct piece p = rep_movs(size);
    struct trap t = run_one(p, &c);
    bool bad =
        differs("vector", t.vector, V_BP, &p, 1) | registers_wrong(&t, &c, size, count, true, p);
    if (!is_as_the_model()) {
        print("  %s: distance %d, count %u, DF %u at %x\n", p.text, distance, count, down, at);
        bad = true;
    }
    return bad;
}

TEST(overlaps)
{
    static const int distances[] = {0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 31, 33, 64, 100};
    static const unsigned counts[] = {0, 1, 2, 3, 9, 40};
    unsigned bad = 0;
    set_up();
    for (unsigned size = 1; size <= 8; size *= 2)
        for (unsigned d = 0; d < sizeof distances / sizeof distances[0]; d++)
            for (unsigned n = 0; n < sizeof counts / sizeof counts[0] && bad < 10; n++) {
                bad += overlap_wrong(size, distances[d], counts[n], false, 0x800);
                bad += overlap_wrong(size, -distances[d], counts[n], false, 0x800);
                bad += overlap_wrong(size, distances[d], counts[n], true, 0x800);
                bad += overlap_wrong(size, -distances[d], counts[n], true, 0xff0);
            }
    CHECK_EQ(bad, 0);
}

/* Two pages that are one frame: the addresses are far apart, the bytes are the same. */
TEST(overlaps_through_another_mapping)
{
    const word other = WINDOW + 0x200000;
    set_up();
    map_page(other, TO_FRAME(0), 1, PG_ALL);
    for (unsigned size = 1; size <= 8; size *= 2)
        for (int distance = -9; distance <= 9; distance++) {
            struct context c = string_context(TO + 100, other + 100 + (word)(int64_t)distance, 30);
            fill();
            model_move(model + 100 + distance, model + 100, size, 30, false);
            struct trap t = run_one(rep_movs(size), &c);
            CHECK_EQ(t.vector, V_BP);
            CHECK(is_as_the_model());
        }
}

/* ---- The ends of pages -------------------------------------------------------------------------
 */

static void model_fill(uint8_t *to, unsigned size, unsigned count)
{
    const uint64_t value = VALUE;
    for (unsigned i = 0; i < count; i++)
        memcpy(to + i * size, &value, size);
}

/* REP MOVS or REP STOS, and in the model what its first `done` elements do. */
static struct piece set_up_string(bool moves, unsigned size, unsigned from, unsigned to,
                                  unsigned done)
{
    fill();
    if (moves)
        model_move(model + to, source + from, size, done, false);
    else
        model_fill(model + to, size, done);
    return moves ? rep_movs(size) : rep_stos(size);
}

/* One MOVS and one STOS. */
static unsigned copy_wrong(unsigned size, unsigned from, unsigned to, unsigned count)
{
    unsigned bad = 0;
    for (unsigned moves = 0; moves < 2; moves++) {
        struct context c = string_context(FROM + from, TO + to, count);
        struct piece p = set_up_string(moves, size, from, to, count);
        struct trap t = run_one(p, &c);
        bad += differs("vector", t.vector, V_BP, &p, 1) |
               registers_wrong(&t, &c, size, count, moves, p);
        if (!is_as_the_model()) {
            print("  %s: from %x to %x count %u\n", p.text, from, to, count);
            bad++;
        }
    }
    return bad;
}

TEST(around_page_boundaries)
{
    unsigned bad = 0;
    set_up();
    for (unsigned size = 1; size <= 8; size *= 2)
        for (unsigned count = 1; count <= 9; count += 4) {
            const unsigned border = PAGE - count * size;
            for (int d = -2; d <= 9 && bad < 10; d++) {
                bad += copy_wrong(size, border + (unsigned)d, 0x200, count);
                bad += copy_wrong(size, 0x200, border + (unsigned)d, count);
                bad += copy_wrong(size, border + (unsigned)d, border, count);
            }
        }
    for (unsigned size = 1; size <= 8; size *= 2) {
        bad += copy_wrong(size, 0, 0, PAGE / size);
        bad += copy_wrong(size, 0, 0, PAGE / size + 1);
        bad += copy_wrong(size, 1, 0, PAGE / size);
        bad += copy_wrong(size, 0, 8, PAGE / size);
        bad += copy_wrong(size, 0x800, 0x10, 3 * PAGE / size);
    }
    CHECK_EQ(bad, 0);
}

/* ---- Faults in the middle ----------------------------------------------------------------------
 */

struct gap {
    bool in_source;
    unsigned page;  /* that is not there, or read-only */
    uint64_t flags; /* of its entry */
    unsigned error;
};

static void set_gap(const struct gap *g, uint64_t flags)
{
    word va = (g->in_source ? FROM : TO) + g->page * PAGE;
    map_page(va, g->in_source ? FROM_FRAME(g->page) : TO_FRAME(g->page), 1, flags);
}

/* Begins at from and to; the gap is met after `done` whole elements. */
static unsigned fault_wrong(const struct gap *g, unsigned size, unsigned from, unsigned to,
                            unsigned count, bool moves)
{
    unsigned at = g->in_source ? from : to, room = g->page * PAGE - at, done = room / size;
    struct context c = string_context(FROM + from, TO + to, count);
    struct piece p = set_up_string(moves, size, from, to, done);
    set_gap(g, g->flags);
    pieces_begin_sized(32);
    word here = pieces_here();
    put(p);
    struct trap t = pieces_run(&c);
    set_gap(g, PG_ALL);
    bool bad = differs("vector", t.vector, VECTOR_PF, &p, 1) |
               differs("error", t.error, g->error, &p, 1) | differs("rip", t.rip, here, &p, 1) |
               differs("cr2", t.cr2, (g->in_source ? FROM : TO) + g->page * PAGE, &p, 1) |
               registers_wrong(&t, &c, size, done, moves, p);
    if (!is_as_the_model()) {
        print("  %s: from %x to %x, gap in the %s\n", p.text, from, to,
              g->in_source ? "source" : "destination");
        bad = true;
    }
    return bad;
}

TEST(faults_in_the_middle)
{
    static const struct gap gaps[] = {
        {true, 2, 0, 0}, {false, 2, 0, PF_W}, {false, 2, PG_P, PF_P | PF_W}, {true, 1, 0, 0}};
    unsigned bad = 0;
    set_up();
    write_cr0(read_cr0() | CR0_WP);
    for (unsigned g = 0; g < sizeof gaps / sizeof gaps[0]; g++)
        for (unsigned size = 1; size <= 8; size *= 2) {
            /* after a page and a half; with the other end elsewhere; two elements before it */
            bad += fault_wrong(&gaps[g], size, 0x800, 0x800, 3 * PAGE / size, true);
            bad += fault_wrong(&gaps[g], size, 0x800, 0x10, 3 * PAGE / size, gaps[g].in_source);
            unsigned near = gaps[g].page * PAGE - 2 * size;
            bad += fault_wrong(&gaps[g], size, near, near, 5, true);
            if (!gaps[g].in_source) {
                bad += fault_wrong(&gaps[g], size, 0, 0x800, 3 * PAGE / size, false);
                bad += fault_wrong(&gaps[g], size, 0, near, 5, false);
            }
        }
    CHECK_EQ(bad, 0);
}

/* The flags that a fault in the middle shows are those from before the instruction, also if they
 * came from registers that it has moved by then, and if nothing behind it wants them. */
TEST(flags_of_a_fault_in_the_middle)
{
    static const struct gap gap = {false, 2, 0, PF_W};
    const struct piece makes[] = {PIECE("add rsi, 8"),   PIECE("add rdi, 8"),
                                  PIECE("add rcx, 8"),   PIECE("cmp rsi, rdi"),
                                  PIECE("sub rcx, rdi"), PIECE("test rdi, rdi")};
    const struct piece strings[] = {rep_movs(8), rep_stos(8), rep_movs(1)};
    unsigned bad = 0;
    set_up();
    for (unsigned m = 0; m < sizeof makes / sizeof makes[0]; m++)
        for (unsigned n = 0; n < sizeof strings / sizeof strings[0]; n++) {
            struct context c = string_context(FROM + 0x7f8, TO + 0xf98, 3 * PAGE);
            pieces_begin_sized(32);
            put(makes[m]);
            struct trap before = pieces_run(&c); /* at the breakpoint behind it */
            set_gap(&gap, 0);
            pieces_begin_sized(32);
            put(makes[m]);
            word here = pieces_here();
            put(strings[n]);
            put(PIECE("add r8, 1"));
            struct trap t = pieces_run(&c);
            set_gap(&gap, PG_ALL);
            bad += differs("vector", t.vector, VECTOR_PF, &makes[m], 1) |
                   differs("rip", t.rip, here, &strings[n], 1) |
                   differs("flags", t.rflags & F_ARITH, before.rflags & F_ARITH, &makes[m], 1);
        }
    CHECK_EQ(bad, 0);
}

/* In a page that has just been read, and may only be read: the first element faults already. */
TEST(read_only)
{
    static const struct gap gap = {false, 1, PG_P, PF_P | PF_W};
    struct piece p[] = {rep_movs(1), rep_movs(8), rep_stos(4), PIECE("movsd"), PIECE("stosb")};
    set_up();
    write_cr0(read_cr0() | CR0_WP);
    for (unsigned i = 0; i < sizeof p / sizeof p[0]; i++) {
        struct context c = string_context(FROM, TO + PAGE + 0x100, 3);
        fill();
        set_gap(&gap, gap.flags);
        CHECK_NO_TRAP(try_read((void *)c.rdi));
        struct trap t = run_one(p[i], &c);
        set_gap(&gap, PG_ALL);
        CHECK_EQ(t.vector, VECTOR_PF);
        CHECK_EQ(t.error, gap.error);
        CHECK_EQ(t.cr2, c.rdi);
        CHECK(!registers_wrong(&t, &c, 1, 0, false, p[i]));
        CHECK(is_as_the_model());
    }
}

/* Counts whose product with the size is small, or 0, in 64 bits. */
TEST(counts_that_wrap)
{
    static const struct gap gap = {false, 1, 0, PF_W};
    set_up();
    for (unsigned size = 1; size <= 8; size *= 2)
        for (unsigned more = 0; more < 3; more++) {
            const word from = FROM + 0x100, to = TO + PAGE - 64;
            word count = (size == 1 ? 0 : (word)1 << (64 - __builtin_ctz(size))) + more - 1;
            struct context c = string_context(from, to, count);
            if (!count)
                continue;
            for (unsigned moves = 0; moves < 2; moves++) {
                bool short_one = count < 64 / size;
                struct piece p = moves ? rep_movs(size) : rep_stos(size);
                fill();
                unsigned done = short_one ? (unsigned)count : 64 / size;
                if (moves)
                    model_move(model + PAGE - 64, source + 0x100, size, done, false);
                else
                    model_fill(model + PAGE - 64, size, done);
                set_gap(&gap, 0);
                struct trap t = run_one(p, &c);
                set_gap(&gap, PG_ALL);
                CHECK_EQ(t.vector, short_one ? (word)V_BP : (word)VECTOR_PF);
                CHECK(!registers_wrong(&t, &c, size, done, moves, p));
                CHECK(is_as_the_model());
            }
        }
}

/* ---- Code that they overwrite ------------------------------------------------------------------
 */

/* REP STOSB over the instructions behind it, in the page that runs: NOPs from then on, even in a
 * loop that has been translated long before. */
TEST(stores_to_the_running_page)
{
    for (unsigned round = 0; round < 20; round++) {
        struct context c = kernel_context();
        c.rcx = 2, c.rax = 0x90, c.rdx = 0, c.r8 = round % 3 + 1;
        pieces_begin_sized(64);
        c.rdi = pieces_here() + 0x30; /* at first behind the code */
        put(PIECE(
            "lea rbx, [rip+3f]; mov esi, [rbx]; 1: rep stosb; 3: inc edx; mov ecx, 2; mov rdi, rbx;"
            "dec r8d; jnz 1b"));
        struct trap t = pieces_run(&c);
        CHECK_EQ(t.vector, V_BP);
        CHECK_EQ(t.frame.rdx, 1); /* INC is NOPs when it would run again */
        CHECK_EQ(t.frame.rcx, 2);
    }
}

/* REP MOVSB brings the instruction that comes next. */
TEST(copies_onto_what_comes_next)
{
    static const uint8_t codes[3][5] = {
        {0xb8, 1, 0, 0, 0}, {0xb8, 2, 0, 0, 0}, {0x31, 0xc0, 0xff, 0xc8, 0x90}};
    static const uint32_t want[] = {1, 2, 0xffffffff};
    for (unsigned i = 0; i < 12; i++) {
        struct context c = kernel_context();
        c.rsi = (word)codes[i % 3], c.rcx = 5;
        pieces_begin_sized(64);
        put(PIECE("lea rdi, [rip+1f]; rep movsb; 1: mov eax, 0x77777777"));
        struct trap t = pieces_run(&c);
        CHECK_EQ(t.vector, V_BP);
        CHECK_EQ((uint32_t)t.frame.rax, want[i % 3]);
    }
}

/* ---- Watched -----------------------------------------------------------------------------------
 */

/* A data breakpoint lets go behind the iteration that meets it. */
TEST(breakpoints_in_the_middle)
{
    set_up();
    for (unsigned moves = 0; moves < 2; moves++)
        for (unsigned source_side = 0; source_side <= moves; source_side++) {
            struct context c = string_context(FROM + 0x100, TO + 0x200, 32);
            struct piece p = moves ? rep_movs(4) : rep_stos(4);
            fill();
            if (moves)
                model_move(model + 0x200, source + 0x100, 4, 11, false);
            else
                model_fill(model + 0x200, 4, 11);
            pieces_begin_sized(32);
            word here = pieces_here();
            put(p);
            write_dr6(0xffff0ff0);
            write_dr0(source_side ? FROM + 0x100 + 40 : TO + 0x200 + 40);
            write_dr7(0x402 | (source_side ? 0xfu : 0xdu) << 16);
            struct trap t = pieces_run(&c);
            word dr6 = read_dr6();
            write_dr7(0x400);
            CHECK_EQ(t.vector, V_DB);
            CHECK_EQ(t.rip, here);
            CHECK_EQ(dr6 & 15, 1);
            CHECK(!registers_wrong(&t, &c, 4, 11, moves, p));
            CHECK(is_as_the_model());
        }
}

/* ---- One at a time -----------------------------------------------------------------------------
 */

static uint64_t at_border(unsigned size, int d)
{
    return PAGE - size + (uint64_t)(int64_t)d;
}

/* Around the page's end, forwards and backwards, whole registers seen. */
TEST(single_moves)
{
    unsigned bad = 0;
    set_up();
    for (unsigned size = 1; size <= 8; size *= 2)
        for (int d = -1; d <= 8; d++)
            for (unsigned down = 0; down < 2 && bad < 10; down++) {
                const word step = down ? -(word)size : size, at = at_border(size, d);
                struct context c = string_context(FROM + at, TO + at, 0x1234);
                c.rflags |= F_ZF | (down ? F_DF : 0);
                struct piece p = size == 1   ? PIECE("movsb; stosb; lodsb")
                                 : size == 2 ? PIECE("movsw; stosw; lodsw")
                                 : size == 4 ? PIECE("movsd; stosd; lodsd")
                                             : PIECE("movsq; stosq; lodsq");
                uint64_t value = VALUE, rax = size == 4 ? 0 : VALUE;
                fill();
                memcpy(model + at, source + at, size);
                memcpy(model + at + (int64_t)step, &value, size);
                memcpy(&rax, source + at + (int64_t)step, size);
                struct trap t = run_one(p, &c);
                bad += differs("vector", t.vector, V_BP, &p, 1) |
                       differs("rax", t.frame.rax, rax, &p, 1) |
                       differs("rcx", t.frame.rcx, 0x1234, &p, 1) |
                       differs("rsi", t.frame.rsi, c.rsi + 2 * step, &p, 1) |
                       differs("rdi", t.frame.rdi, c.rdi + 2 * step, &p, 1) |
                       differs("flags", t.rflags & F_ARITH, F_ZF, &p, 1) | !is_as_the_model();
            }
    CHECK_EQ(bad, 0);
}

/* CMPS is [RSI] - [RDI], SCAS rAX - [RDI]; the next instruction sees their flags. */
TEST(single_comparisons)
{
    static const int8_t values[] = {-128, -1, 0, 1, 127};
    set_up();
    for (unsigned a = 0; a < 5; a++)
        for (unsigned b = 0; b < 5; b++) {
            int x = values[a], y = values[b];
            struct context c = string_context(FROM, TO, 0);
            *(volatile int8_t *)FROM = values[a];
            *(volatile int8_t *)TO = *(volatile int8_t *)(TO + 1) = values[b];
            c.rax = VALUE << 8 | (uint8_t)values[a];
            struct trap t = run_one(
                PIECE("cmpsb; setl bl; setb bh; scasb; setl dl; setb dh; movzx r8d, bl; movzx "
                      "r9d, dl; sete r10b; movzx r10d, r10b"),
                &c);
            CHECK_EQ(t.frame.r8, x < y);
            CHECK_EQ(t.frame.r9, x < y);
            CHECK_EQ(t.frame.rbx >> 8 & 0xff, (uint8_t)x < (uint8_t)y);
            CHECK_EQ(t.frame.rdx >> 8 & 0xff, (uint8_t)x < (uint8_t)y);
            CHECK_EQ(t.frame.r10, x == y);
            CHECK_EQ(t.frame.rsi, FROM + 1);
            CHECK_EQ(t.frame.rdi, TO + 2);
        }
}

/* ---- 32-bit code -------------------------------------------------------------------------------
 */

asm(".code32\n" LABEL(string32_movs) "rep movsb\n int3\n" LABEL(string32_stos) "rep stosl\n int3\n"
                                                                               ".code64");

/* Compatibility mode: what lies above bit 31 does not count, whatever 64-bit code left there. */
TEST(upper_halves_in_32_bit_code)
{
    static uint8_t to[64] __attribute__((aligned(64))), from[64];
    const word high = 0xdeadbeefull << 32;
    for (unsigned i = 0; i < 64; i++)
        from[i] = (uint8_t)(i + 1);
    for (unsigned stos = 0; stos < 2; stos++) {
        struct context c = context_at(stos ? SYMBOL(string32_stos) : SYMBOL(string32_movs),
                                      SEL_UCODE32, SEL_UDATA);
        set_gate(V_BP, (word)trap_stubs + 16 * V_BP, SEL_CODE, 14, 3, 0);
        memset(to, 0, sizeof to);
        c.rcx = high | 5, c.rsi = high | (word)from, c.rdi = high | (word)to, c.rax = VALUE;
        struct trap t = RUN(c);
        CHECK_EQ(t.vector, V_BP);
        CHECK_EQ((uint32_t)t.frame.rcx, 0);
        CHECK_EQ((uint32_t)t.frame.rsi, (uint32_t)(word)from + (stos ? 0 : 5));
        CHECK_EQ((uint32_t)t.frame.rdi, (uint32_t)(word)to + (stos ? 20 : 5));
        CHECK_EQ(to[0], stos ? 0x11 : 1);
        CHECK_EQ(to[4], stos ? 0x11 : 5);
        CHECK_EQ(to[5], stos ? 0x22 : 0);
        CHECK_EQ(to[20], 0);
    }
}

const struct test guest_tests[] = {T(overlaps),
                                   T(overlaps_through_another_mapping),
                                   T(around_page_boundaries),
                                   T(faults_in_the_middle),
                                   T(flags_of_a_fault_in_the_middle),
                                   T(read_only),
                                   T(counts_that_wrap),
                                   T(stores_to_the_running_page),
                                   T(copies_onto_what_comes_next),
                                   T(breakpoints_in_the_middle),
                                   T(single_moves),
                                   T(single_comparisons),
                                   T(upper_halves_in_32_bit_code),
                                   {0, 0}};
