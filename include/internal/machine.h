/*
 * machine.h - the command line as data, and the `pc` machine made from it.
 *
 * Only src/machine knows which chips a PC has. The public face of this is include/bailey/bailey.h.
 */
#ifndef INTERNAL_MACHINE_H
#define INTERNAL_MACHINE_H

#include "internal/access.h"
#include "internal/blockdev.h"
#include "internal/smbios.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct error;
struct machine;

/* ---- What the options say (options.c) -------------------------------------------------------- */

enum {
    MACHINE_MAX_CPUS = 8,
    MACHINE_MAX_DRIVES = 16,
    MACHINE_MAX_DEVICES = 32,
    MACHINE_MAX_SERIALS = 4,
    MACHINE_MAX_FOLDERS = 8,
    MACHINE_MAX_FW_FILES = 16,
};

enum drive_interface {
    DRIVE_IDE,
    DRIVE_VIRTIO,
    DRIVE_PFLASH,
    DRIVE_FLOPPY,
    DRIVE_NONE /* for a -device that names it */
};

struct drive_config {
    char *file; /* "": an empty CD-ROM drive */
    char *id;   /* "" without one */
    enum drive_interface interface;
    bool read_only, snapshot;
    char *format; /* NULL: what the contents say */
    enum blockdev_cache cache;
    enum blockdev_discard discard;
    enum blockdev_detect detect_zeroes;
    unsigned floppy;    /* DRIVE_FLOPPY: 0 A, 1 B */
    bool cdrom;         /* media=cdrom */
    bool placed;        /* DRIVE_IDE: on channel `bus`, as drive `unit` */
    unsigned bus, unit; /* DRIVE_PFLASH: unit 0 ends at 4 GiB, 1 below it */
    bool attached;      /* some device has it */
};

enum device_kind {
    DEVICE_VIRTIO_BLK,
    DEVICE_VIRTIO_RNG,
    DEVICE_VGA,
    DEVICE_IDE_HD,
    DEVICE_IDE_CD,
    DEVICE_AHCI,
    DEVICE_VIRTIO_SCSI,
    DEVICE_SCSI_HD,
    DEVICE_SCSI_CD,
    DEVICE_DEBUG_EXIT,
    DEVICE_PVPANIC,
};

struct device_config {
    enum device_kind kind;
    char *id;                   /* "" without one */
    struct drive_config *drive; /* disks and CD-ROMs; NULL: IDE_CD without a medium */
    char *serial, *model;       /* disks and CD-ROMs: "" without one */
    uint64_t wwn;               /* 0: none */
    int bootindex;              /* -1: not given (storage_boot_path() has the firmware's name) */
    int controller;             /* IDE_*: -1 the board's; else the index of the controller */
    unsigned bus, unit;         /* IDE_*: its channel or port, and the place there; SCSI_*: its
                                   target and logical unit number */
    unsigned queues;            /* VIRTIO_SCSI: request queues; 0: one per processor */
    int devfn;                  /* PCI devices: -1 for the first free slot */
    uint16_t port, ports;       /* DEBUG_EXIT, PVPANIC */
    uint32_t vgamem_mb;         /* VGA; 0: the default */
    char *romfile;              /* VGA: NULL: the default, "": none */
};

/* -vga; the default is std, unless -nodefaults or -device VGA says otherwise. */
enum vga_choice { VGA_DEFAULT, VGA_STD, VGA_NONE };

enum rtc_base { RTC_UTC, RTC_LOCALTIME, RTC_FIXED };

/* How guest code runs. */
enum accel { ACCEL_INTERP, ACCEL_JIT, ACCEL_LOCKSTEP };

/* -boot. Devices by letter: a, c, d, n. */
struct boot_config {
    bool given, menu, strict;
    char *order, *once;
    bool menu_wait_given, fail_wait_given;
    uint16_t menu_wait; /* ms */
    uint32_t fail_wait; /* ms until the machine is reset when nothing boots */
};

/* -fw_cfg: a file for the firmware. */
struct firmware_blob {
    char *name;
    uint8_t *bytes;
    size_t len;
};

/* Strings are the config's own; NULL means not given. */
struct machine_config {
    uint64_t ram_size; /* bytes, a multiple of 1 MiB */
    unsigned cpus;
    char *cpu_model;
    enum accel accel;
    uint64_t jit_cache; /* bytes for translated code, all CPUs together */
    uint64_t jit_hot;   /* times that code is interpreted before it is translated */
    bool hpet;
    bool protect;         /* the protection device */
    char *protect_socket; /* NULL: none */
    char *name;
    char *kernel, *initrd, *append;
    char *bios;                         /* a firmware image by path, or by name in a folder */
    char *folders[MACHINE_MAX_FOLDERS]; /* -L */
    unsigned folder_count;
    struct boot_config boot;
    struct firmware_blob fw_files[MACHINE_MAX_FW_FILES];
    unsigned fw_file_count;
    struct smbios_config smbios; /* -smbios, -uuid */
    bool nographic;              /* firmware is to use the serial port */
    struct drive_config drives[MACHINE_MAX_DRIVES];
    unsigned drive_count;
    struct device_config devices[MACHINE_MAX_DEVICES];
    unsigned device_count;
    char *serials[MACHINE_MAX_SERIALS]; /* chardev specifications or "none" */
    unsigned serial_count;
    char *debugcon;
    enum vga_choice vga;
    enum rtc_base rtc_base;
    int64_t rtc_seconds; /* RTC_FIXED: since 1970-01-01 */
    uint32_t log_mask;
    char *log_file;
    char *symbols; /* for the profile and perf's map: a file; NULL: the kernel's */
    bool perfmap;
    bool no_reboot, no_shutdown;
};

enum options_result {
    OPTIONS_OK,
    OPTIONS_INFORMED, /* -help and the like: what was asked for has been written to `info` */
    OPTIONS_WRONG,    /* *err says which argument is wrong and what comes nearest */
};

/* Parses arguments (without a program name) into a zeroed config; free it whatever the result. */
enum options_result options_parse(struct machine_config *config, unsigned argc,
                                  const char *const *argv, FILE *info, struct error *err);
void machine_config_free(struct machine_config *config);
/* "Bailey 0.1.0 (features)". */
const char *machine_version(void);

/* ---- The machine (machine.c) ----------------------------------------------------------------- */

/* Why a run ended. */
enum machine_end {
    MACHINE_POWERED_OFF,
    MACHINE_RESET,    /* with -no-reboot: the guest reset the machine, or a CPU shut down */
    MACHINE_EXITED,   /* isa-debug-exit; the status is (value << 1) | 1 */
    MACHINE_PANICKED, /* pvpanic */
    MACHINE_REFUSED,  /* a protection rule with PROTECT_NOTIFY_STOP was broken; status 3 */
    MACHINE_STOPPED,  /* machine_stop(): a signal, Ctrl-A x, the embedding program */
    MACHINE_FAILED,   /* *err says what: a reset could not load the kernel again */
};

struct machine *machine_new(const struct machine_config *config, struct error *err);
/* In the calling thread, which becomes the I/O thread, until the guest ends or machine_stop(). Once
 * per machine. *status is what a process should exit with. */
enum machine_end machine_run(struct machine *m, int *status, struct error *err);
void machine_stop(struct machine *m); /* from any thread, also before machine_run() */
/* The guest and its time stand still, while the rest of the machine lives. From any thread; the
 * pause has happened when machine_paused() says so. One resume ends any number of pauses. */
void machine_pause(struct machine *m);
void machine_resume(struct machine *m);
bool machine_paused(struct machine *m);
void machine_free(struct machine *m); /* flushes and closes images, restores the terminal */

/* Guest-physical memory; safe while the machine runs. False when a protection rule refused. */
bool machine_read(struct machine *m, uint64_t gpa, void *buf, size_t len);
bool machine_write(struct machine *m, uint64_t gpa, const void *buf, size_t len);

#endif
