/*
 * fuzz_fw_cfg.c - the firmware configuration device met by hostile firmware: selector, data port
 * and transfers whose control blocks lie anywhere and say anything, into RAM, ROM, registers and
 * nothing, with files that change while they are read, and restored states.
 *
 * What comes out of the data port and of transfers into RAM is what the items hold, byte for byte,
 * with zeroes behind their ends. AddressSanitizer watches the rest.
 */
#include "board.h"
#include "internal/fw_cfg.h"
#include <endian.h>

enum { STEPS = 300, ROM_AT = 0x80000, REGISTERS_AT = 0x90000, FILES = 6, LARGEST = 9000 };

static struct fw_cfg *fw_cfg;
static uint8_t contents[LARGEST];
static unsigned version;

/* ---- What is there ----------------------------------------------------------------------------
 */

static uint64_t mmio_read(void *opaque, const struct access *access, uint64_t offset, unsigned size)
{
    (void)opaque, (void)access, (void)offset, (void)size;
    return 0;
}
static void mmio_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                       uint64_t value)
{
    (void)opaque, (void)offset, (void)size, (void)value;
    require(access->initiator != INITIATOR_DMA); /* registers are no place for a transfer */
}
static const struct io_ops mmio = {mmio_read, mmio_write, 1, 8};

static void add_files(void)
{
    static const uint16_t sizes[FILES] = {0, 1, 4095, 4096, 4097, LARGEST};
    struct error err;
    for (unsigned i = 0; i < FILES; i++) {
        char name[16];
        snprintf(name, sizeof(name), "etc/file%u", (i * 5 + 3) % FILES);
        require(fw_cfg_add_file(fw_cfg, name, contents, sizes[(i + version) % FILES], &err));
    }
}
static void directory_wanted(void *opaque)
{
    (void)opaque;
    version++;
    add_files();
}

/* ---- The guest --------------------------------------------------------------------------------
 */

static uint16_t some_key(struct script *s)
{
    static const uint16_t keys[] = {FW_CFG_SIGNATURE, FW_CFG_ID, FW_CFG_FILE_DIR, 0x3fff,
                                    FW_CFG_LOCAL,     0xffff,    0x4000,          0x5f};
    unsigned v = (unsigned)take(s, 1);
    return v & 0x80 ? keys[v & 7] : (uint16_t)(FW_CFG_FILE_FIRST + v % (FILES + 1));
}

static uint64_t some_address(struct script *s)
{
    uint64_t v = take(s, 3);
    switch (v >> 21 & 7) {
    case 0:
        return ROM_AT + (v & 0x1fff);
    case 1:
        return REGISTERS_AT - 8 + (v & 0x1fff);
    case 2:
        return UINT64_MAX - (v & 31);
    case 3:
        return RAM - 32 + (v & 63);
    case 4:
        return take(s, 8);
    default:
        return v & (RAM - 1);
    }
}

static void start(uint64_t gpa)
{
    io_write(board.io, &guest, FW_CFG_PORT + 4, 4, htobe32((uint32_t)(gpa >> 32)));
    io_write(board.io, &guest, FW_CFG_PORT + 8, 4, htobe32((uint32_t)gpa));
}

/* A control block as firmware makes it, perhaps with the transfer over itself. */
static void transfer(struct script *s)
{
    uint32_t control = (uint32_t)take(s, 1), length = (uint32_t)take(s, 3);
    uint64_t at = some_address(s), to = control & 0x20 ? at : some_address(s);
    if (control & 8)
        control |= (uint32_t)some_key(s) << 16;
    if (control & 0x40)
        length = (uint32_t)take(s, 4);
    const struct {
        uint32_t control, length;
        uint64_t address;
    } block = {htobe32(control & ~0xe0u), htobe32(length), htobe64(to)};
    phys_write(board.map, &guest, at, &block, sizeof(block));
    start(at);
}

/* A file that is read as drivers read it: all of its bytes, then nothing. */
static void whole_file(struct script *s)
{
    enum { BLOCK_AT = 0x100, TO = 0x1000, LEN = LARGEST + 64 };
    uint16_t key = (uint16_t)(FW_CFG_FILE_FIRST + take(s, 1) % FILES);
    const struct {
        uint32_t control, length;
        uint64_t address;
    } block = {htobe32((uint32_t)key << 16 | 8 | 2), htobe32(LEN), htobe64(TO)};
    uint8_t got[LEN];
    uint32_t status, n = 0;
    phys_write(board.map, &guest, BLOCK_AT, &block, sizeof(block));
    start(BLOCK_AT);
    phys_read(board.map, &guest, BLOCK_AT, &status, sizeof(status));
    phys_read(board.map, &guest, TO, got, sizeof(got));
    require(status == 0);
    while (n < LARGEST && got[n] == contents[n])
        n++;
    for (; n < LEN; n++)
        require(got[n] == 0);
    io_write(board.io, &guest, FW_CFG_PORT, 2, key);
    for (n = 0; n < 32 && got[n]; n++)
        require(io_read(board.io, &guest, FW_CFG_PORT + 1, 1) == got[n]);
}

static void step(struct script *s)
{
    unsigned op = (unsigned)take(s, 1), size = 1u << (op >> 4) % 3;
    uint64_t value;
    switch (op & 7) {
    case 0:
        io_write(board.io, &guest, FW_CFG_PORT, 2, some_key(s));
        break;
    case 1:
        for (uint64_t n = take(s, 1); n; n--)
            io_read(board.io, &guest, FW_CFG_PORT + 1, size);
        break;
    case 2:
        io_write(board.io, &guest, (uint16_t)(FW_CFG_PORT + take(s, 1) % 14), size,
                 (uint32_t)take(s, 4));
        break;
    case 3:
        io_read(board.io, &guest, (uint16_t)(FW_CFG_PORT + take(s, 1) % 14), size);
        break;
    case 4:
    case 5:
        transfer(s);
        break;
    case 6:
        if (op & 0x80) {
            restore((struct device *)fw_cfg, s);
        } else {
            value = take(s, 8);
            phys_write(board.map, &guest, some_address(s), &value, 8);
        }
        break;
    case 7:
        whole_file(s);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct script s = {data, data + size};
    struct error err;
    board_begin();
    struct ram_block *rom = phys_rom_new(board.map, 8192, NULL, 0, &err);
    require(rom && phys_map_block(board.map, ROM_AT, 8192, rom, 0, "rom", &err) >= 0);
    require(phys_add_mmio(board.map, REGISTERS_AT, 4096, &mmio, NULL, "registers", &err) >= 0);
    for (unsigned i = 0; i < LARGEST; i++)
        contents[i] = (uint8_t)(i % 251 + 1);
    version = 0;
    fw_cfg = fw_cfg_new(&board);
    fw_cfg_on_directory(fw_cfg, directory_wanted, NULL);
    add_files();
    for (unsigned i = 0; i < STEPS && s.at < s.end; i++)
        step(&s);
    ((struct device *)fw_cfg)->destroy((struct device *)fw_cfg);
    board_end();
    return 0;
}
