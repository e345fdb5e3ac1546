/*
 * verdict.c - what becomes of an instruction that touches protected memory: the loop around
 * guard.c's collecting and committing (guard.h).
 */
#include "cpu/guard_internal.h"
#include "cpu/mem_internal.h"
#include "cpu/sys/internal.h"
#include "cpu/upcall.h"
#include "internal/exclusive.h"
#include <string.h>

enum { PF_PRESENT = 1 << 0, PF_WRITE = 1 << 1, PF_USER = 1 << 2, PF_FETCH = 1 << 4 };

/* ---- Other vCPUs
 * --------------------------------------------------------------------------------- */

static void begin_alone(struct cpu *cpu)
{
    if (cpu->exclusive)
        exclusive_begin(cpu->exclusive, cpu->index);
    cpu->guard->alone = true;
}

static void end_alone(struct cpu *cpu)
{
    if (!cpu->guard->alone)
        return;
    cpu->guard->alone = false;
    if (cpu->exclusive)
        exclusive_end(cpu->exclusive, cpu->index);
}

/* ---- Refusals
 * ------------------------------------------------------------------------------------ */

_Noreturn void guard_refuse(struct cpu *cpu, const struct guard_refusal *how)
{
    if (how->fault == PROTECT_FAULT_GENERAL)
        cpu_raise_error(cpu, VECTOR_GP, 0);
    uint32_t code = PF_PRESENT | 1u << how->marker;
    if (how->kind & ACCESS_WRITE)
        code |= PF_WRITE;
    if (how->kind & ACCESS_EXEC)
        code |= PF_FETCH;
    if (how->user)
        code |= PF_USER;
    cpu_raise_page_fault(cpu, how->gva, code);
}

static struct guard_refusal refusal_of(const struct noted *n, const struct rules_verdict *v)
{
    return (struct guard_refusal){.gva = v->gva,
                                  .fault = v->fault,
                                  .marker = v->marker,
                                  .kind = n->kind,
                                  .user = n->priv == MMU_USER};
}

/* ---- Passes
 * -------------------------------------------------------------------------------------- */

static const struct guard_pass *find_pass(const struct guard *g, const struct noted *n)
{
    for (unsigned i = 0; i < g->passes.count; i++) {
        const struct guard_pass *p = &g->passes.pass[i];
        if (p->lin == n->access.gva && p->size == n->size && p->kind == n->kind)
            return p;
    }
    return NULL;
}

/* Without room the access is judged again, and told again. */
static void add_pass(struct guard *g, const struct noted *n, enum guard_mode mode, unsigned context,
                     uint64_t value)
{
    if (g->passes.count < GUARD_PASSES)
        g->passes.pass[g->passes.count++] = (struct guard_pass){.lin = n->access.gva,
                                                                .size = n->size,
                                                                .context = (uint16_t)context,
                                                                .kind = n->kind,
                                                                .mode = (uint8_t)mode,
                                                                .value = value};
}

/* ---- Judging
 * ------------------------------------------------------------------------------------- */

enum course {
    GO_ON,     /* to the next access */
    RUN_AGAIN, /* with what the passes say now */
    REFUSE,
    ASK_PROGRAM,
    ASK_OUTSIDE,
};

/* The bytes that the access reads, or leaves behind. */
static const void *value_of(struct cpu *cpu, const struct noted *n, uint8_t *buf)
{
    static const struct access own = {.initiator = INITIATOR_DEBUGGER, .judged = true};
    const struct guard *g = cpu->guard;
    unsigned done = 0;
    for (unsigned i = 0; i < n->pieces; i++) {
        const struct guard_piece *p = &n->piece[i];
        phys_read(cpu->map, &own, p->gpa, buf + done, p->size);
        for (unsigned s = 0; n->kind & ACCESS_WRITE && s < g->store_count; s++) {
            const struct guard_piece *w = &g->store[s].piece;
            uint64_t lo = p->gpa > w->gpa ? p->gpa : w->gpa;
            uint64_t end = p->gpa + p->size, w_end = w->gpa + w->size;
            uint64_t hi = end < w_end ? end : w_end;
            if (lo < hi)
                memcpy(buf + done + (lo - p->gpa), g->bytes + g->store[s].at + (lo - w->gpa),
                       hi - lo);
        }
        done += p->size;
    }
    return buf;
}

static bool objected_to(struct cpu *cpu, const struct noted *n)
{
    for (unsigned i = 0; i < n->pieces; i++)
        if (rules_touches(phys_rules(cpu->map), &n->access, n->piece[i].gpa, n->piece[i].size,
                          n->kind))
            return true;
    return false;
}

/* Handlers run 64-bit code, outside event delivery. */
static bool can_ask_program(const struct cpu *cpu)
{
    return !cpu->guard->delivering && cpu->cpl == 3 && cpu->mode & MODE_CODE64;
}

/* Judges one access. An upcall is prepared before anybody is told, since preparing may fault. */
static enum course judge_one(struct cpu *cpu, const struct noted *n, struct rules_verdict *v,
                             struct upcall *upcall)
{
    uint8_t bytes[2 * PAGE_SIZE];
    struct guard *g = cpu->guard;
    struct rules *rules = phys_rules(cpu->map);
    if (!objected_to(cpu, n) || find_pass(g, n))
        return GO_ON;
    struct rules_check check = guard_check(n);
    check.value =
        n->size <= sizeof bytes && n->kind != ACCESS_EXEC ? value_of(cpu, n, bytes) : NULL;
    check.quiet = true;
    check.nobody_to_ask = g->delivering;
    rules_judge(rules, &check, v);
    if (v->action == PROTECT_UPCALL &&
        (!can_ask_program(cpu) || !upcall_prepare(cpu, n, v, &check, upcall)))
        check.nobody_to_ask = true;
    check.quiet = false;
    rules_judge(rules, &check, v);
    switch (v->action) {
    case PROTECT_DENY:
        return REFUSE;
    case PROTECT_UPCALL:
        return ASK_PROGRAM;
    case PROTECT_ASK_HOST:
        return ASK_OUTSIDE;
    case PROTECT_SUBSTITUTE:
    case PROTECT_SKIP:
        if (n->kind & ACCESS_EXEC)
            return REFUSE;
        add_pass(g, n, GUARD_REPLACE, v->context, v->action == PROTECT_SUBSTITUTE ? v->value : 0);
        return n->kind & ACCESS_READ ? RUN_AGAIN : GO_ON;
    default:
        add_pass(g, n, GUARD_LET, v->context, 0);
        return GO_ON;
    }
}

/* In the order in which the instruction makes its accesses; *at is the one that decided. */
static enum course judge_all(struct cpu *cpu, unsigned count, struct noted *at,
                             struct rules_verdict *v, struct upcall *upcall)
{
    struct guard *g = cpu->guard;
    bool again = false;
    for (unsigned i = 0; i < count; i++) {
        enum course course = judge_one(cpu, &g->noted[i], v, upcall);
        *at = g->noted[i];
        if (course == RUN_AGAIN)
            again = true;
        else if (course != GO_ON)
            return course;
    }
    return again ? RUN_AGAIN : GO_ON;
}

/* ---- Asking outside
 * ------------------------------------------------------------------------------ */

/* The vCPU waits as if it were parked: others may change the rules, or stop the machine's clock,
 * meanwhile. False: refused, or nobody answered in time. */
static bool ask_outside(struct cpu *cpu, const struct noted *n, const struct rules_verdict *v)
{
    enum protect_verdict answer = PROTECT_REFUSE;
    uint64_t value = 0;
    end_alone(cpu);
    if (cpu->exclusive)
        exclusive_leave(cpu->exclusive, cpu->index);
    bool answered = rules_ask(phys_rules(cpu->map), v, &answer, &value);
    if (cpu->exclusive)
        exclusive_enter(cpu->exclusive, cpu->index);
    if (!answered)
        return false;
    switch (answer) {
    case PROTECT_RETRY:
        return true;
    case PROTECT_LET:
        add_pass(cpu->guard, n, GUARD_LET, v->context, 0);
        return true;
    case PROTECT_DROP:
    case PROTECT_GIVE:
        if (n->kind & ACCESS_EXEC)
            return false;
        add_pass(cpu->guard, n, GUARD_REPLACE, v->context, answer == PROTECT_GIVE ? value : 0);
        return true;
    default:
        return false;
    }
}

/* ---- The loop
 * ------------------------------------------------------------------------------------ */

static _Noreturn void raise_again(struct cpu *cpu, uint64_t cr2)
{
    if (cpu->exception.vector == VECTOR_PF)
        cpu->cr2 = cr2;
    siglongjmp(*cpu->unwind, 1);
}

/* A guest fault ended the attempt. Only the fetch has happened by then: rules may object to it. */
static unsigned judged_at_fault(const struct guard *g)
{
    return g->noted_count && g->noted[0].kind == ACCESS_EXEC ? 1 : 0;
}

/* True when the instruction is over, false to try again. */
static bool attempt(struct cpu *cpu, guard_fn *fn, const void *opaque)
{
    struct guard *g = cpu->guard;
    struct rules_verdict v = {0};
    struct upcall upcall = {0};
    struct noted at = {.kind = 0};
    bool ended = guard_collect(cpu, fn, opaque) != 0;
    unsigned vector = cpu->exception.vector;
    if (ended && vector == VECTOR_ALONE) {
        guard_restore(cpu);
        begin_alone(cpu);
        return false;
    }
    uint64_t cr2 = cpu->cr2;
    enum course course =
        judge_all(cpu, ended ? judged_at_fault(g) : g->noted_count, &at, &v, &upcall);
    if (!ended && course == GO_ON) {
        guard_commit(cpu);
        return true;
    }
    guard_restore(cpu);
    switch (course) {
    case REFUSE: {
        const struct guard_refusal how = refusal_of(&at, &v);
        guard_refuse(cpu, &how);
    }
    case ASK_PROGRAM:
        upcall_enter(cpu, &upcall);
        return true;
    case ASK_OUTSIDE: {
        const struct guard_refusal how = refusal_of(&at, &v);
        if (!ask_outside(cpu, &at, &v))
            guard_refuse(cpu, &how);
        return false;
    }
    case RUN_AGAIN:
        return false;
    default:
        raise_again(cpu, cr2);
    }
}

/* Whatever ends the instruction, the other vCPUs go on and the passes are over. */
static void run_guarded(struct cpu *cpu, guard_fn *fn, const void *opaque, bool delivering)
{
    struct guard *g = cpu->guard;
    sigjmp_buf here, *outer = cpu->unwind;
    g->delivering = delivering;
    if (sigsetjmp(here, 0)) {
        cpu->unwind = outer;
        g->passes.count = 0;
        end_alone(cpu);
        siglongjmp(*outer, 1);
    }
    cpu->unwind = &here;
    while (!attempt(cpu, fn, opaque))
        ;
    cpu->unwind = outer;
    g->passes.count = 0;
    end_alone(cpu);
}

static void run_insn(struct cpu *cpu, const void *opaque)
{
    (void)opaque;
    interp_run(cpu, true);
}

void guard_step(struct cpu *cpu)
{
    run_guarded(cpu, run_insn, NULL, false);
}

void guard_deliver(struct cpu *cpu, void (*fn)(struct cpu *cpu, const void *opaque),
                   const void *opaque)
{
    run_guarded(cpu, fn, opaque, true);
}
