/*
 * apic_bus.c - what carries interrupt messages between I/O APIC, MSI sources and local APICs, and
 * the address window FEE00000h-FEEFFFFFh behind which they all sit.
 *
 * Specified in SDM vol. 3: 11.6.2 (destinations), 11.11 (message-signalled interrupts).
 *
 * The window does not move with IA32_APIC_BASE: a local APIC that is moved elsewhere is lost to its
 * vCPU until it is moved back.
 */
#include "apic.h"
#include "internal/error.h"
#include "internal/log.h"
#include <stdlib.h>

#define WINDOW_SIZE 0x100000ull

struct apic_bus {
    struct board *board;
    struct pic *pic;
    struct ioapic *ioapic;
    struct lapic *lapics[APIC_MAX_CPUS]; /* by vCPU index */
    unsigned count;                      /* 1 + the highest index */
    int window;
};

/* ---- Messages -------------------------------------------------------------------------------- */

/* The one among the addressed that is least busy (SDM vol. 3, 11.6.2.4); of equals the first. */
static struct lapic *lowest_priority(struct apic_bus *bus, const struct apic_message *msg)
{
    struct lapic *best = NULL;
    for (unsigned i = 0; i < bus->count; i++) {
        struct lapic *l = bus->lapics[i];
        if (!l || !lapic_software_enabled(l) || !lapic_matches(l, msg))
            continue;
        if (!best || lapic_ppr(l) < lapic_ppr(best))
            best = l;
    }
    return best;
}

bool apic_bus_send(struct apic_bus *bus, const struct apic_message *msg)
{
    if (msg->mode == APIC_LOWEST) {
        struct lapic *l = lowest_priority(bus, msg);
        return l && lapic_accept(l, APIC_FIXED, msg->vector, msg->level);
    }
    bool taken = false;
    for (unsigned i = 0; i < bus->count; i++)
        if (bus->lapics[i] && lapic_matches(bus->lapics[i], msg))
            taken |= lapic_accept(bus->lapics[i], msg->mode, msg->vector, msg->level);
    return taken;
}

void apic_bus_send_others(struct apic_bus *bus, const struct lapic *but, uint8_t mode,
                          uint8_t vector)
{
    for (unsigned i = 0; i < bus->count; i++)
        if (bus->lapics[i] && bus->lapics[i] != but && lapic_enabled(bus->lapics[i]))
            lapic_accept(bus->lapics[i], mode, vector, false);
}

void apic_bus_eoi(struct apic_bus *bus, uint8_t vector)
{
    if (bus->ioapic)
        ioapic_eoi(bus->ioapic, vector);
}

void apic_bus_retry(struct apic_bus *bus)
{
    if (bus->ioapic)
        ioapic_retry(bus->ioapic);
}

int apic_bus_pic_acknowledge(struct apic_bus *bus)
{
    return bus->pic ? pic_acknowledge(bus->pic) : -1;
}

/* Address and data of an MSI. The redirection hint changes nothing: with a physical destination
 * there is one target anyway, and a logical one says itself whether it is lowest priority. */
static void msi_send(void *opaque, uint64_t address, uint32_t data)
{
    struct apic_bus *bus = opaque;
    if (address - APIC_DEFAULT_BASE >= WINDOW_SIZE) {
        LOG(bus->board->log, LOG_GUEST_ERRORS, "apic: MSI to address %#llx\n",
            (unsigned long long)address);
        return;
    }
    struct apic_message msg = {
        .dest = (uint32_t)(address >> 12) & 0xff,
        .logical = address & 1u << 2,
        .level = data & 1u << 15,
        .mode = data >> 8 & 7,
        .vector = (uint8_t)data,
    };
    if (msg.mode != APIC_SIPI) /* reserved here: only a CPU starts a CPU */
        apic_bus_send(bus, &msg);
}

struct msi_port apic_bus_msi(struct apic_bus *bus)
{
    return (struct msi_port){.send = msi_send, .opaque = bus};
}

/* ---- The window ------------------------------------------------------------------------------ */

/* The local APIC that an access to the first page is for; NULL: none. */
static struct lapic *accessed_lapic(struct apic_bus *bus, const struct access *access,
                                    uint64_t offset)
{
    switch (access->initiator) {
    case INITIATOR_VCPU_USER:
    case INITIATOR_VCPU_KERNEL:
    case INITIATOR_WALKER:
    case INITIATOR_EVENT:
    case INITIATOR_DEBUGGER:
        break;
    default:
        return NULL;
    }
    if (offset >= PAGE_SIZE || access->vcpu >= bus->count)
        return NULL;
    struct lapic *l = bus->lapics[access->vcpu];
    bool here =
        l && lapic_enabled(l) && !lapic_x2apic(l) && (l->base & PAGE_MASK) == APIC_DEFAULT_BASE;
    return here ? l : NULL;
}

static uint64_t window_read(void *opaque, const struct access *access, uint64_t offset,
                            unsigned size)
{
    struct lapic *l = accessed_lapic(opaque, access, offset);
    return l ? lapic_page_read(l, offset, size) : UINT64_MAX;
}

static void window_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                         uint64_t value)
{
    struct apic_bus *bus = opaque;
    struct lapic *l = accessed_lapic(bus, access, offset);
    if (l)
        lapic_page_write(l, offset, size, (uint32_t)value);
    else if (access->initiator == INITIATOR_DMA && size == 4)
        msi_send(bus, APIC_DEFAULT_BASE + offset, (uint32_t)value);
}

/* ---- Life ------------------------------------------------------------------------------------ */

void apic_bus_add_lapic(struct apic_bus *bus, struct lapic *l)
{
    bus->lapics[l->config.index] = l;
    if (bus->count <= l->config.index)
        bus->count = l->config.index + 1;
}

void apic_bus_remove_lapic(struct apic_bus *bus, struct lapic *l)
{
    bus->lapics[l->config.index] = NULL;
}

struct board *apic_bus_board(struct apic_bus *bus)
{
    return bus->board;
}

void apic_bus_set_ioapic(struct apic_bus *bus, struct ioapic *ioapic)
{
    bus->ioapic = ioapic;
}

static const struct io_ops window_ops = {window_read, window_write, 1, 4};

struct apic_bus *apic_bus_new(struct board *board, struct pic *pic, struct error *err)
{
    struct apic_bus *bus = chip_alloc(sizeof(*bus));
    bus->board = board;
    bus->pic = pic;
    bus->window = phys_add_mmio(board->map, APIC_DEFAULT_BASE, WINDOW_SIZE, &window_ops, bus,
                                "local apic", err);
    if (bus->window < 0) {
        free(bus);
        return NULL;
    }
    return bus;
}

void apic_bus_free(struct apic_bus *bus)
{
    phys_remove(bus->board->map, bus->window);
    free(bus);
}
