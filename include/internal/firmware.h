/*
 * firmware.h - what a guest meets first: the memory map, the ACPI tables, the built-in demo guest.
 *
 * firmware/ knows tables, not chips: src/machine says where its chips are. Specifications: ACPI 6.5
 * (tables ch. 5, AML ch. 20), MultiProcessor Specification 1.4.
 */
#ifndef INTERNAL_FIRMWARE_H
#define INTERNAL_FIRMWARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;
struct phys_map;
struct smbios_config;

/* ---- The memory map, as INT 15h E820h would report it ---------------------------------------- */

enum memory_type { MEMORY_USABLE = 1, MEMORY_RESERVED = 2, MEMORY_ACPI = 3, MEMORY_NVS = 4 };

struct memory_range {
    uint64_t base, size; /* bytes */
    uint32_t type;       /* enum memory_type: the numbers of E820h, PVH and multiboot alike */
};
struct memory_map {
    unsigned count;
    struct memory_range range[16]; /* ascending, disjoint */
};

/* ---- What the tables describe ---------------------------------------------------------------- */

struct firmware_config {
    uint64_t ram_low;  /* RAM from 0 up to here (with the legacy hole inside) */
    uint64_t ram_high; /* bytes of RAM from 4 GiB upwards */
    unsigned vcpus;    /* APIC ids 0 .. vcpus - 1 */

    uint32_t lapic_base, ioapic_base;
    uint8_t ioapic_id;
    uint8_t sci_irq;
    uint16_t pm_base;  /* PIIX4 layout: PM1a event +0, control +4, timer +8 */
    uint16_t gpe_base; /* GPE0 block of 4 bytes; 0: none */
    uint16_t smi_cmd;  /* port of the ACPI enable command; 0: always in ACPI mode */
    uint8_t acpi_enable, acpi_disable;
    uint8_t s5_type;     /* SLP_TYP that powers off */
    uint16_t reset_port; /* writing reset_value resets the machine; 0: none */
    uint8_t reset_value;
    uint64_t hpet_base;   /* 0: none */
    uint32_t hpet_id;     /* low half of its capability register */
    uint8_t cmos_century; /* index of the century byte; 0: none */

    uint64_t protect, protect_end;       /* fixed addresses of the protection device; equal: none */
    uint64_t pci_hole, pci_hole_end;     /* memory window for BARs below 4 GiB */
    uint64_t pci_hole64, pci_hole64_end; /* and above; equal: none */
    uint8_t pirq[4];     /* interrupt that each PIRQ line A-D is routed to: PIC input and GSI */
    uint32_t level_irqs; /* mask of ISA interrupts that are level, active high */

    bool has_serial[4]; /* COM1-COM4 at their usual ports and interrupts */
    bool has_vga;
    bool has_floppy; /* the controller has drives */
    bool has_panic;  /* pvpanic at panic_port */
    uint16_t panic_port;
    const struct smbios_config *smbios; /* NULL: nothing is said */
};

/* The tables lie in the BIOS area, which is RAM and reserved in the memory map. */
#define FIRMWARE_AREA     0xe0000u
#define FIRMWARE_AREA_END 0x100000u
#define FIRMWARE_EBDA                                                                              \
    0x9fc00u /* top of conventional memory; the rest of the 640 KiB is reserved                    \
              */

void firmware_memory_map(const struct firmware_config *config, struct memory_map *map);

/* Writes the BIOS data area's few words that operating systems read, the ACPI tables, the MP
 * table and the SMBIOS tables into guest memory. *rsdp is where the ACPI tables' root pointer lies.
 */
bool firmware_install(struct phys_map *map, const struct firmware_config *config, uint64_t *rsdp,
                      struct error *err);

/* The tables alone, as they will lie at FIRMWARE_AREA in a buffer of FIRMWARE_AREA_END -
 * FIRMWARE_AREA bytes. */
bool firmware_build(const struct firmware_config *config, uint8_t *area, uint64_t *rsdp,
                    struct error *err);

/* ---- The same for a firmware that runs in the guest ------------------------------------------ */

/* What SeaBIOS and OVMF read through fw_cfg; the caller frees the bytes. */
struct firmware_file {
    const char *name; /* "etc/acpi/tables" ... */
    uint8_t *bytes;
    size_t len;
};
enum { FIRMWARE_FILES_MAX = 8 };
struct firmware_files {
    struct firmware_file file[FIRMWARE_FILES_MAX];
    unsigned count;
};
/* ACPI tables with the commands that place them, the memory map, SMBIOS tables. */
bool firmware_files(const struct firmware_config *config, struct firmware_files *files,
                    struct error *err);
void firmware_files_free(struct firmware_files *files);

/* The option ROM by which a BIOS starts the kernel that fw_cfg holds. */
enum { FIRMWARE_KERNEL_ROM = 512 };
void firmware_kernel_rom(uint8_t rom[FIRMWARE_KERNEL_ROM]);

/* The built-in demo guest: an ELF file with a PVH entry. */
const void *firmware_demo(size_t *len);

#endif
