/*
 * fuzz_vga.c - the display adapter met by a hostile guest: registers by ports and in memory,
 * planes, BARs, restored states, and pictures of all that. AddressSanitizer watches; what is drawn
 * must be the same when it is drawn again.
 */
#include "board.h"
#include "internal/display.h"
#include <unistd.h>

enum { STEPS = 400, PICTURES = 2, DEVFN = PCI_DEVFN(2, 0) };
#define MEMORY    0xd0000000u
#define REGISTERS 0xd2000000u

static void send_message(void *opaque, uint64_t address, uint32_t data)
{
    (void)opaque, (void)address, (void)data;
}

static void look(const struct display *display, struct display_picture *picture)
{
    struct error err;
    char *text = NULL;
    size_t len = 0;
    if (display->draw(display->opaque, picture, &err)) {
        require(picture->width > 0 && picture->height > 0);
        require(display->draw(display->opaque, picture, &err));
        require(picture->first == picture->end);
    }
    FILE *out = open_memstream(&text, &len);
    display->text(display->opaque, out, &err);
    fclose(out);
    free(text);
}

static void step(struct pci_device *vga, struct script *s)
{
    static const uint16_t ports[] = {0x3c0, 0x3c2, 0x3c4, 0x3c5, 0x3c6, 0x3c7, 0x3c8, 0x3c9,
                                     0x3ce, 0x3cf, 0x3d4, 0x3d5, 0x3da, 0x1ce, 0x1cf, 0x3b4};
    unsigned op = (unsigned)take(s, 1), size = 1u << (op >> 4 & 1);
    uint64_t value, at;
    switch (op & 15) {
    case 0:
    case 1:
    case 2:
        at = ports[take(s, 1) % 16];
        io_write(board.io, &guest, (uint16_t)at, at == 0x1ce || at == 0x1cf ? 2 : size,
                 (uint32_t)take(s, 2));
        break;
    case 3:
        io_read(board.io, &guest, ports[take(s, 1) % 16], size);
        break;
    case 4:
    case 5: /* a register by index */
        at = (uint16_t[]){0x3c4, 0x3ce, 0x3d4, 0x3b4}[op >> 6];
        io_write(board.io, &guest, (uint16_t)at, 2, (uint32_t)take(s, 2));
        break;
    case 6:
    case 7:
        io_write(board.io, &guest, 0x1ce, 2, (uint32_t)take(s, 1) % 12);
        io_write(board.io, &guest, 0x1cf, 2, (uint32_t)take(s, 2));
        break;
    case 8:
    case 9:
        value = take(s, 4) * 0x100000001;
        phys_write(board.map, &guest, 0xa0000 + take(s, 3) % 0x20000, &value, 1u << (op >> 6));
        break;
    case 10:
        phys_read(board.map, &guest, 0xa0000 + take(s, 3) % 0x20000, &value, 1u << (op >> 6));
        break;
    case 11:
        value = take(s, 4);
        phys_write(board.map, &guest, (op & 0x20 ? REGISTERS : MEMORY) + take(s, 2), &value,
                   1u << (op >> 6));
        break;
    case 12:
        phys_read(board.map, &guest, REGISTERS + take(s, 2) % 4096, &value, 1u << (op >> 6));
        break;
    case 13:
        pci_config_write(vga->bus, DEVFN, (unsigned)take(s, 1) & 0xfc, 4, (uint32_t)take(s, 4));
        break;
    case 14:
        restore(&vga->dev, s);
        break;
    case 15:
        advance(take(s, 4));
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct script s = {data, data + size};
    struct display_picture picture = {0};
    struct error err;
    const struct msi_port msi = {.send = send_message};
    const struct vga_options options = {.memory_mib = 1};
    board_begin();
    struct pci_bus *bus = i440fx_create(&board, &msi, &err);
    struct pci_device *vga = vga_create(bus, DEVFN, &options, &err);
    require(vga != NULL);
    struct display display = vga_display(vga);
    pci_config_write(bus, DEVFN, PCI_BAR0, 4, MEMORY);
    pci_config_write(bus, DEVFN, PCI_BAR0 + 8, 4, REGISTERS);
    pci_config_write(bus, DEVFN, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_IO);
    vga_start_text(vga);
    for (unsigned p = 0; p < PICTURES && s.at < s.end; p++) {
        for (unsigned i = 0; i < STEPS / PICTURES && s.at < s.end; i++)
            step(vga, &s);
        look(&display, &picture);
    }
    display_free_picture(&picture);
    vga->dev.destroy(&vga->dev);
    bus->host->dev.destroy(&bus->host->dev);
    board_end();
    return 0;
}
