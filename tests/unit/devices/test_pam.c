/*
 * test_pam.c - shadow RAM: every segment of C0000h-FFFFFh in each of the four states of its
 * attributes, by the registers of the host bridge.
 */
#include "pci_board.h"

enum { BIOS = 256 << 10, HOST = PCI_DEVFN(0, 0) };

static struct ram_block *memory, *bios;

/* RAM holds 11h everywhere, the BIOS 22h, and its last 128 KiB 33h. The board's own RAM, which lies
 * beneath, is what a test must not see. */
static void setup(void)
{
    struct error err = {""};
    board_setup();
    memory = phys_ram_new(board.map, 1 << 20, &err);
    bios = phys_rom_new(board.map, BIOS, NULL, 0, &err);
    memset(phys_block_bytes(memory), 0x11, 1 << 20);
    memset(phys_block_bytes(bios), 0x22, BIOS / 2);
    memset(phys_block_bytes(bios) + BIOS / 2, 0x33, BIOS / 2);
}

static uint8_t get(uint64_t gpa)
{
    uint8_t value = 0;
    phys_read(board.map, &cpu_access, gpa, &value, 1);
    return value;
}
static void put(uint64_t gpa, uint8_t value)
{
    phys_write(board.map, &cpu_access, gpa, &value, 1);
}

static void set_attributes(unsigned segment, unsigned bits)
{
    unsigned nibble = segment ? segment + 1 : 1;
    uint32_t old = config_in(HOST, 0x59 + nibble / 2, 1);
    old = (old & ~(0xfu << 4 * (nibble & 1))) | bits << 4 * (nibble & 1);
    config_out(HOST, 0x59 + nibble / 2, 1, old);
}

START_TEST(each_segment_has_four_states)
{
    struct error err = {""};
    ck_assert(i440fx_connect_memory(bus, memory, bios, BIOS, &err));
    for (unsigned i = 0; i < 13; i++) {
        uint32_t start = i ? 0xc0000 + (i - 1) * 0x4000 : 0xf0000, size = i ? 0x4000 : 0x10000;
        const uint32_t at[] = {start, start + size - 1};
        const bool has_rom = start >= 0xe0000;
        for (unsigned k = 0; k < 2; k++) {
            uint8_t *ram = phys_block_bytes(memory) + at[k];
            set_attributes(i, 0);
            /* Where there is no ROM the test board's RAM shows through; on a PC nothing does. */
            ck_assert_uint_eq(get(at[k]), has_rom ? 0x33 : 0);
            put(at[k], has_rom ? 0x44 : 0);
            ck_assert_uint_eq(*ram, 0x11);
            set_attributes(i, 2); /* write only: what a BIOS copies itself by */
            ck_assert_uint_eq(get(at[k]), has_rom ? 0x33 : 0xff);
            put(at[k], 0x55);
            ck_assert_uint_eq(get(at[k]), has_rom ? 0x33 : 0xff);
            ck_assert_uint_eq(*ram, 0x55);
            set_attributes(i, 1); /* read only */
            ck_assert_uint_eq(get(at[k]), 0x55);
            put(at[k], 0x66);
            ck_assert_uint_eq(get(at[k]), 0x55);
            set_attributes(i, 3);
            put(at[k], 0x77);
            ck_assert_uint_eq(get(at[k]), 0x77);
            ck_assert_uint_eq(*ram, 0x77);
        }
    }
    /* A reset closes them all. */
    bus->host->dev.reset(&bus->host->dev);
    ck_assert_uint_eq(get(0xf0000), 0x33);
    ck_assert_uint_eq(get(0xe4000), 0x33);
    i440fx_open_shadow(bus);
    ck_assert_uint_eq(get(0xfffff), 0x77);
    ck_assert_uint_eq(get(0xe0000), 0x77);
    ck_assert_uint_eq(get(0xdffff), 0);
}
END_TEST

/* A rule is the RAM's, and holds where nobody can see it. */
START_TEST(rules_hold_beneath)
{
    struct error err = {""};
    ck_assert(i440fx_connect_memory(bus, memory, bios, BIOS, &err));
    set_attributes(0, 3);
    *phys_frame_attr(board.map, 0xf1000) |= FRAME_RULED;
    set_attributes(0, 2);
    put(0xf0fff, 0x99);
    put(0xf1000, 0x99);
    ck_assert_uint_eq(phys_block_bytes(memory)[0xf0fff], 0x99);
    ck_assert_uint_eq(phys_block_bytes(memory)[0xf1000], 0x11);
}
END_TEST

START_TEST(no_bios_is_no_harm)
{
    struct error err = {""};
    ck_assert(i440fx_connect_memory(bus, memory, NULL, 0, &err));
    set_attributes(0, 3);
    put(0xf0000, 1);
    ck_assert_uint_eq(phys_block_bytes(memory)[0xf0000], 1);
    set_attributes(0, 0); /* the board's RAM shows through */
    ck_assert_uint_eq(get(0xf0000), 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("pam");
    TCase *t = tcase_create("pam");
    tcase_add_checked_fixture(t, setup, board_teardown);
    tcase_add_test(t, each_segment_has_four_states);
    tcase_add_test(t, rules_hold_beneath);
    tcase_add_test(t, no_bios_is_no_harm);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
