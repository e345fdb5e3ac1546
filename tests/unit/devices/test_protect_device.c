/*
 * test_protect_device.c - the protection device around its doors: PCI function and fixed addresses,
 * the admin page, interrupts, reset, state.
 */
#include "protect_board.h"

/* ---- Where it is ----------------------------------------------------------------------------- */

START_TEST(the_pci_function)
{
    ck_assert_uint_eq(config_in(PCI_VENDOR_ID), 0x0b411b36);
    ck_assert_uint_eq(config_in(PCI_REVISION_ID) >> 8, 0x088000);
    static const uint32_t sizes[PCI_BARS] = {4096, 0, 512 << 10, 0, 4096, 0};
    for (unsigned i = 0; i < PCI_BARS; i++) {
        config_out(PCI_BAR0 + 4 * i, 0xffffffff);
        ck_assert_uint_eq(config_in(PCI_BAR0 + 4 * i), sizes[i] ? -sizes[i] : 0);
    }
    ck_assert_uint_eq(config_in(PCI_INTERRUPT_LINE) >> 8 & 0xff, 0);
    unsigned cap = config_in(PCI_CAPABILITY_LIST) & 0xff;
    ck_assert_uint_eq(config_in(cap) & 0xff, PCI_CAP_ID_MSIX);
    ck_assert_uint_eq(config_in(cap) >> 16 & 0x7ff, 15); /* 16 vectors */
    ck_assert_uint_eq(config_in(cap + 4), 4);            /* the table is in BAR 4 */
}
END_TEST

START_TEST(bars_and_fixed_addresses_show_the_same)
{
    ck_assert_ptr_null(bench_find(bench.mmio, BAR_ADMIN));
    map_bars();
    for (unsigned n = 0; n < 64; n++) {
        ck_assert_uint_eq(load(door(n, ID), 4), 0x59454c42);
        ck_assert_uint_eq(load(door(n, INDEX), 4), n);
        ck_assert_uint_eq(load(BAR_DOORS + 0x2000 * n + INDEX, 4), n);
    }
    ck_assert_uint_eq(load(BAR_ADMIN, 4), 0x59454c42);
    ck_assert_ptr_null(bench_find(bench.mmio, door(64, 0)));
    ck_assert_ptr_null(bench_find(bench.mmio, 0xfef01000));
    store(BAR_DOORS + 0x2000 * 5 + SLOTS, 8, PROTECT_OP_BIND);
    ck_assert_uint_eq(load(slot(5, 0, OP), 8), PROTECT_OP_BIND);
    store(BAR_DOORS + 0x2000 * 5 + DOORBELL, 8, 0);
    ck_assert_uint_eq(load(door(5, STATE), 4), PROTECT_DOOR_SUPERVISOR);
}
END_TEST

START_TEST(the_admin_page)
{
    const uint64_t admin = 0xfef00000;
    ck_assert_uint_eq(load(admin, 8), 0x0001000059454c42);
    ck_assert_uint_eq(load(admin + 8, 4), 64);
    ck_assert_uint_eq(load(admin + 12, 4), 0x2000);
    ck_assert_uint_eq(load(admin + 16, 8), 0xfef10000);
    ck_assert_uint_eq(load(admin + 24, 8), 0);
    ck_assert_uint_eq(load(admin + 32, 8), 0);
    ck_assert_uint_eq(load(admin + 40, 8), 0x1234567800000009);
    ck_assert_uint_eq(load(admin + 40, 4), 9);
    ck_assert_uint_eq(load(admin + 44, 4), 0x12345678);
    ck_assert_uint_eq(load(admin + 48, 8), 1 << 22);
    ck_assert_uint_eq(load(admin + 56, 8), 11);
    for (unsigned i = 0; i < 16; i++) /* the counters, commands first, system_calls last */
        ck_assert_uint_eq(load(admin + 64 + 8 * i, 8), 0x8000000000000000 + i);
    for (unsigned offset = 64 + 8 * 16; offset < 4096; offset += 8)
        ck_assert_uint_eq(load(admin + offset, 8), 0);
}
END_TEST

/* ---- Administration -------------------------------------------------------------------------- */

START_TEST(grants)
{
    const uint64_t grant = 0xfef00000 + 24;
    rules.grant_status = PROTECT_SEALED;
    store(grant, 8, 63 | 0x7f << 8);
    ck_assert_uint_eq(rules.context, 63);
    ck_assert_uint_eq(rules.granted, 0x7f);
    ck_assert(!rules.taken);
    ck_assert_uint_eq(load(grant, 8), PROTECT_SEALED);
    rules.grant_status = PROTECT_OK;
    store(grant, 4, 0 | 0x20 << 8 | 1u << 31);
    ck_assert_uint_eq(rules.context, 0);
    ck_assert_uint_eq(rules.granted, 0x20);
    ck_assert(rules.taken);
    ck_assert_uint_eq(load(grant, 8), PROTECT_OK);
    ck_assert_uint_eq(rules.grants, 2);
    store(grant, 8, 64 | 1 << 8);
    ck_assert_uint_eq(load(grant, 8), PROTECT_BAD_ARGUMENT);
    for (unsigned bit = 15; bit < 64; bit++)
        if (bit != 31) {
            store(grant, 8, 1ull << bit);
            ck_assert_uint_eq(load(grant, 8), PROTECT_BAD_RESERVED);
            store(grant, 8, 1 << 8);
            ck_assert_uint_eq(load(grant, 8), PROTECT_OK);
        }
    ck_assert_uint_eq(rules.grants, 2 + 48);
}
END_TEST

START_TEST(destroying_a_context)
{
    const uint64_t end = 0xfef00000 + 32;
    bind_door(63);
    store(end, 8, 63);
    ck_assert_uint_eq(load(end, 8), PROTECT_OK);
    ck_assert_uint_eq(load(door(63, STATE), 4), PROTECT_DOOR_FREE);
    store(end, 8, 63);
    ck_assert_uint_eq(load(end, 8), PROTECT_NOT_BOUND);
    static const uint64_t bad[] = {64, 1ull << 32, ~0ull, 79};
    for (unsigned i = 0; i < 4; i++) {
        store(end, 8, bad[i]);
        ck_assert_uint_eq(load(end, 8), PROTECT_BAD_ARGUMENT);
    }
    ck_assert_uint_eq(rules.destroyed, 2);
}
END_TEST

/* ---- Interrupts, reset, state ---------------------------------------------------------------- */

START_TEST(a_door_has_the_vector_of_its_number_modulo_16)
{
    map_bars();
    for (unsigned v = 0; v < 16; v++) {
        store(BAR_MSIX + 16 * v, 8, 0xfee00000 + (v << 12));
        store(BAR_MSIX + 16 * v + 8, 8, 0x40 + v);
    }
    protect_interrupt(device, 0); /* MSI-X is off, and there is no INTx */
    ck_assert_uint_eq(messages, 0);
    unsigned cap = config_in(PCI_CAPABILITY_LIST) & 0xff;
    config_out(cap, 0x8000u << 16);
    for (unsigned n = 0; n < 64; n++) {
        protect_interrupt(device, n);
        ck_assert_uint_eq(messages, n + 1);
        ck_assert_uint_eq(message.address, 0xfee00000 + (n % 16 << 12));
        ck_assert_uint_eq(message.data, 0x40 + n % 16);
    }
    protect_interrupt(device, 64); /* a client's outside */
    protect_interrupt(device, 79);
    ck_assert_uint_eq(messages, 64);
}
END_TEST

START_TEST(reset)
{
    map_bars();
    be_user(0xa000);
    bind_door(7);
    fill(7);
    fill(8); /* a free one */
    store(door(7, RESUME), 8, 0xff);
    store(0xfef00000 + 32, 8, 99);
    memset(rules.info, 0, sizeof(rules.info)); /* the machine resets the rules */
    device->dev.reset(&device->dev);
    ck_assert_uint_eq(left_behind(7), 0);
    ck_assert_uint_eq(left_behind(8), 0);
    ck_assert_uint_eq(load(0xfef00000 + 32, 8), PROTECT_OK);
    ck_assert_uint_eq(config_in(PCI_BAR0), 0);
    ck_assert_ptr_null(bench_find(bench.mmio, BAR_ADMIN));
    bind_door(7);
    ck_assert_uint_eq(load(door(7, RESUME_STATUS), 8), PROTECT_OK);
}
END_TEST

START_TEST(state_goes_through_its_fields)
{
    map_bars();
    be_user(0xa000);
    uint64_t session = bind_door(7);
    store(slot(7, 3, ARG0), 8, 0x1122334455667788);
    store(door(7, RESUME), 8, 0xff);
    store(0xfef00000 + 24, 8, 64);
    store(0xfef00000 + 32, 8, 64);
    const struct state_desc *state = device->dev.state;
    ck_assert_ptr_nonnull(state);
    struct pci_device *old = device;
    bus->devices[PCI_DEVFN(31, 0)] = NULL;
    for (unsigned i = 1; i < BENCH_CLAIMS; i++) /* the old one's addresses */
        bench.mmio[i].ops = NULL;
    device = make();
    for (size_t f = 0; f < state->field_count; f++)
        for (size_t i = 0; i < state->fields[f].count; i++)
            field_set(&state->fields[f], device, i, field_get(&state->fields[f], old, i));
    device->dev.restored(&device->dev);
    be_user(0xa000);
    ck_assert_uint_eq(load(BAR_DOORS + 0x2000 * 7 + SLOTS + RESULT, 8), session);
    ck_assert_uint_eq(load(slot(7, 3, ARG0), 8), 0x1122334455667788);
    ck_assert_uint_eq(load(door(7, RESUME_STATUS), 8), PROTECT_BAD_TOKEN);
    ck_assert_uint_eq(load(0xfef00000 + 24, 8), PROTECT_BAD_ARGUMENT);
    ck_assert_uint_eq(load(0xfef00000 + 32, 8), PROTECT_BAD_ARGUMENT);
}
END_TEST

PROTECT_MAIN("protect_device", the_pci_function, bars_and_fixed_addresses_show_the_same,
             the_admin_page, grants, destroying_a_context,
             a_door_has_the_vector_of_its_number_modulo_16, reset, state_goes_through_its_fields)
