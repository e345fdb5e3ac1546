/*
 * test_power_loss.c - the power fails at any moment: what was flushed is there, nothing else is
 * damaged, and qemu-img check finds no error (leaked clusters are allowed).
 *
 * Everything that reaches the host's file is recorded: the linker gives us pwritev(), fdatasync(),
 * fallocate() and ftruncate() (tests/CMakeLists.txt). Then each prefix of the record is replayed:
 * what lies before its last fdatasync() is on the disk, and of the rest each write has arrived
 * whole, not at all, or in some of its sectors, as a disk with a cache would have it.
 */
#include "lab.h"
#include <sys/uio.h>

#define DISK    (2u << 20)
#define SECTORS (DISK / 512)

/* ---- The record --------------------------------------------------------------------------------
 */

enum effect { WRITE, ZERO, LENGTH, SYNC, RETURNED /* a flush, to the guest */ };

struct step {
    enum effect effect;
    uint64_t offset, len;
    uint8_t *bytes;     /* WRITE */
    unsigned operation; /* the guest's that was under way */
};

enum { MAX_STEPS = 20000 };
static struct step steps[MAX_STEPS];
static unsigned step_count, operation;
static bool recording;

static struct step *record(enum effect effect, uint64_t offset, uint64_t len)
{
    ck_assert_uint_lt(step_count, MAX_STEPS);
    struct step *step = &steps[step_count++];
    *step = (struct step){.effect = effect, .offset = offset, .len = len, .operation = operation};
    return step;
}

ssize_t __real_pwritev(int fd, const struct iovec *iov, int n, off_t offset);
ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int n, off_t offset);
ssize_t __wrap_pwritev(int fd, const struct iovec *iov, int n, off_t offset)
{
    ssize_t done = __real_pwritev(fd, iov, n, offset);
    if (recording && done > 0) {
        struct step *step = record(WRITE, (uint64_t)offset, (uint64_t)done);
        step->bytes = malloc((size_t)done);
        span_copy_in(step->bytes, (struct span){iov, n, 0}, (uint64_t)done);
    }
    return done;
}

int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);
int __wrap_fdatasync(int fd)
{
    (void)fd; /* the host does not go down in earnest */
    if (recording)
        record(SYNC, 0, 0);
    return 0;
}

int __real_fallocate(int fd, int mode, off_t offset, off_t len);
int __wrap_fallocate(int fd, int mode, off_t offset, off_t len);
int __wrap_fallocate(int fd, int mode, off_t offset, off_t len)
{
    int result = __real_fallocate(fd, mode, offset, len);
    if (recording && result == 0)
        record(ZERO, (uint64_t)offset, (uint64_t)len);
    return result;
}

int __real_ftruncate(int fd, off_t len);
int __wrap_ftruncate(int fd, off_t len);
int __wrap_ftruncate(int fd, off_t len)
{
    int result = __real_ftruncate(fd, len);
    if (recording && result == 0)
        record(LENGTH, (uint64_t)len, 0);
    return result;
}

/* ---- The disk that survives --------------------------------------------------------------------
 */

struct media {
    uint8_t *bytes;
    uint64_t len, room;
};

static void media_load(struct media *m, const char *name)
{
    int fd = open(lab_path(name), O_RDONLY);
    m->room = 16u << 20;
    m->bytes = calloc(1, m->room);
    ssize_t got = pread(fd, m->bytes, m->room, 0);
    ck_assert_int_ge(got, 0);
    m->len = (uint64_t)got;
    close(fd);
}

static void media_put(struct media *m, const struct step *step, uint64_t from, uint64_t len)
{
    uint64_t at = step->offset + from;
    ck_assert_uint_le(at + len, m->room);
    if (step->effect == WRITE) {
        memcpy(m->bytes + at, step->bytes + from, len);
        m->len = m->len < at + len ? at + len : m->len;
    } else if (at < m->len) {
        memset(m->bytes + at, 0, at + len > m->len ? m->len - at : len);
    }
}

static void media_apply(struct media *m, const struct step *step)
{
    if (step->effect == LENGTH)
        m->len = step->offset;
    else if (step->effect == WRITE || step->effect == ZERO)
        media_put(m, step, 0, step->len);
}

/* What a power loss leaves of the steps since the last sync: all of them may be lost, or all but
 * one, or one, or some; of the last kind some arrive in part. */
enum loss { LOSE_SOME, LOSE_ONE, KEEP_ONE, LOSE_ALL, LOSSES };

static void media_apply_torn(struct media *m, const struct step *step, uint64_t *seed)
{
    for (uint64_t at = 0, len; at < step->len; at += len) {
        len = 512 - (step->offset + at) % 512;
        len = len < step->len - at ? len : step->len - at;
        if (lab_random(seed) % 2)
            media_put(m, step, at, len);
    }
}

static void media_lose(struct media *m, const struct step *from, unsigned count, uint64_t *seed)
{
    enum loss loss = lab_random(seed) % LOSSES;
    unsigned one = count ? lab_random(seed) % count : 0;
    for (unsigned i = 0; i < count; i++) {
        bool torn = loss == LOSE_SOME && lab_random(seed) % 4 == 0;
        bool there = loss == LOSE_ONE   ? i != one
                     : loss == KEEP_ONE ? i == one
                                        : loss == LOSE_SOME && lab_random(seed) % 2;
        if (torn && (from[i].effect == WRITE || from[i].effect == ZERO))
            media_apply_torn(m, &from[i], seed);
        else if (there)
            media_apply(m, &from[i]);
    }
}

static void media_store(const struct media *m, const char *name)
{
    int fd = open(lab_path(name), O_RDWR | O_CREAT | O_TRUNC, 0600);
    ck_assert_int_eq(write(fd, m->bytes, m->len), (int)m->len);
    close(fd);
}

/* ---- What the guest has done -------------------------------------------------------------------
 */

enum { OPERATIONS = 160 };

/* Every sector's first bytes say which operation wrote it; 0: zeroes. What a sector may hold is
 * what it held at the last flush, and everything since. */
struct history {
    unsigned count;
    struct {
        uint32_t operation, stamp;
    } entry[OPERATIONS + 1];
};
static struct history history[SECTORS];
static unsigned flushed_at[OPERATIONS + 2]; /* for each operation: the last flush before it */

static void fill_sector(uint8_t *sector, uint64_t number, uint32_t stamp)
{
    for (unsigned i = 0; i < 512; i++)
        sector[i] = stamp ? (uint8_t)(stamp * 7 + number * 3 + i) : 0;
    if (stamp)
        memcpy(sector, &stamp, sizeof(stamp));
}

static void note(uint64_t sector, uint32_t stamp)
{
    struct history *h = &history[sector];
    ck_assert_uint_lt(h->count, OPERATIONS + 1);
    h->entry[h->count].operation = operation;
    h->entry[h->count++].stamp = stamp;
}

static void check_sector(const uint8_t *sector, uint64_t number, unsigned now)
{
    const struct history *h = &history[number];
    uint8_t want[512];
    for (unsigned i = h->count; i-- > 0;) {
        if (h->entry[i].operation > now)
            continue;
        fill_sector(want, number, h->entry[i].stamp);
        if (!memcmp(sector, want, 512))
            return;
        if (h->entry[i].operation <= flushed_at[now])
            break; /* older ones are gone for good */
    }
    uint32_t stamp;
    memcpy(&stamp, sector, sizeof(stamp));
    ck_abort_msg("in operation %u, flushed %u: sector %llu holds what %#x wrote", now,
                 flushed_at[now], (unsigned long long)number, stamp);
}

static void guest_write(struct image *image, uint64_t sector, uint64_t count)
{
    uint8_t *data = malloc(count * 512);
    for (uint64_t i = 0; i < count; i++) {
        note(sector + i, operation);
        fill_sector(data + i * 512, sector + i, operation);
    }
    ck_assert_int_eq(lab_write(image, data, sector * 512, count * 512), 0);
    free(data);
}

/* A discarded sector holds zeroes or what it held. */
static void guest_discard(struct image *image, uint64_t sector, uint64_t count)
{
    uint8_t data[512];
    ck_assert_int_eq(image->ops->discard(image, sector * 512, count * 512), 0);
    for (uint64_t i = 0; i < count; i++) {
        ck_assert_int_eq(lab_read(image, data, (sector + i) * 512, 512), 0);
        uint32_t stamp;
        memcpy(&stamp, data, sizeof(stamp));
        note(sector + i, stamp);
    }
}

static void guest_operation(struct image *image, uint64_t *seed)
{
    uint64_t sector = lab_random(seed) % SECTORS, count = 1 + lab_random(seed) % 24;
    unsigned kind = lab_random(seed) % 100;
    if (lab_random(seed) % 4 == 0) { /* whole clusters, of most sizes */
        sector &= ~127ull;
        count = 128;
    }
    if (count > SECTORS - sector)
        count = SECTORS - sector;
    flushed_at[operation] = flushed_at[operation - 1];
    if (kind < 55) {
        guest_write(image, sector, count);
    } else if (kind < 65) {
        for (uint64_t i = 0; i < count; i++)
            note(sector + i, 0);
        ck_assert_int_eq(image->ops->zero(image, sector * 512, count * 512, kind % 2), 0);
    } else if (kind < 80) {
        guest_discard(image, sector, count);
    } else {
        ck_assert_int_eq(image->ops->flush(image), 0);
        flushed_at[operation + 1] = operation; /* from the next one on */
        operation++;
        record(RETURNED, 0, 0);
    }
}

/* ---- Replay ------------------------------------------------------------------------------------
 */

static void check_survivor(const char *format, unsigned now, bool ask_qemu)
{
    struct image *image = lab_open("crashed", false);
    uint8_t *all = malloc(DISK);
    ck_assert_str_eq(image->format, format);
    ck_assert_int_eq(lab_read(image, all, 0, DISK), 0);
    for (uint64_t i = 0; i < SECTORS; i++)
        check_sector(all + i * 512, i, now);
    free(all);
    image_close(image);
    if (!ask_qemu || strcmp(format, "qcow2"))
        return;
    int status = lab_status("qemu-img check -q crashed");
    if (status != 0 && status != 3) { /* 3: leaks */
        char text[1024];
        lab_log(text, sizeof(text));
        ck_abort_msg("in operation %u: qemu-img check says %d: %s", now, status, text);
    }
}

/* The power fails just after step k: `synced` steps are safe. */
static void fail_at(const struct media *durable, const char *format, unsigned synced, unsigned k,
                    uint64_t *seed)
{
    struct media m = {.bytes = malloc(durable->room), .room = durable->room, .len = durable->len};
    memcpy(m.bytes, durable->bytes, durable->len);
    memset(m.bytes + durable->len, 0, m.room - durable->len);
    media_lose(&m, &steps[synced], k + 1 - synced, seed);
    media_store(&m, "crashed");
    check_survivor(format, steps[k].operation, lab_random(seed) % (lab_long() ? 2 : 3) == 0);
    free(m.bytes);
}

/* Most is in flight just before a sync: there it fails more often. */
static void replay(struct media *durable, const char *format, uint64_t *seed)
{
    unsigned synced = 0; /* steps that `durable` has */
    for (unsigned k = 0; k < step_count; k++) {
        if (steps[k].effect == SYNC)
            for (; synced < k; synced++)
                media_apply(durable, &steps[synced]);
        unsigned times = steps[k].effect == RETURNED ? 1 : lab_random(seed) % 8 == 0;
        if (k + 1 < step_count && steps[k + 1].effect == SYNC)
            times += lab_long() ? 10 : 1;
        while (times--)
            fail_at(durable, format, synced, k, seed);
    }
}

static const struct {
    const char *format;
    bool empty; /* not written to before */
    const char *create;
} shapes[] = {
    {"raw", false, "qemu-img create -f raw disk 2M"},
    {"qcow2", false, "qemu-img create -f qcow2 -o cluster_size=64k disk 2M"},
    {"qcow2", false, "qemu-img create -f qcow2 -o cluster_size=4k disk 2M"},
    {"qcow2", false, "qemu-img create -f qcow2 -o cluster_size=512,refcount_bits=64 disk 2M"},
    {"qcow2", false, "qemu-img create -f qcow2 -o cluster_size=4k,compat=0.10 disk 2M"},
    {"qcow2", false, "qemu-img create -f qcow2 -o cluster_size=16k,extended_l2=on disk 2M"},
    {"qcow2", false,
     "qemu-img create -f raw base 2M && "
     "qemu-img create -f qcow2 -o cluster_size=4k -b base -F raw disk"},
    {"qcow2", false,
     "qemu-img create -f qcow2 -o cluster_size=4k disk 2M && "
     "qemu-img snapshot -c one disk"},
    {"qcow2", false,
     "qemu-img create -f qcow2 -o cluster_size=512 disk 2M && "
     "qemu-img snapshot -c one disk"},
    {"qcow2", false, "qemu-img create -f raw r 2M && qemu-img convert -c -O qcow2 r disk"},
    {"qcow2", true, "qemu-img create -f qcow2 -o cluster_size=512,refcount_bits=64 disk 2M"},
    {"qcow2", true, "qemu-img create -f qcow2 -o cluster_size=1k disk 2M"},
    {"qcow2", true, "qemu-img create -f qcow2 -o cluster_size=64k disk 2M"},
};

/* Every sector has a stamp to begin with, below or in the image. */
static void stamp_all(const char *name)
{
    struct image *image = lab_open(name, true);
    guest_write(image, 0, SECTORS);
    image_close(image);
}

START_TEST(nothing_is_lost)
{
    struct media durable;
    uint64_t seed = 2463534242ull + (uint64_t)_i;
    lab_run("%s", shapes[_i].create);
    bool backing = strstr(shapes[_i].create, "-b base") != NULL;
    operation = 1;
    if (!shapes[_i].empty)
        stamp_all(backing ? "base" : "disk");
    for (uint64_t i = 0; i < SECTORS && shapes[_i].empty; i++)
        note(i, 0);
    if (strstr(shapes[_i].create, "snapshot"))
        lab_run("qemu-img snapshot -c two disk"); /* every cluster is shared again */
    if (strstr(shapes[_i].create, "convert -c"))
        lab_run("qemu-img convert -c -O qcow2 disk again && mv again disk");
    media_load(&durable, "disk");
    flushed_at[1] = flushed_at[2] = 1;
    struct image *image = lab_open("disk", true);
    recording = true;
    for (operation = 2; operation < OPERATIONS; operation++)
        guest_operation(image, &seed);
    image_close(image);
    recording = false;
    if (!strcmp(shapes[_i].format, "qcow2"))
        lab_run("qemu-img check disk");
    replay(&durable, shapes[_i].format, &seed);
    free(durable.bytes);
}
END_TEST

/* The header names the new table first, of all that has been written since the last sync: the worst
 * that a disk's cache can do. */
START_TEST(a_longer_refcount_table_is_there_before_the_header_names_it)
{
    enum { REFCOUNT_TABLE_OFFSET = 48 };
    struct media durable;
    unsigned synced = 0, moves = 0;
    lab_run("qemu-img create -f qcow2 -o cluster_size=512,refcount_bits=64 disk 2M");
    media_load(&durable, "disk");
    operation = flushed_at[1] = flushed_at[2] = 1;
    for (uint64_t i = 0; i < SECTORS; i++)
        note(i, 0);
    struct image *image = lab_open("disk", true);
    recording = true;
    operation = 2;
    guest_write(image, 0, SECTORS); /* more clusters than the first table counts */
    image_close(image);
    recording = false;
    for (unsigned k = 0; k < step_count; k++) {
        for (; steps[k].effect == SYNC && synced < k; synced++)
            media_apply(&durable, &steps[synced]);
        if (steps[k].effect != WRITE || steps[k].offset != REFCOUNT_TABLE_OFFSET)
            continue;
        struct media m = {.bytes = malloc(durable.room), .room = durable.room, .len = durable.len};
        memcpy(m.bytes, durable.bytes, durable.room);
        media_apply(&m, &steps[k]);
        media_store(&m, "crashed");
        check_survivor("qcow2", operation, true);
        free(m.bytes);
        moves++;
    }
    ck_assert_uint_ge(moves, 1);
    free(durable.bytes);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("power loss");
    TCase *tc = tcase_create("replay");
    tcase_add_checked_fixture(tc, lab_setup, lab_teardown);
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, nothing_is_lost, 0, sizeof(shapes) / sizeof(shapes[0]));
    tcase_add_test(tc, a_longer_refcount_table_is_there_before_the_header_names_it);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
