/*
 * scsi_disk.c - a disk's commands (SBC-3 on SPC-4), one table row each. Pages of INQUIRY and of the
 * modes are in scsi_pages.c.
 */
#include "scsi.h"
#include <string.h>

/* ---- State -------------------------------------------------------------------------------------
 */

static const struct field disk_fields[] = {
    FIELD(struct scsi_unit, attention, FIELD_U16, 1),
    FIELD(struct scsi_unit, write_cache, FIELD_U8, 1),
};
static const struct state_desc disk_state = STATE_DESC("scsi-hd", 1, disk_fields);

static void disk_reset(struct scsi_unit *unit)
{
    unit->write_cache = blockdev_default_write_cache(unit->image);
    blockdev_set_write_cache(unit->image, unit->write_cache);
}

static uint64_t blocks_of(const struct scsi_unit *unit)
{
    return blockdev_size(unit->image) / SCSI_BLOCK;
}

/* ---- Addresses ---------------------------------------------------------------------------------
 */

/* The first block and the number of blocks, from a CDB of 6, 10, 12, or 16 bytes: the group code
 * tells (SPC-4, 4.2.5.1). */
static void decode_range(const uint8_t *cdb, uint64_t *lba, uint64_t *count)
{
    switch (cdb[0] >> 5) {
    case 0:
        *lba = be32(cdb) & 0x1fffff;
        *count = cdb[4] ? cdb[4] : 256; /* SBC-3, 5.7 */
        break;
    case 4:
        *lba = be64(cdb + 2);
        *count = be32(cdb + 10);
        break;
    case 5:
        *lba = be32(cdb + 2);
        *count = be32(cdb + 6);
        break;
    default:
        *lba = be32(cdb + 2);
        *count = be16(cdb + 7);
    }
}

/* False: the range is not on the disk, and the task has ended. */
static bool check_range(struct scsi_task *task, uint64_t lba, uint64_t count)
{
    uint64_t blocks = blocks_of(task->unit);
    if (lba <= blocks && count <= blocks - lba)
        return true;
    scsi_check_at(task, SENSE_ILLEGAL_REQUEST, ASC_LBA_OUT_OF_RANGE, lba < blocks ? blocks : lba);
    return false;
}

/* The range of a transfer into the task. False: it has ended. */
static bool set_range(struct scsi_task *task)
{
    uint64_t lba, count;
    decode_range(task->cdb, &lba, &count);
    if (!check_range(task, lba, count))
        return false;
    task->position = lba * SCSI_BLOCK;
    task->len = count * SCSI_BLOCK;
    return true;
}

/* ---- Reading and writing -----------------------------------------------------------------------
 */

static void transfer(struct scsi_task *task, enum blockdev_op op)
{
    bool six = task->cdb[0] >> 5 == 0;
    if (!six &&
        task->cdb[1] & 0xe0) { /* RDPROTECT, WRPROTECT: there is no protection information */
        scsi_invalid_field(task);
        return;
    }
    task->flush = !six && task->cdb[1] & 0x08; /* FUA: on the medium before it is over */
    if (set_range(task))
        scsi_transfer(task, op);
}

static void read_blocks(struct scsi_task *task)
{
    transfer(task, BLOCKDEV_READ);
}

static void write_blocks(struct scsi_task *task)
{
    transfer(task, BLOCKDEV_WRITE);
}

/* SBC-3, 5.35: BYTCHK 00b reads the medium, 01b compares it with data from the initiator. */
static void verify(struct scsi_task *task)
{
    unsigned bytchk = task->cdb[1] >> 1 & 3;
    if (task->cdb[1] & 0xe0 || bytchk > 1) {
        scsi_invalid_field(task);
        return;
    }
    task->data = bytchk ? SCSI_DATA_COMPARED : SCSI_DATA_IGNORED;
    if (set_range(task))
        scsi_transfer(task, BLOCKDEV_READ);
}

static void synchronize_cache(struct scsi_task *task)
{
    uint64_t lba, count;
    decode_range(task->cdb, &lba, &count);
    if (check_range(task, lba, count))
        scsi_flush(task); /* all of it, which includes what was asked for */
}

/* ---- Giving space back -------------------------------------------------------------------------
 */

static void erase_done(struct scsi_task *task)
{
    if (task->io.result)
        scsi_failed(task);
    else
        scsi_good(task);
}

static bool all_zero(const uint8_t *bytes, size_t len)
{
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, len - 1) == 0;
}

/* SBC-3, 5.48: one block that stands for all. With UNMAP the blocks read as zeroes afterwards as
 * they do without, if zeroes are what the initiator wants; other data are written. */
static void write_same(struct scsi_task *task)
{
    enum { NDOB = 0x01 };
    uint8_t flags = task->cdb[1];
    bool has_data = !(task->cdb[0] == 0x93 && flags & NDOB); /* only the long one has that bit */
    if (flags & 0xf6 || (flags & NDOB && has_data)) {
        scsi_invalid_field(task);
        return;
    }
    if (!set_range(task))
        return;
    uint64_t count = task->len / SCSI_BLOCK;
    if (count == 0 || count > SCSI_MAX_ERASE) { /* WSNZ, MAXIMUM WRITE SAME LENGTH of page B0h */
        scsi_invalid_field(task);
        return;
    }
    if (has_data && !scsi_chunk(task, SCSI_CHUNK))
        return;
    if (has_data && !scsi_parameters(task, SCSI_BLOCK))
        return;
    uint8_t *block = task->iov.iov_base;
    if (!has_data || all_zero(block, SCSI_BLOCK)) {
        task->step = erase_done;
        scsi_submit(task, BLOCKDEV_WRITE_ZEROES, task->position, task->len);
        return;
    }
    for (size_t at = SCSI_BLOCK; at < SCSI_CHUNK; at += SCSI_BLOCK)
        memcpy(block + at, block, SCSI_BLOCK);
    task->data = SCSI_DATA_REPEATED;
    scsi_transfer(task, BLOCKDEV_WRITE);
}

enum { UNMAP_HEADER = 8, UNMAP_ENTRY = 16 };

/* The next descriptor that names any blocks; then the end. */
static void unmap_next(struct scsi_task *task)
{
    const uint8_t *list = task->iov.iov_base;
    while (task->entry < task->entries) {
        const uint8_t *entry = list + UNMAP_HEADER + UNMAP_ENTRY * task->entry++;
        uint64_t lba = be64(entry), count = be32(entry + 8);
        if (!count)
            continue;
        scsi_submit(task, BLOCKDEV_DISCARD, lba * SCSI_BLOCK, count * SCSI_BLOCK);
        return;
    }
    scsi_good(task);
}

static void unmap_done(struct scsi_task *task)
{
    if (task->io.result)
        scsi_failed(task);
    else
        unmap_next(task);
}

/* SBC-3, 5.28: nothing happens unless all descriptors are good. */
static void unmap(struct scsi_task *task)
{
    uint32_t len = be16(task->cdb + 7);
    uint64_t total = 0;
    if (task->cdb[1] & 1) { /* ANCHOR */
        scsi_invalid_field(task);
        return;
    }
    if (len == 0) {
        scsi_good(task);
        return;
    }
    if (len < UNMAP_HEADER) {
        scsi_check(task, SENSE_ILLEGAL_REQUEST, ASC_PARAMETER_LENGTH);
        return;
    }
    if (!scsi_parameters(task, len))
        return;
    const uint8_t *list = task->iov.iov_base;
    uint32_t size = be16(list + 2);
    if (size > len - UNMAP_HEADER)
        size = len - UNMAP_HEADER;
    task->entry = 0;
    task->entries = size / UNMAP_ENTRY;
    for (unsigned i = 0; i < task->entries; i++) {
        const uint8_t *entry = list + UNMAP_HEADER + UNMAP_ENTRY * i;
        if (!check_range(task, be64(entry), be32(entry + 8)))
            return;
        total += be32(entry + 8);
    }
    if (task->entries > SCSI_MAX_UNMAP || total > SCSI_MAX_ERASE) {
        scsi_check(task, SENSE_ILLEGAL_REQUEST, ASC_INVALID_PARAMETER);
        return;
    }
    task->step = unmap_done;
    unmap_next(task);
}

/* ---- The rest ----------------------------------------------------------------------------------
 */

static void nothing_to_do(struct scsi_task *task)
{
    scsi_good(task);
}

/* Stopping leaves nothing in a cache (SBC-3, 5.25); the motor never stops. */
static void start_stop(struct scsi_task *task)
{
    enum { START = 1, LOEJ = 2, NO_FLUSH = 4 };
    uint8_t flags = task->cdb[4];
    if (flags & LOEJ)
        scsi_invalid_field(task); /* nothing to be ejected */
    else if (flags >> 4 == 0 && !(flags & (START | NO_FLUSH)))
        scsi_flush(task);
    else
        scsi_good(task);
}

static void read_capacity_10(struct scsi_task *task)
{
    uint8_t reply[8];
    uint64_t last = blocks_of(task->unit) - 1;
    put_be32(reply, last > UINT32_MAX ? UINT32_MAX : (uint32_t)last);
    put_be32(reply + 4, SCSI_BLOCK);
    scsi_reply(task, reply, sizeof(reply), sizeof(reply));
}

static void read_capacity_16(struct scsi_task *task)
{
    uint8_t reply[32] = {0};
    put_be64(reply, blocks_of(task->unit) - 1);
    put_be32(reply + 8, SCSI_BLOCK);
    if (!blockdev_read_only(task->unit->image))
        reply[14] = 0x80; /* LBPME: space can be given back (page B2h) */
    scsi_reply(task, reply, sizeof(reply), be32(task->cdb + 10));
}

/* ---- The table ---------------------------------------------------------------------------------
 */

enum disk_flags {
    MEDIUM = 1 << 0, /* needs a disk that is not empty */
    WRITES = 1 << 1, /* and one that can be written */
};
enum { NO_ACTION = 0xff };

static const struct {
    uint8_t opcode, action, flags; /* action: service action, bits 4-0 of byte 1 */
    void (*run)(struct scsi_task *task);
} commands[] = {
    {0x00, NO_ACTION, MEDIUM, nothing_to_do}, /* TEST UNIT READY */
    {0x08, NO_ACTION, MEDIUM, read_blocks},   /* (6) */
    {0x0a, NO_ACTION, MEDIUM | WRITES, write_blocks},
    {0x12, NO_ACTION, 0, scsi_disk_inquiry},
    {0x15, NO_ACTION, 0, scsi_disk_mode_select},
    {0x1a, NO_ACTION, 0, scsi_disk_mode_sense},
    {0x1b, NO_ACTION, 0, start_stop},
    {0x1e, NO_ACTION, 0, nothing_to_do}, /* PREVENT ALLOW MEDIUM REMOVAL: it is fixed anyway */
    {0x25, NO_ACTION, MEDIUM, read_capacity_10},
    {0x28, NO_ACTION, MEDIUM, read_blocks}, /* (10) */
    {0x2a, NO_ACTION, MEDIUM | WRITES, write_blocks},
    {0x2f, NO_ACTION, MEDIUM, verify},
    {0x35, NO_ACTION, MEDIUM, synchronize_cache},
    {0x41, NO_ACTION, MEDIUM | WRITES, write_same},
    {0x42, NO_ACTION, MEDIUM | WRITES, unmap},
    {0x55, NO_ACTION, 0, scsi_disk_mode_select},
    {0x5a, NO_ACTION, 0, scsi_disk_mode_sense},
    {0x88, NO_ACTION, MEDIUM, read_blocks}, /* (16) */
    {0x8a, NO_ACTION, MEDIUM | WRITES, write_blocks},
    {0x8f, NO_ACTION, MEDIUM, verify},
    {0x91, NO_ACTION, MEDIUM, synchronize_cache},
    {0x93, NO_ACTION, MEDIUM | WRITES, write_same},
    {0x9e, 0x10, MEDIUM, read_capacity_16},
    {0xa8, NO_ACTION, MEDIUM, read_blocks}, /* (12) */
    {0xaa, NO_ACTION, MEDIUM | WRITES, write_blocks},
    {0xaf, NO_ACTION, MEDIUM, verify},
};

static void disk_execute(struct scsi_task *task)
{
    const uint8_t *cdb = task->cdb;
    bool opcode_known = false;
    for (unsigned i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (commands[i].opcode != cdb[0])
            continue;
        opcode_known = true;
        if (commands[i].action != NO_ACTION && commands[i].action != (cdb[1] & 0x1f))
            continue;
        if (commands[i].flags & MEDIUM && !blocks_of(task->unit))
            scsi_check(task, SENSE_NOT_READY, ASC_NO_MEDIUM);
        else if (commands[i].flags & WRITES && blockdev_read_only(task->unit->image))
            scsi_check(task, SENSE_DATA_PROTECT, ASC_WRITE_PROTECTED);
        else
            commands[i].run(task);
        return;
    }
    scsi_check(task, SENSE_ILLEGAL_REQUEST, opcode_known ? ASC_INVALID_FIELD : ASC_INVALID_OPCODE);
}

const struct scsi_type scsi_disk_type = {
    .name = "scsi-hd",
    .state = &disk_state,
    .device_type = 0x00,
    .execute = disk_execute,
    .reset = disk_reset,
};
