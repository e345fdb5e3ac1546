/*
 * ioapic.c - the I/O APIC: 24 inputs, each with a redirection entry that says what message it
 * sends.
 *
 * Specified in the 82093AA data sheet (290566) and, for the EOI register that makes it version 20h,
 * in the ICH data sheets. Polarity (bit 13) is kept but means nothing here: a line that is high is
 * asserted, whatever its electrical sense.
 */
#include "apic.h"
#include "internal/log.h"
#include <stdlib.h>

#define VERSION (0x20u | (IOAPIC_PINS - 1) << 16)

/* The page: index, data and EOI registers. */
enum { IOREGSEL = 0x00, IOWIN = 0x10, IOEOI = 0x40 };
/* Behind the index. */
enum { IOAPICID = 0x00, IOAPICVER = 0x01, IOAPICARB = 0x02, IOREDTBL = 0x10 };

#define ENTRY_LOGICAL    (1ull << 11)
#define ENTRY_PENDING    (1ull << 12)
#define ENTRY_REMOTE_IRR (1ull << 14)
#define ENTRY_LEVEL      (1ull << 15)
#define ENTRY_MASKED     (1ull << 16)
#define ENTRY_READ_ONLY  (ENTRY_PENDING | ENTRY_REMOTE_IRR)
#define ENTRY_WRITABLE   (0xff0000000001afffull)
#define ENTRY_MODE(e)    ((e) >> 8 & 7)

struct ioapic {
    struct device dev;
    struct apic_bus *bus;
    struct board *board;
    uint64_t entry[IOAPIC_PINS];
    uint32_t line; /* levels of the inputs now */
    uint32_t id;   /* bits 27-24 */
    uint8_t index;
    int page;
};

/* Only fixed and lowest-priority interrupts can be level triggered. */
static bool entry_is_level(uint64_t entry)
{
    return (entry & ENTRY_LEVEL) && ENTRY_MODE(entry) <= APIC_LOWEST;
}

/* False: nobody took it. */
static bool ioapic_send(struct ioapic *io, uint64_t entry)
{
    struct apic_message msg = {
        .dest = (uint32_t)(entry >> 56),
        .logical = entry & ENTRY_LOGICAL,
        .level = entry_is_level(entry),
        .mode = ENTRY_MODE(entry),
        .vector = (uint8_t)entry,
    };
    if (msg.mode == APIC_SIPI || msg.mode == 3)
        LOG(io->board->log, LOG_GUEST_ERRORS, "ioapic: reserved delivery mode\n");
    else
        return apic_bus_send(io->bus, &msg);
    return false;
}

/* A level-triggered input that is high sends once, then again after its EOI. When nobody takes the
 * message, remote IRR stays clear: there will be no EOI. The message is sent until it is taken,
 * which is when a local APIC has changed (ioapic_retry()). */
static void ioapic_check_level(struct ioapic *io, unsigned pin)
{
    uint64_t *entry = &io->entry[pin];
    if (!(io->line & 1u << pin) || !entry_is_level(*entry) ||
        (*entry & (ENTRY_MASKED | ENTRY_REMOTE_IRR)))
        return;
    if (ioapic_send(io, *entry))
        *entry |= ENTRY_REMOTE_IRR;
}

static void ioapic_set(void *opaque, unsigned pin, bool level)
{
    struct ioapic *io = opaque;
    bool rising = level && !(io->line & 1u << pin);
    uint64_t entry = io->entry[pin];
    io->line = level ? io->line | 1u << pin : io->line & ~(1u << pin);
    if (entry_is_level(entry))
        ioapic_check_level(io, pin);
    else if (rising && !(entry & ENTRY_MASKED)) /* an edge while masked is lost (section 3.2.4) */
        ioapic_send(io, entry);
}

struct irq_line ioapic_line(struct ioapic *ioapic, unsigned pin)
{
    return (struct irq_line){.set = ioapic_set, .opaque = ioapic, .pin = pin % IOAPIC_PINS};
}

void ioapic_eoi(struct ioapic *io, uint8_t vector)
{
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        uint64_t *entry = &io->entry[pin];
        if ((uint8_t)*entry == vector && (*entry & ENTRY_REMOTE_IRR)) {
            *entry &= ~ENTRY_REMOTE_IRR;
            ioapic_check_level(io, pin);
        }
    }
}

void ioapic_retry(struct ioapic *io)
{
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        ioapic_check_level(io, pin);
}

/* ---- Registers ------------------------------------------------------------------------------- */

/* Half of an entry. Making it edge triggered clears remote IRR: that is how systems get rid of a
 * stuck one on an I/O APIC without EOI register. */
static void write_entry(struct ioapic *io, unsigned half, uint32_t value)
{
    unsigned pin = half / 2;
    uint64_t mask = half & 1 ? 0xffffffff00000000ull : 0xffffffffull;
    uint64_t bits = (half & 1 ? (uint64_t)value << 32 : value) & ENTRY_WRITABLE;
    uint64_t *entry = &io->entry[pin];
    *entry = (*entry & (~mask | ENTRY_READ_ONLY)) | bits;
    if (!entry_is_level(*entry))
        *entry &= ~ENTRY_REMOTE_IRR;
    ioapic_check_level(io, pin);
}

static uint32_t read_indexed(const struct ioapic *io)
{
    unsigned half = (unsigned)io->index - IOREDTBL;
    switch (io->index) {
    case IOAPICID:
    case IOAPICARB:
        return io->id;
    case IOAPICVER:
        return VERSION;
    }
    if (io->index < IOREDTBL || half >= 2 * IOAPIC_PINS)
        return 0;
    return (uint32_t)(io->entry[half / 2] >> (half & 1 ? 32 : 0));
}

static void write_indexed(struct ioapic *io, uint32_t value)
{
    unsigned half = (unsigned)io->index - IOREDTBL;
    if (io->index == IOAPICID)
        io->id = value & 0x0f000000;
    else if (io->index >= IOREDTBL && half < 2 * IOAPIC_PINS)
        write_entry(io, half, value);
    else
        LOG(io->board->log, LOG_GUEST_ERRORS, "ioapic: write to register %#x\n", io->index);
}

static uint64_t page_read(void *opaque, const struct access *access, uint64_t offset, unsigned size)
{
    struct ioapic *io = opaque;
    (void)access;
    if (offset == IOREGSEL)
        return io->index;
    return offset == IOWIN && size == 4 ? read_indexed(io) : 0;
}

static void page_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                       uint64_t value)
{
    struct ioapic *io = opaque;
    (void)access;
    if (offset == IOREGSEL)
        io->index = (uint8_t)value;
    else if (offset == IOWIN && size == 4)
        write_indexed(io, (uint32_t)value);
    else if (offset == IOEOI)
        ioapic_eoi(io, (uint8_t)value);
}

/* ---- Life ------------------------------------------------------------------------------------ */

static void ioapic_reset(struct device *dev)
{
    struct ioapic *io = (struct ioapic *)dev;
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        io->entry[pin] = ENTRY_MASKED;
    io->id = io->index = 0;
}

static void ioapic_destroy(struct device *dev)
{
    struct ioapic *io = (struct ioapic *)dev;
    apic_bus_set_ioapic(io->bus, NULL);
    phys_remove(io->board->map, io->page);
    free(io);
}

static const struct field ioapic_fields[] = {
    FIELD_ARRAY(struct ioapic, entry, FIELD_U64, 1),
    FIELD(struct ioapic, line, FIELD_U32, 1),
    FIELD(struct ioapic, id, FIELD_U32, 1),
    FIELD(struct ioapic, index, FIELD_U8, 1),
};
static const struct state_desc ioapic_state = STATE_DESC("ioapic", 1, ioapic_fields);

static const struct io_ops page_ops = {page_read, page_write, 1, 4};

struct ioapic *ioapic_new(struct board *board, struct apic_bus *bus, struct error *err)
{
    struct ioapic *io = chip_alloc(sizeof(*io));
    io->dev = (struct device){
        .name = "ioapic", .state = &ioapic_state, .reset = ioapic_reset, .destroy = ioapic_destroy};
    io->board = board;
    io->bus = bus;
    io->page = phys_add_mmio(board->map, IOAPIC_BASE, PAGE_SIZE, &page_ops, io, "ioapic", err);
    if (io->page < 0) {
        free(io);
        return NULL;
    }
    ioapic_reset(&io->dev);
    apic_bus_set_ioapic(bus, io);
    return io;
}
