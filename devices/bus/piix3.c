/*
 * piix3.c - Intel 82371SB (PIIX3) PCI-to-ISA bridge: PIRQ routing and the reset control register.
 * Intel 82371FB/82371SB datasheet (290550), sections 2.2 and 2.5.
 *
 *     60h-63h  PIRQRC[A:D]  7 = not routed | 3:0 the ISA interrupt that the PIRQ pulls
 *     CF9h     RC           1 = hard reset (of the system) | 2 = a rising edge resets
 *
 * PCI interrupts are level-triggered and shared: an ISA interrupt is high while any PIRQ routed to
 * it is.
 */
#include "internal/error.h"
#include "internal/log.h"
#include "internal/pci.h"
#include <stdlib.h>

enum { PIIX3_PIRQRC = 0x60 };
#define PIRQRC_DISABLED 0x80
/* Interrupts 0, 1, 2, 8 and 13 are the timer's, keyboard's, cascade's, RTC's and FPU's. */
#define ROUTABLE   0xdef8u
#define RC_HARD    0x02
#define RC_TRIGGER 0x04

struct piix3 {
    struct pci_device pci;
    struct irq_line irqs[16];
    uint16_t driven; /* levels on irqs[] */
    uint8_t reset_control;
};

static const struct field piix3_fields[] = {
    PCI_DEVICE_FIELDS(struct piix3, pci),
    FIELD(struct piix3, reset_control, FIELD_U8, 1),
};
static const struct state_desc piix3_state = STATE_DESC("piix3", 1, piix3_fields);

/* Drives all sixteen interrupts from the PIRQs and where they are routed. */
static void route(struct piix3 *bridge)
{
    uint16_t levels = 0;
    for (unsigned pirq = 0; pirq < 4; pirq++) {
        uint8_t routing = bridge->pci.config[PIIX3_PIRQRC + pirq];
        if (!(routing & PIRQRC_DISABLED) && bridge->pci.bus->pirq_count[pirq])
            levels |= (uint16_t)(1u << (routing & 15));
    }
    levels &= ROUTABLE;
    uint16_t changed = levels ^ bridge->driven;
    bridge->driven = levels;
    for (unsigned irq = 0; irq < 16; irq++)
        if (changed >> irq & 1)
            irq_set(&bridge->irqs[irq], levels >> irq & 1);
}

static void piix3_pirq_changed(void *opaque, unsigned pirq, bool level)
{
    (void)pirq;
    (void)level;
    route(opaque);
}

static void piix3_config_written(struct pci_device *dev, unsigned offset, unsigned size)
{
    if (offset < PIIX3_PIRQRC + 4 && offset + size > PIIX3_PIRQRC)
        route((struct piix3 *)dev);
}

static uint8_t piix3_rc_read(void *opaque)
{
    return ((struct piix3 *)opaque)->reset_control;
}

static void piix3_rc_write(void *opaque, uint8_t value)
{
    struct piix3 *bridge = opaque;
    struct board *board = bridge->pci.bus->board;
    /* A soft reset (INIT of the CPU alone) leads to the same reset here as a hard one. */
    if (value & ~bridge->reset_control & RC_TRIGGER)
        board->shutdown(board->machine, BOARD_RESET, 0);
    bridge->reset_control = value & RC_HARD;
}

static void piix3_reset(struct device *dev)
{
    struct piix3 *bridge = (struct piix3 *)dev;
    pci_device_reset(&bridge->pci);
    bridge->reset_control = 0;
    route(bridge);
}

static void piix3_restored(struct device *dev)
{
    pci_device_restored(&((struct piix3 *)dev)->pci);
    route((struct piix3 *)dev);
}

static void piix3_destroy(struct device *dev)
{
    struct piix3 *bridge = (struct piix3 *)dev;
    struct pci_bus *bus = bridge->pci.bus;
    bus->pirq_changed = NULL;
    bus->reset_control_read = NULL;
    bus->reset_control_write = NULL;
    pci_device_remove(&bridge->pci);
    free(bridge);
}

/* Registers whose bits software may set but that steer nothing in this machine (datasheet 2.2):
 * ISA timing, chip selects, memory top, PIRQ routing of the motherboard devices. */
static void set_registers(struct pci_device *pci)
{
    static const struct {
        uint8_t offset, value, writable;
    } registers[] = {
        {0x4c, 0x4d, 0xff}, {0x4e, 0x03, 0xff}, {0x4f, 0x00, 0x01}, {0x69, 0x02, 0xfe},
        {0x6a, 0x00, 0xff}, {0x70, 0x80, 0xef}, {0x76, 0x0c, 0xff}, {0x77, 0x0c, 0xff},
        {0x78, 0x02, 0xff}, {0x80, 0x00, 0xff}, {0x82, 0x00, 0x0f}, {0xa0, 0x08, 0x1f},
    };
    for (unsigned i = 0; i < sizeof(registers) / sizeof(registers[0]); i++) {
        pci->config[registers[i].offset] = registers[i].value;
        pci->writable[registers[i].offset] = registers[i].writable;
    }
    for (unsigned pirq = 0; pirq < 4; pirq++) {
        pci->config[PIIX3_PIRQRC + pirq] = PIRQRC_DISABLED;
        pci->writable[PIIX3_PIRQRC + pirq] = PIRQRC_DISABLED | 0x0f;
    }
}

struct pci_device *piix3_create(struct pci_bus *bus, const struct irq_line irqs[16],
                                struct error *err)
{
    static const struct pci_identity identity = {.vendor = 0x8086,
                                                 .device = 0x7000,
                                                 .subsystem_vendor = 0x1af4,
                                                 .subsystem = 0x1100,
                                                 .class_code = 0x060100};
    struct piix3 *bridge = calloc(1, sizeof(*bridge));
    if (!bridge) {
        error_set(err, "piix3: out of memory");
        return NULL;
    }
    bridge->pci.dev = (struct device){.name = "piix3",
                                      .state = &piix3_state,
                                      .reset = piix3_reset,
                                      .destroy = piix3_destroy,
                                      .restored = piix3_restored};
    for (unsigned irq = 0; irq < 16; irq++)
        bridge->irqs[irq] = irqs[irq];
    pci_device_init(&bridge->pci, &identity);
    pci_put16(&bridge->pci, PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    bridge->pci.writable[PCI_COMMAND] = 0; /* hardwired (2.2.3) */
    pci_put16(&bridge->pci, PCI_STATUS, 0x0200);
    bridge->pci.config[PCI_HEADER_TYPE] = 0x80; /* multi-function: 00:01.3 is beside it */
    set_registers(&bridge->pci);
    bridge->pci.config_written = piix3_config_written;
    if (!pci_device_add(bus, &bridge->pci, PCI_DEVFN(1, 0), err)) {
        free(bridge);
        return NULL;
    }
    bus->bridge = bridge;
    bus->pirq_changed = piix3_pirq_changed;
    bus->reset_control_read = piix3_rc_read;
    bus->reset_control_write = piix3_rc_write;
    return &bridge->pci;
}
