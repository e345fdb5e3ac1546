/*
 * piix3_ide.c - Intel 82371SB (PIIX3) function 1: two IDE channels at the ports that PCs have had
 * since the AT, and the bus master that moves their data (290550, sections 2.3 and 2.7; SFF-8038i
 * for the descriptors). The drives are ata_drive.c's.
 *
 *     1F0h-1F7h, 3F6h  channel 0, interrupt 14        170h-177h, 376h  channel 1, interrupt 15
 *     BAR 4: per channel 8 ports: 0 BMIC  2 BMIS  4-7 BMIDTP
 *
 * Hosts write the registers of both drives of a channel at once and read those of the selected one.
 * Of a drive that is not there status and error read 0; its other registers are drive 0's, or 0
 * without a drive 0: so the searches of firmware and operating systems end at once.
 */
#include "ata.h"
#include "internal/error.h"
#include <stdlib.h>
#include <string.h>

enum { IDETIM = 0x40 };
enum { REG_DATA, REG_FEATURE, REG_COUNT, REG_LBA0, REG_LBA1, REG_LBA2, REG_DEVICE, REG_COMMAND };
enum { CONTROL_NIEN = 0x02, CONTROL_SRST = 0x04, CONTROL_HOB = 0x80 };
enum { BMIC = 0, BMIS = 2, BMIDTP = 4 };
enum { BMIC_START = 0x01, BMIC_TO_MEMORY = 0x08 };
enum {
    BMIS_ACTIVE = 0x01,
    BMIS_ERROR = 0x02,
    BMIS_INTERRUPT = 0x04,
    BMIS_CAPABLE = 0x60, /* drives can do DMA: firmware's note for drivers */
};
#define COMMAND_DEVICE_RESET 0x08
#define COMMAND_DIAGNOSTIC   0x90
#define PRD_SIZE             8
#define PRD_LAST             0x80000000u

/* How far the bus master is in the descriptors. */
struct prd_cursor {
    uint32_t next;     /* address of the descriptor to be fetched next */
    uint32_t at, left; /* what is left of the present one */
    uint8_t last;      /* it is the table's last */
};

struct channel {
    struct piix3_ide *ide;
    struct ata_host host;
    struct irq_line irq;
    int handles[2]; /* of the command block's ports and the control port */
    uint8_t device; /* the device register as it was written last: DEV selects */
    uint8_t control;
    uint8_t irq_level;
    /* -- the bus master --------------------------------------------------------------------- */
    uint8_t bm_command, bm_status;
    uint32_t bm_table;
    struct prd_cursor prd;
};

struct piix3_ide {
    struct pci_device pci;
    struct channel channels[2];
};

#define CHANNEL_FIELDS(c)                                                                          \
    FIELD(struct piix3_ide, c.device, FIELD_U8, 1),                                                \
        FIELD(struct piix3_ide, c.control, FIELD_U8, 1),                                           \
        FIELD(struct piix3_ide, c.irq_level, FIELD_U8, 1),                                         \
        FIELD(struct piix3_ide, c.bm_command, FIELD_U8, 1),                                        \
        FIELD(struct piix3_ide, c.bm_status, FIELD_U8, 1),                                         \
        FIELD(struct piix3_ide, c.bm_table, FIELD_U32, 1),                                         \
        FIELD(struct piix3_ide, c.prd.next, FIELD_U32, 1),                                         \
        FIELD(struct piix3_ide, c.prd.at, FIELD_U32, 1),                                           \
        FIELD(struct piix3_ide, c.prd.left, FIELD_U32, 1),                                         \
        FIELD(struct piix3_ide, c.prd.last, FIELD_U8, 1)
static const struct field ide_fields[] = {
    PCI_DEVICE_FIELDS(struct piix3_ide, pci),
    CHANNEL_FIELDS(channels[0]),
    CHANNEL_FIELDS(channels[1]),
};
static const struct state_desc ide_state = STATE_DESC("piix3-ide", 1, ide_fields);

static struct ata_drive *selected(const struct channel *c)
{
    return c->host.drives[(c->device & ATA_DEV) != 0];
}

/* ---- Interrupts --------------------------------------------------------------------------------
 */

static void update_irq(struct channel *c)
{
    const struct ata_drive *d = selected(c);
    bool level = d && d->intrq && !(c->control & CONTROL_NIEN);
    if (level == c->irq_level)
        return;
    c->irq_level = level;
    if (level)
        c->bm_status |= BMIS_INTERRUPT;
    irq_set(&c->irq, level);
}

/* ---- The bus master ----------------------------------------------------------------------------
 */

static bool fetch_prd(struct channel *c, struct prd_cursor *cursor)
{
    uint8_t prd[PRD_SIZE];
    if (!pci_dma_read(&c->ide->pci, cursor->next, prd, sizeof(prd)))
        return false;
    uint32_t words[2] = {0, 0};
    for (unsigned i = 0; i < PRD_SIZE; i++)
        words[i / 4] |= (uint32_t)prd[i] << 8 * (i % 4);
    cursor->next += PRD_SIZE;
    cursor->at = words[0] & ~1u; /* bit 0 of address and count is 0 */
    cursor->left = words[1] & 0xfffe ? words[1] & 0xfffe : 0x10000;
    cursor->last = (words[1] & PRD_LAST) != 0;
    return true;
}

static bool move(struct channel *c, struct ata_drive *d, uint32_t len)
{
    uint8_t *bytes = d->buffer + d->pos;
    if (d->lending == ATA_LENT)
        return true; /* it has moved */
    return d->phase == ATA_PHASE_IN ? pci_dma_write(&c->ide->pci, c->prd.at, bytes, len)
                                    : pci_dma_read(&c->ide->pci, c->prd.at, bytes, len);
}

/* The memory for the drive's block, if all of it is to be lent. The descriptors stay where they
 * are.
 */
static struct phys_loan *lend(struct channel *c, const struct ata_drive *d)
{
    uint32_t len = d->block - d->pos;
    struct prd_cursor prd = c->prd;
    struct phys_loan *loan =
        pci_dma_lend(&c->ide->pci, d->phase == ATA_PHASE_IN, (unsigned)(len / PAGE_SIZE));
    while (loan && len) {
        if (!prd.left && (prd.last || !fetch_prd(c, &prd)))
            break;
        uint32_t now = len < prd.left ? len : prd.left;
        if (!phys_loan_add(loan, prd.at, now))
            break;
        prd.at += now;
        prd.left -= now;
        len -= now;
    }
    if (!len)
        return loan;
    phys_loan_end(loan);
    return NULL;
}

static void master_abort(struct channel *c, struct ata_drive *d)
{
    c->bm_status |= BMIS_ERROR;
    c->bm_status &= (uint8_t)~BMIS_ACTIVE;
    ata_dma_failed(d, true);
}

/* Moves what the drive's block and the descriptors allow; called when either has become ready. */
static void run_engine(struct channel *c)
{
    struct ata_drive *d = selected(c);
    while (d && c->bm_status & BMIS_ACTIVE && ata_by_dma(d) &&
           (d->phase == ATA_PHASE_IN || d->phase == ATA_PHASE_OUT)) {
        if (d->lending == ATA_OFFERED) {
            ata_lend(d, lend(c, d));
            continue;
        }
        if (!c->prd.left &&
            c->prd.last) { /* fewer bytes than the drive has: it stops, in silence */
            c->bm_status &= (uint8_t)~BMIS_ACTIVE;
            ata_dma_failed(d, false);
            return;
        }
        uint32_t len = d->block - d->pos;
        if (!c->prd.left && !fetch_prd(c, &c->prd)) {
            master_abort(c, d);
            return;
        }
        len = len < c->prd.left ? len : c->prd.left;
        if (!move(c, d, len)) {
            master_abort(c, d);
            return;
        }
        c->prd.at += len;
        c->prd.left -= len;
        ata_moved(d, len);
    }
}

static void command_write(struct channel *c, uint8_t value)
{
    uint8_t changed = c->bm_command ^ value;
    c->bm_command = value & (BMIC_START | BMIC_TO_MEMORY);
    if (!(changed & BMIC_START))
        return;
    if (!(value & BMIC_START)) {
        c->bm_status &= (uint8_t)~BMIS_ACTIVE;
        if (selected(c))
            ata_revoke(selected(c));
        return;
    }
    c->bm_status |= BMIS_ACTIVE;
    c->prd.next = c->bm_table;
    c->prd.left = c->prd.last = 0;
    run_engine(c);
}

static uint64_t bm_read(void *opaque, const struct access *access, uint64_t offset, unsigned size)
{
    struct piix3_ide *ide = opaque;
    const struct channel *c = &ide->channels[offset >> 3 & 1];
    (void)access, (void)size;
    switch (offset & 7) {
    case BMIC:
        return c->bm_command;
    case BMIS:
        return c->bm_status;
    case BMIDTP:
    case BMIDTP + 1:
    case BMIDTP + 2:
    case BMIDTP + 3:
        return c->bm_table >> 8 * (offset & 3) & 0xff;
    default:
        return 0;
    }
}

static void bm_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                     uint64_t value)
{
    struct piix3_ide *ide = opaque;
    struct channel *c = &ide->channels[offset >> 3 & 1];
    unsigned shift = 8 * (offset & 3);
    (void)access, (void)size;
    switch (offset & 7) {
    case BMIC:
        command_write(c, (uint8_t)value);
        break;
    case BMIS:
        c->bm_status = (uint8_t)((value & BMIS_CAPABLE) | (c->bm_status & BMIS_ACTIVE) |
                                 (c->bm_status & ~value & (BMIS_ERROR | BMIS_INTERRUPT)));
        break;
    case BMIDTP:
    case BMIDTP + 1:
    case BMIDTP + 2:
    case BMIDTP + 3:
        c->bm_table = ((c->bm_table & ~(0xffu << shift)) | (uint32_t)(value & 0xff) << shift) & ~3u;
        break;
    }
}

/* A byte at a time: registers of several bytes are put together by who asks. */
static const struct io_ops bm_ops = {.read = bm_read, .write = bm_write, .min = 1, .max = 1};

/* ---- What drives say ---------------------------------------------------------------------------
 */

static void drive_data(struct ata_host *host, struct ata_drive *d, bool interrupt)
{
    struct channel *c = host->controller;
    if (interrupt)
        d->intrq = 1;
    update_irq(c);
    run_engine(c);
}

static void drive_done(struct ata_host *host, struct ata_drive *d)
{
    struct channel *c = host->controller;
    /* A table that ends with the data stops the engine; a longer one leaves it active. */
    if (d->dma && !c->prd.left && c->prd.last)
        c->bm_status &= (uint8_t)~BMIS_ACTIVE;
    d->intrq = 1;
    update_irq(c);
}

static void drive_ready(struct ata_host *host, struct ata_drive *d)
{
    (void)d;
    update_irq(host->controller);
}

static const struct ata_host_ops host_ops = {
    .data = drive_data, .done = drive_done, .ready = drive_ready};

/* ---- The command block -------------------------------------------------------------------------
 */

static uint32_t data_read(struct channel *c, unsigned size)
{
    struct ata_drive *d = selected(c);
    uint32_t value = 0;
    if (!d || d->phase != ATA_PHASE_IN || ata_by_dma(d))
        return 0;
    uint32_t left = d->block - d->pos, len = size < left ? size : left;
    memcpy(&value, d->buffer + d->pos, len);
    ata_moved(d, len);
    return value;
}

static void data_write(struct channel *c, unsigned size, uint32_t value)
{
    struct ata_drive *d = selected(c);
    if (!d || d->phase != ATA_PHASE_OUT || ata_by_dma(d))
        return;
    uint32_t left = d->block - d->pos, len = size < left ? size : left;
    memcpy(d->buffer + d->pos, &value, len);
    ata_moved(d, len);
}

static uint8_t status_read(struct channel *c, bool acknowledge)
{
    struct ata_drive *d = selected(c);
    if (!d)
        return 0;
    if (acknowledge) {
        d->intrq = 0;
        update_irq(c);
    }
    return d->regs.status;
}

static uint8_t register_read(struct channel *c, unsigned reg)
{
    const struct ata_drive *d = selected(c), *shown = d ? d : c->host.drives[0];
    bool hob = c->control & CONTROL_HOB;
    if (reg == REG_COMMAND)
        return status_read(c, true);
    if (!shown)
        return 0;
    switch (reg) {
    case REG_FEATURE:
        return d ? d->regs.error : 0;
    case REG_COUNT:
        return hob ? shown->regs.hob_count : shown->regs.count;
    case REG_DEVICE:
        return (uint8_t)((shown->regs.device & ~ATA_DEV) | (c->device & ATA_DEV) | 0xa0);
    default: /* REG_LBA0 to REG_LBA2 */
        return hob ? shown->regs.hob_lba[reg - REG_LBA0] : shown->regs.lba[reg - REG_LBA0];
    }
}

static void execute(struct channel *c, uint8_t command)
{
    struct ata_drive *d = selected(c);
    if (!d || d->srst)
        return;
    if (ata_busy(d)) {
        if (d->cdrom && command == COMMAND_DEVICE_RESET)
            ata_device_reset(d);
        update_irq(c);
        return;
    }
    d->intrq = 0;
    update_irq(c);
    if (command != COMMAND_DIAGNOSTIC) {
        ata_execute(d, command);
        return;
    }
    c->device = 0; /* both drives do it, and drive 0 is selected then */
    for (unsigned unit = 0; unit < 2; unit++)
        if (c->host.drives[unit] && !ata_busy(c->host.drives[unit]))
            ata_execute(c->host.drives[unit], command);
    if (c->host.drives[0] && c->host.drives[1]) /* drive 0 speaks for both */
        c->host.drives[1]->intrq = 0;
}

static void put_register(struct ata_registers *r, unsigned reg, uint8_t value)
{
    switch (reg) {
    case REG_FEATURE:
        r->hob_feature = r->feature;
        r->feature = value;
        break;
    case REG_COUNT:
        r->hob_count = r->count;
        r->count = value;
        break;
    case REG_DEVICE:
        r->device = value;
        break;
    default:
        r->hob_lba[reg - REG_LBA0] = r->lba[reg - REG_LBA0];
        r->lba[reg - REG_LBA0] = value;
    }
}

static void register_write(struct channel *c, unsigned reg, uint8_t value)
{
    const struct ata_drive *d = selected(c);
    c->control &= (uint8_t)~CONTROL_HOB;
    if (reg == REG_COMMAND) {
        execute(c, value);
        return;
    }
    if (d && ata_busy(d)) /* ATA-7, 5.1: not to be written then */
        return;
    for (unsigned unit = 0; unit < 2; unit++)
        if (c->host.drives[unit] && !ata_busy(c->host.drives[unit]))
            put_register(&c->host.drives[unit]->regs, reg, value);
    if (reg == REG_DEVICE) {
        c->device = value;
        update_irq(c);
    }
}

static uint64_t block_read(void *opaque, const struct access *access, uint64_t offset,
                           unsigned size)
{
    struct channel *c = opaque;
    uint64_t value = 0;
    (void)access;
    if (offset == REG_DATA)
        return data_read(c, size < 2 ? 2 : size) & (size < 2 ? 0xff : UINT32_MAX);
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)register_read(c, (unsigned)offset + i) << 8 * i;
    return value;
}

static void block_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                        uint64_t value)
{
    struct channel *c = opaque;
    (void)access;
    if (offset == REG_DATA) {
        data_write(c, size < 2 ? 2 : size, (uint32_t)value);
        return;
    }
    for (unsigned i = 0; i < size; i++)
        register_write(c, (unsigned)offset + i, (uint8_t)(value >> 8 * i));
}

static const struct io_ops block_ops = {
    .read = block_read, .write = block_write, .min = 1, .max = 4};

static uint64_t control_read(void *opaque, const struct access *access, uint64_t offset,
                             unsigned size)
{
    (void)access, (void)offset, (void)size;
    return status_read(opaque, false);
}

static void control_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                          uint64_t value)
{
    struct channel *c = opaque;
    bool srst = value & CONTROL_SRST;
    (void)access, (void)offset, (void)size;
    if (srst && !(c->control & CONTROL_SRST))
        c->device = 0;
    c->control = (uint8_t)value;
    for (unsigned unit = 0; unit < 2; unit++)
        if (c->host.drives[unit])
            ata_set_srst(c->host.drives[unit], srst);
    update_irq(c);
}

static const struct io_ops control_ops = {
    .read = control_read, .write = control_write, .min = 1, .max = 1};

/* ---- Life --------------------------------------------------------------------------------------
 */

static void ide_reset(struct device *dev)
{
    struct piix3_ide *ide = (struct piix3_ide *)dev;
    pci_device_reset(&ide->pci);
    for (unsigned i = 0; i < 2; i++) {
        struct channel *c = &ide->channels[i];
        c->device = c->control = c->bm_command = c->bm_status = 0;
        c->bm_table = c->prd.next = c->prd.at = c->prd.left = 0;
        c->prd.last = 0;
        for (unsigned unit = 0; unit < 2; unit++)
            if (c->host.drives[unit])
                c->host.drives[unit]->intrq = 0;
        update_irq(c);
    }
}

static void ide_restored(struct device *dev)
{
    struct piix3_ide *ide = (struct piix3_ide *)dev;
    pci_device_restored(&ide->pci);
    for (unsigned i = 0; i < 2; i++)
        irq_set(&ide->channels[i].irq, ide->channels[i].irq_level);
}

static void master_off(struct pci_device *pci)
{
    struct piix3_ide *ide = (struct piix3_ide *)pci;
    for (unsigned i = 0; i < 4; i++)
        if (ide->channels[i / 2].host.drives[i % 2])
            ata_await_loans(ide->channels[i / 2].host.drives[i % 2]);
}

static void ide_destroy(struct device *dev)
{
    struct piix3_ide *ide = (struct piix3_ide *)dev;
    for (unsigned i = 0; i < 2; i++)
        for (unsigned n = 0; n < 2; n++)
            if (ide->channels[i].handles[n] >= 0)
                io_remove(ide->pci.bus->board->io, ide->channels[i].handles[n]);
    pci_device_remove(&ide->pci);
    free(ide);
}

static bool claim_ports(struct piix3_ide *ide, struct error *err)
{
    static const struct {
        uint16_t command, control;
        const char *names[2];
    } ports[2] = {{0x1f0, 0x3f6, {"ide0", "ide0.control"}},
                  {0x170, 0x376, {"ide1", "ide1.control"}}};
    struct io_space *io = ide->pci.bus->board->io;
    bool ok = true;
    for (unsigned i = 0; i < 2; i++) {
        struct channel *c = &ide->channels[i];
        c->handles[0] = io_add(io, ports[i].command, 8, &block_ops, c, ports[i].names[0]);
        c->handles[1] = io_add(io, ports[i].control, 1, &control_ops, c, ports[i].names[1]);
        ok &= c->handles[0] >= 0 && c->handles[1] >= 0;
    }
    return ok || error_set(err, "piix3-ide: no room in the port space");
}

/* 2.3: timings, which steer nothing here. */
static void set_registers(struct pci_device *pci)
{
    for (unsigned i = 0; i < 4; i++)
        pci->writable[IDETIM + i] = i % 2 ? 0xf3 : 0xff;
    pci->writable[0x44] = 0xff; /* SIDETIM */
}

struct pci_device *piix3_ide_create(struct pci_bus *bus, const struct irq_line irqs[2],
                                    struct error *err)
{
    static const struct pci_identity identity = {.vendor = 0x8086,
                                                 .device = 0x7010,
                                                 .subsystem_vendor = 0x1af4,
                                                 .subsystem = 0x1100,
                                                 .class_code = 0x010180};
    struct piix3_ide *ide = calloc(1, sizeof(*ide));
    if (!ide) {
        error_set(err, "piix3-ide: out of memory");
        return NULL;
    }
    ide->pci.dev = (struct device){.name = "piix3-ide",
                                   .state = &ide_state,
                                   .reset = ide_reset,
                                   .destroy = ide_destroy,
                                   .restored = ide_restored};
    pci_device_init(&ide->pci, &identity);
    ide->pci.master_off = master_off;
    pci_put16(&ide->pci, PCI_STATUS, 0x0280); /* medium DEVSEL timing, fast back-to-back */
    set_registers(&ide->pci);
    pci_set_bar(&ide->pci, 4, PCI_BAR_IO, 16, &bm_ops, ide, "ide.bus-master");
    for (unsigned i = 0; i < 2; i++) {
        struct channel *c = &ide->channels[i];
        c->ide = ide;
        c->irq = irqs[i];
        c->handles[0] = c->handles[1] = -1;
        c->host = (struct ata_host){
            .ops = &host_ops, .controller = c, .board = bus->board, .number = i, .units = 2};
    }
    if (!pci_device_add(bus, &ide->pci, PCI_DEVFN(1, 1), err)) {
        free(ide);
        return NULL;
    }
    if (claim_ports(ide, err))
        return &ide->pci;
    ide_destroy(&ide->pci.dev);
    return NULL;
}

struct ata_host *piix3_ide_host(struct pci_device *ide, unsigned channel)
{
    return &((struct piix3_ide *)ide)->channels[channel & 1].host;
}
