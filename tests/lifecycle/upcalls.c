/*
 * upcalls.c - a hundred thousand upcalls, and the guest's kernel notices none of them.
 *
 * The device counts page faults and system calls of the program (its statistics); both numbers stay
 * the same from the first upcall to the last.
 */
#include "life.h"
#include <sys/mman.h>

enum { ROUNDS = 100000 };

struct work { /* shared with the handler */
    volatile uint64_t calls;
    enum protect_verdict verdict;
    volatile uint64_t next; /* value to be written */
    volatile bool wrong;
};

static enum protect_verdict handler(struct protect_frame *frame, void *opaque)
{
    struct work *work = opaque;
    work->calls++;
    work->wrong |= frame->access != PROTECT_WRITE || frame->subject != PROTECT_OWNER ||
                   frame->value[0] != work->next || frame->length != 8;
    return work->verdict;
}

/* Nothing here or below may be paged in meanwhile: everything is locked. */
static void run(enum protect_verdict verdict)
{
    struct bailey_door door;
    struct work work = {.verdict = verdict};
    struct protect_statistics before, after;
    CHECK(mlockall(MCL_CURRENT | MCL_FUTURE) == 0);
    life_open(&door, 0);
    volatile uint64_t *word = (volatile uint64_t *)life_pages(1);
    word[0] = 12345;
    CHECK_OK(bailey_handler_set(&door, handler, &work, NULL, 0, 60000));
    life_protect(&door, word, PAGE, life_rule(PROTECT_READ, PROTECT_UPCALL));
    word[0] = work.next = 1; /* the stack below is there from now on */
    after = (struct protect_statistics){0};
    CHECK_OK(bailey_statistics(&door, &after));
    uint64_t start = life_nanoseconds();
    CHECK_OK(bailey_statistics(&door, &before));
    for (uint64_t i = 1; i <= ROUNDS; i++) {
        work.next = i;
        word[0] = i;
    }
    CHECK_OK(bailey_statistics(&door, &after));
    uint64_t end = life_nanoseconds();
    CHECK(!work.wrong);
    CHECK_SAME(work.calls, ROUNDS + 1);
    CHECK_SAME(after.upcalls - before.upcalls, ROUNDS);
    CHECK_SAME(after.resumes - before.resumes, ROUNDS);
    CHECK_SAME(after.page_faults - before.page_faults, 0);
    CHECK_SAME(after.system_calls - before.system_calls, 0);
    CHECK_SAME(word[0], verdict == PROTECT_LET ? ROUNDS : 12345);
    printf("  %u upcalls, %llu ns each\n", ROUNDS, (unsigned long long)(end - start) / ROUNDS);
}

static void let_through(void)
{
    run(PROTECT_LET);
}

static void dropped(void)
{
    run(PROTECT_DROP);
}

/* The two counters do count: without this the others would say little. */
static void counters_count(void)
{
    struct bailey_door door;
    struct protect_statistics before, after;
    life_open(&door, 0);
    CHECK_OK(bailey_statistics(&door, &before));
    CHECK_OK(bailey_statistics(&door, &before));
    volatile uint8_t *fresh =
        mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    madvise((void *)(uintptr_t)fresh, 16 * PAGE, MADV_NOHUGEPAGE);
    for (unsigned i = 0; i < 16; i++)
        fresh[i * PAGE] = 1;
    CHECK_OK(bailey_statistics(&door, &after));
    CHECK(after.page_faults - before.page_faults >= 16);
    CHECK_SAME(after.system_calls - before.system_calls, 2);
}

static const struct life_test tests[] = {
    {"let_through", let_through},
    {"dropped", dropped},
    {"counters_count", counters_count},
};
LIFE_MAIN(tests)
