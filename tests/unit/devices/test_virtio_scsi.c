/*
 * test_virtio_scsi.c - the SCSI adapter: addresses, queues, task management, and drivers that break
 * the rules.
 */
#include "scsi_driver.h"

/* ---- Who is there ------------------------------------------------------------------------------
 */

START_TEST(configuration)
{
    ck_assert_uint_eq(config_in(adapter->devfn, PCI_DEVICE_ID, 2), 0x1004);
    ck_assert_uint_eq(config_in(adapter->devfn, PCI_SUBSYSTEM_ID, 2), 8);
    ck_assert_uint_eq(offered_features(&drv) & 15, 0);
    ck_assert_uint_eq(get_config(&drv, 0, 4), 1);      /* num_queues */
    ck_assert_uint_eq(get_config(&drv, 4, 4), 254);    /* seg_max */
    ck_assert_uint_eq(get_config(&drv, 20, 4), 96);    /* sense_size */
    ck_assert_uint_eq(get_config(&drv, 24, 4), 32);    /* cdb_size */
    ck_assert_uint_eq(get_config(&drv, 30, 2), 255);   /* max_target */
    ck_assert_uint_eq(get_config(&drv, 32, 4), 16383); /* max_lun */
    set_config(&drv, 0, 4, 9);
    set_config(&drv, 20, 4, 40);
    ck_assert_uint_eq(get_config(&drv, 0, 4), 1);
    ck_assert_uint_eq(get_config(&drv, 20, 4), 40);
    set_status(&drv, 0);
    ck_assert_uint_eq(get_config(&drv, 20, 4), 96);
}
END_TEST

START_TEST(each_request_queue_is_served_and_has_its_vector)
{
    unplug();
    plug(13, false);
    ck_assert_uint_eq(mem_in(drv.common + 0x12, 2), 15);
    ck_assert_uint_eq(get_config(&drv, 0, 4), 13);
    for (unsigned queue = 2; queue < 15; queue++) {
        struct driver first = drv;
        drv.queue = queue;
        if (queue > 2) {
            place_queue(&drv, 64);
            set_queue(&drv);
        }
        mem_out(drv.common + 0x16, 2, queue);
        mem_out(drv.common + 0x1a, 2, queue + 1);
        ck_assert_uint_eq(mem_in(drv.common + 0x1a, 2), queue + 1);
        command(CDB(0x12, 0, 0, 0, 36), 0, 36);
        expect_good(36);
        drv = first;
    }
    mem_out(drv.common + 0x16, 2, 15); /* there is no such queue */
    ck_assert_uint_eq(mem_in(drv.common + 0x18, 2), 0);
    mem_out(drv.common + 0x16, 2, 2);
    mem_out(drv.common + 0x1a, 2, 16); /* nor such a vector */
    ck_assert_uint_eq(mem_in(drv.common + 0x1a, 2), VIRTIO_NO_VECTOR);
}
END_TEST

START_TEST(addresses)
{
    static const struct {
        struct lun lun;
        unsigned response;
    } cases[] = {
        {{{1, TARGET_DISK, 0x00, 0}}, S_OK},
        {{{1, TARGET_DISK, 0x40, 0}}, S_OK},
        {{{1, 1, 0x40, 0}}, S_BAD_TARGET},
        {{{0, TARGET_DISK, 0x40, 0}}, S_BAD_TARGET},
        {{{2, TARGET_DISK, 0x40, 0}}, S_BAD_TARGET},
        {{{1, TARGET_DISK, 0x80, 0}}, S_BAD_TARGET},
        {{{1, TARGET_DISK, 0x01, 0}}, S_BAD_TARGET},
        {{{1, TARGET_DISK, 0x40, 0, 0, 0, 0, 1}}, S_BAD_TARGET},
        {{{0xc1, 1}}, S_BAD_TARGET},
        {{{1, TARGET_HIGH, 0x41, 44}}, S_OK}, /* 300 */
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        command_at(cases[i].lun, CDB(0x12, 0, 0, 0, 36), 0, 36);
        ck_assert_msg(last.response == cases[i].response, "case %u: %u", i, last.response);
        if (cases[i].response == S_OK)
            ck_assert_uint_eq(data(1)[0], 0);
    }
}
END_TEST

START_TEST(units_are_reported)
{
    command(CDB(0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64), 0, 64);
    expect_good(16);
    ck_assert_uint_eq(last.residual, 48);
    ck_assert_uint_eq(data32(0), 8);
    ck_assert_uint_eq(data32(8), 0);
    struct device *second = unit(&disk, false, TARGET_DISK, 5);
    command(CDB(0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64), 0, 64);
    expect_good(24);
    second->destroy(second);
    command_at(lun_of(TARGET_HIGH, 0), CDB(0xa0, 0, 2, 0, 0, 0, 0, 0, 0, 64), 0, 64);
    expect_good(16); /* from a target without a unit 0 */
    ck_assert_uint_eq(data32(8), 0x412c0000);
    command(CDB(0xa0, 0, 1, 0, 0, 0, 0, 0, 0, 64), 0, 64);
    expect_good(8);
    command(CDB(0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 15), 0, 64);
    expect_check(5, 0x2400);
    command(CDB(0xa0, 0, 3, 0, 0, 0, 0, 0, 0, 64), 0, 64);
    expect_check(5, 0x2400);
}
END_TEST

START_TEST(units_that_do_not_exist)
{
    command_at(lun_of(TARGET_HIGH, 0), CDB(0x12, 0, 0, 0, 36), 0, 36);
    expect_good(36);
    ck_assert_uint_eq(data(1)[0], 0x7f);
    command_at(lun_of(TARGET_HIGH, 0), CDB(0x03, 0, 0, 0, 18), 0, 18);
    expect_good(18);
    ck_assert_uint_eq(data(13)[12], 0x25);
    command_at(lun_of(TARGET_HIGH, 0), CDB(0), 0, 0);
    expect_check(5, 0x2500);
}
END_TEST

START_TEST(places_are_taken_once)
{
    struct error err = {""};
    const struct scsi_unit_options options = {.disk = &disk, .target = TARGET_CD};
    ck_assert_ptr_null(scsi_unit_create(virtio_scsi_bus(adapter), &options, &err));
    ck_assert_str_eq(err.msg, "scsi-hd: scsi-id=3, lun=0 is taken by another drive");
}
END_TEST

START_TEST(inquiry)
{
    command(CDB(0x12, 0, 0, 0, 255), 0, 255);
    expect_good(36);
    ck_assert_int_eq(memcmp(data(36) + 8, "BAILEY  BAILEY HARDDISK 1.0 ", 28), 0);
    command(CDB(0x12, 0, 0, 0, 5), 0, 255);
    expect_good(5);
    command(CDB(0x12, 1, 0x00, 0, 255), 0, 255);
    expect_good(10);
    ck_assert_int_eq(memcmp(data(10), "\0\0\0\6\0\x80\x83\xb0\xb1\xb2", 10), 0);
    command(CDB(0x12, 1, 0x80, 0, 255), 0, 255);
    expect_good(12);
    ck_assert_int_eq(memcmp(data(12) + 4, "SERIAL-7", 8), 0);
    command(CDB(0x12, 1, 0x83, 0, 255), 0, 255);
    expect_good(4 + 12 + 12);
    ck_assert_uint_eq(data32(20), 0x5000c500);
    command(CDB(0x12, 1, 0xb0, 0, 255), 0, 255);
    expect_good(64);
    ck_assert_uint_eq(data32(20), 0x3fffff);
    command(CDB(0x12, 1, 0xb1, 0, 255), 0, 255);
    expect_good(64);
    command(CDB(0x12, 1, 0xb2, 0, 255), 0, 255);
    expect_good(8);
    ck_assert_uint_eq(data(8)[5], 0xe0);
    command(CDB(0x12, 1, 0xb3, 0, 255), 0, 255);
    expect_check(5, 0x2400);
    command(CDB(0x12, 0, 0x80, 0, 255), 0, 255);
    expect_check(5, 0x2400);
    ready(); /* none of this has told of power-on */
}
END_TEST

START_TEST(request_sense_tells_of_attention_once)
{
    command(CDB(0x03, 0, 0, 0, 18), 0, 18);
    expect_good(18);
    ck_assert_uint_eq(data(13)[2], 6);
    ck_assert_uint_eq(data(13)[12], 0x29);
    command(CDB(0x03, 0, 0, 0, 18), 0, 18);
    expect_good(18);
    ck_assert_uint_eq(data(3)[2], 0);
    command(CDB(0x03, 1, 0, 0, 18), 0, 18);
    expect_check(5, 0x2400);
    command(CDB(0), 0, 0);
    expect_good(0);
}
END_TEST

/* ---- Task management ---------------------------------------------------------------------------
 */

#define TMF_AT (HEADER_AT + 0x7000)

static void queue_tmf(uint32_t what, struct lun lun, uint64_t id)
{
    mem_out(TMF_AT, 4, 0);
    mem_out(TMF_AT + 4, 4, what);
    put_bytes(TMF_AT + 8, lun.bytes, 8);
    mem_out(TMF_AT + 16, 8, id);
    mem_out(TMF_AT + 32, 1, S_NONE);
    set_desc(&control, 0, TMF_AT, 24, DESC_NEXT, 1);
    set_desc(&control, 1, TMF_AT + 32, 1, DESC_WRITE, 0);
    make_available(&control, 0);
    notify(&control);
    event_poll(board.queue);
}

static bool tmf_answered(void)
{
    return used_idx(&control) != control.used_seen;
}

static unsigned tmf_response(void)
{
    uint32_t written;
    ck_assert(tmf_answered());
    next_used(&control, &written);
    ck_assert_uint_eq(written, 1);
    return (unsigned)mem_in(TMF_AT + 32, 1);
}

static unsigned tmf(uint32_t what, struct lun lun, uint64_t id)
{
    queue_tmf(what, lun, id);
    return tmf_response();
}

START_TEST(functions_without_tasks)
{
    struct lun here = lun_of(TARGET_DISK, 0);
    ready();
    ck_assert_uint_eq(tmf(ABORT_TASK, here, 100), S_OK);
    ck_assert_uint_eq(tmf(ABORT_TASK_SET, here, 0), S_OK);
    ck_assert_uint_eq(tmf(CLEAR_TASK_SET, here, 0), S_OK);
    ck_assert_uint_eq(tmf(CLEAR_ACA, here, 0), S_REJECTED);
    ck_assert_uint_eq(tmf(99, here, 0), S_REJECTED);
    ck_assert_uint_eq(tmf(QUERY_TASK, here, 100), S_OK);
    ck_assert_uint_eq(tmf(ABORT_TASK_SET, lun_of(TARGET_DISK, 1), 0), S_INCORRECT_LUN);
    ck_assert_uint_eq(tmf(LUN_RESET, lun_of(1, 0), 0), S_BAD_TARGET);
    ck_assert_uint_eq(tmf(LUN_RESET, here, 0), S_OK);
    command(CDB(0), 0, 0);
    expect_check(6, 0x2903);
    ck_assert_uint_eq(tmf(NEXUS_RESET, lun_of(TARGET_DISK, 9), 0), S_OK);
    command(CDB(0), 0, 0);
    expect_check(6, 0x2907);
}
END_TEST

START_TEST(functions_wait_for_what_they_abort)
{
    struct lun here = lun_of(TARGET_DISK, 0);
    uint32_t written;
    ready();
    queue_command(1, here, CDB(0x2a, [5] = 1, [8] = 1), 512, 0);
    queue_command(2, here, CDB(0x2a, [5] = 2, [8] = 1), 512, 0);
    notify(&drv);
    event_poll(board.queue);
    ck_assert_uint_eq(disk.count, 2);
    ck_assert_uint_eq(tmf(QUERY_TASK, here, 101), S_SUCCEEDED);
    ck_assert_uint_eq(tmf(QUERY_TASK, here, 103), S_OK);
    ck_assert_uint_eq(tmf(QUERY_TASK_SET, here, 0), S_SUCCEEDED);
    queue_tmf(ABORT_TASK, here, 102);
    ck_assert(!tmf_answered());
    disk_complete(&disk, 0);
    ck_assert(!tmf_answered());
    ck_assert_uint_eq(next_used(&drv, &written), 4);
    read_response(1);
    ck_assert_uint_eq(last.response, S_OK);
    disk_complete(&disk, 0);
    ck_assert_uint_eq(tmf_response(), S_OK);
    ck_assert_uint_eq(next_used(&drv, &written), 8);
    read_response(2);
    ck_assert_uint_eq(last.response, S_ABORTED);
}
END_TEST

START_TEST(a_unit_reset_ends_its_tasks_only)
{
    struct lun here = lun_of(TARGET_DISK, 0);
    uint32_t written;
    ready();
    disc_command(CDB(0), 0);
    queue_command(1, here, CDB(0x28, [7] = 8, 0), 0, 2048 * 512); /* of several chunks */
    queue_command(2, lun_of(TARGET_CD, 0), CDB(0x28, [8] = 1), 0, 2048);
    notify(&drv);
    event_poll(board.queue);
    queue_tmf(LUN_RESET, here, 0);
    ck_assert(!tmf_answered());
    disk_complete(&disk, 0);
    ck_assert_uint_eq(disk.count, 0); /* the other chunks are not asked for */
    ck_assert_uint_eq(tmf_response(), S_OK);
    ck_assert_uint_eq(next_used(&drv, &written), 4);
    read_response(1);
    ck_assert_uint_eq(last.response, S_RESET);
    disk_complete(&disc, 0);
    ck_assert_uint_eq(next_used(&drv, &written), 8);
    read_response(2);
    ck_assert_uint_eq(last.response, S_OK);
    ck_assert_uint_eq(last.status, GOOD);
}
END_TEST

START_TEST(a_unit_reset_leaves_the_targets_other_units_alone)
{
    uint32_t written;
    struct device *second = unit(&high, false, TARGET_DISK, 1);
    ready();
    command_at(lun_of(TARGET_DISK, 1), CDB(0), 0, 0);
    queue_command(1, lun_of(TARGET_DISK, 0), CDB(0x28, [8] = 1), 0, 512);
    queue_command(2, lun_of(TARGET_DISK, 1), CDB(0x28, [8] = 1), 0, 512);
    notify(&drv);
    event_poll(board.queue);
    queue_tmf(LUN_RESET, lun_of(TARGET_DISK, 1), 0);
    disk_settle(&high);
    ck_assert_uint_eq(tmf_response(), S_OK);
    disk_settle(&disk);
    ck_assert_uint_eq(next_used(&drv, &written), 8);
    read_response(2);
    ck_assert_uint_eq(last.response, S_RESET);
    ck_assert_uint_eq(next_used(&drv, &written), 4);
    read_response(1);
    ck_assert_uint_eq(last.response, S_OK);
    command(CDB(0), 0, 0);
    expect_good(0);
    second->destroy(second);
}
END_TEST

START_TEST(nothing_new_before_stale_requests_have_ended)
{
    struct lun here = lun_of(TARGET_DISK, 0);
    ready();
    queue_command(1, here, CDB(0x2a, [8] = 1), 512, 0);
    notify(&drv);
    event_poll(board.queue);
    queue_tmf(LUN_RESET, here, 0);
    ck_assert(!tmf_answered());
    start(); /* a reset */
    queue_command(1, here, CDB(0x12, 0, 0, 0, 36), 0, 36);
    notify(&drv);
    event_poll(board.queue);
    ck_assert_uint_eq(used_idx(&drv), 0);
    disk_complete(&disk, 0);
    event_poll(board.queue);
    ck_assert_uint_eq(used_idx(&drv), 1);
    ck_assert_uint_eq(used_idx(&control), 0); /* the function is forgotten */
    read_response(1);
    ck_assert_uint_eq(last.response, S_OK);
}
END_TEST

START_TEST(notifications)
{
    mem_out(TMF_AT, 4, 2);
    put_bytes(TMF_AT + 4, lun_of(TARGET_CD, 0).bytes, 8);
    mem_out(TMF_AT + 12, 4, 0x7e);
    fill_ram(TMF_AT + 32, 0xee, 5);
    set_desc(&control, 0, TMF_AT, 16, DESC_NEXT, 1);
    set_desc(&control, 1, TMF_AT + 32, 5, DESC_WRITE, 0);
    make_available(&control, 0);
    notify(&control);
    event_poll(board.queue);
    ck_assert(tmf_answered());
    ck_assert_uint_eq(mem_in(TMF_AT + 32, 4), 0);
    ck_assert_uint_eq(mem_in(TMF_AT + 36, 1), S_OK);
}
END_TEST

/* ---- Bad drivers -------------------------------------------------------------------------------
 */

static void expect_broken(void)
{
    event_poll(board.queue);
    settle();
    ck_assert_uint_ne(get_status(&drv) & VIRTIO_NEEDS_RESET, 0);
    start();
    ready();
}

START_TEST(malformed_requests_break_the_device)
{
    ready();
    queue_command(0, lun_of(0, 0), CDB(0), 0, 0);
    set_desc(&drv, 0, HEADER_AT, HEADER - 1, DESC_NEXT, 2);
    notify(&drv);
    expect_broken();
    queue_command(0, lun_of(0, 0), CDB(0), 0, 0);
    set_desc(&drv, 2, STATUS_AT, RESPONSE - 1, DESC_WRITE, 0);
    notify(&drv);
    expect_broken();
    queue_command(0, lun_of(0, 0), CDB(0x28, [8] = 1), 0, 512);
    set_desc(&drv, 3, RAM_SIZE, 512, DESC_WRITE, 0); /* where no memory is */
    notify(&drv);
    expect_broken();
    queue_command(0, lun_of(0, 0), CDB(0), 0, 0);
    set_desc(&drv, 2, RAM_SIZE, RESPONSE, DESC_WRITE, 0);
    notify(&drv);
    expect_broken();
    set_config(&drv, 24, 4, 257); /* cdb_size */
    queue_command(0, lun_of(0, 0), CDB(0), 0, 0);
    notify(&drv);
    expect_broken();
    queue_tmf(ABORT_TASK, lun_of(0, 0), 0);
    ck_assert_uint_eq(tmf_response(), S_OK);
    mem_out(TMF_AT, 4, 7);
    make_available(&control, 0);
    notify(&control);
    expect_broken();
}
END_TEST

START_TEST(sizes_of_the_drivers_choice)
{
    uint8_t status[12];
    ready();
    set_config(&drv, 20, 4, 4);  /* sense */
    set_config(&drv, 24, 4, 12); /* CDB */
    queue_command(0, lun_of(0, 0), CDB(0xff), 0, 0);
    set_desc(&drv, 0, HEADER_AT, 19 + 12, DESC_NEXT, 2);
    set_desc(&drv, 2, STATUS_AT, 16, DESC_WRITE, 0);
    notify(&drv);
    settle();
    uint32_t written;
    next_used(&drv, &written);
    ck_assert_uint_eq(written, 16);
    get_bytes(STATUS_AT, status, 12);
    ck_assert_uint_eq(status[0], 4);
    ck_assert_uint_eq(status[10], CHECK);
    ck_assert_uint_eq(mem_in(STATUS_AT + 16, 1), S_NONE);
}
END_TEST

START_TEST(more_requests_than_descriptors_wait)
{
    struct lun here = lun_of(TARGET_DISK, 0);
    ready();
    drv.queue = 2;
    driver_start(&drv, MODERN, 0, 8);
    ready();
    queue_command(0, here, CDB(0x28, [8] = 1), 0, 512);
    for (unsigned i = 1; i < 12; i++) { /* the same chain, before it has been given back */
        if (i == 8) {
            notify(&drv);
            event_poll(board.queue);
        }
        make_available(&drv, 0);
    }
    notify(&drv);
    event_poll(board.queue);
    ck_assert_uint_eq(disk.count, 8);
    settle();
    ck_assert_uint_eq(used_idx(&drv), 2 + 12);
}
END_TEST

START_TEST(kept_from_the_device)
{
    ready();
    struct rules *rules = keep_page(DATA_AT + 4096);
    command(CDB(0x28, [8] = 16), 0, 8192);
    ck_assert_uint_eq(last.response, S_FAILURE);
    command(CDB(0x2a, [8] = 16), 8192, 0);
    ck_assert_uint_eq(last.response, S_FAILURE);
    command(CDB(0x28, [8] = 8), 0, 4096);
    expect_good(4096);
    rules_free(rules);
}
END_TEST

START_TEST(destroyed_while_the_image_works)
{
    ready();
    queue_command(1, lun_of(0, 0), CDB(0x2a, [8] = 1), 512, 0);
    queue_command(2, lun_of(0, 0), CDB(0x28, [7] = 8, 0), 0, 2048 * 512);
    notify(&drv);
    event_poll(board.queue);
    queue_tmf(ABORT_TASK, lun_of(0, 0), 101);
    ck_assert_uint_eq(disk.count, 2);
    unplug(); /* the images answer when adapter and units are gone */
    ck_assert_uint_eq(disk.count, 0);
    ck_assert_str_eq(disk.log, "WR"); /* the read has no second chunk */
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        configuration,
        each_request_queue_is_served_and_has_its_vector,
        addresses,
        units_are_reported,
        units_that_do_not_exist,
        places_are_taken_once,
        inquiry,
        request_sense_tells_of_attention_once,
        functions_without_tasks,
        functions_wait_for_what_they_abort,
        a_unit_reset_ends_its_tasks_only,
        a_unit_reset_leaves_the_targets_other_units_alone,
        nothing_new_before_stale_requests_have_ended,
        notifications,
        malformed_requests_break_the_device,
        sizes_of_the_drivers_choice,
        more_requests_than_descriptors_wait,
        kept_from_the_device,
        destroyed_while_the_image_works,
    };
    return run_tests("virtio_scsi", tests, sizeof(tests) / sizeof(tests[0]));
}
