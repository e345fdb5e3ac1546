/*
 * linux.h - the header of a Linux kernel (Documentation/arch/x86/boot.rst and zero-page.rst), for
 * the two ways to start one. Private to src/loader.
 */
#ifndef LOADER_LINUX_H
#define LOADER_LINUX_H

#include "image.h"

/* Offsets in the file, which are those in the zero page. */
enum {
    ZP_EXT_MEM_K = 0x002,
    ZP_VIDEO_MODE = 0x006, /* screen_info, with what follows */
    ZP_VIDEO_COLS = 0x007,
    ZP_VIDEO_EGA_BX = 0x00a,
    ZP_VIDEO_LINES = 0x00e,
    ZP_VIDEO_IS_VGA = 0x00f,
    ZP_VIDEO_POINTS = 0x010,
    ZP_OLD_CL_MAGIC = 0x020,
    ZP_OLD_CL_OFFSET = 0x022,
    ZP_RSDP = 0x070,
    ZP_ALT_MEM_K = 0x1e0,
    ZP_E820_ENTRIES = 0x1e8,
    HDR_START = 0x1f1,
    HDR_SETUP_SECTS = 0x1f1,
    HDR_SYSSIZE = 0x1f4,
    HDR_VID_MODE = 0x1fa,
    HDR_BOOT_FLAG = 0x1fe,
    HDR_JUMP = 0x200,
    HDR_MAGIC = 0x202,
    HDR_VERSION = 0x206,
    HDR_LOADER = 0x210,
    HDR_LOADFLAGS = 0x211, /* bits below */
    HDR_CODE32_START = 0x214,
    HDR_RAMDISK_IMAGE = 0x218,
    HDR_RAMDISK_SIZE = 0x21c,
    HDR_HEAP_END = 0x224,
    HDR_CMD_LINE_PTR = 0x228,
    HDR_INITRD_ADDR_MAX = 0x22c,
    HDR_KERNEL_ALIGNMENT = 0x230,
    HDR_RELOCATABLE = 0x234,
    HDR_MIN_ALIGNMENT = 0x235,
    HDR_XLOADFLAGS = 0x236,
    HDR_CMDLINE_SIZE = 0x238,
    HDR_PAYLOAD_OFFSET = 0x248,
    HDR_PAYLOAD_LENGTH = 0x24c,
    HDR_PREF_ADDRESS = 0x258,
    HDR_INIT_SIZE = 0x260,
    HDR_END = 0x290, /* the header may not reach what follows it in the zero page */
    ZP_E820_TABLE = 0x2d0,
    ZP_E820_MAX = 128,
    ZP_SIZE = 0x1000,
};
/* HDR_LOADFLAGS. */
enum { LOADED_HIGH = 0x01, CAN_USE_HEAP = 0x80 };
/* HDR_LOADER: a loader without a number of its own. */
#define LOADER_UNDEFINED 0xff

/* Bytes before the protected-mode kernel: a boot sector and the setup code; 0 sectors means 4. */
static inline uint32_t linux_setup_size(const uint8_t *header)
{
    unsigned sectors = header[HDR_SETUP_SECTS];
    return ((sectors ? sectors : 4) + 1) * 512;
}

#endif
