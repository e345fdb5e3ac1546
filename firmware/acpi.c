/*
 * acpi.c - the ACPI tables of the `pc` machine (ACPI 6.5, chapter 5): RSDP, RSDT, XSDT, FADT, FACS,
 * MADT, HPET, and the frame of the DSDT. They lie in the BIOS area, where an operating system
 * without any other hint searches for the RSDP (5.2.5.1), or where firmware puts them (loader.c).
 */
#include "internal/error.h"
#include "tables.h"
#include <string.h>

enum { HEADER_SIZE = 36, CHECKSUM_AT = 9, FACS_SIZE = 64, FADT_SIZE = 244, RSDP_SIZE = 36 };

void area_align(struct area *area, unsigned align)
{
    while (area->a.len % align && !area->a.full)
        aml_byte(&area->a, 0);
}

void area_checksum(uint8_t *bytes, size_t len, size_t at)
{
    uint8_t sum = 0;
    bytes[at] = 0;
    for (size_t i = 0; i < len; i++)
        sum = (uint8_t)(sum + bytes[i]);
    bytes[at] = (uint8_t)-sum;
}

static void text(struct aml *a, const char *s, unsigned len)
{
    for (unsigned i = 0; i < len; i++)
        aml_byte(a, (uint8_t)(*s ? *s++ : ' '));
}

/* A system description header (5.2.6); end_table() fills in length and checksum. */
static size_t begin_table(struct area *area, const char *signature, uint8_t revision)
{
    area_align(area, 16);
    size_t at = area->a.len;
    text(&area->a, signature, 4);
    aml_little(&area->a, 0, 4);
    aml_byte(&area->a, revision);
    aml_byte(&area->a, 0);
    text(&area->a, "BAILEY", 6);
    text(&area->a, "BAILEYPC", 8);
    aml_little(&area->a, 1, 4);
    text(&area->a, "BLEY", 4);
    aml_little(&area->a, 1, 4);
    return at;
}

static uint32_t end_table(struct area *area, size_t at)
{
    uint8_t *table = area->a.bytes + at;
    uint32_t len = (uint32_t)(area->a.len - at);
    if (area->a.full)
        return 0;
    memcpy(table + 4, &len, 4);
    area_checksum(table, len, CHECKSUM_AT);
    if (area->table_count < AREA_TABLES)
        area->tables[area->table_count++] = (struct area_table){(uint32_t)at, len};
    else
        area->a.full = true;
    return area->base + (uint32_t)at;
}

/* `size` bytes at `offset` hold an address inside the area. */
static void note_pointer(struct area *area, size_t offset, unsigned size)
{
    if (area->pointer_count < AREA_POINTERS)
        area->pointers[area->pointer_count++] =
            (struct area_pointer){(uint32_t)offset, (uint8_t)size};
    else
        area->a.full = true;
}

/* 5.2.10. Its lock and waking vector are the guest's to write: the area is RAM. */
static uint32_t add_facs(struct area *area)
{
    area_align(area, 64);
    uint32_t gpa = area_gpa(area);
    text(&area->a, "FACS", 4);
    aml_little(&area->a, FACS_SIZE, 4);
    for (unsigned i = 8; i < FACS_SIZE; i++)
        aml_byte(&area->a, i == 32 ? 1 : 0); /* version */
    return gpa;
}

static uint32_t add_dsdt(struct area *area, const struct firmware_config *config)
{
    size_t at = begin_table(area, "DSDT", 2); /* 2: integers are 64 bits wide */
    dsdt_body(&area->a, config);
    return end_table(area, at);
}

/* ---- FADT (5.2.9) ---------------------------------------------------------------------------- */

enum {
    FADT_WBINVD = 1 << 0,
    FADT_PROC_C1 = 1 << 2,
    FADT_SLP_BUTTON = 1 << 5, /* no fixed sleep button */
    FADT_FIX_RTC = 1 << 6,    /* no RTC wake status */
    FADT_RESET_REG = 1 << 10,
    BOOT_LEGACY_DEVICES = 1 << 0,
    BOOT_8042 = 1 << 1,
    BOOT_NO_VGA = 1 << 2,
};

/* A generic address structure (5.2.3.2) for an I/O register block; all zero when there is none. */
static void put_io(uint8_t *p, uint16_t port, unsigned bytes, unsigned access)
{
    if (!port)
        return;
    p[0] = 1; /* system I/O */
    p[1] = (uint8_t)(bytes * 8);
    p[3] = (uint8_t)access; /* 1 byte, 2 word, 3 dword */
    memcpy(p + 4, &port, 2);
}

static uint32_t add_fadt(struct area *area, const struct firmware_config *config, uint32_t facs,
                         uint32_t dsdt)
{
    size_t at = begin_table(area, "FACP", 3);
    uint8_t t[FADT_SIZE] = {0};
    uint16_t pm = config->pm_base, timer = (uint16_t)(pm + 8), control = (uint16_t)(pm + 4);
    uint16_t sci = config->sci_irq, boot = BOOT_LEGACY_DEVICES | BOOT_8042, none = 0xfff;
    uint32_t flags = FADT_WBINVD | FADT_PROC_C1 | FADT_SLP_BUTTON | FADT_FIX_RTC;

    if (!config->has_vga)
        boot |= BOOT_NO_VGA;
    memcpy(t + 36, &facs, 4);
    memcpy(t + 40, &dsdt, 4);
    memcpy(t + 46, &sci, 2);
    memcpy(t + 48, &config->smi_cmd, 2);
    t[52] = config->acpi_enable;
    t[53] = config->acpi_disable;
    memcpy(t + 56, &pm, 2);
    memcpy(t + 64, &control, 2);
    memcpy(t + 76, &timer, 2);
    memcpy(t + 80, &config->gpe_base, 2);
    t[88] = 4;
    t[89] = 2;
    t[91] = 4;
    t[92] = config->gpe_base ? 4 : 0;
    memcpy(t + 96, &none, 2); /* no C2, no C3 */
    memcpy(t + 98, &none, 2);
    t[108] = config->cmos_century;
    memcpy(t + 109, &boot, 2);
    if (config->reset_port) {
        flags |= FADT_RESET_REG;
        put_io(t + 116, config->reset_port, 1, 1);
        t[128] = config->reset_value;
    }
    memcpy(t + 112, &flags, 4);
    memcpy(t + 140, &dsdt, 4);
    put_io(t + 148, pm, 4, 2);
    put_io(t + 172, control, 2, 2);
    put_io(t + 208, timer, 4, 3);
    put_io(t + 220, config->gpe_base, 4, 1);
    for (unsigned i = HEADER_SIZE; i < FADT_SIZE; i++)
        aml_byte(&area->a, t[i]);
    note_pointer(area, at + 36, 4);
    note_pointer(area, at + 40, 4);
    note_pointer(area, at + 140, 8);
    return end_table(area, at);
}

/* ---- MADT (5.2.12) --------------------------------------------------------------------------- */

enum { ACTIVE_HIGH = 1, LEVEL = 3 << 2 };

static void add_override(struct aml *a, unsigned irq, unsigned gsi, unsigned flags)
{
    aml_little(a, 0x0a02, 2); /* type 2, 10 bytes */
    aml_byte(a, 0);           /* ISA */
    aml_byte(a, (uint8_t)irq);
    aml_little(a, gsi, 4);
    aml_little(a, flags, 2);
}

static void add_local_apic(struct aml *a, unsigned id)
{
    if (id < 255) {
        aml_little(a, 0x0800, 2); /* type 0, 8 bytes */
        aml_byte(a, (uint8_t)id); /* processor UID */
        aml_byte(a, (uint8_t)id);
        aml_little(a, 1, 4); /* enabled */
        return;
    }
    aml_little(a, 0x1009, 2); /* type 9, 16 bytes: x2APIC */
    aml_little(a, 0, 2);
    aml_little(a, id, 4);
    aml_little(a, 1, 4);
    aml_little(a, id, 4);
}

static uint32_t add_madt(struct area *area, const struct firmware_config *config)
{
    struct aml *a = &area->a;
    size_t at = begin_table(area, "APIC", 3);
    aml_little(a, config->lapic_base, 4);
    aml_little(a, 1, 4); /* PCAT_COMPAT: there are 8259As */
    for (unsigned i = 0; i < config->vcpus; i++)
        add_local_apic(a, i);
    aml_little(a, 0x0c01, 2); /* type 1, 12 bytes: I/O APIC */
    aml_byte(a, config->ioapic_id);
    aml_byte(a, 0);
    aml_little(a, config->ioapic_base, 4);
    aml_little(a, 0, 4); /* first GSI */
    add_override(a, 0, 2, 0);
    for (unsigned irq = 0; irq < 16; irq++)
        if (config->level_irqs >> irq & 1)
            add_override(a, irq, irq, ACTIVE_HIGH | LEVEL);
    aml_little(a, 0x0604, 2); /* type 4, 6 bytes: NMI on LINT1 of all */
    aml_byte(a, 0xff);
    aml_little(a, 0, 2);
    aml_byte(a, 1);
    return end_table(area, at);
}

/* IA-PC HPET Specification 1.0a, 3.2.4. */
static uint32_t add_hpet(struct area *area, const struct firmware_config *config)
{
    size_t at = begin_table(area, "HPET", 1);
    aml_little(&area->a, config->hpet_id, 4);
    aml_little(&area->a, 0, 4); /* generic address: memory */
    aml_little(&area->a, config->hpet_base, 8);
    aml_byte(&area->a, 0);      /* the first one */
    aml_little(&area->a, 0, 2); /* no minimum tick for periodic mode */
    aml_byte(&area->a, 0);
    return end_table(area, at);
}

/* ---- Roots ----------------------------------------------------------------------------------- */

static uint32_t add_root(struct area *area, const char *signature, unsigned width,
                         const uint32_t *tables, unsigned count)
{
    size_t at = begin_table(area, signature, 1);
    for (unsigned i = 0; i < count; i++) {
        note_pointer(area, area->a.len, width);
        aml_little(&area->a, tables[i], width);
    }
    return end_table(area, at);
}

/* 5.2.5.3: checksums over the first 20 bytes and over all. */
void acpi_rsdp(struct area *area, const struct acpi_roots *roots)
{
    area_align(area, 16);
    uint8_t *p = area->a.bytes + area->a.len;
    text(&area->a, "RSD PTR ", 8);
    aml_byte(&area->a, 0);
    text(&area->a, "BAILEY", 6);
    aml_byte(&area->a, 2);
    aml_little(&area->a, roots->rsdt, 4);
    aml_little(&area->a, RSDP_SIZE, 4);
    aml_little(&area->a, roots->xsdt, 8);
    aml_little(&area->a, 0, 4);
    if (!area->a.full) {
        area_checksum(p, 20, 8);
        area_checksum(p, RSDP_SIZE, 32);
    }
}

void acpi_tables(struct area *area, const struct firmware_config *config, struct acpi_roots *roots)
{
    uint32_t facs = add_facs(area);
    uint32_t dsdt = add_dsdt(area, config);
    uint32_t tables[3];
    unsigned count = 0;
    tables[count++] = add_fadt(area, config, facs, dsdt);
    tables[count++] = add_madt(area, config);
    if (config->hpet_base)
        tables[count++] = add_hpet(area, config);
    roots->rsdt = add_root(area, "RSDT", 4, tables, count);
    roots->xsdt = add_root(area, "XSDT", 8, tables, count);
}

bool firmware_build(const struct firmware_config *config, uint8_t *bytes, uint64_t *rsdp,
                    struct error *err)
{
    struct area area = {.a = {.bytes = bytes, .room = SMBIOS_ANCHOR - FIRMWARE_AREA},
                        .base = FIRMWARE_AREA};
    struct acpi_roots roots;
    memset(bytes, 0, FIRMWARE_AREA_END - FIRMWARE_AREA);
    acpi_tables(&area, config, &roots);
    area_align(&area, 16);
    *rsdp = area_gpa(&area);
    acpi_rsdp(&area, &roots);
    mp_table(&area, config);
    if (area.a.full || area.a.depth)
        return error_set(err, "the ACPI tables do not fit below 1 MiB");
    return smbios_place(config, bytes, err);
}
