/*
 * jit_rounds.c - loops of which a translator may put rounds in a row: they are left, fault, come
 * over a page's end, store to their own code and lose their page in each round. Every one is run by
 * single steps, then as it stands, several times, and has to end alike: by the same trap with the
 * same registers, flags and CR2, the same memory, and the same entries of pages but for A.
 */
#include "pieces.h"

#define TWO      WINDOW /* two pages */
#define END      (TWO + PAGE)
#define FRAME(n) (FREE_RAM + 0x100000 + (n)*PAGE)
#define COUNT(a) (sizeof(a) / sizeof(a)[0])
enum { ROUNDS = 9, MORE_ROUNDS = 12, IMMEDIATE = 0x1000 }; /* as in the pieces */
enum { TIMES = 3, WORDS = 3 * 512 };                       /* of three frames */

static uint64_t entries[2]; /* that the pages have when a loop begins */
static uint32_t *patched;   /* the immediate that it changes, or NULL */
static uint64_t pattern[WORDS], memory[WORDS];

static void copy(void *to, const void *from)
{
    word n = WORDS;
    asm volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(n)::"memory");
}
static bool same(const void *a, const void *b)
{
    word n = WORDS;
    bool equal;
    asm volatile("repe cmpsq; sete %3" : "+D"(a), "+S"(b), "+c"(n), "=q"(equal)::"memory");
    return equal;
}

static bool steps_on(struct frame *f)
{
    return true;
}

/* All is as it was; `cold`: A and D are clear, too, and nothing is known of the pages. */
static struct trap ended(struct context c, bool cold, unsigned trace)
{
    copy((void *)FRAME(0), pattern);
    for (unsigned n = 0; n < 2; n++)
        if (cold || (*entry_of(TWO + n * PAGE, 1) ^ entries[n]) & ~(PG_A | PG_D))
            map_page(TWO + n * PAGE, entries[n], 1, 0);
    if (patched)
        *patched = IMMEDIATE;
    write_cr2(0);
    c.rflags |= trace;
    struct trap t = pieces_again(&c);
    t.rflags &= ~(word)F_TF;
    return t;
}

/* Runs the loop that has been placed. Returns how it ended. */
static struct trap alike(const struct piece *p, const struct context *c)
{
    static const char *const names[] = {
        "vector", "error", "rip", "cs", "rflags", "rsp", "ss",  "cr2", NULL,  "r15", "r14", "r13",
        "r12",    "r11",   "r10", "r9", "r8",     "rdi", "rsi", "rbp", "rbx", "rdx", "rcx", "rax"};
    struct trap t, want = ended(*c, true, F_TF);
    uint64_t left[] = {*entry_of(TWO, 1), *entry_of(END, 1)};
    copy(memory, (void *)FRAME(0));
    for (unsigned time = 0; time < TIMES; time++) {
        t = ended(*c, time == 0, 0);
        bool bad = differs("same memory", same((void *)FRAME(0), memory), true, p, 1);
        for (unsigned n = 0; n < COUNT(names); n++) /* a struct trap is words */
            bad |= names[n] && differs(names[n], ((word *)&t)[n], ((word *)&want)[n], p, 1);
        for (unsigned n = 0; n < 2; n++)
            bad |= differs("entry", *entry_of(TWO + n * PAGE, 1) | PG_A, left[n] | PG_A, p, 1);
        CHECK(!bad);
    }
    return t;
}

static uint8_t *place(struct piece p, uint64_t first, uint64_t second)
{
    entries[0] = first, entries[1] = second;
    patched = NULL;
    for (unsigned i = 0; i < WORDS; i++)
        pattern[i] = (i + 1) * 0x9e3779b97f4a7c15;
    paging_reset();
    write_cr0(read_cr0() | CR0_WP);
    trap_handlers[V_DB] = steps_on;
    pieces_begin();
    put(p);
    put_bytes("\xcc", 1);
    return pieces_room + pieces_start;
}

/* RCX or R9 = how many rounds, which R8 counts; R12 and R14 are no addresses. */
static struct context some_context(unsigned n)
{
    struct context c = kernel_context();
    c.rax = 0x7ffffffffffffff3, c.rbx = 5, c.rdx = 0x8000000000000001;
    c.r10 = ~0ull - 20, c.r11 = 7, c.r12 = END + PAGE, c.r14 = 1ull << 63, c.r15 = 0xff;
    c.rcx = c.r9 = n, c.rsi = END - 40, c.rdi = TWO + 64;
    return c;
}

struct loop {
    struct piece piece;
    unsigned number; /* of the trap that ends it; or where its immediate stands */
};
#define LOOP(text)      PIECE("1: inc r8; " text), V_BP
#define FAULTS(v, text) PIECE("1: inc r8; mov [rsi], r8; add rsi, 8; " text "; jmp 1b"), v

TEST(each_round_is_the_last)
{
    const struct loop loops[] = {
        {LOOP("add rax, rdx; dec rcx; jnz 1b")},
        {LOOP("add r10, r11; adc r15, r14; dec rcx; jnz 1b")},
        {LOOP("add rdx, [rsi]; add rsi, 8; cmp rcx, r8; jne 1b")},
        {LOOP("mov [rsi], rcx; lea rsi, [rsi+8]; mov rax, [rsi]; sub r9, 1; jnz 1b")},
        {LOOP("mov [rdi], rcx; lea rsi, [rsi+8]; cmp r8, [rdi]; mov [rsi], r8; jb 1b")},
        {LOOP("push rax; add rax, rcx; pop rdx; dec rcx; jnz 1b")},
        /* out of the middle */
        {LOOP("cmp r8, rcx; je 2f; add rax, [rsi]; adc [rsi+16], eax; add rsi, 8; jmp 1b; 2:")},
        {LOOP("cmp r8, r9; je 2f; add rax, [rsi]; sub rsi, 8; sub rcx, -1; jnz 1b; 2: adc ebx, 1")},
        /* branches inside, back to the head from several places, into the middle */
        {LOOP("test r8b, 1; jz 2f; add rax, 7; 2: adc rdx, [rsi]; add rsi, 8; dec rcx; jnz 1b")},
        {LOOP("test r8b, 2; jz 2f; add rsi, 8; mov [rsi], rax; 2: add rax, [rsi]; loop 1b")},
        {LOOP("dec rcx; jz 2f; test r8b, 1; jnz 1b; add rax, [rsi]; jmp 1b; 2:")},
        {LOOP("cmp r8, r9; je 2f; mov [rsi], r8; test r8b, 2; jz 1b; neg rax; js 1b; jmp 1b; 2:")},
        {LOOP("3: add rax, [rsi]; dec rcx; jnz 1b; add rsi, 8; mov ecx, 1; dec r11; jnz 3b")},
        /* one behind and one in the other */
        {LOOP("mov rax, [rsi]; add rdx, [rsi+8]; dec rcx; jnz 1b; 2: add rax, [rsi]; add rsi, 8; "
              "inc ecx; cmp ecx, r8d; jb 2b")},
        {LOOP("mov rdx, r8; 2: add rax, [rsi]; adc rdi, 3; dec rdx; jnz 2b; dec rcx; jnz 1b")},
        /* by RCX */
        {LOOP("add rax, [rsi]; adc rdx, rax; loop 1b")},
        {LOOP("add rsi, 8; cmp r8, r9; loopne 1b; setz [rsi]")},
        {LOOP("dec rcx; jrcxz 2f; add eax, 0x7fffffff; adc [rsi], rax; jmp 1b; 2:")},
        {LOOP("xor ecx, ecx; cmp r8, r9; setae cl; mov [rsi+rcx*8], al; jrcxz 1b")},
        /* and by faults behind a store */
        {FAULTS(V_GP, "cmp r8, rcx; cmove rdi, r14; sub rax, [rdi]")},
        {FAULTS(V_PF, "cmp r8, rcx; cmove rdi, r12; sub rax, [rdi]; mov [rdi], rax")},
        {FAULTS(V_DE, "mov rbx, rcx; sub rbx, r8; mov eax, 99; cdq; div rbx; add [rsi], rdx")},
        {FAULTS(V_UD, "mov rax, [rsi]; cmp r8, rcx; jne 2f; ud2; 2: mov [rsi+8], rax")},
        {FAULTS(V_GP, "xor edx, edx; cmp r8, rcx; sete dl; movaps xmm0, [rdi+rdx*8]")},
    };
    vectors_on();
    for (unsigned i = 0; i < 2 * COUNT(loops); i++) {
        const struct loop *l = &loops[i / 2];
        place(l->piece, FRAME(0) | PG_ALL, FRAME(2) | PG_ALL);
        for (unsigned k = 1; k <= ROUNDS; k++) {
            unsigned n = i & 1 ? ROUNDS + 1 - k : k;
            struct context c = some_context(n);
            struct trap t = alike(&l->piece, &c);
            CHECK_EQ(t.vector, l->number);
            CHECK(!differs("R8", t.frame.r8, n, &l->piece, 1));
        }
    }
}

/* ---- Ends of pages --------------------------------------------------------------------------- */

/* A loop that goes through memory, from [RBX + RDI * scale] on, RDX times. */
struct walk {
    struct piece piece;
    int by;
    unsigned size, span, scale; /* of an access; from a round's first byte to its last */
    bool stores;
};
#define WALK(by, size, span, scale, stores, text)                                                  \
    {                                                                                              \
        PIECE("2: mov rsi, rdi; mov ecx, 9; 1: inc r8; " text                                      \
              "; dec ecx; jnz 1b; dec edx; jnz 2b"),                                               \
            by, size, span, scale, stores                                                          \
    }
#define WALKS(by, r, size)                                                                         \
    WALK(by, size, size, 1, false, "add " r ", [rsi]; rol rax, 5; add rsi, " #by),                 \
        WALK(by, size, size, 1, true, "mov [rsi], " r "; rol rax, 5; lea rsi, [rsi+" #by "]"),     \
        WALK(by, size, size, 1, true, "sub " r ", [rsi]; mov [rsi], " r "; sub rsi, -(" #by ")"),  \
        WALK(by, size, size, 1, true, "add [rbx+rsi], " r "; rol rax, 7; add rsi, " #by)
#define BOTH_WAYS(by, r, size) WALKS(by, r, size), WALKS(-by, r, size)

enum behind { TOGETHER, APART, ABSENT, READ_ONLY, BEHINDS };

/* It comes to the other page in a round, or with all but `skew` bytes of one. */
static void walk(const struct walk *w, enum behind behind, unsigned round, unsigned skew)
{
    bool up = w->by > 0;
    word at = END - (word)((int)round * w->by) - skew;
    struct context c = some_context(0);
    c.rdi = at / w->scale, c.rbx = at % w->scale;
    c.rdx = round == ROUNDS / 2 ? 20 : 1; /* once so often that the code is made anew */
    c.r9 = up ? TWO + 64 : END + PAGE - 600;
    struct trap t = alike(&w->piece, &c);
    for (round = 0; round < ROUNDS && (up ? at + w->span <= END : at >= END); round++)
        at += (word)w->by;
    if (up && at + w->size <= END)
        at += w->span - w->size; /* it is the round's other access that comes to the page */
    bool faults = round < ROUNDS && (behind == ABSENT || (behind == READ_ONLY && w->stores));
    CHECK_EQ(t.vector, faults ? V_PF : V_BP);
    CHECK_EQ(t.cr2, !faults ? 0 : up && at < END ? END : at);
    CHECK_EQ(t.frame.r8, faults ? round + 1 : ROUNDS * c.rdx);
}

TEST(over_the_end_of_a_page)
{
    const struct walk walks[] = {
        BOTH_WAYS(1, "al", 1), BOTH_WAYS(2, "ax", 2), BOTH_WAYS(4, "eax", 4),
        BOTH_WAYS(8, "rax", 8), BOTH_WAYS(16, "rax", 8), BOTH_WAYS(32, "eax", 4),
        BOTH_WAYS(64, "rax", 8),
        WALK(1, 1, 1, 1, false, "mov al, [rsi]; mov [r9], al; inc rsi; inc r9"),
        WALK(8, 8, 8, 8, false, "add rax, [rbx+rsi*8]; inc rsi"),
        WALK(-8, 2, 2, 4, true, "add [rbx+rsi*4], ax; add rsi, -2"),
        WALK(16, 16, 16, 1, true, "movups xmm0, [rsi]; movups [rsi], xmm0; add rsi, 16"),
        /* more than what one lookup may cover */
        WALK(16, 4, 252, 1, true, "add [rsi], eax; add [rsi+248], eax; add rsi, 16"),
        WALK(-32, 8, 256, 1, false, "add rax, [rbx+rsi]; add rax, [rbx+rsi+248]; add rsi, -32")};
    for (unsigned i = 0; i < BEHINDS * COUNT(walks); i++) {
        const struct walk *w = &walks[i / BEHINDS];
        unsigned other = w->by > 0;
        const uint64_t entry[] = {FRAME(other) | PG_ALL, FRAME(2) | PG_ALL, 0, FRAME(other) | PG_P};
        place(w->piece, FRAME(0) | PG_ALL, FRAME(1) | PG_ALL);
        entries[other] = entry[i % BEHINDS];
        for (unsigned k = 0; k < 2 * (ROUNDS + 1); k++)
            walk(w, i % BEHINDS, k / 2, k & 1);
    }
}

/* ---- What a round changes for the next ------------------------------------------------------- */

#define ROUND(text) PIECE("1: " text "; inc r8; cmp r8, 12; jb 1b")

/* Round RCX or each stores to the code, where the immediate stands. */
TEST(its_own_code)
{
    const struct loop loops[] = {
        {ROUND("mov eax, 0x1000; add rdx, rax; dec rcx; jnz 2f; mov [rdi], r9d; 2:"), 1},
        {ROUND("mov eax, 0x1000; add rdx, rax; mov [rsi], r8d; dec rcx; cmovz rsi, rdi"), 1},
        {ROUND("mov eax, 0x1000; add rdx, rax; add [rdi], ecx"), 1},
        {ROUND("mov [rdi], r8d; mov eax, 0x1000; add rdx, rax"), 4},
    };
    for (unsigned i = 0; i < COUNT(loops); i++) {
        uint8_t *code = place(loops[i].piece, FRAME(0) | PG_ALL, FRAME(1) | PG_ALL);
        patched = (uint32_t *)(code + loops[i].number);
        for (unsigned n = 1; n <= ROUNDS; n++) {
            struct context c = some_context(n);
            c.rdi = (word)patched;
            struct trap t = alike(&loops[i].piece, &c);
            CHECK_EQ(t.frame.r8, MORE_ROUNDS);
            if (i == 0)
                CHECK_EQ(t.frame.rdx - c.rdx, n * IMMEDIATE + (MORE_ROUNDS - n) * n);
        }
    }
}

static uint64_t changed; /* what the first page's entry becomes when the second page comes */
static bool change(struct frame *f)
{
    if (*entry_of(END, 1) & PG_P)
        return false;
    map_page(END, FRAME(1), 1, PG_ALL);
    map_page(TWO, changed, 1, 0);
    return true;
}

/* In round RCX the loop, or the handler of its fault, changes the page that it stores to. */
TEST(its_page)
{
    const struct piece loops[] = {
        ROUND("mov [rsi], r8; add rsi, 8; dec rcx; jnz 2f; mov [rbx], r9; invlpg [rsi]; 2:"),
        ROUND("mov [rsi], r8; add rsi, 8; add rax, [rdi]; add rdi, 8"),
        ROUND("mov [rsi], r8; add rax, [rdi]; mov [rsi-8], rax; add rdi, 8; add rsi, 8"),
    };
    const uint64_t become[] = {FRAME(2) | PG_ALL | PG_A | PG_D, FRAME(0) | PG_P | PG_A | PG_D, 0};
    trap_handlers[V_PF] = change;
    for (unsigned i = 0; i < COUNT(become) * COUNT(loops); i++) {
        const struct piece *p = &loops[i / COUNT(become)];
        place(*p, FRAME(0) | PG_ALL, p == loops ? FRAME(1) | PG_ALL : 0);
        changed = become[i % COUNT(become)];
        for (unsigned n = 1; n <= ROUNDS; n++) {
            struct context c = some_context(n);
            c.rbx = (word)entry_of(TWO, 1), c.r9 = changed;
            c.rsi = TWO + 64, c.rdi = END - 8 * (n - 1);
            struct trap t = alike(p, &c);
            CHECK_EQ(t.vector, changed & PG_W ? V_BP : V_PF);
            CHECK_EQ(t.frame.r8, changed & PG_W ? MORE_ROUNDS : n - (p == &loops[2]));
        }
    }
    trap_handlers[V_PF] = NULL;
}

const struct test guest_tests[] = {
    T(each_round_is_the_last), T(over_the_end_of_a_page), T(its_own_code), T(its_page), {0, 0}};
