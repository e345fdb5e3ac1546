/*
 * test_tables.c - the ACPI and MP tables as an operating system would find and check them, and,
 * where iasl is installed, as ACPICA's compiler reads them.
 */
#include "internal/error.h"
#include "internal/firmware.h"
#include "internal/smbios.h"
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static uint8_t area[FIRMWARE_AREA_END - FIRMWARE_AREA];
static uint64_t rsdp;

static struct firmware_config config(unsigned vcpus)
{
    return (struct firmware_config){
        .ram_low = 512 << 20,
        .vcpus = vcpus,
        .lapic_base = 0xfee00000,
        .ioapic_base = 0xfec00000,
        .sci_irq = 9,
        .pm_base = 0x600,
        .gpe_base = 0xafe0,
        .smi_cmd = 0xb2,
        .acpi_enable = 0xf1,
        .acpi_disable = 0xf0,
        .s5_type = 5,
        .reset_port = 0xcf9,
        .reset_value = 6,
        .hpet_base = 0xfed00000,
        .hpet_id = 0x8086a201,
        .cmos_century = 0x32,
        .protect = 0xfef00000,
        .protect_end = 0xfef90000,
        .pci_hole = 0xe0000000,
        .pci_hole_end = 0xfec00000,
        .pci_hole64 = 1ull << 39,
        .pci_hole64_end = 1ull << 40,
        .pirq = {10, 10, 11, 11},
        .level_irqs = 0xe00,
        .has_serial = {true, true, false, true},
        .has_floppy = true,
        .has_panic = true,
        .panic_port = 0x505,
    };
}

static void build(unsigned vcpus)
{
    struct firmware_config c = config(vcpus);
    struct error err;
    ck_assert_msg(firmware_build(&c, area, &rsdp, &err), "%s", err.msg);
}

static const uint8_t *at(uint64_t gpa)
{
    ck_assert_uint_ge(gpa, FIRMWARE_AREA);
    ck_assert_uint_lt(gpa, FIRMWARE_AREA_END);
    return area + (gpa - FIRMWARE_AREA);
}

static uint32_t le(const uint8_t *p, unsigned bytes)
{
    uint32_t v = 0;
    memcpy(&v, p, bytes);
    return v;
}

static unsigned sum(const uint8_t *p, size_t len)
{
    uint8_t s = 0;
    while (len--)
        s = (uint8_t)(s + *p++);
    return s;
}

/* The table with this signature, as the XSDT (or the RSDT) lists it, its checksum verified. */
static const uint8_t *table(const char *signature, bool extended)
{
    const uint8_t *r = at(rsdp);
    ck_assert_mem_eq(r, "RSD PTR ", 8);
    const uint8_t *root = at(extended ? le(r + 24, 4) : le(r + 16, 4));
    ck_assert_mem_eq(root, extended ? "XSDT" : "RSDT", 4);
    ck_assert_uint_eq(sum(root, le(root + 4, 4)), 0);
    unsigned width = extended ? 8 : 4;
    for (uint32_t i = 36; i < le(root + 4, 4); i += width) {
        const uint8_t *t = at(le(root + i, 4));
        ck_assert_uint_eq(sum(t, le(t + 4, 4)), 0);
        if (memcmp(t, signature, 4) == 0)
            return t;
    }
    return NULL;
}

START_TEST(the_roots_are_sound)
{
    build(4);
    ck_assert_uint_eq(rsdp % 16, 0);
    ck_assert_uint_eq(sum(at(rsdp), 20), 0);
    ck_assert_uint_eq(sum(at(rsdp), 36), 0);
    for (int extended = 0; extended < 2; extended++) {
        ck_assert_ptr_nonnull(table("FACP", extended));
        ck_assert_ptr_nonnull(table("APIC", extended));
    }
}
END_TEST

START_TEST(the_fadt_names_the_ports)
{
    build(1);
    const uint8_t *t = table("FACP", true);
    ck_assert_uint_eq(le(t + 46, 2), 9);
    ck_assert_uint_eq(le(t + 48, 4), 0xb2);
    ck_assert_uint_eq(le(t + 56, 4), 0x600);
    ck_assert_uint_eq(le(t + 64, 4), 0x604);
    ck_assert_uint_eq(le(t + 76, 4), 0x608);
    ck_assert_uint_eq(le(t + 116, 1), 1);
    ck_assert_uint_eq(le(t + 120, 4), 0xcf9);
    ck_assert_uint_eq(t[128], 6);
    ck_assert_uint_eq(le(t + 112, 4) >> 10 & 1, 1);
    ck_assert_uint_eq(le(t + 148 + 4, 4), 0x600);
    ck_assert_uint_eq(le(t + 40, 4), le(t + 140, 4));
    const uint8_t *facs = at(le(t + 36, 4));
    ck_assert_mem_eq(facs, "FACS", 4);
    ck_assert_uint_eq(le(t + 36, 4) % 64, 0);
    const uint8_t *dsdt = at(le(t + 40, 4));
    ck_assert_mem_eq(dsdt, "DSDT", 4);
    ck_assert_uint_eq(sum(dsdt, le(dsdt + 4, 4)), 0);
}
END_TEST

/* How many entries of this type, and the last one. */
static unsigned madt_entries(uint8_t type, const uint8_t **last)
{
    const uint8_t *t = table("APIC", true);
    unsigned n = 0;
    for (uint32_t i = 44; i < le(t + 4, 4); i += t[i + 1]) {
        ck_assert_uint_gt(t[i + 1], 1);
        if (t[i] == type) {
            *last = t + i;
            n++;
        }
    }
    return n;
}

START_TEST(the_madt_lists_the_processors)
{
    const uint8_t *e;
    for (unsigned n = 1; n <= 8; n++) {
        build(n);
        ck_assert_uint_eq(madt_entries(0, &e), n);
        ck_assert_uint_eq(e[3], n - 1);
    }
    ck_assert_uint_eq(madt_entries(1, &e), 1);
    ck_assert_uint_eq(le(e + 4, 4), 0xfec00000);
    ck_assert_uint_eq(madt_entries(2, &e), 4); /* 0 -> 2, and 9, 10, 11 level */
    ck_assert_uint_eq(e[3], 11);
    ck_assert_uint_eq(le(e + 8, 2), 0xd);
    build(300);
    ck_assert_uint_eq(madt_entries(0, &e), 255);
    ck_assert_uint_eq(madt_entries(9, &e), 45);
    ck_assert_uint_eq(le(e + 4, 4), 299);
}
END_TEST

START_TEST(the_mp_table_is_sound)
{
    build(3);
    const uint8_t *f = NULL;
    for (uint64_t gpa = 0xf0000; gpa < FIRMWARE_AREA_END && !f; gpa += 16)
        if (memcmp(at(gpa), "_MP_", 4) == 0)
            f = at(gpa);
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(sum(f, 16), 0);
    const uint8_t *t = at(le(f + 4, 4)), *e = t + 44;
    ck_assert_mem_eq(t, "PCMP", 4);
    ck_assert_uint_eq(sum(t, le(t + 4, 2)), 0);
    unsigned count[5] = {0};
    for (unsigned i = 0; i < le(t + 34, 2); i++) {
        ck_assert_uint_lt(*e, 5);
        count[*e]++;
        e += *e ? 8 : 20;
    }
    ck_assert_ptr_eq(e, t + le(t + 4, 2));
    ck_assert_uint_eq(count[0], 3);
    ck_assert_uint_eq(count[1], 2);
    ck_assert_uint_eq(count[2], 1);
    ck_assert_uint_eq(count[4], 2);
}
END_TEST

START_TEST(too_many_processors_do_not_fit)
{
    struct firmware_config c = config(9000);
    struct error err;
    ck_assert(!firmware_build(&c, area, &rsdp, &err));
}
END_TEST

/* Disassembles a table and compiles the result; true when neither step finds an error. */
static bool iasl_likes(const char *dir, const uint8_t *t)
{
    char name[5] = {0}, path[128], command[512];
    memcpy(name, t, 4);
    snprintf(path, sizeof(path), "%s/%s.dat", dir, name);
    FILE *file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    fwrite(t, 1, le(t + 4, 4), file);
    fclose(file);
    snprintf(command, sizeof(command),
             "cd %s && iasl -d %s.dat >%s.log 2>&1 && iasl %s.dsl >>%s.log 2>&1 && "
             "! grep -E 'Error  |Invalid|Incorrect|[1-9][0-9]* Errors' %s.log %s.dsl",
             dir, name, name, name, name, name, name);
    return system(command) == 0;
}

/* How many lines of the disassembled DSDT match. */
static unsigned lines_of_dsdt(const char *dir, const char *pattern)
{
    char command[256];
    unsigned n = 0;
    snprintf(command, sizeof(command), "grep -c '%s' %s/DSDT.dsl", pattern, dir);
    FILE *pipe = popen(command, "r");
    ck_assert_ptr_nonnull(pipe);
    ck_assert_int_eq(fscanf(pipe, "%u", &n), 1);
    pclose(pipe);
    return n;
}

START_TEST(acpica_reads_them)
{
    char dir[] = "/tmp/bailey-acpi-XXXXXX", command[64];
    if (system("command -v iasl >/dev/null") != 0) {
        printf("skipped: iasl is not installed\n");
        return;
    }
    ck_assert_ptr_nonnull(mkdtemp(dir));
    build(8);
    const uint8_t *fadt = table("FACP", true);
    ck_assert(iasl_likes(dir, at(le(fadt + 40, 4))));
    ck_assert(iasl_likes(dir, fadt));
    ck_assert(iasl_likes(dir, table("APIC", true)));
    ck_assert(iasl_likes(dir, table("HPET", true)));
    ck_assert(iasl_likes(dir, at(le(fadt + 36, 4))));
    ck_assert_uint_eq(lines_of_dsdt(dir, "COM4"), 1);
    ck_assert_uint_eq(lines_of_dsdt(dir, "PNP0C02"), 1);
    ck_assert_uint_eq(lines_of_dsdt(dir, "PNP0303"), 1);
    ck_assert_uint_eq(lines_of_dsdt(dir, "PNP0F13"), 1);
    ck_assert_uint_eq(lines_of_dsdt(dir, "PNP0700"), 1);
    ck_assert_uint_eq(lines_of_dsdt(dir, "DMA (Compatibility, NotBusMaster, Transfer8"), 1);
    ck_assert_uint_eq(lines_of_dsdt(dir, "Memory32Fixed (ReadWrite"), 1);
    ck_assert_uint_eq(lines_of_dsdt(dir, "0xFEF00000,  *// Address Base"), 1);
    ck_assert_uint_eq(lines_of_dsdt(dir, "0x00090000,  *// Address Length"), 1);
    snprintf(command, sizeof(command), "rm -r %s", dir);
    ck_assert_int_eq(system(command), 0);
}
END_TEST

START_TEST(the_memory_map_is_ascending_and_disjoint)
{
    static const struct {
        uint64_t low, high, protect, protect_end;
    } sizes[] = {{1 << 20, 0, 0, 0},
                 {128 << 20, 0, 0xfef00000, 0xfef90000},
                 {3ull << 30, 3ull << 30, 0, 0},
                 {3ull << 30, 3ull << 30, 0xfef00000, 0xfef90000}};
    for (unsigned i = 0; i < 4; i++) {
        struct firmware_config c = {.ram_low = sizes[i].low,
                                    .ram_high = sizes[i].high,
                                    .protect = sizes[i].protect,
                                    .protect_end = sizes[i].protect_end};
        struct memory_map map;
        uint64_t usable = 0, end = 0, reserved = 0;
        firmware_memory_map(&c, &map);
        for (unsigned k = 0; k < map.count; k++) {
            ck_assert_uint_ge(map.range[k].base, end);
            ck_assert_uint_gt(map.range[k].size, 0);
            end = map.range[k].base + map.range[k].size;
            usable += map.range[k].type == MEMORY_USABLE ? map.range[k].size : 0;
            if (map.range[k].type == MEMORY_RESERVED && map.range[k].base >= 1 << 20)
                reserved += map.range[k].base == c.protect ? map.range[k].size : 1;
        }
        ck_assert_uint_eq(usable, sizes[i].low + sizes[i].high - (1 << 20) + FIRMWARE_EBDA);
        ck_assert_uint_eq(reserved, c.protect_end - c.protect);
        ck_assert_uint_eq(end, sizes[i].high      ? (4ull << 30) + sizes[i].high
                               : sizes[i].protect ? sizes[i].protect_end
                                                  : sizes[i].low);
    }
}
END_TEST

START_TEST(the_demo_is_an_elf_file)
{
    size_t len;
    const void *demo = firmware_demo(&len);
    ck_assert_uint_gt(len, 1000);
    ck_assert_mem_eq(demo, "\177ELF", 4);
}
END_TEST

/* ---- For a firmware in the guest ------------------------------------------------------------- */

static const struct firmware_file *find(const struct firmware_files *files, const char *name)
{
    for (unsigned i = 0; i < files->count; i++)
        if (strcmp(files->file[i].name, name) == 0)
            return &files->file[i];
    ck_abort_msg("no %s", name);
}

/* Does what the commands say, as firmware would, with the tables at one address and the RSDP at
 * another, and looks at the result. */
START_TEST(the_commands_put_the_tables_in_place)
{
    enum { TABLES = 0x7fe1000, RSDP = 0xf1230, ALLOCATE = 1, POINTER = 2, CHECKSUM = 3 };
    struct firmware_config c = config(2);
    struct firmware_files files;
    struct error err;
    ck_assert_msg(firmware_files(&c, &files, &err), "%s", err.msg);
    const struct firmware_file *loader = find(&files, "etc/table-loader");
    uint8_t *tables = find(&files, "etc/acpi/tables")->bytes;
    uint8_t *root = find(&files, "etc/acpi/rsdp")->bytes;
    ck_assert_uint_eq(find(&files, "etc/acpi/rsdp")->len, 36);
    ck_assert_uint_eq(loader->len % 128, 0);
    for (const uint8_t *cmd = loader->bytes; cmd < loader->bytes + loader->len; cmd += 128) {
        bool in_tables = strcmp((const char *)cmd + 4, "etc/acpi/tables") == 0;
        uint8_t *file = in_tables ? tables : root;
        if (le(cmd, 4) == POINTER) {
            ck_assert_str_eq((const char *)cmd + 60, "etc/acpi/tables");
            uint64_t value = 0;
            memcpy(&value, file + le(cmd + 116, 4), cmd[120]);
            value += TABLES;
            memcpy(file + le(cmd + 116, 4), &value, cmd[120]);
        } else if (le(cmd, 4) == CHECKSUM) {
            uint8_t *at = file + le(cmd + 60, 4);
            ck_assert_msg(*at == 0, "some firmware does not take the old value off");
            *at = (uint8_t)(*at - sum(file + le(cmd + 64, 4), le(cmd + 68, 4)));
        } else {
            ck_assert_uint_eq(le(cmd, 4), ALLOCATE);
        }
    }
    ck_assert_uint_eq(sum(root, 20), 0);
    ck_assert_uint_eq(sum(root, 36), 0);
    const uint8_t *xsdt = tables + (le(root + 24, 4) - TABLES), *fadt = NULL;
    ck_assert_mem_eq(xsdt, "XSDT", 4);
    for (unsigned i = 36; i < le(xsdt + 4, 4); i += 8) {
        const uint8_t *t = tables + (le(xsdt + i, 4) - TABLES);
        ck_assert_uint_eq(sum(t, le(t + 4, 4)), 0);
        if (memcmp(t, "FACP", 4) == 0)
            fadt = t;
    }
    ck_assert_ptr_nonnull(fadt);
    ck_assert_mem_eq(tables + (le(fadt + 36, 4) - TABLES), "FACS", 4);
    ck_assert_mem_eq(tables + (le(fadt + 40, 4) - TABLES), "DSDT", 4);
    ck_assert_uint_eq(le(fadt + 40, 4), le(fadt + 140, 4));
    firmware_files_free(&files);
}
END_TEST

/* The structures follow one another to the end, and the anchor's counts are theirs. */
START_TEST(the_smbios_tables_are_sound)
{
    struct firmware_config c = config(3);
    struct firmware_files files;
    struct error err;
    ck_assert_msg(firmware_files(&c, &files, &err), "%s", err.msg);
    const struct firmware_file *t = find(&files, "etc/smbios/smbios-tables");
    const uint8_t *anchor = find(&files, "etc/smbios/smbios-anchor")->bytes, *p = t->bytes;
    unsigned count = 0, processors = 0, biggest = 0;
    while (p < t->bytes + t->len) {
        const uint8_t *start = p;
        uint8_t type = p[0];
        ck_assert_uint_ge(p[1], 4);
        processors += type == 4;
        count++;
        for (p += p[1]; p[0] || p[1]; p++)
            ck_assert(p + 2 < t->bytes + t->len);
        p += 2;
        if ((unsigned)(p - start) > biggest)
            biggest = (unsigned)(p - start);
        ck_assert_int_eq(type == 127, p == t->bytes + t->len);
    }
    ck_assert_uint_eq(processors, 3);
    ck_assert_mem_eq(anchor, "_SM_", 4);
    ck_assert_uint_eq(le(anchor + 8, 2), biggest);
    ck_assert_uint_eq(le(anchor + 22, 2), t->len);
    ck_assert_uint_eq(le(anchor + 28, 2), count);
    firmware_files_free(&files);
}
END_TEST

/* The structure of this type, or NULL. */
static const uint8_t *structure(const uint8_t *p, const uint8_t *end, uint8_t type)
{
    while (p < end && p[0] != type) {
        for (p += p[1]; p[0] || p[1]; p++)
            ;
        p += 2;
    }
    return p < end ? p : NULL;
}

/* String `n` of a structure. */
static const char *text(const uint8_t *structure, unsigned n)
{
    const char *at = (const char *)structure + structure[1];
    ck_assert_uint_ne(n, 0);
    while (--n)
        at += strlen(at) + 1;
    return at;
}

START_TEST(smbios_says_what_the_user_says)
{
    struct smbios_config said = {
        .text = {[SMBIOS_BIOS_VENDOR] = "V",
                 [SMBIOS_BIOS_DATE] = "D",
                 [SMBIOS_SYSTEM_SERIAL] = "ds=nocloud",
                 [SMBIOS_BOARD_LOCATION] = "L",
                 [SMBIOS_CHASSIS_SKU] = "K"},
        .bios = true,
        .board = true,
        .uefi = true,
        .release = {1, 2},
        .has_uuid = true,
        .uuid = {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa},
        .oem = {"one", "two"},
        .oem_count = 2,
    };
    static const uint8_t uuid[16] = {0x33, 0x22, 0x11, 0x00, 0x55, 0x44,
                                     0x77, 0x66, 0x88, 0x99, 0xaa};
    struct firmware_config c = config(1);
    struct error err;
    c.smbios = &said;
    ck_assert_msg(firmware_build(&c, area, &rsdp, &err), "%s", err.msg);
    const uint8_t *anchor = area;
    while (memcmp(anchor, "_SM_", 4) != 0)
        anchor += 16;
    ck_assert_uint_ge(anchor - area, 0xf0000 - FIRMWARE_AREA);
    ck_assert_uint_eq(sum(anchor, anchor[5]), 0);
    ck_assert_uint_eq(sum(anchor + 16, 15), 0);
    const uint8_t *p = at(le(anchor + 24, 4)), *end = p + le(anchor + 22, 2);
    const uint8_t *bios = structure(p, end, 0), *system = structure(p, end, 1);
    const uint8_t *board = structure(p, end, 2), *oem = structure(p, end, 11);
    ck_assert(bios && system && board && oem);
    ck_assert_uint_eq(bios[1], 0x18);
    ck_assert_str_eq(text(bios, bios[4]), "V");
    ck_assert_uint_eq(bios[5], 0);
    ck_assert_str_eq(text(bios, bios[8]), "D");
    ck_assert_uint_eq(bios[0x13] & 8, 8);
    ck_assert_uint_eq(bios[0x14], 1);
    ck_assert_uint_eq(bios[0x15], 2);
    ck_assert_uint_eq(system[1], 0x1b);
    ck_assert_str_eq(text(system, system[4]), "Bailey");
    ck_assert_str_eq(text(system, system[7]), "ds=nocloud");
    ck_assert_mem_eq(system + 8, uuid, 16);
    ck_assert_uint_eq(board[1], 0x0f);
    ck_assert_str_eq(text(board, board[10]), "L");
    ck_assert_str_eq(text(structure(p, end, 3), structure(p, end, 3)[0x15]), "K");
    ck_assert_uint_eq(oem[4], 2);
    ck_assert_str_eq(text(oem, 2), "two");
    char *huge = calloc(1, 40000);
    memset(huge, 'x', 39999);
    said.oem[0] = huge;
    ck_assert(!firmware_build(&c, area, &rsdp, &err));
    ck_assert_str_eq(err.msg, "-smbios: the tables would be longer than 32768 bytes");
    free(huge);
}
END_TEST

/* As a BIOS checks it (BIOS Boot Specification 1.01, 3.3; Plug and Play BIOS Specification, 3.2).
 */
START_TEST(the_option_rom_is_sound)
{
    uint8_t rom[FIRMWARE_KERNEL_ROM];
    firmware_kernel_rom(rom);
    ck_assert_uint_eq(le(rom, 2), 0xaa55);
    ck_assert_uint_eq(rom[2] * 512u, sizeof(rom));
    ck_assert_uint_eq(sum(rom, sizeof(rom)), 0);
    const uint8_t *pnp = rom + le(rom + 0x1a, 2);
    ck_assert_mem_eq(pnp, "$PnP", 4);
    ck_assert_uint_eq(sum(pnp, pnp[5] * 16u), 0);
    ck_assert_uint_lt(le(pnp + 0x1a, 2), sizeof(rom)); /* where to boot */
    ck_assert_str_eq((const char *)rom + le(pnp + 0x10, 2), "-kernel");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tables");
    TCase *t = tcase_create("tables");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, the_roots_are_sound);
    tcase_add_test(t, the_fadt_names_the_ports);
    tcase_add_test(t, the_madt_lists_the_processors);
    tcase_add_test(t, the_mp_table_is_sound);
    tcase_add_test(t, too_many_processors_do_not_fit);
    tcase_add_test(t, acpica_reads_them);
    tcase_add_test(t, the_memory_map_is_ascending_and_disjoint);
    tcase_add_test(t, the_demo_is_an_elf_file);
    tcase_add_test(t, the_commands_put_the_tables_in_place);
    tcase_add_test(t, the_smbios_tables_are_sound);
    tcase_add_test(t, smbios_says_what_the_user_says);
    tcase_add_test(t, the_option_rom_is_sound);
    suite_add_tcase(suite, t);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
