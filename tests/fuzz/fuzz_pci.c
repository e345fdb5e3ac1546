/*
 * fuzz_pci.c - the PCI bus met by a hostile guest: configuration space by its ports, in any width,
 * with BARs moved over RAM, ROM, registers, ports and each other, decoding switched on and off,
 * shadow RAM opened and closed, then loads, stores and transfers wherever all that has led,
 * restored states and resets.
 *
 * Whatever the script says, after a reset the board shows what it showed before.
 */
#include "board.h"
#include "internal/ata.h"
#include "internal/blockdev.h"
#include "internal/display.h"
#include "internal/virtio.h"

enum { STEPS = 400, ROM_SIZE = 64 << 10, SHADOW = 1 << 20, DEVICES = 7 };
#define ROM_AT 0xffff0000u

/* ---- The board ------------------------------------------------------------------------------- */

/* No drive is plugged in. */
void blockdev_submit(struct blockdev *dev, struct blockdev_request *r)
{
    (void)dev, (void)r;
    require(false);
}
bool blockdev_may_lend(const struct blockdev *dev, enum blockdev_op op, uint64_t offset)
{
    (void)dev, (void)op, (void)offset;
    return false;
}
void blockdev_settle(struct blockdev *dev)
{
    (void)dev;
}
uint64_t blockdev_size(const struct blockdev *dev)
{
    (void)dev;
    return 0;
}
bool blockdev_read_only(const struct blockdev *dev)
{
    (void)dev;
    return true;
}
bool blockdev_default_write_cache(const struct blockdev *dev)
{
    (void)dev;
    return false;
}
bool blockdev_write_cache(const struct blockdev *dev)
{
    (void)dev;
    return false;
}
void blockdev_set_write_cache(struct blockdev *dev, bool on)
{
    (void)dev, (void)on;
}

static struct pci_bus *bus;
static struct device *devices[DEVICES];
static struct acpi_pm *pm;
static uint8_t *low_ram, *rom;
static int level[16];

static void send_message(void *opaque, uint64_t address, uint32_t data)
{
    (void)opaque, (void)address, (void)data;
}
static void set_irq(void *opaque, unsigned pin, bool on)
{
    (void)opaque;
    level[pin] = on;
}
static void pm_moved(void *opaque, uint16_t base)
{
    (void)opaque;
    acpi_pm_set_base(pm, base);
}

static void build(void)
{
    struct error err;
    const struct msi_port msi = {.send = send_message};
    const struct piix4_pm_port port = {.moved = pm_moved};
    const struct vga_options vga = {.memory_mib = 1};
    struct irq_line irqs[16];
    for (unsigned i = 0; i < 16; i++)
        irqs[i] = (struct irq_line){.set = set_irq, .pin = i};
    struct ram_block *ram = phys_ram_new(board.map, SHADOW, &err);
    struct ram_block *bios = phys_rom_new(board.map, ROM_SIZE, "bios", 4, &err);
    require(ram && bios && phys_map_block(board.map, ROM_AT, ROM_SIZE, bios, 0, "bios", &err) >= 0);
    rom = phys_block_bytes(bios);
    low_ram = phys_hva(board.map, 0, NULL);
    bus = i440fx_create(&board, &msi, &err);
    require(bus && i440fx_connect_memory(bus, ram, bios, ROM_SIZE, &err));
    pm = acpi_pm_new(&board, &(struct acpi_pm_config){.gpe_base = 0xafe0}, irqs[9]);
    devices[0] = &bus->host->dev;
    devices[1] = &piix3_create(bus, irqs, &err)->dev;
    devices[2] = &piix3_ide_create(bus, irqs + 14, &err)->dev;
    devices[3] = &piix4_pm_create(bus, &port, &err)->dev;
    devices[4] = &vga_create(bus, PCI_DEVFN(2, 0), &vga, &err)->dev;
    devices[5] = &ahci_create(bus, PCI_FIRST_FREE, &err)->dev;
    devices[6] = &virtio_rng_create(bus, PCI_FIRST_FREE, &err)->dev;
}

static void reset(void)
{
    for (unsigned i = 0; i < DEVICES; i++)
        devices[i]->reset(devices[i]);
    chip_device(pm)->reset(chip_device(pm));
}

static void as_it_was(void)
{
    uint64_t left;
    require(phys_hva(board.map, 0, &left) == low_ram && left == RAM);
    require(phys_hva(board.map, ROM_AT, &left) == rom && left == ROM_SIZE);
    require(phys_hva(board.map, 0xf0000, &left) == rom && left >= 1);
    require(!phys_hva(board.map, 0xc0000, NULL));
    io_write(board.io, &guest, 0xcf8, 4, 0x80000000);
    require(io_read(board.io, &guest, 0xcfc, 4) == 0x12378086);
}

/* ---- The guest ------------------------------------------------------------------------------- */

static uint8_t some_function(struct script *s)
{
    static const uint8_t functions[] = {PCI_DEVFN(0, 0), PCI_DEVFN(1, 0), PCI_DEVFN(1, 1),
                                        PCI_DEVFN(1, 3), PCI_DEVFN(2, 0), PCI_DEVFN(3, 0),
                                        PCI_DEVFN(4, 0), PCI_DEVFN(31, 7)};
    return functions[take(s, 1) & 7];
}

/* Where things are, and where BARs may go. */
static uint64_t some_place(struct script *s)
{
    static const uint64_t places[] = {
        0,
        0x1000,
        0x3f000,
        0xa0000,
        0xc0000,
        0xf0000,
        0xe0000000,
        0xe1000000,
        0xfebf0000,
        ROM_AT,
        ROM_AT - 0x1000,
        0xfffff000,
        0xfee00000,
        0x100000000,
        0xfffffff00,
        0xfffffffff0000000,
        0xfffffffffffff000,
        0x20000,
    };
    uint64_t v = take(s, 2);
    return places[v % (sizeof(places) / sizeof(*places))] + (v >> 8) * 0x100;
}

static uint16_t some_port(struct script *s)
{
    static const uint16_t ports[] = {0xcf8, 0xcfc, 0xcf9,  0x1f0,  0x3c0,  0x1ce,  0x600,
                                     0xb2,  0x92,  0xc000, 0xafe0, 0xffe0, 0xff00, 0xc100};
    unsigned v = (unsigned)take(s, 1);
    return (uint16_t)(ports[v % (sizeof(ports) / sizeof(*ports))] + (v >> 4) * 4);
}

/* By CONFIG_ADDRESS and CONFIG_DATA, or, where a BAR lies over these, the bus's own way. */
static void config_write(struct script *s)
{
    unsigned how = (unsigned)take(s, 1), at = (unsigned)take(s, 1), size = 1u << how % 3;
    uint8_t devfn = some_function(s);
    uint32_t value = (uint32_t)take(s, 4);
    if (how & 0x80) {
        io_write(board.io, &guest, 0xcf8, 4, 0x80000000 | (uint32_t)devfn << 8 | at);
        io_write(board.io, &guest, (uint16_t)(0xcfc + (at & 3)), size, value);
    } else {
        at &= ~(size - 1);
        pci_config_write(bus, devfn, at, size, value);
    }
}

static void move_bar(struct script *s)
{
    uint8_t devfn = some_function(s);
    unsigned bar = (unsigned)take(s, 1), offset = PCI_BAR0 + bar % 6 * 4;
    uint64_t to = bar & 0x80 ? some_port(s) : some_place(s);
    if (bar & 0x40)
        pci_config_write(bus, devfn, PCI_COMMAND, 2, take(s, 1) & 7);
    if ((bar & 0x30) == 0x30)
        offset = PCI_ROM_ADDRESS;
    pci_config_write(bus, devfn, offset, 4, (uint32_t)to | (offset == PCI_ROM_ADDRESS));
    if ((bar & 0x30) == 0x10)
        pci_config_write(bus, devfn, offset + 4, 4, (uint32_t)(to >> 32));
    if (!(bar & 0x40))
        pci_config_write(bus, devfn, PCI_COMMAND, 2, 7);
}

static void step(struct script *s)
{
    unsigned op = (unsigned)take(s, 1), size = 1u << (op >> 4) % 3;
    uint8_t bytes[64] = {0};
    const struct access dma = {.initiator = INITIATOR_DMA, .device = PCI_DEVFN(4, 0)};
    uint64_t at, len;
    switch (op & 15) {
    case 0:
    case 1:
        config_write(s);
        break;
    case 2:
        at = take(s, 1);
        pci_config_read(bus, some_function(s), (unsigned)at & ~(size - 1), size);
        break;
    case 3:
    case 4:
    case 5:
        move_bar(s);
        break;
    case 6:
    case 7:
        at = some_place(s);
        len = take(s, 1) % sizeof(bytes);
        memset(bytes, (int)take(s, 1), sizeof(bytes));
        phys_write(board.map, op & 0x80 ? &dma : &guest, at, bytes, len);
        break;
    case 8:
    case 9:
        at = some_place(s);
        phys_read(board.map, op & 0x80 ? &dma : &guest, at, bytes, take(s, 1) % sizeof(bytes));
        break;
    case 10:
        at = some_port(s);
        io_write(board.io, &guest, (uint16_t)at, size, (uint32_t)take(s, 4));
        break;
    case 11:
        io_read(board.io, &guest, some_port(s), size);
        break;
    case 12:
        pci_config_write(bus, 0, 0x58 + (op >> 4 & 4), 4, (uint32_t)take(s, 4));
        break;
    case 13:
        restore(devices[take(s, 1) % DEVICES], s);
        break;
    case 14:
        if (take(s, 1) == 0x55) {
            reset();
            as_it_was();
        }
        break;
    case 15:
        advance(take(s, 3));
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct script s = {data, data + size};
    board_begin();
    build();
    for (unsigned i = 0; i < STEPS && s.at < s.end; i++)
        step(&s);
    reset();
    as_it_was();
    for (unsigned i = DEVICES; i-- > 1;)
        devices[i]->destroy(devices[i]);
    chip_device(pm)->destroy(chip_device(pm));
    devices[0]->destroy(devices[0]);
    board_end();
    return 0;
}
