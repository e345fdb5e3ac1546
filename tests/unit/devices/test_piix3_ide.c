/*
 * test_piix3_ide.c - PIIX3's IDE channels and their bus master: drives that are not there, resets,
 * descriptors of every shape, what memory refuses.
 */
#include "ide_board.h"

#include "kept_page.h"

static void setup(void)
{
    ide_setup();
}

static void fill(uint64_t at, unsigned len, uint8_t value)
{
    for (unsigned i = 0; i < len; i++)
        mem_out(at + i, 1, value);
}

static void expect(uint64_t at, const uint8_t *bytes, unsigned len)
{
    for (unsigned i = 0; i < len; i++)
        ck_assert_msg(mem_in(at + i, 1) == bytes[i], "byte %u", i);
}

static uint8_t bm_status(void)
{
    return (uint8_t)inp(bm + BM_STATUS, 1);
}

static void dma(uint8_t number, uint16_t sectors, uint32_t lba, bool to_memory)
{
    set_registers(IDE0, 0, (uint8_t)sectors, lba);
    outp(IDE0 + COMMAND, 1, number);
    start_engine(0, to_memory);
    disk_settle(&hard_disk);
}

START_TEST(configuration_space)
{
    const unsigned devfn = PCI_DEVFN(1, 1);
    ck_assert_uint_eq(config_in(devfn, 0, 4), 0x70108086);
    ck_assert_uint_eq(config_in(devfn, 8, 4), 0x01018000);
    ck_assert_uint_eq(config_in(devfn, 0x40, 4), 0x80008000); /* as firmware leaves it */
    ck_assert_uint_eq(config_in(devfn, PCI_INTERRUPT_PIN, 1), 0);
    ck_assert_uint_eq(config_in(devfn, PCI_BAR0, 4), 0);
}
END_TEST

/* The searches of firmware and operating systems. */
START_TEST(drives_that_are_not_there)
{
    outp(IDE0 + DEVICE, 1, 0xb0); /* no slave behind a master */
    ck_assert_uint_eq(inp(IDE0 + COMMAND, 1), 0);
    ck_assert_uint_eq(inp(IDE0 + DEVICE, 1), 0xb0);
    ck_assert_uint_eq(inp(IDE0 + FEATURE, 1), 0);
    outp(IDE0 + COUNT, 1, 0x55);
    outp(IDE0 + LBA0, 1, 0xaa);
    ck_assert_uint_eq(inp(IDE0 + COUNT, 1), 0x55); /* the master's, which took the write, too */
    outp(IDE0 + COMMAND, 1, 0xec);
    ck_assert_uint_eq(inp(IDE0 + COMMAND, 1), 0);
    ck_assert(!irq_level[14] && hard_disk.count == 0);
    outp(IDE0 + DEVICE, 1, 0xa0);
    ck_assert_uint_eq(inp(IDE0 + COMMAND, 1), DRDY | DSC);
    disk_drive->destroy(disk_drive); /* and none at all */
    disk_drive = NULL;
    for (unsigned reg = 0; reg < 8; reg++) {
        outp((uint16_t)(IDE0 + reg), 1, 0x55);
        ck_assert_uint_eq(inp((uint16_t)(IDE0 + reg), 1), 0);
    }
    ck_assert_uint_eq(inp(IDE0 + 0x206, 1), 0);
}
END_TEST

START_TEST(signatures_after_resets)
{
    struct error err = {""};
    const struct ata_drive_options options = {.cdrom = true};
    slave_drive = ata_drive_create(piix3_ide_host(ide, 0), 1, &options, &err);
    ck_assert_ptr_nonnull(slave_drive);
    for (unsigned how = 0; how < 2; how++) {
        set_registers(IDE0, 9, 9, 0x999999);
        if (how == 0) {
            outp(IDE0 + 0x206, 1, SRST);
            ck_assert_uint_eq(inp(IDE0 + COMMAND, 1), BSY);
            outp(IDE0 + 0x206, 1, 0);
            ck_assert(!irq_level[14]);
        } else {
            outp(IDE0 + DEVICE, 1, 0xb0);
            outp(IDE0 + COMMAND, 1, 0x90); /* EXECUTE DEVICE DIAGNOSTIC, of both */
            ck_assert(irq_level[14]);
        }
        static const uint8_t master[] = {1, 1, 1, 0, 0, 0xa0},
                             slave[] = {1, 1, 1, 0x14, 0xeb, 0xb0};
        ck_assert_uint_eq(inp(IDE0 + COMMAND, 1), DRDY | DSC);
        ck_assert(!irq_level[14]);
        for (unsigned i = 0; i < 6; i++)
            ck_assert_uint_eq(inp((uint16_t)(IDE0 + FEATURE + i), 1), master[i]);
        outp(IDE0 + DEVICE, 1, 0xb0);
        ck_assert_uint_eq(inp(IDE0 + COMMAND, 1), 0); /* a PACKET device is not "ready" */
        for (unsigned i = 0; i < 6; i++)
            ck_assert_uint_eq(inp((uint16_t)(IDE0 + FEATURE + i), 1), slave[i]);
        ck_assert(!irq_level[14]);
    }
    struct error again = {""};
    ck_assert_ptr_null(ata_drive_create(piix3_ide_host(ide, 0), 1, &options, &again));
    ck_assert_str_eq(again.msg, "ide-cd: unit 1 of bus 0 is taken by another drive");
}
END_TEST

START_TEST(interrupts_can_be_disabled)
{
    outp(IDE0 + 0x206, 1, NIEN);
    set_registers(IDE0, 0, 1, 0);
    outp(IDE0 + COMMAND, 1, 0x20);
    disk_settle(&hard_disk);
    ck_assert(!irq_level[14] && !(bm_status() & 4));
    ck_assert_uint_eq(inp(IDE0 + 0x206, 1), DRDY | DSC | DRQ);
    outp(IDE0 + 0x206, 1, 0);
    ck_assert(irq_level[14]);
    ck_assert_uint_eq(inp(IDE0 + 0x206, 1), DRDY | DSC | DRQ); /* which acknowledges nothing */
    ck_assert(irq_level[14]);
    inp(IDE0 + COMMAND, 1);
    ck_assert(!irq_level[14]);
    ck_assert(bm_status() & 4); /* until it is cleared there */
    outp(bm + BM_STATUS, 1, 4);
    ck_assert_uint_eq(bm_status(), 0);
}
END_TEST

/* While a command runs its registers are not changed by writes. */
START_TEST(registers_of_a_busy_drive)
{
    set_registers(IDE0, 0, 2, 77);
    outp(IDE0 + COMMAND, 1, 0x20);
    ck_assert(status_of(IDE0) & BSY);
    outp(IDE0 + LBA0, 1, 1);
    outp(IDE0 + DEVICE, 1, 0xb0);
    outp(IDE0 + COMMAND, 1, 0xec);
    disk_settle(&hard_disk);
    ck_assert(status_of(IDE0) & DRQ);
    ck_assert_uint_eq(lba_of(IDE0), 77);
    uint8_t bytes[1024];
    read_words(IDE0, bytes, 1024);
    ck_assert(memcmp(bytes, hard_disk.bytes + 77 * 512, 1024) == 0);
}
END_TEST

START_TEST(data_port_widths)
{
    uint8_t bytes[512];
    set_registers(IDE0, 0, 1, 3);
    command(IDE0, 0x20);
    for (unsigned i = 0; i < 512; i += 4) {
        uint32_t dword = inp(IDE0, 4);
        memcpy(bytes + i, &dword, 4);
    }
    ck_assert(memcmp(bytes, hard_disk.bytes + 3 * 512, 512) == 0);
    ck_assert_uint_eq(inp(IDE0, 4), 0); /* no more */
    ck_assert_uint_eq(status_of(IDE0), DRDY | DSC);
    outp(IDE0, 4, 0x12345678); /* goes nowhere */
    set_registers(IDE0, 0, 1, 4);
    command(IDE0, 0x20);
    ck_assert_uint_eq(inp(IDE0, 1), hard_disk.bytes[4 * 512]);
    ck_assert_uint_eq(inp(IDE0, 1), hard_disk.bytes[4 * 512 + 2]); /* a byte takes a word away */
}
END_TEST

START_TEST(read_and_write_by_dma)
{
    fill(DATA_AT, 8 * 512, 0xee);
    set_prd(0, DATA_AT, 1024);
    set_prd(1, DATA_AT + 0x8000, 512);
    set_prd(2, DATA_AT + 0x4000, 2560 | LAST);
    dma(0xc8, 8, 200, true);
    ck_assert_uint_eq(bm_status(), 4); /* interrupt, not active */
    ck_assert(irq_level[14]);
    ck_assert_uint_eq(inp(IDE0 + COMMAND, 1), DRDY | DSC);
    const uint8_t *sectors = hard_disk.bytes + 200 * 512;
    expect(DATA_AT, sectors, 1024);
    expect(DATA_AT + 0x8000, sectors + 1024, 512);
    expect(DATA_AT + 0x4000, sectors + 1536, 2560);
    outp(bm + BM_COMMAND, 1, 0);
    for (unsigned i = 0; i < 2048; i++)
        mem_out(DATA_AT + i, 1, (uint8_t)(i * 11));
    set_prd(0, DATA_AT, 2048 | LAST);
    dma(0xca, 4, 300, false);
    ck_assert_uint_eq(bm_status(), 4);
    for (unsigned i = 0; i < 2048; i++)
        ck_assert_uint_eq(hard_disk.bytes[300 * 512 + i], (uint8_t)(i * 11));
}
END_TEST

/* More than two chunks, both ways, with a count of 0: a descriptor of 64 KiB. With the guest's
 * memory lent to the image, and without. */
START_TEST(long_transfers)
{
    enum { SECTORS = 2689, PIECES = SECTORS * 512 / 0x10000 + 1 };
    const bool write = _i & 1;
    hard_disk.never_lent = _i & 2;
    for (unsigned i = 0; i < PIECES; i++)
        set_prd(i, DATA_AT + 0x10000 * i, i == PIECES - 1 ? 512 | LAST : 0);
    for (unsigned i = 0; i < SECTORS * 512; i += 4)
        mem_out(DATA_AT + i, 4, i * 2654435761u);
    set_registers_48(IDE0, SECTORS, 1000);
    outp(IDE0 + COMMAND, 1, write ? 0x35 : 0x25);
    start_engine(0, !write);
    disk_settle(&hard_disk);
    ck_assert_uint_eq(bm_status(), 4);
    for (unsigned i = 0; i < SECTORS * 512; i += 97)
        ck_assert_uint_eq(mem_in(DATA_AT + i, 1), hard_disk.bytes[1000 * 512 + i]);
    /* 512 KiB at most, or 1 MiB and whole pages */
    ck_assert_str_eq(hard_disk.log, write ? "WWW" : "RRR");
}
END_TEST

/* ---- With the guest's memory lent to the image ---- */

static void start_pages(uint8_t number, unsigned pages, uint64_t lba)
{
    set_registers_48(IDE0, (uint16_t)(pages * 8), lba);
    outp(IDE0 + COMMAND, 1, number);
    start_engine(0, number == 0x25);
}

START_TEST(lent_without_a_copy)
{
    set_prd(0, DATA_AT + 0x3000, 4096);
    set_prd(1, DATA_AT, 8192 | LAST);
    start_pages(0x25, 3, 64);
    ck_assert_uint_eq(hard_disk.count, 1);
    const struct blockdev_request *r = hard_disk.waiting[0];
    ck_assert_int_eq(r->iovcnt, 2);
    ck_assert_ptr_eq(r->iov[0].iov_base, phys_hva(board.map, DATA_AT + 0x3000, &(uint64_t){0}));
    ck_assert_uint_eq(r->iov[1].iov_len, 8192);
    ck_assert(*phys_frame_attr(board.map, DATA_AT) & FRAME_LENT_WRITE);
    disk_settle(&hard_disk);
    ck_assert(!(*phys_frame_attr(board.map, DATA_AT) & FRAME_LENT));
    expect(DATA_AT + 0x3000, hard_disk.bytes + 64 * 512, 4096);
    expect(DATA_AT, hard_disk.bytes + 72 * 512, 8192);
    ck_assert_uint_eq(bm_status(), 4);
    ck_assert_uint_eq(inp(IDE0 + COMMAND, 1), DRDY | DSC);
}
END_TEST

/* Code is told of what is written to it, so its frame is not lent. */
START_TEST(code_is_not_lent)
{
    *phys_frame_attr(board.map, DATA_AT + 0x1000) |= FRAME_CODE;
    set_prd(0, DATA_AT, 8192 | LAST);
    start_pages(0x25, 2, 64);
    ck_assert_ptr_null(hard_disk.waiting[0]->let_go);
    disk_settle(&hard_disk);
    expect(DATA_AT, hard_disk.bytes + 64 * 512, 8192);
    ck_assert_uint_eq(bm_status(), 4);
    *phys_frame_attr(board.map, DATA_AT + 0x1000) &= ~(uint32_t)FRAME_CODE;
}
END_TEST

/* The sectors before the bad one are transferred, and its address is told. */
START_TEST(bad_sector_in_lent_memory)
{
    const bool write = _i;
    hard_disk.bad_sector = 71;
    fill(DATA_AT, 8192, 0xee);
    set_prd(0, DATA_AT, 8192 | LAST);
    start_pages(write ? 0x35 : 0x25, 2, 64);
    disk_settle(&hard_disk);
    ck_assert_uint_eq(inp(IDE0 + COMMAND, 1) & ERR, ERR);
    ck_assert_uint_eq(lba_of(IDE0), 71);
    expect(DATA_AT, hard_disk.bytes + 64 * 512, 7 * 512);
    ck_assert_uint_eq(hard_disk.bytes[64 * 512] == 0xee, write);
    ck_assert_uint_ne(hard_disk.bytes[71 * 512 + 2], 0xee);
}
END_TEST

/* Stopping the engine, a reset and the drive's end leave the guest's memory alone from then on. */
START_TEST(lent_memory_is_left_alone)
{
    set_prd(0, DATA_AT, 8192 | LAST);
    start_pages(0x25, 2, 64);
    switch (_i) {
    case 0:
        outp(bm + BM_COMMAND, 1, 0);
        break;
    case 1:
        outp(IDE0 + 0x206, 1, SRST);
        break;
    case 2:
        disk_drive->reset(disk_drive);
        break;
    case 3:
        config_out(PCI_DEVFN(1, 1), PCI_COMMAND, 2, 3); /* no bus master any more */
        break;
    case 4:
        disk_drive->destroy(disk_drive);
        disk_drive = NULL;
        break;
    }
    ck_assert(!(*phys_frame_attr(board.map, DATA_AT) & FRAME_LENT));
    fill(DATA_AT, 8192, 0x3c);
    disk_settle(&hard_disk);
    ck_assert_uint_eq(mem_in(DATA_AT, 1), 0x3c);
    ck_assert_uint_eq(mem_in(DATA_AT + 8191, 1), 0x3c);
}
END_TEST

/* The engine is stopped while the image is at work, and started on other memory, before or after
 * the image has answered: that memory gets the data, or gives them. */
START_TEST(other_memory_after_a_stop)
{
    const bool write = _i & 1, answered_first = _i & 2;
    fill(DATA_AT, 8192, 0x11);
    fill(DATA_AT + 0x8000, 8192, 0x22);
    set_prd(0, DATA_AT, 8192 | LAST);
    start_pages(write ? 0x35 : 0x25, 2, 64);
    outp(bm + BM_COMMAND, 1, 0);
    if (answered_first)
        disk_settle(&hard_disk);
    set_prd(0, DATA_AT + 0x8000, 8192 | LAST);
    start_engine(0, !write);
    disk_settle(&hard_disk);
    ck_assert_uint_eq(bm_status(), 4);
    ck_assert_uint_eq(inp(IDE0 + COMMAND, 1), DRDY | DSC);
    expect(DATA_AT + 0x8000, hard_disk.bytes + 64 * 512, 8192);
    ck_assert_uint_eq(hard_disk.bytes[64 * 512] == 0x22, write);
}
END_TEST

/* The engine may be started before the command, and the drive may be ready before the engine. */
START_TEST(who_comes_first)
{
    set_prd(0, DATA_AT, 512 | LAST);
    start_engine(0, true);
    ck_assert_uint_eq(bm_status(), 1);
    set_registers(IDE0, 0, 1, 9);
    outp(IDE0 + COMMAND, 1, 0xc8);
    disk_settle(&hard_disk);
    ck_assert_uint_eq(bm_status(), 4);
    expect(DATA_AT, hard_disk.bytes + 9 * 512, 512);
    outp(bm + BM_COMMAND, 1, 0);
    inp(IDE0 + COMMAND, 1);
    set_registers(IDE0, 0, 1, 10);
    outp(IDE0 + COMMAND, 1, 0xc8);
    disk_settle(&hard_disk);
    ck_assert(!irq_level[14]);
    ck_assert_uint_eq(status_of(IDE0), DRDY | DSC | DRQ);
    ck_assert_uint_eq(inp(IDE0, 2), 0); /* its data do not come by the port */
    start_engine(0, true);
    ck_assert_uint_eq(bm_status(), 4);
    expect(DATA_AT, hard_disk.bytes + 10 * 512, 512);
}
END_TEST

/* SFF-8038i, 3.1: what the three status bits say of tables that do not fit. */
START_TEST(tables_too_long_and_too_short)
{
    set_prd(0, DATA_AT, 4096 | LAST);
    dma(0xc8, 2, 0, true);
    ck_assert_uint_eq(bm_status(), 5); /* interrupt and active: the table is longer */
    ck_assert_uint_eq(inp(IDE0 + COMMAND, 1), DRDY | DSC);
    outp(bm + BM_COMMAND, 1, 0);
    ck_assert_uint_eq(bm_status(), 4);
    set_prd(0, DATA_AT, 512 | LAST);
    dma(0xc8, 2, 0, true);
    ck_assert_uint_eq(bm_status(), 0); /* neither: it is shorter */
    ck_assert(!irq_level[14]);
    ck_assert_uint_eq(inp(IDE0 + COMMAND, 1), DRDY | DSC);
    outp(bm + BM_COMMAND, 1, 0);
    *hard_disk.log = 0;
    dma(0xca, 2, 0, false); /* nothing of a chunk that is not whole is written */
    ck_assert_uint_eq(bm_status(), 0);
    ck_assert_str_eq(hard_disk.log, "");
}
END_TEST

START_TEST(odd_addresses_and_counts)
{
    fill(DATA_AT, 1024, 0xee);
    set_prd(0, DATA_AT + 1, 255);
    set_prd(1, DATA_AT + 0x2001, 259 | LAST);
    dma(0xc8, 1, 5, true);
    ck_assert_uint_eq(bm_status(), 4);
    expect(DATA_AT, hard_disk.bytes + 5 * 512, 254); /* bit 0 of both is 0 */
    expect(DATA_AT + 0x2000, hard_disk.bytes + 5 * 512 + 254, 258);
    ck_assert_uint_eq(mem_in(DATA_AT + 254, 1), 0xee);
}
END_TEST

START_TEST(memory_that_is_not_there)
{
    static const struct {
        uint32_t table, data;
    } cases[] = {{TABLE_AT, 0x40000000}, {0x40000000, DATA_AT}, {TABLE_AT, RAM_SIZE - 256}};
    for (unsigned i = 0; i < 3; i++) {
        set_prd(0, cases[i].data, 512 | LAST);
        outp(bm + BM_STATUS, 1, 6);
        outp(bm + BM_TABLE, 4, cases[i].table);
        set_registers(IDE0, 0, 1, 5);
        outp(IDE0 + COMMAND, 1, 0xc8);
        outp(bm + BM_COMMAND, 1, 9);
        disk_settle(&hard_disk);
        ck_assert_uint_eq(bm_status(), 6); /* error and interrupt */
        ck_assert_uint_eq(inp(IDE0 + COMMAND, 1), DRDY | DSC | ERR);
        ck_assert_uint_eq(inp(IDE0 + FEATURE, 1), ABRT);
        outp(bm + BM_COMMAND, 1, 0);
        outp(bm + BM_STATUS, 1, 2);
        ck_assert_uint_eq(bm_status(), 4);
    }
    config_out(PCI_DEVFN(1, 1), PCI_COMMAND, 2, 1); /* bus mastering is off */
    set_prd(0, DATA_AT, 512 | LAST);
    dma(0xc8, 1, 5, true);
    ck_assert_uint_eq(bm_status(), 6);
}
END_TEST

/* Data, or the table, that a protection rule keeps from devices: an error, and nothing is touched.
 */
START_TEST(memory_that_a_rule_refuses)
{
    static const struct {
        uint8_t number;
        uint64_t kept;
    } cases[] = {{0xc8, DATA_AT}, {0xca, DATA_AT}, {0xc8, TABLE_AT}};
    for (unsigned i = 0; i < 3; i++) {
        fill(DATA_AT, 512, 0xee);
        *hard_disk.log = 0;
        set_prd(0, DATA_AT, 512 | LAST);
        struct rules *rules = keep_page(cases[i].kept);
        outp(bm + BM_COMMAND, 1, 0);
        dma(cases[i].number, 1, 5, cases[i].number == 0xc8);
        ck_assert_uint_eq(bm_status(), 6);
        ck_assert_uint_eq(inp(IDE0 + COMMAND, 1), DRDY | DSC | ERR);
        ck_assert_str_eq(hard_disk.log, cases[i].number == 0xc8 ? "R" : "");
        rules_free(rules);
        ck_assert_uint_eq(mem_in(DATA_AT, 1), 0xee);
        ck_assert_uint_eq(mem_in(DATA_AT + 511, 1), 0xee);
    }
}
END_TEST

START_TEST(registers_of_the_bus_master)
{
    outp(bm + BM_TABLE, 4, 0x12345679);
    ck_assert_uint_eq(inp(bm + BM_TABLE, 4), 0x12345678);
    outp(bm + BM_TABLE + 2, 1, 0xab);
    ck_assert_uint_eq(inp(bm + BM_TABLE, 4), 0x12ab5678);
    outp(bm + BM_STATUS, 1, 0x61);
    ck_assert_uint_eq(bm_status(), 0x60);
    outp(bm + BM_COMMAND, 1, 0xf8);
    ck_assert_uint_eq(inp(bm, 1), 8);
    ck_assert_uint_eq(inp(bm + 8, 1), 0); /* the other channel's */
}
END_TEST

/* A write that is at the image when the drive is reset: the drive is busy until it has landed. */
START_TEST(reset_with_a_request_in_flight)
{
    for (unsigned how = 0; how < 2; how++) {
        set_prd(0, DATA_AT, 512 | LAST);
        fill(DATA_AT, 512, (uint8_t)(0x77 + how));
        outp(bm + BM_COMMAND, 1, 0); /* which no reset of drives does */
        set_registers(IDE0, 0, 1, 30);
        outp(IDE0 + COMMAND, 1, 0xca);
        start_engine(0, false);
        ck_assert_uint_eq(hard_disk.count, 1);
        if (how == 0) {
            outp(IDE0 + 0x206, 1, SRST);
            outp(IDE0 + 0x206, 1, 0);
        } else {
            ide->dev.reset(&ide->dev);
            disk_drive->reset(disk_drive);
        }
        ck_assert_uint_eq(status_of(IDE0), BSY);
        outp(IDE0 + COMMAND, 1, 0xec); /* not taken */
        disk_settle(&hard_disk);
        ck_assert_uint_eq(status_of(IDE0), DRDY | DSC);
        ck_assert(!irq_level[14]);
        ck_assert_uint_eq(hard_disk.bytes[30 * 512], 0x77 + how);
        ck_assert(pci_assign_resources(bus, MEM_WINDOW, MEM_END, &(struct error){""}));
        config_out(PCI_DEVFN(1, 1), PCI_COMMAND, 2, 7);
    }
}
END_TEST

/* The machine is freed while a request is at the image, which answers afterwards. */
START_TEST(destroyed_with_a_request_in_flight)
{
    set_registers(IDE0, 0, 1, 30);
    outp(IDE0 + COMMAND, 1, 0x20);
    disk_drive->destroy(disk_drive);
    disk_drive = NULL;
    disk_settle(&hard_disk);
    ck_assert_uint_eq(inp(IDE0 + COMMAND, 1), 0);
}
END_TEST

START_TEST(stopping_the_engine_in_between)
{
    set_prd(0, DATA_AT, 512 | LAST);
    set_registers(IDE0, 0, 1, 30);
    outp(IDE0 + COMMAND, 1, 0xc8);
    start_engine(0, true);
    outp(bm + BM_COMMAND, 1, 0);
    disk_settle(&hard_disk);
    ck_assert_uint_eq(bm_status(), 0);
    ck_assert_uint_eq(status_of(IDE0), DRDY | DSC | DRQ); /* waits for the engine or a reset */
    outp(IDE0 + 0x206, 1, SRST);
    outp(IDE0 + 0x206, 1, 0);
    ck_assert_uint_eq(status_of(IDE0), DRDY | DSC);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {configuration_space,
                                  drives_that_are_not_there,
                                  signatures_after_resets,
                                  interrupts_can_be_disabled,
                                  registers_of_a_busy_drive,
                                  data_port_widths,
                                  read_and_write_by_dma,
                                  lent_without_a_copy,
                                  code_is_not_lent,
                                  who_comes_first,
                                  tables_too_long_and_too_short,
                                  odd_addresses_and_counts,
                                  memory_that_is_not_there,
                                  memory_that_a_rule_refuses,
                                  registers_of_the_bus_master,
                                  reset_with_a_request_in_flight,
                                  destroyed_with_a_request_in_flight,
                                  stopping_the_engine_in_between};
    Suite *suite = suite_create("piix3_ide");
    TCase *tcase = tcase_create("piix3_ide");
    tcase_add_checked_fixture(tcase, setup, ide_teardown);
    for (unsigned i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
        tcase_add_test(tcase, tests[i]);
    tcase_add_loop_test(tcase, long_transfers, 0, 4);
    tcase_add_loop_test(tcase, bad_sector_in_lent_memory, 0, 2);
    tcase_add_loop_test(tcase, lent_memory_is_left_alone, 0, 5);
    tcase_add_loop_test(tcase, other_memory_after_a_stop, 0, 4);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
