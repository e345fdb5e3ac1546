/*
 * mmc.h - a CD/DVD-ROM drive as its command packets see it: MMC-3 (T10/1363-D) on SPC-2, whether
 * the packets come by ATAPI or by SCSI. Private to devices/storage.
 *
 * mmc_execute() answers from the drive's state at once; what the medium holds is read by the
 * caller, who is told what to read.
 */
#ifndef STORAGE_MMC_H
#define STORAGE_MMC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct blockdev;

#define MMC_BLOCK     2048u
#define MMC_RAW_BLOCK 2352u /* sync pattern, header, data, EDC, ECC (MMC-3, READ CD) */
#define MMC_CDB       16u
#define MMC_MAX_REPLY 4096u

enum scsi_sense_key {
    SENSE_NONE = 0,
    SENSE_NOT_READY = 2,
    SENSE_MEDIUM_ERROR = 3,
    SENSE_HARDWARE_ERROR = 4,
    SENSE_ILLEGAL_REQUEST = 5,
    SENSE_UNIT_ATTENTION = 6,
    SENSE_DATA_PROTECT = 7,
    SENSE_ABORTED_COMMAND = 11,
    SENSE_MISCOMPARE = 14,
};
/* Additional sense code and its qualifier, SPC-4 annex D. */
enum scsi_asc {
    ASC_NONE = 0x0000,
    ASC_WRITE_ERROR = 0x0c00,
    ASC_READ_ERROR = 0x1100,
    ASC_PARAMETER_LENGTH = 0x1a00,
    ASC_MISCOMPARE = 0x1d00,
    ASC_INVALID_OPCODE = 0x2000,
    ASC_LBA_OUT_OF_RANGE = 0x2100,
    ASC_INVALID_FIELD = 0x2400,
    ASC_NO_SUCH_UNIT = 0x2500,
    ASC_INVALID_PARAMETER = 0x2600,
    ASC_WRITE_PROTECTED = 0x2700,
    ASC_SPACE_EXHAUSTED = 0x2707,
    ASC_MEDIUM_CHANGED = 0x2800,
    ASC_POWER_ON = 0x2900,
    ASC_DEVICE_RESET = 0x2903,
    ASC_NEXUS_LOSS = 0x2907,
    ASC_INCOMPATIBLE_MEDIUM = 0x3000,
    ASC_SAVING_UNSUPPORTED = 0x3900,
    ASC_NO_MEDIUM = 0x3a00,
    ASC_NO_MEDIUM_CLOSED = 0x3a01,
    ASC_NO_MEDIUM_OPEN = 0x3a02,
    ASC_INTERNAL_FAILURE = 0x4400,
    ASC_REMOVAL_PREVENTED = 0x5302,
    ASC_ILLEGAL_MODE = 0x6400, /* for this track */
};

struct mmc {
    struct blockdev *image; /* what lies in the tray; NULL: nothing */
    const char *serial;     /* 20 characters, padded with spaces */
    uint8_t tray_open, locked;
    uint8_t medium_changed; /* unit attention to be reported */
    uint8_t media_event;    /* MMC-3 table 75: to be told by GET EVENT STATUS NOTIFICATION */
    uint8_t sense_key;
    uint16_t sense_asc;
    uint8_t sense_valid; /* sense_info is an address */
    uint32_t sense_info;
    /* MMC_READ: what to read, and whether as raw sectors */
    uint32_t read_lba, read_blocks;
    uint8_t read_raw;
};

#define MMC_FIELDS(st, member)                                                                     \
    FIELD(st, member.tray_open, FIELD_U8, 1), FIELD(st, member.locked, FIELD_U8, 1),               \
        FIELD(st, member.medium_changed, FIELD_U8, 1), FIELD(st, member.media_event, FIELD_U8, 1), \
        FIELD(st, member.sense_key, FIELD_U8, 1), FIELD(st, member.sense_asc, FIELD_U16, 1),       \
        FIELD(st, member.sense_valid, FIELD_U8, 1), FIELD(st, member.sense_info, FIELD_U32, 1),    \
        FIELD(st, member.read_lba, FIELD_U32, 1), FIELD(st, member.read_blocks, FIELD_U32, 1),     \
        FIELD(st, member.read_raw, FIELD_U8, 1)

enum mmc_result {
    MMC_GOOD,  /* done, no data */
    MMC_REPLY, /* *len bytes of reply */
    MMC_READ,  /* read_blocks blocks from read_lba on */
    MMC_CHECK, /* CHECK CONDITION: the sense data say why */
};

void mmc_init(struct mmc *mmc, struct blockdev *image, const char *serial);
/* Power-on or reset: nothing locked, no sense data. */
void mmc_reset(struct mmc *mmc);
/* `reply` has room for MMC_MAX_REPLY bytes. */
enum mmc_result mmc_execute(struct mmc *mmc, const uint8_t cdb[MMC_CDB], uint8_t *reply,
                            uint32_t *len);
/* Somebody takes the medium out and puts another in; NULL: leaves the tray open and empty. False:
 * the host has locked the tray, and is told of the wish; nothing has changed. */
bool mmc_change(struct mmc *mmc, struct blockdev *image, bool force);
/* Sense data for the next REQUEST SENSE. */
enum mmc_result mmc_check(struct mmc *mmc, enum scsi_sense_key key, enum scsi_asc asc);
/* The same for a block that could not be read. */
void mmc_read_failed(struct mmc *mmc, uint32_t lba);
/* Makes a raw sector of the 2048 bytes of block `lba`; both may overlap (mmc_raw.c). */
void mmc_raw_sector(uint8_t raw[MMC_RAW_BLOCK], const uint8_t *data, uint32_t lba);

/* ---- Between mmc.c and mmc_disc.c --------------------------------------------------------------
 */

typedef enum mmc_result mmc_command_fn(struct mmc *mmc, const uint8_t *cdb, uint8_t *reply,
                                       uint32_t *len);
mmc_command_fn mmc_read_toc, mmc_disc_information, mmc_dvd_structure, mmc_get_configuration,
    mmc_mode_sense;
/* Blocks of the medium; 0 when none can be read. */
uint32_t mmc_blocks(const struct mmc *mmc);
/* `have` bytes of the reply, or as many as the host has room for. */
enum mmc_result mmc_reply(uint32_t have, uint32_t room, uint32_t *len);

static inline uint16_t be16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}
static inline uint32_t be32(const uint8_t *p)
{
    return (uint32_t)be16(p) << 16 | be16(p + 2);
}
static inline void put_be16(uint8_t *p, uint16_t value)
{
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}
static inline void put_be32(uint8_t *p, uint32_t value)
{
    put_be16(p, (uint16_t)(value >> 16));
    put_be16(p + 2, (uint16_t)value);
}

#endif
