/*
 * files.c - what firmware in the guest is told through fw_cfg: the memory map, and the files of
 * loader.c and smbios.c.
 */
#include "files.h"
#include "internal/error.h"
#include <endian.h>
#include <stdlib.h>
#include <string.h>

bool add_file(struct firmware_files *files, const char *name, uint8_t *bytes, size_t len,
              struct error *err)
{
    if (!bytes || files->count == FIRMWARE_FILES_MAX) {
        free(bytes);
        return error_set(err, "no host memory for %s", name);
    }
    files->file[files->count++] = (struct firmware_file){name, bytes, len};
    return true;
}

bool add_copy(struct firmware_files *files, const char *name, const void *bytes, size_t len,
              struct error *err)
{
    uint8_t *copy = malloc(len);
    if (copy)
        memcpy(copy, bytes, len);
    return add_file(files, name, copy, len, err);
}

/* RAM, and what lies at fixed addresses; the BIOS adds its own and what is always there. Each
 * entry: address and size, 8 bytes, type, 4 (INT 15h E820h). */
static bool add_e820(struct firmware_files *files, const struct firmware_config *config,
                     struct error *err)
{
    const struct memory_range ranges[] = {
        {0, config->ram_low, MEMORY_USABLE},
        {1ull << 32, config->ram_high, MEMORY_USABLE},
        {config->protect, config->protect_end - config->protect, MEMORY_RESERVED},
    };
    uint8_t bytes[sizeof(ranges) / sizeof(ranges[0]) * 20];
    size_t len = 0;
    for (unsigned i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        uint64_t base = htole64(ranges[i].base), size = htole64(ranges[i].size);
        uint32_t type = htole32(ranges[i].type);
        if (!size)
            continue;
        memcpy(bytes + len, &base, 8);
        memcpy(bytes + len + 8, &size, 8);
        memcpy(bytes + len + 16, &type, 4);
        len += 20;
    }
    return add_copy(files, "etc/e820", bytes, len, err);
}

bool firmware_files(const struct firmware_config *config, struct firmware_files *files,
                    struct error *err)
{
    *files = (struct firmware_files){0};
    if (add_e820(files, config, err) && add_acpi_files(files, config, err) &&
        add_smbios_files(files, config, err))
        return true;
    firmware_files_free(files);
    return false;
}

void firmware_files_free(struct firmware_files *files)
{
    for (unsigned i = 0; i < files->count; i++)
        free(files->file[i].bytes);
    files->count = 0;
}
