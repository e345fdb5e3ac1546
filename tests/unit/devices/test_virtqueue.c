/*
 * test_virtqueue.c - malformed rings: each makes the device ask for a reset, write nothing outside
 * the buffers it was given, and work again after the reset. The entropy device stands for all.
 */
#include "virtio_driver.h"

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

static void expect_working(enum interface interface)
{
    uint32_t written;
    driver_start(&drv, interface, VIRTIO_F_INDIRECT_DESC, 8);
    set_desc(&drv, 0, BUFFER_AT, 16, DESC_WRITE, 0);
    make_available(&drv, 0);
    notify(&drv);
    ck_assert_uint_eq(next_used(&drv, &written), 0);
    ck_assert_uint_eq(written, 16);
}

/* ---- One malformed thing at a time --------------------------------------------------------------
 */

static const uint64_t table = BUFFER_AT + 0x10000; /* of indirect descriptors */

static void indirect(unsigned i, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
    mem_out(table + 16 * i, 8, addr);
    mem_out(table + 16 * i + 8, 4, len);
    mem_out(table + 16 * i + 12, 2, flags);
    mem_out(table + 16 * i + 14, 2, next);
}

static void index_ahead(void)
{
    set_desc(&drv, 0, BUFFER_AT, 16, DESC_WRITE, 0);
    mem_out(drv.avail + 2, 2, drv.size + 1);
}

static void index_behind(void)
{
    set_desc(&drv, 0, BUFFER_AT, 16, DESC_WRITE, 0);
    mem_out(drv.avail + 2, 2, 0xffff);
}

static void head_out_of_range(void)
{
    make_available(&drv, (uint16_t)drv.size);
}

static void head_far_out_of_range(void)
{
    make_available(&drv, 0xffff);
}

static void next_out_of_range(void)
{
    set_desc(&drv, 0, BUFFER_AT, 16, DESC_WRITE | DESC_NEXT, 0xffff);
    make_available(&drv, 0);
}

static void loop_of_one(void)
{
    set_desc(&drv, 0, BUFFER_AT, 16, DESC_WRITE | DESC_NEXT, 0);
    make_available(&drv, 0);
}

static void loop_of_two(void)
{
    set_desc(&drv, 0, BUFFER_AT, 16, DESC_WRITE | DESC_NEXT, 1);
    set_desc(&drv, 1, BUFFER_AT, 16, DESC_WRITE | DESC_NEXT, 0);
    make_available(&drv, 0);
}

static void loop_of_empty_buffers(void)
{
    set_desc(&drv, 0, BUFFER_AT, 0, DESC_WRITE | DESC_NEXT, 0);
    make_available(&drv, 0);
}

static void readable_after_writable(void)
{
    set_desc(&drv, 0, BUFFER_AT, 16, DESC_WRITE | DESC_NEXT, 1);
    set_desc(&drv, 1, BUFFER_AT, 16, 0, 0);
    make_available(&drv, 0);
}

static void indirect_and_next(void)
{
    indirect(0, BUFFER_AT, 16, DESC_WRITE, 0);
    set_desc(&drv, 0, table, 16, DESC_INDIRECT | DESC_NEXT, 1);
    set_desc(&drv, 1, BUFFER_AT, 16, DESC_WRITE, 0);
    make_available(&drv, 0);
}

static void indirect_in_indirect(void)
{
    indirect(0, table + 16, 16, DESC_INDIRECT, 0);
    indirect(1, BUFFER_AT, 16, DESC_WRITE, 0); /* harmless, were it allowed */
    set_desc(&drv, 0, table, 16, DESC_INDIRECT, 0);
    make_available(&drv, 0);
}

static void indirect_empty(void)
{
    set_desc(&drv, 0, table, 0, DESC_INDIRECT, 0);
    make_available(&drv, 0);
}

static void indirect_odd_size(void)
{
    indirect(0, BUFFER_AT, 16, DESC_WRITE, 0);
    set_desc(&drv, 0, table, 24, DESC_INDIRECT, 0);
    make_available(&drv, 0);
}

static void indirect_wraps(void)
{
    set_desc(&drv, 0, UINT64_MAX - 15, 64, DESC_INDIRECT, 0);
    make_available(&drv, 0);
}

static void indirect_in_a_hole(void)
{
    set_desc(&drv, 0, RAM_SIZE, 16, DESC_INDIRECT, 0);
    make_available(&drv, 0);
}

static void indirect_in_registers(void)
{
    set_desc(&drv, 0, drv.common, 16, DESC_INDIRECT, 0);
    make_available(&drv, 0);
}

static void indirect_leaves_its_table(void)
{
    indirect(0, BUFFER_AT, 16, DESC_WRITE | DESC_NEXT, 1);
    indirect(1, BUFFER_AT, 16, DESC_WRITE, 0);
    set_desc(&drv, 0, table, 16, DESC_INDIRECT, 0);
    make_available(&drv, 0);
}

static void indirect_loop(void)
{
    indirect(0, BUFFER_AT, 16, DESC_WRITE | DESC_NEXT, 0);
    set_desc(&drv, 0, table, 0xfffffff0, DESC_INDIRECT, 0);
    make_available(&drv, 0);
}

static void indirect_too_long(void)
{
    for (unsigned i = 0; i <= VIRTQ_MAX_SEGMENTS; i++)
        indirect(i, BUFFER_AT, 1, i < VIRTQ_MAX_SEGMENTS ? DESC_WRITE | DESC_NEXT : DESC_WRITE,
                 (uint16_t)(i + 1));
    set_desc(&drv, 0, table, 16 * (VIRTQ_MAX_SEGMENTS + 1), DESC_INDIRECT, 0);
    make_available(&drv, 0);
}

static void buffer_wraps(void)
{
    set_desc(&drv, 0, UINT64_MAX - 7, 16, DESC_WRITE, 0);
    make_available(&drv, 0);
}

static void buffer_in_a_hole(void)
{
    set_desc(&drv, 0, RAM_SIZE + 0x1000, 16, DESC_WRITE, 0);
    make_available(&drv, 0);
}

static void buffer_leaves_memory(void)
{
    set_desc(&drv, 0, RAM_SIZE - 8, 16, DESC_WRITE, 0);
    make_available(&drv, 0);
}

static void buffer_in_own_registers(void)
{
    set_desc(&drv, 0, drv.notify, 4, DESC_WRITE, 0);
    make_available(&drv, 0);
}

/* Queue areas in impossible places: the queue is set up again with one address changed. */
static void move_area(unsigned reg, uint64_t gpa)
{
    set_status(&drv, 0);
    accept_features(&drv, VIRTIO_F_VERSION_1);
    set_status(&drv, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK);
    set_desc(&drv, 0, BUFFER_AT, 16, DESC_WRITE, 0);
    make_available(&drv, 0);
    uint64_t *area = reg == 0x20 ? &drv.desc : reg == 0x28 ? &drv.avail : &drv.used;
    *area = gpa;
    set_queue(&drv);
    set_status(&drv, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK | VIRTIO_DRIVER_OK);
}

static void descriptors_in_a_hole(void)
{
    move_area(0x20, RAM_SIZE);
}

static void descriptors_in_registers(void)
{
    move_area(0x20, drv.common);
}

static void descriptors_wrap(void)
{
    move_area(0x20, UINT64_MAX - 15);
}

static void available_in_a_hole(void)
{
    move_area(0x28, RAM_SIZE);
}

static void available_in_registers(void)
{
    move_area(0x28, drv.common);
}

static void used_in_a_hole(void)
{
    move_area(0x30, RAM_SIZE);
}

static void used_in_registers(void)
{
    move_area(0x30, drv.notify);
}

static void used_at_the_end(void)
{
    move_area(0x30, UINT64_MAX - 3);
}

static void unaligned(void)
{
    move_area(0x20, QUEUE_AT + 8);
}

static const struct {
    const char *name;
    void (*make)(void);
    bool modern_only;
} attacks[] = {
#define ATTACK(name, modern_only)                                                                  \
    {                                                                                              \
#name, name, modern_only                                                                   \
    }
    ATTACK(index_ahead, false),
    ATTACK(index_behind, false),
    ATTACK(head_out_of_range, false),
    ATTACK(head_far_out_of_range, false),
    ATTACK(next_out_of_range, false),
    ATTACK(loop_of_one, false),
    ATTACK(loop_of_two, false),
    ATTACK(loop_of_empty_buffers, false),
    ATTACK(readable_after_writable, false),
    ATTACK(indirect_and_next, false),
    ATTACK(indirect_in_indirect, false),
    ATTACK(indirect_empty, false),
    ATTACK(indirect_odd_size, false),
    ATTACK(indirect_wraps, false),
    ATTACK(indirect_in_a_hole, false),
    ATTACK(indirect_in_registers, false),
    ATTACK(indirect_leaves_its_table, false),
    ATTACK(indirect_loop, false),
    ATTACK(indirect_too_long, false),
    ATTACK(buffer_wraps, false),
    ATTACK(buffer_in_a_hole, false),
    ATTACK(buffer_leaves_memory, false),
    ATTACK(buffer_in_own_registers, false),
    ATTACK(descriptors_in_a_hole, true),
    ATTACK(descriptors_in_registers, true),
    ATTACK(descriptors_wrap, true),
    ATTACK(available_in_a_hole, true),
    ATTACK(available_in_registers, true),
    ATTACK(used_in_a_hole, true),
    ATTACK(used_in_registers, true),
    ATTACK(used_at_the_end, true),
    ATTACK(unaligned, true),
#undef ATTACK
};
#define ATTACKS ((int)(sizeof(attacks) / sizeof(attacks[0])))

START_TEST(attack)
{
    for (enum interface interface = MODERN; interface <= LEGACY; interface++) {
        if (interface == LEGACY && attacks[_i].modern_only)
            continue;
        unsigned irq = config_in(rng->devfn, PCI_INTERRUPT_LINE, 1);
        driver_start(&drv, interface, VIRTIO_F_INDIRECT_DESC, 8);
        fill_ram(BUFFER_AT, 0, 64);
        attacks[_i].make();
        notify(&drv);
        event_poll(board.queue);
        ck_assert_msg(get_status(&drv) & VIRTIO_NEEDS_RESET, "%s was not noticed",
                      attacks[_i].name);
        if (attacks[_i].make != unaligned) { /* that one comes before DRIVER_OK */
            ck_assert(irq_level[irq]);
            ck_assert_uint_eq(get_isr(&drv) & 2, 2);
        }
        /* stopped: not even a good request is served */
        if (!attacks[_i].modern_only) {
            uint16_t used = used_idx(&drv);
            set_desc(&drv, 0, BUFFER_AT, 16, DESC_WRITE, 0);
            make_available(&drv, 0);
            notify(&drv);
            event_poll(board.queue);
            ck_assert_uint_eq(used_idx(&drv), used);
            ck_assert_uint_eq(mem_in(BUFFER_AT + 16, 8), 0);
        }
        /* the driver cannot talk it out of that except by a reset */
        set_status(&drv, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_DRIVER_OK);
        ck_assert(get_status(&drv) & VIRTIO_NEEDS_RESET);
        expect_working(interface);
    }
}
END_TEST

START_TEST(indirect_needs_its_feature)
{
    driver_start(&drv, MODERN, 0, 8);
    indirect(0, BUFFER_AT, 16, DESC_WRITE, 0);
    set_desc(&drv, 0, table, 16, DESC_INDIRECT, 0);
    make_available(&drv, 0);
    notify(&drv);
    event_poll(board.queue);
    ck_assert(get_status(&drv) & VIRTIO_NEEDS_RESET);
}
END_TEST

START_TEST(longest_chain)
{
    uint32_t written;
    driver_start(&drv, MODERN, VIRTIO_F_INDIRECT_DESC, 8);
    for (unsigned i = 0; i < VIRTQ_MAX_SEGMENTS; i++)
        indirect(i, BUFFER_AT + i, 1,
                 i + 1 < VIRTQ_MAX_SEGMENTS ? DESC_WRITE | DESC_NEXT : DESC_WRITE,
                 (uint16_t)(i + 1));
    set_desc(&drv, 0, table, 16 * VIRTQ_MAX_SEGMENTS, DESC_INDIRECT, 0);
    make_available(&drv, 0);
    notify(&drv);
    next_used(&drv, &written);
    ck_assert_uint_eq(written, VIRTQ_MAX_SEGMENTS);
}
END_TEST

START_TEST(empty_and_readable_buffers_are_harmless)
{
    uint32_t written;
    driver_start(&drv, MODERN, 0, 8);
    set_desc(&drv, 0, 0, 0, DESC_WRITE, 0); /* of no length, nowhere */
    set_desc(&drv, 1, BUFFER_AT, 16, 0, 0);
    make_available(&drv, 0);
    make_available(&drv, 1);
    notify(&drv);
    ck_assert_uint_eq(next_used(&drv, &written), 0);
    ck_assert_uint_eq(written, 0);
    ck_assert_uint_eq(next_used(&drv, &written), 1);
    ck_assert_uint_eq(written, 0);
}
END_TEST

/* Indices run over 65535 without a hiccup, whatever the queue's size. */
START_TEST(indices_wrap)
{
    uint32_t written;
    driver_start(&drv, MODERN, 0, 2);
    set_desc(&drv, 0, BUFFER_AT, 1, DESC_WRITE, 0);
    for (unsigned n = 0; n < 70000; n++) {
        make_available(&drv, 0);
        notify(&drv);
        ck_assert_uint_eq(next_used(&drv, &written), 0);
    }
    ck_assert_uint_eq(used_idx(&drv), (uint16_t)70000);
}
END_TEST

/* Rings full of noise: some are well-formed by chance, most are not, none does harm (the sanitizers
 * watch), and the device always comes back. */
START_TEST(noise)
{
    uint64_t seed = 88172645463325252ull + (unsigned)_i;
    unsigned broken = 0;
    for (unsigned round = 0; round < 1000; round++) {
        driver_start(&drv, (enum interface)(round & 1), round & 2 ? VIRTIO_F_INDIRECT_DESC : 0, 8);
        for (unsigned i = 0; i < 8; i++) {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            uint64_t addr = BUFFER_AT + (seed & 0xffff0);
            if (seed >> 60 == 0)
                addr = seed;
            set_desc(&drv, i, addr, (uint32_t)(seed >> 20 & 0x1ff), (uint16_t)(seed >> 40 & 7),
                     (uint16_t)(seed >> 44 & 7));
            mem_out(drv.avail + 4 + 2 * i, 2, seed >> 50 & 7);
        }
        mem_out(drv.avail + 2, 2, seed >> 30 & 15);
        notify(&drv);
        event_poll(board.queue);
        broken += (get_status(&drv) & VIRTIO_NEEDS_RESET) != 0;
    }
    ck_assert_uint_gt(broken, 300);
    ck_assert_uint_lt(broken, 1000);
    expect_working(MODERN);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("virtqueue");
    TCase *tc = tcase_create("virtqueue");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, attack, 0, ATTACKS);
    tcase_add_test(tc, indirect_needs_its_feature);
    tcase_add_test(tc, longest_chain);
    tcase_add_test(tc, empty_and_readable_buffers_are_harmless);
    tcase_add_test(tc, indices_wrap);
    tcase_add_loop_test(tc, noise, 0, 4);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
