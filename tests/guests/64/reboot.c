/*
 * reboot.c - every way to reset the machine, one after the other, and what is found after it: the
 * reset register of the FADT, CF9h, the keyboard controller, port 92h, a triple fault (ACPI 6.5,
 * 4.8.3.6; 82371SB data sheet, 2.5; PS/2 Technical Reference). A byte of CMOS memory counts.
 *
 * guest options: -smp 2
 * guest reboots: yes
 */
#include "acpi.h"
#include "cpus.h"
#include "pci.h"

enum { STAGE = 0x7e };
#define KEPT ((volatile uint64_t *)0x3000000) /* RAM that no firmware uses */

static uint8_t stage(void)
{
    outb(0x70, STAGE);
    return inb(0x71);
}

static void set_stage(uint8_t n)
{
    outb(0x70, STAGE);
    outb(0x71, n);
}

/* ---- The ways -----------------------------------------------------------------------------------
 */

static void cf9(void)
{
    outb(0xcf9, 0); /* a trigger is a rising edge of bit 2 */
    outb(0xcf9, 2);
    CHECK_EQ(inb(0xcf9) & 6, 2);
    outb(0xcf9, 6);
}

static void fadt_register(void)
{
    const struct acpi_header *fadt = acpi_find("FACP");
    const uint8_t *t = (const uint8_t *)fadt;
    if (fadt && t[113] & 4) { /* RESET_REG_SUP, bit 10 of the flags at 112 */
        outb((uint16_t)(t[120] | t[121] << 8), t[128]);
        return;
    }
    print("  skipped: there is none\n");
    cf9();
}

static void keyboard_controller(void)
{
    while (inb(0x64) & 2)
        asm volatile("pause");
    outb(0x64, 0xfe); /* pulses output bit 0 */
}

static void port_92(void)
{
    outb(0x92, inb(0x92) & ~1u);
    outb(0x92, inb(0x92) | 1);
}

static void triple_fault(void)
{
    struct __attribute__((packed)) {
        uint16_t limit;
        word base;
    } none = {0, 0};
    asm volatile("lidt %0; int3" ::"m"(none));
}

static const struct {
    const char *name;
    void (*reset)(void);
} ways[] = {{"FADT reset register", fadt_register},
            {"CF9h", cf9},
            {"keyboard controller", keyboard_controller},
            {"port 92h", port_92},
            {"triple fault", triple_fault}};
enum { WAYS = sizeof(ways) / sizeof(ways[0]) };

/* ---- What a reset leaves ------------------------------------------------------------------------
 */

static volatile unsigned long rounds __attribute__((section(".data")));

static void spin(unsigned id)
{
    for (;;)
        rounds++;
}

TEST(state)
{
    CHECK_EQ(apic_read(APIC_TPR), 0);
    CHECK_EQ(apic_read(APIC_INITIAL), 0);
    CHECK_EQ(apic_read(APIC_LVT_TIMER) & APIC_MASKED, APIC_MASKED);
    CHECK_EQ(rdmsr(MSR_APIC_BASE), 0xfee00900);
    for (unsigned pin = 3; pin < 8; pin++)
        CHECK_EQ(ioapic_read(0x10 + 2 * pin) & ENTRY_MASKED, ENTRY_MASKED);
    CHECK_EQ(mmio_read32(0xfed00010) & 3, 0); /* the HPET stands */
    CHECK_EQ(inb(0x92) & 3, 2);               /* A20 is on */
    CHECK(pm_base() != 0);
    CHECK_EQ(inb(0xcf9) & 4, 0);
    /* the other processor waits for its SIPI */
    unsigned long before = rounds;
    pit_wait(20000);
    CHECK_EQ(rounds, before);
    if (stage() > 0)
        CHECK_EQ(*KEPT, 0x1234567800000000 + stage()); /* memory stays */
}

TEST(next)
{
    unsigned n = stage();
    CHECK(n <= WAYS);
    if (!all_passed() || n >= WAYS)
        return;
    /* things that must not survive */
    apic_quiet();
    apic_write(APIC_TPR, 0x50);
    apic_write(APIC_LVT_TIMER, 0x40);
    apic_write(APIC_INITIAL, 0xffffffff);
    ioapic_entry(5, 0, 0x45);
    mmio_write32(0xfed00010, 1);
    CHECK(start_cpu(1, spin));
    *KEPT = 0x1234567800000000 + n + 1;
    set_stage((uint8_t)(n + 1));
    print("  %s\n", ways[n].name);
    ways[n].reset();
    for (unsigned i = 0; i < 50; i++)
        pit_wait(60000);
    CHECK(!"no reset");
}

const struct test guest_tests[] = {T(state), T(next), {0, 0}};
