/*
 * aml.c - the writer of ACPI machine language. See aml.h; encodings are ACPI 6.5, 20.2 and 6.4.
 */
#include "aml.h"
#include <string.h>

enum {
    AML_ZERO = 0x00,
    AML_ONE = 0x01,
    AML_NAME = 0x08,
    AML_BYTE = 0x0a,
    AML_WORD = 0x0b,
    AML_DWORD = 0x0c,
    AML_STRING = 0x0d,
    AML_QWORD = 0x0e,
    AML_SCOPE = 0x10,
    AML_BUFFER = 0x11,
    AML_PACKAGE = 0x12,
    AML_DUAL_NAME = 0x2e,
    AML_MULTI_NAME = 0x2f,
    AML_EXT = 0x5b,
    AML_EXT_REGION = 0x80,
    AML_EXT_FIELD = 0x81,
    AML_EXT_DEVICE = 0x82,
    AML_METHOD = 0x14,
    AML_ARG0 = 0x68,
    AML_STORE = 0x70,
    AML_AND = 0x7b,
    AML_CREATE_DWORD_FIELD = 0x8a,
    AML_IF = 0xa0,
    AML_RETURN = 0xa4,
};

void aml_byte(struct aml *a, uint8_t byte)
{
    if (a->len < a->room)
        a->bytes[a->len++] = byte;
    else
        a->full = true;
}

void aml_little(struct aml *a, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        aml_byte(a, (uint8_t)(value >> (8 * i)));
}

void aml_integer(struct aml *a, uint64_t value)
{
    if (value <= 1) {
        aml_byte(a, value ? AML_ONE : AML_ZERO);
        return;
    }
    unsigned bytes = value <= 0xff ? 1 : value <= 0xffff ? 2 : value <= 0xffffffff ? 4 : 8;
    aml_byte(a, bytes == 1 ? AML_BYTE : bytes == 2 ? AML_WORD : bytes == 4 ? AML_DWORD : AML_QWORD);
    aml_little(a, value, bytes);
}

void aml_string(struct aml *a, const char *text)
{
    aml_byte(a, AML_STRING);
    do
        aml_byte(a, (uint8_t)*text);
    while (*text++);
}

/* Segments are four characters, filled up with underscores. */
void aml_namestring(struct aml *a, const char *path)
{
    unsigned segments = *path != 0;
    if (*path == '\\')
        aml_byte(a, (uint8_t)*path++);
    for (const char *p = path; *p; p++)
        segments += *p == '.';
    if (segments == 2)
        aml_byte(a, AML_DUAL_NAME);
    if (segments > 2) {
        aml_byte(a, AML_MULTI_NAME);
        aml_byte(a, (uint8_t)segments);
    }
    while (*path) {
        for (unsigned i = 0; i < 4; i++)
            aml_byte(a, *path && *path != '.' ? (uint8_t)*path++ : '_');
        if (*path == '.')
            path++;
    }
}

/* ---- Objects with a length ------------------------------------------------------------------- */

static void open_object(struct aml *a)
{
    if (a->depth == AML_DEPTH) {
        a->full = true;
        return;
    }
    a->open[a->depth++] = a->len;
}

void aml_open_scope(struct aml *a, const char *path)
{
    aml_byte(a, AML_SCOPE);
    open_object(a);
    aml_namestring(a, path);
}

void aml_open_device(struct aml *a, const char *name)
{
    aml_byte(a, AML_EXT);
    aml_byte(a, AML_EXT_DEVICE);
    open_object(a);
    aml_namestring(a, name);
}

void aml_open_package(struct aml *a, unsigned elements)
{
    aml_byte(a, AML_PACKAGE);
    open_object(a);
    aml_byte(a, (uint8_t)elements);
}

/* The package length counts itself; it has 1 to 4 bytes: six bits alone, else four bits and up to
 * three whole bytes (20.2.4). */
void aml_close(struct aml *a)
{
    if (a->full || a->depth == 0) {
        a->full = true;
        return;
    }
    size_t at = a->open[--a->depth], body = a->len - at;
    unsigned more = body + 1 < 0x40 ? 0 : body + 2 < 0x1000 ? 1 : body + 3 < 0x100000 ? 2 : 3;
    size_t total = body + 1 + more;
    if (a->len + 1 + more > a->room) {
        a->full = true;
        return;
    }
    memmove(a->bytes + at + 1 + more, a->bytes + at, body);
    a->len += 1 + more;
    if (more == 0) {
        a->bytes[at] = (uint8_t)total;
        return;
    }
    a->bytes[at] = (uint8_t)(more << 6 | (total & 0xf));
    for (unsigned i = 0; i < more; i++)
        a->bytes[at + 1 + i] = (uint8_t)(total >> (4 + 8 * i));
}

/* ---- Registers and methods ------------------------------------------------------------------- */

void aml_region(struct aml *a, const char *name, enum aml_region_space space, uint64_t offset,
                uint64_t len)
{
    aml_byte(a, AML_EXT);
    aml_byte(a, AML_EXT_REGION);
    aml_namestring(a, name);
    aml_byte(a, (uint8_t)space);
    aml_integer(a, offset);
    aml_integer(a, len);
}

void aml_open_field(struct aml *a, const char *region)
{
    enum { BYTE_ACCESS = 1 };
    aml_byte(a, AML_EXT);
    aml_byte(a, AML_EXT_FIELD);
    open_object(a);
    aml_namestring(a, region);
    aml_byte(a, BYTE_ACCESS); /* no lock; other bits are preserved */
}

void aml_field_byte(struct aml *a, const char *name)
{
    aml_namestring(a, name);
    aml_byte(a, 8); /* bits, coded as a package length */
}

void aml_open_method(struct aml *a, const char *name, unsigned arguments)
{
    enum { SERIALIZED = 8 };
    aml_byte(a, AML_METHOD);
    open_object(a);
    aml_namestring(a, name);
    aml_byte(a, (uint8_t)(arguments | SERIALIZED));
}

void aml_open_if(struct aml *a)
{
    aml_byte(a, AML_IF);
    open_object(a);
}

void aml_and(struct aml *a, const char *name, uint64_t mask)
{
    aml_byte(a, AML_AND);
    aml_namestring(a, name);
    aml_integer(a, mask);
    aml_byte(a, 0); /* the result goes nowhere else */
}

void aml_return(struct aml *a)
{
    aml_byte(a, AML_RETURN);
}

void aml_store(struct aml *a)
{
    aml_byte(a, AML_STORE);
}

void aml_dword_field(struct aml *a)
{
    aml_byte(a, AML_CREATE_DWORD_FIELD);
}

void aml_argument0(struct aml *a)
{
    aml_byte(a, AML_ARG0);
}

/* ---- Names ----------------------------------------------------------------------------------- */

void aml_name(struct aml *a, const char *name)
{
    aml_byte(a, AML_NAME);
    aml_namestring(a, name);
}

void aml_name_integer(struct aml *a, const char *name, uint64_t value)
{
    aml_name(a, name);
    aml_integer(a, value);
}

void aml_name_string(struct aml *a, const char *name, const char *text)
{
    aml_name(a, name);
    aml_string(a, text);
}

static unsigned hex_digit(char c)
{
    return (unsigned)(c <= '9' ? c - '0' : c - 'A' + 10);
}

/* Three letters of five bits, four hexadecimal digits, stored big-endian. */
void aml_name_eisaid(struct aml *a, const char *name, const char *id)
{
    uint32_t v = (uint32_t)(id[0] - '@') << 26 | (uint32_t)(id[1] - '@') << 21 |
                 (uint32_t)(id[2] - '@') << 16;
    for (unsigned i = 0; i < 4; i++)
        v |= hex_digit(id[3 + i]) << (12 - 4 * i);
    aml_name(a, name);
    aml_byte(a, AML_DWORD);
    aml_little(a, __builtin_bswap32(v), 4);
}

/* ---- Resources ------------------------------------------------------------------------------- */

void aml_resources_init(struct aml_resources *r)
{
    memset(r, 0, sizeof(*r));
    r->a.bytes = r->bytes;
    r->a.room = sizeof(r->bytes);
}

void aml_port(struct aml_resources *r, uint16_t base, uint8_t count)
{
    aml_byte(&r->a, 0x47);
    aml_byte(&r->a, 1); /* 16-bit decode */
    aml_little(&r->a, base, 2);
    aml_little(&r->a, base, 2);
    aml_byte(&r->a, 1);
    aml_byte(&r->a, count);
}

void aml_irq(struct aml_resources *r, unsigned irq)
{
    aml_byte(&r->a, 0x22); /* without flags: edge, active high, exclusive */
    aml_little(&r->a, 1u << irq, 2);
}

/* ACPI 6.5, 6.4.2.2: 8-bit transfers, not a bus master, compatibility timing. */
void aml_dma(struct aml_resources *r, unsigned channel)
{
    aml_byte(&r->a, 0x2a);
    aml_byte(&r->a, (uint8_t)(1 << channel));
    aml_byte(&r->a, 0);
}

void aml_interrupts(struct aml_resources *r, const uint8_t *irqs, unsigned count)
{
    enum { CONSUMER = 1, SHARED = 8 };
    aml_byte(&r->a, 0x89); /* ACPI 6.5, 6.4.3.6: extended interrupt */
    aml_little(&r->a, 2 + 4 * count, 2);
    aml_byte(&r->a, CONSUMER | SHARED);
    aml_byte(&r->a, (uint8_t)count);
    for (unsigned i = 0; i < count; i++)
        aml_little(&r->a, irqs[i], 4);
}

void aml_memory(struct aml_resources *r, uint32_t base, uint32_t size)
{
    aml_byte(&r->a, 0x86); /* ACPI 6.5, 6.4.3.4: 32-bit fixed memory range */
    aml_little(&r->a, 9, 2);
    aml_byte(&r->a, 1); /* read-write */
    aml_little(&r->a, base, 4);
    aml_little(&r->a, size, 4);
}

void aml_window(struct aml_resources *r, enum aml_space space, unsigned width, uint64_t min,
                uint64_t max)
{
    enum { PRODUCER_FIXED = 0x0c, MEMORY_READ_WRITE = 1, IO_ENTIRE = 3 };
    aml_byte(&r->a, width == 2 ? 0x88 : width == 4 ? 0x87 : 0x8a);
    aml_little(&r->a, 3 + 5 * width, 2);
    aml_byte(&r->a, (uint8_t)space);
    aml_byte(&r->a, PRODUCER_FIXED);
    aml_byte(&r->a, space == AML_MEMORY ? MEMORY_READ_WRITE : space == AML_IO ? IO_ENTIRE : 0);
    aml_little(&r->a, 0, width); /* granularity */
    aml_little(&r->a, min, width);
    aml_little(&r->a, max, width);
    aml_little(&r->a, 0, width); /* translation */
    aml_little(&r->a, max - min + 1, width);
}

void aml_name_resources(struct aml *a, const char *name, struct aml_resources *r)
{
    aml_byte(&r->a, 0x79); /* end tag; checksum 0 = none */
    aml_byte(&r->a, 0);
    a->full |= r->a.full;
    aml_name(a, name);
    aml_byte(a, AML_BUFFER);
    open_object(a);
    aml_integer(a, r->a.len);
    for (size_t i = 0; i < r->a.len; i++)
        aml_byte(a, r->bytes[i]);
    aml_close(a);
}
