/*
 * test_virtio_pci.c - the virtio transport's registers, modern and legacy, and its interrupts,
 * exercised through the entropy device.
 */
#include "kept_page.h"

static struct pci_device *rng;
static struct driver drv;

static void setup(void)
{
    struct error err = {""};
    board_setup();
    rng = virtio_rng_create(bus, PCI_FIRST_FREE, &err);
    ck_assert_msg(rng && pci_assign_resources(bus, MEM_WINDOW, MEM_END, &err), "%s", err.msg);
    driver_find(&drv, rng);
}

static void teardown(void)
{
    rng->dev.destroy(&rng->dev);
    board_teardown();
}

/* One request for `len` random bytes; how many came. */
static uint32_t request(unsigned len)
{
    uint32_t written;
    fill_ram(BUFFER_AT, 0, len);
    set_desc(&drv, 1, BUFFER_AT, len, DESC_WRITE, 0);
    make_available(&drv, 1);
    notify(&drv);
    ck_assert_uint_eq(next_used(&drv, &written), 1);
    return written;
}

static bool has_random_bytes(unsigned len)
{
    unsigned zeroes = 0;
    for (unsigned i = 0; i < len; i++)
        zeroes += mem_in(BUFFER_AT + i, 1) == 0;
    return zeroes < len / 4;
}

START_TEST(identity)
{
    unsigned devfn = rng->devfn;
    ck_assert_uint_eq(devfn, PCI_DEVFN(3, 0));
    ck_assert_uint_eq(config_in(devfn, 0, 4), 0x10051af4); /* transitional */
    ck_assert_uint_eq(config_in(devfn, PCI_REVISION_ID, 1), 0);
    ck_assert_uint_eq(config_in(devfn, PCI_SUBSYSTEM_ID, 2), 4);
    ck_assert_uint_eq(config_in(devfn, PCI_INTERRUPT_PIN, 1), 1);
    ck_assert_uint_eq(drv.notify_multiplier, 4);
    ck_assert_uint_eq(mem_in(drv.common + 0x12, 2), 1); /* queues */
}
END_TEST

START_TEST(works_in_both_interfaces)
{
    driver_start(&drv, (enum interface)_i, 0, 8);
    ck_assert_uint_eq(drv.size, 8);
    for (int round = 0; round < 20; round++) { /* the rings wrap */
        ck_assert_uint_eq(request(64), 64);
        ck_assert(has_random_bytes(64));
    }
    ck_assert_uint_le(request(100000), 100000);
    ck_assert_uint_ge(request(4096), 1);
}
END_TEST

START_TEST(feature_negotiation)
{
    uint64_t offer = offered_features(&drv);
    ck_assert_uint_eq(offer, VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX);
    mem_out(drv.common, 4, 2); /* beyond the words that exist */
    ck_assert_uint_eq(mem_in(drv.common + 4, 4), 0);
    static const struct {
        uint64_t features;
        bool ok;
    } choices[] = {
        {VIRTIO_F_VERSION_1, true},
        {VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC, true},
        {0, false},                               /* a modern driver must */
        {VIRTIO_F_VERSION_1 | 1, false},          /* not offered */
        {VIRTIO_F_VERSION_1 | 1ull << 34, false}, /* packed rings */
        {VIRTIO_F_VERSION_1 | 1ull << 63, false},
    };
    for (unsigned i = 0; i < sizeof(choices) / sizeof(choices[0]); i++) {
        set_status(&drv, 0);
        set_status(&drv, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
        accept_features(&drv, choices[i].features);
        set_status(&drv, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK);
        ck_assert_msg(((get_status(&drv) & VIRTIO_FEATURES_OK) != 0) == choices[i].ok, "case %u",
                      i);
    }
    /* after FEATURES_OK the choice stands */
    set_status(&drv, 0);
    accept_features(&drv, VIRTIO_F_VERSION_1);
    set_status(&drv, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK);
    mem_out(drv.common + 8, 4, 0);
    mem_out(drv.common + 12, 4, 0xffffffff);
    ck_assert_uint_eq(mem_in(drv.common + 12, 4), 0);
    /* the legacy view has the low half, and the layout bit */
    drv.interface = LEGACY;
    ck_assert_uint_eq(offered_features(&drv),
                      VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | VIRTIO_F_ANY_LAYOUT);
}
END_TEST

START_TEST(queue_registers)
{
    mem_out(drv.common + 0x16, 2, 0);
    ck_assert_uint_eq(mem_in(drv.common + 0x18, 2), 8);
    mem_out(drv.common + 0x18, 2, 4);
    ck_assert_uint_eq(mem_in(drv.common + 0x18, 2), 4);
    static const uint16_t refused[] = {0, 3, 16, 256, 0x8000, 0xffff};
    for (unsigned i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        mem_out(drv.common + 0x18, 2, refused[i]);
        ck_assert_uint_eq(mem_in(drv.common + 0x18, 2), 4);
    }
    mem_out(drv.common + 0x20, 8, 0x123456789abcdef0);
    ck_assert_uint_eq(mem_in(drv.common + 0x20, 8), 0x123456789abcdef0);
    mem_out(drv.common + 0x24, 4, 0x55); /* halves and single bytes merge */
    mem_out(drv.common + 0x20, 1, 0x00);
    ck_assert_uint_eq(mem_in(drv.common + 0x20, 8), 0x000000559abcde00);
    ck_assert_uint_eq(mem_in(drv.common + 0x21, 2), 0xbcde);
    /* a queue that is not there */
    mem_out(drv.common + 0x16, 2, 1);
    ck_assert_uint_eq(mem_in(drv.common + 0x18, 2), 0);
    mem_out(drv.common + 0x20, 8, 1);
    mem_out(drv.common + 0x1c, 2, 1);
    ck_assert_uint_eq(mem_in(drv.common + 0x1c, 2), 0);
    mem_out(drv.common + 0x16, 2, 0xffff);
    ck_assert_uint_eq(mem_in(drv.common + 0x18, 2), 0);
    outp(drv.io + 14, 2, 7);
    outp(drv.io + 8, 4, 0x100);
    ck_assert_uint_eq(inp(drv.io + 12, 2), 0);
    ck_assert_uint_eq(inp(drv.io + 8, 4), 0);
}
END_TEST

START_TEST(enabled_queues_are_fixed)
{
    driver_start(&drv, MODERN, 0, 8);
    mem_out(drv.common + 0x18, 2, 2);
    mem_out(drv.common + 0x20, 8, 0);
    mem_out(drv.common + 0x1c, 2, 0);
    ck_assert_uint_eq(mem_in(drv.common + 0x18, 2), 8);
    ck_assert_uint_eq(mem_in(drv.common + 0x20, 8), drv.desc);
    ck_assert_uint_eq(mem_in(drv.common + 0x1c, 2), 1);
    ck_assert_uint_eq(request(16), 16);
}
END_TEST

START_TEST(reset_returns_to_the_start)
{
    driver_start(&drv, MODERN, 0, 4);
    ck_assert_uint_eq(request(16), 16);
    set_status(&drv, 0);
    ck_assert_uint_eq(get_status(&drv), 0);
    ck_assert_uint_eq(mem_in(drv.common + 0x1c, 2), 0);
    ck_assert_uint_eq(mem_in(drv.common + 0x18, 2), 8);
    ck_assert_uint_eq(mem_in(drv.common + 0x20, 8), 0);
    ck_assert_uint_eq(mem_in(drv.common + 0x10, 2), 0xffff);
    ck_assert_uint_eq(get_isr(&drv), 0);
    notify(&drv); /* nothing happens any more */
    event_poll(board.queue);
    ck_assert_uint_eq(used_idx(&drv), 1);
    driver_start(&drv, LEGACY, 0, 0);
    ck_assert_uint_eq(request(16), 16);
    rng->dev.reset(&rng->dev);
    ck_assert_uint_eq(config_in(rng->devfn, PCI_COMMAND, 2), 0);
}
END_TEST

START_TEST(intx_and_isr)
{
    driver_start(&drv, (enum interface)_i, 0, 8);
    unsigned irq = config_in(rng->devfn, PCI_INTERRUPT_LINE, 1);
    ck_assert(!irq_level[irq]);
    request(8);
    ck_assert(irq_level[irq]);
    ck_assert_uint_eq(get_isr(&drv), 1);
    ck_assert(!irq_level[irq]); /* reading acknowledges */
    ck_assert_uint_eq(get_isr(&drv), 0);
    mem_out(drv.avail, 2, 1); /* VIRTQ_AVAIL_F_NO_INTERRUPT */
    request(8);
    ck_assert(!irq_level[irq]);
    mem_out(drv.avail, 2, 0);
    request(8);
    ck_assert(irq_level[irq]);
    set_status(&drv, 0);
    ck_assert(!irq_level[irq]);
}
END_TEST

static void enable_msix(void)
{
    unsigned at = config_in(rng->devfn, PCI_CAPABILITY_LIST, 1);
    while (config_in(rng->devfn, at, 1) != PCI_CAP_ID_MSIX)
        at = config_in(rng->devfn, at + 1, 1);
    ck_assert_uint_eq(config_in(rng->devfn, at + 2, 2) & 0x7ff, 1); /* queue and configuration */
    uint64_t table = bar_address(&drv, config_in(rng->devfn, at + 4, 4) & 7);
    for (unsigned v = 0; v < 2; v++) {
        mem_out(table + 16 * v, 8, 0xfee00000);
        mem_out(table + 16 * v + 8, 4, 0x50 + v);
        mem_out(table + 16 * v + 12, 4, 0);
    }
    config_out(rng->devfn, at + 2, 2, 0x8000);
}

START_TEST(msix_vectors)
{
    enable_msix();
    driver_start(&drv, MODERN, 0, 8);
    mem_out(drv.common + 0x1a, 2, 2); /* no such vector */
    ck_assert_uint_eq(mem_in(drv.common + 0x1a, 2), 0xffff);
    request(8);
    ck_assert_uint_eq(message_count, 0);
    mem_out(drv.common + 0x1a, 2, 1);
    ck_assert_uint_eq(mem_in(drv.common + 0x1a, 2), 1);
    mem_out(drv.common + 0x10, 2, 0);
    ck_assert_uint_eq(mem_in(drv.common + 0x10, 2), 0);
    request(8);
    ck_assert_uint_eq(message_count, 1);
    ck_assert_uint_eq(messages[0].data, 0x51);
    ck_assert_uint_eq(get_isr(&drv), 0);
    /* breaking the device is a configuration change */
    make_available(&drv, 1000);
    notify(&drv);
    event_poll(board.queue);
    ck_assert_uint_eq(message_count, 2);
    ck_assert_uint_eq(messages[1].data, 0x50);
}
END_TEST

START_TEST(legacy_layout_moves_with_msix)
{
    enable_msix();
    driver_start(&drv, LEGACY, 0, 0);
    outp(drv.io + 22, 2, 1);
    ck_assert_uint_eq(inp(drv.io + 22, 2), 1);
    outp(drv.io + 20, 2, 5);
    ck_assert_uint_eq(inp(drv.io + 20, 2), 0xffff);
    request(8);
    ck_assert_uint_eq(message_count, 1);
}
END_TEST

START_TEST(event_index)
{
    driver_start(&drv, (enum interface)_i, VIRTIO_F_EVENT_IDX, 8);
    uint64_t used_event = drv.avail + 4 + 2 * drv.size, avail_event = drv.used + 4 + 8 * drv.size;
    unsigned interrupts = 0;
    for (uint16_t n = 0; n < 40; n++) { /* several times around the ring */
        mem_out(used_event, 2, n % 4 == 0 ? n : n + 5000);
        request(8);
        ck_assert_uint_eq(mem_in(avail_event, 2), drv.avail_idx); /* notify for the next one */
        uint8_t isr = get_isr(&drv);
        ck_assert_msg(n == 0 || isr == (n % 4 == 0), "request %u: isr %u", n, isr);
        interrupts += isr;
    }
    ck_assert_uint_ge(interrupts, 10);
}
END_TEST

START_TEST(indirect_descriptors)
{
    uint32_t written;
    driver_start(&drv, (enum interface)_i, VIRTIO_F_INDIRECT_DESC, 8);
    for (unsigned i = 0; i < 30; i++) { /* more than the queue has entries */
        mem_out(BUFFER_AT + 0x1000 + 16 * i, 8, BUFFER_AT + 8 * i);
        mem_out(BUFFER_AT + 0x1008 + 16 * i, 4, 8);
        mem_out(BUFFER_AT + 0x100c + 16 * i, 2, DESC_WRITE | (i < 29 ? DESC_NEXT : 0));
        mem_out(BUFFER_AT + 0x100e + 16 * i, 2, i + 1);
    }
    fill_ram(BUFFER_AT, 0, 240);
    set_desc(&drv, 3, BUFFER_AT + 0x1000, 30 * 16, DESC_INDIRECT, 0);
    make_available(&drv, 3);
    notify(&drv);
    ck_assert_uint_eq(next_used(&drv, &written), 3);
    ck_assert_uint_eq(written, 240);
    ck_assert(has_random_bytes(240));
}
END_TEST

START_TEST(needs_bus_mastering)
{
    driver_start(&drv, MODERN, 0, 8);
    config_out(rng->devfn, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_IO);
    set_desc(&drv, 1, BUFFER_AT, 8, DESC_WRITE, 0);
    make_available(&drv, 1);
    notify(&drv);
    event_poll(board.queue);
    ck_assert_uint_eq(used_idx(&drv), 0);
    ck_assert_uint_eq(get_status(&drv) & VIRTIO_NEEDS_RESET, 0);
    config_out(rng->devfn, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    event_poll(board.queue); /* goes on by itself */
    ck_assert_uint_eq(used_idx(&drv), 1);
}
END_TEST

START_TEST(legacy_drivers_forget_bus_mastering)
{
    config_out(rng->devfn, PCI_COMMAND, 2, PCI_COMMAND_IO);
    driver_start(&drv, LEGACY, 0, 0);
    ck_assert_uint_eq(request(8), 8);
}
END_TEST

START_TEST(a_buffer_that_a_rule_refuses_comes_back_empty)
{
    uint32_t written;
    driver_start(&drv, MODERN, 0, 8);
    struct rules *rules = keep_page(BUFFER_AT);
    set_desc(&drv, 0, BUFFER_AT, 64, DESC_WRITE, 0);
    make_available(&drv, 0);
    notify(&drv);
    ck_assert_uint_eq(next_used(&drv, &written), 0);
    ck_assert_uint_eq(written, 0);
    rules_free(rules);
    make_available(&drv, 0);
    notify(&drv);
    ck_assert_uint_eq(next_used(&drv, &written), 0);
    ck_assert_uint_eq(written, 64);
}
END_TEST

START_TEST(not_before_driver_ok)
{
    driver_start(&drv, MODERN, 0, 8);
    set_status(&drv, 0);
    accept_features(&drv, VIRTIO_F_VERSION_1);
    set_status(&drv, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK);
    place_queue(&drv, 8);
    set_queue(&drv);
    set_desc(&drv, 1, BUFFER_AT, 8, DESC_WRITE, 0);
    make_available(&drv, 1);
    notify(&drv);
    event_poll(board.queue);
    ck_assert_uint_eq(used_idx(&drv), 0);
    set_status(&drv, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK | VIRTIO_DRIVER_OK);
    event_poll(board.queue);
    ck_assert_uint_eq(used_idx(&drv), 1);
}
END_TEST

/* 4.1.4.9: BAR 4 through configuration space. */
START_TEST(configuration_access_window)
{
    unsigned devfn = rng->devfn, at = config_in(devfn, PCI_CAPABILITY_LIST, 1);
    while (config_in(devfn, at, 1) != PCI_CAP_ID_VENDOR || config_in(devfn, at + 3, 1) != 5)
        at = config_in(devfn, at + 1, 1);
    config_out(devfn, at + 4, 1, 4);
    config_out(devfn, at + 8, 4, 0x12);
    config_out(devfn, at + 12, 4, 2);
    ck_assert_uint_eq(config_in(devfn, at + 16, 2), 1); /* num_queues */
    config_out(devfn, at + 8, 4, 0x14);
    config_out(devfn, at + 12, 4, 1);
    config_out(devfn, at + 16, 4, VIRTIO_ACKNOWLEDGE);
    ck_assert_uint_eq(get_status(&drv), VIRTIO_ACKNOWLEDGE);
    static const struct {
        uint32_t bar, offset, length;
    } bad[] = {{0, 0x14, 1}, {4, 0x4000, 1}, {4, 0xffffffff, 1}, {4, 0x13, 4},
               {4, 0x14, 0}, {4, 0x14, 3},   {4, 0x14, 8},       {255, 0x14, 1}};
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        config_out(devfn, at + 4, 1, bad[i].bar);
        config_out(devfn, at + 8, 4, bad[i].offset);
        config_out(devfn, at + 12, 4, bad[i].length);
        config_out(devfn, at + 16, 4, 0);
        config_in(devfn, at + 16, 4);
        ck_assert_uint_eq(get_status(&drv), VIRTIO_ACKNOWLEDGE);
    }
}
END_TEST

/* Every register, every width, nonsense values: nothing to assert but that we are still here, and
 * that a reset leads back to a working device. */
START_TEST(random_register_accesses)
{
    uint64_t seed = 0x9e3779b97f4a7c15ull * (unsigned)(_i + 1);
    for (int n = 0; n < 100000; n++) {
        seed = seed * 6364136223846793005ull + 1442695040888963407ull;
        unsigned what = seed >> 60, size = 1u << (seed >> 58 & 3);
        uint64_t offset = seed >> 40 & 0x3fff, value = seed * 0xff51afd7ed558ccdull;
        if (what < 8)
            offset = (offset & 0x3000) | (offset & 0x3f);
        if (what & 1)
            mem_in(drv.common + offset, size);
        else
            mem_out(drv.common + offset, size, value);
        if (what & 2)
            outp((uint16_t)(drv.io + (offset & 31)), size > 4 ? 4 : size, (uint32_t)value);
        if (n % 16 == 0)
            event_poll(board.queue);
    }
    driver_start(&drv, MODERN, 0, 8);
    ck_assert_uint_eq(request(64), 64);
}
END_TEST

START_TEST(state_can_be_restored)
{
    driver_start(&drv, MODERN, VIRTIO_F_EVENT_IDX, 8);
    request(8);
    request(8);
    const struct state_desc *desc = rng->dev.state;
    static uint64_t values[4096];
    size_t n = 0;
    for (size_t f = 0; f < desc->field_count; f++)
        for (size_t i = 0; i < desc->fields[f].count; i++)
            values[n++] = field_get(&desc->fields[f], rng, i);
    ck_assert_uint_lt(n, 4096);
    rng->dev.destroy(&rng->dev);
    struct error err;
    rng = virtio_rng_create(bus, PCI_DEVFN(3, 0), &err);
    n = 0;
    for (size_t f = 0; f < desc->field_count; f++)
        for (size_t i = 0; i < desc->fields[f].count; i++)
            field_set(&desc->fields[f], rng, i, values[n++]);
    rng->dev.restored(&rng->dev);
    ck_assert_uint_eq(request(8), 8); /* goes on where it was, the driver none the wiser */
    ck_assert_uint_eq(drv.used_seen, 3);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("virtio_pci");
    TCase *tc = tcase_create("virtio_pci");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, identity);
    tcase_add_loop_test(tc, works_in_both_interfaces, 0, 2);
    tcase_add_test(tc, feature_negotiation);
    tcase_add_test(tc, queue_registers);
    tcase_add_test(tc, enabled_queues_are_fixed);
    tcase_add_test(tc, reset_returns_to_the_start);
    tcase_add_loop_test(tc, intx_and_isr, 0, 2);
    tcase_add_test(tc, msix_vectors);
    tcase_add_test(tc, legacy_layout_moves_with_msix);
    tcase_add_loop_test(tc, event_index, 0, 2);
    tcase_add_loop_test(tc, indirect_descriptors, 0, 2);
    tcase_add_test(tc, needs_bus_mastering);
    tcase_add_test(tc, legacy_drivers_forget_bus_mastering);
    tcase_add_test(tc, a_buffer_that_a_rule_refuses_comes_back_empty);
    tcase_add_test(tc, not_before_driver_ok);
    tcase_add_test(tc, configuration_access_window);
    tcase_add_loop_test(tc, random_register_accesses, 0, 4);
    tcase_add_test(tc, state_can_be_restored);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
