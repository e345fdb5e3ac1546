/*
 * door.h - the protection device (include/bailey/protect.h): what the machine gives it, and what it
 * is told. Its registers are in devices/misc/protect_*.c; what they mean is mmu/rules' business.
 */
#ifndef INTERNAL_DOOR_H
#define INTERNAL_DOOR_H

#include "internal/pci.h"
#include "internal/rules.h"

/* The vCPUs, as the device meets them. */
struct protect_port {
    void *opaque;
    /* Who the vCPU's present instruction is; valid until it retires. */
    void (*caller)(void *opaque, unsigned vcpu, struct rules_caller *caller);
    /* RESUME: returns only when refused, with the reason. No lock is held. */
    enum protect_status (*resume)(void *opaque, unsigned vcpu, unsigned context, uint64_t value);
    /* The vCPU's store has unmasked deferred upcalls: one that waits comes before its next
     * instruction. In its thread, the machine lock held. */
    void (*unmasked)(void *opaque, unsigned vcpu);
};

struct protect_config {
    struct rules *rules; /* outlives the device */
    struct protect_port port;
    unsigned vcpus;
};

/* The PCI function, and the same registers at PROTECT_ADMIN_ADDRESS and PROTECT_DOORS_ADDRESS. */
struct pci_device *protect_create(struct pci_bus *bus, int devfn,
                                  const struct protect_config *config, struct error *err);
/* Raises the door's vector. Contexts without a door have none. */
void protect_interrupt(struct pci_device *dev, unsigned context);

#endif
