/*
 * test_vga.c - the display adapter: its place on the bus, registers as IBM's have them, the planes
 * behind the window, and the pictures that registers and memory make.
 */
#include "devices/display/vga.h"
#include "internal/pci.h"
#include "pci_board.h"
#include <unistd.h>

enum { DEVFN = PCI_DEVFN(2, 0), ROM_BYTES = 5000 };
#define MEMORY    0xd0000000u
#define REGISTERS 0xd2000000u

static struct pci_device *adapter;
static struct display display;
static struct display_picture picture;
static char rom_path[] = "/tmp/test_vga.XXXXXX";

/* A ROM of 5000 bytes with a font whose glyph n, from the third on, is n on each line. */
static void write_rom(void)
{
    uint8_t rom[ROM_BYTES] = {0x55, 0xaa, 10};
    static const uint8_t face[] = {0x7e, 0x81, 0xa5, 0x81, 0x81, 0xbd, 0x99, 0x81, 0x81, 0x7e};
    memcpy(rom + 100 + 18, face, sizeof(face));
    for (unsigned i = 32; i < 256 * 16; i++)
        rom[100 + i] = (uint8_t)(i / 16);
    strcpy(rom_path, "/tmp/test_vga.XXXXXX");
    int fd = mkstemp(rom_path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, rom, sizeof(rom)), sizeof(rom));
    close(fd);
}

static void setup(void)
{
    struct error err = {""};
    board_setup();
    clock_set_manual(board.clock, 0);
    write_rom();
    const struct vga_options options = {.rom = rom_path};
    adapter = vga_create(bus, DEVFN, &options, &err);
    ck_assert_msg(adapter != NULL, "%s", err.msg);
    config_out(DEVFN, PCI_BAR0, 4, MEMORY);
    config_out(DEVFN, PCI_BAR0 + 8, 4, REGISTERS);
    config_out(DEVFN, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_IO);
    display = vga_display(adapter);
    picture = (struct display_picture){0};
}

static void teardown(void)
{
    display_free_picture(&picture);
    adapter->dev.destroy(&adapter->dev);
    board_teardown();
    unlink(rom_path);
}

/* ---- Helpers --------------------------------------------------------------------------------- */

static void put_indexed(uint16_t port, uint8_t index, uint8_t value)
{
    outp(port, 2, (uint32_t)value << 8 | index);
}
static uint8_t get_indexed(uint16_t port, uint8_t index)
{
    outp(port, 1, index);
    return (uint8_t)inp((uint16_t)(port + 1), 1);
}
static void put_attr(uint8_t index, uint8_t value)
{
    inp(0x3da, 1);
    outp(0x3c0, 1, index);
    outp(0x3c0, 1, value);
    inp(0x3da, 1);
    outp(0x3c0, 1, ATTR_INDEX_SHOW);
}
static void put_color(uint8_t index, uint8_t r, uint8_t g, uint8_t b)
{
    outp(0x3c8, 1, index);
    outp(0x3c9, 1, r);
    outp(0x3c9, 1, g);
    outp(0x3c9, 1, b);
}
static void vbe(uint16_t index, uint16_t value)
{
    outp(0x1ce, 2, index);
    outp(0x1cf, 2, value);
}
static uint16_t get_vbe(uint16_t index)
{
    outp(0x1ce, 2, index);
    return (uint16_t)inp(0x1cf, 2);
}
static void mode(uint16_t width, uint16_t height, uint16_t bpp, uint16_t flags)
{
    outp(0x3c2, 1, MISC_COLOR | MISC_RAM);
    vbe(VBE_ENABLE, 0);
    vbe(VBE_XRES, width);
    vbe(VBE_YRES, height);
    vbe(VBE_BPP, bpp);
    vbe(VBE_ENABLE, (uint16_t)(VBE_ENABLED | VBE_LFB | flags));
    inp(0x3da, 1);
    outp(0x3c0, 1, ATTR_INDEX_SHOW);
}
static void draw(unsigned width, unsigned height)
{
    struct error err = {""};
    ck_assert_msg(display.draw(display.opaque, &picture, &err), "%s", err.msg);
    ck_assert_uint_eq(picture.width, width);
    ck_assert_uint_eq(picture.height, height);
}
static uint32_t dot(unsigned x, unsigned y)
{
    return picture.pixels[y * picture.width + x];
}

/* Registers of a BIOS's graphics modes. */
static void graphics(const uint8_t *seq, const uint8_t *crtc, const uint8_t *gc, uint8_t attr_mode)
{
    outp(0x3c2, 1, 0x63);
    for (uint8_t i = 0; i < VGA_SEQ_REGS; i++)
        put_indexed(0x3c4, i, seq[i]);
    put_indexed(0x3d4, CRTC_V_RETRACE_END, 0);
    for (uint8_t i = 0; i < VGA_CRTC_REGS; i++)
        put_indexed(0x3d4, i, crtc[i]);
    for (uint8_t i = 0; i < VGA_GC_REGS; i++)
        put_indexed(0x3ce, i, gc[i]);
    for (uint8_t i = 0; i < 16; i++)
        put_attr(i, i);
    put_attr(ATTR_MODE, attr_mode);
    put_attr(ATTR_PLANE_ENABLE, 0x0f);
    for (unsigned i = 0; i < 256; i++)
        put_color((uint8_t)i, (uint8_t)(i & 63), (uint8_t)(i >> 2), 0);
}
static uint32_t color(unsigned i) /* as graphics() sets them */
{
    uint32_t r = i & 63, g = i >> 2 & 63;
    return (r << 2 | r >> 4) << 16 | (g << 2 | g >> 4) << 8;
}
static const uint8_t seq_13[] = {3, 1, 15, 0, 0x0e}, seq_12[] = {3, 1, 15, 0, 6};
static const uint8_t seq_4[] = {3, 9, 3, 0, 2};
static const uint8_t crtc_13[] = {0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0xbf, 0x1f, 0,
                                  0x41, 0,    0,    0,    0,    0,    0,    0x9c, 0x8e,
                                  0x8f, 0x28, 0x40, 0x96, 0xb9, 0xa3, 0xff};
static const uint8_t crtc_12[] = {0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0x0b, 0x3e, 0,
                                  0x40, 0,    0,    0,    0,    0,    0,    0xea, 0x8c,
                                  0xdf, 0x28, 0,    0xe7, 4,    0xe3, 0xff};
static const uint8_t crtc_4[] = {0x2d, 0x27, 0x28, 0x90, 0x2b, 0x80, 0xbf, 0x1f, 0,
                                 0xc1, 0,    0,    0,    0,    0,    0,    0x9c, 0x8e,
                                 0x8f, 0x14, 0,    0x96, 0xb9, 0xa2, 0xff};
static const uint8_t gc_13[] = {0, 0, 0, 0, 0, 0x40, 5, 15, 0xff};
static const uint8_t gc_12[] = {0, 0, 0, 0, 0, 0, 5, 15, 0xff};
static const uint8_t gc_4[] = {0, 0, 0, 0, 0, 0x30, 15, 15, 0xff};

/* ---- On the bus ------------------------------------------------------------------------------ */

START_TEST(identity_and_bars)
{
    ck_assert_uint_eq(config_in(DEVFN, 0, 4), 0x11111234);
    ck_assert_uint_eq(config_in(DEVFN, 8, 4) >> 8, 0x030000);
    ck_assert_uint_eq(config_in(DEVFN, PCI_INTERRUPT_PIN, 1), 0);
    ck_assert_uint_eq(config_in(DEVFN, PCI_BAR0, 4), MEMORY | 8);
    config_out(DEVFN, PCI_BAR0, 4, ~0u);
    ck_assert_uint_eq(config_in(DEVFN, PCI_BAR0, 4), 0xff000008);
    config_out(DEVFN, PCI_BAR0 + 8, 4, ~0u);
    ck_assert_uint_eq(config_in(DEVFN, PCI_BAR0 + 8, 4), 0xfffff000);
}
END_TEST

START_TEST(memory_is_memory_and_moves)
{
    mem_out(MEMORY + 0x123456, 8, 0x1122334455667788);
    ck_assert_uint_eq(mem_in(MEMORY + 0x123458, 2), 0x5566);
    ck_assert_ptr_nonnull(phys_hva(board.map, MEMORY, NULL));
    config_out(DEVFN, PCI_BAR0, 4, MEMORY + (64 << 20));
    ck_assert_uint_eq(mem_in(MEMORY + 0x123456, 8), ~0ull);
    ck_assert_uint_eq(mem_in(MEMORY + (64 << 20) + 0x123456, 8), 0x1122334455667788);
    config_out(DEVFN, PCI_COMMAND, 2, 0);
    ck_assert_ptr_null(phys_hva(board.map, MEMORY + (64 << 20), NULL));
    adapter->dev.reset(&adapter->dev);
    ck_assert_uint_eq(config_in(DEVFN, PCI_BAR0, 4), 8);
}
END_TEST

START_TEST(rom_is_sized_and_switched)
{
    config_out(DEVFN, PCI_ROM_ADDRESS, 4, ~0u & ~PCI_ROM_ENABLE);
    ck_assert_uint_eq(config_in(DEVFN, PCI_ROM_ADDRESS, 4), 0xffffe000); /* 5000 bytes: 8 KiB */
    config_out(DEVFN, PCI_ROM_ADDRESS, 4, 0xc0000000);
    ck_assert_uint_eq(mem_in(0xc0000000, 2), 0xffff);
    config_out(DEVFN, PCI_ROM_ADDRESS, 4, 0xc0000001);
    ck_assert_uint_eq(config_in(DEVFN, PCI_ROM_ADDRESS, 4), 0xc0000001);
    ck_assert_uint_eq(mem_in(0xc0000000, 2), 0xaa55);
    mem_out(0xc0000000, 2, 0);
    ck_assert_uint_eq(mem_in(0xc0000000, 2), 0xaa55);
    config_out(DEVFN, PCI_COMMAND, 2, PCI_COMMAND_IO); /* memory decoding governs it, too */
    ck_assert_uint_eq(mem_in(0xc0000000, 2), 0xffff);
}
END_TEST

START_TEST(assignment_leaves_the_rom_off)
{
    struct error err = {""};
    ck_assert_msg(pci_assign_resources(bus, MEM_WINDOW, MEM_END, &err), "%s", err.msg);
    uint32_t rom = config_in(DEVFN, PCI_ROM_ADDRESS, 4), memory = config_in(DEVFN, PCI_BAR0, 4);
    ck_assert_uint_ge(rom, MEM_WINDOW);
    ck_assert_uint_eq(rom & 0x1fff, 0);
    ck_assert_uint_eq(memory, 0xfd000008);
    ck_assert_uint_eq(mem_in(rom, 2), 0xffff);
}
END_TEST

START_TEST(bad_roms_are_named)
{
    struct error err = {""};
    const struct vga_options none = {.rom = "/nonexistent/rom"}, null = {.rom = "/dev/null"};
    const struct vga_options odd = {.memory_mib = 3};
    ck_assert_ptr_null(vga_create(bus, PCI_DEVFN(4, 0), &none, &err));
    ck_assert_ptr_nonnull(strstr(err.msg, "package seabios"));
    ck_assert_ptr_null(vga_create(bus, PCI_DEVFN(4, 0), &null, &err));
    ck_assert_ptr_nonnull(strstr(err.msg, "no expansion ROM"));
    ck_assert_ptr_null(vga_create(bus, PCI_DEVFN(4, 0), &odd, &err));
}
END_TEST

START_TEST(registers_in_memory)
{
    uint8_t sum = 0;
    ck_assert_uint_eq(mem_in(REGISTERS, 8), 0x00ffffffffffff00);
    for (unsigned i = 0; i < EDID_BYTES; i++)
        sum += (uint8_t)mem_in(REGISTERS + i, 1);
    ck_assert_uint_eq(sum, 0);
    ck_assert_uint_eq(mem_in(REGISTERS + 56, 1) | (mem_in(REGISTERS + 58, 1) >> 4) << 8, 1280);
    ck_assert_uint_eq(mem_in(REGISTERS + 59, 1) | (mem_in(REGISTERS + 61, 1) >> 4) << 8, 800);
    ck_assert_uint_eq(mem_in(REGISTERS + 0x500, 2), 0xb0c5);
    mem_out(REGISTERS + 0x500 + 2 * VBE_XRES, 2, 1024);
    ck_assert_uint_eq(get_vbe(VBE_XRES), 1024);
    mem_out(REGISTERS + 0x40e, 2, 0x0508); /* ports 3CEh and 3CFh */
    ck_assert_uint_eq(get_indexed(0x3ce, 8), 5);
    ck_assert_uint_eq(mem_in(REGISTERS + 0x600, 8), 0x1e1e1e1e00000008);
    ck_assert_uint_eq(mem_in(REGISTERS + 0xff8, 8), 0);
}
END_TEST

/* ---- Registers ------------------------------------------------------------------------------- */

START_TEST(groups_of_registers)
{
    outp(0x3c2, 1, 0xff);
    ck_assert_uint_eq(inp(0x3cc, 1), 0xef);
    static const uint8_t seq[] = {0x03, 0x3d, 0x0f, 0x3f, 0x0e};
    for (uint8_t i = 0; i < 5; i++) {
        put_indexed(0x3c4, i, 0xff);
        ck_assert_uint_eq(get_indexed(0x3c4, i), seq[i]);
    }
    put_indexed(0x3ce, GC_MODE, 0xff);
    ck_assert_uint_eq(get_indexed(0x3ce, GC_MODE), 0x7b);
    put_indexed(0x3d4, CRTC_LINE_COMPARE, 0xa5);
    ck_assert_uint_eq(get_indexed(0x3d4, CRTC_LINE_COMPARE), 0xa5);
    put_indexed(0x3d4, 0xf0, 0xa5);
    ck_assert_uint_eq(get_indexed(0x3d4, 0xf0), 0);
}
END_TEST

START_TEST(crtc_is_at_one_of_two_places)
{
    outp(0x3c2, 1, 0);
    put_indexed(0x3d4, CRTC_START_LOW, 1);
    ck_assert_uint_eq(inp(0x3d4, 2), 0xffff);
    put_indexed(0x3b4, CRTC_START_LOW, 2);
    outp(0x3c2, 1, MISC_COLOR);
    ck_assert_uint_eq(get_indexed(0x3d4, CRTC_START_LOW), 2);
    ck_assert_uint_eq(inp(0x3b4, 1), 0xff);
}
END_TEST

START_TEST(crtc_protection)
{
    outp(0x3c2, 1, MISC_COLOR);
    put_indexed(0x3d4, CRTC_H_TOTAL, 0x11);
    put_indexed(0x3d4, CRTC_V_RETRACE_END, CRTC_PROTECT);
    put_indexed(0x3d4, CRTC_H_TOTAL, 0x22);
    put_indexed(0x3d4, CRTC_OVERFLOW, 0xff);
    put_indexed(0x3d4, CRTC_PRESET_ROW, 0x33);
    ck_assert_uint_eq(get_indexed(0x3d4, CRTC_H_TOTAL), 0x11);
    ck_assert_uint_eq(get_indexed(0x3d4, CRTC_OVERFLOW), 0x10);
    ck_assert_uint_eq(get_indexed(0x3d4, CRTC_PRESET_ROW), 0x33);
}
END_TEST

START_TEST(attribute_flip_flop)
{
    outp(0x3c2, 1, MISC_COLOR);
    inp(0x3da, 1);
    outp(0x3c0, 1, ATTR_MODE);
    outp(0x3c0, 1, 0xff);
    outp(0x3c0, 1, ATTR_PANNING); /* an index again */
    outp(0x3c0, 1, 0xff);
    outp(0x3c0, 1, ATTR_MODE);
    ck_assert_uint_eq(inp(0x3c1, 1), 0xef);
    inp(0x3da, 1);
    outp(0x3c0, 1, ATTR_PANNING | ATTR_INDEX_SHOW);
    ck_assert_uint_eq(inp(0x3c1, 1), 0x0f);
    ck_assert_uint_eq(inp(0x3c0, 1), ATTR_PANNING | ATTR_INDEX_SHOW);
}
END_TEST

START_TEST(dac_sequences)
{
    put_color(5, 0xff, 0x12, 0x23);
    outp(0x3c9, 1, 1); /* of the next colour, which is not complete */
    ck_assert_uint_eq(inp(0x3c7, 1), 0);
    outp(0x3c7, 1, 5);
    ck_assert_uint_eq(inp(0x3c7, 1), 3);
    ck_assert_uint_eq(inp(0x3c9, 1), 0x3f);
    ck_assert_uint_eq(inp(0x3c9, 1), 0x12);
    ck_assert_uint_eq(inp(0x3c9, 1), 0x23);
    ck_assert_uint_eq(inp(0x3c9, 1), 0);
    ck_assert_uint_eq(inp(0x3c6, 1), 0xff);
    vbe(VBE_ENABLE, VBE_8BIT_DAC);
    put_color(255, 0xfe, 0, 0);
    outp(0x3c7, 1, 255);
    ck_assert_uint_eq(inp(0x3c9, 1), 0xfe);
}
END_TEST

START_TEST(beam_follows_the_clock)
{
    unsigned retraces = 0;
    graphics(seq_13, crtc_13, gc_13, 0x41); /* 800 x 449 dots at 25.175 MHz: 31777 ns a line */
    for (unsigned line = 0; line < 449; line++) {
        clock_set_manual(board.clock, line * 31778ull + 1000);
        uint8_t now = (uint8_t)inp(0x3da, 1);
        ck_assert_uint_eq(now & 1, line >= 400);
        ck_assert_uint_eq(now >> 3 & 1, line >= 412 && line < 414);
        retraces += now >> 3 & 1;
        clock_set_manual(board.clock, line * 31778ull + 28000); /* right of the picture */
        ck_assert_uint_eq(inp(0x3da, 1) & 1, 1);
    }
    ck_assert_uint_eq(retraces, 2);
}
END_TEST

START_TEST(beam_comes_back_whatever_the_registers_say)
{
    uint8_t seen = 0;
    outp(0x3c2, 1, MISC_COLOR); /* all else is zero */
    for (uint64_t now = 0; now < 20000000; now += 10000) {
        clock_set_manual(board.clock, now);
        seen |= (uint8_t)(1 << (inp(0x3da, 1) >> 3 & 1));
    }
    ck_assert_uint_eq(seen, 3);
}
END_TEST

/* ---- Planes ---------------------------------------------------------------------------------- */

/* Four planes of memory as the linear frame buffer shows them. */
static uint32_t planes(uint32_t address)
{
    return (uint32_t)mem_in(MEMORY + 4 * address, 4);
}

START_TEST(window_follows_the_map)
{
    static const uint32_t starts[] = {0xa0000, 0xa0000, 0xb0000, 0xb8000};
    static const uint32_t ends[] = {0xc0000, 0xb0000, 0xb8000, 0xc0000};
    graphics(seq_12, crtc_12, gc_12, 1);
    for (uint8_t map = 0; map < 4; map++) {
        put_indexed(0x3ce, GC_MISC, (uint8_t)(map << 2 | 1));
        for (uint32_t at = 0xa0000; at < 0xc0000; at += 0x8000) {
            mem_out(at, 1, 0x5a);
            bool there = at >= starts[map] && at < ends[map];
            ck_assert_uint_eq(mem_in(at, 1), there ? 0x5a : 0xff);
        }
    }
    put_indexed(0x3ce, GC_MISC, 5);
    outp(0x3c2, 1, 0x61); /* memory off */
    ck_assert_uint_eq(mem_in(0xa0000, 1), 0xff);
}
END_TEST

START_TEST(write_modes)
{
    graphics(seq_12, crtc_12, gc_12, 1);
    /* 0: rotated by 1, XOR with the latches, low bits only; plane 3 set by set/reset */
    mem_out(MEMORY + 4, 4, 0x44332211);
    ck_assert_uint_eq(mem_in(0xa0001, 1), 0x11);
    put_indexed(0x3ce, GC_ROTATE, 0x19);
    put_indexed(0x3ce, GC_BIT_MASK, 0x0f);
    put_indexed(0x3ce, GC_SET_RESET, 0x08);
    put_indexed(0x3ce, GC_ENABLE_SET_RESET, 0x0c);
    mem_out(0xa0002, 1, 0x1f); /* turned: 8Fh */
    ck_assert_uint_eq(planes(2), 0x4b332d1e);
    /* 1: the latches, in the planes of the map mask */
    put_indexed(0x3ce, GC_MODE, 1);
    put_indexed(0x3c4, SEQ_MAP_MASK, 5);
    mem_out(0xa0003, 1, 0xee);
    ck_assert_uint_eq(planes(3), 0x00330011);
    /* 2: a colour where the mask has ones, AND with the latches */
    put_indexed(0x3c4, SEQ_MAP_MASK, 15);
    put_indexed(0x3ce, GC_MODE, 2);
    put_indexed(0x3ce, GC_ROTATE, 0x08);
    put_indexed(0x3ce, GC_BIT_MASK, 0xf0);
    mem_out(0xa0004, 1, 0x05);
    ck_assert_uint_eq(planes(4), 0x04330211);
    /* 3: set/reset where the rotated byte and the mask have ones */
    put_indexed(0x3ce, GC_MODE, 3);
    put_indexed(0x3ce, GC_ROTATE, 0x04);
    put_indexed(0x3ce, GC_SET_RESET, 0x09);
    mem_out(0xa0005, 1, 0x3c); /* turned: C3h, masked C0h */
    ck_assert_uint_eq(planes(5), 0xc43322d1);
}
END_TEST

START_TEST(read_modes)
{
    graphics(seq_12, crtc_12, gc_12, 1);
    mem_out(MEMORY, 4, 0x0f33ff55);
    for (uint8_t p = 0; p < 4; p++) {
        put_indexed(0x3ce, GC_READ_MAP, p);
        ck_assert_uint_eq(mem_in(0xa0000, 1), 0x0f33ff55u >> 8 * p & 0xff);
    }
    put_indexed(0x3ce, GC_MODE, 8);
    put_indexed(0x3ce, GC_COLOR_COMPARE, 0x03);
    put_indexed(0x3ce, GC_DONT_CARE, 0x0f); /* ones: the planes that count */
    ck_assert_uint_eq(mem_in(0xa0000, 1), 0x55 & 0xcc & 0xf0);
    put_indexed(0x3ce, GC_DONT_CARE, 0x03);
    ck_assert_uint_eq(mem_in(0xa0000, 1), 0x55);
    put_indexed(0x3ce, GC_DONT_CARE, 0);
    ck_assert_uint_eq(mem_in(0xa0000, 1), 0xff);
}
END_TEST

START_TEST(odd_even_and_chain4)
{
    vga_start_text(adapter);
    mem_out(0xb8000, 4, 0x1f420741);
    ck_assert_uint_eq(mem_in(0xb8000, 4), 0x1f420741);
    ck_assert_uint_eq(mem_in(MEMORY, 2), 0x0741);
    ck_assert_uint_eq(mem_in(MEMORY + 4, 2), 0x1f42);
    graphics(seq_13, crtc_13, gc_13, 0x41);
    mem_out(0xa0100, 8, 0);
    mem_out(0xa0102, 4, 0x44332211);
    ck_assert_uint_eq(mem_in(0xa0102, 4), 0x44332211);
    ck_assert_uint_eq(mem_in(MEMORY + 0x102, 4), 0x44332211);
    put_indexed(0x3c4, SEQ_MAP_MASK, 1); /* only every fourth byte can change */
    mem_out(0xa0100, 8, ~0ull);
    ck_assert_uint_eq(mem_in(MEMORY + 0x100, 8), 0x000044ff221100ff);
}
END_TEST

START_TEST(banks)
{
    mode(640, 480, 8, 0);
    vbe(VBE_BANK, 3);
    mem_out(0xa0010, 4, 0x12345678);
    ck_assert_uint_eq(mem_in(MEMORY + 0x30010, 4), 0x12345678);
    vbe(VBE_BANK, 0xffff);
    ck_assert_uint_eq(get_vbe(VBE_BANK), 0xff);
    mem_out(0xaffff, 1, 0x77);
    ck_assert_uint_eq(mem_in(MEMORY + 0xffffff, 1), 0x77);
    vbe(VBE_ENABLE, 0);
    ck_assert_uint_eq(get_vbe(VBE_BANK), 0);
}
END_TEST

START_TEST(code_that_the_window_overwrites)
{
    /* Only that it is told and nothing breaks: who hears it is mmu's test_phys.c. */
    graphics(seq_13, crtc_13, gc_13, 0x41);
    for (unsigned i = 0; i < 0x10000; i += 8)
        mem_out(0xa0000 + i, 8, i);
    ck_assert_uint_eq(mem_in(MEMORY + 0xfff8, 8), 0xfff8);
}
END_TEST

/* ---- Pictures -------------------------------------------------------------------------------- */

START_TEST(nothing_yet)
{
    draw(640, 480);
    ck_assert_uint_eq(picture.end, 480);
    ck_assert_uint_eq(dot(5, 5), 0);
    draw(640, 480);
    ck_assert_uint_eq(picture.first, picture.end);
}
END_TEST

START_TEST(text_picture)
{
    vga_start_text(adapter);
    put_indexed(0x3d4, CRTC_CURSOR_START, CURSOR_OFF);
    draw(720, 400);
    ck_assert_uint_eq(dot(0, 0), 0);
    mem_out(0xb8000 + 2 * (80 * 2 + 3), 2, 0x1ea5); /* row 2, column 3: yellow on blue */
    draw(720, 400);
    ck_assert_uint_eq(picture.first, 32);
    ck_assert_uint_eq(picture.end, 48);
    for (unsigned i = 0; i < 9; i++)
        ck_assert_uint_eq(dot(27 + i, 40), i < 8 && 0xa5 >> (7 - i) & 1 ? 0xffff55 : 0x0000aa);
    mem_out(0xb8000, 2, 0x07c1); /* joins: the ninth dot is the eighth */
    mem_out(0xb8002, 2, 0x0781); /* does not */
    draw(720, 400);
    ck_assert_uint_eq(dot(8, 0), 0xaaaaaa);
    ck_assert_uint_eq(dot(16, 0), 0xaaaaaa);
    ck_assert_uint_eq(dot(17, 0), 0);
}
END_TEST

START_TEST(cursor_and_blinking)
{
    vga_start_text(adapter);
    mem_out(0xb8000, 2, 0x87ff); /* blinks */
    put_indexed(0x3d4, CRTC_CURSOR_LOW, 2);
    draw(720, 400);
    ck_assert_uint_eq(dot(0, 0), 0xaaaaaa);
    ck_assert_uint_eq(dot(18, 12), 0);
    ck_assert_uint_eq(dot(18, 13), 0xaaaaaa);
    ck_assert_uint_eq(dot(26, 14), 0xaaaaaa); /* nine dots wide */
    ck_assert_uint_eq(dot(18, 15), 0);
    clock_set_manual(board.clock, 8 * 14270000ull + 1000000); /* eight frames of 70 Hz */
    draw(720, 400);
    ck_assert_uint_eq(dot(0, 0), 0xaaaaaa);
    ck_assert_uint_eq(dot(18, 13), 0);
    clock_set_manual(board.clock, 16 * 14270000ull + 1000000);
    draw(720, 400);
    ck_assert_uint_eq(dot(0, 0), 0);
    ck_assert_uint_eq(dot(18, 13), 0xaaaaaa);
    put_attr(ATTR_MODE, 0x04); /* bit 7 is a bright background instead */
    draw(720, 400);
    ck_assert_uint_eq(dot(0, 0), 0xaaaaaa);
    ck_assert_uint_eq(dot(8, 0), 0x555555);
}
END_TEST

START_TEST(two_fonts)
{
    vga_start_text(adapter);
    put_indexed(0x3c4, SEQ_FONT, 0x04); /* with attribute bit 3 the second font, at 16 KiB */
    mem_out(MEMORY + 4 * (0x4000 + 'A' * 32 + 5) + 2, 1, 0x80);
    mem_out(0xb8000, 4, 0x07410f41);
    draw(720, 400);
    ck_assert_uint_eq(dot(0, 5), 0xffffff);
    ck_assert_uint_eq(dot(1, 5), 0);
    ck_assert_uint_eq(dot(9 + 1, 5), 0xaaaaaa); /* 41h */
}
END_TEST

static char *screen_text(void)
{
    char *text = NULL;
    size_t len = 0;
    struct error err = {""};
    FILE *out = open_memstream(&text, &len);
    bool ok = display.text(display.opaque, out, &err);
    fclose(out);
    if (ok)
        return text;
    free(text);
    return NULL;
}

START_TEST(text_as_characters)
{
    static const char line[] = "Hello \xc9\xe1";
    unsigned lines = 0;
    vga_start_text(adapter);
    for (unsigned i = 0; i < sizeof(line) - 1; i++)
        mem_out(0xb8000 + 160 + 2 * i, 1, (uint8_t)line[i]);
    char *text = screen_text();
    ck_assert_ptr_nonnull(text);
    ck_assert_int_eq(strncmp(text, "\nHello \u2554\u00df\n\n", 14), 0);
    for (const char *p = text; *p; p++)
        lines += *p == '\n';
    ck_assert_uint_eq(lines, 25);
    free(text);
    put_indexed(0x3d4, CRTC_START_LOW, 80); /* scrolled by a row */
    text = screen_text();
    ck_assert_int_eq(strncmp(text, "Hello", 5), 0);
    free(text);
    mode(640, 480, 8, 0);
    ck_assert_ptr_null(screen_text());
}
END_TEST

START_TEST(picture_of_256_colors)
{
    graphics(seq_13, crtc_13, gc_13, 0x41);
    for (unsigned i = 0; i < 320 * 200; i++)
        mem_out(0xa0000 + i, 1, (uint8_t)(i % 320 + i / 320));
    draw(640, 400);
    ck_assert_uint_eq(dot(0, 0), color(0));
    ck_assert_uint_eq(dot(639, 399), color((319 + 199) & 0xff));
    ck_assert_uint_eq(dot(101, 50), color(50 + 25));
    ck_assert_uint_eq(dot(101, 51), color(50 + 25));
    outp(0x3c6, 1, 0x0f); /* the mask */
    draw(640, 400);
    ck_assert_uint_eq(dot(101, 51), color((50 + 25) & 0x0f));
    outp(0x3c6, 1, 0xff);
    /* unchained: a plane every fourth dot; start at the second row, panned by two dots */
    put_indexed(0x3c4, SEQ_MODE, 6);
    put_indexed(0x3d4, CRTC_START_LOW, 80);
    put_indexed(0x3c4, SEQ_MAP_MASK, 4);
    mem_out(0xa0000 + 80, 1, 0xee);
    put_attr(ATTR_PANNING, 2);
    draw(640, 400);
    ck_assert_uint_eq(dot(0, 0), color(2));
    ck_assert_uint_eq(dot(2, 0), color(0xee));
    ck_assert_uint_eq(dot(4, 1), color(4));
}
END_TEST

START_TEST(picture_of_16_colors)
{
    graphics(seq_12, crtc_12, gc_12, 1);
    put_indexed(0x3ce, GC_MODE, 2);
    put_indexed(0x3ce, GC_BIT_MASK, 0x41);
    mem_out(0xa0000 + 80 * 7 + 3, 1, 0x0b);
    draw(640, 480);
    for (unsigned i = 0; i < 8; i++)
        ck_assert_uint_eq(dot(24 + i, 7), color(0x41 >> (7 - i) & 1 ? 0x0b : 0));
    put_attr(0x0b, 0x25);
    put_attr(ATTR_COLOR_SELECT, 0x0c);
    draw(640, 480);
    ck_assert_uint_eq(dot(25, 7), color(0xe5));
    put_attr(ATTR_MODE, 0x81);
    put_attr(ATTR_COLOR_SELECT, 0x0d);
    draw(640, 480);
    ck_assert_uint_eq(dot(25, 7), color(0xd5));
    put_attr(ATTR_PLANE_ENABLE, 0x03);
    draw(640, 480);
    ck_assert_uint_eq(dot(25, 7), color(0xd3));
}
END_TEST

START_TEST(split_screen)
{
    graphics(seq_12, crtc_12, gc_12, 1);
    put_indexed(0x3d4, CRTC_START_HIGH, 0x40);
    put_indexed(0x3d4, CRTC_LINE_COMPARE, 99);
    put_indexed(0x3d4, CRTC_OVERFLOW, 0x2e);
    put_indexed(0x3d4, CRTC_MAX_SCAN, 0);
    put_attr(ATTR_PANNING, 4);
    put_attr(ATTR_MODE, 0x21);
    mem_out(0xa4000, 1, 0xff);
    mem_out(0xa0000, 1, 0x80);
    draw(640, 480);
    ck_assert_uint_eq(dot(3, 0), color(15));
    ck_assert_uint_eq(dot(4, 0), color(0));
    ck_assert_uint_eq(dot(0, 99), color(0));
    ck_assert_uint_eq(dot(0, 100), color(15));
    ck_assert_uint_eq(dot(1, 100), color(0));
}
END_TEST

START_TEST(cga_picture)
{
    graphics(seq_4, crtc_4, gc_4, 1);
    mem_out(0xb8000, 1, 0x1b);          /* dots 0 1 2 3 */
    mem_out(0xb8000 + 0x2000, 1, 0xff); /* second line */
    mem_out(0xb8000 + 80 + 1, 1, 0xc0); /* third */
    draw(640, 400);
    for (unsigned x = 0; x < 8; x++)
        ck_assert_uint_eq(dot(x, 1), color(x / 2));
    ck_assert_uint_eq(dot(7, 2), color(3));
    ck_assert_uint_eq(dot(8, 4), color(3));
    ck_assert_uint_eq(dot(10, 4), color(0));
}
END_TEST

START_TEST(direct_colors)
{
    mode(640, 480, 32, 0);
    mem_out(MEMORY + 4 * (640 * 10 + 20), 4, 0xff123456);
    draw(640, 480);
    ck_assert_uint_eq(dot(20, 10), 0x123456);
    mode(640, 480, 24, 0);
    mem_out(MEMORY + 3 * (640 * 10 + 20), 4, 0xff123456);
    draw(640, 480);
    ck_assert_uint_eq(dot(20, 10), 0x123456);
    ck_assert_uint_eq(dot(21, 10), 0x0000ff);
    mode(640, 480, 16, 0);
    mem_out(MEMORY + 2 * (640 * 10 + 20), 4, 0x07e0f81f);
    draw(640, 480);
    ck_assert_uint_eq(dot(20, 10), 0xff00ff);
    ck_assert_uint_eq(dot(21, 10), 0x00ff00);
    mode(640, 480, 15, 0);
    mem_out(MEMORY + 2 * (640 * 10 + 20), 4, 0x03e04210);
    draw(640, 480);
    ck_assert_uint_eq(dot(20, 10), 0x848484);
    ck_assert_uint_eq(dot(21, 10), 0x00ff00);
    mode(640, 480, 8, 0);
    put_color(9, 1, 2, 3);
    mem_out(MEMORY + 640 * 10 + 20, 1, 9);
    draw(640, 480);
    ck_assert_uint_eq(dot(20, 10), 0x04080c);
    mode(640, 480, 4, 0);
    put_attr(0x0a, 9);
    put_attr(ATTR_PLANE_ENABLE, 15);
    mem_out(MEMORY + 4 * (80 * 10 + 2), 4, 0x80008000);
    draw(640, 480);
    ck_assert_uint_eq(dot(16, 10), 0x04080c);
}
END_TEST

START_TEST(virtual_screen)
{
    mode(640, 480, 32, 0);
    mem_out(MEMORY + 4 * 700, 4, 0x010203);
    vbe(VBE_ENABLE, VBE_ENABLED | VBE_LFB | VBE_NO_CLEAR);
    vbe(VBE_VIRT_WIDTH, 700);
    ck_assert_uint_eq(get_vbe(VBE_VIRT_HEIGHT), (16 << 20) / 2800);
    draw(640, 480);
    ck_assert_uint_eq(dot(0, 1), 0x010203);
    vbe(VBE_Y_OFFSET, 1);
    draw(640, 480);
    ck_assert_uint_eq(dot(0, 0), 0x010203);
    vbe(VBE_Y_OFFSET, 0);
    vbe(VBE_X_OFFSET, 100);
    ck_assert_uint_eq(get_vbe(VBE_X_OFFSET), 60); /* no further */
    mem_out(MEMORY + 4 * 60, 4, 0x0a0b0c);
    draw(640, 480);
    ck_assert_uint_eq(dot(0, 0), 0x0a0b0c);
    vbe(VBE_Y_OFFSET, 0xffff);
    ck_assert_uint_eq(get_vbe(VBE_Y_OFFSET), (16 << 20) / 2800 - 480);
    draw(640, 480);
}
END_TEST

START_TEST(mode_set_clears_unless_told)
{
    mem_out(MEMORY + 100, 4, ~0u);
    mode(800, 600, 32, VBE_NO_CLEAR);
    ck_assert_uint_eq(mem_in(MEMORY + 100, 4), ~0u);
    mode(800, 600, 32, 0);
    ck_assert_uint_eq(mem_in(MEMORY + 100, 4), 0);
}
END_TEST

START_TEST(impossible_modes)
{
    vbe(VBE_ENABLE, VBE_GETCAPS);
    ck_assert_uint_eq(get_vbe(VBE_XRES), VBE_MAX_XRES);
    ck_assert_uint_eq(get_vbe(VBE_BPP), 32);
    ck_assert_uint_eq(get_vbe(VBE_MEMORY_64K), 256);
    mode(0xffff, 0xffff, 77, 0);
    ck_assert_uint_eq(get_vbe(VBE_XRES), VBE_MAX_XRES);
    ck_assert_uint_eq(get_vbe(VBE_BPP), 8);
    ck_assert_uint_eq(get_vbe(VBE_YRES), (16 << 20) / VBE_MAX_XRES);
    draw(VBE_MAX_XRES, (16 << 20) / VBE_MAX_XRES);
    mode(0, 0, 0, 0);
    draw(8, 1);
    vbe(VBE_ID, 0xb0c0);
    ck_assert_uint_eq(get_vbe(VBE_ID), 0xb0c0);
    vbe(VBE_ID, 0x1234);
    ck_assert_uint_eq(get_vbe(VBE_ID), 0xb0c0);
}
END_TEST

/* A saved state whose registers describe more than there is makes no picture, shown or blank. */
START_TEST(restored_registers_without_a_picture)
{
    struct error err = {""};
    const struct state_desc *state = adapter->dev.state;
    mode(640, 480, 32, 0);
    for (unsigned i = 0; i < state->field_count; i++)
        if (strstr(state->fields[i].name, "vga.vbe") && state->fields[i].count > VBE_YRES) {
            field_set(&state->fields[i], adapter, VBE_XRES, 0xff00);
            field_set(&state->fields[i], adapter, VBE_YRES, 0xffff);
        }
    for (unsigned shown = 0; shown < 2; shown++) {
        inp(0x3da, 1);
        outp(0x3c0, 1, shown ? ATTR_INDEX_SHOW : 0);
        ck_assert(!display.draw(display.opaque, &picture, &err));
        ck_assert_str_eq(err.msg, "the display's registers describe no picture");
    }
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        identity_and_bars,
        memory_is_memory_and_moves,
        rom_is_sized_and_switched,
        assignment_leaves_the_rom_off,
        bad_roms_are_named,
        registers_in_memory,
        groups_of_registers,
        crtc_is_at_one_of_two_places,
        crtc_protection,
        attribute_flip_flop,
        dac_sequences,
        beam_follows_the_clock,
        beam_comes_back_whatever_the_registers_say,
        window_follows_the_map,
        write_modes,
        read_modes,
        odd_even_and_chain4,
        banks,
        code_that_the_window_overwrites,
        nothing_yet,
        text_picture,
        cursor_and_blinking,
        two_fonts,
        text_as_characters,
        picture_of_256_colors,
        picture_of_16_colors,
        split_screen,
        cga_picture,
        direct_colors,
        virtual_screen,
        mode_set_clears_unless_told,
        impossible_modes,
        restored_registers_without_a_picture,
    };
    Suite *s = suite_create("vga");
    TCase *t = tcase_create("vga");
    tcase_add_checked_fixture(t, setup, teardown);
    for (unsigned i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
        tcase_add_test(t, tests[i]);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
