/*
 * pci_board.h - a board with RAM, ports, an event queue and the PC's PCI bus, for device tests.
 * Interrupts and messages are recorded. Included by one test program each.
 */
#ifndef TEST_PCI_BOARD_H
#define TEST_PCI_BOARD_H

#include "internal/clock.h"
#include "internal/error.h"
#include "internal/event.h"
#include "internal/log.h"
#include "internal/pci.h"
#include <check.h>
#include <stdlib.h>
#include <string.h>

#define RAM_SIZE   (16ull << 20)
#define MEM_WINDOW 0xe0000000ull
#define MEM_END    0xfec00000ull
#define PM_BASE    0x600

static pthread_mutex_t machine_lock;
static struct log quiet;
static struct board board;
static struct pci_bus *bus;
static struct pci_device *isa, *pm;
static bool irq_level[16];
static unsigned irq_changes;
static struct {
    uint64_t address;
    uint32_t data;
} messages[64];
static unsigned message_count;
static int shutdown_reason; /* enum board_event, or -1 */
static const struct access cpu_access = {.initiator = INITIATOR_VCPU_KERNEL};

static void record_irq(void *opaque, unsigned pin, bool level)
{
    (void)opaque;
    ck_assert(irq_level[pin] != level); /* a wire is driven only when it changes */
    irq_level[pin] = level;
    irq_changes++;
}

static void record_message(void *opaque, uint64_t address, uint32_t data)
{
    (void)opaque;
    ck_assert_uint_lt(message_count, 64);
    messages[message_count].address = address;
    messages[message_count++].data = data;
}

static void record_shutdown(void *machine, enum board_event what, int status)
{
    (void)machine;
    (void)status;
    shutdown_reason = (int)what;
}

static uint16_t pm_base; /* where the power-management registers are decoded */

static void record_pm(void *opaque, uint16_t base)
{
    (void)opaque;
    pm_base = base;
}

static void board_setup(void)
{
    struct error err = {""};
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&machine_lock, &attr);
    quiet = (struct log){.out = stderr};
    board = (struct board){.lock = &machine_lock, .log = &quiet, .shutdown = record_shutdown};
    board.clock = clock_new();
    board.queue = event_queue_new(board.clock, &machine_lock);
    board.map = phys_new(&machine_lock, &quiet);
    board.io = io_space_new(&machine_lock, &quiet);
    struct ram_block *ram = phys_ram_new(board.map, RAM_SIZE, &err);
    ck_assert_msg(ram && phys_add_ram(board.map, 0, RAM_SIZE, ram, 0, "ram", &err), "%s", err.msg);
    memset(irq_level, 0, sizeof(irq_level));
    irq_changes = message_count = 0;
    shutdown_reason = -1;
    struct msi_port msi = {.send = record_message};
    struct irq_line irqs[16];
    for (unsigned i = 0; i < 16; i++)
        irqs[i] = (struct irq_line){.set = record_irq, .pin = i};
    bus = i440fx_create(&board, &msi, &err);
    ck_assert_msg(bus != NULL, "%s", err.msg);
    isa = piix3_create(bus, irqs, &err);
    static const struct piix4_pm_port port = {.moved = record_pm};
    pm = piix4_pm_create(bus, &port, &err);
    ck_assert_msg(isa && pm, "%s", err.msg);
}

/* Devices that the test itself plugged in must be gone. */
static void board_teardown(void)
{
    pm->dev.destroy(&pm->dev);
    isa->dev.destroy(&isa->dev);
    bus->host->dev.destroy(&bus->host->dev);
    io_space_free(board.io);
    phys_free(board.map);
    event_queue_free(board.queue);
    clock_free(board.clock);
    pthread_mutex_destroy(&machine_lock);
}

/* ---- The CPU's side ---------------------------------------------------------------------------
 */

static inline uint32_t inp(uint16_t port, unsigned size)
{
    return io_read(board.io, &cpu_access, port, size);
}

static inline void outp(uint16_t port, unsigned size, uint32_t value)
{
    io_write(board.io, &cpu_access, port, size, value);
}

static inline uint32_t config_in(unsigned devfn, unsigned reg, unsigned size)
{
    outp(0xcf8, 4, 0x80000000u | devfn << 8 | (reg & ~3u));
    return inp((uint16_t)(0xcfc + (reg & 3)), size);
}

static inline void config_out(unsigned devfn, unsigned reg, unsigned size, uint32_t value)
{
    outp(0xcf8, 4, 0x80000000u | devfn << 8 | (reg & ~3u));
    outp((uint16_t)(0xcfc + (reg & 3)), size, value);
}

static inline uint64_t mem_in(uint64_t gpa, unsigned size)
{
    uint64_t value = 0;
    ck_assert_int_eq(phys_read(board.map, &cpu_access, gpa, &value, size), PHYS_OK);
    return value;
}

static inline void mem_out(uint64_t gpa, unsigned size, uint64_t value)
{
    ck_assert_int_eq(phys_write(board.map, &cpu_access, gpa, &value, size), PHYS_OK);
}

/* Turns the event loop until `*flag` is set. */
static inline void turn_until(const volatile bool *flag)
{
    while (!*flag)
        event_poll(board.queue);
}

#endif
