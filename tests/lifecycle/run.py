#!/usr/bin/env python3
"""Protected memory through the life of processes on Debian's own kernel: each program here runs in a guest.

usage: run.py BAILEY GUESTS-DIRECTORY PROGRAMS-DIRECTORY [NAME...]
"""
import glob
import gzip
import os
import re
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "boot"))
from boot import PROMPT, Failure, Guest, run  # noqa: E402

if len(sys.argv) < 4:
    sys.exit(__doc__)
BAILEY, GUESTS, BIN = sys.argv[1:4]
MODULES = ("virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk")


# ---- The initramfs -------------------------------------------------------------------------------------

def newc(name, mode, data=b""):
    """A member of a cpio archive as the kernel reads it (Documentation/driver-api/early-userspace/buffer-format)."""
    encoded = name.encode() + b"\0"
    fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
    member = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
    member += b"\0" * (-len(member) % 4) + data
    return member + b"\0" * (-len(member) % 4)


def initramfs(folder, programs):
    """The boot tests' initramfs with the programs behind it: the kernel unpacks archives one after another."""
    base = os.path.join(GUESTS, "test.cpio.gz")
    if not os.path.exists(base):
        raise Failure(f"{base} is missing; ./dev guests makes it")
    archive = newc("life", 0o40755) + newc("modules", 0o40755)
    for program in programs:
        with open(os.path.join(BIN, program), "rb") as file:
            archive += newc(f"life/{program}", 0o100755, file.read())
    for module in MODULES:
        for path in glob.glob(f"{GUESTS}/kernel-cloud/lib/modules/*/kernel/drivers/*/{module}.ko"):
            with open(path, "rb") as file:
                archive += newc(f"modules/{module}.ko", 0o100644, file.read())
    archive += newc("TRAILER!!!", 0)
    out = os.path.join(folder, "initramfs")
    with open(base, "rb") as first, open(out, "wb") as file:
        file.write(first.read() + gzip.compress(archive, 1))
    return out


class Linux:
    """Debian's cloud kernel with the programs, at a shell."""

    def __init__(self, programs, *options, append="", memory="256"):
        self.folder = tempfile.TemporaryDirectory()
        self.guest = Guest(BAILEY, ["-m", memory, *options, "-kernel", os.path.join(GUESTS, "vmlinuz-cloud"),
                                    "-initrd", initramfs(self.folder.name, programs), "-append",
                                    f"console=ttyS0 {append}", "-nographic", "-no-reboot"])

    def __enter__(self):
        self.guest.expect(re.escape(PROMPT), 300)
        self.guest.command("dmesg -n 1")  # a shell's output is not to be torn by the kernel's
        return self.guest

    def __exit__(self, kind, value, trace):
        try:
            if kind is None and self.guest.finish("poweroff -f") != 0:
                raise Failure("exit status after power-off")
        finally:
            self.guest.kill()
            self.folder.cleanup()


def tests_of(program):
    """The names in the program's table."""
    with open(os.path.join(os.path.dirname(__file__), program + ".c"), encoding="utf-8") as file:
        return re.findall(r'^    \{"(\w+)", \w+\},$', file.read(), re.M)


def run_program(guest, program, names=(), limit=600):
    """Every test of the program must have run, and be ok."""
    guest.send(f"/life/{program} {' '.join(names)}; echo STATUS=$?\n")
    guest.expect(r"echo STATUS=\$\?\n", 60)
    output = guest.expect(r"STATUS=\d+\n", limit)
    guest.expect(re.escape(PROMPT), 60)
    ran = re.findall(r"^ok (\w+)$", output, re.M)
    if ran != list(names or tests_of(program)):
        raise Failure(f"{program}: not all is well:\n{output}")
    for line in re.findall(r"^  .*$", output, re.M):
        print(f"     {program}:{line[1:]}")


def kernel_is_content(guest, allowed=r"^$"):
    for line in guest.command("dmesg").splitlines():
        if re.search(r"BUG|Oops|lockup|stall|WARNING|hung|Bad page", line) and not re.search(allowed, line):
            raise Failure(f"the kernel complains: {line}\n" + guest.command("dmesg | tail -n 60")[-3000:])


# ---- Tests ---------------------------------------------------------------------------------------------

def plain(program, *options, append=""):
    def test():
        with Linux([program], *options, append=append) as guest:
            run_program(guest, program)
            kernel_is_content(guest)
    return test


def isolation(option, enabled):
    """The same with the kernel's and the program's page tables apart, or in one: a program then has two roots, or one."""
    def test():
        with Linux(["fork", "leave", "kernel", "upcalls"], append=option) as guest:
            if ("Kernel/User page tables isolation: enabled" in guest.command("dmesg")) != enabled:
                raise Failure(f"{option} does not do what it says")
            for program in ("fork", "leave", "kernel", "upcalls"):
                run_program(guest, program)
            kernel_is_content(guest)
    return test


def oops(access, code, value, *options):
    """The kernel's own access is refused: it says so, kills who asked, and goes on."""
    def test():
        linux = Linux(["oops"], *options)
        try:
            guest = linux.__enter__()
            guest.command("dmesg -n 8")
            guest.send(f"/life/oops {access} &\n")
            guest.expect(r"BUG: unable to handle page fault for address: ffff", 60)
            guest.expect(rf"error_code\(0x{code:04x}\)", 10)
            guest.expect(rf"the one who asked ended by signal 9; event 1 subject 2 access {value}; secret k\n", 60)
            guest.send("\n")
            if guest.command("echo $((6 * 7))").strip() != "42":
                raise Failure("the kernel does not go on")
        finally:
            linux.__exit__(Failure, None, None)
    return test


def huge(*options):
    with Linux(["huge"], *options) as guest:  # below 512 MiB the kernel starts without huge pages
        guest.command("cd /sys/kernel/mm/transparent_hugepage && echo madvise > enabled && echo always > defrag; cd /")
        run_program(guest, "huge")
        kernel_is_content(guest)


def swap(*options):
    with tempfile.TemporaryDirectory() as folder:
        disk = os.path.join(folder, "disk")
        with open(disk, "wb") as image:
            image.truncate(256 << 20)
        with Linux(["swap"], "-drive", f"file={disk},if=virtio,format=raw", *options, memory="128") as guest:
            guest.command(f"for m in {' '.join(MODULES)}; do insmod /modules/$m.ko; done")
            guest.command("mkswap /dev/vda && swapon /dev/vda")
            run_program(guest, "swap")
            kernel_is_content(guest)


# What a page fault of the kernel says (SDM vol. 3, 4.7), with the marker of protect.h.
PRESENT, WRITE, MARKER = 1, 2, 1 << 15

TESTS = {
    "fork": plain("fork"),
    "leave": plain("leave"),
    "swap": swap,
    "swap_smp": lambda: swap("-smp", "2"),
    "huge": huge,
    "huge_smp": lambda: huge("-smp", "2"),
    "leave_smp": plain("leave", "-smp", "2"),
    "fork_smp": plain("fork", "-smp", "2"),
    "hammer": plain("hammer", "-smp", "2"),
    "upcalls": plain("upcalls"),
    "kernel": plain("kernel"),
    "kernel_smp": plain("kernel", "-smp", "2"),
    "oops_read": oops("read", PRESENT | MARKER, 1),
    "oops_write": oops("write", PRESENT | WRITE | MARKER, 2),
    "oops_write_smp": oops("write", PRESENT | WRITE | MARKER, 2, "-smp", "2"),
    "signals": plain("signals"),
    "signals_smp": plain("signals", "-smp", "2"),
    "pti_on": isolation("pti=on", True),
    "pti_off": isolation("nopti", False),
}
sys.exit(run(TESTS, sys.argv[4:]))
