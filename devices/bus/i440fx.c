/*
 * i440fx.c - Intel 82441FX host bridge: PCI configuration mechanism #1 and the root of the bus.
 * Intel 82441FX datasheet (290549), sections 3.1 and 3.2; PCI 3.0, section 3.2.2.3.2.
 *
 *     CF8h  CONFIG_ADDRESS  31 enable | 23:16 bus | 15:11 device | 10:8 function | 7:2 register
 *     CFCh  CONFIG_DATA     bytes, words and dwords of the register that CONFIG_ADDRESS names
 *
 * Only whole dwords reach CONFIG_ADDRESS; anything smaller passes through to the ISA bus, where
 * byte CF9h is the ISA bridge's reset control register.
 *
 * PAM (59h-5Fh) is pam.c's. SMRAM (72h) can be written and read back but opens nothing: there is no
 * system management mode.
 */
#include "internal/error.h"
#include "internal/log.h"
#include "internal/pci.h"
#include "pam.h"
#include <stdlib.h>

#define CONFIG_ADDRESS_ENABLE 0x80000000u
#define CONFIG_ADDRESS_BITS   0x80fffffcu

enum { I440FX_PAM0 = 0x59, I440FX_PAM6 = 0x5f, I440FX_SMRAM = 0x72 };

struct i440fx {
    struct pci_device pci;
    struct pci_bus bus;
    struct pam pam;
};

static const struct field i440fx_fields[] = {
    PCI_DEVICE_FIELDS(struct i440fx, pci),
    FIELD(struct i440fx, bus.address, FIELD_U32, 1),
};
static const struct state_desc i440fx_state = STATE_DESC("i440fx", 1, i440fx_fields);

/* ---- Ports CF8h to CFFh -----------------------------------------------------------------------
 */

/* The device and register behind one byte of CONFIG_DATA; false: not a configuration cycle. */
static bool data_target(const struct pci_bus *bus, unsigned byte, uint8_t *devfn, unsigned *offset)
{
    if (!(bus->address & CONFIG_ADDRESS_ENABLE) || (bus->address >> 16 & 0xff) != 0)
        return false;
    *devfn = (uint8_t)(bus->address >> 8);
    *offset = (bus->address & 0xfc) + byte;
    return true;
}

/* [offset, offset + size) lies inside CONFIG_DATA: one access, as the device shall see it. */
static bool data_access(uint64_t offset, unsigned size)
{
    return offset >= 4 && size <= 4 && offset + size <= 8;
}

static uint64_t ports_read(void *opaque, const struct access *access, uint64_t offset,
                           unsigned size)
{
    struct pci_bus *bus = opaque;
    uint8_t devfn = 0;
    unsigned reg = 0;
    if (offset == 0 && size == 4)
        return bus->address;
    if (data_access(offset, size))
        return data_target(bus, (unsigned)offset - 4, &devfn, &reg)
                   ? pci_config_read(bus, devfn, reg, size)
                   : UINT64_MAX;
    if (size == 1)
        return offset == 1 && bus->reset_control_read ? bus->reset_control_read(bus->bridge) : 0xff;
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++) /* straddles registers */
        value |= (ports_read(bus, access, offset + i, 1) & 0xff) << 8 * i;
    return value;
}

static void ports_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                        uint64_t value)
{
    struct pci_bus *bus = opaque;
    uint8_t devfn = 0;
    unsigned reg = 0;
    if (offset == 0 && size == 4) {
        bus->address = (uint32_t)value & CONFIG_ADDRESS_BITS;
    } else if (data_access(offset, size)) {
        if (data_target(bus, (unsigned)offset - 4, &devfn, &reg))
            pci_config_write(bus, devfn, reg, size, (uint32_t)value);
    } else if (size == 1) {
        if (offset == 1 && bus->reset_control_write)
            bus->reset_control_write(bus->bridge, (uint8_t)value);
    } else {
        for (unsigned i = 0; i < size; i++)
            ports_write(bus, access, offset + i, 1, value >> 8 * i & 0xff);
    }
}

static const struct io_ops port_ops = {
    .read = ports_read, .write = ports_write, .min = 1, .max = 4};

/* ---- The host bridge as a device --------------------------------------------------------------
 */

static void i440fx_config_written(struct pci_device *dev, unsigned offset, unsigned size)
{
    struct i440fx *host = (struct i440fx *)dev;
    if (offset <= I440FX_PAM6 && offset + size > I440FX_PAM0)
        pam_update(&host->pam, &dev->config[I440FX_PAM0]);
    if (offset <= I440FX_SMRAM && offset + size > I440FX_SMRAM)
        LOG(dev->bus->board->log, LOG_UNIMP, "i440fx: SMRAM := %#x has no effect\n",
            dev->config[I440FX_SMRAM]);
}

bool i440fx_connect_memory(struct pci_bus *bus, struct ram_block *ram, struct ram_block *bios,
                           uint64_t bios_size, struct error *err)
{
    struct i440fx *host = (struct i440fx *)bus->host;
    return pam_init(&host->pam, bus->board->map, ram, bios, bios_size, err);
}

void i440fx_open_shadow(struct pci_bus *bus)
{
    enum { ALL = 0x33 };
    pci_config_write(bus, bus->host->devfn, I440FX_PAM0, 1, ALL & 0xf0);
    for (unsigned i = I440FX_PAM6 - 1; i <= I440FX_PAM6; i++) /* E0000h-EFFFFh */
        pci_config_write(bus, bus->host->devfn, i, 1, ALL);
}

static void i440fx_reset(struct device *dev)
{
    struct i440fx *host = (struct i440fx *)dev;
    pci_device_reset(&host->pci);
    pam_update(&host->pam, &host->pci.config[I440FX_PAM0]);
    host->bus.address = 0;
}

static void i440fx_restored(struct device *dev)
{
    struct i440fx *host = (struct i440fx *)dev;
    pci_device_restored(&host->pci);
    pam_update(&host->pam, &host->pci.config[I440FX_PAM0]);
}

static void i440fx_destroy(struct device *dev)
{
    struct i440fx *host = (struct i440fx *)dev;
    io_remove(host->bus.board->io, host->bus.handle);
    pam_fini(&host->pam);
    pci_device_remove(&host->pci);
    free(host);
}

struct pci_bus *i440fx_create(struct board *board, const struct msi_port *msi, struct error *err)
{
    static const struct pci_identity identity = {.vendor = 0x8086,
                                                 .device = 0x1237,
                                                 .subsystem_vendor = 0x1af4,
                                                 .subsystem = 0x1100,
                                                 .revision = 2,
                                                 .class_code = 0x060000};
    struct i440fx *host = calloc(1, sizeof(*host));
    if (!host) {
        error_set(err, "i440fx: out of memory");
        return NULL;
    }
    struct pci_bus *bus = &host->bus;
    bus->board = board;
    bus->msi = *msi;
    bus->host = &host->pci;
    host->pci.dev = (struct device){.name = "i440fx",
                                    .state = &i440fx_state,
                                    .reset = i440fx_reset,
                                    .destroy = i440fx_destroy,
                                    .restored = i440fx_restored};
    pci_device_init(&host->pci, &identity);
    /* The bridge always forwards memory cycles and masters the bus: both bits are hardwired. */
    pci_put16(&host->pci, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    host->pci.writable[PCI_COMMAND] = 0;
    pci_put16(&host->pci, PCI_STATUS, 0x0280); /* fast back-to-back, medium DEVSEL# */
    for (unsigned i = I440FX_PAM0; i <= I440FX_PAM6; i++)
        host->pci.writable[i] = 0xff;
    host->pci.config[I440FX_SMRAM] = 0x02;
    host->pci.writable[I440FX_SMRAM] = 0x78;
    host->pci.config_written = i440fx_config_written;
    if (!pci_device_add(bus, &host->pci, PCI_DEVFN(0, 0), err)) {
        free(host);
        return NULL;
    }
    bus->handle = io_add(board->io, 0xcf8, 8, &port_ops, bus, "pci-conf");
    return bus;
}
