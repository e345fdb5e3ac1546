/*
 * lapic_icr.c - interprocessor interrupts out, and which messages a local APIC takes as its own.
 *
 * Specified in SDM vol. 3: 11.6.1 (ICR), 11.6.2 (destinations), 11.12.9-11.12.11 (x2APIC).
 */
#include "apic.h"
#include "internal/log.h"

enum shorthand { TO_DEST, TO_SELF, TO_ALL, TO_OTHERS };
#define ICR_LOGICAL      (1u << 11)
#define ICR_ASSERT       (1u << 14)
#define ICR_LEVEL        (1u << 15)
#define ICR_SHORTHAND(i) ((i) >> 18 & 3)

#define ESR_SEND_ILLEGAL_VECTOR (1u << 5)
#define DFR_FLAT                0xfu /* bits 31-28 */

/* ---- Destinations ---------------------------------------------------------------------------- */

/* x2APIC: 16 clusters of 16 bits each, derived from the id. A message of 8 bits addresses cluster
 * 0. */
static bool matches_x2apic(const struct lapic *l, const struct apic_message *msg)
{
    uint32_t id = l->config.index;
    if (!msg->logical)
        return msg->dest == id;
    return msg->dest >> 16 == id >> 4 && (msg->dest & 1u << (id & 15));
}

static bool matches_xapic(const struct lapic *l, const struct apic_message *msg)
{
    if (!msg->logical)
        return msg->dest == l->config.index;
    uint32_t ldr = l->ldr >> 24;
    if (msg->dest > 0xff)
        return false;
    if (l->dfr >> 28 == DFR_FLAT)
        return msg->dest & ldr;
    return msg->dest >> 4 == ldr >> 4 && (msg->dest & ldr & 0xf);
}

bool lapic_matches(const struct lapic *l, const struct apic_message *msg)
{
    if (!lapic_enabled(l))
        return false;
    if (msg->dest == (msg->wide ? UINT32_MAX : 0xff))
        return true;
    return lapic_x2apic(l) ? matches_x2apic(l, msg) : matches_xapic(l, msg);
}

/* ---- Sending --------------------------------------------------------------------------------- */

/* Table 11-3: self and all-including-self are for fixed interrupts only; ExtINT and 3 never. */
static bool ipi_valid(unsigned mode, unsigned shorthand)
{
    if (mode == APIC_EXTINT || mode == 3)
        return false;
    return mode == APIC_FIXED || shorthand == TO_DEST || shorthand == TO_OTHERS;
}

static void send_shorthand(struct lapic *l, unsigned shorthand, uint8_t mode, uint8_t vector)
{
    if (shorthand == TO_SELF) {
        lapic_accept(l, mode, vector, false);
        return;
    }
    if (mode == APIC_LOWEST) { /* all but self: there is no destination to arbitrate in; fixed */
        mode = APIC_FIXED;
    }
    apic_bus_send_others(l->bus, shorthand == TO_OTHERS ? l : NULL, mode, vector);
}

uint32_t lapic_send_ipi(struct lapic *l)
{
    uint32_t icr = l->icr_low;
    uint8_t vector = (uint8_t)icr, mode = icr >> 8 & 7;
    unsigned shorthand = ICR_SHORTHAND(icr);
    bool wide = lapic_x2apic(l);
    if (mode == APIC_INIT && (icr & ICR_LEVEL) && !(icr & ICR_ASSERT))
        return 0; /* INIT level de-assert: only synchronises arbitration ids, which are gone */
    if (!ipi_valid(mode, shorthand)) {
        LOG(l->board->log, LOG_GUEST_ERRORS, "apic %u: invalid ICR %#x\n", l->config.index, icr);
        return 0;
    }
    if (mode <= APIC_LOWEST && vector < 16)
        return ESR_SEND_ILLEGAL_VECTOR;
    if (shorthand != TO_DEST) {
        send_shorthand(l, shorthand, mode, vector);
        return 0;
    }
    struct apic_message msg = {
        .dest = wide ? l->icr_high : l->icr_high >> 24,
        .wide = wide,
        .logical = icr & ICR_LOGICAL,
        .mode = mode,
        .vector = vector,
    };
    apic_bus_send(l->bus, &msg);
    return 0;
}

uint32_t lapic_send_self(struct lapic *l, uint8_t vector)
{
    if (vector < 16)
        return ESR_SEND_ILLEGAL_VECTOR;
    lapic_accept(l, APIC_FIXED, vector, false);
    return 0;
}
