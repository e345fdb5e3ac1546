/*
 * fdc_drive.c - floppy drives and the formats of disks, found by an image's size.
 */
#include "fdc.h"
#include "internal/error.h"

static const struct fdc_format formats[] = {
    {320, 8, 40, 1, 2, 1},   /* 160K */
    {360, 9, 40, 1, 2, 1},   /* 180K */
    {640, 8, 40, 2, 2, 1},   /* 320K */
    {720, 9, 40, 2, 2, 1},   /* 360K */
    {1440, 9, 80, 2, 2, 3},  /* 720K */
    {1600, 10, 80, 2, 2, 3}, /* 800K */
    {2400, 15, 80, 2, 0, 2}, /* 1.2M */
    {2880, 18, 80, 2, 0, 4}, /* 1.44M */
    {3200, 20, 80, 2, 0, 4}, /* 1.6M */
    {3360, 21, 80, 2, 0, 4}, /* 1.68M */
    {3444, 21, 82, 2, 0, 4}, /* 1.72M */
    {3486, 21, 83, 2, 0, 4}, /* 1.74M */
    {3520, 22, 80, 2, 0, 4}, /* 1.76M */
    {3680, 23, 80, 2, 0, 4}, /* 1.84M */
    {3840, 24, 80, 2, 0, 4}, /* 1.92M */
    {5760, 36, 80, 2, 3, 5}, /* 2.88M */
    {6240, 39, 80, 2, 3, 5}, /* 3.12M */
    {6400, 40, 80, 2, 3, 5}, /* 3.2M */
    {7040, 44, 80, 2, 3, 5}, /* 3.52M */
    {7680, 48, 80, 2, 3, 5}, /* 3.84M */
};
enum { FORMATS = sizeof(formats) / sizeof(formats[0]), ORDINARY = 2880, EXTRA = 5760 };

/* An image of another size is the beginning of a disk of 1.44M or 2.88M. */
static const struct fdc_format *format_of(uint64_t size)
{
    uint64_t wanted = size / FDC_SECTOR;
    for (unsigned pass = 0; pass < 3; pass++) {
        for (unsigned i = 0; i < FORMATS; i++)
            if (formats[i].sectors_total == wanted)
                return &formats[i];
        if (wanted > EXTRA)
            return NULL;
        wanted = wanted <= ORDINARY ? ORDINARY : EXTRA;
    }
    return NULL;
}

bool fdc_drive_open(struct fdc_drive *drive, struct blockdev *image, struct error *err)
{
    drive->image = image;
    drive->changed = 1;
    if (!image)
        return true;
    drive->format = format_of(blockdev_size(image));
    if (drive->format) {
        drive->type = drive->format->type;
        return true;
    }
    return error_set(err, "%llu bytes are more than a floppy disk has (at most 2949120)",
                     (unsigned long long)blockdev_size(image));
}

/* Drives take what drives of their size took before them. */
static bool fits(uint8_t drive, uint8_t disk)
{
    enum { HIGH_5_INCH = 2, DOUBLE_3_INCH = 3 };
    return disk <= drive && (drive <= HIGH_5_INCH || disk >= DOUBLE_3_INCH);
}

bool fdc_drive_change(struct fdc_drive *drive, struct blockdev *image, struct error *err)
{
    const struct fdc_format *format = image ? format_of(blockdev_size(image)) : NULL;
    if (!drive->type)
        return error_set(err, "there is no such floppy drive");
    if (image && (!format || !fits(drive->type, format->type)))
        return error_set(err, "a disk of %llu bytes does not fit the floppy drive",
                         (unsigned long long)blockdev_size(image));
    drive->image = image;
    drive->format = format;
    drive->changed = 1;
    drive->id = 0;
    return true;
}

bool fdc_drive_locate(const struct fdc_drive *drive, unsigned track, unsigned head, unsigned sector,
                      uint64_t *offset)
{
    const struct fdc_format *f = drive->format;
    if (!f || track >= f->tracks || head >= f->heads || sector < 1 || sector > f->sectors)
        return false;
    *offset = (((uint64_t)track * f->heads + head) * f->sectors + sector - 1) * FDC_SECTOR;
    return true;
}
