#!/usr/bin/env python3
"""Disk and CD images that boot by firmware: Debian from power-on to a clean shutdown, and what else people have.

    firmware.py BAILEY BAILEYCTL GUESTS [NAME]...
"""
import filecmp
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

from boot import Failure, Guest, PROMPT, run, tool

BAILEY, BAILEYCTL, GUESTS = sys.argv[1:4]
OVMF = "/usr/share/OVMF/"
OVMF_CODE = f"if=pflash,format=raw,readonly=on,file={OVMF}OVMF_CODE_4M.fd"  # other tests use it meanwhile
ROOT_START = 69632 * 512  # tests/boot/make-disk
PROGRAM = r'#include <stdio.h>\nint main(void) { printf("6 x 7 = %%d\\n", 6 * 7); return 0; }\n'


def check_disk(folder, disk, form):
    """The image's own structure, then the file system in it."""
    raw = disk
    if form == "qcow2":
        tool("qemu-img", "check", "-q", disk)
        raw = os.path.join(folder, "raw")
        tool("qemu-img", "convert", "-O", "raw", disk, raw)
    root = os.path.join(folder, "root")
    tool("dd", f"if={raw}", f"of={root}", "bs=1M", f"skip={ROOT_START >> 20}", "conv=sparse", "status=none")
    tool("truncate", "-s", "-1M", root)  # behind the partition
    tool("e2fsck", "-f", "-n", root)


ATTACH = {
    "ide": ["-drive", "file={disk},format={form}"],
    "virtio": ["-drive", "file={disk},format={form},if=virtio"],
    "ahci": ["-device", "ich9-ahci,id=sata", "-drive", "file={disk},format={form},if=none,id=d",
             "-device", "ide-hd,drive=d,bus=sata.0"],
    "bare": ["{disk}"],
}


def debian(firmware, attach, form, *options):
    """Log in, compile, write, power off; then look at what is on the disk."""
    with tempfile.TemporaryDirectory(dir=GUESTS) as folder:
        disk, variables = os.path.join(folder, "disk"), os.path.join(folder, "vars")
        tool("qemu-img", "convert", "-O", form, os.path.join(GUESTS, "debian.disk"), disk)
        words = [*([] if attach == "bare" else ["-m", "1024"]), "-nographic", *options]
        if firmware == "uefi":
            shutil.copy(OVMF + "OVMF_VARS_4M.fd", variables)
            words += ["-drive", OVMF_CODE,
                      "-drive", f"if=pflash,format=raw,file={variables}"]
        words += [word.format(disk=disk, form=form) for word in ATTACH[attach]]
        guest = Guest(BAILEY, words)
        try:
            guest.expect("login: ", 300)
            guest.send("root\n")
            guest.expect(r":~# ", 60)
            # A shell that leaves the terminal as it is; the echo of this must not look like its prompt.
            guest.send(f"stty cols 200; exec env PS1='{PROMPT[:1]}''{PROMPT[1:]}' sh\n")
            guest.expect(re.escape(PROMPT), 60)
            has_efi = guest.command("test -d /sys/firmware/efi && echo yes || echo no").strip()
            if has_efi != ("yes" if firmware == "uefi" else "no"):
                raise Failure(f"asked for {firmware}, but /sys/firmware/efi: {has_efi}")
            guest.command(f"printf '{PROGRAM}' > t.c && gcc -O2 -Wall -Werror -o t t.c", 120)
            if "6 x 7 = 42" not in guest.command("./t"):
                raise Failure("the program that was compiled printed something else")
            guest.command("seq 1 300000 > numbers; sync; echo 3 > /proc/sys/vm/drop_caches; seq 1 300000 | cmp - numbers", 120)
            status = guest.finish("poweroff", 120)
            if status != 0:
                raise Failure(f"power-off ended with status {status}")
        finally:
            guest.kill()
        if firmware == "uefi" and filecmp.cmp(variables, OVMF + "OVMF_VARS_4M.fd", shallow=False):
            raise Failure("no variable has reached the file")
        check_disk(folder, disk, form)


def on_screen(text):
    """A pattern for text that SeaBIOS shows: it may move the cursor to where it is between any two letters."""
    return r"(?:\x1b\[[0-9;]*H)*".join(re.escape(letter) for letter in text)


def ipxe(image, *expected):
    """Up to its command line."""
    guest = Guest(BAILEY, ["-nographic", os.path.join(GUESTS, "ipxe", image)])
    try:
        for text in (*expected, "iPXE initialising devices", "Press Ctrl-B"):
            guest.expect(on_screen(text), 90)
        guest.send("\x02")
        guest.expect(on_screen("iPXE> "), 90)
    finally:
        guest.kill()


# The last test of a pass waits for bits to fade, some minutes; what comes before it tests more of the machine.
MEMTEST_WAITS = "#10 [Bit fade test"


def memtest(*options):
    """A pass up to where it waits, seen on the display."""
    with tempfile.TemporaryDirectory() as folder:
        socket = os.path.join(folder, "socket")
        iso = os.path.join(GUESTS, "memtest86+/usr/lib/memtest86+/memtest86+x64.iso")
        guest = Guest(BAILEY, ["-display", "none", "-serial", "null", "-protect", f"socket={socket}", *options, iso])
        try:
            end, screen = time.monotonic() + 300, ""
            while time.monotonic() < end:
                guest.pump(2)
                shown = subprocess.run([BAILEYCTL, "--socket", socket, "screen"], stdout=subprocess.PIPE,
                                       stderr=subprocess.STDOUT, text=True, check=False)
                screen = shown.stdout
                errors = re.search(r"Errors:\s+(\d+)", screen)
                if errors and int(errors.group(1)):
                    raise Failure("memtest86+ has found errors:\n" + screen)
                if errors and MEMTEST_WAITS in screen:
                    return
            raise Failure("memtest86+ has not come to the end of a pass:\n" + screen)
        finally:
            guest.kill()


def installer(architecture, memory):
    root = os.path.join(GUESTS, f"installer-{architecture}/usr/lib/debian-installer/images/12/{architecture}/text",
                        f"debian-installer/{architecture}")
    guest = Guest(BAILEY, ["-m", memory, "-nographic", "-kernel", f"{root}/linux", "-initrd", f"{root}/initrd.gz",
                           "-append", "console=ttyS0"])
    try:
        guest.expect("Select a language", 240)
    finally:
        guest.kill()


def kernel(*options, efi):
    """-kernel, -initrd and -append, by firmware."""
    guest = Guest(BAILEY, ["-m", "512", "-nographic", "-kernel", os.path.join(GUESTS, "vmlinuz-cloud"),
                           "-initrd", os.path.join(GUESTS, "test.cpio.gz"), "-append", "console=ttyS0 said=so", *options])
    try:
        guest.expect(re.escape(PROMPT), 120)
        if "said=so" not in guest.command("cat /proc/cmdline"):
            raise Failure("the command line has been lost")
        guest.command("test -d /sys/firmware/efi", status=0 if efi else 1)
        guest.finish("poweroff -f")
    finally:
        guest.kill()


def kernel_by_bios():
    kernel("-bios", "bios-256k.bin", efi=False)


def kernel_by_uefi():
    kernel("-drive", OVMF_CODE, efi=True)


def kernel_that_calls_the_bios():
    """iPXE has no entry but its setup code: it gets SeaBIOS unasked."""
    ipxe("boot/ipxe.lkrn", "SeaBIOS")


def secure_boot_is_refused():
    """In one line, at once: it would hang."""
    for image in "OVMF_CODE_4M.secboot.fd", "OVMF_CODE.secboot.fd":
        done = subprocess.run([BAILEY, "-display", "none", "-pflash", OVMF + image], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, timeout=60, check=False)
        if done.returncode != 1 or done.stderr.count("\n") != 1 or "needs system management mode" not in done.stderr:
            raise Failure(f"{image}: status {done.returncode}: {done.stderr}")


def grub_rescue(image, *options):
    """The menu, and behind it the prompt, at which it does what it is told."""
    guest = Guest(BAILEY, ["-nographic", *options, os.path.join(GUESTS, "grub-rescue/usr/lib/grub-rescue", image)])
    try:
        guest.expect(on_screen("executed automatically in"), 90)
        guest.send("c")
        guest.expect(on_screen("grub> "), 60)
        for key in "ls":  # SeaBIOS has room for few keys
            guest.send(key)
            guest.expect(key, 60)
        guest.send("\r")
        guest.expect(r"\n.*(%s|%s)" % (on_screen("(cd)"), on_screen("(fd0)")), 60)
    finally:
        guest.kill()


def grub_rescue_cd():
    grub_rescue("grub-rescue-cdrom.iso")


def grub_rescue_floppy():
    grub_rescue("grub-rescue-floppy.img", "-fda")


def ipxe_cd():
    ipxe("usr/lib/ipxe/ipxe.iso")


def memtest_bios():
    memtest("-m", "8")


def memtest_uefi():
    """The same, seen on the serial port, for by UEFI the display is a picture. Handed over by OVMF as a kernel, which it also is."""
    guest = Guest(BAILEY, ["-m", "64", "-nographic", "-kernel", os.path.join(GUESTS, "memtest86+/boot/memtest86+x64.efi"),
                           "-append", "console=ttyS0,115200", "-drive", OVMF_CODE])
    try:
        guest.expect(r"Memtest86\+ v6", 120)
        guest.expect(re.escape(MEMTEST_WAITS), 300)
        if "Errors: 0 " not in guest.expect("Pass:", 60) + guest.expect("Using:", 60):
            raise Failure("memtest86+ has found errors")
    finally:
        guest.kill()


def installer_i386():
    installer("i386", "512")


def installer_amd64():
    installer("amd64", "1024")


def xen():
    """The hypervisor and Debian as its first guest, up to a shell there: as far as on QEMU's TCG, with the same words."""
    path = {name: os.path.join(GUESTS, name) for name in ("xen.elf", "vmlinuz-debian", "test.cpio.gz")}
    guest = Guest(BAILEY, ["-m", "1024", "-nographic", "-no-reboot", "-kernel", path["xen.elf"],
                           "-append", "console=com1 com1=115200 loglvl=all",
                           "-initrd", f"{path['vmlinuz-debian']} console=hvc0,{path['test.cpio.gz']}"])
    try:
        guest.expect(r"\(XEN\) Xen version 4\.17", 120)
        guest.expect(r"\(XEN\) \*\*\* Building a PV Dom0 \*\*\*", 120)
        guest.expect(re.escape(PROMPT), 240)
        if guest.command("cat /sys/hypervisor/type").strip() != "xen":
            raise Failure("Debian does not see that it runs on Xen")
        if guest.command("seq 1 3000 | awk '{t += $1} END {print t}'").strip() != "4501500":
            raise Failure("a wrong sum")
        if guest.finish("poweroff -f", 120) != 0:
            raise Failure("exit status after power-off")
    finally:
        guest.kill()


# Every way to a Debian disk, and the bare command line; two with two processors.
DEBIAN = {f"{firmware}_{attach}_{form}": (firmware, attach, form, *(("-smp", "2") if smp else ()))
          for firmware, attach, form, smp in (
              ("bios", "ide", "raw", False), ("bios", "ide", "qcow2", False),
              ("bios", "ahci", "raw", False), ("bios", "ahci", "qcow2", False),
              ("bios", "virtio", "raw", False), ("bios", "virtio", "qcow2", True), ("bios", "bare", "qcow2", False),
              ("uefi", "ide", "raw", False), ("uefi", "ide", "qcow2", False),
              ("uefi", "ahci", "raw", False), ("uefi", "ahci", "qcow2", True),
              ("uefi", "virtio", "raw", False), ("uefi", "virtio", "qcow2", False))}
TESTS = {name: functools.partial(debian, *words) for name, words in DEBIAN.items()}
TESTS |= {f.__name__: f for f in (kernel_by_bios, kernel_by_uefi, kernel_that_calls_the_bios, secure_boot_is_refused,
                                  grub_rescue_cd, grub_rescue_floppy, ipxe_cd, memtest_bios, memtest_uefi, installer_i386, installer_amd64,
                                  xen)}
sys.exit(run(TESTS, sys.argv[4:]))
