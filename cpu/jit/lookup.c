/*
 * lookup.c - guest address to host address, inline: the hashed view of mmu/view.h.
 *
 *     lea   r10, [effective address]        (+ segment base)
 *     rorx  r11, r10, 7                     (or MOV and SHR)
 *     and   r11, [mask]
 *     add   r11, [table]                    the entry that the page would have
 *     sub   r10, [r11 + tag]                offset in the page, when it is the page's entry
 *     cmp   r10, 4096 - size
 *     ja    site                            another page, no permission, crosses the page's end
 *     add   r10, [r11 + page]               host address
 *
 * Where the operand is a register and a displacement, the last one is
 *
 *     mov   r10, [r11 + delta]              host address less guest address
 *
 * and the instruction names [r10 + register + displacement]: two steps less in a chain of loads.
 *
 * The comparison is the proof that no guest value reaches host memory: what is added to the host
 * address of a page of guest memory is below 4096 - size + 1 (docs/isolation.md).
 */
#include "cpu/jit/build.h"

static void lea(struct emit *e, unsigned width, unsigned to, unsigned base, unsigned index,
                unsigned scale, int32_t disp)
{
    if (index == REG_NONE) {
        if (base == REG_NONE) { /* lea to, [disp32] without RIP */
            emit_rex(e, width, to, 0, 0);
            emit8(e, OP_LEA);
            emit8(e, (to & 7) << 3 | 4);
            emit8(e, 0x25);
            emit32(e, (uint32_t)disp);
            return;
        }
        emit_rm(e, width, OP_LEA, to, base, disp);
        return;
    }
    bool no_base = base == REG_NONE;
    emit_rex(e, width, to, index, no_base ? 0 : base);
    emit8(e, OP_LEA);
    if (!no_base) {
        emit_modrm_sib(e, to, base, index, scale, disp);
        return;
    }
    emit8(e, (to & 7) << 3 | 4);
    emit8(e, scale << 6 | (index & 7) << 3 | 5);
    emit32(e, (uint32_t)disp);
}

/* By the operand's registers and another displacement. */
static void effective(struct build *b, unsigned dest, unsigned width, int64_t disp)
{
    const struct insn *insn = build_insn(b);
    const struct insn_mem *m = &insn->mem;
    struct emit *e = &b->e;
    unsigned base = m->base, index = m->index;
    /* A wrapped address is the low half of the unwrapped one. */
    unsigned w = insn->adsize == 4 ? 4 : width;
    if (base == REG_PC) {
        emit_cpu_load(e, SCRATCH1, CPU_AT(jx.page_va));
        base = SCRATCH1;
        disp += b->off[b->i] + insn->len;
        if (disp > INT32_MAX) {
            emit_rm(e, 8, OP_LEA, SCRATCH1, SCRATCH1, 2 * PAGE_SIZE);
            disp -= 2 * PAGE_SIZE;
        }
    } else if (base != REG_NONE) {
        base = guest_value(b, base, SCRATCH1);
    }
    if (index != REG_NONE)
        index = guest_value(b, index, SCRATCH2);
    else if (base != REG_NONE && disp == 0) { /* which costs no time on its own */
        if (base != dest || w == 4)
            emit_mov(e, w, dest, base);
        return;
    }
    lea(e, w, dest, base, index, m->scale, (int32_t)disp);
}

void lookup_relative_linear(struct build *b, const struct lookup *l, unsigned dest)
{
    if (!l->stack)
        effective(b, dest, 8, l->disp);
    else if (l->disp)
        emit_rm(&b->e, 8, OP_LEA, dest, HOST_SP, l->disp);
    else
        emit_mov(&b->e, 8, dest, HOST_SP);
}

void lookup_effective(struct build *b, unsigned dest, unsigned width)
{
    effective(b, dest, width, build_insn(b)->mem.disp);
}

void lookup_rotate(struct build *b, unsigned by)
{
    static const uint8_t rorx_r11_r10[] = {0xc4, 0x43, 0xfb, 0xf0, 0xda};
    struct emit *e = &b->e;
    if (b->jit->host_bmi2) {
        emit_bytes(e, rorx_r11_r10, sizeof rorx_r11_r10);
        emit8(e, by);
        return;
    }
    emit_mov(e, 8, SCRATCH2, SCRATCH1);
    emit_shift(e, 8, SHIFT_DIGIT_ROR, SCRATCH2, by);
}

unsigned lookup_hashed(struct build *b, const struct lookup *l, uint8_t *jump[HASHED_JUMPS])
{
    struct emit *e = &b->e;
    int32_t fast = CPU_FAST(b->cpu->priv);
    int32_t tag = l->kind & ACCESS_WRITE ? (int32_t)offsetof(struct view_entry, tag_write)
                                         : (int32_t)offsetof(struct view_entry, tag_read);
    unsigned n = 0;
    lookup_rotate(b, PAGE_SHIFT - 5);
    emit_cpu(e, 8, OP_AND_LOAD, SCRATCH2, fast + (int32_t)offsetof(struct view_fast, mask));
    emit_cpu(e, 8, OP_ADD_LOAD, SCRATCH2, fast + (int32_t)offsetof(struct view_fast, table));
    emit_rm(e, 8, OP_SUB_LOAD, SCRATCH1, SCRATCH2, tag);
    emit_ri(e, 8, GRP1_CMP, SCRATCH1, (int32_t)(PAGE_SIZE - l->size));
    jump[n++] = emit_jcc_later(e, CC_A);
    if (l->aligned) {
        emit_test_byte(e, SCRATCH1, l->aligned - 1);
        jump[n++] = emit_jcc_later(e, CC_NE);
    }
    return n;
}

/* R10: linear address; to the host address. */
static void lookup(struct build *b, const struct lookup *l, struct cold *site)
{
    uint8_t *jump[HASHED_JUMPS];
    if (l->last != LAST_NONE) {
        last_lookup(b, l, site);
        return;
    }
    for (unsigned n = lookup_hashed(b, l, jump); n-- > 0;)
        cold_jump(site, jump[n]);
    emit_rm(&b->e, 8, l->relative ? OP_LOAD : OP_ADD_LOAD, SCRATCH1, SCRATCH2,
            l->relative ? (int32_t)offsetof(struct view_entry, delta)
                        : (int32_t)offsetof(struct view_entry, page));
}

void lookup_add_segment(struct build *b)
{
    unsigned seg = build_insn(b)->mem.seg;
    if (seg == SEG_FS || seg == SEG_GS) /* in 32-bit code the sum wraps */
        emit_cpu(&b->e, b->width, OP_ADD_LOAD, SCRATCH1, CPU_SEG_BASE(seg));
}

void lookup_linear(struct build *b, int64_t disp)
{
    effective(b, SCRATCH1, b->width, disp);
    lookup_add_segment(b);
}

void lookup_at(struct build *b, int64_t disp, unsigned size, enum access_kind kind,
               unsigned aligned, struct cold *site)
{
    lookup_linear(b, disp);
    struct lookup l = {.size = size, .kind = kind, .aligned = aligned, .last = last_of_operand(b)};
    lookup(b, &l, site);
}

bool lookup_can_be_relative(const struct build *b, const struct insn *insn)
{
    const struct insn_mem *m = &insn->mem;
    unsigned reg = m->base == REG_NONE ? m->index : m->base;
    return b->code64 && insn->adsize == 8 && m->seg != SEG_FS && m->seg != SEG_GS &&
           (m->base == REG_NONE || m->index == REG_NONE) && reg != REG_NONE && reg != REG_PC &&
           !abi_is_homed(reg);
}

void lookup_relative(struct build *b, int64_t disp, unsigned size, enum access_kind kind,
                     unsigned aligned, struct cold *site)
{
    struct lookup l = {.size = size,
                       .kind = kind,
                       .aligned = aligned,
                       .last = last_of_operand(b),
                       .relative = true,
                       .disp = (int32_t)disp};
    lookup_relative_linear(b, &l, l.last == LAST_NONE ? SCRATCH1 : SCRATCH2);
    lookup(b, &l, site);
}

void lookup_operand(struct build *b, unsigned size, enum access_kind kind, unsigned aligned,
                    struct cold *site)
{
    lookup_at(b, build_insn(b)->mem.disp, size, kind, aligned, site);
}

void lookup_group(struct build *b, const struct held *held, struct cold *site)
{
    struct jit_group *group = jit_data(b->jit, sizeof *group); /* right behind the site */
    site->group = true;
    site->group_lo = held->lo;
    site_record(b, site)->group = (int8_t)(held - b->held);
    *group = (struct jit_group){.span = (uint16_t)(held->hi - held->lo),
                                .kind = held->write ? ACCESS_WRITE : ACCESS_READ,
                                .relative = held->relative,
                                .in_loop = b->in_loop[b->i],
                                .rounds = held->rounds};
    if (held->relative)
        lookup_relative(b, held->lo, group->span, group->kind, 0, site);
    else
        lookup_at(b, held->lo, group->span, group->kind, 0, site);
    group->begun = emit_here(&b->e);
    emit_cpu_store(&b->e, SCRATCH1, held_slot(b, held));
}

void lookup_stack(struct build *b, unsigned host, int32_t disp, unsigned size,
                  enum access_kind kind, struct cold *site)
{
    emit_rm(&b->e, b->width, OP_LEA, SCRATCH1, host, disp);
    struct lookup l = {.size = size, .kind = kind, .last = last_of_register(b, host)};
    lookup(b, &l, site);
}

/* In 32-bit code an address may have wrapped, so the host address is made, and less rSP and `disp`
 * again: what lies in one page does not wrap in it. */
void lookup_words(struct build *b, int32_t disp, unsigned size, enum access_kind kind,
                  struct cold *site)
{
    struct lookup l = {.size = size,
                       .kind = kind,
                       .last = last_of_register(b, HOST_SP),
                       .relative = true,
                       .disp = disp,
                       .stack = true};
    if (b->code64) {
        lookup_relative_linear(b, &l, l.last == LAST_NONE ? SCRATCH1 : SCRATCH2);
        lookup(b, &l, site);
        return;
    }
    lookup_stack(b, HOST_SP, disp, size, kind, site);
    emit_rr(&b->e, 8, OP_SUB_LOAD, SCRATCH1, HOST_SP);
    if (disp)
        emit_rm(&b->e, 8, OP_LEA, SCRATCH1, SCRATCH1, -disp);
}

void lookup_words_to_return(struct build *b, unsigned size, struct cold *site)
{
    if (b->code64) {
        lookup_words(b, 0, size, ACCESS_READ, site);
        return;
    }
    lookup_stack(b, HOST_SP, 0, size, ACCESS_READ, site);
    emit_mov(&b->e, 4, HOST_SP, HOST_SP);
    emit_rr(&b->e, 8, OP_SUB_LOAD, SCRATCH1, HOST_SP);
}

void emit_word(struct build *b, unsigned opcode, unsigned reg, int32_t disp)
{
    emit_rm_indexed(&b->e, b->width, opcode, reg, SCRATCH1, HOST_SP, disp);
}
