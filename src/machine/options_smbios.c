/*
 * options_smbios.c - -smbios and -uuid: what the machine's SMBIOS tables say of it.
 */
#include "internal/smbios.h"
#include "options.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TYPE_BIOS = 0, TYPE_SYSTEM = 1, TYPE_BOARD = 2, TYPE_CHASSIS = 3, TYPE_OEM = 11 };

static const struct {
    uint8_t type;
    const char *key;
    enum smbios_text text;
} texts[] = {
    {TYPE_BIOS, "vendor", SMBIOS_BIOS_VENDOR},
    {TYPE_BIOS, "version", SMBIOS_BIOS_VERSION},
    {TYPE_BIOS, "date", SMBIOS_BIOS_DATE},
    {TYPE_SYSTEM, "manufacturer", SMBIOS_SYSTEM_MANUFACTURER},
    {TYPE_SYSTEM, "product", SMBIOS_SYSTEM_PRODUCT},
    {TYPE_SYSTEM, "version", SMBIOS_SYSTEM_VERSION},
    {TYPE_SYSTEM, "serial", SMBIOS_SYSTEM_SERIAL},
    {TYPE_SYSTEM, "sku", SMBIOS_SYSTEM_SKU},
    {TYPE_SYSTEM, "family", SMBIOS_SYSTEM_FAMILY},
    {TYPE_BOARD, "manufacturer", SMBIOS_BOARD_MANUFACTURER},
    {TYPE_BOARD, "product", SMBIOS_BOARD_PRODUCT},
    {TYPE_BOARD, "version", SMBIOS_BOARD_VERSION},
    {TYPE_BOARD, "serial", SMBIOS_BOARD_SERIAL},
    {TYPE_BOARD, "asset", SMBIOS_BOARD_ASSET},
    {TYPE_BOARD, "location", SMBIOS_BOARD_LOCATION},
    {TYPE_CHASSIS, "manufacturer", SMBIOS_CHASSIS_MANUFACTURER},
    {TYPE_CHASSIS, "version", SMBIOS_CHASSIS_VERSION},
    {TYPE_CHASSIS, "serial", SMBIOS_CHASSIS_SERIAL},
    {TYPE_CHASSIS, "asset", SMBIOS_CHASSIS_ASSET},
    {TYPE_CHASSIS, "sku", SMBIOS_CHASSIS_SKU},
};
enum { COUNT = sizeof(texts) / sizeof(texts[0]) };

/* Keys that are not texts, by type. */
static const struct {
    uint8_t type;
    const char *key;
} others[] = {{TYPE_BIOS, "release"},
              {TYPE_BIOS, "uefi"},
              {TYPE_SYSTEM, "uuid"},
              {TYPE_OEM, "value"},
              {TYPE_OEM, "path"}};
enum { OTHERS = sizeof(others) / sizeof(others[0]) };

/* "01234567-89ab-cdef-0123-456789abcdef" */
static bool parse_uuid(const char *text, uint8_t uuid[16])
{
    static const char shape[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
    static const char digits[] = "0123456789abcdef0123456789ABCDEF";
    uint8_t parsed[16] = {0};
    unsigned n = 0;
    if (strlen(text) != sizeof(shape) - 1)
        return false;
    for (unsigned i = 0; shape[i]; i++) {
        const char *digit = strchr(digits, text[i]);
        if (shape[i] == '-' ? text[i] != '-' : !digit)
            return false;
        if (shape[i] == '-')
            continue;
        parsed[n / 2] = (uint8_t)(parsed[n / 2] << 4 | ((digit - digits) & 15));
        n++;
    }
    memcpy(uuid, parsed, sizeof(parsed));
    return true;
}

static bool set_uuid(struct options *o, const char *text, const char *what)
{
    struct smbios_config *smbios = &o->config->smbios;
    if (!text)
        return true;
    if (!parse_uuid(text, smbios->uuid))
        return error_set(o->err,
                         "%s: '%s' is no UUID, such as 01234567-89ab-cdef-0123-456789abcdef", what,
                         text);
    return smbios->has_uuid = true;
}

bool option_uuid(struct options *o, const struct option *option, const char *arg)
{
    (void)option;
    return set_uuid(o, arg, "-uuid");
}

static bool set_release(struct options *o, const char *text)
{
    unsigned major, minor;
    char more;
    if (!text)
        return true;
    if (sscanf(text, "%u.%u%c", &major, &minor, &more) != 2 || major > 255 || minor > 255)
        return error_set(o->err, "-smbios: release=%s is no release, such as 1.2 (of 255 at most)",
                         text);
    o->config->smbios.release[0] = (uint8_t)major;
    o->config->smbios.release[1] = (uint8_t)minor;
    return true;
}

static void set_texts(struct smbios_config *smbios, const struct keyval *kv, unsigned type)
{
    for (unsigned i = 0; i < COUNT; i++) {
        const char *value = texts[i].type == type ? keyval_get(kv, texts[i].key) : NULL;
        if (!value)
            continue;
        free(smbios->text[texts[i].text]);
        smbios->text[texts[i].text] = copy_string(value);
    }
}

/* A file's text, up to a byte of zero. */
static char *read_text(const char *path, struct error *err)
{
    enum { MOST = 16 << 10 };
    FILE *file = fopen(path, "re");
    char *text = file ? calloc(1, MOST + 1) : NULL;
    size_t len = text ? fread(text, 1, MOST, file) : 0;
    bool whole = text && !ferror(file) && len < MOST;
    if (!file)
        error_set(err, "-smbios: %s: %s", path, strerror(errno));
    else if (!whole)
        error_set(err, "-smbios: %s: cannot be read, or is longer than 16 KiB", path);
    if (file)
        fclose(file);
    if (!whole) {
        free(text);
        return NULL;
    }
    return text;
}

/* Each value= and path= is another string. */
static bool add_oem_strings(struct options *o, const struct keyval *kv)
{
    struct smbios_config *smbios = &o->config->smbios;
    for (unsigned i = 0; i < kv->count; i++) {
        bool path = strcmp(kv->item[i].key, "path") == 0;
        if (!path && strcmp(kv->item[i].key, "value") != 0)
            continue;
        if (smbios->oem_count == SMBIOS_OEM_STRINGS)
            return error_set(o->err, "-smbios: type=11 has room for %d strings",
                             SMBIOS_OEM_STRINGS);
        char *string = path ? read_text(kv->item[i].value, o->err) : copy_string(kv->item[i].value);
        if (!string)
            return false;
        if (!*string) { /* would end the list */
            free(string);
            return error_set(o->err, "-smbios: a string of type=11 is empty");
        }
        smbios->oem[smbios->oem_count++] = string;
    }
    return true;
}

/* The keys of a type, after "type"; false: there is no such type. */
static bool keys_of(uint64_t type, const char *keys[COUNT + OTHERS + 2])
{
    unsigned n = 0;
    keys[n++] = "type";
    for (unsigned i = 0; i < COUNT; i++)
        if (texts[i].type == type)
            keys[n++] = texts[i].key;
    for (unsigned i = 0; i < OTHERS; i++)
        if (others[i].type == type)
            keys[n++] = others[i].key;
    keys[n] = NULL;
    return n > 1;
}

static bool fill(struct options *o, const struct keyval *kv)
{
    struct smbios_config *smbios = &o->config->smbios;
    const char *keys[COUNT + OTHERS + 2];
    uint64_t type = 0;
    if (keyval_get(kv, "file"))
        return error_set(o->err, "-smbios: file= is not available; type=N,KEY=TEXT is");
    if (!keyval_get(kv, "type"))
        return error_set(o->err, "-smbios: needs type=0, 1, 2, 3 or 11");
    if (!keyval_number(kv, "type", 255, &type, "-smbios", o->err))
        return false;
    if (!keys_of(type, keys))
        return error_set(o->err, "-smbios: type=%u is not available; types 0 to 3 and 11 are",
                         (unsigned)type);
    if (!keyval_only(kv, keys, "-smbios", o->err))
        return false;
    smbios->bios |= type == TYPE_BIOS;
    smbios->board |= type == TYPE_BOARD;
    set_texts(smbios, kv, (unsigned)type);
    return set_uuid(o, keyval_get(kv, "uuid"), "-smbios") &&
           set_release(o, keyval_get(kv, "release")) &&
           keyval_bool(kv, "uefi", &smbios->uefi, "-smbios", o->err) && add_oem_strings(o, kv);
}

bool option_smbios(struct options *o, const struct option *option, const char *arg)
{
    struct keyval kv;
    (void)option;
    bool ok = keyval_parse(&kv, arg, NULL, "-smbios", o->err) && fill(o, &kv);
    keyval_free(&kv);
    return ok;
}

void smbios_config_free(struct smbios_config *smbios)
{
    for (unsigned i = 0; i < SMBIOS_TEXTS; i++)
        free(smbios->text[i]);
    for (unsigned i = 0; i < smbios->oem_count; i++)
        free(smbios->oem[i]);
}
