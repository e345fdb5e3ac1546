/*
 * files.h - the files that firmware in the guest reads. Private to firmware/.
 */
#ifndef FIRMWARE_FILES_H
#define FIRMWARE_FILES_H

#include "internal/firmware.h"

/* Hands the bytes, malloc()ed, over. NULL: no memory; what is there is freed by the caller. */
bool add_file(struct firmware_files *files, const char *name, uint8_t *bytes, size_t len,
              struct error *err);
/* A copy of the bytes. */
bool add_copy(struct firmware_files *files, const char *name, const void *bytes, size_t len,
              struct error *err);

bool add_acpi_files(struct firmware_files *files, const struct firmware_config *config,
                    struct error *err);
bool add_smbios_files(struct firmware_files *files, const struct firmware_config *config,
                      struct error *err);

#endif
