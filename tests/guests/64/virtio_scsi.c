/*
 * virtio_scsi.c - a disk behind the SCSI adapter of virtio 1.2, 5.6, by both interfaces: found,
 * written, read, reset; and requests that no driver should make.
 *
 * guest devices: -drive file=ZEROS,if=none,id=d,format=raw,snapshot=on
 * guest devices: -device virtio-scsi-pci -device scsi-hd,drive=d,scsi-id=1,lun=2
 */
#include "virtio.h"

#define SECTOR 512u
enum { CONTROL = 0, REQUESTS = 2, RESPONSE = 108, HEADER = 51 };
enum { R_OK = 0, R_OVERRUN = 1, R_BAD_TARGET = 3, R_FAILURE = 9, R_INCORRECT_LUN = 12 };
enum { GOOD = 0, CHECK_CONDITION = 2 };

static struct virtio scsi;
static uint8_t header[HEADER], sectors[16 * SECTOR], back[16 * SECTOR];
static struct {
    uint32_t sense_len, residual;
    uint16_t qualifier;
    uint8_t status, response, sense[96];
} answer;

static bool start(enum interface interface, unsigned queue)
{
    bool found = virtio_open(&scsi, VIRTIO_SCSI, 0);
    scsi.queue = queue;
    return found && virtio_start(&scsi, interface, 0);
}

static void address(uint8_t *at, unsigned target, unsigned lun)
{
    memset(at, 0, 8);
    at[0] = 1;
    at[1] = (uint8_t)target;
    at[2] = 0x40;
    at[3] = (uint8_t)lun;
}

static void command(unsigned opcode, unsigned lba, unsigned count)
{
    memset(header, 0, sizeof(header));
    memset(&answer, 0xee, sizeof(answer));
    address(header, 1, 2);
    header[19] = (uint8_t)opcode;
    header[19 + 4] = (uint8_t)(lba >> 8);
    header[19 + 5] = (uint8_t)lba;
    header[19 + 8] = (uint8_t)count;
}

/* What the device wrote, or NO_ANSWER. */
static uint32_t do_with(void *data, uint32_t len, enum direction direction)
{
    struct part parts[3] = {{header, HEADER, OUT}, {&answer, RESPONSE, IN}, {data, len, direction}};
    if (len && direction == OUT) {
        parts[1] = parts[2];
        parts[2] = (struct part){&answer, RESPONSE, IN};
    }
    return virtio_do(&scsi, parts, len ? 3 : 2);
}

/* The unit attention that a reset leaves. */
static void make_ready(void)
{
    command(0x00, 0, 0);
    CHECK_EQ(do_with(NULL, 0, OUT), RESPONSE);
    CHECK_EQ(answer.response, R_OK);
    CHECK_EQ(answer.status, CHECK_CONDITION);
    CHECK_EQ(answer.sense[2], 6);
    CHECK_EQ(answer.sense[12], 0x29);
    command(0x00, 0, 0);
    CHECK_EQ(do_with(NULL, 0, OUT), RESPONSE);
    CHECK_EQ(answer.status, GOOD);
}

static void write_and_read(enum interface interface)
{
    CHECK(start(interface, REQUESTS));
    CHECK_EQ(virtio_config32(&scsi, 20), 96);
    CHECK_EQ(virtio_config32(&scsi, 24), 32);
    make_ready();
    for (unsigned i = 0; i < sizeof(sectors); i++)
        sectors[i] = (uint8_t)(i * 7 + i / SECTOR + interface);
    command(0x2a, 100, 16);
    CHECK_EQ(do_with(sectors, sizeof(sectors), OUT), RESPONSE);
    CHECK_EQ(answer.response, R_OK);
    CHECK_EQ(answer.status, GOOD);
    CHECK_EQ(answer.residual, 0);
    command(0x35, 0, 0);
    CHECK_EQ(do_with(NULL, 0, OUT), RESPONSE);
    CHECK_EQ(answer.status, GOOD);
    memset(back, 0, sizeof(back));
    command(0x28, 100, 16);
    CHECK_EQ(do_with(back, sizeof(back), IN), RESPONSE + sizeof(back));
    CHECK_EQ(answer.status, GOOD);
    CHECK(memcmp(back, sectors, sizeof(back)) == 0);
}

TEST(modern)
{
    write_and_read(MODERN);
}

TEST(legacy)
{
    write_and_read(LEGACY);
}

TEST(who_is_there)
{
    CHECK(start(MODERN, REQUESTS));
    memset(back, 0, sizeof(back));
    command(0xa0, 0, 0);
    header[19 + 9] = 64;
    CHECK_EQ(do_with(back, 64, IN), RESPONSE + 16);
    CHECK_EQ(back[3], 8);
    CHECK_EQ(back[9], 2);
    CHECK_EQ(answer.residual, 48);
    command(0x00, 0, 0);
    address(header, 0, 0);
    CHECK_EQ(do_with(NULL, 0, OUT), RESPONSE);
    CHECK_EQ(answer.response, R_BAD_TARGET);
    command(0x00, 0, 0);
    address(header, 1, 3);
    CHECK_EQ(do_with(NULL, 0, OUT), RESPONSE);
    CHECK_EQ(answer.response, R_OK);
    CHECK_EQ(answer.status, CHECK_CONDITION);
    CHECK_EQ(answer.sense[12], 0x25);
}

TEST(bad_requests_are_refused)
{
    CHECK(start(MODERN, REQUESTS));
    make_ready();
    command(0x28, 0xffff, 1); /* off the disk */
    header[19 + 3] = 0xff;
    CHECK_EQ(do_with(back, SECTOR, IN), RESPONSE);
    CHECK_EQ(answer.status, CHECK_CONDITION);
    CHECK_EQ(answer.sense[2], 5);
    CHECK_EQ(answer.sense[12], 0x21);
    command(0x28, 0, 2);
    CHECK_EQ(do_with(back, SECTOR, IN), RESPONSE);
    CHECK_EQ(answer.response, R_OVERRUN);
    const struct part both[] = {
        {header, HEADER, OUT}, {sectors, SECTOR, OUT}, {&answer, RESPONSE, IN}, {back, SECTOR, IN}};
    command(0x28, 0, 1);
    CHECK_EQ(virtio_do(&scsi, both, 4), RESPONSE);
    CHECK_EQ(answer.response, R_FAILURE);
    command(0x28, 0, 1);
    CHECK_EQ(do_with(back, SECTOR, IN), RESPONSE + SECTOR);
}

TEST(malformed_requests_break_the_device)
{
    const struct part bad[][2] = {
        {{header, HEADER - 1, OUT}, {&answer, RESPONSE, IN}},
        {{header, HEADER, OUT}, {&answer, RESPONSE - 1, IN}},
        {{header, HEADER, OUT}, {(void *)0xd8000000, RESPONSE, IN}}, /* no memory there */
        {{(void *)0xd8000000, HEADER, OUT}, {&answer, RESPONSE, IN}},
    };
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        CHECK(start(MODERN, REQUESTS));
        command(0x12, 0, 0);
        CHECK_EQ(virtio_do(&scsi, bad[i], 2), NO_ANSWER);
        CHECK(virtio_status(&scsi) & S_NEEDS_RESET);
        CHECK(virtio_isr(&scsi) & 2);
    }
    CHECK(start(MODERN, REQUESTS));
    make_ready();
}

/* 5.6.6.2: the control queue. */
TEST(task_management)
{
    static struct {
        uint32_t type, subtype;
        uint8_t lun[8];
        uint64_t id;
    } function = {.subtype = 5}; /* logical unit reset */
    static uint8_t response;
    const struct part parts[] = {{&function, sizeof(function), OUT}, {&response, 1, IN}};
    CHECK(start(MODERN, CONTROL));
    response = 0xee;
    address(function.lun, 1, 2);
    CHECK_EQ(virtio_do(&scsi, parts, 2), 1);
    CHECK_EQ(response, R_OK);
    address(function.lun, 1, 0);
    CHECK_EQ(virtio_do(&scsi, parts, 2), 1);
    CHECK_EQ(response, R_INCORRECT_LUN);
    address(function.lun, 2, 0);
    CHECK_EQ(virtio_do(&scsi, parts, 2), 1);
    CHECK_EQ(response, R_BAD_TARGET);
    function.type = 9;
    CHECK_EQ(virtio_do(&scsi, parts, 2), NO_ANSWER);
    CHECK(virtio_status(&scsi) & S_NEEDS_RESET);
}

const struct test guest_tests[] = {T(modern),
                                   T(legacy),
                                   T(who_is_there),
                                   T(bad_requests_are_refused),
                                   T(malformed_requests_break_the_device),
                                   T(task_management),
                                   {0, 0}};
