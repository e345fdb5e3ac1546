/*
 * options.c - the command line: one table row per option, QEMU's names and meanings.
 *
 * The parser, the help text and "did you mean" come from the table. What an option leaves out has
 * the default that its row's help names. Drives and devices are in options_device.c.
 */
#include "options.h"
#include "internal/cpu.h"
#include "internal/log.h"
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MIB (1ull << 20)

struct option {
    const char *name;
    const char *arg; /* syntax of the argument; NULL: takes none */
    const char *help;
    bool (*set)(struct options *o, const struct option *option, const char *arg);
    const char *words[4]; /* set_word: the only values there are */
};

/* ---- Processors and memory ------------------------------------------------------------------- */

static bool set_memory(struct options *o, const struct option *option, const char *arg)
{
    static const char *const keys[] = {"size", NULL};
    struct keyval kv;
    uint64_t size = 0;
    (void)option;
    bool ok = keyval_parse(&kv, arg, "size", "-m", o->err) && keyval_only(&kv, keys, "-m", o->err);
    const char *text = ok ? keyval_get(&kv, "size") : NULL;
    if (ok && (!text || !parse_size(text, MIB, &size)))
        ok = error_set(o->err, "-m: '%s' is not a size, such as 512M or 2G", text ? text : "");
    if (ok && size < MIB)
        ok = error_set(o->err, "-m: '%s' is less than 1 MiB", text);
    keyval_free(&kv);
    o->config->ram_size = size & ~(MIB - 1);
    return ok;
}

/* -smp key=N: 0 in *n when it is left out, which is not the same as N = 0. */
static bool smp_number(struct options *o, const struct keyval *kv, const char *key, uint64_t *n)
{
    *n = 0;
    if (!keyval_number(kv, key, 255, n, "-smp", o->err))
        return false;
    return *n || !keyval_get(kv, key) || error_set(o->err, "-smp: %s=0 is no number of them", key);
}

/* cpus = sockets * cores * threads, where each that is left out follows from the others. */
static bool check_topology(struct options *o, const struct keyval *kv, uint64_t *cpus)
{
    static const char *const keys[] = {"sockets", "dies", "clusters", "cores", "threads"};
    uint64_t product = 1, max = 0, count = 0;
    bool all = true;
    for (unsigned i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        uint64_t n;
        if (!smp_number(o, kv, keys[i], &n))
            return false;
        all &= n != 0 || i == 1 || i == 2;
        product *= n ? n : 1;
    }
    if (!smp_number(o, kv, "cpus", &count) || !smp_number(o, kv, "maxcpus", &max))
        return false;
    if (count == 0)
        count = max ? max : product;
    if (max && max != count)
        return error_set(o->err,
                         "-smp: maxcpus=%llu differs from cpus=%llu, but processors cannot "
                         "be plugged in later",
                         (unsigned long long)max, (unsigned long long)count);
    if (count % product || (all && count != product))
        return error_set(o->err, "-smp: sockets, cores and threads make %llu processors, not %llu",
                         (unsigned long long)product, (unsigned long long)count);
    *cpus = count;
    return true;
}

static bool set_smp(struct options *o, const struct option *option, const char *arg)
{
    static const char *const keys[] = {"cpus",     "maxcpus", "sockets", "dies",
                                       "clusters", "cores",   "threads", NULL};
    struct keyval kv;
    uint64_t cpus = 1;
    (void)option;
    bool ok = keyval_parse(&kv, arg, "cpus", "-smp", o->err) &&
              keyval_only(&kv, keys, "-smp", o->err) && check_topology(o, &kv, &cpus);
    keyval_free(&kv);
    if (ok && (cpus < 1 || cpus > MACHINE_MAX_CPUS))
        ok = error_set(o->err, "-smp: %llu processors; 1 to %d are possible",
                       (unsigned long long)cpus, MACHINE_MAX_CPUS);
    o->config->cpus = (unsigned)cpus;
    return ok;
}

static bool is_help(const char *arg)
{
    return strcmp(arg, "help") == 0 || strcmp(arg, "?") == 0;
}

static bool inform(struct options *o, const char *text)
{
    fputs(text, o->info);
    return o->informed = true;
}

static void replace(char **string, const char *value)
{
    free(*string);
    *string = copy_string(value);
}

static bool set_cpu(struct options *o, const struct option *option, const char *arg)
{
    (void)option;
    if (is_help(arg)) {
        cpu_model_help(o->info);
        return o->informed = true;
    }
    const struct cpu_model *model = cpu_model_parse(arg, o->err);
    if (!model)
        return error_prefix(o->err, "-cpu");
    cpu_model_free(model);
    replace(&o->config->cpu_model, arg);
    return true;
}

/* By enum accel. */
static const char *const accels[] = {"interp", "jit", "lockstep", NULL};

/* NULL: not given. */
static bool choose_accel(struct options *o, const char *name, const char *option)
{
    int accel = name ? choose_word(name, accels, option, o->err) : (int)o->config->accel;
    if (accel >= 0)
        o->config->accel = (enum accel)accel;
    return accel >= 0;
}

static bool set_accel(struct options *o, const struct option *option, const char *arg)
{
    static const char *const keys[] = {"accel", "thread", "tb-size", "hot", NULL};
    static const char *const threads[] = {"multi", NULL};
    struct keyval kv;
    (void)option;
    if (is_help(arg))
        return inform(o,
                      "Accelerators for -accel:\n"
                      "  interp   the interpreter\n"
                      "  lockstep both, compared region by region: stops at the first difference\n"
                      "  jit      the translator: x86-64 guests on an x86-64 host (properties: "
                      "tb-size=MIB,\n"
                      "           hot=N: code is interpreted N times before it is translated)\n");
    bool ok = keyval_parse(&kv, arg, "accel", "-accel", o->err) &&
              keyval_only(&kv, keys, "-accel", o->err);
    const char *accel = ok ? keyval_get(&kv, "accel") : NULL;
    const char *thread = ok ? keyval_get(&kv, "thread") : NULL;
    uint64_t size = o->config->jit_cache >> 20;
    ok = ok && choose_accel(o, accel, "-accel") &&
         keyval_number(&kv, "tb-size", 1024, &size, "-accel", o->err) &&
         keyval_number(&kv, "hot", 255, &o->config->jit_hot, "-accel", o->err) &&
         (!thread || choose_word(thread, threads, "-accel: thread", o->err) >= 0);
    o->config->jit_cache = size << 20;
    keyval_free(&kv);
    return ok;
}

static bool set_machine(struct options *o, const struct option *option, const char *arg)
{
    static const char *const keys[] = {"type", "accel", "hpet", "protect", NULL};
    static const char *const types[] = {"pc", NULL};
    struct keyval kv;
    (void)option;
    if (is_help(arg))
        return inform(
            o, "Machines for -machine:\n"
               "  pc   i440FX and PIIX3 (properties: accel=interp|jit|lockstep, hpet=on|off, "
               "protect=on|off)\n");
    bool ok = keyval_parse(&kv, arg, "type", "-machine", o->err) &&
              keyval_only(&kv, keys, "-machine", o->err);
    const char *type = ok ? keyval_get(&kv, "type") : NULL;
    const char *accel = ok ? keyval_get(&kv, "accel") : NULL;
    ok = ok && (!type || choose_word(type, types, "-machine", o->err) >= 0) &&
         choose_accel(o, accel, "-machine: accel") &&
         keyval_bool(&kv, "hpet", &o->config->hpet, "-machine", o->err) &&
         keyval_bool(&kv, "protect", &o->config->protect, "-machine", o->err);
    keyval_free(&kv);
    return ok;
}

/* ---- What to boot ---------------------------------------------------------------------------- */

static bool set_kernel(struct options *o, const struct option *option, const char *arg)
{
    (void)option;
    replace(&o->config->kernel, arg);
    return true;
}
static bool set_bios(struct options *o, const struct option *option, const char *arg)
{
    (void)option;
    replace(&o->config->bios, arg);
    return true;
}
static bool set_pflash(struct options *o, const struct option *option, const char *arg)
{
    (void)option;
    return option_pflash(o, arg);
}
static bool set_folder(struct options *o, const struct option *option, const char *arg)
{
    (void)option;
    return option_firmware_folder(o, arg);
}
static bool set_boot(struct options *o, const struct option *option, const char *arg)
{
    (void)option;
    return option_boot(o, arg);
}
static bool set_fw_cfg(struct options *o, const struct option *option, const char *arg)
{
    (void)option;
    return option_fw_cfg(o, arg);
}
static bool set_initrd(struct options *o, const struct option *option, const char *arg)
{
    (void)option;
    replace(&o->config->initrd, arg);
    return true;
}
static bool set_append(struct options *o, const struct option *option, const char *arg)
{
    (void)option;
    replace(&o->config->append, arg);
    return true;
}

/* ---- Disks and devices ----------------------------------------------------------------------- */

static bool set_drive(struct options *o, const struct option *option, const char *arg)
{
    (void)option;
    return option_drive(o, arg);
}
static bool set_hard_disk(struct options *o, const struct option *option, const char *arg)
{
    char what[8];
    snprintf(what, sizeof(what), "-%s", option->name);
    return option_drive_index(o, (unsigned)(option->name[2] - 'a'), false, arg, what);
}
static bool set_cdrom(struct options *o, const struct option *option, const char *arg)
{
    (void)option;
    return option_drive_index(o, 2, true, arg, "-cdrom");
}
static bool set_floppy(struct options *o, const struct option *option, const char *arg)
{
    return option_floppy(o, (unsigned)(option->name[2] - 'a'), arg);
}
static bool set_snapshot(struct options *o, const struct option *option, const char *arg)
{
    (void)option, (void)arg;
    return o->snapshot = true;
}
static bool set_device(struct options *o, const struct option *option, const char *arg)
{
    (void)option;
    return option_device(o, arg);
}

/* Character back ends: what chardev_open() knows, and "none" for no device at all. */
static bool check_chardev(struct options *o, const char *what, const char *arg)
{
    static const char *const kinds[] = {"stdio", "mon:stdio", "null", "none", "file:PATH", NULL};
    if (strncmp(arg, "file:", 5) == 0)
        return arg[5] || error_set(o->err, "%s: file: needs a path", what);
    if (strcmp(arg, "file:PATH") == 0)
        return true;
    return choose_word(arg, kinds, what, o->err) >= 0;
}

static bool set_serial(struct options *o, const struct option *option, const char *arg)
{
    struct machine_config *c = o->config;
    (void)option;
    if (!check_chardev(o, "-serial", arg))
        return false;
    if (c->serial_count == MACHINE_MAX_SERIALS)
        return error_set(o->err, "-serial: more than %d serial ports", MACHINE_MAX_SERIALS);
    c->serials[c->serial_count++] = copy_string(arg);
    return o->serial_given = true;
}

static bool set_debugcon(struct options *o, const struct option *option, const char *arg)
{
    (void)option;
    if (!check_chardev(o, "-debugcon", arg))
        return false;
    replace(&o->config->debugcon, arg);
    return true;
}

static bool set_nographic(struct options *o, const struct option *option, const char *arg)
{
    (void)option, (void)arg;
    return o->nographic = o->config->nographic = true;
}
static bool set_nodefaults(struct options *o, const struct option *option, const char *arg)
{
    (void)option, (void)arg;
    return o->nodefaults = true;
}

/* An option of QEMU's of which only the value that changes nothing exists. */
static bool set_word(struct options *o, const struct option *option, const char *arg)
{
    char what[32];
    snprintf(what, sizeof(what), "-%s", option->name);
    if (strcmp(option->name, "display") == 0)
        o->no_display = true;
    return choose_word(arg, option->words, what, o->err) >= 0;
}

static bool set_vga(struct options *o, const struct option *option, const char *arg)
{
    int chosen = choose_word(arg, option->words, "-vga", o->err);
    o->config->vga = chosen == 0 ? VGA_STD : VGA_NONE;
    return chosen >= 0;
}

/* ---- Time, life and death -------------------------------------------------------------------- */

/* YYYY-MM-DDTHH:MM:SS or YYYY-MM-DD, in UTC. */
static bool parse_date(const char *text, int64_t *seconds)
{
    struct tm tm = {0};
    const char *end = strptime(text, "%Y-%m-%d", &tm);
    if (end && *end == 'T')
        end = strptime(end + 1, "%H:%M:%S", &tm);
    if (!end || *end)
        return false;
    *seconds = timegm(&tm);
    return true;
}

static bool set_rtc(struct options *o, const struct option *option, const char *arg)
{
    static const char *const keys[] = {"base", "clock", "driftfix", NULL};
    static const char *const clocks[] = {"host", NULL}, *const fixes[] = {"none", NULL};
    static const char *const bases[] = {"utc", "localtime", "YYYY-MM-DDTHH:MM:SS", NULL};
    struct machine_config *c = o->config;
    struct keyval kv;
    (void)option;
    bool ok =
        keyval_parse(&kv, arg, NULL, "-rtc", o->err) && keyval_only(&kv, keys, "-rtc", o->err);
    const char *base = ok ? keyval_get(&kv, "base") : NULL;
    const char *clock = ok ? keyval_get(&kv, "clock") : NULL;
    const char *fix = ok ? keyval_get(&kv, "driftfix") : NULL;
    if (ok && base) {
        if (parse_date(base, &c->rtc_seconds))
            c->rtc_base = RTC_FIXED;
        else if (strcmp(base, "utc") == 0 || strcmp(base, "localtime") == 0)
            c->rtc_base = *base == 'u' ? RTC_UTC : RTC_LOCALTIME;
        else
            ok = choose_word(base, bases, "-rtc: base", o->err) >= 0;
    }
    ok = ok && (!clock || choose_word(clock, clocks, "-rtc: clock", o->err) >= 0) &&
         (!fix || choose_word(fix, fixes, "-rtc: driftfix", o->err) >= 0);
    keyval_free(&kv);
    return ok;
}

static bool set_no_reboot(struct options *o, const struct option *option, const char *arg)
{
    (void)option, (void)arg;
    return o->config->no_reboot = true;
}
static bool set_no_shutdown(struct options *o, const struct option *option, const char *arg)
{
    (void)option, (void)arg;
    return o->config->no_shutdown = true;
}
static bool set_protect(struct options *o, const struct option *option, const char *arg)
{
    static const char *const keys[] = {"socket", NULL};
    struct keyval kv;
    (void)option;
    bool ok = keyval_parse(&kv, arg, NULL, "-protect", o->err) &&
              keyval_only(&kv, keys, "-protect", o->err);
    const char *path = ok ? keyval_get(&kv, "socket") : NULL;
    if (ok && (!path || !*path))
        ok = error_set(o->err, "-protect: socket= needs a path");
    if (ok)
        replace(&o->config->protect_socket, path);
    keyval_free(&kv);
    return ok;
}
static bool set_name(struct options *o, const struct option *option, const char *arg)
{
    static const char *const keys[] = {"guest", NULL};
    struct keyval kv;
    (void)option;
    bool ok =
        keyval_parse(&kv, arg, "guest", "-name", o->err) && keyval_only(&kv, keys, "-name", o->err);
    if (ok && keyval_get(&kv, "guest"))
        replace(&o->config->name, keyval_get(&kv, "guest"));
    keyval_free(&kv);
    return ok;
}

/* ---- Logs and information -------------------------------------------------------------------- */

static const char *const log_words[] = {
#define X(id, name, help) name,
    LOG_CATEGORIES(X)
#undef X
        NULL,
};

/* Takes "symbols=FILE" out of the items; what is left is a new string. */
static char *take_symbols(struct options *o, const char *arg)
{
    static const char key[] = "symbols=";
    char *left = calloc(1, strlen(arg) + 1);
    for (const char *item = arg; left && item;) {
        size_t len = strcspn(item, ",");
        if (strncmp(item, key, sizeof key - 1) == 0) {
            free(o->config->symbols);
            o->config->symbols = strndup(item + sizeof key - 1, len - (sizeof key - 1));
        } else {
            strcat(left, *left ? "," : "");
            strncat(left, item, len);
        }
        item = item[len] ? item + len + 1 : NULL;
    }
    return left;
}

static bool set_log_items(struct options *o, const char *items)
{
    uint32_t mask = 0;
    const char *bad = items ? log_parse(items, &mask) : "";
    if (bad) {
        char word[32];
        snprintf(word, sizeof(word), "%.*s", (int)strcspn(bad, ","), bad);
        return error_set(o->err, "-d: '%s' is not available; the nearest is '%s'", word,
                         nearest_word(word, log_words));
    }
    o->config->log_mask |= mask;
    return true;
}

static bool set_log(struct options *o, const struct option *option, const char *arg)
{
    (void)option;
    if (is_help(arg)) {
        fputs("Items for -d, separated by commas:\n", o->info);
#define X(id, name, help) fprintf(o->info, "  %-14s %s\n", name, help);
        LOG_CATEGORIES(X)
#undef X
        fprintf(o->info, "  %-14s %s\n", "symbols=FILE",
                "names for jit-profile and -perfmap: System.map, kallsyms or ELF");
        return o->informed = true;
    }
    char *items = take_symbols(o, arg);
    bool only_symbols = items && !*items && o->config->symbols;
    bool ok = only_symbols || set_log_items(o, items);
    free(items);
    return ok;
}
static bool set_perfmap(struct options *o, const struct option *option, const char *arg)
{
    (void)option, (void)arg;
    return o->config->perfmap = true;
}
static bool set_log_file(struct options *o, const struct option *option, const char *arg)
{
    (void)option;
    replace(&o->config->log_file, arg);
    return true;
}
static bool show_version(struct options *o, const struct option *option, const char *arg)
{
    (void)option, (void)arg;
    fprintf(o->info, "%s\n", machine_version());
    return o->informed = true;
}
static bool show_help(struct options *o, const struct option *option, const char *arg);

/* ---- The table ------------------------------------------------------------------------------- */

static const struct option options[] = {
    {"m",
     "[size=]SIZE",
     "guest memory, in MiB unless a suffix K, M, G or T follows (default 128M, or 1G with bare "
     "FILEs)",
     set_memory,
     {0}},
    {"smp",
     "[cpus=]N",
     "1 to 8 processors; also sockets=, cores=, threads= (default 1)",
     set_smp,
     {0}},
    {"cpu", "MODEL[,+F][,-F]", "processor model (default max); -cpu help lists them", set_cpu, {0}},
    {"accel", "NAME", "how guest code runs: interp, jit or lockstep", set_accel, {0}},
    {"machine",
     "[type=]NAME",
     "the board: pc (default); also hpet=on|off, protect=on|off (default on)",
     set_machine,
     {0}},
    {"M", "NAME", "the same as -machine", set_machine, {0}},
    {"kernel",
     "FILE",
     "kernel: Linux bzImage, multiboot or PVH ELF, or a flat binary",
     set_kernel,
     {0}},
    {"initrd",
     "FILE",
     "initial RAM disk; multiboot and PVH: modules \"file args,file2\"",
     set_initrd,
     {0}},
    {"append", "TEXT", "the kernel's command line", set_append, {0}},
    {"bios",
     "FILE",
     "firmware image (default bios-256k.bin of SeaBIOS, when disks are to boot)",
     set_bios,
     {0}},
    {"pflash", "FILE", "flash with firmware; a second one holds its variables", set_pflash, {0}},
    {"L", "FOLDER", "where else to look for firmware images", set_folder, {0}},
    {"boot",
     "[order=]DRIVES",
     "order to boot from: a floppy, c disk, d CD-ROM, n network; also once=, menu=on",
     set_boot,
     {0}},
    {"fw_cfg", "NAME,string=TEXT", "a file for the firmware, or file=FILE", set_fw_cfg, {0}},
    {"smbios",
     "type=N,KEY=TEXT",
     "what SMBIOS tables say: types 0 to 3 and 11",
     option_smbios,
     {0}},
    {"uuid", "UUID", "the machine's universally unique identifier", option_uuid, {0}},
    {"drive",
     "file=FILE[,...]",
     "disk: if=ide|virtio|floppy|pflash|none, media=disk|cdrom, index=N, format=NAME, "
     "cache=writeback|none|writethrough|directsync|unsafe, "
     "discard=ignore|unmap, detect-zeroes=off|on|unmap, readonly=on|off, snapshot=on|off, id=NAME",
     set_drive,
     {0}},
    {"hda", "FILE", "disk image as IDE drive 0 (also -hdb, -hdc, -hdd)", set_hard_disk, {0}},
    {"hdb", "FILE", NULL, set_hard_disk, {0}},
    {"hdc", "FILE", NULL, set_hard_disk, {0}},
    {"hdd", "FILE", NULL, set_hard_disk, {0}},
    {"fda", "FILE", "image of the disk in floppy drive A: (also -fdb)", set_floppy, {0}},
    {"fdb", "FILE", NULL, set_floppy, {0}},
    {"cdrom", "FILE", "image in the CD-ROM drive, which is IDE drive 2", set_cdrom, {0}},
    {"snapshot", NULL, "discard all writes to disk images at the end", set_snapshot, {0}},
    {"device", "TYPE[,...]", "add a device; -device help lists them", set_device, {0}},
    {"serial",
     "TO",
     "next serial port: stdio, mon:stdio, file:PATH, null or none",
     set_serial,
     {0}},
    {"debugcon", "TO", "what the guest writes to port 0xe9; TO as for -serial", set_debugcon, {0}},
    {"nographic",
     NULL,
     "serial port on the terminal, no display; Ctrl-A h shows the keys",
     set_nographic,
     {0}},
    {"display", "none", "there are no displays", set_word, {"none", NULL}},
    {"vga", "std|none", "the display adapter (default std)", set_vga, {"std", "none", NULL}},
    {"monitor", "none", "there is no monitor", set_word, {"none", NULL}},
    {"net", "none", "there are no network adapters", set_word, {"none", NULL}},
    {"nic", "none", "there are no network adapters", set_word, {"none", NULL}},
    {"nodefaults", NULL, "no serial port or display adapter unless asked for", set_nodefaults, {0}},
    {"rtc", "base=TIME", "clock: utc (default), localtime or YYYY-MM-DDTHH:MM:SS", set_rtc, {0}},
    {"no-reboot", NULL, "end instead of resetting the machine", set_no_reboot, {0}},
    {"no-shutdown", NULL, "stop instead of ending when the guest powers off", set_no_shutdown, {0}},
    {"protect",
     "socket=PATH",
     "a socket for programs outside that protect and watch memory (baileyctl)",
     set_protect,
     {0}},
    {"name", "NAME", "a name for the guest", set_name, {0}},
    {"d", "ITEM[,...]", "log; -d help lists the items", set_log, {0}},
    {"D", "FILE", "where -d logs (default: standard error)", set_log_file, {0}},
    {"perfmap",
     NULL,
     "write /tmp/perf-PID.map, so that perf names translated code",
     set_perfmap,
     {0}},
    {"version", NULL, "print the version", show_version, {0}},
    {"help", NULL, "print this text (also -h)", show_help, {0}},
    {"h", NULL, NULL, show_help, {0}},
    {"?", NULL, NULL, show_help, {0}},
};
enum { OPTIONS = sizeof(options) / sizeof(options[0]) };

/* Options of QEMU's that Bailey lacks and whose nearest is not the one that is spelled most alike.
 */
static const struct {
    const char *name, *nearest;
} lacking[] = {
    {"blockdev", "drive"},
    {"enable-kvm", "accel"},
    {"usb", "device"},
    {"netdev", "device"},
    {"chardev", "serial"},
    {"parallel", "serial"},
    {"qmp", "serial"},
    {"curses", "nographic"},
    {"vnc", "nographic"},
    {"sdl", "nographic"},
    {"icount", "accel"},
    {"action", "no-reboot"},
    {"trace", "d"},
    {"jitdump", "perfmap"},
    {"object", "device"},
    {"S", "no-shutdown"},
    {"s", "d"},
    {"gdb", "d"},
    {"daemonize", "nographic"},
};

static bool show_help(struct options *o, const struct option *option, const char *arg)
{
    (void)option, (void)arg;
    fprintf(
        o->info,
        "%s\nUsage: bailey [OPTION]... [FILE]...\n\n"
        "Runs an x86-64 guest. Options have QEMU's names and meanings; one dash or two.\n"
        "A FILE is looked at, and used as the disk, CD, floppy, kernel or firmware that it is.\n"
        "With nothing to boot a built-in demo guest runs.\n\n",
        machine_version());
    for (unsigned i = 0; i < OPTIONS; i++) {
        char left[64];
        const struct option *op = &options[i];
        if (!op->help)
            continue;
        snprintf(left, sizeof(left), "-%s%s%s", op->name, op->arg ? " " : "",
                 op->arg ? op->arg : "");
        fprintf(o->info, "  %-24s %s\n", left, op->help);
    }
    fputs("\nExit status: 0 the guest ended normally; 1 it could not start or the host failed; 2 "
          "the\n"
          "command line is wrong; 3 a protection rule said stop; isa-debug-exit chooses its own,\n"
          "(value << 1) | 1.\n",
          o->info);
    return o->informed = true;
}

/* ---- The parser ------------------------------------------------------------------------------ */

static bool unknown(struct options *o, const char *arg, const char *name)
{
    const char *names[OPTIONS + 1] = {NULL}, *nearest = NULL;
    for (unsigned i = 0; i < sizeof(lacking) / sizeof(lacking[0]); i++)
        if (strcmp(lacking[i].name, name) == 0)
            nearest = lacking[i].nearest;
    if (nearest)
        return error_set(o->err, "%s: Bailey lacks this option; the nearest is -%s", arg, nearest);
    for (unsigned i = 0, n = 0; i < OPTIONS; i++)
        if (options[i].help)
            names[n++] = options[i].name;
    return error_set(o->err, "%s: unknown option; did you mean -%s?", arg,
                     nearest_word(name, names));
}

static bool parse_one(struct options *o, unsigned argc, const char *const *argv, unsigned *at)
{
    const char *arg = argv[(*at)++], *name = arg + 1;
    if (*arg != '-')
        return option_bare(o, arg);
    if (!*name)
        return error_set(o->err, "-: is no option; a file called '-' is ./-");
    if (*name == '-')
        name++;
    for (unsigned i = 0; i < OPTIONS; i++) {
        const struct option *option = &options[i];
        if (strcmp(option->name, name) != 0)
            continue;
        if (!option->arg)
            return option->set(o, option, NULL);
        if (*at == argc)
            return error_set(o->err, "%s: needs an argument: %s", arg, option->arg);
        return option->set(o, option, argv[(*at)++]);
    }
    return unknown(o, arg, name);
}

static bool on_terminal(const char *to)
{
    return to && (strcmp(to, "stdio") == 0 || strcmp(to, "mon:stdio") == 0);
}

/* Without -serial the first port goes to the terminal, if nothing else does and nobody objects. */
static bool finish_terminal(struct options *o)
{
    struct machine_config *c = o->config;
    unsigned users = on_terminal(c->debugcon);
    if (!o->serial_given && !o->nodefaults && (o->nographic || (!o->no_display && !users))) {
        c->serials[c->serial_count++] = copy_string("mon:stdio");
        c->nographic = true; /* there is no window yet */
    }
    for (unsigned i = 0; i < c->serial_count; i++)
        users += on_terminal(c->serials[i]);
    if (users > 1)
        return error_set(o->err,
                         "the terminal (stdio) can serve only one of -serial and -debugcon");
    return true;
}

static bool finish(struct options *o)
{
    struct machine_config *c = o->config;
    if (!c->kernel && (c->append || c->initrd))
        return error_set(o->err, "%s: needs -kernel", c->append ? "-append" : "-initrd");
    if (c->protect_socket && !c->protect)
        return error_set(o->err,
                         "-protect: there is nothing to speak to with -machine protect=off");
    if (c->accel == ACCEL_INTERP && (c->perfmap || c->log_mask & LOG_JIT_PROFILE))
        return error_set(o->err, "%s: needs -accel jit",
                         c->perfmap ? "-perfmap" : "-d jit-profile");
    if (c->jit_cache >> 20 < c->cpus)
        return error_set(o->err,
                         "-accel: tb-size=%llu is too small: 1 (MiB) for each processor is the "
                         "least",
                         (unsigned long long)(c->jit_cache >> 20));
    if (c->vga == VGA_DEFAULT && (o->nodefaults || o->vga_device))
        c->vga = VGA_NONE;
    if (!c->ram_size) /* 128 MiB is QEMU's; who names nothing but an image wants it to boot */
        c->ram_size = (o->bare ? 1024 : 128) * MIB;
    return finish_terminal(o) && options_attach_drives(o);
}

enum options_result options_parse(struct machine_config *config, unsigned argc,
                                  const char *const *argv, FILE *info, struct error *err)
{
    struct options o = {.config = config, .info = info, .err = err};
    bool ok = true;
    config->cpus = 1;
    config->hpet = config->protect = true;
    config->accel = ACCEL_JIT;
    config->jit_cache = 256ull << 20;
    config->jit_hot = 1;
    config->cpu_model = copy_string("max");
    for (unsigned at = 0; ok && !o.informed && at < argc;)
        ok = parse_one(&o, argc, argv, &at);
    ok = ok && (o.informed || finish(&o));
    for (unsigned i = 0; i < MACHINE_MAX_DEVICES; i++)
        free(o.drive_ids[i]), free(o.bus_names[i]);
    return !ok ? OPTIONS_WRONG : o.informed ? OPTIONS_INFORMED : OPTIONS_OK;
}

void machine_config_free(struct machine_config *c)
{
    char *strings[] = {c->cpu_model, c->name,     c->kernel,     c->initrd,
                       c->append,    c->debugcon, c->log_file,   c->protect_socket,
                       c->symbols,   c->bios,     c->boot.order, c->boot.once};
    for (unsigned i = 0; i < sizeof(strings) / sizeof(strings[0]); i++)
        free(strings[i]);
    smbios_config_free(&c->smbios);
    for (unsigned i = 0; i < c->folder_count; i++)
        free(c->folders[i]);
    for (unsigned i = 0; i < c->fw_file_count; i++) {
        free(c->fw_files[i].name);
        free(c->fw_files[i].bytes);
    }
    for (unsigned i = 0; i < c->serial_count; i++)
        free(c->serials[i]);
    for (unsigned i = 0; i < c->drive_count; i++) {
        free(c->drives[i].file);
        free(c->drives[i].id);
        free(c->drives[i].format);
    }
    for (unsigned i = 0; i < c->device_count; i++)
        free(c->devices[i].id), free(c->devices[i].serial), free(c->devices[i].model),
            free(c->devices[i].romfile);
    memset(c, 0, sizeof(*c));
}
