/*
 * test_fw_cfg.c - the firmware configuration device as firmware uses it: selector and data port,
 * DMA, the directory; and control blocks that no firmware would write.
 */
#include "internal/fw_cfg.h"
#include "pci_board.h"
#include <endian.h>

static struct fw_cfg *cfg;
static struct error err;

static void setup(void)
{
    board_setup();
    cfg = fw_cfg_new(&board);
}
static void teardown(void)
{
    struct device *dev = (struct device *)cfg;
    dev->destroy(dev);
    board_teardown();
}

static void select_key(uint16_t key)
{
    outp(0x510, 2, key);
}
static void read_bytes(void *to, unsigned len)
{
    for (unsigned i = 0; i < len; i++)
        ((uint8_t *)to)[i] = (uint8_t)inp(0x511, 1);
}

struct block {
    uint32_t control, length;
    uint64_t address;
};
enum { BLOCK = 0x1000, ERROR = 1, READ = 2, SKIP = 4, SELECT = 8, WRITE = 16 };

/* Returns the control word as the device leaves it. */
static uint32_t dma(uint32_t control, uint32_t length, uint64_t address)
{
    struct block block = {htobe32(control), htobe32(length), htobe64(address)};
    static const struct access loader = {.initiator = INITIATOR_LOADER};
    phys_write(board.map, &loader, BLOCK, &block, sizeof(block));
    outp(0x514, 4, 0);
    outp(0x518, 4, htobe32(BLOCK));
    phys_read(board.map, &loader, BLOCK, &block, sizeof(block));
    return be32toh(block.control);
}

START_TEST(items_are_read_byte_by_byte)
{
    char bytes[8];
    uint32_t id;
    select_key(FW_CFG_SIGNATURE);
    read_bytes(bytes, 6);
    ck_assert_mem_eq(bytes, "QEMU\0\0", 6); /* zeroes behind the end */
    select_key(FW_CFG_ID);
    read_bytes(&id, 4);
    ck_assert_uint_eq(id, 3);
    select_key(0x3fff); /* no such item */
    read_bytes(bytes, 2);
    ck_assert_mem_eq(bytes, "\0\0", 2);
    ck_assert(fw_cfg_add_number(cfg, FW_CFG_NB_CPUS, 4, 2, &err));
    select_key(FW_CFG_NB_CPUS);
    read_bytes(bytes, 2);
    ck_assert_mem_eq(bytes, "\4\0", 2);
}
END_TEST

/* The directory, and the item behind an entry. */
START_TEST(files_are_found_by_name)
{
    uint32_t count;
    struct {
        uint32_t size;
        uint16_t select, reserved;
        char name[56];
    } entry[3];
    ck_assert(fw_cfg_add_file(cfg, "etc/z", "last", 4, &err));
    ck_assert(fw_cfg_add_file(cfg, "etc/a", "first!", 6, &err));
    ck_assert(fw_cfg_add_file(cfg, "etc/z", "anew", 3, &err)); /* replaces */
    select_key(FW_CFG_FILE_DIR);
    read_bytes(&count, 4);
    ck_assert_uint_eq(be32toh(count), 2);
    read_bytes(entry, sizeof(entry[0]) * 2);
    ck_assert_str_eq(entry[0].name, "etc/a");
    ck_assert_str_eq(entry[1].name, "etc/z");
    ck_assert_uint_eq(be32toh(entry[0].size), 6);
    ck_assert_uint_eq(be32toh(entry[1].size), 3);
    char bytes[8];
    select_key(be16toh(entry[1].select));
    read_bytes(bytes, 4);
    ck_assert_mem_eq(bytes, "ane\0", 4);
    select_key(be16toh(entry[0].select));
    read_bytes(bytes, 6);
    ck_assert_mem_eq(bytes, "first!", 6);
}
END_TEST

static unsigned refreshed;
static void refresh(void *opaque)
{
    ck_assert_ptr_eq(opaque, cfg);
    char text[16];
    snprintf(text, sizeof(text), "round %u", ++refreshed);
    ck_assert(fw_cfg_add_file(cfg, "etc/late", text, strlen(text), &err));
}

START_TEST(files_may_be_made_when_the_directory_is_read)
{
    refreshed = 0;
    fw_cfg_on_directory(cfg, refresh, cfg);
    select_key(FW_CFG_FILE_DIR);
    select_key(FW_CFG_FILE_FIRST);
    char bytes[8];
    read_bytes(bytes, 7);
    ck_assert_mem_eq(bytes, "round 1", 7);
    ck_assert_uint_eq(refreshed, 1);
}
END_TEST

START_TEST(dma_transfers_whole_items)
{
    static const struct access loader = {.initiator = INITIATOR_LOADER};
    uint8_t image[10000], got[10004];
    for (unsigned i = 0; i < sizeof(image); i++)
        image[i] = (uint8_t)(i * 7);
    ck_assert_uint_eq(inp(0x514, 4), htole32(0x554d4551)); /* "QEMU" */
    ck_assert_uint_eq(inp(0x518, 4), htole32(0x47464320)); /* " CFG" */
    ck_assert(fw_cfg_add_file(cfg, "rom", image, sizeof(image), &err));
    ck_assert_uint_eq(dma(FW_CFG_FILE_FIRST << 16 | SELECT | READ, sizeof(got), 0x2001), 0);
    phys_read(board.map, &loader, 0x2001, got, sizeof(got));
    ck_assert_mem_eq(got, image, sizeof(image));
    ck_assert_mem_eq(got + sizeof(image), "\0\0\0\0", 4);
    /* Skipping, and going on by the data port. */
    ck_assert_uint_eq(dma(FW_CFG_FILE_FIRST << 16 | SELECT | SKIP, 5000, 0), 0);
    ck_assert_uint_eq(inp(0x511, 1), image[5000]);
    ck_assert_uint_eq(dma(SKIP, UINT32_MAX, 0), 0);
    ck_assert_uint_eq(inp(0x511, 1), 0);
}
END_TEST

START_TEST(bad_transfers_are_errors)
{
    ck_assert_uint_eq(dma(SELECT | READ, 4, RAM_SIZE - 2), ERROR); /* over the end of RAM */
    ck_assert_uint_eq(dma(SELECT | READ, 4, UINT64_MAX - 1), ERROR);
    ck_assert_uint_eq(dma(SELECT | READ, UINT32_MAX, 0), ERROR);
    ck_assert_uint_eq(dma(SELECT | WRITE, 4, 0x2000), ERROR); /* nothing can be written */
    outp(0x514, 4, htobe32(0x12345678)); /* the block itself is nowhere: nothing happens */
    outp(0x518, 4, htobe32(BLOCK));
    outp(0x518, 4, htobe32(BLOCK + 2)); /* the high half has been forgotten: no harm either */
}
END_TEST

/* Behind the item's end there are zeroes, but not as many as the guest likes. */
START_TEST(a_transfer_ends_soon_behind_the_item)
{
    enum { ROOM = 64 << 10, AT = 0x4000 };
    static const struct access loader = {.initiator = INITIATOR_LOADER};
    uint8_t byte = 0xa5;
    phys_write(board.map, &loader, AT, &byte, 1);
    ck_assert_uint_eq(dma(FW_CFG_SIGNATURE << 16 | SELECT | READ, 4 + ROOM + 1, AT), ERROR);
    phys_read(board.map, &loader, AT, &byte, 1);
    ck_assert_uint_eq(byte, 0xa5);
    ck_assert_uint_eq(dma(FW_CFG_SIGNATURE << 16 | SELECT | READ, 4 + ROOM, AT), 0);
    ck_assert_uint_eq(dma(READ, ROOM, AT), 0);
    ck_assert_uint_eq(dma(READ, ROOM + 1, AT), ERROR);
}
END_TEST

START_TEST(names_and_room_are_bounded)
{
    char name[64];
    memset(name, 'x', sizeof(name));
    name[56] = 0;
    ck_assert(!fw_cfg_add_file(cfg, name, "", 0, &err));
    for (unsigned i = 0; i < FW_CFG_FILES_MAX; i++) {
        snprintf(name, sizeof(name), "f%u", i);
        ck_assert(fw_cfg_add_file(cfg, name, "", 0, &err));
    }
    ck_assert(!fw_cfg_add_file(cfg, "one more", "", 0, &err));
    ck_assert(fw_cfg_add_file(cfg, "f1", "x", 1, &err));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("fw_cfg");
    TCase *t = tcase_create("fw_cfg");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, items_are_read_byte_by_byte);
    tcase_add_test(t, files_are_found_by_name);
    tcase_add_test(t, files_may_be_made_when_the_directory_is_read);
    tcase_add_test(t, dma_transfers_whole_items);
    tcase_add_test(t, bad_transfers_are_errors);
    tcase_add_test(t, a_transfer_ends_soon_behind_the_item);
    tcase_add_test(t, names_and_room_are_bounded);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
