/*
 * options_firmware.c - -bios, -pflash, -L, -boot, -fw_cfg: what the machine starts with.
 */
#include "options.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

bool option_firmware_folder(struct options *o, const char *arg)
{
    struct machine_config *c = o->config;
    if (c->folder_count == MACHINE_MAX_FOLDERS)
        return error_set(o->err, "-L: more than %d folders", MACHINE_MAX_FOLDERS);
    c->folders[c->folder_count++] = copy_string(arg);
    return true;
}

/* ---- Flash ----------------------------------------------------------------------------------- */

enum { FLASHES = 2 };

static bool place(struct options *o, struct drive_config *drive, unsigned unit, const char *what)
{
    drive->interface = DRIVE_PFLASH;
    drive->unit = unit;
    for (unsigned i = 0; i < o->config->drive_count; i++) {
        const struct drive_config *other = &o->config->drives[i];
        if (other != drive && other->interface == DRIVE_PFLASH && other->unit == unit)
            return error_set(o->err, "%s: there already is a flash chip %u; there are two, 0 and 1",
                             what, unit);
    }
    return true;
}

static unsigned next_unit(const struct options *o, const struct drive_config *drive)
{
    for (unsigned i = 0; i < o->config->drive_count; i++)
        if (&o->config->drives[i] != drive && o->config->drives[i].interface == DRIVE_PFLASH &&
            o->config->drives[i].unit == 0)
            return 1;
    return 0;
}

bool option_pflash_place(struct options *o, const struct keyval *kv, struct drive_config *drive)
{
    uint64_t unit = next_unit(o, drive);
    return keyval_number(kv, "index", FLASHES - 1, &unit, "-drive", o->err) &&
           keyval_number(kv, "unit", FLASHES - 1, &unit, "-drive", o->err) &&
           place(o, drive, (unsigned)unit, "-drive");
}

bool option_pflash(struct options *o, const char *file)
{
    struct drive_config *drive = option_new_drive(o, file, "");
    return drive && place(o, drive, next_unit(o, drive), "-pflash");
}

/* ---- -boot ----------------------------------------------------------------------------------- */

static bool check_order(struct options *o, const char *what, const char *order)
{
    for (const char *p = order; p && *p; p++) {
        if (!strchr("acdn", *p))
            return error_set(o->err,
                             "-boot: %s=%s: '%c' is no device; a is the floppy disk, c the hard "
                             "disk, d the CD-ROM, n the network",
                             what, order, *p);
        if (strchr(p + 1, *p))
            return error_set(o->err, "-boot: %s=%s names '%c' twice", what, order, *p);
    }
    return true;
}

static void set_string(char **string, const char *value)
{
    if (!value)
        return;
    free(*string);
    *string = copy_string(value);
}

bool option_boot(struct options *o, const char *arg)
{
    static const char *const keys[] = {"order",       "once",           "menu", "strict",
                                       "splash-time", "reboot-timeout", NULL};
    struct boot_config *boot = &o->config->boot;
    struct keyval kv;
    uint64_t wait = 0, timeout = 0;
    bool ok =
        keyval_parse(&kv, arg, "order", "-boot", o->err) && keyval_only(&kv, keys, "-boot", o->err);
    const char *order = ok ? keyval_get(&kv, "order") : NULL;
    const char *once = ok ? keyval_get(&kv, "once") : NULL;
    ok = ok && check_order(o, "order", order) && check_order(o, "once", once) &&
         keyval_bool(&kv, "menu", &boot->menu, "-boot", o->err) &&
         keyval_bool(&kv, "strict", &boot->strict, "-boot", o->err) &&
         keyval_number(&kv, "splash-time", 0xffff, &wait, "-boot", o->err) &&
         keyval_number(&kv, "reboot-timeout", 0xffff, &timeout, "-boot", o->err);
    if (ok) {
        boot->given = true;
        set_string(&boot->order, order);
        set_string(&boot->once, once);
        if (keyval_get(&kv, "splash-time")) {
            boot->menu_wait_given = true;
            boot->menu_wait = (uint16_t)wait;
        }
        if (keyval_get(&kv, "reboot-timeout")) {
            boot->fail_wait_given = true;
            boot->fail_wait = (uint32_t)timeout;
        }
    }
    keyval_free(&kv);
    return ok;
}

/* ---- -fw_cfg --------------------------------------------------------------------------------- */

static bool read_file(const char *path, struct firmware_blob *blob, struct error *err)
{
    enum { MOST = 64 << 20, STEP = 1 << 16 };
    FILE *file = fopen(path, "re");
    if (!file)
        return error_set(err, "-fw_cfg: %s: %s", path, strerror(errno));
    size_t n = 0;
    bool ok = true;
    do {
        uint8_t *more = realloc(blob->bytes, blob->len + STEP);
        ok = more && blob->len < MOST;
        if (!more)
            break;
        blob->bytes = more;
        n = fread(blob->bytes + blob->len, 1, STEP, file);
        blob->len += n;
    } while (ok && n > 0);
    if (ferror(file))
        ok = error_set(err, "-fw_cfg: %s: cannot be read", path);
    else if (!ok)
        error_set(err, "-fw_cfg: %s: longer than 64 MiB", path);
    fclose(file);
    return ok;
}

bool option_fw_cfg(struct options *o, const char *arg)
{
    static const char *const keys[] = {"name", "file", "string", NULL};
    struct machine_config *c = o->config;
    struct keyval kv;
    bool ok = keyval_parse(&kv, arg, "name", "-fw_cfg", o->err) &&
              keyval_only(&kv, keys, "-fw_cfg", o->err);
    const char *name = ok ? keyval_get(&kv, "name") : NULL;
    const char *file = ok ? keyval_get(&kv, "file") : NULL;
    const char *string = ok ? keyval_get(&kv, "string") : NULL;
    if (ok && (!name || !*name || strlen(name) > 55))
        ok = error_set(o->err, "-fw_cfg: needs name=, of 55 characters at most, such as opt/a/b");
    if (ok && !file == !string)
        ok = error_set(o->err, "-fw_cfg: needs either file= or string=");
    if (ok && c->fw_file_count == MACHINE_MAX_FW_FILES)
        ok = error_set(o->err, "-fw_cfg: more than %d files", MACHINE_MAX_FW_FILES);
    if (ok) {
        struct firmware_blob *blob = &c->fw_files[c->fw_file_count++];
        blob->name = copy_string(name);
        if (string) { /* without its NUL, as QEMU has it */
            blob->bytes = (uint8_t *)copy_string(string);
            blob->len = strlen(string);
        } else {
            ok = read_file(file, blob, o->err);
        }
    }
    keyval_free(&kv);
    return ok;
}
