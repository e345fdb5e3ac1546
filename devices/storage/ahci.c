/*
 * ahci.c - AHCI controller of Intel's ICH9 (82801IR, 8086:2922): the registers of the controller
 * and of its ports (AHCI 1.3.1, chapter 3), and interrupts. Commands are in ahci_port.c.
 *
 *     BAR 5: 00h CAP  04h GHC  08h IS  0Ch PI  10h VS    100h + 80h * port: the port's registers
 *     BAR 4: 10h, 14h: index and data, the same registers by ports
 */
#include "ahci.h"
#include "internal/error.h"
#include <stdlib.h>
#include <string.h>

enum { HBA_CAP = 0x00, HBA_GHC = 0x04, HBA_IS = 0x08, HBA_PI = 0x0c, HBA_VS = 0x10 };
enum { GHC_HR = 1u << 0, GHC_IE = 1u << 1, GHC_AE = 1u << 31 };
enum { DET_INIT = 1, DET_OFFLINE = 4 };
#define PORTS_BASE 0x100
#define PORT_SIZE  0x80
#define ABAR_SIZE  0x1000
#define CAP        (0xc1140000u | (AHCI_SLOTS - 1) << 8 | (AHCI_PORTS - 1)) /* S64A SNCQ SCLO ISS SAM */
#define VERSION    0x00010300
#define NO_DEVICE  0x7f /* PxTFD.STS before the first register FIS */
#define MAP_AHCI   0x40 /* configuration register 90h: the controller is in AHCI mode */

#define PORT_FIELDS(p)                                                                             \
    FIELD(struct ahci, p.clb, FIELD_U32, 1), FIELD(struct ahci, p.clbu, FIELD_U32, 1),             \
        FIELD(struct ahci, p.fb, FIELD_U32, 1), FIELD(struct ahci, p.fbu, FIELD_U32, 1),           \
        FIELD(struct ahci, p.is, FIELD_U32, 1), FIELD(struct ahci, p.ie, FIELD_U32, 1),            \
        FIELD(struct ahci, p.cmd, FIELD_U32, 1), FIELD(struct ahci, p.tfd, FIELD_U32, 1),          \
        FIELD(struct ahci, p.sig, FIELD_U32, 1), FIELD(struct ahci, p.ssts, FIELD_U32, 1),         \
        FIELD(struct ahci, p.sctl, FIELD_U32, 1), FIELD(struct ahci, p.serr, FIELD_U32, 1),        \
        FIELD(struct ahci, p.sact, FIELD_U32, 1), FIELD(struct ahci, p.ci, FIELD_U32, 1),          \
        FIELD(struct ahci, p.slot, FIELD_U8, 1), FIELD(struct ahci, p.halted, FIELD_U8, 1),        \
        FIELD(struct ahci, p.queued, FIELD_U32, 1), FIELD(struct ahci, p.pio_in, FIELD_U8, 1),     \
        FIELD_ARRAY(struct ahci, p.acmd, FIELD_BYTES, 1),                                          \
        FIELD_ARRAY(struct ahci, p.slots.header, FIELD_U64, 1),                                    \
        FIELD_ARRAY(struct ahci, p.slots.table, FIELD_U64, 1),                                     \
        FIELD_ARRAY(struct ahci, p.slots.moved, FIELD_U32, 1),                                     \
        FIELD_ARRAY(struct ahci, p.slots.in_entry, FIELD_U32, 1),                                  \
        FIELD_ARRAY(struct ahci, p.slots.entries, FIELD_U16, 1),                                   \
        FIELD_ARRAY(struct ahci, p.slots.entry, FIELD_U16, 1)
static const struct field ahci_fields[] = {
    PCI_DEVICE_FIELDS(struct ahci, pci),
    FIELD(struct ahci, ghc, FIELD_U32, 1),
    FIELD(struct ahci, is, FIELD_U32, 1),
    FIELD(struct ahci, index, FIELD_U32, 1),
    PORT_FIELDS(ports[0]),
    PORT_FIELDS(ports[1]),
    PORT_FIELDS(ports[2]),
    PORT_FIELDS(ports[3]),
    PORT_FIELDS(ports[4]),
    PORT_FIELDS(ports[5]),
};
static const struct state_desc ahci_state = STATE_DESC("ahci", 1, ahci_fields);
_Static_assert(AHCI_PORTS == 6, "the list above has one line per port");

/* ---- Interrupts --------------------------------------------------------------------------------
 */

/* A port's bit in IS is set while PxIS has bits that PxIE lets through (3.1.3, 10.7). */
static void update_interrupt(struct ahci *ahci, bool news)
{
    for (unsigned i = 0; i < AHCI_PORTS; i++)
        if (ahci->ports[i].is & ahci->ports[i].ie)
            ahci->is |= 1u << i;
    bool level = ahci->is && ahci->ghc & GHC_IE;
    pci_set_intx(&ahci->pci, level);
    if (level && news)
        msi_notify(&ahci->pci);
}

void ahci_event(struct ahci_port *port, uint32_t bits)
{
    port->is |= bits;
    update_interrupt(port->ahci, (bits & port->ie) != 0);
}

/* ---- Resets ------------------------------------------------------------------------------------
 */

static void come_up(struct ahci_port *port)
{
    struct ata_drive *d = port->host.drives[0];
    ahci_stop(port);
    port->tfd = d ? ATA_BSY : NO_DEVICE;
    port->sig = UINT32_MAX;
    port->ssts = d ? AHCI_SSTS_PRESENT : 0;
    if (d)
        ata_reset(d); /* its signature sets PxTFD and PxSIG */
}

/* 10.4.2: PxSCTL.DET from 1 to 0 is a COMRESET. */
static void write_sctl(struct ahci_port *port, uint32_t value)
{
    unsigned before = port->sctl & 15, now = value & 15;
    port->sctl = value & 0xfff;
    if (now == before)
        return;
    if (now == DET_INIT || now == DET_OFFLINE) {
        ahci_stop(port);
        port->tfd = NO_DEVICE;
        port->ssts = now == DET_OFFLINE ? DET_OFFLINE : 0;
    } else if (now == 0) {
        come_up(port);
    }
}

static void master_off(struct pci_device *pci)
{
    struct ahci *ahci = (struct ahci *)pci;
    for (unsigned i = 0; i < AHCI_PORTS; i++)
        if (ahci->ports[i].host.drives[0])
            ata_await_loans(ahci->ports[i].host.drives[0]);
}

static void reset_controller(struct ahci *ahci)
{
    ahci->ghc = GHC_AE;
    ahci->is = 0;
    for (unsigned i = 0; i < AHCI_PORTS; i++) {
        struct ahci_port *port = &ahci->ports[i];
        port->is = port->ie = port->serr = port->sctl = 0;
        port->cmd = CMD_SUD | CMD_POD;
        come_up(port);
    }
    update_interrupt(ahci, false);
}

/* ---- Registers ---------------------------------------------------------------------------------
 */

static uint32_t port_read(const struct ahci_port *port, unsigned offset)
{
    switch (offset) {
    case PX_CLB:
        return port->clb;
    case PX_CLBU:
        return port->clbu;
    case PX_FB:
        return port->fb;
    case PX_FBU:
        return port->fbu;
    case PX_IS:
        return port->is;
    case PX_IE:
        return port->ie;
    case PX_CMD:
        return port->cmd;
    case PX_TFD:
        return port->tfd;
    case PX_SIG:
        return port->sig;
    case PX_SSTS:
        return port->ssts;
    case PX_SCTL:
        return port->sctl;
    case PX_SERR:
        return port->serr;
    case PX_SACT:
        return port->sact;
    case PX_CI:
        return port->ci;
    default:
        return 0;
    }
}

static void write_command(struct ahci_port *port, uint32_t value)
{
    uint32_t before = port->cmd;
    uint32_t kept = before & ~(uint32_t)(CMD_WRITABLE | CMD_FR | CMD_CR);
    port->cmd = kept | (value & CMD_WRITABLE);
    if (value & CMD_CLO) /* and it is 0 again at once */
        port->tfd &= ~(uint32_t)(ATA_BSY | ATA_DRQ);
    if (port->cmd & CMD_FRE)
        port->cmd |= CMD_FR;
    if (port->cmd & CMD_ST)
        port->cmd |= CMD_CR;
    else if (before & CMD_ST)
        ahci_stop(port);
    if (port->cmd & ~before & CMD_ST)
        ahci_issue(port);
}

static void port_write(struct ahci_port *port, unsigned offset, uint32_t value)
{
    switch (offset) {
    case PX_CLB:
        port->clb = value & ~0x3ffu;
        break;
    case PX_CLBU:
        port->clbu = value;
        break;
    case PX_FB:
        port->fb = value & ~0xffu;
        break;
    case PX_FBU:
        port->fbu = value;
        break;
    case PX_IS:
        port->is &= ~value;
        update_interrupt(port->ahci, false);
        break;
    case PX_IE:
        port->ie = value & 0xfdc000ff;
        update_interrupt(port->ahci, true);
        break;
    case PX_CMD:
        write_command(port, value);
        break;
    case PX_SCTL:
        write_sctl(port, value);
        break;
    case PX_SERR:
        port->serr &= ~value;
        break;
    case PX_SACT: /* only while ST is set, and only to set bits */
        if (port->cmd & CMD_ST)
            port->sact |= value;
        break;
    case PX_CI:
        if (port->cmd & CMD_ST) {
            port->ci |= value;
            ahci_issue(port);
        }
        break;
    }
}

static uint32_t register_read(const struct ahci *ahci, unsigned offset)
{
    if (offset >= PORTS_BASE) {
        unsigned port = (offset - PORTS_BASE) / PORT_SIZE;
        return port < AHCI_PORTS ? port_read(&ahci->ports[port], offset % PORT_SIZE) : 0;
    }
    switch (offset) {
    case HBA_CAP:
        return CAP;
    case HBA_GHC:
        return ahci->ghc;
    case HBA_IS:
        return ahci->is;
    case HBA_PI:
        return (1u << AHCI_PORTS) - 1;
    case HBA_VS:
        return VERSION;
    default:
        return 0;
    }
}

static void register_write(struct ahci *ahci, unsigned offset, uint32_t value)
{
    if (offset >= PORTS_BASE) {
        unsigned port = (offset - PORTS_BASE) / PORT_SIZE;
        if (port < AHCI_PORTS)
            port_write(&ahci->ports[port], offset % PORT_SIZE, value);
    } else if (offset == HBA_GHC) {
        if (value & GHC_HR) {
            reset_controller(ahci);
            return;
        }
        ahci->ghc = GHC_AE | (value & GHC_IE);
        update_interrupt(ahci, true);
    } else if (offset == HBA_IS) {
        ahci->is &= ~value;
        update_interrupt(ahci, false);
    }
}

/* Registers are dwords (3): of narrower reads the caller takes its part, of wider ones both. */
static uint64_t abar_read(void *opaque, const struct access *access, uint64_t offset, unsigned size)
{
    (void)access;
    return register_read(opaque, (unsigned)offset & ~3u) >> 8 * (offset & 3) &
           (UINT64_MAX >> (64 - 8 * size));
}

static void abar_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                       uint64_t value)
{
    (void)access;
    if (size == 4) /* narrower ones are undefined, and do nothing */
        register_write(opaque, (unsigned)offset & ~3u, (uint32_t)value);
}

static const struct io_ops abar_ops = {.read = abar_read, .write = abar_write, .min = 1, .max = 4};

/* 3.4: the index and data pair */
enum { IDP_SIZE = 32, IDP_INDEX = 0x10, IDP_DATA = 0x14 };

static uint64_t idp_read(void *opaque, const struct access *access, uint64_t offset, unsigned size)
{
    struct ahci *ahci = opaque;
    (void)access;
    if (size != 4)
        return 0;
    return offset == IDP_INDEX  ? ahci->index
           : offset == IDP_DATA ? register_read(ahci, ahci->index)
                                : 0;
}

static void idp_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                      uint64_t value)
{
    struct ahci *ahci = opaque;
    (void)access;
    if (size == 4 && offset == IDP_INDEX)
        ahci->index = (uint32_t)value & (ABAR_SIZE - 1) & ~3u;
    else if (size == 4 && offset == IDP_DATA)
        register_write(ahci, ahci->index, (uint32_t)value);
}

static const struct io_ops idp_ops = {.read = idp_read, .write = idp_write, .min = 1, .max = 4};

/* ---- Life --------------------------------------------------------------------------------------
 */

static void ahci_reset(struct device *dev)
{
    struct ahci *ahci = (struct ahci *)dev;
    pci_device_reset(&ahci->pci);
    for (unsigned i = 0; i < AHCI_PORTS; i++) {
        struct ahci_port *port = &ahci->ports[i];
        port->clb = port->clbu = port->fb = port->fbu = 0;
    }
    ahci->index = 0;
    reset_controller(ahci);
}

static void ahci_restored(struct device *dev)
{
    struct ahci *ahci = (struct ahci *)dev;
    pci_device_restored(&ahci->pci);
    for (unsigned i = 0; i < AHCI_PORTS; i++)
        if (ahci->ports[i].slot >= AHCI_SLOTS)
            ahci->ports[i].slot = AHCI_NO_SLOT;
}

static void ahci_destroy(struct device *dev)
{
    struct ahci *ahci = (struct ahci *)dev;
    pci_device_remove(&ahci->pci);
    free(ahci);
}

static void set_capabilities(struct pci_device *pci)
{
    pci->capability_end = 0x80; /* where the chip has them */
    msi_init(pci);
    pci->capability_end = 0xa8;
    unsigned sata = pci_add_capability(pci, PCI_CAP_ID_SATA, 8);
    pci_put16(pci, sata + 2, 0x0010);                 /* revision 1.0 */
    pci_put32(pci, sata + 4, IDP_INDEX / 4 << 4 | 8); /* the pair: its dword in BAR 4 */
    pci->config[0x90] = MAP_AHCI;
}

struct pci_device *ahci_create(struct pci_bus *bus, int devfn, struct error *err)
{
    static const struct pci_identity identity = {.vendor = 0x8086,
                                                 .device = 0x2922,
                                                 .subsystem_vendor = 0x1af4,
                                                 .subsystem = 0x1100,
                                                 .revision = 2,
                                                 .class_code = 0x010601};
    struct ahci *ahci = calloc(1, sizeof(*ahci));
    if (!ahci) {
        error_set(err, "ich9-ahci: out of memory");
        return NULL;
    }
    ahci->pci.dev = (struct device){.name = "ich9-ahci",
                                    .state = &ahci_state,
                                    .reset = ahci_reset,
                                    .destroy = ahci_destroy,
                                    .restored = ahci_restored};
    pci_device_init(&ahci->pci, &identity);
    ahci->pci.master_off = master_off;
    ahci->pci.config[PCI_INTERRUPT_PIN] = 1;
    set_capabilities(&ahci->pci);
    pci_set_bar(&ahci->pci, 4, PCI_BAR_IO, IDP_SIZE, &idp_ops, ahci, "ahci.idp");
    pci_set_bar(&ahci->pci, 5, PCI_BAR_MEM32, ABAR_SIZE, &abar_ops, ahci, "ahci");
    for (unsigned i = 0; i < AHCI_PORTS; i++) {
        struct ahci_port *port = &ahci->ports[i];
        port->ahci = ahci;
        port->slot = AHCI_NO_SLOT;
        port->host = (struct ata_host){.ops = &ahci_host_ops,
                                       .controller = port,
                                       .board = bus->board,
                                       .number = i,
                                       .units = 1,
                                       .sata = true};
    }
    if (!pci_device_add(bus, &ahci->pci, devfn, err)) {
        free(ahci);
        return NULL;
    }
    reset_controller(ahci);
    return &ahci->pci;
}

struct ata_host *ahci_host(struct pci_device *ahci, unsigned port)
{
    return &((struct ahci *)ahci)->ports[port].host;
}
