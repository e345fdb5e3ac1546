/*
 * huge.c - the ways in which Linux changes what is mapped under a program: huge pages that are
 * split and collapsed, mremap, mprotect, munmap, compaction.
 */
#include "life.h"
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
enum { HUGE = 2 << 20, IN_HUGE = HUGE / PAGE, PLACE = 7 }; /* PLACE: of the page that has a rule */

static volatile uint8_t *huge_place(void)
{
    uint8_t *at = mmap(NULL, 2 * HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(at != MAP_FAILED);
    return (volatile uint8_t *)(((uintptr_t)at + HUGE - 1) & -(uintptr_t)HUGE);
}

static void *plain(const volatile void *at)
{
    return (void *)(uintptr_t)at;
}

/* Page n begins with n. */
static void number(volatile uint8_t *huge)
{
    for (unsigned n = 0; n < IN_HUGE; n++)
        *(volatile uint32_t *)(huge + n * PAGE) = n;
}

static volatile uint8_t *huge_page(void)
{
    volatile uint8_t *huge = huge_place();
    CHECK(madvise(plain(huge), HUGE, MADV_HUGEPAGE) == 0);
    number(huge);
    CHECK(life_frame_is_huge(huge));
    return huge;
}

/* The one page is refused, in the frame that the kernel says it is in; its neighbours are not. */
static void expect_protected(struct bailey_door *door, volatile uint8_t *huge)
{
    struct protect_event event;
    volatile uint8_t *page = huge + PLACE * PAGE;
    life_drain(door);
    CHECK_REFUSES(page + 8);
    CHECK(life_event(door, PROTECT_EVENT_ACCESS, page, &event));
    CHECK_SAME(event.gpa, life_frame(page) * PAGE + 8);
    CHECK_SAME(*(volatile uint32_t *)page, PLACE);
    CHECK_SAME(life_write(page - 1, 1).signal, 0);
    CHECK_SAME(life_write(page + PAGE + 8, 1).signal, 0);
    CHECK_SAME(*(volatile uint32_t *)(page + PAGE), PLACE + 1);
}

static void protect_one(struct bailey_door *door, volatile uint8_t *huge)
{
    life_open(door, PROTECT_GRANT_PHYSICAL);
    life_protect(door, huge + PLACE * PAGE, PAGE, life_rule(PROTECT_READ, PROTECT_DENY));
    expect_protected(door, huge);
}

static void page_inside_a_huge_page(void)
{
    struct bailey_door door;
    volatile uint8_t *huge = huge_page();
    protect_one(&door, huge);
    CHECK(life_frame_is_huge(huge)); /* protecting has not split it */
    CHECK_SAME(life_frame(huge + PLACE * PAGE), life_frame(huge) + PLACE);
}

static void split_by_munmap(void)
{
    struct bailey_door door;
    volatile uint8_t *huge = huge_page();
    protect_one(&door, huge);
    CHECK(munmap(plain(huge + 100 * PAGE), PAGE) == 0);
    expect_protected(&door, huge);
}

static void split_by_mprotect(void)
{
    struct bailey_door door;
    volatile uint8_t *huge = huge_page();
    protect_one(&door, huge);
    CHECK(mprotect(plain(huge + (PLACE + 4) * PAGE), PAGE, PROT_READ) == 0);
    expect_protected(&door, huge);
    CHECK(mprotect(plain(huge), HUGE, PROT_READ) == 0);
    CHECK(mprotect(plain(huge), HUGE, PROT_READ | PROT_WRITE) == 0);
    expect_protected(&door, huge);
}

static void collapsed(void)
{
    struct bailey_door door;
    struct protect_event event;
    volatile uint8_t *huge = huge_place();
    CHECK(madvise(plain(huge), HUGE, MADV_NOHUGEPAGE) == 0);
    number(huge);
    CHECK(!life_frame_is_huge(huge));
    protect_one(&door, huge);
    uint64_t frame = life_frame(huge + PLACE * PAGE);
    CHECK(madvise(plain(huge), HUGE, MADV_HUGEPAGE) == 0);
    if (madvise(plain(huge), HUGE, MADV_COLLAPSE))
        life_fail(__FILE__, __LINE__, "MADV_COLLAPSE: %s", strerror(errno));
    CHECK(life_frame_is_huge(huge));
    CHECK(life_frame(huge + PLACE * PAGE) != frame);
    CHECK(life_event(&door, PROTECT_EVENT_MOVED, huge + PLACE * PAGE, &event));
    expect_protected(&door, huge);
    for (unsigned n = 0; n < IN_HUGE; n++)
        CHECK_SAME(*(volatile uint32_t *)(huge + n * PAGE) & 0xffffff, n);
    CHECK(munmap(plain(huge + 100 * PAGE), PAGE) == 0); /* and split again */
    expect_protected(&door, huge);
}

/* A rule speaks of a virtual range: what moves away from there is free, what comes there is not. */
static void mremap_away(void)
{
    struct bailey_door door;
    struct protect_event event;
    life_open(&door, 0);
    volatile uint8_t *page = life_pages(1), *elsewhere = life_pages(1);
    *page = 'a';
    life_protect(&door, page, PAGE, life_rule(PROTECT_READ, PROTECT_DENY));
    CHECK(mremap(plain(page), PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, plain(elsewhere)) ==
          elsewhere);
    CHECK(life_event(&door, PROTECT_EVENT_UNMAPPED, page, &event));
    CHECK_SAME(*elsewhere, 'a');
    CHECK_SAME(life_write(elsewhere, 'b').signal, 0);
    CHECK_SAME(life_write(page, 1).code, SEGV_MAPERR);
    CHECK(mremap(plain(elsewhere), PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, plain(page)) == page);
    CHECK(life_event(&door, PROTECT_EVENT_MOVED, page, &event));
    CHECK_REFUSES(page);
    CHECK_SAME(*page, 'b');
}

/* A whole page table is moved at once when both ends are aligned to 2 MiB. */
static void mremap_of_a_table(void)
{
    struct bailey_door door;
    volatile uint8_t *from = huge_place(), *to = huge_place();
    CHECK(madvise(plain(from), HUGE, MADV_NOHUGEPAGE) == 0);
    number(from);
    protect_one(&door, from);
    CHECK(mremap(plain(from), HUGE, HUGE, MREMAP_MAYMOVE | MREMAP_FIXED, plain(to)) == to);
    CHECK_SAME(life_write(to + PLACE * PAGE + 8, 1).signal, 0);
    CHECK(mremap(plain(to), HUGE, HUGE, MREMAP_MAYMOVE | MREMAP_FIXED, plain(from)) == from);
    expect_protected(&door, from);
}

static void mprotect_none_and_back(void)
{
    struct bailey_door door;
    life_open(&door, 0);
    volatile uint8_t *page = life_pages(1);
    life_protect(&door, page, PAGE, life_rule(PROTECT_READ, PROTECT_DENY));
    for (unsigned i = 0; i < 20; i++) {
        CHECK(mprotect(plain(page), PAGE, PROT_NONE) == 0);
        CHECK_SAME(life_read(page).signal, SIGSEGV);
        CHECK(mprotect(plain(page), PAGE, PROT_READ | PROT_WRITE) == 0);
        CHECK_SAME(life_read(page).signal, 0);
        CHECK_REFUSES(page);
    }
}

static void mapped_over(void)
{
    struct bailey_door door;
    life_open(&door, 0);
    volatile uint8_t *page = life_pages(1);
    *page = 'o';
    life_protect(&door, page, PAGE, life_rule(PROTECT_READ, PROTECT_DENY));
    for (unsigned i = 0; i < 20; i++) {
        CHECK(munmap(plain(page), PAGE) == 0);
        CHECK_SAME(life_write(page, 1).code, SEGV_MAPERR);
        CHECK(mmap(plain(page), PAGE, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == page);
        CHECK_SAME(*page, 0);
        CHECK_REFUSES(page);
        CHECK_SAME(*page, 0);
    }
}

/* Most of the memory is taken and given back but for every 32nd page, all of which have rules: in
 * every corner of the memory there is something for compaction to move. */
enum { MOST = 28672, STRIDE = 32, RULED = MOST / STRIDE };

static void protect_every(struct bailey_door *door, volatile uint8_t *pages)
{
    static struct protect_region regions[RULED];
    struct protect_rule rule = life_rule(PROTECT_READ, PROTECT_DENY);
    for (unsigned n = 0; n < RULED; n++)
        regions[n] = (struct protect_region){
            .base = (uintptr_t)(pages + n * STRIDE * PAGE), .length = PAGE, .cookie = n};
    rule.count = RULED;
    CHECK_OK(bailey_regions_add(door, regions, RULED, &rule.region));
    CHECK_OK(bailey_rules_set(door, &rule, 1));
}

static void compaction(void)
{
    struct bailey_door door;
    struct protect_event event;
    static uint64_t frame[RULED];
    unsigned moved = 0;
    life_open(&door, PROTECT_GRANT_PHYSICAL);
    volatile uint8_t *pages = life_pages(MOST);
    for (unsigned n = 0; n < RULED; n++) {
        volatile uint8_t *page = pages + n * STRIDE * PAGE;
        *(volatile uint32_t *)page = n;
        CHECK(madvise(plain(page + PAGE), (STRIDE - 1) * PAGE, MADV_DONTNEED) == 0);
    }
    protect_every(&door, pages);
    for (unsigned n = 0; n < RULED; n++)
        frame[n] = life_frame(pages + n * STRIDE * PAGE);
    CHECK(life_set("/proc/sys/vm/compact_memory", "1"));
    for (unsigned n = 0; n < RULED; n++)
        moved += life_frame(pages + n * STRIDE * PAGE) != frame[n];
    printf("  %u of %u pages were moved\n", moved, RULED);
    CHECK(moved);
    for (unsigned n = 0; n < RULED; n++) {
        volatile uint8_t *page = pages + n * STRIDE * PAGE;
        life_drain(&door);
        CHECK_SAME(*(volatile uint32_t *)page, n);
        CHECK_REFUSES(page + 8);
        CHECK(life_event(&door, PROTECT_EVENT_ACCESS, page, &event));
        CHECK_SAME(event.gpa, life_frame(page) * PAGE + 8);
        CHECK_SAME(event.cookie, n);
    }
}

static const struct life_test tests[] = {
    {"page_inside_a_huge_page", page_inside_a_huge_page},
    {"split_by_munmap", split_by_munmap},
    {"split_by_mprotect", split_by_mprotect},
    {"collapsed", collapsed},
    {"mremap_away", mremap_away},
    {"mremap_of_a_table", mremap_of_a_table},
    {"mprotect_none_and_back", mprotect_none_and_back},
    {"mapped_over", mapped_over},
    {"compaction", compaction},
};
LIFE_MAIN(tests)
