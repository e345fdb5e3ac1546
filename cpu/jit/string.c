/*
 * string.c - MOVS, STOS, LODS, CMPS, SCAS, and REP of MOVS and STOS (SDM vol. 2, REP).
 *
 * A repeated one whose ranges lie in one page each is the host's own REP MOVS or REP STOS on host
 * addresses. So overlaps are seen as on a processor, element by element, also where two pages of
 * the guest are one frame. Ranges over a page's end go to pages.c. Everything else goes to the site
 * before anything has been done: long ranges, DF = 1, what the view does not show. C goes page by
 * page and lets interrupts in between.
 *
 *     test  rcx, rcx                       jz done
 *     DF in the guest's flags                                    -> site
 *     rcx > 4096 / size                                          -> pages.c
 *     first and last byte of either range in different pages     -> pages.c
 *     lookup of the first bytes            -> site
 *     add   rsi, host - guest              likewise rdi
 *     rep   movs
 *     sub   rsi, host - guest
 *
 * The lookup proves that the first byte is the guest's; the last one lies in the same page, and the
 * count is too small for the sum to wrap around to it (docs/isolation.md). The host's own DF is
 * always 0, as C wants it.
 */
#include "cpu/jit/build.h"
#include "insn_exec.h"

/* ---- What there is to do --------------------------------------------------------------------- */

struct string_insn {
    unsigned size;
    bool source, dest; /* [RSI], [RDI] */
    bool writes;       /* [RDI] */
};

static struct string_insn describe(const struct insn *insn)
{
    struct string_insn s = {0};
    for (unsigned n = 0; n < insn->opnds; n++) {
        const struct opnd *o = &insn->op[n];
        if (o->kind != OPND_STR_SRC && o->kind != OPND_STR_DST)
            continue;
        s.size = o->size;
        s.source |= o->kind == OPND_STR_SRC;
        s.dest |= o->kind == OPND_STR_DST;
        s.writes |= o->kind == OPND_STR_DST && (o->access & OPND_W);
    }
    return s;
}

/* The guest's registers as they are before, for the flags that were made from them. */
static void begin_change(struct build *b, const struct string_insn *s)
{
    if (s->source)
        flags_before_change(b, RSI, true);
    if (s->dest)
        flags_before_change(b, RDI, true);
}

/* The same, but that they move on before there may be a fault. */
static void begin_progress(struct build *b, const struct string_insn *s)
{
    if (s->source)
        flags_before_progress(b, RSI);
    flags_before_progress(b, RDI);
    flags_before_progress(b, RCX);
}

static void end_change(struct build *b, const struct string_insn *s, bool rep)
{
    if (s->source)
        flags_after_change(b, RSI);
    if (s->dest)
        flags_after_change(b, RDI);
    if (rep)
        flags_after_change(b, RCX);
}

/* test byte [rflags + 1], DF: backwards is for C. */
static void check_direction(struct build *b, struct cold *site)
{
    emit_cpu_imm8(&b->e, OP_GRP3_BYTE, GRP3_TEST, CPU_AT(rflags) + 1, RFLAGS_DF >> 8);
    cold_jump(site, emit_jcc_later(&b->e, CC_NE));
}

/* The instruction itself, with RSI and RDI as they are. */
static void emit_string(struct emit *e, unsigned opcode, unsigned size, bool rep)
{
    if (size == 2)
        emit8(e, 0x66);
    if (rep)
        emit8(e, 0xf3);
    if (size == 8)
        emit8(e, 0x48);
    emit8(e, opcode | (size > 1));
}

/* ---- Repeated -------------------------------------------------------------------------------- */

static unsigned log2_of(unsigned size)
{
    return (unsigned)__builtin_ctz(size);
}

/* scratch = bits in which the first and the last byte's address differ; RCX is not 0. */
static void emit_span(struct build *b, unsigned scratch, unsigned index, unsigned size)
{
    enum { XOR_LOAD = 0x33 };
    struct emit *e = &b->e;
    emit_rex(e, b->width, scratch, RCX, index); /* lea scratch, [index + rcx * size - 1] */
    emit8(e, OP_LEA);
    emit8(e, 0x40 | (scratch & 7) << 3 | 4);
    emit8(e, log2_of(size) << 6 | RCX << 3 | index);
    emit8(e, 0xff);
    emit_rr(e, b->width, XOR_LOAD, scratch, index);
}

/* Jumps to `pages` when they do not lie in one page each, and the count is not 0. */
static void check_ranges(struct build *b, const struct string_insn *s, struct cold *pages)
{
    enum { OR_LOAD = 0x0b };
    struct emit *e = &b->e;
    emit_ri(e, b->width, GRP1_CMP, RCX, (int32_t)(PAGE_SIZE / s->size));
    cold_jump(pages, emit_jcc_later(e, CC_A));
    emit_span(b, SCRATCH1, RDI, s->size);
    if (s->source) {
        emit_span(b, SCRATCH2, RSI, s->size);
        emit_rr(e, b->width, OR_LOAD, SCRATCH1, SCRATCH2);
    }
    emit_shift(e, b->width, SHIFT_DIGIT_SHR, SCRATCH1, PAGE_SHIFT);
    cold_jump(pages, emit_jcc_later(e, CC_NE));
}

/* R10 = host address less guest address, of the page at `index`. Changes R11. */
static void find_page(struct build *b, unsigned index, enum access_kind kind, struct cold *site)
{
    unsigned guest = index;
    lookup_stack(b, index, 0, 1, kind, site);
    if (b->width == 4) {
        emit_mov(&b->e, 4, SCRATCH2, index);
        guest = SCRATCH2;
    }
    emit_rr(&b->e, 8, OP_SUB_LOAD, SCRATCH1, guest);
}

/* A site, and in *pages where ranges in several pages go: 64-bit code to pages.c. */
static struct cold *begin_repeat(struct build *b, const struct string_insn *s, struct cold **pages)
{
    flags_spill(b);
    struct cold *c = b->width == 8 ? cold_new(b, COLD_PAGES) : NULL; /* before what it jumps to */
    struct cold *site = site_begin(b);
    if (c) {
        c->slow = site;
        c->what = (uint8_t)(s->size | (s->source ? JIT_PAGES_MOVS : 0));
    }
    *pages = c ? c : site;
    return site;
}

static void repeat(struct build *b, const struct string_insn *s, unsigned opcode)
{
    struct emit *e = &b->e;
    begin_progress(b, s);
    struct cold *pages, *site = begin_repeat(b, s, &pages);
    if (b->width == 4 && !s->source) /* REP STOS cuts it, whatever the count is (plain_stos()) */
        emit_mov(e, 4, RDI, RDI);
    emit_rr(e, b->width, OP_TEST, RCX, RCX);
    uint8_t *none = emit_jcc_later(e, CC_E);
    check_direction(b, site);
    check_ranges(b, s, pages);
    if (s->source) {
        find_page(b, RSI, ACCESS_READ, site);
        emit_cpu_store(e, SCRATCH1, CPU_AT(jx.jump));
    }
    find_page(b, RDI, ACCESS_WRITE, site);
    if (s->source)
        emit_cpu_load(e, SCRATCH2, CPU_AT(jx.jump));
    if (b->width == 4) { /* cut, as any change of them does */
        emit_mov(e, 4, RCX, RCX);
        if (s->source) {
            emit_mov(e, 4, RDI, RDI);
            emit_mov(e, 4, RSI, RSI);
        }
    }
    emit_rr(e, 8, OP_ADD_LOAD, RDI, SCRATCH1);
    if (s->source)
        emit_rr(e, 8, OP_ADD_LOAD, RSI, SCRATCH2);
    emit_string(e, opcode, s->size, true);
    emit_rr(e, b->width, OP_SUB_LOAD, RDI, SCRATCH1);
    if (s->source)
        emit_rr(e, b->width, OP_SUB_LOAD, RSI, SCRATCH2);
    emit_patch32(none, e->shift, emit_here(e));
    flags_clobbered(b);
    end_change(b, s, true);
    site_resume(b, site);
    pages->resume = site->resume;
}

/* ---- Single ---------------------------------------------------------------------------------- */

static void advance(struct build *b, unsigned index, unsigned size)
{
    emit_rm(&b->e, b->width, OP_LEA, index, index, (int32_t)size);
}

/* opcode reg, [R10] in the operand's size; `opcode` is that of bytes */
static void emit_sized(struct emit *e, unsigned size, unsigned opcode, unsigned reg)
{
    if (size == 2)
        emit8(e, 0x66);
    emit_rm(e, size, opcode | (size > 1), reg, SCRATCH1, 0);
}

enum { CMP_LOAD_BYTE = 0x3a, STORE_BYTE = 0x88, LOAD_BYTE = 0x8a };

/* MOVS and CMPS: the element at [RSI] waits while [RDI] is looked up. */
static void load_source(struct build *b, const struct string_insn *s, struct cold *site)
{
    lookup_stack(b, RSI, 0, s->size, ACCESS_READ, site);
    if (!s->dest)
        return;
    emit_sized(&b->e, s->size, LOAD_BYTE, SCRATCH2);
    emit_cpu_store(&b->e, SCRATCH2, CPU_AT(jx.jump));
}

static void single(struct build *b, const struct string_insn *s)
{
    struct emit *e = &b->e;
    bool loads = !s->dest, compares = s->dest && !s->writes;
    unsigned reg = s->source && s->dest ? SCRATCH2 : RAX;
    begin_change(b, s);
    if (loads)
        flags_before_change(b, RAX, true);
    struct cold *site = site_begin_spilled(b);
    check_direction(b, site);
    if (s->source)
        load_source(b, s, site);
    if (s->dest)
        lookup_stack(b, RDI, 0, s->size, s->writes ? ACCESS_WRITE : ACCESS_READ, site);
    flags_clobbered(b);
    if (reg == SCRATCH2)
        emit_cpu_load(e, SCRATCH2, CPU_AT(jx.jump));
    emit_sized(e, s->size, loads ? LOAD_BYTE : compares ? CMP_LOAD_BYTE : STORE_BYTE, reg);
    if (s->source)
        advance(b, RSI, s->size);
    if (s->dest)
        advance(b, RDI, s->size);
    end_change(b, s, false);
    if (loads)
        flags_after_change(b, RAX);
    if (compares)
        flags_produced(b, (struct flags_desc){.from = FLAGS_MEMORY});
    site_resume(b, site);
}

/* ---- The choice ------------------------------------------------------------------------------ */

bool string_translate(struct build *b)
{
    enum { MOVS = 0xa4, STOS = 0xaa };
    const struct insn *insn = build_insn(b);
    struct string_insn s = describe(insn);
    if (insn->adsize != b->width || (s.source && insn->mem.seg >= SEG_FS))
        return false;
    if (!insn->rep) {
        single(b, &s);
        return true;
    }
    if (!s.writes) /* REPE and REPNE end where nobody knows before */
        return false;
    repeat(b, &s, s.source ? MOVS : STOS);
    return true;
}
