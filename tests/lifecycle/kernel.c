/*
 * kernel.c - refusals as Linux sees them: to the program itself SIGSEGV with the right address, to
 * the kernel's copying EFAULT, to its other accesses the end of the one who asked for them. Nothing
 * hangs, nothing is retried for ever.
 */
#include "life.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* A second is meant, several are for slow hosts: what is not over by then is not going to be. */
#define LIMIT_NS 10000000000ull

static struct protect_rule kernel_rule(uint8_t allow)
{
    struct protect_rule rule = life_rule(PROTECT_ALL, PROTECT_ALLOW);
    rule.allow[PROTECT_KERNEL] = allow;
    rule.action[PROTECT_KERNEL] = PROTECT_DENY;
    return rule;
}

/* A page that the kernel may only do `allow` to. */
static uint8_t *kept_from_kernel(struct bailey_door *door, size_t offset, size_t length,
                                 uint8_t allow)
{
    life_open(door, PROTECT_GRANT_KERNEL | PROTECT_GRANT_OBSERVE);
    uint8_t *page = life_pages(1);
    memset(page, 'k', PAGE);
    life_protect(door, page + offset, length, kernel_rule(allow));
    return page;
}

/* ---- The program itself -------------------------------------------------------------------------
 */

/* The page fault's error code (SDM vol. 3, 4.7), with the marker. */
enum { P = 1, W = 2, U = 4, I = 16, MARKER = 1 << PROTECT_DEFAULT_MARKER };

static void expect_fault(struct caught c, const volatile void *at, uint64_t code)
{
    CHECK_SAME(c.signal, SIGSEGV);
    CHECK_SAME(c.code, SEGV_ACCERR);
    CHECK_SAME(c.address, at);
    CHECK_SAME(c.error, code);
}

static void store_8(void *at)
{
    *(volatile uint64_t *)at = 1;
}
static void load_8(void *at)
{
    (void)*(volatile uint64_t *)at;
}
static void call(void *at)
{
    ((void (*)(void))at)();
}

static void user_read_and_write(void)
{
    struct bailey_door door;
    life_open(&door, 0);
    uint8_t *pages = life_pages(2);
    life_protect(&door, pages + 100, 8, life_rule(0, PROTECT_DENY));
    life_protect(&door, pages + PAGE, 1, life_rule(PROTECT_READ, PROTECT_DENY));
    expect_fault(life_try(store_8, pages + 100), pages + 100, P | W | U | MARKER);
    expect_fault(life_try(store_8, pages + 93), pages + 100, P | W | U | MARKER);
    expect_fault(life_try(load_8, pages + 107), pages + 107, P | U | MARKER);
    expect_fault(life_try(store_8, pages + PAGE - 7), pages + PAGE, P | W | U | MARKER);
    CHECK_SAME(life_try(load_8, pages + PAGE - 7).signal, 0);
    CHECK_SAME(life_try(store_8, pages + 92).signal, 0);
    CHECK_SAME(life_try(store_8, pages + 108).signal, 0);
    for (unsigned i = PAGE - 7; i <= PAGE; i++) /* the refused store stored nothing */
        CHECK_SAME(pages[i], 0);
}

static void user_fetch(void)
{
    static const uint8_t code[] = {0x90, 0x90, 0x0f, 0x0b, 0x90, 0xc3}; /* NOP NOP UD2 NOP RET */
    struct bailey_door door;
    life_open(&door, 0);
    uint8_t *page = life_pages(1);
    memcpy(page, code, sizeof(code));
    CHECK(mprotect(page, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC) == 0);
    CHECK_SAME(life_try(call, page + 4).signal, 0);
    life_protect(&door, page + 5, 1, life_rule(PROTECT_READ | PROTECT_WRITE, PROTECT_DENY));
    expect_fault(life_try(call, page + 4), page + 5, P | U | I | MARKER);
    life_protect(&door, page, 2, life_rule(PROTECT_READ | PROTECT_WRITE, PROTECT_DENY));
    expect_fault(life_try(call, page), page, P | U | I | MARKER);
    expect_fault(life_try(call, page + 1), page + 1, P | U | I | MARKER);
    CHECK_SAME(life_try(call, page + 2).signal, SIGILL);
    CHECK_SAME(*(volatile uint8_t *)page, 0x90); /* reading is allowed */
}

/* ---- Copying by system calls --------------------------------------------------------------------
 */

static int zero_file(void)
{
    int fd = open("/dev/zero", O_RDONLY);
    CHECK(fd >= 0);
    return fd;
}

static void expect_kernel_event(struct bailey_door *door, const void *page, unsigned access)
{
    struct protect_event event;
    CHECK(life_event(door, PROTECT_EVENT_ACCESS, page, &event));
    CHECK_SAME(event.subject, PROTECT_KERNEL);
    CHECK_SAME(event.access, access);
    CHECK_SAME(event.action, PROTECT_DENY);
    CHECK_SAME(event.cpl, 0);
    CHECK(event.rip >> 47 == 0x1ffff); /* the kernel's half */
}

static void read_into_it(void)
{
    struct bailey_door door;
    uint8_t *page = kept_from_kernel(&door, 0, PAGE, PROTECT_READ);
    int fd = zero_file();
    uint64_t start = life_nanoseconds();
    CHECK_SAME(read(fd, page + 8, 100), -1);
    CHECK_SAME(errno, EFAULT);
    CHECK(life_nanoseconds() - start < LIMIT_NS);
    expect_kernel_event(&door, page, PROTECT_WRITE);
    for (unsigned i = 0; i < PAGE; i++)
        CHECK_SAME(page[i], 'k');
}

static void write_from_it(void)
{
    struct bailey_door door;
    int pipe_[2];
    uint8_t *page = kept_from_kernel(&door, 0, PAGE, PROTECT_WRITE);
    CHECK(pipe(pipe_) == 0);
    uint64_t start = life_nanoseconds();
    CHECK_SAME(write(pipe_[1], page + 8, 100), -1);
    CHECK_SAME(errno, EFAULT);
    CHECK(life_nanoseconds() - start < LIMIT_NS);
    expect_kernel_event(&door, page, PROTECT_READ);
}

/* Bytes in the middle: what comes before them is copied or not, what comes behind them never. */
static void middle_of_a_buffer(void)
{
    struct bailey_door door;
    uint8_t *page = kept_from_kernel(&door, 1000, 16, 0);
    int fd = zero_file();
    long n = read(fd, page, PAGE);
    CHECK(n == -1 ? errno == EFAULT : n <= 1000);
    for (unsigned i = 1000; i < PAGE; i++)
        CHECK_SAME(page[i], 'k');
    int file = open("/tmp", O_TMPFILE | O_RDWR, 0600);
    CHECK(file >= 0);
    n = write(file, page, PAGE);
    CHECK(n == -1 ? errno == EFAULT : n <= 1000);
    CHECK_SAME(read(fd, page + 1016, PAGE - 1016), PAGE - 1016);
}

/* The kernel's other user accesses. */
static void small_copies(void)
{
    struct bailey_door door;
    uint8_t *page = kept_from_kernel(&door, 0, PAGE, 0);
    CHECK_SAME(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, page), -1); /* not the vDSO's */
    CHECK_SAME(errno, EFAULT);
    CHECK_SAME(open((char *)page, O_RDONLY), -1);
    CHECK_SAME(errno, EFAULT);
    CHECK_SAME(syscall(SYS_futex, page, 0 /* FUTEX_WAIT */, 1, NULL, NULL, 0), -1);
    CHECK_SAME(errno, EFAULT);
    CHECK_SAME(pipe((int *)page), -1);
    CHECK_SAME(errno, EFAULT);
}

/* FUTEX_WAKE_OP on a word that the kernel may not write is retried for ever when it is refused,
 * since the page tables say that it may; with PROTECT_SKIP it ends (docs/protection.md, limits). */
static void futex_word_skipped(void)
{
    enum { FUTEX_WAKE_OP_ = 5, SET_TO_1 = 1 << 12 };
    static uint32_t other;
    struct bailey_door door;
    struct protect_rule rule = kernel_rule(PROTECT_READ);
    rule.action[PROTECT_KERNEL] = PROTECT_SKIP;
    life_open(&door, PROTECT_GRANT_KERNEL | PROTECT_GRANT_OBSERVE);
    volatile uint32_t *word = (volatile uint32_t *)life_pages(1);
    *word = 77;
    life_protect(&door, word, 4, rule);
    CHECK_SAME(syscall(SYS_futex, &other, FUTEX_WAKE_OP_, 1, 1, word, SET_TO_1), 0);
    CHECK_SAME(*word, 77);
    struct protect_event event;
    CHECK(life_event(&door, PROTECT_EVENT_ACCESS, word, &event));
    CHECK_SAME(event.subject, PROTECT_KERNEL);
    CHECK_SAME(event.access, PROTECT_READ | PROTECT_WRITE); /* XCHG */
    CHECK_SAME(event.action, PROTECT_SKIP);
}

static void take_signal(void *opaque)
{
    uint8_t *stack = opaque;
    stack_t alternate = {.ss_sp = stack, .ss_size = 4 * PAGE};
    struct bailey_door door;
    life_open(&door, PROTECT_GRANT_KERNEL);
    CHECK(sigaltstack(&alternate, NULL) == 0);
    life_protect(&door, stack, 4 * PAGE, kernel_rule(PROTECT_READ));
    raise(SIGILL); /* whose handler runs there */
}

/* A signal whose frame cannot be written ends the process, as with any bad stack. */
static void signal_frame(void)
{
    uint8_t *stack = life_pages(4);
    int status = life_child(take_signal, stack);
    CHECK(WIFSIGNALED(status));
    CHECK_SAME(WTERMSIG(status), SIGSEGV);
}

/* process_vm_readv() copies from the kernel's own mapping of the frame. */
struct target {
    pid_t pid;
    uint8_t *page;
};

static void copy_remote(void *opaque)
{
    const struct target *t = opaque;
    char buffer[64] = "";
    struct iovec here = {buffer, sizeof(buffer)}, there = {t->page, sizeof(buffer)};
    CHECK_SAME(process_vm_readv(t->pid, &here, 1, &there, 1, 0), -1);
    CHECK_SAME(errno, EFAULT);
    CHECK(!memchr(buffer, 'k', sizeof(buffer)));
}

static void process_vm(void)
{
    struct bailey_door door;
    struct target t = {getpid(), kept_from_kernel(&door, 0, PAGE, PROTECT_WRITE)};
    uint64_t start = life_nanoseconds();
    CHECK_CHILD(copy_remote, &t);
    CHECK(life_nanoseconds() - start < LIMIT_NS);
    expect_kernel_event(&door, t.page, PROTECT_READ);
}

static const struct life_test tests[] = {
    {"user_read_and_write", user_read_and_write},
    {"user_fetch", user_fetch},
    {"read_into_it", read_into_it},
    {"write_from_it", write_from_it},
    {"middle_of_a_buffer", middle_of_a_buffer},
    {"small_copies", small_copies},
    {"futex_word_skipped", futex_word_skipped},
    {"signal_frame", signal_frame},
    {"process_vm", process_vm},
};
LIFE_MAIN(tests)
