/*
 * watch.h - a supervisor context at door 0 whose rules tell, or refuse, what one subject does.
 *
 *     watch_begin();
 *     uint32_t id = watch(&idt[3], 8, PROTECT_EVENT, PROTECT_ALLOW);
 *     ...
 *     CHECK_EQ(watch_head(), 1);
 *     CHECK_EVENT(1, PROTECT_READ, PROTECT_EVENT, 8, &idt[3]);
 *     watch_change(id, PROTECT_EVENT, PROTECT_DENY);
 *     watch_end();
 *
 * Included once per guest.
 */
#ifndef GUEST_WATCH_H
#define GUEST_WATCH_H

#include "door.h"

static uint64_t session;
static struct protect_event event; /* that CHECK_EVENT() has looked at last */

static __attribute__((unused)) uint64_t watch_head(void)
{
    return door_get(&DOOR(0)->event_head);
}
static __attribute__((unused)) void watch_begin(void)
{
    CHECK_EQ(door_command(0, PROTECT_OP_BIND, 0, 0, 0), PROTECT_OK);
    session = door_result(0);
}
static __attribute__((unused)) void watch_end(void)
{
    CHECK_EQ(door_command(0, PROTECT_OP_UNBIND, session, 0, 0), PROTECT_OK);
}
static __attribute__((unused)) void watch_change(uint32_t id, unsigned subject, uint8_t action)
{
    struct protect_rule r = door_rule(id);
    r.allow[subject] = 0;
    r.action[subject] = action;
    r.notify = PROTECT_NOTIFY_PREIMAGE;
    CHECK_EQ(door_set(0, session, &r), PROTECT_OK);
}
/* The subject may do nothing to the bytes but by `action`. */
static __attribute__((unused)) uint32_t watch(const volatile void *at, uint64_t length,
                                              unsigned subject, uint8_t action)
{
    uint32_t id = door_add(0, session, (word)at, length, 0, 1);
    CHECK(id != ~0u);
    watch_change(id, subject, action);
    return id;
}

/* From the next store to the doorbell on, the supervisor may not write these bytes. */
static __attribute__((unused)) void watch_refuse_at_doorbell(const volatile void *at,
                                                             uint64_t length)
{
    uint32_t id = door_add(0, session, (word)at, length, 0, 1);
    CHECK(id != ~0u);
    door_rule_ = door_rule(id);
    door_rule_.allow[PROTECT_KERNEL] = door_rule_.allow[PROTECT_OWNER] =
        PROTECT_READ | PROTECT_EXEC;
    door_rule_.action[PROTECT_KERNEL] = door_rule_.action[PROTECT_OWNER] = PROTECT_DENY;
    volatile struct protect_command *c = &DOOR(0)->command[0];
    door_put(c, PROTECT_OP_SET_RULES);
    door_put(&c->session, session);
    door_put(&c->arg[0], (word)&door_rule_);
    door_put(&c->arg[1], 1);
}

/* The n-th event of this context says this. */
#define CHECK_EVENT(n, access_, subject_, length_, home_)                                          \
    do {                                                                                           \
        event = door_event(0, n);                                                                  \
        CHECK_EQ(event.sequence, n);                                                               \
        CHECK_EQ(event.access, access_);                                                           \
        CHECK_EQ(event.subject, subject_);                                                         \
        CHECK_EQ(event.length, length_);                                                           \
        CHECK_EQ(event.home, (word)(home_));                                                       \
    } while (0)

/* These are all the events of this context, in this order. Each is compared where it is written, so
 * that a failure names its line. */
struct watched {
    unsigned line;
    uint8_t access, subject;
    uint32_t length;
    const volatile void *home;
};
#define EVENT(access, subject, length, home)                                                       \
    {                                                                                              \
        __LINE__, access, PROTECT_##subject, length, home                                          \
    }
static __attribute__((unused)) void watch_expect(const struct watched *list, unsigned count)
{
    CHECK_EQ(watch_head(), count);
    for (unsigned n = 1; n <= count && n <= watch_head(); n++) {
        const struct watched *w = &list[n - 1];
        event = door_event(0, n);
        if (event.access != w->access || event.subject != w->subject || event.length != w->length ||
            event.home != (word)w->home)
            print("  line %u, event %u: access %x of subject %u, %u bytes at %lx, not %x, %u, %u, "
                  "%lx\n",
                  w->line, n, event.access, event.subject, event.length, (unsigned long)event.home,
                  w->access, w->subject, w->length, (unsigned long)(word)w->home);
        CHECK_EQ(event.access, w->access);
        CHECK_EQ(event.subject, w->subject);
        CHECK_EQ(event.length, w->length);
        CHECK_EQ(event.home, (word)w->home);
        CHECK_EQ(event.action, PROTECT_ALLOW);
    }
}
#define CHECK_EVENTS(...)                                                                          \
    do {                                                                                           \
        const struct watched list_[] = {__VA_ARGS__};                                              \
        watch_expect(list_, sizeof list_ / sizeof list_[0]);                                       \
    } while (0)

#endif
