/*
 * test_floppy.c - the floppy controller with the DMA controller beside it, as a driver uses them.
 * The images are memory; their completions come through the event queue.
 */
#include "internal/blockdev.h"
#include "internal/chips.h"
#include "pci_board.h"

enum { TRACK_SECTORS = 18, BUFFER = 0x12000 };

struct blockdev {
    uint8_t *bytes;
    uint64_t size;
    bool read_only, broken;
    unsigned requests;
};

static struct blockdev disk_a, disk_b;
static struct dma *dma;
static struct fdc *fdc;
static bool irq6;
static unsigned in_flight;

uint64_t blockdev_size(const struct blockdev *dev)
{
    return dev->size;
}

bool blockdev_read_only(const struct blockdev *dev)
{
    return dev->read_only;
}

static void complete(void *opaque)
{
    struct blockdev_request *r = opaque;
    in_flight--;
    r->done(r);
}

/* An image may do several in any order: a controller that has one waits for it. */
void blockdev_submit(struct blockdev *dev, struct blockdev_request *r)
{
    ck_assert_uint_eq(in_flight, 0);
    in_flight++;
    ck_assert_uint_eq(r->len, 512);
    ck_assert_uint_le(r->offset + r->len, dev->size);
    ck_assert(r->op == BLOCKDEV_READ || (r->op == BLOCKDEV_WRITE && !dev->read_only));
    dev->requests++;
    r->result = dev->broken ? -5 : 0;
    if (!dev->broken && r->op == BLOCKDEV_READ)
        memcpy(r->iov->iov_base, dev->bytes + r->offset, 512);
    if (!dev->broken && r->op == BLOCKDEV_WRITE)
        memcpy(dev->bytes + r->offset, r->iov->iov_base, 512);
    event_post(board.queue, complete, r);
}

static void on_irq6(void *opaque, unsigned pin, bool level)
{
    (void)opaque, (void)pin;
    ck_assert(level != irq6);
    irq6 = level;
}

static void insert(struct blockdev *disk, uint64_t size)
{
    *disk = (struct blockdev){.bytes = malloc(size), .size = size};
    for (uint64_t i = 0; i < size; i++)
        disk->bytes[i] = (uint8_t)(i / 512 + i);
}

static void begin(uint64_t size_a, uint64_t size_b)
{
    struct error err = {""};
    board_setup();
    irq6 = false;
    insert(&disk_a, size_a ? size_a : 1);
    insert(&disk_b, size_b ? size_b : 1);
    const struct fdc_config config = {{size_a ? &disk_a : NULL, size_b ? &disk_b : NULL}};
    dma = dma_new(&board);
    fdc = fdc_new(&board, dma, &config, (struct irq_line){.set = on_irq6}, &err);
    ck_assert_msg(fdc != NULL, "%s", err.msg);
}

static void end(void)
{
    chip_device(fdc)->destroy(chip_device(fdc));
    chip_device(dma)->destroy(chip_device(dma));
    board_teardown();
    free(disk_a.bytes);
    free(disk_b.bytes);
}

/* ---- The driver ------------------------------------------------------------------------------ */

static void send(const char *hex)
{
    for (const char *at = hex; *at; at += at[2] ? 3 : 2) {
        ck_assert_uint_eq(inp(0x3f4, 1) & 0xc0, 0x80);
        outp(0x3f5, 1, (uint32_t)strtoul(at, NULL, 16));
    }
}
/* The result phase is exactly this. */
static void expect(const char *hex)
{
    for (const char *at = hex; *at; at += at[2] ? 3 : 2) {
        ck_assert_uint_eq(inp(0x3f4, 1) & 0xd0, 0xd0);
        unsigned byte = inp(0x3f5, 1), want = (unsigned)strtoul(at, NULL, 16);
        ck_assert_msg(byte == want, "%02x where %s should be", byte, at);
    }
    ck_assert_uint_eq(inp(0x3f4, 1), 0x80);
}
static void wait(void)
{
    for (unsigned i = 0; i < 1000 && !irq6; i++)
        event_poll(board.queue);
    ck_assert(irq6);
}
/* mode: 46h reads the disk (writes memory), 4ah writes it, 42h verifies. */
static void program_dma(uint8_t mode, unsigned count)
{
    outp(0x0a, 1, 6);
    outp(0x0c, 1, 0);
    outp(0x0b, 1, mode);
    outp(0x04, 1, BUFFER & 0xff);
    outp(0x04, 1, BUFFER >> 8 & 0xff);
    outp(0x81, 1, BUFFER >> 16);
    outp(0x05, 1, (count - 1) & 0xff);
    outp(0x05, 1, (count - 1) >> 8);
    outp(0x0a, 1, 2);
}
static void start(uint8_t drive, uint8_t rate)
{
    outp(0x3f2, 1, 0);
    outp(0x3f2, 1, 0x1cu << drive | 0x0c | drive);
    wait();
    for (unsigned i = 0; i < 4; i++) {
        char want[8];
        snprintf(want, sizeof(want), "%02x 00", 0xc0 + i);
        send("08");
        expect(want);
    }
    ck_assert(!irq6);
    outp(0x3f7, 1, rate);
    send("03 df 02");
}
static void seek(const char *command, const char *result)
{
    send(command);
    ck_assert(irq6);
    send("08");
    expect(result);
    ck_assert(!irq6);
}
static bool same(unsigned lba, unsigned sectors)
{
    for (unsigned i = 0; i < 512 * sectors; i++)
        if (mem_in(BUFFER + i, 1) != disk_a.bytes[512 * lba + i])
            return false;
    return true;
}

/* ---- DMA ------------------------------------------------------------------------------------- */

START_TEST(dma_registers)
{
    bool tc;
    uint8_t bytes[16] = {1, 2, 3, 4};
    begin(0, 0);
    outp(0x0d, 1, 0);
    ck_assert_uint_eq(inp(0x0f, 1), 0xff);
    ck_assert_uint_eq(dma_transfer(dma, 2, bytes, 4, &tc), 0); /* masked */
    program_dma(0x46, 3);
    outp(0x0c, 1, 0);
    ck_assert_uint_eq(inp(0x04, 1), 0x00);
    ck_assert_uint_eq(inp(0x04, 1), 0x20);
    ck_assert_uint_eq(inp(0x05, 1), 0x02);
    ck_assert_uint_eq(dma_transfer(dma, 2, bytes, 2, &tc), 2);
    ck_assert(!tc);
    ck_assert_uint_eq(dma_transfer(dma, 2, bytes + 2, 2, &tc), 1);
    ck_assert(tc);
    ck_assert_uint_eq(mem_in(BUFFER, 4), 0x030201);
    ck_assert_uint_eq(inp(0x08, 1), 4); /* terminal count of channel 2; reading forgets it */
    ck_assert_uint_eq(inp(0x08, 1), 0);
    ck_assert_uint_eq(dma_transfer(dma, 2, bytes, 4, &tc), 0); /* masked again */
    end();
}
END_TEST

START_TEST(dma_modes)
{
    bool tc;
    uint8_t bytes[4] = {1, 2, 3, 4};
    begin(0, 0);
    program_dma(0x76, 2); /* to memory, downwards, again and again */
    ck_assert_uint_eq(dma_transfer(dma, 2, bytes, 4, &tc), 2);
    ck_assert(tc);
    ck_assert_uint_eq(dma_transfer(dma, 2, bytes + 2, 1, &tc), 1);
    ck_assert_uint_eq(mem_in(BUFFER - 1, 2), 0x0302);
    program_dma(0x4a, 2);
    ck_assert_uint_eq(dma_transfer(dma, 2, bytes, 1, &tc), 1);
    ck_assert_uint_eq(bytes[0], 3);
    program_dma(0x42, 2);
    bytes[0] = 0x77;
    ck_assert_uint_eq(dma_transfer(dma, 2, bytes, 1, &tc), 1);
    ck_assert_uint_eq(mem_in(BUFFER, 1), 3);
    outp(0x08, 1, 4); /* the controller is off */
    ck_assert_uint_eq(dma_transfer(dma, 2, bytes, 1, &tc), 0);
    outp(0x08, 1, 0);
    /* words: channel 5, page without bit 0 */
    outp(0xd8, 1, 0);
    outp(0xc4, 1, 0x00), outp(0xc4, 1, 0x11);
    outp(0x8b, 1, 0x03);
    outp(0xc6, 1, 1), outp(0xc6, 1, 0);
    outp(0xd6, 1, 0x45);
    outp(0xd4, 1, 1);
    ck_assert_uint_eq(dma_transfer(dma, 5, bytes, 3, &tc), 2);
    ck_assert_uint_eq(mem_in(0x22200, 2), 0x0277);
    /* beyond the memory: nothing there, nothing happens */
    program_dma(0x46, 2);
    outp(0x81, 1, 0xff);
    ck_assert_uint_eq(dma_transfer(dma, 2, bytes, 4, &tc), 2);
    end();
}
END_TEST

/* ---- The controller -------------------------------------------------------------------------- */

START_TEST(identity_and_settings)
{
    begin(1474560, 0);
    start(0, 0);
    ck_assert_uint_eq(fdc_drive_type(fdc, 0), 4);
    ck_assert_uint_eq(fdc_drive_type(fdc, 1), 0);
    send("10"), expect("90");
    send("18"), expect("41");
    send("ff"), expect("80");
    send("08"), expect("80");
    send("13 00 57 05");
    send("12 81");
    send("94"), expect("10");
    send("0e"), expect("00 00 00 00 df 02 00 81 57 05");
    outp(0x3f4, 1, 0x80);     /* a reset leaves what is locked */
    send("08"), expect("80"); /* and polling is off */
    send("0e"), expect("00 00 00 00 df 02 00 80 57 05");
    send("14"), expect("00");
    outp(0x3f4, 1, 0x80);
    send("0e"), expect("00 00 00 00 df 02 00 00 20 00");
    send("8e 01 02 80"); /* drive specification */
    ck_assert_uint_eq(inp(0x3f4, 1), 0x80);
    ck_assert_uint_eq(inp(0x3f0, 1), 0xff); /* not there in AT mode */
    end();
}
END_TEST

START_TEST(seeks)
{
    begin(1474560, 0);
    start(0, 0);
    ck_assert_uint_eq(inp(0x3f7, 1), 0x80); /* the disk may have been changed */
    seek("07 00", "20 00");
    ck_assert_uint_eq(inp(0x3f7, 1), 0);
    seek("0f 04 21", "24 21");
    send("04 04"), expect("2c");
    seek("cf 00 04", "20 25");
    seek("8f 00 ff", "20 00");
    send("04 00"), expect("38");
    seek("07 01", "71 00"); /* there is no drive B: */
    send("04 01"), expect("79");
    end();
}
END_TEST

START_TEST(reads)
{
    begin(1474560, 0);
    start(0, 0);
    program_dma(0x46, 1024);
    send("e6 00 00 00 03 02 12 1b ff");
    ck_assert_uint_eq(inp(0x3f4, 1), 0x10); /* busy */
    wait();
    ck_assert(same(2, 2));
    expect("00 00 00 00 00 05 02");
    ck_assert(!irq6);
    /* both sides of a track, with MT; then the cylinder is over */
    seek("0f 00 05", "20 05");
    program_dma(0x46, 36 * 512);
    send("e6 00 05 00 01 02 12 1b ff");
    wait();
    ck_assert(same(5 * 36, 36));
    expect("00 00 00 06 00 01 02");
    /* no TC at the track's end */
    program_dma(0x46, 4096);
    send("46 04 05 01 12 02 12 1b ff");
    wait();
    expect("44 80 00 06 01 01 02");
    /* half a sector */
    program_dma(0x46, 100);
    send("46 00 05 00 01 02 12 1b ff");
    wait();
    expect("00 00 00 05 00 02 02");
    end();
}
END_TEST

START_TEST(what_is_not_there)
{
    begin(1474560, 0);
    start(0, 0);
    program_dma(0x46, 512);
    send("46 00 01 00 01 02 12 1b ff"); /* another cylinder */
    wait();
    expect("40 04 10 01 00 01 02");
    send("13 00 40 00"); /* implied seek */
    send("46 00 01 00 01 02 12 1b ff");
    wait();
    expect("00 00 00 01 00 02 02");
    ck_assert(same(36, 1));
    program_dma(0x46, 512);
    send("46 00 01 00 13 02 24 1b ff"); /* sector 19 */
    wait();
    expect("40 04 00 01 00 13 02");
    send("46 00 01 00 01 03 12 1b ff"); /* of 1024 bytes */
    wait();
    expect("40 04 00 01 00 01 03");
    outp(0x3f7, 1, 2); /* at another data rate there is nothing at all */
    send("4a 00");
    wait();
    expect("40 01 00 00 00 00 00");
    send("46 00 01 00 01 02 12 1b ff");
    wait();
    expect("40 01 00 01 00 01 02");
    outp(0x3f7, 1, 0);
    send("4a 00");
    wait();
    expect("00 00 00 01 00 01 02");
    send("4a 04");
    wait();
    expect("04 00 00 01 01 02 02");
    send("46 01 00 00 01 02 12 1b ff"); /* no drive */
    wait();
    expect("41 01 00 00 00 01 02");
    disk_a.broken = true;
    program_dma(0x46, 512);
    send("46 00 01 00 01 02 12 1b ff");
    wait();
    expect("40 20 00 01 00 01 02");
    end();
}
END_TEST

START_TEST(writes_and_formats)
{
    begin(1474560, 0);
    start(0, 0);
    for (unsigned i = 0; i < 1024; i++)
        mem_out(BUFFER + i, 1, i * 7 + 1);
    program_dma(0x4a, 612);
    send("45 00 00 00 02 02 12 1b ff");
    wait();
    expect("00 00 00 00 00 04 02");
    ck_assert_uint_eq(disk_a.bytes[512], 1);
    ck_assert_uint_eq(disk_a.bytes[1024 + 99], (uint8_t)(611 * 7 + 1));
    ck_assert_uint_eq(disk_a.bytes[1024 + 100], 0); /* the rest of the sector is zeros */
    /* a track of filler */
    for (unsigned i = 0; i < 18; i++)
        mem_out(BUFFER + 4 * i, 4, 0x02000100u | (i + 1) << 16);
    seek("0f 00 00", "20 00");
    program_dma(0x4a, 72);
    send("4d 04 02 12 54 f6");
    wait();
    ck_assert_uint_eq(inp(0x3f5, 1), 4);
    for (unsigned i = 1; i < 7; i++)
        inp(0x3f5, 1);
    ck_assert_uint_ne(disk_a.bytes[512 * 18 - 1], 0xf6);
    for (unsigned i = 0; i < 512 * 18; i++)
        ck_assert_uint_eq(disk_a.bytes[512 * 18 + i], 0xf6);
    ck_assert_uint_eq(disk_a.bytes[512 * 36], (uint8_t)36);
    disk_a.read_only = true;
    program_dma(0x4a, 512);
    send("45 00 00 00 02 02 12 1b ff");
    wait();
    expect("40 02 00 00 00 02 02");
    send("04 00"), expect("78");
    end();
}
END_TEST

START_TEST(verify_scan_and_tracks)
{
    begin(1474560, 0);
    start(0, 0);
    send("16 80 00 00 01 02 12 1b 03"); /* three sectors */
    wait();
    expect("00 00 00 00 00 04 02");
    send("16 00 00 00 11 02 12 1b ff"); /* to the end of the track */
    wait();
    expect("00 00 00 01 00 01 02");
    for (unsigned i = 0; i < 1024; i++)
        mem_out(BUFFER + i, 1, disk_a.bytes[512 * 2 + i % 512]);
    program_dma(0x4a, 1024);
    send("11 00 00 00 02 02 12 1b 01"); /* the second one is equal */
    wait();
    expect("00 00 08 00 00 03 02");
    mem_out(BUFFER + 5, 1, disk_a.bytes[1024 + 5] + 1);
    program_dma(0x4a, 512);
    send("19 00 00 00 03 02 03 1b 01"); /* low or equal */
    wait();
    expect("00 00 00 00 00 03 02");
    program_dma(0x4a, 512);
    send("1d 00 00 00 03 02 03 1b 01"); /* high or equal: it is not */
    wait();
    expect("00 00 04 01 00 01 02");
    program_dma(0x46, 1024);
    send("02 00 00 00 07 02 12 1b ff"); /* a track, from its beginning */
    wait();
    ck_assert(same(0, 2));
    expect("00 00 00 00 00 03 02");
    program_dma(0x46, 1024);
    send("4c 00 00 00 01 02 12 1b ff"); /* deleted data, which it is not */
    wait();
    expect("00 00 40 01 00 01 02");
    end();
}
END_TEST

START_TEST(without_dma)
{
    begin(1474560, 0);
    start(0, 0);
    send("03 df 03");
    send("46 00 00 00 12 02 12 1b ff");
    for (unsigned i = 0; i < 512; i++) {
        wait(); /* for each byte */
        ck_assert_uint_eq(inp(0x3f4, 1), 0xf0);
        ck_assert_uint_eq(inp(0x3f5, 1), disk_a.bytes[512 * 17 + i]);
    }
    wait();
    expect("40 80 00 01 00 01 02"); /* nobody can say TC */
    send("45 00 00 00 12 02 12 1b ff");
    for (unsigned i = 0; i < 512; i++) {
        ck_assert_uint_eq(inp(0x3f4, 1), 0xb0);
        outp(0x3f5, 1, 0x5a);
    }
    wait();
    expect("40 80 00 01 00 01 02");
    ck_assert_uint_eq(disk_a.bytes[512 * 18 - 1], 0x5a);
    end();
}
END_TEST

START_TEST(waits_for_its_channel)
{
    begin(1474560, 0);
    start(0, 0);
    program_dma(0x46, 512);
    outp(0x0a, 1, 6);
    send("46 00 00 00 01 02 12 1b ff");
    for (unsigned i = 0; i < 10; i++)
        event_poll(board.queue);
    ck_assert(!irq6);
    outp(0x0a, 1, 2);
    wait();
    ck_assert(same(0, 1));
    expect("00 00 00 00 00 02 02");
    end();
}
END_TEST

START_TEST(reset_in_the_middle)
{
    begin(1474560, 0);
    start(0, 0);
    program_dma(0x46, 512);
    send("46 00 00 00 01 02 12 1b ff");
    outp(0x3f2, 1, 0x18); /* while the image is at work */
    ck_assert_uint_eq(inp(0x3f4, 1), 0);
    event_poll(board.queue);
    ck_assert(!irq6);
    outp(0x3f2, 1, 0x1c);
    ck_assert(irq6);
    ck_assert(!same(0, 1));
    send("46 00 00 00 01 02 12 1b ff");
    chip_device(fdc)->reset(chip_device(fdc));
    event_poll(board.queue);
    ck_assert(!same(0, 1));
    outp(0x3f7, 1, 0);
    send("46 00 00 00 01 02 12 1b ff"); /* destroyed with a request in flight */
    chip_device(fdc)->destroy(chip_device(fdc));
    event_poll(board.queue);
    const struct fdc_config config = {{NULL, NULL}};
    fdc = fdc_new(&board, dma, &config, (struct irq_line){.set = on_irq6}, NULL);
    end();
}
END_TEST

START_TEST(a_write_waits_for_the_one_before_the_reset)
{
    begin(1474560, 0);
    start(0, 0);
    for (unsigned round = 1; round <= 3; round++) {
        mem_out(BUFFER, 1, round);
        program_dma(0x4a, 512);
        send("45 00 00 00 01 02 12 1b ff");
        ck_assert_uint_eq(in_flight, 1);
        if (round == 3)
            break;
        outp(0x3f2, 1, 0x18);
        outp(0x3f2, 1, 0x1c);
        for (unsigned i = 0; i < 4; i++) {
            send("08");
            inp(0x3f5, 1), inp(0x3f5, 1);
        }
        ck_assert(!irq6);
    }
    wait();
    expect("00 00 00 00 00 02 02");
    ck_assert_uint_eq(disk_a.bytes[0], 3);
    end();
}
END_TEST

START_TEST(another_disk)
{
    struct error err = {""};
    begin(1474560, 737280);
    start(0, 0);
    seek("0f 00 01", "20 01");
    ck_assert_uint_eq(inp(0x3f7, 1), 0);
    program_dma(0x46, 512);
    send("46 00 01 00 01 02 12 1b ff"); /* taken out while it is read */
    ck_assert(fdc_change(fdc, 0, NULL, &err));
    ck_assert(irq6);
    expect("40 01 00 01 00 01 02");
    event_poll(board.queue);
    ck_assert_uint_eq(inp(0x3f7, 1), 0x80);
    seek("07 00", "20 00");
    ck_assert_uint_eq(inp(0x3f7, 1), 0x80); /* nothing in it yet */
    send("46 00 00 00 01 02 12 1b ff");
    wait();
    expect("40 01 00 00 00 01 02");
    ck_assert(!fdc_change(fdc, 1, &disk_a, &err)); /* a drive for 720K */
    ck_assert_str_eq(err.msg, "a disk of 1474560 bytes does not fit the floppy drive");
    ck_assert(fdc_change(fdc, 1, NULL, &err));
    ck_assert(fdc_change(fdc, 0, &disk_b, &err));
    ck_assert_uint_eq(fdc_drive_type(fdc, 0), 4);
    outp(0x3f7, 1, 2);
    seek("0f 00 01", "20 01");
    ck_assert_uint_eq(inp(0x3f7, 1), 0);
    program_dma(0x46, 512);
    send("46 00 01 00 01 02 09 1b ff");
    wait();
    expect("00 00 00 01 00 02 02");
    ck_assert_uint_eq(mem_in(BUFFER + 5, 1), disk_b.bytes[18 * 512 + 5]);
    end();
}
END_TEST

/* A field of the controller's saved state is something else. */
static void alter(const char *name, uint64_t value)
{
    const struct state_desc *state = chip_device(fdc)->state;
    for (unsigned i = 0; i < state->field_count; i++)
        if (!strcmp(state->fields[i].name, name)) {
            field_set(&state->fields[i], fdc, 0, value);
            return;
        }
    ck_abort_msg("no field %s", name);
}

START_TEST(saved_states_that_cannot_be)
{
    static const struct {
        const char *field;
        uint64_t value;
    } rows[] = {{"step", 0}, {"step", 5}, {"unit", 1}, {"unit", 3}, {"at", 513}, {"len", 513}};
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) { /* a transfer, but not so */
        begin(1474560, 0);
        start(0, 0);
        program_dma(0x46, 512);
        send("46 00 00 00 01 02 12 1b ff");
        alter(rows[i].field, rows[i].value);
        chip_device(fdc)->restored(chip_device(fdc));
        wait();
        ck_assert_uint_eq(inp(0x3f5, 1) & 0xc0, 0x40);
        ck_assert_uint_eq(inp(0x3f5, 1), 1);
        event_poll(board.queue);
        end();
    }
    /* no command, but its image is at work: it must not meet the next one */
    for (unsigned step = 1; step < 5; step++) {
        begin(1474560, 0);
        start(0, 0);
        alter("sector", 1);
        alter("step", step);
        chip_device(fdc)->restored(chip_device(fdc));
        ck_assert_uint_eq(in_flight, 0);
        program_dma(0x46, 512);
        send("46 00 00 00 01 02 12 1b ff");
        wait();
        ck_assert(same(0, 1));
        end();
    }
    /* a write, and another disk */
    begin(1474560, 0);
    start(0, 0);
    program_dma(0x4a, 512);
    send("45 00 00 00 01 02 12 1b ff");
    event_poll(board.queue);
    disk_a.read_only = true;
    alter("phase", 1);
    alter("step", 2);
    chip_device(fdc)->restored(chip_device(fdc));
    wait();
    ck_assert_uint_eq(inp(0x3f5, 1) & 0xc0, 0x40);
    ck_assert_uint_eq(inp(0x3f5, 1), 2);
    alter("phase", 3);
    chip_device(fdc)->restored(chip_device(fdc));
    ck_assert_uint_eq(inp(0x3f4, 1), 0x80);
    end();
}
END_TEST

START_TEST(sizes)
{
    static const struct {
        uint64_t size;
        uint8_t type;
    } rows[] = {{163840, 1},  {184320, 1},  {327680, 1},  {368640, 1}, {737280, 3}, {1228800, 2},
                {1474560, 4}, {1720320, 4}, {2949120, 5}, {512, 4},    {2000896, 5}};
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        begin(rows[i].size, rows[i].size);
        ck_assert_uint_eq(fdc_drive_type(fdc, 1), rows[i].type);
        end();
    }
    /* what a short image lacks reads as zeros and cannot be written */
    begin(512, 0);
    start(0, 0);
    program_dma(0x46, 1024);
    send("46 00 00 00 01 02 12 1b ff");
    wait();
    expect("00 00 00 00 00 03 02");
    ck_assert_uint_eq(mem_in(BUFFER + 511, 1), disk_a.bytes[511]);
    ck_assert_uint_eq(mem_in(BUFFER + 512, 8), 0);
    program_dma(0x4a, 1024);
    send("45 00 00 00 01 02 12 1b ff");
    wait();
    expect("40 04 00 00 00 02 02");
    struct error err = {""};
    struct blockdev big = {.size = 10 << 20};
    const struct fdc_config config = {{&big, NULL}};
    ck_assert_ptr_null(fdc_new(&board, dma, &config, (struct irq_line){0}, &err));
    ck_assert_ptr_nonnull(strstr(err.msg, "10485760 bytes"));
    end();
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        dma_registers,
        dma_modes,
        identity_and_settings,
        seeks,
        reads,
        what_is_not_there,
        writes_and_formats,
        verify_scan_and_tracks,
        without_dma,
        waits_for_its_channel,
        reset_in_the_middle,
        a_write_waits_for_the_one_before_the_reset,
        another_disk,
        saved_states_that_cannot_be,
        sizes,
    };
    Suite *s = suite_create("floppy");
    TCase *t = tcase_create("floppy");
    for (unsigned i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
        tcase_add_test(t, tests[i]);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
