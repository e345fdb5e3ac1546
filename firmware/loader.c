/*
 * loader.c - the ACPI tables as files, and the commands by which firmware puts them into memory:
 * allocate a file, add its address to a pointer, make a checksum right (QEMU's linker and loader,
 * "etc/table-loader": commands of 128 bytes, little-endian).
 */
#include "files.h"
#include "internal/error.h"
#include "tables.h"
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#define TABLES_FILE "etc/acpi/tables"
#define RSDP_FILE   "etc/acpi/rsdp"

enum { TABLES_ROOM = 64 << 10, RSDP_SIZE = 36, COMMANDS = 48 };
enum { CMD_ALLOCATE = 1, CMD_ADD_POINTER = 2, CMD_ADD_CHECKSUM = 3 };
enum { ZONE_HIGH = 1, ZONE_FSEG = 2 };
enum { TABLE_CHECKSUM = 9, RSDP_CHECKSUM = 8, RSDP_CHECKSUM_ALL = 32 };

struct command {
    uint32_t kind;
    union {
        struct {
            char file[56];
            uint32_t align;
            uint8_t zone;
        } __attribute__((packed)) allocate;
        struct {
            char dest[56], source[56];
            uint32_t offset;
            uint8_t size;
        } __attribute__((packed)) pointer;
        struct {
            char file[56];
            uint32_t at, start, len;
        } __attribute__((packed)) checksum;
        uint8_t bytes[124];
    };
} __attribute__((packed));
_Static_assert(sizeof(struct command) == 128, "the commands' layout");

struct script {
    struct command command[COMMANDS];
    unsigned count;
};

static struct command *add(struct script *script, uint32_t kind)
{
    struct command *command = &script->command[script->count++];
    command->kind = htole32(kind);
    return command;
}

static void allocate(struct script *script, const char *file, uint32_t align, uint8_t zone)
{
    struct command *command = add(script, CMD_ALLOCATE);
    strcpy(command->allocate.file, file);
    command->allocate.align = htole32(align);
    command->allocate.zone = zone;
}

/* The pointer holds an offset into `TABLES_FILE`. */
static void add_pointer(struct script *script, const char *dest, uint32_t offset, uint8_t size)
{
    struct command *command = add(script, CMD_ADD_POINTER);
    strcpy(command->pointer.dest, dest);
    strcpy(command->pointer.source, TABLES_FILE);
    command->pointer.offset = htole32(offset);
    command->pointer.size = size;
}

static void add_checksum(struct script *script, const char *file, uint32_t at, uint32_t start,
                         uint32_t len)
{
    struct command *command = add(script, CMD_ADD_CHECKSUM);
    strcpy(command->checksum.file, file);
    command->checksum.at = htole32(at);
    command->checksum.start = htole32(start);
    command->checksum.len = htole32(len);
}

_Static_assert(2 + AREA_POINTERS + 2 + AREA_TABLES + 2 <= COMMANDS, "room for all of them");

/* Firmware adds to what a checksum's byte holds, or overwrites it: right in both cases from zero.
 */
static void clear_checksums(struct area *tables, uint8_t *rsdp)
{
    for (unsigned i = 0; i < tables->table_count; i++)
        tables->a.bytes[tables->tables[i].offset + TABLE_CHECKSUM] = 0;
    rsdp[RSDP_CHECKSUM] = rsdp[RSDP_CHECKSUM_ALL] = 0;
}

/* Checksums come last: pointers change the bytes that they are over. */
static void write_script(struct script *script, const struct area *tables)
{
    allocate(script, TABLES_FILE, 64, ZONE_HIGH);
    allocate(script, RSDP_FILE, 16, ZONE_FSEG);
    for (unsigned i = 0; i < tables->pointer_count; i++)
        add_pointer(script, TABLES_FILE, tables->pointers[i].offset, tables->pointers[i].size);
    add_pointer(script, RSDP_FILE, 16, 4);
    add_pointer(script, RSDP_FILE, 24, 8);
    for (unsigned i = 0; i < tables->table_count; i++) {
        uint32_t start = tables->tables[i].offset;
        add_checksum(script, TABLES_FILE, start + TABLE_CHECKSUM, start, tables->tables[i].len);
    }
    add_checksum(script, RSDP_FILE, RSDP_CHECKSUM, 0, 20);
    add_checksum(script, RSDP_FILE, RSDP_CHECKSUM_ALL, 0, RSDP_SIZE);
}

bool add_acpi_files(struct firmware_files *files, const struct firmware_config *config,
                    struct error *err)
{
    uint8_t rsdp_bytes[RSDP_SIZE];
    struct area rsdp = {.a = {.bytes = rsdp_bytes, .room = sizeof(rsdp_bytes)}};
    struct area tables = {.a = {.bytes = calloc(1, TABLES_ROOM), .room = TABLES_ROOM}};
    struct script script = {.count = 0};
    struct acpi_roots roots;
    if (!tables.a.bytes)
        return error_set(err, "no host memory for the ACPI tables");
    acpi_tables(&tables, config, &roots);
    acpi_rsdp(&rsdp, &roots);
    if (tables.a.full || tables.a.depth || rsdp.a.full) {
        free(tables.a.bytes);
        return error_set(err, "the ACPI tables are longer than %d KiB", TABLES_ROOM >> 10);
    }
    clear_checksums(&tables, rsdp_bytes);
    write_script(&script, &tables);
    return add_file(files, TABLES_FILE, tables.a.bytes, tables.a.len, err) &&
           add_copy(files, RSDP_FILE, rsdp_bytes, sizeof(rsdp_bytes), err) &&
           add_copy(files, "etc/table-loader", script.command,
                    script.count * sizeof(script.command[0]), err);
}
