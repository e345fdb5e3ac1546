/*
 * tiny.c - console, exceptions and end of a tiny kernel (tiny.h).
 */
#include "tiny.h"
#include <stdarg.h>

/* ---- Console ------------------------------------------------------------------------------------
 */

static inline void outb(uint16_t port, uint8_t v)
{
    __asm__ volatile("outb %0, %1" ::"a"(v), "Nd"(port));
}

static inline uint8_t inb(uint16_t port)
{
    uint8_t v;
    __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}

enum { COM1 = 0x3f8, LINE_STATUS = COM1 + 5, TRANSMITTER_EMPTY = 0x20, DEBUG_EXIT = 0x501 };

static void put(char c)
{
    while (!(inb(LINE_STATUS) & TRANSMITTER_EMPTY))
        ;
    outb(COM1, (uint8_t)c);
}

static void put_number(uint64_t v, unsigned base)
{
    char digits[24];
    unsigned n = 0;
    do
        digits[n++] = "0123456789abcdef"[v % base];
    while (v /= base);
    while (n)
        put(digits[--n]);
}

void print(const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    for (; *format; format++) {
        if (*format != '%') {
            if (*format == '\n')
                put('\r');
            put(*format);
            continue;
        }
        bool is_long = *++format == 'l';
        format += is_long;
        if (*format == 's')
            for (const char *s = va_arg(ap, const char *); *s; s++)
                put(*s);
        else
            put_number(is_long ? va_arg(ap, uint64_t) : va_arg(ap, unsigned),
                       *format == 'x' ? 16 : 10);
    }
    va_end(ap);
}

void exit_machine(unsigned code)
{
    outb(DEBUG_EXIT, (uint8_t)code);
    for (;;)
        __asm__ volatile("cli; hlt");
}

/* ---- Exceptions ---------------------------------------------------------------------------------
 */

_Noreturn void unexpected_fault(void);
void unexpected_fault(void)
{
    print("unexpected exception %d, error code %x, at %lx, CR2 %lx\n", (unsigned)caught.vector,
          (unsigned)caught.error, caught.rip, caught.cr2);
    exit_machine(127);
}

extern const char exception_entries[];
enum { EXCEPTIONS = 32, ENTRY_SIZE = 16, CODE_SELECTOR = 0x08, INTERRUPT_GATE = 0x8e00 };
static struct gate {
    uint16_t offset0, selector, type, offset1;
    uint32_t offset2, zero;
} idt[EXCEPTIONS];

static void set_up_exceptions(void)
{
    for (unsigned n = 0; n < EXCEPTIONS; n++) {
        uint64_t at = (uint64_t)exception_entries + n * ENTRY_SIZE;
        idt[n] = (struct gate){(uint16_t)at,         CODE_SELECTOR,        INTERRUPT_GATE,
                               (uint16_t)(at >> 16), (uint32_t)(at >> 32), 0};
    }
    struct __attribute__((packed)) {
        uint16_t limit;
        uint64_t base;
    } idtr = {sizeof(idt) - 1, (uint64_t)idt};
    __asm__ volatile("lidt %0" ::"m"(idtr));
}

/* ---- Start --------------------------------------------------------------------------------------
 */

struct start_info { /* PVH */
    uint32_t magic, version, flags, modules;
    uint64_t module_list, command_line;
};

void tiny_start(const struct start_info *info);
void tiny_start(const struct start_info *info)
{
    outb(COM1 + 1, 0);    /* no interrupts */
    outb(COM1 + 3, 0x03); /* 8 bits, no parity */
    outb(COM1 + 2, 0x01); /* FIFO on */
    set_up_exceptions();
    kernel_main(info->command_line ? (const char *)info->command_line : "");
    exit_machine(0);
}
