/*
 * test_virtio_blk.c - the block device's requests, against a disk in memory that answers when the
 * test says so, in any order, and can fail. (test_virtio_blk_image.c has a real image.)
 */
#include "internal/blockdev.h"
#include "kept_page.h"
#include <errno.h>

#define SECTORS   4096u
#define MAX_CHUNK (256u << 10) /* of one request to the disk; more comes in pieces */

enum { T_IN = 0, T_OUT = 1, T_SCSI = 2, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_ZEROES = 13 };
enum { S_OK = 0, S_IOERR = 1, S_UNSUPP = 2, S_NONE = 0xee };
enum {
    F_SEG_MAX = 1 << 2,
    F_RO = 1 << 5,
    F_BLK_SIZE = 1 << 6,
    F_FLUSH = 1 << 9,
    F_CONFIG_WCE = 1 << 11,
    F_DISCARD = 1 << 13,
    F_ZEROES = 1 << 14,
};

/* ---- The disk ----------------------------------------------------------------------------------
 */

struct blockdev {
    uint8_t bytes[SECTORS * 512];
    bool read_only, through, write_cache;
    int fail; /* result of the next requests */
    struct blockdev_request *waiting[512];
    unsigned count;
    char log[256]; /* one letter per request done */
};

static struct blockdev disk;

void blockdev_submit(struct blockdev *dev, struct blockdev_request *request)
{
    ck_assert_uint_lt(dev->count, 512);
    if (request->op == BLOCKDEV_READ || request->op == BLOCKDEV_WRITE)
        ck_assert_uint_le(request->len, MAX_CHUNK);
    dev->waiting[dev->count++] = request;
}

bool blockdev_may_lend(const struct blockdev *dev, enum blockdev_op op, uint64_t offset)
{
    (void)dev, (void)op, (void)offset;
    return false; /* test_virtio_blk_lent.c */
}

uint64_t blockdev_size(const struct blockdev *dev)
{
    return sizeof(dev->bytes);
}

bool blockdev_read_only(const struct blockdev *dev)
{
    return dev->read_only;
}

bool blockdev_default_write_cache(const struct blockdev *dev)
{
    return !dev->through;
}

bool blockdev_write_cache(const struct blockdev *dev)
{
    return dev->write_cache;
}

void blockdev_set_write_cache(struct blockdev *dev, bool on)
{
    dev->write_cache = on;
}

static void perform(struct blockdev_request *r)
{
    size_t n = strlen(disk.log);
    disk.log[n < 254 ? n : 253] = "RWFDZ"[r->op];
    if (!disk.write_cache && r->op != BLOCKDEV_READ && r->op != BLOCKDEV_FLUSH)
        disk.log[n < 254 ? n + 1 : 253] = 'F';
    r->result = disk.fail;
    if (disk.fail || r->op == BLOCKDEV_FLUSH)
        return;
    ck_assert(r->offset + r->len <= sizeof(disk.bytes) && r->offset % 512 == 0);
    uint64_t at = r->offset;
    for (int i = 0; i < r->iovcnt && r->op <= BLOCKDEV_WRITE; at += r->iov[i++].iov_len) {
        if (r->op == BLOCKDEV_READ)
            memcpy(r->iov[i].iov_base, disk.bytes + at, r->iov[i].iov_len);
        else
            memcpy(disk.bytes + at, r->iov[i].iov_base, r->iov[i].iov_len);
    }
    if (r->op == BLOCKDEV_DISCARD || r->op == BLOCKDEV_WRITE_ZEROES)
        memset(disk.bytes + r->offset, 0, r->len);
}

void blockdev_settle(struct blockdev *dev)
{
    (void)dev; /* nothing is lent */
}

/* Finishes the request at `index` of those that wait. */
static void complete(unsigned index)
{
    struct blockdev_request *r = disk.waiting[index];
    ck_assert_uint_lt(index, disk.count);
    memmove(&disk.waiting[index], &disk.waiting[index + 1],
            (disk.count - index - 1) * sizeof(disk.waiting[0]));
    disk.count--;
    perform(r);
    pthread_mutex_lock(&machine_lock);
    r->done(r);
    pthread_mutex_unlock(&machine_lock);
}

/* The device and the disk go on until neither has anything to do. */
static void settle(void)
{
    event_poll(board.queue);
    while (disk.count) {
        complete(0);
        event_poll(board.queue);
    }
}

/* ---- The driver ------------------------------------------------------------------------------ */

#define HEADER_AT (BUFFER_AT + 0x100000)
#define STATUS_AT (BUFFER_AT + 0x100800)
#define LONG_AT   (BUFFER_AT + 0x200000) /* for more than 1 MiB */
#define ALL       (F_SEG_MAX | F_BLK_SIZE | F_FLUSH | F_DISCARD | F_ZEROES)

static struct pci_device *blk;
static struct driver drv;

static void plug(bool read_only)
{
    struct error err = {""};
    disk.write_cache = !disk.through;
    struct virtio_blk_options options = {.disk = &disk, .serial = "serial-number"};
    disk.read_only = read_only;
    blk = virtio_blk_create(bus, PCI_FIRST_FREE, &options, &err);
    ck_assert_msg(blk && pci_assign_resources(bus, MEM_WINDOW, MEM_END, &err), "%s", err.msg);
    driver_find(&drv, blk);
}

static void setup(void)
{
    board_setup();
    memset(&disk, 0, sizeof(disk));
    for (unsigned i = 0; i < sizeof(disk.bytes); i++)
        disk.bytes[i] = (uint8_t)(i / 512 * 3 + i % 253);
    plug(false);
}

static void teardown(void)
{
    if (blk)
        blk->dev.destroy(&blk->dev);
    board_teardown();
}

static void set_header(unsigned slot, uint32_t type, uint64_t sector)
{
    uint64_t at = HEADER_AT + 16 * slot;
    mem_out(at, 4, type);
    mem_out(at + 4, 4, 0);
    mem_out(at + 8, 8, sector);
    mem_out(STATUS_AT + slot, 1, S_NONE);
}

/* Queues a request in slot 0-80: header, data of `len` bytes at `data`, status. */
static void queue_request(unsigned slot, uint32_t type, uint64_t sector, uint64_t data,
                          uint32_t len)
{
    unsigned d = 3 * slot;
    bool in = type == T_IN || type == T_GET_ID;
    set_header(slot, type, sector);
    set_desc(&drv, d, HEADER_AT + 16 * slot, 16, DESC_NEXT, (uint16_t)(len ? d + 1 : d + 2));
    set_desc(&drv, d + 1, data, len, DESC_NEXT | (in ? DESC_WRITE : 0), (uint16_t)(d + 2));
    set_desc(&drv, d + 2, STATUS_AT + slot, 1, DESC_WRITE, 0);
    make_available(&drv, (uint16_t)d);
}

static uint32_t last_written;

/* One request from start to end; its status. */
static uint8_t request(uint32_t type, uint64_t sector, uint64_t data, uint32_t len)
{
    uint16_t before = used_idx(&drv);
    queue_request(0, type, sector, data, len);
    notify(&drv);
    settle();
    ck_assert_msg(!(get_status(&drv) & VIRTIO_NEEDS_RESET), "broken");
    ck_assert_uint_eq(used_idx(&drv), (uint16_t)(before + 1));
    ck_assert_uint_eq(next_used(&drv, &last_written), 0);
    return (uint8_t)mem_in(STATUS_AT, 1);
}

static void expect_ram_is_disk(uint64_t gpa, uint64_t sector, size_t len)
{
    static uint8_t buf[SECTORS * 512];
    ck_assert_int_eq(phys_read(board.map, &cpu_access, gpa, buf, len), PHYS_OK);
    ck_assert_int_eq(memcmp(buf, disk.bytes + sector * 512, len), 0);
}

/* ---- Requests -------------------------------------------------------------------------------- */

START_TEST(configuration)
{
    uint64_t offer = offered_features(&drv);
    ck_assert_uint_eq(offer & (ALL | F_CONFIG_WCE), ALL | F_CONFIG_WCE);
    ck_assert_uint_eq(offer & F_RO, 0);
    ck_assert_uint_eq(config_in(blk->devfn, 0, 4), 0x10011af4);
    ck_assert_uint_eq(config_in(blk->devfn, PCI_SUBSYSTEM_ID, 2), 2);
    for (drv.interface = MODERN; drv.interface <= LEGACY; drv.interface++) {
        ck_assert_uint_eq(get_config(&drv, 0, 4), SECTORS);
        ck_assert_uint_eq(get_config(&drv, 4, 4), 0);
        ck_assert_uint_eq(get_config(&drv, 12, 4), 254);
        ck_assert_uint_eq(get_config(&drv, 20, 4), 512);
        ck_assert_uint_eq(get_config(&drv, 32, 1), 1);
        ck_assert_uint_eq(get_config(&drv, 0x28, 4), 1);
        set_config(&drv, 0, 4, 0); /* read-only */
        ck_assert_uint_eq(get_config(&drv, 0, 4), SECTORS);
    }
    drv.interface = MODERN;
    ck_assert_uint_eq(get_config(&drv, 60, 4), 0); /* past the end */
}
END_TEST

START_TEST(reads_and_writes)
{
    driver_start(&drv, (enum interface)_i, ALL, 256);
    ck_assert_uint_eq(request(T_IN, 7, BUFFER_AT, 4096), S_OK);
    ck_assert_uint_eq(last_written, 4097);
    expect_ram_is_disk(BUFFER_AT, 7, 4096);
    fill_ram(BUFFER_AT, 0xa5, 1024);
    ck_assert_uint_eq(request(T_OUT, 100, BUFFER_AT, 1024), S_OK);
    expect_ram_is_disk(BUFFER_AT, 100, 1024);
    ck_assert_uint_eq(disk.bytes[100 * 512 - 1], (uint8_t)(99 * 3 + (100 * 512 - 1) % 253));
    ck_assert_uint_eq(disk.bytes[102 * 512], (uint8_t)(102 * 3 + 102 * 512 % 253));
    ck_assert_uint_eq(request(T_FLUSH, 0, 0, 0), S_OK);
    ck_assert_str_eq(disk.log, "RWF");
    /* the last sector, and no data at all */
    ck_assert_uint_eq(request(T_IN, SECTORS - 1, BUFFER_AT, 512), S_OK);
    ck_assert_uint_eq(request(T_IN, SECTORS, 0, 0), S_OK);
}
END_TEST

START_TEST(large_requests_come_in_pieces)
{
    driver_start(&drv, MODERN, ALL, 256);
    uint32_t len = 3 * MAX_CHUNK + 1536;
    ck_assert_uint_eq(request(T_IN, 11, BUFFER_AT, len), S_OK);
    ck_assert_uint_eq(last_written, len + 1);
    expect_ram_is_disk(BUFFER_AT, 11, len);
    ck_assert_str_eq(disk.log, "RRRR");
    for (uint32_t i = 0; i < len; i += 4)
        mem_out(BUFFER_AT + i, 4, i * 2654435761u);
    ck_assert_uint_eq(request(T_OUT, 500, BUFFER_AT, len), S_OK);
    expect_ram_is_disk(BUFFER_AT, 500, len);
}
END_TEST

/* ANY_LAYOUT / VERSION_1: the boundaries of header, data and status need not be descriptors'. */
START_TEST(odd_framing)
{
    uint32_t written;
    driver_start(&drv, (enum interface)_i, ALL | VIRTIO_F_ANY_LAYOUT * _i, 256);
    set_header(0, T_OUT, 50);
    fill_ram(HEADER_AT + 16, 0x3c, 512); /* data behind the header, cut at odd places */
    set_desc(&drv, 0, HEADER_AT, 5, DESC_NEXT, 1);
    set_desc(&drv, 1, HEADER_AT + 5, 100, DESC_NEXT, 2);
    set_desc(&drv, 2, HEADER_AT + 105, 512 + 16 - 105, DESC_NEXT, 3);
    set_desc(&drv, 3, STATUS_AT, 1, DESC_WRITE, 0);
    make_available(&drv, 0);
    notify(&drv);
    settle();
    ck_assert_uint_eq(next_used(&drv, &written), 0);
    ck_assert_uint_eq(mem_in(STATUS_AT, 1), S_OK);
    ck_assert_uint_eq(disk.bytes[50 * 512], 0x3c);
    ck_assert_uint_eq(disk.bytes[51 * 512 - 1], 0x3c);
    set_header(0, T_IN, 50);
    set_desc(&drv, 0, HEADER_AT, 16, DESC_NEXT, 1); /* data and status in one buffer */
    set_desc(&drv, 1, BUFFER_AT, 513, DESC_WRITE, 0);
    fill_ram(BUFFER_AT, 0xff, 514);
    make_available(&drv, 0);
    notify(&drv);
    settle();
    ck_assert_uint_eq(next_used(&drv, &written), 0);
    ck_assert_uint_eq(written, 513);
    ck_assert_uint_eq(mem_in(BUFFER_AT + 511, 1), 0x3c);
    ck_assert_uint_eq(mem_in(BUFFER_AT + 512, 1), S_OK);
    ck_assert_uint_eq(mem_in(BUFFER_AT + 513, 1), 0xff);
}
END_TEST

static const struct {
    uint32_t type;
    uint64_t sector;
    uint32_t len;
    uint8_t status;
} refused[] = {
    {T_IN, SECTORS, 512, S_IOERR},    {T_IN, SECTORS - 1, 1024, S_IOERR},
    {T_IN, UINT64_MAX, 512, S_IOERR}, {T_IN, UINT64_MAX / 512, 1024, S_IOERR},
    {T_IN, 1ull << 55, 512, S_IOERR}, /* x 512 is 0 in 64 bits */
    {T_OUT, SECTORS, 512, S_IOERR},   {T_OUT, SECTORS - 1, 1024, S_IOERR},
    {T_IN, 0, 511, S_IOERR},          {T_OUT, 0, 513, S_IOERR},
    {T_SCSI, 0, 512, S_UNSUPP},       {0x80000000, 0, 512, S_UNSUPP},
    {T_DISCARD, 0, 15, S_IOERR},      {T_ZEROES, 0, 32, S_IOERR},
};

START_TEST(refused_requests)
{
    driver_start(&drv, MODERN, ALL, 256);
    fill_ram(BUFFER_AT, 0, 1024);
    ck_assert_uint_eq(request(refused[_i].type, refused[_i].sector, BUFFER_AT, refused[_i].len),
                      refused[_i].status);
    ck_assert_str_eq(disk.log, ""); /* it never reached the disk */
    ck_assert_uint_eq(request(T_IN, 0, BUFFER_AT, 512), S_OK);
}
END_TEST

START_TEST(read_only)
{
    blk->dev.destroy(&blk->dev);
    plug(true);
    ck_assert_uint_eq(offered_features(&drv) & (F_RO | F_DISCARD | F_ZEROES), F_RO);
    driver_start(&drv, MODERN, F_RO | F_FLUSH, 256);
    ck_assert_uint_eq(request(T_OUT, 0, BUFFER_AT, 512), S_IOERR);
    ck_assert_uint_eq(request(T_DISCARD, 0, BUFFER_AT, 16), S_IOERR);
    ck_assert_uint_eq(request(T_IN, 0, BUFFER_AT, 512), S_OK);
    ck_assert_str_eq(disk.log, "R");
}
END_TEST

START_TEST(serial_number)
{
    char id[24] = {0};
    driver_start(&drv, MODERN, ALL, 256);
    fill_ram(BUFFER_AT, 0xff, 24);
    ck_assert_uint_eq(request(T_GET_ID, 0, BUFFER_AT, 20), S_OK);
    phys_read(board.map, &cpu_access, BUFFER_AT, id, 21);
    ck_assert_str_eq(id, "serial-number");
    ck_assert_uint_eq((uint8_t)id[20], 0xff);
    ck_assert_uint_eq(request(T_GET_ID, 0, BUFFER_AT, 4), S_OK); /* less is room enough */
    ck_assert_uint_eq(last_written, 5);
}
END_TEST

static uint8_t erase(uint32_t type, uint64_t sector, uint32_t sectors, uint32_t flags)
{
    mem_out(BUFFER_AT, 8, sector);
    mem_out(BUFFER_AT + 8, 4, sectors);
    mem_out(BUFFER_AT + 12, 4, flags);
    return request(type, 0, BUFFER_AT, 16);
}

START_TEST(discard_and_write_zeroes)
{
    driver_start(&drv, MODERN, ALL, 256);
    ck_assert_uint_eq(erase(T_DISCARD, 10, 5, 0), S_OK);
    ck_assert_uint_eq(erase(T_ZEROES, 20, 3, 0), S_OK);
    ck_assert_uint_eq(erase(T_ZEROES, 30, 3, 1), S_OK); /* may unmap */
    ck_assert_str_eq(disk.log, "DZZ");
    for (unsigned sector = 8; sector < 35; sector++) {
        bool zero = (sector >= 10 && sector < 15) || (sector >= 20 && sector < 23) ||
                    (sector >= 30 && sector < 33);
        ck_assert_int_eq(disk.bytes[sector * 512 + 1] == 0, zero);
    }
    ck_assert_uint_eq(erase(T_DISCARD, 0, 1, 1), S_UNSUPP);
    ck_assert_uint_eq(erase(T_DISCARD, 0, 1, 2), S_UNSUPP);
    ck_assert_uint_eq(erase(T_ZEROES, 0, 1, 2), S_UNSUPP);
    ck_assert_uint_eq(erase(T_ZEROES, SECTORS, 1, 0), S_IOERR);
    ck_assert_uint_eq(erase(T_ZEROES, SECTORS - 1, 2, 0), S_IOERR);
    ck_assert_uint_eq(erase(T_ZEROES, UINT64_MAX, 2, 0), S_IOERR);
    ck_assert_uint_eq(erase(T_DISCARD, 0, 0xffffffff, 0), S_IOERR);
    ck_assert_uint_eq(erase(T_DISCARD, 0, 0, 0), S_OK);
    ck_assert_str_eq(disk.log, "DZZ");
}
END_TEST

START_TEST(disk_errors_reach_the_guest)
{
    driver_start(&drv, MODERN, ALL, 256);
    disk.fail = -ENOSPC;
    ck_assert_uint_eq(request(T_OUT, 0, BUFFER_AT, 512), S_IOERR);
    ck_assert_uint_eq(request(T_IN, 0, BUFFER_AT, 512), S_IOERR);
    ck_assert_uint_eq(request(T_IN, 0, BUFFER_AT, 2 * MAX_CHUNK), S_IOERR);
    ck_assert_uint_eq(request(T_FLUSH, 0, 0, 0), S_IOERR);
    ck_assert_uint_eq(erase(T_ZEROES, 0, 1, 0), S_IOERR);
    disk.fail = 0;
    ck_assert_uint_eq(request(T_OUT, 0, BUFFER_AT, 512), S_OK);
}
END_TEST

/* ---- Write cache ----------------------------------------------------------------------------- */

START_TEST(without_flush_every_write_is_flushed)
{
    driver_start(&drv, (enum interface)_i, 0, 256);
    ck_assert_uint_eq(request(T_OUT, 0, BUFFER_AT, 2 * MAX_CHUNK), S_OK);
    ck_assert_uint_eq(request(T_IN, 0, BUFFER_AT, 512), S_OK);
    ck_assert_str_eq(disk.log, "WWFR");
}
END_TEST

START_TEST(the_cache_can_be_switched)
{
    driver_start(&drv, MODERN, F_FLUSH | F_CONFIG_WCE | F_ZEROES, 256);
    ck_assert_uint_eq(request(T_OUT, 0, BUFFER_AT, 512), S_OK);
    set_config(&drv, 32, 1, 0);
    ck_assert_uint_eq(get_config(&drv, 32, 1), 0);
    ck_assert_uint_eq(request(T_OUT, 0, BUFFER_AT, 512), S_OK);
    ck_assert_uint_eq(erase(T_ZEROES, 0, 1, 0), S_OK);
    set_config(&drv, 32, 1, 1);
    ck_assert_uint_eq(request(T_OUT, 0, BUFFER_AT, 512), S_OK);
    ck_assert_str_eq(disk.log, "WWFZFW");
    set_config(&drv, 32, 1, 0);
    set_status(&drv, 0);
    ck_assert_uint_eq(get_config(&drv, 32, 1), 1); /* the default again */
}
END_TEST

START_TEST(a_disk_without_a_write_cache_says_so)
{
    blk->dev.destroy(&blk->dev);
    disk.through = true;
    plug(false);
    driver_start(&drv, MODERN, F_FLUSH | F_CONFIG_WCE, 256);
    ck_assert_uint_eq(get_config(&drv, 32, 1), 0);
    ck_assert_uint_eq(request(T_OUT, 0, BUFFER_AT, 512), S_OK);
    set_config(&drv, 32, 1, 1);
    ck_assert_uint_eq(request(T_OUT, 0, BUFFER_AT, 512), S_OK);
    ck_assert_str_eq(disk.log, "WFW");
    set_status(&drv, 0);
    ck_assert_uint_eq(get_config(&drv, 32, 1), 0); /* as cache= has it */
    driver_start(&drv, MODERN, 0, 256);
    ck_assert_uint_eq(request(T_OUT, 0, BUFFER_AT, 512), S_OK);
    ck_assert_str_eq(disk.log, "WFWWF"); /* flushed once */
}
END_TEST

/* ---- Several at once ------------------------------------------------------------------------- */

START_TEST(completions_in_any_order)
{
    enum { N = 80 };
    uint32_t written;
    bool seen[N] = {false};
    driver_start(&drv, MODERN, ALL | VIRTIO_F_EVENT_IDX, 256);
    for (unsigned i = 0; i < N; i++)
        queue_request(i, T_IN, 3 * i, BUFFER_AT + 1024 * i, 1024);
    notify(&drv);
    event_poll(board.queue);
    ck_assert_uint_eq(disk.count, N); /* all are with the disk */
    for (unsigned i = 0; i < N; i++)
        complete((i * 37) % disk.count);
    for (unsigned i = 0; i < N; i++) {
        unsigned slot = next_used(&drv, &written) / 3;
        ck_assert(slot < N && !seen[slot]);
        seen[slot] = true;
        ck_assert_uint_eq(written, 1025);
        ck_assert_uint_eq(mem_in(STATUS_AT + slot, 1), S_OK);
        expect_ram_is_disk(BUFFER_AT + 1024 * slot, 3 * slot, 1024);
    }
}
END_TEST

/* Of a long request four pieces are at the disk; it is complete when all of them are. */
START_TEST(pieces_complete_in_any_order)
{
    static const unsigned order[] = {2, 3, 0, 1, 1, 0};
    const uint32_t len = 5 * MAX_CHUNK + 1536, type = _i ? T_OUT : T_IN;
    driver_start(&drv, MODERN, ALL, 256);
    for (uint32_t i = 0; i < len; i += 4)
        mem_out(LONG_AT + i, 4, i * 2654435761u);
    queue_request(0, type, 11, LONG_AT, len);
    notify(&drv);
    event_poll(board.queue);
    for (unsigned i = 0; i < 6; i++) {
        ck_assert_uint_eq(disk.count, i < 3 ? 4 : 6 - i);
        ck_assert_uint_eq(used_idx(&drv), 0);
        complete(order[i]);
        event_poll(board.queue);
    }
    ck_assert_uint_eq(disk.count, 0);
    ck_assert_uint_eq(used_idx(&drv), 1);
    ck_assert_uint_eq(mem_in(STATUS_AT, 1), S_OK);
    expect_ram_is_disk(LONG_AT, 11, len);
}
END_TEST

/* Its buffers are still the disk's until then, and the guest's memory the request's. */
START_TEST(a_piece_that_fails_waits_for_the_others)
{
    driver_start(&drv, MODERN, ALL, 256);
    queue_request(0, _i ? T_OUT : T_IN, 11, LONG_AT, 5 * MAX_CHUNK);
    notify(&drv);
    event_poll(board.queue);
    ck_assert_uint_eq(disk.count, 4);
    disk.fail = -EIO;
    complete(1);
    disk.fail = 0;
    event_poll(board.queue);
    for (unsigned left = 3; left > 0; left--) {
        ck_assert_uint_eq(disk.count, left); /* nothing more is begun */
        ck_assert_uint_eq(used_idx(&drv), 0);
        complete(0);
        event_poll(board.queue);
    }
    ck_assert_uint_eq(disk.count, 0);
    ck_assert_uint_eq(used_idx(&drv), 1);
    ck_assert_uint_eq(mem_in(STATUS_AT, 1), S_IOERR);
}
END_TEST

/* A guest that hands out the same chain for ever must not make us hold requests without end. */
START_TEST(requests_in_flight_are_bounded)
{
    driver_start(&drv, MODERN, ALL, 4);
    set_header(0, T_IN, 0);
    set_desc(&drv, 0, HEADER_AT, 16, DESC_NEXT, 1);
    set_desc(&drv, 1, BUFFER_AT, 513, DESC_WRITE, 0);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned batch = 0; batch < 2; batch++) {
            for (unsigned i = 0; i < 4; i++)
                make_available(&drv, 0);
            notify(&drv);
            event_poll(board.queue);
            event_poll(board.queue);
            ck_assert_uint_eq(disk.count, 4); /* the second four wait in the ring */
        }
        settle(); /* and are served after all */
        ck_assert_uint_eq(used_idx(&drv), drv.avail_idx);
    }
}
END_TEST

/* ---- Resets ---------------------------------------------------------------------------------- */

START_TEST(reset_with_requests_in_flight)
{
    driver_start(&drv, MODERN, ALL, 256);
    fill_ram(BUFFER_AT, 0x11, 512);
    queue_request(0, T_OUT, 5, BUFFER_AT, 512);
    queue_request(1, T_IN, 9, BUFFER_AT + 4096, 512);
    notify(&drv);
    event_poll(board.queue);
    ck_assert_uint_eq(disk.count, 2);
    driver_start(&drv, MODERN, ALL, 256);
    fill_ram(BUFFER_AT, 0x22, 512);
    fill_ram(BUFFER_AT + 4096, 0xcc, 512);
    queue_request(0, T_OUT, 5, BUFFER_AT, 512);
    notify(&drv);
    event_poll(board.queue);
    ck_assert_uint_eq(disk.count, 2); /* the new one waits for the old ones */
    settle();
    ck_assert_uint_eq(used_idx(&drv), 1); /* and only it is reported */
    ck_assert_uint_eq(disk.bytes[5 * 512], 0x22);
    ck_assert_uint_eq(mem_in(BUFFER_AT + 4096, 1), 0xcc); /* no DMA for the forgotten read */
}
END_TEST

START_TEST(system_reset_and_destruction_in_flight)
{
    driver_start(&drv, MODERN, ALL, 256);
    queue_request(0, T_OUT, 5, BUFFER_AT, 512);
    queue_request(1, T_OUT, 6, BUFFER_AT, 2 * MAX_CHUNK);
    notify(&drv);
    event_poll(board.queue);
    blk->dev.reset(&blk->dev);
    complete(0);
    blk->dev.destroy(&blk->dev);
    blk = NULL;
    complete(1); /* after the device is gone */
    complete(0);
    ck_assert_uint_eq(disk.count, 0);
}
END_TEST

START_TEST(bus_mastering_off_in_flight)
{
    driver_start(&drv, MODERN, ALL, 256);
    queue_request(0, T_IN, 5, BUFFER_AT, 512);
    notify(&drv);
    event_poll(board.queue);
    fill_ram(BUFFER_AT, 0x44, 512);
    config_out(blk->devfn, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    settle();
    ck_assert_uint_eq(mem_in(BUFFER_AT, 1), 0x44);
    ck_assert_uint_eq(used_idx(&drv), 0);
    ck_assert(get_status(&drv) & VIRTIO_NEEDS_RESET);
}
END_TEST

/* ---- Malformed requests ---------------------------------------------------------------------- */

static void no_header(void)
{
    set_desc(&drv, 0, STATUS_AT, 1, DESC_WRITE, 0);
}

static void short_header(void)
{
    set_desc(&drv, 0, HEADER_AT, 15, DESC_NEXT, 1);
    set_desc(&drv, 1, STATUS_AT, 1, DESC_WRITE, 0);
}

static void no_status(void)
{
    set_desc(&drv, 0, HEADER_AT, 16, 0, 0);
}

static void empty_status(void)
{
    set_desc(&drv, 0, HEADER_AT, 16, DESC_NEXT, 1);
    set_desc(&drv, 1, STATUS_AT, 0, DESC_WRITE, 0);
}

static void header_in_a_hole(void)
{
    set_desc(&drv, 0, RAM_SIZE, 16, DESC_NEXT, 1);
    set_desc(&drv, 1, STATUS_AT, 1, DESC_WRITE, 0);
}

static void status_in_a_hole(void)
{
    set_desc(&drv, 0, HEADER_AT, 16, DESC_NEXT, 1);
    set_desc(&drv, 1, RAM_SIZE, 1, DESC_WRITE, 0);
}

static void data_in_a_hole(void)
{
    set_desc(&drv, 0, HEADER_AT, 16, DESC_NEXT, 1);
    set_desc(&drv, 1, RAM_SIZE, 512, DESC_NEXT | DESC_WRITE, 2);
    set_desc(&drv, 2, STATUS_AT, 1, DESC_WRITE, 0);
}

static void written_data_in_a_hole(void)
{
    set_header(0, T_OUT, 0);
    set_desc(&drv, 0, HEADER_AT, 16, DESC_NEXT, 1);
    set_desc(&drv, 1, RAM_SIZE, 512, DESC_NEXT, 2);
    set_desc(&drv, 2, STATUS_AT, 1, DESC_WRITE, 0);
}

static void data_in_registers(void)
{
    set_desc(&drv, 0, HEADER_AT, 16, DESC_NEXT, 1);
    set_desc(&drv, 1, drv.notify, 512, DESC_NEXT | DESC_WRITE, 2);
    set_desc(&drv, 2, STATUS_AT, 1, DESC_WRITE, 0);
}

static void (*const malformed[])(void) = {
    no_header,      short_header,           no_status,
    empty_status,   header_in_a_hole,       status_in_a_hole,
    data_in_a_hole, written_data_in_a_hole, data_in_registers,
};

START_TEST(malformed_requests)
{
    driver_start(&drv, MODERN, ALL, 256);
    set_header(0, T_IN, 0);
    malformed[_i]();
    make_available(&drv, 0);
    notify(&drv);
    settle();
    ck_assert(get_status(&drv) & VIRTIO_NEEDS_RESET);
    ck_assert_uint_eq(used_idx(&drv), 0);
    driver_start(&drv, MODERN, ALL, 256);
    ck_assert_uint_eq(request(T_IN, 3, BUFFER_AT, 512), S_OK);
}
END_TEST

/* Nothing is read behind what has broken the device: a write that was made available with it is not
 * done without an answer. */
START_TEST(nothing_is_done_behind_a_malformed_request)
{
    const uint8_t before = disk.bytes[7 * 512];
    driver_start(&drv, MODERN, ALL, 256);
    no_header();
    make_available(&drv, 0);
    fill_ram(BUFFER_AT, (uint8_t)~before, 512);
    queue_request(20, T_OUT, 7, BUFFER_AT, 512);
    notify(&drv);
    settle();
    ck_assert(get_status(&drv) & VIRTIO_NEEDS_RESET);
    ck_assert_uint_eq(used_idx(&drv), 0);
    ck_assert_uint_eq(disk.bytes[7 * 512], before);
}
END_TEST

/* ---- Data that a protection rule keeps from the device --------------------------------------- */

#define RULED_AT (BUFFER_AT + 0x200000) /* one page; the last one of a long buffer */

static const struct {
    uint32_t type, len;
} kept[] = {{T_IN, 512},           {T_OUT, 512},   {T_OUT, 2 * MAX_CHUNK},
            {T_IN, 2 * MAX_CHUNK}, {T_GET_ID, 20}, {T_ZEROES, 16}};

START_TEST(data_that_is_refused_fails_the_request_not_the_device)
{
    driver_start(&drv, MODERN, ALL, 256);
    struct rules *rules = keep_page(RULED_AT);
    uint64_t data = kept[_i].len > 512 ? RULED_AT - kept[_i].len + 4096 : RULED_AT;
    uint8_t before = disk.bytes[3 * 512];
    ck_assert_uint_eq(request(kept[_i].type, 3, data, kept[_i].len), S_IOERR);
    /* 2.7.8.2: the status byte counts only if all before it was written */
    ck_assert_uint_eq(last_written, kept[_i].type == T_OUT || kept[_i].type == T_ZEROES);
    if (kept[_i].len <= 512)
        ck_assert_uint_eq(disk.bytes[3 * 512], before);
    ck_assert_uint_eq(request(T_IN, 3, BUFFER_AT, 512), S_OK);
    rules_free(rules);
    ck_assert_uint_eq(request(T_IN, 3, RULED_AT, 512), S_OK);
}
END_TEST

START_TEST(a_header_that_is_refused_fails_the_request)
{
    driver_start(&drv, MODERN, ALL, 256);
    struct rules *rules = keep_page(RULED_AT);
    set_header(0, T_IN, 0);
    set_desc(&drv, 0, RULED_AT, 16, DESC_NEXT, 1);
    set_desc(&drv, 1, BUFFER_AT, 512, DESC_NEXT | DESC_WRITE, 2);
    set_desc(&drv, 2, STATUS_AT, 1, DESC_WRITE, 0);
    make_available(&drv, 0);
    notify(&drv);
    settle();
    ck_assert_uint_eq(mem_in(STATUS_AT, 1), S_IOERR);
    ck_assert(!(get_status(&drv) & VIRTIO_NEEDS_RESET));
    rules_free(rules);
}
END_TEST

/* As many requests as the queue has entries are in flight; the one that waits is taken when one of
 * them fails. */
START_TEST(refused_data_does_not_leave_waiting_requests_behind)
{
    driver_start(&drv, MODERN, ALL, 8);
    struct rules *rules = keep_page(RULED_AT);
    set_header(0, T_IN, 0);
    set_desc(&drv, 0, HEADER_AT, 16, DESC_NEXT, 1);
    set_desc(&drv, 1, RULED_AT, 512, DESC_NEXT | DESC_WRITE, 2);
    set_desc(&drv, 2, STATUS_AT, 1, DESC_WRITE, 0);
    for (unsigned n = 0; n < 8; n++) /* the same chain again and again: the disk takes each */
        make_available(&drv, 0);
    notify(&drv);
    event_poll(board.queue);
    ck_assert_uint_eq(disk.count, 8);
    make_available(&drv, 0);
    notify(&drv);
    event_poll(board.queue);
    ck_assert_uint_eq(disk.count, 8); /* it waits */
    complete(0);
    event_poll(board.queue);
    ck_assert_uint_eq(disk.count, 8); /* its turn */
    settle();
    ck_assert_uint_eq(used_idx(&drv), 9);
    rules_free(rules);
}
END_TEST

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

int main(void)
{
    Suite *suite = suite_create("virtio_blk");
    TCase *tc = tcase_create("virtio_blk");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, configuration);
    tcase_add_loop_test(tc, reads_and_writes, 0, 2);
    tcase_add_test(tc, large_requests_come_in_pieces);
    tcase_add_loop_test(tc, odd_framing, 0, 2);
    tcase_add_loop_test(tc, refused_requests, 0, COUNT(refused));
    tcase_add_test(tc, read_only);
    tcase_add_test(tc, serial_number);
    tcase_add_test(tc, discard_and_write_zeroes);
    tcase_add_test(tc, disk_errors_reach_the_guest);
    tcase_add_loop_test(tc, without_flush_every_write_is_flushed, 0, 2);
    tcase_add_test(tc, the_cache_can_be_switched);
    tcase_add_test(tc, a_disk_without_a_write_cache_says_so);
    tcase_add_test(tc, completions_in_any_order);
    tcase_add_loop_test(tc, pieces_complete_in_any_order, 0, 2);
    tcase_add_loop_test(tc, a_piece_that_fails_waits_for_the_others, 0, 2);
    tcase_add_test(tc, requests_in_flight_are_bounded);
    tcase_add_test(tc, reset_with_requests_in_flight);
    tcase_add_test(tc, system_reset_and_destruction_in_flight);
    tcase_add_test(tc, bus_mastering_off_in_flight);
    tcase_add_loop_test(tc, malformed_requests, 0, COUNT(malformed));
    tcase_add_test(tc, nothing_is_done_behind_a_malformed_request);
    tcase_add_loop_test(tc, data_that_is_refused_fails_the_request_not_the_device, 0, COUNT(kept));
    tcase_add_test(tc, a_header_that_is_refused_fails_the_request);
    tcase_add_test(tc, refused_data_does_not_leave_waiting_requests_behind);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
