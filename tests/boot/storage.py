#!/usr/bin/env python3
"""Debian's kernel with its own drivers, and SeaBIOS, on Bailey's IDE, AHCI and virtio-scsi controllers: a file system on a disk, an ISO in a
CD-ROM drive, a boot sector on both.

usage: storage.py BAILEY GUESTS-DIRECTORY [NAME...]
"""
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(__file__))
from boot import PROMPT, Failure, Guest, run, tool, usage_guard  # noqa: E402

usage_guard(sys.argv)
BAILEY, GUESTS = sys.argv[1], sys.argv[2]
TROUBLE = re.compile(r"failed command|exception Emask|hard resetting|I/O error|timeout|EXT4-fs error|BUG|WARNING|lost interrupt|frozen")


def sha256(data):
    return hashlib.sha256(data).hexdigest()


class Images:
    """An empty ext4 file system on a disk, and an ISO with one file of random bytes."""

    def __init__(self, folder, megabytes=96):
        self.disk, self.iso = os.path.join(folder, "disk.img"), os.path.join(folder, "disc.iso")
        with open(self.disk, "wb") as f:
            f.truncate(megabytes << 20)
        tool("mkfs.ext4", "-q", "-F", self.disk)
        tree = os.path.join(folder, "tree")
        os.mkdir(tree)
        self.payload = os.urandom((9 << 20) + 12345)
        with open(os.path.join(tree, "payload"), "wb") as f:
            f.write(self.payload)
        tool("genisoimage", "-quiet", "-R", "-o", self.iso, tree)

    def file(self, name):
        return tool("debugfs", "-R", f"cat {name}", self.disk).split(b"\n", 1)[1]  # behind debugfs's own line

    def check_disk(self, sums):
        """What the guest wrote, seen from outside."""
        tool("e2fsck", "-f", "-n", self.disk)
        for name, digest in sums.items():
            if sha256(self.file(name)) != digest:
                raise Failure(f"{name} on the disk is not what the guest wrote")


def session(options, work, append=""):
    guest = Guest(BAILEY, ["-m", "256", "-kernel", os.path.join(GUESTS, "vmlinuz-generic"), "-initrd",
                           os.path.join(GUESTS, "storage.cpio.gz"), "-append", "console=ttyS0 " + append, "-nographic",
                           "-no-reboot", *options])
    try:
        guest.expect(re.escape(PROMPT), 120)
        guest.command("stty cols 400; dmesg -n 1")
        work(guest)
        trouble = TROUBLE.search(guest.command("dmesg"))
        if trouble:
            raise Failure(f"the kernel complains: {trouble.group(0)}\n" + guest.command("dmesg | tail -n 60")[-4000:])
        if guest.finish("poweroff -f") != 0:
            raise Failure("exit status after power-off")
    finally:
        guest.kill()


def digest_of(guest, path):
    return guest.command(f"sha256sum {path}", 120).split()[0]


def write_files(guest, sums, disk="/dev/sda"):
    guest.command(f"mount {disk} /mnt")
    guest.command("head -c 20000000 /dev/urandom > /mnt/big; seq 1 200000 > /mnt/text", 120)
    guest.command("mkdir /mnt/many; for i in $(seq 1 300); do echo $i > /mnt/many/$i; done; rm /mnt/many/1?? ; sync", 120)
    for name in ("big", "text"):
        sums[name] = digest_of(guest, "/mnt/" + name)
    guest.command("umount /mnt; echo 3 > /proc/sys/vm/drop_caches")
    guest.command(f"mount {disk} /mnt")
    for name, digest in sums.items():
        if digest_of(guest, "/mnt/" + name) != digest:
            raise Failure(f"{name} reads differently after it was written")
    guest.command("umount /mnt; sync")


def read_disc(guest, images):
    guest.command("mount -t iso9660 -o ro /dev/sr0 /mnt")
    if digest_of(guest, "/mnt/payload") != sha256(images.payload):
        raise Failure("the file on the ISO reads differently")
    guest.command("umount /mnt")
    with open(images.iso, "rb") as f:
        if digest_of(guest, "/dev/sr0") != sha256(f.read()):
            raise Failure("the ISO as a whole reads differently")


def disk_and_disc(options, append="", check=None):
    with tempfile.TemporaryDirectory() as folder:
        images, sums = Images(folder), {}

        def work(guest):
            if check:
                check(guest)
            write_files(guest, sums)
            read_disc(guest, images)
        session([o.format(disk=images.disk, iso=images.iso) for o in options], work, append)
        images.check_disk(sums)


def transfers_by(mode):
    def check(guest):
        now = guest.command("cat /sys/class/ata_device/dev1.0/xfer_mode").strip()
        if mode not in now:
            raise Failure(f"the disk's data move by {now}, not {mode}")
    return check


def says(pattern):
    def check(guest):
        if not re.search(pattern, guest.command("dmesg")):
            raise Failure(f"the kernel does not say {pattern!r}:\n" + guest.command("dmesg | grep -i ata")[-3000:])
    return check


IDE = ["-drive", "file={disk},format=raw", "-cdrom", "{iso}"]
AHCI = ["-device", "ich9-ahci,id=sata", "-drive", "if=none,id=d,format=raw,file={disk}", "-device", "ide-hd,drive=d,bus=sata.0",
        "-drive", "if=none,id=c,media=cdrom,file={iso}", "-device", "ide-cd,drive=c,bus=sata.3"]


def ide():
    disk_and_disc(IDE, check=transfers_by("MW_DMA_2"))


def ide_pio():
    disk_and_disc(IDE, append="libata.dma=0", check=transfers_by("PIO_4"))


def ide_smp():
    disk_and_disc(["-smp", "2", *IDE])


def ide_both_on_one_channel():
    disk_and_disc(["-drive", "index=1,format=raw,file={disk}", "-drive", "index=0,media=cdrom,file={iso}"])


def write_through():
    disk_and_disc(["-drive", "file={disk},format=raw,cache=writethrough", "-cdrom", "{iso}"])


def ahci():
    disk_and_disc(AHCI, check=says(r"NCQ \(depth 32\)"))


def ahci_without_msi():
    disk_and_disc(AHCI, append="pci=nomsi")


def ahci_without_queue():
    disk_and_disc(["-smp", "2", *AHCI], append="libata.force=noncq", check=says(r"NCQ \(not used\)"))


def trim(options=("-drive", "file={disk},format=raw,discard=unmap")):
    """fstrim gives the space of a deleted file back to the host."""
    with tempfile.TemporaryDirectory() as folder:
        images = Images(folder)

        def used():
            return os.stat(images.disk).st_blocks * 512

        def work(guest):
            guest.command("mount /dev/sda /mnt; head -c 40000000 /dev/urandom > /mnt/a; sync", 120)
            before = used()
            guest.command("rm /mnt/a; sync; fstrim /mnt; umount /mnt", 120)
            if used() > before - 30000000:
                raise Failure(f"{before} bytes were used before, {used()} after")
        session([o.format(disk=images.disk) for o in options], work)
        tool("e2fsck", "-f", "-n", images.disk)


SCSI = ["-device", "virtio-scsi-pci,id=s", "-drive", "if=none,id=d,format=raw,discard=unmap,file={disk}", "-device",
        "scsi-hd,drive=d,bus=s.0,serial=SN123", "-drive", "if=none,id=c,media=cdrom,file={iso}", "-device", "scsi-cd,drive=c,bus=s.0"]


def virtio_scsi():
    def check(guest):
        devices = guest.command("ls /sys/class/scsi_device; cd /sys/block; cat sda/device/model sr0/device/model "
                                "sda/device/vpd_pg80 sda/queue/write_cache; cd /")
        for word in (":0:0:0", ":0:1:0", "HARDDISK", "DVD-ROM", "SN123", "write back"):
            if word not in devices:
                raise Failure(f"no {word!r} among what the kernel knows:\n{devices}")
    disk_and_disc(SCSI, check=check)


def virtio_scsi_smp_queues():
    """Two processors, a queue and a vector for each."""
    def check(guest):
        vectors = guest.command("grep -c 'virtio.*request' /proc/interrupts").strip()
        if vectors != "2":
            raise Failure(f"{vectors} vectors of request queues")
    disk_and_disc(["-smp", "2", *SCSI], check=check)


def virtio_scsi_without_msi():
    disk_and_disc(SCSI, append="pci=nomsi")


def virtio_scsi_trim():
    trim(["-device", "virtio-scsi-pci", "-drive", "if=none,id=d,format=raw,discard=unmap,file={disk}", "-device",
          "scsi-hd,drive=d"])


def empty_tray():
    """The CD-ROM drive that every PC has."""
    def work(guest):
        if "sr0" not in guest.command("ls /dev"):
            raise Failure("there is no /dev/sr0")
        guest.command("dd if=/dev/sr0 of=/dev/null count=1", status=1)
        if "1" not in guest.command("cat /sys/block/sr0/removable"):
            raise Failure("the drive is not one for removable media")
    session([], work)


# ---- SeaBIOS as the driver ----------------------------------------------------------------------

LBA, COUNT = 77, 20  # of what the boot sector reads
TEXT = "".join(f"line {i} of the second stage\n" for i in range(300))


def boot_sector(folder, name="boot_sector.S"):
    out = os.path.join(folder, "boot.bin")
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), name)
    tool("gcc", "-m32", "-c", f"-DLBA={LBA}", f"-DCOUNT={COUNT}", source, "-o", out + ".o")
    tool("ld", "-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary", out + ".o", "-o", out)
    with open(out, "rb") as f:
        return f.read()


def expect_output(options, image, text):
    done = subprocess.run([BAILEY, "-m", "64", "-display", "none", "-debugcon", "stdio", "-device",
                           "isa-debug-exit,iobase=0x501,iosize=1", *[o.format(image=image) for o in options]],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, check=False)
    if done.returncode != 33 or done.stdout.decode() != text:
        raise Failure(f"status {done.returncode}, output:\n{done.stdout.decode(errors='replace')[-1000:]}")


def survives_reset(*options):
    """What the firmware writes is there after a reset of the machine, in its memory of the disk and in the file."""
    with tempfile.TemporaryDirectory() as folder:
        image = os.path.join(folder, "image")
        with open(image, "wb") as f:
            f.write(boot_sector(folder, "reset_sector.S"))
            f.truncate(1 << 20)
        expect_output(options, image, "found the mark\n")
        with open(image, "rb") as f:
            f.seek(512)
            if f.read(1) != b"M":
                raise Failure("the mark is not in the image")


def reset_ide():
    survives_reset("-drive", "file={image},format=raw")


def reset_ahci():
    survives_reset("-device", "ahci,id=s", "-drive", "if=none,id=d,format=raw,file={image}", "-device", "ide-hd,drive=d,bus=s.0")


def firmware_boots(options, block):
    """A disk (512-byte blocks) or an ISO (2048) whose boot sector reads TEXT from block LBA on."""
    with tempfile.TemporaryDirectory() as folder:
        image, sector = os.path.join(folder, "image"), boot_sector(folder)
        if block == 512:
            with open(image, "wb") as f:
                f.write(sector)
                f.truncate(1 << 20)
        else:
            tree = os.path.join(folder, "tree")
            os.mkdir(tree)
            shutil.copy(os.path.join(folder, "boot.bin"), tree)
            tool("genisoimage", "-quiet", "-R", "-b", "boot.bin", "-no-emul-boot", "-boot-load-size", "1", "-o", image, tree)
        with open(image, "r+b") as f:
            f.seek(LBA * block)
            f.write(TEXT.encode() + bytes(COUNT * block - len(TEXT)))
            f.seek(0, 2)
            f.truncate(max(f.tell(), (LBA + COUNT) * block))
        expect_output(["-no-reboot", *options], image, TEXT)


def seabios_ide_disk():
    firmware_boots(["-drive", "file={image},format=raw"], 512)


def seabios_ide_slave():
    firmware_boots(["-drive", "file={image},format=raw,index=3"], 512)


def seabios_ide_disc():
    firmware_boots(["-cdrom", "{image}"], 2048)


def seabios_ahci_disk():
    firmware_boots(["-device", "ahci,id=s", "-drive", "if=none,id=d,format=raw,file={image}", "-device", "ide-hd,drive=d,bus=s.1"], 512)


def seabios_scsi_disk():
    firmware_boots(["-device", "virtio-scsi-pci", "-drive", "if=none,id=d,format=raw,file={image}", "-device",
                    "scsi-hd,drive=d,scsi-id=9,lun=3,bootindex=0"], 512)


def seabios_scsi_disc():
    firmware_boots(["-device", "virtio-scsi-pci", "-drive", "if=none,id=d,media=cdrom,file={image}", "-device",
                    "scsi-cd,drive=d"], 2048)


def seabios_ahci_disc():
    firmware_boots(["-device", "ahci,id=s", "-drive", "if=none,id=d,media=cdrom,file={image}", "-device", "ide-cd,drive=d,bus=s.5"], 2048)


TESTS = {f.__name__: f for f in (ide, ide_pio, ide_smp, ide_both_on_one_channel, write_through, ahci, ahci_without_msi,
                                 ahci_without_queue, trim, virtio_scsi, virtio_scsi_smp_queues,
                                 virtio_scsi_without_msi, virtio_scsi_trim, seabios_scsi_disk, seabios_scsi_disc, empty_tray, seabios_ide_disk, seabios_ide_slave,
                                 seabios_ide_disc, seabios_ahci_disk, seabios_ahci_disc, reset_ide, reset_ahci)}
sys.exit(run(TESTS, sys.argv[3:]))
