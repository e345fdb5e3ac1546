/*
 * run.c - the engine's loop: find or make a region, run it, see why it came back; and what C does
 * for a site.
 *
 * Cold code is interpreted, block by block; what is met again is translated. Between
 * regions all state is in struct cpu, as for the interpreter: so the two take turns at any
 * instruction.
 */
#include "cpu/interp/block.h"
#include "cpu/interp/execute.h"
#include "cpu/interp/flags.h"
#include "cpu/interp/vec.h"
#include "cpu/jit/profile.h"
#include "cpu/mem_internal.h"
#include "cpu/move.h"
#include "cpu/opnd.h"
#include "internal/log.h"
#include <math.h>

/* ---- State in and out ------------------------------------------------------------------------ */

static void unpack_flags(struct cpu *cpu)
{
    cpu_set_arith(cpu, jit_unpack_flags(cpu->jx.flags));
}

static uint64_t flags_operand(const struct cpu *cpu, unsigned reg)
{
    if (reg >= REG_VECTOR)
        return cpu->ymm[reg - REG_VECTOR].q[0];
    return reg == REG_KEPT ? cpu->jx.kept : cpu->gpr[reg];
}

static double floating(uint64_t bits, unsigned size, bool denormals_are_zero)
{
    double wide;
    float narrow;
    memcpy(&narrow, &bits, sizeof narrow);
    memcpy(&wide, &bits, sizeof wide);
    int class = size == 4 ? fpclassify(narrow) : fpclassify(wide);
    return class == FP_SUBNORMAL && denormals_are_zero ? 0 : size == 4 ? (double)narrow : wide;
}

/* SDM vol. 2, UCOMISD: OF, SF and AF are 0. */
static uint32_t compare(uint64_t a, uint64_t b, unsigned size, bool denormals_are_zero)
{
    double x = floating(a, size, denormals_are_zero), y = floating(b, size, denormals_are_zero);
    return isunordered(x, y) ? FLAG_ZF | FLAG_PF | FLAG_CF : x < y ? FLAG_CF : x == y ? FLAG_ZF : 0;
}

static void describe_flags(struct cpu *cpu, const struct flags_desc *d)
{
    if (d->from == FLAGS_MEMORY || (d->either && cpu->jx.flags >> 8 != FLAGS_ELSEWHERE)) {
        unpack_flags(cpu);
        return;
    }
    uint64_t a = cc_trunc(flags_operand(cpu, d->a), d->size);
    uint64_t b =
        cc_trunc(d->b == REG_NONE ? (uint64_t)(int64_t)d->imm : flags_operand(cpu, d->b), d->size);
    switch (d->from) {
    case FLAGS_ADD:
        cc_set(cpu, CC_ADD, d->size, a, b);
        break;
    case FLAGS_SUB:
        cc_set(cpu, CC_SUB, d->size, a, b);
        break;
    case FLAGS_CMP:
        cc_set(cpu, CC_SUB, d->size, cc_trunc(a - b, d->size), b);
        break;
    case FLAGS_LOGIC:
        cc_set(cpu, CC_LOGIC, d->size, a, 0);
        break;
    case FLAGS_TEST:
        cc_set(cpu, CC_LOGIC, d->size, a & b, 0);
        break;
    case FLAGS_UCOMI:
        cpu_set_arith(cpu, compare(a, b, d->size, cpu->jx.mxcsr & MXCSR_DAZ));
        break;
    default:
        break;
    }
}

/* MXCSR is in cpu->jx.mxcsr on the ways in and out: thunk.c moves it where vectors are used. */
static void mxcsr_in(struct cpu *cpu)
{
    cpu->jx.mxcsr = jit_mode(cpu) & JIT_MODE_MASKED ? cpu->mxcsr : MXCSR_INIT;
}

static void mxcsr_out(struct cpu *cpu)
{
    if (jit_mode(cpu) & JIT_MODE_MASKED)
        cpu->mxcsr = cpu->jx.mxcsr;
}

/* ---- Finding --------------------------------------------------------------------------------- */

/* What the translator takes: 64-bit and flat 32-bit code. */
static bool eligible(const struct cpu *cpu)
{
    const uint32_t flat32 = MODE_CODE32 | MODE_FLAT | MODE_STACK32 | MODE_PROT;
    if ((cpu->mode & MODE_ALIGN) || LOG_ON(cpu->log, LOG_EXEC | LOG_CPU))
        return false;
    if (cpu->cpl == 1 || cpu->cpl == 2) /* so that MODE_USER tells the privilege (system.c) */
        return false;
    return (cpu->mode & MODE_CODE64) || (cpu->mode & flat32) == flat32;
}

static bool is_hot(struct jit *jit, struct jit_place *place)
{
    if (place->heat < jit->hot) {
        place->heat++;
        jit->counters.cold++;
        return false;
    }
    return true;
}

/* The page behind cpu->rip's, as instruction fetches find it. Raises what they raise. False: not
 * for translated code. */
static bool page_behind(struct cpu *cpu, struct mmu_xlat *x)
{
    mem_fetch_page(cpu, jit_wrap(cpu, (cpu->rip & PAGE_MASK) + PAGE_SIZE), x);
    return !x->ruled && x->hva;
}

/* Stands for the region in the frame of its last bytes. */
static void add_tail(struct jit *jit, struct jit_region *region, uint64_t gpa)
{
    region->tail = jit_data(jit, sizeof *region->tail);
    *region->tail = (struct jit_region){.gpa = gpa,
                                        .len = (uint16_t)(region->lo + region->len - PAGE_SIZE),
                                        .mode = region->mode,
                                        .head = region};
    mmu_code_added(&jit->cpu->mmu, gpa, region->tail->len);
}

/* The bytes in the page, and behind it, are still those that were translated. */
static bool same_bytes(const struct jit_region *region, const uint8_t *page, const uint8_t *behind)
{
    const struct jit_piece *p = region->piece, *end = (const struct jit_piece *)region->bytes;
    const uint8_t *bytes = region->bytes;
    while (p < end) {
        uint8_t again[REGION_MAX_INSNS * INSN_MAX_BYTES];
        unsigned off = p->off, len = 0;
        for (; p < end && p->off == off + len; p++) /* side by side in both */
            len += p->len;
        read_code(again, page, behind, off, len);
        if (memcmp(bytes, again, len))
            return false;
        bytes += len;
    }
    return true;
}

/* As build() of cpu/interp/block.c: the MMU hears of the code before its bytes count. NULL: not
 * now. */
static struct jit_region *make(struct jit *jit, const struct mmu_xlat *x)
{
    struct cpu *cpu = jit->cpu;
    struct mmu_xlat behind = {.gpa = 0};
    bool more;
    const uint8_t *page = (const uint8_t *)x->hva - (x->gpa & ~PAGE_MASK);
    struct jit_region *region = jit_translate(jit, x->gpa, page, NULL, &more);
    if (!region && more && page_behind(cpu, &behind))
        region = jit_translate(jit, x->gpa, page, behind.hva, &more);
    if (!region) {
        jit_place_add(jit, x->gpa)->heat = 0; /* do not try each time */
        return NULL;
    }
    unsigned here =
        region->lo + region->len > (int)PAGE_SIZE ? PAGE_SIZE - region->lo : region->len;
    mmu_code_added(&cpu->mmu, (x->gpa & PAGE_MASK) + region->lo, here);
    if (here < region->len)
        add_tail(jit, region, behind.gpa);
    if (!same_bytes(region, page, behind.hva) ||
        jit_place_region(jit, jit_place_add(jit, x->gpa), region->mode))
        return NULL; /* it changed meanwhile; the memory is not missed */
    if (jit_outreaches(jit, region))
        return NULL;
    jit_insert(jit, region);
    return region;
}

/* What is found for an address holds as long as this number is the MMU's. */
static uint64_t generation_of(const struct cpu *cpu, const struct mmu_xlat *x)
{
    return x->global ? cpu->mmu.global_generation : cpu->mmu.exec_generation;
}

/* The region at cpu->rip, made now if it is hot. Raises what fetching raises. NULL: interpret. */
static const struct jit_region *find_slowly(struct cpu *cpu, const struct jit_region *region,
                                            uint64_t *generation)
{
    struct jit *jit = cpu->jit;
    struct mmu_xlat x;
    jit_sweep(jit);
    unsigned avail = mem_fetch_page(cpu, cpu->rip, &x);
    if (x.ruled || !x.hva)
        return NULL;
    if (!region || region->gpa != x.gpa || region->stale) {
        jit_make_room(jit);
        struct jit_place *place = jit_place_add(jit, x.gpa);
        if (!is_hot(jit, place)) { /* so there is none */
            jit->cold_code = LOG_ON(cpu->log, LOG_IN_ASM) ? NULL : x.hva;
            jit->cold_avail = avail;
            return NULL;
        }
        region = jit_place_region(jit, place, jit_mode(cpu));
    }
    if (!region) {
        profile_translation(jit, true);
        region = make(jit, &x);
        profile_translation(jit, false);
        if (!region)
            return NULL;
        /* Telling the MMU of the code may have waited for another vCPU, and that forbidden it. */
        mem_fetch_page(cpu, cpu->rip, &x);
        if (x.ruled || !x.hva || x.gpa != region->gpa)
            return NULL;
    }
    if (!jit_may_run(region, cpu->rip))
        return NULL;
    *generation = generation_of(cpu, &x);
    if (region->tail) {
        struct mmu_xlat behind;
        if (!page_behind(cpu, &behind) || behind.gpa != region->tail->gpa)
            return NULL;
        if (!behind.global)
            *generation = cpu->mmu.exec_generation;
        region->cross->va = cpu->rip & PAGE_MASK;
        region->cross->generation = *generation;
    }
    /* Emptying the cache has taken the table away from the mode, with all that it says: the region
     * must not look there. In lockstep every branch comes back. */
    struct jit_pcs *pcs = jit_pcs_for(jit, jit_mode(cpu));
    cpu->jx.pcs = pcs;
    if (!jit->lockstep)
        jit_pc_insert(cpu, pcs, &(struct jit_pc){cpu->rip, *generation, region->entry, region});
    return region;
}

/* The edge by which the last region was left, to be linked to what is found. */
struct pending {
    struct jit_edge *edge;
    uint64_t va, flushes;
    bool here; /* it was left because C has to execute what comes next */
};

static void link_edge(struct cpu *cpu, const struct pending *p, const struct jit_region *to,
                      uint64_t generation)
{
    struct jit *jit = cpu->jit;
    struct jit_edge *edge = p->edge;
    if (!edge || jit->lockstep || p->flushes != jit->counters.flushes || edge->region->stale ||
        edge->region->mode != to->mode)
        return;
    if (edge->patch) {
        if (edge->region->frame == to->frame)
            jit_link(jit, edge, to);
        return;
    }
    jit_remember(edge, p->va, generation, to);
}

/* Where cpu->rip goes on in translated code. Raises what fetching raises. NULL: interpret. */
static const void *find(struct cpu *cpu, const struct pending *pending)
{
    struct jit *jit = cpu->jit;
    if (!eligible(cpu))
        return NULL;
    struct jit_pcs *pcs = jit_pcs_for(jit, jit_mode(cpu));
    cpu->jx.pcs = pcs;
    const struct jit_region *known = NULL;
    if (!pending || !pending->edge || !pending->edge->patch) { /* in its page an edge is new */
        const struct jit_pc *slot = jit_pc_find(cpu, pcs, cpu->rip);
        if (slot->pc == cpu->rip)
            known = slot->region;
        if (known && !jit->lockstep && jit_is_current(cpu, slot->generation) && !known->stale &&
            !(pending && pending->edge))
            return slot->code;
    }
    uint64_t generation;
    const struct jit_region *region = find_slowly(cpu, known, &generation);
    if (!region)
        return NULL;
    if (pending)
        link_edge(cpu, pending, region, generation);
    if (jit->lockstep)
        lockstep_prepare(cpu, region);
    return region->entry;
}

/* What translated code wants to find in struct cpu when it is entered at cpu->rip. */
static void prepare_entry(struct cpu *cpu)
{
    cpu->jx.page_va = cpu->rip & PAGE_MASK;
    cpu->jx.flags = jit_pack_flags(cpu_rflags(cpu));
    mxcsr_in(cpu);
}

/* ---- Sites ----------------------------------------------------------------------------------- */

/* The instruction as execute_insn() wants it, kept for the next time where there is room. */
static const struct jit_ready *ready_at(struct cpu *cpu, struct jit_site *site)
{
    struct jit *jit = cpu->jit;
    const struct jit_region *region = site->region;
    if (site->ready)
        return site->ready;
    if (jit->data_used + sizeof *site->ready > jit->data_size)
        return NULL;
    struct jit_ready *ready = jit_data(jit, sizeof *ready);
    execute_prepare(cpu, region_code(region, site->off), site->len, &ready->insn, &ready->prepared);
    /* In lockstep rules abandon an instruction: the interpreter's run knows no verdicts. */
    ready->move = move_is_plain(&ready->insn) && !jit->lockstep;
    return site->ready = ready;
}

static void execute_at(struct cpu *cpu, struct jit_site *site)
{
    const struct jit_region *region = site->region;
    const struct jit_ready *ready = ready_at(cpu, site);
    if (ready && ready->move)
        move_execute(cpu, &ready->insn);
    else if (ready)
        execute_insn(cpu, &ready->insn, ready->prepared);
    else
        execute_copied(cpu, region_code(region, site->off), site->len);
}

/* The instruction at the site has led elsewhere, or to another mode or mapping: where on from
 * there, without a way out and in. In lockstep every region comes back. */
static const void *go_on(struct cpu *cpu)
{
    if (cpu->jit->lockstep)
        return NULL;
    const void *code = find(cpu, NULL);
    if (code) {
        prepare_entry(cpu);
        cpu->jit->counters.enters++;
    } else {
        cpu->jit->interpret = true;
    }
    return code;
}

/* What a site that switches has led to is not asked about again: so it has to be in the site's own
 * frame. The page may have become another one meanwhile, and the guest not have told the TLB. */
static void remember_switch(const struct cpu *cpu, struct jit_site *site, const void *code)
{
    const struct jit_pc *slot = jit_pc_find(cpu, cpu->jx.pcs, cpu->rip);
    if (code && slot->region->frame == site->region->frame)
        *site_switch(site) = (struct jit_switch){code, cpu->jx.pcs};
}

/* C goes on with the next site at once, since going back and forth takes longer than most
 * instructions: what its code would return to is behind that one's call. In the guest's code there
 * may be something in between that needs no code. */
static struct jit_site *next_in_chain(struct cpu *cpu, struct jit_site *site)
{
    cpu->rip = jit_wrap(cpu, cpu->jx.page_va + site[1].off);
    *(uint64_t *)(cpu->jx.sp - 8) += SITE_CALL_BYTES;
    return site + 1;
}

/* What execute_at() does, for an instruction whose operand in memory is then in jx.kept: it is read
 * once, for both, and so has to be RAM. False: nothing done. */
static bool execute_keeping(struct cpu *cpu, struct jit_site *site)
{
    const struct jit_ready *ready = ready_at(cpu, site);
    if (!ready || cpu->jit->lockstep)
        return false;
    const struct insn *insn = &ready->insn;
    const struct opnd *mem = &insn->op[insn->op[0].kind == OPND_MEM ? 0 : 1];
    const struct flags_desc d = flags_describe(insn, true);
    enum mmu_priv priv = (enum mmu_priv)cpu->priv;
    struct access access = mem_access(cpu, priv);
    struct mmu_xlat x;
    uint64_t lin = access.gva = mem_operand(cpu, insn, mem->size, ACCESS_READ), kept = 0;
    if (d.from == FLAGS_MEMORY || !is_canonical(lin) ||
        mmu_translate(&cpu->mmu, &access, lin, ACCESS_READ, priv, &x) != MMU_OK)
        return false;
    const void *host = mem_hit(cpu, lin, mem->size, ACCESS_READ);
    if (!host)
        return false;
    mem_host_read(&kept, host, mem->size);
    cpu->jx.kept = kept;
    if (d.from == FLAGS_ADD || d.from == FLAGS_SUB) {
        uint64_t to = opnd_read(cpu, insn, 0);
        opnd_write(cpu, insn, 0, d.from == FLAGS_ADD ? to + kept : to - kept);
    }
    describe_flags(cpu, &d);
    cpu->next_rip = jit_wrap(cpu, cpu->rip + site->len);
    return true;
}

const void *jit_slow(struct cpu *cpu, uint32_t site_offset)
{
    struct jit *jit = cpu->jit;
    struct jit_site *site = (struct jit_site *)(jit->data + site_offset);
    const struct jit_region *region = site->region;
    uint64_t generation = cpu->mmu.exec_generation, global = cpu->mmu.global_generation,
             taken = cpu->mmu.taken;
    uint32_t mode = region->mode;
    jit_x87_settle(cpu);
    cpu->rip = jit_wrap(cpu, cpu->jx.page_va + site->off);
    describe_flags(cpu, &site->flags);
    mxcsr_out(cpu);
    if (cpu->jx.watch)
        last_watch(jit, site);
    bool asked, leaves, kept = false;
    for (;;) {
        uint64_t next = jit_wrap(cpu, cpu->rip + site->len);
        jit->counters.slow++;
        profile_site(jit, site);
        kept = site->keeps && execute_keeping(cpu, site);
        if (!kept)
            execute_at(cpu, site);
        cpu->rip = cpu->next_rip;
        asked = interp_attention(cpu);
        /* held_again() also counts how often a group fails, for sites that leave in any case, too.
         */
        leaves = asked || cpu->rip != next || region->stale ||
                 generation != cpu->mmu.exec_generation || global != cpu->mmu.global_generation ||
                 jit_mode(cpu) != mode || (site->holds && taken != cpu->mmu.taken) ||
                 (site->group >= 0 && !held_again(jit, site)) || site->branch ||
                 (site->keeps && !kept);
        profile_site_over(jit, leaves);
        if (leaves || !site->chained)
            break;
        site = next_in_chain(cpu, site);
    }
    if (asked)
        return NULL;
    if (leaves) {
        uint64_t flushes = jit->counters.flushes; /* then the site is gone */
        const void *code = go_on(cpu);
        if (flushes != jit->counters.flushes || generation != cpu->mmu.exec_generation ||
            global != cpu->mmu.global_generation || jit_mode(cpu) != mode)
            cpu->jx.sp = cpu->jx.stack;
        if (flushes == jit->counters.flushes && site->switches)
            remember_switch(cpu, site, code);
        return code;
    }
    cpu->jx.flags = jit_pack_flags(cpu_rflags(cpu));
    mxcsr_in(cpu);
    return JIT_BACK;
}

/* ---- The loop -------------------------------------------------------------------------------- */

/* Brings the state that the code's way out has left into struct cpu. */
static void leave(struct cpu *cpu, enum jit_exit why, struct pending *pending)
{
    profile_exit(cpu->jit, why);
    jit_x87_settle(cpu);
    if (why == JIT_EXIT_LEFT) {
        pending->here = cpu->jit->interpret;
        cpu->jit->interpret = false;
        return;
    }
    unpack_flags(cpu);
    mxcsr_out(cpu);
    if (why == JIT_EXIT_GATE)
        return;
    if (why != JIT_EXIT_EDGE) {
        pending->here = why == JIT_EXIT_HERE;
        cpu->rip = jit_wrap(cpu, cpu->jx.page_va + (uint64_t)(int32_t)cpu->jx.exit_off);
        return;
    }
    struct jit_edge *edge = cpu->jx.edge;
    cpu->rip = jit_wrap(cpu, cpu->jx.page_va + (uint64_t)(int64_t)edge->target);
    *pending = (struct pending){edge, cpu->jx.page_va, cpu->jit->counters.flushes, false};
}

/* Runs translated code from `code` on; brings cpu->rip to where it ended. */
static void enter(struct cpu *cpu, const void *code, struct pending *pending)
{
    struct jit *jit = cpu->jit;
    *pending = (struct pending){0};
    prepare_entry(cpu);
    jit->counters.enters++;
    if (jit->lockstep) {
        enum jit_exit why = lockstep_enter(cpu, code);
        leave(cpu, why, pending);
        lockstep_compare(cpu, why);
    } else {
        leave(cpu, (enum jit_exit)jit->thunks.enter(cpu, code), pending);
    }
}

/* Nothing wants attention, and translated code will hear of it when something does. */
static bool attends(struct cpu *cpu)
{
    if (atomic_load(&cpu->jx.kick))
        atomic_store(&cpu->jx.kick, 0); /* before the requests are looked at */
    return !interp_attention(cpu);
}

static void interpret(struct cpu *cpu)
{
    struct jit *jit = cpu->jit;
    const uint8_t *code = jit->cold_code;
    profile_phase(jit, PHASE_INTERPRETER);
    jit->cold_code = NULL;
    if (code)
        execute_once(cpu, code, jit->cold_avail);
    else
        interp_block(cpu);
    profile_phase(jit, PHASE_LOOP);
}

void jit_run(struct cpu *cpu)
{
    struct pending pending = {0};
    profile_run(cpu->jit);
    cpu->blocks->single = false; /* REP instructions are run whole */
    cpu->jit->cold_code = NULL;
    while (attends(cpu) && cpu->activity == CPU_RUNNING) {
        const void *code = pending.here ? NULL : find(cpu, &pending);
        if (code) {
            enter(cpu, code, &pending);
        } else {
            interpret(cpu);
            pending = (struct pending){0};
        }
    }
    profile_phase(cpu->jit, PHASE_OTHER);
    cpu->next_rip = cpu->rip;
}
