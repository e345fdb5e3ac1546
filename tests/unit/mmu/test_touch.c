/*
 * test_touch.c - memory is asked for ahead of a guest that works its way through it, and only then.
 */
#include "../resident.h"
#include "guest.h"
#include "mmu/map.h"

#define CHUNK (1ull << TOUCH_CHUNK_SHIFT)

static struct guest *g;
static struct paging p;

static void setup(void)
{
    g = guest_new(GIB, 1, NULL);
    p = paging_for(PAGING_NONE, 0);
    mmu_paging_changed(&g->mmu[0], &p);
}
static void teardown(void)
{
    guest_free(g);
}

/* A guest address in the chunk, which need not begin where a chunk of the host's does. */
static uint64_t in_chunk(unsigned c)
{
    uint64_t host = (((uintptr_t)g->ram->base >> TOUCH_CHUNK_SHIFT) + c) << TOUCH_CHUNK_SHIFT;
    return host + CHUNK / 2 - (uintptr_t)g->ram->base;
}

static void use(unsigned c, enum access_kind kind)
{
    struct mmu_xlat x;
    ck_assert_int_eq(mmu_translate(&g->mmu[0], &KERNEL, in_chunk(c), kind, MMU_SUPERVISOR, &x),
                     MMU_OK);
    ck_assert_ptr_nonnull(x.hva);
}

static unsigned count(unsigned state)
{
    unsigned n = 0;
    for (unsigned c = 0; c < g->ram->chunks; c++)
        n += g->ram->chunk[c] == state;
    return n;
}

static void expect(unsigned state, unsigned first, unsigned last)
{
    for (unsigned c = first; c <= last; c++)
        ck_assert_msg(g->ram->chunk[c] == state, "chunk %u is %u", c, g->ram->chunk[c]);
    ck_assert_uint_eq(count(state), last - first + 1);
}

START_TEST(test_upwards)
{
    use(100, ACCESS_WRITE);
    ck_assert_uint_eq(count(TOUCH_ASKED), 0);
    use(101, ACCESS_WRITE);
    expect(TOUCH_ASKED, 102, 103);
    use(102, ACCESS_WRITE);
    expect(TOUCH_ASKED, 103, 106);
    for (unsigned c = 103; c <= 120; c++)
        use(c, ACCESS_WRITE);
    expect(TOUCH_WRITTEN, 100, 120);
    expect(TOUCH_ASKED, 121, 136); /* no further than sixteen */
}
END_TEST

START_TEST(test_downwards)
{
    use(6, ACCESS_WRITE);
    use(5, ACCESS_WRITE);
    expect(TOUCH_ASKED, 3, 4);
    use(4, ACCESS_WRITE);
    expect(TOUCH_ASKED, 0, 3);
    for (unsigned c = 4; c-- > 0;)
        use(c, ACCESS_WRITE);
    expect(TOUCH_WRITTEN, 0, 6);
    ck_assert_uint_eq(count(TOUCH_ASKED), 0);
}
END_TEST

START_TEST(test_here_and_there)
{
    for (unsigned c = 0; c < 200; c += 2)
        use(c, ACCESS_WRITE);
    ck_assert_uint_eq(count(TOUCH_ASKED), 0);
    for (unsigned c = 300; c < 310; c++)
        use(c, ACCESS_READ);
    ck_assert_uint_eq(count(TOUCH_ASKED), 0);
    ck_assert_uint_eq(count(TOUCH_WRITTEN), 100);
}
END_TEST

/* Many short runs: what is asked for and not used stays below a sixteenth. */
START_TEST(test_share)
{
    for (unsigned c = 0; c + 20 < g->ram->chunks; c += 20)
        for (unsigned i = 0; i < 6; i++)
            use(c + i, ACCESS_WRITE);
    ck_assert_uint_eq(count(TOUCH_ASKED), g->ram->chunks / 16);
    ck_assert_uint_eq(g->ram->unused, g->ram->chunks / 16);
}
END_TEST

/* Up to the block's last chunk, and it does come. */
START_TEST(test_it_comes)
{
    unsigned last = g->ram->chunks - 1;
    for (unsigned c = last - 20; c <= last - 4; c++)
        use(c, ACCESS_WRITE);
    ck_assert_uint_eq(count(TOUCH_ASKED), 4);
    uint8_t *end = g->ram->base + g->ram->size, *from = end - 3 * CHUNK;
    if (!resident_can_be_asked_for())
        return;
    ck_assert(resident_comes(from, 3 * CHUNK));
    ck_assert_uint_eq(end[-1], 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("touch");
    TCase *t = tcase_create("touch");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, test_upwards);
    tcase_add_test(t, test_downwards);
    tcase_add_test(t, test_here_and_there);
    tcase_add_test(t, test_share);
    tcase_add_test(t, test_it_comes);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
