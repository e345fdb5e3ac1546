/*
 * guard.c - collecting what an instruction does, and committing it (guard.h). What a verdict means
 * is in verdict.c.
 */
#include "cpu/guard_internal.h"
#include "cpu/mem_inline.h"
#include "cpu/mem_internal.h"
#include "cpu/sys/internal.h"
#include "internal/exclusive.h"
#include <stdlib.h>
#include <string.h>

bool guard_init(struct cpu *cpu)
{
    cpu->guard = calloc(1, sizeof *cpu->guard);
    return cpu->guard != NULL;
}

void guard_fini(struct cpu *cpu)
{
    free(cpu->guard);
    cpu->guard = NULL;
}

void guard_trap(struct cpu *cpu)
{
    cpu->exception.vector = VECTOR_GUARD;
    siglongjmp(*cpu->unwind, 1);
}

bool guard_wanted(struct cpu *cpu, const struct access *access, uint64_t gpa, unsigned size,
                  unsigned kind)
{
    struct rules *rules = phys_rules(cpu->map);
    return rules && (rules_touches(rules, access, gpa, size, (uint8_t)kind) ||
                     (kind & ACCESS_WRITE && rules_follows(rules, access, gpa)));
}

void guard_copy_passes(struct guard_passes *to, const struct guard_passes *from)
{
    to->generation = from->generation;
    to->count = from->count;
    memcpy(to->pass, from->pass, from->count * sizeof from->pass[0]);
}

void guard_set_passes(struct cpu *cpu, const struct guard_passes *passes)
{
    guard_copy_passes(&cpu->guard->passes, passes);
}

void guard_refresh_passes(struct cpu *cpu)
{
    struct guard_passes *p = &cpu->guard->passes;
    uint64_t now = rules_generation(phys_rules(cpu->map));
    unsigned kept = 0;
    if (p->generation == now)
        return;
    for (unsigned i = 0; i < p->count; i++)
        if (p->pass[i].asked)
            p->pass[kept++] = p->pass[i];
    p->count = kept;
    p->generation = now;
}

/* ---- Registers ------------------------------------------------------------------------------- */

/* The parts of struct cpu that an instruction may change, less what belongs to other threads and to
 * the MMU. */
static const struct {
    size_t from, to;
} parts[] = {
    {0, offsetof(struct cpu, request)},
    {offsetof(struct cpu, attention), offsetof(struct cpu, jx)},
    {offsetof(struct cpu, seg), offsetof(struct cpu, tsc_offset)}, /* that one others read */
    {offsetof(struct cpu, msr_tsc_adjust), offsetof(struct cpu, exception)},
    {offsetof(struct cpu, debug_pending), offsetof(struct cpu, index)},
};

static void save(struct cpu *cpu)
{
    struct guard *g = cpu->guard;
    for (unsigned i = 0; i < sizeof parts / sizeof parts[0]; i++)
        memcpy(g->saved + parts[i].from, (char *)cpu + parts[i].from, parts[i].to - parts[i].from);
    g->paging = cpu->mmu.paging;
}

void guard_restore(struct cpu *cpu)
{
    struct guard *g = cpu->guard;
    if (g->move)
        return; /* it has changed nothing */
    for (unsigned i = 0; i < sizeof parts / sizeof parts[0]; i++)
        memcpy((char *)cpu + parts[i].from, g->saved + parts[i].from, parts[i].to - parts[i].from);
    if (!memcmp(&g->paging, &cpu->mmu.paging, sizeof g->paging))
        return;
    bool cr3 = g->paging.cr3 != cpu->mmu.paging.cr3; /* a task switch */
    struct paging paging = g->paging;
    paging.cr3 = cpu->mmu.paging.cr3;
    mmu_paging_changed(&cpu->mmu, &paging);
    if (cr3)
        mmu_set_cr3(&cpu->mmu, g->paging.cr3, true, g->paging.pdpte);
}

/* ---- Notes ----------------------------------------------------------------------------------- */

static bool same_actor(const struct noted *n, const struct access *access, enum mmu_priv priv)
{
    return n->access.initiator == access->initiator && n->priv == priv;
}

/* An access that this one is a part of: the store behind a load, a piece of an operand that has
 * been moved as a whole. Never a proof: what it covers is not always stored (FXSAVE, XSAVE). */
static struct noted *find_noted(struct guard *g, const struct access *access,
                                const struct guard_piece *piece, unsigned size, unsigned kind,
                                enum mmu_priv priv)
{
    for (unsigned i = g->noted_count; i-- > 0;) {
        struct noted *n = &g->noted[i];
        uint64_t lin = n->access.gva;
        if (n->kind == ACCESS_EXEC || !n->made || !same_actor(n, access, priv))
            continue;
        if (access->gva == lin && size == n->size && piece->gpa == n->piece[0].gpa)
            return n;
        if (n->kind & kind && access->gva >= lin && access->gva + size <= lin + n->size)
            return n;
    }
    return NULL;
}

static bool extend(struct noted *n, const struct access *access, const struct guard_piece *piece,
                   unsigned pieces, unsigned kind, enum mmu_priv priv)
{
    if (n->kind != kind || !same_actor(n, access, priv) || access->gva != n->access.gva + n->size)
        return false;
    struct guard_piece *last = &n->piece[n->pieces - 1];
    unsigned first = 0;
    if (piece[0].gpa == last->gpa + last->size && (piece[0].gpa & (PAGE_SIZE - 1)))
        first = 1; /* goes on in the same page */
    if (n->pieces + pieces - first > 2)
        return false;
    if (first)
        last->size += piece[0].size;
    for (unsigned i = first; i < pieces; i++)
        n->piece[n->pieces++] = piece[i];
    for (unsigned i = 0; i < pieces; i++)
        n->size += piece[i].size;
    return true;
}

static unsigned total(const struct guard_piece *piece, unsigned pieces)
{
    return pieces == 2 ? piece[0].size + piece[1].size : piece[0].size;
}

static void note(struct cpu *cpu, const struct access *access, const struct guard_piece *piece,
                 unsigned pieces, unsigned kind, enum mmu_priv priv, bool made)
{
    struct guard *g = cpu->guard;
    unsigned size = total(piece, pieces);
    struct noted *n = made ? find_noted(g, access, piece, size, kind, priv) : NULL;
    if (n) {
        n->kind |= kind;
        return;
    }
    if (g->noted_count && g->noted[g->noted_count - 1].made == made &&
        extend(&g->noted[g->noted_count - 1], access, piece, pieces, kind, priv))
        return;
    if (g->noted_count == GUARD_NOTED)
        cpu_raise_error(cpu, VECTOR_GP, 0); /* no instruction makes so many */
    n = &g->noted[g->noted_count++];
    *n = (struct noted){.access = *access,
                        .kind = (uint8_t)kind,
                        .priv = priv,
                        .made = made,
                        .size = size,
                        .pieces = pieces,
                        .piece = {piece[0]}};
    if (pieces == 2)
        n->piece[1] = piece[1];
}

/* ---- Loads ----------------------------------------------------------------------------------- */

void guard_overlay(const struct guard *g, uint64_t gpa, unsigned size, uint8_t *buf)
{
    for (unsigned i = 0; i < g->store_count; i++) {
        const struct store *s = &g->store[i];
        uint64_t lo = gpa > s->piece.gpa ? gpa : s->piece.gpa;
        uint64_t end = gpa + size, s_end = s->piece.gpa + s->piece.size;
        uint64_t hi = end < s_end ? end : s_end;
        if (lo < hi)
            memcpy(buf + (lo - gpa), g->bytes + s->at + (lo - s->piece.gpa), hi - lo);
    }
}

struct rules_check guard_check(const struct noted *n)
{
    struct rules_check check = {.access = &n->access,
                                .kind = n->kind,
                                .has_gva = true,
                                .gva = n->access.gva,
                                .pieces = n->pieces};
    for (unsigned i = 0; i < n->pieces; i++) {
        check.piece[i].gpa = n->piece[i].gpa;
        check.piece[i].len = n->piece[i].size;
    }
    return check;
}

/* Whether the pass replaces bytes of this access, or part of one, of this kind; mask[] then says
 * which. Accesses are at most a page. */
static bool replaces(struct cpu *cpu, const struct guard_pass *p, const struct access *access,
                     const struct guard_piece *piece, unsigned pieces, unsigned kind,
                     uint8_t mask[PAGE_SIZE])
{
    uint64_t lin = access->gva;
    unsigned size = total(piece, pieces);
    if (p->mode != GUARD_REPLACE || !(p->kind & kind) || lin < p->lin ||
        lin + size > p->lin + p->size)
        return false;
    const struct noted part = {.access = *access,
                               .kind = p->kind,
                               .size = size,
                               .pieces = pieces,
                               .piece = {piece[0], pieces == 2 ? piece[1] : piece[0]}};
    const struct rules_check check = guard_check(&part);
    rules_mask(phys_rules(cpu->map), &check, p->context, mask);
    return true;
}

/* Where contexts replace the same byte, the first to decide has its way. */
static void replace_bytes(struct cpu *cpu, const struct access *access,
                          const struct guard_piece *piece, unsigned pieces, uint8_t *buf)
{
    const struct guard_passes *passes = &cpu->guard->passes;
    uint8_t mask[PAGE_SIZE];
    for (unsigned n = passes->count; n-- > 0;) {
        const struct guard_pass *p = &passes->pass[n];
        if (!replaces(cpu, p, access, piece, pieces, ACCESS_READ, mask))
            continue;
        for (unsigned i = 0; i < total(piece, pieces); i++)
            if (mask[i])
                buf[i] = (uint8_t)(p->value >> 8 * ((access->gva + i) & 7));
    }
}

/* The bytes of a store that are not made. */
static void dropped_bytes(struct cpu *cpu, const struct store *s, uint8_t dropped[PAGE_SIZE])
{
    const struct guard_passes *passes = &cpu->guard->passes;
    uint8_t mask[PAGE_SIZE];
    memset(dropped, 0, s->piece.size);
    for (unsigned n = 0; n < passes->count; n++) {
        if (!replaces(cpu, &passes->pass[n], &s->access, &s->piece, 1, ACCESS_WRITE, mask))
            continue;
        for (unsigned i = 0; i < s->piece.size; i++)
            dropped[i] |= mask[i];
    }
}

/* What a device does cannot be taken back. */
static void stay_dry(struct cpu *cpu, const struct guard_piece *piece, unsigned pieces)
{
    for (unsigned i = 0; cpu->guard->dry && i < pieces; i++)
        if (!phys_hva(cpu->map, piece[i].gpa, NULL)) {
            cpu->exception.vector = VECTOR_DRY;
            siglongjmp(*cpu->unwind, 1);
        }
}

void guard_read(struct cpu *cpu, const struct access *access, const struct guard_piece *piece,
                unsigned pieces, enum mmu_priv priv, void *buf)
{
    struct access judged = *access;
    uint8_t *to = buf;
    judged.judged = true;
    stay_dry(cpu, piece, pieces);
    note(cpu, access, piece, pieces, ACCESS_READ, priv, true);
    for (unsigned i = 0; i < pieces; i++) {
        phys_read(cpu->map, &judged, piece[i].gpa, to, piece[i].size);
        guard_overlay(cpu->guard, piece[i].gpa, piece[i].size, to);
        to += piece[i].size;
    }
    replace_bytes(cpu, access, piece, pieces, buf);
}

/* ---- Stores ---------------------------------------------------------------------------------- */

void guard_probe(struct cpu *cpu, const struct access *access, const struct guard_piece *piece,
                 unsigned pieces, enum mmu_priv priv)
{
    note(cpu, access, piece, pieces, ACCESS_WRITE, priv, false);
}

void guard_write(struct cpu *cpu, const struct access *access, const struct guard_piece *piece,
                 unsigned pieces, enum mmu_priv priv, const void *buf)
{
    struct guard *g = cpu->guard;
    const uint8_t *from = buf;
    stay_dry(cpu, piece, pieces);
    note(cpu, access, piece, pieces, ACCESS_WRITE, priv, true);
    for (unsigned i = 0; i < pieces; i++) {
        if (g->store_count == GUARD_STORES || g->used + piece[i].size > sizeof g->bytes)
            cpu_raise_error(cpu, VECTOR_GP, 0); /* no instruction makes so many */
        g->store[g->store_count++] =
            (struct store){.access = *access, .piece = piece[i], .at = g->used};
        g->store[g->store_count - 1].access.gva += (uint64_t)(from - (const uint8_t *)buf);
        memcpy(g->bytes + g->used, from, piece[i].size);
        g->used += piece[i].size;
        from += piece[i].size;
    }
}

void guard_locked(struct cpu *cpu)
{
    if (cpu->guard->alone || !cpu->exclusive)
        return; /* also in a dry run: one vCPU */
    cpu->exception.vector = VECTOR_ALONE;
    siglongjmp(*cpu->unwind, 1);
}

void guard_effect(struct cpu *cpu)
{
    if (!guard_active(cpu) || cpu->guard->effect)
        return;
    cpu->exception.vector = VECTOR_EFFECT;
    siglongjmp(*cpu->unwind, 1);
}

void guard_whole(struct cpu *cpu)
{
    struct rules *rules = phys_rules(cpu->map);
    if (!guard_active(cpu) && rules && rules_generation(rules))
        guard_trap(cpu);
}

void guard_past(struct cpu *cpu)
{
    cpu->guard->past = true;
}

/* ---- Fetches --------------------------------------------------------------------------------- */

void guard_exec(struct cpu *cpu, unsigned len)
{
    enum mmu_priv priv = mem_cpl_priv(cpu);
    struct access access = mem_access(cpu, priv);
    struct guard_piece piece[2];
    struct mmu_xlat x;
    uint64_t lin = cpu->seg_base[SEG_CS] + cpu->rip;
    if (!(cpu->mode & MODE_CODE64))
        lin = (uint32_t)lin;
    unsigned in_page = (unsigned)(PAGE_SIZE - (lin & ~PAGE_MASK)), pieces = len > in_page ? 2 : 1;
    access.gva = lin;
    mem_translate(cpu, &access, lin, ACCESS_EXEC, priv, &x);
    piece[0] = (struct guard_piece){x.gpa, pieces == 2 ? in_page : len};
    if (pieces == 2) {
        uint64_t next = lin + in_page;
        mem_translate(cpu, &access, cpu->mode & MODE_CODE64 ? next : (uint32_t)next, ACCESS_EXEC,
                      priv, &x);
        piece[1] = (struct guard_piece){x.gpa, len - in_page};
    }
    if (guard_active(cpu)) {
        note(cpu, &access, piece, pieces, ACCESS_EXEC, priv, true);
        return;
    }
    for (unsigned i = 0; i < pieces; i++)
        if (guard_wanted(cpu, &access, piece[i].gpa, piece[i].size, ACCESS_EXEC))
            guard_trap(cpu);
}

/* ---- Running --------------------------------------------------------------------------------- */

static void collect_move(struct cpu *cpu, struct guard_move *m)
{
    enum mmu_priv priv = (enum mmu_priv)cpu->priv;
    if (m->kind == ACCESS_WRITE) {
        guard_write(cpu, &m->access, &m->piece, 1, priv, &m->value);
        return;
    }
    m->value = 0;
    guard_read(cpu, &m->access, &m->piece, 1, priv, &m->value);
}

/* One attempt. 0: it ran through; else cpu->exception says what ended it. The registers are new
 * ones, memory is as it was. */
int guard_collect(struct cpu *cpu, guard_fn *fn, const void *opaque)
{
    struct guard *g = cpu->guard;
    sigjmp_buf here, *outer = cpu->unwind;
    g->noted_count = g->store_count = g->used = 0;
    g->past = false;
    if (g->move) {
        collect_move(cpu, g->move);
        return 0;
    }
    save(cpu);
    cpu->guarded = true;
    mmu_fast_paths(&cpu->mmu, false);
    int ended = sigsetjmp(here, 0);
    if (!ended) {
        cpu->unwind = &here;
        fn(cpu, opaque);
    }
    cpu->unwind = outer;
    cpu->guarded = false;
    mmu_fast_paths(&cpu->mmu, true);
    return ended;
}

bool guard_changes_tables(struct cpu *cpu)
{
    const struct guard *g = cpu->guard;
    for (unsigned i = 0; i < g->noted_count; i++)
        for (unsigned n = 0; g->noted[i].kind & ACCESS_WRITE && n < g->noted[i].pieces; n++)
            if (rules_follows(phys_rules(cpu->map), &g->noted[i].access, g->noted[i].piece[n].gpa))
                return true;
    return false;
}

static void make_store(struct cpu *cpu, const struct store *s)
{
    uint8_t dropped[PAGE_SIZE];
    const uint8_t *bytes = cpu->guard->bytes + s->at;
    struct access access = s->access;
    unsigned size = s->piece.size;
    access.judged = true;
    dropped_bytes(cpu, s, dropped);
    for (unsigned i = 0, n; i < size; i += n) {
        for (n = 1; i + n < size && dropped[i + n] == dropped[i]; n++)
            ;
        if (!dropped[i])
            phys_write(cpu->map, &access, s->piece.gpa + i, bytes + i, n);
    }
}

/* Makes the stores; tables that rules follow are followed before anybody runs again. A store to a
 * device may end in a siglongjmp (phys_after_store), which the caller of guard_step() expects. */
void guard_commit(struct cpu *cpu)
{
    struct guard *g = cpu->guard;
    struct rules *rules = phys_rules(cpu->map);
    for (unsigned i = 0; i < g->store_count; i++) {
        const struct store *s = &g->store[i];
        bool table = rules_follows(rules, &s->access, s->piece.gpa);
        make_store(cpu, s);
        if (!table)
            continue;
        rules_change_begin(rules, (int)cpu->index);
        rules_table_written(rules, s->piece.gpa, s->piece.size);
        rules_change_end(rules, (int)cpu->index);
    }
    rules_pdptes_loaded(rules, cpu->index, &cpu->mmu.paging);
}
