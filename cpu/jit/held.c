/*
 * held.c - one lookup for several accesses: host addresses that are kept.
 *
 * Accesses often come in groups: [rdi], [rdi+8], [rdi+24], with rdi unchanged between them. The
 * first one's lookup then covers them all: it proves that everything from the lowest to the highest
 * byte lies in one page that may be accessed so, and keeps the host address of the lowest one in
 * cpu->jx.held[]. The others load it from there; they cannot miss, and leave EFLAGS alone.
 *
 * The stack's groups follow RSP as it is moved by constants: PUSH, POP, CALL, RET and accesses by RSP
 * share a lookup, as a function's beginning and its end have many of them.
 *
 * A held address is good until the registers change, a block begins, or C may have taken the page
 * away: jit_slow() does not come back to a place where something is held if it has
 * (mmu->taken). What cannot be covered in one piece (it crosses a page's end, it is a device) has C
 * execute the first access and leave; where that happens often, the region is made again without
 * the group.
 */
#include "cpu/jit/build.h"
#include "insn_exec.h"

enum {
    LOOK_AHEAD = 23, /* instructions */
    SPAN_MAX = 256,  /* bytes: the longer, the more often it crosses a page's end */
    FAR = 1 << 20,   /* that RSP may have moved */
};

static bool same_base(const struct held *h, const struct insn *insn)
{
    const struct insn_mem *m = &insn->mem;
    return h->base == m->base && h->index == m->index &&
           (h->stack || (h->scale == m->scale && h->seg == m->seg));
}

static bool is_changed(const struct held *h, unsigned reg)
{
    return h->base == reg || h->index == reg;
}

static bool is_stack(unsigned exec)
{
    return exec == EXEC_push || exec == EXEC_pop;
}

/* What C executes may do anything. */
static bool is_known(const struct build *b, const struct insn *insn)
{
    unsigned exec = insn->row->exec;
    return is_stack(exec) || exec == EXEC_jcc || exec == EXEC_nop || exec == EXEC_gen_hint ||
           exec == EXEC_lea || copy_is_allowed(b, insn);
}

static bool writes(const struct insn *insn, const struct held *h)
{
    for (unsigned n = 0; n < insn->opnds; n++) {
        const struct opnd *o = &insn->op[n];
        if ((o->kind == OPND_GPR || o->kind == OPND_GPR8H) && (o->access & OPND_W) &&
            is_changed(h, o->kind == OPND_GPR8H ? o->reg & 3 : o->reg))
            return true;
    }
    return false;
}

/* By how much an instruction moves RSP in 64-bit code, if it is by a constant. */
static bool moves_by(const struct insn *insn, int32_t *by)
{
    const struct insn_mem *m = &insn->mem;
    const struct opnd *to = &insn->op[0];
    unsigned exec = insn->row->exec;
    bool to_sp = to->kind == OPND_GPR && to->reg == RSP;
    bool adds = (exec == EXEC_add || exec == EXEC_sub) && insn->op[1].kind == OPND_IMM;
    if (is_stack(exec)) {
        *by = exec == EXEC_push ? -(int32_t)insn->opsize : (int32_t)insn->opsize;
        return exec == EXEC_push || !to_sp;
    }
    if (!to_sp || to->size != 8)
        return false;
    if (adds)
        *by = exec == EXEC_add ? (int32_t)insn->imm : -(int32_t)insn->imm;
    else if (exec == EXEC_lea && m->base == RSP && m->index == REG_NONE && insn->adsize == 8)
        *by = (int32_t)m->disp;
    else
        return false;
    return true;
}

/* Behind the instruction: is it held no more? */
static bool is_lost(const struct build *b, const struct insn *insn, struct held *h)
{
    int32_t by;
    if (!is_known(b, insn))
        return true;
    if (!writes(insn, h) && !(is_stack(insn->row->exec) && is_changed(h, RSP)))
        return false;
    if (!h->stack || !moves_by(insn, &by) || by < -FAR || by > FAR || h->moved < -FAR ||
        h->moved > FAR)
        return true;
    h->moved += by;
    return false;
}

/* An access that a group may have: its operand is all that it accesses. */
static const struct opnd *groupable(const struct build *b, const struct insn *insn)
{
    const struct opnd *mem = copy_memory_operand(b, insn);
    if (!mem || insn->mem.base == REG_PC || insn->mem.base == REG_NONE || insn->adsize != b->width)
        return NULL; /* with a shorter address the parts of a group could wrap apart */
    return mem;
}

/* [RSP + displacement] */
static bool is_by_stack(const struct build *b, const struct insn *insn)
{
    const struct insn_mem *m = &insn->mem;
    return b->code64 && insn->adsize == 8 && m->base == RSP && m->index == REG_NONE &&
           m->seg != SEG_FS && m->seg != SEG_GS;
}

static bool covers(const struct held *h, int64_t lo, unsigned size, bool write)
{
    return lo >= h->lo && lo + size <= h->hi && (h->write || !write);
}

struct held *held_find_stack(struct build *b, int64_t disp, unsigned size, bool write)
{
    for (unsigned k = 0; k < HELD_SLOTS; k++) {
        struct held *h = &b->held[k];
        if (h->valid && h->stack && covers(h, disp + h->moved, size, write))
            return h;
    }
    return NULL;
}

struct held *held_find(struct build *b, const struct opnd *mem, bool write)
{
    const struct insn *insn = build_insn(b);
    if (insn->adsize != b->width)
        return NULL;
    if (is_by_stack(b, insn))
        return held_find_stack(b, insn->mem.disp, mem->size, write);
    for (unsigned k = 0; k < HELD_SLOTS; k++) {
        struct held *h = &b->held[k];
        if (h->valid && same_base(h, insn) && covers(h, insn->mem.disp, mem->size, write))
            return h;
    }
    return NULL;
}

static bool is_ungrouped(const struct build *b)
{
    return b->jit->ungrouped[jit_mark_index((b->region->gpa & PAGE_MASK) + b->off[b->i])];
}

/* An access of an instruction. */
struct piece {
    int64_t disp;
    unsigned size;
    bool write;
};

/* That of PUSH, POP, CALL and RET, if they are translated as members of a group; else by an operand. */
static bool stack_piece(const struct build *b, const struct insn *insn, struct piece *p)
{
    unsigned exec = insn->row->exec, width = b->width;
    bool pushes = exec == EXEC_push || exec == EXEC_call;
    if (is_stack(exec) ? !special_is_simple(b, insn, exec)
                       : (exec != EXEC_call && exec != EXEC_ret) || insn->opsize != width)
        return false;
    *p = (struct piece){pushes ? -(int64_t)width : 0, width, pushes};
    return true;
}

static bool piece_of(const struct build *b, const struct held *h, const struct insn *insn,
                     struct piece *p)
{
    if (h->stack && stack_piece(b, insn, p))
        return true;
    const struct opnd *mem = groupable(b, insn);
    if (!mem || !same_base(h, insn) || (h->stack && !is_by_stack(b, insn)))
        return false;
    *p = (struct piece){insn->mem.disp, mem->size, mem->access & OPND_W};
    return true;
}

/* Covers the instruction's access too, if it is one of the group and not too far away. */
static bool widen(const struct build *b, struct held *h, const struct insn *insn)
{
    struct piece p;
    if (!piece_of(b, h, insn, &p))
        return false;
    int64_t lo = p.disp + h->moved, hi = lo + p.size;
    lo = lo < h->lo ? lo : h->lo;
    hi = hi > h->hi ? hi : h->hi;
    if (hi - lo > SPAN_MAX)
        return false;
    h->lo = (int32_t)lo;
    h->hi = (int32_t)hi;
    h->write |= p.write; /* what is loaded and then stored needs one lookup */
    return true;
}

/* Looks for more accesses by the current instruction's registers, as far as the code goes straight on
 * and leaves these alone. */
static bool find_more(const struct build *b, struct held *h)
{
    bool found = false;
    for (unsigned i = b->i, n = 0; n < LOOK_AHEAD && !is_lost(b, &b->insn[i], h) && b->flows[i] &&
                                   i + 1 < b->count && !b->leader[i + 1];
         n++)
        found |= widen(b, h, &b->insn[++i]);
    h->moved = 0;
    return found;
}

static struct held *begin(struct build *b, struct held h)
{
    if (b->cross || !find_more(b, &h) || is_ungrouped(b))
        return NULL;
    h.valid = true;
    unsigned k = b->held_next++ % HELD_SLOTS;
    b->held[k] = h;
    return &b->held[k];
}

struct held *held_begin_stack(struct build *b, int32_t disp, unsigned size, bool write)
{
    if (!b->code64)
        return NULL;
    return begin(b, (struct held){.base = RSP,
                                  .index = REG_NONE,
                                  .seg = SEG_SS,
                                  .lo = disp,
                                  .hi = disp + (int32_t)size,
                                  .write = write,
                                  .stack = true,
                                  .relative = true});
}

struct held *held_begin(struct build *b, const struct opnd *mem, bool write)
{
    const struct insn *insn = build_insn(b);
    if (!groupable(b, insn))
        return NULL;
    if (is_by_stack(b, insn))
        return held_begin_stack(b, (int32_t)insn->mem.disp, mem->size, write);
    return begin(b, (struct held){.base = insn->mem.base,
                                  .index = insn->mem.index,
                                  .scale = insn->mem.scale,
                                  .seg = insn->mem.seg,
                                  .lo = (int32_t)insn->mem.disp,
                                  .hi = (int32_t)insn->mem.disp + (int32_t)mem->size,
                                  .write = write,
                                  .relative = lookup_can_be_relative(b, insn)});
}

void held_after(struct build *b)
{
    for (unsigned k = 0; k < HELD_SLOTS; k++)
        if (b->held[k].valid && is_lost(b, build_insn(b), &b->held[k]))
            b->held[k].valid = false;
}

void held_forget(struct build *b)
{
    for (unsigned k = 0; k < HELD_SLOTS; k++)
        b->held[k].valid = false;
}

bool held_any(const struct build *b)
{
    for (unsigned k = 0; k < HELD_SLOTS; k++)
        if (b->held[k].valid)
            return true;
    return false;
}

void held_load(struct build *b, const struct held *held)
{
    if (b->in_r10 != held || b->r10_until != b->e.p)
        emit_cpu_load(&b->e, SCRATCH1, held_slot(b, held));
}
