/*
 * chips.h - the chips of a PC that are not on the PCI bus: interrupt controllers, timers, ports.
 *
 * Each chip has one create function, *_new(), which claims its ports or memory, and its own opaque
 * type whose first member is its `struct device`: chip_device() gives that head, for the machine's
 * list (reset, save, destroy). *_new() leaves the chip in its power-on state. Unless it says
 * otherwise a function here is called with the machine lock held, or before any vCPU runs.
 *
 * How a machine puts the interrupt chips together (ISA IRQ n = GSI n; PCI brings its own routing):
 *
 *     pic = pic_new(board);
 *     bus = apic_bus_new(board, pic, &err);
 *     for (each vCPU i)
 *         lapic[i] = lapic_new(bus, &(struct lapic_config){.index = i, .bsp = i == 0, ...});
 *     pic_connect(pic, lapic_lint(lapic[0], 0));
 *     ioapic = ioapic_new(board, bus, &err);
 *     gsi = gsi_new(board, pic, ioapic);
 *     cpu->lapic = lapic_port(lapic[i]);
 *     pit_new(board, gsi_line(gsi, 0));
 */
#ifndef INTERNAL_CHIPS_H
#define INTERNAL_CHIPS_H

#include "internal/device.h"

struct chardev;
struct error;
struct input;

static inline struct device *chip_device(void *chip)
{
    return (struct device *)chip;
}

/* Zeroed memory for a chip's struct; the program ends when there is none. For *_new() only. */
void *chip_alloc(size_t size);

/* ---- 8259A pair (devices/irq/pic.c): ports 20h, A0h, 4D0h (ELCR) ----------------------------- */

struct pic;

struct pic *pic_new(struct board *board);
/* Where INTR goes: lapic_lint(bsp, 0). */
void pic_connect(struct pic *pic, struct irq_line intr);
/* Input 0-15; input 2 is the cascade and ignored. One driver each: gsi_line() merges several. */
struct irq_line pic_line(struct pic *pic, unsigned irq);
/* INTA cycle: the vector; the spurious one (IR7 of the chip concerned) when no request is left. */
uint8_t pic_acknowledge(struct pic *pic);

/* ---- Local APICs and what connects them (devices/irq/apic_bus.c, lapic*.c) ------------------- */

#define APIC_DEFAULT_BASE 0xfee00000ull
#define APIC_MAX_CPUS     255

/* Delivery modes of ICR, LVT, redirection entries and MSI data (SDM vol. 3, 11.5.1). */
enum apic_mode {
    APIC_FIXED = 0,
    APIC_LOWEST = 1,
    APIC_SMI = 2,
    APIC_NMI = 4,
    APIC_INIT = 5,
    APIC_SIPI = 6,
    APIC_EXTINT = 7,
};

/* One interrupt message on the bus. */
struct apic_message {
    uint32_t dest;
    bool logical; /* else physical */
    bool wide;    /* dest is a 32-bit x2APIC destination; else 8 bits, FFh = everybody */
    bool level;   /* level triggered: sets TMR, so that EOI is broadcast */
    uint8_t mode; /* enum apic_mode */
    uint8_t vector;
};

struct apic_bus;

/* Claims FEE00000h-FEEFFFFFh. A vCPU that accesses the first page reaches its own local APIC (by
 * access->vcpu); what a device writes there is an MSI. `pic` answers ExtINT; NULL without one. */
struct apic_bus *apic_bus_new(struct board *board, struct pic *pic, struct error *err);
void apic_bus_free(struct apic_bus *bus); /* after every lapic and the ioapic */
/* False: no local APIC took it. */
bool apic_bus_send(struct apic_bus *bus, const struct apic_message *msg);
/* For PCI devices with MSI or MSI-X. */
struct msi_port apic_bus_msi(struct apic_bus *bus);

struct lapic;

struct lapic_config {
    unsigned index; /* vCPU number, also its initial APIC id */
    bool bsp; /* its LINT0 is in virtual-wire mode (ExtINT) after power-on, as firmware would set it
               */
    bool x2apic;        /* CPUID announces x2APIC: IA32_APIC_BASE.EXTD may be set */
    bool tsc_deadline;  /* CPUID announces TSC-deadline */
    unsigned phys_bits; /* MAXPHYADDR, for the reserved bits of IA32_APIC_BASE; 0 = 40 */
    struct cpu_port cpu;
};

struct lapic *lapic_new(struct apic_bus *bus, const struct lapic_config *config);
struct lapic_port lapic_port(struct lapic *lapic); /* for cpu->lapic; takes the lock itself */
/* The LINT0 and LINT1 pins (INTR and NMI while the APIC is disabled). */
struct irq_line lapic_lint(struct lapic *lapic, unsigned pin);

/* ---- I/O APIC (devices/irq/ioapic.c): FEC00000h, 24 inputs, version 20h ---------------------- */

#define IOAPIC_BASE 0xfec00000ull
#define IOAPIC_PINS 24

struct ioapic;

/* Its id (bits 27-24 of register 0) is 0 until the guest or firmware sets it. */
struct ioapic *ioapic_new(struct board *board, struct apic_bus *bus, struct error *err);
struct irq_line ioapic_line(struct ioapic *ioapic, unsigned pin); /* one driver each */

/* ---- Global system interrupts (devices/irq/gsi.c) -------------------------------------------- */

/* GSI n drives IOAPIC input n (0: input 2, as every PC's MADT override says) and, below 16, PIC
 * input n. */
struct gsi;

struct gsi *gsi_new(struct board *board, struct pic *pic, struct ioapic *ioapic);
/* A new wire to GSI 0-23. Any number up to 32 per GSI; its level is the OR of them all. */
struct irq_line gsi_line(struct gsi *gsi, unsigned n);
/* While on, the other wires of this one's GSI do not count. */
void gsi_take_over(const struct irq_line *line, bool on);

/* ---- Timers ---------------------------------------------------------------------------------- */

#define PIT_HZ 1193182ull

struct pit; /* devices/timer/pit.c: ports 40h-43h, 61h */
struct pit *pit_new(struct board *board, struct irq_line irq0);

struct rtc; /* devices/timer/rtc.c: ports 70h, 71h */
struct rtc_config {
    bool fixed; /* -rtc base=DATE: show `seconds` at power-on; else the clock's wall time plus */
    int64_t seconds; /* `seconds`: 0 for base=utc, the zone's offset for base=localtime */
};
struct rtc *rtc_new(struct board *board, const struct rtc_config *config, struct irq_line irq8);
/* The CMOS bytes firmware leaves for the guest: memory sizes, boot order. Index 0Eh-7Fh. Survive a
 * reset. Index 32h is the century and belongs to the clock. */
void rtc_cmos_set(struct rtc *rtc, unsigned index, uint8_t value);
uint8_t rtc_cmos_get(struct rtc *rtc, unsigned index);
/* Bytes 15h-18h, 30h-31h, 34h-35h, 5Bh-5Dh from the RAM below and above 4 GiB, as QEMU's pc does.
 */
void rtc_cmos_set_memory(struct rtc *rtc, uint64_t below_4g, uint64_t above_4g);

#define ACPI_PM_TIMER_HZ 3579545ull

/* devices/timer/acpi_pm.c: PIIX4's power management block and the SMI command port B2h, without
 * SMM. Offsets in the block: 0 PM1_STS, 2 PM1_EN, 4 PM1_CNT, 8 PM_TMR. \_S5 is SLP_TYP 0. */
struct acpi_pm;
struct acpi_pm_config {
    uint16_t pm_base;  /* 64 ports; 0 = off until acpi_pm_set_base() */
    uint16_t gpe_base; /* 4 ports: GPE0_STS, GPE0_EN, 16 bits each; 0 = none. QEMU: AFE0h */
    bool acpi_mode;    /* SCI_EN set from the start: no firmware will hand over by ACPI_ENABLE */
};
enum { ACPI_ENABLE_CMD = 0xf1, ACPI_DISABLE_CMD = 0xf0 }; /* FADT, written to port B2h */
struct acpi_pm *acpi_pm_new(struct board *board, const struct acpi_pm_config *config,
                            struct irq_line sci);
void acpi_pm_set_base(struct acpi_pm *pm, uint16_t base); /* PIIX4 function 3's PMBA moves it */
void acpi_pm_power_button(struct acpi_pm *pm);
/* Event bit 0-15 of GPE0 happened (hot plug and the like). */
void acpi_pm_gpe(struct acpi_pm *pm, unsigned bit);

/* devices/timer/hpet.c: three comparators at 100 MHz, FSB interrupts, legacy replacement (in which
 * it takes GSI 0 and 8 over from the PIT and the RTC). */
struct hpet;
#define HPET_BASE 0xfed00000ull
struct hpet *hpet_new(struct board *board, struct gsi *gsi, struct msi_port msi, struct error *err);

/* ---- Ports ----------------------------------------------------------------------------------- */

/* 16550A (devices/misc/serial.c). COM1-4: 3F8h/4, 2F8h/3, 3E8h/4, 2E8h/3. */
struct serial;
struct serial_config {
    uint16_t base;
    struct irq_line irq;
    struct chardev *chr; /* NULL: nothing is connected; what is sent vanishes */
    /* MCR.OUT2 switches the interrupt, as on a PC's adapter card. QEMU's does not, and teaching
     * kernels (xv6) rely on that: leave it false for the `pc` contract. */
    bool out2_gates_irq;
};
struct serial *serial_new(struct board *board, const struct serial_config *config);

struct debugcon; /* devices/misc/debugcon.c: writes go to chr; reads give E9h */
struct debugcon *debugcon_new(struct board *board, uint16_t base, struct chardev *chr);

struct debug_exit; /* devices/misc/debug_exit.c: a write ends the machine with (value << 1) | 1 */
struct debug_exit *debug_exit_new(struct board *board, uint16_t base, unsigned size);

struct pvpanic; /* devices/misc/pvpanic.c. QEMU: 505h */
struct pvpanic *pvpanic_new(struct board *board, uint16_t base);

/* `a20` lines: the level this chip asks for; the machine ORs port 92h's and the i8042's. Both start
 * high. A reset is board->shutdown(BOARD_RESET). (Port CF9h is the PIIX3's: pci.h.) */
struct port92; /* devices/misc/port92.c: A20 and fast reset */
struct port92 *port92_new(struct board *board, struct irq_line a20);
/* devices/input/i8042.c: the PS/2 controller with keyboard and mouse; ports 60h, 64h. */
struct i8042;
struct i8042 *i8042_new(struct board *board, struct irq_line irq1, struct irq_line irq12,
                        struct irq_line a20);
struct input *i8042_input(struct i8042 *i8042); /* the way to them (input.h) */

/* devices/misc/i8237.c: the two DMA controllers; ports 00h-0Fh, C0h-DFh, 80h-8Fh. Channels 0-3 move
 * bytes, 5-7 words. */
struct dma;
enum { ISA_DMA_DEVICE = 1 << 3 /* as initiator: the ISA bridge's devfn */ };
struct dma *dma_new(struct board *board);
/* A device moves up to `len` bytes between buf and memory, in the direction that the guest gave the
 * channel (verify: none). Returns how many it could, 0 while the channel is masked; *tc: with the
 * last one the count ran out. */
unsigned dma_transfer(struct dma *dma, unsigned channel, void *buf, unsigned len, bool *tc);
/* ready() is called when the guest has changed something and the channel is open now. */
void dma_connect(struct dma *dma, unsigned channel, void (*ready)(void *opaque), void *opaque);

/* devices/misc/fdc.c: the floppy controller, an 82078 in AT mode, with two drives; ports 3F1h-3F5h,
 * 3F7h; DMA channel 2. */
struct fdc;
struct blockdev;
struct fdc_config {
    struct blockdev *drives[2]; /* the disks; NULL: there is no such drive */
};
struct fdc *fdc_new(struct board *board, struct dma *dma, const struct fdc_config *config,
                    struct irq_line irq6, struct error *err);
/* What CMOS 10h says of a drive: 0 none, 1 360K, 2 1.2M, 3 720K, 4 1.44M, 5 2.88M. */
uint8_t fdc_drive_type(const struct fdc *fdc, unsigned drive);
/* Another disk in drive 0 or 1, or none (NULL). The old one may have a request, for which nobody
 * waits any more. */
bool fdc_change(struct fdc *fdc, unsigned drive, struct blockdev *image, struct error *err);

/* devices/misc/fpu_error.c: FERR# to IRQ 13, released by a write to port F0h. The CPUs' ferr lines.
 */
struct fpu_error;
struct fpu_error *fpu_error_new(struct board *board, struct irq_line irq13);
struct irq_line fpu_error_line(struct fpu_error *fpu);

#endif
