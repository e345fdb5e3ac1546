/*
 * protect_admin.c - the admin page of the protection device: totals, grants, and the end of other
 * people's contexts. Whoever can map it may do all of that.
 */
#include "protect.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

enum {
    GRANT_DOOR = 0xff,
    GRANT_SHIFT = 8,
    GRANT_TAKE_AWAY = 1u << 31,
};

static void do_grant(void *opaque, const struct access *access)
{
    struct protect_device *dev = opaque;
    uint64_t value = dev->work[access->vcpu].value;
    uint64_t known = GRANT_DOOR | PROTECT_GRANT_ALL << GRANT_SHIFT | GRANT_TAKE_AWAY;
    enum protect_status status = PROTECT_BAD_RESERVED;
    rules_change_begin(dev->rules, access->vcpu);
    if ((value & GRANT_DOOR) >= PROTECT_DOORS)
        status = PROTECT_BAD_ARGUMENT;
    else if (!(value & ~known))
        status = rules_grant(dev->rules, value & GRANT_DOOR,
                             value >> GRANT_SHIFT & PROTECT_GRANT_ALL, value & GRANT_TAKE_AWAY);
    dev->grant_status = status;
    rules_change_end(dev->rules, access->vcpu);
}

static void do_destroy(void *opaque, const struct access *access)
{
    struct protect_device *dev = opaque;
    uint64_t door = dev->work[access->vcpu].value;
    rules_change_begin(dev->rules, access->vcpu);
    dev->destroy_status =
        door < PROTECT_DOORS ? rules_destroy(dev->rules, (unsigned)door) : PROTECT_BAD_ARGUMENT;
    rules_change_end(dev->rules, access->vcpu);
}

static void store_grant(struct protect_device *dev, unsigned door, const struct access *access,
                        uint64_t value)
{
    (void)door;
    protect_later(dev, access, do_grant)->value = value;
}

static void store_destroy(struct protect_device *dev, unsigned door, const struct access *access,
                          uint64_t value)
{
    (void)door;
    protect_later(dev, access, do_destroy)->value = value;
}

static const struct protect_control controls[] = {
    {offsetof(struct protect_admin, grant), store_grant},
    {offsetof(struct protect_admin, destroy), store_destroy},
};

static uint64_t admin_read(void *opaque, const struct access *access, uint64_t offset,
                           unsigned size)
{
    struct protect_device *dev = opaque;
    struct protect_statistics total = {0};
    uint64_t regions = 0, ruled_pages = 0;
    (void)access;
    if (!protect_readable(dev, offset, size))
        return ~0ull;
    rules_totals(dev->rules, &regions, &ruled_pages, &total);
    const struct protect_register registers[] = {
#define REGISTER(member, value) PROTECT_REGISTER(protect_admin, member, value)
        REGISTER(id, PROTECT_ID),
        REGISTER(version, PROTECT_VERSION),
        REGISTER(doors, PROTECT_DOORS),
        REGISTER(door_size, PROTECT_DOOR_SIZE),
        REGISTER(doors_address, PROTECT_DOORS_ADDRESS),
        REGISTER(grant, dev->grant_status),
        REGISTER(destroy, dev->destroy_status),
        REGISTER(regions, regions),
        REGISTER(max_regions, PROTECT_MAX_REGIONS),
        REGISTER(ruled_pages, ruled_pages),
#define X(name) REGISTER(total.name, total.name),
        PROTECT_COUNTERS(X)
#undef X
#undef REGISTER
    };
    return protect_load(registers, COUNT(registers), offset, size);
}

static void admin_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                        uint64_t value)
{
    struct protect_device *dev = opaque;
    if (protect_writable(dev, access, offset, size))
        protect_store(dev, 0, access, controls, COUNT(controls), offset, value);
}

const struct io_ops protect_admin_ops = {
    .read = admin_read, .write = admin_write, .min = 1, .max = 8};
