/*
 * lockstep.c - -accel lockstep: every region is first run by the interpreter, without effect, and
 * then by translated code; the first difference ends the program with a report.
 *
 * The interpreter's run is guard_collect()'s: its stores are kept back and its loads see them.
 * After each instruction the state is noted, so that wherever the translated code stops, by an
 * edge, in the middle, or by an exception, there is a state to compare with. It ends early before
 * what would have an effect that cannot be taken back (a device, a port), or what is no function of
 * the state (RDTSC): then the rest of the region is not compared. One vCPU only: another one's
 * stores would be differences.
 *
 * Regions are not linked to each other, nor to themselves. Flags that the table calls undefined
 * after their last writer are not compared; what reads them ends the interpreter's run. Where the
 * region changes the page tables that it then depends on, the interpreter goes by the old ones,
 * since its stores are kept back: that is no difference either.
 */
#include "cpu/guard_internal.h"
#include "cpu/interp/execute.h"
#include "cpu/interp/flags.h"
#include "cpu/jit/build.h"
#include "insn_exec.h"
#include "internal/log.h"
#include "internal/phys.h"
#include <stdlib.h>
#include <string.h>

/* ---- States ---------------------------------------------------------------------------------- */

/* Most instructions leave these alone: points share them. */
struct vectors {
    union vreg ymm[16];
    struct x87 x87;
};

/* What follows from privilege: SYSCALL, SYSRET and IRET change it. */
struct privilege {
    struct segment seg[6];
    uint32_t mode, attention;
    uint8_t cpl, priv;
};

struct point {
    uint64_t gpr[16], rip, rflags;
    uint32_t mxcsr;
    struct privilege privilege;
    const struct vectors *vectors;
    unsigned stores;    /* of the guard's, made by then */
    uint32_t undefined; /* flags */
    bool branched;      /* a branch led here: translated code may have left by an edge */
    bool repeats;       /* what comes next does: translated code may have left in its middle */
};

/* What run() must know of a region's instructions. Regions keep their place until the cache is
 * emptied. */
enum { DECODED = 1 << 12 };
struct decoded {
    const struct jit_region *region;
    uint64_t flushes;
    struct {
        const struct insn_row *row;
        uint16_t off;
        uint8_t len;
        bool rep, direct;
    } insn[REGION_MAX_INSNS];
};

struct lockstep {
    struct decoded decoded[DECODED];
    struct point point[REGION_MAX_INSNS + 1];
    unsigned points;
    struct vectors vectors[REGION_MAX_INSNS + 3]; /* of the points, the exception, the translated */
    unsigned vectors_count;
    bool stopped; /* before what could not be run without effect */
    int vector;   /* that it raised; -1: none */
    uint64_t cr2; /* and where, if it was a page fault */
    struct point at_raise;
    const struct jit_region *region;
    uint64_t compared, passed_over;
    enum jit_exit why; /* translated code came back */
};

/* The last ones that were noted, if they are still right. */
static const struct vectors *note_vectors(const struct cpu *cpu)
{
    struct lockstep *l = cpu->jit->lockstep;
    struct vectors *last = &l->vectors[l->vectors_count];
    if (l->vectors_count && !memcmp(last[-1].ymm, cpu->ymm, sizeof last->ymm) &&
        !memcmp(&last[-1].x87, &cpu->x87, sizeof last->x87))
        return last - 1;
    l->vectors_count++;
    memcpy(last->ymm, cpu->ymm, sizeof last->ymm);
    last->x87 = cpu->x87;
    return last;
}

/* Without RF, and what follows from it: jit_gate_iret() does not set it. */
static void note(struct cpu *cpu, struct point *p, uint32_t undefined)
{
    memcpy(p->gpr, cpu->gpr, sizeof p->gpr);
    p->vectors = note_vectors(cpu);
    p->rip = cpu->rip;
    p->rflags = (cpu->rflags & ~(uint64_t)(FLAGS_ARITH | RFLAGS_RF)) | cc_flags(cpu);
    p->mxcsr = cpu->mxcsr;
    memset(&p->privilege, 0, sizeof p->privilege);
    memcpy(p->privilege.seg, cpu->seg, sizeof p->privilege.seg);
    p->privilege.mode = cpu->mode;
    p->privilege.attention = cpu->attention & ~(uint32_t)CPU_REQ_DEBUG;
    p->privilege.cpl = cpu->cpl;
    p->privilege.priv = cpu->priv;
    p->stores = cpu->guard->store_count;
    p->undefined = undefined;
    p->branched = p->repeats = false;
}

/* ---- The interpreter's run ------------------------------------------------------------------- */

static const struct decoded *decode(struct cpu *cpu, const struct jit_region *region)
{
    struct jit *jit = cpu->jit;
    struct decoded *d = &jit->lockstep->decoded[((uintptr_t)region >> 4) % DECODED];
    if (d->region == region && d->flushes == jit->counters.flushes)
        return d;
    d->region = region;
    d->flushes = jit->counters.flushes;
    for (unsigned i = 0; i < region->count; i++) {
        struct insn insn;
        unsigned off = region->piece[i].off;
        insn_decode(region_code(region, off), region->piece[i].len,
                    cpu->mode & MODE_CODE64 ? 64 : 32, false, &cpu->features, &insn);
        d->insn[i].row = insn.row;
        d->insn[i].off = (uint16_t)off;
        d->insn[i].len = insn.len;
        d->insn[i].rep = insn.rep && (insn.row->attr & (INSN_REP | INSN_REPCC));
        d->insn[i].direct = branch_is_direct(branch_of(&insn));
    }
    return d;
}

/* The region's instruction at cpu->rip, where number `from` has led: forwards in the page only, as
 * in build_target(). -1: none. */
static int successor(const struct cpu *cpu, const struct jit_region *region, unsigned from)
{
    uint64_t off = cpu->rip - (cpu->jit->lockstep->point[0].rip & PAGE_MASK);
    if (off >= PAGE_SIZE || off <= region->piece[from].off)
        return -1;
    if (from + 1u < region->count && region->piece[from + 1].off == off)
        return (int)from + 1;
    for (unsigned i = 0; i < region->count; i++)
        if (region->piece[i].off == off)
            return (int)i;
    return -1;
}

/* Those that gates.c does can be taken back, unless somebody counts them. */
static bool is_gate(const struct cpu *cpu, const struct insn_row *row)
{
    const struct jit *jit = cpu->jit;
    bool gate =
        row->exec == EXEC_sys_syscall || row->exec == EXEC_sys_sysret || row->exec == EXEC_sys_iret;
    return gate && jit->rules_users && !*jit->rules_users && !*jit->rules_deferred;
}

static bool is_runnable(const struct cpu *cpu, const struct insn_row *row, bool rep)
{
    const struct guard *g = cpu->guard;
    uint64_t attr = row->attr;
    if (!is_gate(cpu, row) && attr & (INSN_SYSTEM | INSN_CPL0 | INSN_RAND | INSN_SERIAL))
        return false;
    if ((attr & INSN_END) && !(attr & INSN_BRANCH))
        return false;
    uint64_t count = cpu->mode & MODE_CODE64 ? cpu->gpr[RCX] : (uint32_t)cpu->gpr[RCX];
    if (rep && count > 32)
        return false; /* too many stores for the guard */
    return g->noted_count + 64 < GUARD_NOTED && g->store_count + 64 < GUARD_STORES &&
           g->used + 4096 < GUARD_BYTES;
}

/* Does the instruction do one thing or another by a flag that is undefined? Shifts read them all,
 * but only to keep them when they shift by 0. */
static bool depends(const struct insn_row *row, uint32_t undefined)
{
    bool keeps = (row->flags_read & FLAGS_ARITH) == FLAGS_ARITH && row->flags_written;
    return !keeps && (row->flags_read & undefined);
}

static void run(struct cpu *cpu, const void *opaque)
{
    struct lockstep *l = cpu->jit->lockstep;
    const struct jit_region *region = opaque;
    const struct decoded *d = decode(cpu, region);
    uint32_t undefined = 0;
    l->points = l->vectors_count = 0;
    note(cpu, &l->point[l->points++], 0);
    for (int i = 0; i >= 0; i = successor(cpu, region, (unsigned)i)) {
        const struct insn_row *row = d->insn[i].row;
        l->stopped = !is_runnable(cpu, row, d->insn[i].rep) || depends(row, undefined);
        if (l->stopped)
            return;
        l->point[l->points - 1].repeats = d->insn[i].rep;
        uint64_t self = cpu->rip, next = self + d->insn[i].len;
        execute_copied(cpu, region_code(region, d->insn[i].off), d->insn[i].len);
        cpu->rip = cpu->next_rip;
        l->stopped = d->insn[i].rep && cpu->rip == self; /* something wants attention */
        undefined &= ~(uint32_t)row->flags_written | row->flags_read; /* kept, perhaps */
        undefined |= row->flags_undefined & FLAGS_ARITH;
        note(cpu, &l->point[l->points++], undefined);
        l->point[l->points - 1].branched = row->attr & INSN_BRANCH;
        if (!d->insn[i].direct && cpu->rip != (cpu->mode & MODE_CODE64 ? next : (uint32_t)next))
            return;
    }
}

/* ---- Comparing ------------------------------------------------------------------------------- */

static void report_begin(const struct cpu *cpu, const struct lockstep *l)
{
    const struct jit_region *r = l->region;
    uint64_t rip = l->point[0].rip;
    fflush(cpu->log->out);
    static const char *const ways[] = {"edge", "poll", "here", "gate", "C"};
    fprintf(
        stderr,
        "lockstep: the engines differ in the region at %#llx (physical %#llx), left by %s, after "
        "%llu that did not:\n",
        (unsigned long long)rip, (unsigned long long)r->gpa, ways[l->why],
        (unsigned long long)l->compared);
    for (unsigned i = 0; i < r->count; i++) {
        char text[128];
        unsigned off = r->piece[i].off;
        uint64_t at = (rip & PAGE_MASK) + off;
        insn_disassemble(region_code(r, off), r->piece[i].len, cpu->mode & MODE_CODE64 ? 64 : 32,
                         at, text, sizeof text);
        fprintf(stderr, "  %#llx:  %s\n", (unsigned long long)at, text);
    }
}

static void report_value(const char *name, uint64_t before, uint64_t interp, uint64_t jit)
{
    fprintf(stderr, "  %-8s before %016llx  interpreter %016llx  translated %016llx%s\n", name,
            (unsigned long long)before, (unsigned long long)interp, (unsigned long long)jit,
            interp == jit ? "" : "  <--");
}

static _Noreturn void report(struct cpu *cpu, const struct lockstep *l, const struct point *want,
                             const struct point *got)
{
    static const char names[16][4] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                      "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
    const struct point *before = &l->point[0];
    report_begin(cpu, l);
    for (unsigned i = 0; i < 16; i++)
        report_value(names[i], before->gpr[i], want->gpr[i], got->gpr[i]);
    report_value("rip", before->rip, want->rip, got->rip);
    report_value("rflags", before->rflags, want->rflags, got->rflags);
    report_value("mxcsr", before->mxcsr, want->mxcsr, got->mxcsr);
    report_value("cpl", before->privilege.cpl, want->privilege.cpl, got->privilege.cpl);
    report_value("priv", before->privilege.priv, want->privilege.priv, got->privilege.priv);
    report_value("mode", before->privilege.mode, want->privilege.mode, got->privilege.mode);
    report_value("awaits", before->privilege.attention, want->privilege.attention,
                 got->privilege.attention);
    for (unsigned i = SEG_ES; i <= SEG_GS; i++) {
        static const char segments[][3] = {"es", "cs", "ss", "ds", "fs", "gs"};
        const struct segment *b = &before->privilege.seg[i], *w = &want->privilege.seg[i],
                             *g = &got->privilege.seg[i];
        if (memcmp(w, g, sizeof *w)) {
            report_value(segments[i], b->selector, w->selector, g->selector);
            report_value(".base", b->base, w->base, g->base);
            report_value(".limit", b->limit, w->limit, g->limit);
            report_value(".attr", b->attr, w->attr, g->attr);
        }
    }
    for (unsigned i = 0; i < 64; i++) {
        const unsigned n = i / 4, q = i % 4;
        uint64_t w = want->vectors->ymm[n].q[q], g = got->vectors->ymm[n].q[q];
        char name[16];
        snprintf(name, sizeof name, "ymm%u.%u", n, q);
        if (w != g)
            report_value(name, before->vectors->ymm[n].q[q], w, g);
    }
    abort();
}

static bool same_vectors(const struct vectors *a, const struct vectors *b)
{
    return !memcmp(a->ymm, b->ymm, sizeof a->ymm) && !memcmp(&a->x87, &b->x87, sizeof a->x87);
}

static bool same(const struct point *want, const struct point *got)
{
    uint64_t flags = (want->rflags ^ got->rflags) & ~(uint64_t)want->undefined;
    return !memcmp(want->gpr, got->gpr, sizeof want->gpr) && want->rip == got->rip && !flags &&
           want->mxcsr == got->mxcsr &&
           !memcmp(&want->privilege, &got->privilege, sizeof want->privilege) &&
           (want->vectors == got->vectors || same_vectors(want->vectors, got->vectors));
}

/* ---- Page tables that changed ---------------------------------------------------------------- */

/* Do the region's stores reach a table entry by which this address is translated? Asked after they
 * have been made: the topmost entry that they changed is on the way before and after. */
static bool way_was_changed(const struct cpu *cpu, uint64_t gva)
{
    const struct guard *g = cpu->guard;
    const struct access access = {.initiator = INITIATOR_DEBUGGER, .judged = true};
    struct walk walk;
    mmu_walk(cpu->map, &cpu->mmu.paging, &access, gva, ACCESS_READ, MMU_SUPERVISOR, true, &walk);
    for (unsigned i = 0; i < g->store_count; i++)
        for (unsigned n = 0; n < walk.levels; n++)
            if (g->store[i].piece.gpa < walk.level[n].gpa + walk.level[n].size &&
                walk.level[n].gpa < g->store[i].piece.gpa + g->store[i].piece.size)
                return true;
    return false;
}

/* A difference has been found: may it come from that? Then the region is passed over. */
static bool tables_changed(const struct cpu *cpu, struct lockstep *l)
{
    const struct guard *g = cpu->guard;
    bool changed = l->vector == VECTOR_PF && way_was_changed(cpu, l->cr2);
    for (unsigned i = 0; !changed && i < g->noted_count; i++) {
        uint64_t gva = g->noted[i].access.gva;
        changed = way_was_changed(cpu, gva) || way_was_changed(cpu, gva + g->noted[i].size - 1);
    }
    l->passed_over += changed;
    return changed;
}

/* Memory as the interpreter's first `stores` stores would have left it. */
static void compare_memory(struct cpu *cpu, struct lockstep *l, unsigned stores)
{
    struct guard *g = cpu->guard;
    const struct access access = {.initiator = INITIATOR_DEBUGGER, .judged = true};
    unsigned all = g->store_count;
    g->store_count = stores;
    for (unsigned i = 0; i < stores; i++) {
        uint8_t is[256], wanted[256];
        unsigned size = g->store[i].piece.size;
        uint64_t gpa = g->store[i].piece.gpa;
        if (size > sizeof is)
            continue;
        phys_read(cpu->map, &access, gpa, is, size);
        memcpy(wanted, is, size);
        guard_overlay(g, gpa, size, wanted);
        if (!memcmp(is, wanted, size))
            continue;
        g->store_count = all;
        if (tables_changed(cpu, l))
            return;
        report_begin(cpu, l);
        fprintf(stderr, "  %u bytes at physical %#llx (virtual %#llx):\n", size,
                (unsigned long long)gpa, (unsigned long long)g->store[i].access.gva);
        for (unsigned n = 0; n < size; n++)
            fprintf(stderr, "    interpreter %02x  translated %02x\n", wanted[n], is[n]);
        abort();
    }
    g->store_count = all;
}

static void compare(struct cpu *cpu, struct lockstep *l, const struct point *want,
                    const struct point *got)
{
    if (!same(want, got)) {
        if (tables_changed(cpu, l))
            return;
        report(cpu, l, want, got);
    }
    compare_memory(cpu, l, want->stores);
    l->compared++;
}

/* May translated code have come back here? By an edge it has left after the last instruction that
 * the interpreter ran, or after a branch to what comes next anyway, which does not end that run.
 * Else it may be anywhere, but for before an instruction that was not run: REP may have done a part
 * of its work. */
static bool is_end(const struct lockstep *l, unsigned i, enum jit_exit why)
{
    bool last = i == l->points - 1;
    if (why == JIT_EXIT_EDGE || why == JIT_EXIT_GATE)
        return (last && !l->stopped && l->vector < 0) || l->point[i].branched;
    return !last || !l->stopped;
}

/* Translated code has come back at cpu->rip. A loop passes there more than once: it must be like
 * one of these times. */
static void compare_end(struct cpu *cpu, struct lockstep *l, enum jit_exit why)
{
    const struct point *want = NULL;
    struct point got;
    note(cpu, &got, 0);
    for (unsigned i = l->points; i-- > 0;)
        if (l->point[i].rip == cpu->rip && is_end(l, i, why) && (!want || same(&l->point[i], &got)))
            want = &l->point[i];
    if (!want && !l->stopped && l->vector < 0)
        want = &l->point[l->points - 1]; /* it has gone elsewhere */
    if (want && want->repeats && !same(want, &got)) {
        l->passed_over++;
        return;
    }
    bool branched = why == JIT_EXIT_EDGE || why == JIT_EXIT_GATE || why == JIT_EXIT_POLL;
    if (want && (!l->stopped || !branched || same(want, &got))) {
        compare(cpu, l, want, &got);
        return;
    } /* else it has gone on where the interpreter stopped, and come by here again */
    if (l->vector >= 0 && !l->stopped && !tables_changed(cpu, l)) {
        fprintf(stderr, "lockstep: the interpreter raises %d at %#llx, translated code goes on\n",
                l->vector, (unsigned long long)l->at_raise.rip);
        report(cpu, l, &l->at_raise, &l->at_raise);
    }
    l->passed_over++;
}

/* It has raised. */
static void compare_raise(struct cpu *cpu, struct lockstep *l)
{
    bool ours = cpu->exception.vector >= VECTOR_OURS;
    struct point got;
    note(cpu, &got, 0);
    if (l->vector == cpu->exception.vector && l->at_raise.rip == cpu->rip) {
        compare(cpu, l, &l->at_raise, &got);
        return;
    }
    /* An instruction that rules have a say in is begun again under guard: what it has done so far
     * (REP, POPA, gathers) may be undone or not, but memory is as before it. A loop's last point is
     * its first one again, so the first counts. */
    for (unsigned i = 0; i < l->points; i++)
        if (l->point[i].rip == cpu->rip && (ours || (l->stopped && i == l->points - 1))) {
            if (!l->stopped || i != l->points - 1)
                compare_memory(cpu, l, l->point[i].stores);
            return;
        }
    if (l->stopped || ours) {
        l->passed_over++;
        return;
    }
    if (tables_changed(cpu, l))
        return;
    fprintf(stderr, "lockstep: translated code raises %d at %#llx, the interpreter %d\n",
            cpu->exception.vector, (unsigned long long)cpu->rip, l->vector);
    report(cpu, l, &l->point[l->points - 1], &got);
}

/* ---- Both ------------------------------------------------------------------------------------ */

void lockstep_prepare(struct cpu *cpu, const struct jit_region *region)
{
    struct lockstep *l = cpu->jit->lockstep;
    struct guard *g = cpu->guard;
    l->region = region;
    l->stopped = false;
    g->alone = g->dry = true;
    bool raised = guard_collect(cpu, run, region) != 0;
    g->alone = g->dry = false;
    l->vector = raised && cpu->exception.vector < VECTOR_OURS ? cpu->exception.vector : -1;
    l->cr2 = cpu->cr2;
    l->stopped |= raised && l->vector < 0;
    if (raised)
        note(cpu, &l->at_raise, l->point[l->points - 1].undefined);
    guard_restore(cpu);
}

enum jit_exit lockstep_enter(struct cpu *cpu, const void *code)
{
    struct lockstep *l = cpu->jit->lockstep;
    sigjmp_buf here, *outer = cpu->unwind;
    if (sigsetjmp(here, 0)) {
        cpu->unwind = outer;
        compare_raise(cpu, l);
        siglongjmp(*outer, 1);
    }
    cpu->unwind = &here;
    enum jit_exit why = (enum jit_exit)cpu->jit->thunks.enter(cpu, code);
    cpu->unwind = outer;
    return why;
}

void lockstep_compare(struct cpu *cpu, enum jit_exit why)
{
    cpu->jit->lockstep->why = why;
    compare_end(cpu, cpu->jit->lockstep, why);
}

bool lockstep_init(struct jit *jit)
{
    jit->lockstep = calloc(1, sizeof *jit->lockstep);
    return jit->lockstep != NULL;
}
