/*
 * apic.h - what the local APICs, their bus and the I/O APIC know of each other. Private to
 * devices/irq. Everything here is called with the machine lock held.
 */
#ifndef DEVICES_IRQ_APIC_H
#define DEVICES_IRQ_APIC_H

#include "internal/chips.h"
#include "internal/event.h"

/* Register numbers: the MMIO offset / 10h, and the x2APIC MSR - 800h (SDM vol. 3, table 11-6). */
enum lapic_register {
    LAPIC_ID = 0x02,
    LAPIC_VERSION = 0x03,
    LAPIC_TPR = 0x08,
    LAPIC_APR = 0x09,
    LAPIC_PPR = 0x0a,
    LAPIC_EOI = 0x0b,
    LAPIC_RRD = 0x0c,
    LAPIC_LDR = 0x0d,
    LAPIC_DFR = 0x0e,
    LAPIC_SVR = 0x0f,
    LAPIC_ISR = 0x10,
    LAPIC_TMR = 0x18,
    LAPIC_IRR = 0x20,
    LAPIC_ESR = 0x28,
    LAPIC_ICR = 0x30,
    LAPIC_ICR_HIGH = 0x31,
    LAPIC_LVT = 0x32, /* + enum lapic_lvt */
    LAPIC_INITIAL_COUNT = 0x38,
    LAPIC_CURRENT_COUNT = 0x39,
    LAPIC_DIVIDE = 0x3e,
    LAPIC_SELF_IPI = 0x3f,
    LAPIC_REGISTERS = 0x40,
};

enum lapic_lvt { LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_COUNT };
#define LVT_PENDING    (1u << 12) /* delivery status: always idle here */
#define LVT_REMOTE_IRR (1u << 14)
#define LVT_LEVEL      (1u << 15)
#define LVT_MASKED     (1u << 16)
#define LVT_MODE(lvt)  ((lvt) >> 8 & 7)

enum lapic_timer_mode { TIMER_ONE_SHOT, TIMER_PERIODIC, TIMER_TSC_DEADLINE, TIMER_RESERVED };
#define LVT_TIMER_MODE(lvt) ((lvt) >> 17 & 3)

#define APIC_BASE_BSP  (1u << 8)
#define APIC_BASE_EXTD (1u << 10)
#define APIC_BASE_EN   (1u << 11)

struct lapic {
    struct device dev;
    struct apic_bus *bus;
    struct board *board;
    struct lapic_config config;
    uint64_t base; /* IA32_APIC_BASE */
    uint32_t tpr, svr;
    uint32_t ldr, dfr; /* xAPIC mode only */
    uint32_t icr_low, icr_high;
    uint32_t esr, esr_next; /* what a read gives; what the next write moves there */
    uint32_t irr[8], isr[8], tmr[8];
    uint32_t lvt[LVT_COUNT];
    bool lint[2]; /* levels of the pins */
    bool extint;  /* an ExtINT message has come; its INTA has not */
    bool intr;    /* what the CPU was told last */
    /* timer (lapic_timer.c) */
    uint32_t initial_count;
    uint8_t divide; /* DCR */
    bool counting;
    uint64_t count_start;  /* clock_now() when the count was `initial_count`, modulo 2^64 */
    uint64_t tsc_deadline; /* IA32_TSC_DEADLINE; 0: disarmed */
    struct timer timer;
};

static inline bool lapic_enabled(const struct lapic *l)
{
    return l->base & APIC_BASE_EN;
}
static inline bool lapic_x2apic(const struct lapic *l)
{
    return l->base & APIC_BASE_EXTD;
}
static inline bool lapic_software_enabled(const struct lapic *l)
{
    return l->svr & 1u << 8;
}

/* lapic.c */
uint8_t lapic_ppr(const struct lapic *l);
/* A message that names this APIC. False: it does not take such messages now. */
bool lapic_accept(struct lapic *l, uint8_t mode, uint8_t vector, bool level);
/* A local source fired: timer, error, ... */
void lapic_local(struct lapic *l, enum lapic_lvt source);
/* The xAPIC page as this vCPU sees it. */
uint32_t lapic_page_read(struct lapic *l, uint64_t offset, unsigned size);
void lapic_page_write(struct lapic *l, uint64_t offset, unsigned size, uint32_t value);

/* lapic_icr.c: ICR and SELF IPI were written. ESR bits to set. */
uint32_t lapic_send_ipi(struct lapic *l);
uint32_t lapic_send_self(struct lapic *l, uint8_t vector);
bool lapic_matches(const struct lapic *l, const struct apic_message *msg);

/* lapic_timer.c */
void lapic_timer_init(struct lapic *l);
void lapic_timer_reset(struct lapic *l);
/* Delivers what is due before it is looked at or changed: the I/O thread may be late. */
void lapic_timer_sync(struct lapic *l);
void lapic_timer_set_count(struct lapic *l, uint32_t count);
uint32_t lapic_timer_count(const struct lapic *l);
void lapic_timer_set_divide(struct lapic *l, uint8_t divide);
/* LVT_TIMER is about to become `lvt`. */
void lapic_timer_set_mode(struct lapic *l, uint32_t lvt);
void lapic_timer_set_deadline(struct lapic *l, uint64_t tsc);
uint64_t lapic_timer_deadline(struct lapic *l);

/* apic_bus.c */
struct board *apic_bus_board(struct apic_bus *bus);
void apic_bus_add_lapic(struct apic_bus *bus, struct lapic *l);
void apic_bus_remove_lapic(struct apic_bus *bus, struct lapic *l);
void apic_bus_set_ioapic(struct apic_bus *bus, struct ioapic *ioapic);
void apic_bus_eoi(struct apic_bus *bus, uint8_t vector);
/* A local APIC takes other messages than before. */
void apic_bus_retry(struct apic_bus *bus);
/* Fixed or NMI to every local APIC but one (NULL: to all), for the ICR's shorthands. */
void apic_bus_send_others(struct apic_bus *bus, const struct lapic *but, uint8_t mode,
                          uint8_t vector);
int apic_bus_pic_acknowledge(struct apic_bus *bus); /* -1: no PIC */

/* ioapic.c */
void ioapic_eoi(struct ioapic *ioapic, uint8_t vector);
/* Levels that nobody has taken are sent again. */
void ioapic_retry(struct ioapic *ioapic);

#endif
