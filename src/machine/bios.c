/*
 * bios.c - machines that start with a firmware image: where the image comes from, where it lies,
 * and what it is told of the machine (fw_cfg, CMOS).
 *
 * The image ends at 4 GiB, where a processor begins after a reset; its last 128 KiB show below
 * 1 MiB, too, until the host bridge's PAM registers put RAM there (devices/bus/pam.c). Chips are
 * left as a reset leaves them: programming them is the firmware's work.
 */
#include "internal/flash.h"
#include "internal/fw_cfg.h"
#include "pc.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ROM_UNIT = 64 << 10, ROM_MAX = 16 << 20 };

#define DEFAULT_BIOS "bios-256k.bin"
#define END_OF_4G    (1ull << 32)

/* The chips that hold firmware, by their units; how many. A chip 1 is nothing without a chip 0. */
static unsigned flash_drives(const struct machine_config *c, unsigned drives[MACHINE_MAX_DRIVES])
{
    unsigned n = 0;
    for (unsigned unit = 0; unit == n; unit++)
        for (unsigned i = 0; i < c->drive_count; i++)
            if (c->drives[i].interface == DRIVE_PFLASH && c->drives[i].unit == unit)
                drives[n++] = i;
    return n;
}

bool bios_wanted(const struct machine_config *c)
{
    unsigned drives[MACHINE_MAX_DRIVES];
    return c->bios || flash_drives(c, drives) ||
           (!c->kernel && (c->boot.given || c->drive_count > 0));
}

/* ---- The image ------------------------------------------------------------------------------- */

/* Where Debian's packages put firmware, after the folders of -L. */
static const char *const folders[] = {"/usr/share/seabios", "/usr/share/qemu", "/usr/share/ovmf",
                                      "/usr/share/OVMF"};

static int try_folder(const char *folder, const char *name, char path[4096])
{
    if (snprintf(path, 4096, "%s/%s", folder, name) >= 4096)
        return -1;
    return open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
}

/* An image named by a path, or by a name to be looked for. Its descriptor and path. */
static int find_image(const struct machine_config *c, const char *name, char path[4096],
                      struct error *err)
{
    snprintf(path, 4096, "%s", name);
    int fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    for (unsigned i = 0; fd < 0 && !strchr(name, '/') && i < c->folder_count; i++)
        fd = try_folder(c->folders[i], name, path);
    for (unsigned i = 0; fd < 0 && !strchr(name, '/') && i < sizeof(folders) / sizeof(*folders);
         i++)
        fd = try_folder(folders[i], name, path);
    if (fd >= 0)
        return fd;
    error_set(err, "firmware '%s': %s%s", name, strerror(errno),
              c->bios ? "" : " (Debian's package seabios has it; -L names another folder)");
    return -1;
}

static bool read_all(int fd, uint8_t *to, size_t len)
{
    while (len > 0) {
        ssize_t n = read(fd, to, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        to += n;
        len -= (size_t)n;
    }
    return true;
}

static bool load_image(struct machine *m, int fd, const char *path, struct error *err)
{
    struct stat st;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return error_set(err, "firmware '%s': is not a file", path);
    if (st.st_size <= 0 || st.st_size % ROM_UNIT || st.st_size > ROM_MAX)
        return error_set(err,
                         "firmware '%s': %lld bytes; firmware images are multiples of 64 KiB, "
                         "and 16 MiB at most",
                         path, (long long)st.st_size);
    m->bios_size = (uint64_t)st.st_size;
    m->bios = phys_rom_new(m->map, m->bios_size, NULL, 0, err);
    if (!m->bios)
        return error_prefix(err, "firmware '%s'", path);
    if (!read_all(fd, phys_block_bytes(m->bios), m->bios_size))
        return error_set(err, "firmware '%s': cannot be read", path);
    return true;
}

static bool check_image(const char *path, struct ram_block *block, uint64_t size, struct error *err)
{
    return !bios_needs_smm(phys_block_bytes(block), size) ||
           error_set(err,
                     "firmware '%s': needs system management mode (secure boot does), which this "
                     "machine lacks; Debian's OVMF_CODE_4M.fd does without",
                     path);
}

bool bios_open(struct machine *m, struct error *err)
{
    unsigned drives[MACHINE_MAX_DRIVES];
    char path[4096];
    m->bios_boot = true;
    if (flash_drives(m->config, drives)) /* bios_build() */
        return !m->config->bios ||
               error_set(err, "-bios and -pflash: the firmware can come from one of them only");
    int fd = find_image(m->config, m->config->bios ? m->config->bios : DEFAULT_BIOS, path, err);
    if (fd < 0)
        return false;
    bool ok = load_image(m, fd, path, err) && check_image(path, m->bios, m->bios_size, err);
    close(fd);
    return ok && phys_map_block(m->map, END_OF_4G - m->bios_size, m->bios_size, m->bios, 0,
                                "firmware", err) >= 0;
}

/* The first chip ends at 4 GiB, the next ends where that begins. */
bool bios_build(struct machine *m, struct error *err)
{
    unsigned drives[MACHINE_MAX_DRIVES], count = flash_drives(m->config, drives);
    uint64_t end = END_OF_4G;
    for (unsigned i = 0; i < m->config->drive_count && !count; i++)
        if (m->config->drives[i].interface == DRIVE_PFLASH)
            return error_set(err, "-drive if=pflash,unit=1: there is no unit=0, which would hold "
                                  "the firmware");
    for (unsigned i = 0; i < count; i++) {
        struct blockdev *image = m->disks[drives[i]];
        uint64_t size = blockdev_size(image);
        if (size % FLASH_SECTOR || size > ROM_MAX - (END_OF_4G - end))
            return error_set(err,
                             "-pflash '%s': %llu bytes; flash is made of sectors of 4 KiB, and of "
                             "16 MiB at most, all chips together",
                             m->config->drives[drives[i]].file, (unsigned long long)size);
        struct flash *flash = flash_new(&m->board, image, end, err);
        if (!pc_own(m, flash, err))
            return false;
        end = flash_base(flash);
        if (i == 0) {
            m->bios = flash_block(flash);
            m->bios_size = size;
            if (!check_image(m->config->drives[drives[i]].file, m->bios, size, err))
                return false;
        }
    }
    return true;
}

/* ---- What it is told ------------------------------------------------------------------------- */

/* Numbers of devices as CMOS 3Dh and 38h have them: in what order to try them. */
static uint8_t boot_device(char letter)
{
    static const char letters[] = "acdn";
    const char *at = letter ? strchr(letters, letter) : NULL;
    return at ? (uint8_t)(at - letters + 1) : 0;
}

static void tell_boot_order(struct machine *m, const char *order)
{
    uint8_t device[3] = {0};
    for (unsigned i = 0; i < 3 && order[i]; i++)
        device[i] = boot_device(order[i]);
    rtc_cmos_set(m->rtc, 0x3d, (uint8_t)(device[1] << 4 | device[0]));
    rtc_cmos_set(m->rtc, 0x38, (uint8_t)(device[2] << 4 | 1)); /* no check of floppies' signature */
}

void bios_reset(struct machine *m)
{
    const struct boot_config *boot = &m->config->boot;
    tell_boot_order(m, boot->once && !m->booted_once ? boot->once
                       : boot->order                 ? boot->order
                                                     : "cad");
    m->booted_once = true;
}

static bool add_files(struct machine *m, struct error *err)
{
    struct firmware_files files;
    bool ok = firmware_files(&m->firmware, &files, err);
    for (unsigned i = 0; ok && i < files.count; i++)
        ok = fw_cfg_add_file(m->fw_cfg, files.file[i].name, files.file[i].bytes, files.file[i].len,
                             err);
    firmware_files_free(&files);
    m->told_pm_base = m->firmware.pm_base;
    return ok;
}

/* The tables name an address that firmware gives to a chip. It may ask for the directory dozens of
 * times: they are made anew only when that address has changed. */
static void directory_wanted(void *opaque)
{
    struct machine *m = opaque;
    struct error err;
    if (m->firmware.pm_base == m->told_pm_base)
        return;
    if (!add_files(m, &err))
        LOG(&m->log, LOG_GUEST_ERRORS, "fw_cfg: %s\n", err.msg);
}

static bool add_number_file(struct machine *m, const char *name, uint64_t value, unsigned bytes,
                            struct error *err)
{
    uint64_t little = value;
    return fw_cfg_add_file(m->fw_cfg, name, &little, bytes, err);
}

/* The device with the lowest bootindex above `after`, or NULL. */
static const struct device_config *next_to_boot(const struct machine_config *c, int after,
                                                struct error *err)
{
    const struct device_config *best = NULL;
    for (unsigned i = 0; i < c->device_count; i++) {
        const struct device_config *d = &c->devices[i];
        if (d->bootindex <= after || (best && d->bootindex > best->bootindex))
            continue;
        if (best && d->bootindex == best->bootindex) {
            error_set(err, "-device: bootindex=%d is given twice", d->bootindex);
            return NULL;
        }
        best = d;
    }
    return best;
}

/* "bootorder": a device's path on each line, a zero byte at the end. HALT: and nothing else. */
static bool add_boot_order(struct machine *m, struct error *err)
{
    const struct machine_config *c = m->config;
    char text[MACHINE_MAX_DEVICES * 128] = "", path[96];
    size_t len = 0;
    err->msg[0] = 0;
    if (bios_kernel_path(m))
        len = (size_t)snprintf(text, sizeof(text), "%s", bios_kernel_path(m));
    for (const struct device_config *d = NULL;
         (d = next_to_boot(c, d ? d->bootindex : -1, err)) != NULL;)
        if (storage_boot_path(m, d, path, sizeof(path)))
            len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%s", len ? "\n" : "", path);
    if (err->msg[0])
        return false;
    if (c->boot.strict)
        len += (size_t)snprintf(text + len, sizeof(text) - len, "%sHALT", len ? "\n" : "");
    return !len || fw_cfg_add_file(m->fw_cfg, "bootorder", text, len + 1, err);
}

static bool add_boot(struct machine *m, struct error *err)
{
    const struct boot_config *boot = &m->config->boot;
    return add_boot_order(m, err) &&
           fw_cfg_add_number(m->fw_cfg, FW_CFG_BOOT_MENU, boot->menu, 2, err) &&
           (!boot->menu_wait_given ||
            add_number_file(m, "etc/boot-menu-wait", boot->menu_wait, 2, err)) &&
           (!boot->fail_wait_given ||
            add_number_file(m, "etc/boot-fail-wait", boot->fail_wait, 4, err)) &&
           (!m->config->nographic || !m->firmware.has_serial[0] ||
            add_number_file(m, "etc/sercon-port", 0x3f8, 2, err));
}

/* The user's own files do not take the place of ours, which may be made anew at any time. */
static bool add_user_files(struct machine *m, struct error *err)
{
    const struct machine_config *c = m->config;
    for (unsigned i = 0; i < c->fw_file_count; i++) {
        const struct firmware_blob *file = &c->fw_files[i];
        if (fw_cfg_has_file(m->fw_cfg, file->name))
            return error_set(err,
                             "-fw_cfg: there already is a file '%s'; names of one's own begin with "
                             "opt/",
                             file->name);
        if (!fw_cfg_add_file(m->fw_cfg, file->name, file->bytes, file->len, err))
            return false;
    }
    return true;
}

bool bios_describe(struct machine *m, struct error *err)
{
    const struct machine_config *c = m->config;
    fw_cfg_on_directory(m->fw_cfg, directory_wanted, m);
    return fw_cfg_add(m->fw_cfg, FW_CFG_UUID, c->smbios.uuid, sizeof(c->smbios.uuid), err) &&
           fw_cfg_add_number(m->fw_cfg, FW_CFG_RAM_SIZE, m->firmware.ram_low, 8, err) &&
           fw_cfg_add_number(m->fw_cfg, FW_CFG_NOGRAPHIC, c->nographic, 2, err) &&
           fw_cfg_add_number(m->fw_cfg, FW_CFG_NB_CPUS, m->vcpu_count, 2, err) &&
           fw_cfg_add_number(m->fw_cfg, FW_CFG_MAX_CPUS, m->vcpu_count, 2, err) &&
           bios_add_kernel(m, err) && add_boot(m, err) && add_files(m, err) &&
           add_user_files(m, err);
}
