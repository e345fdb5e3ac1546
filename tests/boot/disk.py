#!/usr/bin/env python3
"""A real kernel on a qcow2 image, whose machine is killed while it writes.

An untouched Debian boots from a qcow2 overlay of its image. What its `sync` has returned for must be there
after the process was killed, the image must be whole in qemu-img's eyes, and ext4 in its own.

usage: disk.py BAILEY GUESTS NAME...        (tests/boot/boot.py drives the console)
"""
import os
import subprocess
import sys
import tempfile

from boot import Failure, Guest, run, tool

BAILEY, GUESTS = sys.argv[1], os.path.abspath(sys.argv[2])


def session(options, work):
    guest = Guest(BAILEY, ["-m", "512", "-nographic", "-no-reboot", "-kernel", f"{GUESTS}/vmlinuz-debian",
                           "-initrd", f"{GUESTS}/initrd-debian", "-append",
                           "root=/dev/vda rw console=ttyS0 init=/bin/sh", "-drive", options])
    try:
        guest.expect(r"(?m)^# ", 240)
        guest.send("PS1='TEST# '\n")
        guest.expect(r"(?m)^TEST# ", 30)
        guest.command("mount -t proc proc /proc")
        work(guest)
    finally:
        guest.kill()


def check(disk):
    """Whole; clusters that nobody uses any more may be left (status 3)."""
    tool("qemu-img", "check", disk, ok=(0, 3))


def qcow2_killed():
    with tempfile.TemporaryDirectory(dir=GUESTS) as folder:
        disk = os.path.join(folder, "disk")
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", f"{GUESTS}/debian.ext4", "-F", "raw",
                        disk], check=True)

        def write_and_die(guest):
            guest.command("seq 1 200000 > /root/kept; md5sum /bin/* > /root/sums; sync", 240)
            guest.send("while :; do seq 1 300000 > /root/$((n = n + 1)); done\n")
            for _ in range(4):
                guest.pump(1)
            guest.process.kill()
            guest.process.wait()

        def look(guest):
            guest.command("seq 1 200000 | cmp - /root/kept; md5sum --quiet -c /root/sums", 240)
            guest.command("rm -f /root/[0-9]*; sync; mount -o remount,ro /", 240)
            if guest.finish("echo o > /proc/sysrq-trigger") not in (0,):
                raise Failure("exit status after power-off")

        options = f"file={disk},if=virtio,format=qcow2,discard=unmap"
        session(options, write_and_die)
        check(disk)
        session(options, look)
        check(disk)
        raw = os.path.join(folder, "raw")
        tool("qemu-img", "convert", "-O", "raw", disk, raw)
        tool("e2fsck", "-f", "-n", raw)


TESTS = {f.__name__: f for f in (qcow2_killed,)}
sys.exit(run(TESTS, sys.argv[3:]))
