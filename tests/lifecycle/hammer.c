/*
 * hammer.c - one thread hammers on memory while another protects and unprotects it: from the
 * doorbell's store on, no access of the other processor gets through.
 */
#include "life.h"
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

enum { ROUNDS = 300, LOOKS = 2000 };

static struct {
    volatile uint64_t *word;
    volatile bool stop;
    volatile uint64_t refused;
} arena;

static void *store(void *opaque)
{
    (void)opaque;
    for (uint64_t n = 1; !arena.stop; n++)
        *arena.word = n;
    return NULL;
}

static void *add_locked(void *opaque)
{
    (void)opaque;
    while (!arena.stop)
        __atomic_fetch_add(arena.word, 1, __ATOMIC_SEQ_CST);
    return NULL;
}

static void store_while_it_goes(void *opaque)
{
    volatile uint64_t *n = opaque;
    while (!arena.stop)
        *arena.word = ++*n;
}

static void *store_and_catch(void *opaque)
{
    (void)opaque;
    static volatile uint64_t n;
    while (!arena.stop)
        if (life_try(store_while_it_goes, (void *)(uintptr_t)&n).signal)
            arena.refused++;
    return NULL;
}

static void wait_for_change(void)
{
    uint64_t value = *arena.word;
    while (*arena.word == value)
        sched_yield();
}

static void expect_still(void)
{
    uint64_t value = *arena.word;
    for (unsigned i = 0; i < LOOKS; i++)
        CHECK_SAME(*arena.word, value);
}

/* The other thread has met the rule: on a busy host it may not run for a while. */
static void wait_for_refusal(uint64_t before)
{
    while (arena.refused == before)
        sched_yield();
}

static void hammer(void *(*thread_main)(void *), enum protect_action action, bool new_regions)
{
    struct bailey_door door;
    pthread_t thread;
    struct protect_rule closed = life_rule(PROTECT_READ, action);
    struct protect_rule open = life_rule(PROTECT_ALL, PROTECT_ALLOW);
    closed.notify = PROTECT_NOTIFY_QUIET;
    life_open(&door, 0);
    arena.word = (volatile uint64_t *)life_pages(1);
    uint32_t region = new_regions ? 0 : life_protect(&door, arena.word, 8, open);
    CHECK(!pthread_create(&thread, NULL, thread_main, NULL));
    for (unsigned round = 0; round < ROUNDS; round++) {
        wait_for_change();
        uint64_t refused = arena.refused;
        closed.region = open.region = region;
        if (new_regions)
            region = life_protect(&door, arena.word, 8, closed);
        else
            CHECK_OK(bailey_rules_set(&door, &closed, 1));
        expect_still();
        if (action == PROTECT_DENY)
            wait_for_refusal(refused);
        if (new_regions)
            CHECK_OK(bailey_regions_remove(&door, region, 1));
        else
            CHECK_OK(bailey_rules_set(&door, &open, 1));
    }
    wait_for_change();
    arena.stop = true;
    pthread_join(thread, NULL);
}

static void stores_are_skipped(void)
{
    hammer(store, PROTECT_SKIP, false);
}
static void locked_adds_are_skipped(void)
{
    hammer(add_locked, PROTECT_SKIP, false);
}
static void regions_come_and_go(void)
{
    hammer(store, PROTECT_SKIP, true);
}
static void stores_are_refused(void)
{
    hammer(store_and_catch, PROTECT_DENY, false);
}

static const struct life_test tests[] = {
    {"stores_are_skipped", stores_are_skipped},
    {"locked_adds_are_skipped", locked_adds_are_skipped},
    {"regions_come_and_go", regions_come_and_go},
    {"stores_are_refused", stores_are_refused},
};
LIFE_MAIN(tests)
