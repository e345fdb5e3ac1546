/*
 * vga.c - the display's memory as instructions meet it: planes behind the window, whole
 * instructions on them, the linear frame buffer as memory that a BAR moves, and code in it.
 *
 * guest options: -vga std
 */
#include "pci.h"

enum { VGA = 2 << 3, BYTES = 4096 };
#define WINDOW ((volatile uint8_t *)0xa0000)
#define TEXT   ((volatile uint16_t *)0xb8000)

static volatile uint8_t *frame_buffer(void)
{
    return (volatile uint8_t *)(word)(pci_read32(VGA, PCI_BAR) & ~15u);
}
static void seq(uint8_t index, uint8_t value)
{
    outw(0x3c4, (uint16_t)(value << 8 | index));
}
static void gc(uint8_t index, uint8_t value)
{
    outw(0x3ce, (uint16_t)(value << 8 | index));
}
static void vbe(uint16_t index, uint16_t value)
{
    outw(0x1ce, index);
    outw(0x1cf, value);
}

static void planar(void)
{
    outb(0x3c2, 0x63);
    seq(2, 15);
    seq(4, 6);
    for (uint8_t i = 0; i < 5; i++)
        gc(i, 0);
    gc(5, 0);
    gc(6, 5);
    gc(7, 15);
    gc(8, 0xff);
}

TEST(text_is_there_from_the_start)
{
    CHECK_EQ(pci_read32(VGA, PCI_ID), 0x11111234);
    CHECK_EQ(TEXT[0], 0x0720); /* blanks, as a BIOS would leave them */
    TEXT[80] = 0x1f41;
    CHECK_EQ(TEXT[80], 0x1f41);
    CHECK_EQ(((volatile uint8_t *)TEXT)[161], 0x1f);
    CHECK_EQ(frame_buffer()[80 * 4], 'A');
    CHECK_EQ(frame_buffer()[80 * 4 + 1], 0x1f);
}

/* Every byte of every width of store goes through the planes. */
TEST(stores_of_all_widths)
{
    volatile uint32_t *planes = (volatile uint32_t *)frame_buffer();
    planar();
    gc(0, 0x0a); /* planes 1 and 3 all ones, by set/reset; the others the processor's */
    gc(1, 0x0a);
    *(volatile uint64_t *)WINDOW = 0x0807060504030201;
    for (unsigned i = 0; i < 8; i++)
        CHECK_EQ(planes[i], 0xff00ff00u | (i + 1) << 16 | (i + 1));
    *(volatile uint32_t *)(WINDOW + 3) = 0;
    CHECK_EQ(planes[2], 0xff03ff03);
    CHECK_EQ(planes[6], 0xff00ff00);
    CHECK_EQ(planes[7], 0xff08ff08);
    uint32_t lanes[4] = {0x11111111, 0x22222222, 0x33333333, 0x44444444};
    asm volatile("movdqu %1, %%xmm0; movdqu %%xmm0, %0"
                 : "=m"(*(volatile uint32_t(*)[4])(WINDOW + 16))
                 : "m"(lanes));
    CHECK_EQ(planes[16], 0xff11ff11);
    CHECK_EQ(planes[31], 0xff44ff44);
}

/* The read fills the latches, the write uses them: what every game of its time does. */
TEST(read_modify_write)
{
    volatile uint32_t *planes = (volatile uint32_t *)frame_buffer();
    planar();
    planes[100] = 0x88442211;
    gc(8, 0x0f);                                       /* four of eight dots */
    asm volatile("orb $0x0f, %0" : "+m"(WINDOW[100])); /* reads plane 0: 11h */
    CHECK_EQ(planes[100], 0x8f4f2f1f);
    gc(5, 1);
    asm volatile("xchgb %%al, %0" : "+m"(WINDOW[100]) : : "al"); /* a copy onto itself */
    CHECK_EQ(planes[100], 0x8f4f2f1f);
    word count = 3;
    const volatile uint8_t *from = WINDOW + 100;
    volatile uint8_t *to = WINDOW + 200;
    planes[101] = 0x01020304, planes[102] = 0x05060708;
    asm volatile("rep movsb" : "+c"(count), "+S"(from), "+D"(to) : : "memory");
    CHECK_EQ(planes[200], 0x8f4f2f1f);
    CHECK_EQ(planes[201], 0x01020304);
    CHECK_EQ(planes[202], 0x05060708);
}

TEST(repeated_stores)
{
    volatile uint32_t *planes = (volatile uint32_t *)frame_buffer();
    planar();
    planes[0x1000 + 1000] = 0;
    gc(5, 2); /* a colour a byte */
    word count = 1000;
    volatile uint8_t *to = WINDOW + 0x1000;
    asm volatile("rep stosb" : "+c"(count), "+D"(to) : "a"(5) : "memory");
    CHECK_EQ(count, 0);
    CHECK_EQ(planes[0x1000], 0x00ff00ff);
    CHECK_EQ(planes[0x1000 + 999], 0x00ff00ff);
    CHECK_EQ(planes[0x1000 + 1000] & 0xff00ff, 0);
}

TEST(frame_buffer_is_memory)
{
    volatile uint8_t *fb = frame_buffer();
    vbe(4, 0);
    vbe(1, 800), vbe(2, 600), vbe(3, 32);
    vbe(4, 0x41);
    for (unsigned i = 0; i < BYTES; i += 8)
        CHECK_EQ(*(volatile uint64_t *)(fb + i), 0);
    for (unsigned i = 0; i < BYTES; i++)
        fb[i] = (uint8_t)(i * 7);
    uint32_t expected = 0x12345678;
    *(volatile uint32_t *)fb = expected;
    asm volatile("lock cmpxchgl %2, %0"
                 : "+m"(*(volatile uint32_t *)fb), "+a"(expected)
                 : "r"(0x9abcdef0)
                 : "memory");
    CHECK_EQ(*(volatile uint32_t *)fb, 0x9abcdef0);
    fb[(16 << 20) - 1] = 0x5a;
    CHECK_EQ(fb[(16 << 20) - 1], 0x5a);
    vbe(5, 0xff); /* the last bank, in the window */
    CHECK_EQ(WINDOW[0xffff], 0x5a);
    WINDOW[0xfffe] = 0xa5;
    CHECK_EQ(fb[(16 << 20) - 2], 0xa5);
    vbe(4, 0);
}

TEST(frame_buffer_moves)
{
    volatile uint8_t *fb = frame_buffer();
    uint32_t bar = pci_read32(VGA, PCI_BAR);
    for (unsigned i = 0; i < 100; i++) {
        uint32_t elsewhere = 0xd0000000 + (i & 3) * 0x1000000;
        fb[BYTES] = (uint8_t)i;
        pci_write32(VGA, PCI_BAR, elsewhere);
        volatile uint8_t *moved = (volatile uint8_t *)(word)elsewhere;
        CHECK_EQ(fb[BYTES], 0xff);
        CHECK_EQ(moved[BYTES], i);
        moved[BYTES] = (uint8_t)(i + 1);
        pci_write32(VGA, PCI_BAR, bar);
        CHECK_EQ(fb[BYTES], (uint8_t)(i + 1));
        CHECK_EQ(moved[BYTES], 0xff);
    }
    uint16_t command = pci_read16(VGA, PCI_COMMAND);
    pci_write16(VGA, PCI_COMMAND, (uint16_t)(command & ~2));
    CHECK_EQ(fb[BYTES], 0xff);
    pci_write16(VGA, PCI_COMMAND, command);
    CHECK_EQ(fb[BYTES], 100);
}

/* mov eax, N; ret: run from the frame buffer, then changed through the window, through the buffer,
 * and by moving it. */
TEST(code_in_the_frame_buffer)
{
    static const uint8_t code[] = {0xb8, 1, 0, 0, 0, 0xc3};
    volatile uint8_t *fb = frame_buffer();
    unsigned (*run)(void) = (unsigned (*)(void))(word)fb;
    uint32_t bar = pci_read32(VGA, PCI_BAR);
    vbe(1, 640), vbe(2, 480), vbe(3, 8);
    vbe(4, 0x41);
    for (unsigned i = 0; i < sizeof(code); i++)
        fb[i] = code[i];
    for (unsigned i = 0; i < 1000; i++)
        CHECK_EQ(run(), 1);
    for (unsigned i = 2; i < 50; i++) {
        WINDOW[1] = (uint8_t)i;
        CHECK_EQ(run(), i);
        fb[1] = (uint8_t)(i + 100);
        CHECK_EQ(run(), i + 100);
    }
    pci_write32(VGA, PCI_BAR, 0xd0000000);
    unsigned (*moved)(void) = (unsigned (*)(void))0xd0000000ul;
    CHECK_EQ(moved(), 149);
    *(volatile uint8_t *)0xd0000001ul = 7;
    pci_write32(VGA, PCI_BAR, bar);
    CHECK_EQ(run(), 7);
    vbe(4, 0);
}

TEST(retrace_comes_and_goes)
{
    unsigned changes = 0, before = inb(0x3da) & 8;
    uint64_t start = rdtsc();
    for (unsigned i = 0; i < 50000000 && changes < 6; i++) {
        unsigned now = inb(0x3da) & 8;
        changes += now != before;
        before = now;
    }
    CHECK_EQ(changes, 6);
    CHECK(rdtsc() > start);
}

const struct test guest_tests[] = {T(text_is_there_from_the_start),
                                   T(stores_of_all_widths),
                                   T(read_modify_write),
                                   T(repeated_stores),
                                   T(frame_buffer_is_memory),
                                   T(frame_buffer_moves),
                                   T(code_in_the_frame_buffer),
                                   T(retrace_comes_and_goes),
                                   {0, 0}};
