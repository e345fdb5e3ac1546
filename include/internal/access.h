/*
 * access.h - who touches memory or a port, and how. Handed along every path to phys_read(),
 * phys_write() and the devices, because protection rules and reports need to name the culprit.
 */
#ifndef INTERNAL_ACCESS_H
#define INTERNAL_ACCESS_H

#include <stdbool.h>
#include <stdint.h>

enum initiator {
    INITIATOR_VCPU_USER,   /* instruction at CPL 3 */
    INITIATOR_VCPU_KERNEL, /* instruction at CPL 0-2, implicit supervisor accesses included */
    INITIATOR_WALKER,      /* page walk: reading entries, setting A and D */
    INITIATOR_EVENT,       /* pushes and descriptor loads of exception and interrupt delivery */
    INITIATOR_DMA,         /* a device; `device` says which */
    INITIATOR_HOST,        /* a client outside the machine */
    INITIATOR_DEBUGGER,    /* gdb stub, monitor */
    INITIATOR_LOADER,      /* the machine itself, before the guest runs */
};

/* Bits, so that a read-modify-write is READ | WRITE. */
enum access_kind {
    ACCESS_READ = 1,
    ACCESS_WRITE = 2,
    ACCESS_EXEC = 4,
};

struct access {
    enum initiator initiator;
    uint16_t vcpu;   /* index; meaningful for the VCPU_*, WALKER and EVENT initiators */
    uint16_t device; /* PCI bus/device/function for DMA */
    uint8_t cpl;
    bool judged; /* the protection rules have been asked already, or do not apply (the monitor's
                    own) */
    uint64_t cr3;
    uint64_t rip; /* of the instruction that caused the access */
    uint64_t gva; /* linear address of the access, for the VCPU_* and EVENT initiators */
};

#endif
