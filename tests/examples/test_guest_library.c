/*
 * test_guest_library.c - libbailey-guest against a door that is only memory: what it stores where,
 * what it makes of answers, events and upcalls.
 */
#include "bailey_guest.h"
#include <check.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static struct protect_door *fake; /* its registers keep what is stored */
static struct bailey_door door;

static void set_up(void)
{
    fake = aligned_alloc(4096, sizeof(*fake));
    ck_assert_ptr_nonnull(fake);
    memset(fake, 0, sizeof(*fake));
    fake->id = PROTECT_ID;
    fake->version = PROTECT_VERSION;
    fake->index = 5;
    fake->command[0].result = 0x1234567890ull;
    ck_assert_int_eq(bailey_door_open(&door, fake, 1), PROTECT_OK);
}

static void tear_down(void)
{
    free(fake);
}

/* ---- Opening ------------------------------------------------------------------------------------
 */

START_TEST(open_binds_and_keeps_the_session)
{
    ck_assert_uint_eq(fake->command[0].op, PROTECT_OP_BIND);
    ck_assert_uint_eq(fake->command[0].session, 0);
    ck_assert_uint_eq(door.session, 0x1234567890ull);
    ck_assert_uint_eq(door.index, 5);
}
END_TEST

START_TEST(open_knows_what_is_no_device)
{
    struct bailey_door other;
    fake->id = ~0u; /* nothing answers */
    ck_assert_int_eq(bailey_door_open(&other, fake, 1), BAILEY_NO_DEVICE);
    fake->id = PROTECT_ID;
    fake->version = PROTECT_VERSION + 0x10000;
    ck_assert_int_eq(bailey_door_open(&other, fake, 1), BAILEY_NO_DEVICE);
    fake->version = PROTECT_VERSION + 1;
    ck_assert_int_eq(bailey_door_open(&other, fake, 1), PROTECT_OK);
}
END_TEST

START_TEST(open_passes_doors_that_are_taken)
{
    struct protect_door *two = aligned_alloc(4096, 2 * sizeof(*two));
    struct bailey_door other;
    ck_assert_ptr_nonnull(two);
    memset(two, 0, 2 * sizeof(*two));
    two[0] = two[1] = *fake;
    two[1].index = 6;
    two[0].state = PROTECT_DOOR_USER;
    ck_assert_int_eq(bailey_door_open(&other, two, 2), PROTECT_OK);
    ck_assert_uint_eq(other.index, 6);
    two[0].state = PROTECT_DOOR_FREE; /* somebody is faster */
    two[0].command[0].status = PROTECT_BUSY;
    two[1].command[0].status = PROTECT_WRONG_CALLER; /* and so fast that the slot is theirs, too */
    ck_assert_int_eq(bailey_door_open(&other, two, 2), PROTECT_BUSY);
    free(two);
}
END_TEST

/* ---- Commands -----------------------------------------------------------------------------------
 */

START_TEST(commands_fill_every_field)
{
    struct protect_region regions[3] = {{0}};
    uint32_t first = 0;
    memset(&fake->command[0], 0xff, sizeof(fake->command[0]));
    fake->command[0].status = PROTECT_OK;
    fake->command[0].result = 77;
    fake->doorbell = 99;
    ck_assert_int_eq(bailey_regions_add(&door, regions, 3, &first), PROTECT_OK);
    ck_assert_uint_eq(fake->doorbell, 0);
    ck_assert_uint_eq(fake->command[0].op, PROTECT_OP_ADD_REGIONS);
    ck_assert_uint_eq(fake->command[0].version, PROTECT_VERSION >> 16);
    ck_assert_uint_eq(fake->command[0].reserved, 0);
    ck_assert_uint_eq(fake->command[0].session, door.session);
    ck_assert_uint_eq(fake->command[0].arg[0], (uintptr_t)regions);
    ck_assert_uint_eq(fake->command[0].arg[1], 3);
    ck_assert_uint_eq(fake->command[0].arg[2] | fake->command[0].arg[3], 0);
    ck_assert_uint_eq(first, 77);
}
END_TEST

START_TEST(a_refusal_says_which_element)
{
    struct protect_rule rules[2] = {{0}};
    fake->command[0].status = PROTECT_BAD_ACTION;
    fake->command[0].element = 1;
    ck_assert_int_eq(bailey_rules_set(&door, rules, 2), PROTECT_BAD_ACTION);
    ck_assert_uint_eq(door.element, 1);
    ck_assert_uint_eq(door.slots, 0);
}
END_TEST

START_TEST(an_interrupted_command_keeps_its_slot)
{
    door.slots = 1u << 0 | 1u << 1; /* two threads were interrupted in the middle */
    fake->command[2].status = PROTECT_NO_REGION;
    ck_assert_int_eq(bailey_regions_remove(&door, 3, 4), PROTECT_NO_REGION);
    ck_assert_uint_eq(fake->doorbell, 2);
    ck_assert_uint_eq(fake->command[2].arg[0], 3);
    ck_assert_uint_eq(fake->command[2].arg[1], 4);
    ck_assert_uint_eq(door.slots, 3);
}
END_TEST

START_TEST(touching_writes_pages_without_changing_them)
{
    size_t bytes = 5 * 4096;
    unsigned char present[6];
    char *at = mmap(NULL, bytes + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(at, MAP_FAILED);
    madvise(at, bytes + 4096, MADV_NOHUGEPAGE);
    bailey_touch(at + 100, 0, BAILEY_TOUCH_WRITE);
    ck_assert_int_eq(mincore(at, bytes + 4096, present), 0);
    ck_assert_int_eq(present[0] & 1, 0);
    bailey_touch(at + 4095, bytes - 4094,
                 BAILEY_TOUCH_WRITE); /* ends at the sixth page's first byte */
    ck_assert_int_eq(mincore(at, bytes + 4096, present), 0);
    for (unsigned n = 0; n < 6; n++)
        ck_assert_int_eq(present[n] & 1, 1);
    for (size_t n = 0; n < bytes; n++)
        ck_assert_int_eq(at[n], 0);
    munmap(at, bytes + 4096);
}
END_TEST

/* ---- Events -------------------------------------------------------------------------------------
 */

static void append(uint64_t sequence)
{
    struct protect_event *event = &fake->event[(sequence - 1) % PROTECT_EVENTS];
    event->cookie = sequence * 10;
    event->sequence = sequence;
    fake->event_head = sequence;
}

START_TEST(events_come_in_order_and_once)
{
    struct protect_event event;
    ck_assert(!bailey_event_next(&door, &event));
    for (uint64_t n = 1; n <= 100; n++) {
        append(n);
        if (n % 3)
            continue; /* let some wait */
        for (uint64_t wanted = n - 2; wanted <= n; wanted++) {
            ck_assert(bailey_event_next(&door, &event));
            ck_assert_uint_eq(event.sequence, wanted);
            ck_assert_uint_eq(event.cookie, wanted * 10);
            ck_assert_uint_eq(fake->event_tail, wanted);
        }
        ck_assert(!bailey_event_next(&door, &event));
    }
}
END_TEST

START_TEST(an_event_that_is_being_written_is_not_read)
{
    struct protect_event event;
    append(1);
    fake->event_head = 2; /* slot 1 still has another number */
    ck_assert(bailey_event_next(&door, &event));
    ck_assert(!bailey_event_next(&door, &event));
    ck_assert_uint_eq(fake->event_tail, 1);
}
END_TEST

/* ---- Upcalls ------------------------------------------------------------------------------------
 */

static sigjmp_buf after_resume;
static struct protect_frame *seen;

static enum protect_verdict handler(struct protect_frame *frame, void *opaque)
{
    seen = frame;
    ck_assert_ptr_eq(opaque, &after_resume);
    ck_assert_uint_eq(((uintptr_t)__builtin_frame_address(0)) % 16, 0);
    frame->token = 0; /* the verdict must not depend on what becomes of the frame */
    return (enum protect_verdict)frame->cookie;
}

static void on_sigill(int signal)
{
    (void)signal;
    siglongjmp(after_resume, 1);
}

/* Enters as the device does; the store to `resume` changes nothing here, so that UD2 follows. */
static void upcall(uint64_t rip, struct protect_frame *frame)
{
    signal(SIGILL, on_sigill);
    if (sigsetjmp(after_resume, 1) == 0)
        ((void (*)(struct protect_frame *))(uintptr_t)rip)(frame);
    signal(SIGILL, SIG_DFL);
}

START_TEST(the_entry_point_calls_the_handler_and_stores_its_verdict)
{
    extern const char bailey_entry_points[];
    struct protect_frame frame = {.token = 0x123456, .cookie = PROTECT_DROP};
    ck_assert_int_eq(bailey_handler_set(&door, handler, &after_resume, NULL, 0, 0), PROTECT_OK);
    ck_assert_uint_eq(fake->command[0].op, PROTECT_OP_SET_HANDLER);
    ck_assert_uint_ne(door.entry, 0);
    uint64_t rip = (uintptr_t)bailey_entry_points + 16 * (door.entry - 1);
    upcall(rip, &frame);
    ck_assert_ptr_eq(seen, &frame);
    ck_assert_uint_eq(fake->resume, PROTECT_RESUME(0x123456, PROTECT_DROP));
    frame.token = 7;
    frame.cookie = 200; /* no verdict */
    upcall(rip, &frame);
    ck_assert_uint_eq(fake->resume, PROTECT_RESUME(7, PROTECT_REFUSE));
    ck_assert_int_eq(bailey_handler_set(&door, NULL, NULL, NULL, 0, 0), PROTECT_OK);
    ck_assert_uint_eq(door.entry, 0);
}
END_TEST

START_TEST(entry_points_run_out_and_come_back)
{
    struct bailey_door doors[BAILEY_HANDLERS + 1];
    for (unsigned n = 0; n <= BAILEY_HANDLERS; n++) {
        doors[n] = door;
        ck_assert_int_eq(bailey_handler_set(&doors[n], handler, NULL, NULL, 0, 0),
                         n < BAILEY_HANDLERS ? PROTECT_OK : PROTECT_TOO_MANY);
    }
    fake->command[0].status = PROTECT_BAD_HANDLER;
    ck_assert_int_eq(bailey_handler_set(&doors[0], NULL, NULL, NULL, 0, 0), PROTECT_BAD_HANDLER);
    fake->command[0].status = PROTECT_OK;
    for (unsigned n = 0; n < BAILEY_HANDLERS; n++)
        ck_assert_int_eq(bailey_handler_set(&doors[n], NULL, NULL, NULL, 0, 0), PROTECT_OK);
    ck_assert_int_eq(bailey_handler_set(&door, handler, NULL, NULL, 0, 0), PROTECT_OK);
    ck_assert_int_eq(bailey_handler_set(&door, handler, NULL, NULL, 0, 0),
                     PROTECT_OK); /* replaces */
    ck_assert_int_eq(bailey_door_close(&door), PROTECT_OK);
}
END_TEST

/* ---- Words --------------------------------------------------------------------------------------
 */

START_TEST(every_status_has_a_text_of_its_own)
{
    for (int a = 0; a < PROTECT_STATUS_COUNT; a++)
        for (int b = 0; b < a; b++)
            ck_assert_str_ne(bailey_status_text(a), bailey_status_text(b));
    ck_assert_str_eq(bailey_status_text(PROTECT_SEALED), "the context is sealed against this");
    ck_assert_str_eq(bailey_status_text(PROTECT_STATUS_COUNT), bailey_status_text(-1));
    ck_assert_str_ne(bailey_status_text(BAILEY_NO_DEVICE), bailey_status_text(-1));
}
END_TEST

START_TEST(events_in_words)
{
    char line[200];
    struct protect_event event = {.type = PROTECT_EVENT_ACCESS,
                                  .access = PROTECT_READ,
                                  .subject = PROTECT_KERNEL,
                                  .action = PROTECT_SUBSTITUTE,
                                  .flags = PROTECT_EVENT_HAS_GVA,
                                  .vcpu = 1,
                                  .length = 8,
                                  .gva = 0xffff888000001008,
                                  .home = 0x7f0000000008,
                                  .rip = 0xffffffff81000000};
    size_t length = bailey_event_text(line, sizeof(line), &event);
    ck_assert_str_eq(line, "the kernel (vcpu 1, cpl 0, rip ffffffff81000000): read, 8 bytes, at "
                           "7f0000000008 through ffff888000001008: given something else");
    ck_assert_uint_eq(length, strlen(line));
    event.flags |= PROTECT_EVENT_HIDDEN;
    event.gva = event.home;
    bailey_event_text(line, sizeof(line), &event);
    ck_assert_str_eq(line, "the kernel (vcpu 1, cpl 0): read, 8 bytes, at 7f0000000008: given "
                           "something else");
    event.subject = PROTECT_DEVICE;
    event.device = 0x3 << 8 | 0x1f << 3 | 5;
    event.action = PROTECT_DENY;
    bailey_event_text(line, sizeof(line), &event);
    ck_assert_str_eq(line, "a device 03:1f.5: read, 8 bytes, at 7f0000000008: refused");
    ck_assert_uint_eq(bailey_event_text(line, 5, &event), 4); /* cut, and terminated */
    ck_assert_str_eq(line, "a de");
    event.type = event.subject = event.action = 200;
    ck_assert_uint_gt(bailey_event_text(line, sizeof(line), &event), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("libbailey-guest");
    TCase *tests = tcase_create("a door in memory");
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, open_binds_and_keeps_the_session);
    tcase_add_test(tests, open_knows_what_is_no_device);
    tcase_add_test(tests, open_passes_doors_that_are_taken);
    tcase_add_test(tests, commands_fill_every_field);
    tcase_add_test(tests, a_refusal_says_which_element);
    tcase_add_test(tests, an_interrupted_command_keeps_its_slot);
    tcase_add_test(tests, touching_writes_pages_without_changing_them);
    tcase_add_test(tests, events_come_in_order_and_once);
    tcase_add_test(tests, an_event_that_is_being_written_is_not_read);
    tcase_add_test(tests, the_entry_point_calls_the_handler_and_stores_its_verdict);
    tcase_add_test(tests, entry_points_run_out_and_come_back);
    tcase_add_test(tests, every_status_has_a_text_of_its_own);
    tcase_add_test(tests, events_in_words);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
