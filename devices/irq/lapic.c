/*
 * lapic.c - the local APIC: registers, priorities, acceptance, delivery to its CPU.
 *
 * Specified in SDM vol. 3, chapter 11 (section numbers below). One per vCPU. The CPU comes in
 * through struct lapic_port, from its own thread, and the machine lock is taken there; all else is
 * called with it held. What the CPU is told is one level, CPU_REQ_INTR: an interrupt is deliverable
 * as far as the APIC is concerned; RFLAGS.IF is the CPU's own affair.
 *
 * Version 14h, six LVT entries, EOI-broadcast suppression; no CMCI.
 */
#include "apic.h"
#include "internal/clock.h"
#include "internal/log.h"
#include <stdlib.h>
#include <string.h>

#define VERSION (0x14u | (LVT_COUNT - 1) << 16 | 1u << 24)

#define SVR_SUPPRESS_EOI (1u << 12)
#define SVR_WRITABLE     (0xffu | 1u << 8 | SVR_SUPPRESS_EOI)
#define SVR_ENABLED      (1u << 8)

#define ESR_RECEIVE_ILLEGAL_VECTOR (1u << 6)
#define ESR_ILLEGAL_REGISTER       (1u << 7)

#define MSR_TSC_DEADLINE 0x6e0u
#define MSR_X2APIC       0x800u

/* Writable bits of each LVT entry, in the order of enum lapic_lvt (figure 11-8). */
static const uint32_t lvt_writable[LVT_COUNT] = {
    [LVT_TIMER] = 0x700ff, [LVT_THERMAL] = 0x107ff, [LVT_PERF] = 0x107ff,
    [LVT_LINT0] = 0x1a7ff, [LVT_LINT1] = 0x1a7ff,   [LVT_ERROR] = 0x100ff,
};

/* ---- Vectors and priorities (11.8.3) --------------------------------------------------------- */

static bool bits_test(const uint32_t *bits, unsigned n)
{
    return bits[n / 32] >> n % 32 & 1;
}

static void bits_put(uint32_t *bits, unsigned n, bool value)
{
    uint32_t bit = 1u << n % 32;
    bits[n / 32] = value ? bits[n / 32] | bit : bits[n / 32] & ~bit;
}

/* The highest vector, or -1. */
static int bits_highest(const uint32_t *bits)
{
    for (int i = 7; i >= 0; i--)
        if (bits[i])
            return i * 32 + 31 - __builtin_clz(bits[i]);
    return -1;
}

uint8_t lapic_ppr(const struct lapic *l)
{
    int isr = bits_highest(l->isr);
    unsigned service = isr < 0 ? 0 : (unsigned)isr & 0xf0;
    return (uint8_t)((l->tpr & 0xf0) >= service ? l->tpr : service);
}

/* The vector in IRR that may be delivered now, or -1. */
static int lapic_deliverable(const struct lapic *l)
{
    int vector = bits_highest(l->irr);
    if (!lapic_enabled(l) || vector < 0)
        return -1;
    return (vector & 0xf0) > (lapic_ppr(l) & 0xf0) ? vector : -1;
}

/* INTR of the 8259A pair reaches the CPU through LINT0 in ExtINT mode, or straight while the APIC
 * is disabled (11.4.3); or an ExtINT message came. */
static bool lapic_extint(const struct lapic *l)
{
    uint32_t lvt = l->lvt[LVT_LINT0];
    if (!lapic_enabled(l))
        return l->lint[0];
    return l->extint || (l->lint[0] && !(lvt & LVT_MASKED) && LVT_MODE(lvt) == APIC_EXTINT);
}

/* Tells the CPU whether there is something for it. */
static void lapic_tell(struct lapic *l)
{
    const struct cpu_port *cpu = &l->config.cpu;
    l->intr = lapic_deliverable(l) >= 0 || lapic_extint(l);
    if (l->intr)
        cpu->raise(cpu->cpu, CPU_REQ_INTR);
    else
        cpu->lower(cpu->cpu, CPU_REQ_INTR);
}

static void lapic_update(struct lapic *l)
{
    if (l->intr != (lapic_deliverable(l) >= 0 || lapic_extint(l)))
        lapic_tell(l);
}

/* ---- Errors (11.5.3) ------------------------------------------------------------------------- */

/* Each error is reported once until ESR is written, so the error interrupt's own illegal vector
 * ends here. */
static void lapic_error(struct lapic *l, uint32_t bits)
{
    if (!(bits & ~l->esr_next))
        return;
    l->esr_next |= bits;
    lapic_local(l, LVT_ERROR);
}

/* ---- Acceptance ------------------------------------------------------------------------------ */

static bool accept_vector(struct lapic *l, uint8_t vector, bool level)
{
    if (!lapic_software_enabled(l))
        return false;
    if (vector < 16) {
        lapic_error(l, ESR_RECEIVE_ILLEGAL_VECTOR);
        return true;
    }
    bits_put(l->irr, vector, true);
    bits_put(l->tmr, vector, level);
    lapic_update(l);
    return true;
}

bool lapic_accept(struct lapic *l, uint8_t mode, uint8_t vector, bool level)
{
    const struct cpu_port *cpu = &l->config.cpu;
    switch (mode) {
    case APIC_FIXED:
    case APIC_LOWEST:
        return accept_vector(l, vector, level);
    case APIC_SMI:
        cpu->raise(cpu->cpu, CPU_REQ_SMI);
        break;
    case APIC_NMI:
        cpu->raise(cpu->cpu, CPU_REQ_NMI);
        break;
    case APIC_INIT: /* a SIPI from before it has found a CPU that did not wait for one */
        cpu->lower(cpu->cpu, CPU_REQ_SIPI);
        cpu->raise(cpu->cpu, CPU_REQ_INIT);
        break;
    case APIC_SIPI:
        cpu->sipi(cpu->cpu, vector);
        break;
    case APIC_EXTINT:
        l->extint = true;
        lapic_update(l);
        break;
    default:
        LOG(l->board->log, LOG_GUEST_ERRORS, "apic %u: reserved delivery mode\n", l->config.index);
    }
    return true;
}

/* Timer and error entries have no mode field: it reads as 0, fixed. */
void lapic_local(struct lapic *l, enum lapic_lvt source)
{
    uint32_t lvt = l->lvt[source];
    if (!lapic_enabled(l) || (lvt & LVT_MASKED))
        return;
    unsigned mode = source == LVT_TIMER || source == LVT_ERROR ? APIC_FIXED : LVT_MODE(lvt);
    if (mode == APIC_FIXED || mode == APIC_SMI || mode == APIC_NMI || mode == APIC_INIT)
        lapic_accept(l, (uint8_t)mode, (uint8_t)lvt, false);
}

/* ---- LINT pins ------------------------------------------------------------------------------- */

static bool lint_is_level(uint32_t lvt)
{
    return (lvt & LVT_LEVEL) && LVT_MODE(lvt) == APIC_FIXED;
}

/* A level-triggered pin that is high sends once, then again after its EOI. */
static void lint_check_level(struct lapic *l, unsigned pin)
{
    uint32_t *lvt = &l->lvt[LVT_LINT0 + pin];
    if (!l->lint[pin] || !lapic_enabled(l) || !lapic_software_enabled(l) || !lint_is_level(*lvt) ||
        (*lvt & (LVT_MASKED | LVT_REMOTE_IRR)))
        return;
    *lvt |= LVT_REMOTE_IRR;
    accept_vector(l, (uint8_t)*lvt, true);
}

static void lint_set(void *opaque, unsigned pin, bool level)
{
    struct lapic *l = opaque;
    bool rising = level && !l->lint[pin];
    l->lint[pin] = level;
    if (!lapic_enabled(l)) {
        if (pin == 1 && rising)
            lapic_accept(l, APIC_NMI, 0, false);
    } else if (lint_is_level(l->lvt[LVT_LINT0 + pin])) {
        lint_check_level(l, pin);
    } else if (rising) {
        lapic_local(l, LVT_LINT0 + pin);
    }
    lapic_update(l);
}

struct irq_line lapic_lint(struct lapic *l, unsigned pin)
{
    return (struct irq_line){.set = lint_set, .opaque = l, .pin = pin & 1};
}

/* ---- Delivery and EOI (11.8.4, 11.8.5) ------------------------------------------------------- */

static int take_interrupt(struct lapic *l)
{
    int vector = lapic_deliverable(l);
    if (vector >= 0) {
        bits_put(l->irr, (unsigned)vector, false);
        bits_put(l->isr, (unsigned)vector, true);
        return vector;
    }
    if (!lapic_extint(l))
        return -1;
    l->extint = false;
    return apic_bus_pic_acknowledge(l->bus);
}

static void end_of_interrupt(struct lapic *l)
{
    int vector = bits_highest(l->isr);
    if (vector < 0)
        return;
    bits_put(l->isr, (unsigned)vector, false);
    if (bits_test(l->tmr, (unsigned)vector)) {
        for (unsigned pin = 0; pin < 2; pin++) {
            uint32_t *lvt = &l->lvt[LVT_LINT0 + pin];
            if ((*lvt & LVT_REMOTE_IRR) && (*lvt & 0xff) == (unsigned)vector)
                *lvt &= ~LVT_REMOTE_IRR;
            lint_check_level(l, pin);
        }
        if (!(l->svr & SVR_SUPPRESS_EOI))
            apic_bus_eoi(l->bus, (uint8_t)vector);
    }
    lapic_update(l);
}

/* ---- Registers ------------------------------------------------------------------------------- */

static uint32_t read_ldr(const struct lapic *l)
{
    uint32_t id = l->config.index;
    return lapic_x2apic(l) ? id >> 4 << 16 | 1u << (id & 15) : l->ldr;
}

/* False: there is no such register in the present mode, or it cannot be read. */
static bool register_read(struct lapic *l, unsigned reg, uint32_t *value)
{
    bool x2apic = lapic_x2apic(l);
    switch (reg) {
    case LAPIC_ID:
        *value = x2apic ? l->config.index : l->config.index << 24;
        return true;
    case LAPIC_VERSION:
        *value = VERSION;
        return true;
    case LAPIC_TPR:
        *value = l->tpr;
        return true;
    case LAPIC_APR: /* only meaningful for bus arbitration, which xAPICs no longer do */
    case LAPIC_EOI:
    case LAPIC_RRD:
        *value = 0;
        return !x2apic;
    case LAPIC_PPR:
        *value = lapic_ppr(l);
        return true;
    case LAPIC_LDR:
        *value = read_ldr(l);
        return true;
    case LAPIC_DFR:
        *value = l->dfr;
        return !x2apic;
    case LAPIC_SVR:
        *value = l->svr;
        return true;
    case LAPIC_ISR ... LAPIC_ISR + 7:
        *value = l->isr[reg - LAPIC_ISR];
        return true;
    case LAPIC_TMR ... LAPIC_TMR + 7:
        *value = l->tmr[reg - LAPIC_TMR];
        return true;
    case LAPIC_IRR ... LAPIC_IRR + 7:
        lapic_timer_sync(l);
        *value = l->irr[reg - LAPIC_IRR];
        return true;
    case LAPIC_ESR:
        *value = l->esr;
        return true;
    case LAPIC_ICR:
        *value = l->icr_low;
        return true;
    case LAPIC_ICR_HIGH:
        *value = l->icr_high;
        return !x2apic;
    case LAPIC_LVT ... LAPIC_LVT + LVT_COUNT - 1:
        *value = l->lvt[reg - LAPIC_LVT];
        return true;
    case LAPIC_INITIAL_COUNT:
        *value = l->initial_count;
        return true;
    case LAPIC_CURRENT_COUNT:
        lapic_timer_sync(l);
        *value = lapic_timer_count(l);
        return true;
    case LAPIC_DIVIDE:
        *value = l->divide;
        return true;
    }
    return false;
}

static void write_svr(struct lapic *l, uint32_t value)
{
    lapic_timer_sync(l); /* what is due comes before the mask */
    l->svr = value & SVR_WRITABLE;
    if (!(value & SVR_ENABLED))
        for (unsigned i = 0; i < LVT_COUNT; i++) /* 11.4.7.2 */
            l->lvt[i] |= LVT_MASKED;
    apic_bus_retry(l->bus);
}

static void write_lvt(struct lapic *l, unsigned i, uint32_t value)
{
    value &= lvt_writable[i];
    if (!lapic_software_enabled(l))
        value |= LVT_MASKED;
    if (i == LVT_TIMER) {
        lapic_timer_set_mode(l, value);
        return;
    }
    if (lint_is_level(value))
        value |= l->lvt[i] & LVT_REMOTE_IRR;
    l->lvt[i] = value;
    if (i == LVT_LINT0 || i == LVT_LINT1)
        lint_check_level(l, i - LVT_LINT0);
}

/* False: there is no such register in the present mode, or it cannot be written. */
static bool register_write(struct lapic *l, unsigned reg, uint32_t value)
{
    bool x2apic = lapic_x2apic(l), known = true;
    switch (reg) {
    case LAPIC_ID: /* fixed on current processors */
        known = !x2apic;
        break;
    case LAPIC_TPR:
        l->tpr = value & 0xff;
        break;
    case LAPIC_EOI:
        end_of_interrupt(l);
        break;
    case LAPIC_LDR:
        known = !x2apic;
        if (known) {
            l->ldr = value & 0xff000000;
            apic_bus_retry(l->bus);
        }
        break;
    case LAPIC_DFR:
        known = !x2apic;
        if (known) {
            l->dfr = value | 0x0fffffff;
            apic_bus_retry(l->bus);
        }
        break;
    case LAPIC_SVR:
        write_svr(l, value);
        break;
    case LAPIC_ESR:
        l->esr = l->esr_next;
        l->esr_next = 0;
        break;
    case LAPIC_ICR: /* the delivery status, bit 12, is never seen busy */
        l->icr_low = value & 0x000ccfff;
        lapic_error(l, lapic_send_ipi(l));
        break;
    case LAPIC_ICR_HIGH:
        known = !x2apic;
        if (known)
            l->icr_high = value & 0xff000000;
        break;
    case LAPIC_LVT ... LAPIC_LVT + LVT_COUNT - 1:
        write_lvt(l, reg - LAPIC_LVT, value);
        break;
    case LAPIC_INITIAL_COUNT:
        lapic_timer_set_count(l, value);
        break;
    case LAPIC_DIVIDE:
        lapic_timer_set_divide(l, (uint8_t)value);
        break;
    case LAPIC_SELF_IPI:
        known = x2apic;
        if (known)
            lapic_error(l, lapic_send_self(l, (uint8_t)value));
        break;
    default:
        known = false;
    }
    lapic_update(l);
    return known;
}

/* ---- The xAPIC page (11.4.1): 32-bit registers, 16 bytes apart ------------------------------- */

uint32_t lapic_page_read(struct lapic *l, uint64_t offset, unsigned size)
{
    uint32_t value = 0;
    if ((offset & 15) + size > 4)
        return 0;
    if (offset >= LAPIC_REGISTERS * 16 || !register_read(l, (unsigned)offset >> 4, &value)) {
        lapic_error(l, ESR_ILLEGAL_REGISTER);
        return 0;
    }
    return value >> (offset & 3) * 8;
}

void lapic_page_write(struct lapic *l, uint64_t offset, unsigned size, uint32_t value)
{
    if (size != 4 || (offset & 15)) {
        LOG(l->board->log, LOG_GUEST_ERRORS, "apic %u: %u-byte write at offset %#llx\n",
            l->config.index, size, (unsigned long long)offset);
        return;
    }
    if (offset >= LAPIC_REGISTERS * 16 || !register_write(l, (unsigned)offset >> 4, value))
        lapic_error(l, ESR_ILLEGAL_REGISTER);
}

/* ---- x2APIC MSRs (11.12.1) ------------------------------------------------------------------- */

/* Bits of a register that may be written in x2APIC mode without #GP. Read-only bits are ignored. */
static uint32_t x2apic_allowed(const struct lapic *l, unsigned reg)
{
    switch (reg) {
    case LAPIC_TPR:
    case LAPIC_SELF_IPI:
        return 0xff;
    case LAPIC_SVR:
        return SVR_WRITABLE;
    case LAPIC_LVT ... LAPIC_LVT + LVT_COUNT - 1: {
        uint32_t bits = lvt_writable[reg - LAPIC_LVT] | LVT_PENDING;
        if (reg == LAPIC_LVT + LVT_TIMER && !l->config.tsc_deadline)
            bits &= ~(1u << 18);
        return reg >= LAPIC_LVT + LVT_LINT0 && reg <= LAPIC_LVT + LVT_LINT1 ? bits | LVT_REMOTE_IRR
                                                                            : bits;
    }
    case LAPIC_INITIAL_COUNT:
        return UINT32_MAX;
    case LAPIC_DIVIDE:
        return 0xb;
    case LAPIC_ICR:
        return 0x000cdfff;
    }
    return 0; /* EOI and ESR take 0 only */
}

static bool x2apic_write(struct lapic *l, unsigned reg, uint64_t value)
{
    if (reg >= LAPIC_REGISTERS || ((uint32_t)value & ~x2apic_allowed(l, reg)))
        return false;
    if (reg == LAPIC_ICR)
        l->icr_high = (uint32_t)(value >> 32);
    else if (value >> 32)
        return false;
    return register_write(l, reg, (uint32_t)value);
}

static bool x2apic_read(struct lapic *l, unsigned reg, uint64_t *value)
{
    uint32_t low = 0;
    if (reg >= LAPIC_REGISTERS || !register_read(l, reg, &low))
        return false;
    *value = reg == LAPIC_ICR ? (uint64_t)l->icr_high << 32 | low : low;
    return true;
}

/* ---- The port to the CPU --------------------------------------------------------------------- */

static void port_lock(struct lapic *l)
{
    pthread_mutex_lock(l->board->lock);
}

static void port_unlock(struct lapic *l)
{
    pthread_mutex_unlock(l->board->lock);
}

/* After this and after a reset the CPU is told in any case: it may have withdrawn the request. */
static int port_acknowledge(void *opaque)
{
    struct lapic *l = opaque;
    port_lock(l);
    int vector = take_interrupt(l);
    lapic_tell(l);
    port_unlock(l);
    return vector;
}

static uint64_t port_read_base(void *opaque)
{
    struct lapic *l = opaque;
    port_lock(l);
    uint64_t base = l->base;
    port_unlock(l);
    return base;
}

static bool base_valid(const struct lapic *l, uint64_t value)
{
    unsigned phys_bits = l->config.phys_bits ? l->config.phys_bits : 40;
    uint64_t reserved = 0x2ff | ~((1ull << phys_bits) - 1);
    if (!l->config.x2apic)
        reserved |= APIC_BASE_EXTD;
    if (value & reserved)
        return false;
    /* Figure 11-27: EXTD needs EN; off to x2APIC and x2APIC to xAPIC are no transitions. */
    bool en = value & APIC_BASE_EN, extd = value & APIC_BASE_EXTD;
    if (extd)
        return en && lapic_enabled(l);
    return !(en && lapic_x2apic(l));
}

static void lapic_clear(struct lapic *l);

static bool port_write_base(void *opaque, uint64_t value)
{
    struct lapic *l = opaque;
    port_lock(l);
    bool valid = base_valid(l, value);
    if (valid) {
        bool was_enabled = lapic_enabled(l);
        l->base = (value & ~(uint64_t)APIC_BASE_BSP) | (l->base & APIC_BASE_BSP);
        if (was_enabled != lapic_enabled(l))
            lapic_clear(l);
        if ((l->base & PAGE_MASK) != APIC_DEFAULT_BASE)
            LOG(l->board->log, LOG_UNIMP, "apic %u: moved to %#llx, where it cannot be reached\n",
                l->config.index, (unsigned long long)(l->base & PAGE_MASK));
        apic_bus_retry(l->bus); /* in x2APIC mode it may have another logical id */
        lapic_update(l);
    }
    port_unlock(l);
    return valid;
}

static bool port_read_msr(void *opaque, uint32_t msr, uint64_t *value)
{
    struct lapic *l = opaque;
    bool ok = false;
    port_lock(l);
    if (msr == MSR_TSC_DEADLINE) {
        ok = l->config.tsc_deadline;
        *value = lapic_timer_deadline(l);
    } else if (msr >= MSR_X2APIC && lapic_x2apic(l)) {
        ok = x2apic_read(l, msr - MSR_X2APIC, value);
    }
    port_unlock(l);
    return ok;
}

static bool port_write_msr(void *opaque, uint32_t msr, uint64_t value)
{
    struct lapic *l = opaque;
    bool ok = false;
    port_lock(l);
    if (msr == MSR_TSC_DEADLINE) {
        ok = l->config.tsc_deadline;
        if (ok)
            lapic_timer_set_deadline(l, value);
    } else if (msr >= MSR_X2APIC && lapic_x2apic(l)) {
        ok = x2apic_write(l, msr - MSR_X2APIC, value);
    }
    port_unlock(l);
    return ok;
}

static uint8_t port_read_cr8(void *opaque)
{
    struct lapic *l = opaque;
    port_lock(l);
    uint8_t cr8 = (uint8_t)(l->tpr >> 4);
    port_unlock(l);
    return cr8;
}

static void port_write_cr8(void *opaque, uint8_t tpr)
{
    struct lapic *l = opaque;
    port_lock(l);
    l->tpr = (tpr & 15u) << 4;
    lapic_update(l);
    port_unlock(l);
}

/* ---- Life ------------------------------------------------------------------------------------ */

/* The state after power-up, less the base (11.4.7.1). The pins stay as they are driven. */
static void lapic_clear(struct lapic *l)
{
    l->tpr = l->ldr = l->icr_low = l->icr_high = l->esr = l->esr_next = 0;
    l->dfr = UINT32_MAX;
    l->svr = 0xff;
    memset(l->irr, 0, sizeof(l->irr));
    memset(l->isr, 0, sizeof(l->isr));
    memset(l->tmr, 0, sizeof(l->tmr));
    for (unsigned i = 0; i < LVT_COUNT; i++)
        l->lvt[i] = LVT_MASKED;
    l->extint = false;
    l->divide = 0;
    lapic_timer_reset(l);
}

/* INIT keeps IA32_APIC_BASE and so the mode (11.4.7.3). */
static void lapic_reset_all(struct lapic *l, bool init)
{
    lapic_clear(l);
    if (!init) {
        l->base = APIC_DEFAULT_BASE | APIC_BASE_EN | (l->config.bsp ? APIC_BASE_BSP : 0);
        if (l->config.bsp) /* virtual wire, as firmware leaves it: there may be no firmware */
            l->lvt[LVT_LINT0] = APIC_EXTINT << 8;
    }
    lapic_update(l);
}

static void port_cpu_reset(void *opaque, bool init)
{
    struct lapic *l = opaque;
    port_lock(l);
    lapic_reset_all(l, init);
    lapic_tell(l);
    port_unlock(l);
}

struct lapic_port lapic_port(struct lapic *l)
{
    return (struct lapic_port){
        .lapic = l,
        .acknowledge = port_acknowledge,
        .read_base = port_read_base,
        .write_base = port_write_base,
        .read_msr = port_read_msr,
        .write_msr = port_write_msr,
        .read_cr8 = port_read_cr8,
        .write_cr8 = port_write_cr8,
        .cpu_reset = port_cpu_reset,
    };
}

static void lapic_device_reset(struct device *dev)
{
    lapic_reset_all((struct lapic *)dev, false);
}

static void lapic_destroy(struct device *dev)
{
    struct lapic *l = (struct lapic *)dev;
    timer_cancel(&l->timer);
    apic_bus_remove_lapic(l->bus, l);
    free(l);
}

static const struct field lapic_fields[] = {
    FIELD(struct lapic, base, FIELD_U64, 1),
    FIELD(struct lapic, tpr, FIELD_U32, 1),
    FIELD(struct lapic, svr, FIELD_U32, 1),
    FIELD(struct lapic, ldr, FIELD_U32, 1),
    FIELD(struct lapic, dfr, FIELD_U32, 1),
    FIELD(struct lapic, icr_low, FIELD_U32, 1),
    FIELD(struct lapic, icr_high, FIELD_U32, 1),
    FIELD(struct lapic, esr, FIELD_U32, 1),
    FIELD(struct lapic, esr_next, FIELD_U32, 1),
    FIELD_ARRAY(struct lapic, irr, FIELD_U32, 1),
    FIELD_ARRAY(struct lapic, isr, FIELD_U32, 1),
    FIELD_ARRAY(struct lapic, tmr, FIELD_U32, 1),
    FIELD_ARRAY(struct lapic, lvt, FIELD_U32, 1),
    FIELD_ARRAY(struct lapic, lint, FIELD_U8, 1),
    FIELD(struct lapic, extint, FIELD_U8, 1),
    FIELD(struct lapic, intr, FIELD_U8, 1),
    FIELD(struct lapic, initial_count, FIELD_U32, 1),
    FIELD(struct lapic, divide, FIELD_U8, 1),
    FIELD(struct lapic, counting, FIELD_U8, 1),
    FIELD(struct lapic, count_start, FIELD_U64, 1),
    FIELD(struct lapic, tsc_deadline, FIELD_U64, 1),
};
static const struct state_desc lapic_state = STATE_DESC("lapic", 1, lapic_fields);

struct lapic *lapic_new(struct apic_bus *bus, const struct lapic_config *config)
{
    struct lapic *l = chip_alloc(sizeof(*l));
    l->dev = (struct device){.name = "lapic",
                             .state = &lapic_state,
                             .reset = lapic_device_reset,
                             .destroy = lapic_destroy};
    l->bus = bus;
    l->board = apic_bus_board(bus);
    l->config = *config;
    lapic_timer_init(l);
    apic_bus_add_lapic(bus, l);
    lapic_reset_all(l, false);
    return l;
}
