/*
 * regions.c - what a context holds: regions, their rules, and questions about them.
 */
#include "bailey_guest.h"

enum protect_status bailey_regions_add(struct bailey_door *door,
                                       const struct protect_region *regions, unsigned count,
                                       uint32_t *first)
{
    uint64_t result;
    enum protect_status status =
        bailey_command_array(door, PROTECT_OP_ADD_REGIONS, regions, count * sizeof(*regions),
                             BAILEY_TOUCH_READ, count, &result);
    if (status == PROTECT_OK)
        *first = (uint32_t)result;
    return status;
}

enum protect_status bailey_regions_remove(struct bailey_door *door, uint32_t first, unsigned count)
{
    return bailey_command(door, PROTECT_OP_REMOVE_REGIONS, first, count, NULL);
}

enum protect_status bailey_rules_set(struct bailey_door *door, const struct protect_rule *rules,
                                     unsigned count)
{
    return bailey_command_array(door, PROTECT_OP_SET_RULES, rules, count * sizeof(*rules),
                                BAILEY_TOUCH_READ, count, NULL);
}

enum protect_status bailey_protect(struct bailey_door *door, const volatile void *base,
                                   uint64_t length, const struct protect_rule *rule,
                                   uint32_t *region)
{
    struct protect_region r = {
        .base = (uintptr_t)base, .length = length, .cookie = (uintptr_t)base};
    struct protect_rule its = *rule;
    enum protect_status status = bailey_regions_add(door, &r, 1, &its.region);
    if (status != PROTECT_OK)
        return status;
    its.count = 1;
    status = bailey_rules_set(door, &its, 1);
    if (status != PROTECT_OK)
        bailey_regions_remove(door, its.region, 1);
    else if (region)
        *region = its.region;
    return status;
}

static enum protect_status query(struct bailey_door *door, struct protect_query *query)
{
    return bailey_command_array(door, PROTECT_OP_QUERY, query, sizeof(*query), BAILEY_TOUCH_WRITE,
                                0, NULL);
}

enum protect_status bailey_query(struct bailey_door *door, const volatile void *address,
                                 struct protect_query *out)
{
    *out = (struct protect_query){.address = (uintptr_t)address, .region = ~0u};
    return query(door, out);
}

enum protect_status bailey_query_region(struct bailey_door *door, uint32_t region,
                                        struct protect_query *out)
{
    *out = (struct protect_query){.region = region};
    return query(door, out);
}

enum protect_status bailey_seal(struct bailey_door *door, uint32_t seals)
{
    return bailey_command(door, PROTECT_OP_SEAL, seals, 0, NULL);
}

enum protect_status bailey_statistics(struct bailey_door *door,
                                      struct protect_statistics *statistics)
{
    return bailey_command_array(door, PROTECT_OP_STATISTICS, statistics, sizeof(*statistics),
                                BAILEY_TOUCH_WRITE, 0, NULL);
}
