/*
 * ahci_port.c - commands of an AHCI port: from the command list in memory to the drive, its data
 * through the descriptors, its answers as FISes into memory (AHCI 1.3.1, chapters 4 and 5; FIS
 * layouts: Serial ATA 2.6, 10.3).
 *
 *     command header: +0 length, flags, number of descriptors  +4 bytes moved  +8 command table
 *     command table:  +0 command FIS  +40h command packet  +80h descriptors
 *     descriptor:     +0 address  +12 31 = interrupt, 21:0 = bytes - 1
 *
 * An error stops the port until software clears ST, as 6.2.2 wants it.
 */
#include "ahci.h"
#include "internal/log.h"
#include <string.h>

enum { FIS_H2D = 0x27, FIS_D2H = 0x34, FIS_PIO_SETUP = 0x5f, FIS_DEVICE_BITS = 0xa1 };
/* Where a port's FISes go, from PxFB on (4.2.1) */
enum { AT_PIO_SETUP = 0x20, AT_D2H = 0x40, AT_DEVICE_BITS = 0x58 };
enum { FIS_INTERRUPT = 0x40, FIS_TO_HOST = 0x20, FIS_COMMAND = 0x80 };
enum { CONTROL_SRST = 0x04 };
enum { HEADER_SIZE = 32, TABLE_ACMD = 0x40, TABLE_PRDT = 0x80, PRD_SIZE = 16, FIS_SIZE = 20 };
enum { READ_FPDMA_QUEUED = 0x60, WRITE_FPDMA_QUEUED = 0x61 };

static uint32_t get32(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void put32(uint8_t *p, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++)
        p[i] = (uint8_t)(value >> 8 * i);
}

static struct ata_drive *drive_of(const struct ahci_port *port)
{
    return port->host.drives[0];
}

/* The controller goes no further; `why` in PxIS. */
static void halt(struct ahci_port *port, uint32_t why)
{
    port->halted = 1;
    ahci_event(port, why);
}

/* ---- FISes to memory ---------------------------------------------------------------------------
 */

static void put_fis(struct ahci_port *port, unsigned at, const uint8_t *fis, unsigned size)
{
    uint64_t base = port->fb | (uint64_t)port->fbu << 32;
    if (port->cmd & CMD_FRE && !pci_dma_write(&port->ahci->pci, base + at, fis, size))
        halt(port, IS_HBFS);
}

static void put_registers(uint8_t *fis, const struct ata_registers *r)
{
    fis[2] = r->status;
    fis[3] = r->error;
    memcpy(fis + 4, r->lba, 3);
    fis[7] = r->device;
    memcpy(fis + 8, r->hob_lba, 3);
    fis[12] = r->count;
    fis[13] = r->hob_count;
}

static void set_tfd(struct ahci_port *port, const struct ata_registers *r)
{
    port->tfd = r->status | (uint32_t)r->error << 8;
}

static void send_registers(struct ahci_port *port, bool interrupt)
{
    const struct ata_registers *r = &drive_of(port)->regs;
    uint8_t fis[FIS_SIZE] = {FIS_D2H, interrupt ? FIS_INTERRUPT : 0};
    put_registers(fis, r);
    set_tfd(port, r);
    put_fis(port, AT_D2H, fis, sizeof(fis));
}

/* Before `len` bytes move by PIO; `end` is the status after them. */
static void send_pio_setup(struct ahci_port *port, bool interrupt, bool to_host, uint32_t len,
                           uint8_t end)
{
    const struct ata_registers *r = &drive_of(port)->regs;
    uint8_t fis[FIS_SIZE] = {
        FIS_PIO_SETUP, (uint8_t)((interrupt ? FIS_INTERRUPT : 0) | (to_host ? FIS_TO_HOST : 0))};
    put_registers(fis, r);
    fis[15] = end;
    fis[16] = (uint8_t)len;
    fis[17] = (uint8_t)(len >> 8);
    put_fis(port, AT_PIO_SETUP, fis, sizeof(fis));
}

/* Queued commands have ended: their bits of PxSACT are cleared. */
static void send_device_bits(struct ahci_port *port, uint32_t done)
{
    const struct ata_registers *r = &drive_of(port)->regs;
    uint8_t fis[8] = {FIS_DEVICE_BITS, FIS_INTERRUPT, r->status & 0x77, r->error};
    put32(fis + 4, done);
    port->sact &= ~done;
    /* BSY and DRQ are not this FIS's (Serial ATA, 10.3.6). */
    port->tfd = (port->tfd & (ATA_BSY | ATA_DRQ)) | (r->status & 0x77) | (uint32_t)r->error << 8;
    put_fis(port, AT_DEVICE_BITS, fis, sizeof(fis));
}

/* ---- Data --------------------------------------------------------------------------------------
 */

struct prd {
    uint64_t address;
    uint32_t size;
    bool interrupt;
};

static bool read_prd(struct ahci_port *port, unsigned n, unsigned entry, struct prd *prd)
{
    uint8_t raw[PRD_SIZE];
    uint64_t at = port->slots.table[n] + TABLE_PRDT + (uint64_t)entry * PRD_SIZE;
    if (!pci_dma_read(&port->ahci->pci, at, raw, sizeof(raw)))
        return false;
    prd->address = get32(raw) | (uint64_t)get32(raw + 4) << 32;
    prd->size = (get32(raw + 12) & 0x3fffff) + 1;
    prd->interrupt = get32(raw + 12) >> 31;
    return true;
}

/* Moves all `len` bytes of slot `n`, or says in PxIS why not. Without `bytes` they have moved by a
 * loan. */
static bool move(struct ahci_port *port, unsigned n, uint8_t *bytes, uint32_t len, bool to_host)
{
    struct ahci_slots *slots = &port->slots;
    struct pci_device *pci = &port->ahci->pci;
    while (len) {
        struct prd prd;
        if (slots->entry[n] == slots->entries[n]) {
            halt(port, IS_OFS);
            return false;
        }
        if (!read_prd(port, n, slots->entry[n], &prd)) {
            halt(port, IS_HBFS);
            return false;
        }
        /* A guest that shrinks a descriptor under way gets less. */
        uint32_t left = prd.size > slots->in_entry[n] ? prd.size - slots->in_entry[n] : 0;
        uint32_t now = len < left ? len : left;
        uint64_t at = prd.address + slots->in_entry[n];
        if (now && bytes &&
            !(to_host ? pci_dma_write(pci, at, bytes, now) : pci_dma_read(pci, at, bytes, now))) {
            halt(port, IS_HBDS);
            return false;
        }
        if (bytes)
            bytes += now;
        len -= now;
        slots->moved[n] += now;
        slots->in_entry[n] += now;
        if (now < left)
            continue;
        slots->entry[n]++;
        slots->in_entry[n] = 0;
        if (prd.interrupt)
            ahci_event(port, IS_DPS);
    }
    return true;
}

/* The memory for the next `len` bytes of slot `n`, if all of it is to be lent. The descriptors stay
 * where they are. */
static struct phys_loan *lend(struct ahci_port *port, unsigned n, uint32_t len, bool to_host)
{
    const struct ahci_slots *slots = &port->slots;
    unsigned entry = slots->entry[n];
    uint32_t in_entry = slots->in_entry[n];
    struct phys_loan *loan = pci_dma_lend(&port->ahci->pci, to_host, (unsigned)(len / PAGE_SIZE));
    for (; loan && len && entry < slots->entries[n]; entry++, in_entry = 0) {
        struct prd prd;
        if (!read_prd(port, n, entry, &prd) || prd.size <= in_entry)
            break;
        uint32_t left = prd.size - in_entry, now = len < left ? len : left;
        if (!phys_loan_add(loan, prd.address + in_entry, now))
            break;
        len -= now;
    }
    if (!len)
        return loan;
    phys_loan_end(loan);
    return NULL;
}

static void put_byte_count(struct ahci_port *port, unsigned n)
{
    uint8_t count[4];
    put32(count, port->slots.moved[n]);
    if (!pci_dma_write(&port->ahci->pci, port->slots.header[n] + 4, count, sizeof(count)))
        halt(port, IS_HBFS);
}

/* ---- What drives say ---------------------------------------------------------------------------
 */

static void drive_data(struct ata_host *host, struct ata_drive *d, bool interrupt)
{
    struct ahci_port *port = host->controller;
    bool packet = d->flow == ATA_FLOW_PACKET, in = d->phase == ATA_PHASE_IN;
    if (d->lending == ATA_OFFERED && port->slot != AHCI_NO_SLOT) {
        ata_lend(d, lend(port, port->slot, d->filled, in));
        return;
    }
    set_tfd(port, &d->regs);
    if (port->slot == AHCI_NO_SLOT) /* ST was cleared: the drive waits for a reset */
        return;
    d->block = d->filled; /* all of the chunk: only a host that moves words cares for blocks */
    uint32_t len = d->block - d->pos;
    bool pio = !ata_by_dma(d);
    if (pio)
        send_pio_setup(port, interrupt, in, len, ATA_DRDY | ATA_DSC);
    if (packet)
        memcpy(d->buffer + d->pos, port->acmd, len);
    else if (!move(port, port->slot, d->lending == ATA_LENT ? NULL : d->buffer + d->pos, len, in)) {
        ata_dma_failed(d, true);
        return;
    }
    port->pio_in = pio && in && !d->cdrom;
    if (pio && interrupt)
        ahci_event(port, IS_PSS);
    ata_moved(d, len);
}

static void finish(struct ahci_port *port)
{
    const struct ata_drive *d = drive_of(port);
    bool failed = d->regs.status & ATA_ERR;
    put_byte_count(port, port->slot);
    if (port->pio_in && !failed)
        set_tfd(port, &d->regs);
    else
        send_registers(port, true);
    if (failed) {
        port->slot = AHCI_NO_SLOT; /* PxCI keeps its bit, and PxCMD.CCS says which it is */
        halt(port, IS_TFES | IS_DHRS);
        return;
    }
    port->ci &= ~(1u << port->slot);
    port->slot = AHCI_NO_SLOT;
    if (!port->pio_in)
        ahci_event(port, IS_DHRS);
}

static void drive_done(struct ata_host *host, struct ata_drive *d)
{
    struct ahci_port *port = host->controller;
    if (port->slot == AHCI_NO_SLOT) {
        set_tfd(port, &d->regs);
        return;
    }
    finish(port);
    ahci_issue(port);
}

static void drive_ready(struct ata_host *host, struct ata_drive *d)
{
    struct ahci_port *port = host->controller;
    const struct ata_registers *r = &d->regs;
    port->sig =
        r->count | (uint32_t)r->lba[0] << 8 | (uint32_t)r->lba[1] << 16 | (uint32_t)r->lba[2] << 24;
    if (!(port->sctl & 15))
        port->ssts = AHCI_SSTS_PRESENT;
    if (port->slot != AHCI_NO_SLOT) { /* DEVICE RESET: BSY clear ends it, too */
        port->ci &= ~(1u << port->slot);
        port->slot = AHCI_NO_SLOT;
    }
    send_registers(port, false);
    ahci_issue(port);
}

static bool queued_data(struct ata_host *host, unsigned tag, uint8_t *bytes, uint32_t len,
                        bool to_host)
{
    struct ahci_port *port = host->controller;
    return port->queued >> tag & 1 && !port->halted && move(port, tag, bytes, len, to_host);
}

static struct phys_loan *queued_lend(struct ata_host *host, unsigned tag, uint32_t len,
                                     bool to_host)
{
    struct ahci_port *port = host->controller;
    return port->queued >> tag & 1 && !port->halted ? lend(port, tag, len, to_host) : NULL;
}

static void queued_done(struct ata_host *host, unsigned tag, bool failed)
{
    struct ahci_port *port = host->controller;
    if (!(port->queued >> tag & 1))
        return;
    put_byte_count(port, tag);
    if (failed) {
        port->queued = 0;
        send_device_bits(port, 0);
        halt(port, IS_SDBS | IS_TFES);
        return;
    }
    port->queued &= ~(1u << tag);
    send_device_bits(port, 1u << tag);
    ahci_event(port, IS_SDBS);
    ahci_issue(port);
}

const struct ata_host_ops ahci_host_ops = {.data = drive_data,
                                           .done = drive_done,
                                           .ready = drive_ready,
                                           .queued_data = queued_data,
                                           .queued_lend = queued_lend,
                                           .queued_done = queued_done};

/* ---- Issuing -----------------------------------------------------------------------------------
 */

/* Reads slot `n`'s command: false: memory, or what is in it, does not allow it. */
static bool fetch(struct ahci_port *port, unsigned n, uint8_t fis[FIS_SIZE])
{
    struct pci_device *pci = &port->ahci->pci;
    struct ahci_slots *slots = &port->slots;
    uint8_t header[HEADER_SIZE];
    uint64_t at = (port->clb | (uint64_t)port->clbu << 32) + (uint64_t)n * HEADER_SIZE;
    if (!pci_dma_read(pci, at, header, sizeof(header)))
        return false;
    slots->header[n] = at;
    slots->table[n] = (get32(header + 8) & ~0x7fu) | (uint64_t)get32(header + 12) << 32;
    slots->entries[n] = (uint16_t)(get32(header) >> 16);
    slots->entry[n] = 0;
    slots->moved[n] = slots->in_entry[n] = 0;
    return pci_dma_read(pci, slots->table[n], fis, FIS_SIZE) &&
           pci_dma_read(pci, slots->table[n] + TABLE_ACMD, port->acmd, sizeof(port->acmd));
}

static void get_registers(struct ata_registers *r, const uint8_t *fis)
{
    r->feature = fis[3];
    memcpy(r->lba, fis + 4, 3);
    r->device = fis[7];
    memcpy(r->hob_lba, fis + 8, 3);
    r->hob_feature = fis[11];
    r->count = fis[12];
    r->hob_count = fis[13];
}

/* A FIS without C: the device control register, whose SRST resets the drive (10.4.1). */
static void control(struct ahci_port *port, unsigned n, const uint8_t *fis)
{
    struct ata_drive *d = drive_of(port);
    port->ci &= ~(1u << n);
    port->queued = 0;
    port->slot = AHCI_NO_SLOT;
    ata_set_srst(d, fis[15] & CONTROL_SRST);
    if (!d->srst && ata_busy(d)) /* until what was at the image has come back */
        port->tfd |= ATA_BSY;
}

static void start_queued(struct ahci_port *port, unsigned n, const uint8_t *fis)
{
    struct ata_drive *d = drive_of(port);
    struct ata_registers regs = d->regs;
    get_registers(&regs, fis);
    /* The tag must be the slot's number (1.3.1, 5.3.2.3): completions name slots. */
    bool ok = regs.count >> 3 == (int)n;
    port->queued |= 1u << n;
    port->ci &= ~(1u << n); /* the drive has it: BSY is clear again */
    if (ok && ata_queued_start(d, n, fis[2], &regs))
        return;
    if (!ok) {
        d->regs.status = ATA_DRDY | ATA_DSC | ATA_ERR;
        d->regs.error = ATA_ABRT;
    }
    port->queued &= ~(1u << n);
    port->ci |= 1u << n;
    send_registers(port, true);
    halt(port, IS_TFES | IS_DHRS);
}

static void start(struct ahci_port *port, unsigned n, const uint8_t *fis)
{
    struct ata_drive *d = drive_of(port);
    port->cmd = (port->cmd & ~(31u << CMD_CCS_SHIFT)) | n << CMD_CCS_SHIFT;
    if (fis[0] != FIS_H2D) {
        LOG(port->ahci->pci.bus->board->log, LOG_GUEST_ERRORS,
            "ahci: port %u: command FIS of type %#x\n", port->host.number, fis[0]);
        halt(port, IS_IFS);
    } else if (!(fis[1] & FIS_COMMAND)) {
        control(port, n, fis);
    } else if (fis[2] == READ_FPDMA_QUEUED || fis[2] == WRITE_FPDMA_QUEUED) {
        start_queued(port, n, fis);
    } else {
        get_registers(&d->regs, fis);
        port->slot = (uint8_t)n;
        port->pio_in = 0;
        port->tfd |= ATA_BSY;
        ata_execute(d, fis[2]);
    }
}

/* May slot `n` go to the drive now? Queued commands and others do not mix, and a control FIS goes
 * at any time that the port is not busy. */
static bool acceptable(struct ahci_port *port, const uint8_t *fis)
{
    bool command = fis[0] == FIS_H2D && fis[1] & FIS_COMMAND;
    bool queued = fis[2] == READ_FPDMA_QUEUED || fis[2] == WRITE_FPDMA_QUEUED;
    const struct ata_drive *d = drive_of(port);
    if (!command)
        return true;
    return !ata_busy(d) && (queued || !port->queued);
}

void ahci_issue(struct ahci_port *port)
{
    if (port->issuing)
        return; /* a command that ended at once; the loop below goes on */
    port->issuing = 1;
    bool progress = true;
    while (progress && drive_of(port) && port->ssts) {
        progress = false;
        for (unsigned n = 0; n < AHCI_SLOTS; n++) {
            uint8_t fis[FIS_SIZE];
            bool ready = port->cmd & CMD_ST && !port->halted && port->slot == AHCI_NO_SLOT &&
                         !(port->tfd & (ATA_BSY | ATA_DRQ));
            if (!ready || !(port->ci >> n & 1) || port->queued >> n & 1)
                continue;
            if (!fetch(port, n, fis)) {
                halt(port, IS_HBFS);
            } else if (acceptable(port, fis)) {
                start(port, n, fis);
                progress = true;
            }
        }
    }
    port->issuing = 0;
}

void ahci_stop(struct ahci_port *port)
{
    if (drive_of(port))
        ata_await_loans(drive_of(port));
    port->ci = port->sact = port->queued = 0;
    port->slot = AHCI_NO_SLOT;
    port->halted = 0;
    port->cmd &= ~(31u << CMD_CCS_SHIFT);
}
