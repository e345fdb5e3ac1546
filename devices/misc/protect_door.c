/*
 * protect_door.c - the doors of the protection device: registers, command slots, events, and the
 * doorbell.
 *
 * Several programs may have mapped one door. While it is free, anybody may fill a slot and bind;
 * once it is bound, only the owner's stores count and only the owner sees slots (the session value
 * lies there) and events. To everybody else the door shows its first registers, and in each slot
 * the status WRONG_CALLER: a program that lost the race for a free door must not read "done".
 *
 * The owner is known by the store itself: a user context's by CPL 3 and the root it is bound to, a
 * supervisor context's by CPL 0 to 2. Implicit supervisor accesses at CPL 3 are nobody's.
 *
 * Binding, and the end of a context, whoever ends it, clear the door's slots: what one program left
 * there is nothing to the next.
 */
#include "internal/log.h"
#include "protect.h"
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

enum standing { STRANGER, NEWCOMER /* the door is free */, OWNER };

void protect_door_clear(struct protect_device *dev, unsigned door)
{
    dev->session[door] = 0;
    dev->resume_status[door] = PROTECT_OK;
    memset(dev->command[door], 0, sizeof(dev->command[door]));
}

static bool is_owner(const struct rules_owner *owner, const struct access *access)
{
    if (owner->kind == RULES_USER)
        return access->initiator == INITIATOR_VCPU_USER && access->cpl == 3 &&
               (access->cr3 & owner->root_mask) == owner->root;
    return owner->kind == RULES_SUPERVISOR && access->initiator == INITIATOR_VCPU_KERNEL &&
           access->cpl < 3;
}

/* Who the accessor is to this door, as it is now. Contexts may end without the door's doing, so
 * each look first makes the slots the present context's. */
static enum standing look(struct protect_device *dev, unsigned door, const struct access *access)
{
    struct rules_owner owner;
    rules_context_owner(dev->rules, door, &owner);
    uint64_t session = owner.kind == RULES_FREE ? 0 : owner.session;
    if (dev->session[door] != session) {
        protect_door_clear(dev, door);
        dev->session[door] = session;
    }
    return owner.kind == RULES_FREE ? NEWCOMER : is_owner(&owner, access) ? OWNER : STRANGER;
}

/* ---- Commands --------------------------------------------------------------------------------
 */

static void answer(struct protect_device *dev, const struct protect_work *work)
{
    struct protect_command *slot = &dev->command[work->door][work->slot];
    slot->status = work->command.status;
    slot->element = work->command.element;
    slot->result = work->command.result;
}

/* In the vCPU's thread, without a lock. Others may have changed the context while this vCPU waited
 * for its turn. */
static void carry_out(void *opaque, const struct access *access)
{
    struct protect_device *dev = opaque;
    struct protect_work *work = &dev->work[access->vcpu];
    rules_change_begin(dev->rules, access->vcpu);
    if (look(dev, work->door, access) != STRANGER) {
        struct rules_caller caller = {0};
        dev->port.caller(dev->port.opaque, access->vcpu, &caller);
        caller.door_gva = access->gva;
        dev->executing = true;
        rules_execute(dev->rules, work->door, &work->command, &caller);
        dev->executing = false;
        look(dev, work->door, access); /* it may have begun or ended the context */
        answer(dev, work);
    }
    rules_change_end(dev->rules, access->vcpu);
}

static void store_doorbell(struct protect_device *dev, unsigned door, const struct access *access,
                           uint64_t value)
{
    if (value >= PROTECT_COMMANDS) {
        LOG(dev->pci.bus->board->log, LOG_GUEST_ERRORS,
            "protect: door %u has no command slot %#llx, rip %#llx\n", door,
            (unsigned long long)value, (unsigned long long)access->rip);
        return;
    }
    struct protect_work *work = protect_later(dev, access, carry_out);
    work->door = door;
    work->slot = (unsigned)value;
    work->command = dev->command[door][value];
}

/* In the vCPU's thread, without a lock; does not come back from a resume that is right. */
static void resume(void *opaque, const struct access *access)
{
    struct protect_device *dev = opaque;
    const struct protect_work *work = &dev->work[access->vcpu];
    enum protect_status status =
        dev->port.resume(dev->port.opaque, access->vcpu, work->door, work->value);
    pthread_mutex_lock(dev->pci.bus->board->lock);
    if (look(dev, work->door, access) == OWNER)
        dev->resume_status[work->door] = status;
    pthread_mutex_unlock(dev->pci.bus->board->lock);
}

static void store_resume(struct protect_device *dev, unsigned door, const struct access *access,
                         uint64_t value)
{
    struct protect_work *work = protect_later(dev, access, resume);
    work->door = door;
    work->value = value;
}

/* ---- Registers -------------------------------------------------------------------------------
 */

static void store_tail(struct protect_device *dev, unsigned door, const struct access *access,
                       uint64_t value)
{
    if (!rules_set_event_tail(dev->rules, door, value))
        LOG(dev->pci.bus->board->log, LOG_GUEST_ERRORS,
            "protect: door %u: no event_tail %llu, rip %#llx\n", door, (unsigned long long)value,
            (unsigned long long)access->rip);
}

static void store_masked(struct protect_device *dev, unsigned door, const struct access *access,
                         uint64_t value)
{
    rules_set_masked(dev->rules, door, value != 0);
    if (!value)
        dev->port.unmasked(dev->port.opaque, access->vcpu);
}

/* The doorbell comes first: it is all that a newcomer may store to. */
static const struct protect_control controls[] = {
    {offsetof(struct protect_door, doorbell), store_doorbell},
    {offsetof(struct protect_door, resume), store_resume},
    {offsetof(struct protect_door, event_tail), store_tail},
    {offsetof(struct protect_door, masked), store_masked},
};

static uint64_t read_registers(struct protect_device *dev, unsigned door, enum standing standing,
                               uint64_t offset, unsigned size)
{
    static const uint32_t states[] = {[RULES_FREE] = PROTECT_DOOR_FREE,
                                      [RULES_USER] = PROTECT_DOOR_USER,
                                      [RULES_SUPERVISOR] = PROTECT_DOOR_SUPERVISOR};
    enum { EVERYBODYS = 4 };
    struct rules_context_info info = {0};
    rules_context_info(dev->rules, door, &info);
    const struct protect_register registers[] = {
#define REGISTER(member, value) PROTECT_REGISTER(protect_door, member, value)
        REGISTER(id, PROTECT_ID),
        REGISTER(version, PROTECT_VERSION),
        REGISTER(index, door),
        REGISTER(state, states[info.kind]),
        /* from here on the owner's */
        REGISTER(grants, info.grants),
        REGISTER(seals, info.seals),
        REGISTER(event_head, info.event_head),
        REGISTER(event_tail, info.event_tail),
        REGISTER(event_lost, info.event_lost),
        REGISTER(upcall_depth, info.upcall_depth),
        REGISTER(masked, info.masked),
        REGISTER(resume_status, dev->resume_status[door]),
#undef REGISTER
    };
    return protect_load(registers, standing == OWNER ? COUNT(registers) : EVERYBODYS, offset, size);
}

/* ---- Slots and events --------------------------------------------------------------------------
 */

static uint64_t part(const void *from, uint64_t offset, unsigned size)
{
    uint64_t value = 0;
    memcpy(&value, (const uint8_t *)from + offset, size);
    return value;
}

static uint64_t read_slot(const struct protect_device *dev, unsigned door, enum standing standing,
                          uint64_t offset, unsigned size)
{
    static const struct protect_command not_yours = {.status = PROTECT_WRONG_CALLER};
    const struct protect_command *slot =
        standing == STRANGER ? &not_yours : &dev->command[door][offset / sizeof(*slot)];
    return part(slot, offset % sizeof(*slot), size);
}

static void write_slot(struct protect_device *dev, unsigned door, uint64_t offset, unsigned size,
                       uint64_t value)
{
    struct protect_command *slot = &dev->command[door][offset / sizeof(*slot)];
    offset %= sizeof(*slot);
    if (offset < offsetof(struct protect_command, status))
        memcpy((uint8_t *)slot + offset, &value, size);
}

static uint64_t read_event(struct protect_device *dev, unsigned door, enum standing standing,
                           uint64_t offset, unsigned size)
{
    struct protect_event event = {0};
    unsigned slot = (unsigned)(offset / sizeof(event));
    if (standing == OWNER && slot < PROTECT_EVENTS)
        rules_read_event(dev->rules, door, slot, &event);
    return part(&event, offset % sizeof(event), size);
}

/* ---- Accesses --------------------------------------------------------------------------------
 */

#define SLOTS_AT  offsetof(struct protect_door, command)
#define SLOTS_END offsetof(struct protect_door, reserved2)
#define EVENTS_AT offsetof(struct protect_door, event)

static uint64_t door_read(void *opaque, const struct access *access, uint64_t offset, unsigned size)
{
    struct protect_device *dev = opaque;
    unsigned door = (unsigned)(offset / PROTECT_DOOR_SIZE);
    bool structs = offset % PROTECT_DOOR_SIZE >= SLOTS_AT; /* read a member at a time, as C does */
    if (dev->executing || (structs ? offset % size != 0 : !protect_readable(dev, offset, size)))
        return ~0ull;
    enum standing standing = look(dev, door, access);
    offset %= PROTECT_DOOR_SIZE;
    if (offset >= EVENTS_AT)
        return read_event(dev, door, standing, offset - EVENTS_AT, size);
    if (offset >= SLOTS_AT && offset < SLOTS_END)
        return read_slot(dev, door, standing, offset - SLOTS_AT, size);
    return read_registers(dev, door, standing, offset, size);
}

static void door_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                       uint64_t value)
{
    struct protect_device *dev = opaque;
    unsigned door = (unsigned)(offset / PROTECT_DOOR_SIZE);
    if (!protect_writable(dev, access, offset, size))
        return;
    enum standing standing = look(dev, door, access);
    offset %= PROTECT_DOOR_SIZE;
    if (standing == STRANGER)
        return;
    if (offset >= SLOTS_AT && offset < SLOTS_END)
        write_slot(dev, door, offset - SLOTS_AT, size, value);
    else
        protect_store(dev, door, access, controls, standing == OWNER ? COUNT(controls) : 1, offset,
                      value);
}

const struct io_ops protect_door_ops = {.read = door_read, .write = door_write, .min = 1, .max = 8};
