/*
 * acpi_pm.c - power management as PIIX4's function 3 has it: PM1 events, PM timer, GPE0, sleep and
 * power-off, and the SMI command port. There is no SMM: what its handler would do for ACPI_ENABLE
 * and ACPI_DISABLE is done here.
 *
 * Specified in ACPI 6.5, section 4.8 (fixed hardware), and the PIIX4 data sheet, section 7.2.
 */
#include "internal/chips.h"
#include "internal/clock.h"
#include "internal/event.h"
#include "internal/log.h"
#include <stdlib.h>

/* Offsets in the block. */
enum { PM1_STS = 0, PM1_EN = 2, PM1_CNT = 4, PM_TMR = 8, PM_PORTS = 64 };
enum { GPE0_STS = 0, GPE0_EN = 2, GPE_PORTS = 4 };
/* PM1_STS and PM1_EN. */
enum {
    PM1_TMR = 1 << 0,
    PM1_BM = 1 << 4,
    PM1_GBL = 1 << 5,
    PM1_PWRBTN = 1 << 8,
    PM1_RTC = 1 << 10
};
enum { PM1_WAK = 1 << 15 };
enum { PM1_STS_ALL = PM1_TMR | PM1_BM | PM1_GBL | PM1_PWRBTN | PM1_RTC | PM1_WAK };
enum { PM1_EN_ALL = PM1_TMR | PM1_GBL | PM1_PWRBTN | PM1_RTC };
/* PM1_CNT; GBL_RLS and SLP_EN are write only. */
enum { CNT_SCI_EN = 1 << 0, CNT_KEPT = 0x1c03, CNT_SLP_EN = 1 << 13 };
#define CNT_SLP_TYP(cnt) ((cnt) >> 10 & 7)
enum { SLP_S5 = 0, SLP_S4 = 2 }; /* PIIX4's soft-off types; 1 would be suspend to RAM */

#define TIMER_MASK 0xffffffu /* 24 bits */
#define TIMER_HALF 0x800000u /* TMR_STS is set whenever bit 23 changes */

struct acpi_pm {
    struct device dev;
    struct board *board;
    struct irq_line sci;
    struct acpi_pm_config config;
    uint16_t base;
    uint16_t sts, en, cnt;
    uint16_t gpe_sts, gpe_en;
    uint8_t apm[2];     /* ports B2h, B3h */
    uint64_t seen_tick; /* up to this tick TMR_STS has been worked out */
    uint64_t deadline;  /* of the timer; 0: not armed */
    struct timer timer;
    int pm_ports, gpe_ports, apm_ports; /* -1: none */
};

static uint64_t pm_tick(const struct acpi_pm *pm)
{
    return clock_muldiv(clock_now(pm->board->clock), ACPI_PM_TIMER_HZ, CLOCK_HZ);
}

static void pm_sync(struct acpi_pm *pm)
{
    uint64_t tick = pm_tick(pm);
    if (tick / TIMER_HALF != pm->seen_tick / TIMER_HALF)
        pm->sts |= PM1_TMR;
    pm->seen_tick = tick;
}

/* SCI is a level; with SCI_EN clear the events would be SMIs, which nobody takes. */
static void pm_update(struct acpi_pm *pm)
{
    bool event = (pm->sts & pm->en & PM1_EN_ALL) || (pm->gpe_sts & pm->gpe_en);
    irq_set(&pm->sci, event && (pm->cnt & CNT_SCI_EN));
    pm->deadline = 0;
    if ((pm->en & PM1_TMR) && !(pm->sts & PM1_TMR))
        pm->deadline =
            clock_ticks_to_ns((pm->seen_tick / TIMER_HALF + 1) * TIMER_HALF, ACPI_PM_TIMER_HZ);
    if (pm->deadline)
        timer_arm(&pm->timer, pm->deadline);
    else
        timer_cancel(&pm->timer);
}

static void pm_expired(void *opaque)
{
    struct acpi_pm *pm = opaque;
    pm_sync(pm);
    pm_update(pm);
}

/* Before anything is read or changed: the I/O thread may be late, and a carry that is seen has
 * raised SCI. */
static void pm_catch_up(struct acpi_pm *pm)
{
    uint16_t before = pm->sts;
    pm_sync(pm);
    if (pm->sts != before)
        pm_update(pm);
}

void acpi_pm_power_button(struct acpi_pm *pm)
{
    pm->sts |= PM1_PWRBTN;
    pm_update(pm);
}

void acpi_pm_gpe(struct acpi_pm *pm, unsigned bit)
{
    pm->gpe_sts |= (uint16_t)(1u << (bit & 15));
    pm_update(pm);
}

/* ---- Ports ----------------------------------------------------------------------------------- */

static void enter_sleep(struct acpi_pm *pm, unsigned type)
{
    if (type == SLP_S5 || type == SLP_S4)
        pm->board->shutdown(pm->board->machine, BOARD_POWER_OFF, 0);
    else
        LOG(pm->board->log, LOG_UNIMP, "acpi: sleep type %u is not supported\n", type);
}

static uint16_t pm_read_word(struct acpi_pm *pm, unsigned reg)
{
    switch (reg) {
    case PM1_STS:
        return pm->sts;
    case PM1_EN:
        return pm->en;
    case PM1_CNT:
        return pm->cnt;
    }
    return 0;
}

static void pm_write_word(struct acpi_pm *pm, unsigned reg, uint16_t value)
{
    switch (reg) {
    case PM1_STS:
        pm->sts &= (uint16_t) ~(value & PM1_STS_ALL);
        break;
    case PM1_EN:
        pm->en = value & PM1_EN_ALL;
        break;
    case PM1_CNT:
        pm->cnt = value & CNT_KEPT;
        if (value & CNT_SLP_EN)
            enter_sleep(pm, CNT_SLP_TYP(value));
        break;
    }
}

/* Bytes `offset` to `offset + size` of a little-endian register file of words. */
static uint64_t read_bytes(struct acpi_pm *pm, uint64_t offset, unsigned size,
                           uint16_t (*word)(struct acpi_pm *, unsigned))
{
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++) {
        unsigned at = (unsigned)offset + i;
        value |= (uint64_t)(word(pm, at & ~1u) >> (at & 1) * 8 & 0xff) << i * 8;
    }
    return value;
}

static uint64_t pm_read(void *opaque, const struct access *access, uint64_t offset, unsigned size)
{
    struct acpi_pm *pm = opaque;
    (void)access;
    pm_catch_up(pm);
    if (offset >= PM_TMR && offset < PM_TMR + 4)
        return (pm->seen_tick & TIMER_MASK) >> (offset - PM_TMR) * 8;
    return read_bytes(pm, offset, size, pm_read_word);
}

/* A byte write leaves the other byte of its register as it is: zeros to the status bits, which a
 * one would clear, and what is there to the others. */
static void pm_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                     uint64_t value)
{
    struct acpi_pm *pm = opaque;
    unsigned reg = (unsigned)offset & ~1u;
    (void)access;
    pm_catch_up(pm);
    if (size == 1) {
        uint16_t kept = reg == PM1_STS ? 0 : pm_read_word(pm, reg);
        unsigned shift = (offset & 1) * 8;
        pm_write_word(pm, reg, (uint16_t)((kept & ~(0xff << shift)) | (value & 0xff) << shift));
    } else {
        pm_write_word(pm, reg, (uint16_t)value);
        if (size == 4)
            pm_write_word(pm, reg + 2, (uint16_t)(value >> 16));
    }
    pm_update(pm);
}

static uint16_t gpe_read_word(struct acpi_pm *pm, unsigned reg)
{
    return reg == GPE0_STS ? pm->gpe_sts : pm->gpe_en;
}

static uint64_t gpe_read(void *opaque, const struct access *access, uint64_t offset, unsigned size)
{
    (void)access;
    return read_bytes(opaque, offset, size, gpe_read_word);
}

static void gpe_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                      uint64_t value)
{
    struct acpi_pm *pm = opaque;
    (void)access, (void)size;
    unsigned shift = (offset & 1) * 8;
    uint16_t bits = (uint16_t)((value & 0xff) << shift);
    pm_sync(pm);
    if (offset < GPE0_EN)
        pm->gpe_sts &= (uint16_t)~bits;
    else
        pm->gpe_en = (uint16_t)((pm->gpe_en & ~(0xff << shift)) | bits);
    pm_update(pm);
}

static uint64_t apm_read(void *opaque, const struct access *access, uint64_t offset, unsigned size)
{
    struct acpi_pm *pm = opaque;
    (void)access, (void)size;
    return pm->apm[offset];
}

static void apm_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                      uint64_t value)
{
    struct acpi_pm *pm = opaque;
    (void)access, (void)size;
    pm->apm[offset] = (uint8_t)value;
    if (offset != 0)
        return;
    pm_sync(pm);
    if (value == ACPI_ENABLE_CMD)
        pm->cnt |= CNT_SCI_EN;
    else if (value == ACPI_DISABLE_CMD)
        pm->cnt &= (uint16_t)~CNT_SCI_EN;
    pm_update(pm);
}

/* ---- Life ------------------------------------------------------------------------------------ */

static const struct io_ops pm_ops = {pm_read, pm_write, 1, 4};
static const struct io_ops gpe_ops = {gpe_read, gpe_write, 1, 1};
static const struct io_ops apm_ops = {apm_read, apm_write, 1, 1};

static void drop_ports(struct acpi_pm *pm, int *handle)
{
    if (*handle >= 0)
        io_remove(pm->board->io, *handle);
    *handle = -1;
}

void acpi_pm_set_base(struct acpi_pm *pm, uint16_t base)
{
    if (base == pm->base)
        return;
    drop_ports(pm, &pm->pm_ports);
    pm->base = base;
    if (base)
        pm->pm_ports = io_add(pm->board->io, base, PM_PORTS, &pm_ops, pm, "acpi pm");
}

static void pm_reset(struct device *dev)
{
    struct acpi_pm *pm = (struct acpi_pm *)dev;
    acpi_pm_set_base(pm, pm->config.pm_base);
    pm->sts = pm->en = pm->gpe_sts = pm->gpe_en = 0;
    pm->apm[0] = pm->apm[1] = 0;
    pm->cnt = pm->config.acpi_mode ? CNT_SCI_EN : 0;
    pm->seen_tick = pm_tick(pm);
    pm_update(pm);
}

static void pm_destroy(struct device *dev)
{
    struct acpi_pm *pm = (struct acpi_pm *)dev;
    timer_cancel(&pm->timer);
    drop_ports(pm, &pm->pm_ports);
    drop_ports(pm, &pm->gpe_ports);
    drop_ports(pm, &pm->apm_ports);
    free(pm);
}

static const struct field pm_fields[] = {
    FIELD(struct acpi_pm, base, FIELD_U16, 1),     FIELD(struct acpi_pm, sts, FIELD_U16, 1),
    FIELD(struct acpi_pm, en, FIELD_U16, 1),       FIELD(struct acpi_pm, cnt, FIELD_U16, 1),
    FIELD(struct acpi_pm, gpe_sts, FIELD_U16, 1),  FIELD(struct acpi_pm, gpe_en, FIELD_U16, 1),
    FIELD_ARRAY(struct acpi_pm, apm, FIELD_U8, 1), FIELD(struct acpi_pm, seen_tick, FIELD_U64, 1),
    FIELD(struct acpi_pm, deadline, FIELD_U64, 1),
};
static const struct state_desc pm_state = STATE_DESC("acpi-pm", 1, pm_fields);

struct acpi_pm *acpi_pm_new(struct board *board, const struct acpi_pm_config *config,
                            struct irq_line sci)
{
    struct acpi_pm *pm = chip_alloc(sizeof(*pm));
    pm->dev = (struct device){
        .name = "acpi-pm", .state = &pm_state, .reset = pm_reset, .destroy = pm_destroy};
    pm->board = board;
    pm->config = *config;
    pm->sci = sci;
    pm->pm_ports = pm->gpe_ports = -1;
    timer_init(&pm->timer, board->queue, pm_expired, pm);
    if (config->gpe_base)
        pm->gpe_ports = io_add(board->io, config->gpe_base, GPE_PORTS, &gpe_ops, pm, "acpi gpe0");
    pm->apm_ports = io_add(board->io, 0xb2, 2, &apm_ops, pm, "smi command");
    pm_reset(&pm->dev);
    return pm;
}
