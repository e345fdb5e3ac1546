/*
 * test_protect_door.c - the doors' registers, slots and events: who may see and change them, when
 * commands run, and what becomes of a door whose context ends.
 */
#include "protect_board.h"

/* ---- Accesses -------------------------------------------------------------------------------- */

START_TEST(other_widths_read_ones_and_write_nothing)
{
    static const struct {
        unsigned offset, size;
    } bad[] = {{0, 1}, {0, 2}, {2, 2}, {4, 8}, {2, 4}, {1, 8}, {6, 2}, {12, 8}};
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        const uint64_t ones = ~0ull >> (64 - 8 * bad[i].size);
        ck_assert_uint_eq(load(door(0, bad[i].offset), bad[i].size), ones);
        bool member = bad[i].size < 4 && bad[i].offset % bad[i].size == 0; /* slots: of a struct */
        ck_assert_uint_eq(load(slot(0, 0, bad[i].offset), bad[i].size), member ? 0 : ones);
        ck_assert_uint_eq(load(0xfef00000 + bad[i].offset, bad[i].size), ones);
        store(slot(0, 0, bad[i].offset), bad[i].size, ~0ull);
    }
    for (unsigned offset = SLOTS; offset < SLOTS_END; offset += 8)
        ck_assert_uint_eq(load(door(0, offset), 8), 0);
    store(slot(0, 0, OP), 8, PROTECT_OP_BIND);
    store(door(0, DOORBELL), 2, 0);
    store(door(0, DOORBELL), 1, 0);
    store(door(0, DOORBELL + 4), 8, 0);
    store(door(0, DOORBELL + 4), 4, 0);
    store(0xfef00000 + 24, 2, 0);
    ck_assert_uint_eq(rules.executed + rules.grants, 0);
    store(door(0, DOORBELL), 4, 0);
    ck_assert_uint_eq(rules.executed, 1);
}
END_TEST

START_TEST(registers_in_halves_and_pairs)
{
    bind_door(5);
    rules.info[5].grants = 0x11;
    rules.info[5].seals = 0x7;
    rules.info[5].event_head = 0x0000000300000002;
    rules.info[5].event_tail = 0x0000000300000001;
    rules.info[5].event_lost = 0x5;
    rules.info[5].upcall_depth = 0x6;
    ck_assert_uint_eq(reg(ID), 0x0001000059454c42);
    ck_assert_uint_eq(reg(INDEX), (uint64_t)PROTECT_DOOR_SUPERVISOR << 32 | 5);
    ck_assert_uint_eq(reg(GRANTS), 0x700000011);
    ck_assert_uint_eq(load(door(5, SEALS), 4), 7);
    ck_assert_uint_eq(reg(HEAD), 0x300000002);
    ck_assert_uint_eq(load(door(5, HEAD), 4), 2);
    ck_assert_uint_eq(load(door(5, HEAD + 4), 4), 3);
    ck_assert_uint_eq(reg(TAIL), 0x300000001);
    ck_assert_uint_eq(reg(LOST), 5);
    ck_assert_uint_eq(reg(DEPTH), 6);
    ck_assert_uint_eq(reg(MASKED), 0);
    ck_assert_uint_eq(reg(DOORBELL), 0);
    ck_assert_uint_eq(reg(RESUME), 0);
    store(door(5, TAIL), 8, 0x300000002);
    ck_assert_uint_eq(reg(TAIL), 0x300000002);
    store(door(5, TAIL), 8, 0x300000003); /* beyond the head */
    ck_assert_uint_eq(reg(TAIL), 0x300000002);
    store(door(5, TAIL + 4), 4, 0);
    ck_assert_uint_eq(reg(TAIL), 0x300000002);
    store(door(5, TAIL), 4, 1); /* the other half is zero then */
    ck_assert_uint_eq(reg(TAIL), 1);
    store(door(5, MASKED), 8, 0x100000000);
    ck_assert_uint_eq(reg(MASKED), 1);
    ck_assert_uint_eq(unmasks, 0);
    store(door(5, MASKED), 4, 0);
    ck_assert_uint_eq(reg(MASKED), 0);
    ck_assert_uint_eq(unmasks, 1);                         /* who waits is looked for at once */
    for (unsigned offset = 0; offset < SLOTS; offset += 8) /* the rest is read-only */
        if (offset != DOORBELL && offset != RESUME && offset != TAIL && offset != MASKED) {
            uint64_t before = reg(offset);
            store(door(5, offset), 8, 0x0101010101010101);
            ck_assert_uint_eq(reg(offset), before);
        }
    ck_assert_uint_eq(rules.executed, 1);
}
END_TEST

START_TEST(slots_hold_what_is_stored_but_for_results)
{
    for (unsigned offset = SLOTS; offset < SLOTS_END; offset += 8)
        store(door(3, offset), 8, 0x0807060504030201ull * (offset + 1));
    for (unsigned offset = SLOTS; offset < SLOTS_END; offset += 8) {
        uint64_t expected = offset % 64 < STATUS ? 0x0807060504030201ull * (offset + 1) : 0;
        ck_assert_uint_eq(load(door(3, offset), 8), expected);
        ck_assert_uint_eq(load(door(3, offset + 4), 4), expected >> 32);
    }
    store(slot(3, 7, ARG0), 4, 0x99);
    ck_assert_uint_eq(load(slot(3, 7, ARG0), 8) & 0xffffffff, 0x99);
    ck_assert_uint_eq(load(slot(3, 7, ARG0 + 4), 4),
                      (0x0807060504030201ull * (SLOTS + 64 * 7 + ARG0 + 1)) >> 32);
    store(slot(3, 7, STATUS), 4, 1);
    store(slot(3, 7, ELEMENT), 4, 1);
    ck_assert_uint_eq(load(slot(3, 7, STATUS), 8), 0);
    store(door(3, SLOTS_END), 8, ~0ull);
    store(door(3, EVENTS), 8, ~0ull);
    ck_assert_uint_eq(load(door(3, SLOTS_END), 8), 0);
    ck_assert_uint_eq(load(door(3, EVENTS), 8), 0);
    ck_assert_uint_eq(load(slot(2, 15, 0), 8) | load(slot(4, 0, 0), 8), 0);
}
END_TEST

START_TEST(slots_and_events_are_read_a_member_at_a_time)
{
    be_user(0xa000);
    bind_door(6);
    store(slot(6, 2, OP), 8, 0x8877665544332211);
    for (unsigned i = 0; i < 8; i++)
        ck_assert_uint_eq(load(slot(6, 2, i), 1), 0x11 * (i + 1));
    for (unsigned i = 0; i < 8; i += 2)
        ck_assert_uint_eq(load(slot(6, 2, i), 2), 0x1111 * (i + 1) + 0x1100);
    ck_assert_uint_eq(load(door(6, EVENTS + 128 * 5 + 114), 1), 3); /* cpl */
    ck_assert_uint_eq(load(door(6, EVENTS + 128 * 5 + 24), 2), 0x0c1e);
    ck_assert_uint_eq(load(door(6, EVENTS + 128 * 5 + 25), 2), 0xffff);
    ck_assert_uint_eq(load(door(6, SLOTS_END + 7), 1), 0);
    store(slot(6, 2, OP), 2, 0); /* but not written */
    store(slot(6, 2, OP), 1, 0);
    ck_assert_uint_eq(load(slot(6, 2, OP), 8), 0x8877665544332211);
    be_user(0xb000);
    for (unsigned i = 0; i < 64; i++)
        ck_assert_uint_eq(load(slot(6, 2, i), 1), i == STATUS ? PROTECT_WRONG_CALLER : 0);
    for (unsigned i = 0; i < 128; i++)
        ck_assert_uint_eq(load(door(6, EVENTS + 128 * 5 + i), 1), 0);
}
END_TEST

START_TEST(only_instructions_store)
{
    static const enum initiator others[] = {INITIATOR_WALKER, INITIATOR_EVENT,    INITIATOR_DMA,
                                            INITIATOR_HOST,   INITIATOR_DEBUGGER, INITIATOR_LOADER};
    store(slot(0, 0, OP), 8, PROTECT_OP_BIND);
    for (unsigned i = 0; i < 6; i++) {
        be(others[i], 0, 0x1000);
        store(slot(0, 0, ARG0), 8, 0xbad);
        store(door(0, DOORBELL), 8, 0);
        store(0xfef00000 + 24, 8, 0);
        store(0xfef00000 + 32, 8, 0);
        ck_assert_uint_eq(load(slot(0, 0, ARG0), 8), 0);
    }
    be_kernel(0x1000);
    who.vcpu = VCPUS; /* no such vCPU */
    store_only(door(0, DOORBELL), 8, 0);
    who.vcpu = 0;
    ck_assert_uint_eq(rules.executed + rules.grants + rules.destroyed, 0);
    bind_door(0);
    rules.info[0].event_head = 9;
    for (unsigned i = 0; i < 6; i++) {
        be(others[i], 0, 0x1000);
        store(slot(0, 0, ARG0), 8, 0xbad);
        store(door(0, DOORBELL), 8, 0);
        store(door(0, TAIL), 8, 9);
        store(door(0, MASKED), 8, 1);
        store(door(0, RESUME), 8, 0x100);
        ck_assert_uint_eq(load(slot(0, 0, STATUS), 4), PROTECT_WRONG_CALLER); /* nor see it */
    }
    be_kernel(0x1000);
    ck_assert_uint_eq(load(slot(0, 0, ARG0), 8), 0);
    ck_assert_uint_eq(load(door(0, TAIL), 8) | load(door(0, MASKED), 8), 0);
    ck_assert_uint_eq(rules.executed, 1);
    ck_assert_uint_eq(resumes, 0);
}
END_TEST

/* ---- Who is calling -------------------------------------------------------------------------- */

/* The present accessor is nobody to this bound door: sees its name and state, and changes nothing.
 */
static void expect_stranger(unsigned n, uint32_t state)
{
    const struct access stranger = who;
    struct rules_context_info before = rules.info[n];
    unsigned executed = rules.executed;
    ck_assert_uint_eq(load(door(n, ID), 8), 0x0001000059454c42);
    ck_assert_uint_eq(load(door(n, INDEX), 8), (uint64_t)state << 32 | n);
    for (unsigned offset = GRANTS; offset < PROTECT_DOOR_SIZE; offset += 8) {
        bool status = offset >= SLOTS && offset < SLOTS_END && offset % 64 == STATUS;
        ck_assert_uint_eq(load(door(n, offset), 8), status ? PROTECT_WRONG_CALLER : 0);
    }
    for (unsigned offset = 0; offset < PROTECT_DOOR_SIZE; offset += 8) {
        store(door(n, offset), 8, 1);
        store(door(n, offset), 4, 1);
    }
    ck_assert_uint_eq(rules.executed, executed);
    ck_assert_uint_eq(resumes, 0);
    ck_assert_mem_eq(&before, &rules.info[n], sizeof(before));
    who = stranger;
}

static void expect_owner(unsigned n, uint64_t session)
{
    ck_assert_uint_eq(load(slot(n, 0, RESULT), 8), session);
    ck_assert_uint_eq(load(door(n, HEAD), 8), 4);
    ck_assert_uint_eq(load(door(n, EVENTS + 128 * 31), 8), n * 100 + 31);
    ck_assert_uint_eq(load(door(n, EVENTS + 128 * 31 + 24), 4), 0xc00c1e);
    for (unsigned offset = SLOTS; offset < SLOTS_END; offset += 8)
        ck_assert_uint_eq(load(door(n, offset), 8), offset == SLOTS + RESULT ? session : 0);
    ck_assert_uint_eq(load(door(n, TAIL), 8) | load(door(n, MASKED), 8), 0);
}

START_TEST(a_user_context_is_its_address_space_at_cpl_3)
{
    be_user(0x12345042); /* PCID 42h */
    uint64_t session = bind_door(9);
    ck_assert_uint_eq(rules.caller.kind, RULES_USER);
    ck_assert_uint_eq(session, 0x1111111111111111);
    rules.info[9].event_head = 4;
    static const struct access strangers[] = {
        {.initiator = INITIATOR_VCPU_USER, .cpl = 3, .cr3 = 0x12346042},
        {.initiator = INITIATOR_VCPU_USER, .cpl = 3, .cr3 = 0x8000012345042},
        {.initiator = INITIATOR_VCPU_USER, .cpl = 3, .cr3 = 0},
        {.initiator = INITIATOR_VCPU_KERNEL, .cpl = 0, .cr3 = 0x12345042},
        {.initiator = INITIATOR_VCPU_KERNEL, .cpl = 3, .cr3 = 0x12345042}, /* a descriptor load */
        {.initiator = INITIATOR_WALKER, .cpl = 3, .cr3 = 0x12345042},
        {.initiator = INITIATOR_HOST},
    };
    for (unsigned i = 0; i < sizeof(strangers) / sizeof(strangers[0]); i++) {
        who = strangers[i];
        expect_stranger(9, PROTECT_DOOR_USER);
        be_user(0x12345042);
        expect_owner(9, session);
        be_user(0x8000000012345fff); /* the same root, however it was loaded */
        expect_owner(9, session);
    }
    who.vcpu = 1; /* and on whichever processor */
    be_user(0x12345042);
    expect_owner(9, session);
}
END_TEST

START_TEST(a_supervisor_context_is_cpl_0_to_2)
{
    be_kernel(0x1000);
    uint64_t session = bind_door(2);
    rules.info[2].event_head = 4;
    be_user(0x1000);
    expect_stranger(2, PROTECT_DOOR_SUPERVISOR);
    be(INITIATOR_VCPU_KERNEL, 3, 0x1000);
    expect_stranger(2, PROTECT_DOOR_SUPERVISOR);
    for (uint8_t cpl = 0; cpl < 3; cpl++) {
        be(INITIATOR_VCPU_KERNEL, cpl, 0x5000);
        expect_owner(2, session);
    }
}
END_TEST

START_TEST(two_programs_at_a_free_door)
{
    be_user(0xa000);
    store(slot(0, 0, OP), 8, PROTECT_OP_BIND);
    store_only(door(0, DOORBELL), 8, 0); /* on vCPU 0, still waiting for its turn ... */
    who.vcpu = 1;
    be_user(0xb000);
    store(slot(0, 1, OP), 8, PROTECT_OP_BIND);
    store(door(0, DOORBELL), 8, 1); /* ... when the other one gets the door */
    ck_assert_uint_eq(load(slot(0, 1, STATUS), 4), PROTECT_OK);
    uint64_t session = load(slot(0, 1, RESULT), 8);
    ck_assert_uint_eq(session, 0x1111111111111111);
    ck_assert_uint_eq(load(slot(0, 0, OP), 8), 0); /* what the loser left is gone */
    who.vcpu = 0;
    retire(0);
    ck_assert_uint_eq(rules.executed, 1);
    be_user(0xa000);
    ck_assert_uint_eq(load(slot(0, 0, STATUS), 4), PROTECT_WRONG_CALLER);
    expect_stranger(0, PROTECT_DOOR_USER);
    be_user(0xb000);
    ck_assert_uint_eq(load(slot(0, 1, RESULT), 8), session);
    ck_assert_uint_eq(load(slot(0, 0, RESULT), 8), 0);
}
END_TEST

/* ---- Commands -------------------------------------------------------------------------------- */

START_TEST(a_command_is_copied_when_the_bell_rings)
{
    rules.answer =
        (struct protect_command){.status = PROTECT_BAD_RANGE, .element = 17, .result = 0x123456789};
    uint64_t session = bind_door(63);
    for (unsigned offset = 0; offset < STATUS; offset += 8)
        store(slot(63, 15, offset), 8, offset + 3);
    store_only(door(63, DOORBELL), 8, 15);
    ck_assert_uint_eq(rules.executed, 1);
    store_only(slot(63, 15, ARG0), 8, ~0ull);
    retire(0);
    ck_assert_uint_eq(rules.executed, 2);
    ck_assert_uint_eq(rules.context, 63);
    ck_assert_ptr_eq(rules.caller.paging, &paging[0]);
    ck_assert_int_eq(rules.caller.kind, RULES_SUPERVISOR);
    for (unsigned offset = 0; offset < STATUS; offset += 8) {
        uint64_t value;
        memcpy(&value, (char *)&rules.command + offset, 8);
        ck_assert_uint_eq(value, offset + 3);
    }
    ck_assert_uint_eq(load(slot(63, 15, STATUS), 4), PROTECT_BAD_RANGE);
    ck_assert_uint_eq(load(slot(63, 15, ELEMENT), 4), 17);
    ck_assert_uint_eq(load(slot(63, 15, RESULT), 8), 0x123456789);
    ck_assert_uint_eq(load(slot(63, 15, ARG0), 8), ~0ull); /* the device writes results only */
    ck_assert_uint_eq(load(slot(63, 0, RESULT), 8), session);
    for (uint64_t bad = 16; bad; bad *= 2) {
        store(door(63, DOORBELL), 8, bad);
        store(door(63, DOORBELL), 8, bad | 15);
    }
    ck_assert_uint_eq(rules.executed, 2);
    ck_assert_int_eq(rules.changing, -1);
}
END_TEST

static uint64_t seen;

static void reach_into_the_device(void)
{
    seen = load(door(1, ID), 4);
    store(slot(1, 3, ARG0), 8, 0xbad);
    store(door(1, DOORBELL), 8, 3);
    store(door(1, TAIL), 8, 1);
    store(0xfef00000 + 32, 8, 1);
}

START_TEST(arrays_do_not_lie_in_the_device)
{
    bind_door(1);
    rules.info[1].event_head = 5;
    rules.while_executing = reach_into_the_device;
    command(1, 0, PROTECT_OP_QUERY);
    rules.while_executing = NULL;
    ck_assert_uint_eq(seen, 0xffffffff);
    ck_assert_uint_eq(rules.executed, 2);
    ck_assert_uint_eq(rules.destroyed, 0);
    ck_assert_uint_eq(load(slot(1, 3, ARG0), 8), 0);
    ck_assert_uint_eq(load(door(1, TAIL), 8), 0);
    ck_assert_uint_eq(load(door(1, ID), 4), 0x59454c42);
}
END_TEST

START_TEST(a_context_that_ends_leaves_nothing_behind)
{
    be_user(0xa000);
    bind_door(7);
    fill(7);
    command(7, 4, PROTECT_OP_UNBIND);
    ck_assert_uint_eq(left_behind(7), 0);
    ck_assert_uint_eq(load(door(7, STATE), 4), PROTECT_DOOR_FREE);

    be_user(0xa000);
    bind_door(7);
    fill(7);
    memset(&rules.info[7], 0, sizeof(rules.info[7])); /* its root has been freed */
    ck_assert_uint_eq(left_behind(7), 0);

    be_user(0xa000);
    bind_door(7);
    fill(7);
    store(0xfef00000 + 32, 8, 7); /* destroyed by the administrator */
    ck_assert_uint_eq(rules.destroyed, 1);
    ck_assert_uint_eq(left_behind(7), 0);

    be_user(0xa000);
    bind_door(7);
    fill(7);
    resume_answer = PROTECT_BAD_TOKEN;
    store(door(7, RESUME), 8, 0x1234);
    rules.info[7].session++; /* ended, and bound again by the same process: nobody has looked */
    ck_assert_uint_eq(load(slot(7, 0, ARG0), 8), 0);
    ck_assert_uint_eq(load(door(7, RESUME_STATUS), 8), PROTECT_OK);
}
END_TEST

START_TEST(a_context_that_ends_while_its_command_waits)
{
    be_user(0xa000);
    bind_door(7);
    rules.answer.result = 0x5ec5e7;
    store(slot(7, 0, OP), 8, PROTECT_OP_QUERY);
    store_only(door(7, DOORBELL), 8, 0);
    rules.info[7].session++;
    rules.info[7].root = 0xb000; /* somebody else has the door now */
    retire(0);
    ck_assert_uint_eq(rules.executed, 1);
    be_user(0xb000);
    ck_assert_uint_eq(load(slot(7, 0, RESULT), 8), 0);
}
END_TEST

START_TEST(resume_says_why_it_came_back)
{
    be_user(0xa000);
    store(door(7, RESUME), 8, 0x12345678abcdef01); /* of a free door: nobody's */
    ck_assert_uint_eq(resumes, 0);
    bind_door(7);
    store_only(door(7, RESUME), 8, 0x12345678abcdef01);
    ck_assert_uint_eq(resumes, 0);
    retire(0);
    ck_assert_uint_eq(resumes, 1);
    ck_assert_uint_eq(rules.context, 7);
    ck_assert_uint_eq(rules.command.result, 0x12345678abcdef01);
    ck_assert_uint_eq(load(door(7, RESUME_STATUS), 8), PROTECT_BAD_TOKEN);
    resume_answer = PROTECT_BAD_VERDICT;
    store(door(7, RESUME), 8, 0xff);
    ck_assert_uint_eq(load(door(7, RESUME_STATUS), 4), PROTECT_BAD_VERDICT);
    ck_assert_uint_eq(load(door(6, RESUME_STATUS), 8), 0);
}
END_TEST

PROTECT_MAIN("protect_door", other_widths_read_ones_and_write_nothing,
             registers_in_halves_and_pairs, slots_hold_what_is_stored_but_for_results,
             slots_and_events_are_read_a_member_at_a_time, only_instructions_store,
             a_user_context_is_its_address_space_at_cpl_3, a_supervisor_context_is_cpl_0_to_2,
             two_programs_at_a_free_door, a_command_is_copied_when_the_bell_rings,
             arrays_do_not_lie_in_the_device, a_context_that_ends_leaves_nothing_behind,
             a_context_that_ends_while_its_command_waits, resume_says_why_it_came_back)
