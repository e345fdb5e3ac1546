/*
 * protect.h - the protection device's state, and what its registers have in common. Private to
 * devices/misc/protect_*.c.
 *
 * All of it is under the machine lock. A command runs later than the store that asked for it, in
 * the storing vCPU's thread (phys_after_store()), because it has to park the other vCPUs first; in
 * between it lies in that vCPU's struct protect_work.
 */
#ifndef DEVICES_MISC_PROTECT_H
#define DEVICES_MISC_PROTECT_H

#include "internal/door.h"

struct protect_device;

/* What a vCPU's present instruction has asked for. */
struct protect_work {
    unsigned door, slot;
    uint64_t value;                 /* as stored to the register */
    struct protect_command command; /* the slot's copy */
};

struct protect_device {
    struct pci_device pci;
    struct rules *rules;
    struct protect_port port;
    unsigned vcpus;
    struct protect_work *work; /* by vCPU */
    int fixed[2];              /* handles of the fixed addresses */
    bool executing; /* a command: its arrays must not lie in the device's own registers */

    /* -- the guest can see what follows ----------------------------------------------------- */
    uint64_t grant_status, destroy_status; /* enum protect_status */
    uint64_t resume_status[PROTECT_DOORS]; /* enum protect_status */
    /* The session that `command` and `resume_status` of the door belong to; 0: none. */
    uint64_t session[PROTECT_DOORS];
    struct protect_command command[PROTECT_DOORS][PROTECT_COMMANDS];
};

/* ---- Registers -------------------------------------------------------------------------------
 *
 * A store to half of a 64-bit register: the low half acts with a high half of zero, the high half
 * alone does nothing.
 */

/* A register with its present value. */
struct protect_register {
    size_t offset, size;
    uint64_t value;
};
#define PROTECT_REGISTER(page, member, value)                                                      \
    {                                                                                              \
        offsetof(struct page, member), sizeof(((struct page *)0)->member), (value)                 \
    }

/* What happens when an instruction stores to a register. */
struct protect_control {
    size_t offset;
    void (*store)(struct protect_device *dev, unsigned door, const struct access *access,
                  uint64_t value);
};

/* `size` bytes at `offset`, out of the registers there; zeros elsewhere. */
uint64_t protect_load(const struct protect_register *registers, size_t count, uint64_t offset,
                      unsigned size);
/* False: no control lies there. */
bool protect_store(struct protect_device *dev, unsigned door, const struct access *access,
                   const struct protect_control *controls, size_t count, uint64_t offset,
                   uint64_t value);

/* Both pages' rule: 4 or 8 aligned bytes, while no command runs. */
bool protect_readable(const struct protect_device *dev, uint64_t offset, unsigned size);
/* And by an instruction of one of our vCPUs. */
bool protect_writable(const struct protect_device *dev, const struct access *access,
                      uint64_t offset, unsigned size);

/* The vCPU's work, and fn(dev, access) after its store. */
struct protect_work *protect_later(struct protect_device *dev, const struct access *access,
                                   phys_after_fn *fn);

/* protect_door.c and protect_admin.c; the opaque pointer is the device. */
extern const struct io_ops protect_door_ops, protect_admin_ops;
/* The door as after a reset. */
void protect_door_clear(struct protect_device *dev, unsigned door);

#endif
