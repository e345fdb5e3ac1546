/*
 * held.c - one lookup for several accesses: host addresses that are kept.
 *
 * Accesses often come in groups: [rdi], [rdi+8], [rdi+24], with rdi unchanged between them. The
 * first one's lookup then covers them all: it proves that everything from the lowest to the highest
 * byte lies in one page that may be accessed so, and keeps the host address of the lowest one in
 * cpu->jx.held[]. The others load it from there; they cannot miss, and leave EFLAGS alone.
 *
 * A held address is good until the registers change, or C may have taken the page away; behind a
 * branch, too, but not at the head of a loop. Where a constant is added to a register, as loops do
 * before their last accesses, it is good for displacements that are less by that. jit_slow() does
 * not come back to a place where something is held if C has taken anything away (mmu->taken). What
 * cannot be covered in one piece (it crosses a page's end, it is a device) has C execute the first
 * access and leave; where that happens often, the region is made again without the group, or first
 * with one that is for a single round of the loop (unroll.c).
 */
#include "cpu/jit/build.h"
#include "cpu/sys/internal.h"
#include "insn_exec.h"

enum {
    LOOK_AHEAD = 32, /* instructions */
    SPAN_MAX = 256,  /* bytes: the longer, the more often it crosses a page's end */
};

static bool is_stack(unsigned exec)
{
    return exec == EXEC_push || exec == EXEC_pop;
}

/* What C executes may do anything. */
static bool is_known(const struct build *b, const struct insn *insn)
{
    unsigned exec = insn->row->exec;
    return is_stack(exec) || exec == EXEC_jcc || exec == EXEC_jmp || exec == EXEC_nop ||
           exec == EXEC_gen_hint || exec == EXEC_lea || copy_may(b, insn);
}

static uint16_t registers_written(const struct insn *insn)
{
    uint16_t set = is_stack(insn->row->exec) ? 1u << RSP : 0;
    for (unsigned n = 0; n < insn->opnds; n++) {
        const struct opnd *o = &insn->op[n];
        if ((o->kind == OPND_GPR || o->kind == OPND_GPR8H) && (o->access & OPND_W))
            set |= (uint16_t)(1u << (o->kind == OPND_GPR8H ? o->reg & 3 : o->reg));
    }
    return set;
}

/* An access that a group may have: its operand is all that it accesses. */
static const struct opnd *groupable(const struct build *b, const struct insn *insn)
{
    const struct opnd *mem = copy_memory_operand(b, insn);
    if (!mem || insn->mem.base == REG_PC || insn->mem.base == REG_NONE || insn->adsize != b->width)
        return NULL; /* with a shorter address the parts of a group could wrap apart */
    return mem;
}

/* Of all but the displacement; never 0. */
static uint32_t group_key(const struct insn_mem *m)
{
    return m->base | (uint32_t)m->index << 8 | (uint32_t)m->scale << 16 |
           (uint32_t)(m->seg + 1) << 24;
}
static unsigned key_base(uint32_t key)
{
    return key & 0xff;
}
static unsigned key_index(uint32_t key)
{
    return key >> 8 & 0xff;
}
static unsigned key_scale(uint32_t key)
{
    return key >> 16 & 0xff;
}

void held_prepare(struct build *b)
{
    for (unsigned i = 0; i < b->count; i++) {
        const struct insn *insn = &b->insn[i];
        const struct opnd *mem = insn->has_mem ? groupable(b, insn) : NULL;
        b->writes[i] = is_known(b, insn) ? registers_written(insn) : UINT16_MAX;
        b->group[i] = mem ? group_key(&insn->mem) : 0;
    }
    unsigned ahead[REG_NONE] = {0}; /* by the base: where the next access is, + 1 */
    for (unsigned i = b->count; i-- > 0;) {
        if (!b->group[i])
            continue;
        unsigned *next = &ahead[b->insn[i].mem.base];
        b->more[i] = *next && *next - 1 - i < LOOK_AHEAD;
        *next = i + 1;
    }
}

/* Does instruction i change, or may it change, a register that the address is made of? */
static bool changes_base(const struct build *b, unsigned i, const struct held *h)
{
    return b->writes[i] &
           (1u << key_base(h->key) | 1u << key_index(h->key)); /* REG_NONE: a bit that none has */
}

/* Does instruction i add a constant to a register, and nothing else to any? */
static bool adds(const struct build *b, unsigned i, unsigned *reg, int64_t *by)
{
    const struct insn *insn = &b->insn[i];
    const struct opnd *to = &insn->op[0];
    if (insn->opnds == 0 || to->kind != OPND_GPR || to->size != b->width || insn->lock)
        return false;
    *reg = to->reg;
    switch (insn->row->exec) {
    case EXEC_add:
    case EXEC_sub:
        *by = insn->row->exec == EXEC_add ? insn->imm : -insn->imm;
        return insn->op[1].kind == OPND_IMM;
    case EXEC_inc:
    case EXEC_dec:
        *by = insn->row->exec == EXEC_inc ? 1 : -1;
        return true;
    case EXEC_lea:
        *by = insn->mem.disp;
        return insn->mem.base == to->reg && insn->mem.index == REG_NONE && insn->adsize == b->width;
    default:
        return false;
    }
}

/* What instruction i adds to the address that the registers make. False: who knows. */
static bool moves_base(const struct build *b, unsigned i, const struct held *h, int64_t *by)
{
    unsigned reg;
    int64_t add;
    *by = 0;
    if (!changes_base(b, i, h))
        return true;
    if (!adds(b, i, &reg, &add) || add != (int32_t)add)
        return false;
    *by = (key_base(h->key) == reg ? add : 0) +
          (key_index(h->key) == reg ? add * (1 << key_scale(h->key)) : 0);
    return true;
}

struct held *held_find(struct build *b, const struct opnd *mem, bool write)
{
    const struct insn *insn = build_insn(b);
    int64_t lo = insn->mem.disp, hi = lo + mem->size;
    uint32_t key = group_key(&insn->mem);
    if (insn->adsize != b->width)
        return NULL;
    for (unsigned k = 0; k < HELD_SLOTS; k++) {
        struct held *h = &b->held[k];
        if (h->valid && h->key == key && lo >= h->lo && hi <= h->hi && (h->write || !write))
            return h;
    }
    return NULL;
}

static enum grouping grouping(const struct build *b)
{
    return b->jit->grouping[jit_mark_index(region_gpa(b->region, b->off[b->i]))];
}

/* Covers the instruction's access too, if it is one of the group and not too far away; `moved` is
 * what has been added to the address since the group began. */
static bool widen(const struct build *b, struct held *h, unsigned i, int64_t moved)
{
    if (b->group[i] != h->key)
        return false;
    const struct insn *insn = &b->insn[i];
    const struct opnd *mem = &insn->op[b->memory[i]];
    int64_t lo = insn->mem.disp + moved, hi = lo + mem->size;
    lo = lo < h->lo ? lo : h->lo;
    hi = hi > h->hi ? hi : h->hi;
    if (hi - lo > SPAN_MAX || lo != (int32_t)lo || hi != (int32_t)hi)
        return false;
    h->lo = (int32_t)lo;
    h->hi = (int32_t)hi;
    h->write |= (mem->access & OPND_W) != 0; /* what is loaded and then stored needs one lookup */
    return true;
}

/* What is known of the instructions behind the beginning of a group. */
struct ahead {
    uint8_t ways[REGION_MAX_INSNS];  /* that have been found to lead there from there */
    int64_t moved[REGION_MAX_INSNS]; /* on each of them, what has been added to the address */
};
enum { WAYS_DIFFER = UINT8_MAX };

static void lead_to(struct ahead *a, int i, int64_t moved)
{
    if (a->ways[i] && a->moved[i] != moved)
        a->ways[i] = WAYS_DIFFER;
    if (a->ways[i] == WAYS_DIFFER)
        return;
    a->moved[i] = moved;
    a->ways[i]++;
}

/* Looks for more accesses by the current instruction's registers, as far as all ways that lead
 * there come from here: but for loops' heads, blocks stand behind those that lead to them. */
static bool find_more(const struct build *b, struct held *h, bool over_rounds)
{
    struct ahead a;
    unsigned end = b->i + LOOK_AHEAD < b->count ? b->i + LOOK_AHEAD : b->count;
    bool found = false;
    int64_t by;
    memset(a.ways + b->i, 0, end - b->i);
    a.moved[b->i] = 0;
    for (unsigned i = b->i; i < end; i++) {
        if (i > b->i) {
            bool round = build_is_other_round(b, i, b->i);
            if (b->head[i] || a.ways[i] != b->ways[i] || (round && !over_rounds))
                continue;
            bool wide = widen(b, h, i, a.moved[i]);
            found |= wide;
            h->rounds |= wide && round;
        }
        if (!moves_base(b, i, h, &by))
            continue;
        by += a.moved[i];
        if (b->flows[i] && i + 1 < end)
            lead_to(&a, (int)i + 1, by);
        for (unsigned n = 0; n < 2; n++)
            if (b->to[i][n] > (int)i && b->to[i][n] < (int)end)
                lead_to(&a, b->to[i][n], by);
    }
    return found;
}

struct held *held_begin(struct build *b, const struct opnd *mem, bool write)
{
    const struct insn *insn = build_insn(b);
    int64_t end = insn->mem.disp + mem->size;
    if (!b->group[b->i] || !b->more[b->i] || b->cross || end != (int32_t)end)
        return NULL;
    struct held h = {.key = b->group[b->i],
                     .lo = (int32_t)insn->mem.disp,
                     .hi = (int32_t)end,
                     .write = write,
                     .relative = lookup_can_be_relative(b, insn),
                     .valid = true};
    enum grouping how = grouping(b);
    if (how == GROUP_NONE || !find_more(b, &h, how == GROUP_ROUNDS))
        return NULL;
    unsigned k = b->held_next++ % HELD_SLOTS;
    b->held[k] = h;
    return &b->held[k];
}

static void after(const struct build *b, struct held *h)
{
    int64_t by;
    h->valid = moves_base(b, b->i, h, &by);
    int64_t lo = h->lo - by, hi = h->hi - by;
    h->valid &= lo == (int32_t)lo && hi == (int32_t)hi;
    h->lo = (int32_t)lo;
    h->hi = (int32_t)hi;
}

void held_after(struct build *b)
{
    for (unsigned k = 0; k < HELD_SLOTS; k++)
        if (b->held[k].valid)
            after(b, &b->held[k]);
}

void held_forget(struct build *b)
{
    for (unsigned k = 0; k < HELD_SLOTS; k++)
        b->held[k].valid = false;
}

/* What is held on both ways, in the same place. */
static void meet(struct held *h, const struct held *way)
{
    h->valid &= way->valid && h->key == way->key && h->relative == way->relative &&
                (h->relative || h->lo == way->lo);
    h->write &= way->write;
    h->lo = h->lo > way->lo ? h->lo : way->lo;
    h->hi = h->hi < way->hi ? h->hi : way->hi;
}

void held_meet(struct held *all, const struct held *way)
{
    for (unsigned k = 0; k < HELD_SLOTS; k++)
        meet(&all[k], &way[k]);
}

bool held_any(const struct build *b)
{
    for (unsigned k = 0; k < HELD_SLOTS; k++)
        if (b->held[k].valid)
            return true;
    return false;
}

void held_load(struct build *b, const struct held *held)
{
    if (b->in_r10 != held || b->r10_until != b->e.p)
        emit_cpu_load(&b->e, SCRATCH1, held_slot(b, held));
}

/* ---- When C has made the first access ----------------------------------------------------------
 */

/* Does the group that has just failed fail so often that it costs more than it saves? That is a
 * question of time: one that lies in one page a hundred times spares hundreds of lookups, at most
 * one each nanosecond in a loop that goes through memory. Elsewhere it cannot be that many, nor for
 * something that lies over the end of the same page each time. */
static bool fails_often(struct cpu *cpu, struct jit_group *group)
{
    enum { TIMES = 8, UNIT_SHIFT = 10, MANY = 8, FEW = 128 };
    uint32_t now = (uint32_t)(sys_tsc(cpu) >> UNIT_SHIFT); /* nearly microseconds */
    uint32_t page = (uint32_t)(cpu->jx.jump >> PAGE_SHIFT);
    uint32_t window = group->in_loop && page != group->page ? MANY : FEW;
    if (now - group->since > window) {
        group->since = now;
        group->times = 0;
    }
    group->page = page;
    return ++group->times >= TIMES;
}

bool held_again(struct jit *jit, struct jit_site *site)
{
    struct cpu *cpu = jit->cpu;
    struct jit_group *group = site_group(site);
    enum access_kind kind = (enum access_kind)group->kind;
    void *host = jit_group_address(cpu, cpu->jx.jump, group->span, kind);
    if (!host && mmu_view_grant(&cpu->mmu, cpu->priv, cpu->jx.jump, kind))
        host = jit_group_address(cpu, cpu->jx.jump, group->span, kind);
    cpu->jx.held[site->group] = (uint64_t)(uintptr_t)host - (group->relative ? cpu->jx.jump : 0);
    if (!host && fails_often(cpu, group)) {
        uint8_t *how = &jit->grouping[jit_mark_index(region_gpa(site->region, site->off))];
        *how = group->rounds && *how == GROUP_ROUNDS ? GROUP_ROUND : GROUP_NONE;
        jit_make_stale(jit, site->region);
    }
    return host;
}
