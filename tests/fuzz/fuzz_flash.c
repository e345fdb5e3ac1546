/*
 * fuzz_flash.c - flash chips met by a hostile guest: commands whole, broken off and in any width,
 * through the chip and through what shadow RAM's registers show of it below 1 MiB, restored states,
 * resets, and an image that answers late or fails.
 *
 * Whatever the script says, a chip has one request at its image and no second one, the array is
 * read as it is, and when the chips are gone and their images have done what they were asked for,
 * each image holds what its chip held. AddressSanitizer watches the rest.
 */
#include "board.h"
#include "internal/blockdev.h"
#include "internal/flash.h"
#include <errno.h>

enum { STEPS = 400, CHIPS = 2, CHIP = 128 << 10, SHADOW = 1 << 20, BELOW_1M = 0xc0000 };
#define END (1ull << 32)

/* ---- The images ------------------------------------------------------------------------------ */

struct blockdev {
    bool read_only;
    uint8_t bytes[CHIP];
    struct blockdev_request *waiting;
};
static struct blockdev images[CHIPS];

uint64_t blockdev_size(const struct blockdev *dev)
{
    return sizeof(dev->bytes);
}
bool blockdev_read_only(const struct blockdev *dev)
{
    return dev->read_only;
}
int blockdev_read_now(struct blockdev *dev, uint64_t offset, void *buf, size_t len)
{
    memcpy(buf, dev->bytes + offset, len);
    return 0;
}
void blockdev_submit(struct blockdev *dev, struct blockdev_request *r)
{
    require(!dev->waiting && !dev->read_only);
    require(r->op == BLOCKDEV_FLUSH || r->op == BLOCKDEV_WRITE);
    require(r->op == BLOCKDEV_FLUSH || (r->len && r->len % 512 == 0 && r->offset % 512 == 0 &&
                                        r->offset < CHIP && r->len <= CHIP - r->offset));
    dev->waiting = r;
}

static bool answer(struct blockdev *dev, bool fail)
{
    struct blockdev_request *r = dev->waiting;
    if (!r)
        return false;
    dev->waiting = NULL;
    if (r->op == BLOCKDEV_WRITE && !fail)
        memcpy(dev->bytes + r->offset, r->iov->iov_base, r->len);
    r->result = fail ? -ENOSPC : 0;
    r->done(r);
    return true;
}

/* ---- The guest ------------------------------------------------------------------------------- */

static struct pci_bus *bus;
static struct flash *chips[CHIPS];

static void send_message(void *opaque, uint64_t address, uint32_t data)
{
    (void)opaque, (void)address, (void)data;
}

static uint64_t place(struct script *s)
{
    uint64_t v = take(s, 3);
    switch (v >> 22) {
    case 0:
        return BELOW_1M + (v & 0x3ffff);
    case 1:
        return END - CHIPS * CHIP - 16 + (v & 0x1f); /* the ends of chips, and beyond */
    case 2:
        return END - CHIP - 16 + (v & 0x1f);
    default:
        return END - CHIPS * CHIP + (v & (CHIPS * CHIP - 1));
    }
}

static void store(uint64_t gpa, uint64_t value, unsigned size)
{
    phys_write(board.map, &guest, gpa, &value, size);
}

/* The two halves of a command, or the first only. */
static void pair(struct script *s, uint8_t first)
{
    uint64_t gpa = place(s);
    unsigned how = (unsigned)take(s, 1);
    store(gpa, first, 1);
    if (how & 1)
        store(how & 2 ? gpa : place(s), how & 4 ? 0xd0 : take(s, 8), 1u << (how >> 4 & 3));
}

static void fill_buffer(struct script *s)
{
    uint64_t gpa = place(s), words = take(s, 2);
    unsigned size = 1u << (words >> 12 & 3);
    store(gpa, 0xe8, 1);
    store(gpa, words & 0xfff, words >> 15 & 1 ? 1 : 2);
    for (uint64_t i = 0; i <= (words & 0xff); i++)
        store(gpa + i * size, take(s, 1) * 0x0101010101010101, size);
    store(gpa, take(s, 1) & 1 ? 0xd0 : 0xff, 1);
}

/* What can be read as ROM is the chip's bytes. */
static void look(struct script *s)
{
    uint8_t bytes[16];
    uint64_t gpa = place(s), len = take(s, 1) % 16 + 1;
    phys_read(board.map, &guest, gpa, bytes, len);
    for (unsigned i = 0; i < CHIPS; i++) {
        uint64_t base = flash_base(chips[i]), left;
        const uint8_t *rom = phys_hva(board.map, gpa, &left);
        if (rom && gpa >= base && gpa - base < CHIP)
            require(rom == phys_block_bytes(flash_block(chips[i])) + (gpa - base));
    }
}

static void step(struct script *s)
{
    static const uint8_t commands[] = {0x10, 0x20, 0x40, 0x50, 0x60, 0x70, 0x90, 0x98, 0xe8, 0xff};
    unsigned op = (unsigned)take(s, 1);
    struct device *chip = (struct device *)chips[op >> 7];
    switch (op & 15) {
    case 0:
    case 1:
        store(place(s), take(s, 8), 1u << (op >> 4 & 3));
        break;
    case 2:
    case 3:
        store(place(s), commands[take(s, 1) % sizeof(commands)], 1);
        break;
    case 4:
        pair(s, 0x10);
        break;
    case 5:
        pair(s, 0x20);
        break;
    case 6:
        pair(s, 0x60);
        break;
    case 7:
        fill_buffer(s);
        break;
    case 8:
    case 9:
        look(s);
        break;
    case 10:
        pci_config_write(bus, 0, 0x58 + (op >> 4 & 4), 4, (uint32_t)take(s, 4));
        break;
    case 11:
    case 12:
        answer(&images[op >> 7], (op >> 4 & 3) == 3);
        break;
    case 13:
        restore(chip, s);
        break;
    case 14:
        if (take(s, 1) == 0x55)
            chip->reset(chip);
        break;
    case 15:
        advance(take(s, 3));
        break;
    }
}

static void plug(unsigned flags)
{
    struct error err;
    const struct msi_port msi = {.send = send_message};
    uint64_t end = END;
    bus = i440fx_create(&board, &msi, &err);
    for (unsigned i = 0; i < CHIPS; i++) {
        memset(&images[i], 0, sizeof(images[i]));
        memset(images[i].bytes, 0xff, CHIP / 2);
        images[i].read_only = flags >> i & 1;
        chips[i] = flash_new(&board, &images[i], end, &err);
        require(chips[i] != NULL);
        end = flash_base(chips[i]);
    }
    struct ram_block *ram = phys_ram_new(board.map, SHADOW, &err);
    require(ram && i440fx_connect_memory(bus, ram, flash_block(chips[0]), CHIP, &err));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct script s = {data, data + size};
    board_begin();
    plug((unsigned)take(&s, 1));
    for (unsigned i = 0; i < STEPS && s.at < s.end; i++)
        step(&s);
    for (unsigned i = 0; i < CHIPS; i++) {
        const uint8_t *held = phys_block_bytes(flash_block(chips[i]));
        ((struct device *)chips[i])->destroy((struct device *)chips[i]);
        while (answer(&images[i], false))
            ;
        require(memcmp(images[i].bytes, held, CHIP) == 0);
    }
    bus->host->dev.destroy(&bus->host->dev);
    board_end();
    return 0;
}
