/*
 * scsi_cd.c - a CD/DVD-ROM drive on a SCSI bus: mmc.c's command set, whose sense data go along with
 * the command that they belong to, and reading of the medium.
 */
#include "scsi.h"
#include <string.h>

static const struct field cd_fields[] = {
    FIELD(struct scsi_unit, attention, FIELD_U16, 1),
    MMC_FIELDS(struct scsi_unit, mmc),
};
static const struct state_desc cd_state = STATE_DESC("scsi-cd", 1, cd_fields);

static void cd_reset(struct scsi_unit *unit)
{
    mmc_reset(&unit->mmc);
}

/* Hands the sense data over: the drive keeps none (SAM-5, 5.13). */
static void check(struct scsi_task *task)
{
    struct mmc *mmc = &task->unit->mmc;
    enum scsi_sense_key key = mmc->sense_key;
    enum scsi_asc asc = mmc->sense_asc;
    bool at = mmc->sense_valid;
    mmc_check(mmc, SENSE_NONE, ASC_NONE);
    if (at)
        scsi_check_at(task, key, asc, mmc->sense_info);
    else
        scsi_check(task, key, asc);
}

static uint32_t block_size(const struct scsi_task *task)
{
    return task->raw ? MMC_RAW_BLOCK : MMC_BLOCK;
}

/* As many blocks as a chunk has room for; one by one when one of them cannot be read, so that the
 * initiator has those before it and learns which one it is. */
static void read_medium(struct scsi_task *task)
{
    uint32_t most = task->careful ? 1 : SCSI_CHUNK / block_size(task);
    uint32_t blocks = task->left < most ? task->left : most;
    task->iov.iov_len = blocks * MMC_BLOCK;
    scsi_submit(task, BLOCKDEV_READ, (uint64_t)task->lba * MMC_BLOCK, task->iov.iov_len);
}

static void blocks_read(struct scsi_task *task)
{
    uint32_t blocks = (uint32_t)(task->io.len / MMC_BLOCK), size = block_size(task);
    uint8_t *bytes = task->iov.iov_base;
    if (task->io.result && blocks > 1) {
        task->careful = true;
        read_medium(task);
        return;
    }
    if (task->io.result) {
        mmc_read_failed(&task->unit->mmc, task->lba);
        check(task);
        return;
    }
    for (uint32_t i = blocks; task->raw && i--;) /* the last first: they grow */
        mmc_raw_sector(bytes + i * MMC_RAW_BLOCK, bytes + i * MMC_BLOCK, task->lba + i);
    enum scsi_outcome outcome = task->bus->deliver(task, task->moved, bytes, (size_t)blocks * size);
    if (outcome != SCSI_COMPLETE) {
        scsi_end(task, outcome);
        return;
    }
    task->moved += (uint64_t)blocks * size;
    task->lba += blocks;
    task->left -= blocks;
    if (task->left)
        read_medium(task);
    else
        scsi_good(task);
}

static void start_reading(struct scsi_task *task)
{
    const struct mmc *mmc = &task->unit->mmc;
    task->lba = mmc->read_lba;
    task->left = mmc->read_blocks;
    task->raw = mmc->read_raw;
    if ((uint64_t)task->left * block_size(task) > task->in_len) {
        scsi_end(task, SCSI_OVERRUN);
        return;
    }
    task->step = blocks_read;
    if (scsi_chunk(task, SCSI_CHUNK))
        read_medium(task);
}

static void cd_execute(struct scsi_task *task)
{
    enum { INQUIRY = 0x12 };
    uint8_t reply[MMC_MAX_REPLY];
    uint32_t len = 0;
    switch (mmc_execute(&task->unit->mmc, task->cdb, reply, &len)) {
    case MMC_GOOD:
        scsi_good(task);
        break;
    case MMC_CHECK:
        check(task);
        break;
    case MMC_REPLY:
        if (task->cdb[0] == INQUIRY && !(task->cdb[1] & 1)) {
            reply[3] = 0x12; /* where ATAPI has its version: hierarchical LUNs, data format 2 */
            reply[7] = 0x02; /* command queueing */
        }
        scsi_reply(task, reply, len, len);
        break;
    case MMC_READ:
        start_reading(task);
        break;
    }
}

const struct scsi_type scsi_cd_type = {
    .name = "scsi-cd",
    .state = &cd_state,
    .device_type = 0x05,
    .execute = cd_execute,
    .reset = cd_reset,
};
