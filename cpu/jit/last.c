/*
 * last.c - the lookup that looks first at the page that the same register pointed to last
 * (struct view_last, mmu/last.c).
 *
 *     mov   r11, r10                        the linear address
 *     sub   r11, [page]                     offset in the page, when it is that page
 *     cmp   r11, [limit]
 *     jae   cold                            another page, no permission, near the page's end
 *     add   r10, [delta]                    host address; or, with the linear address in R11 only,
 *     mov   r10, [delta]                    what the operand's own register is added to
 *
 * Nothing is loaded from where the address leads, so the host address is known two steps after the
 * linear one instead of ten, or at once: a chain of loads is as fast as the processor's own. The
 * cold code does the lookup in the view, which then is the last page.
 *
 * That pays where the page is mostly the same, as it is for stacks, structures, arrays. Each site
 * (stacks excepted) counts how often it is not. When there have been many, C has a look: it
 * executes the next few accesses itself and counts. Where it is another page too often, the region
 * is made again with the plain lookup there.
 */
#include "cpu/jit/build.h"

enum {
    LAST_SP = 0,  /* near the others that are used most (abi.h); the base registers' numbers */
    LAST_PC = 16, /* behind one for each base register: relative to RIP, by the page's number */
    LAST_PCS = 8,
    LAST_ABSOLUTE = LAST_PC + LAST_PCS, /* no base */
    LAST_FS,                            /* nothing but a segment: a thread's, a processor's data */
    LAST_GS,
    LAST_END
};
_Static_assert((int)LAST_END <= (int)VIEW_LASTS, "there is one for each");

/* Of the access at an offset, whether it is scattered: in each round of a loop for itself, since a
 * register that goes through a page by all of them leaves it by one. */
static bool *mark_of(struct jit *jit, const struct jit_region *region, unsigned off, unsigned round)
{
    return &jit->scattered[jit_mark_index(region_gpa(region, off) + ((uint64_t)round << 32))];
}

/* Outside of loops most accesses are the first to their page for a while; what is there is seldom
 * run often enough to be watched. */
static bool is_promising(const struct build *b)
{
    return b->in_loop[b->i] && !*mark_of(b->jit, b->region, b->off[b->i], build_round(b, b->i));
}

/* The base registers' own numbers, but that the stack pointer's and LAST_SP are exchanged. */
static unsigned of_base(unsigned reg)
{
    return reg == RSP ? LAST_SP : reg == LAST_SP ? RSP : reg;
}

unsigned last_of_register(const struct build *b, unsigned host)
{
    if (b->in_cold)
        return LAST_NONE;
    if (host == HOST_SP)
        return LAST_SP;
    return host != SCRATCH1 && is_promising(b) ? of_base(host) : LAST_NONE;
}

unsigned last_of_operand(const struct build *b)
{
    const struct insn_mem *m = &build_insn(b)->mem;
    if (b->in_cold)
        return LAST_NONE;
    if (m->base == RSP && m->index == REG_NONE)
        return LAST_SP;
    if (m->base == REG_NONE && m->index == REG_NONE && (m->seg == SEG_FS || m->seg == SEG_GS))
        return m->seg == SEG_FS ? LAST_FS : LAST_GS;
    if (!is_promising(b))
        return LAST_NONE;
    if (m->base == REG_PC) {
        uint64_t next = region_gpa(b->region, b->off[b->i]) + build_insn(b)->len;
        uint64_t page = (next + (uint64_t)m->disp) >> PAGE_SHIFT;
        return LAST_PC + ((unsigned)page & (LAST_PCS - 1));
    }
    return m->base == REG_NONE ? LAST_ABSOLUTE : of_base(m->base);
}

/* ---- Code ------------------------------------------------------------------------------------ */

static int32_t member(const struct build *b, unsigned last, size_t offset)
{
    return CPU_LAST(b->cpu->priv, last) + (int32_t)offset;
}

enum { PHASE_COUNTING, PHASE_PROBING, PHASE_SCATTERED };
enum {
    FIRST_ALLOWANCE = 32,
    PROBES = 32,
    PROBES_GOOD = 28, /* of these: else the plain lookup is better */
    ALLOWANCE_GROWS = 8,
    ALLOWANCE_MAX = 1 << 30,
    PATIENCE = 256, /* accesses, in which other sites of the region may be found scattered, too */
};

struct jit_watch {
    int32_t budget; /* how often it may be another page until C has a look */
    uint32_t allowance;
    uint8_t *jump; /* the displacement of the jump that says so (written address) */
    uint8_t last;
    uint8_t phase, probes, hits, size;
    uint8_t round; /* of the loop that the access is in */
};

static void watch(struct build *b, const struct lookup *l, struct cold *c, uint8_t *jump)
{
    if (c->otherwise->kind != COLD_SLOW || l->last == LAST_SP || l->last >= LAST_FS)
        return;
    c->watch = jit_data(b->jit, sizeof *c->watch);
    *c->watch = (struct jit_watch){
        .budget = FIRST_ALLOWANCE,
        .allowance = FIRST_ALLOWANCE,
        .jump = jump,
        .last = (uint8_t)l->last,
        .round = (uint8_t)build_round(b, b->i),
        .size = (uint8_t)(l->size < VIEW_LAST_BYTES ? l->size : VIEW_LAST_BYTES)};
}

void last_lookup(struct build *b, const struct lookup *l, struct cold *otherwise)
{
    struct emit *e = &b->e;
    bool write = l->kind & ACCESS_WRITE;
    struct cold *c = cold_new(b, COLD_LAST);
    c->lookup = *l;
    c->otherwise = otherwise;
    if (!l->relative)
        emit_mov(e, 8, SCRATCH2, SCRATCH1);
    emit_cpu(e, 8, OP_SUB_LOAD, SCRATCH2, member(b, l->last, offsetof(struct view_last, page)));
    emit_cpu(e, 8, OP_CMP_LOAD, SCRATCH2,
             member(b, l->last, offsetof(struct view_last, limit[view_last_size(l->size)][write])));
    uint8_t *jump = emit_jcc_later(e, CC_AE);
    cold_jump(c, jump);
    watch(b, l, c, jump);
    if (l->size > VIEW_LAST_BYTES) {
        emit_ri(e, 4, GRP1_CMP, SCRATCH2, (int32_t)(PAGE_SIZE - l->size));
        cold_jump(c, emit_jcc_later(e, CC_A));
    }
    if (l->aligned) {
        emit_test_byte(e, SCRATCH2, l->aligned - 1);
        cold_jump(otherwise, emit_jcc_later(e, CC_NE));
    }
    if (l->relative)
        c->resume = emit_here(e);
    emit_cpu(e, 8, l->relative ? OP_LOAD : OP_ADD_LOAD, SCRATCH1,
             member(b, l->last, offsetof(struct view_last, delta)));
    if (!l->relative)
        c->resume = emit_here(e);
}

void last_emit_cold(struct build *b, const struct cold *c)
{
    enum { GRP5_DEC = 1 };
    struct emit *e = &b->e;
    const uint8_t *otherwise = c->otherwise->code;
    uint8_t *jump[HASHED_JUMPS];
    b->i = c->index;
    if (c->lookup.relative)
        lookup_relative_linear(b, &c->lookup, SCRATCH1);
    if (c->watch) {
        emit_cpu_store(e, SCRATCH1, CPU_AT(jx.asked));
        emit_rip(e, 4, OP_GRP5, GRP5_DEC, &c->watch->budget);
        uint8_t *good = emit_jcc_later(e, CC_NS);
        emit_rip(e, 8, OP_LEA, SCRATCH1, c->watch);
        emit_cpu_store(e, SCRATCH1, CPU_AT(jx.watch));
        emit_jmp(e, otherwise);
        emit_patch32(good, e->shift, emit_here(e));
    }
    for (unsigned n = lookup_hashed(b, &c->lookup, jump); n-- > 0;)
        emit_patch32(jump[n], e->shift, otherwise);
    bool write = c->lookup.kind & ACCESS_WRITE;
    emit_call(e, b->jit->thunks.last[b->cpu->priv][write][c->lookup.last]);
    emit_jmp(e, c->resume);
}

/* Those of the last page at `at`, for one kind of access. */
static void store_limits(struct emit *e, int32_t at, bool write, bool allowed)
{
    for (enum view_last_size size = 0; size < VIEW_LAST_SIZES; size++) {
        int32_t limit = at + (int32_t)offsetof(struct view_last, limit[size][write]);
        emit_cpu(e, 8, OP_STORE_IMM, 0, limit);
        emit32(e, allowed ? (uint32_t)view_last_limit(size) : 0);
    }
}

/* Called with the view's entry in R11, which allows the access, and the offset in the page in R10.
 * R10 = the host address; the entry's page is the last one. EFLAGS are lost. */
static void make_thunk(struct emit *e, unsigned priv, bool write, unsigned k)
{
    int32_t at = CPU_LAST(priv, k);
    int32_t tags[2] = {offsetof(struct view_entry, tag_read),
                       offsetof(struct view_entry, tag_write)};
    int32_t page = offsetof(struct view_entry, page);
    emit_push(e, RAX);
    emit_rm(e, 8, OP_LOAD, RAX, SCRATCH2, tags[write]);
    emit_cpu_store(e, RAX, at + (int32_t)offsetof(struct view_last, page));
    store_limits(e, at, write, true);
    /* The other kind of access is allowed if its tag is the page's, too. */
    emit_rm(e, 8, OP_CMP_LOAD, RAX, SCRATCH2, tags[!write]);
    uint8_t *only = emit_jcc_later(e, CC_NE);
    store_limits(e, at, !write, true);
    uint8_t *both = emit_jmp_later(e);
    emit_patch32(only, e->shift, emit_here(e));
    store_limits(e, at, !write, false);
    emit_patch32(both, e->shift, emit_here(e));
    emit_rm(e, 8, OP_LOAD, RAX, SCRATCH2, page);
    emit_rr(e, 8, OP_ADD_LOAD, SCRATCH1, RAX);
    emit_rm(e, 8, OP_SUB_LOAD, RAX, SCRATCH2, tags[write]);
    emit_cpu_store(e, RAX, at + (int32_t)offsetof(struct view_last, delta));
    emit_cpu_imm32(e, OP_GRP1_IMM32, GRP1_OR, CPU_AT(mmu.last_used) + 4 * (int32_t)priv, 1u << k);
    emit_pop(e, RAX);
    emit_ret(e);
}

void last_make_thunks(struct jit *jit, struct emit *e)
{
    for (unsigned priv = 0; priv < MMU_PRIVS; priv++)
        for (unsigned write = 0; write < 2; write++)
            for (unsigned k = 0; k < LAST_END; k++) {
                jit->thunks.last[priv][write][k] = emit_here(e);
                make_thunk(e, priv, write, k);
            }
}

/* ---- Watching -------------------------------------------------------------------------------- */

/* The jump of the hot code is taken always (and C has a look each time), or as it should be: JAE
 * and NOP, JMP are as long. */
static void take_always(const struct jit_watch *w, bool on)
{
    static const uint8_t jae[] = {0x0f, 0x83}, nop_jmp[] = {0x90, 0xe9};
    memcpy(w->jump - 2, on ? nop_jmp : jae, 2);
    jit_serialise();
}

static void judge(struct jit *jit, struct jit_watch *w, const struct jit_site *site)
{
    if (w->hits < PROBES_GOOD) {
        w->phase = PHASE_SCATTERED;
        w->budget = PATIENCE;
        *mark_of(jit, site->region, site->off, w->round) = true;
        return;
    }
    take_always(w, false);
    w->phase = PHASE_COUNTING;
    if (w->allowance < ALLOWANCE_MAX)
        w->allowance *= ALLOWANCE_GROWS;
    w->budget = (int32_t)w->allowance;
}

void last_watch(struct jit *jit, struct jit_site *site)
{
    struct cpu *cpu = jit->cpu;
    enum mmu_priv priv = (enum mmu_priv)cpu->priv;
    struct jit_watch *w = cpu->jx.watch;
    cpu->jx.watch = NULL;
    switch (w->phase) {
    case PHASE_COUNTING:
        w->phase = PHASE_PROBING;
        w->probes = w->hits = 0;
        take_always(w, true);
        break;
    case PHASE_PROBING:
        /* Whether the view had it says nothing: pages that push one another out of it soon do not,
         * when it grows. */
        if (mmu_last_matches(&cpu->mmu, priv, w->last, cpu->jx.asked, w->size))
            w->hits++;
        else
            mmu_last_fill(&cpu->mmu, priv, w->last, cpu->jx.asked);
        if (++w->probes == PROBES || w->probes - w->hits > PROBES - PROBES_GOOD)
            judge(jit, w, site);
        break;
    default:
        jit_make_stale(jit, site->region);
    }
}
