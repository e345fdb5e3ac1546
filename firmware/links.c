/*
 * links.c - where PCI interrupts arrive: routing table and link devices, the ACPI side of the ISA
 * bridge's PIRQ registers (ACPI 6.5, 6.2.13 and 6.4.3.6; Intel 82371SB, section 2.2.10).
 *
 * Pin p (0 = INTA#) of slot s is PIRQ (s + p - 1) mod 4 on this board. Firmware decides to which
 * interrupt each PIRQ goes, and an operating system may decide again: so a link device reads and
 * writes the register.
 */
#include "tables.h"
#include <stdio.h>

enum { PIRQRC = 0x60, PIRQS = 4, NOT_ROUTED = 0x80 };

static const uint8_t possible[] = {5, 10, 11};

static void register_name(char name[32], unsigned pirq)
{
    snprintf(name, 32, "\\_SB.PCI0.ISA.PRQ%u", pirq % PIRQS);
}

void dsdt_pirq_registers(struct aml *a)
{
    aml_region(a, "PRQR", AML_PCI_CONFIG, PIRQRC, PIRQS);
    aml_open_field(a, "PRQR");
    for (unsigned i = 0; i < PIRQS; i++) {
        char name[8];
        snprintf(name, sizeof(name), "PRQ%u", i % PIRQS);
        aml_field_byte(a, name);
    }
    aml_close(a);
}

/* Enabled or not: bits 0 (present), 1 (decoding), 3 (working) of _STA (6.3.7). */
static void add_status(struct aml *a, const char *reg)
{
    aml_open_method(a, "_STA", 0);
    aml_open_if(a);
    aml_and(a, reg, NOT_ROUTED);
    aml_return(a);
    aml_integer(a, 0x09);
    aml_close(a);
    aml_return(a);
    aml_integer(a, 0x0b);
    aml_close(a);
}

static void add_disable(struct aml *a, const char *reg)
{
    aml_open_method(a, "_DIS", 0);
    aml_store(a);
    aml_integer(a, NOT_ROUTED);
    aml_namestring(a, reg);
    aml_close(a);
}

/* The interrupt's number lies behind 5 bytes of its descriptor. */
static void add_current(struct aml *a, const char *reg)
{
    struct aml_resources now;
    aml_resources_init(&now);
    aml_interrupts(&now, (const uint8_t[]){0}, 1);
    aml_name_resources(a, "CURR", &now);
    aml_open_method(a, "_CRS", 0);
    aml_dword_field(a);
    aml_namestring(a, "CURR");
    aml_integer(a, 5);
    aml_namestring(a, "IRQN");
    aml_store(a);
    aml_and(a, reg, 0x0f);
    aml_namestring(a, "IRQN");
    aml_return(a);
    aml_namestring(a, "CURR");
    aml_close(a);
}

static void add_set(struct aml *a, const char *reg)
{
    aml_open_method(a, "_SRS", 1);
    aml_dword_field(a);
    aml_argument0(a);
    aml_integer(a, 5);
    aml_namestring(a, "IRQN");
    aml_store(a);
    aml_namestring(a, "IRQN");
    aml_namestring(a, reg);
    aml_close(a);
}

void dsdt_links(struct aml *a)
{
    for (unsigned i = 0; i < PIRQS; i++) {
        struct aml_resources r;
        char name[8], reg[32];
        snprintf(name, sizeof(name), "LNK%c", 'A' + (int)(i % PIRQS));
        register_name(reg, i);
        aml_open_device(a, name);
        aml_name_eisaid(a, "_HID", "PNP0C0F");
        aml_name_integer(a, "_UID", i + 1);
        aml_resources_init(&r);
        aml_interrupts(&r, possible, sizeof(possible));
        aml_name_resources(a, "_PRS", &r);
        add_status(a, reg);
        add_disable(a, reg);
        add_current(a, reg);
        add_set(a, reg);
        aml_close(a);
    }
}

void dsdt_routing(struct aml *a)
{
    enum { SLOTS = 32, PINS = 4, PER_PACKAGE = 4 };
    aml_name(a, "_PRT");
    aml_open_package(a, (SLOTS - 1) * PINS);
    for (unsigned slot = 1; slot < SLOTS; slot++) {
        for (unsigned pin = 0; pin < PINS; pin++) {
            char link[16];
            snprintf(link, sizeof(link), "\\_SB.LNK%c", 'A' + (int)((slot + pin - 1) % PIRQS));
            aml_open_package(a, PER_PACKAGE);
            aml_integer(a, slot << 16 | 0xffff);
            aml_integer(a, pin);
            aml_namestring(a, link);
            aml_integer(a, 0); /* the link's first interrupt */
            aml_close(a);
        }
    }
    aml_close(a);
}
