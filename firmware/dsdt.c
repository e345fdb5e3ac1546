/*
 * dsdt.c - the definition block: what an ACPI operating system cannot find out by probing.
 *
 * But for the links of PCI interrupts (links.c) there is no method in it, only names: the PCI root
 * and its windows, the ISA devices, the processors, and the sleep type that powers off.
 */
#include "tables.h"
#include <stdio.h>

static void add_pci_windows(struct aml *a, const struct firmware_config *config)
{
    struct aml_resources r;
    aml_resources_init(&r);
    aml_window(&r, AML_BUS, 2, 0, 0xff);
    aml_port(&r, 0xcf8, 8);
    aml_window(&r, AML_IO, 2, 0, 0xcf7);
    aml_window(&r, AML_IO, 2, 0xd00, 0xffff);
    aml_window(&r, AML_MEMORY, 4, 0xa0000, 0xbffff);
    aml_window(&r, AML_MEMORY, 4, config->pci_hole, config->pci_hole_end - 1);
    if (config->pci_hole64 < config->pci_hole64_end)
        aml_window(&r, AML_MEMORY, 8, config->pci_hole64, config->pci_hole64_end - 1);
    aml_name_resources(a, "_CRS", &r);
}

/* One ISA device: ports and an interrupt (or none: -1). */
static void add_isa(struct aml *a, const char *name, const char *hid, unsigned uid, uint16_t port,
                    uint8_t ports, int irq)
{
    struct aml_resources r;
    aml_open_device(a, name);
    aml_name_eisaid(a, "_HID", hid);
    aml_name_integer(a, "_UID", uid);
    aml_resources_init(&r);
    if (ports)
        aml_port(&r, port, ports);
    if (irq >= 0)
        aml_irq(&r, (unsigned)irq);
    aml_name_resources(a, "_CRS", &r);
    aml_close(a);
}

/* Firmware does not look for a keyboard that is not named here. */
static void add_keyboard(struct aml *a)
{
    struct aml_resources r;
    aml_open_device(a, "KBD");
    aml_name_eisaid(a, "_HID", "PNP0303");
    aml_resources_init(&r);
    aml_port(&r, 0x60, 1);
    aml_port(&r, 0x64, 1);
    aml_irq(&r, 1);
    aml_name_resources(a, "_CRS", &r);
    aml_close(a);
    add_isa(a, "MOU", "PNP0F13", 0, 0, 0, 12);
}

static void add_floppy(struct aml *a)
{
    struct aml_resources r;
    aml_open_device(a, "FDC0");
    aml_name_eisaid(a, "_HID", "PNP0700");
    aml_resources_init(&r);
    aml_port(&r, 0x3f2, 4);
    aml_port(&r, 0x3f7, 1);
    aml_irq(&r, 6);
    aml_dma(&r, 2);
    aml_name_resources(a, "_CRS", &r);
    aml_close(a);
}

static void add_panic(struct aml *a, uint16_t port)
{
    struct aml_resources r;
    aml_open_device(a, "PEVT");
    aml_name_string(a, "_HID", "QEMU0001");
    aml_resources_init(&r);
    aml_port(&r, port, 1);
    aml_name_resources(a, "_CRS", &r);
    aml_close(a);
}

static void add_isa_bus(struct aml *a, const struct firmware_config *config)
{
    static const struct {
        uint16_t port;
        int irq;
    } com[4] = {{0x3f8, 4}, {0x2f8, 3}, {0x3e8, 4}, {0x2e8, 3}};

    aml_open_device(a, "ISA");
    aml_name_integer(a, "_ADR", 1 << 16);
    dsdt_pirq_registers(a);
    add_isa(a, "PIC", "PNP0000", 0, 0x20, 2, 2);
    add_isa(a, "TMR", "PNP0100", 0, 0x40, 4, 0);
    add_isa(a, "SPKR", "PNP0800", 0, 0x61, 1, -1);
    add_isa(a, "RTC", "PNP0B00", 0, 0x70, 2, 8);
    add_isa(a, "FPU", "PNP0C04", 0, 0xf0, 1, 13);
    add_keyboard(a);
    if (config->has_floppy)
        add_floppy(a);
    for (unsigned i = 0; i < 4; i++) {
        char name[8];
        snprintf(name, sizeof(name), "COM%u", i + 1);
        if (config->has_serial[i])
            add_isa(a, name, "PNP0501", i + 1, com[i].port, 8, com[i].irq);
    }
    if (config->has_panic)
        add_panic(a, config->panic_port);
    aml_close(a);
}

static void add_processors(struct aml *a, const struct firmware_config *config)
{
    for (unsigned i = 0; i < config->vcpus; i++) {
        char name[8];
        snprintf(name, sizeof(name), "C%03X", i & 0xfff);
        aml_open_device(a, name);
        aml_name_string(a, "_HID", "ACPI0007");
        aml_name_integer(a, "_UID", i);
        aml_close(a);
    }
}

/* Motherboard resources: addresses that no driver claims and nobody else may use. */
static void add_protection(struct aml *a, const struct firmware_config *config)
{
    struct aml_resources r;
    aml_open_device(a, "PROT");
    aml_name_eisaid(a, "_HID", "PNP0C02");
    aml_name_string(a, "_UID", "protect");
    aml_resources_init(&r);
    aml_memory(&r, (uint32_t)config->protect, (uint32_t)(config->protect_end - config->protect));
    aml_name_resources(a, "_CRS", &r);
    aml_close(a);
}

void dsdt_body(struct aml *a, const struct firmware_config *config)
{
    aml_open_scope(a, "\\_SB");
    aml_open_device(a, "PCI0");
    aml_name_eisaid(a, "_HID", "PNP0A03");
    aml_name_integer(a, "_UID", 0);
    add_pci_windows(a, config);
    dsdt_routing(a);
    add_isa_bus(a, config);
    aml_close(a);
    dsdt_links(a);
    add_processors(a, config);
    if (config->protect < config->protect_end)
        add_protection(a, config);
    aml_close(a);

    aml_name(a, "\\_S5");
    aml_open_package(a, 4);
    aml_integer(a, config->s5_type);
    aml_integer(a, config->s5_type);
    aml_integer(a, 0);
    aml_integer(a, 0);
    aml_close(a);
}
