/*
 * branch.c - leaving a region: edges, calls, returns, indirect branches; and the cold code behind
 * it.
 *
 * What can be part of a circle polls (polls.c), and so does what can lead anywhere: cpu->jx.kick is
 * not 0 when something may want attention. Where EFLAGS count the poll uses JRCXZ, which leaves
 * them alone.
 *
 * An edge inside the page is a JMP, or the Jcc itself where there is nothing else to do on the way,
 * that is patched when the target has a region: one frame, one mode, so that nothing can be wrong
 * with it; flags may be in EFLAGS on this way. An edge to another page remembers the target
 * together with the page's virtual address and the MMU's generation, and compares both each time:
 * flags are in cpu->jx.flags, as on all other ways out.
 *
 * A guest's CALL is a CALL of the host, so that the host's processor predicts the RET:
 *
 *     CALL:  push r11            the guest's return address; it is in the guest's stack, too
 *            call TARGET
 *            ...                 page_va again, and by an edge to the region behind the CALL
 *     RET:   cmp  r10, [rsp + 8] R10: what the guest's stack says
 *            jne  elsewhere
 *            ret
 *
 * The pairs on the host's stack, *open calls*, are a guess, and nothing is lost without them. What
 * makes the guess right: a RET takes it only if it is for the guest's address, and C forgets all
 * when the mapping, the mode or the cache may have changed (jit_slow()), as every way out does and
 * what changes the mode in place. Stacks may be switched and frames skipped: then RET looks a few
 * calls further, and else goes by the table of addresses. When too many calls are open they are all
 * forgotten. CALL polls and RET need not: for each RET that finds its call there has been one.
 */
#include "cpu/jit/build.h"
#include "cpu/jit/profile.h"
#include "insn_exec.h"

/* ---- Sites ----------------------------------------------------------------------------------- */

struct cold *cold_new(struct build *b, enum cold_kind kind)
{
    struct cold *c = &b->cold[b->colds++];
    *c = (struct cold){
        .kind = (uint8_t)kind, .index = (uint8_t)b->i, .off = b->off[b->i], .r11_guest = REG_NONE};
    return c;
}

static uint32_t make_site(struct build *b, bool always)
{
    struct jit_site *site = jit_data(b->jit, sizeof *site);
    *site = (struct jit_site){.region = b->region,
                              .off = b->off[b->i],
                              .len = build_insn(b)->len,
                              .branch = build_insn(b)->row->attr & INSN_BRANCH,
                              .holds = b->in_cold || held_any(b),
                              .group = -1,
                              .always = always,
                              .flags = b->flags.desc};
    if (b->flags.memory)
        site->flags.from = FLAGS_MEMORY;
    return (uint32_t)((uint8_t *)site - b->jit->data);
}

struct cold *site_begin(struct build *b)
{
    struct cold *c = cold_new(b, COLD_SLOW);
    c->site = make_site(b, false);
    c->x87_due = b->x87_due;
    return c;
}

struct cold *run_begin(struct build *b, unsigned length)
{
    struct cold *c = cold_new(b, COLD_RUN);
    c->length = (uint8_t)length;
    c->flags = b->flags;
    return c;
}

void site_keeps(struct build *b, struct cold *site)
{
    site_record(b, site)->keeps = true;
}

void site_resume(struct build *b, struct cold *site)
{
    site->resume = emit_here(&b->e);
    b->op_until = b->r11_until = NULL;
}

static void call_slow(struct build *b, uint32_t site, bool group)
{
    const struct jit_thunks *t = &b->jit->thunks;
    unsigned homes = (b->vectors ? JIT_VECTORS : 0) | (b->x87 ? JIT_X87 : 0);
    emit_mov_imm32(&b->e, SCRATCH1, site);
    emit_call(&b->e, (group ? t->group : t->slow)[homes]);
}

void site_call(struct build *b)
{
    x87_emit_due(b);
    flags_spill(b);
    const uint8_t *begin = b->e.p;
    uint32_t site = make_site(b, true);
    if (b->call_end == begin && site == b->call_site + sizeof(struct jit_site))
        ((struct jit_site *)(b->jit->data + b->call_site))->chained = true;
    call_slow(b, site, false);
    b->call_site = site;
    b->call_end = b->e.p == begin + SITE_CALL_BYTES ? b->e.p : NULL;
    b->flags = (struct flags_state){.host = true, .memory = true};
}

/* ---- Polls ----------------------------------------------------------------------------------- */

/* The jump is taken when something may want attention. */
static uint8_t *poll(struct build *b)
{
    enum { MOV_BYTES = 3 };
    struct emit *e = &b->e;
    if (b->flags.memory || !b->flags.host) {
        emit_cpu_imm8(e, OP_GRP1_IMM8, GRP1_CMP, CPU_AT(jx.kick), 0);
        flags_clobbered(b);
        return emit_jcc_later(e, CC_NE);
    }
    emit_mov(e, 8, SCRATCH1, RCX);
    emit_cpu(e, 4, OP_LOAD, RCX, CPU_AT(jx.kick));
    emit_jrcxz(e, MOV_BYTES + JMP_BYTES);
    emit_mov(e, 8, RCX, SCRATCH1);
    uint8_t *jump = emit_jmp_later(e);
    emit_mov(e, 8, RCX, SCRATCH1);
    return jump;
}

/* Where a poll that has found something leads; `flags` as they were before it. */
static void cold_poll(struct build *b, int32_t off, struct flags_state flags, uint8_t *jump)
{
    struct cold *c = cold_new(b, COLD_POLL);
    c->off = off;
    c->flags = flags;
    cold_jump(c, jump);
}

void branch_poll(struct build *b)
{
    struct flags_state flags = b->flags;
    if (b->flags.host)
        b->flags.memory = false; /* keep EFLAGS */
    cold_poll(b, b->off[b->i], b->flags, poll(b));
    b->flags = flags;
}

/* ---- Ways out -------------------------------------------------------------------------------- */

static void leave_before(struct build *b, int32_t off, const void *thunk)
{
    emit_mov_imm32(&b->e, SCRATCH1, (uint32_t)off);
    emit_jmp(&b->e, thunk);
}

static struct jit_edge *make_edge(struct build *b, int32_t target, bool remembers)
{
    struct jit_edge *edge = jit_data(b->jit, remembers ? sizeof *edge : EDGE_IN_PAGE_BYTES);
    edge->region = b->region;
    edge->patch = NULL;
    edge->target = target;
    edge->host = false;
    if (remembers) {
        edge->va = 1; /* no page */
        edge->to = NULL;
    }
    return edge;
}

static struct cold *cold_edge(struct build *b, struct jit_edge *edge)
{
    struct cold *c = cold_new(b, COLD_EDGE);
    c->edge = edge;
    return c;
}

/* The generation of global pages, on which kernels run nearly always if they have any, and programs
 * hardly ever, but for those of Xen's paravirtualised guests; or else that of the address space. */
static int32_t generation(const struct build *b, bool likely)
{
    bool global = !(b->mode & MODE_USER) && (b->cpu->cr4 & CR4_PGE);
    return global == likely ? CPU_AT(mmu.global_generation) : CPU_AT(mmu.exec_generation);
}

/* What was found under the generation in `reg` holds if that is one of the two now. The likelier
 * one is compared at once: takes the jump if it is another. */
static uint8_t *check_generation(struct build *b, unsigned reg)
{
    emit_cpu(&b->e, 8, OP_CMP_LOAD, reg, generation(b, true));
    return emit_jcc_later(&b->e, CC_NE);
}

/* Behind that jump: goes on at `good` if it is the other one. */
static void check_other_generation(struct build *b, unsigned reg, const uint8_t *good)
{
    emit_cpu(&b->e, 8, OP_CMP_LOAD, reg, generation(b, false));
    emit_patch32(emit_jcc_later(&b->e, CC_E), b->e.shift, good);
}

/* What the edge remembers holds here and now; R10 = the page's virtual address, from the edge,
 * where it is known at once: what the last call or return has stored takes its time through memory.
 */
static void check_edge(struct build *b, struct jit_edge *edge, struct cold *miss)
{
    struct emit *e = &b->e;
    edge->retry = emit_here(e);
    emit_rip(e, 8, OP_LOAD, SCRATCH1, &edge->va);
    emit_cpu(e, 8, OP_CMP_LOAD, SCRATCH1, CPU_AT(jx.page_va));
    cold_jump(miss, emit_jcc_later(e, CC_NE));
    emit_rip(e, 8, OP_LOAD, SCRATCH2, &edge->generation);
    struct cold *other = cold_new(b, COLD_SPACE);
    cold_jump(other, check_generation(b, SCRATCH2));
    other->resume = emit_here(e);
    other->otherwise = miss;
}

void branch_cross(struct build *b)
{
    struct jit_edge *edge = make_edge(b, b->off[0], true);
    b->region->cross = edge;
    check_edge(b, edge, cold_edge(b, edge));
}

/* JMP; or CALL, which has polled. */
enum out { OUT_JUMP, OUT_CALL };

static void to_other_page(struct build *b, struct jit_edge *edge, enum out how, struct cold *miss)
{
    struct emit *e = &b->e;
    int32_t page = edge->target & ~(int32_t)(PAGE_SIZE - 1);
    check_edge(b, edge, miss);
    emit_rm(e, b->width, OP_LEA, SCRATCH1, SCRATCH1, page);
    emit_cpu_store(e, SCRATCH1, CPU_AT(jx.page_va));
    emit_rip(e, 4, OP_GRP5, how == OUT_CALL ? GRP5_CALL : GRP5_JMP, &edge->code);
}

/* Where the region at an offset of the page begins, if there is one: then no edge is needed, since
 * what becomes of a region is seen to at its beginning. */
static const uint8_t *known_entry(const struct build *b, int32_t target, bool host)
{
    struct jit *jit = b->jit;
    if (jit->lockstep) /* each region comes back */
        return NULL;
    const struct jit_place *place = jit_place_find(jit, region_gpa(b->region, target));
    const struct jit_region *to = place ? jit_place_region(jit, place, b->mode) : NULL;
    return !to ? NULL : host ? to->entry_host : to->entry;
}

/* The same for another page, as the code is now being made for cpu->rip: what the table of
 * addresses has the edge need not find out. */
static void remember_known(const struct build *b, struct jit_edge *edge)
{
    struct cpu *cpu = b->cpu;
    if (b->jit->lockstep)
        return;
    uint64_t va = cpu->rip & PAGE_MASK, pc = jit_wrap(cpu, va + (uint64_t)(int64_t)edge->target);
    const struct jit_pc *slot = jit_pc_find(cpu, jit_pcs_for(b->jit, b->mode), pc);
    if (slot->pc == pc && jit_is_current(cpu, slot->generation) && !slot->region->stale)
        jit_remember(edge, va, slot->generation, slot->region);
}

/* Out of the region, to an offset of the page or beyond. */
static void edge_leave(struct build *b, int32_t target, enum out how)
{
    bool near = build_in_page(target);
    if (!near)
        flags_store(b);
    else if (!b->flags.memory)
        flags_load(b);
    if (how == OUT_JUMP && (!near || target <= b->off[0])) {
        struct flags_state flags = b->flags;
        cold_poll(b, target, flags, poll(b));
    }
    const uint8_t *entry = near ? known_entry(b, target, !b->flags.memory) : NULL;
    if (entry) {
        if (how == OUT_CALL)
            emit_call(&b->e, entry);
        else
            emit_jmp(&b->e, entry);
        return;
    }
    struct jit_edge *edge = make_edge(b, target, !near);
    edge->host = !b->flags.memory;
    if (!near)
        remember_known(b, edge);
    struct cold *miss = cold_edge(b, edge);
    if (near) {
        edge->patch = how == OUT_CALL ? emit_call_later(&b->e) : emit_jmp_later(&b->e);
        cold_jump(miss, edge->patch);
    } else {
        to_other_page(b, edge, how, miss);
    }
}

/* ---- To labels and elsewhere ----------------------------------------------------------------- */

/* The jump leads to an offset: emit_side() sees to it, when all labels are known. */
static void jump_later(struct build *b, int32_t target, uint8_t *jump)
{
    struct cold *c = cold_new(b, COLD_SIDE);
    int to = build_target(b, b->i, target);
    c->off = target;
    c->flags = b->flags;
    cold_jump(c, jump);
    if (to < 0 || b->label[to].code)
        return;
    struct label *label = &b->label[to];
    if (label->met) {
        flags_meet(&label->flags, &b->flags);
        held_meet(label->held, b->held);
    } else {
        label->flags = b->flags;
        memcpy(label->held, b->held, sizeof label->held);
    }
    label->met = true;
}

void branch_go(struct build *b, int32_t target)
{
    int to = build_target(b, b->i, target);
    if (to < 0) {
        edge_leave(b, target, OUT_JUMP);
    } else if (b->label[to].code) {
        flags_convert(b, &b->label[to].flags);
        emit_jmp(&b->e, b->label[to].code);
    } else {
        jump_later(b, target, emit_jmp_later(&b->e));
    }
}

/* The block that the branch leads to is the next one, and what it falls into has not been met, or
 * is behind a loop that goes on. */
static bool is_followed_by_target(const struct build *b, int32_t target)
{
    int32_t on = b->next[b->i];
    return !b->flows[b->i] && on != NEXT_NONE && build_in_page(on) &&
           build_target(b, b->i, target) == (int)b->i + 1 &&
           (b->loop[b->i] || !jit_place_find(b->jit, region_gpa(b->region, on)));
}

/* On the way back in a loop flags stay as they are described, if the loop's head can do with that.
 */
static void conditional(struct build *b, int32_t target)
{
    unsigned cc = build_insn(b)->row->exec_arg & 15;
    if (is_followed_by_target(b, target)) { /* then the other way is the one that jumps */
        int32_t on = b->next[b->i];
        b->next[b->i] = target;
        b->flows[b->i] = true;
        target = on;
        cc ^= 1;
    }
    int to = build_target(b, b->i, target);
    flags_load(b);
    struct flags_state flags = b->flags;
    if (to >= 0 && b->label[to].code && flags_mark(b, &b->label[to].flags))
        b->flags = b->label[to].flags;
    jump_later(b, target, emit_jcc_later(&b->e, cc));
    b->flags = flags;
}

/* A jump over `bytes` bytes when rCX is 0, which is all that JRCXZ can reach. */
static void skip_if_zero(struct build *b, unsigned adsize, unsigned bytes)
{
    if (adsize == 4)
        emit8(&b->e, 0x67);
    emit_jrcxz(&b->e, bytes);
}

/* LOOP, LOOPE, LOOPNE: the count changes and no flag does. */
static void loop(struct build *b, int32_t target)
{
    enum { LOOPNE, LOOPE, LOOP };
    const struct insn *insn = build_insn(b);
    unsigned kind = insn->row->exec_arg;
    flags_load(b);
    flags_before_change(b, RCX, false);
    emit_rm(&b->e, insn->adsize, OP_LEA, RCX, RCX, -1);
    flags_after_change(b, RCX);
    held_forget(b); /* before its target hears what is held: RCX may be part of that */
    skip_if_zero(b, insn->adsize, kind == LOOP ? JMP_BYTES : JCC_BYTES);
    jump_later(b, target,
               kind == LOOP ? emit_jmp_later(&b->e)
                            : emit_jcc_later(&b->e, kind == LOOPE ? CC_E : CC_NE));
}

/* JCXZ, JECXZ, JRCXZ */
static void jump_if_zero(struct build *b, int32_t target)
{
    enum { JMP_SHORT = 0xeb, JMP_SHORT_BYTES = 2 };
    if (!b->flags.memory)
        flags_load(b);
    skip_if_zero(b, build_insn(b)->adsize, JMP_SHORT_BYTES);
    emit8(&b->e, JMP_SHORT);
    emit8(&b->e, JMP_BYTES);
    jump_later(b, target, emit_jmp_later(&b->e));
}

/* ---- Indirect branches ----------------------------------------------------------------------- */

/* R10: where to. R11 becomes the entry for it in the table of the mode; else to the site, where C
 * executes the branch. R10 is lost. */
static void find_target(struct build *b, struct cold *site)
{
    struct emit *e = &b->e;
    lookup_rotate(b, 64 - 5);
    emit_ri(e, 4, GRP1_AND, SCRATCH2, (JIT_PCS - 1) << 5);
    emit_cpu(e, 8, OP_ADD_LOAD, SCRATCH2, CPU_AT(jx.pcs));
    emit_rm(e, 8, OP_CMP_LOAD, SCRATCH1, SCRATCH2, (int32_t)offsetof(struct jit_pc, pc));
    site->other = emit_jcc_later(e, CC_NE);
    emit_rm(e, 8, OP_LOAD, SCRATCH1, SCRATCH2, (int32_t)offsetof(struct jit_pc, generation));
    site->outdated = check_generation(b, SCRATCH1);
    site->found = emit_here(e);
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
    emit_cpu_store(&b->e, SCRATCH1, CPU_AT(jx.page_va));
    emit_rm(&b->e, 4, OP_GRP5, GRP5_JMP, SCRATCH2, (int32_t)offsetof(struct jit_pc, code));
}

/* Polls, then begins the site of an indirect branch: nothing has been done yet in either case. */
static struct cold *begin_indirect(struct build *b)
{
    flags_store(b);
    struct cold *here = cold_new(b, COLD_HERE);
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

static bool jump_indirect(struct build *b)
{
    if (!easy_target(b, build_insn(b)))
        return false;
    struct cold *site = begin_indirect(b);
    load_target(b, site);
    find_target(b, site);
    go_to_entry(b);
    return true;
}

/* ---- Calls and returns ----------------------------------------------------------------------- */

/* Stores the return address and moves the stack pointer; R11 = the return address. */
static void push_return(struct build *b, struct cold *site)
{
    struct emit *e = &b->e;
    int32_t after = b->off[b->i] + build_insn(b)->len;
    lookup_words(b, -(int32_t)b->width, b->width, ACCESS_WRITE, site);
    emit_cpu_load(e, SCRATCH2, CPU_AT(jx.page_va));
    emit_rm(e, b->width, OP_LEA, SCRATCH2, SCRATCH2, after);
    emit_word(b, OP_STORE, SCRATCH2, -(int32_t)b->width);
    emit_rm(e, b->width, OP_LEA, HOST_SP, HOST_SP, -(int32_t)b->width);
}

/* The call that follows is to be known as open by its return address, R11. */
static void open_call(struct build *b)
{
    struct emit *e = &b->e;
    struct cold *full = cold_new(b, COLD_FULL);
    emit_test_imm32(e, RSP, CALLS_BYTES - 1);
    cold_jump(full, emit_jcc_later(e, CC_E));
    full->resume = emit_here(e);
    emit_push(e, SCRATCH2);
}

/* Where RET goes on behind the call; R10 = the return address. */
static void close_call(struct build *b)
{
    struct emit *e = &b->e;
    int32_t after = b->off[b->i] + build_insn(b)->len;
    emit_rm(e, 8, OP_LEA, RSP, RSP, 8);
    emit_rm(e, b->width, OP_LEA, SCRATCH1, SCRATCH1, -after);
    emit_cpu_store(e, SCRATCH1, CPU_AT(jx.page_va));
    b->flags = (struct flags_state){.memory = true};
    edge_leave(b, after, OUT_JUMP);
}

static bool call_direct(struct build *b, int32_t target)
{
    struct cold *site = begin_indirect(b);
    push_return(b, site);
    open_call(b);
    flags_clobbered(b);
    edge_leave(b, target, OUT_CALL);
    close_call(b);
    return true;
}

static bool call_indirect(struct build *b)
{
    struct emit *e = &b->e;
    if (!easy_target(b, build_insn(b)))
        return false;
    struct cold *site = begin_indirect(b);
    load_target(b, site);
    find_target(b, site);
    target_page(b);
    emit_cpu_store(e, SCRATCH1, CPU_AT(jx.next_va));
    emit_rm(e, 8, OP_LOAD, SCRATCH1, SCRATCH2, (int32_t)offsetof(struct jit_pc, code));
    emit_cpu_store(e, SCRATCH1, CPU_AT(jx.jump));
    push_return(b, site);
    open_call(b);
    emit_cpu_load(e, SCRATCH1, CPU_AT(jx.next_va));
    emit_cpu_store(e, SCRATCH1, CPU_AT(jx.page_va));
    emit_cpu(e, 4, OP_GRP5, GRP5_CALL, CPU_AT(jx.jump));
    close_call(b);
    return true;
}

static void pop_return(struct build *b)
{
    const struct insn *insn = build_insn(b);
    int32_t more = insn->opnds && insn->op[0].kind == OPND_IMM ? (int32_t)insn->imm : 0;
    emit_rm(&b->e, b->width, OP_LEA, HOST_SP, HOST_SP, (int32_t)b->width + more);
}

static void lookup_return(struct build *b, struct cold *site)
{
    lookup_words(b, 0, b->width, ACCESS_READ, site);
}

static bool ret(struct build *b)
{
    struct emit *e = &b->e;
    flags_store(b);
    struct cold *elsewhere = cold_new(b, COLD_RET);
    if (!system_in_shadow(b)) /* STI has polled */
        elsewhere->here = cold_new(b, COLD_HERE);
    elsewhere->slow = site_begin(b);
    if (b->ret_from == e->p)
        b->ret_run->slow = elsewhere->slow;
    else
        lookup_return(b, elsewhere->slow);
    emit_word(b, OP_LOAD, SCRATCH1, 0);
    emit_rm(e, 8, OP_CMP_LOAD, SCRATCH1, RSP, 8);
    cold_jump(elsewhere, emit_jcc_later(e, CC_NE));
    pop_return(b);
    emit_ret(e);
    return true;
}

bool branch_translate(struct build *b)
{
    const struct insn *insn = build_insn(b);
    bool direct = insn->op[0].kind == OPND_REL;
    int64_t target = build_branch_offset(b, b->i);
    if (system_gate(b))
        return true;
    if (insn->opsize != b->width || insn->adsize == 2 || (direct && target != (int32_t)target))
        return false;
    switch (insn->row->exec) {
    case EXEC_jcc:
        conditional(b, (int32_t)target);
        return true;
    case EXEC_loop:
        loop(b, (int32_t)target);
        return true;
    case EXEC_jcxz:
        jump_if_zero(b, (int32_t)target);
        return true;
    case EXEC_jmp:
        return direct || jump_indirect(b); /* b->next says where */
    case EXEC_call:
        return direct ? call_direct(b, (int32_t)target) : call_indirect(b);
    case EXEC_ret:
        return ret(b);
    default:
        return false;
    }
}

/* ---- Cold code ------------------------------------------------------------------------------- */

/* Before the site: its own place, R11, is for another target than that in R10, or, where R10 is
 * lost, for the same one but outdated. */
static void emit_other_place(struct build *b, const struct cold *c)
{
    struct emit *e = &b->e;
    emit_patch32(c->outdated, e->shift, emit_here(e));
    check_other_generation(b, SCRATCH1, c->found);
    emit_rm(e, 8, OP_LOAD, SCRATCH1, SCRATCH2, (int32_t)offsetof(struct jit_pc, pc));
    emit_patch32(c->other, e->shift, emit_here(e));
    emit_call(e, b->jit->thunks.other_place);
    emit_patch32(emit_jcc_later(e, CC_E), e->shift, c->found);
}

static void emit_slow(struct build *b, const struct cold *c)
{
    x87_emit_note(b, c->x87_due);
    if (c->group) {
        b->i = c->index;
        lookup_linear(b, c->group_lo);
        emit_cpu_store(&b->e, SCRATCH1, CPU_AT(jx.jump));
    }
    call_slow(b, c->site, c->group);
    if (c->in_r10)
        emit_cpu_load(&b->e, SCRATCH1, held_slot(b, c->in_r10));
    if (c->resume && c->r11_guest != REG_NONE)
        emit_cpu_load(&b->e, SCRATCH2, CPU_GPR(c->r11_guest));
    if (c->resume)
        emit_jmp(&b->e, c->resume);
    /* else a branch: it does not come back */
}

static void emit_poll(struct build *b, const struct cold *c)
{
    b->flags = c->flags;
    if (b->flags.desc.either)
        flags_store(b);
    else if (!b->flags.memory)
        flags_load(b);
    leave_before(b, c->off,
                 b->flags.memory ? b->jit->thunks.exit_poll : b->jit->thunks.exit_poll_host);
}

static void emit_edge(struct build *b, const struct cold *c)
{
    const struct jit_thunks *t = &b->jit->thunks;
    emit_rip(&b->e, 8, OP_LEA, SCRATCH1, c->edge);
    emit_jmp(&b->e, c->edge->host    ? t->exit_edge_host
                    : c->edge->patch ? t->exit_edge
                                     : t->again_edge);
}

/* An edge in the page that the jump can take itself: nothing has to be done on the way. */
static bool is_edge_alone(const struct build *b, const struct cold *c)
{
    return build_in_page(c->off) && c->off > b->off[0] && (b->flags.host || b->flags.memory);
}

static void side_edge(struct build *b, const struct cold *c)
{
    const uint8_t *entry = known_entry(b, c->off, !b->flags.memory);
    if (entry) {
        emit_patch32(c->jump[0], b->e.shift, entry);
        return;
    }
    struct jit_edge *edge = make_edge(b, c->off, false);
    edge->host = !b->flags.memory;
    edge->patch = c->jump[0];
    cold_jump(cold_edge(b, edge), edge->patch);
}

/* Straight to the label if nothing has to be done on the way. Without one, the region was cut
 * short. */
static void emit_side(struct build *b, const struct cold *c)
{
    b->i = c->index;
    b->flags = c->flags;
    int to = build_target(b, b->i, c->off);
    bool leaves = to < 0 || !b->label[to].code;
    if (leaves && is_edge_alone(b, c))
        side_edge(b, c);
    else if (leaves)
        edge_leave(b, c->off, OUT_JUMP);
    else if (flags_fit(&b->flags, &b->label[to].flags))
        emit_patch32(c->jump[0], b->e.shift, b->label[to].code);
    else
        branch_go(b, c->off);
}

static void emit_full(struct build *b, const struct cold *c)
{
    emit_cpu_load(&b->e, RSP, CPU_AT(jx.stack));
    emit_jmp(&b->e, c->resume);
}

/* To a call that has been open longer, so that those behind it are over; or by the table, as a
 * jump. */
static void emit_elsewhere(struct build *b, const struct cold *c)
{
    struct emit *e = &b->e;
    b->i = c->index;
    b->flags = (struct flags_state){.memory = true};
    if (c->here)
        cold_jump(c->here, poll(b));
    emit_call(e, b->jit->thunks.find_call);
    uint8_t *none = emit_jcc_later(e, CC_NE);
    emit_mov(e, 8, RSP, SCRATCH2);
    pop_return(b);
    emit_ret(e);
    emit_patch32(none, e->shift, emit_here(e));
    find_target(b, c->slow);
    pop_return(b);
    go_to_entry(b);
}

static void emit_space(struct build *b, const struct cold *c)
{
    check_other_generation(b, SCRATCH2, c->resume);
    emit_jmp(&b->e, c->otherwise->code);
}

static void emit_pages(struct build *b, const struct cold *c)
{
    struct emit *e = &b->e;
    emit_mov_imm32(e, SCRATCH1, c->what);
    emit_call(e, b->jit->thunks.pages);
    cold_jump(c->slow, emit_jcc_later(e, CC_E));
    emit_jmp(e, c->resume);
}

/* Instructions that share a lookup, one by one. */
static void emit_run(struct build *b, const struct cold *c)
{
    b->flags = c->flags;
    for (unsigned k = 0; k < c->length; k++) {
        b->i = c->index + k;
        special_single(b);
    }
    if (c->slow) {
        b->i = c->index + c->length;
        lookup_return(b, c->slow);
    }
    emit_jmp(&b->e, c->resume);
}

/* Cold code may have cold code of its own, which is appended. */
void emit_cold(struct build *b)
{
    b->in_cold = true;
    for (unsigned n = 0; n < b->colds; n++) {
        struct cold *c = &b->cold[n];
        profile_mark(b->jit, emit_here(&b->e),
                     c->kind == COLD_SIDE ? b->off[c->index] : (uint16_t)c->off);
        if (c->other)
            emit_other_place(b, c);
        c->code = emit_here(&b->e);
        for (unsigned i = 0; i < c->jumps; i++)
            emit_patch32(c->jump[i], b->e.shift, c->code);
        switch (c->kind) {
        case COLD_SLOW:
            emit_slow(b, c);
            break;
        case COLD_HERE:
            leave_before(b, c->off, b->jit->thunks.exit_here);
            break;
        case COLD_POLL:
            emit_poll(b, c);
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
        case COLD_LAST:
            last_emit_cold(b, c);
            break;
        case COLD_FULL:
            emit_full(b, c);
            break;
        case COLD_RET:
            emit_elsewhere(b, c);
            break;
        case COLD_PAGES:
            emit_pages(b, c);
            break;
        case COLD_SPACE:
            emit_space(b, c);
            break;
        }
    }
}
