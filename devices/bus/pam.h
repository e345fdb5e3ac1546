/*
 * pam.h - shadow RAM: which of RAM and ROM C0000h-FFFFFh shows, by the host bridge's PAM registers.
 * Private to devices/bus.
 */
#ifndef BUS_PAM_H
#define BUS_PAM_H

#include "internal/phys.h"

enum { PAM_SEGMENTS = 13, PAM_REGISTERS = 7, PAM_BIOS_SEGMENTS = 5 };

struct pam;

struct pam_segment {
    struct pam *pam;
    uint32_t gpa, size;
    uint8_t attributes; /* as the memory map shows it: PAM_READ, PAM_WRITE */
    int ram;            /* handles of regions; -1: none */
    int rom;            /* the BIOS ROM; hears stores */
    int write_only;     /* where there is no ROM: nothing to read, RAM beneath to write */
};

struct pam {
    struct phys_map *map;
    struct ram_block *memory; /* RAM whose first byte is that of address 0 */
    bool connected;
    struct pam_segment segments[PAM_SEGMENTS];
};

/* Puts all segments' regions into the map, showing what attributes of zero mean. `bios` is the
 * system BIOS or NULL; its last 128 KiB (all, if it is shorter) end at 1 MiB. */
bool pam_init(struct pam *pam, struct phys_map *map, struct ram_block *ram, struct ram_block *bios,
              uint64_t bios_size, struct error *err);
/* The registers, PAM0 to PAM6, have changed. */
void pam_update(struct pam *pam, const uint8_t *registers);
void pam_fini(struct pam *pam);

#endif
