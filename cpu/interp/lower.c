/*
 * lower.c - from decoded instructions to uops: for each the best handler there is.
 *
 * The fast handlers assume what their forms promise: no LOCK, no alignment checks, flat 64-bit
 * segments for the short address forms, flat segments for the stack. Everything else becomes a uop
 * that calls the instruction's semantic function (call.c); so this file decides about speed only.
 */
#include "cpu/interp/block.h"
#include "cpu/interp/execute.h"
#include "cpu/interp/handlers.h"
#include "cpu/interp/vec.h"
#include "insn_exec.h"
#include <string.h>

struct builder {
    struct cpu *cpu;
    struct block *block;
    struct uop *u; /* next slot */
    uint32_t mode;
    uint16_t off; /* of the current instruction */
    uint8_t number;
    uint8_t count; /* instructions in the block */
    bool fast;     /* memory operands may use fast handlers */
    int stack;     /* 0: flat 32-bit, 1: 64-bit; -1: stack and branches by the plain functions */
    uint16_t live; /* flags that somebody reads after the current instruction */
};

/* ---- Operands -----------------------------------------------------------------------------------
 */

static bool is_reg(const struct opnd *o)
{
    return o->kind == OPND_GPR || o->kind == OPND_GPR8H;
}
static bool is_mem(const struct opnd *o)
{
    return o->kind == OPND_MEM;
}
static bool is_imm(const struct opnd *o)
{
    return o->kind == OPND_IMM || o->kind == OPND_ONE;
}

static uint8_t reg_offset(const struct opnd *o)
{
    return (uint8_t)(o->reg * 8 + (o->kind == OPND_GPR8H));
}

static uint64_t imm_value(const struct insn *insn, const struct opnd *o, unsigned size)
{
    return o->kind == OPND_ONE ? 1 : cc_trunc((uint64_t)insn->imm, size);
}

static unsigned log2_size(const struct opnd *o)
{
    return cc_log2(o->size);
}

/* Fills the address fields. RIP-relative displacements count from the block's beginning, which is
 * what cpu->rip holds. False: the displacement does not fit. */
static bool put_address(const struct builder *b, struct uop *u, const struct insn *insn)
{
    const struct insn_mem *m = &insn->mem;
    int64_t disp = m->disp + (m->base == REG_PC ? b->off + insn->len : 0);
    u->base = (uint8_t)(m->base * 8);
    u->index = (uint8_t)(m->index * 8);
    u->scale = m->scale;
    u->seg = m->seg;
    u->disp = (int32_t)disp;
    return disp == (int32_t)disp && !m->vsib;
}

static enum ea_kind address_kind(const struct builder *b, const struct insn *insn)
{
    bool flat = (b->mode & MODE_CODE64) && insn->adsize == 8 && insn->mem.seg != SEG_FS &&
                insn->mem.seg != SEG_GS;
    return !flat ? EA_KIND_G : insn->mem.index == REG_NONE ? EA_KIND_B : EA_KIND_X;
}

/* ---- Putting uops ---------------------------------------------------------------------------- */

/* A slot with what all uops have. */
static struct uop start(const struct builder *b, const struct insn *insn)
{
    return (struct uop){
        .len = insn->len,
        .off = b->off,
        .number = b->number,
        .base = REG_NONE * 8,
        .index = REG_NONE * 8,
        .seg = SEG_SS,
        .adsize = insn->adsize,
    };
}

static bool put(struct builder *b, struct uop *u, uop_fn *fn)
{
    if (!fn)
        return false;
    u->fn = fn;
    *b->u++ = *u;
    return true;
}

static void put_call(struct builder *b, const struct insn *insn)
{
    const struct insn_row *row = insn->row;
    struct insn *copy = block_alloc(b->cpu->blocks, sizeof(*copy));
    *copy = *insn;
    bool host = row->exec == EXEC_vec_host;
    struct uop_call data = {
        .fn = execute_function(insn),
        .insn = copy,
        .prepared = host ? vec_prepare(b->cpu, copy) : 0,
    };
    struct uop u = start(b, insn);
    bool checked =
        host || (row->attr & (INSN_SYSTEM | INSN_CPL0)) || execute_needs_check(b->mode, row);
    u.flags = UOP_DATA;
    put(b, &u, row->attr & INSN_END ? uop_call_end : checked ? uop_call_checked : uop_call);
    memcpy(b->u++, &data, sizeof(data));
}

/* ---- ADD and its kind ------------------------------------------------------------------------ */

static int alu_op(unsigned exec)
{
    switch (exec) {
    case EXEC_add:
        return ALU_ADD;
    case EXEC_or:
        return ALU_OR;
    case EXEC_adc:
        return ALU_ADC;
    case EXEC_sbb:
        return ALU_SBB;
    case EXEC_and:
        return ALU_AND;
    case EXEC_sub:
        return ALU_SUB;
    case EXEC_xor:
        return ALU_XOR;
    case EXEC_cmp:
        return ALU_CMP;
    case EXEC_test:
        return ALU_TEST;
    case EXEC_inc:
        return ALU_INC;
    case EXEC_dec:
        return ALU_DEC;
    case EXEC_neg:
        return ALU_NEG;
    case EXEC_not:
        return ALU_NOT;
    default:
        return -1;
    }
}

static uop_fn *choose(bool dead, uop_fn *const live_fn[4], uop_fn *const dead_fn[4], unsigned size)
{
    return dead && dead_fn[size] ? dead_fn[size] : live_fn[size];
}

static bool lower_alu(struct builder *b, const struct insn *insn, const struct alu_handlers *h)
{
    const struct opnd *o = insn->op;
    unsigned s = log2_size(&o[0]);
    bool unary = insn->opnds == 1, dead = b->live == 0;
    struct uop u = start(b, insn);
    if (is_reg(&o[0])) {
        u.a = reg_offset(&o[0]);
        if (unary)
            return put(b, &u, choose(dead, h->rr, h->rr_dead, s));
        if (is_reg(&o[1])) {
            u.b = reg_offset(&o[1]);
            return put(b, &u, choose(dead, h->rr, h->rr_dead, s));
        }
        if (is_imm(&o[1])) {
            u.imm = imm_value(insn, &o[1], o[0].size);
            return put(b, &u, choose(dead, h->ri, h->ri_dead, s));
        }
        if (!is_mem(&o[1]) || !b->fast || !put_address(b, &u, insn))
            return false;
        return put(b, &u, h->rm[address_kind(b, insn)][s]);
    }
    if (!is_mem(&o[0]) || !b->fast || !put_address(b, &u, insn))
        return false;
    if (!unary && is_reg(&o[1]))
        u.b = reg_offset(&o[1]);
    if (!unary && is_imm(&o[1])) {
        u.imm = imm_value(insn, &o[1], o[0].size);
        return put(b, &u, h->mi[address_kind(b, insn)][s]);
    }
    return put(b, &u, h->mr[address_kind(b, insn)][s]);
}

static int shift_op(unsigned exec)
{
    switch (exec) {
    case EXEC_shl:
        return SHIFT_SHL;
    case EXEC_shr:
        return SHIFT_SHR;
    case EXEC_sar:
        return SHIFT_SAR;
    case EXEC_rol:
        return SHIFT_ROL;
    case EXEC_ror:
        return SHIFT_ROR;
    default:
        return -1;
    }
}

static bool lower_shift(struct builder *b, const struct insn *insn, const struct shift_handlers *h)
{
    const struct opnd *o = insn->op;
    unsigned s = log2_size(&o[0]);
    bool dead = b->live == 0;
    struct uop u = start(b, insn);
    if (!is_reg(&o[0]))
        return false;
    u.a = reg_offset(&o[0]);
    if (is_reg(&o[1])) {
        u.b = reg_offset(&o[1]);
        return put(b, &u, choose(dead, h->rr, h->rr_dead, s));
    }
    u.imm = imm_value(insn, &o[1], 1) & (o[0].size == 8 ? 63 : 31);
    if (u.imm == 0) /* nothing but the zero-extension of a 32-bit register */
        return false;
    return put(b, &u, choose(dead, h->ri, h->ri_dead, s));
}

static bool lower_imul(struct builder *b, const struct insn *insn)
{
    const struct imul_handlers *h = &int_imul_handlers;
    const struct opnd *o = insn->op;
    unsigned s = o[0].size == 8;
    struct uop u = start(b, insn);
    if (insn->opnds < 2 || o[1].implicit || o[0].size < 4)
        return false;
    u.a = reg_offset(&o[0]);
    if (insn->opnds == 3) {
        if (!is_reg(&o[1]))
            return false;
        u.b = reg_offset(&o[1]);
        u.imm = imm_value(insn, &o[2], o[0].size);
        return put(b, &u, h->rri[s]);
    }
    if (is_reg(&o[1])) {
        u.b = reg_offset(&o[1]);
        return put(b, &u, h->rr[s]);
    }
    if (!b->fast || !put_address(b, &u, insn))
        return false;
    return put(b, &u, h->rm[address_kind(b, insn)][s]);
}

/* ---- Moves ----------------------------------------------------------------------------------- */

static bool lower_mov(struct builder *b, const struct insn *insn)
{
    const struct move_handlers *h = &int_move_handlers;
    const struct opnd *o = insn->op;
    unsigned s = log2_size(&o[0]);
    struct uop u = start(b, insn);
    if (is_mem(&o[0]) || is_mem(&o[1])) {
        if (!b->fast || !put_address(b, &u, insn))
            return false;
    }
    enum ea_kind ea = address_kind(b, insn);
    if (is_imm(&o[1]))
        u.imm = imm_value(insn, &o[1], o[0].size);
    else if (is_reg(&o[1]))
        u.b = reg_offset(&o[1]);
    if (is_mem(&o[0]))
        return put(b, &u, is_imm(&o[1]) ? h->store_imm[ea][s] : h->store[ea][s]);
    if (!is_reg(&o[0]))
        return false;
    u.a = reg_offset(&o[0]);
    if (is_mem(&o[1]))
        return put(b, &u, h->load[ea][s]);
    return put(b, &u, is_imm(&o[1]) ? h->ri[s] : h->rr[s]);
}

static bool lower_extend(struct builder *b, const struct insn *insn, bool is_signed)
{
    const struct move_handlers *h = &int_move_handlers;
    const struct opnd *o = insn->op;
    unsigned from = log2_size(&o[1]), to = o[0].size == 8;
    struct uop u = start(b, insn);
    /* MOVSXD with operands of one size is a move; so would be what is not in the tables. */
    if (o[0].size < 4 || o[1].size >= o[0].size)
        return false;
    u.a = reg_offset(&o[0]);
    if (is_reg(&o[1])) {
        u.b = reg_offset(&o[1]);
        return put(b, &u, is_signed ? h->sx_rr[to][from] : h->zx_rr[from]);
    }
    if (!b->fast || !put_address(b, &u, insn))
        return false;
    enum ea_kind ea = address_kind(b, insn);
    return put(b, &u, is_signed ? h->sx_load[to][ea][from] : h->zx_load[ea][from]);
}

static bool lower_lea(struct builder *b, const struct insn *insn)
{
    struct uop u = start(b, insn);
    unsigned size = insn->op[0].size;
    /* The address is cut to its own size first, which is seen when the register is longer. */
    if (size < 4 || insn->adsize < size || !put_address(b, &u, insn))
        return false;
    u.a = reg_offset(&insn->op[0]);
    bool indexed = insn->mem.index != REG_NONE;
    return put(b, &u, (indexed ? int_move_handlers.lea_x : int_move_handlers.lea_b)[size == 8]);
}

static bool lower_xchg(struct builder *b, const struct insn *insn)
{
    const struct opnd *o = insn->op;
    struct uop u = start(b, insn);
    if (!is_reg(&o[0]) || !is_reg(&o[1]) || o[0].size < 4)
        return false;
    u.a = reg_offset(&o[0]);
    u.b = reg_offset(&o[1]);
    return put(b, &u, int_move_handlers.xchg[o[0].size == 8]);
}

static bool lower_conditional(struct builder *b, const struct insn *insn)
{
    const struct opnd *o = insn->op;
    unsigned cond = insn->row->exec_arg & 15;
    struct uop u = start(b, insn);
    if (!is_reg(&o[0]))
        return false;
    u.a = reg_offset(&o[0]);
    if (insn->row->exec == EXEC_setcc)
        return put(b, &u, int_move_handlers.setcc[cond]);
    if (o[0].size < 4)
        return false;
    if (is_reg(&o[1])) {
        u.b = reg_offset(&o[1]);
        return put(b, &u, int_move_handlers.cmov_rr[o[0].size == 8][cond]);
    }
    if (!b->fast || !put_address(b, &u, insn))
        return false;
    return put(b, &u, int_move_handlers.cmov_load[o[0].size == 8][cond]);
}

static bool lower_stack(struct builder *b, const struct insn *insn)
{
    const struct move_handlers *h = &int_move_handlers;
    const struct opnd *o = insn->op;
    struct uop u = start(b, insn);
    if (b->stack < 0 || insn->opsize != (b->stack ? 8 : 4))
        return false;
    switch (insn->row->exec) {
    case EXEC_push:
        if (is_imm(&o[0])) {
            u.imm = (uint64_t)insn->imm;
            return put(b, &u, h->push_i[b->stack]);
        }
        if (!is_reg(&o[0]))
            return false;
        u.b = reg_offset(&o[0]);
        return put(b, &u, h->push_r[b->stack]);
    case EXEC_pop:
        if (!is_reg(&o[0]))
            return false;
        u.a = reg_offset(&o[0]);
        return put(b, &u, h->pop_r[b->stack]);
    default:
        return put(b, &u, h->leave[b->stack]);
    }
}

static bool lower_small(struct builder *b, const struct insn *insn)
{
    const struct move_handlers *h = &int_move_handlers;
    struct uop u = start(b, insn);
    switch (insn->row->exec) {
    case EXEC_cbw:
        return put(b, &u, insn->opsize == 8 ? h->cdqe : insn->opsize == 4 ? h->cwde : 0);
    case EXEC_cwd:
        return put(b, &u, insn->opsize == 8 ? h->cqo : insn->opsize == 4 ? h->cdq : 0);
    default: /* NOP and hints */
        return put(b, &u, h->nop);
    }
}

/* ---- Ends of blocks -------------------------------------------------------------------------- */

static bool in_page(const struct builder *b, int64_t delta)
{
    uint64_t at = b->cpu->rip & (PAGE_SIZE - 1);
    return at + (uint64_t)delta < PAGE_SIZE;
}

/* The slot that says where the block goes, by a branch of `len` bytes; `taken` and `next` count
 * from its beginning. */
static bool put_link(struct builder *b, struct uop *u, uop_fn *fn, unsigned len, int64_t taken,
                     int64_t next)
{
    /* Where CS has limits or a base, targets in the page are not known to be good: nothing is
     * linked. */
    bool linkable = (b->mode & MODE_CODE64) ||
                    (b->mode & (MODE_FLAT | MODE_CODE32)) == (MODE_FLAT | MODE_CODE32);
    struct uop_link link = {
        .delta = {(int32_t)next, (int32_t)taken},
        .count = b->count,
        .same_page = linkable ? (in_page(b, next) | in_page(b, taken) << 1) & 3 : 0,
        .branch = len & 15,
        .code = b->mode & MODE_CODE64 ? 64 : 32,
    };
    u->flags = UOP_DATA | UOP_LAST;
    put(b, u, fn);
    link.owner = (uint32_t)((char *)b->u - (char *)b->block);
    b->block->link = (struct uop_link *)b->u;
    memcpy(b->u++, &link, sizeof(link));
    return true;
}

/* A direct target, when the fast handlers may go there. */
static bool direct_target(const struct builder *b, const struct insn *insn, int64_t *taken,
                          int64_t *next)
{
    *next = b->off + insn->len;
    *taken = *next + insn->imm;
    return b->stack >= 0 && insn->op[0].kind == OPND_REL && insn->opsize == (b->stack ? 8 : 4) &&
           *taken == (int32_t)*taken;
}

static bool lower_indirect(struct builder *b, const struct insn *insn, uop_fn *const reg[2],
                           uop_fn *const mem[2])
{
    struct uop u = start(b, insn);
    const struct opnd *o = &insn->op[0];
    if (b->stack < 0 || insn->opsize != (b->stack ? 8 : 4))
        return false;
    u.flags = UOP_LAST;
    if (is_reg(o)) {
        u.b = reg_offset(o);
        return put(b, &u, reg[b->stack]);
    }
    return is_mem(o) && b->fast && put_address(b, &u, insn) && put(b, &u, mem[b->stack]);
}

static bool lower_branch(struct builder *b, const struct insn *insn)
{
    const struct branch_handlers *h = &int_branch_handlers;
    struct uop u = start(b, insn);
    int64_t taken, next;
    bool direct = direct_target(b, insn, &taken, &next);
    switch (insn->row->exec) {
    case EXEC_jmp:
        return direct ? put_link(b, &u, h->jmp, insn->len, taken, next)
                      : lower_indirect(b, insn, h->jmp_r, h->jmp_m);
    case EXEC_jcc:
        return direct && put_link(b, &u, h->jcc[insn->row->exec_arg & 15], insn->len, taken, next);
    case EXEC_call:
        return direct ? put_link(b, &u, h->call[b->stack], insn->len, taken, next)
                      : lower_indirect(b, insn, h->call_r, h->call_m);
    default: /* ret */
        if (b->stack < 0 || insn->opsize != (b->stack ? 8 : 4) ||
            (insn->opnds && is_imm(&insn->op[0])))
            return false;
        u.flags = UOP_LAST;
        return put(b, &u, h->ret[b->stack]);
    }
}

/* CMP or TEST of registers with the Jcc behind it, the block's last: one uop. */
static bool lower_fused(struct builder *b, const struct insn *insn, const struct insn *jcc)
{
    const struct branch_handlers *h = &int_branch_handlers;
    const struct opnd *o = insn->op;
    bool cmp = insn->row->exec == EXEC_cmp;
    if ((!cmp && insn->row->exec != EXEC_test) || jcc->row->exec != EXEC_jcc || !is_reg(&o[0]) ||
        insn->lock)
        return false;
    int64_t taken, next;
    unsigned s = log2_size(&o[0]), cond = jcc->row->exec_arg & 15;
    struct uop u = start(b, insn);
    b->off += insn->len;
    bool direct = direct_target(b, jcc, &taken, &next);
    b->off -= insn->len;
    if (!direct)
        return false;
    u.a = reg_offset(&o[0]);
    if (is_reg(&o[1])) {
        u.b = reg_offset(&o[1]);
        return put_link(b, &u, (cmp ? h->cmp_jcc_rr : h->test_jcc_rr)[s][cond], jcc->len, taken,
                        next);
    }
    if (!is_imm(&o[1]))
        return false;
    u.imm = imm_value(insn, &o[1], o[0].size);
    return put_link(b, &u, (cmp ? h->cmp_jcc_ri : h->test_jcc_ri)[s][cond], jcc->len, taken, next);
}

/* ---- One instruction ------------------------------------------------------------------------- */

static bool lower_fast(struct builder *b, const struct insn *insn)
{
    int op;
    if (insn->lock)
        return false;
    if ((op = alu_op(insn->row->exec)) >= 0)
        return lower_alu(b, insn, &int_alu_handlers[op]);
    if ((op = shift_op(insn->row->exec)) >= 0)
        return lower_shift(b, insn, &int_shift_handlers[op]);
    switch (insn->row->exec) {
    case EXEC_mov:
        return lower_mov(b, insn);
    case EXEC_movzx:
        return lower_extend(b, insn, false);
    case EXEC_movsx:
        return lower_extend(b, insn, true);
    case EXEC_lea:
        return lower_lea(b, insn);
    case EXEC_xchg:
        return lower_xchg(b, insn);
    case EXEC_imul:
        return lower_imul(b, insn);
    case EXEC_setcc:
    case EXEC_cmovcc:
        return lower_conditional(b, insn);
    case EXEC_push:
    case EXEC_pop:
    case EXEC_leave:
        return lower_stack(b, insn);
    case EXEC_cbw:
    case EXEC_cwd:
    case EXEC_nop:
    case EXEC_gen_hint:
        return lower_small(b, insn);
    case EXEC_jmp:
    case EXEC_jcc:
    case EXEC_call:
    case EXEC_ret:
        return lower_branch(b, insn);
    default:
        return false;
    }
}

/* ---- Liveness of the flags ------------------------------------------------------------------- */

/* Nothing but registers and flags changes, and nothing can be raised. */
static bool is_quiet(const struct insn *insn)
{
    switch (insn->row->exec) {
    case EXEC_mov:
    case EXEC_movzx:
    case EXEC_movsx:
    case EXEC_lea:
    case EXEC_xchg:
    case EXEC_imul:
    case EXEC_cbw:
    case EXEC_cwd:
    case EXEC_nop:
    case EXEC_gen_hint:
        break;
    default:
        if (alu_op(insn->row->exec) < 0 && shift_op(insn->row->exec) < 0)
            return false;
    }
    for (unsigned n = 0; n < insn->opnds; n++)
        if (is_mem(&insn->op[n]) && insn->row->exec != EXEC_lea)
            return false;
    return true;
}

/* live[i]: the flags that may be read after instruction i before they are all written again.
 * Whatever can leave the block reads all of them; so they are exact wherever anybody can look. */
static void find_live_flags(const struct insn *insns, unsigned count, uint16_t *live)
{
    uint16_t now = FLAGS_ARITH;
    for (unsigned i = count; i-- > 0;) {
        const struct insn_row *row = insns[i].row;
        live[i] = now;
        now = (uint16_t)((now & ~(row->flags_written | row->flags_undefined)) | row->flags_read);
        if (!is_quiet(&insns[i]))
            now = FLAGS_ARITH;
        now &= FLAGS_ARITH;
    }
}

/* ---- The block ------------------------------------------------------------------------------- */

struct block *block_lower(struct cpu *cpu, const struct insn *insns, unsigned count)
{
    uint16_t live[BLOCK_MAX_INSNS];
    /* Made here, then moved to as much memory as it takes: at most two slots for each instruction,
     * and two for the way out. */
    union {
        struct block block;
        char room[sizeof(struct block) + (BLOCK_MAX_INSNS * 2 + 2) * sizeof(struct uop)];
    } made;
    struct block *block = &made.block;
    uint32_t mode = cpu->mode;
    bool flat32 = (mode & (MODE_FLAT | MODE_CODE32 | MODE_STACK32)) ==
                  (MODE_FLAT | MODE_CODE32 | MODE_STACK32);
    struct builder b = {
        .cpu = cpu,
        .block = block,
        .u = block->uops,
        .mode = mode,
        .count = (uint8_t)count,
        .fast = !(mode & MODE_ALIGN),
        .stack = mode & MODE_ALIGN    ? -1
                 : mode & MODE_CODE64 ? 1
                 : flat32             ? 0
                                      : -1,
    };
    *block = (struct block){0};
    find_live_flags(insns, count, live);
    for (unsigned i = 0; i < count; i++) {
        b.number = (uint8_t)i;
        b.live = live[i];
        if (i + 2 == count && lower_fused(&b, &insns[i], &insns[i + 1])) {
            b.off = (uint16_t)(b.off + insns[i].len + insns[i + 1].len);
            break;
        }
        if (!lower_fast(&b, &insns[i]))
            put_call(&b, &insns[i]);
        b.off = (uint16_t)(b.off + insns[i].len);
    }
    if (!(insns[count - 1].row->attr & INSN_END)) {
        b.number = (uint8_t)count;
        struct uop u = {.off = b.off, .number = b.number};
        put_link(&b, &u, int_branch_handlers.fall, 0, b.off, b.off);
    }
    block->uops_count = (uint16_t)(b.u - block->uops);
    size_t size = (size_t)((char *)b.u - (char *)block);
    struct block *kept = memcpy(block_alloc(cpu->blocks, size), block, size);
    if (block->link)
        kept->link = (struct uop_link *)((char *)kept + ((char *)block->link - (char *)block));
    return kept;
}
