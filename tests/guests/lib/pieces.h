/*
 * pieces.h - code put together at run time out of pieces that the assembler made, and run in a
 * context of the test's choosing: so that a test can have every combination of what stands before
 * and behind an instruction in the same run of instructions, which is what a translator looks at.
 *
 *     struct context c = kernel_context();
 *     pieces_begin();
 *     put(PIECE("add rax, rcx"));
 *     put(PIECE("mov ebx, [rdx]"));
 *     struct trap t = pieces_run(&c); // ends by INT3, or by an earlier trap
 *
 * PIECE() takes Intel syntax. Included once per guest, of 64 or 32 bits.
 */
#ifndef GUEST_PIECES_H
#define GUEST_PIECES_H

#include "context.h"
#ifdef __x86_64__
#include "paging.h"
#define PIECE_AT "lea 771b(%%rip), %0\n lea 772b(%%rip), %1"
#else
#define MAYBE    static __attribute__((unused))
#define PIECE_AT "mov $771b, %0\n mov $772b, %1"
#endif

struct piece {
    const char *text;
    const uint8_t *at, *end;
};
#define PIECE(text_)                                                                               \
    ({                                                                                             \
        struct piece piece_ = {.text = text_};                                                     \
        asm(".pushsection .rodata\n.intel_syntax noprefix\n771: " text_                            \
            "\n772:\n.att_syntax prefix\n.popsection\n " PIECE_AT                                  \
            : "=r"(piece_.at), "=r"(piece_.end));                                                  \
        piece_;                                                                                    \
    })

/* Pages of code; runs of pieces lie one behind the other, so that each is new to the translator. */
static uint8_t pieces_room[64 * 4096] __attribute__((aligned(4096)));
static unsigned pieces_at, pieces_start;

/* Begins a run of pieces where none has been, in one page if it has less than `size` bytes. */
MAYBE void pieces_begin_sized(unsigned size)
{
    if ((pieces_at & ~0xfffu) != ((pieces_at + size) & ~0xfffu))
        pieces_at = (pieces_at + 0xfff) & ~0xfffu;
    if (pieces_at + size > sizeof pieces_room)
        pieces_at = 0;
    pieces_start = pieces_at;
}
MAYBE void pieces_begin(void)
{
    pieces_begin_sized(160);
}

MAYBE void put_bytes(const void *bytes, size_t size)
{
    memcpy(pieces_room + pieces_at, bytes, size);
    pieces_at += (unsigned)size;
}
MAYBE void put(struct piece p)
{
    put_bytes(p.at, (size_t)(p.end - p.at));
}

/* Where the next piece comes to lie. */
MAYBE word pieces_here(void)
{
    return (word)(pieces_room + pieces_at);
}

MAYBE struct context kernel_context(void)
{
    return context_at(0, SEL_CODE, SEL_DATA);
}

/* Runs what has been put together, with an INT3 behind it. */
MAYBE struct trap pieces_run(struct context *c)
{
    pieces_room[pieces_at++] = 0xcc;
    c->rip = (word)(pieces_room + pieces_start);
    return RUN(*c);
}

/* The same once more. */
MAYBE struct trap pieces_again(struct context *c)
{
    c->rip = (word)(pieces_room + pieces_start);
    return RUN(*c);
}

#ifdef __x86_64__
/* A trap at CPL 3 changes stacks, so that RSP may be anything. INT3 ends a run there, too. */
MAYBE struct context any_stack(void)
{
    set_gate(V_BP, (word)trap_stubs + 16 * V_BP, SEL_CODE, 14, 3, 0);
    return context_user(0);
}

enum { R_RAX, R_RCX, R_RDX, R_RBX, R_RSP, R_RBP, R_RSI, R_RDI };
/* By their numbers. */
MAYBE uint64_t *register_of(struct context *c, unsigned n)
{
    uint64_t *const at[] = {&c->rax, &c->rcx, &c->rdx, &c->rbx, &c->rsp, &c->rbp, &c->rsi, &c->rdi,
                            &c->r8,  &c->r9,  &c->r10, &c->r11, &c->r12, &c->r13, &c->r14, &c->r15};
    return at[n];
}
MAYBE uint64_t register_at_trap(const struct trap *t, unsigned n)
{
    const struct frame *f = &t->frame;
    const uint64_t v[] = {f->rax, f->rcx, f->rdx, f->rbx, t->rsp, f->rbp, f->rsi, f->rdi,
                          f->r8,  f->r9,  f->r10, f->r11, f->r12, f->r13, f->r14, f->r15};
    return v[n];
}

#endif

#define F_ARITH 0x8d5ull /* OF SF ZF AF PF CF */

/* For a failure inside of loops: which pieces. Returns whether it is one. */
MAYBE bool differs(const char *what, unsigned long long got, unsigned long long want,
                   const struct piece *piece, unsigned count)
{
    if (got == want)
        return false;
    print("  ");
    for (unsigned i = 0; i < count; i++)
        print("%s%s", i ? " | " : "", piece[i].text);
    print(": %s is %lx, not %lx\n", what, (word)got, (word)want);
    return true;
}

/* ---- SSE and AVX ------------------------------------------------------------------------------
 */

/* Makes them available; false: this processor has no AVX. */
MAYBE bool vectors_on(void)
{
    uint32_t r[4];
    word cr0 = read_cr0();
    write_cr0((cr0 & ~0xcull) | 2); /* MP, neither EM nor TS */
    write_cr4(read_cr4() | 0x600);  /* OSFXSR, OSXMMEXCPT */
    asm volatile("fninit");
    cpuid(1, 0, r);
    if (!(r[2] >> 28 & 1))
        return false;
    write_cr4(read_cr4() | 1 << 18); /* OSXSAVE */
    asm volatile("xsetbv" ::"a"(7), "d"(0), "c"(0));
    return true;
}

#endif
