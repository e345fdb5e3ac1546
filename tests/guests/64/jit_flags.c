/*
 * jit_flags.c - the arithmetic flags that a page fault saves are those of the last instruction that
 * wrote them, whatever stood in between: every kind of producer, followed by what may hide it from
 * a translator, followed by every kind of access that faults (SDM vol. 1, 3.4.3; vol. 3, 6.14).
 */
#include "pieces.h"

/* ---- Flags by the book (SDM vol. 1, 3.4.3.1) --------------------------------------------------
 */

static uint64_t sign(unsigned bits)
{
    return 1ull << (bits - 1);
}
static uint64_t cut(uint64_t v, unsigned bits)
{
    return bits == 64 ? v : v & ((1ull << bits) - 1);
}
static unsigned szp(uint64_t result, unsigned bits)
{
    unsigned f = 0, ones = 0;
    for (unsigned i = 0; i < 8; i++)
        ones += result >> i & 1;
    f |= ones & 1 ? 0 : 4;
    f |= cut(result, bits) ? 0 : 0x40;
    return f | (result & sign(bits) ? 0x80 : 0);
}
static unsigned of_add(uint64_t a, uint64_t b, unsigned carry, unsigned bits)
{
    uint64_t r = a + b + carry;
    a = cut(a, bits), b = cut(b, bits);
    bool out = bits == 64 ? (r < a || (carry && r == a)) : a + b + carry > cut(~0ull, bits);
    return szp(r, bits) | (out ? 1 : 0) | ((a ^ b ^ r) & 0x10) |
           ((a ^ r) & (b ^ r) & sign(bits) ? 0x800 : 0);
}
static unsigned of_sub(uint64_t a, uint64_t b, unsigned borrow, unsigned bits)
{
    uint64_t r = a - b - borrow;
    a = cut(a, bits), b = cut(b, bits);
    return szp(r, bits) | (a < b || (borrow && a == b) ? 1 : 0) | ((a ^ b ^ r) & 0x10) |
           ((a ^ b) & (a ^ r) & sign(bits) ? 0x800 : 0);
}

/* ---- Producers --------------------------------------------------------------------------------
 */

struct producer {
    struct piece piece;
    uint64_t rax, rcx;
    unsigned before, want, undefined;
};
enum { CF = 1, PF = 4, AF = 0x10, ZF = 0x40, SF = 0x80, OF = 0x800 };
enum { MOST = 80 };
static struct producer producer[MOST];
static unsigned producers;

static void add(struct piece piece, uint64_t rax, uint64_t rcx, unsigned before, unsigned want,
                unsigned undefined)
{
    producer[producers++] = (struct producer){piece, rax, rcx, before, want, undefined};
}

static void make_producers(void)
{
    const uint64_t a = 0x7fffffff0000007full, b = 0x80000001000000f1ull, top = ~0ull;
    producers = 0;
    add(PIECE("add rax, rcx"), a, b, 0, of_add(a, b, 0, 64), 0);
    add(PIECE("add rax, rcx"), top, 1, 0, of_add(top, 1, 0, 64), 0);
    add(PIECE("add al, cl"), a, b, 0, of_add(a, b, 0, 8), 0);
    add(PIECE("add ax, 0x7ff1"), a, b, 0, of_add(a, 0x7ff1, 0, 16), 0);
    add(PIECE("add eax, eax"), 0xc0000008, b, 0, of_add(0xc0000008, 0xc0000008, 0, 32), 0);
    add(PIECE("add r10, r11"), a, b, 0, of_add(a, b, 0, 64), 0);
    add(PIECE("add r15, -3"), a, 2, 0, of_add(a, top - 2, 0, 64), 0);
    add(PIECE("add ah, cl"), 0x7f00, 0x81, 0, of_add(0x7f, 0x81, 0, 8), 0);
    add(PIECE("adc rax, rcx"), a, b, CF, of_add(a, b, 1, 64), 0);
    add(PIECE("adc al, -1"), 0, b, CF, of_add(0, 0xff, 1, 8), 0);
    add(PIECE("sub rax, rcx"), a, b, 0, of_sub(a, b, 0, 64), 0);
    add(PIECE("sub eax, 0x12345678"), 0x12345678, b, CF | OF, of_sub(1, 1, 0, 32), 0);
    add(PIECE("sub cx, ax"), a, b, 0, of_sub(b, a, 0, 16), 0);
    add(PIECE("sub r11b, r10b"), a, b, 0, of_sub(b, a, 0, 8), 0);
    add(PIECE("sub rax, rax"), a, b, CF, ZF | PF, 0);
    add(PIECE("sbb rax, rcx"), a, b, CF, of_sub(a, b, 1, 64), 0);
    add(PIECE("sbb eax, eax"), a, b, CF, of_sub(a, a, 1, 32), 0);
    add(PIECE("cmp rax, rcx"), a, b, 0, of_sub(a, b, 0, 64), 0);
    add(PIECE("cmp r10d, r11d"), a, b, 0, of_sub(a, b, 0, 32), 0);
    add(PIECE("cmp al, 0x80"), a, b, 0, of_sub(a, 0x80, 0, 8), 0);
    add(PIECE("cmp ax, 0x80"), a, b, 0, of_sub(a, 0x80, 0, 16), 0);
    add(PIECE("cmp rsp, rsp"), a, b, OF, ZF | PF, 0);
    add(PIECE("cmp ah, ch"), 0x8000, 0x100, 0, of_sub(0x80, 1, 0, 8), 0);
    add(PIECE("and rax, rcx"), a, b, CF | OF, szp(a & b, 64), AF);
    add(PIECE("and al, 0x80"), a, b, CF | OF, szp(0, 8), AF);
    add(PIECE("or ecx, eax"), a, b, CF | OF, szp(a | b, 32), AF);
    add(PIECE("or r15w, -2"), a, b, CF | OF, szp(0xffff, 16), AF);
    add(PIECE("xor eax, eax"), a, b, CF | OF, ZF | PF, AF);
    add(PIECE("test rax, rcx"), a, b, CF | OF, szp(a & b, 64), AF);
    add(PIECE("test r10b, r10b"), a, b, CF | OF, szp(a, 8), AF);
    add(PIECE("test ecx, 0x80000001"), a, b, CF | OF, szp(b & 0x80000001, 32), AF);
    add(PIECE("inc eax"), 0x7fffffff, b, CF, (of_add(0x7fffffff, 1, 0, 32) & ~CF) | CF, 0);
    add(PIECE("inc r11b"), a, 0xff, 0, of_add(0xff, 1, 0, 8) & ~CF, 0);
    add(PIECE("dec rcx"), a, 0, CF, of_sub(0, 1, 0, 64) | CF, 0);
    add(PIECE("dec ax"), 0x8000, 0, 0, of_sub(0x8000, 1, 0, 16) & ~CF, 0);
    add(PIECE("neg rax"), sign(64), 0, 0, of_sub(0, sign(64), 0, 64), 0);
    add(PIECE("neg ecx"), a, 0, CF, of_sub(0, 0, 0, 32), 0);
    add(PIECE("shl eax, 1"), 0x40000000, b, 0, szp(0x80000000, 32) | OF, AF);
    add(PIECE("shl rax, 60"), 0x31, b, 0, szp(1ull << 60, 64) | CF, AF | OF);
    add(PIECE("shr eax, cl"), 0x80000011, 5, 0, szp(0x80000011u >> 5, 32) | CF, AF | OF);
    add(PIECE("shr eax, cl"), 0x80000011, 32, CF | SF | AF, CF | SF | AF, 0); /* by 0: as before */
    add(PIECE("sar al, 3"), 0x84, b, 0, szp(0xf0, 8) | CF, AF | OF);
    add(PIECE("shld rax, rcx, 4"), a, b, 0, szp(a << 4 | b >> 60, 64) | CF, AF | OF);
    add(PIECE("rol eax, 1"), 0x80000000, b, ZF | SF, ZF | SF | CF | OF, 0);
    add(PIECE("ror r10, 8"), 0x80, b, AF | PF, AF | PF | CF, OF);
    add(PIECE("rcl eax, 1"), 0x80000000, b, ZF | PF, ZF | PF | CF | OF, 0);
    add(PIECE("rcr rax, 1"), 1, b, CF | SF, SF | CF | OF, 0);
    add(PIECE("imul rax, rcx"), sign(64), 2, 0, CF | OF, SF | ZF | AF | PF);
    add(PIECE("imul eax, ecx, -2"), a, 3, CF | OF, 0, SF | ZF | AF | PF);
    add(PIECE("bt rax, rcx"), a, 62, 0, CF, OF | SF | AF | PF);
    add(PIECE("bts ecx, 1"), a, 1, CF | ZF, ZF, OF | SF | AF | PF);
    add(PIECE("bsf rax, rcx"), a, 0, CF, ZF, CF | OF | SF | AF | PF);
    add(PIECE("xadd rax, rcx"), a, b, 0, of_add(a, b, 0, 64), 0);
    add(PIECE("cmpxchg rcx, r9"), b, b, CF, ZF | PF, 0);
    add(PIECE("stc"), a, b, ZF, ZF | CF, 0);
    add(PIECE("cmc"), a, b, CF | SF, SF, 0);
    add(PIECE("sahf"), 0xd500, b, OF, CF | PF | AF | ZF | SF | OF, 0);
    add(PIECE("cmp rax, rcx; mov rax, rsi"), a, b, 0, of_sub(a, b, 0, 64), 0);
    add(PIECE("add r10, r11; mov r11, rsi; xchg r10, r15"), a, b, 0, of_add(a, b, 0, 64), 0);
    add(PIECE("cmp al, cl; setc al; movzx ecx, al"), a, b, 0, of_sub(a, b, 0, 8), 0);
    add(PIECE("sub eax, ecx; cmovs eax, r9d; lea rcx, [rax+rcx]"), a, b, 0, of_sub(a, b, 0, 32), 0);
    const uint64_t one = 0x3ff0000000000000, two = 0x4000000000000000, nan = 0x7ff8000000000001;
    add(PIECE("movq xmm0, rax; movq xmm9, rcx; ucomisd xmm0, xmm9"), one, two, 0, CF, 0);
    add(PIECE("movq xmm0, rax; movq xmm9, rcx; comisd xmm9, xmm0"), one, two, OF, 0, 0);
    add(PIECE("movq xmm0, rax; movq xmm9, rcx; ucomisd xmm0, xmm9"), nan, one, SF, ZF | PF | CF, 0);
    add(PIECE("movq xmm0, rax; xorps xmm9, xmm9; ucomisd xmm0, xmm9"), sign(64), 0, AF, ZF, 0);
    add(PIECE("movq xmm0, rax; xorps xmm9, xmm9; comisd xmm0, xmm9"), 1, 0, 0, 0, 0);
    add(PIECE("movd xmm0, eax; movd xmm1, ecx; ucomiss xmm0, xmm1"), 0x3f800000, 0x40000000, 0, CF,
        0);
    add(PIECE("movd xmm0, eax; movd xmm1, ecx; ucomiss xmm1, xmm0"), 1, 0x80000001, 0, CF, 0);
    add(PIECE("movq xmm0, rax; ucomisd xmm0, [rdi]"), one, 0, 0, 0, 0); /* 0 to begin with */
    add(PIECE("movq xmm0, rax; ucomisd xmm0, xmm0; xorps xmm0, xmm0"), nan, 0, 0, ZF | PF | CF, 0);
    add(PIECE("movq xmm0, rax; xorps xmm9, xmm9; push 0x1fc0; ldmxcsr [rsp]; lea rsp, [rsp+8]; "
              "ucomisd xmm0, xmm9"),
        1, 0, 0, ZF, 0); /* DAZ: denormals are zeros */
}

/* ---- What stands in between, and what faults ---------------------------------------------------
 */

enum { GOOD = 8 };
static uint64_t good[GOOD * 2] __attribute__((aligned(64)));
#define NOWHERE (WINDOW + 0x5000)

/* RDI points to memory, RDX nowhere, RBP is free. None writes a flag. */
static unsigned hiding(struct piece p[])
{
    unsigned n = 0;
    p[n++] = PIECE("");
    p[n++] = PIECE("mov rbx, [rdi]");
    p[n++] = PIECE("mov [rdi], rbx");
    p[n++] = PIECE("mov rax, [rdi]; mov rcx, [rdi+8]");
    p[n++] = PIECE("pop r10; pop r11; push r11");
    p[n++] = PIECE("mov eax, 1; mov ecx, 2; mov r10, rax; mov r11, rax; mov r15, rax");
    p[n++] = PIECE("push rax; pushfq; popfq; pop rcx");
    p[n++] = PIECE("movzx eax, byte ptr [rdi]; bswap rax; not qword ptr [rdi]");
    p[n++] = PIECE("call 1f; 1: pop rbx");
    p[n++] = PIECE("jmp 1f; 1: setc byte ptr [rdi+1]");
    p[n++] = PIECE("jo 1f; nop; 1: cmovz rax, [rdi]");
    p[n++] = PIECE("movups xmm0, [rdi]; mov rbx, [rdi]; xorps xmm9, xmm9");
    p[n++] = PIECE("jz 1f; mov rbx, [rdi]; 1: mov rbx, rdi");
    p[n++] = PIECE("jnz 1f; mov rbx, [rdi]; mov rax, rsi; 1: mov rbx, [rdi]");
    p[n++] = PIECE("js 1f; mov rbx, [rdi]; jmp 2f; 1: mov rcx, rsi; 2: nop");
    p[n++] = PIECE("jc 1f; jno 2f; mov [rdi], rbx; 1: mov rbx, [rdi]; 2: mov rbx, [rdi+8]");
    p[n++] = PIECE("jmp 2f; 1: mov rbx, [rdi]; jmp 3f; 2: jnc 1b; setc bl; 3: mov bh, bl");
    p[n++] = PIECE("mov rbx, [rdi]; lea rax, [rip+1f]; jmp rax; 1: nop");
    p[n++] = PIECE("xchg rax, [rdi]; xchg rcx, rax");
    p[n++] = PIECE("mov rsi, rdi; lodsq; mov rsi, rdi; movsb; lea rdi, [rdi-1]; cld");
    p[n++] = PIECE("lea rsi, [rdi+8]; mov ecx, 2; rep movsd; rep stosw; lea rdi, [rdi-8]");
    p[n++] = PIECE("loop 1f; 1: jrcxz 1f; 1: push rsp; pop rsp; push rax; pop [rdi]");
    return n;
}

static unsigned faulting(struct piece p[])
{
    unsigned n = 0;
    p[n++] = PIECE("mov ebx, [rdx]");
    p[n++] = PIECE("mov [rdx], r10");
    p[n++] = PIECE("mov byte ptr [rdx+4], ah");
    p[n++] = PIECE("add rax, [rdx]");
    p[n++] = PIECE("sub [rdx], rax");
    p[n++] = PIECE("adc [rdx], rcx");
    p[n++] = PIECE("cmp dword ptr [rdx], 5");
    p[n++] = PIECE("cmovc rbx, [rdx]");
    p[n++] = PIECE("setz byte ptr [rdx]");
    p[n++] = PIECE("imul rbx, [rdx]");
    p[n++] = PIECE("mul qword ptr [rdx]");
    p[n++] = PIECE("shl dword ptr [rdx], 3");
    p[n++] = PIECE("div qword ptr [rdx]");
    p[n++] = PIECE("idiv dword ptr [rdx]");
    p[n++] = PIECE("bt dword ptr [rdx], 3");
    p[n++] = PIECE("lock xadd [rdx], rax");
    p[n++] = PIECE("lock inc dword ptr [rdx]");
    p[n++] = PIECE("push qword ptr [rdx]");
    p[n++] = PIECE("pop qword ptr [rdx]");
    p[n++] = PIECE("jmp [rdx]");
    p[n++] = PIECE("call [rdx]");
    p[n++] = PIECE("movups xmm1, [rdx]");
    p[n++] = PIECE("movups [rdx], xmm1");
    p[n++] = PIECE("xchg rdi, rdx; stosb");
    p[n++] = PIECE("xchg rsi, rdx; mov ecx, 3; rep movsb");
    p[n++] = PIECE("xchg rdi, rdx; mov ecx, 3; rep stosd");
    p[n++] = PIECE("xchg rsi, rdx; lodsw");
    p[n++] = PIECE("xchg rdi, rdx; scasd");
    p[n++] = PIECE("xchg rsi, rdx; cmpsb");
    p[n++] = PIECE("mov ecx, 3; bt dword ptr [rdx], ecx");
    p[n++] = PIECE("mov eax, 37; lock bts [rdx], eax");
    p[n++] = PIECE("cmpxchg16b [rdx]");
    p[n++] = PIECE("lock cmpxchg8b [rdx]");
    p[n++] = PIECE("pcmpistri xmm1, [rdx], 1");
    return n;
}

static void reset_mxcsr(void)
{
    asm volatile("ldmxcsr %0" ::"m"(*&(uint32_t){0x1f80}));
}

/* One run; true when it went wrong. */
static bool wrong(const struct producer *p, struct piece hide, struct piece fault)
{
    struct context c = kernel_context();
    const struct piece all[] = {p->piece, hide, fault};
    reset_mxcsr();
    for (unsigned i = 0; i < GOOD * 2; i++)
        good[i] = 0x1111111111111111ull * i;
    c.rax = c.r10 = c.r15 = p->rax;
    c.rcx = c.r11 = p->rcx;
    c.rbx = 77, c.rsi = 0x123456789, c.r9 = 5;
    c.rdi = (word)good, c.rdx = NOWHERE;
    c.rflags |= p->before;
    pieces_begin();
    for (unsigned i = 0; i < 3; i++)
        put(all[i]);
    struct trap t = pieces_run(&c);
    unsigned mask = F_ARITH & ~p->undefined;
    return differs("vector", t.vector, VECTOR_PF, all, 3) |
           differs("address", t.cr2 & ~4ull, NOWHERE, all, 3) |
           differs("flags", t.rflags & mask, p->want & mask, all, 3);
}

TEST(flags_at_page_faults)
{
    static struct piece hide[32], fault[40];
    unsigned bad = 0, hides = hiding(hide), faults = faulting(fault);
    vectors_on();
    paging_reset();
    make_producers();
    for (unsigned i = 0; i < producers; i++)
        for (unsigned h = 0; h < hides; h++)
            for (unsigned f = 0; f < faults && bad < 20; f++)
                bad += wrong(&producer[i], hide[h], fault[f]);
    CHECK_EQ(bad, 0);
}

/* ---- Readers behind a memory access -----------------------------------------------------------*/

/* SETcc and ADC see the producer's flags through accesses that a lookup stands in front of. */
static bool reads_wrongly(const struct producer *p, struct piece hide)
{
    struct context c = kernel_context();
    const struct piece all[] = {p->piece, hide,
                                PIECE("seto bl; setc bh; lahf; mov rbp, rax; mov r8d, 0; adc r8, "
                                      "[rdi+64]; cmovz r9, [rdi+64]; sbb r13, r13")};
    reset_mxcsr();
    for (unsigned i = 0; i < GOOD * 2; i++)
        good[i] = i;
    c.rax = c.r10 = c.r15 = p->rax;
    c.rcx = c.r11 = p->rcx;
    c.rbx = 77, c.rsi = 0x123456789, c.r9 = 5, c.rdi = (word)good;
    c.rflags |= p->before;
    pieces_begin();
    for (unsigned i = 0; i < 3; i++)
        put(all[i]);
    struct trap t = pieces_run(&c);
    unsigned seen = (t.frame.rbp >> 8 & 0xd5) | (t.frame.rbx & 1 ? OF : 0);
    unsigned mask = F_ARITH & ~p->undefined;
    bool bad = differs("vector", t.vector, V_BP, all, 3) |
               differs("flags", seen & mask, p->want & mask, all, 3);
    if (!(p->undefined & CF))
        bad |= differs("CF", t.frame.rbx >> 8 & 1, p->want & 1, all, 3) |
               differs("sum", t.frame.r8, 8 + (p->want & 1), all, 3) |
               differs("r13", t.frame.r13, 0, all, 3);
    return bad;
}

TEST(flags_read_later)
{
    static struct piece hide[32];
    unsigned bad = 0, hides = hiding(hide);
    vectors_on();
    make_producers();
    for (unsigned i = 0; i < producers; i++)
        for (unsigned h = 0; h < hides && bad < 20; h++)
            bad += reads_wrongly(&producer[i], hide[h]);
    CHECK_EQ(bad, 0);
}

/* ---- Around loops ---------------------------------------------------------------------------- */

/* Ways back to the loop's head, which is taken whatever the flags are. */
enum way_back { JUMP, JZ_OR_JUMP, JO_OR_JNO, LOOP_OR_JUMP, FROM_TWO_PLACES, WAYS_BACK };
static void put_way_back(enum way_back way, word head)
{
    static const uint8_t first[][2] = {{0}, {0x0f, 0x84}, {0x0f, 0x80}, {0}, {0x0f, 0x84}},
                         second[][2] = {{0xe9}, {0xe9}, {0x0f, 0x81}, {0xe9}, {0xe9}};
    if (way == LOOP_OR_JUMP) {
        put(PIECE("loop 1f; nop; 1:"));
    } else if (way != JUMP) {
        put_bytes(first[way], 2);
        put_bytes(&(int32_t){(int32_t)(head - (pieces_here() + 4))}, 4);
    }
    put_bytes(second[way], second[way][1] ? 2 : 1);
    put_bytes(&(int32_t){(int32_t)(head - (pieces_here() + 4))}, 4);
}

/* None writes a flag; some change what the producer's flags could be told from. */
static unsigned before_the_branch(struct piece p[])
{
    unsigned n = 0;
    p[n++] = PIECE("");
    p[n++] = PIECE("mov rbx, rax");
    p[n++] = PIECE("mov eax, 5; mov ecx, 4; mov r10, rax; mov r11, rcx; mov r15, rax");
    p[n++] = PIECE("mov rbx, [rdi]; lea rcx, [rcx+2]");
    p[n++] = PIECE("mulsd xmm0, xmm9");
    return n;
}

/* What the head does before flags are written again; RSI is the list, RDX gets where to look. */
static unsigned heads(struct piece p[])
{
    unsigned n = 0;
    p[n++] = PIECE("mov rdx, [rsi]; mov rdx, [rdx]; add rsi, 8");
    p[n++] = PIECE("mov rdx, [rsi]; lea rsi, [rsi+8]; mov [rdx], r9b; push 2; popfq");
    p[n++] = PIECE("mov rax, [rsi]; mov ecx, [rax]; add rsi, 8"); /* not what tells them */
    p[n++] = PIECE("mov rdx, [rsi]; mov rbx, [rdx]; setc bl; seto bh; add rsi, 8");
    p[n++] = PIECE("mov rdx, [rsi]; jmp 1f; 1: lea rsi, [rsi+8]; mov rbx, [rdx]; xor ebx, ebx");
    p[n++] = PIECE("lea rsi, [rsi+8]; mov rdx, [rsi-8]; jc 1f; 1: mov rbx, [rdx]; add rbx, 1");
    p[n++] = PIECE("mov rdx, [rsi]; rol r8d, 1; cmp [rdx], r8d; add rsi, 8");
    return n;
}
enum { HEAD_ROTATES = 6 };

/* The flags that a fault at the head shows in round `round`, counted from 1: those of before the
 * loop, then those from the way back. */
static bool goes_round_wrongly(const struct producer *p, struct piece head, bool rotates,
                               struct piece late, enum way_back way, unsigned round)
{
    static uint64_t list[64];
    struct context c = kernel_context();
    const struct piece all[] = {head, p->piece, late};
    reset_mxcsr();
    for (unsigned i = 0; i < GOOD * 2; i++)
        good[i] = 0x1111111111111111ull * i;
    for (unsigned i = 0; i < round; i++)
        list[i] = i + 1 < round ? (word)good : NOWHERE;
    c.rdi = (word)good, c.rsi = (word)list, c.r9 = 5, c.r13 = p->rax, c.r14 = p->rcx, c.r8 = 0;
    c.rax = c.r13;
    c.rflags |= CF | ZF | AF | OF;
    pieces_begin_sized(256);
    word begin = pieces_here();
    put(head);
    put(PIECE("mov rax, r13; mov rcx, r14; mov r10, r13; mov r11, r14; mov r15, r13"));
    if (way == FROM_TWO_PLACES) { /* not from here, but that is not known before */
        put(PIECE("xor ebp, ebp; cmp ebp, 1"));
        put_way_back(JZ_OR_JUMP, begin);
        pieces_at -= 5;
    }
    put(p->piece);
    put(late);
    put_way_back(way == FROM_TWO_PLACES ? JUMP : way, begin);
    struct trap t = pieces_run(&c);
    unsigned mask = F_ARITH & ~(round > 1 ? p->undefined : 0);
    unsigned want = round > 1 ? p->want : CF | ZF | AF | OF;
    if (rotates) /* ROL of 0: CF = 0, and OF */
        mask &= ~(unsigned)OF, want &= ~(unsigned)CF;
    return differs("vector", t.vector, VECTOR_PF, all, 3) |
           differs("address", t.cr2 & ~7ull, NOWHERE, all, 3) |
           differs("flags", t.rflags & mask, want & mask, all, 3);
}

/* All that a producer writes depends on its operands only. */
static bool stands_alone(const struct piece *p)
{
    static const char *const names[] = {"add", "sub", "cmp", "and", "or ",
                                        "xor", "tes", "neg", "xad", "mov"};
    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++)
        if (!memcmp(p->text, names[i], 3))
            return true;
    return false;
}

TEST(flags_at_a_loops_head)
{
    static const unsigned rounds[] = {1, 2, 3, 40};
    static struct piece head[8], late[8];
    unsigned bad = 0, head_count = heads(head), lates = before_the_branch(late);
    vectors_on();
    paging_reset();
    make_producers();
    for (unsigned i = 0; i < producers; i++)
        for (unsigned h = 0; h < head_count && stands_alone(&producer[i].piece); h++)
            for (unsigned l = 0; l < lates; l++)
                for (unsigned way = 0; way < WAYS_BACK; way++)
                    for (unsigned r = 0; r < 4 && bad < 20; r++)
                        bad += goes_round_wrongly(&producer[i], head[h], h == HEAD_ROTATES, late[l],
                                                  (enum way_back)way, rounds[r]);
    CHECK_EQ(bad, 0);
}

const struct test guest_tests[] = {
    T(flags_at_page_faults), T(flags_read_later), T(flags_at_a_loops_head), {0, 0}};
