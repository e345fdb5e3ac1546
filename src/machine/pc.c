/*
 * pc.c - which chips a PC has and how they are wired: QEMU's `pc` (i440FX, PIIX3). Without a
 * firmware image (bios.c) what a BIOS would set up in the chips is set up here.
 *
 *     0 - A0000h         RAM
 *     A0000h - BFFFFh    VGA
 *     C0000h - FFFFFh    RAM, ROM or nothing, by PAM: without firmware there is RAM from E0000h on,
 *                        holding the firmware tables
 *     100000h - ram_low  RAM
 *     ram_low - FEC00000h  PCI
 *     FEC00000h, FEE00000h  I/O APIC, local APICs
 *     FEF00000h - FEF8FFFFh protection device
 *     4 GiB -            the rest of RAM
 */
#include "pc.h"
#include "internal/fw_cfg.h"
#include "internal/rules.h"
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MIB (1ull << 20)
#define GIB (1ull << 30)

/* QEMU's rule: with 3.5 GiB or more, 3 GiB stay low, so that what is high is aligned to 1 GiB. */
#define LOW_MAX   (3 * GIB + 512 * MIB)
#define LOW_SPLIT (3 * GIB)
#define HIGH_BASE (4 * GIB)

enum {
    SCI_IRQ = 9,
    RTC_IRQ = 8,
    FPU_IRQ = 13,
    KEYBOARD_IRQ = 1,
    MOUSE_IRQ = 12,
    PM_BASE = 0x600,
    GPE_BASE = 0xafe0,
    SMI_CMD = 0xb2,
    RESET_PORT = 0xcf9,
    RESET_VALUE = 0x06,
    CMOS_CENTURY = 0x32,
    DEBUGCON_PORT = 0xe9,
};

bool pc_own(struct machine *m, void *chip, struct error *err)
{
    if (!chip)
        return false;
    if (m->chip_count == MACHINE_MAX_CHIPS) {
        chip_device(chip)->destroy(chip_device(chip));
        return error_set(err, "more than %d devices", MACHINE_MAX_CHIPS);
    }
    m->chips[m->chip_count++] = chip;
    return true;
}

/* ---- Memory ---------------------------------------------------------------------------------- */

static bool check_host_memory(uint64_t size, struct error *err)
{
    uint64_t host = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    if (size <= host)
        return true;
    return error_set(err, "-m: %llu MiB of guest memory, but this host has only %llu MiB",
                     (unsigned long long)(size / MIB), (unsigned long long)(host / MIB));
}

static bool build_memory(struct machine *m, struct error *err)
{
    struct firmware_config *f = &m->firmware;
    uint64_t size = m->config->ram_size;
    if (!check_host_memory(size, err))
        return false;
    f->ram_low = size >= LOW_MAX ? LOW_SPLIT : size;
    f->ram_high = size - f->ram_low;
    m->ram = phys_ram_new(m->map, size, err);
    if (!m->ram)
        return false;
    const struct {
        uint64_t gpa, end, offset;
        const char *name;
    } parts[] = {
        {0, 0xa0000, 0, "ram.conventional"},
        {MIB, f->ram_low, MIB, "ram.low"},
        {HIGH_BASE, HIGH_BASE + f->ram_high, f->ram_low, "ram.high"},
    };
    for (unsigned i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        if (parts[i].end > parts[i].gpa &&
            !phys_add_ram(m->map, parts[i].gpa, parts[i].end - parts[i].gpa, m->ram,
                          parts[i].offset, parts[i].name, err))
            return false;
    return true;
}

/* ---- Interrupts ------------------------------------------------------------------------------ */

static bool build_lapic(struct machine *m, unsigned i, struct error *err)
{
    struct cpu *cpu = m->vcpu[i].cpu;
    uint32_t basic[4], address[4];
    cpu_cpuid(cpu, 1, 0, basic);
    cpu_cpuid(cpu, 0x80000008, 0, address);
    const struct lapic_config config = {
        .index = i,
        .bsp = i == 0,
        .x2apic = basic[2] >> 21 & 1,
        .tsc_deadline = basic[2] >> 24 & 1,
        .phys_bits = address[0] & 0xff,
        .cpu = cpu_port(cpu),
    };
    m->lapic[i] = lapic_new(m->apic_bus, &config);
    if (!pc_own(m, m->lapic[i], err))
        return false;
    cpu->lapic = lapic_port(m->lapic[i]);
    return true;
}

/* FERR# of any vCPU, from its own thread: lines want the machine lock. */
static void ferr_set(void *opaque, unsigned pin, bool level)
{
    struct machine *m = opaque;
    (void)pin;
    pthread_mutex_lock(&m->lock);
    struct irq_line line = fpu_error_line(m->fpu_error);
    irq_set(&line, level);
    pthread_mutex_unlock(&m->lock);
}

static bool build_interrupts(struct machine *m, struct error *err)
{
    m->pic = pic_new(&m->board);
    if (!pc_own(m, m->pic, err))
        return false;
    m->apic_bus = apic_bus_new(&m->board, m->pic, err);
    if (!m->apic_bus)
        return false;
    for (unsigned i = 0; i < m->vcpu_count; i++)
        if (!build_lapic(m, i, err))
            return false;
    pic_connect(m->pic, lapic_lint(m->lapic[0], 0));
    m->ioapic = ioapic_new(&m->board, m->apic_bus, err);
    if (!pc_own(m, m->ioapic, err))
        return false;
    m->gsi = gsi_new(&m->board, m->pic, m->ioapic);
    m->fpu_error = fpu_error_new(&m->board, gsi_line(m->gsi, FPU_IRQ));
    for (unsigned i = 0; i < m->vcpu_count; i++)
        m->vcpu[i].cpu->ferr = (struct irq_line){.set = ferr_set, .opaque = m};
    return pc_own(m, m->gsi, err) && pc_own(m, m->fpu_error, err);
}

/* ---- The ISA side ---------------------------------------------------------------------------- */

/* The last write to either gate decides, as on QEMU's `pc`. (A board ORs the two lines; there a
 * program that closes one gate must know how the other stands, and none does.) */
static void a20_changed(void *opaque, unsigned pin, bool level)
{
    struct machine *m = opaque;
    (void)pin;
    if (level == m->a20)
        return;
    m->a20 = level;
    for (unsigned i = 0; i < m->vcpu_count; i++)
        cpu_set_a20(m->vcpu[i].cpu, level);
}

static struct irq_line a20_line(struct machine *m, unsigned pin)
{
    return (struct irq_line){.set = a20_changed, .opaque = m, .pin = pin};
}

static struct rtc_config rtc_start(const struct machine *m)
{
    struct rtc_config config = {0};
    if (m->config->rtc_base == RTC_FIXED) {
        config.fixed = true;
        config.seconds = m->config->rtc_seconds;
    } else if (m->config->rtc_base == RTC_LOCALTIME) {
        uint32_t ns;
        time_t now = (time_t)clock_wall(m->clock, &ns);
        struct tm local;
        if (localtime_r(&now, &local))
            config.seconds = local.tm_gmtoff;
    }
    return config;
}

static bool build_timers(struct machine *m, struct error *err)
{
    const struct rtc_config rtc = rtc_start(m);
    const struct acpi_pm_config pm = {.gpe_base = GPE_BASE, .acpi_mode = !m->bios_boot};
    m->rtc = rtc_new(&m->board, &rtc, gsi_line(m->gsi, RTC_IRQ));
    m->pm = acpi_pm_new(&m->board, &pm, gsi_line(m->gsi, SCI_IRQ));
    if (!pc_own(m, pit_new(&m->board, gsi_line(m->gsi, 0)), err) || !pc_own(m, m->rtc, err) ||
        !pc_own(m, m->pm, err))
        return false;
    rtc_cmos_set_memory(m->rtc, m->firmware.ram_low, m->firmware.ram_high);
    rtc_cmos_set(m->rtc, 0x5f, (uint8_t)(m->vcpu_count - 1)); /* as QEMU tells its BIOS */
    return true;
}

/* The HPET takes interrupts 0 and 8 over in its legacy mode. */
static bool build_hpet(struct machine *m, struct error *err)
{
    static const struct access access = {.initiator = INITIATOR_LOADER};
    if (!m->config->hpet)
        return true;
    if (!pc_own(m, hpet_new(&m->board, m->gsi, apic_bus_msi(m->apic_bus), err), err))
        return false;
    m->firmware.hpet_base = HPET_BASE;
    phys_read(m->map, &access, HPET_BASE, &m->firmware.hpet_id, sizeof(m->firmware.hpet_id));
    return true;
}

static bool build_serial(struct machine *m, unsigned i, struct error *err)
{
    static const struct {
        uint16_t port;
        uint8_t irq;
    } com[MACHINE_MAX_SERIALS] = {{0x3f8, 4}, {0x2f8, 3}, {0x3e8, 4}, {0x2e8, 3}};
    struct chardev *chr;
    if (!backend_chardev(m, m->config->serials[i], &chr, err))
        return error_prefix(err, "-serial");
    if (!chr)
        return true;
    const struct serial_config config = {
        .base = com[i].port, .irq = gsi_line(m->gsi, com[i].irq), .chr = chr};
    m->firmware.has_serial[i] = true;
    return pc_own(m, serial_new(&m->board, &config), err);
}

static bool build_ports(struct machine *m, struct error *err)
{
    struct chardev *chr;
    m->a20 = true;
    m->i8042 = i8042_new(&m->board, gsi_line(m->gsi, KEYBOARD_IRQ), gsi_line(m->gsi, MOUSE_IRQ),
                         a20_line(m, 1));
    if (!pc_own(m, port92_new(&m->board, a20_line(m, 0)), err) || !pc_own(m, m->i8042, err))
        return false;
    for (unsigned i = 0; i < m->config->serial_count; i++)
        if (!build_serial(m, i, err))
            return false;
    if (!backend_chardev(m, m->config->debugcon, &chr, err))
        return error_prefix(err, "-debugcon");
    return !chr || pc_own(m, debugcon_new(&m->board, DEBUGCON_PORT, chr), err);
}

/* ---- PCI ------------------------------------------------------------------------------------- */

/* The tables follow (bios.c). */
static void pm_moved(void *opaque, uint16_t base)
{
    struct machine *m = opaque;
    acpi_pm_set_base(m->pm, base);
    if (base)
        m->firmware.pm_base = base;
}

static bool build_pci(struct machine *m, struct error *err)
{
    const struct msi_port msi = apic_bus_msi(m->apic_bus);
    const struct piix4_pm_port pm = {.moved = pm_moved, .opaque = m};
    struct irq_line irqs[16] = {{0}};
    for (unsigned i = 3; i < 16; i++) /* 0-2, 8 and 13 belong to motherboard chips */
        if (i != RTC_IRQ && i != FPU_IRQ)
            irqs[i] = gsi_line(m->gsi, i);
    m->pci = i440fx_create(&m->board, &msi, err);
    return m->pci && pc_own(m, m->pci->host, err) &&
           i440fx_connect_memory(m->pci, m->ram, m->bios, m->bios_size, err) &&
           pc_own(m, piix3_create(m->pci, irqs, err), err) && storage_build_ide(m, err) &&
           pc_own(m, piix4_pm_create(m->pci, &pm, err), err);
}

static bool build_device(struct machine *m, const struct device_config *d, struct error *err)
{
    switch (d->kind) {
    case DEVICE_VIRTIO_BLK: {
        const struct virtio_blk_options options = {.disk = m->disks[d->drive - m->config->drives],
                                                   .serial = d->serial};
        struct pci_device *disk = virtio_blk_create(m->pci, d->devfn, &options, err);
        m->controllers[d - m->config->devices] = disk;
        return pc_own(m, disk, err);
    }
    case DEVICE_IDE_HD:
    case DEVICE_IDE_CD:
        return storage_build_drive(m, d, err);
    case DEVICE_AHCI:
        return storage_build_ahci(m, d, err);
    case DEVICE_VIRTIO_SCSI:
        return storage_build_scsi(m, d, err);
    case DEVICE_SCSI_HD:
    case DEVICE_SCSI_CD:
        return storage_build_scsi_unit(m, d, err);
    case DEVICE_VIRTIO_RNG:
        return pc_own(m, virtio_rng_create(m->pci, d->devfn, err), err);
    case DEVICE_VGA:
        return screen_add_vga(m, d, err);
    case DEVICE_DEBUG_EXIT:
        return pc_own(m, debug_exit_new(&m->board, d->port, d->ports), err);
    case DEVICE_PVPANIC:
        m->firmware.has_panic = true;
        m->firmware.panic_port = d->port;
        return pc_own(m, pvpanic_new(&m->board, d->port), err);
    }
    return error_set(err, "unknown device");
}

/* ---- All of it ------------------------------------------------------------------------------- */

static void describe(struct machine *m)
{
    struct firmware_config *f = &m->firmware;
    f->vcpus = m->vcpu_count;
    f->smbios = &m->config->smbios;
    f->lapic_base = APIC_DEFAULT_BASE;
    f->ioapic_base = IOAPIC_BASE;
    f->sci_irq = SCI_IRQ;
    f->pm_base = PM_BASE;
    f->gpe_base = GPE_BASE;
    f->smi_cmd = SMI_CMD;
    f->acpi_enable = ACPI_ENABLE_CMD;
    f->acpi_disable = ACPI_DISABLE_CMD;
    f->reset_port = RESET_PORT;
    f->reset_value = RESET_VALUE;
    f->cmos_century = CMOS_CENTURY;
    /* Firmware may put BARs anywhere above RAM; we put them where a kernel expects them. */
    f->pci_hole = m->bios_boot ? f->ram_low : f->ram_low > LOW_SPLIT ? LOW_MAX : LOW_SPLIT;
    f->pci_hole_end = IOAPIC_BASE;
    f->pirq[0] = f->pirq[1] = 10;
    f->pirq[2] = f->pirq[3] = 11;
    f->level_irqs = 1 << 5 | 1 << SCI_IRQ | 1 << 10 | 1 << 11;
    firmware_memory_map(f, &m->memory);
}

bool pc_build(struct machine *m, struct error *err)
{
    if (!build_memory(m, err) || !bios_build(m, err) || !vcpus_create(m, err) ||
        !build_interrupts(m, err) || !build_timers(m, err) || !build_hpet(m, err) ||
        !build_ports(m, err) || !build_pci(m, err) || !screen_build(m, err) ||
        !floppy_build(m, err) || !protect_build(m, err))
        return false;
    for (unsigned i = 0; i < m->config->device_count; i++)
        if (!build_device(m, &m->config->devices[i], err))
            return false;
    describe(m);
    if (!m->bios_boot)
        return true;
    m->fw_cfg = fw_cfg_new(&m->board);
    return pc_own(m, m->fw_cfg, err) && bios_describe(m, err);
}

bool pc_reset(struct machine *m, struct error *err)
{
    if (m->rules)
        rules_reset(m->rules);
    for (unsigned i = 0; i < m->chip_count; i++)
        m->chips[i]->reset(m->chips[i]);
    for (unsigned i = 0; i < m->vcpu_count; i++) {
        cpu_withdraw(m->vcpu[i].cpu, CPU_REQ_NMI | CPU_REQ_SMI | CPU_REQ_INIT | CPU_REQ_SIPI);
        cpu_reset(m->vcpu[i].cpu, false);
    }
    if (m->bios_boot)
        return true;
    i440fx_open_shadow(m->pci);
    piix4_pm_decode(m->pci, PM_BASE);
    screen_start(m);
    return pci_assign_resources(m->pci, m->firmware.pci_hole, m->firmware.pci_hole_end, err);
}

void pc_destroy(struct machine *m)
{
    while (m->chip_count) {
        struct device *chip = m->chips[--m->chip_count];
        chip->destroy(chip);
    }
    if (m->apic_bus)
        apic_bus_free(m->apic_bus);
    m->apic_bus = NULL;
}
