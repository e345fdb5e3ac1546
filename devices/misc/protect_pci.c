/*
 * protect_pci.c - the protection device on the PCI bus and at its fixed addresses, and how its
 * registers are accessed (include/bailey/protect.h, "Where it is" and "Registers").
 */
#include "internal/error.h"
#include "protect.h"
#include <stdlib.h>
#include <string.h>

enum { BAR_ADMIN = 0, BAR_DOORS = 2, BAR_MSIX = 4, VECTORS = 16 };
#define DOORS_SIZE (PROTECT_DOORS * PROTECT_DOOR_SIZE)

/* ---- Accesses --------------------------------------------------------------------------------
 */

uint64_t protect_load(const struct protect_register *registers, size_t count, uint64_t offset,
                      unsigned size)
{
    uint64_t value = 0;
    for (size_t i = 0; i < count; i++) {
        const struct protect_register *r = &registers[i];
        if (r->offset >= offset && r->offset < offset + size)
            value |= r->value << 8 * (r->offset - offset);
        else if (r->offset < offset && offset < r->offset + r->size)
            value |= r->value >> 8 * (offset - r->offset);
    }
    return value;
}

bool protect_store(struct protect_device *dev, unsigned door, const struct access *access,
                   const struct protect_control *controls, size_t count, uint64_t offset,
                   uint64_t value)
{
    for (size_t i = 0; i < count; i++)
        if (controls[i].offset == offset) {
            controls[i].store(dev, door, access, value);
            return true;
        }
    return false;
}

bool protect_readable(const struct protect_device *dev, uint64_t offset, unsigned size)
{
    return (size == 4 || size == 8) && offset % size == 0 && !dev->executing;
}

bool protect_writable(const struct protect_device *dev, const struct access *access,
                      uint64_t offset, unsigned size)
{
    bool instruction =
        access->initiator == INITIATOR_VCPU_USER || access->initiator == INITIATOR_VCPU_KERNEL;
    return instruction && access->vcpu < dev->vcpus && protect_readable(dev, offset, size);
}

struct protect_work *protect_later(struct protect_device *dev, const struct access *access,
                                   phys_after_fn *fn)
{
    phys_after_store(dev->pci.bus->board->map, access, fn, dev);
    return &dev->work[access->vcpu];
}

/* ---- The device --------------------------------------------------------------------------------
 */

static const struct field protect_fields[] = {
    PCI_DEVICE_FIELDS(struct protect_device, pci),
    FIELD(struct protect_device, grant_status, FIELD_U64, 1),
    FIELD(struct protect_device, destroy_status, FIELD_U64, 1),
    FIELD_ARRAY(struct protect_device, resume_status, FIELD_U64, 1),
    FIELD_ARRAY(struct protect_device, session, FIELD_U64, 1),
    FIELD_ARRAY(struct protect_device, command, FIELD_BYTES, 1),
};
static const struct state_desc protect_state = STATE_DESC("protect", 1, protect_fields);

/* The rules themselves are the machine's, which also has contexts of clients outside. */
static void reset(struct device *dev)
{
    struct protect_device *p = (struct protect_device *)dev;
    pci_device_reset(&p->pci);
    p->grant_status = p->destroy_status = PROTECT_OK;
    for (unsigned door = 0; door < PROTECT_DOORS; door++)
        protect_door_clear(p, door);
}

static void restored(struct device *dev)
{
    pci_device_restored((struct pci_device *)dev);
}

static void unclaim(struct protect_device *p)
{
    for (unsigned i = 0; i < 2; i++)
        if (p->fixed[i] >= 0)
            phys_remove(p->pci.bus->board->map, p->fixed[i]);
}

static void destroy(struct device *dev)
{
    struct protect_device *p = (struct protect_device *)dev;
    unclaim(p);
    pci_device_remove(&p->pci);
    free(p->work);
    free(p);
}

static void describe(struct protect_device *p)
{
    static const struct pci_identity identity = {
        .vendor = PROTECT_PCI_VENDOR,
        .device = PROTECT_PCI_DEVICE,
        .subsystem_vendor = PROTECT_PCI_VENDOR,
        .subsystem = PROTECT_PCI_DEVICE,
        .revision = PROTECT_VERSION >> 16,
        .class_code = PROTECT_PCI_CLASS,
    };
    p->pci.dev = (struct device){.name = "protect",
                                 .state = &protect_state,
                                 .reset = reset,
                                 .restored = restored,
                                 .destroy = destroy};
    pci_device_init(&p->pci, &identity);
    pci_set_bar(&p->pci, BAR_ADMIN, PCI_BAR_MEM32, PROTECT_ADMIN_SIZE, &protect_admin_ops, p,
                "protect.admin");
    pci_set_bar(&p->pci, BAR_DOORS, PCI_BAR_MEM32, DOORS_SIZE, &protect_door_ops, p,
                "protect.doors");
    msix_init(&p->pci, BAR_MSIX, VECTORS);
}

/* The fixed addresses are decoded whatever configuration space says. */
static bool claim(struct protect_device *p, struct error *err)
{
    struct phys_map *map = p->pci.bus->board->map;
    p->fixed[0] = phys_add_mmio(map, PROTECT_ADMIN_ADDRESS, PROTECT_ADMIN_SIZE, &protect_admin_ops,
                                p, "protect.admin.fixed", err);
    p->fixed[1] = phys_add_mmio(map, PROTECT_DOORS_ADDRESS, DOORS_SIZE, &protect_door_ops, p,
                                "protect.doors.fixed", err);
    return p->fixed[0] >= 0 && p->fixed[1] >= 0;
}

struct pci_device *protect_create(struct pci_bus *bus, int devfn,
                                  const struct protect_config *config, struct error *err)
{
    struct protect_device *p = calloc(1, sizeof(*p));
    struct protect_work *work = calloc(config->vcpus, sizeof(*work));
    if (!p || !work) {
        error_set(err, "protect: out of memory");
        free(p);
        free(work);
        return NULL;
    }
    p->rules = config->rules;
    p->port = config->port;
    p->vcpus = config->vcpus;
    p->work = work;
    describe(p);
    if (!pci_device_add(bus, &p->pci, devfn, err)) {
        free(work);
        free(p);
        return NULL;
    }
    if (!claim(p, err)) {
        destroy(&p->pci.dev);
        return NULL;
    }
    return &p->pci;
}

void protect_interrupt(struct pci_device *dev, unsigned context)
{
    if (context < PROTECT_DOORS)
        msix_notify(dev, context % VECTORS);
}
