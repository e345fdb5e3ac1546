/*
 * flags.c - where the arithmetic flags are.
 *
 * A copied instruction leaves them in EFLAGS, where the next lookup would destroy them. Most flags
 * are never read: but a fault may still show them. So before EFLAGS are lost the translator asks
 * which of three holds: they are written again before anybody can look (nothing to do); they can be
 * computed from registers that still hold what produced them (nothing to do: C can compute them at
 * a site, and code can bring them back by doing the comparison again); or they must be stored.
 */
#include "cpu/interp/flags.h"
#include "cpu/jit/build.h"
#include "insn_exec.h"

static bool described(const struct build *b)
{
    return b->flags.desc.from != FLAGS_MEMORY;
}

/* ---- Moving them ----------------------------------------------------------------------------- */

void flags_emit_store(struct emit *e)
{
    emit_mov(e, 8, SCRATCH1, RAX);
    emit_flags_to_ax(e);
    emit8(e, 0x66); /* mov [flags], ax */
    emit_cpu(e, 4, OP_STORE, RAX, CPU_AT(jx.flags));
    emit_mov(e, 8, RAX, SCRATCH1);
}

void flags_emit_load(struct emit *e)
{
    emit_cpu_0f(e, OP_0F_MOVZX_WORD, RAX, CPU_AT(jx.flags));
    emit_flags_from_ax(e);
}

/* op r/m, r of a size, for registers of the host. */
static void op_sized(struct emit *e, unsigned size, unsigned opcode, unsigned reg, unsigned rm)
{
    if (size == 2)
        emit8(e, 0x66);
    if (size == 1) {
        emit8(e, 0x40 | (reg >> 3) << 2 | rm >> 3); /* SIL and the like, too */
        emit8(e, opcode & ~1u);
        emit8(e, 0xc0 | (reg & 7) << 3 | (rm & 7));
        return;
    }
    emit_rr(e, size, opcode, reg, rm);
}

/* The host register that holds an operand of a description: its own, or `scratch`, loaded. */
static unsigned flags_value(struct build *b, unsigned reg, unsigned scratch)
{
    if (reg != REG_KEPT)
        return guest_value(b, reg, scratch);
    emit_cpu_load(&b->e, scratch, CPU_AT(jx.kept));
    return scratch;
}

/* Does again, into R11 or nowhere, what produced the flags. */
static void emit_again(struct build *b)
{
    const struct flags_desc *d = &b->flags.desc;
    enum { ADD = 0x01, SUB = 0x29, CMP = 0x39, TEST = 0x85 };
    struct emit *e = &b->e;
    unsigned other = SCRATCH1;
    if (d->from == FLAGS_LOGIC) {
        unsigned a = flags_value(b, d->a, SCRATCH2);
        op_sized(e, d->size, TEST, a, a);
        return;
    }
    if (d->b == REG_NONE) { /* the immediate */
        emit_rex(e, 8, 0, 0, SCRATCH1);
        emit8(e, 0xc7);
        emit8(e, 0xc0 | (SCRATCH1 & 7));
        emit32(e, (uint32_t)d->imm);
    } else {
        other = flags_value(b, d->b, SCRATCH1);
    }
    unsigned a = flags_value(b, d->a, SCRATCH2);
    switch (d->from) {
    case FLAGS_CMP:
        op_sized(e, d->size, CMP, other, a);
        break;
    case FLAGS_TEST:
        op_sized(e, d->size, TEST, other, a);
        break;
    default:
        if (a != SCRATCH2)
            emit_mov(e, 8, SCRATCH2, a);
        op_sized(e, d->size, d->from == FLAGS_ADD ? SUB : ADD, other, SCRATCH2);
        op_sized(e, d->size, d->from == FLAGS_ADD ? ADD : SUB, other, SCRATCH2);
    }
}

void flags_load(struct build *b)
{
    if (b->flags.host)
        return;
    if (described(b)) {
        emit_again(b);
    } else {
        emit_mov(&b->e, 8, SCRATCH2, RAX);
        flags_emit_load(&b->e);
        emit_mov(&b->e, 8, RAX, SCRATCH2);
    }
    b->flags.host = true;
}

void flags_store(struct build *b)
{
    if (b->flags.memory)
        return;
    if (!b->flags.host) {
        emit_again(b);
        b->flags.host = true;
    }
    flags_emit_store(&b->e);
    b->flags.memory = true;
}

void flags_spill(struct build *b)
{
    if (!b->flags.memory && !described(b))
        flags_store(b);
}

void flags_convert(struct build *b, const struct flags_state *to)
{
    if (to->memory && !to->host)
        flags_store(b);
    else if (!to->memory)
        flags_load(b);
}

static bool describes(const struct build *b, unsigned reg)
{
    return described(b) && (b->flags.desc.a == reg || b->flags.desc.b == reg);
}

/* The flags of before that the instruction reads, or that outlive it. */
static uint16_t outlive(const struct build *b, unsigned i)
{
    const struct insn_row *row = b->insn[i].row;
    uint16_t kills = row->flags_written | row->flags_undefined;
    return (uint16_t)(((b->visible_after[i] & ~kills) | row->flags_read) & FLAGS_ARITH);
}

void flags_before_change(struct build *b, unsigned reg, bool lookup)
{
    if (describes(b, reg) && (lookup || !b->flags.host) && outlive(b, b->i))
        flags_store(b);
}

void flags_after_change(struct build *b, unsigned reg)
{
    if (!describes(b, reg))
        return;
    b->flags.desc.from = FLAGS_MEMORY;
    if (!b->flags.host)
        b->flags.memory = true; /* stored, or nobody looks: then any value will do */
}

void flags_produced(struct build *b, struct flags_desc desc)
{
    b->flags = (struct flags_state){.host = true, .desc = desc};
    if (!b->visible_after[b->i])
        b->flags.memory = true; /* as good as stored */
}

/* ---- What they come from --------------------------------------------------------------------- */

/* The operand as a description names it; REG_NONE: it cannot. */
static uint8_t name_of(const struct opnd *o, bool kept)
{
    if (o->kind == OPND_GPR)
        return o->reg;
    return o->kind == OPND_MEM && kept ? REG_KEPT : REG_NONE;
}

struct flags_desc flags_describe(const struct insn *insn, bool kept)
{
    const struct opnd *o = insn->op;
    const struct flags_desc none = {.from = FLAGS_MEMORY};
    struct flags_desc d = {.size = (uint8_t)o[0].size, .b = REG_NONE};
    bool imm = insn->opnds > 1 && o[1].kind == OPND_IMM;
    d.a = name_of(&o[0], kept);
    if (imm)
        d.imm = (int32_t)insn->imm;
    else if (insn->opnds > 1)
        d.b = name_of(&o[1], kept);
    if (d.a == REG_NONE)
        return none;
    bool both = imm || d.b != REG_NONE;
    switch (insn->row->exec) {
    case EXEC_and:
    case EXEC_or:
    case EXEC_xor:
        d.from = FLAGS_LOGIC; /* the result is all that counts */
        d.b = REG_NONE;
        return d;
    case EXEC_test:
        d.from = d.a == d.b ? FLAGS_LOGIC : FLAGS_TEST;
        return both ? d : none;
    case EXEC_cmp:
        d.from = FLAGS_CMP;
        return both ? d : none;
    case EXEC_add:
        d.from = FLAGS_ADD;
        return both && d.a != d.b ? d : none;
    case EXEC_sub:
        d.from = FLAGS_SUB;
        return both && d.a != d.b ? d : none;
    default:
        return none;
    }
}

/* ---- Liveness -------------------------------------------------------------------------------- */

/* Can something other than the next instruction see the state before this one: a fault, C, the way
 * out of the region? */
static bool is_quiet(const struct build *b, const struct insn *insn)
{
    if (insn->row->exec == EXEC_nop || insn->row->exec == EXEC_gen_hint)
        return true;
    if (build_is_direct(insn))
        return true; /* the ways out have their own say */
    if (!copy_is_allowed(b, insn) || insn->row->attr & INSN_BRANCH)
        return false;
    if (insn->row->exec == EXEC_lea)
        return true;
    for (unsigned n = 0; n < insn->opnds; n++)
        if (insn->op[n].kind == OPND_MEM && insn->op[n].size)
            return false;
    return true;
}

bool flags_stay(const struct build *b, unsigned i)
{
    for (unsigned k = i; k < b->count && is_quiet(b, &b->insn[k]); k++) {
        const struct insn *insn = &b->insn[k];
        bool back = build_is_conditional(insn) && b->off[k] + insn->len + insn->imm <= b->off[i];
        if (back || !b->flows[k])
            return true;
    }
    return false;
}

/* What a jump to an offset may show. */
static uint16_t visible_at(const struct build *b, unsigned from, int32_t off)
{
    int to = build_target(b, from, off);
    return to < 0 ? FLAGS_ARITH : b->visible_before[to];
}

static uint16_t after(const struct build *b, unsigned i)
{
    const struct insn *insn = &b->insn[i];
    uint16_t visible = 0;
    if (b->flows[i])
        visible = i + 1 < b->count ? b->visible_before[i + 1] : FLAGS_ARITH;
    else
        visible = b->next[i] == NEXT_NONE ? FLAGS_ARITH : visible_at(b, i, b->next[i]);
    if (build_is_conditional(insn))
        visible |= visible_at(b, i, b->off[i] + insn->len + (int32_t)insn->imm);
    return visible;
}

/* Backwards until nothing changes any more; loops need more than one round. */
void flags_liveness(struct build *b)
{
    memset(b->visible_before, 0, sizeof b->visible_before);
    for (bool changed = true; changed;) {
        changed = false;
        for (unsigned i = b->count; i-- > 0;) {
            b->visible_after[i] = after(b, i);
            bool looks = b->polls[i] || !is_quiet(b, &b->insn[i]);
            uint16_t before = looks ? FLAGS_ARITH : outlive(b, i);
            changed |= before != b->visible_before[i];
            b->visible_before[i] = before;
        }
    }
}
