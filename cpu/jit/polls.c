/*
 * polls.c - which heads of loops poll.
 *
 * Whatever goes round must ask again and again whether something wants attention. In a region there
 * must be a poll in each circle of its instructions. Circles lead through loops' heads; but where
 * one head can only be reached again through another that polls, as that of an outer loop whose
 * inner loop is always entered, it need not poll, too.
 *
 * Circles through several regions poll on the way from one to the next (branch.c): ways to other
 * pages do, and in the page those that do not lead behind the beginning of the region that is left.
 * The others lead from region to region at ever higher offsets, whatever order the blocks inside
 * have.
 */
#include "cpu/jit/build.h"

struct search {
    bool seen[REGION_MAX_INSNS];
    uint8_t stack[REGION_MAX_INSNS];
    unsigned depth;
};

static void visit(const struct build *b, struct search *s, int i)
{
    if (i < 0 || s->seen[i])
        return;
    s->seen[i] = true;
    if (!b->polls[i])
        s->stack[s->depth++] = (uint8_t)i;
}

static void visit_next(const struct build *b, struct search *s, unsigned i)
{
    if (b->flows[i] && i + 1 < b->count)
        visit(b, s, (int)i + 1);
    visit(b, s, b->to[i][0]);
    visit(b, s, b->to[i][1]);
}

/* Does a way without polls lead from the instruction back to it? */
static bool circles(const struct build *b, unsigned head)
{
    struct search s;
    memset(s.seen, 0, b->count * sizeof s.seen[0]);
    s.depth = 0;
    visit_next(b, &s, head);
    while (s.depth > 0 && !s.seen[head])
        visit_next(b, &s, s.stack[--s.depth]);
    return s.seen[head];
}

void polls_choose(struct build *b)
{
    unsigned heads = 0;
    memcpy(b->polls, b->head, b->count * sizeof b->head[0]);
    for (unsigned i = 0; i < b->count; i++)
        heads += b->head[i];
    if (heads < 2)
        return;
    for (unsigned i = 0; i < b->count; i++) /* outer loops come first */
        if (b->polls[i])
            b->polls[i] = circles(b, i);
}
