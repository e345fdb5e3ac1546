/*
 * test_flash.c - the flash chip as firmware programs it, and what reaches its image, in order.
 */
#include "internal/blockdev.h"
#include "internal/flash.h"
#include "pci_board.h"
#include <errno.h>

enum { SIZE = 64 << 10 };
#define END  0x100000000ull
#define BASE (END - SIZE)

/* ---- An image that answers when the test says so --------------------------------------------- */

struct blockdev {
    uint8_t bytes[SIZE];
    bool read_only, flushed; /* nothing has been written since the last flush */
    struct blockdev_request *waiting;
};
static struct blockdev image;

uint64_t blockdev_size(const struct blockdev *dev)
{
    return sizeof(dev->bytes);
}
bool blockdev_read_only(const struct blockdev *dev)
{
    return dev->read_only;
}
int blockdev_read_now(struct blockdev *dev, uint64_t offset, void *buf, size_t len)
{
    memcpy(buf, dev->bytes + offset, len);
    return 0;
}
void blockdev_submit(struct blockdev *dev, struct blockdev_request *request)
{
    struct blockdev_request **last = &dev->waiting;
    while (*last)
        last = &(*last)->next;
    request->next = NULL;
    *last = request;
}

/* Does the first request that waits, or has it fail. */
static bool answer(int result)
{
    struct blockdev_request *r = image.waiting;
    if (!r)
        return false;
    image.waiting = r->next;
    r->result = result;
    if (!result && r->op == BLOCKDEV_WRITE)
        memcpy(image.bytes + r->offset, r->iov->iov_base, r->len);
    image.flushed = !result && r->op == BLOCKDEV_FLUSH;
    r->done(r);
    return true;
}
static bool complete(void)
{
    return answer(0);
}
static void complete_all(void)
{
    while (complete())
        ;
}

/* ---- The guest's side ------------------------------------------------------------------------ */

static struct flash *flash;

static void make(bool read_only)
{
    struct error err = {""};
    board_setup();
    memset(&image, 0, sizeof(image));
    memset(image.bytes, 0xff, SIZE);
    image.bytes[0x100] = 0x5a;
    image.read_only = read_only;
    flash = flash_new(&board, &image, END, &err);
    ck_assert_msg(flash != NULL, "%s", err.msg);
}
static void setup(void)
{
    make(false);
}
static void unplug(void)
{
    struct device *dev = (struct device *)flash;
    if (dev)
        dev->destroy(dev);
    flash = NULL;
}
static void teardown(void)
{
    unplug();
    complete_all();
    board_teardown();
}

static uint32_t get(uint32_t offset, unsigned size)
{
    uint32_t value = 0;
    phys_read(board.map, &cpu_access, BASE + offset, &value, size);
    return value;
}
static void put(uint32_t offset, uint32_t value, unsigned size)
{
    phys_write(board.map, &cpu_access, BASE + offset, &value, size);
}
static bool is_rom(void)
{
    return phys_hva(board.map, BASE, NULL) != NULL;
}
static void program(uint32_t offset, uint8_t value)
{
    put(offset, 0x10, 1);
    put(offset, value, 1);
}

/* What OVMF does to find out whether there is flash. */
START_TEST(it_is_found_by_probing)
{
    ck_assert(is_rom());
    ck_assert_uint_eq(get(0x100, 4), 0xffffff5a);
    put(0x100, 0x50, 1);
    ck_assert_uint_eq(get(0x100, 1), 0x5a);
    put(0x100, 0x70, 1);
    ck_assert_uint_eq(get(0x100, 1), 0);
    put(0x100, 0xff, 1);
    ck_assert_uint_eq(get(0x100, 1), 0x5a);
    put(0, 0x90, 1);
    ck_assert_uint_eq(get(0, 1), 0x89);
    ck_assert_uint_eq(get(1, 1), 0x18);
    put(0x55, 0x98, 1);
    ck_assert_uint_eq(get(0x10, 1) | get(0x11, 1) << 8 | get(0x12, 1) << 16, 0x595251); /* QRY */
    ck_assert_uint_eq(get(0x27, 1), 16);                                  /* 2^16 bytes */
    ck_assert_uint_eq(get(0x2d, 1) | get(0x2e, 1) << 8, SIZE / 4096 - 1); /* sectors less one */
    ck_assert_uint_eq(get(0x2f, 1) | get(0x30, 1) << 8, 4096 >> 8);
}
END_TEST

START_TEST(bits_are_programmed_and_sectors_erased)
{
    program(0x200, 0xf0);
    program(0x200, 0x3c); /* bits go to 0 only */
    put(0, 0x70, 1);
    ck_assert_uint_eq(get(0, 1), 0x80);
    put(0, 0xff, 1);
    ck_assert_uint_eq(get(0x200, 1), 0x30);
    put(0x1fff, 0x20, 1); /* the sector behind */
    put(0x1fff, 0xd0, 1);
    put(0, 0xff, 1);
    ck_assert_uint_eq(get(0x200, 1), 0x30);
    put(0x345, 0x20, 1);
    put(0x345, 0xd0, 1);
    put(0, 0xff, 1);
    ck_assert_uint_eq(get(0x200, 1), 0xff);
    ck_assert_uint_eq(get(0x100, 1), 0xff);
    put(0, 0x20, 1); /* a sequence that is broken off */
    put(0, 0xff, 1);
    put(0, 0x70, 1);
    ck_assert_uint_eq(get(0, 1), 0xb0);
}
END_TEST

START_TEST(a_buffer_is_programmed_at_once)
{
    put(0x3000, 0xe8, 1);
    ck_assert_uint_eq(get(0x3000, 1), 0x80);
    put(0x3000, 7, 1); /* eight bytes */
    put(0x3000, 0x44332211, 4);
    put(0x3004, 0x88776655, 4);
    put(0x3000, 0xd0, 1);
    put(0, 0xff, 1);
    ck_assert_uint_eq(get(0x3000, 4), 0x44332211);
    ck_assert_uint_eq(get(0x3004, 4), 0x88776655);
    ck_assert_uint_eq(get(0x3008, 1), 0xff);
    put(SIZE - 2, 0xe8, 1); /* over the chip's end */
    put(SIZE - 2, 3, 1);
    put(SIZE - 2, 0, 2);
    put(SIZE - 2, 0, 2);
    put(SIZE - 2, 0xd0, 1);
    put(0, 0xff, 1);
    ck_assert_uint_eq(get(SIZE - 2, 2), 0);
}
END_TEST

START_TEST(the_array_is_rom_again_after_a_while)
{
    program(0x200, 0);
    put(0, 0xff, 1);
    ck_assert(!is_rom());
    while (!is_rom())
        event_poll(board.queue);
    ck_assert_uint_eq(get(0x200, 1), 0);
    put(0, 0x70, 1); /* not while something else is to be read */
    for (uint64_t start = clock_now(board.clock); clock_now(board.clock) < start + 3000000;)
        event_poll(board.queue);
    ck_assert_uint_eq(get(0, 1), 0x80);
}
END_TEST

START_TEST(changes_reach_the_image_in_order_and_are_flushed)
{
    program(0x200, 1);
    ck_assert(image.waiting && image.waiting->op == BLOCKDEV_WRITE);
    program(0x200, 0); /* while the first is under way */
    ck_assert(complete());
    ck_assert_uint_eq(image.bytes[0x200], 1);
    ck_assert(!image.flushed);
    complete_all();
    ck_assert_uint_eq(image.bytes[0x200], 0);
    ck_assert(image.flushed);
}
END_TEST

START_TEST(what_is_under_way_outlives_the_chip)
{
    program(0x200, 1);
    program(0x2200, 2);
    unplug();
    complete_all();
    ck_assert_uint_eq(image.bytes[0x200], 1);
    ck_assert_uint_eq(image.bytes[0x2200], 2);
    ck_assert(image.flushed);
}
END_TEST

/* The image may do what it is asked for in any order. */
START_TEST(the_last_changes_wait_for_what_is_under_way)
{
    program(0x200, 1);
    program(0x200, 0);
    unplug();
    ck_assert_ptr_nonnull(image.waiting);
    ck_assert_ptr_null(image.waiting->next);
    complete_all();
    ck_assert_uint_eq(image.bytes[0x200], 0);
    ck_assert(image.flushed);
}
END_TEST

START_TEST(a_change_that_failed_is_written_with_the_next)
{
    program(0x200, 1);
    answer(-ENOSPC);
    ck_assert_ptr_null(image.waiting); /* nor again and again */
    put(0, 0x70, 1);
    ck_assert_uint_eq(get(0, 1), 0x90);
    program(0x2200, 2);
    complete_all();
    ck_assert_uint_eq(image.bytes[0x200], 1);
    ck_assert_uint_eq(image.bytes[0x2200], 2);
    ck_assert(image.flushed);
    program(0x3200, 3);
    complete();
    answer(-EIO); /* the flush */
    ck_assert(!image.flushed);
    unplug();
    complete_all();
    ck_assert(image.flushed);
}
END_TEST

/* A saved state that nobody has made. */
START_TEST(a_state_that_cannot_be_is_a_reset)
{
    static const struct {
        const char *field;
        uint64_t value;
    } wrong[] = {{"wanted", 0xffff}, {"buffer_at", SIZE}, {"filled", 9}};
    struct device *dev = (struct device *)flash;
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        put(0, 0xe8, 1);
        put(0, 7, 1);
        for (size_t f = 0; f < dev->state->field_count; f++)
            if (strcmp(dev->state->fields[f].name, wrong[i].field) == 0)
                field_set(&dev->state->fields[f], dev, 0, wrong[i].value);
        dev->restored(dev);
        put(0, 0x70, 1); /* a command again */
        ck_assert_uint_eq(get(0, 1), 0x80);
        put(0, 0xff, 1);
    }
}
END_TEST

START_TEST(a_read_only_chip_says_so)
{
    make(true);
    program(0x100, 0);
    put(0, 0x70, 1);
    ck_assert_uint_eq(get(0, 1), 0x92);
    put(0, 0x50, 1);
    put(0, 0x20, 1);
    put(0, 0xd0, 1);
    put(0, 0x70, 1);
    ck_assert_uint_eq(get(0, 1), 0xa2);
    put(0, 0xff, 1);
    ck_assert_uint_eq(get(0x100, 1), 0x5a);
    ck_assert_ptr_null(image.waiting);
    teardown();
}
END_TEST

START_TEST(sectors_with_rules_are_locked)
{
    *phys_frame_attr(board.map, BASE + 0x1000) |= FRAME_RULED;
    program(0x1200, 0);
    put(0, 0x70, 1);
    ck_assert_uint_eq(get(0, 1), 0x92);
    put(0, 0x50, 1);
    put(0x1000, 0x20, 1);
    put(0x1000, 0xd0, 1);
    put(0, 0x70, 1);
    ck_assert_uint_eq(get(0, 1), 0xa2);
    put(0, 0xff, 1);
    program(0x200, 0);
    put(0, 0xff, 1);
    ck_assert_uint_eq(get(0x1200, 1), 0xff);
    ck_assert_uint_eq(get(0x200, 1), 0);
}
END_TEST

START_TEST(a_reset_breaks_off_what_was_begun)
{
    put(0, 0x10, 1);
    ((struct device *)flash)->reset((struct device *)flash);
    ck_assert(is_rom());
    put(0, 0x70, 1); /* a command, not the byte to be programmed */
    ck_assert_uint_eq(get(0, 1), 0x80);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("flash");
    TCase *t = tcase_create("flash"), *read_only = tcase_create("read-only");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, it_is_found_by_probing);
    tcase_add_test(t, bits_are_programmed_and_sectors_erased);
    tcase_add_test(t, a_buffer_is_programmed_at_once);
    tcase_add_test(t, the_array_is_rom_again_after_a_while);
    tcase_add_test(t, changes_reach_the_image_in_order_and_are_flushed);
    tcase_add_test(t, what_is_under_way_outlives_the_chip);
    tcase_add_test(t, the_last_changes_wait_for_what_is_under_way);
    tcase_add_test(t, a_change_that_failed_is_written_with_the_next);
    tcase_add_test(t, a_state_that_cannot_be_is_a_reset);
    tcase_add_test(t, sectors_with_rules_are_locked);
    tcase_add_test(t, a_reset_breaks_off_what_was_begun);
    suite_add_tcase(s, t);
    tcase_add_test(read_only, a_read_only_chip_says_so);
    suite_add_tcase(s, read_only);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
