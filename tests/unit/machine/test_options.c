/*
 * test_options.c - the command line: what each option sets, and what is said of what does not
 * exist.
 */
#include "internal/error.h"
#include "internal/log.h"
#include "internal/machine.h"
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MIB (1ull << 20)

static struct machine_config c;
static struct error err;
static char *information;
static size_t information_len;

/* Parses words separated by one space ('~' stands for a space inside a word). */
static enum options_result parse(const char *line)
{
    static char copy[1024];
    const char *argv[128];
    unsigned argc = 0;
    machine_config_free(&c);
    memset(&err, 0, sizeof(err));
    snprintf(copy, sizeof(copy), "%s", line);
    for (char *word = strtok(copy, " "); word; word = strtok(NULL, " ")) {
        for (char *p = word; *p; p++)
            if (*p == '~')
                *p = ' ';
        argv[argc++] = word;
    }
    free(information);
    FILE *info = open_memstream(&information, &information_len);
    enum options_result result = options_parse(&c, argc, argv, info, &err);
    fclose(info);
    return result;
}

static void parse_ok(const char *line)
{
    enum options_result result = parse(line);
    ck_assert_msg(result == OPTIONS_OK, "%s: %s", line, err.msg);
}

START_TEST(defaults)
{
    parse_ok("");
    ck_assert_uint_eq(c.ram_size, 128 * MIB);
    ck_assert_uint_eq(c.cpus, 1);
    ck_assert_str_eq(c.cpu_model, "max");
    ck_assert_uint_eq(c.serial_count, 1);
    ck_assert_str_eq(c.serials[0], "mon:stdio");
    ck_assert_ptr_null(c.kernel);
    ck_assert_int_eq(c.rtc_base, RTC_UTC);
    ck_assert(c.hpet && c.protect);
}
END_TEST

START_TEST(the_board_without_its_extras)
{
    parse_ok("-machine pc,protect=off");
    ck_assert(c.hpet && !c.protect);
    parse_ok("-M hpet=off");
    ck_assert(!c.hpet && c.protect);
    parse_ok("-machine protect=off -machine protect=on,hpet=off");
    ck_assert(!c.hpet && c.protect);
    ck_assert_int_eq(parse("-machine protect=maybe"), OPTIONS_WRONG);
    parse_ok("-protect socket=/a -protect socket=/b");
    ck_assert_str_eq(c.protect_socket, "/b");
    ck_assert_int_eq(parse("-protect"), OPTIONS_WRONG);
    ck_assert_int_eq(parse("-protect socket="), OPTIONS_WRONG);
    ck_assert_int_eq(parse("-protect /a"), OPTIONS_WRONG);
    ck_assert_int_eq(parse("-protect socket=/a,mode=0666"), OPTIONS_WRONG);
    ck_assert_int_eq(parse("-protect socket=/a -machine protect=off"), OPTIONS_WRONG);
}
END_TEST

START_TEST(memory_sizes)
{
    static const struct {
        const char *arg;
        uint64_t size;
    } good[] = {
        {"512", 512 * MIB},   {"512M", 512 * MIB}, {"1G", 1024 * MIB},
        {"1.5G", 1536 * MIB}, {"2048k", 2 * MIB},  {"size=64", 64 * MIB},
        {"6g", 6144 * MIB},   {"1048576b", MIB},   {"1T", 1ull << 40},
    };
    static const char *const bad[] = {"0",   "abc", "12Q",  "512MB", "-5",           "",  ".",
                                      "1..", "M",   "0.5M", "1K",    "99999999999T", "=1"};
    char line[64];
    for (unsigned i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        snprintf(line, sizeof(line), "-m %s", good[i].arg);
        parse_ok(line);
        ck_assert_msg(c.ram_size == good[i].size, "%s", line);
    }
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        const char *argv[] = {"-m", bad[i]};
        machine_config_free(&c);
        ck_assert_msg(options_parse(&c, 2, argv, stdout, &err) == OPTIONS_WRONG, "-m %s", bad[i]);
        ck_assert_ptr_nonnull(strstr(err.msg, "-m"));
    }
}
END_TEST

START_TEST(processors)
{
    static const struct {
        const char *arg;
        unsigned cpus; /* 0: refused */
    } cases[] = {
        {"1", 1},
        {"8", 8},
        {"cpus=4", 4},
        {"4,sockets=2", 4},
        {"4,sockets=2,cores=2,threads=1", 4},
        {"sockets=2,cores=2", 4},
        {"cores=3", 3},
        {"2,maxcpus=2", 2},
        {"maxcpus=2", 2},
        {"9", 0},
        {"0", 0},
        {"x", 0},
        {"4,sockets=3", 0},
        {"4,sockets=0", 0},
        {"4,sockets=1,cores=2,threads=1", 0},
        {"2,maxcpus=4", 0},
        {"2,bananas=1", 0},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char line[64];
        snprintf(line, sizeof(line), "-smp %s", cases[i].arg);
        enum options_result result = parse(line);
        ck_assert_msg((result == OPTIONS_OK) == (cases[i].cpus != 0), "%s: %s", line, err.msg);
        if (cases[i].cpus)
            ck_assert_msg(c.cpus == cases[i].cpus, "%s", line);
    }
}
END_TEST

START_TEST(kernel_and_friends)
{
    parse_ok("-kernel k -initrd i -append a~b --m 64 -name guest=x -no-reboot --no-shutdown");
    ck_assert_str_eq(c.kernel, "k");
    ck_assert_str_eq(c.initrd, "i");
    ck_assert_str_eq(c.append, "a b");
    ck_assert_str_eq(c.name, "x");
    ck_assert(c.no_reboot && c.no_shutdown);
    ck_assert_uint_eq(c.ram_size, 64 * MIB);
    parse_ok("-kernel a -kernel b");
    ck_assert_str_eq(c.kernel, "b");
}
END_TEST

START_TEST(drives)
{
    parse_ok("-drive file=a.img,if=virtio,format=raw,readonly=on -hda b.img "
             "-drive if=none,id=d,file=c,,d.img,snapshot=on,cache=writeback "
             "-device virtio-blk-pci,drive=d,serial=S1,addr=5,bootindex=3");
    ck_assert_uint_eq(c.drive_count, 3);
    ck_assert_str_eq(c.drives[0].file, "a.img");
    ck_assert(c.drives[0].read_only && !c.drives[0].snapshot);
    ck_assert_str_eq(c.drives[1].file, "b.img");
    ck_assert(!c.drives[1].read_only);
    ck_assert_str_eq(c.drives[2].file, "c,d.img");
    ck_assert(c.drives[2].snapshot);
    ck_assert_uint_eq(c.device_count, 4); /* and the empty CD-ROM drive */
    ck_assert_ptr_eq(c.devices[0].drive, &c.drives[2]);
    ck_assert_str_eq(c.devices[0].serial, "S1");
    ck_assert_int_eq(c.devices[0].devfn, 5 << 3);
    ck_assert_int_eq(c.devices[0].bootindex, 3);
    ck_assert_int_eq(c.devices[1].bootindex, -1);
    ck_assert_ptr_eq(c.devices[1].drive, &c.drives[0]);
    ck_assert_int_eq(c.devices[1].devfn, -1);
    parse_ok("-hda x -snapshot -hdb y");
    ck_assert(c.drives[0].snapshot && c.drives[1].snapshot);
    parse_ok("-drive file=a,format=qcow2,cache=directsync,discard=on,detect-zeroes=unmap "
             "-drive file=nbd://host:1234/b,format=raw,cache=none,discard=ignore,aio=threads");
    ck_assert_str_eq(c.drives[0].format, "qcow2");
    ck_assert_int_eq(c.drives[0].cache, BLOCKDEV_CACHE_DIRECTSYNC);
    ck_assert_int_eq(c.drives[0].discard, BLOCKDEV_DISCARD_UNMAP);
    ck_assert_int_eq(c.drives[0].detect_zeroes, BLOCKDEV_DETECT_UNMAP);
    ck_assert_str_eq(c.drives[1].file, "nbd://host:1234/b");
    ck_assert_int_eq(c.drives[1].cache, BLOCKDEV_CACHE_NONE);
    ck_assert_int_eq(c.drives[1].discard, BLOCKDEV_DISCARD_IGNORE);
    parse_ok("-drive file=x,if=none,id=unused -nodefaults"); /* a drive without a device */
    ck_assert_uint_eq(c.device_count, 0);
}
END_TEST

START_TEST(smbios)
{
    static const uint8_t uuid[16] = {0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef,
                                     0x01, 0x23, 0x45, 0x67, 0x89, 0xAB, 0xCD, 0xEF};
    parse_ok("-smbios type=1,serial=ds=nocloud,,x,product=P -smbios type=0,vendor=V,release=3.4 "
             "-smbios type=11,value=a,value=b -uuid 01234567-89ab-cdef-0123-456789ABCDEF");
    ck_assert_str_eq(c.smbios.text[SMBIOS_SYSTEM_SERIAL], "ds=nocloud,x");
    ck_assert_str_eq(c.smbios.text[SMBIOS_SYSTEM_PRODUCT], "P");
    ck_assert_str_eq(c.smbios.text[SMBIOS_BIOS_VENDOR], "V");
    ck_assert(c.smbios.bios && !c.smbios.board && !c.smbios.uefi && c.smbios.has_uuid);
    ck_assert_uint_eq(c.smbios.release[1], 4);
    ck_assert_mem_eq(c.smbios.uuid, uuid, 16);
    ck_assert_uint_eq(c.smbios.oem_count, 2);
    ck_assert_str_eq(c.smbios.oem[1], "b");
    parse_ok("-smbios type=1,uuid=01234567-89ab-cdef-0123-456789abcdef");
    ck_assert_mem_eq(c.smbios.uuid, uuid, 16);
}
END_TEST

/* A device's place: "0:1" for the board's channel 0, drive 1; "a3:2" for port 2 of device 3. */
static const char *place_of(const char *file)
{
    static char text[16];
    for (unsigned i = 0; i < c.device_count; i++) {
        const struct device_config *d = &c.devices[i];
        if ((d->kind != DEVICE_IDE_HD && d->kind != DEVICE_IDE_CD) ||
            strcmp(d->drive ? d->drive->file : "", file) != 0)
            continue;
        const char *kind = d->kind == DEVICE_IDE_CD ? " cd" : "";
        if (d->controller < 0)
            snprintf(text, sizeof(text), "%u:%u%s", d->bus, d->unit, kind);
        else
            snprintf(text, sizeof(text), "a%d:%u%s", d->controller, d->bus, kind);
        return text;
    }
    return "nowhere";
}

START_TEST(places_of_ide_drives)
{
    static const struct {
        const char *line, *file, *place;
    } cases[] = {
        {"-hda x", "x", "0:0"},
        {"-hdb x", "x", "0:1"},
        {"-hdc x", "x", "1:0"},
        {"-hdd x", "x", "1:1"},
        {"-cdrom x", "x", "1:0 cd"},
        {"-drive file=x", "x", "0:0"},
        {"-drive file=y -drive file=x", "x", "0:1"},
        {"-hda y -drive file=x", "x", "0:1"},
        {"-drive file=x,index=3", "x", "1:1"},
        {"-drive file=x,bus=1,unit=1", "x", "1:1"},
        {"-drive file=x,bus=1", "x", "1:0"},
        {"-drive file=x,if=ide,media=cdrom", "x", "0:0 cd"},
        {"-drive media=cdrom,index=1 -hdc x", "", "0:1 cd"},
        {"-snapshot", "", "1:0 cd"}, /* the one that every PC has */
        {"-hda x", "", "1:0 cd"},
        {"-nodefaults", "", "nowhere"},
        {"-hdc x", "", "nowhere"},
        {"-drive if=none,id=d,file=x -device ide-hd,drive=d", "x", "0:0"},
        {"-drive if=none,id=d,file=x -device ide-hd,drive=d", "", "nowhere"},
        {"-hda y -drive if=none,id=d,file=x -device ide-hd,drive=d", "x", "0:1"},
        {"-drive if=none,id=d,file=x -device ide-hd,drive=d,bus=ide.1", "x", "1:0"},
        {"-drive if=none,id=d,file=x -device ide-cd,drive=d,bus=ide.1,unit=1", "x", "1:1 cd"},
        {"-device ide-cd,bus=ide.0,unit=1", "", "0:1 cd"},
        {"-drive if=none,id=d,file=x -device ahci,id=s -device ide-hd,drive=d,bus=s.5", "x",
         "a0:5"},
        {"-drive if=none,id=d,file=x -device ahci -device ahci -device ide-hd,drive=d,bus=ide.9",
         "x", "a1:1"},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        parse_ok(cases[i].line);
        ck_assert_msg(strcmp(place_of(cases[i].file), cases[i].place) == 0, "%s: %s", cases[i].line,
                      place_of(cases[i].file));
    }
    parse_ok("-cdrom x -drive if=none,id=d,file=y -device ide-cd,drive=d,model=M,serial=S,wwn=7");
    ck_assert(c.drives[0].read_only && c.drives[1].read_only);
    ck_assert_str_eq(c.devices[0].model, "M");
    ck_assert_str_eq(c.devices[0].serial, "S");
    ck_assert_uint_eq(c.devices[0].wwn, 7);
}
END_TEST

START_TEST(scsi_drives)
{
    parse_ok("-drive if=none,id=d,file=x -drive if=none,id=e,file=y -device virtio-scsi-pci "
             "-device virtio-scsi,id=s,num_queues=13,addr=6 -device scsi-hd,drive=d "
             "-device scsi-cd -device scsi-hd,drive=e,bus=s.0,scsi-id=255,lun=16383,channel=0,"
             "serial=S,wwn=7,bootindex=2 -device scsi-cd,bus=scsi.0,lun=4");
    ck_assert_uint_eq(c.device_count, 6); /* without the CD-ROM drive that a PC has else */
    ck_assert_uint_eq(c.devices[0].queues, 0);
    ck_assert_uint_eq(c.devices[1].queues, 13);
    static const unsigned places[4][3] = {{0, 0, 0}, {0, 1, 0}, {1, 255, 16383}, {0, 0, 4}};
    for (unsigned i = 0; i < 4; i++) {
        ck_assert_int_eq(c.devices[i + 2].controller, (int)places[i][0]);
        ck_assert_uint_eq(c.devices[i + 2].bus, places[i][1]);
        ck_assert_uint_eq(c.devices[i + 2].unit, places[i][2]);
    }
    ck_assert_ptr_null(c.devices[3].drive);
    ck_assert_str_eq(c.devices[4].serial, "S");
    ck_assert_int_eq(c.devices[4].bootindex, 2);
    parse_ok("-device virtio-scsi-pci -drive if=none,id=d,file=x -device scsi-cd,drive=d");
    ck_assert(c.drives[0].read_only);
}
END_TEST

START_TEST(serial_ports)
{
    static const struct {
        const char *line, *first; /* NULL: no port at all */
    } cases[] = {
        {"-nographic", "mon:stdio"},
        {"-serial stdio", "stdio"},
        {"-serial file:x -serial null", "file:x"},
        {"-nodefaults", NULL},
        {"-nodefaults -nographic", NULL},
        {"-display none", NULL},
        {"-display none -nographic", "mon:stdio"},
        {"-debugcon stdio", NULL},
        {"-debugcon file:x", "mon:stdio"},
        {"-serial none", "none"},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        parse_ok(cases[i].line);
        ck_assert_msg((c.serial_count > 0) == (cases[i].first != NULL), "%s", cases[i].line);
        if (cases[i].first)
            ck_assert_str_eq(c.serials[0], cases[i].first);
    }
}
END_TEST

START_TEST(clock_and_log)
{
    parse_ok("-rtc base=2001-02-03T04:05:06 -d int,mmu -D file -d cpu");
    ck_assert_int_eq(c.rtc_base, RTC_FIXED);
    ck_assert_int_eq(c.rtc_seconds, 981173106);
    ck_assert_uint_eq(c.log_mask, LOG_INT | LOG_MMU | LOG_CPU);
    ck_assert_str_eq(c.log_file, "file");
    ck_assert(!c.symbols && !c.perfmap);
    parse_ok("-rtc base=2001-02-03");
    ck_assert_int_eq(c.rtc_seconds, 981158400);
    parse_ok("-rtc base=localtime,clock=host");
    ck_assert_int_eq(c.rtc_base, RTC_LOCALTIME);
}
END_TEST

START_TEST(looking_into_the_translator)
{
    parse_ok("-accel jit -d int,symbols=/a/b,jit-profile -perfmap");
    ck_assert_uint_eq(c.log_mask, LOG_INT | LOG_JIT_PROFILE);
    ck_assert_str_eq(c.symbols, "/a/b");
    ck_assert(c.perfmap);
    parse_ok("-accel jit -d symbols=/a -d jit-profile,symbols=/b");
    ck_assert_str_eq(c.symbols, "/b");
    ck_assert_uint_eq(c.log_mask, LOG_JIT_PROFILE);
    parse_ok("-d symbols=/a"); /* for nothing, but no harm */
    ck_assert_int_eq(parse("-accel jit -d symbols=/a,nonsense"), OPTIONS_WRONG);
    ck_assert_int_eq(parse("-accel jit -d symbols"), OPTIONS_WRONG);
    ck_assert_int_eq(parse("-accel interp -d jit-profile"), OPTIONS_WRONG);
    ck_assert_int_eq(parse("-accel interp -perfmap"), OPTIONS_WRONG);
}
END_TEST

START_TEST(devices)
{
    parse_ok(
        "-device isa-debug-exit -device isa-debug-exit,iobase=0xf4,iosize=0x04 -device pvpanic "
        "-device virtio-rng-pci -device virtio-rng,id=r");
    ck_assert_uint_eq(c.device_count, 6); /* and the CD-ROM drive */
    ck_assert_uint_eq(c.devices[0].port, 0x501);
    ck_assert_uint_eq(c.devices[0].ports, 2);
    ck_assert_uint_eq(c.devices[1].port, 0xf4);
    ck_assert_uint_eq(c.devices[1].ports, 4);
    ck_assert_uint_eq(c.devices[2].port, 0x505);
    ck_assert_int_eq(c.devices[4].kind, DEVICE_VIRTIO_RNG);
}
END_TEST

/* A file of `size` bytes with `len` of them at `offset`. */
static char *file_with(uint64_t size, size_t offset, const void *bytes, size_t len)
{
    static char paths[16][32];
    static unsigned next;
    char *path = paths[next++ % 16];
    strcpy(path, "/tmp/bailey-bare-XXXXXX");
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, (off_t)size), 0);
    ck_assert_int_eq(pwrite(fd, bytes, len, (off_t)offset), (ssize_t)len);
    close(fd);
    return path;
}

START_TEST(a_file_alone_is_what_it_looks_like)
{
    static const uint32_t multiboot[] = {0x1badb002, 3, -(0x1badb002u + 3)};
    static const uint8_t reset[16] = {0xea, 0x5b, 0xe0, 0x00, 0xf0};
    char *disk = file_with(10 << 20, 510, "\x55\xaa", 2);
    char *qcow2 = file_with(196616, 0, "QFI\xfb\0\0\0\3", 8);
    char *cd = file_with(4 << 20, 0x8001, "CD001", 5); /* a hybrid one has a boot sector as well */
    char *floppy = file_with(1440 << 10, 510, "\x55\xaa", 2);
    char *elf = file_with(5000, 0,
                          "\x7f"
                          "ELF",
                          4);
    char *linux_ = file_with(8 << 20, 0x202, "HdrS", 4);
    char *multi = file_with(9000, 4096, multiboot, sizeof(multiboot));
    char *bios = file_with(256 << 10, (256 << 10) - 16, reset, sizeof(reset));
    char *uefi = file_with(2 << 20, 40, "_FVH", 4);
    char *nothing = file_with(1000, 0, "text", 4);
    char line[256];

    snprintf(line, sizeof(line), "%s %s %s %s", disk, cd, qcow2, floppy);
    parse_ok(line);
    ck_assert_uint_ge(c.drive_count, 4);
    ck_assert_uint_eq(c.ram_size, 1024 * MIB);
    ck_assert_str_eq(c.drives[0].file, disk);
    ck_assert(c.drives[0].interface == DRIVE_IDE && !c.drives[0].cdrom);
    ck_assert(c.drives[0].bus == 0 && c.drives[0].unit == 0);
    ck_assert(c.drives[1].cdrom && c.drives[1].bus == 1 && c.drives[1].unit == 0);
    ck_assert(!c.drives[2].cdrom && c.drives[2].bus == 0 && c.drives[2].unit == 1);
    ck_assert(c.drives[3].interface == DRIVE_FLOPPY);
    char *kernels[] = {elf, linux_, multi};
    for (unsigned i = 0; i < 3; i++) {
        parse_ok(kernels[i]);
        ck_assert_str_eq(c.kernel, kernels[i]);
    }
    char *images[] = {bios, uefi};
    for (unsigned i = 0; i < 2; i++) {
        parse_ok(images[i]);
        ck_assert_str_eq(c.bios, images[i]);
    }
    ck_assert_int_eq(parse(nothing), OPTIONS_WRONG);
    ck_assert_ptr_nonnull(strstr(err.msg, "format=raw takes it as a disk all the same"));
    snprintf(line, sizeof(line), "%s %s", elf, linux_);
    ck_assert_int_eq(parse(line), OPTIONS_WRONG);
    ck_assert_ptr_nonnull(strstr(err.msg, "there can be one"));

    char *all[] = {disk, qcow2, cd, floppy, elf, linux_, multi, bios, uefi, nothing};
    for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        unlink(all[i]);
}
END_TEST

START_TEST(flash_chips_have_places)
{
    parse_ok("-pflash code -drive if=pflash,file=vars");
    ck_assert(c.drives[0].interface == DRIVE_PFLASH && c.drives[0].unit == 0);
    ck_assert(c.drives[1].interface == DRIVE_PFLASH && c.drives[1].unit == 1);
    parse_ok("-drive if=pflash,unit=1,file=vars -pflash code");
    ck_assert(c.drives[0].unit == 1 && c.drives[1].unit == 0);
    ck_assert_int_eq(parse("-pflash a -pflash b -pflash c"), OPTIONS_WRONG);
    ck_assert_str_eq(err.msg, "-pflash: there already is a flash chip 1; there are two, 0 and 1");
}
END_TEST

START_TEST(firmware_has_options)
{
    parse_ok("-bios b -L a -L z -boot order=dc,once=n,menu=on,reboot-timeout=5 -fw_cfg "
             "opt/a,string=text");
    ck_assert_str_eq(c.bios, "b");
    ck_assert_str_eq(c.folders[1], "z");
    ck_assert_str_eq(c.boot.order, "dc");
    ck_assert_str_eq(c.boot.once, "n");
    ck_assert(c.boot.menu && c.boot.fail_wait_given && c.boot.fail_wait == 5);
    ck_assert_uint_eq(c.fw_file_count, 1);
    ck_assert_uint_eq(c.fw_files[0].len, 4);
    ck_assert_int_eq(parse("-boot cx"), OPTIONS_WRONG);
    ck_assert_ptr_nonnull(strstr(err.msg, "'x' is no device"));
    ck_assert_int_eq(parse("-boot cc"), OPTIONS_WRONG);
    ck_assert_int_eq(parse("-fw_cfg opt/a"), OPTIONS_WRONG);
    ck_assert_int_eq(parse("-fw_cfg opt/a,file=/no/such"), OPTIONS_WRONG);
}
END_TEST

START_TEST(what_is_wrong_is_named_with_the_nearest)
{
    static const struct {
        const char *line, *message;
    } cases[] = {
        {"-kernle x", "-kernle: unknown option; did you mean -kernel?"},
        {"-accel jit,tb-size=1 -smp 8",
         "-accel: tb-size=1 is too small: 1 (MiB) for each processor is the least"},
        {"-smp 8 -accel jit,tb-size=1",
         "-accel: tb-size=1 is too small: 1 (MiB) for each processor is the least"},
        {"--sereal stdio", "--sereal: unknown option; did you mean -serial?"},
        {"-enable-kvm", "-enable-kvm: Bailey lacks this option; the nearest is -accel"},
        {"-kernel", "-kernel: needs an argument: FILE"},
        {"no/disk.img", "no/disk.img: No such file or directory"},
        {"/tmp", "/tmp: is no file that could be booted"},
        {"-", "-: is no option; a file called '-' is ./-"},
        {"-accel kvm", "-accel: 'kvm' is not available; the nearest is 'jit'"},
        {"-machine q35", "-machine: 'q35' is not available; the nearest is 'pc'"},
        {"-machine pc,accel=tcg", "-machine: accel: 'tcg' is not available; the nearest is 'jit'"},
        {"-machine pc,smn=on", "-machine: unknown property 'smn'; did you mean 'type'?"},
        {"-m 512,slots=2", "-m: unknown property 'slots'; did you mean 'size'?"},
        {"-drive file=x,format=qcow",
         "-drive: format: 'qcow' is not available; the nearest is 'qcow2'"},
        {"-drive file=x,detect-zeroes=unmap", "-drive: detect-zeroes=unmap needs discard=unmap"},
        {"-drive file=x,aio=io_uring",
         "-drive: aio: 'io_uring' is not available; the nearest is 'threads'"},
        {"-drive file=x,if=sd", "-drive: if: 'sd' is not available; the nearest is 'ide'"},
        {"-drive file=x,index=4", "-drive: index=4 is not a number from 0 to 3"},
        {"-drive file=x,index=1,unit=1",
         "-drive: index= says the same as bus= and unit=; give one"},
        {"-drive file=a -drive file=b -drive file=c -drive file=d -drive file=e",
         "-drive: all four places for IDE drives are taken; if=virtio has more"},
        {"-drive if=virtio,media=cdrom", "-drive: if=virtio needs file=PATH"},
        {"-drive file=x,readonly=on",
         "-drive file=x: an IDE or SATA disk cannot be read-only; with snapshot=on instead of "
         "readonly=on its file stays as it is"},
        {"-device ich9-ahci,id=a -drive file=x,if=none,id=d,read-only=on,snapshot=on "
         "-device ide-hd,drive=d,bus=a.0",
         "-drive file=x: an IDE or SATA disk cannot be read-only; with snapshot=on instead of "
         "readonly=on its file stays as it is"},
        {"-smbios vendor=x", "-smbios: needs type=0, 1, 2, 3 or 11"},
        {"-smbios file=x", "-smbios: file= is not available; type=N,KEY=TEXT is"},
        {"-smbios type=4,asset=x", "-smbios: type=4 is not available; types 0 to 3 and 11 are"},
        {"-smbios type=0,release=1",
         "-smbios: release=1 is no release, such as 1.2 (of 255 at most)"},
        {"-smbios type=11,value=", "-smbios: a string of type=11 is empty"},
        {"-smbios type=11,path=/nonexistent", "-smbios: /nonexistent: No such file or directory"},
        {"-uuid 01234567-89ab-cdef-0123-456789abcde",
         "-uuid: '01234567-89ab-cdef-0123-456789abcde' is no UUID, such as "
         "01234567-89ab-cdef-0123-456789abcdef"},
        {"-cdrom a -hdc b", "-hdc: there already is a drive with bus=1, unit=0 (index=2)"},
        {"-drive if=scsi,file=x",
         "-drive: if=scsi: a PC has no SCSI adapter of its own; give the drive if=none,id=ID, with "
         "-device virtio-scsi-pci -device scsi-hd,drive=ID (or scsi-cd)"},
        {"-device virtio-scsi-pci -device scsi-hd",
         "-device scsi-hd: needs drive=ID of a drive with file=PATH"},
        {"-device scsi-cd -device virtio-scsi-pci", "-device scsi-cd: there is no SCSI adapter "
                                                    "yet; put -device virtio-scsi-pci before it"},
        {"-device virtio-scsi-pci,id=s -device scsi-cd,bus=s.1",
         "-device scsi-cd: there is no bus 's.1' yet; -device virtio-scsi-pci,id=ID before it "
         "makes ID.0"},
        {"-device virtio-scsi-pci -device scsi-cd -device scsi-cd,scsi-id=0",
         "-device scsi-cd: scsi-id=0, lun=0 is taken"},
        {"-device virtio-scsi-pci -device scsi-cd,lun=16384",
         "-device scsi-cd: lun=16384 is not a number from 0 to 16383"},
        {"-device virtio-scsi-pci,num_queues=14",
         "-device virtio-scsi-pci: num_queues=14 is not a number from 0 to 13"},
        {"-device virtio-scsi-pci,num_queues=0",
         "-device virtio-scsi-pci: num_queues=0; it has 1 to 13"},
        {"-device ide-hd", "-device ide-hd: needs drive=ID of a drive with file=PATH"},
        {"-device ide-cd,bus=sata.0", "-device ide-cd: there is no bus 'sata.0' yet; there are "
                                      "ide.0, ide.1, and ID.0 to ID.5 behind -device "
                                      "ich9-ahci,id=ID"},
        {"-device ide-cd,bus=sata.0 -device ahci,id=sata",
         "-device ide-cd: there is no bus 'sata.0' yet; there are ide.0, ide.1, and ID.0 to ID.5 "
         "behind -device ich9-ahci,id=ID"},
        {"-device ahci,id=s -device ide-cd,bus=s.6",
         "-device ide-cd: there is no bus 's.6' yet; there are ide.0, ide.1, and ID.0 to ID.5 "
         "behind -device ich9-ahci,id=ID"},
        {"-device ahci,id=s -device ide-cd,bus=s.0,unit=1",
         "-device ide-cd: bus 's.0' has no unit 1"},
        {"-device ide-cd,bus=ide.0,unit=1 -device ide-cd,bus=ide.0,unit=1",
         "-device ide-cd: unit 1 of bus 'ide.0' is taken"},
        {"-hda x -device ide-cd,bus=ide.0,unit=0",
         "-device ide-cd: unit 0 of bus 'ide.0' is taken"},
        {"-drive file=x,cache=write",
         "-drive: cache: 'write' is not available; the nearest is 'writeback'"},
        {"-drive file=x,discard=maybe",
         "-drive: discard: 'maybe' is not available; the nearest is 'ignore'"},
        {"-drive file=x,reedonly=on",
         "-drive: unknown property 'reedonly'; did you mean 'readonly'?"},
        {"-drive file=x,readonly=maybe",
         "-drive: readonly: 'maybe' is not available; the nearest is 'false'"},
        {"-drive if=virtio", "-drive: needs file=PATH"},
        {"-drive file=a,id=x -drive file=b,id=x", "-drive: id 'x' is used twice"},
        {"-hda a -hda b", "-hda: there already is a drive with bus=0, unit=0 (index=0)"},
        {"-device virtio-net-pci", "-device: 'virtio-net-pci' is not available; the nearest is "
                                   "'virtio-blk-pci'"},
        {"-device isa-debug-exit,iobas=1",
         "-device isa-debug-exit: unknown property 'iobas'; did you mean 'iobase'?"},
        {"-device isa-debug-exit,iobase=0x10000",
         "-device: iobase=0x10000 is not a number from 0 to 65535"},
        {"-device virtio-blk-pci", "-device virtio-blk-pci: needs drive=ID"},
        {"-device virtio-blk-pci,drive=d",
         "-device: there is no drive 'd'; -drive if=none,id=d,file=PATH makes one"},
        {"-drive if=none,id=disk,file=x -device virtio-blk-pci,drive=dist",
         "-device: drive: 'dist' is not available; the nearest is 'disk'"},
        {"-drive if=virtio,id=d,file=x -device virtio-blk-pci,drive=d",
         "-device: drive 'd' already has a device (give it if=none)"},
        {"-serial pty", "-serial: 'pty' is not available; the nearest is 'stdio'"},
        {"-serial file:", "-serial: file: needs a path"},
        {"-serial stdio -debugcon stdio",
         "the terminal (stdio) can serve only one of -serial and -debugcon"},
        {"-nographic -debugcon stdio",
         "the terminal (stdio) can serve only one of -serial and -debugcon"},
        {"-display gtk", "-display: 'gtk' is not available; the nearest is 'none'"},
        {"-vga cirrus", "-vga: 'cirrus' is not available; the nearest is 'std'"},
        {"-device VGA,vgamem_mb=300", "-device: vgamem_mb=300 is not a number from 0 to 256"},
        {"-d int,bogus,mmu", "-d: 'bogus' is not available; the nearest is 'cpu'"},
        {"-rtc base=yesterday", "-rtc: base: 'yesterday' is not available; the nearest is 'utc'"},
        {"-rtc clock=vm", "-rtc: clock: 'vm' is not available; the nearest is 'host'"},
        {"-append x", "-append: needs -kernel"},
        {"-initrd x", "-initrd: needs -kernel"},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        ck_assert_msg(parse(cases[i].line) == OPTIONS_WRONG, "%s", cases[i].line);
        ck_assert_str_eq(err.msg, cases[i].message);
    }
    ck_assert_int_eq(parse("-cpu nonesuch"), OPTIONS_WRONG);
    ck_assert_ptr_nonnull(strstr(err.msg, "nonesuch"));
    ck_assert_ptr_null(strchr(err.msg, '\n'));
}
END_TEST

START_TEST(help_texts)
{
    static const struct {
        const char *line, *text;
    } cases[] = {
        {"-help", "-kernel FILE"},
        {"--h", "-kernel FILE"},
        {"-version", "Bailey 0."},
        {"-cpu help", "qemu64"},
        {"-machine help", "pc"},
        {"-accel help", "interp"},
        {"-device help", "isa-debug-exit"},
        {"-d help", "guest_errors"},
        {"-d ?", "in_asm"},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        ck_assert_msg(parse(cases[i].line) == OPTIONS_INFORMED, "%s", cases[i].line);
        ck_assert_msg(strstr(information, cases[i].text) != NULL, "%s", cases[i].line);
    }
}
END_TEST

START_TEST(limits)
{
    char line[1024] = "";
    for (unsigned i = 0; i <= MACHINE_MAX_DRIVES; i++)
        strcat(line, "-drive file=x,if=virtio ");
    ck_assert_int_eq(parse(line), OPTIONS_WRONG);
    ck_assert_str_eq(err.msg, "more than 16 drives");
    ck_assert_int_eq(parse("-serial null -serial null -serial null -serial null -serial null"),
                     OPTIONS_WRONG);
    line[0] = 0;
    for (unsigned i = 0; i <= MACHINE_MAX_DEVICES; i++)
        strcat(line, "-device pvpanic ");
    ck_assert_int_eq(parse(line), OPTIONS_WRONG);
    strcpy(line, "-drive file=x,if=virtio");
    for (unsigned i = 0; i < 40; i++)
        strcat(line, ",id=a");
    ck_assert_int_eq(parse(line), OPTIONS_WRONG);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("options");
    TCase *t = tcase_create("options");
    tcase_add_test(t, defaults);
    tcase_add_test(t, the_board_without_its_extras);
    tcase_add_test(t, memory_sizes);
    tcase_add_test(t, processors);
    tcase_add_test(t, kernel_and_friends);
    tcase_add_test(t, drives);
    tcase_add_test(t, smbios);
    tcase_add_test(t, places_of_ide_drives);
    tcase_add_test(t, scsi_drives);
    tcase_add_test(t, serial_ports);
    tcase_add_test(t, clock_and_log);
    tcase_add_test(t, looking_into_the_translator);
    tcase_add_test(t, devices);
    tcase_add_test(t, a_file_alone_is_what_it_looks_like);
    tcase_add_test(t, flash_chips_have_places);
    tcase_add_test(t, firmware_has_options);
    tcase_add_test(t, what_is_wrong_is_named_with_the_nearest);
    tcase_add_test(t, help_texts);
    tcase_add_test(t, limits);
    suite_add_tcase(suite, t);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
