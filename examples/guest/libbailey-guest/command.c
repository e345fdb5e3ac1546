/*
 * command.c - gives one command: fills a slot of the door, rings, reads the answer.
 *
 * A door has PROTECT_COMMANDS slots, so that a thread that is interrupted between filling one and
 * ringing (by a signal, by an upcall, by the scheduler) does not spoil the command of another.
 */
#include "bailey_guest.h"

static unsigned take_slot(struct bailey_door *door)
{
    for (;;) {
        uint32_t used = __atomic_load_n(&door->slots, __ATOMIC_RELAXED);
        uint32_t available = ~used & ((1u << PROTECT_COMMANDS) - 1);
        uint32_t bit = available & -available;
        if (bit && !(__atomic_fetch_or(&door->slots, bit, __ATOMIC_ACQUIRE) & bit))
            return (unsigned)__builtin_ctz(bit);
        __builtin_ia32_pause();
    }
}

static void give_back_slot(struct bailey_door *door, unsigned slot)
{
    __atomic_fetch_and(&door->slots, ~(1u << slot), __ATOMIC_RELEASE);
}

enum protect_status bailey_command(struct bailey_door *door, enum protect_op op, uint64_t arg0,
                                   uint64_t arg1, uint64_t *result)
{
    unsigned slot = take_slot(door);
    volatile struct protect_command *command = &door->regs->command[slot];
    /* op, version and the reserved half in one store */
    *(volatile uint64_t *)command = (uint64_t)op | (uint64_t)(PROTECT_VERSION >> 16) << 16;
    command->session = door->session;
    command->arg[0] = arg0;
    command->arg[1] = arg1;
    command->arg[2] = 0;
    command->arg[3] = 0;
    __asm__ volatile("" ::: "memory"); /* what the command points to is in memory by now */
    door->regs->doorbell = slot;
    __asm__ volatile("" ::: "memory"); /* and what it wrote there is read again */
    enum protect_status status = (enum protect_status)command->status;
    if (result)
        *result = command->result;
    if (status != PROTECT_OK)
        door->element = command->element;
    give_back_slot(door, slot);
    return status;
}

/* Between touching a page and ringing, an operating system short of memory may take the page away
 * again; that this happens many times in a row to an address that can be touched is no accident. */
enum { TRIES = 16 };

enum protect_status bailey_command_array(struct bailey_door *door, enum protect_op op,
                                         const volatile void *array, size_t bytes,
                                         enum bailey_touch touch, uint64_t arg1, uint64_t *result)
{
    enum protect_status status = PROTECT_NOT_MAPPED;
    for (unsigned n = 0; n < TRIES && status == PROTECT_NOT_MAPPED; n++) {
        bailey_touch(array, bytes, touch);
        status = bailey_command(door, op, (uintptr_t)array, arg1, result);
    }
    return status;
}
