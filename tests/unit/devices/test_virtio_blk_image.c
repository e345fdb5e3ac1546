/*
 * test_virtio_blk_image.c - a driver, the block device and a real image file together: what the
 * guest wrote is in the file, before and after a flush, a reset and a close.
 *
 * Devices may not depend on src/block (DESIGN, rooms); this test alone is linked with both
 * (tests/CMakeLists.txt).
 */
#include "internal/blockdev.h"
#include "virtio_driver.h"
#include <fcntl.h>
#include <unistd.h>

#define HEADER_AT  (BUFFER_AT + 0x100000)
#define STATUS_AT  (BUFFER_AT + 0x100800)
#define IMAGE_SIZE (8u << 20)
#define IN_FLIGHT  64

enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_ZEROES = 13 };

static struct blockdev *image;
static struct pci_device *blk;
static struct driver drv;
static char path[64];

static void plug(bool snapshot)
{
    struct error err = {""};
    const struct blockdev_options open = {.path = path, .snapshot = snapshot};
    image = blockdev_open(&open, board.queue, &err);
    ck_assert_msg(image != NULL, "%s", err.msg);
    struct virtio_blk_options options = {.disk = image};
    blk = virtio_blk_create(bus, PCI_FIRST_FREE, &options, &err);
    ck_assert_msg(blk && pci_assign_resources(bus, MEM_WINDOW, MEM_END, &err), "%s", err.msg);
    driver_find(&drv, blk);
}

static void unplug(void)
{
    if (blk)
        blk->dev.destroy(&blk->dev);
    blockdev_close(image);
    blk = NULL;
    image = NULL;
}

static void setup(void)
{
    board_setup();
    strcpy(path, "/tmp/bailey-test-XXXXXX");
    int fd = mkstemp(path);
    ck_assert(fd >= 0 && ftruncate(fd, IMAGE_SIZE) == 0);
    close(fd);
    plug(false);
}

static void teardown(void)
{
    unplug();
    unlink(path);
    board_teardown();
}

static void queue_request(unsigned slot, uint32_t type, uint64_t sector, uint64_t data,
                          uint32_t len)
{
    unsigned d = 3 * slot;
    mem_out(HEADER_AT + 16 * slot, 8, type);
    mem_out(HEADER_AT + 16 * slot + 8, 8, sector);
    mem_out(STATUS_AT + slot, 1, 0xee);
    set_desc(&drv, d, HEADER_AT + 16 * slot, 16, DESC_NEXT, (uint16_t)(len ? d + 1 : d + 2));
    set_desc(&drv, d + 1, data, len, DESC_NEXT | (type == T_IN ? DESC_WRITE : 0),
             (uint16_t)(d + 2));
    set_desc(&drv, d + 2, STATUS_AT + slot, 1, DESC_WRITE, 0);
    make_available(&drv, (uint16_t)d);
}

static uint8_t request(uint32_t type, uint64_t sector, uint64_t data, uint32_t len)
{
    uint32_t written;
    queue_request(0, type, sector, data, len);
    notify(&drv);
    next_used(&drv, &written);
    return (uint8_t)mem_in(STATUS_AT, 1);
}

static void expect_file(uint64_t offset, uint8_t value, size_t len)
{
    uint8_t buf[4096];
    int fd = open(path, O_RDONLY);
    ck_assert_uint_le(len, sizeof(buf));
    ck_assert_int_eq(pread(fd, buf, len, (off_t)offset), (int)len);
    close(fd);
    for (size_t i = 0; i < len; i++)
        ck_assert_msg(buf[i] == value, "byte %zu is %#x", i, buf[i]);
}

START_TEST(writes_are_in_the_file)
{
    driver_start(&drv, (enum interface)_i, 1 << 9, 256);
    fill_ram(BUFFER_AT, 0x5e, 4096);
    ck_assert_uint_eq(request(T_OUT, 17, BUFFER_AT, 4096), 0);
    ck_assert_uint_eq(request(T_FLUSH, 0, 0, 0), 0);
    expect_file(17 * 512, 0x5e, 4096);
    expect_file(16 * 512, 0, 512);
    fill_ram(BUFFER_AT, 0, 4096);
    ck_assert_uint_eq(request(T_IN, 17, BUFFER_AT, 4096), 0);
    ck_assert_uint_eq(mem_in(BUFFER_AT + 4088, 8), 0x5e5e5e5e5e5e5e5e);
    unplug();
    plug(false); /* the next boot */
    driver_start(&drv, MODERN, 1 << 9, 256);
    fill_ram(BUFFER_AT, 0, 4096);
    ck_assert_uint_eq(request(T_IN, 17, BUFFER_AT, 4096), 0);
    ck_assert_uint_eq(mem_in(BUFFER_AT, 8), 0x5e5e5e5e5e5e5e5e);
}
END_TEST

START_TEST(snapshot_leaves_the_file_alone)
{
    unplug();
    plug(true);
    driver_start(&drv, MODERN, 1 << 9, 256);
    fill_ram(BUFFER_AT, 0x5e, 4096);
    ck_assert_uint_eq(request(T_OUT, 0, BUFFER_AT, 4096), 0);
    ck_assert_uint_eq(request(T_FLUSH, 0, 0, 0), 0);
    fill_ram(BUFFER_AT, 0, 8);
    ck_assert_uint_eq(request(T_IN, 0, BUFFER_AT, 4096), 0);
    ck_assert_uint_eq(mem_in(BUFFER_AT, 8), 0x5e5e5e5e5e5e5e5e);
    unplug();
    expect_file(0, 0, 4096);
}
END_TEST

START_TEST(a_lost_image_is_an_io_error)
{
    driver_start(&drv, MODERN, 1 << 9, 256);
    ck_assert_int_eq(truncate(path, 65536), 0);
    ck_assert_uint_eq(request(T_IN, 0, BUFFER_AT, 4096), 0);
    ck_assert_uint_eq(request(T_IN, 4096, BUFFER_AT, 4096), 1);
    ck_assert_uint_eq(request(T_OUT, 4096, BUFFER_AT, 4096), 1);
}
END_TEST

/* Rounds of writes and reads, a queue full of them in flight, with workers in real threads. */
START_TEST(many_rounds_in_flight)
{
    uint32_t written;
    driver_start(&drv, MODERN, 1 << 9 | VIRTIO_F_EVENT_IDX, 256);
    for (unsigned round = 1; round <= 50; round++) {
        for (unsigned i = 0; i < IN_FLIGHT; i++) {
            mem_out(BUFFER_AT + 4096 * i, 8, 0x0101010101010101ull * round + i);
            queue_request(i, T_OUT, 8 * ((i * 29 + round) % IN_FLIGHT), BUFFER_AT + 4096 * i, 4096);
        }
        notify(&drv);
        for (unsigned i = 0; i < IN_FLIGHT; i++)
            next_used(&drv, &written);
        for (unsigned i = 0; i < IN_FLIGHT; i++) {
            mem_out(BUFFER_AT + 4096 * i, 8, 0);
            queue_request(i, T_IN, 8 * ((i * 29 + round) % IN_FLIGHT), BUFFER_AT + 4096 * i, 4096);
        }
        notify(&drv);
        for (unsigned i = 0; i < IN_FLIGHT; i++)
            next_used(&drv, &written);
        for (unsigned i = 0; i < IN_FLIGHT; i++) {
            ck_assert_uint_eq(mem_in(STATUS_AT + i, 1), 0);
            ck_assert_uint_eq(mem_in(BUFFER_AT + 4096 * i, 8), 0x0101010101010101ull * round + i);
        }
    }
}
END_TEST

START_TEST(unplugged_with_requests_in_flight)
{
    driver_start(&drv, MODERN, 1 << 9, 256);
    fill_ram(BUFFER_AT, 0x66, 512);
    for (unsigned i = 0; i < IN_FLIGHT; i++)
        queue_request(i, T_OUT, i, BUFFER_AT, 512);
    notify(&drv);
    event_poll(board.queue);
    unplug();
    expect_file(0, 0x66, 4096); /* the workers finished what they had been given */
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("virtio_blk_image");
    TCase *tc = tcase_create("virtio_blk_image");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, writes_are_in_the_file, 0, 2);
    tcase_add_test(tc, snapshot_leaves_the_file_alone);
    tcase_add_test(tc, a_lost_image_is_an_io_error);
    tcase_add_test(tc, many_rounds_in_flight);
    tcase_add_test(tc, unplugged_with_requests_in_flight);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
