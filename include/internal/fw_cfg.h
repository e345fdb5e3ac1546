/*
 * fw_cfg.h - QEMU's firmware configuration device: how firmware learns of its machine.
 * QEMU, docs/specs/fw_cfg.rst.
 */
#ifndef INTERNAL_FW_CFG_H
#define INTERNAL_FW_CFG_H

#include "internal/device.h"

struct error;
struct fw_cfg;

enum fw_cfg_key {
    FW_CFG_SIGNATURE = 0x00, /* the device's own, like ID and FILE_DIR */
    FW_CFG_ID = 0x01,
    FW_CFG_UUID = 0x02,
    FW_CFG_RAM_SIZE = 0x03,    /* bytes, 64 bits */
    FW_CFG_NOGRAPHIC = 0x04,   /* 16 bits */
    FW_CFG_NB_CPUS = 0x05,     /* 16 bits */
    FW_CFG_KERNEL_ADDR = 0x07, /* 32 bits, as addresses and sizes all are; see *_DATA */
    FW_CFG_KERNEL_SIZE = 0x08,
    FW_CFG_INITRD_ADDR = 0x0a,
    FW_CFG_INITRD_SIZE = 0x0b,
    FW_CFG_BOOT_MENU = 0x0e, /* 16 bits */
    FW_CFG_MAX_CPUS = 0x0f,  /* 16 bits; APIC ids are below it */
    FW_CFG_KERNEL_DATA = 0x11,
    FW_CFG_INITRD_DATA = 0x12,
    FW_CFG_CMDLINE_ADDR = 0x13,
    FW_CFG_CMDLINE_SIZE = 0x14,
    FW_CFG_CMDLINE_DATA = 0x15,
    FW_CFG_SETUP_ADDR = 0x16,
    FW_CFG_SETUP_SIZE = 0x17,
    FW_CFG_SETUP_DATA = 0x18,
    FW_CFG_FILE_DIR = 0x19,
    FW_CFG_FILE_FIRST = 0x20,
    FW_CFG_LOCAL = 0x8000, /* of this architecture */
};

enum { FW_CFG_NAME_MAX = 55, FW_CFG_FILES_MAX = 64, FW_CFG_PORT = 0x510 };

/* Ports 510h-51Bh. DMA has the initiator's `device` 0: it is on no bus that could name it. */
struct fw_cfg *fw_cfg_new(struct board *board);

/* Items are copied, and stay through resets. Numbers are stored little-endian. False: no memory, or
 * no room. */
bool fw_cfg_add(struct fw_cfg *cfg, uint16_t key, const void *bytes, size_t len, struct error *err);
bool fw_cfg_add_number(struct fw_cfg *cfg, uint16_t key, uint64_t value, unsigned bytes,
                       struct error *err);
/* Adds a file, or gives the one of that name new contents. */
bool fw_cfg_add_file(struct fw_cfg *cfg, const char *name, const void *bytes, size_t len,
                     struct error *err);
bool fw_cfg_has_file(struct fw_cfg *cfg, const char *name);
/* Called when firmware selects the directory: contents that depend on what it has programmed into
 * chips by then are added anew. With the machine lock held. */
void fw_cfg_on_directory(struct fw_cfg *cfg, void (*fn)(void *opaque), void *opaque);

#endif
