/*
 * scsi_driver.h - a virtio-scsi adapter with two disks and a CD-ROM drive, whose images are in
 * memory (fake_disk.h), and commands for them. Included by one test program each.
 */
#ifndef TEST_SCSI_DRIVER_H
#define TEST_SCSI_DRIVER_H

#include "internal/scsi.h"
#include "kept_page.h"

#include "fake_disk.h"

/* What the driver and the device agree upon: header with 32 bytes of CDB, response with 96 of sense
 * data. */
#define HEADER    51u
#define RESPONSE  108u
#define HEADER_AT (BUFFER_AT + 0x200000)
#define STATUS_AT (BUFFER_AT + 0x208000)
#define DATA_AT   BUFFER_AT
#define SLOTS     64u

enum {
    S_OK = 0,
    S_OVERRUN,
    S_ABORTED,
    S_BAD_TARGET,
    S_RESET,
    S_FAILURE = 9,
    S_SUCCEEDED = 10,
    S_REJECTED = 11,
    S_INCORRECT_LUN = 12,
    S_NONE = 0xee
};
enum { GOOD = 0, CHECK = 2 };
enum { TARGET_DISK = 0, TARGET_CD = 3, TARGET_HIGH = 7 };
enum {
    ABORT_TASK,
    ABORT_TASK_SET,
    CLEAR_ACA,
    CLEAR_TASK_SET,
    NEXUS_RESET,
    LUN_RESET,
    QUERY_TASK,
    QUERY_TASK_SET
};

static struct blockdev disk, disc, high;
static struct pci_device *adapter;
static struct device *units[3];
static struct driver drv, control;

/* ---- Setup -------------------------------------------------------------------------------------
 */

static inline struct device *unit(struct blockdev *image, bool cdrom, unsigned target, unsigned lun)
{
    struct error err = {""};
    const struct scsi_unit_options options = {.cdrom = cdrom,
                                              .disk = image,
                                              .target = target,
                                              .lun = lun,
                                              .serial = "SERIAL-7",
                                              .wwn = 0x5000c50012345678};
    struct device *dev = scsi_unit_create(virtio_scsi_bus(adapter), &options, &err);
    ck_assert_msg(dev != NULL, "%s", err.msg);
    return dev;
}

static inline void start(void)
{
    drv.queue = 2;
    driver_start(&drv, MODERN, 0, 256);
    control = drv;
    control.queue = 0;
    place_queue(&control, 256);
    set_queue(&control);
}

static inline void plug(unsigned queues, bool read_only)
{
    struct error err = {""};
    adapter = virtio_scsi_create(bus, PCI_FIRST_FREE, queues, &err);
    ck_assert_msg(adapter && pci_assign_resources(bus, MEM_WINDOW, MEM_END, &err), "%s", err.msg);
    disk_init(&disk);
    disk_init(&disc);
    disk_init(&high);
    disk.read_only = read_only;
    disc.read_only = true;
    units[0] = unit(&disk, false, TARGET_DISK, 0);
    units[1] = unit(&disc, true, TARGET_CD, 0);
    units[2] = unit(&high, false, TARGET_HIGH, 300);
    driver_find(&drv, adapter);
    start();
}

static inline void unplug(void)
{
    for (unsigned i = 0; i < 3 && adapter; i++)
        units[i]->destroy(units[i]);
    if (adapter)
        adapter->dev.destroy(&adapter->dev);
    adapter = NULL;
    disk_settle(&disk); /* answers that come too late */
    disk_settle(&disc);
}

static inline void setup(void)
{
    board_setup();
    plug(1, false);
}

static inline void teardown(void)
{
    unplug();
    board_teardown();
}

static inline void settle(void)
{
    event_poll(board.queue);
    while (disk.count || disc.count || high.count) {
        disk_settle(&disk);
        disk_settle(&disc);
        disk_settle(&high);
        event_poll(board.queue);
    }
}

/* ---- Commands ----------------------------------------------------------------------------------
 */

struct lun {
    uint8_t bytes[8];
};

static inline struct lun lun_of(unsigned target, unsigned lun)
{
    return (struct lun){{1, (uint8_t)target, (uint8_t)(0x40 | lun >> 8), (uint8_t)lun}};
}

static inline void put_bytes(uint64_t at, const void *bytes, size_t len)
{
    ck_assert_int_eq(phys_write(board.map, &cpu_access, at, bytes, len), PHYS_OK);
}

static inline void get_bytes(uint64_t at, void *bytes, size_t len)
{
    ck_assert_int_eq(phys_read(board.map, &cpu_access, at, bytes, len), PHYS_OK);
}

/* Queues a command in slot 0-63, with data for the device and room for its data at DATA_AT. */
static void queue_command(unsigned slot, struct lun lun, const uint8_t *cdb, uint32_t out,
                          uint32_t in)
{
    uint64_t header = HEADER_AT + 64 * slot, status = STATUS_AT + 128 * slot;
    uint8_t bytes[HEADER] = {0};
    uint64_t id = slot + 100;
    unsigned d = 4 * slot;
    memcpy(bytes, lun.bytes, 8);
    memcpy(bytes + 8, &id, 8);
    memcpy(bytes + 19, cdb, 16);
    put_bytes(header, bytes, HEADER);
    fill_ram(status, S_NONE, RESPONSE);
    uint16_t next = (uint16_t)(d + (out ? 1 : 2));
    set_desc(&drv, d, header, HEADER, DESC_NEXT, next);
    set_desc(&drv, d + 1, DATA_AT, out, DESC_NEXT, (uint16_t)(d + 2));
    set_desc(&drv, d + 2, status, RESPONSE, DESC_WRITE | (in ? DESC_NEXT : 0), (uint16_t)(d + 3));
    set_desc(&drv, d + 3, DATA_AT, in, DESC_WRITE, 0);
    make_available(&drv, (uint16_t)d);
}

static struct {
    uint32_t written, sense_len, residual;
    uint8_t status, response, key;
    uint16_t asc;
    uint32_t info; /* 0 when not valid */
} last;

static inline void read_response(unsigned slot)
{
    uint8_t bytes[RESPONSE];
    get_bytes(STATUS_AT + 128 * slot, bytes, sizeof(bytes));
    memset(&last, 0, sizeof(last));
    memcpy(&last.sense_len, bytes, 4);
    memcpy(&last.residual, bytes + 4, 4);
    last.status = bytes[10];
    last.response = bytes[11];
    last.key = bytes[12 + 2] & 15;
    last.asc = (uint16_t)(bytes[12 + 12] << 8 | bytes[12 + 13]);
    if (bytes[12] & 0x80)
        last.info =
            (uint32_t)bytes[15] << 24 | (uint32_t)bytes[16] << 16 | bytes[17] << 8 | bytes[18];
}

static inline void command_at(struct lun lun, const uint8_t *cdb, uint32_t out, uint32_t in)
{
    uint16_t before = used_idx(&drv);
    queue_command(0, lun, cdb, out, in);
    notify(&drv);
    settle();
    ck_assert_msg(!(get_status(&drv) & VIRTIO_NEEDS_RESET), "broken");
    ck_assert_uint_eq(used_idx(&drv), (uint16_t)(before + 1));
    ck_assert_uint_eq(next_used(&drv, &last.written), 0);
    uint32_t written = last.written;
    read_response(0);
    last.written = written;
}

#define CDB(...)              ((const uint8_t[16]){__VA_ARGS__})
#define command(cdb, out, in) command_at(lun_of(TARGET_DISK, 0), cdb, out, in)

static inline void expect_good(uint32_t data)
{
    ck_assert_uint_eq(last.response, S_OK);
    ck_assert_msg(last.status == GOOD, "status %u, sense %x/%04x", last.status, last.key, last.asc);
    ck_assert_uint_eq(last.written, RESPONSE + data);
}

static inline void expect_check(unsigned key, unsigned asc)
{
    ck_assert_uint_eq(last.response, S_OK);
    ck_assert_uint_eq(last.status, CHECK);
    ck_assert_uint_eq(last.sense_len, 18);
    ck_assert_msg(last.key == key && last.asc == asc, "sense %x/%04x", last.key, last.asc);
}

/* The unit attention of power-on, out of the way. */
static inline void ready(void)
{
    command(CDB(0), 0, 0);
    expect_check(6, 0x2900);
    command(CDB(0), 0, 0);
    expect_good(0);
}

static inline const uint8_t *data(size_t len)
{
    static uint8_t bytes[1 << 20];
    ck_assert_uint_le(len, sizeof(bytes));
    get_bytes(DATA_AT, bytes, len);
    return bytes;
}

static inline uint32_t data32(unsigned at)
{
    const uint8_t *p = data(at + 4) + at;
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

#define disc_command(cdb, in) command_at(lun_of(TARGET_CD, 0), cdb, 0, in)

static inline int run_tests(const char *name, const TTest *const *tests, size_t count)
{
    Suite *suite = suite_create(name);
    TCase *tc = tcase_create(name);
    tcase_add_checked_fixture(tc, setup, teardown);
    for (size_t i = 0; i < count; i++)
        tcase_add_test(tc, tests[i]);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}

#endif
