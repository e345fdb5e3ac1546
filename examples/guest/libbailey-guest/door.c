/*
 * door.c - opening and closing a door: finding one that is free and binding it.
 */
#include "bailey_guest.h"

/* Binds the door at `regs`; PROTECT_BUSY: somebody has it. */
static int bind(struct bailey_door *door, volatile struct protect_door *regs)
{
    if (regs->id != PROTECT_ID || regs->version >> 16 != PROTECT_VERSION >> 16)
        return BAILEY_NO_DEVICE;
    if (regs->state != PROTECT_DOOR_FREE)
        return PROTECT_BUSY;
    *door = (struct bailey_door){.regs = regs, .index = regs->index};
    uint64_t session;
    enum protect_status status = bailey_command(door, PROTECT_OP_BIND, 0, 0, &session);
    if (status == PROTECT_OK)
        door->session = session;
    return status == PROTECT_WRONG_CALLER ? PROTECT_BUSY : status; /* somebody was faster */
}

int bailey_door_open(struct bailey_door *door, volatile void *doors, unsigned count)
{
    volatile struct protect_door *regs = doors;
    int status = BAILEY_NO_DEVICE;
    for (unsigned n = 0; n < count; n++) {
        status = bind(door, regs + n);
        if (status != PROTECT_BUSY)
            break;
    }
    return status;
}

int bailey_fixed_open(struct bailey_door *door)
{
    return bailey_door_open(door, (volatile void *)PROTECT_DOORS_ADDRESS, PROTECT_DOORS);
}

enum protect_status bailey_door_close(struct bailey_door *door)
{
    enum protect_status status = bailey_command(door, PROTECT_OP_UNBIND, 0, 0, NULL);
    if (status == PROTECT_OK) {
        if (door->entry) /* the context is gone: only the entry point is to be given back */
            bailey_handler_set(door, NULL, NULL, NULL, 0, 0);
        *door = (struct bailey_door){0};
    }
    return status;
}
