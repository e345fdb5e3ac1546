/*
 * order.c - puts the blocks of a region into the order of the ways through them.
 *
 * Decoding goes on where the code does and comes back for the targets of Jccs, so that of two arms
 * that meet again the second stands behind the meeting place. Then the way there would look like
 * one that leads back: it would poll, what is held would be forgotten, and flags would be brought
 * into the form of a loop's head. In reverse postorder (of a depth-first search by the taken ways
 * first) each block stands behind all that lead to it, loops' ways back excepted, and behind a Jcc
 * mostly what it falls into.
 */
#include "cpu/jit/build.h"

struct order {
    bool begins[REGION_MAX_INSNS + 1]; /* a block; the end of the last one, too */
    bool seen[REGION_MAX_INSNS];
    uint8_t stack[REGION_MAX_INSNS], step[REGION_MAX_INSNS]; /* blocks by their first instruction */
    uint8_t block[REGION_MAX_INSNS];                         /* in postorder */
    unsigned depth, blocks;
};

/* Where the branch goes if it is taken; -1: nowhere in the region. */
static int taken(const struct build *b, unsigned i)
{
    if (b->branch[i] != BRANCH_CONDITIONAL)
        return -1;
    int64_t target = build_branch_offset(b, i);
    return target == (int32_t)target ? build_target(b, i, (int32_t)target) : -1;
}

static int next(const struct build *b, unsigned i)
{
    if (b->flows[i])
        return (int)i + 1;
    return b->next[i] == NEXT_NONE ? -1 : build_target(b, i, b->next[i]);
}

static void find_blocks(const struct build *b, struct order *o)
{
    memset(o, 0, offsetof(struct order, stack));
    o->begins[0] = o->begins[b->count] = true;
    for (unsigned i = 0; i < b->count; i++) {
        int to = taken(b, i), on = b->flows[i] ? -1 : next(b, i);
        if (to >= 0)
            o->begins[to] = o->begins[i + 1] = true;
        if (on >= 0)
            o->begins[on] = true;
        if (!b->flows[i])
            o->begins[i + 1] = true;
    }
}

static unsigned last_of(const struct order *o, unsigned i)
{
    while (!o->begins[i + 1])
        i++;
    return i;
}

static void visit(struct order *o, int block)
{
    if (block < 0 || o->seen[block])
        return;
    o->seen[block] = true;
    o->step[o->depth] = 0;
    o->stack[o->depth++] = (uint8_t)block;
}

static void search(const struct build *b, struct order *o)
{
    o->depth = o->blocks = 0;
    visit(o, 0);
    while (o->depth > 0) {
        unsigned top = o->depth - 1, last = last_of(o, o->stack[top]);
        switch (o->step[top]++) {
        case 0:
            visit(o, taken(b, last));
            break;
        case 1:
            visit(o, next(b, last));
            break;
        default:
            o->block[o->blocks++] = o->stack[top];
            o->depth--;
        }
    }
}

static bool is_order(const struct order *o)
{
    for (unsigned k = 1; k < o->blocks; k++)
        if (o->block[k] > o->block[k - 1])
            return false;
    return true;
}

/* False: they cannot be. */
static bool move(struct build *b, const struct order *o)
{
    struct moved *m = &b->moved;
    unsigned n = 0;
    if (is_order(o))
        return true;
    for (unsigned k = o->blocks; k-- > 0;)
        for (unsigned i = o->block[k], last = last_of(o, i); i <= last; i++, n++) {
            m->insn[n] = b->insn[i];
            m->off[n] = b->off[i];
            m->next[n] = b->next[i];
            m->branch[n] = b->branch[i];
        }
    if (n != b->count) /* in lockstep some may be reached by ways back only, which leave */
        return false;
    memcpy(b->insn, m->insn, n * sizeof b->insn[0]);
    memcpy(b->off, m->off, n * sizeof b->off[0]);
    memcpy(b->next, m->next, n * sizeof b->next[0]);
    memcpy(b->branch, m->branch, n * sizeof b->branch[0]);
    for (unsigned i = 0; i < n; i++)
        b->index_at[b->off[i]] = (int16_t)i;
    return true;
}

/* A block goes on with the one behind it where that is where it leads. */
static void join(struct build *b)
{
    for (unsigned i = 0; i < b->count; i++)
        b->flows[i] = b->next[i] != NEXT_NONE && build_target(b, i, b->next[i]) == (int)i + 1;
}

void order_blocks(struct build *b)
{
    struct order o;
    find_blocks(b, &o);
    search(b, &o);
    if (move(b, &o))
        join(b);
}
