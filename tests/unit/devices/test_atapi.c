/*
 * test_atapi.c - the CD-ROM drive: its command packets, by PIO and by DMA, with a disc, without,
 * and with a bad one.
 */
#include "ide_board.h"

static uint8_t reply[256 << 10];
static unsigned blocks_moved; /* of the last packet's data */
enum { CHK = 0x01, NOT_READY = 2, MEDIUM_ERROR = 3, ILLEGAL = 5, ATTENTION = 6 };
enum { COD = 1, IO = 2 };

static void setup(void)
{
    ide_setup();
}

/* Another drive, without a disc, as slave of channel 1. */
static void plug_empty(void)
{
    struct error err = {""};
    const struct ata_drive_options options = {.cdrom = true, .number = 4};
    slave_drive = ata_drive_create(piix3_ide_host(ide, 1), 1, &options, &err);
    ck_assert_msg(slave_drive != NULL, "%s", err.msg);
}

static uint8_t unit; /* of channel 1 */

/* PACKET for the drive that is chosen, with at most `limit` bytes of data at a time; then what it
 * consists of. */
static void begin_packet(unsigned limit)
{
    outp(IDE1 + DEVICE, 1, 0xa0 | (unit ? SLAVE : 0));
    outp(IDE1 + FEATURE, 1, 0);
    outp(IDE1 + LBA1, 1, limit & 0xff);
    outp(IDE1 + LBA2, 1, limit >> 8);
    outp(IDE1 + COMMAND, 1, 0xa0);
}

static void send_packet(const uint8_t *cdb)
{
    for (unsigned i = 0; i < 12; i += 2)
        outp(IDE1, 2, cdb[i] | cdb[i + 1] << 8);
}

/* A packet by PIO, in blocks of at most `limit` bytes. Returns the bytes of the reply; -1: CHK. */
static int packet_by(const uint8_t *cdb, unsigned limit)
{
    int got = 0;
    blocks_moved = 0;
    begin_packet(limit);
    ck_assert_uint_eq(inp(IDE1 + COUNT, 1), COD);
    ck_assert_uint_eq(status_of(IDE1) & (BSY | DRQ), DRQ);
    ck_assert(!irq_level[15]);
    send_packet(cdb);
    disk_settle(&disc);
    while (status_of(IDE1) & DRQ) {
        unsigned bytes = inp(IDE1 + LBA1, 1) | inp(IDE1 + LBA2, 1) << 8;
        ck_assert(irq_level[15]);
        inp(IDE1 + COMMAND, 1);
        ck_assert_uint_eq(inp(IDE1 + COUNT, 1), IO);
        ck_assert(bytes > 0 && bytes <= limit && got + bytes <= sizeof(reply));
        read_words(IDE1, reply + got, bytes);
        got += (int)bytes;
        blocks_moved++;
    }
    ck_assert(irq_level[15]); /* and one for the end */
    ck_assert_uint_eq(inp(IDE1 + COUNT, 1), IO | COD);
    return inp(IDE1 + COMMAND, 1) & CHK ? -1 : got;
}

#define PACKET(...) packet_by((const uint8_t[12]){__VA_ARGS__}, 2048)

static void expect_sense(uint8_t key, uint16_t asc)
{
    ck_assert_uint_eq(inp(IDE1 + FEATURE, 1) >> 4, key);
    ck_assert_int_eq(PACKET(0x03, 0, 0, 0, 18), 18);
    ck_assert_uint_eq(reply[0] & 0x7f, 0x70);
    ck_assert_uint_eq(reply[2], key);
    ck_assert_uint_eq(reply[12] << 8 | reply[13], asc);
    ck_assert_int_eq(PACKET(0x03, 0, 0, 0, 18), 18); /* told once */
    ck_assert_uint_eq(reply[2], 0);
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3];
}

START_TEST(identification)
{
    outp(IDE1 + DEVICE, 1, 0xa0);
    ck_assert(command(IDE1, 0xec) & ERR); /* IDENTIFY DEVICE: the signature instead */
    ck_assert_uint_eq(inp(IDE1 + FEATURE, 1), ABRT);
    ck_assert_uint_eq(inp(IDE1 + LBA1, 1), 0x14);
    ck_assert_uint_eq(inp(IDE1 + LBA2, 1), 0xeb);
    ck_assert(command(IDE1, 0xa1) & DRQ);
    read_words(IDE1, reply, 512);
    ck_assert_uint_eq(reply[0] | reply[1] << 8, 0x85c0);
    ck_assert(memcmp(reply + 54, "ABLIYED DVR-MO", 14) == 0); /* bytes are swapped in words */
    ck_assert_int_eq(PACKET(0x12, 0, 0, 0, 36), 36);
    ck_assert_uint_eq(reply[0], 5);
    ck_assert_uint_eq(reply[1], 0x80);
    ck_assert(memcmp(reply + 8, "BAILEY  BAILEY DVD-ROM  1.0 ", 28) == 0);
    ck_assert_int_eq(PACKET(0x12, 0, 0, 0, 5), 5); /* as much as there is room for */
    ck_assert_int_eq(PACKET(0x12, 1, 0x80, 0, 255), 24);
    ck_assert(memcmp(reply + 4, "BL00003", 7) == 0);
    ck_assert_int_eq(PACKET(0x12, 1, 0x77, 0, 255), -1);
    expect_sense(ILLEGAL, 0x2400);
}
END_TEST

START_TEST(capacity_and_reading)
{
    const uint32_t blocks = DISK_SECTORS / 4;
    ck_assert_int_eq(PACKET(0x00), 0);
    ck_assert_int_eq(PACKET(0x25), 8);
    ck_assert_uint_eq(get32(reply), blocks - 1);
    ck_assert_uint_eq(get32(reply + 4), 2048);
    ck_assert_int_eq(PACKET(0x28, 0, 0, 0, 0, 16, 0, 0, 3), 3 * 2048);
    ck_assert(memcmp(reply, disc.bytes + 16 * 2048, 3 * 2048) == 0);
    ck_assert_int_eq(PACKET(0xa8, 0, 0, 0, 1, 0, 0, 0, 0, 5), 5 * 2048);
    ck_assert(memcmp(reply, disc.bytes + 256 * 2048, 5 * 2048) == 0);
    ck_assert_int_eq(PACKET(0x28), 0); /* none */
    ck_assert_int_eq(PACKET(0x28, 0, 0, 0, blocks >> 8, blocks & 0xff, 0, 0, 1), -1);
    expect_sense(ILLEGAL, 0x2100);
    ck_assert_int_eq(PACKET(0x28, 0, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff), -1);
    expect_sense(ILLEGAL, 0x2100);
    ck_assert_int_eq(PACKET(0x2b, 0, 0, 0, 0, 9), 0);
    ck_assert_int_eq(PACKET(0x2b, 0, 0xff), -1);
    expect_sense(ILLEGAL, 0x2100);
}
END_TEST

/* Blocks fit the host's limit, whatever it is: even, and whole sectors if a sector fits. */
START_TEST(byte_counts)
{
    static const uint8_t read[12] = {0x28, 0, 0, 0, 0, 2, 0, 0, 20};
    static const unsigned limits[] = {2, 126, 2047, 2048, 3000, 4096, 65534, 65535};
    for (unsigned i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
        memset(reply, 0, 20 * 2048);
        ck_assert_int_eq(packet_by(read, limits[i]), 20 * 2048);
        ck_assert_msg(memcmp(reply, disc.bytes + 2 * 2048, 20 * 2048) == 0, "%u", limits[i]);
    }
    static const uint8_t more[12] = {0x28, 0, 0, 0, 0, 2, 0, 0, 100};
    ck_assert_int_eq(packet_by(more, 65534), 100 * 2048);
    ck_assert_uint_eq(blocks_moved, 4); /* 31, 31, 31 and 7 sectors */
    ck_assert(memcmp(reply, disc.bytes + 2 * 2048, 100 * 2048) == 0);
    ck_assert_int_eq(packet_by(read, 0), -1);
    expect_sense(ILLEGAL, 0x2400);
}
END_TEST

START_TEST(reading_by_dma)
{
    static const uint8_t read[12] = {0x28, 0, 0, 0, 0, 2, 0, 0, 100};
    for (unsigned i = 0; i < 4; i++)
        set_prd(i, DATA_AT + 0x10000 * i, i == 3 ? 8192 | LAST : 0);
    outp(IDE1 + DEVICE, 1, 0xa0);
    outp(IDE1 + FEATURE, 1, 1);
    outp(IDE1 + COMMAND, 1, 0xa0);
    start_engine(1, true);
    ck_assert_uint_eq(inp(bm + 8 + BM_STATUS, 1), 1);
    for (unsigned i = 0; i < 12; i += 2) /* the packet itself does not come by DMA */
        outp(IDE1, 2, read[i] | read[i + 1] << 8);
    disk_settle(&disc);
    ck_assert(irq_level[15]);
    ck_assert_uint_eq(inp(bm + 8 + BM_STATUS, 1), 4);
    ck_assert_uint_eq(inp(IDE1 + COUNT, 1), IO | COD);
    ck_assert_uint_eq(inp(IDE1 + COMMAND, 1) & (BSY | DRQ | ERR), 0);
    for (unsigned i = 0; i < 100 * 2048; i += 31)
        ck_assert_uint_eq(mem_in(DATA_AT + i, 1), disc.bytes[2 * 2048 + i]);
    set_prd(0, 0x40000000, 2048 | LAST); /* no memory there */
    outp(bm + 8, 1, 0);
    outp(IDE1 + FEATURE, 1, 1);
    outp(IDE1 + COMMAND, 1, 0xa0);
    start_engine(1, true);
    send_packet(read);
    disk_settle(&disc);
    ck_assert_uint_eq(inp(bm + 8 + BM_STATUS, 1), 6);
    ck_assert(inp(IDE1 + COMMAND, 1) & ERR);
    expect_sense(11, 0);
}
END_TEST

START_TEST(a_bad_block)
{
    disc.bad_sector = 4 * 25 + 1;
    ck_assert_int_eq(PACKET(0x28, 0, 0, 0, 0, 20, 0, 0, 10), -1);
    ck_assert(memcmp(reply, disc.bytes + 20 * 2048, 5 * 2048) == 0); /* what lies before it */
    ck_assert_uint_eq(inp(IDE1 + FEATURE, 1) >> 4, MEDIUM_ERROR);
    ck_assert_int_eq(PACKET(0x03, 0, 0, 0, 18), 18);
    ck_assert_uint_eq(reply[0], 0xf0); /* with an address */
    ck_assert_uint_eq(get32(reply + 3), 25);
    ck_assert_uint_eq(reply[12], 0x11);
}
END_TEST

/* a * alpha^n in the field of ECMA-130, annex A. */
static uint8_t weigh(uint8_t a, unsigned n)
{
    for (; n; n--)
        a = (uint8_t)(a << 1 ^ (a & 0x80 ? 0x1d : 0));
    return a;
}

/* The two sums over a code word: `count` bytes of sector `raw`, given by their words' numbers. */
static void expect_code_word(const uint8_t *raw, const unsigned *words, unsigned count,
                             unsigned half)
{
    uint8_t sum = 0, weighted = 0;
    for (unsigned i = 0; i < count; i++) {
        uint8_t byte = raw[12 + 2 * words[i] + half];
        sum ^= byte;
        weighted ^= weigh(byte, count - 1 - i);
    }
    ck_assert_uint_eq(sum, 0);
    ck_assert_uint_eq(weighted, 0);
}

/* The checksum over a sector with its checksum is 0, and all code words are. */
static void expect_good_sector(const uint8_t *raw)
{
    uint32_t edc = 0;
    unsigned words[45];
    for (unsigned i = 0; i < 2068; i++) {
        edc ^= raw[i];
        for (unsigned bit = 0; bit < 8; bit++)
            edc = edc >> 1 ^ (edc & 1 ? 0xd8018001u : 0);
    }
    ck_assert_uint_eq(edc, 0);
    for (unsigned half = 0; half < 2; half++) {
        for (unsigned p = 0; p < 43; p++) {
            for (unsigned m = 0; m < 26; m++)
                words[m] = 43 * m + p;
            expect_code_word(raw, words, 26, half);
        }
        for (unsigned q = 0; q < 26; q++) {
            for (unsigned m = 0; m < 43; m++)
                words[m] = (44 * m + 43 * q) % 1118;
            words[43] = 43 * 26 + q;
            words[44] = 44 * 26 + q;
            expect_code_word(raw, words, 45, half);
        }
    }
}

START_TEST(read_cd)
{
    ck_assert_int_eq(PACKET(0xbe, 0, 0, 0, 0, 7, 0, 0, 2, 0x10), 4096);
    ck_assert(memcmp(reply, disc.bytes + 7 * 2048, 4096) == 0);
    static const uint8_t raw[12] = {0xbe, 8, 0, 0, 0x11, 0x94, 0, 0, 2, 0xf8};
    disc.size = sizeof(disc.bytes);
    ck_assert_int_eq(packet_by(raw, 2352), -1); /* beyond the disc's end */
    expect_sense(ILLEGAL, 0x2100);
    static const uint8_t near[12] = {0xbe, 8, 0, 0, 0, 74, 0, 0, 2, 0xf8};
    ck_assert_int_eq(packet_by(near, 2352), 2 * 2352);
    for (unsigned i = 0; i < 2; i++) {
        static const uint8_t sync[12] = {0,    0xff, 0xff, 0xff, 0xff, 0xff,
                                         0xff, 0xff, 0xff, 0xff, 0xff, 0};
        const uint8_t header[4] = {0x00, i ? 0x03 : 0x02, i ? 0x00 : 0x74, 1}; /* BCD */
        ck_assert(memcmp(reply + i * 2352, sync, 12) == 0);
        ck_assert(memcmp(reply + i * 2352 + 12, header, 4) == 0);
        ck_assert(memcmp(reply + i * 2352 + 16, disc.bytes + (74 + i) * 2048, 2048) == 0);
        expect_good_sector(reply + i * 2352);
    }
    ck_assert_int_eq(PACKET(0xbe, 0, 0, 0, 0, 7, 0, 0, 2, 0x00), 0);  /* no field wanted */
    ck_assert_int_eq(PACKET(0xbe, 4, 0, 0, 0, 7, 0, 0, 2, 0x10), -1); /* audio */
    expect_sense(ILLEGAL, 0x6400);
    ck_assert_int_eq(PACKET(0xbe, 0, 0, 0, 0, 7, 0, 0, 2, 0x10, 1), -1); /* sub-channel */
    expect_sense(ILLEGAL, 0x2400);
}
END_TEST

START_TEST(tables_of_contents)
{
    const uint32_t blocks = DISK_SECTORS / 4;
    ck_assert_int_eq(PACKET(0x43, 0, 0, 0, 0, 0, 0, 0, 200), 20);
    static const uint8_t toc[12] = {0, 18, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0};
    ck_assert(memcmp(reply, toc, 12) == 0);
    ck_assert_uint_eq(reply[14], 0xaa);
    ck_assert_uint_eq(get32(reply + 16), blocks);
    ck_assert_int_eq(PACKET(0x43, 2, 0, 0, 0, 0, 0, 0, 200), 20);
    ck_assert_uint_eq(get32(reply + 8), 0x000200);
    uint32_t frame = blocks + 150;
    ck_assert_uint_eq(get32(reply + 16), frame / 75 / 60 << 16 | frame / 75 % 60 << 8 | frame % 75);
    ck_assert_int_eq(PACKET(0x43, 0, 0, 0, 0, 0, 0xaa, 0, 200), 12);
    ck_assert_int_eq(PACKET(0x43, 0, 0, 0, 0, 0, 2, 0, 200), -1);
    expect_sense(ILLEGAL, 0x2400);
    ck_assert_int_eq(PACKET(0x43, 0, 1, 0, 0, 0, 0, 0, 200), 12);
    ck_assert_int_eq(PACKET(0x43, 0, 0, 0, 0, 0, 0, 0, 200, 0x40), 12); /* SFF 8020's place */
    ck_assert_int_eq(PACKET(0x43, 2, 2, 0, 0, 0, 0, 0, 200), 48);
    ck_assert_uint_eq(reply[4 + 3], 0xa0);
    ck_assert_uint_eq(reply[4 + 3 * 11 + 3], 1);
    ck_assert_int_eq(PACKET(0x43, 0, 5, 0, 0, 0, 0, 0, 200), -1);
    expect_sense(ILLEGAL, 0x2400);
}
END_TEST

START_TEST(modes_and_features)
{
    ck_assert_int_eq(PACKET(0x5a, 0, 0x2a, 0, 0, 0, 0, 0, 200), 28);
    ck_assert_uint_eq(reply[1], 26);
    ck_assert_uint_eq(reply[8], 0x2a);
    ck_assert_uint_eq(reply[9], 18);
    ck_assert_int_eq(PACKET(0x5a, 0, 0x3f, 0, 0, 0, 0, 0, 200), 8 + 8 + 16 + 20);
    ck_assert_int_eq(PACKET(0x1a, 0, 0x01, 0, 200), 12);
    ck_assert_int_eq(PACKET(0x5a, 0, 0x6a, 0, 0, 0, 0, 0, 200), 28); /* changeable: nothing */
    for (unsigned i = 10; i < 28; i++)
        ck_assert_uint_eq(reply[i], 0);
    ck_assert_int_eq(PACKET(0x5a, 0, 0xea, 0, 0, 0, 0, 0, 200), -1);
    expect_sense(ILLEGAL, 0x3900);
    ck_assert_int_eq(PACKET(0x5a, 0, 0x05, 0, 0, 0, 0, 0, 200), -1);
    expect_sense(ILLEGAL, 0x2400);
    int all = PACKET(0x46, 0, 0, 0, 0, 0, 0, 1, 0);
    ck_assert_int_gt(all, 8);
    ck_assert_uint_eq(get32(reply), (uint32_t)all - 4);
    ck_assert_uint_eq(reply[7], 0x08); /* a CD is in it */
    int current = PACKET(0x46, 1, 0, 0, 0, 0, 0, 1, 0);
    ck_assert_int_lt(current, all);
    ck_assert_int_eq(PACKET(0x46, 2, 0, 3, 0, 0, 0, 1, 0), 16);
    ck_assert_uint_eq(reply[9], 3);
    ck_assert_int_eq(PACKET(0x46, 2, 0, 0x77, 0, 0, 0, 1, 0), 8);
    ck_assert_int_eq(PACKET(0x51, 0, 0, 0, 0, 0, 0, 0, 200), 34);
    ck_assert_uint_eq(reply[2], 0x0e);
    ck_assert_int_eq(PACKET(0xbd, 0, 0, 0, 0, 0, 0, 0, 0, 200), 8);
    ck_assert_int_eq(PACKET(0xad, 0, 0, 0, 0, 0, 0, 0, 1, 0), -1); /* no DVD */
    expect_sense(ILLEGAL, 0x3000);
    disc.size = 4ull << 30;
    ck_assert_int_eq(PACKET(0x46, 0, 0, 0, 0, 0, 0, 1, 0), all);
    ck_assert_uint_eq(reply[7], 0x10);
    ck_assert_int_eq(PACKET(0xad, 0, 0, 0, 0, 0, 0, 0, 8, 4), 2052);
    ck_assert_uint_eq(get32(reply + 8), 0x30000);
    ck_assert_uint_eq(get32(reply + 12), 0x30000 + (2u << 20) - 1);
    ck_assert_int_eq(PACKET(0xad, 0, 0, 0, 0, 0, 0, 1, 8, 4), 8);
    ck_assert_int_eq(PACKET(0xad, 0, 0, 0, 0, 0, 0, 0xff, 8, 4), 16);
    disc.size = sizeof(disc.bytes);
}
END_TEST

START_TEST(without_a_disc)
{
    static const uint8_t need[] = {0x00, 0x25, 0x28, 0x43, 0x51, 0xa8, 0xad, 0xbe};
    plug_empty();
    unit = 1;
    for (unsigned i = 0; i < sizeof(need); i++) {
        ck_assert_int_eq(PACKET(need[i], 0, 0, 0, 0, 0, 0, 0, 1), -1);
        expect_sense(NOT_READY, 0x3a01);
    }
    ck_assert_int_eq(PACKET(0x12, 0, 0, 0, 36), 36);
    ck_assert_int_eq(PACKET(0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8), 8);
    ck_assert_uint_eq(reply[5], 0);
    ck_assert_int_eq(PACKET(0x46, 0, 0, 0, 0, 0, 0, 0, 8), 8);
    ck_assert_uint_eq(reply[7], 0); /* no profile is current */
    unit = 0;
}
END_TEST

START_TEST(tray_lock_and_attention)
{
    ck_assert_int_eq(PACKET(0x1e, 0, 0, 0, 1), 0);
    ck_assert_int_eq(PACKET(0x1b, 0, 0, 0, 2), -1);
    expect_sense(ILLEGAL, 0x5302);
    ck_assert_int_eq(PACKET(0x1e, 0, 0, 0, 0), 0);
    ck_assert_int_eq(PACKET(0x1b, 0, 0, 0, 2), 0); /* out */
    ck_assert_int_eq(PACKET(0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8), 8);
    ck_assert_uint_eq(reply[4], 3); /* media removal */
    ck_assert_uint_eq(reply[5], 1);
    ck_assert_int_eq(PACKET(0x00), -1);
    expect_sense(NOT_READY, 0x3a02);
    ck_assert_int_eq(PACKET(0x1b, 0, 0, 0, 3), 0);   /* in */
    ck_assert_int_eq(PACKET(0x12, 0, 0, 0, 36), 36); /* which the attention does not stop */
    ck_assert_int_eq(PACKET(0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8), 8);
    ck_assert_uint_eq(reply[4], 2); /* new media */
    ck_assert_uint_eq(reply[5], 2);
    ck_assert_int_eq(PACKET(0x00), -1);
    expect_sense(ATTENTION, 0x2800);
    ck_assert_int_eq(PACKET(0x00), 0);
    ck_assert_int_eq(PACKET(0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8), 8);
    ck_assert_uint_eq(reply[4], 0);
    ck_assert_int_eq(PACKET(0x4a, 0, 0, 0, 0x10, 0, 0, 0, 8), -1); /* asynchronously */
    expect_sense(ILLEGAL, 0x2400);
    ck_assert_int_eq(PACKET(0x4a, 1, 0, 0, 0x02, 0, 0, 0, 8), 4); /* no such class */
    ck_assert_uint_eq(reply[2], 0x80);
    ck_assert_int_eq(PACKET(0x1e, 0, 0, 0, 1), 0);
    cd_drive->reset(cd_drive); /* unlocks */
    ck_assert_int_eq(PACKET(0x1b, 0, 0, 0, 2), 0);
}
END_TEST

START_TEST(another_disc_from_outside)
{
    struct error err = {""};
    struct blockdev *other = calloc(1, sizeof(*other));
    disk_init(other);
    other->size = 100 * 2048;
    ck_assert(ata_drive_change(cd_drive, NULL, false, &err));
    ck_assert_int_eq(PACKET(0x00), -1);
    expect_sense(NOT_READY, 0x3a02);
    ck_assert_int_eq(PACKET(0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8), 8);
    ck_assert_uint_eq(reply[4], 3); /* media removal */
    ck_assert(ata_drive_change(cd_drive, other, false, &err));
    ck_assert_int_eq(PACKET(0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8), 8);
    ck_assert_uint_eq(reply[4], 2); /* new media */
    ck_assert_uint_eq(reply[5], 2);
    ck_assert_int_eq(PACKET(0x25), -1);
    expect_sense(ATTENTION, 0x2800);
    ck_assert_int_eq(PACKET(0x25), 8);
    ck_assert_uint_eq(get32(reply), 99);
    ck_assert_int_eq(PACKET(0x1e, 0, 0, 0, 1), 0); /* locked */
    ck_assert(!ata_drive_change(cd_drive, &disc, false, &err));
    ck_assert_str_eq(err.msg,
                     "the guest has locked the tray, and has been told; try again, or force");
    ck_assert_int_eq(PACKET(0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8), 8);
    ck_assert_uint_eq(reply[4], 1); /* eject request */
    ck_assert_int_eq(PACKET(0x25), 8);
    ck_assert_uint_eq(get32(reply), 99);
    ck_assert(ata_drive_change(cd_drive, &disc, true, &err));
    free(other);
}
END_TEST

/* The read ends where the old disc's data end. */
START_TEST(the_disc_goes_during_a_read)
{
    static const uint8_t read[12] = {0x28, [7] = 1,
                                     44}; /* 300 blocks: more than the drive reads at once */
    struct error err = {""};
    unsigned got = 0;
    begin_packet(0x8000);
    send_packet(read);
    ck_assert_uint_eq(disc.count, 1);
    ck_assert(ata_drive_change(cd_drive, NULL, false, &err));
    disk_settle(&disc);
    for (; status_of(IDE1) & DRQ; got++) {
        ck_assert_uint_eq(inp(IDE1, 2), disc.bytes[2 * got] | disc.bytes[2 * got + 1] << 8);
        ck_assert_uint_eq(disc.count, 0);
    }
    ck_assert_uint_eq(got, 512 << 9);
    ck_assert(inp(IDE1 + COMMAND, 1) & CHK);
    ck_assert_uint_eq(inp(IDE1 + FEATURE, 1) >> 4, NOT_READY);
}
END_TEST

START_TEST(what_is_not_supported)
{
    static const uint8_t known[] = {0x00, 0x03, 0x12, 0x1a, 0x1b, 0x1e, 0x25, 0x28, 0x2b, 0x43,
                                    0x46, 0x4a, 0x51, 0x5a, 0xa8, 0xad, 0xbb, 0xbd, 0xbe};
    for (unsigned opcode = 0; opcode < 256; opcode++) {
        if (memchr(known, (int)opcode, sizeof(known)))
            continue;
        ck_assert_msg(PACKET((uint8_t)opcode) == -1, "%#x", opcode);
        ck_assert_uint_eq(inp(IDE1 + FEATURE, 1), ILLEGAL << 4 | ABRT);
        expect_sense(ILLEGAL, 0x2000);
    }
    static const uint8_t ata[] = {0x08, 0x20, 0x90, 0xa0, 0xa1, 0xec, 0x00, 0x94, 0x95, 0x96, 0x97,
                                  0x98, 0x99, 0xe0, 0xe1, 0xe2, 0xe3, 0xe5, 0xe6, 0xe7, 0xef};
    outp(IDE1 + DEVICE, 1, 0xa0);
    for (unsigned number = 0; number < 256; number++) {
        if (memchr(ata, (int)number, sizeof(ata)))
            continue;
        ck_assert_msg(command(IDE1, (uint8_t)number) & ERR, "%#x", number);
        ck_assert_uint_eq(inp(IDE1 + FEATURE, 1), ABRT);
    }
}
END_TEST

/* DEVICE RESET is taken while the drive is busy, and interrupts nobody. */
START_TEST(device_reset)
{
    static const uint8_t read[12] = {0x28, 0, 0, 0, 0, 2, 0, 0, 1};
    begin_packet(0x800);
    send_packet(read);
    ck_assert_uint_eq(status_of(IDE1) & (BSY | DRQ), BSY);
    outp(IDE1 + COMMAND, 1, 0x08);
    ck_assert_uint_eq(status_of(IDE1), BSY); /* the image is still at it */
    disk_settle(&disc);
    ck_assert_uint_eq(status_of(IDE1), 0);
    ck_assert(!irq_level[15]);
    ck_assert_uint_eq(inp(IDE1 + LBA2, 1), 0xeb);
    ck_assert_int_eq(packet_by(read, 2048), 2048);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {identification,
                                  capacity_and_reading,
                                  byte_counts,
                                  reading_by_dma,
                                  a_bad_block,
                                  read_cd,
                                  tables_of_contents,
                                  modes_and_features,
                                  without_a_disc,
                                  tray_lock_and_attention,
                                  device_reset,
                                  what_is_not_supported,
                                  another_disc_from_outside,
                                  the_disc_goes_during_a_read};
    Suite *suite = suite_create("atapi");
    TCase *tcase = tcase_create("atapi");
    tcase_add_checked_fixture(tcase, setup, ide_teardown);
    for (unsigned i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
        tcase_add_test(tcase, tests[i]);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
