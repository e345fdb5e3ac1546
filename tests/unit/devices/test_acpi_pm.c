/*
 * test_acpi_pm.c - PM timer, SCI, ACPI enable, sleep, power button, GPE0.
 */
#include "bench.h"

enum { BASE = 0x600, GPE = 0xafe0 };
static struct acpi_pm *pm;
static struct probe sci;

static void setup(bool acpi_mode)
{
    struct acpi_pm_config config = {BASE, GPE, acpi_mode};
    sci = (struct probe){0};
    pm = acpi_pm_new(bench_setup(), &config, probe_line(&sci));
}

START_TEST(timer_counts_24_bits)
{
    setup(true);
    bench_advance(1000000000);
    ck_assert_uint_eq(in_sized(BASE + 8, 4), 3579545);
    ck_assert_uint_eq(in8(BASE + 9), 3579545 >> 8 & 0xff);
    bench_advance(9000000000);
    ck_assert_uint_eq(in_sized(BASE + 8, 4), 35795450 % (1 << 24));
    bench_destroy(pm);
}
END_TEST

START_TEST(timer_carry_interrupts)
{
    setup(true);
    out_sized(BASE + 2, 2, 0xffff);
    ck_assert_uint_eq(in_sized(BASE + 2, 2), 0x0521);
    uint64_t half = clock_ticks_to_ns(0x800000, ACPI_PM_TIMER_HZ);
    bench_advance(half - 1);
    ck_assert(!sci.level);
    bench_advance(1);
    ck_assert(sci.level);
    ck_assert_uint_eq(in_sized(BASE, 2), 1);
    out_sized(BASE, 2, 1);
    ck_assert(!sci.level);
    ck_assert_uint_eq(in_sized(BASE, 2), 0);
    bench_advance(half);
    ck_assert(sci.level);
    out_sized(BASE, 2, 1);
    out_sized(BASE + 2, 2, 0);
    bench_advance(half); /* the status comes without being enabled */
    ck_assert(!sci.level);
    ck_assert_uint_eq(in_sized(BASE, 4), 1);
    bench_destroy(pm);
}
END_TEST

/* The I/O thread may be late. */
START_TEST(late_carry_interrupts)
{
    setup(true);
    out_sized(BASE + 2, 2, 1);
    uint64_t half = clock_ticks_to_ns(0x800000, ACPI_PM_TIMER_HZ);
    bench_be_late(half);
    ck_assert_uint_eq(in_sized(BASE, 2), 1);
    ck_assert(sci.level);
    out_sized(BASE, 2, 1);
    ck_assert(!sci.level);
    bench_be_late(half);
    out_sized(BASE, 2, 1);
    ck_assert_uint_eq(sci.rises, 2);
    ck_assert(!sci.level);
    bench_destroy(pm);
}
END_TEST

START_TEST(acpi_enable)
{
    setup(false);
    ck_assert_uint_eq(in_sized(BASE + 4, 2), 0);
    out_sized(BASE + 2, 2, 0x100);
    acpi_pm_power_button(pm);
    ck_assert(!sci.level); /* would be an SMI */
    out8(0xb2, 0xf1);
    ck_assert_uint_eq(in_sized(BASE + 4, 2), 1);
    ck_assert(sci.level);
    out8(BASE, 0xff); /* the other byte: leaves PWRBTN_STS alone */
    ck_assert(sci.level);
    out8(BASE + 1, 0x01);
    ck_assert(!sci.level);
    out8(0xb2, 0xf0);
    ck_assert_uint_eq(in_sized(BASE + 4, 2), 0);
    bench_destroy(pm);
}
END_TEST

START_TEST(sleep_types)
{
    setup(true);
    out_sized(BASE + 4, 2, 0x0001);
    ck_assert_uint_eq(bench.shutdowns, 0);
    out_sized(BASE + 4, 2, 0x2401); /* S3: not offered */
    ck_assert_uint_eq(bench.shutdowns, 0);
    ck_assert_uint_eq(in_sized(BASE + 4, 2), 0x0401); /* SLP_EN is write only */
    out_sized(BASE + 4, 2, 0x2001);
    ck_assert_uint_eq(bench.shutdowns, 1);
    ck_assert_int_eq(bench.shutdown_what, BOARD_POWER_OFF);
    bench_destroy(pm);
}
END_TEST

START_TEST(general_purpose_events)
{
    setup(true);
    out8(GPE + 2, 0x06);
    acpi_pm_gpe(pm, 3);
    ck_assert(!sci.level);
    acpi_pm_gpe(pm, 1);
    ck_assert(sci.level);
    ck_assert_uint_eq(in8(GPE), 0x0a);
    out8(GPE, 0x02);
    ck_assert(!sci.level);
    ck_assert_uint_eq(in8(GPE), 0x08);
    bench_destroy(pm);
}
END_TEST

START_TEST(the_block_moves)
{
    setup(true);
    acpi_pm_set_base(pm, 0xb000);
    ck_assert_uint_eq(in_sized(0xb004, 2), 1);
    ck_assert_uint_eq(in_sized(BASE + 4, 2), 0xffff);
    acpi_pm_set_base(pm, 0);
    ck_assert_uint_eq(in_sized(0xb004, 2), 0xffff);
    bench_reset(pm);
    ck_assert_uint_eq(in_sized(BASE + 4, 2), 1);
    bench_destroy(pm);
}
END_TEST

BENCH_MAIN("acpi_pm", timer_counts_24_bits, timer_carry_interrupts, late_carry_interrupts,
           acpi_enable, sleep_types, general_purpose_events, the_block_moves)
