/*
 * irq.h - interrupt lines between chips, and the one seam between a local APIC and its CPU.
 */
#ifndef INTERNAL_IRQ_H
#define INTERNAL_IRQ_H

#include <stdbool.h>
#include <stdint.h>

/* A wire: whoever drives it calls irq_set(); whoever listens gave the callback. The level is what
 * the driver shows now; edge detection is the listener's. Called with the machine lock held. */
struct irq_line {
    void (*set)(void *opaque, unsigned pin, bool level);
    void *opaque;
    unsigned pin;
};

static inline void irq_set(const struct irq_line *line, bool level)
{
    if (line->set)
        line->set(line->opaque, line->pin, level);
}

/* A message-signalled interrupt: an address/data pair written by a device (SDM vol. 3, 11.11). */
struct msi_port {
    void (*send)(void *opaque, uint64_t address, uint32_t data);
    void *opaque;
};

/* What may be asked of a CPU from another thread: bits of its request word. */
enum cpu_request {
    CPU_REQ_INTR = 1 << 0,      /* level: the local APIC has a deliverable interrupt */
    CPU_REQ_NMI = 1 << 1,       /* latched */
    CPU_REQ_SMI = 1 << 2,       /* latched */
    CPU_REQ_INIT = 1 << 3,      /* latched */
    CPU_REQ_SIPI = 1 << 4,      /* latched; vector in cpu->sipi_vector */
    CPU_REQ_EXCLUSIVE = 1 << 5, /* another thread wants all vCPUs at a safepoint (exclusive.h) */
    CPU_REQ_MMU = 1 << 6,       /* mail in mmu_cpu: call mmu_service() */
    CPU_REQ_STOP = 1 << 7,      /* leave cpu_run(): pause, reset, power off */
    CPU_REQ_RESET = 1 << 8,     /* reserved for the machine */
    CPU_REQ_UPCALL = 1 << 10,   /* at CPL 3: see whether a deferred upcall is due */
    CPU_REQ_DEBUG = 1 << 9,     /* single step, breakpoints: take the careful loop */
};

/* The CPU as its local APIC sees it. All calls are thread safe and wake a halted CPU as needed. */
struct cpu_port {
    void *cpu;
    void (*raise)(void *cpu, uint32_t requests);
    void (*lower)(void *cpu, uint32_t requests);
    void (*sipi)(void *cpu, uint8_t vector);
};

/* The local APIC as its CPU sees it. The callee takes the machine lock itself. */
struct lapic_port {
    void *lapic;
    /* INTA cycle: the vector to deliver, moved from IRR to ISR; or the PIC's through LINT0; -1 when
     * there is nothing after all (the CPU then delivers nothing). */
    int (*acknowledge)(void *lapic);
    uint64_t (*read_base)(void *lapic);              /* IA32_APIC_BASE */
    bool (*write_base)(void *lapic, uint64_t value); /* false: #GP */
    bool (*read_msr)(void *lapic, uint32_t msr,
                     uint64_t *v); /* x2APIC 800h-8FFh, 6E0h; false: #GP. The
                                    * CPU turns a TSC deadline into clock_now() time */
    bool (*write_msr)(void *lapic, uint32_t msr, uint64_t v);
    uint8_t (*read_cr8)(void *lapic);            /* TPR[7:4] */
    void (*write_cr8)(void *lapic, uint8_t tpr); /* 0-15 */
    void (*cpu_reset)(void *lapic, bool init);   /* INIT or power-on reset of this CPU */
};

#endif
