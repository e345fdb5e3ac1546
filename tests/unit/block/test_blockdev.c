/*
 * test_blockdev.c - src/block: requests reach the file and come back through the event queue, locks
 * keep a second machine out, a snapshot leaves the image alone, and a damaged image gives errors.
 */
#include "internal/blockdev.h"
#include "internal/clock.h"
#include "internal/error.h"
#include "internal/event.h"
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECTORS    64
#define IMAGE_SIZE (SECTORS * 512)

static pthread_mutex_t lock;
static struct clock *machine_clock;
static struct event_queue *queue;
static char path[64];
static unsigned outstanding;

/* ---- Fixture ----------------------------------------------------------------------------------
 */

static uint8_t pattern(uint64_t offset)
{
    return (uint8_t)(offset / 512 * 7 + offset % 251);
}

static void setup(void)
{
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&lock, &attr);
    machine_clock = clock_new();
    queue = event_queue_new(machine_clock, &lock);
    strcpy(path, "/tmp/bailey-test-XXXXXX");
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    for (unsigned i = 0; i < IMAGE_SIZE; i++) {
        uint8_t byte = pattern(i);
        ck_assert_int_eq(pwrite(fd, &byte, 1, i), 1);
    }
    close(fd);
}

static void teardown(void)
{
    event_queue_free(queue);
    clock_free(machine_clock);
    unlink(path);
}

enum { READ_ONLY = 1, SNAPSHOT = 2, UNMAP = 4 };

static struct blockdev *open_path(const char *image, unsigned flags, struct error *err)
{
    const struct blockdev_options options = {
        .path = image,
        .read_only = (flags & READ_ONLY) != 0,
        .snapshot = (flags & SNAPSHOT) != 0,
        .discard = flags & UNMAP ? BLOCKDEV_DISCARD_UNMAP : BLOCKDEV_DISCARD_IGNORE,
    };
    return blockdev_open(&options, queue, err);
}

static struct blockdev *open_image(unsigned flags)
{
    struct error err;
    struct blockdev *dev = open_path(path, flags, &err);
    ck_assert_msg(dev != NULL, "%s", err.msg);
    return dev;
}

static void done(struct blockdev_request *request)
{
    (void)request;
    if (--outstanding == 0)
        event_loop_quit(queue);
}

static void submit(struct blockdev *dev, struct blockdev_request *request)
{
    request->done = done;
    request->result = 12345;
    outstanding++;
    blockdev_submit(dev, request);
}

/* Submits and waits; the result. */
static int run_vector(struct blockdev *dev, enum blockdev_op op, uint64_t offset, uint64_t len,
                      const struct iovec *iov, int iovcnt)
{
    struct blockdev_request request = {
        .op = op, .offset = offset, .len = len, .iov = iov, .iovcnt = iovcnt};
    submit(dev, &request);
    event_loop_run(queue);
    ck_assert_uint_eq(outstanding, 0);
    return request.result;
}

static int run(struct blockdev *dev, enum blockdev_op op, uint64_t offset, uint64_t len, void *buf)
{
    struct iovec iov = {buf, len};
    return run_vector(dev, op, offset, len, &iov, 1);
}

/* The file itself, past all of ours. */
static void read_file(uint64_t offset, void *buf, size_t len)
{
    int fd = open(path, O_RDONLY);
    ck_assert_int_eq(pread(fd, buf, len, (off_t)offset), (int)len);
    close(fd);
}

static void expect_pattern(const uint8_t *bytes, uint64_t offset, size_t len)
{
    for (size_t i = 0; i < len; i++)
        ck_assert_msg(bytes[i] == pattern(offset + i), "byte %zu of offset %llu", i,
                      (unsigned long long)offset);
}

static void expect_value(const uint8_t *bytes, uint8_t value, size_t len)
{
    for (size_t i = 0; i < len; i++)
        ck_assert_msg(bytes[i] == value, "byte %zu is %#x", i, bytes[i]);
}

/* ---- Reading and writing ----------------------------------------------------------------------
 */

START_TEST(reads_and_writes_reach_the_file)
{
    struct blockdev *dev = open_image(0);
    uint8_t buf[4096];
    ck_assert_uint_eq(blockdev_size(dev), IMAGE_SIZE);
    ck_assert(!blockdev_read_only(dev));
    ck_assert_int_eq(run(dev, BLOCKDEV_READ, 1024, 4096, buf), 0);
    expect_pattern(buf, 1024, 4096);
    memset(buf, 0xab, sizeof(buf));
    ck_assert_int_eq(run(dev, BLOCKDEV_WRITE, 512, 2048, buf), 0);
    ck_assert_int_eq(run(dev, BLOCKDEV_FLUSH, 0, 0, NULL), 0);
    uint8_t file[4096];
    read_file(0, file, sizeof(file));
    expect_pattern(file, 0, 512);
    expect_value(file + 512, 0xab, 2048);
    expect_pattern(file + 2560, 2560, 4096 - 2560);
    blockdev_close(dev);
}
END_TEST

/* More pieces than one system call takes here (64), of odd sizes. */
START_TEST(long_vectors_are_done_whole)
{
    enum { PIECES = 1000 };
    struct blockdev *dev = open_image(0);
    static uint8_t buf[IMAGE_SIZE];
    struct iovec iov[PIECES];
    size_t at = 0;
    for (int i = 0; i < PIECES; i++) {
        size_t len = i == PIECES - 1 ? IMAGE_SIZE - at : (size_t)(i % 50);
        iov[i] = (struct iovec){buf + at, len};
        at += len;
    }
    ck_assert_int_eq(run_vector(dev, BLOCKDEV_READ, 0, IMAGE_SIZE, iov, PIECES), 0);
    expect_pattern(buf, 0, IMAGE_SIZE);
    for (size_t i = 0; i < IMAGE_SIZE; i++)
        buf[i] = (uint8_t)~buf[i];
    ck_assert_int_eq(run_vector(dev, BLOCKDEV_WRITE, 0, IMAGE_SIZE, iov, PIECES), 0);
    blockdev_close(dev);
    static uint8_t file[IMAGE_SIZE];
    read_file(0, file, IMAGE_SIZE);
    ck_assert_int_eq(memcmp(file, buf, IMAGE_SIZE), 0);
}
END_TEST

START_TEST(many_requests_at_once)
{
    enum { N = SECTORS };
    struct blockdev *dev = open_image(0);
    struct blockdev_request requests[N];
    struct iovec iov[N];
    static uint8_t data[N][512];
    for (int i = 0; i < N; i++) {
        memset(data[i], i + 1, 512);
        iov[i] = (struct iovec){data[i], 512};
        requests[i] = (struct blockdev_request){.op = BLOCKDEV_WRITE,
                                                .offset = (uint64_t)i * 512,
                                                .len = 512,
                                                .iov = &iov[i],
                                                .iovcnt = 1};
        submit(dev, &requests[i]);
    }
    event_loop_run(queue);
    ck_assert_uint_eq(outstanding, 0);
    for (int i = 0; i < N; i++)
        ck_assert_int_eq(requests[i].result, 0);
    blockdev_close(dev);
    for (int i = 0; i < N; i++) {
        uint8_t sector[512];
        read_file((uint64_t)i * 512, sector, 512);
        expect_value(sector, (uint8_t)(i + 1), 512);
    }
}
END_TEST

/* ---- Buffers that are let go of ---- */

static _Atomic unsigned let_go_of;
static pthread_t submitter;

static void let_go(struct blockdev_request *request)
{
    ck_assert(!pthread_equal(pthread_self(), submitter));
    ck_assert_int_eq(request->result, 0);
    ck_assert_ptr_nonnull(request->opaque); /* `done` has not been */
    atomic_fetch_add(&let_go_of, 1);
}

static void done_then(struct blockdev_request *request)
{
    request->opaque = NULL;
    done(request);
}

/* By a worker, once, before the completion, which needs the event queue. */
START_TEST(settled_is_let_go_of)
{
    enum { REQUESTS = 40 };
    struct blockdev *dev = open_image(0);
    static uint8_t bytes[REQUESTS][4096];
    struct iovec iov[REQUESTS];
    struct blockdev_request requests[REQUESTS];
    submitter = pthread_self();
    atomic_store(&let_go_of, 0);
    outstanding = 0;
    for (unsigned i = 0; i < REQUESTS; i++) {
        iov[i] = (struct iovec){bytes[i], 4096};
        requests[i] = (struct blockdev_request){.op = BLOCKDEV_READ,
                                                .offset = i % 8 * 4096,
                                                .len = 4096,
                                                .iov = &iov[i],
                                                .iovcnt = 1,
                                                .let_go = let_go,
                                                .done = done_then,
                                                .opaque = dev};
        outstanding++;
        blockdev_submit(dev, &requests[i]);
    }
    pthread_mutex_lock(&lock); /* as a device does it */
    blockdev_settle(dev);
    pthread_mutex_unlock(&lock);
    ck_assert_uint_eq(atomic_load(&let_go_of), REQUESTS);
    ck_assert_uint_eq(outstanding, REQUESTS);
    for (unsigned i = 0; i < REQUESTS; i++)
        expect_pattern(bytes[i], i % 8 * 4096, 4096);
    event_loop_run(queue);
    ck_assert_uint_eq(atomic_load(&let_go_of), REQUESTS);
    blockdev_settle(dev); /* nothing to wait for */
    blockdev_close(dev);
}
END_TEST

/* The beginning of an image that is only taken for raw is looked at before it is written. */
START_TEST(what_may_be_lent)
{
    struct error err;
    struct blockdev *dev = open_image(0);
    ck_assert(blockdev_may_lend(dev, BLOCKDEV_READ, 0));
    ck_assert(!blockdev_may_lend(dev, BLOCKDEV_WRITE, 0));
    ck_assert(blockdev_may_lend(dev, BLOCKDEV_WRITE, 512));
    blockdev_close(dev);
    const struct blockdev_options raw = {.path = path, .format = "raw"};
    dev = blockdev_open(&raw, queue, &err);
    ck_assert(blockdev_may_lend(dev, BLOCKDEV_WRITE, 0));
    blockdev_close(dev);
    const struct blockdev_options detecting = {
        .path = path, .format = "raw", .detect_zeroes = BLOCKDEV_DETECT_ON};
    dev = blockdev_open(&detecting, queue, &err);
    ck_assert(blockdev_may_lend(dev, BLOCKDEV_READ, 512));
    ck_assert(!blockdev_may_lend(dev, BLOCKDEV_WRITE, 512));
    blockdev_close(dev);
}
END_TEST

START_TEST(close_completes_what_is_in_flight)
{
    enum { N = 16 };
    struct blockdev *dev = open_image(0);
    struct blockdev_request requests[N];
    uint8_t data[512];
    struct iovec iov = {data, 512};
    memset(data, 0x77, sizeof(data));
    for (int i = 0; i < N; i++) {
        requests[i] = (struct blockdev_request){.op = BLOCKDEV_WRITE,
                                                .offset = (uint64_t)i * 512,
                                                .len = 512,
                                                .iov = &iov,
                                                .iovcnt = 1};
        submit(dev, &requests[i]);
    }
    blockdev_close(dev); /* without a single turn of the loop */
    ck_assert_uint_eq(outstanding, 0);
    uint8_t file[N * 512];
    read_file(0, file, sizeof(file));
    expect_value(file, 0x77, sizeof(file));
}
END_TEST

START_TEST(requests_outside_the_image_fail)
{
    static const struct {
        uint64_t offset, len;
    } bad[] = {
        {IMAGE_SIZE, 512},
        {IMAGE_SIZE - 512, 1024},
        {UINT64_MAX - 511, 512},
        {UINT64_MAX - 511, 1024},
        {0, IMAGE_SIZE + 512},
        {512, UINT64_MAX - 511},
        {1, 512},
        {0, 511},
    };
    struct blockdev *dev = open_image(0);
    static uint8_t buf[IMAGE_SIZE + 512];
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        for (unsigned op = BLOCKDEV_READ; op <= BLOCKDEV_WRITE_ZEROES; op++)
            if (op != BLOCKDEV_FLUSH)
                ck_assert_int_lt(run(dev, op, bad[i].offset, bad[i].len, buf), 0);
    blockdev_close(dev);
    struct stat st;
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_int_eq(st.st_size, IMAGE_SIZE);
}
END_TEST

START_TEST(zeroes_and_discards)
{
    struct blockdev *dev = open_image(0);
    uint8_t buf[8192];
    ck_assert_int_eq(run(dev, BLOCKDEV_WRITE_ZEROES, 512, 6144, NULL), 0);
    ck_assert_int_eq(run(dev, BLOCKDEV_DISCARD, 16384, 4096, NULL), 0);
    ck_assert_int_eq(run(dev, BLOCKDEV_READ, 0, 8192, buf), 0);
    expect_pattern(buf, 0, 512);
    expect_value(buf + 512, 0, 6144);
    expect_pattern(buf + 6656, 6656, 8192 - 6656);
    ck_assert_int_eq(run(dev, BLOCKDEV_READ, 16384, 8192, buf), 0);
    expect_pattern(buf + 4096, 20480, 4096); /* beside the discarded part */
    blockdev_close(dev);
    struct stat st;
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_int_eq(st.st_size, IMAGE_SIZE);
}
END_TEST

/* The space of discarded sectors goes back to the host with discard=unmap, and only then. */
START_TEST(discard_gives_space_back_when_told_to)
{
    for (unsigned unmap = 0; unmap < 2; unmap++) {
        struct blockdev *dev = open_image(unmap ? UNMAP : 0);
        uint8_t buf[8192];
        ck_assert_int_eq(run(dev, BLOCKDEV_DISCARD, 8192, 8192, NULL), 0);
        ck_assert_int_eq(run(dev, BLOCKDEV_READ, 8192, 8192, buf), 0);
        if (unmap)
            expect_value(buf, 0, sizeof(buf));
        else
            expect_pattern(buf, 8192, sizeof(buf));
        blockdev_close(dev);
    }
}
END_TEST

/* ---- Formats ----------------------------------------------------------------------------------
 */

static struct blockdev *open_as(const char *format, enum blockdev_cache cache, struct error *err)
{
    const struct blockdev_options options = {.path = path, .format = format, .cache = cache};
    return blockdev_open(&options, queue, err);
}

/* A guest that owns a raw image must not make it a qcow2 image, whose backing file would be any
 * file of the host's, for a next start that looks at the contents. */
START_TEST(probed_raw_images_stay_raw)
{
    static const struct {
        unsigned at;
        const char *magic;
    } cases[] = {
        {0, "QFI\xfb"}, {0, "KDMV"}, {0, "conectix"}, {0, "vhdxfile"}, {0x40, "\x7f\x10\xda\xbe"}};
    uint8_t plain[1024] = {0}, buf[1024];
    struct error err;
    struct iovec pieces[2];
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t bad[1024] = {0};
        memcpy(bad + cases[i].at, cases[i].magic, strlen(cases[i].magic));
        struct blockdev *dev = open_image(0);
        ck_assert_str_eq(blockdev_format(dev), "raw");
        ck_assert_int_eq(run(dev, BLOCKDEV_WRITE, 0, 1024, plain), 0);
        ck_assert_int_eq(run(dev, BLOCKDEV_WRITE, 0, 1024, bad), -EPERM);
        pieces[0] = (struct iovec){bad, 2};
        pieces[1] = (struct iovec){bad + 2, 1022};
        ck_assert_int_eq(run_vector(dev, BLOCKDEV_WRITE, 0, 1024, pieces, 2), -EPERM);
        ck_assert_int_eq(run(dev, BLOCKDEV_WRITE, 512, 1024, bad), 0);
        ck_assert_int_eq(run(dev, BLOCKDEV_READ, 0, 512, buf), 0);
        expect_value(buf, 0, 512);
        blockdev_close(dev);
        dev = open_as("raw", BLOCKDEV_CACHE_WRITEBACK, &err);
        ck_assert_int_eq(run(dev, BLOCKDEV_WRITE, 0, 1024, bad), 0); /* its right */
        blockdev_close(dev);
        dev = open_as("raw", BLOCKDEV_CACHE_WRITEBACK, &err); /* still what was said */
        ck_assert_str_eq(blockdev_format(dev), "raw");
        ck_assert_int_eq(run(dev, BLOCKDEV_WRITE, 0, 1024, plain), 0);
        blockdev_close(dev);
    }
}
END_TEST

START_TEST(the_format_that_was_asked_for_must_be_there)
{
    struct error err = {""};
    ck_assert_ptr_null(open_as("qcow2", BLOCKDEV_CACHE_WRITEBACK, &err));
    ck_assert_msg(strstr(err.msg, "is not a qcow2 image but raw"), "%s", err.msg);
    ck_assert_ptr_null(open_as("qcow3", BLOCKDEV_CACHE_WRITEBACK, &err));
    ck_assert_msg(strstr(err.msg, "no image format 'qcow3'"), "%s", err.msg);
}
END_TEST

/* Every mode reads and writes the same bytes, from memory and at offsets that suit it or not. */
START_TEST(cache_modes)
{
    struct error err = {""};
    enum { LEN = 20480 };
    uint8_t *memory = aligned_alloc(4096, 2 * LEN + 4096);
    struct blockdev *dev = open_as(NULL, (enum blockdev_cache)_i, &err);
    if (!dev && strstr(err.msg, "no direct I/O")) { /* /tmp may be a tmpfs */
        ck_assert(_i == BLOCKDEV_CACHE_NONE || _i == BLOCKDEV_CACHE_DIRECTSYNC);
        free(memory);
        return;
    }
    ck_assert_msg(dev != NULL, "%s", err.msg);
    bool through = _i == BLOCKDEV_CACHE_WRITETHROUGH || _i == BLOCKDEV_CACHE_DIRECTSYNC;
    ck_assert_int_eq(blockdev_default_write_cache(dev), !through);
    ck_assert_int_eq(blockdev_write_cache(dev), !through);
    static const uint64_t offsets[] = {0, 512, 4096, 4608};
    for (unsigned i = 0; i < 8; i++)
        for (uint64_t len = 512; len <= LEN / 2; len += 1536) {
            uint8_t *from = memory + i / 4, *to = from + LEN; /* direct I/O likes the first best */
            for (unsigned b = 0; b < len; b++)
                from[b] = (uint8_t)(b * 7 + len / 512 + i);
            ck_assert_int_eq(run(dev, BLOCKDEV_WRITE, offsets[i % 4], len, from), 0);
            ck_assert_int_eq(run(dev, BLOCKDEV_READ, offsets[i % 4], len, to), 0);
            ck_assert_int_eq(memcmp(from, to, len), 0);
            read_file(offsets[i % 4], to, len);
            ck_assert_int_eq(memcmp(from, to, len), 0);
        }
    ck_assert_int_eq(run(dev, BLOCKDEV_FLUSH, 0, 0, NULL), 0);
    blockdev_set_write_cache(dev, false);
    ck_assert(!blockdev_write_cache(dev));
    ck_assert_int_eq(run(dev, BLOCKDEV_WRITE, 0, 512, memory), 0);
    blockdev_close(dev);
    free(memory);
}
END_TEST

START_TEST(zeroes_that_are_written_are_detected)
{
    struct error err;
    static uint8_t zeroes[IMAGE_SIZE];
    struct stat st;
    for (unsigned detect = 0; detect < 2; detect++) {
        const struct blockdev_options options = {.path = path,
                                                 .discard = BLOCKDEV_DISCARD_UNMAP,
                                                 .detect_zeroes = detect ? BLOCKDEV_DETECT_UNMAP
                                                                         : BLOCKDEV_DETECT_OFF};
        struct blockdev *dev = blockdev_open(&options, queue, &err);
        ck_assert_int_eq(run(dev, BLOCKDEV_WRITE, 0, IMAGE_SIZE, zeroes), 0);
        blockdev_close(dev);
        ck_assert_int_eq(stat(path, &st), 0);
        ck_assert_int_eq(st.st_blocks == 0, detect);
    }
}
END_TEST

START_TEST(read_only_refuses_writes)
{
    struct blockdev *dev = open_image(READ_ONLY);
    uint8_t buf[512] = {0};
    ck_assert(blockdev_read_only(dev));
    ck_assert_int_eq(run(dev, BLOCKDEV_WRITE, 0, 512, buf), -EROFS);
    ck_assert_int_eq(run(dev, BLOCKDEV_DISCARD, 0, 512, NULL), -EROFS);
    ck_assert_int_eq(run(dev, BLOCKDEV_WRITE_ZEROES, 0, 512, NULL), -EROFS);
    ck_assert_int_eq(run(dev, BLOCKDEV_FLUSH, 0, 0, NULL), 0);
    ck_assert_int_eq(run(dev, BLOCKDEV_READ, 0, 512, buf), 0);
    expect_pattern(buf, 0, 512);
    blockdev_close(dev);
}
END_TEST

/* ---- Snapshots --------------------------------------------------------------------------------
 */

START_TEST(snapshot_keeps_writes_to_itself)
{
    struct blockdev *dev = open_image(SNAPSHOT);
    uint8_t ones[1024], buf[IMAGE_SIZE];
    memset(ones, 0x11, sizeof(ones));
    ck_assert(!blockdev_read_only(dev));
    ck_assert_int_eq(run(dev, BLOCKDEV_WRITE, 1536, 1024, ones), 0);
    ck_assert_int_eq(run(dev, BLOCKDEV_WRITE, IMAGE_SIZE - 512, 512, ones), 0);
    ck_assert_int_eq(run(dev, BLOCKDEV_WRITE_ZEROES, 4096, 512, NULL), 0);
    ck_assert_int_eq(run(dev, BLOCKDEV_FLUSH, 0, 0, NULL), 0);
    ck_assert_int_eq(run(dev, BLOCKDEV_READ, 0, IMAGE_SIZE, buf), 0);
    expect_pattern(buf, 0, 1536);
    expect_value(buf + 1536, 0x11, 1024);
    expect_pattern(buf + 2560, 2560, 4096 - 2560);
    expect_value(buf + 4096, 0, 512);
    expect_pattern(buf + 4608, 4608, IMAGE_SIZE - 512 - 4608);
    expect_value(buf + IMAGE_SIZE - 512, 0x11, 512);
    blockdev_close(dev);
    read_file(0, buf, IMAGE_SIZE);
    expect_pattern(buf, 0, IMAGE_SIZE);
}
END_TEST

START_TEST(snapshot_of_an_unwritable_file)
{
    ck_assert_int_eq(chmod(path, 0444), 0);
    struct blockdev *dev = open_image(SNAPSHOT);
    uint8_t buf[512] = {5};
    ck_assert_int_eq(run(dev, BLOCKDEV_WRITE, 0, 512, buf), 0);
    blockdev_close(dev);
}
END_TEST

/* ---- Locks ------------------------------------------------------------------------------------
 */

START_TEST(locks)
{
    static const struct {
        unsigned first, second;
        bool ok;
    } cases[] = {
        {0, 0, false},
        {0, READ_ONLY, false},
        {0, SNAPSHOT, false},
        {READ_ONLY, 0, false},
        {SNAPSHOT, 0, false},
        {READ_ONLY, READ_ONLY, true},
        {SNAPSHOT, READ_ONLY, true},
        {SNAPSHOT, SNAPSHOT, true},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct error err = {""};
        struct blockdev *first = open_image(cases[i].first);
        struct blockdev *second = open_path(path, cases[i].second, &err);
        ck_assert_msg((second != NULL) == cases[i].ok, "case %u: %s", i, err.msg);
        if (!second)
            ck_assert_msg(strstr(err.msg, path) == err.msg, "%s", err.msg);
        blockdev_close(second);
        blockdev_close(first);
        blockdev_close(open_image(0)); /* the locks went with them */
    }
}
END_TEST

/* QEMU marks an image that it writes by a shared lock on byte 101, and one that nobody else may
 * write by one on byte 201. */
START_TEST(locks_of_the_other_emulator)
{
    static const struct {
        off_t byte;
        unsigned flags;
        bool ok;
    } cases[] = {
        {100, READ_ONLY, true}, {100, 0, false}, {101, READ_ONLY, false},
        {201, READ_ONLY, true}, {201, 0, false},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int fd = open(path, O_RDONLY);
        struct flock range = {.l_type = F_RDLCK, .l_start = cases[i].byte, .l_len = 1};
        ck_assert_int_eq(fcntl(fd, F_OFD_SETLK, &range), 0);
        struct error err = {""};
        struct blockdev *dev = open_path(path, cases[i].flags, &err);
        ck_assert_msg((dev != NULL) == cases[i].ok, "case %u: %s", i, err.msg);
        blockdev_close(dev);
        close(fd);
    }
}
END_TEST

/* ---- Bad images -------------------------------------------------------------------------------
 */

static void expect_refusal(const char *image, const char *words)
{
    struct error err = {""};
    ck_assert_ptr_null(open_path(image, 0, &err));
    ck_assert_msg(strstr(err.msg, image) && strstr(err.msg, words), "'%s' lacks '%s'", err.msg,
                  words);
}

START_TEST(unusable_images_are_named)
{
    expect_refusal("/nonexistent/disk.img", "No such file");
    expect_refusal("/tmp", "irectory");
    expect_refusal("/dev/null", "neither a file nor a block device");
    ck_assert_int_eq(truncate(path, 511), 0);
    expect_refusal(path, "smaller than one sector");
    char fifo[80];
    snprintf(fifo, sizeof(fifo), "%s.fifo", path);
    ck_assert_int_eq(mkfifo(fifo, 0600), 0);
    expect_refusal(fifo, "neither a file nor a block device");
    unlink(fifo);
}
END_TEST

START_TEST(odd_sizes_are_rounded_down)
{
    ck_assert_int_eq(truncate(path, 1535), 0);
    struct blockdev *dev = open_image(0);
    ck_assert_uint_eq(blockdev_size(dev), 1024);
    blockdev_close(dev);
}
END_TEST

START_TEST(truncated_under_us)
{
    struct blockdev *dev = open_image(0);
    uint8_t buf[1024] = {0};
    ck_assert_int_eq(truncate(path, 8192 + 512), 0);
    ck_assert_int_eq(run(dev, BLOCKDEV_READ, 0, 1024, buf), 0);
    ck_assert_int_eq(run(dev, BLOCKDEV_READ, 8192, 1024, buf), -EIO); /* half of it is there */
    ck_assert_int_eq(run(dev, BLOCKDEV_READ, 16384, 512, buf), -EIO);
    ck_assert_int_eq(run(dev, BLOCKDEV_WRITE, 16384, 512, buf), -EIO);
    ck_assert_int_eq(run(dev, BLOCKDEV_WRITE_ZEROES, 16384, 512, NULL), -EIO);
    struct stat st;
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_int_eq(st.st_size, 8192 + 512); /* not grown again */
    blockdev_close(dev);
}
END_TEST

/* A full disk: a file-size limit gives EFBIG where a file system gives ENOSPC, by the same path. */
START_TEST(write_errors_reach_the_request)
{
    if (access("/dev/full", W_OK) != 0)
        return;
    struct blockdev *dev = open_image(SNAPSHOT);
    /* the overlay is the descriptor after the image's: make it a device that is always full */
    int full = open("/dev/full", O_RDWR);
    int overlay = -1;
    for (int fd = 3; fd < full; fd++) {
        struct stat st;
        if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink == 0)
            overlay = fd;
    }
    ck_assert_int_ge(overlay, 0);
    ck_assert_int_eq(dup2(full, overlay), overlay);
    close(full);
    uint8_t buf[512] = {9};
    ck_assert_int_eq(run(dev, BLOCKDEV_WRITE, 0, 512, buf), -ENOSPC);
    ck_assert_int_eq(run(dev, BLOCKDEV_READ, 0, 512, buf), 0); /* still the image's */
    expect_pattern(buf, 0, 512);
    blockdev_close(dev);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("blockdev");
    TCase *tc = tcase_create("raw");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 30);
    tcase_add_test(tc, reads_and_writes_reach_the_file);
    tcase_add_test(tc, long_vectors_are_done_whole);
    tcase_add_test(tc, many_requests_at_once);
    tcase_add_test(tc, settled_is_let_go_of);
    tcase_add_test(tc, what_may_be_lent);
    tcase_add_test(tc, close_completes_what_is_in_flight);
    tcase_add_test(tc, requests_outside_the_image_fail);
    tcase_add_test(tc, zeroes_and_discards);
    tcase_add_test(tc, discard_gives_space_back_when_told_to);
    tcase_add_test(tc, probed_raw_images_stay_raw);
    tcase_add_test(tc, the_format_that_was_asked_for_must_be_there);
    tcase_add_loop_test(tc, cache_modes, 0, BLOCKDEV_CACHE_UNSAFE + 1);
    tcase_add_test(tc, zeroes_that_are_written_are_detected);
    tcase_add_test(tc, read_only_refuses_writes);
    tcase_add_test(tc, snapshot_keeps_writes_to_itself);
    tcase_add_test(tc, snapshot_of_an_unwritable_file);
    tcase_add_test(tc, locks);
    tcase_add_test(tc, locks_of_the_other_emulator);
    tcase_add_test(tc, unusable_images_are_named);
    tcase_add_test(tc, odd_sizes_are_rounded_down);
    tcase_add_test(tc, truncated_under_us);
    tcase_add_test(tc, write_errors_reach_the_request);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
