/*
 * fork.c - fork, copy-on-write, vfork: the rule stays with its owner's page, and a child, which has
 * the same memory and perhaps the same door, changes nothing.
 */
#include "life.h"
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

/* The two sides take turns. */
struct turns {
    volatile uint32_t turn;
};

static void wait_for(struct turns *t, uint32_t turn)
{
    while (t->turn != turn)
        usleep(1000);
}

/* ---- Copy-on-write ------------------------------------------------------------------------------
 */

static void write_copy(void *opaque)
{
    volatile uint8_t *page = opaque;
    uint64_t shared = life_frame(page);
    CHECK_SAME(*page, 'p');
    CHECK_SAME(life_write(page, 'c').signal, 0);
    CHECK_SAME(*page, 'c');
    CHECK(life_frame(page) != shared);
    for (unsigned i = 1; i < PAGE; i++)
        page[i] = (uint8_t)i; /* it goes on working */
}

static void child_writes_its_copy(void)
{
    struct bailey_door door;
    struct protect_event event;
    life_open(&door, 0);
    volatile uint8_t *page = life_pages(1);
    *page = 'p';
    life_protect(&door, page, PAGE, life_rule(PROTECT_READ, PROTECT_DENY));
    CHECK_CHILD(write_copy, (void *)(uintptr_t)page);
    uint64_t frame = life_frame(page);
    CHECK_REFUSES(page);
    CHECK_SAME(*page, 'p');
    /* In its frame or, while the kernel still counts a user of that, in a copy: then its table has
     * been without an entry for a moment. */
    CHECK_SAME(life_event(&door, PROTECT_EVENT_UNMAPPED, NULL, &event), life_frame(page) != frame);
}

/* With others restricted, too: the shared frame is out of the child's reach, its copy is not. */
static void read_then_write(void *opaque)
{
    volatile uint8_t *page = opaque;
    struct caught c = life_read(page);
    CHECK_SAME(c.signal, SIGSEGV);
    CHECK_SAME(c.address, page);
    CHECK_SAME(life_write(page, 'c').signal, 0); /* #PF first, and with it the copy */
    CHECK_SAME(life_read(page).signal, 0);
    CHECK_SAME(*page, 'c');
}

static void child_is_kept_off_the_shared_frame(void)
{
    struct bailey_door door;
    struct protect_event event;
    life_open(&door, PROTECT_GRANT_USERS | PROTECT_GRANT_OBSERVE);
    volatile uint8_t *page = life_pages(1);
    *page = 'p';
    struct protect_rule rule = life_rule(PROTECT_READ | PROTECT_WRITE, PROTECT_DENY);
    rule.allow[PROTECT_OTHER_USER] = 0;
    rule.action[PROTECT_OTHER_USER] = PROTECT_DENY;
    life_protect(&door, page, PAGE, rule);
    CHECK_CHILD(read_then_write, (void *)(uintptr_t)page);
    CHECK_SAME(*page, 'p');
    CHECK(life_event(&door, PROTECT_EVENT_ACCESS, page, &event));
    CHECK_SAME(event.subject, PROTECT_OTHER_USER);
    CHECK_SAME(event.access, PROTECT_READ);
    CHECK(!life_event(&door, PROTECT_EVENT_ACCESS, page, &event));
}

struct sharing {
    struct turns turns;
    volatile uint8_t *page;
};

static void hold_page(void *opaque)
{
    struct sharing *s = opaque;
    uint64_t frame = life_frame(s->page);
    s->turns.turn = 1;
    wait_for(&s->turns, 2);
    /* the parent has a new frame; this one is the child's now, and no rule is left on it */
    CHECK_SAME(life_frame(s->page), frame);
    CHECK_SAME(*s->page, 'p');
    CHECK_SAME(life_write(s->page, 'c').signal, 0);
    CHECK_SAME(*s->page, 'c');
}

/* The parent's own write breaks the sharing: its page moves to a new frame, and so does its rule,
 * before the write is refused. */
static void rule_follows_the_parents_copy(void)
{
    struct bailey_door door;
    struct protect_event event;
    struct protect_query query;
    struct sharing *s = life_shared(sizeof(*s));
    life_open(&door, PROTECT_GRANT_PHYSICAL);
    s->page = life_pages(1);
    *s->page = 'p';
    uint64_t frame = life_frame(s->page);
    life_protect(&door, s->page, PAGE, life_rule(PROTECT_READ, PROTECT_DENY));
    pid_t pid = fork();
    if (pid == 0) {
        hold_page(s);
        _exit(0);
    }
    wait_for(&s->turns, 1);
    CHECK_REFUSES(s->page + 5);
    CHECK(life_frame(s->page) != frame);
    CHECK(life_event(&door, PROTECT_EVENT_MOVED, s->page, &event));
    CHECK(life_event(&door, PROTECT_EVENT_ACCESS, s->page, &event));
    CHECK_SAME(event.gpa, life_frame(s->page) * PAGE + 5);
    CHECK_OK(bailey_query(&door, s->page, &query));
    CHECK_SAME(query.resolved, 1);
    s->turns.turn = 2;
    int status;
    CHECK_SAME(waitpid(pid, &status, 0), pid);
    CHECK_SAME(status, 0);
    CHECK_REFUSES(s->page);
    CHECK_SAME(*s->page, 'p');
}

/* ---- The child at the door ----------------------------------------------------------------------
 */

struct burglary {
    struct bailey_door door;
    uint32_t region;
};

static void try_everything(struct bailey_door *door, uint32_t region)
{
    struct protect_rule open = life_rule(PROTECT_ALL, PROTECT_ALLOW);
    open.region = region;
    CHECK_SAME(bailey_rules_set(door, &open, 1), PROTECT_WRONG_CALLER);
    CHECK_SAME(bailey_regions_remove(door, region, 1), PROTECT_WRONG_CALLER);
    CHECK_SAME(bailey_command(door, PROTECT_OP_SET_HANDLER, 0, 0, NULL), PROTECT_WRONG_CALLER);
    CHECK_SAME(bailey_seal(door, PROTECT_SEAL_ALL), PROTECT_WRONG_CALLER);
    CHECK_SAME(bailey_command(door, PROTECT_OP_UNBIND, 0, 0, NULL), PROTECT_WRONG_CALLER);
    CHECK_SAME(bailey_command(door, PROTECT_OP_BIND, 0, 0, NULL), PROTECT_WRONG_CALLER);
    door->regs->masked = 1;
    door->regs->event_tail = door->regs->event_head;
    door->regs->resume = PROTECT_RESUME(1, PROTECT_LET);
    /* and sees neither the session nor events */
    for (unsigned slot = 0; slot < PROTECT_COMMANDS; slot++)
        CHECK(door->regs->command[slot].session != door->session);
    for (unsigned slot = 0; slot < PROTECT_EVENTS; slot++)
        CHECK_SAME(door->regs->event[slot].sequence, 0);
}

/* Through the parent's own mapping, at the same address. */
static void break_in(void *opaque)
{
    struct burglary *b = opaque;
    try_everything(&b->door, b->region);
}

/* Through a mapping of its own. */
static void break_in_anew(void *opaque)
{
    struct burglary *b = opaque;
    b->door.regs = &life_doors()[b->door.index];
    try_everything(&b->door, b->region);
}

static void child_at_the_door(void)
{
    struct burglary b;
    struct protect_event event;
    struct protect_statistics before, after;
    /* not through the library, which keeps the mapping from children */
    CHECK_OK(bailey_door_open(&b.door, life_doors(), PROTECT_DOORS));
    volatile uint8_t *page = life_pages(1);
    b.region = life_protect(&b.door, page, PAGE, life_rule(PROTECT_READ, PROTECT_DENY));
    CHECK_REFUSES(page);
    CHECK_OK(bailey_statistics(&b.door, &before));
    CHECK_CHILD(break_in, &b);
    CHECK_CHILD(break_in_anew, &b);
    CHECK_OK(bailey_statistics(&b.door, &after));
    CHECK_SAME(after.commands, before.commands + 1); /* ours; at most refused ones of others */
    CHECK_SAME(b.door.regs->seals, 0);
    CHECK_SAME(b.door.regs->masked, 0);
    CHECK_SAME(b.door.regs->event_tail, 0);
    CHECK_REFUSES(page);
    CHECK(life_event(&b.door, PROTECT_EVENT_ACCESS, page, &event));
}

/* The library keeps the door from children altogether. */
static void touch_door(void *opaque)
{
    struct burglary *b = opaque;
    CHECK_SAME(life_read((volatile void *)b->door.regs).signal, SIGSEGV);
}

static void door_is_not_inherited(void)
{
    struct burglary b;
    life_open(&b.door, 0);
    CHECK_CHILD(touch_door, &b);
    CHECK_SAME(b.door.regs->id, PROTECT_ID);
}

/* A child may have a context of its own, with the same memory in it. */
static void protect_copy(void *opaque)
{
    volatile uint8_t *page = opaque;
    struct bailey_door door;
    life_open(&door, 0);
    bailey_touch(page, 1, BAILEY_TOUCH_WRITE);
    life_protect(&door, page + 16, 16, life_rule(PROTECT_READ, PROTECT_DENY));
    CHECK_REFUSES(page + 16);
    CHECK_SAME(life_write(page, 1).signal, 0); /* what the parent protects */
}

static void child_protects_its_copy(void)
{
    struct bailey_door door;
    life_open(&door, 0);
    volatile uint8_t *page = life_pages(1);
    life_protect(&door, page, 16, life_rule(PROTECT_READ, PROTECT_DENY));
    CHECK_CHILD(protect_copy, (void *)(uintptr_t)page);
    CHECK_SAME(life_write(page + 16, 1).signal, 0);
    CHECK_REFUSES(page);
}

/* ---- vfork --------------------------------------------------------------------------------------
 */

/* The child of vfork is in the owner's address space, and so is the owner. */
static void vfork_and_exec(void)
{
    struct bailey_door door;
    life_open(&door, 0);
    volatile uint8_t *page = life_pages(1);
    life_protect(&door, page, PAGE, life_rule(PROTECT_READ, PROTECT_DENY));
    static volatile int tried;
    pid_t pid = vfork();
    if (pid == 0) {
        tried = life_write(page, 1).signal;
        execl("/bin/busybox", "true", (char *)NULL);
        _exit(99);
    }
    int status;
    CHECK_SAME(waitpid(pid, &status, 0), pid);
    CHECK_SAME(status, 0);
    CHECK_SAME(tried, SIGSEGV);
    CHECK_SAME(door.regs->state, PROTECT_DOOR_USER);
    CHECK_REFUSES(page);
    struct protect_query query;
    CHECK_OK(bailey_query(&door, page, &query));
}

/* A family tree: each generation forks and writes; the root's rule never moves off its page. */
static void generations(void *opaque)
{
    volatile uint8_t *page = opaque;
    for (unsigned i = 0; i < 5; i++) {
        CHECK_SAME(life_write(page + i, (uint8_t)i).signal, 0);
        pid_t pid = fork();
        if (pid) {
            int status;
            CHECK_SAME(waitpid(pid, &status, 0), pid);
            CHECK_SAME(status, 0);
            CHECK_SAME(page[i], i);
            _exit(0);
        }
        page[i] = 0x80;
    }
}

static void many_generations(void)
{
    struct bailey_door door;
    life_open(&door, 0);
    volatile uint8_t *page = life_pages(1);
    life_protect(&door, page, PAGE, life_rule(PROTECT_READ, PROTECT_DENY));
    for (unsigned i = 0; i < 5; i++) {
        CHECK_CHILD(generations, (void *)(uintptr_t)page);
        CHECK_REFUSES(page + i);
    }
    CHECK_SAME(page[0], 0);
}

static const struct life_test tests[] = {
    {"child_writes_its_copy", child_writes_its_copy},
    {"child_is_kept_off_the_shared_frame", child_is_kept_off_the_shared_frame},
    {"rule_follows_the_parents_copy", rule_follows_the_parents_copy},
    {"child_at_the_door", child_at_the_door},
    {"door_is_not_inherited", door_is_not_inherited},
    {"child_protects_its_copy", child_protects_its_copy},
    {"vfork_and_exec", vfork_and_exec},
    {"many_generations", many_generations},
};
LIFE_MAIN(tests)
