/*
 * floppy.c - the floppy controller in its machine: which drives it has, and what CMOS says of them.
 */
#include "pc.h"

enum { FLOPPY_IRQ = 6, FLOPPIES = 2, CMOS_FLOPPIES = 0x10, CMOS_EQUIPMENT = 0x14 };
enum { EQUIPMENT_FLOPPY = 1 << 0, EQUIPMENT_FPU = 1 << 1, EQUIPMENT_MOUSE = 1 << 2 };

/* Without a disk there is no drive either: a system that looks for one would wait for it. */
static void describe(struct machine *m, const struct fdc *fdc)
{
    uint8_t a = fdc_drive_type(fdc, 0), b = fdc_drive_type(fdc, 1);
    unsigned equipment = EQUIPMENT_FPU | EQUIPMENT_MOUSE;
    m->firmware.has_floppy = a || b;
    if (a || b)
        equipment |= EQUIPMENT_FLOPPY | (a && b ? 1 << 6 : 0);
    rtc_cmos_set(m->rtc, CMOS_FLOPPIES, (uint8_t)(a << 4 | b));
    rtc_cmos_set(m->rtc, CMOS_EQUIPMENT, (uint8_t)equipment);
}

bool floppy_build(struct machine *m, struct error *err)
{
    struct fdc_config config = {{NULL}};
    struct dma *dma = dma_new(&m->board);
    if (!pc_own(m, dma, err))
        return false;
    for (unsigned i = 0; i < m->config->drive_count; i++)
        if (m->config->drives[i].interface == DRIVE_FLOPPY)
            config.drives[m->config->drives[i].floppy] = m->disks[i];
    m->fdc = fdc_new(&m->board, dma, &config, gsi_line(m->gsi, FLOPPY_IRQ), err);
    if (!pc_own(m, m->fdc, err))
        return error_prefix(err, "-drive if=floppy");
    describe(m, m->fdc);
    return true;
}
