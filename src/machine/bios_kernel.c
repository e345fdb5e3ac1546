/*
 * bios_kernel.c - -kernel for a machine that starts with firmware: the kernel's parts by fw_cfg,
 * for OVMF, which knows what to do with them, and for SeaBIOS an option ROM that does it.
 */
#include "internal/fw_cfg.h"
#include "pc.h"
#include <string.h>

#define ROM_FILE "genroms/bailey-kernel.bin"

/* fw_cfg's keys for a part: address (0: it has none), size, bytes. */
struct part {
    uint16_t address_key, size_key, data_key;
    uint32_t address, size;
    const void *bytes;
};

static bool add_part(struct machine *m, const struct part *p, struct error *err)
{
    return fw_cfg_add_number(m->fw_cfg, p->address_key, p->address, 4, err) &&
           fw_cfg_add_number(m->fw_cfg, p->size_key, p->size, 4, err) &&
           fw_cfg_add(m->fw_cfg, p->data_key, p->bytes, p->size, err);
}

bool bios_add_kernel(struct machine *m, struct error *err)
{
    struct boot_handover h;
    uint8_t rom[FIRMWARE_KERNEL_ROM];
    if (!m->image)
        return true;
    if (!boot_image_hand_over(m->image, m->firmware.ram_low, &h, err))
        return false;
    const struct part parts[] = {
        {FW_CFG_KERNEL_ADDR, FW_CFG_KERNEL_SIZE, FW_CFG_KERNEL_DATA, h.kernel_address,
         h.kernel_size, h.kernel},
        {FW_CFG_INITRD_ADDR, FW_CFG_INITRD_SIZE, FW_CFG_INITRD_DATA, h.initrd_address,
         h.initrd_size, h.initrd},
        {FW_CFG_CMDLINE_ADDR, FW_CFG_CMDLINE_SIZE, FW_CFG_CMDLINE_DATA, h.cmdline_address,
         h.cmdline_size, h.cmdline},
        {FW_CFG_SETUP_ADDR, FW_CFG_SETUP_SIZE, FW_CFG_SETUP_DATA, h.setup_address, h.setup_size,
         h.setup},
    };
    bool ok = true;
    for (unsigned i = 0; ok && i < sizeof(parts) / sizeof(parts[0]); i++)
        ok = add_part(m, &parts[i], err);
    boot_handover_free(&h);
    firmware_kernel_rom(rom);
    return ok && fw_cfg_add_file(m->fw_cfg, ROM_FILE, rom, sizeof(rom), err);
}

const char *bios_kernel_path(const struct machine *m)
{
    return m->image ? "/rom@" ROM_FILE : NULL;
}
