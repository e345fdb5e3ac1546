/*
 * verdict.c - what becomes of an instruction that touches protected memory: the loop around
 * guard.c's collecting and committing (guard.h).
 */
#include "cpu/guard_internal.h"
#include "cpu/interp/execute.h"
#include "cpu/mem_internal.h"
#include "cpu/move.h"
#include "cpu/sys/internal.h"
#include "cpu/upcall.h"
#include "internal/exclusive.h"
#include <string.h>

enum { PF_PRESENT = 1 << 0, PF_WRITE = 1 << 1, PF_USER = 1 << 2, PF_FETCH = 1 << 4 };

/* ---- Other vCPUs ----------------------------------------------------------------------------- */

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

/* ---- Refusals -------------------------------------------------------------------------------- */

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

/* ---- Passes ---------------------------------------------------------------------------------- */

static bool is_of(const struct guard_pass *p, const struct noted *n)
{
    return p->lin == n->access.gva && p->size == n->size && p->kind == n->kind;
}

/* Who has decided about the access and who has been told. False: nobody is to be asked any more. */
static bool gather_passes(const struct guard *g, const struct noted *n, struct rules_check *check)
{
    check->decided = check->told = (struct rules_set){{0}};
    for (unsigned i = 0; i < g->passes.count; i++) {
        const struct guard_pass *p = &g->passes.pass[i];
        if (!is_of(p, n))
            continue;
        if (p->mode == GUARD_DONE)
            return false;
        rules_set_add(p->mode == GUARD_TOLD ? &check->told : &check->decided, p->context);
    }
    return true;
}

static bool add_pass(struct guard *g, const struct noted *n, enum guard_mode mode, unsigned context,
                     uint64_t value)
{
    if (g->passes.count == GUARD_PASSES)
        return false;
    g->passes.pass[g->passes.count++] = (struct guard_pass){.lin = n->access.gva,
                                                            .size = n->size,
                                                            .context = (uint16_t)context,
                                                            .kind = n->kind,
                                                            .mode = (uint8_t)mode,
                                                            .value = value};
    return true;
}

/* All who object are told at once, but only one decides. False: no room. */
static bool note_told(struct guard *g, const struct noted *n, const struct rules_verdict *v,
                      const struct rules_check *check)
{
    struct rules_set others = v->objectors;
    for (unsigned word = 0; word < sizeof others.bits / sizeof others.bits[0]; word++)
        for (uint64_t *bits = &others.bits[word]; *bits; *bits &= *bits - 1) {
            unsigned i = word * 64 + (unsigned)__builtin_ctzll(*bits);
            if (i != v->context && !rules_set_has(&check->told, i) &&
                !add_pass(g, n, GUARD_TOLD, i, 0))
                return false;
        }
    return true;
}

/* ---- Judging --------------------------------------------------------------------------------- */

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
    const struct guard_move *move = cpu->guard->move;
    struct access own = n->access;
    unsigned done = 0;
    own.judged = true;
    if (move && move->kind == ACCESS_WRITE) {
        memcpy(buf, &move->value, n->size);
        return buf;
    }
    for (unsigned i = 0; i < n->pieces; i++) {
        const struct guard_piece *p = &n->piece[i];
        phys_read(cpu->map, &own, p->gpa, buf + done, p->size);
        if (n->kind & ACCESS_WRITE)
            guard_overlay(cpu->guard, p->gpa, p->size, buf + done);
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

/* Somebody is to be asked. */
struct asking {
    struct cpu *cpu;
    const struct noted *noted;
    const struct rules_check *check;
    struct upcall *upcall;
    bool prepared; /* upcall, of this context */
    unsigned context;
};

/* An upcall is prepared before anybody is told, since preparing may fault; what cannot be
 * remembered is refused. */
static bool prepare(void *opaque, const struct rules_verdict *v)
{
    struct asking *a = opaque;
    if (!note_told(a->cpu->guard, a->noted, v, a->check))
        return false;
    if (v->action != PROTECT_UPCALL)
        return true;
    a->context = v->context;
    a->prepared =
        can_ask_program(a->cpu) && upcall_prepare(a->cpu, a->noted, v, a->check, a->upcall);
    return a->prepared;
}

/* Judged as it will be told. */
static void judge_once(struct cpu *cpu, const struct noted *n, struct rules_check *check,
                       struct rules_verdict *v, struct upcall *upcall)
{
    struct asking asking = {.cpu = cpu, .noted = n, .check = check, .upcall = upcall};
    check->nobody_to_ask = cpu->guard->delivering;
    check->prepare = prepare;
    check->opaque = &asking;
    rules_judge(phys_rules(cpu->map), check, v);
    /* Others have changed the rules meanwhile. */
    if (asking.prepared && v->action != PROTECT_UPCALL)
        upcall_forget(cpu, asking.context, upcall);
}

/* Until nobody objects any more, or somebody refuses or has to be asked. */
static enum course judge_one(struct cpu *cpu, const struct noted *n, struct rules_verdict *v,
                             struct upcall *upcall)
{
    uint8_t bytes[2 * PAGE_SIZE];
    struct guard *g = cpu->guard;
    struct rules_check check = guard_check(n);
    enum course course = GO_ON;
    if (!objected_to(cpu, n))
        return GO_ON;
    check.value =
        n->size <= sizeof bytes && n->kind != ACCESS_EXEC ? value_of(cpu, n, bytes) : NULL;
    while (gather_passes(g, n, &check)) {
        judge_once(cpu, n, &check, v, upcall);
        if (!v->objected)
            return course;
        switch (v->action) {
        case PROTECT_DENY:
            return REFUSE;
        case PROTECT_UPCALL:
            return ASK_PROGRAM;
        case PROTECT_ASK_HOST:
            return ASK_OUTSIDE;
        case PROTECT_SUBSTITUTE:
        case PROTECT_SKIP:
            if (n->kind & ACCESS_EXEC || !note_told(g, n, v, &check) ||
                !add_pass(g, n, GUARD_REPLACE, v->context,
                          v->action == PROTECT_SUBSTITUTE ? v->value : 0))
                return REFUSE;
            if (n->kind & ACCESS_READ)
                course = RUN_AGAIN;
            break;
        default:
            add_pass(g, n, GUARD_DONE, v->context, 0); /* no room: judged, and told, again */
            return course;
        }
    }
    return course;
}

/* What is judged of an access: nothing where no more than a store's possibility was proved, unless
 * a store is to come; of an instruction that ends in a fault, what it has read. */
static struct noted as_judged(const struct noted *n, bool faulted, bool effect)
{
    struct noted judged = *n;
    if (!n->made && !effect)
        judged.kind = 0;
    if (faulted)
        judged.kind &= ACCESS_READ | ACCESS_EXEC;
    return judged;
}

/* In the order in which the instruction makes its accesses; *at is the one that decided. */
static enum course judge_all(struct cpu *cpu, unsigned count, bool faulted, bool effect,
                             struct noted *at, struct rules_verdict *v, struct upcall *upcall)
{
    struct guard *g = cpu->guard;
    for (unsigned i = 0; i < count; i++) {
        *at = as_judged(&g->noted[i], faulted, effect);
        enum course course = at->kind ? judge_one(cpu, at, v, upcall) : GO_ON;
        if (course != GO_ON)
            return course; /* what comes behind it may be another access then */
    }
    return GO_ON;
}

/* ---- Asking outside -------------------------------------------------------------------------- */

static bool add_answer(struct guard *g, const struct noted *n, enum guard_mode mode,
                       unsigned context, uint64_t value)
{
    if (!add_pass(g, n, mode, context, value))
        return false;
    g->passes.pass[g->passes.count - 1].asked = true;
    return true;
}

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
    guard_refresh_passes(cpu);
    switch (answer) {
    case PROTECT_RETRY:
        return true;
    case PROTECT_LET:
        return add_answer(cpu->guard, n, GUARD_LET, v->context, 0);
    case PROTECT_DROP:
    case PROTECT_GIVE:
        return !(n->kind & ACCESS_EXEC) && add_answer(cpu->guard, n, GUARD_REPLACE, v->context,
                                                      answer == PROTECT_GIVE ? value : 0);
    default:
        return false;
    }
}

/* ---- The loop -------------------------------------------------------------------------------- */

static _Noreturn void raise_again(struct cpu *cpu, unsigned vector, uint64_t cr2)
{
    if (vector == VECTOR_PF)
        cpu->cr2 = cr2;
    siglongjmp(*cpu->unwind, 1);
}

/* A page fault comes before all rules, but not before the fetch. Other faults come of what has been
 * read, which so is judged. */
static unsigned judged_at_fault(const struct guard *g, unsigned vector)
{
    if (vector != VECTOR_PF)
        return g->noted_count;
    return g->noted_count && g->noted[0].kind == ACCESS_EXEC ? 1 : 0;
}

/* Nobody else runs from now on, and what was judged may be void. */
static void go_alone(struct cpu *cpu)
{
    guard_restore(cpu);
    begin_alone(cpu);
    guard_refresh_passes(cpu);
}

/* True when the instruction is over, false to try again. */
static bool attempt(struct cpu *cpu, guard_fn *fn, const void *opaque)
{
    struct guard *g = cpu->guard;
    struct rules_verdict v = {0};
    struct upcall upcall = {0};
    struct noted at = {.kind = 0};
    bool ended = guard_collect(cpu, fn, opaque) != 0;
    unsigned vector = ended ? cpu->exception.vector : 0;
    bool effect = vector == VECTOR_EFFECT, past = ended && vector < VECTOR_OURS && g->past;
    bool faulted = ended && !effect && !past;
    /* A store to a table that rules follow, and what it means, are one step to all others. */
    if (vector == VECTOR_ALONE || (!faulted && !g->alone && guard_changes_tables(cpu))) {
        go_alone(cpu);
        return false;
    }
    uint64_t cr2 = cpu->cr2;
    enum course course = judge_all(cpu, faulted ? judged_at_fault(g, vector) : g->noted_count,
                                   faulted, effect, &at, &v, &upcall);
    if ((!ended || past) && course == GO_ON) {
        guard_commit(cpu);
        if (past)
            raise_again(cpu, vector, cr2);
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
        g->move = NULL;
        return true;
    case ASK_OUTSIDE: {
        const struct guard_refusal how = refusal_of(&at, &v);
        if (!ask_outside(cpu, &at, &v))
            guard_refuse(cpu, &how);
        if (g->move) /* what was known of the access may have changed while this vCPU waited */
            guard_trap(cpu);
        return false;
    }
    case RUN_AGAIN:
        return false;
    default:
        if (!effect)
            raise_again(cpu, vector, cr2);
        g->effect = true;
        return false;
    }
}

/* Whatever ends the instruction, the other vCPUs go on and the passes are over; unless it has only
 * been begun. */
static void run_guarded(struct cpu *cpu, guard_fn *fn, const void *opaque, bool delivering,
                        struct guard_move *move)
{
    struct guard *g = cpu->guard;
    sigjmp_buf here, *outer = cpu->unwind;
    g->delivering = delivering;
    g->effect = false;
    g->move = move;
    if (!g->passes.count)
        g->passes.generation = rules_generation(phys_rules(cpu->map));
    guard_refresh_passes(cpu);
    if (sigsetjmp(here, 0)) {
        cpu->unwind = outer;
        if (cpu->exception.vector != VECTOR_GUARD)
            g->passes.count = 0;
        g->move = NULL;
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

bool guard_move(struct cpu *cpu, struct guard_move *move)
{
    run_guarded(cpu, run_insn, NULL, false, move);
    bool made = cpu->guard->move;
    cpu->guard->move = NULL;
    return made;
}

/* Executes the instruction as move_execute() would, if it is one that has been met before. */
static bool step_move(struct cpu *cpu)
{
    const struct insn *insn = execute_known(cpu);
    struct guard_move move;
    if (!insn || !move_is_plain(insn) || !move_describe(cpu, insn, MOVE_GIVES_UP, &move) ||
        !move.x.ruled || !guard_wanted(cpu, &move.access, move.x.gpa, move.piece.size, move.kind))
        return false;
    cpu->next_rip = cpu->rip + insn->len;
    if (guard_move(cpu, &move)) {
        move_finish(cpu, &move);
        cpu->retired++;
    }
    cpu->rip = cpu->next_rip;
    return true;
}

void guard_step(struct cpu *cpu)
{
    if (!step_move(cpu))
        run_guarded(cpu, run_insn, NULL, false, NULL);
}

void guard_deliver(struct cpu *cpu, void (*fn)(struct cpu *cpu, const void *opaque),
                   const void *opaque)
{
    run_guarded(cpu, fn, opaque, true, NULL);
}
