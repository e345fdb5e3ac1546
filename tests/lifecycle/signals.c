/*
 * signals.c - handlers among signals, threads and processes: upcalls of several threads at once,
 * fork, exec and exit inside a handler, handlers that take too long, deferred upcalls.
 */
#include "life.h"
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define BARRIER() __asm__ volatile("" ::: "memory")

/* ---- Threads ------------------------------------------------------------------------------------
 */

enum { THREADS = 2, EACH = 5000, STACKS = 4, STACK = 4 * PAGE };

static struct {
    uint8_t *stacks; /* NULL: the threads' own */
    volatile uint8_t *page;
    uint32_t busy[STACKS], calls, deepest;
    volatile bool wrong;
} team;

static enum protect_verdict count_call(struct protect_frame *frame, void *opaque)
{
    (void)opaque;
    __atomic_fetch_add(&team.calls, 1, __ATOMIC_RELAXED);
    uint32_t deepest = __atomic_load_n(&team.deepest, __ATOMIC_RELAXED);
    if (frame->depth > deepest)
        __atomic_store_n(&team.deepest, frame->depth, __ATOMIC_RELAXED);
    uint64_t address = (uintptr_t)frame;
    if (!team.stacks) { /* on the faulting thread's own stack, below its red zone */
        team.wrong |=
            address + sizeof(*frame) > frame->gpr[4] - 128 || frame->gpr[4] - address > 1024;
        return PROTECT_LET;
    }
    uint64_t stack = (address - (uintptr_t)team.stacks) / STACK;
    if (stack >= STACKS || __atomic_exchange_n(&team.busy[stack], 1, __ATOMIC_ACQUIRE)) {
        team.wrong = true; /* not one of ours, or somebody is on it */
        return PROTECT_LET;
    }
    for (volatile unsigned i = 0; i < 20; i++)
        ;
    __atomic_store_n(&team.busy[stack], 0, __ATOMIC_RELEASE);
    return PROTECT_LET;
}

static void *increment(void *opaque)
{
    volatile uint64_t *word = opaque;
    for (unsigned i = 0; i < EACH; i++)
        *word = *word + 1;
    return NULL;
}

static void two_threads(bool alternate)
{
    struct bailey_door door;
    pthread_t thread[THREADS];
    void *tops[STACKS];
    life_open(&door, 0);
    team.page = life_pages(1);
    if (alternate)
        team.stacks = life_pages(STACKS * STACK / PAGE);
    for (unsigned i = 0; i < STACKS; i++)
        tops[i] = team.stacks + (size_t)(i + 1) * STACK;
    CHECK_OK(bailey_handler_set(&door, count_call, NULL, tops, alternate ? STACKS : 0, 60000));
    life_protect(&door, team.page, PAGE, life_rule(PROTECT_READ, PROTECT_UPCALL));
    for (unsigned i = 0; i < THREADS; i++)
        CHECK(
            !pthread_create(&thread[i], NULL, increment, (void *)(uintptr_t)(team.page + 64 * i)));
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    CHECK(!team.wrong);
    CHECK_SAME(team.calls, THREADS * EACH);
    for (unsigned i = 0; i < THREADS; i++)
        CHECK_SAME(*(volatile uint64_t *)(team.page + 64 * i), EACH);
    CHECK_SAME(door.regs->upcall_depth, 0);
    CHECK(team.deepest <= THREADS);
    printf("  at most %u at a time\n", team.deepest);
}

static void threads_on_their_own_stacks(void)
{
    two_threads(false);
}
static void threads_on_alternate_stacks(void)
{
    two_threads(true);
}

/* The only stack is taken: the second thread's access is refused, and the first goes on. */
static volatile int second_signal = -1;

static enum protect_verdict wait_for_second(struct protect_frame *frame, void *opaque)
{
    (void)frame;
    (void)opaque;
    while (second_signal < 0)
        usleep(1000);
    return PROTECT_LET;
}

static void *second(void *opaque)
{
    struct bailey_door *door = opaque;
    while (door->regs->upcall_depth == 0)
        usleep(1000);
    second_signal = life_write(team.page + 1, 2).signal;
    return NULL;
}

static void no_stack_is_free(void)
{
    struct bailey_door door;
    pthread_t thread;
    life_open(&door, 0);
    team.page = life_pages(1);
    void *top = life_pages(4) + 4 * PAGE;
    CHECK_OK(bailey_handler_set(&door, wait_for_second, NULL, &top, 1, 60000));
    life_protect(&door, team.page, PAGE, life_rule(PROTECT_READ, PROTECT_UPCALL));
    CHECK(!pthread_create(&thread, NULL, second, &door));
    CHECK_SAME(life_write(team.page, 1).signal, 0);
    pthread_join(thread, NULL);
    CHECK_SAME(second_signal, SIGSEGV);
    CHECK_SAME(team.page[0], 1);
    CHECK_SAME(team.page[1], 0);
}

/* ---- fork, exec, exit inside a handler ----------------------------------------------------------
 */

static struct {
    struct bailey_door door;
    int status;
    uint64_t token;
    unsigned calls;
    uint64_t resumed;
    sigjmp_buf out;
} inside;

static volatile uint8_t *guarded(bailey_handler *handler, unsigned timeout_ms, void *const *stacks,
                                 unsigned count)
{
    /* not through the library, which keeps the mapping from children */
    CHECK_OK(bailey_door_open(&inside.door, life_doors(), PROTECT_DOORS));
    volatile uint8_t *page = life_pages(1);
    CHECK_OK(bailey_handler_set(&inside.door, handler, NULL, stacks, count, timeout_ms));
    life_protect(&inside.door, page, PAGE, life_rule(PROTECT_READ, PROTECT_UPCALL));
    return page;
}

/* Fork makes the page read-only, so that the access meets a page fault of the guest first, and is
 * asked about a second time. */
static enum protect_verdict fork_inside(struct protect_frame *frame, void *opaque)
{
    (void)opaque;
    if (++inside.calls > 1)
        return PROTECT_LET;
    pid_t pid = fork();
    if (pid == 0) {
        /* the parent's token, from another address space: the store has no effect */
        inside.door.regs->resume = PROTECT_RESUME(frame->token, PROTECT_LET);
        _exit(33);
    }
    waitpid(pid, &inside.status, 0);
    return PROTECT_LET;
}

static void fork_in_a_handler(void)
{
    volatile uint8_t *page = guarded(fork_inside, 60000, NULL, 0);
    CHECK_SAME(life_write(page, 1).signal, 0);
    CHECK(WIFEXITED(inside.status));
    CHECK_SAME(WEXITSTATUS(inside.status), 33);
    CHECK_SAME(inside.calls, 2);
    CHECK_SAME(*page, 1);
    CHECK_SAME(inside.door.regs->upcall_depth, 0);
}

static enum protect_verdict exec_inside(struct protect_frame *frame, void *opaque)
{
    (void)frame;
    (void)opaque;
    execl("/bin/busybox", "true", (char *)NULL);
    return PROTECT_LET;
}

/* What is left is seen by life_main(): nothing. */
static void exec_in_a_handler(void)
{
    volatile uint8_t *page = guarded(exec_inside, 0, NULL, 0);
    *page = 1;
    life_fail(__FILE__, __LINE__, "exec() did not happen");
}

static enum protect_verdict exit_inside(struct protect_frame *frame, void *opaque)
{
    (void)frame;
    (void)opaque;
    _exit(0);
}

static void exit_in_a_handler(void)
{
    volatile uint8_t *page = guarded(exit_inside, 0, NULL, 0);
    *page = 1;
    life_fail(__FILE__, __LINE__, "exit() did not happen");
}

static enum protect_verdict leave_thread(struct protect_frame *frame, void *opaque)
{
    (void)frame;
    (void)opaque;
    if (++inside.calls == 1)
        syscall(SYS_exit, 0);
    return PROTECT_LET;
}

static void *fault_once(void *opaque)
{
    *(volatile uint8_t *)opaque = 1;
    return NULL;
}

/* The thread takes the only stack with it, until the time is up. */
static void thread_exits_in_a_handler(void)
{
    pthread_t thread;
    void *top = life_pages(4) + 4 * PAGE;
    volatile uint8_t *page = guarded(leave_thread, 500, &top, 1);
    CHECK(!pthread_create(&thread, NULL, fault_once, (void *)(uintptr_t)page));
    while (inside.calls == 0)
        usleep(1000);
    CHECK_SAME(inside.door.regs->upcall_depth, 1);
    usleep(1000000);
    CHECK_SAME(life_write(page + 1, 2).signal, 0);
    CHECK_SAME(inside.calls, 2);
    CHECK_SAME(page[0], 0);
    CHECK_SAME(page[1], 2);
    struct protect_statistics statistics;
    CHECK_OK(bailey_statistics(&inside.door, &statistics));
    CHECK_SAME(statistics.timeouts, 1);
}

/* ---- Time and tokens ----------------------------------------------------------------------------
 */

static enum protect_verdict take_long(struct protect_frame *frame, void *opaque)
{
    (void)opaque;
    usleep(300000);
    inside.door.regs->resume = PROTECT_RESUME(frame->token, PROTECT_LET);
    inside.resumed = inside.door.regs->resume_status; /* it came back: the token is void */
    siglongjmp(inside.out, 1);
}

static void handler_takes_too_long(void)
{
    struct protect_event event;
    struct protect_statistics statistics;
    volatile uint8_t *page = guarded(take_long, 50, NULL, 0);
    if (!sigsetjmp(inside.out, 1))
        *page = 1;
    CHECK_SAME(inside.resumed, PROTECT_BAD_TOKEN);
    CHECK_SAME(*page, 0);
    CHECK_SAME(inside.door.regs->upcall_depth, 0);
    CHECK_OK(bailey_statistics(&inside.door, &statistics));
    CHECK_SAME(statistics.timeouts, 1);
    CHECK(life_event(&inside.door, PROTECT_EVENT_TIMEOUT, NULL, &event));
}

static enum protect_verdict remember_token(struct protect_frame *frame, void *opaque)
{
    (void)opaque;
    inside.token = frame->token;
    return PROTECT_LET;
}

static void token_twice(void)
{
    volatile uint8_t *page = guarded(remember_token, 0, NULL, 0);
    *page = 1;
    BARRIER();
    CHECK_SAME(*page, 1);
    inside.door.regs->resume = PROTECT_RESUME(inside.token, PROTECT_LET);
    CHECK_SAME(inside.door.regs->resume_status, PROTECT_BAD_TOKEN);
    inside.door.regs->resume = PROTECT_RESUME(inside.token ^ 1, PROTECT_LET);
    CHECK_SAME(inside.door.regs->resume_status, PROTECT_BAD_TOKEN);
}

/* ---- Signals ------------------------------------------------------------------------------------
 */

static volatile unsigned ticks;
static volatile uint64_t *in_signal;

static void tick(int signal)
{
    (void)signal;
    ticks++;
    ++*in_signal; /* an upcall in the middle of another one, perhaps */
}

static void signals_among_upcalls(void)
{
    struct bailey_door door;
    struct sigaction action = {.sa_handler = tick, .sa_flags = SA_RESTART};
    const struct itimerval timer = {{0, 2000}, {0, 2000}}, off = {{0, 0}, {0, 0}};
    life_open(&door, 0);
    team.page = life_pages(1);
    in_signal = (volatile uint64_t *)(team.page + 512);
    CHECK_OK(bailey_handler_set(&door, count_call, NULL, NULL, 0, 60000));
    life_protect(&door, team.page, PAGE, life_rule(PROTECT_READ, PROTECT_UPCALL));
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &timer, NULL);
    volatile uint64_t *word = (volatile uint64_t *)team.page;
    uint64_t rounds = 0;
    while (ticks < 50) {
        *word = ++rounds;
        CHECK_SAME(*word, rounds);
    }
    setitimer(ITIMER_REAL, &off, NULL);
    CHECK_SAME(*in_signal, ticks);
    CHECK_SAME(team.calls, rounds + ticks);
    CHECK_SAME(door.regs->upcall_depth, 0);
}

/* ---- Deferred upcalls ---------------------------------------------------------------------------
 */

/* The kernel may copy in pieces of any size, each an access of its own. */
static struct {
    uint8_t *page;
    volatile unsigned calls;
    volatile bool wrong;
    uint8_t times[PAGE]; /* by byte of the page: how often it was written */
} deferred;

static enum protect_verdict note_frame(struct protect_frame *frame, void *opaque)
{
    (void)opaque;
    deferred.calls++;
    deferred.wrong |=
        frame->deferred != 1 || frame->subject != PROTECT_KERNEL || frame->access != PROTECT_WRITE;
    uint64_t offset = frame->home - (uintptr_t)deferred.page;
    for (unsigned i = 0; i < frame->length && offset + i < PAGE; i++) {
        deferred.times[offset + i]++;
        if (i < 16)
            deferred.wrong |= ((uint8_t *)frame->preimage)[i] != 'b'; /* what read() replaced */
    }
    return PROTECT_RETRY;
}

static void expect_written(unsigned from, unsigned to)
{
    CHECK(!deferred.wrong);
    for (unsigned i = 0; i < PAGE; i++)
        CHECK_SAME(deferred.times[i], i >= from && i < to);
}

static uint8_t *deferring(struct bailey_door *door)
{
    struct protect_rule rule = life_rule(PROTECT_ALL, PROTECT_ALLOW);
    rule.allow[PROTECT_KERNEL] = PROTECT_READ;
    rule.action[PROTECT_KERNEL] = PROTECT_DEFERRED;
    rule.notify = PROTECT_NOTIFY_PREIMAGE;
    life_open(door, 0);
    deferred.page = life_pages(1);
    memset(deferred.page, 'b', PAGE);
    CHECK_OK(bailey_handler_set(door, note_frame, NULL, NULL, 0, 0));
    life_protect(door, deferred.page, PAGE, rule);
    return deferred.page;
}

static int full_pipe(void)
{
    int pipe_[2];
    CHECK(pipe(pipe_) == 0);
    CHECK_SAME(write(pipe_[1], "12345678", 8), 8);
    return pipe_[0];
}

static void deferred_after_read(void)
{
    struct bailey_door door;
    uint8_t *page = deferring(&door);
    int fd = full_pipe();
    CHECK_SAME(read(fd, page + 64, 8), 8); /* never fails oddly */
    CHECK(!memcmp(page + 64, "12345678", 8));
    expect_written(64, 72);
    CHECK_SAME(door.regs->upcall_depth, 0);
}

static void deferred_while_masked(void)
{
    struct bailey_door door;
    uint8_t *page = deferring(&door);
    int fd = full_pipe();
    door.regs->masked = 1;
    CHECK_SAME(read(fd, page, 4), 4);
    CHECK_SAME(read(fd, page + 4, 4), 4);
    CHECK_SAME(deferred.calls, 0);
    door.regs->masked = 0;
    getppid(); /* by then at the latest: back at CPL 3 */
    expect_written(0, 8);
    CHECK_SAME(door.regs->upcall_depth, 0);
}

/* More than the device can put off: the rest is counted. */
static void deferred_too_many(void)
{
    enum { READS = 40 };
    struct bailey_door door;
    struct protect_statistics statistics;
    uint8_t *page = deferring(&door);
    int fd = open("/dev/zero", O_RDONLY);
    door.regs->masked = 1;
    for (unsigned i = 0; i < READS; i++) {
        CHECK_SAME(read(fd, page + i, 1), 1);
        life_drain(&door); /* the ring loses nothing */
    }
    door.regs->masked = 0;
    getppid();
    CHECK_OK(bailey_statistics(&door, &statistics));
    CHECK_SAME(statistics.deferred, READS);
    CHECK(deferred.calls > 0 && !deferred.wrong);
    CHECK_SAME(deferred.calls + statistics.lost_events, READS);
}

static const struct life_test tests[] = {
    {"threads_on_their_own_stacks", threads_on_their_own_stacks},
    {"threads_on_alternate_stacks", threads_on_alternate_stacks},
    {"no_stack_is_free", no_stack_is_free},
    {"fork_in_a_handler", fork_in_a_handler},
    {"exec_in_a_handler", exec_in_a_handler},
    {"exit_in_a_handler", exit_in_a_handler},
    {"thread_exits_in_a_handler", thread_exits_in_a_handler},
    {"handler_takes_too_long", handler_takes_too_long},
    {"token_twice", token_twice},
    {"signals_among_upcalls", signals_among_upcalls},
    {"deferred_after_read", deferred_after_read},
    {"deferred_while_masked", deferred_while_masked},
    {"deferred_too_many", deferred_too_many},
};
LIFE_MAIN(tests)
