/*
 * layout.c - which fields the structures of protect.h have, and how each looks in JSON.
 */
#include "internal/wire.h"

#define AT(type, member)                                                                           \
    .name = #member, .offset = offsetof(type, member), .size = sizeof(((type *)0)->member)
#define LIST(type, member, n)                                                                      \
    .name = #member, .offset = offsetof(type, member), .size = sizeof(((type *)0)->member[0]),     \
    .count = (n)
#define RESERVED .type = WIRE_HEX, .hidden = true

#define R(member) AT(struct protect_region, member)
static const struct wire_field region_fields[] = {
    {R(base), .type = WIRE_HEX, .required = true},
    {R(length), .type = WIRE_HEX, .required = true},
    {R(flags), .type = WIRE_BITS, .words = wire_region_flags},
    {R(reserved), RESERVED},
    {R(cookie), .type = WIRE_HEX},
    {0},
};
const struct wire_layout wire_region = {"region", sizeof(struct protect_region), region_fields};

#define U(member) AT(struct protect_rule, member)
#define BY_SUBJECT(member)                                                                         \
    LIST(struct protect_rule, member, PROTECT_SUBJECTS), .keys = wire_subjects
static const struct wire_field rule_fields[] = {
    {U(region), .type = WIRE_DECIMAL, .required = true},
    {U(count), .type = WIRE_DECIMAL},
    {BY_SUBJECT(allow), .type = WIRE_ACCESS},
    {BY_SUBJECT(action), .type = WIRE_CHOICE, .words = wire_actions},
    {U(notify), .type = WIRE_BITS, .words = wire_notify},
    {U(fault), .type = WIRE_CHOICE, .words = wire_faults},
    {U(marker), .type = WIRE_DECIMAL},
    {U(reserved), RESERVED},
    {U(value), .type = WIRE_HEX},
    {0},
};
const struct wire_layout wire_rule = {"rule", sizeof(struct protect_rule), rule_fields};

#define H(member) AT(struct protect_handler, member)
static const struct wire_field handler_fields[] = {
    {H(rip), .type = WIRE_HEX},
    {H(stacks), .type = WIRE_DECIMAL},
    {H(timeout_ms), .type = WIRE_DECIMAL},
    {LIST(struct protect_handler, stack, PROTECT_MAX_STACKS), .type = WIRE_HEX},
    {0},
};
const struct wire_layout wire_handler = {"handler", sizeof(struct protect_handler), handler_fields};

#define Q(member) AT(struct protect_query, member)
static const struct wire_field query_fields[] = {
    {Q(address), .type = WIRE_HEX},
    {Q(region), .type = WIRE_DECIMAL},
    {Q(pages), .type = WIRE_DECIMAL},
    {Q(base), .type = WIRE_HEX},
    {Q(length), .type = WIRE_HEX},
    {Q(cookie), .type = WIRE_HEX},
    {Q(flags), .type = WIRE_BITS, .words = wire_region_flags},
    {Q(resolved), .type = WIRE_DECIMAL},
    {Q(rule), .type = WIRE_NESTED, .layout = &wire_rule},
    {0},
};
const struct wire_layout wire_query = {"query", sizeof(struct protect_query), query_fields};

#define E(member) AT(struct protect_event, member)
static const struct wire_field event_fields[] = {
    {E(sequence), .type = WIRE_DECIMAL},
    {E(type), .type = WIRE_CHOICE, .words = wire_event_types},
    {E(access), .type = WIRE_ACCESS},
    {E(subject), .type = WIRE_CHOICE, .words = wire_subjects},
    {E(action), .type = WIRE_CHOICE, .words = wire_actions},
    {E(flags), .type = WIRE_BITS, .words = wire_event_flags},
    {E(vcpu), .type = WIRE_DECIMAL},
    {E(region), .type = WIRE_DECIMAL},
    {E(length), .type = WIRE_DECIMAL},
    {E(cookie), .type = WIRE_HEX},
    {E(gva), .type = WIRE_HEX},
    {E(home), .type = WIRE_HEX},
    {E(gpa), .type = WIRE_HEX},
    {E(rip), .type = WIRE_HEX},
    {E(cr3), .type = WIRE_HEX},
    {LIST(struct protect_event, value, 2), .type = WIRE_HEX},
    {LIST(struct protect_event, preimage, 2), .type = WIRE_HEX},
    {E(time), .type = WIRE_DECIMAL},
    {E(device), .type = WIRE_HEX},
    {E(cpl), .type = WIRE_DECIMAL},
    {LIST(struct protect_event, reserved, 13), RESERVED},
    {0},
};
const struct wire_layout wire_event = {"event", sizeof(struct protect_event), event_fields};

static const struct wire_field statistics_fields[] = {
#define X(counter) {AT(struct protect_statistics, counter), .type = WIRE_DECIMAL},
    PROTECT_COUNTERS(X)
#undef X
        {0},
};
const struct wire_layout wire_statistics = {"statistics", sizeof(struct protect_statistics),
                                            statistics_fields};
