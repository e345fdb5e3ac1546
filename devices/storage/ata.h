/*
 * ata.h - the inside of an ATA or ATAPI drive: its registers, the phases of a command, and what it
 * and its controller tell each other. Private to devices/storage.
 *
 * Terms and section numbers are those of "AT Attachment with Packet Interface - 7" (T13/1532D) and
 * of ATA8-ACS (T13/1699D) where named.
 *
 * A command goes through these phases, whatever the controller is:
 *
 *     ata_execute()          BSY; the command's function in the table (ata_commands.c) starts it
 *     I/O                    BSY; a request is at the image, the flow's io_done() follows
 *     data                   DRQ; buffer[pos .. block) waits for the controller, which is told by
 *                            host->data() and answers with ata_moved(); block_done() follows
 *     done                   host->done(): status and error are in the registers
 *
 * What follows an I/O or a data block depends on the command's `flow`, a number, so that a drive
 * can be saved between two blocks.
 *
 * Sectors that move by DMA are offered to the controller before the image is asked for them (or
 * given them): when it finds that the guest's memory can be lent for all of them (phys.h,
 * "Lending"), the image moves them there itself, and the controller only counts them afterwards.
 *
 *     ATA_OFFERED    data phase, nothing has moved: the controller answers with ata_lend()
 *     ATA_LENT       I/O: the image moves the data; then a data phase with nothing left to do
 *     ATA_REVOKED    I/O: the bus master was stopped meanwhile, so the data have to move again
 *     ATA_COPIED     the buffer has them, or will have
 *
 * A reset forgets the request at the image but not its effects: the drive stays busy until that
 * request has completed, so that an old write never lands after a newer one.
 */
#ifndef STORAGE_ATA_H
#define STORAGE_ATA_H

#include "internal/ata.h"
#include "internal/blockdev.h"
#include "mmc.h"

#define ATA_SECTOR 512u
#define ATA_CHUNK  (512u << 10) /* bytes of a request to the image, and of the buffer */
#define ATA_ALIGN  4096u        /* of buffers: direct I/O needs no copy then */
#define ATA_OFFER  (1u << 20)   /* bytes of a request to the image, with memory lent */
#define ATA_TAGS   32           /* native command queueing: queue depth */

enum ata_status {
    ATA_BSY = 0x80,
    ATA_DRDY = 0x40,
    ATA_DF = 0x20,
    ATA_DSC = 0x10, /* seek complete, in ATA-3 and before */
    ATA_DRQ = 0x08,
    ATA_ERR = 0x01, /* CHK of the PACKET command */
};
enum ata_error { ATA_UNC = 0x40, ATA_IDNF = 0x10, ATA_ABRT = 0x04 };
enum ata_device { ATA_DEV = 0x10, ATA_LBA = 0x40, ATA_FUA = 0x80 /* of queued commands */ };
/* Interrupt reason, in the sector count register (PACKET, 6.24) */
enum ata_reason { ATA_COD = 0x01, ATA_IO = 0x02 };

/* The registers of the command block; `hob` is what was there before the last write (6.20). */
struct ata_registers {
    uint8_t feature, count, lba[3], device;
    uint8_t hob_feature, hob_count, hob_lba[3];
    uint8_t status, error;
};

enum ata_phase { ATA_PHASE_IDLE, ATA_PHASE_IO, ATA_PHASE_IN, ATA_PHASE_OUT };

enum ata_lending { ATA_COPIED, ATA_OFFERED, ATA_LENT, ATA_REVOKED };

enum ata_flow {
    ATA_FLOW_NONE,
    ATA_FLOW_REPLY,  /* the buffer goes to the host */
    ATA_FLOW_READ,   /* sectors from the image to the host */
    ATA_FLOW_WRITE,  /* and back */
    ATA_FLOW_VERIFY, /* sectors from the image to nowhere */
    ATA_FLOW_FLUSH,
    ATA_FLOW_TRIM,         /* ranges from the host, then discards */
    ATA_FLOW_PACKET,       /* a command packet from the host */
    ATA_FLOW_PACKET_REPLY, /* its answer, from the buffer */
    ATA_FLOW_PACKET_READ,  /* its answer, from the medium */
    ATA_FLOWS
};

struct ata_drive;

/* What a drive needs from its controller: the controller's struct has one per place. */
struct ata_host {
    const struct ata_host_ops *ops;
    void *controller;
    struct board *board;
    unsigned number, units; /* which channel or port; drives that fit */
    struct ata_drive *drives[2];
    bool sata;
};
struct ata_host_ops {
    /* A data phase has begun: ata_moved() when the controller has moved some of it, now or later.
     * `interrupt`: the drive asserts INTRQ for this block. */
    void (*data)(struct ata_host *host, struct ata_drive *drive, bool interrupt);
    /* The command has ended, with an interrupt. */
    void (*done)(struct ata_host *host, struct ata_drive *drive);
    /* The drive is ready after a reset, with its signature in the registers. */
    void (*ready)(struct ata_host *host, struct ata_drive *drive);
    /* Queued commands: move the next `len` bytes of the command's data (without `bytes` they have
     * moved); false: the memory did not take or give them. Then, at its end, done; `failed`: all
     * queued commands are gone. */
    bool (*queued_data)(struct ata_host *host, unsigned tag, uint8_t *bytes, uint32_t len,
                        bool to_host);
    /* The memory for them as a loan, which queued_data() without `bytes` follows if all goes well;
     * NULL: it cannot be lent. */
    struct phys_loan *(*queued_lend)(struct ata_host *host, unsigned tag, uint32_t len,
                                     bool to_host);
    void (*queued_done)(struct ata_host *host, unsigned tag, bool failed);
};

/* One queued command (ata_ncq.c). */
struct ata_queued {
    struct blockdev_request io;
    struct iovec iov;
    struct ata_drive *drive;
    uint8_t *buffer;        /* ATA_CHUNK bytes, made at the first use */
    struct phys_loan *loan; /* lent: from submission on the worker's */
    bool active, write, flush, careful, lent;
    uint64_t lba, done; /* done: bytes */
    uint32_t sectors;
};

struct ata_drive {
    struct device dev;
    struct ata_host *host; /* NULL: destroyed, waiting for its last request */
    unsigned unit;
    bool cdrom;
    struct blockdev *image; /* of a disk; a CD-ROM's medium is in mmc */
    uint64_t sectors;       /* of a disk */
    char serial[20], model[40], firmware[8];
    uint64_t wwn;

    /* -- registers and settings ------------------------------------------------------------- */
    struct ata_registers regs;
    uint8_t command;
    uint8_t intrq; /* INTRQ is asserted; the IDE channel's */
    uint8_t srst;  /* the host holds SRST */
    uint8_t write_cache, read_ahead, smart, standby;
    uint8_t multiple;              /* sectors per block of READ MULTIPLE; 0: not set */
    uint16_t heads, track_sectors; /* of the current CHS translation */
    uint8_t dma_mode;              /* as in SET FEATURES 03h; 0: none chosen */

    /* -- the command that runs ---------------------------------------------------------------- */
    uint8_t phase, flow;         /* enum ata_phase, ata_flow */
    uint8_t dma;                 /* its data moves by DMA */
    uint8_t force;               /* it ends with a flush */
    uint8_t careful;             /* sector by sector, to find the bad one */
    uint8_t lending;             /* enum ata_lending, of the chunk */
    uint64_t lba;                /* of the first sector in the buffer */
    uint32_t left;               /* sectors, with those in the buffer */
    uint32_t pos, block, filled; /* bytes of the buffer: moved, end of the block, of the chunk */
    uint32_t block_size;
    struct mmc mmc;
    _Alignas(ATA_ALIGN) uint8_t buffer[ATA_CHUNK];

    /* -- requests at the image ---------------------------------------------------------------- */
    struct blockdev_request io;
    struct iovec iov;
    struct phys_loan *loan;    /* ATA_LENT: from submission on the worker's */
    unsigned at_image;         /* requests, queued commands' too */
    bool stale;                /* they are from before a reset */
    struct ata_queued *queued; /* ATA_TAGS of them, on SATA */
    uint32_t queued_failed;    /* the log of the failed queued command is valid */
    uint8_t queued_log[16];    /* READ LOG EXT, page 10h, its first bytes */
};

/* ---- What controllers call --------------------------------------------------------------------
 */

/* Executes the command with the registers as they are. The drive must not be busy. */
void ata_execute(struct ata_drive *drive, uint8_t command);
/* `bytes` of the block at ata_data() have been moved. */
void ata_moved(struct ata_drive *drive, uint32_t bytes);
/* ATA_OFFERED: the memory for all of the block; NULL: it cannot be lent, its data will be copied.
 */
void ata_lend(struct ata_drive *drive, struct phys_loan *loan);
/* The guest has stopped the bus master: when this returns the guest's memory is left alone. */
void ata_revoke(struct ata_drive *drive);
/* Waits until the image has let go of the guest's memory, queued commands' too. */
void ata_await_loans(struct ata_drive *drive);
/* Memory refused the data, or the tables that describe it ended: the command ends, with `interrupt`
 * or in silence. */
void ata_dma_failed(struct ata_drive *drive, bool interrupt);
/* SRST as the host holds it; a reset by wire (COMRESET, RESET-). */
void ata_set_srst(struct ata_drive *drive, bool on);
void ata_reset(struct ata_drive *drive);
void ata_device_reset(struct ata_drive *drive); /* the command, which a busy drive takes, too */
/* Does the block move by DMA? A command packet never does. */
static inline bool ata_by_dma(const struct ata_drive *drive)
{
    return drive->dma && drive->flow != ATA_FLOW_PACKET;
}
static inline bool ata_busy(const struct ata_drive *drive)
{
    return (drive->regs.status & (ATA_BSY | ATA_DRQ)) != 0;
}
/* A queued command (60h, 61h) with its registers; false: refused, the registers say why. */
bool ata_queued_start(struct ata_drive *drive, unsigned tag, uint8_t command,
                      const struct ata_registers *regs);
void ata_queued_forget(struct ata_drive *drive);

/* ---- What the drive's own files share ----------------------------------------------------------
 */

struct ata_flow_steps {
    void (*io_done)(struct ata_drive *drive);    /* io.result says how */
    void (*block_done)(struct ata_drive *drive); /* pos == block */
};
extern const struct ata_flow_steps ata_rw_steps[ATA_FLOWS], atapi_steps[ATA_FLOWS];

void ata_done(struct ata_drive *drive);
/* ERR, with these error bits. */
void ata_fail(struct ata_drive *drive, uint8_t error);
/* The same for a sector: its address is in the registers. */
void ata_put_address(struct ata_drive *drive, uint64_t lba);
void ata_fail_at(struct ata_drive *drive, uint8_t error, uint64_t lba);
/* Opens the next block of the chunk. */
void ata_block(struct ata_drive *drive, enum ata_phase phase, bool interrupt);
/* `len` bytes are in the buffer, for the host. */
void ata_reply(struct ata_drive *drive, uint32_t len);
/* `at`: where in the buffer the data are. */
void ata_submit(struct ata_drive *drive, enum blockdev_op op, uint32_t at, uint64_t offset,
                uint64_t len);
/* All of it, with the memory of a loan. */
void ata_submit_lent(struct ata_drive *drive, enum blockdev_op op, uint64_t offset, uint64_t len,
                     struct phys_loan *loan);
void ata_set_signature(struct ata_drive *drive);
/* A drive's last request has come back: a reset or its destruction goes on. True: there was one. */
bool ata_was_stale(struct ata_drive *drive);

void ata_identify(const struct ata_drive *drive, uint8_t page[ATA_SECTOR]);
void ata_smart(struct ata_drive *drive, unsigned flags);
void ata_read_log(struct ata_drive *drive, unsigned flags);

/* READ, WRITE and READ VERIFY (ata_rw.c), as ata_command's flags say. */
void ata_rw_start(struct ata_drive *drive, unsigned flags);
void ata_flush_start(struct ata_drive *drive);
void ata_trim_start(struct ata_drive *drive, unsigned flags);
enum ata_command_flags {
    ATA_CMD_DISK = 1 << 0,
    ATA_CMD_CDROM = 1 << 1,
    ATA_CMD_48 = 1 << 2, /* 48-bit addresses */
    ATA_CMD_DMA = 1 << 3,
    ATA_CMD_WRITE = 1 << 4,
    ATA_CMD_MULTIPLE = 1 << 5,
    ATA_CMD_VERIFY = 1 << 6,
    ATA_CMD_FORCE = 1 << 7, /* FUA */
};

void atapi_packet(struct ata_drive *drive, unsigned flags);

#endif
