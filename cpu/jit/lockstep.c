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
 * after their last writer are not compared. Where the region changes the page tables that it then
 * depends on, the interpreter goes by the old ones, since its stores are kept back: that is no
 * difference either.
 */
#include "cpu/guard_internal.h"
#include "cpu/interp/execute.h"
#include "cpu/interp/flags.h"
#include "cpu/jit/jit.h"
#include "internal/log.h"
#include "internal/phys.h"
#include <stdlib.h>
#include <string.h>

/* ---- States ---------------------------------------------------------------------------------- */

struct point {
    uint64_t gpr[16], rip, rflags;
    uint32_t mxcsr;
    union vreg ymm[16];
    struct x87 x87;
    unsigned stores;    /* of the guard's, made by then */
    uint32_t undefined; /* flags */
    bool branched;      /* a branch led here: translated code may have left by an edge */
};

struct lockstep {
    struct point point[REGION_MAX_INSNS + 1];
    unsigned points;
    bool stopped; /* before what could not be run without effect */
    int vector;   /* that it raised; -1: none */
    uint64_t cr2; /* and where, if it was a page fault */
    struct point at_raise;
    const struct jit_region *region;
    uint64_t compared, passed_over;
    enum jit_exit why; /* translated code came back */
};

static void note(struct cpu *cpu, struct point *p, uint32_t undefined)
{
    memcpy(p->gpr, cpu->gpr, sizeof p->gpr);
    memcpy(p->ymm, cpu->ymm, sizeof p->ymm);
    p->rip = cpu->rip;
    p->rflags = (cpu->rflags & ~(uint64_t)FLAGS_ARITH) | cc_flags(cpu);
    p->mxcsr = cpu->mxcsr;
    p->x87 = cpu->x87;
    p->stores = cpu->guard->store_count;
    p->undefined = undefined;
    p->branched = false;
}

/* ---- The interpreter's run ------------------------------------------------------------------- */

static bool is_runnable(const struct cpu *cpu, const struct insn *insn)
{
    const uint32_t attr = insn->row->attr;
    const struct guard *g = cpu->guard;
    if (attr & (INSN_SYSTEM | INSN_CPL0 | INSN_RAND | INSN_SERIAL))
        return false;
    if ((attr & INSN_END) && !(attr & INSN_BRANCH))
        return false;
    if (insn->rep && (attr & (INSN_REP | INSN_REPCC)))
        return false; /* too many stores for the guard */
    return g->noted_count + 64 < GUARD_NOTED && g->store_count + 64 < GUARD_STORES &&
           g->used + 4096 < GUARD_BYTES;
}

static void run(struct cpu *cpu, const void *opaque)
{
    struct lockstep *l = cpu->jit->lockstep;
    const struct jit_region *region = opaque;
    unsigned off = 0;
    uint32_t undefined = 0;
    l->points = 0;
    note(cpu, &l->point[l->points++], 0);
    for (unsigned i = 0; i < region->count; i++) {
        struct insn insn;
        insn_decode(region->bytes + off, region->len - off, cpu->mode & MODE_CODE64 ? 64 : 32,
                    false, &cpu->features, &insn);
        l->stopped = !is_runnable(cpu, &insn);
        if (l->stopped)
            return;
        uint64_t next = cpu->rip + insn.len;
        execute_copied(cpu, insn.bytes, insn.len);
        cpu->rip = cpu->next_rip;
        undefined &= ~(uint32_t)insn.row->flags_written;
        undefined |= insn.row->flags_undefined & FLAGS_ARITH;
        note(cpu, &l->point[l->points++], undefined);
        l->point[l->points - 1].branched = insn.row->attr & INSN_BRANCH;
        if (cpu->rip != (insn.code == 64 ? next : (uint32_t)next))
            return;
        off += insn.len;
    }
}

/* ---- Comparing ------------------------------------------------------------------------------- */

static void report_begin(const struct cpu *cpu, const struct lockstep *l)
{
    const struct jit_region *r = l->region;
    uint64_t rip = l->point[0].rip;
    fflush(cpu->log->out);
    static const char *const ways[] = {"edge", "poll", "here", "C"};
    fprintf(
        stderr,
        "lockstep: the engines differ in the region at %#llx (physical %#llx), left by %s, after "
        "%llu that did not:\n",
        (unsigned long long)rip, (unsigned long long)r->gpa, ways[l->why],
        (unsigned long long)l->compared);
    for (unsigned off = 0; off < r->len;) {
        char text[128];
        unsigned n =
            insn_disassemble(r->bytes + off, r->len - off, cpu->mode & MODE_CODE64 ? 64 : 32,
                             rip + off, text, sizeof text);
        fprintf(stderr, "  %#llx:  %s\n", (unsigned long long)(rip + off), text);
        off += n ? n : 1;
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
    for (unsigned i = 0; i < 64; i++)
        if (want->ymm[i / 4].q[i % 4] != got->ymm[i / 4].q[i % 4]) {
            char name[16];
            snprintf(name, sizeof name, "ymm%u.%u", i / 4, i % 4);
            report_value(name, before->ymm[i / 4].q[i % 4], want->ymm[i / 4].q[i % 4],
                         got->ymm[i / 4].q[i % 4]);
        }
    abort();
}

static bool same(const struct point *want, const struct point *got)
{
    uint64_t flags = (want->rflags ^ got->rflags) & ~(uint64_t)want->undefined;
    return !memcmp(want->gpr, got->gpr, sizeof want->gpr) && want->rip == got->rip && !flags &&
           want->mxcsr == got->mxcsr && !memcmp(want->ymm, got->ymm, sizeof want->ymm) &&
           !memcmp(&want->x87, &got->x87, sizeof want->x87);
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

static void compare(struct cpu *cpu, struct lockstep *l, const struct point *want)
{
    struct point got;
    note(cpu, &got, 0);
    if (!same(want, &got)) {
        if (tables_changed(cpu, l))
            return;
        report(cpu, l, want, &got);
    }
    compare_memory(cpu, l, want->stores);
    l->compared++;
}

/* The point at cpu->rip, of the first `count`; for an edge, of those behind a branch and, when the
 * interpreter came to the end, the last. A branch back into the region makes it two with one rip:
 * then the one that is right, if one is. NULL: there is none. */
static const struct point *point_here(struct cpu *cpu, const struct lockstep *l, unsigned count,
                                      bool edge)
{
    const struct point *found = NULL;
    bool through = !l->stopped && l->vector < 0;
    struct point got;
    note(cpu, &got, 0);
    for (unsigned i = 0; i < count; i++) {
        const struct point *p = &l->point[i];
        if (p->rip != cpu->rip || (edge && !p->branched && !(through && i == l->points - 1)))
            continue;
        found = p;
        if (same(p, &got))
            break;
    }
    return found;
}

/* Translated code has come back at cpu->rip. The last point of a run that stopped is before what
 * the interpreter did not run: a REP instruction may have done a part of its work there. A branch
 * to what comes next anyway ends the translated region, not the interpreter's run. */
static void compare_end(struct cpu *cpu, struct lockstep *l, enum jit_exit why)
{
    bool edge = why == JIT_EXIT_EDGE, through = !l->stopped && l->vector < 0;
    const struct point *here = point_here(cpu, l, l->points - (l->stopped && !edge), edge);
    if (!here && edge && through)
        here = &l->point[l->points - 1]; /* another way than the interpreter's */
    if (here) {
        compare(cpu, l, here);
        return;
    }
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
    if (l->vector == cpu->exception.vector && l->at_raise.rip == cpu->rip) {
        compare(cpu, l, &l->at_raise);
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
    struct point got;
    note(cpu, &got, 0);
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
