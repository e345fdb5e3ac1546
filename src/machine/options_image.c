/*
 * options_image.c - the properties of -drive that say how an image is opened: format=, cache=,
 * aio=, discard=, detect-zeroes=, snapshot=, readonly=. Which controller has the drive is
 * options_device.c's.
 */
#include "options.h"
#include <string.h>

/* In the order of enum blockdev_cache, enum blockdev_discard (twice), enum blockdev_detect. */
static const char *const caches[] = {"writeback",  "none",   "writethrough",
                                     "directsync", "unsafe", NULL};
static const char *const discards[] = {"ignore", "unmap", "off", "on", NULL};
static const char *const detects[] = {"off", "on", "unmap", NULL};
static const char *const aios[] = {"threads", NULL};

/* Index of the word given for key, 0 when there is none; -1 with a message. */
static int word(const struct keyval *kv, const char *key, const char *const *words,
                struct error *err)
{
    const char *value = keyval_get(kv, key);
    char what[32];
    snprintf(what, sizeof(what), "-drive: %s", key);
    return value ? choose_word(value, words, what, err) : 0;
}

bool option_drive_image(const struct keyval *kv, struct drive_config *drive, struct error *err)
{
    const char *format = keyval_get(kv, "format");
    int cache = word(kv, "cache", caches, err);
    int discard = cache < 0 ? -1 : word(kv, "discard", discards, err);
    int detect = discard < 0 ? -1 : word(kv, "detect-zeroes", detects, err);
    if (detect < 0 || word(kv, "aio", aios, err) < 0)
        return false;
    if (format && !blockdev_format_known(format)) {
        const char *names[16];
        blockdev_format_names(names, sizeof(names) / sizeof(names[0]));
        return choose_word(format, names, "-drive: format", err) >= 0;
    }
    drive->format = format ? copy_string(format) : NULL;
    drive->cache = (enum blockdev_cache)cache;
    drive->discard = (enum blockdev_discard)(discard % 2);
    drive->detect_zeroes = (enum blockdev_detect)detect;
    if (drive->detect_zeroes == BLOCKDEV_DETECT_UNMAP && drive->discard != BLOCKDEV_DISCARD_UNMAP)
        return error_set(err, "-drive: detect-zeroes=unmap needs discard=unmap");
    return keyval_bool(kv, "readonly", &drive->read_only, "-drive", err) &&
           keyval_bool(kv, "read-only", &drive->read_only, "-drive", err) &&
           keyval_bool(kv, "snapshot", &drive->snapshot, "-drive", err);
}
