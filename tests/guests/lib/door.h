/*
 * door.h - giving commands to the protection device from a guest, and reading what it says
 * (include/bailey/protect.h).
 */
#ifndef GUEST_DOOR_H
#define GUEST_DOOR_H

#include "bailey/protect.h"
#include "guest.h"

#define DOOR(n) ((volatile struct protect_door *)(word)PROTECT_DOOR_ADDRESS(n))
#define ADMIN   ((volatile struct protect_admin *)(word)PROTECT_ADMIN_ADDRESS)

/* Where a slot's fields are, in 32-bit stores that both guests can make. */
static __attribute__((unused)) void door_put(volatile void *at, uint64_t value)
{
#ifdef __x86_64__
    *(volatile uint64_t *)at = value;
#else
    ((volatile uint32_t *)at)[0] = (uint32_t)value;
    ((volatile uint32_t *)at)[1] = (uint32_t)(value >> 32);
#endif
}
static __attribute__((unused)) uint64_t door_get(const volatile void *at)
{
#ifdef __x86_64__
    return *(const volatile uint64_t *)at;
#else
    uint32_t low = ((const volatile uint32_t *)at)[0];
    return low | (uint64_t)((const volatile uint32_t *)at)[1] << 32;
#endif
}

/* Fills slot `slot` and rings. Returns the status. */
static __attribute__((unused)) uint32_t door_command_in(unsigned slot, unsigned door, unsigned op,
                                                        uint64_t session, uint64_t a0, uint64_t a1)
{
    volatile struct protect_command *c = &DOOR(door)->command[slot];
    door_put(c, op);
    door_put(&c->session, session);
    door_put(&c->arg[0], a0);
    door_put(&c->arg[1], a1);
    door_put(&c->arg[2], 0);
    door_put(&c->arg[3], 0);
    *(volatile uint32_t *)&DOOR(door)->doorbell = slot;
    return c->status;
}
static __attribute__((unused)) uint32_t door_command(unsigned door, unsigned op, uint64_t session,
                                                     uint64_t a0, uint64_t a1)
{
    return door_command_in(0, door, op, session, a0, a1);
}
static __attribute__((unused)) uint64_t door_result(unsigned door)
{
    return door_get(&DOOR(door)->command[0].result);
}

static __attribute__((unused)) struct protect_event door_event(unsigned door, uint64_t sequence)
{
    struct protect_event e;
    volatile uint32_t *from =
        (volatile uint32_t *)&DOOR(door)->event[(uint32_t)(sequence - 1) % PROTECT_EVENTS];
    for (unsigned i = 0; i < sizeof e / 4; i++)
        ((uint32_t *)&e)[i] = from[i];
    return e;
}

#define DOOR_ALL                                                                                   \
    {                                                                                              \
        7, 7, 7, 7, 7, 7, 7, 7                                                                     \
    }

/* A rule that leaves everybody alone; tests take away what they mean. */
static __attribute__((unused)) struct protect_rule door_rule(uint32_t region)
{
    struct protect_rule r = {.region = region, .count = 1, .allow = DOOR_ALL, .action = DOOR_ALL};
    return r;
}

static struct protect_region door_region_ __attribute__((unused));
static struct protect_rule door_rule_ __attribute__((unused));

/* Adds one region; its id, or ~0. */
static __attribute__((unused)) uint32_t door_add(unsigned door, uint64_t session, word base,
                                                 uint64_t length, uint32_t flags, uint64_t cookie)
{
    door_region_ =
        (struct protect_region){.base = base, .length = length, .flags = flags, .cookie = cookie};
    if (door_command(door, PROTECT_OP_ADD_REGIONS, session, (word)&door_region_, 1) != PROTECT_OK)
        return ~0u;
    return (uint32_t)door_result(door);
}
static __attribute__((unused)) uint32_t door_set(unsigned door, uint64_t session,
                                                 const struct protect_rule *rule)
{
    door_rule_ = *rule;
    return door_command(door, PROTECT_OP_SET_RULES, session, (word)&door_rule_, 1);
}
static __attribute__((unused)) uint32_t door_remove(unsigned door, uint64_t session,
                                                    uint32_t region)
{
    return door_command(door, PROTECT_OP_REMOVE_REGIONS, session, region, 1);
}

#endif
