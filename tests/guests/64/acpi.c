/*
 * acpi.c - ACPI's tables as an operating system finds them in memory: root pointer, checksums,
 * FADT, MADT against the processors that there are, HPET, DSDT; and the MP tables (ACPI 6.5, 5.2).
 *
 * guest options: -smp 1
 * guest options: -smp 4
 * guest options: -smp 8
 */
#include "acpi.h"
#include "cpus.h"
#include "pci.h"

static uint32_t get32(const void *table, unsigned offset)
{
    uint32_t v;
    memcpy(&v, (const char *)table + offset, 4);
    return v;
}
static uint64_t get64(const void *table, unsigned offset)
{
    return get32(table, offset) | (uint64_t)get32(table, offset + 4) << 32;
}
static uint16_t get16(const void *table, unsigned offset)
{
    return (uint16_t)get32(table, offset);
}
static uint8_t get8(const void *table, unsigned offset)
{
    return ((const uint8_t *)table)[offset];
}

TEST(root_pointer)
{
    const struct acpi_rsdp *rsdp = acpi_find_rsdp();
    CHECK(rsdp);
    if (!rsdp)
        return;
    if (rsdp->revision >= 2) {
        CHECK_EQ(rsdp->length, 36);
        CHECK_EQ(acpi_sum(rsdp, 36), 0);
    }
    /* what PVH hands over is the same */
    uint32_t *info = (void *)(uintptr_t)start_info;
    CHECK_EQ(info[0], 0x336ec578);
    CHECK_EQ(get64(info, 32), (uintptr_t)rsdp);
}

TEST(rsdt_and_xsdt)
{
    const struct acpi_rsdp *rsdp = acpi_find_rsdp();
    const struct acpi_header *rsdt = (void *)(uintptr_t)rsdp->rsdt;
    CHECK_EQ(memcmp(rsdt->signature, "RSDT", 4), 0);
    CHECK_EQ(acpi_sum(rsdt, rsdt->length), 0);
    unsigned count = (rsdt->length - 36) / 4;
    CHECK(count >= 2);
    for (unsigned i = 0; i < count; i++) {
        const struct acpi_header *table = (void *)(uintptr_t)get32(rsdt, 36 + 4 * i);
        CHECK(table->length >= 36 && table->length < 0x10000);
        CHECK_EQ(acpi_sum(table, table->length), 0);
    }
    if (rsdp->revision < 2)
        return;
    const struct acpi_header *xsdt = (void *)(uintptr_t)rsdp->xsdt;
    CHECK_EQ(memcmp(xsdt->signature, "XSDT", 4), 0);
    CHECK_EQ(acpi_sum(xsdt, xsdt->length), 0);
    CHECK_EQ((xsdt->length - 36) / 8, count);
    for (unsigned i = 0; i < count; i++)
        CHECK_EQ(get64(xsdt, 36 + 8 * i), get32(rsdt, 36 + 4 * i));
}

TEST(fadt)
{
    const struct acpi_header *fadt = acpi_find("FACP");
    CHECK(fadt);
    if (!fadt)
        return;
    uint16_t pm = pm_base();
    CHECK_EQ(get16(fadt, 46), 9); /* SCI */
    CHECK_EQ(get32(fadt, 56), pm);
    CHECK_EQ(get32(fadt, 64), pm + 4u);
    CHECK_EQ(get32(fadt, 76), pm + 8u);
    CHECK_EQ(get8(fadt, 88), 4); /* lengths of PM1 events, control, timer */
    CHECK_EQ(get8(fadt, 89), 2);
    CHECK_EQ(get8(fadt, 91), 4);
    /* its ports are alive: the timer runs, ACPI mode can be switched by the command port */
    uint32_t before = inl((uint16_t)get32(fadt, 76));
    pit_wait(1000);
    CHECK(inl((uint16_t)get32(fadt, 76)) != before);
    outb((uint16_t)get32(fadt, 48), get8(fadt, 53)); /* disable */
    CHECK_EQ(inw((uint16_t)get32(fadt, 64)) & 1, 0);
    outb((uint16_t)get32(fadt, 48), get8(fadt, 52)); /* enable */
    CHECK_EQ(inw((uint16_t)get32(fadt, 64)) & 1, 1);
    CHECK_EQ(get32(fadt, 112) >> 8 & 1, 0); /* TMR_VAL_EXT: the timer has 24 bits */
    if (get32(fadt, 112) >> 10 & 1) {       /* RESET_REG_SUP */
        CHECK_EQ(get8(fadt, 116), 1);
        CHECK_EQ(get64(fadt, 120), 0xcf9);
        CHECK_EQ(get8(fadt, 128) & 6, 6);
    }
    outb(0x70, get8(fadt, 108)); /* the century byte */
    CHECK(inb(0x71) >= 0x19);
    const struct acpi_header *dsdt = (void *)(uintptr_t)get32(fadt, 40);
    CHECK_EQ(memcmp(dsdt->signature, "DSDT", 4), 0);
    CHECK_EQ(acpi_sum(dsdt, dsdt->length), 0);
    const struct acpi_header *facs = (void *)(uintptr_t)get32(fadt, 36);
    CHECK_EQ(memcmp(facs->signature, "FACS", 4), 0);
    CHECK_EQ((uintptr_t)facs % 64, 0);
    CHECK(facs->length >= 64);
}

/* One entry for each processor, and all of them come up. */
static volatile unsigned long came_up;

static void come_up(unsigned id)
{
    __atomic_or_fetch(&came_up, 1ul << id, __ATOMIC_SEQ_CST);
}

TEST(madt)
{
    const struct acpi_header *madt = acpi_find("APIC");
    CHECK(madt);
    if (!madt)
        return;
    unsigned long enabled = 0;
    unsigned ioapics = 0, timer_gsi = 0, sci_flags = 0, nmi = 0;
    CHECK_EQ(get32(madt, 36), 0xfee00000);
    CHECK_EQ(get32(madt, 40) & 1, 1); /* there are 8259As */
    for (unsigned at = 44; at < madt->length; at += get8(madt, at + 1)) {
        CHECK(get8(madt, at + 1) >= 2);
        switch (get8(madt, at)) {
        case 0:
            CHECK_EQ(get8(madt, at + 1), 8);
            CHECK_EQ(enabled >> get8(madt, at + 3) & 1, 0); /* no id twice */
            enabled |= (unsigned long)(get32(madt, at + 4) & 1) << get8(madt, at + 3);
            break;
        case 1:
            CHECK_EQ(get32(madt, at + 4), IOAPIC_PAGE);
            CHECK_EQ(get32(madt, at + 8), 0);
            CHECK_EQ(get8(madt, at + 2), ioapic_read(0) >> 24 & 15);
            ioapics++;
            break;
        case 2:
            CHECK_EQ(get8(madt, at + 2), 0);
            if (get8(madt, at + 3) == 0)
                timer_gsi = get32(madt, at + 4);
            if (get8(madt, at + 3) == 9)
                sci_flags = get16(madt, at + 8);
            break;
        case 4:
            CHECK_EQ(get8(madt, at + 2), 0xff);
            CHECK_EQ(get8(madt, at + 5), 1); /* LINT1 */
            nmi++;
        }
    }
    CHECK_EQ(enabled, (1ul << cpu_count()) - 1);
    CHECK_EQ(ioapics, 1);
    CHECK_EQ(timer_gsi, 2);
    CHECK_EQ(sci_flags, 0xd); /* active high, level */
    CHECK_EQ(nmi, 1);
    apic_quiet();
    came_up = 1;
    for (unsigned id = 1; id < cpu_count(); id++)
        CHECK(start_cpu(id, come_up));
    for (uint64_t end = rdtsc() + FOREVER; came_up != enabled && rdtsc() < end;)
        asm volatile("pause");
    CHECK_EQ(came_up, enabled);
}

TEST(hpet)
{
    const struct acpi_header *hpet = acpi_find("HPET");
    CHECK(hpet);
    if (!hpet)
        return;
    CHECK_EQ(get64(hpet, 44), 0xfed00000);
    CHECK_EQ(get32(hpet, 36), mmio_read32(0xfed00000));
}

/* The names that an operating system needs are in the DSDT (an SSDT would do as well). */
static bool dsdt_has(const char *name)
{
    const struct acpi_header *dsdt = (void *)(uintptr_t)get32(acpi_find("FACP"), 40);
    for (unsigned at = 36; at + 4 <= dsdt->length; at++)
        if (memcmp((const char *)dsdt + at, name, 4) == 0)
            return true;
    return false;
}

TEST(dsdt)
{
    CHECK(dsdt_has("PCI0"));
    CHECK(dsdt_has("_PRT"));
    CHECK(dsdt_has("_S5_"));
}

/* The multiprocessor specification 1.4: floating pointer and configuration table. */
TEST(mp_tables)
{
    for (uintptr_t at = 0xe0000; at < 0x100000; at += 16) {
        const uint8_t *mp = (void *)at;
        if (memcmp(mp, "_MP_", 4) != 0)
            continue;
        CHECK_EQ(acpi_sum(mp, 16u * mp[8]), 0);
        const uint8_t *table = (void *)(uintptr_t)get32(mp, 4);
        CHECK_EQ(memcmp(table, "PCMP", 4), 0);
        CHECK_EQ(acpi_sum(table, get16(table, 4)), 0);
        CHECK_EQ(get32(table, 36), 0xfee00000);
        unsigned processors = 0, entry = 44;
        for (unsigned i = 0; i < get16(table, 34); i++) {
            processors += table[entry] == 0 && table[entry + 3] & 1;
            entry += table[entry] == 0 ? 20 : 8;
        }
        CHECK_EQ(processors, cpu_count());
        return;
    }
    print("  skipped: there are none\n");
}

const struct test guest_tests[] = {T(root_pointer), T(rsdt_and_xsdt), T(fadt),      T(madt),
                                   T(hpet),         T(dsdt),          T(mp_tables), {0, 0}};
