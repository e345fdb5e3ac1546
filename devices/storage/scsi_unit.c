/*
 * scsi_unit.c - what all SCSI logical units have in common (scsi.h): finding them, commands that
 * need no unit, unit attention, sense data, and the way of data between medium and initiator.
 */
#include "internal/error.h"
#include "scsi.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REQUEST_SENSE = 0x03, INQUIRY = 0x12, REPORT_LUNS = 0xa0 };

/* ---- Ends --------------------------------------------------------------------------------------
 */

void scsi_end(struct scsi_task *task, enum scsi_outcome outcome)
{
    task->outcome = outcome;
    task->ended(task);
}

void scsi_good(struct scsi_task *task)
{
    task->status = SCSI_GOOD;
    scsi_end(task, SCSI_COMPLETE);
}

static void put_sense(uint8_t *sense, enum scsi_sense_key key, enum scsi_asc asc)
{
    memset(sense, 0, SCSI_SENSE);
    sense[0] = 0x70; /* current, fixed format */
    sense[2] = (uint8_t)key;
    sense[7] = SCSI_SENSE - 8; /* bytes that follow */
    put_be16(sense + 12, (uint16_t)asc);
}

void scsi_check(struct scsi_task *task, enum scsi_sense_key key, enum scsi_asc asc)
{
    put_sense(task->sense, key, asc);
    task->status = SCSI_CHECK_CONDITION;
    scsi_end(task, SCSI_COMPLETE);
}

void scsi_check_at(struct scsi_task *task, enum scsi_sense_key key, enum scsi_asc asc, uint64_t lba)
{
    put_sense(task->sense, key, asc);
    if (lba <= UINT32_MAX) { /* SPC-4, 4.5.3: the fixed format has no room for more */
        task->sense[0] |= 0x80;
        put_be32(task->sense + 3, (uint32_t)lba);
    }
    task->status = SCSI_CHECK_CONDITION;
    scsi_end(task, SCSI_COMPLETE);
}

void scsi_invalid_field(struct scsi_task *task)
{
    scsi_check(task, SENSE_ILLEGAL_REQUEST, ASC_INVALID_FIELD);
}

void scsi_task_release(struct scsi_task *task)
{
    free(task->iov.iov_base);
    free(task->compared);
}

/* ---- Small data --------------------------------------------------------------------------------
 */

void scsi_reply(struct scsi_task *task, const uint8_t *reply, uint32_t have, uint32_t allocated)
{
    uint32_t len = have < allocated ? have : allocated;
    if (len > task->in_len) {
        scsi_end(task, SCSI_OVERRUN);
        return;
    }
    enum scsi_outcome outcome = task->bus->deliver(task, 0, reply, len);
    if (outcome != SCSI_COMPLETE) {
        scsi_end(task, outcome);
        return;
    }
    task->moved = len;
    scsi_good(task);
}

bool scsi_chunk(struct scsi_task *task, size_t len)
{
    if (!task->iov.iov_base)
        task->iov.iov_base = malloc(len);
    if (!task->iov.iov_base) {
        scsi_check(task, SENSE_HARDWARE_ERROR, ASC_INTERNAL_FAILURE);
        return false;
    }
    task->iov.iov_len = len;
    return true;
}

bool scsi_parameters(struct scsi_task *task, uint32_t len)
{
    if (len > task->out_len) {
        scsi_end(task, SCSI_OVERRUN);
        return false;
    }
    if (!scsi_chunk(task, len ? len : 1))
        return false;
    enum scsi_outcome outcome = task->bus->fetch(task, 0, task->iov.iov_base, len);
    if (outcome != SCSI_COMPLETE) {
        scsi_end(task, outcome);
        return false;
    }
    task->moved = len;
    return true;
}

/* ---- The image ---------------------------------------------------------------------------------
 */

void scsi_failed(struct scsi_task *task)
{
    bool read = task->io.op == BLOCKDEV_READ;
    switch (-task->io.result) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG: /* of the host's file system */
        scsi_check(task, SENSE_DATA_PROTECT, ASC_SPACE_EXHAUSTED);
        break;
    case ENOMEM:
        scsi_check(task, SENSE_HARDWARE_ERROR, ASC_INTERNAL_FAILURE);
        break;
    default:
        scsi_check(task, SENSE_MEDIUM_ERROR, read ? ASC_READ_ERROR : ASC_WRITE_ERROR);
    }
}

/* I/O thread, machine lock held. */
static void io_done(struct blockdev_request *io)
{
    struct scsi_task *task = io->opaque;
    if (task->aborted)
        scsi_end(task, SCSI_COMPLETE);
    else
        task->step(task);
}

void scsi_submit(struct scsi_task *task, enum blockdev_op op, uint64_t offset, uint64_t len)
{
    task->io = (struct blockdev_request){.op = op,
                                         .offset = offset,
                                         .len = len,
                                         .iov = &task->iov,
                                         .iovcnt = 1,
                                         .done = io_done,
                                         .opaque = task};
    blockdev_submit(task->unit->image, &task->io);
}

static void last_step(struct scsi_task *task)
{
    if (task->io.result)
        scsi_failed(task);
    else
        scsi_good(task);
}

void scsi_flush(struct scsi_task *task)
{
    task->step = last_step;
    scsi_submit(task, BLOCKDEV_FLUSH, 0, 0);
}

/* ---- Transfers ---------------------------------------------------------------------------------
 */

static void next_chunk(struct scsi_task *task, enum blockdev_op op)
{
    uint64_t len = task->len - task->done < SCSI_CHUNK ? task->len - task->done : SCSI_CHUNK;
    if (!scsi_chunk(task, len))
        return;
    if (op == BLOCKDEV_WRITE && task->data == SCSI_DATA_MOVED) {
        enum scsi_outcome outcome = task->bus->fetch(task, task->done, task->iov.iov_base, len);
        if (outcome != SCSI_COMPLETE) {
            scsi_end(task, outcome);
            return;
        }
    }
    scsi_submit(task, op, task->position + task->done, len);
}

/* What was read is what the initiator has. False: the task has ended. */
static bool compare(struct scsi_task *task)
{
    size_t len = task->io.len, same = 0;
    const uint8_t *read = task->iov.iov_base;
    if (!task->compared && !(task->compared = malloc(len))) {
        scsi_check(task, SENSE_HARDWARE_ERROR, ASC_INTERNAL_FAILURE);
        return false;
    }
    enum scsi_outcome outcome = task->bus->fetch(task, task->done, task->compared, len);
    if (outcome != SCSI_COMPLETE) {
        scsi_end(task, outcome);
        return false;
    }
    while (same < len && read[same] == task->compared[same])
        same++;
    if (same == len)
        return true;
    scsi_check_at(task, SENSE_MISCOMPARE, ASC_MISCOMPARE, task->done + same); /* SBC-3, 5.35 */
    return false;
}

/* The chunk that was read goes where it should. False: the task has ended. */
static bool pass_on(struct scsi_task *task)
{
    if (task->data == SCSI_DATA_COMPARED)
        return compare(task);
    if (task->data == SCSI_DATA_IGNORED)
        return true;
    enum scsi_outcome outcome =
        task->bus->deliver(task, task->done, task->iov.iov_base, task->io.len);
    if (outcome == SCSI_COMPLETE)
        return true;
    scsi_end(task, outcome);
    return false;
}

static void chunk_done(struct scsi_task *task)
{
    enum blockdev_op op = task->io.op;
    if (task->io.result) {
        scsi_failed(task);
        return;
    }
    if (op == BLOCKDEV_READ && !pass_on(task))
        return;
    task->done += task->io.len;
    if (task->data == SCSI_DATA_MOVED || task->data == SCSI_DATA_COMPARED)
        task->moved = task->done;
    if (task->done < task->len)
        next_chunk(task, op);
    else if (task->flush)
        scsi_flush(task);
    else
        scsi_good(task);
}

void scsi_transfer(struct scsi_task *task, enum blockdev_op op)
{
    bool out = op == BLOCKDEV_WRITE || task->data == SCSI_DATA_COMPARED;
    bool moves = task->data == SCSI_DATA_MOVED || task->data == SCSI_DATA_COMPARED;
    if (moves && task->len > (out ? task->out_len : task->in_len)) {
        scsi_end(task, SCSI_OVERRUN);
        return;
    }
    if (!task->len) {
        scsi_good(task);
        return;
    }
    task->step = chunk_done;
    next_chunk(task, op);
}

/* ---- Commands that any unit, or none, understands ----------------------------------------------
 */

/* SPC-4, 6.33 */
static void report_luns(struct scsi_task *task)
{
    uint32_t allocated = be32(task->cdb + 6), len = 8;
    unsigned count = 0;
    if (task->cdb[2] > 2 || allocated < 16) {
        scsi_invalid_field(task);
        return;
    }
    const struct scsi_unit *u = task->bus->units;
    for (; u; u = u->next)
        count += u->target == task->target;
    uint8_t *reply = calloc(1, 8 + 8 * count);
    if (!reply) {
        scsi_check(task, SENSE_HARDWARE_ERROR, ASC_INTERNAL_FAILURE);
        return;
    }
    for (u = task->bus->units; u && task->cdb[2] != 1; u = u->next) /* 1: well known ones only */
        if (u->target == task->target) {
            /* SAM-5, 4.7: peripheral device addressing, above 255 flat space addressing */
            put_be16(reply + len, (uint16_t)(u->lun | (u->lun > 255 ? 0x4000 : 0)));
            len += 8;
        }
    put_be32(reply, len - 8);
    scsi_reply(task, reply, len, allocated);
    free(reply);
}

/* SPC-4, 6.4 and SAM-5, 5.11: a target tells of units that it does not have. */
static void absent(struct scsi_task *task)
{
    uint8_t reply[36] = {0};
    switch (task->cdb[0]) {
    case INQUIRY:
        if (task->cdb[1] & 1 || task->cdb[2]) {
            scsi_invalid_field(task);
            return;
        }
        reply[0] = 0x7f; /* no device can be there */
        reply[2] = 0x05;
        reply[3] = 0x02;
        reply[4] = sizeof(reply) - 5;
        memset(reply + 8, ' ', 28);
        scsi_reply(task, reply, sizeof(reply), be16(task->cdb + 3));
        break;
    case REQUEST_SENSE:
        put_sense(reply, SENSE_ILLEGAL_REQUEST, ASC_NO_SUCH_UNIT);
        scsi_reply(task, reply, SCSI_SENSE, task->cdb[4]);
        break;
    default:
        scsi_check(task, SENSE_ILLEGAL_REQUEST, ASC_NO_SUCH_UNIT);
    }
}

/* The sense data of commands come with them: what is left is a unit attention (SPC-4, 6.39). */
static void request_sense(struct scsi_task *task)
{
    uint8_t sense[SCSI_SENSE];
    struct scsi_unit *unit = task->unit;
    if (task->cdb[1] & 1) { /* descriptor format */
        scsi_invalid_field(task);
        return;
    }
    put_sense(sense, unit->attention ? SENSE_UNIT_ATTENTION : SENSE_NONE, unit->attention);
    unit->attention = ASC_NONE;
    scsi_reply(task, sense, sizeof(sense), task->cdb[4]);
}

/* Commands that are executed although a unit attention waits (SAM-5, 5.14; MMC-3, 4.1.6). */
static bool ignores_attention(const struct scsi_unit *unit, uint8_t opcode)
{
    enum { GET_CONFIGURATION = 0x46, GET_EVENT_STATUS = 0x4a };
    return opcode == INQUIRY || (unit->type == &scsi_cd_type &&
                                 (opcode == GET_CONFIGURATION || opcode == GET_EVENT_STATUS));
}

void scsi_start(struct scsi_task *task)
{
    struct scsi_unit *unit = task->unit;
    if (task->cdb[0] == REPORT_LUNS) {
        report_luns(task);
    } else if (!unit) {
        absent(task);
    } else if (task->cdb[0] == REQUEST_SENSE && unit->attention) {
        request_sense(task);
    } else if (unit->attention && !ignores_attention(unit, task->cdb[0])) {
        enum scsi_asc why = unit->attention;
        unit->attention = ASC_NONE;
        scsi_check(task, SENSE_UNIT_ATTENTION, why);
    } else if (task->cdb[0] == REQUEST_SENSE && unit->type == &scsi_disk_type) {
        request_sense(task);
    } else {
        unit->type->execute(task);
    }
}

/* ---- Units -------------------------------------------------------------------------------------
 */

struct scsi_unit *scsi_find(const struct scsi_bus *bus, unsigned target, unsigned lun)
{
    struct scsi_unit *unit = bus->units;
    while (unit && (unit->target != target || unit->lun != lun))
        unit = unit->next;
    return unit;
}

bool scsi_target_exists(const struct scsi_bus *bus, unsigned target)
{
    const struct scsi_unit *unit = bus->units;
    while (unit && unit->target != target)
        unit = unit->next;
    return unit != NULL;
}

void scsi_unit_reset(struct scsi_unit *unit, enum scsi_asc why)
{
    unit->type->reset(unit);
    unit->attention = (uint16_t)why;
}

static void unit_device_reset(struct device *dev)
{
    scsi_unit_reset((struct scsi_unit *)dev, ASC_POWER_ON);
}

static void unit_destroy(struct device *dev)
{
    struct scsi_unit *unit = (struct scsi_unit *)dev, **at = &unit->bus->units;
    unit->bus->unit_gone(unit->bus, unit);
    while (*at != unit)
        at = &(*at)->next;
    *at = unit->next;
    free(unit);
}

static void unit_restored(struct device *dev)
{
    struct scsi_unit *unit = (struct scsi_unit *)dev;
    unit->write_cache &= 1;
    if (unit->image && unit->type == &scsi_disk_type)
        blockdev_set_write_cache(unit->image, unit->write_cache);
}

struct device *scsi_unit_create(struct scsi_bus *bus, const struct scsi_unit_options *options,
                                struct error *err)
{
    const struct scsi_type *type = options->cdrom ? &scsi_cd_type : &scsi_disk_type;
    const char *serial = options->serial && *options->serial ? options->serial : NULL;
    char text[SCSI_SERIAL + 1];
    if (options->target >= SCSI_TARGETS || options->lun >= SCSI_LUNS ||
        scsi_find(bus, options->target, options->lun)) {
        error_set(err, "%s: scsi-id=%u, lun=%u is taken by another drive", type->name,
                  options->target, options->lun);
        return NULL;
    }
    if (!options->cdrom && !options->disk) {
        error_set(err, "%s: a disk needs an image", type->name);
        return NULL;
    }
    struct scsi_unit *unit = calloc(1, sizeof(*unit));
    if (!unit) {
        error_set(err, "%s: out of memory", type->name);
        return NULL;
    }
    unit->dev = (struct device){.name = type->name,
                                .state = type->state,
                                .reset = unit_device_reset,
                                .destroy = unit_destroy,
                                .restored = unit_restored};
    unit->type = type;
    unit->bus = bus;
    unit->image = options->disk;
    unit->target = options->target;
    unit->lun = options->lun;
    unit->wwn = options->wwn;
    snprintf(text, sizeof(text), "BL%05u", options->number);
    snprintf(unit->serial, sizeof(unit->serial), "%-20.20s", serial ? serial : text);
    mmc_init(&unit->mmc, options->cdrom ? options->disk : NULL, unit->serial);
    unit->next = bus->units;
    bus->units = unit;
    scsi_unit_reset(unit, ASC_POWER_ON);
    return &unit->dev;
}
