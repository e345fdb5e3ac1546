/*
 * events.c - reads the door's ring of events.
 */
#include "bailey_guest.h"

bool bailey_event_next(struct bailey_door *door, struct protect_event *event)
{
    uint64_t wanted = door->regs->event_tail + 1;
    if (door->regs->event_head < wanted)
        return false;
    const volatile struct protect_event *slot = &door->regs->event[(wanted - 1) % PROTECT_EVENTS];
    if (slot->sequence != wanted)
        return false; /* not written to the end yet */
    const volatile uint64_t *from = (const volatile uint64_t *)slot;
    uint64_t *to = (uint64_t *)event;
    for (size_t n = 0; n < sizeof(*event) / sizeof(*to); n++)
        to[n] = from[n];
    door->regs->event_tail = wanted;
    return true;
}

uint64_t bailey_events_lost(struct bailey_door *door)
{
    return door->regs->event_lost;
}
