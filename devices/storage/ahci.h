/*
 * ahci.h - the state of an AHCI controller, shared by ahci.c (registers) and ahci_port.c
 * (commands). Private to devices/storage. Sections are those of "Serial ATA AHCI 1.3.1".
 */
#ifndef STORAGE_AHCI_H
#define STORAGE_AHCI_H

#include "ata.h"

#define AHCI_SLOTS        32
#define AHCI_NO_SLOT      0xff
#define AHCI_SSTS_PRESENT 0x113 /* a device, 1.5 Gb/s, active */

/* 3.3, port registers, by offset */
enum ahci_port_register {
    PX_CLB = 0x00,
    PX_CLBU = 0x04,
    PX_FB = 0x08,
    PX_FBU = 0x0c,
    PX_IS = 0x10,
    PX_IE = 0x14,
    PX_CMD = 0x18,
    PX_TFD = 0x20,
    PX_SIG = 0x24,
    PX_SSTS = 0x28,
    PX_SCTL = 0x2c,
    PX_SERR = 0x30,
    PX_SACT = 0x34,
    PX_CI = 0x38,
    PX_SNTF = 0x3c,
};
/* 3.3.5: PxIS */
enum ahci_interrupt {
    IS_DHRS = 1 << 0,  /* register FIS from the device */
    IS_PSS = 1 << 1,   /* PIO setup FIS */
    IS_SDBS = 1 << 3,  /* set device bits FIS */
    IS_DPS = 1 << 5,   /* a descriptor with I has been used up */
    IS_OFS = 1 << 24,  /* more data than the descriptors take */
    IS_IFS = 1 << 27,  /* interface fatal error */
    IS_HBDS = 1 << 28, /* host bus: data */
    IS_HBFS = 1 << 29, /* host bus: structures */
    IS_TFES = 1 << 30, /* the command failed */
};
/* 3.3.7: PxCMD */
enum ahci_command {
    CMD_ST = 1 << 0,
    CMD_SUD = 1 << 1,
    CMD_POD = 1 << 2,
    CMD_CLO = 1 << 3,
    CMD_FRE = 1 << 4,
    CMD_CCS_SHIFT = 8,
    CMD_FR = 1 << 14,
    CMD_CR = 1 << 15,
    CMD_WRITABLE = 0x0f000011 | 1 << 24, /* ICC, DLAE ... ATAPI, FRE, ST */
};

/* Where the data of each slot's command lie: its descriptors, and how far they have been used. */
struct ahci_slots {
    uint64_t header[AHCI_SLOTS], table[AHCI_SLOTS];
    uint32_t moved[AHCI_SLOTS]; /* PRDBC */
    uint32_t in_entry[AHCI_SLOTS];
    uint16_t entries[AHCI_SLOTS], entry[AHCI_SLOTS];
};

struct ahci;

struct ahci_port {
    struct ahci *ahci;
    struct ata_host host;
    uint32_t clb, clbu, fb, fbu, is, ie, cmd, tfd, sig, ssts, sctl, serr, sact, ci;
    uint32_t queued; /* slots whose queued commands the drive has */
    uint8_t slot;    /* of the command that runs and is not queued; AHCI_NO_SLOT */
    uint8_t halted;  /* after an error, until ST is cleared */
    uint8_t pio_in;  /* the command's last data came by PIO: no register FIS follows */
    uint8_t issuing;
    uint8_t acmd[16]; /* the command packet */
    struct ahci_slots slots;
};

struct ahci {
    struct pci_device pci;
    uint32_t ghc, is;
    uint32_t index; /* of the index and data pair in BAR 4 */
    struct ahci_port ports[AHCI_PORTS];
};

/* ahci.c: PxIS has gained these bits. */
void ahci_event(struct ahci_port *port, uint32_t bits);

/* ahci_port.c */
extern const struct ata_host_ops ahci_host_ops;
/* Starts what PxCI asks for and the drive is ready for. */
void ahci_issue(struct ahci_port *port);
/* ST was cleared: no command is remembered. */
void ahci_stop(struct ahci_port *port);

#endif
