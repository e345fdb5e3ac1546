/*
 * mp_table.c - the MP configuration table, for kernels that know no ACPI
 * (MultiProcessor Specification 1.4, chapter 4).
 */
#include "tables.h"
#include <string.h>

enum { MP_SPEC = 4, BUS_ISA = 0, BUS_PCI = 1, LAPIC_VERSION = 0x14, IOAPIC_VERSION = 0x20 };
enum { INT_NORMAL = 0, INT_NMI = 1, INT_EXT = 3, POLARITY_HIGH = 1, TRIGGER_LEVEL = 3 << 2 };

static void text(struct aml *a, const char *s)
{
    while (*s)
        aml_byte(a, (uint8_t)*s++);
}

static void add_processor(struct aml *a, unsigned id)
{
    aml_byte(a, 0);
    aml_byte(a, (uint8_t)id);
    aml_byte(a, LAPIC_VERSION);
    aml_byte(a, id == 0 ? 3 : 1); /* enabled; the first is the bootstrap processor */
    aml_little(a, 0x600, 4);      /* family 6 */
    aml_little(a, 1 << 9 | 1, 4); /* APIC, FPU */
    aml_little(a, 0, 8);
}

static void add_bus(struct aml *a, uint8_t id, const char *name)
{
    aml_byte(a, 1);
    aml_byte(a, id);
    text(a, name);
}

static void add_interrupt(struct aml *a, uint8_t entry, uint8_t type, uint16_t flags, uint8_t bus,
                          uint8_t irq, uint8_t apic, uint8_t pin)
{
    const uint8_t bytes[8] = {entry, type, (uint8_t)flags, 0, bus, irq, apic, pin};
    for (unsigned i = 0; i < sizeof(bytes); i++)
        aml_byte(a, bytes[i]);
}

/* Returns how many entries it added. PCI interrupts: slot << 2 | pin (D.3). */
static unsigned add_interrupts(struct aml *a, const struct firmware_config *config)
{
    unsigned count = 0;
    for (unsigned irq = 0; irq < 16; irq++) {
        bool level = config->level_irqs >> irq & 1;
        if (irq == 2)
            continue;
        add_interrupt(a, 3, INT_NORMAL, level ? POLARITY_HIGH | TRIGGER_LEVEL : 0, BUS_ISA,
                      (uint8_t)irq, config->ioapic_id, (uint8_t)(irq ? irq : 2));
        count++;
    }
    for (unsigned slot = 1; slot < 32; slot++)
        for (unsigned pin = 0; pin < 4; pin++, count++)
            add_interrupt(a, 3, INT_NORMAL, POLARITY_HIGH | TRIGGER_LEVEL, BUS_PCI,
                          (uint8_t)(slot << 2 | pin), config->ioapic_id,
                          config->pirq[(slot + pin - 1) % 4]);
    add_interrupt(a, 4, INT_EXT, 0, BUS_ISA, 0, 0xff, 0);
    add_interrupt(a, 4, INT_NMI, 0, BUS_ISA, 0, 0xff, 1);
    return count + 2;
}

void mp_table(struct area *area, const struct firmware_config *config)
{
    struct aml *a = &area->a;
    area_align(area, 16);
    while (area_gpa(area) < 0xf0000 && !a->full) /* the floating pointer is searched from here up */
        area_align(area, 0x10000);
    size_t floating = a->len, table = floating + 16;
    uint32_t gpa = area_gpa(area) + 16;

    text(a, "_MP_");
    aml_little(a, gpa, 4);
    aml_byte(a, 1); /* 16 bytes long */
    aml_byte(a, MP_SPEC);
    aml_little(a, 0, 6);

    text(a, "PCMP");
    aml_little(a, 0, 2);
    aml_byte(a, MP_SPEC);
    aml_byte(a, 0);
    text(a, "BAILEY  PC          ");
    aml_little(a, 0, 4);
    aml_little(a, 0, 2);
    size_t count_at = a->len;
    aml_little(a, 0, 2);
    aml_little(a, config->lapic_base, 4);
    aml_little(a, 0, 4);
    for (unsigned i = 0; i < config->vcpus; i++)
        add_processor(a, i);
    add_bus(a, BUS_ISA, "ISA   ");
    add_bus(a, BUS_PCI, "PCI   ");
    aml_byte(a, 2);
    aml_byte(a, config->ioapic_id);
    aml_byte(a, IOAPIC_VERSION);
    aml_byte(a, 1); /* usable */
    aml_little(a, config->ioapic_base, 4);
    unsigned entries = config->vcpus + 3 + add_interrupts(a, config);
    if (a->full)
        return;
    uint16_t len = (uint16_t)(a->len - table), count = (uint16_t)entries;
    memcpy(a->bytes + table + 4, &len, 2);
    memcpy(a->bytes + count_at, &count, 2);
    area_checksum(a->bytes + floating, 16, 10);
    area_checksum(a->bytes + table, len, 7);
}
