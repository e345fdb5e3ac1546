/*
 * test_scsi_units.c - commands of SCSI disks and CD-ROM drives, through the adapter.
 */
#include "scsi_driver.h"

/* ---- Reading and writing -----------------------------------------------------------------------
 */

START_TEST(capacity)
{
    ready();
    command(CDB(0x25), 0, 8);
    expect_good(8);
    ck_assert_uint_eq(data32(0), DISK_SECTORS - 1);
    ck_assert_uint_eq(data32(4), 512);
    command(CDB(0x9e, 0x10, [13] = 32), 0, 32);
    expect_good(32);
    ck_assert_uint_eq(data32(4), DISK_SECTORS - 1);
    ck_assert_uint_eq(data(15)[14], 0x80);
    command(CDB(0x9e, 0x11, [13] = 32), 0, 32);
    expect_check(5, 0x2400);
    disk.size = 0;
    command(CDB(0x25), 0, 8);
    expect_check(2, 0x3a00);
    disk.size = 3ull << 41; /* more than 32 bits of blocks */
    command(CDB(0x25), 0, 8);
    expect_good(8);
    ck_assert_uint_eq(data32(0), UINT32_MAX);
}
END_TEST

START_TEST(reads_and_writes_of_every_length)
{
    static const struct {
        uint8_t read[16], write[16];
        unsigned sector, count;
    } cases[] = {
        {{0x08, 0, 1, 4, 3}, {0x0a, 0, 1, 4, 3}, 260, 3},
        {{0x08, 0, 0, 9, 0}, {0x0a, 0, 0, 9, 0}, 9, 256},
        {{0x28, 0, 0, 0, 2, 1, 0, 0, 7}, {0x2a, 0, 0, 0, 2, 1, 0, 0, 7}, 513, 7},
        {{0x28, 0, 0, 0, 0, 0, 0, 4, 6},
         {0x2a, 0, 0, 0, 0, 0, 0, 4, 6},
         0,
         1030}, /* three chunks */
        {{0xa8, 0, 0, 0, 31, 255, 0, 0, 0, 1}, {0xaa, 0, 0, 0, 31, 255, 0, 0, 0, 1}, 8191, 1},
        {{0x88, [9] = 5, [13] = 2}, {0x8a, [9] = 5, [13] = 2}, 5, 2},
    };
    ready();
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint32_t len = cases[i].count * 512;
        uint8_t *at = disk.bytes + cases[i].sector * 512;
        fill_ram(DATA_AT, 0, 16);
        command(cases[i].read, 0, len);
        expect_good(len);
        ck_assert_uint_eq(last.residual, 0);
        ck_assert_msg(memcmp(data(len), at, len) == 0, "case %u", i);
        fill_ram(DATA_AT + len - 512, (uint8_t)(i + 100), 512);
        command(cases[i].write, len, 0);
        expect_good(0);
        ck_assert_uint_eq(last.residual, 0);
        ck_assert_msg(memcmp(data(len), at, len) == 0, "case %u", i);
        ck_assert_uint_eq(at[len - 1], i + 100);
    }
}
END_TEST

START_TEST(more_room_than_data)
{
    ready();
    command(CDB(0x28, [8] = 1), 0, 2000);
    expect_good(512);
    ck_assert_uint_eq(last.residual, 2000 - 512);
    command(CDB(0x28), 0, 512); /* of nothing */
    expect_good(0);
    ck_assert_uint_eq(last.residual, 512);
}
END_TEST

START_TEST(less_room_than_data)
{
    ready();
    disk.log[0] = 0;
    command(CDB(0x28, [8] = 2), 0, 1023);
    ck_assert_uint_eq(last.response, S_OVERRUN);
    command(CDB(0x2a, [8] = 2), 1023, 0);
    ck_assert_uint_eq(last.response, S_OVERRUN);
    command(CDB(0x2a, [8] = 2), 0, 1024); /* the other way */
    ck_assert_uint_eq(last.response, S_OVERRUN);
    command(CDB(0x12, 0, 0, 0, 36), 0, 35);
    ck_assert_uint_eq(last.response, S_OVERRUN);
    ck_assert_str_eq(disk.log, "");
}
END_TEST

START_TEST(both_ways_are_refused)
{
    ready();
    command(CDB(0x28, [8] = 1), 512, 512);
    ck_assert_uint_eq(last.response, S_FAILURE);
}
END_TEST

START_TEST(ranges_off_the_disk)
{
    ready();
    disk.log[0] = 0;
    command(CDB(0x28, 0, 0, 0, 0x20, 0, 0, 0, 1), 0, 512);
    expect_check(5, 0x2100);
    ck_assert_uint_eq(last.info, DISK_SECTORS);
    command(CDB(0x28, 0, 0, 0, 0x1f, 0xff, 0, 0, 2), 0, 1024);
    expect_check(5, 0x2100);
    command(CDB(0x8a, 0, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 2), 1024, 0);
    expect_check(5, 0x2100);
    command(CDB(0x88, 0, 0, 128, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1), 0, 512);
    expect_check(5, 0x2100);
    command(CDB(0x88, [10] = 255, 255, 255, 255), 0, 512);
    expect_check(5, 0x2100);
    command(CDB(0x35, 0, 0, 0, 0x20, 1), 0, 0);
    expect_check(5, 0x2100);
    command(CDB(0x28, 0x20, [8] = 1), 0, 512); /* protection information */
    expect_check(5, 0x2400);
    command(CDB(0xff), 0, 0);
    expect_check(5, 0x2000);
    ck_assert_str_eq(disk.log, "");
}
END_TEST

START_TEST(what_the_image_cannot_do)
{
    ready();
    disk.bad_sector = 3;
    command(CDB(0x28, [8] = 8), 0, 4096);
    expect_check(3, 0x1100);
    command(CDB(0x2a, [8] = 8), 4096, 0);
    expect_check(3, 0x0c00);
    disk.flush_result = -ENOSPC;
    command(CDB(0x35), 0, 0);
    expect_check(7, 0x2707);
}
END_TEST

START_TEST(force_unit_access_flushes)
{
    ready();
    disk.log[0] = 0;
    command(CDB(0x2a, 0, [8] = 1), 512, 0);
    expect_good(0);
    ck_assert_str_eq(disk.log, "W");
    command(CDB(0x2a, 0x08, [8] = 1), 512, 0);
    expect_good(0);
    ck_assert_str_eq(disk.log, "WWF");
    command(CDB(0x91), 0, 0);
    expect_good(0);
    command(CDB(0x1b), 0, 0); /* stop */
    expect_good(0);
    command(CDB(0x1b, 0, 0, 0, 1), 0, 0);
    expect_good(0);
    ck_assert_str_eq(disk.log, "WWFFF");
    disk.flush_result = -EIO;
    command(CDB(0x2a, 0x08, [8] = 1), 512, 0);
    expect_check(3, 0x0c00);
}
END_TEST

START_TEST(verify)
{
    ready();
    disk.log[0] = 0;
    command(CDB(0x2f, 0, [8] = 4), 0, 0);
    expect_good(0);
    ck_assert_str_eq(disk.log, "R");
    put_bytes(DATA_AT, disk.bytes + 512, 1024);
    command(CDB(0x2f, 2, 0, 0, 0, 1, 0, 0, 2), 1024, 0);
    expect_good(0);
    mem_out(DATA_AT + 700, 1, disk.bytes[512 + 700] ^ 1);
    command(CDB(0x8f, 2, [9] = 1, [13] = 2), 1024, 0);
    expect_check(14, 0x1d00);
    ck_assert_uint_eq(last.info, 700);
    command(CDB(0xaf, 4, [9] = 1), 512, 0);
    expect_check(5, 0x2400);
}
END_TEST

START_TEST(unmap_and_write_same)
{
    uint8_t list[8 + 3 * 16] = {0, 54, 0, 48};
    ready();
    disk.log[0] = 0;
    list[8 + 7] = 9, list[8 + 11] = 2; /* 9, 2 blocks */
    list[24 + 7] = 50;                 /* none */
    list[40 + 7] = 100, list[40 + 11] = 3;
    put_bytes(DATA_AT, list, sizeof(list));
    command(CDB(0x42, [8] = sizeof(list)), sizeof(list), 0);
    expect_good(0);
    ck_assert_str_eq(disk.log, "DD");
    ck_assert(disk.bytes[9 * 512 + 1023] == 0 && disk.bytes[100 * 512 + 5] == 0);
    list[40 + 6] = 0x20; /* one that is off the disk: none is done */
    put_bytes(DATA_AT, list, sizeof(list));
    command(CDB(0x42, [8] = sizeof(list)), sizeof(list), 0);
    expect_check(5, 0x2100);
    command(CDB(0x42, [8] = 7), 8, 0);
    expect_check(5, 0x1a00);
    command(CDB(0x42, 1, [8] = 24), 24, 0);
    expect_check(5, 0x2400);
    ck_assert_str_eq(disk.log, "DD");
    fill_ram(DATA_AT, 0, 512);
    command(CDB(0x93, 8, [9] = 20, [13] = 4), 512, 0);
    expect_good(0);
    command(CDB(0x93, 1, [9] = 30, [13] = 4), 0, 0); /* no data-out buffer */
    expect_good(0);
    ck_assert_str_eq(disk.log, "DDZZ");
    fill_ram(DATA_AT, 0xa5, 512);
    command(CDB(0x41, 0, 0, 0, 0, 40, 0, 4, 0), 512, 0); /* 1024 blocks: two chunks */
    expect_good(0);
    ck_assert_str_eq(disk.log, "DDZZWW");
    for (unsigned i = 40 * 512; i < 1064 * 512; i++)
        ck_assert_uint_eq(disk.bytes[i], 0xa5);
    command(CDB(0x93, 8), 512, 0); /* of no blocks: WSNZ */
    expect_check(5, 0x2400);
    command(CDB(0x93, 8, [13] = 1), 0, 0);
    ck_assert_uint_eq(last.response, S_OVERRUN);
}
END_TEST

START_TEST(read_only_disk)
{
    unplug();
    plug(1, true);
    ready();
    disk.log[0] = 0;
    static const uint8_t writes[][16] = {
        {0x0a, [4] = 1}, {0x2a, [8] = 1}, {0x42, [8] = 24}, {0x93, 8, [13] = 1}, {0x41, [8] = 1}};
    for (unsigned i = 0; i < 5; i++) {
        command(writes[i], 512, 0);
        expect_check(7, 0x2700);
    }
    command(CDB(0x1a, 0, 8, 0, 255), 0, 255);
    expect_good(32);
    ck_assert_uint_eq(data(3)[2], 0x90); /* WP, DPOFUA */
    ck_assert_str_eq(disk.log, "");
}
END_TEST

START_TEST(write_cache)
{
    uint8_t list[12 + 20] = {[3] = 8, [10] = 2, [12] = 8, 0x12};
    ready();
    command(CDB(0x1a, 0, 8, 0, 255), 0, 255);
    expect_good(4 + 8 + 20);
    ck_assert_uint_eq(data(16)[14], 4); /* WCE */
    disk.log[0] = 0;
    put_bytes(DATA_AT, list, sizeof(list));
    command(CDB(0x15, 0x10, 0, 0, sizeof(list)), sizeof(list), 0);
    expect_good(0);
    ck_assert(!disk.cache);
    ck_assert_str_eq(disk.log, "F");
    command(CDB(0x5a, 8, 8, 0, 0, 0, 0, 0, 255), 0, 255);
    expect_good(8 + 20);
    ck_assert_uint_eq(data(12)[10], 0);
    command(CDB(0x1a, 8, 0x48, 0, 255), 0, 255); /* changeable */
    expect_good(4 + 20);
    ck_assert_uint_eq(data(8)[6], 4);
    command(CDB(0x1a, 8, 0xc8, 0, 255), 0, 255); /* saved */
    expect_check(5, 0x3900);
    command(CDB(0x1a, 8, 0x3f, 0, 255), 0, 255); /* all */
    expect_good(4 + 12 + 20 + 12);
    command(CDB(0x1a, 8, 0x1c, 0, 255), 0, 255);
    expect_check(5, 0x2400);
    list[15] = 1; /* what cannot be changed */
    put_bytes(DATA_AT, list, sizeof(list));
    command(CDB(0x15, 0x10, 0, 0, sizeof(list)), sizeof(list), 0);
    expect_check(5, 0x2600);
    command(CDB(0x15, 0x10, 0, 0, 20), 20, 0); /* half a page */
    expect_check(5, 0x2600);
    command(CDB(0x15, 0x10, 0, 0, 5), 5, 0); /* half a header */
    expect_check(5, 0x1a00);
    set_status(&drv, 0);
    ck_assert(disk.cache); /* a reset brings the default back */
}
END_TEST

/* ---- CD-ROM ------------------------------------------------------------------------------------
 */

START_TEST(cd_rom)
{
    disc_command(CDB(0x12, 0, 0, 0, 36), 36);
    expect_good(36);
    ck_assert_uint_eq(data(1)[0], 5);
    ck_assert_uint_eq(data(4)[3], 0x12);
    disc_command(CDB(0x4a, 1, 0, 0, 16, 0, 0, 0, 8), 8); /* not held up by power-on */
    expect_good(8);
    disc_command(CDB(0), 0);
    expect_check(6, 0x2900);
    disc_command(CDB(0x25), 8);
    expect_good(8);
    ck_assert_uint_eq(data32(0), DISK_SECTORS / 4 - 1);
    disc_command(CDB(0x28, 0, 0, 0, 0, 5, 0, 1, 2), 258 * 2048); /* three chunks */
    expect_good(258 * 2048);
    ck_assert_int_eq(memcmp(data(258 * 2048), disc.bytes + 5 * 2048, 258 * 2048), 0);
    disc_command(CDB(0xbe, 0, 0, 0, 0, 16, 0, 0, 3, 0xf8), 3 * 2352);
    expect_good(3 * 2352);
    ck_assert_int_eq(memcmp(data(2352 * 2) + 2352 + 16, disc.bytes + 17 * 2048, 2048), 0);
    disc_command(CDB(0x28, 0, 0, 0, 0x08, 0, 0, 0, 1), 2048);
    expect_check(5, 0x2100);
    disc_command(CDB(0x2a, [8] = 1), 0);
    expect_check(5, 0x2000);
    disc_command(CDB(0x03, 0, 0, 0, 18), 18); /* was told already */
    expect_good(18);
    ck_assert_uint_eq(data(3)[2], 0);
    disc_command(CDB(0x28, [8] = 2), 4095);
    ck_assert_uint_eq(last.response, S_OVERRUN);
}
END_TEST

START_TEST(cd_rom_with_a_bad_block)
{
    disc_command(CDB(0), 0);
    disc.bad_sector = 4 * 7 + 1;
    disc_command(CDB(0x28, 0, 0, 0, 0, 5, 0, 0, 4), 4 * 2048);
    expect_check(3, 0x1100);
    ck_assert_uint_eq(last.info, 7);
    ck_assert_uint_eq(last.residual, 2 * 2048);
}
END_TEST

START_TEST(tray)
{
    disc_command(CDB(0), 0);
    disc_command(CDB(0x1e, 0, 0, 0, 1), 0);
    expect_good(0);
    disc_command(CDB(0x1b, 0, 0, 0, 2), 0);
    expect_check(5, 0x5302);
    disc_command(CDB(0x1e), 0);
    disc_command(CDB(0x1b, 0, 0, 0, 2), 0);
    expect_good(0);
    disc_command(CDB(0), 0);
    expect_check(2, 0x3a02);
    disc_command(CDB(0x1b, 0, 0, 0, 3), 0);
    expect_good(0);
    disc_command(CDB(0), 0);
    expect_check(6, 0x2800);
    disc_command(CDB(0), 0);
    expect_good(0);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        capacity,
        reads_and_writes_of_every_length,
        more_room_than_data,
        less_room_than_data,
        both_ways_are_refused,
        ranges_off_the_disk,
        what_the_image_cannot_do,
        force_unit_access_flushes,
        verify,
        unmap_and_write_same,
        read_only_disk,
        write_cache,
        cd_rom,
        cd_rom_with_a_bad_block,
        tray,
    };
    return run_tests("scsi_units", tests, sizeof(tests) / sizeof(tests[0]));
}
