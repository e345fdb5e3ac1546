/*
 * gc.c - the write-barrier example: which pages has the program written since the last look? Asked
 * of the door by upcalls, and of the operating system by mprotect() and SIGSEGV, in one run.
 *
 * usage: gc [PAGES]
 *
 * That is what a garbage collector needs to know for its old generation, and a snapshot for its
 * next increment.
 */
#include "bailey_guest.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <x86intrin.h>

enum { PAGE = 4096, MAX_PAGES = 1 << 16, ROUNDS = 8 };

static char *heap;
static unsigned pages;
static unsigned char dirty[MAX_PAGES]; /* what a barrier noticed */
static unsigned traps;

static void die(const char *what, const char *why)
{
    fprintf(stderr, "gc: %s: %s\n", what, why);
    exit(2);
}

static void check(const char *what, int status)
{
    if (status != PROTECT_OK)
        die(what, bailey_status_text(status));
}

/* ---- A barrier of upcalls: a region for each page, writes ask the handler -----------------------
 */

static struct bailey_door door;
static uint32_t first_region;

static struct protect_rule rule_for(uint32_t page, uint32_t count, uint8_t allow)
{
    struct protect_rule rule =
        PROTECT_RULE_DEFAULT(first_region + page, count, allow, PROTECT_UPCALL);
    rule.allow[PROTECT_KERNEL] = PROTECT_ALL; /* system calls write where they are told to */
    rule.notify = PROTECT_NOTIFY_QUIET;
    return rule;
}

/* The first write to a page: noted, and the page is open until the next arming. */
static enum protect_verdict on_write(struct protect_frame *frame, void *opaque)
{
    uint32_t page = (uint32_t)frame->cookie;
    struct protect_rule rule = rule_for(page, 1, PROTECT_ALL);
    (void)opaque;
    dirty[page] = 1;
    traps++;
    return bailey_rules_set(&door, &rule, 1) == PROTECT_OK ? PROTECT_RETRY : PROTECT_REFUSE;
}

static void upcalls_open(void)
{
    struct protect_region *regions = calloc(pages, sizeof(*regions));
    if (!regions)
        die("regions", "no memory");
    for (unsigned n = 0; n < pages; n++) {
        regions[n].base = (uintptr_t)heap + (uint64_t)n * PAGE;
        regions[n].length = PAGE;
        regions[n].cookie = n;
    }
    check("opening a door", bailey_linux_open(&door));
    check("setting the handler", bailey_handler_set(&door, on_write, NULL, NULL, 0, 0));
    check("adding regions", bailey_regions_add(&door, regions, pages, &first_region));
    free(regions);
}

static void upcalls_arm(void)
{
    struct protect_rule rule = rule_for(0, pages, PROTECT_READ | PROTECT_EXEC);
    check("arming", bailey_rules_set(&door, &rule, 1));
}

static void upcalls_close(void)
{
    check("closing the door", bailey_linux_close(&door));
}

/* ---- A barrier of the operating system's --------------------------------------------------------
 */

static void on_signal(int signal, siginfo_t *info, void *context)
{
    size_t page = ((size_t)info->si_addr - (size_t)heap) / PAGE;
    (void)signal;
    (void)context;
    if (page >= pages)
        abort();
    dirty[page] = 1;
    traps++;
    mprotect(heap + page * PAGE, PAGE, PROT_READ | PROT_WRITE);
}

static void signals_open(void)
{
    struct sigaction action = {.sa_flags = SA_SIGINFO};
    action.sa_sigaction = on_signal;
    sigaction(SIGSEGV, &action, NULL);
}

static void signals_arm(void)
{
    mprotect(heap, (size_t)pages * PAGE, PROT_READ);
}

static void signals_close(void)
{
    mprotect(heap, (size_t)pages * PAGE, PROT_READ | PROT_WRITE);
    signal(SIGSEGV, SIG_DFL);
}

/* ---- The program that is watched ----------------------------------------------------------------
 */

/* Writes to every third page, twice: only the first write is to be noticed. */
static unsigned mutate(unsigned round)
{
    unsigned written = 0;
    for (unsigned pass = 0; pass < 2; pass++)
        for (unsigned page = round % 3; page < pages; page += 3, written += pass == 0)
            ((volatile unsigned *)(heap + (size_t)page * PAGE))[round] = round + pass;
    return written;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void check_dirty(unsigned round, const char *name)
{
    for (unsigned page = 0; page < pages; page++)
        if (dirty[page] != (page % 3 == round % 3)) {
            printf("%s: page %u of round %u is %s\n", name, page, round,
                   dirty[page] ? "dirty" : "clean");
            exit(1);
        }
}

static double median(double *values)
{
    qsort(values, ROUNDS, sizeof(*values), compare);
    return values[ROUNDS / 2];
}

/* TSC ticks for each page that was written first; the median round. */
static double measure(const char *name, void (*open)(void), void (*arm)(void), void (*close)(void))
{
    double ticks[ROUNDS], arming[ROUNDS];
    unsigned written = 0;
    open();
    for (unsigned round = 0; round < ROUNDS; round++) {
        memset(dirty, 0, pages);
        traps = 0;
        uint64_t start = __rdtsc();
        arm();
        uint64_t armed = __rdtsc();
        written = mutate(round);
        uint64_t end = __rdtsc();
        arming[round] = (double)(armed - start);
        ticks[round] = (double)(end - armed) / written;
        check_dirty(round, name);
        if (traps != written) {
            printf("%s: %u traps for %u pages\n", name, traps, written);
            exit(1);
        }
    }
    close();
    double each = median(ticks);
    printf("%-20s %9.0f ticks a first write, %9.0f to arm %u pages\n", name, each, median(arming),
           pages);
    return each;
}

int main(int argc, char **argv)
{
    pages = argc > 1 ? (unsigned)atoi(argv[1]) : 1024;
    if (pages < 3 || pages > MAX_PAGES)
        die("usage", "gc [PAGES], 3 to 65536");
    size_t bytes = (size_t)pages * PAGE;
    heap = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (heap == MAP_FAILED)
        die("heap", "no memory");
    madvise(heap, bytes, MADV_NOHUGEPAGE); /* both barriers are about 4-KiB pages */
    memset(heap, 0xff, bytes);
    double signals = measure("SIGSEGV + mprotect", signals_open, signals_arm, signals_close);
    double upcalls = measure("upcall", upcalls_open, upcalls_arm, upcalls_close);
    printf("the upcall is %.1f times as fast\n", signals / upcalls);
    return 0;
}
