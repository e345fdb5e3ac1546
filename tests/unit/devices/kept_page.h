/*
 * kept_page.h - a page of a device test's RAM that a protection rule keeps from all devices.
 */
#ifndef TEST_KEPT_PAGE_H
#define TEST_KEPT_PAGE_H

#include "internal/rules.h"
#include "virtio_driver.h"

static inline bool kept_copy_in(void *opaque, uint64_t address, void *to, size_t len)
{
    (void)opaque;
    memcpy(to, (const void *)(uintptr_t)address, len);
    return true;
}

static inline uint64_t kept_command(struct rules *rules, enum protect_op op, uint64_t session,
                                    const void *array, uint64_t count)
{
    const struct paging off = {.cr0 = 0x11, .maxphyaddr = 40, .a20 = true};
    const struct rules_caller host = {.kind = RULES_HOST, .paging = &off, .copy_in = kept_copy_in};
    struct protect_command c = {
        .op = (uint16_t)op, .session = session, .arg = {(uintptr_t)array, count}};
    rules_change_begin(rules, -1);
    rules_execute(rules, PROTECT_DOORS, &c, &host);
    rules_change_end(rules, -1);
    ck_assert_msg(c.status == PROTECT_OK, "%s", rules_status_text(c.status));
    return c.result;
}

/* A page that devices may not touch. */
static inline struct rules *keep_page(uint64_t gpa)
{
    struct error err = {""};
    struct rules *rules = rules_new(board.map, NULL, board.clock, &quiet, &err);
    ck_assert_msg(rules != NULL, "%s", err.msg);
    uint64_t session = kept_command(rules, PROTECT_OP_BIND, 0, NULL, 0);
    struct protect_region region = {.base = gpa, .length = 4096, .flags = PROTECT_PHYSICAL};
    struct protect_rule rule = {.count = 1, .allow = {7, 7, 7, 7, 7, 0, 7, 7}};
    rule.region = (uint32_t)kept_command(rules, PROTECT_OP_ADD_REGIONS, session, &region, 1);
    kept_command(rules, PROTECT_OP_SET_RULES, session, &rule, 1);
    return rules;
}

#endif
