/*
 * mmc.c - the command packets of a CD/DVD-ROM drive, one table row each, and its state: tray, lock,
 * sense data, events (mmc.h). What tells of discs is in mmc_disc.c.
 */
#include "mmc.h"
#include "internal/blockdev.h"
#include <string.h>

enum mmc_flags {
    ALWAYS = 1 << 0, /* executed although a unit attention waits (SPC-2, 5.6; MMC-3, 4.1.6) */
    MEDIUM = 1 << 1, /* needs one */
};
enum { EVENT_NONE = 0, EVENT_EJECT = 1, EVENT_NEW = 2, EVENT_REMOVED = 3 };

/* ---- State -------------------------------------------------------------------------------------
 */

void mmc_init(struct mmc *mmc, struct blockdev *image, const char *serial)
{
    mmc->image = image;
    mmc->serial = serial;
}

void mmc_reset(struct mmc *mmc)
{
    mmc->locked = 0;
    mmc->sense_key = SENSE_NONE;
    mmc->sense_asc = ASC_NONE;
    mmc->sense_valid = 0;
    mmc->medium_changed = 0;
    mmc->media_event = EVENT_NONE;
}

/* MMC-3, 6.6.1.2: a request of the user's is an event as well. */
bool mmc_change(struct mmc *mmc, struct blockdev *image, bool force)
{
    if (mmc->locked && !mmc->tray_open && mmc->image && !force) {
        mmc->media_event = EVENT_EJECT;
        return false;
    }
    mmc->image = image;
    mmc->tray_open = !image;
    mmc->medium_changed = image != NULL;
    mmc->media_event = image ? EVENT_NEW : EVENT_REMOVED;
    return true;
}

uint32_t mmc_blocks(const struct mmc *mmc)
{
    if (!mmc->image || mmc->tray_open)
        return 0;
    uint64_t blocks = blockdev_size(mmc->image) / MMC_BLOCK;
    return blocks > UINT32_MAX ? UINT32_MAX : (uint32_t)blocks;
}

enum mmc_result mmc_check(struct mmc *mmc, enum scsi_sense_key key, enum scsi_asc asc)
{
    mmc->sense_key = (uint8_t)key;
    mmc->sense_asc = (uint16_t)asc;
    mmc->sense_valid = 0;
    return MMC_CHECK;
}

void mmc_read_failed(struct mmc *mmc, uint32_t lba)
{
    mmc_check(mmc, SENSE_MEDIUM_ERROR, ASC_READ_ERROR);
    mmc->sense_valid = 1;
    mmc->sense_info = lba;
}

enum mmc_result mmc_reply(uint32_t have, uint32_t room, uint32_t *len)
{
    *len = have < room ? have : room;
    return *len ? MMC_REPLY : MMC_GOOD;
}

static enum mmc_result invalid_field(struct mmc *mmc)
{
    return mmc_check(mmc, SENSE_ILLEGAL_REQUEST, ASC_INVALID_FIELD);
}

/* ---- Commands of any SCSI device (SPC-2) -------------------------------------------------------
 */

static enum mmc_result test_unit_ready(struct mmc *mmc, const uint8_t *cdb, uint8_t *reply,
                                       uint32_t *len)
{
    (void)mmc, (void)cdb, (void)reply, (void)len;
    return MMC_GOOD;
}

/* 7.20: tells and forgets; a unit attention that waits is told here, too. */
static enum mmc_result request_sense(struct mmc *mmc, const uint8_t *cdb, uint8_t *reply,
                                     uint32_t *len)
{
    if (mmc->sense_key == SENSE_NONE && mmc->medium_changed) {
        mmc_check(mmc, SENSE_UNIT_ATTENTION, ASC_MEDIUM_CHANGED);
        mmc->medium_changed = 0;
    }
    reply[0] = (uint8_t)(0x70 | (mmc->sense_valid ? 0x80 : 0));
    reply[2] = mmc->sense_key;
    if (mmc->sense_valid)
        put_be32(reply + 3, mmc->sense_info);
    reply[7] = 10; /* bytes that follow */
    put_be16(reply + 12, mmc->sense_asc);
    mmc_check(mmc, SENSE_NONE, ASC_NONE);
    return mmc_reply(18, cdb[4], len);
}

static void put_text(uint8_t *at, size_t size, const char *text)
{
    size_t n = strlen(text);
    memset(at, ' ', size);
    memcpy(at, text, n < size ? n : size);
}

/* 8.4: vital product data */
static enum mmc_result inquire_page(struct mmc *mmc, const uint8_t *cdb, uint8_t *reply,
                                    uint32_t *len)
{
    static const uint8_t pages[] = {0x00, 0x80, 0x83};
    uint8_t size = 0;
    reply[0] = 0x05;
    reply[1] = cdb[2];
    switch (cdb[2]) {
    case 0x00: /* which pages there are */
        memcpy(reply + 4, pages, sizeof(pages));
        size = sizeof(pages);
        break;
    case 0x80: /* unit serial number */
        memcpy(reply + 4, mmc->serial, 20);
        size = 20;
        break;
    case 0x83: /* identification: one descriptor, ASCII, vendor specific */
        reply[4] = 2;
        reply[7] = 20;
        memcpy(reply + 8, mmc->serial, 20);
        size = 24;
        break;
    default:
        return invalid_field(mmc);
    }
    reply[3] = size;
    return mmc_reply(4u + size, be16(cdb + 3), len);
}

static enum mmc_result inquiry(struct mmc *mmc, const uint8_t *cdb, uint8_t *reply, uint32_t *len)
{
    if (cdb[1] & 1)
        return inquire_page(mmc, cdb, reply, len);
    if (cdb[2])
        return invalid_field(mmc);
    reply[0] = 0x05; /* CD-ROM */
    reply[1] = 0x80; /* removable */
    reply[2] = 0x05; /* SPC-3; ATAPI devices and hosts go by the next byte */
    reply[3] = 0x22; /* response data format 2; ATAPI version 2 in the high half (SFF 8020) */
    reply[4] = 36 - 5;
    put_text(reply + 8, 8, "BAILEY");
    put_text(reply + 16, 16, "BAILEY DVD-ROM");
    put_text(reply + 32, 4, "1.0");
    return mmc_reply(36, be16(cdb + 3), len);
}

static enum mmc_result prevent_allow(struct mmc *mmc, const uint8_t *cdb, uint8_t *reply,
                                     uint32_t *len)
{
    (void)reply, (void)len;
    mmc->locked = cdb[4] & 1;
    return MMC_GOOD;
}

/* ---- Tray and events (MMC-3) -------------------------------------------------------------------
 */

static enum mmc_result start_stop(struct mmc *mmc, const uint8_t *cdb, uint8_t *reply,
                                  uint32_t *len)
{
    bool load_eject = cdb[4] & 2, start = cdb[4] & 1;
    (void)reply, (void)len;
    if (cdb[4] >> 4 || !load_eject) /* power conditions and the motor change nothing here */
        return MMC_GOOD;
    if (!start && mmc->locked)
        return mmc_check(mmc, SENSE_ILLEGAL_REQUEST, ASC_REMOVAL_PREVENTED);
    if (start && mmc->tray_open && mmc->image) {
        mmc->medium_changed = 1; /* whoever was at the tray may have changed it */
        mmc->media_event = EVENT_NEW;
    }
    if (!start && !mmc->tray_open && mmc->image)
        mmc->media_event = EVENT_REMOVED;
    mmc->tray_open = !start;
    return MMC_GOOD;
}

/* GET EVENT STATUS NOTIFICATION: media events only, and only when polled for. */
static enum mmc_result event_status(struct mmc *mmc, const uint8_t *cdb, uint8_t *reply,
                                    uint32_t *len)
{
    enum { CLASS_MEDIA = 4 };
    if (!(cdb[1] & 1))
        return invalid_field(mmc);
    reply[3] = 1 << CLASS_MEDIA;
    if (!(cdb[4] & 1 << CLASS_MEDIA)) {
        reply[1] = 2;
        reply[2] = 0x80; /* no event of these classes available */
        return mmc_reply(4, be16(cdb + 7), len);
    }
    reply[1] = 6;
    reply[2] = CLASS_MEDIA;
    reply[4] = mmc->media_event;
    reply[5] = (uint8_t)((mmc_blocks(mmc) ? 2 : 0) | (mmc->tray_open ? 1 : 0));
    mmc->media_event = EVENT_NONE;
    return mmc_reply(8, be16(cdb + 7), len);
}

static enum mmc_result mechanism_status(struct mmc *mmc, const uint8_t *cdb, uint8_t *reply,
                                        uint32_t *len)
{
    reply[1] = mmc->tray_open ? 0x10 : 0;
    reply[5] = 0; /* no changer, so no slot table */
    return mmc_reply(8, be16(cdb + 8), len);
}

/* ---- Reading -----------------------------------------------------------------------------------
 */

static enum mmc_result read_blocks(struct mmc *mmc, uint32_t lba, uint32_t count, bool raw)
{
    uint32_t blocks = mmc_blocks(mmc);
    if (lba > blocks || count > blocks - lba) {
        mmc_check(mmc, SENSE_ILLEGAL_REQUEST, ASC_LBA_OUT_OF_RANGE);
        mmc->sense_valid = 1;
        mmc->sense_info = lba > blocks ? lba : blocks;
        return MMC_CHECK;
    }
    mmc->read_lba = lba;
    mmc->read_blocks = count;
    mmc->read_raw = raw;
    return count ? MMC_READ : MMC_GOOD;
}

static enum mmc_result read_10(struct mmc *mmc, const uint8_t *cdb, uint8_t *reply, uint32_t *len)
{
    (void)reply, (void)len;
    return read_blocks(mmc, be32(cdb + 2), be16(cdb + 7), false);
}

static enum mmc_result read_12(struct mmc *mmc, const uint8_t *cdb, uint8_t *reply, uint32_t *len)
{
    (void)reply, (void)len;
    return read_blocks(mmc, be32(cdb + 2), be32(cdb + 6), false);
}

/* READ CD: user data alone or whole sectors; the disc is one track of mode 1. */
static enum mmc_result read_cd(struct mmc *mmc, const uint8_t *cdb, uint8_t *reply, uint32_t *len)
{
    enum { USER_DATA = 0x10, WHOLE = 0xf8 };
    uint32_t count = (uint32_t)cdb[6] << 16 | be16(cdb + 7);
    uint8_t type = cdb[1] >> 2 & 7, fields = cdb[9] & WHOLE;
    (void)reply, (void)len;
    if (type > 2) /* 0 any, 1 CD-DA, 2 mode 1, the rest mode 2 */
        return mmc_check(mmc, SENSE_ILLEGAL_REQUEST, ASC_ILLEGAL_MODE);
    if (type == 1)
        return mmc_check(mmc, SENSE_ILLEGAL_REQUEST, ASC_ILLEGAL_MODE);
    if (cdb[10] & 7 || (fields && fields != USER_DATA && fields != WHOLE) || cdb[9] & 6)
        return invalid_field(mmc); /* sub-channels, error flags, parts of sectors */
    enum mmc_result result = read_blocks(mmc, be32(cdb + 2), count, fields == WHOLE);
    return result == MMC_READ && !fields ? MMC_GOOD : result;
}

static enum mmc_result seek(struct mmc *mmc, const uint8_t *cdb, uint8_t *reply, uint32_t *len)
{
    (void)reply, (void)len;
    enum mmc_result result = read_blocks(mmc, be32(cdb + 2), 1, false);
    return result == MMC_READ ? MMC_GOOD : result;
}

static enum mmc_result read_capacity(struct mmc *mmc, const uint8_t *cdb, uint8_t *reply,
                                     uint32_t *len)
{
    (void)cdb;
    put_be32(reply, mmc_blocks(mmc) - 1);
    put_be32(reply + 4, MMC_BLOCK);
    return mmc_reply(8, 8, len);
}

/* SET CD SPEED: there is one. */
static enum mmc_result set_speed(struct mmc *mmc, const uint8_t *cdb, uint8_t *reply, uint32_t *len)
{
    (void)mmc, (void)cdb, (void)reply, (void)len;
    return MMC_GOOD;
}

/* ---- The table ---------------------------------------------------------------------------------
 */

struct mmc_command {
    uint8_t opcode, flags;
    mmc_command_fn *run;
};

static const struct mmc_command commands[] = {
    {0x00, MEDIUM, test_unit_ready},
    {0x03, ALWAYS, request_sense},
    {0x12, ALWAYS, inquiry},
    {0x1a, 0, mmc_mode_sense}, /* (6) */
    {0x1b, 0, start_stop},
    {0x1e, 0, prevent_allow},
    {0x25, MEDIUM, read_capacity},
    {0x28, MEDIUM, read_10},
    {0x2b, MEDIUM, seek},
    {0x43, MEDIUM, mmc_read_toc},
    {0x46, ALWAYS, mmc_get_configuration},
    {0x4a, ALWAYS, event_status},
    {0x51, MEDIUM, mmc_disc_information},
    {0x5a, 0, mmc_mode_sense}, /* (10) */
    {0xa8, MEDIUM, read_12},
    {0xad, MEDIUM, mmc_dvd_structure},
    {0xbb, 0, set_speed},
    {0xbd, 0, mechanism_status},
    {0xbe, MEDIUM, read_cd},
};

enum mmc_result mmc_execute(struct mmc *mmc, const uint8_t cdb[MMC_CDB], uint8_t *reply,
                            uint32_t *len)
{
    const struct mmc_command *command = NULL;
    for (unsigned i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        if (commands[i].opcode == cdb[0])
            command = &commands[i];
    if (!command)
        return mmc_check(mmc, SENSE_ILLEGAL_REQUEST, ASC_INVALID_OPCODE);
    if (mmc->medium_changed && !(command->flags & ALWAYS)) {
        mmc->medium_changed = 0;
        return mmc_check(mmc, SENSE_UNIT_ATTENTION, ASC_MEDIUM_CHANGED);
    }
    if (command->flags & MEDIUM && !mmc_blocks(mmc))
        return mmc_check(mmc, SENSE_NOT_READY,
                         mmc->tray_open ? ASC_NO_MEDIUM_OPEN : ASC_NO_MEDIUM_CLOSED);
    memset(reply, 0, MMC_MAX_REPLY);
    *len = 0;
    if (cdb[0] != 0x03) /* sense data are those of the last command */
        mmc_check(mmc, SENSE_NONE, ASC_NONE);
    return command->run(mmc, cdb, reply, len);
}
