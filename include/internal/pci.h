/*
 * pci.h - the PCI bus of the `pc` machine: what a PCI device is made of, and the three Intel chips.
 *
 * One bus, conventional PCI 3.0 (configuration mechanism #1, type-0 headers, INTx, MSI-X). All
 * functions are called with the machine lock held, or before the machine runs.
 *
 * What the machine does:
 *
 *     struct pci_bus *bus = i440fx_create(board, &msi, &err);             // 00:00.0
 *     struct pci_device *isa = piix3_create(bus, isa_irq_lines, &err);    // 00:01.0
 *     struct pci_device *pm = piix4_pm_create(bus, 0x600, &err);          // 00:01.3
 *     struct pci_device *disk = virtio_blk_create(bus, PCI_FIRST_FREE, &options, &err);
 *     add &bus->host->dev, &isa->dev, &pm->dev, &disk->dev to its device list, in this order;
 *     pci_assign_resources(bus, 0xe0000000, 0xfec00000, &err);            // no firmware: after
 * each reset destroy in reverse order: the bus goes with its host bridge, last.
 */
#ifndef INTERNAL_PCI_H
#define INTERNAL_PCI_H

#include "internal/device.h"

struct error;
struct pci_bus;
struct pci_device;

#define PCI_DEVFN(slot, function) ((slot) << 3 | (function))
#define PCI_FIRST_FREE            (-1) /* as devfn: function 0 of the first free slot from 3 on */
#define PCI_CONFIG_SIZE           256
#define PCI_BARS                  6
#define PCI_ROM                   PCI_BARS /* index of the expansion ROM's address register */
#define PCI_REGIONS               (PCI_BARS + 1)
#define MSIX_MAX_VECTORS          16

/* Configuration space, PCI Local Bus Specification 3.0, chapter 6. */
enum pci_config {
    PCI_VENDOR_ID = 0x00,
    PCI_DEVICE_ID = 0x02,
    PCI_COMMAND = 0x04,
    PCI_STATUS = 0x06,
    PCI_REVISION_ID = 0x08,
    PCI_CLASS_PROG = 0x09, /* programming interface; subclass and class follow */
    PCI_CACHE_LINE_SIZE = 0x0c,
    PCI_LATENCY_TIMER = 0x0d,
    PCI_HEADER_TYPE = 0x0e,
    PCI_BAR0 = 0x10,
    PCI_SUBSYSTEM_VENDOR_ID = 0x2c,
    PCI_SUBSYSTEM_ID = 0x2e,
    PCI_ROM_ADDRESS = 0x30,
    PCI_CAPABILITY_LIST = 0x34,
    PCI_INTERRUPT_LINE = 0x3c,
    PCI_INTERRUPT_PIN = 0x3d,
};
enum pci_command {
    PCI_COMMAND_IO = 1 << 0,
    PCI_COMMAND_MEMORY = 1 << 1,
    PCI_COMMAND_MASTER = 1 << 2,
    PCI_COMMAND_PARITY = 1 << 6,
    PCI_COMMAND_SERR = 1 << 8,
    PCI_COMMAND_INTX_DISABLE = 1 << 10,
};
enum pci_rom { PCI_ROM_ENABLE = 1 << 0 };
enum pci_status {
    PCI_STATUS_INTERRUPT = 1 << 3,
    PCI_STATUS_CAP_LIST = 1 << 4,
};
enum pci_capability {
    PCI_CAP_ID_MSI = 0x05,
    PCI_CAP_ID_VENDOR = 0x09,
    PCI_CAP_ID_MSIX = 0x11,
    PCI_CAP_ID_SATA = 0x12,
};

enum pci_bar_kind { PCI_BAR_NONE, PCI_BAR_IO, PCI_BAR_MEM32, PCI_BAR_MEM64, PCI_BAR_ROM };

/* What lies behind a base address register, and where it is decoded now. */
struct pci_bar {
    enum pci_bar_kind kind;
    bool mapped;
    int handle;              /* of io_add(), phys_add_mmio() or phys_map_block(), while mapped */
    uint64_t base;           /* while mapped */
    uint64_t size;           /* a power of two; memory at least 4096, I/O 4 to 256 */
    struct ram_block *block; /* memory; NULL: registers */
    const struct io_ops *ops;
    void *opaque;
    const char *name;
};

/* MSI-X (PCI 3.0, 6.8.2): 16 bytes of table per vector, one pending bit each. */
struct msix {
    uint8_t capability; /* its offset in configuration space; 0: the device has none */
    uint8_t vectors;
    uint8_t table[MSIX_MAX_VECTORS * 16];
    uint64_t pending;
};

/* The head of every PCI device's struct. */
struct pci_device {
    struct device dev;
    struct pci_bus *bus;
    uint8_t devfn;
    uint8_t config[PCI_CONFIG_SIZE];
    uint8_t writable[PCI_CONFIG_SIZE]; /* bits that the guest may change */
    uint8_t initial[PCI_CONFIG_SIZE];  /* contents after reset, noted by pci_device_add() */
    uint8_t capability_end;            /* first byte free for pci_add_capability() */
    uint8_t intx;                      /* level that the device asks for */
    bool intx_driven;                  /* level that the bus sees: intx, not disabled, no MSI(-X) */
    struct pci_bar bars[PCI_REGIONS];
    struct msix msix;
    uint8_t msi; /* offset of the MSI capability; 0: the device has none */
    /* After the guest changed [offset, offset + size) and the bus has acted on it. May be NULL. */
    void (*config_written)(struct pci_device *dev, unsigned offset, unsigned size);
    /* Bus mastering was on and is off: when this returns, the host has let go of the guest's memory
     * (pci_dma_lend()). NULL: it never has any. */
    void (*master_off)(struct pci_device *dev);
    /* Before the guest reads [offset, offset + size): bring config[] up to date. May be NULL. */
    void (*config_read)(struct pci_device *dev, unsigned offset, unsigned size);
};

/* The saved state that all PCI devices share: to be put into the field list of `struct st`, whose
 * member `member` is the struct pci_device. */
#define PCI_DEVICE_FIELDS(st, member)                                                              \
    FIELD_ARRAY(st, member.config, FIELD_BYTES, 1), FIELD(st, member.intx, FIELD_U8, 1),           \
        FIELD_ARRAY(st, member.msix.table, FIELD_BYTES, 1),                                        \
        FIELD(st, member.msix.pending, FIELD_U64, 1)

struct pci_identity {
    uint16_t vendor, device, subsystem_vendor, subsystem;
    uint8_t revision;
    uint32_t class_code; /* 24 bits: class, subclass, programming interface */
};

/* ---- For devices ---------------------------------------------------------------------------- */

/* A fresh header: identity, a command register with the bits that any device has. */
void pci_device_init(struct pci_device *dev, const struct pci_identity *identity);
/* Declares a BAR. A MEM64 takes `index` and the one after it. */
void pci_set_bar(struct pci_device *dev, unsigned index, enum pci_bar_kind kind, uint64_t size,
                 const struct io_ops *ops, void *opaque, const char *name);
/* A MEM32 BAR behind which is memory of the device's own, prefetchable. */
void pci_set_memory_bar(struct pci_device *dev, unsigned index, uint64_t size,
                        struct ram_block *block, const char *name);
/* The expansion ROM (6.2.5.2): `block` from phys_rom_new(), a power of two of at least 4 KiB. */
void pci_set_rom(struct pci_device *dev, uint64_t size, struct ram_block *block, const char *name);
/* Where the register of BAR `index`, or of PCI_ROM, lies in configuration space. */
unsigned pci_bar_register(unsigned index);
/* Appends to the capabilities list; returns the offset of the new one, whose first two bytes are
 * filled in. The rest is zero and read-only until the device says otherwise. */
unsigned pci_add_capability(struct pci_device *dev, uint8_t id, unsigned size);
/* Gives the device MSI-X in a 4-KiB memory BAR of its own. Before pci_device_add(). */
void msix_init(struct pci_device *dev, unsigned bar, unsigned vectors);
/* Plugs it in. `devfn` may be PCI_FIRST_FREE. What config[] holds now is what a reset restores. */
bool pci_device_add(struct pci_bus *bus, struct pci_device *dev, int devfn, struct error *err);
/* Unmaps its BARs, drops its interrupt and takes it off the bus. */
void pci_device_remove(struct pci_device *dev);
/* Bus reset as this device sees it: configuration space, BARs, INTx and MSI-X. */
void pci_device_reset(struct pci_device *dev);
/* After the fields were set from a saved state: map BARs and drive INTx accordingly. */
void pci_device_restored(struct pci_device *dev);
/* What the bus and msix.c tell each other: the levels or enables behind INTx, or MSI-X, changed. */
void pci_update_intx(struct pci_device *dev);
void msix_reset(struct pci_device *dev);
void msix_control_changed(struct pci_device *dev);

/* INTA# as the device drives it; interrupt disable and MSI-X are seen to here. */
void pci_set_intx(struct pci_device *dev, bool level);
bool msix_enabled(const struct pci_device *dev);
/* Sends vector's message, or makes it pending while masked. Vectors out of range do nothing. */
void msix_notify(struct pci_device *dev, unsigned vector);

/* MSI with one vector (PCI 3.0, 6.8.1): before pci_device_add(); then its message, if enabled. */
void msi_init(struct pci_device *dev);
bool msi_enabled(const struct pci_device *dev);
void msi_notify(struct pci_device *dev);

bool pci_bus_master(const struct pci_device *dev);
/* DMA, through phys_read()/phys_write() with the device as initiator. False, with nothing
 * transferred: bus mastering is off, or the range is not all RAM or ROM (no device here does
 * peer-to-peer transfers, so no device ever re-enters another through DMA), or a rule refused. */
bool pci_dma_read(struct pci_device *dev, uint64_t gpa, void *buf, size_t len);
bool pci_dma_write(struct pci_device *dev, uint64_t gpa, const void *buf, size_t len);
/* Bus mastering is on and all of the range is RAM or ROM: what fails then was refused by a rule. */
bool pci_dma_possible(const struct pci_device *dev, uint64_t gpa, size_t len);

/* A loan of the guest's memory for the device (phys.h), NULL: bus mastering is off, or no host
 * memory. */
struct phys_loan *pci_dma_lend(struct pci_device *dev, bool to_memory, unsigned pieces);

/* Little-endian fields of configuration space. */
uint16_t pci_get16(const struct pci_device *dev, unsigned offset);
uint32_t pci_get32(const struct pci_device *dev, unsigned offset);
void pci_put16(struct pci_device *dev, unsigned offset, uint16_t value);
void pci_put32(struct pci_device *dev, unsigned offset, uint32_t value);

/* ---- The bus -------------------------------------------------------------------------------- */

struct pci_bus {
    struct board *board;
    struct msi_port msi;
    struct pci_device *host; /* 00:00.0; owns the bus */
    struct pci_device *devices[256];
    unsigned pirq_count[4]; /* devices that pull PIRQ A to D */
    /* Set by the ISA bridge: level of PIRQ `pirq` (0-3) changed. */
    void (*pirq_changed)(void *opaque, unsigned pirq, bool level);
    /* Port CF9h lies inside the address register's dword: bytes there are the ISA bridge's. */
    uint8_t (*reset_control_read)(void *opaque);
    void (*reset_control_write)(void *opaque, uint8_t value);
    void *bridge;
    uint32_t address; /* CONFIG_ADDRESS, port CF8h */
    int handle;       /* of ports CF8h-CFFh */
};

/* The PIRQ (0-3) that pin INTA#-INTD# (0-3) of a slot is wired to on this board. */
unsigned pci_pirq(uint8_t devfn, unsigned pin);
/* What the CPU-side ports do: one access to configuration space, size 1, 2 or 4, not crossing a
 * dword. No device: reads all ones. */
uint32_t pci_config_read(struct pci_bus *bus, uint8_t devfn, unsigned offset, unsigned size);
void pci_config_write(struct pci_bus *bus, uint8_t devfn, unsigned offset, unsigned size,
                      uint32_t value);

/* What firmware does, for machines that start without one: memory BARs from mem_end downwards but
 * not below mem_start, I/O BARs from C000h up, decoding enabled, PIRQ A-D to IRQ 10, 10, 11, 11,
 * those level-triggered in the ELCR, interrupt lines filled in (9 for the PM function). Bus
 * mastering is left to the driver. */
bool pci_assign_resources(struct pci_bus *bus, uint64_t mem_start, uint64_t mem_end,
                          struct error *err);

/* ---- The chips ------------------------------------------------------------------------------ */

/* 82441FX host bridge 8086:1237 at 00:00.0, with the bus and ports CF8h-CFFh. */
struct pci_bus *i440fx_create(struct board *board, const struct msi_port *msi, struct error *err);
/* Gives the bridge what its PAM registers switch at C0000h-FFFFFh: `ram`, whose offsets are
 * addresses, and the end of the system BIOS, a phys_rom_new() block (NULL: there is none). */
bool i440fx_connect_memory(struct pci_bus *bus, struct ram_block *ram, struct ram_block *bios,
                           uint64_t bios_size, struct error *err);
/* RAM at E0000h-FFFFFh, for machines that start without firmware. */
void i440fx_open_shadow(struct pci_bus *bus);
/* 82371SB PCI-to-ISA bridge 8086:7000 at 00:01.0: PIRQ routing (60h-63h), reset control (CF9h).
 * irqs[n] is a driver of ISA interrupt n, heard by the PIC and by I/O APIC pin n. The bridge drives
 * each with the OR of the PIRQs routed there; who else drives that interrupt must be OR'ed with it
 * by the machine. */
struct pci_device *piix3_create(struct pci_bus *bus, const struct irq_line irqs[16],
                                struct error *err);
/* The configuration space of the 82371AB's power-management function 8086:7113 at 00:01.3. The
 * registers themselves are another chip's: it is told where they are decoded now; 0: nowhere. */
struct piix4_pm_port {
    void (*moved)(void *opaque, uint16_t base);
    void *opaque;
};
struct pci_device *piix4_pm_create(struct pci_bus *bus, const struct piix4_pm_port *port,
                                   struct error *err);
/* Registers at `base`, as firmware would put them. */
void piix4_pm_decode(struct pci_bus *bus, uint16_t base);

#endif
