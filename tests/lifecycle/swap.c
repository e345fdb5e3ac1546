/*
 * swap.c - protected pages go out to a disk and come back in other frames: the rule follows, the
 * content is right, and the kernel's accesses are logged as before.
 */
#include "life.h"
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGES = 64 };

static uint8_t pattern(unsigned page, unsigned byte)
{
    return (uint8_t)(page * 37 + byte * 11 + byte / 256);
}

static void fill(volatile uint8_t *pages)
{
    for (unsigned p = 0; p < PAGES; p++)
        for (unsigned i = 0; i < PAGE; i++)
            pages[p * PAGE + i] = pattern(p, i);
}

static unsigned resident(const volatile uint8_t *pages)
{
    unsigned n = 0;
    for (unsigned p = 0; p < PAGES; p++)
        n += life_frame(pages + p * PAGE) != 0;
    return n;
}

/* More than there is, written to and read again. */
static void hog(void *opaque)
{
    const volatile uint8_t *pages = opaque;
    long kib = life_value("/proc/meminfo", "MemAvailable");
    size_t count = (size_t)kib / 4 + 8192; /* 32 MiB too many */
    volatile uint8_t *much =
        mmap(NULL, count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(much != MAP_FAILED);
    (void)pages;
    for (size_t i = 0; i < count; i++)
        *(volatile uint64_t *)(much + i * PAGE) = i + 1;
    for (size_t i = 0; i < count; i += 16)
        CHECK_SAME(*(volatile uint64_t *)(much + i * PAGE), i + 1);
}

static void page_out(volatile uint8_t *pages)
{
    for (unsigned i = 0; i < 50 && resident(pages); i++) {
        CHECK(madvise((void *)(uintptr_t)pages, PAGES * PAGE, MADV_PAGEOUT) == 0);
        usleep(10000);
    }
    CHECK_SAME(resident(pages), 0);
}

/* Each page back in, where it is now, still protected, with what was in it. */
static void expect_back(struct bailey_door *door, uint32_t region, volatile uint8_t *pages)
{
    struct protect_event event;
    struct protect_query query;
    for (unsigned p = 0; p < PAGES; p++) {
        volatile uint8_t *page = pages + p * PAGE;
        for (unsigned i = 0; i < PAGE; i++)
            if (page[i] != pattern(p, i))
                life_fail(__FILE__, __LINE__, "byte %u of page %u is %#x", i, p, page[i]);
        life_drain(door);
        CHECK_REFUSES(page + p);
        CHECK(life_event(door, PROTECT_EVENT_ACCESS, page, &event));
        CHECK_SAME(event.gpa, life_frame(page) * PAGE + p);
        CHECK_SAME(page[p], pattern(p, p));
    }
    CHECK_OK(bailey_query_region(door, region, &query));
    CHECK_SAME(query.resolved, PAGES);
}

static volatile uint8_t *protect(struct bailey_door *door, uint32_t *region)
{
    struct protect_rule rule = life_rule(PROTECT_READ, PROTECT_DENY);
    rule.allow[PROTECT_KERNEL] = PROTECT_READ; /* and PROTECT_ALLOW: writes are logged */
    life_open(door, PROTECT_GRANT_PHYSICAL);
    volatile uint8_t *pages = life_pages(PAGES);
    fill(pages);
    *region = life_protect(door, pages, PAGES * PAGE, rule);
    return pages;
}

static void out_and_in(void)
{
    struct bailey_door door;
    struct protect_event event;
    struct protect_query query;
    struct protect_statistics before, after;
    uint32_t region;
    volatile uint8_t *pages = protect(&door, &region);
    CHECK_OK(bailey_statistics(&door, &before));
    page_out(pages);
    CHECK_OK(bailey_query_region(&door, region, &query));
    CHECK_SAME(query.resolved, 0);
    CHECK(life_event(&door, PROTECT_EVENT_UNMAPPED, pages, &event));
    expect_back(&door, region, pages);
    CHECK_OK(bailey_statistics(&door, &after));
    CHECK(after.moved_pages - before.moved_pages >= 2 * PAGES); /* out and in */
}

static void kernel_writes_are_logged_afterwards(void)
{
    struct bailey_door door;
    struct protect_event event;
    uint32_t region;
    volatile uint8_t *pages = protect(&door, &region);
    page_out(pages);
    life_drain(&door);
    int fd = open("/dev/zero", O_RDONLY);
    CHECK_SAME(read(fd, (void *)(uintptr_t)(pages + 3 * PAGE + 5), 8), 8); /* comes in for this */
    CHECK(life_event(&door, PROTECT_EVENT_ACCESS, pages + 3 * PAGE, &event));
    CHECK_SAME(event.subject, PROTECT_KERNEL);
    CHECK_SAME(event.access, PROTECT_WRITE);
    CHECK_SAME(event.home, (uintptr_t)pages + 3 * PAGE + 5);
    for (unsigned i = 5; i < 13; i++)
        CHECK_SAME(pages[3 * PAGE + i], 0);
    CHECK_REFUSES(pages + 3 * PAGE);
}

static void memory_hog(void)
{
    struct bailey_door door;
    uint32_t region;
    volatile uint8_t *pages = protect(&door, &region);
    unsigned left = PAGES;
    for (unsigned round = 0; round < 4 && left > PAGES / 2; round++) {
        CHECK_CHILD(hog, (void *)(uintptr_t)pages);
        left = resident(pages);
    }
    printf("  %u of %u pages went out\n", PAGES - left, PAGES);
    CHECK(left <= PAGES / 2);
    expect_back(&door, region, pages);
}

/* Gone while it is out: nothing of it is left when its process ends. */
static void exit_while_out(void)
{
    struct bailey_door door;
    uint32_t region;
    page_out(protect(&door, &region));
    raise(SIGKILL);
}

static void run_exit_while_out(void *opaque)
{
    (void)opaque;
    exit_while_out();
}

static void killed_while_out(void)
{
    CHECK_SAME(life_child(run_exit_while_out, NULL), SIGKILL);
    CHECK_SAME(life_admin()->regions, 0);
}

static const struct life_test tests[] = {
    {"out_and_in", out_and_in},
    {"kernel_writes_are_logged_afterwards", kernel_writes_are_logged_afterwards},
    {"memory_hog", memory_hog},
    {"killed_while_out", killed_while_out},
};
LIFE_MAIN(tests)
