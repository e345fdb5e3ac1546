/*
 * test_rules_matrix.c - accesses of those who have no instructions, by phys_read(), phys_write()
 * and phys_cmpxchg(): devices, clients outside, the debugger, the loader. Generated: every access
 * in every overlap with one or two rules of every action that the subject may have, in one context
 * or in two. What must come of it is worked out here byte by byte, from protect.h alone; then
 *
 *     the access          is refused or done, and memory and buffer are as that says to the byte
 *     each context        has one event with all fields right if one of its rules objects, else
 * none
 *
 * (The instructions' matrix is tests/guests/lib/matrix.h.)
 */
#include "rules_guest.h"

enum { ARENA = 0x100000, ARENA_PAGES = 8, GVA = 0x40100000, MARGIN = 64, LONGEST = 9000 };
enum { USER = 1, OTHER = 2, OUTSIDE = PROTECT_DOORS }; /* contexts; SUPERVISOR is 0 */
enum { R = PROTECT_READ, W = PROTECT_WRITE, RW = R | W };

/* ---- Contexts -----------------------------------------------------------------------------------
 */

static const struct context_plan {
    unsigned number;
    enum rules_kind kind;
    uint32_t grants; /* USER: all that it gets */
} plans[] = {
    {0, RULES_SUPERVISOR, PROTECT_GRANT_ALL},
    {USER, RULES_USER, PROTECT_GRANT_DEVICES | PROTECT_GRANT_HOST}, /* sees little */
    {OTHER, RULES_USER, PROTECT_GRANT_ALL},
    {OUTSIDE, RULES_HOST, PROTECT_GRANT_ALL},
};
enum { PLANS = sizeof plans / sizeof plans[0] };
static uint64_t sessions[PLANS];

static enum protect_status command(unsigned plan, unsigned op, uint64_t a0, uint64_t a1)
{
    session = sessions[plan];
    return give(plans[plan].number, plans[plan].kind, op, a0, a1);
}

static uint8_t *arena;

static void set_up(void)
{
    uint64_t room;
    start(PAGING_4LEVEL, 8 * MIB);
    arena = phys_hva(g->map, ARENA, &room);
    ck_assert_uint_ge(room, ARENA_PAGES * PAGE_SIZE);
    guest_map(g, &paging, 0x7000, 0x20000 | PTE_P | PTE_RW | PTE_US, 1); /* the doors' page */
    for (unsigned i = 0; i < ARENA_PAGES; i++)
        guest_map(g, &paging, GVA + i * PAGE_SIZE,
                  (ARENA + i * PAGE_SIZE) | PTE_P | PTE_RW | PTE_US, 1);
    for (unsigned i = 0; i < PLANS; i++) {
        ck_assert_int_eq(command(i, PROTECT_OP_BIND, 0, 0), PROTECT_OK);
        sessions[i] = last.result;
        if (plans[i].kind == RULES_USER)
            ck_assert_int_eq(rules_grant(rules, plans[i].number, plans[i].grants, false),
                             PROTECT_OK);
    }
}

/* ---- Cases --------------------------------------------------------------------------------------
 */

/* Where a region lies, seen from the access. */
enum overlap { FRONT, BACK, MIDDLE, WHOLE, AROUND, BEFORE, BEHIND, OVERLAPS };

/* An access: at ARENA + offset. CMPXCHG when it reads and writes. */
struct shape {
    uint32_t offset, length;
};
static const struct shape shapes[] = {
    {0x1000, 1},  {0x1fff, 1},  {0x1003, 2},   {0x1fff, 2},    {0x1008, 4},    {0x1ffe, 4},
    {0x1010, 8},  {0x1ff8, 8},  {0x1ff9, 8},   {0x1fff, 8},    {0x1020, 16},   {0x1ff5, 16},
    {0x1065, 17}, {0x1fe0, 33}, {0x1e01, 512}, {0x1000, 4096}, {0x1ffe, 4100}, {0x1234, LONGEST},
};
static const struct subject_plan {
    enum protect_subject subject; /* PROTECT_SUBJECTS: nobody that rules speak of */
    struct access access;
} subjects[] = {
    {PROTECT_DEVICE, {.initiator = INITIATOR_DMA, .device = 0x1234}},
    {PROTECT_HOST, {.initiator = INITIATOR_HOST}},
    {PROTECT_DEBUGGER, {.initiator = INITIATOR_DEBUGGER}},
    {PROTECT_SUBJECTS, {.initiator = INITIATOR_LOADER}},
};
static const uint8_t actions[] = {PROTECT_DENY, PROTECT_ALLOW_ONCE, PROTECT_DEFERRED,
                                  PROTECT_ALLOW};
enum { ACTIONS = sizeof actions, SHAPES = sizeof shapes / sizeof shapes[0] };

struct ruled { /* a region with its rule */
    unsigned plan;
    uint32_t lo, length; /* in the arena */
    uint8_t forbids, action;
    uint32_t id; /* as the device gave it */
    bool once_used;
};
struct test_case {
    const struct subject_plan *who;
    uint8_t kind;
    struct shape at;
    struct ruled ruled[2];
    unsigned count;
};
static uint64_t cases, objections;

static void place(struct ruled *r, const struct shape *at, enum overlap overlap)
{
    static const int from_front[OVERLAPS] = {
        [FRONT] = -8, [WHOLE] = 0, [AROUND] = -8, [BEFORE] = -8};
    const uint32_t lengths[OVERLAPS] = {9, 9, 1, at->length, at->length + 16, 8, 8};
    r->length = lengths[overlap];
    r->lo = overlap == BACK     ? at->offset + at->length - 1
            : overlap == BEHIND ? at->offset + at->length
            : overlap == MIDDLE ? at->offset + at->length / 2
                                : at->offset + (uint32_t)from_front[overlap];
}

static uint64_t base_of(const struct ruled *r)
{
    return (plans[r->plan].kind == RULES_USER ? GVA : ARENA) + r->lo;
}
static uint64_t cookie_of(const struct ruled *r)
{
    return base_of(r) * 3 + r->plan;
}

static void protect_it(struct test_case *t, struct ruled *r)
{
    const struct protect_region region = {
        .base = base_of(r),
        .length = r->length,
        .flags = plans[r->plan].kind == RULES_USER ? 0 : PROTECT_PHYSICAL,
        .cookie = cookie_of(r)};
    ck_assert_int_eq(command(r->plan, PROTECT_OP_ADD_REGIONS, (uintptr_t)&region, 1), PROTECT_OK);
    r->id = (uint32_t)last.result;
    /* Everybody else is watched: who is taken for another shows. */
    struct protect_rule rule = {.region = r->id, .count = 1, .notify = PROTECT_NOTIFY_PREIMAGE};
    memset(rule.action, PROTECT_ALLOW, sizeof rule.action);
    if (t->who->subject < PROTECT_SUBJECTS) {
        rule.allow[t->who->subject] = PROTECT_ALL & ~r->forbids;
        rule.action[t->who->subject] = r->action;
    }
    ck_assert_int_eq(command(r->plan, PROTECT_OP_SET_RULES, (uintptr_t)&rule, 1), PROTECT_OK);
}

/* ---- What must happen ---------------------------------------------------------------------------
 */

static bool holds(const struct ruled *r, uint32_t byte)
{
    return byte >= r->lo && byte < r->lo + r->length;
}
static bool objects(const struct test_case *t, const struct ruled *r)
{
    bool overlap = r->lo < t->at.offset + t->at.length && t->at.offset < r->lo + r->length;
    return t->who->subject < PROTECT_SUBJECTS && overlap && t->kind & r->forbids;
}
static uint8_t action_now(const struct ruled *r)
{
    return r->action == PROTECT_ALLOW_ONCE && r->once_used ? PROTECT_DENY : r->action;
}

/* The strictest of all. */
static uint8_t decide(const struct test_case *t)
{
    uint8_t action = PROTECT_ACTIONS;
    for (unsigned i = 0; i < t->count; i++)
        if (objects(t, &t->ruled[i]) && action_now(&t->ruled[i]) < action)
            action = action_now(&t->ruled[i]);
    return action;
}

/* The first byte that a rule of the context objects to, and whose it is: the lower id's. */
static const struct ruled *lowest(const struct test_case *t, unsigned plan, uint32_t *byte)
{
    for (*byte = t->at.offset; *byte < t->at.offset + t->at.length; ++*byte) {
        const struct ruled *found = NULL;
        for (unsigned i = 0; i < t->count; i++) {
            const struct ruled *r = &t->ruled[i];
            if (r->plan == plan && objects(t, r) && holds(r, *byte) &&
                (!found || r->id < found->id))
                found = r;
        }
        if (found)
            return found;
    }
    return NULL;
}

/* The event that a context gets; false: none. `before`: the arena from the access on, `value`: what
 * is written. */
static bool expect_event(const struct test_case *t, unsigned plan, const uint8_t *before,
                         const uint8_t *value, struct protect_event *e)
{
    uint32_t byte;
    const struct ruled *r = lowest(t, plan, &byte);
    uint32_t grants = plans[plan].grants;
    if (!r)
        return false;
    uint32_t offset = byte - t->at.offset, left = t->at.length - offset;
    uint32_t room = r->lo + r->length - byte, to_page_end = 4096 - byte % 4096;
    *e = (struct protect_event){.type = PROTECT_EVENT_ACCESS,
                                .access = t->kind,
                                .subject = (uint8_t)t->who->subject,
                                .action = decide(t),
                                .region = r->id,
                                .length = t->at.length,
                                .cookie = cookie_of(r),
                                .home = base_of(r) + (byte - r->lo),
                                .gpa = grants & PROTECT_GRANT_PHYSICAL ? ARENA + byte : 0,
                                .device = t->who->access.device};
    left = left < 16 ? left : 16;
    if (t->kind & W)
        e->flags |= PROTECT_EVENT_PREIMAGE;
    if (!(grants & PROTECT_GRANT_OBSERVE)) {
        e->flags |= PROTECT_EVENT_HIDDEN;
        /* of its own bytes only, as far as they lie together */
        room = room < to_page_end ? room : to_page_end;
        if (t->kind & W)
            memcpy(e->preimage, before + offset, left < room ? left : room);
        return true;
    }
    if (t->kind & W) {
        e->flags |= PROTECT_EVENT_VALUE;
        memcpy(e->preimage, before + offset, left);
        memcpy(e->value, value + offset, left);
    }
    return true;
}

/* ---- Doing it -----------------------------------------------------------------------------------
 */

static enum phys_result perform(const struct test_case *t, uint8_t *buffer, const uint8_t *value)
{
    const struct access *access = &t->who->access;
    uint64_t gpa = ARENA + t->at.offset, desired = 0;
    bool exchanged = false;
    if (t->kind == R)
        return phys_read(g->map, access, gpa, buffer, t->at.length);
    if (t->kind == W)
        return phys_write(g->map, access, gpa, value, t->at.length);
    memcpy(&desired, value, t->at.length);
    uint64_t expected = 0;
    memcpy(&expected, arena + t->at.offset, t->at.length);
    enum phys_result result =
        phys_cmpxchg(g->map, access, gpa, t->at.length, &expected, desired, &exchanged);
    ck_assert(result != PHYS_OK || exchanged);
    return result;
}

static void describe(const struct test_case *t, unsigned plan, char text[400])
{
    int n = snprintf(text, 400, "subject %u, kind %u, %#x+%u, context %u", t->who->subject, t->kind,
                     t->at.offset, t->at.length, plans[plan].number);
    for (unsigned i = 0; i < t->count; i++)
        n += snprintf(text + n, 400 - (size_t)n,
                      "; context %u forbids %u by action %u (once used: %d), %#x+%u, id %u",
                      plans[t->ruled[i].plan].number, t->ruled[i].forbids, t->ruled[i].action,
                      t->ruled[i].once_used, t->ruled[i].lo, t->ruled[i].length, t->ruled[i].id);
}
#define CHECK_CASE(condition, plan)                                                                \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            char text_[400];                                                                       \
            describe(t, plan, text_);                                                              \
            ck_abort_msg("%s: %s", #condition, text_);                                             \
        }                                                                                          \
    } while (0)

static void check_events(const struct test_case *t, const uint8_t *before, const uint8_t *value)
{
    for (unsigned i = 0; i < PLANS; i++) {
        struct protect_event want, got;
        struct rules_context_info info;
        rules_context_info(rules, plans[i].number, &info);
        uint64_t events = info.event_head - info.event_tail;
        bool wanted = expect_event(t, i, before, value, &want);
        CHECK_CASE(events == wanted, i);
        if (!wanted)
            continue;
        objections++;
        rules_read_event(rules, plans[i].number, (unsigned)((info.event_head - 1) % PROTECT_EVENTS),
                         &got);
        want.sequence = info.event_head;
        want.time = got.time;
#define SAME(field) CHECK_CASE(got.field == want.field, i)
        SAME(sequence);
        SAME(access);
        SAME(subject);
        SAME(action);
        SAME(flags);
        SAME(region);
        SAME(length);
        SAME(cookie);
        SAME(home);
        SAME(gpa);
        SAME(device);
        SAME(preimage[0]);
        SAME(preimage[1]);
        SAME(value[0]);
        SAME(value[1]);
#undef SAME
        CHECK_CASE(!memcmp(&got, &want, sizeof got), i); /* and all others are 0 */
        ck_assert(rules_set_event_tail(rules, plans[i].number, info.event_head));
    }
}

/* Once, and what it uses up. */
static void access_once(struct test_case *t)
{
    static uint8_t before[LONGEST + 2 * MARGIN], want[LONGEST + 2 * MARGIN], value[LONGEST],
        buffer[LONGEST];
    const uint32_t length = t->at.length, window = length + 2 * MARGIN;
    uint8_t *at = arena + t->at.offset - MARGIN, decision = decide(t);
    for (uint32_t i = 0; i < window; i++)
        at[i] = (uint8_t)(i * 7 + cases);
    for (uint32_t i = 0; i < length; i++)
        value[i] = (uint8_t)~at[MARGIN + i];
    memcpy(before, at, window);
    memcpy(want, at, window);
    memset(buffer, 0xee, length);
    if (t->kind & W && decision != PROTECT_DENY)
        memcpy(want + MARGIN, value, length);
    enum phys_result result = perform(t, buffer, value);
    CHECK_CASE(result == (decision == PROTECT_DENY ? PHYS_REFUSED : PHYS_OK), 0);
    CHECK_CASE(!memcmp(at, want, window), 0);
    if (t->kind == R && decision != PROTECT_DENY)
        CHECK_CASE(!memcmp(buffer, before + MARGIN, length), 0);
    else
        for (uint32_t i = 0; i < length; i++)
            CHECK_CASE(buffer[i] == 0xee, 0); /* nothing of what was refused */
    check_events(t, before + MARGIN, value);
    for (unsigned i = 0; i < t->count && decision == PROTECT_ALLOW_ONCE; i++)
        t->ruled[i].once_used |=
            objects(t, &t->ruled[i]) && t->ruled[i].action == PROTECT_ALLOW_ONCE;
    cases++;
}

static void run(struct test_case *t)
{
    for (unsigned i = 0; i < t->count; i++)
        protect_it(t, &t->ruled[i]);
    access_once(t);
    access_once(t);
    for (unsigned i = t->count; i-- > 0;)
        ck_assert_int_eq(command(t->ruled[i].plan, PROTECT_OP_REMOVE_REGIONS, t->ruled[i].id, 1),
                         PROTECT_OK);
}

/* The kinds of access that there are in this shape, one after another; 0: no more. */
static uint8_t next_kind(const struct shape *at, uint8_t kind)
{
    bool whole = (at->length == 4 || at->length == 8) && at->offset % at->length == 0;
    return kind == 0 ? R : kind == R ? W : kind == W && whole ? RW : 0;
}
/* With every access there is. */
static void each_access(const struct subject_plan *who, void (*fn)(struct test_case *t))
{
    struct test_case t = {.who = who};
    for (unsigned i = 0; i < SHAPES; i++) {
        t.at = shapes[i];
        for (t.kind = next_kind(&t.at, 0); t.kind; t.kind = next_kind(&t.at, t.kind))
            fn(&t);
    }
}

/* ---- The tests ----------------------------------------------------------------------------------
 */

static void with_one_rule(struct test_case *t)
{
    t->count = 1;
    for (unsigned plan = 0; plan < PLANS; plan++)
        for (enum overlap overlap = FRONT; overlap < OVERLAPS; overlap++)
            for (unsigned action = 0; action < ACTIONS; action++)
                for (uint8_t forbids = R; forbids <= RW; forbids++) {
                    t->ruled[0] =
                        (struct ruled){.plan = plan, .forbids = forbids, .action = actions[action]};
                    place(&t->ruled[0], &t->at, overlap);
                    run(t);
                }
}

static void with_plans(struct test_case *t, const uint8_t plan[2])
{
    for (unsigned overlaps = 0; overlaps < OVERLAPS * OVERLAPS; overlaps++)
        for (unsigned both = 0; both < ACTIONS * ACTIONS; both++) {
            for (unsigned i = 0; i < 2; i++)
                t->ruled[i] =
                    (struct ruled){.plan = plan[i],
                                   .forbids = RW,
                                   .action = actions[i ? both / ACTIONS : both % ACTIONS]};
            place(&t->ruled[0], &t->at, overlaps % OVERLAPS);
            place(&t->ruled[1], &t->at, overlaps / OVERLAPS);
            run(t);
        }
}

/* Two rules of one context, and of two in either order of age. */
static void with_two_rules(struct test_case *t)
{
    static const uint8_t pairs[][2] = {{0, 0}, {1, 1}, {0, 3}, {3, 0}, {1, 2}};
    t->count = 2;
    for (unsigned i = 0; i < sizeof pairs / sizeof pairs[0]; i++)
        with_plans(t, pairs[i]);
}

static void run_all(const struct subject_plan *who, void (*fn)(struct test_case *t))
{
    set_up();
    each_access(who, fn);
    printf("subject %u: %llu accesses, %llu events\n", who->subject, (unsigned long long)cases,
           (unsigned long long)objections);
    ck_assert(who->subject == PROTECT_SUBJECTS ? objections == 0 : objections > cases / 4);
    finish();
}

/* _i: who. */
START_TEST(one_rule)
{
    run_all(&subjects[_i], with_one_rule);
}
END_TEST

START_TEST(two_rules)
{
    run_all(&subjects[_i], with_two_rules);
}
END_TEST

int main(void)
{
    enum { SUBJECTS = sizeof subjects / sizeof subjects[0] };
    Suite *s = suite_create("rules matrix");
    TCase *c = tcase_create("matrix");
    tcase_set_timeout(c, 250);
    tcase_add_loop_test(c, one_rule, 0, SUBJECTS);
    tcase_add_loop_test(c, two_rules, 0, SUBJECTS - 1); /* not the loader */
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
