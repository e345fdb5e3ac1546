/*
 * scsi.h - what a SCSI host bus adapter and the logical units behind it tell each other. Private to
 * devices/storage.
 *
 * Terms and sections are those of SAM-5 (T10/2104-D), SPC-4 (T10/1731-D) and SBC-3 (T10/1799-D);
 * CD-ROM drives are mmc.h's.
 *
 * The adapter makes a task of each command, names the unit and calls scsi_start(). The unit fetches
 * and delivers data through the bus's functions, SCSI_CHUNK bytes at a time, and ends each task
 * with ended(): at once, or in the I/O thread when the image has answered. A task that the adapter
 * has marked `aborted` ends as soon as its request at the image does, so that nothing is written
 * after the adapter has said that it is over.
 */
#ifndef STORAGE_SCSI_H
#define STORAGE_SCSI_H

#include "internal/blockdev.h"
#include "internal/scsi.h"
#include "mmc.h"

#define SCSI_CDB    16u
#define SCSI_BLOCK  512u
#define SCSI_CHUNK  (256u << 10)
#define SCSI_SENSE  18u /* bytes of sense data, fixed format (SPC-4, 4.5.3) */
#define SCSI_SERIAL 20u

enum scsi_status { SCSI_GOOD = 0x00, SCSI_CHECK_CONDITION = 0x02 };

/* How a task ended, besides its status. */
enum scsi_outcome {
    SCSI_COMPLETE,
    SCSI_OVERRUN,     /* the command moves more than the adapter has room or data for */
    SCSI_NOT_ALLOWED, /* data were refused by a protection rule */
    SCSI_NOT_MEMORY,  /* data are nowhere */
};

/* What becomes of the data of a transfer. */
enum scsi_data { SCSI_DATA_MOVED, SCSI_DATA_IGNORED, SCSI_DATA_COMPARED, SCSI_DATA_REPEATED };

struct scsi_bus;
struct scsi_unit;

struct scsi_task {
    /* -- from the adapter */
    struct scsi_bus *bus;
    struct scsi_unit *unit; /* NULL: the target has no such unit */
    unsigned target;
    uint8_t cdb[SCSI_CDB];
    uint64_t out_len, in_len; /* bytes that it has, and has room for */
    bool aborted;
    /* Called once; with an aborted task perhaps when bus and unit are gone. */
    void (*ended)(struct scsi_task *task);

    /* -- for the adapter */
    enum scsi_outcome outcome;
    uint8_t status;
    uint8_t sense[SCSI_SENSE]; /* with CHECK CONDITION */
    uint64_t moved;            /* bytes of data */

    /* -- the unit's own */
    struct blockdev_request io;
    struct iovec iov;  /* a chunk, or parameters */
    uint8_t *compared; /* SCSI_DATA_COMPARED: what the initiator has sent */
    void (*step)(struct scsi_task *task);
    enum scsi_data data;
    bool flush;              /* at the end */
    uint64_t position;       /* byte of the medium where a transfer begins */
    uint64_t len, done;      /* its bytes, and how many of them have been transferred */
    uint32_t lba, left;      /* CD-ROM: blocks still to be read */
    unsigned entry, entries; /* UNMAP: descriptors */
    bool raw, careful;       /* CD-ROM: whole sectors; one by one, since one cannot be read */
};

struct scsi_bus {
    struct scsi_unit *units; /* in no order */
    /* `offset` in the task's data; [offset, offset + len) lies in what the adapter has. */
    enum scsi_outcome (*fetch)(struct scsi_task *task, uint64_t offset, void *buf, size_t len);
    enum scsi_outcome (*deliver)(struct scsi_task *task, uint64_t offset, const void *buf,
                                 size_t len);
    /* The unit goes; its tasks are to be marked as aborted. */
    void (*unit_gone)(struct scsi_bus *bus, struct scsi_unit *unit);
};

struct scsi_type {
    const char *name;
    const struct state_desc *state;
    uint8_t device_type; /* SPC-4, table 143 */
    void (*execute)(struct scsi_task *task);
    void (*reset)(struct scsi_unit *unit);
};

struct scsi_unit {
    struct device dev;
    const struct scsi_type *type;
    struct scsi_bus *bus;
    struct scsi_unit *next; /* on the bus */
    struct blockdev *image;
    struct mmc mmc; /* CD-ROM */
    unsigned target, lun;
    uint64_t wwn;
    char serial[SCSI_SERIAL + 1];
    uint16_t attention; /* unit attention condition to be reported (an ASC), or ASC_NONE */
    uint8_t write_cache;
};

extern const struct scsi_type scsi_disk_type, scsi_cd_type;

/* ---- For adapters (scsi_unit.c) ----------------------------------------------------------------
 */

struct scsi_unit *scsi_find(const struct scsi_bus *bus, unsigned target, unsigned lun);
bool scsi_target_exists(const struct scsi_bus *bus, unsigned target);
void scsi_start(struct scsi_task *task);
/* After ended(). */
void scsi_task_release(struct scsi_task *task);
/* Back to the initial state; `why` is told to the initiator by a unit attention condition. */
void scsi_unit_reset(struct scsi_unit *unit, enum scsi_asc why);

/* ---- For units: each ends the task or has it go on ---------------------------------------------
 */

void scsi_good(struct scsi_task *task);
void scsi_check(struct scsi_task *task, enum scsi_sense_key key, enum scsi_asc asc);
/* The same with an address in the sense data. */
void scsi_check_at(struct scsi_task *task, enum scsi_sense_key key, enum scsi_asc asc,
                   uint64_t lba);
void scsi_invalid_field(struct scsi_task *task);
void scsi_end(struct scsi_task *task, enum scsi_outcome outcome);
/* `have` bytes of data-in, or as many as the initiator allows. */
void scsi_reply(struct scsi_task *task, const uint8_t *reply, uint32_t have, uint32_t allocated);
/* `len` bytes of parameters into a buffer of the task's, iov; false: it has ended. */
bool scsi_parameters(struct scsi_task *task, uint32_t len);
/* A request to the image; step() follows when it has succeeded. */
void scsi_submit(struct scsi_task *task, enum blockdev_op op, uint64_t offset, uint64_t len);
/* Room for a chunk in iov; false: the task has ended. */
bool scsi_chunk(struct scsi_task *task, size_t len);
/* Moves task->len bytes from task->position on between the medium and the initiator, or as
 * task->data says; then flushes, if it is to; then ends the task. */
void scsi_transfer(struct scsi_task *task, enum blockdev_op op);
/* Flushes, then ends it. */
void scsi_flush(struct scsi_task *task);
/* The image could not do the request. */
void scsi_failed(struct scsi_task *task);

/* ---- Between scsi_disk.c and scsi_pages.c ------------------------------------------------------
 */

void scsi_disk_inquiry(struct scsi_task *task);
void scsi_disk_mode_sense(struct scsi_task *task);
void scsi_disk_mode_select(struct scsi_task *task);

static inline uint64_t be64(const uint8_t *p)
{
    return (uint64_t)be32(p) << 32 | be32(p + 4);
}
static inline void put_be64(uint8_t *p, uint64_t value)
{
    put_be32(p, (uint32_t)(value >> 32));
    put_be32(p + 4, (uint32_t)value);
}

/* Limits that the block limits page tells and the commands keep to. */
#define SCSI_MAX_ERASE 0x3fffffu /* blocks: 2 GiB */
#define SCSI_MAX_UNMAP 255u      /* descriptors of one UNMAP */

#endif
