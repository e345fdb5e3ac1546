/*
 * branch.c - leaving a region: edges, calls, returns, indirect branches; and the cold code behind
 * it.
 *
 * At every way out flags are in cpu->jx.flags and vectors in cpu->ymm[]. What can lead backwards,
 * or anywhere, polls: (request & attention) is tested, which costs EFLAGS, but they are stored by
 * then.
 *
 * An edge inside the page is a JMP that is patched when the target has a region: one frame, one
 * mode, so that nothing can be wrong with it. An edge to another page remembers the target together
 * with the page's virtual address and the MMU's generation, and compares both each time.
 */
#include "cpu/jit/build.h"
#include "insn_exec.h"

/* ---- Sites ----------------------------------------------------------------------------------- */

static struct cold *new_cold(struct build *b, int kind)
{
    struct cold *c = &b->cold[b->colds++];
    *c = (struct cold){.kind = kind, .off = b->off[b->i]};
    return c;
}

static uint32_t make_site(struct build *b)
{
    struct jit_site *site = jit_data(b->jit, sizeof *site);
    *site = (struct jit_site){.region = b->region,
                              .off = b->off[b->i],
                              .len = build_insn(b)->len,
                              .branch = build_insn(b)->row->attr & INSN_BRANCH,
                              .flags = b->flags.desc};
    if (b->flags.memory)
        site->flags.from = FLAGS_MEMORY;
    return (uint32_t)((uint8_t *)site - b->jit->data);
}

struct cold *site_begin(struct build *b)
{
    struct cold *c = new_cold(b, COLD_SLOW);
    c->site = make_site(b);
    return c;
}

struct cold *run_begin(struct build *b, unsigned length)
{
    struct cold *c = new_cold(b, COLD_RUN);
    c->index = (uint8_t)b->i;
    c->length = (uint8_t)length;
    c->flags = b->flags;
    return c;
}

void site_resume(struct build *b, struct cold *site)
{
    site->resume = emit_here(&b->e);
}

void site_call(struct build *b)
{
    flags_spill(b);
    vec_store_all(b);
    emit_mov_imm32(&b->e, SCRATCH1, make_site(b));
    emit_call(&b->e, b->jit->thunks.slow);
    if (build_insn(b)->row->attr & INSN_BRANCH)
        return; /* it does not come back */
    vec_load_all(b);
    b->flags = (struct flags_state){.host = true, .memory = true};
}

/* ---- Ways out -------------------------------------------------------------------------------- */

static void vectors_out(struct build *b)
{
    vec_store_all(b);
    if (b->vec_wide && b->vec_used)
        emit_vzeroupper(&b->e);
}

static void exit_here(struct build *b, unsigned off)
{
    vectors_out(b);
    emit_mov_imm32(&b->e, SCRATCH1, off);
    emit_jmp(&b->e, b->jit->thunks.exit_here);
}

/* Flags are stored. The jump is taken when something wants attention. */
static uint8_t *poll(struct build *b)
{
    emit_gs(&b->e, 4, OP_LOAD, SCRATCH1, CPU_AT(request));
    emit_gs(&b->e, 4, OP_TEST, SCRATCH1, CPU_AT(attention));
    flags_clobbered(b);
    return emit_jcc_later(&b->e, CC_NE);
}

static struct jit_edge *make_edge(struct build *b, int32_t target)
{
    struct jit_edge *edge = jit_data(b->jit, sizeof *edge);
    *edge = (struct jit_edge){.va = 1, .region = b->region, .target = target}; /* 1: no page */
    return edge;
}

static struct cold *cold_edge(struct build *b, struct jit_edge *edge, bool polled)
{
    struct cold *c = new_cold(b, COLD_EDGE);
    c->edge = edge;
    c->poll = polled;
    return c;
}

/* What was found under the generation in `reg` holds if that is still the address space's, or that
 * of global pages, on which kernels run nearly always and other code hardly ever. */
static void check_generation(struct build *b, unsigned reg, struct cold *miss)
{
    struct emit *e = &b->e;
    uint8_t *good = NULL;
    if (!(b->mode & MODE_USER)) {
        emit_gs(e, 8, OP_CMP_LOAD, reg, CPU_AT(mmu.global_generation));
        good = emit_jcc_later(e, CC_E);
    }
    emit_gs(e, 8, OP_CMP_LOAD, reg, CPU_AT(mmu.exec_generation));
    cold_jump(miss, emit_jcc_later(e, CC_NE));
    if (good)
        emit_patch32(good, e->shift, emit_here(e));
}

static void to_other_page(struct build *b, struct jit_edge *edge, struct cold *miss)
{
    struct emit *e = &b->e;
    int32_t page = edge->target & ~(int32_t)(PAGE_SIZE - 1);
    emit_gs_load(e, SCRATCH1, CPU_AT(jx.page_va));
    emit_rip(e, 8, OP_CMP_LOAD, SCRATCH1, &edge->va);
    cold_jump(miss, emit_jcc_later(e, CC_NE));
    emit_rip(e, 8, OP_LOAD, SCRATCH2, &edge->generation);
    check_generation(b, SCRATCH2, miss);
    emit_rm(e, b->width, OP_LEA, SCRATCH1, SCRATCH1, page);
    emit_gs_store(e, SCRATCH1, CPU_AT(jx.page_va));
    emit_rip(e, 4, 0xff, 4, &edge->code); /* jmp [rip + ...] */
}

static bool in_page(int32_t target)
{
    return target >= 0 && target < (int32_t)PAGE_SIZE;
}

/* Flags are stored. */
static void edge_code(struct build *b, int32_t target)
{
    bool loop = target == b->off[0] && !b->jit->lockstep, near = in_page(target);
    struct jit_edge *edge = make_edge(b, target);
    if (!loop)
        vectors_out(b);
    if (!near || target <= b->off[b->i]) {
        struct cold *c = cold_edge(b, edge, true);
        c->save_vectors = loop;
        cold_jump(c, poll(b));
    }
    if (loop) {
        emit_jmp(&b->e, b->body);
        return;
    }
    struct cold *miss = cold_edge(b, edge, false);
    if (near) {
        edge->patch = emit_jmp_later(&b->e);
        cold_jump(miss, edge->patch);
    } else {
        to_other_page(b, edge, miss);
    }
}

void branch_edge(struct build *b, int32_t target)
{
    flags_store(b);
    edge_code(b, target);
}

/* ---- Jcc ------------------------------------------------------------------------------------- */

/* The way back to the region's own beginning is the hot one; any other target stands behind the
 * region, and the code goes on with what follows. */
static enum branch_result conditional(struct build *b, int32_t target)
{
    unsigned cc = build_insn(b)->row->exec_arg & 15;
    flags_load(b);
    if (target == b->off[0] && !b->jit->lockstep) {
        uint8_t *over = emit_jcc_later(&b->e, cc ^ 1);
        struct flags_state before = b->flags;
        branch_edge(b, target);
        b->flags = before;
        emit_patch32(over, b->e.shift, emit_here(&b->e));
        return BRANCH_GOES_ON;
    }
    struct cold *c = new_cold(b, COLD_SIDE);
    c->target = target;
    c->save_flags = !b->flags.memory;
    c->index = (uint8_t)b->i;
    cold_jump(c, emit_jcc_later(&b->e, cc));
    return BRANCH_GOES_ON;
}

/* ---- Indirect branches ----------------------------------------------------------------------- */

/* R10: where to. R11 becomes the entry for it in the table of the mode; else to the site, where C
 * executes the branch. R10 is lost. */
static void find_target(struct build *b, struct cold *site)
{
    enum { XOR_LOAD = 0x33 };
    struct emit *e = &b->e;
    emit_mov(e, 8, SCRATCH2, SCRATCH1);
    emit_shift(e, 8, SHIFT_DIGIT_SHR, SCRATCH2, PAGE_SHIFT);
    emit_rr(e, 8, XOR_LOAD, SCRATCH2, SCRATCH1);
    emit_ri(e, 4, GRP1_AND, SCRATCH2, JIT_PCS - 1);
    emit_shift(e, 4, SHIFT_DIGIT_SHL, SCRATCH2, 5);
    emit_gs(e, 8, OP_ADD_LOAD, SCRATCH2, CPU_AT(jx.pcs));
    emit_rm(e, 8, OP_CMP_LOAD, SCRATCH1, SCRATCH2, (int32_t)offsetof(struct jit_pc, pc));
    cold_jump(site, emit_jcc_later(e, CC_NE));
    emit_rm(e, 8, OP_LOAD, SCRATCH1, SCRATCH2, (int32_t)offsetof(struct jit_pc, generation));
    check_generation(b, SCRATCH1, site);
}

/* R10 = the page of the target in entry R11 */
static void target_page(struct build *b)
{
    emit_rm(&b->e, 8, OP_LOAD, SCRATCH1, SCRATCH2, (int32_t)offsetof(struct jit_pc, pc));
    emit_ri(&b->e, 8, GRP1_AND, SCRATCH1, -(int32_t)PAGE_SIZE);
}

static void go_to_entry(struct build *b)
{
    target_page(b);
    emit_gs_store(&b->e, SCRATCH1, CPU_AT(jx.page_va));
    emit_rm(&b->e, 4, 0xff, 4, SCRATCH2, (int32_t)offsetof(struct jit_pc, code));
}

/* Polls, then begins the site of an indirect branch: nothing has been done yet in either case. */
static struct cold *begin_indirect(struct build *b)
{
    flags_store(b);
    struct cold *here = new_cold(b, COLD_HERE);
    cold_jump(here, poll(b));
    return site_begin(b);
}

/* R10 = the target that the operand names. */
static void load_target(struct build *b, struct cold *site)
{
    const struct opnd *o = &build_insn(b)->op[0];
    if (o->kind == OPND_MEM) {
        lookup_operand(b, b->width, ACCESS_READ, 0, site);
        emit_rm(&b->e, b->width, OP_LOAD, SCRATCH1, SCRATCH1, 0);
    } else {
        emit_mov(&b->e, b->width, SCRATCH1, guest_value(b, o->reg, SCRATCH1));
    }
}

static bool easy_target(const struct build *b, const struct insn *insn)
{
    if (insn->op[0].kind == OPND_GPR)
        return true;
    return insn->op[0].kind == OPND_MEM && insn->adsize != 2 && build_easy_segment(b, insn, false);
}

static enum branch_result jump_indirect(struct build *b)
{
    if (!easy_target(b, build_insn(b)))
        return BRANCH_NOT;
    struct cold *site = begin_indirect(b);
    load_target(b, site);
    find_target(b, site);
    vectors_out(b);
    go_to_entry(b);
    return BRANCH_ENDS;
}

static enum branch_result ret(struct build *b)
{
    const struct insn *insn = build_insn(b);
    int32_t more = insn->opnds && insn->op[0].kind == OPND_IMM ? (int32_t)insn->imm : 0;
    struct cold *site = begin_indirect(b);
    lookup_stack(b, HOST_SP, 0, b->width, ACCESS_READ, site);
    emit_rm(&b->e, b->width, OP_LOAD, SCRATCH1, SCRATCH1, 0);
    find_target(b, site);
    vectors_out(b);
    emit_rm(&b->e, b->width, OP_LEA, HOST_SP, HOST_SP, (int32_t)b->width + more);
    go_to_entry(b);
    return BRANCH_ENDS;
}

/* ---- Calls ----------------------------------------------------------------------------------- */

/* Stores the return address and moves the stack pointer. */
static void push_return(struct build *b, struct cold *site)
{
    struct emit *e = &b->e;
    int32_t after = b->off[b->i] + build_insn(b)->len;
    lookup_stack(b, HOST_SP, -(int32_t)b->width, b->width, ACCESS_WRITE, site);
    emit_gs_load(e, SCRATCH2, CPU_AT(jx.page_va));
    emit_rm(e, b->width, OP_LEA, SCRATCH2, SCRATCH2, after);
    emit_rm(e, b->width, OP_STORE, SCRATCH2, SCRATCH1, 0);
    emit_rm(e, b->width, OP_LEA, HOST_SP, HOST_SP, -(int32_t)b->width);
}

static enum branch_result call_direct(struct build *b, int32_t target)
{
    flags_store(b);
    struct cold *site = site_begin(b);
    push_return(b, site);
    flags_clobbered(b);
    edge_code(b, target);
    return BRANCH_ENDS;
}

static enum branch_result call_indirect(struct build *b)
{
    struct emit *e = &b->e;
    static const uint8_t jmp_gs[] = {0x65, 0xff, 0x24, 0x25};
    if (!easy_target(b, build_insn(b)))
        return BRANCH_NOT;
    struct cold *site = begin_indirect(b);
    load_target(b, site);
    find_target(b, site);
    target_page(b);
    emit_gs_store(e, SCRATCH1, CPU_AT(jx.next_va));
    emit_rm(e, 8, OP_LOAD, SCRATCH1, SCRATCH2, (int32_t)offsetof(struct jit_pc, code));
    emit_gs_store(e, SCRATCH1, CPU_AT(jx.jump));
    push_return(b, site);
    vectors_out(b);
    emit_gs_load(e, SCRATCH1, CPU_AT(jx.next_va));
    emit_gs_store(e, SCRATCH1, CPU_AT(jx.page_va));
    emit_bytes(e, jmp_gs, sizeof jmp_gs);
    emit32(e, (uint32_t)CPU_AT(jx.jump));
    return BRANCH_ENDS;
}

enum branch_result branch_translate(struct build *b)
{
    const struct insn *insn = build_insn(b);
    bool direct = insn->op[0].kind == OPND_REL;
    int64_t target = b->off[b->i] + insn->len + insn->imm;
    if (insn->opsize != b->width || (direct && target != (int32_t)target))
        return BRANCH_NOT;
    switch (insn->row->exec) {
    case EXEC_jcc:
        return conditional(b, (int32_t)target);
    case EXEC_jmp:
        if (!direct)
            return jump_indirect(b);
        branch_edge(b, (int32_t)target);
        return BRANCH_ENDS;
    case EXEC_call:
        return direct ? call_direct(b, (int32_t)target) : call_indirect(b);
    case EXEC_ret:
        return ret(b);
    default:
        return BRANCH_NOT;
    }
}

/* ---- Cold code ------------------------------------------------------------------------------- */

static void emit_slow(struct build *b, const struct cold *c)
{
    vec_store_all(b);
    emit_mov_imm32(&b->e, SCRATCH1, c->site);
    emit_call(&b->e, b->jit->thunks.slow);
    if (!c->resume)
        return; /* a branch: it does not come back */
    vec_load_all(b);
    emit_jmp(&b->e, c->resume);
}

static void emit_edge(struct build *b, const struct cold *c)
{
    if (c->save_vectors)
        vectors_out(b);
    emit_rip(&b->e, 8, OP_LEA, SCRATCH1, c->edge);
    emit_jmp(&b->e, c->poll ? b->jit->thunks.exit_poll : b->jit->thunks.exit_edge);
}

/* The taken way of a Jcc in the middle of the region. */
static void emit_side(struct build *b, const struct cold *c)
{
    if (c->save_flags)
        flags_emit_store(&b->e);
    b->i = c->index;
    edge_code(b, c->target);
}

static void emit_run(struct build *b, const struct cold *c)
{
    b->flags = c->flags;
    for (unsigned k = 0; k < c->length; k++) {
        b->i = c->index + k;
        special_single(b);
    }
    emit_jmp(&b->e, c->resume);
}

/* Cold code may have cold code of its own, which is appended. */
void emit_cold(struct build *b)
{
    for (unsigned n = 0; n < b->colds; n++) {
        struct cold *c = &b->cold[n];
        for (unsigned i = 0; i < c->jumps; i++)
            emit_patch32(c->jump[i], b->e.shift, emit_here(&b->e));
        switch (c->kind) {
        case COLD_SLOW:
            emit_slow(b, c);
            break;
        case COLD_HERE:
            exit_here(b, c->off);
            break;
        case COLD_EDGE:
            emit_edge(b, c);
            break;
        case COLD_SIDE:
            emit_side(b, c);
            break;
        case COLD_RUN:
            emit_run(b, c);
            break;
        }
    }
}
