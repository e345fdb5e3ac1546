/*
 * power_off.c - switching the machine off: the sleep type that the DSDT's \_S5 names, written to
 * PM1a_CNT with SLP_EN, ends the program with status 0; the type alone does not
 * (ACPI 6.5, 4.8.3.2.1, 7.4.2). A reset would begin anew and be found out.
 *
 * guest exit: 0
 * guest prints: switching off
 * guest reboots: yes
 */
#include "acpi.h"
#include "pci.h"

enum { MARK = 0x7e, SLP_EN = 1 << 13, SCI_EN = 1 };

static uint8_t cmos(void)
{
    outb(0x70, MARK);
    return inb(0x71);
}

TEST(first_time)
{
    CHECK_EQ(cmos(), 0); /* not a second one */
    outb(0x70, MARK);
    outb(0x71, 0xa5);
}

/* Name(_S5_, Package {type, ...}): 08 _S5_ 12 length count, then 0Ah byte, or 00h, or 01h. */
static int sleep_type(void)
{
    const struct acpi_header *fadt = acpi_find("FACP"), *dsdt;
    if (!fadt)
        return -1;
    dsdt = (void *)(uintptr_t)((const uint32_t *)fadt)[10];
    const uint8_t *aml = (const uint8_t *)dsdt;
    for (unsigned at = 36; at + 8 < dsdt->length; at++) {
        if (memcmp(aml + at, "_S5_", 4) != 0 || aml[at + 4] != 0x12)
            continue;
        at += 5;
        at += 1u + (aml[at] >> 6); /* the package's length */
        at++;                      /* how many elements */
        return aml[at] == 0x0a ? aml[at + 1] : aml[at] <= 1 ? aml[at] : -1;
    }
    return -1;
}

TEST(type_without_enable)
{
    uint16_t control = pm_base() + 4;
    CHECK(sleep_type() >= 0);
    outw(control, (uint16_t)(sleep_type() << 10 | SCI_EN));
    pit_wait(10000);
    CHECK_EQ(inw(control) >> 10 & 7, sleep_type());
}

TEST(off)
{
    if (!all_passed())
        return;
    print("switching off\n");
    outw(pm_base() + 4, (uint16_t)(sleep_type() << 10 | SLP_EN | SCI_EN));
    for (unsigned i = 0; i < 50; i++)
        pit_wait(60000);
    CHECK(!"still here");
}

const struct test guest_tests[] = {T(first_time), T(type_without_enable), T(off), {0, 0}};
