/*
 * options_floppy.c - -fda, -fdb and -drive if=floppy.
 */
#include "options.h"

enum { FLOPPIES = 2 };

static bool is_taken(const struct options *o, const struct drive_config *drive, unsigned index)
{
    for (unsigned i = 0; i < o->config->drive_count; i++) {
        const struct drive_config *other = &o->config->drives[i];
        if (other != drive && other->interface == DRIVE_FLOPPY && other->floppy == index)
            return true;
    }
    return false;
}

static bool place(struct options *o, struct drive_config *drive, unsigned index, const char *what)
{
    drive->interface = DRIVE_FLOPPY;
    drive->floppy = index;
    return !is_taken(o, drive, index) ||
           error_set(o->err, "%s: floppy drive %c: has a disk already", what, 'A' + index);
}

bool option_floppy_place(struct options *o, const struct keyval *kv, struct drive_config *drive)
{
    uint64_t index = 0;
    if (!keyval_get(kv, "index") && !keyval_get(kv, "unit"))
        index = is_taken(o, drive, 0);
    return keyval_number(kv, "index", FLOPPIES - 1, &index, "-drive", o->err) &&
           keyval_number(kv, "unit", FLOPPIES - 1, &index, "-drive", o->err) &&
           place(o, drive, (unsigned)index, "-drive");
}

bool option_floppy(struct options *o, unsigned index, const char *file)
{
    struct drive_config *drive = option_new_drive(o, file, "");
    return drive && place(o, drive, index, index ? "-fdb" : "-fda");
}
