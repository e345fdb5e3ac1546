/*
 * test_ata.c - the ATA command set of a disk, by PIO through the IDE registers: every command, its
 * addresses and errors. (test_piix3_ide.c has the channel and its bus master.)
 */
#include "ide_board.h"

static uint8_t page[64 << 10];

static void setup(void)
{
    ide_setup();
}

static uint16_t word(unsigned n)
{
    return (uint16_t)(page[2 * n] | page[2 * n + 1] << 8);
}

static void identify(void)
{
    outp(IDE0 + DEVICE, 1, 0xa0);
    ck_assert_uint_eq(command(IDE0, 0xec), DRDY | DSC | DRQ);
    read_words(IDE0, page, 512);
    ck_assert_uint_eq(status_of(IDE0), DRDY | DSC);
}

static void expect_text(unsigned first, const char *text, size_t size)
{
    char got[41] = "";
    for (unsigned i = 0; i < size; i++)
        got[i] = (char)page[2 * first + (i ^ 1)];
    while (*got && got[strlen(got) - 1] == ' ')
        got[strlen(got) - 1] = 0;
    ck_assert_str_eq(got, text);
}

START_TEST(identify_says_what_there_is)
{
    uint8_t sum = 0;
    identify();
    ck_assert_uint_eq(word(0), 0x0040);
    ck_assert_uint_eq(word(1), DISK_SECTORS / (16 * 63));
    ck_assert_uint_eq(word(3), 16);
    ck_assert_uint_eq(word(6), 63);
    expect_text(10, "BL00001", 20);
    expect_text(27, "BAILEY HARDDISK", 40);
    ck_assert_uint_eq(word(49) & 0x0300, 0x0300); /* LBA, DMA */
    ck_assert_uint_eq(word(60) | word(61) << 16, DISK_SECTORS);
    ck_assert_uint_eq(word(100), DISK_SECTORS);
    ck_assert_uint_eq(word(83) & 0xc000, 0x4000);
    ck_assert_uint_eq(word(83) & 0x3400, 0x3400);
    ck_assert_uint_eq(word(85) & 0x20, 0x20); /* write cache on */
    ck_assert_uint_eq(word(76), 0);           /* no queueing on IDE */
    ck_assert_uint_eq(word(169), 1);
    ck_assert_uint_eq(word(84) & 0x100, 0x100);
    ck_assert_uint_eq(word(111), 0x5000); /* the world wide name's last word */
    for (unsigned i = 0; i < 512; i++)
        sum = (uint8_t)(sum + page[i]);
    ck_assert_uint_eq(sum, 0);
}
END_TEST

START_TEST(read_and_write_sectors)
{
    for (unsigned ext = 0; ext < 2; ext++) {
        uint32_t lba = 100 + 50 * ext;
        if (ext)
            set_registers_48(IDE0, 3, lba);
        else
            set_registers(IDE0, 0, 3, lba);
        ck_assert_uint_eq(command(IDE0, ext ? 0x24 : 0x20), DRDY | DSC | DRQ);
        read_words(IDE0, page, 3 * 512);
        ck_assert(memcmp(page, hard_disk.bytes + lba * 512, 3 * 512) == 0);
        ck_assert_uint_eq(status_of(IDE0), DRDY | DSC);
        for (unsigned i = 0; i < 2 * 512; i++)
            page[i] = (uint8_t)(i * 7 + ext);
        if (ext)
            set_registers_48(IDE0, 2, 10);
        else
            set_registers(IDE0, 0, 2, 10);
        ck_assert_uint_eq(command(IDE0, ext ? 0x34 : 0x30), DRDY | DSC | DRQ);
        write_words(IDE0, page, 2 * 512);
        ck_assert_uint_eq(status_of(IDE0), DRDY | DSC);
        ck_assert(memcmp(page, hard_disk.bytes + 10 * 512, 2 * 512) == 0);
    }
}
END_TEST

/* A count of 0 is 256 sectors, or 65536. */
START_TEST(a_count_of_zero_is_the_most)
{
    set_registers(IDE0, 0, 0, 0);
    ck_assert(command(IDE0, 0x20) & DRQ);
    for (unsigned i = 0; i < 256; i++) {
        ck_assert(status_of(IDE0) & DRQ);
        read_words(IDE0, page, 512);
        ck_assert(memcmp(page, hard_disk.bytes + i * 512, 512) == 0);
    }
    ck_assert_uint_eq(status_of(IDE0), DRDY | DSC);
    set_registers_48(IDE0, 0, 0); /* more than the disk has */
    ck_assert(command(IDE0, 0x24) & ERR);
    ck_assert_uint_eq(inp(IDE0 + FEATURE, 1), IDNF);
}
END_TEST

START_TEST(multiple)
{
    set_registers(IDE0, 0, 5, 20);
    ck_assert(command(IDE0, 0xc4) & ERR); /* not set */
    ck_assert_uint_eq(inp(IDE0 + FEATURE, 1), ABRT);
    set_registers(IDE0, 0, 3, 0); /* no power of two */
    ck_assert(command(IDE0, 0xc6) & ERR);
    set_registers(IDE0, 0, 4, 0);
    ck_assert_uint_eq(command(IDE0, 0xc6), DRDY | DSC);
    identify();
    ck_assert_uint_eq(word(59), 0x104);
    set_registers(IDE0, 0, 5, 20);
    irq_changes = 0;
    outp(IDE0 + COMMAND, 1, 0xc4);
    disk_settle(&hard_disk);
    for (unsigned i = 0; i < 5 * 256; i++) {
        if (i == 0 || i == 4 * 256) { /* an interrupt for each block: of 4 sectors, of 1 */
            ck_assert(irq_level[14]);
            ck_assert_uint_eq(inp(IDE0 + COMMAND, 1), DRDY | DSC | DRQ);
        }
        ck_assert(!irq_level[14]);
        read_words(IDE0, page + 2 * i, 2);
    }
    ck_assert_uint_eq(irq_changes, 4);
    ck_assert(memcmp(page, hard_disk.bytes + 20 * 512, 5 * 512) == 0);
    set_registers(IDE0, 0, 5, 40);
    ck_assert(command(IDE0, 0xc5) & DRQ);
    write_words(IDE0, page, 5 * 512);
    ck_assert(memcmp(page, hard_disk.bytes + 40 * 512, 5 * 512) == 0);
}
END_TEST

/* PIO data out (9.6): no interrupt for the first block, one for each other, one at the end. */
START_TEST(interrupts_of_a_write)
{
    set_registers(IDE0, 0, 2, 5);
    outp(IDE0 + COMMAND, 1, 0x30);
    ck_assert(!irq_level[14]);
    for (unsigned i = 0; i < 256; i++)
        outp(IDE0, 2, i);
    ck_assert(irq_level[14]);
    ck_assert_uint_eq(inp(IDE0 + COMMAND, 1), DRDY | DSC | DRQ);
    for (unsigned i = 0; i < 256; i++)
        outp(IDE0, 2, i);
    ck_assert(!irq_level[14]);
    ck_assert_uint_eq(status_of(IDE0) & (BSY | DRQ), BSY);
    disk_settle(&hard_disk);
    ck_assert(irq_level[14]);
    ck_assert_uint_eq(inp(IDE0 + COMMAND, 1), DRDY | DSC);
    ck_assert(!irq_level[14]);
}
END_TEST

START_TEST(cylinders_heads_and_sectors)
{
    outp(IDE0 + DEVICE, 1, 0xa3); /* cylinder 2, head 3, sector 4 of 16 heads, 63 sectors */
    outp(IDE0 + COUNT, 1, 1);
    outp(IDE0 + LBA0, 1, 4);
    outp(IDE0 + LBA1, 1, 2);
    outp(IDE0 + LBA2, 1, 0);
    ck_assert(command(IDE0, 0x20) & DRQ);
    read_words(IDE0, page, 512);
    ck_assert(memcmp(page, hard_disk.bytes + ((2 * 16 + 3) * 63 + 3) * 512, 512) == 0);
    outp(IDE0 + DEVICE, 1, 0xa7); /* INITIALIZE DEVICE PARAMETERS: 8 heads, 17 sectors */
    outp(IDE0 + COUNT, 1, 17);
    ck_assert_uint_eq(command(IDE0, 0x91), DRDY | DSC);
    identify();
    ck_assert_uint_eq(word(54), DISK_SECTORS / (8 * 17));
    ck_assert_uint_eq(word(55), 8);
    ck_assert_uint_eq(word(56), 17);
    outp(IDE0 + DEVICE, 1, 0xa3);
    outp(IDE0 + COUNT, 1, 1);
    outp(IDE0 + LBA0, 1, 17);
    outp(IDE0 + LBA1, 1, 9);
    outp(IDE0 + LBA2, 1, 0);
    ck_assert(command(IDE0, 0x20) & DRQ);
    read_words(IDE0, page, 512);
    ck_assert(memcmp(page, hard_disk.bytes + ((9 * 8 + 3) * 17 + 16) * 512, 512) == 0);
    static const uint8_t wrong[][2] = {{0xa3, 0}, {0xa3, 18}, {0xa8, 1}}; /* head, sector */
    for (unsigned i = 0; i < 3; i++) {
        outp(IDE0 + DEVICE, 1, wrong[i][0]);
        outp(IDE0 + LBA0, 1, wrong[i][1]);
        ck_assert(command(IDE0, 0x20) & ERR);
        ck_assert_uint_eq(inp(IDE0 + FEATURE, 1), IDNF);
    }
}
END_TEST

START_TEST(addresses_beyond_the_end)
{
    static const uint8_t commands[] = {0x20, 0x30, 0xc8, 0xca, 0x40};
    for (unsigned i = 0; i < sizeof(commands); i++) {
        set_registers(IDE0, 0, 4, DISK_SECTORS - 2);
        ck_assert_uint_eq(command(IDE0, commands[i]), DRDY | DSC | ERR);
        ck_assert_uint_eq(inp(IDE0 + FEATURE, 1), IDNF);
        ck_assert_uint_eq(lba_of(IDE0), DISK_SECTORS); /* the first that is not there */
        set_registers(IDE0, 0, 1, 0x0fffffff);
        ck_assert(command(IDE0, commands[i]) & ERR);
        ck_assert_uint_eq(lba_of(IDE0), 0x0fffffff);
    }
    set_registers_48(IDE0, 1, 0xffffffffffffull);
    ck_assert(command(IDE0, 0x24) & ERR);
    outp(IDE0 + 0x206, 1, HOB);
    ck_assert_uint_eq(lba_of(IDE0) & 0xffffff, 0xffffff);
    outp(IDE0 + 0x206, 1, 0);
    set_registers(IDE0, 0, 1, DISK_SECTORS - 1); /* and the last is */
    ck_assert(command(IDE0, 0x20) & DRQ);
    ck_assert_str_eq(hard_disk.log, "R");
}
END_TEST

/* What lies before a bad sector is transferred, and the error names it. */
START_TEST(a_bad_sector)
{
    hard_disk.bad_sector = 107;
    set_registers(IDE0, 0, 20, 100);
    uint8_t status = command(IDE0, 0x20);
    for (unsigned i = 0; i < 7; i++) {
        ck_assert_uint_eq(status, DRDY | DSC | DRQ);
        read_words(IDE0, page, 512);
        ck_assert(memcmp(page, hard_disk.bytes + (100 + i) * 512, 512) == 0);
        status = (uint8_t)inp(IDE0 + COMMAND, 1);
    }
    ck_assert_uint_eq(status, DRDY | DSC | ERR);
    ck_assert_uint_eq(inp(IDE0 + FEATURE, 1), UNC);
    ck_assert_uint_eq(lba_of(IDE0), 107);
    set_registers(IDE0, 0, 20, 100);
    ck_assert(command(IDE0, 0x40) & ERR); /* READ VERIFY */
    ck_assert_uint_eq(lba_of(IDE0), 107);
    set_registers(IDE0, 0, 20, 100);
    ck_assert(command(IDE0, 0x30) & DRQ);
    memset(page, 0x5a, 20 * 512);
    write_words(IDE0, page, 20 * 512);
    ck_assert_uint_eq(status_of(IDE0), DRDY | DSC | ERR);
    ck_assert_uint_eq(inp(IDE0 + FEATURE, 1), ABRT);
    ck_assert_uint_eq(lba_of(IDE0), 107);
    ck_assert(memcmp(page, hard_disk.bytes + 100 * 512, 7 * 512) == 0);
    hard_disk.bad_sector = -1;
    set_registers(IDE0, 0, 1, 107); /* and it works again */
    ck_assert_uint_eq(command(IDE0, 0x20), DRDY | DSC | DRQ);
}
END_TEST

START_TEST(flush_and_write_cache)
{
    ck_assert_uint_eq(command(IDE0, 0xe7), DRDY | DSC);
    ck_assert_uint_eq(command(IDE0, 0xea), DRDY | DSC);
    ck_assert_str_eq(hard_disk.log, "FF");
    outp(IDE0 + COMMAND, 1, 0xe7);
    ck_assert_uint_eq(status_of(IDE0) & (BSY | DRQ), BSY); /* not before it is on the disk */
    ck_assert(!irq_level[14]);
    disk_settle(&hard_disk);
    ck_assert(irq_level[14]);
    hard_disk.flush_result = -EIO;
    ck_assert(command(IDE0, 0xe7) & ERR);
    ck_assert_uint_eq(inp(IDE0 + FEATURE, 1), ABRT);
    hard_disk.flush_result = 0;
    *hard_disk.log = 0;
    set_registers(IDE0, 0x82, 0, 0);
    ck_assert_uint_eq(command(IDE0, 0xef), DRDY | DSC);
    ck_assert_str_eq(hard_disk.log, "F"); /* what was acknowledged is on the disk now */
    ck_assert(!hard_disk.cache);
    identify();
    ck_assert_uint_eq(word(85) & 0x20, 0);
    set_registers(IDE0, 0x02, 0, 0);
    ck_assert_uint_eq(command(IDE0, 0xef), DRDY | DSC);
    ck_assert(hard_disk.cache);
    set_registers(IDE0, 0x82, 0, 0);
    command(IDE0, 0xef);
    disk_drive->reset(disk_drive);
    ck_assert(hard_disk.cache); /* a reset goes back to what cache= says */
}
END_TEST

START_TEST(forced_writes_are_flushed)
{
    set_registers(IDE0, 0, 1, 0);
    command(IDE0, 0xc6);
    set_registers_48(IDE0, 1, 3);
    ck_assert(command(IDE0, 0xce) & DRQ); /* WRITE MULTIPLE FUA EXT */
    write_words(IDE0, page, 512);
    ck_assert_str_eq(hard_disk.log, "WF");
    ck_assert_uint_eq(status_of(IDE0), DRDY | DSC);
}
END_TEST

START_TEST(a_read_only_disk)
{
    hard_disk.read_only = true;
    set_registers(IDE0, 0, 1, 3);
    ck_assert(command(IDE0, 0x30) & ERR);
    ck_assert_uint_eq(inp(IDE0 + FEATURE, 1), ABRT);
    set_registers(IDE0, 1, 1, 0);
    ck_assert(command(IDE0, 0x06) & ERR);
    ck_assert_str_eq(hard_disk.log, "");
}
END_TEST

static void set_field(const char *name, uint64_t value)
{
    const struct state_desc *state = disk_drive->state;
    for (size_t i = 0; i < state->field_count; i++)
        if (strcmp(state->fields[i].name, name) == 0)
            field_set(&state->fields[i], disk_drive, 0, value);
}

/* A saved state that nobody has made: the drive is as after a reset. */
START_TEST(a_state_that_cannot_be_is_a_reset)
{
    static const struct {
        const char *field;
        uint64_t value;
    } wrong[] = {
        {"heads", 0},           {"track_sectors", 0}, {"flow", 200}, {"pos", 0x7fffffff},
        {"filled", 0x7fffffff}, {"block_size", 0},    {"left", 0},   {"lba", 0xffffffffffffff},
        {"phase", 1},           {"phase", 3},         {"phase", 77}, {"queued_failed", 4000}};
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        set_registers(IDE0, 0, 2, 3);
        ck_assert(command(IDE0, 0x20) & DRQ); /* in the middle of a read */
        disk_drive->restored(disk_drive);
        ck_assert(status_of(IDE0) & DRQ); /* that one can be */
        set_field(wrong[i].field, wrong[i].value);
        disk_drive->restored(disk_drive);
        ck_assert_msg(status_of(IDE0) == (DRDY | DSC), "%s %#x", wrong[i].field, status_of(IDE0));
        ck_assert_uint_eq(inp(IDE0 + LBA0, 1), 1); /* the signature */
    }
}
END_TEST

START_TEST(transfer_modes)
{
    static const struct {
        uint8_t mode;
        unsigned index, bits; /* IDENTIFY word and its selected bits; 0: refused or PIO */
    } cases[] = {{0x0c, 0, 0}, {0x22, 63, 0x0407}, {0x45, 88, 0x203f}, {0x40, 88, 0x013f}};
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        set_registers(IDE0, 3, cases[i].mode, 0);
        ck_assert_uint_eq(command(IDE0, 0xef), DRDY | DSC);
        identify();
        if (cases[i].index)
            ck_assert_uint_eq(word(cases[i].index), cases[i].bits);
    }
    static const uint8_t wrong[] = {0x0d, 0x23, 0x46, 0x10, 0xff};
    for (unsigned i = 0; i < sizeof(wrong); i++) {
        set_registers(IDE0, 3, wrong[i], 0);
        ck_assert(command(IDE0, 0xef) & ERR);
    }
    set_registers(IDE0, 0x77, 0, 0);
    ck_assert(command(IDE0, 0xef) & ERR);
}
END_TEST

START_TEST(power)
{
    static const uint8_t numbers[2][3] = {{0xe0, 0xe5, 0xe1}, {0x94, 0x98, 0x95}};
    for (unsigned i = 0; i < 2; i++) {
        ck_assert_uint_eq(command(IDE0, numbers[i][1]), DRDY | DSC);
        ck_assert_uint_eq(inp(IDE0 + COUNT, 1), 0xff);
        ck_assert_uint_eq(command(IDE0, numbers[i][0]), DRDY | DSC);
        ck_assert_str_eq(hard_disk.log + i, "F");
        ck_assert_uint_eq(command(IDE0, numbers[i][1]), DRDY | DSC);
        ck_assert_uint_eq(inp(IDE0 + COUNT, 1), 0x00);
        ck_assert_uint_eq(command(IDE0, numbers[i][2]), DRDY | DSC);
    }
}
END_TEST

static void set_trim(uint8_t feature, uint8_t blocks)
{
    set_registers_48(IDE0, blocks, 0);
    outp(IDE0 + FEATURE, 1, 0);
    outp(IDE0 + FEATURE, 1, feature);
}

START_TEST(trim)
{
    memset(page, 0, sizeof(page));
    page[0] = 100; /* sectors 100 to 109 */
    page[6] = 10;
    page[8] = 200; /* sector 200 */
    page[14] = 1;
    page[512 - 8] = 44; /* none */
    set_prd(0, DATA_AT, 512 | LAST);
    for (unsigned i = 0; i < 512; i++)
        mem_out(DATA_AT + i, 1, page[i]);
    set_trim(1, 1);
    outp(IDE0 + COMMAND, 1, 0x06);
    start_engine(0, false);
    disk_settle(&hard_disk);
    ck_assert_uint_eq(status_of(IDE0), DRDY | DSC);
    ck_assert_str_eq(hard_disk.log, "DD");
    for (unsigned i = 0; i < 512; i++) {
        ck_assert_uint_eq(hard_disk.bytes[100 * 512 + i], 0);
        ck_assert_uint_eq(hard_disk.bytes[109 * 512 + i], 0);
        ck_assert_uint_eq(hard_disk.bytes[200 * 512 + i], 0);
    }
    ck_assert_uint_ne(hard_disk.bytes[110 * 512 + 1], 0);
    mem_out(DATA_AT + 8, 2, DISK_SECTORS); /* one range too far: none is discarded */
    *hard_disk.log = 0;
    outp(bm + BM_COMMAND, 1, 0);
    set_trim(1, 1);
    outp(IDE0 + COMMAND, 1, 0x06);
    start_engine(0, false);
    disk_settle(&hard_disk);
    ck_assert_uint_eq(status_of(IDE0), DRDY | DSC | ERR);
    ck_assert_str_eq(hard_disk.log, "");
    set_trim(1, 9); /* more blocks than IDENTIFY says */
    ck_assert(command(IDE0, 0x06) & ERR);
    set_trim(0, 1); /* not TRIM */
    ck_assert(command(IDE0, 0x06) & ERR);
}
END_TEST

static uint8_t smart(uint8_t feature, uint8_t log)
{
    set_registers(IDE0, feature, 1, 0xc24f00u | log);
    return command(IDE0, 0xb0);
}

START_TEST(smart_of_a_good_disk)
{
    static const struct {
        uint8_t feature, log;
    } pages[] = {{0xd0, 0}, {0xd1, 0}, {0xd5, 1}, {0xd5, 6}};
    for (unsigned i = 0; i < 4; i++) {
        uint8_t sum = 0;
        ck_assert_uint_eq(smart(pages[i].feature, pages[i].log), DRDY | DSC | DRQ);
        read_words(IDE0, page, 512);
        for (unsigned b = 0; b < 512; b++)
            sum = (uint8_t)(sum + page[b]);
        ck_assert_uint_eq(sum, 0);
    }
    ck_assert_uint_eq(smart(0xda, 0), DRDY | DSC);
    ck_assert_uint_eq(lba_of(IDE0) >> 8 & 0xffff, 0xc24f); /* nothing exceeded */
    ck_assert_uint_eq(smart(0xd9, 0), DRDY | DSC);
    ck_assert(smart(0xda, 0) & ERR); /* disabled */
    ck_assert_uint_eq(smart(0xd8, 0), DRDY | DSC);
    ck_assert_uint_eq(smart(0xda, 0), DRDY | DSC);
    ck_assert(smart(0xd5, 9) & ERR);
    ck_assert(smart(0x12, 0) & ERR);
    set_registers(IDE0, 0xda, 0, 0); /* without the key */
    ck_assert(command(IDE0, 0xb0) & ERR);
}
END_TEST

START_TEST(native_maximum)
{
    outp(IDE0 + DEVICE, 1, LBA_MODE);
    ck_assert_uint_eq(command(IDE0, 0xf8), DRDY | DSC);
    ck_assert_uint_eq(lba_of(IDE0), DISK_SECTORS - 1);
    ck_assert_uint_eq(command(IDE0, 0x27), DRDY | DSC);
    ck_assert_uint_eq(lba_of(IDE0) & 0xffffff, DISK_SECTORS - 1);
}
END_TEST

/* Every other command is aborted, and harms nothing. */
START_TEST(what_is_not_supported)
{
    static const uint8_t known[] = {0x06, 0x10, 0x20, 0x21, 0x24, 0x25, 0x27, 0x29, 0x2f, 0x30,
                                    0x31, 0x34, 0x35, 0x39, 0x3d, 0x40, 0x41, 0x42, 0x70, 0x90,
                                    0x91, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0xb0, 0xc4, 0xc5,
                                    0xc6, 0xc8, 0xc9, 0xca, 0xcb, 0xce, 0xe0, 0xe1, 0xe2, 0xe3,
                                    0xe5, 0xe6, 0xe7, 0xea, 0xec, 0xef, 0xf8};
    for (unsigned number = 0; number < 256; number++) {
        if (memchr(known, (int)number, sizeof(known)))
            continue;
        set_registers(IDE0, 0, 1, 1);
        ck_assert_msg(command(IDE0, (uint8_t)number) == (DRDY | DSC | ERR), "%#x", number);
        ck_assert_uint_eq(inp(IDE0 + FEATURE, 1), ABRT);
    }
    ck_assert_str_eq(hard_disk.log, "");
    identify();
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {identify_says_what_there_is,
                                  read_and_write_sectors,
                                  a_count_of_zero_is_the_most,
                                  multiple,
                                  interrupts_of_a_write,
                                  cylinders_heads_and_sectors,
                                  addresses_beyond_the_end,
                                  a_bad_sector,
                                  flush_and_write_cache,
                                  forced_writes_are_flushed,
                                  a_read_only_disk,
                                  a_state_that_cannot_be_is_a_reset,
                                  transfer_modes,
                                  power,
                                  trim,
                                  smart_of_a_good_disk,
                                  native_maximum,
                                  what_is_not_supported};
    Suite *suite = suite_create("ata");
    TCase *tcase = tcase_create("ata");
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
