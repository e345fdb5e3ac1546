/*
 * test_virtio_blk_lent.c - requests of the virtio block device for which the guest's memory is lent
 * to the image. (test_virtio_blk.c has those that are copied.)
 */
#include "kept_page.h"

#include "fake_disk.h"
#include "internal/mmu.h"
#include <stdlib.h>

enum { T_IN = 0, T_OUT = 1 };
enum { S_OK = 0, S_IOERR = 1, S_NONE = 0xee };
enum { F_FLUSH = 1 << 9 };
#define HEADER_AT (BUFFER_AT + 0x100000)
#define STATUS_AT (BUFFER_AT + 0x100800)

static struct blockdev disk;
static struct pci_device *blk;
static struct driver drv;

static void setup(void)
{
    struct error err = {""};
    board_setup();
    disk_init(&disk);
    disk.cache = true;
    const struct virtio_blk_options options = {.disk = &disk};
    blk = virtio_blk_create(bus, PCI_FIRST_FREE, &options, &err);
    ck_assert_msg(blk && pci_assign_resources(bus, MEM_WINDOW, MEM_END, &err), "%s", err.msg);
    driver_find(&drv, blk);
    driver_start(&drv, MODERN, F_FLUSH, 256);
}

static void teardown(void)
{
    if (blk)
        blk->dev.destroy(&blk->dev);
    disk_settle(&disk);
    board_teardown();
}

/* Two descriptors of data: three pages in the wrong order. */
static void queue_pages(uint32_t type, uint64_t sector)
{
    const uint16_t data = DESC_NEXT | (type == T_IN ? DESC_WRITE : 0);
    mem_out(HEADER_AT, 8, type);
    mem_out(HEADER_AT + 8, 8, sector);
    mem_out(STATUS_AT, 1, S_NONE);
    set_desc(&drv, 0, HEADER_AT, 16, DESC_NEXT, 1);
    set_desc(&drv, 1, BUFFER_AT + 0x8000, 4096, data, 2);
    set_desc(&drv, 2, BUFFER_AT, 8192, data, 3);
    set_desc(&drv, 3, STATUS_AT, 1, DESC_WRITE, 0);
    make_available(&drv, 0);
    notify(&drv);
    event_poll(board.queue);
}

static uint8_t end(void)
{
    disk_settle(&disk);
    event_poll(board.queue);
    return (uint8_t)mem_in(STATUS_AT, 1);
}

static void expect(uint64_t gpa, uint64_t sector, unsigned len)
{
    for (unsigned i = 0; i < len; i++)
        ck_assert_msg(mem_in(gpa + i, 1) == disk.bytes[sector * 512 + i], "byte %u", i);
}

static uint32_t marks(uint64_t gpa)
{
    return *phys_frame_attr(board.map, gpa) & (FRAME_LENT | FRAME_LENT_WRITE);
}

START_TEST(without_a_copy)
{
    const bool write = _i;
    fill_ram(BUFFER_AT, 0xa5, 8192);
    fill_ram(BUFFER_AT + 0x8000, 0x5a, 4096);
    queue_pages(write ? T_OUT : T_IN, 40);
    ck_assert_uint_eq(disk.count, 1);
    const struct blockdev_request *r = disk.waiting[0];
    ck_assert_int_eq(r->iovcnt, 2);
    ck_assert_ptr_eq(r->iov[0].iov_base, phys_hva(board.map, BUFFER_AT + 0x8000, &(uint64_t){0}));
    ck_assert_uint_eq(r->iov[1].iov_len, 8192);
    ck_assert_uint_eq(marks(BUFFER_AT + 4096), write ? FRAME_LENT : FRAME_LENT | FRAME_LENT_WRITE);
    ck_assert_uint_eq(end(), S_OK);
    ck_assert_uint_eq(marks(BUFFER_AT + 4096), 0);
    uint32_t written;
    next_used(&drv, &written);
    ck_assert_uint_eq(written, write ? 1 : 3 * 4096 + 1);
    expect(BUFFER_AT + 0x8000, 40, 4096);
    expect(BUFFER_AT, 48, 8192);
    ck_assert_uint_eq(disk.bytes[40 * 512] == 0x5a, write);
}
END_TEST

START_TEST(errors)
{
    disk.bad_sector = 50;
    queue_pages(_i ? T_OUT : T_IN, 40);
    ck_assert_uint_eq(end(), S_IOERR);
    ck_assert_uint_eq(marks(BUFFER_AT), 0);
}
END_TEST

/* A driver that cannot flush: each write is followed by one, which has no buffers. */
START_TEST(write_through)
{
    driver_start(&drv, MODERN, 0, 256);
    queue_pages(T_OUT, 40);
    ck_assert_uint_eq(end(), S_OK);
    ck_assert_str_eq(disk.log, "WF");
}
END_TEST

/* Code and rules hear of each byte; an image may not want to borrow. */
START_TEST(what_is_copied)
{
    struct rules *rules = NULL;
    const uint64_t page = BUFFER_AT + 0x1000;
    if (_i == 0)
        *phys_frame_attr(board.map, page) |= FRAME_CODE;
    else if (_i == 1)
        rules = keep_page(page);
    else
        disk.never_lent = true;
    queue_pages(T_IN, 40);
    ck_assert_ptr_null(disk.waiting[0]->let_go);
    ck_assert_uint_eq(marks(BUFFER_AT + 0x8000), 0); /* nor what came before */
    ck_assert_uint_eq(end(), _i == 1 ? S_IOERR : S_OK);
    if (_i != 1)
        expect(BUFFER_AT, 48, 8192);
    *phys_frame_attr(board.map, page) &= ~(uint32_t)FRAME_CODE;
    if (rules)
        rules_free(rules);
}
END_TEST

static uint64_t stale_gpa;
static void code_stale(void *cpu, uint64_t gpa, uint64_t len)
{
    (void)cpu, (void)len;
    stale_gpa = gpa & PAGE_MASK;
}
static void no_kick(void *cpu)
{
    (void)cpu;
}

/* A page with decoded code is copied to, and who has decoded it hears of that. */
START_TEST(code_is_told)
{
    struct error err = {""};
    struct mmu_cpu *mmu = calloc(1, sizeof(*mmu));
    const struct mmu_cpu_hooks hooks = {.cpu = mmu, .code_stale = code_stale, .kick = no_kick};
    const uint64_t page = BUFFER_AT + 0x1000;
    stale_gpa = 0;
    ck_assert(mmu_cpu_init(mmu, board.map, NULL, 0, &hooks, NULL, &err));
    mmu_code_added(mmu, page + 0x100, 16);
    queue_pages(T_IN, 40);
    ck_assert_ptr_null(disk.waiting[0]->let_go);
    ck_assert_uint_eq(end(), S_OK);
    mmu_service(mmu);
    ck_assert_uint_eq(stale_gpa, page);
    expect(BUFFER_AT, 48, 8192);
    queue_pages(T_OUT, 40); /* the image only reads it */
    ck_assert_ptr_nonnull(disk.waiting[0]->let_go);
    end();
    mmu_cpu_fini(mmu);
    free(mmu);
}
END_TEST

/* Data that is not whole pages, or that shares a page with the header. */
START_TEST(parts_of_pages)
{
    static const struct {
        uint32_t type;
        uint64_t header, data;
        uint32_t len;
    } of[] = {
        {T_IN, HEADER_AT, BUFFER_AT + 512, 4096}, {T_OUT, HEADER_AT, BUFFER_AT + 512, 4096},
        {T_IN, HEADER_AT, BUFFER_AT, 512},        {T_OUT, HEADER_AT, BUFFER_AT, 4096 + 512},
        {T_OUT, BUFFER_AT, BUFFER_AT + 16, 4096}, /* one descriptor could hold both */
    };
    const bool write = of[_i].type == T_OUT;
    fill_ram(of[_i].data, 0xa5, of[_i].len);
    mem_out(of[_i].header, 8, of[_i].type);
    mem_out(of[_i].header + 8, 8, 40);
    mem_out(STATUS_AT, 1, S_NONE);
    set_desc(&drv, 0, of[_i].header, 16, DESC_NEXT, 1);
    set_desc(&drv, 1, of[_i].data, of[_i].len, DESC_NEXT | (write ? 0 : DESC_WRITE), 2);
    set_desc(&drv, 2, STATUS_AT, 1, DESC_WRITE, 0);
    make_available(&drv, 0);
    notify(&drv);
    event_poll(board.queue);
    ck_assert_uint_ge(disk.count, 1);
    for (unsigned i = 0; i < disk.count; i++)
        ck_assert_ptr_null(disk.waiting[i]->let_go);
    ck_assert_uint_eq(marks(BUFFER_AT) | marks(BUFFER_AT + 4096), 0);
    ck_assert_uint_eq(end(), S_OK);
    expect(of[_i].data, 40, of[_i].len);
    ck_assert_uint_eq(disk.bytes[40 * 512] == 0xa5, write);
}
END_TEST

/* A reset, no bus mastering and the device's end leave the guest's memory alone from then on. */
START_TEST(left_alone)
{
    queue_pages(T_IN, 40);
    ck_assert_uint_ne(marks(BUFFER_AT), 0);
    switch (_i) {
    case 0:
        set_status(&drv, 0);
        break;
    case 1:
        blk->dev.reset(&blk->dev);
        break;
    case 2:
        config_out(blk->devfn, PCI_COMMAND, 2, 3);
        break;
    case 3:
        blk->dev.destroy(&blk->dev);
        blk = NULL;
        break;
    }
    ck_assert_uint_eq(marks(BUFFER_AT), 0);
    fill_ram(BUFFER_AT, 0x3c, 8192);
    end();
    for (unsigned i = 0; i < 8192; i++)
        ck_assert_uint_eq(mem_in(BUFFER_AT + i, 1), 0x3c);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("virtio_blk_lent");
    TCase *tcase = tcase_create("virtio_blk_lent");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_loop_test(tcase, without_a_copy, 0, 2);
    tcase_add_loop_test(tcase, errors, 0, 2);
    tcase_add_test(tcase, write_through);
    tcase_add_loop_test(tcase, what_is_copied, 0, 3);
    tcase_add_test(tcase, code_is_told);
    tcase_add_loop_test(tcase, parts_of_pages, 0, 5);
    tcase_add_loop_test(tcase, left_alone, 0, 4);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
