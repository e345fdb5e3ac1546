/*
 * mmc_disc.c - what a CD/DVD-ROM drive tells of itself and of the disc in it (mmc.h): table of
 * contents, disc and DVD structures, features, mode pages. The disc is one session of one data
 * track; it is a CD as far as a CD holds it, else a DVD.
 */
#include "mmc.h"
#include <string.h>

#define CD_MAX_BLOCKS (80u * 60 * 75)
#define DVD_BASE      0x30000u /* physical sector of the first block (ECMA-267) */
#define DATA_TRACK    0x14     /* ADR 1, control: data track */
#define LEAD_OUT      0xaa
#define PROFILE_CD    0x0008
#define PROFILE_DVD   0x0010

static bool is_dvd(const struct mmc *mmc)
{
    return mmc_blocks(mmc) > CD_MAX_BLOCKS;
}

static enum mmc_result invalid_field(struct mmc *mmc)
{
    return mmc_check(mmc, SENSE_ILLEGAL_REQUEST, ASC_INVALID_FIELD);
}

/* ---- READ TOC/PMA/ATIP -------------------------------------------------------------------------
 */

static void put_time(uint8_t *at, uint32_t lba)
{
    uint32_t frame = lba + 150; /* the two seconds before the first block */
    at[0] = (uint8_t)(frame / 75 / 60);
    at[1] = (uint8_t)(frame / 75 % 60);
    at[2] = (uint8_t)(frame % 75);
}

/* Four bytes: a block's number, or minute, second, frame. */
static void put_address(uint8_t *at, uint32_t lba, bool msf)
{
    if (msf)
        put_time(at + 1, lba);
    else
        put_be32(at, lba);
}

static uint8_t *put_track(uint8_t *at, uint8_t track, uint32_t lba, bool msf)
{
    at[1] = DATA_TRACK;
    at[2] = track;
    put_address(at + 4, lba, msf);
    return at + 8;
}

/* Format 2: entries of the lead-in as they are on a disc. */
static uint8_t *put_raw_entry(uint8_t *at, uint8_t point, uint8_t minute, uint8_t second,
                              uint8_t frame)
{
    const uint8_t entry[11] = {1, DATA_TRACK, 0, point, 0, 0, 0, 0, minute, second, frame};
    memcpy(at, entry, sizeof(entry));
    return at + sizeof(entry);
}

static uint8_t *put_full_toc(uint8_t *at, uint32_t blocks)
{
    uint8_t end[3];
    put_time(end, blocks);
    at = put_raw_entry(at, 0xa0, 1, 0, 0); /* first track; disc type: CD-ROM */
    at = put_raw_entry(at, 0xa1, 1, 0, 0); /* last track */
    at = put_raw_entry(at, 0xa2, end[0], end[1], end[2]);
    return put_raw_entry(at, 1, 0, 2, 0);
}

enum mmc_result mmc_read_toc(struct mmc *mmc, const uint8_t *cdb, uint8_t *reply, uint32_t *len)
{
    /* The format is in byte 2; before MMC it was in the last byte's high bits (SFF 8020). */
    unsigned format = cdb[2] & 0x0f ? cdb[2] & 0x0f : cdb[9] >> 6;
    bool msf = cdb[1] & 2;
    uint8_t start = cdb[6], *at = reply + 4;
    reply[2] = reply[3] = 1; /* first and last track, or session */
    switch (format) {
    case 0:
        if (start > 1 && start != LEAD_OUT)
            return invalid_field(mmc);
        if (start <= 1)
            at = put_track(at, 1, 0, msf);
        at = put_track(at, LEAD_OUT, mmc_blocks(mmc), msf);
        break;
    case 1:
        at = put_track(at, 1, 0, msf);
        break;
    case 2:
        at = put_full_toc(at, mmc_blocks(mmc));
        break;
    default:
        return invalid_field(mmc);
    }
    put_be16(reply, (uint16_t)(at - reply - 2));
    return mmc_reply((uint32_t)(at - reply), be16(cdb + 7), len);
}

/* ---- Discs -------------------------------------------------------------------------------------
 */

enum mmc_result mmc_disc_information(struct mmc *mmc, const uint8_t *cdb, uint8_t *reply,
                                     uint32_t *len)
{
    if (cdb[1] & 7)
        return invalid_field(mmc);
    put_be16(reply, 32);
    reply[2] = 0x0e; /* last session and disc are complete */
    reply[3] = reply[4] = reply[5] = reply[6] = 1;
    reply[7] = 0x20;             /* unrestricted use */
    memset(reply + 16, 0xff, 8); /* no further session can begin */
    return mmc_reply(34, be16(cdb + 7), len);
}

/* Format 0: a single-layer DVD-ROM, ECMA-267 18.6. */
static uint16_t put_physical(uint8_t *at, uint32_t blocks)
{
    at[0] = 0x01; /* DVD-ROM, version 1 */
    at[1] = 0x0f; /* 12 cm, no maximum rate */
    at[2] = 0x01; /* one layer, embossed */
    put_be32(at + 4, DVD_BASE);
    put_be32(at + 8, DVD_BASE + blocks - 1);
    return 16 + 4;
}

static uint16_t put_format_list(uint8_t *at)
{
    static const struct {
        uint8_t format;
        uint16_t size;
    } formats[] = {{0x00, 2052}, {0x01, 8}, {0x04, 2052}};
    for (unsigned i = 0; i < 3; i++, at += 4) {
        at[0] = formats[i].format;
        at[1] = 0x40; /* can be read */
        put_be16(at + 2, formats[i].size);
    }
    return 12;
}

enum mmc_result mmc_dvd_structure(struct mmc *mmc, const uint8_t *cdb, uint8_t *reply,
                                  uint32_t *len)
{
    uint8_t layer = cdb[6];
    uint32_t size;
    if (cdb[1] & 0x0f) /* another kind of disc */
        return invalid_field(mmc);
    if (!is_dvd(mmc) && cdb[7] != 0xff)
        return mmc_check(mmc, SENSE_ILLEGAL_REQUEST, ASC_INCOMPATIBLE_MEDIUM);
    if (layer)
        return invalid_field(mmc);
    switch (cdb[7]) {
    case 0x00:
        put_physical(reply + 4, mmc_blocks(mmc));
        size = 2048;
        break;
    case 0x01: /* copyright: none, all regions */
        size = 4;
        break;
    case 0x04: /* manufacturer's: nothing */
        size = 2048;
        break;
    case 0xff:
        size = put_format_list(reply + 4);
        break;
    default:
        return invalid_field(mmc);
    }
    put_be16(reply, (uint16_t)(size + 2));
    return mmc_reply(size + 4, be16(cdb + 8), len);
}

/* ---- GET CONFIGURATION -------------------------------------------------------------------------
 */

struct feature {
    uint16_t code;
    uint8_t flags; /* version << 2 | persistent << 1 | current */
    uint8_t size;
    uint8_t data[8];
};

/* 5.3; the profiles' and the readers' "current" bits follow the disc. */
static const struct feature features[] = {
    {0x0000, 0x03, 8, {0x00, PROFILE_DVD, 0, 0, 0x00, PROFILE_CD, 0, 0}},
    {0x0001, 0x0b, 8, {0, 0, 0, 2, 1, 0, 0, 0}}, /* core: ATAPI */
    {0x0003, 0x03, 4, {0x29, 0, 0, 0}},          /* tray that locks and ejects */
    {0x0010, 0x00, 8, {0, 0, 8, 0, 0, 1, 0, 0}}, /* random readable: 2048-byte blocks */
    {0x001e, 0x08, 4, {0, 0, 0, 0}},             /* CD read */
    {0x001f, 0x00, 0, {0}},                      /* DVD read */
};

static uint8_t *put_feature(uint8_t *at, const struct feature *f, uint16_t profile)
{
    bool current = f->flags & 1 || (f->code == 0x0010 && profile) ||
                   (f->code == 0x001e && profile == PROFILE_CD) ||
                   (f->code == 0x001f && profile == PROFILE_DVD);
    put_be16(at, f->code);
    at[2] = (uint8_t)(f->flags | current);
    at[3] = f->size;
    memcpy(at + 4, f->data, f->size);
    if (f->code == 0) {
        at[4 + 2] = profile == PROFILE_DVD;
        at[8 + 2] = profile == PROFILE_CD;
    }
    return at + 4 + f->size;
}

enum mmc_result mmc_get_configuration(struct mmc *mmc, const uint8_t *cdb, uint8_t *reply,
                                      uint32_t *len)
{
    enum { ALL, CURRENT, ONE };
    unsigned which = cdb[1] & 3;
    uint16_t start = be16(cdb + 2);
    uint16_t profile = !mmc_blocks(mmc) ? 0 : is_dvd(mmc) ? PROFILE_DVD : PROFILE_CD;
    uint8_t *at = reply + 8;
    if (which > ONE)
        return invalid_field(mmc);
    for (unsigned i = 0; i < sizeof(features) / sizeof(features[0]); i++) {
        bool wanted = which == ONE ? features[i].code == start : features[i].code >= start;
        uint8_t *end = wanted ? put_feature(at, &features[i], profile) : at;
        if (wanted && which == CURRENT && !(at[2] & 1))
            memset(at, 0, (size_t)(end - at));
        else
            at = end;
    }
    put_be32(reply, (uint32_t)(at - reply - 4));
    put_be16(reply + 6, profile);
    return mmc_reply((uint32_t)(at - reply), be16(cdb + 7), len);
}

/* ---- Mode pages --------------------------------------------------------------------------------
 */

/* 0x2a: what the drive can do (MMC-3, annex E): reads CD-R, CD-RW, DVD-ROM, mode 2; locks and
 * ejects a tray; 24 times the speed of an audio CD, 512 KiB of buffer. */
static void fill_capabilities(const struct mmc *mmc, uint8_t *page)
{
    page[2] = 0x0b;
    page[4] = 0x70;
    page[6] = (uint8_t)(0x29 | (mmc->locked ? 2 : 0));
    put_be16(page + 8, 176 * 24);
    put_be16(page + 12, 512);
    put_be16(page + 14, 176 * 24);
}

static const struct {
    uint8_t code, size; /* size: with the two bytes before */
    void (*fill)(const struct mmc *mmc, uint8_t *page);
} mode_pages[] = {
    {0x01, 8, NULL},  /* error recovery: the default */
    {0x0e, 16, NULL}, /* audio: none */
    {0x2a, 20, fill_capabilities},
};

enum mmc_result mmc_mode_sense(struct mmc *mmc, const uint8_t *cdb, uint8_t *reply, uint32_t *len)
{
    enum { CHANGEABLE = 1, SAVED = 3, EVERY_PAGE = 0x3f };
    bool ten = cdb[0] == 0x5a;
    unsigned control = cdb[2] >> 6, code = cdb[2] & 0x3f;
    uint8_t *at = reply + (ten ? 8 : 4);
    bool found = false;
    if (control == SAVED)
        return mmc_check(mmc, SENSE_ILLEGAL_REQUEST, ASC_SAVING_UNSUPPORTED);
    for (unsigned i = 0; i < sizeof(mode_pages) / sizeof(mode_pages[0]); i++) {
        if (code != EVERY_PAGE && code != mode_pages[i].code)
            continue;
        found = true;
        at[0] = mode_pages[i].code;
        at[1] = (uint8_t)(mode_pages[i].size - 2);
        if (mode_pages[i].fill && control != CHANGEABLE)
            mode_pages[i].fill(mmc, at);
        at += mode_pages[i].size;
    }
    if (!found)
        return invalid_field(mmc);
    /* The medium type was given up in MMC-2, but old drivers ask it whether there is one. */
    uint8_t medium = mmc->tray_open ? 0x71 : mmc_blocks(mmc) ? 0x01 : 0x70;
    if (ten)
        put_be16(reply, (uint16_t)(at - reply - 2));
    else
        reply[0] = (uint8_t)(at - reply - 1);
    reply[ten ? 2 : 1] = medium;
    return mmc_reply((uint32_t)(at - reply), ten ? be16(cdb + 7) : cdb[4], len);
}
