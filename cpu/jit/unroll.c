/*
 * unroll.c - the rounds of a short loop, several of them in a row.
 *
 * A round of a few instructions pays much for going round: a poll, a byte that says where flags
 * are, lookups that are good for one round only. In a row rounds share them: the head of a loop is
 * where what is held is forgotten, and behind it a group of accesses goes on over the constants
 * that a loop adds to its registers (held.c). Each round still asks whether it is the last.
 *
 * The copies have the offsets of what they are copies of: other code comes to the first round only,
 * and which round a branch leads to follows from the one that it is in (build_target()).
 */
#include "cpu/jit/build.h"

enum {
    ROUND_MAX = 20, /* instructions: of one */
    ROUNDS = 2,
};

/* Where in the region instruction i branches to, or goes on without falling into the next; -1. */
static int branches_to(const struct build *b, unsigned i)
{
    if (b->branch[i] == BRANCH_CONDITIONAL) {
        int64_t off = build_branch_offset(b, i);
        return off == (int32_t)off ? build_target(b, i, (int32_t)off) : -1;
    }
    return b->flows[i] || b->next[i] == NEXT_NONE ? -1 : build_target(b, i, b->next[i]);
}

/* Is there a loop from `head` to `end` in one piece, with none inside? */
static bool is_round(const struct build *b, unsigned head, unsigned end)
{
    for (unsigned i = head; i < end; i++) {
        int to = branches_to(b, i);
        if (!b->flows[i] || (to >= 0 && to <= (int)i))
            return false;
    }
    return true;
}

static void move_insns(struct build *b, unsigned to, unsigned from, unsigned n)
{
    memmove(&b->insn[to], &b->insn[from], n * sizeof b->insn[0]);
    memmove(&b->off[to], &b->off[from], n * sizeof b->off[0]);
    memmove(&b->next[to], &b->next[from], n * sizeof b->next[0]);
    memmove(&b->flows[to], &b->flows[from], n * sizeof b->flows[0]);
    memmove(&b->branch[to], &b->branch[from], n * sizeof b->branch[0]);
}

/* All from instruction `at` on stands `n` places further behind. */
static void make_place(struct build *b, unsigned at, unsigned n)
{
    for (unsigned i = b->count; i < b->count + n; i++)
        build_clear(b, i);
    move_insns(b, at + n, at, b->count - at);
    b->count += n;
    for (unsigned i = at + n; i < b->count; i++)
        b->index_at[b->off[i]] = (int16_t)i;
}

/* The loop from `head` to `end`; what the last round falls into stands behind all of them. */
static void unroll(struct build *b, unsigned head, unsigned end)
{
    unsigned n = end + 1 - head, more = (ROUNDS - 1) * n;
    struct unrolled *loop = &b->unrolled[b->loops++];
    *loop = (struct unrolled){(uint8_t)head, (uint8_t)n, ROUNDS};
    make_place(b, end + 1, more);
    for (unsigned round = 1; round < ROUNDS; round++)
        move_insns(b, head + round * n, head, n);
    for (unsigned i = head; i <= end + more; i++)
        b->loop[i] = (uint8_t)b->loops;
    /* All but the last round: a JMP back falls into the next one, a Jcc jumps there. */
    for (unsigned last = end; last < end + more; last += n)
        b->flows[last] = b->next[last] == b->off[head];
}

void unroll_loops(struct build *b)
{
    if (b->cross)
        return;
    for (unsigned i = 0; i < b->count && b->loops < UNROLLED_MAX; i++) {
        int to = branch_is_direct(b->branch[i]) ? branches_to(b, i) : -1;
        if (to < 0 || to > (int)i)
            continue;
        unsigned head = (unsigned)to, n = i + 1 - head, more = (ROUNDS - 1) * n;
        if (n > ROUND_MAX || b->count + more > REGION_MAX_INSNS || !is_round(b, head, i))
            continue;
        unroll(b, head, i);
        i += more;
    }
}
