/*
 * vga_pci.c - the display adapter of `-vga std` on the PCI bus: 1234:1111, with its ports, windows,
 * base addresses and ROM.
 *
 *     BAR 0   the memory, as memory
 *     BAR 2   4 KiB of registers: 000h EDID, 400h ports 3C0h-3DFh, 500h VBE's, 600h QEMU's
 *     ROM     its BIOS, from a file
 *     ports   1CEh-1D1h VBE, 3B4h-3B5h, 3BAh, 3C0h-3CFh, 3D4h-3D5h, 3DAh
 *     A0000h  128 KiB, the window
 *
 * QEMU's docs/specs/standard-vga.txt describes it.
 */
#include "internal/chips.h"
#include "internal/error.h"
#include "internal/pci.h"
#include "vga.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    BAR_MEMORY = 0,
    BAR_REGISTERS = 2,
    REGISTERS_SIZE = 4096,
    REGS_PORTS = 0x400,
    REGS_VBE = 0x500,
    REGS_QEMU = 0x600,
    QEMU_REGS_SIZE = 8,
    BYTE_ORDER_LITTLE = 0x1e1e1e1e,
    EDID_WIDTH = 1280,
    EDID_HEIGHT = 800,
    ROM_MIN = 4096,
    PORT_RANGES = 5,
};

struct port_range {
    struct vga *vga;
    uint16_t base;
    int handle;
};

struct vga_adapter {
    struct pci_device pci;
    struct vga vga;
    struct board *board;
    struct ram_block *block;
    uint8_t edid[EDID_BYTES];
    uint8_t *rom; /* as in the file; NULL: none */
    size_t rom_size;
    struct port_range range[PORT_RANGES];
    int vbe_ports, window;
};

static void memory_written(struct vga *vga, uint32_t offset, uint32_t len)
{
    struct vga_adapter *a = (struct vga_adapter *)((char *)vga - offsetof(struct vga_adapter, vga));
    phys_block_written(a->board->map, a->block, offset, len);
}

/* ---- Ports ----------------------------------------------------------------------------------- */

static uint64_t port_read(void *opaque, const struct access *access, uint64_t offset, unsigned size)
{
    const struct port_range *range = opaque;
    (void)access, (void)size;
    return vga_port_read(range->vga, (uint16_t)(range->base + offset));
}

static void port_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                       uint64_t value)
{
    const struct port_range *range = opaque;
    (void)access, (void)size;
    vga_port_write(range->vga, (uint16_t)(range->base + offset), (uint8_t)value);
}

static const struct io_ops port_ops = {port_read, port_write, 1, 1};

/* The index is a word at 1CEh, the value one at 1CFh, which a PC can have, or at 1D0h, for machines
 * that cannot. Bytes are none of either. */
static uint64_t vbe_port_read(void *opaque, const struct access *access, uint64_t offset,
                              unsigned size)
{
    struct vga *vga = opaque;
    (void)access, (void)size;
    return offset == 0 ? vga->vbe_index : vga_vbe_read(vga, vga->vbe_index);
}

static void vbe_port_write(void *opaque, const struct access *access, uint64_t offset,
                           unsigned size, uint64_t value)
{
    struct vga *vga = opaque;
    (void)access;
    if (size != 2)
        return;
    if (offset == 0)
        vga->vbe_index = (uint16_t)value;
    else
        vga_vbe_write(vga, vga->vbe_index, (uint16_t)value);
}

static const struct io_ops vbe_ops = {vbe_port_read, vbe_port_write, 1, 2};

static void claim_ports(struct vga_adapter *a)
{
    static const struct {
        uint16_t base, count;
    } ranges[PORT_RANGES] = {{0x3b4, 2}, {0x3ba, 1}, {0x3c0, 16}, {0x3d4, 2}, {0x3da, 1}};
    for (unsigned i = 0; i < PORT_RANGES; i++) {
        a->range[i] = (struct port_range){.vga = &a->vga, .base = ranges[i].base};
        a->range[i].handle =
            io_add(a->board->io, ranges[i].base, ranges[i].count, &port_ops, &a->range[i], "vga");
    }
    a->vbe_ports = io_add(a->board->io, 0x1ce, 4, &vbe_ops, &a->vga, "vga vbe");
}

/* ---- Registers in memory --------------------------------------------------------------------- */

/* QEMU's: how many bytes they are, and the frame buffer's byte order. */
static uint64_t qemu_register(uint64_t offset)
{
    static const uint32_t regs[] = {QEMU_REGS_SIZE, BYTE_ORDER_LITTLE};
    return regs[offset / 4] >> 8 * (offset & 2);
}

static uint64_t registers_read(void *opaque, const struct access *access, uint64_t offset,
                               unsigned size)
{
    struct vga_adapter *a = opaque;
    uint64_t value = 0;
    (void)access;
    if (offset >= REGS_PORTS && offset < REGS_PORTS + 0x20) {
        for (unsigned i = 0; i < size; i++)
            value |= (uint64_t)vga_port_read(&a->vga, (uint16_t)(0x3c0 + offset - REGS_PORTS + i))
                     << 8 * i;
    } else if (offset >= REGS_VBE && offset < REGS_VBE + 2 * VBE_REGS) {
        value = vga_vbe_read(&a->vga, (unsigned)(offset - REGS_VBE) / 2) >> 8 * (offset & 1);
    } else if (offset >= REGS_QEMU && offset < REGS_QEMU + QEMU_REGS_SIZE) {
        value = qemu_register(offset - REGS_QEMU) >> 8 * (offset & 1);
    } else if (offset < EDID_BYTES) {
        value =
            a->edid[offset] | (size > 1 && offset + 1 < EDID_BYTES ? a->edid[offset + 1] << 8 : 0);
    }
    return value;
}

static void registers_write(void *opaque, const struct access *access, uint64_t offset,
                            unsigned size, uint64_t value)
{
    struct vga_adapter *a = opaque;
    (void)access;
    if (offset >= REGS_PORTS && offset < REGS_PORTS + 0x20) {
        for (unsigned i = 0; i < size; i++)
            vga_port_write(&a->vga, (uint16_t)(0x3c0 + offset - REGS_PORTS + i),
                           (uint8_t)(value >> 8 * i));
    } else if (offset >= REGS_VBE && offset < REGS_VBE + 2 * VBE_REGS && size == 2) {
        vga_vbe_write(&a->vga, (unsigned)(offset - REGS_VBE) / 2, (uint16_t)value);
    }
}

static const struct io_ops registers_ops = {registers_read, registers_write, 1, 2};

/* ---- ROM ------------------------------------------------------------------------------------- */

static bool read_file(struct vga_adapter *a, const char *path, struct error *err)
{
    enum { MOST = 16 << 20 };
    FILE *file = fopen(path, "rb");
    if (!file)
        return error_set(err, "%s: %s; Debian's package seabios has the display's BIOS", path,
                         strerror(errno));
    a->rom = malloc(MOST);
    a->rom_size = a->rom ? fread(a->rom, 1, MOST, file) : 0;
    bool ok = !ferror(file) && a->rom_size >= 3 && feof(file);
    fclose(file);
    /* PCI 3.0, 6.3.1.1: the image begins with 55AAh */
    if (ok && a->rom[0] == 0x55 && a->rom[1] == 0xaa)
        return true;
    return error_set(err, "%s: is no expansion ROM", path);
}

static bool add_rom(struct vga_adapter *a, const char *path, struct error *err)
{
    uint64_t size = ROM_MIN;
    if (!path)
        return true;
    if (!read_file(a, path, err))
        return false;
    while (size < a->rom_size)
        size *= 2;
    struct ram_block *block = phys_rom_new(a->board->map, size, a->rom, a->rom_size, err);
    if (!block)
        return error_prefix(err, "%s", path);
    pci_set_rom(&a->pci, size, block, "vga.rom");
    return true;
}

/* The ROM's font of 8 x 16 for code page 437, as its INT 10h would give it: found by its second
 * character, the face, behind 16 bytes of nothing. */
static const uint8_t *rom_font(const struct vga_adapter *a)
{
    static const uint8_t head[32] = {[18] = 0x7e, 0x81, 0xa5, 0x81, 0x81,
                                     0xbd,        0x99, 0x81, 0x81, 0x7e};
    for (size_t i = 0; i + 256 * 16 <= a->rom_size; i++)
        if (memcmp(a->rom + i, head, sizeof(head)) == 0)
            return a->rom + i;
    return NULL;
}

void vga_start_text(struct pci_device *vga)
{
    struct vga_adapter *a = (struct vga_adapter *)vga;
    vga_text_mode(&a->vga, rom_font(a));
}

/* ---- Life ------------------------------------------------------------------------------------ */

static bool draw(void *opaque, struct display_picture *picture, struct error *err)
{
    return vga_draw(opaque, picture, err);
}

static bool text(void *opaque, FILE *out, struct error *err)
{
    return vga_text(opaque, out, err);
}

struct display vga_display(struct pci_device *vga)
{
    return (struct display){
        .opaque = &((struct vga_adapter *)vga)->vga, .draw = draw, .text = text};
}

static void adapter_reset(struct device *dev)
{
    struct vga_adapter *a = (struct vga_adapter *)dev;
    pci_device_reset(&a->pci);
    vga_reset(&a->vga);
}

static void adapter_restored(struct device *dev)
{
    pci_device_restored(&((struct vga_adapter *)dev)->pci);
}

static void adapter_destroy(struct device *dev)
{
    struct vga_adapter *a = (struct vga_adapter *)dev;
    for (unsigned i = 0; i < PORT_RANGES && a->range[i].vga; i++)
        io_remove(a->board->io, a->range[i].handle);
    io_remove(a->board->io, a->vbe_ports);
    if (a->window >= 0)
        phys_remove(a->board->map, a->window);
    pci_device_remove(&a->pci);
    free(a->rom);
    free(a);
}

static const struct field adapter_fields[] = {
    PCI_DEVICE_FIELDS(struct vga_adapter, pci),
    VGA_FIELDS(struct vga_adapter, vga),
};
static const struct state_desc adapter_state = STATE_DESC("vga", 1, adapter_fields);

static bool fill(struct vga_adapter *a, const struct vga_options *options, struct error *err)
{
    static const struct pci_identity identity = {.vendor = 0x1234,
                                                 .device = 0x1111,
                                                 .subsystem_vendor = 0x1af4,
                                                 .subsystem = 0x1100,
                                                 .revision = 2,
                                                 .class_code = 0x030000};
    uint32_t mib = options->memory_mib ? options->memory_mib : 16;
    if (mib > 256 || (mib & (mib - 1)))
        return error_set(err, "VGA: %u MiB of memory: must be 1, 2, 4 ... 256", mib);
    a->vga.memory_size = mib << 20;
    a->block = phys_ram_new(a->board->map, a->vga.memory_size, err);
    if (!a->block)
        return error_prefix(err, "VGA");
    a->vga.memory = phys_block_bytes(a->block);
    a->vga.clock = a->board->clock;
    a->vga.written = memory_written;
    pci_device_init(&a->pci, &identity);
    pci_set_memory_bar(&a->pci, BAR_MEMORY, a->vga.memory_size, a->block, "vga.memory");
    pci_set_bar(&a->pci, BAR_REGISTERS, PCI_BAR_MEM32, REGISTERS_SIZE, &registers_ops, a,
                "vga.registers");
    a->pci.writable[PCI_COMMAND] |= PCI_COMMAND_IO;
    edid_make(a->edid, EDID_WIDTH, EDID_HEIGHT);
    if (!add_rom(a, options->rom, err))
        return false;
    a->window = phys_add_mmio(a->board->map, VGA_WINDOW, VGA_WINDOW_SIZE, &vga_memory_ops, &a->vga,
                              "vga.window", err);
    return a->window >= 0;
}

struct pci_device *vga_create(struct pci_bus *bus, int devfn, const struct vga_options *options,
                              struct error *err)
{
    struct vga_adapter *a = chip_alloc(sizeof(*a));
    a->board = bus->board;
    a->window = -1;
    a->pci.dev = (struct device){.name = "vga",
                                 .state = &adapter_state,
                                 .reset = adapter_reset,
                                 .destroy = adapter_destroy,
                                 .restored = adapter_restored};
    if (!fill(a, options, err) || !pci_device_add(bus, &a->pci, devfn, err)) {
        adapter_destroy(&a->pci.dev);
        return NULL;
    }
    claim_ports(a);
    vga_reset(&a->vga);
    return &a->pci;
}
