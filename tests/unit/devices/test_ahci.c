/*
 * test_ahci.c - the AHCI controller: registers, command lists, FISes, queued commands, errors and
 * resets, with a disk at port 0 and a CD-ROM drive at port 3.
 */
#include "pci_board.h"

#include "fake_disk.h"
#include "internal/ata.h"
#include "kept_page.h"

enum { CAP = 0, GHC = 4, IS = 8, PI = 12, VS = 16 };
enum {
    P_CLB = 0x00,
    P_FB = 0x08,
    P_IS = 0x10,
    P_IE = 0x14,
    P_CMD = 0x18,
    P_TFD = 0x20,
    P_SIG = 0x24,
    P_SSTS = 0x28,
    P_SCTL = 0x2c,
    P_SACT = 0x34,
    P_CI = 0x38,
};
enum { DHRS = 1, PSS = 2, SDBS = 8, DPS = 32, OFS = 1 << 24, IFS = 1 << 27 };
#define HBDS (1u << 28)
#define HBFS (1u << 29)
#define TFES (1u << 30)
enum { ST = 1, CLO = 8, FRE = 16, FR = 1 << 14, CR = 1 << 15 };
#define LIST_AT  0x10000
#define FIS_AT   0x11000
#define TABLE_AT 0x20000 /* + 1000h * slot */
#define DATA_AT  0x100000
#define NOWHERE  0x40000000
enum { READY = 0x50, FAILED = 0x51 };

static struct blockdev hard_disk, disc;
static struct pci_device *ahci;
static struct device *disk_drive, *cd_drive;
static uint64_t abar;

static uint32_t reg(unsigned offset)
{
    return (uint32_t)mem_in(abar + offset, 4);
}
static void set_reg(unsigned offset, uint32_t value)
{
    mem_out(abar + offset, 4, value);
}
static uint32_t port(unsigned n, unsigned offset)
{
    return reg(0x100 + 0x80 * n + offset);
}
static void set_port(unsigned n, unsigned offset, uint32_t value)
{
    set_reg(0x100 + 0x80 * n + offset, value);
}

static void start_port(unsigned n)
{
    set_port(n, P_CLB, LIST_AT + 0x400 * n);
    set_port(n, P_FB, FIS_AT + 0x100 * n);
    set_port(n, P_CMD, FRE);
    set_port(n, P_CMD, FRE | ST);
    set_port(n, P_IS, UINT32_MAX);
}

static void setup(void)
{
    struct error err = {""};
    board_setup();
    disk_init(&hard_disk);
    disk_init(&disc);
    ahci = ahci_create(bus, PCI_FIRST_FREE, &err);
    ck_assert_msg(ahci != NULL, "%s", err.msg);
    const struct ata_drive_options disk_options = {.disk = &hard_disk, .number = 1};
    const struct ata_drive_options cd_options = {.cdrom = true, .disk = &disc, .number = 2};
    disk_drive = ata_drive_create(ahci_host(ahci, 0), 0, &disk_options, &err);
    cd_drive = ata_drive_create(ahci_host(ahci, 3), 0, &cd_options, &err);
    ck_assert_msg(disk_drive && cd_drive, "%s", err.msg);
    ck_assert(pci_assign_resources(bus, MEM_WINDOW, MEM_END, &err));
    config_out(ahci->devfn, PCI_COMMAND, 2, 7);
    abar = config_in(ahci->devfn, PCI_BAR0 + 20, 4);
    set_reg(GHC, 0x80000002);
    start_port(0);
    start_port(3);
}

static void teardown(void)
{
    disk_settle(&hard_disk);
    disk_settle(&disc);
    if (disk_drive)
        disk_drive->destroy(disk_drive);
    cd_drive->destroy(cd_drive);
    ahci->dev.destroy(&ahci->dev);
    board_teardown();
}

/* ---- Commands ----------------------------------------------------------------------------------
 */

static uint64_t table_of(unsigned n, unsigned slot)
{
    return TABLE_AT + 0x20000 * n + 0x1000 * slot;
}

static void set_header(unsigned n, unsigned slot, unsigned entries, bool write)
{
    uint64_t at = LIST_AT + 0x400 * n + 32 * slot;
    mem_out(at, 4, 5 | (write ? 0x40 : 0) | entries << 16);
    mem_out(at + 4, 4, 0xdeadbeef);
    mem_out(at + 8, 8, table_of(n, slot));
}

static void set_fis(unsigned n, unsigned slot, uint8_t command, uint16_t feature, uint64_t lba,
                    uint16_t count)
{
    const uint8_t fis[20] = {0x27,
                             0x80,
                             command,
                             (uint8_t)feature,
                             (uint8_t)lba,
                             (uint8_t)(lba >> 8),
                             (uint8_t)(lba >> 16),
                             0x40,
                             (uint8_t)(lba >> 24),
                             (uint8_t)(lba >> 32),
                             (uint8_t)(lba >> 40),
                             (uint8_t)(feature >> 8),
                             (uint8_t)count,
                             (uint8_t)(count >> 8)};
    for (unsigned i = 0; i < 20; i++)
        mem_out(table_of(n, slot) + i, 1, fis[i]);
}

static void set_prd(unsigned n, unsigned slot, unsigned index, uint64_t address, uint32_t bytes)
{
    uint64_t at = table_of(n, slot) + 0x80 + 16 * index;
    mem_out(at, 8, address);
    mem_out(at + 12, 4, bytes - 1);
}

static uint32_t moved(unsigned n, unsigned slot)
{
    return (uint32_t)mem_in(LIST_AT + 0x400 * n + 32 * slot + 4, 4);
}

static uint8_t fis_byte(unsigned n, unsigned at)
{
    return (uint8_t)mem_in(FIS_AT + 0x100 * n + at, 1);
}

static void issue(unsigned n, unsigned slot)
{
    set_port(n, P_CI, 1u << slot);
    disk_settle(n == 0 ? &hard_disk : &disc);
}

/* A command in slot 0 with its data at DATA_AT. */
static void run(unsigned n, uint8_t command, uint64_t lba, uint16_t count, uint32_t bytes,
                bool write)
{
    set_header(n, 0, bytes ? 1 : 0, write);
    set_fis(n, 0, command, 0, lba, count);
    set_prd(n, 0, 0, DATA_AT, bytes ? bytes : 2);
    issue(n, 0);
}

static void queue(unsigned slot, bool write, uint64_t lba, uint16_t sectors, uint64_t data)
{
    set_header(0, slot, 1, write);
    set_fis(0, slot, write ? 0x61 : 0x60, sectors, lba, (uint16_t)(slot << 3));
    set_prd(0, slot, 0, data, sectors * 512u);
    set_port(0, P_SACT, 1u << slot);
    set_port(0, P_CI, 1u << slot);
}

static void expect_data(uint64_t at, const uint8_t *bytes, unsigned len)
{
    for (unsigned i = 0; i < len; i++)
        ck_assert_msg(mem_in(at + i, 1) == bytes[i], "byte %u", i);
}

static void recover(unsigned n)
{
    set_port(n, P_CMD, FRE);
    ck_assert_uint_eq(port(n, P_CI), 0);
    set_port(n, P_IS, UINT32_MAX);
    set_port(n, P_CMD, FRE | ST);
}

/* ---- Tests -------------------------------------------------------------------------------------
 */

START_TEST(registers_at_the_start)
{
    ck_assert_uint_eq(config_in(ahci->devfn, 0, 4), 0x29228086);
    ck_assert_uint_eq(config_in(ahci->devfn, 8, 4), 0x01060102);
    ck_assert_uint_eq(reg(CAP) & 31, AHCI_PORTS - 1);
    ck_assert_uint_eq(reg(CAP) >> 8 & 31, 31);
    ck_assert_uint_eq(reg(CAP) >> 30, 3); /* 64-bit addresses, queueing */
    ck_assert_uint_eq(reg(PI), 0x3f);
    ck_assert_uint_eq(port(0, P_SSTS), 0x113);
    ck_assert_uint_eq(port(0, P_SIG), 0x00000101);
    ck_assert_uint_eq(port(0, P_TFD), 0x0150);
    ck_assert_uint_eq(port(3, P_SIG), 0xeb140101);
    ck_assert_uint_eq(port(3, P_TFD), 0x0100);
    ck_assert_uint_eq(port(1, P_SSTS), 0); /* nothing there */
    ck_assert_uint_eq(port(1, P_TFD), 0x7f);
    ck_assert_uint_eq(port(1, P_SIG), 0xffffffff);
    ck_assert_uint_eq(port(0, P_CMD) & (ST | FRE | FR | CR), ST | FRE | FR | CR);
    set_port(1, P_CMD, ST | FRE);
    set_port(1, P_CI, 1);
    ck_assert_uint_eq(port(1, P_CI), 1);                           /* waits for a device */
    ck_assert_uint_eq(reg(0x400), 0);                              /* beyond the last port */
    uint32_t bar = config_in(ahci->devfn, PCI_BAR0 + 16, 4) & ~3u; /* index and data */
    outp((uint16_t)(bar + 0x10), 4, 0x124);
    ck_assert_uint_eq(inp((uint16_t)(bar + 0x14), 4), 0x00000101);
}
END_TEST

START_TEST(identify_by_pio)
{
    set_port(0, P_IE, PSS);
    run(0, 0xec, 0, 0, 512, false);
    ck_assert_uint_eq(port(0, P_CI), 0);
    ck_assert_uint_eq(port(0, P_IS), PSS); /* no register FIS after data in by PIO */
    ck_assert_uint_eq(port(0, P_TFD), READY);
    ck_assert_uint_eq(reg(IS), 1);
    ck_assert_uint_eq(fis_byte(0, 0x20), 0x5f);
    ck_assert_uint_eq(fis_byte(0, 0x21), 0x60); /* interrupt, to the host */
    ck_assert_uint_eq(fis_byte(0, 0x22), 0x58); /* DRDY, DSC, DRQ */
    ck_assert_uint_eq(fis_byte(0, 0x20 + 15), READY);
    ck_assert_uint_eq(fis_byte(0, 0x20 + 16) | fis_byte(0, 0x20 + 17) << 8, 512);
    ck_assert_uint_eq(moved(0, 0), 512);
    ck_assert_uint_eq(mem_in(DATA_AT, 2), 0x0040);
    ck_assert_uint_eq(mem_in(DATA_AT + 2 * 75, 2), 31);
    ck_assert_uint_eq(mem_in(DATA_AT + 2 * 76, 2) & 0x100, 0x100);
    ck_assert_uint_eq(mem_in(DATA_AT + 2 * 93, 2), 0);
}
END_TEST

START_TEST(read_and_write_by_dma)
{
    set_header(0, 0, 3, false);
    set_fis(0, 0, 0x25, 0, 1000, 600);
    set_prd(0, 0, 0, DATA_AT, 1000);
    set_prd(0, 0, 1, DATA_AT + 0x2000, 65536 + 24);
    set_prd(0, 0, 2, DATA_AT + 0x40000, 600 * 512);
    mem_out(table_of(0, 0) + 0x80 + 16 + 12, 4, (65536 + 24 - 1) | 0x80000000u);
    issue(0, 0);
    ck_assert_uint_eq(port(0, P_IS), DHRS | DPS);
    ck_assert_uint_eq(port(0, P_TFD), READY);
    ck_assert_uint_eq(moved(0, 0), 600 * 512);
    expect_data(DATA_AT, hard_disk.bytes + 1000 * 512, 1000);
    expect_data(DATA_AT + 0x2000, hard_disk.bytes + 1000 * 512 + 1000, 65560);
    expect_data(DATA_AT + 0x40000, hard_disk.bytes + 1000 * 512 + 66560, 600 * 512 - 66560);
    ck_assert_uint_eq(fis_byte(0, 0x40), 0x34);
    ck_assert_uint_eq(fis_byte(0, 0x41), 0x40);
    ck_assert_uint_eq(fis_byte(0, 0x42), READY);
    for (unsigned i = 0; i < 2048; i++)
        mem_out(DATA_AT + i, 1, (uint8_t)(i * 5));
    run(0, 0x35, 4000, 4, 2048, true);
    ck_assert_uint_eq(moved(0, 0), 2048);
    for (unsigned i = 0; i < 2048; i++)
        ck_assert_uint_eq(hard_disk.bytes[4000 * 512 + i], (uint8_t)(i * 5));
    run(0, 0x30, 5000, 4, 2048, true); /* and by PIO */
    ck_assert_uint_eq(port(0, P_TFD), READY);
    ck_assert(memcmp(hard_disk.bytes + 5000 * 512, hard_disk.bytes + 4000 * 512, 2048) == 0);
    run(0, 0xea, 0, 0, 0, false);
    ck_assert_uint_eq(hard_disk.log[strlen(hard_disk.log) - 1], 'F');
    ck_assert_uint_eq(moved(0, 0), 0);
}
END_TEST

static const struct field *field(const char *name)
{
    const struct state_desc *state = ahci->dev.state;
    for (size_t i = 0; i < state->field_count; i++)
        if (strcmp(state->fields[i].name, name) == 0)
            return &state->fields[i];
    ck_abort_msg("there is no field %s", name);
}

/* Two chunks of the drive's and two descriptors: between them the fields say where it is. */
START_TEST(fields_say_where_a_command_is)
{
    enum { CHUNK = 512 << 10, FIRST = 400 << 10, SECTORS = 1100 };
    hard_disk.never_lent = true;
    set_header(0, 2, 2, false);
    set_fis(0, 2, 0x25, 0, 0, SECTORS);
    set_prd(0, 2, 0, DATA_AT, FIRST);
    set_prd(0, 2, 1, DATA_AT + FIRST, SECTORS * 512 - FIRST);
    set_port(0, P_CI, 1u << 2);
    disk_complete(&hard_disk, 0);
    ck_assert_uint_eq(field_get(field("ports[0].slot"), ahci, 0), 2);
    ck_assert_uint_eq(field_get(field("ports[0].slots.entry"), ahci, 2), 1);
    ck_assert_uint_eq(field_get(field("ports[0].slots.in_entry"), ahci, 2), CHUNK - FIRST);
    ck_assert_uint_eq(field_get(field("ports[0].slots.moved"), ahci, 2), CHUNK);
    field_set(field("ports[0].slots.in_entry"), ahci, 2, CHUNK - FIRST + 512);
    disk_settle(&hard_disk); /* and it goes by them */
    for (unsigned i = CHUNK; i < CHUNK + 1024; i++)
        ck_assert_uint_eq(mem_in(DATA_AT + 512 + i, 1), hard_disk.bytes[i]);
    field_set(field("ports[0].slot"), ahci, 0, 77); /* there is no such slot */
    ahci->dev.restored(&ahci->dev);
    ck_assert_uint_eq(field_get(field("ports[0].slot"), ahci, 0), 0xff);
}
END_TEST

/* ---- With the guest's memory lent to the image ---- */

START_TEST(lent_without_a_copy)
{
    const bool write = _i;
    set_header(0, 0, 2, write);
    set_fis(0, 0, write ? 0x35 : 0x25, 0, 64, 24);
    set_prd(0, 0, 0, DATA_AT + 0x3000, 4096);
    set_prd(0, 0, 1, DATA_AT, 8192);
    mem_out(table_of(0, 0) + 0x80 + 16 + 12, 4, 8191 | 0x80000000u);
    set_port(0, P_CI, 1);
    ck_assert_int_eq(hard_disk.waiting[0]->iovcnt, 2);
    ck_assert(*phys_frame_attr(board.map, DATA_AT) & FRAME_LENT);
    ck_assert_uint_eq(port(0, P_TFD) & 0x80, 0x80);
    disk_settle(&hard_disk);
    ck_assert(!(*phys_frame_attr(board.map, DATA_AT) & FRAME_LENT));
    ck_assert_uint_eq(moved(0, 0), 3 * 4096);
    ck_assert_uint_eq(port(0, P_IS), DHRS | DPS);
    ck_assert_uint_eq(port(0, P_TFD), READY);
    expect_data(DATA_AT + 0x3000, hard_disk.bytes + 64 * 512, 4096);
    expect_data(DATA_AT, hard_disk.bytes + 72 * 512, 8192);
    ck_assert_uint_eq(hard_disk.bytes[64 * 512] == 0, write);
}
END_TEST

/* Sixteen more than what is lent at once: another piece, and what is not a whole page is copied. */
START_TEST(queued_and_lent)
{
    enum { SECTORS = 2048 + 16 + 1 };
    const bool write = _i;
    for (unsigned i = 0; i < SECTORS * 512; i += 4)
        mem_out(DATA_AT + i, 4, i * 2654435761u);
    queue(3, write, 1000, SECTORS, DATA_AT);
    ck_assert_uint_eq(hard_disk.waiting[0]->len, 2048 * 512);
    disk_settle(&hard_disk);
    ck_assert_uint_eq(port(0, P_SACT), 0);
    ck_assert_uint_eq(moved(0, 3), SECTORS * 512);
    ck_assert_str_eq(hard_disk.log, write ? "WWW" : "RRR");
    for (unsigned i = 0; i < SECTORS * 512; i += 97)
        ck_assert_uint_eq(mem_in(DATA_AT + i, 1), hard_disk.bytes[1000 * 512 + i]);
}
END_TEST

START_TEST(a_lent_queued_command_fails)
{
    hard_disk.bad_sector = 205;
    queue(5, false, 200, 16, DATA_AT);
    disk_settle(&hard_disk);
    ck_assert_uint_eq(port(0, P_IS) & (TFES | SDBS), TFES | SDBS);
    ck_assert_uint_eq(port(0, P_TFD), FAILED | 0x40 << 8);
    expect_data(DATA_AT, hard_disk.bytes + 200 * 512, 5 * 512);
}
END_TEST

/* Clearing ST, a reset of the port and the drive's end leave the guest's memory alone. */
START_TEST(lent_memory_is_left_alone)
{
    const bool queued = _i & 1;
    if (queued) {
        queue(4, false, 64, 16, DATA_AT);
    } else {
        set_header(0, 4, 1, false);
        set_fis(0, 4, 0x25, 0, 64, 16);
        set_prd(0, 4, 0, DATA_AT, 8192);
        set_port(0, P_CI, 1 << 4);
    }
    ck_assert(*phys_frame_attr(board.map, DATA_AT) & FRAME_LENT_WRITE);
    if (_i < 2) {
        set_port(0, P_CMD, FRE);
    } else if (_i < 4) {
        set_port(0, P_SCTL, 1);
        set_port(0, P_SCTL, 0);
    } else if (_i < 6) {
        config_out(ahci->devfn, PCI_COMMAND, 2, 3); /* no bus master any more */
    } else {
        disk_drive->destroy(disk_drive);
        disk_drive = NULL;
    }
    ck_assert(!(*phys_frame_attr(board.map, DATA_AT) & FRAME_LENT));
    mem_out(DATA_AT, 8, 0x3c3c3c3c3c3c3c3c);
    disk_settle(&hard_disk);
    ck_assert_uint_eq(mem_in(DATA_AT, 8), 0x3c3c3c3c3c3c3c3c);
}
END_TEST

/* One at a time, in the order of slots. */
START_TEST(several_slots)
{
    static const unsigned slots[] = {3, 7, 31};
    uint32_t mask = 0;
    for (unsigned i = 0; i < 3; i++) {
        set_header(0, slots[i], 1, false);
        set_fis(0, slots[i], 0x25, 0, 10 * i, 1);
        set_prd(0, slots[i], 0, DATA_AT + 512 * i, 512);
        mask |= 1u << slots[i];
    }
    set_port(0, P_CI, mask);
    ck_assert_uint_eq(hard_disk.count, 1);
    ck_assert_uint_eq(port(0, P_TFD) & 0x80, 0x80);
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_uint_eq(port(0, P_CI), mask);
        ck_assert_uint_eq(port(0, P_CMD) >> 8 & 31, slots[i]);
        disk_complete(&hard_disk, 0);
        mask &= ~(1u << slots[i]);
        expect_data(DATA_AT + 512 * i, hard_disk.bytes + 10 * i * 512, 512);
    }
    ck_assert_uint_eq(port(0, P_CI), 0);
}
END_TEST

START_TEST(queued_commands_in_any_order)
{
    for (unsigned slot = 0; slot < 32; slot++)
        queue(slot, slot % 2, 100 + slot * 10, 2, DATA_AT + slot * 1024);
    ck_assert_uint_eq(hard_disk.count, 32);
    ck_assert_uint_eq(port(0, P_CI), 0); /* the drive has them all */
    ck_assert_uint_eq(port(0, P_SACT), 0xffffffff);
    disk_complete(&hard_disk, 20);
    ck_assert_uint_eq(port(0, P_SACT), 0xffffffff & ~(1u << 20));
    ck_assert_uint_eq(port(0, P_IS), SDBS);
    ck_assert_uint_eq(fis_byte(0, 0x58), 0xa1);
    ck_assert_uint_eq(mem_in(FIS_AT + 0x5c, 4), 1u << 20);
    expect_data(DATA_AT + 20 * 1024, hard_disk.bytes + 300 * 512, 1024);
    queue(20, false, 500, 1, DATA_AT + 0x80000); /* its slot can be used again */
    disk_complete(&hard_disk, 0);
    set_header(0, 0, 0, false);
    set_fis(0, 0, 0xea, 0, 0, 0);
    set_port(0, P_CI, 1);
    ck_assert_uint_eq(hard_disk.count, 31);
    disk_settle(&hard_disk); /* waits until no queued command is left */
    ck_assert_uint_eq(port(0, P_SACT), 0);
    ck_assert_uint_eq(port(0, P_CI), 0);
    ck_assert_uint_eq(hard_disk.log[strlen(hard_disk.log) - 1], 'F');
    ck_assert_uint_eq(strlen(hard_disk.log), 34);
}
END_TEST

START_TEST(queued_write_with_force)
{
    queue(0, true, 9, 1, DATA_AT);
    disk_settle(&hard_disk);
    ck_assert_str_eq(hard_disk.log, "W");
    set_header(0, 0, 1, true);
    set_fis(0, 0, 0x61, 1, 9, 0);
    mem_out(table_of(0, 0) + 7, 1, 0xc0);
    set_port(0, P_SACT, 1);
    issue(0, 0);
    ck_assert_str_eq(hard_disk.log, "WWF");
}
END_TEST

/* A failure is told when nothing of the others is at the image any more; then the log says which.
 */
START_TEST(a_queued_command_fails)
{
    hard_disk.bad_sector = 205;
    queue(4, false, 100, 2, DATA_AT);
    queue(5, false, 200, 10, DATA_AT + 0x2000);
    queue(6, true, 300, 2, DATA_AT);
    disk_complete(&hard_disk, 1);
    for (unsigned i = 0; i <= 5; i++) /* sector by sector, up to the bad one */
        disk_complete(&hard_disk, 2);
    ck_assert_uint_eq(hard_disk.count, 2);
    ck_assert_uint_eq(port(0, P_IS) & TFES, 0);
    ck_assert_uint_eq(port(0, P_SACT), 7u << 4);
    disk_settle(&hard_disk);
    ck_assert_uint_eq(port(0, P_SACT), 1u << 5);
    ck_assert_uint_eq(port(0, P_IS) & (TFES | SDBS), TFES | SDBS);
    ck_assert_uint_eq(port(0, P_TFD), FAILED | 0x40 << 8);
    recover(0);
    queue(7, false, 100, 1, DATA_AT); /* not before the log has been read */
    ck_assert_uint_eq(port(0, P_TFD) & 1, 1);
    recover(0);
    run(0, 0x2f, 0x10, 1, 512, false);
    ck_assert_uint_eq(mem_in(DATA_AT, 1), 5);
    ck_assert_uint_eq(mem_in(DATA_AT + 2, 1), FAILED);
    ck_assert_uint_eq(mem_in(DATA_AT + 3, 1), 0x40);
    ck_assert_uint_eq(mem_in(DATA_AT + 4, 1), 205); /* the bad sector */
    queue(7, false, 100, 1, DATA_AT);
    disk_settle(&hard_disk);
    ck_assert_uint_eq(port(0, P_SACT), 0);
    queue(8, false, DISK_SECTORS - 1, 2, DATA_AT); /* beyond the end */
    ck_assert_uint_eq(port(0, P_TFD), FAILED | 0x10 << 8);
}
END_TEST

START_TEST(a_command_fails)
{
    run(0, 0x25, DISK_SECTORS, 1, 512, false);
    ck_assert_uint_eq(port(0, P_IS), DHRS | TFES);
    ck_assert_uint_eq(port(0, P_TFD), FAILED | 0x10 << 8);
    ck_assert_uint_eq(port(0, P_CI), 1); /* of the command that failed */
    set_header(0, 1, 0, false);
    set_fis(0, 1, 0xea, 0, 0, 0);
    issue(0, 1); /* nothing goes on before ST has been cleared */
    ck_assert_uint_eq(port(0, P_CI), 3);
    ck_assert_str_eq(hard_disk.log, "");
    recover(0);
    run(0, 0x25, 0, 1, 512, false);
    ck_assert_uint_eq(port(0, P_TFD), READY);
}
END_TEST

START_TEST(descriptors_that_do_not_fit)
{
    set_prd(0, 0, 1, DATA_AT + 0x4000, 4096); /* behind the table's end */
    mem_out(DATA_AT + 0x4000, 8, 0x1122334455667788);
    run(0, 0x25, 0, 4, 512, false);
    ck_assert_uint_eq(port(0, P_IS) & OFS, OFS);
    ck_assert_uint_eq(moved(0, 0), 512);
    ck_assert_uint_eq(mem_in(DATA_AT + 0x4000, 8), 0x1122334455667788);
    ck_assert_uint_eq(port(0, P_CI), 1);
    recover(0);
    run(0, 0x25, 0, 4, 0, false); /* none at all */
    ck_assert_uint_eq(port(0, P_IS) & OFS, OFS);
    recover(0);
    *hard_disk.log = 0;
    run(0, 0x35, 0, 4, 512, true);
    ck_assert_uint_eq(port(0, P_IS) & OFS, OFS);
    ck_assert_str_eq(hard_disk.log, "");
    recover(0);
    run(0, 0x25, 0, 1, 4096, false); /* more than the command has */
    ck_assert_uint_eq(port(0, P_IS), DHRS);
    ck_assert_uint_eq(moved(0, 0), 512);
    queue(3, false, 0, 4, DATA_AT);
    set_prd(0, 3, 0, DATA_AT, 512);
    disk_settle(&hard_disk);
    ck_assert_uint_eq(port(0, P_IS) & (OFS | TFES), OFS | TFES);
}
END_TEST

START_TEST(memory_that_is_not_there)
{
    set_header(0, 0, 1, false);
    set_fis(0, 0, 0x25, 0, 0, 1);
    set_prd(0, 0, 0, NOWHERE, 512);
    issue(0, 0);
    ck_assert_uint_eq(port(0, P_IS) & HBDS, HBDS);
    ck_assert_uint_eq(port(0, P_TFD), FAILED | 4 << 8);
    recover(0);
    mem_out(LIST_AT + 8, 8, NOWHERE); /* the command table */
    issue(0, 0);
    ck_assert_uint_eq(port(0, P_IS), HBFS);
    recover(0);
    set_port(0, P_CLB, NOWHERE);
    issue(0, 0);
    ck_assert_uint_eq(port(0, P_IS), HBFS);
    set_port(0, P_CLB, LIST_AT);
    recover(0);
    set_port(0, P_FB, NOWHERE);
    run(0, 0xea, 0, 0, 0, false);
    ck_assert_uint_eq(port(0, P_IS) & HBFS, HBFS);
    set_port(0, P_FB, FIS_AT);
    recover(0);
    config_out(ahci->devfn, PCI_COMMAND, 2, 3);
    issue(0, 0);
    ck_assert_uint_eq(port(0, P_IS), HBFS);
    config_out(ahci->devfn, PCI_COMMAND, 2, 7);
    recover(0);
    set_header(0, 0, 0, false);
    mem_out(table_of(0, 0), 1, 0x34); /* no FIS that hosts send */
    issue(0, 0);
    ck_assert_uint_eq(port(0, P_IS), IFS);
}
END_TEST

/* What a protection rule keeps from devices: data, the table, the list, the area of answers. */
START_TEST(memory_that_a_rule_refuses)
{
    const struct {
        uint64_t kept;
        uint32_t why;
    } cases[] = {{DATA_AT, HBDS}, {TABLE_AT, HBFS}, {LIST_AT, HBFS}, {FIS_AT, HBFS}};
    for (unsigned i = 0; i < 4; i++) {
        mem_out(DATA_AT, 8, 0x1122334455667788);
        set_header(0, 0, 1, false);
        set_fis(0, 0, 0x25, 0, 0, 1);
        set_prd(0, 0, 0, DATA_AT, 512);
        struct rules *rules = keep_page(cases[i].kept);
        issue(0, 0);
        rules_free(rules);
        ck_assert_uint_eq(port(0, P_IS) & (HBDS | HBFS), cases[i].why);
        if (cases[i].why == HBDS)
            ck_assert_uint_eq(mem_in(DATA_AT, 8), 0x1122334455667788);
        recover(0);
        struct rules *again = keep_page(DATA_AT); /* queued */
        queue(3, true, 9, 1, DATA_AT);
        rules_free(again);
        ck_assert_uint_eq(port(0, P_IS) & (HBDS | TFES), HBDS | TFES);
        recover(0);
        run(0, 0x2f, 0x10, 1, 512, false); /* out of the drive's error state */
    }
    ck_assert_ptr_null(strchr(hard_disk.log, 'W'));
}
END_TEST

static void packet(const uint8_t *cdb, bool dma, uint32_t bytes)
{
    set_header(3, 0, 1, false);
    set_fis(3, 0, 0xa0, dma, 0, 0);
    mem_out(table_of(3, 0) + 5, 2, 0xfffe); /* the byte count limit, for PIO */
    for (unsigned i = 0; i < 12; i++)
        mem_out(table_of(3, 0) + 0x40 + i, 1, cdb[i]);
    set_prd(3, 0, 0, DATA_AT, bytes);
    issue(3, 0);
}

START_TEST(packets)
{
    static const uint8_t read[12] = {0x28, 0, 0, 0, 0, 16, 0, 0, 100}, wrong[12] = {0xff};
    for (unsigned dma = 0; dma < 2; dma++) {
        for (unsigned i = 0; i < 100 * 2048; i += 512)
            mem_out(DATA_AT + i, 8, 0);
        packet(read, dma, 100 * 2048);
        ck_assert_uint_eq(port(3, P_CI), 0);
        ck_assert_uint_eq(port(3, P_TFD), READY);
        ck_assert_uint_eq(port(3, P_IS) & ~PSS, DHRS);
        ck_assert_uint_eq(moved(3, 0), 100 * 2048);
        expect_data(DATA_AT, disc.bytes + 16 * 2048, 100 * 2048);
        set_port(3, P_IS, UINT32_MAX);
    }
    packet(wrong, true, 2048);
    ck_assert_uint_eq(port(3, P_TFD), FAILED | 0x54 << 8);
    ck_assert_uint_eq(port(3, P_IS) & TFES, TFES);
}
END_TEST

/* DEVICE RESET ends with a register FIS like other commands without data, but without an interrupt:
 * the slot is free again, and the next command goes to the drive. */
START_TEST(device_reset)
{
    static const uint8_t ready[12] = {0};
    run(3, 0x08, 0, 0, 0, false);
    ck_assert_uint_eq(port(3, P_CI), 0);
    ck_assert_uint_eq(port(3, P_TFD), 0x0100);
    ck_assert_uint_eq(port(3, P_IS), 0);
    packet(ready, false, 2);
    ck_assert_uint_eq(port(3, P_CI), 0);
    ck_assert_uint_eq(port(3, P_TFD), READY);
}
END_TEST

static void software_reset(unsigned n)
{
    for (unsigned on = 0; on < 2; on++) {
        set_header(n, on, 0, false);
        set_fis(n, on, 0, 0, 0, 0);
        mem_out(table_of(n, on) + 1, 1, 0); /* control */
        mem_out(table_of(n, on) + 15, 1, on ? 0 : 4);
        set_port(n, P_CI, 1u << on);
        ck_assert_uint_eq(port(n, P_CI), 0);
    }
}

START_TEST(software_resets)
{
    software_reset(0);
    ck_assert_uint_eq(port(0, P_TFD), 0x0150);
    ck_assert_uint_eq(fis_byte(0, 0x40), 0x34);
    software_reset(3);
    ck_assert_uint_eq(port(3, P_SIG), 0xeb140101);
    queue(0, true, 9, 1, DATA_AT); /* with a write at the image */
    set_port(0, P_CMD, FRE);
    set_port(0, P_CMD, FRE | ST);
    software_reset(0);
    ck_assert_uint_eq(port(0, P_TFD) & 0x80, 0x80);
    set_header(0, 0, 0, false);
    set_fis(0, 0, 0xea, 0, 0, 0);
    set_port(0, P_CI, 1); /* not before the write has landed */
    ck_assert_uint_eq(hard_disk.count, 1);
    disk_complete(&hard_disk, 0);
    ck_assert_uint_eq(hard_disk.count, 1);
    disk_settle(&hard_disk);
    ck_assert_str_eq(hard_disk.log, "WF");
    ck_assert_uint_eq(port(0, P_CI), 0);
}
END_TEST

/* A software reset takes the drive out of the error state of a queued command, as reading the log
 * does (Serial ATA, FPDMA queued command protocol, state WaitforClr). */
START_TEST(software_reset_after_a_queued_error)
{
    queue(8, false, DISK_SECTORS - 1, 2, DATA_AT); /* beyond the end */
    ck_assert_uint_eq(port(0, P_TFD), FAILED | 0x10 << 8);
    recover(0);
    software_reset(0);
    queue(7, false, 100, 1, DATA_AT);
    disk_settle(&hard_disk);
    ck_assert_uint_eq(port(0, P_SACT), 0);
    ck_assert_uint_eq(port(0, P_TFD), READY);
}
END_TEST

START_TEST(comreset_and_controller_reset)
{
    set_header(0, 0, 1, false);
    set_fis(0, 0, 0x25, 0, 0, 1);
    set_prd(0, 0, 0, DATA_AT, 512);
    set_port(0, P_CI, 1);
    set_port(0, P_CMD, FRE);
    set_port(0, P_SCTL, 1);
    ck_assert_uint_eq(port(0, P_SSTS), 0);
    set_port(0, P_SCTL, 0);
    ck_assert_uint_eq(port(0, P_SSTS), 0x113);
    ck_assert_uint_eq(port(0, P_TFD) & 0x80, 0x80); /* the read is still at the image */
    disk_settle(&hard_disk);
    ck_assert_uint_eq(port(0, P_TFD), 0x0150);
    ck_assert_uint_eq(port(0, P_SIG), 0x0101);
    set_port(0, P_IE, UINT32_MAX);
    set_reg(GHC, 0x80000003);
    ck_assert_uint_eq(reg(GHC), 0x80000000);
    ck_assert_uint_eq(port(0, P_IE), 0);
    ck_assert_uint_eq(port(0, P_CMD), 6);
    ck_assert_uint_eq(port(0, P_TFD), 0x0150);
    set_port(0, P_SCTL, 4); /* off line */
    ck_assert_uint_eq(port(0, P_SSTS), 4);
}
END_TEST

START_TEST(interrupts_by_wire_and_by_message)
{
    const unsigned irq = ahci->config[PCI_INTERRUPT_LINE];
    set_port(0, P_IE, DHRS);
    run(0, 0xea, 0, 0, 0, false);
    ck_assert(irq_level[irq]);
    set_port(0, P_IS, DHRS);
    ck_assert(irq_level[irq]); /* until the controller's bit is cleared, too */
    set_reg(IS, 1);
    ck_assert(!irq_level[irq]);
    unsigned cap = 0x80;
    ck_assert_uint_eq(config_in(ahci->devfn, PCI_CAPABILITY_LIST, 1), cap);
    ck_assert_uint_eq(config_in(ahci->devfn, cap, 4), 0x0080a805); /* 64 bits; then SATA */
    config_out(ahci->devfn, cap + 4, 4, 0xfee01000);
    config_out(ahci->devfn, cap + 12, 2, 0x4041);
    config_out(ahci->devfn, cap + 2, 2, 1);
    for (unsigned i = 0; i < 2; i++) {
        run(0, 0xea, 0, 0, 0, false);
        ck_assert(!irq_level[irq]);
        ck_assert_uint_eq(message_count, i + 1);
        ck_assert_uint_eq(messages[i].address, 0xfee01000);
        ck_assert_uint_eq(messages[i].data, 0x4041);
        set_port(0, P_IS, DHRS);
        set_reg(IS, 1);
    }
    set_reg(GHC, 0x80000000);
    run(0, 0xea, 0, 0, 0, false);
    ck_assert_uint_eq(message_count, 2);
    ck_assert_uint_eq(reg(IS), 1);
}
END_TEST

START_TEST(destroyed_with_requests_in_flight)
{
    queue(0, true, 9, 1, DATA_AT);
    queue(1, false, 19, 1, DATA_AT);
    disk_drive->destroy(disk_drive);
    disk_drive = NULL;
    disk_settle(&hard_disk);
    ck_assert_str_eq(hard_disk.log, "WR");
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {registers_at_the_start,
                                  identify_by_pio,
                                  read_and_write_by_dma,
                                  fields_say_where_a_command_is,
                                  several_slots,
                                  queued_commands_in_any_order,
                                  queued_write_with_force,
                                  a_queued_command_fails,
                                  a_command_fails,
                                  descriptors_that_do_not_fit,
                                  memory_that_is_not_there,
                                  memory_that_a_rule_refuses,
                                  packets,
                                  device_reset,
                                  software_resets,
                                  software_reset_after_a_queued_error,
                                  comreset_and_controller_reset,
                                  interrupts_by_wire_and_by_message,
                                  destroyed_with_requests_in_flight};
    Suite *suite = suite_create("ahci");
    TCase *tcase = tcase_create("ahci");
    tcase_add_checked_fixture(tcase, setup, teardown);
    for (unsigned i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
        tcase_add_test(tcase, tests[i]);
    tcase_add_loop_test(tcase, lent_without_a_copy, 0, 2);
    tcase_add_loop_test(tcase, queued_and_lent, 0, 2);
    tcase_add_test(tcase, a_lent_queued_command_fails);
    tcase_add_loop_test(tcase, lent_memory_is_left_alone, 0, 8);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
