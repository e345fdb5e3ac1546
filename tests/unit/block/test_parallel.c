/*
 * test_parallel.c - many requests at once, of which no two touch the same sector but most the same
 * clusters: each sector keeps what its own last request wrote.
 */
#include "internal/blockdev.h"
#include "internal/clock.h"
#include "internal/event.h"
#include "lab.h"

enum { DISK = 2 << 20, SECTORS = DISK / 512, SLOTS = 24 };

static pthread_mutex_t lock;
static struct event_queue *queue;
static struct blockdev *dev;
static uint8_t model[SECTORS]; /* each sector is full of its byte */
static unsigned left, running;
static uint64_t seed = 123456789;

/* A slot works on sectors whose number modulo SLOTS is its own. */
static struct slot {
    struct blockdev_request request;
    struct iovec iov;
    uint8_t data[512];
    uint64_t sector;
} slots[SLOTS];

static void start(struct slot *slot);

static bool all_are(const uint8_t *bytes, size_t len, uint8_t value)
{
    return bytes[0] == value && !memcmp(bytes, bytes + 1, len - 1);
}

static void done(struct blockdev_request *request)
{
    struct slot *slot = request->opaque;
    ck_assert_int_eq(request->result, 0);
    if (request->op == BLOCKDEV_READ)
        ck_assert(all_are(slot->data, 512, model[slot->sector]));
    start(slot);
}

static void start(struct slot *slot)
{
    struct blockdev_request *r = &slot->request;
    unsigned kind = lab_random(&seed) % 100;
    if (!left) {
        if (--running == 0)
            event_loop_quit(queue);
        return;
    }
    left--;
    slot->sector = lab_random(&seed) % (SECTORS / SLOTS) * SLOTS + (uint64_t)(slot - slots);
    slot->iov = (struct iovec){slot->data, 512};
    *r = (struct blockdev_request){.offset = slot->sector * 512,
                                   .len = 512,
                                   .iov = &slot->iov,
                                   .iovcnt = 1,
                                   .done = done,
                                   .opaque = slot};
    if (kind < 45) {
        r->op = BLOCKDEV_WRITE;
        model[slot->sector] = (uint8_t)(1 + left % 255);
        memset(slot->data, model[slot->sector], 512);
    } else if (kind < 85) {
        r->op = BLOCKDEV_READ;
    } else if (kind < 97) {
        r->op = BLOCKDEV_WRITE_ZEROES;
        model[slot->sector] = 0;
    } else {
        r->op = BLOCKDEV_FLUSH;
    }
    blockdev_submit(dev, r);
}

static const struct {
    const char *create;
    bool snapshot, subclusters;
} shapes[] = {
    {"qemu-img create -f raw disk 2M", false, false},
    {"qemu-img create -f raw disk 2M", true, false},
    {"qemu-img create -f qcow2 disk 2M", false, false},
    {"qemu-img create -f qcow2 -o cluster_size=2k disk 2M", false, false},
    {"qemu-img create -f qcow2 -o extended_l2=on disk 2M", false, false},
    {"qemu-img create -f qcow2 -o extended_l2=on,cluster_size=2M disk 2M", false, true},
    {"qemu-img create -f qcow2 disk 2M", true, false},
    {"qemu-img create -f raw r 2M && qemu-img convert -c -O qcow2 r disk", false, false},
    {"qemu-img create -f raw r 2M && qemu-img create -f qcow2 -o cluster_size=4k -b r -F raw disk",
     false, false},
};

static void submit(enum blockdev_op op, struct slot *slot, uint64_t offset, void *bytes,
                   uint64_t len, void (*when_done)(struct blockdev_request *request))
{
    slot->iov = (struct iovec){bytes, len};
    slot->request = (struct blockdev_request){.op = op,
                                              .offset = offset,
                                              .len = len,
                                              .iov = &slot->iov,
                                              .iovcnt = 1,
                                              .done = when_done,
                                              .opaque = slot};
    running++;
    blockdev_submit(dev, &slot->request);
}

/* The clusters that whole-cluster writes take are written without the lock: two of them, for the
 * same cluster, and a reader. */
static void write_whole_clusters(void)
{
    static uint8_t bytes[SLOTS][65536];
    for (unsigned i = 0; i < SLOTS; i++) {
        memset(bytes[i], 7, sizeof(bytes[i]));
        if (i % 3)
            memset(model + i / 3 % 16 * 128, 7, 128);
        submit(i % 3 ? BLOCKDEV_WRITE : BLOCKDEV_FLUSH, &slots[i], (i / 3 % 16) * 65536, bytes[i],
               65536, done);
    }
    left = 0;
    event_loop_run(queue);
}

static void succeeded(struct blockdev_request *request)
{
    ck_assert_int_eq(request->result, 0);
    if (--running == 0)
        event_loop_quit(queue);
}

/* Extended L2 entries: whole subclusters, each by a request of its own, and all in one cluster of
 * 2 MiB that nobody has written before. Who links the cluster must not drop what others have linked
 * meanwhile. */
static void write_whole_subclusters(void)
{
    enum { BYTES = 65536, ROUNDS = 100 };
    static uint8_t bytes[SLOTS][BYTES], all[DISK];
    for (unsigned round = 0; round < ROUNDS; round++) {
        submit(BLOCKDEV_DISCARD, &slots[0], 0, NULL, DISK, succeeded);
        event_loop_run(queue);
        memset(model, 0, sizeof(model));
        for (unsigned i = 0; i < SLOTS; i++) {
            memset(bytes[i], (int)(1 + i), BYTES);
            memset(model + i * BYTES / 512, (int)(1 + i), BYTES / 512);
            submit(BLOCKDEV_WRITE, &slots[i], i * BYTES, bytes[i], BYTES, succeeded);
        }
        event_loop_run(queue);
        submit(BLOCKDEV_READ, &slots[0], 0, all, DISK, succeeded);
        event_loop_run(queue);
        for (unsigned i = 0; i < SECTORS; i++)
            ck_assert_msg(all_are(all + i * 512, 512, model[i]), "round %u, sector %u", round, i);
    }
}

START_TEST(sectors_keep_their_own)
{
    struct error err = {""};
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&lock, &attr);
    struct clock *clock = clock_new();
    queue = event_queue_new(clock, &lock);
    lab_run("%s", shapes[_i].create);
    const struct blockdev_options options = {.path = lab_path("disk"),
                                             .snapshot = shapes[_i].snapshot,
                                             .discard = BLOCKDEV_DISCARD_UNMAP};
    dev = blockdev_open(&options, queue, &err);
    ck_assert_msg(dev != NULL, "%s", err.msg);
    write_whole_clusters();
    if (shapes[_i].subclusters)
        write_whole_subclusters();
    left = lab_long() ? 40000 : 2000; /* requests */
    running = SLOTS;
    for (unsigned i = 0; i < SLOTS; i++)
        start(&slots[i]);
    event_loop_run(queue);
    static uint8_t all[DISK];
    blockdev_close(dev);
    event_queue_free(queue);
    clock_free(clock);
    if (shapes[_i].snapshot)
        return;
    struct image *image = lab_open("disk", false);
    ck_assert_int_eq(lab_read(image, all, 0, DISK), 0);
    image_close(image);
    for (unsigned i = 0; i < SECTORS; i++)
        ck_assert_msg(all_are(all + i * 512, 512, model[i]), "sector %u", i);
    lab_run("qemu-img info disk | grep -q 'format: raw' || qemu-img check disk");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("parallel");
    TCase *tc = tcase_create("parallel");
    tcase_add_checked_fixture(tc, lab_setup, lab_teardown);
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, sectors_keep_their_own, 0, sizeof(shapes) / sizeof(shapes[0]));
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
