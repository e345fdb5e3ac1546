/*
 * pc.h - the machine's own struct, shared by the files of src/machine.
 */
#ifndef MACHINE_PC_H
#define MACHINE_PC_H

#include "internal/blockdev.h"
#include "internal/chardev.h"
#include "internal/chips.h"
#include "internal/clock.h"
#include "internal/control.h"
#include "internal/cpu.h"
#include "internal/device.h"
#include "internal/display.h"
#include "internal/error.h"
#include "internal/event.h"
#include "internal/exclusive.h"
#include "internal/firmware.h"
#include "internal/loader.h"
#include "internal/log.h"
#include "internal/machine.h"
#include "internal/pci.h"
#include "internal/profile.h"
#include "internal/virtio.h"
#include <pthread.h>
#include <stdatomic.h>

enum { MACHINE_MAX_CHIPS = 96, MACHINE_CHARDEVS = MACHINE_MAX_SERIALS + 1 };

enum run_state { RUN_PAUSED, RUN_RUNNING, RUN_QUIT };

/* What the guest, a signal or the terminal asked for; the first one counts until it is acted upon.
 */
enum wish { WISH_NONE, WISH_POWER_OFF, WISH_RESET, WISH_EXIT, WISH_PANIC, WISH_REFUSED };

struct vcpu {
    struct machine *machine;
    struct cpu *cpu;
    pthread_t thread;
    bool started;
};

struct machine {
    const struct machine_config *config; /* the caller's; outlives the machine */
    pthread_mutex_t lock;                /* the machine lock; recursive */
    struct log log;
    struct clock *clock;
    struct event_queue *queue;
    struct io_space *io;
    struct phys_map *map;
    struct exclusive *exclusive;
    struct profile *profile; /* NULL: nobody wants one */
    struct board board;

    /* -- chips (pc.c), in the order in which they were made and are reset ------------------- */
    struct device *chips[MACHINE_MAX_CHIPS];
    unsigned chip_count;
    struct pic *pic;
    struct apic_bus *apic_bus;
    struct lapic *lapic[MACHINE_MAX_CPUS];
    struct ioapic *ioapic;
    struct gsi *gsi;
    struct rtc *rtc;
    struct fpu_error *fpu_error;
    struct pci_bus *pci;
    struct pci_device *ide;
    struct pci_device *controllers[MACHINE_MAX_DEVICES]; /* by index of config->devices */
    struct device *cdroms[MACHINE_MAX_DEVICES];          /* likewise; NULL: is no CD-ROM drive */
    struct fdc *fdc;
    struct acpi_pm *pm;
    struct fw_cfg *fw_cfg;
    struct i8042 *i8042;
    struct pci_device *vga; /* NULL: none (screen.c) */
    struct display display;
    bool a20; /* open: the last write to either of its gates */

    /* -- back ends ------------------------------------------------------------------------------
     */
    struct chardev *chardevs[MACHINE_CHARDEVS];
    unsigned chardev_count;
    struct blockdev *disks[MACHINE_MAX_DRIVES];  /* by index of config->drives */
    struct blockdev *media[MACHINE_MAX_DEVICES]; /* of CD-ROM drives without one (medium.c) */

    /* -- what is booted (boot.c) --------------------------------------------------------------- */
    struct firmware_config firmware;
    struct memory_map memory;
    struct boot_image *image; /* NULL when firmware boots a disk */
    bool bios_boot;           /* firmware boots */
    struct ram_block *ram, *bios;
    uint64_t bios_size;
    uint16_t told_pm_base; /* the one that firmware's tables name */
    bool booted_once;      /* -boot once= has had its turn */

    /* -- running (vcpu.c)
     * -------------------------------------------------------------------------- */
    struct vcpu vcpu[MACHINE_MAX_CPUS];
    unsigned vcpu_count;
    struct rules *rules;        /* NULL without the protection device */
    struct pci_device *protect; /* likewise */
    struct control *control;    /* likewise: who is outside (control.h) */
    pthread_mutex_t run_lock; /* guards what follows; taken after the machine lock, never before */
    pthread_cond_t run_changed;
    enum run_state run_state;
    unsigned vcpus_running; /* threads inside cpu_run() */
    enum wish wish;
    int wish_status;
    bool stop_wanted;
    bool pause_wanted;
    char pause_report[256]; /* why, when a rule wants it */
    bool paused;            /* and so it is: no vCPU runs, the clock stands */
};

/* pc.c: chips and their wires. */
bool pc_build(struct machine *m, struct error *err);
/* Power-on state of all chips, and what a BIOS would set up in them. */
bool pc_reset(struct machine *m, struct error *err);
void pc_destroy(struct machine *m);
/* Puts a chip on the list for reset and destruction. */
bool pc_own(struct machine *m, void *chip, struct error *err);

/* protect.c: the protection device and its rules, when the configuration has them. */
bool protect_build(struct machine *m, struct error *err);
/* Opens the control socket, if there is to be one. */
bool protect_listen(struct machine *m, struct error *err);

/* floppy.c: the floppy and DMA controllers. */
bool floppy_build(struct machine *m, struct error *err);

/* screen.c: the display adapter of -vga, or of -device VGA. */
bool screen_build(struct machine *m, struct error *err);
bool screen_add_vga(struct machine *m, const struct device_config *device, struct error *err);
/* Text on the screen, as firmware would leave it, for machines without. */
void screen_start(struct machine *m);
/* For clients, with the machine as `opaque`: a PNG file; the characters of a text mode. */
bool screen_dump(void *opaque, const char *path, struct error *err);
bool screen_text(void *opaque, FILE *out, struct error *err);
bool screen_send_keys(void *opaque, const char *keys, unsigned hold_ms, struct error *err);

/* medium.c, for clients, with the machine as `opaque`: puts `file` into a CD-ROM or floppy drive;
 * NULL: takes out what is in it. `format` may be NULL; `force`: even if the guest has locked it. */
bool medium_change(void *opaque, const char *drive, const char *file, const char *format,
                   bool force, struct error *err);

/* storage.c: controllers and drives. */
bool storage_build_ide(struct machine *m, struct error *err);
bool storage_build_ahci(struct machine *m, const struct device_config *d, struct error *err);
bool storage_build_scsi(struct machine *m, const struct device_config *d, struct error *err);
bool storage_build_scsi_unit(struct machine *m, const struct device_config *d, struct error *err);
bool storage_build_drive(struct machine *m, const struct device_config *d, struct error *err);
/* What firmware calls a device that can be booted from, QEMU's way:
 * /pci@i0cf8/ide@1,1/drive@0/disk@0. False: it cannot. */
bool storage_boot_path(const struct machine *m, const struct device_config *d, char *path,
                       size_t size);

/* backend.c: images and character devices of the configuration. */
bool backends_open(struct machine *m, struct error *err);
void backends_close(struct machine *m);
/* A character back end for a specification; NULL without *err set means "none". */
bool backend_chardev(struct machine *m, const char *spec, struct chardev **chr, struct error *err);

/* bios.c: a firmware image instead of a boot image. */
bool bios_wanted(const struct machine_config *config);
bool bios_open(struct machine *m, struct error *err);
/* bios_kernel.c: hands the kernel over, if there is one, and what firmware calls it when it boots.
 */
bool bios_add_kernel(struct machine *m, struct error *err);
const char *bios_kernel_path(const struct machine *m);
/* bios_smm.c: does this firmware need system management mode? */
bool bios_needs_smm(const uint8_t *bytes, size_t len);
/* Puts flash chips, if there are any, where the image would be. */
bool bios_build(struct machine *m, struct error *err);
/* After pc_build() knows the machine; and at each reset. */
bool bios_describe(struct machine *m, struct error *err);
void bios_reset(struct machine *m);

/* boot.c */
bool boot_open(struct machine *m, struct error *err);
/* Writes firmware tables and the boot image into memory and sets the bootstrap processor up. */
bool boot_load(struct machine *m, struct error *err);

/* vcpu.c */
bool vcpus_create(struct machine *m, struct error *err);
bool vcpus_start_threads(struct machine *m, struct error *err);
void vcpus_resume(struct machine *m);
void vcpus_pause(struct machine *m); /* returns when none runs; without the machine lock */
void vcpus_quit(struct machine *m);
void vcpus_free(struct machine *m);
/* All leave the guest at their next safepoint; does not wait. */
void vcpus_kick(struct machine *m);

/* machine.c: a wish, from any thread. */
void machine_wish(struct machine *m, enum wish wish, int status);
/* machine_pause() with a reason, which clients are told. */
void machine_pause_because(struct machine *m, const char *report);

#endif
