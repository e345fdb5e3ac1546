/*
 * test_wire.c - descriptors as JSON and back: every byte of every structure, numbers in all their
 * forms, commands with senseless values, and what must be refused.
 */
#include "internal/wire.h"
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct wire_error why;

static const struct wire_layout *const layouts[] = {&wire_region, &wire_rule,  &wire_handler,
                                                    &wire_query,  &wire_event, &wire_statistics};
enum { LAYOUTS = sizeof(layouts) / sizeof(layouts[0]) };

static json_t *json(const char *text)
{
    json_error_t error;
    json_t *parsed = json_loads(text, JSON_DECODE_ANY, &error);
    ck_assert_msg(parsed != NULL, "%s: %s", text, error.text);
    return parsed;
}

/* ---- Words ----------------------------------------------------------------------------------- */

START_TEST(words_are_those_of_the_interface)
{
    static const struct {
        const char *const *words;
        unsigned index;
        const char *word;
    } cases[] = {
        {wire_subjects, PROTECT_OWNER, "owner"},
        {wire_subjects, PROTECT_KERNEL, "kernel"},
        {wire_subjects, PROTECT_WALKER, "walker"},
        {wire_subjects, PROTECT_EVENT, "event"},
        {wire_subjects, PROTECT_DEVICE, "device"},
        {wire_subjects, PROTECT_DEBUGGER, "debugger"},
        {wire_actions, PROTECT_DENY, "deny"},
        {wire_actions, PROTECT_ASK_HOST, "ask-host"},
        {wire_actions, PROTECT_SUBSTITUTE, "substitute"},
        {wire_actions, PROTECT_SKIP, "skip"},
        {wire_actions, PROTECT_ALLOW_ONCE, "allow-once"},
        {wire_actions, PROTECT_ALLOW, "allow"},
        {wire_faults, PROTECT_FAULT_GENERAL, "general"},
        {wire_event_types, PROTECT_EVENT_ACCESS, "access"},
        {wire_event_types, PROTECT_EVENT_UNMAPPED, "unmapped"},
        {wire_event_types, PROTECT_EVENT_TIMEOUT, "timeout"},
        {wire_verdicts, PROTECT_LET, "let"},
        {wire_verdicts, PROTECT_GIVE, "give"},
        {wire_verdicts, PROTECT_REFUSE, "refuse"},
        {wire_statuses, PROTECT_OK, "OK"},
        {wire_statuses, PROTECT_SEALED, "SEALED"},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        ck_assert_str_eq(wire_word_of(cases[i].words, cases[i].index), cases[i].word);
        ck_assert_int_eq(wire_word(cases[i].words, cases[i].word), (int)cases[i].index);
    }
    ck_assert_int_eq(1 << wire_word(wire_notify, "interrupt"), PROTECT_NOTIFY_INTERRUPT);
    ck_assert_int_eq(1 << wire_word(wire_notify, "stop"), PROTECT_NOTIFY_STOP);
    ck_assert_int_eq(1 << wire_word(wire_region_flags, "physical"), PROTECT_PHYSICAL);
    ck_assert_int_eq(1 << wire_word(wire_region_flags, "pin"), PROTECT_PIN);
    ck_assert_int_eq(1 << wire_word(wire_seals, "rebind"), PROTECT_SEAL_REBIND);
    ck_assert_int_eq(1 << wire_word(wire_grants, "physical"), PROTECT_GRANT_PHYSICAL);
    ck_assert_int_eq(1 << wire_word(wire_event_flags, "value"), PROTECT_EVENT_VALUE);
    ck_assert_ptr_null(wire_word_of(wire_actions, PROTECT_ACTIONS));
    ck_assert_int_eq(wire_word(wire_actions, "denyx"), -1);
}
END_TEST

/* ---- Structures ------------------------------------------------------------------------------ */

/* Every byte belongs to exactly one field: none can be forgotten when the ABI grows. */
START_TEST(every_byte_of_a_structure_is_told)
{
    const struct wire_layout *layout = layouts[_i];
    unsigned char *covered = calloc(1, layout->size);
    for (const struct wire_field *f = layout->fields; f->name; f++) {
        size_t len =
            f->type == WIRE_NESTED ? f->layout->size : (size_t)f->size * (f->count ? f->count : 1);
        for (size_t i = 0; i < len; i++)
            ck_assert_msg(covered[f->offset + i]++ == 0, "%s.%s", layout->name, f->name);
    }
    for (size_t i = 0; i < layout->size; i++)
        ck_assert_msg(covered[i] == 1, "%s: byte %zu", layout->name, i);
    free(covered);
}
END_TEST

START_TEST(any_structure_survives_the_way_there_and_back)
{
    const struct wire_layout *layout = layouts[_i];
    unsigned char *from = malloc(layout->size), *to = calloc(1, layout->size);
    srand(1);
    for (unsigned round = 0; round < 200; round++) {
        for (size_t i = 0; i < layout->size; i++)
            from[i] = (unsigned char)(round % 4 == 0 ? rand() : rand() % 4);
        memset(to, 0, layout->size);
        json_t *wire = wire_encode(layout, from);
        ck_assert_msg(wire_decode(wire, layout, WIRE_STRICT, to, &why), "%s", why.text);
        ck_assert_msg(memcmp(from, to, layout->size) == 0, "%s", json_dumps(wire, JSON_COMPACT));
        json_decref(wire);
    }
    free(from);
    free(to);
}
END_TEST

START_TEST(a_rule_in_words)
{
    struct protect_rule rule = {.count = 1};
    json_t *wire = json("{\"region\": 7, \"count\": \"0x2\", \"allow\": {\"kernel\": \"rx\"},"
                        " \"action\": {\"kernel\": \"ask-host\", \"device\": 0},"
                        " \"notify\": [\"host\", \"preimage\"], \"fault\": \"general\","
                        " \"value\": \"0xffffffffffffffff\"}");
    memset(rule.allow, 7, sizeof(rule.allow));
    ck_assert_msg(wire_decode(wire, &wire_rule, WIRE_STRICT, &rule, &why), "%s", why.text);
    ck_assert_uint_eq(rule.region, 7);
    ck_assert_uint_eq(rule.count, 2);
    ck_assert_uint_eq(rule.allow[PROTECT_KERNEL], PROTECT_READ | PROTECT_EXEC);
    ck_assert_uint_eq(rule.allow[PROTECT_OWNER], 7);
    ck_assert_uint_eq(rule.action[PROTECT_KERNEL], PROTECT_ASK_HOST);
    ck_assert_uint_eq(rule.action[PROTECT_DEVICE], PROTECT_DENY);
    ck_assert_uint_eq(rule.notify, PROTECT_NOTIFY_HOST | PROTECT_NOTIFY_PREIMAGE);
    ck_assert_uint_eq(rule.fault, PROTECT_FAULT_GENERAL);
    ck_assert_uint_eq(rule.value, UINT64_MAX);
    json_decref(wire);
}
END_TEST

START_TEST(what_is_not_a_structure_is_refused_with_a_reason)
{
    static const struct {
        const struct wire_layout *layout;
        const char *text, *reason;
    } cases[] = {
        {&wire_region, "[]", "a region must be an object"},
        {&wire_region, "{\"base\": 1}", "needs 'length'"},
        {&wire_region, "{\"base\": 1, \"length\": 1, \"lenght\": 1}", "has no 'lenght'"},
        {&wire_region, "{\"base\": -1, \"length\": 1}", "'base' must be a number"},
        {&wire_region, "{\"base\": 1.5, \"length\": 1}", "'base' must be a number"},
        {&wire_region, "{\"base\": null, \"length\": 1}", "'base' must be a number"},
        {&wire_region, "{\"base\": \"0x\", \"length\": 1}", "'base' must be a number"},
        {&wire_region, "{\"base\": \" 1\", \"length\": 1}", "'base' must be a number"},
        {&wire_region, "{\"base\": \"-1\", \"length\": 1}", "'base' must be a number"},
        {&wire_region, "{\"base\": \"1x\", \"length\": 1}", "'base' must be a number"},
        {&wire_region, "{\"base\": \"0x10000000000000000\", \"length\": 1}", "must be a number"},
        {&wire_region, "{\"base\": 1, \"length\": 1, \"flags\": \"pinned\"}", "cannot hold"},
        {&wire_region, "{\"base\": 1, \"length\": 1, \"flags\": [[]]}", "must be a number"},
        {&wire_region, "{\"base\": 1, \"length\": 1, \"flags\": 4294967296}", "at most"},
        {&wire_rule, "{\"region\": 1, \"allow\": {\"kernel\": \"rz\"}}", "letters r, w and x"},
        {&wire_rule, "{\"region\": 1, \"allow\": {\"kernal\": 1}}", "has no 'kernal'"},
        {&wire_rule, "{\"region\": 1, \"allow\": [1,2,3,4,5,6,7,8,9]}", "list of at most 8"},
        {&wire_rule, "{\"region\": 1, \"allow\": {\"kernel\": 256}}", "at most 0xff"},
        {&wire_rule, "{\"region\": 1, \"action\": {\"kernel\": \"no\"}}", "cannot be 'no'"},
        {&wire_rule, "{\"region\": 1, \"action\": {\"kernel\": {}}}", "must be a number"},
        {&wire_rule, "{\"region\": 1, \"marker\": 300}", "at most 0xff"},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        unsigned char to[256] = {0};
        json_t *wire = json(cases[i].text);
        ck_assert_msg(!wire_decode(wire, cases[i].layout, WIRE_STRICT, to, &why), "%s",
                      cases[i].text);
        ck_assert_msg(strstr(why.text, cases[i].reason) != NULL, "%s: %s", cases[i].text, why.text);
        json_decref(wire);
    }
}
END_TEST

START_TEST(a_newer_server_may_say_more)
{
    struct protect_region region = {0};
    json_t *wire = json("{\"base\": 5, \"length\": 6, \"colour\": \"red\"}");
    ck_assert(wire_decode(wire, &wire_region, WIRE_LENIENT, &region, &why));
    ck_assert_uint_eq(region.base, 5);
    ck_assert_uint_eq(region.length, 6);
    json_decref(wire);
}
END_TEST

START_TEST(reasons_hold_no_control_characters)
{
    json_t *wire = json("{\"base\": 1, \"length\": 1, \"a\\nb\\u001bc\": 1}");
    ck_assert(!wire_decode(wire, &wire_region, WIRE_STRICT, &(struct protect_region){0}, &why));
    ck_assert_str_eq(why.text, "a region has no 'a?b?c'");
    json_decref(wire);
}
END_TEST

START_TEST(bytes_as_digits)
{
    unsigned char out[4];
    size_t len = 99;
    json_t *value = json("\"00fFA0\"");
    ck_assert(wire_bytes(value, "data", out, 4, &len, &why));
    ck_assert_uint_eq(len, 3);
    ck_assert_mem_eq(out, "\x00\xff\xa0", 3);
    json_t *back = wire_bytes_json(out, len);
    ck_assert_str_eq(json_string_value(back), "00ffa0");
    json_decref(value);
    json_decref(back);
    static const char *const bad[] = {"\"0\"", "\"0g\"", "\"0011223344\"", "7", "\" 00\""};
    for (unsigned i = 0; i < 5; i++) {
        value = json(bad[i]);
        ck_assert(!wire_bytes(value, "data", out, 4, &len, &why));
        json_decref(value);
    }
}
END_TEST

/* ---- Commands -------------------------------------------------------------------------------- */

/* Encodes, decodes, and compares everything but the addresses. */
static void there_and_back(const struct protect_command *command, size_t element, size_t count)
{
    struct wire_command back;
    json_t *wire = wire_command_encode(command);
    ck_assert_msg(wire_command_decode(wire, &back, &why), "%s", why.text);
    const struct wire_op *op = wire_op(command->op);
    bool has_memory = op && element;
    ck_assert_uint_eq(back.command.op, command->op);
    ck_assert_uint_eq(back.command.version, command->version);
    ck_assert_uint_eq(back.command.reserved, command->reserved);
    ck_assert_uint_eq(back.command.session, command->session);
    for (unsigned i = has_memory; i < 4; i++)
        ck_assert_uint_eq(back.command.arg[i], command->arg[i]);
    if (has_memory) {
        ck_assert_uint_eq(back.size, element * count);
        ck_assert_uint_eq(back.command.arg[0], (uintptr_t)back.memory);
        ck_assert_mem_eq(back.memory, (void *)(uintptr_t)command->arg[0], element * count);
    }
    wire_command_free(&back);
    json_decref(wire);
}

START_TEST(commands_survive_the_way_there_and_back)
{
    struct protect_region regions[3] = {{.base = 1, .length = 2, .flags = 0x80000003},
                                        {.base = UINT64_MAX, .length = UINT64_MAX, .reserved = 9},
                                        {.cookie = 1ull << 63}};
    struct protect_rule rules[2] = {{.region = 3, .count = 4, .marker = 200, .reserved = 1},
                                    {.region = UINT32_MAX, .notify = UINT32_MAX}};
    memset(rules[0].allow, 0xa5, sizeof(rules[0].allow));
    memset(rules[1].action, 99, sizeof(rules[1].action));
    struct protect_handler handler = {.rip = 5, .stacks = 77, .stack = {1, 2, 3}};
    struct protect_query query = {.address = 6, .region = 7};
    const struct {
        struct protect_command command;
        size_t element, count;
    } cases[] = {
        {{.op = PROTECT_OP_BIND, .version = 3, .reserved = 4, .arg = {5}}, 0, 0},
        {{.op = PROTECT_OP_UNBIND, .session = UINT64_MAX, .arg = {0, 0, 0, 8}}, 0, 0},
        {{.op = PROTECT_OP_ADD_REGIONS, .arg = {(uintptr_t)regions, 3, 0, 1}}, sizeof(*regions), 3},
        {{.op = PROTECT_OP_ADD_REGIONS, .arg = {(uintptr_t)regions, 0}}, sizeof(*regions), 0},
        {{.op = PROTECT_OP_REMOVE_REGIONS, .arg = {1ull << 40, UINT64_MAX, 2}}, 0, 0},
        {{.op = PROTECT_OP_SET_RULES, .arg = {(uintptr_t)rules, 2}}, sizeof(*rules), 2},
        {{.op = PROTECT_OP_SET_HANDLER, .arg = {(uintptr_t)&handler}}, sizeof(handler), 1},
        {{.op = PROTECT_OP_SET_HANDLER, .arg = {0, 0, 7}}, 0, 0},
        {{.op = PROTECT_OP_QUERY, .arg = {(uintptr_t)&query}}, sizeof(query), 1},
        {{.op = PROTECT_OP_SEAL, .arg = {0xfff, 1}}, 0, 0},
        {{.op = 0}, 0, 0},
        {{.op = PROTECT_OPS, .arg = {1, 2, 3, 4}}, 0, 0},
        {{.op = 0xffff}, 0, 0},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        there_and_back(&cases[i].command, cases[i].element, cases[i].count);
}
END_TEST

/* More elements than a line could carry are refused by their number; nothing is read for them. */
START_TEST(too_many_elements_need_not_be_there)
{
    struct protect_command command = {.op = PROTECT_OP_ADD_REGIONS,
                                      .arg = {16, PROTECT_MAX_ELEMENTS + 1}};
    struct wire_command back;
    json_t *wire = wire_command_encode(&command);
    ck_assert(wire_command_decode(wire, &back, &why));
    ck_assert_uint_eq(back.command.arg[1], PROTECT_MAX_ELEMENTS + 1);
    ck_assert_uint_eq(back.size, 0);
    wire_command_free(&back);
    json_decref(wire);
}
END_TEST

START_TEST(addresses_of_a_command_stay_in_its_memory)
{
    struct wire_command c;
    json_t *wire = json("{\"op\": \"add-regions\", \"count\": 9, \"arg\": [1, 2],"
                        " \"regions\": [{\"base\": 1, \"length\": 1}]}");
    ck_assert_msg(wire_command_decode(wire, &c, &why), "%s", why.text);
    uint64_t at = c.command.arg[0];
    ck_assert_uint_eq(c.command.arg[1], 9);
    ck_assert_ptr_eq(wire_command_memory(&c, at, 32), c.memory);
    ck_assert_ptr_nonnull(wire_command_memory(&c, at + 31, 1));
    ck_assert_ptr_null(wire_command_memory(&c, at, 33));
    ck_assert_ptr_null(wire_command_memory(&c, at + 32, 1));
    ck_assert_ptr_null(wire_command_memory(&c, at - 1, 1));
    ck_assert_ptr_null(wire_command_memory(&c, 0, 1));
    ck_assert_ptr_null(wire_command_memory(&c, at + 1, SIZE_MAX));
    wire_command_free(&c);
    json_decref(wire);
    /* an operation without an array has no memory at all */
    wire = json("{\"op\": 99, \"arg\": [4096]}");
    ck_assert(wire_command_decode(wire, &c, &why));
    ck_assert_uint_eq(c.command.arg[0], 4096);
    ck_assert_ptr_null(wire_command_memory(&c, 4096, 1));
    ck_assert_ptr_null(wire_command_memory(&c, 0, 0));
    json_decref(wire);
}
END_TEST

START_TEST(replies_fill_in_what_the_command_asked_for)
{
    struct protect_query answer = {.address = 1, .region = 2, .base = 3, .rule = {.marker = 15}};
    struct protect_query asked = {.address = 9};
    struct protect_command there = {
        .op = PROTECT_OP_QUERY, .arg = {(uintptr_t)&answer}, .result = 1ull << 63};
    struct protect_command here = {.op = PROTECT_OP_QUERY, .arg = {(uintptr_t)&asked}};
    json_t *reply = json_object();
    wire_reply_encode(&there, reply);
    ck_assert(wire_reply_decode(reply, &here, &why));
    ck_assert_uint_eq(here.status, PROTECT_OK);
    ck_assert_uint_eq(here.result, 1ull << 63);
    ck_assert_mem_eq(&asked, &answer, sizeof(asked));
    json_decref(reply);
    /* a refused one fills in nothing */
    there.status = PROTECT_SEALED;
    there.element = 4;
    asked = (struct protect_query){.address = 9};
    reply = json_object();
    wire_reply_encode(&there, reply);
    ck_assert_str_eq(json_string_value(json_object_get(reply, "status")), "SEALED");
    ck_assert(wire_reply_decode(reply, &here, &why));
    ck_assert_uint_eq(here.status, PROTECT_SEALED);
    ck_assert_uint_eq(here.element, 4);
    ck_assert_uint_eq(asked.address, 9);
    json_decref(reply);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("wire");
    TCase *t = tcase_create("wire");
    tcase_add_test(t, words_are_those_of_the_interface);
    tcase_add_loop_test(t, every_byte_of_a_structure_is_told, 0, LAYOUTS);
    tcase_add_loop_test(t, any_structure_survives_the_way_there_and_back, 0, LAYOUTS);
    tcase_add_test(t, a_rule_in_words);
    tcase_add_test(t, what_is_not_a_structure_is_refused_with_a_reason);
    tcase_add_test(t, a_newer_server_may_say_more);
    tcase_add_test(t, reasons_hold_no_control_characters);
    tcase_add_test(t, bytes_as_digits);
    tcase_add_test(t, commands_survive_the_way_there_and_back);
    tcase_add_test(t, too_many_elements_need_not_be_there);
    tcase_add_test(t, addresses_of_a_command_stay_in_its_memory);
    tcase_add_test(t, replies_fill_in_what_the_command_asked_for);
    suite_add_tcase(suite, t);
    SRunner *sr = srunner_create(suite);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
