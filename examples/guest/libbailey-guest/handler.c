/*
 * handler.c - a C function as the handler of upcalls.
 *
 * The device enters a handler at one address with RDI = the frame; nothing in it says through which
 * door. So each door with a handler gets an entry point of its own (entry.S), whose number leads to
 * the door here.
 */
#include "bailey_guest.h"

#define HIDDEN __attribute__((visibility("hidden")))

static struct {
    uint32_t taken; /* atomic */
    bailey_handler *handler;
    void *opaque;
    volatile struct protect_door *regs;
} entries[BAILEY_HANDLERS];

extern const char bailey_entry_points[] HIDDEN; /* entry.S */
enum { ENTRY_SIZE = 16 };

/* What entry.S stores, and where: returned in RAX and RDX. */
struct resume {
    uint64_t value;
    volatile uint64_t *to;
};
struct resume bailey_entry_run(struct protect_frame *frame, uint32_t number) HIDDEN;

struct resume bailey_entry_run(struct protect_frame *frame, uint32_t number)
{
    uint64_t token = frame->token; /* the handler may change the frame */
    enum protect_verdict verdict = entries[number].handler(frame, entries[number].opaque);
    if ((unsigned)verdict >= PROTECT_VERDICTS)
        verdict = PROTECT_REFUSE;
    return (struct resume){PROTECT_RESUME(token, verdict), &entries[number].regs->resume};
}

/* Takes a free entry point: its number + 1, 0 when there is none. */
static uint32_t take_entry(void)
{
    for (uint32_t n = 0; n < BAILEY_HANDLERS; n++)
        if (!__atomic_exchange_n(&entries[n].taken, 1, __ATOMIC_ACQUIRE))
            return n + 1;
    return 0;
}

static void give_back_entry(struct bailey_door *door)
{
    __atomic_store_n(&entries[door->entry - 1].taken, 0, __ATOMIC_RELEASE);
    door->entry = 0;
}

enum protect_status bailey_handler_set(struct bailey_door *door, bailey_handler *handler,
                                       void *opaque, void *const *stacks, unsigned count,
                                       unsigned timeout_ms)
{
    if (!handler) {
        enum protect_status status = bailey_command(door, PROTECT_OP_SET_HANDLER, 0, 0, NULL);
        if (door->entry && (status == PROTECT_OK || status == PROTECT_NOT_BOUND))
            give_back_entry(door);
        return status;
    }
    if (count > PROTECT_MAX_STACKS)
        return PROTECT_TOO_MANY;
    uint32_t before = door->entry, entry = take_entry();
    if (!entry)
        return PROTECT_TOO_MANY;
    entries[entry - 1].handler = handler;
    entries[entry - 1].opaque = opaque;
    entries[entry - 1].regs = door->regs;
    struct protect_handler h;
    h.rip = (uintptr_t)bailey_entry_points + (uintptr_t)(entry - 1) * ENTRY_SIZE;
    h.stacks = count;
    h.timeout_ms = timeout_ms;
    for (unsigned n = 0; n < PROTECT_MAX_STACKS; n++)
        h.stack[n] = n < count ? (uintptr_t)stacks[n] : 0;
    enum protect_status status = bailey_command_array(door, PROTECT_OP_SET_HANDLER, &h, sizeof(h),
                                                      BAILEY_TOUCH_READ, 0, NULL);
    if (status == PROTECT_OK && before)
        give_back_entry(door); /* of the handler that this one replaces */
    door->entry = entry;
    if (status != PROTECT_OK) {
        give_back_entry(door);
        door->entry = before;
    }
    return status;
}
